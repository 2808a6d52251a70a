"""What the shell offers after Tab. Reads `xai.json` and folder names only, so it answers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xaicli.errors import XaiError
from xaicli.vocabulary import PROBS, Attempts, Axis, Bounds, Duplicates, Engine, Format, Mode, Role
from xaicli.words import quoted

if TYPE_CHECKING:
    from xaicli.layout import RunLayout

Completer = Callable[[typer.Context, str], list[str]]


def words(offered: Callable[[], Iterable[str]]) -> Completer:
    """A completer over words that are always the same; of a list such as `--bounds std,ra` it completes the last."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        del ctx
        return _completed(incomplete, offered())

    return complete


def of_run(offered: Callable[[RunLayout], Iterable[str]]) -> Completer:
    """A completer over names of the run the command line is about; nothing where there is no run."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from xaicli.location import find_local_run

        # Where the line ends in an option without its value, arguments are not assigned yet.
        given = ctx.params.get("run_dir") or next(iter(ctx.args), None)
        try:
            return _completed(incomplete, offered(find_local_run(Path(given) if given else None)))
        except XaiError:
            return []

    return complete


def _completed(incomplete: str, offered: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + word for word in offered if word.startswith(last)]


def _columns(run: RunLayout, role: Role) -> list[str]:
    return [column.name for column in run.read_manifest().columns if column.role == role and column.name != PROBS]


def _modes(run: RunLayout) -> list[str]:
    recorded = [mode.value for mode in Mode if (run.data / f"mode={mode}").is_dir()]
    return [*recorded, "all", *(f"!{mode}" for mode in recorded)]


def _ds_ids(run: RunLayout) -> list[str]:
    from xaicli.layout import decode_ds_id

    every = {decode_ds_id(folder.name.removeprefix("ds=")) for folder in run.data.glob("mode=*/ds=*")} - {""}
    # One with a comma needs quotes within quotes, which shells add or take away each in their own way.
    named = sorted(name for name in every if quoted(name) == name)
    return [*named, *(f"!{ds_id}" for ds_id in named)]


def _epochs(run: RunLayout) -> list[str]:
    from xaicli.layout import decode_epoch

    found = (decode_epoch(folder.name) for folder in run.data.glob("mode=*/ds=*/epoch=*"))
    return ["first", "last", *map(str, sorted({epoch for epoch in found if epoch is not None}))]


def _labels(run: RunLayout) -> list[str]:
    return [f"{name}={value}" for value, name in enumerate(run.read_manifest().label_names or ())]


def _tables(run: RunLayout) -> list[str]:
    from urllib.parse import unquote

    return sorted(unquote(folder.name) for folder in run.tables.glob("*") if folder.is_dir())


def _checkpoints(run: RunLayout) -> list[str]:
    return sorted(path.name for path in run.checkpoints.glob("*") if path.is_file())


def _of_saliency(name: str) -> Completer:
    def offered() -> Iterable[str]:
        from xaicli.attribution import settings

        found: Iterable[str] = getattr(settings, name)
        return found

    return words(offered)


BY_OPTION: Mapping[str, Completer] = {
    "metric": of_run(lambda run: _columns(run, Role.METRIC)),
    "mode": of_run(_modes),
    "ds_id": of_run(_ds_ids),
    "epoch": of_run(_epochs),
    "label_key": of_run(lambda run: _columns(run, Role.LABEL)),
    "label_map": of_run(_labels),
    "table": of_run(_tables),
    "model": of_run(_checkpoints),
    "bounds": words(lambda: Bounds),
    "duplicates": words(lambda: Duplicates),
    "engine": words(lambda: Engine),
    "attempts": words(lambda: Attempts),
    "axis": words(lambda: Axis),
    "shape": words(lambda: ("long", "wide")),
    "format": words(lambda: Format),
    "methods": _of_saliency("METHODS"),
    "baseline": _of_saliency("Baseline"),
    "convention": _of_saliency("Convention"),
    "precision": _of_saliency("Precision"),
}
"""What completes the value of an option, by the option's name, in whichever command it is."""
