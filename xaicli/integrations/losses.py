"""What the loss of a step is made of: of the criteria that a step calls, some are only watched."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_MOST_NODES = 20_000
"""So many operations behind a loss are looked at for a criterion's: that stands near its end."""
_OWN = -1
"""What stands for a loss that a model computed of its own, beside the numbers of criteria."""


@dataclass
class Losses:
    """The losses of a step, and what it made of them while it ran.

    Attributes:
        results: What each criterion computed, with its graph.
        nodes: What made each, as autograd knew it then: a tensor that is added to is made by something else after.
        made: Tensors, by their identity, with the numbers of the criteria that they are made of.
        own: The losses that models computed of their own, by no criterion that is known.
        own_given: Where in memory what these were given lies: labels among it.
    """

    results: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    made: dict[int, tuple[Tensor, frozenset[int]]] = field(default_factory=dict)
    own: list[Tensor] = field(default_factory=list)
    own_given: set[int] = field(default_factory=set)

    def add(self, result: Any) -> None:
        """A criterion computed this."""
        self.results.append(result)
        self.nodes.append(getattr(result, "grad_fn", None))
        self._follow(result, frozenset({len(self.results) - 1}))

    def add_own(self, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A module returned this: a loss by that name is the model's own, where no criterion is known to be in it."""
        if isinstance(output, Mapping) and not self._made_of(own := output.get("loss")):
            self._follow(own, frozenset({_OWN}))
            self.own += [own] if isinstance(own, Tensor) else []
            self.own_given |= {one.data_ptr() for one in (*args, *kwargs.values()) if isinstance(one, Tensor)}

    def called(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """An operation of torch made this of these: what returns nothing writes into its first argument."""
        if self.made and (of := self._made_of(args, kwargs)):
            self._follow(args[0] if result is None and args else result, of)

    def counted(self, loss: Any) -> list[bool | None]:
        """Of each criterion whether the loss that the step returned is made of it; None where that is not known.

        Where there are gradients their graph tells it; else what was made of what while the step ran, or values.

        Args:
            loss: A tensor of one number, or a number; None where the step returned none.
        """
        every = range(len(self.results))
        followed = self._made_of(loss)
        pairs = [{self.nodes[i], getattr(self.results[i], "grad_fn", None)} - {None} for i in every]
        if isinstance(loss, Tensor) and loss.grad_fn is not None:
            behind = _behind(loss.grad_fn, set().union(*pairs))
            inside = {i for i in every if not behind.isdisjoint(pairs[i])}
            # A function with a backward of its own may compute its criterion without a graph.
            return [i in (inside or followed) for i in every]
        if followed:
            return [i in followed for i in every]
        equal = [_is_equal(loss, result) for result in self.results]
        if any(equal):
            return list(equal)
        # An optimization of the step's own, which returns no loss: what has no gradient is not trained on.
        return [False if any(pairs) and not pairs[i] else None for i in every]

    def weights(self, loss: Any) -> tuple[list[Tensor | None], Tensor | None]:
        """How much of each criterion is in the loss that the step returned, as its slope says, and of a model's own.

        None where that is not known: without a graph, as in an evaluation, or when it is gone.
        """
        parts = [*self.results, *self.own]
        known = [i for i, part in enumerate(parts) if isinstance(part, Tensor) and part.requires_grad]
        found: list[Tensor | None] = [None] * len(parts)
        if isinstance(loss, Tensor) and loss.grad_fn is not None and known:
            try:
                slopes = torch.autograd.grad(
                    loss.sum(), [parts[i] for i in known], retain_graph=True, allow_unused=True
                )
            except RuntimeError:  # a step that goes backwards itself has let go of the graph
                slopes = ()
            for i, slope in zip(known, slopes, strict=False):
                found[i] = None if slope is None else slope.sum().abs()
        own = [weight for weight in found[len(self.results) :] if weight is not None]
        return found[: len(self.results)], max(own, default=None)

    def is_of_own(self, loss: Any) -> bool:
        """Whether the loss that the step returned is made of one that a model computed by no known criterion."""
        return _OWN in self._made_of(loss)

    def clear(self) -> None:
        """Let go of the graphs."""
        self.own.clear()
        self.own_given.clear()
        self.results.clear()
        self.nodes.clear()
        self.made.clear()

    def _follow(self, result: Any, of: frozenset[int]) -> None:
        for one in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(one, Tensor):
                self.made[id(one)] = (one, of | self._made_of(one))

    def _made_of(self, *parts: Any) -> frozenset[int]:
        """The criteria that something is made of, or tensors in lists and dicts."""
        found: frozenset[int] = frozenset()
        for part in parts:
            if isinstance(part, Tensor):
                found |= self.made[id(part)][1] if id(part) in self.made else frozenset()
            elif isinstance(part, (list, tuple)):
                found |= self._made_of(*part)
            elif isinstance(part, Mapping):
                found |= self._made_of(*part.values())
        return found


def _behind(last: Any, wanted: set[Any]) -> set[Any]:
    """Which of some operations are behind the last one, as far as its graph is looked at: the nearest first."""
    found: set[Any] = set()
    seen, left = {last}, deque([last])
    while left and len(found) < len(wanted) and len(seen) < _MOST_NODES:
        node = left.popleft()
        if node in wanted:
            found.add(node)
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                left.append(before)
    return found


def _is_equal(loss: Any, result: Any) -> bool:
    """Whether what a criterion computed is the loss by its value."""
    if loss is None or not isinstance(result, Tensor) or result.numel() != 1:
        return False
    return abs(float(loss) - float(result)) <= 1e-6 * abs(float(loss))
