"""`xai scalars` and the query behind it: what counts, what is smoothed, what is averaged."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xaicli
from xaicli.api import compare, open_run, scalars
from xaicli.errors import UsageError, XaiError
from xaicli.queries.scalars import custom_graphs, smooth
from xaicli.report.scalars import thinned
from xaicli.summary import Summary, ValWithError

Xai = Callable[..., tuple[int, str, str]]


def record(path: Path, values: list[dict[str, float]], *, resume_from: int | None = None, **run: object) -> None:
    """One attempt that logs some scalars; with `resume_from` it says so as `load_state` does."""
    with xaicli.Run(path, **run) as recorder:  # type: ignore[arg-type]
        if resume_from is not None:
            recorder.state.global_step = resume_from - 1
            recorder.state.save_state(path / "elsewhere")
            recorder.state.load_state(path / "elsewhere")
        for scalars_ in values:
            recorder.log(scalars_)


def values(data: pl.DataFrame, key: str, axis: str = "step") -> dict[int, float]:
    rows = data.filter(pl.col("key") == key, pl.col("axis") == axis)
    return dict(zip(rows["step"].to_list(), rows["value"].to_list(), strict=True))


def test_each_axis_is_its_own_curve(tmp_path: Path) -> None:
    record(
        tmp_path, [{"step": 5, "lr": 0.1}, {"epoch": 2, "lr": 0.2}, {"lr": 0.3}, {"lr": 0.4}, {"iteration": 9, "x": 1}]
    )
    data = open_run(tmp_path).scalars().data
    assert values(data, "lr") == {5: 0.1}
    assert values(data, "lr", "epoch") == {2: 0.2}
    assert values(data, "lr", "counter") == {2: 0.3, 3: 0.4}
    assert values(data, "x", "iteration") == {9: 1.0}


def test_a_restart_replaces_the_values_it_logs_again(tmp_path: Path) -> None:
    record(tmp_path, [{"step": s, "lr": float(s), **({"rare": float(s)} if s % 3 == 0 else {})} for s in range(1, 8)])
    record(tmp_path, [{"step": s, "lr": -float(s)} for s in (4, 5)])
    data = open_run(tmp_path).scalars().data
    assert values(data, "lr") == {1: 1, 2: 2, 3: 3, 4: -4, 5: -5, 6: 6, 7: 7}
    assert values(data, "rare") == {3: 3, 6: 6}


def test_a_training_takes_scalars_back_with_its_samples(tmp_path: Path) -> None:
    for first, factor in ((1, 1.0), (3, -1.0)):
        with xaicli.Run(tmp_path) as run:
            for epoch in range(first, 4):
                run.log_samples(sample_id=[1], loss=[0.0], mode="train", epoch=epoch, step=10 * epoch)
                run.state.epoch_idx = epoch
                run.log({"step": 10 * epoch, "lr": factor * epoch})
                run.log({"epoch": epoch, "accuracy": factor * epoch})
                if factor > 0:
                    run.log({"step": 10 * epoch + 5, "lr": 0.0})
    data = open_run(tmp_path).scalars().data
    assert values(data, "lr") == {10: 1, 15: 0, 20: 2, 25: 0, 30: -3}
    assert values(data, "accuracy", "epoch") == {1: 1, 2: 2, 3: -3}


def test_a_restart_from_a_state_takes_over_from_its_step(tmp_path: Path) -> None:
    record(tmp_path, [{"step": s, "lr": float(s), "rare": float(s)} for s in range(1, 8)])
    record(tmp_path, [{"step": 6, "lr": -6.0}], resume_from=4)
    data = open_run(tmp_path).scalars().data
    assert values(data, "lr") == {1: 1, 2: 2, 3: 3, 6: -6}
    assert values(data, "rare") == {1: 1, 2: 2, 3: 3}


def test_the_counter_goes_on_after_a_resume(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path) as run:
        run.state.epoch_idx = 1
        run.log({"x": 0.0})
        run.log({"x": 1.0})
        run.state.save_state()
        run.log({"x": 2.0})
        run.log({"x": 3.0})
    with xaicli.Run(tmp_path) as run:
        run.state.load_state()
        run.log({"x": -2.0})
    assert values(open_run(tmp_path).scalars().data, "x", "counter") == {0: 0.0, 1: 1.0, 2: -2.0}


def test_of_several_values_at_a_moment_the_last_counts(tmp_path: Path) -> None:
    record(tmp_path, [{"step": 1, "lr": 1.0}, {"step": 1, "lr": 2.0}])
    assert values(open_run(tmp_path).scalars().data, "lr") == {1: 2.0}


def test_a_damaged_file_is_left_out_and_named(tmp_path: Path) -> None:
    record(tmp_path, [{"step": 1, "lr": 1.0}])
    record(tmp_path, [{"step": 2, "lr": 2.0}])
    file = sorted((tmp_path / "scalars").iterdir())[0]
    content = bytearray(file.read_bytes())
    content[40] ^= 0xFF
    file.write_bytes(content)
    result = open_run(tmp_path).scalars()
    assert values(result.data, "lr") == {2: 2.0}
    assert result.answer.counts.damaged == (f"scalars/{file.name}",)
    with pytest.raises(XaiError, match=file.name):
        open_run(tmp_path).scalars(strict=True)


def test_summary_and_custom_graphs_are_curves_too(tmp_path: Path) -> None:
    graph = Summary("cat")
    graph.history["eval"]["loss"].update({1: ValWithError(0.5, 1.0, 2.0), 2: math.nan})
    with xaicli.Run(tmp_path, name="exp") as run:
        run.state.mode = "eval"
        run.state.write_summary("acc|clean", 0.25)
        run.state.write_summary("note", "a text")
        run.state.add_graph("by label", graph)
    result = open_run(tmp_path).scalars()
    rows = result.data.select("source", "graph", "line", "key", "mode", "ds_id", "step", "value", "low", "high").rows()
    assert rows[0] == ("summary", "", "", "acc", "eval", "clean", 0, 0.25, None, None)
    assert rows[1] == ("graph", "by label", "cat", "loss", "eval", "", 1, 1.0, 0.5, 2.0)
    assert math.isnan(rows[2][7])
    assert result.answer.counts.non_finite == 1
    assert list(custom_graphs(open_run(tmp_path).layout)) == ["by label"]
    assert [section.title for section in result.report.sections] == ["Scalars", "Custom graphs"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_smoothing_is_the_weighted_mean_of_the_past(numbers: list[float], weight: float) -> None:
    frame = pl.DataFrame({"value": pl.Series(numbers, dtype=pl.Float64)}).select(smooth("value", weight))
    known: list[float] = []
    for number, found in zip(numbers, frame["value"].to_list(), strict=True):
        if math.isnan(number):
            assert found is None
            continue
        known.append(number)
        weights = [weight ** (len(known) - 1 - i) for i in range(len(known))]
        expected = sum(w * x for w, x in zip(weights, known, strict=True)) / sum(weights)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_group_is_the_mean_and_spread_of_its_runs(tmp_path: Path) -> None:
    for name, shift in (("a1", 0.0), ("a2", 1.0), ("b", 5.0)):
        record(tmp_path / name, [{"step": s, "loss": s + shift} for s in (1, 2)])
    record(tmp_path / "a2", [{"step": 3, "loss": 7.0}])
    result = scalars(tmp_path, group=["A=a*"])
    assert result.answer.selection["group"] == {"A": [str(tmp_path / "a1"), str(tmp_path / "a2")]}
    data = result.data
    assert set(data["run"]) == {"A", str(tmp_path / "b")}
    rows = data.filter(pl.col("run") == "A").select("step", "value", "low", "high", "n").rows()
    spread = statistics.stdev([1.0, 2.0])
    assert rows[0] == pytest.approx((1, 1.5, 1.5 - spread, 1.5 + spread, 2))
    assert rows[2] == (3, 7.0, None, None, 1)
    assert values(data.filter(pl.col("run") != "A"), "loss") == {1: 6.0, 2: 7.0}
    assert result.answer.warnings == ()


def test_a_group_takes_runs_by_the_names_they_were_recorded_under(tmp_path: Path) -> None:
    named = (("r1", "seed-1", 1.0), ("r2", "seed-2", 3.0), ("r3", "old-1", 9.0), ("r4", "old-2", 7.0))
    for folder, name, value in named:
        with xaicli.Run(tmp_path / folder, name=name) as run:
            run.log_samples(sample_id=[1, 2], loss=[value, value + 1], mode="eval", epoch=1, step=1)
            run.log({"step": 1, "lr": value})
    members = {"g": [str(tmp_path / "r1"), str(tmp_path / "r2")], "h": [str(tmp_path / "r3"), str(tmp_path / "r4")]}
    result = scalars(tmp_path, group=["g=seed-[12]", "h=old-1,old-2"])
    assert result.answer.selection["group"] == members
    assert result.data.filter(pl.col("run") == "g")["value"].to_list() == [2.0]
    assert compare(tmp_path, group=["g=seed-[12]", "h=old-1,old-2"]).answer.selection["group"] == members


def test_groups_whose_runs_share_no_step_are_told(tmp_path: Path) -> None:
    for name, step in (("a1", 1), ("a2", 2), ("alone", 3)):
        record(tmp_path / name, [{"step": step, "loss": 1.0}])
    told = scalars(tmp_path, group=["A=a1,a2", "B=alone"]).answer.warnings
    assert told == ("the runs of group A share no step: there is no spread to show",)


def test_non_finite_values_leave_a_group(tmp_path: Path) -> None:
    for name, value in (("a", math.nan), ("b", 2.0), ("c", math.inf)):
        record(tmp_path / name, [{"step": 1, "loss": value}, {"step": 2, "loss": math.nan}])
    data = scalars(tmp_path, group={"all": "*"}).data
    assert data["value"][0] == 2.0
    assert math.isnan(data["value"][1])
    assert data["n"].to_list() == [1, 0]


def test_tests_of_a_group_meet_at_the_largest_step(tmp_path: Path) -> None:
    for name, step in (("a", 10), ("b", 30)):
        (tmp_path / f"{name}.txt").write_text(f"FastEstimator-Test: step: {step}; epoch: 2; acc: 0.{step};\n")
    data = scalars(tmp_path, group={"all": "*"}).data
    assert data.select("step", "value", "n").rows() == [(30, pytest.approx(0.2), 2)]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"smoothing": 1.0}, UsageError, "less than 1"),
        ({"smoothing": -0.1}, UsageError, "at least 0"),
        ({"key": "losss"}, XaiError, "no scalar 'losss'"),
        ({"mode": "evil"}, XaiError, "no mode 'evil'"),
        ({"mode": ["train", "!train"]}, XaiError, "no mode is left"),
        ({"group": ["x=nothing*"]}, UsageError, "matches no run"),
        ({"group": ["nothing"]}, UsageError, "matches no run"),
    ],
)
def test_what_makes_no_sense_is_said(
    tmp_path: Path, options: dict[str, object], error: type[XaiError], match: str
) -> None:
    with xaicli.Run(tmp_path) as run:
        run.state.mode = "train"
        run.log({"step": 1, "loss": 1.0})
    with pytest.raises(error, match=match):
        scalars(tmp_path, **options)  # type: ignore[arg-type]


def test_a_mode_that_the_run_has_and_no_scalar_is_of(tmp_path: Path, xai: Xai, monkeypatch: pytest.MonkeyPatch) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0], loss=[1.0], mode="train", ds_id="day", epoch=1)
        run.log({"step": 1, "lr": 0.1})
    assert scalars(tmp_path / "run", mode="!infer").data["key"].to_list() == ["lr"]
    for options, said in (
        ({"mode": "train"}, "mode train"),
        ({"ds_id": "day"}, "ds_id day"),
        ({"ds_id": "!day"}, "ds_id day"),
    ):
        with pytest.raises(XaiError, match=f"no scalars of {said} in ") as refused:
            scalars(tmp_path / "run", **options)  # type: ignore[arg-type]
        assert refused.value.hint == f'these are of {said.partition(" ")[0]} ""'
    status, _, err = xai("scalars", tmp_path / "run", "--mode", "train")
    assert (status, "no scalars of mode train" in err) == (2, True)
    for words in ("train", "!infer"):  # as of a settings file for every command
        monkeypatch.setenv("XAI_MODE", words)
        status, out, _ = xai("scalars", tmp_path / "run", "--json")
        assert [row["key"] for row in json.loads(out)["rows"]] == ["lr"]


def test_an_empty_run_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run"):
        pass
    with pytest.raises(XaiError, match="has no scalars"):
        open_run(tmp_path / "run").scalars()
    (tmp_path / "empty").mkdir()
    with pytest.raises(XaiError, match="is empty"):
        scalars(tmp_path / "empty")


def test_the_command_prints_json_and_a_table(tmp_path: Path, xai: Xai) -> None:
    record(tmp_path / "a", [{"step": s, "loss": 1 / s, "lr": 0.1} for s in range(1, 5)])
    (tmp_path / "old.txt").write_text("FastEstimator-Train: step: 1; loss: 3.5; lr: 0.5;\n")
    status, out, err = xai(
        "scalars", tmp_path / "a", tmp_path / "old.txt", "--key", "l?ss", "--json", "--smoothing", "0.5"
    )
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert answer["command"] == "scalars"
    assert [(row["run"].split("/")[-1], row["step"], row["key"]) for row in answer["rows"]] == [
        *(("a", step, "loss") for step in range(1, 5)),
        ("old.txt", 1, "loss"),
    ]
    assert answer["rows"][1]["smoothed"] == pytest.approx((0.5 + 0.5 * 1) / 1.5)
    status, out, _ = xai("scalars", tmp_path)
    assert status == 0
    assert "loss" in out
    assert "old.txt" in out
    assert "▁" in out or "█" in out


def test_the_command_averages_groups(tmp_path: Path, xai: Xai) -> None:
    for name, shift in (("a1", 0.0), ("a2", 2.0)):
        record(tmp_path / name, [{"step": 1, "loss": 1.0 + shift}])
    status, out, _ = xai("scalars", tmp_path, "--group", "A=a1,a2", "--json")
    assert status == 0
    (row,) = json.loads(out)["rows"]
    assert (row["run"], row["value"], row["n"]) == ("A", 2.0, 2)
    assert (row["low"], row["high"]) == pytest.approx((2 - math.sqrt(2), 2 + math.sqrt(2)))
    status, _, err = xai("scalars", tmp_path, "--group", "A=zzz")
    assert status == 2
    assert err.startswith("error: --group A=zzz matches no run\nhint: ")
    for words, said, hint in (
        ("A=a1,zz*", "--group A=a1,zz*: 'zz*' matches no run", "NAME=PATTERN,...; runs: "),
        ("A=zz*,a1,y", "--group A=zz*,a1,y: 'zz*', 'y' match no run", "NAME=PATTERN,...; runs: "),
        ("A=a1,B=a2", "--group A=a1,B=a2: 'B=a2' matches no run", "each group wants an option of its own: "),
    ):
        status, out, err = xai("scalars", tmp_path, "--group", words)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {said}\nhint: {hint}")
    # The hint can be run as it stands.
    status, out, _ = xai("scalars", tmp_path, *shlex.split(err.partition("own: ")[2]), "--json")
    assert (status, [row["run"] for row in json.loads(out)["rows"]]) == (0, ["A", "B"])
    status, _, err = xai("scalars", tmp_path / "missing")
    assert status == 1
    assert "missing does not exist" in err


def test_the_command_writes_files(tmp_path: Path, xai: Xai) -> None:
    record(tmp_path / "run", [{"step": s, "loss": 1 / s} for s in range(1, 5)])
    status, out, _ = xai("scalars", tmp_path / "run", "-o", tmp_path / "out", "--format", "html,csv,png", "-q")
    assert status == 0
    names = {Path(line).name for line in out.split()}
    assert {"scalars.html", "scalars.csv", "scalar-loss-step.png"} <= names
    assert "loss" in (tmp_path / "out" / "scalars.html").read_text()


def test_a_name_from_elsewhere_stays_text(tmp_path: Path, xai: Xai) -> None:
    evil = "</script><img src=x onerror=alert(1)>\x1b[31m"
    record(tmp_path / "run", [{"step": 1, evil: 1.0}])
    status, out, _ = xai("scalars", tmp_path / "run", "-o", tmp_path / "out", "--format", "html")
    assert status == 0
    assert "\x1b[31m" not in out
    assert "<img src=x" not in (tmp_path / "out" / "scalars.html").read_text()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1, 1) | st.none(), min_size=1, max_size=60), st.integers(4, 20))
def test_thinning_keeps_extremes_and_ends(numbers: list[float | None], most: int) -> None:
    kept = thinned(numbers, most)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(most + 2, 2)
    assert {0, len(numbers) - 1} <= set(kept)
    known = [number for number in numbers if number is not None]
    shown = [numbers[i] for i in kept if numbers[i] is not None]
    if known:
        assert (min(shown), max(shown)) == (min(known), max(known))  # type: ignore[type-var]
