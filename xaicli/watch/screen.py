"""Watching: look, show, wait for a key or for time to pass; at most one hundredth of a core."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from xaicli.watch.training import Training, Watched
from xaicli.watch.until import Until
from xaicli.watch.view import Shown, Sort, line, printable, screen

if TYPE_CHECKING:
    from rich.console import Console

_SHARE = 0.01
"""The share of a core that watching takes at most."""
_FREE = 3.0
"""Seconds of a core to begin with: loading takes some, and the first look at a long run."""
_LONGEST = 60.0
"""Seconds between two looks at most, however much a look takes."""
_POLL = 0.2
_NUMBER = re.compile(r"[\d.,]*\d")


class Source(Protocol):
    """What finds the run: again and again, for it may appear later."""

    def __call__(self) -> Training | None:
        """The training; None while there is none."""
        ...


def watch(
    source: Source,
    *,
    title: str,
    interval: float,
    until: Until | None,
    is_screen: bool,
    open_report: Callable[[], str],
    console: Console,
) -> int:
    """Show a training until it is over, a rule is kept, or somebody leaves.

    Args:
        source: What finds the run.
        title: What it is called.
        interval: Seconds between two looks at least.
        until: The rule.
        is_screen: Whether there is a terminal that can be drawn over; else a line is printed for each change.
        open_report: What writes and opens the track report, and says so.
        console: Where to.

    Returns:
        0 where the rule is kept, somebody left, or the training has finished and there is no rule; 1 where it has died,
        or has ended without keeping the rule.
    """
    if not is_screen:
        return _lines(source, console, interval=interval, until=until)
    from rich.live import Live

    shown, pace = Shown(), _Pace(interval)
    waited = Watched("waiting", "")
    with _keys() as pressed, Live(console=console, auto_refresh=False, transient=False) as live:
        has_keys = pressed is not None

        def draw(watched: Watched, shown: Shown) -> None:
            size = {"width": console.width, "height": console.height}
            live.update(screen(watched, shown, title=title, keys=has_keys, **size), refresh=True)

        while True:
            watched, training = _look(source, waited)
            status = _end(watched, training, until)
            draw(watched, shown)
            if status is not None and (until is not None or not has_keys):
                return status
            ends = time.monotonic() + pace.pause()
            while pressed is not None and time.monotonic() < ends:
                key = pressed(min(_POLL * 5, max(0.0, ends - time.monotonic())))
                if key in ("q", "Q", "\x1b"):
                    return 1 if watched.state == "crashed" else 0
                if key == "o" and training is not None:
                    draw(watched, replace(shown, message="writing the report"))
                    shown = replace(shown, message=open_report())
                elif key:
                    shown = _after(shown, key)
                if key:
                    draw(watched, shown)
            if pressed is None:
                time.sleep(max(0.0, ends - time.monotonic()))


def _after(shown: Shown, key: str) -> Shown:
    """What is shown after a key."""
    if key == "s":
        orders = list(Sort)
        return replace(shown, sort=orders[(orders.index(shown.sort) + 1) % len(orders)], message="")
    if key == "n":
        return replace(shown, place=shown.place + 1, message="")
    return replace(shown, message="")


class _Pace:
    """How long to wait so that watching takes no more of a core than it may."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._began = time.monotonic(), time.process_time()

    def pause(self) -> float:
        """Seconds until the next look."""
        elapsed, used = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        owed = used - _FREE - _SHARE * elapsed
        return max(self._interval, min(_LONGEST, owed / _SHARE))


def _look(source: Source, waited: Watched) -> tuple[Watched, Training | None]:
    training = source()
    if training is None:
        return waited, None
    try:
        return training.look(), training
    except FileNotFoundError:
        return replace(waited, warnings=("the folder has gone",)), None


def _end(watched: Watched, training: Training | None, until: Until | None) -> int | None:
    """The exit status, where there is nothing more to wait for."""
    if training is None:
        return None
    if until is not None:
        if until.is_met(watched, training.reader):
            return 0
        return 1 if watched.is_over else None
    if not watched.is_over:
        return None
    return 1 if watched.state == "crashed" else 0


def _lines(source: Source, console: Console, *, interval: float, until: Until | None) -> int:
    """A line on standard output for each change: for logs, pipes and terminals that cannot be drawn over.

    Warnings go to standard error; one that only counts on is said once.
    """
    said, pace = "", _Pace(interval)
    warned: set[str] = set()
    waited = Watched("waiting", "")
    while True:
        watched, training = _look(source, waited)
        status = _end(watched, training, until)
        waiting = "waiting: there is no run yet"
        known = waiting if training is None else line(watched, pace=False)
        if known != said:
            console.print(waiting if training is None else line(watched), markup=False, highlight=False, soft_wrap=True)
            said = known
        for warning in watched.warnings:
            if (kind := _NUMBER.sub("", warning)) not in warned:
                warned.add(kind)
                sys.stderr.write(f"warning: {printable(warning)}\n")
                sys.stderr.flush()
        if status is not None:
            return status
        time.sleep(pace.pause())


@contextmanager
def _keys() -> Iterator[Callable[[float], str] | None]:
    """What waits so many seconds for a key, and gives it, or ""; None where nobody can press any."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):
        yield None
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        if not ready:
            return ""
        typed = os.read(descriptor, 16)
        if not typed:  # the terminal is gone
            raise KeyboardInterrupt
        return typed.decode("utf-8", "replace")[:1] if len(typed) == 1 or typed[:1] != b"\x1b" else ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
