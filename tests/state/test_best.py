"""Keeping the best checkpoints by a metric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xaicli
from xaicli.checkpoint.load import load_checkpoint
from xaicli.state.best import checkpoints, keep_best


def offer(folder: Path, value: float, step: int, **options: object) -> Path | None:
    options = {"metric": "loss", **options}
    return keep_best(folder, lambda path: path.write_text(str(value)), value=value, step=step, **options)  # type: ignore[arg-type]


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_best_is_kept_and_has_a_fixed_name(tmp_path: Path) -> None:
    assert offer(tmp_path, 0.5, 1) == tmp_path / "best-loss-00000001.pt"
    assert offer(tmp_path, 0.6, 2) is None
    assert offer(tmp_path, 0.4, 3) == tmp_path / "best-loss-00000003.pt"
    assert kept(tmp_path) == ["best-loss-00000003.pt", "best-loss.json", "best-loss.pt"]
    assert (tmp_path / "best-loss.pt").read_text() == "0.4"


def test_metrics_are_kept_apart_and_their_names_are_safe(tmp_path: Path) -> None:
    offer(tmp_path, 0.5, 1)
    offer(tmp_path, 0.9, 1, metric="../acc", better="higher")
    offer(tmp_path, 0.8, 2, metric="../acc", better="higher")
    assert (tmp_path / "best-..%2Facc.pt").read_text() == "0.9"
    assert {c.metric for c in checkpoints(tmp_path) if c.is_best} == {"loss", "../acc"}
    assert list(tmp_path.parent.glob("*.pt")) == []


def test_a_value_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    for value in (math.nan, -math.inf):
        assert offer(tmp_path, value, 1) is None
    assert kept(tmp_path) == []


@pytest.mark.parametrize("keep", [1, 2])
def test_values_of_one_step_compete_as_others_do(tmp_path: Path, keep: int) -> None:
    """A loop that names no steps, plain and averaged weights at one step, a run that begins again."""
    found = [offer(tmp_path, value, 4, keep=keep) for value in (0.5, 0.3, 0.95, 0.4)]
    assert [path.name for path in found[:2] if path] == ["best-loss-00000004.pt", "best-loss-00000004-2.pt"]
    assert found[2] is None
    assert (tmp_path / "best-loss.pt").read_text() == "0.3"
    expected = [0.3, 0.4][:keep]
    assert sorted(c.value for c in checkpoints(tmp_path) if c.value is not None) == expected
    assert sorted(float(p.read_text()) for p in tmp_path.glob("best-loss-*.pt")) == expected
    assert [c.value for c in checkpoints(tmp_path) if c.is_best] == [0.3]


def test_a_value_that_is_no_number_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with xaicli.Run(tmp_path) as run, pytest.warns(UserWarning, match="no number"):
        assert run.keep_best(torch.nn.Linear(1, 1), None) is None


def test_a_failed_save_leaves_those_of_before(tmp_path: Path) -> None:
    offer(tmp_path, 0.5, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        keep_best(tmp_path, full, metric="loss", value=0.1, step=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("text", ["", "[]", '{"kept": [{"file": "../x.pt"}]}', '{"kept": 3}'])
def test_a_damaged_index_starts_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "best-loss.json").write_text(text)
    assert offer(tmp_path, 0.5, 1) is not None
    assert [c.value for c in checkpoints(tmp_path) if c.is_best] == [0.5]


def test_an_index_removes_nothing_outside_its_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim.pt"
    victim.write_text("mine")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    entry = '{"file": "../victim.pt", "value": 9.0, "epoch": 0, "step": 0, "saved_at": ""}'
    (folder / "best-loss.json").write_text(f'{{"metric": "loss", "kept": [{entry}]}}')
    offer(folder, 0.5, 1)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("options", [{"keep": 0}, {"better": "up"}])
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        offer(tmp_path, 0.5, 1, **options)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 4).map(float) | st.just(math.nan), max_size=8),
    st.integers(1, 3),
    st.sampled_from(["lower", "higher"]),
)
def test_the_best_are_those_of_sorting(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], keep: int, better: str
) -> None:
    folder = tmp_path_factory.mktemp("best")
    for step, value in enumerate(values):
        offer(folder, value, step, keep=keep, better=better)
    sign = 1 if better == "lower" else -1
    expected = sorted((sign * value, step) for step, value in enumerate(values) if math.isfinite(value))[:keep]
    found = [c for c in checkpoints(folder) if c.value is not None]
    assert sorted((sign * (c.value or 0.0), c.step) for c in found) == expected
    if expected:
        assert (folder / "best-loss.pt").read_text() == str(sign * expected[0][0])


def test_a_run_keeps_the_best_checkpoint_that_saliency_can_load(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    with xaicli.Run(tmp_path, label_names=["a", "b"]) as run:
        for value in (0.5, 0.3, 0.4):
            run.state.update_global_step()
            torch.nn.init.constant_(model.weight, value)
            run.keep_best(model, torch.tensor(value), metric="eval loss", keep=2, example_inputs=torch.zeros(2, 3))
    loaded = load_checkpoint(tmp_path / "checkpoints" / "best-eval%20loss.pt")
    assert loaded.facts.step == 2
    assert list(loaded.facts.label_names or ()) == ["a", "b"]
    assert torch.allclose(
        loaded.model(torch.ones(1, 3)),
        torch.nn.functional.linear(torch.ones(1, 3), torch.full((2, 3), 0.3), model.bias),
    )
    assert [(c.step, c.is_best) for c in checkpoints(tmp_path / "checkpoints") if c.metric] == [(2, True), (3, False)]


def test_info_shows_states_and_checkpoints(tmp_path: Path, xai: Callable[..., tuple[int, str, str]]) -> None:
    model = torch.nn.Linear(3, 2)
    with xaicli.Run(tmp_path) as run:
        for _ in run.steps(range(3)):
            run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[0.5, 0.6])
        run.keep_best(model, 0.25, metric="acc", better="higher", example_inputs=torch.zeros(2, 3))
        run.state.save_state(models={"net": model})
    status, out, _ = xai("info", tmp_path)
    assert status == 0
    for text in ("state-000001", "best-acc-00000003.pt", "best acc", "0.25", "Model net"):
        assert text in out
    status, out, _ = xai("info", tmp_path, "--json")
    selection = json.loads(out)["selection"]
    assert selection["states"] == ["state-000001 (step 3, epoch 0)"]
    assert selection["checkpoints"] == ["best-acc-00000003.pt (best acc 0.25)", "best-acc.pt"]


def test_sql_sees_the_scalars_that_count(tmp_path: Path, xai: Callable[..., tuple[int, str, str]]) -> None:
    for values in ([1.0, 2.0, 3.0], [9.0]):
        with xaicli.Run(tmp_path) as run:
            for step, value in enumerate(values, start=4 - len(values)):
                run.log({"step": step, "x": value})
    status, out, _ = xai("query", tmp_path, "SELECT step, value FROM scalars ORDER BY step", "--json")
    assert status == 0
    assert [(row["step"], row["value"]) for row in json.loads(out)["rows"]] == [(1, 1.0), (2, 2.0), (3, 9.0)]
