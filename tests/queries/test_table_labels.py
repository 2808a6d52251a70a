"""Rows of a table that say several labels of one sample: one is shown, and how many have others is said."""

from __future__ import annotations

from pathlib import Path

import pytest

import xaicli


def test_several_labels_of_a_sample_are_counted_and_told(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        labels = [0, 1, 2, 2, None, 5, 3]
        metrics = {"sample_id": [7, 7, 8, 8, 9, 9, 10], "iou": [0.1] * 7, "label": labels, "epoch": [1] * 7}
        run.add_metrics_data(metrics, name="boxes")
        run.add_metrics_data({**metrics, "epoch": [2] * 7, "label": [1, 4, 2, 2, None, 5, 3]}, name="boxes")
    opened = xaicli.open_run(tmp_path / "run")
    found = opened.samples(table="boxes", metric="iou", max=9, min=0)
    assert found.answer.warnings == (
        "1 sample has rows of several labels in one epoch (7: 0, 1): the last one is shown",
    )
    assert dict(found.data.select("sample_id", "label").iter_rows()) == {7: 4, 8: 2, 9: 5, 10: 3}
    alone = opened.samples(table="boxes", metric="iou", where="sample_id > 7")
    assert alone.answer.warnings == ()


def test_a_mode_of_a_table_that_a_condition_empties_is_named_as_one_of_a_run_is(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        splits = ["test", "test", "val", "val"]
        metrics = {"sample_id": [1, 2, 1, 2], "iou": [0.1, 0.2, 0.8, 0.9], "split": splits, "epoch": [1] * 4}
        run.add_metrics_data(metrics, name="boxes")
    opened = xaicli.open_run(tmp_path / "run")
    none = opened.samples(table="boxes", metric="iou", mode="test", where="iou > 0.5")
    left_out = "test is left out: none of its rows meets --where 'iou > 0.5'"
    assert none.answer.warnings == (left_out,)
    assert none.data.height == 0
    both = opened.samples(table="boxes", metric="iou", mode=["test", "val"], max=9, min=0, where="iou > 0.5")
    assert left_out in both.answer.warnings
    assert both.data.select("mode", "sample_id", "score").rows() == [("val", 2, 0.9), ("val", 1, 0.8)]
    assert "test" in none.html()


def test_a_table_has_no_passes_to_draw_over(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.add_metrics_data({"sample_id": [1, 2], "iou": [0.1, 0.2], "epoch": [1, 1]}, name="boxes")
    opened = xaicli.open_run(tmp_path / "run")
    assert opened.samples(table="boxes", metric="iou", axis="step").data.height == 4
    with pytest.raises(xaicli.errors.UsageError, match="has no use for --axis pass"):
        opened.samples(table="boxes", metric="iou", axis="pass")
