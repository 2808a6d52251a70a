"""The statistics of every sample over a lazy dataframe, for any engine: what `Tracker` finds, as relations.

Each function takes rows of one (mode, ds_id) with metrics finite or null (`queries.relations.finite`) and gives one row
a sample. An order within a sample is always total: `HISTORY`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

import narwhals.stable.v2 as nw
import polars as pl

from xaicli import engines
from xaicli.dynamics.metrics import EMA_WEIGHT, GROWING, LEARNING, MEMORISED, Plan, stale_of
from xaicli.dynamics.ranks import NORMAL_MAD, NORMAL_MEAN_DEVIATION, ROUNDING, TIED
from xaicli.engines import column
from xaicli.queries.relations import LOGGED, Rows, asked_rows, finite, within_labels, without_duplicates
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Tally
from xaicli.vocabulary import EL2N, EPOCH, LABEL, LABEL_PROB, LOSS, MARGIN, PASS, SAMPLE_ID

HISTORY = LOGGED

_NUMBER = "_number"
_RIGHT = "_right"
_NO_TREND = 1e-13
"""A correlation with the epochs that is smaller is none: what rounding leaves of the symmetric history of a 0 or 1."""


def statistics(rows: Rows, plan: Plan, epochs: Sequence[int], memorised: int | None = None) -> list[Rows]:
    """Everything the plan asks for, in relations to be joined on sample_id; the first has every sample.

    Args:
        rows: Finite, with `HISTORY` and the columns of the plan.
        plan: What to find out.
        epochs: The epochs of the rows, ascending.
        memorised: The first epoch with nearly all labels right; None without one.
    """
    numbered = rows.with_columns(nw.col(EPOCH).cum_count().over(SAMPLE_ID, order_by=list(HISTORY)).alias(_NUMBER))
    found = [observations(rows, epochs[-1], plan.metrics)]
    if plan.has_label:
        found.append(last_label(rows, plan.label))
    for metric in plan.parts():
        found.append(history(numbered, metric, plan, memorised, full=metric in plan.metrics))
    if plan.judged_by:
        found.append(learning(rows.with_columns(judged(plan.judged_by).alias(_RIGHT))))
    if plan.jumps and len(epochs) > plan.burn_in:
        found.append(rank_jumps(rows, plan.metrics[0], epochs[plan.burn_in]))
    return found


def judged(by: Sequence[str]) -> nw.Expr:
    """Whether a row's prediction was right, by the columns that the plan judges by, or knows what is memorised by."""
    columns = [nw.col(column(name)) for name in by]
    return columns[0] if len(columns) == 1 else columns[0] == columns[1]


def observations(rows: Rows, last_epoch: int, metrics: Sequence[str]) -> Rows:
    """sample_id, n_obs, stale; with several metrics also `stale_of` each. Of none: which are absent."""
    is_last = nw.col(EPOCH) == last_epoch
    told = {stale_of(name): is_last & ~nw.col(column(name)).is_null() for name in metrics} or {"stale": is_last}
    counted = (
        rows.with_columns(known.cast(nw.Int8()).alias(name) for name, known in told.items())
        .group_by(SAMPLE_ID)
        .agg(nw.col(EPOCH).count().cast(nw.Int32()).alias("n_obs"), *(nw.col(name).max() for name in told))
    )
    each = {name: nw.col(name) == 0 for name in told}
    apart = [stale.alias(name) for name, stale in each.items()] if len(each) > 1 else []
    return counted.select(SAMPLE_ID, "n_obs", reduce(or_, each.values()).alias("stale"), *apart)


def last_label(rows: Rows, label: str) -> Rows:
    """sample_id, label: that of the last row, null where it is there."""
    told = rows.select(SAMPLE_ID, *HISTORY, nw.col(column(label)).alias(LABEL))
    return told.unique([SAMPLE_ID], keep="last", order_by=list(HISTORY)).select(SAMPLE_ID, LABEL)


def history(numbered: Rows, metric: str, plan: Plan, memorised: int | None, *, full: bool) -> Rows:
    """sample_id, the summaries of a metric if `full`, and the statistics named after what it measures.

    Args:
        numbered: Rows with `_number`, how often the sample had been observed, this time included.
        metric: The metric.
        plan: What to find out.
        memorised: After this epoch only the first `LEARNING` values of a sample count in the `recent` mean.
        full: Whether every summary is wanted.
    """
    value = nw.col("_value")
    known = numbered.select(SAMPLE_ID, *HISTORY, _NUMBER, nw.col(column(metric)).alias("_value")).filter(
        ~value.is_null()
    )
    known = known.with_columns(
        nw.col(EPOCH).cum_count().over(SAMPLE_ID, order_by=list(HISTORY)).alias("_k"),
        nw.col(EPOCH).count().over(SAMPLE_ID).alias("_n"),
        (nw.col(EPOCH) - nw.col(EPOCH).cast(nw.Float64()).mean().over(SAMPLE_ID)).alias("_time"),
        (value - value.mean().over(SAMPLE_ID)).alias("_off"),
    )
    early = nw.when(nw.col(_NUMBER) <= plan.early_epochs).then(value)
    newer = (nw.col("_n") - nw.col("_k")).cast(nw.Float64())
    growing = nw.when(nw.col("_k") < GROWING).then(nw.col("_k").cast(nw.Float64())).otherwise(nw.lit(float(GROWING)))
    often = growing * growing
    if memorised is not None:
        often = nw.when((nw.col("_k") <= LEARNING) | (nw.col(EPOCH) <= memorised)).then(often).otherwise(nw.lit(0.0))
    weight = nw.when(nw.col("_k") == 1).then(nw.lit(1.0)).otherwise(nw.lit(EMA_WEIGHT))
    terms = known.with_columns(
        early.alias("_early"),
        (value * often).alias("_recent"),
        often.alias("_often"),
        (value * weight * (newer * math.log(1 - EMA_WEIGHT)).exp()).alias("_ema"),
        nw.when(nw.col("_k") == 1).then(value).alias("_first"),
        nw.when(nw.col("_k") == nw.col("_n")).then(value).alias("_last"),
        (nw.col("_off") * nw.col("_off")).alias("_square"),
        (nw.col("_off") * nw.col("_time")).alias("_product"),
        (nw.col("_time") * nw.col("_time")).alias("_spread"),
    )
    sums = terms.group_by(SAMPLE_ID).agg(
        nw.col("_n").max(),
        value.mean().alias("_mean"),
        value.min().alias("_min"),
        value.max().alias("_max"),
        nw.col("_first").max(),
        nw.col("_last").max(),
        nw.col("_square").sum(),
        nw.col("_product").sum(),
        nw.col("_spread").sum(),
        nw.col("_ema").sum(),
        nw.col("_recent").sum(),
        nw.col("_often").sum(),
        nw.col("_early").mean(),
    )
    return sums.select(SAMPLE_ID, *_named(metric, full=full))


def _named(metric: str, *, full: bool) -> list[nw.Expr]:
    n, mean = nw.col("_n").cast(nw.Float64()), nw.col("_mean")
    recent = nw.col("_recent") / nw.col("_often")
    own = {
        LABEL_PROB: {"confidence": mean, "variability": (nw.col("_square") / n).sqrt()},
        MARGIN: {"aum": mean, "aum_recent": recent},
        EL2N: {"el2n": nw.col("_early"), "el2n_recent": recent},
        LOSS: {"ema": nw.col("_ema"), "loss_mean": mean, "loss_recent": recent},
    }
    several = nw.when(nw.col("_n") > 1)
    # Less of a trend than rounding makes of none is none.
    rounding = _NO_TREND**2 * nw.col("_square") * nw.col("_spread")
    moved = nw.when(nw.col("_product") * nw.col("_product") > rounding)
    summaries = {
        f"{metric}_last": nw.col("_last"),
        f"{metric}_first": nw.col("_first"),
        f"{metric}_mean": mean,
        f"{metric}_min": nw.col("_min"),
        f"{metric}_max": nw.col("_max"),
        f"{metric}_std": several.then((nw.col("_square") / (n - 1)).sqrt()).otherwise(nw.lit(0.0)),
        f"{metric}_slope": moved.then(nw.col("_product") / nw.col("_spread")).otherwise(nw.lit(0.0)),
    }
    wanted = own.get(metric, {}) | (summaries if full else {})
    return [expression.alias(name) for name, expression in wanted.items()]


def learning(rows: Rows) -> Rows:
    """sample_id, correctness, forgetting, never_learned, first_learned, learned_for_good, by what was `_right`."""
    right = nw.col(_RIGHT)
    order = list(HISTORY)
    known = rows.filter(~right.is_null()).select(SAMPLE_ID, *HISTORY, right)
    known = known.with_columns(
        right.cast(nw.Int32()).alias("_one"),
        nw.col(EPOCH).cum_count().over(SAMPLE_ID, order_by=order).alias("_k"),
    ).with_columns(
        nw.col("_one").shift(1).over(SAMPLE_ID, order_by=order).alias("_before"),
        nw.when(~right).then(nw.col("_k")).alias("_wrong"),
    )
    known = known.with_columns(nw.col("_wrong").max().over(SAMPLE_ID).fill_null(0).alias("_last_wrong"))
    marked = known.with_columns(
        ((nw.col("_before") == 1) & ~right).fill_null(False).cast(nw.Int32()).alias("_forgotten"),
        nw.when(right).then(nw.col(EPOCH)).alias("_learned"),
        nw.when(nw.col("_k") > nw.col("_last_wrong")).then(nw.col(EPOCH)).alias("_for_good"),
    )
    counted = marked.group_by(SAMPLE_ID).agg(
        nw.col("_one").sum().cast(nw.Int32()).alias("correctness"),
        nw.col("_forgotten").sum().cast(nw.Int32()).alias("forgetting"),
        nw.col("_learned").min().alias("first_learned"),
        nw.col("_for_good").min().alias("learned_for_good"),
    )
    return counted.with_columns((nw.col("correctness") == 0).alias("never_learned"))


def rank_jumps(rows: Rows, metric: str, first_counted: int) -> Rows:
    """sample_id, rank_jump, rank_jump_epoch, rank_from, rank_to, rises.

    Args:
        first_counted: The first epoch in which a change may end.
    """
    value = nw.col(column(metric))
    known = without_duplicates(rows).filter(~value.is_null())
    # Zero and minus zero are equal, which not every engine's order says.
    ranked = known.select(SAMPLE_ID, EPOCH, PASS, (value + 0.0).alias("_value"))
    rank = nw.col("_value").rank("average").over(EPOCH, PASS) / nw.col("_value").count().over(EPOCH, PASS)
    moved = ranked.with_columns(rank.alias("rank_to"))
    moved = moved.with_columns(nw.col("rank_to").shift(1).over(SAMPLE_ID, order_by=[EPOCH, PASS]).alias("rank_from"))
    moved = moved.filter(~nw.col("rank_from").is_null(), nw.col(EPOCH) >= first_counted)
    change = nw.col("rank_to") - nw.col("rank_from")
    moved = moved.with_columns(change.alias("_change"))
    excess = nw.col("_change") - nw.col("_change").median().over(EPOCH, PASS)
    moved = moved.with_columns(excess.alias("_excess"))
    moved = moved.with_columns(nw.col("_excess").abs().alias("_distance"))
    moved = moved.with_columns(
        nw.col("_distance").median().over(EPOCH, PASS).alias("_mad"),
        nw.col("_distance").mean().over(EPOCH, PASS).alias("_mean"),
    )
    fallback = nw.when(nw.col("_mean") > ROUNDING).then(nw.col("_distance") / nw.col("_mean") / NORMAL_MEAN_DEVIATION)
    by_mean = fallback.otherwise(nw.lit(0.0))
    jump = nw.when(nw.col("_mad") > ROUNDING).then(nw.col("_distance") / nw.col("_mad") / NORMAL_MAD)
    moved = moved.with_columns(jump.otherwise(by_mean).alias("rank_jump"))
    # Of equal ones, but for rounding, the earliest.
    moved = moved.with_columns(nw.col("rank_jump").max().over(SAMPLE_ID).alias("_most"))
    tied = moved.filter(nw.col("rank_jump") * (1 + TIED) >= nw.col("_most"))
    largest = tied.unique([SAMPLE_ID], keep="first", order_by=[EPOCH, PASS])
    return largest.select(
        SAMPLE_ID,
        "rank_jump",
        nw.col(EPOCH).alias("rank_jump_epoch"),
        "rank_from",
        "rank_to",
        (nw.col("_excess") > ROUNDING).alias("rises"),
    )


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
) -> tuple[pl.DataFrame, Mapping[int, tuple[int, int]]]:
    """What one (mode, ds_id) gives in the engine of the selection: `Tracker.frame` and `Tracker.judged`.

    Raises:
        XaiError: The engine is not to be had, or there are duplicates and the selection refuses them.
    """
    epochs = selection.epochs[pair]
    with asked_rows(reader, selection, pair, plan.columns()) as asked:
        metrics = [engines.column(metric) for metric in plan.parts()]
        asked.count(metrics, tally)
        label = engines.column(selection.label_key)
        are_sets = isinstance(reader.dtypes.get(selection.label_key), pl.List)
        rows = within_labels(asked.rows, label, list(selection.label_map), are_sets=are_sets)
        rows = finite(rows, metrics)
        told = _judged(rows, plan)
        memorised = min((epoch for epoch, (right, n) in told.items() if right / n >= MEMORISED), default=None)
        parts = [engines.collect(part) for part in statistics(rows, plan, epochs, memorised)]
    found = reduce(lambda left, right: left.join(right, on=SAMPLE_ID, how="left"), parts).sort(SAMPLE_ID)
    return _shaped(found, reader, plan), told


def _judged(rows: Rows, plan: Plan) -> dict[int, tuple[int, int]]:
    if not plan.judged_by:
        return {}
    right = rows.with_columns(judged(plan.given_by).cast(nw.Float64()).alias("_right"))
    sums = right.group_by(EPOCH, PASS).agg(nw.col("_right").sum(), nw.col("_right").count().alias("_known"))
    told = engines.collect(sums).filter(pl.col("_known") > 0).sort(EPOCH, PASS)
    # Of an epoch the last pass that says: a later row of the dictionary wins.
    return {int(epoch): (round(n_right), int(n)) for epoch, n_right, n in told[EPOCH, "_right", "_known"].iter_rows()}


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
