"""Every question has one answer whatever the run is like: without labels, of one epoch, of numbers, of sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from xaicli.api import open_run
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.queries.sql import query
from xaicli.reader import open_reader
from xaicli.recorder.run import Run

N = 12
IDS = np.arange(N)
DRAW = np.random.default_rng(3)
LABEL = IDS % 3


def values(epoch: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(epoch).random(N).astype(np.float32)


def without_labels(run: Run, epoch: int) -> None:
    run.log_samples(sample_id=IDS, loss=values(epoch), mode="eval", epoch=epoch, step=epoch)


def without_predictions(run: Run, epoch: int) -> None:
    run.log_samples(sample_id=IDS, label=LABEL, loss=values(epoch), mode="eval", epoch=epoch, step=epoch)


def classified(run: Run, epoch: int) -> None:
    logits = np.random.default_rng(epoch).normal(size=(N, 3)).astype(np.float32)
    run.log_samples(sample_id=IDS, label=LABEL, logits=logits, mode="eval", epoch=epoch, step=epoch)


def one_epoch(run: Run, epoch: int) -> None:
    if epoch == 1:
        classified(run, epoch)


def texts(run: Run, epoch: int) -> None:
    run.log_samples(
        sample_id=[f"é{i}/x" for i in IDS],
        label=[["cat", "dog", "Cat"][i] for i in LABEL],
        prediction=["cat"] * N,
        loss=values(epoch),
        mode="eval",
        epoch=epoch,
        step=epoch,
    )


def regression(run: Run, epoch: int) -> None:
    target = (IDS / 7).astype(np.float32)
    said = (target + values(epoch)).astype(np.float32)
    run.log_samples(sample_id=IDS, label=target, prediction=said, mode="eval", epoch=epoch, step=epoch)


def sets_of_labels(run: Run, epoch: int) -> None:
    label = np.stack([IDS % 2, IDS % 3 == 0, IDS > 6], axis=1).astype(np.int64)
    logits = np.random.default_rng(epoch).normal(size=(N, 3)).astype(np.float32)
    run.log_samples(sample_id=IDS, label=label, logits=logits, mode="eval", epoch=epoch, step=epoch)


def all_nan(run: Run, epoch: int) -> None:
    run.log_samples(sample_id=IDS, label=LABEL, loss=np.full(N, math.nan), mode="eval", epoch=epoch, step=epoch)


def odd_names(run: Run, epoch: int) -> None:
    metrics = {"loss": 0.0, "Loss": 10.0, "top.5": 20.0, 'a "b" `c`': 30.0, "Step": 40.0, "_x4c6f7373": 50.0}
    given = {name: values(epoch) + offset for name, offset in metrics.items()}
    run.log_samples(sample_id=IDS, label=LABEL, mode="eval", epoch=epoch, step=epoch, **given)


RUNS: tuple[Callable[[Run, int], None], ...] = (
    without_labels,
    without_predictions,
    classified,
    one_epoch,
    texts,
    regression,
    sets_of_labels,
    all_nan,
    odd_names,
)
TASKS = {"regression": "regression", "sets_of_labels": "multilabel"}
QUESTIONS = ("samples", "labels", "dynamics", "findings")


@pytest.fixture(scope="module", params=RUNS, ids=lambda kind: kind.__name__)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / request.param.__name__
    with Run(root, task=TASKS.get(root.name)) as recorded:
        for epoch in (1, 2, 3, 4):
            request.param(recorded, epoch)
    return root


def asked(root: Path, question: str, **words: Any) -> Any:
    """What a question answers; its error where the run does not allow it."""
    try:
        return getattr(open_run(root), question)(**words).answer
    except XaiError as error:
        return error


@pytest.mark.parametrize("question", QUESTIONS)
def test_polars_and_duckdb_agree(run: Path, question: str) -> None:
    every = open_reader(RunLayout(run)).metrics
    # All that follow from logits are asked for over four epochs; of one epoch the loss alone.
    for metric in ("loss",) if run.name == "one_epoch" else every:
        assert metric in every
        here, there = (asked(run, question, metric=metric, engine=engine) for engine in ("polars", "duckdb"))
        assert type(here) is type(there)
        if isinstance(here, XaiError):
            assert (str(here), here.hint) == (str(there), there.hint)
            continue
        assert_frame_equal(here.data, there.data, rel_tol=1e-9, abs_tol=1e-12)
        assert here.counts == there.counts
        assert here.warnings == there.warnings


def test_info_and_report_answer(run: Path) -> None:
    assert open_run(run).info().data["rows"].to_list() == [N if run.name == "one_epoch" else 4 * N]
    assert open_run(run).report().answer is not None


def test_sql_by_both_engines(run: Path) -> None:
    reader = open_reader(RunLayout(run))
    for engine in ("polars", "duckdb"):
        found = query(reader, "SELECT count(*) AS n, max(epoch) AS e FROM samples", engine=engine).data.row(0)
        assert found == ((N, 1) if run.name == "one_epoch" else (4 * N, 4))


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_names_that_differ_by_case(tmp_path: Path, engine: str) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            given = {"F1": [10.0, 20.0], "f1": [3.0, 4.0]}
            run.log_samples(sample_id=[1, 2], label=[0, 1], mode="eval", epoch=epoch, step=epoch, **given)
    both = open_run(tmp_path / "run").samples(metric=["F1", "f1"], max=1, min=0, engine=engine).data
    assert both.select("metric", "score").rows() == [("F1", 20.0), ("f1", 4.0)]
    means = open_run(tmp_path / "run").dynamics(metric=["F1", "f1"], engine=engine).data
    assert means.select("F1_mean", "f1_mean").rows() == [(10.0, 3.0), (20.0, 4.0)]


def test_duckdb_says_what_it_renames(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], loss=[0.5], mode="eval", epoch=1, step=1, F1=[10.0], f1=[3.0])
    answer = query(open_reader(RunLayout(tmp_path / "run")), "SELECT F1, f1_1 FROM samples", engine="duckdb")
    assert answer.data.rows() == [(10.0, 3.0)]
    assert answer.warnings == ("DuckDB does not tell upper from lower case: f1 is called f1_1 here",)


@pytest.fixture(scope="module")
def cased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cased") / "run"
    with Run(root) as run:
        run.log_samples(
            sample_id=[1, 2], mode="eval", epoch=1, step=1, F1=[10.0, 20.0], f1=[1.0, 2.0], Max=[5, 6], max=[3, 4]
        )
        run.log_facts([1, 2], Cam=["A", "B"], cam=["c", "d"])
        run.add_metrics_data({"sample_id": [1], "IoU": [5.0], "iou": [7.0]}, name="Boxes")
        run.add_metrics_data({"sample_id": [1], "x": [9.0]}, name="boxes")
    return root


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("SELECT sum(F1), sum(f1_1) FROM samples", (30.0, 3.0)),
        ("SELECT max(Cam), max(cam_1) FROM facts", ("B", "d")),
        ("SELECT IoU, iou_1 FROM Boxes", (5.0, 7.0)),
        ("SELECT x FROM boxes_1", (9.0,)),
        ("SELECT 'f1', max(F1) AS f1 FROM samples -- f1", ("f1", 20.0)),
        ("SELECT max(Max), max (max_1) FROM samples", (6.0, 4.0)),
        ("SELECT f1_1 AS f1 FROM samples ORDER BY f1 DESC LIMIT 1", (2.0,)),
        ("SELECT sample_id, -f1_1 AS f1 FROM samples ORDER BY f1, sample_id;", (2, -2.0)),
        ('SELECT -F1 AS "f1" FROM (SELECT F1 FROM samples ORDER BY F1) ORDER BY "f1" NULLS LAST', (-20.0,)),
    ],
)
def test_duckdb_answers_what_is_named_as_it_is_there(cased: Path, sql: str, row: tuple[object, ...]) -> None:
    assert query(open_reader(RunLayout(cased)), sql, engine="duckdb").data.row(0) == row


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(f1) FROM samples",
        'SELECT "f1" FROM samples',
        "SELECT max(s.f1) FROM samples AS s",
        "SELECT cam FROM facts",
        "SELECT iou FROM Boxes",
        "SELECT -F1 AS f1 FROM samples ORDER BY -f1",
        "SELECT f1_1 AS f1 FROM samples WHERE f1 > 1 ORDER BY f1",
        "SELECT sample_id FROM (SELECT F1, -F1 AS f1, sample_id FROM samples) ORDER BY f1",
        "SELECT row_number() OVER (ORDER BY f1), -F1 AS f1 FROM samples",
        "SELECT * FROM boxes",
        "SELECT * FROM BOXES",
    ],
)
def test_duckdb_is_not_asked_for_one_name_and_answers_with_another(cased: Path, sql: str) -> None:
    with pytest.raises(UsageError, match="upper from lower case"):
        query(open_reader(RunLayout(cased)), sql, engine="duckdb")


def test_sql_of_kept_probabilities_joins_and_intervals(tmp_path: Path) -> None:
    with Run(tmp_path / "run", keep_probs=True) as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], probs=[[0.75, 0.25], [0.5, 0.5]], mode="eval", epoch=1, step=1)
        live = open_reader(RunLayout(tmp_path / "run"))
        assert query(live, "SELECT probs[1] AS p FROM samples ORDER BY 1", engine="duckdb").data.rows() == [
            (0.5,),
            (0.75,),
        ]
    reader = open_reader(RunLayout(tmp_path / "run"))
    assert query(reader, "SELECT probs FROM samples ORDER BY sample_id", engine="duckdb").data.rows() == [
        ([0.75, 0.25],),
        ([0.5, 0.5],),
    ]
    joined = query(
        reader, "SELECT a.sample_id, b.sample_id, 7 AS sample_id_1 FROM samples a, samples b", engine="duckdb"
    )
    assert joined.data.columns == ["sample_id", "sample_id_2", "sample_id_1"]
    assert sorted(joined.data.rows()) == [(1, 1, 7), (1, 2, 7), (2, 1, 7), (2, 2, 7)]
    moment = query(
        reader, "SELECT INTERVAL 3 DAYS AS i, TIMESTAMP '2026-01-03' - TIMESTAMP '2026-01-01' AS d", engine="duckdb"
    )
    assert moment.data.rows() == [("3 days", "2 days")]


def test_sql_of_probabilities_as_they_used_to_be_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = {"probs.list.element": "BYTE_STREAM_SPLIT"}
    monkeypatch.setattr("xaicli.parquet.encoding._encodings", lambda _: ([], split))
    with Run(tmp_path / "run", keep_probs=True) as run:
        run.log_samples(sample_id=[1], label=[0], probs=[[0.75, 0.25]], mode="eval", epoch=1, step=1)
    reader = open_reader(RunLayout(tmp_path / "run"))
    assert query(reader, "SELECT probs, 2 AS two FROM samples", engine="duckdb").data.rows() == [([0.75, 0.25], 2)]
