"""What a caller hands over, as checked numpy columns; `tables/containers.py` reads what they are held in."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from xaicli.heads.head import Task
from xaicli.tables.containers import is_tensor, native, read, tensor_to_array
from xaicli.wal.frames import MISSING

Texts = list[str | None]
Column = NDArray[Any] | Texts

_INT32 = np.iinfo(np.int32)
_MISSING = float(MISSING)
_BYTES = ("B", "b", "c")
"""How a memoryview says that it is of bytes."""
EXACT_WIDE = 2**53
"""Whole numbers beyond this are not all float64."""
_INT64_MAX = np.iinfo(np.int64).max
NULL_LABEL = int(_INT32.min)
"""What stands for a missing label among whole ones; no label may be it."""


def is_remote(value: object) -> bool:
    """Whether a value is a tensor on a CUDA device, from which copies need not wait; never loads torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.is_cuda


def to_array(value: Any, name: str) -> NDArray[Any]:
    """Any array-like as a numpy array of this machine's byte order, without a copy where there need be none.

    Raises:
        ValueError: It is ragged or no array at all.
    """
    if type(value) is np.ndarray and value.dtype.kind != "O":
        return native(value)
    if _is_raw(value):
        raise ValueError(f"{name} is bytes, not one value a sample: {type(value).__name__}")
    try:
        held = read(value)
        return tensor_to_array(held) if is_tensor(held) else native(np.asarray(held))
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        lengths = _lengths(value)
        if lengths is not None and len(lengths) > 1:
            raise ValueError(f"{name} has rows of different lengths, {min(lengths)} to {max(lengths)}") from error
        raise ValueError(f"{name} is no column: {error}") from error


def _is_raw(value: Any) -> bool:
    """Whether a value is a buffer of bytes, which as an array would be numbers."""
    return isinstance(value, bytearray) or (isinstance(value, memoryview) and value.format in _BYTES)


def _lengths(value: Any) -> set[int] | None:
    """The lengths of the rows that a list is of; None where it is of other things."""
    if not isinstance(value, list | tuple) or not all(row is None or hasattr(row, "__len__") for row in value):
        return None
    return {len(row) for row in value if row is not None and not isinstance(row, str)}


def of_length(column: Any, n: int, name: str) -> Any:
    """A column, if it has as many values as there are ids.

    Raises:
        ValueError: It has not.
    """
    if len(column) != n:
        raise ValueError(f"{name} has {len(column)} values for {n} sample ids")
    return column


def one_dimensional(array: NDArray[Any], name: str) -> NDArray[Any]:
    """(N,) of an array of shape (N,), (N, 1) or (): a single value is a batch of one.

    Raises:
        ValueError: It has more values a sample.
    """
    if array.ndim == 1:
        return array
    if array.ndim == 0 or (array.ndim == 2 and array.shape[1] == 1):
        return array.reshape(-1)
    raise ValueError(f"{name} has shape {array.shape}; one value a sample is needed, of several log each as a metric")


class Ids(NamedTuple):
    """The ids of a batch.

    Attributes:
        column: (N,) int64 or texts; those that are none are filled.
        usable: (N,) which of them are ids; None where all are.
        reasons: {why one is no id: how many}.
    """

    column: Column
    usable: NDArray[np.bool_] | None = None
    reasons: Mapping[str, int] = MappingProxyType({})


def ids(value: Any, kind: str | None = None) -> Ids:
    """(N,) int64 or texts; one that is no id costs the others nothing.

    Args:
        value: What the caller gave.
        kind: "int64" or "string", the run's kind, which tells who is the odd one among numbers and texts.

    Raises:
        ValueError: None of them is a whole number of 64 bits or a text.
    """
    value = read(value)
    try:
        return Ids(_every_id(value))
    except ValueError:
        items = items_of(value)
        if items is None or len(items) < 2:
            raise
        alone, reasons = each_alone(items, _every_id, kind, "sample_id")
        if all(item is None for item in alone):
            raise
    filled = next(item for item in alone if item is not None)
    column = _every_id([filled if item is None else item for item in alone])
    return Ids(column, np.array([item is not None for item in alone]), reasons)


def is_real_column(value: Any) -> bool:
    """Whether a column is an array of real numbers, (N,), of which there are any."""
    array = read(value)
    return isinstance(array, np.ndarray) and array.ndim == 1 and bool(array.size) and array.dtype.kind == "f"


def items_of(value: Any) -> list[Any] | None:
    """The values of a batch as single ones, real numbers with their precision; None where it has no such."""
    value = read(value)
    if isinstance(value, np.ndarray):
        return None if value.ndim != 1 else list(value) if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, str | bytes) or _is_raw(value):
        return None
    return list(value) if isinstance(value, Sequence) else None


def each_alone(
    items: Sequence[Any], check: Callable[[Any], Column], kind: str | None, name: str
) -> tuple[list[Any], dict[str, int]]:
    """The values that pass a check when asked one by one, None in place of the others, and why those do not.

    Args:
        items: The values.
        check: Makes a column of a list, or raises ValueError.
        kind: "string", or another; that of the first value which passes when None.
        name: What the column is called.
    """
    found: list[Any] = []
    reasons: Counter[str] = Counter()
    for item in items:
        try:
            column = check([item])
            text = isinstance(column, list)
            is_missing = item is None or (isinstance(item, float | np.floating) and np.isnan(item))
            if not is_missing:  # which is of either kind
                kind = kind or ("string" if text else "number")
                if text != (kind == "string"):
                    raise ValueError(f"{name} mixes whole numbers and texts")
            one = column[0] if isinstance(column, list) else column[0].item()
            found.append(None if is_missing and not isinstance(one, float) else one)
        except ValueError as error:
            reasons[str(error)] += 1
            found.append(None)
    return found, dict(reasons)


def _every_id(value: Any) -> Column:
    """(N,) int64 or texts.

    Raises:
        ValueError: One of them is neither.
    """
    if isinstance(value, list | tuple):
        if any(item is None for item in value):
            raise ValueError("sample_id has a missing value")
        if any(isinstance(item, bool | np.bool_) for item in value):
            raise ValueError("sample_id must be whole numbers or texts, not truth values")
    array = _integers_or_texts(value, "sample_id")
    if isinstance(array, list):
        if any(text is None for text in array):
            raise ValueError("sample_id has a missing value")
    elif array.dtype.kind == "u" and array.dtype.itemsize == 8 and len(array) and int(array.max()) > _INT64_MAX:
        raise ValueError(f"sample_id has a value beyond 64 bits: {array.max()}")
    return array


def labels(value: Any, name: str) -> Column:
    """(N,) whole numbers, `NULL_LABEL` where one is missing, or texts with None.

    Raises:
        ValueError: They are neither whole numbers nor texts.
    """
    array = _integers_or_texts(value, name)
    if isinstance(array, list):
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        array = np.minimum(array, _INT64_MAX).astype(np.int64)
    return array if array.dtype.itemsize >= 4 else array.astype(np.int32)


def n_least(value: Any) -> int:
    """How many labels are given as the number that stands for a missing one."""
    held = read(value)
    if isinstance(held, np.ndarray):
        return int((held == NULL_LABEL).sum()) if held.dtype.kind in "if" and held.dtype.itemsize >= 4 else 0
    numbers = held if isinstance(held, list | tuple) else ()
    return sum(isinstance(item, int | float | np.number) and item == NULL_LABEL for item in numbers)


def given_at(at: int, value: Any, name: str, column: Column) -> Any:
    """One of whole numbers as the caller gave it: `column`, what became of them, has at most 64 bits."""
    try:
        if isinstance(value, list | tuple):
            return value[at]
        array = to_array(value, name)
        return f"{array[at]:.0f}" if array.dtype.kind == "f" else array[at]
    except (ValueError, LookupError, TypeError):
        return column[at]


def without_ignored(column: Column, ignored: int | str) -> tuple[Column, int]:
    """Labels with those that stand for none missing, and how many these are."""
    if isinstance(column, list):
        n = column.count(ignored) if isinstance(ignored, str) else 0
        return ([None if text == ignored else text for text in column] if n else column), n
    n = 0 if isinstance(ignored, str) else int((column == ignored).sum())
    if not n:
        return column, 0
    if column.dtype.kind == "u":
        column = column.astype(np.int64)
    return np.where(column == ignored, column.dtype.type(NULL_LABEL), column), n


def labels_alone(value: Any, name: str, kind: str | None) -> tuple[Column, Mapping[str, int]] | None:
    """`labels` where they are not of one kind: the others missing, and {why: how many}; None where they cannot be told.

    Args:
        value: What the caller gave.
        name: `label` or `prediction`.
        kind: The run's kind; None while none is settled.
    """
    items = items_of(value)
    if items is None or len(items) < 2:
        return None
    alone, reasons = each_alone(items, lambda item: labels(item, name), kind, name)
    if all(item is None for item in alone):
        return None
    return labels(alone, name), reasons


class Rows(NamedTuple):
    """What each sample has of a column of numbers, one or several.

    Attributes:
        values: (N, ...); 0 where a sample has none.
        known: (N,) which samples have any.
        reasons: {why others that were given some have none: how many}.
    """

    values: NDArray[Any]
    known: NDArray[np.bool_]
    reasons: Mapping[str, int] = MappingProxyType({})

    def gaps(self) -> NDArray[Any]:
        """The values, in real numbers missing throughout where a sample has none."""
        if self.known.all():
            return self.values
        held = self.values.astype(np.result_type(self.values.dtype, np.float32))
        held = held if held.dtype.itemsize <= 8 else held.astype(np.float64)
        held[~self.known] = MISSING
        return held


def rows(value: Any, n: int, name: str, shape: tuple[int, ...] | None = None) -> Rows | None:
    """What each of n samples has, in whatever it is given; one that has none costs the others nothing.

    Args:
        value: What the caller gave: an array, a frame, or a list of what each sample has.
        n: How many samples there are.
        name: What the column is called.
        shape: Of what a sample has; that of most which have any when None.

    Returns:
        None where all are missing.

    Raises:
        ValueError: They are no numbers, or of shapes of which none is that of most.
    """
    try:
        array = to_array(value, name)
        if array.dtype.kind in "fiub":
            return Rows(array, np.ones(len(array) if array.ndim else 1, bool))
        refusal = ValueError(f"{name} is not numeric: {array.dtype}")
    except ValueError as error:
        refusal = error
    items = each_row(read(value))
    if not isinstance(items, list | tuple) or len(items) != n:
        raise refusal
    found, reasons = [], Counter[str]()
    for item in items:
        try:
            found.append(_numbers_or_none(item, name))
        except ValueError as error:
            found.append(None)
            reasons[str(error)] += 1
    shapes = Counter(one.shape for one in found if one is not None and not _is_nan(one))
    if not shapes:
        if reasons:
            raise refusal
        return None
    usual, most = (shape, shapes[shape]) if shape is not None else shapes.most_common(1)[0]
    if not most or (shape is None and 2 * most <= shapes.total()):
        raise refusal
    for i, one in enumerate(found):
        if one is not None and one.shape != usual:
            found[i] = None
            if not _is_nan(one):  # as of a column of objects, where one has no row
                reasons[f"{name} has a row that is not of {_of_shape(usual, is_needed=shape is not None)}"] += 1
    known = np.array([one is not None for one in found])
    values = np.zeros((n, *usual), np.result_type(*[one for one in found if one is not None]))
    values[known] = [one for one in found if one is not None]
    return Rows(values, known, dict(reasons))


def _of_shape(shape: tuple[int, ...], *, is_needed: bool) -> str:
    numbers = f"{shape[0]} numbers" if len(shape) == 1 else f"shape {shape}" if shape else "one number"
    return f"the {numbers} that are needed" if is_needed else f"{numbers} as most are"


def _numbers_or_none(item: Any, name: str) -> NDArray[Any] | None:
    """The numbers of a sample; None where all are missing.

    Raises:
        ValueError: Some are missing, or it has others.
    """
    if item is None:
        return None
    array = to_array(item, name)
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.kind != "O" or not any(one is None for one in array.flat):
        raise ValueError(f"{name} has a row that is not of numbers")
    if all(one is None for one in array.flat):
        return None
    raise ValueError(f"{name} has a row of which some numbers are missing")


def _is_nan(one: NDArray[Any]) -> bool:
    """Whether a single value is NaN, which stands in place of a row where there is none."""
    return one.ndim == 0 and one.dtype.kind == "f" and bool(np.isnan(one))


def scores(value: Any, n: int, name: str) -> tuple[NDArray[Any], Mapping[str, int]] | None:
    """(n, K) or, of sequences, (n, T, K) logits or probabilities, missing throughout where a sample has none; (n,)
    becomes (n, 1); and {why some are left out: how many}. None where all are missing.

    Raises:
        ValueError: They are no numbers, or of another shape.
    """
    found = rows(value, n, name)
    if found is None:
        return None
    array = found.gaps()
    if array.ndim == 1:
        array = array[None, :] if n == 1 and len(array) > 1 else array[:, None]
    if array.ndim not in (2, 3) or not array.shape[-1]:
        raise ValueError(f"{name} has shape {array.shape}; (samples, classes) is needed")
    if len(array) != n:
        raise ValueError(f"{name} has {len(array)} rows for {n} sample ids")
    return array, found.reasons


def each_row(value: Any) -> Any:
    """The rows of an array or a frame of objects, some of which may be numbers; all else as it is."""
    held = read(value)
    return list(held) if isinstance(held, np.ndarray) and held.ndim > 1 and held.dtype.kind == "O" else value


def outside(labels: NDArray[Any], classes: int, ignored: int | None, *, with_gaps: bool = False) -> NDArray[np.bool_]:
    """(N,) which labels are neither classes of so many scores, nor (where some are) missing, nor stand for none."""
    strange = (labels < 0) | (labels >= classes)
    if with_gaps and labels.dtype.kind == "i":
        strange &= labels != NULL_LABEL
    if ignored is not None:
        strange &= labels != ignored
    return strange


def tokens(value: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], Mapping[str, int]] | None:
    """(N, T) labels of tokens, `NULL_LABEL` throughout where a sample has none; {why some are left out: how many}.

    None where all are missing.

    Raises:
        ValueError: They are not of the shape of the logits.
    """
    needed = f"a whole number a token is needed, {shape}: fill shorter ones up with the label that is ignored"
    try:
        found = rows(value, shape[0], "label", shape[1:])
    except ValueError as error:
        raise ValueError(f"{error}; {needed}") from error
    if found is None:
        return None
    array, known, reasons = found.values, found.known, Counter(found.reasons)
    if array.dtype.kind == "f" and array.shape == tuple(shape):  # a column with gaps is one of floats
        places = tuple(range(1, array.ndim))
        missing = np.isnan(array).all(places)
        odd = ~missing & (array % 1 != 0).any(places)
        if not odd.all():
            known = known & ~missing & ~odd
            reasons["label has a row that is not of whole numbers"] += int(odd.sum())
            array = np.where(known.reshape(-1, *[1] * len(places)), array, NULL_LABEL).astype(np.int64)
    if array.dtype.kind not in "iu" or array.shape != tuple(shape):
        raise ValueError(f"label has shape {array.shape}, {array.dtype}; a whole number a token is needed: {shape}")
    array = array.astype(np.int64)
    array[~known] = NULL_LABEL
    return array, {f"{reason}; {needed}": n for reason, n in (+reasons).items()}


def is_soft(label: Any) -> bool:
    """Whether labels are rows of probabilities, (N, K)."""
    array = read(label)
    return isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[1] > 1


def _telling(array: NDArray[Any]) -> NDArray[Any]:
    """The rows of (N, K) that are of 0 and 1 or sum to one, else all finite ones: others say nothing."""
    finite: NDArray[Any] = array[np.isfinite(array).all(1)]
    flags = ((finite == 0) | (finite == 1)).all(1)
    shares = np.isclose(finite.astype(np.float64).sum(1), 1, atol=1e-2) & (finite >= 0).all(1)
    found: NDArray[Any] = finite[flags | shares]
    return found if len(found) else finite


def is_one_hot(label: Any) -> bool:
    """Whether labels are rows with a single 1 among zeros, (N, K), which may be classes or sets of one."""
    array = read(label)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "fiub":
        return False
    array = _telling(array)
    return bool(len(array) and ((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all())


NO_PROBABILITIES = 'label is (N, K) and no row of probabilities; Run(task="multilabel") takes any 0 and 1'
"""Why a row of a soft label is left out."""


def soft_labels(value: Any, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(n, K) probabilities, and (n,) which rows are any, or missing; the others are NaN.

    Raises:
        ValueError: They are no numbers, or not a row a sample.
    """
    array = of_length(to_array(value, "label"), n, "label")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"label is not numeric: {array.dtype}")
    array = array.astype(np.float32)
    gone = np.isnan(array).all(1)
    with np.errstate(invalid="ignore"):
        sound = np.isclose(array.sum(1), 1, atol=1e-2) & (array >= -1e-6).all(1)
    array[~sound] = np.nan
    return array, sound | gone


_ROWS_OR_CLASSES = (
    "{name} is lists of a 0 and a 1, which may be rows of (N, 2) or the classes of each sample: numpy.array({name}) "
    "says the first, sets such as {{0, 1}} the second"
)


def is_listed(value: Any) -> bool:
    """Whether a column is a list in which samples have several values each, or a list of them."""
    return isinstance(value, list | tuple) and any(map(_is_row, value))


def are_rows(value: Sequence[Any], name: str, classes: int | None, ignored: int | None = None) -> bool | None:
    """Whether lists a sample are rows of (N, K) of 0 and 1; or else the classes of each sample; None where that is
    open. Most of those that can only be the one or the other tell it: an odd one changes nothing for the others.

    Rows of more than two zeros and ones repeat one of them, which no list of classes does; a pair that holds both may
    be either, unless it is an array.

    Args:
        value: What each sample has.
        name: `label` or `prediction`.
        classes: K, where it is known.
        ignored: What stands for no label.

    Raises:
        ValueError: As many can only be the one as the other.
    """
    listed = [list(one) if isinstance(one, list | tuple | np.ndarray) else one for one in value if _is_row(one)]
    if classes is None:
        several = [one for one in listed if isinstance(one, list) and len(one) > 1]
        sure = [len(one) for one in several if _is_row_of(one, len(one), ignored)]
        classes = Counter(sure).most_common(1)[0][0] if sure else None
    told = Counter(_is_row_of(one, classes, ignored) for one in listed)
    if told[True] == told[False]:
        if told[True]:
            raise ValueError(_ROWS_OR_CLASSES.format(name=name, what="rows of 0 and 1 and lists of classes"))
        return True if any(isinstance(one, np.ndarray) and len(one) for one in value) else None
    return told[True] > told[False]


def _is_row_of(one: Any, classes: int | None, ignored: int | None) -> bool | None:
    """Whether what a sample has can only be a row of (N, K), or only its classes; None where it may be both, or is
    neither.
    """
    if not isinstance(one, list) or any(isinstance(item, str) for item in one):
        return False
    if not one:
        return False  # a sample of no class
    if not all(isinstance(item, bool | int | float | np.number | np.bool_) for item in one):
        return None
    fits = classes == len(one) or (classes is None and len(one) > 1)
    if any(isinstance(item, bool | np.bool_ | float | np.floating) for item in one):
        return True if fits else None if any(item != item or item % 1 for item in one) else False
    if not fits:
        return False
    if all(item in (0, 1) or item == ignored for item in one):
        return True if len(set(one)) < len(one) or one == [classes] else None  # [1] of one class alone is its row
    return None if classes is not None and not all(0 <= item < classes for item in one) else False


_ROWS_OR_CLASSES = (
    "{name} is {what}, which may be rows of (N, K) or the classes of each sample: numpy.array({name}) "
    "says the first, sets such as {{0, 1}} the second"
)


def are_empty(value: Sequence[Any]) -> bool:
    """Whether no sample has anything."""
    return all(len(one) == 0 for one in value if _is_row(one))


def ambiguous(name: str) -> str:
    """Why lists are left out of which nobody knows what they are."""
    return _ROWS_OR_CLASSES.format(name=name, what="lists of a 0 and a 1")


def are_single(label: Any) -> bool:
    """Whether labels are lists of one class each."""
    return (
        isinstance(label, list | tuple)
        and bool(label)
        and all(row is None or (isinstance(row, list | tuple) and len(row) == 1) for row in label)
    )


class Sets(NamedTuple):
    """The classes of each sample.

    Attributes:
        classes: Those of each sample in their order; None where they are missing.
        reasons: {why they are none: how many}.
        ignored: How many stand for none.
    """

    classes: list[NDArray[np.int32] | None]
    reasons: dict[str, int]
    ignored: int = 0


def label_sets(
    value: Any,
    n: int,
    name: str,
    ignored: int | None = None,
    classes: int | None = None,
    names: Sequence[str] | None = None,
) -> Sets:
    """The sets of (n, K) of 0 and 1, or of lists of classes; one that is none costs the others nothing.

    Args:
        value: What the caller gave.
        n: How many samples there are.
        name: `label` or `prediction`.
        ignored: What stands for no label.
        classes: K of the scores, where there are any.
        names: The classes' names, by which lists may name them.

    Raises:
        ValueError: They are neither.
    """
    given = read(value)
    if isinstance(given, list | tuple):
        given = [read(item) for item in given]
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiub" and given.ndim == 2:
        of_length(given, n, name)
        if classes is not None and given.shape[1] != classes:
            raise ValueError(f"{name} has {given.shape[1]} columns for scores of {classes} classes")
        one: Callable[[Any], NDArray[np.int32] | None] = partial(_set_of_row, name=name, ignored=ignored)
    elif isinstance(given, list):
        of_length(given, n, name)
        one = partial(_set_of_list, name=name, ignored=ignored, classes=classes, names=names)
    else:
        raise ValueError(f"{name} must be (N, K) of 0 and 1, or a list of classes a sample")
    found: list[NDArray[np.int32] | None] = []
    reasons: Counter[str] = Counter()
    for item in given:
        try:
            found.append(one(item))
        except ValueError as error:
            reasons[str(error)] += 1
            found.append(None)
    ignored_rows = reasons.pop(_STANDS_FOR_NONE, 0)
    return Sets(found, dict(reasons), ignored_rows)


_STANDS_FOR_NONE = "stands for none"


def _set_of_row(row: NDArray[Any], name: str, ignored: int | None) -> NDArray[np.int32] | None:
    """The classes of a row of 0 and 1.

    Raises:
        ValueError: It is none, or stands for none.
    """
    if row.dtype.kind == "f" and np.isnan(row).all():
        return None
    if ignored is not None and ignored not in (0, 1) and (row == ignored).any():
        if (row == ignored).all():
            raise ValueError(_STANDS_FOR_NONE)
        raise ValueError(f"{name} is {ignored}, none, for some of its classes: which set it is cannot be known")
    if not ((row == 0) | (row == 1)).all():
        raise ValueError(f"{name} of several classes must be 0 or 1 each")
    return np.flatnonzero(row == 1).astype(np.int32)


def _set_of_list(
    item: Any, name: str, ignored: int | None, classes: int | None, names: Sequence[str] | None
) -> NDArray[np.int32] | None:
    """The classes that a list names.

    Raises:
        ValueError: It names none, or what is no class of the scores, or stands for none.
    """
    if item is None or (isinstance(item, float) and math.isnan(item)):
        return None
    refusal = f"{name} must be (N, K) of 0 and 1, or a list of classes a sample"
    try:
        if texts := _texts_of(item):
            item = _by_names(texts, name, names)
        named = np.asarray(sorted(item) if isinstance(item, set | frozenset) else item).reshape(-1)
    except _NamelessError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(refusal) from error
    if len(named) and (named.dtype.kind not in "iuf" or (named != np.floor(named)).any()):
        raise ValueError(refusal)
    if ignored is not None and len(named) == 1 and named[0] == ignored:
        raise ValueError(_STANDS_FOR_NONE)
    if len(named) and (named.min() < 0 or named.max() >= (2**31 if classes is None else classes)):
        beyond = named[(named < 0) | (named >= (2**31 if classes is None else classes))][0]
        of = "" if classes is None else f" of the {classes} of the scores"
        raise ValueError(f"{name} {int(beyond)} is no class{of}: it is neither right nor wrong")
    return np.unique(named).astype(np.int32)


def _texts_of(item: Any) -> list[Any]:
    """The classes that a set names by texts, one of them or several; empty where it names them by numbers."""
    several = [item] if isinstance(item, str) else [item.tolist()] if getattr(item, "ndim", 1) == 0 else list(item)
    return several if any(isinstance(one, str) for one in several) else []


def holds_texts(item: Any) -> bool:
    """Whether what a sample has holds a text."""
    return isinstance(item, list | tuple) and any(isinstance(one, str) for one in item)


def _by_names(texts: list[Any], name: str, names: Sequence[str] | None) -> list[int]:
    """The numbers of classes that are named by texts.

    Raises:
        ValueError: One is none of the names, or there are no names.
    """
    if names is None:
        raise _NamelessError(
            f"{name} holds texts, so sets of classes need label_names to number them: Run(label_names=[...])"
        )
    place = {known: index for index, known in enumerate(names)}
    for text in texts:
        if text not in place:
            raise _NamelessError(f"{name} {text!r} is none of label_names: it is neither right nor wrong")
    return [place[text] for text in texts]


class _NamelessError(ValueError):
    """A class of a set has no number."""


def _is_row(item: Any) -> bool:
    """Whether an item is several values; an array without axes is one."""
    return isinstance(item, list | tuple | set | frozenset) or (isinstance(item, np.ndarray) and item.ndim > 0)


def task_of(label: Any, prediction: Any, scores: NDArray[Any] | None, *, are_logits: bool = True) -> Task | None:
    """What a batch's outputs mean, as far as its shapes and kinds tell; None where they do not.

    A label of several classes a sample is a row of probabilities where each row sums to one, else a set; rows with a
    single 1 are both, and what is predicted, or that probabilities do not sum to one, says which. A real-valued label
    or prediction is a regression's. Scores with a place axis are a sequence's.
    """
    if scores is not None and scores.ndim == 3:
        return Task.SEQUENCE
    label, prediction = read(label), read(prediction)
    if is_listed(label):
        return Task.MULTILABEL
    if isinstance(label, np.ndarray) and label.ndim == 2 and label.shape[1] > 1 and label.dtype.kind in "fiub":
        if is_one_hot(label):
            apart = scores is not None and not are_logits and not sums_to_one(scores)
            is_set = label.dtype.kind == "b" or several_at_once(prediction) or apart
            return Task.MULTILABEL if is_set else Task.CLASSIFICATION
        known = label[np.isfinite(label).all(1)]  # a row that is none says nothing of the others
        is_soft_row = label.dtype.kind == "f" and bool(len(known)) and sums_to_one(_telling(label))
        if label.dtype.kind == "f" and len(known) and (((known < 0) | (known > 1)) & (known % 1 != 0)).any(1).all():
            return Task.REGRESSION  # no row of them can be a set: several numbers a sample, which are refused by name
        return Task.CLASSIFICATION if is_soft_row else Task.MULTILABEL
    for value in (label, prediction):
        try:
            array = None if value is None or isinstance(value, str) else np.asarray(_without_missing(value))
        except (ValueError, TypeError, RuntimeError):
            continue
        if array is not None and array.dtype.kind == "f" and array.size:
            finite = array[np.isfinite(array)]
            if (finite != np.floor(finite)).any():
                return Task.REGRESSION
    if label is None or (hasattr(label, "__len__") and not isinstance(label, str) and all_missing(label)):
        return None
    return Task.BINARY if scores is not None and scores.shape[1] == 1 else Task.CLASSIFICATION


def sums_to_one(rows: NDArray[Any]) -> bool:
    """Whether each of (N, K) rows sums to one, as probabilities of classes do."""
    return bool(np.allclose(rows.astype(np.float64).sum(1), 1, atol=1e-2))


def several_at_once(prediction: Any) -> bool:
    """Whether predictions are sets of classes: (N, K), or lists."""
    if isinstance(prediction, np.ndarray):
        return prediction.ndim == 2 and prediction.shape[1] > 1
    return isinstance(prediction, list | tuple) and any(map(_is_row, prediction))


def _without_missing(values: Any) -> Any:
    return [value for value in values if value is not None] if isinstance(values, list | tuple) else values


def all_missing(values: Any) -> bool:
    """Whether values are a list that holds None alone."""
    return isinstance(values, list | tuple) and all(item is None for item in values)


def metric(value: Any, name: str) -> NDArray[Any]:
    """(N,) numbers.

    Raises:
        ValueError: They are no numbers.
    """
    array = to_array(value, name)
    kind = array.dtype.kind
    if kind == "O":
        array = _numbers(array, name)
    elif kind not in "fiub":
        raise ValueError(f"{name} is not numeric: {'it holds text' if kind in 'US' else array.dtype}")
    if kind == "f" and array.dtype.itemsize > 8:
        array = _in_double(array, name)
    return array if array.ndim == 1 else one_dimensional(array, name)


def _in_double(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Numbers of more than double precision in double precision.

    Raises:
        ValueError: One is finite, and beyond that.
    """
    with np.errstate(over="ignore"):
        narrow: NDArray[np.float64] = array.astype(np.float64)
    if (np.isfinite(array) & ~np.isfinite(narrow)).any():
        raise ValueError(f"{name} is beyond double precision")
    return narrow


def metric_alone(value: Any, name: str) -> tuple[NDArray[Any], Mapping[str, int]] | None:
    """`metric` where some of the values are no numbers: those missing, and {why: how many}; None where all are."""
    items = items_of(value)
    if items is None or len(items) < 2:
        return None
    found, reasons = each_alone(items, lambda item: metric(item, name), None, name)
    if all(item is None for item in found):
        return None
    return np.array([_MISSING if item is None else item for item in found], np.float64), reasons


def rounded(value: Any) -> int:
    """How many whole numbers of a column double precision does not hold."""
    held = read(value)
    if isinstance(held, np.ndarray):
        if held.dtype.kind not in "iu" or not held.size or max(int(held.max()), -int(held.min())) <= EXACT_WIDE:
            return 0
        held = held.ravel().tolist()
    if not isinstance(held, list | tuple):
        return 0
    whole = (int(item) for item in held if isinstance(item, int | np.integer))
    return sum(abs(item) > EXACT_WIDE and item != _nearest(item) for item in whole)  # compared exactly


def _nearest(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Objects as float64, None as what stands for a missing value."""
    if any(isinstance(item, str | bytes) for item in array.flat):
        raise ValueError(f"{name} is not numeric: it holds text")
    try:
        known = [_MISSING if item is None else item for item in array.ravel().tolist()]
        return np.array(known, np.float64).reshape(array.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} is not numeric: {error}") from error


def _integers_or_texts(value: Any, name: str) -> Column:
    if type(value) is np.ndarray and value.ndim == 1 and value.dtype.kind in "iu":
        return native(value)
    value = read(value)
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence) and value and any(isinstance(item, str) for item in value):
        return _texts(list(value) if name == "sample_id" else [_without_nan(item) for item in value], name)
    array = one_dimensional(to_array(value, name), name)
    kind = array.dtype.kind
    if kind in "iu":
        return array
    if kind == "f" and name == "sample_id":
        return _whole_ids(array)
    if kind == "b" and name != "sample_id":
        return array.astype(np.int8)
    if kind in "US":
        return _texts(array.tolist(), name)
    if kind == "f" and len(array) == 0:
        return array.astype(np.int64)
    if kind == "f":
        known = np.isfinite(array)
        if (array[known] == np.floor(array[known])).all():
            return np.where(known, np.clip(array.astype(np.float64), -(2.0**62), 2.0**62), NULL_LABEL).astype(np.int64)
        raise ValueError(f'{name} must be whole numbers or texts; Run(task="regression") takes real ones')
    if kind == "O":
        return _objects(array.tolist(), name)
    raise ValueError(f"{name} must be whole numbers or texts, not {array.dtype}")


def _whole_ids(array: NDArray[Any]) -> NDArray[np.int64]:
    """Real numbers as ids, as a table with a gap in that column has them.

    Raises:
        ValueError: One is no whole number, or so large that its type does not tell it from the next.
    """
    exact = 2.0 ** (np.finfo(array.dtype).nmant + 1)
    with np.errstate(invalid="ignore"):
        odd = ~((array == np.floor(array)) & (np.abs(array) <= exact))
    if odd.any():
        first = array[odd][0]
        if np.isnan(first):
            raise ValueError("sample_id has a missing value")
        if np.isfinite(first) and first == np.floor(first):
            raise ValueError(f"sample_id {first:.0f} is beyond the whole numbers that {array.dtype} tells apart")
        raise ValueError(f"sample_id must be whole numbers or texts, not {array.dtype}")
    return array.astype(np.int64)


def _objects(values: list[Any], name: str) -> Column:
    if name == "sample_id":
        values = [_id_text(item) if isinstance(item, os.PathLike | UUID) else item for item in values]
    else:
        values = [_without_nan(item) for item in values]
    if all(item is None or isinstance(item, str) for item in values):
        return _texts(values, name)
    if not all(item is None or isinstance(item, int | np.integer) for item in values):
        odd = next(item for item in values if not (item is None or isinstance(item, int | np.integer)))
        raise ValueError(f"{name} must be whole numbers or texts, not {type(odd).__name__}")
    if name == "sample_id" and any(item is None for item in values):
        raise ValueError(f"{name} has a missing value")
    try:
        return np.array([NULL_LABEL if item is None else item for item in values], np.int64)
    except OverflowError as error:
        raise ValueError(f"{name} has a value beyond 64 bits") from error


def _without_nan(item: Any) -> Any:
    """A label among objects: NaN is a missing one, 1.0 is 1, as in arrays of real numbers."""
    if isinstance(item, float | np.floating):
        return None if np.isnan(item) else int(item) if np.isfinite(item) and item == np.floor(item) else item
    return item


def _id_text(item: Any) -> str:
    """A path or a UUID as the text people write for it."""
    return str(item) if isinstance(item, UUID) else os.fsdecode(item)


def _decoded(text: Any, name: str) -> Any:
    try:
        return text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} has bytes that are no UTF-8: {error.reason}") from error


def _texts(values: list[Any], name: str) -> Texts:
    for item in values:
        if isinstance(item, bytes):
            return _texts([_decoded(text, name) for text in values], name)
        if item is not None and not isinstance(item, str):
            raise ValueError(f"{name} mixes texts and {type(item).__name__}")
    try:
        "".join(item or "" for item in values).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has a text that UTF-8 has no form for: {error.reason}") from error
    return values
