"""Kept pictures to labelling tools and back, where a tool keeps nothing but a picture's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import xaicli
from xaicli.errors import XaiError
from xaicli.relabel.tasks import picture_names, sample_of_picture

NAMES = ["cat", "dog", "owl"]
IDS = ["7", "a/b.png", "A/b.png", "x-y_z", "", "é 漢", "long " * 60, "_41"]
PLACES = [("train", ""), ("eval", "night-1"), ("eval", "day")]


@pytest.fixture(scope="module", params=["number", "text", "set"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """The same ids in three data sets, pictures of each, no fact that says where."""
    path = tmp_path_factory.mktemp("pictures") / "run"
    ids: list[Any] = list(range(8)) if request.param == "number" else IDS
    how = {"task": "multilabel"} if request.param == "set" else {}
    with xaicli.Run(path, label_names=NAMES, **how) as run:
        for mode, ds_id in PLACES:
            label: Any = [i % 3 for i in range(8)]
            if request.param == "set":
                label = [[i % 3] for i in range(8)]
            run.log_samples(sample_id=ids, label=label, loss=np.arange(8.0), mode=mode, ds_id=ds_id, epoch=1, step=1)
        run.log_images(ids, np.zeros((8, 4, 4, 3), np.uint8))
    return xaicli.open_run(path)


def cvat(folder: Path, wanted: dict[str, list[str]]) -> Path:
    """As CVAT writes it where every tag was deleted and, but for those without a label, made anew."""
    tree = ElementTree.parse(folder / "x.xml")
    for image in tree.getroot().iter("image"):
        for tag in list(image):
            image.remove(tag)
        for name in wanted[str(image.get("name"))]:
            ElementTree.SubElement(image, "tag", label=name, source="manual")
    tree.write(folder / "back.xml")
    return folder / "back.xml"


def coco(folder: Path, wanted: dict[str, list[str]]) -> Path:
    found = json.loads((folder / "x.json").read_text())
    number = {one["name"]: one["id"] for one in found["categories"]}
    images = [{"id": one["id"], "file_name": one["file_name"].split("/")[-1]} for one in found["images"]]
    assert not any("/" in one["file_name"] for one in found["images"])
    annotations = [
        {"id": 100 * one["id"] + n, "image_id": one["id"], "category_id": number[name], "bbox": [0, 0, 4, 4]}
        for one in found["images"]
        for n, name in enumerate(wanted[one["file_name"]])
    ]
    back = {"images": images, "annotations": annotations, "categories": found["categories"]}
    (folder / "back.json").write_text(json.dumps(back))
    return folder / "back.json"


def fiftyone(folder: Path, wanted: dict[str, list[str]]) -> Path:
    """As FiftyOne exports it: keyed by the stem of the picture's file."""
    labels: dict[str, Any] = {}
    for path, names in wanted.items():
        labels[Path(path).stem] = [NAMES.index(name) for name in names]
    if all(len(names) == 1 for names in wanted.values()):
        labels = {key: value[0] for key, value in labels.items()}
    (folder / "labels.json").write_text(json.dumps({"classes": NAMES, "labels": labels}))
    return folder / "labels.json"


def label_studio(folder: Path, wanted: dict[str, list[str]]) -> Path:
    """Pictures that were uploaded, and whose tasks were made anew."""
    tasks = []
    for number, (path, names) in enumerate(wanted.items()):
        value = {"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": names}}
        image = f"/data/upload/3/{number:08x}-{Path(path).name}"
        tasks.append({"id": number, "data": {"image": image}, "annotations": [{"result": [value] if names else []}]})
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return folder / "tasks.json"


@pytest.mark.parametrize(
    ("to", "suffix", "tool"),
    [
        ("cvat", ".xml", cvat),
        ("coco", ".json", coco),
        ("coco", ".json", fiftyone),
        ("label-studio", ".json", label_studio),
    ],
)
def test_every_sample_comes_back_by_the_name_of_its_picture(
    run: xaicli.RunReader, tmp_path: Path, to: str, suffix: str, tool: Any
) -> None:
    made = run.relabel_export(tmp_path / f"x{suffix}", to=to, rule="loss >= 0", mode="all", pictures=True)
    pictures = sorted((tmp_path / "x-pictures").iterdir())
    assert len({picture.name.lower() for picture in pictures}) == len(pictures) == 24
    text = (tmp_path / f"x{suffix}").read_text(encoding="utf-8")
    before = "x-pictures/" if to == "label-studio" else ""  # the others name pictures within their folder
    assert all(f'"{before}{picture.name}"' in text for picture in pictures)
    are_sets = isinstance(made.data["label"].to_list()[0], list)
    # Each sample of each data set gets another label than it had; of sets the first of each data set gets none.
    ids = list(dict.fromkeys(made.data["sample_id"]))
    expected, wanted = {}, {}
    for number, row in enumerate(made.data.iter_rows(named=True)):
        old = row["label"][0] if are_sets else row["label"]
        names = [NAMES[(old + 1 + number % 2) % 3]]
        if are_sets and row["sample_id"] == ids[0] and tool is cvat:
            names = []
        path = next(
            f"{before}{name}"
            for name in picture_names([(row["mode"], row["ds_id"], one) for one in ids])
            if sample_of_picture(name) == (row["mode"], row["ds_id"], str(row["sample_id"]))
            or (len(str(row["sample_id"])) > 180 and "-_h" in name)
        )
        wanted[path] = names
        label: Any = [NAMES.index(name) for name in names] if are_sets else NAMES.index(names[0])
        if names:
            expected[row["mode"], row["ds_id"], row["sample_id"]] = label
    assert len(wanted) == 24
    back = run.relabel_apply(tool(tmp_path, wanted))
    found = {(row["mode"], row["ds_id"], row["sample_id"]): row["label"] for row in back.data.iter_rows(named=True)}
    assert found == expected
    # A picture without any tag is known again, and nobody is said to have named no sample of the run.
    without = [row["reason"] for row in back.answer.extra["left_out"]]
    assert without == (["handed in without a label"] if len(expected) < 24 else [])


def test_names_of_pictures_are_safe_and_come_back() -> None:
    ids = [*IDS, "..", "CON", "a\\b", "a:b?*", "\n", "İ", "ı", "%41", "a b", "A B", "\udc80"]
    samples = [(mode, ds_id, one) for mode, ds_id in PLACES for one in ids]
    names = picture_names(samples)
    assert len({name.lower() for name in names}) == len(samples)
    for name, (mode, ds_id, one) in zip(names, samples, strict=True):
        assert len(name) < 240
        assert set(name.removesuffix(".png")) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        for back in (name, name.replace(".png", ".jpg"), name.removesuffix(".png"), f"0a1b2c3d-{name}"):
            told = sample_of_picture(back)
            assert told is not None
            assert told[:2] == (mode, ds_id)
            assert told[2] == one or (len(one) > 180 and told[2][:2] == "_h")
    assert picture_names([("train", "", 42)]) == ["xai-train--42.png"]
    for other in (
        "000001.png",
        "xai-train-42.png",
        "my-xai-train--42.png",
        "xai-train--4_zz.png",
        "xai-train--_ff.png",
    ):
        assert sample_of_picture(other) is None


def test_a_picture_and_an_id_of_different_samples_are_refused(run: xaicli.RunReader, tmp_path: Path) -> None:
    ids = run.samples(mode="train", max=2, min=0).data["sample_id"].to_list()
    (name,) = picture_names([("train", "", ids[0])])
    rows = [{"sample_id": ids[1], "image": name, "label": "cat"}, {"sample_id": ids[0], "image": name, "label": "dog"}]
    (tmp_path / "back.json").write_text(json.dumps(rows))
    back = run.relabel_apply(tmp_path / "back.json")
    assert [row["reason"] for row in back.answer.extra["left_out"]] == [
        "its id and its picture are of different samples"
    ]
    assert back.data.select("mode", "sample_id").rows() == [("train", ids[0])]


def test_samples_without_a_picture_come_back_by_what_they_are_called(tmp_path: Path) -> None:
    """Where nothing says where pictures are, a file's name is the id: tools that keep it alone bring it back."""
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as run:
        run.log_samples(sample_id=["a/1.png", " b", "c"], label=[0, 1, 2], loss=[3.0, 2.0, 1.0], mode="train", epoch=1)
    reader = xaicli.open_run(tmp_path / "run")
    names = ["a/1.png", '" b"', "c"]
    reader.relabel_export(tmp_path / "x.json", to="coco", rule="loss > 0")
    assert [one["file_name"] for one in json.loads((tmp_path / "x.json").read_text())["images"]] == names
    reader.relabel_export(tmp_path / "x.xml", to="cvat", rule="loss > 0")
    back = reader.relabel_apply(cvat(tmp_path, {name: ["owl"] for name in names}))
    assert set(back.data.select("sample_id", "label").iter_rows()) == {("a/1.png", 2), (" b", 2), ("c", 2)}


def test_tasks_that_nobody_has_labelled_are_told_as_such(run: xaicli.RunReader, tmp_path: Path) -> None:
    """The file to import, given in place of what the tool exports."""
    run.relabel_export(tmp_path / "tasks.json", to="label-studio", rule="loss >= 0", mode="all")
    with pytest.raises(XaiError, match="tasks that were not labelled yet"):
        run.relabel_apply(tmp_path / "tasks.json")


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """Ten samples, all answered 1: a path for 0 to 3 (of 4 an empty one), a thumbnail of 4 and 5."""
    path = tmp_path_factory.mktemp("partly") / "run"
    with xaicli.Run(path, label_names=NAMES) as run:
        run.log_facts(range(5), path=[*(f"img/{i}.jpg" for i in range(4)), ""])
        label = [i % 3 for i in range(10)]
        run.log_samples(sample_id=range(10), label=label, prediction=[1] * 10, loss=np.arange(10.0), mode="train")
        run.log_images([4, 5], np.zeros((2, 4, 4, 3), np.uint8))
    return xaicli.open_run(path)


@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.parametrize("tool", ["label-studio", "cvat", "fiftyone", "coco", "csv"])
def test_samples_without_a_picture_are_told_and_no_tool_is_given_them(
    partly: xaicli.RunReader, tmp_path: Path, tool: str, pictures: bool
) -> None:
    name = {"cvat": "x.xml", "fiftyone": "x", "csv": "x.csv"}.get(tool, "x.json")
    found = partly.relabel_export(tmp_path / name, to=tool, rule="loss >= 0", pictures=pictures, mode="train")
    having, lacking = (6, 4) if pictures else (4, 6)
    assert sum(f"{lacking} of 10 samples have no picture" in one for one in found.answer.warnings) == 1
    in_file = 10 if tool == "csv" else having
    assert found.answer.extra["in_file"] == in_file
    assert found.report.sentence.startswith("10 samples" if tool == "csv" else f"{having} of 10 samples")
    text = (tmp_path / ("x/labels.json" if tool == "fiftyone" else name)).read_text()
    match tool:
        case "label-studio":
            pictured = [one["data"]["image"] for one in json.loads(text)]
        case "cvat":
            pictured = [one.attrib["name"] for one in ElementTree.fromstring(text).iter("image")]
        case "coco":
            pictured = [one["file_name"] for one in json.loads(text)["images"]]
        case "fiftyone":
            pictured = list(json.loads((tmp_path / "x/data.json").read_text()).values())
            assert len(json.loads(text)["labels"]) == having
        case _:
            assert len(text.splitlines()) == 11  # a table takes them all
            return
    assert len(pictured) == having
    assert all(one.endswith((".jpg", ".png")) for one in pictured)
    assert {one for one in pictured if one.endswith(".jpg")} == {f"img/{i}.jpg" for i in range(4)}
    told_from = {"cvat": "x-pictures", "coco": "x-pictures", "fiftyone": "x"}.get(tool, "")
    assert all((tmp_path / told_from / one).is_file() for one in pictured if one.endswith(".png"))


@pytest.mark.parametrize("rule", ["hardest", "random", "loss >= 0", None])
def test_what_is_suggested_is_told_as_a_label_too(partly: xaicli.RunReader, tmp_path: Path, rule: str | None) -> None:
    """The model's last answer, 1 of all, where the label is another."""
    how: dict[str, Any] = {"ids": range(10)} if rule is None else {"rule": rule}
    if rule in ("hardest", "random"):
        how["n"] = 10
    found = partly.relabel_export(tmp_path / "x.csv", to="csv", mode="train", **how)
    rows = json.loads(found.to_json())["rows"]
    assert {row["sample_id"]: (row["suggested_label"], row["suggested"]) for row in rows} == {
        i: (None, None) if i % 3 == 1 else (1, "dog") for i in range(10)
    }


def test_fiftyone_finds_pictures_from_its_list_on(run: xaicli.RunReader, tmp_path: Path) -> None:
    """It takes a relative path as one from the folder of the list on, wherever it is started."""
    run.relabel_export(tmp_path / "set", to="fiftyone", rule="loss >= 0", mode="train", pictures=True)
    listed = json.loads((tmp_path / "set" / "data.json").read_text(encoding="utf-8"))
    assert len(listed) == 8
    assert all((tmp_path / "set" / path).is_file() for path in listed.values())
    run.relabel_export(tmp_path / "set", to="fiftyone", rule="loss >= 0", mode="train", pictures=True, prefix="/mnt/")
    listed = json.loads((tmp_path / "set" / "data.json").read_text(encoding="utf-8"))
    assert all(path.startswith("/mnt/set-pictures/xai-train-") for path in listed.values())


def test_fiftyone_is_told_whole_paths_of_pictures_that_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("L", (3, 2)).save(tmp_path / "pictures" / "0.png")
    monkeypatch.chdir(tmp_path)
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as run:
        run.log_facts([0, 1], path=["pictures/0.png", "elsewhere/1.png"])
        run.log_samples(sample_id=[0, 1], label=[0, 1], loss=[1.0, 2.0], mode="train", epoch=1)
    xaicli.open_run("run").relabel_export("out/set", to="fiftyone", ids=[0, 1], mode="train")
    listed = json.loads((tmp_path / "out" / "set" / "data.json").read_text())
    assert set(listed.values()) == {str(tmp_path / "pictures" / "0.png"), "elsewhere/1.png"}


def test_pictures_of_one_id_in_several_data_sets_are_each_their_own(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as run:
        for shade, (mode, ds_id) in enumerate(PLACES):
            pictures = np.full((2, 4, 4, 3), 100 * shade, np.uint8)
            for ids, x in run.steps([(np.arange(2), pictures)], mode=mode, ds_id=ds_id):
                run.log_samples(sample_id=ids, label=[0, 1], loss=[1.0, 2.0], epoch=1, step=1)
                if ds_id == "day":
                    run.log_inputs(ids, x)
                else:
                    run.log_images(ids, x)
    opened = xaicli.open_run(tmp_path / "run")
    opened.relabel_export(tmp_path / "x.csv", to="csv", rule="loss >= 0", mode="all", pictures=True)
    shades = {}
    for picture in (tmp_path / "x-pictures").iterdir():
        with Image.open(picture) as shown:
            shades[sample_of_picture(picture.name)] = int(np.asarray(shown).mean())
    assert shades == {(*place, str(n)): 100 * shade for shade, place in enumerate(PLACES) for n in range(2)}
