"""`xai demo` trains, records and reports, from what the package itself brings."""

from __future__ import annotations

from pathlib import Path

import pytest

import xaicli
from xaicli.cli import main


def test_the_demo_writes_all_three_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--epochs", "1"]) == 0
    said = capsys.readouterr()
    assert "flipped on purpose" in said.err
    for name in ("track-report", "labels", "saliency"):
        assert f"wrote runs/demo/reports/{name}.html" in said.out
        assert (tmp_path / "runs" / "demo" / "reports" / f"{name}.html").stat().st_size > 10_000
    rows = {row["mode"]: row["rows"] for row in xaicli.open_run("runs/demo").info().data.to_dicts()}
    assert rows == {"train": 1437, "eval": 360}


def test_the_demo_of_regressions_has_a_slice_that_is_found(tmp_path: Path) -> None:
    from xaicli.demo_tasks import record_task

    record_task("regression", tmp_path / "run")
    found = xaicli.open_run(tmp_path / "run").slices()
    worse = found.data.filter("worse").to_dicts()
    assert worse[0]["facts"] == [{"column": "camera", "value": "old"}]
    assert worse[0]["mean"] > 2 * worse[0]["rest_mean"]
