"""The transformers callback, with its Trainer training a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

import xaicli
from xaicli.checkpoint.load import load_checkpoint
from xaicli.heads.outputs import tensor_at, where_of

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")

N, EPOCHS = 16, 2
TOKENS = torch.randint(1, 20, (N, 6), generator=torch.Generator().manual_seed(0))
LABELS = (TOKENS[:, 0] > 10).long()
DATA = [
    {"sample_id": 1000 + i, "input_ids": TOKENS[i], "attention_mask": torch.ones(6).long(), "labels": int(LABELS[i])}
    for i in range(N)
]


def tiny() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def train(model: Any, callback: Any, folder: Path, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"), num_train_epochs=EPOCHS, per_device_train_batch_size=4,
        per_device_eval_batch_size=8, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False, logging_steps=2, learning_rate=1e-2, **options,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=DATA, eval_dataset=DATA, callbacks=[callback]
    )
    trainer.train()
    return trainer


def rows(run: Path, mode: str) -> pl.DataFrame:
    return pl.read_parquet(run / "data" / f"mode={mode}" / "**" / "*.parquet")


def test_samples_tables_checkpoint_and_inputs_are_recorded(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    model = tiny()
    table = xaicli.Table(DATA, name="val", schema={"labels": ["low", "high"]})
    callback = XaiCallback(
        tmp_path / "run",
        tables={"val": table},
        collectors=[
            xaicli.ClassificationMetricsCollector(["low", "high"]),
            xaicli.EmbeddingsMetricsCollector("bert.encoder.layer.0", reduction="pca"),
        ],
        collect_epochs="every",
        keep_inputs=4,
        label_names=["low", "high"],
    )
    train(model, callback, tmp_path)
    run = tmp_path / "run"
    recorded = rows(run, "train")
    assert recorded.group_by("epoch").len().sort("epoch").rows() == [(1, N), (2, N)]
    assert sorted(recorded["step"].unique()) == list(range(1, 9))
    expected_labels = {1000 + i: int(y) for i, y in enumerate(LABELS)}
    assert dict(zip(recorded["sample_id"], recorded["label"], strict=True)) == expected_labels

    model.eval()
    with torch.no_grad():
        logits = model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
    expected = functional.cross_entropy(logits, LABELS, reduction="none").tolist()
    evaluated = rows(run, "eval").filter(pl.col("epoch") == EPOCHS).sort("sample_id")
    assert evaluated["loss"].to_list() == pytest.approx(expected, abs=1e-5)

    collected = pl.read_parquet(run / "tables" / "metrics" / "*.parquet").sort("epoch", "example_id")
    assert collected["epoch"].to_list() == [1] * N + [2] * N
    assert collected["loss"].to_list()[N:] == pytest.approx(expected, abs=1e-5)
    assert len(collected["embeddings_bert.encoder.layer.0"][0]) == 8
    assert len(collected["embeddings_bert.encoder.layer.0_pca"][0]) == 2
    scalars = pl.read_parquet(run / "scalars" / "*.parquet")
    assert {"loss", "eval_loss", "val/loss", "val/accuracy"} <= set(scalars["key"])
    losses = scalars.filter(pl.col("key") == "loss").sort("step")
    assert losses["step"].to_list() == [2, 4, 6, 8]
    steps = recorded.group_by("step").agg(pl.col("loss").mean()).sort("step")["loss"].to_list()
    means = [(steps[i] + steps[i + 1]) / 2 for i in range(0, 8, 2)]
    assert losses["value"].to_list() == pytest.approx(means, abs=1e-3)

    loaded = load_checkpoint(run / "checkpoints" / "ckpt.pt")
    with torch.no_grad():
        again = loaded.model(TOKENS, torch.ones_like(TOKENS))
    found = again if isinstance(again, torch.Tensor) else tensor_at(again, where_of(again)[0])
    assert torch.allclose(found, logits, atol=1e-5)
    kept = pl.read_parquet(run / "inputs" / "*.parquet")
    assert set(kept["name"]) == {"input_ids", "attention_mask"}
    assert kept.filter((pl.col("mode") == "eval") & (pl.col("name") == "input_ids"))["sample_id"].to_list() == [
        1000, 1001, 1002, 1003,
    ]  # fmt: skip
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_trainer_of_ones_own_and_missing_ids(tmp_path: Path) -> None:
    from xaicli.integrations.transformers import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    plain = [{name: value for name, value in sample.items() if name != "sample_id"} for sample in DATA]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    with pytest.warns(UserWarning, match="no sample ids in the batch"):
        transformers.Trainer(model=tiny(), args=arguments, train_dataset=plain, callbacks=[callback]).train()
    assert list((tmp_path / "run" / "data").rglob("*.parquet")) == []
