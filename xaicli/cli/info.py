"""`xai info`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir
from xaicli.cli.output import write


@command
def info(
    run_dir: RunDir = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on a damaged file instead of leaving it out.")] = False,
    output: Output,
) -> None:
    """What a run holds: modes, epochs, metrics, rows, drops, gaps.

    Example: xai info runs/demo
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    write(run.info(strict=strict), output, folder=run.layout.reports)
