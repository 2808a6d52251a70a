"""Ids that something else than an embedding looks up: bags and tables of weights, beside autograd at the rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import xaicli

IDS = torch.tensor([[1, 5, 0, 0], [2, 2, 7, 0], [9, 3, 4, 6]])


class Bag(nn.Module):
    """Bags of ids, and the same from rows of embeddings."""

    def __init__(self, mode: str, padding: int | None = 0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.bag = nn.EmbeddingBag(12, 5, mode=mode, padding_idx=padding)
        self.head = nn.Linear(5, 3)
        self.mode, self.padding = mode, padding

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(3 * self.bag(ids)))

    def of_rows(self, rows: Tensor, ids: Tensor) -> Tensor:
        found = []
        for row, these in zip(rows, ids.tolist(), strict=True):
            kept = torch.stack([row[i] for i, token in enumerate(these) if token != self.padding])
            found.append({"sum": kept.sum(0), "mean": kept.mean(0), "max": kept.amax(0)}[self.mode])
        return self.head(torch.tanh(3 * torch.stack(found)))

    @property
    def table(self) -> Tensor:
        return self.bag.weight


class Table(nn.Module):
    """A table of weights, looked up in different ways."""

    def __init__(self, look: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.head, self.look = nn.Parameter(torch.randn(12, 5)), nn.Linear(5, 3), look

    def forward(self, ids: Tensor) -> Tensor:
        return self.of_rows(self.look(self.table, ids), ids)

    def of_rows(self, rows: Tensor, ids: Tensor) -> Tensor:
        del ids
        return self.head(torch.tanh(rows).mean(1))


LOOKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "table[ids]": lambda table, ids: table[ids],
    "negative ids": lambda table, ids: table[ids - 12],
    "index_select": lambda table, ids: table.index_select(0, ids.reshape(-1)).view(*ids.shape, -1),
}
MODELS: dict[str, Callable[[], Bag | Table]] = {
    **{f"bag, {mode}": lambda mode=mode: Bag(mode) for mode in ("sum", "mean", "max")},  # type: ignore[misc]
    "bag without padding": lambda: Bag("mean", None),
    **{name: lambda look=look: Table(look) for name, look in LOOKS.items()},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_explained_at_their_rows_of_the_table(name: str) -> None:
    model = MODELS[name]().eval()
    own = model(IDS).detach()
    rows = functional.embedding(IDS, model.table).detach().requires_grad_()
    scores = model.of_rows(rows, IDS)
    torch.testing.assert_close(scores, own)
    target = own.argmax(1)
    gradient = torch.autograd.grad(scores.gather(1, target[:, None]).sum(), rows)[0]
    found = xaicli.saliency(model, IDS, methods=("gradient", "integrated"), integrating=(64, 0), device="cpu")
    assert found.predictions.tolist() == target.tolist()
    assert found.attributions["gradient"].shape == (3, 4, 5)
    np.testing.assert_allclose(found.attributions["gradient"], gradient, atol=1e-5)
    assert found.maps["gradient"].shape == (3, 1, 4)
    if "max" not in name:
        assert np.nanmax(found.delta["integrated"]) < 0.05


def test_a_bag_with_a_weight_for_each_id() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.bag, self.head = nn.EmbeddingBag(12, 5, mode="sum"), nn.Linear(5, 3)

        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
            return self.head(self.bag(ids, per_sample_weights=scale))

    model, scale = Weighted().eval(), torch.rand(3, 4) + 0.5
    own = model(IDS, scale).detach()
    found = xaicli.saliency(model, {"ids": IDS, "scale": scale}, methods="gradient", device="cpu")
    at = model.head.weight[own.argmax(1)].detach()
    np.testing.assert_allclose(found.attributions["gradient"]["ids"], scale[..., None] * at[:, None], atol=1e-6)
    rows = functional.embedding(IDS, model.bag.weight).detach()
    np.testing.assert_allclose(found.attributions["gradient"]["scale"], (rows * at[:, None]).sum(-1), atol=1e-5)


@pytest.mark.parametrize("name", ["bag, mean", "table[ids]", "index_select"])
def test_a_checkpoint_of_such_a_model(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs(range(3), IDS)
        run.save_checkpoint(model, example_inputs=IDS[:2])
    command = [sys.executable, "-m", "xaicli", "saliency", str(tmp_path / "run"), "--model", "ckpt.pt", "-q"]
    command += ["--methods", "gradient", "--format", "json", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own = xaicli.saliency(model, IDS, methods="gradient", device="cpu")
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        np.testing.assert_allclose(maps["attribution/gradient"], own.attributions["gradient"], atol=1e-5)


def test_what_no_look_up_makes_explainable_is_refused_with_the_way_out() -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(functional.one_hot(ids, 12).float().mean(1))

    with pytest.raises(xaicli.XaiError, match="no input with a gradient") as said:
        xaicli.saliency(Codes(), IDS, methods="gradient", device="cpu")
    assert "EmbeddingBag" in said.value.hint
    assert "one-hot" in said.value.hint
    codes = functional.one_hot(IDS, 12).float()
    found = xaicli.saliency(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), codes, methods="gradient", device="cpu")
    assert found.attributions["gradient"].shape == (3, 4, 12)
