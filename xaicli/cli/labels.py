"""`xai labels`."""

from __future__ import annotations

from xaicli.cli.command import command
from xaicli.cli.options import AxisOption, BoundsOption, EngineChoice, Output, RunDir, Selection
from xaicli.cli.output import REPORT_FORMATS, write
from xaicli.vocabulary import Axis


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
