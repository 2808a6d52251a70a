"""What follows from scores on a device, worked out where they are: loss, margin and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xaicli import vocabulary as words
from xaicli.wal.frames import MISSING, NULL_INT

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 22
"""Scores that are looked at together, so that what is allocated on the device is bounded: 16 MB of float32."""
_LEAST = -1e4
"""Below this a float32 `exp` is 0 by far: stands for -inf where a product with 0 must be 0."""


def missing_on(device: torch.device) -> torch.Tensor:
    """What stands for no value, () float32: made of its bits, since a device makes another NaN of one it converts."""
    import torch

    return torch.full((), int(MISSING.view(np.int32)), dtype=torch.int32, device=device).view(torch.float32)


def derive_on_device(
    scores: torch.Tensor, label: torch.Tensor | None, *, are_logits: bool, with_loss: bool, ignored: int | None = None
) -> dict[str, torch.Tensor]:
    """What `xaicli.wal.derived.derive` computes, by a few kernels where the scores are, without waiting for them.

    At most three times `CHUNK` numbers are allocated at a time, beside the (N,) results.

    Args:
        scores: (N, K) logits or probabilities.
        label: (N,) class indices on the scores' device, or None.
        are_logits: Whether the scores are logits.
        with_loss: Whether the cross entropy is wanted.
        ignored: The label that stands for none.

    Returns:
        {column: (N,)}, the prediction among them.
    """
    import torch

    with torch.no_grad():
        scores = scores.detach()
        rows = max(1, CHUNK // scores.shape[1])
        pieces = []
        for at in range(0, max(1, len(scores)), rows):
            y = None if label is None else label[at : at + rows].long()
            pieces.append(_derived_rows(scores[at : at + rows], y, are_logits, with_loss, ignored))
        if len(pieces) == 1:
            return pieces[0]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def derive_sequences_on_device(
    scores: torch.Tensor, label: torch.Tensor, *, are_logits: bool, ignored: int, first: int = 0
) -> dict[str, torch.Tensor]:
    """What `xaicli.wal.derived.sequence` computes, where the scores are: a vocabulary's are too many to be brought.

    Args:
        scores: (N, T, K) logits or probabilities.
        label: (N, T) classes on the scores' device; `ignored` ones, and those outside [0, K), do not count.
        are_logits: Whether the scores are logits.
        ignored: The label of a place that does not count.
        first: What the first place is counted as.

    Returns:
        {metric: (N,) float32}.
    """
    import torch

    with torch.no_grad():
        n, places, classes = scores.shape
        # Of a part of a larger tensor, such as all places but the last, no copy is made.
        pieces = [scores.reshape(n * places, classes)] if scores.is_contiguous() else list(scores)
        labels = label.reshape(len(pieces), -1)
        each = [
            derive_on_device(piece, y, are_logits=are_logits, with_loss=True, ignored=ignored)
            for piece, y in zip(pieces, labels, strict=True)
        ]
        loss, entropy, predicted = (
            torch.cat([one[name] for one in each]).reshape(n, places)
            for name in (words.LOSS, words.ENTROPY, words.PREDICTION)
        )
        known = (label >= 0) & (label < classes) & (label != ignored)
        count, none = known.sum(1), missing_on(scores.device)
        some, of = count > 0, count.clamp(min=1)
        mean = torch.where(known, loss, 0.0).sum(1) / of
        worst = torch.where(known, loss, -torch.inf).max(1)
        right = ((predicted == label) & known).sum(1) / of
        broken = ((predicted == NULL_INT) & known).any(1)  # a place that says nothing predicts nothing
        found = {
            words.LOSS: mean,
            words.LABEL_PROB: (-mean).exp(),
            "token_accuracy": torch.where(broken, torch.nan, right),
            words.ENTROPY: torch.where(known, entropy, 0.0).sum(1) / of,
            "worst_token": (worst.indices + first).float(),
            "worst_token_loss": worst.values,
        }
        return {name: torch.where(some, value, none) for name, value in found.items()} | {"n_tokens": count.float()}


def _derived_rows(
    z: torch.Tensor, y: torch.Tensor | None, are_logits: bool, with_loss: bool, ignored: int | None
) -> dict[str, torch.Tensor]:
    """`derive_on_device` of rows that are looked at together."""
    import torch

    classes = z.shape[1]
    z = z if z.is_floating_point() else z.float()
    # `max` gives the first of equal scores on every device, `topk` any of them; of bf16 scores many are equal.
    largest, first = z.max(1, keepdim=True)
    second = z.scatter(1, first, -torch.inf).amax(1, keepdim=True)
    log_p = torch.log_softmax(z, 1, dtype=torch.float32) if are_logits else z.float().log()
    p = log_p.exp() if are_logits else z.float()
    # What says nothing predicts nothing, as in `xaicli.wal.derived.predictions`: the two largest, of which NaN is one,
    # have no difference.
    silent = (largest - second).isnan() if classes > 1 else largest.isnan()
    if not are_logits and classes > 1:
        silent = silent | (largest == 0)
    found = {words.PREDICTION: torch.where(silent, NULL_INT, first.int())[:, 0]}
    if y is None:
        found[words.TOP_PROB] = p.gather(1, first)[:, 0]
        found[words.ENTROPY] = _entropy(p, log_p)
        return found
    at = y.clamp(0, classes - 1)
    known = at == y
    if ignored is not None and 0 <= ignored < classes:
        known = known & (y != ignored)
    at = at[:, None]
    of_both = p.gather(1, torch.cat((first, at), 1))
    found[words.TOP_PROB] = of_both[:, 0]
    of_label = {words.LABEL_PROB: of_both[:, 1]}
    if with_loss:
        of_label[words.LOSS] = -log_p.gather(1, at)[:, 0]
    of_label[words.MARGIN] = (z.gather(1, at).float() - torch.where(first == at, second, largest).float())[:, 0]
    found[words.ENTROPY] = _entropy(p, log_p)
    # 1 - p_y is the sum of the others, which does not cancel where p_y is near 1.
    others = p.scatter_(1, at, 0.0) if are_logits or p is not z else p.scatter(1, at, 0.0)
    rest = others.sum(1) if are_logits else 1 - of_label[words.LABEL_PROB]
    of_label[words.EL2N] = torch.hypot(torch.linalg.vector_norm(others, dim=1), rest)
    # What stands for no value is told by its bits: a device makes another NaN of one it converts.
    bits = torch.where(known, torch.stack(list(of_label.values())).view(torch.int32), int(MISSING.view(np.int32)))
    return found | dict(zip(of_label, bits.view(torch.float32).unbind(), strict=True))


def _entropy(p: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """(N,) -p log p summed, without another (N, K): where p is 0 the logarithm counts for nothing; changes `log_p`."""
    return log_p.clamp_(min=_LEAST).mul_(p).sum(1).neg_()
