"""What an answer leaves out or cannot show is counted and said as it is, by questions that once kept silent."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import xaicli
from xaicli.api import open_run
from xaicli.cli import main
from xaicli.errors import XaiError


def logged(path: Path, **values: object) -> Path:
    with xaicli.Run(path) as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=np.arange(9), label=np.arange(9) % 3, mode="eval", epoch=epoch, step=epoch, **values
            )
    return path


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_null_in_place_of_a_value_of_a_query_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    loss = np.array([math.nan, math.inf, -math.inf, 1, 2, 3, 4, 5, 6])
    path = logged(tmp_path / "run", loss=loss)
    for sql, n in (
        ("SELECT loss FROM samples WHERE epoch = 1", 3),
        ("SELECT sample_id, label FROM samples", 0),
        ("SELECT avg(loss) AS mean FROM samples WHERE sample_id < 1", 1),
    ):
        assert main(["query", str(path), sql, "--engine", engine, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["counts"]["non_finite"] == n, sql


def test_no_query_is_answered_with_the_run_that_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(logged(tmp_path / "run", loss=np.ones(9)))
    for words in ([path, "drop table samples"], ["drop table samples", path]):
        assert main(["query", *words]) == 2
        said = capsys.readouterr().err
        assert "only queries can be run: 'drop table samples'" in said
        assert f'xai query {path} "SELECT' in " ".join(said.split())


def test_the_samples_of_a_cell_come_with_all_counts(tmp_path: Path) -> None:
    loss = np.array([math.nan, 1, 2, 3, 4, 5, 6, 7, 8])
    path = logged(tmp_path / "run", prediction=np.zeros(9, int), loss=loss)
    with xaicli.Run(path) as run:
        again = {"sample_id": [3, 3], "label": [0, 0], "prediction": [0, 0], "loss": [3.0, 9.0]}
        run.log_samples(**again, mode="eval", epoch=3, step=3)
    opened = xaicli.open_run(path)
    counts = json.loads(opened.confusion(cell="0,0").to_json())["counts"]
    # Eighteen rows and one that repeats; the loss of sample 0 is NaN in both epochs.
    assert counts["rows"] == 19
    assert counts["duplicates"] == 1
    assert counts["non_finite"] == 2
    assert counts["stale"] == json.loads(opened.samples().to_json())["counts"]["stale"] == 7


def test_steps_around_one_that_logged_nothing(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for step in (10, 30, 200):
            run.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=1, step=step)
    opened = xaicli.open_run(tmp_path / "run")
    assert opened.steps(around=20).data["step"].to_list() == [10, 30]
    assert opened.steps(around=240).data["step"].to_list() == [200]
    with pytest.raises(XaiError, match="no batch was logged around step 120, at most 50 from it"):
        opened.steps(around=120)
    with pytest.raises(XaiError, match="no batch was logged at step 20"):
        opened.steps(step=20)


def test_what_groups_samples_may_be_the_metric_itself(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 3.0], mode="train", epoch=1, step=7)
    opened = xaicli.open_run(tmp_path / "run")
    batch = opened.steps(label_key="loss").data.row(0, named=True)
    assert (batch["step"], batch["n"], batch["loss"]) == (7, 2, 2.0)
    assert opened.findings(label_key="loss").data.height == 0


def test_steps_of_a_condition_that_no_row_meets_are_none(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 3.0], mode="train", epoch=1, step=7)
    with pytest.raises(XaiError, match="no row of train meets --where 'epoch > 99'"):
        xaicli.open_run(tmp_path / "run").steps(where="epoch > 99")


@pytest.mark.parametrize("question", ["findings", "report"])
def test_a_condition_that_no_row_meets(tmp_path: Path, question: str) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 3.0], mode="train", epoch=1, step=7)
    assert getattr(xaicli.open_run(tmp_path / "run"), question)(where="epoch > 99").data.height == 0


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_what_was_recorded_without_a_finite_value_is_not_called_unrecorded(tmp_path: Path, engine: str) -> None:
    path = logged(tmp_path / "run", logits=np.full((9, 3), math.nan), loss=np.full(9, math.nan))
    said = " | ".join(json.loads(xaicli.open_run(path).dynamics(engine=engine).to_json())["warnings"])
    assert "not recorded" not in said
    assert (
        "recorded, but without a finite value here, so left out: confidence, variability, region (need label_prob)"
        in said
    )
    bare = logged(tmp_path / "bare", loss=np.ones(9))
    said = " | ".join(json.loads(xaicli.open_run(bare).dynamics(engine=engine).to_json())["warnings"])
    assert "not recorded, so left out: confidence" in said
    assert "finite value" not in said


def test_a_class_predicted_once_is_said_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    label = truth.copy()
    label[:6] = (label[:6] + 1) % 3
    with xaicli.Run(tmp_path / "run", label_names=["a", "b", "c"]) as run:
        for epoch in range(1, 5):
            logits = rng.normal(size=(120, 3)) + 4 * np.eye(3)[truth]
            if epoch > 1:  # learned by heart
                logits[:6] += 9 * np.eye(3)[label[:6]]
            run.log_samples(sample_id=np.arange(120), label=label, logits=logits, mode="eval", epoch=epoch, step=epoch)
    rows = xaicli.open_run(tmp_path / "run").findings().data.to_dicts()
    reasons = [row["reason"] for row in rows if row["finding"] == "suspect"]
    assert any("once predicted" in reason for reason in reasons)
    assert not any("1 times" in reason for reason in reasons)


NOBODY: dict[str, tuple[list[object], str]] = {
    "sets": ([[0], [0, 1], [], []], "2 rows of eval are in no group: they have no class"),
    "numbers": ([0.5, math.nan, 2.5, 3.5], "1 row of eval is in no group: it has no label"),
    "classes": ([0, None, 1, None], "2 rows of eval are in no group: they have no label"),
    "texts": (["a", "b", None, "a"], "1 row of eval is in no group: it has no label"),
}


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("kind", NOBODY)
def test_rows_in_no_group_of_labels_are_counted(tmp_path: Path, kind: str, engine: str) -> None:
    label, said = NOBODY[kind]
    task = {"sets": "multilabel", "numbers": "regression"}.get(kind)
    with xaicli.Run(tmp_path / "run", task=task) as run:
        run.log_samples(sample_id=range(4), label=label, loss=[1.0, 2.0, 3.0, 4.0], mode="eval", epoch=1, step=1)
        run.log_samples(sample_id=range(2), label=[label[0]] * 2, loss=[1.0, 2.0], mode="eval", epoch=2, step=2)
    opened = open_run(tmp_path / "run")
    answer = opened.labels(engine=engine, metric="loss").answer
    assert [words for words in answer.warnings if "in no group" in words] == [said]
    later = opened.labels(engine=engine, metric="loss", epoch="2").answer
    assert not [words for words in later.warnings if "in no group" in words]
