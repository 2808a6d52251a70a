"""A label map names labels wherever they are shown, and limits rows, score and history alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import xaicli
from tests.recorded_run import record
from xaicli.errors import UsageError, XaiError
from xaicli.queries.selection import Selection
from xaicli.report.charts import LineChart

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
    rows = xaicli.open_run(recorded).labels(label_key="room", facts=tmp_path / "facts.csv").data.to_dicts()
    assert {row["name"] for row in rows} == {"0", "1"}


def test_two_labels_of_one_name(recorded):
    opened = xaicli.open_run(recorded)
    result = opened.samples(max=60, min=0, label_map="pet=0,pet=1")
    assert set(result.data["label"]) == {0, 1}
    assert set(result.data["name"]) == {"pet (0)", "pet (1)"}
    assert result.answer.selection["label_map"] == {"pet": [0, 1]}
    assert "--label-map pet=0,pet=1" in result.answer.command_line()
    assert set(opened.samples(max=60, min=0, label_map={"pet": [0, 1]}).data["label"]) == {0, 1}
    with pytest.raises(UsageError, match="calls 0 both 'a' and 'b'"):
        opened.samples(label_map="a=0,b=0")


def test_the_map_of_a_selection_is_what_it_was_given():
    selection = Selection((), {}, (), label_map={1: "x", 2: "y"})
    assert selection.as_dict()["label_map"] == {"x": 1, "y": 2}


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label 2 is in epoch 1 alone, sample 9 in train alone."""
    root = tmp_path_factory.mktemp("ending") / "run"
    with xaicli.Run(root, label_names=["cat", "dog", "bird"], task="classification") as run:
        for epoch, labels in ((1, [0, 1, 2]), (2, [0, 1, 0])):
            run.log_samples(
                sample_id=[1, 2, 3], label=labels, prediction=[0, 1, 2], loss=[1.0, 2.0, 3.0], mode="eval", epoch=epoch
            )
            run.log_samples(sample_id=[9], label=[1], prediction=[1], loss=[1.0], mode="train", epoch=epoch)
    return root


LIMITED = [*QUESTIONS, "export"]


@pytest.mark.parametrize("question", LIMITED)
def test_every_question_refuses_a_value_that_is_no_label(ending, question, tmp_path):
    own: dict[str, Any] = {"target": tmp_path / "x.csv"} if question == "export" else {}
    for where in (None, "epoch < 2"):
        with pytest.raises(XaiError, match="no label '5' in ") as caught:
            asked(ending, question, label_map="W=5,cat=0", where=where, **own)
        assert caught.value.hint == "known labels: 0, 1, 2"


def test_compare_refuses_it_too(ending, changing):
    with pytest.raises(XaiError, match="no label '2' in "):
        xaicli.compare(ending, changing, label_map="W=2")


@pytest.mark.parametrize("question", LIMITED)
def test_a_label_that_the_selection_leaves_out_is_said_to_be_left_out(ending, question, tmp_path):
    own: dict[str, Any] = {"target": tmp_path / "x.csv"} if question == "export" else {}
    with pytest.raises(XaiError, match=r"label 2 of --label-map stands in .*, but in no row selected") as caught:
        asked(ending, question, label_map="X=2", mode="all", epoch="last", **own)
    assert caught.value.hint == "left out by --epoch last"
    with pytest.raises(XaiError, match="label 2 of --label-map stands in") as caught:
        asked(ending, question, label_map="X=2", mode="all", where="label < 2", **own)
    assert caught.value.hint == "left out by --where 'label < 2'"


def test_the_other_labels_wanted_are_answered(ending):
    found = xaicli.open_run(ending).labels(label_map="Katze=0,X=2", where="epoch > 1")
    assert [(row["name"], row["epoch"], row["n"]) for row in found.data.to_dicts()] == [("Katze", 2, 2)]
    said = [warning for warning in found.answer.warnings if "label 2" in warning]
    assert said == [
        f"label 2 of --label-map stands in {ending}, but in no row selected: left out by --where 'epoch > 1', "
        "--mode eval"
    ]


def test_a_sample_that_the_selection_leaves_out_is_said_to_be_left_out(ending):
    opened = xaicli.open_run(ending)
    with pytest.raises(XaiError, match=r"sample_id 9 is in .*, but in no row selected") as caught:
        opened.samples(ids=[9])
    assert caught.value.hint == "left out by --mode eval"
    with pytest.raises(XaiError, match=r"sample_id 3 is in .*, but in no row selected") as caught:
        opened.samples(ids=[3], mode="all", where="sample_id <> 3")
    assert caught.value.hint == "left out by --where 'sample_id <> 3'"
    with pytest.raises(XaiError, match="no sample_id '4' in ") as caught:
        opened.samples(ids=[4], mode="all", where="sample_id = 1")
    assert "known sample_ids: 1, 2, 3, 9" in caught.value.hint


@pytest.mark.parametrize(
    ("limits", "option"),
    [({"label_map": "Vogel=2"}, "--label-map"), ({"where": "epoch < 2 OR sample_id = 1"}, "--where")],
)
def test_stale_samples_are_not_said_to_be_absent_where_a_condition_leaves_them_out(ending, limits, option, capsys):
    opened = xaicli.open_run(ending)
    n = 1 if "label_map" in limits else 2
    opened.samples(**limits).show_terminal()
    told = " ".join(capsys.readouterr().out.split())
    have = "has" if n == 1 else "have"
    assert f"stale: {n} {have} no finite value in the last epoch among the rows of {option}, shown" in told
    noun = "sample" if n == 1 else "samples"
    assert told.endswith(f"{n} {noun} without a finite value in the last epoch among the rows of {option}")
    assert "absent" not in told
    opened.dynamics(**limits).show_terminal()
    told = " ".join(capsys.readouterr().out.split())
    assert told.endswith(f"{n} {noun} without a finite value in the last epoch among the rows of {option}")


def test_a_name_that_the_run_has_for_another_label_is_told(ending):
    def said(label_map: str) -> list[str]:
        warnings = xaicli.open_run(ending).labels(label_map=label_map).answer.warnings
        return [warning for warning in warnings if "calls label" in warning]

    assert said("dog=0") == ["--label-map calls label 0 'dog', as the run calls label 1: they read dog (0) and dog (1)"]
    assert not said("dog=0,cat=1")
    assert not said("dog=1")


def test_a_name_of_two_labels_names_neither(tmp_path):
    with xaicli.Run(tmp_path / "run", label_names=["crane", "dog", "crane"]) as run:
        run.log_samples(sample_id=[0, 1, 2], label=[0, 1, 2], loss=[0.5, 1.5, 2.5], mode="eval", epoch=1, step=1)
    opened = xaicli.open_run(tmp_path / "run")
    with pytest.raises(UsageError, match="names crane, and labels 0, 2 of the run are called so") as refused:
        opened.labels(label_map="X=crane")
    assert refused.value.hint == "give one by its number: NAME=0 or NAME=2"
    assert opened.labels(label_map="X=2,Y=dog").data.select("label", "name", "mean").rows() == [
        (1, "Y", 1.5),
        (2, "X", 2.5),
    ]


CRANES = ("dog (0)", "crane (1)", "cat", "crane (3)", "dog (4)")
"""What five classes are called, two names of which stand for two each."""


@pytest.fixture(scope="module")
def cranes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cranes") / "run"
    ids = list(range(20))
    with xaicli.Run(root, label_names=["dog", "crane", "cat", "crane", "dog"]) as run:
        for epoch in (1, 2):
            labels = [i % 5 for i in ids]
            taken = [(i + (i < 5)) % 5 for i in ids]
            losses = [0.25 * epoch * (i + 1) for i in ids]
            run.log_samples(sample_id=ids, label=labels, prediction=taken, loss=losses, mode="eval", epoch=epoch)
    return root


def test_labels_of_one_name_are_told_apart_in_rows(cranes):
    opened = xaicli.open_run(cranes)
    assert opened.labels().data.filter(pl.col("epoch") == 2)["name"].to_list() == list(CRANES)
    shown = opened.samples(max=20, min=0).data
    assert {row["name"] for row in shown.iter_rows(named=True) if row["label"] == 3} == {"crane (3)"}
    assert {row["name"] for row in shown.iter_rows(named=True) if row["label"] == 2} == {"cat"}
    assert set(opened.confusion().data["name"]) == set(CRANES)
    named = opened.labels(label_map={"bird": [1, 3]}, epoch=2).data
    assert named["name"].to_list() == ["bird (1)", "bird (3)"]
    assert opened.labels(label_map="X=crane (3)", epoch=2).data.select("label", "name").rows() == [(3, "X")]


def test_labels_of_one_name_are_told_apart_in_words_and_legends(cranes, capsys):
    opened = xaicli.open_run(cranes)
    for question in ("labels", "samples", "dynamics", "findings", "confusion", "report"):
        page = getattr(opened, question)().html()
        text = re.sub(r"<(script|style)[^>]*>.*?</\1>|<[^>]*>", "\n", page, flags=re.S)
        for name in ("crane", "dog"):
            assert not re.search(rf"\b{name}\b(?! (\(|…))", text), (question, name)
    assert "crane (3)" in page
    opened.samples(max=20, min=0).show_terminal()
    assert "crane (1)" in capsys.readouterr().out


def test_a_cell_is_headed_by_the_names_of_its_labels(cranes):
    opened = xaicli.open_run(cranes)
    for cell in ("0,1", "dog (0),crane (1)", "0,crane (1)"):
        assert opened.confusion(cell=cell, epoch="last").report.title == "dog (0) taken for crane (1)"
    with pytest.raises(XaiError, match="no label 'crane'"):
        opened.confusion(cell="dog (0),crane")


def test_the_caption_of_histories_names_the_lines_there_are(cranes):
    opened = xaicli.open_run(cranes)

    def caption(**asked: Any) -> str:
        blocks = [block for section in opened.samples(**asked).report.sections for block in section.blocks]
        return next(block.legend for block in blocks if isinstance(block, LineChart)).split(" Grey")[0]

    assert caption(max=1, min=0) == "Highest: solid, vermilion."
    assert caption(max=0, min=2) == "Lowest: dashed, blue."
    assert caption(max=1, min=1, ids=[3]) == "Highest: solid, vermilion. Lowest: dashed, blue. Listed: dotted, green."


def test_numbers_have_no_names(tmp_path):
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=[1, 2], label=[5.0, 6.5], prediction=[5.0, 6.0], loss=[0.0, 0.25], epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for question in ("samples", "labels", "dynamics", "findings", "errors"):
        with pytest.raises(UsageError, match="--label-map names labels, and label holds numbers"):
            asked(tmp_path / "run", question, label_map="five=5")
    assert [row["name"] for row in opened.labels().data.to_dicts()] != []


def test_a_label_that_begins_with_an_equals_sign(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=["=a", "b"], loss=[1.0, 2.0], mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    assert opened.labels(label_map='A="=a"').data["name"].to_list() == ["A"]
    with pytest.raises(XaiError, match="no label 'a'") as caught:
        opened.labels(label_map="A==a")
    assert 'a value with = in it stands in quotes: NAME="=a"' in caught.value.hint


def test_a_label_with_an_equals_sign_in_it(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=["key=val", "b"], loss=[1.0, 2.0], mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    assert opened.labels(label_map='B="key=val"').data["name"].to_list() == ["B"]
    with pytest.raises(XaiError, match="no label 'val'") as caught:
        opened.labels(label_map="B=key=val")
    assert caught.value.hint.startswith('a value with = in it stands in quotes: NAME="key=val"')


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_sql_calls_labels_of_one_name_as_tables_do(cranes, engine):
    if engine == "duckdb":
        pytest.importorskip("duckdb")
    opened = xaicli.open_run(cranes)
    sql = "SELECT label_name, count(*) AS n FROM samples GROUP BY label_name ORDER BY label_name"
    assert opened.query(sql, engine=engine).data.rows() == [(name, 8) for name in sorted(CRANES)]
    found = opened.samples(max=20, min=0, where="label_name = 'crane (3)' AND loss > 1", engine=engine).data
    # Labels 3 are samples 3, 8, 13 and 18, of losses 2, 4.5, 7 and 9.5 in the last epoch.
    assert found["sample_id"].to_list() == [18, 13, 8, 3]


def test_a_condition_on_a_name_that_two_labels_share_is_refused(cranes):
    opened = xaicli.open_run(cranes)
    with pytest.raises(UsageError, match="2 labels are called crane") as refused:
        opened.samples(where="label_name IN ('crane', 'cat')")
    assert refused.value.hint == "'crane (1)' or 'crane (3)'"
    assert opened.samples(max=20, min=0, where="label_name LIKE 'crane%'").data.height == 8


def test_pairs_that_are_equally_frequent_come_in_one_order_everywhere(tmp_path):
    """By label, then by prediction, as numbers: 2 before 10."""
    names = [f"{i}" for i in range(12)]
    with xaicli.Run(tmp_path / "run", label_names=names) as run:
        labels = [10, 2, 11, 2, 0]
        taken = [2, 10, 1, 1, 0]
        run.log_samples(sample_id=range(5), label=labels, prediction=taken, loss=[1.0] * 5, mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    wanted = [("2", "1"), ("2", "10"), ("10", "2"), ("11", "1")]

    def shown(result, name):
        blocks = [block for section in result.report.sections for block in section.blocks]
        tables = [block for block in blocks if getattr(block, "title", "").startswith(name)]
        return [tuple(str(cell) for cell in row[:2]) for row in tables[0].rows]

    for result in (opened.confusion(), opened.report()):
        assert shown(result, "Confused most") == wanted
