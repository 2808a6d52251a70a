"""What follows from a batch's logits or probabilities: prediction, correctness, loss, margin and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words


def derive(
    scores: NDArray[Any], label: NDArray[Any] | None, *, are_logits: bool, with_loss: bool = True
) -> tuple[NDArray[np.int32], dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Everything derived, in numpy.

    Args:
        scores: (N, K) logits or probabilities.
        label: (N,) class indices, or None; one outside [0, K) (an ignore index) has NaN for all that needs it.
        are_logits: Whether the scores are logits.
        with_loss: Whether the cross entropy is wanted.

    Returns:
        (N,) predictions; {metric: (N,) float32}; (N, K) probabilities. Without a label only `top_prob` and `entropy`.
        `el2n` is the norm of probabilities minus the one-hot label (Paul et al. 2021, arXiv:2107.07075); `margin` the
        label's score minus the largest other (Pleiss et al. 2020, arXiv:2001.10528).

    Raises:
        ValueError: The scores are not (N, K), or there is not one label a row.
    """
    z = np.ascontiguousarray(_two_dimensional(scores, "logits" if are_logits else "probs"), np.float32)
    n, k = z.shape
    prediction = z.argmax(axis=1).astype(np.int32)
    rows = np.arange(n)
    top = z[rows, prediction]
    if are_logits:
        shifted = z - top[:, None]
        p = np.exp(shifted)
        total = p.sum(axis=1)
        log_total = np.log(total)
        p /= total[:, None]
        # sum p (log total - shifted), with 0 * inf = 0 for a class ruled out by -inf.
        entropy = log_total - np.einsum("ij,ij->i", p, np.where(p > 0, shifted, 0))
        top_prob = 1 / total
    else:
        p = z
        entropy = -np.einsum("ij,ij->i", p, np.log(np.where(p > 0, p, 1)))
        top_prob = top
    metrics = {words.TOP_PROB: top_prob, words.ENTROPY: entropy}
    if label is not None:
        if len(label) != n:
            raise ValueError(f"label has {len(label)} values for {n} rows of scores")
        known = (label >= 0) & (label < k)
        y = np.where(known, label, 0)
        at_label = z[rows, y]
        label_prob = p[rows, y]
        if with_loss and are_logits:
            metrics[words.LOSS] = log_total - shifted[rows, y]
        elif with_loss:
            with np.errstate(divide="ignore"):
                metrics[words.LOSS] = -np.log(label_prob)
        metrics[words.LABEL_PROB] = label_prob
        metrics[words.MARGIN] = at_label - _largest_other(z, y, prediction, top)
        # |p - onehot|^2 = |p|^2 - 2 p_y + 1, which cancels badly where p_y is near 1.
        difference = p.copy()
        difference[rows, y] -= 1
        metrics[words.EL2N] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        if not known.all():
            metrics |= {name: np.where(known, metrics[name], np.nan) for name in _NEED_LABEL if name in metrics}
    return prediction, {name: value.astype(np.float32, copy=False) for name, value in metrics.items()}, p


_NEED_LABEL = (words.LOSS, words.LABEL_PROB, words.MARGIN, words.EL2N)


def _largest_other(
    z: NDArray[np.float32], y: NDArray[Any], prediction: NDArray[np.int32], top: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N,) the largest score of a class other than the label; -inf where there is only one class."""
    others = z.copy()
    others[np.arange(len(z)), y] = -np.inf
    del prediction, top
    return others.max(axis=1)  # type: ignore[no-any-return]


def _two_dimensional(scores: NDArray[Any], name: str) -> NDArray[Any]:
    if scores.dtype.kind not in "fiub":
        raise ValueError(f"{name} is not numeric: {scores.dtype}")
    if scores.ndim == 1 and len(scores):
        return scores[None, :]
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"{name} has shape {scores.shape}; (samples, classes) is needed")
    return scores
