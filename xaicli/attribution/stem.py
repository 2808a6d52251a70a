"""The model's first layer, where it is linear, done once per path instead of once per step.

On a path the first layer of `b + a (z - b)` is `A(b) + a (A(z) - A(b))`, and the sum of its input gradients is the
transposed layer on the sum of the gradients at its output: forward and backward of the widest layer leave the loop.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from xaicli.attribution.simplification import traced
from xaicli.attribution.twin import copy_of

_OPERATORS = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.linear.default,
}


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

    def whole(self, x: Tensor) -> Any:
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
        model: In evaluation mode; unchanged. The caller compares what both compute.
    """
    try:
        return _parted(traced(model))
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
