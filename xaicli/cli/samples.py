"""`xai samples`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import AxisOption, EngineChoice, Output, RunDir, SampleChoice, Selection
from xaicli.cli.output import write
from xaicli.vocabulary import Axis


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
