"""Where a sample stands among the others, epoch by epoch, and when it suddenly moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xaicli.dynamics.arrays import NO_EPOCH, Array, GrowingArrays, Where, blocks, part

NORMAL_MAD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
NORMAL_MEAN_DEVIATION = 1.253314137315500
"""The same over its mean absolute deviation: sqrt(pi / 2)."""

_ROUNDING = 1e-12
"""Differences of ranks in (0, 1] below this are none."""
_BINS = 65_536
_INDEX_BITS = np.uint64(32)
_INDEX_MASK = np.uint64(0xFFFFFFFF)
_SIGN = np.int32(np.iinfo(np.int32).min)


def mid_ranks(values: Array) -> NDArray[np.float64]:
    """The ranks 1..n of finite values, ascending; equal values share the middle of their ranks.

    Args:
        values: (n,) float32 or float64, finite.

    Returns:
        (n,) ranks, whole or half numbers.
    """
    n = len(values)
    if values.dtype == np.float32 and n < 2**32:
        packed = _packed(values)
        packed.sort()
        order = (packed & _INDEX_MASK).view(np.int64)
        packed >>= _INDEX_BITS
        ascending: Array = packed
    else:
        order = np.argsort(values)
        ascending = values[order]
    ranks = np.empty(n)
    ranks[order] = _shared(ascending)
    return ranks


def _packed(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Whole numbers in the order of the values, each with the value's place in its lower half.

    The upper half holds the bits of a float, all turned around where it is negative, else the sign alone.
    """
    packed = np.empty(len(values), np.uint64)
    for block in blocks(len(values)):
        bits = (values[block] + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0, its equal.
        bits ^= (bits >> 31) | _SIGN
        packed[block] = bits.view(np.uint32)
        packed[block] <<= _INDEX_BITS
        packed[block] |= np.arange(block.start, block.stop, dtype=np.uint64)
    return packed


def _shared(ascending: Array) -> NDArray[np.float64]:
    """The mid-rank at every place of sorted values."""
    n = len(ascending)
    ranks = np.arange(1.0, n + 1)
    tied = np.zeros(n + 1, np.bool_)  # tied[i]: value i equals value i - 1.
    np.equal(ascending[1:], ascending[:-1], out=tied[1:n])
    if tied.any():
        member = tied[:-1] | tied[1:]
        starts = np.flatnonzero(tied[1:] & ~tied[:-1])
        ends = np.flatnonzero(tied[:-1] & ~tied[1:]) + 1
        ranks[member] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks


def median(values: NDArray[np.float64], low: float, high: float) -> float:
    """The exact median of values in [low, high]: a histogram finds the few that must be sorted.

    Args:
        values: (n,), n > 0.
        low: No value is below.
        high: No value is above.
    """
    n = len(values)
    lower, upper = (n - 1) // 2, n // 2
    inside, skipped = values, 0
    if n > _BINS:
        bins, counts = _histogram(values, low, high)
        below = np.cumsum(counts)
        first, last = np.searchsorted(below, [lower, upper], side="right")
        # Between the two bins there is nothing: the two middle values are neighbours.
        inside = values[(bins == first) | (bins == last)]
        skipped = int(below[first - 1]) if first else 0
    places = (lower - skipped, upper - skipped)
    middle = np.partition(inside, places)
    return float((middle[places[0]] + middle[places[1]]) / 2)


def _histogram(values: NDArray[np.float64], low: float, high: float) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The bin of every value, of 65,536 equal ones, and how many each holds."""
    bins = np.empty(len(values), np.uint16)
    counts = np.zeros(_BINS, np.int64)
    for block in blocks(len(values)):
        scaled = values[block] - low
        scaled *= (_BINS - 1) / (high - low)
        whole = scaled.astype(np.intp)
        bins[block] = whole
        counts += np.bincount(whole, minlength=_BINS)
    return bins, counts


def robust_scale(distances: NDArray[np.float64], high: float) -> float:
    """1.4826 MAD of absolute distances from the median.

    Where more than half of the distances are zero, but for rounding, so is the MAD, and the mean absolute distance,
    scaled to a normal distribution likewise, takes its place (Iglewicz and Hoaglin 1993); 0 only if all are zero.

    Args:
        distances: (n,), not negative, n > 0.
        high: None is above.
    """
    mad = median(distances, 0.0, high)
    if mad > _ROUNDING:
        return NORMAL_MAD * mad
    mean = float(distances.mean())
    return NORMAL_MEAN_DEVIATION * mean if mean > _ROUNDING else 0.0


class RankJumps:
    """The largest change of each sample's rank between two of its consecutive observations.

    The rank of an epoch is the mid-rank divided by the number of samples, so in (0, 1]. A change is measured against
    all changes that end in the same epoch: |change - median| / (1.4826 MAD).

    Args:
        burn_in: Changes that end in one of the first `burn_in` epochs do not count.
    """

    def __init__(self, burn_in: int) -> None:
        self._burn_in = burn_in
        self._epochs = 0
        self._state = GrowingArrays(
            rank=np.float64(np.nan),
            jump=np.float64(np.nan),
            epoch=NO_EPOCH,
            start=np.float32(np.nan),
            end=np.float32(np.nan),
            rises=np.bool_(False),
        )

    def __getitem__(self, name: str) -> Array:
        return self._state[name]

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def update(self, where: Where, values: Array, epoch: int) -> None:
        """Add all finite values of an epoch after the last one, one a slot."""
        self._epochs += 1
        if len(values) == 0:
            return
        now = mid_ranks(values)
        now /= len(values)
        counts = self._epochs > self._burn_in
        change = self._move(where, now)
        known = np.flatnonzero(~np.isnan(change)) if np.isnan(change.sum()) else None
        changes = change if known is None else change[known]
        if counts and len(changes):
            centre = median(changes, -1.0, 1.0)
            scale = robust_scale(np.abs(changes - centre), 2.0)
            if known is not None:
                where, now = part(where, known), now[known]
            # Without any scale nobody moved against the others.
            self._keep(where, changes, now, centre, scale or np.inf, epoch)

    def _move(self, where: Where, now: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put the new ranks in place of the old; their differences, NaN where there was none."""
        rank, change = self._state["rank"], np.empty_like(now)
        for block in blocks(len(now)):
            slots = part(where, block)
            np.subtract(now[block], rank[slots], out=change[block])
            rank[slots] = now[block]
        return change

    def _keep(
        self,
        where: Where,
        changes: NDArray[np.float64],
        now: NDArray[np.float64],
        centre: float,
        scale: float,
        epoch: int,
    ) -> None:
        """Remember the changes that are larger than those before."""
        state = self._state
        for block in blocks(len(changes)):
            slots = part(where, block)
            excess = changes[block] - centre
            jumps = np.abs(excess) / scale
            chosen = np.flatnonzero(~(jumps <= state["jump"][slots]))
            slots, end = part(slots, chosen), now[block][chosen]
            state["jump"][slots] = jumps[chosen]
            state["epoch"][slots] = epoch
            state["start"][slots] = end - changes[block][chosen]
            state["end"][slots] = end
            state["rises"][slots] = excess[chosen] > 0

    def results(self) -> dict[str, Array]:
        """By slot: `rank_jump` (NaN for none), `rank_jump_epoch` (NO_EPOCH), `rank_from`, `rank_to`, `rises`."""
        state = self._state
        return {
            "rank_jump": state.pop("jump"),
            "rank_jump_epoch": state.pop("epoch"),
            "rank_from": state.pop("start"),
            "rank_to": state.pop("end"),
            "rises": state.pop("rises"),
        }
