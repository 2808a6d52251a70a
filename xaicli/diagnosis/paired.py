"""Whether one run is better than another on the same samples: paired differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.chance import binomial_tail, student_975, student_two_sided, welch
from xaicli.errors import UsageError
from xaicli.queries.compare import joined_at_end, other_tasks, shared
from xaicli.queries.labels import NORMAL_975
from xaicli.queries.scores import SCORE, STALE, Epochwise
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.truth import right_by
from xaicli.reader import Reader
from xaicli.vocabulary import CORRECT, DS_ID, HIGH_IS_GOOD, LOW_IS_GOOD, MODE, SAMPLE_ID

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_RESAMPLES = 2000
_RESAMPLED = 20_000
"""With more samples the mean's interval is that of the normal limit."""
_BLOCK = 2_000_000
BOOTSTRAP, NORMAL, MCNEMAR, WELCH = "paired bootstrap", "paired normal", "McNemar", "Welch's t over runs"


@dataclass(frozen=True)
class Difference:
    """What the last has more than the first.

    Attributes:
        n: Samples that both have, or runs.
        first: The mean of the first.
        last: The mean of the last.
        difference: last - first.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: Two-sided, of no difference.
        method: How interval and p were found.
        stale: Of how many of the samples a value is of an earlier epoch than its run's last.
    """

    n: int
    first: float
    last: float
    difference: float
    low: float
    high: float
    p: float
    method: str
    stale: int = 0


def mean_difference(first: Floats, last: Floats, *, seed: int = 0) -> Difference | None:
    """The difference of two means over the same samples.

    Args:
        first: (N,) values; samples that are not finite in both are left out.
        last: (N,) values.
        seed: Of the bootstrap.

    Returns:
        The interval is the percentile bootstrap's over samples (of more than 20,000 the normal limit's), p that of the
        paired t test. None with fewer than two samples.
    """
    known = np.isfinite(first) & np.isfinite(last)
    a, b = first[known], last[known]
    n = len(a)
    if n < 2:
        return None
    d = b - a
    mean, error = float(d.mean()), float(d.std(ddof=1) / math.sqrt(n))
    if n > _RESAMPLED:
        low, high, method = mean - NORMAL_975 * error, mean + NORMAL_975 * error, NORMAL
    else:
        means = _resampled_means(d, np.random.default_rng(seed))
        (low, high), method = np.quantile(means, (0.025, 0.975)).tolist(), BOOTSTRAP
    t = mean / error if error else (0.0 if not mean else math.inf)
    p = float(student_two_sided(np.array([t]), np.array([n - 1.0]))[0])
    return Difference(n, float(a.mean()), float(b.mean()), mean, low, high, p, method)


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    n = len(values)
    at_once = max(1, _BLOCK // n)
    parts = [
        values[rng.integers(n, size=(min(at_once, _RESAMPLES - start), n))].mean(axis=1)
        for start in range(0, _RESAMPLES, at_once)
    ]
    return np.concatenate(parts)


def accuracy_difference(first: NDArray[np.bool_], last: NDArray[np.bool_]) -> Difference | None:
    """The difference of two accuracies over the same samples.

    Args:
        first: (N,) whether the first is right.
        last: (N,) whether the last is right.

    Returns:
        p is McNemar's exact one (McNemar 1947, Psychometrika 12, 153-157), of the samples that only one has right; the
        interval that of Agresti and Min (2005, Stat. Med. 24, 729-740), half a sample added to each of the four counts.
        None without a sample.
    """
    n = len(first)
    if not n:
        return None
    lost, won = int((first & ~last).sum()), int((~first & last).sum())
    p = min(1.0, 2 * binomial_tail(max(lost, won), lost + won, 0.5)) if lost + won else 1.0
    total, b, c = n + 2, lost + 0.5, won + 0.5
    middle = (c - b) / total
    error = math.sqrt(b + c - (c - b) ** 2 / total) / total
    difference = (won - lost) / n
    low, high = max(middle - NORMAL_975 * error, -1.0), min(middle + NORMAL_975 * error, 1.0)
    return Difference(n, float(first.mean()), float(last.mean()), difference, low, high, p, MCNEMAR)


def run_difference(first: Sequence[float], last: Sequence[float]) -> Difference | None:
    """The difference of the means of two groups of runs, each run one value (Welch 1947).

    Returns:
        None where a group has fewer than two runs.
    """
    if min(len(first), len(last)) < 2:
        return None
    a, b = (np.asarray(values, np.float64) for values in (first, last))
    centre = float(np.concatenate([a, b]).mean())
    sums = [np.array([x]) for v in (b - centre, a - centre) for x in (float(len(v)), v.sum(), np.square(v).sum())]
    p, difference, error, freedom = (float(found[0]) for found in welch(*sums))
    margin = float(student_975(np.array([freedom]))[0]) * error
    means = float(a.mean()), float(b.mean())
    return Difference(len(a) + len(b), *means, difference, difference - margin, difference + margin, p, WELCH)


def paired(
    readers: Sequence[Reader], *, groups: Mapping[str, Sequence[str]] | None = None, **select: Any
) -> list[dict[str, Any]]:
    """Each later run against the first, or a later group of runs against the first one, on the samples both have.

    Args:
        readers: The runs, in order.
        groups: {name: its runs}: runs of one group are replicates, so that the interval holds for another seed too.
        select: What `resolve` takes.

    Returns:
        Rows mode, ds_id, metric (`correct` is the accuracy, wherever it is recorded), first, last (runs, or groups), n
        (samples; of groups runs), stale (how many of the samples are absent from the last epoch of one of the runs, and
        stand with the last value there is), values (the two means), difference, low, high, p, method, better (first,
        last; null where the interval holds 0, which end is better is unknown, or the runs are of several tasks).

    Raises:
        UsageError: There is one group alone, a group of one run, or a run in two groups.
        XaiError: As `compare`.
    """
    if groups:
        return _of_groups(readers, groups, select)
    found = shared(readers, **select)
    rows = []
    for pair in found.pairs:
        for number in range(1, len(readers)):
            both = readers[0], readers[number]
            names = both[0].layout.described, both[1].layout.described
            alike = not other_tasks(both)
            for metric, difference in _differences(both, pair, found.metrics, select).items():
                rows.append(_row(pair, metric, names, difference, alike=alike))
    return rows


def unpaired(
    answer: Answer, groups: Mapping[str, Sequence[str]] | None, differences: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What to say of runs, or groups, that are compared in an answer and have no paired difference in a place."""
    first, *others = groups or answer.selection["runs"]
    told = {(row[MODE], row[DS_ID], row["last"]) for row in differences}
    needed = "no sample is in all of them" if groups else "they have fewer than two samples with values in common"
    return [
        f"{' '.join(filter(None, pair))}: no difference of {first} and {other} is told, since {needed}"
        for pair in answer.data.select(MODE, DS_ID).unique(maintain_order=True).iter_rows()
        for other in others
        if (*pair, other) not in told
    ]


def _differences(
    readers: tuple[Reader, Reader], pair: Pair, metrics: Sequence[str], select: Mapping[str, Any]
) -> dict[str, Difference]:
    """{metric: the difference} of two runs, the accuracy among them where both have it."""
    selections = [replace(one, pairs=(pair,)) for one in shared(readers, **select).selections]
    right = _right(readers, selections, pair)
    of_right = accuracy_difference(right["run0"].to_numpy(), right["run1"].to_numpy())
    found = {
        CORRECT: of_right and replace(of_right, stale=right.filter(pl.col(f"{STALE}0") | pl.col(f"{STALE}1")).height)
    }
    for metric in (metric for metric in metrics if metric != CORRECT):
        alone = [replace(one, metrics=(metric,)) for one in selections]
        table = joined_at_end(readers, alone, pair, metric).drop_nulls(["value0", "value1"])
        values = (table[f"value{number}"].cast(pl.Float64).to_numpy() for number in (0, 1))
        difference = mean_difference(*values)
        n_stale = table.filter(pl.col("value_stale0") | pl.col("value_stale1")).height
        found[metric] = difference and replace(difference, stale=n_stale)
    return {metric: difference for metric, difference in found.items() if difference is not None}


def _right(readers: Sequence[Reader], selections: Sequence[Selection], pair: Pair) -> pl.DataFrame:
    """Whether each run has a sample right where it last judged it, by the label key where that is another truth.

    Of the samples that all judge.

    Returns:
        run0, run1, ... (bool, one a run), and stale0, stale1, ... (bool): whether that is of an earlier epoch than the
        run's last.
    """
    numbers = range(len(readers))
    told = right_by(readers, selections[0].label_key)
    if not all(column in reader.dtypes for reader, (column, _) in zip(readers, told, strict=True)):
        return pl.DataFrame(schema={f"{name}{at}": pl.Boolean() for name in ("run", STALE) for at in numbers})
    joined: pl.DataFrame | None = None
    for number, (reader, selection) in enumerate(zip(readers, selections, strict=True)):
        column, value = told[number]
        scores = Epochwise(reader, replace(selection, metrics=(column,)), pair).last_scores(value)
        right = pl.col(SCORE).cast(pl.Boolean).alias(f"run{number}")
        found = scores.select(SAMPLE_ID, right, pl.col(STALE).alias(f"{STALE}{number}"))
        joined = found if joined is None else joined.join(found, on=SAMPLE_ID, how="inner", maintain_order="left")
    assert joined is not None
    return joined.drop(SAMPLE_ID)


def _of_groups(
    readers: Sequence[Reader], groups: Mapping[str, Sequence[str]], select: Mapping[str, Any]
) -> list[dict[str, Any]]:
    if len(groups) < 2:
        raise UsageError("--group compares two groups or more", hint="--group a=PATTERN --group b=PATTERN")
    members = [run for runs in groups.values() for run in runs]
    if twice := {run for run in members if members.count(run) > 1}:
        raise UsageError(f"{sorted(twice)[0]} is in two groups", hint="give each group patterns of its own")
    if alone := [name for name, runs in groups.items() if len(runs) < 2]:
        raise UsageError(
            f"--group {alone[0]} is one run alone: nothing tells how runs of it differ",
            hint="give each group two runs or more, or compare the runs without --group",
            refused=("group",) if len(alone) == len(groups) else (),
        )
    by_name = {reader.layout.described: reader for reader in readers}
    first, *others = groups
    rows = []
    for other in others:
        # Of these two groups alone: what another run lacks takes nothing from them.
        both = [by_name[run] for name in (first, other) for run in groups[name]]
        n_first, alike = len(groups[first]), not other_tasks(both)
        found = shared(both, **select)
        for pair in found.pairs:
            for metric, table in _of_all(both, pair, found.metrics, select).items():
                means = [_mean(table[f"run{at}"]) for at in range(len(both))]
                if (difference := run_difference(means[:n_first], means[n_first:])) is not None:
                    stale = table.filter(pl.any_horizontal(f"{STALE}{at}" for at in range(len(both)))).height
                    rows.append(_row(pair, metric, (first, other), replace(difference, stale=stale), alike=alike))
    places = list(dict.fromkeys((row[MODE], row[DS_ID]) for row in rows))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    return sorted(rows, key=lambda row: (places.index((row[MODE], row[DS_ID])), metrics.index(row["metric"])))


def _mean(values: pl.Series) -> float:
    return float(values.cast(pl.Float64).to_numpy().mean())


def _of_all(
    readers: Sequence[Reader], pair: Pair, metrics: Sequence[str], select: Mapping[str, Any]
) -> dict[str, pl.DataFrame]:
    """Of each metric the samples that all runs have.

    Returns:
        {metric: rows with run0, run1, ... (each run's value) and stale0, stale1, ... (bool, whether that is of an
        earlier epoch than the run's last)}, without metrics of which no sample is in all.
    """
    selections = [replace(one, pairs=(pair,)) for one in shared(readers, **select).selections]
    tables = {CORRECT: _right(readers, selections, pair)}
    numbers = range(len(readers))
    for metric in (metric for metric in metrics if metric != CORRECT):
        alone = [replace(one, metrics=(metric,)) for one in selections]
        table = joined_at_end(readers, alone, pair, metric)
        values = (pl.col(f"value{at}").alias(f"run{at}") for at in numbers)
        stale = (pl.col(f"value_stale{at}").alias(f"{STALE}{at}") for at in numbers)
        tables[metric] = table.select(*values, *stale).drop_nulls()
    return {metric: table for metric, table in tables.items() if table.height}


def _row(pair: Pair, metric: str, names: tuple[str, str], found: Difference, *, alike: bool) -> dict[str, Any]:
    sure = not found.low <= 0 <= found.high
    upwards = metric == CORRECT or metric in HIGH_IS_GOOD
    known = alike and (upwards or metric in LOW_IS_GOOD)
    better = ("last" if (found.difference > 0) == upwards else "first") if sure and known else None
    return {
        MODE: pair[0],
        DS_ID: pair[1],
        "metric": metric,
        "first": names[0],
        "last": names[1],
        "n": found.n,
        STALE: found.stale,
        "values": [found.first, found.last],
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "method": found.method,
        "better": better,
    }
