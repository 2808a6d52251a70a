"""What a fact is called changes no answer: one that is called like something of ours stays what it is, or is told."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.api.decisions import write_list
from xaicli.api.relabel import corrections_of
from xaicli.cli import main
from xaicli.errors import XaiError
from xaicli.render.machine import to_csv
from xaicli.vocabulary import fact_columns

N = 40
PLACES = ["north", "south", "east", "west"]
PLACE = [PLACES[i * 7 % 3 if i % 10 else 3] for i in range(N)]
LOSS = [((13 * i) % N) / 10 for i in range(N)]
NAMES = [
    *("region", "confidence", "stale", "variability", "loss_last", "n_obs", "weight", "score", "reason"),
    *("suggested_label", "recorded_label", "value", "n", "count", "annotation_id", "label_prob_mean"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    path = tmp_path_factory.mktemp("names") / "run"
    with xaicli.Run(path, label_names=["a", "b"]) as run:
        for epoch in (1, 2, 3):
            p = np.exp(-np.array(LOSS)) * 0.9 + epoch / 100
            label = np.arange(N) % 2
            probs = np.where(np.eye(2, dtype=bool)[label], p[:, None], 1 - p[:, None])
            run.log_samples(sample_id=range(N), label=label, probs=probs, loss=LOSS, mode="train", epoch=epoch, step=1)
    return xaicli.open_run(path)


@pytest.fixture
def facts(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pl.DataFrame({"sample_id": range(N), request.param: PLACE}).write_csv(tmp_path / "facts.csv")
    return tmp_path / "facts.csv"


def ids(result: Any) -> list[int]:
    return result.data["sample_id"].to_list()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("facts", "name"), [(name, name) for name in NAMES], indirect=["facts"])
def test_a_fact_is_asked_for_by_its_name(run: xaicli.RunReader, facts: Path, name: str) -> None:
    how: dict[str, Any] = {"mode": "train", "facts": facts}
    there = {i for i in range(N) if PLACE[i] == "north"}
    assert set(ids(run.select(rule=f"\"{name}\" = 'north'", **how))) == there
    assert set(ids(run.select(rule="random", n=N, where=f"\"{name}\" = 'north'", **how))) == there
    balanced = [PLACE[i] for i in ids(run.select(rule="balanced", by=name, n=12, **how))]
    assert {place: balanced.count(place) for place in PLACES} == dict.fromkeys(PLACES, 3)
    mix = run.select(rule="hardest", n=5, **how).answer.extra["mix"]
    assert {row["value"]: row["n"] for row in mix if row["column"] == name} == {p: PLACE.count(p) for p in PLACES}
    checked = run.check(rule=[f'loss mean by "{name}" <= 1'], mode="train", facts=facts).data
    for group, value, n in checked.select("group", "value", "n").iter_rows():
        own = [LOSS[i] for i in range(N) if PLACE[i] == group]
        assert (value, n) == (pytest.approx(np.mean(own)), len(own))
    mixed = run.steps(step=1, mode="train", facts=facts).answer.extra["mix"]
    assert {item["name"] for item in mixed if item["column"] == name} == set(PLACES)


@pytest.mark.parametrize(("facts", "name"), [(name, name) for name in NAMES], indirect=["facts"])
def test_a_fact_is_in_every_file_that_has_facts(run: xaicli.RunReader, facts: Path, name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"mode": "train", "facts": facts, "rule": "hardest", "n": 6}
    chosen = run.select(**how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_list(chosen.data, tmp_path / "chosen.csv")
        chosen.tell_renamed(chosen.data, "chosen.csv")
    for to, file in (("csv", "t.csv"), ("label-studio", "t.json")):
        told = run.relabel_export(tmp_path / file, to=to, **how)
        text = (tmp_path / file).read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text))) if to == "csv" else [one["data"] for one in json.loads(text)]
        check_column(rows, name, told.answer.warnings)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "chosen.csv").read_text(encoding="utf-8"))))
    check_column(rows, name, tuple(str(one.message) for one in caught))


def check_column(rows: list[dict[str, Any]], name: str, warnings: tuple[str, ...]) -> None:
    column = next(key for key, value in rows[0].items() if value in PLACES)
    assert [row[column] for row in rows] == [PLACE[int(row["sample_id"])] for row in rows]
    assert column in (name, f"fact_{name}")
    if column != name:
        assert name in rows[0] or name == "annotation_id"  # which Label Studio puts there
        assert any(warning.startswith(f"the fact {name} is called {column} in") for warning in warnings)


@pytest.mark.parametrize("to", ["csv", "label-studio", "cvat", "coco", "fiftyone"])
def test_a_fact_is_told_as_another_only_of_the_file_that_calls_it_so(
    run: xaicli.RunReader, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame({"sample_id": range(N), "path": [f"im/{i}.png" for i in range(N)]}).write_csv(tmp_path / "facts.csv")
    how = [str(run.layout.root), "--facts", str(tmp_path / "facts.csv"), "--mode", "train", "--no-progress", "--json"]
    how += ["--rule", "hardest", "--n", "3", "--to", to]
    file = tmp_path / {"csv": "t.csv", "cvat": "t.xml", "fiftyone": "t"}.get(to, "t.json")
    assert main(["relabel", "export", *how, "-o", str(file)]) == 0
    assert not [said for said in json.loads(capsys.readouterr().out)["warnings"] if "fact_path" in said]
    assert main(["relabel", "export", *how, "--format", "csv", "-o", str(tmp_path / "beside")]) == 0
    told = "the fact path is called fact_path in relabel-export.csv: a column of these rows has its name"
    assert told in json.loads(capsys.readouterr().out)["warnings"]
    [page] = (tmp_path / "beside").rglob("relabel-export.csv")
    assert {"path", "fact_path"} <= set(page.read_text(encoding="utf-8").splitlines()[0].split(","))


def test_a_list_of_select_tells_which_facts_it_calls_otherwise(
    run: xaicli.RunReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame({"sample_id": range(N), "score": PLACE}).write_csv(tmp_path / "facts.csv")
    how = ["select", str(run.layout.root), "--facts", str(tmp_path / "facts.csv"), "--mode", "train", "--rule"]
    how += ["hardest", "--n", "3", "--no-progress", "--json"]
    for file, is_told in (("a.csv", True), ("a.parquet", False)):
        assert main([*how, "-o", str(tmp_path / file)]) == 0
        said = json.loads(capsys.readouterr().out)["warnings"]
        told = f"the fact score is called fact_score in {file}: a column of these rows has its name"
        assert (told in said, any("fact_score" in one for one in said)) == (is_told, is_told)


def test_every_csv_of_samples_tells_which_facts_it_calls_otherwise(run: xaicli.RunReader, tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    pl.DataFrame({"sample_id": range(N), "score": PLACE, "value": PLACE, "free": PLACE}).write_csv(facts)
    how: dict[str, Any] = {"mode": "train", "facts": facts}
    asked = {
        "samples": (run.samples(ids=[1], max=0, min=0, **how), {"score", "value"}),
        "cell": (run.confusion(cell="b,a", **how), {"score", "value"}),
        "report": (run.report(**how), {"score", "value"}),
    }
    for name, (result, called) in asked.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result.save(tmp_path / name, formats=["csv"])
        said = {str(one.message) for one in caught}
        head = (tmp_path / name / "samples.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
        assert {fact for fact in ("score", "value", "free") if f"fact_{fact}" in head} == called
        for fact in called:
            told = f"the fact {fact} is called fact_{fact} in samples.csv: a column of these rows has its name"
            assert told in said


def test_a_column_of_another_table_is_said_to_be_there(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_facts([1, 2], place=["here", "there"])
        recorded.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for engine in ("polars", "duckdb"):
        for sql in (
            "SELECT place, avg(loss) FROM samples GROUP BY place",
            "SELECT count(*) FROM samples WHERE place IS NULL",
            "SELECT s.place FROM samples s",
        ):
            with pytest.raises(XaiError, match="there is no column place where it is asked for") as refused:
                opened.query(sql, engine=engine)
            assert "place is a column of facts: JOIN facts USING (sample_id); tables: " in refused.value.hint
            assert "did you mean" not in refused.value.hint
        with pytest.raises(XaiError, match="there is no column plce") as refused:
            opened.query("SELECT plce FROM samples", engine=engine)
        assert "where it is" not in refused.value.message
        assert refused.value.hint.startswith("did you mean place? tables: ")


def test_a_condition_that_could_mean_a_statistic_says_which_it_means(run: xaicli.RunReader, tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    pl.DataFrame({"sample_id": range(N), "confidence": [i / 100 for i in range(N)]}).write_csv(facts)
    asked = run.select(rule="confidence < 0.1", mode="train", facts=facts)
    assert set(ids(asked)) == set(range(10))
    assert "confidence in the condition is the fact: --no-facts has the statistic of this name" in asked.answer.warnings
    without = run.select(rule="confidence < 0.1", mode="train")
    mean = np.exp(-np.array(LOSS)) * 0.9 + 0.02
    assert set(ids(without)) == set(np.flatnonzero(mean < 0.1).tolist())


def test_facts_never_share_a_column() -> None:
    assert fact_columns(["score", "fact_score"], ["score"]) == {"score": "fact_fact_score", "fact_score": "fact_score"}
    both = fact_columns(["a", "fact_a"], ["a", "fact_a"])
    assert len({*both.values(), "a", "fact_a"}) == 4
    facts = {"score": "mine", "fact_score": "other"}
    rows = pl.DataFrame({"score": [1.0], "facts": [facts]})
    for told in (to_csv(rows), to_csv([{"score": 1.0, "facts": facts}])):
        assert told.splitlines() == ["score,fact_fact_score,fact_score", "1.0,mine,other"]


def test_who_labelled_is_never_a_fact(tmp_path: Path) -> None:
    names = ("by", "when", "name", "annotator", "updated_at", "created_at", "annotation_id")
    known: dict[str, Any] = {name: [f"{name} {i}" for i in range(3)] for name in names}
    with xaicli.Run(tmp_path / "run", label_names=["a", "b"]) as run:
        run.log_facts(range(3), path=[f"p/{i}.png" for i in range(3)], **known)
        run.log_samples(
            sample_id=range(3), label=[0, 1, 1], prediction=[1, 0, 0], loss=[3.0, 2.0, 1.0], mode="train", epoch=1
        )
    opened = xaicli.open_run(tmp_path / "run")
    opened.relabel_export(tmp_path / "t.json", to="label-studio", rule="hardest", n=3, mode="train")
    when = "2026-03-01T10:00:00Z"
    own = {"annotation_id": 5, "annotator": 7, "created_at": when, "updated_at": when, "lead_time": 1.0}
    data = [task["data"] for task in json.loads((tmp_path / "t.json").read_text())]
    rows = [{**task, "id": k, "label": "ba"[k % 2], **own} for k, task in enumerate(data)]
    (tmp_path / "min.json").write_text(json.dumps(rows))
    pl.DataFrame(rows).write_csv(tmp_path / "min.csv")
    opened.relabel_export(tmp_path / "t.csv", to="csv", rule="hardest", n=3, mode="train")
    table = pl.read_csv(tmp_path / "t.csv", infer_schema=False)
    table.with_columns(label=pl.Series(["b", "a", "b"]), by=pl.lit("7"), when=pl.lit(when)).write_csv(
        tmp_path / "own.csv"
    )
    for file in ("min.json", "min.csv", "own.csv"):
        found = corrections_of(opened.relabel_apply(tmp_path / file))
        assert found.sort("sample_id").rows() == [(0, 1, "7", when), (1, 0, "7", when), (2, 1, "7", when)]
    for row in data:
        for name in names:
            assert f"{name} {row['sample_id']}" in row.values()


def test_facts_of_a_table_of_metrics(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], iou=["low", "high"], split=["left", "right"])
        run.add_metrics_data({"sample_id": [1, 2], "iou": [0.2, 0.9]}, name="found")
    found = xaicli.open_run(tmp_path / "run").samples(table="found", metric="iou", where="fact_iou = 'high'")
    assert ids(found) == [2, 2]  # highest and lowest
    assert set(found.data["mode"]) == {""}
    assert "the fact iou is called fact_iou: a column of table found has its name" in found.answer.warnings


def test_facts_called_like_columns_of_a_table_have_one_name_in_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0]], np.float32)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(
            [1, 2, 3], split=["left", "right", "left"], iou=[7, 8, 9], epoch=["a", "b", "c"], place=PLACES[:3]
        )
        columns: dict[str, Any] = {"sample_id": [1, 2, 3], "iou": [0.2, 0.9, 0.4], "split": ["val"] * 3}
        run.add_metrics_data(columns | {"epoch": [1, 1, 1], "vector": vectors}, name="metrics")
    own = {"fact_split", "fact_iou", "fact_epoch", "place"}
    where = [str(tmp_path / "run"), "--no-progress", "-o", str(tmp_path / "out"), "--format", "csv,json,md,html"]
    for command in (["samples", "--table", "metrics", "--max", "3", "--min", "0"], ["embeddings"]):
        assert main([*command, *where, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert {name for row in told["rows"] for name in row["facts"]} == own
        for name in ("split", "iou"):
            said = f"the fact {name} is called fact_{name}: a column of table metrics has its name"
            assert told["warnings"].count(said) == 1
            assert not [words for words in told["warnings"] if f"{name} is called" in words and words != said]
        [file] = [f for f in (tmp_path / "out").glob("*.csv") if f.name.startswith(command[0])]
        head = file.read_text(encoding="utf-8").splitlines()[0].split(",")
        assert {name for name in head if name in own} == own
        assert main([*command, str(tmp_path / "run"), "--no-progress"]) == 0
        shown = capsys.readouterr().out
        assert command == ["embeddings"] or {"fact_split", "fact_iou", "fact_epoch"} <= set(shown.split())
    for colour, expected in (("fact_split", ["left", "right", "left"]), ("split", ["val"] * 3), ("place", PLACES[:3])):
        found = xaicli.open_run(tmp_path / "run").embeddings(colour=colour).data.sort("sample_id")
        assert found["colour"].to_list() == expected
    assert xaicli.open_run(tmp_path / "run").embeddings(colour="fact_iou").data["colour"].to_list() == ["7", "8", "9"]
    with pytest.raises(XaiError, match="no column or fact 'fact_splt'") as refused:
        xaicli.open_run(tmp_path / "run").embeddings(colour="fact_splt")
    assert "did you mean fact_split or fact_epoch?" in refused.value.hint


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("ids", ["example_id", "sample_id"])
def test_the_hint_joins_what_a_table_says_of_its_rows(tmp_path: Path, engine: str, ids: str) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1], place=["here", "there"])
        run.add_metrics({"example_id": [0, 1], ids: [0, 1], "fp": [3, 5]}, name="metrics")
    opened = xaicli.open_run(tmp_path / "run")
    for called in ("metrics", "metrics m", 'metrics AS "m n"'):
        sql = f"SELECT place, fp FROM {called}"
        with pytest.raises(XaiError, match="there is no column place where it is asked for") as refused:
            opened.query(sql, engine=engine)
        join = refused.value.hint.partition("place is a column of facts: ")[2].partition(";")[0]
        assert join.startswith("JOIN facts ")
        assert opened.query(f"{sql} {join} ORDER BY fp", engine=engine).data.rows() == [("here", 3), ("there", 5)]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[7, 8], loss=[1.0, 2.0], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="there is no column place where") as refused:
        xaicli.open_run(tmp_path / "run").query("SELECT place FROM metrics", engine=engine)
    # Rows of a table count what was collected, which need be no sample's id.
    assert ("JOIN" in refused.value.hint) == (ids == "sample_id")
