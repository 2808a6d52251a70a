"""A training walks over its loaders as it does without the callback: the same batches, bit by bit, and the same types.

What is walked over is asked of the training itself, once without a callback and once with it.
"""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
    default_collate,
)

from tests.integrations.trainers import quiet_trainer

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N = 24
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
PLACE = {tuple(row): place for place, row in enumerate(X.tolist())}


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """(input, label), by whatever names a row; draws a number a row, as augmentations do."""

    def __init__(self, place: Callable[[Any], Any] = int, *, ids: bool = False, draws: bool = True) -> None:
        self.place, self.ids, self.draws = place, ids, draws

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: Any) -> Any:
        place = self.place(index)
        drawn = torch.rand(()) if self.draws else torch.zeros(())
        return (*([place] if self.ids else []), X[place], Y[place], drawn)


class Batched(Pairs):
    """Reads a batch at once."""

    def __getitems__(self, indices: Any) -> list[Any]:
        return [self[index] for index in indices]


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return (Pairs()[place] for place in range(N))


class Epochs:
    """A sampler as those of several processes are: what an epoch gives follows from its number."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(N, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self) -> int:
        return N

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}


class Groups:
    """A batch sampler of the caller's, with a sampler of its own inside."""

    batch_size, drop_last, mine = 6, False, "mine"

    def __init__(self, make: Callable[[list[int]], Any] = list) -> None:
        self.sampler = Epochs()
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        rows = list(self.sampler)
        return iter([self.make(rows[i : i + 6]) for i in range(0, N, 6)])

    def __len__(self) -> int:
        return 4


class Background(DataLoader):  # type: ignore[type-arg]
    """Fetches ahead in a thread of its own."""

    def __iter__(self) -> Any:
        batches: queue.Queue[Any] = queue.Queue(2)

        def fetch() -> None:
            for batch in DataLoader.__iter__(self):
                batches.put(batch)
            batches.put(None)

        threading.Thread(target=fetch, daemon=True).start()
        return iter(batches.get, None)


class Backwards(DataLoader):  # type: ignore[type-arg]
    """Gives its batches in another order than it fetched them."""

    def __iter__(self) -> Any:
        return iter(list(DataLoader.__iter__(self))[::-1])


class Anew(DataLoader):  # type: ignore[type-arg]
    """Gives batches that it makes of those it fetched."""

    def __iter__(self) -> Any:
        return ([part.flip(0) for part in batch] for batch in DataLoader.__iter__(self))


class _Again:
    def __init__(self, batches: Any) -> None:
        self.sampler = batches

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from iter(self.sampler)


class Endless(DataLoader):  # type: ignore[type-arg]
    """One walk for all epochs, which begins with the loader."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._DataLoader__initialized = False
        self.batch_sampler = _Again(self.batch_sampler)
        self._DataLoader__initialized = True
        self.iterator = super().__iter__()

    def __len__(self) -> int:
        return len(self.batch_sampler.sampler)  # type: ignore[union-attr]

    def __iter__(self) -> Any:
        return (next(self.iterator) for _ in range(len(self)))


def keyed(sampler: Any) -> Any:
    return [f"k{place}" for place in sampler]


def collated(samples: Any) -> Any:
    return default_collate(samples)


LOADERS: dict[str, tuple[Callable[[], DataLoader[Any]], bool]] = {
    "plain": (lambda: DataLoader(Pairs(), batch_size=6), True),
    "shuffled": (lambda: DataLoader(Pairs(), batch_size=6, shuffle=True), True),
    "drop_last": (lambda: DataLoader(Pairs(), batch_size=7, shuffle=True, drop_last=True), True),
    "generator": (
        lambda: DataLoader(Pairs(), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(5)),
        True,
    ),
    "collator": (lambda: DataLoader(Pairs(), batch_size=6, shuffle=True, collate_fn=collated), True),
    "weighted": (lambda: DataLoader(Pairs(), batch_size=6, sampler=WeightedRandomSampler([1.0] * N, N)), True),
    "subset": (lambda: DataLoader(Subset(Pairs(), range(5, 20)), batch_size=4, shuffle=True), True),
    "epochs": (lambda: DataLoader(Pairs(), batch_size=6, sampler=Epochs()), True),
    "groups": (lambda: DataLoader(Pairs(), batch_sampler=Groups()), True),
    "groups with ids": (lambda: DataLoader(Pairs(ids=True), batch_sampler=Groups()), True),
    "groups of maps": (lambda: DataLoader(Pairs(), batch_sampler=Groups(lambda rows: map(int, rows))), True),
    "groups of generators": (lambda: DataLoader(Pairs(), batch_sampler=Groups(lambda rows: (r for r in rows))), True),
    "groups of tensors": (lambda: DataLoader(Pairs(), batch_sampler=Groups(torch.tensor)), True),
    "maps read at once": (lambda: DataLoader(Batched(), batch_sampler=Groups(lambda rows: map(int, rows))), False),
    "torch's groups": (lambda: DataLoader(Pairs(), batch_sampler=BatchSampler(Epochs(), 6, False)), True),
    "keys": (lambda: DataLoader(Pairs(lambda k: int(k[1:])), batch_size=6, sampler=keyed(range(N))), False),
    "keys with ids": (
        lambda: DataLoader(Pairs(lambda k: int(k[1:]), ids=True), batch_size=6, sampler=keyed(range(N))),
        True,
    ),
    "pairs": (
        lambda: DataLoader(Pairs(lambda k: k[0]), batch_size=6, sampler=[(i, 224) for i in range(N)]),
        False,
    ),
    "workers": (lambda: DataLoader(Pairs(), batch_size=6, shuffle=True, num_workers=2), True),
    "workers that stay": (
        lambda: DataLoader(
            Pairs(), batch_size=6, shuffle=True, num_workers=2, persistent_workers=True, collate_fn=collated
        ),
        True,
    ),
    "background": (lambda: Background(Pairs(draws=False), batch_size=6, sampler=Epochs()), True),
    "backwards": (lambda: Backwards(Pairs(), batch_size=6, shuffle=True), True),
    "anew": (lambda: Anew(Pairs(), batch_size=6, shuffle=True), False),
    "endless": (lambda: Endless(Pairs(), batch_size=6, shuffle=True), False),
    "endless with ids": (lambda: Endless(Pairs(ids=True), batch_size=6, shuffle=True), True),
    "stream": (lambda: DataLoader(Stream(), batch_size=6), False),
    "no batches": (
        lambda: DataLoader(
            Pairs(lambda k: k), batch_size=None, sampler=BatchSampler(RandomSampler(range(N)), 6, False)
        ),
        False,
    ),
}
"""How each loader is made, and whether its rows are known."""


class Walker(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Remembers what it is given, the numbers drawn beside, and what its loader looks like."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, 3)
        self.given: list[Any] = []
        self.truth: list[tuple[int, int, float]] = []
        self.looks: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        *_, x, y, drawn = batch
        x, y = x.reshape(-1, 4), torch.as_tensor(y).reshape(-1)
        is_alone = not isinstance(self.trainer.train_dataloader, Background)  # a thread draws when it likes
        self.given.append((x.tolist(), y.tolist(), drawn.tolist(), torch.rand(2).tolist() if is_alone else None))
        logits = self.net(x)
        losses = (logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]).tolist()
        self.truth += [
            (self.current_epoch + 1, PLACE[tuple(row)], loss) for row, loss in zip(x.tolist(), losses, strict=True)
        ]
        loader: Any = self.trainer.train_dataloader
        batches = loader.batch_sampler
        self.looks.append(
            (type(loader), len(loader) if hasattr(type(loader.dataset), "__len__") else None, type(batches),
             type(getattr(batches, "sampler", None)), type(loader.sampler), loader.collate_fn,
             getattr(batches, "mine", None), type(loader.__dict__.get("batch_sampler")))
        )  # fmt: skip
        return functional.cross_entropy(logits, y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def walked(loader: Any, callbacks: list[Any], folder: Path, **options: Any) -> Walker:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = Walker()
    trainer = quiet_trainer(callbacks, folder, **{"max_epochs": 2, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader)
    return model


def dropped_of(folder: Path) -> int:
    import xaicli

    return xaicli.open_run(folder).reader().counts().dropped


@pytest.mark.parametrize("name", LOADERS)
def test_a_training_is_the_same_with_the_callback_as_without(tmp_path: Path, name: str) -> None:
    from xaicli.integrations.lightning import XaiCallback

    make, are_known = LOADERS[name]
    torch.manual_seed(1)
    bare = walked(make(), [], tmp_path)
    torch.manual_seed(1)
    loader = make()
    beside = walked(loader, [XaiCallback(tmp_path / "run", save_checkpoint=False)], tmp_path)
    assert beside.given == bare.given
    assert beside.looks == bare.looks
    for key, value in bare.net.state_dict().items():
        assert torch.equal(value, beside.net.state_dict()[key])
    if not are_known:
        assert not (tmp_path / "run" / "data").exists()
        assert dropped_of(tmp_path / "run") == len(beside.truth)
        return
    found = pl.read_parquet(tmp_path / "run" / "data").select("epoch", "sample_id", "loss").rows()
    assert sorted((e, i) for e, i, _ in found) == sorted((e, i) for e, i, _ in beside.truth)
    for one, other in zip(sorted(found), sorted(beside.truth), strict=True):
        assert one[2] == pytest.approx(other[2], abs=1e-5)


@pytest.mark.parametrize("options", [{"reload_dataloaders_every_n_epochs": 1}, {"overfit_batches": 2},
                                     {"limit_train_batches": 2}])  # fmt: skip
@pytest.mark.parametrize("workers", [0, 2])
def test_options_of_the_trainer_change_nothing(tmp_path: Path, options: dict[str, Any], workers: int) -> None:
    from xaicli.integrations.lightning import XaiCallback

    def make() -> DataLoader[Any]:
        torch.manual_seed(1)
        return DataLoader(
            Pairs(), batch_size=6, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
            collate_fn=collated,
        )  # fmt: skip

    bare = walked(make(), [], tmp_path, max_epochs=3, **options)
    beside = walked(make(), [XaiCallback(tmp_path / "run", save_checkpoint=False)], tmp_path, max_epochs=3, **options)
    assert beside.given == bare.given
    assert beside.looks == bare.looks
    found = pl.read_parquet(tmp_path / "run" / "data").select("epoch", "sample_id", "loss").rows()
    for one, other in zip(sorted(found), sorted(beside.truth), strict=True):
        assert one == (*other[:2], pytest.approx(other[2], abs=1e-5))


@pytest.mark.parametrize("is_walked_before", [False, True])
def test_workers_that_outlive_a_training_go_on_as_they_were(tmp_path: Path, is_walked_before: bool) -> None:
    from xaicli.integrations.lightning import XaiCallback

    loader = DataLoader(Pairs(), batch_size=6, num_workers=2, persistent_workers=True, collate_fn=collated)
    if is_walked_before:
        list(loader)
    walked(loader, [XaiCallback(tmp_path / "run", save_checkpoint=False)], tmp_path)
    after = [place for batch in loader for place in (PLACE[tuple(row)] for row in batch[0].tolist())]
    assert after == list(range(N))
    assert all(type(batch) is list for batch in loader)
    again = walked(loader, [XaiCallback(tmp_path / "again", save_checkpoint=False)], tmp_path)
    found = pl.read_parquet(tmp_path / "again" / "data").select("epoch", "sample_id", "loss").rows()
    for one, other in zip(sorted(found), sorted(again.truth), strict=True):
        assert one == (*other[:2], pytest.approx(other[2], abs=1e-5))


def test_batches_that_come_when_they_are_ready_have_their_rows(tmp_path: Path) -> None:
    from xaicli.integrations.lightning import XaiCallback

    held = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    class Late(Pairs):
        """The first batch waits for the second, which the other worker makes."""

        def __getitem__(self, index: Any) -> Any:
            if index >= 6:
                held[0] = 1
            while not int(held[0]):
                threading.Event().wait(0.01)
            return super().__getitem__(index)

    loader = DataLoader(Late(), batch_size=6, num_workers=2, in_order=False)
    model = walked(loader, [XaiCallback(tmp_path / "run", save_checkpoint=False)], tmp_path, max_epochs=1)
    found = pl.read_parquet(tmp_path / "run" / "data").select("epoch", "sample_id", "loss").rows()
    for one, other in zip(sorted(found), sorted(model.truth), strict=True):
        assert one == (*other[:2], pytest.approx(other[2], abs=1e-5))
