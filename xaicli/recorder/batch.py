"""A batch as `log_samples` is given it, checked and complete: the columns to store and their plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from xaicli import vocabulary as words
from xaicli.recorder import columns
from xaicli.recorder.catalogue import Catalogue
from xaicli.recorder.columns import Column
from xaicli.recorder.derived import derive
from xaicli.recorder.segment import Plan

_IN_FILE = {"float32": "float", "float64": "double"}
_NO_METRICS = frozenset(words.RESERVED_COLUMNS) - {words.CORRECT}


class Batch(NamedTuple):
    """Columns of one length, in the order `plan` was made with."""

    plan: Plan
    rows: int
    values: list[Column]


class Batches:
    """Makes batches; remembers the plans of those seen."""

    def __init__(self, catalogue: Catalogue, *, label_names: tuple[str, ...] | None, float64: Collection[str]) -> None:
        self._catalogue = catalogue
        self._names = label_names
        self._float64 = frozenset(float64)
        self._plans: dict[tuple[tuple[str, str], ...], Plan] = {}

    def make(
        self,
        sample_id: Any,
        label: Any,
        prediction: Any,
        logits: Any,
        probs: Any,
        metrics: Mapping[str, Any],
        *,
        keep_probs: bool,
    ) -> Batch:
        """Check and complete a batch.

        Raises:
            ValueError: It cannot be stored; the column is named.
            OSError: A new column cannot be added to `xai.json`.
        """
        ids = columns.ids(sample_id)
        rows = len(ids)
        names: list[tuple[str, str]] = [(words.SAMPLE_ID, _kind(ids, "int64"))]
        values: list[Column] = [ids]
        y = None if label is None else columns.labels(label, words.LABEL)
        answer = None if prediction is None else columns.labels(prediction, words.PREDICTION)
        derived: Mapping[str, Any] = {}
        kept = None
        if logits is not None or probs is not None:
            scores = columns.to_array(probs if logits is None else logits, "logits" if probs is None else "probs")
            indices = self._indices(y)
            found, derived, p = derive(
                scores, indices, are_logits=logits is not None, with_loss=words.LOSS not in metrics
            )
            answer = self._named(found, y) if answer is None else answer
            kept = p if keep_probs else None
        if y is not None:
            names.append((words.LABEL, _kind(y, "int32")))
            values.append(y)
        if answer is not None:
            names.append((words.PREDICTION, _kind(answer, "int32")))
            values.append(answer)
        for name, value in ({**derived, **metrics} if derived else metrics).items():
            if name in _NO_METRICS:
                raise ValueError(f"{name} is a column of its own and no metric")
            if name == words.CORRECT:
                names.append((name, "bool"))
            else:
                names.append((name, "float64" if name in self._float64 else "float32"))
            values.append(columns.metric(value, name))
        if kept is not None:
            names.append((words.PROBS, f"float16[{kept.shape[1]}]"))
            values.append(_halves(kept))
        for (name, _), column in zip(names, values, strict=True):
            if len(column) != rows:
                raise ValueError(f"{name} has {len(column)} values for {rows} sample ids")
        key = tuple(names)
        plan = self._plans.get(key) or self._learn(key)
        return Batch(plan, rows, values)

    def _learn(self, key: tuple[tuple[str, str], ...]) -> Plan:
        self._catalogue.learn({name: _in_file(dtype) for name, dtype in key})
        plan = self._plans[key] = Plan(key)
        return plan

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


def _kind(column: Column, number: str) -> str:
    return "string" if isinstance(column, list) else number


def _in_file(dtype: str) -> str:
    return "list<halffloat>" if dtype.startswith("float16[") else _IN_FILE.get(dtype, dtype)


def _halves(p: Any) -> Any:
    """(N, K) probabilities as (N,) items of K halves."""
    halves = np.ascontiguousarray(p, np.float16)
    return halves.view(np.dtype((np.void, 2 * halves.shape[1]))).reshape(-1)
