"""What logits or probabilities add to a batch's columns."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from xaicli import vocabulary as words
from xaicli.recorder import columns
from xaicli.recorder.columns import Column
from xaicli.wal.derived import derive, two_dimensional
from xaicli.wal.frames import SCORES

MOST_DEFERRED = 32
"""Scores of so few classes take less room in a segment than what follows from them takes time."""

Columns = dict[str, tuple[str, Column]]
"""{column: (its dtype in a segment, its values)}."""


class ScoreColumns:
    """Completes batches that have scores."""

    def __init__(self, *, label_names: tuple[str, ...] | None, float64: Collection[str]) -> None:
        """
        Args:
            label_names: The classes' names, in the order of the scores.
            float64: Metrics kept in double precision.
        """
        self._names = label_names
        self._float64 = frozenset(float64)

    def add(self, found: Columns, scores: Any, kind: str, rows: int) -> None:
        """Add scores of few classes as they are, to be derived from later; of many, what follows from them.

        Args:
            found: The batch's columns so far; those given stand.
            scores: (rows, K), or (rows,) of the second of two classes.
            kind: One of `SCORES`.
            rows: Rows of the batch.

        Raises:
            ValueError: They do not fit the batch, or texts are labels and their order is unknown.
        """
        are_logits, keep = SCORES[kind]
        name = "logits" if are_logits else "probs"
        values = columns.to_array(scores, name)
        values = two_dimensional(values[:, None] if values.ndim == 1 and rows > 1 else values, name)
        if values.shape[1] == 1:
            # One score a sample is that of the second of two classes.
            values = np.concatenate([np.zeros_like(values) if are_logits else 1 - values, values], axis=1)
        n, classes = values.shape
        if n != rows:
            raise ValueError(f"{name} has {n} rows for {rows} sample ids")
        label = found[words.LABEL][1] if words.LABEL in found else None
        if classes <= MOST_DEFERRED and not isinstance(label, list):
            found[kind] = f"float32[{classes}]", np.ascontiguousarray(values, np.float32)
            return
        derived = derive(values, self._indices(label), are_logits=are_logits, with_loss=words.LOSS not in found)
        if words.PREDICTION not in found:
            prediction = self._named(derived.prediction, label)
            found[words.PREDICTION] = "string" if isinstance(prediction, list) else "int32", prediction
        for metric, column in derived.metrics.items():
            dtype = "float64" if metric in self._float64 else "float32"
            found.setdefault(metric, (dtype, np.ascontiguousarray(column, dtype)))
        if keep:
            found[words.PROBS] = f"float16[{classes}]", np.ascontiguousarray(derived.probs, np.float16)

    def _indices(self, label: Column | None) -> Any:
        """(N,) class indices of labels; of texts by the run's label names, -1 where there is no such name."""
        if not isinstance(label, list):
            return label
        if self._names is None:
            raise ValueError(
                "label holds texts, so logits need label_names to know their order: Run(label_names=[...])"
            )
        place = {name: index for index, name in enumerate(self._names)}
        return np.array([place.get(text, -1) if text is not None else -1 for text in label], np.int64)

    def _named(self, prediction: Any, label: Column | None) -> Column:
        """Predictions of the label's kind."""
        if isinstance(label, list) and self._names is not None:
            return [self._names[index] if index < len(self._names) else str(index) for index in prediction.tolist()]
        return prediction  # type: ignore[no-any-return]
