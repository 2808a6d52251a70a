"""The small files in which a run keeps its books beside what was logged: which there are, and which are damaged.

Each carries a checksum, except those of an older version. What such a file says is needed for an answer, which then
names it, or can be made again of others; none that is damaged is written over before it is kept under another name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xaicli.errors import XaiError
from xaicli.files import SET_ASIDE
from xaicli.layout import RunLayout, facts_of
from xaicli.manifest import Attempt
from xaicli.state import best
from xaicli.state.folder import listed, numbered_states
from xaicli.state.published import CHECKS, UNREADABLE
from xaicli.tables.schema import described

_COUNTERS = re.compile(r"(\d{6,})-r(\d{4,})\.stats")


@dataclass(frozen=True)
class Fault:
    """A small file that is not what was written.

    Attributes:
        path: The file.
        reason: How that shows.
        effect: What answers do without it, or where else they have it from.
    """

    path: Path
    reason: str
    effect: str


def folders(layout: RunLayout) -> list[Path]:
    """The folders that hold such files, or damaged ones that were kept aside."""
    return [layout.root, layout.attempts, layout.wal, layout.state, layout.checkpoints, *layout.table_folders()]


def faults(layout: RunLayout, folder: Path) -> Iterator[Fault]:
    """The damaged files of a folder, and those that a later start kept aside since they were.

    Args:
        layout: The run.
        folder: One of `folders`.
    """
    for path, check, effect in _checks(layout, folder):
        try:
            check(path)
        except FileNotFoundError:
            continue
        except UNREADABLE as error:
            if isinstance(error, PermissionError) and not os.access(folder, os.X_OK):
                continue  # the folder is named as such
            yield Fault(path, str(error) or type(error).__name__, effect)
    for path in sorted(folder.glob(f"*{SET_ASIDE}*")):
        yield Fault(
            path, "a later start found it so", "what it alone held is in no answer; remove it when that is known"
        )


def _checks(layout: RunLayout, folder: Path) -> Iterator[tuple[Path, Callable[[Path], object], str]]:
    """Each file of a folder, what reads it or raises, and what answers do without it."""
    if folder == layout.root:
        yield layout.manifest, _whole_manifest, "answers go by what it says, which is not what was written"
    elif folder == layout.attempts:
        for number, path in layout.attempt_files().items():
            said = f"of attempt {number} its rows alone say what it takes back of earlier ones"
            yield path, _attempt, f"{said}, as of one that began when no other was recorded"
        for path in sorted(folder.glob("*.stats")):
            if match := _COUNTERS.fullmatch(path.name):
                whose = f"rank {int(match[2])} of attempt {int(match[1])}"
                yield path, facts_of, f"what {whose} could not record, or altered, is in no count"
    elif folder == layout.state:
        for name, check in CHECKS.items():
            yield folder / name, check, "what it holds is in no answer"
        with contextlib.suppress(PermissionError):  # the folder is named as such
            for path in numbered_states(folder):
                yield path, listed, "it is not among the states that are listed"
    elif folder == layout.checkpoints:
        for path in best.indices(folder):
            yield path, best.entries, "the values of the checkpoints it tells of are not known"
    elif folder != layout.wal:  # whose segments are read as what was logged
        yield folder / "schema.json", described, "what its columns mean is told by the files of the table"


def _attempt(path: Path) -> Attempt:
    return Attempt.of(facts_of(path), attempt=int(path.stem))


def _whole_manifest(path: Path) -> None:
    layout = RunLayout(path.parent)
    try:
        if layout.read_manifest().is_whole:
            return
    except XaiError:  # without it nothing is answered at all
        return
    raise ValueError("its checksum does not fit: it was damaged, or edited")
