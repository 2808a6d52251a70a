"""Corrections go to the split and data set that was looked at, where several number their samples alike."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

import xaicli
from xaicli.api.decisions import write_list
from xaicli.api.relabel import corrections_of
from xaicli.errors import XaiError

NAMES = ["ant", "bee", "cow"]
PLACES = [("train", ""), ("eval", "x"), ("eval", "y")]
LABEL = {("train", ""): [0, 1, 2, 0, 1], ("eval", "x"): [1, 2, 0, 1, 2], ("eval", "y"): [2, 0, 1, 2, 0]}
"""No sample has in one place the label that its namesake has in another."""
TOOLS = ["label-studio", "cvat", "fiftyone", "fiftyone samples", "coco", "csv"]
MODES = "recorded in several splits, and the file does not say which: --mode"
SETS = "recorded in several data sets, and the file does not say which: --ds-id"
NOT_LOOKED_AT = "not looked at: as recorded, and not checked"


@pytest.fixture(scope="module", params=[False, True], ids=["no pictures", "pictures"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """Samples 0 to 4 in three places; with `path`, the namesakes share a picture, as one fact a sample has it."""
    path = tmp_path_factory.mktemp("places") / "run"
    with xaicli.Run(path, label_names=NAMES) as run:
        if request.param:
            run.log_facts(range(5), path=[f"img/{number}.png" for number in range(5)])
        for mode, ds_id in PLACES:
            labels = LABEL[mode, ds_id]
            run.log_samples(
                sample_id=range(5),
                label=labels,
                prediction=[(label + 1) % 3 for label in labels],
                loss=[1.0] * 5,
                mode=mode,
                ds_id=ds_id,
                epoch=1,
            )
    return xaicli.open_run(path)


def exported(run: xaicli.RunReader, folder: Path, tool: str) -> Path:
    """All samples of all places, as a file that nobody touched."""
    to, _, kind = tool.partition(" ")
    target = folder / {"csv": "t.csv", "cvat": "t.xml", "fiftyone": "t"}.get(to, "t.json")
    run.relabel_export(target, to=to, ids=list(range(5)), mode="all")
    if not kind:
        return target
    # As FiftyOne's importer has them, attributes are fields of a label; FiftyOneDataset writes these to samples.json.
    labels = json.loads((target / "labels.json").read_text(encoding="utf-8"))["labels"]
    pictures = json.loads((target / "data.json").read_text(encoding="utf-8"))
    samples = [
        {
            "filepath": pictures[key] or f"/somewhere/{key}.png",
            "ground_truth": {"_cls": "Classification", "label": one["label"], **one["attributes"]},
        }
        for key, one in labels.items()
    ]
    path = folder / "samples.json"
    path.write_text(json.dumps({"samples": samples}), encoding="utf-8")
    return path


def put_right(path: Path, tool: str, place: tuple[str, str], sample_id: int, label: int) -> Path:
    """The file after somebody put one sample of one place right, and looked at no other."""

    def is_meant(known: Any) -> bool:
        return (known["mode"], known["ds_id"] or "", str(known["sample_id"])) == (*place, str(sample_id))

    if tool == "cvat":
        tree = ElementTree.parse(path)
        for tag in tree.getroot().iter("tag"):
            known = {str(one.get("name")): one for one in tag.findall("attribute")}
            if is_meant({name: one.text for name, one in known.items()}):
                tag.set("label", NAMES[label])
                known["checked"].text = "true"
        tree.write(path, encoding="utf-8")
        return path
    if tool == "csv":
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "label": NAMES[label] if is_meant(row) else ""} for row in rows)
        return path
    return put_right_in_json(path / "labels.json" if tool == "fiftyone" else path, tool, is_meant, label)


def put_right_in_json(path: Path, tool: str, is_meant: Callable[[Any], bool], label: int) -> Path:
    found = json.loads(path.read_text(encoding="utf-8"))
    match tool:
        case "coco":
            numbers = {one["name"]: one["id"] for one in found["categories"]}
            for one in filter(lambda one: is_meant(one["attributes"]), found["annotations"]):
                one["category_id"] = numbers[NAMES[label]]
                one["attributes"]["checked"] = True
        case "fiftyone":
            for one in filter(lambda one: is_meant(one["attributes"]), found["labels"].values()):
                one["label"], one["attributes"]["checked"] = NAMES[label], True
        case "fiftyone samples":
            for sample in filter(lambda sample: is_meant(sample["ground_truth"]), found["samples"]):
                sample["ground_truth"] |= {"label": NAMES[label], "checked": True}
        case _:
            value = {"choices": [NAMES[label]]}
            result = {"from_name": "label", "to_name": "sample", "type": "choices", "value": value}
            for task in found:
                task["annotations"] = [{"completed_by": 1, "result": [result]}] if is_meant(task["data"]) else []
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def told(run: xaicli.RunReader, path: Path, **how: Any) -> list[tuple[Any, ...]]:
    return run.relabel_apply(path, **how).data.select("mode", "ds_id", "sample_id", "label", "changed").rows()


def left_out(run: xaicli.RunReader, path: Path, **how: Any) -> dict[str, int]:
    return {row["reason"]: row["n"] for row in run.relabel_apply(path, **how).answer.extra["left_out"]}


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "label-studio"])
def test_an_untouched_file_corrects_nothing(run: xaicli.RunReader, tmp_path: Path, tool: str) -> None:
    path = exported(run, tmp_path, tool)
    assert told(run, path) == []
    assert left_out(run, path) == {"not labelled yet" if tool == "csv" else NOT_LOOKED_AT: 15}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_correction_is_of_the_place_that_was_looked_at(
    run: xaicli.RunReader, tmp_path: Path, tool: str, place: tuple[str, str]
) -> None:
    right = (LABEL[place][3] + 2) % 3
    path = put_right(exported(run, tmp_path, tool), tool, place, 3, right)
    assert told(run, path) == [(*place, 3, right, True)]


def test_cvat_has_one_picture_for_namesakes(run: xaicli.RunReader, tmp_path: Path) -> None:
    """CVAT finds pictures by name: tags of several samples come back on one of them."""
    path = put_right(exported(run, tmp_path, "cvat"), "cvat", ("eval", "y"), 4, 1)
    tree = ElementTree.parse(path)
    root = tree.getroot()
    by_name: dict[str, ElementTree.Element] = {}
    for image in list(root.iter("image")):
        first = by_name.setdefault(str(image.get("name")), image)
        if first is not image:
            first.extend(image.findall("tag"))
            root.remove(image)
    assert len(by_name) == 5
    tree.write(path, encoding="utf-8")
    assert told(run, path) == [("eval", "y", 4, 1, True)]
    assert left_out(run, path) == {NOT_LOOKED_AT: 14}


def test_what_names_no_place_is_taken_for_none(run: xaicli.RunReader, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("sample_id,label\n3,cow\n", encoding="utf-8")
    assert told(run, path) == []
    assert left_out(run, path) == {MODES: 1}
    assert told(run, path, mode="eval") == []
    assert left_out(run, path, mode="eval") == {SETS: 1}
    assert told(run, path, mode="train") == [("train", "", 3, 2, True)]
    assert told(run, path, mode="eval", ds_id="y") == [("eval", "y", 3, 2, False)]
    # A spreadsheet drops the quotes of "", which is the data set without a name.
    path.write_text("sample_id,label,mode,ds_id\n3,cow,train,\n3,cow,eval,\n3,cow,eval,x\n", encoding="utf-8")
    assert told(run, path) == [("train", "", 3, 2, True), ("eval", "x", 3, 2, True)]


def test_the_table_says_where_ids_are_shared(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "said.csv"
    file.write_text("sample_id,label,mode,ds_id\n3,cow,eval,x\n1,cow,train,\n", encoding="utf-8")
    found = run.relabel_apply(file)
    assert corrections_of(found).select("sample_id", "mode", "ds_id").rows() == [(3, "eval", "x"), (1, "train", "")]
    only = run.relabel_apply(file, mode="eval", ds_id="x")
    said = "1 of the corrections is of a sample whose id others have in another split or data set"
    assert any(one.startswith(said) for one in only.answer.warnings)
    assert corrections_of(only).columns == ["sample_id", "label", "by", "when", "mode", "ds_id"]
    for kind in ("csv", "parquet", "json"):
        table = write_list(corrections_of(only), tmp_path / f"only.{kind}")
        assert told(run, table) == [("eval", "x", 3, 2, True)]
        samples = [(None, label) for label in LABEL["eval", "x"]]
        own = xaicli.Table(samples, relabel=table, mode="eval", ds_id="x")
        assert [own[n][1] for n in range(5)] == [1, 2, 0, 2, 2]
        with pytest.warns(UserWarning, match="about samples of eval x"):
            xaicli.Table(samples, relabel=table)
        with pytest.raises(XaiError, match=r"no row of .* is about samples of train"):
            xaicli.Table([(None, label) for label in LABEL["train", ""]], relabel=table, mode="train")
    both = write_list(corrections_of(found), tmp_path / "both.csv")
    samples = [(None, label) for label in LABEL["train", ""]]
    with pytest.warns(UserWarning, match=r"1 row of .* about other samples"):
        train = xaicli.Table(samples, relabel=both, mode="train")
    assert [train[n][1] for n in range(5)] == [0, 2, 2, 0, 1]


def test_a_run_whose_ids_differ_needs_no_place(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as writer:
        for mode, ids in (("train", [0, 1, 2]), ("eval", [3, 4, 5])):
            writer.log_samples(sample_id=ids, label=[0, 1, 2], loss=[1.0] * 3, mode=mode, epoch=1)
    run = xaicli.open_run(tmp_path / "run")
    file = tmp_path / "said.csv"
    file.write_text("sample_id,label\n4,cow\n", encoding="utf-8")
    found = run.relabel_apply(file)
    assert corrections_of(found).columns == ["sample_id", "label", "by", "when"]
    assert told(run, file) == [("eval", "", 4, 2, True)]


def test_the_truth_is_of_the_place_that_its_table_names(tmp_path: Path) -> None:
    """One label of train and one of eval is wrong, and true labels of namesakes differ."""
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as writer:
        for mode, wrong, true in (("train", 0, 0), ("eval", 4, 2)):
            losses = [9.0 if number == wrong else 1.0 for number in range(5)]
            labels = [1 if number == wrong else true for number in range(5)]
            for epoch in (1, 2):
                writer.log_samples(sample_id=range(5), label=labels, loss=losses, mode=mode, epoch=epoch)
    run = xaicli.open_run(tmp_path / "run")
    rows = [(number, true, mode, "") for mode, true in (("train", 0), ("eval", 2)) for number in range(5)]
    truth = tmp_path / "truth.parquet"
    pl.DataFrame(rows, schema=["sample_id", "label", "mode", "ds_id"], orient="row").write_parquet(truth)
    found = run.dynamics(mode="all", truth=truth)
    assert found.answer.extra["truth"]["train loss_mean"]["auroc"] == 1.0
    assert found.answer.extra["truth"]["eval loss_mean"]["auroc"] == 1.0
    assert not [one for one in found.answer.warnings if "names again" in one]
    half = tmp_path / "half.csv"
    half.write_text("sample_id,label,mode,ds_id\n" + "".join(f"{n},2,eval,\n" for n in range(5)), encoding="utf-8")
    with pytest.raises(XaiError, match="knows no sample"):
        run.dynamics(mode="train", truth=half)
    assert run.dynamics(mode="eval", truth=half).answer.extra["truth"]["loss_mean"]["auroc"] == 1.0


def predicted_run(path: Path, kind: str) -> xaicli.RunReader:
    """A run without names whose last class only predictions have: 4, "ewe", or 4 in a set."""
    classes: list[Any] = ["ant", "bee", "cow", "dog", "ewe"] if kind == "texts" else [0, 1, 2, 3, 4]
    labels = [classes[number % 4] for number in range(8)]
    taken = [classes[4] if number in (1, 6) else label for number, label in enumerate(labels)]
    if kind == "sets":
        labels, taken = [[0, one] if one else [0] for one in labels], [[0, one] if one else [0] for one in taken]
    with xaicli.Run(path, task="multilabel" if kind == "sets" else None) as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=range(8), label=labels, prediction=taken, loss=[1.0] * 8, mode="train", epoch=epoch
            )
    return xaicli.open_run(path)


@pytest.mark.parametrize("kind", ["numbers", "texts", "sets"])
@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "fiftyone samples"])
def test_what_an_export_suggests_comes_back(tmp_path: Path, tool: str, kind: str) -> None:
    run = predicted_run(tmp_path / "run", kind)
    target = tmp_path / {"csv": "t.csv", "cvat": "t.xml", "fiftyone": "t"}.get(tool, "t.json")
    found = run.relabel_export(target, to=tool, ids=list(range(8)), mode="train")
    new = "ewe" if kind == "texts" else "4"
    assert new in found.answer.extra["classes"]
    suggested = ["0", "4"] if kind == "sets" else [new]
    if tool == "cvat":
        tree = ElementTree.parse(target)
        for image in tree.getroot().iter("image"):
            if image.find("tag/attribute[@name='sample_id']").text == "1":  # type: ignore[union-attr]
                tag = image.findall("tag")[-1]
                tag.set("label", new)
                tag.find("attribute[@name='checked']").text = "true"  # type: ignore[union-attr]
        tree.write(target, encoding="utf-8")
    elif tool == "csv":
        rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {**row, "label": row["suggested_label"] if row["sample_id"] == "1" else ""} for row in rows
            )
    else:
        path = target / "labels.json" if tool == "fiftyone" else target
        written = json.loads(path.read_text(encoding="utf-8"))
        if tool == "coco":
            numbers = {one["name"]: one["id"] for one in written["categories"]}
            one = [one for one in written["annotations"] if one["attributes"]["sample_id"] == "1"][-1]
            one["category_id"], one["attributes"]["checked"] = numbers[new], True
        elif tool == "fiftyone":
            given = written["labels"]["1"]
            one = given[-1] if isinstance(given, list) else given
            one["label"], one["attributes"]["checked"] = new, True
        else:
            for task in written:
                results = task["predictions"][0]["result"] if task["data"]["sample_id"] == "1" else []
                assert not results or results[0]["value"]["choices"] == suggested
                task["annotations"] = [{"completed_by": 1, "result": results}] if results else []
        path.write_text(json.dumps(written), encoding="utf-8")
    expected = {"numbers": 4, "texts": "ewe", "sets": [0, 4]}[kind]
    told = run.relabel_apply(target)
    assert told.data.select("sample_id", "label", "changed").rows() == [(1, expected, True)]
    (judged,) = (*told.answer.extra["suspects"], *told.answer.extra["others"])
    row = told.data.to_dicts()[0]["suggested_label"], judged["suggested"], judged["suggestion_right"]
    assert row == ((None, 0, None) if tool == "cvat" else (expected, 1, 1))  # whose tags have no place for it


def test_a_suggestion_that_was_right_is_that_of_the_file(tmp_path: Path) -> None:
    """Whatever this run would suggest now; of a file that brings none back, nothing is said."""
    run = predicted_run(tmp_path / "run", "numbers")
    run.relabel_export(tmp_path / "t.csv", ids=list(range(8)), mode="train")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()))
    for place, row in enumerate(rows):
        row |= {"label": "2", "suggested_label": "2" if place < 3 else "0" if place < 5 else ""}
    for name, columns in (("ours", list(rows[0])), ("theirs", ["sample_id", "label"])):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    ours, theirs = (run.relabel_apply(tmp_path / f"{name}.csv", mode="train") for name in ("ours", "theirs"))
    judged = [[*one.answer.extra["suspects"], *one.answer.extra["others"]] for one in (ours, theirs)]
    told = [[(row["looked_at"], row["suggested"], row["suggestion_right"]) for row in one] for one in judged]
    assert told == [[(8, 5, 3)], [(8, 0, None)]]
    assert ours.data["suggested_label"].to_list() == [2, 2, 2, 0, 0, None, None, None]
    (tmp_path / "none.csv").write_text("sample_id,label\n", encoding="utf-8")
    none = run.relabel_apply(tmp_path / "none.csv")
    assert none.answer.warnings == (f"{tmp_path / 'none.csv'} names no sample",)
    assert "There was no mark to take." in none.markdown()
    assert "| no suspects | 8 | 6 | 75 % | 41 % to 93 % | – |" in theirs.markdown()


def test_a_class_that_nothing_has_is_still_unknown(tmp_path: Path) -> None:
    run = predicted_run(tmp_path / "run", "numbers")
    file = tmp_path / "said.csv"
    file.write_text("sample_id,label\n0,4\n1,5\n", encoding="utf-8")
    assert told(run, file) == [("train", "", 0, 4, True)]
    assert left_out(run, file) == {"a label that the run does not know": 1}


def test_blank_rows_of_a_spreadsheet_are_none(run: xaicli.RunReader, tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_text("sample_id,label,mode\n3,cow,train\n,,\n,,\n", encoding="utf-8")
    assert told(run, path) == [("train", "", 3, 2, True)]
    assert left_out(run, path) == {}


def test_a_place_without_a_listed_sample_is_told_in_those_words(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as made:
        for ds_id, ids in (("day", [1, 2]), ("night", [3, 4])):
            made.log_samples(sample_id=ids, label=[0, 1], loss=[1.0, 2.0], mode="eval", ds_id=ds_id, epoch=1)
    answer = xaicli.open_run(tmp_path / "run").relabel_export(to="csv", ids=[1]).answer
    assert answer.data["sample_id"].to_list() == [1]
    assert [said for said in answer.warnings if "night" in said] == ["eval night: no listed sample is there"]
