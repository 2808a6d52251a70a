"""`make gpu` where there is no card, and where its table goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import Line, written

ROOT = Path(__file__).parents[2]


def test_without_a_card_it_says_so_and_ends_well() -> None:
    ended = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--write"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "no CUDA device" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1


def test_its_table_takes_the_place_of_the_one_before() -> None:
    first = written("# Results\n\n## The recorder\n\n    a\n", ["    card one"], "2026-01-01")
    assert first.startswith("# Results\n\n## The recorder\n\n    a\n\n## On a GPU\n")
    between = first + "\n## Queries\n\n    b\n"
    second = written(between, ["    card two"], "2026-01-02")
    assert "card one" not in second
    assert second.index("card two") < second.index("## Queries")
    assert second.endswith("## Queries\n\n    b\n")
    assert written(second, ["    card two"], "2026-01-02") == second


def test_a_line_says_whether_it_reached_what_it_must() -> None:
    assert str(Line("share", 0.5, "%", 1.0)).endswith("ok")
    assert str(Line("share", 1.5, "%", 1.0)).endswith("MISSED")
    assert str(Line("time", 1.5, "ms")).endswith("ms")
