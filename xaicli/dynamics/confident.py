"""Confident learning (Northcutt, Jiang and Chuang, JAIR 2021), pruning by noise rate, from the paper.

Works on probabilities that are held out, or in-sample ones of a network that has not memorised its labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xaicli.dynamics.regions import highest

Labels = NDArray[np.int64]
Probs = NDArray[np.floating]

_CHUNK_VALUES = 1 << 22
"""Probabilities widened to float64 at a time: 32 MB."""


def thresholds(probs: Probs, label: Labels) -> NDArray[np.float64]:
    """t_j, the mean of p[j] over the samples labelled j; infinite where none is.

    Args:
        probs: (n, k) probabilities, of any float type.
        label: (n,) in 0..k-1.
    """
    k = probs.shape[1]
    own = probs[np.arange(len(label)), label].astype(np.float64)
    count = np.bincount(label, minlength=k)
    total = np.bincount(label, weights=np.clip(own, 0, 1), minlength=k)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.inf))


def joint_counts(probs: Probs, label: Labels) -> NDArray[np.int64]:
    """How many samples labelled a are to be expected to be b: the confident joint, rows rescaled to the class counts.

    A sample labelled a counts as b when p[b] is the largest of the p[l] that reach t_l. Where no sample of a label
    reaches any, its row says that all are right.

    Returns:
        (k, k), rounded to whole samples.
    """
    k = probs.shape[1]
    reached = thresholds(probs, label)
    joint = np.zeros((k, k))
    for rows in _chunks(len(label), k):
        p = np.clip(probs[rows].astype(np.float64), 0, 1)
        best = np.where(p >= reached, p, -1.0)
        counted = best.max(axis=1) >= 0
        np.add.at(joint, (label[rows][counted], best.argmax(axis=1)[counted]), 1)
    found = joint.sum(axis=1)
    joint[found == 0, found == 0] = 1.0
    counts = np.bincount(label, minlength=k)
    scaled = joint * (counts / np.maximum(joint.sum(axis=1), 1))[:, None]
    return np.asarray(np.rint(scaled), np.int64)


def issues(probs: Probs, label: Labels) -> NDArray[np.intp]:
    """The places of the samples whose label is an issue.

    For each a other than b the expected number of samples labelled a with the largest p[b] - p[a] (of equal ones the
    earlier); of these, those whose most probable class is not their label.

    Returns:
        Ascending places.
    """
    joint = joint_counts(probs, label)
    np.fill_diagonal(joint, 0)
    flagged = np.zeros(len(label), np.bool_)
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(joint.shape[0] + 1))
    for a in np.flatnonzero(joint.sum(axis=1)):
        rows = order[starts[a] : starts[a + 1]]
        p = np.clip(probs[rows].astype(np.float64), 0, 1)
        for b in np.flatnonzero(joint[a]):
            flagged[rows[highest(p[:, b] - p[:, a], min(int(joint[a, b]), len(rows)))]] = True
    found = np.flatnonzero(flagged)
    return np.asarray(found[probs[found].argmax(axis=1) != label[found]])


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(_CHUNK_VALUES // max(k, 1), 1)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
