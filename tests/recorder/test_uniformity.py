"""One schema in all files of a run: tools read `data/` by their default call, whenever a column came or was widened."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from xaicli import locks, open_run
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.maintenance.doctor import examine
from xaicli.recorder import process, uniformity, writer
from xaicli.recorder.ledger import read_ending
from xaicli.recorder.run import Run

BATCHES: list[dict[str, Any]] = [
    {"mode": "train", "loss": [0.5, 1.5], "n": [1, 2]},
    {"mode": "eval", "loss": [0.25, 1e300], "own": [3.0, 4.0], "n": [2**24 + 1, 5]},
    {"mode": "eval", "label": [0, 1], "prediction": [0, 0], "loss": [2.0, 3.0]},
]
COLUMNS = ("sample_id", "mode", "epoch", "label", "prediction", "correct", "loss", "n", "own")
EXPECTED = [
    (1, "train", 1, None, None, None, 0.5, 1.0, None),
    (2, "train", 1, None, None, None, 1.5, 2.0, None),
    (1, "eval", 2, None, None, None, 0.25, 2.0**24 + 1, 3.0),
    (2, "eval", 2, None, None, None, 1e300, 5.0, 4.0),
    (1, "eval", 3, 0, 0, True, 2.0, None, None),
    (2, "eval", 3, 1, 0, False, 3.0, None, None),
]


def record(run_dir: Path, *, attempts: bool) -> None:
    run = Run(run_dir)
    for number, batch in enumerate(BATCHES, 1):
        run.log_samples(sample_id=[1, 2], epoch=number, step=number, **batch)
        run.flush()
        if attempts:
            run.close()
            run = Run(run_dir)
    run.close()


def tools(run_dir: Path) -> dict[str, list[tuple[Any, ...]]]:
    """{tool: the rows it reads by its default call}."""
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    data = run_dir / "data"
    duck = duckdb.sql(f"SELECT {', '.join(COLUMNS)} FROM read_parquet('{data}/**/*.parquet') ORDER BY epoch, sample_id")
    found = {
        "polars": pl.read_parquet(data).select(COLUMNS).rows(),
        "pyarrow": [tuple(row[name] for name in COLUMNS) for row in pq.read_table(data).to_pylist()],
        "pandas": [tuple(row[name] for name in COLUMNS) for row in pandas.read_parquet(data).to_dict("records")],
        "duckdb": duck.fetchall(),
    }
    return {tool: sorted(map(_plain, rows), key=lambda row: (row[2], row[0])) for tool, rows in found.items()}


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if isinstance(value, float) and np.isnan(value) else value for value in row)


_KILLED = """
import os, sys
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], epoch=1, step=1)
run.flush()
run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], late=[1.0, 2.0], epoch=2, step=2)
run.flush()
run.log_samples(sample_id=[1, 2, 3], loss=[0.5, 1.5, 2.5], late=[1.0, 2.0, 3.0], epoch=3, step=3)
os._exit(0)
"""


def test_info_says_what_other_tools_miss_of_a_killed_run_and_the_way_out(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    subprocess.run([sys.executable, "-c", _KILLED, layout.root], check=True, timeout=60)
    uneven, waiting = open_run(layout.root).info().answer.warnings
    assert "or became one of double precision: 1 of 2. Other tools may" in uneven
    assert "rows of a killed training that lie in wal/ still: 3. Only xai reads them there" in waiting
    assert "xai compact" in uneven
    assert "xai compact" in waiting
    assert "late" not in pq.read_table(layout.data).column_names
    compact(layout, grace=0)
    assert open_run(layout.root).info().answer.warnings == ()
    rows = pl.read_parquet(layout.data).sort("epoch", "sample_id").select("sample_id", "loss", "late").rows()
    assert rows == [(1, 0.5, None), (2, 1.5, None), *[(1, 0.5, 1.0), (2, 1.5, 2.0)] * 2, (3, 2.5, 3.0)]


_KILLED_WITH = """
import os, sys
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
for epoch in (1, 2, 3):
    late = {"own": [3.0, 4.0], "n": [2**24 + 1, 2]} if epoch == 3 else {"n": [1, 2]}
    run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], epoch=epoch, step=epoch, mode="train", **late)
    if epoch <= int(sys.argv[2]):
        run.flush()
os._exit(0)
"""


def _once_compacted(layout: RunLayout) -> None:
    compact(layout)


def _opened_and_closed(layout: RunLayout) -> None:
    with Run(layout.root):
        pass


def _gone_on_with(layout: RunLayout) -> None:
    with Run(layout.root) as run:
        run.log({"lr": 0.5})


@pytest.mark.parametrize("in_files", [0, 2, 3])
@pytest.mark.parametrize("then", [_once_compacted, _opened_and_closed, _gone_on_with])
def test_columns_that_a_killed_training_brought_last_are_in_every_file_after_one_compaction_or_close(
    tmp_path: Path, in_files: int, then: Callable[[RunLayout], None]
) -> None:
    layout = RunLayout(tmp_path / "run")
    subprocess.run([sys.executable, "-c", _KILLED_WITH, layout.root, str(in_files)], check=True, timeout=60)
    then(layout)
    late = [(1, 3, 2.0**24 + 1, 3.0), (2, 3, 2.0, 4.0)]
    rows = [(i, epoch, float(i), None) for epoch in (1, 2) for i in (1, 2)] + late
    columns = ("sample_id", "epoch", "n", "own")
    for read in (pq.read_table(layout.data).to_pylist(), pl.read_parquet(layout.data).to_dicts()):
        found = [tuple(row[name] for name in columns) for row in read]
        assert sorted(found, key=lambda row: (row[1], row[0])) == rows
    assert open_run(layout.root).info().answer.warnings == ()


def test_rows_that_a_close_left_in_wal_are_told_and_are_of_no_killed_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    store_rows = writer.store_rows

    def slow(*args: Any) -> None:
        goes_on.wait(60)
        store_rows(*args)

    monkeypatch.setattr(writer, "store_rows", slow)
    monkeypatch.setattr(process, "_FLUSH_AT_CLOSE", 0.1)
    monkeypatch.setattr(process, "CLOSE_SECONDS", 0.1)
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], epoch=1, step=1)
    try:
        with pytest.warns(UserWarning, match=r"closed before all of it was in files: 2 rows stay in wal/"):
            run.close()
        assert open_run(tmp_path / "run").scan(mode="train").collect()["loss"].to_list() == [0.5, 1.5]
        (told,) = open_run(tmp_path / "run").info().answer.warnings
    finally:
        goes_on.set()
    assert told.startswith("rows of a run that was closed before they were in files that lie in wal/ still: 2. Only")


def test_rows_of_a_run_that_closes_while_it_is_asked_for_are_not_told_as_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], epoch=1, step=1)
    known = uniformity.is_held

    def asked(lock: Path) -> bool:
        run.close()
        return known(lock)

    monkeypatch.setattr(uniformity, "is_held", asked)
    try:
        assert open_run(tmp_path / "run").info().answer.warnings == ()
    finally:
        run.close()


def test_a_run_has_said_that_it_is_closed_by_the_time_its_lock_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bool | None] = []
    given_back = process.release

    def release(lock: Path) -> None:
        said.append(read_ending(tmp_path / "run" / "attempts" / "000000-r0000.stats").is_closed)
        given_back(lock)

    monkeypatch.setattr(process, "release", release)
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], epoch=1, step=1)
        run.flush()
    assert said == [True]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize("attempts", [False, True])
def test_every_tool_reads_what_came_later_and_what_was_widened(tmp_path: Path, attempts: bool) -> None:
    record(tmp_path / "run", attempts=attempts)
    for tool, rows in tools(tmp_path / "run").items():
        assert rows == EXPECTED, tool
    assert examine(RunLayout(tmp_path / "run")).findings == ()
    own = open_run(tmp_path / "run").scan(mode="all").select(COLUMNS).sort("epoch", "sample_id").collect()
    assert own.rows() == EXPECTED


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_run_whose_files_differ_is_read_by_xai_and_made_one_by_compact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "make_uniform", lambda *_, **__: 1)  # there was no time
    run = Run(tmp_path / "run")
    for number, batch in enumerate(BATCHES, 1):
        run.log_samples(sample_id=[1, 2], epoch=number, step=number, **batch)
        run.flush()
    with pytest.warns(UserWarning, match="xai compact"):
        run.close()
    layout = RunLayout(tmp_path / "run")
    kinds = {str(pq.read_schema(file.path).field("loss").type) for file in layout.data_files()}
    assert kinds == {"float", "double"}

    def own() -> list[tuple[Any, ...]]:
        frame: pl.LazyFrame = open_run(tmp_path / "run").scan(mode="all").select(COLUMNS)
        return frame.sort("epoch", "sample_id").collect().rows()

    assert own() == EXPECTED
    compact(layout, grace=0)
    compact(layout, grace=0)
    assert own() == EXPECTED
    for tool, rows in tools(tmp_path / "run").items():
        assert rows == EXPECTED, tool


_READER = """
import sys
from xaicli import locks, open_run
frame = open_run(sys.argv[1]).scan(mode="all").select("sample_id", "epoch", "loss").sort("epoch", "sample_id")
print("listed", flush=True)
sys.stdin.readline()
print(frame.collect().rows(), flush=True)
"""


@contextlib.contextmanager
def reading(run_dir: Path) -> Iterator[Callable[[], Any]]:
    """Another process that has listed a run's files, and, asked by a call, opens them: the rows it reads."""
    command = [sys.executable, "-c", _READER, str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "listed\n"
        yield lambda: ast.literal_eval(reader.communicate("go on\n", timeout=120)[0])


def files_of(layout: RunLayout) -> dict[str, int]:
    return {file.path.name: file.path.stat().st_ino for file in layout.data_files()}


LOSSES = [(1, 1, 0.5), (2, 1, 1.5)]


@pytest.mark.parametrize("compacted", [False, True])
def test_what_another_process_has_listed_is_not_replaced_when_a_run_ends(tmp_path: Path, compacted: bool) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root) as run:
        run.log_samples(sample_id=[1, 2], epoch=1, step=1, **BATCHES[0])
    if compacted:
        compact(layout, grace=0)
    run = Run(layout.root)
    before = files_of(layout)
    with reading(layout.root) as rows:
        run.log_samples(sample_id=[1, 2], epoch=2, step=2, late=[1.0, 2.0], loss=[2.5, 3.5])
        with pytest.warns(UserWarning, match="1 file of .*: xai reads them together; for other tools write: xai"):
            run.close()
        assert before.items() < files_of(layout).items()
        if compacted:  # and no other file is put under its name
            compact(layout)
            assert before.items() < files_of(layout).items()
        assert rows() == LOSSES
    compact(layout, grace=0)
    assert pl.read_parquet(layout.data).sort("epoch", "sample_id")["late"].to_list() == [None, None, 1.0, 2.0]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_disk_without_locks_tells_of_no_reader_so_nothing_is_replaced_before_the_grace_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compacted: bool
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root) as run:
        run.log_samples(sample_id=[1, 2], epoch=1, step=1, **BATCHES[0])
    if compacted:
        compact(layout, grace=0)
    before = files_of(layout)
    run = Run(layout.root)
    run.log_samples(sample_id=[1, 2], epoch=2, step=2, late=[1.0, 2.0], loss=[2.5, 3.5])
    with pytest.warns(UserWarning, match="for other tools write: xai compact"):
        run.close()
    compact(layout)
    assert before.items() < files_of(layout).items()
    assert open_run(layout.root).scan(mode="all").collect().height == 4
    for file in layout.data_files():
        os.utime(file.path, (0, 0))
    compact(layout)
    assert len(files_of(layout)) == 2
    compact(layout, grace=0)
    assert pl.read_parquet(layout.data).sort("epoch", "sample_id")["late"].to_list() == [None, None, 1.0, 2.0]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_reader_that_listed_before_finds_what_replaced_the_files(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    run = Run(layout.root)
    run.log_samples(sample_id=[1, 2], epoch=1, step=1, **BATCHES[0])
    run.flush()
    reader = open_run(layout.root)
    assert reader.info().data.height == 1
    run.log_samples(sample_id=[1, 2], epoch=2, step=2, **BATCHES[1])
    run.close()
    compact(layout, grace=0)  # whoever has it wait for nobody
    assert [file.part.compacted for file in layout.data_files()] == [True, True]
    assert reader.samples(mode="train").data["score"].to_list() == [1.5, 0.5, 0.5, 1.5]
