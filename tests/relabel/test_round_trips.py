"""Samples to labelling tools and back, on files of the shapes that the tools' documentation gives."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.api.decisions import write_list
from xaicli.api.relabel import corrections_of
from xaicli.errors import UsageError, XaiError

NAMES = ["cat", "dog, wild", 'ow"l <&>']
IDS = ["a,b", "=1", "é/漢", "7", "x y", "line\nbreak"]
LABEL = [0, 1, 2, 0, 1, 2]
PATH = [f"pictures/set {i}/{i % 2}.png" for i in range(6)]
CHANGED = {"a,b": 1, "7": 2, "x y": 0}
"""What a person puts right; all others are confirmed."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    path = tmp_path_factory.mktemp("relabel") / "run"
    with xaicli.Run(path, label_names=NAMES) as run:
        run.log_facts(IDS, path=PATH, camera=["front", "rear"] * 3)
        for epoch in (1, 2):
            taken = [(label + 1) % 3 for label in LABEL]
            run.log_samples(
                sample_id=IDS, label=LABEL, prediction=taken, loss=[1.0, 2, 3, 4, 5, 6], mode="train", epoch=epoch
            )
    return xaicli.open_run(path)


def new_label(sample_id: str) -> int:
    return CHANGED.get(sample_id, LABEL[IDS.index(sample_id)])


def export(run: xaicli.RunReader, target: Path, to: str, **how: Any) -> xaicli.results.Result:
    return run.relabel_export(target, to=to, ids=IDS, mode="train", **how)


def applied(run: xaicli.RunReader, *files: Path, **how: Any) -> dict[str, int]:
    found = run.relabel_apply(files, **how)
    return dict(corrections_of(found).select("sample_id", "label").iter_rows())


def left_out(run: xaicli.RunReader, *files: Path, **how: Any) -> dict[str, int]:
    return {row["reason"]: row["n"] for row in run.relabel_apply(files, **how).answer.extra["left_out"]}


EXPECTED = {sample_id: new_label(sample_id) for sample_id in IDS}


def test_label_studio(run: xaicli.RunReader, tmp_path: Path) -> None:
    """Tasks with predictions (labelstud.io/guide/predictions), and the JSON export (labelstud.io/guide/task_format)."""
    export(run, tmp_path / "tasks.json", "label-studio", prefix="/data/local-files/?d=")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [task["data"]["sample_id"] for task in tasks] == sorted(IDS, key=lambda i: -IDS.index(i))
    for task in tasks:
        place = IDS.index(task["data"]["sample_id"])
        assert task["data"]["image"] == f"/data/local-files/?d={PATH[place]}"
        assert task["data"]["recorded_label"] == NAMES[LABEL[place]]
        assert task["data"]["camera"] == ["front", "rear"][place % 2]
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert result["value"] == {"choices": [NAMES[(LABEL[place] + 1) % 3]]}
        assert (result["from_name"], result["to_name"], result["type"]) == ("label", "sample", "choices")
    view = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    assert [choice.get("value") for choice in view.iter("Choice")] == NAMES
    assert {"label"} == {control.get("name") for control in view.iter("Choices")}
    exported = []
    for number, task in enumerate(tasks):
        annotation = {
            "id": 1000 + number,
            "completed_by": {"id": 4, "email": "ann@example.org", "first_name": "", "last_name": ""},
            "result": [
                {
                    "id": "Dx_aB91ISN",
                    "from_name": "label",
                    "to_name": "sample",
                    "type": "choices",
                    "origin": "manual",
                    "value": {"choices": [NAMES[new_label(task["data"]["sample_id"])]]},
                }
            ],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": "2026-03-09T22:16:08.728353Z",
            "updated_at": "2026-03-09T22:17:08.728378Z",
            "lead_time": 4.288,
            "task": number,
        }
        exported.append(
            {"id": number, "data": task["data"], "annotations": [annotation], "predictions": [], "project": 83}
        )
    (tmp_path / "project-83.json").write_text(json.dumps(exported), encoding="utf-8")
    found = run.relabel_apply(tmp_path / "project-83.json")
    assert dict(found.data.select("sample_id", "label").iter_rows()) == EXPECTED
    assert set(found.data["by"]) == {"ann@example.org"}
    assert set(found.data["when"]) == {"2026-03-09T22:17:08.728378Z"}
    assert {row["sample_id"] for row in found.data.filter("changed").to_dicts()} == set(CHANGED)
    assert found.answer.extra["files"][0]["format"] == "Label Studio"


def test_label_studio_in_short(run: xaicli.RunReader, tmp_path: Path) -> None:
    """JSON_MIN and CSV (labelstud.io/guide/export): a row an annotation."""
    rows = [
        {
            "image": f"/data/local-files/?d={path}",
            "sample_id": sample_id,
            "id": number,
            "label": NAMES[new_label(sample_id)],
            "annotator": 4,
            "annotation_id": number,
            "created_at": "2026-03-09T22:16:08.728353Z",
            "updated_at": "2026-03-09T22:17:08.728378Z",
            "lead_time": 4.2,
        }
        for number, (sample_id, path) in enumerate(zip(IDS, PATH, strict=True))
    ]
    (tmp_path / "min.json").write_text(json.dumps(rows), encoding="utf-8")
    assert applied(run, tmp_path / "min.json") == EXPECTED
    with (tmp_path / "min.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = run.relabel_apply(tmp_path / "min.csv")
    assert dict(found.data.select("sample_id", "label").iter_rows()) == EXPECTED
    assert set(found.data["by"]) == {"4"}


def cvat_export(tasks: Path, choose: Callable[[str], str]) -> str:
    """What CVAT writes as *CVAT for images 1.1* (docs.cvat.ai/docs/manual/advanced/xml_format)."""
    root = ElementTree.parse(tasks).getroot()
    task = root.find("meta/task")
    assert task is not None
    owner = ElementTree.SubElement(task, "owner")
    ElementTree.SubElement(owner, "username").text = "admin"
    ElementTree.SubElement(task, "updated").text = "2026-06-06 12:42:29.375251+00:00"
    for image in root.iter("image"):
        (tag,) = image.findall("tag")
        known = {one.get("name"): one for one in tag.findall("attribute")}
        text = str(known["sample_id"].text)
        tag.set("label", choose(json.loads(text) if text.startswith('"') else text))
        tag.set("source", "manual")
        known["checked"].text = "true"
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def test_cvat(run: xaicli.RunReader, tmp_path: Path) -> None:
    export(run, tmp_path / "tasks.xml", "cvat")
    root = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert {image.get("name") for image in root.iter("image")} == set(PATH)
    labels = json.loads((tmp_path / "tasks-labels.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in labels] == NAMES
    assert {one["name"] for one in labels[0]["attributes"]} == {"sample_id", "mode", "ds_id", "checked"}
    assert applied(run, tmp_path / "tasks.xml") == {}
    assert left_out(run, tmp_path / "tasks.xml") == {"not looked at: as recorded, and not checked": 6}
    text = cvat_export(tmp_path / "tasks.xml", lambda sample_id: NAMES[new_label(sample_id)])
    (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
    found = run.relabel_apply(tmp_path / "annotations.xml")
    assert dict(found.data.select("sample_id", "label").iter_rows()) == EXPECTED
    assert set(found.data["by"]) == {"admin"}
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
    assert applied(run, tmp_path / "task.zip") == EXPECTED


def test_cvat_tags_made_anew_are_found_by_the_picture(run: xaicli.RunReader, tmp_path: Path) -> None:
    root = ElementTree.Element("annotations")
    for number, path in enumerate(PATH):
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=path.removeprefix("pictures/"), width="8", height="8"
        )
        ElementTree.SubElement(image, "tag", label=NAMES[new_label(IDS[number])], source="manual")
    (tmp_path / "new.xml").write_text(ElementTree.tostring(root, encoding="unicode"), encoding="utf-8")
    assert applied(run, tmp_path / "new.xml") == EXPECTED
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "b">]><annotations>&b;</annotations>')
    with pytest.raises(XaiError, match="entities"):
        run.relabel_apply(tmp_path / "bomb.xml")


def test_fiftyone(run: xaicli.RunReader, tmp_path: Path) -> None:
    """`FiftyOneImageClassificationDataset` (docs.voxel51.com/user_guide/import_datasets.html)."""
    export(run, tmp_path / "set", "fiftyone")
    labels = json.loads((tmp_path / "set" / "labels.json").read_text(encoding="utf-8"))
    assert labels["classes"] == NAMES
    assert {key: value["label"] for key, value in labels["labels"].items()} == {
        sample_id: NAMES[label] for sample_id, label in zip(IDS, LABEL, strict=True)
    }
    assert json.loads((tmp_path / "set" / "data.json").read_text(encoding="utf-8")) == dict(zip(IDS, PATH, strict=True))
    assert applied(run, tmp_path / "set") == {}
    # What it exports again: class numbers, or labels with what is known of them.
    numbers = {"classes": NAMES, "labels": {sample_id: new_label(sample_id) for sample_id in IDS}}
    (tmp_path / "labels.json").write_text(json.dumps(numbers), encoding="utf-8")
    assert applied(run, tmp_path / "labels.json") == EXPECTED
    for sample_id, value in labels["labels"].items():
        value |= {"label": NAMES[new_label(sample_id)]}
    (tmp_path / "changed.json").write_text(json.dumps(labels), encoding="utf-8")
    assert applied(run, tmp_path / "changed.json") == CHANGED
    samples = [
        {
            "filepath": f"/home/me/{path}",
            "tags": [],
            "ground_truth": {"_cls": "Classification", "label": NAMES[new_label(i)]},
        }
        for i, path in zip(IDS, PATH, strict=True)
    ]
    (tmp_path / "samples.json").write_text(json.dumps({"samples": samples}), encoding="utf-8")
    assert applied(run, tmp_path / "samples.json") == EXPECTED


def test_coco(run: xaicli.RunReader, tmp_path: Path) -> None:
    """cocodataset.org/#format-data."""
    export(run, tmp_path / "coco.json", "coco")
    found = json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in found["categories"]}
    assert list(names.values()) == NAMES
    images = {image["id"]: image for image in found["images"]}
    for annotation in found["annotations"]:
        place = PATH.index(images[annotation["image_id"]]["file_name"])
        assert names[annotation["category_id"]] == NAMES[LABEL[place]]
    for annotation in found["annotations"]:
        image = images[annotation["image_id"]]
        annotation["category_id"] = 1 + new_label(IDS[PATH.index(image["file_name"])])
        del annotation["attributes"]
        image.pop("sample_id", None)
    (tmp_path / "back.json").write_text(json.dumps(found), encoding="utf-8")
    assert applied(run, tmp_path / "back.json") == EXPECTED


def test_a_table(run: xaicli.RunReader, tmp_path: Path) -> None:
    export(run, tmp_path / "table.csv", "csv")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == PATH[::-1]
    assert [row["recorded_label"] for row in rows] == [NAMES[label] for label in LABEL[::-1]]
    assert left_out(run, tmp_path / "table.csv") == {"not labelled yet": 6}
    for row, sample_id in zip(rows, IDS[::-1], strict=True):
        row["label"] = NAMES[new_label(sample_id)]
        row["by"] = "ann"
    for name, encoding in (("filled.csv", "utf-8-sig"), ("wide.csv", "utf-16")):
        with (tmp_path / name).open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        assert applied(run, tmp_path / name) == EXPECTED
    write_list(corrections_of(run.relabel_apply(tmp_path / "filled.csv")), tmp_path / "again.parquet")
    assert pl.read_parquet(tmp_path / "again.parquet").columns == ["sample_id", "label", "by", "when"]
    assert applied(run, tmp_path / "again.parquet") == EXPECTED


BLANK = ["", " ", "\t", "\n", "a\r\nb", "\xa0", "\u2028", " a", "a ", "a", "\x01a", '"', '"a b"', "\ufeffa", "7"]
"""Ids of which XML and tools drop a character or all."""


def returned(path: Path, to: str) -> None:
    """Give every sample of a file of tasks the other label, as a tool would."""
    if to == "cvat":
        tree = ElementTree.parse(path)
        for tag in tree.getroot().iter("tag"):
            tag.set("label", "dog" if tag.get("label") == "cat" else "cat")
            for known in tag:  # labelling tools trim what is typed into a field
                known.text = (known.text or "").strip()
        tree.write(path, encoding="utf-8")
        return
    if to == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "label": "dog" if row["recorded_label"] == "cat" else "cat"} for row in rows)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if to == "coco":
        for one in found["annotations"]:
            one["category_id"] = 3 - one["category_id"]
    elif to == "fiftyone":
        for one in found["labels"].values():
            one["label"] = "dog" if one["label"] == "cat" else "cat"
    else:
        for task in found:
            other = "dog" if task["data"]["recorded_label"] == "cat" else "cat"
            result = {"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": [other]}}
            task["annotations"] = [{"completed_by": 1, "result": [result]}]
    path.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize("to", ["label-studio", "cvat", "fiftyone", "coco", "csv"])
def test_ids_that_are_blank_or_no_print_come_back(tmp_path: Path, to: str) -> None:
    labels = [place % 2 for place in range(len(BLANK))]
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_samples(sample_id=BLANK, label=labels, loss=[1.0] * len(BLANK), mode="train", epoch=1)
    reader = xaicli.open_run(tmp_path / "run")
    target = tmp_path / {"cvat": "t.xml", "csv": "t.csv", "fiftyone": "t"}.get(to, "t.json")
    reader.relabel_export(target, to=to, rule="loss > 0", mode="train")
    returned(target / "labels.json" if to == "fiftyone" else target, to)
    assert applied(reader, target) == {i: 1 - label for i, label in zip(BLANK, labels, strict=True)}


def test_facts_called_like_columns_of_the_table_are_in_it(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[2.0, 1.0], mode="train", epoch=1)
        run.log_facts([1, 2], when=["noon", "night"], by=["ann", "bob"], path=["1.png", "2.png"], camera=["a", "b"])
    reader = xaicli.open_run(tmp_path / "run")
    reader.relabel_export(tmp_path / "t.csv", to="csv", rule="loss > 0", mode="train")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["sample_id"]: row for row in csv.DictReader(file)}
    assert [rows[i][name] for i in "12" for name in ("fact_when", "fact_by", "path", "camera")] == [
        *("noon", "ann", "1.png", "a"),
        *("night", "bob", "2.png", "b"),
    ]
    assert {row[name] for row in rows.values() for name in ("when", "by", "label")} == {""}
    returned(tmp_path / "t.csv", "csv")
    assert applied(reader, tmp_path / "t.csv") == {1: 1, 2: 0}


def test_an_id_in_quotes_that_may_be_two_is_taken_for_neither(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_samples(sample_id=["a", '"a"', "b"], label=[0, 0, 0], loss=[1.0, 2.0, 3.0], mode="train", epoch=1)
    reader = xaicli.open_run(tmp_path / "run")
    own = table(tmp_path / "own.csv", [{"sample_id": '"a"', "label": "dog"}, {"sample_id": "b", "label": "dog"}])
    assert applied(reader, own) == {"b": 1}
    assert left_out(reader, own) == {"no sample of the run": 1}
    reader.relabel_export(tmp_path / "t.csv", to="csv", rule="loss > 0", mode="train")
    returned(tmp_path / "t.csv", "csv")
    assert applied(reader, tmp_path / "t.csv") == {"a": 1, '"a"': 1, "b": 1}


def studio(tmp_path: Path, *said: tuple[str, str, str | list[str] | None, str]) -> Path:
    """A Label Studio export: (sample, who, what, when); None was skipped, [] handed in empty."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for sample_id, who, what, when in said:
        values = [] if what is None else [what] if isinstance(what, str) else what
        result = [{"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": values}}]
        one = {
            "completed_by": who,
            "result": result if values else [],
            "was_cancelled": what is None,
            "updated_at": when,
        }
        tasks.setdefault(sample_id, []).append(one)
    path = tmp_path / "export.json"
    path.write_text(json.dumps([{"data": {"sample_id": i}, "annotations": some} for i, some in tasks.items()]))
    return path


def test_what_people_do_has_a_rule_each(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = studio(
        tmp_path,
        ("a,b", "ann", "cat", "2026-01-01"),
        ("a,b", "bob", NAMES[1], "2026-01-02"),
        ("a,b", "eve", NAMES[1], "2026-01-03"),
        ("=1", "ann", "cat", "2026-01-01"),
        ("=1", "bob", NAMES[1], "2026-01-01"),
        ("7", "ann", "cat", "2026-01-02"),
        ("7", "ann", NAMES[2], "2026-01-01"),
        ("x y", "ann", None, "2026-01-01"),
        ("é/漢", "ann", [], "2026-01-01"),
        ("line\nbreak", "ann", "horse", "2026-01-01"),
        ("nobody", "ann", "cat", "2026-01-01"),
    )
    found = run.relabel_apply(file)
    rows = {row["sample_id"]: row for row in found.data.to_dicts()}
    assert {key: row["label"] for key, row in rows.items()} == {"a,b": 1, "7": 0}
    assert (rows["a,b"]["by"], rows["a,b"]["votes"], rows["a,b"]["when"]) == ("bob, eve", "2 of 3", "2026-01-03")
    assert {row["reason"]: row["n"] for row in found.answer.extra["left_out"]} == {
        "outvoted: more people agree on another": 1,
        "people disagree": 2,
        "said again by the same person: the last counts": 1,
        "skipped": 1,
        "handed in without a label": 1,
        "a label that the run does not know": 1,
        "no sample of the run": 1,
    }
    assert found.answer.counts.rows == 11  # each mark is a vote for a label that counts, or told as left out
    votes = sum(int(row["votes"].partition(" ")[0]) for row in rows.values())
    assert votes + sum(row["n"] for row in found.answer.extra["left_out"]) == 11
    # The page, its sentence and the warnings count the same marks.
    said = sum(int(one.split()[0]) for one in found.answer.warnings if " not taken: " in one)
    assert (said, f"; {said} marks were not taken." in found.report.sentence) == (8, True)
    assert any("outvoted" in warning and "a,b (ann: cat)" in warning for warning in found.answer.warnings)
    assert any("horse" in warning for warning in found.answer.warnings)
    assert any("nobody" in warning for warning in found.answer.warnings)
    assert applied(run, file, by="ann") == {"a,b": 0, "=1": 0, "7": 0}
    assert applied(run, file, label_map={"horse": 9})["line\nbreak"] == 9
    several = studio(tmp_path, ("7", "ann", ["cat", NAMES[1]], ""))
    assert left_out(run, several) == {"several labels, and the run has one a sample": 1}


def test_people_who_disagreed_did_look(run: xaicli.RunReader, tmp_path: Path) -> None:
    """Three people, three labels: three marks that are not taken, and nothing is known of the suspects."""
    names = ("cat", NAMES[1], NAMES[2])
    file = studio(tmp_path, *(("7", who, name, "") for who, name in zip(("ann", "bob", "eve"), names, strict=True)))
    found = run.relabel_apply(file)
    assert found.answer.extra["left_out"] == [
        {
            "reason": "people disagree",
            "n": 3,
            "examples": [f"7 (ann: cat, bob: {NAMES[1]}, eve: {NAMES[2]})"],
        }
    ]
    assert any(warning.startswith("3 marks were not taken: people disagree") for warning in found.answer.warnings)
    page = found.html(no_images=True)
    assert "no label came of what people said (3: people disagree)" in page
    assert "Nobody looked" not in page
    untouched = run.relabel_apply(studio(tmp_path, ("7", "ann", None, "")))
    assert "Nobody looked at anything yet." in untouched.html(no_images=True)


def test_a_record_that_is_none_costs_its_neighbours_nothing(run: xaicli.RunReader, tmp_path: Path) -> None:
    good = {"from_name": "label", "type": "choices", "value": {"choices": ["cat"]}}
    tasks = [
        None,
        {"data": [1], "annotations": [{"result": [good]}]},
        {"data": {"sample_id": "7"}, "annotations": [{"result": 3}, {"result": [good]}]},
        {"data": {"sample_id": "x y"}, "annotations": None},
        {"data": {"sample_id": "a,b"}, "annotations": [{"result": [None, good]}]},
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    assert applied(run, tmp_path / "tasks.json") == {"7": 0}
    assert left_out(run, tmp_path / "tasks.json") == {"not what the tool writes": 4, "not labelled yet": 1}
    # What nobody has labelled is not another person's.
    of_ann = {"not what the tool writes": 4, "not labelled yet": 1, "not by ann": 1}
    assert left_out(run, tmp_path / "tasks.json", by="ann") == of_ann
    coco = {
        "images": [5, {"id": 1, "sample_id": "7"}],
        "annotations": [None, {"image_id": 1, "category_id": 2}],
        "categories": [None, {"id": 2, "name": "cat"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    assert applied(run, tmp_path / "coco.json") == {"7": 0}
    fiftyone = {"classes": ["cat"], "labels": {"7": 0, "x y": [["cat"]], "=1": None, "nobody": 0}}
    (tmp_path / "labels.json").write_text(json.dumps(fiftyone))
    assert applied(run, tmp_path / "labels.json") == {"7": 0}
    (tmp_path / "rows.json").write_text(
        json.dumps([{"sample_id": "7", "label": "cat"}, 3, {"sample_id": None, "label": "cat"}])
    )
    assert applied(run, tmp_path / "rows.json") == {"7": 0}
    assert left_out(run, tmp_path / "rows.json") == {"not what the tool writes": 1, "no sample of the run": 1}
    (tmp_path / "none.json").write_text("[]")
    assert applied(run, tmp_path / "none.json") == {}


def test_people_in_files_of_their_own_are_several(run: xaicli.RunReader, tmp_path: Path) -> None:
    for name, label in (("one", "cat"), ("two", NAMES[2]), ("three", NAMES[2])):
        (tmp_path / f"{name}.csv").write_text(f'sample_id,label\n7,"{label.replace(chr(34), chr(34) * 2)}"\n')
    files = [tmp_path / f"{name}.csv" for name in ("one", "two", "three")]
    assert applied(run, *files) == {"7": 2}
    assert applied(run, *files[:2]) == {}


def test_labels_by_number_and_other_controls(run: xaicli.RunReader, tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("sample_id,label\n7,2\nx y,0.0\n=1,5\n")
    assert applied(run, tmp_path / "numbers.csv") == {"7": 2, "x y": 0}
    (tmp_path / "other.csv").write_text("sample_id,mood\n7,cat\n")
    with pytest.raises(XaiError, match="no column label"):
        run.relabel_apply(tmp_path / "other.csv")
    assert applied(run, tmp_path / "other.csv", field="mood") == {"7": 0}
    result = [{"from_name": name, "type": "choices", "value": {"choices": ["cat"]}} for name in ("mood", "kind")]
    tasks = [{"data": {"sample_id": "7"}, "annotations": [{"result": result}]}]
    (tmp_path / "two.json").write_text(json.dumps(tasks))
    with pytest.raises(UsageError, match="several controls"):
        run.relabel_apply(tmp_path / "two.json")
    assert applied(run, tmp_path / "two.json", field="kind") == {"7": 0}


def test_a_field_that_is_not_there_is_said_whatever_the_format(run: xaicli.RunReader, tmp_path: Path) -> None:
    result = [
        {"from_name": name, "type": "choices", "value": {"choices": [label]}}
        for name, label in (("label", "cat"), ("kind", NAMES[1]))
    ]
    result.append({"from_name": "note", "type": "textarea", "value": {"text": ["blurred"]}})
    tasks = [{"data": {"sample_id": "7"}, "annotations": [{"result": result}]}]
    classes = {
        name: {"_cls": "Classification", "label": label}
        for name, label in (("ground_truth", "cat"), ("model", NAMES[1]))
    }
    rows = [{"sample_id": "7", "label": "cat", "annotation_id": 1}]
    files = {
        "studio.json": (tasks, "control", "label, kind, note", "kind"),
        "samples.json": (
            {"samples": [{"sample_id": "7", **classes}]},
            "field of labels",
            "ground_truth, model",
            "model",
        ),
        "min.json": (rows, "column", "sample_id, label, annotation_id", None),
        "table.json": ([{"sample_id": "7", "label": "cat"}], "column", "sample_id, label", None),
    }
    for name, (content, what, known, other) in files.items():
        path = tmp_path / name
        path.write_text(json.dumps(content))
        with pytest.raises(XaiError, match=f"has no {what} nope") as told:
            run.relabel_apply(path, field="nope")
        assert told.value.hint == f"--field NAME, of: {known}"
        assert applied(run, path) == {"7": 0}
        counted = {reason: n for reason, n in left_out(run, path).items() if "--field" in reason}
        assert list(counted.values()) == ([1] if other else [])
        if other:
            assert applied(run, path, field=other) == {"7": 1}
    for tool, name in (("cvat", "t.xml"), ("coco", "t.json"), ("fiftyone", "voxels")):
        export(run, tmp_path / name, tool)
        with pytest.raises(UsageError, match="has none of them"):
            run.relabel_apply(tmp_path / name, field="label")


def test_what_is_no_such_file_is_said(run: xaicli.RunReader, tmp_path: Path) -> None:
    for name, content, said in (
        ("gone.json", None, "cannot be read"),
        ("broken.json", "{", "cannot be read"),
        ("text.json", '"text"', "no list"),
        ("odd.xml", "<html/>", "no CVAT file"),
        ("ids.csv", "name,label\n7,cat\n", "no column sample_id"),
        ("strange.csv", "sample_id,label\nq,cat\n", "nothing in"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(XaiError, match=said):
            run.relabel_apply(tmp_path / name)
    (tmp_path / "empty.csv").write_text("sample_id,label\n")
    assert applied(run, tmp_path / "empty.csv") == {}


def test_that_mode_leaves_the_samples_of_a_file_out_is_said(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for mode, ids in (("train", [1, 2]), ("eval", [8, 9])):
            run.log_samples(sample_id=ids, label=[0, 1], prediction=[0, 1], loss=[1.0, 2.0], mode=mode, epoch=1)
    (tmp_path / "t.csv").write_text("sample_id,label\n1,1\n")
    reader = xaicli.open_run(tmp_path / "run")
    with pytest.raises(XaiError, match="is about a sample of eval of") as error:
        reader.relabel_apply(tmp_path / "t.csv", mode="eval")
    assert error.value.hint.startswith("--mode eval leaves the others out; they name 1")
    assert applied(reader, tmp_path / "t.csv") == {1: 1}
    (tmp_path / "two.csv").write_text("sample_id,label\n1,1\n8,1\n7,1\n")
    assert left_out(reader, tmp_path / "two.csv", mode="eval") == {
        "a sample that --mode eval leaves out": 1,
        "no sample of the run": 1,
    }
    assert applied(reader, tmp_path / "two.csv", mode="eval") == {8: 1}
    (tmp_path / "placed.csv").write_text("sample_id,label,mode\n1,1,train\n8,1,eval\n9,0,train\n")
    assert left_out(reader, tmp_path / "placed.csv", mode="eval") == {
        "a sample that --mode eval leaves out": 1,
        "not recorded where the file says (mode, ds_id)": 1,
    }
    (tmp_path / "none.csv").write_text("sample_id,label\n7,1\n")
    with pytest.raises(XaiError, match="is about a sample of ") as error:
        reader.relabel_apply(tmp_path / "none.csv")
    assert "leaves" not in error.value.hint


def test_whole_numbers_as_ids_and_a_regression(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0.5, 1.5, 2.5], prediction=[1.0, 2.0, 3.0], mode="train", epoch=1)
    reader = xaicli.open_run(tmp_path / "run")
    found = reader.relabel_export(tmp_path / "tasks.json", ids=[1, 3], mode="train")
    assert found.data["sample_id"].to_list() == [1, 3]
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"number": 1.0}
    assert ElementTree.parse(tmp_path / "tasks.xml").getroot().find("Number") is not None
    with pytest.raises(XaiError, match="numbers"):
        reader.relabel_export(tmp_path / "tasks.xml", to="cvat", ids=[1], mode="train")
    value = {"from_name": "label", "type": "number", "value": {"number": 0.75}}
    exported = [{"data": tasks[0]["data"], "annotations": [{"result": [value]}]}]
    (tmp_path / "back.json").write_text(json.dumps(exported))
    assert applied(reader, tmp_path / "back.json") == {1: 0.75}
    (tmp_path / "sheet.csv").write_text("sample_id,label\n3.0,9\n")
    assert applied(reader, tmp_path / "sheet.csv") == {3: 9.0}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["14,4166", "9,034", "3"], {1: 14.4166, 2: 9.034, 3: 3.0}),
        (["0,125", "", "-7,5"], {1: 0.125, 3: -7.5}),
        (["9,034", "1,200", "3"], {3: 3.0}),  # thousands, or a German 9.034: nothing says
        (["1.5", "2,25", "3"], {1: 1.5, 3: 3.0}),
    ],
)
def test_decimal_commas_are_numbers_where_nothing_else_is_meant(
    tmp_path: Path, cells: list[str], expected: dict[int, float]
) -> None:
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0.5, 1.5, 2.5], prediction=[1.0, 2.0, 3.0], mode="train", epoch=1)
    lines = "".join(f"{number};{cell}\n" for number, cell in enumerate(cells, 1))
    (tmp_path / "sheet.csv").write_text(f"sample_id;label\n{lines}")
    reader = xaicli.open_run(tmp_path / "run")
    assert applied(reader, tmp_path / "sheet.csv") == expected
    told = any("taken as decimal" in one for one in reader.relabel_apply(tmp_path / "sheet.csv").answer.warnings)
    assert told is any(value % 1 for value in expected.values() if value != 1.5)


def test_sets_of_classes(tmp_path: Path) -> None:
    names = ["red", "green", "blue"]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=names) as run:
        run.log_samples(
            sample_id=["p", "q"], label=[[0, 1], []], prediction=[[0], [2]], loss=[1.0, 2.0], mode="train", epoch=1
        )
    reader = xaicli.open_run(tmp_path / "run")
    for to in ("label-studio", "cvat", "fiftyone", "coco", "csv"):
        reader.relabel_export(tmp_path / to, to=to, ids=["p", "q"], mode="train")
    view = ElementTree.parse(tmp_path / "label-studio.xml").getroot()
    assert next(view.iter("Choices")).get("choice") == "multiple"
    file = studio(tmp_path, ("p", "ann", ["blue", "red"], ""), ("q", "ann", ["green"], ""))
    assert applied(reader, file) == {"p": [0, 2], "q": [1]}
    (tmp_path / "sets.csv").write_text('sample_id,label\np,"[""blue""]"\nq,"[]"\n')
    assert applied(reader, tmp_path / "sets.csv") == {"p": [2], "q": []}
    (tmp_path / "texts.csv").write_text('sample_id,label\np,"red, blue"\nq,"red, pink"\n')
    assert left_out(reader, tmp_path / "texts.csv") == {
        'several classes in one text, which is no set: write ["person", "car"]': 1,
        "a label that the run does not know": 1,
    }
    root = ElementTree.parse(tmp_path / "cvat.xml").getroot()
    images = {image.get("name"): image for image in root.iter("image")}
    assert [tag.get("label") for tag in images["p"].findall("tag")] == ["red", "green"]


@pytest.mark.parametrize("write", ["csv", "json", "floats"])
def test_rows_of_0_and_1_are_sets_of_classes(tmp_path: Path, write: str) -> None:
    """Four classes: a list that names 0 or 1 twice is a place for each class, or nothing of this run."""
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["a", "b", "c", "d"]) as run:
        run.log_samples(
            sample_id=["p", "q", "r", "s", "t"],
            label=[[2]] * 5,
            prediction=[[2]] * 5,
            loss=[1.0] * 5,
            mode="train",
            epoch=1,
        )
    reader = xaicli.open_run(tmp_path / "run")
    labels = {"p": [1, 0, 0, 1], "q": [0, 0, 0, 0], "r": [0, 1], "s": [0, 1, 1], "t": [3, 1]}
    if write == "csv":
        file = tmp_path / "rows.csv"
        file.write_text("sample_id,label\n" + "".join(f'{one},"{label}"\n' for one, label in labels.items()))
    else:
        file = tmp_path / "rows.json"
        kind = float if write == "floats" else int
        rows = [{"sample_id": one, "label": [kind(of) for of in label]} for one, label in labels.items()]
        file.write_text(json.dumps(rows))
    assert applied(reader, file) == {"p": [0, 3], "q": [], "r": [0, 1], "t": [1, 3]}
    assert left_out(reader, file) == {"a row of 0 and 1, and the run has another number of classes": 1}
    assert not any("taken as sets" in said for said in reader.relabel_apply(file).answer.warnings)


@pytest.mark.parametrize(
    ("labels", "expected", "refused"),
    [
        ({"p": [1, 0, 0, 1, 1], "q": [0, 0, 0, 0, 0]}, {"p": [0, 3, 4], "q": []}, 0),
        ({"p": [1, 0, 0, 1, 1], "q": [0, 0, 0, 0]}, {"q": []}, 1),
        ({"p": [1, 0, 0]}, {}, 1),
    ],
    ids=["one number of classes", "two numbers of classes", "fewer than recorded"],
)
def test_rows_of_a_run_without_names_tell_how_many_classes_there_are(
    tmp_path: Path, labels: dict[str, list[int]], expected: dict[str, list[int]], refused: int
) -> None:
    """Class 4 never occurred, and the run names none: rows of five places are of it all the same, and that is said."""
    with xaicli.Run(tmp_path / "run", task="multilabel") as run:
        run.log_samples(sample_id=["p", "q"], label=[[3], [0]], prediction=[[3], [0]], loss=[1.0] * 2, mode="train")
    reader = xaicli.open_run(tmp_path / "run")
    file = tmp_path / "rows.csv"
    file.write_text("sample_id,label\n" + "".join(f'{one},"{label}"\n' for one, label in labels.items()))
    found = reader.relabel_apply(file)
    assert applied(reader, file) == expected
    assert sum(left_out(reader, file).values()) == refused
    said = "rows of 0 and 1 have 5 classes: the run names none, and recorded no class above 3"
    assert (said in found.answer.warnings) is (not refused)


def test_every_suspect_has_a_rank(tmp_path: Path) -> None:
    """The last of 10,500 wrong labels is a suspect as the first is."""
    n, wrong = 42_000, 10_500
    ids = np.arange(n)
    label = ids % 4
    said = np.where(ids < wrong, (label + 1) % 4, label)
    loss = np.where(ids < wrong, 5.0 - ids * 1e-5, 0.1 + ids * 1e-7)
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=ids, label=label, prediction=said, loss=loss, mode="train", epoch=epoch)
    (tmp_path / "back.csv").write_text(f"sample_id,label\n0,1\n{wrong - 1},{(wrong - 1) % 4}\n{n - 1},{(n - 1) % 4}\n")
    found = xaicli.open_run(tmp_path / "run").relabel_apply(tmp_path / "back.csv")
    ranks = dict(found.data.select("sample_id", "suspect_rank").iter_rows())
    assert ranks == {0: 1, wrong - 1: wrong, n - 1: None}


def test_what_may_be_a_row_of_two_classes_is_told_or_read_as_others_of_its_file(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["a", "b"]) as run:
        run.log_samples(
            sample_id=["p", "q"], label=[[0], [1]], prediction=[[0], [1]], loss=[1.0, 1.0], mode="train", epoch=1
        )
    reader = xaicli.open_run(tmp_path / "run")
    alone, beside = tmp_path / "alone.csv", tmp_path / "beside.csv"
    alone.write_text('sample_id,label\np,"[1, 0]"\n')
    beside.write_text('sample_id,label\np,"[0, 1]"\nq,"[1, 1]"\n')
    assert applied(reader, alone) == {"p": [0, 1]}
    assert (
        sum(
            "may be rows of 0 and 1: [1, 0] (1 of the marks)" in said
            for said in reader.relabel_apply(alone).answer.warnings
        )
        == 1
    )
    assert applied(reader, beside) == {"p": [1], "q": [0, 1]}
    assert not any("may be rows" in said for said in reader.relabel_apply(beside).answer.warnings)


def test_the_digits_that_were_flipped_are_found(sample_run: Path, tmp_path: Path, xai: Any) -> None:
    """The report says how many suspects were right: that is known of the digits."""
    from xaicli.demo import load_digits

    digits = load_digits(flip=0.05, seed=0)
    true = dict(zip(digits.sample_id.tolist(), digits.true_label.tolist(), strict=True))
    recorded = dict(zip(digits.sample_id.tolist(), digits.label.tolist(), strict=True))
    status, _, _ = xai(
        "relabel", "export", sample_run, "--mode", "train", "--n", 40, "-o", tmp_path / "tasks.csv", "-q"
    )
    assert status == 0
    tasks = pl.read_csv(tmp_path / "tasks.csv", infer_schema=False)
    assert tasks.height == 40
    answered = tasks.with_columns(label=pl.Series([str(true[int(i)]) for i in tasks["sample_id"]]), by=pl.lit("ann"))
    answered.write_csv(tmp_path / "answered.csv")
    easy = xaicli.open_run(sample_run).select(rule="easy", n=30, mode="train").data["sample_id"].to_list()
    (tmp_path / "easy.csv").write_text("sample_id,label\n" + "".join(f"{i},{true[i]}\n" for i in easy))
    status, out, _ = xai(
        "relabel",
        "apply",
        tmp_path / "answered.csv",
        tmp_path / "easy.csv",
        sample_run,
        "-o",
        tmp_path / "corrections.csv",
        "--json",
    )
    assert status == 0
    found = json.loads(out)
    wrong = sum(recorded[int(i)] != true[int(i)] for i in tasks["sample_id"])
    whole = found["suspects"][0]
    assert (whole["first"], whole["looked_at"], whole["wrong"]) == (None, 40, wrong)
    assert 0.5 < whole["low"] < whole["share"] <= whole["high"]
    right = sum(
        int(s) == true[int(i)]
        for i, s in zip(tasks["sample_id"], (row["suggested_label"] for row in found["rows"][:40]), strict=True)
    )
    assert whole["suggestion_right"] == right
    ten = next(row for row in found["suspects"] if row["first"] == 10)
    assert ten["looked_at"] == 10
    assert ten["wrong"] == sum(recorded[int(i)] != true[int(i)] for i in tasks["sample_id"][:10])
    status, out, err = xai("dynamics", sample_run, "--mode", "train", "--truth", tmp_path / "corrections.csv", "--json")
    assert status == 0, err
    assert json.loads(out)["truth"]["suspects"] == {"auroc": 1.0, "ap": 1.0, "p_at_100": 40 / 70}
    (others,) = found["others"]
    assert (others["looked_at"], others["wrong"]) == (30, sum(recorded[i] != true[i] for i in easy))
    table = xaicli.Table(
        list(zip(digits.images, digits.label.tolist(), strict=True)),
        ids=digits.sample_id.tolist(),
        relabel=tmp_path / "corrections.csv",
    )
    ids = [int(i) for i in tasks["sample_id"]]
    places = {i: place for place, i in enumerate(digits.sample_id.tolist())}
    assert [table[places[i]][1] for i in ids] == [true[i] for i in ids]


def test_kept_pictures_are_written_beside(sample_run: Path, tmp_path: Path) -> None:
    from PIL import Image

    run = xaicli.open_run(sample_run)
    run.relabel_export(tmp_path / "tasks.json", n=3, mode="train", pictures=True, prefix="http://here/")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    for task in tasks:
        path = tmp_path / task["data"]["image"].removeprefix("http://here/")
        with Image.open(path) as picture:
            assert picture.size == (8, 8)


def test_the_command_says_what_it_cannot(xai: Any, run: xaicli.RunReader, tmp_path: Path) -> None:
    root = run.layout.root
    for words, said in (
        (("export", root, "--to", "excel"), "no format 'excel'"),
        (("export", root, "--to", "coco", "-o", tmp_path / "x.csv"), "no .json file"),
        (("export", root, "--ids", "7", "--rule", "random", "--n", "1"), "--ids and --rule"),
        (("export", root, "--mode", "train", "--ids", "7", "--path", "nothing"), "no fact 'nothing'"),
        (("export", root, "--mode", "train", "--ids", "gone"), "gone"),
        (("apply", root), "which file"),
        (("apply", root, tmp_path / "x.csv", "-o", tmp_path / "x.txt"), "no table"),
    ):
        status, _, err = xai("relabel", *words)
        assert status in (1, 2), words
        assert said in err, (words, err)
    status, out, _ = xai(
        "relabel", "export", root, "--mode", "train", "--ids", "7,x y", "--json", "-o", tmp_path / "t.json"
    )
    assert status == 0
    found = json.loads(out)
    assert set(found) >= {"schema_version", "command", "run", "selection", "warnings", "outputs", "counts", "rows"}
    assert found["outputs"] == [str(tmp_path / "t.json"), str(tmp_path / "t.xml")]
    assert {row["sample_id"]: row["suggested"] for row in found["rows"]} == {"7": NAMES[1], "x y": NAMES[2]}
    status, _, _ = xai(
        "relabel",
        "export",
        root,
        "--mode",
        "train",
        "--ids",
        "7",
        "--format",
        "html,md",
        "-o",
        tmp_path / "p" / "t.csv",
        "-q",
    )
    page = (tmp_path / "p" / "relabel-export.html").read_text(encoding="utf-8")
    assert "how this was made" in page.lower()
    assert "xai relabel export" in page


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("--to", "csv"), {"relabel-csv.csv"}),
        ((), {"relabel-label-studio.json", "relabel-label-studio.xml"}),
        (("--to", "fiftyone"), {"data.json", "labels.json"}),
    ],
)
def test_a_folder_that_is_not_there_yet_takes_all_files(
    xai: Any, run: xaicli.RunReader, tmp_path: Path, words: tuple[str, ...], files: set[str]
) -> None:
    for number, name in enumerate(("folder", "of v1.5")):
        asked = ("export", run.layout.root, "--mode", "train", "--ids", "7", *words, "--format", "html,json")
        assert xai("relabel", *asked, "-o", tmp_path / name, "-q")[0] == 0
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            *files,
            "relabel-export.html",
            "relabel-export.json",
        }
        assert len(list(tmp_path.iterdir())) == number + 1


def test_corrections_go_into_a_folder_that_is_not_there_yet(xai: Any, run: xaicli.RunReader, tmp_path: Path) -> None:
    said = tmp_path / "said.csv"
    said.write_text("sample_id,label\n7,1\n", encoding="utf-8")
    folder = tmp_path / "folder"
    status, out, _ = xai("relabel", "apply", run.layout.root, said, "--format", "md", "-o", folder, "-q")
    assert status == 0
    assert {path.name for path in folder.iterdir()} == {"corrections.csv", "relabel-apply.md"}
    assert set(out.splitlines()) == {str(path) for path in folder.iterdir()}


def test_label_studio_controls_of_every_kind(run: xaicli.RunReader, tmp_path: Path) -> None:
    """labelstud.io/tags: a region, a taxonomy and a typed text give labels, too; a remark beside one does not."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("rectanglelabels", {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 0, "rectanglelabels": ["cat"]}),
        ("taxonomy", {"taxonomy": [["animals", NAMES[1]]]}),
        ("labels", {"start": 0, "end": 3, "text": "a bird", "labels": [NAMES[2]]}),
        ("textarea", {"text": ["cat"]}),
    ]
    for kind, value in kinds:
        result = [
            {"from_name": "kind", "to_name": "sample", "type": kind, "value": value},
            {"from_name": "kind", "to_name": "sample", "type": kind, "value": value},  # two boxes of one label
        ]
        if kind != "textarea":
            result.append({"from_name": "why", "type": "textarea", "value": {"text": ["it has whiskers"]}})
        (tmp_path / "export.json").write_text(
            json.dumps([{"data": {"sample_id": "7"}, "annotations": [{"result": result}]}])
        )
        last = [*value.values()][-1]
        name = last[0][-1] if kind == "taxonomy" else last[0]
        assert applied(run, tmp_path / "export.json") == {"7": NAMES.index(name)}, kind


def test_the_ground_truth_counts_against_a_majority(run: xaicli.RunReader, tmp_path: Path) -> None:
    def said(name: str, by: int, *, truth: bool = False) -> dict[str, Any]:
        result = [{"from_name": "label", "type": "choices", "value": {"choices": [name]}}]
        return {"completed_by": by, "ground_truth": truth, "was_cancelled": False, "result": result}

    task = {
        "data": {"sample_id": "7"},
        "annotations": [said("cat", 1), said(NAMES[1], 2, truth=True), said("cat", 3)],
    }
    (tmp_path / "export.json").write_text(json.dumps([task]))
    found = run.relabel_apply(tmp_path / "export.json")
    assert found.data.select("label", "by", "votes").rows() == [(1, "2", "1 of 1")]
    assert left_out(run, tmp_path / "export.json") == {"another is marked as the ground truth": 2}


def test_shapes_name_their_picture(run: xaicli.RunReader, tmp_path: Path) -> None:
    """Boxes of CVAT and COCO: the label they agree on; tags go before shapes, and an empty picture says nothing."""
    box = '<box label="{}" source="manual" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4" z_order="0"></box>'
    cat, dog = box.format("cat"), box.format("dog, wild")
    polygon = '<polygon label="cat" source="manual" occluded="0" points="1,2;3,4;5,6" z_order="0"></polygon>'
    bodies = [cat + cat, cat + dog, polygon, "", dog + '<tag label="cat" source="manual"></tag>']
    images = "".join(
        f'<image id="{n}" name="set {n}/{n % 2}.png" width="9" height="9">{body}</image>'
        for n, body in enumerate(bodies)
    )
    (tmp_path / "boxes.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    assert applied(run, tmp_path / "boxes.xml") == {IDS[0]: 0, IDS[2]: 0, IDS[4]: 0}
    assert left_out(run, tmp_path / "boxes.xml") == {
        "several labels, and the run has one a sample": 1,
        "handed in without a label": 1,
    }
    (tmp_path / "video.xml").write_text('<annotations><track id="0" label="cat"></track></annotations>')
    with pytest.raises(XaiError, match="video"):
        run.relabel_apply(tmp_path / "video.xml")


def test_shapes_that_name_samples_are_marks_of_their_own(run: xaicli.RunReader, tmp_path: Path) -> None:
    """Several samples cut out of one picture."""
    boxes = [("a,b", 2), ("7", 1)]
    shapes = "".join(f'<box label="{NAMES[c - 1]}"><attribute name="sample_id">{i}</attribute></box>' for i, c in boxes)
    (tmp_path / "crops.xml").write_text(f'<annotations><image id="0" name="street.png">{shapes}</image></annotations>')
    coco = {
        "images": [{"id": 1, "file_name": "street.png", "width": 90, "height": 90}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": [n, 0, 5, 5], "attributes": {"sample_id": i}}
            for n, (i, c) in enumerate(boxes)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)],
    }
    (tmp_path / "crops.json").write_text(json.dumps(coco))
    assert applied(run, tmp_path / "crops.json") == {"a,b": 1, "7": 0}
    assert applied(run, tmp_path / "crops.xml") == {"a,b": 1, "7": 0}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """Ids 0 to 5; the picture of sample i is called after the sample after it, and 4 and 5 share one."""
    path = tmp_path_factory.mktemp("numbered") / "run"
    with xaicli.Run(path, label_names=NAMES) as run:
        run.log_facts(range(6), path=[f"/data/train/{i + 1}.png" for i in range(4)] + ["/data/train/both.png"] * 2)
        run.log_samples(sample_id=range(6), label=LABEL, loss=[1.0] * 6, mode="train", epoch=0)
    return xaicli.open_run(path)


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows).write_csv(path)
    return path


def test_a_picture_is_not_taken_for_another_of_its_name(numbered: xaicli.RunReader, tmp_path: Path) -> None:
    for picture, sample in (
        ("/data/train/1.png", 0),
        ("train/1.png", 0),
        ("1.png", 0),
        ("images/1.png", 0),
        ("s3://bucket/train/2.png?X-Amz-Expires=60", 1),
        ("/data/upload/3/1a2b3c4d-3.png", 2),
    ):
        found = numbered.relabel_apply(table(tmp_path / "one.csv", [{"path": picture, "label": "cat"}])).data
        assert found["sample_id"].to_list() == [sample], picture
    rows = [
        {"path": "/data/train/2.png", "label": "cat"},
        {"path": "/data/test/1.png", "label": "cat"},  # another picture, called alike
        {"path": "/data/train/both.png", "label": "cat"},
    ]
    assert set(applied(numbered, table(tmp_path / "some.csv", rows))) == {1}
    assert left_out(numbered, tmp_path / "some.csv") == {
        "no sample of the run": 1,
        "its picture is that of several samples": 1,
    }


def test_an_id_and_a_picture_that_contradict_each_other(numbered: xaicli.RunReader, tmp_path: Path) -> None:
    """A column sorted without its neighbours puts labels to other samples; that is told."""
    rows = [
        {"sample_id": 0, "path": "/data/train/1.png", "label": "cat"},
        {"sample_id": 1, "path": "/data/train/4.png", "label": "cat"},
        {"sample_id": 5, "path": "/data/train/both.png", "label": "cat"},
    ]
    assert set(applied(numbered, table(tmp_path / "sorted.csv", rows))) == {0, 5}
    assert left_out(numbered, tmp_path / "sorted.csv") == {"its id and its picture are of different samples": 1}


def test_what_fiftyone_exports_is_keyed_by_names_of_pictures(numbered: xaicli.RunReader, tmp_path: Path) -> None:
    """FiftyOneImageClassificationDataset: keys are the names of files without their suffix, not ids."""
    labels = {"classes": NAMES, "labels": {"1": 1, "4": 2}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    # Key 1 is sample 1, or the picture of sample 0: nobody can tell. Key 4 likewise.
    assert left_out(numbered, tmp_path / "labels.json") == {
        "its key is the id of one sample and the picture of another": 2
    }
    (tmp_path / "data.json").write_text(json.dumps({"1": "/data/train/1.png", "4": "/data/train/4.png"}))
    assert applied(numbered, tmp_path / "labels.json") == {0: 1, 3: 2}


def test_fiftyone_finds_every_key_again(tmp_path: Path) -> None:
    """It reads a key of data.json as a path and takes its suffix off: `a.1` and `a.2` would both be `a`."""
    ids = ["a.1", "a.2", "/x/b", "c/../d", "plain", "sample 1"]
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as made:
        made.log_facts(ids, path=[f"/data/{n}.png" for n in range(6)])
        made.log_samples(sample_id=ids, label=LABEL, loss=[1.0] * 6, mode="train", epoch=0)
    run = xaicli.open_run(tmp_path / "run")
    run.relabel_export(tmp_path / "set", to="fiftyone", ids=ids, mode="train")
    labels = json.loads((tmp_path / "set" / "labels.json").read_text())
    data = json.loads((tmp_path / "set" / "data.json").read_text())
    assert set(labels["labels"]) == set(data)
    assert len(data) == 6
    found = {os.path.normpath(os.path.splitext(key)[0]) for key in data}  # noqa: PTH122 - as FiftyOne does it
    assert found == set(data)
    assert not any(key.startswith("/") for key in data)
    for number, value in enumerate(labels["labels"].values()):
        value["label"] = NAMES[number % 3]
        value["attributes"]["checked"] = True
    (tmp_path / "set" / "labels.json").write_text(json.dumps(labels))
    kept = [value["attributes"]["sample_id"] for value in labels["labels"].values()]
    assert applied(run, tmp_path / "set") == {sample_id: number % 3 for number, sample_id in enumerate(kept)}


def test_exports_as_their_importers_take_them(numbered: xaicli.RunReader, tmp_path: Path) -> None:
    """Label Studio refuses a declared encoding; COCO's names are relative to the folder of pictures."""
    numbered.relabel_export(tmp_path / "tasks.json", to="label-studio", ids=[0], mode="train")
    assert (tmp_path / "tasks.xml").read_text().startswith("<View>")
    for to, file in (("coco", "coco.json"), ("cvat", "cvat.xml")):
        said = numbered.relabel_export(tmp_path / file, to=to, ids=[0, 2], mode="train").answer.warnings
        assert any("/data/train" in warning for warning in said)
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert sorted(image["file_name"] for image in coco["images"]) == ["1.png", "3.png"]
    names = [image.get("name") for image in ElementTree.parse(tmp_path / "cvat.xml").getroot().iter("image")]
    assert sorted(map(str, names)) == ["1.png", "3.png"]
    numbered.relabel_export(tmp_path / "coco.json", to="coco", ids=[0], mode="train", prefix="/mnt")
    (image,) = json.loads((tmp_path / "coco.json").read_text())["images"]
    assert image["file_name"] == "/mnt/data/train/1.png"


def test_times_are_compared_as_times(run: xaicli.RunReader, tmp_path: Path) -> None:
    """The later mark of a person counts; where times cannot be read, the later in the file."""
    for first, second, taken in (
        ("2026-01-02T10:00:00Z", "2026-01-02T10:30:00+01:00", 0),
        ("2026-01-02T10:00:00Z", "2026-01-02T10:00:00.5Z", 1),
        ("9.11.2026", "10.11.2026", 1),
        ("1767225600", "1767225500", 0),
        ("1767225600000", "1767225500.0", 0),
        ("2026-01-02T10:00:00Z", "1767225500", 0),
    ):
        file = studio(tmp_path, ("7", "ann", "cat", first), ("7", "ann", NAMES[1], second))
        assert applied(run, file) == {"7": taken}, (first, second)


def test_an_order_that_no_time_tells_is_said(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    told = "said again by the same person, and a time cannot be read: the last in the file counts"
    for first, second, reason in (
        ("9.11.2026", "2026-11-10", told),
        ("2026-11-10", "", told),
        ("", "", "said again by the same person: the last counts"),
        ("2026-11-10", "2026-11-09", "said again by the same person: the last counts"),
    ):
        file.write_text(f"sample_id,label,by,when\n7,cat,ann,{first}\n7,1,ann,{second}\n")
        assert left_out(run, file) == {reason: 1}, (first, second)


def test_the_last_of_several_people_is_the_last_in_time(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    early, late = "2026-01-02T01:00:00+05:00", "2026-01-01T23:00:00Z"  # in UTC 20:00 and 23:00 of the first
    file.write_text(f"sample_id,label,by,when\n7,1,ann,{early}\n7,1,bob,{late}\n")
    assert run.relabel_apply(file).data["when"].to_list() == [late]


def test_tasks_of_one_owner_are_several_people(run: xaicli.RunReader, tmp_path: Path) -> None:
    def task(name: str, number: int, label: str, updated: str, assignee: str = "") -> Path:
        file = tmp_path / name
        who = f"<assignee><username>{assignee}</username></assignee>" if assignee else "<assignee></assignee>"
        file.write_text(
            f"<annotations><meta><task><id>{number}</id><owner><username>boss</username></owner>{who}"
            f"<updated>{updated}</updated></task></meta><image id='0' name='{PATH[3]}'><tag label='{label}'>"
            f"<attribute name='sample_id'>7</attribute></tag></image></annotations>"
        )
        return file

    first = task("a.xml", 1, "cat", "2026-01-01 10:00:00+00:00")
    again = task("b.xml", 1, "dog, wild", "2026-01-02 10:00:00+00:00")
    other = task("c.xml", 2, "dog, wild", "2026-01-01 10:00:00+00:00")
    assert left_out(run, first, other) == {"people disagree": 2}
    assert applied(run, first, again) == applied(run, again, first) == {"7": 1}  # one task, exported twice
    found = run.relabel_apply([again, other])
    assert found.data.select("by", "votes").rows() == [("boss", "2 of 2")]
    assert applied(
        run, task("d.xml", 1, "cat", "2026-01-01", "ann"), task("e.xml", 2, "dog, wild", "2026-01-02", "ann")
    )


def test_what_nobody_said_is_missing_in_the_table(run: xaicli.RunReader, tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    file.write_text("sample_id,label\n7,1\n")
    found = corrections_of(run.relabel_apply(file))
    assert write_list(found, tmp_path / "out.csv").read_text() == "sample_id,label,by,when\n7,1,,\n"


@pytest.mark.parametrize("to", ["coco", "fiftyone", "cvat"])
@pytest.mark.parametrize(("said", "is_taken"), [("false", False), (" False ", False), ("0", False), ("true", True)])
def test_what_is_written_as_no_says_no(
    run: xaicli.RunReader, tmp_path: Path, to: str, said: str, is_taken: bool
) -> None:
    """Tools write a mark of `checked` as text as well: "false" is a text that is not empty."""
    target = tmp_path / {"coco": "t.json", "fiftyone": "t", "cvat": "t.xml"}[to]
    run.relabel_export(target, to=to, ids=["7"], mode="train")
    if to == "cvat":
        tree = ElementTree.parse(target)
        for one in tree.iter("attribute"):
            if one.get("name") == "checked":
                one.text = said
        tree.write(target, encoding="utf-8")
    else:
        file = target / "labels.json" if to == "fiftyone" else target
        found = json.loads(file.read_text())
        for one in found["annotations"] if to == "coco" else found["labels"].values():
            one["attributes"]["checked"] = said
        file.write_text(json.dumps(found))
    assert applied(run, target) == ({"7": 0} if is_taken else {})
    assert left_out(run, target) == ({} if is_taken else {"not looked at: as recorded, and not checked": 1})


def test_the_suggestion_for_a_set_of_classes_is_that_of_the_export(tmp_path):
    """The export suggests the last answer of the model; applied, it counts as a suggestion that was right."""
    n = 60
    true = [sorted({i % 3, (i // 3) % 3}) for i in range(n)]
    given = [[3] if i in (4, 20, 41) else one for i, one in enumerate(true)]
    loss = [9.0 if i in (4, 20, 41) else 0.1 + i / 1000 for i in range(n)]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["a", "b", "c", "d"]) as run:
        for epoch in (1, 2, 3):
            run.log_samples(
                sample_id=range(n),
                label=given,
                prediction=true,
                loss=loss,
                correct=[1.0 * (a == b) for a, b in zip(given, true, strict=True)],
                mode="train",
                epoch=epoch,
            )
    opened = xaicli.open_run(tmp_path / "run")
    opened.relabel_export(tmp_path / "out.csv", mode="train", to="csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["sample_id"] for row in rows} == {"4", "20", "41"}
    with (tmp_path / "in.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, rows[0].keys())
        out.writeheader()
        out.writerows(row | {"label": row["suggested_label"]} for row in rows)
    found = opened.relabel_apply(tmp_path / "in.csv", mode="train").answer
    assert found.extra["suspects"][0]["suggestion_right"] == 3
    assert {row["sample_id"]: row["label"] for row in found.data.to_dicts()} == {i: true[i] for i in (4, 20, 41)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"ids": IDS}, "the model's last answer"),
        ({"rule": "hardest", "n": 2}, "the model's last answer"),
        ({"rule": "suspects"}, "the answer most often given"),
    ],
)
def test_the_page_says_what_labels_are_suggested_by(
    run: xaicli.RunReader, tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    page = run.relabel_export(tmp_path / "x.csv", to="csv", mode="train", **how).report
    assert dict(page.made)["suggested"].startswith(said)


def test_corrections_need_no_metric(tmp_path: Path) -> None:
    """Where several were recorded and no loss, nothing says which is meant, and nothing needs one."""
    n = 12
    with xaicli.Run(tmp_path / "run", label_names=["a", "b", "c"]) as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=range(n),
                label=[i % 3 for i in range(n)],
                prediction=[i % 3 if i != 5 else 0 for i in range(n)],
                dice=np.arange(n) / n,
                iou=np.arange(n) / n,
                mode="train",
                epoch=epoch,
            )
    (tmp_path / "back.csv").write_text("sample_id,label\n5,a\n6,a\n7,c\n")
    opened = xaicli.open_run(tmp_path / "run")
    back = opened.relabel_apply(tmp_path / "back.csv")
    assert back.data.select("sample_id", "label", "recorded", "changed").rows() == [
        (5, 0, 2, True),
        (6, 0, 0, False),
        (7, 2, 1, True),
    ]


@pytest.mark.parametrize("task", ["classes", "sets", "numbers"])
def test_samples_without_a_label_are_labelled(tmp_path: Path, task: str) -> None:
    """Where the run recorded no label, its predictions tell what labels are."""
    said: list[Any] = {"classes": [0, 2, 1], "sets": [[0], [0, 2], []], "numbers": [1.5, -2.0, 0.25]}[task]
    how = {"sets": {"task": "multilabel"}, "numbers": {"task": "regression"}}.get(task, {})
    names = {} if task == "numbers" else {"label_names": ["a", "b", "c"]}
    with xaicli.Run(tmp_path / "run", **how, **names) as run:
        run.log_samples(sample_id=[7, 8, 9], prediction=said, score=[3.0, 2.0, 1.0], mode="infer", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    asked: dict[str, Any] = {"mode": "infer", "ids": [7, 8, 9]}
    opened.relabel_export(tmp_path / "x.json", to="label-studio", **asked)
    tasks = json.loads((tmp_path / "x.json").read_text())
    values = {
        one["data"]["sample_id"]: one["predictions"][0]["result"][0]["value"] for one in tasks if "predictions" in one
    }
    if task == "numbers":
        assert values == {"7": {"number": 1.5}, "8": {"number": -2.0}, "9": {"number": 0.25}}
        assert "<Number" in (tmp_path / "x.xml").read_text()
        with pytest.raises(XaiError, match="has classes"):
            opened.relabel_export(tmp_path / "x.xml", to="cvat", **asked)
        corrected: dict[int, Any] = {7: 4.5, 9: 0.25}
        told = {7: "4.5", 9: "0.25"}
    else:
        sets = {"7": ["a"], "8": ["a", "c"] if task == "sets" else ["c"], **({} if task == "sets" else {"9": ["b"]})}
        assert values == {sample_id: {"choices": choices} for sample_id, choices in sets.items()}
        config = ElementTree.parse(tmp_path / "x.xml").getroot()
        assert [one.attrib["value"] for one in config.iter("Choice")] == ["a", "b", "c"]
        opened.relabel_export(tmp_path / "y.xml", to="cvat", **asked)
        tree = ElementTree.parse(tmp_path / "y.xml").getroot()
        assert [one.findtext("name") for one in tree.iter("label")] == ["a", "b", "c"]
        assert not list(tree.iter("tag"))
        opened.relabel_export(tmp_path / "y.json", to="coco", **asked)
        coco = json.loads((tmp_path / "y.json").read_text())
        assert ([one["name"] for one in coco["categories"]], coco["annotations"]) == (["a", "b", "c"], [])
        corrected = {7: [1], 9: [0]} if task == "sets" else {7: 1, 9: 1}
        told = {7: '["b"]', 9: '["a"]'} if task == "sets" else {7: "b", 9: "b"}
    pl.DataFrame({"sample_id": list(told), "label": list(told.values())}).write_csv(tmp_path / "back.csv")
    back = opened.relabel_apply(tmp_path / "back.csv")
    assert dict(back.data.select("sample_id", "label").iter_rows()) == corrected
    assert back.data["recorded"].to_list() == [None, None]
