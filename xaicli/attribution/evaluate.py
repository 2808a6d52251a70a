"""`--evaluate`: do the maps say where the evidence is? Insertion, deletion, infidelity, sensitivity.

Insertion and deletion: Petsiuk et al. 2018; infidelity and max-sensitivity: Yeh et al. 2019. The areas mean nothing
without those of a random map, which stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xaicli.attribution.engine import Attribution, Explainer
from xaicli.attribution.maps import Layout, strength
from xaicli.attribution.problem import Problem
from xaicli.attribution.settings import GRADCAM, INTEGRATED, METHODS, SMINT

Figures = npt.NDArray[np.float64]

_STEPS = 20
_PERTURBATIONS = 50
_NEARBY = 10
_RADIUS = 0.02


def quality(explainer: Explainer, found: Attribution, units: Tensor) -> dict[str, dict[str, Figures]]:
    """The figures of every method of some units.

    Args:
        explainer: What made the maps.
        found: The maps.
        units: Which units they are of.

    Returns:
        {method: {"insertion", "deletion": areas under the target's probability in [0, 1]; "insertion_random",
        "deletion_random": those of a random map; "infidelity": the part of the output's variation under noise that
        the attribution leaves unexplained, 0 to 1; "sensitivity": largest relative change of the attribution within
        2 % of the input's range, for this package's methods}}, each (unit,).
    """
    problem = explainer.problem(units)
    order = np.random.default_rng(explainer.settings.seed)
    chance = {name: order.random(values.shape) for name, values in next(iter(found.maps.values())).items()}
    random = _areas(explainer, problem, chance)
    moved = _sensitivity(explainer, found, units)
    shifts, responses = _responses(explainer, problem)
    figures: dict[str, dict[str, Figures]] = {}
    for method, arrays in found.attributions.items():
        planes = {
            name: np.stack([strength(a, explainer.layouts[name]) for a in values]) for name, values in arrays.items()
        }
        own = _areas(explainer, problem, planes)
        slopes = [torch.from_numpy(values).to(problem.inputs[0]) for values in arrays.values()]
        if method in (INTEGRATED, SMINT, "IntegratedGradients", "DeepLift", "InputXGradient"):
            slopes = _per_difference(slopes, problem)
        figures[method] = {
            "insertion": own[0],
            "deletion": own[1],
            "insertion_random": random[0],
            "deletion_random": random[1],
            "infidelity": _infidelity(slopes, shifts, responses),
            "sensitivity": moved.get(method, np.full(problem.n_units, np.nan)),
        }
    return figures


def _areas(explainer: Explainer, problem: Problem, planes: Mapping[str, npt.NDArray[Any]]) -> tuple[Figures, Figures]:
    """Areas under the target's probability while the strongest places are put in, and while they are taken out."""
    n = problem.n_units
    ranks = _ranks(np.concatenate([p.reshape(n, -1) for p in planes.values()], axis=1))
    sizes = [p[0].size for p in planes.values()]
    parts = np.split(ranks, np.cumsum(sizes)[:-1], axis=1)
    curves: dict[str, list[Tensor]] = {"insertion": [], "deletion": []}
    every = torch.arange(n, device=problem.inputs[0].device)
    for step in range(_STEPS + 1):
        points: dict[str, list[Tensor]] = {"insertion": [], "deletion": []}
        for i, (name, plane) in enumerate(planes.items()):
            x, base = problem.inputs[i], problem.baselines[i].expand_as(problem.inputs[i])
            strongest = parts[i].reshape(plane.shape) < step / _STEPS * ranks.shape[1]
            mask = _over_input(torch.from_numpy(strongest).to(x.device), x, explainer.layouts[name])
            points["insertion"].append(torch.where(mask, x, base))
            points["deletion"].append(torch.where(mask, base, x))
        for kind, curve in curves.items():
            curve.append(problem.probability(points[kind], every))
    insertion, deletion = (torch.trapezoid(torch.stack(c), dx=1 / _STEPS, dim=0).cpu().numpy() for c in curves.values())
    return insertion, deletion


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Per row, 0 for the largest."""
    order = np.argsort(-values, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(values.shape[1])[None, :].repeat(len(values), 0), axis=1)
    return ranks


def _over_input(mask: Tensor, x: Tensor, layout: Layout) -> Tensor:
    """(unit, H, W) over the shape of the input."""
    if layout is Layout.CHANNELS_LAST:
        places = mask if x.ndim == 4 else mask[:, 0]
        return places.unsqueeze(-1).expand_as(x)
    flat = mask[:, 0] if x.ndim < 4 and not (layout is Layout.NO_CHANNELS and x.ndim == 3) else mask
    while flat.ndim < x.ndim:
        flat = flat.unsqueeze(1)
    return flat.expand_as(x)


def _responses(explainer: Explainer, problem: Problem) -> tuple[list[list[Tensor]], Tensor]:
    """Noise, and how the explained scalar answers it: per draw the noise of each input; (draw, unit)."""
    generator = torch.Generator(problem.inputs[0].device).manual_seed(explainer.settings.seed + 1)
    every = torch.arange(problem.n_units, device=problem.inputs[0].device)
    shifts, answers = [], []
    for _ in range(_PERTURBATIONS):
        shift = [
            s * torch.randn(x.shape[1:], generator=generator, device=x.device, dtype=x.dtype)
            for x, s in zip(problem.inputs, problem.sigma, strict=True)
        ]
        shifts.append(shift)
        points = [x - d for x, d in zip(problem.inputs, shift, strict=True)]
        answers.append(problem.clean - problem.forward(points, every))
    return shifts, torch.stack(answers)


def _infidelity(slopes: list[Tensor], shifts: list[list[Tensor]], responses: Tensor) -> Figures:
    """The part of the mean squared response that the best multiple of `slopes . noise` leaves."""
    predicted = torch.stack([_products(slopes, shift) for shift in shifts])
    energy = (predicted**2).sum(0)
    scale = torch.where(energy > 0, (predicted * responses).sum(0) / energy.clamp_min(1e-300), torch.zeros_like(energy))
    left = ((scale * predicted - responses) ** 2).sum(0) / (responses**2).sum(0).clamp_min(1e-300)
    figures: Figures = left.cpu().numpy()
    return figures


def _products(slopes: list[Tensor], shift: list[Tensor]) -> Tensor:
    """(unit,), the sum over all inputs of slope times shift."""
    together = zip(slopes, shift, strict=True)
    return torch.stack([(s * d).reshape(len(s), -1).double().sum(1) for s, d in together]).sum(0)


def _per_difference(values: list[Tensor], problem: Problem) -> list[Tensor]:
    """Attributions of a difference as slopes: divided by it."""
    differences = [x - b for x, b in zip(problem.inputs, problem.baselines, strict=True)]
    return [torch.where(d.abs() > 1e-6, v / d, torch.zeros_like(v)) for v, d in zip(values, differences, strict=True)]


def _sensitivity(explainer: Explainer, found: Attribution, units: Tensor) -> dict[str, Figures]:
    own = [m for m in found.attributions if m in METHODS and m != GRADCAM]
    prepared = explainer.prepared
    generator = torch.Generator(prepared.inputs[0].device).manual_seed(explainer.settings.seed + 2)
    worst = {m: np.zeros(len(units)) for m in own}
    for _ in range(_NEARBY if own else 0):
        inputs = list(prepared.inputs)
        for i in prepared.explained:
            x = inputs[i]
            dims = tuple(range(1, x.ndim))
            reach = _RADIUS * (x.amax(dims, keepdim=True) - x.amin(dims, keepdim=True))
            inputs[i] = x + reach * (2 * torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) - 1)
        settings = replace(explainer.settings, methods=tuple(own))
        nearby = explainer.with_inputs(inputs, settings).explain(units)
        for m in own:
            before, after = (
                np.concatenate([a.reshape(len(a), -1) for a in arrays.values()], axis=1)
                for arrays in (found.attributions[m], nearby.attributions[m])
            )
            norm = np.linalg.norm(before, axis=1)
            change = np.linalg.norm(after - before, axis=1) / np.where(norm > 0, norm, np.nan)
            worst[m] = np.maximum(worst[m], change)
    return worst
