"""The doctor: every byte of a run against its checksums, damage named, and moved out of the way if wanted."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from xaicli import parquet
from xaicli.bookkeeping import faults, folders
from xaicli.errors import DamagedFileError, XaiError
from xaicli.files import move
from xaicli.layout import PartName, RunLayout, decode_ds_id, decode_epoch
from xaicli.parquet import FileRecord
from xaicli.reader.pages import Footer
from xaicli.reader.pieces import foreign_files, foreign_records
from xaicli.state.folder import faults as state_faults
from xaicli.wal import Snapshot, take_snapshot
from xaicli.wal.records import journal_files, read_journal

QUARANTINE = "quarantine"
_FOLDERS = ("data", "scalars", "tables", "media", "inputs", "facts")


class Complaint(StrEnum):
    """What can be wrong with a file."""

    DAMAGED = "damaged"
    MISSING = "missing"
    MISPLACED = "misplaced"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"
    TORN = "torn"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        path: Relative to the run.
        complaint: What is wrong with it.
        reason: How that shows.
        rows: Rows concerned, where known.
        moved_to: Where it was put, relative to the run; "" while it is where it was.
    """

    path: str
    complaint: Complaint
    reason: str
    rows: int | None = None
    moved_to: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The state of a run.

    Attributes:
        files: Files examined.
        rows: Sample rows in good files, superseded ones left out.
        bytes: Bytes examined.
        waiting: Sample rows in segments, of a training that runs or was killed; the next open stores them.
        unrecorded: Good files without recorded checksums; their pages were decoded instead.
        findings: What is wrong.
    """

    files: int
    rows: int
    bytes: int
    waiting: int
    unrecorded: int
    findings: tuple[Finding, ...]


def examine(layout: RunLayout, *, quarantine: bool = False) -> Diagnosis:
    """Verify a run without trusting any cache.

    Args:
        layout: The run.
        quarantine: Move damaged, misplaced and foreign files to `quarantine/`, where nothing reads them.

    Raises:
        XaiError: It is no run.
    """
    layout.read_manifest()
    torn: dict[Path, str] = {}
    records = parquet.read_records(layout, torn)
    run_id = layout.read_manifest().run_id
    others = {*foreign_files(layout, records, run_id)}
    for folder in (layout.scalars, layout.facts, layout.media, *layout.table_folders()):
        others |= foreign_records(layout, folder, records, run_id)
    closed: list[Path] = []
    snapshot = take_snapshot(layout, others, closed)
    closed += layout.closed_folders()
    counted = {file.path for file in snapshot.files}
    findings: list[Finding] = []
    files = rows = size = unrecorded = 0
    for path in _parquet_files(layout):
        record = records.get(_name(layout, path))
        try:
            # Of a link to a file that is gone, the link.
            facts = path.stat() if path.exists() else path.lstat()
            files, size = files + 1, size + facts.st_size
            n = _examine(layout, path, record)
            if path in others:
                raise _ForeignError("it is not this run's")
        except FileNotFoundError:
            continue  # a compaction has removed it
        except XaiError as error:
            finding = _finding(layout, path, error, record)
            findings.append(_quarantined(layout, finding) if quarantine else finding)
            continue
        unrecorded += record is None
        rows += n if path in counted else 0
    named = {finding.path for finding in findings}
    findings += [finding for finding in _missing(layout, records) if finding.path not in named]
    seen = {finding.path for finding in findings}
    shut = [_closed(layout, folder) for folder in dict.fromkeys(closed)]
    findings += [finding for finding in shut if not _holds(finding.path, seen)]
    findings += [*_books(layout, torn), *_segments(layout, snapshot), *_journals(layout), *_states(layout)]
    findings += _checkpoints(layout)
    waiting = sum(segment.rows for segment in snapshot.segments)
    return Diagnosis(files, rows, size, waiting, unrecorded, tuple(findings))


def _states(layout: RunLayout) -> Iterator[Finding]:
    """Saved states that are not what was written; nothing moves them, since others lie beside."""
    with contextlib.suppress(PermissionError):  # a folder that may not be listed is named as such
        for path, reason in state_faults(layout.state):
            yield Finding(_name(layout, path), Complaint.DAMAGED, reason)


class _ForeignError(XaiError):
    """A good file that is not the run's."""


class _MisplacedError(XaiError):
    """A good file in a folder that says something else about it."""


def _parquet_files(layout: RunLayout) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from sorted(path for path in (layout.root / folder).rglob("*.parquet") if not path.name.startswith("."))


def _name(layout: RunLayout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()


def _examine(layout: RunLayout, path: Path, record: FileRecord | None) -> int:
    """Rows of a good file.

    Raises:
        DamagedFileError: It is not what was written.
        _MisplacedError: It belongs elsewhere.
    """
    contents = parquet.Contents()
    parquet.verify(path, record, contents)
    with parquet.opened(path, contents=contents) as file:
        rows, footer = int(file.metadata.num_rows), file.metadata.metadata or {}
    if record is not None and rows != record.rows:
        raise DamagedFileError(f"it has {rows} rows, {record.rows} were written")
    if layout.data in path.parents:
        said = Footer.parsed(footer.get(b"xai"), rows)
        _check_place(layout, path, said.origin if said else {})
    return rows


def _check_place(layout: RunLayout, path: Path, facts: Mapping[str, Any]) -> None:
    """Compare what a file says of itself with its folder and name."""
    part = PartName.parse(path.name)
    places = dict(piece.split("=", 1) for piece in path.relative_to(layout.data).parts[:-1] if "=" in piece)
    named = {
        "mode": places.get("mode"),
        "ds_id": decode_ds_id(places.get("ds", "")) if "ds" in places else None,
        "epoch": decode_epoch(path.parent.name),
        "attempt": part.attempt if part else None,
        "rank": part.rank if part else None,
    }
    for key, value in named.items():
        if key in facts and facts[key] != value:
            raise _MisplacedError(f"its {key} is {facts[key]!r}, its place says {value!r}")


def _finding(layout: RunLayout, path: Path, error: XaiError, record: FileRecord | None) -> Finding:
    kinds = {_MisplacedError: Complaint.MISPLACED, _ForeignError: Complaint.FOREIGN}
    complaint = kinds.get(type(error), Complaint.DAMAGED)
    reason = error.message.removeprefix(f"{path} is damaged: ")
    return Finding(_name(layout, path), complaint, reason, record.rows if record else None)


def _quarantined(layout: RunLayout, finding: Finding) -> Finding:
    target = layout.root / QUARANTINE / finding.path
    move(layout.root / finding.path, target)
    return replace(finding, moved_to=_name(layout, target))


def _missing(layout: RunLayout, records: Mapping[str, FileRecord]) -> Iterator[Finding]:
    """Recorded files that are gone, and that no compacted file stands for."""
    for name, record in sorted(records.items()):
        path = layout.root / name
        try:
            path.lstat()
            continue
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            yield Finding(name, Complaint.UNREADABLE, str(error.strerror), record.rows)
            continue
        part = PartName.parse(path.name)
        beside = [PartName.parse(other.name) for other in path.parent.glob("*.parquet")]
        if part is None or not any(other and other.covers(part) for other in beside):
            moved = layout.root / QUARANTINE / name
            reason = f"it is in {QUARANTINE}/" if moved.exists() else "its rows were written, and it is gone"
            yield Finding(name, Complaint.MISSING, reason, record.rows, _name(layout, moved) if moved.exists() else "")


def _closed(layout: RunLayout, folder: Path) -> Finding:
    """A folder that may not be listed."""
    return Finding(_name(layout, folder), Complaint.UNREADABLE, "the folder may not be listed")


def _holds(folder: str, paths: Collection[str]) -> bool:
    """Whether some paths lie in a folder."""
    return any(path.startswith(f"{folder}/") for path in paths)


def _books(layout: RunLayout, torn: dict[Path, str]) -> Iterator[Finding]:
    """The small files that a run keeps its books in; nothing moves them, since answers go by what is left of them.

    Args:
        layout: The run.
        torn: The lists of files that have damaged lines, and how that shows.
    """
    for folder in folders(layout):
        for fault in faults(layout, folder):
            yield Finding(_name(layout, fault.path), Complaint.DAMAGED, fault.reason)
    for path, reason in torn.items():
        yield Finding(_name(layout, path), Complaint.TORN, reason)


def _checkpoints(layout: RunLayout) -> Iterator[Finding]:
    """Saved models whose archives are not whole; nothing moves them."""
    for path in sorted(layout.checkpoints.glob("*.pt*")):
        try:
            with path.open("rb") as file:
                if file.read(2) not in (b"", b"PK"):  # of a tool of its own, or of an old torch
                    continue
                with zipfile.ZipFile(file) as archive:
                    broken = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            yield Finding(_name(layout, path), Complaint.DAMAGED, str(error))
        except OSError:
            continue
        else:
            if broken is not None:
                yield Finding(_name(layout, path), Complaint.DAMAGED, f"{broken} in it fails its checksum")


def _segments(layout: RunLayout, snapshot: Snapshot) -> Iterator[Finding]:
    """Segments whose frames end before they should: bytes that power loss or damage took."""
    copies = {segment.path: segment for segment in snapshot.segments}
    for path, lost in snapshot.damaged.items():
        if segment := copies.get(path):
            beside = "".join(f", {n:,} of {folder}/" for folder, n in lost.records.items())
            reason = f"{segment.used - segment.intact} bytes fail their checksum{beside}{lost.more}"
            yield Finding(_name(layout, path), Complaint.TORN, reason, lost.rows)
        else:
            yield Finding(_name(layout, path), Complaint.TORN, "no row of it can be read")


def _journals(layout: RunLayout) -> Iterator[Finding]:
    """Journals with lines that are not what was written."""
    for path in journal_files(layout):
        with contextlib.suppress(FileNotFoundError):
            if damaged := read_journal(path)[1]:
                yield Finding(_name(layout, path), Complaint.TORN, f"{damaged} lines fail their checksum")
