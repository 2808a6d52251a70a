"""The training loop of an epoch: its length, and going on in its midst."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import xaicli
from xaicli.state import TrainingState


def shuffled(n: int = 10) -> torch.utils.data.DataLoader[int]:
    return torch.utils.data.DataLoader(range(n), batch_size=1, shuffle=True)  # type: ignore[arg-type]


def epoch(state: TrainingState, loader: object) -> Iterator[int]:
    state.mode = "train"
    for batch in state.batches(loader):  # type: ignore[arg-type, var-annotated]
        yield int(batch)


@pytest.mark.parametrize("done", [1, 4, 10])
def test_a_loop_resumed_in_its_midst_gives_the_batches_not_done(tmp_path: Path, done: int) -> None:
    torch.manual_seed(1)
    state, seen, drawn = TrainingState(), [], []
    for batch in epoch(state, shuffled()):
        seen.append(batch)
        drawn.append(random.random())
        if len(seen) == done:
            state.save_state(tmp_path)
    torch.manual_seed(99)
    random.seed(99)
    fresh = TrainingState()
    fresh.load_state(tmp_path)
    assert fresh.is_mid_epoch
    assert (fresh.batch_idx, fresh.global_step) == (done, done)
    again = [(batch, random.random(), fresh.batch_idx) for batch in epoch(fresh, shuffled())]
    assert again == list(zip(seen[done:], drawn[done:], range(done + 1, 11), strict=True))
    assert not fresh.is_mid_epoch
    assert fresh.global_step == 10


def test_a_state_saved_after_the_loop_begins_the_next_epoch(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path) as run:
        for _ in run.epochs(1):
            for _ in run.steps(range(3)):
                pass
            run.state.save_state()
    with xaicli.Run(tmp_path) as run:
        run.state.load_state()
        assert not run.state.is_mid_epoch
        assert list(run.epochs(3)) == [2, 3]
        assert run.state.total_epochs == 3


def test_a_state_saved_in_the_loop_goes_on_with_its_epoch(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path) as run:
        for number in run.epochs(3):
            for batch in run.steps(range(5)):
                if (number, batch) == (2, 1):
                    run.state.save_state()
    seen = []
    with xaicli.Run(tmp_path) as run:
        run.state.load_state()
        for number in run.epochs(3):
            seen += [(number, batch, run.state.batch_idx) for batch in run.steps(range(5))]
        assert run.state.global_step == 15
    assert seen == [*((2, b, b + 1) for b in (2, 3, 4)), *((3, b, b + 1) for b in range(5))]


def test_a_loop_left_early_is_over(tmp_path: Path) -> None:
    state = TrainingState()
    for batch in epoch(state, range(5)):
        if batch == 2:
            break
    state.save_state(tmp_path)
    fresh = TrainingState()
    fresh.load_state(tmp_path)
    assert not fresh.is_mid_epoch


def test_a_state_saved_again_before_it_goes_on_is_the_same(tmp_path: Path) -> None:
    state = TrainingState()
    for batch in epoch(state, range(5)):
        if batch == 2:
            state.save_state(tmp_path)
    second = TrainingState()
    second.load_state(tmp_path)
    second.save_state(tmp_path)
    third = TrainingState()
    third.load_state(tmp_path)
    assert list(epoch(third, range(5))) == [3, 4]


def test_a_reset_begins_at_the_first_batch(tmp_path: Path) -> None:
    state = TrainingState()
    for _ in epoch(state, range(5)):
        state.save_state(tmp_path)
        break
    fresh = TrainingState()
    fresh.load_state(tmp_path)
    fresh.reset()
    assert list(epoch(fresh, range(5))) == [0, 1, 2, 3, 4]


class Stateful(list[int]):
    """A loader that keeps its own position."""

    def load_state_dict(self, state: object) -> None: ...


def test_a_loader_that_keeps_its_own_position_is_not_touched(tmp_path: Path) -> None:
    state = TrainingState()
    for batch in epoch(state, range(5)):
        if batch == 2:
            state.save_state(tmp_path)
    fresh = TrainingState()
    fresh.load_state(tmp_path)
    assert list(epoch(fresh, Stateful([3, 4]))) == [3, 4]
    assert fresh.batch_idx == 5
    shorter = TrainingState(train_steps_per_epoch=4)
    shorter.load_state(tmp_path)
    shorter.train_steps_per_epoch = 4
    assert list(epoch(shorter, Stateful([3, 4]))) == [3]


def test_a_training_loop_inside_a_training_loop_has_its_own_position(tmp_path: Path) -> None:
    state = TrainingState()
    outer = []
    for batch in epoch(state, range(4)):
        outer.append(batch)
        if batch == 1:
            assert list(epoch(state, range(2))) == [0, 1]
        if batch == 2:
            state.save_state(tmp_path)
    assert outer == [0, 1, 2, 3]
    fresh = TrainingState()
    fresh.load_state(tmp_path)
    assert list(epoch(fresh, range(4))) == [3]


@pytest.mark.parametrize(("steps", "expected"), [(None, [0, 1, 2]), (2, [0, 1]), (7, [0, 1, 2, 0, 1, 2, 0]), (0, [])])
def test_steps_per_epoch_cut_or_extend_a_loader(steps: int | None, expected: list[int]) -> None:
    state = TrainingState(train_steps_per_epoch=steps, eval_steps_per_epoch=1)
    assert list(epoch(state, range(3))) == expected
    state.mode = "eval"
    assert list(state.batches(range(3))) == [0]
    assert state.batch_idx == 1


def test_an_exhausted_or_empty_loader_ends_the_epoch() -> None:
    state = TrainingState(train_steps_per_epoch=5)
    assert list(epoch(state, iter(range(3)))) == [0, 1, 2]
    assert list(epoch(state, [])) == []


def test_stopping_ends_the_training_loop_only() -> None:
    state = TrainingState()
    seen = []
    for batch in epoch(state, range(5)):
        seen.append(batch)
        state.stop_training = batch == 1
    assert seen == [0, 1]
    state.mode = "eval"
    assert list(state.batches(range(3))) == [0, 1, 2]
