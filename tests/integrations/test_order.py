"""Rows are numbered by their order: a collator that does not keep it is noticed, and no row stands under another."""

from __future__ import annotations

import logging
import math
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
from tests.integrations.trainers import quiet_trainer, said_by_xai
from xaicli.integrations.collators import WatchedCollator
from xaicli.integrations.order import kinds_of

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


def changed(samples: list[Any]) -> Any:
    return torch.stack([x + 0.0 for x, _ in samples]) * 2, torch.zeros(len(samples), dtype=torch.long)


def validated(
    folder: Path, collate: Callable[[list[Any]], Any], workers: int = 0, data: Any = None, **options: Any
) -> list[str]:
    """What is said while a linear model is validated."""
    from xaicli.integrations.lightning import XaiCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = quiet_trainer(XaiCallback(folder / "run", save_checkpoint=False, **options), folder)
    data = [(X[i], int(Y[i])) for i in range(N)] if data is None else data
    loader = DataLoader(data, batch_size=8, collate_fn=collate, num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.validate(Linear(), loader, verbose=False)
    assert loader.collate_fn is collate
    return said_by_xai(caught)


def losses(net: Any, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    with torch.no_grad():
        return functional.cross_entropy(net(x), y, reduction="none").tolist()


def recorded(folder: Path) -> dict[Any, float]:
    return dict(pl.read_parquet(folder / "run" / "data").select("sample_id", "loss").iter_rows())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("keeps_order", [None, True, False])
def test_rows_that_a_collator_turns_stand_under_their_own_numbers(
    tmp_path: Path, workers: int, keeps_order: bool | None
) -> None:
    told = validated(tmp_path, backwards, workers, keeps_order=keeps_order)
    assert ["rows' numbers" in one for one in told] == [True]
    expected = losses(Linear().net, X, Y)
    assert recorded(tmp_path) == {i: pytest.approx(expected[i], abs=1e-6) for i in range(N)}


def turned_and_changed(samples: list[Any]) -> Any:
    """What stands in both are the labels, of which several are alike: the order is another, and not known."""
    x, y = default_collate(samples[::-1])
    return x * 2, y


def test_rows_whose_order_is_another_and_not_known_are_asked_for(tmp_path: Path) -> None:
    told = validated(tmp_path, turned_and_changed, keeps_order=True)
    assert ["another order" in one and "return" in one for one in told] == [True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
    assert not (tmp_path / "run" / "data").exists()


BAD = (1, 10, 11)


def refilled(samples: list[Any]) -> Any:
    """Samples that cannot be read are replaced by the first of the batch that can."""
    good = [one for one in samples if one is not None]
    return default_collate(good + good[:1] * (len(samples) - len(good)))


def refilled_from_elsewhere(samples: list[Any]) -> Any:
    return default_collate([(torch.full((4,), 9.0), 0) if one is None else one for one in samples])


@pytest.mark.parametrize("keeps_order", [None, False])
@pytest.mark.parametrize("collate", [refilled, refilled_from_elsewhere])
def test_rows_put_in_the_place_of_others_are_never_recorded_under_those(
    tmp_path: Path, collate: Any, keeps_order: bool | None
) -> None:
    told = validated(tmp_path, collate, data=[None if i in BAD else (X[i], int(Y[i])) for i in range(N)],
                     keeps_order=keeps_order)  # fmt: skip
    expected = losses(Linear().net, X, Y)
    found = pl.read_parquet(tmp_path / "run" / "data").select("sample_id", "loss").rows()
    assert {i for i, _ in found} == {*range(N)} - {*BAD}
    assert [loss for _, loss in found] == [pytest.approx(expected[i], abs=1e-6) for i, _ in found]
    dropped = xaicli.open_run(tmp_path / "run").reader().counts().dropped
    assert len(found) + dropped == N
    assert any("none of its samples" in one for one in told) is (collate is refilled_from_elsewhere)


def without_bad(samples: list[Any]) -> Any:
    return default_collate([one for one in samples if not torch.equal(one[0], X[10])])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_a_collator_leaves_out_costs_its_batch_nothing(tmp_path: Path, workers: int) -> None:
    told = validated(tmp_path, without_bad, workers)
    assert ["rows' numbers" in one for one in told] == [True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == 0
    expected = losses(Linear().net, X, Y)
    assert recorded(tmp_path) == {i: pytest.approx(expected[i], abs=1e-6) for i in range(N) if i != 10}


def without_bad_and_changed(samples: list[Any]) -> Any:
    x, y = without_bad(samples)
    return x * 2, y


def test_a_batch_that_samples_are_left_out_of_costs_itself_alone(tmp_path: Path) -> None:
    told = validated(tmp_path, without_bad_and_changed)
    assert ["more or fewer rows" in one for one in told if "rows' numbers" not in one] == [False, True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == 7
    expected = losses(Linear().net, X * 2, Y)
    kept = [*range(8), *range(16, N)]
    assert recorded(tmp_path) == {i: pytest.approx(expected[i], abs=1e-6) for i in kept}


def test_a_collator_that_keeps_the_order_has_every_row_under_its_number(tmp_path: Path) -> None:
    told = validated(tmp_path, as_given)
    assert [("rows' numbers" in one, "shows" in one) for one in told] == [(True, False)]
    expected = losses(Linear().net, X, Y)
    assert recorded(tmp_path) == {i: pytest.approx(expected[i], abs=1e-6) for i in range(N)}


@pytest.mark.parametrize("keeps_order", [None, True, False])
def test_an_order_that_nothing_shows_is_the_sampler_s_and_that_is_said(
    tmp_path: Path, keeps_order: bool | None
) -> None:
    told = validated(tmp_path, changed, keeps_order=keeps_order)
    if keeps_order is False:
        assert ["nothing in a batch" in one and "keeps_order=False" in one for one in told] == [True]
        assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
        assert not (tmp_path / "run" / "data").exists()
        return
    asked = ["collator changed shows" in one and "keeps_order=False" in one for one in told]
    assert asked == ([False] if keeps_order else [False, True])
    expected = losses(Linear().net, X * 2, torch.zeros(N, dtype=torch.long))
    assert recorded(tmp_path) == {i: pytest.approx(expected[i], abs=1e-6) for i in range(N)}


def shown_late(samples: list[Any]) -> Any:
    """Labels are all alike in the first batch; in the others they show another order, and not which."""
    x, y = default_collate(samples[::-1])
    return x * 2, torch.zeros_like(y) if torch.equal(samples[0][0], X[0]) else y


def test_an_assumption_that_proves_wrong_is_taken_back_in_words(tmp_path: Path) -> None:
    told = validated(tmp_path, shown_late)
    wrong = [one for one in told if "whose order was taken for that of its samples" in one]
    assert ["8 rows of batches before may stand under the ids of others" in one for one in wrong] == [True]
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N - 8


def test_rows_are_those_of_the_batches_a_sampler_of_the_caller_s_makes(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Descending(torch.utils.data.BatchSampler):
        """Makes its batches of the sampler's rows in an order of its own, as those do that group by length."""

        def __iter__(self) -> Any:
            rows = list(self.sampler)[::-1]
            return iter([rows[i : i + 5] for i in range(0, N, 5)])

    data = [(X[i], int(Y[i])) for i in range(N)]
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    trainer = quiet_trainer(callback, tmp_path)
    sampler = Descending(torch.utils.data.SequentialSampler(data), 5, drop_last=False)
    loader = DataLoader(data, batch_sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(Linear(), loader, verbose=False)
    assert loader.batch_sampler is sampler
    expected = losses(Linear().net, X, Y)
    assert recorded(tmp_path) == {i: pytest.approx(expected[i], abs=1e-6) for i in range(N)}


class Trained(Linear):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), lr=0.0, max_iter=3)


def none_of_the_second(samples: list[Any]) -> Any:
    return None if torch.equal(samples[0][0], X[8]) else default_collate(samples)


def test_batches_without_a_step_or_with_several_shift_no_numbers(tmp_path: Path) -> None:
    """A collator may give None for a batch, and an optimizer compute a step several times."""
    from xaicli.integrations.lightning import XaiCallback

    trainer = quiet_trainer(XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    data = [(X[i], int(Y[i])) for i in range(N)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Trained(), DataLoader(data, batch_size=8, collate_fn=none_of_the_second))
    expected = losses(Linear().net, X, Y)
    found = recorded(tmp_path)
    assert found == {i: pytest.approx(expected[i], abs=1e-6) for i in (*range(8), *range(16, N))}


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

    for order in ([0, 1, 2, 3], ORDER):
        watched = WatchedCollator(of(order))
        _, found = watched(samples)
        assert found is not None
        assert found.places == tuple(order)
        assert found.is_other is watched.seen.is_other is (order == ORDER)


SAID = [" ".join(["word"] * n) for n in (3, 1, 5, 2, 7, 4)]


def as_tokens(samples: list[Any]) -> Any:
    """Texts become numbers here, one more than they have words."""
    rows = [torch.tensor([2, *range(3, 3 + len(text.split()))]) for text, _ in samples]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([0 for _ in samples])


def longest_first(samples: list[Any]) -> Any:
    return as_tokens(sorted(samples, key=lambda one: -len(one[0])))


def test_rows_that_were_sorted_by_length_are_doubted_until_a_batch_is_not() -> None:
    texts = [(text, 0) for text in SAID]
    kept, turned = WatchedCollator(as_tokens), WatchedCollator(longest_first)
    for watched in (kept, turned):
        watched(texts)
    assert kept.seen.doubt is None
    assert "order of their lengths" in (turned.seen.doubt or "")
    grouped = WatchedCollator(longest_first)  # of a sampler that groups by length nothing is said by it
    grouped(sorted(texts, key=lambda one: -len(one[0])))
    assert grouped.seen.doubt is None
    chance = WatchedCollator(as_tokens)
    chance([(SAID[i], 0) for i in (1, 0, 4)])  # by chance in order already
    assert chance.seen.doubt is None


def test_labels_made_of_texts_show_another_order() -> None:
    samples = [(f"{i}", kind) for i, kind in enumerate(["high", "low", "low", "high", "low", "low"])]

    def kinds(given: list[Any]) -> Any:
        return {"y": torch.tensor([int(kind == "high") for _, kind in given])}

    kept = WatchedCollator(kinds)
    kept(samples)
    assert kept.seen.doubt is None
    turned = WatchedCollator(lambda given: kinds(given[1:] + given[:1]))
    turned(samples)
    assert "as many of each label" in (turned.seen.doubt or "")
    other = WatchedCollator(lambda _: {"y": torch.tensor([0, 0, 1, 0, 0, 1])})  # labels of something else
    other(samples)
    assert other.seen.doubt is not None
    other([(a, kind) for a, kind in zip("abcdef", ["high", *["low"] * 5], strict=True)])
    assert other.seen.doubt is None  # as many no longer


def test_what_cannot_be_compared_costs_the_training_nothing() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("not to be compared")

        __hash__ = None  # type: ignore[assignment]

    batch = {"x": object()}
    watched = WatchedCollator(lambda _: batch)
    assert watched([Odd(), Odd()]).batch is batch
    assert not watched.seen.is_other
    assert not watched.seen.is_known


def test_rows_of_any_kind_are_told_apart() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int64, torch.complex64):
        assert kinds_of(torch.tensor([[0, 1], [1, 1], [0, 1]]).to(dtype)) in ([0, 1, 0], [1, 0, 1])
    assert kinds_of(torch.zeros(2, 0)) == [0, 0]


@pytest.mark.parametrize("kind", ["numbers", "texts", "floats", "tensor"])
@pytest.mark.parametrize("lacking", [{3, 9}, set(range(8, 16))])
def test_a_missing_id_costs_its_row_and_not_its_batch(tmp_path: Path, lacking: set[int], kind: str) -> None:
    from xaicli.integrations.lightning import XaiCallback

    class Named(Linear):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return super().validation_step((batch["x"], batch["y"]), batch_idx)

    are_texts = kind == "texts"

    def together(places: list[int]) -> dict[str, Any]:
        missing = None if kind in ("numbers", "texts") else math.nan
        ids: Any = [missing if place in lacking else f"s{place}" if are_texts else 100 + place for place in places]
        ids = torch.tensor(ids) if kind == "tensor" else ids
        return {"sample_id": ids, "x": X[places], "y": Y[places]}

    trainer = quiet_trainer(XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path)
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
