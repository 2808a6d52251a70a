"""What is recorded of each task, against torch and plain Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from tests.recorder.recorded import rows
from xaicli.errors import UsageError
from xaicli.layout import RunLayout
from xaicli.recorder.run import Run


def recorded(run_dir: Path, batch: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    with Run(run_dir, strict=True, **options) as run:
        run.log_samples(**batch, mode="eval", epoch=1, step=1)
    return rows(run_dir).to_pylist()  # type: ignore[no-any-return]


def near(row: dict[str, Any], **expected: float) -> None:
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("given", ["matrix", "floats", "lists"])
def test_several_classes_a_sample(tmp_path: Path, given: str) -> None:
    truth = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0]])
    logits = torch.tensor([[-1.0, 2.0, 0.5], [1.0, 1.0, -2.0], [-1.0, -1.0, -3.0]])
    label: Any = {"matrix": truth, "floats": truth.float(), "lists": [[1, 2], [0, 2], []]}[given]
    found = recorded(tmp_path / "run", {"sample_id": [1, 2, 3], "label": label, "logits": logits})
    assert RunLayout(tmp_path / "run").read_manifest().task == "multilabel"
    assert [(row["label"], row["prediction"], row["correct"]) for row in found] == [
        ([1, 2], [1, 2], True),
        ([0, 2], [0, 1], False),
        ([], [], True),
    ]
    assert [(row["jaccard"], row["n_wrong"]) for row in found] == [(1, 0), (pytest.approx(1 / 3), 2), (1, 0)]
    loss = functional.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none").mean(1)
    assert [row["loss"] for row in found] == pytest.approx(loss.tolist(), rel=1e-5)


@pytest.mark.parametrize("way", ["prediction", "logits"])
def test_a_regression(tmp_path: Path, way: str) -> None:
    answer = torch.tensor([2.0, -1.25]) if way == "prediction" else torch.tensor([[2.0], [-1.25]])
    found = recorded(tmp_path / "run", {"sample_id": [1, 2], "label": torch.tensor([1.5, 2.0]), way: answer})
    assert [(row["label"], row["prediction"]) for row in found] == [(1.5, 2.0), (2.0, -1.25)]
    assert [(row["residual"], row["abs_error"], row["loss"]) for row in found] == [
        (-0.5, 0.5, 0.25),
        (3.25, 3.25, 10.5625),
    ]
    assert "correct" not in found[0]


def test_a_sequence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(3, 4, 5), torch.tensor([[0, 1, 2, 3], [4, 4, -100, -100], [-100] * 4])
    batch = {"sample_id": ["a", "b", "c"], "label": label, "logits": logits}
    found = recorded(tmp_path / "run", batch, keep_tokens=True)
    losses = functional.cross_entropy(logits.transpose(1, 2), label, ignore_index=-100, reduction="none")
    p = logits.softmax(2)
    for i, row in enumerate(found[:2]):
        valid = label[i] != -100
        own = losses[i][valid]
        near(
            row,
            loss=float(own.mean()),
            label_prob=math.exp(-float(own.mean())),
            n_tokens=int(valid.sum()),
            token_accuracy=float((logits[i].argmax(1) == label[i])[valid].float().mean()),
            entropy=float(-(p[i] * p[i].log()).sum(1)[valid].mean()),
            worst_token=int(torch.where(valid, losses[i], -1).argmax()),
            worst_token_loss=float(own.max()),
        )
        assert row["token_losses"] == pytest.approx(own.tolist(), rel=1e-3)
    assert (found[2]["n_tokens"], found[2]["token_losses"]) == (0, [])
    assert found[2]["loss"] is None


@pytest.mark.parametrize("classes", [3, 50])
def test_soft_labels(tmp_path: Path, classes: int) -> None:
    torch.manual_seed(1)
    soft, logits = torch.randn(4, classes).softmax(1), torch.randn(4, classes)
    found = recorded(tmp_path / "run", {"sample_id": range(4), "label": soft, "logits": logits})
    p = logits.softmax(1)
    loss = functional.cross_entropy(logits, soft, reduction="none")
    assert [row["label"] for row in found] == soft.argmax(1).tolist()
    assert [row["loss"] for row in found] == pytest.approx(loss.tolist(), rel=1e-4)
    assert [row["label_prob"] for row in found] == pytest.approx((p * soft).sum(1).tolist(), rel=1e-4)
    assert [row["el2n"] for row in found] == pytest.approx((p - soft).norm(dim=1).tolist(), rel=1e-4)


@pytest.mark.parametrize("ignored", [-100, 1])
@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_an_ignored_label_is_none(tmp_path: Path, ignored: int, make: Any) -> None:
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], np.float32)
    with Run(tmp_path / "run", strict=True, ignore_label=ignored) as run:
        for step in (1, 2):
            run.log_samples(sample_id=[1, 2, 3], label=make([0, ignored, 0]), logits=logits, step=step)
    for row in rows(tmp_path / "run").to_pylist():
        expected = {1: (0, 0, True), 2: (None, 0, None), 3: (0, 1, False)}[row["sample_id"]]
        assert (row["label"], row["prediction"], row["correct"]) == expected
        assert (row["loss"] is None) == (row["sample_id"] == 2)


def test_what_is_right_may_be_unknown(tmp_path: Path) -> None:
    for number, correct in enumerate(([1.0, math.nan, 0.0], np.array([1.0, np.nan, 0.0]), [True, None, False])):
        found = recorded(tmp_path / str(number), {"sample_id": [1, 2, 3], "correct": correct})
        assert [row["correct"] for row in found] == [True, None, False]


def test_whole_numbers_beyond_single_precision_are_kept(tmp_path: Path) -> None:
    big = 2**24 + 1
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], count=[5], step=1)
        run.flush()
        with pytest.warns(match=r"count has whole numbers beyond 2\^24"):
            run.log_samples(sample_id=[1], count=[big], step=2)
        run.log_samples(sample_id=np.array([1]), count=np.array([big + 2]), step=3)
    parts = sorted((tmp_path / "run" / "data").rglob("*.parquet"))
    assert len(parts) == 2
    from xaicli import parquet

    assert parquet.read(parts[1])["count"].to_pylist() == [big, big + 2]


def test_the_task_is_said_or_told_by_the_first_batch_with_a_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the tasks"):
        Run(tmp_path / "run", task="guessing")
    with Run(tmp_path / "run", task="regression", strict=True) as run:
        run.log_samples(sample_id=[1, 2], label=[1.0, 2.0], prediction=[1.0, 3.0])
    assert [row["residual"] for row in rows(tmp_path / "run").to_pylist()] == [0.0, -1.0]
    with Run(tmp_path / "run", strict=True) as run:  # the run knows
        run.log_samples(sample_id=[1], label=[4], prediction=[4.5], epoch=2)
    assert rows(tmp_path / "run").to_pylist()[-1]["abs_error"] == 0.5


@pytest.mark.parametrize("first", [[None, None], []])
@pytest.mark.parametrize("then", [[0, 1], ["cat", "dog"]])
def test_a_batch_without_a_value_settles_nothing(tmp_path: Path, first: list[Any], then: list[Any]) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1, 2][: len(first)], label=first, loss=[0.5, 1.5][: len(first)], step=1)
        run.log_samples(sample_id=[1, 2], label=then, loss=[0.5, 1.5], step=2)
        run.log_samples(sample_id=[1, 2], label=[None, None], loss=[0.5, 1.5], step=3)
    found = rows(tmp_path / "run").to_pylist()
    assert [row["label"] for row in found] == [*first, *then, None, None]


def test_kept_inputs_of_a_regression_have_their_values(tmp_path: Path) -> None:
    with Run(tmp_path / "run", task="regression", strict=True) as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0.5, 1.5, -2.25], prediction=[0.0, 0.0, 0.0], mode="eval", epoch=1)
        run.log_inputs([1, 2, 3], np.ones((3, 4), np.float32), label=[0.5, float("nan"), -2.25])
    kept = pl.read_parquet(tmp_path / "run" / "inputs").sort("sample_id")
    assert kept["label"].to_list() == [0.5, None, -2.25]
