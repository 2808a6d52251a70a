"""The questions about one run: `xai track-report`, `samples`, `labels`, `dynamics`, `findings`, `info`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import (
    AttemptsOption,
    AxisOption,
    BoundsOption,
    BurnIn,
    EarlyEpochs,
    EngineChoice,
    Output,
    RunDir,
    SampleChoice,
    Selection,
    Strict,
    Truth,
)
from xaicli.cli.output import REPORT_FORMATS, write
from xaicli.vocabulary import Attempts, Axis


@command
def track_report(
    run_dir: RunDir = None,
    bounds: BoundsOption = ("std",),  # type: ignore[assignment]
    truth: Truth = None,
    *,
    select: Selection,
    engines: EngineChoice,
    choice: SampleChoice,
    axis: AxisOption = Axis.EPOCH.value,
    output: Output,
) -> None:
    """Everything about a run on one page: histories, labels, data map, suspects, scalars, how the run was made.

    Example: xai track-report runs/demo --max 10 --min 0 --open
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.report(
        bounds=bounds, truth=truth, **choice.arguments(), **select.arguments(), **engines.arguments(), axis=axis
    )
    write(result, output, always=REPORT_FORMATS)


@command
def samples(
    run_dir: RunDir = None,
    *,
    select: Selection,
    engines: EngineChoice,
    choice: SampleChoice,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask a metrics table instead.", show_default=False)
    ] = None,
    reduce: Annotated[
        str | None,
        typer.Option(
            help="Several rows of a sample in a table: max, min, mean, count, first [default: mean].",
            show_default=False,
        ),
    ] = None,
    axis: AxisOption = Axis.EPOCH.value,
    output: Output,
) -> None:
    """The samples with the highest and lowest values, and listed ones, with their histories.

    Example: xai samples runs/demo --metric loss --max 10 --min 0 --ids 17,42
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.samples(
        table=table, reduce=reduce, **choice.arguments(), **select.arguments(), **engines.arguments(), axis=axis
    )
    write(result, output)


@command
def labels(
    run_dir: RunDir = None,
    *,
    bounds: BoundsOption = ("std",),  # type: ignore[assignment]
    axis: AxisOption = Axis.EPOCH.value,
    select: Selection,
    engines: EngineChoice,
    output: Output,
) -> None:
    """Each label's mean and spread over time, one picture per bound.

    Example: xai labels runs/demo --bounds std,range --label-map cat=3,dog=5
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.labels(bounds=bounds, **select.arguments(), **engines.arguments(), axis=axis)
    write(result, output, always=REPORT_FORMATS)


@command
def dynamics(
    run_dir: RunDir = None,
    *,
    early_epochs: EarlyEpochs = 10,
    burn_in: BurnIn = 2,
    truth: Truth = None,
    select: Selection,
    engines: EngineChoice,
    output: Output,
) -> None:
    """Every training-dynamics statistic of every sample, and the data map.

    Example: xai dynamics runs/demo --mode train --metric loss,margin --json
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.dynamics(
        early_epochs=early_epochs, burn_in=burn_in, truth=truth, **select.arguments(), **engines.arguments()
    )
    write(result, output)


@command
def findings(
    run_dir: RunDir = None,
    *,
    top: Annotated[int, typer.Option(metavar="N", help="At most so many of each kind.")] = 10,
    early_epochs: EarlyEpochs = 10,
    burn_in: BurnIn = 2,
    select: Selection,
    engines: EngineChoice,
    output: Output,
) -> None:
    """What to look at first: suspects, ambiguous, forgotten, suddenly moved samples, departing labels.

    Example: xai findings runs/demo --mode train --top 5
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.findings(
        top=top, early_epochs=early_epochs, burn_in=burn_in, **select.arguments(), **engines.arguments()
    )
    write(result, output)


@command
def info(
    run_dir: RunDir = None,
    *,
    attempts: AttemptsOption = Attempts.LAST.value,
    strict: Strict = False,
    output: Output,
) -> None:
    """What a run holds: modes, epochs, metrics, rows, drops, gaps.

    Example: xai info runs/demo
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    write(run.info(attempts=attempts, strict=strict), output)
