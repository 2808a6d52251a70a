"""What collectors return over a pass: checked batch by batch, one Arrow table for each, with ids and times in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xaicli.collectors.collector import METRICS, MetricsCollector
from xaicli.collectors.outputs import PredictorOutput
from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.tables.column import ColumnError, arrow_column, go_together
from xaicli.tables.metrics_table import EXAMPLE_ID, INPUT_TABLE, constant_column
from xaicli.tables.schema import Int
from xaicli.tables.table import Table
from xaicli.vocabulary import SAMPLE_ID


@dataclass(frozen=True)
class BatchOfRows:
    """Which rows of the table a batch holds."""

    number: int
    example_id: Sequence[int]

    def __str__(self) -> str:
        return f"batch {self.number} ({EXAMPLE_ID} {self.example_id[0]} to {self.example_id[-1]})"


class CollectorError(XaiError, ValueError):
    """A collector that failed: its name and the batch it failed in."""


@dataclass
class Gathering:
    """The columns of one collector, and how it ended."""

    collector: MetricsCollector
    taken: Mapping[str, str] = field(default_factory=dict)
    """Columns of the shared table that other collectors fill, with their names."""
    failure: CollectorError | None = None
    _chunks: dict[str, list[pa.Table]] = field(default_factory=dict)

    def add(self, batch: Any, output: PredictorOutput, rows: BatchOfRows) -> None:
        """Run the collector on a batch; a failure is kept with the batch named, and ends this collector alone."""
        if self.failure is not None:
            return
        try:
            for name, columns in self.collector.tables(batch, output).items():
                self._append(name, self._table(name, columns, rows))
        except Exception as error:
            told = error.message if isinstance(error, XaiError) else f"{type(error).__name__}: {error}"
            hint = error.hint if isinstance(error, XaiError) else ""
            self.failure = CollectorError(f"collector {self.collector.name} failed in {rows}: {told}", hint=hint)
            self.failure.__cause__ = error
            self._chunks.clear()

    @property
    def columns(self) -> list[str]:
        """The columns of the shared table this collector fills, as far as is known."""
        chunks = self._chunks.get(METRICS, [])
        return [name for name in (chunks[0].column_names if chunks else []) if name != EXAMPLE_ID]

    def tables(self) -> dict[str, pa.Table]:
        """All rows by table."""
        return {name: _joined(chunks) for name, chunks in self._chunks.items()}

    def _table(self, name: str, columns: Mapping[str, Any], rows: BatchOfRows) -> pa.Table:
        if not isinstance(columns, Mapping):
            raise ColumnError(
                f"it returned a {type(columns).__name__}, not columns by name", hint='return {"loss": [...], ...}'
            )
        built = {
            column: arrow_column(column, values, self.collector.schema_for(column))
            for column, values in columns.items()
        }
        if EXAMPLE_ID in built:
            self._check_ids(built[EXAMPLE_ID][1], rows)
            length, meant = len(built[EXAMPLE_ID][1]), f"{EXAMPLE_ID} has"
        else:
            length, meant = len(rows.example_id), "the batch has"
            built = {EXAMPLE_ID: arrow_column(EXAMPLE_ID, np.asarray(rows.example_id, np.int64)), **built}
        for column, (_, values) in built.items():
            if len(values) != length:
                raise ColumnError(f"column {column!r} has {len(values)} values where {meant} {length}")
        if name == METRICS and (shared := next((column for column in built if column in self.taken), None)):
            raise ColumnError(
                f"column {shared!r} is already collected by {self.taken[shared]}", hint="give it another name"
            )
        schema = pa.schema([column for column, _ in built.values()])
        return pa.Table.from_arrays([values for _, values in built.values()], schema=schema)

    def _append(self, name: str, table: pa.Table) -> None:
        chunks = self._chunks.setdefault(name, [])
        if chunks:
            _check_same(chunks[0].schema, table.schema)
        chunks.append(table)

    @staticmethod
    def _check_ids(ids: pa.Array, rows: BatchOfRows) -> None:
        if len(ids) and not pa.types.is_integer(ids.type):
            raise ColumnError(f"{EXAMPLE_ID} is {ids.type}, not whole numbers")
        known = pa.array(np.asarray(rows.example_id, np.int64))
        strange = ids.filter(pc.invert(pc.is_in(ids, value_set=known.cast(ids.type)))) if len(ids) else ids
        if len(strange):
            raise ColumnError(
                f"{EXAMPLE_ID} {strange[0]} is not in the batch", hint="use those in predictor_output.example_id"
            )


def _check_same(first: pa.Schema, now: pa.Schema) -> None:
    """A collector returns the same columns in every batch, of types that go together."""
    if new := [name for name in now.names if name not in first.names]:
        raise ColumnError(f"column {new[0]!r} is new: the batches before had {', '.join(first.names[1:])}")
    if missing := [name for name in first.names if name not in now.names]:
        raise ColumnError(f"column {missing[0]!r} is missing: the batches before had it")
    for name in first.names:
        before, kind = first.field(name).type, now.field(name).type
        if before != kind and not go_together(before, kind):
            hint = 'embeddings need one size: reshape_strategy="mean"' if pa.types.is_fixed_size_list(kind) else ""
            raise ColumnError(f"column {name!r} is {kind} where the batches before had {before}", hint=hint)


def _joined(chunks: list[pa.Table]) -> pa.Table:
    joined = pa.concat_tables(chunks, promote_options="permissive").combine_chunks()
    # A column of nothing but nulls has no type a file could keep.
    fields = [
        f.with_type(pa.float32()).with_metadata(f.metadata) if pa.types.is_null(f.type) else f for f in joined.schema
    ]
    return joined.cast(pa.schema(fields))


class Recipient(Protocol):
    """What a pass writes to: an open `Run`, or a finished one that is only added to."""

    @property
    def layout(self) -> RunLayout:
        """Where the tables lie."""

    @property
    def writer(self) -> tuple[int, int]:
        """The attempt and the rank that write."""

    @property
    def state(self) -> Any:
        """The training's state (epoch, step), or None."""

    def log(self, scalars: dict[str, Any]) -> None:
        """Take scalars."""


SPLIT = "split"
_MOMENT = {"epoch": pa.int32(), "step": pa.int64(), "attempt": pa.int16()}


HEADING = (EXAMPLE_ID, SAMPLE_ID, INPUT_TABLE, SPLIT, *_MOMENT)
"""The columns that say which sample, of what, when."""


def moment(run: Recipient) -> dict[str, int | None]:
    """When in the training this is, as far as the run knows; step and attempt tell what a resumed run has undone."""
    state = run.state
    return {
        "epoch": (state.epoch_idx or None) if state is not None else None,
        "step": state.global_step if state is not None else None,
        "attempt": run.writer[0],
    }


@dataclass(frozen=True)
class Heading:
    """The columns in front of what was collected: ids, where the samples are from, constants."""

    table: Table
    split: str
    constants: Mapping[str, Any]
    _left: set[str] = field(default_factory=set)

    @property
    def doubts(self) -> tuple[str, ...]:
        """The constants that are not in the rows, because a collector's own column has the name."""
        return tuple(
            f"the constant {name!r} is left out: a collector fills a column of that name" for name in sorted(self._left)
        )

    def before(self, rows: pa.Table) -> pa.Table:
        """The rows with these columns first; what a collector says itself stands."""
        columns = {EXAMPLE_ID: (rows.schema.field(EXAMPLE_ID), rows[EXAMPLE_ID])}
        if self.table.sample_ids is not None:
            ids = [self.table.sample_ids[index] for index in rows[EXAMPLE_ID].to_pylist()]
            columns[SAMPLE_ID] = arrow_column(SAMPLE_ID, ids)
        for name, value in {INPUT_TABLE: self.table.url, SPLIT: self.split, **self.constants}.items():
            if name not in rows.column_names:
                columns[name] = _constant(name, value, rows.num_rows)
            elif name in self.constants and name not in _MOMENT:
                self._left.add(name)
        columns |= {field.name: (field, rows[field.name]) for field in rows.schema if field.name not in columns}
        return pa.Table.from_arrays(
            [values for _, values in columns.values()], schema=pa.schema([field for field, _ in columns.values()])
        )


def _constant(name: str, value: Any, length: int) -> tuple[pa.Field, pa.Array]:
    """A constant's column; the times of one type in every table, null where they are not known."""
    kind = _MOMENT.get(name)
    if kind is None or not isinstance(value, (int, type(None))):
        return constant_column(name, value, length)
    return arrow_column(name, pa.array([value] * length, kind), Int())
