"""Several runs: `xai ls`, `compare`, `scalars`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import AttemptsOption, Ids, Output, Selection, Strict, choices, split_commas, split_ds_ids
from xaicli.cli.output import write
from xaicli.vocabulary import Attempts, Mode


@command
def ls(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="Where to look.")] = ".",
    *,
    output: Output,
) -> None:
    """The runs at or below a folder.

    Example: xai ls runs
    """
    from xaicli.api import list_runs

    write(list_runs(folder), output)


@command
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="Two runs (also s3://...) or more, or folders of runs."),
    ],
    *,
    max: Annotated[int, typer.Option(metavar="N", help="The N samples that grew most.")] = 5,
    min: Annotated[int, typer.Option(metavar="N", help="The N samples that fell most.")] = 5,
    ids: Ids = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN,...",
            help="Compare groups of runs, those of one as replicates (repeat).",
            show_default=False,
        ),
    ] = None,
    select: Selection,
    output: Output,
) -> None:
    """Which run is better and by how much, the same metric, labels and samples, and the samples that flipped.

    Example: xai compare runs/a runs/b --metric loss
    """
    from xaicli import api

    result = api.compare(*runs, max=max, min=min, ids=ids, group=group, **select.arguments())
    write(result, output)


@command
def scalars(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN_DIR]...",
            help="Runs or addresses, FastEstimator logs (.txt), or folders of either [default: as for other commands].",
            show_default=False,
        ),
    ] = None,
    *,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            "--metric",
            callback=split_commas,
            help="Scalars by name or pattern (repeat or comma) [default: all].",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas, help=f"Modes: {choices(Mode)}, all, or !MODE [default: all].", show_default=False
        ),
    ] = None,
    ds_id: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_ds_ids, help="Dataset ids ('' is the one without a name) [default: all].", show_default=False
        ),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(metavar="W", help="Weight of the past in an exponential mean, from 0 to below 1.")
    ] = 0.0,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN,...",
            help="Show the runs whose path or name matches as one: mean and spread (repeat).",
            show_default=False,
        ),
    ] = None,
    attempts: AttemptsOption = Attempts.LAST.value,
    strict: Strict = False,
    output: Output,
) -> None:
    """The scalars, summaries and custom graphs of one or several runs over time.

    Example: xai scalars runs/a runs/b --key loss --smoothing 0.6 --group "both=runs/*"
    """
    from xaicli.api import open_run, scalars

    given = tuple(runs) if runs else (open_run(),)
    result = scalars(
        *given, key=key, mode=mode, ds_id=ds_id, smoothing=smoothing, group=group, attempts=attempts, strict=strict
    )
    write(result, output)
