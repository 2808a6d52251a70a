"""Fit, validate, test and predict of one callback: one attempt, and scalars in the place of their rows."""

from __future__ import annotations

import json
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

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

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


def lightning_callback(run: Path | xaicli.Run) -> Any:
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


def test_a_scalar_of_the_same_value_is_logged_again_by_a_training_that_resumes(tmp_path: Path) -> None:
    """What is computed anew as it was is taken back with the rest, and recorded once more."""
    run = tmp_path / "run"
    callback, module = lightning_callback(run), net()
    first = quiet_trainer(callback, tmp_path, max_epochs=1)
    first.fit(module, loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    for _ in range(2):
        quiet_trainer(callback, tmp_path, max_epochs=2).fit(module, loader(), ckpt_path=tmp_path / "one.ckpt")
        assert scalars_of(run, "late") == [("train", "", 1, "epoch", 0.0), ("train", "", 2, "epoch", 10.0)]


@pytest.mark.parametrize("where", ["training_step", "validation_step"])
@pytest.mark.parametrize("of", ["directory", "open run", "open run, new callback"])
def test_a_fit_that_an_error_ended_is_resumed_by_the_same_callback(where: str, of: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    opened = None if of == "directory" else xaicli.Run(run)
    callback, module = lightning_callback(opened or run), net()
    first = quiet_trainer(callback, tmp_path, max_epochs=1, num_sanity_val_steps=0)
    first.fit(module, loader(), loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    own = getattr(module, where)

    def broken(batch: Any, batch_idx: int) -> Any:
        if batch_idx == 2:
            raise RuntimeError("broken")
        return own(batch, batch_idx)

    setattr(module, where, broken)
    resumed = {"ckpt_path": tmp_path / "one.ckpt"}
    with pytest.raises(RuntimeError, match="broken"):
        quiet_trainer(callback, tmp_path, max_epochs=3).fit(module, loader(), loader(), **resumed)
    setattr(module, where, own)
    callback = lightning_callback(opened) if of == "open run, new callback" else callback
    quiet_trainer(callback, tmp_path, max_epochs=3).fit(module, loader(), loader(), **resumed)
    if opened is not None:
        assert (opened.is_closed, opened.attempt) == (False, 2)
        opened.close()
    rows = xaicli.open_run(run).scan(mode="all").collect()
    counted = rows.group_by("mode", "epoch", "pass").len().rows()
    assert set(counted) == {(mode, epoch, 0, N) for mode in ("train", "eval") for epoch in (1, 2, 3)}


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
def test_a_batch_that_comes_again_behind_an_error_was_not_run_twice_by_its_optimizer(tmp_path: Path) -> None:
    """Saved after the first step, ended by an error behind the second one's, which the resumed fit begins with."""
    lightning = pytest.importorskip("lightning.pytorch")
    callback, module = lightning_callback(tmp_path / "run"), net()

    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("broken")

    def saved_then_broken(loss: torch.Tensor) -> None:
        loss.backward()
        module.backward = broken

    module.backward = saved_then_broken
    saving = lightning.callbacks.ModelCheckpoint(tmp_path, filename="one", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(RuntimeError, match="broken"):
        quiet_trainer([callback, saving], tmp_path, max_epochs=1, enable_checkpointing=True).fit(module, loader())
    del module.backward
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(callback, tmp_path, max_epochs=1).fit(module, loader(), ckpt_path=tmp_path / "one.ckpt")
    assert said_by_xai(caught) == []


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


def transformers_trainer(run: Path, callback: Any = None, own: Any = None, made: Any = None, **more: Any) -> Any:
    """A trainer with a tiny model.

    Args:
        run: Where to record.
        callback: What records.
        own: Further arguments of the training.
        made: The class of the trainer.
        **more: Further arguments of that.
    """
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    arguments = transformers.TrainingArguments(
        f"{run}-out", num_train_epochs=2, per_device_train_batch_size=4, per_device_eval_batch_size=4,
        eval_strategy="epoch", report_to=[], use_cpu=True, disable_tqdm=True,
        logging_strategy="epoch", **{"save_strategy": "no", **(own or {})},
    )  # fmt: skip
    return (made or transformers.Trainer)(
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


TOKENS = torch.randint(1, 20, (N, 6), generator=torch.Generator().manual_seed(0))
TEXTS = [{"sample_id": i, "input_ids": TOKENS[i], "labels": int(TOKENS[i, 0] > 10)} for i in range(N)]


def breaking_trainer() -> Any:
    """A class of trainers whose step fails after so many, with what it is told to."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    class Breaking(transformers.Trainer):  # type: ignore[misc, name-defined]
        error: BaseException | None = None
        at = 5

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            if self.error is not None and self.state.global_step == self.at:
                error, self.error = self.error, None
                raise error
            return loss

    return Breaking


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")], ids=["interrupt", "error"])
@pytest.mark.parametrize("again", ["trainer", "callback", "added", "open run", "open run, new callback"])
def test_a_training_that_an_error_ended_is_resumed_by_the_same_callback(
    again: str, error: BaseException, tmp_path: Path
) -> None:
    """As in a notebook: what was recorded behind the checkpoint is taken back, training and evaluation alike."""
    made, run = breaking_trainer(), tmp_path / "run"
    from xaicli.integrations.transformers import XaiCallback

    opened = xaicli.Run(run) if again.startswith("open run") else None
    callback = XaiCallback(opened or run, save_checkpoint=False, keep_inputs=0)
    own = {"save_strategy": "steps", "save_steps": 3}

    def trainer() -> Any:
        if again != "added":
            return transformers_trainer(run, callback, own, made, train_dataset=TEXTS, eval_dataset=TEXTS)
        from transformers import TrainerCallback

        new = transformers_trainer(run, TrainerCallback(), own, made, train_dataset=TEXTS, eval_dataset=TEXTS)
        new.add_callback(callback)
        return new

    first = trainer()
    first.error = error
    with pytest.raises(type(error)):
        first.train()
    assert again == "added" or callback.run.is_closed is (opened is None)
    if again == "open run, new callback":
        callback = XaiCallback(opened, save_checkpoint=False, keep_inputs=0)
    (first if again == "trainer" else trainer()).train(resume_from_checkpoint=True)
    if opened is not None:
        assert not opened.is_closed
        opened.close()
    reader = xaicli.open_run(run)
    rows = reader.scan(mode="all").collect().group_by("attempt", "mode", "epoch", "pass")
    assert set(rows.len().rows()) == {
        (0, "train", 1, 0, 12),
        (1, "train", 1, 0, 4),
        (1, "eval", 1, 0, N),
        (1, "train", 2, 0, N),
        (1, "eval", 2, 0, N),
    }
    # The fourth step, the evaluation behind it, and the fifth and sixth.
    assert reader.info().answer.counts.taken_back == 3 * 4 + N
    assert reader.info().answer.counts.duplicates == 0


def test_behind_a_training_that_an_error_ended_stand_evaluations_and_another_training(tmp_path: Path) -> None:
    """The trainer takes itself for training still."""
    run = tmp_path / "run"
    trainer = transformers_trainer(run, None, None, breaking_trainer(), train_dataset=TEXTS, eval_dataset=TEXTS)
    trainer.error = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    trainer.compute_loss(trainer.model, {name: torch.tensor([int(v)]) for name, v in [("labels", 1)]} | {
        "sample_id": torch.tensor([3]), "input_ids": TOKENS[:1]})  # fmt: skip
    trainer.evaluate()
    assert said_by_info(run)["counts"]["rows"] == N + 2 * 4 + 2 * N
    assert [one[:4] for one in scalars_of(run, "eval_loss")] == [("eval", "", 2, "epoch"), ("eval", "", 4, "step")]
    trainer.train()
    assert rows_by_attempt(run) == {
        *((0, mode, "", epoch, 0, N) for mode in ("train", "eval") for epoch in (1, 3, 4)),
        (0, "train", "", 2, 0, 8),
        (0, "eval", "", 2, 0, N),
    }


def test_a_training_that_begins_anew_with_smaller_batches_takes_its_rows_back(tmp_path: Path) -> None:
    """`auto_find_batch_size` trains from the first sample again when memory does not suffice."""
    run = tmp_path / "run"
    own = {"auto_find_batch_size": True}
    trainer = transformers_trainer(run, None, own, breaking_trainer(), train_dataset=TEXTS, eval_dataset=TEXTS)
    trainer.train()
    trainer.error = RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
    trainer.train()
    rows = xaicli.open_run(run).scan(mode="all").collect()
    counted = rows.group_by("attempt", "mode", "epoch", "pass").len().rows()
    assert set(counted) == {
        (attempt, mode, epoch, 0, N) for attempt, *epochs in ((0, 1, 2), (1, 3, 4)) for epoch in epochs
        for mode in ("train", "eval")
    }  # fmt: skip
    assert said_by_info(run)["counts"]["taken_back"] == N + 2 * 4 + N
