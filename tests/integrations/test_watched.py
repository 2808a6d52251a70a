"""Criteria that are only watched: labels and losses are those of the loss that the step returns."""

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

N = 24
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 2
OTHER = (X[:, 2] > 0).long()
MAPPED = (X[:, 3] > 0).long()


class Own(nn.Module):
    """A classifier that computes a loss of its own of the labels that it is given, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class Fused(Own):
    """The same by operations that are no criterion, as fused kernels are."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"loss": -logits.log_softmax(1).gather(1, labels[:, None]).mean(), "logits": logits}


def of_the_other_class(scores: torch.Tensor, batch: Any) -> Any:
    with torch.no_grad():
        return functional.cross_entropy(scores, 1 - batch["label"])


def of_an_attribute(scores: torch.Tensor, batch: Any) -> Any:
    return functional.cross_entropy(scores.detach(), batch["other"]).item()


def with_gradients(scores: torch.Tensor, batch: Any) -> Any:
    return functional.cross_entropy(scores, batch["other"])


def own(out: Any, _batch: Any) -> torch.Tensor:
    return out["loss"]


def scaled(out: Any, _batch: Any) -> torch.Tensor:
    return out["loss"] * 3 / 4


def penalized(out: Any, _batch: Any) -> torch.Tensor:
    loss = out["loss"] * 0.5
    loss += out["logits"].square().mean()
    return loss


def by_hand(out: Any, batch: Any) -> torch.Tensor:
    return -out["logits"].log_softmax(1).gather(1, batch["label"][:, None]).mean()


def mapped(out: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(out["logits"], batch["mapped"])


def mapped_and_smooth(out: Any, batch: Any) -> torch.Tensor:
    each = functional.cross_entropy(out["logits"], batch["mapped"], label_smoothing=0.1, reduction="none")
    return torch.stack([0.5 * each.mean(), 0.5 * each.sum() / len(each)]).sum()


LOSSES = [own, scaled, penalized, by_hand, mapped, mapped_and_smooth]
WATCHED = [of_the_other_class, of_an_attribute, with_gradients]


def lightning_rows(
    folder: Path,
    model: nn.Module,
    loss: Any,
    watch: Any,
    *,
    returns: bool = True,
    names: bool = False,
    entry: str = "fit",
) -> tuple[dict[str, pl.DataFrame], list[str]]:
    lightning = pytest.importorskip("lightning.pytorch")
    from xaicli.integrations.lightning import XaiCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def step(self, batch: Any) -> Any:
            out = self.model(x=batch["x"], labels=batch["label"])
            found = loss(out, batch)
            self.seen = watch(out["logits"], batch)
            return {"loss": found, "logits": out["logits"]} if names else found

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return self.step(batch)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            found = self.step(batch)
            return found if returns else None

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data = [{"sample_id": i, "x": X[i], "label": Y[i], "other": OTHER[i], "mapped": MAPPED[i]} for i in range(N)]
    callback = XaiCallback(folder / "run", save_checkpoint=False)
    trainer = quiet_trainer(callback, folder, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaders = DataLoader(data, batch_size=8), DataLoader(data, batch_size=8)
        trainer.fit(Module(), *loaders) if entry == "fit" else trainer.validate(Module(), loaders[1], verbose=False)
    run = xaicli.open_run(folder / "run")
    frames = {mode: run.scan(mode=mode).collect() for mode in (["train"] if entry == "fit" else []) + ["eval"]}
    return frames, said_by_xai(caught)


def is_by(frame: pl.DataFrame, model: Any, labels: torch.Tensor) -> bool:
    """Whether rows have these labels, and their losses."""
    frame = frame.sort("sample_id")
    with torch.no_grad():
        expected = functional.cross_entropy(model.net(X), labels, reduction="none")
    assert frame["sample_id"].to_list() == list(range(N))
    assert frame["label"].to_list() == labels.tolist()
    assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    return True


def all_of_them(scores: torch.Tensor, batch: Any) -> Any:
    return [watch(scores, batch) for watch in WATCHED]


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_step_watches_is_no_label(tmp_path: Path, loss: Any) -> None:
    model = Own()
    frames, said = lightning_rows(tmp_path, model, loss, all_of_them, names=loss is by_hand)
    for frame in frames.values():
        assert is_by(frame, model, MAPPED if loss in (mapped, mapped_and_smooth) else Y)
    assert said == []


@pytest.mark.parametrize("watch", WATCHED)
def test_an_evaluation_that_returns_nothing_is_of_what_the_training_was(tmp_path: Path, watch: Any) -> None:
    model = Own()
    frames, said = lightning_rows(tmp_path, model, scaled, watch, returns=False)
    for frame in frames.values():
        assert is_by(frame, model, Y)
    assert said == []


def test_a_model_s_own_loss_need_be_no_criterion(tmp_path: Path) -> None:
    model = Fused()
    frames, _ = lightning_rows(tmp_path, model, own, all_of_them, names=True)
    for frame in frames.values():
        assert is_by(frame, model, Y)


@pytest.mark.parametrize("loss", [penalized, mapped_and_smooth])
def test_an_evaluation_alone_tells_by_what_it_returns(tmp_path: Path, loss: Any) -> None:
    model = Own()
    frames, said = lightning_rows(tmp_path, model, loss, all_of_them, entry="validate")
    assert is_by(frames["eval"], model, MAPPED if loss is mapped_and_smooth else Y)
    assert said == []


def test_a_figure_of_the_batch_s_labels_shows_the_answers_of_a_loss_by_hand(tmp_path: Path) -> None:
    model = Own()

    def figure(scores: torch.Tensor, batch: Any) -> Any:
        return functional.cross_entropy(scores.detach(), batch["label"]).item()

    frames, said = lightning_rows(tmp_path, model, by_hand, figure)
    for frame in frames.values():
        assert is_by(frame, model, Y)
    assert said == []


def test_labels_that_may_be_others_are_not_said_to_be_in_another_order_where_the_order_is_known(tmp_path: Path) -> None:
    """As many of each class: a loss of the other class, of a model that is given the batch as it is."""
    model = Own()
    frames, said = lightning_rows(tmp_path, model, mapped, lambda *_: None)
    assert sorted(MAPPED[:8].tolist()) == sorted(Y[:8].tolist())
    assert is_by(frames["train"], model, MAPPED)
    assert said == []


class Figures:
    """Losses of a `compute_loss`, with what it watches beside: the labels of the batch, and others made of it."""

    @staticmethod
    def own(model: Any, inputs: Any) -> Any:
        out = model(**inputs)
        with torch.no_grad():
            functional.cross_entropy(out.logits, inputs["input_ids"][:, 1] % 3)
            functional.cross_entropy(out.logits, 2 - inputs["labels"])
        return out.loss / 2, out

    @staticmethod
    def both(model: Any, inputs: Any) -> Any:
        out = model(**inputs)
        functional.cross_entropy(out.logits, inputs["input_ids"][:, 1] % 3)
        return functional.cross_entropy(out.logits, (inputs["labels"] + 1) % 3) * 2 + out.loss * 0, out


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("way", ["own", "both"])
def test_what_a_compute_loss_watches_is_no_label(tmp_path: Path, way: str, trains: bool) -> None:
    pytest.importorskip("transformers")
    from tests.integrations import test_own_losses as given

    model = given.model_of(num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    rows, said = given.evaluated(tmp_path, model, getattr(Figures, way), trains=trains)
    labels = torch.tensor(given.KINDS) if way == "own" else (torch.tensor(given.KINDS) + 1) % 3
    expected = functional.cross_entropy(given.answers(model), labels, reduction="none")
    assert rows["label"].to_list() == labels.tolist()
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    # How much of each is in a loss is known by its graph alone: without it, what counts is said.
    assert ["made of the model's own and of a criterion" in one for one in said] == [True] * (
        way == "both" and not trains
    )


@pytest.mark.parametrize("trains", [True, False])
def test_the_perplexity_of_whole_texts_leaves_the_places_of_the_loss(tmp_path: Path, trains: bool) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.integrations import test_own_losses as given

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    labels = given.TOKENS.clone()
    labels[:, :3] = -100

    def loss(model: Any, inputs: Any) -> Any:
        out = model(**inputs)
        scores = out.logits.detach()
        functional.cross_entropy(scores[:, :-1].reshape(-1, 20), inputs["input_ids"][:, 1:].reshape(-1))
        functional.cross_entropy(scores[:, 2], inputs["labels"][:, 3])  # the first token of the answer
        return out.loss, out

    rows, said = given.evaluated(tmp_path, model, loss, labels, trains=trains)
    each = functional.cross_entropy(
        given.answers(model)[:, :-1].movedim(2, 1), labels[:, 1:], reduction="none", ignore_index=-100
    )
    assert rows["n_tokens"].to_list() == [2] * given.N
    assert rows["loss"].to_list() == pytest.approx((each.sum(1) / 2).tolist(), abs=1e-5)
    assert said == []


def test_the_same_callback_twice_counts_once(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch")
    from tests.integrations.test_lightning import Classifier
    from xaicli.integrations.lightning import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = quiet_trainer([callback, callback], tmp_path, max_epochs=1)
    data = [(i, X[i], int(Y[i])) for i in range(N)]
    with pytest.warns(UserWarning, match="several times in the trainer's list"):
        trainer.fit(Classifier(), DataLoader(data, batch_size=8), DataLoader(data, batch_size=8))
    found = xaicli.open_run(tmp_path / "run").scan(mode="eval").collect()
    assert found["sample_id"].to_list() == list(range(N))
    assert set(found["pass"]) == {0}


def test_pictures_with_lists_of_objects_are_asked_for_by_samples_fn() -> None:
    pytest.importorskip("lightning.pytorch")
    from xaicli.integrations.capture import Step
    from xaicli.integrations.lightning import _ask
    from xaicli.vocabulary import Mode

    batch = ([torch.zeros(3, 4, 4)], [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1)}])
    said = _ask(Step(), Mode.EVAL, 1, batch)
    written = said.partition("samples_fn=")[2].partition("), where")[0]
    samples_fn = eval(written)  # noqa: S307
    found = [{"boxes": torch.zeros(3, 4)}]
    assert samples_fn(batch, found) == {"n_found": [3]}
    assert samples_fn(batch, {"loss_box_reg": torch.ones(())}) == {"n_found": [None]}
    assert "samples_fn" not in _ask(Step(), Mode.EVAL, 1, (torch.zeros(1, 4), [{"page": 3}]))


def logarithm(batch: Any) -> torch.Tensor:
    return batch["label"].log()  # type: ignore[no-any-return]


def later(batch: Any) -> torch.Tensor:
    return batch["later"]  # type: ignore[no-any-return]


def raw(batch: Any) -> torch.Tensor:
    return batch["label"]  # type: ignore[no-any-return]


def cubed(batch: Any) -> torch.Tensor:
    return batch["label"] ** 3  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("trained", "watched", "criterion", "is_known"),
    [
        (logarithm, raw, functional.l1_loss, True),
        (logarithm, raw, functional.mse_loss, True),
        (logarithm, cubed, functional.l1_loss, True),
        (logarithm, cubed, functional.mse_loss, False),
        (later, raw, functional.mse_loss, True),
        (later, cubed, functional.mse_loss, True),
        (raw, later, functional.mse_loss, True),
    ],
)
def test_an_evaluation_that_returns_nothing_has_the_target_of_the_training(
    tmp_path: Path, trained: Any, watched: Any, criterion: Any, is_known: bool, is_first: bool
) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from xaicli.integrations.lightning import XaiCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)[:, 0]  # type: ignore[no-any-return]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return functional.mse_loss(self(batch["x"]), trained(batch))

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            del batch_idx
            scores = self(batch["x"])
            judged = [(functional.mse_loss, trained), (criterion, watched)]
            for judge, target in judged if is_first else judged[::-1]:
                judge(scores, target(batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    labels = X.abs().sum(1) + 1
    labels[-1] = 1.0
    task = {} if is_known else {"task": "regression"}
    later_ones = labels.flip(0).clone()
    later_ones[-1] = 1.0  # the last batch, of one sample, does not tell the one from the other
    data = [{"sample_id": i, "x": X[i], "label": labels[i], "later": later_ones[i]} for i in range(N)]
    trainer = quiet_trainer(XaiCallback(tmp_path / "run", save_checkpoint=False, **task), tmp_path, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Module(), DataLoader(data[:1] + data, batch_size=8), DataLoader(data, batch_size=8))
    rows = xaicli.open_run(tmp_path / "run").scan(mode="eval").collect().sort("sample_id")
    assert rows["sample_id"].to_list() == list(range(N))
    if is_known:
        expected = trained({"label": labels, "later": later_ones})
        assert rows["label"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    else:
        assert "label" not in rows.columns or rows["label"].null_count() == N
        words = "nothing shows whether these are the samples' or are only watched"
        assert any(words in str(one.message) for one in caught)
