"""Saliency as a sheet: a row a sample, input and maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xaicli.render.canvas import Size, name, new_figure, plain_axes
from xaicli.render.palette import LIGHT
from xaicli.render.pixels import LOSSLESS_PIXELS, rgb
from xaicli.report.charts import BarChart, Image, LineChart, Tone
from xaicli.report.mapgrid import FIXED, MapGrid, MapPanel, MapRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE, _GAP, _HEAD, _FOOT = 132.0, 10.0, 16.0, 24.0
_WORDS = 150.0
_HEADER = 44.0
_DIMMED = 0.55


def sheet(grid: MapGrid, rows: Sequence[MapRow], *, no_images: bool = False) -> Figure:
    """Draw rows of a grid.

    Args:
        grid: What they belong to.
        rows: The samples to draw.
        no_images: Leave out the inputs, and what shows them.
    """
    panels = [shown_panels(row, no_images=no_images) for row in rows]
    columns = max((len(found) + (row.input is not None) for found, row in zip(panels, rows, strict=True)), default=1)
    pitch = _HEAD + _SIDE + _FOOT
    size = Size(_WORDS + columns * (_SIDE + _GAP) + 16, len(rows) * pitch + 4, _HEADER, 8)
    figure = new_figure(size, grid.title, grid.note)
    total = size.height + size.header
    for number, (row, found) in enumerate(zip(rows, panels, strict=True)):
        top = size.header + number * pitch
        _words(figure, row, size, top, total)
        images: list[MapPanel | Image] = [*([row.input] if row.input is not None and not no_images else []), *found]
        for column, panel in enumerate(images):
            left = _WORDS + column * (_SIDE + _GAP)
            place = (left / size.width, 1 - (top + _HEAD + _SIDE) / total, _SIDE / size.width, _SIDE / total)
            axes = figure.add_axes(place)
            _panel(axes, panel, row.input, size.font)
    return figure


def shown_panels(row: MapRow, *, no_images: bool) -> tuple[MapPanel, ...]:
    """The panels of a sample; without images, those that do not show the input."""
    return tuple(p for p in row.panels if not (no_images and p.views and p.views[0].name == FIXED))


def _words(figure: Figure, row: MapRow, size: Size, top: float, total: float) -> None:
    x = 14 / size.width
    y = 1 - (top + _HEAD) / total
    line = 12 / total
    figure.text(x, y, name(row.title), fontsize=10, weight="bold", color=LIGHT["ink"], va="top")
    for number, text in enumerate(row.lines, 1):
        last_is_wrong = row.tone is Tone.BAD and number == len(row.lines)
        colour = LIGHT["max"] if last_is_wrong else LIGHT["ink"]
        figure.text(x, y - 0.3 * line - number * line, name(text), fontsize=size.font, color=colour, va="top")
    start = y - (len(row.lines) + 1.6) * line
    for number, (text, value, _) in enumerate(row.probabilities):
        place = start - number * line
        figure.text(x, place, name(text, 16), fontsize=size.font - 0.5, color=LIGHT["muted"], va="top")
        right = (_WORDS - 16) / size.width
        figure.text(right, place, f"{value:.2f}", fontsize=size.font - 0.5, color=LIGHT["muted"], va="top", ha="right")


def _panel(axes: Axes, panel: MapPanel | Image, below: Image | None, font: float) -> None:
    view = panel.views[0] if isinstance(panel, MapPanel) and panel.views else None
    image = panel if isinstance(panel, Image) else view.image if view else None
    title = "input" if isinstance(panel, Image) else panel.title
    axes.set_title(name(title, 26), fontsize=font, color=LIGHT["ink"], pad=4)
    if image is not None:
        _picture(axes, image, below if view and view.name == FIXED else None)
    elif isinstance(panel, MapPanel):
        _drawing(axes, panel, font)
    if isinstance(panel, MapPanel):
        words = " · ".join((*panel.lines, *(("flat",) if panel.flat else ())))
        colour = LIGHT["max"] if panel.flat else LIGHT["muted"]
        axes.text(
            0.5,
            -0.03,
            name(words, 44),
            transform=axes.transAxes,
            fontsize=font - 1.5,
            ha="center",
            va="top",
            color=colour,
        )


def _picture(axes: Axes, image: Image, below: Image | None) -> None:
    """Show a picture; over another one, dimmed, as light over light ("screen")."""
    import numpy as np

    shown = _array(image)
    if below is not None and (below.width, below.height) == (image.width, image.height):
        shown = np.float32(1) - (1 - np.float32(_DIMMED) * _array(below)) * (1 - shown)
    few = image.width * image.height <= LOSSLESS_PIXELS
    axes.imshow(shown, interpolation="nearest" if few else "antialiased")
    axes.set_axis_off()


def _array(image: Image) -> npt.NDArray[np.float32]:
    """(height, width, 3) in [0, 1]."""
    import numpy as np

    kind, pixels = rgb(image)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[kind]
    array = np.frombuffer(pixels, np.uint8).reshape(image.height, image.width, channels)[:, :, :3]
    return np.broadcast_to(array, (image.height, image.width, 3)).astype(np.float32) / np.float32(255)


def _drawing(axes: Axes, panel: MapPanel, font: float) -> None:
    chart = panel.chart
    if isinstance(chart, BarChart):
        plain_axes(axes, font - 2)
        places = range(len(chart.names))
        axes.barh(places, chart.values, color=[LIGHT["max" if v >= 0 else "min"] for v in chart.values])
        axes.set_yticks(list(places), [name(text, 12) for text in chart.names], fontsize=font - 3)
        axes.invert_yaxis()
    elif isinstance(chart, LineChart):
        plain_axes(axes, font - 2)
        for line, colour in zip(chart.series, ("median", "max"), strict=False):
            axes.plot(line.x, [v if v is not None else float("nan") for v in line.y], color=LIGHT[colour], linewidth=1)
    else:
        axes.set_axis_off()
        strongest = sorted(panel.tokens, key=lambda pair: -pair[1])[:8]
        words = "\n".join(f"{name(token, 16)}  {strength:.2f}" for token, strength in strongest)
        axes.text(0, 1, words, va="top", fontsize=font, color=LIGHT["ink"], transform=axes.transAxes)
