"""`xai info`."""

from __future__ import annotations

from xaicli.cli.command import command
from xaicli.cli.options import AttemptsOption, Output, RunDir, Strict
from xaicli.cli.output import write
from xaicli.vocabulary import Attempts


@command
def info(
    run_dir: RunDir = None,
    *,
    attempts: AttemptsOption = Attempts.LAST.value,
    strict: Strict = False,
    output: Output,
) -> None:
    """What a run holds: modes, epochs, metrics, rows, drops, gaps.

    Example: xai info runs/demo
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    write(run.info(attempts=attempts, strict=strict), output)
