"""Which attempt a process is, who is alive beside it, what it takes back; and the passes of an epoch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.recorder.recorded import rows
from xaicli import locks, open_run
from xaicli.layout import RunLayout
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run


def facts(run_dir: Path, attempt: int) -> dict[str, Any]:
    return json.loads((run_dir / "attempts" / f"{attempt:06d}.json").read_text())  # type: ignore[no-any-return]


def test_a_second_opener_of_a_live_run_is_one_more_rank(tmp_path: Path) -> None:
    first = Run(tmp_path / "run")
    first.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=1, step=1)
    with pytest.warns(RecorderWarning, match="being recorded by attempt 0 still") as said, Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[2], loss=[1.0], mode="train", epoch=1, step=1)
    assert len(said) == 1
    first.log_samples(sample_id=[3], loss=[1.0], mode="train", epoch=1, step=2)
    first.close()
    assert facts(tmp_path / "run", 1)["beside"] == [0]
    with Run(tmp_path / "run") as run:  # nobody lives any more
        run.log_samples(sample_id=[4], loss=[1.0], mode="train", epoch=2, step=3)
    assert facts(tmp_path / "run", 2)["beside"] == []


_DIE = """
import os, signal, sys
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
run.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=1, step=1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_attempt_is_not_alive(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", _DIE, run_dir], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (lock,) = RunLayout(run_dir).wal.glob("*.lock")
    assert not locks.is_held(lock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run(run_dir, strict=True) as run:
            run.log_samples(sample_id=[2], loss=[1.0], mode="train", epoch=1, step=2)
    assert facts(run_dir, 1)["beside"] == []
    assert sorted(rows(run_dir)["sample_id"].to_pylist()) == [1, 2]


_TIDY = """
import sys
from pathlib import Path
from xaicli.layout import RunLayout
from xaicli.recorder.parts import recover
print(recover(RunLayout(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("nth", [1, 2])
def test_a_rank_that_opens_the_run_takes_no_lock_from_one_that_is_just_making_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Another rank tidies up between the first one's lock file and its lock, once or twice."""
    tidied = []
    lockf = locks.fcntl.lockf

    def late(descriptor: int, command: int) -> None:
        if len(tidied) < nth:
            done = subprocess.run(
                [sys.executable, "-c", _TIDY, tmp_path / "run"], capture_output=True, text=True, timeout=60, check=True
            )
            tidied.append(done.stdout)
        lockf(descriptor, command)

    with Run(tmp_path / "run", strict=True) as run:
        monkeypatch.setattr(locks.fcntl, "lockf", late)
        run.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=1, step=1)
        monkeypatch.setattr(locks.fcntl, "lockf", lockf)
        assert len(tidied) == nth
        (lock,) = run.layout.wal.glob("*.lock")
        other = subprocess.run(
            [sys.executable, "-c", _TIDY, tmp_path / "run"], capture_output=True, text=True, timeout=60, check=True
        )
        assert other.stdout == "0\n", "a living rank's segment was taken for that of a dead one"
        assert lock.exists()
        run.log_samples(sample_id=[2], loss=[1.0], mode="train", epoch=1, step=2)
    assert sorted(rows(tmp_path / "run")["sample_id"].to_pylist()) == [1, 2]


@pytest.mark.parametrize(("age", "lives"), [(0, True), (3600, False)])
def test_a_process_of_another_host_lives_while_it_touches_its_lock(tmp_path: Path, age: float, lives: bool) -> None:
    lock = tmp_path / "a000000-r0000.lock"
    lock.write_text(json.dumps({"host": "elsewhere", "boot_id": "b", "pid": 1, "start": "1"}))
    now = lock.stat().st_mtime
    os.utime(lock, (now - age, now - age))
    assert locks.is_held(lock) is lives


def test_a_file_system_without_locks_knows_processes_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_holder", lambda _: -1)
    lock = tmp_path / "a000000-r0000.lock"
    here = {"host": locks.socket.gethostname(), "boot_id": locks.boot_id(), "pid": os.getpid()}
    lock.write_text(json.dumps({**here, "start": locks.start_time(os.getpid())}))
    assert locks.is_held(lock)
    lock.write_text(json.dumps({**here, "start": "another process had this number"}))
    assert not locks.is_held(lock)


def test_what_is_taken_back_is_written_down(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for _ in run.epochs(2):
            for _ in run.steps(range(3)):
                run.log_samples(sample_id=[1], loss=[1.0])
            run.state.save_state(tmp_path / "saved")
    with Run(tmp_path / "run", strict=True) as run:
        run.state.load_state(tmp_path / "saved")
    with Run(tmp_path / "run", strict=True, resume_from=(2, 5)) as run:
        run.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=2, step=5)
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1], loss=[1.0], mode="test", epoch=2, step=0)
    said = [facts(tmp_path / "run", attempt)["takes_back_from"] for attempt in range(4)]
    assert said == [
        None,
        {"epoch": 2, "step": 7, "by": "load_state"},
        {"epoch": 2, "step": 5, "by": "resume_from"},
        None,
    ]
    for odd in ((1,), (True, 1), (1, False)):
        with pytest.raises(ValueError, match="resume_from"):
            Run(tmp_path / "run", resume_from=odd)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [-1, None])
def test_no_rank_is_rank_0(tmp_path: Path, rank: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "-1")
    with Run(tmp_path / "run", rank=rank, strict=True) as run:
        run.log_samples(sample_id=[1], loss=[1.0])
        assert run.rank == 0


@pytest.mark.parametrize(("name", "meant"), [("RANK", "rank 0"), ("WORLD_SIZE", "for 1")])
def test_a_variable_of_the_launcher_that_is_no_number_is_told(
    tmp_path: Path, name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, "abc")
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run", strict=True) as run:
        warnings.simplefilter("always")
        for step in (1, 2):
            run.log_samples(sample_id=[1], loss=[1.0], epoch=1, step=step)
    (told,) = map(str, (warning.message for warning in said))
    assert f"{name}='abc' is no whole number" in told
    assert meant in told
    assert (run.rank, facts(tmp_path / "run", 0)["world_size"]) == (0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name == "RANK":  # nobody asks for it
            with Run(tmp_path / "own", rank=3, strict=True) as run:
                run.log_samples(sample_id=[1], loss=[1.0], epoch=1, step=1)


def test_the_rank_is_looked_up_when_the_first_row_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with Run(tmp_path / "run", strict=True) as run:
        monkeypatch.setenv("RANK", "3")
        run.log_samples(sample_id=[1], loss=[1.0])
        assert (run.attempt, run.rank) == (0, 3)


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for epoch in (1, 2):
        with Run(tmp_path / "run", strict=True) as run:
            run.log_samples(sample_id=[epoch], loss=[1.0], epoch=epoch)
    assert sorted(rows(tmp_path / "run")["sample_id"].to_pylist()) == [1, 2]


def test_a_refused_resume_leaves_the_counters(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning):
        run.log_samples(sample_id=[None], loss=[1.0])
    before = (tmp_path / "run" / "attempts" / "000000-r0000.stats").read_bytes()
    assert json.loads(before)["rows_dropped"] == 1
    with pytest.raises(Exception, match="holds a run already"):
        Run(tmp_path / "run", resume="never")
    assert (tmp_path / "run" / "attempts" / "000000-r0000.stats").read_bytes() == before


def passes(run_dir: Path, mode: str) -> list[tuple[int, int, int]]:
    found = rows(run_dir).to_pylist()
    return sorted((row["epoch"], row["pass"], row["step"]) for row in found if row["mode"] == mode)


def test_every_walk_over_a_set_is_a_pass(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for _ in run.epochs(2):
            for batch in run.steps(range(4)):
                run.log_samples(sample_id=[1], loss=[1.0])
                if batch % 2:
                    for _ in run.steps(range(1), mode="eval"):
                        run.log_samples(sample_id=[1], loss=[1.0])
        run.log_samples(sample_id=[1], loss=[1.0], mode="eval", eval_pass=7)
    assert passes(tmp_path / "run", "eval") == [(1, 0, 2), (1, 1, 4), (2, 0, 6), (2, 1, 8), (2, 7, 8)]
    assert {turn for _, turn, _ in passes(tmp_path / "run", "train")} == {0}


def test_a_resumed_loop_stays_in_its_pass_and_evaluations_go_on_counting(tmp_path: Path) -> None:
    def train(run: Run, last: int) -> None:
        for _ in run.epochs(1):
            for batch in run.steps(range(6)):
                run.log_samples(sample_id=[batch], loss=[1.0])
                if batch % 2:
                    for _ in run.steps(range(1), mode="eval"):
                        run.log_samples(sample_id=[1], loss=[1.0])
                if batch == last:
                    run.state.save_state()
                    return

    with Run(tmp_path / "run", strict=True) as run:
        train(run, 3)
    with Run(tmp_path / "run", strict=True) as run:
        run.state.load_state()
        train(run, 9)
    assert passes(tmp_path / "run", "train") == [(1, 0, step) for step in range(1, 7)]
    assert passes(tmp_path / "run", "eval") == [(1, 0, 2), (1, 1, 4), (1, 2, 6)]


def test_a_loop_that_alternates_makes_no_file_a_step(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(60):
            run.log_samples(sample_id=[step], loss=[step / 4], ds_id=("de", "en", "fr")[step % 3], step=step)
    assert len(list((tmp_path / "run" / "data").rglob("*.parquet"))) == 3
    found = rows(tmp_path / "run").to_pylist()
    assert sorted((row["sample_id"], row["ds_id"], row["loss"]) for row in found) == [
        (step, ("de", "en", "fr")[step % 3], step / 4) for step in range(60)
    ]


def test_large_batches_get_large_segments(tmp_path: Path) -> None:
    import numpy as np

    logits = np.random.default_rng(0).normal(size=(256, 10_000)).astype(np.float32)
    with Run(tmp_path / "run", strict=True, keep_probs=True) as run:
        for step in range(8):
            run.log_samples(sample_id=np.arange(256) + 256 * step, logits=logits, step=step)
    assert len(list((tmp_path / "run" / "data").rglob("*.parquet"))) < 8
    assert run.stats()["rows_stored"] == 2048


def counted(run_dir: Path) -> tuple[list[tuple[str, int, int, float]], int, tuple[str, ...]]:
    """The rows that count, (mode, epoch, id, loss), how many were taken back, and what the reader says of them."""
    reader = open_run(run_dir)
    frame = reader.scan(mode="all").select("mode", "epoch", "sample_id", "loss").collect()
    info = reader.info().answer
    return sorted(frame.iter_rows()), info.counts.taken_back or 0, tuple(info.warnings)


def test_a_restart_that_names_epochs_and_no_step_takes_back_the_epoch_it_restarts(tmp_path: Path) -> None:
    """The crashed attempt saw 4 samples of epoch 3 and the restart others: of epoch 3 only the restart's count."""
    run_dir = tmp_path / "run"
    with Run(run_dir, strict=True) as run:
        for epoch, ids in ((1, range(8)), (2, range(8)), (3, range(4))):
            for i in ids:
                run.log_samples(sample_id=[i], loss=[float(epoch)], epoch=epoch)
            run.log_samples(sample_id=[0], loss=[0.25 * epoch], mode="eval", epoch=epoch)
    run = Run(run_dir)
    with pytest.warns(RecorderWarning, match="goes on with epoch 3.*attempt 0 recorded.*is taken back") as said:
        run.log_samples(sample_id=[2], loss=[30.0], epoch=3)
    assert len(said) == 1
    with warnings.catch_warnings(), run:
        warnings.simplefilter("error")
        for epoch in (3, 4):
            for i in range(2, 8):
                if (epoch, i) != (3, 2):
                    run.log_samples(sample_id=[i], loss=[10.0 * epoch], epoch=epoch)
            run.log_samples(sample_id=[0], loss=[5.0 * epoch], mode="eval", epoch=epoch)
    kept, taken_back, warned = counted(run_dir)
    before = [("train", epoch, i, float(epoch)) for epoch in (1, 2) for i in range(8)]
    before += [("eval", epoch, 0, 0.25 * epoch) for epoch in (1, 2)]
    after = [("train", epoch, i, 10.0 * epoch) for epoch in (3, 4) for i in range(2, 8)]
    after += [("eval", epoch, 0, 5.0 * epoch) for epoch in (3, 4)]
    assert (kept, taken_back) == (sorted(before + after), 5)
    assert any("attempt 1 took back 5 rows of attempt 0 from epoch 3, step 0 on" in line for line in warned)


def test_epochs_of_the_run_without_steps_take_back_as_named_ones_do(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for value in (1.0, 2.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecorderWarning)
            with Run(run_dir) as run:
                for _ in run.epochs(2):
                    run.log_samples(sample_id=[int(value)], loss=[value])
    assert counted(run_dir)[:2] == ([("train", 1, 2, 2.0), ("train", 2, 2, 2.0)], 2)


def test_a_late_script_without_steps_takes_nothing_back(tmp_path: Path) -> None:
    """One more epoch, an evaluation of the last one, another pass over it, and rows that name nothing."""
    run_dir = tmp_path / "run"
    with Run(run_dir, strict=True) as run:
        for epoch in (1, 2):
            for step in (1, 2):
                run.log_samples(sample_id=[step], loss=[1.0], epoch=epoch, step=10 * epoch + step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run(run_dir, strict=True) as run:
            run.log_samples(sample_id=[1], loss=[2.0], mode="eval", epoch=2)
            run.log_samples(sample_id=[1], loss=[3.0], epoch=3)
        with Run(run_dir, strict=True) as run:
            run.log_samples(sample_id=[1, 2], loss=[4.0, 4.0], epoch=3, eval_pass=1)
        with Run(run_dir, strict=True) as run:
            run.log_samples(sample_id=[7], loss=[5.0])
    kept, taken_back, warned = counted(run_dir)
    logged = [("train", epoch, i, 1.0) for epoch in (1, 2) for i in (1, 2)]
    late = [("eval", 2, 1, 2.0), ("train", 3, 1, 3.0), ("train", 3, 1, 4.0), ("train", 3, 2, 4.0), ("train", 3, 7, 5.0)]
    assert (kept, taken_back) == (sorted(logged + late), 0)
    assert not any("took back" in line for line in warned)


def test_where_the_caller_said_what_is_taken_back_rows_without_a_step_begin_there(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with Run(run_dir, strict=True) as run:
        for step in (1, 2, 3):
            run.log_samples(sample_id=[step], loss=[1.0], epoch=1, step=step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run(run_dir, strict=True, resume_from=(1, 3)) as run:
            run.log_samples(sample_id=[9], loss=[2.0], epoch=1)
    assert counted(run_dir)[:2] == ([("train", 1, 1, 1.0), ("train", 1, 2, 1.0), ("train", 1, 9, 2.0)], 1)
    assert set(open_run(run_dir).scan(mode="train").filter(loss=2.0).collect()["step"]) == {3}


def test_a_state_without_a_step_is_gone_on_with_after_its_epoch(tmp_path: Path) -> None:
    """A loop without steps, saved at the end of each epoch, crashed in the middle of the next one, twice."""
    run_dir = tmp_path / "run"
    for attempt in range(3):
        with Run(run_dir, strict=True) as run:
            if attempt:
                run.state.load_state()
            for epoch in run.epochs(min(attempt + 2, 3)):
                run.log_samples(sample_id=[1], loss=[10.0 * attempt + epoch])
                if attempt < 2 and epoch == attempt + 2:
                    break
                run.log_samples(sample_id=[2], loss=[10.0 * attempt + epoch])
                run.state.save_state()
    kept, taken_back, _ = counted(run_dir)
    assert kept == [("train", e, i, 10.0 * (e - 1) + e) for e in (1, 2) for i in (1, 2)] + [
        ("train", 3, i, 23.0) for i in (1, 2)
    ]
    assert taken_back == 2


def log_losses(run: Run, ids: list[int], epoch: int, mode: str = "eval", **metrics: list[float]) -> None:
    run.log_samples(sample_id=ids, loss=[one / 4 for one in ids], mode=mode, epoch=epoch, step=epoch, **metrics)


def test_a_run_that_is_reopened_goes_on_in_its_attempt(tmp_path: Path) -> None:
    """In between it is as closed as any: whole files, no lock; then it is alive, and counts on."""
    run = Run(tmp_path)
    assert not run.reopen()  # it is open
    for _ in run.steps(range(1), mode="eval"):
        log_losses(run, [1, 2], 1)
    for turn in (1, 2):
        run.close()
        run.close()
        assert not locks.is_held(tmp_path / "wal" / "a000000-r0000.lock")
        assert json.loads((tmp_path / "attempts" / "000000-r0000.stats").read_text())["closed"] is True
        assert run.reopen()
        assert not run.is_closed
        assert locks.is_held(tmp_path / "wal" / "a000000-r0000.lock")
        for _ in run.steps(range(1), mode="eval"):
            log_losses(run, [1, 2], 1, "eval", **({} if turn == 1 else {"extra": [0.5, 1.5]}))
        run.log({"a": float(turn)})
    assert run.stats()["rows_logged"] == 6
    run.close()
    found = open_run(tmp_path).scan(mode="eval").collect().sort("pass", "sample_id")
    assert found.select("attempt", "pass", "sample_id", "extra").rows() == [
        (0, 0, 1, None), (0, 0, 2, None), (0, 1, 1, None), (0, 1, 2, None), (0, 2, 1, 0.5), (0, 2, 2, 1.5),
    ]  # fmt: skip
    assert open_run(tmp_path).scalars(key="a").data["value"].to_list() == [1.0, 2.0]
    assert [attempt.attempt for attempt in RunLayout(tmp_path).read_attempts()] == [0]
    assert json.loads((tmp_path / "attempts" / "000000-r0000.stats").read_text())["rows_stored"] == 6
    # As of any closed run, nothing of it is left in segments, and every file has every column.
    assert not (tmp_path / "wal").exists()
    assert open_run(tmp_path).info().answer.counts.damaged == ()


@pytest.mark.parametrize("closed", [False, True])
def test_an_open_run_begins_another_attempt_that_takes_back(tmp_path: Path, closed: bool) -> None:
    """As a run that is closed and opened anew does, with its state and all that it was opened with."""
    run = Run(tmp_path, keep_probs=True, float64="mine", label_names=["no", "yes"], resume="never")
    state = run.state
    for _ in range(2):  # without rows there is nothing to go back behind
        assert not run.begin_attempt()
    for step in (1, 2, 3):
        run.log_samples(
            sample_id=[step], label=[1], logits=[[0.0, 1.0]], mine=[0.1 + step], mode="train", epoch=1, step=step
        )
    for _ in run.steps(range(1), mode="eval"):
        run.log_samples(sample_id=[1], loss=[0.5], mode="eval", epoch=1, step=3)
    if closed:
        run.close()
    assert run.begin_attempt()
    assert (run.attempt, run.is_closed) == (1, False)
    assert run.state is state
    run.log_samples(sample_id=[3], label=[0], logits=[[0.0, 1.0]], mine=[0.1], mode="train", epoch=1, step=2)
    for _ in run.steps(range(1), mode="eval"):
        run.log_samples(sample_id=[2], loss=[0.5], mode="eval", epoch=1, step=3)
    assert run.stats()["rows_logged"] == 2
    run.close()
    reader = open_run(tmp_path)
    found = reader.scan(mode="all").collect().sort("mode", "step")
    assert found.select("mode", "pass", "attempt", "sample_id", "label", "mine").rows() == [
        ("eval", 0, 1, 2, None, None), ("train", 0, 0, 1, 1, 1.1), ("train", 0, 1, 3, 0, 0.1),
    ]  # fmt: skip
    assert found["probs"].drop_nulls().len() == 2
    assert reader.info().answer.counts.taken_back == 3
    assert not (tmp_path / "wal").exists()


def test_a_run_that_is_reopened_is_closed_with_its_process(tmp_path: Path) -> None:
    script = """
import sys
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
run.log_samples(sample_id=[1], loss=[0.5], mode="eval", epoch=1, step=1)
run.close()
assert run.reopen()
run.log_samples(sample_id=[2], loss=[0.25], mode="eval", epoch=1, step=1)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=120)
    found = open_run(tmp_path).scan(mode="eval").collect().sort("sample_id")
    assert found.select("sample_id", "loss", "attempt").rows() == [(1, 0.5, 0), (2, 0.25, 0)]
    assert not (tmp_path / "wal").exists()


@pytest.mark.parametrize("why", ["another attempt", "deleted", "another run", "never begun"])
def test_a_run_is_reopened_only_as_the_last_attempt_of_its_own_directory(tmp_path: Path, why: str) -> None:
    folder = tmp_path / "run"
    run = Run(folder)
    if why != "never begun":
        log_losses(run, [1, 2], 1)
    run.close()
    if why in ("deleted", "another run"):
        shutil.rmtree(folder)
    if why == "never begun":
        shutil.rmtree(folder / "attempts")
    if why in ("another attempt", "another run"):
        with Run(folder) as other:
            log_losses(other, [3], 1)
    assert not run.reopen()
    assert run.is_closed
    with pytest.warns(RecorderWarning, match="is closed"):
        log_losses(run, [4], 1)
    if why == "deleted":
        assert not folder.exists()


def test_a_fork_does_not_reopen_its_parents_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    log_losses(run, [1], 1)
    run.close()
    child = os.fork()
    if not child:
        os._exit(int(run.reopen()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run.reopen()
    run.close()
