"""The attributes and methods of the training state, against what the seed document says of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from xaicli.state import TrainingState
from xaicli.summary import Summary, ValWithError


def test_a_new_state_is_before_everything() -> None:
    state = TrainingState(total_epochs=7)
    assert (state.mode, state.ds_id, state.global_step, state.epoch_idx, state.batch_idx) == (None, "", None, 0, None)
    assert (state.total_epochs, state.stop_training, state.experiment_time) == (7, False, "")
    assert (state.log_steps, state.train_steps_per_epoch, state.eval_steps_per_epoch) == (None, None, None)
    assert state.steps_per_epoch is None
    assert state.custom_graphs == {}
    assert state.summary.history == {}
    assert state.num_devices == torch.cuda.device_count()


def test_experiment_ids_are_signed_64_bit_and_differ() -> None:
    ids = {TrainingState().exp_id for _ in range(50)}
    assert len(ids) == 50
    assert all(-(2**63) <= number < 2**63 for number in ids)


def test_counters_begin_at_one() -> None:
    state = TrainingState()
    for expected in (1, 2, 3):
        state.update_global_step()
        state.update_batch_idx()
        assert (state.global_step, state.batch_idx) == (expected, expected)


@pytest.mark.parametrize(
    ("mode", "expected"), [("train", 30), ("eval", 5), ("test", None), ("infer", None), (None, None)]
)
def test_steps_per_epoch_are_those_of_the_mode(mode: str | None, expected: int | None) -> None:
    state = TrainingState(train_steps_per_epoch=30, eval_steps_per_epoch=5)
    state.mode = mode
    assert state.steps_per_epoch == expected


def trained() -> TrainingState:
    """A state after two epochs of training, evaluation and a test."""
    state = TrainingState(name="first", total_epochs=9)
    state.reset("first")
    state.epoch_idx, state.ds_id, state.stop_training = 2, "cifar", True
    for mode in ("train", "eval", "test"):
        state.mode = mode
        state.update_global_step()
        state.update_batch_idx()
        state.write_summary("loss", 0.5)
        graph = Summary("graph")
        graph.history[mode]["acc"][1] = 0.9
        state.add_graph(f"graph of {mode}", graph)
    return state


def test_reset_begins_anew() -> None:
    state = trained()
    old_id = state.exp_id
    state.reset()
    assert (state.mode, state.ds_id, state.global_step, state.epoch_idx, state.batch_idx) == (
        "train",
        "",
        None,
        0,
        None,
    )
    assert not state.stop_training
    assert state.exp_id != old_id
    assert re.fullmatch(r"\d{8}-\d{6}", state.experiment_time)
    assert state.summary.name is None
    assert state.summary.history == {}
    assert state.custom_graphs == {}
    assert state.total_epochs == 9


def test_reset_replaces_the_summary_object() -> None:
    state = trained()
    kept = state.summary
    state.reset("second")
    assert kept.history["train"]["loss"]
    assert state.summary.name == "second"


def test_reset_for_test_drops_the_old_test_and_keeps_the_rest() -> None:
    state = trained()
    step, number, time = state.global_step, state.exp_id, state.experiment_time
    state.stop_training = False
    state.reset_for_test()
    assert (state.mode, state.ds_id) == ("test", "")
    assert state.epoch_idx == state.total_epochs
    assert (state.global_step, state.exp_id, state.experiment_time) == (step, number, time)
    assert state.summary.name == "first"
    assert set(state.summary.history) == {"train", "eval"}
    histories = {name: set(graphs[0].history) for name, graphs in state.custom_graphs.items()}
    assert histories == {"graph of train": {"train"}, "graph of eval": {"eval"}, "graph of test": set()}


def test_reset_for_test_after_an_early_stop_keeps_the_epoch() -> None:
    state = trained()
    state.reset_for_test("renamed")
    assert state.epoch_idx == 2
    assert not state.stop_training
    assert state.summary.name == "renamed"


def test_reset_for_test_sets_a_missing_time() -> None:
    state = TrainingState()
    state.reset_for_test()
    assert re.fullmatch(r"\d{8}-\d{6}", state.experiment_time)


@pytest.mark.parametrize("name", [None, ""])
def test_an_unnamed_experiment_writes_no_summary(name: str | None) -> None:
    state = TrainingState(name=name)
    state.mode = "train"
    state.write_summary("loss", 0.5)
    assert not state.summary
    assert state.summary.history == {}


@pytest.mark.parametrize("name", ["a", 0, 7])
def test_a_named_experiment_writes_at_its_step_or_zero(name: str | int) -> None:
    state = TrainingState(name=name)
    state.write_summary("loss", 2.0)
    state.mode = "eval"
    state.write_summary("loss", 1.0)
    state.update_global_step()
    state.write_summary("loss", 0.5)
    assert state.summary.history == {None: {"loss": {0: 2.0}}, "eval": {"loss": {0: 1.0, 1: 0.5}}}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (torch.tensor([2]), 2),
        (np.float32(0.25), 0.25),
        (np.int64(3), 3),
        ("text", "text"),
        (ValWithError(0, 1, 2), ValWithError(0, 1, 2)),
    ],
)
def test_one_element_values_are_kept_as_numbers(value: object, kept: object) -> None:
    state = TrainingState(name="x")
    state.write_summary("v", value)
    stored = state.summary.history[None]["v"][0]
    assert stored == kept
    assert type(stored) is type(kept)


def test_a_graph_is_one_summary_or_several_and_replaces_its_name() -> None:
    state, one, two = TrainingState(), Summary("one"), Summary("two")
    state.add_graph("g", one)
    assert state.custom_graphs == {"g": [one]}
    state.add_graph("g", iter((one, two)))
    assert state.custom_graphs["g"][1] is two
    assert len(state.custom_graphs["g"]) == 2


@pytest.mark.parametrize("graph", [None, "text", [1]])
def test_what_is_no_summary_is_no_graph(graph: object) -> None:
    state = TrainingState()
    with pytest.raises(TypeError):
        state.add_graph("g", graph)  # type: ignore[arg-type]
    assert state.custom_graphs == {}
