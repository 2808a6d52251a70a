"""A label key of another type than the predictions: said where it matters, and nothing else is lost."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

import xaicli
from xaicli.errors import UsageError

IDS = [0, 1, 2, 3]
DAYS = [datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)] * 2
KINDS: dict[str, dict[str, Any]] = {
    "classes": {"label": [0, 1, 1, 0], "probs": [[0.1, 0.9]] * 4},
    "unsure": {"label": [0, 1, 1, 0], "prediction": [0, 0, 1, 1]},
    "sets": {"label": [[0], [1], [0, 1], []], "prediction": [[0], [0], [0, 1], [1]]},
}


def recorded(root: Path, kind: str):
    with xaicli.Run(root, resume="never") as run:
        run.log_facts(IDS, camera=["front", "rear"] * 2, day=DAYS)
        for epoch in (1, 2, 3):
            # Sample 2 is learned and forgotten.
            correct = {} if kind != "unsure" else {"correct": [True, False, epoch != 2, False]}
            run.log_samples(
                sample_id=IDS,
                loss=[0.1, 0.2, 0.3, 0.4],
                mode="eval",
                epoch=epoch,
                step=epoch,
                **KINDS[kind],
                **correct,
            )
    return xaicli.open_run(root)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["camera", "day", "prediction"])
def test_no_truth_of_the_predictions(tmp_path, kind, key):
    opened = recorded(tmp_path / "run", kind)
    said = f"--label-key {key} cannot be held against the predictions"
    found = opened.findings(label_key=key)
    assert [warning for warning in found.answer.warnings if said in warning]
    with pytest.raises(UsageError, match=said):
        opened.errors(label_key=key)
    if kind == "unsure":
        rows = found.data.to_dicts()
        assert [(row["finding"], row["sample_id"]) for row in rows if row["finding"] == "forgotten"] == [
            ("forgotten", 2)
        ]


def test_page_of_a_training(tmp_path):
    opened = recorded(tmp_path / "run", "classes")
    result = opened.report(label_key="camera")
    assert "--label-key camera cannot be held against the predictions" in result.html(no_images=True)
    assert "could not be computed" not in result.html(no_images=True)


def test_samples_are_told_neither_right_nor_wrong(tmp_path):
    opened = recorded(tmp_path / "run", "classes")
    for key in ("camera", "prediction"):
        page = opened.samples(label_key=key, max=2, min=2).html(no_images=True)
        assert f"--label-key {key} cannot be held against the predictions" in page
        assert "predicted wrongly" not in page
        assert "✓" not in page
    page = opened.samples(max=2, min=2).html(no_images=True)
    assert "1 is predicted wrongly" in page


def test_another_truth_is_named(tmp_path):
    opened = recorded(tmp_path / "run", "classes")
    (tmp_path / "facts.csv").write_text("sample_id,clean\n0,0\n1,0\n2,0\n3,0\n")
    page = opened.samples(label_key="clean", facts=tmp_path / "facts.csv", max=2, min=2).html(no_images=True)
    assert "all are predicted as something else than clean says" in page
    assert "predicted wrongly" not in page
