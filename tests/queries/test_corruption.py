"""Whatever happens to a file's bytes, a question ends in the right numbers or names the file; never a crash."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.written_run import WrittenRun
from xaicli.api import RunReader


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
