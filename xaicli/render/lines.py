"""Line charts: bands behind, lines in front, their names at the right end."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaicli.render.canvas import (
    LIGHT,
    WIDE,
    Drawn,
    Size,
    colour_and_dash,
    ems,
    gaps,
    in_points,
    name,
    new_figure,
    ticks,
    told_within,
    width_of,
)
from xaicli.render.svg import X_AXIS, Frame, Mark
from xaicli.render.text import told_apart
from xaicli.report.charts import Band, LineChart, Multiples, Series, Tone

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTHS = {Tone.MEDIAN: 1.5, Tone.FAINT: 0.7, Tone.REFERENCE: 0.9}
_NEAR_END = 12
"""How far from the right edge a line may end that its name's own line begins at it."""
_GAP = 13.5
"""From name to name at the end of lines, on the page too, where they are as large as its text."""
_CROWD = 24
LONGEST_END, WIDEST_END = 20, 14.5
"""A name at the end of a line, in characters and in font sizes."""
_BETWEEN = 8.0
"""The least between two numbers of the x axis."""
_TICKS = 7
_LEFT, _TOP, _BOTTOM = 48.0, 22.0, 34.0
_TICK_LINE, _LABEL_LINE = 12.0, 25.0
"""How far below the plot the numbers and the name of the x axis stand."""

_QUIET: dict[str, Any] = {"color": LIGHT["muted"], "fontsize": 9}

_CELL = Size(196, 134, 0, 8)
_COLUMNS = 4
_FINEST = 1e9
"""Beyond so many times its own axis, a shared one holds nothing of a cell's line but where it lies."""
_SUBTITLE, _LEAST_TITLE = 34, 7
"""The longest text beside the name of a cell, and how much of the name stays beside it, in characters."""
_BOLD = 0.68
"""The mean width of a character of such a name, in font sizes."""
_CELL_HEAD = 24.0
_LARGEST = 12.0
"""The font size of a cell's numbers where a phone shows it."""
_PLOT = (36.0, 5.0, 12.0, 20.0)
"""What lies left, above, right and below of the plot in a cell."""


def line_figure(chart: LineChart) -> Drawn:
    """Draw a chart, in a plane of points as small charts are."""
    figure = new_figure(WIDE, chart.title, chart.legend)
    total = WIDE.height + WIDE.header
    plane = Plane(figure)
    labelled = end_named(chart.series)
    widest = ems(end_names(chart).values()) * WIDE.font
    (low_x, high_x), (low_y, high_y) = _x_limits(chart), chart.y_limits or _y_limits(chart)
    on_y = tuple(_on_y(chart, low_y, high_y, _TICKS - 1))
    x0, x1, y0, y1 = _room(on_y, WIDE.font, _LEFT), WIDE.width - 28 - widest, _BOTTOM, WIDE.height - _TOP
    place = Scale(low_x, high_x, x0, x1), Scale(low_y, high_y, y0, y1, log=chart.y_log)
    for value, said in on_y:
        y = place[1](value)
        plane.plot((x0, x1), (y, y), color=LIGHT["grid"], linewidth=0.7, zorder=0.5, gid="grid", clip_on=False)
        plane.text(x0 - 5, y, said, ha="right", va="center_baseline", **_QUIET)
    on_x = _x_ticks(chart, low_x, high_x, _TICKS)
    below: dict[str, Any] = {"ha": "center", "va": "baseline", "gid": f"tick.{X_AXIS}", **_QUIET}
    for x, said in _apart([place[0](value) for value in on_x], on_x):
        plane.text(x, y0 - _TICK_LINE, said, **below)
    plane.text((x0 + x1) / 2, y0 - _LABEL_LINE, name(chart.x_label, 60), **below)
    unit = chart.y_label + (", log scale" if chart.y_log else "")
    plane.text(14, y1 + 10, name(unit, 40), **_QUIET)
    for band in chart.bands:
        _band(plane, band, chart, "", place)
    for line in chart.series:
        _line(plane, line, thin=len(chart.series) > _CROWD, cell="", place=place)
    _name_ends(plane, chart, labelled, place)
    frame = Frame(
        (x0, total - y1, x1 - x0, y1 - y0),
        chart.alt,
        attributes={"data-x": _span((low_x, high_x)), "data-y": _span((low_y, high_y)) + (" log" * chart.y_log)},
        other_axis=tuple(_other_axis(chart, on_x, place[0], total - y0)),
    )
    return Drawn(figure, (frame,), flows=True)


def _on_y(chart: LineChart, low: float, high: float, most: int) -> Iterator[tuple[float, str]]:
    """The numbers of a y axis with their texts."""
    values = y_ticks(low, high, most, log=chart.y_log)
    return zip(values, ticks(values, log=chart.y_log), strict=True)


def _apart(places: Sequence[float], values: Sequence[float]) -> Iterator[tuple[float, str]]:
    """Places on an x axis with the texts of their numbers, without those that would lie over the one before."""
    texts = ticks(values)
    room = max((width_of(text) for text in texts), default=0.0) * WIDE.font + _BETWEEN
    last = -math.inf
    for at, said in zip(places, texts, strict=True):
        if at - last >= room:
            last = at
            yield at, said


def _room(on_y: Iterable[tuple[float, str]], font: float, least: float) -> float:
    """What the texts of a y axis need left of the plot, in points."""
    return max([least, *(width_of(said) * font + 8 for _, said in on_y)])


def widest_tick(chart: LineChart) -> float:
    """How wide the longest number of a chart's y axis is, in font sizes."""
    low, high = chart.y_limits or _y_limits(chart)
    return max((width_of(said) for _, said in _on_y(chart, low, high, _TICKS - 1)), default=0.0)


def _other_axis(chart: LineChart, on_x: Sequence[float], place: Scale, below: float) -> Iterator[Mark]:
    """The ticks of the other axis, where its values are known; `below` is where the plot ends, downwards."""
    if chart.other_axis is None or not chart.other_axis.at:
        return
    known = dict(zip(chart.other_axis.at, chart.other_axis.values, strict=True))
    looks = {"font-size": f"{WIDE.font:g}", "text-anchor": "middle"}
    at = _known_places(known, on_x)
    for x, said in _apart([place(value) for value in at], [known[value] for value in at]):
        yield Mark("", "", X_AXIS, "", looks, place=(x, below + _TICK_LINE), text=said)
    middle = ((place.start + place.end) / 2, below + _LABEL_LINE)
    yield Mark("", "", X_AXIS, "", looks, place=middle, text=chart.other_axis.label)


def _known_places(known: Mapping[float, float], on_x: Sequence[float]) -> list[float]:
    """Where the other axis has a number.

    At the ticks of the first one while most of those are known (the steps of epochs 2, 4, 6), else where its own
    numbers are round (epochs 2, 4, 6 among steps), else at every so many of all that are known.
    """
    shared = [at for at in on_x if at in known]
    if len(shared) >= max(1, len(on_x) - 1):
        return shared
    round_ones = set(whole_ticks(min(known.values()), max(known.values()), _TICKS))
    own = [at for at, value in sorted(known.items()) if value in round_ones]
    if len(own) >= min(3, len(known)):
        return own
    return sorted(known)[:: -(-len(known) // _TICKS)]


def multiples_figure(grid: Multiples) -> Drawn:
    """Draw a grid of small charts, all in one plane of points: axes of their own would cost ten times as much."""
    columns = min(_COLUMNS, max(1, len(grid.charts)))
    rows = math.ceil(len(grid.charts) / columns)
    pitch = _CELL.height + _CELL_HEAD
    size = Size(columns * _CELL.width + (_COLUMNS - columns) * 60, rows * pitch + 8, 52, 9)
    figure = new_figure(size, grid.title, grid.caption)
    total = size.height + size.header
    plane = Plane(figure)
    frames = []
    subtitled = max((width_of(name(chart.subtitle, _SUBTITLE)) * 7 for chart in grid.charts), default=0.0)
    longest = max(_LEAST_TITLE, min(16, int((_CELL.width - 24 - subtitled - 6) / (8.5 * _BOLD))))
    titles = told_apart([name(chart.title, 0) for chart in grid.charts], longest, longest=longest)
    for index, chart in enumerate(grid.charts):
        left = index % columns * _CELL.width
        top = size.header + index // columns * pitch + _CELL_HEAD
        frames.append(_cell(plane, chart, str(index), left, top, total))
        head: dict[str, Any] = {"y": total - top + 3, "gid": "header", "va": "bottom"}
        plane.text(x=left + 12, s=titles[name(chart.title, 0)], weight="bold", fontsize=8.5, ha="left", **head)
        right = left + _CELL.width - 12
        plane.text(x=right, s=name(chart.subtitle, _SUBTITLE), fontsize=7, ha="right", color=LIGHT["muted"], **head)
    return Drawn(figure, tuple(frames))


class Plane:
    """A figure in points, y upwards, that takes lines, areas and texts as axes do, at a fraction of the time."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure
        self._points = in_points(figure)

    def plot(self, xs: Sequence[float], ys: Sequence[float], **look: Any) -> None:
        """A line through points."""
        from matplotlib.lines import Line2D

        self._figure.add_artist(Line2D(xs, ys, transform=self._points, **look))

    def fill(self, xs: Sequence[float], ys: Sequence[float], **look: Any) -> None:
        """An area within points."""
        from matplotlib.patches import Polygon

        self._figure.add_artist(Polygon([*zip(xs, ys, strict=True)], transform=self._points, **look))

    def text(self, x: float, y: float, s: str, **look: Any) -> None:
        """A line of text."""
        from matplotlib.text import Text

        self._figure.add_artist(Text(x, y, s, transform=self._points, **look))


def _cell(plane: Plane, chart: LineChart, cell: str, left: float, top: float, total: float) -> Frame:
    """One small chart: lines, bands and ticks at their places, y upwards."""
    (low_x, high_x), (low_y, high_y) = _x_limits(chart), chart.y_limits or _y_limits(chart)
    on_y = tuple(_on_y(chart, low_y, high_y, 5))
    own_y = () if chart.y_own is None or chart.y_log else tuple(_on_y(chart, *chart.y_own, 5))
    x0, y1 = left + _room((*on_y, *own_y), _LARGEST, _PLOT[0]), total - top - _PLOT[1]
    x1, y0 = left + _CELL.width - _PLOT[2], total - top - _CELL.height + _PLOT[3]
    place = Scale(low_x, high_x, x0, x1), Scale(low_y, high_y, y0, y1, log=chart.y_log)
    quiet: dict[str, Any] = {"color": LIGHT["muted"], "fontsize": _CELL.font}
    for value, said in on_y:
        y = place[1](value)
        plane.plot((x0, x1), (y, y), color=LIGHT["grid"], linewidth=0.7, gid=f"{cell}/grid.same", clip_on=False)
        plane.text(x0 - 5, y, said, ha="right", va="center_baseline", gid=f"{cell}/tick.same", **quiet)
    on_x = _x_ticks(chart, low_x, high_x, 4)
    for x, said in _apart([place[0](value) for value in on_x], on_x):
        plane.text(x, y0 - 5, said, ha="center", va="top", gid=f"{cell}/tick.{X_AXIS}", **quiet)
    for band in chart.bands:
        _band(plane, band, chart, cell, place)
    for line in chart.series:
        _line(plane, line, thin=False, cell=cell, place=place)
    attributes = {
        "data-box": f"{x0:.1f} {total - y1:.1f} {x1:.1f} {total - y0:.1f}",
        "data-x": _span((low_x, high_x)),
        "data-y": _span((low_y, high_y)) + (" log" * chart.y_log),
    }
    box = (left, top, _CELL.width, _CELL.height)
    import numpy as np

    if chart.y_own is None or chart.y_log:
        return Frame(box, chart.alt, cell, attributes)
    own = Scale(*chart.y_own, y0, y1)
    # y' = scale y + shift in the page's points, which grow downwards.
    scale = (high_y - low_y) / (chart.y_own[1] - chart.y_own[0])
    if scale > _FINEST:
        return Frame(box, chart.alt, cell, attributes)
    shift = total - own(low_y) - scale * (total - y0)
    marks = []
    for value, said in own_y:
        y = total - own(value)
        looks = {"font-size": f"{_CELL.font:g}", "text-anchor": "end"}
        points = np.array([(x0, y), (x1, y)])
        marks.append(Mark(cell, "grid", "", "", {"stroke-width": "0.7"}, points, (1, 2)))
        marks.append(Mark(cell, "", "", "", looks, place=(x0 - 5, y + 0.35 * _CELL.font), text=said))
    attributes["data-own"] = _span(chart.y_own)
    return Frame(box, chart.alt, cell, attributes, own=(scale, shift), own_ticks=tuple(marks))


def _x_limits(chart: LineChart) -> tuple[float, float]:
    xs = _xs(chart)
    if not xs:
        return 0.0, 1.0
    # A lone point stands at the right, beside its name.
    return (min(xs), max(xs)) if len(xs) > 1 else (min(xs) - max(1.0, abs(min(xs)) / 2), min(xs))


def _xs(chart: LineChart) -> set[float]:
    return {float(x) for xs in (*(s.x for s in chart.series), *(b.x for b in chart.bands)) for x in xs}


def _y_limits(chart: LineChart) -> tuple[float, float]:
    values = [v for line in chart.series for v in gaps(line.y)]
    values += [v for band in chart.bands for v in (*gaps(band.low), *gaps(band.high))]
    known = [v for v in values if v == v and (v > 0 or not chart.y_log)]
    if not known:
        return 0.1, 1.0
    low, high = min(known), max(known)
    if chart.y_log:
        return low / 1.2, min(high * 1.2, sys.float_info.max)
    if low == high == 0:
        return -0.05, 1.0  # no loss, share or count lies below it
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _x_ticks(chart: LineChart, low: float, high: float, most: int) -> list[float]:
    return whole_ticks(low, high, most) if len(_xs(chart)) > 1 else [high]


def whole_ticks(low: float, high: float, most: int) -> list[float]:
    """Whole numbers within limits, by steps of 1, 2, 5, 10 and so on, at most so many steps; the limits where no
    whole number lies between them.

    In whole numbers throughout, so that those of 16 digits are still found.
    """
    first, last, step = math.ceil(low), math.floor(high), 1
    if first > last:
        return [low, high]
    while last // step + -first // step > most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return [float(step * k) for k in range(-(-first // step), last // step + 1)]


def y_ticks(low: float, high: float, most: int, *, log: bool = False) -> list[float]:
    """The places of numbers on a y axis, within its limits."""
    from matplotlib.ticker import MaxNLocator

    powers = [v for v in whole_ticks(math.log10(low), math.log10(high), most) if v.is_integer()] if log else []
    if len(powers) > 1:
        # By its text, for 10 to the power of -5 by multiplication is not quite 1e-05.
        return [float(f"1e{power:.0f}") for power in powers]
    return [float(v) for v in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= v <= high]


@dataclass(frozen=True)
class Scale:
    """Where a value lies between two places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; NaN for one that has none."""
        if self.log:
            if not value > 0:
                return math.nan
            return Scale(math.log(self.low), math.log(self.high), self.start, self.end)(math.log(value))
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


_Places = tuple[Scale, Scale]


def _line(plane: Plane, line: Series, *, thin: bool, cell: str, place: _Places) -> None:
    colour, dash = colour_and_dash(line.tone, line.colour)
    xs, ys = _at(line.x, gaps(line.y), place)
    width = 0.9 if thin and line.tone is Tone.PLAIN else _WIDTHS.get(line.tone, 1.4)
    alpha = 0.55 if line.tone is Tone.FAINT else 1.0
    look: dict[str, Any] = {"color": LIGHT[colour], "clip_on": False}
    start = f"{cell}/" if cell else ""
    group = f"{colour}.{line.key}"
    plane.plot(xs, ys, linestyle=dash, linewidth=width, alpha=alpha, gid=f"{start}line.{group}", **look)
    alone = [i for i in range(len(ys)) if _is_alone(ys, i)]
    if alone:
        look |= {"marker": "o", "markersize": 4, "linestyle": "none", "markeredgewidth": 0}
        plane.plot([xs[i] for i in alone], [ys[i] for i in alone], gid=f"{start}dot.{group}", **look)


def _at(x: Sequence[float], y: Sequence[float], place: _Places) -> tuple[list[float], list[float]]:
    """Values at their places in points."""
    return [place[0](v) for v in x], [place[1](v) for v in y]


def _is_alone(ys: Sequence[float], index: int) -> bool:
    """Whether a point has no neighbour to draw a line to."""
    neighbours = [ys[i] for i in (index - 1, index + 1) if 0 <= i < len(ys)]
    return not math.isnan(ys[index]) and all(math.isnan(y) for y in neighbours)


def _band(plane: Plane, band: Band, chart: LineChart, cell: str, place: _Places) -> None:
    owner = next((line for line in chart.series if line.key == band.key and band.key), None)
    colour = colour_and_dash(owner.tone, owner.colour)[0] if owner else "band"
    (xs, low), (_, high) = _at(band.x, gaps(band.low), place), _at(band.x, gaps(band.high), place)
    start, group = f"{cell}/" if cell else "", f"{colour}.{band.key}"
    look: dict[str, Any] = {"color": LIGHT[colour], "clip_on": False}
    shade: dict[str, Any] = {"alpha": 0.22 if owner else 0.16, "linewidth": 0, "gid": f"{start}band.{group}"}
    for first, end in _stretches(low, high):
        corners = [*zip(xs[first:end], low[first:end], strict=True)]
        corners += [*zip(xs[first:end], high[first:end], strict=True)][::-1]
        plane.fill([x for x, _ in corners], [y for _, y in corners], **look, **shade)
    alone = [i for i in range(len(low)) if _is_alone(low, i)]
    if alone:
        nan = math.nan
        ends_x = [v for i in alone for v in (xs[i], xs[i], nan)]
        ends_y = [v for i in alone for v in (low[i], high[i], nan)]
        bar: dict[str, Any] = {"alpha": 0.35, "linewidth": 6, "solid_capstyle": "butt", "gid": f"{start}span.{group}"}
        plane.plot(ends_x, ends_y, **look, **bar)


def _stretches(low: Sequence[float], high: Sequence[float]) -> Iterator[tuple[int, int]]:
    """[first, end) of every run of two places or more where both curves have a value."""
    known = [a == a and b == b for a, b in zip(low, high, strict=True)]
    first = None
    for i, there in enumerate([*known, False]):
        if there and first is None:
            first = i
        elif not there and first is not None:
            if i - first > 1:
                yield first, i
            first = None


def end_named(series: Sequence[Series]) -> list[Series]:
    """The lines that get their name at the right end: all that mean something, while they fit one above the other."""
    wanted = [
        line
        for line in series
        if line.tone not in (Tone.FAINT, Tone.REFERENCE) and any(not math.isnan(y) for y in gaps(line.y))
    ]
    room = int((WIDE.height - _TOP - _BOTTOM) / _GAP)
    return wanted if len(wanted) <= room else []


def end_names(chart: LineChart) -> dict[str, str]:
    """What is written at the right end of the lines, by their names, and no two of those alike."""
    return told_within([name(line.name, 0) for line in end_named(chart.series)], LONGEST_END, WIDEST_END)


def _name_ends(plane: Plane, chart: LineChart, lines: Sequence[Series], place: _Places) -> None:
    x1, y0, y1 = place[0].end, place[1].start, place[1].end
    ends = [next((x, y) for x, y in zip(reversed(s.x), reversed(gaps(s.y)), strict=True) if y == y) for s in lines]
    places = [(place[0](x), place[1](y)) for x, y in ends]
    shown = end_names(chart)
    names = set_apart([y if y == y else y0 for _, y in places], _GAP, y0, y1)
    for line, (x, y), at in zip(lines, places, names, strict=True):
        colour, _ = colour_and_dash(line.tone, line.colour)
        look: dict[str, Any] = {"color": LIGHT[colour], "clip_on": False}
        group = f"{colour}.{line.key}"
        words: dict[str, Any] = {"va": "center_baseline", "fontsize": WIDE.font, "gid": f"name.{group}"}
        plane.text(x1 + 14, at, shown[name(line.name, 0)], **look, **words)
        led: dict[str, Any] = {"linewidth": 0.6, "gid": f"leader.{group}", **look}
        start = x + 1.5
        if x1 - x >= _NEAR_END:
            # Across the chart it would look like more of the line, of one that ended early, were it not dotted.
            plane.plot((start, x1 + 1), (y, y), alpha=0.4, linestyle=(0, (1, 5)), **led)
            start = x1 + 2
        plane.plot((start, x1 + 12), (y, at), alpha=0.55, **led)


def _span(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.12g} {limits[1]:.12g}"


def set_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
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
