"""What keeps runs whole: `xai compact`, `doctor`, `sync`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Debug, Json, NoProgress, Output, Quiet, RunDir
from xaicli.cli.output import write
from xaicli.cli.status import end_status
from xaicli.errors import UsageError
from xaicli.progress import doing


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
