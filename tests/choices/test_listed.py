"""A list that says where its samples were recorded names rows, not ids alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xaicli

PLACES = [("train", ""), ("eval", "x"), ("eval", "y")]
WRONG = {("train", ""): {0, 1}, ("eval", "x"): {2, 3}, ("eval", "y"): {4, 5}}
"""Samples 0 to 7 are in all three, and wrong in one alone; 8 is in eval x only and right."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listed") / "run"
    with xaicli.Run(path, label_names=["a", "b"]) as run:
        for epoch in (1, 2):
            for place in PLACES:
                ids = range(9 if place == ("eval", "x") else 8)
                labels = [one % 2 for one in ids]
                taken = [1 - one % 2 if one in WRONG[place] else one % 2 for one in ids]
                losses = [float(one) for one in ids]
                mode, ds_id = place
                run.log_samples(
                    sample_id=ids, label=labels, prediction=taken, loss=losses, mode=mode, ds_id=ds_id, epoch=epoch
                )
    return path


def chosen(xai: Any, run: Path, file: Path, *options: str) -> Path:
    """What `xai select` writes."""
    status, _, err = xai("select", run, *options, "-o", file, "-q")
    assert status == 0, err
    return file


def checked(xai: Any, run: Path, file: Path, *options: str) -> tuple[int, list[tuple[Any, ...]], list[str]]:
    status, said, _ = xai("check", run, "--rule", f"no sample of {file} is wrong", *options, "--json")
    found = json.loads(said)
    rows = [(row["mode"], row["ds_id"], row["outcome"], sorted(row["failing"]), row["n"]) for row in found["rows"]]
    return status, rows, found["warnings"]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
def test_a_check_is_about_the_rows_that_select_chose(xai: Any, run: Path, tmp_path: Path, kind: str) -> None:
    right_in_x = chosen(xai, run, tmp_path / f"x.{kind}", "--rule", "correct = true", "--ds-id", "x")
    assert checked(xai, run, right_in_x)[:2] == (0, [("eval", "x", "passed", [], 7)])
    both = chosen(xai, run, tmp_path / f"both.{kind}", "--rule", "correct = true")
    assert checked(xai, run, both)[:2] == (0, [("eval", "x", "passed", [], 7), ("eval", "y", "passed", [], 6)])
    wrong = chosen(xai, run, tmp_path / f"wrong.{kind}", "--rule", "correct = false")
    expected = [("eval", "x", "failed", [2, 3], 2), ("eval", "y", "failed", [4, 5], 2)]
    assert checked(xai, run, wrong)[:2] == (1, expected)
    # Nobody said which mode, and the list does.
    train = chosen(xai, run, tmp_path / f"train.{kind}", "--rule", "correct = true", "--mode", "train")
    assert checked(xai, run, train)[:2] == (0, [("train", "", "passed", [], 6)])
    status, rows, warnings = checked(xai, run, both, "--ds-id", "y")
    assert (status, rows) == (0, [("eval", "y", "passed", [], 6)])
    assert any("7 of eval x" in one for one in warnings)
    status, rows, _ = checked(xai, run, train, "--mode", "eval")
    assert (status, [row[2] for row in rows]) == (2, ["not asked"])


def test_a_plain_list_is_asked_where_its_ids_are(xai: Any, run: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "plain.txt", "8", "6")
    assert checked(xai, run, file)[:2] == (0, [("eval", "x", "passed", [], 2), ("eval", "y", "passed", [], 1)])
    only = written(tmp_path / "only.txt", "8")
    assert checked(xai, run, only)[:2] == (0, [("eval", "x", "passed", [], 1)])
    absent = written(tmp_path / "absent.txt", "8", "99")
    expected = [("eval", "x", "passed", [], 1), (None, None, "failed", [99], 1)]
    assert checked(xai, run, absent)[:2] == (1, expected)
    assert checked(xai, run, absent, "--ds-id", "y")[:2] == (1, [("eval", "y", "failed", [8, 99], 2)])
    _, said, _ = xai("check", run, "--rule", f"no sample of {absent} is wrong", "--json")
    assert "not judged in eval x or eval y: 99" in [row["reason"] for row in json.loads(said)["rows"]]


def test_a_listed_row_that_the_run_lacks_is_none_that_is_right(xai: Any, run: Path, tmp_path: Path) -> None:
    head = "sample_id,mode,ds_id"
    file = written(tmp_path / "a.csv", head, "6,eval,x", "8,eval,y", "6,eval,z")
    status, rows, _ = checked(xai, run, file)
    assert status == 1
    assert rows == [
        ("eval", "x", "passed", [], 1),
        ("eval", "y", "failed", [8], 1),
        (None, None, "failed", [6], 1),
    ]


COMMANDS = {
    "samples": ("samples", "--max", "0", "--min", "0", "--metric", "loss"),
    "relabel export": ("relabel", "export"),
    "compare": ("compare", "--max", "0", "--min", "0", "--metric", "loss"),
}


def asked(xai: Any, command: str, run: Path, file: Path, out: Path, *options: str) -> Any:
    words = COMMANDS[command]
    runs = (run, run) if command == "compare" else (run,)
    beside = ("--to", "csv", "-o", out / "x.csv") if command == "relabel export" else ()
    n = 2 if command == "relabel export" else 1
    return xai(*words[:n], *runs, *words[n:], "--ids", f"@{file}", *options, *beside, "--json")


def shown(found: Any) -> list[tuple[Any, ...]]:
    rows = [row for row in found["rows"] if row.get("kind", "sample") == "sample" and row.get("group") != "flipped"]
    return [(row["mode"], row["ds_id"], row["sample_id"]) for row in rows]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_ids_of_a_list_are_the_rows_it_names(xai: Any, run: Path, tmp_path: Path, kind: str, command: str) -> None:
    file = chosen(xai, run, tmp_path / f"g.{kind}", "--rule", "correct = false")
    rows = [("eval", "x", 2), ("eval", "x", 3), ("eval", "y", 4), ("eval", "y", 5)]
    status, said, err = asked(xai, command, run, file, tmp_path)
    assert status == 0, err
    assert sorted(shown(json.loads(said))) == rows
    status, said, _ = asked(xai, command, run, file, tmp_path, "--ds-id", "x")
    assert sorted(shown(json.loads(said))) == rows[:2]
    assert any("2 of eval y" in one for one in json.loads(said)["warnings"])
    status, _, err = asked(xai, command, run, file, tmp_path, "--mode", "train")
    assert (status, "the listed samples are not of train" in err, "--mode eval" in err) == (1, True, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_ids_alone_are_asked_everywhere_and_rows_must_be_there(
    xai: Any, run: Path, tmp_path: Path, command: str
) -> None:
    _, said, _ = asked(xai, command, run, written(tmp_path / "a.txt", "6"), tmp_path)
    assert sorted(shown(json.loads(said))) == [("eval", "x", 6), ("eval", "y", 6)]
    _, said, _ = asked(xai, command, run, written(tmp_path / "b.csv", "sample_id,ds_id", "6,y", "8,"), tmp_path)
    assert sorted(shown(json.loads(said))) == [("eval", "x", 8), ("eval", "y", 6)]
    file = written(tmp_path / "c.csv", "sample_id,mode,ds_id", "8,eval,y", "6,eval,x")
    status, _, err = asked(xai, command, run, file, tmp_path)
    assert (status, "no sample_id 8 in eval y, where its list has it" in err) == (1, True)


@pytest.mark.parametrize(
    "command", [["samples", "--max", "0", "--min", "0"], ["track-report"], ["relabel", "export", "--to", "csv"]]
)
def test_the_command_on_a_page_asks_for_the_rows_of_its_list(
    xai: Any, run: Path, tmp_path: Path, command: list[str]
) -> None:
    """Ids alone would ask for those of every data set: the page names the file."""
    file = written(tmp_path / "rows.csv", "mode,ds_id,sample_id", "eval,x,3", "eval,y,4")
    name, *options = command[:2] if command[0] == "relabel" else command
    asked = [*command[:2], run, *command[2:]] if command[0] == "relabel" else [name, run, *options]
    out = ["-o", tmp_path / "tasks.csv"] if command[0] == "relabel" else []
    status, said, _ = xai(*asked, "--ids", f"@{file}", *out, "--json")
    found = json.loads(said)
    assert status == 0
    assert found["selection"]["ids_asked"] == [f"@{file}"]
    pages = tmp_path / "pages"
    if command[0] != "relabel":
        assert xai(*asked, "--ids", f"@{file}", "-o", pages, "--format", "html")[0] == 0
        (page,) = pages.glob("*.html")
        assert f"--ids @{file}" in page.read_text(encoding="utf-8")
    plain = json.loads(xai(*asked, "--ids", "3,4", *out, "--json")[1])
    assert "ids_asked" not in plain["selection"]
