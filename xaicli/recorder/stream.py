"""The way of sample rows: from the training thread into a segment, from a full segment into a part."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from xaicli import parquet, wal
from xaicli.layout import PartName, RunLayout
from xaicli.recorder.catalogue import Catalogue
from xaicli.recorder.columns import Column
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.segment import Plan, Segment
from xaicli.recorder.writer import Writer
from xaicli.wal import SegmentFacts

Key = tuple[str, str, int]
"""mode, ds_id, epoch."""
_LONGEST_WAIT = 5.0


class SampleStream:
    """Three segments in turn: one is filled, one is written, one is spare."""

    def __init__(
        self, layout: RunLayout, origin: SegmentFacts, segments: Sequence[Segment], catalogue: Catalogue, ledger: Ledger
    ) -> None:
        self._layout = layout
        self._origin = origin
        self._catalogue = catalogue
        self._ledger = ledger
        self._free = deque(segments)
        self._active: Segment | None = None
        self._key: Key | None = None
        self._sequence = 0
        self._behind = False
        self._returned = threading.Condition()
        self.lock = threading.RLock()
        self.writer: Writer

    def append(self, key: Key, step: int, plan: Plan, rows: int, values: Sequence[Column]) -> None:
        """Keep a batch; one that finds no room is dropped and counted.

        Raises:
            ValueError: A text has no UTF-8 form.
        """
        with self.lock:
            active = self._active
            if active is None or key != self._key:
                active = self._turn(key)
            elif active.append(plan, rows, step, values):
                self._ledger.rows_logged += rows
                return
            else:
                active = self._turn(key)
            self._ledger.rows_logged += rows
            if active is None:
                self._ledger.drop(rows, "the disk is too slow or takes no more: every segment is full")
            elif not active.append(plan, rows, step, values):
                self._append_halves(key, step, plan, rows, values)

    def _append_halves(self, key: Key, step: int, plan: Plan, rows: int, values: Sequence[Column]) -> None:
        """A batch larger than a segment, in pieces."""
        if rows == 1:
            self._ledger.drop(1, "one row is larger than a segment")
            return
        self._ledger.rows_logged -= rows
        for part in (slice(0, rows // 2), slice(rows // 2, rows)):
            self.append(key, step, plan, len(range(rows)[part]), [value[part] for value in values])

    def _turn(self, key: Key) -> Segment | None:
        """Hand over the active segment and begin the next."""
        self.hand_over()
        segment = self._take()
        if segment is None:
            return None
        mode, ds_id, epoch = key
        origin = self._origin
        facts = SegmentFacts(origin.run_id, origin.attempt, origin.rank, mode, ds_id, epoch, origin.boot_id)
        segment.begin(facts, self._sequence)
        self._sequence += 1
        self._active, self._key = segment, key
        return segment

    def _take(self) -> Segment | None:
        with self._returned:
            if not self._free:
                self._ledger.stalls += 1
                # While the disk takes nothing, only the first step waits for it.
                if not self._behind:
                    self._returned.wait_for(lambda: bool(self._free), _LONGEST_WAIT)
                self._behind = not self._free
            else:
                self._behind = False
            return self._free.popleft() if self._free else None

    def hand_over(self) -> None:
        """Give the rows held to the writer."""
        with self.lock:
            active, self._active, self._key = self._active, None, None
            if active is None:
                return
            if active.rows:
                self.writer.submit(PartJob(self, active))
            else:
                self.take_back(active)

    def take_back(self, segment: Segment) -> None:
        """A segment whose rows are stored."""
        segment.reset()
        with self._returned:
            self._free.append(segment)
            self._returned.notify_all()

    def store(self, segment: Segment) -> None:
        """Turn a segment into a part."""
        assert segment.facts is not None
        record = store_rows(
            self._layout, segment.facts, segment.sequence, segment.content(), segment.frames(), self._catalogue.facts
        )
        self._ledger.stored(segment.rows, record.bytes)
        self.take_back(segment)

    def lose(self, segment: Segment, reason: str) -> None:
        """A segment this process will not write: its rows wait in the segment's file, or are gone with the memory."""
        if not segment.durable:
            self._ledger.drop(segment.rows, reason)


class PartJob:
    """A full segment on its way into a part."""

    def __init__(self, stream: SampleStream, segment: Segment) -> None:
        self._stream = stream
        self._segment = segment

    def store(self) -> None:
        self._stream.store(self._segment)

    def give_up(self, reason: str) -> None:
        self._stream.lose(self._segment, reason)


def store_rows(
    layout: RunLayout,
    facts: SegmentFacts,
    sequence: int,
    content: memoryview,
    frames: Sequence[wal.Frame],
    columns: Sequence[wal.ColumnFacts],
) -> parquet.FileRecord:
    """Write the part of a segment's rows.

    Raises:
        OSError: It cannot be written.
    """
    table = wal.to_table(content, frames, facts, columns)
    table = table.replace_schema_metadata(wal.part_metadata(facts, sequence))
    name = PartName(facts.attempt, facts.rank, sequence, sequence).filename
    folder = layout.folder(facts.mode, facts.ds_id, facts.epoch)
    record = parquet.write(table, folder / name, root=layout.root)
    try:
        parquet.append_record(layout, facts.attempt, facts.rank, record)
    except OSError:
        pass  # a file without a record is good; only its check is weaker
    return record
