"""Names and arguments whose bytes are no UTF-8, and widths that nobody knows: every command answers all the same."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.cli import main
from xaicli.words import spelled

STRAY = "caf\udce9.parquet"
LOSSES = {1: [1.0, 2.0, 3.0, 6.0], 2: [0.5, 1.0, 2.5, 4.0]}
QUESTIONS = (
    ["samples"],
    ["labels"],
    ["dynamics"],
    ["findings"],
    ["confusion"],
    ["steps"],
    ["slices"],
    ["scalars"],
    ["info"],
    ["select", "--rule", "hardest", "--n", "2"],
    ["check", "--rule", "loss mean <= 99"],
    ["labels", "--engine", "duckdb"],
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the same in a folder that is no UTF-8, and the same with a stray file that is none."""
    folder = tmp_path_factory.mktemp("runs")
    with xaicli.Run(folder / "good", label_names=["cat", "dog"]) as run:
        for epoch, losses in LOSSES.items():
            labels = np.array([0, 1, 0, 1])
            facts = {"prediction": np.array([0, 1, 1, 1]), "loss": np.array(losses, np.float32)}
            run.log_samples(sample_id=np.arange(4), label=labels, mode="eval", epoch=epoch, step=epoch, **facts)
            run.log({"lr": 0.1 / epoch, "step": epoch})
    try:
        shutil.copytree(folder / "good", folder / "run\udce9")
    except OSError:
        pytest.skip("this file system has no such names")
    shutil.copytree(folder / "good", folder / "stray")
    part = next((folder / "stray" / "data").rglob("*.parquet"))
    (part.parent / STRAY).write_bytes(b"no parquet")
    return folder


def _json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    status = main([*arguments, "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    said.out.encode()
    answer: dict[str, object] = json.loads(said.out)
    return answer


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
@pytest.mark.parametrize("name", ["run\udce9", "stray"])
def test_the_answer_is_that_of_a_plain_name(
    runs: Path, name: str, question: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command, *options = question
    written = ["--format", "html,csv,json,md", "-o", str(tmp_path / "to")]
    right = _json([command, str(runs / "good"), *options, *written], capsys)
    found = _json([command, str(runs / name), *options, *written], capsys)
    rows = json.dumps(found["rows"]).replace(json.dumps(spelled(name))[1:-1], "good")
    assert json.loads(rows) == right["rows"]
    if name != "stray":
        assert str(found["run"]).endswith("/run\\xe9")
    elif command != "scalars":
        assert "/caf\\xe9.parquet" in json.loads(json.dumps(found["counts"]))["damaged"][0]
    pages = [path for path in (tmp_path / "to").iterdir() if path.suffix in (".html", ".json", ".csv", ".md")]
    assert len({path.suffix for path in pages}) == 4
    for page in pages:
        page.read_text(encoding="utf-8")


def test_rows_are_those_that_were_logged(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT epoch, sum(loss) AS loss FROM samples GROUP BY epoch ORDER BY epoch"
    for name in ("run\udce9", "stray"):
        for engine in ("polars", "duckdb"):
            rows = _json(["query", str(runs / name), sql, "--engine", engine], capsys)["rows"]
            assert rows == [{"epoch": epoch, "loss": sum(losses)} for epoch, losses in LOSSES.items()]


def test_runs_beside_one_another_are_all_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _json(["ls", str(runs)], capsys)["rows"]
    assert isinstance(rows, list)
    assert [Path(row["run"]).name for row in rows] == ["good", "run\\xe9", "stray"]
    assert [row["name"] for row in rows] == ["good", "run\\xe9", "stray"]


def test_doctor_names_the_stray_file(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(runs / "stray"), "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["rows"]
    assert fault["path"].endswith("/caf\\xe9.parquet")
    assert main(["doctor", str(runs / "run\udce9")]) == 0


def test_compaction_and_export_keep_every_row(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy\udce9"
    shutil.copytree(runs / "run\udce9", copy)
    assert main(["compact", str(copy), "--grace", "0", "--json"]) == 0
    target = tmp_path / "rows\udce9.csv"
    assert _json(["export", str(copy), "-o", str(target)], capsys)["outputs"] == [str(tmp_path / "rows\\xe9.csv")]
    rows = pl.read_csv(io.BytesIO(target.read_bytes()))
    assert sorted(rows["loss"]) == sorted(loss for losses in LOSSES.values() for loss in losses)


def test_a_start_goes_on_where_the_last_ended(runs: Path, tmp_path: Path) -> None:
    for name in ("good", "run\udce9"):
        copy = tmp_path / name
        shutil.copytree(runs / name, copy)
        for value in (5.0, 6.0):
            with xaicli.Run(copy) as run:
                run.log({"note": value})
        rows = xaicli.open_run(copy).query("SELECT step, value FROM scalars WHERE key = 'note' ORDER BY step").data
        assert rows.rows() == [(0, 5.0), (1, 6.0)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["labels", "RUN", "--label-map", "caf\udce9=1"], "--label-map is no UTF-8: caf\\xe9=1"),
        (["samples", "RUN", "--where", "mode = 'caf\udce9'"], "--where is no UTF-8: mode = 'caf\\xe9'"),
        (["query", "RUN", "SELECT 'caf\udce9'"], "an argument is no UTF-8: SELECT 'caf\\xe9'"),
    ],
)
def test_an_argument_that_is_no_utf8_is_refused_by_name(
    runs: Path, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(runs / "good") if item == "RUN" else item for item in arguments]) == 2
    assert named in capsys.readouterr().err


def test_letters_that_the_locale_lacks_are_those_that_were_typed(runs: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "xaicli", "labels", str(runs / "good"), "--label-map", "Ünï=1", "--json"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["name"] for row in rows} == {"Ünï"}
    assert {row["epoch"]: row["mean"] for row in rows} == {1: 4.0, 2: 2.5}


@pytest.mark.parametrize("width", ["0", "-3", "²", "wide"])
def test_an_unknown_width_is_80_columns(
    runs: Path, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, "80" if name == "COLUMNS" else "25")
    assert main(["samples", str(runs / "good"), "--max", "2"]) == 0
    right = capsys.readouterr().out
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, width)
    assert main(["samples", str(runs / "good"), "--max", "2"]) == 0
    assert capsys.readouterr().out == right
    assert len(right.splitlines()) > 5
