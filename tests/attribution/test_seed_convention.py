"""`--convention fe` against a plain loop of the seed's algorithm on the same random draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from tests.attribution.attributing import attribute
from tests.attribution.nets import conv_net


class SeedLoop:
    """The seed's Saliency as its design note describes it, batch by batch."""

    def __init__(self, model: nn.Module, x: Tensor, signed: bool = False) -> None:
        self.model, self.x, self.signed = model, x, signed
        self.target = model(x).argmax(1)
        self.sigma = 0.15 * (x.max() - x.min())

    def gradient(self, z: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        y = self.model(z)
        return torch.autograd.grad(y.gather(1, self.target[:, None]).sum(), z)[0]

    def square(self, m: Tensor) -> Tensor:
        return m if self.signed else m**2

    def smoothed(self, n: int) -> Tensor:
        m = self.square(self.gradient(self.x))
        for _ in range(n - 1):
            m = m + self.square(self.gradient(self.x + self.sigma * torch.randn_like(self.x)))
        return m / n

    def integrated(self, x: Tensor, n: int) -> Tensor:
        b = (x.max() + x.min()) / 2
        return sum(self.gradient(b + a * (x - b)) for a in torch.linspace(0, 1, n)) * (x - b)  # type: ignore[return-value]

    def smint(self, n_integrated: int, n_smooth: int) -> Tensor:
        m = self.square(self.gradient(self.x))
        for _ in range(n_smooth - 1):
            m = m + self.square(self.integrated(self.x + self.sigma * torch.randn_like(self.x), n_integrated))
        return m / n_smooth


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("integrating", [(6, 4), [6, 4]])
def test_the_seeds_numbers_on_the_same_draws(signed: bool, integrating: tuple[int, int]) -> None:
    torch.set_num_threads(1)
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    loop = SeedLoop(model, x, signed)
    torch.manual_seed(11)
    smoothed = loop.smoothed(5)
    integrated = loop.integrated(x, 6)
    smint = loop.smint(6, 4)
    a = attribute(model, x, convention="fe", smoothing=5, integrating=integrating, seed=11, signed=signed)
    expected = {"gradient": loop.gradient(x), "smoothgrad": smoothed, "integrated": integrated, "smint": smint}
    for method, values in expected.items():
        scale = float(values.abs().max())
        assert np.allclose(a.attributions[method][""], values, atol=1e-5 * scale, rtol=1e-4), method


def test_one_number_leaves_smint_the_draws_of_smoothing() -> None:
    model, x = conv_net(), torch.randn(2, 2, 8, 8)
    loop = SeedLoop(model, x)
    torch.manual_seed(0)
    loop.smoothed(3)
    expected = loop.smint(4, 3)
    a = attribute(model, x, convention="fe", smoothing=3, integrating=4, seed=0)
    assert np.allclose(a.attributions["smint"][""], expected, rtol=1e-3, atol=1e-6)


def test_a_zero_disables() -> None:
    model, x = conv_net(), torch.randn(2, 2, 8, 8)
    assert set(attribute(model, x, convention="fe", smoothing=0, integrating=(4, 2)).maps) == {
        "gradient",
        "integrated",
        "smint",
    }
    assert set(attribute(model, x, convention="fe", smoothing=3, integrating=0).maps) == {"gradient", "smoothgrad"}
    assert set(attribute(model, x, convention="fe", smoothing=3, integrating=(4, 0)).maps) == {
        "gradient",
        "smoothgrad",
        "integrated",
    }


def test_several_inputs_are_multiplied_by_every_difference() -> None:
    linear = nn.Linear(3, 2)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.linear(a) + 2 * self.linear(b)

    a, b = torch.randn(2, 3), torch.randn(2, 3)
    found = attribute(Two(), {"a": a, "b": b}, target=1, methods=("integrated",), integrating=(4, 1), convention="fe")
    product = (a - (a.max() + a.min()) / 2) * (b - (b.max() + b.min()) / 2)
    w = linear.weight[1].detach()
    assert np.allclose(found.attributions["integrated"]["a"], 4 * w * product, atol=1e-5)
    assert np.allclose(found.attributions["integrated"]["b"], 8 * w * product, atol=1e-5)


@pytest.mark.parametrize("baseline", ["zero", "black", "blur", "uniform"])
def test_another_baseline_than_mid_grey_is_refused(baseline: str) -> None:
    model, x = nn.Linear(3, 2), torch.randn(2, 3)
    with pytest.raises(xaicli.XaiError, match="the baseline of the fe convention is mid-grey") as said:
        attribute(model, x, convention="fe", baseline=baseline)
    assert said.value.hint == "leave out baseline"
    assert len(attribute(model, x, convention="fe", baseline="mid").targets) == 2
