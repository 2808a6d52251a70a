"""Fit, validate, test and predict of one callback: one attempt, and scalars in the place of their rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer

N = 16
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
DATA = [(i, X[i], int(Y[i])) for i in range(N)]
DAY, NIGHT = DATA[:12], DATA[12:]


def rows_by_attempt(run: Path) -> set[tuple[int, str, str, int, int, int]]:
    """(attempt, mode, ds_id, epoch, pass, how many) of all rows."""
    rows = xaicli.open_run(run).scan(mode="all", attempts="all").collect()
    return set(rows.group_by("attempt", "mode", "ds_id", "epoch", "pass").len().rows())


def scalars_of(run: Path, key: str) -> list[tuple[str, str, int, str, float]]:
    """(mode, ds_id, time, axis, value) of a scalar, in that order."""
    named = [("mode", pl.String), ("ds_id", pl.String), ("step", pl.Int64), ("axis", pl.String), ("value", pl.Float64)]
    found = xaicli.open_run(run).query(f"select mode, ds_id, step, axis, value from scalars where \"key\" = '{key}'")
    rows = found.data.cast(dict(named)).sort("mode", "ds_id", "axis", "step").rows()
    return [(*row[:4], pytest.approx(row[4], abs=1e-6)) for row in rows]


def said_by_info(run: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "xaicli", "info", run, "--json"], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def net(**own: Any) -> Any:
    """A module that logs its losses, in every way that Lightning has."""
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = torch.nn.Linear(4, 2)
            self.seen: dict[tuple[str, int, int], list[float]] = {}
            """The losses of the samples, by mode, step and loader."""

        def loss(self, mode: str, batch: Any, number: int) -> torch.Tensor:
            logits = self.net(batch[1])
            losses = functional.cross_entropy(logits, batch[2], reduction="none").tolist()
            self.seen.setdefault((mode, self.trainer.global_step, number), []).extend(losses)
            return functional.cross_entropy(logits, batch[2])

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            loss = self.loss("train", batch, 0)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            del batch_idx
            self.log("val_loss", self.loss("eval", batch, dataloader_idx))

        def test_step(self, batch: Any, batch_idx: int) -> None:
            del batch_idx
            self.log("test_loss", self.loss("test", batch, 0))

        def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return self.net(batch[1])  # type: ignore[no-any-return]

        def on_train_epoch_end(self) -> None:
            self.log("late", 10.0 * self.current_epoch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.5)

        def mean(self, mode: str, step: int, number: int = 0) -> float:
            losses = self.seen[mode, step, number]
            return sum(losses) / len(losses)

    return Net(**own)


def loader(data: Any = DATA) -> Any:
    return DataLoader(data, batch_size=4)


def lightning_callback(run: Path) -> Any:
    pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
    from xaicli.integrations.lightning import XaiCallback

    return XaiCallback(run, save_checkpoint=False, keep_inputs=0)


def test_all_that_one_callback_records_is_one_attempt(tmp_path: Path) -> None:
    """Two trainers, one of which evaluates before, between and after; the run is closed whenever none is at work."""
    run = tmp_path / "run"
    callback, module = lightning_callback(run), net()
    first = quiet_trainer(callback, tmp_path, max_epochs=2)
    first.validate(module, loader(), verbose=False)
    assert said_by_info(run)["counts"]["rows"] == N
    first.fit(module, loader(), loader())
    first.validate(module, loader(), verbose=False)
    first.test(module, loader(), verbose=False)
    assert callback.run.is_closed
    first.predict(module, loader())
    quiet_trainer(callback, tmp_path, max_epochs=1).fit(module, loader(), loader())
    assert rows_by_attempt(run) == {
        (0, "eval", "", 0, 0, N),
        *((0, mode, "", epoch, 0, N) for mode in ("train", "eval") for epoch in (1, 2, 3)),
        (0, "eval", "", 2, 1, N),
        (0, "test", "", 2, 0, N),
        (0, "infer", "", 2, 0, N),
    }
    assert len(xaicli.open_run(run).layout.read_attempts()) == 1
    stats = callback.run.stats()
    assert (stats["rows_logged"], stats["rows_stored"], stats["rows_dropped"]) == (10 * N, 10 * N, 0)
    said = said_by_info(run)
    assert said["counts"]["rows"] == 10 * N
    assert said["warnings"] == []


def test_a_training_that_resumes_is_an_attempt_of_its_own(tmp_path: Path) -> None:
    """It takes back what was recorded behind its checkpoint, by the same callback too."""
    run = tmp_path / "run"
    callback, module = lightning_callback(run), net()
    first = quiet_trainer(callback, tmp_path, max_epochs=1)
    first.fit(module, loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    quiet_trainer(callback, tmp_path, max_epochs=1).fit(module, loader())
    quiet_trainer(callback, tmp_path, max_epochs=2).fit(module, loader(), ckpt_path=tmp_path / "one.ckpt")
    assert rows_by_attempt(run) == {(0, "train", "", 1, 0, N), (0, "train", "", 2, 0, N), (1, "train", "", 2, 0, N)}
    assert said_by_info(run)["counts"]["taken_back"] == N


def test_behind_another_attempt_the_next_is_one_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    callback, module = lightning_callback(run), net()
    first = quiet_trainer(callback, tmp_path, max_epochs=1)
    first.fit(module, loader())
    with xaicli.Run(run) as other:
        other.log_samples(sample_id=[1], mode="test", ds_id="own", loss=[1.0], epoch=1, step=4)
    first.test(module, loader(), verbose=False)
    first.validate(module, loader(), verbose=False)
    assert rows_by_attempt(run) == {
        (0, "train", "", 1, 0, N), (1, "test", "own", 1, 0, 1), (2, "test", "", 1, 0, N), (2, "eval", "", 1, 0, N),
    }  # fmt: skip


def test_scalars_are_of_the_mode_and_set_that_their_rows_are_of(tmp_path: Path) -> None:
    """Each value is the mean of the losses that the step computed; a value is logged once, where it came."""
    run = tmp_path / "run"
    callback, module = lightning_callback(run), net()
    whole = quiet_trainer(callback, tmp_path, max_epochs=2)
    whole.validate(module, loader(), verbose=False)
    alone = module.mean("eval", 0)
    module.seen.clear()
    whole.fit(module, loader(), loader())
    whole.test(module, loader(), verbose=False)
    within = {step: module.seen["eval", step, 0] for step in (4, 8)}
    assert scalars_of(run, "val_loss") == [
        ("eval", "", 0, "epoch", alone),
        *(("eval", "", step, "step", sum(within[step]) / N) for step in (4, 8)),
    ]
    assert scalars_of(run, "test_loss") == [("test", "", 2, "epoch", module.mean("test", 8))]
    by_epoch = [[module.mean("train", step) for step in steps] for steps in (range(4), range(4, 8))]
    means = [("train", "", epoch, "epoch", sum(losses) / 4) for epoch, losses in enumerate(by_epoch, 1)]
    assert scalars_of(run, "train_loss_epoch") == means
    last = [("train", "", epoch, "epoch", losses[-1]) for epoch, losses in enumerate(by_epoch, 1)]
    assert scalars_of(run, "train_loss_step") == last
    # What the module's own hook logs at the end of an epoch is that epoch's, the last one's too.
    assert scalars_of(run, "late") == [("train", "", 1, "epoch", 0.0), ("train", "", 2, "epoch", 10.0)]
    assert xaicli.open_run(run).scalars().answer.counts.duplicates == 0


def test_each_validation_of_an_epoch_has_its_scalars_and_none_comes_twice(tmp_path: Path) -> None:
    """Lightning leaves a metric standing until it comes anew, in epochs without a validation, too."""
    run, rare = tmp_path / "run", tmp_path / "rare"
    module = net()
    quiet_trainer(lightning_callback(run), tmp_path, max_epochs=1, val_check_interval=0.5).fit(
        module, loader(), loader()
    )
    sanity = N // 2
    values = {step: module.seen["eval", step, 0] for step in (2, 4)}
    assert len(module.seen["eval", 0, 0]) == sanity
    assert scalars_of(run, "val_loss") == [("eval", "", step, "step", sum(values[step]) / N) for step in (2, 4)]
    module = net()
    quiet_trainer(lightning_callback(rare), tmp_path, max_epochs=3, check_val_every_n_epoch=2).fit(
        module, loader(), loader()
    )
    assert scalars_of(rare, "val_loss") == [("eval", "", 8, "step", module.mean("eval", 8))]


def test_scalars_of_several_sets_have_the_ds_id_of_their_rows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    callback, module = lightning_callback(run), net()
    one = quiet_trainer(callback, tmp_path, max_epochs=1)
    one.validate(module, {"day": loader(DAY), "night": loader(NIGHT)}, verbose=False)
    for number, (ds_id, rows) in enumerate((("day", DAY), ("night", NIGHT))):
        key, value = f"val_loss/dataloader_idx_{number}", module.mean("eval", 0, number)
        assert scalars_of(run, key) == [("eval", ds_id, 0, "epoch", value)]
        assert (0, "eval", ds_id, 0, 0, len(rows)) in rows_by_attempt(run)
        found = xaicli.open_run(run).scan(mode="eval", ds_id=ds_id).collect()
        assert found["loss"].mean() == pytest.approx(value, abs=1e-6)


def test_a_metric_that_is_no_number_costs_no_training(tmp_path: Path) -> None:
    """People put values of their own among the trainer's metrics."""
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

    class Own(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            del pl_module
            trainer.callback_metrics["own"] = 0.25

    run = tmp_path / "run"
    made = quiet_trainer(Own(), tmp_path, max_epochs=1)
    made.callbacks.append(lightning_callback(run))
    made.fit(net(), loader())
    assert scalars_of(run, "own") == [("train", "", 1, "epoch", 0.25)]


def transformers_trainer(run: Path, callback: Any = None, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    arguments = transformers.TrainingArguments(
        f"{run}-out", num_train_epochs=2, per_device_train_batch_size=4, per_device_eval_batch_size=4,
        eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        logging_strategy="epoch",
    )  # fmt: skip
    return transformers.Trainer(
        model=transformers.BertForSequenceClassification(config),
        args=arguments,
        callbacks=[callback or XaiCallback(run, save_checkpoint=False, keep_inputs=0)],
        **more,
    )


def test_evaluations_beside_a_training_of_transformers_are_of_its_attempt(tmp_path: Path) -> None:
    """Scalars are of the mode and set of their rows, whose mean loss they are; a prediction's are kept, too."""
    run = tmp_path / "run"
    tokens = torch.randint(1, 20, (N, 6), generator=torch.Generator().manual_seed(0))
    data = [{"sample_id": i, "input_ids": tokens[i], "labels": int(tokens[i, 0] > 10)} for i in range(N)]
    sets = {"day": data[:12], "night": data[12:]}
    made = transformers_trainer(run, train_dataset=data, eval_dataset=sets)
    made.evaluate(data)
    assert said_by_info(run)["counts"]["rows"] == N
    made.train()
    made.evaluate()
    made.predict(data)
    made.train()
    sizes = {"day": 12, "night": 4}
    assert rows_by_attempt(run) == {
        (0, "eval", "", 0, 0, N),
        (0, "test", "", 2, 0, N),
        *((0, "train", "", epoch, 0, N) for epoch in (1, 2, 3, 4)),
        *((0, "eval", ds_id, epoch, 0, n) for ds_id, n in sizes.items() for epoch in (1, 2, 3, 4)),
        *((0, "eval", ds_id, 2, 1, n) for ds_id, n in sizes.items()),
    }
    rows = xaicli.open_run(run).scan(mode="all").collect()

    def mean(mode: str, ds_id: str, epoch: int, turn: int = 0) -> float:
        found = rows.filter(mode=mode, ds_id=ds_id, epoch=epoch).filter(pl.col("pass") == turn)
        return float(found["loss"].mean())  # type: ignore[arg-type]

    assert scalars_of(run, "eval_loss") == [("eval", "", 0, "epoch", mean("eval", "", 0))]
    assert scalars_of(run, "test_loss") == [("test", "", 2, "epoch", mean("test", "", 2))]
    for ds_id in sizes:
        assert scalars_of(run, f"eval_{ds_id}_loss") == [
            ("eval", ds_id, 2, "epoch", mean("eval", ds_id, 2, 1)),
            *(("eval", ds_id, 4 * epoch, "step", mean("eval", ds_id, epoch)) for epoch in (1, 2, 3, 4)),
        ]
    assert [one[:4] for one in scalars_of(run, "loss")] == [("train", "", 4 * n, "step") for n in (1, 2, 3, 4)]
    assert xaicli.open_run(run).scalars().answer.counts.duplicates == 0
