"""A file or folder that may not be read costs itself, not the runs beside it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import xaicli
from xaicli.cli import main


@pytest.fixture
def two_runs(sample_run: Path, tmp_path: Path) -> Path:
    for name in ("closed", "good"):
        shutil.copytree(sample_run, tmp_path / "runs" / name)
    return tmp_path / "runs"


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["ls", str(folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refuse(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """Reading a path, or listing it, is refused from now on, whoever asks: root may read everything."""
    read, scan = Path.read_bytes, os.scandir

    def read_bytes(path: Path) -> bytes:
        if closed == path or closed in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    def scandir(path: Any = ".") -> Any:
        if Path(str(path)) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr("os.scandir", scandir)


def test_a_file_that_is_damaged_is_counted_in_the_list_of_runs(
    two_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = max((two_runs / "closed" / "data").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:300])
    found = listed(two_runs, capsys)
    assert found["counts"] == {"rows": 2, "damaged": [part.as_posix()]}
    closed, good = found["rows"]
    assert closed["rows"] < good["rows"]
    assert closed["problem"] is good["problem"] is None


def test_a_small_file_that_cannot_be_read_is_left_to_whoever_opens_it(
    two_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xaicli.parquet import Contents

    part = max((two_runs / "closed" / "data").rglob("*.parquet"))
    refuse(monkeypatch, part)
    assert Contents().of(part) is None
    with pytest.raises(FileNotFoundError):
        Contents().of(part.with_name("gone.parquet"))


def test_a_folder_that_may_not_be_read_is_left_out_like_its_files(
    two_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = two_runs / "closed"
    folder = max(path for path in (run / "data").rglob("epoch=*") if "mode=eval" in path.parts)
    files = sorted(path.relative_to(run).as_posix() for path in folder.glob("*.parquet"))
    whole = asked(capsys, "labels", run)
    refuse(monkeypatch, folder)
    told = asked(capsys, "labels", run)
    assert told["counts"]["damaged"] == files
    gone = int(folder.name.removeprefix("epoch="))
    assert told["rows"] == [row for row in whole["rows"] if row["epoch"] != gone] != whole["rows"]
    for question in ("samples", "confusion", "info", "track-report"):
        assert asked(capsys, question, run)["counts"]["damaged"] == files, question
    closed, good = listed(two_runs, capsys)["rows"]
    assert (closed["problem"], good["problem"]) == (None, None)
    assert closed["rows"] < good["rows"]
    assert main(["doctor", str(run), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["path"], row["complaint"]) for row in found] == [(folder.relative_to(run).as_posix(), "unreadable")]


def asked(capsys: pytest.CaptureFixture[str], question: str, run: Path) -> dict[str, Any]:
    main([question, str(run), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", ["scalars", "facts", "attempts", "tables", "tables/t", "media", "state", "wal"])
def test_a_folder_beside_the_data_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = tmp_path / "run"
    with xaicli.Run(run) as recorded:
        recorded.log_facts([1, 2], camera=["front", "rear"])
        recorded.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1, step=1)
        recorded.log({"epoch": 1, "lr": 0.1})
    for folder in ("tables/t", "media", "wal"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    known = sorted(path.relative_to(run).as_posix() for path in (run / name).glob("*.parquet")) or [name]
    refuse(monkeypatch, run / name)
    for question in ("samples", "info"):
        assert asked(capsys, question, run)["counts"]["damaged"] == known, question
    assert asked(capsys, "doctor", run)["rows"][-1]["path"] == name
    assert main(["scalars", str(run)]) == (1 if name == "scalars" else 0)
    said = capsys.readouterr().err
    assert (f"no scalars that can be read: left out {known[0]}" in said) == (name == "scalars")
    assert "run.log(" not in said
    main(["samples", str(run), "--where", "camera = 'front'"])
    assert ("facts are left out, see xai doctor" in capsys.readouterr().err) == (name == "facts")
