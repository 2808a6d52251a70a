"""Several views of each sample in one forward: a sample's row is of its own label and of its first view."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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

N = 20  # the last batch of 8 is of 4
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
SETS = (X[:, :3] > 0).long()
KINDS = SETS.sum(1) % 3
TEXTS = torch.randint(0, 3, (N, 4), generator=torch.Generator().manual_seed(1))
Net = Callable[[torch.Tensor], torch.Tensor]


def net_of(out: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, out)


def one_by_one(part: torch.Tensor) -> torch.Tensor:
    return torch.cat([part, part])


def by_sample(part: torch.Tensor) -> torch.Tensor:
    return part.repeat_interleave(2, 0)


def augmented(x: torch.Tensor, lay: Any, *, is_first: bool = False) -> torch.Tensor:
    """Both views: the picture as it is and another, or with `is_first` two others."""
    both = lay(x)
    if lay is one_by_one:
        both[len(x) :] = both[len(x) :] * 0.5 + 0.3
    else:
        both[1::2] = both[1::2] * 0.5 + 0.3
    return both + 1 if is_first else both


class Classes:
    labels = KINDS

    def __init__(self, lay: Any, *, is_first: bool = False) -> None:
        self.lay, self.is_first = lay, is_first

    def step(self, net: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = net(augmented(x, self.lay, is_first=self.is_first))
        return functional.cross_entropy(scores, self.lay(y)), scores

    def expected(self, net: Net) -> tuple[Any, torch.Tensor]:
        scores = net(X + 1 if self.is_first else X)
        return KINDS.tolist(), functional.cross_entropy(scores, KINDS, reduction="none")


class Sets(Classes):
    labels = SETS

    def step(self, net: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = net(augmented(x, self.lay))
        return functional.binary_cross_entropy_with_logits(scores, self.lay(y).float()), scores

    def expected(self, net: Net) -> tuple[Any, torch.Tensor]:
        each = functional.binary_cross_entropy_with_logits(net(X), SETS.float(), reduction="none").mean(1)
        return [[k for k in range(3) if row[k]] for row in SETS], each


class OfEach(Classes):
    """Rows of zeros and a one of the batch's classes."""

    def step(self, net: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = net(augmented(x, self.lay))
        return functional.cross_entropy(scores, functional.one_hot(self.lay(y), 3).float()), scores


class Texts(Classes):
    """A class of each of four places, which are the numbers of X."""

    labels = TEXTS

    def step(self, net: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = net(augmented(x, self.lay)).unflatten(1, (4, 3))
        return functional.cross_entropy(scores.flatten(0, 1), self.lay(y).flatten()), scores

    def expected(self, net: Net) -> tuple[Any, torch.Tensor]:
        scores = net(X).unflatten(1, (4, 3)).movedim(2, 1)
        return None, functional.cross_entropy(scores, TEXTS, reduction="none").mean(1)


WAYS: list[tuple[Any, int]] = [
    (Classes(one_by_one), 3), (Classes(by_sample), 3), (Classes(one_by_one, is_first=True), 3),
    (Sets(one_by_one), 3), (Sets(by_sample), 3), (OfEach(one_by_one), 3),
    (Texts(one_by_one), 12), (Texts(by_sample), 12),
]  # fmt: skip
NAMES = [f"{type(way).__name__}-{way.lay.__name__}{'-others' * way.is_first}" for way, _ in WAYS]


def lightning_rows(
    folder: Path, net: nn.Module, step: Any, labels: torch.Tensor, ending: str, x: torch.Tensor = X
) -> tuple[pl.DataFrame, list[str], int]:
    """The rows of a training that changes nothing, what xai said, and how many rows were dropped."""
    lightning = pytest.importorskip("lightning.pytorch")
    from xaicli.integrations.lightning import XaiCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            loss, logits = step(self.net, batch[1], batch[2])
            n = len(batch[1])
            return {"": loss, "all": {"loss": loss, "logits": logits}, "first": {"loss": loss, "logits": logits[:n]}}[
                ending
            ]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    callback = XaiCallback(folder / "run", save_checkpoint=False)
    loader = DataLoader([(i, x[i], labels[i]) for i in range(N)], batch_size=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(callback, folder, max_epochs=1).fit(Module(), loader)
    return frame_of(folder), said_by_xai(caught), callback.run.stats()["rows_dropped"]


def transformers_rows(
    folder: Path, net: nn.Module, step: Any, labels: torch.Tensor, ending: str, x: torch.Tensor = X
) -> tuple[pl.DataFrame, list[str], int]:
    """The same with a `compute_loss` of the caller's."""
    transformers = pytest.importorskip("transformers")
    from xaicli.integrations.transformers import XaiCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.net(x)}

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            loss, logits = step(lambda x: model(x=x)["logits"], inputs["x"], inputs.pop("labels"))
            outputs = {"logits": logits[: len(inputs["x"])] if ending == "first" else logits}
            return (loss, outputs) if return_outputs else loss

    data = [{"sample_id": i, "x": x[i], "labels": labels[i]} for i in range(N)]
    arguments = transformers.TrainingArguments(
        str(folder / "out"), per_device_train_batch_size=8, report_to=[], use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, num_train_epochs=1, learning_rate=0.0, save_strategy="no",
    )  # fmt: skip
    callback = XaiCallback(folder / "run", save_checkpoint=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Own(model=Model(), args=arguments, train_dataset=data, callbacks=[callback]).train()
    return frame_of(folder), said_by_xai(caught), callback.run.stats()["rows_dropped"]


def frame_of(folder: Path) -> pl.DataFrame:
    found = folder / "run" / "data"
    return xaicli.open_run(folder / "run").scan().collect().sort("sample_id") if found.exists() else pl.DataFrame()


def are_of(rows: pl.DataFrame, labels: Any, losses: torch.Tensor) -> bool:
    assert rows["sample_id"].to_list() == list(range(N))
    assert labels is None or rows["label"].to_list() == labels
    assert rows["loss"].to_list() == pytest.approx(losses.tolist(), abs=1e-5)
    return True


TRAINERS = [(lightning_rows, ""), (lightning_rows, "all"), (transformers_rows, "all")]
TRAINER_NAMES = ["lightning", "lightning-logits", "transformers"]


@pytest.mark.parametrize(("fit", "ending"), TRAINERS, ids=TRAINER_NAMES)
@pytest.mark.parametrize(("way", "width"), WAYS, ids=NAMES)
def test_a_sample_s_row_is_of_its_label_and_its_first_view(
    tmp_path: Path, way: Any, width: int, fit: Any, ending: str
) -> None:
    net = net_of(width)
    rows, said, dropped = fit(tmp_path, net, way.step, way.labels, ending)
    with torch.no_grad():
        assert are_of(rows, *way.expected(net))
    assert dropped == 0
    assert [one for one in said if "sequence" not in one] == []


@pytest.mark.parametrize("lay", [one_by_one, by_sample])
def test_views_of_samples_with_one_label_are_told_by_what_the_model_was_given(tmp_path: Path, lay: Any) -> None:
    net, alike = net_of(), torch.ones(N, dtype=torch.long)
    rows, said, _ = lightning_rows(tmp_path, net, Classes(lay).step, alike, "")
    with torch.no_grad():
        assert are_of(rows, alike.tolist(), functional.cross_entropy(net(X), alike, reduction="none"))
    assert said == []


@pytest.mark.parametrize(("fit", "ending"), [*TRAINERS[:2], (transformers_rows, "all")], ids=TRAINER_NAMES)
def test_views_that_nothing_tells_apart_are_asked_for_with_the_line_that_records_them(
    tmp_path: Path, fit: Any, ending: str
) -> None:
    """The second half is of other samples, with their labels: [y; y[::-1]]."""

    def step(net: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = net(torch.cat([x, x.flip(0)]))
        return functional.cross_entropy(scores, torch.cat([y, y.flip(0)])), scores

    net = net_of()
    rows, said, dropped = fit(tmp_path / "asked", net, step, KINDS, ending)
    assert (len(rows), dropped) == (0, N)
    assert ["more answers than the batch has samples" in one and "logits[:n]}" in one for one in said] == [True]
    rows, said, dropped = fit(tmp_path / "said", net, step, KINDS, "first")
    with torch.no_grad():
        assert are_of(rows, KINDS.tolist(), functional.cross_entropy(net(X), KINDS, reduction="none"))
    assert (said, dropped) == ([], 0)


def test_views_of_a_model_s_own_loss_have_their_samples_answers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from xaicli.integrations.transformers import XaiCallback

    tokens = torch.randint(0, 20, (N, 5), generator=torch.Generator().manual_seed(0))

    class Twice(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            outputs = model(**{name: torch.cat([part, part]) for name, part in inputs.items()})
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
        )
    ).eval()
    data = [{"sample_id": i, "input_ids": tokens[i], "labels": KINDS[i]} for i in range(N)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), per_device_eval_batch_size=8, report_to=[], use_cpu=True, disable_tqdm=True
    )
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    Twice(model=model, args=arguments, eval_dataset=data, callbacks=[callback]).evaluate()
    with torch.no_grad():
        expected = functional.cross_entropy(model(input_ids=tokens).logits, KINDS, reduction="none")
    assert are_of(frame_of(tmp_path), KINDS.tolist(), expected)
