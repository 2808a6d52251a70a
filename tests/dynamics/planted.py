"""A simulated training with labels flipped on purpose, recorded as format version 1 says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.written_run import WrittenRun

CLASSES = 4
NAMES = ("ant", "bee", "cat", "dog")


@dataclass(frozen=True)
class Planted:
    """A run and what is wrong in it.

    Attributes:
        root: The run directory.
        label: (n,) labels trained on, sample_id is the place.
        true_label: (n,) what they should be.
    """

    root: Path
    label: NDArray[np.int64]
    true_label: NDArray[np.int64]

    @property
    def wrong(self) -> set[int]:
        return set(np.flatnonzero(self.label != self.true_label).tolist())


def plant(root: Path, *, n: int = 300, epochs: int = 12, memorise: bool = False, text_labels: bool = False) -> Planted:
    """Record a net that learns the true classes and, if it memorises, the wrong labels from the middle on."""
    draw = np.random.default_rng(1)
    true_label = draw.integers(0, CLASSES, n)
    label = true_label.copy()
    flipped = draw.choice(n, n // 10, replace=False)
    label[flipped] = (label[flipped] + draw.integers(1, CLASSES, len(flipped))) % CLASSES
    strength = draw.uniform(0.3, 1.2, n)
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        logits = draw.normal(0, 0.7, (n, CLASSES))
        by_heart = max(0.0, 2 * epoch / epochs - 1) if memorise else 0.0
        logits[np.arange(n), true_label] += strength * epoch / 2 * (1 - by_heart)
        logits[np.arange(n), label] += 8 * by_heart
        rows += _rows(epoch, logits, label, text_labels=text_labels)
    WrittenRun(root, label_names=NAMES).write(rows)
    return Planted(root, label, true_label)


def _rows(
    epoch: int, logits: NDArray[np.float64], label: NDArray[np.int64], *, text_labels: bool
) -> list[dict[str, Any]]:
    n = len(label)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    others = logits.copy()
    others[np.arange(n), label] = -np.inf
    own = probs[np.arange(n), label]
    prediction = logits.argmax(axis=1)
    columns = {
        "loss": -np.log(own),
        "label_prob": own,
        "margin": logits[np.arange(n), label] - others.max(axis=1),
        "el2n": np.sqrt(((probs - np.eye(CLASSES)[label]) ** 2).sum(axis=1)),
    }
    spelt = (lambda number: NAMES[number]) if text_labels else int
    return [
        {
            "mode": "train",
            "epoch": epoch,
            "sample_id": key,
            "label": spelt(label[key]),
            "prediction": spelt(prediction[key]),
            "correct": bool(prediction[key] == label[key]),
            "probs": [float(value) for value in probs[key]],
            **{name: float(values[key]) for name, values in columns.items()},
        }
        for key in range(n)
    ]
