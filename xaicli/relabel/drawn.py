"""The boxes that people drew in pictures, as their tools write them: Label Studio, CVAT, FiftyOne, COCO, tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from xaicli.errors import XaiError
from xaicli.relabel.boxes import PROPOSED, RECORDED, SUGGESTED
from xaicli.relabel.marks import (
    FORMATS,
    Mark,
    Marks,
    Origin,
    Readers,
    State,
    all_but,
    by_sample,
    coco_parts,
    cvat_said,
    cvat_tracks,
    each,
    fiftyone_attributes,
    fiftyone_field,
    fiftyone_parts,
    is_of_studio,
    is_said,
    only_control,
    origin_of,
    place_of,
    read_all,
    refuse_other,
    results_of,
    who,
)
from xaicli.relabel.tasks import CHECKED, CORNERS, Box
from xaicli.tables.labels import Spelt
from xaicli.tables.lists import is_typed
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID

MADE_UP = "made_up"
_NO_BOX = "a shape that is no box stands in the picture"
_TURNED = "a box stands in the picture that is turned"
_NO_CLASS = "a box stands in the picture that has no class"
_OF_REGION = ("id", "original_width", "original_height", "meta")
_REGION = re.compile(rf"({RECORDED}|{PROPOSED})(\d+)")


def read_boxes(files: Sequence[str | os.PathLike[str]], *, field: str | None = None) -> list[Marks]:
    """What files say of objects: a mark a picture, of each who looked at it.

    Args:
        files: Files that the tools wrote, or folders of FiftyOne exports.
        field: The name of the control, field or column that holds the boxes, where there are several.

    Raises:
        XaiError: One cannot be read, holds no boxes, or has no such control, field or column.
        UsageError: One holds several fields of boxes, and none was named; or none of them has any.
    """
    return read_all(_BOXES, files, field)


def _number(value: Any) -> int | None:
    """The number of a recorded object; None for what was drawn anew."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _of_attributes(label: str, corners: Iterable[Any], known: Mapping[str, Any], **more: Any) -> Box:
    x0, y0, x1, y1 = (float(end) for end in corners)
    checked = known.get(CHECKED)
    return Box(
        label,
        (x0, y0, x1, y1),
        number=_number(known.get("number")),
        doubt=str(known.get("doubt") or ""),
        suggested=str(known.get("suggested") or ""),
        is_checked=None if checked is None else is_said(checked),
        **{"is_crowd": None, **more},
    )


def _marks_of(
    pictured: Sequence[tuple[Box, Mapping[str, Any]]],
    picture: str | None,
    own: Any = None,
    fault: str = "",
    **said: Any,
) -> Iterator[Mark]:
    """The marks of a picture: one for each sample that its boxes name, else one of the picture itself.

    Args:
        pictured: Its boxes, each with what else is said of it.
        picture: Its path.
        own: The id of its sample, where the picture says so.
        fault: Why it cannot be taken.
        said: Further fields of the marks.
    """
    mode = said.pop(MODE, "")
    named = [origin_of(known) for _, known in pictured]
    if own not in (None, ""):
        named = [Origin(str(own), one.mode or mode) if one.sample_id is None else one for one in named]
    for origin, places in by_sample([one._replace(ds_id=None) for one in named]):
        boxes = tuple(pictured[place][0] for place in places)
        checked = [box.is_checked for box in boxes if box.is_checked is not None]
        marked = {"mode": mode or origin.mode, **said}
        about = own if origin.sample_id is None else origin.sample_id
        # Without a box, an export of ours names the picture by its path or its sample's id.
        is_key = about is None and picture is not None
        yield Mark(
            picture if is_key else None if about is None else str(about),
            None if is_key else picture,
            tuple(box.label for box in boxes),
            is_checked=any(checked) if checked else False if not boxes else None,
            is_key=is_key,
            boxes=boxes,
            fault=fault,
            **marked,
        )


def _cvat(root: ElementTree.Element) -> Iterator[Mark]:
    """CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format/): the boxes of pictures."""
    said = cvat_said(root)

    def of_image(image: ElementTree.Element) -> Iterator[Mark]:
        pictured, fault = [], ""
        for shape in image:
            if shape.tag == "box":
                known = {str(one.get("name")): one.text or "" for one in shape.findall("attribute")}
                corners = (shape.attrib[end] for end in ("xtl", "ytl", "xbr", "ybr"))
                pictured.append((_of_attributes(shape.attrib[LABEL], corners, known), known))
                fault = fault or (_TURNED if float(shape.get("rotation", 0)) else "")
            elif shape.tag != "tag":  # which is about the whole picture
                fault = fault or _NO_BOX
        yield from _marks_of(pictured, image.get("name"), fault=fault, **said)

    yield from each(root.iter("image"), of_image)
    yield from cvat_tracks(root)


def _coco(found: Mapping[str, Any]) -> Iterator[Mark]:
    """COCO (https://cocodataset.org/#format-data): the annotations of pictures."""
    names, of_image, others = coco_parts(found)
    yield from others

    def of_picture(image: Any) -> Iterator[Mark]:
        pictured, fault = [], ""
        for one in of_image.get(str(image.get("id")), []):
            attributes = one.get("attributes") or {}
            x, y, across, down = (float(side) for side in one["bbox"])
            label = names.get(str(one.get("category_id")), f"category {one.get('category_id')}")
            box = _of_attributes(
                label, (x, y, x + across, y + down), attributes, is_crowd=is_said(one.get("iscrowd") or 0)
            )
            pictured.append((box, {SAMPLE_ID: one.get(SAMPLE_ID), **attributes}))
            fault = fault or (_TURNED if float(attributes.get("rotation") or 0) else "")
        own, mode = image.get(SAMPLE_ID), str(image.get(MODE) or "")
        name, when = str(image.get("file_name") or "") or None, str(image.get("date_captured") or "")
        yield from _marks_of(pictured, name, own, fault, when=when, **({"mode": mode} if mode else {}))

    yield from each(found["images"], of_picture)


def _fiftyone_box(one: Mapping[str, Any], label: str) -> tuple[Box, Mapping[str, Any]]:
    known = fiftyone_attributes(one)
    x, y, across, down = (float(side) for side in one["bounding_box"])
    return _of_attributes(label, (x, y, x + across, y + down), known, in_shares=True), known


def _fiftyone(found: Mapping[str, Any], path: Path) -> Iterator[Mark]:
    """`FiftyOneImageDetectionDataset`: https://docs.voxel51.com/user_guide/import_datasets.html."""
    name_of, pictures = fiftyone_parts(found, path)

    def of_item(item: tuple[str, Any]) -> Iterator[Mark]:
        key, value = item
        pictured = [_fiftyone_box(one, name_of(one.get(LABEL))) for one in value or ()]
        yield from _marks_of(pictured, str(pictures.get(key) or key))

    yield from each(found["labels"].items(), of_item)


def _fiftyone_samples(samples: list[Any], path: Path, field: str | None) -> Marks:
    """`FiftyOneDataset`: samples with a field of detections."""
    column, others = fiftyone_field(samples, {"Detections": "detections"}, path, field, "boxes")
    if samples and not any(isinstance(sample, dict) and column in sample for sample in samples):
        raise XaiError(f"{path} has no field of boxes", hint=FORMATS)

    def of_sample(sample: Any) -> Iterator[Mark]:
        drawn = (sample.get(column) or {}).get("detections") or ()
        pictured = [_fiftyone_box(one, str(one[LABEL])) for one in drawn]
        about = sample.get("metadata") or {}
        sides = (about.get("width"), about.get("height"))
        size = None if None in sides else (float(str(sides[0])), float(str(sides[1])))
        own = sample.get(SAMPLE_ID)
        yield from _marks_of(
            pictured, str(sample.get("filepath") or "") or None, None if own is None else str(own), size=size
        )

    return Marks("FiftyOne", tuple(each(samples, of_sample)), others=others)


def _label_studio(tasks: list[Any], path: Path, field: str | None) -> Marks:
    """The JSON export (https://labelstud.io/guide/task_format): what is handed in, was looked at as it stands."""
    drawn = Counter(name for name, value in results_of(tasks) if "rectanglelabels" in value)
    refuse_other(path, field, drawn, "control of boxes")
    control = field or only_control(drawn, path, "boxes")

    def of_task(task: dict[str, Any]) -> Iterator[Mark]:
        where = place_of(task.get("data") or {})
        annotations = task.get("annotations", task.get("completions")) or []
        if not annotations:
            yield Mark(*where[:2], (), state=State.UNTOUCHED, mode=where[2])

        def of_one(one: dict[str, Any]) -> Iterator[Mark]:
            results = [item for item in one.get("result") or [] if item.get("from_name") == control]
            boxes, fault = _regions(
                [
                    {
                        **(item.get("value") or {}),
                        **{key: item[key] for key in _OF_REGION if key in item},
                        "rotated": item.get("image_rotation"),
                    }
                    for item in results
                ]
            )
            yield Mark(
                *where[:2],
                tuple(box.label for box in boxes),
                who(one.get("completed_by")),
                str(one.get("updated_at") or one.get("created_at") or ""),
                State.SKIPPED if one.get("was_cancelled") else State.LABELLED,
                mode=where[2],
                is_truth=bool(one.get("ground_truth")),
                boxes=boxes,
                fault=fault,
            )

        yield from each(annotations, of_one)

    return Marks("Label Studio", tuple(each(tasks, of_task)), others=all_but(drawn, control))


def _regions(values: list[Mapping[str, Any]]) -> tuple[tuple[Box, ...], str]:
    """Boxes of Label Studio, in percent of their picture, and why they cannot be taken."""
    boxes, fault = [], ""
    for value in values:
        if not {"x", "y", "width", "height"} <= set(value):
            fault = fault or _NO_BOX
            continue
        labels = value.get("rectanglelabels") or []
        if len(labels) != 1:
            fault = fault or (_NO_CLASS if not labels else "a box stands in the picture that has several classes")
            continue
        if value.get("rotation") or value.get("rotated"):
            fault = fault or _TURNED
        x, y, across, down = (float(value[side]) / 100 for side in ("x", "y", "width", "height"))
        sides = [float(value.get(f"original_{side}") or math.nan) for side in ("width", "height")]
        corners = x, y, x + across, y + down
        if are_known := all(map(math.isfinite, sides)):
            corners = x * sides[0], y * sides[1], (x + across) * sides[0], (y + down) * sides[1]
        named = _REGION.fullmatch(str(value.get("id") or ""))
        number = int(named[2]) if named and named[1] == RECORDED else None
        box = Box(str(labels[0]), corners, number=number, is_crowd=None, in_shares=not are_known)
        boxes.append(replace(box, suggested=_suggested(value.get("meta"))))
    return tuple(boxes), fault


def _suggested(meta: Any) -> str:
    """What the text beside a region says that it might be of instead."""
    texts = meta.get("text") if isinstance(meta, Mapping) else None
    said = [str(one) for one in (texts if isinstance(texts, list) else ())]
    return next((one.removeprefix(SUGGESTED) for one in said if one.startswith(SUGGESTED)), "")


def _of_table(columns: Mapping[str, list[Any]], path: Path, field: str | None) -> Marks:
    """A row a box; or what Label Studio writes as CSV and JSON_MIN, a row an annotation."""
    names = list(columns)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if is_of_studio(columns):
        drawn = Counter({name: n for name in names if (n := sum(len(_drawn(row[name])) for row in rows))})
        refuse_other(path, field, drawn, "column of boxes")
        column = field or only_control(drawn, path, "boxes")
        marks = tuple(each(rows, lambda row: [_of_annotation(row, column)]))
        return Marks("Label Studio", marks, others=all_but(drawn, column))
    missing = [name for name in (LABEL, *CORNERS) if name not in names]
    if missing or not {SAMPLE_ID, "path"} & set(names):
        lacking = missing[0] if missing else SAMPLE_ID
        raise XaiError(f"{path} has no column {lacking}", hint=f"its columns: {', '.join(names)}; {FORMATS}")
    texts = Spelt.NAME if is_typed(path) else Spelt.EITHER
    pictures: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    _complete(rows)
    for row in rows:
        key = tuple(str(row.get(name) or "") for name in (SAMPLE_ID, "path", MODE, DS_ID, "by"))
        pictures.setdefault((row.get(SAMPLE_ID) is None, *key), []).append(row)

    def of_picture(own: list[dict[str, Any]]) -> Iterator[Mark]:
        where = place_of(own[0], is_table=True)
        boxes = tuple(_of_row(row, texts) for row in own if not _is_bare(row))
        checked = [box.is_checked for box in boxes if box.is_checked is not None]
        yield Mark(
            *where[:2],
            tuple(box.label for box in boxes),
            who(own[0].get("by")),
            max(str(row.get("when") or "") for row in own),
            mode=where[2],
            is_checked=any(checked) if checked else None,
            boxes=boxes,
        )

    return Marks("table", tuple(each(pictures.values(), of_picture)), has_fields=False)


def _complete(rows: list[dict[str, Any]]) -> None:
    """Give a row that a person added without its picture's path, mode or data set what the picture's other rows say."""
    said: dict[tuple[str, str], set[Any]] = {}
    for row in rows:
        for name in ("path", MODE, DS_ID):
            if row.get(SAMPLE_ID) is not None and row.get(name):
                said.setdefault((str(row[SAMPLE_ID]), name), set()).add(row[name])
    for row in rows:
        for name in ("path", MODE, DS_ID):
            known = said.get((str(row.get(SAMPLE_ID)), name), ())
            if not row.get(name) and len(known) == 1:
                row[name] = next(iter(known))


def _is_bare(row: Mapping[str, Any]) -> bool:
    """Whether a row says of its picture that nothing is in it: a class and all corners are left empty."""
    return all(row[name] is None or not str(row[name]).strip() for name in (LABEL, *CORNERS))


def _of_row(row: Mapping[str, Any], texts: Spelt) -> Box:
    crowd = row.get("crowd")
    return _of_attributes(
        str(row[LABEL]),
        (row[name] for name in CORNERS),
        row,
        is_crowd=None if crowd is None or crowd == "" else is_said(crowd),
        spelt=texts if isinstance(row[LABEL], str) else Spelt.NUMBER,
        called=str(row.get("name") or ""),
    )


def _drawn(value: Any) -> list[Any]:
    """The boxes in a cell of Label Studio; none in what is another control's."""
    if isinstance(value, str) and "rectanglelabels" in value:
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    regions = value if isinstance(value, list) else []
    return [one for one in regions if isinstance(one, dict) and "rectanglelabels" in one]


def _of_annotation(row: Mapping[str, Any], column: str) -> Mark:
    where = place_of(row)
    value = row.get(column)
    regions = json.loads(value) if isinstance(value, str) and value.strip() else value or []
    boxes, fault = _regions(regions)
    when = str(row.get("updated_at") or row.get("created_at") or "")
    labels = tuple(box.label for box in boxes)
    return Mark(*where[:2], labels, who(row.get("annotator")), when, mode=where[2], boxes=boxes, fault=fault)


_BOXES = Readers("boxes", _cvat, _coco, _fiftyone, _fiftyone_samples, _label_studio, _of_table)
