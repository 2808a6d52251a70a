"""How a result shows itself in a notebook: static where the notebook is untrusted, live on request."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from xaicli.render.figure import Pictures, sheets
from xaicli.render.pictures import png_bytes, png_of, sheet
from xaicli.render.terminal import as_text
from xaicli.render.text import printable, sparkline, told_apart
from xaicli.report import numbers
from xaicli.report.charts import BarChart, ImageChart, LineChart, MatrixChart, Multiples, ScatterChart
from xaicli.report.model import (
    IN_PAGE,
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
from xaicli.report.numbers import count

_HEIGHT = 800
_DENSITY = 1.5
_SHEETS = 4
"""So many sheets of a grid of maps are shown: more make a notebook heavy."""
_LONGEST = 300
"""Characters of a cell that are shown; a sentence is shown whole, whose middle is as much of it as its ends."""


def mimebundle(report: Report) -> dict[str, Any]:
    """The report as text and, whole, as static HTML: one rich display, whose pictures are not sent beside it again.

    Untrusted notebooks, GitHub and editors strip scripts, styles and frames; what this HTML has they keep.
    """
    return {"text/plain": as_text(report), "text/html": _static(report)}


def _static(report: Report) -> str:
    """Title, sentence, warnings and every part of the report."""
    parts = [f"<h3>{_escaped(report.title)}</h3>", f"<p>{_escaped(report.run_line)}</p>"]
    parts.append(f"<p>{_escaped(report.sentence)}</p>")
    parts += [f"<p><b>warning:</b> {_escaped(warning)}</p>" for warning in report.warnings]
    drawn = Pictures(png=True, density=_DENSITY)
    for section in report.sections:
        shown = [part for block in section.blocks for part in _block(block, drawn)]
        if shown:
            parts += [f"<h4>{_escaped(section.title)}</h4>", *shown]
        folded = [block.title for block in section.blocks if isinstance(block, Table) and block.folded]
        if folded:
            parts.append(f"<p>.show() shows more: {_escaped(', '.join(folded))}</p>")
    return "\n".join(parts)


def _block(block: Block, drawn: Pictures) -> Iterator[str]:
    match block:
        case LineChart() | Multiples() | ScatterChart() | MatrixChart() | BarChart():
            yield _picture(drawn.of(block).png, block.alt or block.title)
        case MapGrid():
            parts = list(sheets(block).values())
            for part in parts[:_SHEETS]:
                yield _picture(png_bytes(sheet(part, part.rows).picture), part.title)
            if len(parts) > _SHEETS:
                yield f"<p>{_SHEETS} of {len(parts)} sheets of {_escaped(block.title)}: .show() has every sample</p>"
        case ImageChart():
            yield _picture(png_of(block.image), block.image.alt)
        case Views():
            # Without a limit of its own: a reader who cannot switch sees each.
            views = [inner for blocks in block.views.values() for inner in blocks]
            for inner in block.at_once() if block.apart else views:
                yield from _block(inner, drawn)
        case Text():
            yield f"<p>{_escaped(block.text)}</p>"
        case Figures():
            words = " · ".join(f"<b>{_escaped(f.value)}</b> {_escaped(f.caption)}" for f in block.figures)
            yield f"<p>{words}</p>"
        case Table():
            if not block.folded:
                yield (f"<p><b>{_escaped(block.title)}</b></p>" if block.title else "") + _table(block)
        case Gallery() | Passage():
            # The table below says the same of all of them.
            return
        case _:
            assert_never(block)


def _picture(png: bytes, alt: str) -> str:
    return f'<img alt="{_escaped(alt)}" width="800" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(table: Table) -> str:
    head = "".join(f"<th>{_escaped(column.title)}</th>" for column in table.columns)
    shown = table.rows[: table.terminal_rows]
    cells = [
        _cells([row[index] for row in shown], column, table.scale(index)) for index, column in enumerate(table.columns)
    ]
    rows = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in zip(*cells, strict=True)]
    more = len(table.rows) - len(rows)
    whole = ".html()" if table.rest_in == IN_PAGE else ".to_json()"
    rest = f"<p>and {count(more, 'more row')}: {whole} has all</p>" if more else ""
    rest += f"<p>{_escaped(table.note)}</p>" if table.note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{rest}"


def _cells(values: Sequence[Any], column: Column, scale: Scale) -> list[str]:
    if column.cell is Cell.SPARKLINE:
        return [sparkline(value or (), 16, *scale) for value in values]
    if column.cell is Cell.TEXT:
        said = told_apart(shown := numbers.texts(values), _LONGEST)
        return [html.escape(said[text]) for text in shown]
    return [html.escape(printable(text, limit=_LONGEST)) for text in numbers.column(values, column.apart)]


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def live(page: str) -> Any:
    """The page in a frame of its own, sandboxed; None outside a notebook.

    Args:
        page: The self-contained HTML.
    """
    if "IPython" not in sys.modules:
        return None
    from IPython.display import HTML  # type: ignore[import-not-found]

    frame = f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" width="100%" height="{_HEIGHT}"></iframe>'
    return HTML(f"<div>{frame}</div>")  # of a bare frame IPython warns
