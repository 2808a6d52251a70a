"""Numbers that are not what they are said to be, and inputs and outputs of kinds that no map is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from xaicli.errors import XaiError
from xaicli.heads.decision import head_of

FAST: dict[str, Any] = {"methods": "gradient", "precision": "fp32"}


class Given(nn.Module):
    """It answers with its input, times one: an operation that says nothing of what the numbers are."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


WRONG = {
    "outside": [[0.2, 1.3], [0.5, 0.5]],
    "below": [[-0.2, 1.2], [0.5, 0.5]],
    "sum": [[0.9, 0.9], [0.5, 0.5]],
    "none": [[0.1, 0.1], [0.5, 0.5]],
}


@pytest.mark.parametrize("kind", WRONG)
def test_saliency_and_collectors_refuse_the_same_numbers(kind: str, tmp_path: Path) -> None:
    values = torch.tensor(WRONG[kind])
    said = "sums from|runs from"
    with pytest.raises(XaiError, match=said):
        xaicli.saliency(Given(), values, task="classification:probabilities", **FAST)
    table = xaicli.Table.from_arrays(values.numpy(), np.array([0, 1]))
    collector = xaicli.ClassificationMetricsCollector(task="classification:probabilities")
    with xaicli.Run(tmp_path / "run") as run, pytest.raises(XaiError, match=said):
        xaicli.collect_metrics(table, collector, Given(), run=run)


def test_numbers_that_are_probabilities_pass_whatever_their_neighbours_are() -> None:
    values = torch.tensor([[0.25, 0.75], [float("nan"), 3.0], [0.498, 0.5]])
    head = head_of(Given(), values, task="classification:probabilities")
    head.refuse_no_probabilities(values)
    assert head.predictions(values).tolist() == [1, -1, 1]
    each = head_of(nn.Sigmoid(), values, task="classification:probabilities")
    each.refuse_no_probabilities(torch.tensor([[0.9, 0.8]]))  # each its own probability: no sum is promised
    logs = head_of(Given(), values, task="classification:log-probabilities")
    logs.refuse_no_probabilities(torch.tensor([[0.25, 0.75]]).log())
    with pytest.raises(XaiError, match="runs from"):
        logs.refuse_no_probabilities(torch.tensor([[1.0, 2.0]]))
    masks = torch.rand(2, 3, 4, 4).softmax(1)
    places = head_of(Given(), masks, task="segmentation:probabilities")
    places.refuse_no_probabilities(masks)
    with pytest.raises(XaiError, match="sums from"):
        places.refuse_no_probabilities(masks / 2)


def test_one_number_under_classification_is_said_to_be_yes_or_no() -> None:
    model = nn.Linear(4, 1)
    head = head_of(model, torch.rand(2, 4), task="classification")
    assert head.decided.startswith("read as binary, one number, the logit of class 1")
    assert "it gives one number a sample, so that classification (--task or task= says so) is yes or no" in head.decided
    found = xaicli.saliency(model, torch.rand(2, 4), task="classification", **FAST)
    assert any("read as the logit of class 1" in note for note in found.saliency.notes)
    with pytest.raises(XaiError, match="that of no logit"):
        head_of(nn.Sequential(model, nn.Tanh()), torch.rand(2, 4), task="classification")
    assert head_of(nn.Sequential(model, nn.Tanh()), torch.rand(2, 4), task="binary:logits").single


class Phases(nn.Module):
    def __init__(self, *, real: bool) -> None:
        super().__init__()
        self.out, self.real = nn.Linear(4, 3), real

    def forward(self, x: Tensor) -> Any:
        found = torch.fft.fft(self.out(x))
        return found.abs() if self.real else found


def test_complex_numbers_are_refused_by_name() -> None:
    x = torch.rand(2, 4)
    model = Phases(real=True)
    point = x.clone().requires_grad_()
    found = xaicli.saliency(model, x, task="classification:logits", **FAST)
    assert np.allclose(
        found.attributions["gradient"], torch.autograd.grad(model(point).amax(1).sum(), point)[0], atol=1e-5
    )
    with pytest.raises(XaiError, match="output is complex") as told:
        xaicli.saliency(Phases(real=False), x, task="classification", **FAST)
    assert "out.abs()" in told.value.hint

    class Both(nn.Module):
        def forward(self, x: Tensor, k: Tensor) -> Tensor:
            return x + k.abs()

    for k in (torch.fft.fft(x), torch.fft.fft(x).numpy()):
        with pytest.raises(XaiError, match="the input 'k' is complex") as told:
            xaicli.saliency(Both(), {"x": x, "k": k}, task="classification", **FAST)
    assert "view_as_real" in told.value.hint


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(20, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        return self.out(self.bag(ids, offsets))


@pytest.mark.parametrize("n", [7, 3])
def test_bags_with_offsets_are_refused_by_name_and_rows_of_ids_are_not(n: int) -> None:
    model = Bags()
    inputs = {"ids": torch.arange(n), "offsets": torch.tensor([0, 1, 2])}
    for given in (inputs, list(inputs.values())):
        with pytest.raises(XaiError, match=r"bags of ids in one row with their offsets") as told:
            xaicli.saliency(model, given, **FAST)
    assert "(sample, length)" in told.value.hint
    rows = torch.randint(0, 20, (3, 5))
    found = xaicli.saliency(model, rows, **FAST)
    assert found.predictions.tolist() == model(rows).argmax(1).tolist()
    assert found.attributions["gradient"].shape == (3, 5, 4)


class Spans(nn.Module):
    """Where an answer starts and where it ends, as models of extractive question answering say it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.words, self.last, self.form = nn.Embedding(20, 6), nn.Linear(6, 2), form

    def forward(self, ids: Tensor) -> Any:
        start, end = self.last(self.words(ids).tanh()).unbind(-1)
        names = {"dict": ("start_logits", "end_logits"), "inside": ("qa.start_logits", "qa.end_logits")}
        return dict(zip(names[self.form], (start, end), strict=True))


@pytest.mark.parametrize("form", ["dict", "inside"])
def test_places_of_an_answer_are_no_classes(form: str) -> None:
    model, ids = Spans(form), torch.arange(12).reshape(2, 6)
    start = "start_logits" if form == "dict" else "qa.start_logits"
    for output in (None, start):
        with pytest.raises(XaiError, match="where in the text an answer starts") as error:
            xaicli.saliency(model, ids, output=output, **FAST)
    assert f"target=lambda out: out['{start}'].max(1).values" in error.value.hint
    words = model.words(ids).detach().requires_grad_()
    scores = model.last(words.tanh())[..., 0]
    # Both ways that the hint names, against autograd.
    best = xaicli.saliency(model, ids, target=lambda out: out[start].max(1).values, **FAST)
    (by_hand,) = torch.autograd.grad(scores.max(1).values.sum(), words, retain_graph=True)
    np.testing.assert_allclose(best.attributions["gradient"], by_hand, atol=1e-6)
    place = xaicli.saliency(model, ids, output=start, task="regression", target=4, **FAST)
    (by_hand,) = torch.autograd.grad(scores[:, 4].sum(), words)
    np.testing.assert_allclose(place.attributions["gradient"], by_hand, atol=1e-6)


def test_question_answering_of_transformers_without_names_is_known_by_its_class() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.BertForQuestionAnswering(config)
    for names in (True, False):
        model.config.return_dict = names
        with pytest.raises(XaiError, match="where in the text an answer starts"):
            xaicli.saliency(model, {"input_ids": torch.arange(12).reshape(2, 6)}, **FAST)
