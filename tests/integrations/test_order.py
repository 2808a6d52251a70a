"""Rows are numbered by their order: a collator that does not keep it is noticed, and no row stands under another."""

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
from torch.utils.data import DataLoader, default_collate

import xaicli
from xaicli.integrations.order import WatchedCollator

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N = 24
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Linear(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, 2)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return functional.cross_entropy(self.net(batch[0]), batch[1])


def backwards(samples: list[Any]) -> Any:
    return default_collate(samples[::-1])


def as_given(samples: list[Any]) -> Any:
    return torch.stack([x for x, _ in samples]), torch.tensor([y for _, y in samples])


def without_first(samples: list[Any]) -> Any:
    return default_collate(samples[1:])


def changed(samples: list[Any]) -> Any:
    return torch.stack([x + 0.0 for x, _ in samples]) * 2, torch.zeros(len(samples), dtype=torch.long)


def validated(folder: Path, collate: Callable[[list[Any]], Any], workers: int = 0, **options: Any) -> list[str]:
    """What is said while a linear model is validated."""
    from xaicli.integrations.lightning import XaiCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, barebones=False,
        enable_checkpointing=False, callbacks=[XaiCallback(folder / "run", save_checkpoint=False, **options)],
        default_root_dir=folder,
    )  # fmt: skip
    data = [(X[i], int(Y[i])) for i in range(N)]
    loader = DataLoader(data, batch_size=8, collate_fn=collate, num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.validate(Linear(), loader, verbose=False)
    assert loader.collate_fn is collate
    return [str(one.message) for one in caught if str(one.message).startswith("xai:")]


@pytest.mark.parametrize(
    ("collate", "workers", "said"),
    [(backwards, 0, "another order"), (backwards, 2, "another order"), (without_first, 0, "more or fewer rows")],
)
def test_rows_of_a_collator_that_does_not_keep_the_order_are_not_numbered(
    tmp_path: Path, collate: Callable[[list[Any]], Any], workers: int, said: str
) -> None:
    told = validated(tmp_path, collate, workers)
    assert [said in one and "return" in one for one in told] == [True]
    run = xaicli.open_run(tmp_path / "run")
    missing = N if collate is backwards else N - 3
    assert run.reader().counts().dropped == missing
    assert not (tmp_path / "run" / "data").exists()


def test_a_collator_that_keeps_the_order_has_every_row_under_its_number(tmp_path: Path) -> None:
    told = validated(tmp_path, as_given)
    assert [("rows' numbers" in one, "shows" in one) for one in told] == [(True, False)]
    found = pl.read_parquet(tmp_path / "run" / "data").sort("sample_id")
    with torch.no_grad():
        expected = functional.cross_entropy(Linear().net(X), Y, reduction="none")
    assert found["sample_id"].to_list() == list(range(N))
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-6)


def test_an_order_that_nothing_shows_is_asked_for(tmp_path: Path) -> None:
    told = validated(tmp_path, changed)
    assert ["nothing in a batch" in one and "keeps_order=True" in one for one in told] == [True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
    assert not (tmp_path / "run" / "data").exists()


def test_an_order_that_the_caller_tells_counts_where_nothing_shows_another(tmp_path: Path) -> None:
    told = validated(tmp_path / "told", changed, keeps_order=True)
    assert ["rows' numbers" in one for one in told] == [True]
    found = pl.read_parquet(tmp_path / "told" / "run" / "data").sort("sample_id")
    with torch.no_grad():
        logits = Linear().net(X * 2)
    expected = functional.cross_entropy(logits, torch.zeros(N, dtype=torch.long), reduction="none")
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-6)
    told = validated(tmp_path / "another", backwards, keeps_order=True)
    assert ["another order" in one for one in told] == [True]


ORDER = [2, 0, 3, 1]
TEXTS = [torch.tensor(ids) for ids in ([5, 6], [7], [8, 9, 4], [1, 2, 3, 4])]
SOUNDS = [torch.arange(2.0 * n).reshape(n, 2) + n for n in (2, 1, 3, 4)]


def filled(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


@pytest.mark.parametrize(
    "samples",
    [
        [(text, 1) for text in TEXTS],
        [{"sound": sound, "label": 0} for sound in SOUNDS],
        [(f"text {i}", 0) for i in range(4)],
        [(torch.full((3, 40, 40), float(i)), 0) for i in range(4)],
        [((torch.ones(3), {"rows": [i, i]}), 0) for i in range(4)],
        [(torch.zeros(2), i) for i in (3, 1, 2, 0)],
    ],
    ids=["texts", "sounds", "words", "pictures", "nested", "labels"],
)
def test_what_stands_in_samples_and_batch_shows_the_order(samples: list[Any]) -> None:

    def of(order: list[int]) -> Callable[[list[Any]], Any]:
        def collate(given: list[Any]) -> Any:
            chosen = [given[i] for i in order]
            parts = [one[0] if isinstance(one, tuple) else one["sound"] for one in chosen]
            labels = torch.tensor([one[1] if isinstance(one, tuple) else one["label"] for one in chosen])
            if isinstance(parts[0], tuple):
                return {"y": labels, "x": torch.tensor([part[1]["rows"] for part in parts])}
            if isinstance(parts[0], str):
                return [parts, labels]
            lengths = torch.tensor([len(part) for part in parts])
            return filled(parts), lengths, labels

        return collate

    for order, disorder in (([0, 1, 2, 3], None), (ORDER, "another order")):
        watched = WatchedCollator(of(order))
        watched(samples)
        assert watched.is_known
        assert (watched.disorder is None) if disorder is None else (disorder in (watched.disorder or ""))


def test_what_cannot_be_compared_costs_the_training_nothing() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("not to be compared")

        __hash__ = None  # type: ignore[assignment]

    batch = {"x": object()}
    watched = WatchedCollator(lambda _: batch)
    assert watched([Odd(), Odd()]) is batch
    assert watched.disorder is None
    assert not watched.is_known


@pytest.mark.parametrize("are_texts", [False, True])
@pytest.mark.parametrize("lacking", [{3, 9}, set(range(8, 16))])
def test_a_missing_id_costs_its_row_and_not_its_batch(tmp_path: Path, lacking: set[int], are_texts: bool) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Named(Linear):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return super().validation_step((batch["x"], batch["y"]), batch_idx)

    def together(places: list[int]) -> dict[str, Any]:
        ids = [None if place in lacking else f"s{place}" if are_texts else 100 + place for place in places]
        return {"sample_id": ids, "x": X[places], "y": Y[places]}

    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[XaiCallback(tmp_path / "run", save_checkpoint=False)],
        default_root_dir=tmp_path,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(Named(), DataLoader(list(range(N)), batch_size=8, collate_fn=together), verbose=False)
    found = pl.read_parquet(tmp_path / "run" / "data")
    known = [place for place in range(N) if place not in lacking]
    expected = functional.cross_entropy(Linear().net(X), Y, reduction="none").tolist()
    assert dict(found.select("sample_id", "loss").iter_rows()) == {
        (f"s{place}" if are_texts else 100 + place): pytest.approx(expected[place], abs=1e-6) for place in known
    }
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == len(lacking)
