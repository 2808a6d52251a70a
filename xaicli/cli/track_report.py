"""`xai track-report`."""

from __future__ import annotations

from xaicli.cli.command import command
from xaicli.cli.options import AxisOption, BoundsOption, EngineChoice, Output, RunDir, SampleChoice, Selection, Truth
from xaicli.cli.output import REPORT_FORMATS, write
from xaicli.vocabulary import Axis


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
