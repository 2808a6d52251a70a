"""The seed's numbers (`--convention fe`): FastEstimator's Saliency before December 2020, on the same random draws.

Everything is taken over the whole batch: the noise range, the mid-grey baseline, and smint's baseline of each
noisy batch. The path sum over `linspace(0, 1, n)` is not divided, smint's first term is the raw squared
gradient, and with several inputs every gradient is multiplied by every input's difference.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from xaicli.attribution.gradients import Attributions, Problem, run
from xaicli.attribution.paths import add_rows
from xaicli.attribution.settings import GRADIENT, INTEGRATED, SMINT, SMOOTHGRAD, Settings
from xaicli.errors import XaiError


def explain(problem: Problem, settings: Settings) -> dict[str, Attributions]:
    """Gradient, smoothgrad, integrated and smint of a batch, each draw one `randn` of the batch per input.

    The draws come from one generator: smoothgrad's n - 1 first, then smint's.
    """
    x = problem.inputs
    if len({t.shape for t in x}) > 1 and {INTEGRATED, SMINT} & set(settings.methods):
        raise XaiError(
            "the fe convention multiplies every input's difference, and these inputs differ in shape",
            hint="use --convention xai",
        )
    draws = _draws(x, problem.sigma, settings.seed)
    clean = _sum_of_gradients(problem, x)
    found: dict[str, Attributions] = {}
    if GRADIENT in settings.methods:
        found[GRADIENT] = Attributions(clean)
    if SMOOTHGRAD in settings.methods:
        noisy = (_sum_of_gradients(problem, next(draws)) for _ in range(settings.draws - 1))
        found[SMOOTHGRAD] = _mean(clean, noisy, settings.draws, settings.signed)
    if INTEGRATED in settings.methods:
        found[INTEGRATED] = _integrated_with_trust(problem, settings)
    if SMINT in settings.methods:
        paths = (_path(problem, next(draws), settings.smint_steps) for _ in range(settings.smint_draws - 1))
        found[SMINT] = _mean(clean, paths, settings.smint_draws, settings.signed)
    return found


def _draws(x: list[Tensor], sigma: list[Tensor], seed: int) -> Iterator[list[Tensor]]:
    generator = torch.Generator(x[0].device).manual_seed(seed)
    while True:
        eps = [torch.randn(t.shape, generator=generator, dtype=t.dtype, device=t.device) for t in x]
        yield [t + s * e for t, s, e in zip(x, sigma, eps, strict=True)]


def _mean(clean: list[Tensor], terms: Iterator[list[Tensor]], n: int, signed: bool) -> Attributions:
    """The mean of the clean gradient and n - 1 terms, squared unless signed."""

    def term(values: list[Tensor]) -> list[Tensor]:
        return [v.clone() if signed else v.square() for v in values]

    halves = [term(clean), [torch.zeros_like(v) for v in clean]]
    for number, values in enumerate(terms, start=1):
        for into, value in zip(halves[number % 2], term(values), strict=True):
            into += value
    total = [(a + b) / n for a, b in zip(*halves, strict=True)]
    return Attributions(total, (halves[0], halves[1]) if n > 1 else None)


def _mid_grey(x: list[Tensor]) -> list[Tensor]:
    return [(t.max() + t.min()) / 2 for t in x]


def _path(problem: Problem, x: list[Tensor], steps: int) -> list[Tensor]:
    base = _mid_grey(x)
    return _times_differences(_sum_of_gradients(problem, x, base, torch.linspace(0, 1, steps)), x, base)


def _times_differences(sums: list[Tensor], x: list[Tensor], base: list[Tensor]) -> list[Tensor]:
    product = torch.ones_like(x[0])
    for t, b in zip(x, base, strict=True):
        product = product * (t - b)
    return [s * product for s in sums]


def _integrated_with_trust(problem: Problem, settings: Settings) -> Attributions:
    """The undivided path sum; its completeness is judged after division by the steps."""
    x, n = problem.inputs, settings.steps
    base = _mid_grey(x)
    total = _path(problem, x, n)
    units = torch.arange(problem.n_units, device=x[0].device)
    start = problem.forward([b.expand_as(t) for b, t in zip(base, x, strict=True)], units)
    sums = torch.stack([t.reshape(len(t), -1).double().sum(1) for t in total]).sum(0) / n
    return Attributions(total, sums=sums, differences=problem.clean - start)


def _sum_of_gradients(
    problem: Problem, x: list[Tensor], base: list[Tensor] | None = None, alphas: Tensor | None = None
) -> list[Tensor]:
    """Each unit's sum of gradients at `base + alpha (x - base)` over all alphas, or its gradient at `x`."""
    total = [torch.zeros_like(t) for t in x]
    n, device = problem.n_units, x[0].device

    def make(first: int, last: int) -> tuple[list[Tensor], Tensor]:
        rows = torch.arange(first, last, device=device)
        units = rows % n
        if base is None or alphas is None:
            return [t[units] for t in x], units
        alpha = alphas.to(device)[rows // n]
        shaped = [alpha.view(-1, *[1] * (t.ndim - 1)).to(t.dtype) for t in x]
        return [b + a * (t[units] - b) for t, b, a in zip(x, base, shaped, strict=True)], units

    def take(first: int, last: int, gradients: list[Tensor]) -> None:
        units = torch.arange(first, last, device=device) % n
        for into, g in zip(total, gradients, strict=True):
            add_rows(into, np.arange(first, last) % n, units, g)

    run(problem.gradients, n * (1 if alphas is None else len(alphas)), make, take, problem.progress)
    return total
