"""Epochs are repeated in the words they were asked for: each data set and each run resolves them by its own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import xaicli
from tests.conftest import Xai
from tests.written_run import WrittenRun
from xaicli.api import open_run
from xaicli.results import Result


def written(root: Path, epochs: dict[str, list[int]], seed: int) -> Path:
    run = WrittenRun(root, metrics=("loss", "margin"), label_names=("cat", "dog"))
    for mode, every in epochs.items():
        for epoch in every:
            rows: list[dict[str, Any]] = []
            for i in range(12):
                value = (i * 7 + epoch * 5 + seed * 3 + epoch * i * i) % 13
                row = {"sample_id": i, "mode": mode, "epoch": epoch, "label": i % 2, "prediction": value % 2}
                rows.append({**row, "correct": value % 2 == i % 2, "loss": value / 4, "margin": 1 - value / 6})
            run.write(rows)
    return root


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every epoch of train, every second of eval: their last epochs are 9 and 8, their first 1 and 2."""
    return written(tmp_path_factory.mktemp("apart") / "run", {"train": [*range(1, 10)], "eval": [2, 4, 6, 8]}, 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of several lengths, and an evaluation alone, which is of epoch 0."""
    folder = tmp_path_factory.mktemp("runs")
    lengths = {"three": [1, 2, 3], "four": [1, 2, 3, 4], "alone": [0]}
    return {name: written(folder / name, {"eval": of}, n) for n, (name, of) in enumerate(lengths.items())}


def repeated(result: Result, xai: Xai) -> tuple[list[Any], list[Any], dict[str, Any], str]:
    """The rows of a question, those of the command on its page, its selection and that command."""
    told = json.loads(result.to_json())
    command = dict(result.report.made)["command"]
    status, out, err = xai(*shlex.split(command)[1:], "--json")
    assert status == 0, (command, err)
    again = json.loads(out)
    assert again["selection"]["epoch"] == told["selection"]["epoch"], command
    return told["rows"], again["rows"], told["selection"], command


@pytest.mark.parametrize(
    ("question", "epoch", "every"),
    [
        *(("labels", epoch, 1) for epoch in (None, "last", "first", "last,1", "2-8", "2")),
        *(("labels", epoch, 2) for epoch in (None, "2-8", "last", "last,1")),
        *((question, epoch, 1) for question in ("samples", "dynamics", "confusion") for epoch in ("last,1", "2-8")),
        *((question, None, 2) for question in ("samples", "dynamics", "confusion")),
    ],
)
def test_the_command_on_a_page_asks_the_same(question: str, epoch: str | None, every: int, apart: Path, xai: Xai):
    result = getattr(open_run(apart), question)(mode="all", epoch=epoch, epoch_frequency=every)
    before, after, selection, command = repeated(result, xai)
    assert before, command
    assert before == after, command
    # The last epoch of train is odd: with every second one it is left out, and with it the epoch that it alone has.
    is_left_out = every == 2 and epoch in ("last", "last,1")
    assert selection["mode"] == (["eval"] if is_left_out else ["train", "eval"])
    assert selection["epoch_asked"] == (["last"] if is_left_out else epoch.split(",") if epoch else [])


def test_the_command_of_a_whole_report_asks_for_the_last_epochs(apart: Path) -> None:
    words = shlex.split(dict(open_run(apart).report(mode="all", epoch="last").report.made)["command"])
    assert words[words.index("--epoch") + 1] == "last"


def test_the_last_epochs_of_data_sets_are_told_and_repeated(apart: Path, xai: Xai) -> None:
    before, after, selection, command = repeated(open_run(apart).labels(mode="all", epoch="last"), xai)
    assert [(row["mode"], row["epoch"], row["label"]) for row in after] == [
        *(("train", 9, 0), ("train", 9, 1)),
        *(("eval", 8, 0), ("eval", 8, 1)),
    ]
    assert before == after
    assert (selection["epoch"], selection["epoch_asked"]) == ([8, 9], ["last"])
    assert "--epoch last" in command


@pytest.mark.parametrize(
    ("epoch", "every"), [(None, 1), ("last", 1), ("first", 1), ("last,1", 1), ("2-4", 1), (None, 2), ("2-4", 2)]
)
@pytest.mark.parametrize("order", [("three", "four"), ("four", "three")])
def test_the_command_of_a_comparison_asks_each_run_the_same(
    order: tuple[str, str], epoch: str | None, every: int, runs: dict[str, Path], xai: Xai
) -> None:
    one, other = (runs[name] for name in order)
    result = xaicli.compare(one, other, metric="loss,margin", epoch=epoch, epoch_frequency=every)
    before, after, selection, command = repeated(result, xai)
    assert before, command
    assert before == after, command
    if epoch is None and every == 1:
        ends = {tuple(row["epoch"]) for row in before if row["kind"] == "metric"}
        assert ends == {tuple({"three": 3, "four": 4}[name] for name in order)}
        assert selection["epoch"] == [1, 2, 3, 4]  # of either run


def test_an_evaluation_alone_is_compared_with_a_training(runs: dict[str, Path], xai: Xai) -> None:
    before, after, _, command = repeated(xaicli.compare(runs["alone"], runs["four"]), xai)
    assert "--epoch" not in shlex.split(command)
    assert before == after
    assert {tuple(row["epoch"]) for row in after if row["kind"] == "metric"} == {(0, 4)}
