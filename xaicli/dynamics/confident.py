"""Confident learning (Northcutt, Jiang and Chuang, JAIR 2021), pruning by noise rate.

The method is the paper's; where the paper leaves open how to count and round, the counts are those of cleanlab 2.9
(`find_label_issues(filter_by="prune_by_noise_rate")`), so that lists made here and there agree. Works on
probabilities that are held out, or in-sample ones of a network that has not memorised its labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Probs = NDArray[np.floating]

_CLOSE = 1e-6
"""Probabilities nearer than this to a threshold reach it, and to the label's own do not exceed it."""
_CHUNK_VALUES = 1 << 22
"""Probabilities widened to float64 at a time: 32 MB."""


def thresholds(probs: Probs, label: Labels) -> NDArray[np.float64]:
    """t_j, the mean of p[j] over the samples labelled j, at least twice what counts as close; infinite where none is.

    Args:
        probs: (n, k) probabilities, of any float type.
        label: (n,) in 0..k-1.
    """
    k = probs.shape[1]
    own = probs[np.arange(len(label)), label].astype(np.float64)
    count = np.bincount(label, minlength=k)
    total = np.bincount(label, weights=np.clip(own, 0, 1), minlength=k)
    return np.asarray(np.where(count > 0, np.maximum(total / np.maximum(count, 1), 2 * _CLOSE), np.inf))


def joint_counts(probs: Probs, label: Labels) -> NDArray[np.int64]:
    """How many samples labelled a are to be expected to be b: the confident joint, rows rescaled to the class counts.

    A sample labelled a counts as b when b is the only class whose p[b] reaches t_b; where several reach theirs, when
    p[b] is the largest of all. At least one sample of each class counts as right. Rows are rounded to whole samples so
    that their totals stay: what rounding gains or loses is evened out where it rounded furthest.

    Returns:
        (k, k), each row the number of samples of its label.
    """
    k = probs.shape[1]
    limits = thresholds(probs, label) - _CLOSE
    joint = np.zeros((k, k))  # the class expected by the label given: the order in which the total below is summed
    for rows in _chunks(len(label), k):
        p = np.clip(probs[rows].astype(np.float64), 0, 1)
        reached = p >= limits
        n_reached = reached.sum(axis=1)
        best = np.where(n_reached > 1, p.argmax(axis=1), reached.argmax(axis=1))
        counted = n_reached > 0
        np.add.at(joint, (best[counted], label[rows][counted]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1.0))
    # By the labels' counts and once more by the total: the last digits tell apart which of equal remainders grow.
    scaled = joint / joint.sum(axis=0) * np.bincount(label, minlength=k)
    scaled = scaled / scaled.sum() * len(label)
    return np.array([_rounded(row) for row in scaled.T], np.int64).reshape(k, k)


def _rounded(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row in whole numbers with the same total."""
    whole = np.round(row)
    missing = int(np.round(row.sum()) - whole.sum())
    # Among equal remainders numpy's own order decides, for that is the order of the counts others publish.
    order = np.argsort(row - whole)
    chosen = order[::-1][:missing] if missing > 0 else order[:-missing]
    whole[chosen] += np.sign(missing)
    return whole


def issues(probs: Probs, label: Labels) -> NDArray[np.intp]:
    """The places of the samples whose label is an issue.

    For each a other than b the expected number of samples labelled a with the largest p[b] - p[a] (of equal ones the
    earlier); of these, those whose most probable class is not their label. A label keeps one sample at least: none of a
    single one is flagged, and one fewer for each b where none counts as right.

    Returns:
        Ascending places.
    """
    joint = joint_counts(probs, label)
    joint[joint.diagonal() == 0] -= 1
    np.fill_diagonal(joint, 0)
    joint = np.maximum(joint, 0)
    flagged = np.zeros(len(label), np.bool_)
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(joint.shape[0] + 1))
    for a in np.flatnonzero(joint.sum(axis=1)):
        rows = order[starts[a] : starts[a + 1]]
        if len(rows) < 2:
            continue
        p = np.clip(probs[rows].astype(np.float64), 0, 1)
        for b in np.flatnonzero(joint[a]):
            flagged[rows[np.argsort(p[:, a] - p[:, b])[: joint[a, b]]]] = True
    found = np.flatnonzero(flagged)
    p = np.clip(probs[found].astype(np.float64), 0, 1)
    p[np.arange(len(found)), label[found]] += _CLOSE
    return np.asarray(found[p.argmax(axis=1) != label[found]])


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(_CHUNK_VALUES // max(k, 1), 1)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
