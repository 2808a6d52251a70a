"""Corrected boxes back from the files that labelling tools write, by value."""

import csv
import json
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from PIL import Image

import xaicli
from xaicli.api.relabel import corrections_of
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError
from xaicli.relabel.boxes import RECORDED as RECORDED_ID

WIDTH, HEIGHT = 64, 40
NAMES = ["cat", "dog, wild"]
IDS = ['a,"b', " 007\t", "ü\n2", "", "plain"]
THIRD = 100 / 3  # no decimal of CVAT, no percent gives it back
RECORDED = [
    {"boxes": [[0, 0, 10, 10], [20, 20, 30, THIRD]], "labels": [0, 1]},
    {"boxes": [[5, 5, 15, 15], [40, 0, 60, 20]], "labels": [1, 0], "iscrowd": [0, 1]},
    {"boxes": [[0, 20, 10, 30.5]], "labels": [0]},
    {"boxes": [[0.1, 20.7, 10, 30]], "labels": [1]},
    {"boxes": [[1, 1, 9, 9]], "labels": [0]},
]
FOUND = [
    {"boxes": [[0, 0, 10, 8], [20, 20, 30, 29]], "labels": [0, 0], "scores": [0.9, 0.8]},  # dog taken for cat
    {"boxes": [[5, 5, 15, 15], [20.3, 0, 30, 10]], "labels": [1, 1], "scores": [0.7, 0.95]},  # nothing recorded there
    {"boxes": np.zeros((0, 4)), "labels": [], "scores": []},  # never found
    {"boxes": np.zeros((0, 4)), "labels": [], "scores": []},
    {"boxes": [[1, 1, 9, 9]], "labels": [0], "scores": [0.9]},  # as it should be, so nobody is asked
]
NEW = [40.0, 30.0, 50.0, 38.0]
MOVED = [6.25, 5.5, 15.0, 16.75]
# What a person does: relabels the dog of the first picture and draws a cat there; moves the first box of the second
# and agrees to what the model found; removes the only box of the third; agrees with the fourth as it is.
STANDING = {
    IDS[0]: [("cat", [0, 0, 10, 10], False), ("cat", [20, 20, 30, THIRD], False), ("cat", NEW, False)],
    IDS[1]: [("dog, wild", MOVED, False), ("cat", [40, 0, 60, 20], True), ("dog, wild", [20.3, 0, 30, 10], False)],
    IDS[2]: [],
    IDS[3]: [("dog, wild", [0.1, 20.7, 10, 30], False)],
}
CHANGES = {
    IDS[0]: ["confirmed", "relabelled", "added"],
    IDS[1]: ["moved", "confirmed", "added"],
    IDS[2]: ["removed"],
    IDS[3]: ["confirmed"],
}


def record(folder, splits=("val",), *, pictured=True):
    paths = []
    for number in range(len(IDS)):
        paths.append(str(folder / f"{number}.png"))
        Image.new("RGB", (WIDTH, HEIGHT)).save(paths[-1])
    args = {"batch_size": 4, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(folder / "run", label_names=NAMES) as recorder:
        if pictured:
            recorder.log_facts(IDS, path=paths)
        for _ in recorder.epochs(2):
            for split in splits:
                table = xaicli.Table(list(enumerate(RECORDED)), ids=IDS)
                model = lambda numbers: [FOUND[int(i)] for i in numbers]  # noqa: E731
                collector = xaicli.BoundingBoxMetricsCollector(NAMES)
                xaicli.collect_metrics(table, collector, model, run=recorder, split=split, dataloader_args=args)
    return xaicli.open_run(folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return record(tmp_path_factory.mktemp("drawn"))


def assert_stands(found, expected=STANDING, changes=CHANGES):
    """The corrected boxes of every picture, exactly; and what became of each."""
    stands = {}
    for row in corrections_of(found).iter_rows(named=True):
        of_picture = stands.setdefault(row["sample_id"], [])
        if row["name"] is None:
            assert [row[end] for end in ("label", "x0", "y0", "x1", "y1", "crowd")] == [None] * 6
        else:
            assert NAMES[row["label"]] == row["name"]
            of_picture.append((row["name"], [row[end] for end in ("x0", "y0", "x1", "y1")], row["crowd"]))
    assert stands == expected
    told = found.data.group_by("sample_id", maintain_order=True).agg("change")
    assert dict(told.iter_rows()) == changes


def whose(text):
    """The id of a picture as a tool carries it."""
    return json.loads(text) if text.startswith('"') else text


def edited_cvat(path, *, checked="true"):
    """What CVAT writes after the person: two decimals, attributes by name, a new box with the defaults."""
    root = ElementTree.parse(path).getroot()
    ElementTree.SubElement(ElementTree.SubElement(root.find("meta/task"), "assignee"), "username").text = "ann"
    for image in root.iter("image"):
        boxes = image.findall("box")
        known = [{one.get("name"): one for one in box.findall("attribute")} for box in boxes]
        (sample_id,) = {whose(one["sample_id"].text or "") for one in known}
        if sample_id == IDS[0]:
            boxes[1].set("label", "cat")
            box = ElementTree.SubElement(image, "box", label="cat", source="manual", occluded="0", z_order="0")
            for end, value in zip(("xtl", "ytl", "xbr", "ybr"), NEW, strict=True):
                box.set(end, f"{value:.2f}")
            for name in known[0]:
                value = "true" if name == "checked" else ""
                ElementTree.SubElement(box, "attribute", name=name).text = value
        elif sample_id == IDS[1]:
            for end, value in zip(("xtl", "ytl", "xbr", "ybr"), MOVED, strict=True):
                boxes[0].set(end, f"{value:.2f}")
            known[2]["checked"].text = checked
        elif sample_id == IDS[2]:
            image.remove(boxes[0])
        else:
            known[0]["checked"].text = checked
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def test_cvat(run, tmp_path):
    path = tmp_path / "boxes.xml"
    run.relabel_export(path, to="cvat")
    assert run.relabel_apply(path).data.is_empty()  # nobody has looked yet
    edited_cvat(path)
    found = run.relabel_apply(path)
    assert_stands(found)
    assert set(found.data["by"]) == {"ann"}
    assert found.answer.extra["left_out"] == []
    assert found.answer.extra["changes"] == {"confirmed": 3, "added": 2, "relabelled": 1, "moved": 1, "removed": 1}


def test_coco(run, tmp_path):
    path = tmp_path / "boxes.json"
    run.relabel_export(path, to="coco")
    assert run.relabel_apply(path).data.is_empty()
    coco = json.loads(path.read_text(encoding="utf-8"))
    (proposal,) = json.loads((tmp_path / "boxes-proposed.json").read_text(encoding="utf-8"))
    ids = {image["id"]: whose(image["sample_id"]) for image in coco["images"]}
    numbers = {one["name"]: one["id"] for one in coco["categories"]}
    new = {"category_id": numbers["cat"], "bbox": [40, 30, 10, 8], "iscrowd": 0, "area": 80, "segmentation": []}
    kept = []
    for one in coco["annotations"]:
        sample_id, number = ids[one["image_id"]], one["attributes"]["number"]
        if (sample_id, number) == (IDS[0], 1):
            one["category_id"] = numbers["cat"]
            kept.append({**new, "id": 100, "image_id": one["image_id"]})
        elif (sample_id, number) == (IDS[1], 0):
            x0, y0, x1, y1 = MOVED
            one["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        elif sample_id == IDS[3]:
            one["attributes"]["checked"] = True
        if sample_id != IDS[2]:
            kept.append(one)
    accepted = {**proposal, "id": 101, "attributes": {**proposal["attributes"], "checked": True}}
    path.write_text(json.dumps({**coco, "annotations": [*kept, accepted]}), encoding="utf-8")
    assert_stands(run.relabel_apply(path))


def test_label_studio(run, tmp_path):
    path = tmp_path / "tasks.json"
    run.relabel_export(path, to="label-studio")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    exported = []
    for number, task in enumerate(tasks):
        sample_id = whose(task["data"]["sample_id"])
        result = json.loads(json.dumps(task["predictions"][0]["result"]))
        if sample_id == IDS[0]:
            result[1]["value"]["rectanglelabels"] = ["cat"]
            x0, y0, x1, y1 = NEW
            across = {"x": x0 / WIDTH, "width": (x1 - x0) / WIDTH, "y": y0 / HEIGHT, "height": (y1 - y0) / HEIGHT}
            value = {**{name: 100 * share for name, share in across.items()}, "rotation": 0}
            result.append({**result[0], "id": "x9_Za", "value": {**value, "rectanglelabels": ["cat"]}})
            result.append({"from_name": "note", "type": "textarea", "value": {"text": ["blurred"]}})
        elif sample_id == IDS[1]:
            x0, y0, x1, y1 = MOVED
            result[0]["value"] |= {"x": 100 * x0 / WIDTH, "width": 100 * (x1 - x0) / WIDTH}
            result[0]["value"] |= {"y": 100 * y0 / HEIGHT, "height": 100 * (y1 - y0) / HEIGHT}
        elif sample_id == IDS[2]:
            result = []
        annotation = {"id": number, "completed_by": {"email": "ann@example.org"}, "result": result}
        annotation |= {"was_cancelled": False, "updated_at": "2026-03-09T22:17:08.728378Z"}
        exported.append({"id": number, "data": task["data"], "annotations": [annotation], "predictions": []})
    path.write_text(json.dumps(exported), encoding="utf-8")
    found = run.relabel_apply(path)
    assert_stands(found)
    assert (set(found.data["by"]), set(found.data["when"])) == ({"ann@example.org"}, {"2026-03-09T22:17:08.728378Z"})
    exported[0]["annotations"][0]["was_cancelled"] = True
    path.write_text(json.dumps(exported), encoding="utf-8")
    left = run.relabel_apply(path).answer.extra["left_out"]
    assert [(row["reason"], row["n"]) for row in left] == [("skipped", 1)]
    path.write_text(json.dumps([{**exported[0], "annotations": []}, *exported[1:]]), encoding="utf-8")
    left = run.relabel_apply(path).answer.extra["left_out"]
    assert [(row["reason"], row["n"]) for row in left] == [("not labelled yet", 1)]
    # JSON_MIN and CSV: a row an annotation, regions without their ids, so that a moved box is another one.
    rows = []
    for task in exported:
        one = task["annotations"][0]
        regions = [
            {**item["value"], "original_width": WIDTH, "original_height": HEIGHT}
            for item in one["result"]
            if item["type"] == "rectanglelabels"
        ]
        told = {"annotation_id": one["id"], "annotator": 4, "updated_at": one["updated_at"]}
        rows.append({**task["data"], **({"label": regions} if regions else {}), **told})
    short = tmp_path / "short.json"
    short.write_text(json.dumps(rows), encoding="utf-8")
    anew = {
        **STANDING,
        IDS[1]: [STANDING[IDS[1]][1], ("dog, wild", MOVED, False), ("dog, wild", [20.3, 0, 30, 10], False)],
    }
    changes = {**CHANGES, IDS[1]: ["confirmed", "added", "added", "removed"]}
    assert_stands(run.relabel_apply(short), anew, changes)
    with (tmp_path / "short.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows([{**row, "label": json.dumps(row["label"]) if "label" in row else ""} for row in rows])
    assert_stands(run.relabel_apply(tmp_path / "short.csv"), anew, changes)


def edited_fiftyone(labels):
    for boxes in labels.values():
        sample_id = whose(boxes[0]["attributes"]["sample_id"])
        if sample_id == IDS[0]:
            boxes[1]["label"] = "cat"
            x0, y0, x1, y1 = NEW
            place = [x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT]
            boxes.append({"label": "cat", "bounding_box": place})
        elif sample_id == IDS[1]:
            x0, y0, x1, y1 = MOVED
            boxes[0]["bounding_box"] = [x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT]
            boxes[2]["attributes"]["checked"] = True
        elif sample_id == IDS[2]:
            boxes.clear()
        else:
            boxes[0]["attributes"]["checked"] = True


def test_fiftyone(run, tmp_path):
    folder = tmp_path / "voxels"
    run.relabel_export(folder, to="fiftyone")
    assert run.relabel_apply(folder).data.is_empty()
    found = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    edited_fiftyone(found["labels"])
    (folder / "labels.json").write_text(json.dumps(found), encoding="utf-8")
    assert_stands(run.relabel_apply(folder))
    # FiftyOneDataset: the attributes beside the label, the size of the picture in its metadata.
    pictures = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    samples = []
    for key, boxes in found["labels"].items():
        inside = [
            {
                "_cls": "Detection",
                "label": one["label"],
                "bounding_box": one["bounding_box"],
                **one.get("attributes", {}),
            }
            for one in boxes
        ]
        about = {"_cls": "ImageMetadata", "width": WIDTH, "height": HEIGHT}
        truth = {"_cls": "Detections", "detections": inside}
        samples.append({"filepath": pictures[key], "metadata": about, "ground_truth": truth})
    path = tmp_path / "samples.json"
    path.write_text(json.dumps({"samples": samples}), encoding="utf-8")
    assert_stands(run.relabel_apply(path))
    with pytest.raises(XaiError, match="no field of boxes other"):
        run.relabel_apply(path, field="other")


def studio_boxes(run, folder, controls):
    """What Label Studio writes of the exported boxes as they are, n-th region of a task by the n-th control in turn."""
    run.relabel_export(folder / "tasks.json", to="label-studio")
    tasks, rows = [], []
    for number, task in enumerate(json.loads((folder / "tasks.json").read_text(encoding="utf-8"))):
        result = [one for one in task["predictions"][0]["result"] if one["id"].startswith(RECORDED_ID)]
        for place, one in enumerate(result):
            one["from_name"] = controls[place % len(controls)]
        tasks.append({"data": task["data"], "annotations": [{"id": number, "result": result}]})
        row = {**task["data"], "annotation_id": number, "annotator": 4}
        for name in controls:
            sides = {"original_width": WIDTH, "original_height": HEIGHT}
            row[name] = [{**one["value"], **sides} for one in result if one["from_name"] == name]
        rows.append(row)
    (folder / "studio.json").write_text(json.dumps(tasks), encoding="utf-8")
    (folder / "min.json").write_text(json.dumps(rows), encoding="utf-8")
    with (folder / "studio.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, **{name: json.dumps(row[name]) for name in controls}} for row in rows])
    return [folder / name for name in ("studio.json", "min.json", "studio.csv")]


def fiftyone_boxes(run, folder, fields):
    """`FiftyOneDataset` of the exported boxes, all in each field."""
    run.relabel_export(folder / "voxels", to="fiftyone")
    labels = json.loads((folder / "voxels" / "labels.json").read_text(encoding="utf-8"))["labels"]
    pictures = json.loads((folder / "voxels" / "data.json").read_text(encoding="utf-8"))
    size = {"_cls": "ImageMetadata", "width": WIDTH, "height": HEIGHT}
    samples = []
    for key, boxes in labels.items():
        inside = [{"_cls": "Detection", **one, **one.pop("attributes"), "checked": True} for one in boxes]
        told = {name: {"_cls": "Detections", "detections": inside} for name in fields}
        samples.append({"filepath": pictures[key], "metadata": size, **told})
    (folder / "samples.json").write_text(json.dumps({"samples": samples}), encoding="utf-8")
    return folder / "samples.json"


def test_the_only_control_of_boxes_is_taken_whatever_it_is_called(run, tmp_path):
    """Of a CSV no box was taken, so that every one was removed."""
    for path in studio_boxes(run, tmp_path, ["what"]):
        changes = run.relabel_apply(path).answer.extra["changes"]
        assert changes == {"confirmed": 6}, path
        assert run.relabel_apply(path, field="what").answer.extra["changes"] == changes


def test_a_field_that_is_not_there_removes_no_box(run, tmp_path):
    for path in (*studio_boxes(run, tmp_path, ["label"]), fiftyone_boxes(run, tmp_path, ["label"])):
        with pytest.raises(XaiError, match=r"has no (control|column|field) of boxes nope") as told:
            run.relabel_apply(path, field="nope")
        assert told.value.hint == "--field NAME, of: label"


def test_boxes_of_other_controls_are_counted(run, tmp_path):
    by_turns = studio_boxes(run, tmp_path, ["label", "other"])
    for path in (*by_turns, fiftyone_boxes(run, tmp_path, ["label", "other"])):
        text = path.read_text(encoding="utf-8")
        held = {"label": text.count("bounding_box") // 2, "other": text.count("bounding_box") // 2}
        held = held if path.name == "samples.json" else {"label": 4, "other": 2}
        for field in (None, "label", "other"):
            found = run.relabel_apply(path, field=field).answer
            other = "label" if field == "other" else "other"
            n = held[other]
            (told,) = (row for row in found.extra["left_out"] if "--field" in row["reason"])
            assert (told["n"], told["examples"]) == (n, [other]), path
            said = f"{n} marks were not taken: of another control or field, which --field would name ({other})"
            assert said in found.warnings
    for path in studio_boxes(run, tmp_path, ["one", "other"]):
        with pytest.raises(UsageError, match="boxes of several controls") as told:
            run.relabel_apply(path)
        assert told.value.hint == "--field one or other"


@pytest.mark.parametrize("to", ["cvat", "coco", "fiftyone", "csv"])
def test_a_field_of_a_format_without_any_is_refused_and_as_a_default_passed_over(
    run, to, tmp_path, monkeypatch, capsys
):
    path = tmp_path / {"cvat": "b.xml", "coco": "b.json", "fiftyone": "b", "csv": "b.csv"}[to]
    run.relabel_export(path, to=to)
    words = ["relabel", "apply", str(run.layout.root), str(path), "--format", "json", "-q", "-o", str(tmp_path / "o")]
    assert main(words) == 0
    plain = json.loads((tmp_path / "o" / "relabel-apply.json").read_text(encoding="utf-8"))
    capsys.readouterr()
    assert main([*words, "--field", "label"]) == 2
    assert "has none of them\nhint: leave --field out" in capsys.readouterr().err
    monkeypatch.setenv("XAI_FIELD", "choice")
    assert main(words) == 0
    found = json.loads((tmp_path / "o" / "relabel-apply.json").read_text(encoding="utf-8"))
    assert found["selection"].pop("field") is plain["selection"].pop("field") is None
    assert {key: found[key] for key in ("rows", "left_out", "changes")} == {
        key: plain[key] for key in ("rows", "left_out", "changes")
    }
    # Beside a file that has one it is of that.
    studio = studio_boxes(run, tmp_path, ["choice"])[0]
    assert main([*words[:4], str(studio), *words[4:], "--field", "choice"]) == 0
    monkeypatch.setenv("XAI_FIELD", "nope")
    assert main([*words[:3], str(studio), *words[4:]]) == 1
    said = capsys.readouterr().err
    assert "has no control of boxes nope" in said
    assert "--field is from XAI_FIELD" in said


def test_a_table(run, tmp_path):
    path = tmp_path / "boxes.csv"
    run.relabel_export(path, to="csv")
    assert run.relabel_apply(path).data.is_empty()
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    out = []
    for row in rows:
        sample_id = whose(row["sample_id"].removeprefix("'")) if row["sample_id"] == '""' else row["sample_id"]
        row["by"] = "ann"
        if (sample_id, row["number"]) == (IDS[0], "1"):
            row["label"] = "cat"
            out.append({**row, **dict(zip(("x0", "y0", "x1", "y1"), NEW, strict=True)), "number": "", "crowd": ""})
        elif (sample_id, row["number"]) == (IDS[1], "0"):
            row |= dict(zip(("x0", "y0", "x1", "y1"), MOVED, strict=True))
        elif sample_id == IDS[2]:
            row = {**dict.fromkeys(row, ""), "sample_id": row["sample_id"], "mode": row["mode"], "by": "ann"}
        elif sample_id == IDS[3] or row["doubt"] == "made_up":
            row["checked"] = "TRUE"  # as a spreadsheet has it
        out.append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(out)
    found = run.relabel_apply(path)
    assert_stands(found)
    # What was written reads back as itself.
    again = tmp_path / "again.parquet"
    corrections_of(found).write_parquet(again)
    stands = corrections_of(run.relabel_apply(again))
    assert sorted(stands.rows(), key=str) == sorted(corrections_of(found).rows(), key=str)


def test_the_command_writes_the_table_and_says_how_many_doubts_were_right(run, tmp_path, capsys):
    path, target = tmp_path / "boxes.xml", tmp_path / "corrected.csv"
    run.relabel_export(path, to="cvat")
    edited_cvat(path)
    command = ["relabel", "apply", str(run.layout.root), str(path), "-o", str(target), "--format", "html"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    judged = {row["doubt"]: (row["looked_at"], row["wrong"], row["suggestion_right"]) for row in found["suspects"]}
    assert judged == {"other_class": (1, 1, 1), "never_found": (2, 1, None), "made_up": (1, 1, 1)}
    assert corrections_of(run.relabel_apply(path))["when"].null_count() == 8  # nobody said when
    written = pl.read_csv(target, infer_schema=False).fill_null("")
    assert written.columns == ["sample_id", "label", "name", "x0", "y0", "x1", "y1", "crowd", "by", "when"]
    assert written.height == 8
    assert written.filter(pl.col("sample_id") == IDS[2]).rows() == [(IDS[2], *[""] * 7, "ann", "")]
    assert "What people said of the objects" in (tmp_path / "relabel-apply.html").read_text(encoding="utf-8")
    assert main(command) == 0
    assert "1 relabelled" in capsys.readouterr().out


def test_what_cannot_be_taken_costs_its_picture_and_is_told(run, tmp_path):
    path = tmp_path / "boxes.xml"
    for attribute, value, reason in (
        ("label", "horse", "a label that the run does not know"),
        ("rotation", "30", "a box stands in the picture that is turned"),
        ("xbr", "-3", "a box stands in the picture whose corners are none"),
        ("xbr", "nan", "a box stands in the picture whose corners are none"),
        ("xbr", "wide", "not what the tool writes"),
        (None, "polygon", "a shape that is no box stands in the picture"),
    ):
        run.relabel_export(path, to="cvat")
        edited_cvat(path)
        tree = ElementTree.parse(path)
        image = next(one for one in tree.iter("image") if one.get("name") == "0.png")
        if attribute is None:
            ElementTree.SubElement(image, value, label="cat", points="1,2;3,4;5,6")
        else:
            image.find("box").set(attribute, value)
        tree.write(path, encoding="utf-8", xml_declaration=True)
        found = run.relabel_apply(path)
        others = {name: boxes for name, boxes in STANDING.items() if name != IDS[0]}
        assert_stands(found, others, {name: CHANGES[name] for name in others})
        assert [(row["reason"], row["n"]) for row in found.answer.extra["left_out"]] == [(reason, 1)]


def test_a_copy_of_a_box_is_a_new_one_and_an_unchecked_proposal_is_none(run, tmp_path):
    path = tmp_path / "boxes.xml"
    run.relabel_export(path, to="cvat")
    tree = ElementTree.parse(path)
    image = next(one for one in tree.iter("image") if one.get("name") == "1.png")
    box = image.find("box")
    copy = ElementTree.fromstring(ElementTree.tostring(box))
    for end, value in zip(("xtl", "ytl", "xbr", "ybr"), NEW, strict=True):
        copy.set(end, str(value))
    image.insert(0, copy)
    tree.write(path, encoding="utf-8", xml_declaration=True)
    found = run.relabel_apply(path)
    stands = [("dog, wild", [5, 5, 15, 15], False), ("cat", [40, 0, 60, 20], True), ("dog, wild", NEW, False)]
    assert_stands(found, {IDS[1]: stands}, {IDS[1]: ["confirmed", "confirmed", "added"]})
    left = {row["reason"]: row["n"] for row in found.answer.extra["left_out"]}
    assert left == {"what the model found, and nobody checked": 1, "not looked at: as recorded, and not checked": 3}


def test_pictures_of_one_id_in_two_splits_keep_apart(tmp_path):
    run = record(tmp_path, ("train", "val"))
    path = tmp_path / "boxes.json"
    run.relabel_export(path, to="coco")
    coco = json.loads(path.read_text(encoding="utf-8"))
    for image in coco["images"]:
        own = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
        if whose(image["sample_id"]) == IDS[2] and image["mode"] == "val":
            coco["annotations"].remove(own[0])
    path.write_text(json.dumps(coco), encoding="utf-8")
    (row,) = run.relabel_apply(path).data.to_dicts()
    assert (row["sample_id"], row["mode"], row["change"]) == (IDS[2], "val", "removed")
    for image in coco["images"]:
        del image["mode"]
    path.write_text(json.dumps(coco), encoding="utf-8")
    found = run.relabel_apply(path).answer
    assert found.data.is_empty()
    assert "recorded in several splits, and the file does not say which: --mode" in {
        row["reason"] for row in found.extra["left_out"]
    }


def test_several_people_and_options(run, tmp_path):
    path = tmp_path / "boxes.csv"
    names = ["sample_id", "label", "x0", "y0", "x1", "y1", "by"]
    rows = [
        ["plain", "cat", 1, 1, 9, 9, "ann"],
        ["plain", "kitten", 1, 1, 9, 9, "bob"],
        ["plain", "cat", 1, 1, 9, 9.5, "eve"],
        ["nowhere", "cat", 1, 1, 9, 9, "eve"],
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    found = run.relabel_apply(path, label_map={"kitten": "cat"})
    assert_stands(found, {"plain": [("cat", [1, 1, 9, 9], False)]}, {"plain": ["confirmed"]})
    assert (found.data["votes"][0], found.data["by"][0]) == ("2 of 3", "ann, bob")
    left_out = {row["reason"]: row["n"] for row in found.answer.extra["left_out"]}
    assert left_out == {"no sample of the run": 1, "outvoted: more people agree on another": 1}  # eve's both times
    found = run.relabel_apply(path, by="eve")
    assert_stands(found, {"plain": [("cat", [1, 1, 9, 9.5], False)]}, {"plain": ["added", "removed"]})
    with pytest.raises(UsageError, match="no class"):
        run.relabel_apply(path, label_map={"kitten": "lion"})
    with pytest.raises(UsageError, match="ds-id"):
        run.relabel_apply(path, ds_id="a")
    labels = tmp_path / "labels.csv"
    labels.write_text("sample_id,label\nplain,cat\n", encoding="utf-8")
    with pytest.raises(XaiError, match="no column x0"):
        run.relabel_apply(labels)
    with pytest.raises(XaiError, match="no table"):
        run.relabel_apply(path, table="other")


def test_a_table_of_labels_takes_no_boxes(run, tmp_path):
    path = tmp_path / "boxes.xml"
    run.relabel_export(path, to="cvat")
    edited_cvat(path)
    corrected = tmp_path / "corrected.parquet"
    corrections_of(run.relabel_apply(path)).write_parquet(corrected)
    with pytest.raises(XaiError, match="about boxes"):
        xaicli.Table([(0, 1)] * len(IDS), ids=IDS, relabel=corrected)
