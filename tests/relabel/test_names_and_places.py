"""Which label and which sample is meant, where names are alike and where id and picture differ."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

import xaicli
from xaicli.api.decisions import write_list
from xaicli.api.relabel import corrections_of
from xaicli.errors import XaiError
from xaicli.tables.schema import CategoricalLabel

ALIKE = [" cat", "cat", "dog\u00a0"]
"""The first two differ by a blank; the last ends with one that does not break."""
TOOLS = ["label-studio", "cvat", "fiftyone", "coco", "csv"]
FILES = {"label-studio": "t.json", "cvat": "t.xml", "fiftyone": "t", "coco": "t.json", "csv": "t.csv"}


def run_of(path: Path, names: list[str], *, as_texts: bool = False) -> xaicli.RunReader:
    labels: list[Any] = [number % 3 for number in range(9)]
    taken: list[Any] = [(number + 1) % 3 for number in range(9)]
    if as_texts:
        labels, taken = ([names[one] for one in some] for some in (labels, taken))
    with xaicli.Run(path, label_names=None if as_texts else names) as run:
        run.log_facts(range(9), path=[f"/data/p/{number}.png" for number in range(9)])
        run.log_samples(
            sample_id=range(9), label=labels, prediction=taken, loss=[1.0 + n for n in range(9)], mode="train", epoch=1
        )
    return xaicli.open_run(path)


def say(path: Path, to: str, said: dict[int, str]) -> Path:
    """What a person gives back who looked at these samples and at no others."""
    if to == "cvat":
        tree = ElementTree.parse(path)
        for image in tree.getroot().iter("image"):
            (tag,) = image.findall("tag")
            known = {str(one.get("name")): one for one in tag.findall("attribute")}
            if (number := int(str(known["sample_id"].text))) in said:
                tag.set("label", said[number])
                known["checked"].text = "true"
        tree.write(path, encoding="utf-8")
        return path
    if to == "csv":
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "label": said.get(int(row["sample_id"]), "")} for row in rows)
        return path
    if to == "fiftyone":
        path = path / "labels.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    if to == "coco":
        numbers = {one["name"]: one["id"] for one in found["categories"]}
        for one in found["annotations"]:
            if (number := int(one["attributes"]["sample_id"])) in said:
                one["category_id"] = numbers[said[number]]
                one["attributes"]["checked"] = True
    elif to == "fiftyone":
        for one in found["labels"].values():
            if (number := int(one["attributes"]["sample_id"])) in said:
                one["label"] = said[number]
                one["attributes"]["checked"] = True
    else:
        found = [task for task in found if int(task["data"]["sample_id"]) in said]
        for task in found:
            value = {"choices": [said[int(task["data"]["sample_id"])]]}
            result = {"from_name": "label", "to_name": "sample", "type": "choices", "value": value}
            task["annotations"] = [{"completed_by": 1, "result": [result]}]
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def applied(run: xaicli.RunReader, *files: Path, **how: Any) -> dict[Any, Any]:
    found = run.relabel_apply(files, **how)
    return dict(corrections_of(found).select("sample_id", "label").iter_rows())


def left_out(run: xaicli.RunReader, *files: Path, **how: Any) -> dict[str, int]:
    return {row["reason"]: row["n"] for row in run.relabel_apply(files, **how).answer.extra["left_out"]}


def typed(path: Path, *lines: str, header: str = "sample_id,label") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("as_texts", [False, True])
@pytest.mark.parametrize("to", TOOLS)
def test_names_with_blanks_about_them_come_back_as_they_are(tmp_path: Path, to: str, as_texts: bool) -> None:
    run = run_of(tmp_path / "run", ALIKE, as_texts=as_texts)
    run.relabel_export(tmp_path / FILES[to], to=to, ids=list(range(9)), mode="train")
    meant = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2}  # 8 stays as nobody looked at it
    file = say(tmp_path / FILES[to], to, {number: ALIKE[label] for number, label in meant.items()})
    expected = {number: ALIKE[label] if as_texts else label for number, label in meant.items()}
    assert applied(run, file) == expected
    write_list(corrections_of(run.relabel_apply(file)), tmp_path / "looked-at.csv")
    samples = [(None, ALIKE[number % 3] if as_texts else number % 3) for number in range(9)]
    table = xaicli.Table(samples, ids=range(9), relabel=tmp_path / "looked-at.csv")
    assert [table[number][1] for number in range(9)] == [*expected.values(), samples[8][1]]
    assert applied(run, tmp_path / "looked-at.csv") == expected


def test_a_name_without_its_blanks_is_taken_where_only_one_fits(tmp_path: Path) -> None:
    """`"cat, dog".split(",")`: tools and people drop the blank, and there is no other dog."""
    run = run_of(tmp_path / "run", ["cat", " dog", "no\u00ebl "])
    lines = ["0,dog", '1," dog"', "2,dog ", "3,cat ", "4,no\u00ebl", "5,noe\u0308l"]
    assert applied(run, typed(tmp_path / "a.csv", *lines)) == {0: 1, 1: 1, 2: 1, 3: 0, 4: 2, 5: 2}
    numbered = run_of(tmp_path / "numbers", [" 1", " 0", " 2"])  # a name, not the number of a class
    assert applied(numbered, typed(tmp_path / "b.csv", "0,1", "1,0")) == {0: 0, 1: 1}


def test_a_name_that_may_be_either_of_two_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ALIKE)
    file = typed(tmp_path / "a.csv", "0,cat", '1," cat"', "2,cat ", "3,Cat")
    assert applied(run, file) == {0: 1, 1: 0}
    assert left_out(run, file) == {
        "a label that may be either of several names": 1,
        "a label that the run does not know": 1,
    }
    assert applied(run, file, label_map={"cat ": 0}) == {0: 1, 1: 0, 2: 0}


def test_a_cell_of_blanks_is_a_label_only_where_the_run_has_it(tmp_path: Path) -> None:
    lines = '0," "', "1,"
    assert applied(run_of(tmp_path / "blank", ["cat", " ", "dog"]), typed(tmp_path / "a.csv", *lines)) == {0: 1}
    plain = run_of(tmp_path / "plain", ["cat", "dog", "cow"])
    assert left_out(plain, typed(tmp_path / "b.csv", *lines, "2,cat")) == {"not labelled yet": 2}


def test_a_table_takes_names_by_the_same_rule(tmp_path: Path) -> None:
    samples = [(None, 2)] * 4
    schema = {"label": CategoricalLabel("label", tuple(ALIKE))}
    file = typed(tmp_path / "a.csv", "0,cat", '1," cat"', "2,dog")
    table = xaicli.Table(samples, ids=range(4), relabel=file, schema=schema)
    assert [table[number][1] for number in range(4)] == [1, 0, 2, 2]
    with pytest.raises(XaiError, match="either of"):
        xaicli.Table(samples, ids=range(4), relabel=typed(tmp_path / "b.csv", "0,cat "), schema=schema)
    names = [(None, "dog\u00a0")] * 2
    table = xaicli.Table(names, ids=range(2), relabel=typed(tmp_path / "c.csv", "0,dog", '1," cat"'), schema=schema)
    assert [table[number][1] for number in range(2)] == ["dog\u00a0", " cat"]


def test_a_text_that_is_a_name_and_the_number_of_another_class_is_asked_about(tmp_path: Path) -> None:
    """Corrections of a run whose labels are numbers, for a data set whose classes are called by other numbers."""
    samples = [(None, 2)] * 3
    schema = {"label": CategoricalLabel("label", ("1", "0", "2"))}
    with pytest.raises(XaiError, match="may be the class called 1, or class 1, which is called 0"):
        xaicli.Table(samples, ids=range(3), relabel=typed(tmp_path / "a.csv", "0,1"), schema=schema)
    for value, label in ((1, 1), ("1", 0)):
        pl.DataFrame({"sample_id": [0], "label": [value]}).write_parquet(tmp_path / "a.parquet")
        table = xaicli.Table(samples, ids=range(3), relabel=tmp_path / "a.parquet", schema=schema)
        assert table[0][1] == label
    table = xaicli.Table(samples, ids=range(3), relabel=typed(tmp_path / "b.csv", "0,2"), schema=schema)
    assert table[0][1] == 2


@pytest.mark.parametrize("as_texts", [False, True])
def test_what_apply_wrote_is_read_again(tmp_path: Path, as_texts: bool) -> None:
    """Texts that look like numbers stay texts, and what looks like nothing at all is a class like any other."""
    names = ["NaN", "inf", "null"]
    run = run_of(tmp_path / "run", names, as_texts=as_texts)
    lines = [f"{number},{names[(number + 1) % 3]}" for number in range(9)]
    found = corrections_of(run.relabel_apply(typed(tmp_path / "people.csv", *lines)))
    expected = {number: names[(number + 1) % 3] if as_texts else (number + 1) % 3 for number in range(9)}
    samples = [(None, names[number % 3] if as_texts else number % 3) for number in range(9)]
    for file in ("mine.csv", "mine.parquet", "mine.json"):
        write_list(found, tmp_path / file)
        assert applied(run, tmp_path / file) == expected
        table = xaicli.Table(samples, ids=range(9), relabel=tmp_path / file)
        assert [table[number][1] for number in range(9)] == [*expected.values()]


@pytest.mark.parametrize("file", ["mine.parquet", "mine.json"])
def test_numbers_of_classes_that_are_called_by_numbers_stay_numbers(tmp_path: Path, file: str) -> None:
    run = run_of(tmp_path / "run", ["1", "0", "2"])
    write_list(corrections_of(run.relabel_apply(typed(tmp_path / "a.csv", "0,1", "1,1", "2,2"))), tmp_path / file)
    assert applied(run, tmp_path / file) == {0: 0, 1: 0, 2: 2}


def test_names_are_refused_a_number_and_take_any_text(tmp_path: Path) -> None:
    for name in ("None", "-inf", "1e5", "n/a"):
        table = xaicli.Table([(None, "cat")], ids=[0], relabel=typed(tmp_path / "a.csv", f"0,{name}"))
        assert table[0][1] == name
    with pytest.raises(XaiError, match="is a number, and the data set has names"):
        xaicli.Table([(None, "cat")], ids=[0], relabel=typed(tmp_path / "a.csv", "0,1"))
    pl.DataFrame({"sample_id": [0], "label": ["007"]}).write_parquet(tmp_path / "a.parquet")
    assert xaicli.Table([(None, "cat")], ids=[0], relabel=tmp_path / "a.parquet")[0][1] == "007"


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """Samples s0 to s8 of train with pictures /data/p/0.png to 8.png; e8 of eval has none, x of no split has x.png."""
    path = tmp_path_factory.mktemp("pictured") / "run"
    with xaicli.Run(path, label_names=["cat", "dog"]) as run:
        ids = [f"s{number}" for number in range(9)]
        run.log_facts([*ids, "x"], path=[*(f"/data/p/{number}.png" for number in range(9)), "/data/p/x.png"])
        for mode, some in (("train", ids), ("eval", ["e8", "s8"])):
            labels = [0] * len(some)
            run.log_samples(sample_id=some, label=labels, loss=[1.0] * len(some), mode=mode, epoch=1)
    return xaicli.open_run(path)


DIFFER = "its id and its picture are of different samples"
UNKNOWN = "no sample of the run"


@pytest.mark.parametrize("picture", ["/data/p/8.png", "p/8.png", "8.png", "images/8.png", "x://h/p/8.png?a=1", "8"])
def test_an_id_beside_the_picture_of_another_is_told_however_the_picture_is_written(
    pictured: xaicli.RunReader, tmp_path: Path, picture: str
) -> None:
    file = typed(tmp_path / "a.csv", f"s1,{picture},dog", f"s8,{picture},dog", header="sample_id,path,label")
    assert applied(pictured, file, mode="train") == {"s8": 1}
    assert left_out(pictured, file, mode="train") == {DIFFER: 1}


def test_an_id_that_the_run_does_not_know_is_not_replaced_by_the_picture(
    pictured: xaicli.RunReader, tmp_path: Path
) -> None:
    file = typed(tmp_path / "a.csv", "val-8,8.png,dog", ",7.png,dog", "s6,,dog", header="sample_id,path,label")
    assert applied(pictured, file) == {"s7": 1, "s6": 1}
    assert left_out(pictured, file) == {UNKNOWN: 1}
    # A picture of which nothing is known contradicts nobody; one of a sample without rows does.
    file = typed(tmp_path / "b.csv", "s1,elsewhere.png,dog", "s2,x.png,dog", header="sample_id,path,label")
    assert applied(pictured, file) == {"s1": 1}
    assert left_out(pictured, file) == {DIFFER: 1}


def test_ids_and_pictures_of_every_tool_go_by_one_rule(pictured: xaicli.RunReader, tmp_path: Path) -> None:
    asked = (("s1", "p/8.png"), ("s2", "2.png"), ("val-8", "8.png"))
    result = {"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": ["dog"]}}
    tasks = [
        {
            "data": {"sample_id": sample_id, "image": f"/data/upload/1/1a2b3c4d-{picture.rpartition('/')[2]}"},
            "annotations": [{"completed_by": 1, "result": [result]}],
        }
        for sample_id, picture in asked
    ]
    images = "".join(
        f'<image id="{n}" name="{picture}"><tag label="dog"><attribute name="sample_id">{sample_id}</attribute></tag>'
        "</image>"
        for n, (sample_id, picture) in enumerate(asked)
    )
    coco = {
        "images": [{"id": n, "file_name": picture, "sample_id": one} for n, (one, picture) in enumerate(asked)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1} for n in range(3)],
        "categories": [{"id": 1, "name": "dog"}],
    }
    of_fiftyone = {"_cls": "Classification", "label": "dog"}
    samples = {"samples": [{"sample_id": one, "filepath": p, "ground_truth": of_fiftyone} for one, p in asked]}
    labels = {
        "classes": ["cat", "dog"],
        "labels": {f"k{n}": {"label": "dog", "attributes": {"sample_id": one}} for n, (one, _) in enumerate(asked)},
    }
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.json").write_text(json.dumps({f"k{n}": p for n, (_, p) in enumerate(asked)}))
    files = {
        "studio.json": json.dumps(tasks),
        "cvat.xml": f"<annotations>{images}</annotations>",
        "coco.json": json.dumps(coco),
        "samples.json": json.dumps(samples),
        "set/labels.json": json.dumps(labels),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        found = pictured.relabel_apply(tmp_path / name)
        assert found.data["sample_id"].to_list() == ["s2"], name
        assert {row["reason"]: row["n"] for row in found.answer.extra["left_out"]} == {DIFFER: 1, UNKNOWN: 1}, name


def test_the_picture_of_our_own_table_is_its_path_whatever_the_facts_are_called(tmp_path: Path) -> None:
    """A fact called image that numbers pictures otherwise says nothing of which sample is meant."""
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as made:
        made.log_facts(range(4), path=[f"p/{n}.png" for n in range(4)], image=[f"{3 - n}.png" for n in range(4)])
        made.log_samples(sample_id=range(4), label=[0] * 4, loss=[1.0] * 4, mode="train", epoch=0)
    run = xaicli.open_run(tmp_path / "run")
    for to in ("csv", "label-studio"):
        run.relabel_export(tmp_path / FILES[to], to=to, ids=list(range(4)), mode="train")
        assert applied(run, say(tmp_path / FILES[to], to, dict.fromkeys(range(4), "dog"))) == dict.fromkeys(range(4), 1)


def test_a_sample_of_another_split_than_the_file_says_is_told(pictured: xaicli.RunReader, tmp_path: Path) -> None:
    header = "sample_id,mode,label"
    file = typed(tmp_path / "a.csv", "s8,eval,dog", "s7,eval,dog", "s6,train,dog", "s5,,dog", header=header)
    found = pictured.relabel_apply(file)
    assert found.data.select("sample_id", "mode").rows() == [("s8", "eval"), ("s6", "train"), ("s5", "train")]
    assert left_out(pictured, file) == {"not recorded where the file says (mode, ds_id)": 1}


def test_a_table_that_a_spreadsheet_saved_in_its_own_letters_says_how_to_save_it(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("sample_id,label\n1,Käse\n".encode("cp1252"))
    with pytest.raises(XaiError, match="CSV UTF-8"):
        xaicli.Table([(None, "cat")] * 2, ids=range(2), relabel=path)
    with pytest.raises(XaiError, match="CSV UTF-8"):
        run_of(tmp_path / "run", ["cat", "dog", "cow"]).relabel_apply(path)


@pytest.mark.parametrize("to", TOOLS)
def test_another_column_is_looked_at_by_its_own_values(tmp_path: Path, to: str) -> None:
    """And what the model predicts of labels is no suggestion for it."""
    cameras = ["front", "rear", "left side"]
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_facts(
            range(6), path=[f"p/{i}.png" for i in range(6)], camera=[cameras[i % 3] for i in range(6)], lane=[1, 7] * 3
        )
        wrong = {"label": [0, 1] * 3, "prediction": [1, 0] * 3, "loss": [1.0 + i for i in range(6)]}
        run.log_samples(sample_id=range(6), **wrong, mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for key, values in (("camera", sorted(cameras)), ("lane", ["1", "7"])):
        target = tmp_path / FILES[to]
        told = opened.relabel_export(target, to=to, mode="train", label_key=key, rule="hardest", n=6)
        assert told.answer.extra["classes"] == values
        assert told.data["suggested_label"].to_list() == told.data["suggested"].to_list() == [None] * 6
        if to == "label-studio":
            assert not any("predictions" in task for task in json.loads(target.read_text()))
            choices = ElementTree.parse(target.with_suffix(".xml")).getroot().iter("Choice")
            assert [choice.get("value") for choice in choices] == values
            continue
        said = say(target, to, {0: values[1], 1: values[0]})
        found = corrections_of(opened.relabel_apply(said, label_key=key)).sort("sample_id")
        kind = str if key == "camera" else int
        assert dict(found.select("sample_id", "label").iter_rows()) == {0: kind(values[1]), 1: kind(values[0])}


def test_corrections_without_facts_tell_of_none(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_facts([0, 1], camera=["front", "rear"], path=["a.png", "b.png"])
        run.log_samples(sample_id=[0, 1], label=[0, 1], prediction=[1, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
    (tmp_path / "done.csv").write_text("sample_id,label\n0,dog\n")
    opened = xaicli.open_run(tmp_path / "run")
    assert json.loads(opened.relabel_apply(tmp_path / "done.csv").to_json())["rows"][0]["facts"]["camera"] == "front"
    found = opened.relabel_apply(tmp_path / "done.csv", no_facts=True)
    (row,) = json.loads(found.to_json())["rows"]
    assert (row["sample_id"], row["label"]) == (0, 1)
    assert "camera" not in found.to_json()
    assert "front" not in found.html()
    with pytest.raises(XaiError, match="path") as raised:
        opened.relabel_apply(tmp_path / "done.csv", no_facts=True, path="path")
    assert "--no-facts leaves out every fact" in raised.value.hint
