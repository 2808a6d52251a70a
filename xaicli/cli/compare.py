"""`xai compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Ids, Output, Selection
from xaicli.cli.output import write


@command
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="Two runs (also s3://...) or more, or folders of runs."),
    ],
    *,
    max: Annotated[int, typer.Option(metavar="N", help="The N samples that grew most.")] = 5,
    min: Annotated[int, typer.Option(metavar="N", help="The N samples that fell most.")] = 5,
    ids: Ids = None,
    select: Selection,
    output: Output,
) -> None:
    """The same metric, labels and samples side by side between runs, and the samples that flipped.

    Example: xai compare runs/a runs/b --metric loss
    """
    from xaicli import api

    result = api.compare(*runs, max=max, min=min, ids=ids, **select.arguments())
    write(result, output)
