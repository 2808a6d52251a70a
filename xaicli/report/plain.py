"""The report of any answer that is a table and nothing more."""

from __future__ import annotations

from typing import Any

from xaicli.answer import Answer
from xaicli.report.facts import RunFacts, run_line
from xaicli.report.made import made
from xaicli.report.model import Cell, Column, Report, Section, Table
from xaicli.report.numbers import count

_MOST_ROWS = 2000
_SHOWN_ITEMS = 6
_IDS = frozenset({"sample_id", "example_id"})


def plain_report(
    answer: Answer, facts: RunFacts | None = None, *, title: str = "", sentence: str = "", terminal_rows: int = 20
) -> Report:
    """A page with one table of all rows.

    Args:
        answer: What the query returned.
        facts: The run; None for a question about several.
        title: The heading; the command's name without it.
        sentence: What to say first; the number of rows without it.
        terminal_rows: How many rows a terminal shows.
    """
    title = title or answer.command.replace("_", " ").replace("-", " ").capitalize()
    return Report(
        name=answer.command.replace("_", "-"),
        title=title,
        run_line=run_line(answer, facts),
        sentence=sentence or f"{count(answer.data.height, 'row')}.",
        sections=(Section(title, "rows", (frame_table(answer, title, terminal_rows=terminal_rows),)),),
        made=made(answer),
        warnings=answer.warnings,
        tables={answer.command.replace("_", "-"): lambda: answer.data},
    )


def frame_table(answer: Answer, title: str, *, terminal_rows: int = 20) -> Table:
    """All columns of an answer's data as a table for people, the first rows of it where there are very many."""
    frame = answer.data.head(_MOST_ROWS)
    # An id is a name, also where it is made of digits: no commas in it.
    numeric = [dtype.is_numeric() and name not in _IDS for name, dtype in frame.schema.items()]
    kinds = [
        Cell.TEXT if not number else Cell.INTEGER if dtype.is_integer() else Cell.NUMBER
        for dtype, number in zip(frame.dtypes, numeric, strict=True)
    ]
    left_out = answer.data.height - frame.height
    return Table(
        name="rows",
        title=title,
        columns=tuple(Column(name, kind) for name, kind in zip(frame.columns, kinds, strict=True)),
        rows=tuple(
            tuple(value if number else in_words(value) for value, number in zip(row, numeric, strict=True))
            for row in frame.iter_rows()
        ),
        note=f"and {left_out:,} more rows in the CSV and JSON" if left_out else "",
        terminal_rows=terminal_rows,
    )


def in_words(value: Any) -> str:
    """A value of any type in a table cell."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            shown = ", ".join(in_words(item) for item in value[:_SHOWN_ITEMS])
            return shown + (f" … {len(value):,} in all" if len(value) > _SHOWN_ITEMS else "")
        case dict():
            return "; ".join(f"{key} {in_words(item)}" for key, item in value.items())
        case bytes():
            return f"{len(value):,} bytes"
        case _:
            return str(value)
