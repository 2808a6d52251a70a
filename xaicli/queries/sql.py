"""SQL over a run: `samples`, `scalars`, and each table under its name. Read-only, lazily scanned."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import polars as pl
import polars.selectors as cs

from xaicli.answer import Answer
from xaicli.engines import duckdb_rows, import_duckdb, vanished_told
from xaicli.errors import UsageError
from xaicli.queries.recorded import SCHEMA as SCALAR_COLUMNS
from xaicli.queries.recorded import LeftOut, recorded_scalars
from xaicli.reader import Place, Reader
from xaicli.reader.dialect import cuts_fractions, for_duckdb, for_polars, opaque_blanked, refuse_mistakes, tables_in
from xaicli.reader.kinds import Kind, kinds_of
from xaicli.reader.lazy import BY_ROW, scan, scan_table, taken_back_of
from xaicli.reader.rows import name_columns, names_of, no_column
from xaicli.tables.labels import in_order_apart
from xaicli.vocabulary import SAMPLE_ID, Attempts, Engine
from xaicli.wal.records import live_records

SAMPLES = "samples"
SCALARS = "scalars"
FACTS = "facts"

_READING = re.compile(r"\s*\(*\s*(select|with|from|values|explain|show|describe)\b", re.IGNORECASE)
_LISTING = re.compile(r"\s*show\s+tables\b", re.IGNORECASE)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXTS = re.compile(r"'(?:[^']|'')*'")
_WORDS = re.compile(r'(\bas\s+)?(?:"((?:[^"]|"")*)"|([^\W\d]\w*+)(?!\s*\())', re.IGNORECASE)
"""A name, with `as` before it where the statement gives it; what an opening bracket follows is a function."""
_ORDERED = re.compile(r"\border\s+by\b((?:(?!\border\s+by\b)[^()])*)\Z", re.IGNORECASE)
"""What the whole statement is ordered by: nothing is bracketed behind it."""
_ENDED = re.compile(r"\b(?:limit|offset|fetch)\b|;", re.IGNORECASE)
_BY_NAME = re.compile(r'\s*(?:"([^"]*)"|(\w+))(?:\s+(?:asc|desc))?(?:\s+nulls\s+(?:first|last))?\s*', re.IGNORECASE)
_BRACKETED = re.compile(r"\([^()]*\)")
_EXTREME = re.compile(r"\b(?:max|greatest)\s*\(", re.IGNORECASE)
_ARITHMETIC = re.compile(r"[\w)]\s*[-+*]\s*[-+\w(]")
_STARS = re.compile(r"\b(?:select|distinct|all)\s+\*|,\s*\*", re.IGNORECASE)
"""Stars that stand for all columns."""
_BESIDE = re.compile(r"[(),<>=]|\b(?:select|from|where|and|or|group|having|order|limit|on|union)\b", re.IGNORECASE)
_LITERALS = re.compile(r"(?<![\w.])\d+(?![\w.])")
_SHOWN = 3
_EXAMPLE_ID = "example_id"
_OF_INT64, _OF_DECIMAL = 63, 126
_NARROW = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


def query(reader: Reader, sql: str, *, engine: str = Engine.POLARS) -> Answer:
    """Run one SELECT.

    Args:
        reader: The run.
        sql: The statement. `samples` has every column and mode, fenced, duplicates and non-finite values as stored.
        engine: `polars` or `duckdb`: whose dialect it is.

    Returns:
        The rows the statement gives.

    Raises:
        UsageError: The statement is none, changes something, or names what does not exist.
    """
    if not is_query(sql):
        raise UsageError(f"only queries can be run: {sql.strip()[:60]!r}", hint="start with SELECT or WITH")
    return reader.while_files_last(lambda: _answered(reader, sql, engine))


def _answered(reader: Reader, sql: str, engine: str) -> Answer:
    other_scalars = LeftOut()
    tables = sql_tables(reader, other_scalars)
    named = {name.lower() for name in _named_in(sql)}
    # What was taken back is of the samples' rows; damaged books say where any begins to count.
    warnings = reader.warnings if SAMPLES in named else reader.faults
    if engine == Engine.POLARS:
        data, said = _by_polars(reader, tables, sql)
        warnings = (*warnings, *said)
    elif engine == Engine.DUCKDB:
        called = _Called.of(tables, sql)
        data, warnings = _by_duckdb(reader, tables, called, sql), (*warnings, *called.warnings)
        if "//" in opaque_blanked(sql) and cuts_fractions(sql, _kinds(tables)):
            warnings = (*warnings, "a // b of numbers with fractions is a / b to DuckDB: trunc(a / b) is without them")
    else:
        raise UsageError(f"xai query does not run on {engine!r}", hint="choose from: polars, duckdb")
    warnings, counts = (*warnings, *_extremes(tables, sql)), reader.counts()
    if SAMPLES in named:
        counts = replace(counts, duplicates=sum(map(reader.duplicate_count, all_places(reader))))
        warnings = (*warnings, *_as_logged(counts.duplicates or 0, reader.which_attempts))
    of_tables = [
        taken for table in reader.table_folders() if table.lower() in named for taken in taken_back_of(reader, table)
    ]
    warnings = (*warnings, *map(str, of_tables), *_by_row(reader, named))
    if FACTS in named or reader.facts.files:
        warnings = (*dict.fromkeys((*warnings, *reader.facts.notices)), *reader.facts.told)
    if SCALARS in named:
        warnings = (*warnings, *other_scalars.warnings())
        counts = replace(counts, duplicates=(counts.duplicates or 0) + other_scalars.duplicates)
    of_samples = counts.taken_back or 0 if SAMPLES in named else 0
    others = (other_scalars.taken_back if SCALARS in named else 0) + sum(taken.rows for taken in of_tables)
    counts = replace(counts, taken_back=of_samples + others)
    return Answer(
        command="query",
        run=reader.layout.described,
        selection={
            "sql": sql,
            "engine": str(engine),
            "attempts": reader.which_attempts.value,
            **({"facts": reader.facts.given} if reader.facts.files else {}),
            **({} if reader.facts.wanted else {"no_facts": True}),
        },
        data=data,
        counts=replace(counts, rows=data.height, non_finite=_non_finite(data)),
        warnings=warnings,
    )


def _by_row(reader: Reader, named: Collection[str]) -> Iterator[str]:
    """What should be known of the tables that a statement names, where their rows have no ids but their numbers."""
    for table, folder in reader.table_folders().items():
        if table.lower() not in named or (lazy := scan_table(reader, folder, marked=True)) is None:
            continue
        if n := lazy.select(pl.col(BY_ROW).sum()).collect(engine="streaming").item():
            rows = "1 row has" if n == 1 else f"{n:,} rows have"
            yield f"{rows} no id but the example_id in table {table}, which stands as the sample_id"


def _as_logged(duplicates: int, attempts: Attempts) -> list[str]:
    """What should be known where samples come several times."""
    if not duplicates:
        return []
    rows = "1 row repeats" if duplicates == 1 else f"{duplicates:,} rows repeat"
    of_attempts = ", and attempts repeat what they take back" if attempts is Attempts.ALL else ""
    return [
        f"{rows} a sample of the same epoch and pass (samplers pad their last batch so{of_attempts}): "
        "the table samples has all rows as they were logged, where other questions count each sample once"
    ]


def _extremes(tables: Mapping[str, pl.LazyFrame], sql: str) -> list[str]:
    """What should be known where a statement asks for the largest of values of which some are NaN: engines differ."""
    if not _EXTREME.search(opaque_blanked(sql)):
        return []
    words = {name.lower() for name in _named_in(sql)}
    odd: list[str] = []
    for table, lazy in tables.items():
        if table.lower() not in words:
            continue
        floats = [n for n, kind in lazy.collect_schema().items() if kind.is_float() and n.lower() in words]
        if floats:
            found = lazy.select(pl.col(name).is_nan().any() for name in floats).collect(engine="streaming")
            odd += [name for name in floats if found[name].item()]
    if not odd:
        return []
    return [
        f"some values of {', '.join(dict.fromkeys(odd))} are NaN: max and greatest pass over them with --engine polars "
        "and are NaN with --engine duckdb; WHERE x - x = 0 keeps the finite ones of x"
    ]


def _non_finite(data: pl.DataFrame) -> int:
    """NaN and infinite values of an answer, in lists too: JSON has null in their place."""
    found = 0
    for column in data:
        values = column
        while isinstance(values.dtype, pl.List | pl.Array):
            values = values.explode()
        if values.dtype.is_float():
            found += int((~values.is_finite()).sum())
    return found


def is_query(text: str) -> bool:
    """Whether a text begins as a statement that only reads."""
    return bool(_READING.match(_COMMENTS.sub(" ", text)))


def sql_tables(reader: Reader, other_scalars: LeftOut | None = None) -> dict[str, pl.LazyFrame]:
    """What SQL can name, lazily: `samples`, `scalars`, `facts`, and each table of the run under its own name.

    Args:
        reader: The run.
        other_scalars: Where to say, once they are read, how many scalars do not count.
    """
    places = all_places(reader)
    found: dict[str, pl.LazyFrame | None] = {
        SAMPLES: scan(reader, places, list(reader.stored)).with_columns(_named(reader)) if places else None,
        SCALARS: _scalars(reader, other_scalars),
        FACTS: reader.facts.frame.lazy() if reader.facts.names else None,
    }
    tables = {name: lazy for name, lazy in found.items() if lazy is not None} | metrics_tables(reader)
    return {name: _widened(lazy) for name, lazy in tables.items()}


def _widened(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """A table with integers of 64 bits: `label * 1000000000` of 32 bits would begin again below zero."""
    return lazy.with_columns(pl.col(n).cast(pl.Int64) for n, kind in lazy.collect_schema().items() if kind in _NARROW)


def _named(reader: Reader) -> list[pl.Expr]:
    named = name_columns(reader.stored, reader.label_names)
    return [names_of(code, reader.label_names).alias(name) for name, code in named.items()]


def _case(column: str, reader: Reader) -> str:
    """The names of a column of codes, as DuckDB finds them."""
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in in_order_apart(reader.label_names))
    code = '"' + column.replace('"', '""') + '"'
    return f"CASE WHEN {code} >= 0 THEN ([{listed}])[{code} + 1] END"


def metrics_tables(reader: Reader) -> dict[str, pl.LazyFrame]:
    """The metrics tables of a run under their names, lazily; those without rows are left out."""
    found = {name: scan_table(reader, folder) for name, folder in reader.table_folders().items()}
    return {name: lazy for name, lazy in found.items() if lazy is not None}


def _scalars(reader: Reader, left_out: LeftOut | None) -> pl.LazyFrame | None:
    """The scalars, read only by a statement that names them; None where there are none."""
    folder = reader.layout.scalars
    recorded = any(path.startswith(f"{folder.name}/") for path in reader.records)
    if not recorded and not any(folder.glob("*.parquet")) and not live_records(reader.layout, "scalars")[0]:
        return None
    return pl.defer(lambda: recorded_scalars(reader, left_out), schema=SCALAR_COLUMNS)


def all_places(reader: Reader) -> list[Place]:
    """Every place with rows that count."""
    return [
        Place(mode, ds_id, epoch)
        for mode in reader.modes()
        for ds_id in reader.ds_ids(mode)
        for epoch in reader.epochs(mode, ds_id)
    ]


def _by_polars(reader: Reader, tables: dict[str, pl.LazyFrame], sql: str) -> tuple[pl.DataFrame, list[str]]:
    """The rows, and what to know of them.

    Whole numbers of 64 bits that outgrow them begin again below zero, silently; so where they might, those of 128 bits
    are calculated with.
    """
    said: list[str] = []
    if (bits := _bits_of(tables, sql)) > _OF_INT64:
        wide = {name: lazy.with_columns(cs.signed_integer().cast(pl.Int128)) for name, lazy in tables.items()}
        outgrown = (
            "whole numbers that this statement calculates may outgrow {} bits, where polars begins again below zero"
        )
        if bits > _OF_DECIMAL:
            said.append(f"{outgrown.format(128)} without a word: --engine duckdb refuses that")
        try:
            return _in_polars(wide, sql), said
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            said = [f"{outgrown.format(64)} without a word: --engine duckdb refuses that"]
    try:
        return _in_polars(tables, sql), said
    except pl.exceptions.PolarsError as error:
        refuse_mistakes(sql, _kinds(tables))
        raise _refused(error, tables, reader, sql) from error


def _in_polars(tables: Mapping[str, pl.LazyFrame], sql: str) -> pl.DataFrame:
    with pl.SQLContext(dict(tables), eager=False) as context:
        return _plain(context.execute(for_polars(sql, _kinds(tables))).collect(engine="streaming"))


def _kinds(tables: Mapping[str, pl.LazyFrame]) -> dict[str, Kind]:
    return kinds_of(lazy.collect_schema() for lazy in tables.values())


def _bits_of(tables: Mapping[str, pl.LazyFrame], sql: str) -> int:
    """The bits that the largest expression of whole numbers needs, if all are multiplied: an upper bound; else 0."""
    text = _STARS.sub(" ", _TEXTS.sub(" ", _COMMENTS.sub(" ", sql)))
    if not _ARITHMETIC.search(text):
        return 0
    names = [(name.lower(), given) for name, given in _words(text)]
    words, own = {name for name, given in names if not given}, {name for name, given in names if given}
    known: dict[str, int] = {}
    for table, lazy in tables.items():
        of_table = lazy.collect_schema().items() if table.lower() in words else ()
        if named := [n for n, kind in of_table if kind.is_integer() and n.lower() in words]:
            ends = lazy.select(end for n in named for end in (pl.min(n).alias(f"{n} min"), pl.max(n).alias(f"{n} max")))
            found = ends.collect(engine="streaming").row(0, named=True)
            for n in named:
                most = max(abs(found[f"{n} {end}"] or 0) for end in ("min", "max"))
                known[n.lower()] = max(known.get(n.lower(), 1), most.bit_length())
    bits, uses = 0, 0
    for part in _parts(text):
        if _ARITHMETIC.search(part):
            inside = [name.lower() for name, given in _words(part) if not given]
            literals = (int(number) for number in _LITERALS.findall(part))
            bits = max(bits, sum(known.get(name, 0) for name in inside) + sum(n.bit_length() for n in literals))
            uses = max(uses, sum(name in own and name not in known for name in inside))
    # What the statement calls by a name of its own may be all of an expression, each time.
    return bits * max(uses, 1)


def _parts(text: str) -> Iterator[str]:
    """The expressions of a statement that stand side by side, outside of brackets."""
    depth, begin = 0, 0
    for match in _BESIDE.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if not depth and match[0] not in "()":
            yield text[begin : match.start()]
            begin = match.end()
    yield text[begin:]


@dataclass(frozen=True)
class _Called:
    """What DuckDB calls tables and columns: of those that differ by case only the later ones have a number behind them.

    Attributes:
        tables: {table: its name in DuckDB}.
        columns: {table: {column: its name in DuckDB}}.
        warnings: What goes by another name, of what the statement names.
    """

    tables: Mapping[str, str]
    columns: Mapping[str, Mapping[str, str]]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, tables: Mapping[str, pl.LazyFrame], sql: str) -> _Called:
        """The names, of a statement that is none of those DuckDB would take for another.

        Raises:
            UsageError: It names a table or a column for which DuckDB would answer with one of another case.
        """
        of_tables = _called(list(tables))
        of_columns = {name: _called(lazy.collect_schema().names()) for name, lazy in tables.items()}
        words = set(_named_in(sql))
        lower = {word.lower() for word in words}
        told = [of_tables, *(of_columns[name] for name, called in of_tables.items() if called.lower() in lower)]
        said: list[str] = []
        for names in told:
            first = {called.lower(): name for name, called in names.items()}
            for name, called in names.items():
                kept = first[name.lower()]
                if name == called or (names is of_tables and lower.isdisjoint({kept.lower(), called.lower()})):
                    continue
                said.append(f"DuckDB does not tell upper from lower case: {name} is called {called} here")
                if taken := next(
                    (word for word in sorted(words) if word.lower() == kept.lower() and word != kept), None
                ):
                    raise UsageError(
                        f"DuckDB would answer {taken} with {kept}: it does not tell upper from lower case",
                        hint=f"{name} is called {called} here, or ask with --engine polars",
                    )
        return cls(of_tables, of_columns, tuple(dict.fromkeys(said)))


def _called(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, _apart(names, str.lower), strict=True))


def _named_in(sql: str) -> Iterator[str]:
    """The names in a statement, but for those that it gives itself, and orders its rows by: there they come first."""
    text = _TEXTS.sub(" ", _COMMENTS.sub(" ", sql))
    if ordered := _ORDERED.search(text):
        outer = text
        while (inner := _BRACKETED.sub(" ", outer)) != outer:
            outer = inner
        own = {name for name, given in _words(outer) if given}
        ended = _ENDED.search(text, ordered.start(1))
        end = ended.start() if ended else len(text)
        items = text[ordered.start(1) : end].split(",")
        by = [item for item in items if not ((name := _BY_NAME.fullmatch(item)) and (name[1] or name[2]) in own)]
        text = f"{text[: ordered.start(1)]} {','.join(by)} {text[end:]}"
    return (name for name, given in _words(text) if not given)


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """The names in a text, each with whether it is given there."""
    for given, quoted, plain in _WORDS.findall(text):
        yield quoted.replace('""', '"') or plain, bool(given)


def _by_duckdb(reader: Reader, tables: dict[str, pl.LazyFrame], called: _Called, sql: str) -> pl.DataFrame:
    duckdb = import_duckdb()
    typed = for_duckdb(sql, _kinds(tables))
    try:
        try:
            with vanished_told(reader, all_places(reader)):
                return _in_duckdb(duckdb, reader, tables, called, typed, in_memory=False)
        except duckdb.Error as error:
            if "BYTE_STREAM_SPLIT" not in str(error):
                raise
            return _in_duckdb(duckdb, reader, tables, called, typed, in_memory=True)
    except duckdb.Error as error:
        raise _refused(error, tables, reader, sql) from error


def _in_duckdb(
    duckdb: Any, reader: Reader, tables: dict[str, pl.LazyFrame], called: _Called, sql: str, *, in_memory: bool
) -> pl.DataFrame:
    with duckdb.connect(":memory:") as connection:
        # As PostgreSQL and polars order: a value that is missing is above all others.
        connection.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
        kinds = [str(statement.type).rpartition(".")[2] for statement in connection.extract_statements(sql)]
        if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
            raise UsageError("only one query can be run, and none that changes anything", hint="one SELECT")
        for name, lazy in tables.items():
            if name == SAMPLES:
                names = {column: called.columns[SAMPLES][column] for column in reader.stored}
                rows = duckdb_rows(connection, reader, all_places(reader), names, in_memory=in_memory)
                columns = [_widened_in(duckdb, new, reader.stored[name]) for name, new in names.items()]
                named = name_columns(reader.stored, reader.label_names)
                columns += [duckdb.SQLExpression(_case(names[c], reader)).alias(n) for n, c in named.items()]
                rows.select(*columns).create_view(called.tables[SAMPLES])
            else:
                # What a statement does not name in any way is not read: its damaged files are none of the answer's.
                is_named = any(_bare(word) in _bare(sql) for word in (name, called.tables[name]))
                frame = lazy.collect(engine="streaming") if is_named else lazy.collect_schema().to_frame()
                frame = frame.rename({**called.columns[name]})
                connection.register(called.tables[name], frame.to_arrow())
        found = _of_duckdb(connection.sql(sql))
        # Those that it reads files by are none of the run's.
        return found.filter(pl.col("name").is_in([*called.tables.values()])) if _LISTING.match(sql) else found


def _bare(text: str) -> str:
    """A text as it is compared where names may be quoted, and are of any case."""
    return re.sub("[\"'`]", "", text).lower()


def _widened_in(duckdb: Any, column: str, kind: pl.DataType) -> Any:
    """The same of a column of DuckDB."""
    found = duckdb.ColumnExpression(column)
    return found.cast("BIGINT").alias(column) if kind in _NARROW else found


def _of_duckdb(rows: Any) -> pl.DataFrame:
    """The rows of a DuckDB relation: repeated names numbered, and what polars has no type for as text."""
    none = rows.limit(0).to_arrow_table().columns
    selects = [f"#{i}" if _known(column) else f"CAST(#{i} AS VARCHAR)" for i, column in enumerate(none, 1)]
    table = rows.project(", ".join(f"{item} AS c{i}" for i, item in enumerate(selects))).to_arrow_table()
    frame = pl.DataFrame(pl.from_arrow(table.rename_columns(list(_apart(rows.columns)))))
    return _plain(frame)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with wide whole numbers, as sums of integers are, as int64 where all of them fit, and decimals as float64.

    `0.1 * epoch` is a decimal to both engines, which JSON and CSV have no such numbers for.
    """
    frame = frame.with_columns(_whole(column) for column in frame if _is_wide(column.dtype))
    return frame.cast({name: _without_decimals(dtype) for name, dtype in frame.schema.items() if not _is_wide(dtype)})


def _without_decimals(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.List | pl.Array):
        inner = _without_decimals(cast(pl.DataType, dtype.inner))
        return pl.List(inner) if isinstance(dtype, pl.List) else pl.Array(inner, dtype.shape[0])
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _without_decimals(cast(pl.DataType, field.dtype)) for field in dtype.fields})
    return pl.Float64() if isinstance(dtype, pl.Decimal) else dtype


def _is_wide(dtype: pl.DataType) -> bool:
    """Whether whole numbers of 128 bits come as such a type, of DuckDB or of polars."""
    return dtype == pl.Int128() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0)


def _whole(column: pl.Series) -> pl.Series:
    narrow = column.cast(pl.Int64, strict=False)
    return narrow if narrow.null_count() == column.null_count() else column.cast(pl.Decimal(38, 0))


def _known(column: Any) -> bool:
    try:
        pl.from_arrow(column)
    except pl.exceptions.PolarsError:
        return False
    return True


def _apart(names: Sequence[str], key: Callable[[str], str] = str) -> Iterator[str]:
    """The names, those that an earlier one takes already with a number behind them."""
    taken = {key(name) for name in names}
    used: set[str] = set()
    for name in names:
        called, number = name, 0
        while key(called) in used or (number and key(called) in taken):
            number += 1
            called = f"{name}_{number}"
        used.add(key(called))
        yield called


_ABSENT = re.compile(
    r"""(?:find column|no column named|Referenced column|have a column named) ['"](.+?)['"](?:;| not| found|$)"""
)
"""How the engines say that a table, or all that a statement names, have no such column."""
_TWICE = re.compile(r"duplicate output name '(.+?)'")
"""How polars begins to say that two columns have one name."""
_UNSUPPORTED = "unsupported function"
"""What polars says of a function that it lacks."""


def _refused(error: Exception, tables: dict[str, pl.LazyFrame], reader: Reader, sql: str) -> UsageError:
    known = "; ".join(f"{name}({', '.join(lazy.collect_schema().names())})" for name, lazy in tables.items())
    damaged = reader.damaged
    left_out = f"; left out, see xai doctor: {', '.join(damaged[:_SHOWN])}" if damaged else ""
    left_out += f"; {reader.facts.left_out}" if not reader.facts.wanted and reader.facts.left_out else ""
    said = str(error).strip().splitlines()[0]
    if isinstance(error, pl.exceptions.DuplicateError) and (twice := _TWICE.search(said)):
        name = twice[1]
        return UsageError(f"two columns of the answer are called {name}", hint=f"name one: {name} AS {name}_2")
    if missing := _ABSENT.search(said):
        columns = {table: lazy.collect_schema().names() for table, lazy in tables.items()}
        there = [table for table, names in columns.items() if missing[1] in names]
        said, meant = no_column(missing[1], dict.fromkeys(name for names in columns.values() for name in names))
        meant = meant.partition("columns: ")[0]
        if there:
            said += " where it is asked for"
            meant = f"{missing[1]} is a column of {' and '.join(there)}{_join(sql, there, tables)}; "
        return UsageError(f"the query cannot be run: {said}", hint=f"{meant}tables: {known}{left_out}")
    others = "--engine duckdb has more functions; " if _UNSUPPORTED in said else ""
    return UsageError(f"the query cannot be run: {said}", hint=f"{others}tables: {known}{left_out}")


def _join(sql: str, there: Sequence[str], tables: Mapping[str, pl.LazyFrame]) -> str:
    """How a statement can be joined with a table that has the column it lacks, as far as a sample's id says."""
    other = FACTS if FACTS in there else there[0]
    kinds = {name: lazy.collect_schema() for name, lazy in tables.items()}
    asked = [(kinds[name], called) for name, called in tables_in(sql) if name in kinds and name != other]
    if not asked or (own := kinds[other].get(SAMPLE_ID)) is None:
        return ""
    if any(SAMPLE_ID in columns for columns, _ in asked):
        return f": JOIN {other} USING ({SAMPLE_ID})"
    known = ((called, columns.get(_EXAMPLE_ID)) for columns, called in asked)
    called = next((called for called, kind in known if kind is not None and kind.is_integer() == own.is_integer()), "")
    # Rows that say no sample count the pictures, as facts do, where a run has no samples but these.
    if not called or SAMPLES in tables:
        return ""
    return f": JOIN {other} ON {called}.{_EXAMPLE_ID} = {other}.{SAMPLE_ID}"
