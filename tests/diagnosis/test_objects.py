"""How a detector errs, against plain Python and the collectors' own figures."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import xaicli
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError
from xaicli.queries.media import Thumbnail, with_boxes
from xaicli.report.charts import Image as Picture
from xaicli.report.model import Gallery, Report, Table

TRUTH = [
    {"boxes": [[0, 0, 10, 10], [20, 20, 30, 30]], "labels": [0, 1]},
    {"boxes": [[5, 5, 15, 15]], "labels": [1]},
    {"boxes": [[0, 20, 10, 30]], "labels": [0]},
]
SAID = [
    {"boxes": [[0, 0, 10, 8], [20, 20, 30, 29]], "labels": [0, 0], "scores": [0.9, 0.8]},  # 1 taken for 0
    {"boxes": [[5, 5, 15, 15], [20, 0, 30, 10]], "labels": [1, 1], "scores": [0.7, 0.95]},  # one where no label is
    {"boxes": np.zeros((0, 4)), "labels": [], "scores": []},  # never found
]

LEGEND = "Green: found. Red: made up. Blue: missed."


@pytest.fixture
def run(tmp_path):
    collector = xaicli.BoundingBoxMetricsCollector(["cat", "dog"])
    args = {"batch_size": 3, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_images(np.arange(3), np.full((3, 32, 32), 200, np.uint8))
        run.log_facts(np.arange(3), camera=["left", "right", "left"])
        for epoch in run.epochs(2):
            said = SAID if epoch == 2 else [{**one, "boxes": np.asarray(one["boxes"], float)} for one in SAID]
            table = xaicli.Table(list(enumerate(TRUTH)))
            model = lambda numbers, said=said: [said[int(i)] for i in numbers]  # noqa: E731
            xaicli.collect_metrics(table, collector, model, run=run, split="val", dataloader_args=args)
    return tmp_path / "run"


def asked(capsys, *arguments):
    assert main(["errors", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_was_found_missed_and_made_up(run, capsys):
    found = asked(capsys, run)
    assert found["task"] == "objects"
    assert [(row["mode"], row["epoch"]) for row in found["rows"]] == [("val", 1), ("val", 2)]
    row = found["rows"][-1]
    assert (row["tp"], row["fp"], row["fn"]) == (2, 2, 2)
    assert (row["precision"], row["recall"]) == (0.5, 0.5)
    assert row["mean_iou"] == pytest.approx((0.8 + 1) / 2)
    # cat: one of two found, first; dog: a miss above the hit, one of two found.
    assert {one["name"]: one["average_precision"] for one in found["classes"]} == pytest.approx(
        {"cat": 51 / 101, "dog": 0.5 * 51 / 101}
    )
    assert row["average_precision"] == pytest.approx(0.75 * 51 / 101)
    confusion = {(one["name"], one["prediction_name"]): one["n"] for one in found["confusion"]}
    assert confusion == {
        ("cat", "cat"): 1,
        ("dog", "dog"): 1,
        ("dog", "cat"): 1,
        ("(background)", "dog"): 1,
        ("cat", "(background)"): 1,
    }


def test_suspects_and_worst_pictures(run, capsys):
    found = asked(capsys, run)
    suspects = {(one["sample_id"], one["doubt"]): one for one in found["suspects"]}
    assert set(suspects) == {(2, "never_found"), (1, "made_up"), (0, "other_class")}
    assert suspects[1, "made_up"]["score"] == pytest.approx(0.95)
    assert suspects[1, "made_up"]["facts"] == {"camera": "right"}
    assert suspects[1, "made_up"]["reason"] == "dog with confidence 0.95 where no object is labelled, in 2 of 2 epochs"
    assert suspects[0, "other_class"]["times"] == suspects[0, "other_class"]["n_obs"] == 2
    worst = found["worst"]
    assert [(one["sample_id"], one["tp"], one["fp"], one["fn"]) for one in worst] == [
        (0, 1, 1, 1),
        (1, 1, 1, 0),
        (2, 0, 0, 1),
    ]
    assert [(one["epoch"], one["tp"]) for one in worst[0]["history"]] == [(1, 1), (2, 1)]
    blocks = [block for section in xaicli.open_run(run).errors().report.sections for block in section.blocks]
    (doubted,) = [block for block in blocks if isinstance(block, Table) and "Labels in doubt" in block.title]
    assert "score: the share of epochs that contradict it" in doubted.note
    page = xaicli.open_run(run).errors().html()
    assert page.count('boxes"') >= 3 or page.count(" boxes") >= 3
    assert "never" not in page.split("<body>")[0]
    assert "<img" not in xaicli.open_run(run).errors().html(no_images=True)


def test_what_says_nothing_of_objects_is_refused(run):
    opened = xaicli.open_run(run)
    assert opened.errors(epoch="1").data["epoch"].to_list() == [1]
    for words, said in (
        ({"positive": "cat"}, "--positive"),
        ({"where": "epoch = 1"}, "--where"),
        ({"where": "camera = 'left' AND epoch = 1"}, "picks pictures by their facts"),
        ({"epoch": "late"}, "--epoch 'late' is no epoch"),
    ):
        with pytest.raises(UsageError, match=said):
            opened.errors(**words)
    for words, said in (
        ({"by": "label"}, "camera"),
        ({"table": "nosuch"}, "nosuch"),
        ({"table": "metrics"}, "no objects"),
        ({"mode": "x"}, "val"),
    ):
        with pytest.raises(XaiError) as refused:
            opened.errors(**words)
        assert said in str(refused.value) + str(refused.value.hint)


def test_by_and_where_are_of_the_pictures_facts(run, capsys):
    """The left pictures hold two cats and a dog, of which a cat is found; the right one a dog, found second."""
    counts = ("n", "pictures", "tp", "fp", "fn")
    groups = {one["value"]: one for one in asked(capsys, run, "--by", "camera")["groups"]}
    assert {name: [one[key] for key in counts] for name, one in groups.items()} == {
        "left": [2, 2, 1, 1, 2],
        "right": [1, 1, 1, 1, 0],
    }
    assert (groups["left"]["precision"], groups["left"]["recall"]) == (0.5, pytest.approx(1 / 3))
    assert groups["right"]["average_precision"] == 0.5
    left = asked(capsys, run, "--where", "camera = 'left'")
    assert [left["rows"][-1][key] for key in counts[1:]] == [2, 1, 1, 2]
    assert {row["sample_id"] for row in left["worst"]} == {0, 2}
    assert left["selection"]["where"] == "camera = 'left'"
    report = xaicli.open_run(run).errors(by="camera")
    assert "By camera" in report.html()
    with pytest.raises(XaiError, match="no object of table boxes is in a picture"):
        xaicli.open_run(run).errors(where="camera = 'rear'")


@pytest.fixture
def of_two_splits(tmp_path):
    """Objects of `train` at epochs 1 to 4 and of `val` at 2 and 3."""
    collector = xaicli.BoundingBoxMetricsCollector(["cat", "dog"])
    args = {"batch_size": 3, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in run.epochs(4):
            for split in ("train", "val") if epoch in (2, 3) else ("train",):
                table = xaicli.Table(list(enumerate(TRUTH)))
                model = lambda numbers: [SAID[int(i)] for i in numbers]  # noqa: E731
                xaicli.collect_metrics(table, collector, model, run=run, split=split, dataloader_args=args)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("words", "expected", "left_out"),
    [
        ("last", {("train", 4), ("val", 3)}, []),
        ("first", {("train", 1), ("val", 2)}, []),
        ("1-3", {("train", 1), ("train", 2), ("train", 3), ("val", 2), ("val", 3)}, []),
        ("1,last", {("train", 1), ("train", 4), ("val", 3)}, []),
        ("4", {("train", 4)}, ["val is left out: --epoch 4 takes none of its epochs, 2-3"]),
    ],
)
def test_epochs_of_objects_are_chosen_in_the_words_of_samples(of_two_splits, capsys, words, expected, left_out):
    found = asked(capsys, of_two_splits, "--epoch", words)
    assert {(row["mode"], row["epoch"]) for row in found["rows"]} == expected
    assert found["selection"]["epoch"] == sorted({epoch for _, epoch in expected})
    assert [said for said in found["warnings"] if "left out" in said] == left_out
    assert (
        main(["samples", str(of_two_splits), "--table", "metrics", "--metric", "fn", "--epoch", words, "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["mode"], one["epoch"]) for row in rows for one in row["history"]} == expected
    assert main(["findings", str(of_two_splits), "--epoch", words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["mode"] for row in told["rows"]} == {mode for mode, _ in expected}
    assert [said for said in told["warnings"] if "left out" in said] == left_out


def test_splits_of_objects_are_chosen_in_the_words_of_samples(of_two_splits, capsys):
    for words, expected in (("all", {"train", "val"}), ("!train", {"val"}), ("train", {"train"})):
        found = asked(capsys, of_two_splits, "--mode", words, "--epoch", "last")
        assert {row["mode"] for row in found["rows"]} == expected
    for options, said in ((("--epoch", "9"), "recorded epochs: 1-4"), (("--mode", "test"), "train, val")):
        assert main(["errors", str(of_two_splits), *options]) == 1
        assert said in capsys.readouterr().err


def test_the_track_report_of_objects_does_not_deny_the_facts_it_shows(run):
    result = xaicli.open_run(run).report(max=1, min=0)
    cameras = {0: "left", 1: "right", 2: "left"}
    assert {row["sample_id"]: row["facts"]["camera"] for row in result.data.to_dicts()} == {0: "left"}
    suspects = result.answer.extra["suspects"].to_dicts()
    assert {row["facts"]["camera"] == cameras[row["sample_id"]] for row in suspects} == {True}
    assert not [said for said in result.answer.warnings if "facts" in said]
    (run.parent / "weather.csv").write_text("sample_id,weather\n0,rain\n1,sun\n2,snow\n")
    told = xaicli.open_run(run).report(max=1, min=0, facts=run.parent / "weather.csv")
    assert [row["facts"]["weather"] for row in told.data.to_dicts() if row["sample_id"] == 0] == ["rain", "rain"]


def test_pictures_without_any_object_have_a_group(tmp_path, capsys):
    nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    args = {"batch_size": 2, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1, 2], light=["day", "night", "night"])
        table = xaicli.Table(list(enumerate([TRUTH[0], nothing, TRUTH[2]])))
        model = lambda numbers: [[SAID[0], nothing, nothing][int(i)] for i in numbers]  # noqa: E731
        xaicli.collect_metrics(
            table, xaicli.BoundingBoxMetricsCollector(["cat", "dog"]), model, run=run, dataloader_args=args
        )
    groups = {one["value"]: one for one in asked(capsys, tmp_path / "run", "--by", "light")["groups"]}
    assert {name: (one["n"], one["tp"], one["fn"]) for name, one in groups.items()} == {
        "day": (1, 1, 1),
        "night": (2, 0, 1),
    }


def test_boxes_are_drawn_where_they_are():
    picture = Thumbnail(32, 32, 1, bytes([255]) * 32 * 32)
    drawn = with_boxes(picture, [("fn", (8, 4, 16, 12))])
    pixels = np.frombuffer(drawn.pixels, np.uint8).reshape(drawn.height, drawn.width, 3)
    k = drawn.width // 32
    blue = (pixels == (20, 100, 220)).all(axis=2)
    rows, columns = np.nonzero(blue)
    assert (rows.min() // k, columns.min() // k) == (4, 8)
    assert ((rows.max() + 1) / k, (columns.max() + 1) / k) == (12, 16)
    assert not blue[6 * k, 12 * k]
    assert with_boxes(picture, [("fn", (8, 4, 60, 12))]) is None  # the kept picture is smaller than the one seen
    assert with_boxes(picture, [("fn", (float("nan"), 4, 10, 12))]) is None


def _galleries(report: Report) -> list[Gallery]:
    return [one for part in report.sections for one in part.blocks if isinstance(one, Gallery)]


def _images(report: Report) -> dict[str, Picture]:
    cards = [card for one in _galleries(report) for card in one.cards]
    return {card.image.alt: card.image for card in cards if card.image is not None}


def test_pictures_of_objects_are_in_the_files_that_facts_name(tmp_path: Path) -> None:
    times, args = 20, {"batch_size": 3, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    large = [
        [{**one, "boxes": np.asarray(one["boxes"], float).reshape(-1, 4) * times} for one in part]
        for part in (TRUTH, SAID)
    ]
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        table = xaicli.Table(list(enumerate(large[0])), ids=[0, 1, 2], facts={"path": paths})
        collector = xaicli.BoundingBoxMetricsCollector(["cat", "dog"])
        model = lambda numbers: [large[1][int(i)] for i in numbers]  # noqa: E731
        xaicli.collect_metrics(table, collector, model, run=run, split="val", dataloader_args=args)
        run.add_metrics_data({"example_id": [0, 1], "iou": [0.1, 0.2], "epoch": [1, 1]}, name="others")
    opened = xaicli.open_run(tmp_path / "run")
    assert LEGEND not in opened.errors().html()  # no file is there: nothing is drawn
    for path in paths:
        Image.fromarray(np.full((800, 640, 3), 200, np.uint8)).save(path)
    told = opened.errors().report
    found = _images(told)
    assert set(found) == {"picture 0 with 3 boxes", "picture 1 with 2 boxes", "picture 2 with 1 box"}
    image = found["picture 2 with 1 box"]
    pixels = np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)
    rows, columns = np.nonzero((pixels == (20, 100, 220)).all(axis=2))
    across = 800 / image.height
    assert across > 1  # a file is shown smaller than it is
    corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.array(corners) * across == pytest.approx([0, 400, 200, 600], abs=across)
    for question in (opened.errors, opened.report):
        assert question().html().count(LEGEND) == 1
        assert LEGEND not in question().html(no_images=True)
    assert set(_images(opened.findings().report)) == set(found)
    assert set(_images(opened.report().report)) == set(found)
    samples = _images(opened.samples(table="metrics", metric="fp", max=3, min=0).report)
    assert {name: set(one.pixels) for name, one in samples.items()} == {f"sample {i}": {200} for i in range(3)}
    assert _images(opened.samples(table="others", metric="iou").report) == {}  # these rows are about no sample


def test_findings_are_of_the_objects(run, capsys):
    assert main(["findings", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["found"] == {"doubted_object": 3, "worst_picture": 3}
    told = {(row["finding"], row["sample_id"]): row for row in found["rows"]}
    objects = {key[1]: (row["label"], row["suggested_label"]) for key, row in told.items() if "object" in key[0]}
    assert objects == {0: (1, 0), 1: (None, 1), 2: (0, None)}  # another class, no label, never found
    assert told["doubted_object", 2]["reason"] == "cat where none of 2 epochs found anything (box 0, 20, 10, 30)"
    assert told["worst_picture", 0]["reason"] == (
        "1 of 2 objects missed, 1 made up, mean IoU 0.80; something wrong in 2 of 2 epochs"
    )
    assert told["worst_picture", 2]["reason"].startswith("1 of 1 object missed, 0 made up; ")
    assert told["doubted_object", 1]["facts"] == {"camera": "right"}
    page = xaicli.open_run(run).findings(top=1).html()
    assert "<img" in page
    assert "dog → cat?" in page or "cat → " in page or "→ dog?" in page
    with pytest.raises(UsageError, match="--burn-in"):
        xaicli.open_run(run).findings(burn_in=5)


def test_the_track_report_is_of_the_objects(run, capsys):
    assert main(["track-report", str(run), "--json", "--max", "1", "--min", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "objects"
    assert [row["average_precision"] for row in found["errors"]] == pytest.approx([0.75 * 51 / 101] * 2)
    assert {one["sample_id"] for one in found["suspects"]} == {0, 1, 2}
    histories = {row["metric"]: row for row in found["rows"]}
    assert (histories["fn"]["sample_id"], histories["fn"]["score"]) == (0, 1.0)  # of equal ones the smaller id
    page = xaicli.open_run(run).report(max=1, min=0).html()
    assert "average precision 0.379 over 3 pictures" in page
    assert "No suspects" not in page


@pytest.mark.parametrize("command", ["samples", "labels", "dynamics", "confusion", "steps", "slices", "compare"])
def test_a_question_of_samples_says_what_tells_of_objects(run, capsys, command):
    assert main([command, str(run), *([str(run)] if command == "compare" else [])]) == 1
    said = capsys.readouterr().err
    assert "xai errors" in said
    assert "xai samples --table metrics" in said.replace("\n", " ")


def test_equal_suspects_come_by_their_ids_as_numbers(tmp_path):
    truth = [{"boxes": [[0, 0, 10, 10]], "labels": [0]} for _ in range(12)]
    nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    args = {"batch_size": 12, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(tmp_path / "run") as run:
        collector = xaicli.BoundingBoxMetricsCollector(["cat"])
        model = lambda numbers: [nothing for _ in numbers]  # noqa: E731
        table = xaicli.Table(list(enumerate(truth)))
        xaicli.collect_metrics(table, collector, model, run=run, split="val", dataloader_args=args)
    found = xaicli.open_run(tmp_path / "run").errors().answer.extra["suspects"]
    assert found["sample_id"].to_list() == list(range(12))


@pytest.fixture
def both(run):
    """The same run with rows of samples beside."""
    with xaicli.Run(run) as recorded:
        for epoch in (1, 2):
            recorded.log_samples(sample_id=[0, 1, 2], label=[0, 1, 0], loss=[0.1, 3.0, 0.2], mode="eval", epoch=epoch)
    return run


def test_findings_of_samples_have_those_of_objects_beside(both, capsys):
    assert main(["findings", str(both), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    objects = [row for row in found["rows"] if row["finding"] == "doubted_object"]
    assert {(row["sample_id"], row["label"], row["suggested_label"]) for row in objects} == {
        (0, 1, 0),
        (1, None, 1),
        (2, 0, None),
    }
    assert found["found"]["doubted_object"] == 3
    assert found["found"]["worst_picture"] == 3
    assert {row["mode"] for row in objects} == {"val"}
    page = xaicli.open_run(both).findings().html()
    assert "Objects whose labels are in doubt" in page
    assert page.count("boxes</title>") + page.count("with 1 box") + page.count("with 2 boxes") > 0


def test_what_chooses_rows_says_that_it_does_not_choose_objects(both):
    result = xaicli.open_run(both).findings(mode="eval")
    assert "doubted_object" not in result.data["finding"]
    assert "xai errors --table boxes tells of these" in " ".join(result.answer.warnings)


def test_the_track_report_tells_of_samples_and_objects(both, tmp_path):
    result = xaicli.open_run(both).report()
    result.save(tmp_path / "pages")
    told = json.loads((tmp_path / "pages" / "report.json").read_text())
    assert next((row["sample_id"], row["label"]) for row in told["rows"] if row["group"] == "max") == (1, 1)
    row = told["objects"]["rows"][-1]
    assert (row["tp"], row["fp"], row["fn"]) == (2, 2, 2)
    assert {one["sample_id"] for one in told["objects"]["worst"]} == {0, 1, 2}
    assert "What was found, missed and made up" in result.html()
    ids = re.findall(r'\bid="([^"]+)"', result.html())
    assert len(ids) == len(set(ids))


def test_pictures_without_any_object_are_counted(tmp_path, capsys):
    nothing = {"boxes": np.zeros((0, 4)), "labels": []}
    truth = [TRUTH[0], nothing, nothing, {**TRUTH[2], "iscrowd": [1]}]
    said = [{**one, "scores": one.get("scores", [])} for one in (SAID[0], nothing, SAID[1], nothing)]
    args = {"batch_size": 2, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(tmp_path / "run") as run:
        collector = xaicli.BoundingBoxMetricsCollector(["cat", "dog"])
        model = lambda numbers: [said[int(i)] for i in numbers]  # noqa: E731
        for split in ("val", "test"):
            table = xaicli.Table(list(enumerate(truth))[: 4 if split == "val" else 1])
            xaicli.collect_metrics(table, collector, model, run=run, split=split, dataloader_args=args)
    rows = {row["mode"]: row for row in asked(capsys, tmp_path / "run")["rows"]}
    assert {mode: (row["pictures"], row["empty"]) for mode, row in rows.items()} == {"val": (4, 2), "test": (1, 0)}
    page = xaicli.open_run(tmp_path / "run").errors(mode="val").html()
    assert "over 4 pictures: 1 found, 1 missed, 3 made up; 2 pictures without any object that counts" in page


def test_errors_of_samples_name_the_table_of_objects(both, capsys):
    assert main(["errors", str(both)]) == 1
    assert "xai errors --table boxes" in capsys.readouterr().err.replace("\n", " ")
    with xaicli.Run(both) as recorded:
        recorded.log_samples(
            sample_id=[0, 1, 2], label=[0, 1, 0], prediction=[0, 0, 0], top_prob=[0.9, 0.6, 0.7], mode="eval", epoch=3
        )
    found = asked(capsys, both)
    assert found["task"] == "binary"
    assert [said for said in found["warnings"] if "xai errors --table boxes" in said]
    assert asked(capsys, both, "--table", "boxes")["task"] == "objects"


@pytest.mark.parametrize("command", ["samples", "errors", "findings", "slices", "track-report", "export"])
def test_a_run_of_other_tables_alone_says_what_tells_of_them(tmp_path, capsys, command):
    with xaicli.Run(tmp_path / "run") as run:
        run.add_metrics({"example_id": [0, 1], "mean_iou": [0.5, 0.7]}, name="pictures")
    assert main([command, str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert "holds no rows of samples" in said
    hint = " ".join(said.partition("hint:")[2].split())
    assert hint == "of its tables (pictures): xai samples --table pictures, xai query"
    assert main(["query", str(tmp_path / "run"), "SELECT count(*) AS n FROM pictures", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"n": 2}]
    assert main(["samples", str(tmp_path / "run"), "--table", "pictures", "--metric", "mean_iou", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["score"] == 0.7


def test_a_table_is_asked_by_what_its_rows_hold(tmp_path, capsys):
    vectors = np.zeros((2, 2), np.float32)
    ids = {"sample_id": [0, 1]}
    held = {
        "metrics": (ids | {"vector": vectors}, ["xai embeddings"]),
        "others": (ids | {"vector": vectors}, ["xai embeddings --table others"]),
        "several": (ids | {"worst": [0.1, 0.2], "best": [1, 2]}, ["xai samples --table several --metric worst"]),
        "lost": (ids | {"a": [1, 2], "loss": [1.0, 2.0]}, ["xai samples --table lost"]),
        "of text": (ids | {"said": ["a", "b"]}, []),
    }
    for name, (columns, ways) in held.items():
        with xaicli.Run(tmp_path / name) as run:
            run.add_metrics_data(columns, name=name)
        with xaicli.Run(tmp_path / "all") as run:
            run.add_metrics_data(columns, name=name)
        assert main(["slices", str(tmp_path / name)]) == 1
        hint = " ".join(capsys.readouterr().err.replace("\n", " ").partition("hint:")[2].split())
        assert hint == f"of its tables ({name}): {', '.join([*ways, 'xai query'])}"
        for way in ways:
            words = shlex.split(way)[1:]
            assert main([words[0], str(tmp_path / name), *words[1:], "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["rows"]
        if not any("samples" in way for way in ways):
            assert main(["samples", str(tmp_path / name), "--table", name]) == 1
            said = " ".join(capsys.readouterr().err.split())
            assert "has no metrics, by which samples could be ranked" in said
            assert said.endswith(f"hint: of it: {', '.join([*ways, 'xai query'])}")
    assert main(["info", str(tmp_path / "all"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tables"]
    assert {table["name"]: table["ask"] for table in told} == {name: ways for name, (_, ways) in held.items()}
    assert main(["info", str(tmp_path / "all")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "xai embeddings --table others" in shown
    assert "--table NAME" not in shown


@pytest.mark.parametrize("of_file", [False, True])
def test_facts_called_like_columns_of_rows_are_told_where_there_are_no_rows(tmp_path, capsys, of_file):
    file, run = tmp_path / "f.csv", recorded(tmp_path / "run", TRUTH, [SAID], ids=[0, 1, 2])
    file.write_text("sample_id,epoch,step\n0,4,x\n1,5,y\n2,5,z\n")
    if not of_file:
        with xaicli.Run(run) as again:
            again.log_facts(facts=file)
    more = ["--facts", str(file)] if of_file else []
    said = [f"the fact {name} is called fact_{name}: a column of the rows has its name" for name in ("epoch", "step")]
    samples = ["samples", "--table", "metrics", "--metric", "fp"]
    for command in (["errors"], ["errors", "--by", "fact_epoch"], ["findings"], ["track-report"], samples):
        assert main([*command, str(run), *more, "--json", "-o", str(tmp_path / "out")]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [words for words in told["warnings"] if "is called" in words] == said
    assert main(["errors", str(run), *more, "--by", "epoch"]) == 1
    assert "did you mean fact_epoch?" in capsys.readouterr().err


def recorded(folder, truth, said, collector=None, ids=None):
    """A run of as many epochs as `said` has lists, each with what is told of the pictures of `truth`."""
    args = {"batch_size": len(truth), "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(folder, label_names=["cat", "dog"]) as run:
        for epoch in run.epochs(len(said)):
            of_epoch = said[epoch - 1]
            table = xaicli.Table(list(enumerate(truth)), ids=ids)
            model = lambda numbers, own=of_epoch: [own[int(i)] for i in numbers]  # noqa: E731
            one = collector or xaicli.BoundingBoxMetricsCollector(["cat", "dog"])
            xaicli.collect_metrics(table, one, model, run=run, split="val", dataloader_args=args)
    return folder


def test_a_sure_box_in_a_crowd_of_another_class_is_not_said_to_be_where_no_label_is(tmp_path):
    """A crowd is a label, though no object's."""
    truth = {"boxes": [[0, 0, 30, 30]], "labels": [0], "iscrowd": [1]}
    said = {"boxes": [[5, 5, 12, 12]], "labels": [1], "scores": [0.9]}
    found = recorded(tmp_path / "run", [truth], [[said]] * 2)
    (row,) = pl.DataFrame(xaicli.open_run(found).errors().answer.extra["suspects"]).to_dicts()
    assert (row["doubt"], row["reason"]) == (
        "made_up",
        "dog with confidence 0.90 where no object is labelled, in 2 of 2 epochs",
    )


def shifted(by, label=0, score=0.9):
    return {"boxes": [[20 + by, 20, 30 + by, 40]], "labels": [label], "scores": [score]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (shifted(4), ("badly_placed", 0.9 * (1 - 6 / 14), 5, None)),  # 6 of 14 columns are shared
        (shifted(8), ("badly_placed", 0.9 * (1 - 2 / 18), 5, None)),
        (shifted(4, label=1), ("badly_placed", 0.9 * (1 - 6 / 14), 5, None)),
        (shifted(2, label=1), ("other_class", 1.0, 5, 1)),  # 8 of 12
        (shifted(4, score=0.4), ("never_found", 1.0, 5, None)),
        (shifted(12), ("never_found", 1.0, 5, None)),
        (shifted(2), None),  # found
    ],
)
def test_a_box_beside_an_object_tells_of_it(tmp_path, said, expected):
    found = recorded(tmp_path / "run", [{"boxes": [[20, 20, 30, 40]], "labels": [0]}], [[said]] * 5)
    suspects = xaicli.open_run(found).errors().answer.extra["suspects"]
    own = [one for one in pl.DataFrame(suspects).to_dicts() if one["doubt"] != "made_up"]
    told = [(one["doubt"], one["score"], one["times"], one.get("suggested")) for one in own]
    assert told == ([] if expected is None else [(expected[0], pytest.approx(expected[1], abs=1e-6), *expected[2:])])
    reasons = {
        0.4: "cat where none of 5 epochs was sure of anything",
        0.9: "cat where none of 5 epochs found anything",
    }
    if expected and expected[0] == "never_found":
        assert own[0]["reason"] == reasons[said["scores"][0]]
    if expected and expected[0] == "badly_placed":
        name = ["cat", "dog"][said["labels"][0]]
        iou = {4: "0.43", 8: "0.11"}[said["boxes"][0][0] - 20]
        assert own[0]["reason"] == f"cat that no epoch found; 5 of 5 placed {name} off it, IoU {iou} at most"


def test_a_stricter_match_makes_no_other_class_of_the_same(tmp_path):
    collector = xaicli.BoundingBoxMetricsCollector(["cat", "dog"], iou_threshold=0.75)
    truth = [{"boxes": [[20, 20, 30, 40]], "labels": [0]}]
    found = recorded(tmp_path / "run", truth, [[shifted(2)]] * 3, collector)
    told = xaicli.open_run(found).errors().answer.extra["suspects"].to_dicts()
    assert [(one["doubt"], one["score"]) for one in told] == [("badly_placed", pytest.approx(0.9 * 4 / 12, abs=1e-6))]


def test_what_few_epochs_placed_off_an_object_makes_no_suspect_of_it(tmp_path):
    nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    truth = [{"boxes": [[20, 20, 30, 40]], "labels": [0]}]
    found = recorded(tmp_path / "run", truth, [[shifted(4)], [nothing], [nothing], [nothing]])
    assert len(xaicli.open_run(found).errors().answer.extra["suspects"]) == 0


def test_what_stands_for_another_object_tells_of_that_alone(tmp_path):
    """The same object recorded twice, and one of another class at the place of one that was found."""
    here = [[20, 20, 30, 40], [20, 20, 30, 41]]
    truth = [{"boxes": here, "labels": [0, 0]}, {"boxes": here, "labels": [0, 1]}]
    found = recorded(tmp_path / "run", truth, [[shifted(0), shifted(0)]] * 3)
    told = xaicli.open_run(found).errors().answer.extra["suspects"].to_dicts()
    assert [(one["sample_id"], one["doubt"], one["instance_id"]) for one in told] == [
        (0, "never_found", 1),
        (1, "never_found", 1),
    ]
    after = "that none of 3 epochs found; what was found there stands for another object"
    assert [one["reason"] for one in told] == [f"cat {after}", f"dog {after}"]


def test_a_badly_placed_box_goes_to_people_and_comes_back_moved(tmp_path):
    truth = [{"boxes": [[20, 20, 30, 40]], "labels": [0]}, {"boxes": [[20, 20, 30, 40]], "labels": [0]}]
    run = xaicli.open_run(recorded(tmp_path / "run", truth, [[shifted(4), shifted(4)]] * 2))
    run.relabel_export(tmp_path / "boxes.csv", to="csv")
    rows = pl.read_csv(tmp_path / "boxes.csv", infer_schema=False)
    assert rows["doubt"].to_list() == ["badly_placed", "badly_placed"]
    moved = pl.when(pl.col("sample_id") == "0")
    rows = rows.with_columns(moved.then(pl.lit("24")).otherwise("x0").alias("x0"), checked=pl.lit("true"))
    rows.with_columns(moved.then(pl.lit("34")).otherwise("x1").alias("x1")).write_csv(tmp_path / "back.csv")
    judged = run.relabel_apply(tmp_path / "back.csv").answer.extra["suspects"]
    assert [(one["doubt"], one["looked_at"], one["wrong"]) for one in judged] == [("badly_placed", 2, 1)]


def test_pictures_collected_without_ids_stay_apart_beside_those_with_some(tmp_path, capsys):
    """Each picture of the first table counts, and its objects are doubted, whatever the ids of the second are."""
    for name, ids in (("numbers", [100, 101, 102]), ("texts", ["a.png", "b.png", "c.png"])):
        path = tmp_path / name
        with xaicli.Run(path, label_names=["cat", "dog"]) as run:
            for split, given in (("val", {}), ("extra", {"ids": ids})):
                xaicli.collect_metrics(
                    xaicli.Table(list(enumerate(TRUTH)), **given),
                    xaicli.BoundingBoxMetricsCollector(["cat", "dog"]),
                    lambda numbers: [SAID[int(i)] for i in numbers],
                    run=run,
                    split=split,
                    constants={"epoch": 1},
                    dataloader_args={"collate_fn": lambda rows: tuple(zip(*rows, strict=True))},
                )
        found = asked(capsys, path)
        told = {row["mode"]: [row[n] for n in ("pictures", "tp", "fp", "fn")] for row in found["rows"]}
        assert told == {"val": [3, 2, 2, 2], "extra": [3, 2, 2, 2]}
        kind = str if name == "texts" else int
        for mode, expected in (("val", {kind(0), kind(2)}), ("extra", {ids[0], ids[2]})):
            missed = {row["sample_id"] for row in found["suspects"] if row["mode"] == mode and row["source"] == "gt"}
            assert missed == expected
