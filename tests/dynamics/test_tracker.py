"""One pass over the epochs against the plain-Python oracle, and histories worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dynamics import dynamics_oracle as oracle
from xaicli.dynamics.metrics import Plan
from xaicli.dynamics.tracker import Tracker

METRICS = ("loss", "label_prob", "margin", "el2n")
SCHEMA = {
    "label": pl.Int32,
    "correct": pl.Boolean,
    **dict.fromkeys(METRICS, pl.Float32),
}
PLAN = Plan(("loss",), frozenset(SCHEMA), "label", early_epochs=3, burn_in=1)


@pytest.fixture(scope="module")
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def track(rows: list[dict[str, Any]], workers: ThreadPoolExecutor, plan: Plan = PLAN) -> pl.DataFrame:
    """The statistics of rows, epoch by epoch."""
    id_type = pl.String() if isinstance(rows[0]["sample_id"], str) else pl.Int64()
    tracker = Tracker(replace(plan, id_type=id_type), workers)
    label_type = pl.String if isinstance(rows[0]["label"], str) else pl.Int32
    for epoch in sorted({row["epoch"] for row in rows}):
        there = [row for row in rows if row["epoch"] == epoch]
        schema = {"sample_id": id_type, **SCHEMA, "label": label_type}
        tracker.add(epoch, pl.DataFrame(there, schema={k: v for k, v in schema.items() if k in there[0]}))
    return tracker.frame()


def assert_same(frame: pl.DataFrame, expected: dict[Hashable, dict[str, Any]]) -> None:
    assert frame["sample_id"].to_list() == sorted(expected)  # type: ignore[type-var]
    for row in frame.iter_rows(named=True):
        for name, value in expected[row["sample_id"]].items():
            if isinstance(value, float) and not isinstance(value, bool):
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (name, row["sample_id"])
            else:
                assert row[name] == value, (name, row["sample_id"])


values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.5, None, math.nan, math.inf, -math.inf]),
    st.floats(-8, 8, width=32),
)
few_values = st.sampled_from([0.0, 1.0, 2.0])


@st.composite
def recorded(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of a few epochs: samples come late, stay away and return, in any order within an epoch."""
    kind = draw(st.sampled_from(["dense", "sparse", "text"]))
    n = draw(st.integers(1, 7))
    ids: list[Any] = {"dense": list(range(-2, n)), "sparse": [i * 10**11 for i in range(n)], "text": list("zyxwvut")}[
        kind
    ]
    metric = draw(st.sampled_from([values, few_values]))
    rows = []
    for epoch in sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=6))):
        for key in draw(st.lists(st.sampled_from(ids), min_size=1, unique=True)):
            row = {name: draw(metric) for name in METRICS}
            correct = draw(st.sampled_from([True, False, None]))
            rows.append(
                {"epoch": epoch, "sample_id": key, "label": draw(st.sampled_from([3, 4, None])), "correct": correct}
                | row
            )
    return rows


@settings(max_examples=120, deadline=None)
@given(rows=recorded())
def test_equals_the_oracle(rows: list[dict[str, Any]], workers: ThreadPoolExecutor) -> None:
    rounded = [
        {k: float(np.float32(v)) if isinstance(v, float) and k in METRICS else v for k, v in row.items()}
        for row in rows
    ]
    assert_same(track(rows, workers), oracle.dynamics(rounded, early_epochs=3, burn_in=1))
