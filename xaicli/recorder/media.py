"""Thumbnails for reports and exact model inputs for saliency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xaicli.recorder import columns
from xaicli.recorder.tokens import Words
from xaicli.wal.arrays import column

LONGEST_SIDE = 96
"""Pixels; a larger picture is shrunk."""
_CHANNELS = (1, 3, 4)

Row = tuple[Any, ...]
Refuse = Callable[[str, int], None]


class Listeners(NamedTuple):
    """Who is told of pictures.

    Attributes:
        refuse: Of those that are left out, and how many.
        alter: Of those that are kept otherwise than given, and how many.
        note: How some were taken that may be meant otherwise.
    """

    refuse: Refuse
    alter: Refuse
    note: Callable[[str], None]


NOT_FINITE = "pictures have values that are NaN or infinite, which are shown as black"
"""Why a picture is not all that was given."""
STRETCHED = (
    "pictures with numbers beyond [0, 1], or whole ones beyond [0, 255], are stretched each from its smallest to its "
    "largest: give uint8, or floats in [0, 1], to keep their brightness"
)


def image_rows(
    sample_id: Any,
    images: Any,
    *,
    mode: str,
    ds_id: str,
    kind: str | None,
    listeners: Listeners,
) -> list[Row]:
    """One row a picture.

    Args:
        sample_id: (N,) ids, or one for a single picture.
        images: (N, H, W, C), (N, C, H, W), (N, H, W), or one picture without N, or a list of pictures of any sizes;
            uint8 or uint16; other whole numbers in [0, 255], or floats in [0, 1], else stretched from their own
            smallest to largest value, which is told.
        mode: The mode the pictures belong to.
        ds_id: The dataset.
        kind: The run's kind of ids, as of `columns.ids`.
        listeners: Told of what is not kept as it was given.

    Raises:
        ValueError: There are no pictures, or not as many as the ids.
    """
    ids = usable_ids(sample_id, kind, listeners.refuse)
    rows: list[Row] = []
    for key, picture in zip(ids, _each(images, len(ids)), strict=True):
        try:
            if key is not None:
                pixels = _shrunk(_hwc(columns.to_array(_in_colours(picture), "images"), listeners))
                rows.append((_plain(key), mode, ds_id, *pixels.shape, pixels.tobytes()))
        except ValueError as error:
            listeners.refuse(str(error), 1)
    return rows


def usable_ids(sample_id: Any, kind: str | None, refuse: Refuse) -> list[Any]:
    """(N,) ids, None, told of, in place of those that are none.

    Raises:
        ValueError: None is.
    """
    ids, usable, reasons = columns.ids(sample_id, kind)
    for reason, records in reasons.items():
        refuse(reason, records)
    return [key if usable is None or usable[i] else None for i, key in enumerate(ids)]


def _each(images: Any, n: int) -> list[Any]:
    arrays: list[Any]
    if isinstance(images, list | tuple):
        arrays = list(images)
    else:
        array = columns.to_array(images, "images")
        if array.ndim < 2 or array.dtype.kind not in "fiub":
            raise ValueError(f"images has no pictures: shape {array.shape}, {array.dtype}")
        arrays = [array] if n == 1 and (array.ndim == 2 or (array.ndim == 3 and array.shape[0] != 1)) else list(array)
    if len(arrays) != n:
        raise ValueError(f"images has {len(arrays)} pictures for {n} sample ids")
    return arrays


def _in_colours(picture: Any) -> Any:
    """A picture of PIL whose numbers are no brightness (of a palette, CMYK, HSV, with transparency) as RGB or RGBA."""
    mode = getattr(picture, "mode", None)
    if mode not in _OTHER_COLOURS or not hasattr(picture, "convert"):
        return picture
    clear = mode in ("LA", "La", "PA", "RGBa") or "transparency" in getattr(picture, "info", {})
    return picture.convert("RGBA" if clear else "RGB")


_OTHER_COLOURS = ("P", "PA", "CMYK", "HSV", "LAB", "YCbCr", "LA", "La", "RGBa", "RGBX")
"""Modes of PIL whose arrays are no grey, RGB or RGBA."""


def _hwc(picture: NDArray[Any], listeners: Listeners) -> NDArray[np.uint8]:
    if picture.ndim and picture.dtype.kind not in "fiub":
        raise ValueError(f"images has a picture of {picture.dtype}; numbers are needed")
    shape = picture.shape
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3:
        raise ValueError(f"images has a picture of shape {picture.shape}; (H, W, C) or (C, H, W) is needed")
    if picture.shape[2] not in _CHANNELS:
        if picture.shape[0] not in _CHANNELS:
            raise ValueError(f"images has a picture of shape {picture.shape}; 1, 3 or 4 channels are needed")
        picture = picture.transpose(1, 2, 0)
    elif len(shape) == 3 and shape[0] in _CHANNELS and (shape[0] != shape[1] or 1 < shape[1] == shape[2]):
        listeners.note(f"a picture of shape {shape} may be (H, W, C) or (C, H, W): it is taken for (H, W, C)")
    if not picture.size:
        raise ValueError(f"images has a picture of shape {shape}, without a pixel")
    return np.ascontiguousarray(_bytes(picture, listeners))


def _bytes(picture: NDArray[Any], listeners: Listeners) -> NDArray[np.uint8]:
    """Pixels from 0 to 255: by the type where it has a range of its own, else by the values."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype == np.uint16:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype.kind in "iu" and picture.min() >= 0 and picture.max() <= 255:
        return picture.astype(np.uint8)
    values = picture.astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("images has a picture without a finite value")
    if not known.all():
        listeners.alter(NOT_FINITE, 1)
    low, high = float(values[known].min()), float(values[known].max())
    if picture.dtype.kind in "iu" or low < 0 or high > 1:
        listeners.note(STRETCHED)
        values = (values - low) / ((high - low) or 1)
    return (np.where(known, values, 0) * 255 + 0.5).astype(np.uint8)


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most `LONGEST_SIDE` pixels a side: every pixel is the mean of those it stands for."""
    height, width, _ = picture.shape
    factor = max(height, width) / LONGEST_SIDE
    if factor <= 1:
        return picture
    values: NDArray[Any] = picture.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        edges = np.linspace(0, size, max(1, round(size / factor)) + 1).astype(int)
        counts = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(3)])
        values = np.add.reduceat(values, edges[:-1], axis=axis) / counts.astype(np.float32)
    return (values + 0.5).astype(np.uint8)


def image_table(rows: list[Row]) -> pa.Table:
    """The table of `media/`."""
    ids, mode, ds_id, height, width, channels, pixels = zip(*rows, strict=True)
    return pa.table(
        {
            "sample_id": _ids(ids),
            "mode": column(mode),
            "ds_id": column(ds_id),
            "height": column(height, pa.int32()),
            "width": column(width, pa.int32()),
            "channels": column(channels, pa.int8()),
            "pixels": column(pixels, pa.binary()),
        }
    )


def input_rows(
    sample_id: Any,
    inputs: Any,
    label: Any,
    words: Mapping[str, Sequence[Words]],
    *,
    mode: str,
    ds_id: str,
    kind: str | None,
    refuse: Refuse,
) -> list[Row]:
    """One row a sample and input.

    Args:
        sample_id: (N,) ids.
        inputs: (N, ...), N arrays of a shape each, or {input name: these}; kept bit for bit, bfloat16 as float32.
        label: (N,) labels, None where one is missing, or None.
        words: What the tokens of each sample stand for, by input.
        mode: The mode the inputs belong to.
        ds_id: The dataset.
        kind: The run's kind of ids, as of `columns.ids`.
        refuse: Told of samples or inputs that are left out, and of how many samples.

    Raises:
        ValueError: No input is of numbers and as many as the ids.
    """
    ids = usable_ids(sample_id, kind, refuse)
    labels = [None] * len(ids) if label is None else list(label)
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    if odd := [name for name in named if not isinstance(name, str)]:
        raise ValueError(
            f"inputs is a dict by {odd[0]!r}, which is no input's name: give the inputs in the order of the ids, or "
            "{input name: (N, ...)}"
        )
    rows: list[Row] = []
    failed: list[str] = []
    for name, value in named.items():
        try:
            arrays = _input_of_each(value, str(name) or "inputs", len(ids), refuse)
        except ValueError as error:  # the others are kept
            failed.append(str(error))
            continue
        of_each: Sequence[Words | tuple[None, None]] = words.get(str(name)) or [(None, None)] * len(ids)
        rows += [
            (_plain(key), mode, ds_id, _plain(y), str(name), one.dtype.name, list(one.shape), *said, one.tobytes())
            for key, y, one, said in zip(ids, labels, arrays, of_each, strict=True)
            if key is not None and one is not None
        ]
    if failed and len(failed) == len(named):
        raise ValueError(failed[0])
    for reason in failed:
        refuse(reason, len(ids))
    return rows


def _input_of_each(value: Any, name: str, n: int, refuse: Refuse) -> list[NDArray[Any] | None]:
    """The array of each of n samples, which may differ in shape; None, told of, where it is none of numbers.

    Raises:
        ValueError: None is, or they are not n.
    """
    try:
        array = _numeric(value, name)
        if array.ndim == 0 or len(array) != n:
            raise ValueError(f"{name} has shape {array.shape} for {n} ids")
        return [np.asarray(one) for one in array]
    except ValueError:
        value = columns.each_row(value)
        if not isinstance(value, list | tuple) or len(value) != n:
            raise
        found: list[NDArray[Any] | None] = []
        reasons: list[str] = []
        for one in value:
            try:
                found.append(_numeric(one, name))
            except ValueError as error:
                found.append(None)
                reasons.append(str(error))
        if len(reasons) == n:
            raise
    for reason in reasons:
        refuse(reason, 1)
    return found


def _numeric(value: Any, name: str) -> NDArray[Any]:
    array = columns.to_array(value, name)
    if array.dtype.kind not in "fiubc":
        raise ValueError(f"{name} is not numeric: {array.dtype}")
    return array


def input_table(rows: list[Row]) -> pa.Table:
    """The table of `inputs/`."""
    ids, mode, ds_id, label, name, dtype, shape, tokens, special, data = zip(*rows, strict=True)
    first = next((one for one in label if one is not None), None)
    kind: Any = pa.string() if isinstance(first, str) else pa.float64() if isinstance(first, float) else pa.int32()
    if isinstance(first, list):
        kind = pa.list_(pa.int32())
    are_words = any(texts is not None for texts in tokens)
    words = {"tokens": column(tokens, pa.list_(pa.string())), "special": column(special, pa.list_(pa.int32()))}
    return pa.table(
        {
            "sample_id": _ids(ids),
            "mode": column(mode),
            "ds_id": column(ds_id),
            "label": column(label, kind),
            "name": column(name),
            "dtype": column(dtype),
            "shape": column(shape, pa.list_(pa.int32())),
            **(words if are_words else {}),
            "data": column(data, pa.binary()),
        }
    )


def _ids(ids: tuple[Any, ...]) -> pa.Array:
    return column(ids, pa.string() if isinstance(ids[0], str) else pa.int64())


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def count(sample_id: Any, *beside: Any) -> int:
    """How many samples ids are of, usable or not; of an iterator, which is not run through, as what stands beside."""
    if isinstance(sample_id, Iterator):
        sized = (
            value for value in beside if hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping)
        )
        sample_id = next(sized, None)
    shape = getattr(sample_id, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    return len(sample_id) if hasattr(sample_id, "__len__") and not isinstance(sample_id, str | bytes) else 1
