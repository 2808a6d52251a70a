"""Each chart drawn once: the same figure serves as PNG beside the page and as SVG inside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, assert_never

from xaicli.render import canvas, lines, maps, scatter
from xaicli.render.pixels import png_of
from xaicli.render.svg import Frame, inline
from xaicli.report.charts import BarChart, ImageChart, LineChart, Multiples, ScatterChart
from xaicli.report.mapgrid import MapGrid, MapRow
from xaicli.report.model import Block, Figures, Gallery, Report, Table, Text, Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS_OF_SHEET = 16

Chart = LineChart | Multiples | ScatterChart | BarChart


def charts(report: Report) -> Iterator[Chart]:
    """Every chart of a report in reading order, those of all views included."""
    for section in report.sections:
        for block in section.blocks:
            yield from _charts_in(block)


def draw(chart: Chart, *, narrow: bool = False) -> Figure:
    """Draw one chart.

    Args:
        chart: What to draw.
        narrow: For a phone's page; line charts only.
    """
    with canvas.settings():
        match chart:
            case LineChart():
                return lines.line_figure(chart, narrow=narrow)
            case Multiples():
                return lines.multiples_figure(chart)
            case ScatterChart():
                return scatter.scatter_figure(chart)
            case BarChart():
                return scatter.bar_figure(chart)
            case _:
                assert_never(chart)


def first_figure(report: Report) -> Figure:
    """The first picture of a report; an empty one says so where there is none."""
    grid = next(grids(report), None)
    chart = next(charts(report), None)
    if chart is not None and grid is None:
        return draw(chart)
    with canvas.settings():
        if grid is not None:
            return maps.sheet(grid, grid.rows[:_ROWS_OF_SHEET])
        return canvas.new_figure(canvas.WIDE, report.title, report.sentence or "There is nothing to draw.")


def pictures(report: Report, *, no_images: bool = False) -> Iterator[tuple[str, bytes]]:
    """(file stem, PNG) of every chart and picture of a report: of samples' maps one a sample, and one of them all.

    Args:
        report: What to draw.
        no_images: Leave out pictures of samples.
    """
    for chart in charts(report):
        yield chart.name, canvas.png(draw(chart))
    for grid in grids(report):
        sheets: dict[str, Sequence[MapRow]] = {f"{grid.name}-{n:03d}": (row,) for n, row in enumerate(grid.rows, 1)}
        if len(grid.rows) > 1:
            sheets = {grid.name: grid.rows[:_ROWS_OF_SHEET], **sheets}
        for stem, rows in sheets.items():
            with canvas.settings():
                figure = maps.sheet(grid, rows, no_images=no_images)
            yield stem, canvas.png(figure)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, ImageChart) and not no_images:
                yield block.name, png_of(block.image)


def svg(chart: Chart, identity: str, *, narrow: bool = False) -> list[str]:
    """A chart as inline SVG: one text, or one per cell of a grid.

    Args:
        chart: What to draw.
        identity: A prefix that makes ids unique on the page.
        narrow: For a phone's page.
    """
    figure = draw(chart, narrow=narrow)
    raw = canvas.raw_svg(figure)
    if isinstance(chart, Multiples):
        frames = [
            Frame(lines.cell_box(chart, i), cell.alt, axes=i, attributes=_scales(figure, i, f"{identity}-{i}"))
            for i, cell in enumerate(chart.charts)
        ]
        return inline(raw, frames)
    width, total = (float(v) * canvas.POINTS_PER_INCH for v in figure.get_size_inches())
    header = canvas.NARROW.header if not isinstance(chart, BarChart) else 36.0
    box = (0.0, header, width, total - header)
    return inline(raw, [Frame(box, chart.alt, attributes=_scales(figure, 0, identity))])


def _scales(figure: Figure, index: int, identity: str) -> dict[str, str]:
    """Where the axes lie and what they span, so that a script finds a value under the pointer.

    `data-box` is left, top, right, bottom in the picture's points; `data-x` and `data-y` what is at its ends.
    """
    axes = next(a for a in figure.axes if a.get_gid() == f"axes-{index}")
    height = figure.bbox.height
    box = axes.get_window_extent()
    corners = (box.x0, height - box.y1, box.x1, height - box.y0)
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return {
        "id": identity,
        "data-box": " ".join(f"{v:.1f}" for v in corners),
        "data-x": f"{x0:.6g} {x1:.6g}",
        "data-y": f"{y0:.6g} {y1:.6g}" + (" log" if axes.get_yscale() == "log" else ""),
    }


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
