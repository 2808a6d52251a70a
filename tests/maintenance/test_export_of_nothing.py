"""An export that no row meets is still a file of its kind, with the columns it would have."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import xaicli

LONG = ["mode", "ds_id", "sample_id", "epoch", "pass", "step", "label", "loss", "camera"]
WIDE = ["mode", "ds_id", "sample_id", "label", "loss_1", "loss_2", "camera"]


@pytest.mark.parametrize(("shape", "columns"), [("long", LONG), ("wide", WIDE)])
def test_no_row_is_an_answer(tmp_path: Path, shape: str, columns: list[str]) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], camera=["left", "right"])
        for epoch in (1, 2):
            run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=epoch, step=epoch)
    reader = xaicli.open_run(tmp_path / "run")
    for name in ("x.csv", "x.json", "x.jsonl", "x.parquet"):
        reader.export(tmp_path / name, shape=shape, where="loss > 99")
    assert (tmp_path / "x.csv").read_text().splitlines() == [",".join(columns)]
    assert json.loads((tmp_path / "x.json").read_text()) == []
    assert (tmp_path / "x.jsonl").read_text() == ""
    assert pl.read_parquet(tmp_path / "x.parquet").columns == columns
    reader.export(tmp_path / "all.parquet", shape=shape)
    assert pl.read_parquet_schema(tmp_path / "all.parquet") == pl.read_parquet_schema(tmp_path / "x.parquet")


def test_names_of_columns_are_guarded_and_come_back(tmp_path):
    values = {"=m": [1.5, 2.5], "-x": [3.0, 4.0], "plain": [5.0, 6.0]}
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], mode="eval", epoch=1, **values)
    opened = xaicli.open_run(tmp_path / "run")
    for shape, ending in (("long", ""), ("wide", "_1")):
        opened.export(tmp_path / "x.csv", shape=shape)
        header = (tmp_path / "x.csv").read_text().splitlines()[0].split(",")
        assert [name for name in header if name.removesuffix(ending) in ("'=m", "'-x", "plain")] == [
            f"'=m{ending}",
            f"'-x{ending}",
            f"plain{ending}",
        ]
    opened.export(tmp_path / "x.parquet")
    assert {"=m", "-x"} <= set(pl.read_parquet(tmp_path / "x.parquet").columns)


@pytest.mark.parametrize("shape", ["long", "wide"])
def test_kept_probabilities_are_left_out_with_a_word(tmp_path: Path, shape: str) -> None:
    for keep in (False, True):
        with xaicli.Run(tmp_path / f"{keep}", keep_probs=keep) as run:
            run.log_samples(sample_id=[1, 2], label=[0, 1], probs=[[0.75, 0.25], [0.5, 0.5]], mode="eval", epoch=1)
        reader = xaicli.open_run(tmp_path / f"{keep}")
        answer = reader.export(tmp_path / "x.parquet", shape=shape)
        assert not [name for name in pl.read_parquet(tmp_path / "x.parquet").columns if name.startswith("probs")]
        said = [warning for warning in answer.warnings if "probs" in warning]
        assert len(said) == keep
        if keep:
            sql = said[0].split("'")[1]
            assert reader.query(sql).data["probs"].to_list() == [[0.75, 0.25], [0.5, 0.5]]
