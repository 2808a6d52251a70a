"""The report of what a run holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaicli.answer import Answer
from xaicli.report.facts import RunFacts, made, run_line
from xaicli.report.model import Cell, Column, Report, Section, Table, Text, Tone
from xaicli.report.numbers import count, listed
from xaicli.report.system import system_blocks


def info_report(answer: Answer, facts: RunFacts | None = None) -> Report:
    """The page of `xai info`.

    Args:
        answer: Rows mode, ds_id, epochs, rows, metrics, and more.
        facts: The run.
    """
    rows = answer.data.to_dicts()
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    sections = [Section("Modes", "modes", (_modes(rows),))]
    if metrics:
        sections.append(Section("Metrics", "metrics", (Text(", ".join(metrics)),)))
    if facts:
        sections.append(Section("System and traceability", "system", tuple(system_blocks(facts))))
    total = sum(row["rows"] for row in rows)
    sentence = f"{count(total, 'row')} in {listed(list(dict.fromkeys(row['mode'] for row in rows)))}."
    return Report(
        name="info",
        title="What the run holds",
        run_line=run_line(answer, facts),
        sentence=sentence if rows else "No rows yet: training has not logged a sample, or nothing has been written.",
        sections=tuple(sections)
        if rows
        else (Section("Modes", "modes", (Text("No rows.", Tone.FAINT),)), *sections[1:]),
        made=made(answer),
        warnings=answer.warnings,
        tables={"info": lambda: answer.data.iter_rows(named=True)},
    )


def _modes(rows: list[dict[str, Any]]) -> Table:
    columns = (
        Column("mode"),
        Column("data set"),
        Column("epochs"),
        Column("rows", Cell.INTEGER),
        Column("last step", Cell.INTEGER),
        Column("files", Cell.INTEGER),
        Column("missing epochs"),
    )
    shown = tuple(
        (
            row["mode"],
            row["ds_id"] or "–",
            _epochs(row),
            row["rows"],
            row.get("last_step"),
            row.get("files"),
            listed([str(epoch) for epoch in row.get("gaps") or ()], 8),
        )
        for row in rows
    )
    return Table("modes", "", columns, shown)


def _epochs(row: Mapping[str, Any]) -> str:
    epochs = row["epochs"]
    return "none" if not epochs else f"{epochs[0]} to {epochs[-1]} ({len(epochs):,})"
