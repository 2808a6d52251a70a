"""Who is taken for whom, what happened at a step, where the data is worst: `xai confusion`, `steps`, `slices`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir, Selection, choices, not_again, split_commas
from xaicli.cli.output import write
from xaicli.vocabulary import Duplicates, Mode


@command
def confusion(
    run_dir: RunDir = None,
    *,
    cell: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL,PREDICTION",
            help="The samples of one cell with their histories, worst first.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            callback=not_again, metavar="COLUMN", help="Figures for each value of a column.", show_default=False
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="At most N samples of a cell [default: 20].", show_default=False)
    ] = None,
    select: Selection,
    output: Output,
) -> None:
    """Who is taken for whom, precision, recall and F1 of each label over the epochs, calibration.

    Example: xai confusion runs/demo --cell 3,8
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.confusion(cell=cell, by=by[0] if by else None, top=top, **select.arguments())
    write(result, output)


@dataclasses.dataclass(frozen=True)
class Batches(Selection):
    """Which batches a question is about: every row of them, whatever repeats in an epoch."""

    mode: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            help=f"Modes: {choices(Mode)}, all, or !MODE for the others [default: train, else eval].",
            rich_help_panel="Selection",
            show_default=False,
        ),
    ] = None
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
        int | None,
        typer.Option(
            metavar="N", help="Only the steps within 50 of step N; which samples return is of all.", show_default=False
        ),
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


@command
def errors(
    run_dir: RunDir = None,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas, metavar="LIST", help="Facts and columns to tell errors by.", show_default=False
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL", help="Of two classes the one that is looked for [default: the later].", show_default=False
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="N", help="At most N of each list: worst samples and tokens, doubted labels, swapped pairs."
        ),
    ] = 20,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Collected objects: boxes or instances [default: of a run without samples].",
            show_default=False,
        ),
    ] = None,
    select: Selection,
    output: Output,
) -> None:
    """How the model errs, as its task asks: residuals, thresholds, sets of classes, tokens, objects.

    Example: xai errors runs/prices --by source
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    write(run.errors(by=by, positive=positive, top=top, table=table, **select.arguments()), output)


@command
def slices(
    run_dir: RunDir = None,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            metavar="LIST",
            help="Facts and columns to slice by [default: the label and every fact].",
            show_default=False,
        ),
    ] = None,
    min_n: Annotated[int, typer.Option(metavar="N", help="Samples a slice must have.")] = 30,
    select: Selection,
    output: Output,
) -> None:
    """Where the data is worst: groups that share facts or a label and differ from all other samples.

    Example: xai slices runs/demo --by label,prediction
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    write(run.slices(by=by, min_n=min_n, **select.arguments()), output)
