"""Steps that compare the samples of a batch with one another, which answer with no classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N, EPOCHS = 17, 2
"""Of batches of four the last holds one."""
A = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
B = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
KEPT = torch.arange(4)
"""Places that no step makes."""


class Pairs(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Two encoders, and a head of four classes."""

    def __init__(self, step: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 4)
        self.step = step

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return self.step(self, batch)

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def compared(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.one(a) @ self.other(b).T  # type: ignore[no-any-return]


def fit(step: Callable[[Any, Any], Any], data: Any, path: Path, *, shuffle: bool = True, size: int = 4) -> Any:
    """The rows of a run, or None of one that holds none, how many it dropped, and what was said."""
    from xaicli.integrations.lightning import XaiCallback

    trainer = quiet_trainer(
        XaiCallback(path / "run", save_checkpoint=False), path, max_epochs=EPOCHS, num_sanity_val_steps=0
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(0)
        trainer.fit(Pairs(step), DataLoader(data, size, shuffle=shuffle), DataLoader(data, size))
    said = said_by_xai(caught)
    files = sorted((path / "run" / "data").rglob("*.parquet"))
    found = pl.read_parquet(path / "run" / "data") if files else None
    return found, xaicli.open_run(path / "run").info().answer.counts.dropped, said


def both_ways(model: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    scores, places = model.compared(a, b), torch.arange(len(a))
    return (functional.cross_entropy(scores, places) + functional.cross_entropy(scores.T, places)) / 2


def kept_places(model: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model.compared(a, b), KEPT[: len(a)])


def as_rows(model: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(model.compared(a, b), torch.eye(len(a)))


def returned(model: Any, a: torch.Tensor, b: torch.Tensor) -> Any:
    scores = model.compared(a, b)
    loss = functional.cross_entropy(scores, torch.arange(len(a)))
    return {"loss": loss, "logits": scores}


@pytest.mark.parametrize("loss", [both_ways, kept_places, as_rows, returned])
@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ([(i, A[i], B[i]) for i in range(N)], lambda batch: batch[1:]),
        ([(f"a{i}.png", A[i], B[i]) for i in range(N)], lambda batch: batch[1:]),
        ([{"sample_id": i, "image": A[i], "text": B[i]} for i in range(N)], lambda b: (b["image"], b["text"])),
        ([(A[i], B[i]) for i in range(N)], lambda batch: batch),
        ([(i, A[i], i % 4) for i in range(N)], lambda batch: (batch[1], batch[1].flip(1))),
    ],
)
def test_no_row_is_of_a_place_in_the_batch(loss: Any, data: Any, parts: Any, tmp_path: Path) -> None:
    found, dropped, said = fit(lambda model, batch: loss(model, *parts(batch)), data, tmp_path)
    assert found is None
    assert dropped == 2 * EPOCHS * N
    assert sum("compares the samples of a batch with one another" in one for one in said) == 2


def test_a_batch_of_two_is_told_by_the_places_that_a_step_makes(tmp_path: Path) -> None:
    data = [(i, A[i], B[i]) for i in range(N)]
    found, dropped, _ = fit(lambda model, batch: both_ways(model, *batch[1:]), data, tmp_path, size=2)
    assert (found, dropped) == (None, 2 * EPOCHS * N)


@pytest.mark.parametrize(
    "label",
    [
        lambda y: y,
        lambda y: y.int().long(),  # another tensor of the same values
        lambda y: (y + 1) % 4,
        lambda y: torch.tensor([0, 1, 2, 3])[y],
    ],
)
@pytest.mark.parametrize("shift", [0, 3])
def test_as_many_classes_as_the_batch_has_rows_are_classes(label: Any, shift: int, tmp_path: Path) -> None:
    """Of every batch each row is of the next class, so that the labels, or what is made of them, are places."""
    data = [(100 + i, A[i], (i + shift) % 4) for i in range(16)]

    def step(model: Any, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(model.head(batch[1]), label(batch[2]))

    found, dropped, said = fit(step, data, tmp_path, shuffle=False)
    assert (dropped, said) == (0, [])
    last = found.filter((pl.col("mode") == "train") & (pl.col("epoch") == EPOCHS)).sort("sample_id")
    expected = label(torch.tensor([one[2] for one in data]))
    assert last["label"].to_list() == expected.tolist()
    scores = Pairs(step).head(A[:16])
    losses = functional.cross_entropy(scores, expected, reduction="none")
    assert last["loss"].to_list() == pytest.approx(losses.tolist(), abs=1e-5)
    assert last["prediction"].to_list() == scores.argmax(1).tolist()


def test_classes_beside_a_comparison_are_recorded(tmp_path: Path) -> None:
    data = [(i, A[i], i % 4) for i in range(N)]

    def step(model: Any, batch: Any) -> torch.Tensor:
        own = functional.cross_entropy(model.head(batch[1]), batch[2])
        return own + both_ways(model, batch[1], batch[1].flip(1))

    found, dropped, _ = fit(step, data, tmp_path)
    assert dropped == 0
    last = found.filter((pl.col("mode") == "eval") & (pl.col("epoch") == EPOCHS)).sort("sample_id")
    expected = torch.tensor([i % 4 for i in range(N)])
    assert last["label"].to_list() == expected.tolist()
    losses = functional.cross_entropy(Pairs(step).head(A), expected, reduction="none")
    assert last["loss"].to_list() == pytest.approx(losses.tolist(), abs=1e-5)
