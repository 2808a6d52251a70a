"""Batches that a collator leaves lists of samples, of whatever type, and ids that a hook takes out of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N = 22
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (N,), generator=torch.Generator().manual_seed(1))


class Named(NamedTuple):
    x: Any
    y: Any


@dataclass
class Fields:
    x: Any
    y: Any


class Slots:
    __slots__ = ("x", "y")

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "dict": lambda x, y: {"x": x, "y": y},
    "arrays": lambda x, y: {"x": x.numpy(), "y": int(y)},
    "named tuple": Named,
    "dataclass": Fields,
    "slots": Slots,
}


def of(one: Any) -> tuple[torch.Tensor, int]:
    """A sample's input and label."""
    if isinstance(one, (tuple, list)):
        x, y = one[-2:]
    else:
        x, y = (one["x"], one["y"]) if isinstance(one, dict) else (one.x, one.y)
    return torch.as_tensor(x), int(y)


def number(one: Any) -> int:
    return int((of(one)[0] == X).all(1).nonzero())


def are_bad(samples: list[Any]) -> list[bool]:
    return [number(one) % 5 == 3 for one in samples]


def sorted_in_place(samples: list[Any]) -> list[Any]:
    samples.sort(key=lambda one: of(one)[1])
    return samples


def without_bad(samples: list[Any]) -> list[Any]:
    return [one for one, is_bad in zip(samples, are_bad(samples), strict=True) if not is_bad]


COLLATES: dict[str, Callable[[list[Any]], Any]] = {
    "as they are": lambda samples: samples,
    "tuple": tuple,
    "sorted": lambda samples: sorted(samples, key=lambda one: of(one)[1]),
    "sorted in place": sorted_in_place,
    "left out": without_bad,
    "replaced": lambda samples: [
        without_bad(samples)[0] if is_bad else one for one, is_bad in zip(samples, are_bad(samples), strict=True)
    ],
    "repeated": lambda samples: [*samples, *(one for one in samples if of(one)[1] == 1)],
    "made anew": lambda samples: [
        {"x": of(one)[0].clone(), "y": of(one)[1]} for one in sorted(samples, key=lambda one: of(one)[1])
    ],
    "lists beside one another": lambda samples: (
        {"x": [of(one)[0] for one in samples[::-1]]},
        [of(one)[1] for one in samples[::-1]],
    ),
}


class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Remembers which sample each row was of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, 3)
        self.rows: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        if isinstance(batch, tuple) and isinstance(batch[0], dict) and isinstance(batch[0]["x"], list):
            x, y = torch.stack(batch[0]["x"]), torch.tensor(batch[1])
        elif isinstance(batch, dict):
            x, y = batch["x"], batch["y"]
        elif isinstance(batch[0], torch.Tensor):
            x, y = batch
        else:
            x, y = torch.stack([of(one)[0] for one in batch]), torch.tensor([of(one)[1] for one in batch])
        self.rows += [int((one == X).all(1).nonzero()) for one in x]
        return functional.cross_entropy(self.net(x), y)

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def validated(folder: Path, net: Any, loader: Any, **options: Any) -> list[str]:
    """What is said while a model is validated."""
    from xaicli.integrations.lightning import XaiCallback

    trainer = quiet_trainer(XaiCallback(folder / "run", save_checkpoint=False, **options), folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.validate(net, loader, verbose=False)
    return said_by_xai(caught)


def assert_rows_are_right(folder: Path, net: Any, id_of: Callable[[int], Any] = int) -> None:
    """Every row that the step computed stands under its sample, with that sample's loss in double precision."""
    with torch.no_grad():
        losses = functional.cross_entropy(net.net.double()(X.double()), Y, reduction="none").tolist()
    found = pl.read_parquet(folder / "run" / "data").select("sample_id", "label", "loss").sort("sample_id").rows()
    assert [(i, label) for i, label, _ in found] == sorted((id_of(i), int(Y[i])) for i in net.rows)
    by_id = {id_of(i): loss for i, loss in enumerate(losses)}
    assert [loss for _, _, loss in found] == [pytest.approx(by_id[i], abs=1e-6) for i, _, _ in found]
    assert xaicli.open_run(folder / "run").reader().counts().dropped == 0


@pytest.mark.parametrize("collate", COLLATES)
@pytest.mark.parametrize("form", FORMS)
def test_samples_in_lists_stand_under_their_own_numbers(tmp_path: Path, form: str, collate: str) -> None:
    data, net = [FORMS[form](x, y) for x, y in zip(X, Y, strict=True)], Net()
    told = validated(tmp_path, net, DataLoader(data, batch_size=4, collate_fn=COLLATES[collate]))
    assert_rows_are_right(tmp_path, net)
    assert not any("more or fewer rows" in one or "places before its samples" in one for one in told)
    assert not any("in which order it gives the samples" in one for one in told)


def test_workers_tell_it_as_well(tmp_path: Path) -> None:
    net, data = Net(), [FORMS["tuple"](x, y) for x, y in zip(X, Y, strict=True)]
    validated(tmp_path, net, DataLoader(data, batch_size=4, collate_fn=COLLATES["sorted"], num_workers=2))
    assert_rows_are_right(tmp_path, net)


def with_ids(form: str) -> list[Any]:
    ids = [f"s{i:02}" for i in range(N)]
    if form == "tuple":
        return [(one, x, int(y)) for one, x, y in zip(ids, X, Y, strict=True)]
    return [{"sample_id": one, "x": x, "y": int(y)} for one, x, y in zip(ids, X, Y, strict=True)]


class Stream(torch.utils.data.IterableDataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return iter(self.samples)


@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize("ids", [None, lambda batch: [next(iter(getattr(b, "values", b.__iter__)())) for b in batch]])
@pytest.mark.parametrize("is_stream", [True, False])
def test_ids_stand_in_lists_of_samples(tmp_path: Path, form: str, ids: Any, is_stream: bool) -> None:
    net, data = Net(), with_ids(form)
    loader = DataLoader(Stream(data) if is_stream else data, batch_size=3, collate_fn=COLLATES["sorted"])
    assert validated(tmp_path, net, loader, ids=ids) == []
    assert_rows_are_right(tmp_path, net, lambda i: f"s{i:02}")


def is_no_id(name: str) -> bool:
    return name != "sample_id"


def popped(_self: Any, batch: Any, *_place: Any) -> Any:
    del batch["sample_id"]
    return batch


def inputs_and_labels(_self: Any, batch: Any, *_place: Any) -> Any:
    return batch["x"], batch["y"]


def sorted_rows(_self: Any, batch: Any, *_place: Any) -> Any:
    order = batch["y"].argsort()
    return {name: part[order] for name, part in batch.items() if is_no_id(name)}


def some_rows(_self: Any, batch: Any, *_place: Any) -> Any:
    return {name: part[batch["y"] < 2] for name, part in batch.items() if is_no_id(name)}


def each_without(_self: Any, batch: Any, *_place: Any) -> Any:
    return [{name: part for name, part in one.items() if is_no_id(name)} for one in batch]


def stacked(_self: Any, batch: Any, *_place: Any) -> Any:
    batch = sorted(batch, key=lambda one: int(one["y"]))
    return {"x": torch.stack([one["x"] for one in batch]), "y": torch.tensor([one["y"] for one in batch])}


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("hook", "change", "options"),
    [
        ("on_before_batch_transfer", popped, {}),
        ("transfer_batch_to_device", popped, {"ids": "sample_id"}),
        ("transfer_batch_to_device", popped, {"ids": lambda batch: batch["sample_id"]}),
        ("on_after_batch_transfer", popped, {}),
        ("transfer_batch_to_device", inputs_and_labels, {}),
        ("on_after_batch_transfer", sorted_rows, {}),
        ("on_after_batch_transfer", some_rows, {}),
        ("on_before_batch_transfer", each_without, {}),
        ("on_before_batch_transfer", stacked, {}),
    ],
)
def test_ids_that_a_hook_takes_out_are_the_samples(
    tmp_path: Path, hook: str, change: Any, options: dict[str, Any], is_stream: bool
) -> None:
    net, data = type("Changing", (Net,), {hook: change})(), with_ids("dict")
    uncollated = {"collate_fn": COLLATES["as they are"]} if change in (each_without, stacked) else {}
    loader = DataLoader(Stream(data) if is_stream else data, batch_size=4, **uncollated)
    assert validated(tmp_path, net, loader, **options) == []
    assert_rows_are_right(tmp_path, net, lambda i: f"s{i:02}")


def turned_and_changed(_self: Any, batch: Any, *_place: Any) -> Any:
    return {"x": batch["x"].flip(0) * 0 + X[:4].sum(), "y": batch["y"].flip(0)}


def test_rows_of_a_hook_that_nothing_tells_are_counted_with_the_reason(tmp_path: Path) -> None:
    class Turning(Net):
        on_after_batch_transfer = turned_and_changed

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return functional.cross_entropy(self.net(batch["x"]), batch["y"])

    told = validated(tmp_path, Turning(), DataLoader(with_ids("dict")[:4], batch_size=4))
    assert ["a hook" in one and "nothing shows whose rows" in one for one in told] == [True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == 4


def test_a_training_on_lists_is_the_same_with_the_callback_as_without(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    weights = []
    for callbacks in ([XaiCallback(tmp_path / "run", save_checkpoint=False)], []):
        net = type("Changing", (Net,), {"on_before_batch_transfer": each_without})()
        torch.manual_seed(1)
        loader = DataLoader(with_ids("dict"), batch_size=4, shuffle=True, collate_fn=COLLATES["sorted in place"])
        quiet_trainer(callbacks, tmp_path, max_epochs=2).fit(net, loader)
        weights.append(net.net.weight.detach().clone())
    assert torch.equal(*weights)
    assert len(pl.read_parquet(tmp_path / "run" / "data")) == 2 * N
