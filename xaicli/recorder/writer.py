"""The background thread that turns full segments and buffers into files."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from xaicli.locks import BEAT_SECONDS
from xaicli.recorder.ledger import Ledger

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Job(Protocol):
    """Rows waiting to become a file."""

    def store(self) -> None:
        """Write the file; what raises is tried again later."""

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """The file will not be written by this process, or, `for_good`, by none: its rows cannot be stored."""


class Writer:
    """Stores jobs in order; one that fails is tried again, ever less often, while training goes on."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        interval: float,
        on_timer: Callable[[], None],
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            ledger: What counts failures.
            interval: Seconds between two calls of `on_timer`.
            on_timer: Hands over what is held.
            on_beat: Says that the process lives.
        """
        self._on_beat = on_beat
        self._ledger = ledger
        self._interval = interval
        self._on_timer = on_timer
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failed_at = 0.0
        self._pause = 0.0
        self._urgent = False
        self._thread = threading.Thread(target=self._work, name="xai-writer", daemon=True)
        self._thread.start()

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

    @property
    def is_mine(self) -> bool:
        """Whether this is the writer's own thread."""
        return threading.current_thread() is self._thread

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
        while job := self._next():
            try:
                job.store()
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
                self._on_beat()
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
            self._on_timer()
            tick = time.monotonic() + self._interval

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            self._ledger.write_failures += 1
            self._failed_at = time.monotonic()
            self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
            self._changed.notify_all()
        self._ledger.warn("write", f"xai: a file cannot be written ({error}); it is tried again, training goes on")
