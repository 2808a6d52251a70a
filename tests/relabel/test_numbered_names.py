"""Classes that are called by numbers: `sorted({"0", "1", "2", "10"})` calls class 2 "10" and class 3 "2"."""

from __future__ import annotations

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
from xaicli.errors import XaiError
from xaicli.tables.schema import CategoricalLabel

NAMES = ["0", "1", "10", "2"]
TEXTS = [NAMES[number % 4] for number in range(12)]
TYPED = ["parquet", "json", "jsonl"]
EVERY = [*TYPED, "csv"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """Samples 0 to 11 of classes 0, 1, 2, 3, 0, ...; sample 0 is answered with class 2."""
    path = tmp_path_factory.mktemp("numbered") / "run"
    logits = np.eye(4, dtype=np.float32)[np.arange(12) % 4] * 3
    logits[0] = np.eye(4)[2] * 4
    with xaicli.Run(path, label_names=NAMES) as made:
        for epoch in range(3):
            made.log_samples(sample_id=range(12), label=np.arange(12) % 4, logits=logits, mode="train", epoch=epoch)
    return xaicli.open_run(path)


def written(path: Path, labels: list[Any], **more: list[Any]) -> Path:
    write_list(pl.DataFrame({"sample_id": range(len(labels)), "label": labels, **more}), path)
    return path


def changed(run: xaicli.RunReader, *files: Path, **how: Any) -> dict[int, int]:
    data = run.relabel_apply(files, **how).data.filter(pl.col("changed"))
    return dict(data.select("sample_id", "label").iter_rows())


@pytest.mark.parametrize("kind", EVERY)
def test_what_apply_wrote_means_the_same_to_apply_truth_and_table(
    run: xaicli.RunReader, tmp_path: Path, kind: str
) -> None:
    right = ["10", *TEXTS[1:]]  # one correction, of sample 0: class 2
    found = run.relabel_apply(written(tmp_path / "people.parquet", right))
    own = write_list(corrections_of(found), tmp_path / f"own.{kind}")
    again = run.relabel_apply(own)
    assert (changed(run, own), list(again.answer.warnings)) == ({0: 2}, [])
    schema = {"label": CategoricalLabel("label", tuple(NAMES))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = xaicli.Table([(None, one) for one in TEXTS], ids=range(12), relabel=own)
        numbers = xaicli.Table([(None, n % 4) for n in range(12)], ids=range(12), relabel=own)
        named = xaicli.Table([(None, n % 4) for n in range(12)], ids=range(12), relabel=own, schema=schema)
    assert [texts[n][1] for n in range(12)] == right
    assert [numbers[n][1] for n in range(12)] == [2, *(n % 4 for n in range(1, 12))]
    assert [named[n][1] for n in range(12)] == [2, *(n % 4 for n in range(1, 12))]
    scored = run.dynamics(mode="train", truth=own)
    assert scored.answer.extra["truth"]["loss_mean"]["auroc"] == 1.0
    assert not [one for one in scored.answer.warnings if "name" in one]


@pytest.mark.parametrize("kind", EVERY)
def test_names_of_people_are_names_to_apply_and_truth(run: xaicli.RunReader, tmp_path: Path, kind: str) -> None:
    """Only where nothing tells names from numbers is it said how they were read."""
    file = written(tmp_path / f"people.{kind}", ["10", *TEXTS[1:]])
    assert changed(run, file) == {0: 2}
    scored = run.dynamics(mode="train", truth=file)
    assert scored.answer.extra["truth"]["loss_mean"]["auroc"] == 1.0
    for warned in (run.relabel_apply(file).answer.warnings, scored.answer.warnings):
        told = [one for one in warned if "the name of one class and the number of another" in one]
        assert told == (
            []
            if kind in TYPED
            else [
                "3 labels may be the name of one class and the number of another, and are taken as names: 2 "
                "(class 3, not 2); Parquet and JSON tell numbers from names"
            ]
        )


@pytest.mark.parametrize("kind", TYPED)
def test_numbers_are_numbers_to_apply_and_truth(run: xaicli.RunReader, tmp_path: Path, kind: str) -> None:
    file = written(tmp_path / f"codes.{kind}", [2, *(n % 4 for n in range(1, 12))])
    assert changed(run, file) == {0: 2}
    scored = run.dynamics(mode="train", truth=file)
    assert scored.answer.extra["truth"]["loss_mean"]["auroc"] == 1.0


def test_the_table_of_export_holds_names(run: xaicli.RunReader, tmp_path: Path) -> None:
    run.relabel_export(tmp_path / "t.csv", to="csv", ids=[3, 7], mode="train")
    rows = pl.read_csv(tmp_path / "t.csv", infer_schema=False).with_columns(pl.lit("2").alias("label"))
    rows.write_csv(tmp_path / "t.csv")
    found = run.relabel_apply(tmp_path / "t.csv")
    assert (found.data["label"].to_list(), list(found.answer.warnings)) == ([3, 3], [])


def test_the_table_of_export_tells_empty_text_from_what_is_missing(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as made:
        made.log_samples(sample_id=[1, 2], label=["", None], loss=[0.5, 0.25], mode="train", epoch=1)
        made.log_facts([1, 2], site=["", None])
    xaicli.open_run(tmp_path / "run").relabel_export(tmp_path / "t.csv", to="csv", ids=[1, 2], mode="train")
    rows = {row["sample_id"]: row for row in pl.read_csv(tmp_path / "t.csv").to_dicts()}
    assert [(row["recorded_label"], row["site"]) for row in rows.values()] == [("", ""), (None, None)]


def test_a_column_name_counts_only_where_it_names_the_class(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("sample_id,label,name\n0,2,10\n1,2,2\n4,2,Ann\n")
    assert changed(run, file) == {0: 2, 1: 3, 4: 3}  # class 2 is called 10; 2 is a name to the others


def test_a_label_map_says_which_is_meant(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("sample_id,label\n0,2\n")
    found = run.relabel_apply(file, label_map={"2": "10"})
    assert (found.data["label"].to_list(), list(found.answer.warnings)) == ([2], [])


def test_a_label_map_that_makes_a_class_is_told(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("sample_id,label\n0,x\n")
    found = run.relabel_apply(file, label_map={"x": 5})
    assert found.data["label"].to_list() == [5]
    assert "--label-map x=5: the run has no class 5, and it is a new one" in found.answer.warnings


def test_a_set_of_classes_in_a_cell_tells_numbers_from_names(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as made:
        made.log_samples(
            sample_id=range(3),
            label=[[0], [1], [0, 1]],
            prediction=[[0], [1], [2]],
            loss=[1.0] * 3,
            mode="train",
            epoch=0,
        )
    run = xaicli.open_run(tmp_path / "run")
    file = tmp_path / "a.csv"
    file.write_text('sample_id,label\n0,"[0, 2]"\n1,"[""10"", ""2""]"\n')
    data = run.relabel_apply(file).data
    assert dict(data.select("sample_id", "label").iter_rows()) == {0: [0, 2], 1: [2, 3]}


def test_the_number_of_a_class_does_not_stand_among_texts_that_are_numbers(tmp_path: Path) -> None:
    file = written(tmp_path / "codes.parquet", [3])
    with pytest.raises(XaiError, match="is a number, and the data set has names: '10'"):
        xaicli.Table([(None, "10")], ids=[0], relabel=file)
    schema = {"label": CategoricalLabel("label", tuple(NAMES))}
    assert xaicli.Table([(None, "10")], ids=[0], relabel=file, schema=schema)[0][1] == "2"


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("text", ["01", "001", "1e0", "nan", "1_0"])
def test_a_text_that_is_no_number_of_a_class_does_not_become_one(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(XaiError, match="cannot stand in place of 0"):
        xaicli.Table([(None, 0)], ids=[0], relabel=written(tmp_path / f"a.{kind}", [text]))


def test_a_number_that_is_none_corrects_no_measured_label(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(XaiError, match=r"cannot stand in place of 0\.5"):
            xaicli.Table([(None, 0.5)], ids=[0], relabel=written(tmp_path / "a.parquet", [value]))
        with pytest.raises(XaiError, match=r"cannot stand in place of 0\.5"):
            xaicli.Table([(None, 0.5)], ids=[0], relabel={0: value})


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "studio.json"])
def test_numbers_that_are_not_finite_correct_nothing_and_are_counted(tmp_path: Path, kind: str) -> None:
    with xaicli.Run(tmp_path / "run") as made:
        made.log_samples(
            sample_id=range(4), label=[0.5, 1.5, 2.5, 3.5], prediction=[0.5] * 4, loss=[1.0] * 4, mode="train", epoch=0
        )
    run = xaicli.open_run(tmp_path / "run")
    file = tmp_path / f"a.{kind}"
    values = [float("nan"), float("inf"), -float("inf"), 9.25]
    if kind == "studio.json":
        tasks = [
            {
                "data": {"sample_id": number},
                "annotations": [{"result": [{"from_name": "label", "type": "number", "value": {"number": value}}]}],
            }
            for number, value in enumerate(values)
        ]
        file.write_text(json.dumps(tasks))
    elif kind == "json":
        file.write_text(json.dumps([{"sample_id": n, "label": value} for n, value in enumerate(values)]))
    else:
        written(file, values if kind == "parquet" else list(map(str, values)))
    found = run.relabel_apply(file)
    assert dict(found.data.select("sample_id", "label").iter_rows()) == {3: 9.25}
    assert [(row["reason"], row["n"]) for row in found.answer.extra["left_out"]] == [("a number that is not finite", 3)]


def test_digits_that_are_called_by_their_own_number_need_no_name(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["0", "1", "2"]) as made:
        made.log_samples(
            sample_id=range(3), label=[0, 1, 2], prediction=[0, 1, 1], loss=[1.0] * 3, mode="train", epoch=0
        )
    found = xaicli.open_run(tmp_path / "run").relabel_apply(written(tmp_path / "people.csv", ["0", "1", "1"]))
    assert (corrections_of(found).columns, list(found.answer.warnings)) == (["sample_id", "label", "by", "when"], [])
    own = write_list(corrections_of(found), tmp_path / "own.csv")
    table = xaicli.Table([(None, str(n)) for n in range(3)], ids=range(3), relabel=own)
    assert [table[n][1] for n in range(3)] == ["0", "1", "1"]
