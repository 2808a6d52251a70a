"""Labels that probabilities contradict: the samples that have one, and how many there are of each label.

Confident learning (Northcutt, Jiang and Chuang, JAIR 2021), pruning by noise rate.

The method is the paper's; where the paper leaves open how to count and round, the counts are those of cleanlab 2.9
(`find_label_issues(filter_by="prune_by_noise_rate")`), so that lists made here and there agree. Works on
probabilities that are held out, or in-sample ones of a network that has not memorised its labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer, Counts
from xaicli.diagnosis.confusion import wilson
from xaicli.dynamics.computed import accuracy
from xaicli.dynamics.metrics import MEMORISED
from xaicli.queries.names import LabelNames, class_labels, class_numbers
from xaicli.queries.rows import within_labels
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader
from xaicli.vocabulary import DS_ID, EL2N, EPOCH, LABEL, MODE, PROBS, SAMPLE_ID, Mode
from xaicli.words import fraction, percent

Labels = NDArray[np.int64]
Probs = NDArray[np.floating]

_CLOSE = 1e-6
"""Probabilities nearer than this to a threshold reach it, and to the label's own do not exceed it."""
_CHUNK_VALUES = 1 << 22
"""Probabilities widened to float64 at a time: 32 MB."""
_FAR = 1.0
"""An error norm beyond which most of the probability went to one other label."""
_SURE = 0.1
"""By how much a typical sample's probability must be above that at which a wrong label would be as far as `_FAR`."""


def thresholds(probs: Probs, label: Labels) -> NDArray[np.float64]:
    """t_j, the mean of p[j] over the samples labelled j, at least twice what counts as close; infinite where none is.

    Args:
        probs: (n, k) probabilities, of any float type.
        label: (n,) in 0..k-1.
    """
    k = probs.shape[1]
    own = probs[np.arange(len(label)), label].astype(np.float64)
    count = np.bincount(label, minlength=k)
    total = np.bincount(label, weights=np.clip(own, 0, 1), minlength=k)
    return np.asarray(np.where(count > 0, np.maximum(total / np.maximum(count, 1), 2 * _CLOSE), np.inf))


def joint_counts(probs: Probs, label: Labels) -> NDArray[np.int64]:
    """How many samples labelled a are to be expected to be b: the confident joint, rows rescaled to the class counts.

    A sample labelled a counts as b when b is the only class whose p[b] reaches t_b; where several reach theirs, when
    p[b] is the largest of all. At least one sample of each class counts as right. Rows are rounded to whole samples so
    that their totals stay: what rounding gains or loses is evened out where it rounded furthest.

    Returns:
        (k, k), each row the number of samples of its label.
    """
    k = probs.shape[1]
    limits = thresholds(probs, label) - _CLOSE
    joint = np.zeros((k, k))  # the class expected by the label given: the order in which the total below is summed
    for rows in _chunks(len(label), k):
        p = np.clip(probs[rows].astype(np.float64), 0, 1)
        reached = p >= limits
        n_reached = reached.sum(axis=1)
        best = np.where(n_reached > 1, p.argmax(axis=1), reached.argmax(axis=1))
        counted = n_reached > 0
        np.add.at(joint, (best[counted], label[rows][counted]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1.0))
    # By the labels' counts and once more by the total: the last digits tell apart which of equal remainders grow.
    scaled = joint / joint.sum(axis=0) * np.bincount(label, minlength=k)
    scaled = scaled / scaled.sum() * len(label)
    return np.array([_rounded(row) for row in scaled.T], np.int64).reshape(k, k)


def _rounded(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row in whole numbers with the same total."""
    whole = np.round(row)
    missing = int(np.round(row.sum()) - whole.sum())
    # Among equal remainders numpy's own order decides, for that is the order of the counts others publish.
    order = np.argsort(row - whole)
    chosen = order[::-1][:missing] if missing > 0 else order[:-missing]
    whole[chosen] += np.sign(missing)
    return whole


def issues(probs: Probs, label: Labels) -> NDArray[np.intp]:
    """The places of the samples whose label is an issue.

    For each a other than b the expected number of samples labelled a with the largest p[b] - p[a] (of equal ones the
    earlier); of these, those whose most probable class is not their label. A label keeps one sample at least: none of a
    single one is flagged, and one fewer for each b where none counts as right.

    Returns:
        Ascending places.
    """
    joint = joint_counts(probs, label)
    joint[joint.diagonal() == 0] -= 1
    np.fill_diagonal(joint, 0)
    joint = np.maximum(joint, 0)
    flagged = np.zeros(len(label), np.bool_)
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(joint.shape[0] + 1))
    for a in np.flatnonzero(joint.sum(axis=1)):
        rows = order[starts[a] : starts[a + 1]]
        if len(rows) < 2:
            continue
        p = np.clip(probs[rows].astype(np.float64), 0, 1)
        for b in np.flatnonzero(joint[a]):
            flagged[rows[np.argsort(p[:, a] - p[:, b])[: joint[a, b]]]] = True
    found = np.flatnonzero(flagged)
    p = np.clip(probs[found].astype(np.float64), 0, 1)
    p[np.arange(len(found)), label[found]] += _CLOSE
    return np.asarray(found[p.argmax(axis=1) != label[found]])


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(_CHUNK_VALUES // max(k, 1), 1)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


_UNDER_WAY = 0.9
"""Training accuracy above which a net that memorises has begun to: wrong labels are among the last it learns."""

COLUMNS = (MODE, DS_ID, SAMPLE_ID, "score", "reason", LABEL, "suggested_label", EPOCH)


@dataclass(frozen=True)
class Probabilities:
    """The class probabilities kept of one epoch.

    Attributes:
        epoch: The epoch.
        ids: (n,) sample ids, ascending.
        label: (n,) labels as recorded.
        number: (n,) the labels as places in `probs`.
        probs: (n, classes) probabilities.
        accuracy: The share of samples whose most probable class is their label.
    """

    epoch: int
    ids: pl.Series
    label: pl.Series
    number: NDArray[np.int64]
    probs: NDArray[np.floating]
    accuracy: float

    @property
    def own(self) -> NDArray[np.float64]:
        """(n,) the probability of the label."""
        return np.clip(self.probs[np.arange(len(self.number)), self.number].astype(np.float64), 0.0, 1.0)

    @property
    def scores(self) -> pl.DataFrame:
        """sample_id and score, the probability that the label is wrong: 1 - p[label]."""
        return pl.DataFrame({SAMPLE_ID: self.ids, "score": 1.0 - self.own})


def doubts(reader: Reader, selection: Selection, pair: Pair) -> Probabilities | None:
    """The probabilities to judge labels by: of the last selected epoch that kept any.

    Where training has memorised the labels by then, of the last one before memorisation was under way, else of the
    earliest there is. None where none were kept.
    """
    if PROBS not in reader.dtypes:
        return None
    epochs = selection.epochs[pair]
    last = next(_with_probabilities(reader, selection, pair, epochs[::-1]), None)
    if last is None or pair[0] != Mode.TRAIN or last.accuracy < MEMORISED:
        return last
    before = [epoch for epoch in epochs if epoch < last.epoch]
    learning = [epoch for epoch in before if accuracy(reader, pair, epoch) <= _UNDER_WAY]
    found = next(_with_probabilities(reader, selection, pair, learning[::-1]), None)
    return found or next(_with_probabilities(reader, selection, pair, before), last)


def _with_probabilities(
    reader: Reader, selection: Selection, pair: Pair, epochs: Sequence[int]
) -> Iterator[Probabilities]:
    """The probabilities of those epochs that kept any."""
    for epoch in epochs:
        if (held := _probabilities_at(reader, selection, Place(*pair, epoch))) is not None:
            yield held


def _probabilities_at(reader: Reader, selection: Selection, place: Place) -> Probabilities | None:
    frame, _ = reader.frame(place, [SAMPLE_ID, selection.label_key, PROBS], selection.duplicates)
    frame = within_labels(frame, selection).rename({selection.label_key: LABEL}).drop_nulls([PROBS, LABEL])
    classes = frame[PROBS].list.len().max() if frame.height else 0
    if not isinstance(classes, int) or classes < 2:
        return None
    numbers = class_numbers(frame[LABEL], reader)
    sound = numbers.is_between(0, classes - 1) & (frame[PROBS].list.len() == classes)
    frame = frame.with_columns(numbers.alias("number")).filter(sound).unique(SAMPLE_ID, keep="last").sort(SAMPLE_ID)
    probs = frame[PROBS].explode().to_numpy().reshape(-1, classes)
    finite = np.isfinite(probs).all(axis=1)
    if not finite.all():
        frame, probs = frame.filter(pl.Series(finite)), probs[finite]
    if frame.is_empty():
        return None
    number = frame["number"].to_numpy()
    accuracy = float((probs.argmax(axis=1) == number).mean())
    return Probabilities(place.epoch, frame[SAMPLE_ID], frame[LABEL], number, probs, accuracy)


def label_issues(reader: Reader, selection: Selection, *, top: int | None = None) -> Answer:
    """The samples whose label confident learning contradicts, the least probable label first.

    Args:
        reader: The run.
        selection: Which rows; of its epochs one is used (`doubts`).
        top: At most how many of each (mode, ds_id); all when None.

    Returns:
        mode, ds_id, sample_id, score (1 - p[label]), reason, label, suggested_label (the most probable class), epoch.
    """
    warnings = list(selection.warnings)
    parts = [_empty(reader, selection)]
    for pair in selection.pairs:
        held = doubts(reader, selection, pair)
        where = " ".join(filter(None, pair))
        if held is None:
            warnings.append(_lacking(reader, selection, pair, where))
            continue
        if held.accuracy >= MEMORISED and pair[0] == Mode.TRAIN:
            warnings.append(
                f"at epoch {held.epoch}, whose {where} probabilities are used, {percent(held.accuracy, 1)} "
                "of the labels were already memorised: few issues, or none, do not mean clean labels; "
                "keep probabilities of earlier epochs"
            )
        parts.append(_of_pair(reader, selection, pair, held, top))
    return Answer(
        command="label-issues",
        run=reader.layout.described,
        selection={**selection.as_dict(), "top": top},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=Counts(damaged=reader.damaged),
        warnings=tuple(warnings),
    )


def _lacking(reader: Reader, selection: Selection, pair: Pair, where: str) -> str:
    """Why no label of a (mode, ds_id) can be judged by class probabilities."""
    key = selection.label_key
    columns = [name for name in (SAMPLE_ID, key, PROBS) if name in reader.dtypes]
    for epoch in reversed(selection.epochs[pair]) if PROBS in columns else ():
        frame = reader.frame(Place(*pair, epoch), columns, selection.duplicates)[0].drop_nulls(PROBS)
        if frame.is_empty():
            continue
        if key in columns and frame[key].count():
            return f"none of the class probabilities of {where} tell of a {key} selected"
        lack = "no label was recorded" if key == LABEL else f"no sample has a {key}"
        return f"{lack} beside the class probabilities of {where}"
    return f"no class probabilities of {where} were kept: record them with Run(..., keep_probs=True)"


def _empty(reader: Reader, selection: Selection) -> pl.DataFrame:
    label = reader.dtypes.get(selection.label_key, pl.Int32())
    kinds = (pl.String(), pl.String(), reader.dtypes.get(SAMPLE_ID, pl.Int64()), pl.Float64(), pl.String())
    return pl.DataFrame(schema=dict(zip(COLUMNS, (*kinds, label, label, pl.Int32()), strict=True)))


def _of_pair(reader: Reader, selection: Selection, pair: Pair, held: Probabilities, top: int | None) -> pl.DataFrame:
    found = issues(held.probs, held.number)
    scores = 1.0 - held.own[found]
    chosen = np.argsort(-scores, kind="stable")[:top]
    found, scores = found[chosen], scores[chosen]
    suggested = held.probs[found].argmax(axis=1)
    names = LabelNames.of_predictions(reader, selection)
    spelt = class_labels(suggested.tolist(), held.label.dtype, reader)
    reasons = [
        f"predicted {names[other]} with probability {fraction(float(held.probs[row, number]))}, against "
        f"{fraction(1 - score)} for its label, at epoch {held.epoch}"
        for row, number, other, score in zip(found, suggested, spelt, scores, strict=True)
    ]
    columns = {
        SAMPLE_ID: held.ids.gather(found),
        "score": scores,
        "reason": pl.Series(reasons, dtype=pl.String),
        LABEL: held.label.gather(found),
        "suggested_label": spelt,
    }
    origin = [pl.lit(value).alias(name) for name, value in zip((MODE, DS_ID), pair, strict=True)]
    return pl.DataFrame(columns).with_columns(*origin, pl.lit(held.epoch, pl.Int32).alias(EPOCH)).select(COLUMNS)


NO_RATE = (
    "the model does not train on these rows, so that its own mistakes look like wrong labels; "
    "--mode train estimates a rate where its rows were recorded"
)


def label_noise(frame: pl.DataFrame, pair: Pair, names: LabelNames) -> list[dict[str, Any]]:
    """The share of each label's samples whose probability went to one other label while the net was learning.

    The error norm, mean of the first `--early-epochs`, is above 1: the probabilities lie nearer to another label's
    corner than halfway. These epochs are hardly memorised. On digits with labels made wrong at random this is within a
    point or two of the true rate of a label once the net has learned something; on pictures with labels by people the
    sum is right and a label off by 5 points in the mean, by 11 at worst: too low for labels given to what looks like
    them, too high for those that the net confuses, and too low where many labels are wrong by one and the same rule
    (`benchmarks/findings.py`).

    A net is pulled towards the label of a row that it trains on, right or wrong. Of any other row it makes the mistakes
    that it makes: nothing tells these from wrong labels, so that there the contradicted are counted, and are no rate.

    Args:
        frame: One row a sample with label and `el2n`.
        pair: Their (mode, ds_id).
        names: Of the labels.

    Returns:
        Rows mode, ds_id, label, name, n, contradicted, rate, low, high (Wilson's 95 % interval: of drawing these
        samples, not of the method), reason (why there is no rate; null with one), unsure (whether the net was not sure
        enough yet for wrong labels to lie that far, so that more may be wrong), the highest share contradicted first.
        Of any mode but `train` rate, low, high and unsure are null. Empty without error norms, and where labels are no
        classes.
    """
    kind = frame.schema[LABEL]
    if EL2N not in frame.columns or kind.is_float() or kind.is_nested():
        return []
    known = frame.drop_nulls([LABEL, EL2N])
    far = (pl.col(EL2N) > _FAR).sum().cast(pl.Int64).alias("contradicted")
    counted = known.group_by(LABEL).agg(pl.len().cast(pl.Int64).alias("n"), far)
    ordered = counted.sort(pl.col("contradicted") / pl.col("n"), LABEL, descending=[True, False])
    trained = pair[0] == Mode.TRAIN
    unsure = _unsure(known[EL2N], counted.height) if trained else None
    rows = []
    for label, n, contradicted in ordered.iter_rows():
        low, high = wilson(contradicted, n) if trained else (None, None)
        told = {MODE: pair[0], DS_ID: pair[1], LABEL: label, "name": names[label], "n": n, "contradicted": contradicted}
        rate = contradicted / n if trained else None
        rows.append({**told, "rate": rate, "low": low, "high": high, "reason": None if trained else NO_RATE})
        rows[-1]["unsure"] = unsure
    return rows


def _unsure(el2n: pl.Series, classes: int) -> bool:
    """Whether the typical sample is not predicted surely enough for one like it with a wrong label to be contradicted.

    With the probability c for one of K classes and the rest shared out evenly, a right label's error norm is
    (1 - c) sqrt(K / (K - 1)), and a wrong label's is 1 where c = 1 / sqrt(K). Measured: docs/statistics.md.
    """
    typical = el2n.median()
    if classes < 2 or not isinstance(typical, float):
        return False
    return bool(typical > (1.0 - classes**-0.5 - _SURE) * (classes / (classes - 1)) ** 0.5)
