"""Values that were recorded and are not finite: told as that, of samples, labels and metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xaicli import Run, open_run
from xaicli.errors import XaiError
from xaicli.render.terminal import as_text


def run_with_values_that_are_not_finite(folder: Path) -> Path:
    """Four labels of 20 samples, four epochs: of `c` the last two are NaN or infinite, of `d` all."""
    with Run(folder, label_names=["a", "b", "c", "d"]) as run:
        for epoch in (1, 2, 3, 4):
            label = np.arange(80) % 4
            loss = np.where(label == 3, np.nan, 1.0 + label)
            loss[(label == 2) & (epoch >= 3)] = np.inf
            run.log_samples(
                sample_id=np.arange(80), label=label, loss=loss, dead=np.full(80, np.nan), mode="eval", epoch=epoch
            )
    return folder


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_labels_without_a_finite_value_are_told_and_counted(tmp_path: Path, engine: str) -> None:
    opened = open_run(run_with_values_that_are_not_finite(tmp_path / "run"))
    answer = opened.labels(metric=["loss", "dead"], engine=engine)
    told = [str(one) for one in answer.answer.warnings]
    assert "loss eval: label d has no finite value: 80 values were recorded, NaN or infinite" in told
    assert "loss eval: label c is in the last epoch with no finite value" in told
    assert "dead eval: no label has a finite value: 320 values were recorded, NaN or infinite" in told
    assert len(told) == 3
    assert sorted({(row["label"], row["epoch"]) for row in answer.data.to_dicts()})[-2:] == [(2, 1), (2, 2)]
    said = answer.report.sentence
    assert "Without a finite value in the last epoch: c." in said
    assert "bsent" not in said


def test_a_metric_that_is_never_finite_was_recorded_all_the_same(tmp_path: Path) -> None:
    opened = open_run(run_with_values_that_are_not_finite(tmp_path / "run"))
    shown = as_text(opened.labels(metric="dead").report)
    assert "No label has a finite dead: what was recorded is NaN or infinite." in shown
    assert "nothing was recorded" not in shown
    assert opened.labels(label_map="rare=3").data.height == 0
    with pytest.raises(XaiError, match="no label '7'"):
        opened.labels(label_map="gone=7")


def test_stale_samples_are_absent_or_there_without_a_finite_value(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            ids = np.arange(6 - epoch)
            loss = np.where((ids < 2) & (epoch == 2), np.nan, 1.0 + ids)
            run.log_samples(sample_id=ids, loss=loss, mode="eval", epoch=epoch)
    answer = open_run(tmp_path / "run").samples()
    assert {row["sample_id"] for row in answer.data.to_dicts() if row["stale"]} == {0, 1, 4}
    shown = " ".join(as_text(answer.report).split())
    assert (
        "stale: 1 is absent from the last epoch and 2 are in the last epoch without a finite value, shown with the "
        "last value there is" in shown
    )
    assert "('samples without a finite value in the last epoch', '3')" in str(answer.report.made)
