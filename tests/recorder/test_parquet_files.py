"""Parquet files: encodings, records, and damage that is always found."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaicli import files, parquet
from xaicli.errors import DamagedFileError
from xaicli.layout import RunLayout


def samples(n: int, classes: int = 10) -> pa.Table:
    draw = np.random.default_rng(0)
    return pa.table(
        {
            "sample_id": draw.permutation(n * 10)[:n],
            "step": np.arange(n) // 128,
            "label": draw.integers(0, classes, n).astype(np.int32),
            "prediction": draw.integers(0, classes, n).astype(np.int32),
            **{name: draw.normal(size=n).astype(np.float32) for name in ("loss", "margin", "el2n", "entropy")},
        }
    )


def test_a_row_of_eight_columns_takes_at_most_19_bytes(tmp_path: Path) -> None:
    table = samples(131_072)
    record = parquet.write(table, tmp_path / "f.parquet", root=tmp_path)
    assert record.bytes / record.rows <= 19
    assert parquet.read(tmp_path / "f.parquet", record=record).equals(table)


def test_encodings_fit_the_columns(tmp_path: Path) -> None:
    n = 5000
    table = samples(n).append_column("path", pa.array([f"images/{i:06}.png" for i in range(n)]))
    table = table.append_column("mode", pa.array(["train"] * n))
    parquet.write(table, tmp_path / "f.parquet", root=tmp_path)
    columns = pq.read_metadata(tmp_path / "f.parquet").row_group(0)
    encodings = {columns.column(i).path_in_schema: set(columns.column(i).encodings) for i in range(columns.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["sample_id"]
    assert "BYTE_STREAM_SPLIT" in encodings["loss"]
    assert "RLE_DICTIONARY" in encodings["label"]
    assert "DELTA_BYTE_ARRAY" in encodings["path"]
    assert "RLE_DICTIONARY" in encodings["mode"]
    pages = [columns.column(i).statistics for i in range(columns.num_columns)]
    assert [s is not None for s in pages] == [
        name in ("sample_id", "step", "label", "prediction") for name in table.schema.names
    ]


_columns = st.lists(
    st.sampled_from(
        [
            st.integers(-(2**63), 2**63 - 1).map(int),
            st.floats(width=32),
            st.text(max_size=5),
            st.booleans(),
            st.none(),
        ]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), columns=_columns, n=st.integers(0, 40))
def test_any_table_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, columns: list[Any], n: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    values = {f"c{i}": pa.array(data.draw(st.lists(kind, min_size=n, max_size=n))) for i, kind in enumerate(columns)}
    table = pa.table(values)
    record = parquet.write(table, folder / "f.parquet", root=folder)
    back = parquet.read(folder / "f.parquet", record=record)
    assert back.schema.equals(table.schema)
    assert repr(back.to_pydict()) == repr(table.to_pydict())


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    table = samples(3000)
    record = parquet.write(table, path, root=tmp_path)
    whole = path.read_bytes()
    draw = np.random.default_rng(1)
    for at in [*draw.integers(0, len(whole), 150), *range(len(whole) - 40, len(whole))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="is damaged"):
            parquet.verify(path, record)
        with contextlib.suppress(DamagedFileError):
            assert parquet.read(path, record=record).equals(table), "only a byte no reader looks at may pass"
    for cut in (0, 1, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedFileError):
            parquet.verify(path, record)
        for known in (record, None):
            with pytest.raises(DamagedFileError):
                parquet.read(path, record=known)


def test_records_survive_torn_and_damaged_lines(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    records = []
    for i in range(4):
        records.append(parquet.write(samples(10 + i), tmp_path / "data" / f"{i}.parquet", root=tmp_path))
        parquet.append_record(layout, 0, 0, records[-1])
        if i == 1:
            with layout.records_file(0, 0).open("ab") as file:
                file.write(b'{"path": "data/torn')
    assert list(parquet.read_records(layout).values()) == records
    path = layout.records_file(0, 0)
    path.write_bytes(path.read_bytes().replace(b'"rows": 12', b'"rows": 13'))
    assert list(parquet.read_records(layout)) == ["data/0.parquet", "data/1.parquet", "data/3.parquet"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write_all", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        parquet.write(samples(3), tmp_path / "data" / "f.parquet", root=tmp_path)
    assert not list((tmp_path / "data").iterdir())
