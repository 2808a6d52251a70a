"""For tests of what writes run directories: runs drawn by hypothesis, and what every reader of them relies on.

    from pathlib import Path
    from xaicli.testing import RowsContract

    class TestMyWriter(RowsContract):
        def written(self, rows, folder: Path) -> Path:
            ...  # write the rows with your program, import them, and return the run directory

pytest then draws rows and asks xai about them. Needs `pip install hypothesis pytest`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Row = dict[str, Any]
"""One row: mode, ds_id, epoch, eval_pass, step, sample_id, label, prediction, metrics, as `Run.log_samples` takes."""

_PLACE = ("mode", "ds_id", "epoch", "eval_pass", "step")
_CALM = (HealthCheck.differing_executors, HealthCheck.too_slow)
EXAMPLES = 6
"""How many runs each test draws."""

numbers = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf])
"""Values that single precision holds."""


@st.composite
def rows(draw: st.DrawFn, *, metrics: Sequence[str] = ("loss", "margin"), most: int = 12) -> list[Row]:
    """Rows of one run, in the order of training: several modes, data sets, epochs and passes, with missing values.

    No sample comes twice in one pass. Ids are all whole numbers or all texts, labels and predictions whole numbers.

    Args:
        metrics: The metrics that every row has; None where a value is missing.
        most: At most so many rows of one pass.
    """
    ids = draw(
        st.sampled_from(
            [
                st.integers(-(2**63), 2**63 - 1),
                st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8).map("s{}".format),
            ]
        )
    )
    known = draw(st.lists(ids, min_size=1, max_size=most, unique=True))
    labels = st.none() | st.integers(0, 2**31 - 1)
    sets = draw(
        st.lists(
            st.tuples(st.sampled_from(["train", "eval", "test", "infer"]), st.sampled_from(["", "a", "b/c"])),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    found: list[Row] = []
    step = draw(st.integers(0, 2**40))
    for epoch in sorted(draw(st.sets(st.integers(0, 1_000), min_size=1, max_size=3))):
        for mode, ds_id in sets:
            for eval_pass in range(draw(st.integers(1, 2))):
                for sample_id in draw(st.permutations(known))[: draw(st.integers(1, most))]:
                    values = {name: draw(st.none() | numbers) for name in metrics}
                    place = {"mode": mode, "ds_id": ds_id, "epoch": epoch, "eval_pass": eval_pass, "step": step}
                    labelled = {"label": draw(labels), "prediction": draw(labels)}
                    found.append({**place, "sample_id": sample_id, **labelled, **values})
                step += 1
    return found


@st.composite
def scalars(draw: st.DrawFn, *, most: int = 12) -> list[tuple[int, dict[str, float]]]:
    """What a training logs over time: (step, {key: value}), the steps rising; values that single precision holds."""
    steps = sorted(draw(st.sets(st.integers(0, 2**40), min_size=1, max_size=most)))
    keys = st.sampled_from(["loss", "train/loss", "lr", "Größe", "val/acc.top1"])
    return [(step, draw(st.dictionaries(keys, numbers, min_size=1, max_size=3))) for step in steps]


def record(rows: Sequence[Mapping[str, Any]], folder: Path, **options: Any) -> Path:
    """Rows into a run directory, with `xaicli.Run`.

    Args:
        rows: As `rows` draws them.
        folder: The run directory to make.
        options: Those of `Run`.
    """
    from xaicli.recorder.run import Run

    with Run(folder, strict=True, **options) as run:
        for place, some in groupby(rows, key=lambda row: tuple(row[name] for name in _PLACE)):
            part = list(some)
            columns: dict[str, Any] = {name: [row[name] for row in part] for name in part[0] if name not in _PLACE}
            run.log_samples(**dict(zip(_PLACE, place, strict=True)), **columns)
    return folder


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, NaN and NaN among them."""
    return bool(one == other) or (isinstance(one, float) and isinstance(other, float) and one != one and other != other)


class RowsContract:
    """What xai reads of rows that were written into a run directory: each value, each count, each history.

    Subclass it in a test module under a name that begins with `Test`.
    """

    def written(self, rows: list[Row], folder: Path) -> Path:
        """Write the rows, in their order, and return the run directory.

        Args:
            rows: As `rows` draws them.
            folder: An empty folder of the test's own.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how rows are written")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=_CALM)
    @given(drawn=rows())
    def test_every_value_is_read_as_it_was_written(self, drawn: list[Row]) -> None:
        """Value by value, NaN, infinities and missing ones among them."""
        from xaicli.api import open_run

        with tempfile.TemporaryDirectory() as folder:
            run = self.written(drawn, Path(folder))
            read = open_run(run).scan(mode="all").collect().rename({"pass": "eval_pass"}).to_dicts()
        key = (*_PLACE, "sample_id")
        by_place = {tuple(row[name] for name in key): row for row in read}
        assert len(read) == len(by_place) == len(drawn)
        for row in drawn:
            found = by_place[tuple(row[name] for name in key)]
            wrong = {name: (value, found.get(name)) for name, value in row.items() if not same(value, found.get(name))}
            assert not wrong, f"{row['sample_id']!r}: written and read {wrong}"

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=_CALM)
    @given(drawn=rows())
    def test_rows_and_non_finite_values_are_counted(self, drawn: list[Row]) -> None:
        """The counts of `samples` are those of the rows, and the history of a sample has every pass of it."""
        from xaicli.api import open_run

        with tempfile.TemporaryDirectory() as folder:
            run = self.written(drawn, Path(folder))
            answer = open_run(run).samples(mode="all", metric="loss", ids=[drawn[0]["sample_id"]], max=0, min=0).answer
        assert answer.counts.rows == len(drawn)
        assert answer.counts.non_finite == sum(
            row["loss"] is not None and not math.isfinite(row["loss"]) for row in drawn
        )
        expected: dict[Any, list[Any]] = {}
        for row in drawn:
            if row["sample_id"] == drawn[0]["sample_id"]:
                # A history has null for what is missing or not finite.
                value = row["loss"] if row["loss"] is not None and math.isfinite(row["loss"]) else None
                expected.setdefault((row["mode"], row["ds_id"]), []).append((row["epoch"], row["eval_pass"], value))
        assert expected == {
            (row["mode"], row["ds_id"]): [(one["epoch"], one["pass"], one["value"]) for one in row["history"]]
            for row in answer.data.to_dicts()
        }


class ScalarsContract:
    """What xai reads of values over time that were written into a run directory.

    Subclass it in a test module under a name that begins with `Test`.
    """

    def written(self, logged: list[tuple[int, dict[str, float]]], folder: Path) -> Path:
        """Write the values, in their order, and return the run directory.

        Args:
            logged: As `scalars` draws them.
            folder: An empty folder of the test's own.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how scalars are written")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=_CALM)
    @given(logged=scalars())
    def test_every_value_stands_at_its_step(self, logged: list[tuple[int, dict[str, float]]]) -> None:
        """Value by value, NaN and infinities among them."""
        from xaicli.api.runs import scalars as asked

        with tempfile.TemporaryDirectory() as folder:
            answer = asked(self.written(logged, Path(folder))).answer
        found = {(row["step"], row["key"]): row["value"] for row in answer.data.to_dicts()}
        expected = {(step, key): value for step, values in logged for key, value in values.items()}
        assert len(answer.data) == len(found)
        assert found.keys() == expected.keys()
        assert {key: (value, found[key]) for key, value in expected.items() if not same(value, found[key])} == {}
        assert answer.counts.non_finite == sum(not math.isfinite(value) for value in expected.values())
