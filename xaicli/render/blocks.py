"""Blocks of a report as the page's template takes them: pictures drawn, numbers in words, ids handed out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

from markupsafe import Markup

from xaicli.render.canvas import name
from xaicli.render.lines import LONGEST_END, end_named
from xaicli.render.machine import dump
from xaicli.render.maps import shown_panels
from xaicli.render.pixels import LOSSLESS_PIXELS, data_uri
from xaicli.render.sparkline import thinned
from xaicli.render.text import printable
from xaicli.render.values import line_values, point_values
from xaicli.report.charts import BarChart, Image, ImageChart, LineChart, Multiples, ScatterChart
from xaicli.report.mapgrid import FIXED, MapGrid, MapPanel, MapRow
from xaicli.report.model import Block, Card, Cell, Figures, Gallery, Table, Text, Views
from xaicli.report.numbers import short

if TYPE_CHECKING:
    from xaicli.render.figure import Pictures

Context = dict[str, Any]
_SCALES = {"clipped": "clipped at 99 %", "full": "full range", "signed": "signed"}
_TITLE = 48
"""The longest name of a sample over its card: three lines."""
_SPARK_POINTS = 40
"""A line of a finger's width shows no more."""
_SHOWN = 300
"""The longest text of a cell or card: a label may be kilobytes long."""


class Blocks:
    """Turns blocks into template contexts, sharing pictures' values between charts that show the same lines.

    Args:
        pictures: The charts, each drawn once.
        no_images: Leave out pictures of samples.
    """

    def __init__(self, pictures: Pictures, *, no_images: bool = False) -> None:
        self._pictures = pictures
        self._no_images = no_images
        self._data: dict[str, str] = {}
        self._identities = 0
        self.most_choices = 1
        """The most buttons of a set of views or maps so far."""

    @property
    def charts(self) -> str:
        """The values behind the charts as JSON, for the script: {id: {xl, yl, lines: [{k, n, x, y, lo, hi, c, t}]}}."""
        return "{" + ",".join(f'"{name}":{text}' for text, name in self._data.items()) + "}"

    def context(self, block: Block) -> Context:
        """One block, `kind` says which macro shows it."""
        match block:
            case LineChart():
                return self._chart("line", block, line_values(block))
            case ScatterChart():
                return self._chart("square", block, point_values(block))
            case BarChart():
                return self._chart("bars", block, {"lines": []})
            case Multiples():
                return self._multiples(block)
            case Table():
                return _table(block)
            case Gallery():
                cards = [self._card(card) for card in block.cards]
                pictured = any(card["image"] for card in cards)
                named = {"kind": "gallery", "title": block.title, "note": block.note}
                return {**named, "cards": cards, "pictured": pictured}
            case Text():
                return {"kind": "text", "text": block.text, "tone": block.tone.value}
            case Figures():
                return {"kind": "figures", "figures": block.figures}
            case ImageChart():
                if self._no_images:
                    return {"kind": "text", "text": "Pictures were left out (--no-images).", "tone": "faint"}
                return {"kind": "image", "title": block.title, "uri": data_uri(block.image), "alt": block.image.alt}
            case Views():
                self.most_choices = max(self.most_choices, len(block.views))
                views = [{"name": n, "blocks": [self.context(b) for b in inner]} for n, inner in block.views.items()]
                return {"kind": "views", "id": self._identity(), "title": block.title, "views": views}
            case MapGrid():
                return self._maps(block)
            case _:
                assert_never(block)

    def _identity(self) -> str:
        self._identities += 1
        return f"c{self._identities}"

    def _values(self, values: Mapping[str, Any]) -> str:
        text = dump(values)
        return self._data.setdefault(text, f"d{len(self._data)}")

    def _chart(self, kind: str, chart: LineChart | ScatterChart | BarChart, values: Mapping[str, Any]) -> Context:
        other = chart.other_axis if isinstance(chart, LineChart) else None
        return {
            "kind": kind,
            "id": self._identity(),
            "title": printable(chart.title, limit=_SHOWN),
            "data": self._values(values),
            "svg": Markup(self._pictures.of(chart).svgs[0]),
            "legend": getattr(chart, "legend", ""),
            "axes": [chart.x_label, other.label] if isinstance(chart, LineChart) and other else [],
            "room": _room(chart) if isinstance(chart, LineChart) else 0,
        }

    def _multiples(self, grid: Multiples) -> Context:
        cells = [
            {
                "key": chart.series[-1].key,
                "data": self._values(line_values(chart)),
                "title": printable(chart.title, limit=_SHOWN),
                "subtitle": chart.subtitle,
                "svg": Markup(drawn),
            }
            for chart, drawn in zip(grid.charts, self._pictures.of(grid).svgs, strict=True)
        ]
        named = {"kind": "multiples", "id": self._identity(), "title": grid.title, "legend": grid.legend}
        return {**named, "cells": cells, "own": any(chart.y_own for chart in grid.charts)}

    def _card(self, card: Card) -> Context:
        image = None if self._no_images else card.image
        return {
            "key": card.key,
            "deep_link": card.deep_link,
            "tone": card.tone.value,
            "title": printable(card.title, limit=_TITLE),
            "lines": [printable(line, limit=_SHOWN) for line in card.lines],
            "verdict": printable(card.verdict, limit=_SHOWN),
            "links": card.links,
            "spark": spark(card.sparkline, fill=True),
            **self._picture("image", image),
        }

    def _picture(self, name: str, image: Image | None) -> Context:
        if image is None:
            return {name: None}
        small = image.width * image.height <= LOSSLESS_PIXELS
        return {name: data_uri(image), "small": small, "alt": image.alt}

    def _maps(self, grid: MapGrid) -> Context:
        rows = [replace(row, panels=shown_panels(row, no_images=self._no_images)) for row in grid.rows]
        titles = {panel.method: panel.toggle or panel.title for row in rows for panel in row.panels}
        views = (view.name for row in rows for panel in row.panels for view in panel.views)
        scales = [name for name in dict.fromkeys(views) if name != FIXED]
        self.most_choices = max(self.most_choices, len(titles))
        identity = self._identity()
        return {
            "kind": "maps",
            "id": identity,
            "note": grid.note,
            "scales": [_SCALES.get(name, name) for name in scales],
            "methods": list(titles.values()),
            "toggles": grid.toggles,
            "rows": [self._map_row(row, list(titles), f"{identity}-i{i}") for i, row in enumerate(rows)],
        }

    def _map_row(self, row: MapRow, methods: Sequence[str], input_id: str) -> Context:
        image = None if self._no_images else row.input
        shapes = [view.image for panel in row.panels for view in panel.views]
        shape = row.input or (shapes[0] if shapes else None)
        return {
            "key": row.key,
            "deep_link": row.deep_link,
            "title": printable(row.title, limit=_TITLE),
            "lines": [printable(line, limit=_SHOWN) for line in row.lines],
            "tone": row.tone.value,
            "probabilities": [
                (printable(name, limit=_SHOWN), f"{value:.2f}", f"{100 * max(0.0, min(1.0, value)):.1f}", tone.value)
                for name, value, tone in row.probabilities
            ],
            "links": row.links,
            "input_id": input_id,
            "width": shape.width if shape else 1,
            "height": shape.height if shape else 1,
            "panels": [self._panel(panel, methods.index(panel.method)) for panel in row.panels],
            "small": shape is not None and shape.width * shape.height <= LOSSLESS_PIXELS,
            "alt": row.input.alt if row.input else "",
            "input": data_uri(image) if image else None,
        }

    def _panel(self, panel: MapPanel, order: int) -> Context:
        return {
            "order": order,
            "title": panel.title,
            "lines": panel.lines,
            "flat": panel.flat,
            "views": [{"name": v.name, "uri": data_uri(v.image), "alt": v.image.alt} for v in panel.views],
            # The panel's own caption says what its chart is.
            "chart": {**self.context(panel.chart), "title": ""} if panel.chart else None,
            "tokens": [(printable(text, limit=_SHOWN), round(10 * max(0.0, min(1.0, s)))) for text, s in panel.tokens],
        }


def spark(values: Sequence[float | None], *, fill: bool = False) -> Markup:
    """A history as a line without axes, of very many points every k-th up to the last; empty where there is none."""
    stride = -(-len(values) // _SPARK_POINTS) or 1
    values = values[(len(values) - 1) % stride :: stride]
    values = thinned([v if v is not None and math.isfinite(v) else None for v in values], _SPARK_POINTS)
    known = [v for v in values if v is not None]
    if not known:
        return Markup("")
    low, high = min(known), max(known)
    step = 100 / max(1, len(values) - 1)
    places = [
        None if v is None else (i * step, 18 - 16 * (v - low) / (high - low or 1.0)) for i, v in enumerate(values)
    ]
    path, pen = "", "M"
    for place in places:
        if place is None:
            pen = "M"
            continue
        path += f"{pen}{place[0]:.1f} {place[1]:.1f}"
        pen = "L"
    if len(known) == 1:
        path += "h4"
    under = f'<path class="fill" d="{path}L100 20L0 20z"/>' if fill and len(known) == len(values) > 1 else ""
    return Markup(
        f'<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">'
        f'{under}<path d="{path}"/></svg>'
    )


def _room(chart: LineChart) -> int:
    """How much room the names at the lines' ends need, in steps of 30 pixels that the sheet has classes for."""
    longest = max((len(name(line.name, LONGEST_END)) for line in end_named(chart.series)), default=0)
    return min(6, -(-(16 + 7 * longest) // 30))


def _table(table: Table) -> Context:
    numeric = [column.cell in (Cell.NUMBER, Cell.INTEGER) for column in table.columns]
    keys = table.keys or ("",) * len(table.rows)
    rows = [
        {"key": key, "cells": [_cell(v, c.cell) for v, c in zip(row, table.columns, strict=True)]}
        for key, row in zip(keys, table.rows, strict=True)
    ]
    columns = [{"title": c.title, "numeric": n} for c, n in zip(table.columns, numeric, strict=True)]
    named = {"name": table.name, "title": table.title, "note": table.note, "folded": table.folded}
    return {"kind": "table", **named, "columns": columns, "rows": rows}


def _cell(value: Any, kind: Cell) -> Context:
    text: str | Markup
    exact, numeric = "", False
    match kind:
        case Cell.SPARKLINE:
            known = [v for v in value or () if v is not None and math.isfinite(v)]
            text, exact = spark(value or ()), f"{known[-1]:.6g}" if known else ""
        case Cell.NUMBER | Cell.INTEGER:
            numeric = True
            plain = value is None or isinstance(value, (int, float))
            text = short(value) if plain else printable(str(value), limit=_SHOWN)
            if isinstance(value, float) and math.isfinite(value) and f"{value:.9g}" != text:
                exact = f"{value:.9g}"
        case Cell.TEXT:
            text = "" if value is None else printable(str(value), limit=_SHOWN)
        case _:
            assert_never(kind)
    return {"text": text, "value": exact, "numeric": numeric}
