"""A disk that is full, read-only, broken or gone: training goes on, and the loss is counted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recorder.recorded import column, rows
from xaicli import files, parquet
from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.reader import open_reader
from xaicli.recorder import process, segments, writer
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run
from xaicli.wal.frames import Frame


@pytest.fixture(autouse=True)
def impatient(usual_segments: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - set before
    monkeypatch.setattr(writer, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(writer, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(segments, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(process, "CLOSE_SECONDS", 0.2)


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a tmpfs needs root")

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    yield Disk(folder)
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def log_much(run: Run, first: int, last: int) -> None:
    """Rows `first`..`last`, hard to compress, 1,000 a step."""
    draw = np.random.default_rng(first)
    for at in range(first, last, 1000):
        ids = draw.permutation(np.arange(at, at + 1000))
        run.log_samples(sample_id=ids, a=draw.random(1000), b=draw.random(1000), c=draw.random(1000), step=at)


def log_and_close(run: Run) -> None:
    log_much(run, 0, 5_000)
    run.flush()
    log_much(run, 5_000, 10_000)
    run.close()


def flush_often(run: Run) -> None:
    """Try what fails more than once; the writer tells of it a moment after a flush has returned."""
    for _ in range(6):
        run.flush()


LONG = 25.0
"""Seconds: many times the two that closing waits, whatever else the machine does, and fewer than the 30 of a pause."""


def is_accounted_for(run: Run) -> bool:
    stats = run.stats()
    return bool(stats["rows_logged"] == stats["rows_stored"] + stats["rows_dropped"] + stats["rows_waiting"])


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_full_disk_drops_and_counts(disk: Disk) -> None:
    disk.mount("size=26m")
    run = Run(disk.folder / "run")
    log_much(run, 0, 3_000_000)
    began = time.monotonic()
    run.close()
    assert time.monotonic() - began < LONG
    stats = run.stats()
    assert stats["rows_dropped"] > 0
    assert stats["rows_stored"] > 0
    assert is_accounted_for(run)
    kept = json.loads((disk.folder / "run" / "attempts" / "000000-r0000.stats").read_text())
    assert kept["rows_dropped"] == stats["rows_dropped"]
    ids = rows(disk.folder / "run")["sample_id"].to_numpy()
    assert len(ids) == len(set(ids)) == stats["rows_logged"] - stats["rows_dropped"]


def test_a_disk_with_room_again_gets_what_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = files.write_all

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segments, "LONGEST_WAIT", 60)
    run = Run(tmp_path / "run")
    log_much(run, 0, 10_000)
    monkeypatch.setattr(files, "write_all", no_room)
    with pytest.warns(RecorderWarning, match="cannot be written"):
        run.flush()
    log_much(run, 10_000, 20_000)
    monkeypatch.setattr(files, "write_all", whole)
    run.close()
    assert run.stats()["rows_dropped"] == 0
    assert column(tmp_path / "run", "sample_id") == list(range(20_000))


def test_no_step_waits_for_the_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the first nor one with new columns: whatever is synced, another thread does it."""
    run = Run(tmp_path / "run")
    sync, synced = os.fsync, set()

    def noted(descriptor: int) -> None:
        synced.add(threading.current_thread().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    for step, name in enumerate(("a", "b", "c")):
        run.log_samples(sample_id=[1], label=[1], step=step, **{name: [1.0]})
        run.log_samples(sample_id=[1], large=[2**30 + step], step=step)
        run.log({name: 1.0})
    waits = threading.current_thread().name in synced
    run.close()
    assert not waits
    assert "xai-writer" in synced


def test_no_room_for_segments_means_memory_and_is_said_once(disk: Disk) -> None:
    disk.mount("size=7m")
    run = Run(disk.folder / "run")
    with pytest.warns(RecorderWarning, match="rows wait in memory") as warned:
        log_and_close(run)
    assert len([w for w in warned if "memory" in str(w.message)]) == 1
    assert column(disk.folder / "run", "sample_id") == list(range(10_000))


def test_a_file_system_without_mapped_files_means_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "remote_file_system", lambda _: "nfs4")
    with pytest.warns(RecorderWarning, match="nfs4"), Run(tmp_path / "run") as run:
        log_much(run, 0, 2_000)
    assert column(tmp_path / "run", "sample_id") == list(range(2_000))


def test_memory_segments_are_flushed_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FLUSH_SECONDS", 0.1)
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[1], loss=[1.0])
    deadline = time.monotonic() + 20
    while not run.stats()["rows_stored"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list((tmp_path / "run" / "data").rglob("part-*.parquet"))
    run.close()


def test_a_read_only_folder_records_nothing_and_says_so(disk: Disk) -> None:
    disk.mount("size=1m")
    disk.make_read_only()
    with pytest.raises(XaiError, match="cannot be written"):
        Run(disk.folder / "run", strict=True)
    with pytest.warns(RecorderWarning, match="nothing is recorded"):
        run = Run(disk.folder / "run")
    with pytest.warns(RecorderWarning, match="rows are dropped"):
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0])
    run.log({"lr": 0.1})
    run.flush()
    run.close()
    assert (run.stats()["rows_logged"], run.stats()["rows_dropped"]) == (2, 2)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("before", [False, True], ids=["new", "gone on with"])
def test_a_run_whose_disk_refuses_its_beginning_is_recorded_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, before: bool
) -> None:
    """3 rows, a scalar and a picture come too early; what is logged later is there, and the rest is told."""
    run_dir = tmp_path / "run"
    if before:
        with Run(run_dir) as run:
            run.log_samples(sample_id=[0], label=["a"], loss=[0.5], epoch=1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("xaicli.recorder.schema.write_whole", refuse)
        with pytest.warns(RecorderWarning, match="nothing is recorded until it can be, which is tried again"):
            run = Run(run_dir, config={"lr": 1})
        with pytest.warns(RecorderWarning, match="rows are dropped"):
            run.log_samples(sample_id=[1, 2, 3], label=["b"] * 3, loss=[1.0, 2.0, 3.0], epoch=2)
        run.log({"lr": 0.1, "step": 1})
        run.log_images([1], np.zeros((1, 2, 2), np.uint8))
        run.flush()
    with pytest.warns(RecorderWarning, match="can be written now.*lost before: 3 rows and 2 other records"):
        run.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.log_samples(sample_id=[4, 5], label=["c", "b"], loss=[4.0, 5.0], epoch=3)
        run.log({"lr": 0.2, "step": 2})
        run.close()
    assert column(run_dir, "sample_id") == ([0, 4, 5] if before else [4, 5])
    assert column(run_dir, "label") == (["a", "c", "b"] if before else ["c", "b"])
    reader = open_reader(RunLayout(run_dir))
    assert (reader.dropped, reader.manifest.config) == (3, {"lr": 1})
    assert sum("was not recorded" in line or "were not recorded" in line for line in reader.losses) == 3
    assert (run.stats()["rows_logged"], run.stats()["rows_stored"], run.stats()["records_dropped"]) == (5, 2, 2)


def test_a_run_whose_disk_is_back_only_when_it_is_closed_tells_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("xaicli.recorder.schema.make_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.warns(RecorderWarning, match="nothing is recorded"):
            run = Run(tmp_path / "run")
        with pytest.warns(RecorderWarning, match="rows are dropped"):
            run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0])
    with pytest.warns(RecorderWarning, match="lost before: 2 rows"):
        run.close()
    assert open_reader(RunLayout(tmp_path / "run")).dropped == 2


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_disk_that_turns_read_only_keeps_what_it_has(disk: Disk) -> None:
    disk.mount("size=40m")
    run = Run(disk.folder / "run")
    log_much(run, 0, 10_000)
    run.flush()
    log_much(run, 10_000, 12_000)
    # What is mapped keeps the disk busy: read-only by fault injection instead of a remount.
    refused = OSError(errno.EROFS, "Read-only file system")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_whole", lambda *_, **__: (_ for _ in ()).throw(refused))
        run.close()
    assert run.stats()["rows_waiting"] == 2_000
    assert is_accounted_for(run)
    assert column(disk.folder / "run", "sample_id") == list(range(12_000))


@pytest.mark.parametrize(("call", "k"), [("write", 2), ("write", 3), ("write", 5), ("fsync", 3), ("fsync", 4)])
@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_an_io_error_now_and_then_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, k: int
) -> None:
    monkeypatch.setattr(segments, "LONGEST_WAIT", 60)  # nothing is to be dropped here, however busy the machine
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[0], a=[0.0], b=[0.0], c=[0.0])
    whole, calls = getattr(os, call), 0

    def broken(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls % k == 0:
            raise OSError(errno.EIO, "Input/output error")
        return whole(*arguments)

    monkeypatch.setattr(os, call, broken)
    for epoch in range(1, 8):
        run.log_samples(sample_id=range(epoch * 1000, epoch * 1000 + 500), a=np.arange(500), epoch=epoch, step=epoch)
        run.flush()
    for _ in range(20):
        run.flush()
    run.close()
    monkeypatch.undo()
    Run(tmp_path / "run").close()
    expected = [0, *(i for epoch in range(1, 8) for i in range(epoch * 1000, epoch * 1000 + 500))]
    # While writes fail no step waits, so a busy machine may drop rows; then they are counted.
    kept = column(tmp_path / "run", "sample_id")
    assert set(kept) <= set(expected)
    assert len(kept) == len(set(kept)) == len(expected) - run.stats()["rows_dropped"]
    assert calls > k
    assert not list((tmp_path / "run").rglob(".tmp-*"))


_LIMITED = """
import json, resource, sys
import numpy as np
from xaicli import files
from xaicli.reader import open_reader
from xaicli.recorder import process, segments, writer
from xaicli.recorder.run import Run
writer._FIRST_PAUSE = writer._LONGEST_PAUSE = 0.02
segments.LONGEST_WAIT, process.CLOSE_SECONDS = 0.1, 0.2
limit, value = getattr(resource, sys.argv[2]), int(sys.argv[3])
def log(first, last):
    for at in range(first, last, 1000):
        run.log_samples(sample_id=np.arange(at, at + 1000), loss=np.random.default_rng(at).random(1000), step=at)
run = Run(sys.argv[1])
log(0, 50_000)
before = resource.getrlimit(limit)
resource.setrlimit(limit, (value, before[1]))
run.flush()
log(50_000, 100_000)
run.flush()
if sys.argv[4] == "for a while":
    resource.setrlimit(limit, before)
    log(100_000, 101_000)
run.close()
resource.setrlimit(limit, before)
print(json.dumps(run.stats()))
"""


@pytest.mark.parametrize("how_long", ["for a while", "for good"])
@pytest.mark.parametrize(("limit", "value"), [("RLIMIT_FSIZE", 100_000), ("RLIMIT_NOFILE", 3)])
def test_a_limit_of_the_system(tmp_path: Path, limit: str, value: int, how_long: str) -> None:
    """Files may be no larger (EFBIG), or no more may be open (EMFILE)."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, tmp_path / "run", limit, str(value), how_long],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stats = json.loads(done.stdout)
    assert "cannot be written" in done.stderr
    assert stats["rows_logged"] == (101_000 if how_long == "for a while" else 100_000)
    assert stats["rows_logged"] == stats["rows_stored"] + stats["rows_dropped"] + stats["rows_waiting"]
    ids = np.sort(rows(tmp_path / "run")["sample_id"].to_numpy())
    assert len(ids) == len(set(ids)) == stats["rows_logged"] - stats["rows_dropped"]
    if how_long == "for a while":
        assert stats["rows_dropped"] == stats["rows_waiting"] == 0


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: whole(descriptor, view[: max(1, len(view) // 3)]))
    with Run(tmp_path / "run", strict=True) as run:
        log_much(run, 0, 5_000)
    assert column(tmp_path / "run", "sample_id") == list(range(5_000))


@pytest.mark.filterwarnings("ignore:the checkpoint holds no graph")
@pytest.mark.parametrize("held", [0, 100])
def test_of_a_deleted_folder_that_alone_is_told(tmp_path: Path, held: int) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RecorderWarning)
        run = Run(tmp_path / "run")
        run.log_samples(sample_id=range(held), loss=[1.0] * held, mode="train", epoch=1, step=0)
        run.flush()
        shutil.rmtree(tmp_path / "run")
        run.state.write_summary("loss", 0.5)
        run.log_samples(sample_id=range(1_000), loss=[1.0] * 1_000, mode="train", epoch=2, step=1)
        run.flush()
        assert run.save_checkpoint(torch.nn.Linear(2, 1)) is None
        assert run.add_metrics_data({"v": [0.5]}) is None
        run.close()
    told = [str(one.message) for one in said]
    gone = f"{tmp_path / 'run'} is gone: deleted, or moved to another disk while it was recorded"
    assert [message.partition(";")[0].removeprefix("xai: ") for message in told] == [
        gone,
        f"checkpoint ckpt.pt cannot be written: {gone}",
        f"table cannot be written: {gone}",
    ]
    assert not [reason for reasons in run.stats()["refused"].values() for reason in reasons if "/dev/null" in reason]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_deleted_folder_is_counted_and_not_made_again(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    log_much(run, 0, 1_000)
    run.flush()
    shutil.rmtree(tmp_path / "run")
    log_much(run, 1_000, 500_000)
    began = time.monotonic()
    run.close()
    assert time.monotonic() - began < LONG
    assert run.stats()["rows_stored"] == 0, "what was stored is gone"
    assert run.stats()["rows_dropped"] == 500_000
    assert any("is gone: deleted, or moved" in reason for reason in run.stats()["reasons"])
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_another_run_in_the_place_of_a_deleted_one_is_left_alone(tmp_path: Path) -> None:
    old = Run(tmp_path / "run")
    old.log_samples(sample_id=[1], loss=[1.0], epoch=1, step=1)
    old.flush()
    shutil.rmtree(tmp_path / "run")
    with Run(tmp_path / "run") as new:
        for step in range(3):
            new.log_samples(sample_id=[100 + step], loss=[1.0], epoch=1, step=step)
            new.flush()
        new.log({"epoch": 1, "lr": 0.5})
        for step in range(3):
            old.log_samples(sample_id=[step], loss=[2.0], epoch=1, step=step)
            old.flush()
        old.log({"epoch": 1, "lr": 0.1})
        old.close()
    old.log_samples(sample_id=[1], loss=[1.0], epoch=1, step=9)
    assert column(tmp_path / "run", "sample_id") == [100, 101, 102]
    assert old.stats()["rows_dropped"] == old.stats()["rows_logged"] == 5
    assert new.stats() | {"bytes": 0} == {
        **dict.fromkeys(new.stats(), 0),
        **{counter: {} for counter in ("reasons", "refused", "altered")},
        "rows_logged": 3,
        "rows_stored": 3,
        "files": 4,
    }
    kept = json.loads((tmp_path / "run" / "attempts" / "000000-r0000.stats").read_text())
    assert (kept["rows_logged"], kept["rows_dropped"]) == (3, 0)


def test_a_folder_that_is_moved_while_it_is_recorded_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "LONGEST_WAIT", 60)
    run = Run(tmp_path / "run", strict=True)
    log_much(run, 0, 1_000)
    run.flush()
    log_much(run, 1_000, 2_000)
    (tmp_path / "run").rename(tmp_path / "renamed")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        log_much(run, 2_000, 300_000)
        run.log({"lr": 0.5})
        run.flush()
        (tmp_path / "other").mkdir()
        (tmp_path / "renamed").rename(tmp_path / "other" / "again")
        (tmp_path / "renamed").mkdir()  # a stranger that took the name
        log_much(run, 300_000, 301_000)
        run.close()
    assert [str(one.message).count("run was moved to") for one in said] == [1]
    moved = tmp_path / "other" / "again"
    assert np.array_equal(np.sort(rows(moved)["sample_id"].to_numpy()), np.arange(301_000))
    assert run.stats()["rows_dropped"] == 0
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "renamed").iterdir())
    assert not (moved / "wal").exists()
    assert json.loads((moved / "attempts" / "000000-r0000.stats").read_text())["rows_stored"] == 301_000
    assert run.layout.root == moved


def test_a_slow_disk_never_holds_a_step_longer_than_one_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parquet.write
    monkeypatch.setattr(parquet, "write", lambda *a, **k: (time.sleep(0.5), whole(*a, **k))[1])
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 10_000)
    run = Run(tmp_path / "run")

    asked: list[float | None] = []
    wait = threading.Condition.wait_for

    def noted(self: threading.Condition, is_so: Any, timeout: float | None = None) -> Any:
        if threading.current_thread() is threading.main_thread():
            asked.append(timeout)
        return wait(self, is_so, timeout)

    monkeypatch.setattr(threading.Condition, "wait_for", noted)
    waits = []

    def train() -> None:
        for epoch in range(100):
            run.log_samples(sample_id=range(500), loss=np.ones(500), epoch=epoch)
            waits.append(len(asked))

    with pytest.warns(RecorderWarning, match="too slow"):
        train()
    run.close()
    assert max(np.diff([0, *waits])) == 1
    assert set(asked[: waits[-1]]) == {segments.LONGEST_WAIT}
    assert run.stats()["stalls"] > 0
    assert is_accounted_for(run)


def test_rows_that_no_file_can_hold_do_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.recorder import parts

    whole = parts.to_table

    def faulty(content: object, frames: list[Frame], *others: object) -> object:
        if any(frame.step == 2 for frame in frames):
            raise ArithmeticError("a fault of ours")
        return whole(content, frames, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(parts, "to_table", faulty)
    monkeypatch.setattr(segments, "LONGEST_WAIT", 60)
    run = Run(tmp_path / "run")

    def log_five_epochs() -> None:
        for epoch in range(1, 6):
            run.log_samples(sample_id=[epoch], loss=[1.0], epoch=epoch // 4, step=epoch)
        run.flush()

    with pytest.warns(RecorderWarning, match="a fault of ours"):
        log_five_epochs()
    run.close()
    assert column(tmp_path / "run", "sample_id") == [1, 3, 4, 5]
    assert run.stats()["rows_dropped"] == 1


@pytest.mark.parametrize("folder", ["scalars", "ds=b"])
def test_files_beside_one_that_fails_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    whole, tried = os.replace, 0

    def broken(source: str, target: str) -> None:
        nonlocal tried
        if folder in str(target):
            tried += 1
            raise OSError(errno.EIO, "Input/output error")
        whole(source, target)

    monkeypatch.setattr(os, "replace", broken)
    run = Run(tmp_path / "run")
    for step, ds_id in enumerate("ab"):
        run.log_samples(sample_id=range(100), loss=np.arange(100), ds_id=ds_id, epoch=1, step=step)
    run.log({"lr": 0.1, "epoch": 1})
    with pytest.warns(RecorderWarning, match="cannot be written"):
        flush_often(run)
    assert tried > 1
    stored = 200 if folder == "scalars" else 100
    assert (run.stats()["rows_stored"], run.stats()["rows_waiting"]) == (stored, 200 - stored)
    monkeypatch.undo()
    flush_often(run)
    run.close()
    assert (run.stats()["rows_stored"], run.stats()["rows_waiting"], run.stats()["rows_dropped"]) == (200, 0, 0)
    assert len(rows(tmp_path / "run")) == 200


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_of_a_segment_in_memory_what_is_stored_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.replace

    def broken(source: str, target: str) -> None:
        if "ds=b" in str(target):
            raise OSError(errno.EIO, "Input/output error")
        whole(source, target)

    monkeypatch.setattr(segments, "remote_file_system", lambda _: "nfs4")
    monkeypatch.setattr(os, "replace", broken)
    run = Run(tmp_path / "run")
    for step, (ds_id, n) in enumerate((("a", 100), ("b", 70))):
        run.log_samples(sample_id=range(n), loss=np.arange(n), ds_id=ds_id, epoch=1, step=step)
    run.close()
    assert (run.stats()["rows_stored"], run.stats()["rows_waiting"], run.stats()["rows_dropped"]) == (100, 0, 70)
    monkeypatch.undo()
    assert len(rows(tmp_path / "run")) == 100


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_nothing_is_recorded_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def none(_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", none)
    with Run(tmp_path / "run", strict=True) as run:
        log_and_close(run)
        assert run.state.save_state() is not None
    assert (run.stats()["rows_stored"], run.stats()["write_failures"]) == (10_000, 0)
    assert column(tmp_path / "run", "sample_id") == list(range(10_000))


def test_a_folder_that_cannot_be_looked_at_records_nothing_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 300)  # no file system has such names
    with pytest.warns(RecorderWarning, match="nothing is recorded"), Run(folder) as run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 0.25], epoch=1, step=1)
    assert (run.stats()["rows_logged"], run.stats()["rows_dropped"]) == (2, 2)
    with pytest.raises(XaiError, match="cannot be written"):
        Run(folder, strict=True)


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_disk_that_fails_before_the_first_row_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    run = Run(tmp_path / "run", rank=3)

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", broken)
    run.log_samples(sample_id=[1, 2], loss=[0.5, 0.25], epoch=1, step=1)
    assert (run.rank, run.attempt) == (3, 0)
    model = torch.nn.Linear(1, 1)
    run.state.save_state(models={"net": model})
    run.keep_best(model, 0.5, metric="loss", keep=1)
    assert run.stats()["rows_dropped"] == 2
    monkeypatch.undo()
    run.log_samples(sample_id=[3], loss=[0.5], epoch=1, step=2)
    run.close()
    assert column(tmp_path / "run", "sample_id") == [3]


def test_what_is_left_out_of_one_row_is_said_of_one_row(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        with pytest.warns(RecorderWarning, match="left out of 1 row, which is kept"):
            run.log_samples(sample_id=[1], loss=["a"], epoch=1, step=1)
        with pytest.warns(RecorderWarning, match="left out of 2 rows, which are kept"):
            run.log_samples(sample_id=[1, 2], acc=["a", "b"], epoch=1, step=2)
