"""A model in evaluation mode for a while: by its own methods, and back to what it was, whoever asks."""

from __future__ import annotations

import copy
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import xaicli
from xaicli.errors import XaiError
from xaicli.heads.decision import head_of
from xaicli.heads.evaluation import buffers_kept, evaluating

X = torch.linspace(-2, 2, 48).reshape(8, 6).sin()
Y = torch.arange(8) % 3


class LowRank(nn.Linear):
    """A frozen layer with a low-rank addition that `eval()` merges into the weight and `train()` takes out again."""

    def __init__(self) -> None:
        super().__init__(6, 8)
        self.weight.requires_grad = False
        self.a, self.b = nn.Parameter(torch.randn(2, 6) / 2), nn.Parameter(torch.randn(8, 2) / 2)
        self.merged = False

    def train(self, mode: bool = True) -> LowRank:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.b @ self.a)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.weight, self.bias)
        return y if self.merged else y + x @ self.a.T @ self.b.T


class Signed(nn.Module):
    """Its modes differ by nothing but an attribute that its own `train()` sets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.sign = nn.Linear(6, 3), 1.0

    def train(self, mode: bool = True) -> Signed:
        super().train(mode)
        self.sign = 1.0 if mode else -1.0
        return self

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.sign * self.layer(x)
        return found


class Fused(nn.Module):
    """`eval()` puts one layer in the place of two; nothing brings the two back."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)

    def eval(self) -> Fused:
        super().eval()
        if hasattr(self, "two"):
            fused = nn.Linear(6, 3)
            fused.weight.data = self.one.weight.data + self.two.weight.data
            fused.bias.data = self.one.bias.data + self.two.bias.data
            self.one, self.scale = fused, 1.0
            del self.two
        return self

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.one(x) + self.two(x) if hasattr(self, "two") else self.one(x) * self.scale
        return found


def low_rank() -> nn.Module:
    return nn.Sequential(LowRank(), nn.ReLU(), nn.Linear(8, 3))


def with_a_frozen_part() -> nn.Module:
    model = nn.Sequential(LowRank(), nn.BatchNorm1d(8), nn.Linear(8, 3), nn.Dropout(0.5))
    model.train()
    model[0].eval()  # merged, and stays so
    model[1].eval()
    return model


def collected(model: nn.Module, folder: Path) -> list[int]:
    run = xaicli.init(folder)
    table = xaicli.Table.from_arrays(X, Y, name="v")
    found = xaicli.collect_metrics(table, xaicli.ClassificationMetricsCollector(["a", "b", "c"]), model, split="val")
    run.close()
    return [int(v) for v in found.tables["metrics"].column("predicted").to_pylist()]


def explained(model: nn.Module, _: Path) -> list[int]:
    return [int(v) for v in xaicli.saliency(model, X, methods="gradient", device="cpu").predictions]


def asked(model: nn.Module, _: Path) -> list[int]:
    answers: list[int] = []

    def seen(_module: nn.Module, _given: Any, result: Tensor) -> None:
        answers[:] = result.argmax(1).tolist()

    hook = model.register_forward_hook(seen)
    head_of(model, X)
    hook.remove()
    return answers


def saved(model: nn.Module, folder: Path) -> list[int]:
    from xaicli.checkpoint.load import load_checkpoint

    with xaicli.Run(folder) as run:
        path = run.save_checkpoint(model, example_inputs=X[:2])
    answers: list[int] = load_checkpoint(path).model(X).argmax(1).tolist()
    return answers


DOORS = (collected, explained, asked, saved)
MODELS = (low_rank, Signed, Fused, with_a_frozen_part)


CALLS = [(build, door) for build in MODELS for door in DOORS[:3]] + [(Signed, saved)]


@pytest.mark.parametrize(("build", "door"), CALLS)
def test_it_answers_by_its_own_eval_and_trains_on_as_if_nothing_had_been(
    build: Callable[[], nn.Module], door: Callable[[nn.Module, Path], list[int]], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = build()
    given = copy.deepcopy(model).eval()
    expected = given(X).argmax(1).tolist()
    gradients = trained(copy.deepcopy(model))
    parts, modes = list(model.named_modules()), [module.training for module in model.modules()]
    weights = {name: p.clone() for name, p in model.named_parameters()}
    kept = [(id(p), p.requires_grad) for p in model.parameters()]
    attributes = [{k: v for k, v in vars(m).items() if isinstance(v, bool | float)} for m in model.modules()]

    assert door(model, tmp_path / "run") == expected

    assert list(model.named_modules()) == parts
    assert [module.training for module in model.modules()] == modes
    assert [(id(p), p.requires_grad) for p in model.parameters()] == kept
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert [{k: v for k, v in vars(m).items() if isinstance(v, bool | float)} for m in model.modules()] == attributes
    now = trained(model)
    assert now.keys() == gradients.keys()
    assert all(torch.equal(now[name], gradients[name]) for name in now)


def trained(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(0)
    functional.cross_entropy(model(X), Y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_model_that_is_there_already_is_not_asked_again() -> None:
    class Adds(nn.Linear):
        def eval(self) -> Adds:
            self.weight.data += 1
            return super().eval()

    model = Adds(2, 2).eval()
    before = model.weight.clone()
    with evaluating(model):
        assert torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)


def test_after_an_error_it_is_as_it_was() -> None:
    model = low_rank()
    before = model[0].weight.clone()  # type: ignore[index]

    def fails() -> None:
        with evaluating(model):
            assert model[0].merged  # type: ignore[index]
            raise RuntimeError("of mine")

    with pytest.raises(RuntimeError, match="of mine"):
        fails()
    assert model.training
    assert not model[0].merged  # type: ignore[index]
    assert torch.equal(model[0].weight, before)  # type: ignore[index]


def test_an_eval_that_fails_is_named_and_undone() -> None:
    class Broken(nn.Linear):
        def eval(self) -> Broken:
            super().eval()
            raise ValueError("nothing to merge")

    model = nn.Sequential(nn.Dropout(), Broken(2, 2))
    model.eval = lambda: model[1].eval()  # type: ignore[method-assign, misc, assignment, return-value]
    with (
        pytest.raises(XaiError, match=r"eval\(\) of the model's Sequential fails: ValueError: nothing to merge"),
        evaluating(model),
    ):
        pass
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("door", [collected, explained, asked])
def test_a_train_that_trains_is_not_called(door: Callable[[nn.Module, Path], list[int]], tmp_path: Path) -> None:
    """Its dropout is off all the same."""

    class Trains(nn.Sequential):
        def train(self, loader: Any, epochs: int = 3) -> None:  # type: ignore[override]
            raise AssertionError((loader, epochs))

        def eval(self, loader: Any) -> float:  # type: ignore[override]
            raise AssertionError(loader)

    torch.manual_seed(0)
    layers = nn.Linear(6, 8), nn.Dropout(0.9), nn.Linear(8, 3)
    expected = nn.Sequential(*layers).eval()(X).argmax(1).tolist()
    model = Trains(*(layer.train() for layer in layers))
    assert door(model, tmp_path / "run") == expected
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(nn.BatchNorm1d(8), "uses statistics of the batch"), (nn.Dropout(0.5), "draws random numbers")],
)
def test_what_its_own_eval_leaves_in_training_is_refused_or_told(layer: nn.Module, reason: str, tmp_path: Path) -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.kept, self.last = nn.Linear(6, 8), layer, nn.Linear(8, 3)

        def train(self, mode: bool = True) -> Keeps:
            super().train(mode)
            self.kept.train(True)
            return self

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(self.kept(self.first(x)))
            return found

    model = Keeps().eval()
    with pytest.raises(XaiError, match=f"kept {reason}"):
        xaicli.saliency(model, X, methods="gradient", device="cpu")
    with pytest.warns(UserWarning, match=f"kept {reason}"):
        collected(model, tmp_path / "run")


def test_a_part_put_into_training_by_hand_is_told() -> None:
    import json

    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    expected = model(X).argmax(1).tolist()
    model[1].train()
    found = xaicli.saliency(model, X, methods="gradient", device="cpu")
    assert [int(v) for v in found.predictions] == expected
    assert json.loads(found.to_json())["warnings"] == [
        "1 had been put into training mode in a model in evaluation mode; explained is its evaluation mode"
    ]
    assert [module.training for module in model.modules()] == [False, False, True, False]


class Writing(nn.Module):
    """Its forward writes in evaluation mode, too: each way that another's code does it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer, self.calls = how, nn.Linear(6, 3), 0
        self.part = nn.Module()
        self.part.register_buffer("seen", torch.zeros(3))
        self.register_buffer("bank", torch.zeros(0))
        self.register_buffer("kept", torch.full((2,), torch.nan), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        match self.how:
            case "in place":
                self.part.seen += 1  # type: ignore[operator, assignment]
            case "past autograd":
                self.part.seen.data.add_(1)  # type: ignore[operator, union-attr]
            case "assigned":
                self.bank = x[:2].detach().clone()
            case "resized":
                self.bank.resize_(4).fill_(len(x))
            case "not saved":
                self.kept.copy_(x[0, :2])
            case _:
                self.calls += 1
        return found


def buffers_of(model: nn.Module) -> list[tuple[str, list[float]]]:
    return [(name, b.nan_to_num(-1).flatten().tolist()) for name, b in model.named_buffers()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("door", DOORS[:3])
@pytest.mark.parametrize("how", ["in place", "past autograd", "assigned", "resized", "not saved", "counted"])
def test_what_forward_writes_in_evaluation_mode_is_put_back(
    how: str, door: Callable[[nn.Module, Path], list[int]], training: bool, tmp_path: Path
) -> None:
    model = Writing(how).train(training)
    expected = model.layer(X).argmax(1).tolist()
    held = [id(b) for b in model.buffers()]
    assert door(model, tmp_path / "run") == expected
    assert buffers_of(model) == [("bank", []), ("kept", [-1.0, -1.0]), ("part.seen", [0.0, 0.0, 0.0])]
    assert [id(b) for b in model.buffers()] == held
    assert not model.calls
    model(X)
    assert how in ("counted", "assigned", "resized", "not saved") or model.part.seen.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("door", [collected, explained])
def test_a_model_that_learns_its_quantisation_trains_on_as_if_nothing_had_been(
    door: Callable[[nn.Module, Path], list[int]], tmp_path: Path
) -> None:
    """Observers of `torch.ao` move their range in evaluation mode, by an operation that autograd does not count."""
    from torch.ao import quantization

    torch.manual_seed(0)
    layers = quantization.QuantStub(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)
    model = nn.Sequential(*layers).train()
    model.qconfig = quantization.get_default_qat_qconfig("x86")  # type: ignore[assignment]
    quantization.prepare_qat(model, inplace=True)
    model(X / 4)
    before, alone = buffers_of(model), trained(copy.deepcopy(model))
    if door is collected:
        door(model, tmp_path / "run")
    else:
        with pytest.raises(XaiError, match=r"0\.activation_post_process answers otherwise each time") as caught:
            door(model, tmp_path / "run")
        assert "model.apply(torch.ao.quantization.disable_observer)" in caught.value.hint
    assert buffers_of(model) == before
    now = trained(model)
    assert all(torch.equal(now[name], alone[name]) for name in alone)
    assert buffers_of(model) != before
    if door is explained:
        model.apply(quantization.disable_observer)
        assert door(model.eval(), tmp_path / "run") == model(X).argmax(1).tolist()


class Meter:
    """What people count with."""

    def __init__(self) -> None:
        self.n, self.sums = 0, [0.0]


class Shared(Meter):
    """Something that another thread works on, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Settings(dict[str, Any]):
    """Whose attributes are its items, and whose own ways of writing are none."""

    def __init__(self, **held: Any) -> None:
        super().__init__(**held)
        self.__dict__ = self

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("no")

    clear = update  # type: ignore[assignment]


class Log(list[int]):
    """A list with a number of its own."""

    def __init__(self) -> None:
        super().__init__([3])
        self.n = 0


class Keeping(nn.Module):
    """Its forward keeps something of every pass, each way that another's code does it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls, self.last = nn.Linear(6, 3), 0, [[0.0]]
        self.seen: list[int] = []
        self.recent: deque[int] = deque([7], maxlen=2)
        self.by_size: dict[int, list[float]] = defaultdict(list, {8: [1.0]})
        self.order = OrderedDict.fromkeys("ab")
        self.tally, self.sizes = Counter(a=2), {1}
        self.bank, self.parts, self.array = torch.zeros(3), (torch.zeros(2), {"deep": [[0]]}), np.zeros(2)
        self.meter, self.plain, self.shared = Meter(), SimpleNamespace(n=0), Shared()
        self.settings, self.log = Settings(n=0, lists=[[0]]), Log()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        self.calls, self.last = self.calls + 1, found.tolist()
        self.seen.append(len(x))
        self.recent.append(len(x))
        self.by_size[len(x)].append(0.0)
        self.by_size[len(self.by_size)] = []
        self.order.move_to_end("a")
        self.tally["a"] += 1
        self.sizes.add(len(x))
        self.bank[0] += 1
        self.parts[0].data.add_(1)
        self.parts[1]["deep"][0].append(1)  # type: ignore[index]
        self.array += 1
        self.meter.n += 1
        self.meter.sums[0] += 1
        self.plain.n += 1
        self.settings.n += 1
        self.settings.lists[0].append(len(x))
        self.log.append(len(x))
        self.log.n += 1
        self.shared.n += 1
        return found

    def kept(self) -> tuple[Any, ...]:
        tensors = self.bank.tolist(), self.parts[0].tolist(), self.array.tolist()
        counts = self.meter.n, self.meter.sums[0], self.plain.n, list(self.order), self.parts[1]["deep"][0]  # type: ignore[index]
        return copy.deepcopy((self.calls, self.last, self.seen, list(self.recent), dict(self.by_size), self.tally)), (
            *tensors,
            *copy.deepcopy(counts),
            set(self.sizes),
            (self.settings.n, list(self.settings.lists[0]), list(self.log), self.log.n),
        )


@pytest.mark.parametrize("door", DOORS[:3])
def test_what_forward_keeps_is_put_back_by_value(door: Callable[[nn.Module, Path], list[int]], tmp_path: Path) -> None:
    model = Keeping()
    expected, before = model.layer(X).argmax(1).tolist(), model.kept()
    held = [id(value) for value in (model.seen, model.by_size, model.bank, model.array, model.meter)]
    assert door(model, tmp_path / "run") == expected
    assert model.kept() == before
    assert [id(value) for value in (model.seen, model.by_size, model.bank, model.array, model.meter)] == held
    assert model.recent.maxlen == 2
    assert model.shared.n > 0  # what has a lock is another thread's as well, and left alone
    model(X)
    assert model.kept() != before


def test_a_gradient_under_way_and_buffers_of_any_layout_are_left_alone() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("edges", torch.eye(6).to_sparse())
            self.register_buffer("scale", torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = torch.sparse.mm(self.edges, x.T).T * self.scale
            self.scale.data.mul_(2)
            return found

    model, x = Graph(), X.clone().requires_grad_()
    loss = (x * model.scale).sum()
    with evaluating(model):
        model(X)
        model(X)
        assert model.scale.tolist() == [4.0] * 6
    assert model.scale.tolist() == [1.0] * 6
    assert torch.equal(model.edges.to_dense(), torch.eye(6))
    loss.backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(8, 6))


def test_what_lazy_layers_make_of_themselves_in_their_first_pass_stays() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(affine=False))
    with evaluating(model):
        expected = model(X)
    assert torch.equal(model.eval()(X), expected)


def test_what_differs_each_time_with_the_same_random_numbers_is_not_called_random() -> None:
    class Goes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(6, 3), [0]

        def forward(self, x: Tensor) -> Tensor:
            self.seen[0] += 1
            found: Tensor = self.layer(x) * self.seen[0]
            return found

    with pytest.raises(XaiError, match="two passes over the same samples differ: Goes answers otherwise each time"):
        xaicli.saliency(Goes(), X, methods="gradient", device="cpu")


def test_of_buffers_on_a_device_one_answer_is_waited_for() -> None:
    class There(torch.Tensor):
        is_cuda = True

    model = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(9))).eval()
    for module in model:
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer.as_subclass(There)
    asked = 0

    class Asked(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal asked
            asked += str(func) in ("aten.equal.default", "aten._local_scalar_dense.default", "aten.is_nonzero.default")
            return func(*args, **(kwargs or {}))

    with Asked(), buffers_kept(model):
        model(torch.rand(2, 3))
    assert asked == 1
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with buffers_kept(model):
        model[4].running_mean.data.fill_(7.0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
