"""Line charts: bands behind, lines in front, their names at the right end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xaicli.render.canvas import NARROW, WIDE, Size, add_axes, gaps, log_axis, name, new_figure, plain_axes
from xaicli.render.palette import LIGHT, colour_and_dash
from xaicli.report.charts import Band, LineChart, Multiples, Series, Tone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTHS = {Tone.MEDIAN: 1.5, Tone.FAINT: 0.7, Tone.REFERENCE: 0.9}
_LINE_HEIGHT = 1.3
_CROWD = 24
_CELL = Size(196, 134, 0, 8)
_COLUMNS = 4
_GUTTER = 5.0
_CELL_HEAD = 24.0


def line_figure(chart: LineChart, *, narrow: bool = False) -> Figure:
    """Draw a chart; narrow for a phone's page."""
    size = NARROW if narrow else WIDE
    figure = new_figure(size, chart.title, chart.legend)
    labelled = _labelled(chart.series, size)
    widest = max((size.text_width(name(line.name, _longest(size))) for line in labelled), default=0)
    axes = add_axes(figure, size, left=_left(chart, size), bottom=34, right=28 + widest, top=12)
    axes.set_gid("axes-0")
    _draw(axes, chart)
    axes.set_xlabel(chart.x_label)
    _end_names(axes, labelled, size)
    return figure


def multiples_figure(grid: Multiples) -> Figure:
    """Draw a grid of small charts, the axes of cell i under the id `axes-<i>`."""
    columns = min(_COLUMNS, max(1, len(grid.charts)))
    rows = math.ceil(len(grid.charts) / columns)
    pitch = _CELL.height + _CELL_HEAD
    size = Size(columns * _CELL.width + (_COLUMNS - columns) * 60, rows * pitch + 8, 52, 9)
    figure = new_figure(size, grid.title, grid.legend)
    total = size.height + size.header
    for index, chart in enumerate(grid.charts):
        left = index % columns * _CELL.width
        bottom = size.height - (index // columns + 1) * pitch
        axes = figure.add_axes(
            (
                (left + 36) / size.width,
                (bottom + 20) / total,
                (_CELL.width - 36 - 12) / size.width,
                (_CELL.height - 20 - _GUTTER) / total,
            )
        )
        plain_axes(axes, _CELL.font)
        axes.set_gid(f"axes-{index}")
        _draw(axes, chart, ticks=4)
        head: dict[str, Any] = {"y": (bottom + _CELL.height + 3) / total, "gid": "header", "va": "bottom"}
        figure.text(x=(left + 12) / size.width, s=name(chart.title, 16), weight="bold", fontsize=8.5, ha="left", **head)
        right = (left + _CELL.width - 12) / size.width
        figure.text(x=right, s=name(chart.subtitle, 30), fontsize=7, ha="right", color=LIGHT["muted"], **head)
    return figure


def cell_box(grid: Multiples, index: int) -> tuple[float, float, float, float]:
    """Where cell `index` lies in the picture of a grid: left, top, width, height in points from the top left."""
    columns = min(_COLUMNS, max(1, len(grid.charts)))
    top = 52 + index // columns * (_CELL.height + _CELL_HEAD) + _CELL_HEAD
    return index % columns * _CELL.width, top, _CELL.width, _CELL.height


def _draw(axes: Axes, chart: LineChart, ticks: int = 7) -> None:
    from matplotlib.ticker import MaxNLocator

    crowded = len(chart.series) > _CROWD
    for band in chart.bands:
        _band(axes, band, chart)
    for line in chart.series:
        _line(axes, line, thin=crowded)
    xs = [x for line in chart.series for x in line.x] + [x for band in chart.bands for x in band.x]
    if xs and min(xs) < max(xs):
        axes.set_xlim(min(xs), max(xs))
    elif xs:
        # A lone point stands at the right, beside its name.
        axes.set_xlim(xs[0] - 1, xs[0])
    if xs and min(xs) == max(xs):
        axes.set_xticks([xs[0]])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if chart.y_log:
        log_axis(axes)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(ticks - 1, steps=[1, 2, 2.5, 5, 10]))
    if chart.y_limits:
        axes.set_ylim(*chart.y_limits)


def _line(axes: Axes, line: Series, *, thin: bool) -> None:
    colour, dash = colour_and_dash(line.tone, line.colour)
    ys = gaps(line.y)
    width = 0.9 if thin and line.tone is Tone.PLAIN else _WIDTHS.get(line.tone, 1.4)
    alpha = 0.55 if line.tone is Tone.FAINT else 1.0
    group = f"line.{colour}.{line.key}"
    axes.plot(line.x, ys, color=LIGHT[colour], linestyle=dash, linewidth=width, alpha=alpha, gid=group, clip_on=False)
    alone = [i for i in range(len(ys)) if _is_alone(ys, i)]
    if alone:
        points: dict[str, Any] = {
            "marker": "o",
            "markersize": 4,
            "linestyle": "none",
            "markeredgewidth": 0,
            "gid": f"dot{group[4:]}",
        }
        axes.plot([line.x[i] for i in alone], [ys[i] for i in alone], color=LIGHT[colour], **points)


def _is_alone(ys: Sequence[float], index: int) -> bool:
    """Whether a point has no neighbour to draw a line to."""
    neighbours = [ys[i] for i in (index - 1, index + 1) if 0 <= i < len(ys)]
    return not math.isnan(ys[index]) and all(math.isnan(y) for y in neighbours)


def _band(axes: Axes, band: Band, chart: LineChart) -> None:
    owner = next((line for line in chart.series if line.key == band.key and band.key), None)
    colour = colour_and_dash(owner.tone, owner.colour)[0] if owner else "band"
    low, high = gaps(band.low), gaps(band.high)
    group = f"band.{colour}.{band.key}"
    shade: dict[str, Any] = {
        "color": LIGHT[colour],
        "alpha": 0.22 if owner else 0.16,
        "linewidth": 0,
        "gid": group,
        "clip_on": False,
    }
    axes.fill_between(band.x, low, high, **shade)
    alone = [i for i in range(len(low)) if _is_alone(low, i)]
    if alone:
        axes.vlines(
            [band.x[i] for i in alone],
            [low[i] for i in alone],
            [high[i] for i in alone],
            color=LIGHT[colour],
            alpha=0.35,
            linewidth=6,
            gid=f"span.{colour}.{band.key}",
            clip_on=False,
        )


def _left(chart: LineChart, size: Size) -> float:
    values = [v for line in chart.series for v in line.y if v is not None and math.isfinite(v)]
    wide = any(0 < abs(v) < 1e-2 or abs(v) >= 1e4 for v in values[:2000])
    return 52 if wide else 40 if size is WIDE else 38


def _longest(size: Size) -> int:
    return 20 if size is WIDE else 10


def _labelled(series: Sequence[Series], size: Size) -> list[Series]:
    """The lines that get their name at the right end: all that mean something, while they fit one above the other."""
    wanted = [
        line
        for line in series
        if line.tone not in (Tone.FAINT, Tone.REFERENCE) and any(not math.isnan(y) for y in gaps(line.y))
    ]
    room = int((size.height - 46) / (size.font * _LINE_HEIGHT))
    return wanted if len(wanted) <= room else []


def _end_names(axes: Axes, lines: Sequence[Series], size: Size) -> None:
    ends = [next((x, y) for x, y in zip(reversed(s.x), reversed(gaps(s.y)), strict=True) if y == y) for s in lines]
    heights = [float(axes.transData.transform(end)[1]) for end in ends]
    box = axes.get_window_extent()
    places = spread(heights, size.font * _LINE_HEIGHT, box.y0, box.y1)
    for line, (x, _), height, place in zip(lines, ends, heights, places, strict=True):
        colour, _ = colour_and_dash(line.tone, line.colour)
        start = float(axes.transData.transform((x, 1))[0])
        axes.annotate(
            name(line.name, _longest(size)),
            xy=(box.x1 + 14, place),
            xycoords="figure points",
            va="center",
            ha="left",
            fontsize=size.font,
            color=LIGHT[colour],
            gid=f"name.{colour}.{line.key}",
            annotation_clip=False,
        )
        leader = axes.annotate(
            "",
            xy=(start + 1.5, height),
            xytext=(box.x1 + 12, place),
            xycoords="figure points",
            textcoords="figure points",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": LIGHT[colour],
                "linewidth": 0.6,
                "alpha": 0.55,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        if leader.arrow_patch is not None:
            leader.arrow_patch.set_gid(f"leader.{colour}.{line.key}")


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near those wanted, at least `gap` apart and within [low, high] as far as they fit.

    Neighbours that collide form a block around the mean of their wishes (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # sum of wishes (less own offset), members
    for i in order:
        blocks.append([wanted[i], 1])
        while len(blocks) > 1 and _end(blocks[-2], gap) > _start(blocks[-1], gap):
            total, members = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += members
    places: list[float] = []
    for block in blocks:
        first = _start(block, gap) + gap / 2
        places += [first + gap * k for k in range(int(block[1]))]
    return _within(order, places, gap, low, high)


def _start(block: Sequence[float], gap: float) -> float:
    return block[0] / block[1] - gap * block[1] / 2


def _end(block: Sequence[float], gap: float) -> float:
    return block[0] / block[1] + gap * block[1] / 2


def _within(order: Sequence[int], places: list[float], gap: float, low: float, high: float) -> list[float]:
    for k in range(len(places)):
        places[k] = max(places[k], low if k == 0 else places[k - 1] + gap)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], high if k == len(places) - 1 else places[k + 1] - gap)
    found = [0.0] * len(order)
    for place, i in zip(places, order, strict=True):
        found[i] = place
    return found
