"""How sure the model is, against how often it is right; and figures of whole probability tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xaicli.queries.labels import NORMAL_975
from xaicli.vocabulary import CORRECT, PREDICTION, TOP_PROB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 15
FEWEST = 30
"""Samples from which on a label's own calibration is told."""
ENOUGH = 200
"""Samples from which on a label has a calibration error of its own."""
_RESAMPLES = 1000
_FEWEST_RESAMPLES = 200
"""So many where there are very many labels, for each."""
_RESAMPLED_ROWS = 20_000
"""With more rows the resampled gaps of bins are drawn from their normal limit; several labels share this number."""


@dataclass(frozen=True)
class Calibration:
    """`top_prob` against `correct` in bins of equal count (Guo et al. 2017, arXiv:1706.04599).

    Attributes:
        n: Samples with both.
        bins: Per bin (n, mean top probability, share right), by rising probability; no bin is empty.
        ece: Expected calibration error: the mean of |share right - mean probability| over the bins, weighted by count.
        ece_interval: Its 95 % bootstrap interval, widened to hold the estimate.
        mce: The largest of these differences.
        mce_interval: Its 95 % bootstrap interval, likewise.
        over_confidence: Mean top probability minus the share right: above 0 the model is surer than it should be.
        over_interval: Its 95 % normal interval; NaN of fewer than 30 samples, where that limit says nothing.
    """

    n: int
    bins: tuple[tuple[int, float, float], ...]
    ece: float
    ece_interval: tuple[float, float]
    mce: float
    mce_interval: tuple[float, float]
    over_confidence: float
    over_interval: tuple[float, float]


def calibration(
    top_prob: Floats,
    correct: Floats,
    *,
    bins: int = BINS,
    seed: int = 0,
    resamples: int = _RESAMPLES,
    resampled_rows: int = _RESAMPLED_ROWS,
) -> Calibration | None:
    """Compare how sure the model is with how often it is right.

    Args:
        top_prob: (N,) probability of the prediction; rows that are not finite are left out.
        correct: (N,) 1 where it is right, 0 where not; rows that are NaN are left out.
        bins: How many; fewer where there are fewer samples. Samples of one probability, which nothing puts in an order,
            count in each bin they fall into as all of them do on average.
        seed: Of the bootstrap.
        resamples: How many; without any the intervals are the estimates.
        resampled_rows: Of more rows the resampled gaps of bins are drawn from their normal limit.

    Returns:
        None without a row.
    """
    top_prob, correct = np.asarray(top_prob, np.float64), np.asarray(correct, np.float64)
    known = np.isfinite(top_prob) & np.isfinite(correct)
    p, right = top_prob[known], correct[known]
    if not len(p):
        return None
    order = _ascending(p, right)
    p, right = p[order], right[order]
    binned = _Binned.of(p, right, bins)
    gap, half = float(p.mean() - right.mean()), NORMAL_975 * float((p - right).std()) / math.sqrt(len(p))
    exactly = len(p) <= resampled_rows
    eces, mces = binned.resampled(right - p, np.random.default_rng(seed), resamples, exactly=exactly)
    return Calibration(
        n=len(p),
        bins=tuple((int(a), float(b), float(c)) for a, b, c in zip(binned.n, binned.sure, binned.share, strict=True)),
        ece=binned.ece,
        ece_interval=_interval(eces, binned.ece),
        mce=float(binned.gaps.max()),
        mce_interval=_interval(mces, float(binned.gaps.max())),
        over_confidence=gap,
        over_interval=(gap - half, gap + half) if len(p) >= FEWEST else (math.nan, math.nan),
    )


def _ascending(p: Floats, right: Floats) -> NDArray[np.intp]:
    """The order by probability, those that are wrong first among equals: the same in whatever order the rows came."""
    return np.argsort(np.where(right > 0, np.nextafter(p, np.inf), p))


@dataclass(frozen=True)
class _Binned:
    """Rows by rising probability, in bins of equal count: of each how many, how sure and how often right."""

    n: NDArray[np.intp]
    sure: Floats
    share: Floats
    starts: NDArray[np.intp]
    parts: Floats

    @classmethod
    def of(cls, p: Floats, right: Floats, bins: int) -> _Binned:
        edges = _edges(len(p), min(bins, len(p)))
        starts, parts = _units(p, edges)
        n = np.diff(np.append(edges, len(p)))
        sure, share = (parts @ np.add.reduceat(values, starts) / n for values in (p, right))
        return cls(n, sure, share, starts, parts)

    @property
    def gaps(self) -> Floats:
        return np.abs(self.share - self.sure)

    @property
    def ece(self) -> float:
        return float((self.gaps * self.n).sum() / self.n.sum())

    def resampled(
        self, error: Floats, rng: np.random.Generator, resamples: int, *, exactly: bool
    ) -> tuple[Floats, Floats]:
        """(R,) the calibration error and the largest gap of resampled rows."""
        n, gaps = _resampled_gaps(error, self.starts, self.parts, rng, resamples, exactly=exactly)
        return (n * gaps).sum(axis=1) / n.sum(axis=1), gaps.max(axis=1)


def _edges(n: int, bins: int) -> NDArray[np.intp]:
    """Where the bins begin; the first `n % bins` have one more, as `numpy.array_split` cuts."""
    size, more = divmod(n, bins)
    sizes = np.full(bins, size)
    sizes[:more] += 1
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)


def _units(p: Floats, edges: NDArray[np.intp]) -> tuple[NDArray[np.intp], Floats]:
    """The rows in stretches that lie in one bin, or are of one probability and lie in several.

    Returns:
        Where the U stretches begin, and (bins, U) which part of each lies in each bin.
    """
    cuts = {0}
    for edge in edges[1:]:
        spans = p[edge - 1] == p[edge]
        cuts |= {int(np.searchsorted(p, p[edge], side)) for side in ("left", "right")} if spans else {int(edge)}
    starts = np.array(sorted(cuts - {len(p)}), np.intp)
    ends, bin_ends = (np.append(begins[1:], len(p)) for begins in (starts, edges))
    shared = np.minimum(bin_ends[:, None], ends) - np.maximum(edges[:, None], starts)
    return starts, np.maximum(shared, 0) / (ends - starts)


def _resampled_gaps(
    error: Floats, starts: NDArray[np.intp], parts: Floats, rng: np.random.Generator, resamples: int, *, exactly: bool
) -> tuple[Floats, Floats]:
    """(R, bins) counts and absolute gaps of resampled rows, which keep their bins."""
    total = len(error)
    n = np.diff(np.append(starts, total))
    if not exactly:
        many = rng.standard_normal((resamples, len(n))) * np.sqrt(n * (1 - n / total))
        counts = np.maximum(n + many, 0)
        mean = np.add.reduceat(error, starts) / n
        variance = np.maximum(np.add.reduceat(error * error, starts) / n - mean * mean, 0)
        sums = counts * mean + rng.standard_normal(counts.shape) * np.sqrt(variance * counts)
    else:
        counts, sums = np.empty((resamples, len(n))), np.empty((resamples, len(n)))
        for number in range(resamples):
            times = np.bincount(rng.integers(total, size=total), minlength=total)
            counts[number] = np.add.reduceat(times, starts)
            sums[number] = np.add.reduceat(times * error, starts)
    in_bins = counts @ parts.T
    return in_bins, np.abs(sums @ parts.T) / np.where(in_bins > 0, in_bins, 1)


def _interval(values: Floats, estimate: float) -> tuple[float, float]:
    if not len(values):
        return estimate, estimate
    low, high = np.quantile(values, (0.025, 0.975))
    return min(float(low), estimate), max(float(high), estimate)


def by_prediction(frame: pl.DataFrame) -> pl.DataFrame:
    """How sure the model is of each label it predicts, against how often it is right then.

    Args:
        frame: One row a sample with prediction, top_prob and correct; rows that lack one of them are left out.

    Returns:
        Rows prediction, n, top_prob (mean), accuracy, over_confidence (top_prob - accuracy), low, high (its 95 % normal
        interval), ece (in 15 bins of equal count, null of fewer than 200 samples) with ece_low and ece_high (its 95 %
        bootstrap interval), ece_missing (why it is null), of predictions with at least 30 samples, the largest
        |over_confidence| first; ties by prediction.
    """
    sure = pl.col(TOP_PROB).cast(pl.Float64)
    known = frame.drop_nulls([PREDICTION, TOP_PROB, CORRECT]).filter(sure.is_finite())
    if isinstance(known.schema[PREDICTION], pl.List):
        known = known.clear()
    right = pl.col(CORRECT).cast(pl.Float64)
    gap, error = pl.col("over_confidence"), 1.959964 * pl.col("spread") / pl.col("n").sqrt()
    grouped = known.group_by(PREDICTION).agg(
        pl.len().cast(pl.Int64).alias("n"),
        sure.mean().alias(TOP_PROB),
        right.mean().alias("accuracy"),
        (sure - right).mean().alias("over_confidence"),
        (sure - right).std().alias("spread"),
    )
    enough = grouped.filter(pl.col("n") >= FEWEST).with_columns((gap - error).alias("low"), (gap + error).alias("high"))
    return _with_ece(enough, known).drop("spread").sort(gap.abs(), PREDICTION, descending=[True, False])


def _with_ece(labels: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The labels with the calibration error of those that have enough rows."""
    wanted = labels.filter(pl.col("n") >= ENOUGH).select(PREDICTION)
    most = _RESAMPLED_ROWS // max(wanted.height, 1)
    resamples = max(_FEWEST_RESAMPLES, min(_RESAMPLES, most))
    eces: dict[Any, tuple[float, float, float]] = {}
    if wanted.height:
        numbered = rows.select(PREDICTION, pl.col(TOP_PROB, CORRECT).cast(pl.Float64)).join(
            wanted.with_row_index("code"), on=PREDICTION
        )
        code = numbered["code"].to_numpy().astype(np.uint16 if wanted.height < 1 << 16 else np.uint32)
        sure, is_right = numbered[TOP_PROB].to_numpy(), numbered[CORRECT].to_numpy()
        order = _ascending(sure, is_right)
        order = order[np.argsort(code[order], kind="stable")]
        sure, is_right = sure[order], is_right[order]
        n = np.bincount(code, minlength=wanted.height)
        told, by_limit = _ece_by_limit(sure, is_right - sure, n)
        begins = np.cumsum(n) - n
        for number in np.flatnonzero(~by_limit | (n <= most)).tolist():
            own = slice(begins[number], begins[number] + n[number])
            binned, error = _Binned.of(sure[own], is_right[own], BINS), is_right[own] - sure[own]
            drawn, _ = binned.resampled(error, np.random.default_rng(0), resamples, exactly=n[number] <= most)
            told[number] = binned.ece, *_interval(drawn, binned.ece)
        eces = dict(zip(wanted[PREDICTION].to_list(), map(tuple, told.tolist()), strict=True))
    why = pl.when(pl.col("n") < ENOUGH).then(pl.lit(f"fewer than {ENOUGH} samples"))
    spelled = [eces.get(taken, (None, None, None)) for taken in labels[PREDICTION]]
    columns = pl.DataFrame(
        spelled, schema=dict.fromkeys(("ece", "ece_low", "ece_high"), pl.Float64), orient="row"
    ).get_columns()
    return labels.with_columns(*columns, why.alias("ece_missing"))


def _ece_by_limit(p: Floats, error: Floats, n: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """The calibration errors of many groups at once, with the 95 % interval that resampling has in the limit.

    The sums of a bin's errors over resampled rows, s_b, are normal then, with variance sum(error^2) - s_b^2 / n and
    covariances -s_a s_b / n (multinomial). The calibration error is the sum of |s_b| / n: of folded normals, whose mean
    and variance Leone, Nelson and Nottingham (1961) give, and itself taken to be normal.

    Args:
        p: (N,) the probabilities, group by group, ascending in each.
        error: (N,) right or not, minus that.
        n: (G,) rows of each group, at least `BINS`.

    Returns:
        (G, 3) the error and the ends of its interval; (G,) whether they hold: not where one probability lies in several
        bins.
    """
    size, more = np.divmod(n, BINS)
    bins = np.arange(BINS)
    edges = (np.cumsum(n) - n)[:, None] + bins * size[:, None] + np.minimum(bins, more[:, None])
    inner = edges[:, 1:]
    is_whole = (p[inner - 1] != p[inner]).all(axis=1)
    sums, squares = (np.add.reduceat(values, edges.ravel()).reshape(edges.shape) for values in (error, error * error))
    total = n[:, None].astype(np.float64)
    spread = np.sqrt(np.maximum(squares - sums**2 / total, 1e-300))
    z = sums / spread
    sign = np.vectorize(math.erf, otypes=[np.float64])(z / math.sqrt(2))
    mean = spread * math.sqrt(2 / math.pi) * np.exp(-z * z / 2) + sums * sign
    variance = sums**2 + spread**2 - mean**2
    shared = (sign * sums).sum(axis=1) ** 2 - ((sign * sums) ** 2).sum(axis=1)
    deviation = np.sqrt(np.maximum(variance.sum(axis=1) - shared / n, 0)) / n
    ece, centre = np.abs(sums).sum(axis=1) / n, mean.sum(axis=1) / n
    low, high = (np.clip(centre + side * NORMAL_975 * deviation, 0, 1) for side in (-1, 1))
    return np.stack([ece, np.minimum(low, ece), np.maximum(high, ece)], axis=1), is_whole


@dataclass(frozen=True)
class ProbabilityScores:
    """Figures of a whole table of probabilities.

    Attributes:
        n: Samples with a label that is one of the classes, and finite probabilities.
        brier: The mean squared distance from the one-hot label, summed over the classes (Brier 1950); 0 to 2.
        log_loss: The mean of -log of the label's probability.
        n_clipped: In how many of them that probability was below float32's smallest step from 1, and nothing more
            precise was known: there `log_loss` counts -log of that step (15.9), so that it is too low.
        auroc: Per class, one against the rest; NaN where all or none are of it.
        average_precision: Per class, one against the rest; NaN where none is of it.
    """

    n: int
    brier: float
    log_loss: float
    n_clipped: int
    auroc: Floats
    average_precision: Floats


def probability_scores(
    probs: Floats, label: NDArray[np.int64], label_prob: Floats | None = None
) -> ProbabilityScores | None:
    """Score probabilities against labels.

    Args:
        probs: (N, K); brought to sum 1, since they are kept in half precision.
        label: (N,) classes; rows with others are left out.
        label_prob: (N,) the label's probability as recorded, in single precision; NaN where it is not known. Kept
            probabilities below 3e-8 are 0.

    Returns:
        None without a row.
    """
    k = probs.shape[1]
    p = np.asarray(probs, np.float64)
    total = p.sum(axis=1)
    known = np.isfinite(p).all(axis=1) & (total > 0) & (label >= 0) & (label < k)
    p, y = p[known] / total[known][:, None], label[known]
    if not len(p):
        return None
    at_label, least = p[np.arange(len(p)), y], float(np.finfo(np.float32).eps)
    if label_prob is not None:
        recorded = np.asarray(label_prob, np.float64)[known]
        exact = np.isfinite(recorded) & (recorded > 0)
        at_label = np.where(exact, recorded, at_label)
    else:
        exact = np.zeros(len(p), bool)
    clipped = ~exact & (at_label < least)
    is_class = y[:, None] == np.arange(k)
    return ProbabilityScores(
        n=len(p),
        brier=float(((p - is_class) ** 2).sum(axis=1).mean()),
        log_loss=float(-np.log(np.where(clipped, least, np.minimum(at_label, 1))).mean()),
        n_clipped=int(clipped.sum()),
        auroc=np.array([auroc(p[:, c], is_class[:, c]) for c in range(k)]),
        average_precision=np.array([average_precision(p[:, c], is_class[:, c]) for c in range(k)]),
    )


def auroc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, ties counting half (Hanley and McNeil 1982).

    Returns:
        NaN without both kinds.
    """
    n_pos = int(positive.sum())
    n_neg = len(positive) - n_pos
    if not n_pos or not n_neg:
        return float("nan")
    _, place, times = np.unique(score, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(times) - (times - 1) / 2
    return float((mid_rank[place][positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def average_precision(score: Floats, positive: NDArray[np.bool_]) -> float:
    """The mean precision over the recall steps, samples of one score taken together, without interpolation.

    Returns:
        NaN without a positive.
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(positive[order])[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])
