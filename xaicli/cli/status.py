"""The line on a terminal that says what a command is doing, until it has something to show."""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from xaicli.progress import shown_by

_SOON = 0.2
"""Seconds without a line: what is answered by then needs none."""
_TICK = 0.2
_WORTH_SAYING = 3.0
"""Seconds of work, or left of it, from which on they are told."""
_ERASE = "\r\x1b[2K"


class StatusLine:
    """One line on standard error that is written over, and gone in the end."""

    def __init__(self, what: str, *, at_once: bool = False) -> None:
        self._what = what
        self._done: float | None = None
        self._total: int | None = None
        self._furthest: dict[str, float] = {}
        self._first: dict[str, tuple[float, float]] = {}
        """When each work was first counted, and what of it had been done."""
        self._left = 0.0
        self._began = self._told = time.monotonic()
        self._soon = 0.0 if at_once else _SOON
        self._shown = False
        self._over = threading.Event()
        self._lock = threading.Lock()
        if at_once:
            self._draw()
        threading.Thread(target=self._tick, name="xai-status", daemon=True).start()

    def tell(self, what: str, done: float | None = None, total: int | None = None, under_way: float = 0.0) -> None:
        """What is being done from now on; the line follows within a tick, and at once for something new."""
        fresh, self._told, self._left = what != self._what, time.monotonic(), 0.0
        if done is not None and total:
            began, before = self._first.setdefault(what, (self._told, done))
            # Not from what is under way alone, which begins with what is done but once.
            if done > before:
                further = done + under_way - before
                self._left = (self._told - began) * (total - done - under_way) / further
        if done is not None:
            # The same work a second time: a count would go backwards. It stands still between groups of samples.
            done, self._furthest[what] = (done, done) if done >= self._furthest.get(what, 0) else (None, math.inf)
        self._what, self._done, self._total = what, done, total
        if fresh and time.monotonic() - self._began >= self._soon:
            self._draw()

    def erase(self) -> None:
        """Make room for something else; the line comes back with the next tick."""
        with self._lock:
            self._erase()

    def close(self) -> None:
        """Take the line away."""
        with self._lock:
            self._over.set()
            self._erase()

    def _tick(self) -> None:
        wait = self._soon or _TICK
        while not self._over.wait(wait):
            self._draw()
            wait = _TICK

    def _draw(self) -> None:
        with self._lock:
            if not self._over.is_set():
                width = shutil.get_terminal_size().columns - 1
                print(f"{_ERASE}{self._text()[:width]}", end="", file=sys.stderr, flush=True)
                self._shown = True

    def _text(self) -> str:
        now = time.monotonic()
        text = self._what
        if self._done is not None:
            text += f" {int(self._done)}" + (f" of {self._total}" if self._total else "")
        left = self._left - (now - self._told) if self._done is not None else 0.0
        if left >= _WORTH_SAYING:
            return f"{text}, about {_time(left)} left"
        return text if now - self._began < _WORTH_SAYING else f"{text}, {_time(now - self._began)} so far"

    def _erase(self) -> None:
        if self._shown:
            print(_ERASE, end="", file=sys.stderr, flush=True)
            self._shown = False


_current: list[StatusLine] = []


@contextmanager
def status_line(what: str, *, shown: bool = True, at_once: bool = False) -> Iterator[None]:
    """Show what is being done, on a terminal only.

    Args:
        what: What is done first.
        shown: Whether the user wants it.
        at_once: Whether to show it before it is known that there is time to read it.
    """
    if not shown or _current or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    line = StatusLine(what, at_once=at_once)
    _current.append(line)
    try:
        with shown_by(line.tell):
            yield
    finally:
        _current.remove(line)
        line.close()


def erase_status() -> None:
    """Make room for a message."""
    for line in _current:
        line.erase()


def end_status() -> None:
    """Take the line away for good: what is asked for comes now."""
    for line in _current:
        line.close()


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min"
