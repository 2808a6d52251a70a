"""Where epochs are aligned, `samples` reads footers and few row groups, and answers the same."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.written_run import WrittenRun
from xaicli.queries import samples as samples_module
from xaicli.queries.resolution import resolve
from xaicli.queries.samples import samples
from xaicli.reader import open_reader


def sorted_rows(n: int, epochs: int) -> list[dict[str, Any]]:
    return [
        {"sample_id": i, "epoch": epoch, "label": i % 3, "loss": float((i * 37 + epoch * 11) % 101), "other": 1.0}
        for epoch in range(1, epochs + 1)
        for i in range(n)
    ]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int, int]]:
    """(file, place, bytes) of everything read by pages from now on."""
    log: list[tuple[Path, int, int]] = []
    pread = os.pread

    def spy(file: int, size: int, place: int) -> bytes:
        log.append((Path(f"/proc/self/fd/{file}").readlink(), place, size))
        return pread(file, size, place)

    monkeypatch.setattr(os, "pread", spy)
    return log


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file a descriptor is")
def test_reads_only_the_row_groups_it_must(
    tmp_path: Path, reads: list[tuple[Path, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xaicli.parquet.reading._SMALL", 0)  # every file is a large one
    rows = sorted_rows(100, 4)
    run = WrittenRun(tmp_path / "run")
    run.write(rows, row_group_rows=10)
    run.write([{**row, "mode": "train"} for row in rows])
    opened: list[Path] = []
    init = pq.ParquetFile.__init__

    def spy_init(self: Any, source: Any, **options: Any) -> None:
        if isinstance(source, Path):
            opened.append(source)
            assert options["page_checksum_verification"]
        init(self, source, **options)

    reader = open_reader(run.layout)
    assert "loss" in reader.dtypes
    monkeypatch.setattr(pq.ParquetFile, "__init__", spy_init)
    reads.clear()
    answer = samples(reader, resolve(reader, epoch="2-4"), max=2, min=0)
    assert answer.data.to_dicts() == oracle.samples(
        oracle.counting(row for row in rows if row["epoch"] >= 2), max=2, min=0
    )
    files = {piece.epoch: piece.path for piece in reader.files(["eval"])}
    assert set(opened) == {files[4]}
    groups = sorted({row["sample_id"] // 10 for row in answer.data.to_dicts()})
    assert 0 < len(groups) < 10
    assert {path for path, _, _ in reads} == {files[epoch] for epoch in (2, 3, 4)}
    for path in {path for path, _, _ in reads}:
        metadata = pq.read_metadata(path)
        index = metadata.schema.names.index("loss")
        chunks = [metadata.row_group(group).column(index) for group in groups]
        touched = sorted((place, place + size) for other, place, size in reads if other == path)
        for begin, end in touched:
            assert any(
                chunk.data_page_offset <= begin and end <= chunk.data_page_offset + chunk.total_compressed_size
                for chunk in chunks
            )


def test_counts_come_from_the_footers(tmp_path: Path) -> None:
    rows = sorted_rows(20, 3)
    rows[3]["loss"], rows[25]["loss"], rows[26]["loss"] = math.nan, math.inf, math.nan
    run = WrittenRun(tmp_path / "run")
    run.write(rows)
    reader = open_reader(run.layout)
    counts = samples(reader, resolve(reader)).counts
    assert (counts.rows, counts.non_finite, counts.duplicates, counts.stale) == (60, 3, 0, 0)


SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(
    st.sets(st.integers(-5, 40), min_size=1, max_size=12),
    st.integers(1, 4),
    st.lists(st.sampled_from([0.0, 1.0, 2.0, math.nan, -1.5]), min_size=48, max_size=48),
    st.booleans(),
    st.sampled_from(["same", "one missing", "text"]),
)
def test_equals_the_oracle(
    tmp_path_factory: pytest.TempPathFactory,
    ids: set[int],
    epochs: int,
    values: list[float],
    spoil_last: bool,
    kind: str,
) -> None:
    drawn = iter(values)
    rows = []
    for epoch in range(1, epochs + 1):
        for i in sorted(ids):
            value = next(drawn)
            finite = epoch == epochs and not spoil_last
            rows.append(
                {"sample_id": i, "epoch": epoch, "label": 1, "loss": 0.5 if finite and math.isnan(value) else value}
            )
    if kind == "one missing" and len(rows) > 1:
        del rows[-1 if spoil_last else 0]
    if kind == "text":
        rows = [{**row, "sample_id": f"s{row['sample_id']:+04d}"} for row in rows]
        rows.sort(key=lambda row: (row["epoch"], row["sample_id"]))
    run = WrittenRun(tmp_path_factory.mktemp("runs") / "run")
    run.write(rows, row_group_rows=3)
    reader = open_reader(run.layout)
    listed = [rows[0]["sample_id"]]
    answer = samples(reader, resolve(reader), max=3, min=3, ids=listed)
    assert answer.data.to_dicts() == oracle.samples(oracle.counting(rows), max=3, min=3, ids=listed)
    assert answer.counts.non_finite == sum(math.isnan(row["loss"]) for row in rows)


def test_aligned_epochs_are_not_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(sorted_rows(20, 3))
    monkeypatch.setattr(samples_module, "Epochwise", None)
    reader = open_reader(run.layout)
    assert samples(reader, resolve(reader)).data.height == 10
