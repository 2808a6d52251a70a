"""A training killed at random points and resumed ends with the weights and rows of one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

import xaicli
from xaicli.layout import RunLayout
from xaicli.queries.recorded import recorded_scalars
from xaicli.reader import open_reader
from xaicli.state.published import read_summary

_SCRIPT = Path(__file__).with_name("killed_training.py")


class Trainer:
    """The process that forks trainings."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def train(self, run: Path, style: str, seconds: float = 0.0) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(run, style, seconds, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Trainer(process)
        process.kill()


def rows_of(run: Path) -> pl.DataFrame:
    keys = ["mode", "ds_id", "epoch", "sample_id"]
    frame = xaicli.open_run(run).scan().collect()
    # A row logged again after a resume replaces the one before: the last attempt counts.
    last = frame.sort("attempt").unique(keys, keep="last", maintain_order=True)
    return last.drop("attempt").sort(keys)


def has_resumed(run: Path) -> bool:
    return any(attempt.resumed_from_step for attempt in RunLayout(run).read_attempts())


@pytest.mark.parametrize("style", ["epochs", "batches", "steps"])
def test_a_killed_and_resumed_training_is_the_one_never_killed(tmp_path: Path, trainer: Trainer, style: str) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert trainer.train(straight, style) == 0
    chance = random.Random(style)
    statuses: list[int] = []
    # On a busy machine a training may need longer to come to its first saved state.
    while len(statuses) < 6 or (len(statuses) < 60 and not has_resumed(killed)):
        statuses.append(trainer.train(killed, style, chance.uniform(0.02, 0.12) * (1 + len(statuses) / 4)))
    statuses.append(trainer.train(killed, style))
    assert statuses.count(-signal.SIGKILL) >= 2
    assert set(statuses[:-1]) <= {0, -signal.SIGKILL}
    assert statuses[-1] == 0
    assert has_resumed(killed)

    expected, found = (torch.load(run / "weights.pt", weights_only=True) for run in (straight, killed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    rows = rows_of(straight)
    assert rows.height == 3 * (40 + 12)
    assert rows_of(killed).equals(rows)
    logged, again = (recorded_scalars(open_reader(RunLayout(run))).drop("attempt") for run in (straight, killed))
    assert again.equals(logged)
    assert logged.height >= 24
    assert read_summary(killed / "state") == read_summary(straight / "state")
