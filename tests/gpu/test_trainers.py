"""The callbacks where the trainers run on a device."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.gpu.device import HAS_CARD

N = 32
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
    from xaicli.integrations.lightning import XaiCallback

    class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, 2)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return functional.cross_entropy(self.net(batch[1]), batch[2])

        validation_step = training_step

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    loader = DataLoader([(i, X[i], int(Y[i])) for i in range(N)], 8, pin_memory=HAS_CARD)  # type: ignore[arg-type]
    model = Classifier()
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)], logger=False, devices=1,
        accelerator="gpu" if HAS_CARD else "cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader, loader)
    with torch.no_grad():
        expected = functional.cross_entropy(model.cpu().net(X), Y, reduction="none").tolist()
    for mode in ("train", "eval"):
        found = pl.read_parquet(tmp_path / "run" / "data").filter(mode=mode, epoch=2).sort("sample_id")
        assert found["label"].to_list() == Y.tolist()
        assert found["loss"].to_list() == pytest.approx(expected, abs=1e-5)


def test_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(1, 20, (N, 8), generator=torch.Generator().manual_seed(1))
    data = [{"sample_id": f"s{i:02}", "input_ids": tokens[i], "labels": tokens[i]} for i in range(N)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=8, learning_rate=0.0,
        report_to=[], save_strategy="no", use_cpu=not HAS_CARD, disable_tqdm=True,
    )  # fmt: skip
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback]).train()
    model.cpu().eval()
    with torch.no_grad():
        logits = model(tokens).logits[:, :-1]
    each = functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1).tolist()
    found = pl.read_parquet(tmp_path / "run" / "data").sort("sample_id")
    assert found["loss"].to_list() == pytest.approx(each, abs=1e-4)
