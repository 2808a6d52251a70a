"""What a caller hands over, as checked numpy columns: tensors, arrays, lists, single values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Texts = list[str | None]
Column = NDArray[Any] | Texts

_INT32 = np.iinfo(np.int32)
_INT64_MAX = np.iinfo(np.int64).max
NULL_LABEL = int(_INT32.min)
"""What stands for a missing label among whole ones; no label may be it."""


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor; never loads torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def has_tensors(values: list[Any]) -> bool:
    """Whether any of the values is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and any(isinstance(value, torch.Tensor) for value in values)


def to_array(value: Any, name: str) -> NDArray[Any]:
    """Any array-like as a numpy array, without a copy where there need be none.

    Raises:
        ValueError: It is ragged or no array at all.
    """
    if isinstance(value, np.ndarray):
        return value
    if is_tensor(value):
        return tensor_to_array(value)
    if isinstance(value, list | tuple) and value and is_tensor(value[0]):
        value = [item.detach().cpu().item() if is_tensor(item) else item for item in value]
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} is no column: {error}") from error


def tensor_to_array(tensor: Any) -> NDArray[Any]:
    """A tensor as numpy; from a device by a copy that waits, bfloat16 as float32."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if not tensor.is_cpu:
        tensor = tensor.cpu()
    try:
        return tensor.numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError):
        # bfloat16 and float8 have no numpy type; conjugate and sparse tensors need resolving.
        return tensor.resolve_conj().resolve_neg().float().numpy()  # type: ignore[no-any-return]


def one_dimensional(array: NDArray[Any], name: str) -> NDArray[Any]:
    """(N,) of an array of shape (N,), (N, 1) or (): a single value is a batch of one.

    Raises:
        ValueError: It has more values a sample.
    """
    if array.ndim == 1:
        return array
    if array.ndim == 0 or (array.ndim == 2 and array.shape[1] == 1):
        return array.reshape(-1)
    raise ValueError(f"{name} has shape {array.shape}; one value a sample is needed")


def ids(value: Any, name: str = "sample_id") -> Column:
    """(N,) int64, or texts.

    Raises:
        ValueError: They are neither whole numbers of 64 bits nor texts.
    """
    array = _integers_or_texts(value, name)
    if isinstance(array, list):
        if any(text is None for text in array):
            raise ValueError(f"{name} has a missing value")
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and len(array) and int(array.max()) > _INT64_MAX:
        raise ValueError(f"{name} has a value beyond 64 bits: {array.max()}")
    return array


def labels(value: Any, name: str) -> Column:
    """(N,) int32, or texts; None inside a list is missing.

    Raises:
        ValueError: They are neither whole numbers of 32 bits nor texts.
    """
    array = _integers_or_texts(value, name)
    if isinstance(array, list):
        return array
    if array.dtype == np.int32:
        return array
    narrow = array.astype(np.int32)
    if array.dtype.itemsize >= 4 and not (narrow == array).all():
        worst = array[narrow != array][0]
        raise ValueError(f"{name} has a value beyond 32 bits: {worst}")
    return narrow


def metric(value: Any, name: str) -> NDArray[Any]:
    """(N,) numbers.

    Raises:
        ValueError: They are no numbers.
    """
    array = value if type(value) is np.ndarray else to_array(value, name)
    kind = array.dtype.kind
    if kind == "O":
        array = _numbers(array, name)
    elif kind not in "fiub":
        raise ValueError(f"{name} is not numeric: {'it holds text' if kind in 'US' else array.dtype}")
    return array if array.ndim == 1 else one_dimensional(array, name)


def _numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Objects as float64, None as NaN."""
    if any(isinstance(item, str | bytes) for item in array.flat):
        raise ValueError(f"{name} is not numeric: it holds text")
    try:
        return array.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} is not numeric: {error}") from error


def _integers_or_texts(value: Any, name: str) -> Column:
    if type(value) is np.ndarray and value.ndim == 1 and value.dtype.kind in "iu":
        return value
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence) and value and any(isinstance(item, str) for item in value):
        return _texts(list(value), name)
    array = one_dimensional(to_array(value, name), name)
    kind = array.dtype.kind
    if kind in "iu":
        return array
    if kind == "b":
        return array.astype(np.int8)
    if kind in "US":
        return _texts(array.tolist(), name)
    if kind == "f" and len(array) == 0:
        return array.astype(np.int64)
    if kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all() and name != "sample_id":
        return _whole(array, name)
    if kind == "O":
        return _objects(array.tolist(), name)
    raise ValueError(f"{name} must be whole numbers or texts, not {array.dtype}")


def _whole(array: NDArray[Any], name: str) -> NDArray[Any]:
    if len(array) and np.abs(array).max() > _INT32.max:
        raise ValueError(f"{name} has a value beyond 32 bits: {np.abs(array).max()}")
    return array.astype(np.int32)


def _objects(values: list[Any], name: str) -> Column:
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


def _texts(values: list[Any], name: str) -> Texts:
    for item in values:
        if isinstance(item, bytes):
            return _texts([text.decode() if isinstance(text, bytes) else text for text in values], name)
        if item is not None and not isinstance(item, str):
            raise ValueError(f"{name} mixes texts and {type(item).__name__}")
    return values
