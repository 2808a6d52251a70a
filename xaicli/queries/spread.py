"""Where the values of one place lie: within each group, and of all samples together, computed in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.queries.cache import cached
from xaicli.queries.rows import walk
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Rows
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, PASS, QUANTILES, STEP

_BLOCK = 1 << 15
_NOTHING = pl.DataFrame()


@dataclass(frozen=True)
class Groups:
    """Which rows belong together: those of one key.

    Attributes:
        keys: (n,) the key of each row, without nulls.
        names: (g,) the distinct keys, ascending.
        order: (n,) the numbers of the rows, group by group.
        starts: (g + 1,) where each group begins in `order`, and the number of rows.
    """

    keys: pl.Series
    names: pl.Series
    order: NDArray[np.intp]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, keys: pl.Series) -> Groups:
        """The groups of rows by key."""
        # In the order of the rows, so that sums repeat to the last bit.
        order = keys.to_frame().select(pl.arg_sort_by(keys.name, maintain_order=True)).to_series()
        runs = keys.gather(order).rle().struct.unnest()
        starts = np.concatenate([[0], np.cumsum(runs["len"].to_numpy(), dtype=np.int64)])
        return cls(keys, runs["value"], order.to_numpy().astype(np.intp), starts)

    def fit(self, keys: pl.Series) -> bool:
        """Whether these are the groups of the given keys: as a rule those of all epochs are."""
        return len(keys) == len(self.keys) and keys.dtype == self.keys.dtype and bool((keys == self.keys).all())

    @cached_property
    def blocks(self) -> list[slice]:
        """The groups, some at a time."""
        return list(_blocks(self.starts))


class Spreads:
    """The statistics of one metric, gathered place by place and made a frame once: a run has thousands of places."""

    def __init__(self, *, quantiles: bool) -> None:
        self._quantiles = quantiles
        self._found: list[tuple[Rows, dict[str, Any]]] = []

    def add(self, groups: Groups, rows: Rows, metric: str) -> None:
        """Take a place, whose rows are those of the groups."""
        self._found.append(
            (rows._replace(frame=_NOTHING), statistics_of(groups, rows.frame[metric], quantiles=self._quantiles))
        )

    def frame(self) -> pl.DataFrame | None:
        """What `spread` gives, with epoch, pass and step; None where there was no place."""
        if not self._found:
            return None
        heights = [len(columns["n"]) for _, columns in self._found]
        labels = pl.concat([columns[LABEL] for _, columns in self._found])
        times = {
            EPOCH: pl.Series([rows.place.epoch for rows, _ in self._found], dtype=pl.Int32),
            PASS: pl.Series([rows.place.turn for rows, _ in self._found], dtype=pl.Int16),
            STEP: pl.Series([rows.step for rows, _ in self._found], dtype=pl.Int64),
        }
        names = [name for name in self._found[0][1] if name != LABEL]
        numbers = {name: np.concatenate([columns[name] for _, columns in self._found]) for name in names}
        place = pl.Series(np.repeat(np.arange(len(heights)), heights))
        return pl.DataFrame({LABEL: labels, **numbers, **{name: known.gather(place) for name, known in times.items()}})


def statistics_of(groups: Groups, values: pl.Series, *, quantiles: bool) -> dict[str, Any]:
    """The statistics of each group that has a value.

    Args:
        groups: Of n rows.
        values: (n,) finite numbers or null.
        quantiles: Whether these are wanted, too.

    Returns:
        The columns label (the key, a series), n (int64), mean, std (divisor n - 1; 0.0 where n is 1), min and max
        (float64) and, if wanted, q05, q50, q95 by linear interpolation; ascending by label.
    """
    names, order, starts, blocks = groups.names, groups.order, groups.starts, groups.blocks
    numbers = values.to_numpy()
    if values.null_count():
        known = values.is_not_null().to_numpy().take(order)
        order, starts = order[known], np.concatenate([[0], np.cumsum(known)])[starts]
        some = np.diff(starts) > 0
        names, starts = names.filter(pl.Series(some)), np.append(starts[:-1][some], starts[-1])
        blocks = list(_blocks(starts))
    n = np.diff(starts)
    found = {"n": n, **{name: np.empty(len(n)) for name in ("mean", "std", "min", "max")}}
    for block in blocks:
        _fill(found, block, numbers.take(order[starts[block.start] : starts[block.stop]]), starts)
    if quantiles:
        group = pl.Series(np.repeat(np.arange(len(n), dtype=np.uint32), n))
        pairs = pl.DataFrame({"group": group, "value": numbers.take(order)})
        ascending = pairs.sort("group", "value")["value"].to_numpy()
        found |= {name: _quantile(ascending, starts[:-1], n, q) for name, q in QUANTILES.items()}
    return {LABEL: names, **found}


def _blocks(starts: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of the groups of whole groups, about as many rows each as the processor's cache holds."""
    edges = np.searchsorted(starts, np.arange(0, starts[-1], _BLOCK), side="left")
    # Ascending as they are; np.unique would import for longer than an epoch of a large run takes.
    for begin, end in itertools.pairwise([*dict.fromkeys(edges.tolist()), len(starts) - 1]):
        if begin < end:
            yield slice(begin, end)


def _fill(
    found: dict[str, NDArray[Any]], block: slice, values: NDArray[np.number[Any]], starts: NDArray[np.int64]
) -> None:
    """Put the statistics of a block of groups where they belong; `values` are those of the block, group by group."""
    begins, n = starts[block] - starts[block.start], found["n"][block]
    # Float32 means would differ between engines in the ninth digit.
    distances = values.astype(np.float64)
    mean = np.add.reduceat(distances, begins) / n
    distances -= np.repeat(mean, n)
    squares = np.add.reduceat(np.square(distances, out=distances), begins)
    found["mean"][block] = mean
    found["std"][block] = np.sqrt(squares / np.maximum(n - 1, 1))
    found["min"][block] = np.minimum.reduceat(values, begins)
    found["max"][block] = np.maximum.reduceat(values, begins)


def _quantile(
    ascending: NDArray[np.floating[Any]], begins: NDArray[np.int64], n: NDArray[np.int64], q: float
) -> NDArray[np.float64]:
    place = q * (n - 1)
    below = np.floor(place).astype(np.int64)
    low = ascending[begins + below].astype(np.float64)
    high = ascending[begins + np.minimum(below + 1, n - 1)].astype(np.float64)
    found: NDArray[np.float64] = low + (high - low) * (place - below)
    return found


_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
_SCHEMA = {
    MODE: pl.String(),
    DS_ID: pl.String(),
    "metric": pl.String(),
    EPOCH: pl.Int32(),
    PASS: pl.Int16(),
    STEP: pl.Int64(),
    "n": pl.Int64(),
    **{name: pl.Float64() for name in _QUANTILES},
}


def population(reader: Reader, selection: Selection) -> pl.DataFrame:
    """Quantiles of each metric over the samples of every place; non-finite values are ignored.

    Returns:
        mode, ds_id, metric, epoch, pass, step (the place's largest), n (finite values), q05, q25, q50, q75, q95
        (float64, linear interpolation, null where n is 0); ordered by pair, metric, place.
    """

    def compute() -> Answer:
        rows = [row for pair in selection.pairs for row in _of_pair(reader, selection, pair)]
        data = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
        return Answer("population", reader.layout.described, selection.as_dict(), data)

    return cached(reader, selection, {"question": "population"}, compute).data


def ends_of_population(reader: Reader, selection: Selection) -> pl.DataFrame:
    """Those rows of `population` that a sentence needs: the last place, and the first and last with a finite value.

    A terminal has its answer from a few places of a long history.
    """
    rows: list[tuple[Any, ...]] = []
    for pair in selection.pairs:
        for metric in selection.metrics:
            last = _until_finite(reader, selection, pair, metric, backwards=True)
            first = _until_finite(reader, selection, pair, metric, backwards=False)
            rows += dict.fromkeys([*first[-1:], *last[-1:], *last[:1]])
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _until_finite(
    reader: Reader, selection: Selection, pair: Pair, metric: str, *, backwards: bool
) -> list[tuple[Any, ...]]:
    """The rows of one metric, place by place from one end, to the first that has a finite value."""
    found = []
    for rows in walk(reader, selection, pair, [metric], backwards=backwards):
        found.append(_row(pair, metric, rows))
        if rows.frame[metric].count():
            break
    return found


def _of_pair(reader: Reader, selection: Selection, pair: Pair) -> list[tuple[Any, ...]]:
    """The rows of one (mode, ds_id), metric by metric."""
    by_metric: dict[str, list[tuple[Any, ...]]] = {metric: [] for metric in selection.metrics}
    for place in walk(reader, selection, pair, selection.metrics):
        for metric, rows in by_metric.items():
            rows.append(_row(pair, metric, place))
    return [row for rows in by_metric.values() for row in rows]


def _row(pair: Pair, metric: str, rows: Rows) -> tuple[Any, ...]:
    """The quantiles of one metric at one place."""
    values = rows.frame[metric].drop_nulls()
    return (*pair, metric, rows.place.epoch, rows.place.turn, rows.step, len(values), *_quantiles(values))


def _quantiles(values: pl.Series) -> list[float | None]:
    """The quantiles of some values, all or none of them known."""
    if values.is_empty():
        return [None] * len(_QUANTILES)
    # Sorted as narrow as they are stored: several times faster than as float64.
    ordered = np.sort(values.to_numpy())
    found: list[float | None] = []
    for q in _QUANTILES.values():
        place = q * (len(ordered) - 1)
        low = float(ordered[int(place)])
        high = float(ordered[min(int(place) + 1, len(ordered) - 1)])
        found.append(low + (high - low) * (place - int(place)))
    return found
