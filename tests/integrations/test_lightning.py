"""The Lightning callback, with Lightning training a tiny model."""

from __future__ import annotations

import copy
import json
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
from tests.integrations.trainers import quiet_trainer, said_by_xai
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
    trainer = quiet_trainer(callback, path, **{"max_epochs": EPOCHS, **options})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|torch")
        trainer.fit(model, DataLoader(DATA, batch_size=8, shuffle=True), DataLoader(DATA, batch_size=8))
    return trainer


def rows(run: Path, mode: str) -> pl.DataFrame:
    return pl.read_parquet(run / "data").filter(pl.col("mode") == mode)


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
    assert not nn.modules.module._has_any_global_hook()


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


def quiet(path: Path, callback: Any, **options: Any) -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return quiet_trainer(callback, path, **{"max_epochs": 1, **options})


def test_without_ids_the_rows_of_the_dataset_are_numbered_and_that_is_said_once(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Plain(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step((torch.zeros(len(batch[0])), *batch), batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step((None, *batch), batch_idx)

    pairs = [(x, y) for _, x, y in DATA]
    kept = torch.utils.data.Subset(pairs, list(range(4, N)))
    with pytest.warns(UserWarning, match="the rows' numbers in the dataset are taken") as caught:
        quiet(tmp_path, XaiCallback(tmp_path / "run", save_checkpoint=False), max_epochs=2).fit(
            Plain(), DataLoader(pairs, batch_size=7, shuffle=True), DataLoader(kept, batch_size=8)
        )
    assert sum("no sample ids" in str(warning.message) for warning in caught) == 1
    train, evaluated = rows(tmp_path / "run", "train"), rows(tmp_path / "run", "eval")
    for epoch in (1, 2):
        one = train.filter(pl.col("epoch") == epoch).sort("sample_id")
        assert one["sample_id"].to_list() == list(range(N))
        assert one["label"].to_list() == Y.tolist()
        other = evaluated.filter(pl.col("epoch") == epoch).sort("sample_id")
        assert other["sample_id"].to_list() == list(range(4, N))
        assert other["label"].to_list() == Y[4:].tolist()


def test_the_criterion_s_answers_count_however_the_module_is_called(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Inner(Classifier):
        """Calls a part of itself; a copy of itself as a teacher, and a disturbed pass, are beside."""

        def __init__(self) -> None:
            super().__init__()
            self.clean: dict[int, torch.Tensor] = {}

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            ids, x, y = batch
            teacher = copy.deepcopy(self)
            logits = self.net(x)
            self.clean |= dict(zip(ids.tolist(), logits.detach(), strict=True))
            noise = self(x + torch.randn_like(x)) - teacher(x)
            return functional.cross_entropy(logits, y) + 0 * noise.sum() + 0 * functional.cross_entropy(noise, 1 - y)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            del batch_idx
            functional.nll_loss(self.net(batch[1]).log_softmax(1), batch[2])

    model = Inner()
    fit(model, XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    for sample_id, prediction, loss in (
        rows(tmp_path / "run", "train").select("sample_id", "prediction", "loss").iter_rows()
    ):
        logits = model.clean[sample_id]
        assert prediction == int(logits.argmax())
        assert loss == pytest.approx(float(functional.cross_entropy(logits, Y[sample_id - 100])), abs=1e-5)
    evaluated = rows(tmp_path / "run", "eval").sort("sample_id")
    with torch.no_grad():
        expected = functional.cross_entropy(model.net(X), Y, reduction="none")
    assert evaluated["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_what_cannot_be_told_is_asked_for_with_the_line_to_write(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Twice(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return (self(batch[1]) - self(batch[1] + 1)).square().mean()

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    with pytest.warns(UserWarning, match=r"training_step runs the model .* return \{'loss': loss, 'logits': logits\}"):
        quiet(tmp_path, callback).fit(Twice(), DataLoader(DATA, batch_size=8))
    assert xaicli.open_run(tmp_path / "run").info().answer.counts.dropped == N
    # Who reads only the run is sent to the step, not to ids that were there.
    told = " ".join(xaicli.open_run(tmp_path / "run").info().answer.warnings)
    assert f"{N} rows were not recorded: training_step runs the model" in told
    assert "sample_id" not in told


def test_every_entry_point_records_into_its_own_place(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Whole(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            del batch_idx, dataloader_idx
            self(batch[1])

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

        def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return self(batch[1])  # type: ignore[no-any-return]

    def loader(n: int = N) -> Any:
        return DataLoader(DATA[:n], batch_size=8)

    model, callback = Whole(), XaiCallback(tmp_path / "run", save_checkpoint=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|torch")
        first = quiet(tmp_path, callback, max_epochs=2, val_check_interval=1 / 3)
        first.fit(model, loader(), [loader(16), loader(4)])
        first.test(model, loader(), verbose=False)
        quiet(tmp_path, callback).fit(model, loader())  # another trainer goes on: epoch 3
        first.validate(model, loader(4), verbose=False)
        first.predict(model, loader(8))
    frame = pl.concat([rows(tmp_path / "run", mode) for mode in ("train", "eval", "test", "infer")], how="diagonal")
    places = frame.group_by("mode", "ds_id", "epoch", "pass").agg(pl.len(), pl.col("sample_id").n_unique().alias("ids"))
    assert {tuple(row[:4]): row[4:] for row in places.iter_rows()} == {
        **{("train", "", epoch, 0): (N, N) for epoch in (1, 2, 3)},
        **{("eval", "", epoch, turn): (16, 16) for epoch in (1, 2) for turn in (0, 1, 2)},
        **{("eval", "1", epoch, turn): (4, 4) for epoch in (1, 2) for turn in (0, 1, 2)},
        ("test", "", 2, 0): (N, N),
        ("eval", "", 3, 0): (4, 4),
        ("infer", "", 3, 0): (8, 8),
    }
    steps = (
        frame.filter(pl.col("mode") == "train")
        .group_by("epoch")
        .agg(pl.col("step").min(), pl.col("step").max().alias("last"))
    )
    assert steps.sort("epoch").rows() == [(1, 1, 3), (2, 4, 6), (3, 7, 9)]
    info = xaicli.open_run(tmp_path / "run").info()
    assert not info.answer.counts.taken_back


def test_nothing_hangs_on_the_module(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Keep(lightning.Callback):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.copies: list[Any] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            del trainer, outputs, batch, batch_idx
            assert not pl_module._forward_hooks
            assert not pl_module._forward_pre_hooks
            assert not torch.nn.modules.module._global_forward_hooks
            assert "forward" not in vars(pl_module)
            torch.save(pl_module.net, tmp_path / "net.pt")
            self.copies.append(copy.deepcopy(pl_module.net))

    keep, model = Keep(), Classifier()
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = quiet(tmp_path, callback)
    trainer.callbacks.append(keep)
    trainer.fit(model, DataLoader(DATA, batch_size=8))
    assert len(keep.copies) == 3
    assert torch.equal(torch.load(tmp_path / "net.pt", weights_only=False)(X), model.net(X))
    assert not [name for name in vars(trainer.strategy) if name.endswith("_step")]
    assert len(rows(tmp_path / "run", "train")) == N


@pytest.mark.parametrize(
    ("loss", "labels", "expected"),
    [
        (functional.binary_cross_entropy_with_logits, Y.float()[:, None], "binary"),
        (functional.mse_loss, X[:, :1] * 2, "regression"),
        (functional.binary_cross_entropy_with_logits, (X > 0).float()[:, :3], "multilabel"),
    ],
    ids=["binary", "regression", "multilabel"],
)
def test_the_criterion_says_the_task(tmp_path: Path, loss: Any, labels: torch.Tensor, expected: str) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Net(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, labels.shape[1]))

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return loss(self.net(batch[1]), batch[2])  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model = Net()
    data = [(100 + i, X[i], labels[i]) for i in range(N)]
    quiet(tmp_path, XaiCallback(tmp_path / "run", save_checkpoint=False)).fit(model, DataLoader(data, batch_size=8))
    got = rows(tmp_path / "run", "train").sort("sample_id")
    with torch.no_grad():
        answers = model.net(X)
    each = loss(answers, labels, reduction="none").mean(1)
    assert got["loss"].to_list() == pytest.approx(each.tolist(), abs=1e-5)
    if expected == "binary":
        assert got["prediction"].to_list() == (answers[:, 0] > 0).long().tolist()
    elif expected == "regression":
        assert got["residual"].to_list() == pytest.approx((labels - answers)[:, 0].tolist(), abs=1e-5)
        assert "correct" not in got.columns or got["correct"].null_count() == N
    else:
        wrong = ((answers > 0) != (labels > 0)).sum(1)
        assert got["n_wrong"].to_list() == wrong.tolist()


def test_auxiliary_criteria_and_pairs_are_not_taken_for_the_answers(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Deep(Classifier):
        """Two heads under the same labels: the output that is called so is meant; a contrast of 2N rows beside."""

        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return {"aux": self.aux(x), "logits": self.net(x)}

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            _, x, y = batch
            aux, main = self(x).values()
            pairs = torch.cat([main, aux])
            contrast = functional.cross_entropy(pairs @ pairs.T, torch.arange(len(pairs)))
            return functional.cross_entropy(aux, y) + functional.cross_entropy(main, y) + contrast

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            del batch, batch_idx

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model = Deep()
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = quiet(tmp_path, callback)
    trainer.fit(model, DataLoader(DATA, batch_size=8))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, DataLoader(DATA, batch_size=8))  # the same trainer goes on
    got = rows(tmp_path / "run", "train").sort("epoch", "sample_id")
    with torch.no_grad():
        expected = functional.cross_entropy(model.net(X), Y, reduction="none").tolist()
    assert got["epoch"].to_list() == [1] * N + [2] * N
    assert got["loss"].to_list() == pytest.approx(expected * 2, abs=1e-5)


def test_three_parts_without_ids_have_their_label_second(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Masked(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return functional.cross_entropy(self(batch[0] * batch[2]), batch[1])

    data = [(X[i], int(Y[i]), torch.ones(4)) for i in range(N)]
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    with pytest.warns(UserWarning, match="the rows' numbers"):
        quiet(tmp_path, callback).fit(Masked(), DataLoader(data, batch_size=8, shuffle=True))
    got = rows(tmp_path / "run", "train").sort("sample_id")
    assert got["label"].to_list() == Y.tolist()


def test_a_compiled_module_is_left_alone_and_its_returned_logits_are_taken(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Returning(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            logits = self(batch[1])
            return {"loss": functional.cross_entropy(logits, batch[2]), "logits": logits}

    model = Returning()
    model.net = torch.compile(model.net, backend="eager")
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, task="classification:logits")
    quiet(tmp_path, callback).fit(model, DataLoader(DATA, batch_size=8))
    assert len(rows(tmp_path / "run", "train")) == N


def test_the_place_in_a_tuple_says_nothing(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Deep(Classifier):
        """The first of its two outputs is the auxiliary one."""

        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.aux(x), self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            aux, main = self(batch[1])
            loss = functional.cross_entropy(main, batch[2]) + functional.cross_entropy(aux, batch[2])
            return {"loss": loss, "logits": main} if self.current_epoch else loss

    model = Deep()
    with pytest.warns(UserWarning, match="xai") as told:
        fit(model, XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=2)
    said = " ".join(str(warning.message) for warning in told)
    assert "training_step runs the model or a criterion several times" in said
    assert "the module returns several tensors to validation_step" in said
    assert "return {'loss': loss, 'logits': logits}" in said
    got = rows(tmp_path / "run", "train")
    assert got["epoch"].unique().to_list() == [2]
    assert len(got) == N
    assert json.loads(xaicli.open_run(tmp_path / "run").info().to_json())["counts"]["dropped"] == 3 * N


def test_a_loss_that_is_computed_twice_is_one(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Twice(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            logits = self.net(batch[1])
            each = functional.cross_entropy(logits, batch[2], reduction="none")
            self.losses += [(self.current_epoch + 1, int(i), float(v)) for i, v in zip(batch[0], each, strict=True)]
            return functional.cross_entropy(logits, batch[2], label_smoothing=0.1)

    model = Twice()
    fit(model, XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path)
    got = rows(tmp_path / "run", "train").select("epoch", "sample_id", "loss")
    logged = {(epoch, sample): loss for epoch, sample, loss in got.iter_rows()}
    assert logged == {(epoch, sample): pytest.approx(loss, abs=1e-5) for epoch, sample, loss in model.losses}


@pytest.mark.parametrize("shape", [(), (1,)], ids=["numbers", "columns"])
def test_numbers_of_a_squared_error(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from xaicli.integrations.lightning import XaiCallback

    truth = X.sum(1)

    class Regressor(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 1))

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return functional.mse_loss(self.net(batch[1]).reshape(batch[2].shape), batch[2])

        validation_step = training_step

    model = Regressor()
    data = [(100 + i, X[i], truth[i].reshape(shape)) for i in range(N)]
    callback = XaiCallback(tmp_path / "run", keep_inputs=4, save_checkpoint=False)
    trainer = quiet(tmp_path, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", module="lightning|torch")
        trainer.fit(model, DataLoader(data, batch_size=5), DataLoader(data, batch_size=5))
    with torch.no_grad():
        answers = model.net(X)[:, 0]
    got = rows(tmp_path / "run", "eval").filter(pl.col("epoch") == pl.col("epoch").max()).sort("sample_id")
    assert got["prediction"].to_list() == pytest.approx(answers.tolist(), abs=1e-5)
    assert got["label"].to_list() == pytest.approx(truth.tolist(), abs=1e-6)
    assert got["loss"].to_list() == pytest.approx((answers - truth).square().tolist(), abs=1e-5)
    assert got["residual"].to_list() == pytest.approx((truth - answers).tolist(), abs=1e-5)


def test_rows_that_no_column_can_be_made_of_are_counted(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class OneNumber(Classifier):
        """One number of an operation that says nothing, and labels that are neither yes nor no."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).square().sum(1)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return (self(batch[1]) - batch[2]).square().mean()

    with pytest.warns(UserWarning, match="logging samples failed"):
        fit(OneNumber(), XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    assert json.loads(xaicli.open_run(tmp_path / "run").info().to_json())["counts"]["dropped"] == 2 * N


def test_loaders_that_make_a_batch_together_keep_their_own_ids(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    others = [(500 + i, -X[i], int(Y[N - 1 - i])) for i in range(N)]
    numberless = [(x, y) for _, x, y in others]

    class Joint(Classifier):
        """Trained on two sets at once, with a third that has no say."""

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            first, second = batch["own"], batch["other"]
            loss = functional.cross_entropy(self.net(first[1]), first[2])
            loss = loss + functional.cross_entropy(self.net(second[0]), second[1])
            return loss + 0.1 * self.net(batch["free"][1]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model = Joint()
    trainer = quiet(tmp_path, XaiCallback(tmp_path / "run", save_checkpoint=False), max_epochs=1)
    loaders = {
        "free": DataLoader(DATA[::-1], batch_size=8),
        "other": DataLoader(numberless, batch_size=8, shuffle=True),
        "own": DataLoader(DATA, batch_size=8, shuffle=True),
    }
    with pytest.warns(UserWarning, match="only those are recorded whose labels a criterion was given: 'other', 'own'"):
        trainer.fit(model, loaders)
    got = rows(tmp_path / "run", "train").sort("ds_id", "sample_id")
    with torch.no_grad():
        own = functional.cross_entropy(model.net(X), Y, reduction="none").tolist()
        other = functional.cross_entropy(model.net(-X), Y.flip(0), reduction="none").tolist()
    assert got["ds_id"].to_list() == ["other"] * N + ["own"] * N
    assert got["sample_id"].to_list() == [*range(N), *range(100, 100 + N)]
    assert got["loss"].to_list() == pytest.approx(other + own, abs=1e-5)


def test_loaders_with_names_are_sets_of_these_names(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Several(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            del batch_idx, dataloader_idx
            self(batch[1])

    model = Several()
    trainer = quiet(tmp_path, XaiCallback(tmp_path / "run", save_checkpoint=False), max_epochs=1)
    sets = {"day": DataLoader(DATA, batch_size=8), "night": DataLoader(DATA[:6], batch_size=8)}
    trainer.fit(model, DataLoader(DATA, batch_size=8), sets)
    got = rows(tmp_path / "run", "eval").sort("ds_id", "sample_id")
    assert got["ds_id"].to_list() == ["day"] * N + ["night"] * 6
    with torch.no_grad():
        expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
    assert got["loss"].to_list() == pytest.approx(expected + expected[:6], abs=1e-5)


@pytest.mark.parametrize("persistent", [False, True])
def test_rows_numbers_are_known_of_workers_and_predictions(tmp_path: Path, persistent: bool) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Pairs(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            del batch_idx
            self(batch[0])

        def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return self.net(batch[0]).argmax(1)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model = Pairs()
    data = [(X[i], int(Y[i])) for i in range(N)]
    trainer = quiet(tmp_path, XaiCallback(tmp_path / "run", save_checkpoint=False), max_epochs=2)
    workers = {"num_workers": 1, "persistent_workers": persistent}
    trainer.fit(
        model, DataLoader(data, batch_size=5, shuffle=True, **workers), DataLoader(data, batch_size=5, **workers)
    )
    trainer.predict(model, DataLoader(data, batch_size=5))
    with torch.no_grad():
        expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
        classes = model(X).argmax(1).tolist()
    for mode in ("train", "eval"):
        got = rows(tmp_path / "run", mode).sort("epoch", "sample_id")
        assert got["sample_id"].to_list() == list(range(N)) * 2
        assert got["loss"].to_list() == pytest.approx(expected * 2, abs=1e-5)
    predicted = rows(tmp_path / "run", "infer").sort("sample_id")
    assert predicted["prediction"].to_list() == classes
    assert predicted["correct"].to_list() == (torch.tensor(classes) == Y).tolist()


def test_a_module_with_compiled_parts(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Compiled(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.compile(self.net, backend="eager")

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return functional.cross_entropy(self.net(batch[1]), batch[2])

        validation_step = training_step

    own = functional.cross_entropy
    model = Compiled()
    fit(model, XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    assert functional.cross_entropy is own
    assert len(rows(tmp_path / "run", "train")) == N
    got = rows(tmp_path / "run", "eval").sort("sample_id")
    with torch.no_grad():
        expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
    assert got["loss"].to_list() == pytest.approx(expected, abs=1e-5)


class Loose(Classifier):
    """A classifier whose step is given."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.given = step
        self.lr = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return self.given(self, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit_step(step: Any, path: Path, loader: Any = None, **options: Any) -> tuple[torch.Tensor, list[str]]:
    """The logits of all samples after a training that changes no weight, and what was warned of."""
    from xaicli.integrations.lightning import XaiCallback

    model = Loose(step)
    callback = XaiCallback(path / "run", save_checkpoint=False, **options)
    trainer = quiet_trainer(callback, path, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, loader or DataLoader(DATA, batch_size=8, shuffle=True))
    with torch.no_grad():
        return model(X), said_by_xai(caught)


def dropped(run: Path) -> int:
    return xaicli.open_run(run).info().answer.counts.dropped  # type: ignore[no-any-return]


def test_labels_that_a_criterion_got_in_another_order_are_asked_about(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        order = torch.arange(8).roll(1)
        return functional.cross_entropy(model(batch[1][order] * 2), batch[2][order])

    _, said = fit_step(step, tmp_path, keeps_order=True)
    assert len(said) == 1
    assert "in another order" in said[0]
    assert "return {'loss': loss, 'logits': logits}" in said[0]
    assert dropped(tmp_path / "run") == N


def test_labels_that_a_step_maps_are_those_the_model_was_trained_on(tmp_path: Path) -> None:
    logits, said = fit_step(lambda model, batch: functional.cross_entropy(model(batch[1]), 1 - batch[2]), tmp_path)
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert not said
    assert found["label"].to_list() == (1 - Y).tolist()
    expected = functional.cross_entropy(logits, 1 - Y, reduction="none")
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_samples_compared_with_one_another_have_no_class(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        views = model.net(batch[1])
        return functional.cross_entropy(views @ views.T, torch.arange(8))

    _, said = fit_step(step, tmp_path)
    assert ["with one another" in one for one in said] == [True]
    assert dropped(tmp_path / "run") == N


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        (lambda i: (X[i], int(Y[i]), 100 + i), 2),
        (lambda i: ((X[i], f"s{i:02}"), int(Y[i])), lambda batch: batch[0][1]),
        (lambda i: {"x": X[i], "y": int(Y[i]), "path": f"s{i:02}"}, "path"),
    ],
)
def test_ids_are_where_the_caller_says(order: Any, ids: Any, tmp_path: Path) -> None:
    def parts(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(batch, dict):
            return batch["x"], batch["y"]
        return (batch[0][0] if isinstance(batch[0], list) else batch[0]), batch[1]

    def step(model: Any, batch: Any) -> torch.Tensor:
        x, y = parts(batch)
        return functional.cross_entropy(model(x), y)

    logits, said = fit_step(step, tmp_path, DataLoader([order(i) for i in range(N)], 8, shuffle=True), ids=ids)
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert not said
    assert found["sample_id"].to_list() == ([100 + i for i in range(N)] if ids == 2 else [f"s{i:02}" for i in range(N)])
    assert found["label"].to_list() == Y.tolist()
    expected = functional.cross_entropy(logits, Y, reduction="none")
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_columns_without_ids_have_those_of_the_batch(tmp_path: Path) -> None:
    def columns(batch: Any, output: torch.Tensor) -> dict[str, Any]:
        return {"loss": output[:, 0], "label": batch[1]}

    data = DataLoader([(X[i], int(Y[i]), 100 + i) for i in range(N)], 8, shuffle=True)
    logits, said = fit_step(
        lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        tmp_path,
        data,
        ids=2,
        samples_fn=columns,
    )
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert not said
    assert found["sample_id"].to_list() == [100 + i for i in range(N)]
    assert found["loss"].to_list() == pytest.approx(logits[:, 0].tolist(), abs=1e-5)


def test_ids_that_are_not_where_they_are_said_to_be_are_told_of(tmp_path: Path) -> None:
    _, said = fit_step(lambda model, batch: functional.cross_entropy(model(batch[1]), batch[2]), tmp_path, ids=7)
    assert len(said) == 1
    assert "ids=7" in said[0]
    assert "0, 1, 2" in said[0]
    assert dropped(tmp_path / "run") == N


def test_of_id_and_input_the_input_is_no_label(tmp_path: Path) -> None:
    """Whole numbers and tokens: (id, input) as well as (input, label), so the criterion alone says what is true."""
    tokens = torch.arange(N)[:, None] % 3 + torch.zeros(N, 4).long()

    def step(model: Any, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(model(batch[1].float()), batch[0] % 2)

    fit_step(step, tmp_path, DataLoader([(i, tokens[i]) for i in range(N)], 8), ids=0)
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["label"].to_list() == [i % 2 for i in range(N)]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_loader_for_training_and_validation_has_two_walks(workers: int, tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Pairs(Loose):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            del batch_idx
            functional.cross_entropy(self(batch[0]), batch[1])

    model = Pairs(lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]))
    loader = DataLoader([(X[i], int(Y[i])) for i in range(N)], 4, shuffle=True, num_workers=workers)
    trainer = quiet_trainer(
        XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1, val_check_interval=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader, loader)
    with torch.no_grad():
        expected = functional.cross_entropy(model(X), Y, reduction="none")
    for mode, passes in (("train", 1), ("eval", 3)):
        found = rows(tmp_path / "run", mode)
        assert found.group_by("pass").len().sort("pass").rows() == [(one, N) for one in range(passes)]
        assert found["label"].to_list() == [int(Y[i]) for i in found["sample_id"]]
        assert found["loss"].to_list() == pytest.approx([float(expected[i]) for i in found["sample_id"]], abs=1e-5)


def test_trials_of_the_tuner_are_no_training(tmp_path: Path) -> None:
    from lightning.pytorch.tuner import Tuner

    from xaicli.integrations.lightning import XaiCallback

    model = Loose(lambda model, batch: functional.cross_entropy(model(batch[1]), batch[2]))
    trainer = quiet_trainer(XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Tuner(trainer).lr_find(model, DataLoader(DATA, batch_size=8), num_training=6)
        trainer.fit(model, DataLoader(DATA, batch_size=8))
    assert rows(tmp_path / "run", "train").group_by("epoch").len().rows() == [(1, N)]


def test_words_and_texts_of_a_module_with_a_tokenizer(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i for i in range(2, 20)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    texts = [" ".join(f"w{2 + (i * k) % 18}" for k in range(1, 5)) for i in range(N)]

    class Texts(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")
            self.net = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(16, 2))

    tokenizer = Texts().tokenizer
    data = [(100 + i, torch.tensor(tokenizer(text)["input_ids"]), i % 2) for i, text in enumerate(texts)]
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, facts="text")
    quiet(tmp_path, callback).fit(Texts(), DataLoader(data, batch_size=8))
    facts = pl.read_parquet(tmp_path / "run" / "facts" / "*.parquet")
    assert dict(facts.select("sample_id", "text").iter_rows()) == {100 + i: text for i, text in enumerate(texts)}
    kept = pl.read_parquet(tmp_path / "run" / "inputs" / "*.parquet")
    assert dict(kept.select("sample_id", "tokens").iter_rows()) == {
        100 + i: text.split() for i, text in enumerate(texts)
    }


def test_a_module_compiled_whole_is_asked_about_by_name_and_recorded_by_what_it_returns(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    callback = XaiCallback(tmp_path / "asked", save_checkpoint=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = torch.compile(Plain(), backend="eager")
        quiet(tmp_path, callback).fit(compiled, DataLoader(DATA, batch_size=8), DataLoader(DATA, batch_size=8))
    said = [str(one.message) for one in caught if str(one.message).startswith("xai: ")]
    assert len(said) == 2
    for line, step in zip(sorted(said), ("training_step", "validation_step"), strict=True):
        assert "torch.compile" in line
        assert step in line
        assert "return {'loss': loss, 'logits': logits}" in line

    class Returning(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            logits = self(batch[1])
            return {"loss": functional.cross_entropy(logits, batch[2]), "logits": logits}

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return {"logits": self(batch[1])}

    module = Returning()
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, task="classification:logits")
    compiled = torch.compile(module, backend="eager")
    quiet(tmp_path, callback).fit(compiled, DataLoader(DATA, batch_size=8), DataLoader(DATA, batch_size=8))
    with torch.no_grad():
        expected = functional.cross_entropy(module(X), Y, reduction="none")
    got = rows(tmp_path / "run", "eval").sort("sample_id")
    assert got["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(rows(tmp_path / "run", "train")) == N


class Plain(Classifier):
    """As `Classifier`, and nothing that a compiler cannot take."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        del batch_idx
        return functional.cross_entropy(self(batch[1]), batch[2])


@pytest.mark.parametrize("kept", [False, True])
def test_what_a_criterion_leaves_out_does_not_count(tmp_path: Path, kept: bool) -> None:
    from xaicli.integrations.lightning import XaiCallback

    table = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    words = torch.randint(0, 6, (N, 7), generator=torch.Generator().manual_seed(2))
    classes = torch.randint(1, 5, (N, 7), generator=torch.Generator().manual_seed(3))
    lengths = [2 + i % 6 for i in range(N)]
    for i, n in enumerate(lengths):
        classes[i, n:] = 0  # filled up with the class of no word

    class Tagger(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Embedding.from_pretrained(table, freeze=False)  # type: ignore[assignment, no-untyped-call]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return functional.cross_entropy(self(batch[1]).transpose(1, 2), batch[2], ignore_index=0)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return nn.NLLLoss(ignore_index=0)(self(batch[1]).log_softmax(2).flatten(0, 1), batch[2].flatten())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data = [(100 + i, words[i], classes[i]) for i in range(N)]
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False, keep_tokens=kept)
    trainer = quiet_trainer(callback, tmp_path, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Tagger(), DataLoader(data, batch_size=8), DataLoader(data, batch_size=8))
    assert not [str(one.message) for one in caught if "one value a sample" in str(one.message)]
    expected = [float(functional.cross_entropy(table[words[i, :n]], classes[i, :n])) for i, n in enumerate(lengths)]
    for mode in ("train", "eval"):
        found = rows(tmp_path / "run", mode).sort("sample_id")
        assert found["loss"].to_list() == pytest.approx(expected, abs=1e-4)
        assert found["n_tokens"].to_list() == lengths
        if kept:
            losses = [[loss for loss in one if loss == loss] for one in found["token_losses"].to_list()]
            assert [len(one) for one in losses] == lengths
            assert [sum(one) / len(one) for one in losses] == pytest.approx(expected, abs=1e-2)


def test_a_class_that_a_criterion_leaves_out_is_no_label(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Voiding(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return nn.CrossEntropyLoss(ignore_index=1)(self(batch[1]), batch[2])

    for name, options, expected in (("run", {}, {0, None}), ("own", {"ignore_label": 0}, {None})):
        fit(Voiding(), XaiCallback(tmp_path / name, save_checkpoint=False, **options), tmp_path)
        found = rows(tmp_path / name, "train")
        assert set(found["label"]) == expected
        assert len(found) == N * EPOCHS
        assert found.filter(pl.col("label").is_null())["loss"].is_null().all()


WORDS = torch.randint(1, 6, (N, 7), generator=torch.Generator().manual_seed(2))
TAGS = torch.randint(0, 5, (N, 7), generator=torch.Generator().manual_seed(3))
LONG = torch.tensor([2 + i % 6 for i in range(N)])
INSIDE = torch.arange(7)[None] < LONG[:, None]
WORDS[~INSIDE] = 0


def chosen(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores[inside], batch["labels"][inside])


def weighed(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    each = functional.cross_entropy(scores.transpose(1, 2), batch["labels"], reduction="none")
    return (each * inside).sum() / inside.sum()


def of_each(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    each = functional.cross_entropy(scores.transpose(1, 2), batch["labels"], reduction="none")
    return ((each * inside).sum(1) / inside.sum(1)).mean()


def chosen_otherwise(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    inside = inside & (batch["words"] != 3)
    return functional.cross_entropy(scores[inside], batch["labels"][inside])


def weighed_otherwise(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    each = functional.cross_entropy(scores.transpose(1, 2), batch["labels"], reduction="none")
    return (each.square() * inside).sum() / inside.sum()


def averaged(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    del inside
    return functional.cross_entropy(scores.transpose(1, 2), batch["labels"], reduction="none").mean()


def marked(scores: torch.Tensor, batch: Any, inside: torch.Tensor) -> torch.Tensor:
    labels = batch["labels"].masked_fill(~inside, -100)
    return functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").sum() / inside.sum()


@pytest.mark.parametrize("name", ["mask", "key_padding_mask", "lengths", "inside", "nothing"])
@pytest.mark.parametrize(
    ("loss", "said", "counts"),
    [
        (chosen, "", True),
        (weighed, "", True),
        (of_each, "", True),
        (chosen_otherwise, "", True),
        (weighed_otherwise, "weighs the losses of the places", None),
        (averaged, "", False),
        (marked, "", True),
    ],
)
def test_places_that_a_mask_may_leave_out(tmp_path: Path, name: str, loss: Any, said: str, counts: bool | None) -> None:
    """Of those that a step leaves out by a mask no loss is recorded as if they counted.

    Where its loss is that of places that the batch, or what fills up its texts, says, these count; else it is asked.
    """
    from xaicli.integrations.lightning import XaiCallback

    class Tagger(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Embedding(6, 5)

        def forward(self, words: torch.Tensor) -> Any:
            return self.net(words)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return loss(self(batch["words"]), batch, INSIDE[batch["sample_id"]])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    given = {"mask": INSIDE.long(), "key_padding_mask": ~INSIDE, "lengths": LONG, "inside": INSIDE}.get(name)
    data = [{"sample_id": i, "words": WORDS[i], "labels": TAGS[i]} for i in range(N)]
    data = data if given is None else [one | {name: given[i]} for i, one in enumerate(data)]
    trainer = quiet_trainer(XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    model = Tagger()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, DataLoader(data, batch_size=8))
    told = said_by_xai(caught)
    if counts is None:
        assert [said in one and "-100" in one for one in told] == [True]
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        return
    assert not told
    found = rows(tmp_path / "run", "train").sort("sample_id")
    with torch.no_grad():
        each = functional.cross_entropy(model(WORDS).transpose(1, 2), TAGS, reduction="none")
    every = INSIDE if counts else torch.ones_like(INSIDE)
    every = every & (WORDS != 3) if loss is chosen_otherwise else every
    expected = (each * every).sum(1) / every.sum(1)
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("optimizers", [1, 2])
def test_a_step_that_calls_its_optimizers_itself_is_counted_as_the_one_it_computes(
    tmp_path: Path, optimizers: int
) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Manual(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.expected: dict[tuple[int, int], int] = {}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            self.expected |= {(self.current_epoch + 1, int(i)): self.global_step + 1 for i in batch[0]}
            logits = self(batch[1])
            self.manual_backward(functional.cross_entropy(logits, batch[2]))
            chosen = self.optimizers()
            for optimizer in chosen if isinstance(chosen, list) else [chosen]:
                optimizer.step()
            return {"logits": logits}

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(optimizers)]

    model = Manual()
    fit(model, XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path)
    train = rows(tmp_path / "run", "train")
    assert {(e, i): step for e, i, step in train.select("epoch", "sample_id", "step").iter_rows()} == model.expected
    assert sorted(set(model.expected.values()))[:2] == [1, 1 + optimizers]


PICTURES = [torch.full((3, 4 + i % 3, 4 + i % 2), float(i)) for i in range(N)]
FOUND = [{"boxes": torch.ones(1 + i % 2, 4), "classes": torch.tensor([i % 2] * (1 + i % 2))} for i in range(N)]


class Detector(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Is given pictures of several sizes as a list, and what stands on them as dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        self.seen += [float(one.mean()) for one in batch[0]]
        return sum(self.net(one.mean().reshape(1, 1)).sum() for one in batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("turns", [False, True])
def test_pictures_of_several_sizes_have_the_numbers_of_their_rows(tmp_path: Path, turns: bool) -> None:
    from xaicli.integrations.lightning import XaiCallback

    def together(samples: list[Any]) -> Any:
        return tuple(zip(*(samples[::-1] if turns else samples), strict=True))

    callback = XaiCallback(
        tmp_path / "run",
        save_checkpoint=False,
        samples_fn=lambda batch, _output: {"brightness": torch.stack([one.mean() for one in batch[0]])},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = list(zip(PICTURES, FOUND, strict=True))
        quiet(tmp_path, callback).fit(Detector(), DataLoader(data, batch_size=5, shuffle=True, collate_fn=together))
    found = rows(tmp_path / "run", "train")
    assert dict(found.select("sample_id", "brightness").iter_rows()) == {i: float(i) for i in range(N)}
    said = said_by_xai(caught)
    assert len(said) == 1
    assert "the rows' numbers in the dataset are taken" in said[0]


def test_dropped_pictures_are_counted_one_by_one(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    together = lambda samples: tuple(zip(*samples, strict=True))  # noqa: E731
    data = list(zip(PICTURES, FOUND, strict=True))
    with pytest.warns(UserWarning, match="xai: training_step"):
        quiet(tmp_path, callback).fit(Detector(), DataLoader(data, batch_size=5, collate_fn=together))
    assert dropped(tmp_path / "run") == N


class Scored(Classifier):
    """Validates by an object that is told scores and labels; its net is called by name."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        del batch_idx
        self.right = int((self.net(batch[1]).argmax(1) == batch[2]).sum())


def test_a_step_that_computes_is_not_said_to_leave_batches_out(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    with pytest.warns(UserWarning, match="validation_step neither returns the model's answers nor runs the module's"):
        fit(Scored(), callback, tmp_path, max_epochs=1)


class Speaker(nn.Module):
    """A causal language model that computes a loss of its own where it is given labels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(tokens)
        following = functional.pad(labels, (0, 1), value=-100)[:, 1:]
        loss = functional.cross_entropy(logits.reshape(-1, 7), following.reshape(-1))
        return {"loss": loss, "scores": logits}


@pytest.mark.parametrize("way", ["the model's own", "shifted in the step", "of other labels"])
def test_the_loss_that_is_trained_on_says_the_labels_and_their_places(tmp_path: Path, way: str) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Speaker()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            output = self.model(tokens=batch["tokens"], labels=batch["labels"])
            if way == "the model's own":
                return output["loss"]
            if way == "of other labels":
                return functional.cross_entropy(output["scores"].reshape(-1, 7), 6 - batch["labels"].reshape(-1))
            following = batch["labels"][:, 1:].reshape(-1)
            return functional.cross_entropy(output["scores"][:, :-1].reshape(-1, 7), following)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    tokens = torch.randint(0, 7, (N, 5), generator=torch.Generator().manual_seed(1))
    data = [{"sample_id": i, "tokens": tokens[i], "labels": tokens[i]} for i in range(N)]
    quiet(tmp_path, XaiCallback(tmp_path / "run", save_checkpoint=False)).fit(Module(), DataLoader(data, batch_size=6))
    with torch.no_grad():
        logits = Speaker().net(tokens)
    is_other = way == "of other labels"
    scores, truth = (logits, 6 - tokens) if is_other else (logits[:, :-1], tokens[:, 1:])
    each = functional.cross_entropy(scores.movedim(2, 1), truth, reduction="none")
    found = rows(tmp_path / "run", "train").sort("sample_id")
    assert found["loss"].to_list() == pytest.approx(each.mean(1).tolist(), abs=1e-5)
    assert found["n_tokens"].to_list() == [5 if is_other else 4] * N
    assert found["worst_token"].to_list() == (each.argmax(1) + (0 if is_other else 1)).tolist()


@pytest.mark.parametrize("options", [{"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2}], ids=str)
def test_a_validation_s_scalars_do_not_come_again_where_a_checkpoint_is_saved(
    options: dict[str, Any], tmp_path: Path
) -> None:
    from xaicli.integrations.lightning import XaiCallback

    validated: list[tuple[int, int]] = []

    class Logging(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("share", 0.25, on_step=False, on_epoch=True)  # of one name and one value in both modes
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            del batch_idx
            self.log("val_loss", functional.cross_entropy(self(batch[1]), batch[2]))
            self.log("share", 0.25)

        def on_validation_epoch_end(self) -> None:
            self.log("val_end", 1.0 + len(validated))
            if not self.trainer.sanity_checking:
                validated.append((self.current_epoch + 1, self.global_step))

        def on_train_epoch_end(self) -> None:
            self.log("train_end", 1.0 + self.current_epoch)

    stopping = lightning.callbacks.EarlyStopping("val_loss", patience=9, check_on_train_epoch_end=False)
    callbacks = [XaiCallback(tmp_path / "run", save_checkpoint=False), stopping]
    fit(Logging(), callbacks, tmp_path, max_epochs=4, enable_checkpointing=True, num_sanity_val_steps=0, **options)
    logged = xaicli.open_run(tmp_path / "run").query("SELECT key, mode, epoch, step FROM scalars").data
    for key in ("val_loss", "val_end"):
        found = logged.filter(pl.col("key") == key).select("mode", "epoch", "step").rows()
        assert sorted(found) == [("eval", *at) for at in validated]
    shared = logged.filter(pl.col("key") == "share").select("mode", "epoch").rows()
    assert sorted(shared) == [*(("eval", at[0]) for at in validated), *(("train", epoch) for epoch in (1, 2, 3, 4))]
    ends = logged.filter(pl.col("key") == "train_end").select("mode", "epoch").rows()
    assert sorted(ends) == [("train", epoch) for epoch in (1, 2, 3, 4)]
