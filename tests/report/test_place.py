"""A page knows its place: what it shows is of the epoch and the data set that were asked for."""

from __future__ import annotations

import base64
import io
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from xaicli.api import open_run
from xaicli.recorder.run import Run
from xaicli.render.machine import to_json
from xaicli.report.model import Block, Figures, Gallery, Report, Table
from xaicli.results import Result

IDS = list(range(12))


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All wrong in epoch 1, all right in epoch 2; sample 11 only in epoch 1."""
    folder = tmp_path_factory.mktemp("swapped") / "run"
    with Run(folder, label_names=["cat", "dog"]) as run:
        for epoch, ids in ((1, IDS), (2, IDS[:-1])):
            label = [i % 2 for i in ids]
            prediction = [1 - y for y in label] if epoch == 1 else label
            loss = [(i + 1.0) / epoch for i in ids]
            run.log_samples(
                sample_id=ids, label=label, prediction=prediction, loss=loss, mode="eval", epoch=epoch, step=epoch
            )
    return folder


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same ids in two data sets, each with its own grey pictures."""
    folder = tmp_path_factory.mktemp("sets") / "run"
    with Run(folder) as run:
        for level, ds_id in ((40, "cifar"), (200, "svhn")):
            for mode in ("train", "eval"):
                run.log_samples(sample_id=IDS, loss=[float(i) for i in IDS], mode=mode, ds_id=ds_id, epoch=1, step=1)
            run.state.mode, run.state.ds_id = "train", ds_id
            if ds_id == "cifar":
                run.log_images(IDS, np.full((12, 4, 4, 1), level, np.uint8))
            else:
                run.log_images(IDS[:6], np.full((6, 4, 4, 1), level, np.uint8))
    return folder


def blocks(report: Report) -> list[Block]:
    return [block for section in report.sections for block in section.blocks]


def cards(result: Result) -> dict[str, Any]:
    return {card.title: card for b in blocks(result.report) if isinstance(b, Gallery) for card in b.cards}


@pytest.mark.parametrize("question", ["samples", "report"])
def test_predictions_are_those_of_the_epoch_asked_for(swapped: Path, question: str) -> None:
    for epoch, wrong in ((1, True), (2, False)):
        result = getattr(open_run(swapped), question)(epoch=epoch, max=3, min=3)
        assert ("all are predicted wrongly" in result.report.sentence) is wrong
        assert ("none is predicted wrongly" in result.report.sentence) is not wrong
        shown = cards(result)["#10"]
        assert (shown.verdict, "cat ✓" in shown.lines) == (("cat → dog", False) if wrong else ("", True))


def test_a_stale_sample_has_the_prediction_of_its_own_last_epoch(swapped: Path) -> None:
    shown = cards(open_run(swapped).samples(ids=[11], max=0, min=0))["#11"]
    assert shown.verdict == "dog → cat"
    assert shown.lines[0].endswith("(stale)")


def test_a_picture_is_of_the_samples_own_data_set(two_sets: Path) -> None:
    for ds_id, level in (("cifar", 40), ("svhn", 200)):
        shown = cards(open_run(two_sets).samples(ds_id=ds_id, ids=[5, 9], max=0, min=0))
        assert set(shown["#5"].image.pixels) == {level}
        assert (shown["#9"].image is None) is (ds_id == "svhn")


def test_what_is_said_of_the_last_epoch_names_only_labels_it_has(tmp_path: Path) -> None:
    level = {"ghost": 100.0, "ant": 2.0, "bee": 3.0}
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            label = [name for name in level if name != "ghost" or epoch == 1 for _ in range(4)]
            ids = [10 * list(level).index(name) + i % 4 for i, name in enumerate(label)]
            loss = [level[name] + i % 4 / 100 for i, name in enumerate(label)]
            run.log_samples(sample_id=ids, label=label, loss=loss, mode="eval", epoch=epoch, step=epoch)
    report = open_run(tmp_path / "run").labels().report
    assert report.sentence.startswith("Highest mean at the last epoch: bee (3.01 ± 0.013)")
    assert report.sentence.endswith("Absent from the last epoch: ghost.")

    table = next(b for b in blocks(report) if isinstance(b, Table))
    assert [(row[0], row[-1]) for row in table.rows] == [("bee", 2), ("ant", 2), ("ghost", 1)]


def test_metrics_keep_their_spelling(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=IDS, label=[0] * 12, mAP50=[i / 12 for i in IDS], mode="eval", epoch=1, step=1)
    for question in ("samples", "labels", "report"):
        html = getattr(open_run(tmp_path / "run"), question)(metric="mAP50").html()
        assert "mAP50" in html
        assert not {"Map50", "map50", "MAP50"} & set(html.replace("<", " ").replace(">", " ").split())


QUESTIONS: dict[str, dict[str, Any]] = {
    "samples": {"ds_id": "!svhn", "epoch": "first", "max": 2, "min": 1, "stat": "mean"},
    "labels": {"ds_id": "!cifar", "bounds": ["ci", "quantile"], "label_map": {"odd, really": 1}},
    "dynamics": {"ds_id": "a,b", "early_epochs": 1},
    "findings": {"ds_id": "!a,b", "top": 3},
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd names") / "a run, with a comma"
    draw = np.random.default_rng(3)
    with Run(folder) as run:
        for epoch in (1, 2, 3):
            for ds_id in ("cifar", "svhn", "a,b"):
                logits = draw.normal(size=(12, 3)).astype("f4")
                run.log_samples(
                    sample_id=[f"im/{i},x" for i in IDS], label=[i % 3 for i in IDS], logits=logits, mode="eval",
                    ds_id=ds_id, epoch=epoch, step=epoch,
                )  # fmt: skip
    return folder


@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_the_command_under_the_page_asks_the_same(odd: Path, question: str) -> None:
    asked = dict(QUESTIONS[question])
    if "," in str(asked["ds_id"]):
        asked["ds_id"] = ["!a,b"] if str(asked["ds_id"]).startswith("!") else ["a,b"]
    result = getattr(open_run(odd), question)(**asked)
    command = dict(result.report.made)["command"]
    words = shlex.split(command)
    assert words[0] == "xai"
    got = subprocess.run(
        [sys.executable, "-m", "xaicli", *words[1:], "--json", *(("--format", "json", "-o", str(odd / "again")))],
        capture_output=True,
        text=True,
        check=True,
    )
    again, first = pl.read_json(io.StringIO(got.stdout)), pl.read_json(io.StringIO(to_json(result.answer)))
    assert again["rows"].to_list() == first["rows"].to_list()
    assert result.data.height > 0


def test_a_picture_on_the_page_is_the_one_of_the_report(two_sets: Path) -> None:
    html = open_run(two_sets).samples(ds_id="svhn", ids=[5], max=0, min=0).html()
    picture = html.split('src="data:image/png;base64,')[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).getextrema() == (200, 200)


def pictured(run: Path, question: str, **asked: Any) -> tuple[dict[tuple[Any, str], bool], list[str]]:
    """Whether the sample of each (id, place) has a picture, and what is said of pictures."""
    report = getattr(open_run(run), question)(**asked).report
    galleries = [card for block in blocks(report) if isinstance(block, Gallery) for card in block.cards]
    return (
        {(card.deep_link, card.place): card.image is not None for card in galleries},
        [warning for warning in report.warnings if "picture" in warning],
    )


@pytest.mark.parametrize("question", ["samples", "report"])
def test_pictures_of_no_mode_are_shown_with_every_sample_of_their_ids(tmp_path: Path, question: str) -> None:
    folder = tmp_path / "run"
    with Run(folder) as run:
        for ds_id in ("cifar", "svhn"):
            for ids in run.steps([IDS], mode="eval", ds_id=ds_id):
                run.log_samples(sample_id=ids, loss=[float(i) for i in ids], epoch=1, step=1)
        run.log_images(IDS, np.zeros((12, 4, 4, 1), np.uint8))
    found, (said,) = pictured(folder, question, max=2, min=1)
    assert {place for _, place in found} == {"eval/cifar", "eval/svhn"}
    assert all(found.values())
    assert said.startswith("pictures of 3 ids were logged in no mode, and shown with the sample of each in several")


@pytest.mark.parametrize("question", ["samples", "report"])
def test_pictures_logged_behind_the_loops_are_of_the_samples_with_their_ids(tmp_path: Path, question: str) -> None:
    """Ids that no two data sets share: nothing is to be said; the data set that was walked last has no claim."""
    folder = tmp_path / "run"
    with Run(folder) as run:
        for _ in run.epochs(2):
            for ids in run.steps([list(range(4))], mode="train"):
                run.log_samples(sample_id=ids, loss=[float(i) for i in ids])
            for first, ds_id in ((4, "day"), (8, "night")):
                for ids in run.steps([list(range(first, first + 4))], mode="eval", ds_id=ds_id):
                    run.log_samples(sample_id=ids, loss=[float(i) for i in ids])
        run.log_images(range(6), np.zeros((6, 4, 4, 1), np.uint8))
        run.log_inputs(range(6, 12), np.zeros((6, 1, 4, 4), np.float32))
    found, said = pictured(folder, question, max=4, min=0, mode="all")
    assert {place for _, place in found} == {"train/", "eval/day", "eval/night"}
    assert len(found) == 12
    assert all(found.values())
    assert said == []


@pytest.mark.parametrize("question", ["samples", "report"])
def test_pictures_logged_where_their_samples_are_not_are_counted(tmp_path: Path, question: str) -> None:
    folder = tmp_path / "run"
    with Run(folder) as run:
        for first, ds_id in ((0, "day"), (4, "night")):
            ids = list(range(first, first + 4))
            run.log_samples(sample_id=ids, loss=[float(i) for i in ids], mode="eval", ds_id=ds_id, epoch=1, step=1)
        run.state.mode, run.state.ds_id = "eval", "night"
        run.log_images(range(8), np.zeros((8, 4, 4, 1), np.uint8))
    found, (said,) = pictured(folder, question, max=4, min=0)
    assert found == {(str(n), "eval/day" if n < 4 else "eval/night"): n >= 4 for n in range(8)}
    assert said.startswith(
        "pictures of 4 samples were logged in eval night, where there is no row of them, and not shown"
    )


def test_numbers_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Run(folder, task="regression") as run:
        for epoch in (1, 2):
            label = [i / 3 for i in IDS]
            run.log_samples(
                sample_id=IDS,
                label=label,
                prediction=[y + 200 / 3 for y in label],
                mode="eval",
                epoch=epoch,
                step=epoch,
            )
    for question in ("samples", "report"):
        result = getattr(open_run(folder), question)(max=3, min=3)
        assert "wrong" not in result.report.sentence
        assert not any("as labelled" in text for text in figures(result.report))
        assert {card.verdict for card in cards(result).values()} == {""}
        assert any("0.3333 → 67" in line for card in cards(result).values() for line in card.lines)


def figures(report: Report) -> list[str]:
    return [item.caption for block in blocks(report) if isinstance(block, Figures) for item in block.figures]


@pytest.fixture(scope="module")
def walked_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two passes over one epoch: all wrong in the first, all right in the second, which has the first six only."""
    folder = tmp_path_factory.mktemp("twice") / "run"
    with Run(folder, label_names=["cat", "dog"]) as run:
        for turn, ids in ((0, IDS), (1, IDS[:6])):
            label = [i % 2 for i in ids]
            run.log_samples(
                sample_id=ids,
                label=label,
                prediction=[1 - y for y in label] if turn == 0 else label,
                loss=[(i + 1.0) / (turn + 1) for i in ids],
                mode="eval",
                epoch=1,
                step=turn + 1,
                eval_pass=turn,
            )
    return folder


def predicted(result: Result) -> dict[str, Any]:
    """The prediction beside each sample of the table."""
    table = next(
        block for block in blocks(result.report) if isinstance(block, Table) and block.name.startswith("table")
    )
    at = [column.title for column in table.columns].index("prediction")
    return {row[1]: row[at] for row in table.rows}


@pytest.mark.parametrize("question", ["samples", "report"])
def test_predictions_are_those_of_the_pass_that_is_shown(walked_twice: Path, question: str) -> None:
    run = open_run(walked_twice)
    first = getattr(run, question)(where="pass=0", max=2, min=2)
    assert predicted(first) == {"11": "cat", "10": "dog", "0": "dog", "1": "cat"}
    assert first.report.sentence.count("all are predicted wrongly") == 2
    second = getattr(run, question)(where="pass=1", max=2, min=2)
    assert predicted(second) == {"5": "dog", "4": "cat", "0": "cat", "1": "dog"}
    assert second.report.sentence.count("none is predicted wrongly") == 2
    # Of both passes: 11 and 10 are shown as the first left them, 0 and 1 as the second.
    both = getattr(run, question)(max=2, min=2)
    assert predicted(both) == {"11": "cat", "10": "dog", "0": "cat", "1": "dog"}
    assert cards(both)["#11"].verdict == "dog → cat"
    assert "cat ✓" in cards(both)["#0"].lines


def test_a_sample_without_a_prediction_at_its_place_is_counted(tmp_path: Path) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        rows = {"label": [0, 1, 0], "loss": [1.0, 2.0, 3.0], "mode": "eval"}
        run.log_samples(sample_id=[0, 1, 2], prediction=[0, 0, 1], epoch=1, step=1, **rows)
        run.log_samples(
            sample_id=[0, 1], prediction=[0, 0], epoch=2, step=2, label=[0, 1], loss=[1.0, 2.0], mode="eval"
        )
        run.log_samples(sample_id=[2], epoch=2, step=2, label=[0], loss=[3.0], mode="eval")
    result = open_run(tmp_path / "run").samples(max=3, min=0)
    table = next(block for block in blocks(result.report) if isinstance(block, Table))
    assert "1 has no prediction at the place shown" in table.note
    assert result.report.sentence.endswith(
        "of the 2 of them with a label and a prediction there, 1 is predicted wrongly."
    )


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ("std", "bee (3.01 ± 0.013)"),
        ("none", "bee (3.01, std 0.013)"),
        ("range", "bee (3.01, min–max 3 to 3.03)"),
        # 3.015 - 1.96 * 0.012910 / 2 and the same above it
        ("ci", "bee (3.01, 95\u00a0% interval 3.002 to 3.028)"),
    ],
)
def test_the_first_sentence_tells_the_band_that_was_asked_for(bounds: str, said: str, tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        loss = [level + i / 100 for level in (2, 3) for i in range(4)]
        run.log_samples(sample_id=range(8), label=["ant"] * 4 + ["bee"] * 4, loss=loss, mode="eval", epoch=1)
    sentence = open_run(tmp_path / "run").labels(bounds=bounds).report.sentence
    assert sentence.startswith(f"Highest mean at the last epoch: {said}"), sentence
