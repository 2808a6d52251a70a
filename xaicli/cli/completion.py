"""What the shell offers after Tab. Reads `xai.json` and folder names only, so it answers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xaicli.errors import XaiError
from xaicli.vocabulary import Mode, Role

if TYPE_CHECKING:
    from xaicli.layout import RunLayout

Completer = Callable[[typer.Context, str], list[str]]


def completer(offered: Callable[[RunLayout], Iterable[str]]) -> Completer:
    """A completer over names of the run the command line is about; nothing where there is no run.

    A list such as `--metric loss,ma` completes its last item.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from xaicli.location import find_local_run

        before, comma, last = incomplete.rpartition(",")
        given = ctx.params.get("run_dir")
        try:
            names = list(offered(find_local_run(Path(given) if given else None)))
        except XaiError:
            return []
        return [before + comma + name for name in names if name.startswith(last)]

    return complete


@completer
def metrics(run: RunLayout) -> Iterable[str]:
    """The metrics the run has recorded."""
    return [column.name for column in run.read_manifest().columns if column.role == Role.METRIC]


@completer
def modes(run: RunLayout) -> Iterable[str]:
    """The modes the run has rows of, and the words that stand for several."""
    recorded = [mode for mode in Mode if (run.data / f"mode={mode}").is_dir()]
    return [*recorded, "all", *(f"!{mode}" for mode in recorded)]


@completer
def checkpoints(run: RunLayout) -> Iterable[str]:
    """The checkpoints the run holds, by name."""
    return sorted(path.name for path in run.checkpoints.glob("*") if path.is_file())
