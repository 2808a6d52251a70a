"""`xai doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir
from xaicli.cli.output import write


@command
def doctor(
    run_dir: RunDir = None,
    *,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move damaged files to RUN_DIR/quarantine, where nothing reads them.")
    ] = False,
    output: Output,
) -> None:
    """Verify every checksum of a run and name what is damaged. Exit status 1 if anything is.

    Example: xai doctor runs/demo
    """
    from xaicli import api

    layout = api.open_run(run_dir).layout
    result = api.doctor(layout, quarantine=quarantine)
    write(result, output, folder=layout.reports)
    if result.answer.counts.damaged:
        raise typer.Exit(1)
