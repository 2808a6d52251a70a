"""`xai slices`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir, Selection, split_commas
from xaicli.cli.output import write


@command
def slices(
    run_dir: RunDir = None,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            metavar="LIST",
            help="Facts and columns to slice by [default: the label and every fact].",
            show_default=False,
        ),
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Facts of a CSV, Parquet or JSON-lines file with sample_id.", show_default=False
        ),
    ] = None,
    min_n: Annotated[int, typer.Option(metavar="N", help="Samples a slice must have.")] = 30,
    select: Selection,
    output: Output,
) -> None:
    """Where the data is worst: groups that share facts or a label and differ from all other samples.

    Example: xai slices runs/demo --by label,prediction
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    write(run.slices(by=by, facts=facts, min_n=min_n, **select.arguments()), output)
