"""Whether maps are any good: `--evaluate` (insertion, deletion, infidelity, sensitivity) and `--sanity`.

Insertion and deletion: Petsiuk et al. 2018; infidelity and max-sensitivity: Yeh et al. 2019. The areas mean nothing
without those of a random map, which stand beside them. Sanity: cascading randomisation, Adebayo et al. 2018: a method
whose maps stay the same when the weights are replaced by noise does not explain the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xaicli.attribution.copies import copy_of
from xaicli.attribution.engine import Attribution, Explainer
from xaicli.attribution.explanation import SanityStep
from xaicli.attribution.gradients import Problem
from xaicli.attribution.inputs import Layout, per_sample
from xaicli.attribution.lookups import LookingUp
from xaicli.attribution.maps import rank_correlation, strengths
from xaicli.attribution.settings import GRADCAM, INTEGRATED, METHODS, SMINT

Figures = npt.NDArray[np.float64]

_STEPS = 20
_PERTURBATIONS = 50
_NEARBY = 10
_RADIUS = 0.02
_MOST_LAYERS = 12


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
    chance = {
        name: np.repeat(order.random((1, *values.shape[1:])), len(values), axis=0)
        for name, values in next(iter(found.maps.values())).items()
    }
    random = _areas(explainer, problem, chance)
    moved = _sensitivity(explainer, found, units)
    shifts, responses = _responses(explainer, problem)
    figures: dict[str, dict[str, Figures]] = {}
    for method, arrays in found.attributions.items():
        planes = {
            name: strengths(torch.from_numpy(values), explainer.layouts[name]).numpy()
            for name, values in arrays.items()
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
    size, axis = layout.spatial(x.shape), layout.channel_axis(x.ndim)
    # A map has the last two axes of places; those before are summed over.
    places = mask.reshape(len(mask), *[1] * max(0, len(size) - 2), *size[-2:]) if size else mask.reshape(len(mask))
    places = places.expand(len(mask), *size)
    return (places if axis is None else places.unsqueeze(axis)).expand_as(x)


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
    generator = torch.Generator(prepared.points[0].device).manual_seed(explainer.settings.seed + 2)
    worst = {m: np.zeros(len(units)) for m in own}
    for _ in range(_NEARBY if own else 0):
        points = []
        for x in prepared.points:
            reach = _RADIUS * (per_sample(x, "amax") - per_sample(x, "amin"))
            # One draw for all samples: a sample's figure does not depend on its neighbours.
            draw = torch.rand(x.shape[1:], generator=generator, device=x.device, dtype=x.dtype)
            points.append(x + reach * (2 * draw - 1))
        settings = replace(explainer.settings, methods=tuple(own))
        nearby = explainer.with_points(points, settings).explain(units)
        for m in own:
            before, after = (
                np.concatenate([a.reshape(len(a), -1) for a in arrays.values()], axis=1)
                for arrays in (found.attributions[m], nearby.attributions[m])
            )
            norm = np.linalg.norm(before, axis=1)
            change = np.linalg.norm(after - before, axis=1) / np.where(norm > 0, norm, np.nan)
            worst[m] = np.maximum(worst[m], change)
    return worst


def cascade(explainer: Explainer, found: Attribution, units: Tensor) -> tuple[SanityStep, ...]:
    """Randomise the layers from the output down and compare the maps with those of the trained model.

    Args:
        explainer: What made the maps.
        found: The maps of the trained model.
        units: Which units they are of.

    Returns:
        At most 12 steps, from the last layer to the first; each step keeps the layers above it randomised.
    """
    model, given = copy_of(explainer.prepared.model.model), copy_of(explainer.prepared.model.model)
    layers, own = _layers(model)[::-1], _layers(given, with_buffers=True)[::-1]
    generator, others = (torch.Generator().manual_seed(explainer.settings.seed + n) for n in range(2))
    every = max(1, -(-len(layers) // _MOST_LAYERS))
    steps = []
    before = _explained_values(explainer, units)
    first = 0
    for number, (name, tensors) in enumerate(layers, start=1):
        for tensor in tensors:
            _randomise(tensor, generator)
        if number % every == 0 or number == len(layers):
            randomised = explainer.with_model(model)
            now = randomised.explain(units)
            similarity = {m: _similarity(found, now, m) for m in now.maps}
            # Of the trained model: what is randomised above a layer may hide it.
            changed = [tensor for _, tensors in own[first:number] for tensor in tensors]
            with _randomised(changed, others):
                is_used = not torch.equal(_explained_values(explainer.with_model(given), units), before)
            steps.append(SanityStep(name, similarity, is_used=is_used))
            first = number
    return tuple(steps)


@contextmanager
def _randomised(tensors: list[Tensor], generator: torch.Generator) -> Iterator[None]:
    kept = [tensor.detach().clone() for tensor in tensors]
    for tensor in tensors:
        _randomise(tensor, generator)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


def _explained_values(explainer: Explainer, units: Tensor) -> Tensor:
    """(unit,), what is explained, as the explainer's model answers at the inputs."""
    problem = explainer.problem(units)
    return problem.forward(list(problem.inputs), torch.arange(len(units), device=units.device))


def _layers(model: nn.Module, *, with_buffers: bool = False) -> list[tuple[str, list[Tensor]]]:
    """Weights by the module they belong to, in the order they were registered: from input to output as a rule."""
    model = model.model if isinstance(model, LookingUp) else model
    found: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(name.rpartition(".")[0] or name, []).append(parameter)
    for name, buffer in model.named_buffers() if with_buffers else ():
        if name.rpartition(".")[0] in found and buffer.is_floating_point():
            found[name.rpartition(".")[0]].append(buffer)
    return list(found.items())


def _randomise(tensor: Tensor, generator: torch.Generator) -> None:
    """Noise of the tensor's own mean and spread; of one that is constant, such as a fresh norm's, of its size."""
    with torch.no_grad():
        spread = float(tensor.std()) if tensor.numel() > 1 else 1.0
        mean = float(tensor.mean()) if tensor.numel() else 0.0
        spread = spread or abs(mean) or max(1, tensor[0].numel() if tensor.ndim > 1 else tensor.numel()) ** -0.5
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        tensor.copy_((noise * spread + mean).to(tensor))


def _similarity(before: Attribution, after: Attribution, method: str) -> float:
    pairs = [
        (a, b)
        for name, maps in before.maps[method].items()
        for a, b in zip(maps, after.maps[method][name], strict=True)
    ]
    values = np.array([rank_correlation(a, b) for a, b in pairs])
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
