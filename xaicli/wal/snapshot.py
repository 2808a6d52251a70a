"""A run's rows as they were at one moment, while trainings log and a compaction runs.

Neither three segments nor a tree of folders can be read in an instant, so what is read is cut where it is whole. The
segments are copied first and the folders listed afterwards: rows that move from one to the other in between are seen
twice, which their names reveal, and never missed. A listing that takes a while shows files younger than the copies,
perhaps one without its predecessor, so of each writer nothing counts that is newer than its segments were: a sequence
number says so, since a rank's rows fill its segments, and become files, in that order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, RunLayout, without_superseded
from xaicli.wal.frames import SegmentCopy, SegmentFacts, Writer, read_header, read_segment, segment_files

_TRIES = 20


@dataclass(frozen=True)
class Snapshot:
    """What counted at one moment.

    Attributes:
        files: The files, superseded ones left out, in a fixed order.
        segments: Copies of the segments whose rows no file holds, oldest first.
        damaged: Segments whose rows cannot be read, all of them or the last.
        is_settled: Whether it is certain that no file is missing among younger ones; otherwise files kept appearing
            whose writer has no segments (its rows wait in memory), or vanishing.
    """

    files: tuple[DataFile, ...]
    segments: tuple[SegmentCopy, ...]
    damaged: tuple[Path, ...] = ()
    is_settled: bool = True


def take_snapshot(layout: RunLayout) -> Snapshot:
    """What a run holds now: every row that was logged before this call, and of no rank one without those before it.

    Fences and duplicates are left to the reader.
    """
    if (quiet := _quiet(layout)) is not None:
        files = without_superseded(layout.data_files())
        if _quiet(layout) == quiet:
            return Snapshot(tuple(files), ())
    before = set(layout.data_files())
    for number in range(1, _TRIES + 1):
        segments, newest, damaged = _copies(layout)
        now = set(layout.data_files())
        old, unclear = _cut(now, before, newest)
        counted = without_superseded(old | before)
        # A file that has gone without a successor: a compaction came in between, which the next listing shows.
        settled = not unclear and now.issuperset(counted)
        if settled or number == _TRIES:
            break
        before = now
    files = counted if settled else without_superseded(old)
    left = _without_stored(segments, files)
    damaged += [segment.path for segment in left if segment.whole < len(segment.content)]
    return Snapshot(tuple(files), tuple(segment for segment in left if segment.rows), tuple(damaged), settled)


def _quiet(layout: RunLayout) -> int | None:
    """What stays the same while no training opens a run that none logs to; None where one may be logging."""
    if layout.wal.exists():
        return None
    try:
        return layout.attempts.stat().st_mtime_ns
    except OSError:
        return 0


def _copies(layout: RunLayout) -> tuple[list[SegmentCopy], dict[Writer, int], list[Path]]:
    """Copies of the segments, the newest sequence each writer had begun before they were made, and unreadable segments.

    What is older than the newest sequence was complete by then, and is either copied here or in a file already; so
    segments begun afterwards are left out, however long the copying takes.
    """
    newest = _newest(layout)
    copies, damaged = [], []
    for path in segment_files(layout):
        try:
            copy = read_segment(path)
        except DamagedFileError:
            damaged.append(path)
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
    now: Iterable[DataFile], before: Collection[DataFile], newest: Mapping[Writer, int]
) -> tuple[set[DataFile], bool]:
    """The files that are not younger than the segments' copies, and whether there are any that cannot be judged.

    These are new ones of a writer that has no segments, and compacted ones that reach beyond the newest sequence.
    """
    old, unclear = set(), False
    for file in now:
        last = newest.get((file.part.attempt, file.part.rank))
        if file in before or (last is not None and file.part.last <= last):
            old.add(file)
        elif last is None or file.part.first <= last:
            unclear = True
    return old, unclear


def _without_stored(segments: Iterable[SegmentCopy], files: Iterable[DataFile]) -> list[SegmentCopy]:
    """The segments whose rows no file holds."""
    stored: dict[tuple[str, str, int], list[PartName]] = {}
    for file in files:
        stored.setdefault((file.mode, file.ds_id, file.epoch), []).append(file.part)
    return [
        segment
        for segment in segments
        if not _is_among(stored.get(segment.facts.place, ()), segment.facts, segment.sequence)
    ]


def is_stored(layout: RunLayout, facts: SegmentFacts, sequence: int) -> bool:
    """Whether a part or a compacted file holds a segment's rows already."""
    try:
        names = [path.name for path in layout.folder(*facts.place).iterdir()]
    except OSError:
        return False
    return _is_among([part for name in names if (part := PartName.parse(name))], facts, sequence)


def _is_among(parts: Iterable[PartName], facts: SegmentFacts, sequence: int) -> bool:
    own = PartName(*facts.writer, sequence, sequence)
    return any(part == own or part.supersedes(own) for part in parts)
