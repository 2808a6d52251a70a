"""From what a model answered to the columns of `Run.log_samples`, task by task."""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import Tensor

from xaicli.heads.head import Head, Task, Values
from xaicli.recorder.device import missing_on


def columns_of(head: Head, values: Tensor, labels: Any, *, shifted: bool = False) -> dict[str, Any]:
    """The arguments of `log_samples` that follow from a batch's answers, without the ids.

    Args:
        head: What the answers mean.
        values: (N, K, ...), as `Head.tensor` gives them.
        labels: The truth as the batch has it, or None.
        shifted: Whether the answer at each place is about the next one, as a causal language model's is.
    """
    values = values.detach()
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    truth = _tensor(labels, values)
    match head.task:
        case Task.CLASSIFICATION | Task.BINARY:
            return _of_classes(head, values, labels, truth)
        case Task.MULTILABEL:
            return _of_sets(head, values, truth)
        case Task.REGRESSION:
            return _of_numbers(values, truth)
        case Task.SEQUENCE | Task.TOKEN_CLASSIFICATION | Task.SEGMENTATION:
            return _of_places(head, values, truth, shifted)
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


def _of_places(head: Head, values: Tensor, truth: Tensor | None, shifted: bool) -> dict[str, Any]:
    if truth is None or truth.shape != (len(values), *values.shape[2:]):
        return {}
    if shifted:
        values, truth = values[:, :, :-1], truth[:, 1:]
    known = (truth >= 0) & (truth < values.shape[1])
    index = torch.where(known, truth, torch.zeros_like(truth)).long().unsqueeze(1)
    if head.values is Values.LOGITS and not head.single:
        # Without the probabilities of all classes: a vocabulary is large.
        each = torch.logsumexp(values, 1) - values.gather(1, index)[:, 0]
        predicted = values.argmax(1)
    else:
        p = head.at_places(values)
        each, predicted = -p.gather(1, index)[:, 0].log(), p.argmax(1)
    n = known.flatten(1).sum(1)
    total = torch.where(known, each, torch.zeros_like(each)).flatten(1).sum(1)
    nothing = missing_on(total.device).to(total.dtype)
    loss = torch.where(n > 0, total / n.clamp(min=1), nothing)
    right = ((predicted == truth) & known).flatten(1).sum(1)
    worst = torch.where(known, each, torch.full_like(each, -torch.inf)).flatten(1)
    doubt = torch.stack([_entropy(head, values[i], known[i]) for i in range(len(values))])
    return {
        "loss": loss,
        "label_prob": torch.where(n > 0, (-loss).exp(), nothing),
        "n_tokens": n.float(),
        "token_accuracy": torch.where(n > 0, right / n.clamp(min=1), nothing),
        "entropy": torch.where(n > 0, doubt, nothing),
        "worst_token": torch.where(n > 0, worst.argmax(1).to(loss.dtype) + int(shifted), nothing),
        "worst_token_loss": torch.where(n > 0, worst.amax(1), nothing),
    }


def _entropy(head: Head, values: Tensor, known: Tensor) -> Tensor:
    """The mean entropy over a sample's places: one sample at a time, since a vocabulary's probabilities are large."""
    p = head.at_places(values.unsqueeze(0))[0]
    each = -torch.where(p > 0, p * p.log(), torch.zeros_like(p)).sum(0)
    return torch.where(known, each, torch.zeros_like(each)).sum() / known.sum().clamp(min=1)
