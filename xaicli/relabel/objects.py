"""What people said of objects in pictures: their boxes beside the recorded ones: `relabel_apply` of a table."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.answer import Counts as AnswerCounts
from xaicli.diagnosis.confusion import wilson
from xaicli.diagnosis.objects import Places, doubted_objects, every_picture, overlaps, told_places
from xaicli.errors import UsageError, XaiError
from xaicli.queries.selection import Pair
from xaicli.reader import Reader
from xaicli.reader.lazy import taken_back_of
from xaicli.relabel.boxes import called, size_of
from xaicli.relabel.corrections import (
    EITHER_LABEL,
    NOT_LOOKED_AT,
    SKIPPED,
    UNKNOWN_LABEL,
    UNTOUCHED,
    Correction,
    LeftOut,
    Sample,
    Samples,
    corrections,
)
from xaicli.relabel.drawn import MADE_UP, read_boxes
from xaicli.relabel.marks import Mark, State
from xaicli.relabel.questions import files_told, notes_of, path_fact
from xaicli.relabel.tasks import CORNERS, Box
from xaicli.tables.labels import Classes, Spelt
from xaicli.tables.schema import class_names
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID
from xaicli.words import quoted

_STILL = 0.006
"""Pixels by which a corner may be off and is still where it was: CVAT writes two decimals."""
_SAME = 0.5
_TOLD = ("number", LABEL, *CORNERS, "crowd")


class Object(NamedTuple):
    """One object as the run would spell it: its class, its corners in pixels, its number where it is recorded."""

    number: int | None
    label: int
    corners: tuple[float, ...]
    is_crowd: bool

    def is_at(self, corners: Sequence[float]) -> bool:
        """Whether its corners are these, but for rounding."""
        return all(abs(a - b) <= _STILL for a, b in zip(self.corners, corners, strict=True))


@dataclass(frozen=True)
class Objects:
    """What a run has recorded of the objects in pictures.

    Attributes:
        names: Of the classes.
        more: Further names, {name: class}.
        known: The classes that occur.
        sizes: Width and height of pictures, by sample as text.
        proposed: What the model found where nothing is recorded, by (split, sample as text).
    """

    names: tuple[str, ...]
    more: Mapping[str, int]
    known: frozenset[int]
    sizes: Mapping[str, tuple[float, float]]
    proposed: Mapping[tuple[str, str], Sequence[Object]]

    def taken(self, mark: Mark, sample: Sample, left: LeftOut, named: str) -> tuple[list[Object]] | None:
        """The objects of a picture as a mark has them; None where it says nothing, which is counted."""
        if mark.state in (State.SKIPPED, State.UNTOUCHED):
            left.add(SKIPPED if mark.state is State.SKIPPED else UNTOUCHED, named)
            return None
        size = mark.size or self.sizes.get(str(sample[1]))
        found: list[tuple[Box, Object]] = []
        for box in mark.boxes:
            if box.in_shares and size is None:
                left.add("boxes in shares of a picture whose size is not known", named)
                return None
            meant = self._classes.meant(box.label, box.spelt, box.called)
            if len(meant) != 1:
                left.add(EITHER_LABEL if meant else UNKNOWN_LABEL, f"{named}: {quoted(box.label)}")
                return None
            corners = _in_pixels(box, size)
            if not all(map(math.isfinite, corners)) or corners[0] > corners[2] or corners[1] > corners[3]:
                left.add("a box stands in the picture whose corners are none", named)
                return None
            found.append((box, Object(box.number, meant[0], corners, bool(box.is_crowd))))
        if mark.fault:
            left.add(mark.fault, named)
            return None
        before: list[Object] = sample[2]
        own, unchecked = _numbered(found, before, self.proposed.get((sample[0][0], str(sample[1])), ()))
        if mark.is_checked is False and own == before:
            left.add(NOT_LOOKED_AT, named)
            return None
        for _ in range(unchecked):
            left.add("what the model found, and nobody checked", named)
        for box, one in found:
            for number in self._classes.instead(box.label, box.spelt, box.called):
                left.as_names[box.label, one.label, number] += 1
        return (own,)

    def suggested(self, marks: Sequence[Mark]) -> dict[int, int]:
        """The classes that files bring back as what recorded objects might be of, by number."""
        boxes = [box for mark in marks for box in mark.boxes if box.number is not None and box.suggested]
        meant = {box.number: self._classes.meant(box.suggested, Spelt.NAME) for box in boxes}
        return {number: classes[0] for number, classes in meant.items() if number is not None and len(classes) == 1}

    @cached_property
    def _classes(self) -> Classes[int]:
        return Classes({name: number for number, name in enumerate(self.names)}, self.known, self.more)


def _in_pixels(box: Box, size: tuple[float, float] | None) -> tuple[float, ...]:
    if not box.in_shares or size is None:
        return box.corners
    return tuple(end * side for end, side in zip(box.corners, (*size, *size), strict=True))


def _numbered(
    found: Sequence[tuple[Box, Object]], before: Sequence[Object], proposed: Sequence[Object]
) -> tuple[list[Object], int]:
    """The objects of a picture, each that is recorded with its number and, where it did not move, its very corners.

    Of several with one number, as of copies, the nearest has it. One without a number is that recorded object on which
    it lies. What the model proposes is no object until somebody checks or changes it.

    Returns:
        The recorded ones by number, then those that are new by their corners; and how many proposals are none.
    """
    recorded = {one.number: one for one in before}
    of_number: dict[int | None, tuple[float, int]] = {}
    for place, (_, one) in enumerate(found):
        if one.number in recorded:
            away = max(abs(a - b) for a, b in zip(one.corners, recorded[one.number].corners, strict=True))
            of_number[one.number] = min((away, place), of_number.get(one.number, (math.inf, -1)))
    numbers = {place: number for number, (_, place) in of_number.items()}
    for place, (box, one) in enumerate(found):
        if place not in numbers and (box.number is None or box.number not in recorded):
            free = [old for old in before if old.number not in of_number and one.is_at(old.corners)]
            if free:
                nearest = min(free, key=lambda old: (old.label != one.label, old.number))
                numbers[place] = nearest.number
                of_number[nearest.number] = 0.0, place
    objects, unchecked = [], 0
    for place, (box, one) in enumerate(found):
        if place in numbers:
            old = recorded[numbers[place]]
            corners = old.corners if one.is_at(old.corners) else one.corners
            crowd = old.is_crowd if box.is_crowd is None else box.is_crowd
            objects.append(Object(old.number, one.label, corners, crowd))
            continue
        same = next((p for p in proposed if p.label == one.label and one.is_at(p.corners)), None)
        if box.is_checked is False and (same is not None or (box.doubt == MADE_UP and not proposed)):
            unchecked += 1
            continue
        objects.append(one._replace(number=None, corners=one.corners if same is None else same.corners))
    return sorted(objects, key=lambda one: (one.number is None, one.number or 0, one.corners, one.label)), unchecked


def apply_to_objects(
    reader: Reader,
    table: str,
    files: Sequence[str | os.PathLike[str]],
    *,
    chosen: Places | None = None,
    path: str | None = None,
    field: str | None = None,
    by: str | None = None,
    label_map: Mapping[str, Any] | None = None,
) -> Answer:
    """The objects of pictures after people looked at them, and how many of the doubts were right.

    Args:
        reader: The run.
        table: Rows of `BoundingBoxMetricsCollector` or `InstanceMaskMetricsCollector`.
        files: What the tools wrote.
        chosen: Only these places; all when None.
        path: The fact that holds the place of a picture; a usual name when None.
        field: The control or field with the boxes, where a file has several.
        by: Only what this person said.
        label_map: Further names of classes: {name: number or name of the class}.

    Returns:
        Rows sample_id, label, name, x0, y0, x1, y1 (pixels), crowd, by, when, change (confirmed, relabelled, moved,
        regrouped, several of these with `and`, added, removed), number (of the recorded object; null for one added),
        recorded (its class), recorded_name, doubt, votes, mode, ds_id: an object each, of every picture that was taken.
        A removed one has no label and the corners that it had; a picture in which nothing is and was has one row
        without any. Further keys: `pictures` taken, `changes` {change: n}, `left_out`, `files`, and `suspects`: of
        each doubt how many were looked at, how many of these were wrong, of how many the files bring back what was
        `suggested`, and how often that was right (None where it is of none).

    Raises:
        XaiError: A file cannot be read, or nothing in any of them is about the run.
        UsageError: There is no file.
    """
    if not files:
        raise UsageError("which file? there is none to apply", hint="xai relabel apply RUN_DIR FILE")
    known = reader.facts
    where = path_fact(known, path, reader.layout.described)
    recorded, doubted, pictures = doubted_objects(reader, table, chosen)
    names = class_names(reader.layout, table, LABEL)
    frames = _frames(recorded, pictures)
    more = {name: _class(value, names) for name, value in (label_map or {}).items()}
    objects = Objects(
        names,
        more,
        frozenset({*recorded[LABEL].cast(pl.Int64), *range(len(names)), *more.values()}),
        _sizes(known.frame, where),
        _proposals(doubted),
    )
    paths = [] if where is None else known.frame.select(where, SAMPLE_ID).drop_nulls().rows()
    modes = list(chosen.epochs) if chosen is not None and chosen.modes_said else []
    limits = f"--mode {','.join(modes)}" if modes else ""

    def others() -> Samples:
        every = every_picture(reader, table).filter(~pl.col(MODE).is_in(modes))
        return _Pictures(_frames(recorded.clear(), every), paths)

    samples = _Pictures(frames, paths, limits=limits, left_out=others)
    marks = read_boxes(files, field=field)
    taken, left = corrections(marks, samples, objects, by=by)
    n_marks = sum(len(one.marks) for one in marks)
    if n_marks and (named := left.of_none(samples, n_marks)):
        within = f" of {' and '.join(modes)}" if modes else ""
        raise XaiError(
            f"nothing in {', '.join(map(str, files))} is about a picture{within} of {reader.layout.described}",
            hint=(f"{limits} leaves the others out; " if limits else "")
            + f"they name {named}; --path FACT says where pictures are",
        )
    doubts = {(row[MODE], str(row[SAMPLE_ID]), row.get("instance_id")): row["doubt"] for row in doubted}
    taken_back = taken_back_of(reader, table)
    rows = [row for one in taken for row in _rows(one, names, doubts)]
    return Answer(
        command="relabel apply",
        run=reader.layout.described,
        selection={
            **told_places(chosen),
            "table": table,
            "files": [os.fspath(file) for file in files],
            "facts": reader.facts.given or None,
            **({} if reader.facts.wanted else {"no_facts": True}),
            "path": path,
            "field": field,
            "by": by,
            "label_map": more,
        },
        data=pl.DataFrame(rows, schema=_schema(pictures.schema[SAMPLE_ID]), orient="row"),
        counts=AnswerCounts(rows=n_marks, taken_back=sum(taken.rows for taken in taken_back), damaged=reader.damaged),
        warnings=(*reader.warnings, *map(str, taken_back), *known.warnings, *notes_of(files, marks, left, taken)),
        extra={
            "files": files_told(files, marks),
            "left_out": left.rows(),
            "pictures": len(taken),
            "changes": dict(Counter(row["change"] for row in rows).most_common()),
            "suspects": _judged(taken, doubted, objects),
        },
    )


def _class(value: Any, names: tuple[str, ...]) -> int:
    """The number of a class that `--label-map` gives another name."""
    if str(value) in names:
        return names.index(str(value))
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"--label-map: {value!r} is no class", hint=f"classes: {', '.join(names)}") from None


class _Pictures(Samples):
    """The pictures of a run: what is recorded of one is the list of its objects."""

    def __init__(self, frames: Mapping[Pair, Mapping[Any, list[Object]]], paths: Any, **limits: Any) -> None:
        ids = {pair: pl.DataFrame({SAMPLE_ID: list(own), LABEL: [None] * len(own)}) for pair, own in frames.items()}
        super().__init__(ids, paths, **limits)
        self.recorded = {
            text: [(pair, sample_id, frames[pair][sample_id]) for pair, sample_id, _ in found]
            for text, found in self.recorded.items()
        }


def _frames(recorded: pl.DataFrame, pictures: pl.DataFrame) -> dict[Pair, dict[Any, list[Object]]]:
    """What is recorded in every picture, by number; what has no finite corners was never given to anybody."""
    found: dict[Pair, dict[Any, list[Object]]] = {}
    for split, sample_id in pictures.iter_rows():
        found.setdefault((split, ""), {})[sample_id] = []
    for row in recorded.sort("instance_id").iter_rows(named=True):
        one = Object(int(row["instance_id"]), *_of_row(row), row["outcome"] == "ignored")
        if all(map(math.isfinite, one.corners)):
            found[row[MODE], ""][row[SAMPLE_ID]].append(one)
    return found


def _of_row(row: Mapping[str, Any]) -> tuple[int, tuple[float, ...]]:
    return int(row[LABEL]), tuple(float(row[name]) for name in CORNERS)


def _sizes(facts: pl.DataFrame, where: str | None) -> dict[str, tuple[float, float]]:
    if not {"width", "height"} & set(facts.columns) and where is None:
        return {}
    found = {}
    for row in facts.iter_rows(named=True):
        file = None if where is None or row[where] is None else str(row[where])
        if (size := size_of(row, file)) is not None:
            found[str(row[SAMPLE_ID])] = (float(size[0]), float(size[1]))
    return found


def _proposals(doubted: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Object]]:
    found: dict[tuple[str, str], list[Object]] = {}
    for row in doubted:
        if row.get("instance_id") is None:
            found.setdefault((row[MODE], str(row[SAMPLE_ID])), []).append(Object(None, *_of_row(row), False))
    return found


def _change(one: Object, old: Object) -> str:
    said = (
        ("relabelled", one.label != old.label),
        ("moved", one.corners != old.corners),
        ("regrouped", one.is_crowd != old.is_crowd),
    )
    return " and ".join(word for word, is_so in said if is_so) or "confirmed"


def _rows(taken: Correction, names: tuple[str, ...], doubts: Mapping[Any, str]) -> Iterator[dict[str, Any]]:
    """The objects of one picture, and those that were removed from it."""
    told = {SAMPLE_ID: taken.sample_id, "by": taken.by, "when": taken.when, MODE: taken.pair[0], DS_ID: taken.pair[1]}
    told["votes"] = f"{taken.votes[0]} of {taken.votes[1]}"
    before = {one.number: one for one in taken.recorded}

    def row(one: Object | None, change: str, label: int | None) -> dict[str, Any]:
        number = None if one is None else one.number
        old = before.get(number)
        return {
            **dict.fromkeys(_schema(pl.String())),
            **told,
            **({} if one is None else dict(zip(CORNERS, one.corners, strict=True)) | {"crowd": one.is_crowd}),
            LABEL: label,
            "name": None if label is None else called(label, names),
            "change": change,
            "number": number,
            "recorded": None if old is None else old.label,
            "recorded_name": None if old is None else called(old.label, names),
            "doubt": None if number is None else doubts.get((taken.pair[0], str(taken.sample_id), number)),
        }

    kept: set[int | None] = set()
    for one in taken.label:
        old = before.get(one.number)
        kept.add(one.number)
        yield row(one, "added" if old is None else _change(one, old), one.label)
    for number, old in before.items():
        if number not in kept:
            yield row(old, "removed", None)
    if not taken.label and not before:
        yield row(None, "confirmed", None)


def _schema(ids: pl.DataType) -> dict[str, pl.DataType]:
    text, number, real = pl.String(), pl.Int64(), pl.Float64()
    return {
        SAMPLE_ID: ids,
        LABEL: number,
        "name": text,
        **dict.fromkeys(CORNERS, real),
        "crowd": pl.Boolean(),
        "by": text,
        "when": text,
        "change": text,
        "number": number,
        "recorded": number,
        "recorded_name": text,
        "doubt": text,
        "votes": text,
        MODE: text,
        DS_ID: text,
    }


def _judged(
    taken: Sequence[Correction], doubted: Sequence[Mapping[str, Any]], spelling: Objects
) -> list[dict[str, Any]]:
    """Of each doubt, how many were looked at and how many of these were wrong: relabelled, removed, to be added, or
    moved where the place was doubted; of how many the files bring a suggestion back, and how often that was right. What
    the model alone found is itself what it suggests.
    """
    of_picture = {(one.pair[0], str(one.sample_id)): (one.label, spelling.suggested(one.marks)) for one in taken}
    counts: dict[tuple[str, str], list[int]] = {}
    for row in doubted:
        key = row[MODE], str(row[SAMPLE_ID])
        if key not in of_picture:
            continue
        objects: list[Object] = of_picture[key][0]
        label, corners = _of_row(row)
        suggested: int | None = label
        if row.get("instance_id") is None:
            here = np.array([corners])
            near = [
                o.label for o in objects if o.number is None and overlaps(here, np.array([o.corners]))[0, 0] >= _SAME
            ]
            wrong, right = bool(near), label in near
        else:
            stands = next((one for one in objects if one.number == row["instance_id"]), None)
            suggested = of_picture[key][1].get(row["instance_id"])
            now = None if stands is None else stands.label
            was_moved = row["doubt"] == "badly_placed" and stands is not None and not stands.is_at(corners)
            wrong, right = now != label or was_moved, suggested is not None and now == suggested
        count = counts.setdefault((row[MODE], row["doubt"]), [0, 0, 0, 0])
        for place, is_so in enumerate((True, wrong, suggested is not None, right)):
            count[place] += is_so
    found = []
    for (split, doubt), (n, wrong_n, shown_n, right_n) in sorted(counts.items()):
        low, high = wilson(wrong_n, n)
        told = {MODE: split, DS_ID: "", "doubt": doubt, "looked_at": n, "wrong": wrong_n, "share": wrong_n / n}
        told |= {"low": low, "high": high, "suggested": shown_n}
        found.append({**told, "suggestion_right": right_n if shown_n else None})
    return found


def standing(data: pl.DataFrame) -> pl.DataFrame:
    """What stands in the pictures after the corrections: a row an object, or one without any of an empty picture.

    Returns:
        sample_id, label, name, x0, y0, x1, y1, crowd, by, when; and the mode, where there are several splits.
    """
    several = data.select(MODE, DS_ID).n_unique() > 1
    columns = [SAMPLE_ID, LABEL, "name", *CORNERS, "crowd", "by", "when", *([MODE] if several else [])]
    place = [MODE, DS_ID, SAMPLE_ID]
    stands = pl.col(LABEL).is_not_null()
    bare = data.filter(~stands.any().over(place)).unique(place, keep="first", maintain_order=True)
    empty = [pl.lit(None, data.schema[name]).alias(name) for name in ("name", *CORNERS, "crowd")]
    order = data.select(place).unique(maintain_order=True).with_row_index("picture")
    rows = pl.concat([data.filter(stands), bare.with_columns(empty)])
    return (
        rows.join(order, on=place, maintain_order="left")
        .sort("picture", maintain_order=True)
        .select(columns)
        .with_columns(
            # What nobody said is missing: an empty text would be written as "".
            pl.when(pl.col(name) != "").then(pl.col(name)).alias(name)
            for name in ("by", "when")
        )
    )
