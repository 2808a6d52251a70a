"""Points in a plane, and bars by name."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xaicli.render.canvas import (
    LIGHT,
    LONGEST_NAME,
    SQUARE,
    Drawn,
    Size,
    add_axes,
    ems,
    gaps,
    name,
    new_figure,
    ticks,
    told_within,
    width_of,
)
from xaicli.render.lines import y_ticks
from xaicli.render.svg import Frame
from xaicli.render.text import told_apart
from xaicli.report.charts import BarChart, ScatterChart
from xaicli.report.numbers import short, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 3000
_LEVELS = 5
_GROUP_COLOURS = tuple(f"g{number}" for number in range(10))
"""Ten that are told apart, for ten classes are usual."""
_GREY = "g7"
_DOT = 3.4
_LARGEST = 15.0
"""The font size of the numbers where a phone shows them."""
_LEFT, _TOP, _BOTTOM = 48, 26, 46
"""Margins of the plane, in points."""
_PAD = 11
_BESIDE, _LARGEST_TITLE, _WIDEST_TITLE = 22, 12.0, 12.5
"""Where the name of a colour begins beside the plane, how large a phone shows it, and its widest in font sizes."""


def scatter_figure(chart: ScatterChart) -> Drawn:
    """Draw a plane of points: marked ones ringed, very many thinned evenly."""
    legend = chart.legend
    shown = drawn_points(chart)
    if len(shown) < len(chart.x):
        legend = f"{legend} {len(shown):,} of {len(chart.x):,} points drawn.".strip()
    figure = new_figure(SQUARE, chart.title, legend)
    left, groups = _left(chart, shown), _groups(chart, shown)
    titles = told_within([name(title, 0) for title, _, _ in groups], LONGEST_NAME, _WIDEST_TITLE)
    # What the names of the colours need, also as large as a phone shows them.
    right = max(110.0, _BESIDE + ems(titles.values()) * _LARGEST_TITLE + 8)
    width, height = SQUARE.width - left - right, SQUARE.height - _TOP - _BOTTOM
    axes = add_axes(figure, SQUARE, left=left, bottom=_BOTTOM, right=right, top=_TOP)
    # Below the number of the y axis at the corner, as large as a phone shows both.
    axes.tick_params(axis="x", pad=_PAD)
    axes.set_xlabel(chart.x_label, labelpad=7)
    # Above the axis, where no tick is, however large a phone makes the texts.
    corner = (-(left - 6) / width, 1 + (_TOP - 14) / height)
    axes.set_ylabel(name(chart.y_label, 60), rotation=0, ha="left", va="bottom")
    axes.yaxis.set_label_coords(*corner)
    axes.grid(True, axis="both", color=LIGHT["grid"], linewidth=0.7, gid="grid")
    if chart.diagonal and shown:
        both = [v[i] for v in (chart.x, chart.y) for i in shown]
        ends = [min(both), max(both)]
        axes.plot(ends, ends, color=LIGHT["median"], linewidth=0.9, linestyle=(0, (4, 3)), gid="line.median.")
    for row, (title, colour, members) in enumerate(groups):
        _dots(axes, [chart.x[i] for i in members], [chart.y[i] for i in members], colour)
        place = (1 + 12 / width, 1 - (row * 16 + 14) / height)
        axes.plot(
            [place[0]],
            [place[1]],
            "o",
            markersize=5,
            color=LIGHT[colour],
            transform=axes.transAxes,
            clip_on=False,
            markeredgewidth=0,
            gid=f"dot.{colour}.",
        )
        axes.text(
            1 + _BESIDE / width,
            place[1],
            titles[name(title, 0)],
            transform=axes.transAxes,
            va="center",
            fontsize=SQUARE.font,
            color=LIGHT["ink"],
            gid="label.ink.",
        )
    for i in shown:
        if i < len(chart.keys) and chart.keys[i]:
            ring: dict[str, Any] = {
                "markersize": 7.5,
                "markerfacecolor": "none",
                "markeredgewidth": 1.3,
                "clip_on": False,
            }
            axes.plot(
                [chart.x[i]], [chart.y[i]], "o", markeredgecolor=LIGHT["ink"], gid=f"ring.ink.{chart.keys[i]}", **ring
            )
    return Drawn(figure, (_frame(axes, SQUARE, chart.alt),))


def _left(chart: ScatterChart, shown: Sequence[int]) -> float:
    """What the numbers of the y axis need, also as large as a phone shows them, in points."""
    values = [chart.y[i] for i in shown] or [0.0]
    texts = ticks(y_ticks(min(values), max(values), 6))
    return max([float(_LEFT), *(width_of(text) * _LARGEST + 10 for text in texts)])


def drawn_points(chart: ScatterChart) -> list[int]:
    """The points that are drawn: all with a key, and of the others every k-th so that few thousand remain."""
    finite = [i for i, (x, y) in enumerate(zip(gaps(chart.x), gaps(chart.y), strict=True)) if x == x and y == y]
    if len(finite) <= _MOST_POINTS:
        return finite
    stride = -(-len(finite) // _MOST_POINTS)
    return [i for order, i in enumerate(finite) if order % stride == 0 or (i < len(chart.keys) and chart.keys[i])]


def _groups(chart: ScatterChart, shown: Sequence[int]) -> list[tuple[str, str, list[int]]]:
    """(what it is called, colour, points) of each colour: groups by name, numbers in fifths from high to low."""
    if not chart.colour:
        return [("samples", "min", list(shown))]
    if any(isinstance(value, str) for value in chart.colour):
        return _named_groups(chart, shown)
    values = {p: float(chart.colour[p]) for p in shown if chart.colour[p] is not None}  # type: ignore[arg-type]
    if not values:
        return [("samples", "min", list(shown))]
    # Fifths, not equal steps: of a loss all but a few values would lie in the lowest one.
    ordered = sorted(values.values())
    edges = [ordered[len(ordered) * k // _LEVELS] for k in range(1, _LEVELS)]
    groups, apart = [], spread(ordered)
    for level in reversed(range(_LEVELS)):
        members = [p for p, v in values.items() if bisect_right(edges, v) == level]
        if members:
            low, high = (short(pick(values[p] for p in members), 3, apart=apart) for pick in (min, max))
            groups.append((low if low == high else f"{low} – {high}", f"v{_LEVELS - 1 - level}", members))
    return groups


def _named_groups(chart: ScatterChart, shown: Sequence[int]) -> list[tuple[str, str, list[int]]]:
    """Groups by name. No two share a colour: where there are more than colours, all but the largest are one in grey."""
    titles = chart.colours or tuple(dict.fromkeys(str(value) for value in chart.colour if value is not None))
    members = {title: [p for p in shown if chart.colour[p] == title] for title in titles if title in chart.colour}
    if len(titles) <= len(_GROUP_COLOURS):
        own_colour = dict(zip(titles, _GROUP_COLOURS, strict=False)) | {chart.neither: _GREY}
        return [(title, own_colour[title], points) for title, points in members.items()]
    own = [colour for colour in _GROUP_COLOURS if colour != _GREY]
    large = set(sorted(members, key=lambda title: -len(members[title]))[: len(own)])
    named = [(title, points) for title, points in members.items() if title in large]
    rest = sorted(p for title, points in members.items() if title not in large for p in points)
    groups = [(title, colour, points) for (title, points), colour in zip(named, own, strict=False)]
    return [*groups, *([(f"{len(members) - len(large):,} others", "faint", rest)] if rest else [])]


def _dots(axes: Any, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """Many dots as one path: round-capped strokes of no length weigh a sixth of a marker each."""
    if not x:
        return
    nan = float("nan")
    # Agg draws nothing for a stroke of no length; this one is far below a pixel.
    length = 2e-4 * (max(y) - min(y) or abs(y[0]) or 1.0)
    xs = [v for value in x for v in (value, value, nan)]
    ys = [v for value in y for v in (value, value + length, nan)]
    axes.plot(
        xs,
        ys,
        color=LIGHT[colour],
        alpha=0.6,
        linewidth=_DOT,
        solid_capstyle="round",
        clip_on=False,
        # Agg would round short upright strokes to whole pixels, most of them to nothing.
        snap=False,
        gid=f"points.{colour}.",
    )


def bar_figure(chart: BarChart) -> Drawn:
    """Draw values by name as horizontal bars, positive and negative told apart."""
    told = told_apart([name(text, 0) for text in chart.names], LONGEST_NAME, longest=LONGEST_NAME)
    names = [told[name(text, 0)] for text in chart.names]
    longest = max(map(len, names), default=0)
    size = Size(420, 40 + 15 * len(chart.names), 36, 9)
    figure = new_figure(size, chart.title, "")
    axes = add_axes(figure, size, left=16 + longest * 5.4, bottom=30, right=20, top=4)
    axes.grid(False)
    axes.grid(True, axis="x", color=LIGHT["grid"], linewidth=0.7, gid="grid")
    places = range(len(chart.names))
    for place, value in zip(places, gaps(chart.values), strict=True):
        colour = "max" if value >= 0 else "min"
        axes.barh(place, value, height=0.68, color=LIGHT[colour], linewidth=0, clip_on=False, gid=f"bar.{colour}.")
    axes.set_yticks(list(places), names, color=LIGHT["ink"])
    axes.invert_yaxis()
    axes.set_xlabel(chart.x_label)
    return Drawn(figure, (_frame(axes, size, chart.alt),))


def _frame(axes: Axes, size: Size, alt: str) -> Frame:
    """All below the header. `data-box` is left, top, right, bottom of the axes in the picture's points; `data-x` and
    `data-y` are what is at their ends, so that a script finds a value under the pointer.
    """
    total = size.height + size.header
    box = axes.get_window_extent()
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    attributes = {
        "data-box": f"{box.x0:.1f} {total - box.y1:.1f} {box.x1:.1f} {total - box.y0:.1f}",
        "data-x": f"{x0:.12g} {x1:.12g}",
        "data-y": f"{y0:.12g} {y1:.12g}",
    }
    return Frame((0.0, size.header, size.width, size.height), alt, attributes=attributes)
