"""The runs below a folder, as people read them."""

from __future__ import annotations

from xaicli.answer import Answer
from xaicli.report.facts import run_line
from xaicli.report.made import made
from xaicli.report.model import Cell, Column, Report, Section, Table
from xaicli.report.numbers import count


def runs_report(answer: Answer) -> Report:
    """The page of `xai ls`.

    Args:
        answer: Rows `{run, name, created_at, modes, epochs, rows, accuracy, state, seconds, metrics, problem}`.
    """
    rows = answer.data.to_dicts()
    unreadable = sum(row["problem"] is not None for row in rows)
    sentence = f"{count(len(rows), 'run')} at or below {answer.run}"
    table = Table(
        name="runs",
        title="Runs",
        columns=(
            Column("run"),
            Column("recorded"),
            Column("modes"),
            Column("epochs", Cell.INTEGER),
            Column("rows", Cell.INTEGER),
            Column("accuracy", Cell.NUMBER),
            Column("state"),
            Column("took"),
            *([Column("problem")] if unreadable else []),
        ),
        rows=tuple(
            (
                row["run"],
                (row["created_at"] or "")[:16].replace("T", " "),
                ", ".join(row["modes"] or ()),
                row["epochs"],
                row["rows"],
                row["accuracy"],
                row["state"] or "",
                _duration(row["seconds"]),
                *([row["problem"] or ""] if unreadable else []),
            )
            for row in rows
        ),
        terminal_rows=200,
    )
    return Report(
        name="ls",
        title="Runs",
        run_line=run_line(answer, None),
        sentence=sentence + (f"; {unreadable} cannot be read." if unreadable else "."),
        sections=(Section("Runs", "runs", (table,)),),
        made=made(answer),
        warnings=answer.warnings,
        tables={"ls": lambda: answer.data},
    )


def _duration(seconds: float | None) -> str:
    """Seconds as people say them: 42 s, 3 min, 5.1 h, 2.3 d."""
    if seconds is None:
        return ""
    for unit, size, within in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 36 * 3600)):
        if seconds < within:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit != "h" or value >= 10 else f"{value:.1f} h"
    return f"{seconds / 86400:.1f} d"
