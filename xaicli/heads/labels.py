"""What kind of labels samples have: told from their type and shape, so that a head need not guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

_SUM = 5e-3
"""How far from 1 the sum of a row of probabilities may be: labels may have been written in half precision."""


class Kind(Enum):
    """What labels are."""

    NONE = "no labels"
    CLASSES = "classes"
    """One whole number a sample."""
    NAMES = "names of classes"
    """One text a sample."""
    YES_NO = "zeros and ones"
    """One whole number a sample, 0 or 1: a class, or yes and no."""
    NUMBERS = "numbers"
    """One real number a sample."""
    ZERO_ONE_NUMBERS = "real numbers that are all 0 or 1"
    """A class written as a float, or a value: which cannot be told."""
    WHOLE_NUMBERS = "whole numbers written as real ones"
    """One a sample: classes where the model tells several apart, else values."""
    SETS = "sets of classes"
    """(N, K) of 0 and 1, or lists of classes."""
    ONE_HOT = "one class of several, as a one among zeros"
    """(N, K) of 0 and 1, a single 1 in each row: classes, or sets of one class each."""
    SOFT = "probabilities of classes"
    """(N, K) of real numbers that are distributions: none below 0, each row of sum 1."""
    PARTS = "real numbers from 0 to 1"
    """(N, K) that are no distributions: values, or how much there is of each class."""
    VALUES = "several real numbers"
    """(N, K), some below 0 or above 1."""
    PLACES = "a class at every place"
    """(N, ...) of whole numbers."""


@dataclass(frozen=True)
class Labels:
    """What is known of labels.

    Attributes:
        kind: What they are.
        shape: Their shape without the samples.
    """

    kind: Kind
    shape: tuple[int, ...] = ()


def kind_of(labels: Any) -> Labels:
    """What labels are: a tensor or array (N, ...), or a sequence of numbers, names, lists or None.

    Missing labels (None) and ignored ones (below 0) say nothing.
    """
    if labels is None:
        return Labels(Kind.NONE)
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().float().numpy() if labels.dtype.is_floating_point else labels.cpu().numpy()
    if not isinstance(labels, np.ndarray):
        known = [label for label in _items(labels) if label is not None]
        if not known:
            return Labels(Kind.NONE)
        if any(isinstance(label, str) for label in known):
            return Labels(Kind.NAMES)
        sized = [label for label in known if isinstance(label, (list, tuple, set, frozenset))]
        if len({len(label) for label in sized}) > 1 or any(isinstance(label, (set, frozenset)) for label in sized):
            return Labels(Kind.SETS)
        try:
            labels = np.asarray([_plain(label) for label in known])
        except ValueError:
            return Labels(Kind.SETS)
    return _of_array(labels)


def _of_array(labels: np.ndarray[Any, Any]) -> Labels:
    if labels.dtype.kind not in "fiub":
        return Labels(Kind.NAMES if labels.size else Kind.NONE)
    shape = labels.shape[1:]
    if shape == (1,):
        labels, shape = labels[:, 0], ()
    is_real = labels.dtype.kind == "f"
    known = labels[np.isfinite(labels)] if is_real else labels[labels >= 0] if labels.dtype.kind == "i" else labels
    if not known.size:
        return Labels(Kind.NONE)
    all_zero_one = bool(((known == 0) | (known == 1)).all())
    if not shape:
        if is_real and not all_zero_one:
            return Labels(Kind.WHOLE_NUMBERS if bool((known == np.floor(known)).all()) else Kind.NUMBERS)
        return Labels(
            Kind.ZERO_ONE_NUMBERS if is_real else Kind.YES_NO if all_zero_one else Kind.CLASSES,
        )
    if len(shape) == 1 and all_zero_one:
        # A number below 0 leaves one of several open: it is no row of one class.
        is_one = known.size == labels.size and bool((labels.sum(1) == 1).all())
        return Labels(Kind.ONE_HOT if is_one else Kind.SETS, shape)
    at_places = not is_real or (len(shape) > 1 and bool((known == np.floor(known)).all()))  # masks written as floats
    return Labels(Kind.PLACES if at_places else _of_reals(labels, known), shape)


def _of_reals(labels: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> Kind:
    """What rows of real numbers are; a row with a number that is not finite says nothing."""
    if known.min() < 0 or known.max() > 1:
        return Kind.VALUES
    sums = labels.reshape(len(labels), -1).sum(1)
    sums = sums[np.isfinite(sums)]
    return Kind.SOFT if bool((np.abs(sums - 1) <= _SUM).all()) else Kind.PARTS


def _items(labels: Any) -> Sequence[Any]:
    return labels if isinstance(labels, (list, tuple)) else list(labels)


def _plain(label: Any) -> Any:
    return label.detach().cpu().numpy() if hasattr(label, "detach") else label
