"""Where the ids of samples were found is said once of each data set, by both callbacks; that is no warning."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.integrations.trainers import quiet_trainer, said_by_xai

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

N = 8
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
PARTS = [(10 + i, X[i], i % 2) for i in range(N)]
NAMED = [{"x": X[i], "label": i % 2} for i in range(N)]


class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        del batch_idx, dataloader_idx
        x, y = (batch["x"], batch["label"]) if isinstance(batch, dict) else batch[-2:]
        return functional.cross_entropy(self.net(x), y)

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def said(caught: Any) -> list[str]:
    return [one.getMessage() for one in caught.records if one.name == "xaicli.integrations"]


def fitted(
    path: Path,
    data: Any,
    evaluated: Any = None,
    net: Any = Net,
    trainer: Any = None,
    loader: Any = None,
    **options: Any,
) -> list[str]:
    """What xai warned of in a training of two epochs."""
    from xaicli.integrations.lightning import XaiCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    callback = XaiCallback(path / "run", save_checkpoint=False, **options)
    trainer = quiet_trainer(callback, path, max_epochs=2, **(trainer or {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(net(), DataLoader(data, **{"batch_size": 4, **(loader or {})}), evaluated)
    return said_by_xai(caught)


@pytest.mark.parametrize(
    ("data", "options", "where"),
    [
        (PARTS, {}, "the first part of the batches"),
        ([{"sample_id": i, **one} for i, one in enumerate(NAMED)], {}, "the entry 'sample_id' of the batches"),
        ([{"idx": str(i), **one} for i, one in enumerate(NAMED)], {}, "the entry 'idx' of the batches"),
        (
            [{"key": i, **one} for i, one in enumerate(NAMED)],
            {"ids": "key"},
            "the entry 'key' of the batches, as ids= says",
        ),
        (PARTS, {"ids": 0}, "the first part of the batches, as ids= says"),
        (PARTS, {"ids": lambda batch: batch[0] + 1}, "what the function ids= finds in the batches"),
        (
            PARTS,
            {"samples_fn": lambda batch, _output: {"sample_id": batch[0], "loss": batch[1][:, 0]}},
            "what samples_fn gives",
        ),
    ],
)
def test_lightning_says_where_ids_were_found(
    tmp_path: Path, caplog: Any, data: Any, options: dict[str, Any], where: str
) -> None:
    with caplog.at_level(logging.INFO, "xaicli.integrations"):
        told = fitted(tmp_path, data, **options)
    assert (said(caplog), told) == ([f"sample ids of train: {where}"], [])


def test_lightning_says_it_of_each_set(tmp_path: Path, caplog: Any) -> None:
    sets = {"day": DataLoader(PARTS, batch_size=4), "night": DataLoader(NAMED, batch_size=4)}
    with caplog.at_level(logging.INFO, "xaicli.integrations"):
        fitted(tmp_path, PARTS, sets, ids=None)
    assert said(caplog) == [
        "sample ids of train: the first part of the batches",
        "sample ids of eval day: the first part of the batches",
        "sample ids of eval night: the rows' numbers in the dataset, as the loader's sampler gave them",
    ]


class Taking(Net):
    """Takes out of its batch what is no input, as before `self.model(**batch)`."""

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        del batch_idx, dataloader_idx
        if isinstance(batch, list):
            batch.pop()
            x, label = batch
        elif "meta" in batch:
            del batch["meta"]["sample_id"]
            x, label = batch["x"], batch["label"]
        else:
            batch.pop("sample_id", None)
            label = batch.pop("label")
            (x,) = batch.values()
        return functional.cross_entropy(self.net(x), label)

    validation_step = training_step


class TakingBefore(Taking):
    """Its hook takes the ids out before the step."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        del batch_idx
        batch.pop("sample_id")


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([{"sample_id": f"s{i}", **one} for i, one in enumerate(NAMED)])


@pytest.mark.parametrize(
    ("net", "data", "options", "ids"),
    [
        (Taking, [{"sample_id": 50 + i, **one} for i, one in enumerate(NAMED)], {}, [50 + i for i in range(N)]),
        (TakingBefore, [{"sample_id": 50 + i, **one} for i, one in enumerate(NAMED)], {}, [50 + i for i in range(N)]),
        (Taking, Stream(), {"ids": "sample_id"}, [f"s{i}" for i in range(N)]),
        (Taking, [(X[i], i % 2, f"s{i}") for i in range(N)], {"ids": 2}, [f"s{i}" for i in range(N)]),
        (
            Taking,
            [{"meta": {"sample_id": 50 + i}, **one} for i, one in enumerate(NAMED)],
            {"ids": lambda batch: batch["meta"]["sample_id"]},
            [50 + i for i in range(N)],
        ),
    ],
)
def test_ids_and_labels_that_a_step_takes_out_of_its_batch_are_the_samples(
    tmp_path: Path, net: Any, data: Any, options: dict[str, Any], ids: list[Any]
) -> None:
    assert fitted(tmp_path, data, DataLoader(data, batch_size=4), net=net, **options) == []
    rows = pl.read_parquet(tmp_path / "run" / "data")
    for mode in ("train", "eval"):
        of = rows.filter((pl.col("mode") == mode) & (pl.col("epoch") == 2)).sort("sample_id")
        assert of["sample_id"].to_list() == ids
        assert of["label"].to_list() == [i % 2 for i in range(N)]


class Uncollated(Net):
    """Its loader leaves the samples as they are, or lists of their parts."""

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        parts = [one.values() if isinstance(one, dict) else one for one in batch]
        parts = list(zip(*parts, strict=True)) if isinstance(batch, list) else parts
        x, y = torch.stack(parts[-2]), torch.as_tensor(parts[-1])
        return super().training_step([x, y], batch_idx, dataloader_idx)

    validation_step = training_step


def as_they_are(samples: list[Any]) -> list[Any]:
    return samples


def in_columns(samples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples, strict=True))


@pytest.mark.parametrize(
    ("data", "collate", "options", "ids"),
    [
        ([{"sample_id": f"s{i}", **one} for i, one in enumerate(NAMED)], as_they_are, {}, [f"s{i}" for i in range(N)]),
        (
            [{"key": 10 + i, **one} for i, one in enumerate(NAMED)],
            as_they_are,
            {"ids": lambda batch: [one["key"] for one in batch]},
            [10 + i for i in range(N)],
        ),
        (NAMED, as_they_are, {}, list(range(N))),
        (PARTS, in_columns, {}, [10 + i for i in range(N)]),
        ([one[1:] for one in PARTS], in_columns, {}, list(range(N))),
    ],
)
def test_batches_that_a_loader_leaves_lists_hold_their_samples(
    tmp_path: Path, data: Any, collate: Any, options: dict[str, Any], ids: list[Any]
) -> None:
    told = fitted(tmp_path, data, net=Uncollated, loader={"batch_size": 2, "collate_fn": collate}, **options)
    rows = pl.read_parquet(tmp_path / "run" / "data").filter(pl.col("epoch") == 2).sort("sample_id")
    assert rows["sample_id"].to_list() == ids
    assert rows["label"].to_list() == [i % 2 for i in range(N)]
    assert not any("more or fewer rows" in one or "places before its samples" in one for one in told)


@pytest.mark.parametrize("sanity", [0, 2])
def test_rows_of_a_training_have_their_numbers_beside_several_evaluations(tmp_path: Path, sanity: int) -> None:
    sets = [DataLoader(NAMED, batch_size=4), DataLoader([PARTS[i][1:] for i in range(N)], batch_size=2)]
    fitted(tmp_path, NAMED, sets, trainer={"num_sanity_val_steps": sanity})
    rows = pl.read_parquet(tmp_path / "run" / "data")
    for mode, ds_id in (("train", ""), ("eval", ""), ("eval", "1")):
        for epoch in (1, 2):
            of = rows.filter((pl.col("mode") == mode) & (pl.col("ds_id") == ds_id) & (pl.col("epoch") == epoch))
            assert sorted(of["sample_id"]) == list(range(N))


def test_a_trainer_of_transformers_says_it_of_each_set(tmp_path: Path, caplog: Any) -> None:
    from xaicli.integrations.transformers import XaiCallback

    def samples(key: str | None) -> list[dict[str, Any]]:
        own = [{} if key is None else {key: f"s{i}"} for i in range(N)]
        return [{**one, "input_ids": torch.tensor([i, 1]), "labels": i % 2} for i, one in enumerate(own)]

    config = transformers.BertConfig(
        vocab_size=N, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    trainer = transformers.Trainer(
        model=transformers.BertForSequenceClassification(config),
        args=transformers.TrainingArguments(
            str(tmp_path / "out"),
            num_train_epochs=2,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=samples("sample_id"),
        eval_dataset={"day": samples("guid"), "night": samples(None)},
        callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
    )
    with caplog.at_level(logging.INFO, "xaicli.integrations"):
        trainer.train()
    assert said(caplog) == [
        "sample ids of train: the column 'sample_id' of the dataset",
        "sample ids of eval day: the column 'guid' of the dataset",
        "sample ids of eval night: the rows' numbers in the dataset",
    ]


def test_it_stands_on_stderr_or_where_the_caller_s_logging_puts_it(tmp_path: Path) -> None:
    program = (
        "import logging\n"
        "from xaicli.integrations.recording import Recording\n"
        f"recording = Recording({str(tmp_path / 'run')!r})\n"
        "for mode in ('train', 'train', 'eval'): recording.say_ids(mode, '', 'the first part of the batches')\n"
        "logging.basicConfig(format='own %(message)s')\n"
        "recording.say_ids('test', '', 'the first part of the batches')\n"
        "logging.getLogger('xaicli.integrations').setLevel(logging.WARNING)\n"
        "recording.say_ids('infer', '', 'the first part of the batches')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == (
        "xai: sample ids of train: the first part of the batches\n"
        "xai: sample ids of eval: the first part of the batches\n"
        "own sample ids of test: the first part of the batches\n"
    )
