"""Values as a caller has them - tensors, arrays, lists, pictures - become Arrow columns with a schema."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xaicli.errors import XaiError
from xaicli.tables.containers import read
from xaicli.tables.schema import (
    METADATA_KEY,
    Bool,
    Embedding,
    Float,
    Image,
    Int,
    Mask,
    Schema,
    String,
    from_json,
)

_CHANNELS = (1, 3, 4)


class ColumnError(XaiError, ValueError):
    """A column that cannot be stored, by name."""


def arrow_column(name: str, values: Any, schema: Schema | None = None) -> tuple[pa.Field, pa.Array]:
    """One column with its schema; the caller's precision is kept.

    Args:
        name: The column's name.
        values: A tensor on any device, an array, or a sequence; the first axis is the row. Pictures may be PIL images
            or uint8 arrays.
        schema: What the values mean; inferred when None.

    Returns:
        The Arrow field, its schema in the metadata, and the values.

    Raises:
        ColumnError: The values are no column: a single value, or objects Arrow has no type for.
    """
    plain = _as_array_or_list(name, values)
    if _are_pictures(plain, schema):
        paletted = isinstance(schema, Mask)
        array = pa.array([None if p is None else png_bytes(p, palette=paletted) for p in plain], pa.binary())
        schema = schema or Image()
    elif isinstance(plain, np.ndarray) and plain.ndim > 1:
        flat = np.ascontiguousarray(plain.reshape(len(plain), -1))
        array = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    else:
        array = _flat(name, plain)
    schema = schema or infer(array.type)
    text = json.dumps(schema.to_json(), sort_keys=True)
    return pa.field(name, array.type, metadata={METADATA_KEY: text.encode()}), array


def infer(kind: pa.DataType) -> Schema:
    """The schema of a column about which only its type is known."""
    if pa.types.is_boolean(kind):
        return Bool()
    if pa.types.is_integer(kind):
        return Int()
    if pa.types.is_floating(kind):
        return Float()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return String()
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        return Embedding(size=kind.list_size)
    return Schema()


def schema_of(column: pa.Field) -> Schema:
    """The schema stored with a column, else the inferred one."""
    text = (column.metadata or {}).get(METADATA_KEY)
    return from_json(json.loads(text)) if text else infer(column.type)


WHOLE = r"[+-]?[0-9]+"
"""A whole number as it is written, with a sign or without."""


def whole_numbers(texts: Any) -> Any:
    """What is written as whole numbers, as int64; null where something else is, or a number beyond 64 bits.

    Args:
        texts: (N,) strings without blanks around them.
    """
    written = pc.fill_null(pc.match_substring_regex(texts, f"^{WHOLE}$"), fill_value=False)
    digits = pc.replace_substring_regex(pc.if_else(written, texts, None), r"^[+]?(-?)0*([0-9])", r"\1\2")
    short = pc.fill_null(pc.less_equal(pc.utf8_length(digits), 18), fill_value=True)
    numbers = pc.if_else(short, digits, None).cast(pa.int64())
    if pc.all(short).as_py():
        return numbers
    return pc.coalesce(numbers, _long_numbers(pc.if_else(short, None, digits)))


def whole_ids(texts: Any) -> Any:
    """The ids that texts spell, as int64; null where one is no whole number of 64 bits.

    A table program writes 17 as 17.0, and blanks may stand around it.

    Args:
        texts: (N,) strings.
    """
    bare = pc.utf8_trim_whitespace(texts)
    return whole_numbers(pc.replace_substring_regex(bare, rf"^({WHOLE})\.0*$", r"\1"))


def within_64_bits(column: pa.Array) -> pa.Array:
    """Whole numbers of any width, and decimals that are such by their type, as int64; null beyond 64 bits."""
    if column.type == pa.uint64():
        return pc.if_else(pc.less(column, pa.scalar(1 << 63, pa.uint64())), column, None).cast(pa.int64())
    if pa.types.is_decimal(column.type):
        return whole_numbers(column.cast(pa.string()))
    return column.cast(pa.int64())


def _long_numbers(long: Any) -> Any:
    """Whole numbers of many digits, one by one; null where one is beyond 64 bits."""
    numbers = (None if text is None else int(text) for text in long.to_pylist())
    fitting = [n if n is not None and -(1 << 63) <= n < 1 << 63 else None for n in numbers]
    kept = pa.array(fitting, pa.int64())
    return pa.chunked_array([kept]) if isinstance(long, pa.ChunkedArray) else kept


def go_together(before: pa.DataType, now: pa.DataType) -> bool:
    """Whether one column can hold values of both types."""
    before, now = (kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (before, now))
    fixed = pa.types.is_fixed_size_list
    if fixed(before) and fixed(now) and before.list_size != now.list_size:
        return False
    try:
        schemas = [pa.schema([("column", before)]), pa.schema([("column", now)])]
        pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def png_bytes(picture: Any, *, palette: bool = False) -> bytes:
    """A picture as PNG.

    Args:
        picture: A PIL image, or an array (height, width) or (height, width, channels) of uint8, or of floats in [0, 1].
        palette: Whether the values are classes rather than brightness.
    """
    from PIL import Image as Pictures

    if isinstance(picture, np.ndarray):
        if picture.dtype.kind == "f":
            picture = np.rint(picture.clip(0, 1) * 255)
        values = picture.astype(np.uint8)
        picture = Pictures.fromarray(values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values)
    if palette and picture.mode == "L":
        picture = picture.copy()
        picture.putpalette(_PALETTE)
    sink = io.BytesIO()
    picture.save(sink, format="PNG")
    return sink.getvalue()


def _palette() -> list[int]:
    """The palette of the Pascal VOC devkit (256 colours): bit-reversed class values spread over red, green, blue."""
    colours = []
    for value in range(256):
        colour, rest = [0, 0, 0], value
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
        colours += colour
    return colours


_PALETTE = _palette()


def _as_array_or_list(name: str, values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if isinstance(held := read(values), np.ndarray):
        if held.ndim == 0:
            raise _single_value(name, values)
        held = held.astype(np.float64) if held.dtype == np.longdouble else held
        return held.tolist() if held.dtype.kind in "OUS" else held
    if isinstance(held, (str, bytes, bytearray, memoryview, dict)) or not isinstance(held, Sequence):
        raise _single_value(name, values)
    return [_plain(value) for value in held]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def _are_pictures(values: Any, schema: Schema | None) -> bool:
    if isinstance(values, np.ndarray):
        if isinstance(schema, (Image, Mask)):
            return values.ndim in (3, 4)
        return values.ndim == 4 and values.dtype == np.uint8 and values.shape[3] in _CHANNELS
    if not isinstance(values, list):
        return False
    first = next((value for value in values if value is not None), None)
    if hasattr(first, "getpixel"):
        return True
    return isinstance(first, np.ndarray) and first.ndim >= 2 and isinstance(schema, (Image, Mask))


def _flat(name: str, values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, list):
        values = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise ColumnError(
            f"column {name!r} holds values that are no column: {', '.join(kinds)}",
            hint="a column is numbers, text, lists of numbers or pictures, all of one kind",
        ) from error
    return array


def _single_value(name: str, value: Any) -> ColumnError:
    return ColumnError(
        f"column {name!r} is a single {type(value).__name__}, not one value a row",
        hint="give a list, array or tensor; a value that is the same for all rows goes into constants={...}",
    )
