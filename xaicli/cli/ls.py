"""`xai ls`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output
from xaicli.cli.output import write


@command
def ls(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to look.")] = Path(),
    *,
    output: Output,
) -> None:
    """The runs at or below a folder.

    Example: xai ls runs
    """
    from xaicli.api import list_runs

    write(list_runs(folder), output)
