"""`xai compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir
from xaicli.cli.output import write


@command
def compact(
    run_dir: RunDir = None,
    *,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long replaced files stay for readers that have listed them.")
    ] = 600.0,
    output: Output,
) -> None:
    """Make one file an epoch, sorted by sample: faster questions, fewer files. Safe beside a running training.

    Example: xai compact runs/demo
    """
    from xaicli import api

    layout = api.open_run(run_dir).layout
    write(api.compact(layout, grace=grace), output, folder=layout.reports)
