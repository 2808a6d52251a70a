"""Grad-CAM (Selvaraju et al. 2017): the last convolutional activations, weighted by their mean gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from xaicli.attribution.prepared import Prepared
from xaicli.attribution.problem import Attributions
from xaicli.errors import XaiError

_ROWS = 16
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def explain(prepared: Prepared) -> Attributions:
    """Grad-CAM of every unit at the last activation that still has more than one place.

    Returns:
        Of each differentiable input's shape: the map at the input's size, shared equally among its channels.

    Raises:
        XaiError: The model has no convolutional activation.
    """
    model = prepared.model
    step = model.batch or _ROWS
    parts = []
    n = len(prepared.units)
    place = _last_activation(prepared)
    for first in range(0, n, step):
        rows = torch.arange(first, min(n, first + step), device=prepared.units.device)
        parts.append(_cams(prepared, place, rows))
    cam = torch.cat(parts)
    return Attributions([spread(cam, prepared.of_units(i)) for i in prepared.explained])


Place = tuple[Any, int]
"""A module or a graph's node that gives an activation, and which of its calls."""


def _last_activation(prepared: Prepared) -> Place:
    """Where the last activation with channels and more than one place comes from, told by one sample."""
    seen: list[Place] = []
    calls: Counter[Any] = Counter()

    def note(source: Any, result: Any) -> Any:
        if isinstance(result, Tensor) and result.ndim >= 3 and result.requires_grad and result[0, 0].numel() > 1:
            seen.append((source, calls[source]))
        calls[source] += 1
        return result

    rows = torch.zeros(1, dtype=torch.long, device=prepared.units.device)
    with torch.enable_grad():
        _watched(prepared, rows, note)
    if not seen:
        raise XaiError(
            "gradcam needs a convolutional model: no activation of this one has places and channels",
            hint="choose other --methods: gradient, smoothgrad, integrated, smint",
        )
    return seen[-1]


def _cams(prepared: Prepared, place: Place, rows: Tensor) -> Tensor:
    """(row, *places)."""
    kept: list[Tensor] = []
    calls: Counter[Any] = Counter()

    def keep(source: Any, result: Any) -> Any:
        calls[source] += 1
        if (source, calls[source] - 1) != place:
            return result
        kept.append(result)
        return result.clone()  # What is kept must not meet an in-place ReLU.

    with torch.enable_grad():
        scalar = prepared.reduce(_watched(prepared, rows, keep, place[0]), rows).sum()
    if not scalar.requires_grad:
        raise XaiError(
            "the model's output does not depend on its activations through autograd",
            hint="is there torch.no_grad, detach, argmax or .data inside forward? gradcam needs the gradient",
        )
    activation = kept[0]
    gradient = torch.autograd.grad(scalar, activation)[0]
    weights = gradient.flatten(2).mean(2).view(*gradient.shape[:2], *[1] * (gradient.ndim - 2))
    return functional.relu((weights * activation).sum(1).detach())[: len(rows)]


def _watched(prepared: Prepared, rows: Tensor, watch: Callable[[Any, Any], Any], only: Any = None) -> Any:
    """Run the model on some units.

    Args:
        watch: Told a module or node and its result, of every convolution and of what directly follows, in order; gives
            what goes on in the result's place.
        only: Watch this one alone.
    """
    frozen = prepared.model
    points = [prepared.of_units(i)[rows] for i in range(len(prepared.inputs))]
    # Clones: an in-place operation may not meet a leaf.
    batch = [frozen.padded(x.requires_grad_().clone() if x.is_floating_point() else x) for x in points]
    if isinstance(frozen.model, fx.GraphModule):
        return _Watching(frozen.model, watch).run(*batch)
    modules = [only] if only is not None else _convolutional(frozen.model)
    hooks = [m.register_forward_hook(lambda module, _, result: watch(module, result)) for m in modules]
    try:
        return frozen.forward(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _convolutional(model: nn.Module) -> list[nn.Module]:
    """Modules that are, or are made of, convolutions, and activations and norms: whatever yields feature maps."""
    blocks = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
    if not any(isinstance(m, blocks) for m in model.modules()):
        return []
    kinds = (*blocks, nn.ReLU, nn.GELU, nn.SiLU)
    found = [m for m in model.modules() if m is not model]
    return [
        m for m in found if isinstance(m, kinds) or any(isinstance(c, nn.modules.conv._ConvNd) for c in m.children())
    ]


class _Watching(fx.Interpreter):
    def __init__(self, model: fx.GraphModule, watch: Callable[[Any, Any], Any]) -> None:
        super().__init__(model)
        self._watch = watch
        self._convolved = False

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        name = str(n.target)
        self._convolved = self._convolved or "conv" in name
        if self._convolved and any(part in name for part in ("conv", "relu", "norm", "gelu", "silu", "add")):
            return self._watch(n, result)
        return result


def spread(cam: Tensor, x: Tensor) -> Tensor:
    """(unit, *places) at the size of the input, divided among the channels so that they sum to it."""
    size = x.shape[2:]
    if len(size) != cam.ndim - 1 or len(size) not in _MODES:
        raise XaiError(
            f"gradcam cannot place activations of {cam.ndim - 1} axes on an input of shape {tuple(x.shape[1:])}",
            hint="choose other --methods: gradient, smoothgrad, integrated, smint",
        )
    wide = functional.interpolate(cam.unsqueeze(1), size=size, mode=_MODES[len(size)], align_corners=False)
    return (wide / x.shape[1]).expand_as(x).contiguous()
