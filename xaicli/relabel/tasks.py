"""What is given to people who label, in the formats of their tools."""

from __future__ import annotations

import contextlib
import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, assert_never
from xml.etree import ElementTree

from xaicli.tables.cells import csv_line
from xaicli.tables.labels import Spelt
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID, fact_columns

FIFTYONE_PICTURES = 'FiftyOne finds the pictures by their list: Dataset.from_dir(..., data_path="data.json")'
CONTROL = "label"
"""What the choice is called in a labelling tool; what comes back is looked for under this name."""
CHECKED = "checked"
"""The attribute by which people say that they looked at a sample whose label they leave as it is."""


class Tool(StrEnum):
    """Whose format is written."""

    LABEL_STUDIO = "label-studio"
    CVAT = "cvat"
    FIFTYONE = "fiftyone"
    COCO = "coco"
    CSV = "csv"


@dataclass(frozen=True)
class Box:
    """One object in a picture.

    Attributes:
        label: The name of its class.
        corners: x0, y0, x1, y1 in pixels.
        number: Of a recorded object, its number in the picture; None of one that the model proposes.
        is_crowd: Whether it stands for a group; None where a file that came back cannot tell.
        doubt: Why it is looked at, in a word: never_found, other_class, badly_placed, made_up; "" where nothing is.
        suggested: The class it might be of instead; "" for none.
        score: How sure the doubt is; None without one.
        reason: The doubt in words.
        is_checked: Of one that came back, whether somebody said that they looked; None where the file cannot tell.
        in_shares: Whether the corners are shares of the picture's width and height.
        spelt: Whether the file tells names of classes from their numbers.
        called: What it says beside the label that its class is called; "" where it does not.
    """

    label: str
    corners: tuple[float, float, float, float]
    number: int | None = None
    is_crowd: bool | None = False
    doubt: str = ""
    suggested: str = ""
    score: float | None = None
    reason: str = ""
    is_checked: bool | None = None
    in_shares: bool = False
    spelt: Spelt = Spelt.NAME
    called: str = ""


@dataclass(frozen=True)
class Task:
    """One sample to look at.

    Attributes:
        sample_id: The sample.
        mode: Where it was recorded.
        ds_id: Likewise.
        labels: Its recorded label by name: one, none, or several of a set of classes.
        suggested: What it might be instead, likewise.
        suggested_label: The same as the run spells labels; None without.
        score: How sure that is; None where it is the model's last answer.
        reason: Why it is shown.
        path: Where its picture is; None where nobody said.
        size: Width and height of the picture, where it can be opened.
        facts: What else is known of it.
        boxes: The objects in it, where samples are pictures of several.
    """

    sample_id: Any
    mode: str
    ds_id: str
    labels: tuple[str, ...]
    suggested: tuple[str, ...] = ()
    suggested_label: Any = None
    score: float | None = None
    reason: str = ""
    path: str | None = None
    size: tuple[int, int] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    boxes: Sequence[Box] = ()


@dataclass(frozen=True)
class Batch:
    """The tasks of one export.

    Attributes:
        tasks: The samples, the first to look at first.
        classes: The names of all labels there are; empty where labels are numbers.
        is_set: Whether a sample can have several labels.
        made_by: What the suggestions are from.
        of_boxes: Whether it is the objects in the pictures that are looked at.
    """

    tasks: Sequence[Task]
    classes: Sequence[str]
    is_set: bool = False
    made_by: str = "xai"
    of_boxes: bool = False


def files_of(batch: Batch, tool: Tool, stem: str) -> dict[str, str]:
    """The files of an export, {name: text}; a name may hold a folder.

    Args:
        batch: What is to be looked at.
        tool: Whose format.
        stem: What the files are called, without a suffix.
    """
    match tool:
        case Tool.LABEL_STUDIO:
            called = facts_called(batch, tool)
            return {
                f"{stem}.json": dumped([_label_studio(task, batch, called) for task in batch.tasks]),
                f"{stem}.xml": _config(batch),
            }
        case Tool.CVAT:
            return {
                f"{stem}.xml": _cvat(batch),
                f"{stem}-labels.json": dumped([_cvat_label(name) for name in batch.classes]),
            }
        case Tool.FIFTYONE:
            return _fiftyone(batch, stem)
        case Tool.COCO:
            return {f"{stem}.json": dumped(_coco(batch))}
        case Tool.CSV:
            return {f"{stem}.csv": _csv(batch)}
        case _:
            assert_never(tool)


_OF_STUDIO = (
    *(SAMPLE_ID, MODE, DS_ID, "image", "recorded_label", "suggested_label", "reason", CONTROL, "choice"),
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"),
)
"""What a task says beside the facts, and what Label Studio puts beside them in JSON_MIN and CSV."""
_OF_TABLE = (
    *(SAMPLE_ID, "path", "recorded_label", "suggested_label", LABEL, "by", "when", "score", "reason"),
    *(MODE, DS_ID),
)
"""The columns of the table that are no facts."""
CORNERS = ("x0", "y0", "x1", "y1")
MARKS = ("number", "doubt", "suggested", "score", "reason")
"""What is said of a box beside its class and corners."""
TABLE_OF_BOXES = (SAMPLE_ID, MODE, "path", LABEL, *CORNERS, "crowd", CHECKED, "by", "when", *MARKS)
"""The columns of a table of boxes that are no facts."""


def facts_called(batch: Batch, tool: Tool) -> dict[str, str]:
    """{fact: what it is called} in the files of a tool that has a place for facts; none in those of others.

    A fact that repeats where the picture is, is left out.
    """
    own: tuple[str, ...]
    match tool:
        case Tool.LABEL_STUDIO:
            own, picture = _OF_STUDIO, "image"
        case Tool.CSV:
            # By annotation_id a table is known to be of Label Studio; name and ds_id are read in one of boxes, too.
            columns = (*TABLE_OF_BOXES, "name", DS_ID) if batch.of_boxes else _OF_TABLE
            own, picture = (*columns, "annotation_id"), "path"
        case Tool.CVAT | Tool.FIFTYONE | Tool.COCO:
            return {}
        case _:
            assert_never(tool)
    names = dict.fromkeys(key for task in batch.tasks for key in task.facts)
    told = [name for name in names if name != picture or any(_is_apart(task, name) for task in batch.tasks)]
    return fact_columns(told, own)


def _is_apart(task: Task, name: str) -> bool:
    return name in task.facts and str(task.facts[name]) != task.path


def carried(sample_id: Any, *, keeps_blanks: bool = False) -> str:
    """An id as it comes back from a tool: in quotes, as JSON, where it is blank at an end or holds what is no print.

    XML, and tools that read it, drop such characters; to every tool an empty id is none.

    Args:
        sample_id: The id.
        keeps_blanks: Whether the format and its tool keep them, so that only an empty id needs quotes.
    """
    text = str(sample_id)
    is_whole = keeps_blanks or (text == text.strip() and text.isprintable())
    return text if is_whole and text[:1] not in ("", '"') else json.dumps(text)


def of_carried(text: str) -> str:
    """The id that `carried` made such a text of."""
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return text


def picture_names(samples: Sequence[tuple[str, str, Any]]) -> list[str]:
    """Names for pictures by which `sample_of_picture` knows the samples again, whatever else a tool drops.

    `xai-MODE-DS_ID-SAMPLE_ID.png` of letters, digits, `-` and `_`, which every tool and file system keeps: other
    characters are `_` and two hexadecimal digits for each byte, and so are capitals where names would differ in these
    alone; an id that is too long for a file's name is told by its digest.

    Args:
        samples: mode, ds_id and id of each.
    """
    names = [_picture_name(*sample) for sample in samples]
    alike = Counter(map(str.lower, dict(zip(samples, names, strict=True)).values()))
    return [
        _picture_name(*sample, plain=_LOWER) if alike[name.lower()] > 1 else name
        for sample, name in zip(samples, names, strict=True)
    ]


_LOWER = string.ascii_lowercase + string.digits
_PLAIN = string.ascii_uppercase + _LOWER
_LONGEST = 180
"""Characters of an id in a file's name; with the rest of the name and what tools put before it less than 255."""
_CODED = r"(?:[A-Za-z0-9]|_[0-9a-f]{2})*"
_PICTURE = re.compile(
    rf"(?:[0-9a-f]{{6,}}-)?xai-({_CODED})-({_CODED})-((?:[A-Za-z0-9-]|_[0-9a-f]{{2}})*|_h[0-9a-f]{{40}})"
)
"""Label Studio puts something before the name."""


def _picture_name(mode: str, ds_id: str, sample_id: Any, plain: str = _PLAIN) -> str:
    return f"xai-{_coded(mode, plain)}-{_coded(ds_id, plain)}-{coded_id(str(sample_id), plain)}.png"


def coded_id(sample_id: str, plain: str = _PLAIN) -> str:
    """An id as the name of its picture has it."""
    text = _coded(sample_id, plain + "-")
    if len(text) <= _LONGEST:
        return text
    return f"_h{sha256(sample_id.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def sample_of_picture(name: str) -> tuple[str, str, str] | None:
    """mode, ds_id and id, or the digest that `coded_id` gives, of the sample whose picture `picture_names` named so.

    Args:
        name: The file's name, of whatever suffix.
    """
    found = _PICTURE.fullmatch(PurePosixPath(name).stem)
    if found is None:
        return None
    mode, ds_id, sample_id = found.groups()
    with contextlib.suppress(UnicodeDecodeError):
        return _uncoded(mode), _uncoded(ds_id), sample_id if sample_id[:2] == "_h" else _uncoded(sample_id)
    return None


def _coded(text: str, plain: str) -> str:
    return "".join(c if c in plain else "".join(f"_{b:02x}" for b in c.encode("utf-8", "surrogatepass")) for c in text)


def _uncoded(text: str) -> str:
    whole = re.sub("_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
    return whole.encode("latin-1").decode("utf-8", "surrogatepass")


def dumped(value: Any) -> str:
    """A value as JSON, a line an item."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n"


def _label_studio(task: Task, batch: Batch, called: Mapping[str, str]) -> dict[str, Any]:
    """A task with predictions, as Label Studio imports it: https://labelstud.io/guide/predictions."""
    where = {SAMPLE_ID: carried(task.sample_id, keeps_blanks=True), MODE: task.mode, DS_ID: task.ds_id}
    suggested = _joined(task.suggested, batch) if task.suggested else ""
    shown = {"recorded_label": ", ".join(task.labels), "suggested_label": suggested, "reason": task.reason}
    media = {} if task.path is None else {"image": task.path}
    facts = {called[name]: value for name, value in task.facts.items() if name in called}
    found: dict[str, Any] = {"data": {**facts, **media, **where, **shown}}
    if task.suggested:
        value = {"choices": list(task.suggested)} if batch.classes else {"number": float(task.suggested[0])}
        kind = "choices" if batch.classes else "number"
        result = [{"from_name": CONTROL, "to_name": "sample", "type": kind, "value": value}]
        score = {} if task.score is None else {"score": task.score}
        found["predictions"] = [{"model_version": batch.made_by, **score, "result": result}]
    return found


def _config(batch: Batch) -> str:
    """The labelling interface that the tasks are made for."""
    view = ElementTree.Element("View")
    pictured = any(task.path is not None for task in batch.tasks)
    if pictured:
        ElementTree.SubElement(view, "Image", name="sample", value="$image")
    else:
        ElementTree.SubElement(view, "Text", name="sample", value=f"${SAMPLE_ID}")
    for name in ("recorded_label", "reason"):
        ElementTree.SubElement(view, "Header", value=f"${name}")
    if batch.classes:
        several = "multiple" if batch.is_set else "single"
        choices = ElementTree.SubElement(view, "Choices", name=CONTROL, toName="sample", choice=several)
        for name in batch.classes:
            ElementTree.SubElement(choices, "Choice", value=xml_text(name))
    else:
        ElementTree.SubElement(view, "Number", name=CONTROL, toName="sample")
    # Label Studio refuses a configuration that declares its encoding.
    return xml_of(view, declared=False)


def cvat_beginning(n: int, labels: Sequence[Mapping[str, Any]]) -> ElementTree.Element:
    """The annotations of CVAT for images 1.1 up to the first picture.

    Args:
        n: How many pictures there are.
        labels: Each label's name, type and attributes, as CVAT's raw labels have them.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    ElementTree.SubElement(task, "size").text = str(n)
    ElementTree.SubElement(task, "mode").text = "annotation"
    every = ElementTree.SubElement(task, "labels")
    for each in labels:
        label = ElementTree.SubElement(every, "label")
        ElementTree.SubElement(label, "name").text = xml_text(each["name"])
        ElementTree.SubElement(label, "type").text = each["type"]
        attributes = ElementTree.SubElement(label, "attributes")
        for known in each["attributes"]:
            one = ElementTree.SubElement(attributes, "attribute")
            for key in ("name", "mutable", "input_type", "default_value"):
                ElementTree.SubElement(one, key).text = str(known[key])
    return root


def _cvat(batch: Batch) -> str:
    """CVAT for images 1.1, a tag a picture: https://docs.cvat.ai/docs/manual/advanced/xml_format/."""
    root = cvat_beginning(len(batch.tasks), [_cvat_label(name) for name in batch.classes])
    for number, sample in enumerate(batch.tasks):
        size = {} if sample.size is None else {"width": str(sample.size[0]), "height": str(sample.size[1])}
        name = xml_text(sample.path if sample.path is not None else carried(sample.sample_id))
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": name, **size})
        for label_name in sample.labels:
            tag = ElementTree.SubElement(image, "tag", label=xml_text(label_name), source="auto")
            origin = {SAMPLE_ID: carried(sample.sample_id), MODE: sample.mode, DS_ID: sample.ds_id}
            for key, value in {**origin, CHECKED: "false"}.items():
                ElementTree.SubElement(tag, "attribute", name=key).text = xml_text(value)
    return xml_of(root)


def _cvat_label(name: str) -> dict[str, Any]:
    """A label as CVAT's raw editor takes it, with the attributes that its tags have."""
    texts = [
        {"name": key, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for key in (SAMPLE_ID, MODE, DS_ID)
    ]
    box = {"name": CHECKED, "mutable": False, "input_type": "checkbox", "default_value": "true", "values": ["true"]}
    return {"name": name, "type": "tag", "attributes": [*texts, box]}


def xml_of(root: ElementTree.Element, *, declared: bool = True) -> str:
    """A tree as text."""
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=declared) + "\n"


def xml_text(text: str) -> str:
    """A text without what XML cannot hold."""
    return "".join(
        c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "?" for c in text
    )


def _fiftyone(batch: Batch, stem: str) -> dict[str, str]:
    """A folder of `FiftyOneImageClassificationDataset`: https://docs.voxel51.com/user_guide/import_datasets.html."""
    labels: dict[str, Any] = {}
    pictures = {}
    keys = fiftyone_keys([str(task.sample_id) for task in batch.tasks])
    for key, task in zip(keys, batch.tasks, strict=True):
        known = {
            SAMPLE_ID: carried(task.sample_id, keeps_blanks=True),
            MODE: task.mode,
            DS_ID: task.ds_id,
            "suggested": _joined(task.suggested, batch) if task.suggested else "",
            "reason": task.reason,
        }
        named = [{"label": name, "attributes": {**known, CHECKED: False}} for name in task.labels]
        labels[key] = named if batch.is_set else named[0] if named else None
        pictures[key] = task.path or ""
    found = {f"{stem}/labels.json": dumped({"classes": list(batch.classes) or None, "labels": labels})}
    return {**found, f"{stem}/data.json": dumped(pictures)}


def fiftyone_keys(ids: Sequence[str]) -> Iterator[str]:
    """A key for each sample: its id, where FiftyOne, which reads keys as paths without a suffix, finds it again."""
    used = set(ids)
    given: set[str] = set()
    for number, sample_id in enumerate(ids, 1):
        key, path = sample_id, PurePosixPath(sample_id)
        if key in given or str(path) != key or "." in key or "\\" in key or path.is_absolute():
            key = f"sample {number}"
            while key in used:
                key += "+"
        given.add(key)
        used.add(key)
        yield key


def _coco(batch: Batch) -> dict[str, Any]:
    """COCO (https://cocodataset.org/#format-data), an annotation of the whole picture for each label."""
    numbers = {name: number for number, name in enumerate(batch.classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, task in enumerate(batch.tasks, 1):
        size = {} if task.size is None else {"width": task.size[0], "height": task.size[1]}
        name = task.path if task.path is not None else carried(task.sample_id)
        origin = {SAMPLE_ID: carried(task.sample_id), MODE: task.mode, DS_ID: task.ds_id}
        images.append({"id": number, "file_name": name, **size, **origin})
        whole = [0, 0, *task.size] if task.size else []
        for label in task.labels:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[label],
                    "bbox": whole,
                    "area": task.size[0] * task.size[1] if task.size else 0,
                    "segmentation": [],
                    "iscrowd": 0,
                    "attributes": {
                        **origin,
                        "suggested": _joined(task.suggested, batch) if task.suggested else "",
                        "reason": task.reason,
                        CHECKED: False,
                    },
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    info = {"description": f"labels to look at, from {batch.made_by}", "version": "1.0"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _csv(batch: Batch) -> str:
    """A table for a spreadsheet: the empty column `label` is filled in where the recorded one is wrong, or right."""
    columns = facts_called(batch, Tool.CSV)
    names = [*_OF_TABLE, *columns.values()]
    lines = [csv_line(names)]
    for task in batch.tasks:
        row = {
            **{column: task.facts.get(key) for key, column in columns.items()},
            SAMPLE_ID: carried(task.sample_id, keeps_blanks=True),
            "path": task.path,
            "recorded_label": _joined(task.labels, batch),
            "suggested_label": _joined(task.suggested, batch),
            LABEL: None,
            "by": None,
            "when": None,
            "score": task.score,
            "reason": task.reason,
            MODE: task.mode,
            DS_ID: task.ds_id,
        }
        lines.append(csv_line(row.get(name) for name in names))
    return "".join(lines)


def _joined(labels: Sequence[str], batch: Batch) -> str | None:
    """The labels of a task in one cell; None where it has none, which an empty text is not."""
    if batch.is_set:
        return json.dumps(list(labels), ensure_ascii=False)
    return "".join(labels) if labels else None
