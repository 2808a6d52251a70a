"""Hidden layers of an exported graph, which has operations where the model had modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from xaicli.collectors.outputs import Layer


def operations(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """What can be kept of a graph: each operation by its name, and each layer that has weights by the layer's.

    A layer's operation is the last that takes one of its own weights; those of the layers inside it are not its own.
    """
    found: dict[str, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op.startswith("call"):
            found[node.name] = node
    for node in graph.graph.nodes:
        if node.op == "get_attr" and "." in str(node.target):
            users = [user for user in node.users if user.op.startswith("call")]
            if users:
                found[str(node.target).rpartition(".")[0]] = users[-1]
    return found


class Watch(fx.Interpreter):
    """Runs a graph and hands over what chosen operations gave.

    Args:
        graph: The graph.
        chosen: The operations, with what each was asked for by.
        keep: Called with that and the operation's value.
    """

    def __init__(
        self, graph: fx.GraphModule, chosen: Mapping[fx.Node, Layer], keep: Callable[[Layer, Any], None]
    ) -> None:
        super().__init__(graph)
        self._chosen = chosen
        self._keep = keep

    def run_node(self, n: fx.Node) -> Any:
        """One operation."""
        value = super().run_node(n)
        if n in self._chosen:
            self._keep(self._chosen[n], value)
        return value
