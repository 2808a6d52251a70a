"""The fast copy for the gradient passes: the same function with fewer passes over the activations.

Batch norm is folded into the convolution before it, and a ReLU in front of max pooling moves behind it, where there
are fewer values: the largest of a window is the same, and its gradient too.

The first layer, where it is linear, is done once per path: of `b + a (z - b)` it is `A(b) + a (A(z) - A(b))`, and the
sum of its input gradients is the transposed layer on the sum of the gradients at its output.

A graph is traced, changed and made into a module once a call: of a small batch that is most of the time on a GPU.
"""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from xaicli.attribution.copies import copy_of
from xaicli.attribution.frozen import FrozenModel, InBf16, wants_bf16
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import GRADCAM, INTEGRATED, SMINT, Convention, Precision, Settings
from xaicli.attribution.twin import Hooks
from xaicli.heads.calling import Call

_CONVOLUTIONS = {torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default}
_RELUS = {functional.relu, torch.relu, torch.relu_, torch.ops.aten.relu.default, torch.ops.aten.relu_.default}
_POOLS = {torch.ops.aten.max_pool1d.default, torch.ops.aten.max_pool2d.default, torch.ops.aten.max_pool3d.default}
_OPERATORS = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.linear.default,
}
_PROBE = 8
_REWRITTEN = 1e-3
_IN_BF16 = 0.05
_CONVOLUTIONAL = 2


_TRACING = threading.Lock()
"""Held while a model is traced: `torch.fx` puts its own call into every module of the process meanwhile."""


class _Tracer(fx.Tracer):
    """Refuses what happens under `torch.no_grad()`: a graph would forget that, and its gradient would be another.

    The calls of other threads, a training's say, go through as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled():
            raise ValueError("a part of forward runs without gradients")
        return super().create_node(*args, **kwargs)


def traced(model: nn.Module) -> tuple[nn.Module, fx.Graph]:
    """A graph of a model, and the module whose parts it calls.

    Args:
        model: In evaluation mode; given up to the graph, which is made of its parts.

    Raises:
        Exception: Whatever tracing raises: the model's path depends on values, or a part of it has no gradient.
    """
    if isinstance(model, fx.GraphModule):
        return model, model.graph
    if len(Hooks(model)):
        raise ValueError("what hooks hand on is not in a graph")
    tracer = _Tracer()
    with torch.enable_grad(), _TRACING:
        graph = tracer.trace(model)
    return tracer.root, graph


def simplified(model: nn.Module, *, in_two: bool = False) -> nn.Module:
    """The model with less to do, or the model itself where there is nothing to save.

    Args:
        model: In evaluation mode; unchanged. The caller compares what both compute.
        in_two: Whether it is to be `Parted` after its first layer, where that is a plain convolution or linear layer.
    """
    try:
        root, graph = traced(copy_of(model, sharing=True))
        changed = _fold_operators(root, graph) if isinstance(root, fx.GraphModule) else _fold_modules(root, graph)
        changed |= _pool_first(root, graph)
        if in_two and (layer := _first_layer(root, graph)) is not None:
            return Parted(Stem(layer, _module_of(root, graph)))
        return _module_of(root, graph) if changed else model
    except Exception:
        return model  # An optimisation: a model that cannot be traced runs as it is.


def _module_of(root: nn.Module, graph: fx.Graph) -> nn.Module:
    """What runs a graph."""
    graph.lint()
    if isinstance(root, fx.GraphModule):
        root.recompile()
        return root.requires_grad_(False)
    return fx.GraphModule(root, graph).requires_grad_(False)


_FOLDED = {
    (nn.Conv1d, nn.BatchNorm1d),
    (nn.Conv2d, nn.BatchNorm2d),
    (nn.Conv3d, nn.BatchNorm3d),
    (nn.Linear, nn.BatchNorm1d),
}


def _fold_modules(root: nn.Module, graph: fx.Graph) -> bool:
    """Fold each batch norm into the layer before it, where nothing else reads that; whether there was any."""
    modules, folded = dict(root.named_modules()), False
    for node in list(graph.nodes):
        norm: Any = modules.get(node.target) if node.op == "call_module" else None
        before = node.args[0] if norm is not None and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        layer: Any = modules[str(before.target)]
        if (type(layer), type(norm)) not in _FOLDED or norm.running_mean is None or norm.running_var is None:
            continue
        fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        found = fuse(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        # Of this call of the layer alone: another may have no norm behind it.
        both = copy.copy(layer)
        both._parameters = dict(zip(("weight", "bias"), found, strict=True))
        name = f"_folded_{node.name}"
        modules[name] = both
        root.add_module(name, both)
        before.target = name
        node.replace_all_uses_with(before)
        graph.erase_node(node)
        folded = True
    return folded


def _pool_first(model: nn.Module, graph: fx.Graph) -> bool:
    """Move each ReLU that only feeds a max pooling behind it."""
    changed = False
    for pool in list(graph.nodes):
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


def _is_pool(model: nn.Module, node: fx.Node) -> bool:
    if node.op != "call_module":
        return node.op == "call_function" and node.target in _POOLS
    module = model.get_submodule(str(node.target))
    return isinstance(module, nn.modules.pooling._MaxPoolNd) and not module.return_indices


def _is_relu(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), nn.ReLU)
    return node.op == "call_function" and node.target in _RELUS and len(node.args) == 1


def _fold_operators(model: nn.Module, graph: fx.Graph) -> bool:
    """Fold the batch norms of an exported graph; whether there were any."""
    norms = [
        node for node in graph.nodes if node.op == "call_function" and node.target is torch.ops.aten.batch_norm.default
    ]
    return sum(_fold_node(model, graph, node) for node in norms) > 0


def _fold_node(model: nn.Module, graph: fx.Graph, norm: fx.Node) -> bool:
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
    with graph.inserting_before(conv):
        made = []
        for name, value in zip(names, values, strict=True):
            model.register_buffer(name, value.detach())
            made.append(graph.get_attr(name))
    conv.args = (conv.args[0], *made, *conv.args[3:])
    norm.replace_all_uses_with(conv)
    graph.erase_node(norm)
    return True


def _value(model: nn.Module, argument: Any) -> Tensor | None:
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    value: Any = model
    for part in str(argument.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None


@dataclass(frozen=True)
class Stem:
    """A model in two parts: `rest(layer(x))` is the model.

    Attributes:
        layer: Affine, (row, *input) to (row, *hidden).
        rest: Everything after it.
        channels_last: In which order `rest` wants the layer's output.
    """

    layer: Callable[[Tensor], Tensor]
    rest: nn.Module
    channels_last: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, without a graph."""
        with torch.no_grad():
            # Turned here, once per path, and not in front of `rest`, once per step.
            return self._turned(self.layer(x))

    def output(self, x: Tensor) -> Any:
        """What the model returns."""
        return self.rest(self._turned(self.layer(x)))

    def _turned(self, hidden: Tensor) -> Tensor:
        return hidden.contiguous(memory_format=torch.channels_last) if self.channels_last else hidden

    def transposed(self, gradients: Tensor, like: Tensor) -> Tensor:
        """Gradients at the layer's output as gradients at its input.

        Args:
            gradients: (row, *hidden).
            like: Any inputs, (row, *input).
        """
        leaf = like.detach().requires_grad_()
        with torch.enable_grad():
            hidden = self.layer(leaf)
        return torch.autograd.grad(hidden, leaf, gradients)[0]


class Parted(nn.Module):
    """A model in two parts, of one input."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.layer, self.rest, self.stem = stem.layer, stem.rest, stem

    def forward(self, x: Tensor) -> Any:
        """What the model returns."""
        return self.stem.output(x)


def _first_layer(root: nn.Module, graph: fx.Graph) -> Callable[[Tensor], Tensor] | None:
    """Take the first layer out of a graph; None, and the graph as it was, where it cannot be."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        return None
    entry = inputs[0]
    # An exported graph's check of its input, which is another behind the layer.
    checks = [node for node in entry.users if node.op == "call_module" and not node.users]
    # How many rows there are, a layer's output tells as well as its input.
    readers = [node for node in entry.users if node not in checks and not _counts_rows(node)]
    if len(readers) != 1 or readers[0].args[:1] != (entry,) or readers[0].kwargs:
        return None
    first = readers[0]
    layer = _layer(root, first)
    if layer is None:
        return None
    first.replace_all_uses_with(entry)
    for node in (first, *checks):
        graph.erase_node(node)
    return layer


def _counts_rows(node: fx.Node) -> bool:
    """Whether a node only asks for the length of the first axis: `x.shape[0]` or `x.size(0)`."""
    if node.op == "call_function" and node.target is getattr and node.args[1:] == ("shape",):
        return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)
    sized = node.op == "call_method" and node.target == "size"
    return (sized or node.target is torch.ops.aten.sym_size.int) and node.args[1:] == (0,)


def _layer(root: nn.Module, node: fx.Node) -> Callable[[Tensor], Tensor] | None:
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        plain = isinstance(module, nn.Linear) or (
            isinstance(module, nn.modules.conv._ConvNd) and module.padding_mode == "zeros" and not module.transposed
        )
        return copy_of(module, sharing=True).requires_grad_(False) if plain else None
    if node.op != "call_function" or node.target not in _OPERATORS:
        return None
    function, arguments = node.target, []
    for argument in node.args[1:]:
        if isinstance(argument, fx.Node):
            if argument.op != "get_attr":
                return None
            value: object = root
            for part in str(argument.target).split("."):
                value = getattr(value, part)
            assert isinstance(value, Tensor)
            arguments.append(value.detach())
        else:
            arguments.append(argument)  # type: ignore[arg-type]
    return lambda x: function(x, *arguments)


@dataclass(frozen=True)
class FastModel:
    """What the gradient passes run through.

    Attributes:
        whole: The model, of the same function as the prepared one.
        precision: "fp32", "bf16" or "fp64".
        stem: The same in two parts; None where it cannot be parted, or no path needs it.
        rest: The second of them.
    """

    whole: FrozenModel
    precision: str
    stem: Stem | None = None
    rest: FrozenModel | None = None


def fast_model(prepared: Prepared, settings: Settings) -> FastModel:
    """The fast copy of a prepared model; the seed's convention and Grad-CAM take the model as it is."""
    model = prepared.model
    plain = settings.convention is Convention.FE or set(settings.methods) == {GRADCAM}
    if plain or model.dtype == torch.float64:
        return FastModel(model, "fp64" if model.dtype == torch.float64 else "fp32")
    fast, stem = copy.copy(model), None
    inputs = [x[:_PROBE] for x in prepared.inputs]
    if len(inputs) == 1 and model.call == Call((0,)) and not prepared.entries[0].tokens and model.batch is None:
        small = simplified(model.model, in_two=bool({INTEGRATED, SMINT} & set(settings.methods)))
        if small is not model.model and _agrees(prepared, small, _REWRITTEN):
            fast.model = small
            stem = small.stem if isinstance(small, Parted) else None
    bf16 = _in_bf16(prepared, fast, stem, settings.precision)
    precision = "bf16" if bf16 else "fp32"
    images = any(x.ndim == 4 for x in inputs)
    counted = _convolutions(fast.model if stem is None else stem.rest)
    last = images and counted >= _CONVOLUTIONAL and channels_last_pays(model.device, bf16=bf16)
    if stem is None:
        if fast.model is model.model and (bf16 or last):
            fast.model = copy_of(model.model)  # whose weights are laid out otherwise; else the two share them
        return FastModel(_laid_out(fast, bf16=bf16, channels_last=last), precision)
    last = last and stem.forward(inputs[0]).ndim == 4
    rest = copy.copy(model)
    rest.model = stem.rest
    rest = _laid_out(rest, bf16=bf16, channels_last=last)
    stem = replace(stem, rest=rest.model, channels_last=last)
    fast.model = Parted(stem)
    return FastModel(fast, precision, stem, rest)


def channels_last_pays(device: torch.device, *, bf16: bool) -> bool:
    """Whether convolutions of pictures are faster with their channels last: on a GPU by its tensor cores alone."""
    return device.type != "cuda" or bf16 or torch.backends.cudnn.allow_tf32


def _in_bf16(prepared: Prepared, fast: FrozenModel, stem: Stem | None, asked: Precision) -> bool:
    """Whether to run in bf16: unasked only where the model can, and still says nearly the same."""
    inputs = [x[:_PROBE] for x in prepared.inputs]
    if not wants_bf16(asked, fast, inputs):
        return False
    if asked is Precision.BF16:
        return True
    if stem is not None:
        return _agrees(prepared, replace(stem, rest=InBf16(copy_of(stem.rest, sharing=True))).output, _IN_BF16)
    trial = copy.copy(fast)
    trial.model = InBf16(copy_of(fast.model, sharing=True))
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


def _laid_out(model: FrozenModel, *, bf16: bool, channels_last: bool) -> FrozenModel:
    """In its precision and memory format."""
    if bf16:
        model.model = InBf16(model.model)
    if channels_last:
        model.model = model.model.to(memory_format=torch.channels_last)
        model.channels_last = True
    return model


def _convolutions(model: nn.Module) -> int:
    """How many convolutions there are, in modules or a graph: a vision transformer has one."""
    graphs = [m for m in model.modules() if isinstance(m, fx.GraphModule)]
    in_graph = sum("conv" in str(node.target) for g in graphs for node in g.graph.nodes if node.op == "call_function")
    return in_graph + sum(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
