"""Columns made of memory: what `pa.array` makes of the same, and no pandas in a training that hands over none."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import xaicli
from xaicli.wal.arrays import column

DAY, MOMENT = date(1960, 1, 2), datetime(1960, 1, 2, 3, 4, 5, 6)
RECORD = """
import sys, numpy as np, xaicli
from datetime import date, datetime
with xaicli.Run(sys.argv[1], strict=True, label_names=["cat", "dog"]) as run:
    run.log({"lr": 0.5, "momentum": 1})
    run.log_samples(sample_id=["a", "b"], label=["cat", None], logits=np.eye(2), mode="eval", epoch=1, step=1)
    run.log_images(["a", "b"], np.zeros((2, 4, 4, 3), np.uint8))
    run.log_inputs(["a", "b"], np.zeros((2, 3), np.int64), label=["cat", "dog"], tokens=["x", "y"])
    run.log_facts(
        ["a", "b"], camera=["left", None], lux=np.array([1.5, 2.5]), n=[1, 2], is_new=True, day=date(2026, 1, 2),
        at=[datetime(2026, 1, 2, 3), None], kind=np.array(["u", "v"]),
    )
    assert "pandas" not in sys.modules, "in a step"
assert "pandas" not in sys.modules, "in the writer's thread"
"""


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", None, "é", ""], None),
        (("a",), pa.string()),
        ([b"a", None], pa.binary()),
        ([1, None, -(2**63)], None),
        ([1, None], pa.int8()),
        (range(3), pa.int32()),
        ([1.5, None, float("inf")], None),
        ([1.5], pa.float32()),
        ([1, 2], pa.float64()),
        ([True, None, False] * 5, None),
        ([DAY, None, date.max, date.min], None),
        ([MOMENT, None, datetime.max, datetime.min], None),
        ([1, 2.5], None),
        ([None, None], None),
        ([None, None], pa.int32()),
        ([], None),
        ([], pa.string()),
        ([[1, 2], None, [], (3,)], pa.list_(pa.int32())),
        ([["a", None], None], pa.list_(pa.string())),
        ([None], pa.list_(pa.string())),
        ([{"a": 1}], None),
        (np.arange(6)[::2], None),
        (np.arange(3), pa.int32()),
        (np.array([True, False] * 9)[::-1], None),
        (np.array(["a", "b"]), None),
    ],
    ids=repr,
)
def test_as_arrow_itself(values: Any, kind: Any) -> None:
    made, expected = column(values, kind), pa.array(values, kind)
    made.validate(full=True)
    assert (made.type, made.null_count) == (expected.type, expected.null_count)
    assert made.equals(expected)


@pytest.mark.parametrize(
    ("values", "kind"), [([300], pa.int8()), ([2**70], None), (["\ud800"], None), ([1, "a"], None), ([1], pa.string())]
)
def test_refused_as_by_arrow_itself(values: Any, kind: Any) -> None:
    with pytest.raises(Exception) as expected:
        pa.array(values, kind)
    with pytest.raises(type(expected.value)):
        column(values, kind)


def test_a_training_without_pandas_imports_none(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RECORD, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    import pyarrow.parquet as pq

    (facts,) = (tmp_path / "run" / "facts").glob("*.parquet")
    assert pq.read_table(facts).to_pylist() == [
        {
            "sample_id": "a",
            "camera": "left",
            "lux": 1.5,
            "n": 1,
            "is_new": True,
            "day": date(2026, 1, 2),
            "at": datetime(2026, 1, 2, 3),
            "kind": "u",
        },
        {
            "sample_id": "b",
            "camera": None,
            "lux": 2.5,
            "n": 2,
            "is_new": True,
            "day": date(2026, 1, 2),
            "at": None,
            "kind": "v",
        },
    ]
    found = xaicli.open_run(tmp_path / "run").query("SELECT key, value FROM scalars ORDER BY key").data
    assert found.select("key", "value").rows() == [("lr", 0.5), ("momentum", 1.0)]
