"""Models as people write them: each works, or says in one line why it cannot."""

from __future__ import annotations

import copy
import functools
import json
import threading
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import xaicli
from tests.attribution.attributing import attribute
from tests.attribution.nets import Calling, conv_net
from xaicli.errors import UsageError, XaiError
from xaicli.heads.decision import head_of

FEW: dict[str, Any] = {"smoothing": 3, "integrating": (4, 2)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def state(model: nn.Module) -> list[Any]:
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    values = [t.clone() for t in (*model.parameters(), *model.buffers())]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags = [p.requires_grad for p in model.parameters()] + [m.training for m in model.modules()]
    return [hooks, flags, grads, values]


@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_model_or_the_inputs_changes(training: bool) -> None:
    model = conv_net().train(training)
    model[0].weight.requires_grad_(False)
    model(torch.randn(2, 2, 8, 8)).sum().backward()
    seen: list[Any] = []
    model[4].register_forward_hook(lambda *call: seen.append(call[0]))
    before, x = state(model), torch.randn(3, 2, 8, 8, requires_grad=True)
    given = x.detach().clone()
    attribute(model, x, methods=("gradient", "smint", "gradcam"), **FEW)
    after = state(model)
    assert before[:2] == after[:2]
    for a, b in zip(before[2] + before[3], after[2] + after[3], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert len(seen) <= 4  # of the clean passes alone: what only looks is left out of the gradient passes
    assert x.grad is None
    assert torch.equal(x.detach(), given)


def test_batch_norm_in_training_mode_uses_its_running_statistics() -> None:
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    expected = attribute(model, x, **FEW)
    found = attribute(model.train(), x, **FEW)
    assert np.allclose(expected.maps["smint"][""], found.maps["smint"][""])


def test_batch_norm_without_running_statistics_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    with pytest.raises(XaiError, match="depends on the other samples of its batch: 1 uses statistics"):
        attribute(model, torch.randn(2, 2, 8, 8))


def test_an_in_place_relu_on_the_input() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    x = torch.randn(5, 4)
    found = attribute(model, x, target=0, methods=("gradient",)).attributions["gradient"][""]
    assert np.allclose(found, (model[1].weight[0] * (x > 0)).detach(), atol=1e-6)


def test_pictures_of_bytes() -> None:
    model = conv_net()
    x = torch.randint(0, 256, (2, 2, 8, 8), dtype=torch.uint8)
    by_bytes, by_floats = attribute(model, x, **FEW), attribute(model, x.float(), **FEW)
    assert np.array_equal(by_bytes.maps["smint"][""], by_floats.maps["smint"][""])


def test_no_grad_inside_forward_is_explained() -> None:
    def forward(linear: nn.Module, x: Tensor) -> Any:
        with torch.no_grad():
            return linear(x)

    with pytest.raises(XaiError, match="does not depend on its inputs through autograd") as raised:
        attribute(Calling(forward), torch.randn(2, 4))
    assert "no_grad" in raised.value.hint


class Partly(nn.Module):
    """Half of the output comes from under `no_grad`, in a module that can be traced."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.seen, self.unseen, self.share = nn.Linear(4, 3), nn.Linear(4, 3), share

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.unseen(x)
        return hidden + self.share * self.seen(x) if self.share else hidden


def test_no_grad_in_a_part_of_forward_is_obeyed_by_every_method() -> None:
    model, x = Partly(1.0), torch.randn(3, 4)
    found = attribute(model, x, target=0, baseline="zero", **FEW)
    w = model.seen.weight[0].detach()
    assert np.allclose(found.attributions["gradient"][""], w.expand(3, 4), atol=1e-6)
    assert np.allclose(found.attributions["integrated"][""], w * x, atol=1e-6)
    with pytest.raises(XaiError, match="does not depend on its inputs through autograd"):
        attribute(Partly(0.0), x)


def test_a_batch_of_one_and_a_model_that_squeezes_it() -> None:
    squeezing = Calling(lambda linear, x: linear(x).squeeze())
    x = torch.randn(1, 4)
    found = attribute(squeezing, x, target=1, methods=("gradient",)).attributions["gradient"][""]
    assert np.allclose(found[0], squeezing.linear.weight[1].detach())


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_graph_exported_with_a_fixed_batch(batch: int) -> None:
    model, x = conv_net(), torch.randn(5, 2, 8, 8)
    graph = torch.export.export(model, (x[:batch].clone(),)).module()
    expected, found = attribute(model, x, precision="fp32", **FEW), attribute(graph, x, precision="fp32", **FEW)
    for method in expected.maps:
        assert np.allclose(expected.attributions[method][""], found.attributions[method][""], atol=1e-4), method


def test_a_graph_with_any_batch_is_folded_and_gives_the_same() -> None:
    from xaicli.attribution.fast_model import simplified

    model, x = conv_net(), torch.randn(5, 2, 8, 8)
    dynamic = ({0: torch.export.Dim("b", min=1)},)
    graph = torch.export.export(model, (x,), dynamic_shapes=dynamic).module()
    small = simplified(graph)
    assert not any("batch_norm" in str(node.target) for node in small.graph.nodes if node.op == "call_function")  # type: ignore[union-attr]
    methods = ("gradient", "smint", "gradcam")
    expected, found = attribute(model, x, methods=methods, **FEW), attribute(graph, x, methods=methods, **FEW)
    for method in methods:
        assert np.allclose(expected.attributions[method][""], found.attributions[method][""], atol=1e-4), method


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu_behind_max_pooling_changes_neither_outputs_nor_gradients(inplace: bool) -> None:
    from xaicli.attribution.fast_model import simplified

    torch.manual_seed(0)
    pooling = nn.MaxPool2d(3, 2, padding=1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace), pooling, nn.Conv2d(4, 3, 2), nn.ReLU(inplace))
    x = torch.randn(3, 2, 9, 9)
    graph = torch.export.export(model, (x,)).module()
    for whole in (model, graph):
        small = simplified(whole)
        assert small is not whole
        order = [str(node.target) for node in small.graph.nodes if node.op in ("call_module", "call_function")]  # type: ignore[union-attr]
        pooled = next(i for i, name in enumerate(order) if name == "2" or "max_pool" in name)
        assert order[pooled - 1] in ("0", "aten.conv2d.default")
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        weight = torch.randn_like(model(x))
        assert torch.equal(small(b.clone()), model(x))
        expected = torch.autograd.grad((model(a.clone()) * weight).sum(), a)[0]
        assert torch.equal(torch.autograd.grad((small(b.clone()) * weight).sum(), b)[0], expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_graph_exported_in_training_mode_is_refused() -> None:
    graph = torch.export.export(conv_net().train(), (torch.randn(2, 2, 8, 8),)).module()
    with pytest.raises(XaiError, match="exported in training mode"):
        attribute(graph, torch.randn(2, 2, 8, 8))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda y: (y, y * 0), None),
        (lambda y: (y * 0, y), 1),
        (lambda y: [y], "0"),
        (lambda y: {"aux": y * 0, "logits": y}, None),
        (lambda y: {"aux": y * 0, "scores": y}, "scores"),
        (lambda y: {"classes": y.argmax(1), "scores": y}, None),
    ],
)
def test_tuples_dicts_and_heads(wrap: Any, output: Any) -> None:
    model = Calling(lambda linear, x: wrap(linear(x)))
    found = attribute(model, torch.randn(2, 4), target=2, output=output, methods=("gradient",))
    assert np.allclose(found.attributions["gradient"][""][0], model.linear.weight[2].detach())


def test_an_unknown_output_names_those_that_exist() -> None:
    model = Calling(lambda linear, x: {"a": linear(x), "b": linear(x)})
    with pytest.raises(XaiError, match="no output 'c'") as raised:
        attribute(model, torch.randn(2, 4), output="c")
    assert "a, b" in raised.value.hint


def test_a_softmax_is_recognised() -> None:
    model = Calling(lambda linear, x: linear(x).softmax(1))
    x = torch.randn(3, 4)
    found = attribute(model, x, **FEW)
    assert np.allclose(found.probabilities, model(x).detach(), atol=1e-6)
    assert any("returns probabilities" in note for note in found.notes)
    assert "softmax" in found.head.decided


def test_a_single_logit_is_two_classes() -> None:
    model = Calling(lambda linear, x: linear(x)[:, :1])
    x = torch.randn(8, 4)
    found = attribute(model, x, methods=("gradient",), task="binary")
    logit = model(x).detach()[:, 0]
    assert found.predictions.tolist() == (logit > 0).long().tolist()
    assert np.allclose(found.probabilities[:, 1], torch.sigmoid(logit), atol=1e-6)
    sign = np.where(found.predictions == 1, 1.0, -1.0)[:, None]
    assert np.allclose(found.attributions["gradient"][""], sign * model.linear.weight[0].detach().numpy(), atol=1e-6)
    assert any("one number" in note for note in found.notes)
    with pytest.raises(XaiError, match="cannot be told") as raised:
        attribute(model, x)
    assert "--task" in raised.value.hint


def test_a_regression_is_its_own_value_and_has_no_probability() -> None:
    model, x = Calling(lambda linear, x: linear(x)[:, 0]), torch.randn(5, 4)
    for given in ({"task": "regression"}, {"labels": [2.5, 0.1, -3.0, 1.5, 0.0]}):
        found = attribute(model, x, methods=("gradient",), **given)
        assert np.allclose(found.predictions, model(x).detach(), atol=1e-6)
        assert np.isnan(found.probabilities).all()
        assert np.allclose(found.attributions["gradient"][""], model.linear.weight[0].detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("n", [1, 5])
def test_a_probability_is_told_from_a_logit_by_the_last_operation(n: int) -> None:
    x = torch.randn(n, 4)
    sigmoid = Calling(lambda linear, x: torch.sigmoid(linear(x)[:, :1]))
    p = sigmoid(x).detach()[:, 0]
    found = attribute(sigmoid, x, methods=("gradient",))
    assert found.predictions.tolist() == (p > 0.5).long().tolist()
    assert np.allclose(found.probabilities[:, 1], p, atol=1e-6)
    # Logits that happen to lie in [0, 1].
    logit = Calling(lambda linear, x: 0.1 * linear(x)[:, 0] + 0.5)
    found = attribute(logit, x, methods=("gradient",), task="binary")
    assert np.allclose(found.probabilities[:, 1], torch.sigmoid(logit(x)).detach(), atol=1e-6)


def test_the_class_over_the_places_is_explained() -> None:
    pixels = nn.Conv2d(2, 3, 1)
    x = torch.randn(2, 2, 4, 4)
    found = attribute(pixels, x, target=1, methods=("gradient",), task="segmentation")
    assert np.allclose(
        found.attributions["gradient"][""][0], (pixels.weight[1] / 16).detach().expand(2, 4, 4), atol=1e-6
    )
    assert np.allclose(found.probabilities, pixels(x).softmax(1).mean((2, 3)).detach(), atol=1e-6)
    words = Calling(lambda linear, x: linear(x))  # (N, places, 3) of (N, places, 4)
    found = attribute(words, torch.randn(3, 5, 4), target=2, methods=("gradient",), task="token_classification")
    assert np.allclose(found.attributions["gradient"][""], words.linear.weight[2].detach() / 5, atol=1e-6)


def test_a_named_tuple_is_asked_by_name_or_by_index() -> None:
    class Heads(NamedTuple):
        aux: Tensor
        scores: Tensor

    model = Calling(lambda linear, x: Heads(linear(x) * 0, linear(x)))
    for output in ("scores", 1, "1"):
        found = attribute(model, torch.randn(2, 4), target=2, output=output, methods=("gradient",))
        assert np.allclose(found.attributions["gradient"][""][0], model.linear.weight[2].detach())


def test_targets_of_every_kind() -> None:
    model, x = Calling(lambda linear, x: linear(x)), torch.randn(4, 4)
    order = model(x).argsort(1, descending=True)
    names = ("ant", "bee", "cow")

    def targets(**given: Any) -> list[int]:
        return attribute(model, x, methods=("gradient",), **given).targets.tolist()

    assert targets() == order[:, 0].tolist()
    assert targets(target="top2") == order[:, :2].flatten().tolist()
    assert targets(target="label", labels=[2, 1, 0, 1]) == [2, 1, 0, 1]
    assert targets(target="label", labels=["bee", "ant", "cow", "bee"], label_names=names) == [1, 0, 2, 1]
    assert targets(target="cow", label_names=names) == [2] * 4
    assert targets(target=1) == targets(target="1") == [1] * 4
    assert targets(target=np.array([0, 1, 2, 0])) == [0, 1, 2, 0]
    function = attribute(model, x, methods=("gradient",), target=lambda y: y[:, 0] - y[:, 1])
    w = model.linear.weight.detach().numpy()
    assert np.allclose(function.attributions["gradient"][""], np.tile(w[0] - w[1], (4, 1)), atol=1e-6)
    assert function.targets.tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": 7}, "no output 7"),
        ({"target": "top9"}, "3 classes"),
        ({"target": "cat"}, "no target 'cat'"),
        ({"target": "label"}, "no labels"),
        ({"methods": ("grad",)}, "no saliency method"),
        ({"smoothing": -1}, "smoothing is -1"),
        ({"integrating": (1, 2, 3)}, "integrating"),
        ({"baseline": "grey"}, "no baseline"),
        ({"noise": -0.1}, "noise"),
        ({"convention": "captum"}, "no convention"),
        ({"precision": "fp8"}, "no precision"),
        ({"device": "quantum"}, "no device"),
        ({"evaluations": 1}, "evaluations"),
        ({"tolerance": 0}, "tolerance"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, XaiError), match=message) as raised:
        attribute(Calling(lambda linear, x: linear(x)), torch.randn(2, 4), **given)
    assert raised.value.hint


def test_whole_numbers_of_every_kind_are_taken() -> None:
    from xaicli.attribution.settings import settle

    plain = settle(smoothing=9, integrating=(6, 4), evaluations=None)
    assert settle(smoothing=np.int64(9), integrating=np.array([6, 4])) == plain  # type: ignore[arg-type]
    assert settle(smoothing=torch.tensor(9), integrating=[np.int32(6), 4]) == plain  # type: ignore[arg-type, list-item]
    assert (
        settle(smoothing=9, integrating=np.int64(6))
        == settle(smoothing=9, integrating=6)
        == settle(smoothing=9, integrating=[6])
    )  # type: ignore[arg-type]
    for wrong in (2.5, True, "3"):
        with pytest.raises(UsageError, match="smoothing is"):
            settle(smoothing=wrong)  # type: ignore[arg-type]


def test_inputs_that_do_not_fit_are_explained() -> None:
    with pytest.raises(XaiError, match=r"fails on inputs of shape \(2, 5\)"):
        attribute(nn.Linear(4, 3), torch.randn(2, 5))


def test_several_inputs_each_have_a_map_and_their_own_difference() -> None:
    model = Calling(lambda linear, a, b: linear(a) * 2 + linear(b[:, 0]))
    a, b = torch.randn(3, 4), torch.randn(3, 2, 4)
    found = attribute(model, {"a": a, "b": b}, target=1, baseline="zero", methods=("gradient", "integrated"))
    w = model.linear.weight[1].detach()
    assert np.allclose(found.attributions["integrated"]["a"], 2 * w * a, atol=1e-5)
    assert np.allclose(found.attributions["integrated"]["b"][:, 0], w * b[:, 0], atol=1e-5)
    assert not found.attributions["integrated"]["b"][:, 1].any()
    assert found.delta["integrated"].max() < 1e-4
    assert found.maps["gradient"]["a"].shape == (3, 1, 4)


def test_an_unused_input_has_a_flat_map() -> None:
    model = Calling(lambda linear, a, _: linear(a))
    found = attribute(model, [torch.randn(3, 4), torch.randn(3, 4)], methods=("gradient",))
    assert not found.maps["gradient"]["input1"].any()
    assert found.maps["gradient"]["input0"].any()


def test_whole_number_inputs_beside_floats_are_passed_through() -> None:
    model = Calling(lambda linear, x, scale: linear(x) * scale[:, None])
    scale = torch.tensor([1, 2, 3])
    found = attribute(model, [torch.randn(3, 4), scale], target=0, methods=("gradient",))
    w = model.linear.weight[0].detach()
    assert np.allclose(found.attributions["gradient"]["input0"], scale[:, None] * w, atol=1e-6)


def test_token_ids_are_explained_at_their_embedding() -> None:
    torch.manual_seed(0)

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 6)
            self.out = nn.Linear(6, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.embed(ids).mean(1))

    model, ids = Text(), torch.randint(0, 20, (4, 5))
    found = attribute(model, ids, target=2, baseline="zero", methods=("gradient", "integrated"))
    w = model.out.weight[2].detach() / 5
    assert np.allclose(found.attributions["gradient"][""], w.expand(4, 5, 6), atol=1e-6)
    assert np.allclose(found.attributions["integrated"][""], (model.embed(ids) * w).detach(), atol=1e-6)
    assert found.maps["integrated"][""].shape == (4, 1, 5)
    assert found.embedded == ("",)


@pytest.mark.parametrize("shape", [(6,), (2, 9), (3, 8, 8), (2, 3, 5, 6)])
def test_inputs_of_every_rank(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3))
    found = attribute(model, torch.randn(2, *shape), baseline="blur", **FEW)
    height = 1 if len(shape) < 2 else shape[-2]
    assert found.maps["smint"][""].shape == (2, height, shape[-1])
    assert found.attributions["smint"][""].shape == (2, *shape)


def test_inf_and_nan_activations_leave_finite_maps() -> None:
    def spiky(linear: nn.Module, x: Tensor) -> Tensor:
        return linear(x) + (x.abs().sqrt() * 0).sum(1, keepdim=True) + torch.where(x[:, :1] > 9, torch.inf, 0.0)

    x = torch.randn(3, 4)
    x[0, 1] = 0.0  # the gradient of the square root is infinite here, times 0: NaN
    x[1, 0] = 10.0
    found = attribute(Calling(spiky), x, target=0, **FEW)
    for method in found.maps:
        assert np.isfinite(found.maps[method][""]).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_leaves_its_neighbours_alone(bad: float) -> None:
    model, x = conv_net(), torch.randn(4, 2, 8, 8)
    expected = attribute(model, x, **FEW)
    x[0, 0, 0, 0] = bad
    found = attribute(model, x, **FEW)
    for method in expected.maps:
        assert np.isfinite(found.maps[method][""]).all()
        assert np.allclose(expected.maps[method][""][1:], found.maps[method][""][1:], atol=1e-4), method
    assert found.flat["smint"].tolist() == [True, False, False, False]
    assert any("not finite" in note for note in found.notes)


def test_one_number_a_sample_beside_another_input() -> None:
    model = Calling(lambda linear, x, scale: linear(x) * scale[:, None])
    x, scale = torch.randn(3, 4), torch.rand(3) + 1
    found = attribute(model, [x, scale], target=0, baseline="zero", methods=("gradient", "integrated"))
    w = model.linear.weight[0].detach()
    assert np.allclose(found.attributions["gradient"]["input1"], (model.linear(x)[:, 0]).detach(), atol=1e-6)
    assert np.allclose(found.attributions["gradient"]["input0"], scale[:, None] * w, atol=1e-6)
    assert found.maps["gradient"]["input1"].shape == (3, 1, 1)


def test_memory_that_runs_out_halves_the_chunk() -> None:
    sizes: list[int] = []

    def hungry(linear: nn.Module, x: Tensor) -> Tensor:
        sizes.append(len(x))
        if x.requires_grad and len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return linear(x)

    model, x = Calling(hungry), torch.randn(4, 4)
    found = attribute(model, x, target=1, methods=("integrated",), integrating=(9, 1), baseline="zero")
    assert np.allclose(found.attributions["integrated"][""], model.linear.weight[1].detach() * x, atol=1e-6)
    assert max(sizes) > 5


class Holding(nn.Module):
    """Keeps its last activation, a lock, and a function of the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lock, self.kept = nn.Linear(4, 3), threading.Lock(), [torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.kept[0] = self.linear(x)
        return self.kept[0]


def test_a_model_that_holds_what_cannot_be_copied_is_explained() -> None:
    model, x = Holding(), torch.randn(2, 4)
    activation = model(x)
    found = attribute(model, x, target=1, methods=("gradient",))
    assert np.allclose(found.attributions["gradient"][""], model.linear.weight[1].detach().expand(2, 4), atol=1e-6)
    assert activation.requires_grad
    assert not model.lock.locked()


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_made_anew_at_every_call(norm: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3))
    model(torch.randn(2, 4))
    x = torch.randn(3, 4)
    z = x.clone().requires_grad_()
    expected = torch.autograd.grad(model.eval()(z)[:, 1].sum(), z)[0]
    found = attribute(model, x, target=1, methods=("gradient",))
    assert np.allclose(found.attributions["gradient"][""], expected, atol=1e-5)


def test_hooks_that_change_an_output_are_part_of_the_model() -> None:
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    model[4].register_forward_hook(lambda _, __, result: result * -3.0)
    model[0].register_forward_pre_hook(lambda _, given: (2.0 - given[0],))
    z = x.clone().requires_grad_()
    own = model(z)
    expected = torch.autograd.grad(own.gather(1, own.argmax(1)[:, None]).sum(), z)[0]
    found = attribute(model, x, methods=("gradient",))
    assert found.predictions.tolist() == own.argmax(1).tolist()
    assert np.allclose(found.attributions["gradient"][""], expected, atol=1e-5)
    assert any("forward hooks" in note and "0, 4" in note for note in found.notes)


def test_a_hook_that_changes_in_place_and_returns_nothing_is_kept_too() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), torch.randn(3, 4)

    def double(_: nn.Module, __: Any, result: Tensor) -> None:
        result.mul_(2)

    model[0].register_forward_hook(double)
    expected = 2 * (model[1].weight[0] @ model[0].weight).detach()
    found = attribute(model, x, target=0, methods=("gradient",))
    assert np.allclose(found.attributions["gradient"][""], expected.expand(3, 4), atol=1e-5)


class Dropping(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.body, self.part, self.head = nn.Linear(4, 8), part, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self.body(x)))


class ByHand(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class OfTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, training=True)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (ByHand(), "part draws random numbers"),
        (Centred(), "part answers otherwise for it beside other samples"),
        (OfTheBatch(), "part answers otherwise for it beside other samples"),
        (nn.BatchNorm1d(8, track_running_stats=False), "part uses statistics of the batch"),
    ],
)
@pytest.mark.parametrize("n", [2, 7])
def test_a_model_that_does_not_answer_twice_alike_is_refused_by_the_part_at_fault(
    part: nn.Module, reason: str, n: int
) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model, x = Dropping(part), torch.randn(n, 4)
    before = torch.get_rng_state()
    with pytest.raises(XaiError, match=reason):
        xaicli.saliency(model, x)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(state, before)


class TimeFirst(nn.Module):
    """A recurrent net as torch makes it: (steps, samples, classes), for samples of (steps, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x.transpose(0, 1))[0]).log_softmax(-1)


@pytest.mark.parametrize("task", [None, "token_classification"])
@pytest.mark.parametrize("n", [1, 3, 7, 16])
def test_answers_that_have_time_first_are_refused_by_their_axis(n: int, task: str | None) -> None:
    with pytest.raises(
        XaiError, match=r"has the samples on axis 1, not on its first: its shape is \(7, N, 4\)"
    ) as raised:
        xaicli.saliency(TimeFirst(), torch.randn(n, 7, 5), methods="gradient", task=task)
    assert "transpose(0, 1)" in raised.value.hint


@pytest.mark.parametrize("n", [2, 3])
def test_hidden_states_of_layers_are_refused_by_their_axis(n: int) -> None:
    model = nn.GRU(5, 3, num_layers=2, batch_first=True)
    with pytest.raises(XaiError, match=r"output 1 has the samples on axis 1, .* its shape is \(2, N, 3\)"):
        xaicli.saliency(model, torch.randn(n, 6, 5), methods="gradient", output=1, task="classification")


@pytest.mark.parametrize("n", [2, 5])
def test_samples_held_against_each_other_are_refused_as_such_and_their_diagonal_is_explained(n: int) -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(6, 4)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.a(a) @ self.b(b).T

    model, a, b = Pairs(), torch.randn(n, 5), torch.randn(n, 6)
    with pytest.raises(XaiError, match=r"shape \(N, N\) for N samples: each is held against the others") as raised:
        xaicli.saliency(model, [a, b], methods="gradient")
    assert "target=lambda out: out.diagonal()" in raised.value.hint
    found = xaicli.saliency(model, [a, b], methods="gradient", target=lambda out: out.diagonal())
    a.requires_grad_()
    model(a, b).diagonal().sum().backward()
    assert np.allclose(found.attributions["gradient"]["input0"], a.grad, atol=1e-5)


def test_what_a_forward_pass_keeps_in_the_model_is_undone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.calls, self.last = nn.Linear(4, 3), 0, None
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.seen += len(x)
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            self.last = self.linear(x)
            return self.last

    model, x = Counting().train(), torch.randn(3, 4)
    buffer = model.mean
    attribute(model, x, target=1, methods=("gradient",))
    assert (model.calls, model.last, float(model.seen)) == (0, None, 0.0)
    assert model.mean is buffer
    assert not buffer.any()
    assert model.training


def test_a_model_that_changes_its_inputs_in_place_changes_its_own() -> None:
    def doubling(linear: nn.Module, x: Tensor) -> Tensor:
        return linear(x.mul_(2.0))

    for given in (torch.rand(3, 4), torch.rand(3, 4).numpy()):
        before = np.asarray(given).copy()
        model = Calling(doubling)
        found = attribute(model, given, target=1, methods=("gradient",))
        assert np.array_equal(np.asarray(given), before)
        assert np.allclose(found.attributions["gradient"][""], 2 * model.linear.weight[1].detach(), atol=1e-6)


def test_reentrant_checkpointing_keeps_its_gradient() -> None:
    from torch.utils.checkpoint import checkpoint

    model = Calling(lambda linear, x: checkpoint(linear, x, use_reentrant=True))
    found = attribute(model, torch.randn(3, 4), target=2, methods=("gradient", "integrated"), baseline="zero")
    assert np.allclose(found.attributions["gradient"][""], model.linear.weight[2].detach().expand(3, 4), atol=1e-6)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_graph_is_not_run_at_another_size_than_its_own() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.sum((2, 3)) / (x.shape[2] * x.shape[3]))

    model, x = Sized(), torch.randn(2, 2, 8, 8)
    graph = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("b", min=1)},)).module()
    attribute(graph, x, **FEW)
    with pytest.raises(XaiError, match=r"exported for samples of shape \(2, 8, 8\)"):
        attribute(graph, torch.randn(2, 2, 16, 16), **FEW)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_named_inputs_go_in_by_name_whatever_the_wrapper(wrap: Any) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, a: Tensor, scale: Tensor | None = None, b: Tensor | None = None) -> Tensor:
            assert scale is None
            return self.linear(a) - 2 * self.linear(b)

    model = Two()
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    found = attribute(wrap(model), {"b": b, "a": a}, target=0, methods=("gradient",))
    w = model.linear.weight[0].detach()
    assert np.allclose(found.attributions["gradient"]["a"], w.expand(3, 4), atol=1e-6)
    assert np.allclose(found.attributions["gradient"]["b"], -2 * w.expand(3, 4), atol=1e-6)
    with pytest.raises(UsageError, match="takes no 'c'"):
        attribute(model, {"a": a, "c": b})


def test_baselines() -> None:
    from xaicli.attribution.inputs import InputRange, baseline_of
    from xaicli.attribution.settings import Baseline

    x = torch.rand(3, 2, 5, 6) * 4 - 1

    def start(kind: Baseline, known: InputRange | None = None) -> Tensor:
        return baseline_of(kind, x, known=known or InputRange(), seed=0, position=0).expand_as(x)

    assert torch.allclose(start(Baseline.MID)[1], (x[1].max() + x[1].min()) / 2 * torch.ones(2, 5, 6))
    assert not start(Baseline.ZERO).any()
    assert torch.allclose(start(Baseline.BLACK)[2], x[2].min() * torch.ones(2, 5, 6))
    assert torch.allclose(start(Baseline.BLACK, InputRange(lowest=-3.0)), torch.full_like(x, -3.0))
    normalised = start(Baseline.BLACK, InputRange(mean=(0.5, 0.2), std=(0.25, 0.1)))
    assert torch.allclose(normalised[0, :, 0, 0], torch.tensor([-2.0, -2.0]))
    uniform = start(Baseline.UNIFORM)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    assert ((uniform >= low) & (uniform <= high)).all()
    assert torch.equal(uniform, start(Baseline.UNIFORM))
    blurred = start(Baseline.BLUR)
    assert blurred.var() < x.var()
    assert torch.allclose(
        baseline_of(Baseline.BLUR, torch.full((1, 1, 4, 4), 2.0), known=InputRange(), seed=0, position=0),
        torch.full((1, 1, 4, 4), 2.0),
    )


def test_a_baseline_from_a_file(tmp_path: Any) -> None:
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    start = np.arange(4, dtype=np.float32)
    np.save(tmp_path / "b.npy", start)
    found = attribute(model, x, target=0, baseline=str(tmp_path / "b.npy"), methods=("integrated",))
    expected = model.weight[0].detach() * (x - torch.from_numpy(start))
    assert np.allclose(found.attributions["integrated"][""], expected, atol=1e-5)
    np.save(tmp_path / "wrong.npy", np.zeros(5))
    with pytest.raises(XaiError, match="does not fit"):
        attribute(model, x, baseline=str(tmp_path / "wrong.npy"), methods=("integrated",))


def test_the_deep_copy_leaves_an_exported_graph_alone() -> None:
    x = torch.randn(4, 2, 8, 8)
    graph = torch.export.export(conv_net(), (x,), dynamic_shapes=({0: torch.export.Dim("b", min=1)},)).module()
    before = copy.deepcopy({name: value.clone() for name, value in graph.state_dict().items()})
    attribute(graph, x, **FEW)
    assert all(torch.equal(before[name], value) for name, value in graph.state_dict().items())


def small(**asked: Any) -> xaicli.SaliencyResult:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    return xaicli.saliency(model, torch.rand(4, 3, 2, 2), device="cpu", **({"methods": "gradient"} | asked))


@pytest.mark.parametrize("missing", [None, -100, 7, float("nan")])
def test_one_sample_without_a_label_costs_the_others_nothing(missing: Any) -> None:
    result = small(labels=[0, missing, 2, 1], target="label")
    assert result.targets.tolist() == [0, result.predictions[1], 2, 1]
    assert "1 of 4 samples have no label that is a class" in " ".join(result.answer.warnings)


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (["a", "bird", "c", "bird"], ["a", "b", "c"], "2 of 4 labels are none of the model's classes (bird)"),
        ([0, 7, -100, None], (), "1 of 4 labels are none of the model's classes (7)"),
        (["0", "1", None, "2"], (), ""),
        ([0, -100, None, 2], ("a", "b", "c"), ""),
    ],
)
def test_labels_that_are_no_class_are_told_where_they_are_only_shown(labels: Any, names: Any, said: str) -> None:
    result = small(labels=labels, label_names=names, task="classification")
    told = " ".join(result.answer.warnings)
    assert (said in told) if said else ("none of the model's classes" not in told)
    rows = sorted(json.loads(result.to_json())["rows"], key=lambda row: row["sample_id"])
    known = [one in (0, 1, 2, "0", "1", "2", *names) for one in labels]
    assert [row["label_prob"] is not None for row in rows] == known


def test_labels_of_probabilities_name_the_likeliest_class() -> None:
    hard, soft = small(labels=[0, 1, 2, 1]), small(labels=torch.eye(3)[[0, 1, 2, 1]] * 0.7 + 0.1, target="label")
    expected = [0.7 * p + 0.1 for p in hard.data["label_prob"]]  # the probabilities of the classes sum to 1
    assert soft.data["label_prob"].to_list() == pytest.approx(expected, abs=1e-6)
    assert soft.targets.tolist() == [0, 1, 2, 1]


def test_one_label_a_sample_is_no_regression_of_several_values() -> None:
    floats = small(labels=[0.0, 1.0, 2.0, float("nan")])
    assert floats.data["label_prob"].to_list()[:3] == small(labels=[0, 1, 2, 1]).data["label_prob"].to_list()[:3]
    with pytest.raises(XaiError, match="one real number each"):
        small(labels=[0.1, 0.2, 0.3, 0.4])
    values = small(labels=torch.randn(4, 3) * 9, target=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert values.predictions == pytest.approx(model(torch.rand(4, 3, 2, 2))[:, 2].detach().numpy(), abs=1e-6)


def test_a_sample_without_a_prediction_is_counted() -> None:
    x = torch.rand(4, 3, 2, 2)
    x[2, 0] = torch.nan
    result = xaicli.saliency(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), x, methods="gradient", device="cpu")
    assert result.answer.counts.non_finite == 1
    assert "1 samples have no prediction, since the model answers them with NaN: 2" in result.answer.warnings


@pytest.mark.parametrize(
    ("asked", "unused"),
    [
        ({"evaluations": 99}, "evaluations"),
        ({"tolerance": 0.1}, "tolerance"),
        ({"baseline": "zero"}, "baseline"),
        ({"noise": 0.3}, "noise"),
        ({"methods": "smoothgrad", "integrating": (5, 2)}, "integrating"),
        ({"methods": "integrated", "smoothing": 3}, "smoothing"),
        ({"methods": "integrated", "signed": True}, "signed"),
    ],
)
def test_what_no_method_takes_is_said(asked: dict[str, Any], unused: str) -> None:
    assert f"{unused} was not used: no method that was asked for takes it" in small(**asked).answer.warnings
    taken = small(**{"evaluations": "auto"} | asked | {"methods": ("smoothgrad", "smint")}).answer.warnings
    assert not [said for said in taken if "was not used" in said]


def test_what_goes_with_no_function_of_the_outputs_is_said_or_refused() -> None:
    def third(outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 2]

    said = small(methods="gradient", target=third, task="regression").answer.warnings
    assert "task was not used: a function of the model's outputs is explained" in said
    with pytest.raises(XaiError, match="given all that the model returns, and an output is chosen besides"):
        small(methods="gradient", target=third, output=0)


def test_captum_takes_some_of_the_arguments() -> None:
    pytest.importorskip("captum")
    asked = {"methods": "gradient", "noise": 0.3, "baseline": "zero"}
    for method, left in (("IntegratedGradients", {"noise"}), ("Saliency", {"noise", "baseline"})):
        said = small(**asked, captum=method).answer.warnings
        assert {one.split()[0] for one in said if "was not used" in one} == left


@pytest.mark.parametrize(
    ("model", "inputs", "asked", "said"),
    [
        (lambda x: x, torch.rand(2, 3), {}, "the model is a function"),
        (nn.Linear(2, 3), [[1.0, 2.0], [3.0]], {}, "no array of numbers"),
        (nn.Linear(2, 3), [torch.rand(2, 2), None], {}, "holds None"),
        (nn.Linear(2, 3), torch.rand(2, 2), {"baseline": np.zeros(2)}, "the baseline is a ndarray"),
        (nn.Linear(2, 3), torch.rand(2, 2), {"seed": "a"}, "seed is 'a'"),
    ],
)
def test_what_cannot_be_meant_is_named(model: Any, inputs: Any, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        xaicli.saliency(model, inputs, **asked)


def test_an_argument_given_as_none_is_left_out() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
            return self.linear(x if scale is None else x * scale) + (0 if shift is None else shift)

    model, x, shift = Model(), torch.rand(3, 4), torch.rand(3, 3)
    given = xaicli.saliency(model, {"x": x, "scale": None, "shift": shift}, methods="gradient", device="cpu")
    assert given.predictions.tolist() == model(x, shift=shift).argmax(1).tolist()


@pytest.mark.parametrize("length", [4, 6])
def test_a_decoders_places_are_not_those_of_the_encoders_mask(length: int) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[0, 3:] = mask[1, 5:] = 0
    given = {
        "input_ids": torch.randint(1, 30, (3, 6)),
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(1, 30, (3, length)),
    }
    with torch.no_grad():
        p = model(**given).logits.softmax(-1)
    result = xaicli.saliency(model, given, methods="gradient", device="cpu")
    assert result.data["top_prob"].to_numpy() == pytest.approx(p[:, -1].amax(-1).numpy(), abs=1e-5)
    counted = (torch.arange(length) < 2).expand(3, -1).long()
    result = xaicli.saliency(model, given | {"decoder_attention_mask": counted}, methods="gradient", device="cpu")
    with torch.no_grad():
        p = model(**given, decoder_attention_mask=counted).logits.softmax(-1)[:, :2]
    assert result.data["top_prob"].to_numpy() == pytest.approx(p[:, -1].amax(-1).numpy(), abs=1e-5)


@dataclass(frozen=True, slots=True)
class Slotted:
    logits: Tensor
    aux: object = None


@pytest.mark.parametrize(
    "wrapped", [Slotted, lambda z: {"head": {"logits": z, "loss": z.mean()}}, lambda z: {"a": {"b": {"scores": z}}}]
)
def test_outputs_inside_outputs_are_found(wrapped: Callable[[Tensor], Any]) -> None:
    model, x = Calling(lambda linear, x: wrapped(linear(x))), torch.randn(3, 4)
    target = model.linear(x).argmax(1)
    found = xaicli.saliency(model, x, methods=("gradient",), device="cpu")
    assert found.predictions.tolist() == target.tolist()
    assert np.allclose(found.attributions["gradient"], model.linear.weight[target].detach(), atol=1e-6)


def test_weights_made_in_inference_mode_are_explained() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    x = torch.randn(3, 4)
    with torch.no_grad():
        out = model(x)
    found = xaicli.saliency(model, x, methods=("gradient", "smint"), task="classification:logits", device="cpu")
    target = out.argmax(1)
    slope = 1 - out.gather(1, target[:, None]).square()
    assert found.predictions.tolist() == target.tolist()
    assert np.allclose(found.attributions["gradient"], slope * model[0].weight.detach()[target], atol=1e-6)
    assert model[0].weight.is_inference()


def test_what_cannot_be_an_input_or_a_model_is_named() -> None:
    x = torch.randn(4, 6)
    model = nn.Linear(6, 3)
    nested = torch.nested.nested_tensor([x[:3], x[:2]])
    for given, said in ((x.to_sparse(), "is a sparse tensor"), (nested, "is a nested tensor")):
        with pytest.raises(XaiError, match=said):
            xaicli.saliency(model, given, methods="gradient", device="cpu")
    with pytest.raises(XaiError, match=r"weights of no shape yet \(0\.weight\)"):
        xaicli.saliency(nn.Sequential(nn.LazyLinear(3)), x, methods="gradient", device="cpu")

    def failing(linear: nn.Linear, x: Tensor) -> Tensor:
        return {"scores": linear(x)}["boom"]

    with pytest.raises(XaiError, match=r"fails on inputs of shape \(2, 4\) float32: KeyError: 'boom'"):
        xaicli.saliency(Calling(failing), torch.randn(3, 4), methods="gradient", device="cpu")


class Collecting(nn.Module):
    """Hooks that give nothing back collect what forward reads, as backbones of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.body.register_forward_hook(_collect)

    def forward(self, x: Tensor) -> Tensor:
        _COLLECTED.clear()
        self.body(x)
        scores: Tensor = self.head(torch.tanh(_COLLECTED[-1]))
        return scores


_COLLECTED: list[Tensor] = []


def _collect(_module: nn.Module, _given: Any, result: Tensor) -> None:
    _COLLECTED.append(result)


def test_hooks_that_collect_what_forward_reads_stay() -> None:
    model, x = Collecting().eval(), torch.randn(4, 6, requires_grad=True)
    scores = model(x)
    wanted = torch.autograd.grad(scores.max(1).values.sum(), x)[0]
    result = xaicli.saliency(model, x.detach(), methods=("gradient",))
    assert result.predictions.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(result.attributions["gradient"], wanted, atol=1e-6)


class Tapped(nn.Module):
    """Forward reads what its own hook took from the middle of its body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), nn.Linear(5, 3)
        self.taken: Any = {}
        self.tap(self.body[1])

    def tap(self, part: nn.Module) -> None:
        raise NotImplementedError

    def read(self) -> Tensor:
        return self.taken["1"]  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        scores: Tensor = self.head(self.read())
        return scores


class IntoAList(Tapped):
    def tap(self, part: nn.Module) -> None:
        part.register_forward_hook(self.take)

    def take(self, _part: nn.Module, _given: Any, result: Tensor) -> None:
        self.taken.append(result)

    def read(self) -> Tensor:
        return self.taken[0]  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        self.taken = []
        return super().forward(x)


class IntoADictionary(Tapped):
    def tap(self, part: nn.Module) -> None:
        taken = self.taken

        def take(_part: nn.Module, _given: Any, result: Tensor) -> None:
            taken["1"] = result

        part.register_forward_hook(take)


class IntoAnAttribute(Tapped):
    def tap(self, part: nn.Module) -> None:
        part.register_forward_hook(lambda _part, _given, result: setattr(self, "taken", result))

    def read(self) -> Tensor:
        return self.taken  # type: ignore[no-any-return]


class IntoAClosure(Tapped):
    """Both ends are functions of their own, and one of them is an attribute."""

    def tap(self, part: nn.Module) -> None:
        taken = self.taken
        self.reading = lambda: taken["1"]
        part.register_forward_hook(lambda _part, _given, result: taken.update({"1": result}))

    def read(self) -> Tensor:
        return self.reading()  # type: ignore[no-any-return]


class IntoAnObject(Tapped):
    """As the feature extraction of timm: a partial of a method of what is no module."""

    class Features:
        def __init__(self, part: nn.Module) -> None:
            self.by_device: Any = defaultdict(OrderedDict)
            part.register_forward_hook(functools.partial(self.take, "1"))

        def take(self, name: str, *call: Any) -> None:
            self.by_device[call[-1].device][name] = call[-1]

    def tap(self, part: nn.Module) -> None:
        self.features = self.Features(part)

    def read(self) -> Tensor:
        found = self.features.by_device[self.head.weight.device]["1"]
        self.features.by_device = defaultdict(OrderedDict)
        return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [IntoAList, IntoADictionary, IntoAnAttribute, IntoAClosure, IntoAnObject])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("called", [False, True])
def test_what_a_models_own_hooks_hand_on_is_its_copys(kind: type[Tapped], samples: int, called: bool) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(samples, 6)
    scores = model.head(torch.tanh(model.body[0](z := x.clone().requires_grad_())))
    wanted = torch.autograd.grad(scores.max(1).values.sum(), z)[0]
    if called:
        model(x)
    before = model.taken if isinstance(model.taken, Tensor) else copy.copy(model.taken)
    result = xaicli.saliency(model, x, methods=("gradient", "smint"), device="cpu")
    assert result.predictions.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(result.attributions["gradient"], wanted, atol=1e-6)
    assert np.abs(result.attributions["smint"]).max() > 1e-3
    assert model.taken is before if isinstance(before, Tensor) else model.taken == before
    assert torch.equal(model(x), scores)


def test_an_instrument_that_knows_the_models_parts_knows_the_copys() -> None:
    model, x, seen = conv_net(), torch.randn(3, 2, 8, 8), []
    names = {part: name for name, part in model.named_modules()}
    model[4].register_forward_hook(lambda part, _given, _result: seen.append(names[part]))
    wanted = attribute(conv_net(), x, methods=("gradient",)).attributions["gradient"][""]
    found = attribute(model, x, methods=("gradient",)).attributions["gradient"][""]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert set(seen) == {"4"}
    assert len(seen) <= 4


class Normed(nn.Module):
    """Its norm is reached by what is handed on, the module itself by default."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm, self.head = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
        self.drop, self.reach = nn.Dropout(0.5), lambda: self.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.tanh(self.reach()(self.body(x)))))  # type: ignore[no-any-return]


def _by_global(model: Normed) -> None:
    lines = "old = model.forward\ndef again(x): return old(x)\nmodel.forward = lambda x: again(x)"
    exec(lines, {"model": model})


def _by_weak_reference(model: Normed) -> None:
    model.reach = weakref.ref(model.norm)


def _by_a_partial_in_a_list(model: Normed) -> None:
    ways = model.ways = [functools.partial(lambda norm: norm, model.norm)]  # type: ignore[assignment]
    model.reach = lambda: ways[0]()  # type: ignore[operator, index]


@pytest.mark.parametrize("reach", [_by_global, _by_weak_reference, _by_a_partial_in_a_list])
@pytest.mark.parametrize("training", [False, True])
def test_a_model_that_reaches_itself_by_another_name_is_reached_in_its_copy(reach: Any, training: bool) -> None:
    plain, x = Normed().eval(), torch.randn(4, 6)
    scores = plain(z := x.clone().requires_grad_())
    wanted = torch.autograd.grad(scores.amax(1).sum(), z)[0]
    model = Normed().train(training)
    reach(model)
    before = [t.clone() for t in model.buffers()]
    found = xaicli.saliency(model, x, methods="gradient", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], wanted, atol=1e-6)
    assert found.predictions.tolist() == scores.argmax(1).tolist()
    assert all(map(torch.equal, model.buffers(), before))
    assert {m.training for m in model.modules()} == {training}


def test_a_forward_of_a_class_that_reaches_a_model_in_training_mode_is_refused_by_that() -> None:
    class Naming(Normed):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(model.norm(self.body(x)))  # type: ignore[no-any-return]

    model, x = Naming().train(), torch.randn(4, 6)
    before = [t.clone() for t in model.buffers()]
    with pytest.raises(XaiError, match=r"reaches a BatchNorm1d of the model itself.*training mode"):
        xaicli.saliency(model, x, methods="gradient", device="cpu")
    assert all(map(torch.equal, model.buffers(), before))
    assert not model.norm._forward_pre_hooks
    assert xaicli.saliency(model.eval(), x, methods="gradient", device="cpu").attributions["gradient"].any()


class BoundingItself(nn.Linear):
    """Its forward bounds its weights, in one of the ways that people write it."""

    def __init__(self, way: str) -> None:
        super().__init__(6, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        match self.way:
            case "other memory":
                self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.3)
            case "without gradients":
                with torch.no_grad():
                    self.weight.copy_(torch.renorm(self.weight, 2, 0, 0.3))
            case _:
                self.weight.data.mul_(0.3 / self.weight.data.norm(dim=1, keepdim=True).clamp(min=0.3))
        return super().forward(x)


@pytest.mark.parametrize("way", ["other memory", "without gradients", "past autograd"])
@pytest.mark.parametrize("training", [False, True])
def test_weights_that_forward_bounds_are_what_they_were(way: str, training: bool) -> None:
    torch.manual_seed(0)
    model, x = BoundingItself(way).train(training), torch.randn(4, 6)
    weight, before, place = model.weight, model.weight.detach().clone(), model.weight.data_ptr()
    assert float(before.norm(dim=1).max()) > 0.5
    found = xaicli.saliency(model, x, methods="gradient", device="cpu")
    assert model.weight is weight
    assert torch.equal(weight, before)
    assert weight.data_ptr() == place
    bounded = torch.renorm(before, 2, 0, 0.3)
    best = (x @ bounded.T + model.bias).argmax(1)
    assert found.predictions.tolist() == best.tolist()
    np.testing.assert_allclose(found.attributions["gradient"], bounded[best], atol=1e-6)
    head_of(model, x)
    assert torch.equal(weight, before)


def test_a_table_with_a_largest_norm_is_what_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 4, max_norm=1.0), nn.Flatten(), nn.Linear(12, 3))
    before = model[0].weight.detach().clone()
    xaicli.saliency(model, torch.arange(18).view(6, 3), methods="gradient", device="cpu")
    assert torch.equal(model[0].weight, before)


class RunningMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.5).add_(0.5)
        scores: Tensor = self.head(x - self.mean)
        return scores


def test_a_model_that_goes_on_changing_is_refused_by_the_buffer() -> None:
    model = RunningMean().eval()
    with pytest.raises(XaiError, match="forward changes mean in evaluation mode"):
        xaicli.saliency(model, torch.randn(4, 6))
    assert model.mean.eq(0).all()


def test_samples_read_as_steps_are_told() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.head = nn.LSTM(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.steps(x)[0].mean(1))

    with pytest.raises(XaiError, match="steps has batch_first=False"):
        xaicli.saliency(Last().eval(), torch.randn(4, 7, 6))


def test_graphs_as_torch_gives_them_are_explained() -> None:
    model, x = conv_net().eval(), torch.rand(4, 2, 8, 8)
    plain = xaicli.saliency(model, x, methods=("gradient",))
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    frozen = torch.jit.freeze(torch.jit.trace(model, x))  # type: ignore[no-untyped-call]
    for graph in (program, frozen):
        result = xaicli.saliency(graph, x, methods=("gradient",))
        assert result.predictions.tolist() == plain.predictions.tolist()
        np.testing.assert_allclose(result.attributions["gradient"], plain.attributions["gradient"], atol=1e-5)


@pytest.mark.parametrize("target", [None, [0, None, 1, 2]])
def test_targets_that_are_none_are_named(target: Any) -> None:
    with pytest.raises(UsageError, match="target is"):
        xaicli.saliency(conv_net(), torch.rand(4, 2, 8, 8), target=target)


def test_datasets_complex_inputs_and_outputs_without_a_name_are_named() -> None:
    class Size(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(x.abs())

    x = torch.randn(4, 6)
    with pytest.raises(UsageError, match="is a TensorDataset"):
        xaicli.saliency(Size(), torch.utils.data.TensorDataset(x))
    with pytest.raises(XaiError, match="complex"):
        xaicli.saliency(Size(), torch.complex(x, x))
    with pytest.raises(XaiError) as raised:
        xaicli.saliency(Size(), x, output="logits")
    assert raised.value.hint == "it returns one Tensor, without a name"


def test_other_threads_call_their_models_while_one_is_traced() -> None:
    from xaicli.attribution.fast_model import traced

    inside, go_on = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            assert go_on.wait(60)
            return x * 2

    found: list[Any] = []
    tracing = threading.Thread(target=lambda: found.append(traced(nn.Sequential(Waiting(), nn.ReLU()))))
    tracing.start()
    assert inside.wait(60)
    try:
        other, x = conv_net().eval(), torch.rand(2, 2, 8, 8)
        scores = other(x)
    finally:
        go_on.set()
        tracing.join(60)
    assert torch.equal(scores, other(x))
    assert torch.equal(fx.GraphModule(*found[0])(torch.tensor([-1.0, 3.0])), torch.tensor([0.0, 6.0]))


def test_numbers_that_are_said_to_be_probabilities_and_are_none() -> None:
    model, x = nn.Linear(6, 1), torch.randn(4, 6)
    with pytest.raises(XaiError, match=r"the probability of class 1 .*, and runs from -[0-9.]+ to"):
        xaicli.saliency(nn.Sequential(model, Times()), x, task="binary:probabilities")
    sure = nn.Sequential(model, nn.Sigmoid())
    assert xaicli.saliency(sure, x, task="binary:probabilities", methods=("gradient",)).predictions.tolist() == [
        int(p > 0.5) for p in sure(x)[:, 0]
    ]


class Times(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 30


class Lazy(nn.Module):
    """Installs its hooks at its first call, and marks that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.installed = nn.Linear(6, 5), nn.Linear(5, 3), False

    def forward(self, x: Tensor) -> Any:
        if not self.installed:
            self.body.register_forward_hook(_collect)
            self.installed = True
        _COLLECTED.clear()
        self.body(x)
        return self.head(sum(_COLLECTED))


def test_hooks_that_the_first_call_installs_are_installed_once() -> None:
    model, x = Lazy().eval(), torch.randn(4, 6)
    xaicli.saliency(model, x, methods=("gradient",))
    assert not model.body._forward_hooks
    assert torch.equal(model(x), model.head(model.body(x)))


class OneTensor(nn.Module):
    """Takes one batch, and does not say what its argument is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x: Any) -> Tensor:
        return self.net(x)


class ListOfTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, xs: Any) -> Tensor:
        return self.last(xs[0] + 2 * xs[1])


class OneOrTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.last(x if y is None else x + 2 * y)


@pytest.mark.parametrize("model", [OneTensor(), OneTensor().net], ids=["any argument", "a tensor"])
def test_a_list_of_single_samples_is_their_batch_where_forward_takes_one_tensor(model: nn.Module) -> None:
    samples = list(torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    found = xaicli.saliency(model, samples, methods="gradient", precision="fp32", device="cpu")
    whole = torch.stack(samples).requires_grad_()
    scores = model(whole)
    (expected,) = torch.autograd.grad(scores.max(1).values.sum(), whole)
    assert found.predictions.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(found.attributions["gradient"], expected, atol=1e-6)


def test_a_list_stays_several_inputs_where_forward_takes_a_list_or_two_tensors() -> None:
    pair = [torch.ones(5, 4), torch.zeros(5, 4)]
    for model in (ListOfTensors().eval(), OneOrTwo().eval()):
        found = xaicli.saliency(model, pair, methods="gradient", device="cpu")
        row = model.last.weight[found.predictions[0]].detach()
        np.testing.assert_allclose(found.attributions["gradient"]["input0"][0], row, atol=1e-6)
        np.testing.assert_allclose(found.attributions["gradient"]["input1"][0], 2 * row, atol=1e-6)


def test_samples_without_a_batch_are_asked_for_with_the_line_to_type() -> None:
    with pytest.raises(XaiError) as said:
        xaicli.saliency(OneOrTwo(), [torch.ones(4), torch.zeros(4)], methods="gradient", device="cpu")
    assert "torch.stack(inputs) in place of inputs" in said.value.hint
    for one in (torch.ones(3, 8, 8), [torch.ones(3, 8, 8)]):
        with pytest.raises(XaiError) as said:
            xaicli.saliency(OneTensor(), one, methods="gradient", device="cpu")
        assert "x[None] for x" in said.value.hint


class Bounded(nn.Module):
    """As a model with a cache of so many rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.rows: Tensor
        self.register_buffer("rows", torch.zeros(most, 6))

    def forward(self, x: Tensor) -> Tensor:
        self.rows[: len(x)] = x.detach()
        scores: Tensor = self.net(x)
        return scores


@pytest.mark.parametrize("most", [2, 3, 4, 16])
@pytest.mark.parametrize("samples", [3, 40])
def test_a_model_with_a_largest_batch_is_given_no_larger_one(most: int, samples: int) -> None:
    model, x = Bounded(most).eval(), torch.randn(samples, 6, requires_grad=True)
    scores = model.net(x)
    wanted = torch.autograd.grad(scores.max(1).values.sum(), x)[0]
    methods: dict[str, Any] = {"methods": ("gradient", "smoothgrad", "smint"), "device": "cpu"}
    found = xaicli.saliency(model, x.detach(), **methods)
    whole = xaicli.saliency(model.net, x.detach(), **methods)
    assert found.predictions.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(found.attributions["gradient"], wanted, atol=1e-6)
    for method in ("smoothgrad", "smint"):
        np.testing.assert_allclose(found.attributions[method], whole.attributions[method], atol=1e-5)
    assert model.rows.eq(0).all()


def test_what_fails_however_few_there_are_says_so_of_the_first_failure() -> None:
    def of_the_range(linear: nn.Linear, x: Tensor) -> Tensor:
        assert not x.isnan().any(), "not a number"
        return linear(x)

    x = torch.randn(20, 4)
    x[13] = torch.nan
    with pytest.raises(XaiError, match=r"fails on inputs of shape \(20, 4\) float32: not a number"):
        xaicli.saliency(Calling(of_the_range), x, methods="gradient", device="cpu")


def test_a_norm_is_folded_into_the_one_call_of_a_layer_that_it_is_behind() -> None:
    from xaicli.attribution.fast_model import simplified

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm, self.first = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Linear(4, 4)
            self.flat, self.last = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            mixed = self.layer(self.norm(self.layer(x)).relu()).mean((2, 3))
            rows: Tensor = self.last(self.flat(self.first(torch.cat([mixed, mixed * mixed], 1))))
            return rows

    torch.manual_seed(0)
    model = Twice().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.uniform_(0.5, 1.5)
    before, x = copy.deepcopy(model.state_dict()), torch.rand(3, 2, 4, 4)
    expected = model(x)
    small = simplified(model)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in small.modules())
    torch.testing.assert_close(small(x), expected)
    small.to(torch.bfloat16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
