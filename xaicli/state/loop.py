"""The batches of an epoch: as many as wanted, and after a resume in its midst only those not yet seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from xaicli.state import randomness

T = TypeVar("T")


@dataclass(frozen=True)
class Position:
    """How far the training loop of an epoch has come.

    Attributes:
        done: Batches done, the one in progress included.
        random: The states of the random number generators when the loop began; None where they must not be restored.
    """

    done: int
    random: dict[str, Any] | None


class EpochLoop:
    """The training loop of one epoch, saved with the training state.

    A shuffling loader draws its order from the global random number generators when its loop begins. Their states of
    that moment are kept: a resumed loop begins with them, passes over the batches done, and goes on with the generators
    as they were when the state was saved. A loader that keeps its own position (`load_state_dict`) is not touched.
    """

    def __init__(self) -> None:
        self.position: Position | None = None
        """Where the loop in progress is; None outside of one."""
        self.resumed: Position | None = None
        """Where the next loop begins; None for the start."""

    def capture(self) -> dict[str, Any] | None:
        """The position as plain data."""
        position = self.position or self.resumed
        return None if position is None else {"done": position.done, "random": position.random}

    @staticmethod
    def parse(saved: Any, *, with_random: bool) -> Position | None:
        """The position behind what `capture` gave.

        Raises:
            ValueError: It is none.
        """
        if saved is None:
            return None
        try:
            done, random = saved["done"], saved["random"]
        except (KeyError, TypeError):
            raise ValueError("the saved loop is none") from None
        if type(done) is not int or done < 0:
            raise ValueError(f"{done!r} batches of a loop cannot be done")
        if random is not None:
            randomness.check(random)
        return Position(done, random if with_random else None)

    def batches(self, loader: Iterable[T], steps: int | None = None) -> Iterator[tuple[int, T]]:
        """The batches with their numbers in the epoch, from 1, or from the first not done.

        Args:
            loader: What gives the batches.
            steps: How many make an epoch; all there are where None.
        """
        resumed, self.resumed = self.resumed, None
        if resumed is None:
            position = Position(0, randomness.capture())
            iterator = iter(cut(loader, steps))
        elif hasattr(loader, "load_state_dict"):
            position = resumed
            iterator = iter(cut(loader, None if steps is None else steps - resumed.done))
        else:
            position = resumed
            iterator = _passed(cut(loader, steps), resumed)
        try:
            self.position = position
            for number, batch in enumerate(iterator, start=position.done + 1):
                # A loop inside this one has a position of its own.
                self.position = replace(position, done=number)
                yield number, batch
        finally:
            self.position = None


def _passed(loader: Iterable[T], resumed: Position) -> Iterator[T]:
    """An iterator from which the batches done are taken, with the generators as they are now."""
    now = randomness.capture()
    if resumed.random is not None:
        randomness.restore(resumed.random)
    iterator = iter(loader)
    for _ in islice(iterator, resumed.done):
        pass
    if resumed.random is not None:
        randomness.restore(now)
    return iterator


def cut(loader: Iterable[T], steps: int | None) -> Iterable[T]:
    """A loader cut short or begun again so that it gives exactly `steps` batches; itself where that is None."""
    return loader if steps is None else _Cut(loader, steps)


class _Cut(Iterable[T]):
    def __init__(self, loader: Iterable[T], steps: int) -> None:
        self._loader = loader
        self._steps = steps

    def __iter__(self) -> Iterator[T]:
        given = 0
        while given < self._steps:
            before = given
            for batch in islice(iter(self._loader), self._steps - given):
                given += 1
                yield batch
            if given == before:
                return  # nothing is left to begin again with
