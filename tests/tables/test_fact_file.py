"""Files of facts as programs write them: the same values whatever the separator, encoding, kind and types."""

import datetime
import decimal
import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xaicli
from xaicli import Run
from xaicli.errors import XaiError
from xaicli.tables.fact_file import read_fact_file

WANTED = {
    "sample_id": [1, 2, 3],
    "zip": ["01234", "00501", "98765"],
    "n": [7, -8, 9],
    "bright": [0.5, None, 1e-3],
    "night": [True, False, True],
    "day": [datetime.date(2026, 1, 31), None, datetime.date(2026, 2, 1)],
    "at": [datetime.datetime(2026, 1, 31, 12, 5), None, datetime.datetime(2026, 1, 31, 12, 6, 7)],
    "words": ['a;b,"c"', "line\nline", "é 日本"],
}
ROWS = [
    ["sample_id", "zip", "n", "bright", "night", "day", "at", "words"],
    ["1", "01234", "7", "0.5", "true", "2026-01-31", "2026-01-31T12:05", '"a;b,""c"""'],
    ["2", "00501", "-8", "", "False", "", "", '"line\nline"'],
    ["3", "98765", "9", "1e-3", "TRUE", "2026-02-01", "2026-01-31 12:06:07", '"é 日本"'],
]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_same_whatever_the_separator_and_encoding(tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    text = end.join(separator.join(row) for row in ROWS) + end
    found = read_fact_file(written(tmp_path / "facts.csv", text.encode(encoding)), "int64")
    assert found.table.to_pydict() == WANTED
    assert (found.left_out, found.notices) == ([], [])


def test_the_types_of_parquet_and_lines_are_theirs(tmp_path: Path) -> None:
    columns = {**WANTED, "tags": [["a"], [], None], "deep": [{"k": 1}, None, {"k": 2}]}
    pq.write_table(pa.table(columns), tmp_path / "facts.parquet")
    found = read_fact_file(tmp_path / "facts.parquet")
    table = found.table.to_pydict()
    assert {name: table[name] for name in WANTED} == WANTED
    assert [value and json.loads(value) for value in table["tags"]] == [["a"], [], None]
    assert [value and json.loads(value) for value in table["deep"]] == [{"k": 1}, None, {"k": 2}]
    assert [words.split(" of ")[0] for words in found.notices] == ["tags", "deep"]

    lines = [{"sample_id": i, "zip": "01", "day": "2026-01-31", "n": n, "b": i > 1} for i, n in ((1, 1), (2, 2.5))]
    text = "\n".join(map(json.dumps, lines))
    for encoding in ("utf-8", "utf-8-sig"):
        found = read_fact_file(written(tmp_path / "facts.jsonl", text.encode(encoding)), "int64")
        assert found.table.to_pydict() == {
            "sample_id": [1, 2],
            "zip": ["01"] * 2,
            "day": [datetime.date(2026, 1, 31)] * 2,
            "n": [1.0, 2.5],
            "b": [False, True],
        }
        assert (found.left_out, found.notices) == ([], [])


@pytest.mark.parametrize(
    ("content", "kind", "ids", "told"),
    [
        ("sample_id\n1\n2.0\n2.5\n\nx\n", "int64", [1, 2], "2 sample ids of f.csv are none of the run's kind (whole"),
        ("sample_id,a\n1,x\n,y\n", "int64", [1], "1 row of f.csv has no sample_id"),
        ("sample_id\n007\nNaN\nnull\n1e5\n", "string", ["007", "NaN", "null", "1e5"], None),
        ("sample_id\n007\n8\n", None, ["007", "8"], None),
        ("sample_id\n7\n8\n", None, [7, 8], None),
    ],
)
def test_ids_are_of_the_runs_kind(
    tmp_path: Path, content: str, kind: str | None, ids: list[object], told: str | None
) -> None:
    found = read_fact_file(written(tmp_path / "f.csv", content), kind)
    assert found.table.to_pydict()["sample_id"] == ids
    assert [reason for _, reason, _ in found.left_out if told and told in reason] == [r for _, r, _ in found.left_out]
    assert bool(found.left_out) == (told is not None)


@pytest.mark.parametrize("ids", [pa.array(["1", "2"]), pa.array([1.0, 2.0]), pa.array([1, 2], pa.uint8())])
def test_ids_of_parquet_are_of_the_runs_kind(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"sample_id": ids, "a": ["x", "y"]}), tmp_path / "f.parquet")
    assert read_fact_file(tmp_path / "f.parquet", "int64").table.to_pydict() == {"sample_id": [1, 2], "a": ["x", "y"]}
    texts = read_fact_file(tmp_path / "f.parquet", "string").table.to_pydict()
    assert texts == {"sample_id": ["1", "2"], "a": ["x", "y"]}


def test_whole_numbers_of_parquet_are_ids_as_they_are(tmp_path: Path) -> None:
    """Nineteen digits fit, too; what fits no int64 is told of."""
    ids = [(1 << 63) - 1, -(1 << 63), None, 7]
    pq.write_table(pa.table({"sample_id": pa.array(ids, pa.int64()), "a": [1, 2, 3, 4]}), tmp_path / "f.parquet")
    for kind in ("int64", None):
        found = read_fact_file(tmp_path / "f.parquet", kind)
        assert found.table.to_pydict() == {"sample_id": [ids[0], ids[1], 7], "a": [1, 2, 4]}
        assert [reason for _, reason, _ in found.left_out] == ["1 row of f.parquet has no sample_id"]
    large = pa.array([(1 << 64) - 1, 3], pa.uint64())
    pq.write_table(pa.table({"sample_id": large, "a": [1, 2]}), tmp_path / "g.parquet")
    found = read_fact_file(tmp_path / "g.parquet", "int64")
    assert found.table.to_pydict() == {"sample_id": [3], "a": [2]}
    assert [n for *_, n in found.left_out] == [1]


@pytest.mark.parametrize(
    ("content", "values", "told"),
    [
        ("sample_id,a,a\n1,x,y\n", {"a": ["x"], "a_2": ["y"]}, "several columns a: the next is called a_2"),
        ("sample_id,a\n1,x,over\n2\n", {"a": ["x", None]}, "1 row of f.csv has more than its 2 columns"),
        ("sample_id;a\n1;0,5\n2;3\n", {"a": [0.5, 3.0]}, "numbers with a comma: 0,5 is read as 0.5"),
        ('sample_id,a\n1,"0,5"\n2,"1,250"\n', {"a": [0.5, 1.25]}, "numbers with a comma: 0,5 is read as 0.5"),
        ('sample_id,a\n1,"0,125"\n2,"1,250"\n', {"a": [0.125, 1.25]}, "numbers with a comma"),
        ('sample_id,a\n1,"1234,500"\n2,"1,250"\n', {"a": [1234.5, 1.25]}, "numbers with a comma"),
        ("sample_id;a\n1;1,250\n2;12,345\n", {"a": [1.25, 12.345]}, "numbers with a comma"),
        (
            'sample_id,a\n1,950\n2,"1,200"\n3,"12,345"\n',
            {"a": ["950", "1,200", "12,345"]},
            "a of f.csv holds '1,200', which may be 1.200 or 1200: kept as text",
        ),
        (
            'sample_id\ta\n1\t"1,200"\n2\t-12,345\n',
            {"a": ["1,200", "-12,345"]},
            "a of f.csv holds '1,200', which may be 1.200 or 1200: kept as text",
        ),
        (
            'sample_id,a\n1,950\n2,"1,200"\n3,"1,234,567"\n',
            {"a": ["950", "1,200", "1,234,567"]},
            "a of f.csv holds '1,200', whose commas may stand between thousands: kept as text",
        ),
        (
            'sample_id,a\n1,950.5\n2,"1,200.25"\n',
            {"a": ["950.5", "1,200.25"]},
            "a of f.csv holds '1,200.25', whose commas may stand between thousands: kept as text",
        ),
        (
            "sample_id;a\n1;1.234,50\n2;0,5\n3;-12.345.678,9\n4;7\n",
            {"a": [1234.5, 0.5, -12345678.9, 7.0]},
            "a of f.csv holds numbers with points and a comma: 1.234,50 is read as 1234.50",
        ),
        ("sample_id;a\n1;1.234.567\n2;2.0.1\n", {"a": ["1.234.567", "2.0.1"]}, None),
        ("sample_id;a\n1;1.234.567\n2;0,5\n", {"a": ["1.234.567", "0,5"]}, None),
        (
            "sample_id,a\n1,n/a\n2,3\n3,-\n",
            {"a": [None, 3, None]},
            "2 values of a in f.csv said NA, null, none or a dash",
        ),
        ("sample_id,a\n1,-\n2,x\n", {"a": ["-", "x"]}, None),
        ('sample_id,a\n1,"1,2,3"\n2,"4,5"\n', {"a": ["1,2,3", "4,5"]}, None),
        (
            "sample_id,a\n1,#DIV/0!\n2,3\n3,#N/A\n",
            {"a": [None, 3, None]},
            "2 values of a in f.csv said NA, null, none or an error of a formula: missing",
        ),
        ("sep=;\r\nsample_id;a\r\n1;0,5\r\n2;1,250\r\n", {"a": [0.5, 1.25]}, "numbers with a comma"),
        ("sep=,\r\nsample_id,a\r\n1,0.5\r\n", {"a": [0.5]}, None),
        ("sample_id,a,\n1,x,\n2,y,\n", {"a": ["x", "y"]}, None),
        (
            ",sample_id,a\n0,1,x\n1,2,y\n",
            {"a": ["x", "y"]},
            "has a column without a name that numbers its rows: left out",
        ),
        (",sample_id,a\n7,1,x\n1,2,y\n", {"": [7, 1], "a": ["x", "y"]}, None),
        (
            "sample_id,a\n1,2024-01-31 10:15:30.123456700\n2,2024-01-31T10:15\n",
            {"a": [datetime.datetime(2024, 1, 31, 10, 15, 30, 123456), datetime.datetime(2024, 1, 31, 10, 15)]},
            None,
        ),
        ("sample_id,a\n1,NA\n2,3\n", {"a": [None, 3]}, "1 value of a in f.csv said NA, null or none: missing"),
        ("sample_id,a\n1,NA\n2,x\n", {"a": ["NA", "x"]}, None),
        (
            "sample_id,a\n1,2026-02-30\n2,2026-02-01\n",
            {"a": ["2026-02-30", "2026-02-01"]},
            "that there is not",
        ),
        (b"sample_id,a\n1,caf\xe9\n", {"a": ["caf\ufffd"]}, "not all UTF-8"),
        (
            "sample_id, a \n 1 ,99999999999999999999\n",
            {"a": ["9" * 20]},
            "beyond 64 bits: kept as text",
        ),
    ],
)
def test_what_is_read_otherwise_is_told(
    tmp_path: Path, content: str | bytes, values: dict[str, list[object]], told: str | None
) -> None:
    found = read_fact_file(written(tmp_path / "f.csv", content), "int64")
    kept = {name: found.table[name] for name in found.table.column_names[1:]}
    seen = {
        name: column.cast(pa.timestamp("us"), safe=False) if pa.types.is_timestamp(column.type) else column
        for name, column in kept.items()
    }
    assert {name: column.to_pylist() for name, column in seen.items()} == values
    assert (told in " | ".join(found.notices)) if told else (found.notices == [])


@pytest.mark.parametrize("content", ["", "\n", "a,b\n1,2\n", "sample_id\n", "sample_id\nx\n"])
def test_a_file_without_samples_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(XaiError):
        read_fact_file(written(tmp_path / "f.csv", content), "int64")


@pytest.mark.parametrize("name", ["facts.csv", "facts.jsonl", "facts.parquet"])
def test_the_recorder_and_questions_read_alike(tmp_path: Path, name: str) -> None:
    """What `Run(facts=)` keeps is what `--facts` shows, also where ids stand as texts."""
    rows = [{"sample_id": "1", "zip": "01234", "tags": ["a"]}, {"sample_id": "2", "zip": "7", "tags": ["b", "c"]}]
    match name:
        case "facts.csv":
            written(tmp_path / name, '\ufeffsample_id;zip;tags\n1;01234;"[""a""]"\n2;7;"[""b"", ""c""]"\n')
        case "facts.jsonl":
            written(tmp_path / name, "\n".join(map(json.dumps, rows)))
        case _:
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    with Run(tmp_path / "kept") as run, Run(tmp_path / "bare") as bare:
        for each in (run, bare):
            each.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the lists are kept as text
            run.log_facts(facts=tmp_path / name)
    kept = xaicli.open_run(tmp_path / "kept").samples(max=2, min=0).data.to_dicts()
    asked = xaicli.open_run(tmp_path / "bare").samples(max=2, min=0, facts=tmp_path / name).data.to_dicts()
    wanted = [{"zip": "7", "tags": '["b", "c"]'}, {"zip": "01234", "tags": '["a"]'}]
    assert [row["facts"] for row in kept] == [row["facts"] for row in asked] == wanted


TIMES: dict[str, tuple[list[str | None], list[object]]] = {
    "days": (["2023-10-07", None, "2024-02-29"], [datetime.date(2023, 10, 7), None, datetime.date(2024, 2, 29)]),
    "times": (
        ["2023-10-07T08:30:00.000", "2023-10-07 08:31", None],
        [datetime.datetime(2023, 10, 7, 8, 30), datetime.datetime(2023, 10, 7, 8, 31), None],
    ),
    "zones": (
        ["2023-10-07T08:30:00Z", None, "2023-10-07T08:30:00+05:30"],
        [
            datetime.datetime(2023, 10, 7, 8, 30, tzinfo=datetime.UTC),
            None,
            datetime.datetime(2023, 10, 7, 3, 0, tzinfo=datetime.UTC),
        ],
    ),
    "said to be missing": (["NA", "2023-10-07", "null"], [None, datetime.date(2023, 10, 7), None]),
    "texts among them": (["2023-10-07", "unknown", None], ["2023-10-07", "unknown", None]),
    "no such day": (["2023-10-07", "2023-02-30", None], ["2023-10-07", "2023-02-30", None]),
    "zeros before": (["0101", "0202", None], ["0101", "0202", None]),
}


@pytest.mark.parametrize("is_odd", [False, True], ids=["of one kind", "with lists"])
@pytest.mark.parametrize("kind", TIMES)
def test_days_and_times_are_read_alike_from_lines_and_from_cells(tmp_path: Path, kind: str, is_odd: bool) -> None:
    """JSON has none but texts; a list elsewhere in the file changes nothing."""
    given, wanted = TIMES[kind]
    rows = [{"sample_id": i, "at": value, **({"tags": ["a", i]} if is_odd else {})} for i, value in enumerate(given)]
    lines = written(tmp_path / "f.jsonl", "\n".join(map(json.dumps, rows)))
    cells = "".join(f"{i},{value or ''}\n" for i, value in enumerate(given))
    found = read_fact_file(lines, "int64")
    same = read_fact_file(written(tmp_path / "f.csv", f"sample_id,at\n{cells}"), "int64")
    assert found.table["at"].to_pylist() == same.table["at"].to_pylist() == wanted
    assert found.table["at"].type == same.table["at"].type
    told = [words.replace("f.jsonl", "f.csv") for words in found.notices if not words.startswith("tags")]
    assert told == same.notices


def test_numbers_written_as_texts_in_lines_are_texts(tmp_path: Path) -> None:
    """JSON has numbers and truth values of its own."""
    rows = [{"sample_id": i, "n": str(i), "x": "0,5", "yes": "true", "big": "1,234,567"} for i in range(3)]
    found = read_fact_file(written(tmp_path / "f.jsonl", "\n".join(map(json.dumps, rows))), "int64")
    assert found.table.drop_columns("sample_id").to_pylist() == [
        {"n": str(i), "x": "0,5", "yes": "true", "big": "1,234,567"} for i in range(3)
    ]
    assert found.notices == []


@pytest.mark.parametrize("way", ["asked", "logged", "opened"])
def test_days_of_lines_are_days_to_questions(tmp_path: Path, way: str) -> None:
    rows = [{"sample_id": i, "day": f"2023-{1 + i % 12:02}-0{1 + i % 9}"} for i in range(24)]
    path = written(tmp_path / "f.jsonl", "\n".join(map(json.dumps, rows)))
    with Run(tmp_path / "run", **({"facts": path} if way == "opened" else {})) as run:
        run.log_samples(sample_id=range(24), label=[0] * 24, loss=[0.5] * 24, mode="eval", epoch=1)
        if way == "logged":
            run.log_facts(facts=path)
    opened = xaicli.open_run(tmp_path / "run")
    facts = {"facts": path} if way == "asked" else {}
    (row,) = opened.labels(where="day >= DATE '2023-06-01'", **facts).data.to_dicts()
    assert row["n"] == sum(line["day"] >= "2023-06-01" for line in rows)


def test_facts_told_before_the_kind_of_ids_is_known_count(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_facts(facts=written(tmp_path / "f.csv", "sample_id,a\n1,x\n2,y\n"))
        run.log_samples(sample_id=["1", "2"], loss=[0.5, 1.5], mode="eval", epoch=1)
    rows = xaicli.open_run(tmp_path / "run").samples(max=2, min=0).data.to_dicts()
    assert [(row["sample_id"], row["facts"]["a"]) for row in rows] == [("2", "y"), ("1", "x")]


@pytest.mark.parametrize("when", ["opened", "before", "killed", "after", "asked"])
@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("f.csv", "sample_id,a\n0.0,x\n1.00,y\n2.0,z\ntotal,3\n", {0: "x", 1: "y", 2: "z"}),
        ("f.csv", "sample_id,a\n 0,x\n+1,y\n2 ,z\ntotal,3\n", {0: "x", 1: "y", 2: "z"}),
        ("f.csv", "sample_id,a\n0,x\n2,y\nabc,z\n2.0,w\n", {0: "x", 2: "w"}),
        ("f.jsonl", '{"sample_id": 0, "a": "x"}\n{"sample_id": 1.0, "a": "y"}\n{"sample_id": "2", "a": "z"}\n', None),
        ("f.parquet", ["0", "1.0", "+2", "x"], {0: "0", 1: "1", 2: "2"}),
    ],
    ids=["floats", "signs and blanks", "twice", "lines", "parquet"],
)
def test_ids_are_read_alike_whenever_a_file_of_facts_is_told(
    tmp_path: Path, name: str, content: str | list[str], wanted: dict[int, str] | None, when: str
) -> None:
    """An id that the run cannot have costs no other, whether the run's kind of ids is known by then or not."""
    file = tmp_path / name
    if isinstance(content, str):
        written(file, content)
    else:
        pq.write_table(pa.table({"sample_id": content, "a": ["0", "1", "2", "3"]}), file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the odd id, where it is known to be one
        run = Run(tmp_path / "run", facts=file if when == "opened" else None)
        if when in ("before", "killed"):
            run.log_facts(facts=file)
        run.log_samples(sample_id=[0, 1, 2], loss=[0.5, 1.5, 2.5], mode="eval", epoch=1)
        if when == "after":
            run.log_facts(facts=file)
        run.flush()
        if when != "killed":
            run.close()
        asked = {"facts": file} if when == "asked" else {}
        found = xaicli.open_run(tmp_path / "run").query("SELECT sample_id, a FROM facts", **asked)
        told = [*found.answer.warnings, *xaicli.open_run(tmp_path / "run").info().answer.warnings]
        run.close()
    assert dict(found.data.rows()) == (wanted or {0: "x", 1: "y", 2: "z"})
    assert any("none of the run's kind" in said for said in told) == (wanted is not None)


def test_texts_that_spell_numbers_are_apart_in_a_run_of_texts(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_facts(facts=written(tmp_path / "f.csv", "sample_id,a\n007,x\n1.0,y\n1,z\n"))
        run.log_samples(sample_id=["007", "1", "1.0"], loss=[0.5, 1.5, 2.5], mode="eval", epoch=1)
    found = xaicli.open_run(tmp_path / "run").query("SELECT sample_id, a FROM facts").data
    assert dict(found.rows()) == {"007": "x", "1.0": "y", "1": "z"}


def test_lists_that_are_facts_are_their_json_and_what_names_nothing_is_told(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3], tokens=[["a", "b"], ["c"], None], box=[{"x": 1}, [2], None])
        with pytest.warns(match="no sample_id"):
            run.log_facts(None, camera=["front"])
        with pytest.warns(match="no fact is named"):
            run.log_facts([1])
        assert run.stats()["records_dropped"] == 2
    kept = pq.read_table(tmp_path / "run" / "facts").to_pydict()
    assert [value and json.loads(value) for value in kept["tokens"]] == [["a", "b"], ["c"], None]
    assert [value and json.loads(value) for value in kept["box"]] == [{"x": 1}, [2], None]


def test_times_with_a_zone_are_moments(tmp_path: Path) -> None:
    rows = "sample_id,at\n1,2026-01-31T12:05:00+02:00\n2,2026-01-31 10:05Z\n3,2026-01-31T05:05:00-0500\n4,\n"
    found = read_fact_file(written(tmp_path / "facts.csv", rows), "int64").table.to_pydict()["at"]
    assert found == [datetime.datetime(2026, 1, 31, 10, 5, tzinfo=datetime.UTC)] * 3 + [None]
    mixed = written(tmp_path / "mixed.csv", "sample_id,at\n1,2026-01-31T12:05:00+02:00\n2,2026-01-31T12:05:00\n")
    assert read_fact_file(mixed, "int64").table.to_pydict()["at"] == [
        "2026-01-31T12:05:00+02:00",
        "2026-01-31T12:05:00",
    ]


def test_bytes_of_parquet_are_their_text(tmp_path: Path) -> None:
    columns = {"sample_id": [1, 2], "source": [b"web", "é".encode()], "took": [datetime.timedelta(days=1), None]}
    pq.write_table(pa.table(columns), tmp_path / "facts.parquet")
    found = read_fact_file(tmp_path / "facts.parquet").table.to_pydict()
    assert (found["source"], found["took"]) == (["web", "é"], ["1 day, 0:00:00", None])


DECIMALS = ["3.30", "0.10", "0.70", "1.15", "-12345678901234.56", "0.00"]


def test_decimals_are_the_nearest_numbers_in_each_way_they_come(tmp_path: Path) -> None:
    """Of a Parquet file recorded, of one asked with, and as Python's own; found by what people write."""
    given = [decimal.Decimal(text) for text in DECIMALS]
    ids = list(range(len(given)))
    file = tmp_path / "f.parquet"
    pq.write_table(pa.table({"sample_id": ids, "gain": pa.array(given, pa.decimal128(20, 2))}), file)
    for name in ("file", "logged", "asked"):
        with Run(tmp_path / name, facts=file if name == "file" else None) as run:
            if name == "logged":
                run.log_facts(ids, gain=given)
            run.log_samples(sample_id=ids, loss=[1.0] * len(ids), mode="eval", epoch=1)
        asked = file if name == "asked" else None
        opened = xaicli.open_run(tmp_path / name)
        known = opened.samples(ids=ids, max=0, min=0, facts=asked).data
        assert [row["facts"]["gain"] for row in known.sort("sample_id").to_dicts()] == [float(v) for v in given]
        for engine in ("polars", "duckdb"):
            for at, text in enumerate(DECIMALS):
                found = opened.samples(max=6, min=0, facts=asked, where=f"gain = {text}", engine=engine).data
                assert found["sample_id"].to_list() == [at], (name, engine, text)


def test_numbers_of_single_precision_are_what_people_write(tmp_path: Path) -> None:
    given = np.array([3.3, 0.1, 16777216, np.nan, -np.inf], np.float32)
    wanted = [3.3, 0.1, 16777216.0, None, -np.inf]
    pq.write_table(pa.table({"sample_id": range(5), "gain": given}), tmp_path / "f.parquet")
    assert read_fact_file(tmp_path / "f.parquet", "int64").table["gain"].to_pylist() == wanted
    with Run(tmp_path / "run") as run:
        run.log_facts(range(5), gain=given, each=list(given))
        run.log_samples(sample_id=range(5), loss=[1.0] * 5, mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for condition in ("gain = 3.3", "each = 3.3"):
        assert opened.samples(max=5, min=0, where=condition).data["sample_id"].to_list() == [0]
    random = np.frombuffer(np.random.default_rng(0).bytes(40_000), np.float32)
    pq.write_table(pa.table({"sample_id": range(10_000), "gain": random}), tmp_path / "g.parquet")
    kept = read_fact_file(tmp_path / "g.parquet", "int64").table["gain"].to_numpy()
    assert np.array_equal(kept.astype(np.float32), random, equal_nan=True)


def test_what_was_told_while_recording_is_told_later(tmp_path: Path) -> None:
    file = written(tmp_path / "f.csv", 'sample_id,price\n1,950\n2,"1,200"\n')
    with pytest.warns(match="kept as text"):
        run = Run(tmp_path / "run", facts=file)
    with run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1)
    said = "2 facts were recorded, but price of f.csv holds '1,200', which may be 1.200 or 1200: kept as text"
    assert said in xaicli.open_run(tmp_path / "run").info().answer.warnings


def test_objects_of_json_are_their_own_json(tmp_path: Path) -> None:
    rows = [{"x": 1, "at": [1, 2.5]}, {"y": {"z": None}}, {}]
    lines = [json.dumps({"sample_id": at, "a": row, "b": [at] * at}) for at, row in enumerate(rows)]
    found = read_fact_file(written(tmp_path / "f.jsonl", "\n".join(lines)), "int64")
    assert found.table["a"].to_pylist() == [json.dumps(row) for row in rows]
    assert found.table["b"].to_pylist() == ["[]", "[1]", "[2, 2]"]
    assert [said.partition(" ")[0] for said in found.notices] == ["a", "b"]


def test_a_name_spelt_otherwise_is_hinted_at(tmp_path: Path) -> None:
    with pytest.raises(XaiError) as refused:
        read_fact_file(written(tmp_path / "f.csv", "Sample_ID,a\n1,x\n"))
    assert refused.value.hint == "its columns: 'Sample_ID', 'a'; call Sample_ID sample_id"


@pytest.mark.parametrize("step", [1, 3])
def test_ids_that_pandas_writes_as_a_range_are_read(tmp_path: Path, step: int) -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.RangeIndex(4, 4 + 3 * step, step, name="sample_id")
    pandas.DataFrame({"a": ["x", "y", "z"]}, index=index).to_parquet(tmp_path / "f.parquet")
    assert pq.read_schema(tmp_path / "f.parquet").names == ["a"]
    found = read_fact_file(tmp_path / "f.parquet", "int64").table
    assert found.to_pydict() == {"sample_id": [4, 4 + step, 4 + 2 * step], "a": ["x", "y", "z"]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("between", [", ", ",\n"])
def test_an_array_of_json_is_no_json_lines(tmp_path: Path, indent: int | None, between: str) -> None:
    rows = [{"sample_id": 1, "a": "x"}, {"sample_id": 2, "a": "y"}]
    text = "[\n" + between.join(json.dumps(row) for row in rows) + "\n]\n"
    (tmp_path / "f.jsonl").write_text(json.dumps(rows, indent=indent) if indent else text)
    with pytest.raises(XaiError, match="is an array of JSON, not JSON lines") as told:
        read_fact_file(tmp_path / "f.jsonl", "int64")
    assert "an object a line" in str(told.value.hint)
    (tmp_path / "f.jsonl").write_text("[1, 2]\n" + "".join(json.dumps(row) + "\n" for row in rows))
    found = read_fact_file(tmp_path / "f.jsonl", "int64")
    assert found.table.to_pylist() == rows
    assert [n for _, _, n in found.left_out] == [1]


@pytest.mark.parametrize(
    ("values", "kept", "said"),
    [
        (["x", {"k": 1}], ["x", '{"k": 1}'], "lists or objects among other values"),
        ([{"k": 1}, "x"], ['{"k": 1}', "x"], "lists or objects among other values"),
        ([3, [1], None], ["3", "[1]", None], "lists or objects among other values"),
        ([[1], {"k": 1}], ["[1]", '{"k": 1}'], "neither texts, numbers nor dates"),
    ],
)
def test_lists_and_objects_that_become_text_are_told_whatever_they_stand_among(tmp_path, values, kept, said):
    lines = [json.dumps({"sample_id": number, "a": value}) for number, value in enumerate(values)]
    found = read_fact_file(written(tmp_path / "f.jsonl", "\n".join(lines)), "int64")
    assert found.table["a"].to_pylist() == kept
    assert found.notices == [f"a of f.jsonl holds {said}: kept as text"]


LINE = {"f.csv": b"sample_id,a\n1,2\n", "f.jsonl": b'{"sample_id": 1, "a": 2}\n'}


@pytest.mark.parametrize("name", LINE)
def test_threads_of_arrow_are_given_nothing_of_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They let go of it after the call, and a Python object that is let go of while Python ends aborts the process."""
    from pyarrow import csv
    from pyarrow import json as lines

    given: list[tuple[bytes, bool]] = []

    def noted(known: Any, stream: Any, **how: Any) -> Any:
        assert isinstance(stream, pa.BufferReader)
        buffer = stream.read_buffer()
        given.append((buffer.to_pybytes(), buffer.parent.is_mutable))  # Python's bytes are not mutable
        stream.seek(0)
        return known(stream, **how)

    for module, call in ((csv, "read_csv"), (lines, "read_json")):
        monkeypatch.setattr(module, call, functools.partial(noted, getattr(module, call)))
    assert read_fact_file(written(tmp_path / name, LINE[name]), "int64").table["a"].to_pylist() == [2]
    assert given == [(LINE[name], True)]
