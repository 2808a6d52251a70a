"""A real training on real human labels, where one is at hand: the combined ranking is no worse than the mean loss.

`XAI_TEST_RECORDING` names an .npz of `logits` float32 (sample, epoch, class), `given` and `clean` labels.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.dynamics.label_issues import label_issues
from xaicli.dynamics.statistics import dynamics
from xaicli.layout import RunLayout
from xaicli.queries.resolution import resolve
from xaicli.reader import open_reader

RECORDING = os.environ.get("XAI_TEST_RECORDING", "")


@pytest.mark.skipif(not RECORDING, reason="XAI_TEST_RECORDING names no recording")
def test_suspects_of_a_recorded_training(tmp_path: Path) -> None:
    recording = np.load(RECORDING)
    logits, given, clean = (recording[name] for name in ("logits", "given", "clean"))
    n, epochs, _ = logits.shape
    draw = np.random.default_rng(0)
    with xaicli.Run(tmp_path / "run", keep_probs=True) as run:
        for epoch in range(epochs):
            for ids in np.array_split(draw.permutation(n), n // 100):
                label = given[ids].astype(np.int64)
                run.log_samples(sample_id=ids, label=label, logits=logits[ids, epoch], mode="train", epoch=epoch + 1)
    truth = tmp_path / "truth.csv"
    pl.DataFrame({"sample_id": range(n), "label": clean}).write_csv(truth)
    reader = open_reader(RunLayout(tmp_path / "run"))
    selection = resolve(reader, mode="train")
    grades = dynamics(reader, selection, truth=truth).extra["truth"]
    for measure in ("auroc", "ap", "p_at_100"):
        assert grades["suspects"][measure] >= grades["loss_mean"][measure] > grades["loss_last"][measure]
    issues = label_issues(reader, selection).data["sample_id"].to_numpy()
    assert (given[issues] != clean[issues]).mean() > 1.5 * (given != clean).mean()
