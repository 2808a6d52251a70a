"""Saved and loaded states: a training that goes on as if it had never stopped."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.state.training_things import OPTIMIZERS, SCHEDULERS, Training, same
from xaicli.layout import RunLayout
from xaicli.state import TrainingState
from xaicli.state.encoding import Encoder, decode
from xaicli.state.folder import saved_states
from xaicli.state.randomness import randomness_kept, seeded
from xaicli.summary import Summary


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [*((optimizer, "step") for optimizer in OPTIMIZERS), *(("sgd", scheduler) for scheduler in SCHEDULERS)],
)
def test_a_resumed_training_goes_on_as_if_never_stopped(tmp_path: Path, optimizer: str, scheduler: str) -> None:
    straight = Training(optimizer, scheduler)
    straight.train(5)
    straight.state.save_state(tmp_path, **straight.belongings)
    straight.train(5)
    expected = straight.everything()

    resumed = Training(optimizer, scheduler, seed=1)
    resumed.train(2)
    resumed.state.load_state(tmp_path, **resumed.belongings)
    resumed.train(5)
    assert same(resumed.everything(), expected)


def test_every_attribute_comes_back(tmp_path: Path) -> None:
    state = TrainingState(name="a", total_epochs=4, log_steps=10, train_steps_per_epoch=3, eval_steps_per_epoch=2)
    graph = Summary("curve")
    graph.history["eval"]["acc"][3] = math.nan
    state.add_graph("g", [graph, Summary(5)])
    state.mode, state.ds_id, state.epoch_idx, state.stop_training = "eval", "x", 3, True
    state.experiment_time = "20200101-000000"
    state.update_global_step()
    state.update_batch_idx()
    state.write_summary("loss", 0.25)
    state.save_state(tmp_path)
    fresh = TrainingState()
    fresh.load_state(tmp_path)
    for name in (
        *("mode", "ds_id", "exp_id", "global_step", "epoch_idx", "batch_idx", "total_epochs", "train_steps_per_epoch"),
        *("eval_steps_per_epoch", "steps_per_epoch", "log_steps", "num_devices", "stop_training", "experiment_time"),
    ):
        assert getattr(fresh, name) == getattr(state, name), name
    assert fresh.summary == state.summary
    assert [graph.name for graph in fresh.custom_graphs["g"]] == ["curve", 5]
    assert math.isnan(fresh.custom_graphs["g"][0].history["eval"]["acc"][3])


def test_the_callers_total_epochs_win_so_that_a_training_can_be_extended(tmp_path: Path) -> None:
    TrainingState(total_epochs=3).save_state(tmp_path)
    longer, unset = TrainingState(total_epochs=10), TrainingState()
    longer.load_state(tmp_path)
    unset.load_state(tmp_path)
    assert (longer.total_epochs, unset.total_epochs) == (10, 3)


def test_the_summary_object_a_caller_holds_is_the_one_restored(tmp_path: Path) -> None:
    saved = TrainingState(name="a")
    saved.write_summary("loss", 1.0)
    saved.save_state(tmp_path)
    fresh = TrainingState()
    held = fresh.summary
    fresh.load_state(tmp_path)
    assert fresh.summary is held
    assert held == saved.summary


def test_loading_says_the_first_step_that_will_be_logged(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    state = TrainingState()
    state.save_state(tmp_path / "none")
    state.update_global_step()
    state.update_global_step()
    state.save_state(tmp_path / "two")
    fresh = TrainingState(on_load=lambda epoch, step: told.append((epoch, step)))
    fresh.load_state(tmp_path / "two")
    fresh.load_state(tmp_path / "none")
    assert told == [(0, 3)], "a state that counted nothing says nothing of where its rows are"


def test_plain_data_is_filled_in_place_and_returned(tmp_path: Path) -> None:
    things = {
        "dict": {"a": [1, (2, None)], 3: "x"},
        "list": [1.5, math.inf],
        "set": {1, 2},
        "array": np.arange(6.0).reshape(2, 3),
        "tensor": torch.arange(4, dtype=torch.bfloat16),
        "number": 0.75,
        "text": "é\ud7ff",
        "nothing": None,
    }
    TrainingState().save_state(tmp_path, objects=things)
    here = {
        "dict": {"gone": 1},
        "list": [0],
        "set": {9},
        "array": np.zeros((2, 3)),
        "tensor": torch.zeros(4, dtype=torch.bfloat16),
    }
    back = TrainingState().load_state(tmp_path, objects=dict(here))
    assert same({name: here[name] for name in here}, {name: things[name] for name in here})
    assert same(back, things)


@pytest.mark.parametrize(
    "make",
    [lambda: random.Random(3), lambda: np.random.default_rng(3), lambda: np.random.RandomState(3), torch.Generator],
)
def test_generators_go_on_where_they_were(tmp_path: Path, make: object) -> None:
    def draw(generator: object) -> float:
        if isinstance(generator, torch.Generator):
            return torch.rand(1, generator=generator).item()
        return float(generator.random())  # type: ignore[attr-defined]

    one, two = make(), make()  # type: ignore[operator]
    draw(one)
    TrainingState().save_state(tmp_path, objects={"g": one})
    TrainingState().load_state(tmp_path, objects={"g": two})
    assert draw(two) == draw(one)


def test_what_is_drawn_inside_is_drawn_again() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    cpu = torch.device("cpu")
    with randomness_kept():
        expected = drawn()
    with contextlib.suppress(ZeroDivisionError), randomness_kept(cpu, seed=7):
        first = drawn()
        _ = 1 / 0
    with randomness_kept(cpu, seed=7):
        assert drawn() == first != expected
        seeded(7, cpu)
        assert drawn() == first
    assert first == (random.Random(7).random(), np.random.RandomState(7).rand(), _of_torch(7))
    assert drawn() == expected


def _of_torch(seed: int) -> float:
    return torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()


def test_random_states_can_be_left_alone(tmp_path: Path) -> None:
    TrainingState().save_state(tmp_path)
    random.seed(5)
    torch.manual_seed(5)
    expected = random.random(), torch.rand(1)
    random.seed(5)
    torch.manual_seed(5)
    TrainingState().load_state(tmp_path, random=False)
    assert (random.random(), torch.rand(1)) == expected


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_and_bare_models_are_one(tmp_path: Path, prefix: str) -> None:
    bare = torch.nn.Linear(2, 2)
    wrapped: torch.nn.Module = torch.nn.Linear(2, 2)
    for name in reversed(prefix.rstrip(".").split(".")):
        holder = torch.nn.Module()
        holder.add_module(name, wrapped)
        wrapped = holder
    TrainingState().save_state(tmp_path / "bare", models={"m": bare})
    TrainingState().load_state(tmp_path / "bare", models={"m": wrapped})
    assert torch.equal(wrapped.state_dict()[prefix + "weight"], bare.weight)
    TrainingState().save_state(tmp_path / "wrapped", models={"m": wrapped})
    other = torch.nn.Linear(2, 2)
    TrainingState().load_state(tmp_path / "wrapped", models={"m": other})
    assert torch.equal(other.weight, bare.weight)


def test_a_module_among_the_objects_is_checked_like_a_model(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 2))
    TrainingState().save_state(tmp_path, objects={"ema": average})
    other = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 2))
    TrainingState().load_state(tmp_path, objects={"ema": other})
    assert same(other.state_dict(), average.state_dict())
    with pytest.raises(ValueError, match=r"objects\['ema'\]: the saved names differ"):
        TrainingState().load_state(tmp_path, objects={"ema": torch.nn.Linear(2, 2)})


def test_shared_weights_stay_shared_and_views_stay_small(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(64, 64), "b": torch.nn.Linear(64, 64)})
    model["b"].weight = model["a"].weight
    view = torch.zeros(1_000_000)[:3]
    path = TrainingState().save_state(tmp_path, models={"m": model}, objects={"view": view})
    assert path is not None
    assert (path / "tensors.pt").stat().st_size < 40_000


def test_the_files_are_json_and_weights_only_tensors(tmp_path: Path) -> None:
    training = Training()
    training.train(1)
    path = training.state.save_state(tmp_path, **training.belongings)
    assert path is not None
    facts = json.loads((path / "state.json").read_text())
    assert facts["training"]["values"]["global_step"] == 1
    assert torch.load(path / "tensors.pt", weights_only=True)
    with np.load(path / "arrays.npz", allow_pickle=False) as arrays:
        assert arrays.files


def test_older_states_are_kept_and_can_be_loaded(tmp_path: Path) -> None:
    state = TrainingState()
    for _ in range(5):
        state.update_global_step()
        state.save_state(tmp_path, keep=3)
    kept = saved_states(tmp_path)
    assert [saved.step for saved in kept] == [3, 4, 5]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [saved.path.name for saved in kept]
    newest, older = TrainingState(), TrainingState()
    newest.load_state(tmp_path)
    older.load_state(kept[0].path)
    assert (newest.global_step, older.global_step) == (5, 3)


def test_the_default_folder_is_the_runs(tmp_path: Path) -> None:
    state = TrainingState(RunLayout(tmp_path))
    state.update_global_step()
    path = state.save_state()
    assert path is not None
    assert path.parent == tmp_path / "state"
    fresh = TrainingState(RunLayout(tmp_path))
    fresh.load_state()
    assert fresh.global_step == 1


def test_without_a_run_the_folder_must_be_named() -> None:
    with pytest.raises(ValueError, match="name a folder"):
        TrainingState().save_state()


def test_only_rank_0_writes(tmp_path: Path) -> None:
    assert TrainingState(rank=lambda: 1).save_state(tmp_path / "s") is None
    assert not (tmp_path / "s").exists()


def test_what_was_saved_but_not_asked_for_is_said(tmp_path: Path) -> None:
    training = Training()
    training.state.save_state(tmp_path, **training.belongings)
    with pytest.warns(UserWarning, match="not restored") as warned:
        TrainingState().load_state(tmp_path, models=training.belongings["models"])
    said = " ".join(str(warning.message) for warning in warned)
    assert "objects scheduler, noise:" in said
    assert "optimizers opt:" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.state.load_state(tmp_path, **training.belongings)


class Kind(int):
    """A number with a name, as enums are."""


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.complex_numbers()
    | st.builds(np.float32, st.floats(width=32)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(), max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.just("$tensor"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(PLAIN)
def test_plain_data_survives_json(value: object) -> None:
    encoder = Encoder()
    text = json.dumps(encoder.encode(value, "value"), allow_nan=False)
    assert same(decode(json.loads(text), encoder.tensors, encoder.arrays), value)


def test_richer_kinds_come_back_plain() -> None:
    value = [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, {0: [torch.float16]}),
        Kind(3),
        torch.Size((1, 2)),
        torch.device("cpu"),
    ]
    back = decode(Encoder().encode(value, "value"), {}, {})
    assert back == [{"a": 1}, {0: [torch.float16]}, 3, (1, 2), torch.device("cpu")]
