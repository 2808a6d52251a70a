"""The pass of a walk: how many walks before it had rows of its mode, dataset and epoch, whatever the run is at."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recorder.recorded import rows
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run


def stored(run_dir: Path, *names: str) -> list[tuple[object, ...]]:
    table = rows(run_dir)
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def by_steps(run: Run, epoch: int | None, value: float, mode: str = "test") -> None:
    for sample in run.steps([1, 2], mode=mode):
        run.log_samples(sample_id=[sample], loss=[value], epoch=epoch)


def by_begin_pass(run: Run, epoch: int | None, value: float, mode: str = "test") -> None:
    number = run.begin_pass(mode, epoch=epoch)
    for sample in (1, 2):
        run.log_samples(sample_id=[sample], loss=[value], mode=mode, epoch=epoch, step=9)
    last = run.state.begun[mode, "", run.state.epoch_idx if epoch is None else epoch]
    assert number == last


Walking = Callable[..., None]
walking = pytest.mark.parametrize("walk", [by_steps, by_begin_pass])


@walking
@pytest.mark.parametrize("named", [(1, 2, 3), (3, 2, 1, 0), (2, 1, 0), (3, 3, 1, 3), (0, 1, 2), (5, 3, 4, 3)])
@pytest.mark.parametrize("has_evaluated", [False, True])
def test_walks_after_a_training_over_epochs_they_name(
    tmp_path: Path, walk: Walking, named: tuple[int, ...], has_evaluated: bool
) -> None:
    expected, before = [], dict.fromkeys((1, 2, 3), int(has_evaluated))
    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(3):
            by_steps(run, None, 0.0, "train")
            if has_evaluated:
                walk(run, None, 0.0)
                expected += [(epoch, 0, 0.0, sample) for sample in (1, 2)]
        for number, epoch in enumerate(named, start=1):
            walk(run, epoch, float(number))
            turn = before.get(epoch, 0)
            before[epoch] = turn + 1
            expected += [(epoch, turn, float(number), sample) for sample in (1, 2)]
    found = [row[1:] for row in stored(tmp_path, "mode", "epoch", "pass", "loss", "sample_id") if row[0] == "test"]
    assert found == sorted(expected)


@walking
@pytest.mark.parametrize("first", [0, 1, 2])
def test_evaluations_within_epochs_that_the_loop_counts_from_where_it_likes(
    tmp_path: Path, walk: Walking, first: int
) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(4):
            for turn in range(3):
                walk(run, epoch - 1 + first, float(turn), "eval")
    found = stored(tmp_path, "epoch", "pass", "loss", "sample_id")
    assert found == [(first + n, turn, float(turn), s) for n in range(4) for turn in range(3) for s in (1, 2)]


def test_a_walk_whose_rows_are_of_several_epochs_is_numbered_in_each(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for _ in run.epochs(2):
            pass
        for turn in range(2):
            for epoch in run.steps([3, 2, 1, 2] if turn else [2, 1], mode="test"):
                run.log_samples(sample_id=[1], loss=[float(turn)], epoch=epoch)
    assert stored(tmp_path, "epoch", "pass", "loss") == [
        (1, 0, 0.0),
        (1, 1, 1.0),
        (2, 0, 0.0),
        (2, 1, 1.0),
        (2, 1, 1.0),
        (3, 0, 1.0),
    ]


def test_a_walk_without_rows_is_no_pass(tmp_path: Path) -> None:
    """One that warms up, or whose epoch is not recorded, moves none of those after it."""
    with Run(tmp_path, strict=True, epoch_frequency=2) as run:
        for _ in run.epochs(2):
            assert list(run.steps([1, 2], mode="eval")) == [1, 2]
            assert run.begin_pass("eval") == 0
            by_steps(run, None, 0.0, "eval")
            by_steps(run, None, 1.0, "eval")
    assert stored(tmp_path, "epoch", "pass", "loss", "sample_id") == [
        (2, turn, float(turn), s) for turn in (0, 1) for s in (1, 2)
    ]


def test_walks_of_threads_beside_the_epochs_of_the_run(tmp_path: Path) -> None:
    """Each names its epoch, and goes on while the run counts on; two of one epoch are two passes of it."""
    run = Run(tmp_path, strict=True)
    go_on = threading.Event()
    is_there = threading.Semaphore(0)

    def evaluate(named: int, value: float) -> None:
        for sample in run.steps([1, 2], mode="eval"):
            if sample == 1:
                is_there.release()
                assert go_on.wait(20)
            run.log_samples(sample_id=[sample], loss=[value], epoch=named)

    threads = []
    for epoch in run.epochs(4):
        by_steps(run, None, 0.0, "train")
        for value in (1.0, 2.0) if epoch == 3 else (1.0,):
            threads.append(threading.Thread(target=evaluate, args=(epoch, value)))
            threads[-1].start()
            assert is_there.acquire(timeout=20)
    go_on.set()
    for thread in threads:
        thread.join()
    run.close()
    found = [row[1:] for row in stored(tmp_path, "mode", "epoch", "pass", "sample_id") if row[0] == "eval"]
    assert found == [(e, turn, s) for e in (1, 2, 3, 4) for turn in ((0, 1) if e == 3 else (0,)) for s in (1, 2)]
    of_one = {row[1:3] for row in stored(tmp_path, "mode", "pass", "loss", "epoch") if row[0] == "eval" and row[3] == 3}
    assert len({value for _, value in of_one}) == len({turn for turn, _ in of_one}) == len(of_one) == 2


@walking
def test_passes_of_a_walk_go_on_behind_a_saved_state(tmp_path: Path, walk: Walking) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(2):
            by_steps(run, None, 0.0, "train")
            walk(run, 1, float(epoch - 1), "eval")
            run.state.save_state()
    with Run(tmp_path, strict=True) as run:
        run.state.load_state()
        walk(run, 1, 2.0, "eval")
        walk(run, 2, 0.0, "eval")
    found = [row[1:] for row in stored(tmp_path, "mode", "epoch", "pass", "loss", "sample_id") if row[0] == "eval"]
    assert found == [*((1, t, float(t), s) for t in (0, 1, 2) for s in (1, 2)), *((2, 0, 0.0, s) for s in (1, 2))]


WHOLE = (2, 2.0, np.int64(2), np.array(2), torch.tensor(2))
NO_NUMBERS = ("2", 1.5, True, np.bool_(True), torch.tensor(2.5), [2], 2**40)


@pytest.mark.parametrize("epoch", [*WHOLE, *NO_NUMBERS], ids=repr)
def test_an_epoch_is_a_whole_number_of_whatever_kind(tmp_path: Path, epoch: Any) -> None:
    is_whole = any(epoch is one for one in WHOLE)
    with Run(tmp_path) as run, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.log_samples(sample_id=[1], loss=[0.0], mode="eval", epoch=2, step=1)
        run.state.epoch_idx = 1
        assert run.begin_pass("eval", epoch=epoch) == (1 if is_whole else 0)  # of epoch 2, or of the current one
        run.log_samples(sample_id=[1], loss=[1.0], mode="eval", epoch=epoch, step=2)
    assert [warning.category for warning in told] == ([] if is_whole else [RecorderWarning, RecorderWarning])
    assert is_whole or "the current epoch, 1, is given" in str(told[0].message)
    assert stored(tmp_path, "epoch", "pass", "loss") == [(2, 0, 0.0), *([(2, 1, 1.0)] if is_whole else [])]
    if not is_whole:
        with Run(tmp_path, strict=True) as run, pytest.raises(ValueError, match=r"epoch .* (whole|32 bits)"):
            run.begin_pass("eval", epoch=epoch)


@pytest.mark.parametrize("whole", [int, np.int64, np.array, torch.tensor, float])
def test_the_state_counts_with_numbers_of_whatever_kind(tmp_path: Path, whole: Any) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in (1, 2):
            run.state.epoch_idx, run.state.global_step = whole(epoch), whole(10 * epoch)
            run.log_samples(sample_id=np.array([1, 2]), loss=np.array([0.0, float(epoch)]))
    assert stored(tmp_path, "epoch", "pass", "step", "sample_id", "loss") == [
        (epoch, 0, 10 * epoch, one, float(epoch * (one == 2))) for epoch in (1, 2) for one in (1, 2)
    ]
