"""`xai import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Debug, Json, NoProgress, Output, Quiet, local_path
from xaicli.cli.output import write


@command
def import_(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder that another tracker wrote.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=local_path,
            metavar="RUN_DIR",
            help="The run directory to make [default: runs/NAME]; of several runs each is made below it.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="KIND",
            help="tensorboard, wandb, trackio, csv, or what another package brings [default: told from SRC].",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this run of SRC [default: all].", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Make a run directory of what TensorBoard, W&B (offline), trackio or a CSV file holds.

    Example: xai import lightning_logs/version_0 -o runs/imported
    """
    from xaicli.importers.importing import import_run

    result = import_run(source, output, kind=kind, run=run)
    made = [Path(one) for one in result.data["run"]]
    write(result, Output(json=json, quiet=quiet, no_progress=no_progress, debug=debug), beside=lambda: made)
