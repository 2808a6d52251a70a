"""The Lightning callback, with Lightning training a tiny model."""

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

import xaicli
from xaicli.checkpoint.load import load_checkpoint
from xaicli.recorder.run import Run

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N, EPOCHS = 24, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
DATA = [(100 + i, X[i], int(Y[i])) for i in range(N)]


class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """A linear classifier that remembers its training losses sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.losses: list[tuple[int, int, float]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        del batch_idx
        ids, x, y = batch
        loss = functional.cross_entropy(self(x), y, reduction="none")
        self.losses += [(self.current_epoch + 1, int(i), float(v)) for i, v in zip(ids, loss, strict=True)]
        self.log("train_loss", loss.mean())
        return loss.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        del batch_idx
        self(batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.3)


def fit(model: Any, callback: Any, path: Path, **options: Any) -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        **{"max_epochs": EPOCHS, **options},
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|torch")
        trainer.fit(model, DataLoader(DATA, batch_size=8, shuffle=True), DataLoader(DATA, batch_size=8))
    return trainer


def rows(run: Path, mode: str) -> pl.DataFrame:
    return pl.read_parquet(run / "data" / f"mode={mode}" / "**" / "*.parquet")


def test_samples_tables_checkpoint_and_inputs_are_recorded(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    model = Classifier()
    table = xaicli.Table.from_arrays(X, Y, name="val")
    callback = XaiCallback(
        tmp_path / "run",
        tables={"val": table},
        collectors=[xaicli.ClassificationMetricsCollector(["no", "yes"])],
        collect_epochs=[1, 3],
        collect_before=True,
        keep_inputs=5,
        label_names=["no", "yes"],
    )
    fit(model, callback, tmp_path)
    run = tmp_path / "run"
    train = rows(run, "train")
    logged = {(e, i): loss for e, i, loss in train.select("epoch", "sample_id", "loss").iter_rows()}
    assert len(logged) == N * EPOCHS
    for epoch, sample, loss in model.losses:
        assert logged[epoch, sample] == pytest.approx(loss, abs=1e-5)
    assert sorted(train["step"].unique()) == list(range(1, 10))
    assert dict(zip(train["sample_id"], train["label"], strict=True)) == {100 + i: int(y) for i, y in enumerate(Y)}
    evaluated = rows(run, "eval")
    assert len(evaluated) == N * EPOCHS
    last = evaluated.filter(pl.col("epoch") == EPOCHS).sort("sample_id")
    with torch.no_grad():
        expected = functional.cross_entropy(model(X), Y, reduction="none")
    assert last["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)

    collected = pl.read_parquet(run / "tables" / "metrics" / "*.parquet")
    assert collected["epoch"].unique().sort().to_list() == [0, 1, 3]
    final = collected.filter(pl.col("epoch") == 3).sort("example_id")
    assert final["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert set(collected["split"]) == {"val"}
    scalars = pl.read_parquet(run / "scalars" / "*.parquet")
    assert {"train_loss", "val/loss", "val/accuracy", "val/predicted/yes"} <= set(scalars["key"])

    loaded = load_checkpoint(run / "checkpoints" / "ckpt.pt")
    with torch.no_grad():
        assert torch.allclose(loaded.model(X), model(X), atol=1e-6)
    assert list(loaded.facts.label_names or ()) == ["no", "yes"]
    kept = pl.read_parquet(run / "inputs" / "*.parquet")
    assert kept.filter(pl.col("mode") == "eval")["sample_id"].to_list() == [100, 101, 102, 103, 104]
    assert len(kept) == 10
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_logits_of_the_step_and_own_columns(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Doubling(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return {"loss": loss, "logits": self.net(batch[1]) * 2}

    def columns(batch: Any, output: Any) -> dict[str, Any]:
        logits = output["logits"] if isinstance(output, dict) else output
        return {"sample_id": batch[0], "spread": logits.max(1).values - logits.min(1).values}

    with Run(tmp_path / "run", strict=True) as run:
        fit(Doubling(), XaiCallback(run, samples_fn=columns, save_checkpoint=False), tmp_path, max_epochs=1)
        assert not run.is_closed
        assert not (run.layout.checkpoints / "ckpt.pt").exists()
    assert (rows(tmp_path / "run", "train")["spread"] >= 0).all()


def test_faults_are_warned_about_and_training_goes_on(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    def failing(_batch: Any, _output: Any) -> Any:
        return 1 / 0

    callback = XaiCallback(
        tmp_path / "run", tables=xaicli.Table.from_arrays(X, Y), collectors=failing, save_checkpoint=False
    )
    with pytest.warns(UserWarning, match=r"collecting over the table failed: collector failing failed in batch 0"):
        trainer = fit(Classifier(), callback, tmp_path, max_epochs=1)
    assert trainer.current_epoch == 1
    assert len(rows(tmp_path / "run", "train")) == N


def test_a_batch_without_ids_is_said_once(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Plain(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step((torch.zeros(len(batch[0])), *batch), batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step((None, *batch), batch_idx)

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = lightning.Trainer(
        max_epochs=1, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="no sample ids in the batch") as caught:
        trainer.fit(Plain(), DataLoader([(x, y) for _, x, y in DATA], batch_size=8))
    assert sum("no sample ids" in str(warning.message) for warning in caught) == 1
