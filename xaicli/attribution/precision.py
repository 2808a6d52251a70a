"""The fast copy for the gradient passes: batch norm folded, channels last, bf16 where it pays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from xaicli.attribution.folding import folded
from xaicli.attribution.frozen import FrozenModel, twin_of
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import INTEGRATED, SMINT, Convention, Precision, Settings
from xaicli.attribution.stem import Stem, split

_PROBE = 2
_RELATIVE = 1e-3
_CONVOLUTIONAL = 2


@dataclass(frozen=True)
class Parted:
    """The fast model in two parts: its first layer, and the rest."""

    stem: Stem
    rest: FrozenModel


def fast_model(prepared: Prepared, settings: Settings) -> tuple[FrozenModel, str, Parted | None]:
    """The model for gradient passes, the name of its precision, and its two parts where it can be parted.

    The seed's convention takes the model as it is.
    """
    model = prepared.model
    if settings.convention is Convention.FE or model.dtype == torch.float64:
        return model, "fp64" if model.dtype == torch.float64 else "fp32", None
    fast, stem = copy.copy(model), None
    inputs = [x[:_PROBE] for x in prepared.inputs]
    if len(inputs) == 1 and not prepared.embedded and not model.keywords and model.batch is None:
        small = folded(model.model)
        stem = split(small) if {INTEGRATED, SMINT} & set(settings.methods) else None
        if stem is not None and not _agrees(prepared, stem.whole):
            stem = None
        if small is not model.model and (stem is not None or _agrees(prepared, small)):
            fast.model = small
    if fast.model is model.model:
        fast.model = twin_of(model.model)
    bf16 = settings.precision is Precision.BF16 or (settings.precision is Precision.AUTO and bf16_pays(model.device))
    fast = _laid_out(fast, bf16=bf16, images=any(x.ndim == 4 for x in inputs))
    if stem is None:
        return fast, "bf16" if bf16 else "fp32", None
    rest = copy.copy(model)
    rest.model = stem.rest
    hidden = stem.forward(inputs[0])
    rest = _laid_out(rest, bf16=bf16, images=hidden.ndim == 4)
    return fast, "bf16" if bf16 else "fp32", Parted(replace(stem, channels_last=rest.channels_last), rest)


def _agrees(prepared: Prepared, twin: Callable[[Tensor], Any]) -> bool:
    """Whether a rewritten model gives the explained scalars of a few samples."""
    rows = torch.arange(min(_PROBE, len(prepared.units)), device=prepared.units.device)
    batch = prepared.model.padded(prepared.of_units(0)[rows].clone())
    try:
        with torch.no_grad():
            found = prepared.reduce(twin(batch), rows).double()
    except Exception:
        return False
    expected = prepared.clean[rows]
    return bool(torch.allclose(found, expected, rtol=_RELATIVE, atol=_RELATIVE * float(expected.abs().max())))


def _laid_out(model: FrozenModel, *, bf16: bool, images: bool) -> FrozenModel:
    """In its precision and memory format."""
    convolutional = images and _convolutions(model.model) >= _CONVOLUTIONAL
    if bf16:
        model.model = _InBf16(model.model.to(torch.bfloat16))
    if convolutional:
        model.model = model.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.channels_last = True
    return model


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
