"""Walks inside walks, and passes within the epochs a loop names itself: whose rows are whose."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import xaicli
from tests.recorder.recorded import rows
from xaicli import parquet
from xaicli.queries.scalars import scalars
from xaicli.recorder.run import Run


def evaluate(run: Run) -> Iterator[int]:
    for sample in run.steps([1, 2, 3], mode="eval", ds_id="held out"):
        run.log_samples(sample_id=[sample], loss=[100.0 + sample])
        yield sample


def to_its_end(run: Run) -> None:
    assert len(list(evaluate(run))) == 3


def broken_off(run: Run) -> None:
    for _ in run.steps([1, 2, 3], mode="eval", ds_id="held out"):
        break


def raising(run: Run) -> None:
    def fail() -> None:
        for sample in run.steps([1, 2, 3], mode="eval", ds_id="held out"):
            raise ValueError(sample)

    with pytest.raises(ValueError, match="1"):
        fail()


def returning(run: Run) -> None:
    for _ in run.steps([1, 2, 3], mode="eval", ds_id="held out"):
        return


def sliced(run: Run) -> None:
    assert list(islice(run.steps([1, 2, 3], mode="eval", ds_id="held out"), 2)) == [1, 2]


def of_nothing(run: Run) -> None:
    assert list(run.steps([], mode="eval", ds_id="held out")) == []


def within_another(run: Run) -> None:
    for _ in run.steps([1], mode="test"):
        to_its_end(run)
        assert (run.state.mode, run.state.ds_id, run.state.batch_idx) == ("test", "", 1)


@pytest.mark.parametrize(
    "inner", [to_its_end, broken_off, raising, returning, sliced, of_nothing, within_another], ids=lambda f: f.__name__
)
def test_after_a_walk_within_a_walk_the_outer_one_goes_on(tmp_path: Path, inner: Callable[[Run], None]) -> None:
    with Run(tmp_path, strict=True) as run:
        for _ in run.epochs(1):
            for number, sample in enumerate(run.steps([1, 2, 3, 4], ds_id="own"), start=1):
                if number % 2 == 0:
                    inner(run)
                assert (run.state.mode, run.state.ds_id, run.state.batch_idx) == ("train", "own", number)
                run.log_samples(sample_id=[sample], loss=[float(sample)])
                run.log({"train_loss": float(sample)})
    table = rows(tmp_path)
    found = zip(*(table[name].to_pylist() for name in ("mode", "ds_id", "step", "sample_id", "loss")), strict=True)
    evaluated = 2 if inner in (to_its_end, within_another) else 0
    assert sorted(found, key=str) == sorted(
        [("train", "own", n, n, float(n)) for n in (1, 2, 3, 4)]
        + [("eval", "held out", 2 * (turn + 1), n, 100.0 + n) for turn in range(evaluated) for n in (1, 2, 3)],
        key=str,
    )
    scalars = [row for file in (tmp_path / "scalars").glob("*.parquet") for row in parquet.read(file).to_pylist()]
    assert sorted((row["mode"], row["value"]) for row in scalars) == [("train", n) for n in (1.0, 2.0, 3.0, 4.0)]


def test_walks_side_by_side_and_one_after_another_have_their_own_modes(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        state = run.state
        pairs = zip(run.steps([1, 2], ds_id="a"), run.steps([3, 4], mode="infer", ds_id="b"), strict=False)
        assert [(state.mode, state.ds_id, state.batch_idx) for _ in pairs] == [("infer", "b", 1), ("infer", "b", 2)]
        del pairs
        assert (state.mode, state.ds_id) == ("infer", "b")  # as the last one left it
        for mode in ("train", "eval"):
            list(run.steps([1, 2], mode=mode))
            assert (state.mode, state.batch_idx) == (mode, 2)


def test_a_walk_that_is_only_suspended_leaves_the_outer_one_alone_when_it_is_dropped(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        state, suspended = run.state, None
        for number in run.steps([1, 2, 3]):
            assert (state.mode, state.batch_idx) == ("train", number)
            if number == 1:
                suspended = run.steps([7, 8], mode="eval")
                next(suspended)
                assert (state.mode, state.batch_idx) == ("eval", 1)
            elif suspended is not None:
                assert next(suspended, None) == (8 if number == 2 else None)
                assert (state.mode, state.batch_idx) == (("eval", 2) if number == 2 else ("train", 3))
        suspended = None
        assert (state.mode, state.batch_idx) == ("train", 3)


def test_passes_are_counted_within_the_epochs_that_rows_name(tmp_path: Path) -> None:
    """Three evaluations in each of two epochs, in a loop of one's own, `begin_pass` or `steps` beginning them."""
    with Run(tmp_path, strict=True) as run:
        for epoch in (1, 2):
            for turn in range(3):
                run.begin_pass("eval")
                for _ in run.steps([0], mode="infer"):
                    for mode in ("eval", "infer"):
                        for sample in (1, 2):
                            value = 10.0 * epoch + turn
                            run.log_samples(sample_id=[sample], loss=[value], mode=mode, ds_id="", epoch=epoch, step=5)
            run.log_samples(sample_id=[1], loss=[0.5], mode="train", ds_id="", epoch=epoch, step=5)
    table = rows(tmp_path)
    names = ("mode", "epoch", "pass", "sample_id", "loss")
    found = zip(*(table[name].to_pylist() for name in names), strict=True)
    assert sorted(found) == [
        *((m, e, p, s, 10.0 * e + p) for m in ("eval", "infer") for e in (1, 2) for p in (0, 1, 2) for s in (1, 2)),
        *(("train", e, 0, 1, 0.5) for e in (1, 2)),
    ]


def test_epochs_that_rows_count_from_0_beside_those_of_the_run(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(3):
            for turn in range(2):
                for _ in run.steps([0], mode="eval"):
                    run.log_samples(sample_id=[1], loss=[float(turn)], epoch=epoch - 1)
    table = rows(tmp_path)
    found = zip(*(table[name].to_pylist() for name in ("epoch", "pass", "loss")), strict=True)
    assert sorted(found) == [(epoch, turn, float(turn)) for epoch in (0, 1, 2) for turn in (0, 1)]


def test_a_pass_that_is_named_in_an_epoch_that_is_named_and_the_one_begun_after_a_resume(tmp_path: Path) -> None:
    log = lambda run, value, **told: run.log_samples(  # noqa: E731
        sample_id=[1], loss=[value], mode="eval", epoch=4, step=9, **told
    )
    with Run(tmp_path, strict=True) as run:
        log(run, 3.0, eval_pass=3)
        run.begin_pass("eval")
        log(run, 4.0)
        run.state.global_step = 9
        run.state.save_state()
    with Run(tmp_path, strict=True) as run:
        run.state.load_state()
        run.begin_pass("eval")
        log(run, 5.0)
    table = rows(tmp_path)
    assert sorted(zip(table["pass"].to_pylist(), table["loss"].to_pylist(), strict=True)) == [
        (3, 3.0),
        (4, 4.0),
        (5, 5.0),
    ]


def stored(run_dir: Path, *names: str) -> list[tuple[object, ...]]:
    table = rows(run_dir)
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


@pytest.mark.parametrize("named", [None, 7], ids=["the run's epoch", "a named one"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_walk_within_one_over_the_same_set_is_a_pass_of_its_own(tmp_path: Path, mode: str, named: int | None) -> None:
    """Rows of the outer walk stay in its pass, before, between and after those of two walks inside it."""
    with Run(tmp_path, strict=True) as run:
        for _ in run.epochs(1):
            for outer in run.steps([0, 1, 2, 3], mode=mode):
                run.log_samples(sample_id=[outer], loss=[0.0], epoch=named)
                if outer in (1, 2):
                    for inner in run.steps([0, 1], mode=mode):
                        run.log_samples(sample_id=[inner], loss=[float(outer)], epoch=named)
                    run.log_samples(sample_id=[10 + outer], loss=[0.0], epoch=named)
            for sample in run.steps([5], mode=mode):
                run.log_samples(sample_id=[sample], loss=[3.0], epoch=named)
            run.log_samples(sample_id=[6], loss=[3.0], epoch=named)  # late, of the last walk
    assert stored(tmp_path, "pass", "loss", "sample_id") == [
        *((0, 0.0, sample) for sample in (0, 1, 2, 3, 11, 12)),
        *((turn, float(turn), sample) for turn in (1, 2) for sample in (0, 1)),
        *((3, 3.0, sample) for sample in (5, 6)),
    ]


def test_arrays_that_come_late_are_of_the_walk_that_goes_on(tmp_path: Path) -> None:
    """Of batches like the one before, which are kept in a shorter way."""
    log = lambda run, value, n: run.log_samples(sample_id=np.arange(n, n + 2), loss=np.full(2, value))  # noqa: E731
    with Run(tmp_path, strict=True) as run:
        for _ in run.epochs(2):
            for turn in range(2):
                for n in run.steps([0, 2], mode="eval"):
                    log(run, float(turn), n)
                    if (turn, n) == (1, 0):
                        for m in run.steps([0, 2], mode="eval"):
                            log(run, 2.0, m)
                        log(run, 1.0, 4)
                log(run, float(turn), 6)
    found = [(e, turn, float(turn), n) for e in (1, 2) for turn in (0, 1, 2) for n in range(4)]
    found += [(e, turn, float(turn), n) for e in (1, 2) for turn in (0, 1) for n in (6, 7)]
    found += [(e, 1, 1.0, n) for e in (1, 2) for n in (4, 5)]
    assert stored(tmp_path, "epoch", "pass", "loss", "sample_id") == sorted(found)


def test_an_iterator_that_is_kept_goes_on_in_its_own_pass(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for _ in run.epochs(1):
            kept = run.steps([0, 1, 2, 3], mode="eval")
            for sample in islice(kept, 2):
                run.log_samples(sample_id=[sample], loss=[0.0])
            for sample in run.steps([0, 1], mode="eval"):
                run.log_samples(sample_id=[sample], loss=[1.0])
            for sample in kept:
                run.log_samples(sample_id=[sample], loss=[0.0])
    assert stored(tmp_path, "pass", "loss", "sample_id") == [
        *((0, 0.0, sample) for sample in (0, 1, 2, 3)),
        *((1, 1.0, sample) for sample in (0, 1)),
    ]


def test_an_iterator_left_in_an_earlier_epoch_takes_no_rows_of_a_later_one(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        left = []
        for epoch in run.epochs(2):
            if epoch == 1:
                left.append(run.steps([0, 1, 2], mode="train"))
                assert next(left[0]) == 0
            else:
                for sample in run.steps([0, 1], mode="train"):
                    run.log_samples(sample_id=[sample], loss=[2.0])
            run.log_samples(sample_id=[9], loss=[float(epoch)], mode="train")
            run.state.save_state()
            assert run.state._loop.position is None or epoch == 1
    assert stored(tmp_path, "epoch", "pass", "sample_id") == [(1, 0, 9), (2, 0, 0), (2, 0, 1), (2, 0, 9)]


def test_a_training_walk_within_one_leaves_the_outer_its_position(tmp_path: Path) -> None:
    """Saved after batch 2 of 4, which a walk over support samples came before: batches 3 and 4 are left."""
    with Run(tmp_path, strict=True) as run:
        for _ in run.epochs(1):
            for batch in run.steps([1, 2, 3, 4]):
                assert list(run.steps([7, 8, 9], ds_id="support")) == [7, 8, 9]
                run.log_samples(sample_id=[batch], loss=[0.0])
                if batch == 2:
                    run.state.save_state()
                    break
    with Run(tmp_path, strict=True) as run:
        run.state.load_state()
        for epoch in run.epochs(1):
            for batch in run.steps([1, 2, 3, 4]):
                run.log_samples(sample_id=[batch], loss=[0.0])
                assert epoch == 1
    assert stored(tmp_path, "epoch", "pass", "sample_id") == [(1, 0, sample) for sample in (1, 2, 3, 4)]


@pytest.mark.parametrize("at", ["within", "after"])
def test_a_resume_of_a_loop_that_counts_epochs_from_0(tmp_path: Path, at: str) -> None:
    """Two evaluations an epoch; stopped between those of epoch 1, or at its end, and gone on with."""
    sets = [0.0, 1.0]

    def evaluate(run: Run, epoch: int, turn: float) -> None:
        for sample in run.steps([1, 2], mode="eval"):
            run.log_samples(sample_id=[sample], loss=[turn], epoch=epoch - 1)

    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(2):
            for turn in sets if at == "after" or epoch == 1 else sets[:1]:
                evaluate(run, epoch, turn)
            run.state.save_state()
    with Run(tmp_path, strict=True) as run:
        run.state.load_state()
        if at == "within":
            evaluate(run, 2, 1.0)
        for epoch in run.epochs(3):
            for turn in sets:
                evaluate(run, epoch, turn)
    found = [(epoch, turn, float(turn), n) for epoch in (0, 1, 2) for turn in (0, 1) for n in (1, 2)]
    assert stored(tmp_path, "epoch", "pass", "loss", "sample_id") == found


def test_a_walk_is_its_threads(tmp_path: Path) -> None:
    """Two threads that go through a loop each, whichever begins first, and one that goes through none."""
    run = Run(tmp_path / "run", strict=True)
    turns = Turns()

    def evaluate() -> None:
        for sample in run.steps(range(3), mode="eval", ds_id="held out"):
            turns.wait_for("eval")
            run.log_samples(sample_id=[sample], loss=[100.0])
            seen.append((run.state.mode, run.state.ds_id, run.state.batch_idx))
            turns.give("train")

    def follow() -> None:
        followed.append((run.state.mode, run.state.ds_id))

    for epoch in run.epochs(2):
        seen: list[tuple[str | None, str, int | None]] = []
        followed: list[tuple[str | None, str]] = []
        other = threading.Thread(target=evaluate)
        turns.now = "eval" if epoch == 1 else "train"
        if epoch == 1:
            other.start()
        for sample in run.steps(range(3), mode="train"):
            if epoch == 2 and not sample:
                other.start()
            turns.wait_for("train")
            run.log_samples(sample_id=[sample], loss=[1.0])
            assert (run.state.mode, run.state.ds_id, run.state.batch_idx) == ("train", "", sample + 1)
            third = threading.Thread(target=follow)
            third.start()
            third.join()
            turns.give("eval")
        turns.now = ""
        other.join()
        assert seen == [("eval", "held out", 1), ("eval", "held out", 2), ("eval", "held out", 3)]
        assert followed == [("train", "")] * 3
    run.close()
    counted = frame(tmp_path / "run").group_by("mode", "ds_id", "loss", "pass").len().sort("mode")
    assert counted.rows() == [("eval", "held out", 100.0, 0, 6), ("train", "", 1.0, 0, 6)]


def test_two_threads_that_walk_over_one_dataset_are_two_passes(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", strict=True)
    turns = Turns()

    def walk(own: str, then: str, loss: float) -> None:
        turns.wait_for(own)
        for sample in run.steps(range(3), mode="eval"):
            turns.wait_for(own)
            run.log_samples(sample_id=[sample], loss=[loss])
            turns.give(then)
        turns.now = ""

    for _ in run.epochs(1):
        turns.now = "a"
        threads = [threading.Thread(target=walk, args=given) for given in (("a", "b", 1.0), ("b", "a", 2.0))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    run.close()
    counted = frame(tmp_path / "run").group_by("loss", "pass").len().sort("loss")
    assert counted.rows() == [(1.0, 0, 3), (2.0, 1, 3)]


def in_a_thread(evaluation: Callable[[], None]) -> None:
    thread = threading.Thread(target=evaluation)
    thread.start()
    thread.join()


def in_a_task(evaluation: Callable[[], None]) -> None:
    async def whole() -> None:
        evaluation()

    asyncio.run(whole())


BESIDE = pytest.mark.parametrize("beside", [in_a_thread, in_a_task])


@BESIDE
@pytest.mark.parametrize("loop", ["run.steps", "its own"])
def test_an_evaluation_beside_leaves_the_training_where_it_is_between_its_loops(
    tmp_path: Path, beside: Callable[[Callable[[], None]], None], loop: str
) -> None:
    """Rows and scalars of a training behind its loop are its own, and so are those of the evaluation behind its."""
    with Run(tmp_path / "run", strict=True) as run:

        def evaluate() -> None:
            for sample in run.steps([7], mode="eval", ds_id="held out"):
                run.log_samples(sample_id=[sample], loss=[100.0])
            run.log({"evaluated": 1.0})
            run.log_samples(sample_id=[8], loss=[100.0])

        for epoch in run.epochs(2):
            for sample in run.steps([1]) if loop == "run.steps" else [1]:
                run.log_samples(sample_id=[sample], loss=[1.0])
            beside(evaluate)
            run.log({"trained": 1.0})
            run.log_samples(sample_id=[2], loss=[1.0])
            assert (run.state.mode, run.state.ds_id) == ("train" if loop == "run.steps" else None, ""), epoch
    found = frame(tmp_path / "run").select("mode", "ds_id", "epoch", "sample_id", "loss").rows()
    evaluated = [("eval", "held out", epoch, sample, 100.0) for epoch in (1, 2) for sample in (7, 8)]
    assert sorted(found) == evaluated + [("train", "", epoch, sample, 1.0) for epoch in (1, 2) for sample in (1, 2)]
    logged = scalars([tmp_path / "run"]).data.select("key", "mode", "ds_id", "epoch").rows()
    own = "train" if loop == "run.steps" else ""
    assert sorted(logged) == [
        *[("evaluated", "eval", "held out", epoch) for epoch in (1, 2)],
        *[("trained", own, "", epoch) for epoch in (1, 2)],
    ]


@BESIDE
def test_what_a_thread_or_a_task_says_of_its_place_is_its_own(
    tmp_path: Path, beside: Callable[[Callable[[], None]], None]
) -> None:
    with Run(tmp_path / "run", strict=True) as run:

        def evaluate() -> None:
            run.log_samples(sample_id=[1], loss=[1.0], mode="eval")
            run.state.mode, run.state.ds_id = "test", "other"
            run.state.update_batch_idx()
            run.begin_pass("train", "")
            run.log_samples(sample_id=[2], loss=[2.0])
            run.log({"said": 1.0})

        for _ in run.epochs(1):
            for sample in run.steps([1, 2]):
                run.log_samples(sample_id=[sample], loss=[3.0])
            beside(evaluate)
            assert (run.state.mode, run.state.ds_id, run.state.batch_idx) == ("train", "", 2)
            run.log({"trained": 1.0})
            run.log_samples(sample_id=[3], loss=[3.0])
    assert sorted(frame(tmp_path / "run").select("mode", "ds_id", "pass", "sample_id", "loss").rows()) == [
        ("eval", "", 0, 1, 1.0),
        ("test", "other", 0, 2, 2.0),
        *[("train", "", 0, sample, 3.0) for sample in (1, 2, 3)],
    ]
    logged = scalars([tmp_path / "run"]).data.select("key", "mode", "ds_id").rows()
    assert sorted(logged) == [("said", "test", "other"), ("trained", "train", "")]


def test_a_loop_goes_on_with_the_place_of_one_that_has_come_to_its_end(tmp_path: Path) -> None:
    """As cells of a notebook do, each of which is a task."""

    async def cell(step: Callable[[], None]) -> None:
        step()

    opened: list[Run] = []

    def train() -> None:
        for sample in opened[0].steps([1]):
            opened[0].log_samples(sample_id=[sample], loss=[1.0])

    asyncio.run(cell(lambda: opened.append(Run(tmp_path / "run", strict=True))))
    asyncio.run(cell(train))
    asyncio.run(cell(lambda: opened[0].log({"behind": 1.0})))
    opened[0].close()
    assert scalars([tmp_path / "run"]).data.select("key", "mode").rows() == [("behind", "train")]


def frame(run_dir: Path) -> pl.DataFrame:
    return pl.DataFrame(rows(run_dir))


class Turns:
    """Whose turn it is of two threads; anyone's where that is empty."""

    def __init__(self) -> None:
        self.now = ""

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 30
        while self.now not in ("", name):
            assert time.monotonic() < deadline
            time.sleep(0.0005)

    def give(self, name: str) -> None:
        if self.now:
            self.now = name


def test_epochs_and_steps_go_on_where_the_caller_says(tmp_path: Path) -> None:
    for resume_from, first in ((None, 1), ((3, 5), 3)):
        with Run(tmp_path / "run", strict=True, resume_from=resume_from) as run:
            epochs = []
            for epoch in run.epochs(4):
                epochs.append(epoch)
                for batch in run.steps([[0, 1], [2, 3]]):
                    run.log_samples(sample_id=batch, loss=[float(first)] * 2)
        assert epochs == list(range(first, 5))
    found = frame(tmp_path / "run").filter(pl.col("attempt") == 1).select("epoch", "step").unique().sort("step")
    assert found.rows() == [(3, 5), (3, 6), (4, 7), (4, 8)]


def test_state_stands_where_the_caller_says(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with Run(run_dir, strict=True) as run:
        for _ in run.epochs(4):
            for batch in run.steps([[0, 1], [2, 3]]):
                run.log_samples(sample_id=batch, loss=[0.0] * 2)
    with Run(run_dir, strict=True, resume_from=(3, 5)) as run:
        assert (run.state.epoch_idx, run.state.global_step) == (3, 5)
        for epoch in (3, 4):  # a loop of one's own
            for batch in ([0, 1], [2, 3]):
                run.state.update_global_step()
                run.log_samples(sample_id=batch, loss=[1.0] * 2, epoch=epoch)
        assert run.state.global_step == 8
    with Run(run_dir, strict=True, resume_from=(4, 7)) as run:
        run.log_samples(sample_id=[0, 1], loss=[2.0] * 2)  # names neither
        run.log_samples(sample_id=[0, 1], loss=[2.0] * 2, mode="eval")
    places = ("mode", "attempt", "epoch", "step")
    assert sorted(frame(run_dir).select(places).unique().rows()) == [
        ("eval", 2, 4, 7),
        *[("train", 0, epoch, step) for epoch in range(1, 5) for step in (2 * epoch - 1, 2 * epoch)],
        *[("train", 1, epoch, step) for epoch in (3, 4) for step in (2 * epoch - 1, 2 * epoch)],
        ("train", 2, 4, 7),
    ]


def test_a_state_saved_before_the_first_step_goes_on_at_that(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True, resume_from=(3, 5)) as run:
        run.state.save_state(tmp_path / "state")
    with Run(tmp_path / "other", strict=True, resume_from=(2, 4)) as run:
        run.state.load_state(tmp_path / "state")
        went = [(epoch, run.state.global_step) for epoch in run.epochs(4) for _ in run.steps([0, 1])]
    assert went == [(3, 5), (3, 6), (4, 7), (4, 8)]


def test_a_state_saved_where_the_caller_says_takes_back_from_there(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with Run(run_dir) as run:
        for epoch in run.epochs(2):
            for batch in run.steps(range(4)):
                if (epoch, batch) == (2, 3):
                    break
                run.log_samples(sample_id=[batch], loss=[float(epoch)])
    with Run(run_dir, resume_from=(2, 7)) as run:
        run.state.save_state()
    with Run(run_dir) as run:
        run.state.load_state()
        assert (run.state.epoch_idx, run.state.global_step) == (2, 7)
        for _ in run.epochs(2):
            for batch in run.steps([2, 3]):
                run.log_samples(sample_id=[batch], loss=[9.0])
    found = xaicli.open_run(run_dir).query("SELECT epoch, step, loss FROM samples ORDER BY step").data
    assert found.rows() == [
        *[(1, step, 1.0) for step in range(1, 5)],
        *[(2, step, 2.0) for step in (5, 6)],
        *[(2, step, 9.0) for step in (7, 8)],
    ]


def test_a_step_that_a_loop_sets_itself_is_done(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True, resume_from=(3, 5)) as run:
        run.state.epoch_idx, run.state.global_step = 3, 5
        run.state.save_state(tmp_path / "state")
        run.state.update_global_step()
        assert run.state.global_step == 6
    with Run(tmp_path / "other", strict=True) as run:
        run.state.load_state(tmp_path / "state")
        assert (run.state.epoch_idx, run.state.global_step) == (3, 5)


def test_a_walk_is_its_tasks(tmp_path: Path) -> None:
    async def evaluate(run: xaicli.Run, ds_id: str, ids: list[int]) -> None:
        for batch in run.steps([[one] for one in ids], mode="eval", ds_id=ds_id):
            await asyncio.sleep(0.001)
            run.log_samples(sample_id=batch, loss=[float(ord(ds_id))])

    async def train(run: xaicli.Run) -> None:
        for _ in run.epochs(2):
            tasks = [asyncio.create_task(evaluate(run, ds_id, [1, 2, 3])) for ds_id in "abc"]
            for batch in run.steps([[one] for one in range(5)], mode="train"):
                await asyncio.sleep(0.001)
                run.log_samples(sample_id=batch, loss=[0.0])
            await asyncio.gather(*tasks)

    with xaicli.Run(tmp_path / "run") as run:
        asyncio.run(train(run))
    found = (
        xaicli.open_run(tmp_path / "run").scan(mode="all").select("mode", "ds_id", "epoch", "pass", "sample_id", "loss")
    )
    places = [
        ("eval", ds_id, epoch, 0, one, float(ord(ds_id))) for ds_id in "abc" for epoch in (1, 2) for one in (1, 2, 3)
    ]
    places += [("train", "", epoch, 0, one, 0.0) for epoch in (1, 2) for one in range(5)]
    assert sorted(found.collect().rows()) == sorted(places)


@pytest.mark.parametrize("comes_again", [True, False])
def test_a_walk_beside_the_training_stays_in_the_epoch_it_began_in(tmp_path: Path, comes_again: bool) -> None:
    """Also where the next epoch's own evaluation goes on meanwhile."""
    run = Run(tmp_path / "run", strict=True)
    halfway, go_on = threading.Event(), threading.Event()

    def evaluate(epoch: int) -> None:
        for sample in run.steps(range(4), mode="eval"):
            if epoch == 1 and sample == 2:
                halfway.set()
                assert go_on.wait(10)
            run.log_samples(sample_id=[sample], loss=[float(epoch)])
            run.log({f"value {sample}": epoch})

    threads = []
    for epoch in run.epochs(2):
        if epoch == 2 and not comes_again:
            go_on.set()
        for sample in run.steps(range(2), mode="train"):
            run.log_samples(sample_id=[sample], loss=[0.0])
        threads.append(threading.Thread(target=evaluate, args=(epoch,)))
        threads[-1].start()
        assert halfway.wait(10)
    if comes_again:
        threads[1].join()
        go_on.set()
    for thread in threads:
        thread.join()
    run.close()
    evaluated = [("eval", epoch, 0, sample, float(epoch)) for epoch in (1, 2) for sample in range(4)]
    trained = [("train", epoch, 0, sample, 0.0) for epoch in (1, 2) for sample in range(2)]
    found = frame(tmp_path / "run").select("mode", "epoch", "pass", "sample_id", "loss")
    assert sorted(found.rows()) == sorted(evaluated + trained)
    logged = scalars([tmp_path / "run"]).data.select("key", "mode", "epoch", "value").rows()
    assert sorted(logged) == [(f"value {sample}", "eval", epoch, epoch) for sample in range(4) for epoch in (1, 2)]


def test_an_evaluation_in_a_loop_of_events_within_a_training_step_leaves_the_training_where_it_is(
    tmp_path: Path,
) -> None:
    async def evaluate(run: xaicli.Run) -> None:
        for batch in run.steps([[7], [8]], mode="eval"):
            await asyncio.sleep(0)
            run.log_samples(sample_id=batch, loss=[1.0])

    with xaicli.Run(tmp_path / "run") as run:
        for _ in run.epochs(1):
            for batch in run.steps([[1], [2]], mode="train"):
                asyncio.run(evaluate(run))
                run.log_samples(sample_id=batch, loss=[0.0])
    found = xaicli.open_run(tmp_path / "run").scan(mode="all").select("mode", "pass", "sample_id", "step").collect()
    assert sorted(found.rows()) == [
        ("eval", 0, 7, 1),
        ("eval", 0, 8, 1),
        ("eval", 1, 7, 2),
        ("eval", 1, 8, 2),
        ("train", 0, 1, 1),
        ("train", 0, 2, 2),
    ]


def test_each_thread_has_the_run_that_it_made_the_active_one(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def trial(name: str) -> None:
        with xaicli.init(tmp_path / name):
            for step in (1, 2, 3):
                together.wait(10)
                xaicli.log({"step": step, f"of_{name}": float(step)})

    with xaicli.init(tmp_path / "main"):
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(trial, name) for name in ("a", "b")]:
                done.result()
        xaicli.log({"step": 1, "of_main": 5.0})
    for name, values in (("a", [1.0, 2.0, 3.0]), ("b", [1.0, 2.0, 3.0]), ("main", [5.0])):
        frame = xaicli.open_run(tmp_path / name).scalars().data
        assert frame.sort("step").select("key", "value").rows() == [(f"of_{name}", value) for value in values]


def test_an_epoch_that_was_interrupted_within_its_training_comes_once_more(tmp_path: Path) -> None:
    """A cell of a notebook, interrupted after one batch of the second epoch and run again."""

    def cell(run: Run, stops_at: tuple[int, int] | None = None) -> list[int]:
        epochs = []
        for epoch in run.epochs(3):
            epochs.append(epoch)
            for batch in run.steps(range(2), mode="train"):
                run.log_samples(sample_id=[batch], loss=[float(epoch)])
                if (epoch, batch) == stops_at:
                    raise KeyboardInterrupt
            for _ in run.steps(range(1), mode="eval"):
                run.log_samples(sample_id=[9], loss=[float(epoch)])
        return epochs

    with Run(tmp_path / "run") as run:
        with pytest.raises(KeyboardInterrupt):
            cell(run, (2, 0))
        gc.collect()
        assert cell(run) == [2, 3]
    trained = xaicli.open_run(tmp_path / "run").scan(mode="train").collect().sort("step")
    rows_of = [(1, 0), (1, 1), (2, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert trained.select("epoch", "sample_id").rows() == rows_of


def test_an_epoch_whose_training_is_cut_short_is_done_when_it_ends(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        seen = []
        for epoch in run.epochs(2):
            for batch in run.steps(range(5), mode="train"):
                seen.append((epoch, batch))
                if batch == 1:
                    break
        assert list(run.epochs(3)) == [3]
    assert seen == [(1, 0), (1, 1), (2, 0), (2, 1)]


def evaluate_at_night(run: Run, **named: int) -> None:
    for ids in run.steps([[7], [8]], mode="eval", ds_id="night"):
        run.log_samples(sample_id=ids, loss=[1.0], **named)


def places_of_scalars(run_dir: Path) -> set[tuple[str, str, str, int]]:
    """(key, mode, ds_id, how many) of all scalars."""
    said = 'select "key", mode, ds_id, count(*) from scalars group by "key", mode, ds_id'
    return set(xaicli.open_run(run_dir).query(said).data.rows())


def test_what_an_own_loop_logs_before_the_next_evaluation_does_not_belong_to_the_last_one(tmp_path: Path) -> None:
    """An epoch's training scalars have one curve; the accuracy right behind the evaluation is that evaluation's."""
    with Run(tmp_path, strict=True) as run:
        step = 0
        for epoch in run.epochs(3):
            for _ in range(2):
                step += 1
                run.log({"train_loss": 1 / step, "step": step})
            evaluate_at_night(run)
            run.log({"acc": 0.5, "epoch": epoch})
    assert places_of_scalars(tmp_path) == {("train_loss", "", "", 6), ("acc", "eval", "night", 3)}


@pytest.mark.parametrize("axis", ["step", "none"])
def test_scalars_of_a_loop_that_counts_no_epochs_stay_on_one_curve(tmp_path: Path, axis: str) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in range(1, 4):
            for step in (1, 2):
                run.log({"train_loss": 1.0} | ({"step": epoch * 2 + step} if axis == "step" else {}))
            evaluate_at_night(run, epoch=epoch, step=epoch * 2)
            run.log({"acc": 0.5, "epoch": epoch})
    assert places_of_scalars(tmp_path) == {("train_loss", "", "", 6), ("acc", "eval", "night", 3)}


def test_evaluations_of_several_data_sets_keep_their_scalars_apart(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for ds_id in ("day", "night"):
            for ids in run.steps([[7], [8]], mode="test", ds_id=ds_id):
                run.log_samples(sample_id=ids, loss=[1.0])
            run.log({"acc": 0.5})
    assert places_of_scalars(tmp_path) == {("acc", "test", "day", 1), ("acc", "test", "night", 1)}


def test_scalars_that_name_their_mode_are_of_it_whatever_walk_is_near(tmp_path: Path) -> None:
    """Without a name `lr` behind the evaluation would be the evaluation's; with one nothing is guessed, also later."""
    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(2):
            evaluate_at_night(run)
            run.log({"lr": 0.1}, mode="")
            run.log({"train_loss": 1.0}, mode="train")
            run.log({"acc": 0.5})
            run.log({"acc": 0.5}, ds_id="day")
            run.log({"f1": 0.5}, mode="eval")
            run.log({"acc": 0.5}, mode="test", ds_id="street")
            for _ in run.steps(range(1), mode="train", ds_id="labelled"):
                run.log({"ema_acc": epoch / 4}, mode="eval")
                run.log({"own": 1.0}, mode="train")
    assert places_of_scalars(tmp_path) == {
        ("lr", "", "", 2),
        ("train_loss", "train", "", 2),
        ("acc", "eval", "night", 2),
        ("acc", "eval", "day", 2),
        ("f1", "eval", "night", 2),
        ("acc", "test", "street", 2),
        ("ema_acc", "eval", "", 2),
        ("own", "train", "labelled", 2),
    }
    found = xaicli.open_run(tmp_path).scalars(key="ema_acc", mode="eval").data
    assert found.select("epoch", "value").rows() == [(1, 0.25), (2, 0.5)]


def test_a_named_scalar_tells_nothing_of_others_of_its_name(tmp_path: Path) -> None:
    """Where nobody counts epochs, a name that was logged outside of walks is so again; not by one that says its own."""
    with Run(tmp_path, strict=True) as run:
        run.log({"acc": 0.1, "step": 1}, mode="")
        evaluate_at_night(run, epoch=1, step=1)
        run.log({"acc": 0.5, "step": 1})
    assert places_of_scalars(tmp_path) == {("acc", "", "", 1), ("acc", "eval", "night", 1)}


def test_the_active_run_takes_the_mode_of_scalars(tmp_path: Path) -> None:
    with xaicli.init(tmp_path):
        xaicli.log({"acc": 0.5, "epoch": 1}, mode="eval", ds_id="day")
    assert places_of_scalars(tmp_path) == {("acc", "eval", "day", 1)}


@pytest.mark.parametrize("mode", ["train", None])
def test_rows_of_an_own_loop_are_not_of_the_evaluation_before(tmp_path: Path, mode: str | None) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in (1, 2):
            run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode=mode, epoch=epoch, step=epoch)
            evaluate_at_night(run, epoch=epoch)
    found = [(mode, "night" if mode == "eval" else "", epoch) for mode in ("eval", "train") for epoch in (1, 1, 2, 2)]
    assert stored(tmp_path, "mode", "ds_id", "epoch") == found


def test_rows_logged_at_once_behind_an_evaluation_are_its_own(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in (1, 2):
            ids = [one for batch in run.steps([[7], [8]], mode="eval", ds_id="night") for one in batch]
            run.log_samples(sample_id=ids, loss=[1.0, 2.0], epoch=epoch)
    assert stored(tmp_path, "mode", "ds_id", "epoch") == [("eval", "night", epoch) for epoch in (1, 1, 2, 2)]


def test_a_training_that_is_loaded_has_the_scalars_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    for stop in (2, 4):
        with Run(tmp_path, strict=True) as run:
            if stop == 4:
                run.state.load_state()
            for epoch in run.epochs(stop):
                run.log({"lr": 0.1, "epoch": epoch})
                list(run.steps([1, 2]))
                evaluate_at_night(run)
                run.state.save_state()
    assert places_of_scalars(tmp_path) == {("lr", "", "", 4)}
