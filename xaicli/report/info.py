"""The report of what a run holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xaicli.answer import Answer
from xaicli.report.charts import Tone
from xaicli.report.facts import RunFacts, run_line
from xaicli.report.made import made
from xaicli.report.model import Cell, Column, Report, Section, Table, Text
from xaicli.report.numbers import count, listed
from xaicli.report.system import system_blocks
from xaicli.state.best import Checkpoint

_STATE_COLUMNS = (
    Column("state"),
    Column("step", Cell.INTEGER),
    Column("epoch", Cell.INTEGER),
    Column("MB", Cell.NUMBER),
    Column("saved"),
)
_CHECKPOINT_COLUMNS = (
    Column("checkpoint"),
    Column("MB", Cell.NUMBER),
    Column("kept as"),
    Column("value", Cell.NUMBER),
)


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
    if found := answer.extra.get("tables"):
        sections.append(Section("Tables", "tables", (_tables(found),)))
    if facts and (kept := tuple(_kept(facts))):
        sections.append(Section("States and checkpoints", "states", kept))
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
        tables={"info": lambda: answer.data},
    )


def _tables(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = (Column("table"), Column("rows", Cell.INTEGER), Column("columns"))
    rows = tuple((table["name"], table["rows"], ", ".join(table["columns"])) for table in found)
    return Table("tables", "", columns, rows, "xai samples --table NAME, and xai query, ask them")


def _kept(facts: RunFacts) -> Iterator[Table]:
    """The saved states and the checkpoints, a table each."""
    if facts.states:
        rows = tuple(
            (s.path.name, s.step, s.epoch, s.bytes / 1e6, s.saved_at[:16].replace("T", " ")) for s in facts.states
        )
        yield Table("states", "Saved states", _STATE_COLUMNS, rows)
    if facts.checkpoints:
        rows = tuple(_checkpoint(file) for file in facts.checkpoints)
        yield Table("checkpoints", "Checkpoints", _CHECKPOINT_COLUMNS, rows)


def _checkpoint(file: Checkpoint) -> tuple[Any, ...]:
    kept_as = f"{'best' if file.is_best else 'good'} {file.metric}" if file.metric else ""
    return file.path.name, file.bytes / 1e6, kept_as, file.value


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
    if len(epochs) < 2:
        return str(epochs[0]) if epochs else "none"
    return f"{epochs[0]} to {epochs[-1]} ({len(epochs):,})"
