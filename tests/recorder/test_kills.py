"""`kill -9` at random and at named points: no acknowledged row is lost, doubled or torn."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.recorder.recorded import rows
from xaicli import parquet
from xaicli.layout import RunLayout
from xaicli.maintenance.doctor import examine
from xaicli.recorder.run import Run
from xaicli.wal.records import live_records

CHILD = Path(__file__).with_name("killed_run.py")
KILLS = int(os.environ.get("XAI_TEST_KILLS", "4"))
"""Random kills of one rank; a fourth as many of four ranks."""
POINTS = ("opened", "written", "synced", "renamed", "folder synced", "reset")


class Ranks:
    """Processes that log to one run until they are killed."""

    def __init__(self, folder: Path, ranks: int, seed: int, *point: object) -> None:
        self.run_dir = folder / "run"
        self.acks = [folder / f"acks-{rank}" for rank in range(ranks)]
        for path in self.acks:
            path.touch()
        self.processes = [
            subprocess.Popen(
                [sys.executable, CHILD, self.run_dir, path, str(seed), *map(str, point)],
                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)},
            )
            for rank, path in enumerate(self.acks)
        ]

    def acknowledged(self) -> list[int]:
        return [int((path.read_text().split() or ["0"])[-1]) for path in self.acks]

    def kill_after(self, seconds: float) -> None:
        deadline = time.monotonic() + 60
        while not all(self.acknowledged()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds)
        for process in self.processes:
            process.kill()
        self.wait()

    def wait(self) -> None:
        for process in self.processes:
            process.wait(60)


@pytest.fixture(autouse=True)
def no_survivors() -> Iterator[None]:
    yield
    for process in subprocess._active:  # type: ignore[attr-defined]
        process.kill()


def check(ranks: Ranks, seed: int, attempts: int = 1) -> int:
    """Every row once and whole, none missing of those acknowledged; returns how many there are."""
    table = rows(ranks.run_dir)
    ids = (
        [int(key.rstrip("ß")) for key in table["sample_id"].to_pylist()] if seed % 2 else table["sample_id"].to_numpy()
    )
    number, rank = np.divmod(np.asarray(ids, np.int64), 1000)
    assert (table["loss"].to_numpy() == (number / 2).astype(np.float32)).all()
    assert (table["label"].to_numpy() == number % 10).all()
    for r, acknowledged in enumerate(ranks.acknowledged()):
        own = np.sort(number[rank == r])
        assert len(own) >= acknowledged * attempts
        assert (own == np.arange(len(own))).all(), "a gap or a double"
    return table.num_rows


def check_records(ranks: Ranks) -> None:
    """Every scalar, input and fact that was acknowledged is there, with its value."""
    layout = RunLayout(ranks.run_dir)
    acknowledged = {int(line) for path in ranks.acks for line in path.read_text().split()}
    found: dict[str, set[int]] = {}
    for folder in ("scalars", "inputs", "facts"):
        tables = [parquet.read(path) for path in (layout.root / folder).glob("*.parquet")]
        kept = [row for table in [*tables, *live_records(layout, folder)[0]] for row in table.to_pylist()]
        if folder == "inputs":
            found[folder] = {int(np.frombuffer(row["data"], np.float32)[0]) for row in kept}
        else:
            found[folder] = {int(row["value" if folder == "scalars" else "logged"]) for row in kept}
    assert all(acknowledged <= numbers for numbers in found.values()), "an acknowledged record is missing"


def check_and_recover(ranks: Ranks, seed: int) -> None:
    before = check(ranks, seed)
    check_records(ranks)
    Run(ranks.run_dir, rank=0).close()
    assert check(ranks, seed) == before
    check_records(ranks)
    layout = RunLayout(ranks.run_dir)
    assert not list(layout.wal.glob("*"))
    assert examine(layout).findings == ()


@pytest.mark.parametrize("seed", range(KILLS))
def test_one_rank_killed_at_random(tmp_path: Path, seed: int) -> None:
    ranks = Ranks(tmp_path, 1, seed)
    ranks.kill_after(random.Random(seed).random() * 0.4)
    check_and_recover(ranks, seed)


@pytest.mark.parametrize("seed", range(max(1, KILLS // 4)))
def test_four_ranks_started_and_killed_together(tmp_path: Path, seed: int) -> None:
    ranks = Ranks(tmp_path, 4, seed)
    ranks.kill_after(random.Random(seed).random() * 0.4)
    assert [attempt.attempt for attempt in RunLayout(ranks.run_dir).read_attempts()] == [0]
    check_and_recover(ranks, seed)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("nth", range(3, 3 + max(1, KILLS // 6)))
def test_killed_at_a_named_point(tmp_path: Path, point: str, nth: int) -> None:
    ranks = Ranks(tmp_path, 1, nth, point, nth)
    ranks.wait()
    assert ranks.processes[0].returncode == -9
    check_and_recover(ranks, nth)


def test_killed_while_recovering(tmp_path: Path) -> None:
    first = Ranks(tmp_path, 1, 0)
    first.kill_after(0.2)
    for nth in (1, 2, 3):
        again = subprocess.run(
            [sys.executable, "-c", _DIE_RECOVERING, first.run_dir, str(nth)], timeout=60, check=False
        )
        assert again.returncode in (-9, 0)
        check(first, 0)
    check_and_recover(first, 0)


_DIE_RECOVERING = """
import os, signal, sys
from xaicli import files
from xaicli.recorder.run import Run
from xaicli.wal.records import live_records
hits = 0
def reached(point):
    global hits
    hits += point == "renamed"
    if hits == int(sys.argv[2]) + 1:
        os.kill(os.getpid(), signal.SIGKILL)
files.reached = reached
Run(sys.argv[1]).close()
"""


def test_live_rows_are_seen_whole_while_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAUSE", "0.0005")
    ranks = Ranks(tmp_path, 1, 0)
    try:
        while not all(ranks.acknowledged()):
            time.sleep(0.01)
        deadline = time.monotonic() + 60
        seen = [0]
        while time.monotonic() < deadline and (len(seen) < 30 or seen[-1] == seen[1]):
            acknowledged = ranks.acknowledged()[0]
            number = np.sort(rows(ranks.run_dir)["sample_id"].to_numpy() // 1000)
            assert (number == np.arange(len(number))).all(), "a gap or a double"
            assert len(number) >= acknowledged
            seen.append(len(number))
        assert seen == sorted(seen)
        assert len(seen) >= 3, "too few reads in a minute to say anything"
        assert seen[-1] > seen[1]
    finally:
        ranks.kill_after(0)
