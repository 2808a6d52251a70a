"""A command that is interrupted while it draws leaves a page of what is finished."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xaicli import Run, open_run
from xaicli.render.figure import Pictures


def test_a_page_that_is_interrupted_holds_its_tables_and_the_pictures_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        for epoch in (1, 2):
            ids = np.arange(8)
            run.log_samples(sample_id=ids, label=ids % 2, loss=ids / 4 + epoch, mode="eval", epoch=epoch)
    answer = open_run(tmp_path / "run")
    whole = answer.labels(bounds=["std", "range"]).html()
    draw, drawn = Pictures._draw, []

    def interrupted(pictures: Pictures, chart: object, identity: str) -> object:
        drawn.append(chart)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(pictures, chart, identity)  # type: ignore[arg-type]

    monkeypatch.setattr(Pictures, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer.labels(bounds=["std", "range"]).save(tmp_path / "out", ["html"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels.html"]
    page = (tmp_path / "out" / "labels.html").read_text()
    assert len(drawn) == 2
    # The overview is there; of each band the two small charts are not.
    assert 0 < page.count('<path class="line') < whole.count('<path class="line')
    assert page.count("not drawn: the command was interrupted") == 4
    assert re.findall(r"<td[^>]*>[^<]*</td>", page) == re.findall(r"<td[^>]*>[^<]*</td>", whole)
    assert page.rstrip().endswith("</html>")


PICTURES = ["labels-loss-eval.png", "labels-loss-eval-std.png"]
INTERRUPTED = """
import os, signal, sys
import MODULE as module
kept, calls = module.NAME, []
def interrupting(*args, **options):
    calls.append(args)
    if len(calls) == AT:
        os.kill(os.getpid(), signal.SIGINT)
    return kept(*args, **options)
module.NAME = interrupting
sys.argv = ["xai", *ARGUMENTS]
from xaicli.__main__ import entry
entry()
"""


def interrupted_at(module: str, name: str, at: int, arguments: list[str]) -> tuple[int, str]:
    """Status and standard error of a command that Ctrl-C meets in the n-th call of a function."""
    words = {"MODULE": module, "NAME": name, "AT": str(at), "ARGUMENTS": repr(arguments)}
    code = re.sub("|".join(words), lambda word: words[word[0]], INTERRUPTED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("at", "there", "said"),
    [
        (1, [], "nothing is written to OUT"),
        (2, ["labels.html"], "labels.html is in OUT, 2 pictures, labels.csv and labels.json are not"),
        (4, ["labels.html", *PICTURES], "labels.csv and labels.json are not"),
        (5, ["labels.html", *PICTURES, "labels.csv"], "labels.json is not"),
    ],
)
def test_an_interrupted_command_says_what_it_leaves(tmp_path: Path, at: int, there: list[str], said: str) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        ids = np.arange(8)
        run.log_samples(sample_id=ids, label=ids % 2, loss=ids / 4, mode="eval", epoch=1)
    arguments = ["labels", str(tmp_path / "run"), "-o", str(tmp_path / "out")]
    status, told = interrupted_at("xaicli.files", "Written.add", at, arguments)
    assert status == 130
    assert "warning: interrupted: " in told
    assert said.replace("OUT", str(tmp_path / "out")) in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(there)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (1, "nothing is written to OUT, labels.html, 1 picture and labels.json are there of an earlier call"),
        (
            2,
            "labels.html is in OUT, 1 picture and labels.csv are not, 1 picture and labels.json are there of an "
            "earlier call",
        ),
        (4, "labels.csv is not, labels.json is there of an earlier call"),
    ],
)
def test_files_of_an_earlier_call_are_told_from_those_that_are_missing(tmp_path: Path, at: int, said: str) -> None:
    a_run(tmp_path / "run")
    out = tmp_path / "out"
    arguments = ["labels", str(tmp_path / "run"), "-o", str(out)]
    assert interrupted_at("xaicli.files", "Written.add", 99, arguments)[0] == 0
    (out / PICTURES[1]).unlink()
    (out / "labels.csv").unlink()
    before = (out / "labels.json").read_bytes()
    status, told = interrupted_at("xaicli.files", "Written.add", at, arguments)
    assert status == 130
    assert told.endswith(said.replace("OUT", str(out)))
    assert (out / "labels.json").read_bytes() == before


def test_an_export_that_is_interrupted_tells_files_of_an_earlier_call(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    (tmp_path / "export.jsonl").write_text("older")
    arguments = ["export", str(tmp_path / "run"), "--format", "csv,jsonl,parquet", "-o", str(tmp_path)]
    status, told = interrupted_at("xaicli.maintenance.export", "_write", 2, arguments)
    assert status == 130
    assert re.search(r"csv is whole, \S*export\.parquet is not there, \S*export\.jsonl is there of an earlier", told)
    assert (tmp_path / "export.jsonl").read_text() == "older"


def test_saliency_that_is_interrupted_says_what_is_kept_and_goes_on_there(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with Run(tmp_path / "run") as run:
        x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
        run.log_inputs(range(6), x, label=[0, 1] * 3)
        run.log_samples(sample_id=range(6), label=[0, 1] * 3, loss=[1.0] * 6, mode="eval", epoch=1)
        run.save_checkpoint(torch.nn.Linear(4, 2), example_inputs=x[:2])
    arguments = ["saliency", str(tmp_path / "run"), "--samples", "6", "-o", str(tmp_path / "out"), "-q"]
    status, told = interrupted_at("xaicli.api.saliency", "explain_run", 1, arguments)
    assert (status, told) == (130, "warning: interrupted: no report is written")
    # Two are explained together, then four; the two are kept whole.
    status, told = interrupted_at("xaicli.attribution.store", "Store.write", 2, arguments)
    assert status == 130
    assert "2 of 6 samples are finished and kept, no report is written; the same call goes on there" in told
    again, _ = interrupted_at("xaicli.attribution.store", "Store.write", 5, arguments)
    assert again == 0, "four were left to explain"
    assert (tmp_path / "out" / "saliency.html").exists()


def a_run(folder: Path, epochs: int = 3) -> None:
    with Run(folder, label_names=["cat", "dog"]) as run:
        for epoch in range(1, epochs + 1):
            ids = np.arange(8)
            run.log_samples(sample_id=ids, label=ids % 2, loss=ids / 4, mode="eval", epoch=epoch)
            run.flush()


def test_an_export_that_is_interrupted_names_the_files_that_are_whole(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    arguments = ["export", str(tmp_path / "run"), "--format", "csv,jsonl,parquet", "-o", str(tmp_path)]
    status, told = interrupted_at("xaicli.maintenance.export", "_write", 2, arguments)
    assert status == 130
    assert re.search(
        r"interrupted: \S*export\.csv is whole, \S*export\.jsonl and \S*export\.parquet are not there$", told
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.csv", "run"]


def test_a_compaction_that_is_interrupted_says_what_is_made_and_keeps_every_row(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    status, told = interrupted_at("xaicli.maintenance.compact", "_merge", 3, ["compact", str(tmp_path / "run")])
    assert status == 130
    assert told.endswith("interrupted: 2 files are made, every row is there; the same call goes on")
    assert open_run(tmp_path / "run").scan(mode="eval").collect().height == 24
    assert interrupted_at("xaicli.maintenance.compact", "_merge", 9, ["compact", str(tmp_path / "run")])[0] == 0
    assert len(list((tmp_path / "run" / "data").rglob("c-*.parquet"))) == 3


def test_an_import_that_is_interrupted_keeps_the_runs_before_and_nothing_of_the_one_it_broke_off_in(
    tmp_path: Path,
) -> None:
    for name in ("one", "three", "two"):
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "metrics.csv").write_text("step,loss\n1,0.5\n")
    (tmp_path / "out" / "three").mkdir(parents=True)
    (tmp_path / "out" / "three" / "notes.txt").write_text("mine")
    arguments = ["import", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]
    status, told = interrupted_at("xaicli.recorder.run", "Run.log", 2, arguments)
    assert status == 130, told
    out = tmp_path / "out"
    assert told.endswith(f"interrupted: {out}/one is whole, {out}/three and {out}/two are not there")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "three"]
    assert [path.name for path in (tmp_path / "out" / "three").iterdir()] == ["notes.txt"]


def test_a_sync_that_is_interrupted_says_how_many_files_went_over(tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    a_run(tmp_path / "run")
    arguments = ["sync", str(tmp_path / "run"), (tmp_path / "store").as_uri()]
    (tmp_path / "store").mkdir()
    status, told = interrupted_at("xaicli.store.objects", "Store.put", 3, arguments)
    assert status == 130
    total = sum(path.is_file() for path in (tmp_path / "store").rglob("*"))
    assert total == 2
    assert re.search(r"interrupted: 2 of \d+ files went over, each whole; the same call sends the others$", told)


def test_a_collection_that_is_interrupted_leaves_no_rows_and_says_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with Run(tmp_path / "run") as run:
        x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
        run.log_inputs(range(6), x, label=[0, 1] * 3)
        run.save_checkpoint(torch.nn.Linear(4, 2), example_inputs=x[:2])
    arguments = ["collect", str(tmp_path / "run"), "--batch-size", "2"]
    status, told = interrupted_at("xaicli.collectors.collect", "_batch", 2, arguments)
    assert status == 130
    assert told.endswith("interrupted: no row of this pass over 6 samples is kept")
    assert not list((tmp_path / "run").glob("tables/*/*.parquet"))


def test_a_demo_that_is_interrupted_says_what_is_recorded_or_left(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run_dir = tmp_path / "run"
    arguments = ["demo", str(run_dir), "--epochs", "2"]
    status, told = interrupted_at("xaicli.demo", "_batches", 3, arguments)
    assert status == 130
    left = f"1 of 2 epochs are recorded in {run_dir}, no report is written; xai demo begins in an empty folder"
    assert told.endswith(f"interrupted: {left}")
    run_dir = tmp_path / "other"
    status, told = interrupted_at(
        "xaicli.files", "Written.add", 3, ["demo", str(run_dir), "--task", "multilabel", "--epochs", "1", "-q"]
    )
    assert status == 130
    assert f"interrupted: the run is whole; what is left: xai track-report {run_dir}" in told
    assert "Recorded" not in told, "-q leaves the paths alone"
