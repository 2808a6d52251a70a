"""A batch as `log_samples` is given it, checked and complete: the columns to store and their plan.

What cannot be kept is left out as narrowly as possible: a label, prediction or metric alone, a row only for want of an
id. A kind of call that was seen before, arrays of the same types, needs no look but at their lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.heads.head import Task
from xaicli.recorder import columns
from xaicli.recorder.columns import Column, Texts, is_remote
from xaicli.recorder.config import ignored_forms
from xaicli.recorder.schema import Catalogue
from xaicli.recorder.segments import Plan
from xaicli.tables.containers import is_tensor, read
from xaicli.wal import derived
from xaicli.wal.frames import MISSING, NULL_INT, SCORES, WITH_GAPS, is_missing
from xaicli.wal.rows import LEAST, beyond_single, dtypes_of, in_file

MOST_DEFERRED = 32
"""Scores of so few classes take less room in a segment than what follows from them takes time."""
NUMBER_LIKE_ANY = -100
"""The default of the ignored label, which among real numbers is one like any other."""
EXACT = 2**24
"""Whole numbers beyond this are not all float32."""
_KEPT = 64
_NOT_KEPT = "keep_probs keeps probabilities of one class of several; those of a {} task are not kept"
_LOGITS, _PROBS, _KEPT_LOGITS, _KEPT_PROBS = "raw logits", "raw probs", "kept logits", "kept probs"
_ARRAYS = {np.ndarray}
_dtype_of = attrgetter("dtype")
_shape_of = attrgetter("shape")
_NO_METRICS = (frozenset(words.RESERVED_COLUMNS) | SCORES.keys() | {"ds"}) - {words.CORRECT}
"""`ds` is what readers of the whole `data/` call the folders of a dataset."""
_BY_CLASS = (Task.CLASSIFICATION, Task.BINARY)

Batch = tuple[Plan, int, list[Any]]
"""A plan, the number of rows, and columns of that length in the plan's order. A plain tuple, for speed."""

Columns = dict[str, tuple[str, Any]]
"""{column: (its dtype in a segment, its values)}."""

Refuse = Callable[[str, str, int], None]
"""Told of a column that is left out: its name, the reason, the rows."""


class _Known(NamedTuple):
    """A kind of call seen before, whose arrays are stored as they are.

    What they are stored as in the end is the writer's work; a label beyond 32 bits is found only there.
    """

    plan: Plan
    dtypes: list[np.dtype[Any]]
    scores: bool
    """Whether the last of the values are scores of (N, K)."""
    classes: int
    has_label: bool
    """Whether the second of the values is the label."""
    watched: list[tuple[int, int]]
    """Which of the values are whole numbers that may be beyond what is kept of them, and must be looked at."""


class Usual(NamedTuple):
    """The kind of call that came last, of arrays that are stored as they are, whatever their values.

    Attributes:
        call: Whether there was no label, whether there was no prediction, and the metrics' names.
        dtypes: Of the arrays, (rows,) each, in the order of the plan.
        plan: What they are stored by.
    """

    call: tuple[Any, ...]
    dtypes: list[np.dtype[Any]]
    plan: Plan


class Batches:
    """Makes batches; remembers the plans of those seen.

    Attributes:
        usual: The kind of call that came last; None where one like it need be looked at.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        label_names: tuple[str, ...] | None,
        float64: Collection[str],
        refuse: Refuse,
        drop: Callable[[int, str], None],
        strict: bool = False,
        task: Task | None = None,
        ignore_label: int | str | None = None,
        note: Callable[[str], None] = lambda _: None,
        alter: Refuse = lambda *_: None,
        ignore: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            catalogue: The run's columns.
            label_names: The classes' names, in the order of the scores.
            float64: Metrics kept in double precision.
            refuse: Told of a column that is left out; raises where nothing may be.
            drop: Told of rows that are dropped, and why; likewise.
            strict: Look for a label beyond 32 bits at once, not when the rows become a part.
            task: What an output means; taken from the first batch when None.
            ignore_label: The label that stands for none.
            note: Told once of how something is taken that may be meant otherwise.
            alter: Told of values that are kept otherwise than given: the column, the reason, how many.
            ignore: Told of labels that stand for none.
        """
        self._catalogue = catalogue
        self._names = label_names
        self._float64 = set(float64)
        self._asked_wide = set(float64)
        self._names_seen: set[str] = set()
        self.refuse = refuse
        self._drop = drop
        self._strict = strict
        self.task = task
        self.ignored, self._ignored_text = ignored_forms(ignore_label, label_names)
        self._note = note
        self._alter = alter
        self._ignore = ignore
        self._plans: dict[tuple[tuple[str, str], ...], Plan] = {}
        self._known: dict[tuple[Any, ...], _Known] = {}
        self.usual: Usual | None = None
        self._are_rows: dict[str, bool] = {}
        self._has_told_of_probs = False

    def make(
        self,
        sample_id: Any,
        label: Any,
        prediction: Any,
        logits: Any,
        probs: Any,
        metrics: Mapping[str, Any],
        keep_probs: bool,
        keep_tokens: bool = False,
    ) -> Batch | None:
        """Check and complete a batch; None where it is on a device.

        Raises:
            ValueError: No row of it can be stored.
        """
        given = [sample_id]
        if label is not None:
            given.append(label)
        if prediction is not None:
            given.append(prediction)
        scores, call = None, (label is None, prediction is None, *metrics)
        if logits is not None:
            scores, call = logits, (_KEPT_LOGITS if keep_probs else _LOGITS, *call)
            if probs is not None:
                self._note("probs beside logits are not looked at: what follows is derived from the logits")
        elif probs is not None:
            scores, call = probs, (_KEPT_PROBS if keep_probs else _PROBS, *call)
        given += metrics.values()
        if scores is not None:
            given.append(scores)
        known = self._known.get(call)
        if known is not None and _fits(known, given, self.ignored):
            self.usual = None if known.scores or known.watched else Usual(call, known.dtypes, known.plan)
            return known.plan, len(sample_id), given
        if any(map(is_list_on_device, given)) or any(map(is_remote, given)):
            return None
        self._note_waiting(given)
        given = [read(value) for value in given]
        if known is not None and _fits(known, given, self.ignored):
            return known.plan, len(given[0]), given
        named = dict(zip(_names(label, prediction, metrics, scores), given, strict=True))
        call_scores = str(call[0]) if scores is not None else ""
        batch = self._checked(named, call_scores, keep_tokens)
        if keep_probs and scores is None and self.task in (Task.MULTILABEL, Task.REGRESSION, Task.SEQUENCE):
            self._note(_NOT_KEPT.format(self.task))
        if batch[1]:
            self._remember(call, batch, given, scores is not None)
        return batch

    def _note_waiting(self, given: list[Any]) -> None:
        """Say it where a step waits for its tensors."""
        for value in given:
            if is_tensor(value) and not value.is_cpu and value.device.type != "meta":
                self._note(
                    f"tensors on {value.device.type} are copied at once, and the step waits for that: only CUDA's are "
                    "copied beside the training"
                )

    # -- the slow way, once a kind of call

    def _checked(self, given: dict[str, Any], kind: str, keep_tokens: bool) -> Batch:
        """A batch of columns that agree in length and are of the run's kinds.

        Args:
            given: {column: value}, scores under "scores".
            kind: What the scores are, one of `SCORES`, or "".
            keep_tokens: Whether the losses of a sequence's tokens are kept.

        Raises:
            ValueError: No id is usable.
        """
        named = given.pop(words.SAMPLE_ID)
        ids, usable, unusable = columns.ids(named, self._catalogue.dtype(words.SAMPLE_ID))
        if _is_real(named):
            self._note("sample_id comes as real numbers, as of a table with gaps: the whole ones are taken as ids")
        given = {name: value for name, value in given.items() if value is not None}
        n = len(ids)
        if not n:
            return Plan(()), 0, []
        scores = given.pop("scores", None)
        label, prediction = given.pop(words.LABEL, None), given.pop(words.PREDICTION, None)
        self._catalogue.check(words.SAMPLE_ID, "string" if isinstance(ids, list) else "int64")
        found: Columns = {words.SAMPLE_ID: _typed(ids, "int64")}
        if scores is not None:
            name = "logits" if SCORES[kind][0] else "probs"
            scores = self._left_out(name, n, self._scores, scores, n, name)
        label = self._nested(words.LABEL, label, scores, n)
        prediction = self._nested(words.PREDICTION, prediction, scores, n)
        task = self._task_of(label, prediction, scores, are_logits=not kind or SCORES[kind][0])
        if scores is not None and task in _BY_CLASS and scores.ndim == 3:
            self.refuse(name, f"{name} has shape {scores.shape}; (samples, classes) is needed", n)
            scores = None
        if scores is not None:
            self._look_at_scores(scores, kind, task, given)
        if keep_tokens and self.task not in (None, Task.SEQUENCE):
            self._note(f"keep_tokens keeps the losses of a sequence's tokens: of a {task} task there are none")
        checked = {name: self._metric(name, value, n) for name, value in given.items()}
        metrics = {name: column for name, column in checked.items() if column is not None}
        if task in _BY_CLASS:
            self._by_class(found, label, prediction, scores, kind, n, has_loss=words.LOSS in metrics)
            if words.CORRECT not in metrics:
                self._tell_apart(found)
        else:
            self._by_task(task, found, label, prediction, scores, kind, n, keep_tokens)
        # What the caller gave stands; scores to be derived from later stay last, where a known kind of call has them.
        deferred = {name: found.pop(name) for name in SCORES if name in found}
        found |= metrics
        found |= deferred
        if usable is not None:
            found = {name: (dtype, _taken(values, usable)) for name, (dtype, values) in found.items()}
            for reason, rows in unusable.items():
                self._drop(rows, reason)
            n = int(usable.sum())
        for name in (words.LABEL, words.PREDICTION):
            if name in found and not self._left_out(name, n, self._fits_kind, name, in_file(found[name][0])):
                del found[name]
        key = tuple((name, dtype) for name, (dtype, _) in found.items())
        plan = self._plans.get(key) or self._learn(key)
        return plan, n, [column for _, column in found.values()]

    def _scores(self, value: Any, n: int, name: str) -> NDArray[Any] | None:
        """Scores, missing where a sample has none; None where no sample has."""
        found = columns.scores(value, n, name)
        if found is None:
            return None
        self._refuse_each(name, found[1])
        return found[0]

    def tell_of_names_without_metrics(self) -> None:
        """Say of names among `float64` that no metric had: they may be misspelled."""
        if self._asked_wide and self._names_seen:
            names, had = (", ".join(sorted(some)) for some in (self._asked_wide, self._names_seen))
            self._note(f"float64 names {names}, and no such metric came; there were: {had}")

    def _tell_single(self, given: Collection[str]) -> None:
        """Say once of a metric that is asked for in double precision and follows from scores in single."""
        self._asked_wide -= set(words.DERIVED_METRICS)
        for name in self._float64 & set(words.DERIVED_METRICS) - set(given):
            self._note(f"float64 names {name}, which follows from logits in single precision: give {name}= yourself")

    def _look_at_scores(self, scores: NDArray[Any], kind: str, task: Task, given: Collection[str]) -> None:
        """Say once of scores from which something else follows than may be meant."""
        if task is Task.CLASSIFICATION and not SCORES[kind][0] and scores.shape[1] > 1:
            self._look_at_probs(scores)
        self._tell_single(given)

    def _look_at_probs(self, probs: NDArray[Any]) -> None:
        """Say once of what are no probabilities of one class each: what follows from them is kept as it comes out."""
        if self._has_told_of_probs:
            return
        known = probs[np.isfinite(probs).all(1)]
        if len(known) and ((known < 0).any() or not columns.sums_to_one(known)):
            self._has_told_of_probs = True
            self._note(
                "probs has rows that are negative or do not sum to one: loss, label_prob and what else follows from "
                "them mean little. Scores before a softmax are logits=; several classes at once are "
                'Run(task="multilabel")'
            )

    def _left_out(self, name: str, n: int, check: Callable[..., Any], *arguments: Any) -> Any:
        """What a check gives; None, told of, where it refuses."""
        try:
            return check(*arguments)
        except ValueError as error:
            self.refuse(name, str(error), n)
            return None

    def _metric(self, name: str, value: Any, n: int) -> tuple[str, Any] | None:
        def checked() -> tuple[str, Any]:
            if shown != name:
                raise ValueError(f"a metric's name has no form in UTF-8: {shown}")
            if name in _NO_METRICS:
                raise ValueError(f"{name} is a column of its own and no metric")
            array = columns.of_length(self._numbers(name, value), n, name)
            if name == words.CORRECT:
                return self._correct(array)
            self._widen(name, array)
            self._tell_rounded(name, value)
            return _typed(array, "float64" if name in self._float64 else "float32")

        shown = name.encode("utf-8", "backslashreplace").decode()
        self._asked_wide.discard(name)
        self._names_seen.add(shown)
        return self._left_out(shown, n, checked)  # type: ignore[no-any-return]

    def _numbers(self, name: str, value: Any) -> NDArray[Any]:
        """(N,) numbers; of a list that holds others those are left out alone."""
        try:
            return columns.metric(value, name)
        except ValueError:
            found = None if self._strict else columns.metric_alone(value, name)
            if found is None:
                raise
        self._refuse_each(name, found[1])
        return found[0]

    def _refuse_each(self, name: str, reasons: Mapping[str, int]) -> None:
        for reason, rows in reasons.items():
            self.refuse(name, reason, rows)

    def _correct(self, array: NDArray[Any]) -> tuple[str, Any]:
        """Truth values; NaN is neither, and so is, told of, what is no 0 or 1."""
        if array.dtype.kind == "b":
            return _typed(array, "bool")
        array = array.astype(np.float32)
        odd = ~np.isnan(array) & (array != 0) & (array != 1)
        if odd.any():
            self.refuse(words.CORRECT, "correct must be 0 or 1", int(odd.sum()))
        return "float32", np.where(odd, np.float32(np.nan), array)

    def _widen(self, name: str, array: NDArray[Any]) -> None:
        """Keep a metric that single precision does not hold in double precision from now on."""
        if not len(array):
            return
        if array.dtype.kind in "iu":
            largest = max(int(array.max()), -int(array.min()))
            if largest > EXACT:
                self._keep_wide(name, f"{name} has whole numbers beyond 2^24")
        elif why := beyond_single(array):
            self._keep_wide(name, f"{name} has {why}")

    def _tell_rounded(self, name: str, value: Any) -> None:
        """Count the whole numbers that double precision does not hold."""
        if rounded := columns.rounded(value):
            self._alter(name, f"{name} has whole numbers beyond 2^53: they are rounded to double precision", rounded)

    def _keep_wide(self, name: str, why: str) -> None:
        if name not in self._float64:
            self._float64.add(name)
            self._catalogue.widen(name)
            self._known.clear()
            self.usual = None
            self._note(f"{why}: it is kept in double precision")

    def _task_of(self, label: Any, prediction: Any, scores: NDArray[Any] | None, *, are_logits: bool) -> Task:
        """What the run's outputs mean, settled by the first batch that tells; where that leaves it open, it is said."""
        if self.task is None:
            told = columns.task_of(label, prediction, scores, are_logits=are_logits)
            if told is None:
                return Task.CLASSIFICATION
            self.task = self._catalogue.settle_task(told)
            if self.task is told and (doubt := _doubt(told, label, prediction, scores)):
                self._note(doubt)
        return self.task

    def _nested(self, name: str, value: Any, scores: NDArray[Any] | None, n: int) -> Any:
        """What a sample has several of as rows of (N, K), or as its classes; None, told of, where neither is known.

        The run's task says it, that they are an array, or what such lists were before: never the odd one of a batch.
        """
        is_array = isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] > 1
        if self.task in (Task.SEQUENCE, Task.REGRESSION) or (scores is not None and scores.ndim != 2):
            return value
        if not is_array and not columns.is_listed(value):
            return value
        least = 1 if self.task is Task.MULTILABEL else 2  # one score of any other task is a single number
        classes = scores.shape[1] if scores is not None and scores.shape[1] >= least else None
        if self.task in _BY_CLASS or is_array:
            self._are_rows.setdefault(f"{name} of arrays", True)
            return self._left_out(name, n, self._rows, value, n, name, None if is_array else classes)
        is_known = self._are_rows.get(name)
        if is_known is None and columns.are_empty(value):
            return _as_sets(value)
        if is_known is None:
            try:
                is_known = columns.are_rows(value, name, classes or (len(self._names or ()) or None), self.ignored)
            except ValueError as error:
                self.refuse(name, str(error), n)
                return None
            if is_known is not None:
                self._are_rows[name] = is_known
            elif self.task is None and scores is not None:  # which `_doubt` tells
                is_known = True
            elif not (is_known := self._are_rows.get(f"{name} of arrays")):
                self.refuse(name, columns.ambiguous(name), n)
                return None
        return self._left_out(name, n, self._rows, value, n, name, classes) if is_known else _as_sets(value)

    def _rows(self, value: Any, n: int, name: str, classes: int | None) -> Any:
        """(n, K) numbers, missing throughout where a sample has none; single values of (n, 1) as a list."""
        is_array = isinstance(value, np.ndarray)
        if not is_array and any(isinstance(one, set | frozenset) or columns.holds_texts(one) for one in value):
            return value  # told of where they are checked
        found = columns.rows(value, n, name, None if classes is None else (classes,))
        if found is None:
            return [None] * n
        self._refuse_each(name, found.reasons)
        if not is_array and classes != 1 and (found.values.ndim == 1 or found.values.shape[1:] == (1,)):
            return [one.item() if known else None for one, known in zip(found.values, found.known, strict=True)]
        return found.gaps()

    def settle(self, task: Task) -> None:
        """Settle what the run's outputs mean, where that is not settled."""
        if self.task is None:
            self.task = self._catalogue.settle_task(task)

    # -- one task each

    def _by_task(
        self,
        task: Task,
        found: Columns,
        label: Any,
        prediction: Any,
        scores: Any,
        kind: str,
        n: int,
        keep_tokens: bool,
    ) -> None:
        named = "logits" if not kind or SCORES[kind][0] else "probs"
        if scores is not None and scores.ndim != (3 if task is Task.SEQUENCE else 2):
            self.refuse(named, f"{named} of a {task} task cannot have shape {scores.shape}", n)
            scores = None
        if scores is not None and kind in (_KEPT_LOGITS, _KEPT_PROBS):
            self._note(_NOT_KEPT.format(task))
        label, prediction = (
            None if columns.all_missing(value) and len(value) == n else value for value in (label, prediction)
        )
        if task is Task.MULTILABEL:
            if scores is not None and prediction is not None and label is None:
                self._note(f"{named} beside prediction are not looked at where there is no label: nothing follows")
            self._multilabel(found, label, prediction, scores, kind, n)
        elif task is Task.REGRESSION:
            if scores is not None and scores.shape[1] != 1:
                reason = f"{named} of a regression are its predictions, one a sample: they have shape {scores.shape}"
                self.refuse(named, reason, n)
            elif scores is not None and prediction is not None:
                self._note(f"{named} beside prediction are not looked at: of a regression they are the predictions")
            elif scores is not None:
                prediction = scores[:, 0]
            self._regression(found, label, prediction, n)
        else:
            if prediction is not None:
                reason = "prediction of a sequence is not kept: what follows from logits or probs and label is"
                self.refuse(words.PREDICTION, reason, n)
            if scores is None and label is not None:
                self.refuse(
                    words.LABEL, "label of a sequence is kept as what follows from logits or probs beside it", n
                )
            elif scores is not None and label is None:
                self.refuse(named, f"{named} of a sequence tell nothing without the label of every token", n)
            elif scores is not None:
                self._sequence(found, label, scores, kind, n, keep_tokens)

    def _by_class(
        self, found: Columns, label: Any, prediction: Any, scores: Any, kind: str, n: int, *, has_loss: bool
    ) -> None:
        if scores is not None and scores.shape[1] == 1:  # one score a sample is that of the second of two classes
            label, reasons = _both(label, n)
            self._refuse_each(words.LABEL, reasons)
            other = np.zeros_like(scores) if SCORES[kind][0] else 1 - scores
            other = other if (gone := is_missing(scores)) is None else np.where(gone, scores, other)
            scores = np.concatenate([other, scores], axis=1)
        soft = None
        if label is not None:
            if columns.is_soft(label):
                soft = self._left_out(words.LABEL, n, self._soft, label, scores, n)
                label = None if soft is None else np.where(np.isnan(soft[:, 0]), np.nan, soft.argmax(1))
            if label is not None:
                like = self._catalogue.dtype(words.PREDICTION)
                label = self._left_out(words.LABEL, n, self._class_column, words.LABEL, label, n, like)
            if label is not None and scores is not None:
                label = self.known_to(scores.shape[1], label, with_gaps=True)
        if prediction is not None:
            like = self._catalogue.dtype(words.LABEL) if label is None else _kind_of(label)
            prediction = self._left_out(words.PREDICTION, n, self._class_column, words.PREDICTION, prediction, n, like)
        for name, column in ((words.LABEL, label), (words.PREDICTION, prediction)):
            if column is not None:
                with_gaps = not isinstance(column, list) and bool((column == columns.NULL_LABEL).any())
                found[name] = _typed(column, WITH_GAPS if with_gaps else "int32")
        if scores is None:
            return
        self._add_scores(found, label, soft, scores, kind, has_loss=has_loss)

    def _soft(self, label: Any, scores: Any, n: int) -> NDArray[np.float32]:
        """(n, K) probabilities, NaN in the rows that are none."""
        soft, sound = columns.soft_labels(label, n)
        if scores is not None and soft.shape[1] != scores.shape[1]:
            raise ValueError(f"label has {soft.shape[1]} columns for scores of {scores.shape[1]} classes")
        if not sound.all():
            self.refuse(words.LABEL, columns.NO_PROBABILITIES, int((~sound).sum()))
        return soft

    def _named(self, label: Texts) -> Texts:
        """The labels without those that are none of the run's names, told of."""
        if self._names is None:
            return label
        odd = [text is not None and text not in self._names for text in label]
        if not any(odd):
            return label
        reason = f"label {label[odd.index(True)]!r} is none of label_names: it is neither right nor wrong"
        self.refuse(words.LABEL, reason, sum(odd))
        return [None if is_odd else text for text, is_odd in zip(label, odd, strict=True)]

    def known_to(self, classes: int, label: Column, *, with_gaps: bool = False) -> Column:
        """The labels without those that are no class of so many scores: neither right nor wrong, and told of."""
        if isinstance(label, list):
            return self._named(label)
        strange = columns.outside(label, classes, self.ignored, with_gaps=with_gaps)
        if not strange.any():
            return label
        first = int(label[strange][0])
        reason = f"label {first} is no class of the {classes} of the scores: it is neither right nor wrong"
        self.refuse(words.LABEL, reason, int(strange.sum()))
        wide = label.astype(np.int64) if label.dtype.kind == "u" else label
        return np.where(strange, wide.dtype.type(columns.NULL_LABEL), wide)

    def _class_column(self, name: str, value: Any, n: int, like: str | None) -> Column | None:
        """(n,) labels or predictions of the run's kind; None where none has a value.

        Args:
            name: `label` or `prediction`.
            value: What the caller gave.
            n: How many samples there are.
            like: The kind of what they are held against, which they become by `label_names` where theirs is not known.
        """
        column = self._without_ignored(name, self._classes(name, value))
        columns.of_length(column, n, name)
        if name == words.LABEL and (least := columns.n_least(value)):
            self.refuse(name, f"{name} {LEAST}", least)
        wanted = self._catalogue.dtype(name) or like
        if self._names is not None and wanted in ("string", "int32") and wanted != _kind_of(column):
            column = self._without_ignored(name, self._by_names(name, column, self._names))
        if isinstance(column, list):
            if all(text is None for text in column):
                return None
            self._catalogue.check(name, "string")
            return column
        if self._catalogue.dtype(name) == "string" and bool((column == columns.NULL_LABEL).all()):
            return None
        self._catalogue.check(name, "int32")
        beyond = column != column.astype(np.int32)
        if beyond.any():
            reason = f"{name} has a value beyond 32 bits: {columns.given_at(int(beyond.argmax()), value, name, column)}"
            if self._strict:
                raise ValueError(reason)
            self.refuse(name, reason, int(beyond.sum()))
            column = np.where(beyond, columns.NULL_LABEL, column)
        return column

    def _without_ignored(self, name: str, column: Column) -> Column:
        """Labels with those that stand for none missing, and counted."""
        if name != words.LABEL:
            return column
        label: int | str | None = self._ignored_text if isinstance(column, list) else self.ignored
        if label is None:
            self._tell_of_other_kind(column)
            return column
        column, ignored = columns.without_ignored(column, label)
        if ignored:
            self._ignore(ignored)
        return column

    def _tell_of_other_kind(self, column: Column) -> None:
        """Say once that labels are of another kind than the one that stands for none."""
        given: int | str | None = self.ignored if self._ignored_text is None else self._ignored_text
        if given in (None, NUMBER_LIKE_ANY):
            return
        are = "texts" if isinstance(column, list) else "whole numbers"
        self._note(
            f"ignore_label={given!r} is none of the labels, which are {are}, nor of label_names: it ignores none"
        )

    def _by_names(self, name: str, column: Column, names: tuple[str, ...]) -> Column:
        """Classes by their numbers as names, by their names as numbers; those that are neither missing, and told of."""
        if isinstance(column, list):
            place = {text: at for at, text in enumerate(names)}
            numbers = [None if text is None else place.get(text) for text in column]
            odd = [text for text, at in zip(column, numbers, strict=True) if text is not None and at is None]
            found: Column = np.array([columns.NULL_LABEL if at is None else at for at in numbers], np.int64)
            reason = "none of label_names, and the run has their numbers"
        else:
            given = [None if at == columns.NULL_LABEL else at for at in column.tolist()]
            found = [names[at] if at is not None and 0 <= at < len(names) else None for at in given]
            odd = [at for at, text in zip(given, found, strict=True) if at is not None and text is None]
            reason = f"no number of the {len(names)} label_names, and the run has the names"
        if odd:
            self.refuse(name, f"{name} {odd[0]!r} is {reason}", len(odd))
        return found

    def _tell_apart(self, found: Columns) -> None:
        """Say once of labels and predictions that cannot be held against one another."""
        kinds = [found[name][0] for name in (words.LABEL, words.PREDICTION) if name in found]
        if len(set(kinds)) == 2 and "string" in kinds:
            texts, numbers = (words.LABEL, words.PREDICTION)[:: 1 if kinds[0] == "string" else -1]
            self._note(
                f"{texts} holds texts and {numbers} whole numbers, so correct cannot be derived: log both alike, or "
                "say which number is which text with Run(label_names=[...])"
            )

    def _classes(self, name: str, value: Any) -> Column:
        """Labels or predictions; of a list that mixes kinds, those of the run's kind, or of its first."""
        try:
            return columns.labels(value, name)
        except ValueError:
            dtype = self._catalogue.dtype(name)
            found = None if self._strict else columns.labels_alone(value, name, dtype)
            if found is None:
                raise
        self._refuse_each(name, found[1])
        return found[0]

    def _add_scores(
        self, found: Columns, label: Column | None, soft: Any, scores: NDArray[Any], kind: str, *, has_loss: bool
    ) -> None:
        """Scores of few classes as they are, to be derived from later; of many, what follows from them."""
        are_logits, keep = SCORES[kind]
        classes = scores.shape[1]
        as_text = isinstance(label, list) or self._catalogue.dtype(words.LABEL) == "string"
        if classes <= MOST_DEFERRED and not as_text and soft is None:
            found[kind] = f"float32[{classes}]", np.ascontiguousarray(scores, np.float32)
            return
        index = self._indices(label, len(scores))
        made = derived.derive(scores, index, are_logits=are_logits, with_loss=not has_loss)
        if soft is not None:
            made = derived.soften(made, scores, soft, are_logits=are_logits, with_loss=not has_loss)
        if words.PREDICTION not in found:
            if not as_text:
                found[words.PREDICTION] = "int32", made.prediction
            elif self._names is not None:
                # A row that says nothing predicts nothing, whatever the others of its batch say.
                named = [None if i == NULL_INT else _name_of(i, self._names) for i in made.prediction.tolist()]
                found[words.PREDICTION] = "string", named
        self._add_metrics(found, made.metrics)
        if keep:
            found[words.PROBS] = f"float16[{classes}]", derived.as_half(made.probs)

    def _indices(self, label: Column | None, n: int) -> Any:
        """(N,) class indices of labels; of texts by the run's label names, -1 where there is no such name."""
        if not isinstance(label, list):
            return label
        if self._names is None:
            reason = "label holds texts, so logits need label_names to know their order: Run(label_names=[...])"
            self.refuse("logits", reason, n)
            return None
        place = {name: index for index, name in enumerate(self._names)}
        return np.array([place.get(text, -1) if text is not None else -1 for text in label], np.int64)

    def _multilabel(self, found: Columns, label: Any, prediction: Any, scores: Any, kind: str, n: int) -> None:
        classes = None if scores is None else scores.shape[1]
        sets = {}
        for name, value in ((words.LABEL, label), (words.PREDICTION, prediction)):
            if value is not None:
                checked = self._left_out(name, n, self._sets, value, n, name, classes)
                if checked is not None and self._left_out(name, n, self._fits_kind, name, "list<int32>"):
                    sets[name] = checked
        if scores is not None:
            made = derived.multilabel(scores, sets.get(words.LABEL), classes or 0, are_logits=SCORES[kind][0])
            sets.setdefault(words.PREDICTION, made.prediction)
            self._add_metrics(found, made.metrics)
        for name, several in sets.items():
            found[name] = "list<int32>", [None if one is None else one.tobytes() for one in several]
        if len(sets) == 2:
            metrics, correct = derived.compare_sets(sets[words.LABEL], sets[words.PREDICTION])
            found[words.CORRECT] = "float32", correct
            self._add_metrics(found, metrics)

    def _sets(self, value: Any, n: int, name: str, classes: int | None) -> list[NDArray[np.int32] | None]:
        """The classes of each sample; those that are none left out alone."""
        found = columns.label_sets(value, n, name, self.ignored, classes, self._names)
        self._refuse_each(name, found.reasons)
        if found.ignored:
            self._ignore(found.ignored)
        return found.classes

    def _reals(self, value: Any, n: int, name: str) -> NDArray[np.float64]:
        """(n,) numbers of a regression; what is none is left out alone."""
        numbers = columns.of_length(self._numbers(name, value), n, name)
        self._tell_rounded(name, value)
        held: NDArray[np.float64] = numbers.astype(np.float64)
        if name == words.LABEL and not (held == held).all():  # as of whole ones, NaN is a missing one
            held = np.where(np.isnan(held), float(MISSING), held)
        return held

    def _regression(self, found: Columns, label: Any, prediction: Any, n: int) -> None:
        held = {}
        for name, value in ((words.LABEL, label), (words.PREDICTION, prediction)):
            if value is not None:
                column = self._left_out(name, n, self._reals, value, n, name)
                if column is not None and name == words.LABEL and self.ignored not in (None, NUMBER_LIKE_ANY):
                    if ignored := int((column == self.ignored).sum()):
                        self._ignore(ignored)
                    column = np.where(column == self.ignored, float(MISSING), column)
                if column is not None and self._left_out(name, n, self._fits_kind, name, "double"):
                    held[name] = column
                    found[name] = "float64", column
        if len(held) == 2:
            self._add_metrics(found, derived.regression(held[words.LABEL], held[words.PREDICTION]))

    def _sequence(self, found: Columns, label: Any, scores: Any, kind: str, n: int, keep_tokens: bool) -> None:
        found_tokens = self._left_out(words.LABEL, n, columns.tokens, label, scores.shape[:2])
        if found_tokens is None:
            return
        tokens, reasons = found_tokens
        self._refuse_each(words.LABEL, reasons)
        self.tell_strange(tokens, scores.shape[2])
        made = derived.sequence(scores, tokens, self.ignored_token, are_logits=SCORES[kind][0])
        self._add_metrics(found, made.metrics)
        if keep_tokens:
            found[words.TOKEN_LOSSES] = (
                "list<halffloat>",
                [None if one is None else one.astype(np.float16).tobytes() for one in made.tokens],
            )

    @property
    def ignored_token(self) -> int:
        """The label of a token that does not count."""
        return NUMBER_LIKE_ANY if self.ignored is None else self.ignored

    def tell_strange(self, tokens: NDArray[Any], classes: int) -> None:
        """Tell of labels of tokens, (N, T), that are no class of the scores."""
        strange = columns.outside(tokens, classes, self.ignored_token, with_gaps=True)
        if strange.any():
            reason = (
                f"label {int(tokens[strange][0])} is no class of the {classes} of the scores: such tokens do not count"
            )
            self.refuse(words.LABEL, reason, int(strange.any(1).sum()))

    def _fits_kind(self, name: str, dtype: str) -> bool:
        self._catalogue.check(name, dtype)
        return True

    def _add_metrics(self, found: Columns, metrics: Mapping[str, NDArray[Any]]) -> None:
        self._asked_wide -= metrics.keys()
        for metric, column in metrics.items():
            dtype = "float64" if metric in self._float64 else "float32"
            found.setdefault(metric, (dtype, np.ascontiguousarray(column, dtype)))

    # -- plans

    def _learn(self, key: tuple[tuple[str, str], ...]) -> Plan:
        self._catalogue.learn(dtypes_of(key))
        plan = self._plans[key] = Plan(key)
        return plan

    def _remember(self, call: tuple[Any, ...], batch: Batch, given: list[Any], has_scores: bool) -> None:
        """Keep a kind of call whose values can go to a segment as they are."""
        names = [name for name, _ in batch[0].columns]
        if len(names) != len(given):
            return  # something was left out, or added
        scores = given[-1] if has_scores else None
        if has_scores and (
            names[-1] not in SCORES or getattr(scores, "ndim", 0) != 2 or getattr(scores, "shape", (0, 0))[1] < 2
        ):
            return  # what follows from them is stored instead
        if not all(_is_plain(name, value) for name, value in zip(names, given, strict=True)):
            return
        if len(given[0]) != batch[1] or any(isinstance(column, list) for column in batch[2]):
            return
        classes = 0 if scores is None else scores.shape[1]
        dtypes = [value.dtype for value in given]
        stored = [dtype.name for dtype in dtypes]
        if classes:
            stored[-1] += f"[{classes}]"
        watched = self._watched(names, dtypes)
        if watched is None:
            return
        self.usual = None  # which may be what is replaced here
        if len(self._known) > _KEPT:
            self._known.clear()
        plan = Plan(tuple(zip(names, stored, strict=True)))
        has_label = bool(classes) and names[1] == words.LABEL
        if has_label and self._strict:
            return  # a label that is no class is found at once
        self._known[call] = _Known(plan, dtypes, has_scores, classes, has_label, watched)

    def _watched(self, names: list[str], dtypes: list[np.dtype[Any]]) -> list[tuple[int, int]] | None:
        """The columns that must be looked at in every batch, by their places, and the largest number they may hold."""
        watched = []
        for at, (name, dtype) in enumerate(zip(names, dtypes, strict=True)):
            if name in (words.LABEL, words.PREDICTION):
                if dtype.itemsize > 4 and self._strict:
                    watched.append((at, 2**31 - 1))
            elif name == words.CORRECT and dtype.kind != "b":
                return None  # each is looked at
            elif dtype.kind in "iu" and dtype.itemsize > 2 and name != words.SAMPLE_ID:
                if name not in self._float64:
                    watched.append((at, EXACT))
                elif dtype.itemsize > 4:
                    watched.append((at, columns.EXACT_WIDE))
        return watched


class Repeats:
    """Finds out that samples come again in a place where none should: by the first id of its first batch.

    Attributes:
        is_said: Whether one was found.
    """

    def __init__(self) -> None:
        self.is_said = False
        self._first: dict[Any, Any] = {}

    def again(self, place: Any, sample_id: Any) -> Any:
        """The id that comes again; None while none does."""
        ids = read(sample_id)
        if isinstance(ids, np.ndarray):
            if ids.ndim != 1 or not len(ids):
                return None
            first = self._first.setdefault(place, _Unseen)
            found = first is not _Unseen and bool((ids == first).any())
        elif isinstance(ids, list | tuple) and ids:
            first = self._first.setdefault(place, _Unseen)
            found = first is not _Unseen and first in ids
        else:
            return None
        if first is _Unseen:
            first = ids[0]
            self._first[place] = first.item() if isinstance(first, np.generic) else first
        self.is_said = found
        return self._first[place] if found else None


class _Unseen:
    """What stands for no id."""


def _as_sets(value: Any) -> list[Any]:
    """Classes of each sample, whatever they are listed in."""
    return [one.tolist() if isinstance(one, np.ndarray) else one for one in value]


def _kind_of(column: Column) -> str:
    return "string" if isinstance(column, list) else "int32"


def _name_of(number: int, names: tuple[str, ...]) -> str:
    return names[number] if number < len(names) else str(number)


def _names(label: Any, prediction: Any, metrics: Mapping[str, Any], scores: Any) -> list[str]:
    beside = [(words.LABEL, label), (words.PREDICTION, prediction)]
    names = [words.SAMPLE_ID, *(name for name, value in beside if value is not None), *metrics]
    return names if scores is None else [*names, "scores"]


def _both(label: Any, n: int) -> tuple[Any, Mapping[str, int]]:
    """Labels of one score a sample: (N, 2) where they are probabilities of the second class, with those that are left
    out, {why: how many}; else as they are.
    """
    try:
        found = None if label is None else columns.rows(label, n, words.LABEL)
        array = None if found is None else columns.one_dimensional(found.gaps(), words.LABEL)
    except ValueError:
        return label, {}
    if found is None or array is None or array.dtype.kind != "f" or len(array) != n:
        return label, {}
    if not ((array > 0) & (array < 1)).any():
        return label, {}
    both = np.stack([1 - array, array], 1)
    both[np.isnan(array)] = MISSING
    return both, found.reasons


def _doubt(task: Task, label: Any, prediction: Any, scores: Any) -> str | None:
    """What a first batch leaves open about its task, and the line that settles it."""
    other: Task | None = None
    if columns.is_one_hot(label):
        why = "label is (N, K) with a single 1 in every row of the first batch"
        other = Task.MULTILABEL if task is Task.CLASSIFICATION else Task.CLASSIFICATION
    elif task is Task.MULTILABEL and columns.are_single(label):
        why, other = "label is lists of one class each in the first batch", Task.CLASSIFICATION
    elif task is Task.REGRESSION and scores is not None and _are_shares(label):
        why, other = "label is a number from 0 to 1 beside one score a sample in the first batch", Task.BINARY
    elif task is Task.CLASSIFICATION and scores is None and _is_real(label) and _is_real(prediction):
        why, other = "label and prediction are real numbers, all of them whole in the first batch", Task.REGRESSION
    if other is None:
        return None
    return f'{why}: it is taken for {task}; Run(task="{task}") confirms it, Run(task="{other}") says otherwise'


def _is_real(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float | np.floating) for item in value)
    return columns.is_real_column(value)


def _are_shares(label: Any) -> bool:
    array = read(label)
    if isinstance(array, list | tuple):
        return bool(array) and all(isinstance(item, int | float | np.number) and 0 <= item <= 1 for item in array)
    return isinstance(array, np.ndarray) and bool(((array >= 0) & (array <= 1)).all())


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _fits(known: _Known, given: list[Any], ignored: int | None) -> bool:
    """Whether values are what they were the last time, and labels classes."""
    if set(map(type, given)) != _ARRAYS or list(map(_dtype_of, given)) != known.dtypes:
        return False  # lists, tensors, and arrays that say more than their bytes
    shapes: list[tuple[int, ...]] = list(map(_shape_of, given))
    shape = shapes[0]
    if known.scores and shapes.pop() != (*shape, known.classes):
        return False
    if len(shape) != 1 or shapes.count(shape) != len(shapes) or not shape[0]:
        return False
    if known.has_label:
        label = given[1]
        # As unsigned numbers, negative labels are large: one look finds most batches without unknown labels.
        largest = np.maximum.reduce(label.view(_UNSIGNED[label.itemsize]))
        if largest >= known.classes and columns.outside(label, known.classes, ignored).any():
            return False
    for place, most in known.watched:
        values = np.asarray(given[place])
        if max(int(values.max()), -int(values.min())) > most:
            return False
    return True


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


def is_list_on_device(value: Any) -> bool:
    """Whether a value is a list of tensors on a device, as the first of them says."""
    return isinstance(value, list | tuple) and bool(value) and is_remote(value[0])


def _typed(column: Any, dtype: str) -> tuple[str, Any]:
    """A column with its dtype in a segment."""
    if isinstance(column, list):
        return "string", column
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite
        return dtype, np.ascontiguousarray(column, dtype)


def _taken(values: Any, usable: NDArray[np.bool_]) -> Any:
    if isinstance(values, list):
        return [value for value, wanted in zip(values, usable, strict=True) if wanted]
    return np.ascontiguousarray(values[usable])
