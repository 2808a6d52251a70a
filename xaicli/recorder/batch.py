"""A batch as `log_samples` is given it, checked and complete: the columns to store and their plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.recorder import columns
from xaicli.recorder.catalogue import Catalogue
from xaicli.recorder.columns import Column
from xaicli.recorder.segment import Plan
from xaicli.recorder.transfer import is_remote
from xaicli.wal.derived import derive, two_dimensional
from xaicli.wal.frames import SCORES, storage

_IN_FILE = {"float32": "float", "float64": "double"}
_KEPT = 64
_DEFERRED_CLASSES = 32
"""Scores of so few classes take less room in a segment than what follows from them takes time."""
_LOGITS, _PROBS, _KEPT_LOGITS, _KEPT_PROBS = "raw logits", "raw probs", "kept logits", "kept probs"
_dtype_of = attrgetter("dtype")
_shape_of = attrgetter("shape")
_NO_METRICS = (frozenset(words.RESERVED_COLUMNS) | SCORES.keys()) - {words.CORRECT}


Batch = tuple[Plan, int, list[Any]]
"""A plan, the number of rows, and columns of that length in the plan's order. A plain tuple, for speed."""


class _Known(NamedTuple):
    """A kind of call seen before: arrays of these types need no further look but at their length and range."""

    plan: Plan
    dtypes: list[np.dtype[Any]]
    wide: list[int]
    """Which of the values are labels of more than 32 bits."""
    scores: int
    """Which of the values are scores of (N, K); -1 where there are none."""
    classes: int


class Batches:
    """Makes batches; remembers the plans of those seen."""

    def __init__(self, catalogue: Catalogue, *, label_names: tuple[str, ...] | None, float64: Collection[str]) -> None:
        self._catalogue = catalogue
        self._names = label_names
        self._float64 = frozenset(float64)
        self._plans: dict[tuple[tuple[str, str], ...], Plan] = {}
        self._known: dict[tuple[Any, ...], _Known] = {}
        self._narrowing: dict[tuple[int, int], tuple[NDArray[np.int32], NDArray[np.int64]]] = {}

    def make(
        self,
        sample_id: Any,
        label: Any,
        prediction: Any,
        logits: Any,
        probs: Any,
        metrics: Mapping[str, Any],
        keep_probs: bool,
    ) -> Batch | None:
        """Check and complete a batch; None where it is on a device.

        Raises:
            ValueError: It cannot be stored; the column is named.
        """
        given = [sample_id]
        if label is not None:
            given.append(label)
        if prediction is not None:
            given.append(prediction)
        scores, call = None, (label is None, prediction is None, *metrics)
        if logits is not None:
            scores, call = logits, (_KEPT_LOGITS if keep_probs else _LOGITS, *call)
        elif probs is not None:
            scores, call = probs, (_KEPT_PROBS if keep_probs else _PROBS, *call)
        given += metrics.values()
        if scores is not None:
            given.append(scores)
        known = self._known.get(call)
        if known is not None and self._fits(known, given):
            return known.plan, len(given[0]), given
        if columns.has_tensors(given):
            if any(map(is_remote, given)):
                return None
            given = [columns.tensor_to_array(value) if columns.is_tensor(value) else value for value in given]
            if known is not None and self._fits(known, given):
                return known.plan, len(given[0]), given
        if scores is not None:
            scores = given.pop()
        batch = self._checked(given, label is not None, prediction is not None, list(metrics), scores, call[0])
        self._remember(call, batch[0], given, scores)
        return batch

    def _fits(self, known: _Known, given: list[Any]) -> bool:
        """Whether values are what they were the last time; labels of 64 bits are replaced by narrow ones."""
        try:
            if list(map(_dtype_of, given)) != known.dtypes:
                return False
        except AttributeError:  # a list
            return False
        shapes = list(map(_shape_of, given))
        shape = shapes[0]
        if known.scores >= 0 and shapes.pop() != (*shape, known.classes):
            return False
        if len(shape) != 1 or shapes.count(shape) != len(shapes):
            return False
        for place in known.wide:
            memory = self._narrowing.get((shape[0], place))
            if memory is None:
                memory = self._make_memory(shape[0], place)
            narrow, back = memory
            label = given[place]
            if type(label) is not np.ndarray:
                return False
            narrow[...] = label
            back[...] = narrow
            # Compared as bytes: several times faster than as numbers.
            if back.tobytes() != label.tobytes():
                return False
            given[place] = narrow
        return True

    def _make_memory(self, rows: int, place: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        if len(self._narrowing) > _KEPT:
            self._narrowing.clear()
        made = self._narrowing[rows, place] = np.empty(rows, np.int32), np.empty(rows, np.int64)
        return made

    def _remember(self, call: tuple[Any, ...], plan: Plan, given: list[Any], scores: Any) -> None:
        """Keep a kind of call whose values can go to the segment as they are."""
        width = scores.shape[1] if isinstance(scores, np.ndarray) and scores.ndim == 2 else 0
        deferred = width > 1 and plan.columns[-1][0] in SCORES
        if scores is not None and not deferred:
            return
        if not all(type(value) is np.ndarray and value.ndim == 1 and value.dtype.kind in "fiu" for value in given):
            return
        dtypes = [value.dtype for value in given]
        first = int(scores is not None)
        n_labels = 2 - call[first] - call[first + 1]
        labels = dtypes[1 : 1 + n_labels]
        if (
            dtypes[0].kind == "f"
            or dtypes[0] == np.uint64
            or any(dtype not in (np.int32, np.int64) for dtype in labels)
        ):
            return
        wide = [1 + place for place, dtype in enumerate(labels) if dtype == np.int64]
        if len(self._known) > _KEPT:
            self._known.clear()
        if scores is not None:
            dtypes.append(scores.dtype)
        stored = [np.dtype(np.int32) if place in wide else dtype for place, dtype in enumerate(dtypes)]
        is_direct = stored == [storage(dtype)[0] for _, dtype in plan.columns]
        fast = Plan(plan.columns, is_direct=is_direct)
        self._known[call] = _Known(fast, dtypes, wide, len(dtypes) - 1 if deferred else -1, width)

    def _checked(
        self,
        given: list[Any],
        has_label: bool,
        has_prediction: bool,
        metrics: list[str],
        scores: Any,
        kind: Any,
    ) -> Batch:
        """A batch of columns that agree in length and are of the run's kinds."""
        values = iter(given)
        ids = columns.ids(next(values))
        found: dict[str, tuple[str, Column]] = {words.SAMPLE_ID: (_kind(ids, "int64"), ids)}
        for name, present in ((words.LABEL, has_label), (words.PREDICTION, has_prediction)):
            if present:
                column = columns.labels(next(values), name)
                found[name] = _kind(column, "int32"), column
        for name, value in zip(metrics, values, strict=True):
            if name in _NO_METRICS:
                raise ValueError(f"{name} is a column of its own and no metric")
            wide = "float64" if name in self._float64 else "float32"
            found[name] = "bool" if name == words.CORRECT else wide, columns.metric(value, name)
        for name, (_, column) in found.items():
            if len(column) != len(ids):
                raise ValueError(f"{name} has {len(column)} values for {len(ids)} sample ids")
        if scores is not None:
            self._add_scores(found, scores, kind, len(ids))
        key = tuple((name, dtype) for name, (dtype, _) in found.items())
        plan = self._plans.get(key) or self._learn(key)
        return plan, len(ids), [column for _, column in found.values()]

    def _add_scores(self, found: dict[str, tuple[str, Column]], scores: Any, kind: str, rows: int) -> None:
        """Add scores of few classes as they are, to be derived from later; of many, what follows from them."""
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
        if classes <= _DEFERRED_CLASSES and not isinstance(label, list):
            found[kind] = f"float32[{classes}]", values
            return
        derived = derive(values, self._indices(label), are_logits=are_logits, with_loss=words.LOSS not in found)
        if words.PREDICTION not in found:
            prediction = self._named(derived.prediction, label)
            found[words.PREDICTION] = _kind(prediction, "int32"), prediction
        for name, column in derived.metrics.items():
            found.setdefault(name, ("float64" if name in self._float64 else "float32", column))
        if keep:
            found[words.PROBS] = f"float16[{classes}]", derived.probs

    def _learn(self, key: tuple[tuple[str, str], ...]) -> Plan:
        dtypes: dict[str, str] = {}
        for name, dtype in key:
            if name in SCORES:
                derived = words.DERIVED_METRICS if words.LABEL in dtypes else (words.TOP_PROB, words.ENTROPY)
                dtypes |= {metric: dtypes.get(metric, "float") for metric in derived}
                dtypes.setdefault(words.PREDICTION, "int32")
                if SCORES[name][1]:
                    dtypes[words.PROBS] = "list<halffloat>"
            else:
                dtypes[name] = _in_file(dtype)
        self._catalogue.learn(dtypes)
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
