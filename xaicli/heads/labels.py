"""What kind of labels samples have: told from their type and shape, so that a head need not guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np


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
    SETS = "sets of classes"
    """(N, K) of 0 and 1, or lists of classes."""
    SOFT = "probabilities of classes"
    """(N, K) of real numbers."""
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
        if is_real:
            return Labels(Kind.ZERO_ONE_NUMBERS if all_zero_one else Kind.NUMBERS)
        return Labels(Kind.YES_NO if all_zero_one else Kind.CLASSES)
    if len(shape) == 1 and all_zero_one:
        return Labels(Kind.SETS, shape)
    return Labels(Kind.SOFT if is_real else Kind.PLACES, shape)


def _items(labels: Any) -> Sequence[Any]:
    return labels if isinstance(labels, (list, tuple)) else list(labels)


def _plain(label: Any) -> Any:
    return label.detach().cpu().numpy() if hasattr(label, "detach") else label
