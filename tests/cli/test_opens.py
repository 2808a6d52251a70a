"""How often a question opens the run's files, counted in a process beside this one: once each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xaicli import Run

_COUNTED = """
import collections, contextlib, io, json, os, sys
opens = collections.Counter()

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        opens[os.fspath(arguments[0])] += 1

sys.addaudithook(hook)
import pyarrow.parquet as pq
plain = pq.ParquetFile.__init__

def counted(self, source, *args, **more):
    if isinstance(source, (str, os.PathLike)):
        opens[os.fspath(source)] += 1
    plain(self, source, *args, **more)

pq.ParquetFile.__init__ = counted
import polars as pl
scan = pl.scan_parquet

def scanned(source, **more):
    for one in source if isinstance(source, list) else [source]:
        if isinstance(one, (str, os.PathLike)):
            opens[os.fspath(one)] += 1
    return scan(source, **more)

pl.scan_parquet = scanned
from xaicli.cli import main

for line in sys.stdin:
    folder, run, words = json.loads(line)
    os.chdir(folder)
    opens.clear()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(words)
    of_run = {os.path.relpath(name, run): n for name, n in opens.items() if os.path.isfile(name)}
    of_run = {name: n for name, n in of_run.items() if not name.startswith("..")}
    print(json.dumps({"status": status, "opens": of_run, "err": err.getvalue()}), flush=True)
"""
"""Answers one question a line. Each is asked of a copy of the run in a place of its own, so that nothing which is kept
in this process spares the next one a file."""

ANYWHERE = [
    ["track-report"],
    ["track-report", "--stat", "mean", "--bounds", "std,range"],
    ["samples"],
    ["samples", "--stat", "mean"],
    ["samples", "--metric", "correct"],
    ["labels"],
    ["dynamics"],
    ["findings"],
    ["track-report", "--where", "loss > 0.1"],
    ["info"],
    ["query", "SELECT count(*), avg(loss) FROM samples"],
    ["export", "-o", "samples.csv"],
    ["select", "--rule", "hardest", "--n", "5"],
    ["doctor"],
    ["watch", "--once"],
    ["check", "--rules", "rules.toml"],
]
RULES = """
[[rule]]
metric = "loss"
most = 1000
[[rule]]
metric = "loss"
most = 1000
where = "loss > 0.1"
mode = "train"
"""
PAGES = {
    "track-report": "scalars",
    "samples": "media",
    "findings": "media",
    "confusion": "media",
    "steps": "scalars",
    "slices --by shift,brightness": "inputs",
}
"""Questions whose pages need a folder of the run beside its rows."""
QUESTIONS = [
    *((kind, question) for kind in ("plain", "resumed") for question in ANYWHERE),
    *(("full", [*question.split(), "--format", "html"]) for question in PAGES),
]
LONG_AGO = 1_700_000_000


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second attempt with two parts an epoch takes back half of a file of the first."""
    folder = tmp_path_factory.mktemp("opens") / "run"
    random = np.random.default_rng(4)
    ids = np.arange(40)
    for begun in (0, 2):
        with Run(folder, resume="allow") as run:
            for epoch in range(begun, 4):
                for half in np.split(ids, 2):
                    step = epoch * 2 + int(half[0] >= 20) + begun // 2
                    run.log_samples(
                        sample_id=half,
                        mode="train",
                        epoch=epoch,
                        step=step,
                        logits=random.normal(size=(20, 3)),
                        label=half % 3,
                        loss=random.random(20),
                    )
                    if begun:
                        run.flush()
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scalars, pictures, inputs and facts beside its rows."""
    folder = tmp_path_factory.mktemp("opens") / "run"
    random = np.random.default_rng(5)
    ids = np.arange(40)
    with Run(folder) as run:
        run.log_images(ids, random.integers(0, 255, (40, 8, 8, 1), dtype=np.uint8))
        run.log_inputs(ids, random.random((40, 1, 8, 8), dtype=np.float32), label=ids % 3)
        run.log_facts(ids, shift=ids % 2)
        for epoch in range(3):
            for half in np.split(ids, 2):
                step = epoch * 2 + int(half[0] >= 20)
                run.log({"lr": 0.1 / (1 + step), "step": step})
                run.log_samples(
                    sample_id=half,
                    mode="train",
                    epoch=epoch,
                    step=step,
                    logits=random.normal(size=(20, 3)),
                    label=half % 3,
                    loss=random.random(20),
                )
            run.flush()
    return folder


@pytest.fixture(scope="module")
def counting() -> Iterator[subprocess.Popen[str]]:
    """The process that counts; what it loads, it loads once for all questions."""
    with subprocess.Popen(
        [sys.executable, "-c", _COUNTED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize(("kind", "question"), QUESTIONS)
def test_every_file_of_a_run_is_opened_once(
    kind: str,
    question: list[str],
    sample_run: Path,
    resumed: Path,
    full: Path,
    counting: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sample_run if kind == "plain" else full if kind == "full" else resumed, run)
    (tmp_path / "rules.toml").write_text(RULES)
    opens = opened_by(counting, run, question)
    assert any(name.startswith("data/") for name in opens)
    if kind == "full":
        assert any(name.startswith(PAGES[" ".join(question[:-2])]) for name in opens)
    assert {name: n for name, n in opens.items() if n != 1} == {}


def test_maps_of_the_worst_samples_open_each_file_once(
    sample_run: Path, counting: subprocess.Popen[str], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    run = tmp_path / "run"
    shutil.copytree(sample_run, run, ignore=shutil.ignore_patterns("cache"))
    shutil.copy(run / "checkpoints" / "ckpt.pt", run / "checkpoints" / "ckpt-2.pt")
    how = ["--pick", "worst", "--samples", "2", "--methods", "gradient", "--format", "html"]
    opens = opened_by(counting, run, ["saliency", "--model", "ckpt*.pt", *how])
    rows = {path.relative_to(run).as_posix() for path in (run / "data").rglob("*.parquet") if "mode=eval" in str(path)}
    assert {*rows, "checkpoints/ckpt.pt", "checkpoints/ckpt-2.pt"} <= opens.keys()
    # The second checkpoint is a copy: what the first one's maps left in the cache answers for it.
    assert {name: n for name, n in opens.items() if n != 1 and not name.startswith("cache/")} == {}


def opened_by(counting: subprocess.Popen[str], run: Path, question: list[str]) -> dict[str, int]:
    """How often each file of a run is opened for a question."""
    for path in run.rglob("*"):
        # What has just been written may be written again within the file system's clock tick, and is read each time.
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert counting.stdin is not None
    assert counting.stdout is not None
    words = [question[0], str(run), *question[1:]]
    print(json.dumps([str(run.parent), str(run), words]), file=counting.stdin, flush=True)
    found = json.loads(counting.stdout.readline())
    assert found["status"] == 0, found["err"]
    opens: dict[str, int] = found["opens"]
    return opens
