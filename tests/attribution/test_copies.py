"""The copy that gradients are taken of holds what the model holds, whatever that is."""

from __future__ import annotations

import copy
import gc
import sqlite3
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from tests.attribution.nets import Calling
from tests.attribution.test_models import state
from xaicli.attribution.copies import copy_of
from xaicli.errors import XaiError
from xaicli.heads.evaluation import evaluating


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_copy_is_what_a_deep_copy_is() -> None:
    class ByHand(nn.Module):
        def __deepcopy__(self, memo: dict[int, Any]) -> ByHand:
            made = memo[id(self)] = ByHand()
            made.by = "hand"
            return made

    class Without(nn.Linear):
        def __getstate__(self) -> dict[str, Any]:
            return {**vars(self), "cache": None}

    without, tied = Without(2, 2), nn.Linear(3, 3)
    without.cache = [torch.ones(2)]
    norm = nn.BatchNorm1d(3)
    model = nn.Sequential(tied, nn.ReLU(), tied, norm, ByHand(), without, nn.LSTM(2, 2))
    model.owner = {"model": [model], "shape": (3, (tied,)), "names": {"a"}}
    model.view = norm.running_mean[:2]
    for sharing in (False, True):
        made = copy_of(model, sharing=sharing)
        assert made[0] is made[2]
        assert made[0] is not tied
        assert made.owner["model"][0] is made
        assert made.owner["shape"][1][0] is made[0]
        assert made.owner["names"] == {"a"}
        assert made.owner["names"] is not model.owner["names"]
        assert made[4].by == "hand"
        assert made[5].cache is None
        assert (made[0].weight.data_ptr() == tied.weight.data_ptr()) is sharing
        assert made[0].weight is not tied.weight
        assert made[3].running_mean.data_ptr() != norm.running_mean.data_ptr()
        made.to(torch.bfloat16)
        assert {t.dtype for t in model.parameters()} == {torch.float32}
        torch.testing.assert_close(made[0].weight.float(), tied.weight, rtol=1e-2, atol=1e-2)


class AttrDict(dict[str, Any]):
    """As vocoders keep their settings."""

    def __init__(self, **held: Any) -> None:
        super().__init__(**held)
        self.__dict__ = self


class ByItem(dict[str, Any]):
    """Raises KeyError for whatever attribute it is asked for."""

    __getattr__ = dict.__getitem__
    __slots__ = ()


class Slotted:
    __slots__ = ("lock", "part", "scale")

    def __init__(self, part: nn.Module) -> None:
        self.part, self.scale, self.lock = part, 2.0, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Dropping:
    """Has something that no pickle would take."""

    def __init__(self) -> None:
        self.scale, self.lock = 2.0, threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"scale": self.scale}


class ByHand:
    def __init__(self) -> None:
        self.settings = AttrDict(scale=2.0, again=ByItem(lock=threading.Lock()))

    def __deepcopy__(self, memo: dict[int, Any]) -> ByHand:
        made = memo[id(self)] = ByHand.__new__(ByHand)
        made.settings = copy.deepcopy(self.settings, memo)
        return made


class Scaled(nn.Module):
    def __init__(self, held: Callable[[Any], Any], scale: Callable[[Any], Any]) -> None:
        super().__init__()
        self.linear, self.norm, self.scale = nn.Linear(4, 3), nn.BatchNorm1d(3), scale
        self.config = held(self)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.norm(self.linear(x)).tanh() * self.scale(self)
        return scores


class Pair(NamedTuple):
    a: Any
    b: Any


def _marked(model: Any) -> Any:
    model.linear.weight.scale = 2.0
    return None


def _counted(model: Any) -> Any:
    model.config.calls.append(0)
    model.config["n"] += 1
    return 2.0 if len(model.config.calls) == model.config.n else 0.0


def _answer(model: Any) -> Any:
    return model.config.execute("select 2.0").fetchone()[0]


def _through_lambda(model: Any) -> Any:
    return model.config.part(torch.ones(1, 4)).mean()


HELD: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "a dictionary that is its own attributes": (lambda _: AttrDict(scale=2.0), lambda m: m.config.scale),
    "one inside of another": (lambda _: [AttrDict(a=AttrDict(scale=2.0))], lambda m: m.config[0].a.scale),
    "itself and the model": (lambda m: AttrDict(scale=2.0, model=[m]), lambda m: m.config.model[0].config.scale),
    "attributes by item": (lambda m: ByItem(scale=2.0, part=m.linear), lambda m: m.config.scale),
    "in slots": (lambda m: Slotted(m.linear), lambda m: m.config.part.bias.sum() + m.config.scale),
    "a lock that its state leaves out": (lambda _: Dropping(), lambda m: m.config.lock.locked() + 2.0),
    "a copy by hand": (lambda _: ByHand(), lambda m: m.config.settings.scale + m.config.settings.again.lock.locked()),
    "attributes of a weight": (_marked, lambda m: m.linear.weight.scale),
    "a connection, which can be called": (lambda _: sqlite3.connect(":memory:"), _answer),
    "parts and a lock in a deque": (
        lambda m: deque([m.linear, threading.Lock()]),
        lambda m: m.config[0](torch.ones(1, 4)).mean(),
    ),
    "a part and a lock in a tuple of names": (
        lambda m: Pair(m.linear, threading.Lock()),
        lambda m: m.config.a.bias.sum(),
    ),
    "functions that reach the model": (lambda m: AttrDict(part=lambda x: m.norm(m.linear(x))), _through_lambda),
    "what forward writes": (lambda _: ByItem(calls=[], n=0), _counted),
    "what forward writes beside": (lambda _: AttrDict(calls=[], n=0), _counted),
    "its parent": (lambda m: [weakref.proxy(m)], lambda m: m.config[0].linear.bias.sum()),
}


@pytest.mark.parametrize("name", HELD)
def test_what_a_model_holds_is_in_its_copy_whatever_a_deep_copy_makes_of_it(name: str) -> None:
    torch.manual_seed(0)
    model, x = Scaled(*HELD[name]).train(), torch.randn(5, 4, requires_grad=True)
    with evaluating(model):
        wanted = torch.autograd.grad(model(x)[:, 1].sum(), x)[0]
    before, held = state(model), repr(model.config) if isinstance(model.config, dict) else ""
    found = xaicli.saliency(model, x.detach(), methods="gradient", target=1, task="regression", device="cpu")
    np.testing.assert_allclose(found.attributions["gradient"], wanted, atol=1e-6)
    after = state(model)
    assert before[:2] == after[:2]
    assert all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True))
    assert held == (repr(model.config) if isinstance(model.config, dict) else "")


def test_what_is_deleted_with_its_holder_outlives_the_copy() -> None:
    with tempfile.NamedTemporaryFile() as file:
        model, x = Scaled(lambda _: file, lambda _: 2.0), torch.randn(3, 4)
        xaicli.saliency(model, x, methods="gradient", target=0, task="regression", device="cpu")
        gc.collect()
        assert not file.closed
        assert Path(file.name).exists()


def test_a_copy_that_alone_fails_is_not_called_a_fault_of_the_inputs() -> None:
    class Lost:
        scale = 2.0

        def __deepcopy__(self, memo: dict[int, Any]) -> None:
            return None

    with pytest.raises(XaiError, match=r"a copy of the model fails where the model itself answers: .*'scale'") as told:
        xaicli.saliency(Scaled(lambda _: Lost(), lambda m: m.config.scale), torch.randn(3, 4), target=0)
    assert "x[None]" not in (told.value.hint or "")


def test_settings_that_raise_for_unknown_names_are_no_configuration() -> None:
    torch.manual_seed(0)
    model, x = Scaled(lambda _: ByItem(scale=2.0, model_type="unet"), lambda m: m.config.scale), torch.randn(3, 4)
    found = xaicli.saliency(model, x, methods="gradient", target=0, device="cpu")
    wanted = torch.autograd.functional.jacobian(lambda x: model.eval()(x)[:, 0].sum(), x)
    np.testing.assert_allclose(found.attributions["gradient"], wanted, atol=1e-6)


def test_an_output_whose_class_raises_for_unknown_names_is_read() -> None:
    class Output:
        def __init__(self, scores: Tensor) -> None:
            self.logits = scores

        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

    for made in (Output, lambda scores: ByItem(logits=scores)):
        model, x = Calling(lambda linear, x, made=made: made(linear(x))), torch.randn(3, 4)
        found = xaicli.saliency(model, x, methods="gradient", target=1, device="cpu")
        np.testing.assert_allclose(
            found.attributions["gradient"], model.linear.weight[1].detach().expand(3, 4), atol=1e-6
        )
