"""Expensive answers are kept, found again, and forgotten when anything they came from changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.written_run import WrittenRun
from xaicli.queries import cache
from xaicli.queries import labels as labels_module
from xaicli.queries.labels import labels
from xaicli.queries.resolution import resolve
from xaicli.queries.spread import population
from xaicli.reader import open_reader


@pytest.fixture
def copy(written: WrittenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "_WORTH_ROWS", 1)
    shutil.copytree(written.layout.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/cache", ignore_errors=True)
    return tmp_path / "run"


def ask(root: Path, **words: object) -> object:
    reader = open_reader(WrittenRun.at(root).layout)
    answer = labels(reader, resolve(reader, **words), bounds=["std", "quantile"])  # type: ignore[arg-type]
    return answer.data.to_dicts(), answer.counts, answer.warnings, answer.selection, answer.run


def test_the_second_answer_is_the_first(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(copy)
    monkeypatch.setattr(labels_module, "_computed", None)
    assert ask(copy) == first
    with pytest.raises(TypeError):
        ask(copy, epoch="last")


def test_changed_files_are_read_again(copy: Path) -> None:
    first = ask(copy)
    (copy / "data/mode=eval/ds=a/epoch=4/part-a000000-r0000-00000007.parquet").touch()
    reader = open_reader(WrittenRun.at(copy).layout)
    assert len(list(reader.layout.cache.glob("answer-*.arrow"))) == 1
    assert ask(copy) == first
    assert len(list(reader.layout.cache.glob("answer-*.arrow"))) == 2


def test_damage_is_not_answered_from_the_cache(copy: Path) -> None:
    ask(copy)
    part = copy / "data/mode=eval/ds=a/epoch=4/part-a000000-r0000-00000007.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    for _ in range(2):
        reader = open_reader(WrittenRun.at(copy).layout)
        assert labels(reader, resolve(reader)).counts.damaged == (part.relative_to(copy).as_posix(),)


def test_broken_entries_are_passed_over(copy: Path) -> None:
    first = ask(copy)
    for path in (copy / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert ask(copy) == first


def test_small_runs_leave_no_trace(written: WrittenRun, tmp_path: Path) -> None:
    shutil.copytree(written.layout.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/cache", ignore_errors=True)
    ask(tmp_path / "run")
    assert not (tmp_path / "run/cache").exists()


def test_population(copy: Path) -> None:
    reader = open_reader(WrittenRun.at(copy).layout)
    bands = population(reader, resolve(reader, ds_id="a", epoch=["1", "2"]))
    assert population(reader, resolve(reader, ds_id="a", epoch=["1", "2"])).equals(bands)
    first, second = bands.to_dicts()
    # Losses 1 ... 12; in epoch 2 halved, without the one that is not finite.
    assert (first["n"], first["q05"], first["q50"], first["q95"]) == (
        12,
        pytest.approx(1.55),
        6.5,
        pytest.approx(11.45),
    )
    assert (second["n"], second["step"], second["q50"]) == (11, 20, 3.5)
