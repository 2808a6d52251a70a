"""`xai watch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Debug, Json, RunDir, split_commas, split_ds_ids, split_one
from xaicli.errors import UsageError, XaiError

if TYPE_CHECKING:
    from xaicli.answer import Answer
    from xaicli.watch.screen import Until
    from xaicli.watch.training import Training, Watched


@command
def watch(
    run_dir: RunDir = None,
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option(callback=split_one, help="The metric [default: loss, else the first].", show_default=False),
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option(callback=split_commas, help="Modes [default: all].", show_default=False)
    ] = None,
    ds_id: Annotated[
        list[str] | None, typer.Option(callback=split_ds_ids, help="Data sets [default: all].", show_default=False)
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="N", help="So many samples and spikes, labels that are worst, and labels that fell behind most."
        ),
    ] = 5,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between two looks, at least.")] = 2.0,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Leave when it holds of the newest whole place, or of a later one: 'loss mean < 0.1'; exit 1 if the "
            "training ends or dies first.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and leave.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """A training as it runs: losses, worst samples, spikes, labels that fall behind, rows a second, drops, time left.

    Waits for a run, mode, data set or metric that is not there yet; of an address (s3://...) it cannot tell whether
    the training goes on. Keys: q leaves, s sorts the labels, n goes to the next data set, o opens the report. Without a
    terminal it prints a line for each change.

    Example: xai watch runs/demo --once
    """
    del debug
    if json and not once:
        raise UsageError("--json is one answer, and watching has no end", hint="add --once", refused=("json",))
    if once and until is not None:
        raise UsageError(
            "--once looks once, --until goes on", hint="leave one of them out", refused=("once",), by=("until",)
        )
    if not interval > 0:
        raise UsageError(f"--interval must be above 0, not {interval:g}", hint="--interval 2")
    followed = metric[0] if metric else None
    if json or once:
        _once(run_dir, followed, mode, ds_id, top, json=json)
        return
    _go_on(run_dir, followed, mode, ds_id, top, interval, until)


def _once(
    run_dir: str | None, metric: str | None, mode: list[str] | None, ds_id: list[str] | None, top: int, *, json: bool
) -> None:
    from xaicli.cli.output import json_output
    from xaicli.cli.status import end_status
    from xaicli.location import find_run
    from xaicli.store.objects import is_url
    from xaicli.watch.training import Training
    from xaicli.watch.view import Shown, screen

    is_remote = is_url(run_dir or os.environ.get("XAI_RUN") or "")
    training = Training(find_run(run_dir), metric=metric, mode=mode, ds_id=ds_id, top=top, is_remote=is_remote)
    watched = training.look()
    end_status()
    if json:
        from xaicli.render.machine import to_json

        with json_output() as stream:
            print(to_json(_answer(training, watched, metric, mode, ds_id, top)), file=stream)
        return
    console = _console()
    console.print(screen(watched, Shown(), title=training.layout.described, width=console.width, keys=False))


def _console() -> Any:
    from xaicli.render.terminal import console

    # The width as everywhere: COLUMNS where it is set.
    return console(force_terminal=None if sys.stdout.isatty() else False)


def _answer(
    training: Training,
    watched: Watched,
    metric: str | None,
    mode: list[str] | None,
    ds_id: list[str] | None,
    top: int,
) -> Answer:
    """The training at one moment, as the JSON of every command."""
    import polars as pl

    from xaicli.answer import Answer

    text, whole, number = pl.String(), pl.Int64(), pl.Float64()
    point = pl.Struct({"epoch": whole, "pass": whole, "mean": number})
    schema = {
        **dict.fromkeys(("mode", "ds_id"), text),
        **dict.fromkeys(("epoch", "pass", "step"), whole),
        "metric": text,
        **dict.fromkeys(("n", "n_before"), whole),
        **dict.fromkeys(("mean", "before", "accuracy"), number),
        **dict.fromkeys(("non_finite", "duplicates"), whole),
        "history": pl.List(point),
    }
    rows = [
        {
            **{name: getattr(now, name) for name in schema if hasattr(now, name)},
            "pass": now.turn,
            "metric": watched.metric,
            "history": [{"epoch": epoch, "pass": turn, "mean": mean} for epoch, turn, mean in now.history],
        }
        for now in watched.places
    ]
    lists = {name: list(getattr(watched, name)) for name in ("worst", "labels", "spikes", "spikes_since")}
    figures = ("state", "n_spikes", "rows_per_second", "total_epochs", "seconds_left")
    return Answer(
        command="watch",
        run=training.layout.described,
        selection={"metric": metric or watched.metric, "mode": mode, "ds_id": ds_id, "top": top},
        data=pl.DataFrame(rows, schema=schema, orient="row"),
        counts=_counts(training, watched),
        warnings=watched.warnings,
        extra={**{name: getattr(watched, name) for name in figures}, **lists},
    )


def _counts(training: Training, watched: Watched) -> Any:
    from dataclasses import replace

    # Rows that repeat a sample and values that are no number are counted of each newest place, not of all rows.
    return replace(training.reader.counts(), rows=watched.rows, dropped=watched.dropped)


def _of_store(place: str, found: list[Training], how: dict[str, Any]) -> Training | None:
    """The training at an address with what is new there; None where no run is there yet.

    Raises:
        XaiError: The store cannot be read at all.
    """
    from xaicli.location import find_run
    from xaicli.store.objects import Store
    from xaicli.watch.training import Training

    try:
        layout = find_run(place)
    except XaiError as error:
        if found:  # a store that cannot be reached for a while ends nothing
            found[0].behind = error.message
            return found[0]
        if "xai.json" in Store(place).entries():
            raise
        return None
    if found:
        found[0].behind = ""
    else:
        found.append(Training(layout, **how, is_remote=True))
    return found[0]


def _go_on(
    run_dir: str | None,
    metric: str | None,
    mode: list[str] | None,
    ds_id: list[str] | None,
    top: int,
    interval: float,
    until: str | None,
) -> None:
    from xaicli.cli.status import end_status
    from xaicli.location import find_run
    from xaicli.store.objects import is_url
    from xaicli.watch.screen import Until, watch
    from xaicli.watch.training import Training

    place = str(run_dir or os.environ.get("XAI_RUN") or "")
    asked = None if until is None else Until(until, mode=mode[0] if mode and len(mode) == 1 else None)
    found: list[Training] = []
    how: dict[str, Any] = {"metric": metric, "mode": mode, "ds_id": ds_id, "top": top, "waits": True}

    def source() -> Training | None:
        if is_url(place):
            return _of_store(place, found, how)
        if place and not found and not (Path(place) / "xai.json").is_file():
            return None
        if not found:
            found.append(Training(find_run(run_dir), **how))
        return found[0]

    def open_report() -> str:
        import webbrowser

        from xaicli.api import open_run

        try:
            page = open_run(place or found[0].layout.root).report().save(found[0].layout.reports, ["html"])[0]
        except XaiError as error:
            return error.message
        return f"opened {page}" if webbrowser.open(page.resolve().as_uri()) else f"wrote {page}"

    if not place:
        source()  # nothing was named: there must be one
    console = _console()
    is_screen = console.is_terminal and not console.is_dumb_terminal
    end_status()
    title = place or found[0].layout.described
    shown: dict[str, Any] = {"title": title, "interval": interval, "until": asked, "is_screen": is_screen}
    status = watch(source, **shown, open_report=open_report, console=console)
    if status and asked is not None:
        raise XaiError(f"the training is over, and {until!r} does not hold", hint=_last(asked))
    if status:
        raise XaiError("the training has died", hint=f"what it recorded is whole: xai track-report {title}")


def _last(asked: Until) -> str:
    """What a rule was last asked of, and of what it was not."""
    said = "no place was whole by then"
    if asked.last is not None:
        place, verdicts = asked.last
        worst = next((one for one in verdicts if one.outcome.value != "passed"), verdicts[0])
        of = f" of {worst.group}" if worst.group else ""
        where = " ".join(filter(None, (place.mode, place.ds_id)))
        said = f"{where} epoch {place.epoch}: {'nothing' if worst.value is None else f'{worst.value:.4g}'}{of}"
    if (part := asked.part) is None or part.rows_before is None:
        return said
    where = " ".join(filter(None, (part.mode, part.ds_id)))
    has = f"{part.rows:,} of the {part.rows_before:,} rows of the place before"
    return f"{said}; {where} epoch {part.epoch} is a part, and was not asked: {has}"
