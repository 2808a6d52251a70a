"""Confident learning by hand, against the method sample by sample, and against cleanlab's own counts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xaicli.dynamics.label_issues import issues, joint_counts, thresholds

PROBS = np.array(
    [
        [0.9, 0.1],  # labelled 0
        [0.8, 0.2],
        [0.1, 0.9],
        [0.2, 0.8],  # labelled 1
        [0.3, 0.7],
        [0.4, 0.6],
    ]
)
LABEL = np.array([0, 0, 0, 1, 1, 1])


def test_by_hand() -> None:
    assert thresholds(PROBS, LABEL) == pytest.approx([0.6, 0.7])
    # Of those labelled 0 two reach 0.6 for 0 and one reaches 0.7 for 1; of those labelled 1 two reach 0.7, one nothing.
    assert joint_counts(PROBS, LABEL).tolist() == [[2, 1], [0, 3]]
    assert issues(PROBS, LABEL).tolist() == [2]


def test_a_class_without_samples() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.1, 0.8, 0.1]])
    label = np.array([0, 0, 1])
    assert thresholds(probs, label)[2] == np.inf
    assert issues(probs, label).size == 0


def test_half_precision_that_exceeds_one() -> None:
    probs = PROBS.copy()
    probs[0] = [1.0005, -0.0005]
    assert issues(probs.astype(np.float16), LABEL).tolist() == [2]


def made(seed: int, n: int, k: int, missing: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities and labels, three tenths of them drawn anew; `missing` is a class no sample has, -1 for none."""
    draw = np.random.default_rng(seed)
    probs = draw.dirichlet(np.full(k, 0.4), n)
    label = np.where(draw.random(n) < 0.7, probs.argmax(axis=1), draw.integers(0, k, n))
    label[label == missing] = (missing + 1) % k
    return probs, label


@pytest.mark.parametrize(
    ("seed", "n", "k", "missing", "count", "total"),
    [
        (1, 60, 3, -1, 9, 290),
        (2, 400, 10, -1, 92, 18349),
        (3, 1000, 12, 4, 217, 115055),
        (4, 300, 40, -1, 83, 13290),
        (5, 90, 30, 7, 23, 949),
        (6, 25, 2, -1, 5, 67),
    ],
)
def test_equals_cleanlab(seed: int, n: int, k: int, missing: int, count: int, total: int) -> None:
    """Number and sum of the places that cleanlab 2.9.0 gives with `filter_by="prune_by_noise_rate"`, its defaults."""
    found = issues(*made(seed, n, k, missing))
    assert (len(found), int(found.sum())) == (count, total)


def direct(probs: NDArray[np.float64], label: NDArray[np.int64]) -> list[int]:
    """The method sample by sample, counts as exact fractions."""
    n, k = probs.shape
    members = [[i for i in range(n) if label[i] == a] for a in range(k)]
    limits = [math.fsum(probs[i, j] for i in members[j]) / len(members[j]) if members[j] else 9.0 for j in range(k)]
    joint = [[0] * k for _ in range(k)]
    for i in range(n):
        reached = [j for j in range(k) if probs[i, j] >= limits[j] - 1e-6]
        if reached:
            joint[label[i]][reached[0] if len(reached) == 1 else int(probs[i].argmax())] += 1
    flagged = set()
    for a in range(k):
        joint[a][a] = max(joint[a][a], 1)
        wanted = evened([Fraction(count * len(members[a]), sum(joint[a])) for count in joint[a]])
        fewer = 1 if wanted[a] == 0 else 0
        if len(members[a]) > 1:
            for b in set(range(k)) - {a}:
                ranked = sorted(members[a], key=lambda i: -(probs[i, b] - probs[i, a]))
                flagged |= set(ranked[: max(wanted[b] - fewer, 0)])
    return sorted(i for i in flagged if any(probs[i, j] > probs[i, label[i]] + 1e-6 for j in range(k)))


def evened(row: list[Fraction]) -> list[int]:
    """A row in whole numbers with the same total; examples in which exact ties would decide are passed over."""
    assume(all(value % 1 != Fraction(1, 2) for value in row))
    whole = [round(value) for value in row]
    missing = int(sum(row)) - sum(whole)
    far = sorted(range(len(row)), key=lambda b: (whole[b] - row[b]) * (1 if missing > 0 else -1))
    if missing:
        border = (
            row[far[abs(missing) - 1]] - whole[far[abs(missing) - 1]],
            row[far[abs(missing)]] - whole[far[abs(missing)]],
        )
        assume(border[0] != border[1])
    for b in far[: abs(missing)]:
        whole[b] += 1 if missing > 0 else -1
    return whole


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), k=st.integers(2, 5))
def test_equals_the_method_sample_by_sample(seed: int, n: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    probs, label = draw.dirichlet(np.ones(k), n), draw.integers(0, k, n)
    assert issues(probs, label).tolist() == direct(probs, label)


def test_every_sample_is_counted_once() -> None:
    for seed, k in ((1, 3), (2, 10), (3, 40)):
        probs, label = made(seed, 300, k, 1)
        joint = joint_counts(probs, label)
        assert joint.sum(axis=1).tolist() == np.bincount(label, minlength=k).tolist()
        assert (joint >= 0).all()
