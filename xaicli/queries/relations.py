"""The queries over a lazy dataframe, written once for every engine.

Rules that keep engines equal: non-finite values become null before anything is aggregated (engines disagree on NaN),
values are widened to float64 before a mean, and an order is always total.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeVar

import narwhals.stable.v2 as nw
import polars as pl

from xaicli import engines
from xaicli.engines import ORDER, collect, column
from xaicli.errors import XaiError
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import ATTEMPT, EPOCH, LABEL, PASS, QUANTILES, RANK, SAMPLE_ID, STEP, Bounds, Duplicates

if TYPE_CHECKING:
    from xaicli.queries.labels import Kinds


T = TypeVar("T")
Rows = nw.LazyFrame[Any]

LOGGED = (EPOCH, PASS, ATTEMPT, STEP, RANK, ORDER)
"""The order of places, and of logging within them."""


def finite(rows: Rows, metrics: Sequence[str]) -> Rows:
    """The rows with metrics as float64, null where they are not finite."""
    wide = [nw.col(metric).cast(nw.Float64()) for metric in metrics]
    return rows.with_columns(*wide).with_columns(
        *(nw.when(nw.col(metric).is_finite()).then(nw.col(metric)).alias(metric) for metric in metrics)
    )


def n_non_finite(rows: Rows, metrics: Sequence[str]) -> Rows:
    """One row: how many values of each metric are NaN or infinite."""
    wide = {metric: nw.col(metric).cast(nw.Float64()) for metric in metrics}
    return rows.select(
        *((~value.is_finite() & ~value.is_null()).cast(nw.Int64()).sum().alias(m) for m, value in wide.items())
    )


def n_rows(rows: Rows) -> Rows:
    """One row: `rows`, and `distinct`, how many (sample_id, epoch, pass) there are."""
    groups = rows.group_by(SAMPLE_ID, EPOCH, PASS).agg(nw.col(STEP).len().cast(nw.Int64()).alias("n"))
    return groups.select(nw.col("n").sum().alias("rows"), nw.col("n").len().cast(nw.Int64()).alias("distinct"))


def without_duplicates(rows: Rows) -> Rows:
    """Of each (sample_id, epoch, pass) the last row by (attempt, step, rank, order)."""
    return rows.unique([SAMPLE_ID, EPOCH, PASS], keep="last", order_by=[ATTEMPT, STEP, RANK, ORDER])


def within_labels(rows: Rows, label_key: str, labels: Sequence[Any], *, are_sets: bool = False) -> Rows:
    """The rows of some labels, of sets those with one of them; all rows without any."""
    if not labels:
        return rows
    label = nw.col(label_key)
    return rows.filter(reduce(or_, map(label.list.contains, labels)) if are_sets else label.is_in(list(labels)))


def last_values(rows: Rows, metric: str) -> Rows:
    """Each sample's value in the last place it has one in: sample_id, epoch, score.

    Args:
        rows: Finite, without duplicates.
    """
    known = rows.filter(~nw.col(metric).is_null()).select(SAMPLE_ID, *LOGGED, metric)
    last = known.unique([SAMPLE_ID], keep="last", order_by=list(LOGGED))
    return last.select(SAMPLE_ID, EPOCH, nw.col(metric).alias("score"))


def of_samples(rows: Rows, ids: Sequence[Any], columns: Mapping[str, str]) -> Rows:
    """The rows of some samples: sample_id, epoch, pass, and columns under new names; in the order of logging.

    Args:
        columns: {new name: column}.
    """
    found = rows.filter(nw.col(SAMPLE_ID).is_in(list(ids)))
    return found.sort(*LOGGED).select(
        SAMPLE_ID, EPOCH, PASS, *(nw.col(column).alias(name) for name, column in columns.items())
    )


def last_steps(rows: Rows) -> Rows:
    """The largest step of each place: epoch, pass, step."""
    return rows.group_by(EPOCH, PASS).agg(nw.col(STEP).max())


def labelled(rows: Rows, kinds: Kinds) -> Rows:
    """The rows that have a label, with it in the column `label`, as `Kinds.labelled`."""
    key = column(kinds.key)
    value = nw.col(key)
    if kinds.are_sets:
        return rows.with_columns(value.alias(LABEL)).explode(LABEL).filter(~nw.col(LABEL).is_null())
    if kinds.are_numbers:
        value = nw.when(~value.is_nan()).then(value)
    if kinds.ends:
        known = value.cast(nw.Float64()) if kinds.are_numbers else value
        value = nw.lit(kinds.first, nw.Int32())
        for end in kinds.ends:
            value = value + (known > end).cast(nw.Int32())
        value = value.cast(nw.Int32())
    told = rows if key == LABEL and not kinds.ends else rows.with_columns(value.alias(LABEL))
    return told.filter(~nw.col(LABEL).is_null())


def label_statistics(rows: Rows, metric: str, bounds: Sequence[Bounds]) -> Rows:
    """Statistics of a metric per place and label.

    Args:
        rows: Finite, without duplicates, labelled.

    Returns:
        epoch, pass, label, n, mean, std (n - 1; null where n = 1), min, max, and the quantiles if `bounds` wants them.
    """
    value = nw.col(metric)
    wanted = QUANTILES if Bounds.QUANTILE in bounds else {}
    return (
        rows.filter(~value.is_null())
        .group_by(EPOCH, PASS, LABEL)
        .agg(
            value.len().cast(nw.Int64()).alias("n"),
            value.mean().alias("mean"),
            value.std(ddof=1).alias("std"),
            value.min().alias("min"),
            value.max().alias("max"),
            *(value.quantile(q, "linear").alias(name) for name, q in wanted.items()),
        )
    )


class OfEngine:
    """One (mode, ds_id) opened in an engine.

    Args:
        asked: The rows of the pair as the engine sees them.
    """

    def __init__(self, reader: Reader, selection: Selection, pair: Pair, asked: Asked) -> None:
        self._reader = reader
        self._selection = selection
        self._pair = pair
        self._asked = asked
        self._metrics = {metric: column(metric) for metric in selection.metrics}
        self._label_key = column(selection.label_key)
        self._labels = list(selection.label_map)
        self._are_sets = isinstance(reader.dtypes.get(selection.label_key), pl.List)
        self._finite = finite(asked.rows, list(self._metrics.values()))

    def count(self, tally: Tally) -> None:
        """Count the rows, duplicates and non-finite values."""
        self._asked.count(list(self._metrics.values()), tally)

    def last_scores(self, metric: str) -> pl.DataFrame:
        """What `Epochwise.last_scores` gives."""
        rows = within_labels(self._finite, self._label_key, self._labels, are_sets=self._are_sets)
        last = self._selection.epochs[self._pair][-1]
        found = collect(last_values(rows, self._metrics[metric]))
        return found.select(SAMPLE_ID, pl.col("score").alias(SCORE), (pl.col(EPOCH) != last).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """What `Epochwise.histories` gives."""
        columns = {LABEL: self._label_key, **{name: name for name in self._metrics.values()}}
        past = collect(of_samples(self._finite, ids.to_list(), columns))
        past = past.rename({name: metric for metric, name in self._metrics.items()})
        if self._selection.label_key not in self._reader.dtypes:
            past = past.with_columns(pl.lit(None).alias(LABEL))
        joined = past.join(self._steps(), on=[EPOCH, PASS], how="left", maintain_order="left")
        return joined.select(SAMPLE_ID, LABEL, EPOCH, PASS, STEP, *self._selection.metrics)

    def label_statistics(self, metric: str, bounds: Sequence[Bounds], kinds: Kinds) -> pl.DataFrame:
        """Rows label, epoch, pass, step, n, mean, std, min, max and the quantiles if wanted."""
        rows = labelled(self._finite, kinds)
        rows = within_labels(rows, LABEL, self._labels)
        found = collect(label_statistics(rows, self._metrics[metric], bounds))
        return found.join(self._steps(), on=[EPOCH, PASS], how="left").with_columns(pl.col("std").fill_null(0.0))

    def n_valueless(self, kinds: Kinds) -> int:
        """How many finite values of the metrics rows with a label lack."""
        rows = labelled(self._finite, kinds)
        rows = within_labels(rows, LABEL, self._labels)
        lacking = [nw.col(name).is_null().cast(nw.Int64()).sum().alias(name) for name in self._metrics.values()]
        return sum(int(n or 0) for n in collect(rows.select(*lacking)).row(0))

    def n_unlabelled(self, kinds: Kinds) -> int:
        """How many rows have no label, as `Kinds.n_unlabelled` counts them; those limited to labels have one."""
        if self._labels:
            return 0
        key = nw.col(self._label_key)
        lacks = key.is_null()
        if kinds.are_sets:
            lacks = (key.list.len() == 0) | lacks
        elif kinds.are_numbers:
            lacks = key.is_nan() | lacks
        found = collect(self._asked.rows.select(lacks.cast(nw.Int64()).sum().alias("n")))
        return int(found.item() or 0)

    def _steps(self) -> pl.DataFrame:
        return collect(last_steps(self._asked.logged))


@dataclass(frozen=True)
class Asked:
    """The rows of one (mode, ds_id) that a question is about, in an engine.

    Attributes:
        rows: Those rows, without duplicates unless all are wanted.
        logged: Rows that say the last step of each place, duplicates included.
        n_rows: How many `rows` there are.
        n_duplicates: How many rows repeat a sample of their pass.
    """

    rows: Rows
    logged: Rows
    n_rows: int
    n_duplicates: int

    def count(self, metrics: Sequence[str], tally: Tally) -> None:
        """Count the rows, the duplicates, and the non-finite values of some columns."""
        non_finite = collect(n_non_finite(self.rows, metrics)).cast(pl.Int64).row(0) if metrics else ()
        tally.add(Tally(self.n_rows, sum(int(n or 0) for n in non_finite), self.n_duplicates))


@contextmanager
def asked_rows(reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str]) -> Iterator[Asked]:
    """The rows of one (mode, ds_id) in the engine of the selection, for as long as the block lasts.

    A condition is polars', for engines differ in what SQL means: of a run with one, the rows that meet it are read here
    as they are for polars, and handed to the engine; so are those with facts, which lie elsewhere.

    Args:
        columns: The columns wanted beside those that say where a row lies.

    Raises:
        XaiError: The engine is not to be had, or there are duplicates and the selection refuses them.
    """
    epochs = selection.epochs[pair]
    wanted = list(dict.fromkeys([SAMPLE_ID, EPOCH, PASS, STEP, ATTEMPT, RANK, *columns]))
    if reader.where is None and reader.facts.dtypes.keys().isdisjoint(wanted):
        places = [Place(*pair, epoch) for epoch in epochs]
        with engines.opened(reader, places, wanted, selection.engine, spark_remote=selection.spark_remote) as logged:
            yield Asked(*_resolved(logged, selection, pair))
        return
    tally = Tally()
    found = [pl.DataFrame(schema={name: reader.dtypes.get(name, pl.Int32()) for name in wanted})]
    for rows in reader.place_frames(
        *pair, wanted, epochs, duplicates=selection.duplicates, tally=tally, keep_non_finite=True
    ):
        found.append(rows.frame.with_columns(rows.times))
    frame = pl.concat(found, how="vertical_relaxed")
    with engines.handed(frame, selection.engine, spark_remote=selection.spark_remote) as kept:
        yield Asked(kept, kept, tally.rows, tally.duplicates)


def _resolved(rows: Rows, selection: Selection, pair: Pair) -> tuple[Rows, Rows, int, int]:
    """The rows of a pair without duplicates, unless all are wanted, all of them, and the numbers of both.

    Raises:
        XaiError: There are duplicates, and the selection refuses them.
    """
    total, distinct = (int(value or 0) for value in collect(n_rows(rows)).row(0))
    duplicates = total - distinct
    if duplicates and selection.duplicates is Duplicates.ERROR:
        raise XaiError(
            f"{duplicates} rows of {' '.join(filter(None, pair))} repeat a sample of their pass",
            hint="--duplicates last takes the last row of each sample, with its columns alone; all takes every row",
        )
    if duplicates and selection.duplicates is Duplicates.LAST:
        return without_duplicates(rows), rows, distinct, duplicates
    return rows, rows, total, duplicates


def tallied(reader: Reader, tally: Tally, ask: Callable[[Tally], T]) -> T:
    """What an engine answers, asked again where a file has vanished meanwhile; rows are counted once all the same."""

    def once() -> tuple[T, Tally]:
        own = Tally()
        return ask(own), own

    found, own = reader.while_files_last(once)
    tally.add(own)
    return found


@contextmanager
def of_engine(reader: Reader, selection: Selection, pair: Pair) -> Iterator[OfEngine]:
    """One (mode, ds_id) in the engine of the selection.

    Raises:
        XaiError: The engine is not to be had, or there are duplicates and the selection refuses them.
    """
    with asked_rows(reader, selection, pair, [selection.label_key, *selection.metrics]) as asked:
        yield OfEngine(reader, selection, pair, asked)
