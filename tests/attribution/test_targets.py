"""Targets as people write them: a name, a function; and lists of methods in one text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from tests.attribution.attributing import attribute
from xaicli.errors import UsageError, XaiError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def test_a_function_of_several_numbers_a_row_is_refused(linear: nn.Linear) -> None:
    with pytest.raises(UsageError, match="one number per row"):
        xaicli.saliency(linear, X, methods="gradient", target=lambda outputs: outputs)

    def difference(outputs: Tensor) -> Tensor:
        return (outputs[:, 0] - outputs[:, 2])[:, None]

    found = xaicli.saliency(linear, X, methods="gradient", target=difference)
    wanted = (linear.weight[0] - linear.weight[2]).detach().numpy()
    np.testing.assert_allclose(found.attributions["gradient"], np.tile(wanted, (4, 1)), rtol=1e-6)


def test_a_name_of_two_outputs_is_none(linear: nn.Linear) -> None:
    names = ["a", "b", "a"]
    with pytest.raises(UsageError, match="no target 'a'") as raised:
        xaicli.saliency(linear, X, methods="gradient", target="a", label_names=names)
    assert "a (0), b, a (2)" in raised.value.hint
    found = xaicli.saliency(linear, X, methods="gradient", target="a (2)", label_names=names)
    assert found.targets.tolist() == [2] * 4
    found = xaicli.saliency(linear, X, methods="gradient", target="b", label_names=names)
    assert found.targets.tolist() == [1] * 4


def test_a_label_that_two_outputs_have_is_no_class(linear: nn.Linear) -> None:
    found = xaicli.saliency(
        linear, X, methods="gradient", target="label", labels=["a", "b", "b", "b"], label_names=["a", "b", "a"]
    )
    assert found.targets.tolist()[1:] == [1, 1, 1]
    assert found.targets[0] == linear(X[:1]).argmax()
    assert [note for note in found.answer.warnings if note.startswith("1 of 4 samples have no label")]


def test_methods_in_one_text_as_on_the_command_line(linear: nn.Linear) -> None:
    found = xaicli.saliency(linear, X, methods="gradient, integrated", captum="Saliency,InputXGradient")
    assert set(found.maps) == {"gradient", "integrated", "Saliency", "InputXGradient"}


@pytest.mark.parametrize("labels", [[[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], [[0, 2], [], [1], [2, 1, 0]]])
def test_labels_of_several_classes_are_sets_however_they_are_written(
    linear: nn.Linear, labels: list[list[int]]
) -> None:
    found = xaicli.saliency(linear, X, methods="gradient", task="multilabel", labels=labels)
    assert found.data["label"].to_list() == [[0, 2], [], [1], [0, 1, 2]]
    with pytest.raises(XaiError, match="sets of labels"):
        xaicli.saliency(linear, X, methods="gradient", task="multilabel", labels=labels, target="label")
    single = [labels[2]] * 4
    found = xaicli.saliency(linear, X, methods="gradient", task="multilabel", labels=single, target="label")
    assert found.targets.tolist() == [1] * 4
    probabilities = linear(X).sigmoid()[:, 1].tolist()
    assert found.data["label_prob"].to_list() == pytest.approx(probabilities)


def test_bytes_go_in_as_they_are_and_that_is_said(linear: nn.Linear) -> None:
    pixels = torch.randint(0, 256, (4, 6), generator=torch.Generator().manual_seed(1)).byte()
    found = xaicli.saliency(linear, pixels, methods="gradient")
    assert found.predictions.tolist() == linear(pixels.float()).argmax(1).tolist()
    assert "the input holds bytes, which go in as the numbers they are, 0 to 255" in found.answer.warnings


def test_the_planes_that_a_map_sums_over_are_told() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4 * 5, 3))
    found = xaicli.saliency(net, torch.rand(2, 2, 5, 6, 7), methods="gradient")
    planes = np.abs(found.attributions["gradient"]).sum((1, 2))
    low, high = planes.min((1, 2)), np.sort(planes.reshape(2, -1))[:, int(0.99 * 41)]
    wanted = ((planes - low[:, None, None]) / (high - low)[:, None, None]).clip(0, 1)
    np.testing.assert_allclose(found.maps["gradient"], wanted, atol=1e-5)
    assert "a map of the input is the sum over its 5 planes; attributions keep them" in found.answer.warnings
    flat = xaicli.saliency(nn.Sequential(nn.Conv2d(2, 4, 3), *net[1:3], nn.Linear(80, 3)), torch.rand(2, 2, 6, 7))
    assert not flat.answer.warnings


class OfCategory(nn.Module):
    """A table whose first column is the number of a category."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.table(x[:, 0].round().long()), x[:, 1:]], 1))


def test_a_model_that_fails_between_the_samples_is_not_said_to_misfit_them() -> None:
    torch.manual_seed(0)
    net, x = OfCategory(), torch.cat([torch.tensor([[0.0], [9.0], [9.0], [0.0]]), X[:, :3]], 1)
    alone = xaicli.saliency(net, x, methods="gradient")
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf)[torch.arange(4), alone.targets].sum(), leaf)
    np.testing.assert_allclose(alone.attributions["gradient"], wanted, rtol=1e-6)
    with pytest.raises(XaiError, match="the model answers the samples and fails on what the methods make") as raised:
        xaicli.saliency(net, x, methods="smoothgrad")
    assert "category" in raised.value.hint
    assert "index out of range" in raised.value.message


class OfOneBatchSize(nn.Module):
    """A recurrent net that keeps its first state for batches of four."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 3)
        self.register_buffer("state", torch.zeros(1, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.view(4, 3, 2), self.state)[0][:, -1])


def test_a_forward_of_a_fixed_batch_size_is_explained_with_that_many_samples() -> None:
    torch.manual_seed(0)
    net = OfOneBatchSize()
    found = xaicli.saliency(net, X, methods="gradient,integrated", integrating=20)
    leaf = X.clone().requires_grad_()
    own = net(leaf)
    assert found.predictions.tolist() == own.argmax(1).tolist()
    (wanted,) = torch.autograd.grad(own[torch.arange(4), own.argmax(1)].sum(), leaf)
    np.testing.assert_allclose(found.attributions["gradient"], wanted, atol=1e-6)
    middle = (X.amax(1, keepdim=True) + X.amin(1, keepdim=True)) / 2
    difference = (own - net(middle.expand_as(X)))[torch.arange(4), own.argmax(1)].detach()
    np.testing.assert_allclose(found.attributions["integrated"].sum(1), difference, atol=2e-4)
    with pytest.raises(XaiError, match="fails on inputs") as raised:
        xaicli.saliency(net, X[:3], methods="gradient")
    assert "fixed batch size" in raised.value.hint


class TwoHeads(nn.Module):
    """Classes and yes or no of the same inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.alive = nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"kind": self.kind(x), "alive": self.alive(x).sigmoid()}


def test_what_was_decided_is_shown_of_each_output() -> None:
    torch.manual_seed(0)
    found = xaicli.saliency(TwoHeads(), X, methods="gradient", output=["kind", "alive"])
    head = found.answer.selection["head"]
    assert "logits of 3 classes" in head
    assert "the probability of class 1" in head
    assert head.index("'kind'") < head.index("'alive'")


def _fails(outputs: Tensor) -> Tensor:
    raise ValueError(f"my own mistake of {outputs.ndim} axes")


def _takes_two(outputs: Tensor, inputs: Tensor) -> Tensor:
    return outputs[:, 0] * inputs.sum(1)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_fails, "_fails fails: ValueError: my own mistake of 2 axes"),
        (_takes_two, "_takes_two fails: TypeError: _takes_two() missing 1 required positional argument: 'inputs'"),
    ],
)
def test_a_target_function_that_fails_is_told_with_its_own_error(
    linear: nn.Linear, function: Callable[..., Tensor], said: str
) -> None:
    with pytest.raises(XaiError) as told:
        xaicli.saliency(linear, torch.rand(2, linear.in_features), target=function, methods="gradient")
    assert told.value.message == f"--target {__name__}:{said}"


def test_labels_in_lists_of_one_are_labels() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), torch.randn(4, 1, 2, 2)
    p = model(x).softmax(1).detach()
    for labels in ([[0], [1], [2], [1]], [(0,), (1,), (2,), (1,)], torch.tensor([[0], [1], [2], [1]])):
        found = xaicli.saliency(model, x, labels=labels, target="label", methods=("gradient",), device="cpu")
        assert found.targets.tolist() == [0, 1, 2, 1]
        assert found.data["label"].to_list() == [0, 1, 2, 1]
        np.testing.assert_allclose(found.data["label_prob"], p[torch.arange(4), [0, 1, 2, 1]], atol=1e-6)
    with_another = attribute(model, x, labels=[[0], [1], [5], [2]], methods=("gradient",))
    assert any("1 of 4 labels are none of the model's classes (5)" in line for line in with_another.notes)


def test_sets_of_one_class_each_stay_sets() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()).eval(), torch.randn(3, 4)
    found = xaicli.saliency(model, x, labels=[[0], [2], []], task="multilabel", methods=("gradient",), device="cpu")
    assert found.data["label"].to_list() == [[0], [2], []]


@pytest.mark.parametrize("of", [torch.as_tensor, np.asarray, lambda mask: mask.tolist()])
def test_masks_as_labels_are_kept_with_the_result_and_name_no_one_output(of: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval(), torch.randn(2, 3, 6, 6)
    masks = of(torch.randint(0, 4, (2, 6, 6)))
    given: dict[str, Any] = {"labels": masks, "task": "segmentation", "methods": ("gradient",), "device": "cpu"}
    found = xaicli.saliency(model, x, **given)
    assert np.array_equal(np.asarray(found.data["label"].to_list()), np.asarray(masks))
    found.save(tmp_path)
    assert {"saliency.json", "saliency.html", "maps.npz"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(XaiError, match="a class at each of 6 x 6 places") as raised:
        xaicli.saliency(model, x, target="label", **given)
    assert "--target N or a name explains one class" in raised.value.hint
    assert "@" not in raised.value.hint


def test_a_label_at_every_token_is_asked_for_with_its_place() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 5, 4)
    labels = torch.randint(0, 3, (2, 5))
    given: dict[str, Any] = {"labels": labels, "task": "token_classification", "methods": "gradient", "device": "cpu"}
    with pytest.raises(XaiError, match="a class at each of 5 places") as raised:
        xaicli.saliency(model, x, target="label", **given)
    assert "--target label@PLACE" in raised.value.hint
    found = xaicli.saliency(model, x, target="label@1", **given)
    assert found.targets.tolist() == labels[:, 1].tolist()
    expected = torch.zeros(2, 5, 4)
    expected[:, 1] = model.weight.detach()[labels[:, 1]]
    np.testing.assert_allclose(found.attributions["gradient"], expected, atol=1e-6)
