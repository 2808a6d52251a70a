"""FastEstimator logs as summaries."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from xaicli.errors import XaiError
from xaicli.queries.recorded import is_log, read_log
from xaicli.summary import ValWithError

LOG = """\
    ______           __  ______     __  _
   / ____/___ ______/ /_/ ____/____/ /_(_)___
FastEstimator-Warn: the key 'x' is being pruned: step: 9; ce: 7;
FastEstimator-Start: step: 1; logging_interval: 100; num_device: 0;
FastEstimator-Train: step: 1; ce: 2.3; model_lr: 1e-05;
FastEstimator-Train: step: 100; ce: -0.5; steps/sec: 38.21; model_lr: 1E+10;
FastEstimator-Train: step: 153; epoch: 1; epoch_time: 93.27 sec;
FastEstimator-BestModelSaver: Saved model to /tmp/model_best_ce.h5
Eval Progress: 1/10;
    FastEstimator-Eval: step: 153; epoch: 1; ce: nan; accuracy|clean: 0.86; since_best_ce: 0; min_ce: inf;
FastEstimator-Eval: step: 306; epoch: 2; calibration_error: (0.0213, 0.0269, 0.0306); confusion:
[[1. 2.]
 [3. 4.]];
FastEstimator-Test: epoch: 2; ce: 0.25; note: a text;
FastEstimator-Finish: step: 306; total_time: 12.1 sec;
"""


def test_every_number_of_a_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "my run.txt"
    path.write_text(LOG)
    summary = read_log(path)
    assert summary.name == "my run"
    assert summary.history["train"] == {
        "ce": {1: 2.3, 100: -0.5},
        "model_lr": {1: 1e-05, 100: 1e10},
        "steps/sec": {100: 38.21},
        "epoch_time": {153: 93.27},
    }
    assert set(summary.history["eval"]) == {"ce", "accuracy|clean", "since_best_ce", "min_ce", "calibration_error"}
    assert math.isnan(summary.history["eval"]["ce"][153])
    assert summary.history["eval"]["min_ce"] == {153: math.inf}
    band = summary.history["eval"]["calibration_error"][306]
    assert isinstance(band, ValWithError)
    assert (band.y_min, band.y, band.y_max) == (0.0213, 0.0269, 0.0306)
    assert summary.history["test"] == {"ce": {306: 0.25}}


def test_a_file_without_log_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.txt"
    path.write_bytes(b"\xff\x00 nothing: 1;\n" * 3)
    assert not is_log(path)
    with pytest.raises(XaiError, match="no line of a FastEstimator log"):
        read_log(path)


def test_a_step_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_text("FastEstimator-Train: step: nan; ce: 1;\n")
    with pytest.raises(XaiError, match="cannot be read as a training log"):
        read_log(path)
