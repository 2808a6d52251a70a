"""Take-back: which rows an attempt has taken back from earlier ones, because it trains that part again.

Rows are ordered by (epoch, step). An attempt takes back what earlier ones logged, in every mode, at and after its first
`train` row, or from where its file says (`load_state`, `resume_from`). Rows of other modes take nothing back, nor does
an attempt that began beside one still being recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from xaicli.manifest import Attempt

COUNTED_WITH = "xai info, samples and most others count them with --attempts all"
"""How rows that were taken back are counted after all, as every command may say it: some have no such option."""


class TakeBack(NamedTuple):
    """From where on an attempt takes back earlier attempts' rows."""

    attempt: int
    epoch: int
    step: int


class TakenBack(NamedTuple):
    """How many rows of one attempt another took back, of the samples or of a metrics table, and from where on."""

    by: int
    attempt: int
    epoch: int
    step: int
    rows: int
    table: str = ""

    def __str__(self) -> str:
        of_table = f" in table {self.table}" if self.table else ""
        return (
            f"attempt {self.by} took back {self.rows:,} row{'s'[: self.rows != 1]} of attempt {self.attempt}{of_table} "
            f"from epoch {self.epoch}, step {self.step} on: {COUNTED_WITH}"
        )


class Share(NamedTuple):
    """The rows of one epoch whose steps are in [low, high), a limit None for none; `by` took them back."""

    by: TakeBack
    low: int | None
    high: int | None

    def holds(self, steps: tuple[int, int]) -> bool | None:
        """Whether all rows of a range of steps are in it, None for some of them."""
        first, last = steps
        above = self.low is None or first >= self.low
        below = self.high is None or last < self.high
        if above and below:
            return True
        apart = (self.low is not None and last < self.low) or (self.high is not None and first >= self.high)
        return False if apart else None


def take_backs(attempts: Iterable[Attempt], first_trained: Mapping[int, tuple[int, int]]) -> tuple[TakeBack, ...]:
    """What each attempt takes back, by attempt; those that can take nothing back are left out.

    Args:
        attempts: What their files say.
        first_trained: {attempt: (epoch, step) of its first `train` row}, of those that have one.
    """
    points = dict(first_trained)
    for facts in attempts:
        if facts.beside:
            points.pop(facts.attempt, None)
        elif (said := _position(facts.takes_back_from)) is not None:
            points[facts.attempt] = said
    return tuple(TakeBack(attempt, *points[attempt]) for attempt in sorted(points) if attempt)


def shares(attempt: int, epoch: int, all_of_them: Iterable[TakeBack]) -> Iterator[Share]:
    """The rows of one epoch of an attempt that others took back: of several that could have, the first one did."""
    high: int | None = None
    for by in all_of_them:
        if by.attempt <= attempt or epoch < by.epoch:
            continue
        if epoch > by.epoch:
            yield Share(by, None, high)
            return
        if high is None or by.step < high:
            yield Share(by, by.step, high)
            high = by.step


def _position(given: object) -> tuple[int, int] | None:
    try:
        return int(given["epoch"]), int(given["step"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return None
