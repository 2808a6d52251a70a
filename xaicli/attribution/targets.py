"""Which output each sample is explained for and, where a model of texts answers at every token, at which of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xaicli.attribution.settings import Target
from xaicli.errors import UsageError, XaiError
from xaicli.heads.head import Head, Task, Text, Values
from xaicli.sources.inputs import plain

_TOP = re.compile(r"top(\d+)")
_SUM = 5e-3
"""How far from 1 the sum of a row of probabilities may be."""

LOSS = "loss"
"""The target of a model of texts that is no token: how badly it says the tokens of its text."""
_AT = re.compile(r"(.+)@(-?\d+)")


def split_place(target: Any, names: Sequence[str] | None = None) -> tuple[Any, int | None]:
    """A target and the place it is asked for at: "predicted@-1", the last token's prediction; a name stays a name."""
    if not isinstance(target, str) or target in (names or ()) or not (match := _AT.fullmatch(target)):
        return target, None
    name = match.group(1)
    return int(name) if re.fullmatch(r"\d+", name) else name, int(match.group(2))


@dataclass(frozen=True)
class ExplainedPlace:
    """What of the answers that a model gives at every token of a text is explained.

    Attributes:
        head: What the output means.
        at: (sample,) int64, the one place of each sample.
        truth: (sample, places) int64, the right token at each place for the loss, -1 where none is known; None where
            the answer at the place is explained.
        note: What a reader should know.
    """

    head: Head
    at: Tensor
    truth: Tensor | None
    note: str

    def answers(self, values: Tensor, samples: Tensor) -> Tensor:
        """(row, K), the answer at the place, of (row, K, places)."""
        at = self.at.to(values.device)[samples]
        return values.gather(2, at.reshape(-1, 1, 1).expand(-1, values.shape[1], 1))[:, :, 0]

    def explained(self, values: Tensor, samples: Tensor) -> Tensor:
        """(row, K), the answer at the place; (row, 1), the loss, where that is asked for."""
        if self.truth is None:
            return self.answers(values, samples)
        truth = self.truth.to(values.device)[samples]
        known = truth >= 0
        match self.head.values:
            case Values.LOGITS:
                logs = values.log_softmax(1)
            case Values.PROBABILITIES:
                logs = values.log()
            case _:
                logs = values
        right = logs.gather(1, truth.clamp(min=0).unsqueeze(1))[:, 0]
        return -torch.where(known, right, torch.zeros_like(right)).sum(1, keepdim=True) / known.sum(1, keepdim=True)

    def labels(self, labels: Sequence[Any] | None) -> list[Any] | None:
        """The samples' labels; where every token has one, that of the token at the place."""
        if labels is None:
            return None
        ahead = 1 if self.head.text is Text.CAUSAL else 0
        found = []
        for row, label in zip(self.at.tolist(), map(plain, labels), strict=True):
            if isinstance(label, list | tuple):
                label = label[row + ahead] if row + ahead < len(label) else None
                if isinstance(label, int) and label < 0:
                    label = None  # of a place that is left out
            found.append(label)
        return found


def place_explained(
    head: Head,
    target: Any,
    place: int | None,
    values: Tensor,
    valid: Tensor | None,
    ids: Tensor | None,
    labels: Sequence[Any] | None,
) -> ExplainedPlace | None:
    """Where in its texts a model is explained; None where a sample is explained as a whole.

    Args:
        head: What the output means.
        target, place: As `split_place` gives them.
        values: (sample, K, ...), the clean outputs.
        valid: Which places count.
        ids: (sample, places), the tokens that the places are of, where they are known.
        labels: The samples' labels.

    Raises:
        XaiError: The model does not answer at the tokens of a text, or it has to be said at which.
    """
    is_loss = isinstance(target, str) and target == LOSS
    text = head.task is Task.SEQUENCE
    if not text and is_loss:
        raise UsageError(
            f"target loss is of models of texts: {head.decided}", hint="--target predicted, label, topK, or a class"
        )
    if not text and place is None:
        return None
    if not (text or head.task is Task.TOKEN_CLASSIFICATION) or values.ndim != 3:
        raise UsageError(
            f"target {target}@{place} is one token of a text: {head.decided}", hint=f"leave @{place} out of --target"
        )
    if text and place is None and not is_loss and head.text is Text.MASKED:
        raise XaiError(
            "the model says of every token of a text what belongs there: which of them is to be explained?",
            hint=f"--target {target}@PLACE, 0 the first token, -1 the last; or --target loss, with labels",
        )
    valid = torch.ones(len(values), values.shape[2]) > 0 if valid is None else valid.bool().cpu()
    at = torch.tensor([_place(row, place, sample) for sample, row in enumerate(valid)])
    if is_loss:
        truth = _truth(head, values, valid, ids, labels)
        n = (truth >= 0).sum(1).tolist()
        note = f"explained: the loss, the mean of -log p over the {_span(n)} known tokens of each text"
        return ExplainedPlace(head, at, truth, note)
    what = "the answer" if not text or head.text is Text.MASKED else "the next token, as said"
    which = "last token that counts" if place is None else "token asked for"
    return ExplainedPlace(head, at, None, f"explained: {what} at the {which} of each text, place {_span(at.tolist())}")


def _place(valid: Tensor, place: int | None, sample: int) -> int:
    known = torch.nonzero(valid)[:, 0].tolist()
    if place is None or not known:
        return int(known[-1]) if known else len(valid) - 1
    if not -len(known) <= place < len(known):
        raise UsageError(
            f"sample {sample} has no place {place}", hint=f"its text has {len(known)} tokens: 0 the first, -1 the last"
        )
    return int(known[place])


def _truth(head: Head, values: Tensor, valid: Tensor, ids: Tensor | None, labels: Sequence[Any] | None) -> Tensor:
    """(sample, places) int64: the right token at each place; -1 where it is not known."""
    shape = (len(values), values.shape[2])
    given = of_places(labels, shape[1])
    ahead = head.text is Text.CAUSAL
    if given is None and head.text in (Text.CAUSAL, Text.DECODER) and ids is not None and tuple(ids.shape) == shape:
        given, ahead = torch.where(valid, ids.long().cpu(), -1), True
    if given is None:
        raise XaiError(
            "the loss needs the right token at every place, which the model's configuration does not tell",
            hint=f"give labels of {shape[1]} tokens a sample, -100 where none is known",
        )
    if ahead:
        given = torch.cat([given[:, 1:], torch.full_like(given[:, :1], -1)], dim=1)
    truth = torch.where(valid & (given >= 0) & (given < head.classes), given, -1)
    if without := [sample for sample, row in enumerate(truth) if not bool((row >= 0).any())]:
        raise XaiError(
            f"sample {without[0]} has no token whose loss is known", hint="leave it out: one token alone says no next"
        )
    return truth


def of_places(labels: Sequence[Any] | None, n: int) -> Tensor | None:
    """(sample, places) int64, the label at each of n places; None where they are none of places."""
    rows = [plain(label) for label in labels or ()]
    are = bool(rows) and all(isinstance(row, list | tuple) and len(row) == n for row in rows)
    return torch.tensor(rows).long() if are else None


def _span(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"


def choose(
    target: Target | Tensor,
    head: Head,
    values: Tensor,
    valid: Tensor | None,
    labels: Sequence[Any] | None,
    names: Sequence[str] | None,
) -> Tensor:
    """The targets, frozen over every pass.

    Args:
        target: "predicted", "label", a class name or number, "topK", or one number per sample.
        head: What the outputs mean.
        values: The clean outputs, as the head gives them.
        valid: Which places count.
        labels: The samples' labels.
        names: The classes' names.

    Returns:
        (sample, K) int64: K targets for each sample, 1 unless "topK".

    Raises:
        XaiError: The model has no such output.
    """
    n = len(values)
    if isinstance(target, str):
        return _named(target, head, values, valid, labels, names)
    try:
        chosen = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"target is {target!r}"[:80],
            hint=f"predicted, label, topK, a class, or one whole number for each of {n} samples",
        ) from error
    if chosen.is_floating_point() or chosen.ndim > 2 or (chosen.ndim and len(chosen) != n):
        raise UsageError(
            f"target has shape {tuple(chosen.shape)} and dtype {chosen.dtype}",
            hint=f"one whole number for each of {n} samples",
        )
    chosen = chosen.long().cpu()
    chosen = chosen.expand(n) if not chosen.ndim else chosen
    return _within(chosen.reshape(n, -1), head.classes)


def _named(
    target: str,
    head: Head,
    values: Tensor,
    valid: Tensor | None,
    labels: Sequence[Any] | None,
    names: Sequence[str] | None,
) -> Tensor:
    n = len(values)
    if target == "predicted":
        return head.targets(values, valid)[:, None].cpu()
    if target == "label":
        return _of_labels(head, values, valid, labels, names)
    if match := _TOP.fullmatch(target):
        k = int(match.group(1))
        if not head.has_classes or not 1 <= k <= head.classes:
            what = f"{head.classes} classes" if head.has_classes else "no classes"
            raise UsageError(f"target {target}: the model has {what}", hint=f"top1 to top{head.classes}")
        return head.probabilities(values, valid).nan_to_num(nan=-1.0).topk(k, dim=1).indices.cpu()
    return _within(torch.full((n, 1), index_of(target, names)), head.classes)


def _of_labels(
    head: Head, values: Tensor, valid: Tensor | None, labels: Sequence[Any] | None, names: Sequence[str] | None
) -> Tensor:
    """Each sample's label; of those without one that is a class, the prediction."""
    if labels is None or all(label is None for label in labels):
        raise XaiError(
            "the samples have no labels to explain", hint="use --target predicted, or give --data with labels"
        )
    if not head.has_classes:
        raise XaiError(f"a label is no output of this model: {head.decided}", hint="--target N, or predicted")
    found = [class_of(label, names, head) for label in labels]
    sets = any(isinstance(set_of(label, head), frozenset) for label in labels)
    if sets and any(index is None for index in found):
        raise XaiError(
            "the samples have sets of labels, and one output each is explained",
            hint="--target N or a name explains one of them, top3 the most probable ones",
        )
    if all(index is None for index in found):
        first = set_of(next(label for label in labels if label is not None), head)
        if shape := np.shape(first):
            raise _of_several(shape, head)
        return _within(torch.tensor([[index_of(first, names)]]), head.classes)
    predicted = head.targets(values, valid).tolist()
    return torch.tensor([[p if index is None else index] for index, p in zip(found, predicted, strict=True)])


def _of_several(shape: tuple[int, ...], head: Head) -> XaiError:
    """Labels of many numbers a sample name no one output."""
    size = " x ".join(map(str, shape))
    if not head.has_places:
        return XaiError(
            f"the labels are {size} numbers a sample and name none of the model's {head.classes} classes",
            hint="--target N or a name explains one of them",
        )
    hint = "--target N or a name explains one class, over all places"
    if head.task is Task.TOKEN_CLASSIFICATION:
        hint = "--target label@PLACE explains the label at one place, 0 the first, -1 the last; " + hint[9:]
    return XaiError(f"the labels are a class at each of {size} places, and one output a sample is explained", hint=hint)


def set_of(label: Any, head: Head | None) -> Any:
    """A label as a plain value; that of several classes, a row of 0 and 1 or a list of classes, as their set."""
    label = plain(label)
    if isinstance(label, list | tuple) and len(label) == 1 and (head is None or head.task is not Task.MULTILABEL):
        label = plain(label[0])
    if head is None or head.task is not Task.MULTILABEL or not isinstance(label, list | tuple):
        return label
    if len(label) == head.classes and set(label) <= {0, 1}:
        return frozenset(index for index, has in enumerate(label) if has)
    are_classes = all(isinstance(one, str) or (isinstance(one, int) and 0 <= one < head.classes) for one in label)
    return frozenset(label) if are_classes and len(set(label)) == len(label) else label


def class_of(label: Any, names: Sequence[str] | None, head: Head) -> int | None:
    """The class a label names: by name, by number, or as a row of one number a class; None where it names none."""
    if not head.has_classes:
        return None
    label = set_of(label, head)
    if isinstance(label, frozenset) and len(label) == 1:
        label = next(iter(label))
    if isinstance(label, str) and names and label in names:
        return list(names).index(label) if list(names).count(label) == 1 else None
    if isinstance(label, list | tuple) and head.task is Task.CLASSIFICATION and len(label) == head.classes > 1:
        row = [float(value) for value in label]
        return row.index(max(row)) if abs(sum(row) - 1) < _SUM else None
    try:
        index = int(label)
    except (TypeError, ValueError, OverflowError):
        return None
    return index if index == float(label) and 0 <= index < head.classes else None


def index_of(label: Any, names: Sequence[str] | None) -> int:
    """The output index of a label: itself when it is a number, else the position of its name.

    Raises:
        UsageError: It is neither.
    """
    if names and isinstance(label, str) and label in names:
        if (outputs := [index for index, name in enumerate(names) if name == label])[1:]:
            raise UsageError(
                f"several outputs are called {label!r}", hint=f"say it by number: {', '.join(map(str, outputs))}"
            )
        return outputs[0]
    try:
        return int(label)
    except (TypeError, ValueError):
        exist = "targets: predicted, label, topK, loss, TARGET@TOKEN (predicted@-1), module:function, a class number"
        raise UsageError(
            f"no target {str(label)!r}", hint=exist + (f" or name: {', '.join(names[:12])}" if names else "")
        ) from None


def _within(targets: Tensor, classes: int) -> Tensor:
    outside = targets[(targets < 0) | (targets >= classes)]
    if len(outside):
        raise XaiError(f"the model has no output {int(outside[0])}", hint=f"outputs: 0 to {classes - 1}")
    return targets
