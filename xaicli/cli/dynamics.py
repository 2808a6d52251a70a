"""`xai dynamics`."""

from __future__ import annotations

from xaicli.cli.command import command
from xaicli.cli.options import BurnIn, EarlyEpochs, EngineChoice, Output, RunDir, Selection, Truth
from xaicli.cli.output import write


@command
def dynamics(
    run_dir: RunDir = None,
    *,
    early_epochs: EarlyEpochs = 10,
    burn_in: BurnIn = 2,
    truth: Truth = None,
    select: Selection,
    engines: EngineChoice,
    output: Output,
) -> None:
    """Every training-dynamics statistic of every sample, and the data map.

    Example: xai dynamics runs/demo --mode train --metric loss,margin --json
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.dynamics(
        early_epochs=early_epochs, burn_in=burn_in, truth=truth, **select.arguments(), **engines.arguments()
    )
    write(result, output)
