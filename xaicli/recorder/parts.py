"""Rows as parts: those of a segment, those that a killed training left, and any table."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.files import facts_in, remove_leftovers, set_aside, with_check, write_whole
from xaicli.layout import PartName, RunLayout
from xaicli.locks import alone_at, is_held, remove_dead
from xaicli.manifest import ColumnFacts
from xaicli.recorder.attempt import lock_path, stats_file
from xaicli.recorder.ledger import add_to_counters, note_last_sign, say
from xaicli.recorder.schema import add_columns
from xaicli.recorder.segments import Segment
from xaicli.tables.schema import described, held, of_fields, together
from xaicli.vocabulary import LABEL
from xaicli.wal.arrays import column
from xaicli.wal.frames import (
    RECORD_FOLDERS,
    UNKNOWN,
    Folder,
    Frame,
    Lost,
    SegmentFacts,
    read_header,
    read_segment,
    segment_files,
)
from xaicli.wal.records import journal_files, read_journal, records_table, scalar_table
from xaicli.wal.rows import IGNORED, by_folder, part_metadata, records_metadata, to_table
from xaicli.wal.snapshot import is_stored


def store_rows(
    layout: RunLayout,
    facts: SegmentFacts,
    sequence: int,
    content: memoryview,
    frames: Sequence[Frame],
    columns: Sequence[ColumnFacts],
    done: dict[Folder | str, parquet.FileRecord] | None = None,
    on_lost: Callable[[int, str], None] | None = None,
    on_left_out: Callable[[str, str, int], None] | None = None,
    on_ignored: Callable[[int], None] | None = None,
    on_stored: Callable[[int, int], None] | None = None,
    names: Sequence[str] = (),
    on_kept: Callable[[str, str, int], None] | None = None,
) -> None:
    """Write a segment's rows, as far as they fit: a part in each folder; they are durable when this returns.

    Args:
        layout: The run.
        facts: Whose rows they are.
        sequence: The parts' number.
        content: The segment's bytes after the header.
        frames: Its batches, of any places.
        columns: The run's columns.
        done: The parts that an earlier try has written; those written now are added.
        on_lost: Told of rows that no part can hold, and why.
        on_left_out: Told of labels and predictions that none can hold: the column, why, and the rows.
        on_ignored: Told of labels that stand for none.
        on_stored: Told of each part when it is there: its rows and bytes.
        names: The run's label names.
        on_kept: Told of labels that are none of them, and are kept: the column, why, and how many.

    Raises:
        OSError: One cannot be written; others are in `done`.
        MemoryError: There is no room to make one; likewise.
    """
    part = PartName(*facts.writer, sequence, sequence)
    stored: dict[Folder | str, parquet.FileRecord] = {} if done is None else done
    for folder, group in by_folder(frames).items():
        if folder in stored:
            continue
        lost: list[tuple[int, str]] = []
        left_out: Counter[tuple[str, str]] = Counter()
        table = _as_table(content, group, _Of(folder, facts, columns, lost, left_out))
        named = table.replace_schema_metadata(part_metadata(facts, folder, sequence))
        stored[folder] = store_table(layout, named, layout.folder(*folder), part)
        if on_stored:
            on_stored(stored[folder].rows, stored[folder].bytes)
        for rows, reason in lost if on_lost else ():
            on_lost(rows, reason)  # type: ignore[misc]
        ignored = left_out.pop((LABEL, IGNORED), 0)
        if ignored and on_ignored:
            on_ignored(ignored)
        for (name, reason), rows in left_out.items() if on_left_out else ():
            on_left_out(name, f"{name} {reason}", rows)  # type: ignore[misc]
        odd = _without_a_name(table, names) if names and on_kept else None
        if odd is not None and len(odd):
            on_kept(LABEL, _NO_NAME.format(label=odd[0].as_py(), n=len(names)), len(odd))  # type: ignore[misc]


_NO_NAME = "label {label!r} is none of the {n} label_names: it is kept, as a class without a name"


def _without_a_name(table: pa.Table, names: Sequence[str]) -> pa.ChunkedArray | None:
    """The labels of a part that are none of the run's names; None where they are no classes."""
    label = table[LABEL] if LABEL in table.column_names else None
    if label is not None and pa.types.is_list(label.type):
        label = pc.list_flatten(label)
    if label is None or not (pa.types.is_string(label.type) or pa.types.is_int32(label.type)):
        return None
    known = column(list(names) if pa.types.is_string(label.type) else range(len(names)), label.type)
    return label.filter(pc.and_(pc.is_valid(label), pc.invert(pc.is_in(label, known))))


def segment_part(segment: Segment) -> PartName:
    """The name of the files a segment becomes."""
    assert segment.facts is not None
    return PartName(*segment.facts.writer, segment.sequence, segment.sequence)


def record_tables(
    content: memoryview, frames: Sequence[Frame], id_type: str | None
) -> Iterator[tuple[str, pa.Table, int]]:
    """The records of a segment: each folder, its table, and how many are not in it for an id of another kind."""
    for folder in RECORD_FOLDERS:
        group = [frame for frame in frames if frame.folder == folder]
        if group:
            yield folder, *records_table(content, group, folder, id_type)


def odd_ids(folder: str) -> str:
    """Why records of a folder are left out when they become a file."""
    return f"{folder} have ids that are none of the run's kind"


class _Of(NamedTuple):
    """Whose rows a table is made of, and what is lost of them."""

    folder: Folder
    facts: SegmentFacts
    columns: Sequence[ColumnFacts]
    lost: list[tuple[int, str]]
    left_out: Counter[tuple[str, str]]


def _as_table(content: memoryview, frames: Sequence[Frame], of: _Of) -> pa.Table:
    """The rows of a folder; where they cannot be brought into one table, those batches that can, one by one."""
    try:
        return to_table(content, frames, of.folder, of.facts, of.columns, of.left_out)
    except MemoryError:
        raise
    except Exception as error:
        if len(frames) == 1:
            of.lost.append((frames[0].rows, f"rows cannot be stored: {error}"))
            return to_table(content, [], of.folder, of.facts, of.columns)
    of.left_out.clear()
    return pa.concat_tables([_as_table(content, [frame], of) for frame in frames])


def store_records(layout: RunLayout, table: pa.Table, folder: str, part: PartName, run_id: str) -> parquet.FileRecord:
    """Write a part of what is logged beside samples, whose footer says whose it is; it is durable when this returns.

    Raises:
        OSError: It cannot be written.
    """
    named = table.replace_schema_metadata({**(table.schema.metadata or {}), **records_metadata(run_id, part)})
    return store_table(layout, named, layout.root / folder, part)


def store_table(layout: RunLayout, table: pa.Table, folder: Path, part: PartName) -> parquet.FileRecord:
    """Write a part; it is durable when this returns.

    Raises:
        OSError: It cannot be written.
    """
    record = parquet.write(table, folder / part.filename, root=layout.root)
    # A file without a record is good; only its check is weaker.
    with contextlib.suppress(OSError):
        parquet.append_record(layout, part.attempt, part.rank, record)
    return record


_NAME = re.compile(r"a(\d{6,})-r(\d{4,})[-.]")


OnLost = Callable[[Lost, Path], None]
"""Told what is damaged of a segment, and where it was, or is kept where nothing tells how much there was."""


def recover(layout: RunLayout, on_lost: OnLost | None = None) -> int:
    """Store the rows of every segment and journal whose writer is dead, and remove these.

    One process does it at a time. Of a segment that is partly stored (a kill between its parts, or before its reset)
    what is missing is written.

    Args:
        layout: The run.
        on_lost: Counts what is damaged; without it damaged segments stay, where readers name them.

    Returns:
        Sample rows stored.

    Raises:
        OSError: A part cannot be written; its segment stays, and readers read it where it is.
    """
    rows = 0
    with _alone(layout) as is_alone:
        if is_alone:
            remove_leftovers(layout.wal)
        paths = [*segment_files(layout), *journal_files(layout)] if is_alone else []
        writers = {lock_path(layout, *writer) for path in paths if (writer := _writer(path))}
        for lock in sorted(lock for lock in writers if not is_held(lock)):
            left = [path for path in segment_files(layout) if _lock(layout, path) == lock]
            _note_last_sign(layout, lock)
            for path in sorted(left, key=_sequence):
                rows += _recover_one(layout, path, on_lost)
            for path, part in journal_files(layout).items():
                if _lock(layout, path) == lock:
                    _recover_journal(layout, path, part)
            lock.unlink(missing_ok=True)
        for lock in layout.wal.glob("a*.lock") if is_alone else ():
            if not is_held(lock):
                _note_last_sign(layout, lock)
            remove_dead(lock)  # of a process that died before its first segment
    return rows


def last_sign(layout: RunLayout, attempt: int, rank: int) -> float | None:
    """When a process last showed that it lived, in seconds since 1970: by a row or its lock, while these lie in wal/.

    Args:
        layout: The run.
        attempt: Its attempt.
        rank: Its rank in it.
    """
    lock = lock_path(layout, attempt, rank)
    signs = [
        header.put for path in segment_files(layout) if _lock(layout, path) == lock and (header := read_header(path))
    ]
    with contextlib.suppress(OSError):
        signs.append(lock.stat().st_mtime)
    return max((sign for sign in signs if math.isfinite(sign)), default=0.0) or None


def _note_last_sign(layout: RunLayout, lock: Path) -> None:
    if (writer := _writer(lock)) and (seconds := last_sign(layout, *writer)):
        note_last_sign(stats_file(layout, *writer), seconds)


@contextlib.contextmanager
def _alone(layout: RunLayout) -> Iterator[bool]:
    """Whether no other process stores what was left; it then does all of it."""
    if not layout.wal.is_dir():
        yield False
        return
    with alone_at(layout.attempts / ".recovery") as is_alone:
        yield is_alone


def _writer(path: Path) -> tuple[int, int] | None:
    """The attempt and the rank in a segment's or a journal's name."""
    match = _NAME.match(path.name)
    return (int(match[1]), int(match[2])) if match else None


def _lock(layout: RunLayout, path: Path) -> Path | None:
    writer = _writer(path)
    return lock_path(layout, *writer) if writer else None


def _sequence(path: Path) -> int:
    """What to go by: the newest segment is removed last, since it tells readers how far its writer came."""
    header = read_header(path)
    return -1 if header is None else header.sequence


def _recover_one(layout: RunLayout, path: Path, on_lost: OnLost | None) -> int:
    rows, ignored = 0, list[int]()
    lost: Lost | None = None
    try:
        segment = read_segment(path)
    except DamagedFileError:
        segment, lost = None, UNKNOWN
    if segment is not None:
        left = segment.without(partial(is_stored, layout, segment.facts, segment.sequence))
        lost = segment.lost if left.frames or not segment.frames else None
    if lost and on_lost is None:
        return 0
    if segment is not None:
        rows = left.rows
        manifest = add_columns(layout, left.frames, left.content)
        found: dict[str, Counter[str]] = {}
        kept: dict[str, Counter[str]] = {}

        def keep(name: str, why: str, n: int) -> None:
            for counts in (found, kept):
                counts.setdefault(name, Counter())[why] += n

        if rows:
            store_rows(
                layout,
                left.facts,
                left.sequence,
                left.content,
                left.frames,
                manifest.columns,
                on_left_out=lambda name, why, n: found.setdefault(name, Counter()).update({why: n}),
                on_ignored=ignored.append,
                names=manifest.label_names or (),
                on_kept=keep,
            )
        part = PartName(*left.facts.writer, left.sequence, left.sequence)
        for folder, table, odd in record_tables(left.content, left.frames, manifest.id_type):
            store_records(layout, table, folder, part, left.facts.run_id)
            if odd:
                found.setdefault(folder, Counter())[odd_ids(folder)] += odd
        if found or ignored:
            add_to_counters(stats_file(layout, *left.facts.writer), found, sum(ignored), kept)
    if lost and on_lost:
        on_lost(lost, path if lost.is_all else set_aside(path))
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return rows


def _recover_journal(layout: RunLayout, path: Path, part: PartName) -> None:
    with contextlib.suppress(FileNotFoundError):
        rows, damaged = read_journal(path)
        if rows and not (layout.scalars / part.filename).exists():
            store_records(layout, scalar_table(rows), layout.scalars.name, part, layout.read_manifest().run_id)
        if not damaged:  # else it stays, and is named
            path.unlink()


def append_table(layout: RunLayout, writer: tuple[int, int], name: str, table: pa.Table) -> Path:
    """Add rows to a table of the run; they are durable when this returns.

    Args:
        layout: The run.
        writer: The attempt and the rank that write.
        name: The table's name; any text.
        table: The rows; a field's metadata may hold its schema as JSON under `xai_schema`.

    Returns:
        The file written.

    Raises:
        OSError: It cannot be written.
    """
    folder = layout.table_folder(name)
    path = folder / "schema.json"
    try:
        described(path)
        stored = facts_in(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stored = held(folder)
    except ValueError as error:
        stored = held(folder)
        say(f"xai: {path} is damaged ({error}): it is made again of what the table's files say")
    schemas = together(stored, of_fields(table.schema))
    text = json.dumps(schemas, indent=2)
    write_whole(path, (with_check(text) if schemas and "check" not in schemas else text).encode(), durable=True)
    parts = (PartName.parse(path.name) for path in folder.iterdir())
    taken = [part.last for part in parts if part and (part.attempt, part.rank) == writer]
    sequence = max(taken, default=-1) + 1
    path = folder / PartName(*writer, sequence, sequence).filename
    parquet.append_record(layout, *writer, parquet.write(table, path, root=layout.root))
    return path
