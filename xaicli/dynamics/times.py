"""When samples were observed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xaicli.dynamics.arrays import NO_EPOCH, GrowingArrays, Where


class Times:
    """How often, and at which epochs, a sample was observed.

    The time of an observation is counted from the sample's first epoch, in whole numbers: nothing is rounded.
    """

    def __init__(self) -> None:
        self._state = GrowingArrays(n=np.int32(0), first=NO_EPOCH, last=NO_EPOCH, sum=np.int64(0), squares=np.int64(0))

    def copy(self) -> Times:
        """The same observations so far, to be continued on their own."""
        twin = Times()
        twin.grow(len(self._state))
        for name in ("n", "first", "last", "sum", "squares"):
            twin._state[name][:] = self._state[name]
        return twin

    def grow(self, size: int) -> None:
        self._state.grow(size)

    @property
    def n(self) -> NDArray[np.int32]:
        """Observations by slot."""
        array: NDArray[np.int32] = self._state["n"]
        return array

    @property
    def first(self) -> NDArray[np.int32]:
        """First epoch by slot."""
        array: NDArray[np.int32] = self._state["first"]
        return array

    @property
    def last(self) -> NDArray[np.int32]:
        """Last epoch by slot."""
        array: NDArray[np.int32] = self._state["last"]
        return array

    def update(self, where: Where, epoch: int) -> NDArray[np.float64]:
        """Count an observation at an epoch not before the last one.

        Returns:
            The epochs since each sample's first one, aligned with `where`.
        """
        first = self.first[where]
        first[first == NO_EPOCH] = epoch
        self.first[where] = first
        self.last[where] = epoch
        self.n[where] += 1
        time = np.int64(epoch) - first
        self._state["sum"][where] += time
        self._state["squares"][where] += time * time
        return time.astype(np.float64)

    def means(self) -> NDArray[np.float64]:
        """The mean time by slot."""
        return np.asarray(self._state["sum"] / np.maximum(self.n, 1), np.float64)

    def spread(self) -> NDArray[np.float64]:
        """n times the sum of squared distances to the mean time, by slot; exact."""
        total = self._state["sum"]
        return np.asarray(self.n * self._state["squares"] - total * total, np.float64)
