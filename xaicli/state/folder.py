"""Saved states in a folder: each a folder of its own that appears only complete, the newest last.

<folder>/state-000007/state.json     everything but tensors, with its own checksum and those of the other two
                      tensors.pt     {number: tensor}, read weights-only
                      arrays.npz     {number: array}, read without objects
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xaicli.files import remove_folder, remove_leftovers, write_folder
from xaicli.state.encoding import ARRAYS, TENSORS, Encoder, decode, read_arrays, read_tensors, verified, write_values
from xaicli.state.published import UNREADABLE

_FORMAT = "xai-state"
_VERSION = 1
_NAME = re.compile(r"state-(\d{6,})")
_STATE = "state.json"


@dataclass(frozen=True)
class SavedState:
    """One saved state as a listing shows it."""

    path: Path
    sequence: int
    step: int
    epoch: int
    saved_at: str
    bytes: int


def write_state(folder: Path, parts: Mapping[str, Any], *, step: int, epoch: int, keep: int) -> Path:
    """Write a state beside those of before, then remove all but the newest `keep`.

    Args:
        folder: The folder of states.
        parts: What to save, {name: plain data with tensors and arrays}.
        step: The training step, for listings.
        epoch: The epoch, for listings.
        keep: States to keep, this one included, at least 1.

    Returns:
        The new state's own folder.

    Raises:
        ValueError: Something cannot be saved; nothing was written.
        OSError: The disk is full or refuses; the states of before are whole.
    """
    encoder = Encoder()
    encoded = {name: encoder.encode(value, name) for name, value in parts.items()}

    def fill(temporary: Path) -> None:
        facts = {
            "format": _FORMAT,
            "version": _VERSION,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": step,
            "epoch": epoch,
            "files": write_values(temporary, encoder),
            **encoded,
        }
        _write_json(temporary / _STATE, facts)

    final = write_folder(folder, fill, lambda: f"state-{max(_numbered(folder), default=0) + 1:06d}")
    _prune(folder, keep)
    return final


def read_state(folder: Path) -> dict[str, Any]:
    """Read a state whole, every checksum verified.

    Args:
        folder: A folder of states, whose newest is read, or one state's own folder.

    Returns:
        The parts as they were given to `write_state`; tensors on the CPU.

    Raises:
        FileNotFoundError: There is no state.
        ValueError: The state is damaged, or none that was written here, or of a newer version.
    """
    path = find_state(folder)
    facts = _read_json(path / _STATE)
    files = facts.pop("files", {})
    tensors = read_tensors(path, files)
    arrays = read_arrays(path, files)
    known = {"format", "version", "saved_at", "step", "epoch"}
    return {name: decode(value, tensors, arrays) for name, value in facts.items() if name not in known}


def find_state(folder: Path) -> Path:
    """The folder of the state meant: itself if it is one, else the newest below it.

    Raises:
        FileNotFoundError: There is none.
    """
    if (folder / _STATE).is_file():
        return folder
    numbered = _numbered(folder)
    if not numbered:
        what = "holds no saved state" if folder.is_dir() else "does not exist"
        raise FileNotFoundError(f"could not find a training state: {folder} {what} (save one with save_state)")
    return numbered[max(numbered)]


def saved_states(folder: Path) -> list[SavedState]:
    """The states of a folder, oldest first; one that cannot be read is passed over, and a folder that may not be."""
    found = []
    try:
        numbered = _numbered(folder)
    except PermissionError:
        return []
    for sequence, path in sorted(numbered.items()):
        try:
            found.append(listed(path, sequence))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def listed(path: Path, sequence: int = 0) -> SavedState:
    """A state as a listing shows it, of its own folder.

    Raises:
        OSError, ValueError, KeyError, TypeError: It cannot be read, or is not what was written.
    """
    facts = _read_json(path / _STATE)
    size = sum(file.stat().st_size for file in path.iterdir())
    return SavedState(path, sequence, int(facts["step"]), int(facts["epoch"]), str(facts["saved_at"]), size)


def numbered_states(folder: Path) -> list[Path]:
    """The folders of states, oldest first, whatever is in them."""
    return [path for _, path in sorted(_numbered(folder).items())]


def verify_state(path: Path) -> None:
    """Compare one state's files with their checksums.

    Raises:
        FileNotFoundError: A part is missing.
        ValueError: A part is damaged.
    """
    files = _read_json(path / _STATE).get("files", {})
    for name in (TENSORS, ARRAYS):
        verified(path, name, files)


def _numbered(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    matches = ((_NAME.fullmatch(entry.name), entry) for entry in folder.iterdir() if entry.is_dir())
    return {int(match[1]): entry for match, entry in matches if match}


def _prune(folder: Path, keep: int) -> None:
    numbered = _numbered(folder)
    for sequence in sorted(numbered)[:-keep]:
        with contextlib.suppress(OSError):
            remove_folder(numbered[sequence])
    remove_leftovers(folder)


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    facts = {"crc32": _checksum(facts), **facts}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in facts.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        checksum = facts.pop("crc32", None) if isinstance(facts, dict) else None
        is_whole = checksum == _checksum(facts)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise ValueError(f"{path} is no training state saved by xai")
    if not isinstance(facts.get("version"), int) or facts["version"] > _VERSION:
        raise ValueError(f"{path} is of version {facts.get('version')}; this xai reads up to {_VERSION}")
    if not is_whole:
        raise ValueError(f"{path} is damaged: its checksum does not fit; an older state may lie beside its folder")
    return facts


def _checksum(facts: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, allow_nan=False, separators=(",", ":")).encode())


def faults(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folder of each saved state that is not what was written, with the reason.

    Args:
        folder: The run's state folder.
    """
    for path in numbered_states(folder):
        try:
            verify_state(path)
        except UNREADABLE as error:
            yield path, str(error) or type(error).__name__
