"""Watching: look, show, wait for a key or for time to pass, until a rule holds; at most one hundredth of a core."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from xaicli.checks.rules import At, Rule, parse_rule
from xaicli.checks.verdicts import Outcome, Verdict, judged
from xaicli.errors import UsageError, unknown
from xaicli.queries.names import LabelNames
from xaicli.queries.resolution import resolve
from xaicli.queries.selection import Pair
from xaicli.reader import Place, Reader
from xaicli.vocabulary import LABEL, PREDICTION, SAMPLE_ID, Mode
from xaicli.watch.training import FINISHED, Now, Training, Watched, not_yet
from xaicli.watch.view import Shown, Sort, line, printable, screen

if TYPE_CHECKING:
    from rich.console import Console


_SHARE = 0.01
"""The share of a core that watching takes at most."""
_FREE = 0.5
"""Seconds of a core that the first looks may take, however soon they follow one another."""
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
    with _ended_in_order(), _keys() as pressed, Live(console=console, auto_refresh=False, transient=False) as live:
        has_keys = pressed is not None

        def draw(watched: Watched, shown: Shown) -> None:
            size = {"width": console.width, "height": console.height}
            live.update(screen(watched, shown, title=title, keys=has_keys, **size), refresh=True)

        while True:
            watched, training = _look(source, waited)
            watched, status = _end(watched, training, until)
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
    """How long to wait so that watching takes no more of a core than it may.

    Each look is paid for by the pause behind it. What starting took, and the first looks, is paid back over some
    minutes: until then looks take half of the share.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._began = time.monotonic()
        self._started = self._before = time.process_time()

    def pause(self) -> float:
        """Seconds until the next look."""
        used = time.process_time()
        look, self._before = used - self._before, used
        if used - self._started < _FREE:
            return self._interval
        owed = used - _SHARE * (time.monotonic() - self._began)
        return max(self._interval, min(_LONGEST, look / (_SHARE / 2 if owed > 0 else _SHARE)))


def _look(source: Source, waited: Watched) -> tuple[Watched, Training | None]:
    training = source()
    if training is None:
        return waited, None
    try:
        return training.look(), training
    except FileNotFoundError:
        return replace(waited, warnings=("the folder has gone",)), None


def _end(watched: Watched, training: Training | None, until: Until | None) -> tuple[Watched, int | None]:
    """The training with what the rule waits for, and the exit status where there is nothing more to wait for."""
    if training is None:
        return watched, None
    if until is not None:
        if until.is_met(watched, training.reader):
            return watched, 0
        told = tuple(filter(None, [until.lacks]))
        return replace(watched, warnings=(*watched.warnings, *told)), 1 if watched.is_over else None
    if not watched.is_over:
        return watched, None
    return watched, 1 if watched.state == "crashed" else 0


def _lines(source: Source, console: Console, *, interval: float, until: Until | None) -> int:
    """A line on standard output for each change: for logs, pipes and terminals that cannot be drawn over.

    Warnings go to standard error; one that only counts on is said once.
    """
    said, pace = "", _Pace(interval)
    warned: set[str] = set()
    waited = Watched("waiting", "")
    while True:
        watched, training = _look(source, waited)
        watched, status = _end(watched, training, until)
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
def _ended_in_order() -> Iterator[None]:
    """A SIGTERM ends what is within as an exit does, so that the terminal is left as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


class Until:
    """Whether a training has come so far.

    It is asked of whole places: of each data set the newest there is at the first look, and each that is whole later.

    Args:
        text: A rule of one line, as `xai check` takes it: `loss mean < 0.1`, `correct mean by label >= 0.9`.
        mode: The mode it is about; `eval`, or `train` in a run without, when None.

    Attributes:
        last: The place that was asked last, and what came of it.
        part: The last place of a training that is over, where it is a part of one and was not asked.
        lacks: What the rule looks at and the run has not recorded yet; "" where it has.

    Raises:
        UsageError: It is no rule, or one that cannot be asked of a training as it runs.
    """

    def __init__(self, text: str, *, mode: str | None = None) -> None:
        self.rule: Rule = parse_rule(text)
        if not self.rule.metric:
            raise UsageError(
                f"--until {text!r} is about no metric", hint="--until 'loss mean < 0.1'; xai check asks the others"
            )
        if self.rule.largest_drop is not None or self.rule.at is not At.LAST:
            raise UsageError(
                f"--until {text!r} looks back",
                hint="--until 'loss mean < 0.1' looks at the newest whole place and those after it",
            )
        self.mode = mode
        self.lacks = ""
        self._is_first = True
        self._asked: set[tuple[Pair, int, int, int]] = set()
        self.last: tuple[Place, tuple[Verdict, ...]] | None = None
        self.part: Now | None = None

    def is_met(self, watched: Watched, reader: Reader) -> bool:
        """Whether a place that is whole keeps the rule; each is asked once, and again where a later start redid it.

        A place is whole where the next one has begun, where it has as many rows as the one before, or where it is the
        first and the training has finished. What one that died, or was ended within a pass, left is a part, which keeps
        no rule.

        Raises:
            XaiError: The run is over and has no such metric or column.
        """
        modes = {now.mode for now in watched.places}
        mode = self.mode or (Mode.EVAL.value if Mode.EVAL in modes else Mode.TRAIN.value)
        is_first, self._is_first = self._is_first, False
        if not watched.places or not self._can_be_asked(reader, is_over=watched.is_over):
            return False
        latest = max(place.epoch for place in reader.folders())  # of all modes and data sets, those not watched too
        for now in watched.places:
            places = self._places(now, watched.state, latest)
            newest = next((place for place, whole in reversed(places) if whole), None)
            for place, whole in places:
                pieces = reader.pieces(Place(now.mode, now.ds_id, place.epoch))
                attempt = max((piece.attempt for piece in pieces), default=0)
                key = (now.mode, now.ds_id), place.epoch, place.turn or 0, attempt
                if is_first and whole and place != newest:
                    self._asked.add(key)  # what has been is past
                if now.mode != mode:
                    continue
                if not whole and watched.is_over:
                    self.part = now
                if not whole or key in self._asked:
                    continue
                self._asked.add(key)
                verdicts = tuple(self._judged(reader, place))
                self.last = place, verdicts
                if verdicts and all(verdict.outcome is Outcome.PASSED for verdict in verdicts):
                    return True
        return False

    @staticmethod
    def _places(now: Now, state: str, latest: int) -> list[tuple[Place, bool]]:
        """The last places of a data set, and whether each is whole, of a run that has come to epoch `latest`."""
        pair = now.mode, now.ds_id
        full = state == FINISHED if now.rows_before is None else now.rows >= now.rows_before
        last = Place(*pair, now.epoch, now.turn), latest > now.epoch or full
        before = [Place(*pair, epoch, turn) for epoch, turn, _ in now.history[:-1]]
        return [*((place, True) for place in before), last]

    def _can_be_asked(self, reader: Reader, *, is_over: bool) -> bool:
        """Whether the run has recorded what the rule looks at, which may come later while it is trained.

        Raises:
            XaiError: It has not, and is over.
        """
        self.lacks = ""
        wanted = [("metric", self.rule.metric, list(reader.askable))]
        wanted += [("column", column, list(reader.dtypes)) for column in self.rule.columns]
        for what, name, known in wanted:
            if name not in known:
                error = unknown(what, name, known, where=reader.described)
                if is_over:
                    raise error
                self.lacks = not_yet(error)
        return not self.lacks

    def _judged(self, reader: Reader, place: Place) -> list[Verdict]:
        rule = self.rule
        selection = resolve(reader, metric=[rule.metric], mode=place.mode)
        frame, _ = reader.frame(place, list(dict.fromkeys([SAMPLE_ID, rule.metric, *rule.columns])))
        names = LabelNames.of(reader, selection)
        values: set[Any] = set()
        for column in rule.columns:
            if column in (LABEL, PREDICTION):
                known = frame[column].drop_nulls()
                values |= set((known.explode() if isinstance(known.dtype, pl.List) else known).drop_nulls().unique())
        return judged(rule, frame, names={value: names[value] for value in values})
