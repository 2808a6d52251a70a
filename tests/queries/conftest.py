"""A small run that every question can be asked of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.written_run import WrittenRun

N = 12
EPOCHS = (1, 2, 3, 4)


def rows() -> list[dict[str, Any]]:
    """Two modes, two ds_ids of eval; sample 3 absent from the last epoch, sample 4 not finite once."""
    found = []
    for mode, ds_id in (("train", ""), ("eval", "a"), ("eval", "b")):
        for epoch in EPOCHS:
            for i in range(N):
                if mode == "eval" and i == 3 and epoch == 4:
                    continue
                loss = math.nan if (i, epoch, ds_id) == (4, 2, "a") else (i + 1) / epoch + (ds_id == "b") * 100
                row = {"sample_id": i, "mode": mode, "ds_id": ds_id, "epoch": epoch, "label": i % 3, "loss": loss}
                found.append({**row, "prediction": (i + (epoch < 3)) % 3, "correct": epoch >= 3, "margin": -loss})
    return found


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> WrittenRun:
    run = WrittenRun(tmp_path_factory.mktemp("queries") / "run", label_names=("cat", "dog", "eel"))
    run.write(rows())
    return run


@pytest.fixture
def root(written: WrittenRun) -> Path:
    return written.layout.root
