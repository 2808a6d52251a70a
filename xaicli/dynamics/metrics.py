"""What to find out about each sample, given the columns there are, and what is remembered of a metric meanwhile.

A metric is remembered in float64 and a few bytes a sample.

Sums are kept of distances to a sample's own first value. The distance of that first value is zero, so that the
variance of n distances is at least their squared mean divided by n - 1: subtracting the two in the end costs at most
a factor n of the 10^16 that float64 resolves, whatever the size of the values.

Updates of different slots may run in different threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.arrays import MANY, Array, GrowingArrays, Where, blocks
from xaicli.dynamics.learning import Times
from xaicli.vocabulary import CORRECT, EL2N, LABEL, LABEL_PROB, LOSS, MARGIN, PREDICTION, SAMPLE_ID


@dataclass(frozen=True)
class Parts:
    """What is to be known about a metric.

    Attributes:
        spread: The standard deviation.
        trend: The slope over the epochs.
        extremes: The first, last, smallest and largest value.
        ema: The weight of a new value in the exponential moving average; 0 for none.
        early: Of how many first observations to take a separate mean; 0 for none.
        recent: The mean in which the k-th value counts min(k, `GROWING`) squared times: the first ones tell little, and
            the last ones no more than those before them. Once the labels are memorised (`MEMORISED`), only the first
            `LEARNING` values of a sample still count.
        mean: The plain mean; spread and trend need it.
    """

    spread: bool = False
    trend: bool = False
    extremes: bool = False
    ema: float = 0.0
    early: int = 0
    recent: bool = False
    mean: bool = True

    def __or__(self, other: Parts) -> Parts:
        return Parts(
            self.spread or other.spread,
            self.trend or other.trend,
            self.extremes or other.extremes,
            self.ema or other.ema,
            self.early or other.early,
            self.recent or other.recent,
            self.mean or other.mean,
        )


EMA_WEIGHT = 0.1
"""The weight of a new loss in `ema`: slow, for a fast average forgets what the final loss forgets."""

GROWING = 5
"""From so many observations on each counts as much as the next in `recent`: the first tell little, but those that lean
on the last lean on memorised ones long before nearly all labels are predicted."""

LEARNING = 10
"""So many first observations of a sample count in `recent` however early the labels are memorised."""

MEMORISED = 0.97
"""After the first epoch in which this share of the labels was predicted, observations of a sample beyond `LEARNING` no
longer count in `recent`: a net that is right on nearly all has learned wrong labels, too, and then says nothing."""

_EVERYTHING = Parts(spread=True, trend=True, extremes=True)


def stale_of(metric: str) -> str:
    """The column of which samples have no finite value of a metric in the last epoch; not among what is shown."""
    return f"_stale_{metric}"


@dataclass(frozen=True)
class Plan:
    """What to find out, from the columns there are.

    Attributes:
        metrics: The metrics of which every summary is wanted; the first one's ranks are followed.
        available: The recorded columns.
        label: The column that groups samples.
        early_epochs: Of how many first observations `el2n` is the mean.
        burn_in: Changes of rank that end in one of so many first epochs do not count.
        jumps: Whether ranks are followed at all.
        id_type: Of the sample ids.
        most: No sample is observed more often.
        furthest: No epoch is further from 0.
        label_is_fact: Whether the label is a fact, which is not recorded with the rows.
        label_is_truth: Whether a prediction is right where it is this label, whatever was recorded as the label.
    """

    metrics: tuple[str, ...]
    available: frozenset[str]
    label: str
    early_epochs: int = 10
    burn_in: int = 2
    jumps: bool = True
    id_type: pl.DataType = field(default_factory=pl.Int64)
    most: int = MANY
    furthest: int = MANY
    label_is_fact: bool = False
    label_is_truth: bool = False

    @property
    def has_label(self) -> bool:
        """Whether there is a label to follow."""
        return self.label_is_fact or self.label in self.available

    def parts(self) -> dict[str, Parts]:
        """What is needed of each metric."""
        needed = dict.fromkeys(self.metrics, _EVERYTHING)
        own = {
            LOSS: Parts(ema=EMA_WEIGHT, recent=True),
            LABEL_PROB: Parts(spread=True),
            MARGIN: Parts(recent=True),
            EL2N: Parts(early=self.early_epochs, recent=True, mean=False),
        }
        for metric in self.available & own.keys():
            needed[metric] = needed.get(metric, Parts()) | own[metric]
        return dict(sorted(needed.items()))

    @property
    def judged_by(self) -> tuple[str, ...]:
        """The columns that say whether a prediction was right; none where nothing does."""
        return (self.label, PREDICTION) if self.label_is_truth else self.given_by

    @property
    def given_by(self) -> tuple[str, ...]:
        """Those that say whether it was the label that the model was given, which is what it may memorise."""
        if CORRECT in self.available:
            return (CORRECT,)
        own = LABEL if self.label_is_truth and LABEL in self.available else self.label
        both = (own, PREDICTION)
        return both if set(both) <= self.available or self.label_is_truth else ()

    def columns(self) -> list[str]:
        """The columns to read."""
        label = {self.label} if self.has_label else set()
        return [SAMPLE_ID, *sorted({*label, *self.judged_by, *self.given_by, *self.parts()})]


class MetricSums:
    """The sums of one metric.

    Args:
        parts: What is to be known.
        dtype: Of the metric's values, float32 or float64: first, last, smallest and largest are kept as they are.
    """

    def __init__(self, parts: Parts, dtype: Any = np.float32) -> None:
        self.parts = parts
        kind = np.dtype(dtype).type
        zero, none = np.float64(0), kind(np.nan)
        shifted = parts.spread or parts.trend
        self._shifted = shifted
        self._settled: NDArray[np.int32] | None = None
        self._state = GrowingArrays(
            first=none if shifted or parts.extremes else None,
            sum=zero if parts.mean else None,
            recent=zero if parts.recent else None,
            squares=zero if parts.spread else None,
            products=zero if parts.trend else None,
            last=none if parts.extremes else None,
            min=kind(np.inf) if parts.extremes else None,
            max=kind(-np.inf) if parts.extremes else None,
            ema=np.float64(np.nan) if parts.ema else None,
            early=zero if parts.early else None,
            n_early=np.min_scalar_type(-parts.early).type(0) if parts.early else None,
        )

    def __getitem__(self, name: str) -> Array:
        return self._state[name]

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def settle(self, n: NDArray[np.int32]) -> None:
        """Say that the labels are memorised: of each sample at most `LEARNING` values count in `recent` from now on.

        Args:
            n: How many values each sample has so far.
        """
        self._settled = n

    def update(
        self,
        where: Where,
        values: Array,
        time: NDArray[np.float64] | float,
        observed: NDArray[np.int32],
        counted: NDArray[np.int32],
    ) -> None:
        """Add one finite value a slot.

        Args:
            where: The slots.
            values: (n,) float32 or float64.
            time: (n,) epochs since the sample's first one; one number where they are equal.
            observed: (n,) how often each sample has been observed, this time included.
            counted: (n,) how often with a finite value, this time included.
        """
        state = self._state
        if "first" in state:
            first = state["first"][where]
            unset = np.isnan(first)
            if unset.any():
                first[unset] = values[unset]
                state["first"][where] = first
        distance = values.astype(np.float64)
        if self.parts.ema:
            self._update_ema(where, distance)
        if self.parts.early:
            self._update_early(where, distance, observed)
        if self.parts.recent:
            state["recent"][where] += distance * _growing(counted, only_first=self._settled is not None)
        if self._shifted:
            distance -= first
        if self.parts.mean:
            state["sum"][where] += distance
        if self.parts.trend:
            state["products"][where] += distance * time
        if self.parts.spread:
            state["squares"][where] += np.square(distance, out=distance)
        if self.parts.extremes:
            state["last"][where] = values
            state["min"][where] = np.minimum(state["min"][where], values)
            state["max"][where] = np.maximum(state["max"][where], values)

    def _update_ema(self, where: Where, values: NDArray[np.float64]) -> None:
        average = self._state["ema"][where]
        step = values - average
        step *= self.parts.ema
        fresh = np.isnan(average)
        if fresh.any():
            average[fresh] = values[fresh]
            step[fresh] = 0.0
        average += step
        self._state["ema"][where] = average

    def _update_early(self, where: Where, values: NDArray[np.float64], observed: NDArray[np.int32]) -> None:
        early = observed <= self.parts.early
        if early.any():
            self._state["early"][where] += np.where(early, values, 0.0)
            self._state["n_early"][where] += early

    def results(self, times: Times) -> dict[str, Array]:
        """The statistics by slot; the sums are used up.

        Args:
            times: When the values added were observed.

        Returns:
            float64 `mean`, `std` (divisor n - 1; 0 where n is 1), `variance` (divisor n), `slope` (least squares on the
            epoch; 0 where all observations share an epoch), `ema`, `early`, `recent`; `first`, `last`, `min`, `max` as
            recorded. NaN where a sample had no finite value.
        """
        state, parts = self._state, self.parts
        with np.errstate(invalid="ignore", divide="ignore"):
            for block in blocks(len(state)):
                self._finish(block, times)
        renamed = {"products": "slope", "squares": "variance", "sum": "mean"}
        kept = [name for name in state.names if name not in ("n_early", *(() if parts.extremes else ("first",)))]
        return {renamed.get(name, name): state.pop(name) for name in kept}

    def _finish(self, block: slice, times: Times) -> None:
        """Turn the sums of some slots into results, in their place."""
        state, n = self._state, times.n[block]
        seen = n > 0
        if self.parts.mean:
            # Exact for whole numbers, so that samples as often right as others are wrong have one spread.
            mean = state["sum"][block]
            if self.parts.trend:
                # The slope is cov(t, d) / var(t), and n^2 cov(t, d) = n sum(t d) - sum(t) sum(d).
                slope, spread = state["products"][block], times.squared_distances(block)
                slope *= n
                slope -= times.totals(block) * mean
                slope /= spread
                slope[seen & (spread == 0)] = 0.0
            if self.parts.spread:
                variance = state["squares"][block]
                variance *= n
                variance -= mean * mean
                variance /= n
                variance /= n
                np.maximum(variance, 0.0, out=variance)
            mean /= n
            if self._shifted:
                mean += state["first"][block]
        if self.parts.recent:
            if self._settled is not None:
                settled = np.zeros(len(n), n.dtype)
                settled[: len(self._settled[block])] = self._settled[block]
                n = np.minimum(n, np.maximum(settled, LEARNING))
            growing = np.minimum(n, GROWING).astype(np.float64)
            total = growing * (growing + 1) * (2 * growing + 1) / 6 + (n - growing) * GROWING**2
            state["recent"][block] /= total
        if self.parts.early:
            state["early"][block] /= state["n_early"][block]
        if self.parts.extremes:
            state["min"][block][~seen] = np.nan
            state["max"][block][~seen] = np.nan


def _growing(counted: NDArray[np.int32], *, only_first: bool) -> NDArray[np.float64] | float:
    """How often some observations count in `recent`; one number where one stands for all.

    Args:
        counted: Which observation of its sample each is, from 1.
        only_first: Whether those after the first `LEARNING` do not count.
    """
    if counted.strides == (0,) and len(counted):
        return 0.0 if only_first and counted[0] > LEARNING else float(min(counted[0], GROWING)) ** 2
    times = np.square(np.minimum(counted, GROWING), dtype=np.float64)
    if only_first:
        times[counted > LEARNING] = 0.0
    return times


def sample_std(variance: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """The standard deviation with divisor n - 1, 0 where n is 1, in place of the variance with divisor n."""
    for block in blocks(len(variance)):
        mine = variance[block]
        mine *= n[block] / np.maximum(n[block] - 1, 1)
        np.sqrt(mine, out=mine)
    return variance
