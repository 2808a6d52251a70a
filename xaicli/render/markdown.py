"""A report as Markdown: sentences and tables, for a pull request or a note."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from xaicli.render.text import printable, sparkline, to_copy
from xaicli.report import numbers
from xaicli.report.charts import BarChart, ImageChart, LineChart, MatrixChart, Multiples, ScatterChart
from xaicli.report.model import (
    Block,
    Cell,
    Column,
    Figures,
    Gallery,
    MapGrid,
    Passage,
    Report,
    Scale,
    Table,
    Text,
    Views,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!&~$])")
_ROWS = 200
_LONGEST = 300


def markdown(report: Report) -> str:
    """The report as Markdown (GitHub's flavour), without pictures; text from elsewhere is escaped."""
    lines = [f"# {escaped(report.title)}", "", escaped(report.run_line), "", escaped(report.sentence), ""]
    for warning in report.warnings:
        lines += [f"> **warning:** {escaped(warning)}", ""]
    for section in report.sections:
        body = [line for block in section.blocks for line in _block(block)]
        if body:
            lines += [f"## {escaped(section.title)}", "", *body]
    lines += ["## How this was made", ""]
    lines += [
        f"- {escaped(what)}: {_code(value) if what == 'command' else _on_its_lines(value)}"
        for what, value in report.made
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", printable(text).replace("\n", " "))


def _on_its_lines(text: str) -> str:
    """Text as it is with its line breaks: in a condition they end a remark."""
    return "<br>".join(map(escaped, text.split("\n")))


def _code(text: str) -> str:
    """A command to copy as it stands, on one line: fenced by more backticks than stand together in it."""
    line = to_copy(text, on_one_line=True)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{room}{line}{room}{fence}"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield from (escaped(block.text), "")
        case Figures():
            yield from (" · ".join(f"**{escaped(f.value)}** {escaped(f.caption)}" for f in block.figures), "")
        case Table():
            if block.title:
                yield from (f"**{escaped(block.title)}**", "")
            numeric = [column.cell in (Cell.NUMBER, Cell.INTEGER) for column in block.columns]
            shown = block.rows[:_ROWS]
            cells = [
                _cells([row[index] for row in shown], column, block.scale(index))
                for index, column in enumerate(block.columns)
            ]
            rows = [list(row) for row in zip(*cells, strict=True)]
            yield from _table([escaped(column.title) for column in block.columns], numeric, rows)
            if len(block.rows) > _ROWS:
                yield from (f"and {len(block.rows) - _ROWS:,} more rows", "")
            if block.note:
                yield from (escaped(block.note), "")
        case BarChart():
            values = numbers.column(block.values)
            rows = [[escaped(name), value] for name, value in zip(block.names, values, strict=True)]
            yield from _table(["", escaped(block.x_label)], [False, True], rows)
        case MapGrid():
            rows = [
                [
                    escaped(row.title),
                    escaped(
                        " · ".join(
                            (*row.lines, *(f"{name} {numbers.cut(str(value), _LONGEST)}" for name, value in row.facts))
                        )
                    ),
                    escaped(panel.title),
                    escaped(" · ".join(panel.lines)),
                ]
                for row in block.rows
                for panel in row.panels
            ]
            yield from _table(["sample", "answer", "method", "how far to trust it"], [False] * 4, rows)
        case Views() if block.apart:
            for inner in (inner for view in block.views.values() for inner in view):
                yield from _block(inner)
        case (
            LineChart() | Multiples() | ScatterChart() | MatrixChart() | ImageChart() | Gallery() | Passage() | Views()
        ):
            # Pictures lie beside as PNG; the tables say the same.
            return
        case _:
            assert_never(block)


def _table(titles: Sequence[str], numeric: Sequence[bool], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join('---:' if number else '---' for number in numeric)}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _cells(values: Sequence[Any], column: Column, scale: Scale) -> list[str]:
    """The cells of a column."""
    match column.cell:
        case Cell.SPARKLINE:
            return [sparkline(value or (), 16, *scale) for value in values]
        case Cell.NUMBER | Cell.INTEGER:
            return [escaped(text) for text in numbers.column(values, column.apart)]
        case Cell.TEXT:
            return [escaped(numbers.cut(text, _LONGEST)) for text in numbers.texts(values)]
        case _:
            assert_never(column.cell)
