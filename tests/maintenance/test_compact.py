"""Compaction: the same rows in fewer files, beside readers and a running trainer, whatever ends it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from xaicli import files, parquet, wal
from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.reader.run import open_reader
from xaicli.recorder.run import Run
from xaicli.recorder.uniformity import alone
from xaicli.wal.snapshot import live_rows

Rows = Counter[tuple[tuple[str, object], ...]]


def stored(layout: RunLayout) -> Rows:
    """Every row a reader counts."""
    snapshot = wal.take_snapshot(layout)
    tables = [(file.epoch, parquet.read(file.path)) for file in snapshot.files]
    tables += [(live.epoch, live.table) for live in live_rows(layout, snapshot.segments)]
    # A column that came later is absent or null: the same; the epoch is where a part lies.
    rows = [{"epoch": epoch, **row} for epoch, table in tables for row in table.to_pylist()]
    return Counter(tuple(sorted((n, value) for n, value in row.items() if value is not None)) for row in rows)


def log(run: Run, first: int, last: int, epoch: int = 1) -> None:
    for step in range(first, last):
        ids = np.random.default_rng(step).permutation(20)
        run.log_samples(sample_id=ids, label=ids % 3, loss=ids * step, step=step, epoch=epoch)
        run.flush()


def data_files(layout: RunLayout) -> list[str]:
    return sorted(file.path.name for file in layout.data_files())


def test_one_sorted_file_an_epoch_stands_for_its_parts(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 4)
        run.log_samples(sample_id=[1, 1], late=[0.5, 0.25], step=4, epoch=1)
    before = stored(layout)
    done = compact(layout, grace=0)
    assert data_files(layout) == ["c-a000000-r0000-00000000-00000004.parquet"]
    assert stored(layout) == before
    (file,) = layout.data_files()
    table = parquet.read(file.path)
    keys = list(zip(table["sample_id"].to_pylist(), table["step"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert [v for v in table["late"].to_pylist() if v is not None] == [0.5, 0.25], "the order of logging is kept"
    assert (done.files[0].parts, done.files[0].rows) == (5, 82)
    parquet.verify(file.path, parquet.read_records(layout)[done.files[0].path])
    assert compact(layout, grace=0).files == ()


def test_row_groups_are_small(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        run.log_samples(sample_id=np.arange(40_000), loss=np.arange(40_000))
    compact(layout)
    (path,) = layout.data.rglob("c-*.parquet")
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [16_384, 16_384, 7_232]


def test_replaced_files_stay_for_readers_until_the_grace_is_over(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 3)
    before = stored(layout)
    reader = open_reader(layout)
    done = compact(layout)
    assert len(done.waiting) == 3
    assert len(data_files(layout)) == 4
    assert stored(layout) == before
    (made,) = layout.data.rglob("c-*.parquet")
    os.utime(made, (0, 0))
    assert len(compact(layout).removed) == 3
    assert stored(layout) == before
    del reader


def test_without_readers_other_tools_count_no_row_twice_after_a_compaction(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 3)
        log(run, 3, 5, epoch=2)
    done = compact(layout)
    assert (len(done.removed), done.waiting) == (5, ())
    assert pq.read_table(layout.data).num_rows == 100
    assert pl.read_parquet(layout.data).height == 100
    assert pl.read_parquet(layout.data / "**" / "*.parquet").height == 100
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(layout.data)) == 100
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        assert database.execute(f"select count(*) from '{layout.data}/**/*.parquet'").fetchall() == [(100,)]


_READER = """
import sys
from pathlib import Path
from xaicli.layout import RunLayout
from xaicli.reader.lazy import scan
from xaicli.reader.pieces import Place
from xaicli.reader.run import open_reader
lazy = scan(open_reader(RunLayout(Path(sys.argv[1]))), [Place("train", "", 1)], ["sample_id"])
print("listed", flush=True)
sys.stdin.readline()
print(lazy.collect().height)
"""


def test_what_another_process_was_handed_lazily_stays_until_it_ends(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 3)
    command = [sys.executable, "-c", _READER, layout.root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "listed\n"
        assert len(compact(layout).waiting) == 3
        assert reader.communicate("go on\n", timeout=60)[0] == "60\n"
    assert len(compact(layout).removed) == 3
    assert pq.read_table(layout.data).num_rows == 60


def test_files_in_the_making_lie_where_no_tool_takes_them_for_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = RunLayout(tmp_path / "run")
    seen = []

    def look(point: str) -> None:
        if point == "written":
            seen.append([path for path in layout.data.rglob("*") if path.is_file() and path.suffix != ".parquet"])

    monkeypatch.setattr(files, "reached", look)
    with Run(layout.root, strict=True) as run:
        log(run, 0, 3)
    compact(layout)
    assert len(seen) >= 4
    assert not any(seen)


def test_what_killed_processes_left_unfinished_is_removed_once_it_is_old(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 1)
    (epoch,) = layout.data.rglob("epoch=*")
    layout.checkpoints.mkdir(exist_ok=True)
    old = [epoch / ".tmp-1-aa", layout.checkpoints / ".tmp-1-bb", layout.root / ".tmp-1-cc", epoch / ".part.1-1.tmp"]
    fresh = epoch / ".tmp-1-dd"
    for path in (*old, fresh):
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (0, 0))
    removed = compact(layout, grace=0).removed
    assert {str(path.relative_to(layout.root)) for path in old} <= set(removed)
    assert not any(path.exists() for path in old)
    assert fresh.exists()


def test_parts_are_not_removed_for_a_damaged_replacement(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 3)
    reader = open_reader(layout)
    compact(layout)
    del reader
    (made,) = layout.data.rglob("c-*.parquet")
    content = bytearray(made.read_bytes())
    content[100] ^= 1
    made.write_bytes(content)
    done = compact(layout, grace=0)
    assert (done.removed, len(done.waiting)) == ((), 3)


def test_a_damaged_part_is_named_and_keeps_its_neighbours_as_they_are(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 2)
        log(run, 2, 4, epoch=2)
    path = sorted(layout.data.rglob("part-*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-9])
    done = compact(layout, grace=0)
    assert len(done.damaged) == 1
    assert path.name in done.damaged[0]
    assert [Path(file.path).parent.name for file in done.files] == ["epoch=2"]


def test_attempts_ranks_and_growing_epochs(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    for _ in range(2):
        with Run(layout.root, rank=0, strict=True) as zero, Run(layout.root, rank=1, strict=True) as one:
            log(zero, 0, 3)
            log(one, 0, 2)
            compact(layout, grace=0)
            log(zero, 3, 5)
    before = stored(layout)
    compact(layout, grace=0)
    assert stored(layout) == before
    writers = {(f.part.attempt, f.part.rank): (f.part.first, f.part.last) for f in layout.data_files()}
    assert writers == {(0, 0): (0, 4), (0, 1): (0, 1), (1, 0): (0, 4), (1, 1): (0, 1)}


_KILLED = """
import os, sys
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
for epoch in (1, 2, 1):
    run.log_samples(sample_id=[epoch], loss=[1.0], epoch=epoch, step=epoch)
os._exit(0)
"""


def test_what_a_killed_training_left_is_stored_first(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    subprocess.run([sys.executable, "-c", _KILLED, layout.root], check=True, timeout=60)
    before = stored(layout)
    assert sum(before.values()) == 3
    compact(layout, grace=0)
    assert stored(layout) == before
    assert not layout.wal.exists() or not list(layout.wal.iterdir())
    assert len(data_files(layout)) == 2


def test_never_across_a_sequence_that_is_still_in_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.maintenance import compact as module

    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 5)
        writer = ("train", "", 1, 0, 0)
        # As if the part of sequence 2 had not been there when the segments were looked at.
        (part,) = (file.path for file in layout.data_files() if file.part.first == 2)
        hidden = part.read_bytes()
        part.unlink()
        monkeypatch.setattr(module, "_unsaved", lambda _: {writer: [2]})
        compact(layout, grace=0)
        part.write_bytes(hidden)
    assert [(f.part.first, f.part.last) for f in layout.data_files()] == [(0, 1), (3, 4), (2, 2)]
    assert sum(stored(layout).values()) == 100


def test_beside_a_trainer_and_readers_no_row_is_missed_or_doubled(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    stop = threading.Event()
    faults: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def loop() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                faults.append(error)

        return threading.Thread(target=loop)

    def read() -> None:
        for _ in range(20):
            try:
                seen = stored(layout)
            except FileNotFoundError:
                continue  # a reader lists again
            assert max(seen.values(), default=1) == 1
            numbers = sorted(dict(key)["sample_id"] for key in seen)
            assert numbers == list(range(len(numbers)))
            return

    with Run(layout.root, strict=True) as run:
        run.log_samples(sample_id=[0], loss=[0.0], epoch=0)
        threads = [guarded(read), guarded(lambda: compact(layout, grace=0.2) and None)]
        for thread in threads:
            thread.start()
        for i in range(1, 400):
            run.log_samples(sample_id=[i], loss=[i], epoch=i // 50)
            if i % 5 == 0:
                run.flush()
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults, faults
    compact(layout, grace=0)
    assert sorted(dict(key)["sample_id"] for key in stored(layout)) == list(range(400))


@pytest.mark.parametrize("point", ["written", "synced", "renamed", "folder synced"])
def test_a_kill_at_any_point_leaves_every_row_once(tmp_path: Path, point: str) -> None:
    layout = RunLayout(tmp_path / "run")
    with Run(layout.root, strict=True) as run:
        log(run, 0, 3)
        log(run, 3, 5, epoch=2)
    before = stored(layout)
    program = f"""
import os, signal, sys
from pathlib import Path
from xaicli import files
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
files.reached = lambda point: point == {point!r} and os.kill(os.getpid(), signal.SIGKILL)
compact(RunLayout(Path(sys.argv[1])), grace=0)
"""
    assert subprocess.run([sys.executable, "-c", program, layout.root], timeout=60, check=False).returncode == -9
    assert stored(layout) == before
    compact(layout, grace=0)
    assert stored(layout) == before
    assert len(data_files(layout)) == 2


def test_only_one_compaction_at_a_time(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    Run(layout.root).close()
    with alone(layout), pytest.raises(XaiError, match="being compacted already"):
        compact(layout)


def test_the_command(tmp_path: Path, xai: Callable[..., tuple[int, str, str]]) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        log(run, 0, 3)
    reader = open_reader(RunLayout(tmp_path / "run"))
    status, out, _ = xai("compact", tmp_path / "run")
    assert status == 0
    assert "1 files made, 0 replaced ones removed; 3 more stay for a program" in out.replace("\n", " ")
    _, out, _ = xai("info", tmp_path / "run", "--json")
    (said,) = json.loads(out)["warnings"]
    assert said.startswith("files that a compaction has replaced, kept for a program that was reading them: 3. ")
    assert "xai compact" in said
    del reader
    gc.collect()
    _, out, _ = xai("compact", tmp_path / "run")
    assert "0 files made, 3 replaced ones removed." in out.replace("\n", " ")
    assert json.loads(xai("info", tmp_path / "run", "--json")[1])["warnings"] == []
    assert xai("compact", tmp_path / "nothing")[0] == 1
