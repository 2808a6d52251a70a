"""What samples are, not how they fare: texts, numbers and dates by sample, checked and brought into tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xaicli.recorder import columns
from xaicli.vocabulary import SAMPLE_ID

_KINDS = (str, bool, int, float, date, datetime, np.datetime64)


def fact_table(
    sample_id: Any, facts: Mapping[str, Any], refuse: Callable[[str, str, int], None], id_kind: str | None = None
) -> pa.Table | None:
    """One row a sample; None where no fact can be kept.

    Args:
        sample_id: (N,) ids, or one.
        facts: {name: (N,) texts, numbers or dates, or one for all}.
        refuse: Told of a fact that is left out: its name, the reason, the rows.
        id_kind: The run's kind of ids, as of `columns.ids`.

    Raises:
        ValueError: None of the ids is one.
    """
    ids, usable, reasons = columns.ids(sample_id, id_kind)
    for reason, rows in reasons.items():
        refuse("facts", reason, rows)
    kept: dict[str, pa.Array] = {SAMPLE_ID: pa.array(ids, pa.string() if isinstance(ids, list) else pa.int64())}
    for name, values in facts.items():
        try:
            kept[name] = _column(name, values, len(ids), refuse)
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            refuse(name, str(error), len(ids))
    if len(kept) < 2 or not len(ids):
        return None
    return pa.table(kept) if usable is None else pa.table(kept).filter(pa.array(usable))


def _column(name: str, values: Any, n: int, refuse: Callable[[str, str, int], None]) -> pa.Array:
    """A fact's column; a value that no such column holds is missing, and told of."""
    if name == SAMPLE_ID:
        raise ValueError("sample_id is no fact")
    given = columns.plain(values)
    if isinstance(given, _KINDS) or given is None:
        given = [given] * n
    if isinstance(given, np.ndarray):
        given = given.reshape(-1) if given.ndim == 0 else given
        if given.ndim != 1:
            raise ValueError(f"{name} has shape {given.shape}; one value a sample is needed")
    else:
        given = [columns.plain(item) for item in given]
        given = [item.item() if isinstance(item, np.ndarray) and item.size == 1 else item for item in given]
        given = [os.fspath(item) if isinstance(item, os.PathLike) else item for item in given]
    if len(given) != n:
        raise ValueError(f"{name} has {len(given)} values for {n} sample ids")
    try:
        return _plain(name, pa.array(given))
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        fitting = _fitting(name, list(given))
        if fitting is None:
            raise
    column, reasons = fitting
    for reason, rows in reasons.items():
        refuse(name, reason, rows)
    return column


def _fitting(name: str, values: list[Any]) -> tuple[pa.Array, Mapping[str, int]] | None:
    """The values that are of the first one's kind, the others missing, and {why: how many}; None where none is."""
    kind: pa.DataType | None = None
    found, reasons = [], Counter[str]()
    for value in values:
        try:
            alone = _plain(name, pa.array([value]))
            if value is not None and kind is None:
                kind = alone.type
            found.append(alone.cast(kind)[0].as_py() if value is not None else None)
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            reasons[str(error)] += 1
            found.append(None)
    return None if kind is None else (pa.array(found, kind), reasons)


def _plain(name: str, array: pa.Array) -> pa.Array:
    """A column as text, whole number, number, truth value, date or time.

    Raises:
        ValueError: It is of another kind.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(name, array.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        return array.cast(pa.string())
    if pa.types.is_integer(kind):
        return array.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if pa.types.is_boolean(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return array
    raise ValueError(f"{name} must be texts, numbers or dates, not {kind}")


def kinds_before(folder: Path) -> dict[str, pa.DataType]:
    """The kinds of the facts that earlier attempts recorded, by their newest files; those that cannot be read are none.

    Args:
        folder: The run's `facts/`.
    """
    import pyarrow.parquet as pq

    kinds: dict[str, pa.DataType] = {}
    for path in sorted(folder.glob("*.parquet"), reverse=True)[:_NEWEST]:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException):
            continue
        for field in schema:
            if field.name != SAMPLE_ID and not pa.types.is_null(field.type):
                kinds.setdefault(field.name, field.type)
    return kinds


_NEWEST = 32
"""Files of facts that are looked at for their kinds."""
_ZEROS = r"^[+-]?0\d"
"""A number with zeros before it is a name: as a number it would lose them."""


def _of_csv(path: Path, refuse: Callable[[str, str, int], None], id_kind: str | None) -> pa.Table:
    """A CSV file: its ids of the run's kind, and numbers with zeros before them as the texts they are.

    Raises:
        ValueError: It is none.
    """
    import pyarrow.compute as pc
    from pyarrow import csv

    try:
        guessed = csv.read_csv(path)
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(guessed.column_names, pa.string()))
        texts = csv.read_csv(path, convert_options=as_text)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no CSV: {error}") from error
    table = guessed
    for at, name in enumerate(guessed.column_names):
        text, kind = texts.column(at), guessed.schema.types[at]
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if name == SAMPLE_ID and id_kind == "int64":
            if not pa.types.is_integer(kind):
                table = table.set_column(at, name, _whole(text, path, refuse))
        elif (name == SAMPLE_ID and id_kind == "string") or (
            is_number and pc.any(pc.match_substring_regex(text, _ZEROS)).as_py()
        ):
            table = table.set_column(at, name, text)
    return table


def _whole(text: pa.ChunkedArray, path: Path, refuse: Callable[[str, str, int], None]) -> pa.ChunkedArray:
    """Ids of texts; those that are no whole numbers are missing, and told of."""
    import pyarrow.compute as pc

    whole = pc.match_substring_regex(text, r"^\s*[+-]?\d{1,18}\s*$")
    odd = text.filter(pc.invert(whole))
    if len(odd):
        refuse("facts", f"sample_id {odd[0].as_py()!r} of {path.name} is no whole number", len(odd))
    return pc.utf8_trim_whitespace(pc.if_else(whole, text, None)).cast(pa.int64())


def facts_of_file(path: Path, refuse: Callable[[str, str, int], None], id_kind: str | None = None) -> pa.Table:
    """The facts of a CSV or Parquet file with a column `sample_id`.

    Args:
        path: The file.
        refuse: Told of a fact that is left out: its name, the reason, the rows.
        id_kind: The run's kind of ids, "int64" or "string"; what the file says when None.

    Raises:
        ValueError: It is neither, or names no samples.
        OSError: It cannot be read.
    """
    if path.suffix.lower() == ".csv":
        table = _of_csv(path, refuse, id_kind)
    else:
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(path).read()
        except pa.ArrowException as error:
            raise ValueError(f"{path} is no Parquet: {error}") from error
    if SAMPLE_ID not in table.column_names:
        raise ValueError(f"{path} has no column sample_id; its columns: {', '.join(table.column_names)}")
    ids = table.column(SAMPLE_ID)
    table = table.filter(ids.is_valid()).combine_chunks()
    kept = {}
    for name in table.column_names:
        try:
            kept[name] = _plain(name, table.column(name).combine_chunks())
        except ValueError as error:
            refuse(name, str(error), table.num_rows)
    if str(kept[SAMPLE_ID].type) not in ("int64", "string"):
        raise ValueError(f"{path}: sample_id must be whole numbers or texts, not {kept[SAMPLE_ID].type}")
    return pa.table(kept)
