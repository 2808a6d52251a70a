"""Arrow's names of types become polars' types, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import xaicli
from xaicli.reader.rows import dtype_of

SAMPLE_RUN = Path(__file__).parents[2] / "sample_data" / "run"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float", pl.Float32()),
        ("dictionary<values=string, indices=int32, ordered=0>", pl.String()),
        ("list<halffloat>", pl.List(pl.Float16())),  # as `xai.json` spells it
        ("list<element: halffloat>", pl.List(pl.Float16())),  # as Parquet does
        ("fixed_size_list<item: float not null>[3]", pl.List(pl.Float32())),
        ("list<item: list<item: string>>", pl.List(pl.List(pl.String()))),
        ("list<list<double>>", pl.List(pl.List(pl.Float64()))),
    ],
)
def test_the_type_behind_a_name(name: str, dtype: pl.DataType) -> None:
    assert dtype_of(name) == dtype


def test_a_run_with_kept_probabilities_is_scanned() -> None:
    rows = xaicli.open_run(SAMPLE_RUN).scan(mode="eval").collect()
    assert rows.height == 12 * 360
    sums = rows["probs"].list.eval(pl.element().cast(pl.Float64)).list.sum()
    assert sums.is_between(0.99, 1.01).all()


def test_pandas_reads_the_recorded_run_by_its_default_call() -> None:
    rows = pd.read_parquet(SAMPLE_RUN / "data")
    assert len(rows) == 12 * 1797
    assert rows["mode"].value_counts().to_dict() == {"train": 12 * 1437, "eval": 12 * 360}
