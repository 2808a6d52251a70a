"""The passes of a training that is gone on with come after those that remain of it, whoever says where it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorder.test_passes import stored
from xaicli import open_run
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run

EPOCHS, STEPS, EVERY = 2, 10, 2


@pytest.fixture(autouse=True)
def _nothing_is_told(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    yield
    told = [str(warning.message) for warning in recwarn if issubclass(warning.category, RecorderWarning)]
    assert not [message for message in told if "passes" in message]


def place_of(step: int) -> int:
    """The epoch of a global step, from 1."""
    return (step - 1) // STEPS + 1


def evaluated() -> list[tuple[int, int, int, float]]:
    """(epoch, pass, step, loss) of every evaluation of a training that is never stopped."""
    steps = range(EVERY, EPOCHS * STEPS + 1, EVERY)
    return [(place_of(step), (step - 1) % STEPS // EVERY, step, step * 10.0) for step in steps]


def own_steps(run: Run, first: int, last: int) -> Iterator[int]:
    """A loop that names its places and evaluates with `run.steps`."""
    for step in range(first, last + 1):
        at = {"epoch": place_of(step), "step": step}
        run.log_samples(sample_id=[step], loss=[0.0], mode="train", **at)
        if step % EVERY == 0:
            for _ in run.steps([0], mode="eval"):
                run.log_samples(sample_id=[0], loss=[step * 10.0], **at)
        yield step


def own_begin_pass(run: Run, first: int, last: int) -> Iterator[int]:
    """The same with `begin_pass`, which says the number."""
    for step in range(first, last + 1):
        at: dict[str, Any] = {"epoch": place_of(step), "step": step}
        run.log_samples(sample_id=[step], loss=[0.0], mode="train", **at)
        if step % EVERY == 0:
            number = run.begin_pass("eval", epoch=at["epoch"])
            assert number == (step - 1) % STEPS // EVERY
            run.log_samples(sample_id=[0], loss=[step * 10.0], mode="eval", **at)
        yield step


def counted(run: Run, first: int, last: int) -> Iterator[int]:
    """A loop that leaves all counting to the run."""
    for epoch in run.epochs(EPOCHS):
        for step in run.steps(range(max(first, (epoch - 1) * STEPS + 1), min(last, epoch * STEPS) + 1)):
            assert run.state.global_step == step
            run.log_samples(sample_id=[step], loss=[0.0])
            if step % EVERY == 0:
                for _ in run.steps([0], mode="eval"):
                    run.log_samples(sample_id=[0], loss=[step * 10.0])
            yield step


def counted_with_states(run: Run, _: int, last: int) -> Iterator[int]:
    """The same with a state saved before each evaluation, which the next start loads."""
    for epoch in run.epochs(EPOCHS):
        for step in run.steps(range((epoch - 1) * STEPS + 1, epoch * STEPS + 1)):
            run.log_samples(sample_id=[step], loss=[0.0])
            if step % EVERY == 0:
                run.state.save_state()
                for _ in run.steps([0], mode="eval"):
                    run.log_samples(sample_id=[0], loss=[step * 10.0])
            yield step
            if step == last:
                return


TRAININGS = [own_steps, own_begin_pass, counted, counted_with_states]


def copied(live: Path, run_dir: Path) -> None:
    """A copy of a folder whose files the writer may put away meanwhile."""
    for _ in range(20):
        shutil.rmtree(run_dir, ignore_errors=True)
        try:
            shutil.copytree(live, run_dir, ignore=shutil.ignore_patterns(".tmp-*"))
        except shutil.Error:
            continue
        return
    raise AssertionError(f"{live} never stands still")


def go(run_dir: Path, training: Any, first: int, last: int, *, kill: bool = False) -> None:
    """One start: from a step to a step, then closed, or cut off with all of its rows in `wal/`."""
    options = {"resume_from": (place_of(first), first)} if training is counted and first > 1 else {}
    at = run_dir.with_name("live") if kill else run_dir
    if kill and run_dir.exists():
        shutil.copytree(run_dir, at)
    run = Run(at, strict=True, **options)
    if training is counted_with_states and first > 1:
        run.state.load_state()
    assert max(training(run, first, last)) == last
    if kill:  # a copy of its folder is what a killed process leaves: nobody holds its lock
        copied(at, run_dir)
    run.close()
    if kill:
        shutil.rmtree(at)


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize(
    ("stops", "kill"), [(((7, 6),), False), (((9, 2), (5, 4)), True), (((6, 6), (13, 12), (17, 16)), False)]
)
def test_a_training_that_was_stopped_has_the_passes_of_one_that_was_not(
    tmp_path: Path, training: Any, stops: tuple[tuple[int, int], ...], kill: bool
) -> None:
    """Each stop is (last step, step whose checkpoint is gone on from)."""
    if training is counted_with_states and any(saved != last - last % EVERY for last, saved in stops):
        stops = ((9, 8), (13, 12))  # it goes on from the newest state
    run_dir, first = tmp_path / "run", 1
    for last, saved in stops:
        go(run_dir, training, first, last, kill=kill)
        first = saved + 1
    go(run_dir, training, first, EPOCHS * STEPS)
    found = open_run(run_dir).scan(mode="eval").collect().select("epoch", "pass", "step", "loss").sort("step")
    assert found.rows() == evaluated()
    trained = open_run(run_dir).scan(mode="train").collect().select("pass", "step").sort("step")
    assert trained.rows() == [(0, step) for step in range(1, EPOCHS * STEPS + 1)]
    history = open_run(run_dir).samples(mode="eval", max=1, min=0).data["history"][0]
    assert [point["value"] for point in history] == [loss for *_, loss in evaluated()]


@pytest.mark.parametrize("lacks", ["records", "files"])
def test_passes_are_known_of_old_runs_and_where_the_files_are_elsewhere(tmp_path: Path, lacks: str) -> None:
    """Nothing is recorded of files, or they lie in an object store and only what is recorded of them is here."""
    run_dir = tmp_path / "run"
    go(run_dir, own_steps, 1, 7)
    if lacks == "records":
        for path in (run_dir / "attempts").glob("*.files"):
            path.unlink()
    else:
        shutil.move(run_dir / "data", tmp_path / "data")
    go(run_dir, own_steps, 7, EPOCHS * STEPS)
    if lacks == "files":
        shutil.copytree(tmp_path / "data", run_dir / "data", dirs_exist_ok=True)
    found = open_run(run_dir).scan(mode="eval").collect().select("epoch", "pass", "step", "loss").sort("step")
    assert found.rows() == evaluated()


def test_an_evaluation_before_the_first_train_row_comes_after_all_there_are(tmp_path: Path) -> None:
    go(tmp_path, own_steps, 1, 7)
    with Run(tmp_path, strict=True) as run:
        for _ in run.steps([0], mode="eval"):  # that of the checkpoint, again
            run.log_samples(sample_id=[0], loss=[-1.0], epoch=1, step=6)
        assert max(own_steps(run, 7, 10)) == 10
    found = open_run(tmp_path).scan(mode="eval").collect().select("pass", "step", "loss").sort("pass")
    assert found.rows() == [(0, 2, 20.0), (1, 4, 40.0), (2, 6, 60.0), (3, 6, -1.0), (4, 8, 80.0), (5, 10, 100.0)]


def test_an_evaluation_of_a_finished_run_is_one_more(tmp_path: Path) -> None:
    go(tmp_path, counted, 1, EPOCHS * STEPS)
    with Run(tmp_path, strict=True) as run:
        for number in (5, 6):
            assert run.begin_pass("eval", epoch=2) == number
            run.log_samples(sample_id=[0], loss=[float(number)], mode="eval", epoch=2)
        assert run.begin_pass("eval", epoch=3) == run.begin_pass("test", epoch=2) == 0
        assert run.begin_pass("eval", "other", epoch=2) == 0
    found = [row[1:] for row in stored(tmp_path, "mode", "epoch", "pass", "loss") if row[0] == "eval"]
    before = [(epoch, turn, loss) for epoch, turn, _, loss in evaluated()]
    assert found == [*before, (2, 5, 5.0), (2, 6, 6.0)]


def test_rows_without_a_word_belong_to_the_last_pass_of_earlier_attempts_too(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for turn in range(2):
            run.log_samples(sample_id=[0], loss=[float(turn)], mode="eval", epoch=1, step=1, eval_pass=turn)
        run.log_samples(sample_id=[0], loss=[0.0], mode="eval", epoch=2, step=1)
    with Run(tmp_path, strict=True) as run:
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=[1], loss=[9.0], mode="eval", epoch=epoch, step=2)
    found = [row[:2] for row in stored(tmp_path, "epoch", "pass", "loss") if row[2] == 9.0]
    assert found == [(1, 1), (2, 0), (3, 0)]


def test_a_training_of_several_walks_an_epoch_goes_on_with_the_one_it_was_in(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True) as run:
        for epoch in run.epochs(1):
            for half in (range(1, 6), range(6, 9)):
                for step in run.steps(half):
                    run.log_samples(sample_id=[step], loss=[0.0], epoch=epoch)
    with Run(tmp_path, strict=True, resume_from=(1, 7)) as run:
        for _ in run.epochs(1):
            for rest in (range(7, 11), range(11, 13)):
                for step in run.steps(rest):
                    run.log_samples(sample_id=[step], loss=[0.0])
    found = open_run(tmp_path).scan(mode="train").collect().select("step", "pass").sort("step")
    assert found.rows() == [(step, 0 if step < 6 else 1 if step < 11 else 2) for step in range(1, 13)]


def test_what_a_restart_takes_back_gives_its_numbers_again(tmp_path: Path) -> None:
    """A training without steps that names an epoch goes through all of it again."""
    for starts_at in (1, 2):
        with Run(tmp_path) as run:
            for epoch in range(starts_at, 3):
                run.log_samples(sample_id=[1], loss=[0.0], mode="train", epoch=epoch)
                for turn in range(2):
                    assert run.begin_pass("eval", epoch=epoch) == turn
                    run.log_samples(sample_id=[1], loss=[float(starts_at)], mode="eval", epoch=epoch)
    found = open_run(tmp_path).scan(mode="eval").collect().select("epoch", "pass", "loss").sort("epoch", "pass")
    assert found.rows() == [(1, 0, 1.0), (1, 1, 1.0), (2, 0, 2.0), (2, 1, 2.0)]


def test_a_process_beside_another_counts_the_same_walks(tmp_path: Path) -> None:
    """Two processes of one training that do not know their ranks, resumed: both count behind what remains."""
    go(tmp_path, own_steps, 1, 7)
    with Run(tmp_path, strict=True) as first, Run(tmp_path) as second:
        loops = [own_steps(first, 7, 10), own_steps(second, 7, 10)]
        for _ in range(4):
            for loop in loops:
                next(loop)
    found = open_run(tmp_path).scan(mode="eval", duplicates="all").collect().select("pass", "step").sort("pass")
    assert found.rows() == [(0, 2), (1, 4), (2, 6), (3, 8), (3, 8), (4, 10), (4, 10)]


def nameless(run: Run, first: int, last: int, *, counts: bool = False) -> None:
    """A loop that names steps and no epochs, and evaluates every fifth."""
    for step in range(first, last + 1):
        if counts:
            run.state.update_global_step()
        at = {} if counts else {"step": step}
        run.log_samples(sample_id=[step], loss=[0.0], mode="train", **at)
        if step % 5 == 0:
            for _ in run.steps([0], mode="eval"):
                run.log_samples(sample_id=[0], loss=[step * 10.0], **at)


def passes_of(run_dir: Path, mode: str) -> list[tuple[int, int, int]]:
    """(epoch, pass, step) of the rows that count."""
    return open_run(run_dir).scan(mode=mode).collect().select("epoch", "pass", "step").sort("step").rows()


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize(
    ("starts", "counts"), [([(1, 17), (11, 25)], False), ([(1, 17)] * 3, False), ([(1, 17)] * 3, True)]
)
def test_passes_that_are_taken_back_do_not_count_where_no_epoch_is_named(
    tmp_path: Path, starts: list[tuple[int, int]], counts: bool
) -> None:
    for first, last in starts:
        with Run(tmp_path / "run") as run:
            nameless(run, first, last, counts=counts)
    evaluations = range(5, starts[-1][1] + 1, 5)
    assert passes_of(tmp_path / "run", "eval") == [(0, number, step) for number, step in enumerate(evaluations)]
    assert passes_of(tmp_path / "run", "train") == [(0, 0, step) for step in range(1, starts[-1][1] + 1)]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_passes_of_walks_that_name_neither_epoch_nor_step_begin_anew_with_each_start(tmp_path: Path) -> None:
    for _ in range(3):
        with Run(tmp_path / "run") as run:
            for _ in range(2):
                for ids in run.steps([[0], [1]], mode="train"):
                    run.log_samples(sample_id=ids, loss=[1.0])
                for ids in run.steps([[100]], mode="eval"):
                    run.log_samples(sample_id=ids, loss=[1.0])
    assert passes_of(tmp_path / "run", "eval") == [(0, 0, 2), (0, 1, 4)]
    assert passes_of(tmp_path / "run", "train") == [(0, 0, 1), (0, 0, 2), (0, 1, 3), (0, 1, 4)]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_state_without_a_step_leaves_it_to_the_first_row_of_the_training(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        nameless(run, 1, 10)
        run.state.save_state()
        nameless(run, 11, 17)
    with Run(tmp_path / "run") as run:
        run.state.load_state()
        nameless(run, 11, 20)
    assert passes_of(tmp_path / "run", "eval") == [(0, 0, 5), (0, 1, 10), (0, 2, 15), (0, 3, 20)]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_walk_that_is_begun_again_is_the_same_pass(tmp_path: Path) -> None:
    """Walks of two steps without epochs; the second start goes on with the third walk, from a checkpoint of its own."""
    for first, last in ((0, 4), (2, 5)):
        with Run(tmp_path / "run") as run:
            for walk in range(first, last):
                for number in run.steps(range(2), mode="train"):
                    run.log_samples(sample_id=[number], loss=[1.0], step=2 * walk + number)
    assert passes_of(tmp_path / "run", "train") == [(0, step // 2, step) for step in range(10)]
    assert open_run(tmp_path / "run").info().answer.counts.duplicates == 0


def test_a_state_of_an_epoch_whose_steps_are_the_callers_takes_back_what_came_after_that_epoch(tmp_path: Path) -> None:
    """Epochs of four steps that the caller counts; a state at the end of each."""

    def go_on(run: Run, last: int) -> None:
        for epoch in run.epochs(last):
            for batch in range(4):
                at = {"mode": "train", "step": 4 * (epoch - 1) + batch}
                run.log_samples(sample_id=[batch], loss=[float(run.attempt)], **at)
                if (run.attempt, epoch, batch) == (0, 3, 1):
                    return
            run.state.save_state()

    for last in (3, 4):
        with Run(tmp_path / "run") as run:
            if last == 4:
                run.state.load_state()
            go_on(run, last)
    rows = open_run(tmp_path / "run").scan(mode="train").collect().select("epoch", "step", "attempt").sort("step")
    assert rows.rows() == [(step // 4 + 1, step, int(step >= 8)) for step in range(16)]
    assert open_run(tmp_path / "run").info().answer.counts.taken_back == 2
