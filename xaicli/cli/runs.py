"""Runs side by side, and what keeps them whole: `xai ls`, `compare`, `scalars`, `compact`, `doctor`, `sync`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import (
    AttemptsOption,
    Debug,
    Ids,
    Json,
    NoProgress,
    Output,
    Quiet,
    RunDir,
    Selection,
    Strict,
    choices,
    split_commas,
    split_ds_ids,
)
from xaicli.cli.output import write
from xaicli.cli.status import end_status
from xaicli.errors import UsageError
from xaicli.progress import doing
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


@command
def compact(
    run_dir: RunDir = None,
    *,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long replaced files stay for programs that read the run at this moment."
        ),
    ] = 600.0,
    output: Output,
) -> None:
    """Make one file an epoch, sorted by sample: faster questions, fewer files. Safe beside a running training.

    Example: xai compact runs/demo
    """
    from xaicli import api

    layout = api.open_run(run_dir).layout
    write(api.compact(layout, grace=grace), output, folder=layout.reports)


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


@command
def sync(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The run directory, or its address in a store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The address (s3://...), or a folder to pull into.")],
    json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Push a run to an object store, or pull one from it; only what is missing travels.

    Example: xai sync runs/exp1 s3://bucket/exp1
    """
    del debug, no_progress
    import polars as pl

    from xaicli.answer import Answer, Counts
    from xaicli.layout import RunLayout
    from xaicli.location import find_run
    from xaicli.render.machine import to_json
    from xaicli.store.objects import Store, is_url
    from xaicli.store.sync import pull, push

    if is_url(source) == is_url(target):
        raise UsageError(
            "one of SOURCE and TARGET must be a run directory, the other an address such as s3://bucket/run",
            hint="push: xai sync runs/exp1 s3://bucket/exp1; pull: xai sync s3://bucket/exp1 runs/exp1",
        )
    told = partial(doing, "copying files")
    if is_url(target):
        done = push(find_run(source).root, Store(target), progress=told)
    else:
        done = pull(Store(source), Path(target), progress=told)
        RunLayout(Path(target)).read_manifest()
    end_status()
    paths = [] if is_url(target) else [str(Path(target) / key) for key in done.sent]
    if json:
        answer = Answer(
            command="sync",
            run=source if is_url(target) else target,
            selection={"source": source, "target": target},
            data=pl.DataFrame({"key": done.sent}, schema={"key": pl.String()}),
            counts=Counts(rows=len(done.sent)),
            extra={"bytes": done.bytes, "present": done.present},
        )
        print(to_json(answer, paths))
    elif quiet:
        print("".join(f"{path}\n" for path in paths or done.sent), end="")
    else:
        print(f"{len(done.sent)} files ({done.bytes / 1e6:.1f} MB) went to {target}; {done.present} were there.")
