"""The same answers from Spark, where pyspark and Java are installed."""

from __future__ import annotations

import shutil

import pytest
from polars.testing import assert_frame_equal

from tests.written_run import WrittenRun
from xaicli.queries.labels import labels
from xaicli.queries.samples import samples
from xaicli.queries.selection import resolve
from xaicli.reader import open_reader

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
