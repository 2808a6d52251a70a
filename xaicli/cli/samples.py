"""`xai samples`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir, SampleChoice, Selection
from xaicli.cli.output import write


@command
def samples(
    run_dir: RunDir = None,
    *,
    select: Selection,
    choice: SampleChoice,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask a metrics table instead.", show_default=False)
    ] = None,
    reduce: Annotated[
        str, typer.Option(help="Several rows of a sample in a table: max, min, mean, count, first.")
    ] = "mean",
    output: Output,
) -> None:
    """The samples with the highest and lowest values, and listed ones, with their histories.

    Example: xai samples runs/demo --metric loss --max 10 --min 0 --ids 17,42
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.samples(table=table, reduce=reduce, **choice.arguments(), **select.arguments())
    write(result, output, folder=run.layout.reports)
