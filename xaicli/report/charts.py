"""Charts and pictures of a report as frozen plain data: what to draw, not how. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    keys: tuple[str, ...] = ()
    """Per point, what links it with cards and tables; "" for none. Points with a key are marked."""
    names: tuple[str, ...] = ()
    """Per point, what a hover says; "" for nothing."""
    legend: str = ""
    alt: str = ""
    diagonal: bool = False
    """Whether a line marks where both values are equal."""


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
