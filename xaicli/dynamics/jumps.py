"""Samples that suddenly moved against all others: interesting, though no evidence of a wrong label."""

from __future__ import annotations

from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.names import ordinal
from xaicli.dynamics.regions import highest
from xaicli.errors import UsageError
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, SAMPLE_ID

COLUMNS = (MODE, DS_ID, SAMPLE_ID, LABEL, "score", EPOCH, "direction", "rank_from", "rank_to", "reason")


def rank_jumps(reader: Reader, selection: Selection, found: Statistics, *, top: int = 10) -> Answer:
    """The samples with the largest sudden change of rank by the first metric selected, the largest first.

    Args:
        reader: The run.
        selection: Which rows.
        found: The pass over the epochs.
        top: At most how many of each (mode, ds_id).

    Returns:
        mode, ds_id, sample_id, label, score (`rank_jump`), epoch, direction ("up" towards high values, or "down"),
        rank_from and rank_to (normalised mid-ranks in (0, 1]), reason.

    Raises:
        UsageError: `top` is negative.
    """
    if top < 0:
        raise UsageError(f"--top must be non-negative, not {top}", hint="--top 0 lists none")
    parts = [jumps_of(found.frames[pair], selection, pair, top) for pair in selection.pairs]
    return Answer(
        command="rank-jumps",
        run=str(reader.layout.root),
        selection={**selection.as_dict(), "top": top, "burn_in": found.burn_in},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=found.counts(reader),
        warnings=found.warnings,
    )


def jumps_of(frame: pl.DataFrame, selection: Selection, pair: Pair, top: int) -> pl.DataFrame:
    """The largest jumps of one (mode, ds_id); a sample that moved like all others has none."""
    sizes = frame["rank_jump"].fill_null(0.0).to_numpy()
    best = frame[highest(sizes, min(top, int((sizes > 0).sum())))]
    best = best.sort("rank_jump", SAMPLE_ID, descending=[True, False])
    reasons = [_reason(row, selection.metrics[0]) for row in best.to_dicts()]
    return best.select(
        pl.lit(pair[0]).alias(MODE),
        pl.lit(pair[1]).alias(DS_ID),
        SAMPLE_ID,
        LABEL,
        pl.col("rank_jump").alias("score"),
        pl.col("rank_jump_epoch").alias(EPOCH),
        pl.col("rank_jump_direction").alias("direction"),
        "rank_from",
        "rank_to",
        pl.Series("reason", reasons, pl.String),
    )


def _reason(row: dict[str, Any], metric: str) -> str:
    moved = "rose" if row["rank_jump_direction"] == "up" else "fell"
    start, end = _percentile(row["rank_from"]), _percentile(row["rank_to"])
    when = f"at epoch {row['rank_jump_epoch']}, {row['rank_jump']:.1f} times the usual change"
    return f"{moved} from the {start} to the {end} percentile of {metric} {when}"


def _percentile(rank: float) -> str:
    return ordinal(round(100 * rank))
