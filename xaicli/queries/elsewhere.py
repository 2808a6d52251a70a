"""The parts of the answers as DuckDB or Spark computes them, shaped as the polars path shapes its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl

from xaicli import engines
from xaicli.engines import collect
from xaicli.errors import XaiError
from xaicli.queries import portable
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import ATTEMPT, EPOCH, LABEL, RANK, SAMPLE_ID, STEP, Bounds, Duplicates


class Elsewhere:
    """One (mode, ds_id) opened in an engine.

    Args:
        rows: The rows of the pair as the engine sees them.
    """

    def __init__(self, reader: Reader, selection: Selection, pair: Pair, rows: portable.Rows) -> None:
        self._reader = reader
        self._selection = selection
        self._pair = pair
        self._logged = rows
        self._rows = rows
        found = collect(portable.n_rows(rows)).cast(pl.Int64)
        self._n_rows, distinct = (int(value or 0) for value in found.row(0))
        self._n_duplicates = self._n_rows - distinct
        self._resolve()
        self._finite = portable.finite(self._rows, selection.metrics)

    def _resolve(self) -> None:
        if self._n_duplicates and self._selection.duplicates is Duplicates.ERROR:
            mode, ds_id = self._pair
            where = f"{mode} {ds_id}".strip()
            raise XaiError(
                f"{self._n_duplicates} rows of {where} repeat a sample of their epoch",
                hint="--duplicates last takes the last row of each sample, all takes every row",
            )
        if self._n_duplicates and self._selection.duplicates is Duplicates.LAST:
            self._rows = portable.without_duplicates(self._rows)
            self._n_rows -= self._n_duplicates

    def count(self, tally: Tally) -> None:
        """Count the rows, duplicates and non-finite values."""
        spoilt = collect(portable.n_non_finite(self._rows, self._selection.metrics)).cast(pl.Int64).row(0)
        tally.add(Tally(self._n_rows, sum(int(n or 0) for n in spoilt), self._n_duplicates))

    def last_scores(self, metric: str) -> pl.DataFrame:
        """What `scores.last_scores` gives."""
        rows = portable.within_labels(self._finite, self._selection.label_key, list(self._selection.label_map))
        last = self._selection.epochs[self._pair][-1]
        found = collect(portable.last_values(rows, metric))
        return found.select(SAMPLE_ID, pl.col("score").alias(SCORE), (pl.col(EPOCH) != last).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """What `histories.histories` gives."""
        columns = {LABEL: self._selection.label_key, **{metric: metric for metric in self._selection.metrics}}
        past = collect(portable.of_samples(self._finite, ids.to_list(), columns))
        joined = past.join(self._steps(), on=EPOCH, how="left", maintain_order="left")
        return joined.select(SAMPLE_ID, LABEL, EPOCH, STEP, *self._selection.metrics)

    def label_statistics(self, metric: str, bounds: Sequence[Bounds]) -> pl.DataFrame:
        """Rows label, epoch, step, n, mean, std, min, max and the quantiles if wanted; by label and epoch."""
        selection = self._selection
        rows = portable.within_labels(self._finite, selection.label_key, list(selection.label_map))
        found = collect(portable.label_statistics(rows, selection.label_key, metric, bounds))
        return found.join(self._steps(), on=EPOCH, how="left").with_columns(pl.col("std").fill_null(0.0))

    def _steps(self) -> pl.DataFrame:
        return collect(portable.last_steps(self._logged))


@contextmanager
def elsewhere(reader: Reader, selection: Selection, pair: Pair) -> Iterator[Elsewhere]:
    """One (mode, ds_id) in the engine of the selection.

    Raises:
        XaiError: The engine is not to be had, or there are duplicates and the selection refuses them.
    """
    places = [Place(*pair, epoch) for epoch in selection.epochs[pair]]
    known = [selection.label_key] if selection.label_key in reader.dtypes else []
    columns: list[Any] = [SAMPLE_ID, EPOCH, STEP, ATTEMPT, RANK, *known, *selection.metrics]
    opened = engines.opened(
        reader, places, list(dict.fromkeys(columns)), selection.engine, spark_remote=selection.spark_remote
    )
    with opened as rows:
        yield Elsewhere(reader, selection, pair, rows)
