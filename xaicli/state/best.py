"""The best checkpoints by a metric: the few that are worth their disk space, and which of them is the best.

checkpoints/best-<metric>-<step>.pt     those kept; -<step>-2.pt the second of a step
            best-<metric>.pt            the best of them, the same bytes under a fixed name
            best-<metric>.json          their values
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from xaicli.files import facts_in, give_second_name, set_aside, with_check, write_whole

_SUFFIX = ".pt"


class Better(StrEnum):
    """Which values of a metric are the good ones."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint that was among the best when it was made."""

    file: str
    value: float
    epoch: int
    step: int
    saved_at: str


@dataclass(frozen=True)
class Checkpoint:
    """A file in a run's `checkpoints/` as a listing shows it; metric and value only for those kept as best."""

    path: Path
    bytes: int
    metric: str = ""
    value: float | None = None
    epoch: int | None = None
    step: int | None = None
    is_best: bool = False


def keep_best(
    folder: Path,
    save: Callable[[Path], object],
    *,
    metric: str,
    value: float,
    better: str = Better.LOWER,
    keep: int = 1,
    epoch: int = 0,
    step: int = 0,
) -> Path | None:
    """Save a checkpoint if its value is among the best, and remove the one that is so no more.

    Args:
        folder: The run's folder of checkpoints.
        save: Writes the checkpoint to a path, complete or not at all; called only if it is to be kept.
        metric: What the value is of.
        value: Its value; one that is not finite is never among the best, of equal ones the earlier is better.
        better: "lower" or "higher".
        keep: How many to keep, at least 1.
        epoch: When it is.
        step: When it is; the second of a step has a number after it in its name.

    Returns:
        The checkpoint written, or None.

    Raises:
        ValueError: `keep` is less than 1, or `better` is neither word.
        OSError: Something cannot be written; those kept before are whole.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    try:
        direction = Better(better)
    except ValueError:
        raise ValueError(f"better must be one of {', '.join(Better)}, not {better!r}") from None
    stem = f"best-{quote(metric, safe='')}"
    index = folder / f"{stem}.json"
    before = _read(index)
    taken = {kept.file for kept in before}
    names = (f"{stem}-{step:08d}{again}{_SUFFIX}" for again in ("", *(f"-{n}" for n in range(2, len(before) + 3))))
    name = next(name for name in names if name not in taken)
    entry = KeptCheckpoint(name, float(value), epoch, step, datetime.now(UTC).isoformat(timespec="seconds"))
    ranked = sorted([*before, entry], key=lambda kept: _rank(kept, direction))[:keep]
    if entry not in ranked or not math.isfinite(entry.value):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / name)
    facts = {"metric": metric, "better": direction.value, "kept": [asdict(kept) for kept in ranked]}
    if is_damaged(index):
        set_aside(index)
    write_whole(index, with_check(json.dumps(facts, indent=1)).encode(), durable=True)
    if ranked[0] == entry:
        give_second_name(folder / name, folder / f"{stem}{_SUFFIX}")
    for kept in before:
        if kept not in ranked:
            (folder / kept.file).unlink(missing_ok=True)
    return folder / name


def checkpoints(folder: Path) -> list[Checkpoint]:
    """The files of a run's checkpoint folder by name, those kept as best with their values."""
    best: dict[str, Checkpoint] = {}
    for index in indices(folder):
        metric = _metric(index)
        for number, kept in enumerate(_read(index)):
            path = folder / kept.file
            best[kept.file] = Checkpoint(path, 0, metric, kept.value, kept.epoch, kept.step, is_best=number == 0)
    found = []
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        paths = []
    for path in paths:
        if path.is_file() and not path.name.startswith(".") and ".json" not in path.suffixes:
            known = best.get(path.name, Checkpoint(path, 0))
            with contextlib.suppress(FileNotFoundError):
                found.append(Checkpoint(**{**vars(known), "bytes": path.stat().st_size}))
    return found


def _rank(kept: KeptCheckpoint, better: Better) -> tuple[float, int]:
    return (-kept.value if better is Better.HIGHER else kept.value, kept.step)


def _read(index: Path) -> list[KeptCheckpoint]:
    """The entries of an index whose files are there; none where the index is missing or damaged."""
    try:
        plain = [kept for kept in entries(index) if kept.file == Path(kept.file).name and math.isfinite(kept.value)]
        return [kept for kept in plain if (index.parent / kept.file).is_file()]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def entries(index: Path) -> list[KeptCheckpoint]:
    """What such a file holds.

    Raises:
        OSError: It cannot be read.
        ValueError, KeyError, TypeError: It is not what was written.
    """
    return [KeptCheckpoint(**facts) for facts in facts_in(index.read_text(encoding="utf-8"))["kept"]]


def indices(folder: Path) -> list[Path]:
    """The files that hold the values of the checkpoints kept, one a metric."""
    return sorted(folder.glob("best-*.json"))


def is_damaged(index: Path) -> bool:
    """Whether such a file is there and is not what was written."""
    try:
        entries(index)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return False


def _metric(index: Path) -> str:
    try:
        return str(facts_in(index.read_text(encoding="utf-8"))["metric"])
    except (OSError, ValueError, KeyError, TypeError):
        return index.stem.removeprefix("best-")
