"""Forwards that differentiate by themselves, or write in place: explained as autograd explains them, or refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import xaicli

SAMPLES = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))


class Forward(nn.Module):
    """An energy, a linear head, and what a forward makes of both."""

    def __init__(self, made: Callable[[Forward, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.energy = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        self.head, self.made = nn.Linear(6, 3), made

    def forward(self, x: Tensor) -> Tensor:
        return self.made(self, x)


def _force(model: Forward, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (force,) = torch.autograd.grad(model.energy(x).sum(), x, create_graph=True)
    return model.head(torch.tanh(3 * force))


def _penalty(model: Forward, x: Tensor) -> Tensor:
    with torch.enable_grad():
        apart = x.detach().clone().requires_grad_()
        model.energy(apart).sum().backward()
    return model.head(x) + model.head(apart.grad)


def _func(model: Forward, x: Tensor) -> Tensor:
    return model.head(torch.func.vmap(torch.func.grad(lambda row: model.energy(row)[0]))(x))


def _directional(model: Forward, x: Tensor) -> Tensor:
    along = torch.func.jvp(lambda y: model.head(y).tanh(), (x,), (torch.ones_like(x),))[1]
    return model.head(x) + 3 * along


def _jacobian(model: Forward, x: Tensor) -> Tensor:
    return torch.func.jacfwd(lambda scale: model.head(x * scale).tanh())(torch.tensor(1.0))


def _dual(model: Forward, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        made = model.head(forward_ad.make_dual(x, torch.ones_like(x))).tanh()
        return model.head(x) + 3 * forward_ad.unpack_dual(made).tangent


def _without_graph(model: Forward, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (force,) = torch.autograd.grad(model.energy(x).sum(), x)
    return model.head(force)


def _relies_on_gradients(model: Forward, x: Tensor) -> Tensor:
    (force,) = torch.autograd.grad(model.energy(x).sum(), x, create_graph=True)
    return model.head(force)


def _view_of_the_input(model: Forward, x: Tensor) -> Tensor:
    x[:, :3].mul_(2)
    return model.head(x).tanh()


def _filled(model: Forward, x: Tensor) -> Tensor:
    made = x.new_zeros(x.shape)
    for place in range(6):
        made[:, place] = x[:, place] * x[:, place - 1]
    return model.head(made)


def _through_a_transpose(model: Forward, x: Tensor) -> Tensor:
    made = x.new_empty(6, len(x))
    made.t().copy_(x * x)
    return model.head(made.t())


def _spoiled(model: Forward, x: Tensor) -> Tensor:
    made = x.clone()
    made[:, 0] += made[:, 1] ** 2
    return model.head(made)


def _spoiled_all_over(model: Forward, x: Tensor) -> Tensor:
    made = x.clone()
    squares = made**2
    made.mul_(3)
    return model.head(squares + made)


def _chunk_in_place(model: Forward, x: Tensor) -> Tensor:
    one, other = x.chunk(2, 1)
    one += other
    return model.head(x)


EXPLAINED = (_force, _penalty, _func, _directional, _jacobian, _dual, _view_of_the_input, _filled, _through_a_transpose)


@pytest.mark.parametrize("made", EXPLAINED)
def test_gradients_are_those_of_autograd_and_nothing_of_the_model_changes(
    made: Callable[[Forward, Tensor], Tensor],
) -> None:
    model = Forward(made).eval()
    x = SAMPLES.clone().requires_grad_()
    scores = model(x.clone())
    (expected,) = torch.autograd.grad(scores.amax(1).sum(), x)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept = [parameter.grad for parameter in model.parameters()]
    samples = SAMPLES.clone()
    found = xaicli.saliency(model, samples, methods="gradient", task="classification", device="cpu")
    assert found.predictions.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(found.attributions["gradient"], expected, atol=1e-6)
    assert torch.equal(samples, SAMPLES)
    for parameter, gradient in zip(model.parameters(), kept, strict=True):
        assert parameter.grad is gradient
        assert bool((gradient == 1).all())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("made", "said", "tried"),
    [
        (_without_graph, "does not depend on its inputs through autograd", "create_graph=True"),
        (_relies_on_gradients, "does not require grad", "forward differentiates by itself"),
        (_spoiled, "autograd cannot differentiate it: .* modified by an inplace operation", "out of place"),
        (_spoiled_all_over, "autograd cannot differentiate it: .* modified by an inplace operation", "out of place"),
        (_chunk_in_place, "is a view and is being modified inplace", "out of place"),
    ],
)
def test_what_autograd_cannot_differentiate_is_refused_with_the_reason(
    made: Callable[[Forward, Tensor], Tensor], said: str, tried: str
) -> None:
    with pytest.raises(xaicli.XaiError, match=said) as told:
        xaicli.saliency(Forward(made), SAMPLES, methods="gradient", task="classification", device="cpu")
    assert tried in (told.value.hint or "")
