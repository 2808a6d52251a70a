"""What is asked about labels and people: `relabel_export`, `relabel_apply`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.choices.candidates import with_columns
from xaicli.diagnosis.confusion import wilson
from xaicli.dynamics.computed import Statistics, compute
from xaicli.dynamics.suspects import every_suspect
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.names import LabelNames, told_as
from xaicli.queries.selection import Pair, Selection, left_out_by
from xaicli.queries.tasks import LabelKind, about_texts, are_texts, labels_of
from xaicli.queries.truth import are_numbers
from xaicli.reader import Reader
from xaicli.reader.facts import Facts
from xaicli.relabel.corrections import OTHER_FIELD, Correction, Labels, LeftOut, Samples, corrections
from xaicli.relabel.marks import Marks, read_marks
from xaicli.relabel.tasks import FIFTYONE_PICTURES, Batch, Task, Tool, facts_called
from xaicli.tables.labels import class_number, in_order_apart, is_same_number, taken_as_names
from xaicli.vocabulary import DS_ID, LABEL, MODE, PREDICTION, SAMPLE_ID
from xaicli.words import quoted

_PATHS = ("path", "image", "image_path", "filepath", "file_path", "file_name", "filename", "file", "url", "uri")
"""Facts that are taken for the place of a picture, the first there is."""
_FIRST = (10, 25, 50, 100, 250, 500, 1000)
_MOST_CLASSES = 10_000


def batch_of(
    reader: Reader,
    selection: Selection,
    chosen: Answer,
    tool: Tool,
    *,
    path: str | None = None,
    prefix: str = "",
) -> tuple[Batch, list[str]]:
    """The tasks of chosen samples.

    Args:
        reader: The run.
        selection: Which rows.
        chosen: What `select` answers.
        tool: Whose format they are for.
        path: The fact that holds the place of a sample's picture; a usual name when None.
        prefix: What is put before every path.

    Returns:
        The tasks, and what the user should know of them.

    Raises:
        XaiError: There is no such fact, or the format has no place for the run's labels.
    """
    refuse_texts(reader, selection.label_key)
    known = reader.facts
    where = path_fact(known, path, reader.layout.described)
    dtype = _label_dtype(reader, selection)
    if dtype is None and tool is not Tool.CSV:
        raise XaiError(
            f"the labels of {reader.layout.described} are not recorded, and {tool.value} is told what they can be",
            hint="log some with run.log_samples(..., label=...), or name the classes: Run(label_names=...); "
            f"--to {Tool.CSV.value} lists the samples",
        )
    is_number = dtype is None or are_numbers(reader, selection.label_key) or dtype.is_float()
    if is_number and tool in (Tool.CVAT, Tool.FIFTYONE, Tool.COCO):
        raise XaiError(
            f"the labels of {reader.layout.described} are numbers, and {tool.value} has classes",
            hint=f"--to {Tool.LABEL_STUDIO.value} or {Tool.CSV.value}",
        )
    names = LabelNames.of(reader, selection)
    rows = _with_answers(reader, selection, chosen, known)
    if selection.label_key != LABEL:  # which the model answers to, and to nothing else
        rows = rows.drop(PREDICTION, strict=False).with_columns(suggested_label=None)
    about = known.of(rows[SAMPLE_ID]).iter_rows(named=True)
    tasks = [
        _task(row, names, facts, where, prefix) for row, facts in zip(rows.iter_rows(named=True), about, strict=True)
    ]
    notes = list(known.warnings)
    tasks = as_tool_names(tasks, tool, prefix, notes)
    classes = [] if is_number else _classes(reader, selection, rows, names)
    batch = Batch(tasks, classes, isinstance(dtype, pl.List), made_by(reader))
    return batch, [*notes, *facts_told(batch, tool)]


def refuse_texts(reader: Reader, key: str) -> None:
    """Say of sequences that no label of theirs can be corrected.

    Raises:
        XaiError: The labels of the run are tokens.
    """
    if key == LABEL and are_texts(reader):
        raise XaiError(
            f"labels are corrected one a sample, and those of {reader.layout.described} are tokens",
            hint=f"xai select --rule hardest lists the sequences of the highest loss; {about_texts(reader)}; "
            "--label-key FACT corrects a fact",
        )


def _label_dtype(reader: Reader, selection: Selection) -> pl.DataType | None:
    """What labels are held in: of a run that recorded none yet, what predictions are, else what its task and its names
    of classes say; None where nothing tells.
    """
    dtype = reader.dtypes.get(selection.label_key)
    if dtype is not None or selection.label_key != LABEL:
        return dtype
    if PREDICTION in reader.dtypes:
        return reader.dtypes[PREDICTION]
    labels = labels_of(reader)
    if labels is LabelKind.NUMBER:
        return pl.Float64()
    if not reader.label_names:
        return None
    return pl.List(pl.Int32()) if labels is LabelKind.SET else pl.Int32()


def facts_told(batch: Batch, tool: Tool) -> tuple[str, ...]:
    """What is said of facts that a file calls otherwise."""
    called = facts_called(batch, tool)
    return told_as(called, "what is no fact has its name there", where=f" in the file for {tool.value}")


def made_by(reader: Reader) -> str:
    """What suggestions are said to be from."""
    return f"xai, run {reader.manifest.name or reader.layout.root.name}"


def path_fact(facts: Facts, path: str | None, where: str) -> str | None:
    """The fact that says where pictures are: the one asked for, else one of a usual name.

    Raises:
        XaiError: There is no such fact.
    """
    if path is not None:
        if path not in facts.names:
            raise unknown("fact", path, facts.names, where=where, note=facts.left_out)
        return path
    return next((name for name in _PATHS if name in facts.names), None)


def _with_answers(reader: Reader, selection: Selection, chosen: Answer, facts: Facts) -> pl.DataFrame:
    """The chosen samples with the model's last answer."""
    parts = []
    for pair in selection.pairs:
        own = chosen.data.filter((pl.col(MODE) == pair[0]) & (pl.col(DS_ID) == pair[1]) & pl.col("rank").is_not_null())
        if own.is_empty():
            continue
        columns = [PREDICTION] if PREDICTION in reader.dtypes else []
        parts.append(with_columns(own, reader, selection, pair, columns, facts))
    return pl.concat(parts, how="diagonal_relaxed") if parts else chosen.data.clear()


def _task(row: Mapping[str, Any], names: LabelNames, facts: Mapping[str, Any], where: str | None, prefix: str) -> Task:
    suggested, score = row.get("suggested_label"), row["score"]
    if suggested is None:
        answer = row.get(PREDICTION)
        suggested, score = (answer if answer is not None and answer != row[LABEL] else None), None
    path = file_told(facts, where)
    return Task(
        sample_id=row[SAMPLE_ID],
        mode=row[MODE],
        ds_id=row[DS_ID],
        labels=_named(row[LABEL], names),
        suggested=_named(suggested, names),
        suggested_label=suggested,
        score=score,
        reason=row.get("reason") or "",
        path=None if path is None else prefix + path,
        size=None if path is None else picture_size(Path(path)),
        facts={name: value for name, value in facts.items() if value is not None and name != SAMPLE_ID},
    )


def file_told(facts: Mapping[str, Any], where: str | None) -> str | None:
    """Where the facts of a sample say that its picture is; None where they do not, or say it with an empty text."""
    return None if where is None or facts.get(where) in (None, "") else str(facts[where])


def pictured(tasks: Sequence[Task], tool: Tool, what: str, kept: Collection[Any] = ()) -> tuple[list[Task], list[str]]:
    """The tasks that a tool can take, and what to know of those without a picture.

    Label Studio and CVAT refuse a whole file for one task without its picture, COCO and FiftyOne list pictures: where
    some have one, the others are left out. Where none has, all stay, by what they are called.

    Args:
        tasks: What is to be looked at.
        tool: Whose format.
        what: What the tasks are, in the plural.
        kept: The samples whose thumbnails are written, by (mode, ds_id, sample_id).
    """
    having = [t for t in tasks if t.path is not None or (t.mode, t.ds_id, t.sample_id) in kept]
    lacking = len(tasks) - len(having)
    if not lacking:
        return list(tasks), []
    said = f"{lacking:,} of {len(tasks):,} {what} {'has' if lacking == 1 else 'have'} no picture"
    if tool is Tool.CSV or not having:
        return list(tasks), [said]
    left = "is left out" if lacking == 1 else "are left out"
    return having, [f"{said}, and {left} of the file for {tool.value}: --to csv lists all"]


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture that can be opened here."""
    if not path.is_file():
        return None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, UnidentifiedImageError, ValueError):
        return None


def as_tool_names(tasks: list[Task], tool: Tool, prefix: str, notes: list[str]) -> list[Task]:
    """The tasks with their pictures named as a tool finds them; what to know of that goes to the notes."""
    if tool in (Tool.CVAT, Tool.COCO) and not prefix:
        tasks, folder = _within_a_folder(tasks)
        if folder:
            notes.append(f"pictures are named from {folder} on, as {tool.value} does it; --prefix writes whole paths")
    if tool is Tool.FIFTYONE:
        notes.append(FIFTYONE_PICTURES)
        if not prefix:  # it takes a relative path as one from its list on
            tasks = [_absolute(task) for task in tasks]
    return tasks


def _absolute(task: Task) -> Task:
    """The task with the whole path of its picture, where that lies here."""
    path = Path(task.path or "")
    return replace(task, path=str(path.absolute())) if path.is_file() else task


def _within_a_folder(tasks: list[Task]) -> tuple[list[Task], str]:
    """The tasks with absolute paths made relative to the folder of them all, and that folder; "" where none is."""
    paths = [PurePath(task.path) for task in tasks if task.path is not None]
    if not paths or not all(path.is_absolute() and path.drive == paths[0].drive for path in paths):
        return tasks, ""
    folder = os.path.commonpath([path.parent for path in paths])
    relative = [
        task if task.path is None else replace(task, path=PurePath(task.path).relative_to(folder).as_posix())
        for task in tasks
    ]
    return relative, folder


def _named(label: Any, names: LabelNames) -> tuple[str, ...]:
    if label is None:
        return ()
    return tuple(names[one] for one in label) if isinstance(label, list) else (names[label],)


def _classes(reader: Reader, selection: Selection, rows: pl.DataFrame, names: LabelNames) -> list[str]:
    """The names of all labels: those of the run, else those that occur."""
    if selection.label_map:
        return [names[label] for label in selection.label_map]
    if of_classes := reader.names_of_classes(selection.label_key):
        return list(in_order_apart(of_classes))
    found: set[Any] = set()
    for frame in compute(reader, selection, jumps=False).frames.values():
        found |= set(_values(frame[LABEL]))
    is_label = selection.label_key == LABEL
    for column in (name for name in ("suggested_label", PREDICTION) if is_label and name in rows.columns):
        found |= set(_values(rows[column]))
    if len(found) > _MOST_CLASSES:
        raise XaiError(f"{len(found):,} labels are too many to choose from", hint="limit them with --label-map")
    return [names[value] for value in sorted(found)]


def _values(labels: pl.Series) -> list[Any]:
    flat = labels.drop_nulls()
    return (flat.explode() if isinstance(flat.dtype, pl.List) else flat).drop_nulls().unique().to_list()


def apply(
    reader: Reader,
    selection: Selection,
    files: Sequence[str | os.PathLike[str]],
    *,
    path: str | None = None,
    field: str | None = None,
    by: str | None = None,
    label_map: Mapping[Any, str] | None = None,
) -> Answer:
    """What people said of samples, as one label each, and how many suspects were right.

    Args:
        reader: The run whose labels were looked at.
        selection: In which modes and data sets samples are looked for; where an id is in several of them and a file
            does not say which is meant, none is.
        files: What the tools wrote.
        path: The fact that holds the place of a sample's picture; a usual name when None.
        field: The control, field or column with the label, where a file has several.
        by: Only what this person said.
        label_map: {value: name} of labels that the run does not know.

    Returns:
        Rows sample_id, label, by, when, name, recorded, recorded_name, changed, votes ("2 of 3"), suspect_rank (null
        for a sample that is no suspect), suggested_label (null where no file brings it back), mode, ds_id: one a
        sample. Further keys: `left_out` (reason, n, examples), `files` (file, format, marks), `suspects` by mode and
        ds_id: how many were looked at, how many of these were wrong (with Wilson's 95 % interval), of how many the
        files bring back what was `suggested`, and how often that was right (None where it is of none), overall and
        among the first of the ranking; the same of samples that are no suspects in `others`; and where labels are
        numbers and a class is called by another, `classes`, the names of all.

    Raises:
        XaiError: A file cannot be read, or nothing in any of them is about the run.
        UsageError: There is no file.
    """
    refuse_texts(reader, selection.label_key)
    if not files:
        raise UsageError("which file? there is none to apply", hint="xai relabel apply RUN_DIR FILE")
    known = reader.facts
    where = path_fact(known, path, reader.layout.described)
    found = compute(reader, selection, jumps=False)
    frames = {pair: found.frames[pair] for pair in selection.pairs}
    paths = [] if where is None else known.frame.select(where, SAMPLE_ID).drop_nulls().rows()
    limits = left_out_by(reader, selection)
    samples = Samples(frames, paths, limits=limits, left_out=lambda: Samples(_others(reader, frames), paths))
    labels = _labels(reader, selection, frames, label_map or {})
    read = read_marks(files, field=field)
    marks = [labels.decimals_told(one) for one in read]
    commas = [os.fspath(file) for file, one, own in zip(files, read, marks, strict=True) if one is not own]
    labels = labels.as_wide_as(marks)
    taken, left = corrections(map(labels.rows_told, marks), samples, labels, by=by)
    shared = _shared(reader, taken)
    n_marks = sum(len(one.marks) for one in marks)
    if n_marks and (named := left.of_none(samples, n_marks)):
        within = f" of {' and '.join(' '.join(filter(None, pair)) for pair in selection.pairs)}" if limits else ""
        raise XaiError(
            f"nothing in {', '.join(map(str, files))} is about a sample{within} of {reader.layout.described}",
            hint=(f"{limits} leaves the others out; " if limits else "")
            + f"they name {named}; --path FACT says where pictures are",
        )
    data, judged = _judged(reader, selection, found, taken, labels)
    return Answer(
        command="relabel apply",
        run=reader.layout.described,
        selection={
            **{key: selection.as_dict()[key] for key in (MODE, DS_ID, "label_key")},
            "files": [os.fspath(file) for file in files],
            "facts": selection.facts or None,
            **({"no_facts": True} if selection.no_facts else {}),
            "path": path,
            "field": field,
            "by": by,
            "label_map": {name: value for value, name in (label_map or {}).items()},
        },
        data=data,
        counts=Counts(rows=n_marks, damaged=reader.damaged),
        warnings=(
            *selection.warnings,
            *known.warnings,
            *_new_classes(reader, selection, frames, label_map or {}),
            *_rows_told(labels),
            *(f"the commas in the numbers of {file} are taken as decimal ones" for file in commas),
            *_told_as_shared(shared),
            *notes_of(files, marks, left, taken),
        ),
        extra={
            "files": files_told(files, marks),
            "left_out": left.rows(),
            **judged,
            **(_numbered(reader, labels) if selection.label_key == LABEL else {}),
            **({"shared_ids": shared} if shared else {}),
        },
    )


def _others(reader: Reader, frames: Mapping[Pair, pl.DataFrame]) -> dict[Pair, pl.DataFrame]:
    """The samples of the modes and data sets that are not asked about: sample_id and an empty label."""
    places = [(mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode) if (mode, ds_id) not in frames]
    found = {}
    for pair in places:
        ids = [rows.frame for rows in reader.place_frames(*pair, [SAMPLE_ID], reader.epochs(*pair))]
        found[pair] = pl.concat(ids).select(SAMPLE_ID, pl.lit(None).alias(LABEL)).unique(SAMPLE_ID, maintain_order=True)
    return found


def _shared(reader: Reader, taken: Sequence[Correction]) -> int:
    """Of how many corrections others of the run have the sample's id, in another split or data set."""
    ids = pl.Series([one.sample_id for one in taken], dtype=reader.dtypes.get(SAMPLE_ID, pl.Int64()))
    n: dict[Any, int] = {}
    for mode in reader.modes() if taken else ():
        for ds_id in reader.ds_ids(mode):
            here: set[Any] = set()
            for rows in reader.place_frames(mode, ds_id, [SAMPLE_ID], reader.epochs(mode, ds_id)):
                known = rows.frame[SAMPLE_ID]
                here |= set(known.filter(known.is_in(ids.implode())))
            for one in here:
                n[one] = n.get(one, 0) + 1
    return sum(n.get(one, 0) > 1 for one in ids)


def _told_as_shared(n: int) -> list[str]:
    """What is said of corrections whose ids others have, too."""
    if not n:
        return []
    said = "is of a sample whose id others have" if n == 1 else "are of samples whose ids others have"
    return [
        f"{n:,} of the corrections {said} in another split or data set: the table says which in mode and ds_id, and "
        "Table(relabel=FILE, mode=..., ds_id=...) takes those of one"
    ]


def _numbered(reader: Reader, labels: Labels) -> dict[str, list[str]]:
    """The names of all classes where one is called by a number that is not its own: 2 may then be another than "2"."""
    names = in_order_apart(reader.label_names)
    has_others = any(class_number(name) not in (None, number) for number, name in enumerate(names))
    return {"classes": list(names)} if has_others and labels.dtype.is_integer() else {}


def _labels(
    reader: Reader, selection: Selection, frames: Mapping[Pair, pl.DataFrame], more: Mapping[Any, str]
) -> Labels:
    """How the run spells labels."""
    dtype = _label_dtype(reader, selection)
    if dtype is None:
        raise XaiError(
            f"{reader.layout.described} has no labels to correct",
            hint="log them: run.log_samples(..., label=...), or name the classes: Run(label_names=...)",
        )
    known = {value for frame in frames.values() for value in _values(frame[LABEL])}
    known |= _predicted(reader, dtype) if selection.label_key == LABEL else set()
    by_name: dict[str, Any] = {}
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if isinstance(inner, pl.DataType) and inner.is_integer():
        names = reader.names_of_classes(selection.label_key)
        by_name = {name: number for number, name in enumerate(in_order_apart(names))}
        known |= set(range(len(names)))
    given = {name: value for value, name in more.items()}
    return Labels(dtype, frozenset({*known, *given.values()}), by_name, given)


def _predicted(reader: Reader, dtype: pl.DataType) -> set[Any]:
    """The classes that predictions have, which an export suggests and, where the run names none, offers."""
    is_one_of_them = reader.dtypes.get(PREDICTION) == dtype and not dtype.is_float()
    return reader.values(PREDICTION) if is_one_of_them else set()


def _new_classes(
    reader: Reader, selection: Selection, frames: Mapping[Pair, pl.DataFrame], more: Mapping[Any, str]
) -> list[str]:
    """What is said of classes that only the label map has."""
    known = _labels(reader, selection, frames, {}).known if more else frozenset()
    return [
        f"--label-map {quoted(name, special=',=')}={value}: the run has no class {value}, and it is a new one"
        for value, name in more.items()
        if value not in known and not isinstance(value, float)
    ]


def files_told(files: Sequence[str | os.PathLike[str]], marks: Sequence[Marks]) -> list[dict[str, Any]]:
    """file, format and how many marks of each file."""
    return [
        {"file": os.fspath(file), "format": one.format, "marks": len(one.marks)}
        for file, one in zip(files, marks, strict=True)
    ]


def notes_of(
    files: Sequence[str | os.PathLike[str]], marks: Sequence[Marks], left: LeftOut, taken: Sequence[Correction]
) -> list[str]:
    """What the user should know of what was not taken."""
    said = [f"{os.fspath(file)} names no sample" for file, one in zip(files, marks, strict=True) if not one.marks]
    for row in left.rows():
        # What stands in other controls is told by their names.
        more = ", ..." if row["n"] > len(row["examples"]) and row["reason"] != OTHER_FIELD else ""
        one = "mark was" if row["n"] == 1 else "marks were"
        said.append(f"{row['n']:,} {one} not taken: {row['reason']} ({', '.join(row['examples'])}{more})")
    if left.as_names:
        said.append(taken_as_names(left.as_names))
    if left.as_sets:
        said.append(
            f"taken as sets of class numbers, and may be rows of 0 and 1: {', '.join(left.as_sets)} "
            f"({left.as_sets.total():,} of the marks); write the names of the classes to say which"
        )
    if not taken and any(one.marks for one in marks):
        said.append("no label was taken")
    return said


def _rows_told(labels: Labels) -> list[str]:
    """What is said of rows of 0 and 1 that have more classes than a run without names recorded."""
    if not labels.rows_wide:
        return []
    highest = max((one for one in labels.known if isinstance(one, int)), default=None)
    recorded = "no class" if highest is None else f"no class above {highest}"
    return [f"rows of 0 and 1 have {labels.rows_wide:,} classes: the run names none, and recorded {recorded}"]


def _judged(
    reader: Reader,
    selection: Selection,
    found: Statistics,
    taken: Sequence[Correction],
    labels: Labels,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The rows of the answer, and how good the suspects were."""
    names = LabelNames.of(reader, selection)
    every = every_suspect(reader, selection, found)
    ranks = {
        ((str(mode), str(ds_id)), sample_id): place
        for (mode, ds_id), frame in every.group_by(MODE, DS_ID, maintain_order=True)
        for place, sample_id in enumerate(frame[SAMPLE_ID], 1)
    }
    rows = []
    for one in taken:
        rows.append(
            {
                SAMPLE_ID: one.sample_id,
                LABEL: one.label,
                "by": one.by,
                "when": one.when,
                "name": ", ".join(_named(one.label, names)),
                "recorded": one.recorded,
                "recorded_name": ", ".join(_named(one.recorded, names)),
                "changed": one.is_changed,
                "votes": f"{one.votes[0]} of {one.votes[1]}",
                "suspect_rank": ranks.get((one.pair, one.sample_id)),
                "suggested_label": labels.suggested(one.marks),
                MODE: one.pair[0],
                DS_ID: one.pair[1],
            }
        )
    ids = reader.dtypes.get(SAMPLE_ID, pl.Int64())
    text, number, dtype = pl.String(), pl.Int64(), labels.dtype
    kinds = (ids, dtype, text, text, text, dtype, text, pl.Boolean(), text, number, dtype, text, text)
    columns = (SAMPLE_ID, LABEL, "by", "when", "name", "recorded", "recorded_name", "changed", "votes", "suspect_rank")
    schema = dict(zip((*columns, "suggested_label", MODE, DS_ID), kinds, strict=True))
    data = pl.DataFrame(rows, schema=schema, orient="row")
    judged: dict[str, list[dict[str, Any]]] = {"suspects": [], "others": []}
    for (mode, ds_id), frame in data.group_by(MODE, DS_ID, maintain_order=True):
        origin = {MODE: str(mode), DS_ID: str(ds_id)}
        ranked = frame.filter(pl.col("suspect_rank").is_not_null())
        for first in (None, *_FIRST):
            part = ranked if first is None else ranked.filter(pl.col("suspect_rank") <= first)
            if part.height and (first is None or part.height < ranked.height):
                judged["suspects"].append({**origin, "first": first, **_share(part)})
        if ranked.height < frame.height:
            judged["others"].append({**origin, **_share(frame.filter(pl.col("suspect_rank").is_null()))})
    return data, judged


def _share(frame: pl.DataFrame) -> dict[str, Any]:
    wrong = int(frame["changed"].sum())
    low, high = wilson(wrong, frame.height)
    shown = frame.drop_nulls("suggested_label").select("suggested_label", LABEL).rows()
    right = sum(a == b or (isinstance(a, float) and is_same_number(a, b)) for a, b in shown)
    return {
        "looked_at": frame.height,
        "wrong": wrong,
        "share": wrong / frame.height,
        "low": low,
        "high": high,
        "suggested": len(shown),
        "suggestion_right": right if shown else None,
    }
