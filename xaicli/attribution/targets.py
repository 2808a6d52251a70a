"""Which output each sample is explained for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xaicli.attribution.settings import Target
from xaicli.errors import UsageError, XaiError
from xaicli.heads.head import Head, Task
from xaicli.sources.inputs import plain

_TOP = re.compile(r"top(\d+)")
_SUM = 5e-3
"""How far from 1 the sum of a row of probabilities may be."""


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
    if all(index is None for index in found):
        first = next(label for label in labels if label is not None)
        return _within(torch.tensor([[index_of(first, names)]]), head.classes)
    predicted = head.targets(values, valid).tolist()
    return torch.tensor([[p if index is None else index] for index, p in zip(found, predicted, strict=True)])


def class_of(label: Any, names: Sequence[str] | None, head: Head) -> int | None:
    """The class a label names: by name, by number, or as a row of one number a class; None where it names none."""
    if not head.has_classes:
        return None
    label = plain(label)
    if isinstance(label, str) and names and label in names:
        return list(names).index(label)
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
        return list(names).index(label)
    try:
        return int(label)
    except (TypeError, ValueError):
        exist = "targets: predicted, label, topK, module:function, a class number"
        raise UsageError(
            f"no target {str(label)!r}", hint=exist + (f" or name: {', '.join(names[:12])}" if names else "")
        ) from None


def _within(targets: Tensor, classes: int) -> Tensor:
    outside = targets[(targets < 0) | (targets >= classes)]
    if len(outside):
        raise XaiError(f"the model has no output {int(outside[0])}", hint=f"outputs: 0 to {classes - 1}")
    return targets
