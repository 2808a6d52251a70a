"""Which predicted object is which true one: the rule of COCO's evaluation, for any overlap.

Within each class, predictions in the order of falling confidence take the free true object they overlap most, if by the
threshold at least; of equal overlaps the later. One that finds none may fall on a crowd region, which any number of
predictions may, and counts as neither right nor wrong (Lin et al. 2014, arXiv:1405.0312, and its published evaluation
code).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import UsageError

Overlaps = NDArray[np.float64]
RULE = "COCO: by falling confidence, each takes the free ground truth of its class with the largest IoU >= threshold"


class Outcome(StrEnum):
    """What became of an object."""

    TP = "tp"
    FP = "fp"
    FN = "fn"
    IGNORED = "ignored"
    """A crowd region, or a prediction on one."""


@dataclass(frozen=True)
class Objects:
    """The objects of one picture, true or predicted.

    Attributes:
        label: (N,) class numbers.
        confidence: (N,), 1 for true objects.
        crowd: (N,) whether it stands for a group; False for predicted objects.
    """

    label: NDArray[np.int64]
    confidence: NDArray[np.float64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """Who matched whom.

    Attributes:
        truth: (T,) the position of each true object's prediction, -1 without one (a crowd region has none of its own).
        predicted: (P,) the position of each prediction's true object, -1 without one.
        truth_outcome: (T,) tp, fn or ignored.
        predicted_outcome: (P,) tp, fp or ignored.
        truth_iou: (T,) overlap with its prediction, else the largest with one of the same class.
        predicted_iou: (P,) overlap with its true object, else the largest with one of the same class.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth_outcome: list[Outcome]
    predicted_outcome: list[Outcome]
    truth_iou: Overlaps
    predicted_iou: Overlaps


def match(truth: Objects, predicted: Objects, overlaps: Overlaps, threshold: float) -> Matches:
    """Match one picture's objects.

    Args:
        overlaps: (P, T) IoU of predictions with true objects.
        threshold: The least IoU of a match, in (0, 1].
    """
    n_predicted, n_truth = overlaps.shape
    same = predicted.label[:, None] == truth.label[None, :]
    to_truth = np.full(n_predicted, -1)
    to_predicted = np.full(n_truth, -1)
    fits = same & (overlaps >= min(threshold, 1 - 1e-10))
    for p in np.argsort(-predicted.confidence, kind="stable"):
        free = np.flatnonzero(fits[p] & ~truth.crowd & (to_predicted < 0))
        candidates = free if len(free) else np.flatnonzero(fits[p] & truth.crowd)
        if len(candidates):
            # The last of the largest.
            t = candidates[::-1][overlaps[p, candidates[::-1]].argmax()]
            to_truth[p] = t
            if not truth.crowd[t]:
                to_predicted[t] = p
    best = np.where(same, overlaps, 0.0)
    found_p, found_t = np.flatnonzero(to_truth >= 0), np.flatnonzero(to_predicted >= 0)
    predicted_iou = best.max(axis=1, initial=0.0)
    predicted_iou[found_p] = overlaps[found_p, to_truth[found_p]]
    truth_iou = best.max(axis=0, initial=0.0)
    truth_iou[found_t] = overlaps[to_predicted[found_t], found_t]
    return Matches(
        to_predicted,
        to_truth,
        [_of_truth(bool(c), bool(m >= 0)) for c, m in zip(truth.crowd, to_predicted, strict=True)],
        [_of_prediction(int(t), truth.crowd) for t in to_truth],
        truth_iou,
        predicted_iou,
    )


def valid_threshold(iou_threshold: float) -> float:
    """The threshold, checked.

    Raises:
        UsageError: It is not in (0, 1].
    """
    if not 0 < iou_threshold <= 1:
        raise UsageError(f"iou_threshold={iou_threshold} is not in (0, 1]")
    return float(iou_threshold)


def box_overlaps(predicted: NDArray[Any], truth: NDArray[Any], crowd: NDArray[np.bool_]) -> Overlaps:
    """(P, T) IoU of boxes (x0, y0, x1, y1); with a crowd region the share of the prediction inside it."""
    predicted, truth = predicted.reshape(-1, 4).astype(np.float64), truth.reshape(-1, 4).astype(np.float64)
    low = np.maximum(predicted[:, None, :2], truth[None, :, :2])
    high = np.minimum(predicted[:, None, 2:], truth[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return _ratio(shared, _area(predicted), _area(truth), crowd)


def mask_overlaps(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], crowd: NDArray[np.bool_]) -> Overlaps:
    """(P, T) IoU of masks (N, H, W); with a crowd region the share of the prediction inside it."""
    packed_p, packed_t = (np.packbits(masks.reshape(len(masks), -1), axis=1) for masks in (predicted, truth))
    shared = np.zeros((len(predicted), len(truth)))
    for row, mask in enumerate(packed_p):
        shared[row] = np.bitwise_count(mask & packed_t).sum(axis=1)
    areas = [np.bitwise_count(packed).sum(axis=1).astype(np.float64) for packed in (packed_p, packed_t)]
    return _ratio(shared, areas[0], areas[1], crowd)


def _ratio(shared: Overlaps, predicted: Overlaps, truth: Overlaps, crowd: NDArray[np.bool_]) -> Overlaps:
    union = np.where(crowd[None, :], predicted[:, None], predicted[:, None] + truth[None, :] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: NDArray[Any]) -> Overlaps:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))


def _of_truth(crowd: bool, matched: bool) -> Outcome:
    if crowd:
        return Outcome.IGNORED
    return Outcome.TP if matched else Outcome.FN


def _of_prediction(truth: int, crowd: NDArray[np.bool_]) -> Outcome:
    if truth < 0:
        return Outcome.FP
    return Outcome.IGNORED if crowd[truth] else Outcome.TP
