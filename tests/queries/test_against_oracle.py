"""Samples and labels against plain Python, to the last id, on random small runs."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.written_run import WrittenRun
from xaicli.queries.labels import labels
from xaicli.queries.resolution import resolve
from xaicli.queries.samples import samples
from xaicli.reader import Reader, open_reader

# Few distinct values make ties; NaN and infinities are common.
VALUES = st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf])
INT_IDS = st.integers(-3, 8)
TEXT_IDS = st.sampled_from(["a", "b", "B", "é", "", "a/b", "10", "9", "=1+1"])


def rows(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows with repeated samples, missing epochs, a late metric, one-row groups, two attempts, two ranks."""
    row = st.fixed_dictionaries(
        {
            "pass": st.integers(0, 1),
            "correct": st.sampled_from([True, False, None]),
            "sample_id": ids,
            "epoch": st.integers(1, 4),
            "loss": VALUES,
            "label": st.one_of(st.none(), st.integers(0, 2)),
            "rank": st.integers(0, 1),
            "attempt": st.integers(0, 1),
            "late": st.integers(0, 2),
        }
    )
    return st.lists(row, min_size=1, max_size=40).map(_with_steps)


def _with_steps(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps that grow with the epoch; a run logs in the order of attempts and epochs."""
    ordered = sorted(found, key=lambda row: (row["attempt"], row["epoch"]))
    return [{**row, "step": row["epoch"] * 10 + row.pop("late")} for row in ordered]


@dataclass(frozen=True)
class Logged:
    """What was logged, how the second attempt began, and in what batches it was written."""

    rows: list[dict[str, Any]]
    trained: tuple[int, int] | None
    """Where the second attempt trained a sample."""
    said: oracle.Said
    attempts: str
    batch: int

    def everything(self) -> list[dict[str, Any]]:
        if self.trained is None:
            return self.rows
        epoch, step = self.trained
        row = {"sample_id": self.rows[0]["sample_id"], "epoch": epoch, "step": step, "loss": 0.0, "label": 0}
        return [*self.rows, {**row, "pass": 0, "correct": None, "mode": "train", "attempt": 1, "rank": 0}]

    def left(self) -> list[dict[str, Any]]:
        found = self.everything()
        kept = oracle.complete(found) if self.attempts == "all" else oracle.left(found, self.said)
        return [row for row in kept if row["mode"] == "eval"]

    def counting(self) -> list[dict[str, Any]]:
        return oracle.of_duplicates_the_last(self.left())

    @contextmanager
    def written(self) -> Iterator[Reader]:
        folder = Path(tempfile.mkdtemp())
        try:
            run = WrittenRun(folder / "run")
            for attempt, place in self.said.items():
                run.attempt(attempt, place, beside=[] if place else [0])
            found = self.everything()
            for start in range(0, len(found), self.batch):
                run.write(found[start : start + self.batch], row_group_rows=3)
            yield open_reader(run.layout, attempts=self.attempts)
        finally:
            shutil.rmtree(folder)


SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLACES = st.tuples(st.integers(1, 4), st.integers(10, 45))
RUNS = st.builds(
    Logged,
    st.one_of(rows(INT_IDS), rows(TEXT_IDS)),
    st.none() | PLACES,
    st.just({}) | st.fixed_dictionaries({1: st.none() | PLACES}),
    st.sampled_from(["last", "last", "all"]),
    st.sampled_from([1, 5, 100]),
)


METRICS = st.sampled_from(["loss", "loss", "correct"])
ENGINES = st.sampled_from(["polars", "polars", "duckdb"])


_ONE = {"pass": 0, "correct": None, "sample_id": 1, "epoch": 1, "step": 10, "label": 0, "rank": 0, "attempt": 0}
NONE_IS_FINITE = Logged([{**_ONE, "loss": math.nan}], (2, 20), {1: None}, "last", 1)


@SETTINGS
@example(NONE_IS_FINITE, 1, 1, "loss", "polars")
@given(RUNS, st.integers(0, 4), st.integers(0, 4), METRICS, ENGINES)
def test_samples(run: Logged, n_max: int, n_min: int, metric: str, engine: str) -> None:
    expected_rows = run.counting()
    if not expected_rows:
        return
    with run.written() as reader:
        listed = list(dict.fromkeys(row["sample_id"] for row in expected_rows))[:2]
        answer = samples(reader, resolve(reader, engine=engine, metric=metric), max=n_max, min=n_min, ids=listed)
        expected = oracle.samples(expected_rows, max=n_max, min=n_min, ids=listed, metric=metric)
        assert answer.data.to_dicts() == expected
        counts = answer.counts
        assert counts.rows == len(expected_rows)
        known = [row[metric] for row in expected_rows if row[metric] is not None]
        assert counts.non_finite == sum(not math.isfinite(number) for number in known)
        assert counts.duplicates == len(run.left()) - len(expected_rows)
        gone = oracle.taken_back(run.everything(), run.said) if run.attempts == "last" else {}
        assert counts.taken_back == len(gone)
        # Where samples are ranked and none has a finite value, that is said, or that the training has it.
        lacks = n_max + n_min > 0 and not any(map(math.isfinite, known))
        is_elsewhere = lacks and metric == "loss" and run.trained is not None
        assert len(answer.warnings) == len(set(gone.values())) + lacks
        assert any("train has it" in str(said) for said in answer.warnings) == is_elsewhere
        assert counts.damaged == ()


@SETTINGS
@given(RUNS, METRICS, ENGINES)
def test_labels(run: Logged, metric: str, engine: str) -> None:
    expected_rows = run.counting()
    if not expected_rows:
        return
    with run.written() as reader:
        selection = resolve(reader, engine=engine, metric=metric)
        answer = labels(reader, selection, bounds=["std", "range", "quantile", "ci", "none"])
        expected = oracle.labels(expected_rows, metric=metric)
        assert {(row["label"], row["epoch"], row["pass"]) for row in answer.data.to_dicts()} == set(expected)
        assert answer.data.height == len(expected)
        for row in answer.data.to_dicts():
            want = expected[row["label"], row["epoch"], row["pass"]]
            assert (row["n"], row["min"], row["max"]) == (want["n"], want["min"], want["max"])
            assert row["mean"] == pytest.approx(want["mean"], rel=1e-12, abs=1e-12)
            assert row["std"] == pytest.approx(want["std"], rel=1e-12, abs=1e-12)
            place = (row["epoch"], row["pass"])
            assert {row["step"]} == {r["place_step"] for r in expected_rows if (r["epoch"], r["pass"]) == place}
            bounds = row["bounds"]
            assert bounds["std"] == pytest.approx([row["mean"] - row["std"], row["mean"] + row["std"]])
            assert bounds["range"] == [row["min"], row["max"]]
            assert bounds["quantile"] == pytest.approx(want["quantile"])
            assert bounds["ci"] == pytest.approx(want["ci"])
            assert bounds["none"] is None
        assert answer.counts.rows == len(expected_rows)
        assert answer.counts.duplicates == len(run.left()) - len(expected_rows)
