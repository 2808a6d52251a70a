"""The predictor runs any model over any batch and leaves no trace."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from xaicli.collectors.outputs import PredictorOutput, first_tensor, labels_of, taken
from xaicli.collectors.predictor import Predictor
from xaicli.errors import XaiError
from xaicli.heads.decision import head_of
from xaicli.heads.head import Task


class Net(nn.Module):
    """Two layers with everything that evaluation mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


class Keyword(nn.Module):
    """A model that takes its inputs by name, as transformers do."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict[str, Any]:
        assert attention_mask is not None
        return {"loss": torch.tensor(0.0), "logits": input_ids.float() * attention_mask}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


X = torch.arange(12, dtype=torch.float32).reshape(3, 4)


def test_every_kind_of_batch_reaches_the_model(net: Net) -> None:
    expected = net.eval()(X)
    net.train()
    predict = Predictor(net)
    pair = namedtuple("pair", "image label")
    for batch in (X, (X, torch.zeros(3)), [X, torch.zeros(3)], pair(X, torch.zeros(3)), {"x": X, "label": 1}):
        assert torch.equal(predict(batch).forward, expected)
    assert torch.equal(predict({"anything": X}).forward, expected)
    mask = torch.ones(2, 4)
    output = Predictor(Keyword())({"input_ids": X[:2].long(), "attention_mask": mask, "labels": 1, "idx": 2})
    assert torch.equal(output.head(expected=tuple(Task)).tensor(output.forward), X[:2])
    assert torch.equal(Predictor(net, preprocess_fn=lambda b: b["a"])({"a": X, "b": X}).forward, expected)
    assert torch.equal(Predictor(net, unpack_dicts=True)({"x": X, "labels": X}).forward, expected)
    with pytest.raises(XaiError, match="cannot be told from its keys: a, b") as caught:
        predict({"a": X, "b": X})
    assert "preprocess_fn" in caught.value.hint


def test_modes_flags_hooks_and_statistics_are_as_before(net: Net) -> None:
    net.train()
    net.body[1].eval()
    net.head.weight.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    flags = [parameter.requires_grad for parameter in net.parameters()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    predictor = Predictor(net, layers=["body.0", -1])
    with pytest.raises(RuntimeError, match="mat1 and mat2"), predictor.ready():  # noqa: PT012
        assert not any(module.training for module in net.modules())
        assert not torch.is_grad_enabled()
        predictor(X)
        net.head.bias.requires_grad_(False)
        predictor(torch.ones(2, 5))
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == flags
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.is_grad_enabled()


class Energy(nn.Module):
    """Its answer is a gradient that its own forward takes, by `backward`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            self.inner(x).pow(2).sum().backward()
        assert x.grad is not None
        return torch.as_tensor(self.head(x.grad))


@pytest.mark.parametrize("before", [None, 7.0])
def test_a_forward_that_calls_backward_adds_to_no_gradient_of_the_caller(before: float | None) -> None:
    model = Energy()
    kept = [None if before is None else torch.full_like(p, before) for p in model.parameters()]
    for p, gradient in zip(model.parameters(), kept, strict=True):
        p.grad = gradient
    with torch.no_grad():
        slope = 2 * model.inner(X) * model.inner.weight
        expected = model.head(slope)
    predict = Predictor(model)
    torch.testing.assert_close(predict(X).forward, expected)
    with predict.ready():
        predict(X[:2])
        predict(X[2:])
    head_of(model, X, task="classification")
    for p, gradient in zip(model.parameters(), kept, strict=True):
        assert p.grad is gradient
        assert gradient is None or bool((gradient == before).all())


def test_hidden_layers_by_name_and_by_position(net: Net) -> None:
    names = [name for name, _ in net.named_modules()]
    number = names.index("body.0")
    output = Predictor(net, layers=["body.0", number, "head"])(X)
    assert list(output.hidden_layers) == ["body.0", number, "head"]
    assert torch.equal(output.hidden_layers["body.0"], net.body[0](X))
    assert torch.equal(output.hidden_layers[number], output.hidden_layers["body.0"])
    assert torch.equal(output.hidden_layers["head"], output.forward)
    with pytest.raises(XaiError, match=r"no layer 'body\.9' in the model") as caught:
        Predictor(net, layers=["body.9"])
    assert "body.0" in caught.value.hint
    with pytest.raises(XaiError, match="no layer '99'"):
        Predictor(net, layers=[99])


def test_mixed_precision_is_chosen_and_metrics_are_computed_in_full(net: Net) -> None:
    full, half = Predictor(net)(X).forward, Predictor(net, precision="bf16", layers=["head"])(X)
    assert Predictor(net).precision == "fp32"
    assert half.forward.dtype == half.hidden_layers["head"].dtype == torch.float32
    assert not torch.equal(full, half.forward)
    assert torch.allclose(full, half.forward, atol=0.05)
    with pytest.raises(XaiError, match="no precision 'fp8'"):
        Predictor(net, precision="fp8")  # type: ignore[arg-type]


def test_a_function_is_a_model_and_a_number_is_none() -> None:
    assert Predictor(lambda x: x * 2)([X]).forward.equal(X * 2)
    with pytest.raises(XaiError, match="the model is a int"):
        Predictor(3)  # type: ignore[arg-type]


def test_the_output_may_be_used_as_if_it_were_the_model_output() -> None:
    output = PredictorOutput(X, {}, [0, 1, 2])
    assert torch.equal(output.argmax(1), X.argmax(1))
    assert torch.equal(torch.softmax(output, 1), torch.softmax(X, 1))
    assert torch.equal(torch.cat([output, output]), torch.cat([X, X]))
    assert torch.equal(output[0], X[0])
    assert (len(output), output.shape) == (3, X.shape)
    assert PredictorOutput({"logits": X})["logits"] is X
    assert torch.equal(output - X / 2, X / 2)
    assert torch.equal(1 - output, 1 - X)
    assert torch.equal(-output, -X)
    assert torch.equal(output > 0.5, X > 0.5)
    assert torch.equal(output * output, X * X)
    with pytest.raises(AttributeError, match="no_such"):
        _ = output.no_such


def test_logits_labels_and_tensors_are_found() -> None:
    @dataclass
    class Output:
        loss: torch.Tensor
        logits: torch.Tensor

    for forward in (Output(X.sum(), X), {"aux": X + 1, "out": X}, (X.sum(), X)):
        assert torch.equal(PredictorOutput(forward).head(expected=tuple(Task)).tensor(forward), X)
    assert first_tensor((None, [{"a": X}])) is X
    assert labels_of((X, 5)) == labels_of({"x": X, "labels": 5}) == 5
    assert labels_of(X) is labels_of({"x": X}) is None
    with pytest.raises(XaiError, match="without a floating-point tensor"):
        PredictorOutput([1, 2]).head()


def test_rows_of_a_batch_are_taken_wherever_a_sample_has_one() -> None:
    x = torch.arange(16.0).reshape(4, 4)
    Pair = namedtuple("Pair", ["x", "y"])
    pictures = [torch.full((3, 2, 2), float(i)) for i in range(4)]
    batch = {
        "pair": Pair(x[:4], ["a", "b", "c", "d"]),
        "pictures": pictures,
        "scale": torch.ones(2),
        "of": (x[:4, 0], 3),
    }
    found = taken(batch, range(2), 4)
    assert isinstance(found["pair"], Pair)
    assert torch.equal(found["pair"].x, x[:2])
    assert found["pair"].y == ["a", "b"]
    assert all(one is other for one, other in zip(found["pictures"], pictures[:2], strict=True))
    assert torch.equal(found["scale"], torch.ones(2))
    assert torch.equal(found["of"][0], x[:2, 0])
    assert found["of"][1] == 3
    turned = taken([x[:2], torch.tensor([5, 6])], [1, 0])
    assert torch.equal(turned[0], x[[1, 0]])
    assert turned[1].tolist() == [6, 5]
    assert taken(["a", "b"], [1, None]) == ["b", None]


def test_whether_a_model_answers_twice_alike_costs_six_samples() -> None:
    rows: list[int] = []

    class Counting(nn.Module):
        def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.answer = answer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows.append(len(x))
            return self.answer(x)

    x = torch.arange(40.0).reshape(10, 4)
    found = {}
    for name, answer in {
        "own": lambda x: x.cos(),
        "random": lambda x: x + torch.rand_like(x),
        "mates": lambda x: x - x.mean(0),
    }.items():
        rows.clear()
        with Predictor(Counting(answer)).ready() as predictor:
            found[name] = predictor.doubt(x, len(x)), sum(rows)
    assert found["own"] == ("", 6)
    assert found["random"][0].startswith("something in forward draws random numbers")
    assert found["mates"][0].startswith("the model's answer for a sample depends on the other samples of its batch")


@pytest.mark.parametrize(
    ("gather", "is_told"),
    [
        (lambda found: found, False),
        (lambda found: {"boxes": [one["boxes"] for one in found], "scores": [one["scores"] for one in found]}, False),
        (lambda found: ([one["scores"].sum() for one in found], torch.stack([one["mates"] for one in found])), True),
        (lambda found: tuple(torch.stack([one["mates"] for one in found]) for _ in range(4)), True),
    ],
)
def test_pictures_with_as_many_boxes_as_the_batch_has_pictures_do_not_depend_on_one_another(gather, is_told) -> None:
    class Detector(nn.Module):
        def forward(self, pictures: list[torch.Tensor]) -> Any:
            mean = torch.stack(list(pictures)).mean()
            return gather(
                [
                    {"boxes": one[: int(one[0])], "scores": one[: int(one[0])].cos(), "mates": one[1:] - mean}
                    for one in pictures
                ]
            )

    pictures = [torch.arange(5.0) * 1.5 + k for k in (2, 4, 4, 4, 2, 3)]
    with Predictor(Detector()).ready() as predictor:
        said = predictor.doubt((pictures, None), len(pictures))
        as_tuple = predictor.doubt((tuple(pictures), None), len(pictures))
    assert said.startswith("the model's answer for a sample depends on the other samples") is is_told
    assert bool(said) is is_told
    assert as_tuple == ""  # a tuple of pictures cannot be told from one of inputs, and is not shared out


def test_a_model_elsewhere_is_moved_and_put_back(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[str] = []
    monkeypatch.setattr(net, "to", lambda device: moves.append(device.type))
    predictor = Predictor(net, device="meta", precision="fp32")
    assert predictor.to_device({"x": [X]})["x"][0].device.type == "meta"
    with predictor.ready():
        assert moves == ["meta"]
    assert moves == ["meta", "cpu"]
    assert Predictor(net).device.type == "cpu"
