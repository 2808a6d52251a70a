"""The collator that keeps ids beside what the caller's makes, and the trainer around it."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from xaicli.integrations.collators import IdsBesideCollator

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")

N = 12
TOKENS = torch.randint(1, 20, (N, 6), generator=torch.Generator().manual_seed(0))


def samples_of(places: Any) -> list[Any]:
    return [{"sample_id": 100 + i, "input_ids": TOKENS[i], "labels": i % 2} for i in places]


def together(samples: list[Any]) -> dict[str, torch.Tensor]:
    there = [one for one in samples if one is not None]
    return {
        "input_ids": torch.stack([one["input_ids"] for one in there]),
        "labels": torch.tensor([one["labels"] for one in there]),
    }


def refilled(samples: list[Any]) -> dict[str, torch.Tensor]:
    there = [one for one in samples if one is not None]
    return together(there + there[:1] * (len(samples) - len(there)))


@pytest.mark.parametrize("keeps_order", [None, True, False])
def test_a_sample_that_cannot_be_read_costs_no_other(keeps_order: bool | None) -> None:
    samples = samples_of(range(6))
    samples[0] = samples[3] = None
    beside = IdsBesideCollator(together, ("sample_id",), keeps_order)
    assert beside(samples)["sample_id"].tolist() == [101, 102, 104, 105]
    beside = IdsBesideCollator(refilled, ("sample_id",), keeps_order)
    assert beside(samples)["sample_id"].tolist() == [101, 102, 104, 105, 101, 101]


def test_rows_put_in_the_place_of_others_have_the_ids_of_those_they_are() -> None:
    def without_the_second(samples: list[Any]) -> Any:
        return together([samples[0] if one is samples[1] else one for one in samples])

    beside = IdsBesideCollator(without_the_second, ("sample_id",), False)
    assert beside(samples_of(range(4)))["sample_id"].tolist() == [100, 100, 102, 103]


class Strict:
    """A collator that knows its samples' columns, and masks places of them by chance."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, samples: list[Any]) -> dict[str, torch.Tensor]:
        self.asked += 1
        hidden = random.random(), float(np.random.rand()), float(torch.rand(()))
        assert all(set(one) == {"input_ids", "labels"} for one in samples)
        return {**together(samples), "hidden": torch.tensor([hidden] * len(samples))}


def test_a_collator_that_cannot_be_given_ids_draws_what_it_draws_without_them() -> None:
    def seeded() -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)

    bare = Strict()
    seeded()
    expected = [
        bare([{k: v for k, v in one.items() if k != "sample_id"} for one in samples_of([i, i + 1])]) for i in (0, 2)
    ]
    collate = Strict()
    beside = IdsBesideCollator(collate, ("sample_id",))
    seeded()
    for i, batch in zip((0, 2), expected, strict=True):
        made = beside(samples_of([i, i + 1]))
        assert made.pop("sample_id").tolist() == [100 + i, 101 + i]
        assert made.keys() == batch.keys()
        assert all(torch.equal(made[name], batch[name]) for name in batch)
    assert collate.asked == 3  # once with the ids


class Wrapper(torch.nn.Module):
    """A model whose signature says nothing; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = transformers.BertForSequenceClassification(
            transformers.BertConfig(
                vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
            )
        )  # fmt: skip
        self.config = self.model.config
        self.asked = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += not self.training
        return self.model(*args, **kwargs)


class Drawing(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Draws a number whenever a row is read, as augmentations do; its first samples have no id."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        torch.rand(()), random.random(), np.random.rand()
        row = samples_of([index])[0]
        if index % 4 == 0:
            del row["sample_id"]
        return row


def trained(folder: Path, callbacks: list[Any]) -> Wrapper:
    model = Wrapper()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"), num_train_epochs=1, per_device_train_batch_size=4,
        per_device_eval_batch_size=4, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False, learning_rate=0.1,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Drawing(), eval_dataset=Drawing(), callbacks=callbacks,
        data_collator=together,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return model


def test_a_wrapped_model_is_asked_once_a_batch_and_its_rows_are_recorded(tmp_path: Path) -> None:
    """Some samples have no id, the first among them: these alone are left out. What is drawn is drawn as without us."""
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    bare = trained(tmp_path, [])
    drawn = torch.rand(()), random.random(), np.random.rand()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = trained(tmp_path, [XaiCallback(tmp_path / "run", save_checkpoint=False)])
    assert drawn == (torch.rand(()), random.random(), np.random.rand())
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), model.parameters(), strict=True))
    assert model.asked == bare.asked
    found = pl.read_parquet(tmp_path / "run" / "data")
    known = [100 + i for i in range(N) if i % 4]
    assert sorted(found.filter(pl.col("mode") == "train")["sample_id"]) == known
    with torch.no_grad():
        logits = model.eval()(input_ids=TOKENS).logits
    losses = functional.cross_entropy(logits, torch.arange(N) % 2, reduction="none").tolist()
    assert dict(found.filter(pl.col("mode") == "eval").select("sample_id", "loss").iter_rows()) == {
        i: pytest.approx(losses[i - 100], abs=1e-5) for i in known
    }
