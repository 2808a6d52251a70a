"""Confident learning on examples small enough to be worked out by hand, and against a direct transcription."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xaicli.dynamics.confident import issues, joint_counts, thresholds

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


def direct(probs: NDArray[np.float64], label: NDArray[np.int64]) -> list[int]:
    """The method as design notes state it, sample by sample."""
    n, k = probs.shape
    limits = [np.mean([probs[i, j] for i in range(n) if label[i] == j]) if j in label else np.inf for j in range(k)]
    joint = np.zeros((k, k))
    for i in range(n):
        confident = [j for j in range(k) if probs[i, j] >= limits[j]]
        if confident:
            joint[label[i], max(confident, key=lambda j: (probs[i, j], -j))] += 1
    flagged = set()
    for a in range(k):
        members = [i for i in range(n) if label[i] == a]
        for b in set(range(k)) - {a}:
            wanted = round(joint[a, b] * len(members) / joint[a].sum()) if joint[a].sum() else 0
            ranked = sorted(members, key=lambda i: (-(probs[i, b] - probs[i, a]), i))
            flagged |= set(ranked[:wanted])
    return sorted(i for i in flagged if probs[i].argmax() != label[i])


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), k=st.integers(2, 5))
def test_equals_the_direct_transcription(seed: int, n: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    probs, label = draw.dirichlet(np.ones(k), n), draw.integers(0, k, n)
    assert issues(probs, label).tolist() == direct(probs, label)
