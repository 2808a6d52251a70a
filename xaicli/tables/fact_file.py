"""Files of facts, as people have them: read in one way for the recorder, for tables and for every question."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xaicli.errors import UsageError, XaiError
from xaicli.files import for_arrow
from xaicli.tables.cells import as_stream, header, read_cells, without_guards
from xaicli.tables.column import WHOLE, whole_ids, whole_numbers, within_64_bits
from xaicli.vocabulary import SAMPLE_ID
from xaicli.words import unguarded

KINDS = "CSV (.csv, .tsv), Parquet (.parquet, .pq) or JSON lines (.jsonl, .ndjson)"
_ERRORS = ("#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")
"""What a table program writes where a formula has no value."""
_DASHES = ("-", "--", "\u2013", "\u2014")
_MISSING = ("NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "none", *_DASHES, *_ERRORS)
"""What programs write in a column of numbers, dates or truth values where there is none."""


@dataclass
class FactFile:
    """The rows of a file that name a sample, and what became of the others.

    Attributes:
        table: `sample_id` (int64 or string) and a column a fact: text, int64, float64, truth value, date or time; null
            where it has no value.
        left_out: What is not kept: (the column, in words why, how many values).
        notices: What is kept otherwise than it stands there, in words.
        separator: What stands between the columns of a CSV; "" of other files.
    """

    table: pa.Table
    left_out: list[tuple[str, str, int]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    separator: str = ""


def read_fact_file(path: Path, id_kind: str | None = None) -> FactFile:
    """The facts of a file.

    Args:
        path: CSV, Parquet or JSON lines, with a column `sample_id`.
        id_kind: The run's kind of ids, "int64" or "string"; what the file says when None.

    Raises:
        XaiError: It cannot be read, has no sample ids, or none of the run's kind.
    """
    found = FactFile(pa.table({}))
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv":
                names, columns = _of_csv(path, found)
            case ".parquet" | ".pq":
                names, columns = _of_parquet(path)
            case ".jsonl" | ".ndjson":
                names, columns = _of_lines(path, found)
            case other:
                raise XaiError(f"{path}: {other or 'no suffix'} is no kind of table", hint=KINDS)
    except (OSError, ValueError, pa.ArrowException) as error:
        words = str(getattr(error, "strerror", None) or error).strip().splitlines() or [type(error).__name__]
        raise XaiError(f"{path} cannot be read: {words[0]}", hint=KINDS) from error
    names = _unique_names([name.strip() or name for name in names], path, found)
    if SAMPLE_ID not in names:
        alike = next((name for name in names if name.casefold() == SAMPLE_ID), "")
        hint = f"its columns: {', '.join(map(repr, names[:20])) or 'none'}"
        raise XaiError(f"{path} has no column sample_id", hint=f"{hint}; call {alike} sample_id" if alike else hint)
    if not len(columns[names.index(SAMPLE_ID)]):
        raise XaiError(f"{path} has no rows", hint="each row names a sample in its column sample_id")
    is_text, is_json = (path.suffix.lower() in suffixes for suffixes in ((".csv", ".tsv"), (".jsonl", ".ndjson")))
    ids = _ids(columns[names.index(SAMPLE_ID)], id_kind, path, found, is_text=is_text)
    kept: dict[str, pa.Array] = {SAMPLE_ID: ids}
    for name, column in zip(names, columns, strict=True):
        if name != SAMPLE_ID and not (is_text and not name and _is_no_fact(column, path, found)):
            kept[name] = _of_text(name, column, path, found) if is_text else _plain(name, column, path, found)
            if is_json and _is_string(kept[name].type):  # JSON has no days and times but such texts
                kept[name] = _of_text(name, kept[name], path, found, _TIMES)
    # A column without any value is of no kind, so that it makes no text of numbers that are known from elsewhere.
    for name in set(kept) - {SAMPLE_ID}:
        kept[name] = pa.nulls(len(ids)) if kept[name].null_count == len(ids) else without_nan(kept[name])
    table, zones = in_utc(pa.table(kept))
    found.notices += [zone_words(f"{name} of {path.name}", zone) for name, zone in zones.items()]
    found.table = table.filter(ids.is_valid()).combine_chunks()
    if not found.table.num_rows:
        kind = {"int64": "whole numbers", "string": "texts"}.get(id_kind or "")
        raise XaiError(
            f"{path} has no sample id" + (" of the run's kind" if kind else ""),
            hint=f"the run's ids are {kind}" if kind else "each row names a sample in its column sample_id",
        )
    return found


def path_of_facts(given: Any, hint: str) -> Path:
    """The path of a file of facts.

    Args:
        given: What was given as one.
        hint: Where values in memory go.

    Raises:
        UsageError: It is none, but a table in memory, say.
    """
    try:
        return Path(os.fsdecode(given))
    except TypeError:
        kind = type(given).__name__
        raise UsageError(f"facts= takes a CSV, Parquet or JSON-lines file, not {kind}", hint=hint) from None


def _unique_names(names: Sequence[str], path: Path, found: FactFile) -> list[str]:
    """The names, each once: the second of a name has a number after it."""
    taken: list[str] = []
    for name in names:
        new, number = name, 2
        while new in taken or (new != name and new in names):
            new, number = f"{name}_{number}", number + 1
        if new != name:
            found.notices.append(f"{path.name} has several columns {name}: the next is called {new}")
        taken.append(new)
    return taken


def _is_no_fact(column: pa.Array, path: Path, found: FactFile) -> bool:
    """Whether a column without a name holds nothing, as after a last comma, or numbers the rows, which is told."""
    if column.null_count == len(column):
        return True
    if not column.equals(pa.array(range(len(column))).cast(pa.string())):
        return False
    found.notices.append(f"{path.name} has a column without a name that numbers its rows: left out")
    return True


def _of_parquet(path: Path) -> tuple[list[str], list[pa.Array]]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(for_arrow(path)).read()
    names, columns = table.column_names, [_one(column) for column in table.columns]
    if SAMPLE_ID not in names:
        for index in (table.schema.pandas_metadata or {}).get("index_columns", ()):
            # pandas writes an index of ascending numbers as its ends alone.
            if isinstance(index, dict) and index.get("kind") == "range" and index.get("name") == SAMPLE_ID:
                ids = range(index["start"], index["stop"], index["step"])
                names, columns = [SAMPLE_ID, *names], [pa.array(ids, pa.int64()), *columns]
    return names, columns


def _of_csv(path: Path, found: FactFile) -> tuple[list[str], list[pa.Array]]:
    """Every column as text; the separator is the one by which the first line has a column `sample_id`."""
    content = _decoded(path, found)
    if not content.strip():
        raise ValueError("it is empty")
    if said := _SEPARATOR.match(content):  # by which Excel goes, too
        content = content[said.end() :]
    separator = said[1] if said else _separator(content, "\t" if path.suffix.lower() == ".tsv" else ",")
    found.separator = separator
    cells = read_cells(content, separator)
    width = len(cells.names)
    if n := cells.short:
        found.notices.append(
            f"{_rows(n)} of {path.name} {_have(n)} fewer than its {width} columns: the others are missing"
        )
    if n := cells.long:
        found.notices.append(
            f"{_rows(n)} of {path.name} {_have(n)} more than its {width} columns: what is over is left out"
        )
    return [unguarded(name) for name in cells.names], [without_guards(column) for column in cells.columns]


def _decoded(path: Path, found: FactFile) -> str:
    """The text of a file: UTF-8, or UTF-16 where it says so; other bytes are told of."""
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        found.notices.append(f"{path.name} is not all UTF-8: other bytes are shown as \ufffd")
        return content.decode("utf-8-sig", errors="replace")


def _separator(content: str, usual: str) -> str:
    for separator in (usual, ",", ";", "\t", "|"):
        if SAMPLE_ID in [name.strip() for name in header(content, separator)]:
            return separator
    return usual


def _of_lines(path: Path, found: FactFile) -> tuple[list[str], list[pa.Array]]:
    """Objects a line; a line that is none is left out and counted, a key with values of several kinds is text."""
    text = _decoded(path, found)
    table = _uniform_lines(text)
    if table is not None:
        return table.column_names, [_one(column) for column in table.columns]
    rows: list[dict[str, Any]] = []
    bad = 0
    for row in _objects(text):
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    if bad and text.lstrip().startswith("[") and next(_objects(text.replace("\n", " "))) is not None:
        raise XaiError(
            f"{path} is an array of JSON, not JSON lines", hint="an object a line: jq -c '.[]' FILE > facts.jsonl"
        )
    if bad:
        what = "1 line of {} is no JSON object" if bad == 1 else f"{bad:,} lines of {{}} are no JSON objects"
        found.left_out.append((SAMPLE_ID, what.format(path.name), bad))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [_of_values(name, [row.get(name) for row in rows], path, found) for name in names]


def _objects(text: str) -> Iterator[Any]:
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _uniform_lines(text: str) -> pa.Table | None:
    """Lines in which each key has values of one kind, read fast; None where they are others."""
    from pyarrow import json as reader

    if _LONG.search(text):  # Arrow would round it
        return None

    def read(**options: Any) -> pa.Table:
        return reader.read_json(as_stream(text), parse_options=reader.ParseOptions(**options))

    try:
        table = read()
        # Arrow gives each object the keys of all, and the numbers of a list one kind.
        if any(pa.types.is_nested(column.type) for column in table.schema):
            return None
        # Arrow takes some texts for times: which are is told later, as of the cells of a CSV.
        times = [pa.field(column.name, pa.string()) for column in table.schema if pa.types.is_timestamp(column.type)]
        return read(explicit_schema=pa.schema(times)) if times else table
    except pa.ArrowException:
        return None


def _of_values(name: str, values: list[Any], path: Path, found: FactFile) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and name != SAMPLE_ID:
        fitting = [value if value is not None and -(1 << 63) <= value < 1 << 63 else None for value in values]
        if beyond := fitting.count(None) - values.count(None):
            found.left_out.append((name, beyond_64_bits(name, beyond, path), beyond))
        values = fitting
    if nested := kinds & {dict, list}:
        other = "neither texts, numbers nor dates" if kinds == nested else "lists or objects among other values"
        found.notices.append(f"{name} of {path.name} holds {other}: kept as text")
    elif kinds <= {int, float} or len(kinds) == 1:
        try:
            if kinds == {int, float}:
                return pa.array([None if value is None else float(value) for value in values])
            return pa.array(values)
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            pass
    return pa.array([None if value is None else as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str:
    """A value that is no text as one: bytes as what they spell, of what JSON has its JSON, else as Python writes it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (bool, int, float, list, tuple, dict)):
        return as_json(value)
    return str(value)


def as_json(value: Any) -> str:
    """A value's JSON: numbers and arrays of numpy as those of Python, sets as sorted lists, what it has not as text."""
    return json.dumps(value, ensure_ascii=False, default=_known_to_json)


def _known_to_json(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufUO":
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        numbers = all(isinstance(item, (int, float)) for item in value)
        return sorted(value) if numbers else sorted(value, key=str)
    return str(value)


def _ids(given: pa.Array, id_kind: str | None, path: Path, found: FactFile, *, is_text: bool) -> pa.Array:
    """The ids as the run has them; rows without one, and with one of another kind, are null and told of."""
    if pa.types.is_dictionary(given.type):
        given = given.dictionary_decode()
    if pa.types.is_integer(given.type) and id_kind != "string" and (id_kind or _fits_int64(given)):
        ids, n_empty = within_64_bits(given), given.null_count
        id_kind = "int64"
    elif pa.types.is_string(given.type) and id_kind == "string":
        ids, n_empty = given, given.null_count
    else:
        ids, n_empty, id_kind = _read_ids(given, id_kind, is_text=is_text)
    odd = ids.null_count - n_empty
    if n_empty:
        found.left_out.append((SAMPLE_ID, f"{_rows(n_empty)} of {path.name} {_have(n_empty)} no sample_id", n_empty))
    if odd > 0:
        kind = "whole numbers" if id_kind == "int64" else "texts"
        words = f"{odd:,} sample {'id' if odd == 1 else 'ids'} of {path.name} {'is' if odd == 1 else 'are'} none"
        found.left_out.append((SAMPLE_ID, f"{words} of the run's kind ({kind})", odd))
    return ids


def _fits_int64(given: pa.Array) -> bool:
    return given.type != pa.uint64() or (pc.max(given).as_py() or 0) < 1 << 63


def _read_ids(given: pa.Array, id_kind: str | None, *, is_text: bool) -> tuple[pa.Array, int, str]:
    """Ids by what is written: null where one is none, how many are empty, and of which kind they are."""
    texts = given.cast(pa.string()) if not pa.types.is_nested(given.type) else pa.nulls(len(given), pa.string())
    bare = pc.utf8_trim_whitespace(texts)
    whole = _whole_numbers(given) if pa.types.is_floating(given.type) else bare
    numbered = whole_ids(whole)
    looks_whole = numbered.is_valid()
    if id_kind is None:
        blank = pc.or_(pc.is_null(bare), pc.equal(bare, ""))
        plain = pc.and_(looks_whole, pc.invert(pc.match_substring_regex(pc.fill_null(whole, ""), r"^[+-]?0\d")))
        are_numbers = pc.all(pc.or_(plain, pc.fill_null(blank, fill_value=True))).as_py() and (
            is_text or not _is_string(given.type)
        )
        id_kind = "int64" if are_numbers else "string"
    if id_kind == "int64":
        ids = numbered
        empty = pc.or_(pc.is_null(bare), pc.equal(bare, ""))
    else:
        ids = whole if pa.types.is_floating(given.type) else texts
        empty = pc.is_null(texts)
    return ids, int(pc.sum(pc.fill_null(empty, fill_value=True)).as_py() or 0), id_kind


def _whole_numbers(given: pa.Array) -> pa.Array:
    """Floats that are whole, as texts; others are null."""
    numbers = given.cast(pa.float64())
    is_whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**53))
    return pc.if_else(is_whole, numbers, None).cast(pa.int64()).cast(pa.string())


_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?[,;\t|]*(?:\r\n|\r|\n)', re.IGNORECASE)
_INTEGER = re.compile(WHOLE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_LONG = re.compile(r"(?<![0-9.])[0-9]{19,}(?![0-9.eE])")
"""What may be a whole number beyond 64 bits."""
_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
_POINTS = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?")
"""Numbers with a comma before decimals, and points between thousands."""
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
"""Digits in groups of three."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?")
_ZONED = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)")
_TRUTH = re.compile("true|false", re.IGNORECASE)
_TIMES: tuple[tuple[re.Pattern[str], pa.DataType], ...] = (
    (_DAY, pa.date32()),
    (_TIME, pa.timestamp("us")),
    (_ZONED, pa.timestamp("us", "UTC")),
)
"""What days and times are written like."""
_TYPES = (
    (_TRUTH, pa.bool_()),
    (_INTEGER, pa.int64()),
    (_NUMBER, pa.float64()),
    (_COMMA, pa.float64()),
    (_POINTS, pa.float64()),
    *_TIMES,
)
"""What cells of a CSV are written like."""


def _of_text(
    name: str,
    column: pa.Array,
    path: Path,
    found: FactFile,
    types: Sequence[tuple[re.Pattern[str], pa.DataType]] = _TYPES,
) -> pa.Array:
    """A column of texts as what all of its values are: truth values, whole numbers, numbers, days, times, else text.

    A number with zeros before it is a name, a postcode say: as a number it would lose them.

    Args:
        name, column, path, found: The column, and where it is from.
        types: What it may be; of JSON, which has numbers and truth values of its own, only days and times.
    """
    values = column.drop_null()
    some = [value.as_py().strip() for value in values[:200]]
    some = [value for value in some if value not in _MISSING]
    if not some:
        return column
    named = pc.is_in(column, pa.array(_MISSING))
    bare = pc.if_else(named, None, pc.utf8_trim_whitespace(column))
    for pattern, kind in types:
        if not all(pattern.fullmatch(value) for value in some) or not _all_match(bare, pattern):
            continue
        text = bare
        if kind in (pa.int64(), pa.float64()) and _any_match(bare, r"^[+-]?0\d"):
            return column
        if pattern in (_COMMA, _POINTS):
            spelt = _with_point(name, bare, pattern, path, found)
            if spelt is None:
                return column
            text = spelt
        if kind == pa.bool_():
            text = pc.utf8_lower(bare)
        try:
            if pattern in (_TIME, _ZONED) and _any_match(bare, r"\.\d{7}"):
                kind = pa.timestamp("ns", kind.tz)
            typed = whole_numbers(text) if pattern is _INTEGER else text.cast(kind)
        except pa.ArrowException:
            found.notices.append(f"{name} of {path.name} holds a day or time that there is not: kept as text")
            return column
        if beyond := typed.null_count - text.null_count:
            if typed.null_count == len(typed):  # such are names
                found.notices.append(f"{name} of {path.name} holds whole numbers beyond 64 bits: kept as text")
                return column
            found.left_out.append((name, beyond_64_bits(name, beyond, path), beyond))
        _tell_missing(name, column, path, found)
        return typed
    if types is _TYPES:
        _tell_thousands(name, bare, some, path, found)
    return column


def _with_point(name: str, bare: pa.Array, pattern: re.Pattern[str], path: Path, found: FactFile) -> pa.Array | None:
    """Numbers with a comma before decimals as a program writes them; None where they may be something else."""
    if pattern is _COMMA:
        if found.separator != ";" and (cell := _only_thousands(bare)):
            found.notices.append(
                f"{name} of {path.name} holds '{cell}', which may be {cell.replace(',', '.')} or "
                f"{cell.replace(',', '')}: kept as text"
            )
            return None
        found.notices.append(f"{name} of {path.name} holds numbers with a comma: 0,5 is read as 0.5")
        return pc.replace_substring(bare, ",", ".")
    both = bare.filter(pc.fill_null(pc.match_substring_regex(bare, r"\..*,"), fill_value=False))
    if not len(both):  # points alone may stand in a version or an address
        return None
    cell = both[0].as_py()
    told = cell.replace(".", "").replace(",", ".")
    found.notices.append(f"{name} of {path.name} holds numbers with points and a comma: {cell} is read as {told}")
    return pc.replace_substring(pc.replace_substring(bare, ".", ""), ",", ".")


def _tell_thousands(name: str, bare: pa.Array, some: Sequence[str], path: Path, found: FactFile) -> None:
    grouped = re.compile(rf"{_THOUSANDS.pattern}(\.\d*)?|[+-]?\d+\.?\d*")
    if all(grouped.fullmatch(value) for value in some) and _all_match(bare, grouped):
        said = f"holds '{_with_comma(bare)[0]}', whose commas may stand between thousands: kept as text"
        found.notices.append(f"{name} of {path.name} {said}")


def _tell_missing(name: str, column: pa.Array, path: Path, found: FactFile) -> None:
    lost = int(pc.sum(pc.is_in(column, pa.array(_MISSING))).as_py() or 0)
    errors, dashes = (pc.any(pc.is_in(column, pa.array(words))).as_py() for words in (_ERRORS, _DASHES))
    what = ["NA", "null", "none", *(["a dash"] if dashes else []), *(["an error of a formula"] if errors else [])]
    told = f"{', '.join(what[:-1])} or {what[-1]}"
    if lost:
        words = "value" if lost == 1 else "values"
        found.notices.append(f"{lost:,} {words} of {name} in {path.name} said {told}: missing")


def _only_thousands(column: pa.Array) -> str:
    """The first cell with a comma where each such cell may have it between thousands; "" where one cannot."""
    cells = _with_comma(column)
    return str(cells[0]) if len(cells) and _all_match(cells, _THOUSANDS) else ""


def _with_comma(column: pa.Array) -> pa.Array:
    return column.filter(pc.fill_null(pc.match_substring(column, ","), fill_value=False))


def _all_match(column: pa.Array, pattern: re.Pattern[str]) -> bool:
    matched = pc.match_substring_regex(
        column, f"^({pattern.pattern})$", ignore_case=bool(pattern.flags & re.IGNORECASE)
    )
    return bool(pc.all(matched).as_py())


def _any_match(column: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())


def _plain(name: str, column: pa.Array, path: Path, found: FactFile) -> pa.Array:
    """A column of a file with types as text, whole number, number, truth value, date or time; others are text, told."""
    kept = plain(column)
    if kept is not None and (beyond := kept.null_count - column.null_count):
        found.left_out.append((name, beyond_64_bits(name, beyond, path), beyond))
    if kept is None:
        found.notices.append(f"{name} of {path.name} holds neither texts, numbers nor dates: kept as text")
        kept = pa.array([None if value is None else as_text(value) for value in column.to_pylist()], pa.string())
    return kept


def plain(array: pa.Array) -> pa.Array | None:
    """A column as text, whole number, number, truth value, date or time; None where it is of another kind.

    A whole number beyond 64 bits is null. A decimal is the double nearest to it, a number of single precision the one
    nearest to its shortest spelling: 3.3 as people ask for it.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_null(kind):
        return array
    if _is_string(kind):
        return array.cast(pa.string())
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return within_64_bits(array)
    if pa.types.is_decimal(kind) or pa.types.is_float32(kind):
        # By their digits: Arrow multiplies a decimal's by a power of ten, and 3.3 would be 3.3000000000000003.
        return array.cast(pa.string()).cast(pa.float64())
    if pa.types.is_floating(kind):
        return array.cast(pa.float64())
    if pa.types.is_timestamp(kind) and kind.unit != "us":
        try:  # else a fact of one unit and one of another would be of two kinds
            return array.cast(pa.timestamp("us", kind.tz))
        except pa.ArrowException:
            return array
    if pa.types.is_boolean(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return array
    return None


def without_nan(array: pa.Array) -> pa.Array:
    """A column in which NaN is no value, so that a condition takes it for no number above all others."""
    if not pa.types.is_floating(array.type):
        return array
    missing = pa.nulls(1, array.type)[0]  # of None, Arrow would make one with pandas, which it imports for that
    return pc.if_else(pc.is_nan(array), missing, array)


def in_utc(table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """The table in zones that every reader knows, and {column: its zone} of the others: the same moments in UTC."""
    zones = {
        column.name: column.type.tz
        for column in table.schema
        if pa.types.is_timestamp(column.type) and column.type.tz and not _is_known_zone(column.type.tz)
    }
    for name in zones:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(at).cast(pa.timestamp(table.schema.field(at).type.unit, "UTC")))
    return table, zones


def zone_words(name: str, zone: str) -> str:
    """What is said of a fact whose zone is not kept."""
    return f"{name} holds times of the zone {zone}: they are kept in UTC, the same moments"


@cache
def _is_known_zone(zone: str) -> bool:
    """Whether a zone has a name; offsets of whole hours have one too, Etc/GMT-2 say, and no others."""
    if hours := re.fullmatch(r"([+-]\d{2}):00", zone):
        return -12 <= int(hours[1]) <= 14
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return False
    return True


def beyond_64_bits(name: str, n: int, path: Path | None = None) -> str:
    """Why values of a fact are left out that are whole numbers beyond 64 bits."""
    of = name if path is None else f"{name} in {path.name}"
    return f"{n:,} {'value' if n == 1 else 'values'} of {of} {'is' if n == 1 else 'are'} beyond 64 bits"


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    whole = column.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole


def _rows(n: int) -> str:
    return f"{n:,} {'row' if n == 1 else 'rows'}"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"
