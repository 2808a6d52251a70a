"""Single values picked out of pages equal what a whole reader reads, and damage is seen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaicli import parquet
from xaicli.reader import pages
from xaicli.reader.pages import UnlikeOursError, _present, column_chunks, facts_of, values_at

VALUES = st.lists(st.one_of(st.none(), st.floats(width=16)), min_size=1, max_size=300)


def written(folder: Path, table: pa.Table, row_group_rows: int) -> tuple[Path, bytes]:
    path = folder / "rows.parquet"
    record = parquet.write(table, path, root=folder, row_group_rows=row_group_rows)
    return path, parquet.checked_footer(path, record)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(1, 70), st.sampled_from([pa.float16(), pa.float32(), pa.float64()]))
def test_picks_what_a_whole_reader_reads(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], group: int, kind: pa.DataType
) -> None:
    stored = pa.array([None if v is None else np.float16(v) for v in values], pa.float16()).cast(kind)
    table = pa.table({"sample_id": range(len(values)), "step": [1] * len(values), "a": stored, "aa": stored})
    path, footer = written(tmp_path_factory.mktemp("pages"), table, group)
    chunks = column_chunks(footer, "a")
    assert [chunk.rows for chunk in chunks] == [min(group, len(values) - at) for at in range(0, len(values), group)]
    with path.open("rb") as file:
        found = [v for chunk in chunks for v in values_at(file.fileno(), chunk, range(chunk.rows))]
        last = values_at(file.fileno(), chunks[-1], [chunks[-1].rows - 1])
    expected = [math.nan if v is None else float(np.float16(v)) for v in values]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(last, expected[-1:])


def test_pages_without_a_wanted_row_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 16_384
    table = pa.table({"sample_id": np.arange(n), "step": np.ones(n, np.int64), "a": np.arange(n, dtype=np.float32)})
    path, footer = written(tmp_path, table, n)
    (chunk,) = column_chunks(footer, "a")
    zstd, sizes = pages._ZSTD, []

    class Spy:
        def decompress(self, content: bytes, size: int, *, asbytes: bool) -> bytes:
            sizes.append(size)
            return zstd.decompress(content, size, asbytes=asbytes)  # type: ignore[no-any-return]

    monkeypatch.setattr(pages, "_ZSTD", Spy())
    with path.open("rb") as file:
        assert values_at(file.fileno(), chunk, [5_000, 5_001]) == [5_000.0, 5_001.0]
    assert len(sizes) == 1
    assert sizes[0] < 4 * n / 2


def test_any_flipped_bit_of_the_values_is_seen(tmp_path: Path) -> None:
    n = 3_000
    values = np.random.default_rng(0).integers(0, 9, n).astype(np.float32)
    table = pa.table({"sample_id": range(n), "step": [1] * n, "a": values})
    path = tmp_path / "rows.parquet"
    # Several pages.
    record = parquet.write(table, path, root=tmp_path, row_group_rows=n)
    (chunk,) = column_chunks(parquet.checked_footer(path, record), "a")
    column = pq.read_metadata(path).row_group(0).column(2)
    content = path.read_bytes()
    wanted = [0, 1_500, n - 1]
    places = range(column.data_page_offset, column.data_page_offset + column.total_compressed_size)
    seen = 0
    for place in (*places[:60], *places[60::7]):
        for bit in range(8):
            broken = bytearray(content)
            broken[place] ^= 1 << bit
            path.write_bytes(broken)
            with path.open("rb") as file:
                try:
                    found = values_at(file.fileno(), chunk, wanted)
                except (OSError, UnlikeOursError):
                    seen += 1
                    continue
            # A page that was passed over.
            np.testing.assert_array_equal(found, values[wanted])
    assert seen > 400


def test_finds_the_facts_among_other_metadata(tmp_path: Path) -> None:
    table = pa.table({"sample_id": [1], "step": [7]}).replace_schema_metadata({b"other": b"xai", b"zz": b"y" * 300})
    _, footer = written(tmp_path, table, 10)
    facts = facts_of(footer)
    assert facts is not None
    assert b'"steps": [7, 7]' in facts


def test_levels_in_runs_and_packed_are_told_apart() -> None:
    """By hand, as the format says: 20 times 1 is a run (20 << 1, 1); 8 packed ones are (1 << 1 | 1) and a byte."""
    runs, packed = bytes([20 << 1, 1]), bytes([1 << 1 | 1, 0b10110001])
    bits = [True, False, False, False, True, True, False, True]
    assert _present(runs, 20).tolist() == [True] * 20
    assert _present(bytes([3 << 1, 0]), 3).tolist() == [False] * 3
    assert _present(packed, 8).tolist() == bits
    assert _present(packed, 5).tolist() == bits[:5]
    assert _present(runs + packed, 28).tolist() == [True] * 20 + bits
    with pytest.raises(UnlikeOursError):
        _present(runs, 12)
