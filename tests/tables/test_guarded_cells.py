"""Texts that a spreadsheet would run: guarded by all that writes CSV, and whole again in all that reads it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xaicli
from xaicli.api.decisions import write_list
from xaicli.cli.options import ids_of_text
from xaicli.dynamics.truth import read_truth
from xaicli.importers.importing import import_run
from xaicli.render.machine import csv_parts
from xaicli.tables.cells import csv_line
from xaicli.tables.fact_file import read_fact_file
from xaicli.tables.lists import read_list
from xaicli.tables.rows import read_file
from xaicli.words import guarded, unguarded

IDS = ("=1+1", "'=1+1", "''=1+1", "-x", "+x", "@x", "\tx", "'x", "'", "-", "-5", "+1.5e3", "-1,5", "-1_0", "-inf", "x")
GUARDED = {"=1+1", "'=1+1", "''=1+1", "-x", "+x", "@x", "\tx", "-", "-1,5", "-1_0", "-inf"}


def of_csv(text: str, column: str = "sample_id") -> list[str]:
    return [row[column] for row in csv.DictReader(io.StringIO(text, newline=""))]


def written(ids: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": ids, "label": [i % 2 for i in range(len(ids))]})


def test_every_writer_guards_the_same():
    right = [f"'{text}" if text in GUARDED else text for text in IDS]
    frame = written(IDS)
    assert of_csv("".join(csv_parts(frame))) == right
    assert of_csv("".join(csv_parts(frame.to_dicts()))) == right
    assert next(csv.reader(io.StringIO(csv_line(IDS), newline=""))) == right


def test_an_export(tmp_path):
    run = recorded(tmp_path / "run")
    run.export(tmp_path / "rows.csv", format="csv")
    assert of_csv((tmp_path / "rows.csv").read_text()) == [f"'{text}" if text in GUARDED else text for text in NAMED]


NAMED = tuple(text for text in IDS if text.strip() == text)


def recorded(root: Path):
    with xaicli.Run(root) as run:
        run.log_samples(
            sample_id=list(NAMED),
            label=[i % 2 for i in range(len(NAMED))],
            loss=np.arange(float(len(NAMED))),
            mode="eval",
            epoch=1,
        )
    return xaicli.open_run(root)


def test_every_reader_takes_them_off(tmp_path):
    frame = written(IDS)
    file = write_list(frame, tmp_path / "list.csv")
    assert read_list(file).ids == IDS
    assert read_file(file).table["sample_id"].to_pylist() == list(IDS)
    assert read_fact_file(file, "string").table["sample_id"].to_pylist() == list(IDS)
    named = write_list(written(NAMED), tmp_path / "named.csv")
    assert ids_of_text(named.read_bytes(), "@named.csv") == list(NAMED)
    truth = read_truth(named, recorded(tmp_path / "run").reader(), [])
    assert set(truth["sample_id"]) == set(NAMED)


def test_a_list_finds_its_own_samples(tmp_path):
    file = write_list(written(("=1+1", "'-x")), tmp_path / "list.csv")
    assert list(read_list(file).rows(["'=1+1", "=1+1", "-x", "'-x"])) == [1, 3]


def test_facts_and_their_names(tmp_path):
    frame = pl.DataFrame({"sample_id": ["=a", "b"], "-note": ["@home", "'@home"]})
    (tmp_path / "facts.csv").write_text("".join(csv_parts(frame)))
    table = read_fact_file(tmp_path / "facts.csv").table
    assert table.to_pydict() == {"sample_id": ["=a", "b"], "-note": ["@home", "'@home"]}


def test_a_run_out_and_in_again(tmp_path):
    recorded(tmp_path / "run").export(tmp_path / "rows.csv", format="csv")
    import_run(tmp_path / "rows.csv", tmp_path / "again")
    found = xaicli.open_run(tmp_path / "again").samples(max=99, min=0, mode="eval").data
    assert dict(found.select("sample_id", "score").iter_rows()) == {text: float(i) for i, text in enumerate(NAMED)}


@pytest.mark.parametrize("text", NAMED)
def test_corrections_by_id(tmp_path, text):
    opened = recorded(tmp_path / "run")
    frame = pl.DataFrame({"sample_id": [text], "label": [1 - NAMED.index(text) % 2]})
    result = opened.relabel_apply([write_list(frame, tmp_path / "fixed.csv")])
    assert result.data["sample_id"].to_list() == [text]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.from_regex(r"'*[=+\-@\t\r]?-?[0-9.e]*"))
def test_any_text_comes_back_from_a_cell(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert guarded(text) in (text, f"'{text}")


def test_a_line_of_a_table_tells_empty_text_from_what_is_missing() -> None:
    assert csv_line(["", None, 0, False, -1.5, "a"]) == '"",,0,False,-1.5,a\r\n'
    assert csv_line(["=1+1", "-3", 'say "a,b"', "two\nlines"]) == '\'=1+1,-3,"say ""a,b""","two\nlines"\r\n'
    assert csv_line([None]) == '""\r\n', "a line of nothing is a line"
