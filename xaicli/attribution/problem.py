"""What is to be differentiated: inputs, explanations of them (units), and the frozen model behind one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xaicli.attribution.batching import Gradients
from xaicli.attribution.stem import Stem


@dataclass
class Problem:
    """One output of one model for some units; a unit is a (sample, target) to be explained.

    Attributes:
        inputs: The differentiable inputs, each (unit, ...), float.
        baselines: One per input, broadcasting to it.
        sigma: Standard deviation of the noise per input, broadcasting to it.
        gradients: Input gradients of the units' targets.
        forward: (points, units) -> (row,), the explained scalars, never in bf16.
        probability: (points, units) -> (row,), the targets' probabilities, or the scalars of a function.
        clean: (unit,), the explained scalars of the inputs themselves.
        progress: Told the number of rows done.
        stem: The first layer, where it can be done once per path.
        gradients_behind_stem: As `gradients`, with respect to the stem's output.
    """

    inputs: list[Tensor]
    baselines: list[Tensor]
    sigma: list[Tensor]
    gradients: Gradients
    forward: Callable[[Sequence[Tensor], Tensor], Tensor]
    probability: Callable[[Sequence[Tensor], Tensor], Tensor]
    clean: Tensor
    progress: Callable[[int], None]
    stem: Stem | None = None
    gradients_behind_stem: Gradients | None = None

    @property
    def n_units(self) -> int:
        """How many explanations are computed side by side."""
        return len(self.inputs[0])

    @property
    def evaluations(self) -> int:
        """Gradient evaluations made."""
        behind = self.gradients_behind_stem
        return self.gradients.evaluations + (behind.evaluations if behind else 0)

    def only(self, units: Tensor) -> Problem:
        """The problem of some of the units."""
        forward, probability = self.forward, self.probability
        return Problem(
            inputs=[x[units] for x in self.inputs],
            baselines=self.pick(self.baselines, units),
            sigma=self.pick(self.sigma, units),
            gradients=self.gradients.only(units),
            forward=lambda points, rows: forward(points, units[rows]),
            probability=lambda points, rows: probability(points, units[rows]),
            clean=self.clean[units],
            progress=self.progress,
            stem=self.stem,
            gradients_behind_stem=self.gradients_behind_stem.only(units) if self.gradients_behind_stem else None,
        )

    def pick(self, values: Sequence[Tensor], units: Tensor) -> list[Tensor]:
        """Rows of per-unit tensors; what broadcasts over units stays as it is."""
        return [value if len(value) == 1 else value[units] for value in values]


@dataclass(frozen=True)
class Attributions:
    """One method's result.

    Attributes:
        total: Per input (unit, ...).
        halves: The same from two halves of the draws or steps, per input (unit, ...); None where there is one draw.
        sums: (unit,), the paths' mean sum of attributions over all inputs; None without a path.
        differences: (unit,), the paths' mean f(x) - f(baseline), likewise.
    """

    total: list[Tensor]
    halves: tuple[list[Tensor], list[Tensor]] | None = None
    sums: Tensor | None = None
    differences: Tensor | None = None


def draws_of(inputs: Sequence[Tensor], n: int, *, seed: int, skip: int = 0) -> list[Tensor]:
    """Standard normal draws shared by all samples, so that a sample's map does not depend on its neighbours.

    Args:
        n: How many.
        skip: Leave out so many first, to add to earlier ones.

    Returns:
        Per input (n + 1, ...): row 0 is zero, the clean input.
    """
    device = inputs[0].device
    found: list[Tensor] = []
    for position, x in enumerate(inputs):
        eps = torch.zeros((n + 1, *x.shape[1:]), dtype=x.dtype, device=device)
        for draw in range(n):
            # One seed per draw: more draws repeat the earlier ones.
            number = (seed * 1_000_003 + (skip + draw) * 101 + position) & 0x7FFF_FFFF_FFFF_FFFF
            generator = torch.Generator(device).manual_seed(number)
            eps[draw + 1] = torch.randn(x.shape[1:], generator=generator, dtype=x.dtype, device=device)
        found.append(eps)
    return found
