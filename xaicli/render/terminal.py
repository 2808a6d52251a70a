"""A report in the terminal: tables with sparklines, 80 columns wide or as wide as the terminal is."""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text as RichText

from xaicli.answer import Counts
from xaicli.render.text import clipped, message, printable, sparkline, told_apart
from xaicli.report import numbers
from xaicli.report.charts import BarChart, ImageChart, LineChart, MatrixChart, Multiples, ScatterChart, Tone, along
from xaicli.report.model import (
    IN_PAGE,
    Block,
    Cell,
    Column,
    Figures,
    Gallery,
    Link,
    MapGrid,
    Passage,
    Report,
    Scale,
    Section,
    Table,
    Text,
    Views,
    common_scale,
    either,
)
from xaicli.report.numbers import count, cut_apart, listed
from xaicli.report.page import counts_in_words

_STYLES = {Tone.MAX: "red", Tone.MIN: "blue", Tone.LISTED: "green", Tone.BAD: "red", Tone.GOOD: "green"}
_LONGEST = 36
_SIZES = frozenset({"COLUMNS", "LINES"})
_SHORT = 24
"""Characters of a long name where a table would not fit else."""
_NARROWEST = 6
_LAST = 300
_BAR = 24
_PICTURES = 10
_GAP = 3
_LINES = 3
"""More lines than so many a sentence takes under its row, not in a column."""
_TIGHT = ((_SHORT, 3), (_SHORT, 2), (20, 2), (16, 2), (12, 2))
"""How a table of more than the width is laid out, the first that fits: longest text and blanks between columns."""


def show(
    report: Report,
    paths: Sequence[Path] = (),
    *,
    counts: Counts | None = None,
    conditions: str = "",
    out: Console | None = None,
    err: Console | None = None,
) -> None:
    """Print a report to standard output and its warnings to standard error.

    Args:
        report: What to show.
        paths: Files written, listed at the end.
        counts: What was left out, told where there is something to tell.
        conditions: The options that left rows out one by one, as named in a sentence.
        out, err: Where to print instead.
    """
    out = out or console()
    err = err or console(stderr=True)
    for warning in report.warnings:
        err.print(_text(message("warning", warning), "yellow"))
    out.print(_text(report.title, "bold"))
    out.print(_text(report.run_line, "dim"))
    if report.sentence:
        out.print(_text(report.sentence))
    for section in report.sections:
        if not section.page_only:
            _section(section, out, report.title, report.label_names)
    if more := [section.title for section in report.sections if section.page_only and not _is_text(section)]:
        where = "the page" if any(path.suffix == ".html" for path in paths) else "--format html"
        out.print()
        out.print(_text(f"{where} shows more: {', '.join(more)}", "dim"))
    if left_out := counts_in_words(counts, of=report.name, conditions=conditions):
        out.print()
        out.print(_text(left_out, "dim"))
    if paths:
        out.print()
    pictures = [path for path in paths if path.suffix == ".png"]
    for path in paths if len(pictures) <= _PICTURES else [path for path in paths if path not in pictures]:
        out.print(_text(f"wrote {path}", "dim"), soft_wrap=True)
    if len(pictures) > _PICTURES:
        out.print(_text(f"wrote {len(pictures)} pictures beside, {pictures[0].name} the first", "dim"), soft_wrap=True)


def console(**how: Any) -> Console:
    """A console that obeys FORCE_COLOR and TERM=dumb as rich does; under NO_COLOR text is plain, not even bold.

    In a notebook it writes text as everywhere: rich would make a display of its own of every line.

    Args:
        how: What rich's own console takes, over this.
    """
    plain: dict[str, Any] = {"force_terminal": False} if os.environ.get("NO_COLOR") else {}
    environ = {name: text for name, text in os.environ.items() if name not in _SIZES or _is_size(text)}
    plain |= {"highlight": False, "soft_wrap": False, "force_jupyter": False, "_environ": environ}
    return Console(**plain | how)


def _is_size(text: str) -> bool:
    """Whether a variable says how wide or high the terminal is: 0, as where nobody knows, says nothing."""
    return text.isascii() and text.isdigit() and int(text) > 0


def as_text(report: Report, width: int = 80) -> str:
    """The report as plain text of a given width."""
    stream = io.StringIO()
    out = Console(file=stream, width=width, highlight=False, color_system=None, force_jupyter=False)
    show(report, out=out, err=Console(quiet=True, force_jupyter=False))
    return stream.getvalue()


def _is_text(section: Section) -> bool:
    """Whether there is nothing but words, why there is no more say."""
    return all(isinstance(block, Text) for block in section.blocks)


def _section(section: Section, out: Console, of: str, among: Sequence[str]) -> None:
    blocks = [block for top in section.blocks for block in _at_once(top)]
    if any(isinstance(block, (Table, MapGrid)) for block in blocks):
        # The table says what the pictures of its section say.
        blocks = [block for block in blocks if isinstance(block, (Table, MapGrid, MatrixChart, Text, Figures))]
    blocks = [block for block in blocks if not (isinstance(block, Table) and not block.rows and not block.note)]
    folded = [block for block in blocks if isinstance(block, Table) and block.folded]
    if not blocks:
        return
    out.print()
    if section.title != of:
        out.print(_text(section.title, "bold underline"))
    for block in blocks:
        if block not in folded:
            _block(block, out, section.title, among)
    if folded:
        out.print(_text(f"--format html shows more: {', '.join(table.title for table in folded)}", "dim"))


def _at_once(block: Block) -> Sequence[Block]:
    return block.at_once() if isinstance(block, Views) else (block,)


def _block(block: Block, out: Console, of: str, among: Sequence[str]) -> None:
    match block:
        case Text():
            out.print(_text(block.text, _STYLES.get(block.tone, "")))
        case Figures():
            out.print(_text("   ".join(f"{figure.value} {figure.caption}" for figure in block.figures)))
        case Table():
            _table(block, out, of, among)
        case LineChart():
            _lines(block, out)
        case Multiples():
            for chart in block.charts:
                _lines(chart, out)
        case Gallery():
            _gallery(block, out)
        case BarChart() | MatrixChart():
            _table(_numbers(block), out, of, among)
        case MapGrid():
            _maps(block, out)
        case Views():
            for inner in _at_once(block):
                _block(inner, out, of, among)
        case ScatterChart() | ImageChart() | Passage():
            pass
        case _:
            assert_never(block)


def _numbers(chart: BarChart | MatrixChart) -> Table:
    """A picture of numbers by name as the table it shows."""
    if isinstance(chart, BarChart):
        named = tuple(zip(chart.names, chart.values, strict=True))
        columns: tuple[Column, ...] = (Column(""), Column(chart.x_label, Cell.NUMBER))
        return Table(chart.name, "", columns, named, terminal_rows=len(named))
    heads = cut_apart(chart.names, 12)
    columns = (Column(chart.y_label), *(Column(heads[name], Cell.INTEGER) for name in chart.names))
    rows = tuple((name, *row) for name, row in zip(chart.names, chart.counts, strict=True))
    return Table(chart.name, chart.title, columns, rows, terminal_rows=len(rows))


def _table(table: Table, out: Console, of: str, among: Sequence[str]) -> None:
    if table.title and table.title != of:
        out.print(_text(table.title, "bold"))
    table = _with_clipped_texts(table)
    shown = table.rows[: table.terminal_rows]
    bounds = [table.scale(index) for index in range(len(table.columns))]
    whole_cells = _rows(
        [_cells([row[i] for row in shown], c, b) for i, (c, b) in enumerate(zip(table.columns, bounds, strict=True))]
    )
    last = len(table.columns) - 1
    longest = max((cell_len(row[last]) for row in whole_cells), default=0) if table.columns else 0
    headings = [
        _Heading(c.title, c.cell, c.cell is Cell.TEXT and (c.whole or (i == last and longest > _SHORT)))
        for i, c in enumerate(table.columns)
    ]
    shortened = functools.partial(_shortened, table, tuple(headings), whole_cells, among)
    kept, heads, cells, gap = _layout(table, shortened, range(len(headings)), out.width)
    beneath: Sequence[str] = ()
    if len(kept) > 1 and table.columns[last].cell is Cell.TEXT and _is_squeezed(kept, heads, cells, out.width, gap):
        # A sentence that would be a narrow column stands under its row, over the whole width.
        beneath = [row[last] for row in shortened(_LONGEST)[1]]
        kept, heads, cells, gap = _layout(table, shortened, range(last), out.width)
    headings, cells = _of(kept, heads, cells)
    widths = _widths(headings, cells, out.width, gap)
    _plain_table(headings, cells, out, widths, gap, beneath)
    hidden = [c.title for i, c in enumerate(table.columns) if i not in kept and not (beneath and i == last)]
    more = [f"{count(n, 'more row')}: {either(table.rest_in)} has all" for n in (len(table.rows) - len(shown),) if n]
    if hidden:
        is_filed = all(column.in_files for column in table.columns if column.title in hidden)
        where = either(("a wider terminal", *(table.rest_in if is_filed else IN_PAGE)))
        more.append(f"{count(len(hidden), 'more column')} ({listed(hidden)}): {where} has all")
    if more:
        out.print(_text(f"and {', and '.join(more)}", "dim"))
    if table.note:
        out.print(_text(table.note, "dim"))


def _with_clipped_texts(table: Table) -> Table:
    """The table with the ends of huge texts, a fact of megabytes say, in their place."""
    said = clipped(
        v.text if isinstance(v, Link) else v for row in table.rows for v in row if isinstance(v, (str, Link))
    )
    if all(text is short for text, short in said.items()):
        return table
    rows = tuple(
        tuple(
            replace(v, text=said[v.text]) if isinstance(v, Link) else said[v] if isinstance(v, str) else v for v in row
        )
        for row in table.rows
    )
    return replace(table, rows=rows)


_Grid = tuple[Sequence["_Heading"], Sequence[Sequence[str]]]


def _layout(
    table: Table, shortened: Callable[[int], _Grid], columns: Sequence[int], width: int
) -> tuple[list[int], Sequence[_Heading], Sequence[Sequence[str]], int]:
    """Which of some columns are shown, the heads and cells of all, as short as it takes, and the blanks between."""
    kept, gap, grid = list(columns), _GAP, shortened(_LONGEST)
    wide = _of(kept, *grid)
    # Without a sentence at its end a row stands on one line, where that can be.
    has_sentence = len(table.columns) - 1 in kept
    needed = _whole_width(*wide) if has_sentence else _one_line_width(kept, grid[1], gap)
    if needed > width or _n_columns_that_fit(*wide, width, gap) < len(kept):
        grid = shortened(_SHORT)
        aside = [index for index in kept if table.columns[index].aside]
        while aside and _whole_width(*_of(kept, *grid)) > width:
            kept.remove(aside.pop())
        closer = [(shortened(limit), blanks) for limit, blanks in _TIGHT]
        fit = [
            (tight, blanks)
            for tight, blanks in closer
            if _n_columns_that_fit(*_of(kept, *tight), width, blanks) == len(kept)
        ]
        on_one = (
            [] if has_sentence else [found for found in fit if _one_line_width(kept, found[0][1], found[1]) <= width]
        )
        # Where none has room for all columns, that which has room for most.
        most = max(closer, key=lambda found: _n_columns_that_fit(*_of(kept, *found[0]), width, found[1]))
        grid, gap = next(iter((*on_one, *fit)), most)
    while len(kept) > 1 and _n_columns_that_fit(*_of(kept, *grid), width, gap) < len(kept):
        kept.remove(next((index for index in reversed(kept[1:]) if not table.columns[index].kept), kept[-1]))
    return kept, *grid, gap


def _one_line_width(kept: Sequence[int], rows: Sequence[Sequence[str]], gap: int) -> int:
    """How wide the cells of some columns are where no cell is broken."""
    return sum(max((cell_len(row[index]) for row in rows), default=0) + gap for index in kept) - gap


def _is_squeezed(
    kept: Sequence[int], headings: Sequence[_Heading], rows: Sequence[Sequence[str]], width: int, gap: int
) -> bool:
    """Whether the last column holds sentences that would take many lines, or has no room at all."""
    last = len(headings) - 1
    longest = max((cell_len(row[last]) for row in rows), default=0)
    if last not in kept:
        return longest > width // 2
    room = _widths(*_of(kept, headings, rows), width, gap)
    return bool(room) and longest > _LINES * room[-1]


def _shortened(
    table: Table, headings: Sequence[_Heading], rows: Sequence[Sequence[str]], among: Sequence[str], limit: int
) -> _Grid:
    """Heads and cells, texts beyond `_LONGEST` or of a word beyond the limit cut to it and still told apart.

    The last, a reason say, and those that are kept whole may be long. A name reads the same wherever in the table it
    stands, and other than the names of rows that are not shown and the labels that are in none.
    """
    found = numbers.texts([v for row in table.rows for v in row if isinstance(v, (str, Link))])
    titles = [heading.title for heading in headings]
    every = [_one_line(text) for text in (*found, *titles, *among)]
    shown = {text for row in (*rows, titles) for text in row}
    long = sorted({text for text in every if text in shown and _is_long(text, limit)})
    names, of_last = _fitted(long, limit, among=every), _fitted(long, _LAST, among=every)
    names |= _with_cut_words(long, limit, every)
    columns = []
    for index, column in enumerate(table.columns):
        texts = [row[index] for row in rows]
        if column.cell is Cell.TEXT:
            whole = column.whole or index == len(table.columns) - 1
            texts = [(of_last if whole else names).get(text, text) for text in texts]
        columns.append(texts)
    # What breaks between words is whole at the head of a column, however long.
    told = {
        title: names[title]
        for title in titles
        if title in names and any(cell_len(word) > limit for word in title.split())
    }
    heads = [replace(heading, title=told.get(heading.title, heading.title)) for heading in headings]
    return heads, _rows(columns)


def _is_long(text: str, limit: int) -> bool:
    """Whether a name is cut to a limit: what breaks between words need not be, up to `_LONGEST`."""
    return cell_len(text) > _LONGEST or any(cell_len(word) > limit for word in text.split(" "))


def _fitted(names: Sequence[str], limit: int, *, among: Sequence[str]) -> dict[str, str]:
    """Each name as `told_apart` gives it, within a limit of columns: a letter of Chinese, say, takes two of them."""
    wide = [name for name in names if cell_len(name) > len(name)]
    told = told_apart([name for name in names if name not in wide], limit, among=among)
    for name in wide:
        room = max(_NARROWEST, limit * len(name) // cell_len(name))
        while cell_len(shown := told_apart([name], room, among=among)[name]) > limit and room > _NARROWEST:
            room -= 1
        told[name] = shown
    return told


def _with_cut_words(texts: Sequence[str], limit: int, among: Sequence[str]) -> dict[str, str]:
    """Of texts of several words, a run and its mean say, those that are short once the words beyond the limit are."""
    several = [text for text in texts if " " in text]
    long = {word for text in several for word in text.split(" ") if cell_len(word) > limit}
    if not long:
        return {}
    words = dict.fromkeys(word for text in among for word in text.split(" "))
    told = _fitted(sorted(long), limit, among=[*words])
    said = {text: " ".join(told.get(word, word) for word in text.split(" ")) for text in several}
    return {text: short for text, short in said.items() if short != text and cell_len(short) <= _LONGEST}


def _rows(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _one_line(text: str) -> str:
    return printable(text).replace("\n", " ")


@dataclass(frozen=True)
class _Heading:
    """The head of a column, and what its cells hold."""

    title: str
    cell: Cell = Cell.TEXT
    is_sentence: bool = False
    """Whether its cells may be long, a reason say."""

    @property
    def is_left(self) -> bool:
        """Whether its cells begin at the left, and its title stands on one line where there is room."""
        return self.cell in (Cell.TEXT, Cell.SPARKLINE)

    @property
    def words(self) -> Sequence[str]:
        """What is never broken of the title."""
        return self.title.split()


def _of(
    kept: Sequence[int], headings: Sequence[_Heading], rows: Sequence[Sequence[str]]
) -> tuple[list[_Heading], list[list[str]]]:
    """Some of the columns."""
    return [headings[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _least(headings: Sequence[_Heading], rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column is at least: numbers and histories stay whole, of headings and texts each word."""
    least = []
    for index, heading in enumerate(headings):
        cells = [row[index] for row in rows]
        texts = [word for cell in cells for word in cell.split(" ")] if heading.cell is Cell.TEXT else cells
        widths = list(map(cell_len, texts))
        if heading.is_sentence:  # a name within it is broken before a column goes
            widths = [min(width, _SHORT) for width in widths]
        least.append(max((*widths, *map(cell_len, heading.words)), default=0))
    return least


def _n_columns_that_fit(headings: Sequence[_Heading], rows: Sequence[Sequence[str]], width: int, gap: int) -> int:
    """How many of the leading columns fit without a word that is broken; at least one."""
    used = 0
    for index, least in enumerate(_least(headings, rows)):
        used += least + gap
        if used > width + gap:
            return max(index, 1)
    return len(headings)


def _whole_width(headings: Sequence[_Heading], rows: Sequence[Sequence[str]]) -> int:
    """How wide a table is whose rows take one line each, the last text two."""
    widest = [max((cell_len(row[index]) for row in rows), default=0) for index in range(len(headings))]
    if any(heading.is_left for heading in headings):
        last = _last_text(headings)
        widest[last] = max((_two_lines(row[last]) for row in rows), default=0)
    words = [max(map(cell_len, heading.words), default=0) for heading in headings]
    return sum(map(max, zip(widest, words, strict=True))) + _GAP * (len(headings) - 1)


def _last_text(headings: Sequence[_Heading]) -> int:
    """The column that takes what the others leave: the last of sentences, or else of texts."""
    return max(range(len(headings)), key=lambda at: (headings[at].is_sentence, headings[at].is_left, at), default=0)


def _two_lines(text: str) -> int:
    """How wide a text is that takes two lines, broken between words."""
    words = text.split(" ")
    ends = itertools.accumulate(cell_len(word) + 1 for word in words)
    whole = cell_len(text)
    return min((max(end - 1, whole - end) for end in ends), default=0)


def _widths(headings: Sequence[_Heading], rows: Sequence[Sequence[str]], width: int, gap: int) -> list[int]:
    """The columns' widths: those that need little beyond their longest word first, so that few texts take two lines.

    The last text, a reason say, takes what is left. Where one word alone is too wide, none: it is broken.
    """
    found = _least(headings, rows)
    rest = width - sum(found) - gap * (len(found) - 1)
    if rest < 0:
        return []
    last = _last_text(headings)
    others = [index for index in range(len(headings)) if index != last]
    cells = [[cell_len(row[index]) for row in rows] for index in range(len(headings))]
    halves = [[_two_lines(row[index]) for row in rows] if index == last else [] for index in range(len(headings))]
    titles = [list(map(cell_len, [heading.title] if heading.is_left else heading.words)) for heading in headings]
    # A heading may take two lines rather than the cells of another column, or the last text three.
    for sizes, columns in ((cells, others), (halves, [last]), (titles, others), (cells, [last]), (titles, [last])):
        wish = {index: max(sizes[index], default=0) - found[index] for index in columns}
        for index in sorted(columns, key=wish.__getitem__):
            more = min(max(wish[index], 0), rest)
            found[index] += more
            rest -= more
    return found


def _plain_table(
    headings: Sequence[_Heading],
    rows: Sequence[Sequence[str]],
    out: Console,
    widths: Sequence[int] = (),
    gap: int = _GAP,
    beneath: Sequence[str] = (),
) -> None:
    """Print a table; what stands beneath each row is as wide as the terminal."""
    head = _grid(headings, widths, gap)
    if not beneath:
        for row in rows:
            head.add_row(*(_text(value) for value in row))
    out.print(head)
    for row, text in zip(rows, beneath, strict=bool(beneath)):
        one = _grid(headings, widths, gap, header=False)
        one.add_row(*(_text(value) for value in row))
        out.print(one)
        if text:
            out.print(Padding(_text(text), (0, 0, 0, 2)))


def _grid(headings: Sequence[_Heading], widths: Sequence[int], gap: int, *, header: bool = True) -> RichTable:
    # Beside the padding the box has a blank of its own between columns.
    grid = RichTable(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, gap - 2),
        show_edge=False,
        show_header=header,
        header_style="bold",
    )
    for index, heading in enumerate(headings):
        looks: dict[str, Any] = {"justify": "left", "overflow": "fold"}
        if not heading.is_left:
            looks = {"justify": "right", "overflow": "ellipsis"}
        if index < len(widths):
            looks["width"] = widths[index]
        grid.add_column(_text(heading.title), **looks)
    return grid


def _cells(values: Sequence[Any], column: Column, bounds: Scale) -> list[str]:
    """The cells of a column."""
    match column.cell:
        case Cell.SPARKLINE:
            return [sparkline(value or (), 16, *bounds) for value in values]
        case Cell.NUMBER | Cell.INTEGER:
            return numbers.column(values, column.apart)
        case Cell.TEXT:
            return [_one_line(text) for text in numbers.texts(values)]
        case _:
            assert_never(column.cell)


def _lines(chart: LineChart, out: Console) -> None:
    series = chart.series[:_BAR]
    known: list[list[Any]] = [[y for y in line.y if y is not None and math.isfinite(y)] or [None] for line in series]
    names = told_apart([line.name for line in series], _LONGEST)
    axis = sorted({x for line in series for x in line.x})
    scale = common_scale(known)
    told = (
        [names[line.name] for line in series],
        [sparkline(along(line.x, line.y, axis), _BAR, *scale) for line in series],
    )
    rows = _rows([*told, *(numbers.column([values[end] for values in known]) for end in (0, -1))])
    bounds = (_Heading("first", Cell.NUMBER), _Heading("last", Cell.NUMBER))
    _plain_table([_Heading(chart.y_label), _Heading(chart.x_label, Cell.SPARKLINE), *bounds], rows, out)


def _gallery(gallery: Gallery, out: Console) -> None:
    if gallery.title:
        out.print(_text(gallery.title, "bold"))
    scale = common_scale(card.sparkline for card in gallery.cards)
    rows = [
        [
            card.title,
            " · ".join((*card.lines, card.verdict, *_known(card.facts))),
            sparkline(card.sparkline, 16, *scale),
        ]
        for card in gallery.cards
    ]
    _plain_table([_Heading("sample"), _Heading(""), _Heading("history", Cell.SPARKLINE)], rows, out)


def _known(facts: Sequence[tuple[str, Link]]) -> Iterator[str]:
    return (f"{name} {value}" for name, value in facts)


def _maps(grid: MapGrid, out: Console) -> None:
    rows = [
        [row.title, " · ".join((*row.lines, *_known(row.facts))), panel.title, " · ".join(panel.lines)]
        for row in grid.rows
        for panel in row.panels
    ]
    _plain_table([_Heading(title) for title in ("sample", "", "method", "how far to trust it")], rows, out)


def _text(text: str, style: str = "") -> RichText:
    """Text as it is: no markup, no control characters."""
    return RichText(printable(text), style=style)
