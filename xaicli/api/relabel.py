"""Samples to people who correct labels, and their corrections back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from xaicli.answer import Answer
from xaicli.api.pages import Asked, shown
from xaicli.errors import UsageError, whole_number
from xaicli.files import Written, spare, write_whole
from xaicli.relabel.tasks import Batch, Tool, files_of, picture_names
from xaicli.results import Result

if TYPE_CHECKING:
    import polars as pl

    from xaicli.api.rows import RunRows
    from xaicli.choices.rules import Choice
    from xaicli.diagnosis.objects import Places
    from xaicli.queries.media import Thumbnail
    from xaicli.reader import Reader

_OF_SELECT = ("by", "weight", "stat", "complete_only", "table", "column", "split")
"""What `select` is asked and `relabel export` is not."""
_SUFFIX = {Tool.LABEL_STUDIO: ".json", Tool.CVAT: ".xml", Tool.FIFTYONE: "", Tool.COCO: ".json", Tool.CSV: ".csv"}


@dataclass(frozen=True)
class Export:
    """Tasks ready to be written.

    Attributes:
        result: The samples, with their report.
        batch: What is to be looked at.
        tool: Whose format.
        thumbnails: Pictures that are written beside it, by (mode, ds_id, sample_id); empty for none.
        prefix: What is put before their paths.
    """

    result: Result
    batch: Batch
    tool: Tool
    thumbnails: Mapping[tuple[str, str, Any], Thumbnail]
    prefix: str = ""

    def write(self, target: Path) -> list[Path]:
        """Write the files.

        Args:
            target: The file; of FiftyOne the folder.

        Returns:
            Their paths, the one to import first.

        Raises:
            UnwrittenError: Some cannot be written; all others are.
        """
        stem = target.stem if _SUFFIX[self.tool] else target.name
        batch, pictures = self.batch, Written()
        if self.thumbnails:
            folder = target.with_name(f"{stem}-pictures")
            before = _before(self.tool, self.prefix, folder)
            batch, contents = _pictured(batch, self.thumbnails, before)
            for name, content in contents.items():
                pictures.add(folder / name, partial(write_whole, content=content))
        files, texts = Written(), self._texts(batch, stem)
        spare(target.parent / name for name in texts)
        for name, text in texts.items():
            files.add(target.parent / name, partial(write_whole, content=text.encode("utf-8", "replace")))
        files.extend(pictures)
        files.check("name another file with -o")
        return files.paths

    def _texts(self, batch: Batch, stem: str) -> dict[str, str]:
        if not batch.of_boxes:
            return files_of(batch, self.tool, stem)
        from xaicli.relabel import boxes

        return boxes.files_of(batch, self.tool, stem)


def tool_of(to: str | None, target: Path | None) -> Tool:
    """The format that is asked for: by its name, else by the suffix of the file.

    Raises:
        UsageError: There is none of that name, or it is not written to such a file.
    """
    suffix = "" if target is None else target.suffix.lower()
    try:
        by_suffix = {".csv": Tool.CSV, ".xml": Tool.CVAT}.get(suffix, Tool.LABEL_STUDIO)
        tool = by_suffix if to is None else Tool(to.lower().replace("_", "-"))
    except ValueError:
        raise UsageError(f"there is no format {to!r}", hint="choose from: " + ", ".join(Tool)) from None
    wanted = _SUFFIX[tool]
    if target is not None and wanted and suffix and not target.is_dir() and suffix != wanted:
        raise UsageError(f"{target} is no {wanted} file, which {tool.value} takes", hint=f"-o {target.stem}{wanted}")
    return tool


def default_target(folder: Path, tool: Tool) -> Path:
    """Where an export goes unless the user says otherwise."""
    return folder / f"relabel-{tool.value}{_SUFFIX[tool]}"


def export(
    run: RunRows,
    *,
    tool: Tool,
    rule: str | None,
    ids: Any,
    path: str | None,
    prefix: str,
    pictures: bool,
    table: str | None,
    choice: Mapping[str, Any],
    select: Mapping[str, Any],
) -> Export:
    """The tasks of chosen samples; the arguments are those of `RunReader.relabel_export`."""
    asked_too = {"rule": rule if rule != "suspects" else None, "ids": ids, "pictures": pictures}
    made = _of_objects(run, table, tool, path=path, prefix=prefix, asked_too=asked_too, choice=choice, select=select)
    if made is not None:
        return made
    from xaicli.choices import questions, rules
    from xaicli.queries.media import pictures_of, thumbnails
    from xaicli.queries.selection import with_note_of_modes
    from xaicli.relabel.questions import batch_of, path_fact, pictured
    from xaicli.tables.lists import asked_in_files

    given: Any = dict(select)
    if ids is not None and rule is not None:
        raise UsageError(
            "--ids and --rule both say which samples", hint="give one of them", refused=("rule",), by=("ids",)
        )
    if rule is None and ids is not None:
        rule = "sample_id IS NOT NULL"
    elif rule is None and not given.get("where"):
        rule = "suspects"
    try:
        asked = rules.choice(rule, where=given.get("where"), **choice)
    except UsageError as error:
        if error.message.startswith("how many?"):
            error.refused = ("rule",)  # without a rule there is an answer
        raise
    if rule is None:
        given.pop("where")  # it is the rule
    reader, selection = run.selected_for(asked, **given)
    selection = with_note_of_modes(selection)
    chosen = questions.select(reader, selection, questions.Wanted(asked, ids=ids))
    batch, notes = batch_of(reader, selection, chosen, tool, path=path, prefix=prefix)
    kept: dict[tuple[str, str, Any], Thumbnail] = {}
    if pictures:
        wanted = {task.sample_id for task in batch.tasks if task.path is None}
        found, faults = thumbnails(reader, wanted)
        keys = ((task.mode, task.ds_id, task.sample_id) for task in batch.tasks if task.path is None)
        kept = pictures_of(found, keys, of_none=True)
        notes += faults
        if batch.tasks and not wanted:
            notes.append("every sample has a path: --pictures writes none")
    tasks, lacking = pictured(batch.tasks, tool, "samples", kept)
    is_told = pictures or path_fact(reader.facts, path, reader.layout.described) is not None
    if is_told:
        notes += lacking
    elif lacking and tool is not Tool.CSV:
        notes.append(
            "no fact says where pictures are: run.log_facts(ids, path=...), --path FACT, or --pictures for thumbnails"
        )
    notes += _unused(asked, seed=choice["seed"], metric=given.get("metric"))
    if prefix and batch.tasks and not kept and all(task.path is None for task in batch.tasks):
        notes.append("no picture is named: --prefix is put before none")
    options: dict[str, Any] = {"to": tool.value, "path": path, "prefix": prefix, "pictures": pictures, "ids": ids}
    options |= asked_in_files(ids)
    answer = replace(
        chosen,
        command="relabel export",
        selection={
            **{key: value for key, value in chosen.selection.items() if key not in _OF_SELECT},
            **options,
            "rule": None if ids is not None else chosen.selection["rule"],
        },
        data=_with_tasks(chosen.data, batch),
        warnings=(*(w for w in chosen.warnings if "relabel export" not in w), *notes),
        extra={"classes": list(batch.classes), "chosen": chosen.extra["chosen"], "in_file": len(tasks)},
    )
    written = replace(batch, tasks=tasks)
    return Export(shown(Asked(answer, run.layout, reader, selection)), written, tool, kept, prefix)


def _unused(asked: Choice, *, seed: int, metric: Any) -> list[str]:
    """What is said of options that settings give every command, and that change nothing of what a rule finds."""
    from xaicli.choices.rules import DRAWS, ORDERS

    said = []
    if metric is not None and asked.rule not in ORDERS:
        said.append(f"--rule {asked.named} goes by no metric: --metric changes nothing")
    if seed != 0 and asked.rule not in DRAWS:
        said.append(f"--rule {asked.named} draws nothing: --seed changes nothing")
    return said


def _of_objects(
    run: RunRows,
    table: str | None,
    tool: Tool,
    *,
    path: str | None,
    prefix: str,
    asked_too: Mapping[str, Any],
    choice: Mapping[str, Any],
    select: Mapping[str, Any],
) -> Export | None:
    """The pictures with doubted objects, where a table of objects is named or the run has no rows of samples."""
    refused = {**asked_too, **{name: choice[name] for name in ("share", "per_label", "seed")}}
    found = _objects_asked(run, table, {**select, **refused})
    if found is None:
        return None
    from xaicli.diagnosis.objects import told_places
    from xaicli.reader.lazy import taken_back_of
    from xaicli.relabel.boxes import batch_of_objects

    n = None if choice["n"] is None else whole_number("--n", choice["n"], least=1)
    reader, table, chosen = found
    batch, data, notes = batch_of_objects(reader, table, tool, chosen=chosen, n=n, path=path, prefix=prefix)
    taken_back = taken_back_of(reader, table)
    options = {"table": table, "to": tool.value, "n": n, "path": path, "prefix": prefix}
    answer = Answer(
        command="relabel export",
        run=reader.layout.described,
        selection={**told_places(chosen), "facts": reader.facts.given or None, **options},
        data=data,
        counts=replace(reader.counts(), taken_back=sum(taken.rows for taken in taken_back)),
        warnings=(*reader.warnings, *map(str, taken_back), *notes),
        extra={
            "classes": list(batch.classes),
            "pictures": len(batch.tasks),
            "in_file": _rows_in_file(data, batch),
        },
    )
    return Export(shown(Asked(answer, run.layout, reader)), batch, tool, {}, prefix)


def _rows_in_file(data: pl.DataFrame, batch: Batch) -> int:
    """How many of the doubted objects stand in the pictures of a file, with corners that can be drawn."""
    import polars as pl

    drawn = {(task.mode, task.sample_id, box.corners) for task in batch.tasks for box in task.boxes if box.doubt}
    places = data.select("mode", "sample_id", pl.concat_list("x0", "y0", "x1", "y1")).iter_rows()
    return sum((mode, sample_id, tuple(corners)) in drawn for mode, sample_id, corners in places)


def _objects_asked(
    run: RunRows, table: str | None, select: Mapping[str, Any]
) -> tuple[Reader, str, Places | None] | None:
    """The run's reader, and which table and places of objects are asked for; None where it is samples."""
    from xaicli.api.rows import OPENING
    from xaicli.diagnosis.errors import objects_asked

    if table is None and not run.layout.tables.is_dir():
        return None
    given: Any = dict(select)
    reader = run.reader(**{name: given.pop(name) for name in OPENING if name in given})
    asked = objects_asked(reader, table, **given)
    return None if asked is None else (reader, *asked)


def _with_tasks(data: pl.DataFrame, batch: Batch) -> pl.DataFrame:
    """The chosen rows with what the tasks say beside."""
    import polars as pl

    chosen = data.filter(pl.col("rank").is_not_null()).drop("weight")
    names = [", ".join(task.suggested) or None for task in batch.tasks]
    kind = None if chosen.schema["suggested_label"] == pl.Null() else chosen.schema["suggested_label"]
    return chosen.with_columns(
        pl.Series("suggested_label", [task.suggested_label for task in batch.tasks], kind, strict=False),
        pl.Series("suggested", names, pl.String),
        pl.Series("path", [task.path for task in batch.tasks], pl.String),
    )


def _before(tool: Tool, prefix: str, folder: Path) -> str:
    """What stands before the file names of pictures that are written beside an export, as its tool finds them.

    CVAT and COCO name pictures relative to their folder, FiftyOne relative to the folder of its list.
    """
    match tool:
        case Tool.CVAT | Tool.COCO:
            return f"{prefix}{folder.name}/" if prefix else ""
        case Tool.FIFTYONE:
            return f"{prefix}{folder.name}/" if prefix else f"../{folder.name}/"
        case Tool.LABEL_STUDIO | Tool.CSV:
            return f"{prefix}{folder.name}/"
        case _:
            assert_never(tool)


def _pictured(
    batch: Batch, kept: Mapping[tuple[str, str, Any], Thumbnail], before: str
) -> tuple[Batch, dict[str, bytes]]:
    """The batch with kept thumbnails as its pictures, and these as PNG by file name."""
    import io

    import numpy as np
    from PIL import Image

    tasks, files = [], {}
    names = picture_names([(task.mode, task.ds_id, task.sample_id) for task in batch.tasks])
    for name, task in zip(names, batch.tasks, strict=True):
        thumbnail = kept.get((task.mode, task.ds_id, task.sample_id))
        if task.path is None and thumbnail is not None:
            shape = (thumbnail.height, thumbnail.width, thumbnail.channels)
            pixels = np.frombuffer(thumbnail.pixels, np.uint8).reshape(shape)
            content = io.BytesIO()
            Image.fromarray(pixels[..., 0] if thumbnail.channels == 1 else pixels).save(content, "PNG")
            files[name] = content.getvalue()
            task = replace(task, path=f"{before}{name}", size=(thumbnail.width, thumbnail.height))
        tasks.append(task)
    return replace(batch, tasks=tasks), files


def apply(
    run: RunRows,
    files: Sequence[str | os.PathLike[str]],
    *,
    path: str | None,
    field: str | None,
    by: str | None,
    label_map: Any,
    table: str | None,
    select: Mapping[str, Any],
) -> Result:
    """Corrections; the arguments are those of `RunReader.relabel_apply`."""
    from xaicli.queries.resolution import named_labels, named_values
    from xaicli.relabel import questions

    if found := _objects_asked(run, table, {name: value for name, value in select.items() if value is not None}):
        from xaicli.relabel.objects import apply_to_objects

        reader, table, chosen = found
        names = {str(name): value for name, value in named_values(label_map)}
        answer = apply_to_objects(reader, table, files, chosen=chosen, path=path, field=field, by=by, label_map=names)
        return shown(Asked(answer, run.layout, reader))
    given: Any = {"mode": "all", **{key: value for key, value in select.items() if value is not None}}
    reader, selection = run.selected_for(None, **given)
    more = named_labels(reader, selection.label_key, label_map)
    answer = questions.apply(reader, selection, files, path=path, field=field, by=by, label_map=more)
    return shown(Asked(answer, run.layout, reader, replace(selection, label_map=more)))


def corrections_of(result: Result) -> pl.DataFrame:
    """The table that `Table(relabel=...)` and `--truth` read: sample_id, label, by, when; mode and ds_id where
    they are of several, or others of the run have their ids.

    Where labels are numbers and a class is called by another than its own, the name stands beside each: CSV does not
    tell 2 from "2".
    Of objects a row each that stands: see `xaicli.relabel.objects.standing`.
    """
    import polars as pl

    data = result.data
    if "change" in data.columns:
        from xaicli.relabel.objects import standing

        return standing(data)
    columns = ["sample_id", "label", "by", "when"]
    several = data.select("mode", "ds_id").n_unique() > 1 or "shared_ids" in result.answer.extra
    names = ["name"] if "classes" in result.answer.extra else []
    found = data.select(*columns, *names, *(["mode", "ds_id"] if several else []))
    # What nobody said is missing: an empty text would be written as "".
    return found.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in ("by", "when"))
