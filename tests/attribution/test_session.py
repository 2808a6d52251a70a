"""Whole calls: the command line on a recorded run, several checkpoints, interrupted and shared work."""

from __future__ import annotations

import gc
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.attribution.nets import conv_net
from xaicli.api.picks import Choice
from xaicli.attribution import gradients
from xaicli.attribution.session import Column, Request, explain, explain_alike
from xaicli.attribution.settings import settle
from xaicli.attribution.store import Store
from xaicli.checkpoint.facts import CheckpointFacts, Kind
from xaicli.demo import build_model, load_digits
from xaicli.errors import InterruptedWorkError
from xaicli.layout import RunLayout
from xaicli.reader import open_reader
from xaicli.recorder.run import Run
from xaicli.sources.inputs import Inputs, Positions

Xai = Callable[..., tuple[int, str, str]]
ARCH = ("--arch", "xaicli.demo:build_model")
COUNTED = logging.getLogger("tests.counted")
FEW = ("--smoothing", "3", "--integrating", "4,2", "--no-progress")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight digits with kept inputs and two checkpoints; sample 3 has the highest loss, 5 the lowest."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("saliency") / "run"
    digits, model = load_digits(), build_model()
    ids, images, label = digits.sample_id[:8], digits.images[:8], digits.label[:8]
    with Run(folder, label_names=[str(n) for n in range(10)]) as run:
        run.log_inputs(ids, images, label=label)
        for epoch in run.epochs(2):
            loss = np.ones(8, dtype=np.float32)
            loss[3], loss[5] = 9, 0.1
            run.log_samples(sample_id=ids, label=label, loss=loss, mode="eval", epoch=epoch, step=epoch)
            path = folder / "checkpoints" / f"ckpt-{epoch}.pt"
            run.save_checkpoint(model, path, example_inputs=torch.from_numpy(images[:2]))
            with torch.no_grad():
                model[-1].weight += 0.2 * torch.randn_like(model[-1].weight)
        run.save_checkpoint(model, example_inputs=torch.from_numpy(images[:2]))
    return folder


def test_maps_from_a_checkpoint_alone(run_dir: Path, xai: Xai, tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoint = run_dir / "checkpoints" / "ckpt.pt"
    status, text, error = xai("saliency", "--model", checkpoint, "--samples", 3, *FEW, "--json", "-o", out)
    assert status == 0, error
    answer = json.loads(text)
    assert [row["sample_id"] for row in answer["rows"]] == [0, 1, 2]
    assert set(answer["rows"][0]) == {
        "sample_id",
        "label",
        "target",
        "prediction",
        "label_prob",
        "top_prob",
        "methods",
    }
    assert set(answer["rows"][0]["methods"]) == {"gradient", "smoothgrad", "integrated", "smint"}
    assert {Path(path).name for path in answer["outputs"]} >= {"saliency.html", "saliency.json", "maps.npz"}
    assert all(Path(path).is_file() for path in answer["outputs"])
    with np.load(out / "maps.npz", allow_pickle=False) as maps:
        assert maps["smint"].shape == (3, 8, 8)
        assert maps["attribution/smint"].shape == (3, 1, 8, 8)
        assert maps["sample_id"].tolist() == [0, 1, 2]
        assert maps["target"].tolist() == [row["target"] for row in answer["rows"]]
        assert maps["integrated"].max() <= 1.0
        assert maps["integrated"].min() >= 0.0


@pytest.mark.parametrize(
    ("metric", "worst"), [("jaccard", 1), ("token_accuracy", 1), ("worst_token_loss", 0), ("iou", 1)]
)
def test_the_worst_are_at_the_bad_end_of_their_metric(tmp_path: Path, metric: str, worst: int) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0, 1, 2], **{metric: [0.9, 0.1, 0.5]}, mode="eval", epoch=1)
    source: Any = SimpleNamespace(sample_ids=[0, 1, 2], pairs=None)
    found, _ = Choice(samples=1, pick="worst", metric=metric).of(source, open_reader(RunLayout(tmp_path / "run")), 0)
    assert found == Positions([worst])


@pytest.mark.parametrize(("pick", "first"), [("worst", 3), ("best", 5)])
def test_samples_by_the_logged_metric(run_dir: Path, xai: Xai, tmp_path: Path, pick: str, first: int) -> None:
    status, text, error = xai(
        "saliency",
        run_dir,
        "--model",
        "ckpt.pt",
        "--samples",
        2,
        "--pick",
        pick,
        "--methods",
        "gradient",
        *ARCH,
        "--json",
        "--format",
        "json",
        "-o",
        tmp_path,
    )
    assert status == 0, error
    assert json.loads(text)["rows"][0]["sample_id"] == first


def test_several_checkpoints_share_samples_targets_and_draws(run_dir: Path, xai: Xai, tmp_path: Path) -> None:
    status, text, error = xai(
        "saliency",
        run_dir,
        "--model",
        "ckpt-*.pt",
        "--ids",
        "4,2",
        *FEW,
        *ARCH,
        "--json",
        "--format",
        "json",
        "-o",
        tmp_path,
    )
    assert status == 0, error
    answer = json.loads(text)
    assert [(row["sample_id"], row["checkpoint"]) for row in answer["rows"]] == [
        (4, "ckpt-1"),
        (4, "ckpt-2"),
        (2, "ckpt-1"),
        (2, "ckpt-2"),
    ]
    targets = [row["target"] for row in answer["rows"]]
    assert targets[0] == targets[1]
    assert targets[2] == targets[3]
    assert answer["changes"]
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as maps:
        assert maps["checkpoint"].tolist() == ["ckpt-1", "ckpt-2", "ckpt-1", "ckpt-2"]


def test_each_column_holds_the_maps_of_its_own_checkpoint(xai: Xai, tmp_path: Path) -> None:
    """Named last first, so that neither the order given nor that of the file names is that of the columns."""
    digits = load_digits()
    images = torch.from_numpy(digits.images[:3])
    np.savez(tmp_path / "x.npz", x=images.numpy(), y=digits.label[:3], sample_id=np.array([30, 10, 20]))
    models = {}
    for epoch, name in ((9, "a"), (2, "b"), (5, "c")):
        torch.manual_seed(epoch)
        models[name] = build_model().eval()
        torch.save({"model": models[name].state_dict(), "epoch": epoch}, tmp_path / f"{name}.pt")
    named = [part for name in ("a", "c", "b") for part in ("--model", tmp_path / f"{name}.pt")]
    how = ("--methods", "gradient,integrated", "--integrating", "4,0", "--baseline", "zero", "--no-progress")
    given = ("--data", tmp_path / "x.npz", "--ids", "10,30", *ARCH, *how)
    status, text, error = xai("saliency", *named, *given, "--json", "--format", "json", "-o", tmp_path / "out")
    assert status == 0, error
    rows = json.loads(text)["rows"]
    assert [(row["sample_id"], row["checkpoint"]) for row in rows] == [(i, c) for i in (10, 30) for c in "bca"]
    with np.load(tmp_path / "out" / "maps.npz", allow_pickle=False) as maps:
        found = dict(maps)
    assert found["checkpoint"].tolist() == [row["checkpoint"] for row in rows]
    for at, row in enumerate(rows):
        x, target = images[[30, 10, 20].index(row["sample_id"])][None], row["target"]
        model = models[row["checkpoint"]]
        assert row["prediction"] == int(model(x).argmax())

        def slope(z: torch.Tensor, model: torch.nn.Module = model, target: int = target) -> torch.Tensor:
            z = z.clone().requires_grad_()
            return torch.autograd.grad(model(z)[:, target].sum(), z)[0]

        path = torch.stack([slope(x * alpha) for alpha in (0.125, 0.375, 0.625, 0.875)]).mean(0) * x
        assert np.allclose(found["attribution/gradient"][at], slope(x)[0], atol=1e-5)
        assert np.allclose(found["attribution/integrated"][at], path[0], atol=1e-5)


def test_checkpoints_are_in_memory_one_after_another(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    from xaicli.api.opening import Opening, find_place
    from xaicli.api.picks import Choice
    from xaicli.api.saliency import explain_run
    from xaicli.checkpoint.facts import LoadedModel

    alive: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
    together: list[int] = []
    whole = Opening.build

    def build(self: Opening, contents: Any, *, device: str = "cpu") -> LoadedModel:
        loaded = whole(self, contents, device=device)
        alive.add(loaded.model)
        gc.collect()
        together.append(len(alive))
        return loaded

    monkeypatch.setattr(Opening, "build", build)
    place = find_place(run_dir, ["ckpt*.pt"])
    asked: dict[str, Any] = {"methods": "gradient", "evaluations": None}
    found = explain_run(place, Opening(arch=ARCH[1]), Choice(ids=["1"]), settings=asked)
    assert [column.name for column in found.saliency.checkpoints] == ["ckpt-1", "ckpt-2", "ckpt"]
    assert together == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nothing.pt"), "no checkpoint 'nothing.pt'"),
        (("--target", "cat"), "no target 'cat'"),
        (("--methods", "magic"), "no saliency method 'magic'"),
        (("--ids", "77"), "77"),
        (("--pick", "nicest"), "no pick 'nicest'"),
        (("--samples", "0"), "samples is 0"),
        (("--integrating", "a,b"), "--integrating takes numbers"),
        (("--captum", "Magic"), "no Captum method 'Magic'"),
        (("--output-key", "7"), "no output '7'"),
    ],
)
def test_wrong_words_are_named(
    run_dir: Path, xai: Xai, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    status, _, error = xai("saliency", run_dir, *ARCH, *arguments, "--format", "json", "-o", tmp_path)
    assert status in (1, 2)
    assert message in error
    assert "hint:" in error


def digits(n: int = 6) -> Inputs:
    found = load_digits()
    return Inputs(found.sample_id[:n].tolist(), {"": found.images[:n]}, found.label[:n].tolist())


class Rows(logging.Handler):
    """Collects what is logged of rows: a list that forward itself fills is part of what the model answers by."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        self.rows.append(int(str(record.args[0])))


class Counting(torch.nn.Module):
    """A model that logs the rows it is differentiated at, copies included."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = build_model().eval()

    def forward(self, x: torch.Tensor) -> Any:
        if torch.is_grad_enabled() and len(x) > 2:  # two rows show which way the inputs take
            COUNTED.info("%d", len(x))
        return self.inner(x)


def counted() -> tuple[Column, list[int]]:
    handler = Rows()
    COUNTED.handlers[:] = [handler]
    COUNTED.setLevel(logging.INFO)
    return Column("", Counting), handler.rows


def request(**changes: Any) -> Request:
    return Request(settings=settle(smoothing=3, integrating=(4, 2)), label_names=tuple("0123456789"), **changes)


@pytest.mark.parametrize("evaluate", [False, True])
def test_samples_of_a_large_model_are_kept_as_they_are_finished(
    evaluate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one group all would be lost; no more are counted than are kept."""
    torch.manual_seed(0)
    # Of a large model eight rows are a pass, and eight passes hold two samples of 24 evaluations.
    monkeypatch.setattr(gradients, "_CPU_TARGET", 1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    told: list[tuple[int, float]] = []
    stop = (2, 1.0)

    def progress(done: int, _: int, under_way: float) -> None:
        told.append((done, under_way))
        assert done <= len(list(tmp_path.glob("*.npz")))
        if (done, under_way) >= stop:
            raise KeyboardInterrupt

    asked = Request(settings=settle(), task="classification", store=tmp_path, evaluate=evaluate)
    if not evaluate:
        with pytest.raises(InterruptedWorkError, match=r"^2 of 6 samples are finished and kept"):
            explain([Column("", lambda: model.eval())], digits(6), asked, progress=progress)
        assert told[-1][0] == len(list(tmp_path.glob("*.npz"))) == 2
    stop = (3, 0.0)
    # What is explained is kept, where the interrupt comes while it is.
    with pytest.raises(InterruptedWorkError, match=r"^4 of 6 samples are finished and kept"):
        explain([Column("", lambda: model.eval())], digits(6), asked, progress=progress)
    assert len(list(tmp_path.glob("*.npz"))) == 4
    stop = (7, 0.0)
    explain([Column("", lambda: model.eval())], digits(6), asked, progress=progress)
    assert told[-1] == (6, 0.0)


def test_samples_of_several_shapes_are_counted_together_where_they_are_interrupted(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(4, 3))
    small, large = (Inputs(list(ids), {"": np.ones((len(ids), 1, n, n), "f4")}) for ids, n in (("abc", 4), ("de", 6)))

    def progress(done: int, total: int, _: float) -> None:
        assert (total, done <= len(list(tmp_path.glob("*.npz")))) == (5, True)
        if done == 4:
            raise KeyboardInterrupt

    asked = Request(settings=settle(methods=["gradient"]), task="classification", store=tmp_path)
    parts = [([0, 1, 2], small), ([3, 4], large)]
    with pytest.raises(InterruptedWorkError, match=r"^5 of 5 samples are finished and kept"):
        explain_alike([Column("", lambda: model.eval())], parts, asked, progress=progress)


def test_the_seeds_batch_is_counted_once(tmp_path: Path) -> None:
    column, _ = counted()
    asked = Request(settings=settle(smoothing=3, integrating=(4, 2), convention="fe"), store=tmp_path)
    explain([column], digits(3), asked)
    sorted(tmp_path.glob("*.npz"))[0].unlink()
    seen: list[float] = []
    explain([column], digits(3), asked, progress=lambda done, _, under_way: seen.append(done + under_way))
    assert max(seen) == seen[-1] == 3


def test_an_interrupt_says_that_nothing_is_kept_where_that_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    column, _ = counted()

    def progress(done: int, *_: float) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedWorkError, match=r"^no maps are kept$"):
        explain([column], digits(3), request(store=tmp_path / "file" / "cache"), progress=progress)


def test_finished_samples_are_not_done_again(tmp_path: Path) -> None:
    column, rows = counted()
    whole = explain([column], digits(), request(store=tmp_path))
    assert sum(rows) > 0
    assert len(list(tmp_path.glob("*.npz"))) == 6
    first = sum(rows)
    again = explain([column], digits(), request(store=tmp_path))
    assert sum(rows) == first
    victim = sorted(tmp_path.glob("*.npz"))[0]
    victim.write_bytes(victim.read_bytes()[:100])  # what a torn disk leaves is no answer
    mended = explain([column], digits(), request(store=tmp_path))
    assert first < sum(rows) < 2 * first
    for a, b, c in zip(whole.explanations, again.explanations, mended.explanations, strict=True):
        assert a.sample_id == b.sample_id == c.sample_id
        assert a.trust == b.trust
        for m, n, o in zip(a.maps, b.maps, c.maps, strict=True):
            assert np.array_equal(m.values, n.values)
            assert np.allclose(m.values, o.values, atol=1e-5)


def test_what_a_tolerance_took_is_said_of_every_checkpoint_and_of_kept_maps(
    run_dir: Path, xai: Xai, tmp_path: Path
) -> None:
    told = []
    for _ in range(2):
        options = ("--methods", "integrated", "--evaluations", 2, "--tolerance", 0.02, *ARCH, "--no-progress")
        status, text, error = xai(
            "saliency", run_dir, "--model", "ckpt-*.pt", *options, "--json", "--format", "json,csv", "-o", tmp_path
        )
        assert status == 0, error
        told.append(json.loads(text))
    first, kept = told
    assert first["rows"] == kept["rows"]
    assert (first["selection"], first["warnings"]) == (kept["selection"], kept["warnings"])
    steps = [row["methods"]["integrated"]["steps"] for row in first["rows"]]
    assert len(steps) == 16
    assert first["selection"]["passes"] == [f"integrated in {min(steps)} to {max(steps)} steps"]
    assert first["selection"]["evaluations_per_sample"] == [min(steps), max(steps)]
    assert [row["evaluations"] for row in first["rows"]] == steps
    left = {row["sample_id"] for row in first["rows"] if not row["methods"]["integrated"]["settled"]}
    said = [text for text in first["warnings"] if "did not settle" in text]
    assert [text.split(" samples")[0] for text in said] == ([f"{len(left)} of 8"] if left else [])
    lines = (tmp_path / "saliency.csv").read_text().splitlines()
    assert {"evaluations", "steps", "draws", "settled"} <= set(lines[0].split(","))
    assert len(lines) == 17


def test_ranks_share_the_samples_out(tmp_path: Path) -> None:
    column, _ = counted()
    alone = explain([column], digits(), request())
    other = explain([column], digits(), request(store=tmp_path, rank=1, world_size=2))
    assert [e.sample_id for e in other.explanations] == [1, 3, 5]
    together = explain([column], digits(), request(store=tmp_path, rank=0, world_size=2))
    assert [e.sample_id for e in together.explanations] == [0, 1, 2, 3, 4, 5]
    for a, b in zip(alone.explanations, together.explanations, strict=True):
        assert np.allclose(a.maps[-1].values, b.maps[-1].values, atol=1e-5)


def test_progress_reaches_the_number_of_samples() -> None:
    column, _ = counted()
    seen: list[tuple[float, int]] = []
    explain([column], digits(3), request(), progress=lambda done, total, _: seen.append((done, total)))
    assert seen[-1][0] == 3
    assert {total for _, total in seen} == {3}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_maps_are_scored_and_compared_with_randomised_models() -> None:
    column, _ = counted()
    found = explain([column], digits(3), request(evaluate=True, sanity=True))
    figures = found.explanations[0].trust["integrated"].quality
    assert set(figures) == {
        "insertion",
        "deletion",
        "insertion_random",
        "deletion_random",
        "infidelity",
        "sensitivity",
    }
    assert 0 <= figures["insertion"] <= 1  # type: ignore[operator]
    assert found.sanity[0].layer.endswith("8")
    assert all(-1 <= value <= 1 for step in found.sanity for value in step.similarity.values())


def test_the_gradient_of_a_linear_model_has_no_infidelity() -> None:
    model = torch.nn.Linear(6, 3)
    inputs = Inputs([0, 1], {"": np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)})
    asked = Request(settings=settle(methods=("gradient", "integrated")), evaluate=True)
    for explanation in explain([Column("", lambda: model)], inputs, asked).explanations:
        for method in ("gradient", "integrated"):
            assert explanation.trust[method].quality["infidelity"] == pytest.approx(0, abs=1e-4)


def test_from_python() -> None:
    import xaicli

    torch.manual_seed(0)
    model, found = build_model(), digits(3)
    result = xaicli.saliency(
        model,
        found.arrays[""],
        target="top2",
        smoothing=3,
        integrating=[4, 2],
        labels=found.label,
        label_names="0123456789",
    )
    assert model.training
    assert result.maps["smint"].shape == (6, 8, 8)
    assert result.attributions["gradient"].shape == (6, 1, 8, 8)
    assert result.delta["integrated"].shape == result.flat["smint"].shape == result.targets.shape == (6,)
    assert result.data["sample_id"].to_list() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_the_callers_modes_do_not_count(mode: Any) -> None:
    import xaicli

    model, x = conv_net(), torch.randn(2, 2, 8, 8)
    methods = ("gradient", "smint", "gradcam")
    expected = xaicli.saliency(model, x, methods=methods, smoothing=3, integrating=(4, 2))
    with mode():
        found = xaicli.saliency(model, x, methods=methods, smoothing=3, integrating=(4, 2))
        assert isinstance(model(x), torch.Tensor)
    for method in methods:
        assert np.array_equal(expected.attributions[method], found.attributions[method])


@pytest.mark.parametrize("given", [{"labels": [1, 2]}, {"sample_ids": ["a"]}])
def test_labels_and_ids_are_one_for_each_sample(given: dict[str, Any]) -> None:
    import xaicli
    from xaicli.errors import UsageError

    with pytest.raises(UsageError, match="for 3 samples"):
        xaicli.saliency(torch.nn.Linear(4, 3), torch.randn(3, 4), **given)


def test_captum_gives_the_same_where_it_is_installed() -> None:
    attr = pytest.importorskip("captum.attr")
    import xaicli

    torch.manual_seed(0)
    model, x = build_model().eval(), torch.from_numpy(digits(3).arrays[""])
    result = xaicli.saliency(
        model,
        x,
        methods=("gradient", "integrated"),
        integrating=(8, 0),
        baseline="zero",
        captum=["Saliency", "Occlusion"],
    )
    target = torch.from_numpy(result.targets)
    integrated = attr.IntegratedGradients(model).attribute(x, target=target, n_steps=8, method="riemann_middle")
    assert np.allclose(result.attributions["integrated"], integrated.detach(), atol=1e-4)
    plain = attr.Saliency(model).attribute(x, target=target, abs=False)
    assert np.allclose(result.attributions["gradient"], plain.detach(), atol=1e-4)
    assert np.allclose(result.attributions["Saliency"], plain.detach().abs(), atol=1e-4)
    assert result.maps["Occlusion"].shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("values", "said"),
    [([0.0, 16.0], "inputs reach from 0 to 16, but the model was saved for 0 to 1"), ([-0.2, 1.2], None)],
)
def test_inputs_far_outside_the_models_range_are_pointed_out(values: list[float], said: str | None) -> None:
    facts = CheckpointFacts(Kind.XAI, Path("ckpt.pt"), "", input_range=(0.0, 1.0))
    inputs = Inputs([1, 2], {"": np.array([[value] for value in values], dtype=np.float32)})
    assert list(Column("", build_model, facts).notes(inputs)) == ([said] if said else [])
    assert not list(Column("", build_model).notes(inputs))


def test_a_note_of_some_checkpoints_names_them_and_one_of_all_none() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    said = {"a": ("of a and b",), "b": ("of a and b", "of b"), "c": ()}
    columns = [
        Column(n, lambda: model.eval(), CheckpointFacts(Kind.XAI, Path(n), "", notes=s)) for n, s in said.items()
    ]
    asked = Request(settings=settle(methods=["gradient"]), label_names=("x", "y"), sanity=True, task="classification")
    notes = explain(columns, digits(9), asked).notes
    assert {"a, b: of a and b", "b: of b"} <= set(notes)
    assert "2 label names were given, the model tells 3 classes apart" in notes
    assert "randomised models were compared on the first 8 of 9 maps of each method" in notes


def test_a_rank_that_is_not_there_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.attribution import session

    monkeypatch.setattr(session, "_SILENT_SECONDS", 0.2)
    monkeypatch.setattr(session, "_POLL_SECONDS", 0.05)
    column, _ = counted()
    alone = explain([column], digits(), request())
    found = explain([column], digits(), request(store=tmp_path, rank=0, world_size=2))
    assert [e.sample_id for e in found.explanations] == [0, 1, 2, 3, 4, 5]
    assert any("rank 1 of 2 gives no sign of life: its 3 samples" in note for note in found.notes)
    assert np.allclose(found.maps["smint"][""], alone.maps["smint"][""], atol=1e-5)


def test_a_rank_that_gives_signs_of_life_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from xaicli.attribution import session

    monkeypatch.setattr(session, "_SILENT_SECONDS", 3.0)
    monkeypatch.setattr(session, "_BEAT_SECONDS", 0.1)
    column, _ = counted()
    store = session.Store(tmp_path)
    other = threading.Thread(target=explain, args=([column], digits(), request(store=tmp_path, rank=1, world_size=2)))
    began = threading.Event()
    whole = session._Work.run

    def slow(self: Any, advance: Any) -> Any:
        if self.request.rank == 1:
            began.wait(30)
        return whole(self, advance)

    def waiting(self: Any, explainer: Any, keys: list[str]) -> Any:
        began.set()  # only now: torch.fx, which traces models, is not for two threads at a time
        return others(self, explainer, keys)

    others = session._Work._others
    monkeypatch.setattr(session._Work, "run", slow)
    monkeypatch.setattr(session._Work, "_others", waiting)
    other.start()
    found = explain([column], digits(), request(store=tmp_path, rank=0, world_size=2))
    other.join()
    assert len(found.explanations) == 6
    assert store.folder == tmp_path


def test_an_edited_forward_is_explained_anew() -> None:
    from xaicli.attribution.fingerprint import fingerprint

    def made(source: str) -> torch.nn.Module:
        space: dict[str, Any] = {"torch": torch, "nn": torch.nn, "__name__": "people"}
        exec(source, space)
        torch.manual_seed(0)
        model: torch.nn.Module = space["Net"]()
        return model

    net = """
def helper(x):
    return x * {factor}

class Net(nn.Module):
    scale = {scale}
    def __init__(self):
        super().__init__()
        self.linear, self.power = nn.Linear(4, 3), {power}
    def forward(self, x):
        return self.linear(helper(x)) {tail}
"""
    plain = {"factor": 2, "scale": 1, "power": 1, "tail": ""}
    same, untold = fingerprint(made(net.format(**plain)))
    assert (same, untold) == (fingerprint(made(net.format(**plain)))[0], "")
    edits = [{"factor": 3}, {"scale": 2}, {"power": 2}, {"tail": "* 2"}, {"tail": "+ x.sum()"}]
    others = {fingerprint(made(net.format(**{**plain, **edit})))[0] for edit in edits}
    assert len(others | {same}) == 6


def test_maps_of_a_model_that_cannot_be_told_are_not_kept(tmp_path: Path) -> None:
    class Sealed:
        __slots__ = ()

        def __reduce__(self) -> Any:
            raise TypeError("it is sealed")

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    column = Column("sealed", lambda: model)
    explain([column], digits(), request(store=tmp_path / "kept"))
    assert list((tmp_path / "kept").glob("*.npz"))
    model.key = Sealed()  # type: ignore[assignment]
    found = explain([column], digits(), request(store=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    assert any("no maps are kept" in note and "Sealed" in note for note in found.notes)


def test_the_command_under_the_page_asks_for_the_same_passes() -> None:
    import xaicli

    model, x = torch.nn.Linear(4, 3), torch.rand(2, 4)
    budget = xaicli.saliency(model, x).answer.command_line()
    assert "--evaluations 24" in budget
    assert "--smoothing" not in budget
    exact = xaicli.saliency(model, x, smoothing=5, integrating=(4, 3), task="classification").answer.command_line()
    assert "--smoothing 5 --integrating 4,3" in exact
    assert "--task classification" in exact
    assert "--evaluations" not in exact


def test_random_numbers_and_settings_of_the_caller_go_on_as_they_were() -> None:
    import random

    import xaicli

    model, x = conv_net().train(), torch.randn(2, 2, 8, 8)
    torch.backends.cudnn.benchmark = True
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    xaicli.saliency(model, x, captum=(), evaluate=True, methods=("gradient",))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    assert all(module.training for module in model.modules())


def test_a_kept_sample_that_is_cut_off_is_made_anew_and_left_closed(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert Store(tmp_path).read("a") is None
        gc.collect()
    assert not [said for said in heard if said.category is ResourceWarning]
