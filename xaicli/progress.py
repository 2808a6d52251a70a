"""What long work is doing, told to whoever shows it; where nobody does, telling costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Teller = Callable[[str, float | None, int | None, float], None]
_tellers: list[Teller] = []


def doing(what: str, done: float | None = None, total: int | None = None, under_way: float = 0.0) -> None:
    """Say what is being done now.

    Args:
        what: In a few words: "reading train epochs".
        done: How much of it is done.
        total: Of how much.
        under_way: How much more is done of what is not finished: it tells the time left, and is in no count.
    """
    for teller in _tellers[-1:]:
        teller(what, done, total, under_way)


@contextmanager
def shown_by(teller: Teller) -> Iterator[None]:
    """Tell this one while it lasts."""
    _tellers.append(teller)
    try:
        yield
    finally:
        _tellers.remove(teller)
