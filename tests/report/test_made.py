"""*How this was made*: the command on a page asks the same question again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from xaicli.answer import Answer
from xaicli.api import open_run
from xaicli.report.made import command_line

Xai = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "samples",
            {"max": 2, "min": 0, "ids": [5, 10], "stat": "mean", "mode": ["train", "eval"]},
        ),
        ("samples", {"complete_only": True, "epoch": ["2-4", "6"], "duplicates": "all"}),
        ("labels", {"bounds": ["std", "range"], "label_map": {"a cat": 3, "b": 5}, "epoch_frequency": 2}),
        ("dynamics", {"early_epochs": 3, "burn_in": 1}),
    ],
)
def test_the_command_on_the_page_asks_the_same(
    xai: Xai, sample_run: Path, tmp_path: Path, command: str, options: dict[str, object]
) -> None:
    result = getattr(open_run(sample_run), command)(**options)
    line = shlex.split(dict(result.report.made)["command"])
    assert line[:2] == ["xai", command]
    status, out, err = xai(*line[1:], "--json", "--format", "csv", "-o", tmp_path)
    assert status == 0, err
    again, first = json.loads(out), json.loads(result.to_json())
    assert again["rows"] == first["rows"]
    assert again["selection"] == first["selection"]


def test_epochs_are_ranges_and_words_are_quoted() -> None:
    selection = {"epoch": [1, 2, 3, 5, 8, 9], "label_map": {"a cat": 3}, "ds_id": [""], "attempts": 2, "signed": False}
    answer = Answer("labels", "my run", selection, pl.DataFrame())
    assert command_line(answer) == "xai labels 'my run' --epoch 1-3,5,8-9 --label-map 'a cat=3'"
