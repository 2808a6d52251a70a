"""The parts of the answers as DuckDB or Spark computes them, shaped as the polars path shapes its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl

from xaicli import engines
from xaicli.engines import collect, column
from xaicli.errors import XaiError
from xaicli.queries import relations
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import ATTEMPT, EPOCH, LABEL, PASS, RANK, SAMPLE_ID, STEP, Bounds, Duplicates

if TYPE_CHECKING:
    from xaicli.queries.labels import Kinds


class OfEngine:
    """One (mode, ds_id) opened in an engine.

    Args:
        rows: The rows of the pair as the engine sees them.
    """

    def __init__(self, reader: Reader, selection: Selection, pair: Pair, rows: relations.Rows) -> None:
        self._reader = reader
        self._selection = selection
        self._pair = pair
        self._logged = rows
        self._rows, self._n_rows, self._n_duplicates = resolved(rows, selection, pair)
        self._metrics = {metric: column(metric) for metric in selection.metrics}
        self._label_key = column(selection.label_key)
        self._finite = relations.finite(self._rows, list(self._metrics.values()))

    def count(self, tally: Tally) -> None:
        """Count the rows, duplicates and non-finite values."""
        spoilt = collect(relations.n_non_finite(self._rows, list(self._metrics.values()))).cast(pl.Int64).row(0)
        tally.add(Tally(self._n_rows, sum(int(n or 0) for n in spoilt), self._n_duplicates))

    def last_scores(self, metric: str) -> pl.DataFrame:
        """What `Epochwise.last_scores` gives."""
        rows = relations.within_labels(self._finite, self._label_key, list(self._selection.label_map))
        last = self._selection.epochs[self._pair][-1]
        found = collect(relations.last_values(rows, self._metrics[metric]))
        return found.select(SAMPLE_ID, pl.col("score").alias(SCORE), (pl.col(EPOCH) != last).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """What `Epochwise.histories` gives."""
        columns = {LABEL: self._label_key, **{name: name for name in self._metrics.values()}}
        past = collect(relations.of_samples(self._finite, ids.to_list(), columns))
        past = past.rename({name: metric for metric, name in self._metrics.items()})
        if self._selection.label_key not in self._reader.dtypes:
            past = past.with_columns(pl.lit(None).alias(LABEL))
        joined = past.join(self._steps(), on=[EPOCH, PASS], how="left", maintain_order="left")
        return joined.select(SAMPLE_ID, LABEL, EPOCH, PASS, STEP, *self._selection.metrics)

    def label_statistics(self, metric: str, bounds: Sequence[Bounds], kinds: Kinds) -> pl.DataFrame:
        """Rows label, epoch, pass, step, n, mean, std, min, max and the quantiles if wanted."""
        selection = self._selection
        rows = relations.within_labels(self._finite, self._label_key, list(selection.label_map))
        rows = relations.labelled(rows, self._label_key, kinds.edges, are_sets=kinds.are_sets)
        found = collect(relations.label_statistics(rows, self._metrics[metric], bounds))
        return found.join(self._steps(), on=[EPOCH, PASS], how="left").with_columns(pl.col("std").fill_null(0.0))

    def _steps(self) -> pl.DataFrame:
        return collect(relations.last_steps(self._logged))


def resolved(rows: relations.Rows, selection: Selection, pair: Pair) -> tuple[relations.Rows, int, int]:
    """The rows of a pair without duplicates, unless all are wanted; how many there are, and how many were duplicates.

    Raises:
        XaiError: There are duplicates, and the selection refuses them.
    """
    total, distinct = (int(value or 0) for value in collect(relations.n_rows(rows)).row(0))
    duplicates = total - distinct
    if duplicates and selection.duplicates is Duplicates.ERROR:
        raise XaiError(
            f"{duplicates} rows of {' '.join(filter(None, pair))} repeat a sample of their pass",
            hint="--duplicates last takes the last row of each sample, all takes every row",
        )
    if duplicates and selection.duplicates is Duplicates.LAST:
        return relations.without_duplicates(rows), distinct, duplicates
    return rows, total, duplicates


@contextmanager
def of_engine(reader: Reader, selection: Selection, pair: Pair) -> Iterator[OfEngine]:
    """One (mode, ds_id) in the engine of the selection.

    Raises:
        XaiError: The engine is not to be had, or there are duplicates and the selection refuses them.
    """
    places = [Place(*pair, epoch) for epoch in selection.epochs[pair]]
    columns: list[Any] = [SAMPLE_ID, EPOCH, PASS, STEP, ATTEMPT, RANK, selection.label_key, *selection.metrics]
    opened = engines.opened(
        reader, places, list(dict.fromkeys(columns)), selection.engine, spark_remote=selection.spark_remote
    )
    with opened as rows:
        yield OfEngine(reader, selection, pair, rows)
