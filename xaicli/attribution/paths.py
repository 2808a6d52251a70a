"""Gradient, smoothgrad, integrated and smint by this package's convention, as one stream of rows.

Every pass of every method is flattened into one plan: the points evaluated, and what becomes of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xaicli.attribution.gradients import Attributions, Problem, draws_of, run
from xaicli.attribution.settings import GRADIENT, INTEGRATED, SMINT, SMOOTHGRAD, Settings

_ROWS = 32
"""Ends of paths that are asked for together: one by one, those of a single sample are each padded to two rows."""
Weights = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""The places of a path's points and what each counts."""


class Kind(IntEnum):
    """What becomes of a term of the stream."""

    CLEAN = 0
    SMOOTH = 1
    INTEGRATED = 2
    SMINT = 3


@dataclass(frozen=True)
class Stream:
    """Every row of every method, unit after unit; the rows of a term are consecutive.

    Attributes:
        unit, draw, term: (row,) int64; draw 0 is the clean input.
        alpha: (row,) float32, the place on the path; 1 for a gradient at the point itself.
        weight: (row,) float32, what the row counts in its term; those of a path sum to one.
        term_kind, term_half, term_unit, term_draw: (term,).
        term_last: (term,), the row after its last one.
    """

    unit: npt.NDArray[np.int64]
    draw: npt.NDArray[np.int64]
    alpha: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    term: npt.NDArray[np.int64]
    term_kind: npt.NDArray[np.int64]
    term_half: npt.NDArray[np.int64]
    term_unit: npt.NDArray[np.int64]
    term_draw: npt.NDArray[np.int64]
    term_last: npt.NDArray[np.int64]

    @property
    def has_paths(self) -> bool:
        """Whether any term is a path of several points, each of which counts less than one."""
        return bool((self.weight != 1).any())


def midpoints(steps: int) -> Weights:
    """One point in the middle of each of `steps` equal intervals."""
    return ((np.arange(steps) + 0.5) / steps).astype(np.float32), np.full(steps, 1 / steps, dtype=np.float32)


def gauss(steps: int) -> Weights:
    """The points of Gauss and Legendre: with two steps a path costs the least for what it is worth."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return ((places + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)


def plan(settings: Settings, n_units: int) -> Stream:
    """Flatten every pass of every method into one stream."""
    terms: list[tuple[int, int, int, Weights]] = []
    point = np.ones(1, dtype=np.float32), np.ones(1, dtype=np.float32)
    rule = gauss if settings.economical else midpoints
    wants = settings.methods.__contains__
    if wants(GRADIENT) or wants(SMOOTHGRAD):
        terms.append((Kind.CLEAN, 0, 0, point))
    if wants(SMOOTHGRAD):
        terms += [(Kind.SMOOTH, settings.half(draw), draw, point) for draw in range(1, settings.draws)]
    if wants(INTEGRATED):
        terms.append((Kind.INTEGRATED, 0, 0, rule(settings.steps)))
    if wants(SMINT):
        first = int(settings.smint_shares_the_clean_path)
        paths = [rule(settings.steps_of(draw)) for draw in range(settings.smint_draws)]
        terms += [(Kind.SMINT, settings.half(draw), draw, paths[draw]) for draw in range(first, settings.smint_draws)]
    return _flatten(terms, n_units)


def _flatten(terms: list[tuple[int, int, int, Weights]], n_units: int) -> Stream:
    lengths = np.array([len(places) for *_, (places, _) in terms])
    kind, half, draw = (np.array(column, dtype=np.int64) for column in zip(*(t[:3] for t in terms), strict=True))
    n_terms, rows = len(terms), int(lengths.sum())
    term = np.repeat(np.arange(n_terms), lengths)
    return Stream(
        unit=np.repeat(np.arange(n_units), rows),
        draw=np.tile(draw[term], n_units),
        alpha=np.tile(np.concatenate([places for *_, (places, _) in terms]), n_units),
        weight=np.tile(np.concatenate([weights for *_, (_, weights) in terms]), n_units),
        term=(np.arange(n_units)[:, None] * n_terms + term).ravel(),
        term_kind=np.tile(kind, n_units),
        term_half=np.tile(half, n_units),
        term_unit=np.repeat(np.arange(n_units), n_terms),
        term_draw=np.tile(draw, n_units),
        term_last=(np.arange(n_units)[:, None] * rows + np.cumsum(lengths)).ravel(),
    )


def edges(terms: npt.NDArray[np.int64]) -> list[int]:
    """Where the rows of each term begin, and the end."""
    return [0, *(np.flatnonzero(np.diff(terms)) + 1).tolist(), len(terms)]


class Accumulator:
    """Sums of gradients per term, and of finished terms per (kind, half, unit)."""

    def __init__(
        self, problem: Problem, stream: Stream, noise: list[Tensor], settings: Settings, *, guard: bool
    ) -> None:
        self.problem, self.stream, self.noise, self.settings, self.guard = problem, stream, noise, settings, guard
        self.open: list[Tensor] | None = None
        self.stem = problem.stem if stream.has_paths else None
        self._kept: tuple[int, Tensor | None] = (-1, None)
        self._room: Tensor | None = None
        if self.stem is not None:
            base = problem.baselines[0]
            self._hidden_base = self.stem.forward(base.expand(len(base), *problem.inputs[0].shape[1:]).contiguous())
        device = problem.inputs[0].device
        # All of the plan at once: a copy a chunk and column would have the host wait for the device each time.
        self._on_device = {
            name: torch.from_numpy(getattr(stream, name)).to(device)
            for name in ("unit", "alpha", "draw", "weight", "term_unit", "term_draw")
        }
        present = sorted(set(zip(stream.term_kind.tolist(), stream.term_half.tolist(), strict=True)))
        self.sums = {key: [torch.zeros_like(x, dtype=_wide(x)) for x in problem.inputs] for key in present}
        self.path_sums = {kind: torch.zeros(problem.n_units, device=device, dtype=torch.float64) for kind in Kind}

    def make(self, first: int, last: int) -> tuple[list[Tensor], Tensor]:
        """The points of some rows, behind the stem where there is one."""
        units = self._on_device["unit"][first:last]
        alpha = self._on_device["alpha"][first:last]
        if self.stem is not None:
            return [self._behind_stem(first, last, alpha)], units
        draws = self._on_device["draw"][first:last]
        ends = self._ends(units, draws)
        bases = self.problem.pick(self.problem.baselines, units)
        return [_between(b, z, alpha) for b, z in zip(bases, ends, strict=True)], units

    def _ends(self, units: Tensor, draws: Tensor) -> list[Tensor]:
        sigmas = self.problem.pick(self.problem.sigma, units)
        together = zip(self.problem.inputs, sigmas, self.noise, strict=True)
        return [torch.addcmul(x[units], sigma, noise[draws]) for x, sigma, noise in together]

    def _behind_stem(self, first: int, last: int, alpha: Tensor) -> Tensor:
        """The stem once for each term among the rows; the points of a path lie between its two ends."""
        assert self.stem is not None
        term = self.stream.term[first:last]
        low, high = int(term[0]), int(term[-1])
        known, kept = self._kept
        new = np.arange(low + (known == low), high + 1)
        hidden = [kept] if known == low and kept is not None else []
        if len(new):
            begin, end = int(new[0]), int(new[-1]) + 1
            chosen = [self._on_device[name][begin:end] for name in ("term_unit", "term_draw")]
            hidden.append(self.stem.forward(self._ends(*chosen)[0]))
        ends = torch.cat(hidden) if len(hidden) > 1 else hidden[0]
        self._kept = (high, ends[-1:])
        points = self._room_for(last - first, ends)
        shaped = alpha.to(ends.dtype).view(-1, *[1] * (ends.ndim - 1))
        for a, b in pairwise(edges(term)):
            unit, end = int(self.stream.unit[first + a]), int(term[a]) - low
            base = self._hidden_base[unit if len(self._hidden_base) > 1 else 0]
            torch.lerp(base.expand_as(points[a:b]), ends[end].expand_as(points[a:b]), shaped[a:b], out=points[a:b])
        return points

    def _room_for(self, rows: int, like: Tensor) -> Tensor:
        """Room for points behind the stem, the same for every chunk: fresh pages cost more than what is written."""
        if self._room is None or len(self._room) < rows:
            nhwc = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if nhwc else torch.contiguous_format
            shape = (rows, *like.shape[1:])
            self._room = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
        return self._room[:rows].detach()

    def take(self, first: int, last: int, gradients: list[Tensor]) -> None:
        """Add the gradients of some rows; terms that end within them are finished."""
        terms = self.stream.term[first:last]
        ends = edges(terms)
        weights = self._on_device["weight"][first:last]
        sums = []
        for i, g in enumerate(gradients):
            g = torch.nan_to_num(g, 0.0, 0.0, 0.0) if self.guard else g
            single = not self.stream.has_paths
            total = g if single else torch.stack([_summed(g[a:b], weights[a:b]) for a, b in pairwise(ends)])
            if self.open is not None:
                total[0] += self.open[i]
            sums.append(total)
        low, high = int(terms[0]), int(terms[-1])
        ended = int(self.stream.term_last[high] <= last)
        self.open = None if ended else [total[-1] for total in sums]
        finished = np.arange(low, high + ended)
        if len(finished):
            self._finish(finished, [total[: len(finished)] for total in sums])

    def _finish(self, terms: npt.NDArray[np.int64], sums: list[Tensor]) -> None:
        kinds, halves = self.stream.term_kind[terms], self.stream.term_half[terms]
        if self.stem is not None:
            units = self._on_device["term_unit"][int(terms[0]) : int(terms[-1]) + 1]
            sums = [self.stem.transposed(sums[0], self.problem.inputs[0][units])]
        for kind, half in sorted(set(zip(kinds.tolist(), halves.tolist(), strict=True))):
            rows = np.flatnonzero((kinds == kind) & (halves == half))
            index = torch.from_numpy(rows).to(sums[0].device, non_blocking=True)
            chosen = terms[rows]
            units = self._on_device["term_unit"][int(terms[0]) : int(terms[-1]) + 1][index]
            values = [total[index] for total in sums]
            if kind in (Kind.INTEGRATED, Kind.SMINT):
                draws = self._on_device["term_draw"][int(terms[0]) : int(terms[-1]) + 1][index]
                values = self._attributions(values, draws, units)
                inner = torch.stack([v.reshape(len(v), -1).double().sum(1) for v in values]).sum(0)
                add_rows(self.path_sums[Kind(kind)], self.stream.term_unit[chosen], units, inner)
            if kind == Kind.SMINT and self.settings.economical:
                values = self._expected([total[index] for total in sums], units)
            elif kind in (Kind.SMOOTH, Kind.SMINT) and not self.settings.signed:
                values = [value.square() for value in values]
            for into, value in zip(self.sums[kind, half], values, strict=True):
                add_rows(into, self.stream.term_unit[chosen], units, value)

    def _attributions(self, sums: list[Tensor], draws: Tensor, units: Tensor) -> list[Tensor]:
        """Mean gradient along each path times that input's own way from the baseline."""
        ends = self._ends(units, draws)
        return [
            total * (end - base)
            for total, end, base in zip(sums, ends, self.problem.pick(self.problem.baselines, units), strict=True)
        ]

    def _expected(self, slopes: list[Tensor], units: Tensor) -> list[Tensor]:
        """A term of smint with each value's own way from the baseline taken at its mean over all draws.

        A value's noise hardly moves the gradient of its whole path, but its way, squared, by half of itself: without
        that part of the variance few draws do what many do with it.
        """
        found = []
        together = (self.problem.inputs, self.problem.baselines, self.problem.sigma)
        for slope, x, base, sigma in zip(slopes, *together, strict=True):
            (base,), (sigma,) = self.problem.pick([base], units), self.problem.pick([sigma], units)
            way = x[units] - base
            signed = self.settings.signed
            found.append(slope * way if signed else slope.square() * (way.square() + sigma.square()))
        return found


def add_rows(into: Tensor, units: npt.NDArray[np.int64], on_device: Tensor, values: Tensor) -> None:
    """Add each row of values to that of its unit: in one order, so that equal calls give equal bits.

    Args:
        into: (unit, ...), changed.
        units: (row,).
        on_device: The same on the device of `into`.
        values: (row, ...).
    """
    if into.device.type == "cpu":
        into.index_add_(0, on_device, values)
        return
    in_order(into, units, values)


def in_order(into: Tensor, units: npt.NDArray[np.int64], values: Tensor) -> None:
    """`add_rows` without `index_add_`, which a GPU does by atomic additions in any order."""
    for first, last in pairwise([0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]):
        # Of one unit side by side: a sum along an axis has one order.
        into[int(units[first])] += values[first:last].sum(0)


def _summed(rows: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over rows, as a matrix-vector product: faster than a reduction along the outermost axis."""
    nhwc = rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last)
    ordered = rows.permute(0, 2, 3, 1) if nhwc else rows
    total = (weights.to(rows.dtype)[None] @ ordered.reshape(len(rows), -1)).view(ordered.shape[1:])
    return total.permute(2, 0, 1) if nhwc else total


def _between(base: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """base + alpha (end - base), a row each."""
    return torch.lerp(base.expand_as(end), end, alpha.to(end.dtype).view(-1, *[1] * (end.ndim - 1)))


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def explain(problem: Problem, settings: Settings) -> dict[str, Attributions]:
    """All of the stream's methods for all units.

    Returns:
        {method: attributions}, for those of gradient, smoothgrad, integrated, smint that were asked for.
    """
    stream = plan(settings, problem.n_units)
    deepest = int(stream.term_draw.max(initial=0))
    noise = draws_of(problem.inputs, deepest, seed=settings.seed, in_pairs=settings.economical)
    for guard in (False, True):
        accumulator = Accumulator(problem, stream, noise, settings, guard=guard)
        gradients = problem.gradients if accumulator.stem is None else problem.gradients_behind_stem
        assert gradients is not None
        run(gradients, len(stream.unit), accumulator.make, accumulator.take, problem.progress)
        # An inf or NaN in one gradient spoils a sum: only then is the work done again with such values left out.
        if all(bool(torch.isfinite(t).all()) for ts in accumulator.sums.values() for t in ts):
            break
    ends = _path_differences(problem, settings, noise)
    return {m: _assemble(m, accumulator, settings, ends) for m in settings.methods if m in _ASSEMBLED}


_ASSEMBLED = (GRADIENT, SMOOTHGRAD, INTEGRATED, SMINT)


def _path_differences(problem: Problem, settings: Settings, noise: list[Tensor]) -> dict[str, Tensor]:
    """f(end) - f(baseline) of integrated's path and, as a mean over its draws, of smint's."""
    methods = [m for m in (INTEGRATED, SMINT) if m in settings.methods]
    if not methods:
        return {}
    start = _at_baseline(problem)
    every = torch.arange(problem.n_units, device=problem.inputs[0].device)
    ends = [problem.clean]
    draws = range(1, settings.smint_draws if SMINT in methods else 1)
    together = max(1, _ROWS // problem.n_units)
    for first in range(0, len(draws), together):
        some = draws[first : first + together]
        points = [
            torch.cat([torch.addcmul(x, s, e[draw]) for draw in some])
            for x, s, e in zip(problem.inputs, problem.sigma, noise, strict=True)
        ]
        ends += problem.forward(points, every.repeat(len(some))).view(len(some), -1).unbind()
    return {m: (torch.stack(ends).mean(0) if m == SMINT else problem.clean) - start for m in methods}


def _at_baseline(problem: Problem) -> Tensor:
    """f(baseline) of every unit."""
    every = torch.arange(problem.n_units, device=problem.inputs[0].device)
    points = [b.expand_as(x) for b, x in zip(problem.baselines, problem.inputs, strict=True)]
    return problem.forward(points, every)


def _assemble(method: str, done: Accumulator, settings: Settings, ends: dict[str, Tensor]) -> Attributions:
    sums = done.sums

    def half(kind: Kind, which: int) -> list[Tensor]:
        return sums.get((kind, which)) or [torch.zeros_like(x) for x in done.problem.inputs]

    def square(values: list[Tensor]) -> list[Tensor]:
        return values if settings.signed else [v.square() for v in values]

    if method == GRADIENT:
        return Attributions(half(Kind.CLEAN, 0))
    if method == INTEGRATED:
        # The points of one path are no random draws: half of them is another rule, and says nothing of this one.
        total, path_sums = half(Kind.INTEGRATED, 0), done.path_sums[Kind.INTEGRATED]
        return Attributions(total, sums=path_sums, differences=ends[INTEGRATED])
    if method == SMOOTHGRAD:
        n, a, b = settings.draws, _added(half(Kind.SMOOTH, 0), square(half(Kind.CLEAN, 0))), half(Kind.SMOOTH, 1)
        return _mean_of_halves(a, b, settings.halves(n))
    n, a, b = settings.smint_draws, half(Kind.SMINT, 0), half(Kind.SMINT, 1)
    path_sums = done.path_sums[Kind.SMINT]
    if settings.smint_shares_the_clean_path:
        a = _added(a, square(half(Kind.INTEGRATED, 0)))
        path_sums = path_sums + done.path_sums[Kind.INTEGRATED]
    mean = _mean_of_halves(a, b, settings.halves(n))
    return Attributions(mean.total, mean.halves, path_sums / n, ends[SMINT])


def _mean_of_halves(a: list[Tensor], b: list[Tensor], counts: tuple[int, int]) -> Attributions:
    total = [v / sum(counts) for v in _added(a, b)]
    if not all(counts):
        return Attributions(total)
    return Attributions(total, ([v / counts[0] for v in a], [v / counts[1] for v in b]))


def _added(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [x + y for x, y in zip(a, b, strict=True)]
