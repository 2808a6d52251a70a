"""An answer for programs: the JSON object of every command, and comma-separated values.

Cheap on purpose: builds no report and loads nothing that draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from xaicli.answer import Answer
from xaicli.tables.cells import LIKE_REMARK, csv_line
from xaicli.vocabulary import LABEL, SAMPLE_ID, SCHEMA_VERSION, fact_columns
from xaicli.words import FORMULA, NUMBER, guarded, spelled

if TYPE_CHECKING:
    from xaicli.report.model import Rows

_PART_ROWS = 1 << 12
_FACTS = "facts"
"""The column of what samples are."""


def to_json(answer: Answer, outputs: Sequence[str] = (), *, rows: bool = True) -> str:
    """The JSON object of an answer, on one line, non-finite numbers as null.

    Args:
        answer: What a query returned.
        outputs: The paths of the files written.
        rows: Whether to include the rows; without them `rows`, and every other table, is null.
    """
    return "".join(json_parts(answer, outputs, rows=rows))


def json_parts(answer: Answer, outputs: Sequence[str] = (), *, rows: bool = True) -> Iterator[str]:
    """What `to_json` gives, in parts small enough to forget."""
    extra = {k: v if rows or not isinstance(v, pl.DataFrame) else None for k, v in answer.extra.items()}
    head = {
        "schema_version": SCHEMA_VERSION,
        "command": answer.command,
        "run": answer.run or None,
        "selection": answer.selection,
        "warnings": list(answer.warnings),
        "outputs": list(outputs),
        "counts": answer.counts.as_dict(),
        **extra,
    }
    parts = [f"{json.dumps(spelled(key))}:{dump(value)}" for key, value in head.items()]
    yield "{" + ",".join(parts) + ',"rows":'
    yield from _rows_in_parts(answer.data) if rows else ["null"]
    yield "}"


def _rows_in_parts(frame: pl.DataFrame) -> Iterator[str]:
    yield "["
    for at in range(0, frame.height if frame.width else 0, _PART_ROWS):
        yield ("," if at else "") + rows_json(frame.slice(at, _PART_ROWS))[1:-1]
    yield "]"


def rows_json(frame: pl.DataFrame) -> str:
    """The rows of a frame as a JSON list of objects; polars writes non-finite numbers as null."""
    # Widened first: the shortest text of a float32 is another number than the float64 that equals it.
    wide: dict[Any, Any] = {name: _wide(dtype) for name, dtype in frame.schema.items()}
    text = _without_binary(frame).cast(wide).write_json() if frame.width else "[]"
    return dump([_class_alone(row) for row in json.loads(text)]) if _has_classes(frame) else text


def _has_classes(frame: pl.DataFrame) -> bool:
    """Whether some rows are of one class (of the kind label), where samples beside them have sets of classes."""
    return "kind" in frame.columns and isinstance(frame.schema.get(LABEL), pl.List)


def _class_alone(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row as it is written: a column of a frame has one type, yet a class is no set."""
    return {**row, LABEL: row[LABEL][0]} if row["kind"] == LABEL and row[LABEL] else row


def dump(value: Any) -> str:
    """Any value made of plain Python types as JSON, non-finite numbers as null, unknown types as text."""
    if isinstance(value, pl.DataFrame):
        return rows_json(value)
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), default=_text)


def _text(value: Any) -> str:
    return spelled(str(value))


def plain(value: Any) -> Any:
    """The same value in JSON's types: NaN and infinities None, tuples lists, keys text, what no UTF-8 holds spelled."""
    if isinstance(value, str):
        return spelled(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, pl.DataFrame):
        return json.loads(rows_json(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def to_csv(rows: Rows) -> str:
    """Rows as comma-separated values (RFC 4180); lists and mappings as JSON inside a cell.

    Text that a spreadsheet would run as a formula gets an apostrophe in front. What is not finite is empty.
    """
    return "".join(csv_parts(rows))


def csv_parts(rows: Rows) -> Iterator[str]:
    """What `to_csv` gives, a frame's in parts small enough to forget."""
    if isinstance(rows, pl.DataFrame) and _FACTS in rows.columns:
        rows = _side_by_side(rows)
    if not isinstance(rows, pl.DataFrame):
        rows = [_side_by_side_row(row) for row in rows]
        yield _rows_csv(list(dict.fromkeys(key for row in rows for key in row)), rows)
        return
    flat = not any(dtype.is_nested() or dtype == pl.Binary for dtype in rows.dtypes)
    for at in range(0, max(rows.height, 1), _PART_ROWS):
        part = rows.slice(at, _PART_ROWS)
        if flat and rows.width and not _has_like_remarks(part):
            yield _frame_csv(part, header=not at)
        else:
            every: Iterable[Mapping[str, Any]] = part.iter_rows(named=True)
            every = map(_class_alone, every) if _has_classes(part) else every
            yield _rows_csv(rows.columns, every, header=not at)


def _has_like_remarks(rows: pl.DataFrame) -> bool:
    """Whether an id would be read as a remark if it stood bare."""
    return rows.schema.get(SAMPLE_ID) == pl.String() and bool(rows[SAMPLE_ID].str.contains(LIKE_REMARK).any())


def facts_renamed(rows: Rows) -> dict[str, str]:
    """{fact: its column} of those that `csv_parts` calls otherwise, since a column of the rows has their name."""
    if isinstance(rows, pl.DataFrame):
        called = _called(rows)
    else:
        first: Mapping[str, Any] = next((row for row in rows if row.get(_FACTS)), {})
        called = fact_columns(first.get(_FACTS, ()), (name for name in first if name != _FACTS))
    return {fact: column for fact, column in called.items() if fact != column}


def _called(rows: pl.DataFrame) -> dict[str, str]:
    """{fact: its column} of rows; none where they have no facts."""
    kind = rows.schema.get(_FACTS)
    facts = [field.name for field in kind.fields] if isinstance(kind, pl.Struct) else []
    return fact_columns(facts, (name for name in rows.columns if name != _FACTS))


def _side_by_side(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with a column a fact in place of one of all facts."""
    if not isinstance(rows.schema[_FACTS], pl.Struct):
        return rows
    return rows.with_columns(pl.col(_FACTS).struct.rename_fields(list(_called(rows).values()))).unnest(_FACTS)


def _side_by_side_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    facts = row.get(_FACTS)
    others = {key: value for key, value in row.items() if key != _FACTS}
    if facts is None:
        return others
    if not isinstance(facts, Mapping):
        return row
    called = fact_columns(facts, others)
    return {**others, **{called[name]: value for name, value in facts.items()}}


def _rows_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> str:
    head = [csv_line(columns)] if header else []
    return "".join(head + [csv_line(cell(row.get(column)) for column in columns) for row in rows])


def _frame_csv(frame: pl.DataFrame, *, header: bool) -> str:
    """The same by polars: far faster where there are millions of rows."""
    return frame.select(_plain_column(name, dtype) for name, dtype in frame.schema.items()).write_csv(
        line_terminator="\r\n", include_header=header
    )


def _plain_column(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as its cells are written."""
    column = pl.col(name)
    if dtype == pl.String:
        formula = column.str.contains(FORMULA) & ~column.str.contains(NUMBER)
        column = pl.when(formula).then(pl.concat_str(pl.lit("'"), column)).otherwise(column)
    elif dtype.is_float():
        wide = column.cast(pl.Float64)
        column = pl.when(wide.is_finite()).then(wide)
    return column.alias(guarded(name))


def cell(value: Any) -> Any:
    """A value as `csv_line` takes it: lists, mappings and truth values as JSON, what is not finite as missing."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return dump(value) if isinstance(value, (Mapping, list, tuple, bool)) else value


def _wide(dtype: Any) -> Any:
    """The type with float64 in place of each float32 inside it, and text (null) in place of bytes."""
    if dtype == pl.Float32:
        return pl.Float64
    if dtype == pl.Binary:
        return pl.String
    if isinstance(dtype, pl.List):
        return pl.List(_wide(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _wide(field.dtype) for field in dtype.fields})
    return dtype


def _without_binary(frame: pl.DataFrame) -> pl.DataFrame:
    binary = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    return frame.with_columns(pl.lit(None, pl.String).alias(name) for name in binary) if binary else frame
