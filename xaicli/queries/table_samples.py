"""`samples` asked of a metrics table, whose rows may repeat a sample: several boxes of one picture, say."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.samples import Asked, answer, of_source
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Selection, Words, words
from xaicli.reader import Reader, Tally
from xaicli.reader.lazy import scan_folder
from xaicli.reader.schema import finite
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, LOSS, MODE, SAMPLE_ID, STEP

_IDS = (SAMPLE_ID, "example_id")
_MODES = (MODE, "split")
_NO_METRICS = {*_IDS, *_MODES, DS_ID, EPOCH, STEP, "iteration", "attempt", "rank", "weight"}


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
    metric: Words = None,
    mode: Words = None,
    max: int = 5,
    min: int = 5,
    ids: Sequence[Any] | None = None,
    complete_only: bool = False,
    label_key: str = LABEL,
) -> Answer:
    """The samples of a metrics table with the highest and lowest values, as `samples` gives those of the run.

    Samples are told apart by `sample_id`, else `example_id`; a column `mode`, else `split`, is the mode; without a
    column `epoch` everything is of epoch 0, and without a column `step` the epoch stands in its place.

    Args:
        table: The table's name.
        reduce: Of several rows of one sample in one epoch: `max`, `min`, `mean`, `count` (finite values) or `first`.
        metric: Numeric columns; default `loss`, else the only one.
        mode: Modes or splits; all by default.

    Raises:
        XaiError: No such table, column, mode or id.
        UsageError: No such way to reduce.
    """
    if reduce not in set(Reduce):
        raise UsageError(f"--reduce {reduce!r} is not possible", hint="choose from: " + ", ".join(Reduce))
    rows = _rows(reader, table, label_key, words(mode))
    metrics = _metrics(rows, words(metric), f"table {table}")
    cleaned, spoilt = finite(rows.with_columns(pl.col(metrics).cast(pl.Float64)), metrics)
    one = _reduced(cleaned, metrics, Reduce(reduce))
    pairs = tuple(one.select(MODE, DS_ID).unique().sort(MODE, DS_ID).rows())
    frames = {pair: one.filter(pl.col(MODE) == pair[0], pl.col(DS_ID) == pair[1]) for pair in pairs}
    epochs = {pair: tuple(frame[EPOCH].unique().sort()) for pair, frame in frames.items()}
    selection = Selection(pairs=pairs, epochs=epochs, metrics=tuple(metrics), label_key=label_key)
    kind = int if one.schema[SAMPLE_ID].is_integer() else str
    asked = Asked(max, min, [kind(item) for item in ids or ()], complete_only)
    tally = Tally(rows.height, spoilt, rows.height - one.height)
    found = [of_source(_Held(frame), selection, pair, asked, Tally()) for pair, frame in frames.items()]
    known = {item for part in found for item in part.known}
    if missing := [item for item in asked.ids if item not in known]:
        raise unknown("sample_id", missing[0], one[SAMPLE_ID].unique().sort().head(1000).to_list(), where=table)
    counts = Counts(
        tally.rows,
        tally.non_finite,
        tally.duplicates,
        stale=sum(part.n_stale for part in found),
        damaged=reader.damaged,
    )
    more = {"table": table, "reduce": reduce, "stat": "last"}
    return answer(reader, selection, asked, pl.concat([part.rows for part in found]), counts, more)


class _Held:
    """One (mode, ds_id) of a table, in memory: sample_id, label, epoch, step, metrics; one row a sample and epoch."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame.sort(EPOCH, maintain_order=True)

    def last_scores(self, metric: str) -> pl.DataFrame:
        last = self._frame[EPOCH].max()
        known = self._frame.filter(pl.col(metric).is_not_null()).unique(SAMPLE_ID, keep="last", maintain_order=True)
        return known.select(SAMPLE_ID, pl.col(metric).alias(SCORE), (pl.col(EPOCH) != last).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        steps = self._frame.group_by(EPOCH).agg(pl.col(STEP).max())
        rows = self._frame.filter(pl.col(SAMPLE_ID).is_in(ids.implode())).drop(STEP)
        return rows.join(steps, on=EPOCH, how="left", maintain_order="left")

    def count(self, tally: Tally) -> None:
        tally.rows += self._frame.height


def _rows(reader: Reader, table: str, label_key: str, modes: list[str] | None) -> pl.DataFrame:
    """The table's rows with sample_id, mode, ds_id, epoch, step and label under these names."""
    folders = reader.layout.tables.iterdir() if reader.layout.tables.is_dir() else ()
    names = {unquote(folder.name): folder for folder in sorted(folders)}
    where = str(reader.layout.root)
    if table not in names:
        raise unknown("table", table, names, where=where)
    lazy = scan_folder(reader, names[table])
    if lazy is None:
        raise XaiError(f"table {table} in {where} has no rows", hint="see: xai doctor")
    present = lazy.collect_schema()
    identity = next((name for name in _IDS if name in present), None)
    if identity is None:
        raise XaiError(f"table {table} has no sample_id or example_id", hint=f"its columns: {', '.join(present)}")
    mode = next((name for name in _MODES if name in present), None)
    rows = lazy.select(
        pl.col(identity).alias(SAMPLE_ID),
        (pl.col(mode).cast(pl.String).fill_null("") if mode else pl.lit("")).alias(MODE),
        (pl.col(DS_ID).cast(pl.String).fill_null("") if DS_ID in present else pl.lit("")).alias(DS_ID),
        (pl.col(EPOCH).cast(pl.Int32).fill_null(0) if EPOCH in present else pl.lit(0, pl.Int32)).alias(EPOCH),
        pl.coalesce(*(pl.col(n).cast(pl.Int64) for n in (STEP, EPOCH) if n in present), pl.lit(0)).alias(STEP),
        (pl.col(label_key) if label_key in present else pl.lit(None)).alias(LABEL),
        *(name for name, dtype in present.items() if _is_metric(name, dtype)),
    ).collect(engine="streaming")
    if modes and modes != ["all"]:
        known = rows[MODE].unique().sort().to_list()
        for word in modes:
            if word not in known:
                raise unknown("mode", word, known, where=f"table {table}")
        rows = rows.filter(pl.col(MODE).is_in(modes))
    return rows


def _is_metric(name: str, dtype: pl.DataType) -> bool:
    return (dtype.is_numeric() or dtype == pl.Boolean) and name not in _NO_METRICS and name != LABEL


def _metrics(rows: pl.DataFrame, given: list[str] | None, where: str) -> list[str]:
    known = [name for name, dtype in rows.schema.items() if _is_metric(name, dtype)]
    for name in given or ():
        if name not in known:
            raise unknown("metric", name, known, where=where)
    if given:
        return list(dict.fromkeys(given))
    if LOSS in known or len(known) == 1:
        return [LOSS] if LOSS in known else known
    raise UsageError(f"which metric of {where}?", hint="--metric " + ", ".join(known))


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
    return rows.group_by(keys, maintain_order=True).agg(pl.col(STEP).max(), pl.col(LABEL).last(), *by[reduce])
