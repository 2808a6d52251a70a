"""The doctor finds every fault, names it, and moves damage out of the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xaicli import parquet
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.maintenance.doctor import Complaint, examine
from xaicli.recorder.parts import append_table
from xaicli.recorder.run import Run

Xai = Callable[..., tuple[int, str, str]]


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    with Run(tmp_path / "run", strict=True) as run:
        for epoch in (1, 2):
            run.log_samples(sample_id=range(100), loss=np.arange(100), epoch=epoch, step=epoch)
        run.log({"lr": 0.1})
        run.log_images([1], np.zeros((1, 4, 4, 3), np.uint8))
        run.log_inputs([1], np.zeros((1, 4)))
        run.log_facts([1], camera="left")
        append_table(run.layout, run.writer, "boxes", pa.table({"x": [1.0]}))
    return RunLayout(tmp_path / "run")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_sound_run_has_no_findings(layout: RunLayout) -> None:
    found = examine(layout)
    assert (found.files, found.rows, found.unrecorded, found.findings) == (7, 200, 0, ())
    compact(layout)
    assert (examine(layout).rows, examine(layout).findings) == (200, ())
    compact(layout, grace=0)
    assert (examine(layout).rows, examine(layout).findings) == (200, ())


def test_any_flipped_bit_is_named(layout: RunLayout) -> None:
    for folder in ("data", "scalars", "tables", "media", "facts"):
        path = next((layout.root / folder).rglob("*.parquet"))
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 12).astype(int):
            flip(path, at)
            (finding,) = examine(layout).findings
            assert (finding.path, finding.complaint) == (path.relative_to(layout.root).as_posix(), Complaint.DAMAGED)
            path.write_bytes(whole)
    assert examine(layout).findings == ()


def test_damage_without_a_record_is_found_by_page_checksums(layout: RunLayout) -> None:
    layout.records_file(0, 0).unlink()
    assert (examine(layout).unrecorded, examine(layout).findings) == (7, ())
    path = next(layout.data.rglob("*.parquet"))
    column = pq.read_metadata(path).row_group(0).column(0)
    flip(path, column.data_page_offset + column.total_compressed_size - 5)
    assert [finding.complaint for finding in examine(layout).findings] == [Complaint.DAMAGED]


def test_quarantine_takes_damage_out_of_the_way(layout: RunLayout, xai: Xai) -> None:
    path = sorted(layout.data.rglob("*.parquet"))[0]
    name = path.relative_to(layout.root).as_posix()
    flip(path, 60)
    status, out, _ = xai("doctor", layout.root, "--quarantine", "--json")
    told = json.loads(out)
    assert status == 1
    assert told["counts"] == {"rows": 100, "damaged": [name]}
    assert told["rows"][0]["moved_to"] == f"quarantine/{name}"
    assert (layout.root / "quarantine" / name).exists()
    assert not path.exists()
    (finding,) = examine(layout).findings
    assert (finding.complaint, finding.moved_to) == (Complaint.MISSING, f"quarantine/{name}")


def test_a_file_in_the_wrong_place_is_named(layout: RunLayout) -> None:
    path = sorted(layout.data.rglob("*.parquet"))[0]
    other = layout.folder("eval", "", 1)
    other.mkdir(parents=True)
    shutil.copy(path, other / path.name)
    (finding,) = examine(layout).findings
    assert (finding.complaint, finding.reason) == (Complaint.MISPLACED, "its mode is 'train', its place says 'eval'")


def test_a_missing_file_is_named_with_its_rows(layout: RunLayout) -> None:
    path = sorted(layout.data.rglob("*.parquet"))[0]
    path.unlink()
    (finding,) = examine(layout).findings
    assert (finding.complaint, finding.rows) == (Complaint.MISSING, 100)


def test_a_damaged_segment_of_a_killed_training_is_named(layout: RunLayout) -> None:
    program = """
import os, sys
from xaicli.recorder.run import Run
run = Run(sys.argv[1])
for step in range(3):
    run.log_samples(sample_id=range(10), loss=[1.0] * 10, step=10 + step, epoch=3)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, layout.root], check=True, timeout=60)
    assert (examine(layout).findings, examine(layout).waiting) == ((), 30)
    segment = next(path for path in sorted(layout.wal.glob("*.seg")) if path.read_bytes()[16:24] != bytes(8))
    used = int.from_bytes(segment.read_bytes()[16:24], "little")
    flip(segment, 4096 + used - 20)
    (finding,) = examine(layout).findings
    assert (finding.complaint, finding.rows) == (Complaint.TORN, 10)
    Run(layout.root).close()
    parts = sorted(layout.folder("train", "", 3).glob("*.parquet"))
    assert [parquet.read(path).num_rows for path in parts] == [20]


def test_the_command_says_all_is_sound(layout: RunLayout, xai: Xai) -> None:
    status, out, err = xai("doctor", layout.root)
    assert (status, err) == (0, "")
    assert "7 files with 200 sample rows" in out
    assert "all sound" in out
    assert xai("doctor", layout.root.parent)[0] == 1
