"""Scores that are equal by their formula are equal: the smaller id comes first, whatever the engine sums first."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Xai
from tests.written_run import WrittenRun
from xaicli.queries.scores import extremes

EPOCHS = range(1, 13)
RIGHT = {i: [(i * 5 + epoch * 7 + epoch * epoch * i) % 13 < 1 + i % 12 for epoch in EPOCHS] for i in range(60)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = WrittenRun(tmp_path_factory.mktemp("ties") / "run")
    for n, epoch in enumerate(EPOCHS):
        rows = [{"sample_id": i, "epoch": epoch, "label": 0, "loss": 0.5 + i, "correct": RIGHT[i][n]} for i in RIGHT]
        run.write([{**row, "prediction": int(not row["correct"])} for row in rows])
    return run.layout.root


def exactly(values: list[bool], stat: str) -> Fraction:
    """Of the statistics the square of the standard deviation, the mean, or the slope on the epoch, as fractions."""
    n, total = len(values), sum(values)
    if stat == "mean":
        return Fraction(total, n)
    if stat == "std":
        return Fraction(total * (n - total), n * (n - 1))
    times = list(EPOCHS)
    above = n * sum(t * v for t, v in zip(times, values, strict=True)) - sum(times) * total
    return Fraction(above, n * sum(t * t for t in times) - sum(times) ** 2)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("stat", ["std", "mean", "slope"])
def test_equal_statistics_of_right_and_wrong(root: Path, stat: str, engine: str, xai: Xai) -> None:
    arguments = ("--metric", "correct", "--stat", stat, "--max", 60, "--min", 60, "--engine", engine, "--json")
    status, out, err = xai("samples", root, *arguments)
    assert status == 0, err
    rows: list[dict[str, Any]] = json.loads(out)["rows"]
    exact = {i: exactly(values, stat) for i, values in RIGHT.items()}
    assert len(set(exact.values())) < 40  # many of them are equal
    for group, sign in (("max", -1), ("min", 1)):
        found = [row["sample_id"] for row in rows if row["group"] == group]
        assert found == sorted(exact, key=lambda i: (sign * exact[i], i))


def test_the_hardest_by_a_spread_are_those_that_changed_most(root: Path, xai: Xai) -> None:
    arguments = ("--rule", "hardest", "--metric", "correct", "--stat", "std", "--n", 12, "--mode", "eval", "--json")
    status, out, err = xai("select", root, *arguments)
    assert status == 0, err
    exact = {i: exactly(values, "std") for i, values in RIGHT.items()}
    found = [row["sample_id"] for row in json.loads(out)["rows"]]
    assert found == sorted(exact, key=lambda i: (-exact[i], i))[:12]


def test_recorded_values_are_told_apart_to_the_last_digit() -> None:
    # Of computed scores these two are one.
    scores = pl.DataFrame({"sample_id": [1, 2, 3], "score": [0.5, 0.5 + 1e-15, 0.25]})
    assert extremes(scores, 2, highest=True, computed=False)["sample_id"].to_list() == [2, 1]
    assert extremes(scores, 2, highest=True)["sample_id"].to_list() == [1, 2]
    assert extremes(scores, 1, highest=True)["sample_id"].to_list() == [1]
