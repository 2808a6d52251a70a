"""Where an answer goes: each format that is asked for is written or refused by name, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import xaicli
from tests.cli.test_options import COMMANDS, runs
from xaicli.cli import main

__all__ = ["runs"]

Xai = Callable[..., tuple[int, str, str]]
QUESTIONS: dict[str, tuple[str, ...]] = {
    **{question: words for question, words in COMMANDS.items() if question != "export"},
    "relabel export": ("relabel", "export", "A", "--rule", "hardest", "--n", "2"),
    "doctor": ("doctor", "A"),
}
FORMATS = ("html", "png", "csv", "json", "md")


def asked(xai: Xai, runs: tuple[Path, Path], question: str, *words: object) -> tuple[int, str, str]:
    places = {"A": runs[0], "B": runs[1]}
    return xai(*(places.get(word, word) for word in QUESTIONS[question]), *words)


def beside(question: str, place: Path) -> tuple[object, ...]:
    """What is said of the place: the file to import lies elsewhere than the page of `relabel export`."""
    return ("-o", place / "tasks.json") if question == "relabel export" else ("-o", place)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_format_is_written_or_refused(xai: Xai, runs: tuple[Path, Path], tmp_path: Path, question: str) -> None:
    status, _, err = asked(xai, runs, question, "--format", "png", *beside(question, tmp_path / "drawn"))
    drawn = sorted(path.suffix for path in (tmp_path / "drawn").rglob("*") if path.name != "tasks.json")
    if status:
        assert (status, drawn) == (2, [])
        assert "png" in err
        assert "formats: " in err
    else:
        assert set(drawn) == {".png"} or "warning: nothing of this answer is drawn: there is no png to write" in err
    status, out, err = asked(
        xai, runs, question, "--format", "html,csv,json,md", "-q", *beside(question, tmp_path / "all")
    )
    assert status == 0, err
    told = [Path(line) for line in out.splitlines()]
    assert all(path.stat().st_size for path in told)
    written = {path for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert set(told) == written
    assert {path.suffix for path in written if path.name != "tasks.json"} >= {".html", ".csv", ".json", ".md"}
    assert ".png" not in {path.suffix for path in written}


@pytest.mark.parametrize("question", ["samples", "labels", "compare", "query", "select", "info"])
def test_a_page_is_no_folder(xai: Xai, runs: tuple[Path, Path], tmp_path: Path, question: str) -> None:
    """`-o page.html` made a folder of that name."""
    status, _, err = asked(xai, runs, question, "-o", tmp_path / "page.html")
    assert status == 2
    assert f"-o {tmp_path / 'page.html'} is named as a file" in err
    assert f"-o {tmp_path} --format html" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["page.html", "sheet.xlsx", "rows.csv.gz", "rows.TSV", "rows.pq"])
@pytest.mark.parametrize("question", ["export", "relabel export"])
def test_a_file_of_another_kind_is_none_of_rows(
    xai: Xai, runs: tuple[Path, Path], tmp_path: Path, question: str, name: str
) -> None:
    """`export -o page.html` made a folder of that name, `relabel export` wrote JSON into such a file."""
    status, _, err = xai(*question.split(), runs[0], "-o", tmp_path / name)
    assert status == 2
    assert name in err
    assert "hint: -o " in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("question", ["samples", "select", "query", "doctor", "ls"])
def test_json_is_one_object_and_quiet_the_paths(
    xai: Xai, runs: tuple[Path, Path], tmp_path: Path, question: str
) -> None:
    _, out, _ = asked(xai, runs, question, "--json", "--format", "csv", "-o", tmp_path)
    outputs = json.loads(out)["outputs"]
    assert outputs
    _, quiet, _ = asked(xai, runs, question, "-q", "--format", "csv", "-o", tmp_path)
    assert quiet.splitlines() == outputs
    _, alone, _ = asked(xai, runs, question, "--json")
    assert json.loads(alone)["outputs"] == []
    _, nothing, _ = asked(xai, runs, question, "-q")
    assert nothing == ""


@pytest.mark.parametrize("place", ["s3://bucket/x", "S3://bucket/x", "file:///tmp/x"])
@pytest.mark.parametrize("words", [("samples",), ("track-report",), ("select", "--rule", "hardest", "--n", "2")])
def test_an_address_is_no_folder_here(
    xai: Xai,
    runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = xai(words[0], runs[0], *words[1:], "-o", place)
    assert (status, out, list(tmp_path.iterdir())) == (2, "", [])
    assert err.startswith(f"error: {place} is an address")


@pytest.mark.parametrize("place", ["", " "])
@pytest.mark.parametrize(
    "words", [("samples",), ("track-report",), ("select", "--rule", "hardest", "--n", "2"), ("export",)]
)
def test_an_empty_text_names_no_folder(
    xai: Xai,
    runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = xai(words[0], runs[0], *words[1:], "-o", place)
    assert (status, out, list(tmp_path.iterdir())) == (2, "", [])
    assert err.startswith("error: --output names nothing")


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_the_users_folder_is_meant_also_where_no_shell_has_said_so(
    xai: Xai, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if way == "variable":
        monkeypatch.setenv("XAI_OUTPUT", "~/reports")
    if way == "file":
        (tmp_path / "xai.toml").write_text('output = "~/reports"')
    flag = ["-o", "~/reports"] if way == "flag" else []
    status, out, _ = xai("samples", runs[0], "--format", "csv", "-q", *flag)
    assert (status, out) == (0, f"{tmp_path / 'home' / 'reports' / 'samples.csv'}\n")
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("samples", "-q"), 0, ""),
        (("samples", "--format", "csv", "-o", "OUT", "-q"), 1, "error: "),
        (("samples", "--json"), 1, "error: "),
        (("--help",), 1, "error: "),
    ],
)
def test_a_closed_output_is_no_fault(
    runs: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    given = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    run = [str(runs[0])] if words[0] == "samples" else []
    command = [sys.executable, "-m", "xaicli", *given[:1], *run, *given[1:]]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stderr[: len(said)]) == (status, said)
    assert (tmp_path / "out" / "samples.csv").is_file() == ("OUT" in words)


def test_ids_from_a_closed_input_are_asked_for(runs: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "xaicli", "samples", str(runs[0]), "--ids", "-"]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --ids -: standard input is closed")


@pytest.mark.parametrize("question", ["samples", "labels", "query"])
def test_json_is_all_there_is_to_a_quiet_object(xai: Xai, runs: tuple[Path, Path], question: str) -> None:
    status, out, err = asked(xai, runs, question, "--json")
    assert asked(xai, runs, question, "--json", "-q") == (status, out, err)
    assert json.loads(out)["command"] == question


def test_a_file_asked_for_changes_nothing_of_what_the_terminal_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of losses 1, 2, 3 that fall to 0.1, 0.2, 0.3 the median falls from 2 to 0.2; the last epoch is NaN."""
    monkeypatch.setenv("COLUMNS", "160")
    path = str(tmp_path / "run")
    with xaicli.Run(path) as run:
        for epoch, scale in ((1, 1.0), (2, 0.5), (3, 0.1), (4, float("nan"))):
            known = {"sample_id": [1, 2, 3], "label": [0, 1, 2], "prediction": [0, 1, 0]}
            run.log_samples(**known, loss=[scale, 2 * scale, 3 * scale], mode="eval", epoch=epoch)
    question = ["samples", path, "--max", "1", "--min", "1"]
    assert main(question) == 0
    plain = capsys.readouterr().out
    said = " ".join(plain.split())
    assert "The median loss falls from 2 to 0.2." in said
    assert "The highest sample is at 0.3; predicted wrongly." in said
    assert "No sample has a finite loss after epoch 3, and the last is epoch 4" in said
    assert "prediction" in plain
    for kind in ("html", "csv"):
        assert main([*question, "--format", kind, "-o", str(tmp_path / kind)]) == 0
        assert capsys.readouterr().out.split("\nwrote ")[0].rstrip() == plain.rstrip()
    assert "predicted wrongly" in str(xaicli.open_run(path).samples(max=1, min=1))


QUESTIONS_WITH_FILES = [
    ("samples", "A"),
    ("query", "A", "SELECT 1 AS one", "--format", "csv"),
    ("select", "A", "--rule", "random", "--n", "2"),
    ("select", "A", "--rule", "random", "--n", "2", "--format", "parquet"),
    ("export", "A"),
    ("relabel", "export", "A"),
]


@pytest.mark.parametrize("words", QUESTIONS_WITH_FILES, ids=" ".join)
def test_a_file_in_place_of_the_folder_is_told_as_that(
    xai: Xai, runs: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...]
) -> None:
    """ "File exists" of a file that nobody meant to make."""
    (tmp_path / "here").write_text("mine")
    for place in (tmp_path / "here", tmp_path / "here" / "below"):
        status, _, err = xai(*(str(runs[0]) if word == "A" else word for word in words), "-o", place)
        assert status == 1
        assert "here cannot be written: Not a directory" in err or "below cannot be written: Not a directory" in err
        assert "File exists" not in err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("here", "mine")]


def test_a_device_or_a_pipe_takes_the_rows_and_stays(xai: Xai, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """A file of that name took its place, or a folder was looked for in it."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    kinds = [Path(path).stat().st_mode for path in ("/dev/full", "/dev/null")]
    asked: list[tuple[object, ...]] = [
        ("export", runs[0], "-o"),
        ("check", runs[0], "--rule", "loss mean <= 9999", "--junit"),
    ]
    for words in asked:
        status, _, err = xai(*words, "/dev/full")
        assert (status, "/dev/full cannot be written: No space left on device" in err) == (1, True), err
        assert xai(*words, "/dev/null")[0] == 0
    assert [Path(path).stat().st_mode for path in ("/dev/full", "/dev/null")] == kinds
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert xai("export", runs[0], "-o", pipe)[0] == 0
        read = reader.communicate(timeout=60)[0]
    assert xai("export", runs[0], "-o", tmp_path / "file.csv")[0] == 0
    assert (read, pipe.is_fifo()) == ((tmp_path / "file.csv").read_text(), True)
    status, _, err = xai("export", runs[0], "-o", "/dev/null", "--format", "csv,json")
    assert (status, "takes one answer" in err) == (2, True)


_ON_A_FULL_DISK = """
import resource, sys
from xaicli.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
@pytest.mark.parametrize("words", [("select", "--rule", "random", "--n", "20"), ("export",)], ids=" ".join)
def test_what_the_disk_says_is_told_and_no_half_of_a_file_left(
    runs: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    """A list in Parquet ended in a fault of xai."""
    pytest.importorskip("resource")
    target = tmp_path / "out" / f"rows.{kind}"
    command = [sys.executable, "-c", _ON_A_FULL_DISK, words[0], str(runs[0]), *words[1:], "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"error: {target} cannot be written: File too large" in done.stderr
    assert "fault of xai" not in done.stderr
    assert not [path for path in target.parent.iterdir() if path.is_file()]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize("words", [("--format", "csv,parquet"), ("--shape", "wide", "--format", "json")])
def test_files_of_rows_come_with_what_is_not_among_them(xai: Xai, tmp_path: Path, words: tuple[str, ...]) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, float("nan")], mode="eval", epoch=1, step=1)
        run.log_samples(sample_id=[1], loss=[3.0], mode="eval", epoch=1, step=2)
        run.log_samples(sample_id=["one", "two"], loss=[3.0, 4.0], mode="eval", epoch=1, step=2)
    status, _, err = xai("export", tmp_path / "run", *words)
    assert (status, err) == (0, "1 non-finite value · 1 duplicate row · 2 rows not recorded\n")
    piped = [sys.executable, "-m", "xaicli", "export", tmp_path / "run", "-o", "-"]
    assert subprocess.run(piped, capture_output=True, text=True, timeout=60, check=True).stderr == err
    _, out, err = xai("export", tmp_path / "run", "--json")
    assert err == ""
    counts = json.loads(out)["counts"]
    assert (counts["non_finite"], counts["duplicates"], counts["dropped"]) == (1, 1, 2)
