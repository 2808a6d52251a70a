"""Batch norm folded into the convolution before it: the same function with one pass over the activations less."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from xaicli.attribution.frozen import twin_of

_CONVOLUTIONS = {torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default}


def folded(model: nn.Module) -> nn.Module:
    """The model with its batch norms folded, or the model itself where none can be.

    Args:
        model: In evaluation mode; unchanged. The caller compares what both compute.
    """
    try:
        twin = _folded_graph(model) if isinstance(model, fx.GraphModule) else _folded_modules(model)
    except Exception:
        return model  # Folding is an optimisation: a model that cannot be traced runs as it is.
    return model if twin is None else twin


def _folded_modules(model: nn.Module) -> nn.Module | None:
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return None
    twin: nn.Module = fuse(model)
    return twin.requires_grad_(False)


def _folded_graph(model: fx.GraphModule) -> fx.GraphModule | None:
    twin = twin_of(model)
    changed = False
    for node in list(twin.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.batch_norm.default:
            changed |= _fold_node(twin, node)
    if not changed:
        return None
    twin.graph.lint()
    twin.recompile()
    return twin.requires_grad_(False)


def _fold_node(model: fx.GraphModule, norm: fx.Node) -> bool:
    conv = norm.args[0]
    if not isinstance(conv, fx.Node) or conv.target not in _CONVOLUTIONS or len(conv.users) != 1:
        return False
    gamma, beta, mean, var = (_value(model, argument) for argument in norm.args[1:5])
    weight = _value(model, conv.args[1])
    if weight is None or mean is None or var is None:
        return False
    bias = _value(model, conv.args[2]) if len(conv.args) > 2 else None
    epsilon = norm.args[7]
    assert isinstance(epsilon, float)
    scale = torch.rsqrt(var + epsilon) * (1 if gamma is None else gamma)
    shift = ((0 if bias is None else bias) - mean) * scale + (0 if beta is None else beta)
    names = [f"_folded_{norm.name}_weight", f"_folded_{norm.name}_bias"]
    values = [weight * scale.view(-1, *[1] * (weight.ndim - 1)), shift]
    with model.graph.inserting_before(conv):
        made = []
        for name, value in zip(names, values, strict=True):
            model.register_buffer(name, value.detach())
            made.append(model.graph.get_attr(name))
    conv.args = (conv.args[0], *made, *conv.args[3:])
    norm.replace_all_uses_with(conv)
    model.graph.erase_node(norm)
    return True


def _value(model: fx.GraphModule, argument: Any) -> Tensor | None:
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    value: Any = model
    for part in str(argument.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None
