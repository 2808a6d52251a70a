"""Token ids have no gradient: models that embed them are explained at the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xaicli.attribution.frozen import FrozenModel


@dataclass(frozen=True)
class Embedded:
    """Model inputs with token ids replaced by what their embedding gave.

    Attributes:
        inputs: In call order.
        positions: Which of them are embeddings.
    """

    inputs: list[Tensor]
    positions: tuple[int, ...] = ()


def embedded_inputs(model: FrozenModel, inputs: Sequence[Tensor]) -> Embedded:
    """Replace token ids by embeddings where the model has an `nn.Embedding` that reads them.

    From then on the frozen model takes the embedding in the ids' place.
    """
    if any(x.is_floating_point() for x in inputs):
        return Embedded(list(inputs))
    found = _readers(model, inputs)
    if not found:
        return Embedded(list(inputs))
    arranged = list(inputs)
    for position, module in found.items():
        with torch.no_grad():
            arranged[position] = module(inputs[position])
    model.model = _FromEmbedding(
        model.model, {p: (m, inputs[p]) for p, m in found.items()}, len(inputs), model.keywords
    )
    model.keywords = ()
    return Embedded(arranged, tuple(sorted(found)))


def _readers(model: FrozenModel, inputs: Sequence[Tensor]) -> dict[int, nn.Module]:
    """Which embedding reads which input, told by running the model once."""
    found: dict[int, nn.Module] = {}

    def watch(module: nn.Module, arguments: tuple[Any, ...], _: Any) -> None:
        for position, x in enumerate(inputs):
            given = arguments[0] if arguments else None
            if (
                isinstance(given, Tensor)
                and position not in found
                and given.shape == x[:2].shape
                and given.equal(x[:2])
            ):
                found[position] = module

    hooks = [m.register_forward_hook(watch) for m in model.model.modules() if isinstance(m, nn.Embedding)]
    try:
        with torch.no_grad():
            model.forward([x[:2] for x in inputs])
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _FromEmbedding(nn.Module):
    """The model, called with embeddings in place of ids: the embedding modules answer with what they are given."""

    def __init__(
        self, model: nn.Module, replaced: dict[int, tuple[nn.Module, Tensor]], n_inputs: int, keywords: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.model = model
        self.positions = tuple(replaced)
        # A module list: a deep copy of this one replaces the copies of the embeddings.
        self.readers = nn.ModuleList(module for module, _ in replaced.values())
        self.ids = [ids[:1] for _, ids in replaced.values()]
        self.n_inputs = n_inputs
        self.keywords = keywords
        for module in self.readers:
            module.register_forward_hook(_answer_with_the_given)

    def forward(self, *inputs: Tensor) -> Any:
        arranged = list(inputs)
        for position, module, ids in zip(self.positions, self.readers, self.ids, strict=True):
            module._given = inputs[position]
            # Only the shape of the ids matters now; any valid ids will do.
            arranged[position] = ids.expand(len(inputs[position]), *ids.shape[1:])
        try:
            if self.keywords:
                return self.model(**dict(zip(self.keywords, arranged, strict=True)))
            return self.model(*arranged)
        finally:
            for module in self.readers:
                del module._given


def _answer_with_the_given(module: nn.Module, _: Any, result: Tensor) -> Any:
    return getattr(module, "_given", result)
