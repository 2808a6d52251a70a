"""Whatever happens to a file's bytes, a question ends in the right numbers or names the file; never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from tests.written_run import WrittenRun
from xaicli.api import RunReader
from xaicli.layout import RunLayout
from xaicli.sources.inputs import BadSampleError
from xaicli.sources.pictures import Preparation
from xaicli.sources.table import open_kept


def questions(run: RunReader) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Every answer, comparable, and the files left out."""
    asked = {
        "samples": run.samples(max=3, min=3),
        "labels": run.labels(bounds=["std", "quantile"]),
        "query": run.query(
            "SELECT epoch, count(*) AS n, ROUND(SUM(loss), 2) AS total FROM samples GROUP BY epoch ORDER BY epoch"
        ),
    }
    answers = {name: (result.data.to_dicts(), result.answer.counts.damaged or ()) for name, result in asked.items()}
    lazy = run.scan(mode="all").select(pl.col("loss").sum(), pl.col("sample_id").sum())
    answers["scan"] = (lazy.collect().to_dicts(), answers["query"][1])
    return answers


def flipped(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def zeroed(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    length = rng.randrange(1, 200)
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def footer_flipped(content: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(content[-8:-4], "little") + 8
    return content[:-size] + flipped(content[-size:], rng)


@pytest.mark.parametrize("mutate", [flipped, cut, zeroed, footer_flipped])
def test_recorded_files(tmp_path: Path, mutate: Callable[[bytes, random.Random], bytes]) -> None:
    rng = random.Random(0)
    run = WrittenRun(tmp_path / "run")
    paths = run.write(
        {"sample_id": i, "epoch": epoch, "label": i % 4, "loss": rng.random()} for epoch in (1, 2) for i in range(60)
    )
    truth = questions(RunReader(run.layout))
    content = paths[1].read_bytes()
    name = paths[1].relative_to(run.layout.root).as_posix()
    for _ in range(25):
        spoilt = mutate(content, rng)
        paths[1].write_bytes(spoilt)
        for question, (rows, damaged) in questions(RunReader(run.layout)).items():
            assert damaged == (name,) or (damaged == () and rows == truth[question][0]), question
    paths[1].write_bytes(content)
    assert questions(RunReader(run.layout)) == truth


def test_kept_inputs(tmp_path: Path) -> None:
    """A bit anywhere in one of two files: the samples of the other are as they were, the first is whole or named."""
    kept = np.arange(80, dtype=np.float32).reshape(4, 20)
    with xaicli.Run(tmp_path / "run") as run:
        for part in ([0, 1], [2, 3]):
            run.log_inputs(part, kept[part], label=[0, 1])
            run.flush()
    first = min((tmp_path / "run" / "inputs").glob("*.parquet"))
    whole = first.read_bytes()
    for place in range(4, len(whole), 7):
        first.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        source = open_kept(RunLayout(tmp_path / "run"), None, Preparation(), strict=False)
        found = {}
        for at, sample_id in enumerate(source.sample_ids):
            try:
                found[sample_id] = next(iter(source.read(at).arrays.values()))
            except BadSampleError:
                continue
        assert np.array_equal(found[2], kept[2]), place
        assert np.array_equal(found[3], kept[3]), place
        assert {0, 1} <= set(source.sample_ids) or first.name in "".join(source.told()), place


def test_both_engines_of_a_query_name_what_is_damaged_of_that_which_it_reads(xai: Any, tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
        run.log({"step": 1, "lr": 0.5})
        run.add_metrics_data({"sample_id": [0, 1], "iou": [0.5, 0.25]}, name="Boxes")
    (file,) = (tmp_path / "run" / "scalars").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    for sql, rows, damaged in (
        ("SELECT sample_id FROM samples", 2, []),
        ("SELECT iou FROM 'Boxes'", 2, []),
        ('SELECT iou FROM "Boxes"', 2, []),
        ("SELECT key FROM SCALARS", 0, [f"scalars/{file.name}"]),
    ):
        for engine in ("polars", "duckdb")["'" in sql or "SCALARS" in sql :]:
            told = json.loads(xai("query", tmp_path / "run", sql, "--engine", engine, "--json")[1])
            assert (len(told["rows"]), told["counts"]["damaged"]) == (rows, damaged), (engine, sql)


@pytest.mark.parametrize("store", ["media", "inputs"])
def test_info_names_what_is_damaged_beside_the_rows(xai: Any, tmp_path: Path, store: str) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0, 1], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
        pictures = np.zeros((2, 8, 8, 1), np.uint8)
        run.log_images([0, 1], pictures) if store == "media" else run.log_inputs([0, 1], pictures)
    assert json.loads(xai("info", tmp_path / "run", "--json")[1])["counts"]["damaged"] == []
    (file,) = (tmp_path / "run" / store).glob("*.parquet")
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:half] + bytes([content[half] ^ 16]) + content[half + 1 :])
    assert json.loads(xai("info", tmp_path / "run", "--json")[1])["counts"]["damaged"] == [f"{store}/{file.name}"]
    status, _, err = xai("info", tmp_path / "run", "--strict")
    assert (status, file.name in err) == (1, True)
    # A page of samples reads pictures: it goes without, or is refused.
    page = ["samples", tmp_path / "run", "--format", "html", "-o", tmp_path / "page"]
    assert xai(*page)[0] == 0
    assert xai(*page, "--strict")[0] == (1 if store == "media" else 0)
