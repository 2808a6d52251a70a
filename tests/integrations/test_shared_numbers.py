"""Data sets without ids, whose rows are all numbered from 0."""

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
from torch.utils.data import DataLoader, Dataset, Subset

from tests.integrations.trainers import quiet_trainer, said_by_xai

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

N = 12
WORDS = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i for i in range(2, 40)}}
TEXTS = [f"w{2 + i} w{3 + i} w{4 + i}" for i in range(N + 6)]


def tokenizer() -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def samples(texts: list[str]) -> list[dict[str, Any]]:
    made = tokenizer()
    return [{"input_ids": torch.tensor(made(text)["input_ids"]), "labels": i % 2} for i, text in enumerate(texts)]


class Texts(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(40, 4), nn.Flatten(), nn.Linear(12, 2))
        self.tokenizer = tokenizer()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        del batch_idx
        return functional.cross_entropy(self.net(batch["input_ids"]), batch["labels"])

    def validation_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def by_lightning(path: Path, train: Any, held_out: Any, **options: Any) -> None:
    from xaicli.integrations.lightning import XaiCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = quiet_trainer(XaiCallback(path / "run", save_checkpoint=False, **options), path, max_epochs=2)
    trainer.fit(Texts(), DataLoader(train, 4, shuffle=True), DataLoader(held_out, 4))


def by_transformers(path: Path, train: Any, held_out: Any, **options: Any) -> None:
    from xaicli.integrations.transformers import XaiCallback

    config = transformers.BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    arguments = transformers.TrainingArguments(
        output_dir=str(path / "out"), num_train_epochs=2, per_device_train_batch_size=4, eval_strategy="epoch",
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(
        model=transformers.BertForSequenceClassification(config),
        args=arguments,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer(),
        callbacks=[XaiCallback(path / "run", save_checkpoint=False, **options)],
    ).train()


BOTH = pytest.mark.parametrize("fit", [by_lightning, by_transformers])


def said_of(fit: Any, path: Path, train: Any, held_out: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(path, train, held_out, **options)
    return said_by_xai(caught)


def texts_in(path: Path) -> dict[int, str]:
    facts = pl.read_parquet(path / "run" / "facts" / "*.parquet")
    found = list(facts.select("sample_id", "text").iter_rows())
    assert len(set(found)) == len(dict(found)), "one text a sample, though it may be written once a set"
    return dict(found)


@BOTH
def test_a_number_has_the_text_of_the_first_set(fit: Any, tmp_path: Path) -> None:
    said = said_of(fit, tmp_path, samples(TEXTS[:N]), samples(TEXTS[N:]), facts=("text",))
    assert texts_in(tmp_path) == dict(enumerate(TEXTS[:N]))
    shared = [one for one in said if "rows of train and of eval have their numbers for ids" in one]
    assert len(shared) == 1
    assert "sample_id" in shared[0]
    assert sum("texts of 6 samples of eval are not kept" in one for one in said) == 1
    data = pl.read_parquet(tmp_path / "run" / "data")
    counts = {(m, e): n for m, e, n in data.group_by("mode", "epoch").len().iter_rows()}
    assert counts == {("train", 1): N, ("train", 2): N, ("eval", 1): 6, ("eval", 2): 6}


@BOTH
def test_parts_of_one_set_share_no_number(fit: Any, tmp_path: Path) -> None:
    whole: Any = samples(TEXTS)
    dataset: Dataset[Any] = whole
    train, held_out = Subset(dataset, list(range(6, N + 6))), Subset(dataset, [4, 0, 5, 1, 3, 2])
    said = said_of(fit, tmp_path, train, held_out, facts=("text",))
    assert texts_in(tmp_path) == dict(enumerate(TEXTS))
    assert not [one for one in said if "their numbers for ids" in one or "not kept" in one]
    data = pl.read_parquet(tmp_path / "run" / "data")
    ids = {mode: set(data.filter(pl.col("mode") == mode)["sample_id"]) for mode in ("train", "eval")}
    assert ids == {"train": set(range(6, N + 6)), "eval": set(range(6))}


@BOTH
def test_ids_of_the_sets_own_keep_all_texts(fit: Any, tmp_path: Path) -> None:
    named = [{"sample_id": 100 + i, **one} for i, one in enumerate(samples(TEXTS))]
    said = said_of(fit, tmp_path, named[:N], named[N:], facts=("text",))
    assert texts_in(tmp_path) == {100 + i: text for i, text in enumerate(TEXTS)}
    assert said == []


@BOTH
def test_a_set_that_is_evaluated_on_itself_is_no_other(fit: Any, tmp_path: Path) -> None:
    data = samples(TEXTS[:N])
    said = said_of(fit, tmp_path, data, data, facts=("text",))
    assert texts_in(tmp_path) == dict(enumerate(TEXTS[:N]))
    assert not [one for one in said if "their numbers for ids" in one or "not kept" in one]
