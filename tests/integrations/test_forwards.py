"""What the forward of a model of one's own gives its criterion says labels, places and task."""

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

import xaicli
from tests.integrations.trainers import said_by_xai

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

N, LENGTH, WORDS = 8, 6, 20
TOKENS = torch.randint(1, WORDS, (N, LENGTH), generator=torch.Generator().manual_seed(0))
KINDS = torch.tensor([i % 3 for i in range(N)])
BITS = torch.tensor([float(i % 2) for i in range(N)])
SETS = torch.tensor([[float(i % 2), float(i % 3 == 0), 1.0] for i in range(N)])
SHORT = torch.tensor([[place <= 2 + i % 3 for place in range(LENGTH)] for i in range(N)])
"""The places of each text that hold something."""
TAGS = torch.where(SHORT, TOKENS % 3 + 1, 0)

Answers = Callable[[torch.Tensor], torch.Tensor]
Criterion = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Answers by itself, and computes its loss where it is given labels."""

    def __init__(self, wide: int, answers: Answers, criterion: Criterion, named: str = "logits") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, wide)
        self.answers, self.criterion, self.named = answers, criterion, named

    def forward(self, input_ids: torch.Tensor, labels: Any = None, mask: Any = None) -> dict[str, torch.Tensor]:
        answers = self.answers(self.head(self.words(input_ids)))
        loss = {} if labels is None else {"loss": self.criterion(answers, labels, mask)}
        return {**loss, self.named: answers}


class ByLoss(transformers.Trainer):  # type: ignore[misc, name-defined]
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.model.criterion(outputs[self.model.named], labels, inputs.get("mask"))
        return (loss, outputs) if return_outputs else loss


def evaluated(folder: Path, net: Net, labels: torch.Tensor, where: str) -> tuple[pl.DataFrame, list[str]]:
    """The rows of an evaluation by sample, and what xai said; nothing is trained."""
    from xaicli.integrations.transformers import XaiCallback

    data = [{"sample_id": 100 + i, "input_ids": TOKENS[i], "labels": labels[i], "mask": SHORT[i]} for i in range(N)]
    arguments = transformers.TrainingArguments(
        str(folder / "out"), per_device_eval_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True,
        **({"label_names": []} if where == "alone" else {}),
    )  # fmt: skip
    callback = XaiCallback(folder / "run", save_checkpoint=False)
    made = ByLoss if where == "loss" else transformers.Trainer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made(model=net, args=arguments, eval_dataset=data, callbacks=[callback]).evaluate()
    found = folder / "run" / "data"
    rows = pl.read_parquet(found).sort("sample_id") if found.exists() else pl.DataFrame()
    return rows, [one for one in said_by_xai(caught) if "every sequence" not in one]


def logits_of(net: Net) -> torch.Tensor:
    """What the last layer answers, in double precision."""
    with torch.no_grad():
        return net.head(net.words(TOKENS)).double()  # type: ignore[no-any-return]


def mean(scores: torch.Tensor) -> torch.Tensor:
    return scores.mean(1)


def nll(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return logits.logsumexp(-1) - logits.gather(-1, label[..., None])[..., 0]


def bce(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return functional.softplus(logits) - label * logits


EVERYWHERE = pytest.mark.parametrize("where", ["forward", "loss", "alone"])


@EVERYWHERE
@pytest.mark.parametrize("way", ["shifted", "shifted as pictures", "ignored", "picked"])
def test_places_that_a_criterion_is_given_count(tmp_path: Path, way: str, where: str) -> None:
    def criterion(scores: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if way == "shifted":
            return functional.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        if way == "shifted as pictures":
            return functional.cross_entropy(scores[:, :-1].transpose(1, 2), labels[:, 1:])
        if way == "ignored":
            return functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=0)
        return functional.cross_entropy(scores[mask], labels[mask])

    is_shifted = way.startswith("shifted")
    net = Net(WORDS if is_shifted else 4, lambda scores: scores, criterion)
    labels = TOKENS if is_shifted else TAGS
    rows, said = evaluated(tmp_path, net, labels, where)
    each, counts = nll(logits_of(net), labels), SHORT
    if is_shifted:
        each, counts = nll(logits_of(net)[:, :-1], TOKENS[:, 1:]), torch.ones(N, LENGTH - 1).bool()
    assert said == []
    assert rows["sample_id"].to_list() == [100 + i for i in range(N)]
    assert rows["n_tokens"].to_list() == counts.sum(1).tolist()
    assert rows["loss"].to_list() == pytest.approx(((each * counts).sum(1) / counts.sum(1)).tolist(), abs=1e-5)
    worst = each.masked_fill(~counts, -1).argmax(1) + int(is_shifted)
    assert rows["worst_token"].to_list() == worst.tolist()


@EVERYWHERE
@pytest.mark.parametrize("way", ["part", "mapped"])
def test_classes_that_a_criterion_is_given_are_those_of_the_rows(tmp_path: Path, way: str, where: str) -> None:
    def criterion(scores: torch.Tensor, labels: torch.Tensor, _mask: Any) -> torch.Tensor:
        if way == "part":
            return functional.cross_entropy(scores[:, 1:4], labels) + scores[:, 4:].square().mean()
        return functional.cross_entropy(scores, labels - 1)

    net = Net(5 if way == "part" else 3, mean, criterion)
    rows, said = evaluated(tmp_path, net, KINDS if way == "part" else KINDS + 1, where)
    logits = mean(logits_of(net))[:, 1:4] if way == "part" else mean(logits_of(net))
    assert said == []
    assert rows["label"].to_list() == KINDS.tolist()
    assert rows["prediction"].to_list() == logits.argmax(1).tolist()
    assert rows["loss"].to_list() == pytest.approx(nll(logits, KINDS).tolist(), abs=1e-5)


@EVERYWHERE
@pytest.mark.parametrize("criterion", [functional.mse_loss, functional.l1_loss, nn.MSELoss()])
def test_zeros_and_ones_are_numbers_where_a_criterion_takes_them_so(tmp_path: Path, criterion: Any, where: str) -> None:
    net = Net(1, lambda scores: mean(scores)[:, 0], lambda scores, labels, _mask: criterion(scores, labels))
    rows, said = evaluated(tmp_path, net, BITS, where)
    expected = mean(logits_of(net))[:, 0]
    assert said == []
    assert rows["prediction"].to_list() == pytest.approx(expected.tolist(), abs=1e-6)
    assert rows["loss"].to_list() == pytest.approx((expected - BITS).square().tolist(), abs=1e-6)


@EVERYWHERE
@pytest.mark.parametrize("way", ["one", "column", "sets", "classes", "named", "places"])
def test_probabilities_are_no_logits(tmp_path: Path, way: str, where: str) -> None:
    """The model's last step is a sigmoid or a softmax, and its criterion takes what that gives."""

    def answers(scores: torch.Tensor) -> torch.Tensor:
        if way == "places":
            return scores.softmax(2)
        pooled = mean(scores)[:, 0] if way == "one" else mean(scores)
        return pooled.softmax(1) if way in ("classes", "named") else pooled.sigmoid()

    def criterion(found: torch.Tensor, labels: torch.Tensor, _mask: Any) -> torch.Tensor:
        if way == "places":
            return functional.nll_loss(found.log().transpose(1, 2), labels)
        if way in ("classes", "named"):
            return functional.nll_loss(found.log(), labels)
        return functional.binary_cross_entropy(found, labels[:, None] if way == "column" else labels)

    labels = {"sets": SETS, "classes": KINDS, "named": KINDS, "places": TAGS}.get(way, BITS)
    wide = {"one": 1, "column": 1, "places": 4}.get(way, 3)
    net = Net(wide, answers, criterion, "probs" if way == "named" else "logits")
    rows, said = evaluated(tmp_path, net, labels, where)
    logits = logits_of(net) if way == "places" else mean(logits_of(net))
    assert said == []
    if way == "places":
        expected = nll(logits, TAGS).mean(1)
    elif way in ("classes", "named"):
        expected = nll(logits, KINDS)
        assert rows["prediction"].to_list() == logits.argmax(1).tolist()
    elif way == "sets":
        expected = bce(logits, SETS).mean(1)
        assert rows["prediction"].to_list() == [(one > 0).nonzero()[:, 0].tolist() for one in logits]
    else:
        expected = bce(logits[:, 0], BITS)
        assert rows["prediction"].to_list() == (logits[:, 0] > 0).long().tolist()
        assert rows["label"].to_list() == BITS.long().tolist()
    assert rows["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


@EVERYWHERE
@pytest.mark.parametrize("turned", [0, 1], ids=["own place", "next place"])
def test_samples_compared_with_one_another_are_no_classes(tmp_path: Path, where: str, turned: int) -> None:
    def criterion(found: torch.Tensor, _labels: Any, _mask: Any) -> torch.Tensor:
        close = found @ found.T * 5 - 100 * turned * torch.eye(len(found))
        return functional.cross_entropy(close, (torch.arange(len(found)) + turned) % len(found))

    net = Net(5, lambda scores: functional.normalize(mean(scores)), criterion)
    rows, said = evaluated(tmp_path, net, KINDS, where)
    assert rows.is_empty()
    assert xaicli.open_run(tmp_path / "run").reader().counts().dropped == N
    assert ["compares the samples of a batch with one another" in one for one in said] == [True]


@pytest.mark.parametrize("where", ["last", "words", "own place"])
@pytest.mark.parametrize("causal", [True, False])
def test_what_a_loss_takes_of_the_places_of_a_text_is_recorded(tmp_path: Path, causal: bool, where: str) -> None:
    """A model of texts that classifies by the words it gives at a place."""
    from xaicli.integrations.transformers import XaiCallback

    torch.manual_seed(0)
    words = torch.tensor([7, 9, 11])
    size = {"vocab_size": WORDS, "pad_token_id": 0}
    if causal:
        config = transformers.GPT2Config(
            **size, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
        model = transformers.GPT2LMHeadModel(config).eval()
    else:
        config = transformers.BertConfig(
            **size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        model = transformers.BertForMaskedLM(config).eval()

    def chosen(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if where == "last":
            return logits[:, -1]
        return (
            logits[:, -1, words] if where == "words" else logits[torch.arange(len(ids)), ids[:, 0] % LENGTH][:, words]
        )

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = functional.cross_entropy(chosen(outputs.logits, inputs["input_ids"]), labels)
            return (loss, outputs) if return_outputs else loss

    data = [{"sample_id": i, "input_ids": TOKENS[i], "labels": KINDS[i]} for i in range(N)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), per_device_eval_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
    )
    callback = XaiCallback(tmp_path / "run", save_checkpoint=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Own(model=model, args=arguments, eval_dataset=data, callbacks=[callback]).evaluate()
    rows = pl.read_parquet(tmp_path / "run" / "data").sort("sample_id")
    with torch.no_grad():
        logits = chosen(model(input_ids=TOKENS).logits, TOKENS).double()
    assert said_by_xai(caught) == []
    assert rows["label"].to_list() == KINDS.tolist()
    assert rows["prediction"].to_list() == logits.argmax(1).tolist()
    assert rows["loss"].to_list() == pytest.approx(nll(logits, KINDS).tolist(), abs=1e-5)
