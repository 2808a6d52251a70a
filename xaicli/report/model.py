"""The report: everything a page, a picture or a terminal shows about one answer, as frozen plain data.

Built once per answer by the modules beside this one; every renderer takes the same `Report`. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Tone(StrEnum):
    """How a line, card or cell is meant; renderers pick colour, dash and weight."""

    MAX = "max"
    MIN = "min"
    LISTED = "listed"
    MEDIAN = "median"
    PLAIN = "plain"
    FAINT = "faint"
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


@dataclass(frozen=True)
class Band:
    """A shaded area between two curves."""

    name: str
    x: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    key: str = ""


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
    small: bool = False
    """A small multiple."""
    y_limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class ScatterChart:
    """Points in a plane, coloured by a third value."""

    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: tuple[float | str | None, ...] = ()
    colour_label: str = ""
    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    alt: str = ""


class Cell(StrEnum):
    """How a table column is aligned and formatted."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    SPARKLINE = "sparkline"


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


@dataclass(frozen=True)
class Image:
    """A picture by its pixels: uint8 bytes of (height, width, channels), channels 1, 3 or 4."""

    width: int
    height: int
    channels: int
    pixels: bytes
    alt: str


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


Block = LineChart | ScatterChart | Table | Gallery | Text


@dataclass(frozen=True)
class Section:
    """A part of a report that stands on its own."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """Everything to be shown about one answer.

    Attributes:
        name: The stem of the files written ("labels").
        title: The heading.
        run_line: The run in one line.
        sentence: One plain sentence with the figures that matter.
        sections: The parts in reading order.
        made: *How this was made*: (what, value) pairs - command, selection rule, counts.
        machine: The JSON object without `outputs`: schema_version, command, run, selection, warnings, counts, rows.
        tables: Data written beside the page, {file stem: rows}; one CSV each.
    """

    name: str
    title: str
    run_line: str
    sentence: str
    sections: tuple[Section, ...]
    made: tuple[tuple[str, str], ...]
    machine: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
