"""SQL over a run: `samples`, `scalars`, and each table under its name. Read-only, lazily scanned."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import unquote

import polars as pl

from xaicli.answer import Answer
from xaicli.engines import duckdb_rows, import_duckdb
from xaicli.errors import UsageError
from xaicli.queries.recorded import SCHEMA as SCALAR_COLUMNS
from xaicli.queries.recorded import recorded_scalars
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import scan, scan_folder
from xaicli.vocabulary import Engine
from xaicli.wal.journal import journal_files

SAMPLES = "samples"
SCALARS = "scalars"

_READING = re.compile(r"\s*\(*\s*(select|with|from|values|explain|show)\b", re.IGNORECASE)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


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
    if not _READING.match(_COMMENTS.sub(" ", sql)):
        raise UsageError(f"only queries can be run: {sql.strip()[:60]!r}", hint="start with SELECT or WITH")
    tables = sql_tables(reader)
    if engine == Engine.POLARS:
        data = _by_polars(tables, sql)
    elif engine == Engine.DUCKDB:
        data = _by_duckdb(reader, tables, sql)
    else:
        raise UsageError(f"xai query does not run on {engine!r}", hint="choose from: polars, duckdb")
    return Answer(
        command="query",
        run=str(reader.layout.root),
        selection={"sql": sql, "engine": str(engine)},
        data=data,
        counts=replace(reader.counts(), rows=data.height),
    )


def sql_tables(reader: Reader) -> dict[str, pl.LazyFrame]:
    """What SQL can name, lazily: `samples`, `scalars`, and each table of the run under its own name."""
    places = all_places(reader)
    found: dict[str, pl.LazyFrame | None] = {
        SAMPLES: scan(reader, places, list(reader.dtypes)) if places else None,
        SCALARS: _scalars(reader),
    }
    return {name: lazy for name, lazy in found.items() if lazy is not None} | metrics_tables(reader)


def metrics_tables(reader: Reader) -> dict[str, pl.LazyFrame]:
    """The metrics tables of a run under their names, lazily; those without rows are left out."""
    folders = sorted(reader.layout.tables.iterdir()) if reader.layout.tables.is_dir() else []
    found = {unquote(folder.name): scan_folder(reader, folder) for folder in folders}
    return {name: lazy for name, lazy in found.items() if lazy is not None}


def _scalars(reader: Reader) -> pl.LazyFrame | None:
    """The scalars, read only by a statement that names them; None where there are none."""
    if not any(reader.layout.scalars.glob("*.parquet")) and not journal_files(reader.layout):
        return None
    return pl.defer(lambda: recorded_scalars(reader), schema=SCALAR_COLUMNS)


def all_places(reader: Reader) -> list[Place]:
    """Every place with rows that count."""
    return [
        Place(mode, ds_id, epoch)
        for mode in reader.modes()
        for ds_id in reader.ds_ids(mode)
        for epoch in reader.epochs(mode, ds_id)
    ]


def _by_polars(tables: dict[str, pl.LazyFrame], sql: str) -> pl.DataFrame:
    try:
        with pl.SQLContext(tables, eager=False) as context:
            return context.execute(sql).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise _refused(error, tables) from error


def _by_duckdb(reader: Reader, tables: dict[str, pl.LazyFrame], sql: str) -> pl.DataFrame:
    duckdb = import_duckdb()
    try:
        with duckdb.connect(":memory:") as connection:
            kinds = [str(statement.type).rpartition(".")[2] for statement in connection.extract_statements(sql)]
            if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
                raise UsageError("only one query can be run, and none that changes anything", hint="one SELECT")
            for name, lazy in tables.items():
                if name == SAMPLES:
                    rows = duckdb_rows(connection, reader, all_places(reader), list(reader.dtypes))
                    rows.select(*(duckdb.ColumnExpression(column) for column in reader.dtypes)).create_view(SAMPLES)
                else:
                    connection.register(name, lazy.collect(engine="streaming").to_arrow())
            return pl.DataFrame(pl.from_arrow(connection.sql(sql).to_arrow_table()))
    except duckdb.Error as error:
        raise _refused(error, tables) from error


def _refused(error: Exception, tables: dict[str, pl.LazyFrame]) -> UsageError:
    known = "; ".join(f"{name}({', '.join(lazy.collect_schema().names())})" for name, lazy in tables.items())
    return UsageError(f"the query cannot be run: {str(error).strip().splitlines()[0]}", hint=f"tables: {known}")
