"""A Parquet table: images as bytes or paths, arrays as lists, or one feature a column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import XaiError
from xaicli.sources.arrays import ID_NAMES, INPUT_NAMES, LABEL_NAMES
from xaicli.sources.inputs import BadSampleError, IndexedSource, Sample
from xaicli.sources.preparation import Preparation
from xaicli.sources.rows import ParquetRows

_PATH_NAMES = ("path", "image_path", "file", "filename", "file_name", "img", "file_path")

Reader = Callable[[dict[str, Any]], tuple[NDArray[Any], NDArray[np.uint8] | None]]


def open_table(path: Path, preparation: Preparation, *, strict: bool) -> IndexedSource:
    """Open a Parquet file, or all Parquet files of a folder as one table.

    The input is the first of: a column with a usual name ("image", "pixels") or the name of a path column, of image
    bytes, of paths (from the table's own folder), or of lists; else every numeric column is one feature. Labels and ids
    are told by their names ("label", "sample_id").

    Raises:
        XaiError: It is no Parquet table, or holds no input.
    """
    table = ParquetRows(sorted(path.glob("*.parquet")) if path.is_dir() else [path])
    names = table.schema.names
    id_name = next((name for name in ID_NAMES if name in names), None)
    label_name = next((name for name in LABEL_NAMES if name in names), None)
    input_name = next((name for name in (*INPUT_NAMES, *_PATH_NAMES) if name in names), None)
    if input_name is not None:
        columns: tuple[str, ...] = (input_name,)
        reader = _reader(table.schema.field(input_name), path if path.is_dir() else path.parent, preparation)
    else:
        columns = tuple(f.name for f in table.schema if _is_number(f.type) and f.name not in (id_name, label_name))
        reader = _features(columns)
    if not columns:
        raise XaiError(f"{path} holds no inputs", hint=f"its columns: {', '.join(names)}; name the input x or image")
    labels = table.column(label_name) if label_name else None

    def read(position: int) -> Sample:
        array, picture = reader(table.row(position, columns))
        return Sample({"": array}, labels[position] if labels else None, picture)

    ids = table.column(id_name) if id_name else range(len(table))
    return IndexedSource(ids, read, str(path), strict)


def _reader(field: Any, folder: Path, preparation: Preparation) -> Reader:
    """How the value of a column becomes an input and a picture, told from the column's type."""
    import pyarrow as pa

    name, kind = field.name, field.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda row: preparation.decoded(_given(row[name]))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return lambda row: preparation.decoded(folder / _given(row[name]))
    if pa.types.is_struct(kind):  # as Hugging Face datasets keep images
        return lambda row: preparation.decoded(_struct_image(_given(row[name]), folder))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        dtype = _innermost(kind).to_pandas_dtype()
        return lambda row: preparation.from_array(_regular(_given(row[name]), dtype))
    raise XaiError(f"column {name} is {kind}: no image, path or list", hint="name the input column x or image")


def _features(columns: tuple[str, ...]) -> Reader:
    def read(row: dict[str, Any]) -> tuple[NDArray[Any], None]:
        return np.array([float(_given(row[name])) for name in columns], dtype=np.float32), None

    return read


def _given(value: Any) -> Any:
    if value is None:
        raise BadSampleError("it has no value")
    return value


def _struct_image(value: dict[str, Any], folder: Path) -> bytes | Path:
    if isinstance(data := value.get("bytes"), bytes):
        return data
    return folder / str(_given(value.get("path")))


def _regular(values: Any, dtype: Any) -> NDArray[Any]:
    try:
        array = np.array(values)
        return array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise BadSampleError(f"its lists make no array ({error})") from error


def _innermost(kind: Any) -> Any:
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return kind


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
