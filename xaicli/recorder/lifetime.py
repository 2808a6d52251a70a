"""The end of the process: every open run is closed at exit, flushed on SIGTERM, and never by a fork."""

from __future__ import annotations

import atexit

# Arrow loads pandas, where there is one, with the first part; that may be after the end of the main thread, when this
# module can no longer be loaded.
import concurrent.futures.thread  # noqa: F401
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import weakref
from types import FrameType
from typing import Any, Protocol


class Closable(Protocol):
    """A run."""

    def close(self) -> None:
        """Flush and end."""

    def flush_within(self, seconds: float) -> bool:
        """Flush for a bounded time."""

    def become_foreign(self) -> None:
        """Refuse from now on: this is a fork."""

    def is_busy(self) -> bool:
        """Whether this thread is in the middle of logging."""


_FLUSH_SECONDS = 10.0

_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_left: list[Closable] = []
_before: Any = None
_pending: list[tuple[int, FrameType | None]] = []


def _in_fork() -> None:
    """A fork has the runs of its parent, but not their threads, and must not write to them."""
    for run in list(_open):
        run.become_foreign()
    _open.clear()
    _left.clear()
    _pending.clear()


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


def keep(run: Closable) -> None:
    """Hold a run that cannot be closed where it was let go, until the process ends."""
    _left.append(run)


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
    """Do what a SIGTERM that came in the middle of a batch asks for."""
    while _pending:
        _terminate(*_pending.pop())


def _close_all() -> None:
    for run in [*_open, *_left]:
        run.close()
    _left.clear()


def _terminate(number: int, frame: FrameType | None) -> None:
    """Flush every run, then do what SIGTERM did before."""
    if any(run.is_busy() for run in _open):
        # A half-written batch must not be handed over; the end of the batch comes back here.
        _pending.append((number, frame))
        return
    if callable(_before) or _before == signal.SIG_IGN:
        # The training may go on, to save a checkpoint perhaps.
        for run in list(_open):
            run.flush_within(_FLUSH_SECONDS)
        if callable(_before):
            _before(number, frame)
    else:
        _close_all()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
