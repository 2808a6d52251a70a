"""A run's rows as they are: what it holds, a lazy scan, SQL, export."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, TypedDict, Unpack

from xaicli.answer import Answer
from xaicli.api.pages import Asked, shown
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.layout import RunLayout
from xaicli.results import Result
from xaicli.vocabulary import Mode

if TYPE_CHECKING:
    import polars as pl

    from xaicli.choices.rules import Choice
    from xaicli.queries.selection import Selection, Words
    from xaicli.reader import Reader
    from xaicli.reader.facts import FactFiles


def refuse_others(select: Mapping[str, Any]) -> None:
    """Refuse what is no argument of a question about rows.

    Raises:
        UsageError: There is no such argument.
    """
    for name in select:
        if name not in Select.__annotations__:
            found = unknown("argument", name, Select.__annotations__)
            hint = _WRITTEN if name in ("output", "format", "formats", "quiet", "json") else found.hint
            raise UsageError(found.message, hint=hint)


def refuse_objects_alone(reader: Reader) -> None:
    """Say what tells of a run that collected objects, or has other tables, and has no rows of samples.

    Raises:
        XaiError: The run is one.
    """
    if reader.modes() or not reader.table_folders():
        return
    from xaicli.diagnosis.objects import object_tables

    if tables := object_tables(reader):
        raise XaiError(
            f"{reader.layout.described} holds no rows of samples: this is answered of them alone",
            hint=f"of the objects in its table {tables[0]}: xai findings, xai errors, xai track-report; "
            "of its pictures: xai samples --table metrics --metric fp",
        )
    names = list(reader.table_folders())
    if names and not reader.drops and not reader.damaged and reader.where is None:
        from xaicli.queries.table_samples import ways_to_ask

        ways = [way for name in names for way in ways_to_ask(reader, name)]
        raise XaiError(
            f"{reader.layout.described} holds no rows of samples: this is answered of them alone",
            hint=f"of its tables ({', '.join(names)}): " + ", ".join([*ways, "xai query"]),
        )


def refuse_unhonoured(question: str, select: Mapping[str, Any], *, engines: bool = False) -> None:
    """Refuse what a question cannot honour: an axis without pictures over time, an engine where polars alone answers.

    Args:
        question: What it is called.
        select: What was asked.
        engines: Whether every engine answers it.

    Raises:
        UsageError: Something is asked for that would change nothing.
    """
    usual = {"axis": "epoch"} if engines else {"axis": "epoch", "engine": "polars", "spark_remote": None}
    for name, value in usual.items():
        given = select.get(name)
        if given is not None and str(given) != value:
            option = "--" + name.replace("_", "-")
            said = f"does not run on {option} {given}" if name == "engine" else f"has no use for {option} {given}"
            hint = f"leave {option} out" + (f": {value}" if value else "")
            raise UsageError(f"{question} {said}", hint=hint, refused=(name,))


_WRITTEN = "an answer is written by .save(folder, formats=...), and is text by .to_json() or .html()"

OPENING = ("strict", "attempts", "where", "facts", "no_facts")
"""What a reader is opened with; the rest of a selection is resolved in what it holds."""


class Select(TypedDict, total=False):
    """Which rows a question is about: the shared options of the command line, under their names.

    `xaicli.queries.resolution.resolve` says what each takes.
    """

    metric: Words
    mode: Words
    ds_id: Words
    epoch: Words
    epoch_frequency: int
    label_key: str
    label_map: Words | Mapping[str, Any]
    duplicates: str
    where: str | None
    facts: FactFiles
    no_facts: bool
    attempts: str
    axis: str
    strict: bool
    engine: str
    spark_remote: str | None


class RunRows:
    """The part of `RunReader` that hands out rows and asks nothing of the training.

    Args:
        layout: The run.
    """

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        layout.read_manifest()

    def __fspath__(self) -> str:
        """The run's folder: an opened run stands wherever its path can."""
        return os.fspath(self.layout.root)

    def __repr__(self) -> str:
        return f"open_run({self.layout.described!r})"

    def reader(
        self,
        *,
        strict: bool = False,
        attempts: str = "last",
        where: str | None = None,
        facts: FactFiles = None,
        no_facts: bool = False,
    ) -> Reader:
        """The run's files, listed now; of their rows those that count and meet a condition; what samples are."""
        from xaicli.reader import open_reader

        return open_reader(self.layout, strict=strict, attempts=attempts, where=where, facts=facts, no_facts=no_facts)

    def selected(
        self, *, every_metric: bool = False, usual_mode: str | None = None, **select: Unpack[Select]
    ) -> tuple[Reader, Selection]:
        """A reader, and what the words mean in it; without `metric` all metrics where `every_metric` says so, and
        without `mode` the usual one where the run has it.
        """
        from xaicli.queries.resolution import resolve
        from xaicli.queries.truth import hold_classes

        words: dict[str, Any] = dict(select)
        refuse_others(words)
        opening = {name: words.pop(name) for name in OPENING if name in words}
        reader = self.reader(**opening)
        refuse_objects_alone(reader)
        hold_classes(reader, words.get("label_key"))
        is_open = usual_mode is not None and words.get("mode") is None
        if is_open and usual_mode in reader.modes():
            words["mode"] = usual_mode
        selection = resolve(reader, every_metric=every_metric, **words)
        if is_open and usual_mode not in reader.modes() and Mode.EVAL in reader.modes():
            said = f"the run has no {usual_mode} rows: showing {Mode.EVAL}"
            selection = replace(selection, warnings=(*selection.warnings, said))
        return reader, selection

    def selected_for(self, choice: Choice | None, **select: Unpack[Select]) -> tuple[Reader, Selection]:
        """What `selected` gives; without any metric where it is not clear which is meant and nothing needs one.

        Args:
            choice: The rule that may need one; None for a question without a rule.
            select: As `selected` takes it.
        """
        from xaicli.choices.rules import BY_METRIC

        try:
            return self.selected(**select)
        except XaiError:
            if (choice is not None and choice.rule in BY_METRIC) or select.get("metric") is not None:
                raise
            reader, selection = self.selected(every_metric=True, **select)
            return reader, replace(selection, metrics=())

    def info(self, *, attempts: str = "last", strict: bool = False) -> Result:
        """What the run holds: one row per (mode, ds_id) with epochs, rows, metrics, gaps."""
        from xaicli.queries.runs import info

        answer = info(self.reader(strict=strict, attempts=attempts))
        return shown(Asked(answer, self.layout))

    def scan(self, **select: Unpack[Select]) -> pl.LazyFrame:
        """The selected rows, lazily: all columns, fenced, files verified; duplicates and non-finite values untouched.

        Without `mode`, all modes; with `metric`, only these metrics beside the other columns.
        """
        from xaicli.queries.rows import rows

        refuse_unhonoured("scan", select)
        if select.get("duplicates", "all") != "all":
            raise UsageError("scan gives every row as it was logged, duplicates too", hint="leave duplicates out")
        select.setdefault("mode", "all")
        return rows(*self.selected(every_metric=True, **select))

    def query(
        self,
        sql: str,
        *,
        engine: str = "polars",
        facts: FactFiles = None,
        no_facts: bool = False,
        attempts: str = "last",
        strict: bool = False,
    ) -> Result:
        """One SQL query over `samples`, `scalars`, `facts` and the run's tables; nothing can be changed by it."""
        from xaicli.queries.sql import query

        reader = self.reader(strict=strict, attempts=attempts, facts=facts, no_facts=no_facts)
        answer = query(reader, sql, engine=engine)
        return shown(Asked(answer, self.layout))

    def export(
        self,
        target: str | os.PathLike[str] | IO[bytes] | None = None,
        *,
        format: str = "",
        shape: str = "long",
        **select: Unpack[Select],
    ) -> Answer:
        """Write the selected rows to a file; every metric unless `metric` names some.

        Args:
            target: The file, or an open binary stream; `reports/export.FORMAT` of the run when None.
            format: `csv`, `parquet`, `jsonl` or `json`; the file's suffix without it, `csv` where there is none.
            shape: `long`, a row per sample and epoch, or `wide`, a row per sample.
        """
        from xaicli.maintenance.export import export_answer
        from xaicli.queries.selection import with_note_of_modes

        refuse_unhonoured("export", select)
        reader, selection = self.selected(every_metric=True, **select)
        selection = with_note_of_modes(selection)
        if target is None:
            target = self.layout.reports / f"export.{format or 'csv'}"
        return export_answer(reader, selection, target, format=format, shape=shape)
