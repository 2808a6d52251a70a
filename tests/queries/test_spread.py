"""The spread of values within groups against the standard library, and with as many groups as there are rows."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xaicli
from xaicli.layout import RunLayout
from xaicli.queries import spread as spread_module
from xaicli.queries.labels import labels
from xaicli.queries.resolution import resolve
from xaicli.queries.spread import Groups, statistics_of
from xaicli.reader import open_reader

ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.one_of(st.none(), st.floats(-1e6, 1e6, width=32), st.just(1e30))), max_size=60
)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.sampled_from([pl.Int32, pl.String]), st.sampled_from([pl.Float32, pl.Float64]), st.integers(1, 70))
def test_equals_the_standard_library(rows: list[tuple[int, float | None]], key: Any, kind: Any, block: int) -> None:
    keys = pl.Series("label", [number for number, _ in rows], pl.Int32).cast(key)
    values = pl.Series([value for _, value in rows], dtype=pl.Float64).cast(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread_module, "_BLOCK", block)
        found = pl.DataFrame(statistics_of(Groups.of(keys), values, quantiles=True))
    by_key: dict[Any, list[float]] = defaultdict(list)
    for name, value in zip(keys, values, strict=True):
        if value is not None:
            by_key[name].append(value)
    assert found["label"].to_list() == sorted(by_key)
    for row in found.iter_rows(named=True):
        numbers = by_key[row["label"]]
        assert (row["n"], row["min"], row["max"]) == (len(numbers), min(numbers), max(numbers))
        size = max(map(abs, numbers))
        assert row["mean"] == pytest.approx(math.fsum(numbers) / len(numbers), rel=1e-12, abs=1e-12 * size)
        std = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
        assert row["std"] == pytest.approx(std, rel=1e-12, abs=1e-12 * size)
        quantiles = np.quantile(np.array(numbers), [0.05, 0.5, 0.95])
        assert [row["q05"], row["q50"], row["q95"]] == pytest.approx(quantiles, rel=1e-12, abs=1e-12 * size)


def test_groups_fit_only_the_same_keys() -> None:
    groups = Groups.of(pl.Series("label", [3, 1, 3]))
    assert groups.fit(pl.Series("label", [3, 1, 3]))
    assert not groups.fit(pl.Series("label", [3, 3, 1]))
    assert not groups.fit(pl.Series("label", [3, 1]))
    assert not groups.fit(pl.Series("label", ["3", "1", "3"]))


def test_a_million_labels(tmp_path: Path) -> None:
    n = 1_000_000
    values = np.random.default_rng(0).random(n, dtype=np.float32)
    numbers = np.arange(n)
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        for part in np.array_split(numbers, 20):
            run.log_samples(sample_id=part, label=n - part, loss=values[part], mode="eval", epoch=1, step=7)
    reader = open_reader(RunLayout(tmp_path / "run"))
    data = labels(reader, resolve(reader), bounds=["std", "range"]).data
    assert data.height == n
    assert data["label"].to_list() == list(range(1, n + 1))
    assert data["mean"].to_list() == values[::-1].astype(float).tolist()
    assert (data["n"] == 1).all()
    assert (data["std"] == 0.0).all()
