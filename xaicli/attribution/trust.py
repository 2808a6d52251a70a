"""How far to trust a map: completeness, agreement of two halves, and more steps or draws until both settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xaicli.attribution.gradients import Attributions, Problem
from xaicli.attribution.inputs import Layout
from xaicli.attribution.maps import rank_correlations, strengths
from xaicli.attribution.settings import DOUBLINGS, Settings

Figures = npt.NDArray[np.float64]
Counted = Sequence[npt.NDArray[np.bool_] | None]
_TINY = 1e-6


@dataclass(frozen=True)
class Refined:
    """Attributions, and what they took.

    Attributes:
        found: By method.
        used: Of each unit, the settings that its attributions are of in the end.
        settled: {method: (unit,)}; empty without a tolerance.
    """

    found: dict[str, Attributions]
    used: tuple[Settings, ...]
    settled: dict[str, npt.NDArray[np.bool_]]


def delta(found: Attributions, n_units: int) -> Figures:
    """|sum of attributions - (f(x) - f(baseline))| / |f(x) - f(baseline)|, per unit; NaN without a path."""
    if found.sums is None or found.differences is None:
        return np.full(n_units, np.nan)
    sums, differences = found.sums.double().cpu().numpy(), found.differences.double().cpu().numpy()
    error = np.abs(sums - differences)
    # Both sides zero is complete; a difference that is all rounding has no meaningful relative error above 1.
    scale = np.maximum(np.abs(differences), _TINY)
    with np.errstate(invalid="ignore"):
        relative: Figures = np.where(error == 0, 0.0, error / scale)
    return relative


def agreement(found: Attributions, layouts: list[Layout], n_units: int, counted: Counted) -> Figures:
    """Rank correlation of the strengths of two halves over all inputs, per unit; NaN without halves or contrast.

    What only fills a text up is nothing of either half: alike everywhere, it would make them look alike.

    Args:
        found: A method's attributions.
        layouts: Of each input.
        n_units: How many explanations there are.
        counted: Of each input (unit, place), which places count; None where all do.
    """
    if found.halves is None:
        return np.full(n_units, np.nan)
    one, other = (
        torch.cat([strengths(v, layout).flatten(1) for v, layout in zip(half, layouts, strict=True)], 1)
        for half in found.halves
    )
    places = _places(found.halves[0], layouts, counted)
    if places is None:
        correlations = rank_correlations(one, other)
    else:
        together = zip(one, other, places, strict=True)
        correlations = np.array([float(rank_correlations(a[None, at], b[None, at])[0]) for a, b, at in together])
    undrawn = torch.stack([values.flatten(1).isnan().all(1) for values in found.halves[0]]).all(0)
    correlations[undrawn.cpu().numpy()] = np.nan
    return correlations


def _places(half: list[Tensor], layouts: list[Layout], counted: Counted) -> Tensor | None:
    """(unit, place) of all inputs' planes, which count; None where all do."""
    if all(own is None for own in counted):
        return None
    found = []
    for values, layout, own in zip(half, layouts, counted, strict=True):
        each = strengths(values, layout).flatten(1).bool()
        if own is None:
            found.append(torch.ones_like(each))
        else:
            among = torch.from_numpy(own).to(values.device)
            found.append(among.repeat_interleave(each.shape[1] // among.shape[1], 1))
    return torch.cat(found, 1)


def refined(
    explain: Callable[[Problem, Settings], dict[str, Attributions]],
    problem: Problem,
    settings: Settings,
    layouts: list[Layout],
    counted: Counted,
) -> Refined:
    """All methods; with a tolerance, again with twice the steps or draws for the units that have not settled.

    A unit has settled when, for every method, delta is within the tolerance and the agreement of the halves is within
    it of 1 or of what it was before. What was reached after `DOUBLINGS` is kept, settled or not.
    """
    found = explain(problem, settings)
    used = [settings] * problem.n_units
    if settings.tolerance is None:
        return Refined(found, tuple(used), {})
    everyone = np.arange(problem.n_units)
    settled_before = {m: np.full(problem.n_units, np.nan) for m in found}
    settled = {m: np.ones(problem.n_units, dtype=bool) for m in found}
    groups = [(everyone, settings)]
    for turn in range(DOUBLINGS + 1):
        following: list[tuple[npt.NDArray[np.int64], Settings]] = []
        for units, before in groups:
            rough, noisy = _unsettled(found, units, settled_before, layouts, counted, settings.tolerance)
            for method in found:
                settled[method][units] = ~(rough[method] | noisy[method])
            too_rough, too_noisy = (np.logical_or.reduce(list(of.values())) for of in (rough, noisy))
            for coarse, few in ((True, True), (True, False), (False, True)):
                chosen = units[(too_rough == coarse) & (too_noisy == few)]
                if len(chosen):
                    following.append((chosen, _more(before, coarse=coarse, few=few)))
        groups = following if turn < DOUBLINGS else []
        for units, more in groups:
            index = torch.from_numpy(units).to(problem.inputs[0].device)
            _replace(found, explain(problem.only(index), more), index)
            for unit in units:
                used[unit] = more
    return Refined(found, tuple(used), settled)


def _unsettled(
    found: dict[str, Attributions],
    units: npt.NDArray[np.int64],
    before: dict[str, Figures],
    layouts: list[Layout],
    counted: Counted,
    tolerance: float,
) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, npt.NDArray[np.bool_]]]:
    """Which units need more steps by the figures of each method, and which more draws."""
    rough: dict[str, npt.NDArray[np.bool_]] = {}
    noisy: dict[str, npt.NDArray[np.bool_]] = {}
    for method, values in found.items():
        n_units = len(values.total[0])
        rough[method] = delta(values, n_units)[units] > tolerance
        now = agreement(values, layouts, n_units, counted)[units]
        noisy[method] = (now < 1 - tolerance) & ~(np.abs(now - before[method][units]) <= tolerance)
        before[method][units] = now
    return rough, noisy


def _more(settings: Settings, *, coarse: bool, few: bool) -> Settings:
    steps, draws = 2 if coarse else 1, 2 if few else 1
    return replace(
        settings,
        steps=settings.steps * steps,
        smint_steps=settings.smint_steps * steps,
        draws=settings.draws * draws,
        smint_draws=settings.smint_draws * draws,
    )


def _replace(found: dict[str, Attributions], newer: dict[str, Attributions], units: Tensor) -> None:
    for method, values in newer.items():
        if values.halves is not None and found[method].halves is None:  # of the one draw before there are no two
            one, other = ([torch.full_like(total, torch.nan) for total in found[method].total] for _ in range(2))
            found[method] = replace(found[method], halves=(one, other))
        old = found[method]
        pairs = list(zip(old.total, values.total, strict=True))
        if old.halves is not None and values.halves is not None:
            pairs += [p for a, b in zip(old.halves, values.halves, strict=True) for p in zip(a, b, strict=True)]
        for into, value in pairs:
            into[units] = value
        for kept, new in ((old.sums, values.sums), (old.differences, values.differences)):
            if kept is not None and new is not None:
                kept[units] = new
