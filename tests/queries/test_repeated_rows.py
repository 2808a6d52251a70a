"""`query` has every row as it was logged: those that repeat a sample are counted, and it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

import xaicli
from xaicli import open_run


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
