"""`--sanity`: maps of ever more randomised models (cascading randomisation, Adebayo et al. 2018).

A method whose maps stay the same when the weights are replaced by noise does not explain the model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from xaicli.attribution.engine import Attribution, Explainer
from xaicli.attribution.explanation import SanityStep
from xaicli.attribution.frozen import twin_of
from xaicli.attribution.maps import rank_correlation

_MOST_STEPS = 12


def cascade(explainer: Explainer, found: Attribution, units: Tensor) -> tuple[SanityStep, ...]:
    """Randomise the layers from the output down and compare the maps with those of the trained model.

    Args:
        explainer: What made the maps.
        found: The maps of the trained model.
        units: Which units they are of.

    Returns:
        At most 12 steps, from the last layer to the first; each step keeps the layers above it randomised.
    """
    model = twin_of(explainer.prepared.model.model)
    layers = _layers(model)[::-1]
    generator = torch.Generator().manual_seed(explainer.settings.seed)
    every = max(1, -(-len(layers) // _MOST_STEPS))
    steps = []
    for number, (name, tensors) in enumerate(layers, start=1):
        for tensor in tensors:
            _randomise(tensor, generator)
        if number % every == 0 or number == len(layers):
            now = explainer.with_model(model).explain(units)
            steps.append(SanityStep(name, {m: _similarity(found, now, m) for m in now.maps}))
    return tuple(steps)


def _layers(model: nn.Module) -> list[tuple[str, list[Tensor]]]:
    """Weights by the module they belong to, in the order they were registered: from input to output as a rule."""
    found: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(name.rpartition(".")[0] or name, []).append(parameter)
    return list(found.items())


def _randomise(tensor: Tensor, generator: torch.Generator) -> None:
    """Noise of the tensor's own mean and spread."""
    with torch.no_grad():
        spread = float(tensor.std()) if tensor.numel() > 1 else 1.0
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        tensor.copy_((noise * spread + float(tensor.mean())).to(tensor))


def _similarity(before: Attribution, after: Attribution, method: str) -> float:
    pairs = [
        (a, b)
        for name, maps in before.maps[method].items()
        for a, b in zip(maps, after.maps[method][name], strict=True)
    ]
    values = np.array([rank_correlation(a, b) for a, b in pairs])
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
