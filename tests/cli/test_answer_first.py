"""The answer comes whatever stands in the way of its files, and in whatever encoding the output has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli import XaiError
from xaicli.api import open_run

NAMES = ("Käse", "猫", "𝔸")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples a label, whose names no single-byte encoding has."""
    folder = tmp_path_factory.mktemp("named") / "run"
    with xaicli.Run(folder, label_names=NAMES) as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=range(9), label=np.arange(9) % 3, loss=np.arange(9.0), mode="eval", epoch=epoch, step=epoch
            )
    return folder


def told(encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "xaicli", *map(str, arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_has_every_name(named: Path, encoding: str) -> None:
    done = told(encoding, "samples", named, "--max", 3, "--min", 0)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    for name in NAMES:
        spelled = name.encode(encoding, "ignore").decode(encoding)
        assert name in text or spelled != name
    if encoding != "utf-8":
        assert "\\u732b" in text
        assert "▁" not in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_is_json_in_every_encoding(named: Path, tmp_path: Path, encoding: str) -> None:
    done = told(encoding, "labels", named, "--json", "--format", "csv", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {row["name"] for row in json.loads(done.stdout.decode(encoding))["rows"]} == set(NAMES)


@pytest.mark.parametrize("command", ["samples", "labels", "dynamics", "findings", "track-report"])
@pytest.mark.parametrize("json_wanted", [True, False], ids=["json", "table"])
def test_the_answer_where_nothing_can_be_written(
    xai, sample_run: Path, tmp_path: Path, command: str, json_wanted: bool
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    options = ["--format", "csv", "-o", tmp_path / "taken"]
    status, out, err = xai(command, sample_run, *options, *(["--json"] if json_wanted else []))
    lines = err.splitlines()
    assert status == 1
    assert lines[-2].startswith(f"error: {tmp_path / 'taken'} cannot be written")
    assert lines[-1] == "hint: name another folder with -o DIR"
    if json_wanted:
        assert json.loads(out)["rows"]
        assert json.loads(out)["outputs"] == []
    else:
        assert len(out.splitlines()) > 5


IDS = (
    b"3\n4\n",
    b"\xef\xbb\xbf3\r\n4\r\n",
    "3\r\n4\r\n".encode("utf-16"),
    b'"3"\n\n"4"\n',
    b"score,sample_id\n1.5,3\n2.5,4\n",
)


@pytest.mark.parametrize("content", IDS, ids=["plain", "mark", "utf-16", "quoted", "column"])
def test_files_of_ids(xai, named: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ids").write_bytes(content)
    status, out, err = xai("samples", named, "--max", 0, "--min", 0, "--json", "--ids", f"@{tmp_path / 'ids'}")
    assert status == 0, err
    assert [row["sample_id"] for row in json.loads(out)["rows"]] == [3, 4]


@pytest.mark.parametrize("content", [b"\xff\xff\x00", "3\n".encode("utf-16-le")])
def test_files_that_are_no_text(xai, named: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ids").write_bytes(content)
    status, _, err = xai("samples", named, "--ids", f"@{tmp_path / 'ids'}")
    assert status == 2
    assert err.startswith(f"error: --ids @{tmp_path / 'ids'} is no ")
    assert ("UTF-16 with its byte order mark" in err) == (content[0] == ord("3"))


@pytest.mark.parametrize(
    "ids",
    [
        [3, 4],
        (4, 3),
        {3, 4},
        range(3, 5),
        iter([3, 4]),
        np.array([3, 4], np.uint8),
        pl.Series([3, 4]),
        "3,4",
        [3.0, "4"],
    ],
)
def test_ids_in_python(named: Path, ids: object) -> None:
    found = open_run(named).samples(ids=ids, max=0, min=0).data
    assert sorted(found["sample_id"]) == [3, 4]


def test_one_id_and_a_tensor(named: Path) -> None:
    run = open_run(named)
    assert run.samples(ids=np.int64(3), max=0, min=0).data["sample_id"].to_list() == [3]
    torch = pytest.importorskip("torch")
    assert run.samples(ids=torch.tensor([3, 4]), max=0, min=0).data["sample_id"].to_list() == [3, 4]


@pytest.mark.parametrize("wrong", ["12345678901234567890", "1.5", "x", "1_0"])
def test_ids_that_cannot_be(named: Path, wrong: str) -> None:
    with pytest.raises(XaiError, match=f"no sample_id '?{wrong}"):
        open_run(named).samples(ids=[wrong])


def test_a_mask_is_no_list_of_ids(named: Path) -> None:
    with pytest.raises(XaiError, match="truth values"):
        open_run(named).samples(ids=np.array([True, False]))
