"""The fast copy for the gradient passes: batch norm folded, channels last, bf16 where it pays."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from xaicli.attribution.folding import folded
from xaicli.attribution.frozen import FrozenModel, twin_of
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import Convention, Precision, Settings

_PROBE = 2
_CONVOLUTIONAL = 2


def fast_model(prepared: Prepared, settings: Settings) -> tuple[FrozenModel, str]:
    """The model for gradient passes and the name of its precision; the seed's convention takes the model as it is."""
    model = prepared.model
    if settings.convention is Convention.FE or model.dtype == torch.float64:
        return model, "fp64" if model.dtype == torch.float64 else "fp32"
    fast = copy.copy(model)
    inputs = [x[:_PROBE] for x in prepared.inputs]
    if not prepared.embedded and not model.keywords and model.batch is None:
        fast.model = folded(model.model, inputs)
    if fast.model is model.model:
        fast.model = twin_of(model.model)
    bf16 = settings.precision is Precision.BF16 or (settings.precision is Precision.AUTO and bf16_pays(model.device))
    if bf16:
        fast.model = _InBf16(fast.model.to(torch.bfloat16))
    if any(x.ndim == 4 for x in inputs) and _convolutions(fast.model) >= _CONVOLUTIONAL:
        fast.model = fast.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fast.channels_last = True
    return fast, "bf16" if bf16 else "fp32"


def _convolutions(model: nn.Module) -> int:
    """How many convolutions there are, in modules or a graph: a vision transformer has one."""
    graphs = [m for m in model.modules() if isinstance(m, fx.GraphModule)]
    in_graph = sum("conv" in str(node.target) for g in graphs for node in g.graph.nodes if node.op == "call_function")
    return in_graph + sum(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())


def bf16_pays(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 natively; emulated, it costs more than it saves."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


class _InBf16(nn.Module):
    """A model whose weights were converted once: inputs are cast on the way in, outputs on the way out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        given = [x.bfloat16() if x.is_floating_point() else x for x in inputs]
        kept = {name: x.bfloat16() if x.is_floating_point() else x for name, x in named.items()}
        return _widened(self.model(*given, **kept))


def _widened(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.float() if result.is_floating_point() else result
    if isinstance(result, dict):
        return type(result)((key, _widened(value)) for key, value in result.items())
    if isinstance(result, Sequence) and not isinstance(result, str):
        values = [_widened(value) for value in result]
        return type(result)(*values) if hasattr(result, "_fields") else type(result)(values)  # type: ignore[call-arg]
    return result
