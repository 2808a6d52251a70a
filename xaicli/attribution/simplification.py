"""The same function with fewer passes over the activations.

Batch norm is folded into the convolution before it, and a ReLU in front of max pooling moves behind it, where there
are fewer values: the largest of a window is the same, and its gradient too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from xaicli.attribution.twin import copy_of

_CONVOLUTIONS = {torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default}
_RELUS = {functional.relu, torch.relu, torch.relu_, torch.ops.aten.relu.default, torch.ops.aten.relu_.default}
_POOLS = {torch.ops.aten.max_pool1d.default, torch.ops.aten.max_pool2d.default, torch.ops.aten.max_pool3d.default}


class _Tracer(fx.Tracer):
    """Refuses what happens under `torch.no_grad()`: a graph would forget that, and its gradient would be another."""

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled():
            raise ValueError("a part of forward runs without gradients")
        return super().create_node(*args, **kwargs)


def traced(model: nn.Module) -> fx.GraphModule:
    """A graph of a model, sharing nothing with it.

    Args:
        model: In evaluation mode; unchanged.

    Raises:
        Exception: Whatever tracing raises: the model's path depends on values, or a part of it has no gradient.
    """
    twin = copy_of(model)
    if isinstance(twin, fx.GraphModule):
        return twin
    tracer = _Tracer()
    with torch.enable_grad():
        graph = tracer.trace(twin)
    return fx.GraphModule(tracer.root, graph)


def simplified(model: nn.Module) -> nn.Module:
    """The model with less to do, or the model itself where there is nothing to save.

    Args:
        model: In evaluation mode; unchanged. The caller compares what both compute.
    """
    try:
        graph = traced(model)
        if isinstance(model, fx.GraphModule):
            changed = _fold_operators(graph)
        elif changed := any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            graph = fuse(graph, no_trace=True)  # type: ignore[assignment]
        changed |= _pool_first(graph)
        graph.graph.lint()
        graph.recompile()
    except Exception:
        return model  # An optimisation: a model that cannot be traced runs as it is.
    return graph.requires_grad_(False) if changed else model


def _pool_first(model: fx.GraphModule) -> bool:
    """Move each ReLU that only feeds a max pooling behind it."""
    changed = False
    for pool in list(model.graph.nodes):
        relu = pool.args[0] if _is_pool(model, pool) and pool.args else None
        if not isinstance(relu, fx.Node) or not _is_relu(model, relu) or len(relu.users) > 1:
            continue
        before = relu.args[0]
        # An in-place ReLU changes what others read.
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        pool.replace_input_with(relu, before)
        pool.append(relu)
        pool.replace_all_uses_with(relu)
        relu.args = (pool, *relu.args[1:])
        changed = True
    return changed


def _is_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return node.op == "call_function" and node.target in _POOLS
    module = model.get_submodule(str(node.target))
    return isinstance(module, nn.modules.pooling._MaxPoolNd) and not module.return_indices


def _is_relu(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), nn.ReLU)
    return node.op == "call_function" and node.target in _RELUS and len(node.args) == 1


def _fold_operators(model: fx.GraphModule) -> bool:
    """Fold the batch norms of an exported graph; whether there were any."""
    norms = [
        node
        for node in model.graph.nodes
        if node.op == "call_function" and node.target is torch.ops.aten.batch_norm.default
    ]
    return sum(_fold_node(model, node) for node in norms) > 0


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
