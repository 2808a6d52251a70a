"""The way of rows to the disk: from the training thread into a segment, from a full one, by a thread, into parts."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from xaicli.layout import RunLayout
from xaicli.locks import BEAT_SECONDS
from xaicli.manifest import ColumnFacts
from xaicli.parquet import FileRecord
from xaicli.recorder.attempt import note_first_step
from xaicli.recorder.columns import Column
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.parts import odd_ids, record_tables, segment_part, store_records, store_rows
from xaicli.recorder.schema import Catalogue
from xaicli.recorder.segments import SEGMENTS, AllocateJob, Plan, Pool, Segment
from xaicli.vocabulary import SAMPLE_ID, Mode
from xaicli.wal.frames import RECORD_FOLDERS, Folder, Frame, Place, SegmentFacts
from xaicli.wal.rows import too_wide


class SampleStream:
    """Fills segments and hands full ones to the writer."""

    def __init__(
        self,
        layout: RunLayout,
        origin: Callable[[], SegmentFacts],
        catalogue: Catalogue,
        ledger: Ledger,
        writer: Writer,
    ) -> None:
        """
        Args:
            layout: The run.
            origin: Settles whose rows these are, when the first comes.
            catalogue: The run's columns.
            ledger: What counts the rows.
            writer: What makes files of them.
        """
        self._layout = layout
        self._find_origin = origin
        self._origin: SegmentFacts | None = None
        self._catalogue = catalogue
        self._ledger = ledger
        self._writer = writer
        self._pool: Pool | None = None
        self._active: Segment | None = None
        self._sequence = 0
        self._is_noted = False
        self.stored_with: set[tuple[ColumnFacts, ...]] = set()
        """The columns that the run had when parts were written."""
        self.waiting = 0
        """Rows that this process leaves in `wal/`."""
        self.lock = threading.RLock()

    def append(self, place: Place, step: int, plan: Plan, rows: int, values: Sequence[Column]) -> None:
        """Keep a batch; one that finds no room is dropped and counted. The caller holds `lock`.

        Raises:
            ValueError: A text has no UTF-8 form.
        """
        active = self._active
        if active is None or not active.append(place, plan, rows, step, values):
            self._append_next(place, step, plan, rows, values)
        self._ledger.rows_logged += rows

    def append_records(self, folder: str, records: int, payload: bytes) -> bool:
        """Keep records beside samples; False where there is no room for them."""
        number = RECORD_FOLDERS.index(folder)
        with self.lock:
            for _ in range(3):  # as it is, in the next segment, in a larger one
                if self._active is not None and self._active.append_records(number, records, payload):
                    return True
                if self._turn() is None:
                    return False
            return False

    def next_sequence(self) -> tuple[SegmentFacts, int]:
        """A number of this writer's for a file that comes from no segment, and whose it is."""
        with self.lock:
            if self._origin is None:
                self._origin = self._find_origin()
            self._sequence += 1
            return self._origin, self._sequence - 1

    def _append_next(self, place: Place, step: int, plan: Plan, rows: int, values: Sequence[Column]) -> None:
        """Keep a batch in the next segment; in pieces if it is larger than one may be."""
        for _ in range(2):  # the second time in a larger segment
            active = self._turn()
            if active is None:
                reason = "every segment is full: the disk is too slow or takes no more"
                self._ledger.drop(rows, reason)
                return
            if active.append(place, plan, rows, step, values):
                return
        if rows == 1:
            self._ledger.drop(1, "one row is larger than a segment")
            return
        for piece in (slice(0, rows // 2), slice(rows // 2, rows)):
            part, n = [value[piece] for value in values], len(range(rows)[piece])
            if self._active is None or not self._active.append(place, plan, n, step, part):
                self._append_next(place, step, plan, n, part)

    def _turn(self) -> Segment | None:
        """Hand over the active segment and begin the next, larger if frames are large."""
        wanted = self._active.wanted if self._active else 0
        self.hand_over()
        if self._origin is None:
            self._origin = self._find_origin()
        if self._pool is None:
            self._pool = Pool(self._layout, self._origin.writer, self._ledger)
            self._pool.make_one()
            for _ in range(SEGMENTS - 1):
                self._writer.submit(AllocateJob(self._pool))
        if wanted:
            self._pool.grow(wanted)
        # The writer itself, whose thread may log too, would wait for itself.
        segment = self._pool.take(is_failing=self._writer.is_failing or is_background())
        if segment is None:
            return None
        segment.begin(self._origin, self._sequence)
        self._sequence += 1
        self._active = segment
        return segment

    def hand_over(self) -> None:
        """Give the rows held to the writer."""
        with self.lock:
            active, self._active = self._active, None
            if active is None:
                return
            if not active.is_empty:
                self._writer.submit(PartJob(self, active))
            else:
                self._give(active)

    def store(self, segment: Segment, done: dict[Folder | str, FileRecord]) -> None:
        """Turn a segment into parts; `done` holds those of an earlier try."""
        assert segment.facts is not None
        root = self._layout.root
        columns = self._catalogue.current()
        frames = segment.frames()
        for name, why in too_wide(segment.content(), frames, columns).items():
            self._catalogue.widen(name)
            columns = self._catalogue.current()
            message = f"{name} has {why}: it is kept in double precision"
            self._ledger.warn(message, f"xai: {message}")
        self.stored_with.add(columns)
        store_rows(
            self._layout,
            segment.facts,
            segment.sequence,
            segment.content(),
            frames,
            columns,
            done,
            self._ledger.drop,
            self._ledger.refuse,
            self._ledger.ignore,
            self._ledger.stored,
            self._catalogue.manifest.label_names or (),
            self._ledger.alter,
        )
        id_type = self._catalogue.dtype(SAMPLE_ID)
        for folder, table, lost in record_tables(segment.content(), frames, id_type):
            if folder not in done:
                part = segment_part(segment)
                done[folder] = store_records(self._layout, table, folder, part, segment.facts.run_id)
                self._ledger.stored(0, done[folder].bytes)
                if lost:
                    self._ledger.drop_record(folder, odd_ids(folder), lost)
        if self._layout.root != root:  # moved or gone meanwhile: a file may have been made where the run is no more
            for where, record in done.items():
                self._ledger.not_stored(0 if isinstance(where, str) else record.rows, record.bytes)
            done.clear()
            raise FileNotFoundError(errno.ENOENT, "the run directory was moved", str(root))
        if not self._is_noted:
            self._note_first(segment.facts.attempt, frames)
        self._give(segment)

    def _note_first(self, attempt: int, frames: Sequence[Frame]) -> None:
        """Keep the first training step of a later attempt, for those who ask how a run was resumed."""
        train = [(f.place.epoch, f.step) for f in frames if f.place and f.place.mode == Mode.TRAIN]
        if train:
            self._is_noted = True
            if attempt:
                with contextlib.suppress(OSError):
                    note_first_step(self._layout, attempt, min(train)[1])

    def _give(self, segment: Segment) -> None:
        if self._pool is not None:
            self._pool.give(segment)

    def lose(self, segment: Segment, done: Collection[Folder | str], reason: str, *, reuse: bool) -> None:
        """A segment this process will not write, but for what is `done`: it waits in the segment's file, or is lost."""
        left = [f for f in segment.frames() if (f.place.folder if f.place else f.folder) not in done]
        rows = sum(frame.rows for frame in left if frame.place)
        if not reuse and self._pool is not None and self._pool.outlives(segment):
            self.waiting += rows
        else:
            if rows:
                self._ledger.drop(rows, reason)
            for frame in left:
                if frame.folder:
                    self._ledger.drop_record(frame.folder, reason, frame.rows)
            self._give(segment)

    def close(self) -> None:
        """Give the segments back; what comes after this makes new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class PartJob:
    """A full segment on its way into parts."""

    def __init__(self, stream: SampleStream, segment: Segment) -> None:
        self._stream = stream
        self._segment = segment
        self._done: dict[Folder | str, FileRecord] = {}

    def store(self) -> None:
        self._stream.store(self._segment, self._done)

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        self._stream.lose(self._segment, self._done, reason, reuse=for_good)


_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Job(Protocol):
    """Rows waiting to become a file."""

    def store(self) -> None:
        """Write the file; what raises is tried again later."""

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """The file will not be written by this process, or, `for_good`, by none: its rows cannot be stored."""


_background: set[int] = set()
"""The threads that make files."""


def is_background() -> bool:
    """Whether this is the thread of a writer, of any run."""
    return threading.get_ident() in _background


class Writer:
    """Stores jobs in order; one that fails is tried again, ever less often, while training goes on."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        interval: float,
        on_timer: Callable[[], None],
        on_beat: Callable[[], None] = lambda: None,
        on_failure: Callable[[], bool] = lambda: False,
        within: Callable[[Callable[[], object]], object] = lambda work: work(),
    ) -> None:
        """
        Args:
            ledger: What counts failures.
            interval: Seconds between two calls of `on_timer`.
            on_timer: Hands over what is held.
            on_beat: Says that the process lives.
            on_failure: Finds out why a file cannot be written; True where it says so itself.
            within: Does work as a call, which records that come from within it wait for.
        """
        self._within = within
        self._on_failure = on_failure
        self._on_beat = on_beat
        self._ledger = ledger
        self._interval = interval
        self._on_timer = on_timer
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._failed_at = 0.0
        self._pause = 0.0
        self._urgent = False
        self.start()

    def start(self) -> None:
        """Begin to store, also after `stop`."""
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="xai-writer", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether `stop` has ended the thread, and nothing is left to do."""
        return not self._jobs and not self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Hand over a job."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    @property
    def is_failing(self) -> bool:
        """Whether the last write failed."""
        return self._pause > 0

    @property
    def pending(self) -> int:
        """Jobs not stored yet."""
        return len(self._jobs)

    def wait_idle(self, timeout: float | None) -> bool:
        """Wait until every job handed over so far is stored; a failing one is tried at once, once.

        Returns:
            Whether all are stored.
        """
        if threading.current_thread() is self._thread:  # a hook of the caller's that is called while it writes
            return not self._jobs
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            failures = self._ledger.write_failures
            self._urgent = True
            self._changed.notify_all()
            while self._jobs:
                left = None if deadline is None else deadline - time.monotonic()
                if self._ledger.write_failures > failures or (left is not None and left <= 0):
                    return False
                if not self._thread.is_alive():
                    return False
                self._changed.wait(1.0 if left is None else min(1.0, left))
            return True

    def stop(self, timeout: float) -> list[Job]:
        """End the thread after at most `timeout` seconds; returns the jobs it did not store."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            left = list(self._jobs)
            self._jobs.clear()
            return left

    def _work(self) -> None:
        _background.add(threading.get_ident())
        try:
            self._store_all()
        finally:
            _background.discard(threading.get_ident())

    def _store_all(self) -> None:
        while job := self._next():
            try:
                self._within(job.store)
            except (OSError, MemoryError) as error:  # the rows stay where they are, and it is tried again
                self._note_failure(error)
                continue
            except Exception as error:  # the rows themselves: no second try would do better
                job.give_up(f"rows cannot be stored: {error}", for_good=True)
            with self._changed:
                if self._jobs and self._jobs[0] is job:
                    self._jobs.popleft()
                self._pause = 0.0
                self._changed.notify_all()

    def _next(self) -> Job | None:
        """The job to do now; None when the thread is to end."""
        tick = time.monotonic() + self._interval
        beat = time.monotonic() + BEAT_SECONDS
        while True:
            if time.monotonic() >= beat:
                self._within(self._on_beat)
                beat = time.monotonic() + BEAT_SECONDS
            with self._changed:
                now = time.monotonic()
                ready = self._urgent or now >= self._failed_at + self._pause
                if self._jobs and ready:
                    self._urgent = False
                    return self._jobs[0]
                if self._closing:
                    return None
                if now < tick:
                    until = min(tick, self._failed_at + self._pause) if self._jobs else tick
                    self._changed.wait(max(0.01, min(until, beat) - now))
                    continue
            # Outside the lock: the timer takes the recorder's lock, under which jobs are handed over.
            self._within(self._on_timer)
            tick = time.monotonic() + self._interval

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            self._ledger.write_failures += 1
            self._failed_at = time.monotonic()
            self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
            self._changed.notify_all()
        if not self._on_failure():
            self._ledger.warn("write", f"xai: a file cannot be written ({error}); it is tried again, training goes on")
