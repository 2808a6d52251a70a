"""From what a model answered to the columns of `Run.log_samples`, task by task."""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import Tensor

from xaicli.heads.head import Head, Task, Values
from xaicli.recorder.device import derive_sequences_on_device

_IGNORED = -100
"""The label of a place that does not count."""
_WITH_PLACES = (Task.SEQUENCE, Task.TOKEN_CLASSIFICATION, Task.SEGMENTATION)
_WITH_CLASSES = (Task.CLASSIFICATION, *_WITH_PLACES)


def columns_of(
    head: Head,
    values: Tensor,
    labels: Any,
    *,
    shifted: bool = False,
    first: int = 0,
    keep_tokens: bool = False,
    ignored: int | None = None,
    void: int | None = _IGNORED,
) -> dict[str, Any]:
    """The arguments of `log_samples` that follow from a batch's answers, without the ids.

    Args:
        head: What the answers mean.
        values: (N, K, ...), as `Head.tensor` gives them.
        labels: The truth as the batch has it, or None.
        shifted: Whether the answer at each place is about the next one, as a causal language model's is.
        first: The place in its text of the first label.
        keep_tokens: Whether the scores of a text's tokens are among them, for a run that keeps the tokens' losses.
        ignored: The class that the criterion leaves out.
        void: The run's label that stands for none.
    """
    values = values.detach()
    truth = _tensor(labels, values)
    if truth is not None and not truth.is_floating_point() and head.task in _WITH_CLASSES:
        fill = _IGNORED if head.task in _WITH_PLACES or void is None else void
        for left_out in {one for one in (ignored, void, _IGNORED) if one is not None and one != fill}:
            truth = truth.long()
            truth = truth.masked_fill(truth == left_out, fill)
        labels = truth
    if values.dtype not in (torch.float32, torch.float64) and head.task not in _WITH_PLACES:
        values = values.float()  # of places a part at a time: a vocabulary is large
    match head.task:
        case Task.CLASSIFICATION | Task.BINARY:
            return _of_classes(head, values, labels, truth)
        case Task.MULTILABEL:
            return _of_sets(head, values, truth)
        case Task.REGRESSION:
            return _of_numbers(values, truth)
        case Task.SEQUENCE | Task.TOKEN_CLASSIFICATION | Task.SEGMENTATION:
            are_tokens = head.task is not Task.SEGMENTATION
            return _of_places(head, values, truth, shifted, first, keep_tokens and are_tokens)
        case _:
            assert_never(head.task)


def _tensor(labels: Any, values: Tensor) -> Tensor | None:
    if labels is None or isinstance(labels, Tensor):
        return labels
    try:
        return torch.as_tensor(labels, device=values.device)
    except (TypeError, ValueError, RuntimeError):
        return None


def _of_classes(head: Head, values: Tensor, labels: Any, truth: Tensor | None) -> dict[str, Any]:
    label: Any = labels
    if truth is not None:
        label = truth.reshape(len(truth), -1)
        if label.shape[1] == head.classes and head.classes > 1 and label.shape[1] != 1:
            label = label.argmax(1)  # one-hot, or a mixture: its largest part
        else:
            label = label[:, 0]
        if label.is_floating_point():
            label = torch.where(label == label.floor(), label, -100.0).long()
    if head.values is Values.LOGITS and not head.independent:
        return {"label": label, "logits": values}
    if head.values is Values.LOG_PROBABILITIES and not (head.independent or head.single):
        return {"label": label, "logits": values}
    return {"label": label, "probs": head.probabilities(values)}


def _of_sets(head: Head, values: Tensor, truth: Tensor | None) -> dict[str, Any]:
    scores = "logits" if head.values is Values.LOGITS else "probs"
    columns = {
        scores: values if head.values is Values.LOGITS else head.at_places(values),
        "top_prob": head.top_prob(values),
    }
    if truth is None or truth.shape != values.shape:
        return columns
    # Whole numbers: rows of floats that sum to one would be taken for mixtures of classes.
    return columns | {"label": (truth > 0.5).long()}


def _of_numbers(values: Tensor, truth: Tensor | None) -> dict[str, Any]:
    columns: dict[str, Any] = {"prediction": values[:, 0].double()} if values.shape[1] == 1 else {}
    if truth is None or truth.numel() != values.numel():
        return columns
    residual = truth.reshape(values.shape).to(values.dtype) - values
    if values.shape[1] == 1:
        columns |= {"label": truth.reshape(-1).double(), "residual": residual[:, 0]}
    return columns | {"abs_error": residual.abs().mean(1), "loss": residual.square().mean(1)}


def _of_places(
    head: Head, values: Tensor, truth: Tensor | None, shifted: bool, first: int, keep_tokens: bool
) -> dict[str, Any]:
    if truth is None or truth.shape != (len(values), *values.shape[2:]):
        return {}
    if shifted:
        values, truth = values[:, :, :-1], truth[:, 1:]
    are_logits = head.values is Values.LOGITS and not head.single
    if not are_logits:
        values = head.at_places(values.float())
    scores, label = values.flatten(2).movedim(1, 2), truth.flatten(1).long()
    # An answer that is about the next place: the first label is of the second.
    found: dict[str, Any] = derive_sequences_on_device(
        scores, label, are_logits=are_logits, ignored=_IGNORED, first=first + int(shifted)
    )
    return {"label": label, "logits" if are_logits else "probs": scores, **found} if keep_tokens else found
