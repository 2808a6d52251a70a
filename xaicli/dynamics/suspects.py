"""Samples whose label is probably wrong, by how they were learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.names import LabelNames, ordinal
from xaicli.dynamics.ranks import ODD, mid_ranks, robust_scale
from xaicli.dynamics.regions import highest
from xaicli.errors import UsageError
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, LABEL, MODE, PREDICTION, SAMPLE_ID

EVIDENCE: Mapping[str, tuple[int, str]] = {
    "loss_mean": (1, "highest mean loss"),
    "el2n_mean": (1, "highest mean error (el2n)"),
    "confidence": (-1, "lowest confidence"),
    "aum": (-1, "lowest margin"),
}
"""The statistics that count, each as much: which end is suspicious, and its name in a reason.

All are means over the whole history, which memorisation of the label at the end does not undo.
"""

_MIDDLE = 0.5
_STEADY = 3
COLUMNS = (MODE, DS_ID, SAMPLE_ID, "score", "reason", LABEL, "suggested_label")


def suspicion(frame: pl.DataFrame) -> pl.Series:
    """How suspicious each sample's label is: the mean of its normalised mid-ranks by every evidence there is.

    Args:
        frame: One row a sample, of one (mode, ds_id), with columns of `EVIDENCE`.

    Returns:
        float64 in (0, 1], 1 for the most suspicious by all; null for a sample without any evidence, or without label.
    """
    total, counted = np.zeros(frame.height), np.zeros(frame.height)
    for name, (sign, _) in EVIDENCE.items():
        if name not in frame.columns:
            continue
        known, ranks = _ranks(frame[name], sign)
        total[known] += ranks / max(len(known), 1)
        counted[known] += 1
    with np.errstate(invalid="ignore"):
        scores = pl.Series("score", total / counted).fill_nan(None)
    return scores.set(frame[LABEL].is_null(), None)


def _ranks(values: pl.Series, sign: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The places of the values there are, and their mid-ranks, the most suspicious last."""
    known = np.flatnonzero(values.is_not_null().to_numpy())
    return known, mid_ranks(sign * values.to_numpy()[known].astype(np.float64))


def suspects(reader: Reader, selection: Selection, found: Statistics, *, top: int = 100) -> Answer:
    """The samples whose label is probably wrong, the most suspicious first.

    Args:
        reader: The run.
        selection: Which rows.
        found: The pass over the epochs.
        top: At most how many of each (mode, ds_id); never one that is less suspicious than the middle, or whose label
            was hardly contradicted: see `contradicted`.

    Returns:
        mode, ds_id, sample_id, score in (0, 1], reason, label, suggested_label: the most frequent prediction over the
        history that is not the label, null if there is none.

    Raises:
        UsageError: `top` is negative.
    """
    if top < 0:
        raise UsageError(f"--top must be non-negative, not {top}", hint="--top 0 lists none")
    parts = [_of_pair(reader, selection, pair, found.frames[pair], top) for pair in selection.pairs]
    return Answer(
        command="suspects",
        run=str(reader.layout.root),
        selection={**selection.as_dict(), "top": top},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=found.counts(reader),
        warnings=found.warnings,
    )


def most_suspicious(frame: pl.DataFrame, top: int) -> pl.DataFrame:
    """The rows with the highest suspicion above the middle, highest first, with a column `score`."""
    scores = suspicion(frame).fill_null(0.0).to_numpy()
    # One sample alone is the most and the least suspicious.
    above = int((scores > _MIDDLE).sum()) if frame.height > 1 else 0
    best = highest(scores, min(top, above))
    chosen = frame[best].with_columns(pl.Series("score", scores[best]))
    return chosen.sort("score", SAMPLE_ID, descending=[True, False])


def _of_pair(reader: Reader, selection: Selection, pair: Pair, frame: pl.DataFrame, top: int) -> pl.DataFrame:
    chosen = most_suspicious(frame, top)
    votes = predictions(reader, selection, pair, chosen)
    if PREDICTION in reader.dtypes:
        kept = contradicted(chosen, votes, frame)
        chosen, votes = chosen.filter(kept), votes.filter(kept)
    places = {name: _place(frame[name], sign, chosen[name]) for name, sign in _evidence_of(frame)}
    names = LabelNames.of(reader, selection)
    reasons = [
        reason(row, {name: int(place[number]) for name, place in places.items()}, frame.height, names)
        for number, row in enumerate(chosen.join(votes, on=SAMPLE_ID, how="left", maintain_order="left").to_dicts())
    ]
    return (
        chosen.with_columns(
            pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), pl.Series("reason", reasons, pl.String)
        )
        .join(votes, on=SAMPLE_ID, how="left", maintain_order="left")
        .select(COLUMNS)
    )


def contradicted(chosen: pl.DataFrame, votes: pl.DataFrame, everyone: pl.DataFrame) -> pl.Series:
    """Which of some samples had their label contradicted: a third of their predictions name one and the same other.

    Or they were predicted wrongly far more often than usual (`ODD` robust deviations above the median): a net that
    memorises fast contradicts a wrong label only for a few epochs, but all others for fewer still.
    """
    steady = votes["suggested_times"].fill_null(0) * _STEADY >= chosen["n_obs"]
    if "correctness" not in everyone.columns:
        return steady
    wrong = (everyone["n_obs"] - everyone["correctness"]).drop_nulls().cast(pl.Float64).to_numpy()
    centre = float(np.median(wrong)) if len(wrong) else 0.0
    usual = robust_scale(wrong, centre, float(wrong.max())) if len(wrong) and wrong.max() > 0 else 0.0
    odd = (chosen["n_obs"] - chosen["correctness"]) - centre > ODD * usual
    return steady | (odd & votes["suggested_label"].is_not_null() & (usual > 0))


def _evidence_of(frame: pl.DataFrame) -> list[tuple[str, int]]:
    return [(name, sign) for name, (sign, _) in EVIDENCE.items() if name in frame.columns]


def _place(all_values: pl.Series, sign: int, values: pl.Series) -> NDArray[np.intp]:
    """The place of some values among all, 1 for the most suspicious; equal values share the best place."""
    ascending = np.sort(-sign * all_values.drop_nulls().to_numpy())
    chosen = -sign * values.fill_null(0.0).to_numpy()
    return np.searchsorted(ascending, chosen, side="left") + 1


def predictions(reader: Reader, selection: Selection, pair: Pair, chosen: pl.DataFrame) -> pl.DataFrame:
    """What was predicted for some samples instead of their label, in a second pass over ids and predictions only.

    Args:
        chosen: The samples: sample_id, label.

    Returns:
        sample_id, suggested_label (the most frequent prediction that is not the label; of equally frequent ones the
        smaller; null for none), suggested_times, other_times (all predictions that are not the label).
    """
    kinds = {SAMPLE_ID: chosen[SAMPLE_ID].dtype, PREDICTION: reader.dtypes.get(PREDICTION, pl.Null())}
    parts = [pl.DataFrame(schema=kinds)]
    if PREDICTION in reader.dtypes and chosen.height:
        wanted = chosen[SAMPLE_ID].implode()
        frames = reader.epoch_frames(*pair, list(kinds), selection.epochs[pair], duplicates=selection.duplicates)
        parts += [frame.filter(pl.col(SAMPLE_ID).is_in(wanted)) for _, frame in frames]
    seen = pl.concat(parts, how="vertical_relaxed").drop_nulls(PREDICTION)
    label = pl.col(LABEL).cast(seen.schema[PREDICTION], strict=False)
    counted = (
        seen.join(chosen.select(SAMPLE_ID, label), on=SAMPLE_ID)
        .filter(pl.col(PREDICTION) != pl.col(LABEL))
        .group_by(SAMPLE_ID, PREDICTION)
        .agg(pl.len().alias("times"))
        .sort(SAMPLE_ID, "times", PREDICTION, descending=[False, True, False])
        .group_by(SAMPLE_ID, maintain_order=True)
        .agg(
            pl.col(PREDICTION).first().alias("suggested_label"),
            pl.col("times").first().alias("suggested_times"),
            pl.col("times").sum().alias("other_times"),
        )
    )
    return chosen.select(SAMPLE_ID).join(counted, on=SAMPLE_ID, how="left", maintain_order="left")


def reason(row: Mapping[str, Any], places: Mapping[str, int], n: int, names: LabelNames) -> str:
    """Why a sample is suspected, in words: how it was learned, what was predicted instead, its strongest evidence."""
    said = []
    if (right := row.get("correctness")) is not None:
        said.append("never learned" if right == 0 else f"right in {right} of {row['n_obs']} epochs")
    if (suggested := row["suggested_label"]) is not None:
        always = row["suggested_times"] == row["n_obs"]
        times = "always" if always else f"{row['suggested_times']} times"
        said.append(f"{times} predicted {names[suggested]}")
    best = min(places, key=lambda name: places[name])
    words = EVIDENCE[best][1]
    rank = f"{ordinal(places[best])} " if places[best] > 1 else "the "
    said.append(f"{rank}{words} of {n:,} samples")
    return "; ".join(said)
