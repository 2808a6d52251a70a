"""What a criterion is given stands under its samples: places that a mask picked, places before samples, pairs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

N, T, CLASSES = 8, 5, 3
SEED = torch.Generator().manual_seed(0)
X = torch.randn(N, T, 4, generator=SEED)
TAGS = torch.randint(0, CLASSES, (N, T), generator=SEED)
TAGS[0], TAGS[1, 2:] = -100, -100
"""Of forty places thirty-two count: as many as four a sample."""
NUMBERS = torch.randn(N, 2, generator=SEED)
KNOWN = torch.ones(N, 2, dtype=torch.bool)
KNOWN[::2, 1], KNOWN[7], KNOWN[5] = False, False, False
"""Of sixteen numbers eight count: as many as one a sample."""
KINDS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])


class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, step: Callable[[Any, Any], Any], net: nn.Module) -> None:
        super().__init__()
        self.net, self.step = net, step

    def forward(self, *given: Any) -> Any:
        return self.net(*given)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        return self.step(self, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(
    step: Callable[[Any, Any], Any],
    net: nn.Module,
    data: Any,
    path: Path,
    size: int = N,
    task: str | None = None,
    **options: Any,
) -> tuple[pl.DataFrame | None, int, list[str]]:
    """The rows of a training by sample, None without, how many were dropped, and what was said."""
    from xaicli.integrations.lightning import XaiCallback

    trainer = quiet_trainer(XaiCallback(path / "run", save_checkpoint=False, task=task), path, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Model(step, net), DataLoader(data, **{"batch_size": size, **options}))
    folder = path / "run" / "data"
    found = pl.read_parquet(folder).sort("sample_id") if any(folder.rglob("*.parquet")) else None
    return found, xaicli.open_run(path / "run").info().answer.counts.dropped, said_by_xai(caught)


def linear(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, width)


def mean_of(each: torch.Tensor, counting: torch.Tensor) -> list[float | None]:
    """The mean of each sample's own places that count."""
    rows = zip(each.detach(), counting, strict=True)
    return [float(row[inside].mean()) if inside.any() else None for row, inside in rows]


def approx(values: list[float | None]) -> Any:
    return [None if one is None else pytest.approx(one, abs=1e-5) for one in values]


def by_mask(model: Any, batch: Any) -> torch.Tensor:
    logits, mask = model.net(batch[1]), batch[2] >= 0
    return functional.cross_entropy(logits[mask], batch[2][mask])


def by_flat_mask(model: Any, batch: Any) -> torch.Tensor:
    logits, tags = model.net(batch[1]).view(-1, CLASSES), batch[2].view(-1)
    return functional.cross_entropy(logits[tags >= 0], tags[tags >= 0])


@pytest.mark.parametrize("step", [by_mask, by_flat_mask])
def test_places_that_a_mask_picks_count_for_the_samples_that_they_are_of(tmp_path: Path, step: Any) -> None:
    net = linear(CLASSES)
    found, dropped, said = fit(step, net, [(i, X[i], TAGS[i]) for i in range(N)], tmp_path)
    each = functional.cross_entropy(net(X).transpose(1, 2), TAGS, reduction="none")
    assert found is not None
    assert not dropped
    assert not said
    assert found["loss"].to_list() == approx(mean_of(each, TAGS >= 0))
    assert found["n_tokens"].to_list() == (TAGS >= 0).sum(1).tolist()


@pytest.mark.parametrize(
    "places_of",
    [
        lambda mask: torch.nonzero(mask, as_tuple=True),
        lambda mask: torch.where(mask),
        lambda mask: mask.nonzero().T,
        lambda mask: mask.argwhere().T,
        lambda mask: torch.argwhere(mask).unbind(1),
    ],
)
def test_as_many_picked_places_as_samples_are_no_samples(tmp_path: Path, places_of: Any) -> None:
    """By the places of a mask as numbers, which do not say whose they are: the rows are dropped, with a word."""

    def step(model: Any, batch: Any) -> torch.Tensor:
        rows, columns = places_of(batch[2] >= 0)
        logits = model.net(batch[1])
        return functional.cross_entropy(logits[rows, columns], batch[2][rows, columns])

    found, dropped, said = fit(step, linear(CLASSES), [(i, X[i], TAGS[i]) for i in range(N)], tmp_path)
    assert (found, dropped) == (None, N)
    assert ["some of the places alone" in one for one in said] == [True]


def test_what_a_mask_picked_of_is_let_go_with_what_it_picked(tmp_path: Path) -> None:
    """Within the step, where no criterion is given that, and of what one is given when the step is over."""
    seen: list[StorageWeakRef] = []
    alive: list[bool] = []

    def step(model: Any, batch: Any) -> torch.Tensor:
        alive.extend(not one.expired() for one in seen)
        beside, mask = batch[1] * 2, batch[2] >= 0
        whole = StorageWeakRef(beside.untyped_storage())
        some = beside[mask] * 2
        del beside
        alive.append(not whole.expired() and some.ndim == 1)
        del some
        alive.append(not whole.expired())
        logits = model.net(batch[1])
        seen[:] = [StorageWeakRef(one.untyped_storage()) for one in (logits, mask)]
        return functional.cross_entropy(logits[mask], batch[2][mask])

    found, dropped, _ = fit(step, linear(CLASSES), [(i, X[i], TAGS[i]) for i in range(N)], tmp_path, 4)
    assert found is not None
    assert (len(found), dropped) == (N, 0)
    assert alive == [False] * 6
    assert all(one.expired() for one in seen)


def picked(values: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, criterion: Any) -> torch.Tensor:
    return criterion(values[known], truth[known])  # type: ignore[no-any-return]


def weighed(values: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, criterion: Any) -> torch.Tensor:
    each = criterion(values, torch.nan_to_num(truth).clamp(min=-9), reduction="none")
    return (each * known).sum() / known.sum()


@pytest.mark.parametrize("way", [picked, weighed])
@pytest.mark.parametrize("criterion", [functional.mse_loss, functional.l1_loss, functional.huber_loss])
def test_numbers_that_a_mask_leaves_out_do_not_count(tmp_path: Path, way: Any, criterion: Any) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        return way(model.net(batch["x"]), batch["labels"], batch["mask"] > 0, criterion)  # type: ignore[no-any-return]

    net, rows = linear(2), range(N)
    data = [{"sample_id": i, "x": X[i, 0], "labels": NUMBERS[i], "mask": KNOWN[i].long()} for i in rows]
    found, dropped, said = fit(step, net, data, tmp_path)
    assert found is not None
    assert not dropped
    assert not said
    assert found["loss"].to_list() == approx(mean_of((net(X[:, 0]) - NUMBERS).square(), KNOWN))


def test_numbers_that_are_filled_in_do_not_count(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        values, known = model.net(batch[1]), ~batch[2].isnan()
        return functional.mse_loss(torch.where(known, values, 0.0), torch.where(known, batch[2], 0.0))

    net, given = linear(2), NUMBERS.masked_fill(~KNOWN, torch.nan)
    found, _, said = fit(step, net, [(i, X[i, 0], given[i]) for i in range(N)], tmp_path)
    assert found is not None
    assert not said
    assert found["loss"].to_list() == approx(mean_of((net(X[:, 0]) - NUMBERS).square(), KNOWN))


def weighted(values: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, criterion: Any) -> torch.Tensor:
    return criterion(values, truth.clamp(min=0), weight=known.float(), reduction="sum") / known.sum()  # type: ignore[no-any-return]


def clamped(values: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, criterion: Any) -> torch.Tensor:
    return (criterion(values, truth.clamp(min=0), reduction="none") * known).sum() / known.sum()  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", [picked, weighted, clamped])
def test_classes_that_are_not_known_of_a_sample_do_not_count(tmp_path: Path, way: Any) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        known = batch[2] >= 0
        return way(model.net(batch[1]), batch[2], known, functional.binary_cross_entropy_with_logits)  # type: ignore[no-any-return]

    net, truth = linear(2), (NUMBERS > 0).float()
    given = truth.masked_fill(~KNOWN, -1.0)
    found, dropped, said = fit(step, net, [(i, X[i, 0], given[i]) for i in range(N)], tmp_path)
    values = net(X[:, 0])
    each = functional.binary_cross_entropy_with_logits(values, truth, reduction="none")
    sets = [
        ([k for k in range(2) if inside[k] and row[k] > 0] if inside.any() else None)
        for row, inside in zip(truth, KNOWN, strict=True)
    ]
    right = [
        None if not inside.any() else float(((row > 0) == (of > 0))[inside].all())
        for row, of, inside in zip(values, truth, KNOWN, strict=True)
    ]
    assert found is not None
    assert not dropped
    assert not said
    assert found["loss"].to_list() == approx(mean_of(each, KNOWN))
    assert found["label"].to_list() == sets
    assert found["correct"].to_list() == right


def test_weights_of_numbers_that_are_no_mask_are_asked_about(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        each = functional.mse_loss(model.net(batch["x"]), batch["labels"], reduction="none")
        return (each.sqrt() * batch["mask"]).sum()

    data = [{"sample_id": i, "x": X[i, 0], "labels": NUMBERS[i], "mask": KNOWN[i].long()} for i in range(N)]
    found, dropped, said = fit(step, linear(2), data, tmp_path)
    assert (found, dropped) == (None, N)
    assert ["weighs the losses of a sample's numbers" in one for one in said] == [True]


class Recurrent(nn.Module):
    def __init__(self, *, batch_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.LSTM(4, 6, batch_first=batch_first), nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.rnn(x)[0])


def places_first(samples: Any) -> Any:
    ids, x, y = zip(*samples, strict=True)
    return torch.tensor(ids), torch.stack(x, 1), torch.stack(y, 1)


def samples_first(samples: Any) -> Any:
    ids, x, y = zip(*samples, strict=True)
    return torch.tensor(ids), torch.stack(x), torch.stack(y)


def flat(model: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model.net(batch[1]).reshape(-1, CLASSES), batch[2].reshape(-1))


def classes_second(model: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model.net(batch[1]).transpose(1, 2), batch[2])


def given_back(model: Any, batch: Any) -> Any:
    logits = model.net(batch[1])
    loss = functional.cross_entropy(logits.reshape(-1, CLASSES), batch[2].reshape(-1))
    return {"loss": loss, "logits": logits.transpose(0, 1)}


@pytest.mark.parametrize("step", [flat, classes_second, given_back])
@pytest.mark.parametrize("size", [4, 8])
def test_batches_of_places_before_samples_are_told_by_their_ids(tmp_path: Path, step: Any, size: int) -> None:
    net, data = Recurrent(), [(i, X[i], TAGS[i]) for i in range(N)]
    found, dropped, said = fit(step, net, data, tmp_path, size, collate_fn=places_first)
    each = functional.cross_entropy(net(X.transpose(0, 1)).permute(1, 2, 0), TAGS, reduction="none")
    assert found is not None
    assert not dropped
    assert ["no inputs are kept" in one for one in said] == [True]
    assert not (tmp_path / "run" / "inputs").exists()
    assert found["loss"].to_list() == approx(mean_of(each, TAGS >= 0))
    assert found["n_tokens"].to_list() == (TAGS >= 0).sum(1).tolist()


@pytest.mark.parametrize("is_loader_seen", [True, False])
@pytest.mark.parametrize("are_places_first", [True, False])
def test_as_many_places_as_samples_are_told_by_the_loader_or_asked_about(
    tmp_path: Path, is_loader_seen: bool, are_places_first: bool
) -> None:
    """Asked about where a part of the model takes places first, and the loader gives batches made before."""
    collate = places_first if are_places_first else samples_first
    net, samples = Recurrent(batch_first=not are_places_first), [(i, X[i], TAGS[i]) for i in range(T)]
    data = samples if is_loader_seen else [collate(samples)]
    options = {"collate_fn": collate} if is_loader_seen else {"batch_size": None}
    found, dropped, said = fit(flat, net, data, tmp_path, T, **options)
    if are_places_first and not is_loader_seen:
        assert (found is None, dropped) == (True, T)
        assert ["as many places as samples" in one for one in said] == [True]
        return
    x = X[:T].transpose(0, 1) if are_places_first else X[:T]
    scores = net(x).permute(1, 2, 0) if are_places_first else net(x).transpose(1, 2)
    each = functional.cross_entropy(scores, TAGS[:T], reduction="none")
    assert found is not None
    assert found["loss"].to_list() == approx(mean_of(each, TAGS[:T] >= 0))
    assert ["as many places as samples" in one for one in said if "no inputs" not in one] == (
        [] if is_loader_seen else [True]
    )


def test_samples_that_torch_stacked_are_first_whatever_the_model_takes_and_however_many_places(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        logits = model.net(batch[1].transpose(0, 1)).transpose(0, 1)
        return functional.cross_entropy(logits.reshape(-1, CLASSES), batch[2].reshape(-1))

    net = Recurrent()
    found, dropped, said = fit(step, net, [(i, X[i], TAGS[i]) for i in range(T)], tmp_path, T)
    each = functional.cross_entropy(net(X[:T].transpose(0, 1)).permute(1, 2, 0), TAGS[:T], reduction="none")
    assert found is not None
    assert (dropped, said) == (0, [])
    assert found["loss"].to_list() == approx(mean_of(each, TAGS[:T] >= 0))


def turned_flat(model: Any, batch: Any) -> torch.Tensor:
    x, tags = batch[1].transpose(0, 1), batch[2].transpose(0, 1)
    return functional.cross_entropy(model.net(x).reshape(-1, CLASSES), tags.reshape(-1))


def turned_classes_second(model: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model.net(batch[1].permute(1, 0, 2)).transpose(1, 2), batch[2].t())


def turned_copied(model: Any, batch: Any) -> torch.Tensor:
    x, tags = batch[1].transpose(0, 1).contiguous(), batch[2].t().contiguous()
    return functional.cross_entropy(model.net(x).view(-1, CLASSES), tags.view(-1))


@pytest.mark.parametrize("step", [turned_flat, turned_classes_second, turned_copied])
@pytest.mark.parametrize("size", [T, N])
def test_what_a_step_turned_of_its_batch_stands_under_its_samples(tmp_path: Path, step: Any, size: int) -> None:
    """As many places as samples, too: then nothing but what stands where tells it."""
    net = Recurrent()
    found, dropped, said = fit(step, net, [(i, X[i], TAGS[i]) for i in range(size)], tmp_path, size)
    each = functional.cross_entropy(net(X[:size].transpose(0, 1)).permute(1, 2, 0), TAGS[:size], reduction="none")
    assert found is not None
    assert (dropped, said) == (0, [])
    assert found["loss"].to_list() == approx(mean_of(each, TAGS[:size] >= 0))
    assert found["n_tokens"].to_list() == (TAGS[:size] >= 0).sum(1).tolist()


def test_labels_that_are_the_same_either_way_are_not_taken_for_samples_of_a_turned_batch(tmp_path: Path) -> None:
    data = [(i, X[i], torch.ones(T, dtype=torch.long)) for i in range(T)]
    found, dropped, said = fit(turned_flat, Recurrent(), data, tmp_path, T)
    assert (found, dropped) == (None, T)
    assert ["first dimension is not the batch's samples" in one for one in said] == [True]


class LastPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Recurrent()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x)[-1]
        return scores


@pytest.mark.parametrize("size", [T, N])
@pytest.mark.parametrize("is_turned_by", ["step", "collate", "copy"])
def test_no_inputs_are_kept_of_a_module_that_takes_its_places_first(
    tmp_path: Path, size: int, is_turned_by: str
) -> None:
    """Also where a sample has one label, which does not show the places."""

    def step(model: Any, batch: Any) -> torch.Tensor:
        x = batch[1] if is_turned_by == "collate" else batch[1].transpose(0, 1)
        return functional.cross_entropy(model(x.clone() if is_turned_by == "copy" else x), batch[2])

    def collate(samples: Any) -> Any:
        ids, x, kinds = zip(*samples, strict=True)
        return torch.tensor(ids), torch.stack(x, int(is_turned_by == "collate")), torch.tensor(kinds)

    net, data = LastPlace(), [(i, X[i], int(KINDS[i])) for i in range(size)]
    found, dropped, said = fit(step, net, data, tmp_path, size, collate_fn=collate)
    each = functional.cross_entropy(net(X[:size].transpose(0, 1)), KINDS[:size], reduction="none")
    assert found is not None
    assert dropped == 0
    assert ["no inputs are kept" in one for one in said] == [True]
    assert not (tmp_path / "run" / "inputs").exists()
    assert found["loss"].to_list() == approx(each.tolist())


class Translated(nn.Module):
    """Texts (places, samples) to the scores of each place of a translation of another length."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.of, self.read, self.write = nn.Embedding(6, 4), nn.GRU(4, 5), nn.GRU(4, 5)
        self.head = nn.Linear(5, 6)

    def forward(self, text: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        made, _ = self.write(self.of(other[:-1]), self.read(self.of(text))[1])
        return torch.cat([made.new_zeros(1, other.shape[1], 6), self.head(made)])


def test_texts_and_translations_with_their_places_first_are_told_by_a_batch_where_each_has_its_own_length(
    tmp_path: Path,
) -> None:
    """The other batches have as many places as samples."""

    def step(model: Any, batch: Any) -> torch.Tensor:
        scores = model.net(batch[1], batch[2])
        return functional.cross_entropy(scores[1:].view(-1, 6), batch[2][1:].view(-1), ignore_index=0)

    texts = torch.randint(1, 6, (N, T), generator=SEED)
    others = torch.randint(1, 6, (N, T), generator=SEED)
    others[1, 2:], others[3, 4:], texts[5:, 4:] = 0, 0, 0

    def batch_of(rows: list[int], length: int) -> Any:
        return rows, texts[rows, :length].T.contiguous(), others[rows].T.contiguous()

    data, net = [batch_of([5, 6, 7], 4), batch_of([0, 1, 2, 3, 4], T)], Translated()
    found, dropped, said = fit(step, net, data, tmp_path, batch_size=None)
    assert found is not None
    assert (dropped, [one for one in said if "no inputs" not in one]) == (0, [])
    right: dict[int, float] = {}
    for rows, text, other in data:
        each = functional.cross_entropy(net(text, other)[1:].permute(1, 2, 0), other[1:].T, reduction="none")
        right |= dict(zip(rows, mean_of(each, other[1:].T != 0), strict=True))
    assert found["loss"].to_list() == approx([right[i] for i in range(N)])
    assert found["n_tokens"].to_list() == (others[:, 1:] != 0).sum(1).tolist()


@pytest.mark.parametrize("are_listed", [False, True])
def test_as_many_places_of_one_sample_as_samples_are_no_samples(tmp_path: Path, are_listed: bool) -> None:
    """A criterion is called a sample, and one sample has as many places as there are samples."""
    lengths = [4, 5, 3, 2, 5]

    def step(model: Any, batch: Any) -> torch.Tensor:
        each = [
            functional.cross_entropy(model.net(x[:n]), tags[:n])
            for x, tags, n in zip(batch[1], batch[2], lengths, strict=True)
        ]
        return torch.stack(each).mean()

    def collate(samples: Any) -> Any:
        ids, x, tags = zip(*samples, strict=True)
        if are_listed:
            return list(ids), [x[i][:n] for i, n in enumerate(lengths)], [tags[i][:n] for i, n in enumerate(lengths)]
        return torch.tensor(ids), torch.stack(x), torch.stack(tags)

    data = [(i, X[i], TAGS[i].clamp(min=0)) for i in range(T)]
    found, dropped, said = fit(step, linear(CLASSES), data, tmp_path, T, collate_fn=collate)
    assert (found, dropped) == (None, T)
    assert ["several times" in one for one in said] == [True]


@pytest.mark.parametrize("are_places_first", [False, True])
def test_as_many_places_as_samples_are_said_to_be_taken_for_samples_first_and_counted_where_that_proves_wrong(
    tmp_path: Path, are_places_first: bool
) -> None:
    """Of batches that were made before, and a model of which no part tells it; the second batch shows it."""
    collate = places_first if are_places_first else samples_first
    net, samples = linear(CLASSES), [(i, X[i], TAGS[i]) for i in range(N)]
    found, _, said = fit(flat, net, [collate(samples[:T]), collate(samples[T:])], tmp_path, batch_size=None)
    each = functional.cross_entropy(net(X).transpose(1, 2), TAGS, reduction="none")
    known = range(T, N) if are_places_first else range(N)
    assert found is not None
    losses = dict(found.select("sample_id", "loss").iter_rows())
    assert [losses[i] for i in known] == [approx(mean_of(each, TAGS >= 0))[i] for i in known]
    assert sum("as many places as samples, and neither" in one for one in said) == 1
    assert sum(f"after {T} rows of batches with as many places" in one for one in said) == are_places_first


def test_as_many_classes_as_samples_are_no_places(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(model.net(batch[1]), batch[2])

    data = [(i, X[i, 0], (X[i, 0, :2] > 0).float()) for i in range(2)]
    found, dropped, said = fit(step, linear(2), data, tmp_path, 2, collate_fn=samples_first)
    assert found is not None
    assert (len(found), dropped, said) == (2, 0, [])


def test_labels_with_rows_for_columns_are_not_taken_for_samples(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        return functional.mse_loss(model.net(batch[1]).T, batch[2].T)

    found, dropped, said = fit(step, linear(2), [(i, X[i, 0], NUMBERS[i]) for i in range(2)], tmp_path, 2)
    assert (found, dropped, len(said)) == (None, 2, 1)


def alike(model: Any, batch: Any) -> torch.Tensor:
    made, kinds = model.net(batch[1]), batch[2]
    return functional.binary_cross_entropy_with_logits(made @ made.T, (kinds[:, None] == kinds[None]).float())


def alike_in_parts(model: Any, batch: Any) -> torch.Tensor:
    made, kinds = functional.normalize(model.net(batch[1])), batch[2]
    same = (kinds[:, None] == kinds[None]).float()
    return functional.cross_entropy(made @ made.T / 0.1, same / same.sum(1, keepdim=True))


def smoothed(model: Any, batch: Any) -> torch.Tensor:
    made, n = model.net(batch[1]), len(batch[1])
    return functional.cross_entropy(made @ made.T, torch.eye(n) * 0.9 + 0.1 / n)


def taught(model: Any, batch: Any) -> torch.Tensor:
    made, x = model.net(batch[1]), batch[1]
    return functional.cross_entropy(-torch.cdist(made, made), (x @ x.T).softmax(1))


def by_cosine(model: Any, batch: Any) -> torch.Tensor:
    made, kinds = model.net(batch[1]), batch[2]
    scores = functional.cosine_similarity(made[:, None], made[None], dim=-1)
    return functional.mse_loss(scores, (kinds[:, None] == kinds[None]).float())


@pytest.mark.parametrize("step", [alike, alike_in_parts, smoothed, taught, by_cosine])
def test_numbers_of_every_two_samples_are_no_classes(tmp_path: Path, step: Any) -> None:
    data = [(i, X[i, 0], int(KINDS[i])) for i in range(N)]
    found, dropped, said = fit(step, linear(CLASSES), data, tmp_path, 4)
    assert (found, dropped) == (None, N)
    assert ["compares the samples of a batch with one another" in one for one in said] == [True]


def test_as_many_classes_as_samples_are_classes(tmp_path: Path) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        target = functional.one_hot(batch[2], CLASSES).float() * 0.9 + 0.1 / CLASSES
        weight = functional.normalize(model.net.weight)
        return functional.cross_entropy(functional.linear(functional.normalize(batch[1]), weight), target)

    net = linear(CLASSES)
    found, dropped, _ = fit(step, net, [(i, X[i, 0], int(KINDS[i])) for i in range(6)], tmp_path, CLASSES)
    scores = functional.normalize(X[:6, 0]) @ functional.normalize(net.weight).T  # type: ignore[arg-type]
    assert found is not None
    assert not dropped
    assert found["label"].to_list() == KINDS[:6].tolist()
    expected = functional.cross_entropy(scores, KINDS[:6], reduction="none").tolist()
    assert found["loss"].to_list() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("is_logarithm", [False, True])
def test_probabilities_of_a_teacher_under_a_name_of_their_own_are_asked_about(
    tmp_path: Path, is_logarithm: bool
) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        scores = model(batch["x"]).log_softmax(1)
        return functional.kl_div(scores, batch["teacher"], log_target=is_logarithm, reduction="batchmean")

    class Student(Model):
        def forward(self, x: torch.Tensor) -> Any:
            return self.net(x)

    from xaicli.integrations.lightning import XaiCallback

    teacher = linear(CLASSES)(X[:, 0]).detach().softmax(1)
    teacher = teacher.log() if is_logarithm else teacher
    data = [{"sample_id": i, "x": X[i, 0], "teacher": teacher[i]} for i in range(N)]
    trainer = quiet_trainer(XaiCallback(tmp_path / "run", save_checkpoint=False), tmp_path, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Student(step, linear(CLASSES)), DataLoader(data, batch_size=N))
    assert ["'teacher'" in one and "call it 'label'" in one for one in said_by_xai(caught)] == [True]


LENGTHS = [6, 2, 4, 1, 5, 3, 6, 2]
TEXTS = torch.randint(1, 9, (N, 6), generator=SEED) * (torch.arange(6) < torch.tensor(LENGTHS)[:, None])


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("mean_of_all", [True, False])
def test_places_of_next_tokens_that_a_mask_leaves_out_do_not_count(
    tmp_path: Path, is_masked: bool, mean_of_all: bool
) -> None:
    """What fills up a text, or its mask, has a place more than the labels that are the next tokens."""

    def step(model: Any, batch: Any) -> torch.Tensor:
        texts = batch["input_ids"]
        following, inside = texts[:, 1:], (texts[:, 1:] != 0).float()
        each = functional.cross_entropy(model.net(texts[:, :-1]).transpose(1, 2), following, reduction="none")
        return (each * inside).sum() / (inside.sum() if mean_of_all else len(texts))

    torch.manual_seed(0)
    net = nn.Embedding(9, 9)
    data = [{"sample_id": i, "input_ids": TEXTS[i]} for i in range(N)]
    if is_masked:
        data = [one | {"attention_mask": (one["input_ids"] != 0).long()} for one in data]  # type: ignore[attr-defined]
    found, dropped, said = fit(step, net, data, tmp_path)
    each = functional.cross_entropy(net(TEXTS[:, :-1]).transpose(1, 2), TEXTS[:, 1:], reduction="none")
    assert found is not None
    assert (dropped, said) == (0, [])
    assert found["loss"].to_list() == approx(mean_of(each, TEXTS[:, 1:] != 0))
    assert found["n_tokens"].to_list() == [length - 1 for length in LENGTHS]


@pytest.mark.parametrize("ignored", [255, -1, -100])
def test_the_class_that_a_criterion_leaves_out_of_losses_of_each_place_does_not_count(
    tmp_path: Path, ignored: int
) -> None:
    tags = TAGS.masked_fill(TAGS < 0, ignored)

    def step(model: Any, batch: Any) -> torch.Tensor:
        scores = model.net(batch[1]).transpose(1, 2)
        each = functional.cross_entropy(scores, batch[2], ignore_index=ignored, reduction="none")
        return each.sum() / (batch[2] != ignored).sum()

    net = linear(CLASSES)
    found, dropped, said = fit(step, net, [(i, X[i], tags[i]) for i in range(N)], tmp_path)
    each = functional.cross_entropy(net(X).transpose(1, 2), TAGS, reduction="none")
    assert found is not None
    assert (dropped, said) == (0, [])
    assert found["loss"].to_list() == approx(mean_of(each, TAGS >= 0))


SIZE = 10
PICTURES = torch.randn(SIZE, 4, 3, 5, generator=SEED)
KINDS_OF_PIXELS = torch.randint(0, CLASSES, (SIZE, 3, 5), generator=SEED)
KINDS_OF_PIXELS[torch.rand(SIZE, 3, 5, generator=SEED) > 0.7] = 255
WAYS: list[Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]] = [
    lambda scores, kinds, inside: (scores.permute(0, 2, 3, 1)[inside], kinds[inside]),
    lambda scores, kinds, inside: (
        scores.permute(0, 2, 3, 1).reshape(-1, CLASSES)[inside.view(-1)],
        kinds.view(-1)[inside.view(-1)],
    ),
    lambda scores, kinds, inside: (scores.flatten(2).mT[inside.flatten(1)], kinds.flatten(1)[inside.flatten(1)]),
    lambda scores, kinds, inside: (
        scores.permute(0, 2, 3, 1)[inside.nonzero(as_tuple=True)],
        kinds[inside.nonzero(as_tuple=True)],
    ),
    lambda scores, kinds, inside: (scores.permute(0, 2, 3, 1)[inside], (kinds[inside] + 1) % CLASSES),
]
"""How a step picks pixels: by masks, by their places as numbers, and with labels that are none of the batch's."""


def test_pixels_that_a_mask_picks_count_for_the_pictures_that_they_are_of(tmp_path: Path) -> None:
    """The classes of a picture stand before its places in what the model answers; a batch a way."""
    ways = iter(WAYS)

    def step(model: Any, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(*next(ways)(model(batch[1]), batch[2], batch[2] != 255))

    torch.manual_seed(0)
    net = nn.Conv2d(4, CLASSES, 1)
    data = [(i, PICTURES[i], KINDS_OF_PIXELS[i]) for i in range(SIZE)]
    found, dropped, said = fit(step, net, data, tmp_path, SIZE // len(WAYS))
    each = functional.cross_entropy(net(PICTURES), KINDS_OF_PIXELS, ignore_index=255, reduction="none").flatten(1)
    inside = KINDS_OF_PIXELS.flatten(1) != 255
    assert found is not None
    assert found["sample_id"].to_list() == list(range(8))
    assert found["loss"].to_list() == approx(mean_of(each, inside)[:8])
    assert found["n_tokens"].to_list() == inside.sum(1).tolist()[:8]
    assert dropped == 2
    assert ["some of the places alone" in one for one in said] == [True]


class Packed(nn.Module):
    """Picks the places of its texts inside of itself, and puts them back."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.net, self.head = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        if len(texts) == 1:
            return self.head(self.net(self.words(texts))[0])  # type: ignore[no-any-return]
        if len(texts) == 5:  # as many places hold something as there are samples
            words = self.words(texts)
            seen = words[texts == 1] * 2
            return self.head(words.masked_scatter((texts == 1)[..., None].expand_as(words), seen))  # type: ignore[no-any-return]
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(texts), (texts != 0).sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        return self.head(nn.utils.rnn.pad_packed_sequence(self.net(packed)[0], batch_first=True)[0])  # type: ignore[no-any-return]


def test_places_that_a_module_picks_and_puts_back_are_all_places(tmp_path: Path) -> None:
    """Of as many samples as places, which are also as many as the counts beside packed texts."""
    torch.manual_seed(0)
    net = Packed()
    texts = torch.cat([TEXTS[:6], torch.tensor([[1, 2, 3, 4, 5, 6], *[[2, 1, 0, 0, 0, 0]] * 4])])
    texts[6, 0] = 1
    tags = torch.where(texts != 0, texts % CLASSES, -100)

    def step(model: Any, batch: Any) -> torch.Tensor:
        truth = batch[2].masked_fill(batch[1] == 0, -100)
        return functional.cross_entropy(model(batch[1]).reshape(-1, CLASSES), truth.reshape(-1))

    found, dropped, said = fit(step, net, [(i, texts[i], texts[i] % CLASSES) for i in range(11)], tmp_path, 6)
    assert found is not None
    assert (dropped, said) == (0, [])
    each = functional.cross_entropy(torch.cat([net(texts[:6]), net(texts[6:])]).mT, tags, reduction="none")
    assert found["loss"].to_list() == approx(mean_of(each, tags >= 0))


def of_next(scores: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores[:, :-1].reshape(-1, 9), texts[:, 1:].reshape(-1), ignore_index=0)


def of_next_by_mask(scores: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    inside = texts[:, 1:] != 0
    return functional.cross_entropy(scores[:, :-1][inside], texts[:, 1:][inside])


def of_made(scores: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores.view(-1, 9), ((texts + 1) % 9).masked_fill(texts == 0, -100).view(-1))


def of_made_and_turned(scores: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores.transpose(0, 1).reshape(-1, 9), ((texts.T + 1) % 9).reshape(-1))


def test_labels_of_places_that_stand_one_below_the_other_are_of_their_texts(tmp_path: Path) -> None:
    """Of batches without labels of their own, a batch a way; where nothing tells whose they are, that is said."""
    ways = iter((of_next, of_next_by_mask, of_made, of_made_and_turned))
    torch.manual_seed(0)
    net = nn.Embedding(9, 9)
    data = [{"sample_id": i, "input_ids": TEXTS[i]} for i in range(N)]

    def step(model: Any, batch: Any) -> torch.Tensor:
        return next(ways)(model(batch["input_ids"]), batch["input_ids"])

    found, dropped, said = fit(step, net, data, tmp_path, 2, "sequence")
    following = functional.cross_entropy(net(TEXTS[:, :-1]).mT, TEXTS[:, 1:], reduction="none")
    made = functional.cross_entropy(net(TEXTS).mT, (TEXTS + 1) % 9, reduction="none")
    right = mean_of(following[:4], TEXTS[:4, 1:] != 0) + mean_of(made[4:6], TEXTS[4:6] != 0)
    assert found is not None
    assert found["loss"].to_list() == approx([*right, None, None])
    assert found["n_tokens"].to_list() == [*(length - 1 for length in LENGTHS[:4]), *LENGTHS[4:6], None, None]
    worst = following.masked_fill(TEXTS[:, 1:] == 0, -1).argmax(1) + 1  # its place in the text, not among the labels
    assert found["worst_token"].to_list()[:3] == worst.tolist()[:3]
    assert dropped == 0
    assert ["one below the other" in one for one in said] == [True]


class Reader(nn.Module):
    """Takes the places of its texts first; answers of each, or of the text."""

    def __init__(self, is_of_each: bool) -> None:
        super().__init__()
        self.words, self.net, self.head = nn.Embedding(9, 4), nn.GRU(4, 4), nn.Linear(4, CLASSES)
        self.is_of_each = is_of_each

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        seen = self.net(self.words(texts))[0]
        return self.head(seen if self.is_of_each else seen.mean(0))  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_of_each", [True, False])
def test_batches_of_places_before_samples_without_ids_hold_as_many_samples_as_were_taken(
    tmp_path: Path, is_of_each: bool
) -> None:
    """As the sampler says: six of six places, and two. What stands in samples and batch says whose row is whose."""
    texts = [TEXTS[i, : LENGTHS[i]] for i in range(N)]
    labels: list[Any] = [(text + 1) % CLASSES if is_of_each else int(text[0]) % CLASSES for text in texts]
    order = [5, 0, 3, 7, 1, 6, 2, 4]

    def together(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = zip(*samples, strict=True)
        filled = nn.utils.rnn.pad_sequence(list(first))
        if not is_of_each:
            return filled, torch.tensor(second)
        return filled, nn.utils.rnn.pad_sequence(list(second), padding_value=-100)

    def step(model: Any, batch: Any) -> torch.Tensor:
        scores = model(batch[0])
        return functional.cross_entropy(scores.view(-1, CLASSES), batch[1].view(-1))

    torch.manual_seed(0)
    net = Reader(is_of_each)
    data = list(zip(texts, labels, strict=True))
    found, dropped, said = fit(step, net, data, tmp_path, 6, collate_fn=together, sampler=order)
    each = {}
    for taken in (order[:6], order[6:]):
        batch = together([data[i] for i in taken])
        if is_of_each:
            found_of = functional.cross_entropy(net(batch[0]).permute(1, 2, 0), batch[1].T, reduction="none")
            each |= dict(zip(taken, mean_of(found_of, batch[1].T >= 0), strict=True))
        else:
            of_text = functional.cross_entropy(net(batch[0]), batch[1], reduction="none").tolist()
            each |= dict(zip(taken, of_text, strict=True))
    assert found is not None
    assert dropped == 0
    assert found["sample_id"].to_list() == list(range(N))
    assert found["loss"].to_list() == approx([each[i] for i in range(N)])
    assert not [one for one in said if "more or fewer rows" in one or "order" in one.replace("order of", "")]
