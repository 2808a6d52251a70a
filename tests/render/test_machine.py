"""JSON and CSV of an answer."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report_answers import labels_result
from xaicli.answer import Answer, Counts
from xaicli.render.machine import dump, rows_json, to_csv, to_json


def test_the_object_has_the_fixed_keys_and_null_for_what_is_not_finite() -> None:
    data = pl.DataFrame({"a": [1.5, math.nan, -math.inf], "h": [[{"v": math.nan}], [{"v": 0.1}], []]})
    answer = Answer(
        "samples", "runs/a", {"mode": ("eval",)}, data, Counts(rows=3, damaged=()), ("w",), {"truth": math.inf}
    )
    assert json.loads(to_json(answer, ["x.html"])) == {
        "schema_version": 1,
        "command": "samples",
        "run": "runs/a",
        "selection": {"mode": ["eval"]},
        "warnings": ["w"],
        "outputs": ["x.html"],
        "counts": {"rows": 3, "damaged": []},
        "truth": None,
        "rows": [{"a": 1.5, "h": [{"v": None}]}, {"a": None, "h": [{"v": 0.1}]}, {"a": None, "h": []}],
    }


def test_a_float32_is_written_as_the_number_it_is() -> None:
    frame = pl.DataFrame({"a": pl.Series([0.1], dtype=pl.Float32)})
    assert json.loads(rows_json(frame)) == [{"a": float(frame["a"][0])}]


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_any_plain_value_becomes_json(value: object) -> None:
    text = dump(value)
    assert "NaN" not in text or "NaN" in json.dumps(value)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_no_rows_and_no_columns_are_an_empty_list() -> None:
    assert rows_json(pl.DataFrame()) == rows_json(pl.DataFrame({"a": []})) == "[]"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@x", "\tx", "\rx"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert list(csv.reader(io.StringIO(to_csv([{"a": text}]), newline="")))[1] == ["'" + text]


def test_negative_numbers_and_number_like_ids_stay_as_they_are() -> None:
    assert to_csv([{"a": -1.5, "b": "-17"}]) == "a,b\r\n-1.5,-17\r\n"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).map(lambda s: "t" + s), min_size=1, max_size=5))
def test_csv_cells_come_back(texts: list[str]) -> None:
    read = list(csv.reader(io.StringIO(to_csv([{"a": t} for t in texts]), newline="")))
    assert [row[0] for row in read[1:]] == texts


def test_a_frame_gives_the_same_csv_as_its_rows() -> None:
    frame = pl.DataFrame(
        {
            "a": ["=1", "-2.5", "x,y", 'q"q', "", None, "line\nbreak"],
            "f": [1.5, math.nan, math.inf, -0.25, 0.0, None, 0.125],
            "b": [True, False, None, True, True, True, True],
            "i": [1, 2, 3, None, 5, 6, 7],
            "=h": ["s"] * 7,
        }
    )
    by_frame, by_rows = (list(csv.reader(io.StringIO(to_csv(r), newline=""))) for r in (frame, frame.to_dicts()))
    assert by_frame == by_rows
    assert by_frame[0] == ["a", "f", "b", "i", "'=h"]
    assert [row[0] for row in by_frame[1:3]] == ["'=1", "-2.5"]


def test_an_empty_text_is_quoted_and_nothing_is_not() -> None:
    rows = [{"ds": "", "site": None, "n": 1.5}, {"ds": "a,b", "site": "", "n": math.nan}]
    written = 'ds,site,n\r\n"",,1.5\r\n"a,b","",\r\n'
    assert to_csv(rows) == to_csv(pl.DataFrame(rows)) == written
    nested = [{**row, "facts": {"camera": camera}} for row, camera in zip(rows, ("", None), strict=True)]
    assert to_csv(nested) == 'ds,site,n,camera\r\n"",,1.5,""\r\n"a,b","",,\r\n'


def test_json_draws_nothing() -> None:
    code = (
        "import sys, report_answers; report_answers.labels_result().to_json();"
        "print([m for m in ('matplotlib', 'markupsafe', 'torch', 'rich') if m in sys.modules])"
    )
    tests = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tests)
    assert out.stdout.strip() == "[]"


def test_a_result_writes_the_same_rows_to_json_and_csv(tmp_path: Path) -> None:
    result = labels_result(labels=2, epochs=3)
    paths = result.save(tmp_path, ["csv", "json"])
    rows = json.loads((tmp_path / "labels.json").read_text())["rows"]
    with (tmp_path / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [path.name for path in paths] == ["labels.csv", "labels.json"]
    assert [float(row["mean"]) for row in table] == [row["mean"] for row in rows]
    assert [float(row["std_high"]) for row in table] == [row["bounds"]["std"][1] for row in rows]


def test_rows_whose_facts_are_not_known_have_no_column_of_that_name() -> None:
    assert to_csv([{"a": 1, "facts": None, "b": 2}]) == "a,b\r\n1,2\r\n"
    assert to_csv([{"a": 1, "facts": None}, {"a": 2, "facts": {"camera": "x"}}]) == "a,camera\r\n1,\r\n2,x\r\n"
