"""What to find out about each sample, given the columns there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from xaicli.dynamics.arrays import MANY
from xaicli.dynamics.metrics import Parts
from xaicli.vocabulary import CORRECT, EL2N, LABEL_PROB, LOSS, MARGIN, PREDICTION, SAMPLE_ID

EMA_WEIGHT = 0.1
"""The weight of a new loss in `ema`: slow, for a fast average forgets what the final loss forgets."""

_EVERYTHING = Parts(spread=True, trend=True, extremes=True)


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
        if CORRECT in self.available:
            return (CORRECT,)
        both = (self.label, PREDICTION)
        return both if set(both) <= self.available else ()

    def columns(self) -> list[str]:
        """The columns to read."""
        label = {self.label} & self.available
        return [SAMPLE_ID, *sorted({*label, *self.judged_by, *self.parts()})]
