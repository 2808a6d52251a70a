"""What people said of samples, as their tools write it: Label Studio, CVAT, FiftyOne, COCO, tables."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from xaicli.errors import UsageError, XaiError
from xaicli.relabel.tasks import CHECKED, CONTROL, Box
from xaicli.tables.labels import Spelt, Written
from xaicli.tables.lists import is_typed, read_columns, read_text, without_our_guards
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID

FORMATS = (
    "Label Studio (JSON, JSON_MIN, CSV), CVAT for images (XML or zip), FiftyOne (labels.json or samples.json), COCO, "
    "or a table with sample_id and label"
)
_LARGEST = 1 << 30
_PICTURES = ("image", "path", "filepath", "file_name")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")
"""What CVAT draws on a picture, each with a label."""


class State(StrEnum):
    """What a mark says."""

    LABELLED = "labelled"
    SKIPPED = "skipped"
    """The sample was passed over."""
    UNTOUCHED = "untouched"
    """Nobody has labelled it yet."""
    EMPTY = "empty"
    """It was handed in without a label."""
    UNREADABLE = "unreadable"
    """The record is not what the tool writes."""


class Origin(NamedTuple):
    """Which sample something in a file names: its id, as the file spells it, and where it was recorded.

    Attributes:
        sample_id: None where nothing is named.
        mode: "" where the file does not say.
        ds_id: None where the file does not say; "" is the data set without a name.
    """

    sample_id: str | None = None
    mode: str = ""
    ds_id: str | None = None


def origin_of(known: Mapping[str, Any]) -> Origin:
    """Which sample attributes or fields name; an id of blanks is none, and tools make nothing of an empty data set."""
    given, mode = known.get(SAMPLE_ID), str(known.get(MODE) or "").strip()
    sample_id = None if given is None or not str(given).strip() else str(given)
    return Origin(sample_id, mode, _ds_id(known, mode))


def _ds_id(known: Mapping[str, Any], mode: str) -> str | None:
    """The data set that a record names: where it has a mode, nothing is the one without a name."""
    ds_id = known.get(DS_ID)
    if ds_id in (None, ""):
        return "" if mode and DS_ID in known else None
    return str(ds_id)


@dataclass(frozen=True)
class Mark:
    """What one person said of one sample.

    Attributes:
        sample_id: The sample, as the file spells it; None where it names a picture only.
        path: The picture, where the file names one.
        labels: The labels given.
        by: Who; "" where the file does not say.
        when: When, likewise.
        state: Whether it was labelled at all.
        is_checked: Whether somebody said that they looked; None where the file cannot tell.
        mode: Where the sample was recorded, where the file says so.
        ds_id: Likewise.
        is_key: Whether `sample_id` is a key of the file's own, which is a sample's id or the name of its picture.
        is_truth: Whether the tool has it as the right one of several.
        person: By what the person is told apart from others, where that is not `by`.
        boxes: What was drawn in the picture, where objects were asked for.
        size: Width and height of the picture, where the file says so.
        fault: Why the mark cannot be taken as it is; "" where it can.
        spelt: Whether the file tells names of classes from their numbers.
        called: What it says beside the label that its class is called; "" where it does not.
        suggested: The names that the person was shown as what the label might be; none where the file brings none back.
    """

    sample_id: str | None
    path: str | None
    labels: tuple[str, ...]
    by: str = ""
    when: str = ""
    state: State = State.LABELLED
    is_checked: bool | None = None
    mode: str = ""
    ds_id: str | None = None
    is_key: bool = False
    is_truth: bool = False
    person: str = ""
    boxes: tuple[Box, ...] = ()
    size: tuple[float, float] | None = None
    fault: str = ""
    spelt: Spelt = Spelt.NAME
    called: str = ""
    suggested: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marks:
    """The marks of a file.

    Attributes:
        format: Whose format it is in, in words.
        marks: In the order of the file.
        has_fields: Whether the format has controls, fields or columns of which one is read.
        others: How much else of the same kind stands in those that are not read, by their names.
    """

    format: str
    marks: tuple[Mark, ...]
    has_fields: bool = True
    others: tuple[tuple[str, int], ...] = ()


def read_marks(files: Sequence[str | os.PathLike[str]], *, field: str | None = None) -> list[Marks]:
    """What files say.

    Args:
        files: Files that the tools wrote, or folders of FiftyOne exports.
        field: The name of the control, field or column that holds the label, where there are several.

    Raises:
        XaiError: One cannot be read, is none of these, or has no such control, field or column.
        UsageError: One holds several fields of labels, and none was named; or none of them has any.
    """
    return read_all(_LABELS, files, field)


@dataclass(frozen=True)
class Readers:
    """How what people were asked for is read, from the files of each tool.

    Attributes:
        what: What they were asked for, in words.
        cvat: From CVAT's tree.
        coco: From a COCO object.
        fiftyone: From the object of `labels.json`, and where it lies.
        samples: The marks of the samples of `samples.json`, where they lie, and the field that was named.
        tasks: Of tasks of Label Studio, likewise.
        table: Of the columns of a table, likewise.
    """

    what: str
    cvat: Callable[[ElementTree.Element], Iterable[Mark]]
    coco: Callable[[Mapping[str, Any]], Iterable[Mark]]
    fiftyone: Callable[[Mapping[str, Any], Path], Iterable[Mark]]
    samples: Callable[[list[Any], Path, str | None], Marks]
    tasks: Callable[[list[Any], Path, str | None], Marks]
    table: Callable[[Mapping[str, list[Any]], Path, str | None], Marks]


def read_all(readers: Readers, files: Sequence[str | os.PathLike[str]], field: str | None) -> list[Marks]:
    """What files say, of the control, field or column that is named.

    Raises:
        XaiError: As `_read_with`.
        UsageError: As `_read_with`; or a field is named, and no file is of a format that has any.
    """
    found = [_read_with(readers, Path(file), field) for file in files]
    if field is not None and found and not any(marks.has_fields for marks in found):
        formats = " and ".join(dict.fromkeys(marks.format.replace("table", "a table") for marks in found))
        raise UsageError(
            f"--field {field} says which of several controls holds the {readers.what}, and {formats} has none of them",
            hint="leave --field out",
            refused=("field",),
        )
    return found


def refuse_other(path: Path, field: str | None, known: Collection[str], what: str) -> None:
    """Refuse the name of a control, field or column that a file does not have; a file in which none is used has any.

    Raises:
        XaiError: It is not among those that are.
    """
    if field is not None and known and field not in known:
        raise XaiError(f"{path} has no {what} {field}", hint=f"--field NAME, of: {', '.join(known)}")


def _read_with(readers: Readers, path: Path, field: str | None) -> Marks:
    """What a file says: whose it is, is told by its suffix and its keys.

    Args:
        readers: What reads each kind of file.
        path: A file, a zip of CVAT, or the folder of a FiftyOne export.
        field: The name of the control, field or column, where there are several.

    Raises:
        XaiError: It cannot be read, or is none of these.
        UsageError: It holds several fields, and none was named.
    """
    path, found = _opened(path)
    match found:
        case ElementTree.Element():
            return Marks("CVAT", tuple(readers.cvat(found)), has_fields=False)
        case _Columns(columns):
            return readers.table(columns, path, field)
        case {"images": list(), "annotations": list()}:
            return Marks("COCO", tuple(readers.coco(found)), has_fields=False)
        case {"labels": dict()}:
            return Marks("FiftyOne", tuple(readers.fiftyone(found, path)), has_fields=False)
        case {"samples": list(samples)}:
            return readers.samples(samples, path, field)
        case {"rows": list(rows)} | list(rows):
            pass
        case dict():
            rows = [found]
        case _:
            rows = [None]
    records = [item for item in rows if isinstance(item, dict)]
    if rows and not records:
        raise XaiError(f"{path} is no list of {readers.what}", hint=FORMATS)
    if any("annotations" in item or "completions" in item for item in records):
        return readers.tasks(rows, path, field)
    if not records:
        return Marks("table", ())
    if all(isinstance(item.get("data"), dict) and SAMPLE_ID not in item for item in records):
        raise XaiError(
            f"{path} holds tasks that were not labelled yet", hint="import them into Label Studio, and export as JSON"
        )
    names = dict.fromkeys(name for item in records for name in item)
    table = readers.table({name: [item.get(name) for item in records] for name in names}, path, field)
    others = [number for number, item in enumerate(rows, 1) if not isinstance(item, dict)]
    return replace(table, marks=(*table.marks, *map(_unreadable, others)))


@dataclass(frozen=True)
class _Columns:
    """A table as its columns."""

    values: Mapping[str, list[Any]]


def _opened(path: Path) -> tuple[Path, ElementTree.Element | _Columns | Any]:
    """The file that is read, and what is in it: CVAT's tree, a table's columns, or whatever a JSON file holds."""
    try:
        if path.is_dir():
            inside = next((path / name for name in ("labels.json", "samples.json") if (path / name).is_file()), None)
            if inside is None:
                raise XaiError(f"{path} holds neither labels.json nor samples.json", hint=FORMATS)
            path = inside
        match path.suffix.lower():
            case ".zip":
                return path, _cvat_tree(_of_zip(path), path)
            case ".xml":
                return path, _cvat_tree(read_text(path), path)
            case ".json":
                return path, json.loads(read_text(path))
            case _:
                columns = read_columns(path, is_raw=True)
                is_table = path.suffix.lower() in (".csv", ".tsv") and not is_of_studio(columns)
                return path, _Columns(without_our_guards(columns) if is_table else columns)
    except (OSError, ValueError, ElementTree.ParseError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        raise XaiError(f"{path} cannot be read: {reason}", hint=FORMATS) from error


def _label_studio(tasks: list[dict[str, Any]], path: Path, field: str | None) -> Marks:
    """The JSON export (https://labelstud.io/guide/task_format): a task with the annotations of all who labelled it."""
    control, others = _control(tasks, path, field)

    def of_task(task: dict[str, Any]) -> Iterator[Mark]:
        data = task.get("data") or {}
        where = place_of(data)
        annotations = task.get("annotations", task.get("completions")) or []
        if not annotations:
            yield Mark(*where[:2], (), state=State.UNTOUCHED, mode=where[2], ds_id=where[3])

        def of_one(one: dict[str, Any]) -> Iterator[Mark]:
            labels: list[str] = []
            kinds: set[str] = set()
            for result in one.get("result") or []:
                if result.get("from_name") == control:
                    labels += [label for label in _values(result.get("value") or {}) if label not in labels]
                    kinds |= set(result.get("value") or {})
            state = State.SKIPPED if one.get("was_cancelled") else State.LABELLED if labels else State.EMPTY
            yield Mark(
                *where[:2],
                tuple(labels),
                who(one.get("completed_by")),
                str(one.get("updated_at") or one.get("created_at") or ""),
                state,
                mode=where[2],
                ds_id=where[3],
                is_truth=bool(one.get("ground_truth")),
                spelt=Spelt.NUMBER if kinds & {"number", "rating"} else Spelt.NAME,
                suggested=suggested_of(data.get("suggested_label")),
            )

        yield from each(annotations, of_one)

    return Marks("Label Studio", tuple(each(tasks, of_task)), others=others)


def suggested_of(value: Any) -> tuple[str, ...]:
    """The names of what an export suggested, as it wrote them; none for an empty cell."""
    return () if value in (None, "") else tuple(map(str, Written.of(value, Spelt.NAME).values))


def each(records: Iterable[Any], read: Callable[[Any], Iterable[Mark]]) -> Iterator[Mark]:
    """The marks of each record; one that is not what the tool writes costs its neighbours nothing."""
    for number, record in enumerate(records, 1):
        try:
            marks = list(read(record))
        except (AttributeError, TypeError, KeyError, IndexError, ValueError):
            marks = [_unreadable(number)]
        yield from marks


def _unreadable(number: int) -> Mark:
    return Mark(None, f"record {number}", (), state=State.UNREADABLE)


def results_of(tasks: list[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The control and the value of each result of all annotations; what the tool does not write is passed over here."""
    for task in tasks:
        with contextlib.suppress(AttributeError, TypeError):  # told where its marks are read
            for one in task.get("annotations", task.get("completions")) or []:
                for result in one.get("result") or []:
                    value = result.get("value")
                    yield str(result.get("from_name")), value if isinstance(value, Mapping) else {}


def _control(tasks: list[Any], path: Path, field: str | None) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The control that holds the label, and how many labels other controls of classes hold.

    It is the one named, else the one called so, else the only one of classes, else the only one.

    Raises:
        XaiError: There is none of that name.
        UsageError: There are several others.
    """
    names: Counter[str] = Counter()
    of_classes: Counter[str] = Counter()
    for name, value in results_of(tasks):
        with contextlib.suppress(AttributeError, TypeError):
            names[name] += len(_values(value))
            if any(kind in ("choices", "taxonomy", "number") or kind.endswith("labels") for kind in value):
                of_classes[name] += len(_values(value))
    names, of_classes = +names, +of_classes
    refuse_other(path, field, names, "control")
    # A remark or a grade beside the label is none.
    control = field or only_control(names if CONTROL in names else of_classes or names, path, "labels")
    return control, all_but(of_classes, control)


def all_but(names: Mapping[str, int], read: str) -> tuple[tuple[str, int], ...]:
    """How much stands in each control or field that is not read."""
    return tuple((name, n) for name, n in names.items() if name != read and n)


def only_control(names: Collection[str], path: Path, what: str) -> str:
    """The control to read where none is named: the one called as ours, else the only one.

    Raises:
        UsageError: There are several others.
    """
    if CONTROL in names or not names:
        return CONTROL
    if len(names) > 1:
        raise UsageError(f"{path} has {what} of several controls", hint=f"--field {' or '.join(names)}")
    return next(iter(names))


def _values(value: Mapping[str, Any]) -> list[str]:
    """The labels of a result, whatever control it is from (https://labelstud.io/tags); a region has labels, too."""
    for kind, given in value.items():
        if (kind == "choices" or kind.endswith("labels")) and isinstance(given, list):
            return [str(one) for one in given]
        if kind == "taxonomy" and isinstance(given, list):  # a way from the root for each
            return [str(one[-1]) if isinstance(one, list) and one else str(one) for one in given]
        if kind in ("number", "rating") and isinstance(given, int | float):
            return [repr(given)]
    written = value.get("text")
    return [str(one) for one in ([written] if isinstance(written, str) else written or ())]


def who(value: Any) -> str:
    """Who labelled: an id, an address, or a mapping with either."""
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("username") or value.get("id")
    return "" if value is None else str(value)


def place_of(data: Mapping[str, Any], *, is_table: bool = False) -> tuple[str | None, str | None, str, str | None]:
    """Which sample is meant: its id and picture, and where it was recorded.

    Args:
        data: The task, or the row.
        is_table: Whether it is a row of a table that no tool wrote: ours have the picture as `path`, beside any facts.
    """
    sample_id, mode = data.get(SAMPLE_ID), str(data.get(MODE) or "").strip()
    pictures = ("path", *_PICTURES) if is_table else _PICTURES
    picture = next((data[key] for key in pictures if data.get(key)), None)
    if picture is None and not sample_id and sample_id != 0:  # a task's picture may be called anything
        texts = [value for value in data.values() if isinstance(value, str)]
        picture = next((text for text in texts if text.partition("?")[0].lower().endswith(_SUFFIXES)), None)
    return (
        None if sample_id is None else str(sample_id),
        None if picture is None else str(picture),
        mode,
        _ds_id(data, mode),
    )


def is_of_studio(columns: Mapping[str, list[Any]]) -> bool:
    """Whether a table is what Label Studio writes, which guards no text against spreadsheets."""
    return "annotation_id" in columns


def _said_by(row: Mapping[str, Any], *, is_studio: bool, is_ours: bool) -> tuple[str, str]:
    """Who labelled and when, as a row says it: all else that a table of Label Studio, or of ours, holds are facts."""
    people, times = ["by", "annotator"], ["when", "updated_at", "created_at"]
    if is_studio:
        people, times = people[1:], times[1:]
    elif is_ours:
        people, times = people[:1], times[:1]
    by, when = (next((row[key] for key in keys if row.get(key) not in (None, "")), None) for keys in (people, times))
    return who(by), str(when or "")


def _of_table(columns: Mapping[str, list[Any]], path: Path, field: str | None) -> Marks:
    """A table of people's own, or what Label Studio writes as CSV and JSON_MIN: a row an annotation."""
    names = list(columns)
    if not {SAMPLE_ID, *_PICTURES} & set(names):
        raise XaiError(f"{path} has no column sample_id", hint=f"its columns: {', '.join(names)}; {FORMATS}")
    is_studio = is_of_studio(columns)
    column = field or (LABEL if LABEL in names else "choice" if is_studio and "choice" in names else LABEL)
    refuse_other(path, column, names, "column")
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [row for row in rows if any(value is not None for value in row.values())]  # a spreadsheet's blank rows
    is_ours = not is_studio and {"recorded_label", "suggested_label"} <= columns.keys()
    # What labelling tools and the table of `relabel export` show to people is what classes are called.
    are_names = is_studio or is_ours or is_typed(path)
    marks = []
    for row in rows:
        sample_id, picture, mode, ds_id = place_of(row, is_table=not is_studio)
        labels, spelt = _labels(row[column], Spelt.NAME if are_names else Spelt.EITHER)
        called = row.get("name") if column == LABEL and not (is_studio or is_ours) else None
        by, when = _said_by(row, is_studio=is_studio, is_ours=is_ours)
        state = State.LABELLED if labels is not None else State.EMPTY if is_studio else State.UNTOUCHED
        mark = Mark(sample_id, picture, labels or (), by, when, state, mode=mode, ds_id=ds_id)
        suggested = suggested_of(row.get("suggested_label")) if is_studio or is_ours else ()
        called = called if isinstance(called, str) else ""
        marks.append(replace(mark, spelt=spelt, called=called, suggested=suggested))
    return Marks("Label Studio" if is_studio else "table", tuple(marks))


def _labels(value: Any, texts: Spelt) -> tuple[tuple[str, ...] | None, Spelt]:
    """The labels of a cell, None for an empty one, and how they are spelt: as numbers where all are."""
    written = Written.of(value, texts)
    spelt = {written.spelt_as(one) for one in written.values}
    # With the blanks about it, which a name may have.
    labels = tuple(map(str, written.values)) if written.is_list or written.values else None
    return labels, Spelt.NUMBER if spelt == {Spelt.NUMBER} else written.spelt


def _of_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.rpartition("/")[2] == "annotations.xml"), None)
        if name is None:
            raise XaiError(f"{path} holds no annotations.xml", hint="export the task as CVAT for images 1.1")
        if archive.getinfo(name).file_size > _LARGEST:
            raise XaiError(f"{path}: annotations.xml is larger than 1 GB", hint="export fewer pictures at a time")
        return archive.read(name).decode("utf-8-sig")


def _cvat_tree(text: str, path: Path) -> ElementTree.Element:
    """CVAT for images 1.1: https://docs.cvat.ai/docs/manual/advanced/xml_format/."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise XaiError(f"{path} declares entities, which no tool writes", hint="export the task again")
    root = ElementTree.fromstring(text)
    if root.tag != "annotations":
        raise XaiError(f"{path} is no CVAT file: its root is {root.tag}", hint="export the task as CVAT for images 1.1")
    if next(root.iter("track"), None) is not None and next(root.iter("image"), None) is None:
        raise XaiError(f"{path} holds tracks of a video", hint="export the task as CVAT for images 1.1")
    return root


def cvat_said(root: ElementTree.Element) -> dict[str, Any]:
    """Who labelled a task of CVAT and when: `by`, `when` and `person` of its marks."""
    # Who labelled is the assignee; where a task has none, its owner is all that is known.
    assignee, owner = (
        next(filter(None, (name.text for name in root.iterfind(f"meta//{role}/username"))), "")
        for role in ("assignee", "owner")
    )
    task = root.findtext("meta/task/id")
    # An owner has others label, for each task some.
    person = f"task {task} of {owner}" if task and not assignee else ""
    when = root.findtext("meta/task/updated") or root.findtext("meta/dumped") or ""
    return {"by": assignee or owner, "when": when, "person": person}


def _cvat(root: ElementTree.Element) -> Iterator[Mark]:
    """Tags of pictures, or the labels of what is drawn on them."""
    said = cvat_said(root)

    def of_image(image: ElementTree.Element) -> Iterator[Mark]:
        marked = image.findall("tag") or [shape for shape in image if shape.tag in _SHAPES]
        known = [{str(one.get("name")): one.text or "" for one in shape.findall("attribute")} for shape in marked]
        labels = [shape.get("label") or "" for shape in marked]
        for origin, places in by_sample([origin_of(one) for one in known]):
            checked = [is_said(known[n][CHECKED]) for n in places if CHECKED in known[n]]
            own = tuple(dict.fromkeys(labels[n] for n in places))
            state = State.LABELLED if own else State.EMPTY
            is_checked = any(checked) if checked else None
            yield Mark(
                origin.sample_id,
                image.get("name"),
                own,
                state=state,
                is_checked=is_checked,
                mode=origin.mode,
                ds_id=origin.ds_id,
                **said,
            )

    yield from each(root.iter("image"), of_image)
    yield from cvat_tracks(root)


def cvat_tracks(root: ElementTree.Element) -> Iterator[Mark]:
    """The tracks of a video among pictures, which are about none of them."""
    return (Mark(None, f"track {one.get('id')}", (), state=State.UNREADABLE) for one in root.iter("track"))


def is_said(value: Any) -> bool:
    """Whether a mark of `checked` says yes, whatever a tool writes for it."""
    return value.strip().lower() in _YES if isinstance(value, str) else bool(value)


_YES = frozenset({"true", "yes", "1", "1.0", "x"})


def by_sample(named: Sequence[Origin]) -> list[tuple[Origin, list[int]]]:
    """The places of a picture's labels by the sample each names: a picture may hold several.

    Those without a name belong to the only sample that is named, or to the picture; those that do not say where it
    was recorded to the only place that others of its id name.
    """
    several = dict.fromkeys(one for one in named if one.sample_id is not None)
    ids = {one.sample_id for one in several}

    def meant(one: Origin) -> Origin:
        if one.mode or (one.sample_id is None and len(ids) != 1):
            return one
        own = [other for other in several if one.sample_id in (None, other.sample_id)]
        placed = [other for other in own if other.mode] or own
        return placed[0] if len(placed) == 1 else one

    found: dict[Origin, list[int]] = {}
    for place, one in enumerate(named):
        found.setdefault(meant(one), []).append(place)
    return list(found.items()) or [(Origin(), [])]


def fiftyone_parts(found: Mapping[str, Any], path: Path) -> tuple[Callable[[Any], str], Mapping[str, Any]]:
    """The name of a label, which may be the number of a class; and the paths of pictures, by the keys of the labels."""
    classes = found.get("classes") or []
    pictures: Mapping[str, Any] = {}
    if (manifest := path.with_name("data.json")).is_file():
        pictures = json.loads(read_text(manifest))

    def name_of(label: Any) -> str:
        is_number = isinstance(label, int) and not isinstance(label, bool)
        return str(classes[label]) if is_number and 0 <= label < len(classes) else str(label)

    return name_of, pictures


def fiftyone_attributes(label: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a label of FiftyOne: its own fields, and its attributes, of old {"value": ...} each."""
    own = label.get("attributes") or {}
    return {**label, **{key: one.get("value") if isinstance(one, Mapping) else one for key, one in own.items()}}


def _fiftyone(found: Mapping[str, Any], path: Path) -> Iterator[Mark]:
    """`FiftyOneImageClassificationDataset`: https://docs.voxel51.com/user_guide/import_datasets.html."""
    name_of, pictures = fiftyone_parts(found, path)

    def named(value: Any) -> tuple[str, Any, Origin, tuple[str, ...]]:
        attributes: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            attributes = fiftyone_attributes(value)
            value = value.get("label")
        return name_of(value), attributes.get(CHECKED), origin_of(attributes), suggested_of(attributes.get("suggested"))

    def of_item(item: tuple[str, Any]) -> Iterator[Mark]:
        key, value = item
        values = value if isinstance(value, list) else [] if value is None else [value]
        told = [named(one) for one in values]
        checked = [is_said(one[1]) for one in told if one[1] is not None]
        origin = next((one[2] for one in told if one[2].sample_id is not None), Origin())
        yield Mark(
            str(key) if origin.sample_id is None else origin.sample_id,
            str(pictures.get(key) or "") or None,
            tuple(one[0] for one in told),
            state=State.LABELLED if told else State.EMPTY,
            is_checked=any(checked) if checked else None,
            mode=origin.mode,
            ds_id=origin.ds_id,
            is_key=origin.sample_id is None,
            suggested=next((one[3] for one in told if one[3]), ()),
        )

    yield from each(found["labels"].items(), of_item)


def fiftyone_field(
    samples: list[Any], inner: Mapping[str, str], path: Path, field: str | None, what: str
) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The field to read, and how many values of the same kinds each other field holds.

    Args:
        inner: The kinds of values, each with the key of the list in it; "" of one value alone.

    Raises:
        XaiError: There is none of that name.
        UsageError: There are several, none is called as ours or FiftyOne's own, and none was named.
    """
    names: Counter[str] = Counter()
    for sample in samples:
        for name, value in sample.items() if isinstance(sample, dict) else ():
            if isinstance(value, dict) and str(value.get("_cls")) in inner:
                key = inner[value["_cls"]]
                held = value.get(key) if key else [value]
                names[name] += len(held) if isinstance(held, list) else 0
    refuse_other(path, field, names, f"field of {what}")
    if field is None and len(names) > 1 and "ground_truth" not in names and CONTROL not in names:
        raise UsageError(f"{path} has several fields of {what}", hint=f"--field {' or '.join(names)}")
    first = next((name for name in (CONTROL, "ground_truth") if name in names), next(iter(names), CONTROL))
    column = field or first
    return column, all_but(names, column)


def _fiftyone_samples(samples: list[Any], path: Path, field: str | None) -> Marks:
    """`FiftyOneDataset`: samples with fields of classifications, or of what was found in them."""
    inner = {"Classifications": "classifications", "Detections": "detections", "Polylines": "polylines"}
    column, others = fiftyone_field(samples, {**inner, "Classification": "", "Detection": ""}, path, field, "labels")

    def of_sample(sample: Any) -> Iterator[Mark]:
        value = sample.get(column) or {}
        every = value.get(inner[value["_cls"]]) if value.get("_cls") in inner else [value] if value else []
        known = [fiftyone_attributes(one) for one in every or () if one.get("label") is not None]
        labels = tuple(dict.fromkeys(str(one["label"]) for one in known))
        checked = [is_said(one[CHECKED]) for one in known if one.get(CHECKED) is not None]
        # The attributes of a label are fields of it here; people write others beside it.
        named = [origin_of({**_said(sample), **_said(one)}) for one in known]
        origin = next((one for one in named if one.sample_id is not None), origin_of(sample))
        yield Mark(
            origin.sample_id,
            str(sample.get("filepath") or "") or None,
            labels,
            state=State.LABELLED if labels else State.EMPTY,
            is_checked=any(checked) if checked else None,
            mode=origin.mode,
            ds_id=origin.ds_id,
            suggested=next(filter(None, (suggested_of(one.get("suggested")) for one in known)), ()),
        )

    return Marks("FiftyOne", tuple(each(samples, of_sample)), others=others)


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of which sample it is about, and nothing that it leaves out."""
    return {key: record[key] for key in (SAMPLE_ID, MODE, DS_ID) if record.get(key) is not None}


def coco_parts(found: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, list[Mapping[str, Any]]], list[Mark]]:
    """The names of categories and the annotations of pictures, each by its id, and marks of those without a picture."""
    known = [one for one in found.get("categories") or [] if isinstance(one, Mapping)]
    names = {str(category.get("id")): str(category.get("name")) for category in known}
    of_image: dict[str, list[Mapping[str, Any]]] = {}
    for annotation in found["annotations"]:
        if isinstance(annotation, Mapping):
            of_image.setdefault(str(annotation.get("image_id")), []).append(annotation)
    others = of_image.keys() - {str(one.get("id")) for one in found["images"] if isinstance(one, Mapping)}
    unreadable = [Mark(None, f"image {n}", (), state=State.UNREADABLE) for n in sorted(others) for _ in of_image[n]]
    return names, of_image, unreadable


def _coco(found: Mapping[str, Any]) -> Iterator[Mark]:
    """COCO (https://cocodataset.org/#format-data): the categories of each picture's annotations."""
    names, of_image, others = coco_parts(found)
    yield from others

    def of_picture(image: Any) -> Iterator[Mark]:
        own = of_image.get(str(image.get("id")), [])
        attributes = [one.get("attributes") or {} for one in own]
        named = [origin_of({**known, **_said(image)}) for known in attributes]
        for origin, places in by_sample(named) if own else [(origin_of(image), [])]:
            checked = [is_said(attributes[n][CHECKED]) for n in places if CHECKED in attributes[n]]
            categories = [own[n].get("category_id") for n in places]
            labels = tuple(dict.fromkeys(names.get(str(one), f"category {one}") for one in categories))
            yield Mark(
                origin.sample_id,
                str(image.get("file_name") or "") or None,
                labels,
                when=str(image.get("date_captured") or ""),
                state=State.LABELLED if labels else State.EMPTY,
                is_checked=any(checked) if checked else None,
                mode=origin.mode,
                ds_id=origin.ds_id,
                suggested=next(filter(None, (suggested_of(attributes[n].get("suggested")) for n in places)), ()),
            )

    yield from each(found["images"], of_picture)


_LABELS = Readers("labels", _cvat, _coco, _fiftyone, _fiftyone_samples, _label_studio, _of_table)
