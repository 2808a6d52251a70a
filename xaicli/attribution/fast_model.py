"""The fast copy for the gradient passes: the same function with fewer passes over the activations.

Batch norm is folded into the convolution before it, and a ReLU in front of max pooling moves behind it, where there
are fewer values: the largest of a window is the same, and its gradient too.

The first layer, where it is linear, is done once per path: of `b + a (z - b)` it is `A(b) + a (A(z) - A(b))`, and the
sum of its input gradients is the transposed layer on the sum of the gradients at its output.

On CUDA a convolution, its bias, what is added to it and the ReLU behind it are one kernel of cuDNN: each by itself
reads and writes all activations once more.
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
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from xaicli.attribution.frozen import FrozenModel, InBf16, wants_bf16
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import GRADCAM, INTEGRATED, SMINT, Convention, Precision, Settings
from xaicli.attribution.twin import Hooks, copy_of
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
_MANY = 64


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


def traced(model: nn.Module) -> fx.GraphModule:
    """A graph of a model.

    Args:
        model: In evaluation mode; given up to the graph, which is made of its parts.

    Raises:
        Exception: Whatever tracing raises: the model's path depends on values, or a part of it has no gradient.
    """
    if isinstance(model, fx.GraphModule):
        return model
    if len(Hooks(model)):
        raise ValueError("what hooks hand on is not in a graph")
    tracer = _Tracer()
    with torch.enable_grad(), _TRACING:
        graph = tracer.trace(model)
    return fx.GraphModule(tracer.root, graph)


def simplified(model: nn.Module) -> nn.Module:
    """The model with less to do, or the model itself where there is nothing to save.

    Args:
        model: In evaluation mode; unchanged. The caller compares what both compute.
    """
    try:
        graph = traced(copy_of(model))
        if isinstance(model, fx.GraphModule):
            changed = _fold_operators(graph)
        elif changed := any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            graph = fuse(graph, inplace=True, no_trace=True)  # type: ignore[assignment]
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
            hidden = self.layer(x)
        # Turned here, once per path, and not in front of `rest`, once per step.
        return hidden.contiguous(memory_format=torch.channels_last) if self.channels_last else hidden

    def output(self, x: Tensor) -> Any:
        """What the model returns."""
        return self.rest(self.layer(x))

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


def split(model: nn.Module) -> Stem | None:
    """Part a model of one input after its first layer; None where that is no plain convolution or linear layer.

    Args:
        model: In evaluation mode; unchanged, and the parts share its tensors. The caller compares what both compute.
    """
    try:
        if type(model).__base__ is fx.GraphModule:  # of our own making, and no more than its graph
            assert isinstance(model, fx.GraphModule)
            return _parted(fx.GraphModule(model, copy.deepcopy(model.graph)))
        return _parted(traced(copy_of(model, sharing=True)))
    except Exception:
        return None  # An optimisation: a model that cannot be traced runs as it is.


def _parted(graph: fx.GraphModule) -> Stem | None:
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        return None
    entry = inputs[0]
    for node in list(entry.users):
        if node.op == "call_module" and not node.users:
            graph.graph.erase_node(node)  # An exported graph's check of its input, which is another now.
    # How many rows there are, a layer's output tells as well as its input.
    readers = [node for node in entry.users if not _counts_rows(node)]
    if len(readers) != 1 or readers[0].args[:1] != (entry,) or readers[0].kwargs:
        return None
    first = readers[0]
    layer = _layer(graph, first)
    if layer is None:
        return None
    first.replace_all_uses_with(entry)
    graph.graph.erase_node(first)
    graph.recompile()
    return Stem(layer, graph.requires_grad_(False))


def _counts_rows(node: fx.Node) -> bool:
    """Whether a node only asks for the length of the first axis: `x.shape[0]` or `x.size(0)`."""
    if node.op == "call_function" and node.target is getattr and node.args[1:] == ("shape",):
        return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)
    sized = node.op == "call_method" and node.target == "size"
    return (sized or node.target is torch.ops.aten.sym_size.int) and node.args[1:] == (0,)


def _layer(graph: fx.GraphModule, node: fx.Node) -> Callable[[Tensor], Tensor] | None:
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        plain = isinstance(module, nn.Linear) or (
            isinstance(module, nn.modules.conv._ConvNd) and module.padding_mode == "zeros" and not module.transposed
        )
        return copy_of(module).requires_grad_(False) if plain else None
    if node.op != "call_function" or node.target not in _OPERATORS:
        return None
    function, arguments = node.target, []
    for argument in node.args[1:]:
        if isinstance(argument, fx.Node):
            if argument.op != "get_attr":
                return None
            value: object = graph
            for part in str(argument.target).split("."):
                value = getattr(value, part)
            assert isinstance(value, Tensor)
            arguments.append(value.detach())
        else:
            arguments.append(argument)  # type: ignore[arg-type]
    return lambda x: function(x, *arguments)


_ADDITIONS = {operator.add, operator.iadd, torch.add}


class _Rectified(torch.autograd.Function):
    """relu(convolution + other) by one kernel, differentiated by the two inputs alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor | None, conv: nn.Conv2d) -> Tensor:
        how: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
        if other is None:
            y = torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *how)
        else:
            y = torch.cudnn_convolution_add_relu(x, conv.weight, other, 1.0, conv.bias, *how)
        ctx.save_for_backward(x, y)
        ctx.conv, ctx.adds = conv, other is not None
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (x, y), conv = ctx.saved_tensors, ctx.conv
        passed = torch.ops.aten.threshold_backward(outputs[0], y, 0)
        geometry = list(conv.stride), list(conv.padding), list(conv.dilation), False, [0, 0], conv.groups
        of_input = torch.ops.aten.convolution_backward(passed, x, conv.weight, None, *geometry, [True, False, False])[0]
        return of_input, passed if ctx.adds else None, None


class RectifiedConvolution(nn.Module):
    """A convolution with the ReLU behind it, and what is added in between."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """relu(conv(x) + other)."""
        apply: Any = _Rectified.apply
        result: Tensor = apply(x, other, self.conv)
        return result


def rectified(model: nn.Module) -> nn.Module | None:
    """The model with its convolutions and the ReLUs behind them in one; None where it is no graph or has none.

    Args:
        model: Unchanged; what is made shares its weights. The caller compares what both compute.
    """
    if not isinstance(model, fx.GraphModule):
        return None
    graph = fx.GraphModule(model, copy.deepcopy(model.graph))
    changed = False
    for relu in list(graph.graph.nodes):
        before = relu.args[0] if _is_relu(graph, relu) and relu.args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        conv, other = _summands(graph, before)
        module = _plain_convolution(graph, conv)
        if module is None:
            continue
        # The bias of a convolution that is added as well is added with the own one.
        if other is not None and (twin := _plain_convolution(graph, other)) is not None and twin.bias is not None:
            module = _biased(module, twin.bias if module.bias is None else module.bias + twin.bias)
            graph.add_submodule(f"unbiased_{other.name}", _biased(twin, None))
            other.target = f"unbiased_{other.name}"
        graph.add_submodule(f"rectified_{relu.name}", RectifiedConvolution(module))
        with graph.graph.inserting_before(relu):
            new = graph.graph.call_module(f"rectified_{relu.name}", (conv.args[0], other))
        relu.replace_all_uses_with(new)
        for node in (relu, before, conv):
            if not node.users and node in graph.graph.nodes:
                graph.graph.erase_node(node)
        changed = True
    graph.graph.lint()
    graph.recompile()
    return graph.requires_grad_(False) if changed else None


def _summands(graph: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """A convolution and what is added to it, where a node is such a sum; else the node itself."""
    if node.op != "call_function" or node.target not in _ADDITIONS or len(node.args) != 2 or node.kwargs:
        return node, None
    one, other = node.args
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return node, None
    # What is added to in place, others may read.
    if _plain_convolution(graph, one) is None and node.target is not operator.iadd:
        one, other = other, one
    return one, other


def _plain_convolution(graph: fx.GraphModule, node: Any) -> nn.Conv2d | None:
    """The module of a node whose value nobody else reads."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1:
        return None
    module = graph.get_submodule(str(node.target))
    plain = type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return module if plain and len(node.args) == 1 and not node.kwargs else None  # type: ignore[return-value]


def _biased(conv: nn.Conv2d, bias: Tensor | None) -> nn.Conv2d:
    """A convolution of the same weights with another bias."""
    twin = copy.copy(conv)
    twin._parameters = dict(conv._parameters)
    twin.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return twin


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
    if len(inputs) == 1 and model.call == Call((0,)) and not prepared.entries[0].tokens and model.batch is None:
        small = simplified(model.model)
        if {INTEGRATED, SMINT} & set(settings.methods):
            # Shared with the fast copy, not with the model itself, whose weights may be laid out otherwise.
            stem = split(copy_of(small) if small is model.model else small)
        if stem is not None and not _agrees(prepared, stem.output, _REWRITTEN):
            stem = None
        if small is not model.model and (stem is not None or _agrees(prepared, small, _REWRITTEN)):
            fast.model = small
    bf16 = _in_bf16(prepared, fast, settings.precision)
    precision = "bf16" if bf16 else "fp32"
    images = any(x.ndim == 4 for x in inputs)
    # What is differentiated says how both are laid out, since they share their weights.
    counted = _convolutions(fast.model if stem is None else stem.rest)
    last = images and counted >= _CONVOLUTIONAL and channels_last_pays(model.device, bf16=bf16)
    if fast.model is model.model and (bf16 or last):
        fast.model = copy_of(model.model)  # whose weights are laid out otherwise; else the two share them
    fast = _laid_out(fast, bf16=bf16, channels_last=last)
    if stem is None:
        return FastModel(fast, precision)
    last = last and stem.forward(inputs[0]).ndim == 4
    rest = copy.copy(model)
    rest.model = stem.rest
    joined = rectified(stem.rest) if last and joins(model.device, settings) else None
    rest = _laid_out(rest, bf16=bf16, channels_last=last)
    _share(rest.model, fast.model)
    stem = replace(stem, channels_last=last)
    if joined is not None:
        trial = copy.copy(rest)
        trial.model = joined
        trial = _laid_out(trial, bf16=bf16, channels_last=last)
        output = replace(stem, rest=trial.model).output
        rest = trial if _agrees(prepared, output, _IN_BF16 if bf16 else _REWRITTEN) else rest
    return FastModel(fast, precision, Parted(stem, rest))


def joins(device: torch.device, settings: Settings) -> bool:
    """Whether a convolution and its ReLU are to be one kernel: on CUDA, where it saves more than making it so costs."""
    return device.type == "cuda" and settings.evaluations_per_sample >= _MANY


def channels_last_pays(device: torch.device, *, bf16: bool) -> bool:
    """Whether convolutions of pictures are faster with their channels last: on a GPU by its tensor cores alone."""
    return device.type != "cuda" or bf16 or torch.backends.cudnn.allow_tf32


def _share(part: nn.Module, whole: nn.Module) -> None:
    """Let a part of a model use the whole's weights in place of its own copies of them."""
    known = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    for path, module in part.named_modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                other = known.get(f"{path}.{name}" if path else name)
                if tensor is None or other is None or other is tensor or type(other) is not type(tensor):
                    continue
                if other.dtype == tensor.dtype and other.stride() == tensor.stride() and torch.equal(other, tensor):
                    own[name] = other


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
