"""Grad-CAM (Selvaraju et al. 2017): the last convolutional activations, weighted by their mean gradient."""

from __future__ import annotations

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
    for first in range(0, n, step):
        rows = torch.arange(first, min(n, first + step), device=prepared.units.device)
        batch = [model.padded(prepared.of_units(i)[rows]) for i in range(len(prepared.inputs))]
        parts.append(_cams(prepared, batch, rows))
    cam = torch.cat(parts)
    return Attributions([spread(cam, prepared.of_units(i)) for i in prepared.explained])


def _cams(prepared: Prepared, batch: list[Tensor], rows: Tensor) -> Tensor:
    """(row, *places), signed before the ReLU."""
    seen: list[Tensor] = []

    def keep(value: Any) -> None:
        if isinstance(value, Tensor) and value.ndim >= 3 and value.requires_grad and value[0, 0].numel() > 1:
            seen.append(value)

    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in batch]
    with torch.enable_grad():
        result = _watched(prepared, [x.clone() for x in leaves], keep)
        scalar = prepared.reduce(result, rows).sum()
    if not seen or not scalar.requires_grad:
        raise XaiError(
            "gradcam needs a convolutional model: no activation of this one has places and channels",
            hint="choose other --methods: gradient, smoothgrad, integrated, smint",
        )
    activation = seen[-1]
    gradient = torch.autograd.grad(scalar, activation)[0]
    weights = gradient.flatten(2).mean(2).view(*gradient.shape[:2], *[1] * (gradient.ndim - 2))
    return functional.relu((weights * activation).sum(1).detach())[: len(rows)]


def _watched(prepared: Prepared, batch: list[Tensor], keep: Callable[[Any], None]) -> Any:
    """Run the model; `keep` sees the result of every convolution and of what directly follows, in order."""
    model = prepared.model.model
    if isinstance(model, fx.GraphModule):
        return _Watching(model, keep).run(*batch)
    blocks = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
    convolutional = [m for m in model.modules() if isinstance(m, blocks)]
    if not convolutional:
        return prepared.model.forward(batch)
    wanted = _with_blocks(model)
    # A copy of the value: an in-place ReLU after the module would otherwise change what was kept.
    hooks = [m.register_forward_hook(lambda *call: _kept(call[2], keep)) for m in wanted]
    try:
        return prepared.model.forward(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _kept(result: Any, keep: Callable[[Any], None]) -> Any:
    if isinstance(result, Tensor) and result.requires_grad:
        result = result.clone()
        keep(result)
        return result.clone()
    return result


def _with_blocks(model: nn.Module) -> list[nn.Module]:
    """Modules that are, or are made of, convolutions, and activations and norms: whatever yields feature maps."""
    kinds = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.ReLU, nn.GELU, nn.SiLU)
    found = [m for m in model.modules() if m is not model]
    return [
        m for m in found if isinstance(m, kinds) or any(isinstance(c, nn.modules.conv._ConvNd) for c in m.children())
    ]


class _Watching(fx.Interpreter):
    def __init__(self, model: fx.GraphModule, keep: Callable[[Any], None]) -> None:
        super().__init__(model)
        self._keep = keep
        self._convolved = False

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        name = str(n.target)
        self._convolved = self._convolved or "conv" in name
        if self._convolved and any(part in name for part in ("conv", "relu", "norm", "gelu", "silu", "add")):
            return _kept(result, self._keep)
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
