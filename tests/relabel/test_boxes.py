"""Doubted objects of a detection run in the formats of labelling tools, by value and read by pycocotools."""

import csv
import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import xaicli
from xaicli.cli import main
from xaicli.errors import XaiError
from xaicli.relabel.tasks import of_carried

WIDTH, HEIGHT = 64, 40
NAMES = ["cat", "dog, wild"]
IDS = ['a,"b', "007", "ü\n2", "plain"]
RECORDED = [
    {"boxes": [[0, 0, 10, 10], [20, 20, 30, 30]], "labels": [0, 1]},
    {"boxes": [[5, 5, 15, 15], [40, 0, 60, 20]], "labels": [1, 0], "iscrowd": [0, 1]},
    {"boxes": [[0, 20, 10, 30.5]], "labels": [0]},
    {"boxes": [[1, 1, 9, 9]], "labels": [0]},
]
FOUND = [
    {"boxes": [[0, 0, 10, 8], [20, 20, 30, 29]], "labels": [0, 0], "scores": [0.9, 0.8]},  # dog taken for cat
    {"boxes": [[5, 5, 15, 15], [20, 0, 30, 10]], "labels": [1, 1], "scores": [0.7, 0.95]},  # nothing recorded there
    {"boxes": np.zeros((0, 4)), "labels": [], "scores": []},  # never found
    {"boxes": [[1, 1, 9, 9]], "labels": [0], "scores": [0.9]},  # as it should be
]
DOUBTS = {(0, 1): "other_class", (2, 0): "never_found"}
PROPOSED = (1, [20, 0, 30, 10], "dog, wild")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    paths = []
    for number in range(len(IDS)):
        paths.append(str(folder / f"{number}.png"))
        Image.new("RGB", (WIDTH, HEIGHT)).save(paths[-1])
    args = {"batch_size": 4, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(folder / "run", label_names=NAMES) as recorder:
        recorder.log_facts(IDS, path=paths)
        for _ in recorder.epochs(2):
            table = xaicli.Table(list(enumerate(RECORDED)), ids=IDS)
            model = lambda numbers: [FOUND[int(i)] for i in numbers]  # noqa: E731
            collector = xaicli.BoundingBoxMetricsCollector(NAMES)
            xaicli.collect_metrics(table, collector, model, run=recorder, split="val", dataloader_args=args)
    return folder / "run"


def exported(run, tmp_path, tool, name, *more):
    target = tmp_path / name
    assert main(["relabel", "export", str(run), "--to", tool, "-o", str(target), "-q", *more]) == 0
    return target


def test_how_many_objects_the_file_holds_is_told(run, tmp_path, capsys):
    for n, in_file in ((None, 3), (2, 2)):
        more = [] if n is None else ["--n", str(n)]
        target = tmp_path / "told.csv"
        assert main(["relabel", "export", str(run), "--to", "csv", "-o", str(target), "--json", *more]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["in_file"], len(told["rows"])) == (in_file, in_file)
        with target.open(encoding="utf-8", newline="") as file:
            assert sum(bool(row["doubt"]) for row in csv.DictReader(file)) == in_file


def test_that_mode_leaves_the_pictures_of_a_file_out_is_said(tmp_path):
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as recorder:
        for split, ids in (("val", ["a"]), ("test", ["b"])):
            table = xaicli.Table(list(enumerate(RECORDED[:1])), ids=ids)
            args = {"collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
            model = lambda numbers: [FOUND[int(i)] for i in numbers]  # noqa: E731
            collector = xaicli.BoundingBoxMetricsCollector(NAMES)
            xaicli.collect_metrics(table, collector, model, run=recorder, split=split, dataloader_args=args)
    (tmp_path / "b.csv").write_text("sample_id,label,x0,y0,x1,y1\na,0,0,0,5,5\n")
    opened = xaicli.open_run(tmp_path / "run")
    with pytest.raises(XaiError, match="is about a picture of test of") as error:
        opened.relabel_apply(tmp_path / "b.csv", mode="test")
    assert error.value.hint.startswith("--mode test leaves the others out; they name")
    assert opened.relabel_apply(tmp_path / "b.csv", mode="val").data["sample_id"].unique().to_list() == ["a"]
    (tmp_path / "c.csv").write_text("sample_id,label,x0,y0,x1,y1\na,0,0,0,5,5\nb,0,0,0,5,5\nc,0,0,0,5,5\n")
    told = opened.relabel_apply(tmp_path / "c.csv", mode="test").answer
    assert told.data["sample_id"].unique().to_list() == ["b"]
    assert {row["reason"]: row["examples"] for row in told.extra["left_out"]} == {
        "a sample that --mode test leaves out": ["a"],
        "no sample of the run": ["c"],
    }


def test_what_is_doubted_beside_the_chosen_is_marked_in_their_pictures(tmp_path, capsys):
    recorded = [{"boxes": [[0, 0, 9, 9], [20, 20, 29, 29], [40, 5, 49, 14]], "labels": [0, 1, 0]}] * 2
    found = [{"boxes": [[60, 60, 70, 70]], "scores": [0.99], "labels": [1]}, {"boxes": [], "scores": [], "labels": []}]
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as recorder:
        args = {"collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
        table = xaicli.Table(list(enumerate(recorded)), ids=["a", "b"])
        for _ in recorder.epochs(3):
            xaicli.collect_metrics(
                table,
                xaicli.BoundingBoxMetricsCollector(NAMES),
                lambda numbers: [found[int(i)] for i in numbers],
                run=recorder,
                split="val",
                dataloader_args=args,
            )
    opened = xaicli.open_run(tmp_path / "run")
    every = opened.relabel_export(to="csv").data
    first = every["sample_id"][0]
    own = every.filter(every["sample_id"] == first)
    assert own.height > 1
    target = tmp_path / "one.csv"
    words = ["relabel", "export", str(tmp_path / "run"), "--to", "csv", "-o", str(target), "--n", "1", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["rows"]), told["in_file"]) == (1, 1)
    assert any(f"in these pictures {own.height - 1:,} more object" in warning for warning in told["warnings"])
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["sample_id"] for row in rows} == {first}
    assert sorted(row["doubt"] for row in rows if row["doubt"]) == sorted(own["doubt"])


def test_coco_is_what_was_recorded_and_the_proposals_are_results(run, tmp_path):
    from pycocotools.coco import COCO

    target = exported(run, tmp_path, "coco", "out.json")
    coco = COCO(str(target))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == NAMES
    images = {of_carried(one["sample_id"]): one for one in coco.loadImgs(coco.getImgIds())}
    assert set(images) == set(IDS[:3])  # nothing is doubted in the last
    assert all((one["width"], one["height"]) == (WIDTH, HEIGHT) for one in images.values())
    for number, sample_id in enumerate(IDS[:3]):
        own = coco.loadAnns(coco.getAnnIds(imgIds=[images[sample_id]["id"]], iscrowd=None))
        expected = RECORDED[number]
        crowd = expected.get("iscrowd", [0] * len(expected["boxes"]))
        assert [one["bbox"] for one in own] == [[x, y, u - x, v - y] for x, y, u, v in expected["boxes"]]
        assert [one["category_id"] - 1 for one in own] == expected["labels"]
        assert [one["iscrowd"] for one in own] == crowd
        assert [one["area"] for one in own] == [one["bbox"][2] * one["bbox"][3] for one in own]
        said = [one["attributes"].get("doubt") for one in own]
        assert said == [DOUBTS.get((number, place)) for place in range(len(own))]
    suggested = [one["attributes"]["suggested"] for one in coco.anns.values() if "suggested" in one["attributes"]]
    assert suggested == ["cat"]
    results = coco.loadRes(str(tmp_path / "out-proposed.json"))
    (proposal,) = results.anns.values()
    assert of_carried(coco.imgs[proposal["image_id"]]["sample_id"]) == IDS[PROPOSED[0]]
    x, y, across, down = proposal["bbox"]
    assert [x, y, x + across, y + down] == PROPOSED[1]
    assert proposal["score"] == pytest.approx(0.95)
    assert all(one["segmentation"] == [] for one in coco.dataset["annotations"])  # a box is no outline


def test_cvat_has_a_box_an_object_whose_attributes_are_declared(run, tmp_path):
    root = ElementTree.parse(exported(run, tmp_path, "cvat", "out.xml")).getroot()
    declared = {
        label.findtext("name"): {one.findtext("name") for one in label.iter("attribute")}
        for label in root.iter("label")
    }
    assert set(declared) == set(NAMES)
    found = {}
    for image in root.iter("image"):
        assert (image.get("width"), image.get("height")) == (str(WIDTH), str(HEIGHT))
        for box in image.iter("box"):
            known = {one.get("name"): one.text or "" for one in box.findall("attribute")}
            assert set(known) <= declared[box.get("label")]
            corners = [float(box.get(end)) for end in ("xtl", "ytl", "xbr", "ybr")]
            found.setdefault(of_carried(known["sample_id"]), []).append(
                (box.get("label"), corners, known["doubt"], box.get("source"))
            )
    expected = {}
    for number in range(3):
        boxes = zip(RECORDED[number]["labels"], RECORDED[number]["boxes"], strict=True)
        expected[IDS[number]] = [
            (NAMES[label], corners, DOUBTS.get((number, place), ""), "manual")
            for place, (label, corners) in enumerate(boxes)
        ]
    expected[IDS[PROPOSED[0]]].append((PROPOSED[2], PROPOSED[1], "made_up", "auto"))
    assert found == expected


def test_label_studio_and_fiftyone_place_boxes_in_shares_of_the_picture(run, tmp_path):
    tasks = json.loads(exported(run, tmp_path, "label-studio", "out.json").read_text())
    labels = json.loads((exported(run, tmp_path, "fiftyone", "out") / "labels.json").read_text())
    assert labels["classes"] == NAMES
    in_fiftyone = {boxes[0]["attributes"]["sample_id"]: boxes for boxes in labels["labels"].values()}
    for task in tasks:
        number = IDS.index(task["data"]["sample_id"])
        assert task["data"]["image"].endswith(f"{number}.png")
        expected = [*RECORDED[number]["boxes"], *([PROPOSED[1]] if number == PROPOSED[0] else [])]
        regions = task["predictions"][0]["result"]
        for region, one, corners in zip(regions, in_fiftyone[IDS[number]], expected, strict=True):
            x, y, u, v = corners
            shares = [x / WIDTH, y / HEIGHT, (u - x) / WIDTH, (v - y) / HEIGHT]
            assert (region["original_width"], region["original_height"]) == (WIDTH, HEIGHT)
            value = region["value"]
            assert [value[side] / 100 for side in ("x", "y", "width", "height")] == pytest.approx(shares)
            assert one["bounding_box"] == pytest.approx(shares)
            assert value["rectanglelabels"] == [one["label"]]
    config = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [one.get("value") for one in config.iter("Label")] == NAMES


def test_a_table_has_a_row_a_box(run, tmp_path):
    with exported(run, tmp_path, "csv", "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sample_id"], row["doubt"]) for row in rows if row["doubt"]] == [
        (IDS[0], "other_class"),
        (IDS[2], "never_found"),
        (IDS[1], "made_up"),
    ]
    assert len(rows) == 6
    first = next(row for row in rows if row["sample_id"] == IDS[2])
    assert [float(first[end]) for end in ("x0", "y0", "x1", "y1")] == RECORDED[2]["boxes"][0]
    assert math.isclose(float(first["score"]), 1.0)


def test_an_object_added_without_path_and_mode_is_one_of_its_picture(run, tmp_path, capsys):
    table = exported(run, tmp_path, "csv", "out.csv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    own = sum(row["sample_id"] == IDS[2] and bool(row["label"]) for row in rows)
    added = {"sample_id": IDS[2], "label": NAMES[0], "x0": "1.5", "y0": "2.25", "x1": "11.5", "y1": "9.75"}
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows([*rows, added])
    capsys.readouterr()
    assert main(["relabel", "apply", str(run), str(table), "-o", str(tmp_path / "new.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    changes = [row["change"] for row in found["rows"] if row["sample_id"] == IDS[2]]
    assert (changes.count("added"), changes.count("removed"), len(changes)) == (1, 0, own + 1)


def test_what_says_nothing_of_objects_is_refused(run, tmp_path, capsys):
    for more, said in (
        (("--rule", "hardest"), "--rule says nothing of the objects"),
        (("--ids", "007"), "--ids says nothing of the objects"),
        (("--pictures",), "--pictures says nothing of the objects"),
        (("--share", "0.5"), "--share says nothing of the objects"),
        (("--n", "0"), "--n"),
        (("--table", "nothing"), "no table"),
    ):
        assert main(["relabel", "export", str(run), "--to", "coco", "-o", str(tmp_path / "x.json"), *more]) in (1, 2)
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_the_first_of_them_and_pictures_of_unknown_size(run, tmp_path, capsys):
    found = json.loads(exported(run, tmp_path, "coco", "one.json", "--n", "1").read_text())
    assert [image["sample_id"] for image in found["images"]] == [IDS[0]]
    bare = tmp_path / "facts.csv"
    with bare.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["sample_id", "path"], *([one, f"/nowhere/{n}.png"] for n, one in enumerate(IDS))])
    command = [
        "relabel",
        "export",
        str(run),
        "--facts",
        str(bare),
        "--to",
        "label-studio",
        "-o",
        str(tmp_path / "l.json"),
    ]
    assert main(command) == 1
    assert "the size of 3 pictures is not known" in capsys.readouterr().err


def test_objects_that_were_taken_back_are_counted(tmp_path, capsys):
    """At epoch 2 the first attempt finds a sure box where nothing is; the second, resumed there, does not."""
    args = {"batch_size": 2, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    recorded = {"boxes": [[0, 0, 10, 10]], "labels": [0]}
    more = {"boxes": [[0, 0, 10, 10], [11, 11, 15, 15]], "labels": [0, 0], "scores": [0.9, 0.95]}
    for found, epochs, start in ((more, (1, 2), None), ({**recorded, "scores": [0.9]}, (2,), (2, 1))):
        with xaicli.Run(tmp_path / "run", **({"resume_from": start} if start else {})) as run:
            for epoch in epochs:
                xaicli.collect_metrics(
                    xaicli.Table([(n, recorded) for n in range(2)]),
                    xaicli.BoundingBoxMetricsCollector(["cat"]),
                    lambda numbers, found=found: [found for _ in numbers],
                    run=run,
                    constants={"epoch": epoch},
                    dataloader_args=args,
                )
    table = tmp_path / "boxes.csv"
    assert main(["relabel", "export", str(tmp_path / "run"), "--to", "csv", "-o", str(table), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    said = (
        "attempt 1 took back 6 rows of attempt 0 in table boxes from epoch 2, step 1 on: "
        "xai info, samples and most others count them with --attempts all"
    )
    assert (answer["rows"], answer["counts"]["taken_back"], said in answer["warnings"]) == ([], 6, True)
    table.write_text("sample_id,x0,y0,x1,y1,label\n0,0,0,10,9,cat\n")
    assert main(["relabel", "apply", str(tmp_path / "run"), str(table), "-o", str(tmp_path / "n.csv"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["counts"]["taken_back"], said in answer["warnings"]) == (6, True)


def test_a_table_of_boxes_has_the_facts_of_their_pictures(run, tmp_path, capsys):
    (tmp_path / "f.csv").write_text(
        "sample_id,camera,x0,name,score,ds_id\n"
        + "".join(f'"{one.replace(chr(34), chr(34) * 2)}",c{i},left,n{i},{i}.5,d{i}\n' for i, one in enumerate(IDS))
    )
    target, facts = tmp_path / "out.csv", str(tmp_path / "f.csv")
    assert main(["relabel", "export", str(run), "--to", "csv", "--facts", facts, "-o", str(target), "--json"]) == 0
    said = [words.partition(":")[0] for words in json.loads(capsys.readouterr().out)["warnings"]]
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 + 3 + 1  # of the three pictures in doubt what is recorded, and a proposal
    for row in rows:
        number = IDS.index(of_carried(row["sample_id"]))
        own = {"camera": f"c{number}", "fact_name": f"n{number}", "fact_score": f"{number}.5"}
        assert {name: row[name] for name in own} == own
        assert (row["fact_x0"], float(row["x0"]) >= 0) == ("left", True)
    for name in ("x0", "name", "score"):
        assert f"the fact {name} is called fact_{name} in the file for csv" in said
    plain = exported(run, tmp_path, "csv", "plain.csv", "--no-facts")
    with plain.open(encoding="utf-8", newline="") as file:
        assert "camera" not in next(csv.reader(file))
    opened = xaicli.open_run(run)
    found = [opened.relabel_apply(one, facts=facts).to_json() for one in (target, plain)]
    told = [json.loads(one) for one in found]
    assert told[0]["rows"] == told[1]["rows"]
    assert [(one["reason"], one["n"]) for one in told[0]["left_out"]] == [
        (one["reason"], one["n"]) for one in told[1]["left_out"]
    ]
