"""torchdata's loader, whose walks can be saved, beside both callbacks: the training is the same to the last bit."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

N = 12
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))


class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        del batch_idx
        return functional.cross_entropy(self.net(batch[-2]), batch[-1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def fitted(folder: Path, data: list[Any], workers: int, callbacks: list[Any]) -> tuple[Any, Any, list[str]]:
    """Weights, the loader's state after the training, and what was said."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(1)
    loader, model = torchdata.StatefulDataLoader(data, batch_size=4, shuffle=True, num_workers=workers), Net()
    trainer = quiet_trainer(callbacks, folder, max_epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, loader)
    said = said_by_xai(caught)
    return model.state_dict(), loader.state_dict(), said


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("with_ids", [True, False])
def test_lightning_walks_as_without_the_callback(tmp_path: Path, workers: int, with_ids: bool) -> None:
    from xaicli.integrations.lightning import XaiCallback

    data = [(*([100 + i] if with_ids else []), X[i], i % 2) for i in range(N)]
    alone = fitted(tmp_path, data, workers, [])
    beside = fitted(tmp_path, data, workers, [XaiCallback(tmp_path / "run", save_checkpoint=False)])
    assert same(alone[:2], beside[:2])
    counts = xaicli.open_run(tmp_path / "run").reader().counts()
    if not with_ids:  # whose rows its own walk gives is asked for, never guessed
        assert ["made anew by its own walk" in one and "let the dataset yield ids" in one
                for one in beside[2]] == [True]  # fmt: skip
        assert counts.dropped == 2 * N
        return
    rows = pl.read_parquet(tmp_path / "run" / "data")
    assert (beside[2], counts.dropped) == ([], 0)
    assert sorted(rows.select("epoch", "sample_id", "label").iter_rows()) == [
        (epoch, 100 + i, i % 2) for epoch in (1, 2) for i in range(N)
    ]


def test_a_trainer_of_transformers_walks_as_without_the_callback(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    tokens = torch.randint(0, 20, (N, 5), generator=torch.Generator().manual_seed(0))
    data = [{"sample_id": 100 + i, "input_ids": tokens[i], "labels": i % 2} for i in range(N)]
    without = [{name: value for name, value in one.items() if name != "sample_id"} for one in data]

    def trained(callbacks: list[Any]) -> tuple[Any, Any]:
        loader = torchdata.StatefulDataLoader(
            data if callbacks else without, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(2)
        )

        class Loading(transformers.Trainer):  # type: ignore[misc, name-defined]
            def get_train_dataloader(self) -> Any:
                return loader

        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        model = transformers.BertForSequenceClassification(config)
        arguments = transformers.TrainingArguments(
            str(tmp_path / "out"), num_train_epochs=2, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True
        )
        Loading(model=model, args=arguments, train_dataset=data, callbacks=callbacks).train()
        return model.state_dict(), loader.state_dict()

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    assert same(trained([]), trained([callback]))
    rows = pl.read_parquet(tmp_path / "run" / "data")
    assert sorted(rows.select("epoch", "sample_id", "label").iter_rows()) == [
        (epoch, 100 + i, i % 2) for epoch in (1, 2) for i in range(N)
    ]
