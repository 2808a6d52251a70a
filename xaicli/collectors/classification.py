"""What can be said of every sample from what a model answers: a class, several, a number, a class at every place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.nn import functional

from xaicli import vocabulary as words
from xaicli.collectors.collector import METRICS, MetricsCollector, Preprocess
from xaicli.collectors.outputs import PredictorOutput, labels_of, none_of_the_classes
from xaicli.errors import XaiError
from xaicli.heads.head import Head, Task, Values
from xaicli.heads.outputs import tensor_at
from xaicli.recorder.columns import soft_labels
from xaicli.tables.column import ColumnError
from xaicli.tables.schema import Bool, CategoricalLabel, Confidence, Float, Schema
from xaicli.wal.derived import Derived, derive, soften
from xaicli.wal.frames import NULL_INT

_TOP = 5
_NONE = -(2**31)
"""The number of a label that is missing."""
_IGNORED = -100
_NO_NAMES = (
    "labels are texts, and the classes have no names (classes=[...] by number, --label-names): what needs a label is "
    "missing for them"
)
_TASKS = tuple(task for task in Task if task is not Task.SEGMENTATION)
_OF_LABEL = (words.LABEL_PROB, words.MARGIN, words.EL2N)


class ClassificationMetricsCollector(MetricsCollector):
    """Label, prediction and what follows from them; the batch is (input, label, ...) or a dict with a label.

    What the model's numbers mean - logits, probabilities, log-probabilities; one class of several, yes or no, several
    labels, a value - is decided once a pass by the head that saliency uses as well (`xaicli.heads`).

    Columns: `label`; `predicted`; `loss`; `accuracy` (right or not); `confidence`, the probability of the prediction;
    `label_prob`, that of the label; `margin`, `entropy`, `el2n` as `xaicli.wal.derived.derive` defines them;
    `top5`, whether the label is among the five most probable classes, where there are more than five; `probs` (float16)
    on request. What needs a label is null where it is none of the classes, as an ignore index is, and such labels are
    counted and named in `doubts`; the prediction is null where the model answers NaN. Of soft labels, rows of the
    classes' probabilities, `label` is the largest, `loss` the soft cross entropy and `label_prob` the expected
    probability, as `Run.log_samples` has them.

    Several labels: `label` and `predicted` are lists of classes, `accuracy` is about the whole set, `loss` is the mean
    binary cross entropy; `jaccard` and `n_wrong` besides. A value: `label`, `predicted`, `residual`, `abs_error` and
    `loss`, the squared error; nothing is right or wrong. A class at every place (text): mean `loss`, `label_prob` (its
    geometric mean), `token_accuracy` and `n_tokens` over the places that hold a class.

    Args:
        classes: The classes' names, by position or value.
        loss_fn: (outputs, labels) -> one loss a sample; the outputs are the logits (N, K), or what a model that gives
            no logits gives; soft labels are handed over as they are. Cross entropy when None.
        probs: Keep all class probabilities.
        task: What the model was trained for, where that cannot be told: classification, binary, multilabel,
            regression, sequence or token_classification; "classification:probabilities" says what its numbers are, too.
    """

    reads_heads = True

    def __init__(
        self,
        classes: Sequence[str] | Mapping[int, str] | None = None,
        loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        compute_aggregates: bool = True,
        preprocess_fn: Preprocess | None = None,
        *,
        probs: bool = False,
        task: str | None = None,
    ) -> None:
        super().__init__(preprocess_fn, compute_aggregates)
        self.loss_fn = loss_fn
        self.probs = probs
        self.task = task
        self.n_classes = len(classes) if classes else None
        named = classes.items() if isinstance(classes, Mapping) else enumerate(classes or ())
        self._numbers = {name: number for number, name in named}
        label: Schema | None = CategoricalLabel(classes=classes) if classes else None
        stated: dict[str, Schema | None] = {
            words.LABEL: label,
            "predicted": label,
            words.LOSS: Float(minimum=0.0) if loss_fn is None else None,
            "accuracy": Bool(description="whether the prediction is the label"),
            "confidence": Confidence(description="probability of the prediction"),
            words.LABEL_PROB: Float("", 0.0, 1.0, description="probability of the label"),
            words.MARGIN: Float(description="label's logit minus the largest other"),
            words.ENTROPY: Float(minimum=0.0, unit="nat"),
            words.EL2N: Float(minimum=0.0),
        }
        self._stated = {column: schema for column, schema in stated.items() if schema is not None}
        self._column_schemas = dict(self._stated)
        self._doubts: Counter[str] = Counter()
        self._strange: Counter[str] = Counter()

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> dict[str, Any]:
        labels = labels_of(batch)
        output = PredictorOutput.of(predictor_output)
        head = output.head(task=self.task, labels=self._known(labels), classes=self.n_classes, expected=_TASKS)
        values = head.tensor(output.forward).detach()
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        head.refuse_no_probabilities(values)
        if self.n_classes and head.task is Task.CLASSIFICATION and self.n_classes != head.classes:
            self._doubts[f"predictions are of {head.classes} classes, and {self.n_classes} have names"] += len(values)
        # Lists of classes and numbers are not of a class's name.
        named = head.task in (Task.CLASSIFICATION, Task.BINARY)
        self._column_schemas = (
            self._stated if named else {c: s for c, s in self._stated.items() if s.kind != "categorical"}
        )
        match head.task:
            case Task.CLASSIFICATION | Task.BINARY:
                return self._of_classes(head, values, labels)
            case Task.MULTILABEL:
                return self._of_sets(head, values, labels)
            case Task.REGRESSION:
                return self._of_numbers(values, labels)
            case Task.SEQUENCE | Task.TOKEN_CLASSIFICATION if np.ndim(labels) == values.ndim - 1:
                return self._of_places(head, values, labels)
            case Task.SEQUENCE | Task.TOKEN_CLASSIFICATION | Task.SEGMENTATION:
                raise XaiError(
                    f"the model's output has shape {tuple(tensor_at(output.forward, head.where).shape)}, not (samples, "
                    "classes)",
                    hint="give labels of a class at every place, a preprocess_fn, or use SegmentationMetricsCollector "
                    "for one class a pixel",
                )
            case _:
                assert_never(head.task)

    def doubts(self, tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
        rows = tables.get(METRICS)
        said = tuple(f"{n} {what}" for what, n in self._doubts.items())
        texts = none_of_the_classes(self._strange, 0 if rows is None else rows.num_rows)
        self._doubts, self._strange = Counter(), Counter()
        return said + texts + self._strange_numbers(rows)

    def _known(self, labels: Any) -> Any:
        """The labels that say what a head is about: texts that are no class say nothing of it."""
        if not isinstance(labels, list | tuple) or not self._numbers:
            return labels
        return [None if isinstance(label, str) and label not in self._numbers else label for label in labels]

    def _strange_numbers(self, rows: pa.Table | None) -> tuple[str, ...]:
        """Numbers that are none of the classes."""
        if rows is None or not {words.LABEL, "predicted", "accuracy"} <= set(rows.column_names):
            return ()
        label = rows[words.LABEL].combine_chunks()
        if not pa.types.is_integer(label.type):
            return ()
        none = pc.and_(pc.is_null(rows["accuracy"]), pc.is_valid(rows["predicted"]))
        strange = [n for n in label.filter(none.combine_chunks()).to_pylist() if n not in (None, _IGNORED)]
        return none_of_the_classes(Counter(str(n) for n in sorted(strange)), len(label))

    def _of_classes(self, head: Head, values: torch.Tensor, labels: Any) -> dict[str, Any]:
        are_logits = head.values is Values.LOGITS and not head.independent
        are_logits = are_logits or (head.values is Values.LOG_PROBABILITIES and not (head.independent or head.single))
        scores = head.logits(values) if are_logits else head.probabilities(values)
        label, soft = (None, None) if labels is None else self._class_numbers(labels, scores)
        known = None if label is None else label.cpu().numpy()
        given = scores.cpu().numpy()
        predicted, found, probs = derive(given, known, are_logits=are_logits)
        truth = label if soft is None else soft
        if soft is not None:
            made = Derived(predicted, found, probs)
            found = soften(made, given, soft.cpu().numpy(), are_logits=are_logits, with_loss=True).metrics
        broken = predicted == NULL_INT
        columns: dict[str, Any] = {}
        if truth is not None and known is not None:
            valid = (known >= 0) & (known < given.shape[1])
            columns = {
                words.LABEL: pa.array(known, mask=(known == _NONE) | (known == _IGNORED)),
                "predicted": None,
                words.LOSS: self._loss(scores if are_logits else values, truth, found[words.LOSS]),
                "accuracy": pa.array(predicted == known, mask=~valid | broken),
            }
            if given.shape[1] > _TOP:
                columns["top5"] = pa.array(_among_top(given, known), mask=~valid | broken)
            columns |= {name: pa.array(found[name], mask=~valid) for name in _OF_LABEL}
        columns |= {
            "predicted": pa.array(predicted, mask=broken),
            "confidence": found[words.TOP_PROB],
        }
        if head.single or not head.independent:
            columns[words.ENTROPY] = found[words.ENTROPY]  # of one distribution; several sigmoids are none
        if self.probs:
            columns[words.PROBS] = probs.astype(np.float16)
        return columns

    def _class_numbers(self, label: Any, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N,) whole class numbers from labels, names, one-hot or soft ones, and the soft ones (N, K) themselves.

        A label that is missing, broken or the name of no class is `_NONE`, and a row of NaN.

        Raises:
            ColumnError: They are of another shape, or rows of ones that name no one class although nobody said that
                they do.
        """
        soft = None
        if isinstance(label, (list, tuple)):
            label = [_NONE if value is None else self._number(value) for value in label]
        tensor = torch.as_tensor(label, device=scores.device)
        if tensor.ndim == 2 and tensor.shape == scores.shape and scores.shape[1] > 1:
            tensor, soft = self._of_rows(tensor.long() if tensor.dtype == torch.bool else tensor)
        tensor = tensor.reshape(len(tensor), -1)
        if tensor.shape[1] != 1 or len(tensor) != len(scores):
            raise ColumnError(f"the labels have shape {tuple(torch.as_tensor(label).shape)} for {len(scores)} outputs")
        found = tensor[:, 0]
        if found.is_floating_point():
            found = torch.where(found == found.floor(), found, torch.full_like(found, _NONE))
        return found.long(), soft

    def _number(self, label: Any) -> Any:
        """A class's number by its name, `_NONE` where no class has it; other labels as they are."""
        if not isinstance(label, str):
            return label
        if not self._numbers:
            self._doubts[_NO_NAMES] += 1
        elif label not in self._numbers:
            self._strange[repr(str(label))] += 1
        return self._numbers.get(label, _NONE)

    def _of_rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N,) the classes of one-hot or soft labels (N, K), and the soft ones as float32."""
        are_ones = bool(((rows == 0) | (rows == 1)).all())
        soft = None
        if are_ones or not rows.is_floating_point():
            other = rows.sum(1) != 1
        else:
            probabilities, sound = soft_labels(rows, len(rows))
            named = sound & ~np.isnan(probabilities).all(1)  # a row of NaN is missing: it names no class either
            soft, other = torch.from_numpy(probabilities).to(rows.device), torch.from_numpy(~named).to(rows.device)
        if self.task is None and soft is None and bool(other.any()):
            raise ColumnError(
                "labels that were rows of one class each hold another number of them now",
                hint="say it with task= (--task): classification or multilabel",
            )
        if self.task is None and are_ones:
            said = "labels are rows of zeros and a one, read as one class each; of sets of classes: task=multilabel"
            self._doubts[said] += len(rows)
        if n := int(other.sum()):
            self._doubts["labels are rows that name no one class: what needs a label is missing for them"] += n
        return torch.where(other, torch.full_like(other, _NONE, dtype=torch.long), rows.argmax(dim=1)), soft

    def _of_sets(self, head: Head, values: torch.Tensor, labels: Any) -> dict[str, Any]:
        p, sets = head.at_places(values), head.sets(values)
        columns: dict[str, Any] = {}
        if labels is not None:
            given = self._zeros_and_ones(labels, p)
            known = (given >= 0) & (given <= 1)  # NaN is neither
            truth, n_known = torch.where(known, given, 0.0), known.sum(1)
            logits = head.logits(values)
            each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            exact = head.values is Values.LOGITS  # an infinite logit of a probability of 0 or 1 has a loss of its own
            each = each if exact else functional.binary_cross_entropy(p.clamp(0, 1), truth, reduction="none")
            loss = torch.where(known, each, 0.0).sum(1) / n_known
            true, found = (truth > 0.5) & known, sets & known
            union, wrong = (found | true).sum(1), (found != true).sum(1)
            measures = {
                words.LOSS: loss if self.loss_fn is None else self._loss(values, given, None),
                "accuracy": wrong == 0,
                "jaccard": torch.where(union > 0, (found & true).sum(1) / union.clamp(min=1), 1.0),
                "n_wrong": wrong,
                words.LABEL_PROB: head.label_prob(values, torch.where(known, true.to(given.dtype), -1.0)),
            }
            none = (n_known == 0).cpu().numpy()
            columns = {words.LABEL: _lists(true, none)}
            columns |= {name: pa.array(value.cpu().numpy(), mask=none) for name, value in measures.items()}
        columns |= {"predicted": _lists(sets), "confidence": head.top_prob(values)}
        if self.probs:
            columns[words.PROBS] = p.cpu().numpy().astype(np.float16)
        return columns

    def _zeros_and_ones(self, labels: Any, p: torch.Tensor) -> torch.Tensor:
        """(N, K) of 0 and 1 from such a tensor, or from lists of classes; -1 where nothing is said.

        A list that holds what is no class says nothing, and is counted.

        Raises:
            ColumnError: The labels are single classes.
        """
        try:
            tensor = torch.as_tensor(labels, device=p.device)
        except (TypeError, ValueError):
            tensor = None
        if tensor is not None and tensor.shape == p.shape:
            given = tensor.to(p.dtype)
            if n := int((~((given >= 0) & (given <= 1))).sum()):
                self._doubts["numbers of the labels are neither 0 nor 1: they do not count"] += n
            return given
        truth = torch.zeros_like(p)
        for row, classes in enumerate(labels):
            if classes is None:
                truth[row] = -1
                continue
            if getattr(classes, "ndim", None) == 0 or isinstance(classes, (int, float, str)):
                raise ColumnError(
                    "the labels are single classes, one a sample, and the task is multilabel",
                    hint="task classification, or labels that are sets: rows of zeros and ones, or lists of classes",
                )
            numbers = {k: self._numbers.get(k, p.shape[1]) if isinstance(k, str) else int(k) for k in classes}
            strange = [repr(str(k)) if isinstance(k, str) else str(n) for k, n in numbers.items() if n >= p.shape[1]]
            if strange:
                self._strange[strange[0]] += 1
                truth[row] = -1
                continue
            for number in numbers.values():
                if number >= 0:  # below are paddings of lists to one length
                    truth[row, number] = 1
        return truth

    def _of_numbers(self, values: torch.Tensor, labels: Any) -> dict[str, Any]:
        single = values.shape[1] == 1
        columns: dict[str, Any] = {"predicted": values[:, 0].double()} if single else {}
        if labels is None:
            return columns or {f"predicted_{k}": values[:, k].double() for k in range(values.shape[1])}
        if isinstance(labels, (list, tuple)):
            labels = [torch.nan if value is None else self._value(value) for value in labels]
        truth = torch.as_tensor(labels, device=values.device).double().reshape(len(values), -1)
        if truth.shape != values.shape:
            raise ColumnError(f"the labels have shape {tuple(truth.shape)}, the outputs {tuple(values.shape)}")
        residual = truth - values.double()
        if single:
            columns |= {words.LABEL: truth[:, 0], "residual": residual[:, 0]}
        loss = residual.square().mean(1) if self.loss_fn is None else self._loss(values, truth, None)
        return columns | {"abs_error": residual.abs().mean(1), words.LOSS: loss}

    def _value(self, label: Any) -> Any:
        """A number that is written as a text, NaN for another text; other labels as they are."""
        if not isinstance(label, str):
            return label
        try:
            return float(label)
        except ValueError:
            self._doubts[f"labels are no number ({label!r}): what needs a label is missing for them"] += 1
            return torch.nan

    def _of_places(self, head: Head, values: torch.Tensor, labels: Any) -> dict[str, Any]:
        label = torch.as_tensor(labels, device=values.device)
        known = (label >= 0) & (label < values.shape[1])
        n = known.flatten(1).sum(1)
        right = (head.place_predictions(values) == label) & known
        probability = head.label_prob(values, label)
        columns = {
            words.LOSS: -probability.log(),
            words.LABEL_PROB: probability,
            "token_accuracy": right.flatten(1).sum(1) / n.clamp(min=1),
        }
        none = (n == 0).cpu().numpy()
        masked = {name: pa.array(value.cpu().numpy(), mask=none) for name, value in columns.items()}
        return masked | {"n_tokens": n, "confidence": head.top_prob(values, known)}

    def _loss(self, outputs: torch.Tensor, label: torch.Tensor, cross_entropy: NDArray[Any] | None) -> Any:
        if self.loss_fn is None and cross_entropy is not None:
            return pa.array(cross_entropy, mask=np.isnan(cross_entropy))
        assert self.loss_fn is not None
        loss = self.loss_fn(outputs, label)
        if loss.shape != (len(label),):
            raise ColumnError(
                f"loss_fn returned shape {tuple(loss.shape)} for {len(label)} samples",
                hint='it must not average: CrossEntropyLoss(reduction="none")',
            )
        return loss


def _lists(sets: torch.Tensor, none: NDArray[Any] | None = None) -> pa.Array:
    """(N, K) bool as lists of classes; null where there is none to tell."""
    rows: list[Any] = [np.flatnonzero(row).tolist() for row in sets.cpu().numpy()]
    if none is not None:
        rows = [None if is_none else row for row, is_none in zip(rows, none, strict=True)]
    return pa.array(rows, pa.list_(pa.int32()))


def _among_top(scores: NDArray[Any], label: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether fewer than five classes score higher than the label."""
    at_label = np.take_along_axis(scores, label.clip(0, scores.shape[1] - 1)[:, None], axis=1)
    return np.asarray((scores > at_label).sum(axis=1) < _TOP)
