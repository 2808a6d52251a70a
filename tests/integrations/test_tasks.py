"""Criteria of other tasks, targets that a step makes, and losses that are sums: what is recorded, and what is said."""

from __future__ import annotations

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
from xaicli.heads.head import Task
from xaicli.integrations.answers import labels_as

N, K = 24, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(N) % K
BITS = torch.arange(N) % 2
NUMBERS = X.abs().sum(1) + 1
OTHERS = torch.randint(0, K, (N,), generator=torch.Generator().manual_seed(1))


def rows_of(
    folder: Path,
    train: Any,
    evaluate: Any,
    labels: torch.Tensor | None,
    width: int = K,
    *,
    before: bool = False,
    **options: Any,
) -> tuple[nn.Module, dict[str, pl.DataFrame], list[str]]:
    """A model, its rows of train and eval by sample, and what xai said: the model learns nothing.

    Those of eval are of the epoch 1, or of the one before that, 0, where that is asked for.
    """
    lightning = pytest.importorskip("lightning.pytorch")
    from xaicli.integrations.lightning import XaiCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, width)

        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            scores = self.net(x)
            return scores if labels is None else {"loss": functional.cross_entropy(scores, labels), "logits": scores}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return train(self, batch)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return evaluate(self, batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    own: list[dict[str, Any]] = [{} if labels is None else {"label": labels[i]} for i in range(N)]
    data = [{"sample_id": i, "x": X[i], **own[i], "other": OTHERS[i]} for i in range(N)]
    model = Module()
    trainer = quiet_trainer(XaiCallback(folder / "run", save_checkpoint=False, **options), folder, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if before:
            trainer.validate(model, DataLoader(data, batch_size=8), verbose=False)
        trainer.fit(model, DataLoader(data, batch_size=8), DataLoader(data, batch_size=8))
    run = xaicli.open_run(folder / "run")
    frames = {mode: run.scan(mode=mode).collect().sort("sample_id") for mode in ("train", "eval")}
    frames["eval"] = frames["eval"].filter(epoch=0 if before else 1)
    return model, frames, said_by_xai(caught)


def of_classes(model: Any, batch: Any) -> Any:
    return functional.cross_entropy(model(batch["x"]), batch["label"])


def one_hot(batch: Any) -> torch.Tensor:
    return functional.one_hot(batch["label"], K).float()


def squared(model: Any, batch: Any) -> Any:
    return functional.mse_loss(model(batch["x"]), one_hot(batch))


def brier(model: Any, batch: Any) -> Any:
    return functional.mse_loss(model(batch["x"]).softmax(1), one_hot(batch))


def brier_alone(model: Any, batch: Any) -> None:
    brier(model, batch)


def brier_beside(model: Any, batch: Any) -> Any:
    of_classes(model, batch)
    return functional.mse_loss(model.net(batch["x"]).softmax(1), one_hot(batch))


def of_each(model: Any, batch: Any) -> Any:
    return functional.binary_cross_entropy_with_logits(model(batch["x"]), one_hot(batch))


def scores_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.net(X)  # type: ignore[no-any-return]


@pytest.mark.parametrize("evaluate", [squared, brier, brier_alone, of_each])
def test_an_evaluation_of_a_training_of_classes_is_of_classes(tmp_path: Path, evaluate: Any) -> None:
    model, frames, said = rows_of(tmp_path, of_classes, evaluate, CLASSES)
    expected = functional.cross_entropy(scores_of(model), CLASSES, reduction="none")
    for frame in frames.values():
        assert frame["label"].to_list() == CLASSES.tolist()
        assert frame["prediction"].to_list() == scores_of(model).argmax(1).tolist()
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert "abs_error" not in frames["eval"].columns
    assert said == []


@pytest.mark.parametrize("task", [None, "classification"])
@pytest.mark.parametrize("evaluate", [brier, brier_alone])
@pytest.mark.parametrize("train", [of_classes, brier])
def test_a_brier_score_before_any_training_is_of_classes(
    tmp_path: Path, train: Any, evaluate: Any, task: str | None
) -> None:
    """What makes it one is the softmax beside rows of zeros and a one, whatever the training does after it."""
    model, frames, said = rows_of(tmp_path, train, evaluate, CLASSES, before=True, **({"task": task} if task else {}))
    expected = functional.cross_entropy(scores_of(model), CLASSES, reduction="none")
    for frame in frames.values():
        assert frame["label"].to_list() == CLASSES.tolist()
        assert frame["prediction"].to_list() == scores_of(model).argmax(1).tolist()
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
        probs = scores_of(model).softmax(1)[range(N), CLASSES]
        assert frame["label_prob"].to_list() == pytest.approx(probs.tolist(), abs=1e-5)
    assert said == []


def test_squared_errors_before_any_training_are_told_with_what_helps(tmp_path: Path) -> None:
    """Without a softmax these may be numbers; what is advised makes them classes."""
    _, _, said = rows_of(tmp_path / "told", of_classes, squared, CLASSES, before=True)
    assert ['XaiCallback(..., task="classification")' in one for one in said] == [True, True, False]
    assert "logits of a regression are its predictions, one a sample: they have shape (" in said[2]
    model, frames, said = rows_of(tmp_path / "said", of_classes, squared, CLASSES, before=True, task="classification")
    expected = functional.cross_entropy(scores_of(model), CLASSES, reduction="none")
    for frame in frames.values():
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("names", [False, True])
def test_a_teachers_probabilities_are_classes_also_as_their_logarithms(
    tmp_path: Path, is_log: bool, names: bool
) -> None:
    """As KLDivLoss(log_target=True) takes them: they are no numbers to be hit, and all of them count in the loss."""
    teacher = torch.randn(N, K, generator=torch.Generator().manual_seed(2)).log_softmax(1)

    def step(model: Any, batch: Any) -> Any:
        scores = model(batch["x"])
        criterion = nn.KLDivLoss(reduction="batchmean", log_target=is_log)
        loss = criterion(scores.log_softmax(1), batch["label"])
        return {"loss": loss, "logits": scores} if names else loss

    model, frames, said = rows_of(tmp_path, step, step, teacher if is_log else teacher.exp())
    expected = functional.cross_entropy(scores_of(model), teacher.exp(), reduction="none")
    sure = (scores_of(model).softmax(1) * teacher.exp()).sum(1)
    for frame in frames.values():
        assert frame["label"].to_list() == teacher.argmax(1).tolist()
        assert frame["prediction"].to_list() == scores_of(model).argmax(1).tolist()
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
        assert frame["label_prob"].to_list() == pytest.approx(sure.tolist(), abs=1e-5)
        assert "abs_error" not in frame.columns
    assert said == []


@pytest.mark.parametrize("is_of_batch", [True, False])
def test_soft_labels_of_a_criterion_are_read_as_log_samples_does(tmp_path: Path, is_of_batch: bool) -> None:
    """Also where the batch has no label; kept inputs have the largest class."""
    parts = torch.randn(N, K, generator=torch.Generator().manual_seed(2)).softmax(1)

    def step(model: Any, batch: Any) -> Any:
        target = batch["label"] if is_of_batch else parts[batch["sample_id"]]
        return functional.cross_entropy(model(batch["x"]), target)

    model, frames, said = rows_of(tmp_path, step, step, parts if is_of_batch else None)
    run = xaicli.Run(tmp_path / "alone")
    run.log_samples(sample_id=torch.arange(N), label=parts, logits=scores_of(model), mode="train", epoch=1)
    run.close()
    alone = xaicli.open_run(tmp_path / "alone").scan(mode="train").collect().sort("sample_id")
    expected = functional.cross_entropy(scores_of(model), parts, reduction="none")
    for frame in frames.values():
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
        for name in ("label", "prediction", "loss", "label_prob", "el2n", "margin"):
            assert frame[name].to_list() == pytest.approx(alone[name].to_list(), abs=1e-5)
    assert said == []
    kept = pl.read_parquet(tmp_path / "run" / "inputs" / "*.parquet")
    assert kept["label"].to_list() == parts.argmax(1)[kept["sample_id"].to_list()].tolist()


def test_a_class_of_the_batch_counts_beside_a_teachers_logarithms(tmp_path: Path) -> None:
    teacher = torch.randn(N, K, generator=torch.Generator().manual_seed(2)).log_softmax(1)

    def step(model: Any, batch: Any) -> Any:
        return functional.kl_div(
            model(batch["x"]).log_softmax(1), teacher[batch["sample_id"]], reduction="batchmean", log_target=True
        )

    model, frames, said = rows_of(tmp_path, step, step, CLASSES)
    expected = functional.cross_entropy(scores_of(model), CLASSES, reduction="none")
    for frame in frames.values():
        assert frame["label"].to_list() == CLASSES.tolist()
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


@pytest.mark.parametrize("made", [torch.sigmoid, torch.nn.Identity()])
def test_an_evaluation_of_yes_and_no_is_of_yes_and_no(tmp_path: Path, made: Any) -> None:
    def train(model: Any, batch: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(model(batch["x"])[:, 0], batch["label"].float())

    def evaluate(model: Any, batch: Any) -> Any:
        return functional.mse_loss(made(model(batch["x"])[:, 0]), batch["label"].float())

    model, frames, said = rows_of(tmp_path, train, evaluate, BITS, 1)
    scores = scores_of(model)[:, 0]
    expected = functional.binary_cross_entropy_with_logits(scores, BITS.float(), reduction="none")
    for frame in frames.values():
        assert frame["label"].to_list() == BITS.tolist()
        assert frame["prediction"].to_list() == (scores > 0).long().tolist()
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


def test_an_evaluation_of_sets_by_their_one_class_is_of_sets(tmp_path: Path) -> None:
    model, frames, said = rows_of(tmp_path, of_each, of_classes, CLASSES)
    target = functional.one_hot(CLASSES, K).float()
    expected = functional.binary_cross_entropy_with_logits(scores_of(model), target, reduction="none").mean(1)
    for frame in frames.values():
        assert frame["label"].to_list() == [[one] for one in CLASSES.tolist()]
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert said == []


def test_an_evaluation_by_a_threshold_of_numbers_is_of_numbers(tmp_path: Path) -> None:
    def train(model: Any, batch: Any) -> Any:
        return functional.mse_loss(model(batch["x"])[:, 0], batch["label"])

    def evaluate(model: Any, batch: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(model(batch["x"])[:, 0], (batch["label"] > 3).float())

    model, frames, _ = rows_of(tmp_path, train, evaluate, NUMBERS, 1)
    for frame in frames.values():
        assert frame["label"].to_list() == pytest.approx(NUMBERS.tolist())
        assert frame["loss"].to_list() == pytest.approx((scores_of(model)[:, 0] - NUMBERS).square().tolist(), abs=1e-4)


def test_targets_of_another_task_that_say_nothing_of_the_run_s_are_told(tmp_path: Path) -> None:
    def train(model: Any, batch: Any) -> Any:
        return functional.mse_loss(model(batch["x"]), batch["x"][:, :K])

    _, frames, said = rows_of(tmp_path, train, of_classes, CLASSES)
    assert "label" not in frames["eval"].columns or frames["eval"]["label"].null_count() == N
    assert frames["eval"]["loss"].null_count() == N
    assert ["targets of classification, and the run is of regression" in one for one in said] == [True]


def test_numbers_for_classes_are_told_and_the_task_that_is_said_counts(tmp_path: Path) -> None:
    model, frames, said = rows_of(tmp_path / "told", squared, of_classes, CLASSES)
    target = functional.one_hot(CLASSES, K).float()
    for frame in frames.values():
        expected = (scores_of(model) - target).square().mean(1)
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert ['task="classification"' in one for one in said] == [True]
    model, frames, said = rows_of(tmp_path / "said", squared, of_classes, CLASSES, task="classification")
    for frame in frames.values():
        assert frame["label"].to_list() == CLASSES.tolist()
        assert frame["prediction"].to_list() == scores_of(model).argmax(1).tolist()
    assert said == []


def mixed(model: Any, batch: Any) -> Any:
    scores = model(0.7 * batch["x"] + 0.3 * batch["x"].flip(0))
    there = functional.cross_entropy(scores, batch["label"].flip(0))
    return 0.3 * there + 0.7 * functional.cross_entropy(scores, batch["label"])


def taught(model: Any, batch: Any) -> Any:
    return functional.cross_entropy(model(batch["x"]), batch["x"][:, :K].softmax(1))


@pytest.mark.parametrize(("train", "words"), [(mixed, "the same answers with several labels"), (taught, "soft labels")])
def test_targets_beside_the_batch_s_own_are_told(tmp_path: Path, train: Any, words: str) -> None:
    model, frames, said = rows_of(tmp_path, train, of_classes, CLASSES)
    assert frames["train"]["label"].to_list() == CLASSES.tolist()
    inputs = X
    if train is mixed:
        inputs = torch.cat([0.7 * part + 0.3 * part.flip(0) for part in X.split(8)])
    with torch.no_grad():
        expected = functional.cross_entropy(model.net(inputs), CLASSES, reduction="none")
    assert frames["train"]["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert [words in one for one in said] == [True]


def test_several_labels_none_of_which_is_the_batch_s_are_no_label(tmp_path: Path) -> None:
    def train(model: Any, batch: Any) -> Any:
        scores = model(batch["x"])
        mapped = functional.cross_entropy(scores, (batch["label"] + 1) % K)
        return mapped + 0.1 * functional.cross_entropy(scores, batch["other"])

    _, frames, said = rows_of(tmp_path, train, of_classes, CLASSES)
    assert "label" not in frames["train"].columns or frames["train"]["label"].null_count() == N
    assert any("which of them are the samples' is not known" in one for one in said)


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("is_number", [True, False])
def test_of_a_model_s_own_loss_and_another_the_heavier_one_counts(
    tmp_path: Path, weight: float, is_number: bool, names: bool
) -> None:
    def step(model: Any, batch: Any) -> Any:
        out = model(batch["x"], labels=batch["label"])
        scores = out["logits"]
        beside = functional.cross_entropy(scores, batch["other"])
        if is_number:
            beside = functional.mse_loss(scores[:, 0], batch["other"].float())
        loss = out["loss"] + weight * beside
        return {"loss": loss, "logits": scores} if names else loss

    model, frames, said = rows_of(tmp_path, step, step, CLASSES)
    assert [("made of the model's own and" in one) for one in said] == [True]
    if weight > 1 and is_number:
        return
    labels = OTHERS if weight > 1 else CLASSES
    expected = functional.cross_entropy(scores_of(model), labels, reduction="none")
    for frame in frames.values():
        assert frame["label"].to_list() == labels.tolist()
        assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_class_and_its_row_of_zeros_and_a_one_say_the_same() -> None:
    rows = functional.one_hot(CLASSES, K).float()
    assert labels_as(Task.CLASSIFICATION, rows, K).tolist() == CLASSES.tolist()  # type: ignore[union-attr]
    assert labels_as(Task.MULTILABEL, CLASSES, K).tolist() == rows.tolist()  # type: ignore[union-attr]
    assert labels_as(Task.BINARY, BITS.float()[:, None], 1).tolist() == BITS.tolist()  # type: ignore[union-attr]
    for task, truth in (
        (Task.CLASSIFICATION, rows * 0.9 + 0.03),
        (Task.CLASSIFICATION, rows + rows.flip(1)),
        (Task.MULTILABEL, CLASSES - 1),
        (Task.BINARY, NUMBERS),
        (Task.REGRESSION, BITS),
    ):
        assert labels_as(task, truth, 1 if task is Task.BINARY or truth is BITS else K) is None


MASKS = (torch.rand(N, 1, 2, 4, generator=torch.Generator().manual_seed(2)) > 0.5).float()


def as_masks(z: torch.Tensor) -> torch.Tensor:
    return z.reshape(-1, 1, 2, 4)


@pytest.mark.parametrize(
    ("criterion", "made", "of"),
    [
        (functional.binary_cross_entropy, lambda z: as_masks(z).sigmoid(), lambda y: y),
        (functional.binary_cross_entropy_with_logits, lambda z: as_masks(z)[:, 0], lambda y: y[:, 0]),
        (functional.binary_cross_entropy_with_logits, lambda z: z.reshape(-1, 4, 2), lambda y: y.reshape(-1, 4, 2)),
    ],
)
def test_yes_and_no_at_every_place_is_of_all_places(tmp_path: Path, criterion: Any, made: Any, of: Any) -> None:
    def step(model: Any, batch: Any) -> Any:
        return criterion(made(model(batch["x"])), of(batch["label"]))

    model, frames, said = rows_of(tmp_path, step, step, MASKS, 8)
    z = scores_of(model).double()
    each = torch.log1p(z.exp()) - z * MASKS.flatten(1)
    right = ((z > 0) == (MASKS.flatten(1) > 0.5)).double().mean(1)
    for frame in frames.values():
        assert frame["loss"].to_list() == pytest.approx(each.mean(1).tolist(), abs=1e-5)
        assert frame["token_accuracy"].to_list() == pytest.approx(right.tolist())
        assert frame["worst_token"].to_list() == each.argmax(1).tolist()
        assert frame["n_tokens"].to_list() == [8] * N
        assert "label" not in frame.columns
    assert said == []


def test_one_number_beside_soft_labels_has_the_batchs_own_or_the_larger_share(tmp_path: Path) -> None:
    def smoothed(model: Any, batch: Any) -> Any:
        target = batch["label"].float() * 0.9 + 0.05
        return functional.binary_cross_entropy_with_logits(model(batch["x"])[:, 0], target)

    def given(model: Any, batch: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(model(batch["x"])[:, 0], batch["label"])

    model, frames, said = rows_of(tmp_path / "own", smoothed, smoothed, BITS, 1)
    z = scores_of(model)[:, 0].double()
    for frame in frames.values():
        assert frame["label"].to_list() == BITS.tolist()
        assert frame["loss"].to_list() == pytest.approx((torch.log1p(z.exp()) - z * BITS).tolist(), abs=1e-5)
    assert len(said) == 2
    assert all("gives its criterion soft labels" in line for line in said)
    share = BITS * 0.6 + 0.2
    _, frames, said = rows_of(tmp_path / "shares", given, given, share, 1)
    for frame in frames.values():
        assert frame["label"].to_list() == BITS.tolist()
        assert frame["loss"].to_list() == pytest.approx((torch.log1p(z.exp()) - z * share).tolist(), abs=1e-5)
    assert said == []
    gray = MASKS * 0.5 + 0.1  # pictures in between have a loss, and no class a place
    _, frames, said = rows_of(
        tmp_path / "gray",
        lambda model, batch: functional.binary_cross_entropy_with_logits(as_masks(model(batch["x"])), batch["label"]),
        given_scores,
        gray,
        8,
    )
    each = torch.log1p(scores_of8().exp()) - scores_of8() * gray.flatten(1)
    assert frames["train"]["loss"].to_list() == pytest.approx(each.mean(1).tolist(), abs=1e-5)
    assert "token_accuracy" not in frames["train"].columns


def given_scores(model: Any, batch: Any) -> Any:
    return {"loss": functional.mse_loss(as_masks(model(batch["x"])), batch["label"])}


def scores_of8() -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return nn.Linear(4, 8)(X).double()  # type: ignore[no-any-return]


def test_heads_laid_side_by_side_and_members_of_an_ensemble_are_counted_as_dropped(tmp_path: Path) -> None:
    def heads(model: Any, batch: Any) -> Any:
        z, y = model(batch["x"]), batch["label"]
        return functional.cross_entropy(z[:, :3], y[:, 0]) + functional.cross_entropy(z[:, 3:], y[:, 1])

    def members(model: Any, batch: Any) -> Any:
        model.forward = lambda x: model.net(x).reshape(-1, 2, 3).movedim(1, 0)
        return sum(functional.cross_entropy(z, batch["label"][:, 0]) for z in model(batch["x"]))

    both = torch.stack([CLASSES, OTHERS], 1)
    for name, step in (("heads", heads), ("members", members)):
        with pytest.raises(xaicli.XaiError, match="48 rows were not recorded") as dropped:
            rows_of(tmp_path / name, step, step, both, 6)
        assert str(dropped.value.hint).count("which of the answers count cannot be told") == 2
