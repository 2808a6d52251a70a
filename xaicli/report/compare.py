"""The report of several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from xaicli.answer import Answer
from xaicli.queries.compare import FLIPPED, Course
from xaicli.report.charts import Tone
from xaicli.report.comparecharts import label_charts, mean_chart, sample_chart
from xaicli.report.facts import as_list, run_line
from xaicli.report.made import made
from xaicli.report.model import Block, Cell, Column, Report, Section, Table, Text
from xaicli.report.numbers import short
from xaicli.report.page import Names

_TITLES = {"metric": "Metrics", "label": "Labels", "sample": "Samples"}
_CHARTS: dict[str, Callable[[Course, Sequence[str], Names], Iterator[Block]]] = {
    "metric": mean_chart,
    "label": label_charts,
    "sample": sample_chart,
}
_MEASURED = {"metric": "Means of", "label": "Means of each label in", "sample": "Values in"}
_GROUPS = {"max": "grew most", "min": "fell most", "listed": "listed"}
_FLIPS = 200
"""Flipped samples that a page shows of each metric."""


def compare_report(answer: Answer, courses: Sequence[Course] = ()) -> Report:
    """The page of `xai compare`.

    Args:
        answer: Rows kind, mode, ds_id, metric, label, sample_id, group, rank, values, change, correct.
        courses: The same over time; without it there are no pictures.
    """
    names = Names()
    runs = short_names([str(run) for run in as_list(answer.selection.get("runs"))], answer)
    rows = answer.data.to_dicts()
    sections = []
    for kind, title in _TITLES.items():
        chosen = [row for row in rows if row["kind"] == kind and not _is_one_of_many(row)]
        charts = [chart for course in courses for chart in _CHARTS[kind](course, runs, names)]
        if chosen:
            table = _table(kind, chosen, runs)
            if kind == "sample" and any(map(_is_one_of_many, rows)):
                table = replace(table, note=f"{_FLIPS} of those that flipped, the most changed; compare.csv has all")
            sections.append(Section(title, names("part", kind), (*charts, table)))
    nothing: tuple[Block, ...] = (Text("The runs share nothing to compare.", Tone.FAINT),)
    return Report(
        name="compare",
        title="Runs side by side",
        run_line=run_line(answer, None),
        sentence=_sentence(rows, runs),
        sections=tuple(sections) or (Section("Runs", "runs", nothing),),
        made=made(answer, ("change", "the last run's value minus the first's")),
        warnings=answer.warnings,
        tables={"compare": lambda: iter(rows)},
    )


def _is_one_of_many(row: Mapping[str, Any]) -> bool:
    """Whether a flipped sample is beyond those that a page shows."""
    return bool(row["group"] == FLIPPED and row["rank"] > _FLIPS)


def short_names(paths: Sequence[str], answer: Answer) -> list[str]:
    """The runs by their folders' names; whole paths where these are not enough to tell them apart."""
    if not paths:
        most = max((len(values) for values in answer.data["values"].to_list() if values), default=0)
        return [f"run {number}" for number in range(1, most + 1)]
    last = [PurePath(path).name for path in paths]
    return last if len(set(last)) == len(last) else list(paths)


def _why(row: Mapping[str, Any]) -> str:
    """Why a sample is listed: its metric changed, or it became right or wrong, whatever the metric."""
    if row["group"] == FLIPPED:
        return "became right" if (row["correct"] or [None])[-1] else "became wrong"
    return f"{row['metric']} {_GROUPS.get(row['group'], row['group'])}"


def _sentence(rows: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> str:
    said = []
    for row in rows:
        known = [value for value in row["values"] or () if value is not None]
        if row["kind"] == "metric" and len(known) > 1:
            shown = ", ".join(f"{short(v, 3)} in {n}" for n, v in zip(runs, row["values"], strict=False))
            said.append(f"Mean {row['metric']} ({row['mode']}): {shown}.")
    # Whether a sample is right does not depend on the metric it is listed with.
    flipped = len({(row["mode"], row["ds_id"], row["sample_id"]) for row in rows if row.get("group") == "flipped"})
    if flipped:
        said.append(f"{flipped:,} samples are right in one of first and last run and wrong in the other.")
    return " ".join(said) or "Nothing in common."


def _table(kind: str, rows: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> Table:
    heads = {"metric": ["mode", "metric"], "label": ["mode", "metric", "label"]}.get(kind, ["mode", "why", "sample"])
    columns = [*map(Column, heads), *(Column(run, Cell.NUMBER) for run in runs), Column("change", Cell.NUMBER)]
    columns += [Column("right")] if kind == "sample" else []
    shown = []
    for row in rows:
        mode = " ".join(part for part in (row["mode"], row["ds_id"]) if part)
        first = {
            "metric": [mode, row["metric"]],
            "label": [mode, row["metric"], row["label"]],
            "sample": [mode, _why(row), row["sample_id"]],
        }[kind]
        values = list(row["values"] or ())
        cells = [*first, *values, *[None] * (len(runs) - len(values)), row["change"]]
        if kind == "sample":
            cells.append(" ".join({True: "✓", False: "✗"}.get(right, "–") for right in row["correct"] or ()))
        shown.append(tuple(cells))
    return Table(f"compare-{kind}", f"{_MEASURED[kind]} each run at its last epoch", tuple(columns), tuple(shown))
