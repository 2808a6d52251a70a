"""Labels and predictions of which one is texts and the other whole numbers: joined by `label_names`, or told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recorder.recorded import rows
from xaicli.recorder.run import Run

NAMES = ["cat", "dog", "eel"]
NUMBERS = [0, 1, 2, 1]
TEXTS = ["cat", "eel", "eel", "cat"]
RIGHT = [True, False, True, False]
IDS = [1, 2, 3, 4]


def stored(run_dir: Path) -> dict[str, list[Any]]:
    table = rows(run_dir).sort_by([("step", "ascending"), ("sample_id", "ascending")])
    return {name: table[name].to_pylist() for name in ("label", "prediction", "correct") if name in table.column_names}


@pytest.mark.parametrize("numbers", [NUMBERS, np.array(NUMBERS), torch.tensor(NUMBERS), np.array(NUMBERS, np.uint8)])
@pytest.mark.parametrize("texts", [TEXTS, np.array(TEXTS), np.array(TEXTS, dtype=object)])
@pytest.mark.parametrize("label_is_text", [True, False])
def test_names_and_numbers_are_the_same_classes(tmp_path: Path, numbers: Any, texts: Any, label_is_text: bool) -> None:
    """Batch after batch, in the kind of the label."""
    label, prediction = (texts, numbers) if label_is_text else (numbers, texts)
    with Run(tmp_path, strict=True, label_names=NAMES) as run:
        for step in (1, 2, 3):
            run.log_samples(sample_id=np.array(IDS), label=label, prediction=prediction, epoch=1, step=step)
    found = stored(tmp_path)
    assert found["correct"] == RIGHT * 3
    assert found["label"] == (TEXTS if label_is_text else NUMBERS) * 3
    assert found["prediction"] == ([NAMES[n] for n in NUMBERS] if label_is_text else [0, 2, 2, 0]) * 3


def test_kinds_that_change_from_batch_to_batch(tmp_path: Path) -> None:
    """What came first says how classes are kept, whatever comes later, of arrays that come as they are, too."""
    with Run(tmp_path, strict=True, label_names=NAMES) as run:
        log = lambda step, **given: run.log_samples(sample_id=np.array(IDS), epoch=1, step=step, **given)  # noqa: E731
        log(1, label=TEXTS)
        for step in (2, 3):
            log(step, label=np.array(NUMBERS), prediction=np.array([0, 2, 2, 0]))
        log(4, label=TEXTS, prediction=TEXTS)
    found = stored(tmp_path)
    named = [NAMES[n] for n in NUMBERS]
    assert found["label"] == [*TEXTS, *named, *named, *TEXTS]
    assert found["prediction"] == [None] * 4 + [*TEXTS, *TEXTS, *TEXTS]
    assert found["correct"] == [None] * 4 + [*RIGHT, *RIGHT, *[True] * 4]


def test_predictions_came_first_as_numbers(tmp_path: Path) -> None:
    with Run(tmp_path, strict=True, label_names=NAMES) as run:
        run.log_samples(sample_id=IDS, prediction=NUMBERS, mode="infer", epoch=1, step=1)
        run.log_samples(sample_id=IDS, prediction=NUMBERS, label=TEXTS, mode="eval", epoch=1, step=2)
    found = stored(tmp_path)
    assert found["label"] == [None] * 4 + [0, 2, 2, 0]
    assert found["correct"] == [None] * 4 + RIGHT


def test_what_is_no_name_or_number_of_one_is_missing_alone(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "a", label_names=NAMES) as run:
        warnings.simplefilter("always")
        run.log_samples(
            sample_id=IDS, label=[0, 1, None, -100], prediction=["cat", "fox", "cat", "eel"], epoch=1, step=1
        )
    assert stored(tmp_path / "a") == {
        "label": [0, 1, None, None],
        "prediction": [0, None, 0, 2],
        "correct": [True, None, None, None],
    }
    (told,) = said
    assert "prediction 'fox' is none of label_names" in str(told.message)
    assert {name: sum(why.values()) for name, why in run.stats()["refused"].items()} == {"prediction": 1}
    assert run.stats()["labels_ignored"] == 1
    with (
        warnings.catch_warnings(record=True) as said,
        Run(tmp_path / "b", label_names=NAMES, ignore_label="dog") as run,
    ):
        warnings.simplefilter("always")
        run.log_samples(sample_id=IDS, label=["cat", "dog", None, "eel"], prediction=[0, 1, 2, 7], epoch=1, step=1)
    assert stored(tmp_path / "b") == {
        "label": ["cat", None, None, "eel"],
        "prediction": ["cat", "dog", "eel", None],
        "correct": [True, None, None, None],
    }
    assert ["prediction 7 is no number of the 3 label_names" in str(one.message) for one in said] == [True]


@pytest.mark.parametrize("label_is_text", [True, False])
def test_without_names_it_is_told_once(tmp_path: Path, label_is_text: bool) -> None:
    label, prediction = (TEXTS, NUMBERS) if label_is_text else (NUMBERS, TEXTS)
    with warnings.catch_warnings(record=True) as said, Run(tmp_path) as run:
        warnings.simplefilter("always")
        for step in (1, 2):
            run.log_samples(sample_id=IDS, label=label, prediction=prediction, epoch=1, step=step)
    (told,) = said
    texts, numbers = ("label", "prediction") if label_is_text else ("prediction", "label")
    assert f"{texts} holds texts and {numbers} whole numbers" in str(told.message)
    assert "label_names" in str(told.message)
    assert stored(tmp_path)["label"] == label * 2
    assert stored(tmp_path)["prediction"] == prediction * 2


def test_nothing_is_told_where_correct_is_given(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path) as run:
        warnings.simplefilter("always")
        run.log_samples(sample_id=IDS, label=TEXTS, prediction=NUMBERS, correct=RIGHT, epoch=1, step=1)
    assert said == []
    assert stored(tmp_path)["correct"] == RIGHT
