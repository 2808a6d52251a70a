"""`xai labels`."""

from __future__ import annotations

from xaicli.cli.command import command
from xaicli.cli.options import BoundsOption, Output, RunDir, Selection
from xaicli.cli.output import REPORT_FORMATS, write


@command
def labels(run_dir: RunDir = None, *, bounds: BoundsOption = ("std",), select: Selection, output: Output) -> None:  # type: ignore[assignment]
    """Each label's mean and spread over time, one picture per bound.

    Example: xai labels runs/demo --bounds std,range --label-map cat=3,dog=5
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.labels(bounds=bounds, **select.arguments())
    write(result, output, folder=run.layout.reports, always=REPORT_FORMATS)
