"""The same answers from Spark, where pyspark and Java are installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from tests.queries.test_every_run import TASKS, asked, odd_names, regression, sets_of_labels
from tests.written_run import WrittenRun
from xaicli.queries.labels import labels
from xaicli.queries.resolution import resolve
from xaicli.queries.samples import samples
from xaicli.reader import open_reader
from xaicli.recorder.run import Run

pytest.importorskip("pyspark", reason="pyspark is not installed")
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")


@pytest.mark.timeout(600)
def test_spark_answers_as_polars_does(written: WrittenRun) -> None:
    reader = open_reader(written.layout)
    here, there = resolve(reader), resolve(reader, engine="spark")
    asked = {"max": 3, "min": 3, "ids": [3, 4]}
    expected, found = samples(reader, here, **asked), samples(reader, there, **asked)  # type: ignore[arg-type]
    assert found.data.to_dicts() == expected.data.to_dicts()
    assert found.counts == expected.counts
    bounds = ["std", "range", "ci", "quantile"]
    spread = labels(reader, there, bounds=bounds).data
    assert_frame_equal(spread, labels(reader, here, bounds=bounds).data, rel_tol=1e-12)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [odd_names, regression, sets_of_labels], ids=lambda kind: kind.__name__)
def test_spark_on_odd_runs(kind: Callable[[Run, int], None], tmp_path: Path) -> None:
    """Names that differ by case or hold dots and quotes, numbers and sets as labels."""
    with Run(tmp_path / "run", task=TASKS.get(kind.__name__)) as run:
        for epoch in (1, 2):
            kind(run, epoch)
    for question in ("samples", "labels", "dynamics"):
        metric = "Loss" if kind is odd_names else "loss"
        here, there = (
            asked(tmp_path / "run", question, metric=metric, engine=engine) for engine in ("polars", "spark")
        )
        assert_frame_equal(here.data, there.data, rel_tol=1e-9, abs_tol=1e-12)
        assert here.counts == there.counts
