"""The portable queries give the same in every engine, and what the faster polars path gives."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import xaicli
from tests.written_run import WrittenRun
from xaicli import engines
from xaicli.api import open_run
from xaicli.errors import XaiError
from xaicli.maintenance.compact import compact
from xaicli.queries import sql
from xaicli.queries.labels import Kinds, labels
from xaicli.queries.relations import of_engine
from xaicli.queries.resolution import resolve
from xaicli.queries.samples import samples
from xaicli.queries.scores import Epochwise
from xaicli.reader import Tally, open_reader
from xaicli.vocabulary import Bounds

PAIR = ("eval", "a")


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_portable_queries_equal_the_polars_path(written: WrittenRun, engine: str) -> None:
    reader = open_reader(written.layout)
    selection = resolve(reader, engine=engine, metric=["loss", "margin"])
    direct = Epochwise(reader, resolve(reader, metric=["loss", "margin"]), PAIR)
    ids = pl.Series([0, 3, 4, 11])
    with of_engine(reader, selection, PAIR) as opened:
        for metric in selection.metrics:
            scores = [source.last_scores(metric).sort("sample_id") for source in (opened, direct)]
            assert_frame_equal(*scores)
        assert_frame_equal(opened.histories(ids), direct.histories(ids))
        opened.count(there := Tally())
        found = opened.label_statistics("loss", [Bounds.QUANTILE], Kinds("label"))
    direct.count(here := Tally())
    assert there == here
    expected = labels(reader, resolve(reader, ds_id="a"), bounds=["quantile"]).data
    shared = ["label", "epoch", "pass", "step", "n", "mean", "std", "min", "max"]
    assert_frame_equal(found.sort("label", "epoch").select(shared), expected.select(shared), rel_tol=1e-12)


QUESTIONS = (
    ("samples", {"max": 4, "min": 4, "ids": [3, 4]}),
    ("samples", {"mode": "all", "metric": ["loss", "margin"], "complete_only": True}),
    ("samples", {"ds_id": "a", "epoch_frequency": 2, "label_map": {"cat": 0, "eel": 2}}),
    ("samples", {"stat": "mean", "epoch": "1-3"}),
    ("samples", {"stat": "rank_jump"}),
    ("labels", {"bounds": ["std", "range", "none", "quantile", "ci"], "metric": ["loss", "margin"]}),
    ("labels", {"label_key": "prediction", "mode": "all"}),
    ("labels", {"label_map": {"hound": 1}, "epoch": "2-4"}),
    ("dynamics", {"mode": "all", "early_epochs": 2, "burn_in": 1}),
    ("dynamics", {"metric": ["margin", "loss"], "ds_id": "b"}),
)


@pytest.mark.parametrize(("question", "asked"), QUESTIONS)
def test_every_question_has_one_answer(root: Path, question: str, asked: dict[str, Any]) -> None:
    here, there = (getattr(open_run(root), question)(**asked, engine=engine).answer for engine in ("polars", "duckdb"))
    assert_frame_equal(here.data, there.data, rel_tol=1e-12, abs_tol=1e-12)
    assert here.counts == there.counts
    assert {**here.selection, "engine": ""} == {**there.selection, "engine": ""}


def test_the_engine_changes_no_count(written: WrittenRun) -> None:
    reader = open_reader(written.layout)
    counts = [samples(reader, resolve(reader, engine=engine)).counts for engine in ("polars", "duckdb")]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(("engine", "module"), [("duckdb", "duckdb"), ("spark", "pyspark.sql")])
def test_engine_that_is_not_installed(
    written: WrittenRun, monkeypatch: pytest.MonkeyPatch, engine: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    reader = open_reader(written.layout)
    with pytest.raises(XaiError, match="is not installed") as raised:
        samples(reader, resolve(reader, engine=engine))
    assert "pip install" in raised.value.hint


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_facts_are_a_table_of_sql(tmp_path: Path, engine: str) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3], camera=["left", "right", "left"])
        run.log_samples(sample_id=[1, 2, 3], loss=[1.0, 2.0, 4.0], mode="eval", epoch=1, step=1)
    sql = "SELECT camera, avg(loss) AS mean FROM samples JOIN facts USING (sample_id) GROUP BY camera ORDER BY camera"
    found = xaicli.open_run(tmp_path / "run").query(sql, engine=engine).data.rows()
    assert found == [("left", 2.5), ("right", 2.0)]


@pytest.mark.parametrize("name", ["Camera", "light level", "a.b", "日本", "LOSS", "_order", "select", 'a"b'])
@pytest.mark.parametrize("numbers", [False, True])
def test_duckdb_groups_by_a_fact_whatever_it_is_called(tmp_path: Path, name: str, numbers: bool) -> None:
    values: list[object] = [0.5, 1.5, 0.5, 1.5] if numbers else ["x", "y", "x", "y"]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1, 2, 3], **{name: values})
        run.log_samples(sample_id=[0, 1, 2, 3], label=[0, 1, 0, 1], loss=[1.0, 2.0, 3.0, 5.0], mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    found = opened.labels(label_key=name, engine="duckdb").data
    assert sorted(found["n"].to_list()) == [2, 2]
    assert sorted(found["mean"].to_list()) == [2.0, 3.5]
    assert found.drop("label").equals(opened.labels(label_key=name).data.drop("label"))
    assert found["label"].to_list() == opened.labels(label_key=name).data["label"].to_list()
    one = opened.labels(
        label_key=name, where=f'"{name.replace(chr(34), chr(34) * 2)}" = {values[0]!r}', engine="duckdb"
    )
    assert one.data["mean"].to_list() == [2.0]


QUESTIONS: dict[str, Callable[[xaicli.RunReader], Any]] = {
    "samples": lambda run: run.samples(max=3, min=3, engine="duckdb"),
    "labels": lambda run: run.labels(engine="duckdb"),
    "dynamics": lambda run: run.dynamics(engine="duckdb"),
    "query": lambda run: run.query(
        "SELECT epoch, sum(loss) AS s FROM samples GROUP BY epoch ORDER BY 1", engine="duckdb"
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_beside_a_compaction_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """The files that DuckDB was told of are replaced before it reads them."""
    pytest.importorskip("duckdb")
    for epoch in (1, 2):
        with xaicli.Run(tmp_path / "run") as run:
            values = [float(epoch * n) for n in range(6)]
            run.log_samples(sample_id=range(6), label=[0, 1] * 3, loss=values, mode="eval", epoch=epoch, step=epoch)
            run.flush()
            run.log_samples(sample_id=[9], label=[0], loss=[epoch], mode="eval", epoch=epoch, step=epoch)
    opened = open_run(tmp_path / "run")
    real, told = engines.duckdb_rows, 0

    def compacted_meanwhile(*args: Any, **how: Any) -> Any:
        nonlocal told
        told += 1
        rows = real(*args, **how)
        if told == 1:
            compact(opened.layout, grace=0.0)
        return rows

    for module in (engines, sql):
        monkeypatch.setattr(module, "duckdb_rows", compacted_meanwhile)
    found = QUESTIONS[question](opened)
    assert told == 2
    monkeypatch.undo()
    expected = QUESTIONS[question](open_run(tmp_path / "run"))
    assert_frame_equal(found.data, expected.data)
    assert found.answer.counts == expected.answer.counts
    assert found.answer.warnings == expected.answer.warnings
