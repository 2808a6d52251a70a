"""What outputs mean: every task and every way to end a model, against probabilities computed by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicli.checkpoint.facts import CheckpointFacts
from xaicli.errors import XaiError
from xaicli.heads.decision import Known, decide, head_of, known_of
from xaicli.heads.head import Head, Task, Values
from xaicli.heads.labels import Kind, kind_of
from xaicli.heads.operations import Range, watching

CLASSES = torch.tensor([0, 2, 1, 2])


class Net(nn.Module):
    """A linear layer and what comes after it."""

    def __init__(self, outputs: int, last: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear, self.last = nn.Linear(4, outputs), last

    def forward(self, x: Tensor) -> Any:
        return self.last(self.linear(x))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) * 2


def by_hand(y: Tensor) -> Tensor:
    e = y.exp()
    return e / e.sum(1, keepdim=True)


ENDS: dict[str, tuple[Callable[[Tensor], Any], Values]] = {
    "linear": (lambda y: y, Values.LOGITS),
    "temperature": (lambda y: y / 1.0, Values.LOGITS),
    "a learnt scale": (lambda y: nn.Parameter(torch.zeros(())).exp() * y, Values.LOGITS),
    "softmax": (lambda y: y.softmax(1), Values.PROBABILITIES),
    "log-softmax": (lambda y: y.log_softmax(-1), Values.LOG_PROBABILITIES),
    "logarithm of softmax": (lambda y: y.softmax(1).log(), Values.LOG_PROBABILITIES),
    "exponential of log-softmax": (lambda y: y.log_softmax(1).exp(), Values.PROBABILITIES),
    "softmax by hand": (by_hand, Values.PROBABILITIES),
    "mean of an ensemble": (lambda y: torch.stack([y.softmax(1)] * 3).mean(0), Values.PROBABILITIES),
    "a view of softmax": (lambda y: y.softmax(1)[:, None].transpose(1, 2).flatten(1), Values.PROBABILITIES),
    "clipped softmax": (lambda y: y.softmax(1).clamp(1e-12, 1), Values.PROBABILITIES),
    "loss beside": (lambda y: (y.mean(), y), Values.LOGITS),
    "a loss of each sample beside": (lambda y: (y.mean(1), y), Values.LOGITS),
    "features beside": (lambda y: {"features": y @ torch.rand(3, 9), "preds": y.softmax(1)}, Values.PROBABILITIES),
    "one by one pictures": (lambda y: y[:, :, None, None], Values.LOGITS),
}


@pytest.mark.parametrize("end", ENDS)
def test_classes_are_read_alike_however_the_model_ends(end: str, x: Tensor) -> None:
    last, values = ENDS[end]
    truth = Net(3)(x).softmax(1)
    model = Net(3, last)
    head = head_of(model, x)
    assert (head.task, head.values, head.classes) == (Task.CLASSIFICATION, values, 3), head.decided
    numbers = head.tensor(model(x))
    torch.testing.assert_close(head.probabilities(numbers), truth)
    torch.testing.assert_close(head.logits(numbers).softmax(1), truth)
    assert head.predictions(numbers).tolist() == truth.argmax(1).tolist()
    torch.testing.assert_close(head.top_prob(numbers), truth.amax(1))
    torch.testing.assert_close(head.label_prob(numbers, CLASSES), truth[torch.arange(4), CLASSES])
    assert model.training  # as it was


@pytest.mark.parametrize(
    ("last", "values"),
    [
        (lambda y: y, Values.LOGITS),
        (torch.sigmoid, Values.PROBABILITIES),
        (nn.functional.logsigmoid, Values.LOG_PROBABILITIES),
    ],
    ids=["logit", "sigmoid", "log-sigmoid"],
)
def test_one_number_for_yes_and_no(last: Callable[[Tensor], Tensor], values: Values, x: Tensor) -> None:
    labels = torch.tensor([0, 1, 1, 0])
    yes = torch.sigmoid(Net(1)(x)[:, 0])
    for shape in (lambda y: y, lambda y: y[:, 0]):
        model = Net(1, lambda y, shape=shape: shape(last(y)))
        head = head_of(model, x, labels=labels)
        assert (head.task, head.values, head.classes, head.single) == (Task.BINARY, values, 2, True)
        numbers = head.tensor(model(x))
        torch.testing.assert_close(head.probabilities(numbers), torch.stack([1 - yes, yes], 1))
        assert head.predictions(numbers).tolist() == (yes > 0.5).long().tolist()
        torch.testing.assert_close(head.label_prob(numbers, labels), torch.where(labels == 1, yes, 1 - yes))
        torch.testing.assert_close(head.top_prob(numbers), torch.maximum(yes, 1 - yes))
        own = last(Net(1)(x))[:, 0]
        torch.testing.assert_close(head.scalar(numbers, labels), torch.where(labels == 1, own, -own))


def test_a_logit_stays_one_behind_a_norm_a_scale_and_quantisation(x: Tensor) -> None:
    normed = nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1)).eval()
    for model in (normed, Net(1, lambda y: 3 * y - 1), nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(1))):
        for labels in ([0, 1, 1, 0], ["no", "yes", "yes", "no"]):
            head = head_of(model, x, labels=labels)
            assert (head.task, head.values) == (Task.BINARY, Values.LOGITS), head.decided


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_what_a_criterion_does_with_a_softmax_leaves_it_one(mode: Any, x: Tensor) -> None:
    """`F.mse_loss` broadcasts its arguments first; in inference mode that gives the very tensors back."""
    with mode(), watching() as origin:
        scores = x.softmax(1)
        functional.mse_loss(scores, torch.zeros_like(scores))
        wide, other = torch.broadcast_tensors(scores[:1].log(), x)
    assert (found := origin(scores)) is not None
    assert (found.range, found.axis) == (Range.DISTRIBUTION, -1)
    assert (found := origin(wide)) is not None
    assert (found.range, found.axis) == (Range.LOG_DISTRIBUTION, -1)
    assert origin(other) is None or origin(other).range is Range.REAL  # type: ignore[union-attr]


def test_a_part_of_a_softmax_is_a_probability(x: Tensor) -> None:
    head = head_of(Net(2, lambda y: y.softmax(1)[:, 1]), x)
    assert (head.task, head.values, head.single) == (Task.BINARY, Values.PROBABILITIES, True)
    pooled = head_of(Net(3, lambda y: torch.stack([y.softmax(1), y.flip(1).softmax(1)]).amax(0)), x, labels=CLASSES)
    assert (pooled.values, pooled.independent) == (Values.PROBABILITIES, True)
    masked = head_of(Net(3, lambda y: torch.where(y > -9, y.sigmoid(), 0.0)), x)
    assert (masked.task, masked.values) == (Task.MULTILABEL, Values.PROBABILITIES)
    beside = head_of(Net(1, lambda y: torch.cat([1 - y.sigmoid(), y.sigmoid()], 1)), x, labels=[0, 1, 0, 1])
    assert (beside.task, beside.values) == (Task.CLASSIFICATION, Values.PROBABILITIES)


def test_scores_that_say_nothing_predict_no_class() -> None:
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor([[inf, inf, 0.0], [-inf, -inf, -inf], [nan, 1, 0], [0, inf, 1], [-inf, 2, -inf], [1, 1, 0]])
    right = [-1, -1, -1, 1, 1, 0]
    classes = Head(Task.CLASSIFICATION, Values.LOGITS, 3)
    assert classes.predictions(logits).tolist() == right
    places = torch.stack([logits, logits.flip(0)], 2)
    assert classes.place_predictions(places).T.tolist() == [right, right[::-1]]
    probs = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    assert Head(Task.CLASSIFICATION, Values.PROBABILITIES, 2).predictions(probs).tolist() == [-1, 0, 1]
    assert Head(Task.CLASSIFICATION, Values.LOGITS, 3).predictions(probs).tolist() == [0, 0, 1]


@pytest.mark.parametrize("last", [torch.tanh, torch.relu, torch.exp, lambda y: 10 * torch.sigmoid(y), lambda y: y])
def test_one_number_that_could_be_anything_is_asked_for(last: Callable[[Tensor], Tensor], x: Tensor) -> None:
    for rows in (x, x[:1], torch.cat([x, x * 10])):
        with pytest.raises(XaiError) as caught:
            head_of(Net(1, last), rows)
        assert "task" in caught.value.hint
    value = head_of(Net(1, last), x, task="regression")
    assert (value.task, value.values) == (Task.REGRESSION, Values.VALUE)
    numbers = value.tensor(Net(1, last)(x))
    torch.testing.assert_close(value.predictions(numbers), last(Net(1)(x))[:, 0])
    torch.testing.assert_close(value.scalar(numbers, value.targets(numbers)), last(Net(1)(x))[:, 0])
    assert value.label_prob(numbers, torch.ones(4)).isnan().all()
    assert value.top_prob(numbers).isnan().all()


def test_what_cannot_be_logits_is_asked_for(x: Tensor) -> None:
    for last in (
        torch.exp,
        lambda y: y.clamp(0, 1),
        lambda y: y.softmax(1) ** 2,
        lambda y: y.sigmoid() / y.sigmoid().norm(dim=1, keepdim=True),
        lambda y: 2 * y.softmax(1),
    ):
        with pytest.raises(XaiError, match="logits or probabilities"):
            head_of(Net(3, last), x, labels=CLASSES)
        said = head_of(Net(3, last), x, task="classification:probabilities")
        assert said.values is Values.PROBABILITIES
    with pytest.raises(XaiError, match="could not be traced"):
        decide(torch.rand(4, 3))


def test_several_sigmoids_are_several_labels(x: Tensor) -> None:
    own = torch.sigmoid(Net(3)(x))
    sets = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    models = {"sigmoid": (Net(3, torch.sigmoid), None), "said": (Net(3), "multilabel")}
    for model, task in models.values():
        head = head_of(model, x, task=task, labels=None if task else sets)
        assert head.task is Task.MULTILABEL
        numbers = head.tensor(model(x))
        torch.testing.assert_close(head.probabilities(numbers), own)
        torch.testing.assert_close(head.top_prob(numbers), own.amax(1))
        assert head.sets(numbers).equal(own > 0.5)
        assert head.predictions(numbers).tolist() == own.argmax(1).tolist()
        each = torch.where(sets == 1, own, 1 - own)
        torch.testing.assert_close(head.label_prob(numbers, sets), each.prod(1) ** (1 / 3))
    of_classes = head_of(Net(3, torch.sigmoid), x, labels=CLASSES)
    assert (of_classes.task, of_classes.independent) == (Task.CLASSIFICATION, True)
    assert "each for itself, so that they need not sum to one" in of_classes.decided
    for last in (torch.sigmoid, lambda y: y.softmax(1)[:, 1:]):
        said = head_of(Net(3, last), x, task="classification")
        assert "each for itself, so that they need not sum to one" in said.decided
        said.refuse_no_probabilities(Net(3, last)(x))
    whole = head_of(Net(3, lambda y: y.softmax(1)), x, task="classification")
    assert "each for itself" not in whole.decided
    with pytest.raises(XaiError, match="one class of them, or any number"):
        head_of(Net(3), x, labels=torch.eye(3)[CLASSES])


def test_real_labels_make_values_of_numbers(x: Tensor) -> None:
    assert head_of(Net(1), x, labels=[2.7, 0.3, 1.1, -2.0]).task is Task.REGRESSION
    assert head_of(Net(1), x, labels=[4, 1, 7, 2]).task is Task.REGRESSION
    several = head_of(Net(2), x, labels=torch.randn(4, 2) * 3, task="regression")
    assert (several.task, several.classes) == (Task.REGRESSION, 2)
    with pytest.raises(XaiError, match="2 values"):
        several.targets(several.tensor(Net(2)(x)))
    with pytest.raises(XaiError, match="yes or no, or a value"):
        head_of(Net(1), x, labels=[1.0, 0.0, 1.0, 1.0])


def test_a_broken_sample_is_alone(x: Tensor) -> None:
    for end, task in (("softmax", None), ("linear", None), ("sigmoid", "binary")):
        last = {"softmax": lambda y: y.softmax(1), "linear": lambda y: y, "sigmoid": torch.sigmoid}[end]
        model = Net(1 if task else 3, last)
        broken = x.clone()
        broken[3] = torch.nan
        clean, beside = head_of(model, x, task=task), head_of(model, broken, task=task)
        assert clean == beside
        a, b = clean.tensor(model(x)), clean.tensor(model(broken))
        for figure in (clean.probabilities, clean.top_prob, clean.predictions):
            torch.testing.assert_close(figure(a)[:3], figure(b)[:3], rtol=0, atol=0)
        assert clean.predictions(b)[3] == -1
        assert clean.top_prob(b)[3].isnan()
        assert clean.targets(b)[3] == 0


class Segmenter(nn.Module):
    def __init__(self, classes: int, last: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(3, classes, 1), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x))


def test_pictures_of_classes() -> None:
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    truth = Segmenter(4)(x).softmax(1)
    for last in (lambda y: y, lambda y: y.softmax(1), lambda y: y.log_softmax(1), lambda y: y.permute(0, 2, 3, 1)):
        model = Segmenter(4, last)
        head = head_of(model, x, task=None if "softmax" in str(model(x).grad_fn).lower() else "segmentation")
        assert (head.task, head.classes) == (Task.SEGMENTATION, 4)
        numbers = head.tensor(model(x))
        torch.testing.assert_close(head.at_places(numbers), truth)
        torch.testing.assert_close(head.probabilities(numbers), truth.mean((2, 3)))
        assert head.place_predictions(numbers).equal(truth.argmax(1))
        assert head.predictions(numbers).tolist() == truth.mean((2, 3)).argmax(1).tolist()
    plain = head_of(Segmenter(4), x, task="segmentation")
    numbers = plain.tensor(Segmenter(4)(x))
    torch.testing.assert_close(
        plain.scalar(numbers, torch.tensor([2, 0])), torch.stack([numbers[0, 2].mean(), numbers[1, 0].mean()])
    )
    void = torch.zeros(2, 5, 6, dtype=torch.bool)
    void[:, 2:4] = True
    torch.testing.assert_close(plain.probabilities(numbers, void), truth[:, :, 2:4].mean((2, 3)))
    masks = torch.randint(0, 4, (2, 5, 6))
    each = truth.gather(1, masks[:, None])[:, 0].flatten(1)
    torch.testing.assert_close(plain.label_prob(numbers, masks), each.log().mean(1).exp())


def test_pictures_of_yes_and_no() -> None:
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    masks = (x[:, 0] > 0).long()
    p = Segmenter(1)(x).sigmoid()[:, 0]
    for last in (lambda y: y, torch.sigmoid, lambda y: y[:, 0], lambda y: torch.sigmoid(y[:, 0])):
        model = Segmenter(1, last)
        head = head_of(model, x, labels=masks)
        assert (head.task, head.single, head.classes) == (Task.SEGMENTATION, True, 2)
        torch.testing.assert_close(head.at_places(head.tensor(model(x)))[:, 1], p)
        assert head.place_predictions(head.tensor(model(x))).equal((p > 0.5).long())


def test_a_class_at_every_place_of_a_text() -> None:
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1))
    model = Net(3)
    head = head_of(model, x, task="token_classification")
    assert (head.task, head.classes) == (Task.TOKEN_CLASSIFICATION, 3)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    p = model(x).softmax(-1)
    numbers = head.tensor(model(x))
    torch.testing.assert_close(head.probabilities(numbers, valid), torch.stack([p[0].mean(0), p[1, :4].mean(0)]))
    torch.testing.assert_close(head.scalar(numbers, torch.tensor([1, 2]), valid)[1], model(x)[1, :4, 2].mean())
    at = head.scalar(numbers, torch.tensor([1, 2]), place=torch.tensor([6, 0]))
    torch.testing.assert_close(at, torch.stack([model(x)[0, 6, 1], model(x)[1, 0, 2]]))
    labels = torch.tensor([[0, 1, 2, 0, 1, 2, 0], [1, 1, 1, 1, -100, -100, -100]])
    second = p[1, range(4), labels[1, :4]].log().mean().exp()
    torch.testing.assert_close(head.label_prob(numbers, labels)[1], second)
    signal = head_of(
        nn.Conv1d(4, 3, 1), x.transpose(1, 2), task="token_classification"
    )  # a convolution has its classes in front
    assert signal.tensor(torch.rand(2, 3, 7)).shape == (2, 3, 7)
    padded = x.clone()
    padded[1, 4:] = torch.nan
    torch.testing.assert_close(
        head.probabilities(head.tensor(model(padded)), valid), head.probabilities(numbers, valid)
    )


@dataclass(frozen=True)
class Facts:
    label_names: tuple[str, ...] | None = None
    task: str | None = None


def test_classes_at_places_are_told_by_something_or_asked_for() -> None:
    """Scores of classes, a picture made of a picture and a forecast all have the same shape."""
    x, signal = torch.randn(2, 3, 5, 6), torch.randn(2, 7, 4)
    picture, text = Segmenter(4), Net(3)
    for model, inputs, named in (
        (picture, x, "segmentation or regression"),
        (Segmenter(3, torch.sigmoid), x, "segmentation or regression"),
        (text, signal, "token_classification, sequence or regression"),
    ):
        with pytest.raises(XaiError, match="cannot be told") as said:
            head_of(model, inputs)
        assert named in said.value.hint
    names = Facts(("a", "b", "c", "d"))
    assert head_of(picture, x, facts=names).task is Task.SEGMENTATION
    assert "as many as the checkpoint's label names" in head_of(picture, x, facts=names).decided
    assert head_of(text, signal, facts=Facts(("a", "b", "c"))).task is Task.TOKEN_CLASSIFICATION
    with pytest.raises(XaiError, match="cannot be told"):
        head_of(picture, x, facts=Facts(("a", "b")))
    assert head_of(picture, x, facts=Facts(task="segmentation")).task is Task.SEGMENTATION
    assert head_of(picture, x, facts=Facts(task="sequence")).task is Task.SEGMENTATION  # recorded pixel by pixel
    assert head_of(text, signal, facts=Facts(task="sequence")).task is Task.SEQUENCE
    assert head_of(text, signal, task="regression").task is Task.REGRESSION
    assert head_of(picture, x, labels=torch.zeros(2, 5, 6, dtype=torch.long)).task is Task.SEGMENTATION
    assert head_of(Segmenter(4, lambda y: y.softmax(1)), x).task is Task.SEGMENTATION
    assert head_of(Segmenter(1, torch.sigmoid), x).task is Task.SEGMENTATION
    # One number a class and sample although two axes of length one are left.
    assert head_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1)), x).task is Task.CLASSIFICATION


def test_a_model_of_a_library_of_segmentation_is_known_by_its_class() -> None:
    base = type("_SimpleSegmentationModel", (nn.Module,), {"__module__": "torchvision.models.segmentation._utils"})

    class Fcn(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Conv2d(3, 5, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.classifier(x), "aux": self.classifier(x)}

    head = head_of(Fcn(), torch.rand(2, 3, 4, 4))
    assert (head.task, head.classes, head.where) == (Task.SEGMENTATION, 5, "out")
    assert "a Fcn is made for it" in head.decided


def test_traced_scripted_and_exported_models(x: Tensor) -> None:
    plain = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).eval()
    ids = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3), nn.LogSoftmax(1)).requires_grad_(False)
    models = {
        "exported": torch.export.export(plain, (x,)).module(),
        "traced": torch.jit.trace(plain, x),
        "scripted": torch.jit.script(plain),
        "compiled": torch.compile(plain, backend="eager"),
    }
    for name, model in models.items():
        assert head_of(model, x).values is Values.PROBABILITIES, name
    # Whole numbers in and frozen weights: there is no gradient to follow, and none is needed.
    assert head_of(ids, torch.tensor([[1, 2], [3, 4]])).values is Values.LOG_PROBABILITIES


class TestConfigurations:
    def bert(self, kind: str, **config: Any) -> nn.Module:
        transformers = pytest.importorskip("transformers")
        small = transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, **config
        )
        model: nn.Module = getattr(transformers, f"BertFor{kind}")(small).eval()
        return model

    @pytest.mark.parametrize(
        ("kind", "config", "task"),
        [
            ("SequenceClassification", {"num_labels": 3}, Task.CLASSIFICATION),
            ("SequenceClassification", {"num_labels": 1}, Task.REGRESSION),
            (
                "SequenceClassification",
                {"num_labels": 3, "problem_type": "multi_label_classification"},
                Task.MULTILABEL,
            ),
            ("SequenceClassification", {"num_labels": 2, "problem_type": "regression"}, Task.REGRESSION),
            ("TokenClassification", {"num_labels": 5}, Task.TOKEN_CLASSIFICATION),
            ("MaskedLM", {}, Task.SEQUENCE),
        ],
    )
    def test_of_transformers(self, kind: str, config: dict[str, Any], task: Task) -> None:
        model = self.bert(kind, **config)
        ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
        head = head_of(model, input_ids=ids)
        assert (head.task, head.where) == (task, "logits"), head.decided
        assert "the configuration of BertFor" in head.decided
        assert head.values is (Values.VALUE if task is Task.REGRESSION else Values.LOGITS)
        assert known_of(nn.DataParallel(model)).task is task

    def test_an_own_head_on_a_configured_model_is_seen(self) -> None:
        class Own(nn.Module):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.model = model

            def forward(self, ids: Tensor) -> Tensor:
                return self.model(ids).logits.softmax(-1)

        head = head_of(Own(self.bert("SequenceClassification", num_labels=3)), torch.tensor([[1, 2, 3]]))
        assert head.values is Values.PROBABILITIES

    def test_of_a_checkpoint(self, x: Tensor) -> None:
        facts = CheckpointFacts(kind=None, path=None, sha256="", label_names=("no", "yes"))  # type: ignore[arg-type]
        assert head_of(Net(1), x, facts=facts).task is Task.BINARY
        assert decide(torch.rand(2, 3), known=Known(Task.CLASSIFICATION, 3, "the run", True)).values is Values.LOGITS


def test_where_the_numbers_lie(x: Tensor) -> None:
    def where(last: Callable[[Tensor], Any], **more: Any) -> str:
        return head_of(Net(3, last), x, **more).where

    assert where(lambda y: {"aux": y @ torch.rand(3, 3), "out": y}) == "out"
    assert where(lambda y: {"logits": y, "probs": y.softmax(1)}) == "logits"
    assert where(lambda y: {"loss": y.mean(), "class_scores": y}) == "class_scores"
    assert where(lambda y: [y, y.mean((1,))]) == "0"
    facts = CheckpointFacts(kind=None, path=None, sha256="", label_names=("a", "b", "c"))  # type: ignore[arg-type]
    assert where(lambda y: (y @ torch.rand(3, 8), y), facts=facts) == "1"
    assert where(lambda y: (y @ torch.rand(3, 8), y), output=1) == "1"
    with pytest.raises(XaiError, match="cannot be told") as caught:
        where(lambda y: {"one": y, "two": y.softmax(1)})
    assert "--output-key" in caught.value.hint
    with pytest.raises(XaiError, match="no output 'three'"):
        where(lambda y: {"one": y}, output="three")
    with pytest.raises(XaiError, match="without a floating-point tensor"):
        where(lambda y: {"classes": y.argmax(1)})


def test_a_task_that_does_not_fit_is_refused(x: Tensor) -> None:
    for task in ("binary", "segmentation", "sequence"):
        with pytest.raises(XaiError, match=f"it is no {task}"):
            head_of(Net(3), x, task=task)
    with pytest.raises(XaiError, match="no task 'clasification'"):
        head_of(Net(3), x, task="clasification")
    head = head_of(Net(3), x)
    with pytest.raises(XaiError, match=r"shape \(4, 5\)"):
        head.tensor(torch.rand(4, 5))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (None, Kind.NONE),
        ([None, None], Kind.NONE),
        ([0, 1, None, 1], Kind.YES_NO),
        ([0, -100, 1], Kind.YES_NO),
        ([True, False], Kind.YES_NO),
        (["cat", "dog"], Kind.NAMES),
        (np.array([0, 3]), Kind.CLASSES),
        (torch.tensor([0.5, 2]), Kind.NUMBERS),
        ([1.0, 0.0], Kind.ZERO_ONE_NUMBERS),
        ([[1], [0, 2], []], Kind.SETS),
        (torch.eye(3), Kind.ONE_HOT),
        (torch.eye(3, dtype=torch.bool), Kind.ONE_HOT),
        (torch.tensor([[1, 0, 1], [0, 0, 1]]), Kind.SETS),
        ([3.0, float("nan"), 1.0], Kind.WHOLE_NUMBERS),
        (torch.tensor([[0.2, 0.8]]), Kind.SOFT),
        (torch.tensor([[0.2, 0.2]]), Kind.PARTS),
        (torch.tensor([[0.2, 2.5], [-1.0, 0.0]]), Kind.VALUES),
        (torch.zeros(2, 4, 4, dtype=torch.long), Kind.PLACES),
        ([torch.tensor(1), torch.tensor(4)], Kind.CLASSES),
    ],
)
def test_kinds_of_labels(labels: Any, kind: Kind) -> None:
    assert kind_of(labels).kind is kind


def test_the_words_cost_no_torch() -> None:
    code = "import sys; from xaicli.heads.head import Head, Task, Values; assert 'torch' not in sys.modules"
    assert not subprocess.run([sys.executable, "-c", code], check=False).returncode
    assert Head(Task.CLASSIFICATION, Values.LOGITS, 3).has_classes


def test_a_compiled_function_in_a_model_that_is_watched_stays_compiled(x: Tensor) -> None:
    graphs = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda y: (y * 2).softmax(1), backend=backend, fullgraph=True)
    with torch.no_grad(), watching() as origin:
        found = origin(compiled(x))
    assert len(graphs) == 1
    assert found is not None
    assert found.range is Range.DISTRIBUTION
