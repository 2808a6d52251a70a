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


def test_the_demo_of_boxes_tells_of_the_mistakes_that_the_run_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    assert main(["demo", str(path), "--task", "boxes", "--epochs", "1", "--no-progress"]) == 0
    said = capsys.readouterr().err
    run = xaicli.open_run(path)
    n = run.query("SELECT count(*) AS n FROM facts WHERE mistake <> 'none'").data.item()
    assert f": {n} labels are wrong on purpose; the fact mistake says which." in " ".join(said.split())
    assert main(["info", str(path), "--format", "html", "-o", str(tmp_path / "info")]) == 0
    page = (tmp_path / "info" / "info.html").read_text(encoding="utf-8")
    assert f"{n} of them among the 240 of which boxes are recorded" in page
    found = run.samples(table="metrics", metric="fp", where="mistake <> 'none'", max=500, min=0)
    assert found.data.height == n
    assert {facts["mistake"] for facts in found.data["facts"]} == {"label left out", "label made up"}
