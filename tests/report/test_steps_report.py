"""What the page of a step says of its batch."""

from __future__ import annotations

import numpy as np
import pytest

import xaicli
from xaicli.report.model import Table
from xaicli.report.page import Page
from xaicli.report.steps import _batch_blocks


@pytest.mark.parametrize(("q", "told"), [(0.05, True), (0.0501, False)])
def test_what_stands_out_in_a_mix_is_told_from_one_in_twenty_on(tmp_path, q: float, told: bool) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(60):
            losses = np.linspace(0.9, 1.1, 6) * (50.0 if step == 30 else 1.0 + step % 3 / 100)
            run.log_samples(sample_id=np.arange(6), loss=losses, label=np.arange(6) % 2, mode="train", step=step)
    (spike,) = xaicli.open_run(tmp_path / "run").steps().answer.extra["spikes"]
    assert spike["step"] == 30
    mix = [{**spike["mix"][0], "q": q}]
    blocks = list(_batch_blocks({**spike, "mix": mix}, "loss", "step 30", Page(), "spike"))
    titles = [block.title for block in blocks if isinstance(block, Table)]
    assert any("mix" in title for title in titles) is told
