"""Where the data is worst: groups of samples that share facts and differ from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xaicli.diagnosis.chance import Draws, benjamini_hochberg, student_975, welch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

MIN_N = 30
_LEVEL = 0.05
_QUINTILES = (0.2, 0.4, 0.6, 0.8)
_FEW_NUMBERS = 10
"""A column of numbers with no more distinct values is taken by value."""
_MOST_VALUES = 50
"""Of more values the most frequent are taken, and the rest together."""
_CANDIDATES = 200
OTHER = "(other values)"
MISSING = "(missing)"


@dataclass(frozen=True)
class Slice:
    """Samples that share facts.

    Attributes:
        facts: {column: value, as text} of one column or two.
        n: Samples with a finite value.
        share: Their share of all such samples.
        mean: The mean of their values.
        rest_mean: That of all others.
        difference: mean - rest_mean.
        interval: The 95 % interval of the difference (Welch 1947).
        p: Of no difference: the larger of Welch's and that of drawing such a mean at random from all samples, which
            holds for skewed values, too, where Welch's t finds too much in small slices.
        q: The same, corrected after Benjamini and Hochberg (1995) over all slices but those a larger one explains.
        rows: (n,) row numbers of the frame.
    """

    facts: Mapping[str, str]
    n: int
    share: float
    mean: float
    rest_mean: float
    difference: float
    interval: tuple[float, float]
    p: float
    q: float
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        slices: Those that differ, by falling |difference| x share.
        looked_at: How many had enough samples.
        explained: How many differed and were left out, since a larger one explains them.
        left_out: How many more differed than were compared with one another.
    """

    slices: tuple[Slice, ...]
    looked_at: int
    explained: int
    left_out: int


@dataclass(frozen=True)
class _Grouping:
    """One column, or two crossed, as a code a row; `names` are the facts behind each code."""

    columns: tuple[str, ...]
    codes: Codes
    names: Sequence[tuple[str, ...]]


def find_slices(frame: pl.DataFrame, value: str, by: Sequence[str], *, min_n: int = MIN_N) -> Found:
    """Groups by the values of one column, or of two, whose mean differs from that of all other samples.

    Args:
        frame: A row a sample.
        value: The metric; samples without a finite value are left out.
        by: The columns: texts and labels by value (of more than 50 the most frequent, the rest together), numbers of
            more than 10 values by quintile, nulls as a value of their own.
        min_n: Samples a slice must have.

    Returns:
        Slices with q <= 5 %. A slice is explained by a larger one of the result where they share half of its samples
        or more and its difference within the larger one is less than half of that from the rest; and by one of more
        weight (|difference| x samples) that shares none, where it differs by less than half from the rest without it.
    """
    x = frame[value].cast(pl.Float64).to_numpy().astype(np.float64)
    kept = np.flatnonzero(np.isfinite(x))
    x = x[kept]
    single = [_grouping(frame[name].gather(kept)) for name in by]
    groupings = [*single, *(_crossed(a, b) for a, b in combinations(single, 2))]
    draws = Draws(x)
    tested = [row for grouping in groupings for row in _tested(grouping, x, min_n, draws)]
    if not tested:
        return Found((), 0, 0, 0)
    q = _levels(tested)
    differing = sorted((row for row in tested if q[row] <= _LEVEL), key=_by_weight)
    compared = differing[:_CANDIDATES]
    chosen = _unexplained(compared, x)
    chosen = _not_by_contrast(chosen, x)
    # One large slice has many others within it; these must not make room for what chance alone brings.
    explained = set(compared) - set(chosen)
    q = _levels([row for row in tested if row not in explained])
    sure = [row for row in chosen if q[row] <= _LEVEL]
    slices = tuple(_slice(row, q[row], len(x), kept) for row in sure)
    return Found(slices, len(tested), len(explained), len(differing) - len(compared))


def _levels(tested: Sequence[_Tested]) -> dict[_Tested, float]:
    """The corrected p-value of each."""
    levels = benjamini_hochberg(np.array([row.p for row in tested]))
    return dict(zip(tested, levels.tolist(), strict=True))


def _by_weight(row: _Tested) -> tuple[float, tuple[str, ...]]:
    return -abs(row.difference) * row.n, row.name


def _grouping(column: pl.Series) -> _Grouping:
    names, codes = _by_value(column) if not _is_continuous(column) else _by_quintile(column)
    return _Grouping((column.name,), codes, [(name,) for name in names])


def _is_continuous(column: pl.Series) -> bool:
    return column.dtype.is_numeric() and column.drop_nulls().n_unique() > _FEW_NUMBERS


def _by_value(column: pl.Series) -> tuple[list[str], Codes]:
    text = column.cast(pl.String) if not column.dtype.is_nested() else column.map_elements(str, pl.String)
    text = text.fill_null(MISSING)
    counts = text.value_counts().sort("count", text.name, descending=[True, False])[text.name].to_list()
    names = sorted(counts[:_MOST_VALUES]) if len(counts) > _MOST_VALUES else sorted(counts)
    place = {name: number for number, name in enumerate(names)}
    codes = text.replace_strict(place, default=len(names), return_dtype=pl.Int64).to_numpy()
    return [*names, *([OTHER] if len(counts) > len(names) else [])], codes


def _by_quintile(column: pl.Series) -> tuple[list[str], Codes]:
    numbers = column.cast(pl.Float64).to_numpy().astype(np.float64)
    known = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[known], _QUINTILES))
    codes = np.searchsorted(edges, numbers, side="left")
    bounds = [f"{edge:.6g}" for edge in edges]
    names = [f"<= {bounds[0]}", *(f"{a} to {b}" for a, b in pairwise(bounds)), f"> {bounds[-1]}"]
    codes[~known] = len(names)
    return [*names, MISSING], codes.astype(np.int64)


def _crossed(a: _Grouping, b: _Grouping) -> _Grouping:
    names = [(*left, *right) for left in a.names for right in b.names]
    return _Grouping((*a.columns, *b.columns), a.codes * len(b.names) + b.codes, names)


@dataclass(frozen=True, eq=False)
class _Tested:
    grouping: _Grouping
    code: int
    n: int
    difference: float
    error: float
    freedom: float
    p: float
    mean: float
    rest_mean: float

    @property
    def name(self) -> tuple[str, ...]:
        return (*self.grouping.columns, *self.grouping.names[self.code])

    def holds(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.grouping.codes[rows] == self.code
        return found


def _tested(grouping: _Grouping, x: Floats, min_n: int, draws: Draws) -> list[_Tested]:
    """Each group of enough samples, with enough others, against these."""
    k = len(grouping.names)
    # About the mean of all, so that squares do not cancel.
    centre = float(x.mean()) if len(x) else 0.0
    y = x - centre
    n = np.bincount(grouping.codes, minlength=k)
    total = np.bincount(grouping.codes, y, minlength=k).astype(np.float64)
    squares = np.bincount(grouping.codes, y * y, minlength=k).astype(np.float64)
    rest_n = len(x) - n
    enough = np.flatnonzero((n >= max(min_n, 2)) & (rest_n >= 2))
    own, others = n[enough].astype(np.float64), rest_n[enough].astype(np.float64)
    rest_total, rest_squares = total.sum() - total[enough], squares.sum() - squares[enough]
    p, difference, error, freedom = welch(own, total[enough], squares[enough], others, rest_total, rest_squares)
    doubtful = np.flatnonzero(p <= _LEVEL)
    p[doubtful] = np.maximum(p[doubtful], draws.two_sided(own[doubtful], (total[enough] / own + centre)[doubtful]))
    return [
        _Tested(
            grouping=grouping,
            code=int(code),
            n=int(n[code]),
            difference=float(difference[i]),
            error=float(error[i]),
            freedom=float(freedom[i]),
            p=float(p[i]),
            mean=float(total[code] / n[code] + centre),
            rest_mean=float(rest_total[i] / others[i] + centre),
        )
        for i, code in enumerate(enough)
    ]


def _unexplained(rows: Sequence[_Tested], x: Floats) -> list[_Tested]:
    """The slices that no larger one of them explains, in the order given."""
    accepted: list[_Tested] = []
    for row in sorted(rows, key=lambda row: (-row.n, len(row.name), row.name)):
        own = np.flatnonzero(row.grouping.codes == row.code)
        if not any(_explains(larger, row, own, x) for larger in accepted):
            accepted.append(row)
    return [row for row in rows if row in accepted]


def _explains(larger: _Tested, row: _Tested, own: NDArray[np.intp], x: Floats) -> bool:
    inside = own[larger.holds(own)]
    others = larger.n - len(inside)
    if 2 * len(inside) < len(own):
        return False
    if not others:  # the same samples under another name
        return True
    held = float(x[inside].sum())
    within = held / len(inside) - (larger.mean * larger.n - held) / others
    return bool(within * np.sign(row.difference) < abs(row.difference) / 2)


def _not_by_contrast(rows: Sequence[_Tested], x: Floats) -> list[_Tested]:
    """The slices that would differ from the rest, too, if those of more weight were not in it."""
    accepted: list[_Tested] = []
    for row in rows:
        own = np.flatnonzero(row.grouping.codes == row.code)
        if not any(_contrasts(heavier, row, own, len(x)) for heavier in accepted):
            accepted.append(row)
    return accepted


def _contrasts(heavier: _Tested, row: _Tested, own: NDArray[np.intp], total: int) -> bool:
    left = total - row.n - heavier.n
    if left <= 0 or heavier.holds(own).any():
        return False
    without = row.mean - (row.rest_mean * (total - row.n) - heavier.mean * heavier.n) / left
    return bool(without * np.sign(row.difference) < abs(row.difference) / 2)


def _slice(row: _Tested, q: float, total: int, kept: NDArray[np.intp]) -> Slice:
    names: Sequence[Any] = row.grouping.names[row.code]
    margin = float(student_975(np.array([row.freedom]))[0]) * row.error
    return Slice(
        facts=dict(zip(row.grouping.columns, names, strict=True)),
        n=row.n,
        share=row.n / total,
        mean=row.mean,
        rest_mean=row.rest_mean,
        difference=row.difference,
        interval=(row.difference - margin, row.difference + margin),
        p=row.p,
        q=q,
        rows=kept[np.flatnonzero(row.grouping.codes == row.code)],
    )
