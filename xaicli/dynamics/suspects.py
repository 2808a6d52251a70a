"""Samples whose label is probably wrong, by how they were learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.label_issues import label_noise
from xaicli.dynamics.metrics import LEARNING, MEMORISED
from xaicli.dynamics.ranks import ODD, mid_ranks, robust_scale
from xaicli.errors import whole_number
from xaicli.queries.fifths import Fifths
from xaicli.queries.names import LabelNames
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.tasks import are_texts
from xaicli.queries.truth import are_numbers, is_truth, only_groups
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, LABEL, MODE, PREDICTION, SAMPLE_ID, Duplicates
from xaicli.words import distinct, how_often, ordinal

EVIDENCE: Mapping[str, int] = {"el2n_recent": 1, "loss_recent": 1, "aum_recent": -1}
"""The statistics that count, and which end is suspicious.

All are means over the whole history in which the k-th observation counts min(k, 5) squared times: before a net has
learned, the first epochs say little; once it memorises its labels, the last say no more than those before. After the
first epoch with 97 % of the labels right (`MEMORISED`), only the first ten observations of a sample still count.

The error norm (`el2n`) is bounded and knows whether all of the probability went to one other label: where it falls into
two groups, the net has learned, and nothing tells wrong labels better, those that are mistaken for one another above
all. Where it does not, as before learning or with labels by people, it is full of equals at its upper end, and loss and
margin rank better. `benchmarks/findings.py` holds this against every single statistic.
"""
_BOUNDED = "el2n_recent"
_NORMAL_SPLIT, _UNIFORM_SPLIT = 2 / math.pi, 0.75
"""The share of its variance that the best cut into two explains of a normal and of a uniform distribution: of what has
two groups it is more."""

_WORDS: Mapping[str, tuple[int, str]] = {
    "loss_mean": (1, "highest mean loss"),
    "aum": (-1, "lowest margin"),
    "confidence": (-1, "lowest confidence"),
}
"""What a reason names: statistics that are shown, too. The first also judges where nothing was predicted."""

_FAR = 3.0
"""Robust deviations above the median of its label beyond which a sample stands far out."""
_MIDDLE = 0.5
_LEAST = 1e-6
_STEADY = 3
_PLACES_TOGETHER = 16
"""The counts of so many places are held apart before they are summed."""
COLUMNS = (MODE, DS_ID, SAMPLE_ID, "score", "reason", LABEL, "suggested_label")


def without_suspects(reader: Reader, selection: Selection, found: Statistics) -> dict[Pair, str]:
    """Why no label can be suspected, whatever it is, of each (mode, ds_id) where that is so."""
    key = selection.label_key
    if are_texts(reader):  # which have no label of their own, and any other column groups them
        return {}
    if unlike := only_groups(reader, key):
        return dict.fromkeys(selection.pairs, unlike)
    whys = {pair: _nothing_speaks(reader, key, found.frames[pair]) for pair in selection.pairs}
    return {pair: why for pair, why in whys.items() if why}


def _nothing_speaks(reader: Reader, key: str, frame: pl.DataFrame) -> str:
    if LABEL not in frame.columns or frame[LABEL].null_count() == frame.height:
        return "no label was recorded; log_samples(..., label=...) does" if key == LABEL else f"no sample has a {key}"
    named = [name for name in EVIDENCE if name in frame.columns] or ["confidence"]
    if are_numbers(reader, key) or any(frame[name].count() for name in named if name in frame.columns):
        return ""
    return "no label has a finite value that could speak for or against it"


def not_looked_for(reader: Reader, selection: Selection, found: Statistics) -> list[str]:
    """What `findings` and rules of suspects say of what nothing can tell, in words."""
    whys = without_suspects(reader, selection, found)
    if unlike := only_groups(reader, selection.label_key):
        of_numbers = reader.dtypes[PREDICTION].is_float()  # where these are never looked for
        single = "single labels in doubt, " if isinstance(reader.dtypes[PREDICTION], pl.List) else ""
        looked = f", and {single}falling labels, confused pairs and over-confidence are not looked for"
        others = "" if of_numbers else looked
        forgotten = any("forgetting" in frame.columns for frame in found.frames.values())
        by_label = "; what was forgotten is told as recorded, by label" if forgotten else ""
        return [f"{unlike}: none is a suspect{others}{by_label}"]
    if 1 < len(whys) == len(selection.pairs) and len({*whys.values()}) == 1:
        return [f"no suspects can be told: {next(iter(whys.values()))}"]
    return [f"no suspects of {' '.join(filter(None, pair))} can be told: {why}" for pair, why in whys.items()]


def suspicion(frame: pl.DataFrame) -> pl.Series:
    """How suspicious each sample's label is: the weighted mean of its normalised mid-ranks by every evidence there is.

    The error norm has the weight w = (e - 2 / pi) / (3 / 4 - 2 / pi), at least 0 and at most 1, where e is the share of
    its variance that its best cut into two explains (Otsu 1979, IEEE Trans. SMC 9, 62-66): 0 where it looks like one
    group, 1 where it is clearly two. The others share 1 - w.

    Args:
        frame: One row a sample, of one (mode, ds_id), with columns of `EVIDENCE`, or else `confidence`.

    Returns:
        float64 in (0, 1], 1 for the most suspicious by all; null for a sample without any evidence, or without label.
    """
    evidence = {name: sign for name, sign in EVIDENCE.items() if name in frame.columns}
    if not evidence and "confidence" in frame.columns:
        evidence = {"confidence": -1}
    total, weights = np.zeros(frame.height), np.zeros(frame.height)
    for name, weight in _weights(frame, list(evidence)).items():
        known, ranks = _ranks(frame[name], evidence[name])
        total[known] += weight * ranks / max(len(known), 1)
        weights[known] += weight
    with np.errstate(invalid="ignore"):
        # A weighted mean of ranks is at most 1, but for its rounding.
        scores = pl.Series("score", np.minimum(total / weights, 1.0)).fill_nan(None)
    return scores.set(frame[LABEL].is_null(), None)


def _weights(frame: pl.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """How much each evidence counts; all but 0, so that a sample with one of them alone is ranked by it."""
    others = [name for name in names if name != _BOUNDED]
    if not others or _BOUNDED not in names:
        return dict.fromkeys(names, 1.0)
    values = frame[_BOUNDED].drop_nulls().to_numpy().astype(np.float64)
    clear = (two_groups(values) - _NORMAL_SPLIT) / (_UNIFORM_SPLIT - _NORMAL_SPLIT)
    weight = min(max(clear, _LEAST), 1 - _LEAST)
    return {_BOUNDED: weight, **dict.fromkeys(others, (1 - weight) / len(others))}


def two_groups(values: NDArray[np.float64]) -> float:
    """The share of the variance of some values that their best cut into two groups explains; 0 where all are equal."""
    ordered = np.sort(values) - (values.mean() if len(values) else 0.0)
    n, variance = len(ordered), float(np.square(ordered).sum())
    if n < 2 or not variance:
        return 0.0
    low = np.cumsum(ordered)[:-1]
    counts = np.arange(1, n)
    # The whole sums to 0, so the sum above a cut is minus that below it.
    between = low * low / counts + low * low / (n - counts)
    return float(between.max()) / variance


def _ranks(values: pl.Series, sign: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The places of the values there are, and their mid-ranks, the most suspicious last."""
    known = np.flatnonzero(values.is_not_null().to_numpy())
    return known, mid_ranks(sign * values.to_numpy()[known].astype(np.float64))


def suspects(reader: Reader, selection: Selection, found: Statistics, *, top: int | None = 100) -> Answer:
    """The samples whose label is probably wrong, the most suspicious first.

    Args:
        reader: The run.
        selection: Which rows.
        found: The pass over the epochs.
        top: At most how many of each (mode, ds_id) are listed, None for all; never one without a label, less
            suspicious than the middle, or whose label was hardly contradicted: see `contradicted`; where nothing was
            predicted, or no better than by chance, only those far out among their own label: see `far_out`. Of a
            regression: `far_from_target`.

    Returns:
        mode, ds_id, sample_id, score in (0, 1], reason, label, suggested_label: the most frequent prediction over the
        history that is not the label, null if there is none. The key `label_noise` estimates each label's rate of
        wrong ones. Of all suspects, listed or not, `n_suspects` tells how many there are, and `suspected_pairs` counts
        them by label and suggested label, the most frequent of each (mode, ds_id) first.

    Raises:
        UsageError: `top` is negative.
    """
    if top is not None:
        top = whole_number("--top", top, least=0, hint="--top 0 lists none")
    parts = [_of_pair(reader, selection, pair, found) for pair in selection.pairs]
    names = LabelNames.of(reader, selection)
    predicted = LabelNames.of_predictions(reader, selection)
    classes = LabelNames.of_classes(reader, selection) if is_truth(reader, selection.label_key) else names
    noise = [row for pair in selection.pairs for row in label_noise(found.frames[pair], pair, names)]
    listed = [
        _with_reasons(reader, selection, found.frames[pair], part if top is None else part.head(top))
        for pair, part in zip(selection.pairs, parts, strict=True)
    ]
    ends = [part.select(MODE, DS_ID, LABEL, "suggested_label") for part in parts]
    return Answer(
        command="suspects",
        run=reader.layout.described,
        selection={**selection.as_dict(), "top": top},
        data=pl.concat(listed, how="vertical_relaxed"),
        counts=found.counts(reader),
        warnings=found.warnings,
        extra={
            "label_noise": noise,
            "n_suspects": [
                {MODE: mode, DS_ID: ds_id, "n": part.height}
                for (mode, ds_id), part in zip(selection.pairs, parts, strict=True)
            ],
            "suspected_pairs": _pairs(pl.concat(ends, how="vertical_relaxed"), classes, predicted),
        },
    )


def every_suspect(reader: Reader, selection: Selection, found: Statistics) -> pl.DataFrame:
    """All suspects, without their reasons: mode, ds_id, sample_id, suggested_label, the most suspicious first."""
    columns = (MODE, DS_ID, SAMPLE_ID, "suggested_label")
    parts = [_of_pair(reader, selection, pair, found).select(columns) for pair in selection.pairs]
    return pl.concat(parts, how="vertical_relaxed")


def _pairs(suspected: pl.DataFrame, names: LabelNames, predicted: LabelNames) -> list[dict[str, Any]]:
    """How many suspects have a label and should have another: mode, ds_id, label, suggested_label, their names, n."""
    kind = suspected.schema[LABEL]
    if kind.is_float() or kind.is_nested():
        return []
    ends = [LABEL, "suggested_label"]
    counts = suspected.drop_nulls(ends).group_by(MODE, DS_ID, *ends).agg(pl.len().cast(pl.Int64).alias("n"))
    ordered = counts.sort(MODE, DS_ID, "n", *ends, descending=[False, False, True, False, False])
    told = ordered.iter_rows(named=True)
    return [{**row, "name": names[row[LABEL]], "suggested_name": predicted[row["suggested_label"]]} for row in told]


def most_suspicious(scored: pl.DataFrame) -> pl.DataFrame:
    """The rows with a `score` above the middle, highest first, of equal ones the smaller id."""
    return scored.filter(pl.col("score") > _MIDDLE).sort("score", SAMPLE_ID, descending=[True, False])


def _of_pair(reader: Reader, selection: Selection, pair: Pair, found: Statistics) -> pl.DataFrame:
    """All suspects of one (mode, ds_id), the most suspicious first, with what their reasons tell."""
    frame = found.frames[pair]
    origin = (pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID))
    if are_texts(reader) or only_groups(reader, selection.label_key):
        unknown = pl.lit(None, frame[LABEL].dtype).alias("suggested_label")
        return frame.clear().with_columns(*origin, pl.lit(None, pl.Float64).alias("score"), unknown)
    if are_numbers(reader, selection.label_key):
        return far_from_target(reader, selection, pair, frame)
    judged = PREDICTION in reader.dtypes and better_than_chance(found.accuracy[pair], frame[LABEL])
    scored = frame.with_columns(suspicion(frame))
    if not judged:
        scored = scored.with_columns(far_out(frame)).filter(pl.col("deviation") > _FAR)
    # One sample alone is the most and the least suspicious.
    chosen = most_suspicious(scored if frame.height > 1 else scored.clear())
    nearly_all = (epoch for epoch, share in sorted(found.accuracy[pair].items()) if share >= MEMORISED)
    memorised = next(nearly_all, None)
    votes = predictions(reader, selection, pair, chosen if judged else chosen.clear(), memorised)
    rows = chosen.join(votes, on=SAMPLE_ID, how="left", maintain_order="left")
    if judged:
        rows = rows.filter(contradicted(rows, frame))
    return rows.with_columns(*origin, pl.col("suggested_label").cast(frame[LABEL].dtype))


def _with_reasons(reader: Reader, selection: Selection, everyone: pl.DataFrame, listed: pl.DataFrame) -> pl.DataFrame:
    """Some suspects of one (mode, ds_id) with their reasons: the columns of `COLUMNS`."""
    if are_numbers(reader, selection.label_key):
        reasons = [_why_far(row, selection.label_key) for row in listed.to_dicts()]
        return listed.with_columns(pl.Series("reason", reasons, pl.String)).select(COLUMNS)
    places = {
        name: _place(everyone[name], sign, listed[name])
        for name, (sign, _) in _WORDS.items()
        if name in everyone.columns
    }
    known = {name: everyone[name].count() for name in places}
    names = LabelNames.of_predictions(reader, selection)
    reasons = [
        reason(
            row, {name: (int(place[number]), known[name]) for name, place in places.items()}, names, selection.label_key
        )
        for number, row in enumerate(listed.to_dicts())
    ]
    return listed.with_columns(pl.Series("reason", reasons, pl.String)).select(COLUMNS)


def better_than_chance(accuracy: Mapping[int, float], label: pl.Series) -> bool:
    """Whether at some epoch more labels were predicted than by always naming the most frequent one.

    A net that has learned nothing contradicts labels at random. Better is by four standard deviations of such guesses;
    sets of classes are never judged, for each is rare.
    """
    n = len(label) - label.null_count()
    if not n or isinstance(label.dtype, pl.List):
        return False
    share = float(label.drop_nulls().value_counts()["count"].to_numpy().max()) / n
    return max(accuracy.values(), default=0.0) > share + 4 * float(np.sqrt(share * (1 - share) / n))


def far_out(frame: pl.DataFrame) -> pl.Series:
    """How far out each sample is among its own label, where predictions say nothing: `deviation`, null for unknown.

    By the mean loss, else the lowest margin or confidence there is, in robust deviations on the suspicious side.
    """
    by = next((name for name in _WORDS if name in frame.columns), None)
    if by is None:
        return pl.Series("deviation", [None] * frame.height, pl.Float64)
    return deviations(frame[by].cast(pl.Float64) * _WORDS[by][0], frame[LABEL])


def deviations(values: pl.Series, group: pl.Series) -> pl.Series:
    """How many robust deviations each value lies above the median of its group; null without a value or a group.

    Args:
        values: (n,) float64, null for none.
        group: (n,), null for none; of any type.
    """
    found = np.full(len(values), np.nan)
    keys = group.rank("dense") if not isinstance(group.dtype, pl.List) else group.is_not_null().cast(pl.Int8)
    known = pl.DataFrame({"group": keys, "value": values, "listed": group.is_not_null()}).with_row_index("place")
    for members in known.filter("listed").drop_nulls("value").partition_by("group"):
        numbers = members["value"].to_numpy()
        centre = float(np.median(numbers))
        scale = robust_scale(numbers, centre, float(np.abs(numbers - centre).max()))
        if scale:
            found[members["place"].to_numpy()] = (numbers - centre) / scale
    return pl.Series("deviation", found).fill_nan(None)


def contradicted(chosen: pl.DataFrame, everyone: pl.DataFrame) -> pl.Series:
    """Which of some samples had their label contradicted: a third of their predictions name one and the same other.

    That is a third of those that count for the score: a training that goes on after it has memorised its labels only
    adds predictions that are right. Or they were predicted wrongly far more often than usual (`ODD` robust deviations
    above the median): a net that memorises fast contradicts a wrong label only for a few epochs, but all others for
    fewer still.

    Args:
        chosen: Some samples, with what `predictions` tells of them.
        everyone: All samples of their (mode, ds_id).
    """
    steady = (chosen["steady_times"] * _STEADY >= chosen["n_counted"]).fill_null(False)
    if "correctness" not in everyone.columns:
        return steady
    wrong = (everyone["n_obs"] - everyone["correctness"]).drop_nulls().cast(pl.Float64).to_numpy()
    centre = float(np.median(wrong)) if len(wrong) else 0.0
    usual = robust_scale(wrong, centre, float(wrong.max())) if len(wrong) and wrong.max() > 0 else 0.0
    odd = (chosen["n_obs"] - chosen["correctness"]) - centre > ODD * usual
    return steady | (odd & chosen["suggested_label"].is_not_null() & (usual > 0))


def _place(all_values: pl.Series, sign: int, values: pl.Series) -> NDArray[np.intp]:
    """The place of some values among all, 1 for the most suspicious; equal values share the best place."""
    ascending = np.sort(-sign * all_values.drop_nulls().to_numpy())
    chosen = -sign * values.fill_null(0.0).to_numpy()
    return np.searchsorted(ascending, chosen, side="left") + 1


def predictions(
    reader: Reader, selection: Selection, pair: Pair, chosen: pl.DataFrame, memorised: int | None
) -> pl.DataFrame:
    """What was predicted for some samples instead of their label, in a second pass over ids and predictions only.

    Args:
        chosen: The samples: sample_id, label.
        memorised: The first epoch with nearly all labels right (`MEMORISED`): after it only the first `LEARNING`
            observations of a sample count, here as in the score; None without one.

    Returns:
        sample_id, suggested_label (the most frequent prediction that is not the label; of equally frequent ones the
        smaller; null for none), suggested_times, suggested_counted (how many of them count), n_counted (how many
        observations count: the first ones), steady_times (how many of these name one and the same other label).
    """
    kinds = {SAMPLE_ID: chosen[SAMPLE_ID].dtype, PREDICTION: reader.dtypes.get(PREDICTION, pl.Null())}
    label = pl.col(LABEL).cast(kinds[PREDICTION], strict=False)
    wanted = chosen.select(SAMPLE_ID, label).with_row_index("_slot")
    counted = [pl.DataFrame(schema={**kinds, "times": pl.UInt32(), "counted": pl.UInt32()})]
    n_counted = np.zeros(chosen.height, np.int64)
    if PREDICTION in reader.dtypes and chosen.height:
        for rows in reader.place_frames(*pair, list(kinds), selection.epochs[pair], duplicates=selection.duplicates):
            known = rows.frame.join(wanted, on=SAMPLE_ID)
            slots = known["_slot"].to_numpy()
            counts = np.ones(known.height, np.bool_)
            if memorised is not None and rows.place.epoch > memorised:
                counts = n_counted[slots] < LEARNING
                if selection.duplicates is Duplicates.ALL and counts.any():
                    again = known.select(pl.int_range(pl.len()).over("_slot")).to_series().to_numpy()
                    counts &= n_counted[slots] + again < LEARNING
            n_counted += np.bincount(slots[counts], minlength=len(n_counted))
            others = known.with_columns(pl.Series("counted", counts)).filter(pl.col(PREDICTION) != pl.col(LABEL))
            times = (pl.len().cast(pl.UInt32).alias("times"), pl.col("counted").sum().cast(pl.UInt32))
            counted.append(others.group_by(SAMPLE_ID, PREDICTION).agg(*times))
            if len(counted) > _PLACES_TOGETHER:
                counted = [_summed(counted)]
    told = (
        _summed(counted)
        .sort(SAMPLE_ID, "times", PREDICTION, descending=[False, True, False])
        .group_by(SAMPLE_ID, maintain_order=True)
        .agg(
            pl.col(PREDICTION).first().alias("suggested_label"),
            pl.col("times").first().alias("suggested_times"),
            pl.col("counted").first().alias("suggested_counted"),
            pl.col("counted").max().alias("steady_times"),
        )
    )
    ids = chosen.select(SAMPLE_ID, n_counted=pl.Series(n_counted))
    return ids.join(told, on=SAMPLE_ID, how="left", maintain_order="left")


def _summed(counted: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """How often each sample got each prediction, over some places."""
    together = pl.concat(counted, how="vertical_relaxed")
    return together.group_by(SAMPLE_ID, PREDICTION).agg(pl.col("times", "counted").sum())


def reason(row: Mapping[str, Any], places: Mapping[str, tuple[int, int]], names: LabelNames, key: str = LABEL) -> str:
    """Why a sample is suspected, in words: how it was learned, what was predicted instead, its strongest evidence.

    Args:
        row: The sample.
        places: {statistic: (its place, 1 for the most suspicious, of how many samples that have one)}.
        names: Of the predictions.
        key: The column that stands for the label.
    """
    said = []
    if (right := row.get("correctness")) is not None:
        n_obs = row["n_obs"]
        once = f"{'right' if right else 'wrong'} the one time it was seen"
        several = "never learned" if right == 0 else f"right {right} of {n_obs} times"
        said.append(once if n_obs == 1 else several)
    if (suggested := row["suggested_label"]) is not None:
        n_times = row["suggested_times"]
        times = "always " if n_times == row["n_obs"] else "once " if n_times == 1 else f"{n_times} times "
        # Those after memorisation do not count; always is always.
        early = (
            f", {row['suggested_counted']} of the first {n}" if n_times < row["n_obs"] > (n := row["n_counted"]) else ""
        )
        said.append(f"{'' if row['n_obs'] == 1 else times}predicted {names[suggested]}{early}")
    if (far := row.get("deviation")) is not None:
        said.append(f"{how_often(far)} robust deviations beyond the median of its {key}")
    if places:
        best = min(places, key=lambda name: places[name][0])
        place, n = places[best]
        rank = f"{ordinal(place)} " if place > 1 else "the "
        # A place in the middle of all is no reason, unless there is no other.
        if place <= n * _MIDDLE or not said:
            said.append(f"{rank}{_WORDS[best][1]} of {n:,} samples")
    return "; ".join(said)


def far_from_target(reader: Reader, selection: Selection, pair: Pair, frame: pl.DataFrame) -> pl.DataFrame:
    """The samples of a regression whose mean absolute residual stands far out among similar targets.

    Targets are what the label key holds; those are similar that share a fifth of them, cut as by every question. A
    second pass reads them and predictions only.

    Returns:
        The columns of `COLUMNS` but the reason, and what that tells; score is the normalised rank of the deviation,
        suggested_label the mean prediction.
    """
    key = selection.label_key
    wanted = [SAMPLE_ID, key, PREDICTION]
    ids, number = frame[SAMPLE_ID].dtype, pl.Float64()
    parts = [pl.DataFrame(schema={SAMPLE_ID: ids, "off": number, "said": number, "n": pl.UInt32()})]
    if PREDICTION in reader.dtypes and reader.dtypes[PREDICTION].is_numeric():
        for rows in reader.place_frames(*pair, wanted, selection.epochs[pair], duplicates=selection.duplicates):
            said, off = pl.col(PREDICTION).cast(number), (pl.col(PREDICTION) - pl.col(key)).abs().cast(number)
            known = rows.frame.filter(off.is_finite())
            parts.append(
                known.group_by(SAMPLE_ID).agg(off.sum().alias("off"), said.sum().alias("said"), pl.len().alias("n"))
            )
    sums = pl.concat(parts, how="vertical_relaxed").group_by(SAMPLE_ID).sum()
    means = sums.select(
        SAMPLE_ID, residual=pl.col("off") / pl.col("n"), suggested_label=pl.col("said") / pl.col("n"), n="n"
    )
    whole = [pl.col(LABEL).cast(number)] if frame[LABEL].dtype.is_integer() else []
    joined = (
        frame.select(SAMPLE_ID, LABEL).with_columns(whole).join(means, on=SAMPLE_ID, how="left", maintain_order="left")
    )
    names, codes = Fifths.of(joined[LABEL]).parted(joined[LABEL])
    fifth = pl.Series("fifth", [*names, None])[codes]
    far = deviations(joined["residual"], fifth)
    usual = joined["residual"].to_frame().with_columns(fifth)
    joined = joined.with_columns(
        far,
        (far.rank("average") / far.len()).alias("score"),
        fifth,
        usual.select(pl.col("residual").median().over("fifth")).to_series().alias("usual"),
    )
    out = joined.filter(pl.col("deviation") > _FAR).sort("deviation", SAMPLE_ID, descending=[True, False])
    return out.with_columns(pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID))


def _why_far(row: Mapping[str, Any], key: str) -> str:
    """Why a sample's number is suspected."""
    of_fifth, is_told = ("the labels", "labelled") if key == LABEL else (key, f"{key} is")
    residual, usual = distinct((row["residual"], row["usual"]), 3)
    predicted, labelled = distinct((row["suggested_label"], row[LABEL]), 4)
    return (
        f"mean absolute residual {residual} over {row['n']} observations, {how_often(row['deviation'])} robust "
        f"deviations above {usual}, the median of its fifth of {of_fifth} ({row['fifth']}); "
        f"predicted {predicted} on average, {is_told} {labelled}"
    )
