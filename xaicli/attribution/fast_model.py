"""The fast copy for the gradient passes: simplified, parted behind its first layer, channels last, in bf16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from xaicli.attribution.frozen import FrozenModel
from xaicli.attribution.precision import InBf16, wants_bf16
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import GRADCAM, INTEGRATED, SMINT, Convention, Precision, Settings
from xaicli.attribution.simplification import simplified
from xaicli.attribution.stem import Stem, split
from xaicli.attribution.twin import copy_of

_PROBE = 8
_REWRITTEN = 1e-3
_IN_BF16 = 0.05
_CONVOLUTIONAL = 2


@dataclass(frozen=True)
class Parted:
    """The fast model in two parts: its first layer, and the rest."""

    stem: Stem
    rest: FrozenModel


@dataclass(frozen=True)
class FastModel:
    """What the gradient passes run through.

    Attributes:
        whole: The model, of the same function as the prepared one.
        precision: "fp32", "bf16" or "fp64".
        parted: The same in two parts; None where it cannot be parted, or no path needs it.
    """

    whole: FrozenModel
    precision: str
    parted: Parted | None = None


def fast_model(prepared: Prepared, settings: Settings) -> FastModel:
    """The fast copy of a prepared model; the seed's convention and Grad-CAM take the model as it is."""
    model = prepared.model
    plain = settings.convention is Convention.FE or set(settings.methods) == {GRADCAM}
    if plain or model.dtype == torch.float64:
        return FastModel(model, "fp64" if model.dtype == torch.float64 else "fp32")
    fast, stem = copy.copy(model), None
    inputs = [x[:_PROBE] for x in prepared.inputs]
    if len(inputs) == 1 and model.call.positions == (0,) and not prepared.entries[0].tokens and model.batch is None:
        small = simplified(model.model)
        stem = split(small) if {INTEGRATED, SMINT} & set(settings.methods) else None
        if stem is not None and not _agrees(prepared, stem.whole, _REWRITTEN):
            stem = None
        if small is not model.model and (stem is not None or _agrees(prepared, small, _REWRITTEN)):
            fast.model = small
    if fast.model is model.model:
        fast.model = copy_of(model.model)
    bf16 = _in_bf16(prepared, fast, settings.precision)
    precision = "bf16" if bf16 else "fp32"
    fast = _laid_out(fast, bf16=bf16, images=any(x.ndim == 4 for x in inputs))
    if stem is None:
        return FastModel(fast, precision)
    rest = copy.copy(model)
    rest.model = stem.rest
    rest = _laid_out(rest, bf16=bf16, images=stem.forward(inputs[0]).ndim == 4)
    return FastModel(fast, precision, Parted(replace(stem, channels_last=rest.channels_last), rest))


def _in_bf16(prepared: Prepared, fast: FrozenModel, asked: Precision) -> bool:
    """Whether to run in bf16: unasked only where the model can, and still says nearly the same."""
    inputs = [x[:_PROBE] for x in prepared.inputs]
    if not wants_bf16(asked, fast, inputs):
        return False
    if asked is Precision.BF16:
        return True
    trial = copy.copy(fast)
    trial.model = InBf16(copy_of(fast.model))
    return _agrees(prepared, trial, _IN_BF16)


def _agrees(prepared: Prepared, twin: Callable[..., Any], tolerance: float) -> bool:
    """Whether a rewritten model gives the explained scalars of a few samples."""
    rows = prepared.clean.isfinite().nonzero()[:_PROBE, 0]
    if not len(rows):
        return False
    points = [prepared.of_units(i)[rows].clone() for i in range(len(prepared.entries))]
    batch, embedded = prepared.arrange(prepared.model, points, rows)
    try:
        with torch.no_grad():
            result = twin(batch, embedded) if isinstance(twin, FrozenModel) else twin(*batch)
            found = prepared.reduce(result, rows).double()
    except Exception:
        return False
    expected = prepared.clean[rows]
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())))


def _laid_out(model: FrozenModel, *, bf16: bool, images: bool) -> FrozenModel:
    """In its precision and memory format."""
    convolutional = images and _convolutions(model.model) >= _CONVOLUTIONAL
    if bf16:
        model.model = InBf16(model.model)
    if convolutional:
        model.model = model.model.to(memory_format=torch.channels_last)
        model.channels_last = True
    return model


def _convolutions(model: nn.Module) -> int:
    """How many convolutions there are, in modules or a graph: a vision transformer has one."""
    graphs = [m for m in model.modules() if isinstance(m, fx.GraphModule)]
    in_graph = sum("conv" in str(node.target) for g in graphs for node in g.graph.nodes if node.op == "call_function")
    return in_graph + sum(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
