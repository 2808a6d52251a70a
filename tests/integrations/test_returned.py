"""Answers that a Lightning step returns: label, loss and task are its criterion's; and batches with named parts."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N = 12
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
MAPPED = torch.tensor([2, 0, 1])
Step = Callable[[Any, Any], Any]


class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, step: Step, classes: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(4, classes)
        self._step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return self._step(self, batch)


def validated(
    folder: Path, step: Step, *, classes: int = 3, data: Any = None, collate: Any = None, **options: Any
) -> tuple[pl.DataFrame, Tensor, list[str]]:
    """The rows of one validation by sample, the module's outputs for all samples, and what xai said."""
    from xaicli.integrations.lightning import XaiCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = Model(step, classes)
    trainer = quiet_trainer(XaiCallback(folder / "run", **options), folder)
    data = [(100 + i, X[i], int(Y[i])) for i in range(N)] if data is None else data
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.validate(model, DataLoader(data, batch_size=5, collate_fn=collate), verbose=False)
    found = folder / "run" / "data"
    rows = pl.read_parquet(found).sort("sample_id") if found.exists() else pl.DataFrame()
    with torch.no_grad():
        said = said_by_xai(caught)
        return rows, model(X), said


def losses(logits: Tensor, labels: Tensor) -> list[Any]:
    return pytest.approx(functional.cross_entropy(logits, labels, reduction="none").tolist(), abs=1e-5)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "returned",
    [
        lambda z: {"logits": z},
        lambda z: {"logits": z.detach().clone()},
        lambda z: {"probs": z.softmax(1)},
        lambda z: {"log_probs": z.log_softmax(1)},
        lambda z: {"preds": z.argmax(1)},
    ],
)
def test_labels_that_a_step_maps_are_the_criterions(tmp_path: Path, returned: Callable[[Tensor], Any]) -> None:
    def step(model: Any, batch: Any) -> Any:
        z = model(batch[1])
        return {"loss": functional.cross_entropy(z, MAPPED[batch[2]]), **returned(z)}

    rows, z, said = validated(tmp_path, step)
    assert rows["label"].to_list() == MAPPED[Y].tolist()
    assert rows["prediction"].to_list() == z.argmax(1).tolist()
    assert rows["loss"].to_list() == losses(z, MAPPED[Y])
    assert said == []


@pytest.mark.parametrize("returned", [lambda z: z, lambda _: None])
def test_what_the_forward_returned_is_the_answers_where_the_step_returns_it_too(
    tmp_path: Path, returned: Callable[[Tensor], Any]
) -> None:
    rows, z, _ = validated(tmp_path, lambda model, batch: returned(model(batch[1])))
    assert rows["sample_id"].to_list() == [100 + i for i in range(N)]
    assert rows["label"].to_list() == Y.tolist()
    assert rows["prediction"].to_list() == z.argmax(1).tolist()
    assert rows["loss"].to_list() == losses(z, Y)


def test_labels_under_any_name_are_the_criterions(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        z = model(batch["picture"])
        return {"loss": functional.cross_entropy(z, batch["species"]), "logits": z}

    data = [{"sample_id": i, "picture": X[i], "species": int(Y[i])} for i in range(N)]
    rows, z, said = validated(tmp_path, step, data=data)
    assert rows["label"].to_list() == Y.tolist()
    assert rows["loss"].to_list() == losses(z, Y)
    assert said == []


def test_what_a_criterion_leaves_out_has_no_label(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        z, y = model(batch[1]), batch[2].clone()
        y[batch[0] % 4 == 0] = -100
        return {"loss": functional.cross_entropy(z, y), "logits": z}

    rows, _, _ = validated(tmp_path, step)
    labels = [None if i % 4 == 0 else int(Y[i]) for i in range(N)]
    assert rows["label"].to_list() == labels
    assert [loss is None for loss in rows["loss"]] == [label is None for label in labels]


def test_yes_and_no_is_no_regression(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        z = model(batch[1]).squeeze(1)
        return {"loss": functional.binary_cross_entropy_with_logits(z, (batch[2] > 0).float()), "logits": z}

    rows, z, _ = validated(tmp_path, step, classes=1)
    yes = (Y > 0).float()
    expected = functional.binary_cross_entropy_with_logits(z[:, 0], yes, reduction="none")
    assert rows["label"].to_list() == yes.long().tolist()
    assert rows["prediction"].to_list() == (z[:, 0] > 0).long().tolist()
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_target_that_a_step_makes_is_the_label_of_a_regression(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        z = model(batch[1]).squeeze(1)
        return {"loss": functional.mse_loss(z, batch[1][:, 2] * 2), "preds": z.detach()}

    rows, z, _ = validated(tmp_path, step, classes=1)
    assert rows["label"].to_list() == pytest.approx((X[:, 2] * 2).tolist())
    assert rows["prediction"].to_list() == pytest.approx(z[:, 0].tolist())
    assert rows["loss"].to_list() == pytest.approx((z[:, 0] - X[:, 2] * 2).square().tolist(), abs=1e-5)


def test_classes_that_a_step_returns_are_its_predictions(tmp_path: Path) -> None:
    """A threshold of the step's own beside what the criterion is given."""

    def step(model: Any, batch: Any) -> Any:
        z = model(batch[1]).squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(z, (batch[2] > 0).float())
        return {"loss": loss, "preds": (z > -0.5).long()}

    rows, z, _ = validated(tmp_path, step, classes=1)
    assert rows["prediction"].to_list() == (z[:, 0] > -0.5).long().tolist()
    assert (z[:, 0] > -0.5).tolist() != (z[:, 0] > 0).tolist()
    assert rows["correct"].to_list() == ((z[:, 0] > -0.5) == (Y > 0)).tolist()
    assert rows["label"].to_list() == (Y > 0).long().tolist()


def test_parts_that_criteria_were_given_are_put_together(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        halves = [(model(batch[1][part]), MAPPED[batch[2][part]]) for part in (slice(0, 2), slice(2, None))]
        loss = sum(functional.cross_entropy(z, y) for z, y in halves)
        return {"loss": loss, "logits": torch.cat([z for z, _ in halves])}

    rows, z, _ = validated(tmp_path, step)
    assert rows["label"].to_list() == MAPPED[Y].tolist()
    assert rows["loss"].to_list() == losses(z, MAPPED[Y])


def test_answers_that_no_criterion_was_given_have_no_label_of_another_kind(tmp_path: Path) -> None:
    """Samples left out of the loss: the batch's label is no class that the model is trained on."""

    def step(model: Any, batch: Any) -> Any:
        z, counts = model(batch[1]), batch[0] % 3 != 0
        return {"loss": functional.cross_entropy(z[counts], MAPPED[batch[2]][counts]), "logits": z}

    rows, z, _ = validated(tmp_path, step)
    labels = [None if (100 + i) % 3 == 0 else int(MAPPED[Y[i]]) for i in range(N)]
    assert rows["label"].to_list() == labels
    own = functional.cross_entropy(z, MAPPED[Y], reduction="none").tolist()
    assert rows["loss"].to_list() == [
        None if label is None else pytest.approx(own[i], abs=1e-5) for i, label in enumerate(labels)
    ]


def test_a_batch_that_a_step_sorts_and_puts_back_keeps_its_labels(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        places = batch[1][:, 0].argsort()
        z, y = model(batch[1][places]), MAPPED[batch[2][places]]
        return {"loss": functional.cross_entropy(z, y), "logits": z[places.argsort()]}

    rows, z, _ = validated(tmp_path, step)
    assert rows["label"].to_list() == MAPPED[Y].tolist()
    assert rows["loss"].to_list() == losses(z, MAPPED[Y])


def test_answers_judged_by_two_labels_have_the_batchs_or_none(tmp_path: Path) -> None:
    def mixed(mapped: bool) -> Step:
        def step(model: Any, batch: Any) -> Any:
            z, y = model(batch[1]), MAPPED[batch[2]] if mapped else batch[2]
            loss = 0.7 * functional.cross_entropy(z, y) + 0.3 * functional.cross_entropy(z, y.roll(1))
            return {"loss": loss, "logits": z}

        return step

    rows, z, said = validated(tmp_path / "own", mixed(False))
    assert rows["label"].to_list() == Y.tolist()
    assert rows["loss"].to_list() == losses(z, Y)
    assert ["the same answers with several labels: rows have the batch's own" in one for one in said] == [True]
    rows, z, said = validated(tmp_path / "mapped", mixed(True))
    assert not {"label", "loss"} & set(rows.columns)
    assert rows["prediction"].to_list() == z.argmax(1).tolist()
    assert len(said) == 1
    assert "with several labels" in said[0]


@dataclasses.dataclass
class Batch:
    sample_id: Any
    x: Any
    y: Any


def collated(samples: Any) -> Batch:
    return Batch(*torch.utils.data.default_collate(samples))


def test_a_dataclass_says_its_ids_and_the_criterion_its_labels(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        z = model(batch.x)
        return {"loss": functional.cross_entropy(z, batch.y), "logits": z}

    rows, z, said = validated(tmp_path, step, collate=collated)
    assert rows["sample_id"].to_list() == list(range(100, 100 + N))
    assert rows["label"].to_list() == Y.tolist()
    assert rows["loss"].to_list() == losses(z, Y)
    assert said == []


class Attributes:
    """A batch as graph libraries make it: parts by attribute, and by key."""

    def __init__(self, **parts: Any) -> None:
        self._store = parts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._store:
            raise AttributeError(name)
        return self._store[name]

    def keys(self) -> list[str]:
        return list(self._store)

    def __getitem__(self, name: str) -> Any:
        return self._store[name]


class Named(NamedTuple):
    x: Any
    y: Any
    sample_id: Any


def _parts(samples: Any) -> dict[str, Any]:
    ids, x, y = torch.utils.data.default_collate(samples)
    return {"sample_id": ids, "x": x, "y": y}


KINDS: dict[str, Callable[[Any], Any]] = {
    "dataclass": lambda samples: Batch(**_parts(samples)),
    "named tuple": lambda samples: Named(**_parts(samples)),
    "attributes": lambda samples: Attributes(**_parts(samples)),
    "plain object": lambda samples: SimpleNamespace(**_parts(samples)),
    "tokenizer's": lambda samples: UserDict(_parts(samples)),
}


def judge(model: Any, batch: Any) -> Any:
    x, y = (batch["x"], batch["y"]) if isinstance(batch, UserDict) else (batch.x, batch.y)
    return functional.cross_entropy(model(x), y)


@pytest.mark.parametrize("ids", [None, "sample_id"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_batches_with_named_parts_are_found(tmp_path: Path, kind: str, ids: str | None) -> None:
    rows, z, said = validated(tmp_path, judge, collate=KINDS[kind], ids=ids)
    assert rows["sample_id"].to_list() == list(range(100, 100 + N))
    assert rows["label"].to_list() == Y.tolist()
    assert rows["loss"].to_list() == losses(z, Y)
    assert said == []


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_their_ids_are_counted(tmp_path: Path, kind: str) -> None:
    rows, _, said = validated(tmp_path / "key", judge, collate=KINDS[kind], ids="path")
    assert rows.is_empty()
    assert xaicli.open_run(tmp_path / "key" / "run").reader().counts().dropped == N
    assert "ids='path': the batch has no such part (it has " in said[0]
    assert "'sample_id'" in said[0]
    rows, _, said = validated(tmp_path / "fault", judge, collate=KINDS[kind], ids=lambda _batch: 1 / 0)
    assert rows.is_empty()
    assert xaicli.open_run(tmp_path / "fault" / "run").reader().counts().dropped == N
    assert "division by zero" in said[0]


def test_a_stream_of_dataclasses_without_ids_is_counted(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Pair:
        x: Any
        y: Any

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter([(X[i], int(Y[i])) for i in range(N)])

    def collate(samples: Any) -> Pair:
        return Pair(*torch.utils.data.default_collate(samples))

    rows, _, said = validated(tmp_path, judge, data=Stream(), collate=collate)
    assert rows.is_empty()
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
    assert "no sample ids" in said[0]


def test_ids_that_lie_deeper_are_named(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        return functional.cross_entropy(model(batch[0]["picture"]), batch[1])

    data = [({"picture": X[i], "meta": {"sample_id": f"s{i:02}"}}, int(Y[i])) for i in range(N)]
    _, _, said = validated(tmp_path / "found", step, data=data)
    assert "ids=lambda batch: batch[0]['meta']['sample_id']" in said[0]
    rows, _, said = validated(tmp_path / "given", step, data=data, ids=lambda batch: batch[0]["meta"]["sample_id"])
    assert rows["sample_id"].to_list() == [f"s{i:02}" for i in range(N)]
    assert said == []


def test_fewer_ids_than_samples_are_told_and_counted(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> Any:
        return functional.cross_entropy(model(batch[1]), batch[2])

    rows, _, said = validated(tmp_path, step, ids=lambda batch: batch[0][:2])
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == 10
    assert rows["sample_id"].to_list() == [110, 111]
    assert "2 ids for 5 answers" in said[0]


def test_labels_that_a_validation_names_nowhere_are_asked_for(tmp_path: Path) -> None:
    data = [{"sample_id": i, "picture": X[i], "species": int(Y[i])} for i in range(N)]
    rows, z, said = validated(tmp_path, lambda model, batch: {"logits": model(batch["picture"])}, data=data)
    assert rows["prediction"].to_list() == z.argmax(1).tolist()
    assert len(said) == 1
    assert "'species'" in said[0]
    assert "samples_fn" in said[0]
