"""What comes in no good order: clocks, restarts, writers of one rank, and values nobody expects."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.recorder.recorded import column, rows
from xaicli.layout import RunLayout
from xaicli.maintenance.doctor import examine
from xaicli.reader import Reader, open_reader
from xaicli.recorder.run import Run


def seen(run_dir: Path, mode: str, *columns: str) -> list[tuple[Any, ...]]:
    reader: Reader = open_reader(RunLayout(run_dir))
    frames = [rows.frame for rows in reader.place_frames(mode, "", list(columns))]
    return sorted(pl.concat(frames).rows())


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 1.0], step=1)
        run.flush()
        monkeypatch.setattr(time, "time", lambda: now() - 3600)
        run.log_samples(sample_id=[2], loss=[2.0], step=2)
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[3], loss=[3.0], step=2)
    for path in (tmp_path / "run" / "data").rglob("part-a000001*"):
        path.touch()
    assert seen(tmp_path / "run", "train", "sample_id", "loss") == [(1, 1.0), (2, 1.0), (3, 3.0)]


_WRITER = """
import sys
import numpy as np
from xaicli.recorder.run import Run
with Run(sys.argv[1], strict=True) as run:
    first = int(sys.argv[2])
    for step in range(20):
        ids = np.arange(first + 50 * step, first + 50 * step + 50)
        run.log_samples(sample_id=ids, loss=ids / 4, step=step)
        if step % 7 == 0:
            run.flush()
"""


def test_processes_that_think_they_are_the_same_rank(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path / "run", str(1000 * number)]) for number in range(4)
    ]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert column(tmp_path / "run", "sample_id") == list(range(4000)), "each is an attempt of its own"
    assert len(RunLayout(tmp_path / "run").read_attempts()) == 4
    assert examine(RunLayout(tmp_path / "run")).findings == ()


def test_64_writers(tmp_path: Path) -> None:
    runs = [Run(tmp_path / "run", rank=rank, strict=True) for rank in range(64)]
    for step in range(3):
        for run in runs:
            run.log_samples(sample_id=[run.rank], loss=[run.rank / 2 + step], step=step, epoch=step)
    assert seen(tmp_path / "run", "train", "sample_id") == sorted([(rank,) for rank in range(64)] * 3)
    for run in runs:
        run.close()
    assert seen(tmp_path / "run", "train", "sample_id") == sorted([(rank,) for rank in range(64)] * 3)


def test_three_resumes_with_evaluations_at_the_resume_step(tmp_path: Path) -> None:
    for attempt, first in enumerate((1, 6, 4, 9)):
        with Run(tmp_path / "run", strict=True) as run:
            if attempt:
                run.state.load_state(tmp_path / "saved" / str(first - 1))
                run.log_samples(sample_id=[attempt], loss=[float(attempt)], mode="eval", step=first - 1)
            for batch in range(first, first + 5):
                run.state.update_global_step()
                run.log_samples(sample_id=[batch], loss=[float(attempt)], mode="train")
                run.state.save_state(tmp_path / "saved" / str(batch))
    train = [(step, step, 0.0 if step < 4 else 2.0 if step < 9 else 3.0) for step in range(1, 14)]
    assert seen(tmp_path / "run", "train", "sample_id", "step", "loss") == train
    assert seen(tmp_path / "run", "eval", "sample_id", "step") == [(2, 3), (3, 8)], "step 5 was taken back"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"label": ["x" * 2_000_000]}, "x" * 2_000_000),
        ({"label": ["nul\0"]}, "nul\0"),
        ({"label": np.array([True])}, 1),
        ({"label": torch.tensor([-(2**31) + 1])}, -(2**31) + 1),
        ({"label": [None]}, None),
        ({"label": np.array(3)}, 3),
    ],
)
def test_labels_nobody_expects(tmp_path: Path, given: dict[str, Any], kept: object) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1], loss=torch.tensor(0.5, requires_grad=True), **given)
    assert rows(tmp_path / "run").to_pylist()[0].get("label") == kept
