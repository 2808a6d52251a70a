"""Saliency on a device: the CPU's maps, the same bits from call to call, and the ways of checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from tests.gpu.device import DEVICE, HAS_CARD
from xaicli.recorder.run import Run

HOW: dict[str, Any] = {"smoothing": 6, "integrating": (6, 3), "precision": "fp32"}


class Cnn(nn.Sequential):
    """Convolutions with batch norms that are folded."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip


class Residual(nn.Module):
    """relu(body(x) + short(x)), as residual networks are made of."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(outside, outside, 1), nn.BatchNorm2d(outside))
        self.short = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


class Vit(nn.Module):
    """Patches, a class token, places made on the way, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Embedding(17, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.patch(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(len(x), -1, -1), rows], 1)
        rows = self.layer(rows + self.place(torch.arange(rows.shape[1], device=x.device)))
        out: Tensor = self.out(rows[:, 0])
        return out


class Bert(nn.Module):
    """Token ids with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.place = nn.Embedding(30, 16), nn.Embedding(12, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.out = nn.Linear(16, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.layer(self.words(input_ids) + self.place(places), src_key_padding_mask=attention_mask == 0)
        out: Tensor = self.out(hidden[:, 0])
        return out


class Lstm(nn.Module):
    """A recurrent layer behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(4, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.front(x).transpose(1, 2))
        out: Tensor = self.out(hidden[:, -1])
        return out


def given(name: str) -> tuple[nn.Module, Any]:
    """A model with weights of its own and six samples."""
    torch.manual_seed(0)
    model = {"cnn": Cnn, "vit": Vit, "bert": Bert, "lstm": Lstm}[name]().eval()
    if name == "bert":
        mask = torch.ones(6, 12, dtype=torch.long)
        mask[3:, 8:] = 0
        return model, {"input_ids": torch.randint(1, 30, (6, 12)), "attention_mask": mask}
    return model, torch.rand(6, 4, 20) if name == "lstm" else torch.rand(6, 3, 16, 16)


def arrays(result: Any, method: str) -> list[np.ndarray[Any, Any]]:
    found = result.attributions[method]
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", ["cnn", "vit", "bert", "lstm"])
def test_maps_are_those_of_the_cpu_and_their_bits_the_same(name: str) -> None:
    model, x = given(name)
    expected = xaicli.saliency(model, x, device="cpu", **HOW)
    found = xaicli.saliency(model, x, device=str(DEVICE), **HOW)
    again = xaicli.saliency(model, x, device=str(DEVICE), **HOW)
    for method in ("gradient", "smoothgrad", "integrated", "smint"):
        for one, other, twice in zip(*(arrays(r, method) for r in (expected, found, again)), strict=True):
            scale = float(np.abs(one).max())
            np.testing.assert_array_equal(other, twice, err_msg=method)
            np.testing.assert_allclose(other, one, atol=1e-3 * scale, err_msg=method)
    assert (found.data["prediction"] == expected.data["prediction"]).all()


@pytest.mark.parametrize("name", ["cnn", "vit", "bert", "lstm"])
def test_a_checkpoint_that_was_exported_is_explained_on_the_device(name: str, tmp_path: Path) -> None:
    for package in ("typer", "rich", "narwhals"):
        pytest.importorskip(package, reason=f"the command line needs {package}")
    model, x = given(name)
    inputs = x if isinstance(x, dict) else {"x": x}
    on_device = {key: value.to(DEVICE) for key, value in inputs.items()}
    with Run(tmp_path / "run", strict=True) as run:
        model.to(DEVICE)
        with torch.no_grad():
            logits = model(**on_device) if name == "bert" else model(on_device["x"])
        run.log_samples(sample_id=np.arange(6), logits=logits, label=logits.argmax(1), mode="eval", epoch=1, step=1)
        run.log_inputs(np.arange(6), on_device if name == "bert" else on_device["x"])
        path = run.save_checkpoint(model, example_inputs=on_device if name == "bert" else on_device["x"])
    assert path is not None
    command = ["saliency", str(tmp_path / "run"), "--model", "ckpt.pt", "--samples", "6", "--device", str(DEVICE)]
    ended = subprocess.run(
        [sys.executable, "-m", "xaicli", *command, "--integrating", "4,2", "--format", "json", "--json"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-1000:]
    rows = json.loads(ended.stdout)["rows"]
    assert {row["sample_id"]: row["prediction"] for row in rows} == dict(enumerate(logits.argmax(1).tolist()))


def test_memory_that_runs_out_makes_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.attribution.gradients import Gradients

    model, x = given("cnn")
    expected = xaicli.saliency(model, x, device=str(DEVICE), **HOW)
    own = Gradients._eager

    def scarce(self: Gradients, points: Any, units: Any) -> Any:
        if len(units) > 4:
            if HAS_CARD:
                torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self, points, units)

    monkeypatch.setattr(Gradients, "_eager", scarce)
    found = xaicli.saliency(model, x, device=str(DEVICE), **HOW)
    for one, other in zip(arrays(expected, "smint"), arrays(found, "smint"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3 * float(np.abs(one).max()))


@pytest.mark.card
def test_many_samples_go_through_one_captured_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.attribution import gradients

    made: list[int] = []
    failed: list[str] = []
    own = gradients.Captured.__init__

    def counted(self: Any, *args: Any) -> None:
        try:
            own(self, *args)
        except RuntimeError as error:  # which is no failure of the call: it says here why there is no graph
            failed.append(str(error))
            raise
        made.append(self.rows)

    monkeypatch.setattr(gradients.Captured, "__init__", counted)
    monkeypatch.setattr(gradients, "_GPU_ROWS", (32, 64))
    monkeypatch.setattr(gradients, "EAGER_CHUNKS", 4)
    torch.manual_seed(0)
    model, x = given("cnn")[0], torch.rand(40, 3, 16, 16)
    expected = xaicli.saliency(model, x, device="cpu", precision="fp32", integrating=(8, 3))
    found = xaicli.saliency(model, x, device=str(DEVICE), precision="fp32", integrating=(8, 3))
    assert (made, failed) == ([64], [])
    for one, other in zip(arrays(expected, "integrated"), arrays(found, "integrated"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3 * float(np.abs(one).max()))


@pytest.mark.card
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_tensor_cores_compute_maps_are_nearly_those_of_the_cpu(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product of bf16 is off by up to 2^-8, one of TF32 by 2^-11, so that a few ReLUs near zero switch: that moves
    single pixels by any part of the range, but neither their mean nor their order.
    """
    from xaicli.attribution.engine import Explainer
    from xaicli.attribution.maps import rank_correlation
    from xaicli.attribution.prepared import prepare
    from xaicli.attribution.settings import settle

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), Residual(32, 64), Residual(64, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    ).eval()  # fmt: skip
    x = torch.rand(6, 3, 32, 32)
    expected, found = (
        Explainer(
            prepare(model, x, device=device), settle(methods=("smint",), integrating=(16, 4), precision=asked)
        ).explain()
        for device, asked in (("cpu", "fp32"), (str(DEVICE), precision))
    )
    assert found.precision == precision
    for one, other in zip(expected.maps["smint"][""], found.maps["smint"][""], strict=True):
        assert rank_correlation(one, other) > (0.9975 if precision == "fp32" else 0.98)
        assert np.abs(one - other).mean() < (0.0025 if precision == "fp32" else 0.02)


@pytest.mark.card
@pytest.mark.two_cards
@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_another_device_than_the_first(name: str) -> None:
    model, x = given(name)
    expected = xaicli.saliency(model, x, device="cpu", **HOW)
    found = xaicli.saliency(model, x, device="cuda:1", **HOW)
    for one, other in zip(arrays(expected, "integrated"), arrays(found, "integrated"), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3 * float(np.abs(one).max()))
    assert torch.cuda.current_device() == 0
