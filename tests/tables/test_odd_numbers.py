"""Numbers as files have them at the edges: a sign, blanks, many digits. One odd cell costs no other."""

from __future__ import annotations

import contextlib
import json
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xaicli
from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.reader import Reader
from xaicli.tables.fact_file import read_fact_file

IDS = {
    "4": 4,
    "+4": 4,
    " 4": 4,
    "4 ": 4,
    "4.0": 4,
    "+4.00": 4,
    "-0": 0,
    "-4": -4,
    "004": 4,
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
    "0000000000000000000004": 4,
    "9223372036854775808": None,
    "12345678901234567890": None,
    "\uff14": None,
    "1_000": None,
    "0x10": None,
    "5e0": None,
    "1.5": None,
    "inf": None,
    "nan": None,
    "+": None,
    "--4": None,
    "4+": None,
}
"""What a cell says, and the id it is; None where it is none."""


@pytest.mark.parametrize("cell", IDS)
def test_one_odd_id_costs_no_other(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"sample_id,a\n1,x\n{cell},y\n3,z\n")
    found = read_fact_file(path, "int64")
    wanted = IDS[cell]
    ids = [1, 3] if wanted is None else [1, wanted, 3]
    assert found.table["sample_id"].to_pylist() == ids
    assert found.table["sample_id"].type == pa.int64()
    assert [n for _, _, n in found.left_out] == ([1] if wanted is None else [])

    pq.write_table(pa.table({"sample_id": ["1", cell, "3"], "a": ["x", "y", "z"]}), tmp_path / "f.parquet")
    assert read_fact_file(tmp_path / "f.parquet", "int64").table["sample_id"].to_pylist() == ids


@pytest.mark.parametrize("cell", ["+4", "12345678901234567890", "\uff14"])
def test_one_odd_id_costs_no_other_of_a_run(tmp_path: Path, cell: str) -> None:
    (tmp_path / "f.csv").write_text(f"sample_id,a\n1,x\n{cell},y\n3,z\n")
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 3, 4], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
        with pytest.warns() if IDS[cell] is None else contextlib.nullcontext():
            run.log_facts(facts=tmp_path / "f.csv")
    frame = Reader(RunLayout(tmp_path / "run")).facts.frame
    kept = {row["sample_id"]: row["a"] for row in frame.to_dicts()}
    assert kept == {1: "x", 3: "z"} | ({IDS[cell]: "y"} if IDS[cell] is not None else {})


def test_ids_told_as_texts_before_the_run_has_numbers(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xaicli.Run(tmp_path / "run") as run:
            run.log_facts(["+4", "7", "x", "9223372036854775808"], cam=["a", "b", "c", "d"])
            run.log_samples(sample_id=[4, 7], loss=[1.0, 2.0], mode="eval", epoch=1)
    frame = Reader(RunLayout(tmp_path / "run")).facts.frame
    assert dict(frame.sort("sample_id").select("sample_id", "cam").rows()) == {4: "a", 7: "b"}
    told = xaicli.open_run(tmp_path / "run").info().answer.warnings
    assert told == ("2 facts were not recorded: facts have ids that are none of the run's kind",)


def test_odd_ids_of_a_file_before_the_run_has_ids_are_counted(tmp_path: Path) -> None:
    """Only the rows that come later say that ids are numbers."""
    (tmp_path / "f.csv").write_text("sample_id,a\n1,x\n+2,y\nbad,z\n9,w\n")
    with xaicli.Run(tmp_path / "run", facts=tmp_path / "f.csv") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    found = opened.samples().answer
    assert {row["sample_id"]: row["facts"]["a"] for row in found.data.to_dicts()} == {1: "x", 2: "y"}
    assert "facts of 1 id are left out: none of the run's kind (whole numbers)" in found.warnings
    assert "2 ids with facts are no samples of the run: nothing was logged of them" in opened.info().answer.warnings


def test_a_file_of_a_head_line_alone_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("sample_id,a\n")
    with pytest.raises(XaiError, match=r"f\.csv has no rows"):
        read_fact_file(tmp_path / "f.csv", "int64")


def test_signs_and_edges_of_a_column_of_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("sample_id,n\n1,+5\n2,-0\n3,9223372036854775807\n4,18446744073709551615\n5,\n")
    found = read_fact_file(path, "int64")
    assert found.table["n"].type == pa.int64()
    assert found.table["n"].to_pylist() == [5, 0, 2**63 - 1, None, None]
    assert found.left_out == [("n", "1 value of n in f.csv is beyond 64 bits", 1)]
    path.write_text("sample_id,card\n1,89014103211118510720\n2,89014103211118510721\n")
    found = read_fact_file(path, "int64")
    assert found.table["card"].to_pylist() == ["89014103211118510720", "89014103211118510721"]
    assert found.notices == ["card of f.csv holds whole numbers beyond 64 bits: kept as text"]


BIG = [2**63 + 5, 3, None, 9]
KEPT = [None, 3, None, 9]


@pytest.mark.parametrize("kind", [pa.uint64(), pa.decimal128(38, 0)])
def test_whole_numbers_beyond_64_bits_of_files_with_types(tmp_path: Path, kind: pa.DataType) -> None:
    values = [Decimal(v) if v is not None else None for v in BIG] if pa.types.is_decimal(kind) else BIG
    pq.write_table(pa.table({"sample_id": [1, 2, 3, 4], "u": pa.array(values, kind)}), tmp_path / "f.parquet")
    found = read_fact_file(tmp_path / "f.parquet", "int64")
    assert found.table["u"].type == pa.int64()
    assert found.table["u"].to_pylist() == KEPT
    assert found.left_out == [("u", "1 value of u in f.parquet is beyond 64 bits", 1)]


def test_whole_numbers_beyond_64_bits_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(json.dumps({"sample_id": i, "u": u, "x": 0.5}) for i, u in enumerate(BIG)))
    found = read_fact_file(path, "int64")
    assert (found.table["u"].type, found.table["u"].to_pylist()) == (pa.int64(), KEPT)
    assert found.left_out == [("u", "1 value of u in f.jsonl is beyond 64 bits", 1)]
    path.write_text(
        '{"sample_id": 1, "u": 9007199254740993}\n{"sample_id": 2, "u": 1.5}\n{"sample_id": 18446744073709551615}\n'
    )
    found = read_fact_file(path, "int64")
    assert found.table["u"].to_pylist() == [float(2**53), 1.5]
    assert [n for _, _, n in found.left_out] == [1]


def test_ids_beyond_64_bits_of_a_column_with_types_are_left_out(tmp_path: Path) -> None:
    pq.write_table(pa.table({"sample_id": pa.array([1, 2**63], pa.uint64()), "a": ["x", "y"]}), tmp_path / "f.parquet")
    found = read_fact_file(tmp_path / "f.parquet", "int64")
    assert found.table.to_pydict() == {"sample_id": [1], "a": ["x"]}
    assert [n for _, _, n in found.left_out] == [1]


@pytest.mark.parametrize(
    "values",
    [
        BIG[:2] + BIG[3:],
        np.array(BIG[:2] + BIG[3:], np.uint64),
        pl.Series(BIG[:2] + BIG[3:], dtype=pl.UInt64),
        [Decimal(v) for v in BIG if v is not None],
        np.array(BIG[:2] + BIG[3:], object),
    ],
    ids=["list", "array", "series", "decimals", "objects"],
)
def test_logged_whole_numbers_beyond_64_bits_are_missing_and_told(tmp_path: Path, values: Any) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
        with pytest.warns(match="beyond 64 bits"):
            run.log_facts([1, 2, 3], u=values)
    facts = Reader(RunLayout(tmp_path / "run")).facts
    assert facts.dtypes == {"u": pl.Int64()}
    assert dict(facts.frame.rows()) == {1: None, 2: 3, 3: 9}
