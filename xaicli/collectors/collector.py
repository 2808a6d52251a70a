"""What a metrics collector is: something that turns a batch and the model's output into columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xaicli.collectors.outputs import Layer, PredictorOutput
from xaicli.errors import UsageError
from xaicli.layout import RunLayout
from xaicli.tables.column import schema_of
from xaicli.tables.metrics_table import EXAMPLE_ID
from xaicli.tables.schema import CategoricalLabel, Schema, checked
from xaicli.vocabulary import SAMPLE_ID

METRICS = "metrics"
"""The table of one row a sample, which all collectors share unless they say otherwise."""

Preprocess = Callable[[Any, PredictorOutput], tuple[Any, Any]]


class MetricsCollector:
    """Turns a batch and the model's output into columns; subclasses override `compute_metrics`.

    Args:
        preprocess_fn: Turns (batch, predictor output) into what `compute_metrics` gets.
        compute_aggregates: Whether the run gets the columns' means as scalars.
        column_schemas: What the columns mean; inferred where nothing is said.
        schema: The same, by the name later versions of the seed's package use.
    """

    preprocess_fn: Preprocess | None = None
    compute_aggregates: bool = True
    reads_heads: bool = False
    """Whether it asks what the output means: it gets a `PredictorOutput` whatever `preprocess_fn` returns."""
    layers: tuple[Layer, ...] = ()
    """The hidden layers this collector needs."""
    _column_schemas: Mapping[str, Any] = {}

    def __init__(
        self,
        preprocess_fn: Preprocess | None = None,
        compute_aggregates: bool = True,
        column_schemas: Mapping[str, Any] | None = None,
        *,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        if column_schemas and schema:
            raise UsageError("column_schemas and schema are two spellings of one argument", hint="give one of them")
        self.preprocess_fn = preprocess_fn
        self.compute_aggregates = compute_aggregates
        self._column_schemas = dict(column_schemas or schema or {})

    @property
    def name(self) -> str:
        """What messages call this collector."""
        return type(self).__name__

    @property
    def column_schemas(self) -> Mapping[str, Any]:
        """Schemas by column."""
        return self._column_schemas

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> Mapping[str, Any]:
        """Columns by name, one value for each sample of the batch.

        With a column `example_id` (rows of the table, as in `predictor_output.example_id`) a sample may have several
        rows or none.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override compute_metrics")

    def compute_tables(self, batch: Any, predictor_output: PredictorOutput) -> Mapping[str, Mapping[str, Any]]:
        """Columns by table and name; a collector that fills several tables overrides this."""
        return {METRICS: self.compute_metrics(batch, predictor_output)}

    def finish(self, tables: Mapping[str, pa.Table], layout: RunLayout | None) -> Mapping[str, pa.Table]:
        """Look at all that was collected once the pass is over; may add columns.

        Args:
            tables: This collector's columns by table, with their `example_id`.
            layout: The run they are collected for, if there is one.
        """
        del layout
        return tables

    def doubts(self, tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
        """What a user should know of what was collected, one sentence each: it becomes a warning."""
        del tables
        return ()

    def aggregates(self, tables: Mapping[str, pa.Table]) -> dict[str, float]:
        """The scalars the run gets: by default those of the columns of the shared table."""
        return aggregate(tables[METRICS]) if METRICS in tables else {}

    def schema_for(self, column: str) -> Schema | None:
        """The schema stated for a column."""
        given = self.column_schemas.get(column)
        return None if given is None else checked(given, column=column)

    def tables(self, batch: Any, predictor_output: PredictorOutput) -> Mapping[str, Mapping[str, Any]]:
        """`compute_tables` on what `preprocess_fn` makes of the batch."""
        if self.preprocess_fn is None:
            return self.compute_tables(batch, predictor_output)
        batch, made = self.preprocess_fn(batch, predictor_output)
        return self.compute_tables(batch, PredictorOutput.of(made, predictor_output) if self.reads_heads else made)


class FunctionalMetricsCollector(MetricsCollector):
    """A function `(batch, predictor output) -> columns` as a collector; a bare function is made one by itself.

    Args:
        collection_fn: The function.
    """

    def __init__(
        self,
        collection_fn: Callable[[Any, PredictorOutput], Mapping[str, Any]],
        column_schemas: Mapping[str, Any] | None = None,
        compute_aggregates: bool = True,
        *,
        preprocess_fn: Preprocess | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(preprocess_fn, compute_aggregates, column_schemas, schema=schema)
        self.collection_fn = collection_fn

    @property
    def name(self) -> str:
        return getattr(self.collection_fn, "__name__", type(self.collection_fn).__name__)

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> Mapping[str, Any]:
        return self.collection_fn(batch, predictor_output)


def as_collectors(given: Any) -> list[MetricsCollector]:
    """One collector or function, or a sequence of them, as a list of collectors.

    Raises:
        UsageError: There is none, or something is neither.
    """
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    if not items:
        raise UsageError("no metrics collector given", hint="for example xaicli.ClassificationMetricsCollector()")
    for item in items:
        if isinstance(item, type) or not (isinstance(item, MetricsCollector) or callable(item)):
            shown = item.__name__ if isinstance(item, type) else type(item).__name__
            raise UsageError(
                f"{shown} is no metrics collector", hint="give a MetricsCollector object or a function(batch, output)"
            )
    return [item if isinstance(item, MetricsCollector) else FunctionalMetricsCollector(item) for item in items]


_IDS = frozenset({EXAMPLE_ID, SAMPLE_ID})
_CLASSES = frozenset({"label", "labels", "predicted", "prediction", "target", "class", "category"})
"""Columns that, of whole numbers, hold classes: their mean says nothing."""


def aggregate(table: pa.Table) -> dict[str, float]:
    """Means of numbers and of booleans, and the share of each named class.

    Null and non-finite values are left out; a column without a value has no mean, nor has one of class numbers.

    Returns:
        `{column: mean}` and `{column/class: share}`, of the values that there are, so that splits of different sizes
        compare.
    """
    found: dict[str, float] = {}
    for field in table.schema:
        if field.name in _IDS:
            continue
        values, schema = table[field.name], schema_of(field)
        if isinstance(schema, CategoricalLabel):
            counts = {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}
            n = len(values) - values.null_count
            shares = {name: counts.get(value, 0) / n for value, name in schema.names.items()} if n else {}
            found |= {f"{field.name}/{name}": share for name, share in shares.items()}
        elif pa.types.is_integer(field.type) and field.name in _CLASSES:
            continue
        elif pa.types.is_boolean(field.type) or pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            mean = _mean(values)
            if mean is not None:
                found[field.name] = mean
    return found


def _mean(values: pa.ChunkedArray) -> float | None:
    numbers = values.cast(pa.float64())
    mean = pc.mean(numbers.filter(pc.fill_null(pc.is_finite(numbers), False))).as_py()
    return None if mean is None else float(mean)
