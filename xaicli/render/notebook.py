"""How a result shows itself in a notebook: static where the notebook is untrusted, live on request."""

from __future__ import annotations

import base64
import html
import sys
from typing import Any

from xaicli.render.figure import charts, first_png, grids
from xaicli.render.sparkline import sparkline
from xaicli.render.terminal import as_text
from xaicli.render.text import printable
from xaicli.report.model import Cell, Column, Report, Table
from xaicli.report.numbers import short

_HEIGHT = 800
_DENSITY = 1.5
_LONGEST = 300


def mimebundle(report: Report) -> dict[str, Any]:
    """The report as text, as static HTML, and its first picture as PNG where there is something to draw.

    Untrusted notebooks, GitHub and editors strip scripts, styles and frames; what this HTML has they keep.
    """
    bundle: dict[str, Any] = {"text/plain": as_text(report)}
    picture = ""
    if _has_picture(report):
        picture = base64.b64encode(first_png(report, density=_DENSITY)).decode()
        bundle["image/png"] = picture
    return {**bundle, "text/html": _static(report, picture)}


def _has_picture(report: Report) -> bool:
    return next(charts(report), None) is not None or next(grids(report), None) is not None


def _static(report: Report, picture: str) -> str:
    """Title, sentence, picture and the first table."""
    parts = [f"<h3>{_escaped(report.title)}</h3>", f"<p>{_escaped(report.run_line)}</p>"]
    parts.append(f"<p>{_escaped(report.sentence)}</p>")
    parts += [f"<p><b>warning:</b> {_escaped(warning)}</p>" for warning in report.warnings]
    if picture:
        parts.append(f'<img alt="{_escaped(report.title)}" width="800" src="data:image/png;base64,{picture}">')
    table = next((b for s in report.sections for b in s.blocks if isinstance(b, Table) and not s.page_only), None)
    if table is not None:
        parts.append(_table(table))
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{_escaped(column.title)}</th>" for column in table.columns)
    rows = [
        "<tr>" + "".join(f"<td>{_cell(v, c)}</td>" for v, c in zip(row, table.columns, strict=True)) + "</tr>"
        for row in table.rows[: table.terminal_rows]
    ]
    more = len(table.rows) - len(rows)
    rest = f"<p>and {more:,} more rows: .data has all</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{rest}"


def _cell(value: Any, column: Column) -> str:
    if column.cell is Cell.SPARKLINE:
        return sparkline(value or ())
    return _escaped(short(value) if isinstance(value, (int, float)) else "" if value is None else str(value))


def _escaped(text: str) -> str:
    return html.escape(printable(text, limit=_LONGEST))


def live(page: str) -> Any:
    """The page in a frame of its own, sandboxed; None outside a notebook.

    Args:
        page: The self-contained HTML.
    """
    if "IPython" not in sys.modules:
        return None
    from IPython.display import HTML  # type: ignore[import-not-found]

    frame = f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" width="100%" height="{_HEIGHT}"></iframe>'
    return HTML(frame)
