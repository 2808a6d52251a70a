"""Rows of a table that say several labels of one sample: one is shown, and how many have others is said."""

from __future__ import annotations

from pathlib import Path

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
