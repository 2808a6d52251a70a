"""`--where`: only rows that meet a condition, in every question, as plain Python picks them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.written_run import WrittenRun
from xaicli import XaiError
from xaicli.api import open_run

ROWS: list[dict[str, Any]] = [
    {
        "sample_id": sample_id,
        "epoch": epoch,
        "step": 10 * epoch,
        "mode": "eval",
        "label": sample_id % 3,
        "prediction": (sample_id + epoch) % 3,
        "correct": (sample_id + epoch) % 3 == sample_id % 3,
        "loss": round(((7 * sample_id + 3 * epoch) % 11) / 4, 2),
    }
    for epoch, sample_id in itertools.product((1, 2, 3), range(12))
]
CONDITIONS = {
    "loss > 1": lambda row: row["loss"] > 1,
    "label = 1 AND NOT correct": lambda row: row["label"] == 1 and not row["correct"],
    "epoch >= 2 AND mode = 'eval'": lambda row: row["epoch"] >= 2,
    "sample_id IN (3, 4, 5) OR prediction = label": lambda r: (
        r["sample_id"] in (3, 4, 5) or r["prediction"] == r["label"]
    ),
    "sample_id < 4": lambda row: row["sample_id"] < 4,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = WrittenRun(tmp_path_factory.mktemp("where") / "run")
    written.write(ROWS)
    return written.layout.root


@pytest.mark.parametrize("condition", CONDITIONS)
def test_samples(run: Path, condition: str) -> None:
    answer = open_run(run).samples(max=100, min=0, where=condition).answer
    kept = [row for row in ROWS if CONDITIONS[condition](row)]
    expected = {
        sample_id: [(row["epoch"], row["loss"]) for row in rows]
        for sample_id, rows in itertools.groupby(
            sorted(kept, key=lambda r: (r["sample_id"], r["epoch"])), lambda r: r["sample_id"]
        )
    }
    found = {
        row["sample_id"]: [(point["epoch"], point["value"]) for point in row["history"]]
        for row in answer.data.iter_rows(named=True)
    }
    assert found == expected
    assert answer.counts.rows == len(kept)
    assert answer.selection["where"] == condition


@pytest.mark.parametrize("condition", CONDITIONS)
def test_labels_and_dynamics(run: Path, condition: str) -> None:
    kept = [row for row in ROWS if CONDITIONS[condition](row)]
    of_labels = {
        (row["label"], row["epoch"]): row["n"] for row in open_run(run).labels(where=condition).data.to_dicts()
    }
    counted: dict[tuple[int, int], int] = {}
    for row in kept:
        counted[row["label"], row["epoch"]] = counted.get((row["label"], row["epoch"]), 0) + 1
    assert of_labels == counted
    seen = dict(open_run(run).dynamics(where=condition).data.select("sample_id", "n_obs").iter_rows())
    assert seen == {s: sum(row["sample_id"] == s for row in kept) for s in {row["sample_id"] for row in kept}}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_rows_and_export(run: Path, tmp_path: Path, condition: str) -> None:
    kept = sorted((row["sample_id"], row["epoch"]) for row in ROWS if CONDITIONS[condition](row))
    assert sorted(open_run(run).scan(where=condition).select("sample_id", "epoch").collect().rows()) == kept
    open_run(run).export(tmp_path / "x.jsonl", where=condition)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert sorted((line["sample_id"], line["epoch"]) for line in lines) == kept


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("loss >", "cannot be asked"),
        ("nosuch = 1", "nosuch"),
        ("label = 'cat'", "cannot be asked"),
        ("loss", "is no condition"),
        ("max(loss) = loss", "several rows"),
        ("count(*) > 2", "several rows"),
        ("row_number() OVER (ORDER BY loss) = 1", "several rows"),
        ("loss > 1; DROP TABLE x", "cannot be asked"),
    ],
)
def test_what_is_no_condition_is_refused(run: Path, condition: str, said: str) -> None:
    with pytest.raises(XaiError, match=said) as refused:
        open_run(run).samples(where=condition)
    assert refused.value.exit_status == 2
    assert refused.value.hint


def test_other_engines_refuse_it(run: Path) -> None:
    with pytest.raises(XaiError, match="--where does not run on --engine duckdb"):
        open_run(run).samples(where="loss > 1", engine="duckdb")
