"""Rows that repeat a sample: `query` counts them and says so, and where all count they come in their order."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import xaicli
from xaicli import open_run
from xaicli.cli import main


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of three samples whose last batch a sampler has filled up with the first, and a pass without."""
    folder = tmp_path_factory.mktemp("repeated") / "run"
    with xaicli.Run(folder) as run:
        for number, ids in enumerate(([0, 1, 2, 0], [0, 1, 2])):
            loss = [5.0 if i == 1 else 1.0 for i in ids]
            run.log_samples(
                sample_id=ids, label=[0] * len(ids), loss=loss, mode="eval", epoch=1, step=1, eval_pass=number
            )
        run.log({"lr": 1.0, "step": 1})
    return folder


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_row_that_repeats_a_sample_is_counted(padded: Path, engine: str) -> None:
    answer = open_run(padded).query("SELECT count(*) AS n, avg(loss) AS mean FROM samples", engine=engine).answer
    assert answer.data.row(0) == (7, 15 / 7)
    assert answer.counts.duplicates == 1
    (said,) = answer.warnings
    assert said.startswith("1 row repeats a sample of the same epoch and pass")


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_nothing_is_said_of_samples_by_a_statement_about_others(padded: Path, engine: str) -> None:
    """A statement about the scalars counts those of the scalars, of which none is there twice."""
    for sql, duplicates in (("SELECT count(*) AS n FROM scalars", 0), ("SELECT 1 AS n", None)):
        answer = open_run(padded).query(sql, engine=engine).answer
        assert (answer.data.item(), answer.counts.duplicates, answer.warnings) == (1, duplicates, ())


def test_nothing_is_said_where_each_sample_comes_once(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            run.log_samples(sample_id=[3, 1, 2], label=[0] * 3, loss=[1.0] * 3, mode="eval", epoch=epoch, step=epoch)
    answer = open_run(tmp_path / "run").query("SELECT count(*) AS n FROM samples").answer
    assert (answer.data.item(), answer.counts.duplicates, answer.warnings) == (6, 0, ())


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_attempts_repeat_what_they_take_back(tmp_path: Path, engine: str) -> None:
    """With all attempts epoch 2 is there twice, which no sampler has padded."""
    for resumed in (None, (2, 2)):
        with xaicli.Run(tmp_path / "run", resume_from=resumed) as run:
            for epoch in (1, 2) if resumed is None else (2,):
                run.log_samples(sample_id=[3, 1, 2], loss=[1.0] * 3, mode="train", epoch=epoch, step=epoch)
    found = {
        attempts: open_run(tmp_path / "run").query(
            "SELECT count(*) AS n FROM samples", attempts=attempts, engine=engine
        )
        for attempts in ("last", "all")
    }
    of_all = found["all"].answer
    assert (of_all.data.item(), of_all.counts.duplicates) == (9, 3)
    assert any("3 rows repeat" in said and "attempts repeat what they take back" in said for said in of_all.warnings)
    assert (found["last"].answer.data.item(), found["last"].answer.counts.duplicates) == (6, 0)
    assert not any("repeat" in said for said in found["last"].answer.warnings)


@pytest.fixture
def of_two_ranks(tmp_path: Path) -> Path:
    """Sample 7: early on rank 1, right at a loss of 0.125; late on rank 0, wrong at a loss of 5; in both epochs."""
    ranks = [xaicli.Run(tmp_path / "run", rank=rank) for rank in (0, 1)]
    for run in ranks:
        run.__enter__()
    for epoch in (1, 2):
        for rank, step, ids, prediction, loss in (
            (1, 3, [7, 1], [0, 0], [0.125, 0.25]),
            (0, 3, [2, 3], [0, 0], [0.125, 0.25]),
            (0, 9, [7, 4], [1, 0], [5.0, 0.25]),
            (1, 9, [5, 6], [0, 0], [0.25, 0.25]),
        ):
            place = {"mode": "train", "epoch": epoch, "step": 10 * epoch + step}
            ranks[rank].log_samples(sample_id=ids, label=[0, 0], prediction=prediction, loss=loss, **place)
    for run in reversed(ranks):
        run.__exit__(None, None, None)
    return tmp_path / "run"


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_rows_of_a_sample_within_an_epoch_come_by_step_whatever_rank_logged_them(
    of_two_ranks: Path, engine: str, compacted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if compacted:
        assert main(["compact", str(of_two_ranks)]) == 0
        capsys.readouterr()

    def asked(*words: str) -> dict[str, Any]:
        assert main([words[0], str(of_two_ranks), *words[1:], "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        (found["row"],) = (row for row in found["rows"] if row["sample_id"] == 7)
        return found

    every = ("--mode", "train", "--duplicates", "all", "--engine", engine)
    listed = asked("samples", "--ids", "7", "--max", "0", "--min", "0", *every)["row"]
    losses = [0.125, 5.0, 0.125, 5.0]
    assert (listed["score"], [at["value"] for at in listed["history"]]) == (5.0, losses)
    told = asked("dynamics", *every)["row"]
    assert (told["n_obs"], told["loss_first"], told["loss_last"]) == (4, 0.125, 5.0)
    # Right, wrong, right, wrong: forgotten twice, first learned in epoch 1, and never for good.
    assert (told["correctness"], told["forgetting"], told["first_learned"], told["learned_for_good"]) == (2, 2, 1, None)
    if engine == "polars":
        assert [at["value"] for at in asked("steps", "--step", "23")["row"]["history"]] == losses
        exported = of_two_ranks.parent / "rows.csv"
        assert main(["export", str(of_two_ranks), *every[:4], "-o", str(exported)]) == 0
        with exported.open() as file:
            assert [float(row["loss"]) for row in csv.DictReader(file) if row["sample_id"] == "7"] == losses
