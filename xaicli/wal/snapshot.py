"""A run's rows as they were at one moment, while trainings log and a compaction runs.

Neither three segments nor a tree of folders can be read in an instant, so what is read is cut where it is whole. The
segments are copied first and the folders listed afterwards: rows that move from one to the other in between are seen
twice, which their names reveal, and never missed. A listing that takes a while shows files younger than the copies,
perhaps one without its predecessor, so of each writer nothing counts that is newer than its segments were: a sequence
number says so, since a rank's rows fill its segments, and become files, in that order. A segment becomes a file in each
folder it has rows of, one after the other; so of a segment that was copied, the copy counts and not a file that has
appeared since, except in folders that were listed before the copy was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, RunLayout, without_superseded
from xaicli.vocabulary import LABEL
from xaicli.wal.frames import (
    RECORD_FOLDERS,
    UNKNOWN,
    Folder,
    Lost,
    SegmentCopy,
    SegmentFacts,
    Writer,
    read_header,
    read_segment,
    segment_files,
)

if TYPE_CHECKING:
    import pyarrow as pa


_TRIES = 20


@dataclass(frozen=True)
class Snapshot:
    """What counted at one moment.

    Attributes:
        files: The files, superseded ones left out, in a fixed order.
        segments: Copies of the segments, oldest first; of their frames those that no file holds.
        damaged: Segments of which something cannot be read, and how much.
        is_settled: Whether it is certain that no file is missing among younger ones; otherwise files kept appearing
            whose writer has no segments (its rows wait in memory), or vanishing.
    """

    files: tuple[DataFile, ...]
    segments: tuple[SegmentCopy, ...]
    damaged: Mapping[Path, Lost] = field(default_factory=dict)
    is_settled: bool = True


def take_snapshot(layout: RunLayout, left_out: Collection[Path] = (), closed: list[Path] | None = None) -> Snapshot:
    """What a run holds now: every row that was logged before this call, and of no rank one without those before it.

    What was taken back and duplicates are left to the reader.

    Args:
        layout: The run.
        left_out: Files among the data that are not the run's.
        closed: Takes the folders that may not be listed, now and then twice.

    Raises:
        OSError: A folder may not be listed, and `closed` is None.
    """

    def listed() -> Iterator[DataFile]:
        return (file for file in layout.data_files(closed) if file.path not in left_out)

    if (quiet := _quiet(layout)) is not None:
        files = without_superseded(listed())
        if _quiet(layout) == quiet:
            return Snapshot(tuple(files), ())
    before = set(listed())
    for number in range(1, _TRIES + 1):
        segments, newest, damaged = _copies(layout)
        now = set(listed())
        copied = {(segment.facts.writer, segment.sequence) for segment in segments}
        old, unclear = _cut(now, before, newest, copied)
        counted = without_superseded(old | before)
        # A file that has gone without a successor: a compaction came in between, which the next listing shows.
        settled = not unclear and now.issuperset(counted)
        if settled or number == _TRIES:
            break
        before = now
    files = counted if settled else without_superseded(old)
    stored = _stored(layout, files) if segments else {}
    left = []
    for segment in segments:
        rest = segment.without(partial(_is_among, stored, segment))
        if rest.frames:
            left.append(rest)
        if not segment.is_whole and (rest.frames or not segment.frames):
            damaged[segment.path] = segment.lost
    return Snapshot(tuple(files), tuple(left), dict(sorted(damaged.items())), settled)


def _quiet(layout: RunLayout) -> int | None:
    """What stays the same while no training opens a run that none logs to; None where one may be logging."""
    if layout.wal.exists():
        return None
    try:
        return layout.attempts.stat().st_mtime_ns
    except OSError:
        return 0


def _copies(layout: RunLayout) -> tuple[list[SegmentCopy], dict[Writer, int], dict[Path, Lost]]:
    """Copies of the segments, the newest sequence each writer had begun before they were made, and unreadable segments.

    What is older than the newest sequence was complete by then, and is either copied here or in a file already; so
    segments begun afterwards are left out, however long the copying takes.
    """
    newest = _newest(layout)
    copies, damaged = [], dict[Path, Lost]()
    for path in segment_files(layout):
        try:
            copy = read_segment(path)
        except DamagedFileError:
            damaged[path] = UNKNOWN
            continue
        if copy and copy.sequence <= newest.get(copy.facts.writer, -1):
            copies.append(copy)
    return sorted(copies, key=lambda copy: copy.sequence), newest, damaged


def _newest(layout: RunLayout) -> dict[Writer, int]:
    """The newest sequence each writer that has segments has begun."""
    newest: dict[Writer, int] = {}
    for _ in range(_TRIES):
        newest.clear()
        paths = segment_files(layout)
        for path in paths:
            if header := read_header(path):
                newest[header.facts.writer] = max(header.sequence, newest.get(header.facts.writer, 0))
        if set(paths) <= set(segment_files(layout)):
            break  # else a writer has ended meanwhile, and its newest segment may have been gone before it was read
    return newest


def _cut(
    now: Iterable[DataFile],
    before: Collection[DataFile],
    newest: Mapping[Writer, int],
    copied: Collection[tuple[Writer, int]],
) -> tuple[set[DataFile], bool]:
    """The files that are not younger than the segments' copies, and whether there are any that cannot be judged.

    These are new ones of a writer that has no segments, compacted ones that reach beyond the newest sequence or stand
    for a copied one, and those of a newest segment that was still empty when it was to be copied.
    """
    old, unclear = set(), False
    for file in now:
        part = file.part
        writer = (part.attempt, part.rank)
        last = newest.get(writer)
        if file in before:
            old.add(file)
        elif last is None or part.first <= last < part.last:
            unclear = True
        elif part.last <= last:
            copies = [number for number in range(part.first, part.last + 1) if (writer, number) in copied]
            if not copies and part.last != last:
                old.add(file)
            elif part.compacted or not copies:
                unclear = True
    return old, unclear


_Stored = Mapping[Folder | str, Sequence[PartName]]


def _stored(layout: RunLayout, files: Iterable[DataFile]) -> _Stored:
    """The files of each folder, those of records among them."""
    stored: dict[Folder | str, list[PartName]] = {}
    for file in files:
        stored.setdefault((file.mode, file.ds_id, file.epoch), []).append(file.part)
    return stored | {folder: _parts(layout.root / folder) for folder in RECORD_FOLDERS}


def is_stored(layout: RunLayout, facts: SegmentFacts, sequence: int, folder: Folder | str) -> bool:
    """Whether a part or a compacted file holds a segment's rows of a folder already."""
    path = layout.root / folder if isinstance(folder, str) else layout.folder(*folder)
    return _holds(_parts(path), facts, sequence)


def _parts(folder: Path) -> list[PartName]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return [part for name in names if (part := PartName.parse(name))]


def _is_among(stored: _Stored, segment: SegmentCopy, folder: Folder | str) -> bool:
    return _holds(stored.get(folder, ()), segment.facts, segment.sequence)


def _holds(parts: Iterable[PartName], facts: SegmentFacts, sequence: int) -> bool:
    own = PartName(*facts.writer, sequence, sequence)
    return any(part == own or part.supersedes(own) for part in parts)


@dataclass(frozen=True)
class LiveRows:
    """Rows of one segment and folder that are not in a part yet; `table` has a part's columns, `pass` among them."""

    mode: str
    ds_id: str
    epoch: int
    attempt: int
    rank: int
    sequence: int
    table: pa.Table
    ignored: int = 0
    """Labels that stood for none."""


def live_rows(
    layout: RunLayout, segments: Sequence[SegmentCopy], known: dict[Any, LiveRows] | None = None
) -> list[LiveRows]:
    """The rows of segments, as `take_snapshot` gives them, by folder.

    Args:
        layout: The run.
        segments: Copies of its segments.
        known: What was read of them before, which is not decoded again where nothing has come to it; takes what is
            read now.
    """
    before: dict[Any, LiveRows] = {}
    if known is not None:
        before.update(known)
        known.clear()
    if not segments:
        return []
    # A finished run has no segments, and need not load what decodes them.
    from xaicli.wal.rows import IGNORED, by_folder, to_table, too_wide, widened, with_those_of

    every = [frame for segment in segments for frame in segment.frames]
    columns = with_those_of(layout.read_manifest().columns, every)
    for segment in segments:
        columns = widened(columns, too_wide(segment.content, segment.frames, columns))
    found = []
    for segment in segments:
        for folder, frames in by_folder(segment.frames).items():
            # Of one writer's numbered segment no frame that is whole ever changes.
            key = segment.facts.writer, segment.sequence, folder, len(frames), frames[-1].end, columns
            if (rows := before.get(key)) is None:
                left_out: Counter[tuple[str, str]] = Counter()
                table = to_table(segment.content, frames, folder, segment.facts, columns, left_out)
                ignored = left_out[LABEL, IGNORED]
                rows = LiveRows(*folder, *segment.facts.writer, segment.sequence, table, ignored)
            if known is not None:
                known[key] = rows
            found.append(rows)
    return found
