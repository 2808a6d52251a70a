"""The report: everything a page, a picture or a terminal shows about one answer, as frozen plain data.

Built once per answer by the modules beside this one; every renderer takes the same `Report`. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from xaicli.report.charts import BarChart, Image, ImageChart, LineChart, MatrixChart, Multiples, ScatterChart, Tone
from xaicli.report.numbers import listed

if TYPE_CHECKING:
    import polars as pl

    Rows = pl.DataFrame | Sequence[Mapping[str, Any]]

Scale = tuple[float | None, float | None]
"""From where to where values are drawn; None for their own lowest and highest."""
UNKNOWN: Scale = (None, None)


def common_scale(histories: Iterable[Iterable[float | None] | None]) -> Scale:
    """The lowest and highest finite value of some histories."""
    values = [v for history in histories for v in history or () if v is not None and math.isfinite(v)]
    return (min(values), max(values)) if values else UNKNOWN


FIXED = "fixed"
"""The name of the view that always lies over the input, whatever is toggled."""


@dataclass(frozen=True)
class MapView:
    """One way to look at an attribution: "clipped", "full", "signed"; or `FIXED`."""

    name: str
    image: Image


@dataclass(frozen=True)
class MapPanel:
    """One method's map of one sample, with its trust figures in words.

    Attributes:
        method: What a toggle switches it by.
        toggle: What that toggle is called; "" for the title.
    """

    method: str
    title: str
    views: tuple[MapView, ...]
    lines: tuple[str, ...] = ()
    flat: bool = False
    chart: BarChart | LineChart | None = None
    """In place of pictures, for tables and signals."""
    tokens: tuple[tuple[str, float], ...] = ()
    """In place of pictures, for text: (token, strength in [0, 1])."""
    special: frozenset[int] | None = None
    """Places of tokens that stand for no text; None where that is not known, and their spelling tells."""
    toggle: str = ""
    input: str = ""
    """The name of the input that it is a map of."""


@dataclass(frozen=True)
class MapRow:
    """One sample's saliency: what went in, what came out, and each method's map."""

    key: str
    title: str
    lines: tuple[str, ...]
    wrong: str
    """The one of the lines that is wrong; none where empty."""
    probabilities: tuple[tuple[str, float, Tone], ...]
    inputs: Mapping[str, Image]
    """The pictures of what went in, by the inputs' names."""
    panels: tuple[MapPanel, ...]
    links: tuple[tuple[str, str], ...] = ()
    deep_link: str = ""
    place: str = ""
    """As `Card.place`; of an input that stands for samples of several, a line each."""
    facts: tuple[tuple[str, Link], ...] = ()
    """What the sample is, as (name, what is known)."""


@dataclass(frozen=True)
class MapGrid:
    """Saliency, a row a sample."""

    name: str
    title: str
    rows: tuple[MapRow, ...]
    note: str = ""
    toggles: str = "methods"
    """What the toggles switch."""


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
    aside: bool = False
    """Whether a terminal too narrow for all columns leaves it out first."""
    kept: bool = False
    """Whether a terminal too narrow for all columns leaves out others before it."""
    apart: float = math.inf
    """How far a number lies from those of other columns that are compared with it; infinite where none is."""
    whole: bool = False
    """Whether a terminal breaks its texts between words, and cuts none."""
    fact: bool = False
    """Whether it is a fact of the samples: a page has these behind what is said of them."""
    in_files: bool = True
    """Whether the files that have the table's rows have this of them too."""


IN_JSON = ("--json",)
IN_CSV = ("--format csv", "--json")
IN_PAGE = ("--format html",)


def either(places: Sequence[str]) -> str:
    """Places any of which will do, in words."""
    return " or ".join(filter(None, (", ".join(places[:-1]), places[-1])))


def rest_of(what: str, places: tuple[str, ...] = IN_JSON) -> str:
    """Where what a page leaves out is: behind what is to be typed, since a file may not have been asked for."""
    return f"{what}: {either(places)} has all"


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
    anchors: tuple[str, ...] = ()
    """Per row, the id that a link on the page leads to."""
    folded: bool = False
    """Whether the page shows it on request only, and a terminal not at all."""
    rest_in: tuple[str, ...] = IN_JSON
    """What has the rows and columns that a terminal leaves out."""

    @property
    def facts_last(self) -> tuple[int, ...]:
        """The places of the columns as a page has them."""
        return tuple(sorted(range(len(self.columns)), key=lambda at: self.columns[at].fact))

    def scale(self, index: int) -> Scale:
        """The lowest and highest value of a column of histories, which are drawn on one scale, to be compared."""
        return common_scale(row[index] for row in self.rows) if self.columns[index].cell is Cell.SPARKLINE else UNKNOWN


@dataclass(frozen=True)
class Link:
    """A text that may lead somewhere, or stand for more.

    Attributes:
        text: What is shown.
        address: Where it leads; "" for nowhere.
        whole: What is copied and what a hover says, where the text is a part or a rounding of it; "" where it is not.
    """

    text: str
    address: str = ""
    whole: str = ""

    def __str__(self) -> str:
        return self.text


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
    place: str = ""
    """The sample's `mode/ds_id`, which a link may name behind it as `&at=`; "" where it is not known."""
    verdict: str = ""
    """The line that stands out: label and prediction where they differ."""
    facts: tuple[tuple[str, Link], ...] = ()
    """What the sample is, as (name, what is known)."""


@dataclass(frozen=True)
class Gallery:
    """Cards under one heading.

    Attributes:
        legend: What is drawn in the pictures, said only where some are shown.
    """

    title: str
    cards: tuple[Card, ...]
    note: str = ""
    legend: str = ""


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


@dataclass(frozen=True)
class Views:
    """Several ways to look at one thing, one shown at a time on a page: {what it is called: blocks}."""

    name: str
    title: str
    views: Mapping[str, tuple[Block, ...]]
    apart: int = 0
    """How many of them are shown where a reader cannot switch, each being of something else; 0 where any will do."""

    def at_once(self) -> tuple[Block, ...]:
        """What is shown where a reader cannot switch: one view, or several and what the others are."""
        shown = [block for blocks in list(self.views.values())[: self.apart or 1] for block in blocks]
        # What is folded says again what stands above it.
        told = [block for block in shown if not (isinstance(block, Table) and block.folded)]
        if self.apart and (others := list(self.views)[self.apart :]):
            told.append(Text(f"--format html and md show the same of {self.title} {listed(others)}", Tone.FAINT))
        return tuple(told)


@dataclass(frozen=True)
class Passage:
    """A text whose words are coloured by a value each."""

    key: str
    title: str
    lines: tuple[str, ...]
    words: tuple[tuple[str, float], ...]
    """(word, strength in [0, 1])."""
    deep_link: str = ""
    """The sample id that a link to `#s=` names."""
    place: str = ""
    """As `Card.place`."""


Block = (
    LineChart
    | Multiples
    | ScatterChart
    | MatrixChart
    | BarChart
    | ImageChart
    | Table
    | Gallery
    | Text
    | Figures
    | MapGrid
    | Passage
    | Views
)


@dataclass(frozen=True)
class Section:
    """A part of a report that stands on its own."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]
    page_only: bool = False
    """Too much for a terminal, which names it."""


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
        label_names: What the run's labels are called: no name that a terminal cuts may be taken for one of them.
        run_id: Which run its samples are of; "" where that is not known.
        absent: What to do about a sample that is not on the page, where anything can be done.
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
    label_names: tuple[str, ...] = ()
    run_id: str = ""
    absent: str = ""
