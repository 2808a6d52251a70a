"""When the gradient passes run in bf16: a rule of the hardware and of the work in one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.attribution.attributing import attribute
from tests.attribution.nets import conv_net
from xaicli.attribution import frozen as frozen_model
from xaicli.attribution.frozen import FrozenModel, has_fast_bf16, work_of
from xaicli.heads.calling import Call

CPU = torch.device("cpu")
AMX = {"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}
PLAIN = {"cpu_name": "Intel Xeon", "avx2": True}


def hardware(monkeypatch: pytest.MonkeyPatch, known: Mapping[str, Any]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)


@pytest.mark.parametrize(
    ("known", "fast"),
    [
        (AMX, True),
        ({"cpu_name": "AMD EPYC 9565", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        (PLAIN, False),
        ({}, False),
    ],
)
def test_bf16_is_fast_where_it_doubles_the_rate(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], fast: bool
) -> None:
    hardware(monkeypatch, known)
    assert has_fast_bf16(CPU) is fast


def frozen(model: nn.Module) -> FrozenModel:
    return FrozenModel(model, Call((0,)), device=CPU, batch=None)


def test_the_work_of_an_evaluation_is_that_of_its_products() -> None:
    linear = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    assert work_of(frozen(linear), [torch.randn(5, 30)]) == 2 * (30 * 20 + 20 * 10)
    convolution = nn.Conv2d(2, 6, 3, padding=1)
    x = torch.randn(5, 2, 8, 8)
    assert work_of(frozen(convolution), [x]) == 2 * 6 * 2 * 9 * 64
    graph = torch.export.export(convolution, (x,)).module()
    model = FrozenModel(graph, Call((0,)), device=CPU, batch=5)
    assert work_of(model, [x]) == 2 * 6 * 2 * 9 * 64


def test_small_models_are_exact_on_any_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    hardware(monkeypatch, PLAIN)
    expected = attribute(model, x)
    hardware(monkeypatch, AMX)
    found = attribute(model, x)
    assert found.precision == "fp32"
    for method in expected.maps:
        assert np.array_equal(expected.attributions[method][""], found.attributions[method][""])


def test_large_models_take_bf16_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_model, "_LEAST_WORK", 1e4)
    model, x = conv_net(), torch.randn(3, 2, 8, 8)

    def chosen(asked: str = "auto") -> str:
        return attribute(model, x, methods=("gradient",), precision=asked).precision

    hardware(monkeypatch, AMX)
    assert (chosen(), chosen("fp32")) == ("bf16", "fp32")
    hardware(monkeypatch, PLAIN)
    assert (chosen(), chosen("bf16")) == ("fp32", "bf16")


def test_the_precision_of_a_sample_does_not_depend_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, AMX)
    model, x = conv_net(), torch.randn(9, 2, 8, 8)
    monkeypatch.setattr(frozen_model, "_LEAST_WORK", 1.01 * work_of(frozen(model), [x]))
    assert attribute(model, x, methods=("gradient",)).precision == "fp32"


class WithoutBf16(nn.Module):
    """What runs in fp32 only, or says something else in bf16."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.linear, self.raises = nn.Linear(4, 3), raises

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16 and self.raises:
            raise RuntimeError("not implemented for 'BFloat16'")
        return self.linear(x) * (5 if x.dtype == torch.bfloat16 else 1)


@pytest.mark.parametrize("raises", [True, False])
def test_a_model_that_bf16_does_not_suit_runs_in_fp32(monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    monkeypatch.setattr(frozen_model, "_LEAST_WORK", 0)
    hardware(monkeypatch, AMX)
    model = WithoutBf16(raises=raises)
    found = attribute(model, torch.randn(2, 4), target=1, methods=("gradient",))
    assert found.precision == "fp32"
    assert np.allclose(found.attributions["gradient"][""], model.linear.weight[1].detach().numpy())
