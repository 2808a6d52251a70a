"""The common architectures times what outputs mean, each beside the model's own outputs and autograd's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from tests.attribution.architectures import NAMES, OF_OTHERS, Case, Siamese, Swin, UNet, case


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def called(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, list) else model(inputs)


def over_places(values: Tensor, mask: Tensor | None) -> Tensor:
    """(N, K) of (N, K, *places): the mean over those that count."""
    if values.ndim == 2:
        return values
    flat = values.flatten(2)
    weight = torch.ones_like(flat[:, 0]) if mask is None else mask.to(flat.dtype)
    return (flat * weight[:, None]).sum(2) / weight.sum(1)[:, None]


def expected(given: Case) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """The model's own scores, probabilities and predictions, and the gradient of each sample's target at its inputs."""
    kept: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, result, name=name: kept.setdefault(name, result))
        for name, module in given.embedding.items()
    ]
    named = given.inputs if isinstance(given.inputs, dict) else {"": given.inputs}
    points = {name: x.clone().requires_grad_() if x.is_floating_point() else x for name, x in named.items()}
    values = given.logits(called(given.model, points if isinstance(given.inputs, dict) else points[""]))
    for hook in hooks:
        hook.remove()
    mask = named.get("attention_mask") if values.ndim == 3 else None
    if given.next_token:
        assert mask is not None
        last = (mask * torch.arange(mask.shape[1])).argmax(1)
        values, mask = values[torch.arange(len(values)), :, last], None
    task = given.given.get("task")
    p = values if task == "regression" else values.sigmoid() if task == "multilabel" else values.softmax(1)
    p = over_places(p, mask)
    target = p.argmax(1)
    scores = over_places(values, mask)
    wanted = {name: x for name, x in points.items() if x.is_floating_point()} | kept
    gradients = torch.autograd.grad(scores.gather(1, target[:, None]).sum(), list(wanted.values()))
    return scores, p, target, dict(zip(wanted, gradients, strict=True))


def near(found: Any, values: Tensor, tolerance: float = 1e-4) -> bool:
    scale = float(values.abs().max())
    return np.allclose(found, values.detach().numpy(), atol=tolerance * scale, rtol=0)


def check(given: Case) -> xaicli.SaliencyResult:
    scores, p, target, gradients = expected(given)
    found = xaicli.saliency(
        given.model, given.inputs, methods=("gradient", "integrated"), integrating=(60, 0), baseline="zero",
        device="cpu", **given.given,
    )  # fmt: skip
    if given.given.get("task") == "regression":
        assert np.allclose(found.predictions, scores[:, 0].detach(), atol=1e-5)
        assert found.data["top_prob"].to_list() == [None] * len(scores)
    else:
        assert found.predictions.tolist() == target.tolist()
        assert np.allclose(found.data["top_prob"].to_list(), p.max(1).values.detach(), atol=1e-5)
    by_input = found.attributions["gradient"]
    by_input = by_input if isinstance(by_input, dict) else {next(iter(gradients)): by_input}
    for name, gradient in gradients.items():
        assert near(by_input[name], gradient), name
    if not given.jumps:
        assert np.nanmedian(found.delta["integrated"]) < 0.05
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_answered_as_it_answers_itself(name: str) -> None:
    check(case(name))


@pytest.mark.parametrize("name", OF_OTHERS)
def test_text_models_of_transformers_answer_as_themselves(name: str) -> None:
    pytest.importorskip("transformers")
    check(case(name))


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
@pytest.mark.parametrize(
    "name", ["residual block", "vision transformer", "swin", "lstm", "mlp on a table", "siamese", "two towers"]
)
def test_every_architecture_times_what_its_numbers_mean(name: str, task: str) -> None:
    """Of one architecture the second number, as each task has it explained."""
    given = case(name)
    model = First(given.model) if task == "binary" else given.model
    values = called(model, given.inputs).detach()
    target = 0 if task == "binary" else 1
    asked: Any = "predicted" if task == "binary" else target
    found = xaicli.saliency(model, given.inputs, methods=("gradient",), task=task, target=asked, device="cpu")
    named = given.inputs if isinstance(given.inputs, dict) else {"": given.inputs}
    points = {key: x.clone().requires_grad_() for key, x in named.items() if x.is_floating_point()}
    mine = {**named, **points}
    scalars = called(model, mine if isinstance(given.inputs, dict) else mine[""])[:, target]
    if task == "binary":
        sign = (values[:, 0] > 0).float() * 2 - 1
        scalars = scalars * sign
        assert found.predictions.tolist() == (values[:, 0] > 0).long().tolist()
        assert np.allclose(found.data["top_prob"].to_list(), (values[:, 0] * sign).sigmoid(), atol=1e-5)
    elif task == "multilabel":
        assert np.allclose(found.data["top_prob"].to_list(), values.sigmoid().max(1).values, atol=1e-5)
    else:
        assert np.allclose(found.predictions, values[:, 1], atol=1e-5)
        assert found.data["top_prob"].to_list() == [None] * len(values)
    by_input = found.attributions["gradient"]
    for key, gradient in zip(points, torch.autograd.grad(scalars.sum(), list(points.values())), strict=True):
        assert near(by_input[key] if isinstance(by_input, dict) else by_input, gradient), key


class First(nn.Module):
    """Only the first number of a model."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        first: Tensor = self.inner(*inputs, **named)[:, :1]
        return first


def rows_of(inputs: Any, rows: Sequence[int]) -> Any:
    if isinstance(inputs, dict):
        return {name: x[list(rows)] for name, x in inputs.items()}
    return inputs[list(rows)]


@pytest.mark.parametrize("name", [*NAMES, *OF_OTHERS])
def test_a_sample_is_explained_alike_whatever_stands_beside_it(name: str) -> None:
    if name in OF_OTHERS:
        pytest.importorskip("transformers")
    given = case(name)
    few: dict[str, Any] = {"methods": ("gradient", "smint"), "device": "cpu", "precision": "fp32", **given.given}
    together = xaicli.saliency(given.model, given.inputs, **few)
    alone = xaicli.saliency(given.model, rows_of(given.inputs, [1]), **few)
    for method in few["methods"]:
        both = [r.attributions[method] for r in (alone, together)]
        for key in both[0] if isinstance(both[0], dict) else [None]:
            one, many = (part if key is None else part[key] for part in both)
            assert np.allclose(one[0], many[1], atol=2e-4 * np.abs(many[1]).max()), (method, key)
    assert alone.predictions[0] == pytest.approx(together.predictions[1], rel=1e-5)


def weighted(activation: Tensor, gradient: Tensor, size: Sequence[int]) -> Tensor:
    """Grad-CAM by its formula, of (N, C, h, w)."""
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True))
    return nn.functional.interpolate(cam, size=tuple(size), mode="bilinear", align_corners=False)[:, 0].detach()


def test_gradcam_of_channels_last_activations_is_not_turned() -> None:
    given = case("swin")
    model, x = given.model, given.inputs
    assert isinstance(model, Swin)
    activation = model.features(x).detach().requires_grad_()
    scores = model.head(activation.mean((1, 2)))
    gradient = torch.autograd.grad(scores.max(1).values.sum(), activation)[0]
    cam = weighted(activation.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2), x.shape[2:])
    found = xaicli.saliency(model, x, methods=("gradcam",), device="cpu").attributions["gradcam"].sum(1)
    assert near(found, cam)


def test_gradcam_of_two_pictures_is_of_each_its_own() -> None:
    given = case("siamese")
    model, inputs = given.model, given.inputs
    assert isinstance(model, Siamese)
    towers = {name: model.tower(x).detach().requires_grad_() for name, x in inputs.items()}
    scores = model.head(torch.cat([h.mean((2, 3)) for h in towers.values()], 1))
    gradients = torch.autograd.grad(scores.max(1).values.sum(), list(towers.values()))
    found = xaicli.saliency(model, inputs, methods=("gradcam",), device="cpu").attributions["gradcam"]
    for (name, activation), gradient in zip(towers.items(), gradients, strict=True):
        assert near(found[name][:, 0], weighted(activation, gradient, (9, 9))), name
    assert not np.allclose(found["left"], found["right"])


def test_gradcam_of_a_segmentation_is_before_the_outputs_themselves() -> None:
    given = case("u-net")
    model, x = given.model, given.inputs
    assert isinstance(model, UNet)
    kept: list[Tensor] = []
    hook = model.up.register_forward_hook(lambda _, __, result: kept.append(result))
    values = model(x.clone().requires_grad_())
    hook.remove()
    target = values.softmax(1).mean((2, 3)).argmax(1)
    gradient = torch.autograd.grad(values.mean((2, 3)).gather(1, target[:, None]).sum(), kept[0])[0]
    found = xaicli.saliency(model, x, methods=("gradcam",), task="segmentation", device="cpu")
    assert near(found.attributions["gradcam"][:, 0], weighted(kept[0].detach(), gradient, (8, 8)))


@pytest.mark.parametrize("turned", [False, True])
def test_gradcam_of_a_signal_runs_along_time(turned: bool) -> None:
    class Signal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(3, 5, 3, padding=1), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(1, 2) if turned else x
            return self.head(torch.relu(self.conv(x)).mean(2))

    torch.manual_seed(0)
    model, x = Signal(), torch.randn(2, 3, 20)
    activation = torch.relu(model.conv(x)).detach()
    weights = model.head.weight[1] / 20
    cam = torch.relu((weights[None, :, None] * activation).sum(1)).detach()
    given = x.transpose(1, 2).contiguous() if turned else x
    found = xaicli.saliency(model, given, methods=("gradcam",), target=1, device="cpu")
    assert near(found.attributions["gradcam"].sum(2 if turned else 1), cam)
    assert found.maps["gradcam"].shape == ((2, 20, 3) if turned else (2, 1, 20))


@pytest.mark.parametrize("shape", [(28, 28), (9, 5)])
def test_a_plane_and_a_course_keep_both_their_axes(shape: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 3))
    x = torch.randn(4, *shape)
    found = xaicli.saliency(model, x, methods=("gradient",), target=1, device="cpu")
    assert found.maps["gradient"].shape == (4, *shape)
    strength = model[1].weight[1].abs().detach().reshape(shape).numpy()
    assert np.corrcoef(found.maps["gradient"][0].ravel(), strength.ravel())[0, 1] > 0.99


def test_a_float_mask_beside_ids_is_passed_on_and_the_ids_are_explained() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.head((self.words(ids) * mask[..., None]).sum(1))

    torch.manual_seed(0)
    model, ids = Masked(), torch.randint(0, 20, (3, 5))
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    found = xaicli.saliency(model, [ids, mask], methods=("gradient",), target=2, device="cpu")
    expected = mask[..., None] * model.head.weight[2].detach()
    assert near(found.attributions["gradient"], expected)
    assert any("mask" in note for note in found.answer.warnings)


def test_a_sample_that_is_not_a_number_says_nothing_and_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 6)
    for last in (nn.Identity(), nn.Softmax(1)):
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), last)
        alone = xaicli.saliency(model, x, methods=("gradient",), device="cpu")
        broken = x.clone()
        broken[3, 0] = torch.nan
        found = xaicli.saliency(model, broken, methods=("gradient",), device="cpu")
        assert found.predictions.tolist() == [*alone.predictions[:3].tolist(), -1]
        assert found.data["top_prob"].to_list()[:3] == alone.data["top_prob"].to_list()[:3]
        assert found.data["top_prob"].to_list()[3] is None
        assert np.array_equal(found.attributions["gradient"][:3], alone.attributions["gradient"][:3])
