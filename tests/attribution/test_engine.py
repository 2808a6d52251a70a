"""Attributions against what is known: linear models, completeness, independence of samples, a plain loop."""

from __future__ import annotations

import copy
import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from tests.attribution.attributing import attribute
from tests.attribution.nets import conv_net, smooth_net
from xaicli.attribution.maps import scaled
from xaicli.attribution.paths import Kind, plan
from xaicli.attribution.settings import settle

ALL = ("gradient", "smoothgrad", "integrated", "smint", "gradcam")
TRUST = ("delta", "agreement", "flat")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    z = x.clone().requires_grad_()
    return torch.autograd.grad(model(z).gather(1, target[:, None]).sum(), z)[0]


@pytest.mark.parametrize("baseline", ["mid", "zero", "uniform", "black"])
def test_a_linear_model_is_its_weights(baseline: str) -> None:
    model = nn.Linear(7, 4)
    x = torch.randn(5, 7)
    a = attribute(model, x, target=2, baseline=baseline, methods=("gradient", "integrated"))
    w = model.weight[2].detach()
    assert np.allclose(a.attributions["gradient"][""], w.expand(5, 7))
    integrated = torch.from_numpy(a.attributions["integrated"][""])
    start = x - integrated / w
    if baseline == "zero":
        assert torch.allclose(integrated, w * x, atol=1e-6)
    if baseline == "mid":
        middle = (x.amax(1, keepdim=True) + x.amin(1, keepdim=True)) / 2
        assert torch.allclose(integrated, w * (x - middle), atol=1e-6)
    assert torch.allclose(integrated.sum(1), (w * (x - start)).sum(1), atol=1e-5)
    assert a.delta["integrated"].max() < 1e-4


def test_smoothgrad_of_a_linear_model_is_the_squared_weight_and_signed_the_weight() -> None:
    model = nn.Linear(7, 4)
    x = torch.randn(3, 7)
    w = model.weight[1].detach().numpy()
    for signed, expected in ((False, w**2), (True, w)):
        a = attribute(model, x, target=1, methods=("smoothgrad",), signed=signed)
        assert np.allclose(a.attributions["smoothgrad"][""], np.tile(expected, (3, 1)), atol=1e-6)


def test_one_draw_of_smoothgrad_is_the_squared_gradient_and_of_smint_the_squared_integrated() -> None:
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    a = attribute(model, x, methods=ALL[:4], smoothing=1, integrating=(5, 1), precision="fp32")
    of = {m: a.attributions[m][""] for m in ALL[:4]}
    assert np.allclose(of["smoothgrad"], of["gradient"] ** 2, atol=1e-7)
    assert np.allclose(of["smint"], of["integrated"] ** 2, atol=1e-7)
    signed = attribute(model, x, methods=ALL[:4], smoothing=1, integrating=(5, 1), signed=True)
    assert np.allclose(signed.attributions["smoothgrad"][""], signed.attributions["gradient"][""], atol=1e-7)


def test_gradient_and_integrated_equal_a_plain_loop() -> None:
    model, x = conv_net(), torch.randn(4, 2, 8, 8)
    target = model(x).argmax(1)
    a = attribute(model, x, methods=("gradient", "integrated"), integrating=(7, 1), baseline="zero", precision="fp32")
    assert a.targets.tolist() == target.tolist()
    assert np.allclose(a.attributions["gradient"][""], gradient(model, x, target), atol=1e-5)
    path = sum(gradient(model, x * ((k + 0.5) / 7), target) for k in range(7))
    assert np.allclose(a.attributions["integrated"][""], x * path / 7, atol=1e-5)


def test_smoothgrad_without_noise_is_the_squared_gradient_whatever_the_draws() -> None:
    model, x = conv_net(), torch.randn(2, 2, 8, 8)
    a = attribute(model, x, methods=("gradient", "smoothgrad", "integrated", "smint"), noise=0, smoothing=6)
    assert np.allclose(a.attributions["smoothgrad"][""], a.attributions["gradient"][""] ** 2, rtol=1e-4, atol=1e-7)
    assert np.allclose(a.attributions["smint"][""], a.attributions["integrated"][""] ** 2, rtol=1e-4, atol=1e-7)


def test_smooth_nets_are_complete() -> None:
    model, x = smooth_net().double(), torch.randn(6, 6, dtype=torch.float64)
    a = attribute(model, x, methods=("integrated", "smint"), integrating=(200, 3), baseline="zero", target=0)
    total = a.attributions["integrated"][""].sum(1)
    with torch.no_grad():
        expected = (model(x) - model(torch.zeros_like(x)))[:, 0].numpy()
    assert np.allclose(total, expected, atol=1e-5)
    assert a.delta["integrated"].max() < 1e-3
    assert a.delta["smint"].max() < 1e-3
    assert a.precision == "fp64"


@pytest.mark.parametrize("baseline", ["mid", "uniform", "blur"])
def test_a_map_does_not_depend_on_its_neighbours(baseline: str) -> None:
    model, x = conv_net(), torch.randn(5, 2, 8, 8) * torch.tensor([1.0, 5.0, 0.2, 3.0, 1.0]).view(-1, 1, 1, 1)
    together = attribute(model, x, methods=ALL, baseline=baseline, smoothing=6, integrating=(6, 4))
    for row in (0, 2, 4):
        alone = attribute(model, x[row : row + 1], methods=ALL, baseline=baseline, smoothing=6, integrating=(6, 4))
        for method in ALL:
            assert np.allclose(alone.maps[method][""][0], together.maps[method][""][row], atol=1e-5), method
            assert np.allclose(alone.agreement[method][0], together.agreement[method][row], atol=1e-3, equal_nan=True)


def test_the_same_call_gives_the_same_maps_and_another_seed_others() -> None:
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    first, second, other = (attribute(model, x, seed=seed) for seed in (3, 3, 4))
    for method in first.maps:
        assert np.array_equal(first.attributions[method][""], second.attributions[method][""])
    assert not np.allclose(first.maps["smoothgrad"][""], other.maps["smoothgrad"][""])
    assert np.array_equal(first.maps["gradient"][""], other.maps["gradient"][""])


def test_exact_passes_are_made_where_they_are_asked_for_and_shared_work_is_done_once() -> None:
    model, x = conv_net(), torch.randn(2, 2, 8, 8)
    assert attribute(model, x, smoothing=25).evaluations == 2 * (1 + 24 + 25 + 6 * 25)
    assert attribute(model, x, methods=("smint",), integrating=(25, 7)).evaluations == 2 * 7 * 25
    assert attribute(model, x, convention="fe", methods=("gradient", "integrated")).evaluations == 2 * (1 + 25)
    assert attribute(model, x, methods=("gradient",)).evaluations == 2


@pytest.mark.parametrize("methods", [ALL[:4], ("smint",), ("integrated",), ("smoothgrad",), ("gradient", "smint")])
@pytest.mark.parametrize("budget", [5, 24, 48, 101])
def test_a_budget_is_spent_whole(methods: tuple[str, ...], budget: int) -> None:
    settings = settle(methods=methods, evaluations=budget)
    stream = plan(settings, 3)
    assert settings.evaluations_per_sample == budget
    assert len(stream.unit) == 3 * budget
    paths = np.bincount(stream.term, weights=stream.weight)
    of_paths = np.isin(stream.term_kind, (Kind.INTEGRATED, Kind.SMINT))
    assert np.allclose(paths[of_paths], 1)


def test_the_default_is_a_budget_of_24_and_contradictions_are_refused() -> None:
    from xaicli.errors import UsageError

    assert settle().evaluations_per_sample == settle(evaluations="24").evaluations_per_sample == 24
    assert settle(smoothing=0).methods == ("gradient", "integrated", "smint")
    for wrong in ({"smoothing": 9}, {"integrating": (9, 2)}, {"convention": "fe"}):
        with pytest.raises(UsageError):
            settle(evaluations=24, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "how", [{}, {"evaluations": 24}, {"smoothing": 7, "integrating": (25, 7)}, {"convention": "fe", "smoothing": 7}]
)
def test_a_method_without_random_draws_has_no_agreement(how: dict[str, Any]) -> None:
    """Of three points of Gauss the outer two say nothing of all three: an exact map was called mostly noise."""
    model, x = smooth_net(seed=5), torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    found = attribute(model, x, target=0, **how)
    for method in ("gradient", "integrated"):
        assert np.isnan(found.agreement[method]).all()
    for method in ("smoothgrad", "smint"):
        assert np.isfinite(found.agreement[method]).all()
    assert np.isfinite(found.delta["integrated"]).all()


def test_tolerance_adds_steps_until_delta_settles() -> None:
    model, x = smooth_net(seed=5), 3 * torch.randn(5, 6)
    rough = attribute(model, x, methods=("integrated",), integrating=(2, 1), baseline="zero", target=0)
    settled = attribute(
        model, x, methods=("integrated",), integrating=(2, 1), baseline="zero", target=0, tolerance=0.02
    )
    assert rough.delta["integrated"].max() > 0.02
    assert settled.delta["integrated"].max() < rough.delta["integrated"].max()
    assert settled.evaluations > rough.evaluations


@pytest.mark.parametrize("tolerance", [0.05, 0.02])
def test_with_a_tolerance_each_sample_keeps_its_own_target(tolerance: float) -> None:
    """Some samples settle before others, whose steps are doubled among themselves alone."""
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    model, x = nn.Sequential(*layers).eval(), torch.rand(6, 1, 8, 8)
    how: dict[str, Any] = {"tolerance": tolerance, "methods": ("integrated", "smint"), "baseline": "zero"}
    found = xaicli.saliency(model, x, **how)
    with torch.no_grad():
        answer, nothing = model(x), model(torch.zeros_like(x))
    target = answer.argmax(1, keepdim=True)
    assert len(target.unique()) > 1
    for i in range(len(x)):
        alone = xaicli.saliency(model, x[i : i + 1], **how)
        for method in how["methods"]:
            ours, own = (values.attributions[method] for values in (found, alone))
            np.testing.assert_allclose(ours[i], own[0], atol=1e-4 * float(np.abs(own).max()))
    sums = found.attributions["integrated"].reshape(len(x), -1).sum(1)
    expected = (answer - nothing).gather(1, target)[:, 0].numpy()
    np.testing.assert_allclose(sums, expected, atol=0.2 * float(np.abs(expected).max()))


def path_of_gauss(model: nn.Module, x: torch.Tensor, steps: int) -> np.ndarray[Any, Any]:
    """Integrated gradients of output 0 from zero to one sample in float64, a pass a point."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    wide, model = x.double(), copy.deepcopy(model).double()
    total = torch.zeros_like(wide)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        point = (place * wide).requires_grad_()
        total += weight * torch.autograd.grad(model(point)[0, 0], point)[0]
    return (total * wide)[0].numpy()


@pytest.mark.parametrize("tolerance", [0.05, 0.002])
def test_what_a_tolerance_took_is_said_of_each_sample_and_in_all(tolerance: float) -> None:
    model, x = smooth_net(seed=5), 20 * torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    how: dict[str, Any] = {"baseline": "zero", "target": 0, "methods": "integrated", "evaluations": 2}
    found = xaicli.saliency(model, x, tolerance=tolerance, **how)
    answer = json.loads(found.to_json())
    rows, said = answer["rows"], answer["selection"]
    steps = [row["methods"]["integrated"]["steps"] for row in rows]
    assert set(steps) <= {2, 4, 8, 16}
    assert len(set(steps)) > 1
    assert [row["evaluations"] for row in rows] == steps
    assert (said["passes"], said["evaluations"]) == ([f"integrated in {min(steps)} to {max(steps)} steps"], 2)
    assert said["evaluations_per_sample"] == [min(steps), max(steps)]
    for row, its_steps in enumerate(steps):
        expected = path_of_gauss(model, x[row : row + 1], its_steps)
        np.testing.assert_allclose(found.attributions["integrated"][row], expected, atol=1e-5 * np.abs(expected).max())
    beyond = [row["methods"]["integrated"]["delta"] > tolerance for row in rows]
    assert [not row["methods"]["integrated"]["settled"] for row in rows] == beyond
    assert all(n == 16 for n, is_beyond in zip(steps, beyond, strict=True) if is_beyond)
    assert any(beyond) is (tolerance < 0.01)
    assert [text.split(" samples")[0] for text in answer["warnings"]] == (
        [f"{sum(beyond)} of 6"] if any(beyond) else []
    )
    page = found.html()
    assert f"{min(steps)} to {max(steps)}</" in page
    assert ("did not settle within" in page) is (", not settled" in page or ">not settled" in page) is any(beyond)
    assert ">steps<" in page


@pytest.mark.parametrize(
    "methods", [("smint",), ("smoothgrad",), ("integrated", "smint"), ("gradient", "smoothgrad", "integrated")]
)
@pytest.mark.parametrize("signed", [False, True])
def test_maps_of_a_tolerance_are_those_of_the_passes_that_it_says(methods: tuple[str, ...], signed: bool) -> None:
    model, x = smooth_net(seed=5), 3 * torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    how: dict[str, Any] = {"baseline": "zero", "target": 0, "signed": signed, "noise": 0.05}
    found = xaicli.saliency(model, x, methods=methods, smoothing=4, integrating=(2, 3), tolerance=0.1, **how)
    said = json.loads(found.to_json())
    for row, of in enumerate(said["rows"]):
        for method in methods:
            draws, steps = of["methods"][method]["draws"], of["methods"][method]["steps"]
            passes = {"smoothing": draws or 1, "integrating": (steps or 1, draws or 1)}
            again = xaicli.saliency(model, x[row : row + 1], methods=method, **passes, **how)
            expected = again.attributions[method][0]
            ours = found.attributions[method][row]
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    for method, text in zip([m for m in methods if m != "gradient"], said["selection"]["passes"], strict=True):
        told = [row["methods"][method] for row in said["rows"]]
        numbers = [int(n) for n in re.findall(r"\d+", text)]
        for part in ("draws", "steps"):
            counts = {one[part] for one in told} - {None}
            assert {min(counts), max(counts)} <= set(numbers) if counts else True
    gradient = [row["methods"].get("gradient", {"settled": None})["settled"] for row in said["rows"]]
    assert gradient == [None] * 5


class Words(nn.Module):
    """A text model, whose map sums over what a token is embedded as."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(20, 12), nn.Linear(12, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.words(ids).cumsum(1)).mean(1))


def texts_and_signals() -> list[tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(3)
    signals = nn.Sequential(nn.Conv1d(3, 4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    return [(Words().eval(), torch.randint(0, 20, (5, 7))), (signals, torch.randn(5, 3, 40))]


@pytest.mark.parametrize("tolerance", [0.05, 0.01])
@pytest.mark.parametrize("place", [0, 1], ids=["texts", "signals"])
def test_a_map_has_settled_by_the_agreement_that_is_shown_of_it(place: int, tolerance: float) -> None:
    """Of maps, which sum over what a token is embedded as or over channels, as of explicit calls of each round."""
    model, x = texts_and_signals()[place]
    how: dict[str, Any] = {"methods": "smoothgrad", "precision": "fp32"}
    rounds = [
        [row["methods"]["smoothgrad"]["agreement"] for row in json.loads(found.to_json())["rows"]]
        for found in (xaicli.saliency(model, x, smoothing=n, **how) for n in (3, 6, 12, 24))
    ]
    found = json.loads(xaicli.saliency(model, x, smoothing=3, tolerance=tolerance, **how).to_json())["rows"]
    for row, of in enumerate(found):
        agreements = [one[row] for one in rounds]
        near = [value >= 1 - tolerance for value in agreements]
        steady = [False, *(abs(b - a) <= tolerance for a, b in itertools.pairwise(agreements))]
        ends = next((n for n, ok in enumerate(map(max, near, steady)) if ok), None)
        said = of["methods"]["smoothgrad"]
        assert said["settled"] is (ends is not None)
        assert said["draws"] == 3 * 2 ** (3 if ends is None else ends)
        assert said["agreement"] == pytest.approx(agreements[3 if ends is None else ends], abs=0.05)


def test_draws_that_a_tolerance_adds_to_one_have_an_agreement() -> None:
    model, x = smooth_net(seed=5), 3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    how: dict[str, Any] = {"target": 0, "baseline": "zero"}
    found = json.loads(xaicli.saliency(model, x, evaluations=8, tolerance=1e-6, **how).to_json())
    told = [row["methods"]["smoothgrad"] for row in found["rows"]]
    assert {1, 8} >= {one["draws"] for one in told} >= {8}
    assert [one["agreement"] is not None for one in told] == [one["draws"] > 1 for one in told]
    assert [one["settled"] is not None for one in told] == [one["draws"] > 1 for one in told]
    unsettled = sum(one["settled"] is False for one in told)
    assert unsettled
    assert f"smoothgrad {unsettled}" in found["warnings"][0]


def test_draws_are_doubled_and_no_steps_where_deltas_are_within_a_tolerance() -> None:
    model, x = smooth_net(seed=5), 3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    how: dict[str, Any] = {"target": 0, "baseline": "zero", "smoothing": 3, "integrating": (80, 1)}
    found = xaicli.saliency(model, x, methods=("integrated", "smoothgrad"), tolerance=0.01, **how)
    rows = json.loads(found.to_json())["rows"]
    assert all(row["methods"]["integrated"]["delta"] < 0.01 for row in rows)
    assert {row["methods"]["integrated"]["steps"] for row in rows} == {80}
    assert max(row["methods"]["smoothgrad"]["draws"] for row in rows) > 3


def test_the_rows_say_nothing_of_a_tolerance_where_none_is_asked_for() -> None:
    said = json.loads(xaicli.saliency(smooth_net(seed=5), torch.randn(2, 6), target=0).to_json())
    assert said["selection"]["evaluations_per_sample"] == said["selection"]["evaluations"] == 24
    assert all("evaluations" not in row and set(row["methods"]["smint"]) == {*TRUST} for row in said["rows"])


@pytest.mark.parametrize(
    ("methods", "budget", "said"),
    [
        (("smint",), 1, (1, 1)),
        (("smint",), 2, (1, 2)),
        (("smint",), 3, (1, 3)),
        (("smint",), 7, (2, 3)),
        (("integrated", "smint"), 2, (1, 2)),
        (("integrated", "smint"), 24, (7, 3)),
    ],
)
def test_a_path_that_a_budget_cuts_short_is_said_as_it_is(
    methods: tuple[str, ...], budget: int, said: tuple[int, int]
) -> None:
    settings = settle(methods=methods, evaluations=budget)
    assert settings.passes_of("smint") == said
    stream = plan(settings, 1)
    lengths = np.bincount(stream.term)[np.isin(stream.term_kind, (Kind.SMINT, Kind.INTEGRATED))]
    assert said[1] in lengths.tolist()


def test_a_map_is_clipped_at_the_99th_percentile() -> None:
    m = np.arange(200, dtype=np.float32).reshape(10, 20)
    picture, flat = scaled(m)
    assert not flat
    assert np.allclose(picture, np.clip(m / 197.0, 0, 1))
    five = np.zeros((28, 28), dtype=np.float32)
    five[3, 2:7] = [1, 2, 3, 4, 5]
    picture, flat = scaled(five)
    assert not flat
    assert np.allclose(picture[3, 2:7], [0.2, 0.4, 0.6, 0.8, 1.0])
    zero, flat = scaled(np.full((3, 4), 2.5, dtype=np.float32))
    assert flat
    assert not zero.any()


def test_flat_maps_are_zero_and_flagged() -> None:
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.zero_()
    a = attribute(model, torch.randn(2, 4))
    for method in a.maps:
        assert a.flat[method].all()
        assert not a.maps[method][""].any()


def test_gradcam_is_the_weighted_activation() -> None:
    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    target = model(x).argmax(1)
    activation = model[:6](x).detach().requires_grad_()
    score = model[6:](activation).gather(1, target[:, None]).sum()
    weights = torch.autograd.grad(score, activation)[0].mean((2, 3), keepdim=True)
    cam = torch.relu((weights * activation).sum(1, keepdim=True)).detach()
    wide = nn.functional.interpolate(cam, size=(8, 8), mode="bilinear", align_corners=False)
    found = attribute(model, x, methods=("gradcam",)).attributions["gradcam"][""].sum(1)
    assert np.allclose(found, wide[:, 0], atol=1e-5)


def test_gradcam_takes_the_last_call_of_a_module_that_is_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True), nn.Linear(2, 3)

        def features(self, x: Tensor) -> Tensor:
            return self.relu(self.conv(self.relu(self.conv(x))))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean((2, 3)))

    torch.manual_seed(3)
    model, x = Twice(), torch.randn(2, 2, 6, 6)
    activation = model.features(x).detach()
    weights = model.head.weight[1].view(1, 2, 1, 1) / 36
    expected = torch.relu((weights * activation).sum(1)).detach()
    found = attribute(model, x, target=1, methods=("gradcam",)).attributions["gradcam"][""].sum(1)
    assert np.allclose(found, expected, atol=1e-6)
    graph = torch.export.export(model, (x,)).module()
    found = attribute(graph, x, target=1, methods=("gradcam",)).attributions["gradcam"][""].sum(1)
    assert np.allclose(found, expected, atol=1e-6)


def test_bf16_keeps_the_ranks() -> None:
    from xaicli.attribution.maps import rank_correlation

    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    full = attribute(model, x, methods=("smint",), precision="fp32")
    half = attribute(model, x, methods=("smint",), precision="bf16")
    assert half.precision == "bf16"
    for a, b in zip(full.maps["smint"][""], half.maps["smint"][""], strict=True):
        assert rank_correlation(a, b) > 0.98


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: a graph of one chunk is captured there")
def test_a_captured_graph_gives_the_same_maps() -> None:
    model, x = conv_net(), torch.randn(4, 2, 8, 8)
    here = attribute(model, x, device="cpu", precision="fp32")
    there = attribute(model, x, device="cuda", precision="fp32")
    assert np.allclose(here.maps["integrated"][""], there.maps["integrated"][""], atol=1e-3)


def test_the_first_layer_is_done_once_per_path_for_modules_and_graphs() -> None:
    from xaicli.attribution.fast_model import Parted, simplified

    model, x = conv_net(), torch.randn(4, 2, 8, 8)
    graph = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("b", min=1)},)).module()
    for whole in (model, graph):
        made = simplified(whole, in_two=True)
        assert isinstance(made, Parted)
        stem = made.stem
        assert torch.allclose(stem.output(x), model(x), atol=1e-5)
        shift = torch.randn_like(x)
        change = stem.forward(x + shift) - stem.forward(x)
        g = torch.randn_like(change)
        # The transposed layer: <A d, g> = <d, A' g>.
        assert torch.allclose((change * g).sum(), (shift * stem.transposed(g, x)).sum(), rtol=1e-3)
    assert not isinstance(simplified(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), in_two=True), Parted)


def test_a_model_that_asks_for_the_number_of_rows_is_parted_and_one_that_reads_its_input_twice_is_not() -> None:
    from xaicli.attribution.fast_model import Parted, simplified

    class Patches(nn.Module):
        def __init__(self, again: float) -> None:
            super().__init__()
            self.patches, self.head, self.again = nn.Conv2d(2, 6, 4, 4), nn.Linear(6, 3), again

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2).reshape(x.shape[0], x.size(0) // x.size(0) * 4, 6)
            result = self.head(tokens.tanh().mean(1))
            return result + self.again * x.mean((1, 2, 3))[:, None] if self.again else result

    torch.manual_seed(0)
    x = torch.randn(3, 2, 8, 8)
    assert not isinstance(simplified(Patches(1.0), in_two=True), Parted)
    model = Patches(0.0)
    made = simplified(model, in_two=True)
    assert isinstance(made, Parted)
    assert torch.allclose(made(x), model(x), atol=1e-6)
    target = model(x).argmax(1)
    found = attribute(model, x, methods=("integrated",), integrating=(5, 1), baseline="zero")
    path = sum(gradient(model, x * ((k + 0.5) / 5), target) for k in range(5))
    assert np.allclose(found.attributions["integrated"][""], x * path / 5, atol=1e-6)


def test_chunk_sizes_do_not_change_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.attribution import gradients

    model, x = conv_net(), torch.randn(3, 2, 8, 8)
    expected = attribute(model, x)
    monkeypatch.setattr(gradients, "_CPU_ROWS", (1, 7))
    found = attribute(model, x)
    for method in expected.maps:
        assert np.allclose(expected.maps[method][""], found.maps[method][""], atol=1e-4), method


@pytest.mark.parametrize(
    "methods", [("integrated",), ("integrated", "smint"), ("gradient", "smoothgrad", "integrated")]
)
@pytest.mark.parametrize("steps", range(1, 11))
def test_a_path_of_a_linear_net_is_exact_in_any_number_of_steps(steps: int, methods: tuple[str, ...]) -> None:
    """Its gradient is its weights everywhere, so a path's mean gradient is too, however few points it has."""
    torch.manual_seed(0)
    net, x = nn.Linear(5, 3).eval(), torch.rand(4, 5)
    draws = 3 if "smint" in methods else 0
    given = xaicli.saliency(net, x, methods=methods, integrating=(steps, draws), baseline="zero")
    budget = xaicli.saliency(net, x, methods="integrated", evaluations=steps, baseline="zero")
    for found in (given, budget):
        expected = net.weight.detach()[torch.as_tensor(found.targets)] * x
        assert np.allclose(found.attributions["integrated"], expected, atol=1e-6)
        assert np.allclose(found.delta["integrated"], 0, atol=1e-5)
