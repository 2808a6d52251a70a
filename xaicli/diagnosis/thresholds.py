"""What a model that says yes or no would say at every threshold: ROC, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xaicli.diagnosis.calibration import auroc, average_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHOWN = 200
"""So many thresholds are told and drawn."""


@dataclass(frozen=True)
class Thresholds:
    """The counts at each threshold, the highest first; a sample is called positive whose score is at least that.

    Attributes:
        threshold: (T,) the scores that occur.
        tp, fp: (T,) true and false positives.
        n_positive, n_negative: How many samples there are of each kind.
        auroc: The area under the ROC curve; NaN without both kinds.
        average_precision: The mean precision over the recall steps; NaN without a positive.
    """

    threshold: Floats
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    n_positive: int
    n_negative: int
    auroc: float
    average_precision: float

    @classmethod
    def of(cls, score: Floats, positive: NDArray[np.bool_]) -> Thresholds:
        """The counts of scores.

        Args:
            score: (N,) finite.
            positive: (N,) whether the label says yes.
        """
        order = np.argsort(-score, kind="stable")
        ordered = score[order]
        last = np.append(np.flatnonzero(np.diff(ordered)), len(order) - 1) if len(order) else np.zeros(0, np.intp)
        tp = np.cumsum(positive[order])[last].astype(np.int64)
        fp = last + 1 - tp
        n_positive = int(positive.sum())
        return cls(
            threshold=ordered[last],
            tp=tp,
            fp=fp.astype(np.int64),
            n_positive=n_positive,
            n_negative=len(score) - n_positive,
            auroc=auroc(score, positive),
            average_precision=average_precision(score, positive),
        )

    @property
    def precision(self) -> Floats:
        """(T,) of those called positive, the share that is."""
        found: Floats = self.tp / np.maximum(self.tp + self.fp, 1)
        return found

    @property
    def recall(self) -> Floats:
        """(T,) of the positives, the share called so; 0 without one."""
        return self.tp / max(self.n_positive, 1)

    @property
    def false_positive_rate(self) -> Floats:
        """(T,) of the negatives, the share called positive; 0 without one."""
        return self.fp / max(self.n_negative, 1)

    @property
    def f1(self) -> Floats:
        """(T,) the harmonic mean of precision and recall."""
        found: Floats = 2 * self.tp / np.maximum(self.tp + self.fp + self.n_positive, 1)
        return found

    @property
    def accuracy(self) -> Floats:
        """(T,) the share called rightly."""
        return (self.tp + self.n_negative - self.fp) / max(self.n_positive + self.n_negative, 1)

    def best(self) -> int:
        """The place of the highest F1; of equal ones that of the highest threshold."""
        return int(self.f1.argmax())

    def at(self, threshold: float) -> int | None:
        """The place that calls the same samples positive as a threshold; None where it calls none so."""
        called = int((self.threshold >= threshold).sum())
        return called - 1 if called else None

    def row(self, place: int | None) -> dict[str, float | int | None]:
        """The figures at a place; None stands for a threshold above all scores."""
        if place is None:
            n = self.n_positive + self.n_negative
            counts = {"threshold": None, "tp": 0, "fp": 0, "fn": self.n_positive, "tn": self.n_negative}
            rates = {"precision": 0.0, "recall": 0.0, "false_positive_rate": 0.0, "f1": 0.0}
            return {**counts, **rates, "accuracy": self.n_negative / max(n, 1)}
        return {
            "threshold": float(self.threshold[place]),
            "tp": int(self.tp[place]),
            "fp": int(self.fp[place]),
            "fn": int(self.n_positive - self.tp[place]),
            "tn": int(self.n_negative - self.fp[place]),
            "precision": float(self.precision[place]),
            "recall": float(self.recall[place]),
            "false_positive_rate": float(self.false_positive_rate[place]),
            "f1": float(self.f1[place]),
            "accuracy": float(self.accuracy[place]),
        }

    def shown(self) -> list[int]:
        """Places to tell: all, or some evenly spread over both rates, with both ends and the best F1 among them."""
        n = len(self.threshold)
        if n <= SHOWN:
            return list(range(n))
        way = np.cumsum(np.hypot(np.diff(self.recall, prepend=0.0), np.diff(self.false_positive_rate, prepend=0.0)))
        picks = np.searchsorted(way, np.linspace(way[0], way[-1], SHOWN - 3))
        return sorted({0, n - 1, self.best(), *np.minimum(picks, n - 1).tolist()})
