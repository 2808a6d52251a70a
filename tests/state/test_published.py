"""Summary and graphs as files of the run, over several attempts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import xaicli
from xaicli.layout import RunLayout
from xaicli.report.page import RunFacts
from xaicli.state import TrainingState
from xaicli.state.published import read_descriptions, read_graphs, read_summary
from xaicli.summary import Summary


def start(run: Path) -> TrainingState:
    state = TrainingState(RunLayout(run), name="exp")
    state.mode = "train"
    return state


def step(state: TrainingState, value: float) -> None:
    state.update_global_step()
    state.write_summary("loss", value)


def test_nothing_written_leaves_no_file(tmp_path: Path) -> None:
    TrainingState(RunLayout(tmp_path)).publish()
    assert not (tmp_path / "state").exists()


def test_readers_find_summary_and_graphs(tmp_path: Path) -> None:
    state = start(tmp_path)
    step(state, 0.5)
    graph = Summary("curve")
    graph.history["eval"]["acc"][1] = 0.9
    state.add_graph("g", graph)
    state.publish()
    assert read_summary(tmp_path / "state") == state.summary
    assert read_graphs(tmp_path / "state") == {"g": [graph]}


def test_an_unchanged_summary_is_not_written_again(tmp_path: Path) -> None:
    state = start(tmp_path)
    step(state, 0.5)
    state.publish()
    (tmp_path / "state" / "summary.json").unlink()
    state.publish()
    assert not (tmp_path / "state" / "summary.json").exists()
    step(state, 0.4)
    state.publish()
    assert read_summary(tmp_path / "state") == state.summary


def test_a_restart_without_a_state_adds_to_what_was_there(tmp_path: Path) -> None:
    first = start(tmp_path)
    step(first, 1.0)
    step(first, 0.9)
    first.publish()
    second = start(tmp_path)
    step(second, 5.0)
    second.publish()
    assert read_summary(tmp_path / "state").history == {"train": {"loss": {1: 5.0, 2: 0.9}}}


def test_a_restart_from_a_state_drops_what_came_after_it(tmp_path: Path) -> None:
    first = start(tmp_path)
    step(first, 1.0)
    first.save_state()
    step(first, 0.9)
    step(first, 0.8)
    first.publish()
    second = start(tmp_path)
    second.load_state()
    step(second, 0.7)
    second.publish()
    assert read_summary(tmp_path / "state").history == {"train": {"loss": {1: 1.0, 2: 0.7}}}


def test_a_reset_drops_everything_and_a_test_drops_the_old_test(tmp_path: Path) -> None:
    first = start(tmp_path)
    step(first, 1.0)
    first.mode = "test"
    first.write_summary("loss", 3.0)
    first.publish()
    tester = start(tmp_path)
    tester.reset_for_test()
    tester.write_summary("acc", 0.5)
    tester.publish()
    assert read_summary(tmp_path / "state").history == {"train": {"loss": {1: 1.0}}, "test": {"acc": {0: 0.5}}}
    fresh = start(tmp_path)
    fresh.reset("new")
    fresh.publish()
    again = read_summary(tmp_path / "state")
    assert (again.name, again.history) == ("new", {})


def test_only_rank_0_publishes(tmp_path: Path) -> None:
    other = TrainingState(RunLayout(tmp_path), name="exp", rank=lambda: 1)
    step(other, 1.0)
    other.publish()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"graphs": [1]}', '{"graphs": {"g": 3}}', '{"name": 1}', "\xff"])
def test_damaged_files_read_as_empty(tmp_path: Path, text: str) -> None:
    for name in ("summary.json", "graphs.json"):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert read_summary(tmp_path).history == {}
    assert read_graphs(tmp_path) == {}


def test_models_and_data_are_described_for_reports(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(10, 2)), batch_size=4)
    with xaicli.Run(tmp_path) as run:
        for _ in run.steps(loader):
            pass
        for _ in run.steps([1, 2], mode="eval", ds_id="b"):
            pass
        run.state.save_state(models={"net": model})
    described = RunFacts.complete(RunLayout(tmp_path)).environment
    assert described["models"]["net"]["parameters"] == 9
    assert (described["data"]["train"]["samples"], described["data"]["train"]["batches"]) == (10, 3)
    assert described["data"]["eval b"] == {"class": "builtins.list", "samples": 2}
    with xaicli.Run(tmp_path) as run:
        run.state.note_model("other", torch.nn.ReLU())
    assert set(read_descriptions(tmp_path / "state")["models"]) == {"net", "other"}


def test_a_model_that_cannot_be_described_does_not_stop_a_training(tmp_path: Path) -> None:
    state = TrainingState(RunLayout(tmp_path))
    state.note_model("odd", 3)
    state.publish()
    assert read_descriptions(tmp_path / "state") == {"models": {"odd": {"class": "int"}}}


def test_a_loop_inside_a_loop_gives_the_outer_mode_back(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path) as run:
        seen = []
        for number in run.steps(range(3)):
            seen.append((run.state.mode, run.state.ds_id, run.state.batch_idx, run.state.global_step))
            if number == 1:
                list(run.steps(range(5), mode="eval", ds_id="x"))
                assert (run.state.mode, run.state.ds_id, run.state.batch_idx) == ("train", "", 2)
    assert seen == [("train", "", 1, 1), ("train", "", 2, 2), ("train", "", 3, 3)]


def test_each_start_keeps_its_own_command_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("first.py", "second.py"):
        monkeypatch.setattr(sys, "argv", [command])
        with xaicli.Run(tmp_path):
            pass
    starts = read_descriptions(tmp_path / "state")["starts"]
    assert [starts[number]["command"].split()[-1] for number in ("0", "1")] == ["first.py", "second.py"]
    assert starts["1"]["code"] == starts["0"]["code"]


def test_readers_see_the_summary_at_the_end_of_each_epoch(tmp_path: Path) -> None:
    seen = []
    with xaicli.Run(tmp_path, name="x") as run:
        for epoch in run.epochs(3):
            seen.append([row[3] for row in read_summary(tmp_path / "state").rows()])
            for _ in run.steps(range(2)):
                pass
            run.state.write_summary("epoch done", epoch)
    assert seen == [[], [1], [1, 2]]
