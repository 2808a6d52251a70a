"""Kept statistics: the same answer, never of other files, never of changed bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from tests.written_run import WrittenRun
from xaicli.answer import Answer
from xaicli.dynamics import computed
from xaicli.dynamics.statistics import dynamics
from xaicli.queries import cache
from xaicli.queries.resolution import resolve
from xaicli.reader import open_reader


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WrittenRun:
    monkeypatch.setattr(cache, "_WORTH_ROWS", 0)
    run = WrittenRun(tmp_path / "run", metrics=("loss", "label_prob"))
    write(run, 1)
    write(run, 2)
    return run


def write(run: WrittenRun, epoch: int) -> list[Path]:
    draw = np.random.default_rng(epoch)
    row = {"epoch": epoch, "label": 1, "correct": True, "loss": 0.0, "label_prob": 0.5}
    return run.write([{**row, "sample_id": key, "loss": float(draw.random())} for key in range(50)])


def ask(run: WrittenRun, **words: str) -> Answer:
    reader = open_reader(run.layout)
    return dynamics(reader, resolve(reader, **words))


def never(*_: object) -> None:
    raise AssertionError("read again")


def test_asked_again_it_is_not_read_again(run: WrittenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(run)
    monkeypatch.setattr(computed, "_pass", never)
    again = ask(run)
    assert_frame_equal(first.data, again.data)
    assert (first.counts, first.warnings) == (again.counts, again.warnings)


def test_another_epoch_option_or_file_is_another_question(run: WrittenRun) -> None:
    ask(run)
    assert ask(run, epoch="1").data["n_obs"].to_list() == [1] * 50
    write(run, 3)
    assert ask(run).data["n_obs"].to_list() == [3] * 50


@pytest.mark.parametrize("spoil", ["flip", "cut", "remove", "facts"])
def test_spoilt_ones_are_computed_anew(run: WrittenRun, spoil: str) -> None:
    first = ask(run)
    (path,) = run.layout.cache.glob("dynamics-*.arrow")
    content = bytearray(path.read_bytes())
    if spoil == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif spoil == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif spoil == "remove":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{}")
    assert_frame_equal(first.data, ask(run).data)


def test_only_the_newest_stay(run: WrittenRun) -> None:
    for epoch in range(3, 10):
        write(run, epoch)
        ask(run)
    assert len(list(run.layout.cache.glob("dynamics-*.arrow"))) == 4
    assert len(list(run.layout.cache.glob("dynamics-*.json"))) == 4


def test_a_damaged_run_is_not_kept(run: WrittenRun) -> None:
    (path,) = write(run, 3)
    path.write_bytes(path.read_bytes()[:-20])
    assert ask(run).counts.damaged
    assert not list(run.layout.cache.glob("dynamics-*"))


def test_small_runs_are_not_kept(run: WrittenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    ask(run)
    assert not list(run.layout.cache.glob("dynamics-*"))
