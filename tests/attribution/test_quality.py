"""Whether a map is any good: the figures of `--evaluate` by hand, and on a net that has learned something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import xaicli
from tests.attribution.nets import Calling
from xaicli.attribution.session import Column, Request, explain
from xaicli.attribution.settings import settle
from xaicli.demo import load_digits
from xaicli.report.model import Table
from xaicli.sources.inputs import Inputs


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A net that reads digits it has not seen, and some of those."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = load_digits(flip=0)
    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.true_label)
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(6):
        for rows in torch.randperm(1500).split(50):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    held_back = images[1500:1532]
    with torch.no_grad():
        assert (model(held_back).argmax(1) == labels[1500:1532]).float().mean() > 0.85
    return model.eval(), held_back, labels[1500:1532]


def quality(result: xaicli.SaliencyResult, method: str, figure: str) -> np.ndarray[Any, Any]:
    return np.array([row[method][figure] for row in result.data["methods"].to_list()])


def test_on_a_trained_net_the_maps_beat_a_random_one(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = trained
    result = xaicli.saliency(model, x, methods=("integrated", "smint"), baseline="zero", evaluate=True, device="cpu")
    for method in ("integrated", "smint"):
        put_in, taken_out = quality(result, method, "insertion"), quality(result, method, "deletion")
        assert (put_in - quality(result, method, "insertion_random")).mean() > 0.1, method
        assert (quality(result, method, "deletion_random") - taken_out).mean() > 0.05, method


def test_insertion_and_deletion_of_a_net_that_adds_up_by_hand() -> None:
    # One class is the sum of four values; the strongest first, each step puts in (takes out) one of them.
    model = Calling(lambda _, x: torch.stack([(x * weights).sum(1), 0 * x.sum(1)], 1))
    weights = torch.tensor([4.0, 1.0, 3.0, 2.0])
    x = torch.ones(2, 4)
    result = xaicli.saliency(
        model, x, methods=("gradient",), target=0, baseline="zero", evaluate=True, device="cpu", task="classification"
    )

    def area(sums: list[float]) -> float:
        """The trapezoid over twenty steps: the n strongest of 4 are in from the first step above n / 4."""
        curve = [float(torch.sigmoid(torch.tensor(sums[int(np.ceil(step / 20 * 4 - 1e-9))]))) for step in range(21)]
        return float(np.trapezoid(curve, dx=1 / 20))

    assert np.allclose(quality(result, "gradient", "insertion"), area([0, 4, 7, 9, 10]), atol=1e-5)
    assert np.allclose(quality(result, "gradient", "deletion"), area([10, 6, 3, 1, 0]), atol=1e-5)


def test_infidelity_is_what_a_slope_leaves_unexplained() -> None:
    # f = x0: its gradient explains every answer; |x0| between two slopes is explained by none of them.
    x = torch.tensor([[0.0, 1.0, -1.0]])
    straight = Calling(lambda _, x: torch.stack([x[:, 0], 0 * x[:, 0]], 1), inputs=3)
    bent = Calling(lambda _, x: torch.stack([x[:, 0].abs() + 1e-3 * x[:, 0], 0 * x[:, 0]], 1), inputs=3)
    given: dict[str, Any] = {
        "methods": ("gradient",), "target": 0, "evaluate": True, "device": "cpu", "task": "classification",
    }  # fmt: skip
    assert quality(xaicli.saliency(straight, x, **given), "gradient", "infidelity")[0] == pytest.approx(0, abs=1e-6)
    assert quality(xaicli.saliency(bent, x, **given), "gradient", "infidelity")[0] > 0.8


def test_sensitivity_is_none_for_a_straight_line_and_known_for_a_parabola() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0], [2.0, 1.0, 5.0]])
    given: dict[str, Any] = {
        "methods": ("gradient",), "target": 0, "evaluate": True, "device": "cpu", "task": "classification",
    }  # fmt: skip
    straight = Calling(lambda _, x: torch.stack([x.sum(1), 0 * x[:, 0]], 1), inputs=3)
    assert np.allclose(quality(xaicli.saliency(straight, x, **given), "gradient", "sensitivity"), 0, atol=1e-6)
    parabola = Calling(lambda _, x: torch.stack([(x**2).sum(1), 0 * x[:, 0]], 1), inputs=3)
    found = quality(xaicli.saliency(parabola, x, **given), "gradient", "sensitivity")
    # The gradient is 2 x: it moves by 2 d, d at most 2 % of the range in each of three values.
    most = 0.02 * (x.amax(1) - x.amin(1)) * 3**0.5 / x.norm(dim=1)
    assert (found > 0).all()
    assert (found <= most.numpy() + 1e-6).all()
    alone = quality(xaicli.saliency(parabola, x[1:], **given), "gradient", "sensitivity")
    assert alone[0] == pytest.approx(found[1], rel=1e-5)


def test_a_map_of_a_randomised_net_is_another(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = trained
    result = xaicli.saliency(model, x[:6], methods=("gradient", "smint"), sanity=True, device="cpu")
    steps = result.saliency.sanity
    assert [step.layer for step in steps] == ["4", "0"]
    assert all(step.similarity["gradient"] < 0.9 for step in steps)
    assert all(step.is_used for step in steps)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.cls, self.aux = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = torch.tanh(self.body(x))
        return {"cls": self.cls(seen), "aux": self.aux(seen)}


class ZeroBranch(nn.Module):
    """A residual branch that begins at zero, a norm as it is made, and a layer that nothing is asked of."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.branch = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.head, self.idle = nn.Linear(8, 3), nn.BatchNorm1d(8)
        nn.init.zeros_(self.branch.weight)
        nn.init.zeros_(self.branch.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.tanh(self.norm(self.body(x)))
        self.idle(seen)
        return self.head(seen + self.branch(seen))


def test_layers_with_constant_weights_are_randomised_and_used() -> None:
    torch.manual_seed(0)
    model, x = ZeroBranch().eval(), torch.randn(6, 6)
    found = xaicli.saliency(model, x, methods=("gradient",), sanity=True, device="cpu").saliency.sanity
    assert {step.layer: step.is_used for step in found} == {
        "body": True, "norm": True, "branch": True, "head": True, "idle": False,
    }  # fmt: skip
    similar = {step.layer: step.similarity["gradient"] for step in found}
    assert similar["branch"] != similar["head"]
    assert similar["norm"] != similar["branch"]


def test_a_layer_below_one_whose_noise_kills_the_net_is_used() -> None:
    """Of the trained net it is asked, where the randomised one answers alike whatever that layer does."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 3)).eval()
    with torch.no_grad():
        model[2].weight.copy_(-1e-3 - 1e-5 * torch.rand(10, 8))
        model[2].bias.copy_(torch.tensor([5.0] + 9 * [-100.0]))  # one unit of ten answers; none does for noise
    x = torch.rand(4, 6)
    found = xaicli.saliency(model, x, methods=("gradient",), sanity=True, device="cpu").saliency.sanity
    assert [(step.layer, step.is_used) for step in found] == [("4", True), ("2", True), ("0", True)]
    assert [step.similarity["gradient"] for step in found[1:]] == [0, 0]  # it is dead by then


class Words(nn.Module):
    """Texts as rows of a table, by one of three ways to look them up."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.words = nn.EmbeddingBag(20, 8, mode="max") if kind == "bag" else nn.Embedding(20, 8)
        self.idle, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        if self.kind == "bag":
            return self.head(torch.tanh(self.words(ids)))
        rows = self.words.weight[ids] if self.kind == "table" else self.words(ids)
        return self.of_rows(rows)

    def of_rows(self, rows: Tensor) -> Tensor:
        return self.head(torch.tanh(rows.amax(1)))


@pytest.mark.parametrize("kind", ["embedding", "table", "bag"])
def test_an_embedding_of_tokens_is_randomised_and_used(kind: str) -> None:
    """Its noise is what is explained then: the maps are those of autograd at the rows of the randomised table."""
    generator = torch.Generator().manual_seed(1)
    model, ids = Words(kind).eval(), torch.stack([torch.randperm(20, generator=generator)[:6] for _ in range(5)])
    found = xaicli.saliency(model, ids, methods=("gradient",), sanity=True, device="cpu").saliency.sanity
    assert {step.layer: step.is_used for step in found} == {"head": True, "idle": False, "words": True}

    target = model(ids).argmax(1)

    def maps() -> np.ndarray[Any, Any]:
        how: dict[str, Any] = {"target": target.tolist(), "methods": ("gradient",), "device": "cpu"}
        return xaicli.saliency(model, ids, **how).maps["gradient"][:, 0]

    before = maps()
    generator = torch.Generator().manual_seed(0)
    for tensor in (model.head.weight, model.head.bias, model.idle.weight, model.words.weight):
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.data = noise * float(tensor.detach().std()) + float(tensor.detach().mean())
    wanted = np.nanmean([spearmanr(a, b).statistic for a, b in zip(before, maps(), strict=True)])
    assert found[-1].similarity["gradient"] == pytest.approx(float(wanted), abs=1e-4)


def test_each_output_and_checkpoint_is_compared_with_its_own_randomised_models() -> None:
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(TwoHeads().eval())
    x = torch.rand(4, 6)
    how: dict[str, Any] = {"methods": ("gradient",), "sanity": True, "device": "cpu", "task": "classification"}
    whole = xaicli.saliency(models[0], x, output=["cls", "aux"], **how)
    steps = whole.saliency.sanity
    assert [(step.output, step.layer, step.is_used) for step in steps] == [
        ("cls", "aux", False), ("cls", "cls", True), ("cls", "body", True),
        ("aux", "aux", True), ("aux", "cls", False), ("aux", "body", True),
    ]  # fmt: skip
    assert steps[0].similarity["gradient"] == pytest.approx(1)
    assert steps[3].similarity["gradient"] < 0.9
    table = next(s.blocks[0] for s in whole.report.sections if s.anchor == "sanity")
    assert isinstance(table, Table)
    assert [column.title for column in table.columns] == ["output", "randomised down to", "Gradient"]
    assert [row[:2] for row in table.rows[2:4]] == [("cls", "body"), ("aux", "aux")]
    assert "not used" in table.rows[0][1]
    assert [(step["output"], step["is_used"]) for step in whole.answer.extra["sanity"]][:2] == [
        ("cls", False), ("cls", True),
    ]  # fmt: skip

    columns = [Column(name, lambda model=model: model) for name, model in zip("ab", models, strict=True)]
    given = Inputs(list(range(4)), {"": x.numpy()})
    settings = settle(methods=("gradient",))

    def request(target: Any) -> Request:
        return Request(
            settings=settings, target=target, outputs=("aux",), task="classification", sanity=True, device="cpu"
        )

    both = explain(columns, given, request("predicted"))
    assert [(step.checkpoint, step.layer) for step in both.sanity[::3]] == [(0, "aux"), (1, "aux")]
    targets = np.array([e.target for e in both.explanations if e.checkpoint == 0])
    for number, column in enumerate(columns):
        alone = explain([column], given, request(targets))
        assert [s.similarity for s in alone.sanity] == [s.similarity for s in both.sanity if s.checkpoint == number]
