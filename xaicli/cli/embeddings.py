"""`xai embeddings`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir, split_commas
from xaicli.cli.output import REPORT_FORMATS, write


@command
def embeddings(
    run_dir: RunDir = None,
    table: Annotated[str, typer.Option(help="The table they were collected into.")] = "metrics",
    column: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas, show_default=False, help="Columns of vectors [default: the reduced ones, else all]."
        ),
    ] = None,
    colour: Annotated[
        str | None,
        typer.Option(show_default=False, help="The column that colours the points [default: the label]."),
    ] = None,
    epoch: Annotated[int | None, typer.Option(show_default=False, help="That epoch [default: the last].")] = None,
    split: Annotated[str | None, typer.Option(show_default=False, help="That split [default: all].")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on a damaged file instead of leaving it out.")] = False,
    *,
    output: Output,
) -> None:
    """Collected embeddings as a picture, coloured by a label or a metric.

    Example: xai embeddings runs/demo --colour loss
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.embeddings(table=table, column=column, colour=colour, epoch=epoch, split=split, strict=strict)
    write(result, output, always=REPORT_FORMATS)
