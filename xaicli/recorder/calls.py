"""The calls of a thread to a run: one at a time, whatever comes from within one.

The handler of a signal, a finaliser, a hook for warnings or a column that computes itself may log while its thread is
in the middle of logging. Such a call is put aside, and made as soon as the one it interrupted is done.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MOST_ASIDE = 10_000
"""Calls that wait for the end of one; what comes beyond is dropped and counted."""


class Calls(threading.local):
    """What one thread, each its own, has begun and not ended.

    Attributes:
        lock: Held while a call is made. It is no other thread's, so that it is held where this one is within a call. A
            lock of the interpreter's own, since no interrupt comes between its being taken and the `with` block that
            gives it back.
        aside: Records that wait for the end of the call.
        after: What waits for the writer, and comes behind them: `flush` and `close`.
        over: What found no place among them: {folder, "" for rows: how many}.
    """

    def __init__(self, lose: Callable[[str, int], None]) -> None:
        """
        Args:
            lose: Told of records (folder, how many) that found no place.
        """
        self.lock = threading.Lock()
        self.aside: deque[Callable[[], object]] = deque()
        self.after: deque[Callable[[], object]] = deque()
        self.over: Counter[str] = Counter()
        self._lose = lose

    @property
    def is_within(self) -> bool:
        """Whether this thread is in the middle of a call."""
        return self.lock.locked()

    def put_aside(self, call: Callable[[], object]) -> bool:
        """Make a call when the one in progress is done; False where too many wait."""
        if len(self.aside) >= MOST_ASIDE:
            return False
        self.aside.append(call)
        return True

    def within(self, work: Callable[[], T]) -> T:
        """Do what must not be interrupted by records, or is part of a call that must not."""
        if self.is_within:
            return work()
        try:
            with self.lock:
                return work()
        finally:
            self.finish()

    def finish(self) -> None:
        """Make the calls put aside, and those that come from within these, until there are none.

        Raises:
            BaseException: What the first of them raised that did; the others are made all the same.
        """
        failed: BaseException | None = None
        while self.aside or self.after or self.over:
            try:
                with self.lock:
                    while self.aside:
                        self.aside.popleft()()
                    while self.over:
                        self._lose(*self.over.popitem())
                if self.after:
                    self.after.popleft()()
            except BaseException as error:  # raised below
                failed = failed or error
        if failed is not None:
            raise failed
