"""Charts and pictures of a report as frozen plain data: what to draw, not how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from xaicli.report.numbers import listed
from xaicli.vocabulary import Axis as Over


class Tone(StrEnum):
    """How a line, card or cell is meant; renderers pick colour, dash and weight."""

    MAX = "max"
    MIN = "min"
    LISTED = "listed"
    MEDIAN = "median"
    PLAIN = "plain"
    FAINT = "faint"
    REFERENCE = "reference"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True)
class Series:
    """One line of a chart; a None in `y` is a gap."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    tone: Tone = Tone.PLAIN
    key: str = ""
    """What links the line with cards and tables (a sample's number on the page); never user text."""
    note: str = ""
    """What a hover says beside the value."""
    counts: tuple[int, ...] = ()
    """How many samples are behind each point."""
    colour: int | None = None
    """Which colour and dash of the palette a `PLAIN` line takes; None for the first."""


@dataclass(frozen=True)
class Band:
    """A shaded area between two curves."""

    name: str
    x: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    key: str = ""
    """The key of the series it surrounds; "" for a band of the whole population."""


@dataclass(frozen=True)
class Axis:
    """Another name for places of the x axis: the step of each epoch, say. It changes the ticks, not the picture."""

    label: str
    at: tuple[float, ...]
    """The places, ascending."""
    values: tuple[float, ...]
    """What each is called on this axis."""


@dataclass(frozen=True)
class LineChart:
    """Lines and bands over epochs or steps."""

    name: str
    """The stem of the PNG's file name."""
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    bands: tuple[Band, ...] = ()
    legend: str = ""
    """What bands and dashes mean, in words."""
    alt: str = ""
    subtitle: str = ""
    y_limits: tuple[float, float] | None = None
    y_own: tuple[float, float] | None = None
    """The limits of a cell's own y axis, where `y_limits` are those it shares with the other cells."""
    y_log: bool = False
    other_axis: Axis | None = None
    """What the page can show in place of the x axis."""


@dataclass(frozen=True)
class Multiples:
    """Small charts in a grid: one picture, one cell a chart on the page."""

    name: str
    title: str
    charts: tuple[LineChart, ...]
    legend: str = ""
    alt: str = ""

    @property
    def caption(self) -> str:
        """The legend, and what the cells' x axes are: a cell has no room for it."""
        over: dict[str, list[str]] = {}
        for chart in self.charts:
            over.setdefault(chart.x_label, []).append(chart.title)
        said = ", ".join(over) if len(over) < 2 else "; ".join(f"{x} ({listed(own, 3)})" for x, own in over.items())
        return f"{self.legend} Left to right: {said}.".lstrip()


@dataclass(frozen=True)
class ScatterChart:
    """Points in a plane, coloured by a third value; `colour` holds numbers or group names."""

    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: tuple[float | str | None, ...] = ()
    colours: tuple[str, ...] = ()
    """The group names in the order of the palette; that of their appearance without it."""
    neither: str = ""
    """The group of what belongs to no other: it is drawn in grey."""
    keys: tuple[str, ...] = ()
    """Per point, what links it with cards and tables; "" for none. Points with a key are marked."""
    names: tuple[str, ...] = ()
    """Per point, what a hover says; "" for nothing."""
    legend: str = ""
    alt: str = ""
    diagonal: bool = False
    """Whether a line marks where both values are equal."""


@dataclass(frozen=True)
class MatrixChart:
    """Counts by row and column, both in the order of `names`."""

    name: str
    title: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    x_label: str
    y_label: str
    links: tuple[tuple[str, ...], ...] = ()
    """Per cell the id of the place on the page that it leads to; "" for none."""
    legend: str = ""
    alt: str = ""


@dataclass(frozen=True)
class BarChart:
    """Values by name, signed: the attribution of each column of a table, say."""

    name: str
    title: str
    x_label: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    alt: str = ""


@dataclass(frozen=True)
class Image:
    """A picture by its pixels: uint8 bytes of (height, width, channels), channels 1, 3 or 4."""

    width: int
    height: int
    channels: int
    pixels: bytes
    alt: str
    palette: str = ""
    """The colours of a single channel, by matplotlib's name ("inferno"); "" for grey."""


@dataclass(frozen=True)
class ImageChart:
    """A picture drawn elsewhere that is also written beside the page."""

    name: str
    title: str
    image: Image


Place = tuple[int, int]
"""(epoch, pass)."""


def along(xs: Iterable[Any], values: Iterable[float | None], axis: Iterable[Any]) -> tuple[float | None, ...]:
    """A history on an axis that it shares with others: None wherever it has no value.

    Args:
        xs: Where its values lie.
        values: The values.
        axis: Every place of the axis.
    """
    known = dict(zip(xs, values, strict=True))
    return tuple(known.get(x) for x in axis)


@dataclass(frozen=True)
class Times:
    """The time axis of a picture.

    Attributes:
        over: What it is drawn over.
        places: {(epoch, pass): its place on the axis}.
        other: The same places by step, or by epoch where the picture is drawn over steps; None where no step is known.
    """

    over: Over = Over.EPOCH
    places: Mapping[Place, float] = field(default_factory=dict)
    other: Axis | None = None

    @classmethod
    def of(cls, over: str | None, points: Iterable[Mapping[str, Any]]) -> Times:
        """The axis of some points.

        Over epochs, the passes of one epoch lie at equal distances from it to the next one; over passes, all passes of
        all epochs are counted from 0.

        Args:
            over: `epoch`, `step` or `pass`; epochs when None.
            points: Whatever has `epoch`, `step` and, where there are several an epoch, `pass`.
        """
        steps: dict[Place, int | None] = {}
        for point in points:
            known = steps.get(_place(point))
            steps[_place(point)] = known if point["step"] is None else max(point["step"], known or point["step"])
        ordered = sorted(steps)
        n_passes = max((number for _, number in ordered), default=0) + 1
        axis = Over(over or Over.EPOCH)
        if axis is Over.STEP:
            places = {place: float(steps[place] or 0) for place in ordered}
            named = {at: float(place[0]) for place, at in places.items()}
            return cls(axis, places, Axis("epoch", tuple(sorted(named)), tuple(named[at] for at in sorted(named))))
        if axis is Over.PASS:
            places = {place: float(number) for number, place in enumerate(ordered)}
        else:
            places = {place: place[0] + place[1] / n_passes for place in ordered}
        told = [place for place in ordered if steps[place] is not None]
        values = tuple(float(steps[place] or 0) for place in told)
        return cls(axis, places, Axis("step", tuple(places[place] for place in told), values) if told else None)

    @classmethod
    def among(cls, histories: Iterable[Iterable[Mapping[str, Any]] | None]) -> Times:
        """The axis that some histories share where nothing is drawn but themselves, by whatever has `epoch`."""
        ordered = sorted({_place(point) for history in histories for point in history or ()})
        return cls(places={place: float(number) for number, place in enumerate(ordered)})

    @property
    def many(self) -> str:
        """What it is drawn over, in the plural."""
        return "passes" if self.over is Over.PASS else f"{self.over}s"

    @property
    def are_one(self) -> bool:
        """Whether all of it is one place, where no history can be seen."""
        return len(self.places) < 2

    def course(self, history: Iterable[Mapping[str, Any]] | None, key: str = "value") -> tuple[float | None, ...]:
        """A history's values at every place of the axis; None where it has none.

        Args:
            history: Whatever has `epoch` and, where there are several an epoch, `pass`.
            key: What of it is the value.
        """
        points = list(history or ())
        return along(map(_place, points), (point[key] for point in points), sorted(self.places))

    def gaps(self, points: Iterable[Mapping[str, Any]]) -> list[Place]:
        """The places of the axis between the first and the last of some points where there is none of them."""
        known = set(map(_place, points))
        if len(known) < 2 or len(known) == len(self.places):
            return []
        first, last = min(known), max(known)
        return sorted(place for place in self.places.keys() - known if first < place < last)

    def with_gaps(self, points: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Points in time, with one that has nothing but `epoch`, `pass` and null at each of their gaps."""
        there = list(points)
        lacking = self.gaps(there)
        if not lacking:
            return there
        empty = dict.fromkeys(there[0])
        return sorted([*there, *({**empty, "epoch": epoch, "pass": number} for epoch, number in lacking)], key=_place)

    def x(self, point: Mapping[str, Any]) -> float:
        """Where a point lies."""
        return self.places.get(_place(point), float(point["epoch"]))


def _place(point: Mapping[str, Any]) -> Place:
    return point["epoch"], point.get("pass") or 0
