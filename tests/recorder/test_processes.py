"""Restarts, ranks, forks, workers, signals, and the end of the process."""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.recorder.recorded import column, rows
from xaicli import open_run
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.reader import open_reader
from xaicli.recorder import attempt as attempts_module
from xaicli.recorder import process
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.process import Process
from xaicli.recorder.run import Run


def attempts(run_dir: Path) -> list[tuple[int, int | None]]:
    return [(facts.attempt, facts.resumed_from_step) for facts in RunLayout(run_dir).read_attempts()]


def test_each_start_is_an_attempt_that_notes_its_first_step(tmp_path: Path) -> None:
    for first in (1, 6, 4):
        with Run(tmp_path / "run", strict=True) as run:
            for step in range(first, first + 5):
                run.log_samples(sample_id=[step], loss=[1.0], step=step)
    assert attempts(tmp_path / "run") == [(0, None), (1, 6), (2, 4)]
    assert set(rows(tmp_path / "run")["attempt"].to_pylist()) == {0, 1, 2}


def test_restored_state_says_where_an_attempt_begins(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for _ in run.steps(range(10), mode="train"):
            run.log_samples(sample_id=[1], loss=[1.0])
        run.state.save_state(tmp_path / "saved")
    with Run(tmp_path / "run", strict=True) as run:
        run.state.load_state(tmp_path / "saved")
        # The evaluation at the checkpoint's own step must not end what the first attempt logged at that step.
        run.log_samples(sample_id=[1], loss=[1.0], mode="eval")
    assert attempts(tmp_path / "run") == [(0, None), (1, 11)]


def test_a_late_pass_takes_nothing_back(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for epoch in run.epochs(2):
            for batch in run.steps(range(5), mode="train"):
                run.log_samples(sample_id=[batch], loss=[1.0], epoch=epoch)
    for attempt in (1, 2):
        with Run(tmp_path / "run", strict=True) as run:
            for batch in run.steps(range(3), mode="test"):
                run.log_samples(sample_id=[batch], loss=[float(attempt)], epoch=2)
    assert attempts(tmp_path / "run") == [(0, None), (1, None), (2, None)], "only training rows say where one resumed"
    reader = open_reader(RunLayout(tmp_path / "run"))
    train = pl.concat(rows.frame for rows in reader.place_frames("train", "", ["sample_id", "step"]))
    assert sorted(train["step"]) == list(range(1, 11))
    passes = [
        (rows.place.turn, sorted(rows.frame.rows())) for rows in reader.place_frames("test", "", ["sample_id", "loss"])
    ]
    assert passes == [(turn, [(sample, turn + 1.0) for sample in range(3)]) for turn in (0, 1)], "each walk is a pass"


def test_a_training_that_begins_anew_after_a_late_pass_takes_all_back(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1], loss=[1.0], step=4)
        run.log_samples(sample_id=[1], loss=[1.0], step=8)
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[7], loss=[2.0], mode="eval")
        for step in (6, 7):
            run.log_samples(sample_id=[2], loss=[2.0], step=step)
    assert attempts(tmp_path / "run") == [(0, None), (1, 6)]
    reader = open_reader(RunLayout(tmp_path / "run"))
    (kept,) = (rows.frame for rows in reader.place_frames("train", "", ["step"]))
    assert sorted(kept["step"]) == [4, 7]


def test_resume_words(tmp_path: Path) -> None:
    with pytest.raises(XaiError, match="no run to resume"):
        Run(tmp_path / "run", resume="must")
    with pytest.raises(UsageError, match="none of the choices"):
        Run(tmp_path / "run", resume="perhaps")
    Run(tmp_path / "run", resume="never").close()
    with pytest.raises(XaiError, match="holds a run already"):
        Run(tmp_path / "run", resume="never")
    Run(tmp_path / "run", resume="must").close()
    (tmp_path / "file").touch()
    with pytest.raises(XaiError, match="is a file"):
        Run(tmp_path / "file")
    assert [number for number, _ in attempts(tmp_path / "run")] == [0, 1]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Run(tmp_path / "run").close()
    path = tmp_path / "run" / "xai.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 3}))
    with pytest.raises(XaiError, match="format version 3"):
        Run(tmp_path / "run")


_LAUNCH = """
import os, sys, threading
from xaicli.recorder.run import Run
with Run(sys.argv[1], strict=True) as run:
    run.log_samples(sample_id=[run.rank], loss=[1.0], step=int(sys.argv[2]))
    print(run.attempt, run.rank)
"""


def launch(run_dir: Path, ranks: int, step: int) -> set[str]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, run_dir, str(step)],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    return {process.communicate(timeout=120)[0].strip() for process in processes}


def test_ranks_that_start_at_once_agree_on_the_attempt(tmp_path: Path) -> None:
    assert launch(tmp_path / "run", 4, 1) == {f"0 {rank}" for rank in range(4)}
    # The same launcher again, with fewer ranks: the ranks are claimed, so this is a new attempt.
    assert launch(tmp_path / "run", 2, 2) == {"1 0", "1 1"}
    assert column(tmp_path / "run", "sample_id") == [0, 0, 1, 1, 2, 3]
    facts = json.loads((tmp_path / "run" / "attempts" / "000000.json").read_text())
    assert facts["world_size"] == 4
    assert attempts(tmp_path / "run")[1] == (1, 2)


def test_ranks_of_several_hosts_share_a_launch_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "job", "MASTER_ADDR": "host0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    here = attempts_module.launch_key()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert attempts_module.launch_key() == here
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert attempts_module.launch_key() != here


def test_many_threads_open_one_run_at_once(tmp_path: Path) -> None:
    runs: list[Run] = []
    threads = [
        threading.Thread(target=lambda rank=rank: runs.append(Run(tmp_path / "run", rank=rank))) for rank in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs:
        run.log_samples(sample_id=[run.rank], loss=[0.5])
        run.close()
    assert {run.attempt for run in runs} == {0}
    assert column(tmp_path / "run", "sample_id") == list(range(16))


def test_ranks_share_one_schema(tmp_path: Path) -> None:
    with Run(tmp_path / "run", rank=0, strict=True) as zero, Run(tmp_path / "run", rank=1, strict=True) as one:
        zero.log_samples(sample_id=[1], a=[1.0], step=1)
        one.log_samples(sample_id=[2], b=[2.0], step=1)
        with pytest.raises(ValueError, match="sample_id must be whole numbers"):
            one.log_samples(sample_id=["text"], b=[2.0], c=[1.0])
    names = [facts.name for facts in RunLayout(tmp_path / "run").read_manifest().columns]
    assert sorted(names[-2:]) == ["a", "b"]  # in whichever order their writers came to say so


def test_ranks_that_begin_with_labels_of_two_kinds_keep_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "_save_columns", lambda _: None)  # neither comes to say what it has before its part
    zero, one = Run(tmp_path / "run", rank=0), Run(tmp_path / "run", rank=1)
    zero.log_samples(sample_id=[1], label=[7], loss=[1.0], step=1)
    one.log_samples(sample_id=[2], label=["cat"], loss=[2.0], step=1)
    zero.close()
    with pytest.warns(RecorderWarning, match="label is of another kind than before"):
        one.close()
    found = {row["sample_id"]: (row["label"], row["loss"]) for row in rows(tmp_path / "run").to_pylist()}
    assert found == {1: (7, 1.0), 2: (None, 2.0)}
    assert one.stats()["rows_dropped"] == 0
    assert sum(one.stats()["refused"]["label"].values()) == 1


_KILLED_BEFORE_ITS_COLUMNS_ARE_SAVED = """
import os, sys
from xaicli.recorder.run import Run
from xaicli.recorder.process import Process
Process._save_columns = lambda self: None
run = Run(sys.argv[1])
run.log_samples(sample_id=[1], label=[1], logits=[[0.5, 1.5]], extra=[0.25])
os._exit(9)
"""


def test_columns_that_a_killed_process_did_not_come_to_save_are_found_with_its_rows(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    subprocess.run([sys.executable, "-c", _KILLED_BEFORE_ITS_COLUMNS_ARE_SAVED, layout.root], check=False, timeout=60)
    assert not layout.read_manifest().columns

    def found() -> list[tuple[Any, ...]]:
        reader = open_reader(layout)
        frames = reader.place_frames("train", "", ["sample_id", "label", "extra", "correct", "top_prob"])
        return [row for part in frames for row in part.frame.iter_rows()]

    expected = [(1, 1, 0.25, True, pytest.approx(1 / (1 + math.exp(-1.0))))]
    assert found() == expected
    Run(layout.root).close()
    assert {"extra", "correct", "top_prob"} <= {facts.name for facts in layout.read_manifest().columns}
    assert layout.read_manifest().id_type == "int64"
    assert found() == expected


def test_a_fork_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[1], loss=[1.0])
    child = os.fork()
    if not child:
        status = 1
        try:
            with pytest.warns(RecorderWarning, match="DataLoader worker or a fork"):
                run.log_samples(sample_id=[2, 4], loss=[2.0, 4.0])
            run.log({"lr": 0.5})
            run.log_samples(sample_id=[6], loss=[6.0])
            run.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    run.log_samples(sample_id=[3], loss=[3.0])
    with pytest.warns(RecorderWarning, match="only the process that opened the run can"):
        run.close()
    assert column(tmp_path / "run", "sample_id") == [1, 3]
    counted = run.stats()
    assert [counted[name] for name in ("rows_logged", "rows_stored", "rows_dropped", "rows_waiting")] == [5, 2, 3, 0]
    assert counted["records_dropped"] == 1
    told = open_run(tmp_path / "run").info().answer
    assert told.counts.dropped == 3
    assert any(line.startswith("3 rows were not recorded: a DataLoader worker or a fork") for line in told.warnings)


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_what_forks_log_is_counted_while_they_live_and_whatever_ends_them(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for rows in (3, 4):
            child = os.fork()
            if not child:
                run.log_samples(sample_id=list(range(rows)), loss=[1.0] * rows)
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
            assert run.stats()["rows_dropped"] == {3: 3, 4: 7}[rows]
    assert run.stats()["rows_dropped"] == 7


def test_a_data_loader_worker_is_refused(tmp_path: Path) -> None:
    import torch

    class Logging(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            run.log_samples(sample_id=[index], loss=[1.0])
            return index

    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[9], loss=[1.0])
        with pytest.raises(ValueError, match="not by a DataLoader worker"):
            list(torch.utils.data.DataLoader(Logging(), num_workers=1, multiprocessing_context="fork"))
        with pytest.raises(XaiError, match="cannot be sent to another process"):
            pickle.dumps(run)
    assert column(tmp_path / "run", "sample_id") == [9]


_ENDING = """
import os, signal, sys
from xaicli.recorder.run import Run
how = sys.argv[2]
if how == "handled":
    def handler(number, frame):
        run.log_samples(sample_id=[2], loss=[2.0])
        sys.exit(7)
    signal.signal(signal.SIGTERM, handler)
run = Run(sys.argv[1])
run.log_samples(sample_id=[1], loss=[1.0])
run.log({"lr": 0.5})
if how == "error":
    raise SystemError("the training failed")
if how in ("terminated", "handled"):
    os.kill(os.getpid(), signal.SIGTERM)
    print("unreachable")
"""


@pytest.mark.parametrize(
    ("how", "status", "ids"),
    [("exit", 0, [1]), ("error", 1, [1]), ("terminated", -signal.SIGTERM, [1]), ("handled", 7, [1, 2])],
)
def test_the_end_of_the_process_flushes(tmp_path: Path, how: str, status: int, ids: list[int]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _ENDING, tmp_path / "run", how], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (status, "")
    layout = RunLayout(tmp_path / "run")
    assert not layout.wal.exists()
    assert column(tmp_path / "run", "sample_id") == ids
    assert len(list(layout.scalars.glob("*.parquet"))) == 1


def test_sigterm_in_the_middle_of_a_batch_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(signal, "signal", signal.signal)
    before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        with Run(tmp_path / "run", strict=True) as run:
            run.log_samples(sample_id=[1], loss=[1.0])
            segment = run._process.samples._active
            assert segment is not None
            whole = segment._put

            def interrupted(*arguments: object) -> bool:
                signal.raise_signal(signal.SIGTERM)
                assert not asked
                assert process.is_pending()
                return whole(*arguments)  # type: ignore[arg-type]

            monkeypatch.setattr(segment, "_put", interrupted)
            run.log_samples(sample_id=[2], loss=[2.0])
            assert asked == [signal.SIGTERM]
            assert run.stats()["rows_stored"] == 2
            run.log_samples(sample_id=[3], loss=[3.0])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert column(tmp_path / "run", "loss") == [1.0, 2.0, 3.0]


def test_threads_may_log_to_one_run(tmp_path: Path) -> None:
    def log(thread: int) -> None:
        for step in range(200):
            ids = np.arange(64) + 64 * (200 * thread + step)
            run.log_samples(sample_id=ids, label=ids % 1009, prediction=ids % 13, loss=ids.astype(np.float32), epoch=1)

    with Run(tmp_path / "run", strict=True) as run:
        threads = [threading.Thread(target=log, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stored = rows(tmp_path / "run").sort_by("sample_id")
    ids = stored["sample_id"].to_numpy()
    assert (ids == np.arange(4 * 200 * 64)).all()
    assert (stored["label"].to_numpy() == ids % 1009).all()
    assert (stored["prediction"].to_numpy() == ids % 13).all()
    assert (stored["loss"].to_numpy() == ids).all()


def test_the_last_run_to_close_leaves_sigterm_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    assert signal.getsignal(signal.SIGTERM) is not before
    one.close()
    assert signal.getsignal(signal.SIGTERM) is not before
    two.close()
    two.close()
    assert signal.getsignal(signal.SIGTERM) is before


def test_logging_to_a_closed_run_is_an_error_or_counted(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.close()
    with pytest.warns(RecorderWarning, match="is closed"):
        run.log_samples(sample_id=[1, 2], loss=[1.0, 1.0])
    assert run.stats()["rows_dropped"] == 2


def test_the_recorder_loads_no_torch() -> None:
    program = "import sys, xaicli.recorder.run; print(sorted({'torch', 'polars', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


_TWO_FITS = """
import os, sys
import numpy as np, torch.distributed as dist
from xaicli.recorder.run import Run

def fit(run_dir, rank, first, last, tag):
    with Run(run_dir) as run:
        for epoch in range(first, last + 1):
            for step in range(2):
                ids = np.arange(4) * 2 + rank + 8 * step
                where = dict(mode="train", epoch=epoch, step=2 * epoch + step)
                run.log_samples(sample_id=ids, loss=np.full(4, tag + epoch), **where)

run_dir, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)
fit(run_dir, rank, 1, 3, 0.0)
dist.barrier()
fit(run_dir, rank, 2, 4, 100.0)
dist.destroy_process_group()
"""


def test_a_second_fit_in_the_same_processes_is_a_new_attempt_of_both(tmp_path: Path) -> None:
    """Two processes of a group fit, close, and go on from a checkpoint of epoch 1: what follows it is taken back."""
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", _TWO_FITS, str(run_dir)]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "group")]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    found = open_run(run_dir).scan(mode="train").collect()
    expected = {(1, 0, 0, 1.0), (1, 0, 1, 1.0)}
    expected |= {(epoch, 1, rank, 100.0 + epoch) for epoch in (2, 3, 4) for rank in (0, 1)}
    assert found.height == 4 * 16
    assert set(found.select("epoch", "attempt", "rank", "loss").iter_rows()) == expected


_CELL_RUN_TWICE = """
import sys, xaicli
for k in range(2):
    run = xaicli.Run(sys.argv[1])
    run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="train", epoch=1, step=k)
run.close()
counted = run.stats()
print(counted["rows_stored"], counted["rows_waiting"], counted["rows_dropped"])
"""


def test_a_notebook_cell_that_is_run_twice_stores_both_runs(tmp_path: Path) -> None:
    """The first run is collected while the second is written, in whatever thread that happens."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CELL_RUN_TWICE, tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stdout.split() == ["2", "0", "0"]
    assert not list((tmp_path / "run").glob("wal/*.wal"))
    assert column(tmp_path / "run", "step") == [0, 1, 0, 1]


_IMPORTS_OF_OTHER_THREADS = """
import importlib.abc, sys, threading
found = []
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if threading.current_thread() is not threading.main_thread():
            found.append(name)
sys.meta_path.insert(0, Finder())
import xaicli
with xaicli.Run(sys.argv[1], keep_probs=True) as run:
    for mode in ("train", "eval"):
        for epoch in (1, 2):
            run.log_samples(sample_id=[0, 1], label=[1, None], logits=[[0.5, 1.5], [1.0, 2.0]], correct=[1, 0],
                            loss=[1.0, float("nan")], text=[0.5, None], mode=mode, ds_id="ü", epoch=epoch, step=epoch)
    run.flush()
print(found)
"""


def test_the_thread_that_writes_rows_imports_nothing(tmp_path: Path) -> None:
    """An import takes time from the training, and one in progress would be so for ever in a fork."""
    command = [sys.executable, "-W", "ignore", "-c", _IMPORTS_OF_OTHER_THREADS, tmp_path / "run"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[]"
    assert len(rows(tmp_path / "run")) == 8


class _NeedsAnImport:
    """A run whose end waits for what an import in progress holds."""

    def __init__(self) -> None:
        self.may_end, self.ended = threading.Event(), threading.Event()

    def close(self) -> None:
        assert self.may_end.wait(30)
        self.ended.set()

    def flush_within(self, _seconds: float) -> bool:
        return True

    def become_foreign(self) -> None:
        pass

    def is_busy(self) -> bool:
        return False


def test_a_run_that_is_collected_in_an_import_does_not_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = _NeedsAnImport()
    monkeypatch.setattr(process, "_collected", collected, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "collects_a_run.py").write_text(
        "from xaicli.recorder import process\n"
        "process.let_go(process._collected)\n"
        "ended = process._collected.ended.is_set()\n"
    )
    assert importlib.import_module("collects_a_run").ended is False
    collected.may_end.set()
    assert collected.ended.wait(30)


def test_a_run_that_is_let_go_is_closed_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[0], loss=[1.0], mode="train", epoch=1, step=1)
    del run
    gc.collect()
    with Run(tmp_path / "run", strict=True) as again:
        assert again.attempt == 1
    assert not list((tmp_path / "run").glob("wal/*"))
