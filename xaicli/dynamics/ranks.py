"""Where a sample stands among the others, epoch by epoch, and when it suddenly moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xaicli.dynamics.arrays import MANY, NO_EPOCH, Array, GrowingArrays, Where, as_epochs, blocks, part, stored_epoch

T = TypeVar("T", bound=np.signedinteger[Any])

NORMAL_MAD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
NORMAL_MEAN_DEVIATION = 1.253314137315500
"""The same over its mean absolute deviation: sqrt(pi / 2)."""

ODD = 3.5
"""Robust deviations from the median beyond which a value is an outlier (Iglewicz and Hoaglin 1993)."""

ROUNDING = 1e-12
"""Differences of ranks in (0, 1] below this are none."""
TIED = 1e-9
"""Jumps of one sample that differ by this share are equal: the earliest counts."""
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
    return doubled_mid_ranks(values, np.empty(n, np.int64), np.empty(n, np.uint64)) / 2


def doubled_mid_ranks(values: Array, out: NDArray[T], packed: NDArray[np.uint64]) -> NDArray[T]:
    """Twice the mid-ranks: whole numbers.

    Args:
        values: (n,) float32 or float64, finite.
        out: (n,) where to put them.
        packed: (n,) a place to work in.
    """
    n = len(values)
    if values.dtype != np.float32 or n >= 2**32:
        order = np.argsort(values)
        ascending = values[order]
        _place(out, lambda block: order[block], ascending[1:] == ascending[:-1])
        return out
    keys = _packed(values, packed)
    keys.sort()
    tied = np.empty(max(n - 1, 0), np.bool_)
    for block in blocks(len(tied)):
        # The upper halves are equal where nothing but the lower half differs.
        differing = keys[block.start + 1 : block.stop + 1] ^ keys[block]
        np.less_equal(differing, _INDEX_MASK, out=tied[block])
    _place(out, lambda block: (keys[block] & _INDEX_MASK).view(np.int64), tied)
    return out


def _packed(values: NDArray[np.float32], packed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Whole numbers in the order of the values, each with the value's place in its lower half.

    The upper half holds the bits of a float, all turned around where it is negative, else the sign alone.
    """
    for block in blocks(len(values)):
        bits = (values[block] + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0, its equal.
        bits ^= (bits >> 31) | _SIGN
        packed[block] = bits.view(np.uint32)
        packed[block] <<= _INDEX_BITS
        packed[block] |= np.arange(block.start, block.stop, dtype=np.uint64)
    return packed


def _place(doubled: NDArray[T], order: Callable[[slice], NDArray[np.int64]], tied: NDArray[np.bool_]) -> None:
    """Fill in twice the mid-ranks of sorted values.

    Args:
        doubled: (n,) to be filled.
        order: The places of the sorted values of a block.
        tied: (n - 1,) whether a sorted value equals the one before it.
    """
    n = len(doubled)
    edges = np.zeros(n + 1, np.bool_)
    edges[1:n] = tied
    starts = np.flatnonzero(edges[1:] & ~edges[:-1])
    ends = np.flatnonzero(edges[:-1] & ~edges[1:]) + 1
    shared = np.repeat((starts + ends + 1).astype(doubled.dtype), ends - starts)
    used = 0
    for block in blocks(n):
        ranks = 2 * np.arange(block.start + 1, block.stop + 1, dtype=doubled.dtype)
        member = edges[block] | edges[block.start + 1 : block.stop + 1]
        n_shared = int(np.count_nonzero(member))
        if n_shared:
            ranks[member] = shared[used : used + n_shared]
            used += n_shared
        doubled[order(block)] = ranks


def median(values: NDArray[np.float64], low: float, high: float, centre: float | None = None) -> float:
    """The exact median of values in [low, high]: a histogram finds the few that must be sorted.

    Args:
        values: (n,), n > 0.
        low: No value is below.
        high: No value is above.
        centre: With it, the median of the absolute distances from there, which are then in [low, high].
    """
    n = len(values)
    lower, upper = (n - 1) // 2, n // 2
    inside, skipped = _distances(values, centre) if n <= _BINS else values, 0
    if n > _BINS:
        bins, counts = _histogram(values, low, high, centre)
        below = np.cumsum(counts)
        first, last = np.searchsorted(below, [lower, upper], side="right")
        # Between the two bins there is nothing: the two middle values are neighbours.
        inside = _distances(values[(bins == first) | (bins == last)], centre)
        skipped = int(below[first - 1]) if first else 0
    places = (lower - skipped, upper - skipped)
    middle = np.partition(inside, places)
    return float((middle[places[0]] + middle[places[1]]) / 2)


def _distances(values: NDArray[np.float64], centre: float | None) -> NDArray[np.float64]:
    return values if centre is None else np.abs(values - centre)


def _histogram(
    values: NDArray[np.float64], low: float, high: float, centre: float | None
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The bin of every value, of 65,536 equal ones, and how many each holds."""
    bins = np.empty(len(values), np.uint16)
    counts = np.zeros(_BINS, np.int64)
    for block in blocks(len(values)):
        scaled = _distances(values[block], centre) - low
        scaled *= (_BINS - 1) / (high - low)
        whole = scaled.astype(np.intp)
        bins[block] = whole
        counts += np.bincount(whole, minlength=_BINS)
    return bins, counts


def robust_scale(values: NDArray[np.float64], centre: float, high: float) -> float:
    """1.4826 MAD: the median absolute distance from the median, as the standard deviation of a normal distribution.

    Where more than half of the distances are zero, but for rounding, so is the MAD, and the mean absolute distance,
    scaled likewise, takes its place (Iglewicz and Hoaglin 1993); 0 only if all are zero.

    Args:
        values: (n,), n > 0.
        centre: Their median.
        high: No distance from it is larger.
    """
    mad = median(values, 0.0, high, centre)
    if mad > ROUNDING:
        return NORMAL_MAD * mad
    mean = sum(float(_distances(values[block], centre).sum()) for block in blocks(len(values))) / len(values)
    return NORMAL_MEAN_DEVIATION * mean if mean > ROUNDING else 0.0


class RankJumps:
    """The largest change of each sample's rank between two of its consecutive observations.

    The rank in a pass is the mid-rank divided by the number of samples, so in (0, 1]. A change is measured against
    all changes that end in the same pass: |change - median| / (1.4826 MAD). Of equal ones the earliest counts.

    Args:
        burn_in: Changes that end in one of the first `burn_in` epochs do not count.
        furthest: No epoch is further from 0.
    """

    def __init__(self, burn_in: int, furthest: int = MANY) -> None:
        self._burn_in = burn_in
        self._epochs = 0
        self._epoch = int(NO_EPOCH)
        # Places to work in, kept: fresh memory of this size costs more than the work.
        self._ranks = np.empty(0, np.int64)
        self._packed = np.empty(0, np.uint64)
        self._state = GrowingArrays(
            rank=np.float64(np.nan),
            jump=np.float64(np.nan),
            epoch=stored_epoch(furthest),
            start=np.float32(np.nan),
            end=np.float32(np.nan),
            rises=np.bool_(False),
        )

    def __getitem__(self, name: str) -> Array:
        return self._state[name]

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def update(self, where: Where, values: Array, epoch: int) -> None:
        """Add all finite values of a pass after the last one, one a slot."""
        n = len(values)
        self._epochs += epoch != self._epoch
        self._epoch = epoch
        if n == 0:
            return
        if n > len(self._ranks):
            self._ranks, self._packed = np.empty(n, np.min_scalar_type(-2 * n - 1)), np.empty(n, np.uint64)
        now = doubled_mid_ranks(values, self._ranks[:n], self._packed[:n])
        change = self._move(where, now, self._packed[:n].view(np.float64))
        if self._epochs <= self._burn_in:
            return
        known = ~np.isnan(change)
        if not known.all():
            where, change = part(where, known), change[known]
        if len(change):
            centre = median(change, -1.0, 1.0)
            # Without any scale nobody moved against the others.
            self._keep(where, change, centre, robust_scale(change, centre, 2.0) or np.inf, epoch)

    def _move(
        self, where: Where, doubled: NDArray[np.signedinteger[Any]], change: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Put the new ranks, normalised, in place of the old; their differences, NaN where there was none."""
        rank = self._state["rank"]
        for block in blocks(len(doubled)):
            slots = part(where, block)
            normalised = doubled[block] / (2 * len(doubled))
            np.subtract(normalised, rank[slots], out=change[block])
            rank[slots] = normalised
        return change

    def _keep(self, where: Where, changes: NDArray[np.float64], centre: float, scale: float, epoch: int) -> None:
        """Remember the changes that are larger than those before."""
        state = self._state
        for block in blocks(len(changes)):
            slots = part(where, block)
            excess = changes[block] - centre
            excess[np.abs(excess) <= ROUNDING] = 0.0
            jumps = np.abs(excess) / scale
            # Ranks tie exactly, and rounding alone would say which of equal jumps is the largest.
            chosen = np.flatnonzero(~(jumps <= state["jump"][slots] * (1 + TIED)))
            slots = part(slots, chosen)
            end = state["rank"][slots]
            state["jump"][slots] = jumps[chosen]
            state["epoch"][slots] = epoch
            state["start"][slots] = end - changes[block][chosen]
            state["end"][slots] = end
            state["rises"][slots] = excess[chosen] > 0

    def end(self) -> None:
        """Say that no epoch follows: the places to work in are given back."""
        self._ranks, self._packed = np.empty(0, np.int64), np.empty(0, np.uint64)

    def results(self) -> dict[str, Array]:
        """By slot: `rank_jump` (NaN for none), `rank_jump_epoch` (NO_EPOCH), `rises`, `rank_from`, `rank_to`."""
        state = self._state
        return {
            "rank_jump": state.pop("jump"),
            "rank_jump_epoch": as_epochs(state.pop("epoch")),
            "rank_from": state.pop("start"),
            "rank_to": state.pop("end"),
            "rises": state.pop("rises"),
        }
