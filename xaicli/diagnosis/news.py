"""What of confusions, calibration and steps is news: labels that fell, pairs that came up, too much trust, spikes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.calibration import Calibration, calibration
from xaicli.diagnosis.confusion import Overall, confused_pairs
from xaicli.diagnosis.questions import EmptyPlaces, counted, labelled
from xaicli.diagnosis.steps import FEW, MOST_OF_IT, in_other_spikes, mean_column
from xaicli.diagnosis.training import steps
from xaicli.errors import XaiError
from xaicli.queries.names import LabelNames, named
from xaicli.queries.resolution import epoch_test, resolve
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.truth import refuse_other_kinds
from xaicli.reader import Place, Reader
from xaicli.vocabulary import (
    CORRECT,
    END_IS_KNOWN,
    EPOCH,
    LABEL,
    PREDICTION,
    SAMPLE_ID,
    STEP,
    TOP_PROB,
    Duplicates,
    Mode,
)
from xaicli.words import distinct, fraction, percent

PLACES = 8
"""In so many epochs, evenly spread and the last among them, labels and predictions are counted."""
_MOST_ROWS = 20_000_000
"""With more training rows the batches are gone through only where they are asked for."""
_LEVEL = 0.01
_LEAST = 0.05
"""The smallest fall of an F1, or rise of a pair's share of its label, that is worth a word."""
_SURE = 0.02
_SPIKES = 3
_ADDS = 0.005
"""What a sample adds at least to the loss of a batch that few make, to be named among them."""


@dataclass(frozen=True)
class Change:
    """What became of a label's F1, or of a pair's share of its label, from an earlier epoch to the last.

    Attributes:
        label: The label.
        taken: What it is taken for; None of an F1.
        before: The best value of the epochs looked at.
        after: The last one.
        since: The epoch of the best value.
        p: Of no change, corrected after Bonferroni for all labels, or pairs, and epochs looked at.
        name: What the label is called.
        taken_name: What `taken` is called; None of an F1.
    """

    label: Any
    taken: Any
    before: float
    after: float
    since: int
    p: float
    name: str | None = None
    taken_name: str | None = None


@dataclass(frozen=True)
class Judgements:
    """How labels and predictions stand at the last place of one (mode, ds_id), and what changed on the way there.

    Attributes:
        pair: mode and ds_id.
        epoch: The last one.
        overall: The figures of the last place.
        pairs: The wrong pairs there, the most frequent first: label, prediction, n, share, name, prediction_name.
        over_confidence: Mean top probability minus the share right; None where nothing says.
        over_interval: Its 95 % normal interval; NaN of fewer than 30 samples.
        ece: Expected calibration error.
        n: Samples of the last place.
        n_unsure: Those with both and without a finite top probability, which the three before leave out.
        fell: Labels whose F1 fell, the largest fall first.
        rose: Pairs that became confused, the largest rise first.
        empty: What is to be said where a later epoch has no sample with both a label and a prediction.
    """

    pair: Pair
    epoch: int
    overall: Overall
    pairs: pl.DataFrame
    over_confidence: float | None
    over_interval: tuple[float, float]
    ece: float | None
    n: int
    n_unsure: int
    fell: tuple[Change, ...]
    rose: tuple[Change, ...]
    empty: str

    @property
    def is_over_confident(self) -> bool:
        """Whether the model is surer than it is right, by more than chance and by a share worth a word."""
        return self.over_confidence is not None and self.over_confidence >= _SURE and self.over_interval[0] > 0


def judgements(reader: Reader, selection: Selection, warnings: list[str]) -> list[Judgements]:
    """How labels and predictions stand, of each (mode, ds_id) that has both; none where they are numbers.

    Args:
        reader: The run.
        selection: Which rows.
        warnings: Takes what is to be said of places without a sample that has both, from the last one told on.

    Raises:
        UsageError: The label key is no truth of the predictions.
    """
    key, dtypes = selection.label_key, reader.dtypes
    predicted, held = dtypes.get(PREDICTION), dtypes.get(key)
    # Numbers in place of a recorded label are no classes of the predictions', which is said.
    if predicted is None or held is None or predicted.is_float() or (key == LABEL and held.is_float()):
        return []
    refuse_other_kinds(reader, key)
    names = LabelNames.of_classes(reader, selection)
    judged = (_judged(reader, selection, pair, names, warnings) for pair in selection.pairs)
    return [found for found in judged if found is not None]


def _judged(
    reader: Reader, selection: Selection, pair: Pair, names: LabelNames, warnings: list[str]
) -> Judgements | None:
    columns = [SAMPLE_ID, PREDICTION, *(name for name in (TOP_PROB, CORRECT) if name in reader.dtypes)]
    places: list[tuple[int, pl.DataFrame, pl.DataFrame]] = []
    last: tuple[int, pl.DataFrame, Overall] | None = None
    empty = EmptyPlaces(selection.label_key)
    for rows in labelled(reader, selection, pair, columns, epochs=_evenly(selection.epochs[pair])):
        counts, table, overall = counted(rows.frame)
        if overall is not None:
            places.append((rows.place.epoch, counts, table))
            last = rows.place.epoch, rows.frame, overall
            empty = EmptyPlaces(selection.label_key)
        else:
            empty.add(rows)
    said = empty.said(" ".join(filter(None, pair)), None if last is None else last[0])
    warnings += said
    if last is None:
        return None
    epoch, frame, overall = last
    sure = _sureness(frame)
    return Judgements(
        pair=pair,
        epoch=epoch,
        overall=overall,
        pairs=_pairs_named(confused_pairs(places[-1][1]), names),
        over_confidence=sure.over_confidence if sure else None,
        over_interval=sure.over_interval if sure else (math.nan, math.nan),
        ece=sure.ece if sure else None,
        n=frame.height,
        n_unsure=frame.drop_nulls([LABEL, PREDICTION]).height - (sure.n if sure else 0),
        fell=tuple(_named(change, names) for change in _fell(places)),
        rose=tuple(_named(change, names) for change in _rose(places)),
        empty="".join(said),
    )


def _named(change: Change, names: LabelNames) -> Change:
    return replace(change, name=names.beside(change.label), taken_name=names.beside(change.taken))


def _pairs_named(pairs: pl.DataFrame, names: LabelNames) -> pl.DataFrame:
    ends = {LABEL: "name", PREDICTION: "prediction_name"}
    return pairs.with_columns(named(pairs[end], names.by_value).alias(name) for end, name in ends.items())


def _evenly(epochs: Sequence[int]) -> list[int]:
    """Some epochs, evenly spread, the last among them."""
    at = np.unique(np.linspace(0, len(epochs) - 1, min(PLACES, len(epochs))).round().astype(int))
    return [epochs[place] for place in at]


def _sureness(frame: pl.DataFrame) -> Calibration | None:
    if not {TOP_PROB, CORRECT} <= set(frame.columns):
        return None
    sure, right = (frame[name].cast(pl.Float64).to_numpy() for name in (TOP_PROB, CORRECT))
    return calibration(sure, right, resamples=0)


def _fell(places: Sequence[tuple[int, pl.DataFrame, pl.DataFrame]]) -> Iterator[Change]:
    """Labels whose F1 fell, by the share found of all that are or are taken for the label (F1 = 2 s / (1 + s))."""
    if len(places) < 2:
        return
    tables = [(epoch, {row[LABEL]: row for row in table.iter_rows(named=True)}) for epoch, _, table in places]
    last, looks = tables[-1][1], (len(tables) - 1) * max(len(tables[-1][1]), 1)
    found = []
    for label, now in last.items():
        earlier = [(row[label]["f1"], epoch, row[label]) for epoch, row in tables[:-1] if label in row]
        if not earlier:
            continue
        best, epoch, then = max(earlier, key=lambda one: (one[0], -one[1]))
        p = _two_shares(then["n_right"], _union(then), now["n_right"], _union(now)) * looks
        if best - now["f1"] >= _LEAST and p <= _LEVEL:
            found.append(Change(label, None, best, now["f1"], epoch, p))
    yield from sorted(found, key=lambda change: change.after - change.before)


def _union(row: dict[str, Any]) -> int:
    return int(row["n"] + row["n_predicted"] - row["n_right"])


def _rose(places: Sequence[tuple[int, pl.DataFrame, pl.DataFrame]]) -> Iterator[Change]:
    """Pairs whose share of the label rose."""
    if len(places) < 2:
        return
    counts = [(epoch, _shares(found)) for epoch, found, _ in places]
    ends = counts[-1][1].items()
    now = {(a, b): one for (a, b), one in ends if a != b and a is not None and b is not None}
    totals = [(epoch, {label: n for (label, _), (_, n) in found.items()}) for epoch, found in counts]
    looks, found = (len(counts) - 1) * max(len(now), 1), []
    for (label, taken), (n, total) in now.items():
        if n / total < _LEAST:
            continue
        earlier = []
        for (epoch, shares), (_, of_label) in zip(counts[:-1], totals[:-1], strict=True):
            if label in of_label:
                times = shares.get((label, taken), (0, 0))[0]
                earlier.append((times / of_label[label], -epoch, times, of_label[label]))
        if not earlier:
            continue
        least, epoch, times, of_all = min(earlier)
        p = _two_shares(n, total, times, of_all) * looks
        if n / total - least >= _LEAST and p <= _LEVEL:
            found.append(Change(label, taken, least, n / total, -epoch, p))
    yield from sorted(found, key=lambda change: change.before - change.after)


def _shares(counts: pl.DataFrame) -> dict[tuple[Any, Any], tuple[int, int]]:
    """{(label, prediction): how often, of how many} of the wrong pairs and the right ones."""
    with_totals = counts.with_columns(pl.col("n").sum().over(LABEL).alias("total"))
    return {(label, taken): (n, total) for label, taken, n, total in with_totals.iter_rows()}


def _two_shares(high: int, of_high: int, low: int, of_low: int) -> float:
    """One-sided p of two shares being equal, against the first being higher: the normal limit, pooled."""
    if not of_high or not of_low:
        return 1.0
    pooled = (high + low) / (of_high + of_low)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of_high + 1 / of_low))
    z = (high / of_high - low / of_low) / error if error else 0.0
    return math.erfc(z / math.sqrt(2)) / 2


def training_steps(reader: Reader, selection: Selection, *, from_start: bool = True) -> Answer | None:
    """What `steps` says of the training within the epochs selected, without histories.

    None where there is no training to look at. The data sets are those selected, where the training itself is.

    Args:
        reader: The run.
        selection: The epochs and the metric.
        from_start: As of `steps`.

    Raises:
        XaiError: There is so much of it that its batches are gone through only when asked, or nothing says which end
            of its metric is good.
    """
    metric = selection.metrics[0] if selection.metrics else ""
    if Mode.TRAIN not in reader.modes() or metric not in reader.metrics:
        return None
    if metric not in END_IS_KNOWN:
        raise XaiError(
            f"which end of {metric} is good is not known: its rises are not looked for; xai steps --metric {metric} "
            "tells of them"
        )
    own = resolve(reader, mode=Mode.TRAIN.value, metric=metric, duplicates=Duplicates.ALL.value)
    if Mode.TRAIN in selection.modes:
        epochs = {pair: chosen for pair, chosen in selection.epochs.items() if pair[0] == Mode.TRAIN}
    else:
        epochs = {pair: _as_asked(reader, selection, pair, found) for pair, found in own.epochs.items()}
    pairs = tuple(pair for pair in own.pairs if epochs.get(pair))
    if not pairs:
        return None
    if (n := _rows(reader, epochs)) > _MOST_ROWS:
        raise XaiError(
            f"the {n:,} rows of train, more than {_MOST_ROWS:,}, were not searched for spikes of the loss: "
            "xai steps does it when asked"
        )
    by = {name: getattr(selection, name) for name in ("label_key", "label_is_truth", "label_map")}
    within = replace(own, pairs=pairs, epochs=epochs, **by)
    return steps(reader, within, spikes=_SPIKES, histories=False, from_start=from_start)


def _as_asked(reader: Reader, selection: Selection, pair: Pair, epochs: Sequence[int]) -> tuple[int, ...]:
    """Those of the epochs of a (mode, ds_id) that the words of a selection of other modes mean."""
    there = reader.epochs(*pair)
    known = sorted({epoch for one in (*selection.pairs, pair) for epoch in reader.epochs(*one)})
    tests = [epoch_test(word, known, where=reader.described) for word in selection.epoch_asked]
    asked = [epoch for epoch in epochs if not tests or any(test(epoch, there) for test in tests)]
    return tuple(epoch for epoch in asked if epoch % selection.epoch_frequency == 0)


def _rows(reader: Reader, epochs: Mapping[Pair, Sequence[int]]) -> int:
    return sum(reader.row_count(Place(*pair, epoch)) for pair, chosen in epochs.items() for epoch in chosen)


def news(reader: Reader, selection: Selection) -> list[dict[str, Any]]:
    """The findings of labels and predictions, each with its reason.

    Returns:
        finding (falling_label, confused_pair, over_confident), mode, ds_id, label, score, epoch, reason,
        suggested_label (what a label is taken for).
    """
    names = LabelNames.of_classes(reader, selection)
    return [row for found in judgements(reader, selection, []) for row in _of_judgements(found, names)]


def spikes(reader: Reader, selection: Selection) -> list[dict[str, Any]]:
    """The spikes of the training but those of its first 10 batches, each with its reason.

    Returns:
        finding (spike), mode, ds_id, sample_id (the one with most of its loss), label, score, epoch, reason.

    Raises:
        XaiError: As `training_steps`.
    """
    training = training_steps(reader, selection, from_start=False)
    metric = selection.metrics[0] if selection.metrics else ""
    return [_of_spike(spike, metric) for spike in training.extra["spikes"]] if training is not None else []


def _of_judgements(found: Judgements, names: LabelNames) -> Iterator[dict[str, Any]]:
    origin = {"mode": found.pair[0], "ds_id": found.pair[1], EPOCH: found.epoch}
    later = f"; {found.empty}" if found.empty else ""
    for change in found.fell:
        before = f"it was {fraction(change.before)} at epoch {change.since}"
        said = f"F1 of {names[change.label]} {fraction(change.after)}, {before}"
        score = change.before - change.after
        yield {"finding": "falling_label", **origin, LABEL: change.label, "score": score, "reason": said + later}
    for change in found.rose:
        said = (
            f"{names[change.label]} is taken for {names[change.taken]} in {percent(change.after)} of its samples, "
            f"{percent(change.before)} at epoch {change.since}"
        )
        told = {LABEL: change.label, "score": change.after - change.before, "suggested_label": change.taken}
        yield {"finding": "confused_pair", **origin, **told, "reason": said + later}
    if found.is_over_confident and found.over_confidence is not None and found.ece is not None:
        low, high = found.over_interval
        interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f}; calibration error {percent(found.ece, 1)}"
        right = f"right are {percent(found.overall.accuracy, 1)}"
        said = f"surer than right by {100 * found.over_confidence:.1f} points ({interval}); {right}"
        if found.n_unsure:
            said += (
                f"; top_prob is missing of {found.n_unsure:,} of the {found.overall.n:,} samples, which are left out"
            )
        yield {"finding": "over_confident", **origin, "score": found.over_confidence, "reason": said + later}


def _of_spike(spike: dict[str, Any], metric: str) -> dict[str, Any]:
    held = [row for row in spike["samples"] if row["share"] is not None][:FEW]
    share = sum(row["share"] for row in held)
    sign = "#" if all(str(row[SAMPLE_ID]).isdecimal() for row in held) else ""
    if share >= MOST_OF_IT:
        # What adds less than half a percent to it did not make it.
        held = held[:1] + [row for row in held[1:] if row["share"] >= _ADDS]
    said = ", ".join(f"{sign}{row[SAMPLE_ID]} {percent(row['share'])}" for row in held)
    others = in_other_spikes(held)
    again = f"; {others}" if others else ""
    loss, *usual = distinct([spike[name] for name in (mean_column(metric), "usual") if spike[name] is not None], 3)
    beside = f"(usual {usual[0]})" if usual else ""
    if share >= MOST_OF_IT:
        most = f"most of it of {said}"
    elif len(held) < FEW and (odd := spike["non_finite"]):  # these are told first, and not all are told
        most = f"{odd:,} of its {spike['n']:,} samples not finite"
    else:
        known = spike["n"] - spike["non_finite"] - spike["missing"]
        most = f"spread over {known:,} samples, first {said}"
    at = f"step {spike[STEP]:,}"
    if any("also_in_epochs" in row for row in held):  # steps start again
        at += f" of epoch {spike[EPOCH]}"
    return {
        "finding": "spike",
        "mode": spike["mode"],
        "ds_id": spike["ds_id"],
        EPOCH: spike[EPOCH],
        SAMPLE_ID: held[0][SAMPLE_ID] if held else None,
        LABEL: held[0].get(LABEL) if held else None,
        "score": spike["height"],
        "reason": f"{metric} {loss} {beside} at {at}, {most}{again}",
    }
