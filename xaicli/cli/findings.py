"""`xai findings`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import BurnIn, EarlyEpochs, EngineChoice, Output, RunDir, Selection
from xaicli.cli.output import write


@command
def findings(
    run_dir: RunDir = None,
    *,
    top: Annotated[int, typer.Option(metavar="N", help="At most so many of each kind.")] = 10,
    early_epochs: EarlyEpochs = 10,
    burn_in: BurnIn = 2,
    select: Selection,
    engines: EngineChoice,
    output: Output,
) -> None:
    """What to look at first: suspects, ambiguous, forgotten, suddenly moved samples, departing labels.

    Example: xai findings runs/demo --mode train --top 5
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.findings(
        top=top, early_epochs=early_epochs, burn_in=burn_in, **select.arguments(), **engines.arguments()
    )
    write(result, output)
