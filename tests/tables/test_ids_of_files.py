"""Ids as people really have them, in every kind of file: each place that reads one means the same samples."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.cli import main
from xaicli.cli.options import ids_of_text, read_ids
from xaicli.dynamics.truth import read_truth
from xaicli.errors import XaiError
from xaicli.sources.pictures import Preparation
from xaicli.sources.table import open_table
from xaicli.tables.cells import read_cells
from xaicli.tables.fact_file import read_fact_file
from xaicli.tables.lists import read_list

ODD = [
    "",
    " l",
    "l",
    "a\nb",
    "ab",
    "\x0bv",
    "v",
    "\x85n",
    "\u2028s",
    "'=1",
    "=1",
    '"q"',
    "# r",
    "a,b",
    "a;b",
    "7",
    "007",
]
WRONG = ODD[::2]
RIGHT = ODD[1::2]
KINDS = ("csv", "parquet", "json", "jsonl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    root = tmp_path_factory.mktemp("odd") / "run"
    with xaicli.Run(root, label_names=["cat", "dog"]) as made:
        made.log_samples(
            sample_id=ODD,
            label=[0] * len(ODD),
            prediction=[int(i in WRONG) for i in ODD],
            loss=[9.0 if i in WRONG else 0.0 for i in ODD],
            mode="eval",
            epoch=1,
        )
    return xaicli.open_run(root)


@pytest.fixture(scope="module")
def lists(run: xaicli.RunReader, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `xai select -o` writes of the wrong samples, by kind."""
    folder = tmp_path_factory.mktemp("lists")
    for kind in KINDS:
        target = str(folder / f"wrong.{kind}")
        assert main(["select", str(run.reader().layout.root), "--rule", "loss_mean > 1", "-o", target, "-q"]) == 0
    return {kind: folder / f"wrong.{kind}" for kind in KINDS}


@pytest.fixture(scope="module")
def fixed(run: xaicli.RunReader, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `xai relabel apply -o` writes: every wrong sample is a dog."""
    folder = tmp_path_factory.mktemp("fixed")
    pl.DataFrame({"sample_id": WRONG, "label": ["dog"] * len(WRONG)}).write_parquet(folder / "people.parquet")
    root = str(run.reader().layout.root)
    for kind in KINDS:
        target = str(folder / f"fixed.{kind}")
        assert main(["relabel", "apply", root, str(folder / "people.parquet"), "-o", target, "-q"]) == 0
    return {kind: folder / f"fixed.{kind}" for kind in KINDS}


def test_what_people_wrote_is_not_replaced(
    run: xaicli.RunReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(run.reader().layout.root)
    file = tmp_path / "corrections.csv"
    file.write_text("sample_id,label\n" + "".join(f"{one},dog\n" for one in WRONG))
    before = file.read_bytes()
    (tmp_path / "link.csv").symlink_to(file)
    for target in (file, tmp_path / "link.csv", tmp_path):
        assert main(["relabel", "apply", root, str(file), "-o", str(target), "-q"]) == 2
        said = capsys.readouterr().err
        assert "is read by the same command" in said
        assert "hint: -o FILE" in said
    assert file.read_bytes() == before


SELECT = "select --mode eval --rule hardest --n 2"
EXPORT = "relabel export --mode eval"


@pytest.mark.parametrize(
    ("words", "file", "other"),
    [
        (f"{SELECT} --facts f.csv -o f.csv", "f.csv", "-o other.csv"),
        (f"{SELECT} --facts {{here}}/f.csv -o ./f.csv", "f.csv", "-o other.csv"),
        (f"{SELECT} --facts f-random.csv -o f.csv", "f-random.csv", "-o other.csv"),
        (f"{SELECT} --facts out/select-random.csv -o out --format csv", "out/select-random.csv", "-o other"),
        (f"{SELECT} --facts out/link.csv -o out --format csv", "out/select.csv", "-o other"),
        (f"{EXPORT} --ids @f.csv --to csv -o f.csv", "f.csv", "-o other.csv"),
        (f"{EXPORT} --ids @out/relabel-csv.csv --to csv -o out", "out/relabel-csv.csv", "-o other"),
        (f"{EXPORT} --ids @{{run}}/reports/relabel-csv.csv --to csv", "{run}/reports/relabel-csv.csv", "-o other"),
        (f"{EXPORT} --ids @out/relabel-export.csv --format csv -o out", "out/relabel-export.csv", "-o other"),
        (f"{EXPORT} --ids 7 --facts f.csv --to label-studio -o f.json", None, "-o other.json"),
        ("relabel apply out/corrections.csv -o out", "out/corrections.csv", "-o other"),
        ("relabel apply out/relabel-apply.csv -o out --format csv", "out/relabel-apply.csv", "-o other"),
        ("relabel apply {run}/reports/corrections.csv", "{run}/reports/corrections.csv", "-o other"),
        ("relabel apply people.csv --facts f.csv -o f.csv", "f.csv", "-o other.csv"),
        ("relabel apply voxels -o voxels/labels.json", "voxels/labels.json", "-o other.json"),
        ("check --rules r.toml --junit r.toml", "r.toml", "--junit other.xml"),
        ("check --rules r.toml --junit xai.toml", "xai.toml", "--junit other.xml"),
        ("check --rules listed.toml --junit list.txt", "list.txt", "--junit other.xml"),
        ("export --mode eval --facts f.csv -o f.csv", "f.csv", "-o other.csv"),
        ("export --mode eval --facts f.csv --format parquet,csv -o f.parquet", "f.csv", "-o other.csv"),
        ("dynamics --mode eval --truth out/dynamics.csv -o out --format csv", "out/dynamics.csv", "-o other"),
    ],
)
def test_no_command_replaces_what_it_reads(
    run: xaicli.RunReader,
    words: str,
    file: str | None,
    other: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "run"
    shutil.copytree(run.reader().layout.root, root)
    monkeypatch.setenv("XAI_RUN", str(root))
    Path("f.csv").write_text("sample_id,size\nl,1\n7,2\n")
    Path("r.toml").write_text('[[rule]]\nmetric = "loss"\nstat = "max"\nmost = 100\nmode = "eval"\n')
    Path("listed.toml").write_text('[[rule]]\nsamples = "list.txt"\nmost = 9\nmode = "eval"\n')
    Path("list.txt").write_text("l\n7\n")
    Path("people.csv").write_text("sample_id,label\nl,dog\n")
    Path("xai.toml").write_text("quiet = true\n")
    places = {"here": str(tmp_path), "run": str(root)}
    typed = [word.format(**places) for word in words.split()]
    made = Path((file or "f.csv").format(**places))
    made.parent.mkdir(parents=True, exist_ok=True)
    if not made.exists():
        is_json = made.suffix == ".json"
        made.write_text('{"classes": [], "labels": {"l": "dog"}}' if is_json else "sample_id,label\nl,dog\n7,dog\n")
    if "link.csv" in words:
        Path("out/link.csv").symlink_to(made.resolve())
    before = made.read_bytes()
    if file is not None:
        assert main(typed) == 2
        said = capsys.readouterr().err
        assert "is read by the same command, and would be replaced" in said
        assert f"hint: {other.split()[0]} FILE: name another file" in said
        assert made.read_bytes() == before
    for name in ("-o", "--junit"):
        if name in typed:
            del typed[typed.index(name) : typed.index(name) + 2]
    for _ in range(2):  # again: what only the command before wrote is replaced
        assert main([*typed, *other.split()]) == 0
    assert made.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_no_correction_is_no_truth(kind: str, run: xaicli.RunReader, tmp_path: Path) -> None:
    root = str(run.reader().layout.root)
    (tmp_path / "people.csv").write_text("sample_id,label\nl,\n")
    target = tmp_path / f"fixed.{kind}"
    assert main(["relabel", "apply", root, str(tmp_path / "people.csv"), "-o", str(target), "-q"]) == 0
    with pytest.raises(XaiError, match="names no sample: it has no row"):
        read_truth(target, run.reader())


@pytest.mark.parametrize("kind", KINDS)
def test_listed_samples_are_those_that_were_chosen(
    run: xaicli.RunReader, lists: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lists[kind]
    root = str(run.reader().layout.root)
    assert sorted(read_ids([f"@{file}"]) or []) == sorted(WRONG)
    capsys.readouterr()
    assert main(["samples", root, "--ids", f"@{file}", "--max", "0", "--min", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sorted(row["sample_id"] for row in answer["rows"]) == sorted(WRONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = xaicli.Table([(np.zeros(1), n) for n in range(len(ODD))], ids=ODD, select=file)
    assert [table[n][1] for n in range(len(table))] == [n for n, i in enumerate(ODD) if i in WRONG]
    assert main(["check", root, "--rule", f"no sample of {file} is wrong", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["value"], row["n"], sorted(row["failing"])) == (len(WRONG), len(WRONG), sorted(WRONG))


@pytest.mark.parametrize("kind", KINDS)
def test_corrections_are_read_back_as_they_were_written(
    run: xaicli.RunReader, fixed: dict[str, Path], kind: str
) -> None:
    again = run.relabel_apply(fixed[kind])
    assert dict(again.data.select("sample_id", "label").iter_rows()) == dict.fromkeys(WRONG, 1)
    assert again.answer.extra["left_out"] == []
    truth = read_truth(fixed[kind], run.reader(), told := [])
    assert (dict(truth.select("sample_id", "label").iter_rows()), told) == (dict.fromkeys(WRONG, 1), [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = xaicli.Table([(np.zeros(1), 0) for _ in ODD], ids=ODD, relabel=fixed[kind])
    assert [table[n][1] for n in range(len(ODD))] == [int(i in WRONG) for i in ODD]


def test_facts_and_data_of_odd_ids(tmp_path: Path) -> None:
    rows = [{"sample_id": i, "x": float(n), "note": f"n{n}"} for n, i in enumerate(ODD)]
    for name, hole in (("whole", []), ("holes", ["1.0"])):  # the second has rows of several lengths
        file = tmp_path / f"{name}.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, quoting=csv.QUOTE_ALL)
            writer.writerow(["sample_id", "width", "note"])
            writer.writerows([f"'{row['sample_id']}" if row["sample_id"] in ("=1", "'=1") else row["sample_id"],
                              row["x"], row["note"]] for row in rows)  # fmt: skip
            if hole:
                out.write(",1.0\r\n")
        facts = read_fact_file(file, "string")
        assert facts.table["sample_id"].to_pylist() == ODD
        assert len(facts.left_out) == len(hole)
    source = open_table(tmp_path / "whole.csv", Preparation(), strict=True)
    for n, sample_id in enumerate(ODD):
        assert source.take([sample_id]).arrays[""].ravel().tolist() == [n]


def test_a_row_of_data_without_an_id_is_no_sample_of_the_empty_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('sample_id,width\n,1\n"",2\n007,3\n')
    source = open_table(tmp_path / "t.csv", Preparation(), strict=False)
    assert source.take(9).sample_id == ["", "007"]
    assert source.take([""]).arrays[""].ravel().tolist() == [2]
    assert any("1 row of" in note for note in source.take(9).skipped)
    (tmp_path / "zeros.csv").write_text("sample_id,width\n007,1\n7,2\n")
    source = open_table(tmp_path / "zeros.csv", Preparation(), strict=True)
    assert source.take(["007", "7"]).arrays[""].ravel().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "separator", "names", "columns"),
    [
        ('a,b\n"",\n,""\n', ",", ("a", "b"), [["", None], [None, ""]]),
        ('a,b\r\n"x\r\ny","1""2"\r\n', ",", ("a", "b"), [["x\r\ny"], ['1"2']]),
        ('a,b\n1\n"",2,3\n', ",", ("a", "b"), [["1", ""], [None, "2"]]),
        ('"a\nb";c\n \v;\u2028\n', ";", ("a\nb", "c"), [[" \v"], ["\u2028"]]),
        ('a, b\n1, "x, y"\n2,  z\n', ",", ("a", " b"), [["1", "2"], ["x, y", "z"]]),
        ("a,b", ",", ("a", "b"), [[], []]),
    ],
)
def test_cells_are_what_stands_there(text: str, separator: str, names: Any, columns: Any) -> None:
    found = read_cells(text, separator)
    assert tuple(name.lstrip() for name in found.names) == tuple(name.lstrip() for name in names)
    assert [column.to_pylist() for column in found.columns] == columns


def test_rows_of_several_lengths_are_counted() -> None:
    found = read_cells("a,b\n1\n1,2\n1,2,3\n1,2,3,4\n", ",")
    assert (found.short, found.long) == (1, 2)


def test_a_list_of_text_is_one_id_a_line() -> None:
    assert ids_of_text(' a \r\n\r\n"b c"\n"x, y"\rp,q\n\x85n\u2028m\n""\n', "-") == [
        "a",
        "b c",
        "x, y",
        "p,q",
        "n\u2028m",
        "",
    ]
    assert ids_of_text('label;sample_id\n1;" l"\n2;\n3;""\n', "-") == [" l", ""]


def test_a_list_without_ids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"label": 1}]')
    with pytest.raises(XaiError, match="no column sample_id"):
        read_ids([f"@{tmp_path / 'x.json'}"])


def test_an_apostrophe_is_taken_off_only_where_the_file_is_guarded(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("sample_id,label\n'=1,1\n''=1,0\n")
    assert read_list(file).ids == ("=1", "'=1")
    file.write_text("sample_id,label\n'=1,1\n=1,0\n")  # a bare formula: nobody guarded these
    assert read_list(file).ids == ("'=1", "=1")


def test_what_label_studio_exports_keeps_its_apostrophes(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    file.write_text("annotation_id,annotator,id,sample_id,label\n1,ann,1,'=1,dog\n")
    found = run.relabel_apply(file)
    assert dict(found.data.select("sample_id", "label").iter_rows()) == {"'=1": 1}


def test_a_blank_id_beside_a_picture_is_that_of_the_picture(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as made:
        made.log_facts(["", "b"], path=["p/0.png", "p/1.png"])
        made.log_samples(sample_id=["", "b"], label=[0, 0], loss=[1.0, 2.0], mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    rows = [{"sample_id": "", "path": "p/1.png", "label": "dog"}]
    (tmp_path / "people.json").write_text(json.dumps(rows))
    assert opened.relabel_apply(tmp_path / "people.json").data["sample_id"].to_list() == ["b"]
    (tmp_path / "people.json").write_text(json.dumps([{"sample_id": "  ", "label": "dog"}, *rows]))
    assert opened.relabel_apply(tmp_path / "people.json").data["sample_id"].to_list() == ["b"]


def test_rows_without_an_id_are_told_by_a_check(
    run: xaicli.RunReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "golden.csv"
    file.write_text("sample_id,label\nl,0\n,0\n")
    capsys.readouterr()
    assert main(["check", str(run.reader().layout.root), "--rule", f"no sample of {file} is wrong", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["value"], row["n"]) == (1, 1)
    assert row["reason"].endswith("1 row of " + str(file) + " without an id: not judged")
