"""Cells of comma-separated values: how a line of them is written, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from xaicli.words import guarded, is_bare, spelled, unguarded

LIKE_REMARK = r"^[\s0-9.+-]*#"
"""A text that would be read as a remark, or as a number with one, were it an id that stands bare in a list."""
_TO_QUOTE = re.compile(rf'[",\r\n]|{LIKE_REMARK}')
_REMARK = re.compile(r"[ \t]*#(?:[ \t][^\r\n]*)?(?:\r\n|\r|\n|\Z)")
_ABOVE = re.compile(r"(?:[ \t]*#[^\r\n]*(?:[\r\n]|\Z)|[\r\n])+")
_MAY_BE_REMARK = re.compile(r"(?:^|[,;\t|])[ \t0-9.+-]*#", re.MULTILINE)
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?", re.ASCII)


def csv_line(values: Iterable[object]) -> str:
    """A line of comma-separated values (RFC 4180) with its end; text is guarded, what is missing is empty.

    An empty text is quoted and what is missing is not, as polars writes them, too: the module `csv` tells the two apart
    from Python 3.12 on. A line of nothing at all would be no line to a reader.
    """
    return spelled((",".join(map(_csv_cell, values)) or '""') + "\r\n")


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    text = guarded(value) if isinstance(value, str) else str(value)
    return '"' + text.replace('"', '""') + '"' if not text or _TO_QUOTE.search(text) else text


@dataclass(frozen=True)
class Cells:
    """Comma-separated values, every one as text just as it stands there.

    Attributes:
        names: Those of the columns.
        columns: A text a row; null for a cell with nothing in it, and "" for one that holds `""`.
        short: How many rows have fewer cells than there are names: the others are null.
        long: How many have more, which are left out.
    """

    names: tuple[str, ...]
    columns: tuple[pa.Array, ...]
    short: int = 0
    long: int = 0


def read_cells(text: str, separator: str) -> Cells:
    """The cells of a text whose first line names the columns; quoted values may hold line breaks.

    Where blanks follow the separators of the first line, those before a cell are for the eye and no part of it.
    """
    from pyarrow import csv

    text = text.lstrip("\r\n")
    names = header(text, separator)
    is_spaced = _is_spaced(text, separator)
    numbers = [str(at) for at in range(len(names))]
    if not is_spaced and text:
        try:
            table = csv.read_csv(
                as_stream(text),
                read_options=csv.ReadOptions(column_names=numbers),
                parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=_as_text(numbers),
            ).slice(1)
            return Cells(names, tuple(_whole(column) for column in table.columns))
        except pa.ArrowInvalid:
            pass  # rows of several lengths
    rows = list(_rows_of(text, separator, is_spaced=is_spaced))[1:]
    width = len(names)
    columns = (pa.array([row[at] if at < len(row) else None for row in rows], pa.string()) for at in range(width))
    short, long = sum(len(row) < width for row in rows), sum(len(row) > width for row in rows)
    return Cells(names, tuple(columns), short, long)


def as_stream(text: str) -> pa.BufferReader:
    """A text for Arrow's readers, in memory that is Arrow's own.

    Their threads let go of what they read a moment after the call has returned: of a Python object while Python ends,
    which ends the process by an abort.
    """
    sink = pa.BufferOutputStream()
    sink.write(text.encode())
    return pa.BufferReader(sink.getvalue())


def header(text: str, separator: str) -> tuple[str, ...]:
    """The cells of the first line."""
    return tuple(name or "" for name in next(_rows_of(text.lstrip("\r\n"), separator), []))


def _is_spaced(text: str, separator: str) -> bool:
    return any(name != name.lstrip(" ") for name in header(text, separator)[1:])


def _rows_of(text: str, separator: str, *, is_spaced: bool = False) -> Iterator[list[str | None]]:
    """The cells of each row; null for one with nothing in it."""
    for row in _found_in(text, separator, is_spaced=is_spaced):
        yield [
            (bare or None) if inside is None else inside.replace('""', '"') + after
            for inside, after, bare, _ in (cell.groups() for cell in row)
        ]


def _found_in(
    text: str, separator: str, *, is_spaced: bool = False, passes_remarks: bool = False
) -> Iterator[list[re.Match[str]]]:
    """Where the cells of each row stand, by RFC 4180; a quote that never closes is a character like any other."""
    plain = rf"[^{re.escape(separator)}\r\n]*"
    blanks = " *" if is_spaced else ""
    cell = re.compile(rf'{blanks}(?:"([^"]*(?:""[^"]*)*)"({plain})|({plain}))({re.escape(separator)}|\r\n|\r|\n|\Z)')
    row: list[re.Match[str]] = []
    at = 0
    while at < len(text) or row:
        if passes_remarks and not row and (remark := _REMARK.match(text, at)):
            at = remark.end()
            continue
        found = cell.match(text, at)
        assert found is not None  # the plain cell takes whatever there is
        row.append(found)
        at = found.end()
        if found[4] != separator:
            if len(row) > 1 or found[3] != "":
                yield row
            row = []


def below_remarks(text: str) -> str:
    """A text without the remarks above its first line."""
    found = _ABOVE.match(text)
    return text[found.end() :] if found else text


def without_remarks(text: str, separator: str, ids: str) -> str:
    """A text whose first line names the columns, without people's remarks.

    Those are lines that begin with `# ` where ids stand first on a line, and what `bare_ids` tells of the ids. What is
    quoted is none.
    """
    names = [name.strip() for name in header(text, separator)]
    if ids not in names or not _MAY_BE_REMARK.search(text):
        return text
    place = names.index(ids)
    heading, *rows = _found_in(text, separator, is_spaced=_is_spaced(text, separator), passes_remarks=place == 0)
    cells = [row[place] if place < len(row) else None for row in rows]
    bare = bare_ids([cell and (cell[3] if cell[1] is None else None) for cell in cells])
    parts = [text[: heading[-1].end()]]
    for row, cell, known in zip(rows, cells, bare, strict=True):
        if cell is None or known == cell[3] or (known is None and place):
            parts.append(text[row[0].start() : row[-1].end()])
        elif known is not None:
            parts += text[row[0].start() : cell.start(3)], known, text[cell.end(3) : row[-1].end()]
    return "".join(parts)


def bare_ids(ids: Sequence[str | None]) -> list[str | None]:
    """Ids as they stand in a list without the remarks behind them; None for one that is nothing else.

    A remark is what follows ` #` behind a number, and what begins with `#`, where all ids are numbers.
    """
    filled = [one.strip() for one in ids if one and one.strip()]
    numbers = [is_whole(one) or _has_remark(one) for one in filled]
    if not any(numbers) or not all(number or one.startswith("#") for one, number in zip(filled, numbers, strict=True)):
        return list(ids)
    return [one and (one.partition("#")[0].strip() or None if "#" in one else one) for one in ids]


def _has_remark(line: str) -> bool:
    """Whether a line of a list is a number and a remark behind it."""
    number, mark, _ = line.partition("#")
    return bool(mark and number[-1:].isspace() and is_whole(number.strip()))


def is_whole(text: str) -> bool:
    """Whether a text is a whole number, `7.0` too; `nan`, `inf` and `1e5` are what a class may be called."""
    return _WHOLE.fullmatch(text) is not None


def is_like_remark(text: str) -> bool:
    """Whether a text would be read as a remark, or as a number with one, were it an id that stands bare in a list."""
    return re.match(LIKE_REMARK, text) is not None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def read_typed_csv(path: Path, separator: str) -> pa.Table:
    """A CSV file with columns of numbers, dates and texts, as Arrow tells them apart.

    Raises:
        OSError: It cannot be read.
        ArrowException: It is no table.
    """
    from pyarrow import csv

    options = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    return _unguarded_table(csv.read_csv(path, parse_options=options))


def read_csv_ids(path: Path, separator: str, name: str) -> pa.Array:
    """A column of ids of a CSV file as texts; null where there is none, and "" where it stands as `""`.

    Raises:
        OSError: It cannot be read.
        ArrowException: It is no table.
    """
    from pyarrow import csv

    table = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=_as_text([name], include_columns=[name]),
    )
    return without_guards(_whole(table.column(0)))


def _as_text(names: Sequence[str], **how: Any) -> Any:
    """Arrow's options that tell a cell with nothing in it from one of an empty text."""
    from pyarrow import csv

    return csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        **how,
    )


def _unguarded_table(table: pa.Table) -> pa.Table:
    """A table read from CSV without the apostrophes that keep a spreadsheet from running its texts."""
    columns = [without_guards(column) for column in table.columns]
    return pa.table(columns, names=[unguarded(name) for name in table.column_names])


def without_guards(column: Any) -> Any:
    """An array of texts of a CSV file as they were before they were written to it; another as it is.

    A column in which any text stands bare that would have been guarded was written by others: nothing is taken off.
    """
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type) or not pc.any(pc.starts_with(column, "'")).as_py():
        return column
    texts = column.to_pylist()
    if any(text and is_bare(text) for text in texts):
        return column
    return pa.array([text and unguarded(text) for text in texts], pa.string())
