"""The process that records: what stands behind its open runs, and their end with it.

Every open run is closed at exit, flushed on SIGTERM, and never by a fork.
"""

from __future__ import annotations

import _thread
import atexit

# Arrow loads pandas, where there is one, with the first part; that may be after the end of the main thread, when this
# module can no longer be loaded.
import concurrent.futures.thread  # noqa: F401
import contextlib
import errno
import mmap
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from xaicli import files
from xaicli.bookkeeping import faults, folders
from xaicli.errors import XaiError
from xaicli.layout import FollowedLayout, RunLayout
from xaicli.locks import beat, boot_id, is_held, release
from xaicli.manifest import Manifest, TakesBack
from xaicli.recorder import attempt as attempts
from xaicli.recorder.calls import MOST_ASIDE, Calls
from xaicli.recorder.config import ignored_forms
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.parts import recover
from xaicli.recorder.schema import Catalogue, SaveColumns, open_manifest
from xaicli.recorder.uniformity import make_uniform
from xaicli.recorder.writer import SampleStream, Writer, is_background
from xaicli.wal.frames import Lost, SegmentFacts

FOREIGN = "a DataLoader worker or a fork of the process logged them, and only the process that opened the run can"
_SLOTS = 512
FLUSH_SECONDS = 60.0
CLOSE_SECONDS = 2.0
_FLUSH_AT_CLOSE = 30.0
"""Seconds the last flush may take while files are still being written."""


class Process:
    """One process's part in a run.

    Attributes:
        is_uploaded: Whether the files go to an object store, where none is put in the place of another.
        fault: Why nothing can be recorded for now, or "".
        takes_back: What the attempt takes back, where restored state or the caller says so.
        keep_arrived: Keeps what has come from a device since.
        total_epochs: For how many epochs the training is meant; 0 where that is open.
        calls: What this thread is in the middle of.
    """

    keep_arrived: Callable[[], None] = staticmethod(lambda: None)
    total_epochs: Callable[[], int] = staticmethod(lambda: 0)

    def __init__(
        self,
        root: Path,
        fresh: Manifest,
        *,
        rank: int | None,
        resume: str,
        strict: bool,
        takes_back: TakesBack | None = None,
        ignore_label: int | str | None = None,
    ) -> None:
        """
        Args:
            root: The run directory.
            fresh: The manifest of a new run.
            rank: The process's rank, where the caller knows it.
            resume: Whether an existing run may be continued.
            strict: Raise when the disk refuses; else the process has a fault, and training goes on.
            takes_back: What the attempt takes back, where the caller says so.
            ignore_label: The label that stands for none.

        Raises:
            XaiError: The directory contradicts `resume` or is of a newer format; with `strict`, the disk refuses.
        """
        self.layout = layout = FollowedLayout(root, self._note_moved)
        self.fault = ""
        self.takes_back = takes_back
        self._rank = rank
        self._claim: attempts.Claim | None = None
        self._claiming = threading.RLock()
        self._is_claiming = False
        self._is_gone = False
        self._is_after_a_kill = False
        self.is_uploaded = False
        self.foreign = ForeignCounts()
        manifest, said = fresh, list[str]()
        try:
            attempts.check_resume(layout, rank, resume)
            manifest = open_manifest(layout, fresh, said.append)
        except OSError as error:
            self.fault = f"{layout.root} cannot be written: {error.strerror or error}"
            if strict:
                raise XaiError(self.fault, hint="name a folder on a disk with room that you may write to") from error
            with contextlib.suppress(OSError):
                manifest = layout.read_manifest() if layout.is_run() else fresh
        self.ledger = Ledger()
        self.ledger.is_gone = self.note_gone
        self.calls = Calls(self._lose)
        self.layout.follow()
        for message in said:
            self.ledger.warn(message, f"xai: {layout.root}: {message}")
        self._opened_with = manifest.columns
        self._ignore_label, _ = ignored_forms(ignore_label, manifest.label_names)
        self.catalogue = Catalogue(layout, manifest, self._save_columns)
        self.writer = Writer(
            self.ledger,
            interval=FLUSH_SECONDS,
            on_timer=self.hand_over,
            on_beat=self._beat,
            on_failure=self.note_gone,
            within=lambda work: self.calls.within(work),
        )
        self.samples = SampleStream(layout, self._origin, self.catalogue, self.ledger, self.writer)
        if self.fault:
            message = "nothing is recorded until it can be, which is tried again and again; training goes on"
            self.ledger.warn("write", f"xai: {self.fault}; {message}")
            self.writer.submit(OpenJob(self, fresh))
        else:
            self._say_faults()
            self._recover()

    def _say_faults(self) -> None:
        """Tell of the small files that are damaged: what is written in their place comes without what they held."""
        for folder in folders(self.layout):
            for fault in faults(self.layout, folder):
                if files.SET_ASIDE not in fault.path.name and fault.path != self.layout.manifest:
                    said = f"{fault.path} is damaged ({fault.reason}): {fault.effect}"
                    is_of_table = fault.path.parent.parent == self.layout.tables
                    then = (
                        "it is made again when rows are added to the table"
                        if is_of_table
                        else "it is kept as it is, beside what is recorded from here on"
                    )
                    self.ledger.warn(said, f"xai: {said}; {then}")

    def open_again(self, fresh: Manifest) -> None:
        """Begin to record, now that the disk takes what it refused at first.

        Args:
            fresh: The manifest of a new run.

        Raises:
            OSError: It does not.
        """
        self.catalogue.adopt(open_manifest(self.layout, fresh))
        self.layout.follow()
        self._recover()
        self.fault = ""
        self.ledger.forget("write")
        rows, records = self.ledger.rows_dropped, self.ledger.records_dropped
        lost = [f"{n:,} {noun}{'s'[: n != 1]}" for n, noun in ((rows, "row"), (records, "other record")) if n]
        self.ledger.warn(
            "back",
            f"xai: {self.layout.root} can be written now and is recorded from here on; lost before: "
            + (" and ".join(lost) or "nothing"),
        )

    def _note_moved(self, old: Path, new: Path) -> None:
        self.ledger.warn("moved", f"xai: {old} was moved to {new} while it is recorded: recording goes on there")

    def settle(self) -> attempts.Claim:
        """Which attempt and rank this process is: found when the first row comes, or when it is asked for.

        Raises:
            OSError: The run directory cannot be written, or this call interrupts the one that finds it.
        """
        return self._claim or self.calls.within(self._settle)

    def _settle(self) -> attempts.Claim:
        with self._claiming:
            if self._claim is None:
                rank = attempts.find_rank(self._rank)
                if self.fault:
                    return attempts.Claim(0, rank)
                if self._is_claiming:
                    raise OSError(errno.EBUSY, "which attempt this is, the call that is interrupted is finding out")
                self._is_claiming = True
                try:
                    claim = self._claim = attempts.claim(self.layout, rank, self.takes_back, self.total_epochs())
                finally:
                    self._is_claiming = False
                self.writer.submit(SyncClaim(self.layout, claim))
                self.ledger.keep_in(lambda: attempts.stats_file(self.layout, claim.attempt, claim.rank))
                for said in attempts.odd_variables(self._rank):
                    self.ledger.warn(said, f"xai: {said}")
                if claim.beside:
                    named = ", ".join(map(str, claim.beside))
                    self.ledger.warn(
                        "beside",
                        f"xai: {self.layout.root} is being recorded by attempt {named} still: this process is attempt "
                        f"{claim.attempt}, one more rank beside it, and takes nothing back",
                    )
            return self._claim

    def _save_columns(self) -> None:
        """Have the writer add new columns to `xai.json`, once it is settled whose they are: both lock the run."""
        if not self.fault:
            with contextlib.suppress(OSError):
                self.settle()
            self.writer.submit(SaveColumns(self.catalogue))

    @property
    def is_settled(self) -> bool:
        """Whether the attempt and the rank are known."""
        return self._claim is not None

    @property
    def identity(self) -> tuple[int, int]:
        """The attempt and the rank, as far as they are known: where the disk refuses, those that it had to be."""
        try:
            return self.writer_of_rows()
        except OSError:
            return 0, attempts.find_rank(self._rank)

    def writer_of_rows(self) -> tuple[int, int]:
        """The attempt and the rank."""
        claim = self.settle()
        return claim.attempt, claim.rank

    def _origin(self) -> SegmentFacts:
        run_id = self.catalogue.manifest.run_id
        return SegmentFacts(run_id, *self.writer_of_rows(), boot_id(), self._ignore_label)

    def take_back(self, takes_back: TakesBack) -> None:
        """Note from where on earlier attempts' rows no longer count.

        Raises:
            OSError: It cannot be written.
        """
        self.takes_back = takes_back
        with self._claiming:
            if self._claim is not None and not self.fault:
                facts = {"takes_back_from": asdict(takes_back), "resumed_from_step": takes_back.step}
                attempts.note(self.layout, self._claim.attempt, **facts)

    def _beat(self) -> None:
        """Say that this process lives; keep what came from a device behind the last call that was made."""
        self.keep_arrived()
        claim = self._claim
        if claim is not None:
            beat(attempts.lock_path(self.layout, claim.attempt, claim.rank))

    def _recover(self) -> None:
        """Store what a killed training left; a disk that refuses leaves it where readers find it too."""
        try:
            self._is_after_a_kill |= any(not is_held(lock) for lock in self.layout.wal.glob("a*.lock"))
            recover(self.layout, self._note_lost)
        except (OSError, XaiError) as error:
            self.ledger.warn("recover", f"xai: rows of a killed training stay in {self.layout.wal} for now: {error}")

    def _note_lost(self, lost: Lost, path: Path) -> None:
        if not lost.is_all:
            self.ledger.warn(
                path.name,
                f"xai: a segment of a killed training is damaged: {lost}; it is kept as {path}, training goes on",
            )
        if lost.rows:
            self.ledger.rows_logged += lost.rows
            self.ledger.drop(lost.rows, f"rows of a killed training are damaged in its segment{lost.more}")
        for folder, records in lost.records.items():
            reason = f"{folder} of a killed training are damaged in its segment{lost.more}"
            self.ledger.drop_record(folder, reason, records)

    def hand_over(self) -> None:
        """Give everything held to the writer."""
        self.keep_arrived()
        self.samples.hand_over()

    def gone(self) -> str:
        """What is said of a run directory that is gone."""
        return f"{self.layout.last} is gone: deleted, or moved to another disk while it was recorded"

    def note_gone(self) -> bool:
        """Whether the run directory is gone; what it held is counted as lost then, and told once."""
        if not self._is_gone and self.layout.look():
            self._is_gone = True
            self.ledger.lose_stored(self.gone())
        return self._is_gone

    def _make_uniform(self) -> None:
        """Have every file show the columns that came after it, as far as there is time for it."""
        is_of_rows = self.samples.stored_with or self._is_after_a_kill
        if not is_of_rows or self._is_gone or self.writer.is_failing or self.is_uploaded:
            return
        try:
            columns = self.catalogue.current()
            left = 0
            # One that was killed came to make nothing uniform.
            if self._is_after_a_kill or {*self.samples.stored_with, self._opened_with} - {columns, ()}:
                left = make_uniform(self.layout, columns, seconds=CLOSE_SECONDS)
        except (OSError, XaiError, MemoryError) as error:
            self.ledger.warn("uniform", f"xai: files from before a column came stay without it for now: {error}")
            return
        if left:
            self.ledger.warn(
                "uniform",
                f"xai: {left} {'file' if left == 1 else 'files'} of {self.layout.root} {'is' if left == 1 else 'are'} "
                "from before a column came, or became one of double precision: xai reads them together; for other "
                "tools write: xai compact",
            )

    def count_foreign(self) -> None:
        """Count what forks of this process have tried to log."""
        rows, records = self.foreign.since()
        if rows:
            self.ledger.rows_logged += rows
            self.ledger.drop(rows, FOREIGN)
        if records:
            self.ledger.drop_record("records", FOREIGN, records)

    def _lose(self, folder: str, n: int) -> None:
        reason = f"more than {MOST_ASIDE:,} calls came from within one"
        if folder:
            self.ledger.drop_record(folder, reason, n)
        else:
            self.ledger.rows_logged += n
            self.ledger.drop(n, reason)

    def flush(self, timeout: float | None = None) -> bool:
        """Put everything into files; False where that failed or took too long."""
        self.calls.within(self.count_foreign)
        self.calls.within(self.hand_over)
        done = self._wait_written(timeout)
        self.note_gone()
        self.ledger.write()
        return done

    def _wait_written(self, timeout: float | None) -> bool:
        """Wait for the writer; not where that may wait for this thread."""
        if not _is_importing():
            return self.writer.wait_idle(timeout)
        done = self.writer.wait_idle(_IMPORT_SECONDS if timeout is None else min(timeout, _IMPORT_SECONDS))
        if not done and not self.writer.is_failing:
            self.ledger.warn(
                "flush in an import",
                "xai: flush was called from within an import, which the writer of files may need too: what was logged "
                "survives the process, and is in files soon after",
            )
        return done

    def note_end(self, by: str) -> None:
        """Keep which exception or signal ended the training; "" for none."""
        if by != self.ledger.ended_by and self.foreign.is_here:
            self.ledger.ended_by = by
            if self.ledger.is_closed:
                self.ledger.write()

    def close(self) -> None:
        """Flush for a bounded time and end; what the disk does not take is counted."""
        self._settle_where_possible()
        self.flush(_FLUSH_AT_CLOSE)
        self._settle_where_possible()  # a disk may be back that refused at first
        self._make_uniform()
        left = self.writer.stop(CLOSE_SECONDS)
        self.note_gone()
        for job in left:
            job.give_up(self.gone() if self._is_gone else "the disk took no more when the run was closed")
        if self.samples.waiting:
            self.ledger.warn(
                "close waiting",
                f"xai: {self.layout.root} was closed before all of it was in files: {self.samples.waiting:,} rows stay "
                "in wal/, where xai reads them; xai compact, or opening the run again, puts them into files",
            )
        self.samples.close()
        self.ledger.is_closed = True
        self.ledger.write()  # first, since a process whose lock is gone and that has not said so was killed
        if self._claim is not None:
            release(attempts.lock_path(self.layout, self._claim.attempt, self._claim.rank))
            with contextlib.suppress(OSError):
                self.layout.wal.rmdir()
        self.layout.let_go()

    def reopen(self) -> bool:
        """Record again after `close`, as the same attempt; False where that cannot be."""
        claim = self._claim
        if claim is None or self.fault or self._is_gone or self.samples.waiting or not self.foreign.is_here:
            return False
        with contextlib.suppress(OSError, XaiError):
            is_same = self.layout.read_manifest().run_id == self.catalogue.manifest.run_id
            if is_same and self.writer.is_over and attempts.claim_again(self.layout, claim):
                self.layout.follow()
                self.ledger.is_closed, self.ledger.ended_by = False, ""
                self.ledger.write()
                self.writer.start()
                return True
        return False

    def _settle_where_possible(self) -> None:
        if not self.fault:
            with contextlib.suppress(OSError):
                self.settle()


class OpenJob:
    """A run on its way to its folder, which the disk refused at first."""

    def __init__(self, process: Process, fresh: Manifest) -> None:
        self._process = process
        self._fresh = fresh

    def store(self) -> None:
        """Make it; what the disk refuses is tried again."""
        self._process.open_again(self._fresh)

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """What was logged meanwhile was counted when it was."""
        del for_good
        self._process.fault = self._process.fault or reason


class ForeignCounts:
    """What forks of a process tried to log: counted in memory that they share with it.

    Each fork writes to a place of its own, by its process number, so that none needs a lock.
    """

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, 16 * _SLOTS)).cast("Q")
        self._told = (0, 0)
        self._owner = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is the process that opened the run."""
        return os.getpid() == self._owner

    def add(self, rows: int, records: int) -> None:
        """Called in a fork."""
        place = 2 * (os.getpid() % _SLOTS)
        self._counts[place] += rows
        self._counts[place + 1] += records

    def since(self) -> tuple[int, int]:
        """Rows and records since the last call, of all forks; nothing in one of these."""
        if not self.is_here:
            return 0, 0
        now = (sum(self._counts[0::2]), sum(self._counts[1::2]))
        before, self._told = self._told, now
        return now[0] - before[0], now[1] - before[1]


class SyncClaim:
    """The files that say which attempt and rank a process is, on their way to the disk: no step waits for that."""

    def __init__(self, layout: RunLayout, claim: attempts.Claim) -> None:
        self._layout = layout
        self._claim = claim

    def store(self) -> None:
        """Sync them, as far as the disk can; what is behind this is not held up."""
        attempt, rank = self._claim.attempt, self._claim.rank
        with contextlib.suppress(OSError):
            files.sync_file(self._layout.attempt_file(attempt))
            files.sync_file(attempts.stats_file(self._layout, attempt, rank))
            files.sync_folder(self._layout.attempts)

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """They are there, though perhaps not after power loss."""
        del reason, for_good


class Closable(Protocol):
    """A run."""

    def close(self) -> None:
        """Flush and end."""

    def note_end(self, by: str) -> None:
        """Say which exception or signal ends the training."""

    def flush_within(self, seconds: float) -> bool:
        """Flush for a bounded time."""

    def become_foreign(self) -> None:
        """Refuse from now on: this is a fork."""

    def is_busy(self) -> bool:
        """Whether this thread is in the middle of a call."""


_FLUSH_SECONDS = 10.0
_IMPORT_SECONDS = 1.0
"""How long an import waits for a run to be closed that was collected in it."""

_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_closed_within: list[tuple[int, Callable[[str], None]]] = []
"""Of each run that was closed while an exception was on its way (`finally: run.close()`): which, and what notes it."""
_left: list[Closable] = []
_closing_left = threading.Lock()
_before: Any = None
_pending: list[tuple[int, FrameType | None]] = []


def _in_fork() -> None:
    """A fork has the runs of its parent, but not their threads, and must not write to them."""
    global _closing_left
    for run in list(_open):
        run.become_foreign()
    _open.clear()
    _closed_within.clear()
    _left.clear()
    _closing_left = threading.Lock()
    _pending.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_fork)


def watch(run: Closable) -> None:
    """Close a run when the process ends, unless it is closed before."""
    global _before
    if not _open:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        if multiprocessing.parent_process() is not None:
            multiprocessing.util.Finalize(None, _close_all, exitpriority=10)  # such a child ends without `atexit`
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGTERM)
            if handler is not _terminate:  # else runs that were collected, or those of a parent, have left it
                _before = handler
                signal.signal(signal.SIGTERM, _terminate)
    _open.add(run)


def let_go(run: Closable) -> None:
    """Close a run that nobody holds any more.

    It may be collected anywhere. A writer's thread cannot wait for another's, and one in the middle of an import, or of
    a call to a run, holds what that may wait for: there another thread closes it, which an import gives a moment, so
    that what comes after has a run that is closed.
    """
    is_importing = _is_importing()
    is_within = any(other.is_busy() for other in list(_open))
    if not is_importing and not is_within and not is_background():
        run.close()
        return
    done = _thread.allocate_lock()
    done.acquire()
    _left.append(run)
    try:
        _thread.start_new_thread(_close_left, (done,))  # `threading` has locks of its own, which this thread may hold
    except RuntimeError:  # the process ends, and closes it then
        return
    if is_importing and not is_background():
        done.acquire(timeout=_IMPORT_SECONDS)


def _is_importing() -> bool:
    """Whether this thread is in the middle of an import."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _close_left(done: _thread.LockType | None = None) -> None:
    with _closing_left:
        while _left:
            _left[-1].close()
            _left.pop()
    if done is not None:
        done.release()


def forget(run: Closable) -> None:
    """A run was closed; with the last one, SIGTERM is again what it was."""
    global _before
    _open.discard(run)
    if _open:
        return
    atexit.unregister(_close_all)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and _before is not None and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, _before)
        _before = None


def is_pending() -> bool:
    """Whether a SIGTERM waits for the thread to finish logging a batch."""
    return bool(_pending)


def finish_pending() -> None:
    """Do what a SIGTERM that came in the middle of a call asks for: in the main thread, which it came to."""
    if threading.current_thread() is not threading.main_thread():
        return
    while _pending and not any(run.is_busy() for run in list(_open)):
        _terminate(*_pending.pop())


def ending(error: BaseException | None) -> str:
    """What an exception that leaves a training is called where it says that this did not come to its end; else ""."""
    if isinstance(error, SystemExit):
        return "" if error.code in (None, 0) else "SystemExit"
    return "" if error is None or isinstance(error, GeneratorExit) else type(error).__name__


def close_within(note_end: Callable[[str], None]) -> None:
    """A run is being closed: where an exception is on its way, whether somebody handles it is known at the exit.

    Args:
        note_end: Notes what ended the training.
    """
    error = sys.exc_info()[1]
    if isinstance(error, SystemExit):
        note_end(ending(error))  # it leaves no trace at the exit
    elif ending(error):
        if not _closed_within:
            atexit.register(_note_uncaught)
        _closed_within.append((id(error), note_end))


def _uncaught() -> BaseException | None:
    """What ends this process, at its exit: what a child of `multiprocessing` dies of is on its way still."""
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return None  # the last error of a session that went on
    return sys.exc_info()[1] or getattr(sys, "last_value", None)


def _note_uncaught() -> None:
    error, seen = _uncaught(), set[int]()
    by = ending(error)
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    for which, note_end in _closed_within:
        if which in seen:
            note_end(by)
    _closed_within.clear()


def _close_all(by: str | None = None) -> None:
    _close_left()
    by = ending(_uncaught()) if by is None else by
    for run in list(_open):
        run.note_end(by)
        run.close()


def _terminate(number: int, frame: FrameType | None) -> None:
    """Flush every run, then do what SIGTERM did before."""
    if any(run.is_busy() for run in _open):
        # A half-written batch must not be handed over; the end of the call comes back here.
        _pending.append((number, frame))
        return
    if callable(_before) or _before == signal.SIG_IGN:
        # The training may go on, to save a checkpoint perhaps.
        for run in list(_open):
            run.flush_within(_FLUSH_SECONDS)
        if callable(_before):
            _before(number, frame)
    else:
        _close_all(signal.Signals(number).name)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
