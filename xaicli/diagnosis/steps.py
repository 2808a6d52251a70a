"""What happened at which step: batch losses, spikes, and the samples that carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xaicli.diagnosis.chance import benjamini_hochberg, binomial_tail
from xaicli.vocabulary import ATTEMPT, EPOCH, RANK, SAMPLE_ID, STEP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AROUND = 101
"""Steps over which the usual loss and its spread are taken, the step itself in the middle."""
DEVIATIONS = 6.0
"""Robust deviations above the usual loss that make a spike."""
AT_START = 10
"""So many batches of a run are its start."""
FEW = 3
MOST_OF_IT = 0.5
"""Few samples hold a batch where so many of them, at most, have this share of its loss."""
AS_WORDS = ("no", "one", "two", "three")
"""Numbers of up to few samples in a sentence."""
_TOLD = 4
"""So many spikes are named."""
_MAD_TO_STD = 1.4826
_REGULAR = 0.8
"""The share of equal distances between steps from which on a longer one is a gap."""
_CHUNK = 8192


_OF_BATCH = frozenset(
    {"n", "non_finite", "missing", "usual", "height", "is_spike", "at_start", "samples", "mix", "scalars", "before"}
)


def mean_column(metric: str) -> str:
    """What the mean of a batch is called in an answer: as the metric, `mean` where a batch has something called so."""
    return "mean" if metric in _OF_BATCH else metric


def batch_losses(frame: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The loss of each batch.

    Args:
        frame: Rows with epoch, step, rank and the metric as logged, NaN and infinities included. Where they tell their
            attempt, what two of them logged at one step is two batches.
        metric: The loss.

    Returns:
        Rows epoch, step, rank, attempt where it is told, loss (the mean of the finite values, null without any), n,
        non_finite, missing (rows without a loss, as those without a label), in that order.
    """
    keys = [EPOCH, STEP, RANK, *([ATTEMPT] if ATTEMPT in frame.columns else [])]
    value = pl.col(metric).cast(pl.Float64)
    finite = value.is_finite()
    return (
        frame.group_by(keys)
        .agg(
            value.filter(finite).mean().alias("loss"),
            pl.len().cast(pl.Int64).alias("n"),
            (~finite).sum().cast(pl.Int64).alias("non_finite"),
            value.null_count().cast(pl.Int64).alias("missing"),
        )
        .sort(keys)
    )


def with_spikes(batches: pl.DataFrame, *, around: int = AROUND, deviations: float = DEVIATIONS) -> pl.DataFrame:
    """Which batch losses stand out against those around them, each rank by itself.

    A spike's log loss exceeds the median of the `around` steps about it by `deviations` x 1.4826 x their median
    absolute deviation. Losses that are not above 0 have no logarithm: a rank that has any is judged by the loss itself.

    Args:
        batches: What `batch_losses` gives.
        around: Steps the median is taken over, the step in the middle; fewer at the ends.
        deviations: How far a spike stands out.

    Returns:
        The rows with usual (the median about the step, as a loss), height (robust deviations above it; null where they
        cannot be told) and is_spike.
    """
    parts = []
    for _, rows in batches.group_by(RANK, maintain_order=True):
        loss = rows["loss"].to_numpy().astype(np.float64)
        usual, height = _heights(loss, around)
        spike = np.nan_to_num(height, nan=-np.inf) > deviations
        parts.append(
            rows.with_columns(
                pl.Series("usual", usual, nan_to_null=True),
                pl.Series("height", height, nan_to_null=True),
                pl.Series("is_spike", spike),
            )
        )
    if not parts:
        return batches.with_columns(
            usual=pl.lit(None, pl.Float64), height=pl.lit(None, pl.Float64), is_spike=pl.lit(False)
        )
    return pl.concat(parts).sort(EPOCH, STEP, RANK, maintain_order=True)


def _heights(loss: Floats, around: int) -> tuple[Floats, Floats]:
    """The usual loss about each step, and how many robust deviations above it the step lies; NaN where unknown."""
    known = loss[np.isfinite(loss)]
    as_log = bool(len(known)) and bool((known > 0).all())
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.log(loss) if as_log else loss.copy()
    half = around // 2
    padded = np.concatenate([np.full(half, np.nan), x, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    usual, mad = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for start in range(0, len(x), _CHUNK):
        window = windows[start : start + _CHUNK]
        rows = np.flatnonzero(np.isfinite(window).any(axis=1))
        middle = np.nanmedian(window[rows], axis=1)
        usual[start + rows] = middle
        mad[start + rows] = np.nanmedian(np.abs(window[rows] - middle[:, None]), axis=1)
    above = x - usual
    with np.errstate(invalid="ignore", divide="ignore"):
        # Where all around are equal, any step that rises by more than rounding stands infinitely far out.
        height = np.where(mad > 0, above / (_MAD_TO_STD * mad), np.where(above > 1e-9, np.inf, 0.0))
    height[~np.isfinite(x)] = np.nan
    return (np.exp(usual) if as_log else usual), height


def first_non_finite(batches: pl.DataFrame) -> dict[str, Any] | None:
    """The first batch with a NaN or infinite loss, as a row of `batch_losses`; None where all are finite."""
    found = batches.filter(pl.col("non_finite") > 0).head(1)
    return found.row(0, named=True) if found.height else None


def with_start(batches: pl.DataFrame, first_epoch: int) -> pl.DataFrame:
    """The rows with at_start: among the first 10 batches of its rank in a run, or the first asked about; more follow.

    Of such a batch the usual loss is that of the batches behind it: whether it jumped nothing says, and where the loss
    of a training falls fast from its start, its first batches are spikes by the rule.

    Args:
        batches: What `batch_losses` gives, in order.
        first_epoch: That of the run.
    """
    few = pl.when(pl.col(EPOCH) == first_epoch).then(AT_START).otherwise(1)
    earlier = pl.int_range(pl.len()).over(RANK)
    later = pl.len().over(RANK) - 1 - earlier.cast(pl.Int64)
    return batches.with_columns(((earlier < few) & (later > earlier)).alias("at_start"))


def before_it(batches: pl.DataFrame, batch: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last batch of the same rank before one, as a row of `batch_losses`; None for the first."""
    earlier = (pl.col(EPOCH) < batch[EPOCH]) | ((pl.col(EPOCH) == batch[EPOCH]) & (pl.col(STEP) < batch[STEP]))
    found = batches.filter((pl.col(RANK) == batch[RANK]) & earlier).tail(1)
    return found.row(0, named=True) if found.height else None


def loss_shares(frame: pl.DataFrame) -> pl.DataFrame:
    """The samples of one step by their share of its loss.

    Args:
        frame: The step's rows with sample_id and value, the loss.

    Returns:
        The rows with share (of the sum of the finite losses; null where that is not above 0, or the loss is not
        finite): samples whose loss is not finite first, then by falling share, those without a loss last; ties by
        sample_id.
    """
    value = pl.col("value").cast(pl.Float64)
    finite = value.is_finite()
    total = pl.when(finite).then(value).sum()
    share = pl.when(finite & (total > 0)).then(value / total).alias("share")
    order = [finite, pl.when(finite).then(-value), pl.col(SAMPLE_ID)]  # false before true, and null after both
    return frame.with_columns(share).sort(order, nulls_last=True)


@dataclass(frozen=True)
class Mix:
    """One value of a label or fact in a step, against what its part of all rows would bring.

    Attributes:
        value: The value; None where there is none.
        n: Rows of the step that have it.
        expected: How many its part of all rows would bring.
        p: The chance of at least n, were the step's rows drawn from all (binomial).
    """

    value: Any
    n: int
    expected: float
    p: float


def mix(values: pl.Series, everywhere: pl.DataFrame, total: int | None = None) -> list[Mix]:
    """The values of a step's rows against the mix of all rows, those furthest above first; nulls are a value.

    Args:
        values: Of the step's rows; of sets, each of whose items is a value of the row, the lists.
        everywhere: A row a value of all rows: the value, and how many rows have it.
        total: How many rows there are in all; the sum of those when None.
    """
    each = values.list.unique().explode().drop_nulls() if isinstance(values.dtype, pl.List) else values
    here = dict(each.alias("value").value_counts().iter_rows())
    total = sum(n for _, n in everywhere.iter_rows()) if total is None else total
    found = []
    for value, n in everywhere.iter_rows():
        own = int(here.get(value, 0))
        found.append(Mix(value, own, len(values) * n / total, binomial_tail(own, len(values), n / total)))
    return sorted(found, key=lambda item: (item.expected - item.n, str(item.value)))


def gaps(batches: pl.DataFrame) -> pl.DataFrame:
    """Steps of an epoch that no batch was logged at.

    Args:
        batches: What `batch_losses` gives.

    Returns:
        Rows epoch, rank, after, before (the steps logged about the gap), missing (how many batches the usual distance
        of this rank's steps would have brought between them), in order. None where most distances differ.
    """
    distance = pl.col(STEP).diff().over(EPOCH, RANK)
    # Several attempts may have logged one step.
    ordered = batches.unique([EPOCH, RANK, STEP]).sort(EPOCH, RANK, STEP).with_columns(distance.alias("distance"))
    ordered = ordered.with_columns(pl.col(STEP).shift(1).over(EPOCH, RANK).alias("after")).drop_nulls("distance")
    parts = []
    for _, rows in ordered.group_by(RANK, maintain_order=True):
        usual = int(rows["distance"].mode().min())  # type: ignore[arg-type]
        if (rows["distance"] == usual).mean() >= _REGULAR:  # type: ignore[operator]
            missing = (pl.col("distance") / usual).ceil().cast(pl.Int64) - 1
            parts.append(rows.with_columns(missing.alias("missing")).filter(pl.col("missing") > 0))
    columns = (EPOCH, RANK, "after", pl.col(STEP).alias("before"), "missing")
    if not parts:
        return batches.clear().with_columns(after=STEP, missing=pl.lit(0, pl.Int64)).select(columns)
    return pl.concat(parts).select(columns).sort(EPOCH, "after", RANK)


def enrichment(seen: pl.DataFrame, spiked: pl.DataFrame) -> pl.DataFrame:
    """How much more often each sample stands in spikes than chance would put it there.

    A sample of n rows is in k spikes; if each row fell into a spike with the chance that any row has, k would be
    binomial. The p-values are of at least k, corrected after Benjamini and Hochberg (1995) over the samples.

    Args:
        seen: sample_id and n, how often each was in a batch.
        spiked: sample_id and n_spikes, how often in a spike, of those that were.

    Returns:
        Rows sample_id, n, n_spikes, expected, ratio, p, q of the samples in any spike, by p, then falling n_spikes,
        then sample_id.
    """
    counts = seen.join(spiked, on=SAMPLE_ID, how="left").with_columns(pl.col("n_spikes").fill_null(0))
    hits = int(counts["n_spikes"].sum() or 0)
    columns = (SAMPLE_ID, "n", "n_spikes", "expected", "ratio", "p", "q")
    if not hits:
        floats = [pl.lit(None, pl.Float64).alias(name) for name in columns[3:]]
        return counts.clear().with_columns(floats).select(columns)
    chance = hits / int(counts["n"].sum())
    kinds = counts.select("n", "n_spikes").unique()
    p = [binomial_tail(k, n, chance) for n, k in kinds.iter_rows()]
    table = counts.join(kinds.with_columns(pl.Series("p", p, pl.Float64())), on=["n", "n_spikes"], how="left")
    expected = pl.col("n") * chance
    table = table.with_columns(
        expected.alias("expected"),
        (pl.col("n_spikes") / expected).alias("ratio"),
        pl.Series("q", benjamini_hochberg(table["p"].to_numpy())),
    )
    ordered = table.filter(pl.col("n_spikes") > 0).sort("p", "n_spikes", SAMPLE_ID, descending=[False, True, False])
    return ordered.select(columns)


def other_spikes(row: Mapping[str, Any]) -> list[tuple[tuple[int, int], str]]:
    """The other spikes that a sample stood in, in order, with their words: of steps that start again the epoch too."""
    steps, epochs = row.get("also_in") or [], row.get("also_in_epochs")
    if epochs is None:
        return [((0, step), f"{step:,}") for step in steps]
    return [((epoch, step), f"{step:,} of epoch {epoch}") for epoch, step in zip(epochs, steps, strict=True)]


def in_other_spikes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which other spikes some samples of one stood in, in words: those they share, else which there are; "" of none."""
    again = [dict(other_spikes(row)) for row in rows if row.get("also_in")]
    if not again:
        return ""
    n, every = len(again), dict(sorted(moment for own in again for moment in own.items()))
    shared = {moment: said for moment, said in every.items() if all(moment in own for own in again)}
    told = list((shared or every).values())
    more = f" and {len(told) - _TOLD:,} more" if len(told) > _TOLD else f" and {told.pop()}" if len(told) > 1 else ""
    where = f"the {'spikes' if more else 'spike'} at {', '.join(told[:_TOLD])}{more}"
    if not shared:
        where = f"{'one' if all(len(own) == 1 for own in again) else 'some'} of {where}"
    elif len(shared) < len(every):
        where += ", some in others too"
    all_of_them = "it" if n == 1 else "all of them" if shared else "each of them"
    return f"{all_of_them if n == len(rows) else f'{AS_WORDS[n]} of them'} also stood in {where}"
