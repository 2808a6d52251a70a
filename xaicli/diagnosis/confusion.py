"""Who is taken for whom: counts of (label, prediction), and the figures that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xaicli.queries.labels import NORMAL_975
from xaicli.vocabulary import LABEL, PREDICTION

if TYPE_CHECKING:
    from numpy.typing import NDArray


_CELLS = 1 << 20
"""A table of so many counts is made in no time."""


@dataclass(frozen=True)
class Overall:
    """The figures of one place.

    Attributes:
        n: Samples with a label and a prediction.
        accuracy: The share of them that are right; a set of classes is right where it is exactly the label's.
        accuracy_interval: Its 95 % interval (Wilson 1927, JASA 22, 209-212).
        balanced_accuracy: The mean recall of the labels that occur.
        macro_f1: The mean F1 of the labels that occur or are predicted, an undefined one counting 0.
        weighted_f1: The mean F1 of the labels that occur, weighted by their samples.
        mcc: Matthews' correlation coefficient of several classes (Gorodkin 2004,
            doi:10.1016/j.compbiolchem.2004.09.006); 0 where only one label or only one prediction occurs, None of sets
            of classes, of which there is none.
        undefined: Which of these figures are 0 because they are undefined: "mcc", or nothing.
    """

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    mcc: float | None
    undefined: tuple[str, ...] = ()


def confusion_counts(frame: pl.DataFrame) -> pl.DataFrame:
    """How often each label got each prediction.

    Args:
        frame: One row a sample, with `label` and `prediction`; rows without either are left out.

    Returns:
        Rows label, prediction, n (int64), each pair that occurs once, in order.
    """
    known = frame.select(LABEL, PREDICTION).drop_nulls()
    if known.height and all(dtype.is_integer() for dtype in known.dtypes):
        lows, highs = (known.select(end(LABEL, PREDICTION)).row(0) for end in (pl.min, pl.max))
        shape = tuple(high - low + 1 for low, high in zip(lows, highs, strict=True))
        if shape[0] * shape[1] <= max(known.height, _CELLS):
            return _counted_in_a_table(known, lows, shape)
    return known.group_by(LABEL, PREDICTION).agg(pl.len().cast(pl.Int64).alias("n")).sort(LABEL, PREDICTION)


def _counted_in_a_table(known: pl.DataFrame, lows: tuple[int, ...], shape: tuple[int, ...]) -> pl.DataFrame:
    """The same of classes that are close together, many times sooner than by groups."""
    label, prediction = (
        known[name].to_numpy().astype(np.int64) - low for name, low in zip(known.columns, lows, strict=True)
    )
    counts = np.bincount(label * shape[1] + prediction)
    there = np.flatnonzero(counts)
    ends = zip(known.schema.items(), np.divmod(there, shape[1]), lows, strict=True)
    columns = {name: pl.Series(places + low).cast(dtype) for (name, dtype), places, low in ends}
    return pl.DataFrame({**columns, "n": pl.Series(counts[there], dtype=pl.Int64)})


def set_counts(frame: pl.DataFrame) -> pl.DataFrame:
    """The same where labels and predictions are sets of classes: how often a class was found, missed or added.

    Args:
        frame: What `by_class` gives.

    Returns:
        Rows label, prediction, n (int64): both the class, or null for the one that lacks it; nulls last.
    """
    counts = frame.group_by(LABEL, PREDICTION).agg(pl.len().cast(pl.Int64).alias("n"))
    return counts.sort(LABEL, PREDICTION, nulls_last=True)


def by_class(frame: pl.DataFrame, keep: tuple[str, ...] = ()) -> pl.DataFrame:
    """A row a class that is in a sample's label or in its prediction, with null in the column that lacks it.

    Args:
        frame: One row a sample, with lists of classes `label` and `prediction`; rows without either are left out.
        keep: Further columns wanted.
    """
    known = frame.select(LABEL, PREDICTION, *keep).drop_nulls([LABEL, PREDICTION])
    truth, taken, one = pl.col(LABEL), pl.col(PREDICTION), pl.col("class")
    both = known.with_columns(truth.list.set_union(taken).alias("class")).explode("class").drop_nulls("class")
    return both.select(
        pl.when(truth.list.contains(one)).then(one).alias(LABEL),
        pl.when(taken.list.contains(one)).then(one).alias(PREDICTION),
        *keep,
    )


def label_figures(counts: pl.DataFrame) -> pl.DataFrame:
    """Precision, recall and F1 of each label that occurs or is predicted.

    Args:
        counts: What `confusion_counts` gives, or `set_counts`.

    Returns:
        Rows label, n (samples of the label), n_predicted, n_right, precision, recall, f1 (float64; 0 where undefined),
        undefined (the names of those that are: precision of a label that is never predicted, recall of one without
        samples, F1 where there is neither), by label.
    """
    n, right = pl.col("n"), pl.col(LABEL) == pl.col(PREDICTION)
    truth = counts.group_by(LABEL).agg(n.sum(), n.filter(right).sum().alias("n_right"))
    taken = counts.group_by(pl.col(PREDICTION).alias(LABEL)).agg(n.sum().alias("n_predicted"))
    whole = pl.col("n", "n_right", "n_predicted").fill_null(0).cast(pl.Int64)
    table = truth.join(taken, on=LABEL, how="full", coalesce=True).with_columns(whole)
    ratios = {
        "precision": (pl.col("n_right"), pl.col("n_predicted")),
        "recall": (pl.col("n_right"), n),
        "f1": (2 * pl.col("n_right"), n + pl.col("n_predicted")),
    }
    missing = [pl.when(below == 0).then(pl.lit(name)) for name, (_, below) in ratios.items()]
    return (
        table.drop_nulls(LABEL)
        .select(
            LABEL,
            "n",
            "n_predicted",
            "n_right",
            *(
                pl.when(below > 0).then(above / below).otherwise(0.0).alias(name)
                for name, (above, below) in ratios.items()
            ),
            pl.concat_list(missing).list.drop_nulls().alias("undefined"),
        )
        .sort(LABEL)
    )


def overall_figures(
    counts: pl.DataFrame, by_label: pl.DataFrame | None = None, *, exact: tuple[int, int] | None = None
) -> Overall | None:
    """The figures of a whole place; None where no sample has both a label and a prediction.

    Args:
        counts: What `confusion_counts` gives, or `set_counts`.
        by_label: What `label_figures` gives for these counts, if it is there already.
        exact: Of sets of classes, how many samples there are and how many of them have exactly their label's set.
    """
    if counts.is_empty():
        return None
    table = label_figures(counts) if by_label is None else by_label
    labelled = int(table["n"].sum())
    n, right = exact or (labelled, int(table["n_right"].sum()))
    occurs = table.filter(pl.col("n") > 0)
    share = occurs["n"].to_numpy() / max(labelled, 1)
    single = occurs.height < 2 or table.filter(pl.col("n_predicted") > 0).height < 2
    return Overall(
        n=n,
        accuracy=right / n,
        accuracy_interval=wilson(right, n),
        balanced_accuracy=float(occurs["recall"].to_numpy().mean()) if labelled else 0.0,
        macro_f1=float(table["f1"].to_numpy().mean()),
        weighted_f1=float((occurs["f1"].to_numpy() * share).sum()),
        mcc=None if exact else _matthews(table["n"].to_numpy(), table["n_predicted"].to_numpy(), right),
        undefined=("mcc",) if single and not exact else (),
    )


def exact_sets(frame: pl.DataFrame) -> tuple[int, int]:
    """How many samples have a set of classes as label and as prediction, and of how many it is the same one."""
    known = frame.select(LABEL, PREDICTION).drop_nulls()
    truth, taken = (pl.col(name).list.unique().list.sort() for name in (LABEL, PREDICTION))
    return known.height, int(known.select((truth == taken).sum()).item())


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays within [0, 1] and is not empty at its ends.

    Args:
        right: How many of the `n`.
        n: How many; (0.0, 1.0) for none.
    """
    if not n:
        return 0.0, 1.0
    p, z2 = right / n, NORMAL_975**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    margin = NORMAL_975 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the exact value is 0 or 1; rounding may leave it by a hair.
    return (0.0 if not right else middle - margin), (1.0 if right == n else middle + margin)


def _matthews(truth: NDArray[np.int64], taken: NDArray[np.int64], right: int) -> float:
    t, p = truth.astype(np.float64), taken.astype(np.float64)
    n = t.sum()
    spread = math.sqrt((n * n - (t * t).sum()) * (n * n - (p * p).sum()))
    return float((right * n - (t * p).sum()) / spread) if spread else 0.0


def confused_pairs(counts: pl.DataFrame, top: int | None = None) -> pl.DataFrame:
    """The wrong pairs, the most frequent first.

    Args:
        counts: What `confusion_counts` gives.
        top: How many; all when None.

    Returns:
        Rows label, prediction, n, share (of the label's samples); ties by label, then prediction. Of sets of classes a
        null stands for the one that lacks the class.
    """
    of_label = counts.group_by(LABEL).agg(pl.col("n").sum().alias("of_label"))
    wrong = counts.filter(pl.col(LABEL).ne_missing(pl.col(PREDICTION)))
    if top is not None and wrong.height > top:
        # The least frequent of those wanted bounds the candidates, so that only these are sorted.
        wrong = wrong.filter(pl.col("n") >= (wrong["n"].top_k(top).min() if top else math.inf))
    joined = wrong.join(of_label, on=LABEL, how="left", nulls_equal=True, maintain_order="left")
    share = (pl.col("n") / pl.col("of_label")).alias("share")
    ordered = most_frequent_first(joined.select(LABEL, PREDICTION, "n", share))
    return ordered if top is None else ordered.head(top)


def most_frequent_first(pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows label, prediction, n in the order that every table of pairs has: ties by label, then prediction."""
    return pairs.sort("n", LABEL, PREDICTION, descending=[True, False, False])


def matrix(counts: pl.DataFrame, labels: list[Any]) -> NDArray[np.int64]:
    """The counts as a square table.

    Args:
        counts: What `confusion_counts` gives.
        labels: The K labels to show, in order; others are left out. None stands for the lack of a class.

    Returns:
        (K, K) counts: a row a label, a column a prediction.
    """
    place = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), np.int64)
    for label, prediction, n in counts.iter_rows():
        if label in place and prediction in place:
            table[place[label], place[prediction]] = n
    return table


def block_order(table: NDArray[np.int64]) -> list[int]:
    """An order of the labels in which those that are taken for one another stand side by side.

    That of the entries of the second eigenvector of the graph whose edges are the confusions, normalised by degree (the
    Fiedler vector; Barnard, Pothen and Simon 1995). Labels that are confused with none keep their order at the end.

    Args:
        table: (K, K) counts.

    Returns:
        The K row numbers.
    """
    mutual = (table + table.T).astype(np.float64)
    np.fill_diagonal(mutual, 0)
    linked = np.flatnonzero(mutual.sum(axis=1))
    if len(linked) < 3:
        return list(range(len(table)))
    weights = mutual[np.ix_(linked, linked)]
    scale = 1 / np.sqrt(weights.sum(axis=1))
    _, vectors = np.linalg.eigh(np.eye(len(linked)) - scale[:, None] * weights * scale)
    second = vectors[:, 1] * scale
    # The sign of an eigenvector means nothing; the first label stands in the first half.
    second = second if second[0] <= 0 else -second
    ordered = [int(linked[place]) for place in np.argsort(np.round(second, 9), kind="stable")]
    return ordered + [place for place in range(len(table)) if place not in set(ordered)]
