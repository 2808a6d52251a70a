"""The recipes of the documents record every sample of every epoch, with the model's own losses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

import xaicli

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the recipes leave behind, in a folder with their runs."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    folder = tmp_path_factory.mktemp("recipes")
    found: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in re.findall(
            r"```python\n(.*?)```", (ROOT / "docs/recipes.md").read_text(encoding="utf-8"), re.DOTALL
        ):
            exec(compile(code, "recipes.md", "exec"), found)
    return found


def rows(names: dict[str, Any], run: str, mode: str) -> pl.DataFrame:
    return xaicli.open_run(names["folder"] / "runs" / run).scan(mode=mode).collect()


@pytest.mark.parametrize(
    ("run", "mode", "ds_id", "n"),
    [
        ("accelerate", "train", "", 64), ("accelerate", "eval", "", 64), ("handlers", "train", "", 64),
        ("detector", "train", "", 64), ("script", "train", "", 64), ("script", "eval", "", 64),
        ("script", "eval", "ema", 64),
    ],
)  # fmt: skip
def test_every_sample_of_every_epoch(names: dict[str, Any], run: str, mode: str, ds_id: str, n: int) -> None:
    frame = rows(names, run, mode).filter(pl.col("ds_id") == ds_id)
    counted = frame.group_by("epoch").agg(pl.len(), pl.col("sample_id").n_unique().alias("ids")).sort("epoch")
    assert counted.rows() == [(1, n, n), (2, n, n)]


def test_losses_are_the_model_s_own(names: dict[str, Any]) -> None:
    x = names["x"]
    y = (x[:, 0] > 0).long()
    last = pl.col("epoch") == 2
    for ds_id, model in (("", names["net"]), ("ema", names["average"])):
        got = rows(names, "script", "eval").filter(last & (pl.col("ds_id") == ds_id)).sort("sample_id")
        with torch.no_grad():
            expected = functional.cross_entropy(model(x), y, reduction="none")
        assert got["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    got = rows(names, "detector", "train").filter(last).sort("sample_id")
    assert got["sample_id"].to_list() == [f"images/{k:03}.jpg" for k in range(64)]
    assert got["loss"].to_list() == pytest.approx(x.square().mean(1).tolist(), abs=1e-6)
    handled = rows(names, "handlers", "train")
    assert sorted(handled["step"].unique()) == list(range(1, 9))
    assert dict(handled.select("sample_id", "label").iter_rows()) == dict(enumerate(y.tolist()))
