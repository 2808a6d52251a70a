"""The statistics as DuckDB or Spark computes them, shaped as the tracker shapes its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import narwhals.stable.v2 as nw
import polars as pl

from xaicli import engines
from xaicli.dynamics import relations
from xaicli.dynamics.plan import Plan
from xaicli.queries.by_engine import resolved
from xaicli.queries.relations import Rows, finite, n_non_finite, within_labels
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import ATTEMPT, EPOCH, LABEL, PASS, RANK, SAMPLE_ID, STEP

_DIRECTION = pl.Enum(["down", "up"])
_NO_JUMPS = {
    "rank_jump": pl.Float64,
    "rank_jump_epoch": pl.Int32,
    "rank_from": pl.Float32,
    "rank_to": pl.Float32,
    "rises": pl.Boolean,
}


def statistics_by_engine(
    reader: Reader, selection: Selection, pair: Pair, plan: Plan, tally: Tally
) -> tuple[pl.DataFrame, Mapping[int, float]]:
    """What one (mode, ds_id) gives in the engine of the selection: `Tracker.frame` and `Tracker.accuracy`.

    Raises:
        XaiError: The engine is not to be had, or there are duplicates and the selection refuses them.
    """
    epochs = selection.epochs[pair]
    columns = list(dict.fromkeys([SAMPLE_ID, EPOCH, PASS, STEP, ATTEMPT, RANK, *plan.columns()]))
    places = [Place(*pair, epoch) for epoch in epochs]
    with engines.opened(reader, places, columns, selection.engine, spark_remote=selection.spark_remote) as opened:
        metrics = [engines.column(metric) for metric in plan.parts()]
        rows, n_rows, n_duplicates = resolved(opened, selection, pair)
        spoilt = engines.collect(n_non_finite(rows, metrics)).row(0)
        tally.add(Tally(n_rows, sum(int(n or 0) for n in spoilt), n_duplicates))
        rows = finite(within_labels(rows, engines.column(selection.label_key), list(selection.label_map)), metrics)
        parts = [engines.collect(part) for part in relations.statistics(rows, plan, epochs)]
        accuracy = _accuracy(rows, plan)
    found = reduce(lambda left, right: left.join(right, on=SAMPLE_ID, how="left"), parts).sort(SAMPLE_ID)
    return _shaped(found, reader, plan), accuracy


def _accuracy(rows: Rows, plan: Plan) -> dict[int, float]:
    if not plan.judged_by:
        return {}
    by_epoch = (
        rows.with_columns(relations.judged(plan).cast(nw.Float64()).alias("_right"))
        .group_by(EPOCH)
        .agg(nw.col("_right").mean())
    )
    return {int(epoch): float(share) for epoch, share in engines.collect(by_epoch).drop_nulls().iter_rows()}


def _shaped(found: pl.DataFrame, reader: Reader, plan: Plan) -> pl.DataFrame:
    """The types of the tracker's columns: extremes as they were recorded, directions in words."""
    kept = ("last", "first", "min", "max")
    if LABEL not in found.columns:
        found.insert_column(1, pl.Series(LABEL, [None] * found.height, pl.Int32))
    recorded = {f"{metric}_{name}": reader.dtypes[metric] for metric in plan.metrics for name in kept}
    if plan.jumps:
        missing = {name: dtype for name, dtype in _NO_JUMPS.items() if name not in found.columns}
        found = found.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in missing.items())
        direction = pl.when("rises").then(pl.lit("up")).when(~pl.col("rises")).then(pl.lit("down")).cast(_DIRECTION)
        found = found.with_columns(direction.alias("rank_jump_direction")).drop("rises")
        found = found.cast({"rank_from": pl.Float32, "rank_to": pl.Float32})
    epochs = ("first_learned", "learned_for_good", "rank_jump_epoch")
    found = found.cast({name: pl.Int32() for name in epochs if name in found.columns})
    return found.cast({name: dtype for name, dtype in recorded.items() if dtype.is_float()})
