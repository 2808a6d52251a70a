"""`samples` asked of a metrics table, whose rows may repeat a sample: several boxes of one picture, say."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.embeddings import has_embeddings
from xaicli.queries.listed import Ids, listed
from xaicli.queries.names import told_as, with_facts, with_names
from xaicli.queries.resolution import resolve
from xaicli.queries.samples import LAST, Asked, answer, of_source, valueless
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection, Words, left_out_by, polars_only
from xaicli.reader import Reader, Tally
from xaicli.reader.lazy import BY_ROW, scan_table, taken_back_of
from xaicli.reader.rows import Where, finite
from xaicli.tables.schema import class_names
from xaicli.vocabulary import (
    DS_ID,
    EPOCH,
    LABEL,
    LOSS,
    MODE,
    PASS,
    PREDICTION,
    SAMPLE_ID,
    STEP,
    Axis,
    Duplicates,
    fact_columns,
)
from xaicli.words import ranges

_IDS = (SAMPLE_ID, "example_id")
_MODES = (MODE, "split")
METRICS = "metrics"
"""The table that is asked where none is named."""
_LABELS = "_labels"
_SHOWN_LABELS = 5
_NO_METRICS = {*_IDS, *_MODES, DS_ID, EPOCH, STEP, "iteration", "attempt", "rank", "weight"}


def _slope(value: pl.Expr) -> pl.Expr:
    """Least squares on the epoch; 0 where there is one epoch."""
    time = pl.col(EPOCH).cast(pl.Float64)
    moved = time - time.mean()
    spread = (moved * moved).sum()
    return pl.when(spread > 0).then((moved * value).sum() / spread).otherwise(0.0)


_STATISTICS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    LAST: pl.Expr.last,
    "first": pl.Expr.first,
    "mean": pl.Expr.mean,
    "min": pl.Expr.min,
    "max": pl.Expr.max,
    "std": lambda value: value.std(ddof=1).fill_null(0.0),
    "slope": _slope,
}
"""Scores from a sample's finite values in the order of epochs, as `dynamics` defines them."""


class Reduce(StrEnum):
    """What becomes of several rows of one sample in one epoch."""

    MAX = "max"
    MIN = "min"
    MEAN = "mean"
    COUNT = "count"
    FIRST = "first"


def table_samples(
    reader: Reader,
    table: str,
    *,
    reduce: str = Reduce.MEAN,
    max: int,
    min: int,
    ids: Ids,
    stat: str,
    complete_only: bool,
    by_picture: bool = False,
    mode: Words = None,
    where: str | None = None,
    **select: Any,
) -> Answer:
    """The samples of a metrics table with the highest and lowest values, as `samples` gives those of the run.

    Samples are told apart by `sample_id`, else `example_id`; a column `mode`, else `split`, is the mode; without a
    column `epoch` everything is of epoch 0, and without a column `step` the epoch stands in its place.

    Args:
        reader: The run.
        table: The table's name.
        reduce: Of several rows of one sample in one epoch: `max`, `min`, `mean`, `count` (finite values) or `first`.
        stat: The score: `last`, or a statistic over the epochs: `first`, `mean`, `min`, `max`, `std`, `slope`.
        by_picture: Whether the rows are of pictures, whose `example_id` is their sample, so that facts stand beside.
        mode: Modes or splits; all by default.
        where: A condition on the table's columns, as SQL.
        select: What `resolve` takes; metrics are the numeric columns.

    Raises:
        XaiError: No such table, column, mode, ds_id, epoch or id.
        UsageError: No such way to reduce, no such statistic, or what a table cannot honour.
    """
    if reduce not in set(Reduce):
        raise UsageError(f"--reduce {reduce!r} is not possible", hint="choose from: " + ", ".join(Reduce))
    if stat not in _STATISTICS:
        raise UsageError(
            f"--stat {stat!r} is not known of a table",
            hint="choose from: " + ", ".join(_STATISTICS),
            refused=("stat",),
            by=("table",),
        )
    held = _Table(reader, table, str(select.get("label_key") or LABEL), where, by_picture=by_picture)
    selection = resolve(held, mode="all" if mode is None else mode, **select)
    polars_only(selection, "samples --table")
    if selection.duplicates is not Duplicates.LAST:
        raise UsageError(
            f"--duplicates {selection.duplicates} has no meaning for a table",
            hint="--reduce says what several rows are",
            refused=("duplicates",),
            by=("table",),
        )
    metrics = list(selection.metrics)
    rows, non_finite = finite(held.selected(selection), metrics)
    if selection.axis is Axis.STEP and (epochs := _without_step(rows)):
        raise UsageError(
            f"{held.described} says no step of epoch {', '.join(ranges(epochs))}: --axis step has no place for it",
            hint="leave --axis out",
            refused=("axis",),
            by=("table",),
        )
    one = _reduced(rows, metrics, Reduce(reduce))
    said = _label_notes(one)
    given = listed(held, ids)
    asked = Asked(max, min, given.ids, complete_only, computed=True, in_files=given.asked)
    said += given.not_in(selection.pairs)
    found = [
        of_source(_TableRows(one, pair, selection, stat), selection, pair, replace(asked, ids=given.of(pair)), Tally())
        for pair in selection.pairs
    ]
    if asked.max or asked.min:
        present = set(one.select(MODE, DS_ID).unique().iter_rows())
        of = [(pair, part) for pair, part in zip(selection.pairs, found, strict=True) if pair in present]
        said += valueless(of, metrics, asked, stat, is_limited=where is not None)
    given.refuse_absent({pair: part.known for pair, part in zip(selection.pairs, found, strict=True)})
    known = {item for part in found for item in part.known}
    if missing := [item for item in given.within(selection.pairs) if item not in known]:
        if missing[0] in held.every_id():
            limits = [left_out_by(held, selection), *(["--label-map"] if selection.label_map else [])]
            stands = f"sample_id {missing[0]!r} is in {held.described}, but in no row selected"
            raise XaiError(stands, hint=f"left out by {', '.join(filter(None, limits))}")
        raise unknown(
            "sample_id", missing[0], one[SAMPLE_ID].unique().sort().head(1000).to_list(), where=held.described
        )
    counts = Counts(
        rows.height,
        non_finite,
        rows.height - one.height,
        stale=sum(part.n_stale for part in found),
        taken_back=held.taken_back,
        damaged=reader.damaged,
    )
    more = {"table": table, "reduce": reduce, "stat": stat}
    found_rows = pl.concat([part.rows for part in found])
    told = answer(reader, replace(selection, warnings=(*selection.warnings, *said)), asked, found_rows, counts, more)
    told = with_names(told, held, selection)
    if held.by_sample or by_picture:
        # Where objects are told of, conditions name facts as they are called.
        return with_facts(told, reader, called={} if by_picture else held.facts_called, by_row=held.by_row)
    if not reader.facts.names:
        return told
    lacks = f"facts are known by sample_id, and the rows of {held.described} say example_id: none are shown"
    return replace(told, warnings=(*told.warnings, lacks))


def are_of_samples(reader: Reader, table: str) -> bool:
    """Whether the rows of a table say which sample of the run they are about."""
    return _identity(_scanned(reader, table, table).collect_schema()) == SAMPLE_ID


def known_by_row(reader: Reader, table: str) -> pl.DataFrame:
    """The samples of a table that only the number of their row tells: mode, ds_id and sample_id."""
    lazy = _scanned(reader, table, table, marked=True)
    placed = _placed(lazy.collect_schema(), table)
    of_each = lazy.group_by(placed[name].alias(name) for name in (MODE, DS_ID, SAMPLE_ID)).agg(pl.col(BY_ROW).all())
    return of_each.filter(BY_ROW).drop(BY_ROW).collect(engine="streaming")


def ways_to_ask(reader: Reader, table: str) -> list[str]:
    """The commands beside `xai query` that answer of a table, by what its rows hold."""
    folder = reader.table_folders().get(table)
    if folder is None or (lazy := scan_table(reader, folder)) is None:
        return []
    present, named, found = lazy.collect_schema(), shlex.quote(table), []
    metrics = _metrics_of(present) if _identity(present) else ()
    if metrics:
        told = next((name for name in metrics if not name.endswith("_id")), metrics[0])
        choice = "" if LOSS in metrics or len(metrics) == 1 else f" --metric {shlex.quote(told)}"
        found.append(f"xai samples --table {named}{choice}")
    if has_embeddings(reader, table):
        found.append("xai embeddings" + ("" if table == METRICS else f" --table {named}"))
    return found


class _Table:
    """A metrics table as a selection sees a run: its modes, ds_ids, epochs, metrics and labels.

    Raises:
        XaiError: There is no such table, or it has no rows or no ids.
        UsageError: The condition is none, or there is a file of facts and the rows say no sample.
    """

    def __init__(self, reader: Reader, table: str, label_key: str, where: str | None, *, by_picture: bool) -> None:
        self.described = f"table {table} of {reader.layout.described}"
        self._reader = reader
        self.which_attempts = reader.which_attempts
        self.drops: Mapping[str, int] = {}
        self.damaged: tuple[str, ...] = ()
        self._named = {name: class_names(reader.layout, table, name) for name in {label_key, LABEL, PREDICTION}}
        self._named_by_run = reader.label_names
        self.label_names = self.names_of_classes(label_key)
        lazy = _scanned(reader, table, self.described)
        taken_back = taken_back_of(reader, table)
        self.taken_back = sum(taken.rows for taken in taken_back)
        self.warnings = (*reader.faults, *map(str, taken_back))
        present = lazy.collect_schema()
        self.metrics = _metrics_of(present)
        self.askable = self.metrics
        self.facts = reader.facts
        self.by_sample = _identity(present) == SAMPLE_ID
        if self.facts.files and not (self.by_sample or by_picture):
            raise UsageError(
                f"--facts are known by sample_id, and the rows of {self.described} say example_id",
                hint="leave it out",
                refused=("facts",),
            )
        placed = _placed(present, self.described)
        if not self.metrics:
            ways = ", ".join([*ways_to_ask(reader, table), "xai query"])
            said = f"{self.described} has no metrics, by which samples could be ranked"
            raise XaiError(said, hint=f"of it: {ways}", refused=("table",))
        self.facts_called = fact_columns(self.facts.names, present) if self.by_sample else {}
        if not by_picture:
            self.warnings += told_as(self.facts_called, f"a column of table {table} has its name")
        self.by_row: pl.DataFrame | None = None
        if called := self.facts_called:
            lazy = _scanned(reader, table, self.described, marked=True)
            if not by_picture:
                self.by_row = known_by_row(reader, table)
            own = pl.col(SAMPLE_ID).cast(present[SAMPLE_ID], strict=False)
            facts = self.facts.frame.select(own, *(pl.col(name).alias(new) for name, new in called.items())).lazy()
            lazy = lazy.join(facts, on=SAMPLE_ID, how="left", maintain_order="left")
            known = pl.lit(True) if by_picture else ~pl.col(BY_ROW)
            lazy = lazy.with_columns(pl.when(known).then(name).alias(name) for name in called.values()).drop(BY_ROW)
            present = lazy.collect_schema()
        beside = {name: value for name, value in placed.items() if name not in present and name != STEP}
        named = {**present, **{name: pl.Int32() if name == EPOCH else pl.String() for name in beside}}
        if SAMPLE_ID in beside:
            named[SAMPLE_ID] = present["example_id"]
        try:
            self.where = (
                Where.of(where, named, self.label_names if label_key == LABEL else ()) if where is not None else None
            )
        except UsageError as error:
            with contextlib.suppress(XaiError):
                reader.limited(where)
                error.refused, error.by = ("where",), ("table",)  # it is about the rows
            raise
        self._label = (pl.col(label_key) if label_key in present else pl.lit(None)).alias(LABEL)
        self._every_row, self._id = lazy, placed[SAMPLE_ID].alias(SAMPLE_ID)
        if self.where:
            lazy = self.where.among(lazy.with_columns(value.alias(name) for name, value in beside.items()))
        told = (value.alias(name) for name, value in placed.items())
        with self.where.answering() if self.where else contextlib.nullcontext():
            self._rows = lazy.select(*told, self._label, *self.metrics).collect(engine="streaming")
        identity = self._rows.schema[SAMPLE_ID]
        self.dtypes = {**present, SAMPLE_ID: identity if identity.is_integer() else pl.String()}
        if label_key in present:
            self.dtypes[LABEL] = present[label_key]
        every = self._every_row.select(placed[name].alias(name) for name in (MODE, DS_ID, EPOCH))
        # What a condition empties is there: whoever asks for it is told why nothing comes of it.
        there = self._rows if self._rows.is_empty() else every.unique().collect(engine="streaming")
        self._places = there.select(MODE, DS_ID, EPOCH).unique().sort(MODE, DS_ID, EPOCH)

    def names_of_classes(self, column: str) -> tuple[str, ...]:
        return self._named.get(column) or (self._named_by_run if column in (LABEL, PREDICTION) else ())

    def names_elsewhere(self, option: str) -> Collection[str]:
        of_rows = {
            "metric": self._reader.askable,
            "label_key": (*self._reader.dtypes, *self._reader.facts.names),
            EPOCH: self._reader.words_of_epochs(),
        }
        return of_rows.get(option) or self._reader.names_elsewhere(option)

    def modes(self) -> list[str]:
        return self._places[MODE].unique(maintain_order=True).to_list()

    def ds_ids(self, mode: str) -> list[str]:
        return self._places.filter(pl.col(MODE) == mode)[DS_ID].unique(maintain_order=True).to_list()

    def epochs(self, mode: str, ds_id: str) -> list[int]:
        return self._places.filter(pl.col(MODE) == mode, pl.col(DS_ID) == ds_id)[EPOCH].to_list()

    def epochs_met(
        self, pair: Pair, epochs: Sequence[int], duplicates: Duplicates = Duplicates.LAST
    ) -> tuple[int, ...]:
        del duplicates  # a table has none
        met = set(self._at({pair: epochs})[EPOCH])
        return tuple(epoch for epoch in epochs if epoch in met)

    def values(
        self,
        column: str,
        epochs: Mapping[Pair, Sequence[int]] | None = None,
        *,
        wanted: Collection[Any] = (),
        duplicates: Duplicates = Duplicates.LAST,
    ) -> set[Any]:
        """What the label key holds: in the rows selected, or in all rows, whatever `where` leaves out."""
        del column, wanted, duplicates  # one column groups a table without such, and all of it is in memory
        rows = self._every_row.select(self._label).collect(engine="streaming") if epochs is None else self._at(epochs)
        labels = rows[LABEL]
        return set((labels.explode() if isinstance(labels.dtype, pl.List) else labels).drop_nulls().unique())

    def every_id(self) -> set[Any]:
        """The samples of all rows, whatever `where` leaves out, as ids are given."""
        ids = self._every_row.select(self._id).collect(engine="streaming")[SAMPLE_ID].drop_nulls().unique()
        return set(ids if ids.dtype.is_integer() else ids.cast(pl.String))

    def _at(self, epochs: Mapping[Pair, Sequence[int]]) -> pl.DataFrame:
        places = [(*pair, epoch) for pair, chosen in epochs.items() for epoch in chosen]
        keys = pl.DataFrame(places, schema=self._places.schema, orient="row")
        return self._rows.join(keys, on=[MODE, DS_ID, EPOCH], how="semi", maintain_order="left")

    def selected(self, selection: Selection) -> pl.DataFrame:
        """The rows of a selection: sample_id, mode, ds_id, epoch, step, label, and each metric as float64."""
        rows = self._at(selection.epochs)
        if selection.label_map:
            rows = rows.filter(pl.col(LABEL).is_in(list(selection.label_map)))
        return rows.with_columns(pl.col(list(selection.metrics)).cast(pl.Float64))


class _TableRows:
    """One (mode, ds_id) of a table, in memory: sample_id, label, epoch, step, metrics; one row a sample and epoch."""

    def __init__(self, frame: pl.DataFrame, pair: Pair, selection: Selection, stat: str) -> None:
        of_pair = frame.filter(pl.col(MODE) == pair[0], pl.col(DS_ID) == pair[1])
        self._frame = of_pair.sort(EPOCH, maintain_order=True)
        self._last = selection.epochs[pair][-1]
        self._statistic = _STATISTICS[stat]

    def last_scores(self, metric: str) -> pl.DataFrame:
        """Each sample's score: its last value, or the statistic asked for."""
        known = self._frame.filter(pl.col(metric).is_not_null())
        score = self._statistic(pl.col(metric)).cast(pl.Float64).alias(SCORE)
        stale = (pl.col(EPOCH).last() != self._last).alias(STALE)
        return known.group_by(SAMPLE_ID, maintain_order=True).agg(score, stale)

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """Every row of some samples, epoch by epoch."""
        steps = self._frame.group_by(EPOCH).agg(pl.col(STEP).max())
        rows = self._frame.filter(pl.col(SAMPLE_ID).is_in(ids.implode())).drop(STEP)
        if PASS not in rows.columns:  # as a metric may be called
            rows = rows.with_columns(pl.lit(0, pl.Int16).alias(PASS))
        return rows.join(steps, on=EPOCH, how="left", maintain_order="left")

    def count(self, tally: Tally) -> None:
        """Count what has been read."""
        tally.rows += self._frame.height


def _scanned(reader: Reader, table: str, where: str, *, marked: bool = False) -> pl.LazyFrame:
    names = reader.table_folders()
    if table not in names:
        raise unknown("table", table, names, where=reader.layout.described)
    lazy = scan_table(reader, names[table], marked=marked)
    if lazy is None:
        raise XaiError(f"{where} has no rows", hint="see: xai doctor")
    return lazy


def _placed(present: pl.Schema, where: str) -> dict[str, pl.Expr]:
    """What says of a table's rows whose they are and where they lie: sample_id, mode, ds_id, epoch and step."""
    identity = _identity(present)
    if identity is None:
        raise XaiError(f"{where} has no sample_id or example_id", hint=f"its columns: {', '.join(present)}")
    mode = next((name for name in _MODES if name in present), None)
    return {
        SAMPLE_ID: pl.col(identity),
        MODE: pl.col(mode).cast(pl.String).fill_null("") if mode else pl.lit(""),
        DS_ID: pl.col(DS_ID).cast(pl.String).fill_null("") if DS_ID in present else pl.lit(""),
        EPOCH: pl.col(EPOCH).cast(pl.Int32).fill_null(0) if EPOCH in present else pl.lit(0, pl.Int32),
        STEP: pl.col(STEP).cast(pl.Int64) if STEP in present else pl.lit(None, pl.Int64),
    }


def _identity(present: pl.Schema) -> str | None:
    """The column that tells samples apart."""
    return next((name for name in _IDS if name in present), None)


def _metrics_of(present: pl.Schema) -> tuple[str, ...]:
    return tuple(name for name, dtype in present.items() if _is_metric(name, dtype))


def _is_metric(name: str, dtype: pl.DataType) -> bool:
    return (dtype.is_numeric() or dtype == pl.Boolean) and name not in _NO_METRICS and name != LABEL


def _reduced(rows: pl.DataFrame, metrics: list[str], reduce: Reduce) -> pl.DataFrame:
    """One row a sample and epoch; nulls stay out of every reduction."""
    values = [pl.col(metric) for metric in metrics]
    by = {
        Reduce.MAX: [value.max() for value in values],
        Reduce.MIN: [value.min() for value in values],
        Reduce.MEAN: [value.mean() for value in values],
        Reduce.COUNT: [value.count().cast(pl.Float64) for value in values],
        Reduce.FIRST: [value.drop_nulls().first() for value in values],
    }
    keys = [MODE, DS_ID, EPOCH, SAMPLE_ID]
    known = pl.col(LABEL).drop_nulls()
    labels = known.last(), known.unique(maintain_order=True).alias(_LABELS)
    return rows.group_by(keys, maintain_order=True).agg(pl.col(STEP).max(), *labels, *by[reduce])


def _without_step(rows: pl.DataFrame) -> list[int]:
    """The epochs of which some data set has no step in any row."""
    steps = rows.group_by(MODE, DS_ID, EPOCH).agg(pl.col(STEP).max())
    return steps.filter(pl.col(STEP).is_null())[EPOCH].unique().sort().to_list()


def _label_notes(rows: pl.DataFrame) -> list[str]:
    """What to know where the rows of a sample have several labels, and one is shown.

    Args:
        rows: What `_reduced` gives.
    """
    several = rows.filter(pl.col(_LABELS).list.len() > 1)
    if several.is_empty():
        return []
    n = several.select(MODE, DS_ID, SAMPLE_ID).n_unique()
    one, labels = several.row(0, named=True)[SAMPLE_ID], several[_LABELS][0].to_list()
    shown = ", ".join(map(str, labels[:_SHOWN_LABELS])) + (", ..." if len(labels) > _SHOWN_LABELS else "")
    have = "sample has" if n == 1 else "samples have"
    return [f"{n:,} {have} rows of several labels in one epoch ({one}: {shown}): the last one is shown"]
