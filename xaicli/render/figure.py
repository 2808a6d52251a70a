"""Each chart drawn once: the same figure serves as PNG beside the page and as SVG inside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from xaicli.progress import doing
from xaicli.render import canvas, lines, scatter
from xaicli.render.canvas import Drawn
from xaicli.render.pictures import png_bytes, png_of, sheet
from xaicli.render.text import printable
from xaicli.report.charts import BarChart, ImageChart, LineChart, MatrixChart, Multiples, ScatterChart
from xaicli.report.model import Block, Figures, Gallery, MapGrid, Passage, Report, Table, Text, Views
from xaicli.report.numbers import spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Pillow


from xaicli.render.canvas import LIGHT, Size, add_axes, new_figure
from xaicli.render.svg import Frame
from xaicli.render.text import told_apart

Context = dict[str, Any]
_DIGITS = 5
_SHOWN = 300


def line_values(chart: LineChart) -> Context:
    """What a hover says of each point of each line: {xl, yl, x, lines: [{k, n, x, y, lo, hi, c, t}]}."""
    bands = {band.key: band for band in chart.bands if band.key}
    apart = spread([y for line in chart.series for y in line.y])
    lines = []
    for line in chart.series:
        values: Context = {"k": line.key, "n": printable(line.name, limit=_SHOWN), "t": line.note}
        values |= {"x": [_rounded(x) for x in line.x], "y": [_rounded(y, apart) for y in line.y]}
        if line.key in bands and len(bands[line.key].low) == len(line.y):
            values["lo"] = [_rounded(v, apart) for v in bands[line.key].low]
            values["hi"] = [_rounded(v, apart) for v in bands[line.key].high]
        if len(set(line.counts)) > 1:
            values["c"] = list(line.counts)
        elif line.counts:
            values["t"] = f"n = {line.counts[0]:,}"
        lines.append({key: value for key, value in values.items() if value != ""})
    shared = lines[0]["x"] if lines else []
    lines = [{k: v for k, v in line.items() if k != "x" or v != shared} for line in lines]
    said: Context = {"xl": chart.x_label, "yl": chart.y_label, "x": shared, "lines": lines}
    if chart.other_axis is not None:
        at, values_at = ([_rounded(v) for v in row] for row in (chart.other_axis.at, chart.other_axis.values))
        said["o"] = {"l": chart.other_axis.label, "at": at, "v": values_at}
    return said


def point_values(chart: ScatterChart) -> Context:
    """What a hover says of each named point, as lines of one point."""
    apart = spread(chart.x), spread(chart.y)
    lines = []
    for i, name in enumerate(chart.names):
        if name:
            point: Context = {"k": chart.keys[i] if i < len(chart.keys) else "", "n": printable(name, limit=_SHOWN)}
            lines.append(point | {"x": [_rounded(chart.x[i], apart[0])], "y": [_rounded(chart.y[i], apart[1])]})
    return {"xl": chart.x_label, "yl": chart.y_label, "lines": lines}


def _rounded(value: float | None, apart: float = 0.0) -> float | int | None:
    """A value with the digits that a hover can show, and a place that cannot be seen to be another."""
    if value is None or not math.isfinite(value):
        return None
    if float(value).is_integer() and abs(value) < 1e15:
        return int(value)
    beyond = math.ceil(math.log10(abs(value) / apart)) if 0 < apart < abs(value) else 0
    rounded = float(f"{value:.{min(_DIGITS + beyond, 17)}g}")
    if abs(rounded) == 1 > abs(value):
        # A share that is not quite all of it must not read as if it were.
        rounded = float(f"{value:.{1 - math.floor(math.log10(1 - abs(value)))}f}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


_ROWS_OF_SHEET = 16
_SHEET_DPI = 144

Chart = LineChart | Multiples | ScatterChart | MatrixChart | BarChart


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
        case MatrixChart():
            return matrix_figure(chart)
        case BarChart():
            return scatter.bar_figure(chart)
        case _:
            assert_never(chart)


@dataclass(frozen=True)
class Picture:
    """A chart drawn: a text of inline SVG for each of its parts, and the PNG where one was wanted."""

    svgs: tuple[str, ...]
    png: bytes = b""


_NOT_DRAWN = '<p class="note">not drawn: the command was interrupted</p>'


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
        self.is_mirrored = False
        """Whether PNGs show a text that reads from the right as if it did not."""
        self._stopped = False

    def stop(self) -> None:
        """Draw no more: what was not drawn so far is a line that says so."""
        self._stopped = True

    def of(self, chart: Chart) -> Picture:
        """The picture of a chart; its ids begin with the chart's number among those asked for."""
        if id(chart) not in self._drawn:
            if self._stopped:
                n = len(chart.charts) if isinstance(chart, Multiples) else 1
                return Picture((_NOT_DRAWN,) * n, b"")
            # The chart is kept beside its picture: only then does its id stay its own.
            self._drawn[id(chart)] = chart, self._draw(chart, f"c{len(self._drawn) + 1}")
        return self._drawn[id(chart)][1]

    def _draw(self, chart: Chart, identity: str) -> Picture:
        doing("drawing picture", len(self._drawn) + 1)
        from xaicli.render.svg import flowing, scaled

        with canvas.settings():
            from xaicli.render.pen import drawn

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
        self.is_mirrored |= pen.is_mirrored
        return Picture(svgs, pen.png() if self._density else b"")


def first_figure(report: Report) -> Figure:
    """The first picture of a report; an empty one says so where there is none."""
    grid = next(grids(report), None)
    chart = next(charts(report), None)
    if chart is not None and grid is None:
        return draw(chart).figure
    if grid is not None:
        first = next(iter(sheets(grid).values()))
        return _as_figure(sheet(first, first.rows).picture)
    with canvas.settings():
        return canvas.new_figure(canvas.WIDE, report.title, report.sentence or "There is nothing to draw.")


def _as_figure(picture: Pillow) -> Figure:
    import numpy as np

    from xaicli.render.shown import ShownFigure

    width, height = (side / _SHEET_DPI for side in picture.size)
    figure = ShownFigure(figsize=(width, height), dpi=_SHEET_DPI)
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
    for grid in grids(report):
        for stem, part in sheets(grid, each=each).items():
            made = sheet(part, part.rows, no_images=no_images)
            drawn.boxes |= made.boxes
            drawn.is_mirrored |= made.is_mirrored
            yield stem, png_bytes(made.picture)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, ImageChart) and not no_images:
                yield block.name, png_of(block.image)


def picture_names(report: Report, *, no_images: bool = False, each: bool = False) -> list[str]:
    """The file stems that `pictures` gives, without a picture being drawn."""
    stems = [chart.name for chart in charts(report)]
    stems += [stem for grid in grids(report) for stem in sheets(grid, each=each)]
    blocks = (block for section in report.sections for block in section.blocks)
    return stems + [block.name for block in blocks if isinstance(block, ImageChart) and not no_images]


def sheets(grid: MapGrid, *, each: bool = False) -> dict[str, MapGrid]:
    """The part of a grid that each picture shows, by its file's stem; of several sheets each says which it is."""
    starts = range(0, len(grid.rows), _ROWS_OF_SHEET)
    found = {}
    for n, at in enumerate(starts, 1):
        title = f"{grid.title} · sheet {n} of {len(starts)}" if len(starts) > 1 else grid.title
        stem = f"{grid.name}-sheet-{n}" if n > 1 else grid.name
        found[stem] = replace(grid, title=title, rows=grid.rows[at : at + _ROWS_OF_SHEET])
    alone = {f"{grid.name}-{n:03d}": replace(grid, rows=(row,)) for n, row in enumerate(grid.rows, 1)} if each else {}
    return found | alone


def grids(report: Report) -> Iterator[MapGrid]:
    """Every grid of saliency maps."""
    for section in report.sections:
        for top in section.blocks:
            inner = (block for blocks in top.views.values() for block in blocks) if isinstance(top, Views) else (top,)
            yield from (block for block in inner if isinstance(block, MapGrid))


def _charts_in(block: Block) -> Iterator[Chart]:
    match block:
        case LineChart() | Multiples() | ScatterChart() | MatrixChart() | BarChart():
            yield block
        case Views():
            for blocks in block.views.values():
                for inner in blocks:
                    yield from _charts_in(inner)
        case MapGrid() | ImageChart() | Table() | Gallery() | Text() | Figures() | Passage():
            return
        case _:
            assert_never(block)


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
    short_names = told_apart([canvas.name(text, 0) for text in chart.names], _NAME, longest=2 * _NAME)
    names = [short_names[canvas.name(text, 0)] for text in chart.names]
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
            said = f"{names[row]}, {chart.x_label} {names[column]}: {chart.counts[row][column]:,}"
            links[key] = (chart.links[row][column], said)
    # What is one picture to a screen reader hides the links in it.
    role = {"role": "group"} if links else {}
    frame = Frame((0.0, size.header, size.width, size.height), chart.alt, attributes=role, links=links)
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
