"""Compaction: one file an epoch and writer, sorted by sample, in the place of the parts it stands for.

A tool that takes every file of the folder for rows of its own would count those twice, so they are removed at once,
unless a reader has listed them and may still open them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError, leaving
from xaicli.files import TEMPORARY
from xaicli.layout import DataFile, PartName, RunLayout, without_superseded
from xaicli.locks import need_locks, unread
from xaicli.manifest import ColumnFacts
from xaicli.parquet import FileRecord
from xaicli.progress import doing
from xaicli.reader.pieces import foreign_files
from xaicli.recorder.parts import recover
from xaicli.recorder.uniformity import alone, conformed, file_conforms
from xaicli.vocabulary import FORMAT_VERSION, PASS, SAMPLE_ID, STEP
from xaicli.wal import take_snapshot
from xaicli.wal.frames import SegmentCopy

ROW_GROUP_ROWS = 16_384
"""One id in all epochs reads a half of what it does with row groups eight times as long."""
GRACE_SECONDS = 600.0
"""How long a superseded file stays where a reader has listed it and may still open it."""
_WAIT_SECONDS = 2.0
"""How long readers are waited for; most are done sooner."""

Writer = tuple[str, str, int, int, int]
"""mode, ds_id, epoch, attempt, rank: whose files may become one."""


@dataclass(frozen=True)
class Compacted:
    """One file made of others.

    Attributes:
        path: Relative to the run.
        parts: Files it stands for.
        rows: Rows in it.
        bytes_before: Bytes of the parts.
        bytes: Bytes of the file.
    """

    path: str
    parts: int
    rows: int
    bytes_before: int
    bytes: int


@dataclass(frozen=True)
class Compaction:
    """What a compaction did.

    Attributes:
        files: What was made.
        removed: Superseded and left-over files removed, relative to the run.
        waiting: Files that stay as they are until readers are done with them, superseded ones most of them.
        damaged: Files that cannot be read, relative to the run; what they belong to was left as it is.
    """

    files: tuple[Compacted, ...]
    removed: tuple[str, ...]
    waiting: tuple[str, ...]
    damaged: tuple[str, ...]


def compact(layout: RunLayout, *, grace: float = GRACE_SECONDS) -> Compaction:
    """Compact what can be: safe beside readers, a running trainer, and a kill at any moment.

    Args:
        layout: The run.
        grace: Seconds a superseded file is kept, after the file that stands for it appeared, for those who read the run
            at this moment. Where nobody does it is removed at once.

    Raises:
        XaiError: It is no run, is being compacted by another process, or changes too fast to be listed; or the system
            has no locks.
    """
    need_locks("compacting")
    made: list[Compacted] = []
    busy: list[str] = []
    damaged: list[str] = []
    with leaving(lambda: _left(made)), alone(layout) as is_alone:
        if not is_alone:
            raise XaiError(f"{layout.described} is being compacted already", hint="wait for the other xai compact")
        # What a killed training left; a disk that has no room for it leaves it in the segments.
        with contextlib.suppress(OSError):
            recover(layout)
        manifest = layout.read_manifest()  # with the columns of what was recovered
        records = parquet.read_records(layout)
        others = foreign_files(layout, records, manifest.run_id)
        damaged += [f"{path} is not this run's" for path in sorted(others)]
        snapshot = take_snapshot(layout, others)
        if not snapshot.is_settled:
            raise XaiError(f"{layout.described}: files keep appearing while they are listed", hint="try again")
        unsaved = _unsaved(snapshot.segments)
        writers = _by_writer(snapshot.files)
        for number, (writer, files) in enumerate(writers.items(), 1):
            doing("compacting epochs", number, len(writers))
            for group in _stretches(files, unsaved.get(writer, ())):
                if _is_done(group, manifest.columns):
                    continue
                try:
                    with _may_replace(layout, group, grace, 0.0 if busy else _WAIT_SECONDS) as may:
                        if may:
                            made.append(_merge(layout, writer, group, records, manifest.columns))
                        else:
                            busy.append(group[0].path.relative_to(layout.root).as_posix())
                except DamagedFileError as error:
                    damaged.append(error.message)
                except FileNotFoundError:
                    continue  # moved away meanwhile, by the doctor or a hand
        removed, waiting = _remove_superseded(layout, grace, others)
    return Compaction(tuple(made), tuple(removed), (*busy, *waiting), tuple(damaged))


def _left(made: Sequence[Compacted]) -> str:
    """What an interrupted compaction leaves."""
    return (
        f"{len(made):,} {'file is' if len(made) == 1 else 'files are'} made, every row is there; the same call goes on"
    )


def _is_done(files: Sequence[DataFile], columns: Sequence[ColumnFacts]) -> bool:
    """Whether files are one already that has all columns of the run."""
    return len(files) == 1 and files[0].part.compacted and file_conforms(files[0], columns)


@contextlib.contextmanager
def _may_replace(layout: RunLayout, files: Sequence[DataFile], grace: float, wait: float) -> Iterator[bool]:
    """Whether one file may be made of these: always, unless it takes the name of one that somebody may read."""
    if len(files) > 1 or not files[0].part.compacted or _age(files[0].path) >= grace:
        yield True
        return
    with unread(layout.data, wait) as is_unread:
        yield is_unread


def _unsaved(segments: Sequence[SegmentCopy]) -> dict[Writer, list[int]]:
    """The sequences that are still in a segment."""
    found: dict[Writer, list[int]] = {}
    for segment in segments:
        for folder in {frame.place.folder for frame in segment.frames if frame.place}:
            found.setdefault((*folder, *segment.facts.writer), []).append(segment.sequence)
    return found


def _by_writer(files: Sequence[DataFile]) -> dict[Writer, list[DataFile]]:
    groups: dict[Writer, list[DataFile]] = {}
    for file in files:
        writer = (file.mode, file.ds_id, file.epoch, file.part.attempt, file.part.rank)
        groups.setdefault(writer, []).append(file)
    return groups


def _stretches(files: Sequence[DataFile], unsaved: Sequence[int]) -> Iterator[list[DataFile]]:
    """Files that may become one: in order, without a sequence among them that is still in a segment."""
    group: list[DataFile] = []
    for file in sorted(files, key=lambda file: file.part.first):
        if group and any(group[-1].part.last < sequence < file.part.first for sequence in unsaved):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _merge(
    layout: RunLayout,
    writer: Writer,
    files: Sequence[DataFile],
    records: Mapping[str, FileRecord],
    columns: Sequence[ColumnFacts],
) -> Compacted:
    """The one file of several, with all columns of the run."""
    first, last = files[0].part, files[-1].part
    table = conformed(_sorted([_read(layout, file, records) for file in files]), columns)
    part = PartName(first.attempt, first.rank, first.first, last.last, compacted=True)
    table = table.replace_schema_metadata({"xai": _footer(layout, writer, part)})
    path = files[0].path.with_name(part.filename)
    before = sum(file.path.stat().st_size for file in files)
    record = parquet.write(table, path, root=layout.root, row_group_rows=ROW_GROUP_ROWS)
    parquet.append_record(layout, part.attempt, part.rank, record)
    return Compacted(record.path, len(files), record.rows, before, record.bytes)


def _read(layout: RunLayout, file: DataFile, records: Mapping[str, FileRecord]) -> pa.Table:
    """A file whose every byte was checked: what is wrong now would be right by its checksum afterwards."""
    record = records.get(file.path.relative_to(layout.root).as_posix())
    if record is not None:
        parquet.verify(file.path, record)
    return parquet.read(file.path, record=record)


def _sorted(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all by (pass, sample_id, step), and among equals in the order they were logged."""
    table = pa.concat_tables([t.replace_schema_metadata() for t in tables], promote_options="permissive")
    keys = table.select([SAMPLE_ID, STEP]).append_column("", pa.array(range(table.num_rows), pa.int64()))
    order = [(SAMPLE_ID, "ascending"), (STEP, "ascending"), ("", "ascending")]
    if (at := table.schema.get_field_index(PASS)) >= 0:
        # Parts of format version 1 beside others know no pass: theirs is 0.
        passes = pc.fill_null(table.column(at), pa.scalar(0, table.schema.field(at).type))
        table, keys = table.set_column(at, PASS, passes), keys.append_column(PASS, passes)
        order.insert(0, (PASS, "ascending"))
    return table.take(pc.sort_indices(keys, sort_keys=order)).combine_chunks()


def _footer(layout: RunLayout, writer: Writer, part: PartName) -> str:
    mode, ds_id, epoch, attempt, rank = writer
    facts = {"version": FORMAT_VERSION, "run_id": layout.read_manifest().run_id, "mode": mode, "ds_id": ds_id}
    facts |= {"epoch": epoch, "attempt": attempt, "rank": rank, "sequence": part.first, "last_sequence": part.last}
    return json.dumps(facts)


def _remove_superseded(layout: RunLayout, grace: float, others: Collection[Path]) -> tuple[list[str], list[str]]:
    """Remove what compacted files stand for, and temporary files once they are old."""
    files = [file for file in layout.data_files() if file.path not in others]
    kept = {file.path for file in without_superseded(files)}
    records = parquet.read_records(layout)
    removed, waiting = [], []
    there: dict[Path, list[DataFile]] = {}
    for file in files:
        if file.path in kept:
            there.setdefault(file.path.parent, []).append(file)
    replaced = {
        file: [other for other in there[file.path.parent] if other.part.supersedes(file.part)]
        for file in files
        if file.path not in kept
    }
    sound = {by for by in {by for standing in replaced.values() for by in standing} if _is_sound(layout, by, records)}
    if replaced:
        with unread(layout.data, _WAIT_SECONDS if grace > 0 else 0.0) as is_unread:
            for file, standing in replaced.items():
                name = file.path.relative_to(layout.root).as_posix()
                if sound.issuperset(standing) and (is_unread or all(_age(by.path) >= grace for by in standing)):
                    file.path.unlink(missing_ok=True)
                    removed.append(name)
                else:
                    waiting.append(name)
    for path in (*layout.root.rglob(f"{TEMPORARY}*"), *layout.data.rglob(".*.tmp")):  # the second of older versions
        if path.is_file() and _age(path) > max(grace, GRACE_SECONDS):
            path.unlink(missing_ok=True)
            removed.append(path.relative_to(layout.root).as_posix())
    return removed, waiting


def _is_sound(layout: RunLayout, file: DataFile, records: Mapping[str, FileRecord]) -> bool:
    """Whether a compacted file is, every byte of it checked, good enough to be the only one."""
    try:
        parquet.verify(file.path, records.get(file.path.relative_to(layout.root).as_posix()))
    except (DamagedFileError, FileNotFoundError):
        return False
    return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
