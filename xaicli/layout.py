"""The run directory, format version 2: where everything lies and which file supersedes which.

The recorder writes by these rules and the reader reads by them; neither spells a path of its own.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from xaicli.errors import XaiError
from xaicli.files import facts_in, set_aside
from xaicli.locks import fcntl
from xaicli.manifest import Attempt, Manifest

_PART = re.compile(r"part-a(\d{6,})-r(\d{4,})-(\d{8,})\.parquet")
_COMPACTED = re.compile(r"c-a(\d{6,})-r(\d{4,})-(\d{8,})-(\d{8,})\.parquet")
_NO_DS_ID = "_"


@dataclass(frozen=True, order=True)
class PartName:
    """The identity of a data file: unique without coordination between ranks or restarts.

    A part written by the recorder holds the one sequence number `first == last`; a compacted file stands for all of
    `first`..`last`.
    """

    attempt: int
    rank: int
    first: int
    last: int
    compacted: bool = False

    @classmethod
    def parse(cls, filename: str) -> PartName | None:
        """The name behind a file name, or None for a file that is no part (a temporary one, or a copy, say)."""
        if match := _PART.fullmatch(filename):
            attempt, rank, sequence = map(int, match.groups())
            found = cls(attempt, rank, sequence, sequence)
        elif match := _COMPACTED.fullmatch(filename):
            attempt, rank, first, last = map(int, match.groups())
            found = cls(attempt, rank, first, last, compacted=True)
        else:
            return None
        # One more zero in front would be a second file of the same name.
        return found if found.filename == filename else None

    @property
    def filename(self) -> str:
        """The name the file has in its folder."""
        if self.compacted:
            return f"c-a{self.attempt:06d}-r{self.rank:04d}-{self.first:08d}-{self.last:08d}.parquet"
        return f"part-a{self.attempt:06d}-r{self.rank:04d}-{self.first:08d}.parquet"

    def supersedes(self, other: PartName) -> bool:
        """Whether this file counts in the place of `other`, a different file of the same folder whose rows it holds."""
        wider = (self.last - self.first, self.compacted) > (other.last - other.first, other.compacted)
        return self.covers(other) and wider

    def covers(self, other: PartName) -> bool:
        """Whether this file holds all of the rows of `other`."""
        same_writer = (self.attempt, self.rank) == (other.attempt, other.rank)
        return same_writer and self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, order=True)
class DataFile:
    """One Parquet file of rows that share mode, ds_id and epoch."""

    mode: str
    ds_id: str
    epoch: int
    part: PartName
    path: Path


def without_superseded(files: Iterable[DataFile]) -> list[DataFile]:
    """The files that count: those whose rows no compacted file of the same folder repeats, in a fixed order."""
    by_writer: dict[tuple[str, str, int, int, int], list[DataFile]] = {}
    for file in files:
        key = (file.mode, file.ds_id, file.epoch, file.part.attempt, file.part.rank)
        by_writer.setdefault(key, []).append(file)
    kept: list[DataFile] = []
    for group in by_writer.values():
        compacted = [file.part for file in group if file.part.compacted]
        kept += [file for file in group if not any(part.supersedes(file.part) for part in compacted)]
    return sorted(kept)


_SETTLED = 2.0
"""Seconds after which a file that is changed again has another time, on any file system."""


def text_of(path: Path) -> str:
    """What a small file says, read once while it stays what it is: several parts of one answer ask for it.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    facts = path.stat()
    if time.time() - facts.st_mtime < _SETTLED:
        return path.read_text(encoding="utf-8")
    return _read(path, facts.st_ino, facts.st_size, facts.st_mtime_ns)


_LOOKS = 4
"""How often a file is read that may just be being written over."""


def facts_of(path: Path) -> dict[str, Any]:
    """What a small file with a checksum says, as `text_of` reads it and `facts_in` checks it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what was written.
    """
    for look in range(_LOOKS):
        try:
            return facts_in(text_of(path))
        except ValueError:
            # Counters are written over in place.
            if look == _LOOKS - 1 or time.time() - path.stat().st_mtime >= _SETTLED:
                raise
        time.sleep(0.002)
    raise AssertionError


def facts_to_write_over(path: Path) -> dict[str, Any]:
    """The same of one that is written anew with more: none where there is no file; a damaged one is kept aside.

    Raises:
        OSError: It cannot be read, or not kept.
    """
    try:
        return facts_of(path)
    except FileNotFoundError:
        return {}
    except ValueError:
        set_aside(path)  # readers name it
        return {}


@lru_cache(maxsize=1024)
def _read(path: Path, *state: int) -> str:
    """The text of a file in a state: its number, size and time."""
    del state
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class RunLayout:
    """The paths of a run directory.

    Attributes:
        root: The folder.
        address: Where the run lives, of which the folder is a mirror; empty for a run that lives in the folder.
    """

    root: Path
    address: str = field(default="", compare=False)

    @property
    def described(self) -> str:
        """What the run is called: its address, or else its folder."""
        return self.address or str(self.root)

    @property
    def manifest(self) -> Path:
        """`xai.json`: what the run is."""
        return self.root / "xai.json"

    @property
    def attempts(self) -> Path:
        """One file per start, and what each rank finished."""
        return self.root / "attempts"

    @property
    def data(self) -> Path:
        """The sample rows, by mode, dataset and epoch."""
        return self.root / "data"

    @property
    def scalars(self) -> Path:
        """The per-step scalars."""
        return self.root / "scalars"

    @property
    def tables(self) -> Path:
        """One folder per metrics table."""
        return self.root / "tables"

    @property
    def media(self) -> Path:
        """Thumbnails."""
        return self.root / "media"

    @property
    def inputs(self) -> Path:
        """Exact model inputs, kept for saliency."""
        return self.root / "inputs"

    @property
    def facts(self) -> Path:
        """What the samples are: a path, a text, a source."""
        return self.root / "facts"

    @property
    def checkpoints(self) -> Path:
        """Saved models."""
        return self.root / "checkpoints"

    @property
    def state(self) -> Path:
        """The summary, custom graphs and saved training states."""
        return self.root / "state"

    @property
    def reports(self) -> Path:
        """What the commands wrote."""
        return self.root / "reports"

    @property
    def wal(self) -> Path:
        """Live segments: rows not yet in a part."""
        return self.root / "wal"

    @property
    def cache(self) -> Path:
        """What can be computed again."""
        return self.root / "cache"

    def attempt_file(self, attempt: int) -> Path:
        """What is known of one start of the run."""
        return self.attempts / f"{attempt:06d}.json"

    def records_file(self, attempt: int, rank: int) -> Path:
        """The append-only list of finished files with their row counts and checksums."""
        return self.attempts / f"{attempt:06d}-r{rank:04d}.files"

    def folder(self, mode: str, ds_id: str, epoch: int) -> Path:
        """The folder of all rows of one (mode, ds_id, epoch)."""
        return self.data / f"mode={mode}" / f"ds={encode_ds_id(ds_id)}" / f"epoch={epoch}"

    def table_folder(self, name: str) -> Path:
        """The folder of one metrics table: its name URL-encoded, so that any text will do."""
        return self.tables / quote(name, safe="").replace(".", "%2E")

    def table_folders(self) -> list[Path]:
        """The folders of the metrics tables, in order; none where they may not be listed."""
        try:
            return sorted(path for path in self.tables.iterdir() if path.is_dir())
        except OSError:
            return []

    def closed_folders(self) -> list[Path]:
        """The folders that may not be listed, but for those below `data/`, which are told with their files."""
        closed: list[Path] = []
        beside = (self.attempts, self.scalars, self.facts, self.media, self.inputs, self.checkpoints, self.state)
        for folder in (*beside, self.wal):
            _entries(folder, closed)
        for table in _folders(self.tables, "", closed):
            _entries(table, closed)
        return closed

    def is_run(self) -> bool:
        """Whether the folder holds a run."""
        return self.manifest.is_file()

    def read_manifest(self) -> Manifest:
        """Read `xai.json`.

        Raises:
            XaiError: The folder is missing, empty, no run, or of a newer format version.
        """
        try:
            return Manifest.from_json(text_of(self.manifest), path=self.manifest)
        except FileNotFoundError:
            raise not_a_run(self.root) from None
        except (OSError, UnicodeDecodeError) as error:
            raise XaiError(f"{self.manifest} cannot be read: {error}") from error

    def read_attempts(self) -> list[Attempt]:
        """All starts of the run in order; of one whose file cannot be read its number alone is known."""
        found = []
        for attempt, path in self.attempt_files().items():
            try:
                found.append(Attempt.of(facts_of(path), attempt=attempt))
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                found.append(Attempt(attempt))
        return found

    def attempt_files(self) -> dict[int, Path]:
        """The file of each start, by its number; none of a process that was killed before it wrote anything."""
        found = {int(path.stem): path for path in self.attempts.glob("*.json") if path.stem.isdigit()}
        counting = {path.name.partition("-")[0] for path in self.attempts.glob("*-r*.stats")}
        return {n: path for n, path in sorted(found.items()) if path.stem in counting or _is_filled(path)}

    def data_files(self, closed: list[Path] | None = None) -> Iterator[DataFile]:
        """Every data file, superseded ones included; temporary and foreign files are passed over.

        Args:
            closed: Takes the folders that may not be listed, whose files are passed over.

        Raises:
            OSError: A folder may not be listed, and `closed` is None.
        """
        for mode_folder in _folders(self.data, "mode=", closed):
            for ds_folder in _folders(mode_folder, "ds=", closed):
                for epoch_folder in _folders(ds_folder, "epoch=", closed):
                    epoch = decode_epoch(epoch_folder.name)
                    if epoch is None:
                        continue
                    ds_id = decode_ds_id(ds_folder.name.removeprefix("ds="))
                    mode = mode_folder.name.removeprefix("mode=")
                    for entry in _entries(epoch_folder, closed):
                        if part := PartName.parse(entry.name):
                            yield DataFile(mode, ds_id, epoch, part, Path(entry.path))


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return True


def decode_epoch(folder: str) -> int | None:
    """The epoch of a folder's name; None unless `RunLayout.folder` spells it so: `epoch=01` is a copy of somebody's."""
    match = re.fullmatch(r"epoch=(0|-?[1-9][0-9]*)", folder)
    return int(match[1]) if match else None


def encode_ds_id(ds_id: str) -> str:
    """The folder name of a ds_id: URL-encoded, `_` for the empty one."""
    return quote(ds_id, safe="").replace("_", "%5F") if ds_id else _NO_DS_ID


def decode_ds_id(text: str) -> str:
    """The ds_id behind a folder name."""
    return "" if text == _NO_DS_ID else unquote(text)


class FollowedLayout(RunLayout):
    """The paths of a run directory that is followed when it is moved or renamed while this process records it.

    Attributes:
        is_gone: Whether it was deleted, or moved to another disk, which is the same seen from here.
    """

    def __init__(self, root: Path, on_moved: Callable[[Path, Path], None] = lambda _, __: None) -> None:
        """
        Args:
            root: The run directory, as far as it is made yet.
            on_moved: Told of a move: from where, to where.
        """
        self._descriptor: int | None
        self.is_gone: bool
        self._on_moved: Callable[[Path, Path], None]
        self._set(_root=root, _descriptor=None, _on_moved=on_moved, is_gone=False)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def root(self) -> Path:
        """Where the run directory is now; once it is gone a path where nothing can be: another run may be there."""
        here: Path = self._root  # type: ignore[attr-defined]
        if self.is_gone:
            return NOWHERE / here.name
        if self._descriptor is None:
            return here
        try:
            if os.path.samestat(here.stat(), os.fstat(self._descriptor)):
                return here
        except OSError:
            pass
        there = _path_of(self._descriptor)
        if there is None and _is_deleted(self._descriptor):
            self._set(is_gone=True)
            return NOWHERE / here.name
        if there is None or there == here.resolve():
            return here
        self._set(_root=there)
        self._on_moved(here, there)
        return there

    def follow(self) -> None:
        """Know the directory from now on by what it is, not by its name; best effort where it cannot be opened."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._set(_descriptor=os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @property
    def last(self) -> Path:
        """Where the run directory was last seen."""
        return self._root  # type: ignore[attr-defined, no-any-return]

    def look(self) -> bool:
        """Whether it is gone by now."""
        return self.root != self.last and self.is_gone

    def let_go(self) -> None:
        """Follow it no longer."""
        self.look()
        descriptor = self._descriptor
        self._set(_descriptor=None)
        if descriptor is not None:
            os.close(descriptor)


NOWHERE = Path(os.devnull)
"""Below what is no folder nothing can be made."""


def _is_deleted(descriptor: int) -> bool:
    """Whether an open folder has no name any more; False where the system does not tell."""
    try:
        if os.fstat(descriptor).st_nlink == 0:
            return True
        return os.fsdecode(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith(" (deleted)")
    except OSError:
        return False


def _path_of(descriptor: int) -> Path | None:
    """The path an open folder has now; None where it has none any more, or the system does not tell."""
    try:
        if hasattr(fcntl, "F_GETPATH"):
            path = Path(os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")))
        else:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return path if os.path.samestat(path.stat(), os.fstat(descriptor)) else None
    except OSError:
        return None


def find_runs(folder: Path) -> list[RunLayout]:
    """All runs at or below a folder, sorted by path; a run's own sub-folders are not searched."""
    found = []
    for parent, folders, files in os.walk(folder):
        if "xai.json" in files:
            found.append(RunLayout(Path(parent)))
            folders.clear()
        folders.sort()
    return sorted(found, key=lambda run: run.root)


def not_a_run(path: Path) -> XaiError:
    """The error for a path that holds no run, saying which of the possible reasons it is."""
    if not path.exists():
        return XaiError(f"{path} does not exist", hint="list the runs below a folder with: xai ls FOLDER")
    if not path.is_dir():
        return XaiError(f"{path} is a file, not a run directory", hint="name the folder that holds xai.json")
    below = find_runs(path)
    if below:
        shown = ", ".join(str(run.root) for run in below[:5])
        return XaiError(f"{path} is not a run: it holds no xai.json", hint=f"runs below it: {shown}")
    state = "is empty" if not any(path.iterdir()) else "is not a run: it holds no xai.json"
    return XaiError(f"{path} {state}", hint="record one with xaicli.Run(path), or make one with: xai demo")


def _folders(parent: Path, prefix: str, closed: list[Path] | None = None) -> list[Path]:
    return sorted(Path(e.path) for e in _entries(parent, closed) if e.name.startswith(prefix) and e.is_dir())


def _entries(parent: Path, closed: list[Path] | None = None) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(parent) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        if closed is None:
            raise
        closed.append(parent)
        return []
