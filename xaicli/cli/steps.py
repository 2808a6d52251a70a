"""`xai steps`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir, Selection, choices
from xaicli.cli.output import write
from xaicli.vocabulary import Duplicates


@dataclasses.dataclass(frozen=True)
class Batches(Selection):
    """Which batches a question is about: every row of them, whatever repeats in an epoch."""

    duplicates: Annotated[
        str,
        typer.Option(help=f"Rows of one sample in one epoch: {choices(Duplicates)}.", rich_help_panel="Selection"),
    ] = Duplicates.ALL.value


@command
def steps(
    run_dir: RunDir = None,
    *,
    step: Annotated[
        int | None,
        typer.Option(metavar="N", help="The samples of step N by their share of its loss.", show_default=False),
    ] = None,
    around: Annotated[
        int | None, typer.Option(metavar="N", help="Only the steps within 50 of step N.", show_default=False)
    ] = None,
    spikes: Annotated[
        int | None,
        typer.Option(metavar="N", help="The N highest spikes with their samples [default: 5].", show_default=False),
    ] = None,
    select: Batches,
    output: Output,
) -> None:
    """What happened at a step: spikes of the loss, the first non-finite one, and the samples in them.

    Without --mode the batches of the training.

    Example: xai steps runs/demo --spikes 3
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.steps(step=step, around=around, spikes=spikes, **select.arguments())
    write(result, output)
