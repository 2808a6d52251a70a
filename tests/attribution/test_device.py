"""What saliency asks of a device, on a make-believe one: where a GPU is, `tests/gpu` asks the same of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from xaicli.attribution import fast_model, gradients, paths
from xaicli.attribution.engine import Explainer
from xaicli.attribution.frozen import RecurrentWithoutCudnn, moved
from xaicli.attribution.gradients import Gradients
from xaicli.attribution.inputs import device_of, instead_of, using
from xaicli.attribution.maps import correlations_there, rank_correlations
from xaicli.attribution.prepared import prepare
from xaicli.attribution.session import in_ieee, in_one_order
from xaicli.attribution.settings import settle
from xaicli.checkpoint.exported import cpu_seconds
from xaicli.state.randomness import randomness_kept, seeded


class FakeGraph:
    """A graph whose replay does the work again, on the same memory."""

    made: ClassVar[list[FakeGraph]] = []
    under_way: FakeGraph | None = None

    def __init__(self) -> None:
        self.again: Any = None
        FakeGraph.made.append(self)

    def replay(self) -> None:
        captured, run, eager = self.again
        for kept, new in zip(captured.gradients, run(captured, eager), strict=True):
            kept.copy_(new)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    """CUDA's streams and graphs, replaced."""

    class Stream:
        def __init__(self, device: Any = None) -> None:
            self.device = device

        def wait_stream(self, other: Any) -> None:
            del other

    @contextmanager
    def nothing(*_: Any) -> Iterator[None]:
        yield

    @contextmanager
    def capture(graph: FakeGraph) -> Iterator[None]:
        FakeGraph.under_way = graph
        yield
        FakeGraph.under_way = None

    own = gradients.Captured._run

    def run(captured: Any, eager: Any) -> list[Tensor]:
        if FakeGraph.under_way is not None:
            FakeGraph.under_way.again = (captured, own, eager)
        return own(captured, eager)

    FakeGraph.made = []
    monkeypatch.setattr(gradients, "EAGER_CHUNKS", 1)
    monkeypatch.setattr(gradients, "_CPU_ROWS", (8, 16))
    for name, value in (
        ("Stream", Stream), ("current_stream", Stream), ("stream", nothing), ("device", nothing), ("graph", capture),
        ("CUDAGraph", FakeGraph), ("synchronize", nothing), ("empty_cache", nothing),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(gradients.Captured, "_run", run)
    return FakeGraph.made


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip


def explainer(n: int, *, with_graphs: bool, **how: Any) -> Explainer:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    made = Explainer(prepare(net(), x, device="cpu"), settle(smoothing=5, integrating=(4, 3), **how))
    if with_graphs:
        for one in (made._gradients, made._behind_stem):
            if one is not None:
                one._graphs = True
    return made


@pytest.mark.parametrize("methods", [("gradient", "smoothgrad"), ("gradient", "smoothgrad", "integrated", "smint")])
def test_groups_of_samples_share_one_captured_graph(graphs: list[FakeGraph], methods: tuple[str, ...]) -> None:
    plain, fast = (explainer(40, with_graphs=one, methods=methods) for one in (False, True))
    for first in range(0, 40, 8):
        units = torch.arange(first, first + 8)
        expected, found = plain.explain(units), fast.explain(units)
        for method, by_input in expected.attributions.items():
            for name, values in by_input.items():
                np.testing.assert_allclose(found.attributions[method][name], values, rtol=1e-4, atol=1e-6)
        assert found.evaluations == expected.evaluations
    assert len(graphs) == 1


def test_the_memory_that_a_graph_reads_keeps_no_history(graphs: list[FakeGraph]) -> None:
    made = explainer(40, with_graphs=True, methods=("gradient", "smoothgrad"))
    made.explain(torch.arange(40))
    captured = next(one._captured for one in (made._gradients, made._behind_stem) if one and one._captured)
    assert graphs
    for kept in (*captured.points, *captured.gradients, captured.units):
        assert kept.grad_fn is None
        assert not kept.requires_grad


def test_a_model_that_cannot_be_captured_runs_as_it_is(
    graphs: list[FakeGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    expected = explainer(16, with_graphs=False).explain()
    found = explainer(16, with_graphs=True).explain()
    np.testing.assert_allclose(found.attributions["smint"][""], expected.attributions["smint"][""], rtol=1e-4)
    assert len(graphs) == 1, "it is tried once"


def test_memory_is_freed_where_no_exception_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = explainer(12, with_graphs=False)
    own, halved = Gradients._eager, []

    def scarce(self: Gradients, points: Any, units: Any) -> Any:
        if len(units) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self, points, units)

    def halve(self: Gradients) -> None:
        halved.append(sys.exc_info()[0])
        self._rows = self.rows // 2

    expected = made.explain()
    monkeypatch.setattr(Gradients, "_eager", scarce)
    monkeypatch.setattr(Gradients, "halve", halve)
    found = explainer(12, with_graphs=False).explain()
    assert halved
    assert not any(halved)
    np.testing.assert_allclose(
        found.attributions["smint"][""], expected.attributions["smint"][""], rtol=1e-3, atol=1e-6
    )


class Dated(nn.Module):
    """Makes tensors on its way, has a recurrent layer and a constant that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        weights = torch.tensor([1.0, 2.0, 3.0])
        hidden, _ = self.lstm(x + place[:, None] + torch.zeros(x.shape[1], 1))
        out: Tensor = self.out(hidden[:, -1]) * weights.to(x.device)
        return out


def test_an_exported_graph_is_moved_with_all_that_it_makes() -> None:
    model = Dated().eval()
    program = torch.export.export(model, (torch.rand(2, 5, 4),), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
    graph = program.module(check_guards=False)
    x = torch.rand(3, 5, 4)
    torch.testing.assert_close(moved(graph, torch.device("cpu"))(x), model(x))
    away = moved(graph, torch.device("meta"))
    assert away(x.to("meta")).device.type == "meta"
    named = [a for node in away.graph.nodes for a in (*node.args, *node.kwargs.values()) if isinstance(a, torch.device)]
    assert named
    assert {one.type for one in named} == {"meta"}


@pytest.mark.parametrize("exported", [False, True])
def test_cudnn_is_off_for_recurrent_layers_alone(exported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = nn.Sequential(nn.Conv1d(4, 4, 1), nn.Flatten(1, 1), nn.LSTM(5, 3, batch_first=True)).eval()
    x = torch.rand(2, 4, 5)
    if exported:
        model = torch.export.export(model, (x,)).module(check_guards=False)
    seen: dict[str, set[bool]] = {}

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for word in ("convolution", "sigmoid", "tanh", "lstm", "rnn_layer"):
                if word in str(func):
                    seen.setdefault(word, set()).add(torch.backends.cudnn.enabled)
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    with torch.no_grad(), RecurrentWithoutCudnn(), Watch():
        model(x)
    assert seen.pop("convolution") == {True}
    assert seen
    assert set().union(*seen.values()) == {False}
    assert torch.backends.cudnn.enabled


def test_float32_is_held_for_products_and_convolutions_and_put_back() -> None:
    places: Any = (
        torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.cudnn.conv,
        torch.backends.cudnn.rnn,
    )  # fmt: skip

    def now() -> list[str]:
        return [place.fp32_precision for place in places]

    before = now()
    try:
        for matmul, conv, rnn in (("none", "tf32", "tf32"), ("tf32", "ieee", "tf32"), ("tf32", "tf32", "tf32")):
            places[1].fp32_precision, places[3].fp32_precision, places[4].fp32_precision = matmul, conv, rnn
            own = now()
            with in_ieee(True):
                assert [place.fp32_precision for place in (places[1], places[3], places[4])] == ["ieee"] * 3
            assert now() == own
            with in_ieee(False):
                assert now() == own
    finally:
        for place, value in zip(places, before, strict=True):
            if place.fp32_precision != value:
                place.fp32_precision = value


def test_sums_have_one_order_while_maps_are_made_and_torch_is_as_before() -> None:
    filling = torch.utils.deterministic.fill_uninitialized_memory
    with in_one_order(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == filling
    torch.use_deterministic_algorithms(True)
    try:
        with in_one_order(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled(), "the caller's own is stricter"
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_random_numbers_of_other_gpus_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask a GPU for its state opens a context on it, some hundred MB."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda": asked.append(device) or torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_, **__: None)
    with randomness_kept(torch.device("cpu")):
        seeded(3, torch.device("cpu"))
    with randomness_kept(torch.device("cpu"), seed=0):
        pass
    assert asked == []
    with randomness_kept(torch.device("cuda", 2), torch.device("cpu")):
        pass
    assert {getattr(one, "index", one) for one in asked} == {2}


def test_all_is_done_on_the_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int | None] = []

    @contextmanager
    def device(given: torch.device) -> Iterator[None]:
        entered.append(given.index)
        yield

    monkeypatch.setattr(torch.cuda, "device", device)
    with using(torch.device("cuda", 1)), using(torch.device("cpu")):
        assert entered == [1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of("auto") == torch.device("cuda", 1)


def test_sums_of_units_have_one_order() -> None:
    rng = np.random.default_rng(0)
    for units in ([0, 0, 0, 1, 1, 4], [2], [0, 1, 2], [3, 3, 3, 3]):
        index = np.array(units)
        values = torch.from_numpy(rng.normal(size=(len(units), 2, 3)))
        expected, found = torch.ones(5, 2, 3, dtype=torch.float64), torch.ones(5, 2, 3, dtype=torch.float64)
        expected.index_add_(0, torch.from_numpy(index), values)
        paths.in_order(found, index, values)
        torch.testing.assert_close(found, expected)


def test_a_chunk_copies_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    made = explainer(4, with_graphs=False)
    problem = made.problem(torch.arange(4))
    stream = paths.plan(made.settings, 4)
    noise = gradients.draws_of(problem.inputs, made.settings.draws, seed=0)
    accumulator = paths.Accumulator(problem, stream, noise, made.settings, guard=False)
    monkeypatch.setattr(torch, "from_numpy", None)
    points, units = accumulator.make(0, 16)
    assert len(points[0]) == len(units) == 16


def test_an_accelerator_without_double_precision_has_the_cpu_instead() -> None:
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    how = {"smoothing": 3, "integrating": (3, 2)}
    expected, found = (xaicli.saliency(net(), x, device=device, **how) for device in ("cpu", "mps"))
    np.testing.assert_array_equal(found.attributions["smint"], expected.attributions["smint"])
    assert device_of("xpu:1") == torch.device("cpu")
    assert "mps is not supported" in instead_of("mps:0")
    assert instead_of("cpu") == instead_of("cuda:1") == ""
    assert any("mps is not supported" in note for note in found.answer.warnings)


def test_a_large_graph_has_longer_to_be_checked() -> None:
    assert cpu_seconds(1000) == 60
    assert cpu_seconds(1 << 30) == 124
    assert cpu_seconds(1 << 50) == 540


def test_a_model_without_convolutions_is_not_copied_again() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    made = Explainer(prepare(model, torch.rand(3, 6), device="cpu"), settle(methods=("gradient", "smoothgrad")))
    own = {p.data_ptr() for p in made.prepared.model.model.parameters()}
    assert {p.data_ptr() for p in made.fast.model.parameters()} == own


def test_the_rest_behind_the_first_layer_shares_the_weights_of_the_whole() -> None:
    made = explainer(3, with_graphs=False)
    assert made._behind_stem is not None
    behind = made._behind_stem.model.model
    whole = {p.data_ptr(): p.numel() for p in (*made.fast.model.parameters(), *made.fast.model.buffers())}
    rest = {p.data_ptr(): p.numel() for p in (*behind.parameters(), *behind.buffers())}
    assert rest
    assert rest.keys() <= whole.keys()


def test_channels_are_last_on_a_gpu_where_its_tensor_cores_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    for tf32, bf16, expected in ((False, False, False), (True, False, True), (False, True, True)):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
        assert fast_model.channels_last_pays(torch.device("cuda"), bf16=bf16) is expected
        assert fast_model.channels_last_pays(torch.device("cpu"), bf16=bf16)


def test_ranks_on_a_device_are_those_of_the_host() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 40, (5, 300), generator=generator).float(), torch.rand(5, 300, generator=generator)
    b[:, :30] = a[:, :30]
    a[3] = 2.0
    found = correlations_there(a, b)
    assert found[3].isnan(), "no contrast"
    for row in (0, 1, 2, 4):
        ranks = [(v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) + 1) / 2 for v in (a[row], b[row])]
        expected = float(np.corrcoef(ranks[0].numpy(), ranks[1].numpy())[0, 1])
        assert float(found[row]) == pytest.approx(expected, abs=1e-12)
        assert rank_correlations(a, b)[row] == pytest.approx(expected, abs=1e-12)


class OwnTokens(nn.Module):
    """Rows of ids with tokens of the model's own around them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.words, self.head = nn.Embedding(12, 5), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        around = torch.cat([ids.new_full((len(ids), 1), 2), ids, ids.new_full((len(ids), 1), 3)], 1)
        scores: Tensor = self.head((self.words(around) * torch.arange(1, 7)[:, None]).sum(1).tanh())
        return scores


def test_tokens_of_the_model_itself_stay_in_a_captured_graph(graphs: list[FakeGraph]) -> None:
    ids = torch.randint(0, 12, (40, 4), generator=torch.Generator().manual_seed(1))
    found = []
    for with_graphs in (False, True):
        settings = settle(methods=("gradient", "integrated"), integrating=(6, 0))
        made = Explainer(prepare(OwnTokens(), ids, device="cpu"), settings)
        made._gradients._graphs = with_graphs
        # Two groups: the second is replayed on other samples than those that were captured.
        found.append([made.explain(units) for units in torch.arange(40).split(20)])
    assert len(graphs) == 1
    for plain, captured in zip(*found, strict=True):
        for method in ("gradient", "integrated"):
            np.testing.assert_allclose(
                captured.attributions[method][""], plain.attributions[method][""], rtol=1e-4, atol=1e-6
            )
            np.testing.assert_allclose(captured.delta[method], plain.delta[method], rtol=1e-3)


def test_a_forward_that_fails_while_it_is_captured_runs_as_it_is(graphs: list[FakeGraph]) -> None:
    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            if FakeGraph.under_way is not None:
                raise RuntimeError("operation not permitted when stream is capturing")
            scores: Tensor = self.net(x)
            return scores

    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for with_graphs in (False, True):
        made = Explainer(prepare(Waiting(), x, device="cpu"), settle(methods=("smoothgrad",), smoothing=9))
        made._gradients._graphs = with_graphs
        found.append(made.explain().attributions["smoothgrad"])
    assert len(graphs) == 1
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-4)
