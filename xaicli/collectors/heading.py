"""The columns every collected table begins with: which sample, of what, when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from xaicli.recorder.run import Run
from xaicli.tables.column import arrow_column
from xaicli.tables.metrics_table import EXAMPLE_ID, INPUT_TABLE, constant_column
from xaicli.tables.schema import Int
from xaicli.tables.table import Table
from xaicli.vocabulary import SAMPLE_ID

SPLIT = "split"
_MOMENT = {"epoch": pa.int32(), "step": pa.int64(), "attempt": pa.int16()}


HEADING = (EXAMPLE_ID, SAMPLE_ID, INPUT_TABLE, SPLIT, *_MOMENT)
"""The columns that say which sample, of what, when."""


def moment(run: Run) -> dict[str, int | None]:
    """When in the training this is, as far as the run knows; step and attempt tell what a resumed run has undone."""
    return {"epoch": run.state.epoch_idx or None, "step": run.state.global_step, "attempt": run.attempt}


@dataclass(frozen=True)
class Heading:
    """The columns in front of what was collected: ids, where the samples are from, constants."""

    table: Table
    split: str
    constants: Mapping[str, Any]

    def before(self, rows: pa.Table) -> pa.Table:
        """The rows with these columns first; what a collector says itself stands."""
        columns = {EXAMPLE_ID: (rows.schema.field(EXAMPLE_ID), rows[EXAMPLE_ID])}
        if self.table.sample_ids is not None:
            ids = [self.table.sample_ids[index] for index in rows[EXAMPLE_ID].to_pylist()]
            columns[SAMPLE_ID] = arrow_column(SAMPLE_ID, ids)
        for name, value in {INPUT_TABLE: self.table.url, SPLIT: self.split, **self.constants}.items():
            if name not in rows.column_names:
                columns[name] = _constant(name, value, rows.num_rows)
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
