"""Losses a place that a step weighs itself: a target is no mask of them, an evaluation counts as the training did."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

N, CLASSES = 16, 3
SEED = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, 4, 5, generator=SEED)
CELLS = (X[:, :1] > 0).float()
KINDS = X.argmax(1)
NUMBERS = torch.randn(N, 5, generator=SEED)
VALID = torch.rand(N, 5, generator=SEED) > 0.4
VALID[:, 0] = True
TAGS = torch.randint(0, CLASSES, (N, 5), generator=SEED)


def net_of(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in layers:
        for part in layer.parameters():
            nn.init.normal_(part)
    return nn.Sequential(*layers)


def per_picture(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    each = functional.binary_cross_entropy_with_logits(net(batch["x"]), batch["mask"], reduction="none")
    return each.mean((1, 2, 3)).mean(), None


def focal(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    each = functional.binary_cross_entropy_with_logits(net(batch["x"]), batch["mask"], reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean(), None


def of_whole_numbers(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    target = (batch["mask"] * 255).long() / 255
    each = functional.binary_cross_entropy_with_logits(net(batch["x"]), target, reduction="none")
    return (each**1.5).mean(), None


def watched(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    logits = net(batch["x"])
    figure = functional.binary_cross_entropy_with_logits(logits.detach(), batch["mask"], reduction="none")
    return functional.binary_cross_entropy_with_logits(logits, batch["mask"]), figure.mean((1, 2, 3)).max()


def kinds_per_picture(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    each = functional.cross_entropy(net(batch["x"]), batch["mask"], reduction="none")
    return each.mean((1, 2)).sum(), None


def kinds_watched(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    logits = net(batch["x"])
    figure = functional.cross_entropy(logits.detach(), batch["mask"], reduction="none").max()
    return functional.cross_entropy(logits, batch["mask"]), figure


def numbers_masked(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    each = functional.mse_loss(net(batch["x"]), batch["label"], reduction="none")
    return (each * batch["mask"]).sum() / batch["mask"].sum(), None


def tags_masked(net: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
    logits = net(batch["x"]).unflatten(1, (CLASSES, 5))
    each = functional.cross_entropy(logits, batch["label"], reduction="none")
    return (each * batch["mask"]).sum() / batch["mask"].sum(), None


def rows_of(
    folder: Path, net: nn.Module, step: Any, data: list[Any], *, returns: bool, fits: bool = True
) -> tuple[pl.DataFrame, list[str], int]:
    """The rows of a training that changes nothing and of its validation, what xai said, and the dropped rows."""
    lightning = pytest.importorskip("lightning.pytorch")
    from xaicli.integrations.lightning import XaiCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def run(self, batch: Any, name: str) -> torch.Tensor:
            loss, figure = step(self.net, batch)
            self.log(name, loss)
            if figure is not None:
                self.log(f"{name}_figure", figure)
            return loss  # type: ignore[no-any-return]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return self.run(batch, "train")

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            loss = self.run(batch, "val")
            return loss if returns else None

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    callback = XaiCallback(folder / "run", save_checkpoint=False)
    trainer, loader = quiet_trainer(callback, folder, max_epochs=1), DataLoader(data, batch_size=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if fits:
            trainer.fit(Module(), loader, loader)
        else:
            trainer.validate(Module(), loader, verbose=False)
    found = folder / "run" / "data"
    frame = xaicli.open_run(folder / "run").scan(mode="all").collect() if found.exists() else pl.DataFrame()
    return frame, said_by_xai(caught), callback.run.stats()["rows_dropped"]


def are_of(frame: pl.DataFrame, mode: str, losses: torch.Tensor) -> bool:
    rows = frame.filter(pl.col("mode") == mode).sort("sample_id")
    assert rows["sample_id"].to_list() == list(range(N))
    assert rows["loss"].to_list() == pytest.approx(losses.tolist(), rel=1e-4)
    return True


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize(
    "step",
    [per_picture, focal, of_whole_numbers, watched, kinds_per_picture, kinds_watched],
    ids=lambda one: one.__name__,
)
def test_a_target_that_is_called_a_mask_is_none(tmp_path: Path, step: Any, returns: bool) -> None:
    are_kinds = step in (kinds_per_picture, kinds_watched)
    net, target = net_of(nn.Conv2d(3, CLASSES if are_kinds else 1, 3, padding=1)), KINDS if are_kinds else CELLS
    data = [{"sample_id": i, "x": X[i], "mask": target[i]} for i in range(N)]
    frame, said, dropped = rows_of(tmp_path, net, step, data, returns=returns)
    with torch.no_grad():
        criterion = functional.cross_entropy if are_kinds else functional.binary_cross_entropy_with_logits
        each = criterion(net(X), target, reduction="none").flatten(1).mean(1)
    assert all(are_of(frame, mode, each) for mode in ("train", "eval"))
    assert (said, dropped) == ([], 0)


def masked(step: Any) -> tuple[nn.Module, list[Any], torch.Tensor]:
    """A net, its data with a mask of what counts, and the mean loss of what does of each sample."""
    net = net_of(nn.Flatten(), nn.Linear(60, 5 if step is numbers_masked else 5 * CLASSES))
    labels = NUMBERS if step is numbers_masked else TAGS
    with torch.no_grad():
        if step is numbers_masked:
            each = functional.mse_loss(net(X), labels, reduction="none")
        else:
            each = functional.cross_entropy(net(X).unflatten(1, (CLASSES, 5)), labels, reduction="none")
    data = [{"sample_id": i, "x": X[i], "label": labels[i], "mask": VALID[i].long()} for i in range(N)]
    return net, data, (each * VALID).sum(1) / VALID.sum(1)


@pytest.mark.parametrize("step", [numbers_masked, tags_masked])
def test_an_evaluation_that_returns_no_loss_has_the_mask_of_the_training(tmp_path: Path, step: Any) -> None:
    net, data, each = masked(step)
    frame, said, dropped = rows_of(tmp_path, net, step, data, returns=False)
    assert all(are_of(frame, mode, each) for mode in ("train", "eval"))
    assert (said, dropped) == ([], 0)


@pytest.mark.parametrize("step", [numbers_masked, tags_masked])
def test_an_evaluation_alone_is_asked_for_its_loss(tmp_path: Path, step: Any) -> None:
    net, data, each = masked(step)
    frame, said, dropped = rows_of(tmp_path / "asked", net, step, data, returns=False, fits=False)
    assert (len(frame), dropped) == (0, N)
    assert ["end it with return loss" in one for one in said] == [True]
    frame, said, dropped = rows_of(tmp_path / "returned", net, step, data, returns=True, fits=False)
    assert are_of(frame, "eval", each)
    assert (said, dropped) == ([], 0)
