"""A square table of counts as a picture: who is taken for whom."""

from __future__ import annotations

from typing import Any

from xaicli.render.canvas import LIGHT, Drawn, Size, add_axes, name, new_figure
from xaicli.render.svg import Frame
from xaicli.render.text import told_apart
from xaicli.report.charts import MatrixChart

_CELL, _SMALLEST = 38.0, 15.0
_WIDEST, _NARROWEST = 480.0, 420.0
_NUMBERS = 16
"""Up to so many labels each cell says its count."""
_NAME = 14
_CHARACTER = 5.6


def matrix_figure(chart: MatrixChart) -> Drawn:
    """Draw counts as cells: on the diagonal blue by their share of the row, beside it vermilion by theirs of the most.

    A cell with a link is one on the page.
    """
    k = len(chart.names)
    cell = max(_SMALLEST, min(_CELL, _WIDEST / max(k, 1)))
    short_names = told_apart([name(text, 0) for text in chart.names], _NAME, longest=2 * _NAME)
    names = [short_names[name(text, 0)] for text in chart.names]
    longest = _CHARACTER * max(map(len, names), default=0)
    left, bottom = longest + 26, longest + 26
    # Of few labels the picture is no narrower, so that its texts are no larger than others'.
    size = Size(max(left + cell * k + 12, _NARROWEST), bottom + cell * k + 6, 52, 9)
    figure = new_figure(size, chart.title, chart.legend)
    axes = add_axes(figure, size, left=left, bottom=bottom, right=size.width - left - cell * k, top=6)
    axes.grid(False)
    axes.set_xlim(-0.5, k - 0.5)
    axes.set_ylim(k - 0.5, -0.5)
    axes.set_xticks(range(k), names, rotation=90, color=LIGHT["ink"])
    axes.set_yticks(range(k), names, color=LIGHT["ink"])
    axes.set_xlabel(chart.x_label, gid="label.ink.")
    axes.set_ylabel(chart.y_label, gid="label.ink.")
    links = {}
    for row, column, colour, strength in _strengths(chart):
        key = f"m-{row}-{column}"
        _draw_cell(axes, row, column, colour, strength, key)
        if k <= _NUMBERS:
            _say(axes, row, column, f"{chart.counts[row][column]:,}", key)
        if chart.links and chart.links[row][column]:
            links[key] = chart.links[row][column]
    frame = Frame((0.0, size.header, size.width, size.height), chart.alt, links=links)
    return Drawn(figure, (frame,))


def _strengths(chart: MatrixChart) -> list[tuple[int, int, str, float]]:
    """(row, column, colour, 0 to 1) of every cell that holds something."""
    shares = [[n / max(sum(row), 1) for n in row] for row in chart.counts]
    most = max((s for i, row in enumerate(shares) for j, s in enumerate(row) if i != j), default=0.0)
    found = []
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            if chart.counts[i][j]:
                found.append((i, j, "min", share) if i == j else (i, j, "max", share / most))
    return found


def _draw_cell(axes: Any, row: int, column: int, colour: str, strength: float, key: str) -> None:
    from matplotlib.patches import Rectangle

    looks: dict[str, Any] = {"facecolor": LIGHT[colour], "linewidth": 0, "alpha": 0.1 + 0.5 * strength}
    axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, gid=f"bar.{colour}.{key}", **looks))


def _say(axes: Any, row: int, column: int, text: str, key: str) -> None:
    looks: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 8, "color": LIGHT["ink"]}
    axes.text(column, row, text, gid=f"count.ink.{key}", **looks)
