"""Metrics as columns, ready for a run: checked, given ids, constants and schemas. Takes no torch with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from xaicli.errors import UsageError, unknown
from xaicli.files import for_arrow
from xaicli.tables.column import ColumnError, arrow_column, go_together, schema_of
from xaicli.tables.schema import CategoricalLabel, Schema, checked, stored_schemas
from xaicli.tables.table import Table, length_of
from xaicli.vocabulary import SAMPLE_ID

if TYPE_CHECKING:
    from xaicli.layout import RunLayout

EXAMPLE_ID = "example_id"
INPUT_TABLE = "input_table"
DEFAULT_NAME = "metrics"
_TOLD = 5


def metrics_table(
    metrics: Any,
    *,
    input_table: Table | str | os.PathLike[str] | None = None,
    schemas: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> pa.Table:
    """The rows of a metrics table: ids first, then constants, then the metrics, each column with its schema.

    Args:
        metrics: Columns by name, all of one length. With `example_id` (rows of the input table, from 0) rows may repeat
            and need not cover every sample; without it row i is sample i of the input table.
        input_table: The table the samples are of, or its `url`.
        schemas: What columns mean; inferred where nothing is said.
        constants: Columns that are the same in all rows.

    Raises:
        ColumnError: Columns differ in length, or one cannot be stored.
        XaiError: The input table is unknown, or an `example_id` is none of its rows.
    """
    columns = _columns(metrics)
    if stray := [column for column in schemas or {} if column not in columns]:
        raise unknown("column", stray[0], columns, where="the metrics")
    if doubled := [column for column in constants or {} if column in columns]:
        raise UsageError(f"{doubled[0]!r} is both a column and a constant", hint="leave one of them out")
    given = {column: checked(schema, column=column) for column, schema in (schemas or {}).items()}
    built = {column: arrow_column(column, values, given.get(column)) for column, values in columns.items()}
    length = _common_length({column: len(values) for column, (_, values) in built.items()})
    if input_table is not None:
        built = _identified(built, length, input_table)
    identities = {key: built.pop(key) for key in (EXAMPLE_ID, SAMPLE_ID) if key in built}
    fixed = dict(constants or {})
    if input_table is not None:
        fixed = {INPUT_TABLE: input_table.url if isinstance(input_table, Table) else str(input_table)} | fixed
    everything = identities | {k: constant_column(k, value, length) for k, value in fixed.items()} | built
    fields = [field for field, _ in everything.values()]
    return pa.Table.from_arrays([values for _, values in everything.values()], schema=pa.schema(fields))


def constant_column(name: str, value: Any, length: int) -> tuple[pa.Field, pa.Array]:
    """A column of one value; text dictionary-encoded.

    Raises:
        ColumnError: The value is no number, text or truth value.
    """
    if hasattr(value, "item"):
        value = value.item()
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ColumnError(f"constant {name!r} is a {type(value).__name__}", hint="constants are numbers or text")
    array = pa.array([value] * length) if value is None else pa.repeat(value, length)
    field, array = arrow_column(name, array)
    if isinstance(value, str):
        array = array.dictionary_encode()
    return field.with_type(array.type), array


def _columns(metrics: Any) -> dict[str, Any]:
    if hasattr(metrics, "to_arrow"):
        metrics = metrics.to_arrow()
    if type(metrics).__module__.partition(".")[0] == "pandas" and hasattr(metrics, "iloc"):
        if named := [name for name in metrics.index.names if name is not None]:  # the ids of a groupby
            metrics = metrics.reset_index(named)
        if twice := [
            name for name, is_again in zip(metrics.columns, metrics.columns.duplicated(), strict=True) if is_again
        ]:
            raise UsageError(f"the metrics have the column {twice[0]!r} more than once", hint="give it another name")
        return {str(name): metrics[name] for name in metrics.columns}
    if isinstance(metrics, pa.Table):
        return {field.name: metrics[field.name] for field in metrics.schema}
    if not isinstance(metrics, Mapping):
        raise UsageError(
            f"metrics are a {type(metrics).__name__}, not columns by name", hint='give {"loss": [0.5, 0.4], ...}'
        )
    if not metrics:
        raise UsageError("the metrics hold no column", hint='give {"loss": [0.5, 0.4], ...}')
    return {str(name): values for name, values in metrics.items()}


def _common_length(lengths: Mapping[str, int]) -> int:
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise ColumnError(f"the columns differ in length: {told}", hint="every column has one value a row")
    return next(iter(lengths.values()))


def _identified(
    built: dict[str, tuple[pa.Field, pa.Array]], length: int, input_table: Table | str | os.PathLike[str]
) -> dict[str, tuple[pa.Field, pa.Array]]:
    """The columns with an `example_id` that fits the input table."""
    n_samples = length_of(input_table)
    if EXAMPLE_ID not in built:
        if length != n_samples:
            raise ColumnError(
                f"the metrics have {length} rows, the input table {n_samples}",
                hint="without example_id row i is sample i; give example_id for repeated or partial rows",
            )
        return built | {EXAMPLE_ID: arrow_column(EXAMPLE_ID, pa.array(range(length), pa.int64()))}
    field, ids = built[EXAMPLE_ID]
    if not pa.types.is_integer(ids.type) or ids.null_count:
        raise ColumnError(f"example_id is {ids.type}, not whole numbers without gaps", hint="rows count from 0")
    beyond = ids.filter(pc.or_(pc.less(ids, 0), pc.greater_equal(ids, n_samples)))
    if len(beyond):
        raise ColumnError(
            f"example_id {beyond[0]} is no row of the input table, which has {n_samples}", hint="rows count from 0"
        )
    return built | {EXAMPLE_ID: (field.with_type(pa.int64()), ids.cast(pa.int64()))}


def default_name(layout: RunLayout, table: pa.Table) -> str:
    """The table unnamed metrics go to: the first of `metrics`, `metrics-2`, ... that is new or has these columns."""
    return next(
        name
        for name in names_like(DEFAULT_NAME)
        if (stored := stored_columns(layout, name)) is None
        or (set(stored) == set(table.column_names) and misfit(stored, table) is None)
    )


def names_like(name: str) -> Iterator[str]:
    """`metrics`, `metrics-2`, `metrics-3`, ..."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def stored_columns(layout: RunLayout, name: str) -> dict[str, pa.DataType] | None:
    """The columns a table of the run has so far; None if it is not there."""
    found: dict[str, pa.DataType] = {}
    for path in sorted(layout.table_folder(name).glob("*.parquet")):
        try:
            found = {field.name: field.type for field in parquet.read_schema(for_arrow(path))} | found
        except (OSError, pa.ArrowException):
            # A damaged part is the reader's to name.
            continue
    return found or None


def misfit(stored: Mapping[str, pa.DataType], table: pa.Table) -> str | None:
    """The first column that is of another type than it was stored with."""
    return next(
        (f.name for f in table.schema if f.name in stored and not go_together(stored[f.name], f.type)),
        None,
    )


def check_fits(layout: RunLayout, name: str, table: pa.Table) -> None:
    """That rows can be added to a table.

    Raises:
        ColumnError: A column is of another type there.
    """
    stored = stored_columns(layout, name) or {}
    if (column := misfit(stored, table)) is not None:
        raise ColumnError(
            f"column {column!r} is {table.schema.field(column).type}; in the table {name!r} it is {stored[column]}",
            hint="give the rows a table of their own: name=...",
        )


def renamed_classes(layout: RunLayout, name: str, table: pa.Table) -> tuple[str, ...]:
    """What is to be said where rows give classes of a table other names than its earlier rows did: the last ones hold.

    Args:
        layout: The run.
        name: The table.
        table: The rows that are added.
    """
    stored = stored_schemas(layout, name)
    said: dict[tuple[str, ...], list[str]] = {}
    for column in table.schema:
        before, now = _classes_of(stored.get(column.name)), _classes_of(schema_of(column))
        changes = [f"{old!r} is {now[value]!r}" for value, old in before.items() if now.get(value, old) != old]
        changes += [f"{before[value]!r} has no name" for value in before if value not in now] if now else []
        if changes:
            said.setdefault(tuple(changes), []).append(column.name)
    return tuple(_RENAMED.format(name, " and ".join(columns), _first(changes)) for changes, columns in said.items())


_RENAMED = "earlier rows of the table {} gave the classes of {} other names; all are told by those of now: {}"


def _first(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - _TOLD} more" if len(changes) > _TOLD else ""
    return ", ".join(changes[:_TOLD]) + more


def _classes_of(schema: Schema | None) -> dict[int, str]:
    return schema.names if isinstance(schema, CategoricalLabel) else {}
