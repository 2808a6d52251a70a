"""`xai confusion`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir, Selection
from xaicli.cli.output import write


@command
def confusion(
    run_dir: RunDir = None,
    *,
    cell: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL,PREDICTION",
            help="The samples of one cell with their histories, worst first.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Figures for each value of a column.", show_default=False)
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="At most N samples of a cell [default: 20].", show_default=False)
    ] = None,
    select: Selection,
    output: Output,
) -> None:
    """Who is taken for whom, precision, recall and F1 of each label over the epochs, calibration.

    Example: xai confusion runs/demo --cell 3,8
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.confusion(cell=cell, by=by, top=top, **select.arguments())
    write(result, output)
