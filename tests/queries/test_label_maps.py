"""A label map names labels wherever they are shown, and limits rows, score and history alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import xaicli
from tests.recorded_run import record
from xaicli.errors import UsageError, XaiError
from xaicli.queries.selection import Selection

LABELS = {1: [0, 0, 1], 2: [0, 1, 1], 3: [1, 0, 1]}
"""The labels of samples 10, 11 and 12 in each epoch: two of them change."""
LOSSES = {1: [0.5, 0.25, 4.0], 2: [0.75, 8.0, 4.0], 3: [16.0, 0.125, 4.0]}


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("changing") / "run"
    with xaicli.Run(root, label_names=["cat", "dog"]) as run:
        for epoch, labels in LABELS.items():
            run.log_samples(
                sample_id=[10, 11, 12], label=labels, loss=LOSSES[epoch], mode="eval", epoch=epoch, step=epoch
            )
    return root


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_score_history_and_stale_follow_one_rule(changing, engine):
    found = xaicli.open_run(changing).samples(label_map="kitten=0", max=9, min=0, engine=engine)
    rows = {row["sample_id"]: row for row in found.data.to_dicts()}
    points = {i: [(point["epoch"], point["value"]) for point in row["history"]] for i, row in rows.items()}
    assert points == {10: [(1, 0.5), (2, 0.75)], 11: [(1, 0.25), (3, 0.125)]}
    assert {i: (row["score"], row["stale"]) for i, row in rows.items()} == {10: (0.75, True), 11: (0.125, False)}
    assert {(row["label"], row["name"]) for row in rows.values()} == {(0, "kitten")}
    assert found.answer.counts.stale == 1
    assert [said for said in found.answer.warnings if said.startswith("2 rows of samples shown have another label")]


def test_other_statistics_are_of_the_same_rows(changing):
    found = xaicli.open_run(changing).samples(label_map="kitten=0", max=9, min=0, stat="mean")
    assert dict(found.data.select("sample_id", "score").iter_rows()) == {10: 0.625, 11: 0.1875}


def test_a_listed_sample_of_other_labels(changing):
    opened = xaicli.open_run(changing)
    with pytest.raises(XaiError, match="sample_id 12 has none of the labels of --label-map"):
        opened.samples(label_map="kitten=0", ids=[10, 12])
    assert not [said for said in opened.samples(label_map="kitten=0,puppy=1").answer.warnings if "another" in said]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("named") / "run", images=False)


NAMED = {"Katze": 0, "Hund": 1}
CALLED = {0: "Katze", 1: "Hund", 2: "cow", 3: "owl"}


def asked(run: Path, question: str, **select: Any) -> Any:
    opened = xaicli.open_run(run)
    own: dict[str, Any] = {"select": {"rule": "hardest", "n": 4}}.get(question, {})
    return getattr(opened, question)(**own, **select)


QUESTIONS = ["samples", "dynamics", "findings", "select", "report", "labels", "steps", "slices", "confusion"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_names_everywhere(recorded, question, tmp_path):
    result = asked(recorded, question, label_map=NAMED)
    whole = json.loads(result.to_json())
    named = [row for row in whole["rows"] if "label" in row and row["label"] is not None]
    assert [row["name"] for row in named] == [CALLED[row["label"]] for row in named]
    if question not in ("steps", "slices"):
        assert named
    for row in whole["rows"]:
        if row.get("suggested_label") is not None:
            assert row["suggested_name"] == CALLED[row["suggested_label"]]
    page = result.html(no_images=True)
    assert "cat" not in page.split("How this was made")[0].replace("cation", "")
    if named:
        assert "Katze" in page
    result.save(tmp_path, formats=["csv"])
    for file in tmp_path.glob("*.csv"):
        columns = pl.read_csv(file).columns if file.stat().st_size > 4 else []
        assert "label" not in columns or {"name", "label_name"} & set(columns), file


def test_names_of_the_run_without_a_map(recorded):
    rows = xaicli.open_run(recorded).samples(max=4, min=0).data.to_dicts()
    assert [row["name"] for row in rows] == [["cat", "dog", "cow", "owl"][row["label"]] for row in rows]


def test_a_fact_is_not_called_as_a_class(recorded, tmp_path):
    with (tmp_path / "facts.csv").open("w") as file:
        file.write("sample_id,room\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))
    rows = (
        xaicli.open_run(recorded)
        .samples(max=4, min=0, label_key="room", label_map="upstairs=1", facts=tmp_path / "facts.csv")
        .data.to_dicts()
    )
    assert {(row["label"], row["name"]) for row in rows} == {(1, "upstairs")}
    rows = xaicli.open_run(recorded).findings(label_key="room", facts=tmp_path / "facts.csv").data.to_dicts()
    assert {row["name"] for row in rows if row["label"] is not None} <= {"0", "1"}


def test_two_labels_of_one_name(recorded):
    opened = xaicli.open_run(recorded)
    result = opened.samples(max=60, min=0, label_map="pet=0,pet=1")
    assert set(result.data["label"]) == {0, 1}
    assert set(result.data["name"]) == {"pet"}
    assert result.answer.selection["label_map"] == {"pet": [0, 1]}
    assert "--label-map pet=0,pet=1" in result.answer.command_line()
    assert set(opened.samples(max=60, min=0, label_map={"pet": [0, 1]}).data["label"]) == {0, 1}
    with pytest.raises(UsageError, match="calls 0 both 'a' and 'b'"):
        opened.samples(label_map="a=0,b=0")


def test_the_map_of_a_selection_is_what_it_was_given():
    selection = Selection((), {}, (), label_map={1: "x", 2: "y"})
    assert selection.as_dict()["label_map"] == {"x": 1, "y": 2}
