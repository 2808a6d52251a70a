"""Each chart drawn once: the same figure serves as PNG beside the page and as SVG inside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

from xaicli.progress import doing
from xaicli.render import canvas, lines, maps, scatter
from xaicli.render.canvas import Drawn
from xaicli.render.pixels import png_bytes, png_of
from xaicli.report.charts import BarChart, ImageChart, LineChart, Multiples, ScatterChart
from xaicli.report.mapgrid import MapGrid
from xaicli.report.model import Block, Figures, Gallery, Report, Table, Text, Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Pillow

_ROWS_OF_SHEET = 16
_SHEET_DPI = 144
_BOXES = 8

Chart = LineChart | Multiples | ScatterChart | BarChart


def charts(report: Report) -> Iterator[Chart]:
    """Every chart of a report in reading order, those of all views included."""
    for section in report.sections:
        for block in section.blocks:
            yield from _charts_in(block)


def draw(chart: Chart) -> Drawn:
    """A chart as a figure, not yet drawn."""
    with canvas.settings():
        return _laid_out(chart)


def _laid_out(chart: Chart) -> Drawn:
    match chart:
        case LineChart():
            return lines.line_figure(chart)
        case Multiples():
            return lines.multiples_figure(chart)
        case ScatterChart():
            return scatter.scatter_figure(chart)
        case BarChart():
            return scatter.bar_figure(chart)
        case _:
            assert_never(chart)


@dataclass(frozen=True)
class Picture:
    """A chart drawn: a text of inline SVG for each of its parts, and the PNG where one was wanted."""

    svgs: tuple[str, ...]
    png: bytes = b""


class Pictures:
    """The charts of a report, each drawn once whatever it is wanted for.

    Args:
        png: Whether PNGs are wanted, or the page's SVG alone.
        density: Pixels a point of a PNG.
    """

    def __init__(self, *, png: bool = False, density: float = 2.0) -> None:
        self._density = density if png else 0.0
        self._drawn: dict[int, tuple[Chart, Picture]] = {}
        self.boxes: set[str] = set()
        """Characters that PNGs show as boxes."""

    def of(self, chart: Chart) -> Picture:
        """The picture of a chart; its ids begin with the chart's number among those asked for."""
        if id(chart) not in self._drawn:
            # The chart is kept beside its picture: only then does its id stay its own.
            self._drawn[id(chart)] = chart, self._draw(chart, f"c{len(self._drawn) + 1}")
        return self._drawn[id(chart)][1]

    def _draw(self, chart: Chart, identity: str) -> Picture:
        doing("drawing picture", len(self._drawn) + 1)
        from xaicli.render.pen import drawn
        from xaicli.render.svg import flowing, scaled

        with canvas.settings():
            made = _laid_out(chart)
            pen = drawn(made.figure, density=self._density)
        names = [identity] if len(made.frames) == 1 else [f"{identity}-{i}" for i in range(len(made.frames))]
        write = flowing if made.flows else scaled
        frames = [
            replace(frame, attributes={"id": name, **frame.attributes})
            for name, frame in zip(names, made.frames, strict=True)
        ]
        svgs = tuple(write(pen.marks, frame) for frame in frames)
        self.boxes |= pen.boxes
        return Picture(svgs, pen.png() if self._density else b"")


def first_figure(report: Report) -> Figure:
    """The first picture of a report; an empty one says so where there is none."""
    grid = next(grids(report), None)
    chart = next(charts(report), None)
    if chart is not None and grid is None:
        return draw(chart).figure
    if grid is not None:
        return _as_figure(maps.sheet(grid, grid.rows[:_ROWS_OF_SHEET]))
    with canvas.settings():
        return canvas.new_figure(canvas.WIDE, report.title, report.sentence or "There is nothing to draw.")


def sheet_png(grid: MapGrid) -> bytes:
    """The first samples of a grid of maps as PNG."""
    return png_bytes(maps.sheet(grid, grid.rows[:_ROWS_OF_SHEET]))


def _as_figure(picture: Pillow) -> Figure:
    import numpy as np
    from matplotlib.figure import Figure

    width, height = (side / _SHEET_DPI for side in picture.size)
    figure = Figure(figsize=(width, height), dpi=_SHEET_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.asarray(picture))
    axes.set_axis_off()
    return figure


def pictures(
    report: Report, drawn: Pictures, *, no_images: bool = False, each: bool = False
) -> Iterator[tuple[str, bytes]]:
    """(file stem, PNG) of every chart and picture of a report, and of samples' maps a sheet of them all.

    Args:
        report: What to draw.
        drawn: The charts, drawn with their PNGs.
        no_images: Leave out pictures of samples.
        each: Whether every sample's maps are also a picture of their own.
    """
    for chart in charts(report):
        yield chart.name, drawn.of(chart).png
    if drawn.boxes:
        shown = "".join(sorted(drawn.boxes)[:_BOXES])
        warnings.warn(
            f"the PNGs show boxes in place of {len(drawn.boxes)} characters that their font lacks ({shown}); "
            "the page has the names as they are",
            stacklevel=2,
        )
    for grid in grids(report):
        pages = [grid.rows[at : at + _ROWS_OF_SHEET] for at in range(0, len(grid.rows), _ROWS_OF_SHEET)]
        sheets = {f"{grid.name}-sheet-{n}" if n > 1 else grid.name: rows for n, rows in enumerate(pages, 1)}
        if each:
            sheets |= {f"{grid.name}-{n:03d}": (row,) for n, row in enumerate(grid.rows, 1)}
        for stem, rows in sheets.items():
            yield stem, png_bytes(maps.sheet(grid, rows, no_images=no_images))
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, ImageChart) and not no_images:
                yield block.name, png_of(block.image)


def grids(report: Report) -> Iterator[MapGrid]:
    """Every grid of saliency maps."""
    for section in report.sections:
        for top in section.blocks:
            inner = (block for blocks in top.views.values() for block in blocks) if isinstance(top, Views) else (top,)
            yield from (block for block in inner if isinstance(block, MapGrid))


def _charts_in(block: Block) -> Iterator[Chart]:
    match block:
        case LineChart() | Multiples() | ScatterChart() | BarChart():
            yield block
        case Views():
            for blocks in block.views.values():
                for inner in blocks:
                    yield from _charts_in(inner)
        case MapGrid() | ImageChart() | Table() | Gallery() | Text() | Figures():
            return
        case _:
            assert_never(block)
