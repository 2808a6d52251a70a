"""A batch as `log_samples` is given it, checked and complete: the columns to store and their plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from xaicli import vocabulary as words
from xaicli.recorder import columns
from xaicli.recorder.catalogue import Catalogue
from xaicli.recorder.columns import Column
from xaicli.recorder.scores import Columns, ScoreColumns
from xaicli.recorder.segment import Plan
from xaicli.recorder.transfer import is_remote
from xaicli.wal.frames import SCORES

_IN_FILE = {"float32": "float", "float64": "double"}
_KEPT = 64
_LOGITS, _PROBS, _KEPT_LOGITS, _KEPT_PROBS = "raw logits", "raw probs", "kept logits", "kept probs"
_dtype_of = attrgetter("dtype")
_shape_of = attrgetter("shape")
_NO_METRICS = (frozenset(words.RESERVED_COLUMNS) | SCORES.keys()) - {words.CORRECT}


Batch = tuple[Plan, int, list[Any]]
"""A plan, the number of rows, and columns of that length in the plan's order. A plain tuple, for speed."""


class _Known(NamedTuple):
    """A kind of call seen before: arrays of these types need no look but at their lengths, and are stored as they are.

    What they are stored as in the end is the writer's work; a label beyond 32 bits is found only there.
    """

    plan: Plan
    dtypes: list[np.dtype[Any]]
    scores: bool
    """Whether the last of the values are scores of (N, K)."""
    classes: int
    wide: list[tuple[int, str]]
    """Which of the values are labels or predictions that may be beyond 32 bits, and must be looked at all the same."""


class Batches:
    """Makes batches; remembers the plans of those seen."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        label_names: tuple[str, ...] | None,
        float64: Collection[str],
        strict: bool = False,
    ) -> None:
        """
        Args:
            catalogue: The run's columns.
            label_names: The classes' names, in the order of the scores.
            float64: Metrics kept in double precision.
            strict: Refuse a label beyond 32 bits at once, not when the rows become a part.
        """
        self._catalogue = catalogue
        self._scores = ScoreColumns(label_names=label_names, float64=float64)
        self._float64 = frozenset(float64)
        self._strict = strict
        self._plans: dict[tuple[tuple[str, str], ...], Plan] = {}
        self._known: dict[tuple[Any, ...], _Known] = {}

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
        if known is not None and _fits(known, given):
            return known.plan, len(sample_id), given
        if columns.has_tensors(given):
            if any(map(is_remote, given)):
                return None
            given = [columns.tensor_to_array(value) if columns.is_tensor(value) else value for value in given]
            if known is not None and _fits(known, given):
                return known.plan, len(given[0]), given
        if scores is not None:
            scores = given.pop()
        batch = self._checked(given, label is not None, prediction is not None, list(metrics), scores, call[0])
        self._remember(call, batch[0], given, scores)
        return batch

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
        found: Columns = {words.SAMPLE_ID: _typed(ids, "int64")}
        for name, present in ((words.LABEL, has_label), (words.PREDICTION, has_prediction)):
            if present:
                found[name] = _typed(columns.labels(next(values), name), "int32")
        for name, value in zip(metrics, values, strict=True):
            if name in _NO_METRICS:
                raise ValueError(f"{name} is a column of its own and no metric")
            wide = "float64" if name in self._float64 else "float32"
            found[name] = _typed(columns.metric(value, name), "bool" if name == words.CORRECT else wide)
        for name, (_, column) in found.items():
            if len(column) != len(ids):
                raise ValueError(f"{name} has {len(column)} values for {len(ids)} sample ids")
        if scores is not None:
            self._scores.add(found, scores, kind, len(ids))
        key = tuple((name, dtype) for name, (dtype, _) in found.items())
        plan = self._plans.get(key) or self._learn(key)
        return plan, len(ids), [column for _, column in found.values()]

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

    def _remember(self, call: tuple[Any, ...], plan: Plan, given: list[Any], scores: Any) -> None:
        """Keep a kind of call whose values can go to a segment as they are."""
        names = [name for name, _ in plan.columns]
        values = list(given)
        if scores is not None:
            if names[-1] not in SCORES or getattr(scores, "ndim", 0) != 2 or scores.shape[1] < 2:
                return  # what follows from them is stored instead
            values.append(scores)
        if not all(_is_plain(name, value) for name, value in zip(names, values, strict=True)):
            return
        classes = 0 if scores is None else scores.shape[1]
        dtypes = [value.dtype for value in values]
        stored = [dtype.name for dtype in dtypes]
        if classes:
            stored[-1] += f"[{classes}]"
        labels = [(at, name) for at, name in enumerate(names[:3]) if name in (words.LABEL, words.PREDICTION)]
        wide = [(at, name) for at, name in labels if self._strict and dtypes[at].itemsize > 4]
        if len(self._known) > _KEPT:
            self._known.clear()
        plan = Plan(tuple(zip(names, stored, strict=True)))
        self._known[call] = _Known(plan, dtypes, scores is not None, classes, wide)


def _fits(known: _Known, given: list[Any]) -> bool:
    """Whether values are what they were the last time.

    Raises:
        ValueError: A label is beyond 32 bits.
    """
    try:
        if list(map(_dtype_of, given)) != known.dtypes:
            return False
    except AttributeError:  # a list
        return False
    shapes: list[tuple[int, ...]] = list(map(_shape_of, given))
    shape = shapes[0]
    if known.scores and shapes.pop() != (*shape, known.classes):
        return False
    for place, name in known.wide:
        columns.labels(given[place], name)
    return len(shape) == 1 and shapes.count(shape) == len(shapes)


def _is_plain(name: str, value: Any) -> bool:
    """Whether a column's bytes say all there is: an array of numbers of a type that every reader of segments knows."""
    if type(value) is not np.ndarray or not value.dtype.isnative or value.dtype.itemsize > 8:
        return False
    if name in SCORES:
        return bool(value.dtype.kind == "f")
    if value.ndim != 1:
        return False
    if name in (words.SAMPLE_ID, words.LABEL, words.PREDICTION):
        return value.dtype.kind in "iu" and value.dtype.name != "uint64"
    return value.dtype.kind in "fiub"


def _typed(column: Column, dtype: str) -> tuple[str, Column]:
    """A column with its dtype in a segment."""
    if isinstance(column, list):
        return "string", column
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return dtype, np.ascontiguousarray(column, dtype)


def _in_file(dtype: str) -> str:
    return "list<halffloat>" if dtype.startswith("float16[") else _IN_FILE.get(dtype, dtype)
