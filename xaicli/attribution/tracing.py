"""A model as a graph that can be rewritten."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from xaicli.attribution.frozen import twin_of


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
    twin = twin_of(model)
    if isinstance(twin, fx.GraphModule):
        return twin
    tracer = _Tracer()
    with torch.enable_grad():
        graph = tracer.trace(twin)
    return fx.GraphModule(tracer.root, graph)
