"""Tables of which some rows were collected with the samples' ids, and some are known by their number alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.layout import RunLayout
from xaicli.queries.embeddings import kept_vectors
from xaicli.queries.table_samples import table_samples
from xaicli.reader import open_reader

LOSS = [0.5, 3.0, 1.0, 2.0]
"""Of the rows 0 to 3 of the split val, which were collected without ids; 3.0 stands twice as high in epoch 1."""
WITH_IDS = {"ints": [100, 101], "texts": ["a/0.png", "a/1.png"], "none": [None, None]}
LIMITS = {"max": 2, "min": 0, "ids": None, "stat": "last", "complete_only": False}


def collected(path: Path, ids: Sequence[Any]) -> xaicli.Run:
    """Two epochs of a split without ids, then one of another with them."""
    with xaicli.Run(path) as run:
        run.log_facts(
            [0, 1, *(one for one in ids if isinstance(one, int))], camera=["left"] * (2 + (ids[0] == 100) * 2)
        )
        for epoch in (1, 2):
            own = {"loss": [3 * value if epoch == 1 else value for value in LOSS], "label": [0, 1, 0, 1]}
            vectors = np.arange(8.0).reshape(4, 2) + epoch
            constants = {"split": ["val"] * 4, "epoch": [epoch] * 4}
            run.add_metrics_data({"example_id": range(4), **constants, **own, "vector": vectors}, name="metrics")
        run.add_metrics_data(
            {
                "example_id": [0, 1],
                "sample_id": ids,
                "split": ["extra"] * 2,
                "epoch": [2, 2],
                "loss": [7.0, 8.0],
                "label": [1, 0],
                "vector": np.array([[9.0, 9.0], [8.0, 8.0]]),
            },
            name="metrics",
        )
    return run


@pytest.fixture(params=["ints", "texts", "none"])
def found(request: Any, tmp_path: Path) -> tuple[Path, type, list[Any]]:
    """A run, what ids of its table are, and those of the rows that have some: numbers where none has."""
    ids = WITH_IDS[request.param]
    collected(tmp_path / "run", ids)
    return tmp_path / "run", str if request.param == "texts" else int, ids if ids[0] is not None else [0, 1]


def test_each_row_is_of_its_own_sample(found: tuple[Path, type, list[Any]]) -> None:
    path, kind, ids = found
    reader = open_reader(RunLayout(path))
    answer = table_samples(reader, "metrics", mode="val", **LIMITS)
    assert answer.counts.duplicates == 0
    assert not any("labels" in words for words in answer.warnings)
    assert dict(answer.data.select("sample_id", "score").rows()) == {kind(1): 3.0, kind(3): 2.0}
    listed = table_samples(open_reader(RunLayout(path)), "metrics", mode="val", **LIMITS | {"max": 0, "ids": "2"})
    assert listed.data.select("sample_id", "score").rows() == [(kind(2), 1.0)]
    assert [point["value"] for point in listed.data["history"][0]] == [3.0, 1.0]
    both = table_samples(reader, "metrics", **LIMITS)
    assert set(both.data.select("mode", "sample_id").rows()) == {
        ("val", kind(1)),
        ("val", kind(3)),
        *(("extra", one) for one in ids),
    }


def test_dots_and_vectors_are_of_their_samples(found: tuple[Path, type, list[Any]]) -> None:
    path, kind, ids = found
    dots = xaicli.open_run(path).embeddings(epoch=2, colour="loss").data
    told = dict(zip(dots.select("split", "sample_id").rows(), dots["colour"], strict=True))
    assert told == {
        **{("val", kind(row)): LOSS[row] for row in range(4)},
        ("extra", ids[0]): 7.0,
        ("extra", ids[1]): 8.0,
    }
    vectors = kept_vectors(open_reader(RunLayout(path)), split="val")
    assert dict(zip(vectors.ids, vectors.vectors[:, 0].tolist(), strict=True)) == {
        kind(row): 2.0 * row + 2 for row in range(4)
    }


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_query_has_them_and_says_so(found: tuple[Path, type, list[Any]], engine: str) -> None:
    path, kind, ids = found
    sql = "SELECT split, sample_id, count(*) AS n FROM metrics GROUP BY split, sample_id"
    answer = xaicli.open_run(path).query(sql, engine=engine).answer
    numbered = 10 if path.exists() and ids == [0, 1] else 8
    assert answer.warnings == (
        f"{numbered} rows have no id but the example_id in table metrics, which stands as the sample_id",
    )
    told = {(split, one): n for split, one, n in answer.data.rows()}
    assert told == {**{("val", kind(row)): 2 for row in range(4)}, ("extra", ids[0]): 1, ("extra", ids[1]): 1}


def test_facts_are_those_of_ids_alone(tmp_path: Path) -> None:
    collected(tmp_path / "run", WITH_IDS["ints"])
    answer = table_samples(open_reader(RunLayout(tmp_path / "run")), "metrics", **LIMITS)
    facts = {(mode, one): known for mode, one, known in answer.data.select("mode", "sample_id", "facts").rows()}
    known = {"camera": "left"}
    assert facts == {("val", 1): None, ("val", 3): None, ("extra", 100): known, ("extra", 101): known}
    said = "facts are known by sample_id, and 4 samples say example_id alone: none are shown of these"
    assert said in answer.warnings
    dots = xaicli.open_run(tmp_path / "run").embeddings(epoch=2).answer
    assert said in dots.warnings
    assert dots.data.filter(pl.col("facts").is_not_null())["sample_id"].to_list() == [100, 101]
    limited = table_samples(open_reader(RunLayout(tmp_path / "run")), "metrics", where="camera = 'left'", **LIMITS)
    assert set(limited.data["sample_id"]) == {100, 101}
