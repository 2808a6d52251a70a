"""A step, or a hook before it, that reorders its batch: every answer stands under the sample that it is of."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai
from xaicli.integrations.order import rows_in

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N = 24
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
WITH_IDS = [(100 + i, X[i], int(Y[i])) for i in range(N)]


class Fixed(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """A model that never moves, so that each sample has one loss."""

    def __init__(self, step: Callable[[Any, Any], Any] | None = None, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, classes)
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        if self.step is not None:
            return self.step(self, batch)
        return functional.cross_entropy(self(batch[-2]), batch[-1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fitted(folder: Path, model: Any, data: Any, size: int = 8, **options: Any) -> tuple[pl.DataFrame, list[str]]:
    """What is recorded of one epoch, and what is said."""
    from xaicli.integrations.lightning import XaiCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = quiet_trainer(XaiCallback(folder / "run", save_checkpoint=False, **options), folder, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, data if isinstance(data, DataLoader) else DataLoader(data, batch_size=size, shuffle=True))
    said = said_by_xai(caught)
    found = folder / "run" / "data"
    return (pl.read_parquet(found) if found.exists() else pl.DataFrame()), said


def sorted_rows(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.argsort(x[:, 1])
    return x[order], y[order]


def own_loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -logits.log_softmax(1).gather(1, y[:, None]).mean()


def by_own_loss(model: Any, batch: Any) -> Any:
    x, y = sorted_rows(*batch[-2:])
    return own_loss(model(x), y)


def by_criterion(model: Any, batch: Any) -> Any:
    x, y = sorted_rows(*batch[-2:])
    return functional.cross_entropy(model(x), y)


def by_inner_module(model: Any, batch: Any) -> Any:
    x, y = sorted_rows(*batch[-2:])
    return functional.cross_entropy(model.net(x), y)


def put_back(model: Any, batch: Any) -> Any:
    order = torch.argsort(batch[-2][:, 1])
    logits = model(batch[-2][order])[torch.argsort(order)]
    return functional.cross_entropy(logits, batch[-1].clone())


def named_as_they_are(model: Any, batch: Any) -> Any:
    x, y = sorted_rows(*batch[-2:])
    logits = model(x)
    return {"loss": own_loss(logits, y), "logits": logits}


def named_in_the_batch_s_order(model: Any, batch: Any) -> Any:
    order = torch.argsort(batch[-2][:, 1])
    logits = model(batch[-2][order])[torch.argsort(order)]
    return {"loss": own_loss(logits, batch[-1]), "logits": logits}


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize(
    "step",
    [by_own_loss, by_criterion, by_inner_module, put_back, named_as_they_are, named_in_the_batch_s_order],
)
def test_a_step_that_sorts_its_batch_has_every_answer_under_its_sample(
    tmp_path: Path, step: Any, with_ids: bool
) -> None:
    data = WITH_IDS if with_ids else [(x, y) for _, x, y in WITH_IDS]
    model = Fixed(step)
    found, _ = fitted(tmp_path, model, data)
    expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
    first = 100 if with_ids else 0
    assert {i - first: (y, loss) for i, y, loss in found.select("sample_id", "label", "loss").iter_rows()} == {
        i: (int(Y[i]), pytest.approx(expected[i], abs=1e-5)) for i in range(N)
    }


@pytest.mark.parametrize("kind", ["equal labels", "two labels", "what it was given"])
def test_labels_that_do_not_show_the_order_are_not_what_tells_it(tmp_path: Path, kind: str) -> None:
    labels = torch.zeros(N, dtype=torch.long) if kind == "equal labels" else (Y > 0).long()

    def step(model: Any, batch: Any) -> Any:
        x, y = sorted_rows(*batch[-2:])
        return (
            functional.mse_loss(model(x), x) if kind == "what it was given" else functional.cross_entropy(model(x), y)
        )

    model = Fixed(step, 4)
    found, said = fitted(tmp_path, model, [(i, X[i], int(labels[i])) for i in range(N)], 3)
    losses = functional.cross_entropy(model(X), labels, reduction="none")
    if kind == "what it was given":
        losses = functional.mse_loss(model(X), X, reduction="none").mean(1)
    assert dict(found.select("sample_id", "loss").iter_rows()) == {
        i: pytest.approx(float(losses[i]), abs=1e-5) for i in range(N)
    }
    assert said == []


def test_a_step_that_repeats_some_of_its_batch_has_rows_of_these_alone(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        ids, x, y = batch
        order = torch.tensor([0, 0, 3, 3, 4, 4, 7, 7])
        model.used += ids[order].tolist()
        return own_loss(model(x[order]), y[order])

    model = Fixed(step)
    model.used = []
    found, _ = fitted(tmp_path, model, WITH_IDS)
    expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
    rows = found.select("sample_id", "label", "loss").rows()
    assert sorted(i for i, _, _ in rows) == sorted(model.used)
    assert all((y, loss) == (int(Y[i - 100]), pytest.approx(expected[i - 100], abs=1e-5)) for i, y, loss in rows)


@pytest.mark.parametrize("keeps_order", [None, True, False])
def test_an_order_that_a_step_does_not_show_is_said(tmp_path: Path, keeps_order: bool | None) -> None:
    def step(model: Any, batch: Any) -> Any:
        return own_loss(model(batch[1] * 2), batch[2])

    model = Fixed(step)
    found, said = fitted(tmp_path, model, WITH_IDS, keeps_order=keeps_order)
    assert ["nothing shows in which order training_step" in one for one in said][:1] == [True] * (not keeps_order)
    if keeps_order is False:
        assert found.height == 0
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        return
    expected = functional.cross_entropy(model(X * 2), Y, reduction="none").tolist()
    assert dict(found.select("sample_id", "loss").iter_rows()) == {
        100 + i: pytest.approx(expected[i], abs=1e-5) for i in range(N)
    }


def test_an_order_that_was_assumed_and_proves_wrong_is_said_with_its_rows(tmp_path: Path) -> None:
    """Two batches of changed inputs show no order; the third is given to the model turned."""
    seen = []

    def step(model: Any, batch: Any) -> Any:
        seen.append(batch[0])
        x = batch[1] * 2 if len(seen) < 3 else batch[1].flip(0)
        return own_loss(model(x), batch[2])

    found, said = fitted(tmp_path, Fixed(step), DataLoader(WITH_IDS, batch_size=3))
    wrong = [one for one in said if "may stand under the ids of others" in one]
    assert ["training_step" in one and " 6 rows of batches" in one for one in wrong] == [True]
    turned = {100 + i: float(functional.cross_entropy(Fixed().net(X[i : i + 1]), Y[i : i + 1])) for i in range(6, N)}
    assert {i: loss for i, loss in found.select("sample_id", "loss").iter_rows() if i >= 106} == {
        i: pytest.approx(loss, abs=1e-5) for i, loss in turned.items()
    }


def test_a_step_that_changes_its_inputs_and_gives_the_batch_s_labels_needs_no_word(tmp_path: Path) -> None:
    found, said = fitted(tmp_path, Fixed(lambda m, b: functional.cross_entropy(m(b[1] * 2), b[2])), WITH_IDS)
    assert found.height == N
    assert said == []


@pytest.mark.parametrize("hook", ["on_before_batch_transfer", "on_after_batch_transfer"])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_a_hook_that_sorts_the_batch_has_its_rows_under_their_numbers(
    tmp_path: Path, hook: str, is_mixed: bool
) -> None:
    """Where it changes the inputs as well, the labels alone would have to tell it, which they cannot."""

    def sort(_self: Any, batch: Any, dataloader_idx: int) -> Any:
        del dataloader_idx
        x, y = sorted_rows(*batch)
        return (x * 2 if is_mixed else x), y

    model = type("Sorting", (Fixed,), {hook: sort})()
    found, said = fitted(tmp_path, model, [(x, y) for _, x, y in WITH_IDS])
    if is_mixed:
        assert found.height == 0
        assert any(f"{hook}" in one and "nothing shows whose rows" in one for one in said)
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        return
    expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
    assert dict(found.select("sample_id", "loss").iter_rows()) == {
        i: pytest.approx(expected[i], abs=1e-5) for i in range(N)
    }


def test_which_rows_a_step_took_is_told_by_all_that_stands_in_both() -> None:
    batch = [torch.arange(4), torch.tensor([[1.0, 2], [3, 4], [1, 2], [5, 6]]), torch.tensor([0, 1, 0, 1])]
    order = torch.tensor([3, 1, 0, 2])
    assert rows_in([batch[1]], batch).places == (0, 1, 2, 3)
    assert rows_in([batch[1].clone()], batch).places == (0, 1, 2, 3)
    assert not rows_in([batch[1].clone()], batch).is_other
    turned = rows_in([batch[1][order]], batch)  # two of the rows are alike, their samples are not
    assert (turned.places, turned.is_other) == ((), True)
    apart = [batch[0], torch.tensor([[1.0, 2], [3, 4], [7, 2], [5, 6]]), batch[2]]
    assert rows_in([apart[1][order]], apart).places == (3, 1, 0, 2)
    assert rows_in([apart[1] * 3], apart).places == ()


class Swapped(Fixed):
    """Its batch is (label, input, weight)."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return (functional.cross_entropy(self(batch[1]), batch[0], reduction="none") * batch[2]).mean()


def test_labels_that_stand_first_are_not_taken_for_ids(tmp_path: Path) -> None:
    model = Swapped()
    found, said = fitted(tmp_path, model, [(int(Y[i]), X[i], 1.0) for i in range(N)])
    expected = functional.cross_entropy(model(X), Y, reduction="none").tolist()
    assert {i: (y, loss) for i, y, loss in found.select("sample_id", "label", "loss").iter_rows()} == {
        i: (int(Y[i]), pytest.approx(expected[i], abs=1e-5)) for i in range(N)
    }
    assert any("not taken for ids" in one and "ids=0" in one for one in said)


class Factors(Fixed):
    """Its batch is (user, item, rating)."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = torch.nn.Embedding(3, 4), torch.nn.Embedding(8, 4)

    def forward(self, user: torch.Tensor, item: torch.Tensor | None = None) -> torch.Tensor:
        return (self.users(user) * self.items(item)).sum(1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return functional.mse_loss(self(batch[0], batch[1]), batch[2])


def test_users_whose_ratings_are_the_samples_are_not_taken_for_ids(tmp_path: Path) -> None:
    model = Factors()
    users, items, ratings = torch.arange(N) % 3, torch.arange(N) // 3, X[:, 0]
    data = torch.utils.data.TensorDataset(users, items, ratings)
    found, said = fitted(tmp_path, model, data)
    expected = (model(users, items) - ratings).square().tolist()
    assert dict(found.select("sample_id", "loss").iter_rows()) == {
        i: pytest.approx(expected[i], abs=1e-5) for i in range(N)
    }
    assert any("no longer taken for ids" in one for one in said)


def test_labels_that_do_not_fit_are_said(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        logits, truth = model(batch[1]), functional.one_hot(batch[2], 3).float()
        return -(truth * functional.logsigmoid(logits) + (1 - truth) * functional.logsigmoid(-logits)).mean()

    found, said = fitted(tmp_path, Fixed(step), WITH_IDS, task="multilabel")
    assert found.height == N
    assert "loss" not in found.columns
    assert ["(8,), do not fit" in one and "no label and no loss" in one for one in said] == [True]


def test_a_run_that_is_over_tells_what_it_counted_and_begins_no_other(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = quiet_trainer(callback, tmp_path, max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Fixed(), DataLoader(WITH_IDS, batch_size=8))
    stats = callback.run.stats()
    assert (stats["rows_logged"], stats["rows_stored"], stats["rows_dropped"]) == (2 * N, 2 * N, 0)
    assert callback.run.is_closed
    assert [one.name for one in (tmp_path / "run" / "attempts").glob("*.json")] == ["000000.json"]
    callback.run.log_facts([100], text=["first"])
    callback.run.close()
    facts = pl.read_parquet(tmp_path / "run" / "facts" / "*.parquet")
    assert facts["text"].to_list() == ["first"]


def test_a_hook_whose_assumed_order_proves_wrong_says_of_how_many_rows(tmp_path: Path) -> None:
    """Its first batch shows nothing, its second that it turns the samples round."""

    def turn(self: Any, batch: Any, dataloader_idx: int) -> Any:
        del dataloader_idx
        self.seen = getattr(self, "seen", 0) + 1
        x, y = batch
        return (x * 2, y * 0) if self.seen == 1 else (x.flip(0), y.flip(0))

    model = type("Turning", (Fixed,), {"on_after_batch_transfer": turn})()
    data = [(x, y) for _, x, y in WITH_IDS]
    _, said = fitted(tmp_path, model, data)
    assert ["after 8 rows of batches whose order nothing showed" in one for one in said].count(True) == 1


def test_an_optimizer_that_runs_a_step_several_times_a_batch_is_told(tmp_path: Path) -> None:
    def step(self: Any, batch: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        return functional.cross_entropy(self(batch[1]), batch[2])

    def lbfgs(self: Any) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    model = type("Searching", (Fixed,), {"configure_optimizers": lbfgs})(step)
    found, said = fitted(tmp_path, model, WITH_IDS)
    assert found.height == model.calls * 8 > N
    assert ["several times a batch" in one for one in said] == [True]
    assert fitted(tmp_path / "once", Fixed(step), WITH_IDS)[1] == []
