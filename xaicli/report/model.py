"""The report: everything a page, a picture or a terminal shows about one answer, as frozen plain data.

Built once per answer by the modules beside this one; every renderer takes the same `Report`. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any


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


if TYPE_CHECKING:
    import polars as pl

    Rows = pl.DataFrame | Iterable[Mapping[str, Any]]


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
    y_log: bool = False


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
class ImageChart:
    """A picture drawn elsewhere that is also written beside the page."""

    name: str
    title: str
    image: Image


class Cell(StrEnum):
    """How a table column is aligned and formatted."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    SPARKLINE = "sparkline"
    """The cell is a tuple of numbers, None for a gap."""


@dataclass(frozen=True)
class Column:
    """A column of a table shown to people."""

    title: str
    cell: Cell = Cell.TEXT


@dataclass(frozen=True)
class Table:
    """A table shown to people: in the terminal, on the page, as Markdown."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""
    keys: tuple[str, ...] = ()
    """Per row, what links it with lines and cards; "" for none."""
    terminal_rows: int = 20
    """How many rows a terminal shows."""
    folded: bool = False
    """Whether the page shows it on request only."""


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
class Card:
    """One sample at a glance."""

    key: str
    title: str
    lines: tuple[str, ...]
    tone: Tone = Tone.PLAIN
    image: Image | None = None
    sparkline: tuple[float | None, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """(text, relative address) pairs."""
    deep_link: str = ""
    """The sample id that a link to `#s=` names."""
    verdict: str = ""
    """The line that stands out: label and prediction where they differ."""


@dataclass(frozen=True)
class Gallery:
    """Cards under one heading."""

    title: str
    cards: tuple[Card, ...]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Figure:
    """A key figure: a value in large type over a few words."""

    value: str
    caption: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Figures:
    """Key figures side by side."""

    figures: tuple[Figure, ...]


FIXED = "fixed"
"""The name of the view that always lies over the input, whatever is toggled."""


@dataclass(frozen=True)
class MapView:
    """One way to look at an attribution: "clipped", "full", "signed"; or `FIXED`."""

    name: str
    image: Image


@dataclass(frozen=True)
class MapPanel:
    """One method's map of one sample, with its trust figures in words."""

    method: str
    title: str
    views: tuple[MapView, ...]
    lines: tuple[str, ...] = ()
    flat: bool = False
    chart: BarChart | LineChart | None = None
    """In place of pictures, for tables and signals."""
    tokens: tuple[tuple[str, float], ...] = ()
    """In place of pictures, for text: (token, strength in [0, 1])."""


@dataclass(frozen=True)
class MapRow:
    """One sample's saliency: what went in, what came out, and each method's map."""

    key: str
    title: str
    lines: tuple[str, ...]
    tone: Tone
    probabilities: tuple[tuple[str, float, Tone], ...]
    input: Image | None
    panels: tuple[MapPanel, ...]
    links: tuple[tuple[str, str], ...] = ()
    deep_link: str = ""


@dataclass(frozen=True)
class MapGrid:
    """Saliency, a row a sample."""

    name: str
    title: str
    rows: tuple[MapRow, ...]
    note: str = ""


@dataclass(frozen=True)
class Views:
    """Several ways to look at one thing, one shown at a time on a page: {what it is called: blocks}."""

    name: str
    title: str
    views: Mapping[str, tuple[Block, ...]]


Block = (
    LineChart | Multiples | ScatterChart | BarChart | ImageChart | Table | Gallery | Text | Figures | MapGrid | Views
)


@dataclass(frozen=True)
class Section:
    """A part of a report that stands on its own."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]
    page_only: bool = False
    """Too much for a terminal."""


@dataclass(frozen=True)
class Report:
    """Everything to be shown about one answer.

    Attributes:
        name: The stem of the page ("labels").
        title: The heading.
        run_line: The run in one line.
        sentence: One plain sentence with the figures that matter.
        sections: The parts in reading order.
        made: *How this was made*: (what, value) pairs - command, selection rule, counts.
        warnings: What the reader must know before trusting the figures.
        tables: Data written beside the page, {file stem: what yields the rows}; one CSV each.
        json_name: The stem of the JSON file; the page's where "".
    """

    name: str
    title: str
    run_line: str
    sentence: str
    sections: tuple[Section, ...]
    made: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    tables: Mapping[str, Callable[[], Rows]] = field(default_factory=dict)
    json_name: str = ""
