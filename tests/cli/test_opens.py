"""How often a question opens the run's files, counted in a process of its own: once each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xaicli import Run

_COUNTED = """
import collections, json, os, sys
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
from xaicli.cli import main
status = main(sys.argv[2:])
data = {name: n for name, n in opens.items() if "/data/" in name and name.endswith(".parquet")}
open(sys.argv[1], "w").write(json.dumps({"status": status, "opens": data}))
"""

QUESTIONS = [
    ["track-report"],
    ["track-report", "--stat", "mean", "--bounds", "std,range"],
    ["samples"],
    ["samples", "--stat", "mean"],
    ["samples", "--metric", "correct"],
    ["labels"],
    ["dynamics"],
    ["findings"],
]


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


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
@pytest.mark.parametrize("kind", ["plain", "resumed"])
def test_every_data_file_is_opened_once(
    question: list[str], kind: str, sample_run: Path, resumed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sample_run if kind == "plain" else resumed, run)
    told = tmp_path / "told.json"
    command = [sys.executable, "-c", _COUNTED, told, question[0], run, *question[1:]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=False)
    found = json.loads(told.read_text())
    assert found["status"] == 0, done.stderr
    assert found["opens"]
    assert {name: n for name, n in found["opens"].items() if n != 1} == {}
