"""What follows from a batch's logits or probabilities: prediction, correctness, loss, margin and their kin."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.wal.frames import MISSING, NULL_INT, is_missing

Floats = NDArray[np.float32]

_NEED_LABEL = (words.LOSS, words.LABEL_PROB, words.MARGIN, words.EL2N)
_MANY = 2048
_LEAST_HALF = np.float32(2**-14)
_LEAST = np.float32(-1e4)
"""Below this a float32 `exp` is 0 by far: stands for -inf where a product with 0 must be 0."""


class Derived(NamedTuple):
    """What was derived.

    Attributes:
        prediction: (N,) class indices, `NULL_INT` where a score is NaN: no class is the largest then.
        metrics: {metric: (N,)}; without a label only `top_prob` and `entropy`.
        probs: (N, K) class probabilities.
    """

    prediction: NDArray[np.int32]
    metrics: dict[str, Floats]
    probs: Floats


def derive(scores: NDArray[Any], label: NDArray[Any] | None, *, are_logits: bool, with_loss: bool = True) -> Derived:
    """Everything derived, in numpy.

    `loss` is the cross entropy; `margin` the label's score minus the largest other (Pleiss et al. 2020,
    arXiv:2001.10528), of logits or of probabilities as given; `el2n` the norm of the probabilities minus the one-hot
    label (Paul et al. 2021, arXiv:2107.07075); `entropy` in nats.

    Args:
        scores: (N, K) logits or probabilities.
        label: (N,) class indices, or None; one outside [0, K) (an ignore index) has NaN for all that needs it.
        are_logits: Whether the scores are logits.
        with_loss: Whether the cross entropy is wanted.

    Raises:
        ValueError: The scores are not (N, K), or there is not one label a row.
    """
    scores = two_dimensional(scores, "logits" if are_logits else "probs")
    if label is not None and len(label) != len(scores):
        raise ValueError(f"label has {len(label)} values for {len(scores)} rows of scores")
    with np.errstate(all="ignore"):
        if are_logits and scores.shape[1] > _MANY:
            made = _from_many_logits(scores, label, with_loss)
        else:
            made = _from_logits(scores, label, with_loss) if are_logits else _from_probs(scores, label, with_loss)
    return _without_missing(made, scores)


def _without_missing(made: Derived, scores: NDArray[Any]) -> Derived:
    """What was derived, missing where the scores of a sample are."""
    gone = is_missing(scores[:, 0])
    if gone is not None:
        for name, values in made.metrics.items():
            made.metrics[name] = np.where(gone, MISSING, values)
        made.probs[gone] = MISSING
    return made


def _from_logits(scores: NDArray[Any], label: NDArray[Any] | None, with_loss: bool) -> Derived:
    # (K, N): reductions over classes then run along contiguous samples, some times faster for few classes.
    z = np.array(scores.T, np.float32, order="C")
    top = np.maximum.reduce(z, 0)
    z -= top
    e = np.exp(z)
    total = np.add.reduce(e, 0)
    log_total = np.log(total)
    # -sum p log p = log total - sum e z / total, where a class ruled out by -inf adds 0 and not 0 * inf.
    entropy = log_total - np.einsum("kn,kn->n", e, np.maximum(z, _LEAST)) / total
    metrics = {words.TOP_PROB: 1 / total, words.ENTROPY: entropy}
    probs = (e / total).T
    if label is not None:
        place, known = _places(label, *z.shape)
        at_label = z.take(place)
        if with_loss:
            metrics[words.LOSS] = log_total - at_label
        metrics[words.LABEL_PROB] = e.take(place) / total
        metrics[words.MARGIN] = at_label - _largest_other(z, place)
        metrics[words.EL2N] = _el2n(e, place) / total
        _blank(metrics, known)
    return Derived(predictions(scores, top, are_logits=True), metrics, probs)


def predictions(scores: NDArray[Any], top: Floats, *, are_logits: bool) -> NDArray[np.int32]:
    """(N,) the class of the largest score; none in a row that says nothing, of which `argmax` makes the first class.

    A row says nothing where a score is NaN, where several are +inf, where all are -inf, and where all probabilities
    are 0. Equal finite scores are a tie, of which the first class is taken.

    Args:
        scores: (N, K) logits or probabilities.
        top: (N,) the largest of each row.
        are_logits: Whether the scores are logits.
    """
    found: NDArray[np.int32] = scores.argmax(axis=1).astype(np.int32)
    odd = ~np.isfinite(top)
    if not are_logits:
        odd |= top == 0
    if odd.any():
        some = scores[odd]
        largest = some.max(axis=1, keepdims=True)
        shared = (some == largest).sum(1) > 1
        silent = np.isnan(largest[:, 0]) | (shared & (np.isinf(largest[:, 0]) | (largest[:, 0] == 0)))
        found[np.flatnonzero(odd)[silent]] = NULL_INT
    return found


def _from_many_logits(scores: NDArray[Any], label: NDArray[Any] | None, with_loss: bool) -> Derived:
    """As `_from_logits`, row by row: of many classes turning the scores around would take longest."""
    n, k = scores.shape
    names = [words.TOP_PROB, words.ENTROPY]
    if label is not None:
        names += [name for name in _NEED_LABEL if with_loss or name != words.LOSS]
    metrics = {name: np.empty(n, np.float32) for name in names}
    probs, prediction = np.empty((n, k), np.float32), np.empty(n, np.int32)
    known: NDArray[np.bool_] | None = None
    y = np.zeros(n, np.intp)
    if label is not None:
        known = (label >= 0) & (label < k)
        y = np.where(known, label, 0).astype(np.intp)
    for i in range(n):
        z = scores[i].astype(np.float32)
        top = int(z.argmax())
        z -= z[top]
        e = np.exp(z)
        total = np.add.reduce(e)
        log_total = np.log(total)
        np.divide(e, total, out=probs[i])
        prediction[i] = predictions(scores[i : i + 1], total[None], are_logits=True)[0] if np.isnan(total) else top
        metrics[words.TOP_PROB][i] = 1 / total
        at = y[i]
        at_label, e_label = z[at], e[at]
        if label is not None:
            if with_loss:
                metrics[words.LOSS][i] = log_total - at_label
            metrics[words.LABEL_PROB][i] = e_label / total
            e[at] = 0
            others = np.add.reduce(e)
            metrics[words.EL2N][i] = np.sqrt(e @ e + others * others) / total
            e[at] = e_label
            z[at] = -np.inf
            metrics[words.MARGIN][i] = at_label - z[top if top != at else int(z.argmax())]
            z[at] = at_label
        metrics[words.ENTROPY][i] = log_total - (e @ np.maximum(z, _LEAST, out=z)) / total
    if known is not None:
        _blank(metrics, known)
    return Derived(prediction, metrics, probs)


def _from_probs(scores: NDArray[Any], label: NDArray[Any] | None, with_loss: bool) -> Derived:
    p = np.array(scores.T, np.float32, order="C")
    entropy = -np.einsum("kn,kn->n", p, np.log(np.where(p > 0, p, 1)))
    top = np.maximum.reduce(p, 0)
    metrics = {words.TOP_PROB: top, words.ENTROPY: entropy}
    probs = np.ascontiguousarray(scores, np.float32)
    if label is not None:
        place, known = _places(label, *p.shape)
        at_label = p.take(place)
        if with_loss:
            metrics[words.LOSS] = -np.log(at_label)
        metrics[words.LABEL_PROB] = at_label
        metrics[words.EL2N] = _el2n(p.copy(), place, rest=1 - at_label)
        metrics[words.MARGIN] = at_label - _largest_other(p, place)
        _blank(metrics, known)
    return Derived(predictions(scores, top, are_logits=False), metrics, probs)


@lru_cache(maxsize=8)
def _rows(n: int) -> NDArray[np.intp]:
    return np.arange(n)


def _places(label: NDArray[Any], k: int, n: int) -> tuple[NDArray[np.intp], NDArray[np.bool_] | None]:
    """Where each sample's label lies in a flattened (K, N) array, and which labels are classes; None when all are."""
    y = label.astype(np.intp)
    known = None
    # As unsigned numbers, negative labels are large: one comparison finds both kinds of unknown labels.
    if n and np.maximum.reduce(y.view(np.uintp)) >= k:
        known = (y >= 0) & (y < k)
        y = np.where(known, y, 0)
    y *= n
    y += _rows(n)
    return y, known


def _largest_other(z: Floats, place: NDArray[np.intp]) -> Floats:
    """(N,) the largest score of a class other than the label, -inf where there is only one class; changes `z`."""
    z.put(place, -np.inf)
    return np.maximum.reduce(z, 0)  # type: ignore[no-any-return]


def _el2n(e: Floats, place: NDArray[np.intp], rest: Floats | None = None) -> Floats:
    """(N,) the norm of `e` without the label's entry and of the sum of these others in its place; changes `e`.

    1 - p_y is the sum of the other probabilities, which does not cancel where p_y is near 1.
    """
    e.put(place, 0)
    others = np.add.reduce(e, 0) if rest is None else rest
    return np.sqrt(np.einsum("kn,kn->n", e, e) + others * others)  # type: ignore[no-any-return]


def _blank(metrics: dict[str, Floats], known: NDArray[np.bool_] | None) -> None:
    if known is not None:
        for name in _NEED_LABEL:
            if name in metrics:
                metrics[name] = np.where(known, metrics[name], MISSING)


def as_half(probs: Floats) -> NDArray[np.float16]:
    """Probabilities in half precision, rounded as numpy rounds, which takes ten times as long on very small ones.

    Args:
        probs: Any shape, none negative.
    """
    small = probs < _LEAST_HALF
    wide = np.where(small, np.float32(0), probs)
    half = wide.astype(np.float16)
    # A half below its smallest normal number counts units of 2^-24 in its bits.
    units = np.rint(np.where(small, probs, np.float32(0)) * np.float32(2**24)).astype(np.uint16)
    bits = half.view(np.uint16)
    bits |= units
    return half


def two_dimensional(scores: NDArray[Any], name: str) -> NDArray[Any]:
    """(N, K) of scores; a single row is a batch of one.

    Raises:
        ValueError: They are no numbers, or not of this shape.
    """
    if scores.dtype.kind not in "fiub":
        raise ValueError(f"{name} is not numeric: {scores.dtype}")
    if scores.ndim == 1 and len(scores):
        return scores[None, :]
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"{name} has shape {scores.shape}; (samples, classes) is needed")
    return scores


class Sets(NamedTuple):
    """What follows from the scores of a multilabel output.

    Attributes:
        prediction: The classes of each sample with a probability above one half; None where one is NaN.
        metrics: {metric: (N,)}.
    """

    prediction: list[NDArray[np.int32] | None]
    metrics: dict[str, Floats]


def multilabel(
    scores: NDArray[Any], labels: list[NDArray[np.int32] | None] | None, classes: int, *, are_logits: bool
) -> Sets:
    """The predicted sets, and the mean binary cross entropy over the classes.

    Args:
        scores: (N, K) logits or probabilities, each class for itself.
        labels: The true classes of each sample, or None.
        classes: K.
        are_logits: Whether the scores are logits.
    """
    z = np.asarray(scores, np.float64)
    positive = z > (0 if are_logits else 0.5)
    metrics: dict[str, Floats] = {}
    if labels is not None:
        truth = np.zeros((len(z), classes), bool)
        known = np.array([one is not None and bool((one < classes).all()) for one in labels])
        for row, one in zip(truth, labels, strict=True):
            if one is not None:
                row[one[one < classes]] = True
        with np.errstate(all="ignore"):
            if are_logits:
                each = np.maximum(z, 0) - z * truth + np.log1p(np.exp(-np.abs(z)))
            else:
                each = -np.where(truth, np.log(z), np.log1p(-z))
        gone = is_missing(z[:, 0])
        known = known if gone is None else known & ~gone
        metrics[words.LOSS] = np.where(known, each.mean(1), MISSING).astype(np.float32)
    unknown = np.isnan(z.sum(1))
    sets = [None if no else np.flatnonzero(row).astype(np.int32) for row, no in zip(positive, unknown, strict=True)]
    return Sets(sets, metrics)


def compare_sets(
    labels: list[NDArray[np.int32] | None], predictions: list[NDArray[np.int32] | None]
) -> tuple[dict[str, Floats], Floats]:
    """`jaccard` (1 where both are empty) and `n_wrong` (classes that differ), and whether sets are equal; NaN where
    unknown.
    """
    jaccard: list[float] = []
    wrong: list[float] = []
    correct: list[float] = []
    for label, prediction in zip(labels, predictions, strict=True):
        if label is None or prediction is None:
            for column in (jaccard, wrong, correct):
                column.append(float(MISSING))
            continue
        both = len(np.intersect1d(label, prediction))
        either = len(label) + len(prediction) - both
        jaccard.append(both / either if either else 1.0)
        wrong.append(float(either - both))
        correct.append(float(either == both))
    metrics = {"jaccard": np.array(jaccard, np.float32), "n_wrong": np.array(wrong, np.float32)}
    return metrics, np.array(correct, np.float32)


def regression(label: NDArray[np.float64], prediction: NDArray[np.float64]) -> dict[str, Floats]:
    """`residual` (label minus prediction), `abs_error` and `loss` (the squared error).

    Args:
        label: (N,).
        prediction: (N,).
    """
    residual = label - prediction
    made = {"residual": residual, "abs_error": np.abs(residual), words.LOSS: residual * residual}
    with np.errstate(over="ignore"):
        return {name: values.astype(np.float32) for name, values in made.items()}


class Tokens(NamedTuple):
    """What follows from the scores of a sequence.

    Attributes:
        metrics: {metric: (N,)}.
        tokens: The loss of each token that counts, one array a sample; None where its scores or labels are missing.
    """

    metrics: dict[str, Floats]
    tokens: list[NDArray[np.float32] | None]


def sequence(scores: NDArray[Any], labels: NDArray[np.int64], ignored: int, *, are_logits: bool) -> Tokens:
    """Per sample, over the tokens that count: `loss` (mean cross entropy), `label_prob` (geometric mean), `n_tokens`,
    `token_accuracy`, `entropy` (mean), `worst_token` (its place) and `worst_token_loss`.

    Args:
        scores: (N, T, K) logits or probabilities; nothing follows where a sample's are missing.
        labels: (N, T) classes; `ignored` ones, and those outside [0, K), do not count; `NULL_INT` where a sample's are
            missing.
        ignored: The label of a place that does not count.
        are_logits: Whether the scores are logits.
    """
    n, _, classes = scores.shape
    valid = (labels != ignored) & (labels >= 0) & (labels < classes)
    names = (
        words.LOSS,
        words.LABEL_PROB,
        "n_tokens",
        "token_accuracy",
        words.ENTROPY,
        "worst_token",
        "worst_token_loss",
    )
    made = {name: np.full(n, MISSING, np.float32) for name in names}
    kept: list[NDArray[np.float32] | None] = []
    gone = (labels == NULL_INT).all(1) & bool(labels.shape[1])
    if scores.size and (without := is_missing(scores[:, 0, 0])) is not None:
        gone = gone | without
    for i in range(n):  # one sample at a time: a batch's logits may be all the memory there is
        if gone[i]:
            kept.append(None)
            continue
        places = np.flatnonzero(valid[i])
        made["n_tokens"][i] = len(places)
        kept.append(np.zeros(0, np.float32))
        if not len(places):
            continue
        z, y = np.asarray(scores[i][places], np.float32), labels[i][places]
        found = predictions(z, z.max(1), are_logits=are_logits)
        with np.errstate(all="ignore"):
            if are_logits:
                z = z - z.max(1, keepdims=True)
                log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
            else:
                log_p = np.log(z)
            p = np.exp(log_p)
            entropy = -np.where(p == 0, 0, p * log_p).sum(1)
        losses = -log_p[np.arange(len(y)), y]
        worst = int(losses.argmax())
        accuracy = np.nan if (found == NULL_INT).any() else (found == y).mean()
        values = (losses.mean(), np.exp(-losses.mean()), len(y), accuracy, entropy.mean())
        for name, value in zip(names, (*values, places[worst], losses[worst]), strict=True):
            made[name][i] = value
        kept[-1] = losses
    return Tokens(made, kept)


def soften(
    made: Derived, scores: NDArray[Any], soft: NDArray[np.float32], *, are_logits: bool, with_loss: bool
) -> Derived:
    """What was derived for the largest class of each soft label, with what the whole label says in its place.

    `loss` is the soft cross entropy, `label_prob` the expected probability, `el2n` the norm of probabilities minus
    label.

    Args:
        made: What was derived for the largest class.
        scores: (N, K) logits or probabilities.
        soft: (N, K) label probabilities, NaN in rows that are missing.
        are_logits: Whether the scores are logits.
        with_loss: Whether the cross entropy is wanted.
    """
    with np.errstate(all="ignore"):
        if are_logits:
            z = np.asarray(scores, np.float32)
            z = z - z.max(1, keepdims=True)
            log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        else:
            log_p = np.log(np.asarray(scores, np.float32))
        metrics = dict(made.metrics)
        if with_loss:
            metrics[words.LOSS] = -np.where(soft > 0, soft * log_p, 0).sum(1)
    metrics[words.LABEL_PROB] = (soft * made.probs).sum(1)
    metrics[words.EL2N] = np.sqrt(((made.probs - soft) ** 2).sum(1))
    _blank(metrics, ~np.isnan(soft[:, 0]))
    return _without_missing(made._replace(metrics=metrics), scores)
