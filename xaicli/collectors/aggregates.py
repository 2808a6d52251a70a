"""One figure for a column of many: what a collection tells the run's scalars."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from xaicli.tables.column import schema_of
from xaicli.tables.metrics_table import EXAMPLE_ID
from xaicli.tables.schema import CategoricalLabel
from xaicli.vocabulary import SAMPLE_ID

_IDS = frozenset({EXAMPLE_ID, SAMPLE_ID})


def aggregate(table: pa.Table) -> dict[str, float]:
    """Means of numbers and of booleans, and how often each named class occurs.

    Null and non-finite values are left out; a column without a value has no mean.

    Returns:
        `{column: mean}` and `{column/class: count}`.
    """
    found: dict[str, float] = {}
    for field in table.schema:
        if field.name in _IDS:
            continue
        values, schema = table[field.name], schema_of(field)
        if isinstance(schema, CategoricalLabel):
            counts = {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}
            found |= {f"{field.name}/{name}": float(counts.get(value, 0)) for value, name in schema.names.items()}
        elif pa.types.is_boolean(field.type) or pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            mean = _mean(values)
            if mean is not None:
                found[field.name] = mean
    return found


def _mean(values: pa.ChunkedArray) -> float | None:
    numbers = values.cast(pa.float64())
    mean = pc.mean(numbers.filter(pc.fill_null(pc.is_finite(numbers), False))).as_py()
    return None if mean is None else float(mean)
