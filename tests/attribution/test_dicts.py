"""Models whose forward takes its batch as one dict or list: maps of each input beside autograd, and from ckpt.pt."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from xaicli.checkpoint.load import load_checkpoint
from xaicli.checkpoint.save import save_checkpoint
from xaicli.errors import XaiError

FAST = {"methods": ["gradient", "integrated"], "integrating": 8, "precision": "fp32"}


class Two(nn.Module):
    """A picture and a row of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 5), nn.Linear(4, 5)

    def both(self, image: Tensor, row: Tensor) -> Tensor:
        return torch.tanh(self.a(image.flatten(1))) * 3 + self.b(row).sin()


class Plain(Two):
    def forward(self, batch):  # type: ignore[no-untyped-def]
        return self.both(batch["image"], batch["row"])


class Annotated(Two):
    def forward(self, batch: Mapping[str, Tensor], scale: float = 1.0) -> Tensor:
        return self.both(batch["image"], batch["row"]) * scale


class Emptied(Two):
    """It takes what it reads out of the dict."""

    def forward(self, batch, train=False, extra=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        return {"logits": self.both(batch.pop("image") * 2, batch.pop("row"))}


class Passing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Plain()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class Listed(Two):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return self.both(parts[0], parts[1])


def test_one_list_of_inputs_that_have_names(tmp_path: Path) -> None:
    """A dict is tried first, of which a list has no position 0; the note says what each input went in as."""
    torch.manual_seed(0)
    batch = {"image": torch.rand(3, 3, 2, 2), "row": torch.randn(3, 4)}
    model = Listed().eval()
    points = [x.clone().requires_grad_() for x in batch.values()]
    logits = model(points)
    gradients = torch.autograd.grad(logits.amax(1).sum(), points)
    found = xaicli.saliency(model, batch, **FAST)
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    for name, gradient in zip(batch, gradients, strict=True):
        assert np.allclose(found.attributions["gradient"][name], gradient, atol=1e-5)
    assert "forward takes its inputs together, as one list: image, row" in found.saliency.notes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=batch)
    again = xaicli.saliency(load_checkpoint(tmp_path / "ckpt.pt").model, batch, **FAST)
    assert again.predictions.tolist() == found.predictions.tolist()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"image": torch.rand(3, 3, 2, 2), "row": torch.randn(3, 4)}


@pytest.mark.parametrize("kind", [Plain, Annotated, Emptied, Passing])
def test_one_dict_of_the_inputs(kind: type[nn.Module], batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = kind().eval()
    before = {name: x.clone() for name, x in batch.items()}
    found = xaicli.saliency(model, batch, **FAST)
    points = {name: x.clone().requires_grad_() for name, x in batch.items()}
    result: Any = model({name: x.clone() for name, x in points.items()})
    logits = result if isinstance(result, Tensor) else result["logits"]
    gradients = torch.autograd.grad(logits.amax(1).sum(), list(points.values()))
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    for name, gradient in zip(points, gradients, strict=True):
        assert np.allclose(found.attributions["gradient"][name], gradient, atol=1e-5)
        assert torch.equal(before[name], batch[name])
    assert "forward takes its inputs together, as one dict: image, row" in found.saliency.notes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=batch)
    loaded = load_checkpoint(tmp_path / "ckpt.pt")
    assert loaded.facts.input_names == ("image", "row")
    again = xaicli.saliency(loaded.model, {"row": batch["row"], "image": batch["image"]}, **FAST)
    for name in batch:
        assert np.allclose(found.attributions["integrated"][name], again.attributions["integrated"][name], atol=1e-5)


def test_one_dict_in_half_precision_and_of_one_input() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)

        def forward(self, batch):  # type: ignore[no-untyped-def]
            return self.out(batch["x"])

    model, x = One(), torch.rand(2, 4)
    found = xaicli.saliency(model, {"x": x}, methods="gradient", precision="bf16")
    weight = model.out.weight[model.out(x).argmax(1)].detach()
    assert np.allclose(found.attributions["gradient"], weight, atol=0.01)


def test_one_list_of_the_inputs(batch: dict[str, Tensor], tmp_path: Path) -> None:
    model, given = Listed(), list(batch.values())
    found = xaicli.saliency(model, given, **FAST)
    points = [x.clone().requires_grad_() for x in given]
    gradients = torch.autograd.grad(model(points).amax(1).sum(), points)
    for found_of_one, gradient in zip(found.attributions["gradient"].values(), gradients, strict=True):
        assert np.allclose(found_of_one, gradient, atol=1e-5)
    save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=given)
    graph = load_checkpoint(tmp_path / "ckpt.pt").model
    assert torch.allclose(graph(*given), model(given), atol=1e-6)


def test_a_graph_that_was_exported_with_a_dict(batch: dict[str, Tensor]) -> None:
    model = Plain()
    program = torch.export.export(model, (batch,))
    found = xaicli.saliency(program, {"row": batch["row"], "image": batch["image"]}, **FAST)  # type: ignore[arg-type]
    direct = xaicli.saliency(model, batch, **FAST)
    for name in batch:
        assert np.allclose(found.attributions["gradient"][name], direct.attributions["gradient"][name], atol=1e-5)


def test_a_name_that_neither_way_knows_is_told(batch: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="takes no 'picture', nor one dict"):
        save_checkpoint(Plain(), tmp_path / "a.pt", example_inputs={"picture": batch["image"], "row": batch["row"]})


def test_names_that_forward_does_not_know_are_told_with_what_they_became() -> None:
    class Named(nn.Module):
        def forward(self, image: Tensor, depth: Tensor) -> Tensor:
            return torch.cat([image.sum(1, keepdim=True), 2 * depth.sum(1, keepdim=True)], 1)

    x = torch.rand(3, 4)
    given = {"methods": "gradient", "precision": "fp32", "task": "classification"}
    found = xaicli.saliency(Named(), {"img": x, "deep": x + 1}, **given)
    assert [note for note in found.answer.warnings if "img as image, deep as depth" in note]
    np.testing.assert_allclose(found.attributions["gradient"]["deep"], 2)
    known = xaicli.saliency(Named(), {"depth": x + 1, "image": x}, **given)
    assert not [note for note in known.answer.warnings if "order" in note]
    assert not [note for note in xaicli.saliency(Named(), (x, x), **given).answer.warnings if "order" in note]


@pytest.mark.parametrize(
    ("part", "said"),
    [({"row": torch.rand(3, 4)}, "is a dict of its own: row"), (["a", "b", "c"], "holds texts"), (3, "one value")],
)
def test_entries_that_are_no_arrays_are_told_for_what_they_are(part: object, said: str) -> None:
    with pytest.raises(XaiError, match=f"'more' .*{said}"):
        xaicli.saliency(Plain(), {"image": torch.rand(3, 12), "more": part})
