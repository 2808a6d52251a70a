"""Rows of a table that say several labels of one sample: one is shown, and how many have others is said."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    with pytest.raises(xaicli.errors.UsageError, match="has no use for --axis pass"):
        opened.samples(table="boxes", metric="iou", axis="pass")


def test_a_row_of_a_table_has_no_step_but_the_recorded_one(tmp_path: Path) -> None:
    rows = {"sample_id": [1, 2], "iou": [0.1, 0.2]}
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (3, 5, 6):
            run.add_metrics_data({**rows, "epoch": [epoch] * 2}, name="boxes")
            steps = {"step": [epoch * 10, None]} if epoch == 5 else {"step": [None, None]}
            run.add_metrics_data({**rows, "epoch": [epoch] * 2, **steps}, name="some")
            run.add_metrics_data({**rows, "epoch": [epoch] * 2, "step": [7, 8]}, name="each")
    opened = xaicli.open_run(tmp_path / "run")
    expected = {"boxes": [None] * 3, "some": [None, 50, None], "each": [8, 8, 8]}
    for table, steps in expected.items():
        history = opened.samples(table=table, metric="iou", max=1, min=0).data["history"][0]
        assert [(point["epoch"], point["step"]) for point in history] == list(zip((3, 5, 6), steps, strict=True))
    assert opened.samples(table="each", metric="iou", axis="step").data.height == 4
    for table, epochs in (("boxes", "3, 5-6"), ("some", "3, 6")):
        with pytest.raises(xaicli.errors.UsageError, match=f"says no step of epoch {epochs}: --axis step"):
            opened.samples(table=table, metric="iou", axis="step")
    assert opened.samples(table="some", metric="iou", epoch=5, axis="step").data.height == 4
    with pytest.raises(xaicli.errors.UsageError, match="step"):
        opened.samples(table="boxes", metric="iou", where="step = 3")
    assert opened.samples(table="some", metric="iou", where="step = 50").data["sample_id"].to_list() == [1, 1]


def test_rows_of_a_table_are_taken_back_with_the_epochs_that_are_trained_again(tmp_path: Path) -> None:
    for epochs, loss in ([1, 2, 3, 4], 1.0), ([3], 5.0):  # the second start goes on after epoch 2
        with xaicli.Run(tmp_path / "run") as run:
            for epoch in epochs:
                run.log_samples(sample_id=[0, 1], loss=[loss, loss], mode="train", epoch=epoch, step=epoch)
                run.add_metrics_data({"example_id": [0, 1], "iou": [loss, 2 * loss], "epoch": [epoch] * 2}, name="det")
    opened = xaicli.open_run(tmp_path / "run")
    of_epochs = "SELECT epoch, sum(iou) AS iou FROM det GROUP BY epoch ORDER BY epoch"
    last, every = (opened.samples(table="det", metric="iou", attempts=attempts) for attempts in ("last", "all"))
    assert dict(last.data.select("sample_id", "score").iter_rows()) == {0: 5.0, 1: 10.0}
    assert dict(every.data.select("sample_id", "score").iter_rows()) == {0: 1.0, 1: 2.0}  # of epoch 4
    assert opened.query(of_epochs).data.rows() == [(1, 3.0), (2, 3.0), (3, 15.0)]
    assert opened.query(of_epochs, attempts="all").data.rows() == [(1, 3.0), (2, 3.0), (3, 18.0), (4, 3.0)]
    assert (last.answer.counts.taken_back, every.answer.counts.taken_back) == (4, 0)
    of_table = (
        "attempt 1 took back 4 rows of attempt 0 in table det from epoch 3, step 3 on: "
        "xai info, samples and most others count them with --attempts all"
    )
    assert last.answer.warnings == (of_table,)
    asked = opened.query(of_epochs).answer
    assert (asked.warnings, asked.counts.taken_back) == ((of_table,), 4)  # nothing of the rows of samples
    of_both = opened.query("SELECT (SELECT count(*) FROM samples) AS samples, (SELECT count(*) FROM det) AS det").answer
    assert (of_both.data.rows(), of_both.counts.taken_back) == ([(6, 6)], 8)
    assert sum("took back" in said for said in of_both.warnings) == 2
    assert every.answer.warnings == ()


def test_a_row_of_a_table_shows_no_picture_of_another_data_set(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for ds_id, grey in (("day", 10), ("night", 200)):
            run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", ds_id=ds_id, epoch=1)
            run.state.mode, run.state.ds_id = "eval", ds_id
            run.log_images([1], np.full((1, 8, 8), grey, np.uint8))
        run.log_images([2], np.full((1, 8, 8), 99, np.uint8))
        run.add_metrics_data({"sample_id": [1, 2], "iou": [0.1, 0.2], "epoch": [1, 1]}, name="said nowhere")
        own = {"sample_id": [1, 1], "iou": [0.1, 0.2], "ds_id": ["day", "night"], "mode": ["eval"] * 2, "epoch": [1, 1]}
        run.add_metrics_data(own, name="own")
    opened = xaicli.open_run(tmp_path / "run")

    def greys(table: str) -> list[int]:
        page = opened.samples(table=table, metric="iou", max=2, min=0).html()
        pictures = (base64.b64decode(found) for found in re.findall(r"data:image/png;base64,([^\"')]+)", page))
        return sorted(int(np.asarray(Image.open(io.BytesIO(one)).convert("L")).max()) for one in pictures)

    assert greys("said nowhere") == [99]
    assert greys("own") == [10, 200]
