"""Which output index each sample is explained for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, assert_never

import torch
from torch import Tensor

from xaicli.attribution.outputs import Meaning, Scores
from xaicli.attribution.settings import Target
from xaicli.errors import UsageError, XaiError

_TOP = re.compile(r"top(\d+)")


def choose(
    target: Target | Tensor, scores: Scores, labels: Sequence[Any] | None, names: Sequence[str] | None
) -> Tensor:
    """The targets, frozen over every pass.

    Args:
        target: "predicted", "label", a class name or number, "topK", or one number per sample.
        scores: The clean outputs.
        labels: The samples' labels.
        names: The classes' names.

    Returns:
        (sample, K) int64: K targets for each sample, 1 unless "topK".

    Raises:
        XaiError: The model has no such output.
    """
    n, classes = scores.probabilities.shape
    if isinstance(target, str):
        return _named(target, scores, labels, names)
    chosen = torch.as_tensor(target)
    if chosen.is_floating_point() or chosen.ndim > 2 or (chosen.ndim and len(chosen) != n):
        raise UsageError(
            f"target has shape {tuple(chosen.shape)} and dtype {chosen.dtype}",
            hint=f"one whole number for each of {n} samples",
        )
    chosen = chosen.long().cpu()
    chosen = chosen.expand(n) if not chosen.ndim else chosen
    return _within(chosen.reshape(n, -1), classes)


def _named(target: str, scores: Scores, labels: Sequence[Any] | None, names: Sequence[str] | None) -> Tensor:
    n, classes = scores.probabilities.shape
    if target == "predicted":
        return scores.predictions[:, None]
    if target == "label":
        if labels is None or any(label is None for label in labels):
            raise XaiError(
                "the samples have no labels to explain", hint="use --target predicted, or give --data with labels"
            )
        return _within(torch.tensor([[index_of(label, names)] for label in labels]), classes)
    if match := _TOP.fullmatch(target):
        k = int(match.group(1))
        if not 1 <= k <= classes:
            raise UsageError(f"target {target}: the model has {classes} classes", hint=f"top1 to top{classes}")
        return scores.probabilities.topk(k, dim=1).indices
    return _within(torch.full((n, 1), index_of(target, names)), classes)


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


def values_of(outputs: Tensor, targets: Tensor, meaning: Meaning) -> Tensor:
    """The scalars being explained.

    Args:
        outputs: (row, output).
        targets: (row,).

    Returns:
        (row,): the chosen output; for a single number, itself for class 1 and its negative for class 0.
    """
    if meaning in (Meaning.SINGLE_LOGIT, Meaning.SINGLE_PROBABILITY):
        return outputs[:, 0] * (2 * targets - 1).to(outputs.dtype)
    return outputs.gather(1, targets[:, None])[:, 0]


def probability_of(outputs: Tensor, targets: Tensor, meaning: Meaning) -> Tensor:
    """The probability of each row's target.

    Args:
        outputs: (row, output).
        targets: (row,).
    """
    match meaning:
        case Meaning.LOGITS:
            return values_of(outputs.softmax(1), targets, meaning)
        case Meaning.PROBABILITIES:
            return values_of(outputs, targets, meaning)
        case Meaning.SINGLE_LOGIT:
            return torch.sigmoid(values_of(outputs, targets, meaning))
        case Meaning.SINGLE_PROBABILITY:
            return torch.where(targets == 1, outputs[:, 0], 1 - outputs[:, 0])
        case _:
            assert_never(meaning)
