"""The way of sample rows: from the training thread into a segment, from a full segment into a part."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from xaicli.layout import RunLayout
from xaicli.recorder.allocation import SEGMENTS
from xaicli.recorder.catalogue import Catalogue
from xaicli.recorder.columns import Column
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.parts import UNFIT, store_rows
from xaicli.recorder.pool import AllocateJob, Pool
from xaicli.recorder.segment import Plan, Segment
from xaicli.recorder.writer import Writer
from xaicli.wal.frames import SegmentFacts

Key = tuple[str, str, int]
"""mode, ds_id, epoch."""
_LONGEST_NAME = 250


class SampleStream:
    """Fills segments and hands them to the writer: full, or when mode, ds_id or epoch change."""

    def __init__(
        self, layout: RunLayout, origin: SegmentFacts, catalogue: Catalogue, ledger: Ledger, writer: Writer
    ) -> None:
        self._layout = layout
        self._origin = origin
        self._catalogue = catalogue
        self._ledger = ledger
        self._writer = writer
        self._pool = Pool(layout, origin.attempt, origin.rank, ledger)
        self._active: Segment | None = None
        self._key: Key | None = None
        self._sequence = 0
        self.lock = threading.RLock()

    def append(self, key: Key, step: int, plan: Plan, rows: int, values: Sequence[Column]) -> None:
        """Keep a batch; one that finds no room is dropped and counted. The caller holds `lock`.

        Raises:
            ValueError: A text has no UTF-8 form, or the ds_id no folder name.
        """
        active = self._active
        if active is None or key != self._key or not active.append(plan, rows, step, values):
            self._append_next(key, step, plan, rows, values)
        self._ledger.rows_logged += rows

    @property
    def is_busy(self) -> bool:
        """Whether this thread, interrupted by a signal, is in the middle of keeping a batch."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def _append_next(self, key: Key, step: int, plan: Plan, rows: int, values: Sequence[Column]) -> None:
        """Keep a batch in the next segment; in pieces if it is larger than one."""
        active = self._turn(key)
        if active is None:
            self._ledger.drop(rows, "every segment is full: the disk is too slow or takes no more")
        elif active.append(plan, rows, step, values):
            return
        elif rows == 1:
            self._ledger.drop(1, "one row is larger than a segment")
        else:
            for piece in (slice(0, rows // 2), slice(rows // 2, rows)):
                part, n = [value[piece] for value in values], len(range(rows)[piece])
                if self._active is None or not self._active.append(plan, n, step, part):
                    self._append_next(key, step, plan, n, part)

    def _turn(self, key: Key) -> Segment | None:
        """Hand over the active segment and begin the next."""
        mode, ds_id, epoch = key
        if not -(2**31) <= epoch < 2**31:
            raise ValueError(f"epoch {epoch} is beyond 32 bits")
        if len(quote(ds_id, safe="")) > _LONGEST_NAME:
            raise ValueError(f"ds_id is too long for a folder: {len(ds_id)} characters")
        self.hand_over()
        if not self._pool.is_begun:
            self._pool.make_one()
            for _ in range(SEGMENTS - 1):
                self._writer.submit(AllocateJob(self._pool))
        segment = self._pool.take()
        if segment is None:
            return None
        segment.begin(replace(self._origin, mode=mode, ds_id=ds_id, epoch=epoch), self._sequence)
        self._sequence += 1
        self._active, self._key = segment, key
        return segment

    def hand_over(self) -> None:
        """Give the rows held to the writer."""
        with self.lock:
            active, self._active, self._key = self._active, None, None
            if active is None:
                return
            if active.rows:
                self._writer.submit(PartJob(self, active))
            else:
                self._pool.give(active)

    def store(self, segment: Segment) -> None:
        """Turn a segment into a part."""
        assert segment.facts is not None
        columns = self._catalogue.current()
        record = store_rows(self._layout, segment.facts, segment.sequence, segment.content(), segment.frames(), columns)
        self._ledger.stored(record.rows, record.bytes)
        if unfit := segment.rows - record.rows:
            self._ledger.drop(unfit, UNFIT)
        self._pool.give(segment)

    def lose(self, segment: Segment, reason: str, *, reuse: bool) -> None:
        """A segment this process will not write: its rows wait in the segment's file, or are lost."""
        if reuse or not segment.is_durable:
            self._ledger.drop(segment.rows, reason)
            self._pool.give(segment)

    def close(self) -> None:
        """Give the segments back."""
        self._pool.close()


class PartJob:
    """A full segment on its way into a part."""

    def __init__(self, stream: SampleStream, segment: Segment) -> None:
        self._stream = stream
        self._segment = segment

    def store(self) -> None:
        self._stream.store(self._segment)

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        self._stream.lose(self._segment, reason, reuse=for_good)
