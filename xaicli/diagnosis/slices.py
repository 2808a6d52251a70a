"""Where the data is worst: groups of samples that share facts and differ from the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import isclose, prod
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from xaicli.diagnosis.chance import Draws, benjamini_hochberg, student_975, welch
from xaicli.queries.fifths import Fifths, are_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.uint8]

MIN_N = 30
_LEVEL = 0.05
MOST_VALUES = 50
"""Where a column has more values, the most frequent are taken, and the rest together."""
_CANDIDATES = 200
_ROUNDS = 8
"""So often those are looked at again that something explained which is not told of."""
_CELLS = 1 << 18
"""Columns are counted together while their values, multiplied, are no more: so many sums stay near the core."""
"""So many values tell of most columns whether they have few."""
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
    others: Mapping[str, int] = field(default_factory=dict)
    """How many samples have one of the rarer values, which are taken together, of each column with very many."""
    names: tuple[str, ...] = ()
    """The columns that have a value of its own for every sample, as names and paths are: they group nothing."""


@dataclass(frozen=True)
class Coded:
    """One column as a code a row; `names` are the values behind the codes."""

    name: str
    codes: Codes
    names: Sequence[str]

    @cached_property
    def _by_code(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        order = np.argsort(self.codes, kind="stable").astype(np.int32)
        return order, np.append(0, np.cumsum(np.bincount(self.codes, minlength=len(self.names))))

    @cached_property
    def is_name(self) -> bool:
        """Whether there are very many values, and each but those that are missing is of one row."""
        counts = np.bincount(self.codes, minlength=len(self.names))
        return OTHER in self.names and all(
            n <= 1 for name, n in zip(self.names, counts, strict=True) if name not in (OTHER, MISSING)
        )

    def rows(self, code: int) -> NDArray[np.int32]:
        """The rows that have a value, in order."""
        order, ends = self._by_code
        return order[ends[code] : ends[code + 1]]


@dataclass(frozen=True)
class _Sums:
    """How many rows each value of a column, or each pair of two, has, and the sums of their values and squares."""

    columns: tuple[Coded, ...]
    n: NDArray[np.int64]
    total: Floats
    squares: Floats


def find_slices(
    frame: pl.DataFrame, value: str, by: Sequence[str], *, min_n: int = MIN_N, high_is_good: bool = False
) -> Found:
    """Groups by the values of one column, or of two, whose mean differs from that of all other samples.

    Args:
        frame: A row a sample.
        value: The metric; samples without a finite value are left out.
        by: The columns: texts and labels by value (of more than 50 the most frequent, the rest together), numbers and
            dates of more than 10 values by quintile, nulls as a value of their own.
        min_n: Samples a slice must have.
        high_is_good: Whether the low end is the worse one.

    Returns:
        Slices with q <= 5 %. A slice is explained by a larger one of the result where they share half of its samples
        or more and its difference within the larger one is less than half of that from the rest, outside of it too
        where that one differs the other way; and a better one by a worse one of more weight (|difference| x samples)
        that shares none, where it differs by less than half from the rest without it. None that is worse is
        explained by one that is better: it would be told nowhere.
    """
    x = frame[value].cast(pl.Float64).to_numpy().astype(np.float64)
    kept = np.flatnonzero(np.isfinite(x))
    x = x[kept]
    if not len(x):
        return Found((), 0, 0, 0)
    rows = frame if len(kept) == frame.height else frame[kept]
    draws = Draws(x)
    columns = [coded(rows[name]) for name in by]
    names = tuple(one.name for one in columns if one.is_name)
    columns = [one for one in columns if not one.is_name]
    others = {one.name: int((one.codes == one.names.index(OTHER)).sum()) for one in columns if OTHER in one.names}
    tested = _tested(list(_summed(columns, x)), x, min_n, draws, -1 if high_is_good else 1)
    if not tested:
        return Found((), 0, 0, 0, others, names)
    q = _levels(tested)
    differing = sorted((row for row in tested if q[row] <= _LEVEL), key=_by_weight)
    twins = _twins(differing[:_CANDIDATES])
    compared = [row for row in differing[:_CANDIDATES] if row not in twins]
    tested = [row for row in tested if row not in twins]
    why: dict[_Tested, _Tested] = {}
    """What explains those that are left out."""
    sure: list[_Tested] = []
    left = compared
    for _ in range(_ROUNDS):
        why |= _explained(left, x)
        why |= _by_contrast([row for row in left if row not in why], x)
        # One large slice has many others within it; these must not make room for what chance alone brings.
        q = _levels([row for row in tested if row not in why])
        sure = [row for row in left if row not in why and q[row] <= _LEVEL]
        # What is not told of, nor itself explained, explains nothing: what it explained is looked at again.
        again = {row for row, other in why.items() if other not in why and other not in sure}
        if not again:
            break
        why = {row: other for row, other in why.items() if row not in again}
        left = [row for row in compared if row in again or row in sure]
    else:
        # What explains one another in circles is told: nothing that is told explains it.
        q = _levels([row for row in tested if row not in why])
        sure = [row for row in left if q[row] <= _LEVEL]
    slices = tuple(_slice(row, q[row], x, kept) for row in sure)
    looked_at, explained = len(tested) + len(twins), len(why) + len(twins)
    return Found(slices, looked_at, explained, len(differing) - len(compared) - len(twins), others, names)


def _levels(tested: Sequence[_Tested]) -> dict[_Tested, float]:
    """The corrected p-value of each."""
    levels = benjamini_hochberg(np.array([row.p for row in tested]))
    return dict(zip(tested, levels.tolist(), strict=True))


def _by_weight(row: _Tested) -> tuple[float, tuple[str, ...]]:
    return -abs(row.difference) * row.n, row.name


def coded(column: pl.Series) -> Coded:
    """The values of a column: many numbers and dates by quintile, of many texts the most frequent apart."""
    names, codes = by_quintile(column) if are_many(column) else _by_value(column)
    return Coded(column.name, codes, names)


def _by_value(column: pl.Series) -> tuple[list[str], Codes]:
    if column.dtype.is_nested():
        column = pl.Series([None if value is None else str(value) for value in column.to_list()], dtype=pl.String)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    texts = column if column.dtype.is_integer() or column.dtype == pl.Enum else column.cast(pl.String)
    values, counts = _most_frequent(texts.drop_nulls().alias("value"))
    named = dict(zip(values.cast(pl.String).to_list(), counts, strict=True))
    if missing := texts.null_count():
        named[MISSING] = named.get(MISSING, 0) + missing
    frequent = sorted(named, key=lambda name: (-named[name], name))[:MOST_VALUES]
    names = sorted(frequent)
    code = np.full(len(values) + 1, len(names), np.uint8)
    for i, value in enumerate([*values.cast(pl.String).to_list(), MISSING]):
        if value in names:
            code[i] = names.index(value)
    places = texts.replace_strict(values, np.arange(len(values)), default=-1, return_dtype=pl.Int16)
    codes = np.append(code, np.uint8(len(names)))[places.to_numpy()]
    codes[texts.is_null().to_numpy()] = code[len(values)]
    return [*names, *([OTHER] if (codes == len(names)).any() else [])], codes


def _most_frequent(values: pl.Series) -> tuple[pl.Series, list[int]]:
    """The values found most often and how often each is; of equally many the first by their text."""
    found = values.value_counts(name="n")
    if found.height > MOST_VALUES:
        least = np.partition(found["n"].to_numpy(), -MOST_VALUES)[-MOST_VALUES]
        more, just = found.filter(pl.col("n") > least), found.filter(pl.col("n") == least)
        found = pl.concat([more, just.bottom_k(MOST_VALUES - more.height, by=pl.col("value").cast(pl.String))])
    return found["value"], found["n"].to_list()


def by_quintile(column: pl.Series) -> tuple[list[str], Codes]:
    """What the fifths of numbers or dates are called, and the one of each row; missing values are one more."""
    names, codes = Fifths.of(column).parted(column)
    return [*names, MISSING], codes


def _summed(columns: Sequence[Coded], x: Floats) -> Iterator[_Sums]:
    """The sums of each column, and of each pair: several columns are counted at once, and pairs read off.

    About the mean of all, so that squares do not cancel.
    """
    y = x - float(x.mean()) if len(x) else x
    squared = y * y
    singles: list[tuple[int, ...]] = [(i,) for i in range(len(columns))]
    pairs: list[tuple[int, ...]] = list(combinations(range(len(columns)), 2))
    sizes = [len(column.names) for column in columns]
    known: dict[tuple[int, ...], _Sums] = {}
    left = set(pairs or singles)
    while left:
        cube = _together(min(left), sizes, left)
        shape = tuple(sizes[i] for i in cube)
        codes = np.zeros(len(x), np.intp)
        for i in cube:
            codes *= sizes[i]
            codes += columns[i].codes
        cells = [np.bincount(codes, weights, prod(shape)).reshape(shape) for weights in (None, y, squared)]
        for group in [*((i,) for i in cube), *combinations(cube, 2)]:
            if group in known:
                continue
            others = tuple(place for place, i in enumerate(cube) if i not in group)
            n, total, squares = (part.sum(axis=others).ravel() for part in cells)
            known[group] = _Sums(tuple(columns[i] for i in group), n, total, squares)
            left.discard(group)
    yield from (known[group] for group in (*singles, *pairs))


def _together(first: tuple[int, ...], sizes: Sequence[int], left: set[tuple[int, ...]]) -> list[int]:
    """The columns to count at once with some: those that bring most pairs, while the cells are few."""
    chosen = list(first)
    while True:
        room = _CELLS // prod(sizes[i] for i in chosen)
        news = {
            i: sum((min(i, j), max(i, j)) in left for j in chosen)
            for i in range(len(sizes))
            if i not in chosen and sizes[i] <= room
        }
        best = max(news, key=lambda i: (news[i], -sizes[i]), default=None)
        if best is None or news[best] < 2:
            return sorted(chosen)
        chosen.append(best)


@dataclass(frozen=True, eq=False)
class _Tested:
    columns: tuple[Coded, ...]
    codes: tuple[int, ...]
    n: int
    difference: float
    p: float
    mean: float
    rest_mean: float
    is_worse: bool

    def may_explain(self, other: _Tested) -> bool:
        return self.is_worse or not other.is_worse

    @property
    def name(self) -> tuple[str, ...]:
        return (*(column.name for column in self.columns), *self.facts.values())

    @property
    def plainness(self) -> tuple[int, bool, tuple[str, ...]]:
        """The lower, the sooner it stands for others that hold the same samples."""
        return len(self.columns), not {MISSING, OTHER}.isdisjoint(self.facts.values()), self.name

    @cached_property
    def facts(self) -> dict[str, str]:
        return {column.name: column.names[code] for column, code in zip(self.columns, self.codes, strict=True)}

    def rows(self) -> NDArray[np.int32]:
        """Which rows it holds."""
        held = [column.rows(code) for column, code in zip(self.columns, self.codes, strict=True)]
        rarest = min(held, key=len)
        return rarest[self.holds(rarest)] if len(held) > 1 else rarest

    def holds(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.columns[0].codes[rows] == self.codes[0]
        for column, code in zip(self.columns[1:], self.codes[1:], strict=True):
            found &= column.codes[rows] == code
        return found


def _tested(every: Sequence[_Sums], x: Floats, min_n: int, draws: Draws, sign: int) -> list[_Tested]:
    """Each group of enough samples, with enough others, against these: all at once, since there are thousands.

    Args:
        sign: Which way what is worse differs.
    """
    centre = float(x.mean()) if len(x) else 0.0
    enough = [np.flatnonzero((sums.n >= max(min_n, 2)) & (len(x) - sums.n >= 2)) for sums in every]
    own, total, squares = (
        np.concatenate([np.zeros(0), *(getattr(sums, name)[kept] for sums, kept in zip(every, enough, strict=True))])
        for name in ("n", "total", "squares")
    )
    # Those of a column, or of two, are all samples together.
    of_all = [
        np.repeat([float(getattr(sums, name).sum()) for sums in every], [len(kept) for kept in enough])
        for name in ("total", "squares")
    ]
    others, rest_total, rest_squares = len(x) - own, of_all[0] - total, of_all[1] - squares
    p, difference, _, _ = welch(own, total, squares, others, rest_total, rest_squares)
    doubtful = np.flatnonzero(p <= _LEVEL)
    p[doubtful] = np.maximum(p[doubtful], draws.two_sided(own[doubtful], (total / own + centre)[doubtful]))
    groups = [
        (sums.columns, codes)
        for sums, kept in zip(every, enough, strict=True)
        for codes in np.transpose(np.unravel_index(kept, [len(column.names) for column in sums.columns])).tolist()
    ]
    means = (total / own + centre, rest_total / others + centre)
    found = [part.tolist() for part in (own, difference, p, *means, sign * difference > 0)]
    return [
        _Tested(columns, tuple(codes), int(n), *rest) for (columns, codes), n, *rest in zip(groups, *found, strict=True)
    ]


def _twins(rows: Sequence[_Tested]) -> set[_Tested]:
    """The slices that hold just the samples of a plainer one: counted again, they would differ by rounding alone."""
    found: set[_Tested] = set()
    plainest: dict[int, list[_Tested]] = {}
    for row in sorted(rows, key=lambda row: row.plainness):
        known = plainest.setdefault(row.n, [])
        near = [one for one in known if isclose(one.mean, row.mean, rel_tol=1e-6, abs_tol=1e-9)]
        own = row.rows() if near else None
        if own is not None and any(one.holds(own).all() for one in near):
            found.add(row)
        else:
            known.append(row)
    return found


def _explained(rows: Sequence[_Tested], x: Floats) -> dict[_Tested, _Tested]:
    """The slices that a larger one of them explains, with that one, which none explains."""
    accepted: list[_Tested] = []
    found: dict[_Tested, _Tested] = {}
    for row in sorted(rows, key=lambda row: (-row.n, row.plainness)):
        facts, may = row.facts.items(), [larger for larger in accepted if larger.may_explain(row)]
        around = [larger for larger in may if larger.facts.items() <= facts]
        # Of one within another, all is known from its sums; only where they overlap are the samples gone through.
        by = next((larger for larger in around if _explains(larger, row, row.n, row.mean * row.n, len(x))), None)
        if by is None:
            own = row.rows()
            beside = ((larger, own[larger.holds(own)]) for larger in may if larger not in around)
            sums = ((larger, len(shared), float(x[shared].sum())) for larger, shared in beside)
            by = next((larger for larger, shared, held in sums if _explains(larger, row, shared, held, len(x))), None)
        if by is None:
            accepted.append(row)
        else:
            found[row] = by
    return found


def _explains(larger: _Tested, row: _Tested, shared: int, held: float, total: int) -> bool:
    """Whether a slice follows from a larger one, of which it has some samples with a sum of values, among all."""
    if 2 * shared < row.n:
        return False
    if larger.n == shared:  # the same samples under another name
        return True
    within = held / shared - (larger.mean * larger.n - held) / (larger.n - shared)
    if within * np.sign(row.difference) >= abs(row.difference) / 2:
        return False
    beyond = row.n - shared
    left = total - larger.n - beyond
    if larger.difference * row.difference > 0 or not beyond or not left:
        return True
    # One at the other end explains no more than that its own samples are alike: outside of it they may not be.
    outside = row.mean * row.n - held
    without = outside / beyond - (larger.rest_mean * (total - larger.n) - outside) / left
    return bool(without * np.sign(row.difference) < abs(row.difference) / 2)


def _by_contrast(rows: Sequence[_Tested], x: Floats) -> dict[_Tested, _Tested]:
    """The slices that would not differ from the rest if one of more weight were not in it, with that one."""
    accepted: list[_Tested] = []
    found: dict[_Tested, _Tested] = {}
    for row in rows:
        own = row.rows()
        by = next((heavier for heavier in accepted if _contrasts(heavier, row, own, len(x))), None)
        if by is None:
            accepted.append(row)
        else:
            found[row] = by
    return found


def _contrasts(heavier: _Tested, row: _Tested, own: NDArray[np.int32], total: int) -> bool:
    left = total - row.n - heavier.n
    if left <= 0 or not heavier.may_explain(row) or heavier.holds(own).any():
        return False
    without = row.mean - (row.rest_mean * (total - row.n) - heavier.mean * heavier.n) / left
    return bool(without * np.sign(row.difference) < abs(row.difference) / 2)


def _slice(row: _Tested, q: float, x: Floats, kept: NDArray[np.intp]) -> Slice:
    """What is told of a slice, from the values themselves: sums of others, taken off that of all, leave no exact 0."""
    rows = row.rows()
    is_other = np.ones(len(x), bool)
    is_other[rows] = False
    own, others = x[rows], x[is_other]
    mean, rest_mean = float(own.mean()), float(others.mean())
    spreads = [np.array([float(((part - middle) ** 2).sum())]) for part, middle in ((own, mean), (others, rest_mean))]
    sizes, none = [np.array([float(len(part))]) for part in (own, others)], np.zeros(1)
    _, _, error, freedom = welch(sizes[0], none, spreads[0], sizes[1], none, spreads[1])
    margin = float(student_975(freedom)[0] * error[0])
    difference = mean - rest_mean
    return Slice(
        facts=row.facts,
        n=row.n,
        share=row.n / len(x),
        mean=mean,
        rest_mean=rest_mean,
        difference=difference,
        interval=(difference - margin, difference + margin),
        p=row.p,
        q=q,
        rows=kept[rows],
    )


def spelled(column: pl.Series) -> pl.Series:
    """The name of each row's group: values as text, the rare of very many together, numbers by quintile."""
    found = coded(column)
    return pl.Series(column.name, np.array(found.names, dtype=object)[found.codes], pl.String)
