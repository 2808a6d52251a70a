"""`xai findings`: what to look at first, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import polars as pl

from xaicli.answer import Answer
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.departures import departures
from xaicli.dynamics.jumps import jumps_of
from xaicli.dynamics.regions import highest
from xaicli.dynamics.suspects import suspects
from xaicli.errors import UsageError
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, SAMPLE_ID


class Finding(StrEnum):
    """Why something is worth a look, in the order shown."""

    SUSPECT = "suspect"
    AMBIGUOUS = "ambiguous"
    FORGOTTEN = "forgotten"
    RANK_JUMP = "rank_jump"
    LABEL = "departing_label"


COLUMNS = ("finding", MODE, DS_ID, SAMPLE_ID, LABEL, "score", EPOCH, "reason", "suggested_label")

SUDDEN = 6.0
"""The smallest rank jump worth a look: among thousands of samples hundreds pass 4."""


def findings(reader: Reader, selection: Selection, found: Statistics, *, top: int = 10) -> Answer:
    """Probably mislabelled, ambiguous, forgotten, suddenly moved samples, and labels that depart from the others.

    Args:
        reader: The run.
        selection: Which rows.
        found: The pass over the epochs.
        top: At most how many of each kind and (mode, ds_id).

    Returns:
        finding, mode, ds_id, sample_id (null for a label), label, score (what it is ranked by), epoch (of a sudden
        change or the last one of a label, else null), reason, suggested_label (of suspects).

    Raises:
        UsageError: `top` is negative.
    """
    if top < 0:
        raise UsageError(f"--top must be non-negative, not {top}", hint="--top 0 lists none")
    suspected = suspects(reader, selection, found, top=top)
    departing = departures(reader, selection, top=top)
    label, ids = reader.dtypes.get(selection.label_key, pl.Int32()), reader.dtypes.get(SAMPLE_ID, pl.Int64())
    text = pl.String()
    kinds = (text, text, text, ids, label, pl.Float64(), pl.Int32(), text, label)
    parts = [pl.DataFrame(schema=dict(zip(COLUMNS, kinds, strict=True)))]
    for pair in selection.pairs:
        of_pair = (pl.col(MODE) == pair[0], pl.col(DS_ID) == pair[1])
        frame = found.frames[pair]
        jumped = jumps_of(frame, selection, pair, top) if "rank_jump" in frame.columns else pl.DataFrame()
        parts += [
            _kind(Finding.SUSPECT, pair, suspected.data.filter(of_pair)),
            _kind(Finding.AMBIGUOUS, pair, _ranked(frame, "variability", top, _ambiguous)),
            _kind(Finding.FORGOTTEN, pair, _ranked(frame, "forgetting", top, _forgotten)),
            _kind(Finding.RANK_JUMP, pair, jumped.filter(pl.col("score") >= SUDDEN) if jumped.width else jumped),
            _kind(Finding.LABEL, pair, departing.filter(of_pair)),
        ]
    return Answer(
        command="findings",
        run=str(reader.layout.root),
        selection={**selection.as_dict(), "top": top, "early_epochs": found.early_epochs, "burn_in": found.burn_in},
        data=pl.concat((part for part in parts if part.width), how="diagonal_relaxed"),
        counts=found.counts(reader),
        warnings=found.warnings,
    )


def _kind(kind: Finding, pair: Pair, frame: pl.DataFrame) -> pl.DataFrame:
    """Findings of one kind, with those of the columns there are."""
    if not frame.width:
        return frame
    origin = zip(("finding", MODE, DS_ID), (kind.value, *pair), strict=True)
    named = frame.with_columns(pl.lit(value).alias(name) for name, value in origin)
    return named.select(name for name in COLUMNS if name in named.columns)


def _ranked(frame: pl.DataFrame, by: str, top: int, reason: Callable[[dict[str, float]], str]) -> pl.DataFrame:
    """The samples with the highest positive value of a statistic; of equal ones the smaller id first."""
    if by not in frame.columns:
        return pl.DataFrame()
    values = frame[by].cast(pl.Float64).fill_null(0.0).to_numpy()
    best = frame[highest(values, min(top, int((values > 0).sum())))].sort(by, SAMPLE_ID, descending=[True, False])
    reasons = [reason(row) for row in best.to_dicts()]
    return best.select(
        SAMPLE_ID, LABEL, pl.col(by).cast(pl.Float64).alias("score"), pl.Series("reason", reasons, pl.String)
    )


def _ambiguous(row: dict[str, float]) -> str:
    return (
        f"the probability of its label swings: {row['confidence']:.2f} on average, "
        f"standard deviation {row['variability']:.2f} over {row['n_obs']} observations"
    )


def _forgotten(row: dict[str, float]) -> str:
    times = "once" if row["forgetting"] == 1 else f"{row['forgetting']} times"
    return f"learned and forgotten {times}; right {row['correctness']} of {row['n_obs']} times"
