"""Pictures with the objects in them, in the formats of the tools of people who label.

Recorded objects stay what they are, those in doubt marked. What the model found where nothing is recorded is a
proposal: a box of its own in CVAT, Label Studio, FiftyOne and CSV, marked likewise; for COCO in a second file, of
results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_never
from xml.etree import ElementTree

import polars as pl

from xaicli.diagnosis.objects import Places, doubted_objects
from xaicli.errors import XaiError
from xaicli.reader import Reader
from xaicli.relabel.questions import as_tool_names, facts_told, file_told, made_by, path_fact, picture_size, pictured
from xaicli.relabel.tasks import (
    CHECKED,
    CONTROL,
    CORNERS,
    MARKS,
    TABLE_OF_BOXES,
    Batch,
    Box,
    Task,
    Tool,
    carried,
    cvat_beginning,
    dumped,
    facts_called,
    fiftyone_keys,
    xml_of,
    xml_text,
)
from xaicli.tables.cells import csv_line
from xaicli.tables.schema import class_names
from xaicli.vocabulary import LABEL, MODE, SAMPLE_ID

RECORDED, PROPOSED = "box", "proposed"
"""What a region is called in Label Studio, before its number."""
SUGGESTED = "suggested: "
"""What stands there before the class that a region might be of."""


def batch_of_objects(
    reader: Reader,
    table: str,
    tool: Tool,
    *,
    chosen: Places | None = None,
    n: int | None = None,
    path: str | None = None,
    prefix: str = "",
) -> tuple[Batch, pl.DataFrame, list[str]]:
    """The pictures with doubted objects, with all that is recorded in them.

    Args:
        reader: The run.
        table: Rows of `BoundingBoxMetricsCollector` or `InstanceMaskMetricsCollector`.
        tool: Whose format they are for.
        chosen: Only these places; all when None.
        n: How many doubted objects; all when None. In their pictures the others are marked, too.
        path: The fact that holds the place of a picture; a usual name when None.
        prefix: What is put before every path.

    Returns:
        The pictures, the first to look at first; the doubted objects, a row each: mode, ds_id, sample_id, label, name,
        doubt, score, suggested, reason, x0, y0, x1, y1, path; and what the user should know of them.

    Raises:
        XaiError: There is no such table or fact.
    """
    recorded, doubted, _ = doubted_objects(reader, table, chosen)
    names = class_names(reader.layout, table, LABEL)
    every, doubted = doubted, doubted[:n]
    notes = [*reader.facts.warnings, *(chosen.left_out if chosen is not None else ())]
    where = path_fact(reader.facts, path, reader.layout.described)
    known = {str(row[SAMPLE_ID]): row for row in reader.facts.frame.iter_rows(named=True)}
    of_picture: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    shown = {(row[MODE], row[SAMPLE_ID]) for row in doubted}
    for row in every:
        if (row[MODE], row[SAMPLE_ID]) in shown:
            of_picture.setdefault((row[MODE], row[SAMPLE_ID]), []).append(row)
    if beside := sum(map(len, of_picture.values())) - len(doubted):
        said = "object is doubted, too, and is marked" if beside == 1 else "objects are doubted, too, and are marked"
        notes.append(f"in these pictures {beside:,} more {said}")
    parts = recorded.partition_by(MODE, SAMPLE_ID, as_dict=True, maintain_order=True)
    tasks, unusable = [], 0
    for key, doubts in of_picture.items():
        boxes = [*_recorded(parts.get(key), doubts, names), *_proposed(doubts, names)]
        usable = [box for box in boxes if all(map(math.isfinite, box.corners))]
        unusable += len(boxes) - len(usable)
        facts = {name: value for name, value in known.get(str(key[1]), {}).items() if value is not None}
        file = file_told(facts, where)
        tasks.append(
            Task(
                sample_id=key[1],
                mode=key[0],
                ds_id="",
                labels=(),
                path=None if file is None else prefix + file,
                size=size_of(facts, file),
                facts={name: value for name, value in facts.items() if name != SAMPLE_ID},
                boxes=usable,
            )
        )
    if unusable:
        notes.append(f"{unusable:,} boxes have corners that are not finite, and are left out")
    if where is not None:
        tasks, told = pictured(tasks, tool, "pictures with doubted objects")
        notes += told
    elif tasks:
        notes.append("no fact says where pictures are: run.log_facts(ids, path=...), or --path FACT")
    if table != "boxes":
        notes.append(f"of the outlines in table {table} the boxes around them are written")
    tasks = as_tool_names(tasks, tool, prefix, notes)
    classes = list(names) or sorted({box.label for task in tasks for box in task.boxes})
    batch = Batch(tasks, classes, made_by=made_by(reader), of_boxes=True)
    notes += facts_told(batch, tool)
    return batch, _rows(doubted, tasks, names), notes


def called(label: int, names: tuple[str, ...]) -> str:
    """The name of a class, else its number."""
    return names[label] if 0 <= label < len(names) else str(label)


def _corners(row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(row[name]) for name in CORNERS)
    return x0, y0, x1, y1


def _recorded(frame: pl.DataFrame | None, doubts: list[Mapping[str, Any]], names: tuple[str, ...]) -> Iterator[Box]:
    """What is recorded in a picture, with the doubts about it."""
    about = {row["instance_id"]: row for row in doubts if row.get("instance_id") is not None}
    for row in () if frame is None else frame.iter_rows(named=True):
        doubt = about.get(row["instance_id"], {})
        suggested = doubt.get("suggested")
        yield Box(
            called(int(row[LABEL]), names),
            _corners(row),
            number=int(row["instance_id"]),
            is_crowd=row["outcome"] == "ignored",
            doubt=doubt.get("doubt", ""),
            suggested="" if suggested is None else called(int(suggested), names),
            score=doubt.get("score"),
            reason=doubt.get("reason", ""),
        )


def _proposed(doubts: list[Mapping[str, Any]], names: tuple[str, ...]) -> Iterator[Box]:
    """What the model found in a picture where nothing is recorded."""
    for row in doubts:
        if row.get("instance_id") is None:
            told = {"doubt": row["doubt"], "score": row["score"], "reason": row["reason"]}
            yield Box(called(int(row[LABEL]), names), _corners(row), **told)


def size_of(facts: Mapping[str, Any], file: str | None) -> tuple[int, int] | None:
    """Width and height of a picture: as it can be opened here, else as facts say."""
    if file is not None and (found := picture_size(Path(file))) is not None:
        return found
    sides = [facts.get(name) for name in ("width", "height")]
    whole = [int(side) for side in sides if isinstance(side, int | float) and math.isfinite(side) and side >= 1]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _rows(doubted: list[dict[str, Any]], tasks: list[Task], names: tuple[str, ...]) -> pl.DataFrame:
    paths = {(task.mode, task.sample_id): task.path for task in tasks}
    columns = ("doubt", "score", "suggested", "reason", *CORNERS)
    rows = []
    for row in doubted:
        suggested = row.get("suggested")
        said = {**row, "suggested": None if suggested is None else called(int(suggested), names)}
        where = {MODE: row[MODE], "ds_id": "", SAMPLE_ID: row[SAMPLE_ID], LABEL: row[LABEL], "name": row["name"]}
        rows.append({**where, **{name: said[name] for name in columns}, "path": paths.get((row[MODE], row[SAMPLE_ID]))})
    text, real = pl.String(), pl.Float64()
    kinds = {MODE: text, "ds_id": text, LABEL: pl.Int64(), "name": text, "doubt": text, "score": real}
    kinds |= {"suggested": text, "reason": text, **dict.fromkeys(CORNERS, real), "path": text}
    if rows:
        return pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
    return pl.DataFrame(schema={SAMPLE_ID: pl.String(), **kinds})


def files_of(batch: Batch, tool: Tool, stem: str) -> dict[str, str]:
    """The files of an export of objects, {name: text}; a name may hold a folder.

    Args:
        batch: What is to be looked at.
        tool: Whose format.
        stem: What the files are called, without a suffix.

    Raises:
        XaiError: The format places boxes in shares of their picture, and the size of one is not known.
    """
    match tool:
        case Tool.LABEL_STUDIO:
            _refuse_unknown_sizes(batch, tool)
            called = facts_called(batch, tool)
            tasks = [_label_studio(task, batch, called) for task in batch.tasks]
            return {f"{stem}.json": dumped(tasks), f"{stem}.xml": _config(batch)}
        case Tool.CVAT:
            labels = [_cvat_label(name) for name in batch.classes]
            return {f"{stem}.xml": _cvat(batch), f"{stem}-labels.json": dumped(labels)}
        case Tool.FIFTYONE:
            _refuse_unknown_sizes(batch, tool)
            return _fiftyone(batch, stem)
        case Tool.COCO:
            recorded, proposed = _coco(batch)
            return {f"{stem}.json": dumped(recorded), f"{stem}-proposed.json": dumped(proposed)}
        case Tool.CSV:
            return {f"{stem}.csv": _csv(batch)}
        case _:
            assert_never(tool)


def _refuse_unknown_sizes(batch: Batch, tool: Tool) -> None:
    unknown = [task for task in batch.tasks if task.size is None]
    if unknown:
        raise XaiError(
            f"{tool.value} places boxes in shares of their picture, and the size of {len(unknown):,} pictures is not "
            f"known, such as that of {unknown[0].sample_id}",
            hint="log the facts width and height, or a path to pictures that can be opened here; or --to coco or cvat",
        )


def _marks(box: Box) -> dict[str, Any]:
    """What is said of a box, without what is not."""
    said = {name: getattr(box, name) for name in MARKS}
    return {name: value for name, value in said.items() if value is not None and value != ""}


def _sides(box: Box) -> tuple[float, float, float, float]:
    """x, y, width, height in pixels."""
    x0, y0, x1, y1 = box.corners
    return x0, y0, x1 - x0, y1 - y0


def _label_studio(task: Task, batch: Batch, called: Mapping[str, str]) -> dict[str, Any]:
    """A task whose prediction holds its boxes, in percent: https://labelstud.io/guide/predictions."""
    assert task.size is not None
    width, height = task.size
    sample_id = carried(task.sample_id, keeps_blanks=True)
    facts = {called[name]: value for name, value in task.facts.items() if name in called}
    data = {**facts, "image": task.path or "", SAMPLE_ID: sample_id, MODE: task.mode}
    result = []
    for number, box in enumerate(task.boxes):
        x, y, across, down = _sides(box)
        places = {"x": x / width, "y": y / height, "width": across / width, "height": down / height}
        value = {name: 100 * share for name, share in places.items()}
        region: dict[str, Any] = {
            "id": f"{PROPOSED}{number}" if box.number is None else f"{RECORDED}{box.number}",
            "from_name": CONTROL,
            "to_name": "sample",
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, "rotation": 0, "rectanglelabels": [box.label]},
        }
        if box.doubt:
            instead = [SUGGESTED + box.suggested] if box.suggested else []
            region["meta"] = {"text": [f"{box.doubt}: {box.reason}", *instead]}
        result.append(region if box.score is None else {**region, "score": box.score})
    return {"data": data, "predictions": [{"model_version": batch.made_by, "result": result}]}


def _config(batch: Batch) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="sample", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name=CONTROL, toName="sample")
    for name in batch.classes:
        ElementTree.SubElement(labels, "Label", value=xml_text(name))
    return xml_of(view, declared=False)


def _cvat(batch: Batch) -> str:
    """CVAT for images 1.1, a box an object: https://docs.cvat.ai/docs/manual/advanced/xml_format/."""
    root = cvat_beginning(len(batch.tasks), [_cvat_label(name) for name in batch.classes])
    for number, picture in enumerate(batch.tasks):
        size = {} if picture.size is None else {"width": str(picture.size[0]), "height": str(picture.size[1])}
        name = xml_text(picture.path if picture.path is not None else carried(picture.sample_id))
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": name, **size})
        for box in picture.boxes:
            ends = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{end:.2f}" for end in box.corners), strict=True))
            source = "manual" if box.number is not None else "auto"
            drawn = ElementTree.SubElement(
                image, "box", {"label": xml_text(box.label), "occluded": "0", "source": source, **ends, "z_order": "0"}
            )
            origin = {SAMPLE_ID: carried(picture.sample_id), MODE: picture.mode}
            said = {**origin, **dict.fromkeys(MARKS, ""), **_marks(box), CHECKED: "false"}
            for key, value in said.items():
                ElementTree.SubElement(drawn, "attribute", name=key).text = xml_text(str(value))
    return xml_of(root)


def _cvat_label(name: str) -> dict[str, Any]:
    """A label as CVAT's raw editor takes it, with the attributes that its boxes have."""
    texts = [
        {"name": key, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for key in (SAMPLE_ID, MODE, *MARKS)
    ]
    box = {"name": CHECKED, "mutable": False, "input_type": "checkbox", "default_value": "true", "values": ["true"]}
    return {"name": name, "type": "rectangle", "attributes": [*texts, box]}


def _fiftyone(batch: Batch, stem: str) -> dict[str, str]:
    """A folder of `FiftyOneImageDetectionDataset`: https://docs.voxel51.com/user_guide/import_datasets.html."""
    labels, pictures = {}, {}
    keys = fiftyone_keys([str(task.sample_id) for task in batch.tasks])
    for key, task in zip(keys, batch.tasks, strict=True):
        assert task.size is not None
        width, height = task.size
        found = []
        origin = {SAMPLE_ID: carried(task.sample_id, keeps_blanks=True), MODE: task.mode}
        for box in task.boxes:
            x, y, across, down = _sides(box)
            one = {
                "label": box.label,
                "bounding_box": [x / width, y / height, across / width, down / height],
                "attributes": {**origin, **_marks(box), CHECKED: False},
            }
            found.append(one if box.number is not None else {**one, "confidence": box.score})
        labels[key], pictures[key] = found, task.path or ""
    whole = {"classes": list(batch.classes) or None, "labels": labels}
    return {f"{stem}/labels.json": dumped(whole), f"{stem}/data.json": dumped(pictures)}


def _coco(batch: Batch) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO (https://cocodataset.org/#format-data): what is recorded, and the proposals as results."""
    numbers = {name: number for number, name in enumerate(batch.classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    proposed: list[dict[str, Any]] = []
    for number, task in enumerate(batch.tasks, 1):
        size = {} if task.size is None else {"width": task.size[0], "height": task.size[1]}
        origin = {SAMPLE_ID: carried(task.sample_id), MODE: task.mode}
        name = task.path if task.path is not None else origin[SAMPLE_ID]
        images.append({"id": number, "file_name": name, **size, **origin})
        for box in task.boxes:
            sides = list(_sides(box))
            placed = {"image_id": number, "category_id": numbers[box.label], "bbox": sides}
            said = {**origin, **_marks(box), CHECKED: False}
            if box.number is None:
                proposed.append({**placed, "score": box.score, "attributes": said})
                continue
            # An outline would come into other tools as a shape of its own beside the box.
            about = {"area": sides[2] * sides[3], "segmentation": [], "iscrowd": int(bool(box.is_crowd))}
            annotations.append({"id": len(annotations) + 1, **placed, **about, "attributes": said})
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    info = {"description": f"objects to look at, from {batch.made_by}", "version": "1.0"}
    whole = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    return whole, proposed


def _csv(batch: Batch) -> str:
    """A table for a spreadsheet, a row a box, each with the facts of its picture."""
    columns = facts_called(batch, Tool.CSV)
    lines = [csv_line([*TABLE_OF_BOXES, *columns.values()])]
    for task in batch.tasks:
        origin = [carried(task.sample_id, keeps_blanks=True), task.mode, task.path]
        facts = [task.facts.get(name) for name in columns]
        for box in task.boxes:
            said = (getattr(box, name) for name in MARKS)
            lines.append(csv_line([*origin, box.label, *box.corners, box.is_crowd, False, None, None, *said, *facts]))
    return "".join(lines)
