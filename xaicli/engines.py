"""What executes a portable query: polars in this process, DuckDB, or Spark. Engines only open rows and collect results.

Every engine sees the same verified files, fenced, with one schema: absent columns null, types as the run's. `ORDER`
numbers the rows as they were logged, for queries that must choose among duplicates. Columns go by the name `column`
gives them: to SQL `F1` and `f1` are one name, and a dot looks into a struct.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import polars as pl

from xaicli.errors import XaiError
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import Sources, scan, sources
from xaicli.reader.schema import conform
from xaicli.vocabulary import STEP, Engine

if TYPE_CHECKING:
    import pyarrow as pa

ORDER = "_order"
"""Grows with the order of logging among rows of equal attempt, step and rank."""

_FILE_STRIDE = 1 << 40
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")


def column(name: str) -> str:
    """What a column of the run is called in the frames of `opened`: itself, unless SQL would read that otherwise."""
    return name if _PLAIN.fullmatch(name) else f"_x{name.encode().hex()}"


@contextmanager
def opened(
    reader: Reader,
    places: Sequence[Place],
    columns: Sequence[str],
    engine: Engine,
    *,
    spark_remote: str | None = None,
) -> Iterator[nw.LazyFrame[Any]]:
    """The rows of some places as a lazy frame of an engine, for as long as the block lasts.

    Args:
        reader: The run.
        places: Which rows.
        columns: Which columns, each under the name `column` gives it; `ORDER` comes with them.
        engine: What executes.
        spark_remote: A Spark Connect server; a local session without one.

    Raises:
        XaiError: The engine is not installed.
    """
    wanted = {name: column(name) for name in (*columns, STEP)}
    if engine is Engine.POLARS:
        yield nw.from_native(_numbered(reader, places, wanted))
    elif engine is Engine.DUCKDB:
        with import_duckdb().connect(":memory:") as connection:
            yield nw.from_native(duckdb_rows(connection, reader, places, wanted))
    else:
        yield nw.from_native(_spark_rows(spark_session(spark_remote), reader, places, wanted))


def collect(lazy: nw.LazyFrame[Any]) -> pl.DataFrame:
    """The result of a portable query as polars, whatever ran it."""
    native = lazy.to_native()
    if isinstance(native, pl.LazyFrame):
        return native.collect(engine="streaming")
    table: pa.Table = lazy.collect(backend="pyarrow").to_native()
    return pl.DataFrame(pl.from_arrow(table))


def duckdb_rows(
    connection: Any, reader: Reader, places: Sequence[Place], names: Mapping[str, str], *, in_memory: bool = False
) -> Any:
    """The rows of some places as a DuckDB relation, scanned lazily.

    Args:
        connection: Where to.
        reader: The run.
        places: Which rows.
        names: {column: what it is to be called}; no two alike but for case.
        in_memory: Read by polars at once: what DuckDB cannot read, half precision in the encoding of old files.
    """
    if in_memory or _alike(reader, names):
        # DuckDB cannot tell such columns of a file apart; polars can, at the price of memory.
        connection.register("_rows", _numbered(reader, places, names).collect(engine="streaming").to_arrow())
        return connection.sql("SELECT * FROM _rows")
    listed = ", ".join(f"{_quoted(name)} AS {_quoted(called)}" for name, called in names.items())
    schema = pl.Schema({name: _wide(reader.dtypes.get(name, pl.Int32())) for name in names})
    selects = []
    position = 0
    for number, group in enumerate(sources(reader, places)):
        where = "" if group.fence is None else f" WHERE {STEP} < {int(group.fence)}"
        if group.paths:
            order = pl.DataFrame({"filename": [str(path) for path in group.paths]}).with_row_index("_file", position)
            connection.register(f"_files{number}", order.with_columns(pl.col("_file").cast(pl.Int64)).to_arrow())
            connection.register(f"_types{number}", schema.to_frame().to_arrow())
            # The empty table gives absent columns their type; BY NAME fills them with null.
            selects.append(
                f"SELECT {listed}, _file * {_FILE_STRIDE} + file_row_number AS {ORDER} FROM ("
                f"SELECT *, 0::BIGINT AS file_row_number, '' AS filename FROM _types{number} UNION ALL BY NAME "
                f"SELECT * FROM read_parquet({[str(path) for path in group.paths]}, union_by_name=true, "
                "hive_partitioning=false, file_row_number=true, filename=true)"
                f") JOIN _files{number} USING (filename){where}"
            )
        position += len(group.paths)
        for frame in _live(group, schema):
            connection.register(f"_live{position}", frame.with_columns(_numbers(frame, position)).to_arrow())
            selects.append(f"SELECT {listed}, {ORDER} FROM _live{position}{where}")
            position += 1
    if not selects:
        connection.register("_types", schema.to_frame().to_arrow())
        selects = [f"SELECT {listed}, 0::BIGINT AS {ORDER} FROM _types"]
    return connection.sql(" UNION ALL BY NAME ".join(selects))


def _numbered(reader: Reader, places: Sequence[Place], names: Mapping[str, str]) -> pl.LazyFrame:
    """The rows of some places by polars, as logged, columns under the given names."""
    rows = scan(reader, places, list(names)).with_row_index(ORDER).cast({ORDER: pl.Int64()})
    types = {name: _wide(reader.dtypes.get(name, pl.Int32())) for name in names}
    return rows.select(*(pl.col(name).cast(types[name]).alias(called) for name, called in names.items()), ORDER)


def _alike(reader: Reader, names: Mapping[str, str]) -> bool:
    """Whether the run has another column that is one of these but for case."""
    spelt = [name.lower() for name in {*reader.dtypes, *names}]
    return any(spelt.count(name.lower()) > 1 for name in names)


def _wide(dtype: pl.DataType) -> pl.DataType:
    """A type with half precision widened, which no other engine takes from Arrow."""
    if isinstance(dtype, pl.List):
        return pl.List(_wide(dtype.inner))  # type: ignore[arg-type]
    return pl.Float32() if dtype == pl.Float16 else dtype


def spark_session(remote: str | None) -> Any:
    """A Spark session: of a Connect server, else the active one or a new local one.

    It stays for the next question, starting one takes seconds; pyspark ends it with the process.

    Raises:
        XaiError: pyspark is not installed, or no session can be had (Java is missing, say).
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise XaiError("pyspark is not installed", hint="pip install 'xaicli[spark]'; it needs Java 17") from error
    try:
        builder = SparkSession.builder.remote(remote) if remote else SparkSession.builder.appName("xai")
        session = builder.getOrCreate()
        # Pages are checked by Spark itself, too: its executors may read other bytes than were verified here.
        session.conf.set("parquet.page.verify-checksum.enabled", "true")
        # Its own fast reader does not know the encoding of metrics (BYTE_STREAM_SPLIT); parquet-java's does.
        session.conf.set("spark.sql.parquet.enableVectorizedReader", "false")
        # `F1` and `f1` are two metrics.
        session.conf.set("spark.sql.caseSensitive", "true")
        return session
    except Exception as error:
        where = f"at {remote}" if remote else "here"
        raise XaiError(
            f"no Spark session {where}: {error}", hint="Spark needs Java 17, or --spark-remote URL"
        ) from error


def _spark_rows(session: Any, reader: Reader, places: Sequence[Place], names: Mapping[str, str]) -> Any:
    from pyspark.sql import functions as sf

    schema = pl.Schema({name: _wide(reader.dtypes.get(name, pl.Int32())) for name in names})
    frames = []
    position = 0
    for group in sources(reader, places):
        where = sf.lit(True) if group.fence is None else sf.col(STEP) < group.fence
        if group.paths:
            paths = [str(path.resolve()) for path in group.paths]
            # Named columns only: Spark cannot read the half precision of kept probabilities.
            ddl = ", ".join(f"{_ticked(name)} {_spark_type(dtype)}" for name, dtype in schema.items())
            frame = session.read.schema(ddl).option("recursiveFileLookup", "true").parquet(*paths)
            order = session.createDataFrame(
                [(path, number) for number, path in enumerate(paths, position)], "_path string, _file long"
            )
            row = sf.col("_metadata.row_index")
            path = sf.regexp_replace(sf.url_decode(sf.col("_metadata.file_path")), "^file:/*", "/")
            located = frame.withColumn("_row", row).withColumn("_path", path).join(sf.broadcast(order), "_path")
            frame = located.withColumn(ORDER, sf.col("_file") * _FILE_STRIDE + sf.col("_row"))
            frames.append(_spark_conform(frame.where(where), schema, names))
        position += len(group.paths)
        for live in _live(group, schema):
            numbered = session.createDataFrame(live.with_columns(_numbers(live, position)).to_arrow())
            frames.append(_spark_conform(numbered.where(where), schema, names))
            position += 1
    if not frames:
        raise XaiError("there are no rows that count", hint="see: xai info")
    rows = frames[0]
    for frame in frames[1:]:
        rows = rows.unionByName(frame)
    return rows


_SPARK_TYPES = {
    pl.Boolean: "boolean",
    pl.Int8: "tinyint",
    pl.Int16: "smallint",
    pl.Int32: "int",
    pl.Int64: "bigint",
    pl.Float32: "float",
    pl.Float64: "double",
    pl.String: "string",
}


def _spark_type(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List):
        return f"array<{_spark_type(dtype.inner)}>"  # type: ignore[arg-type]
    return _SPARK_TYPES[type(dtype)]


def _spark_conform(frame: Any, schema: pl.Schema, names: Mapping[str, str]) -> Any:
    """Exactly these columns with the run's types; a Connect server may have read a folder's name as text."""
    from pyspark.sql import functions as sf

    present = set(frame.columns)
    return frame.select(
        *(
            (sf.col(_ticked(name)) if name in present else sf.lit(None)).cast(_spark_type(dtype)).alias(names[name])
            for name, dtype in schema.items()
        ),
        sf.col(ORDER).cast("bigint").alias(ORDER),
    )


def _live(group: Sources, schema: pl.Schema) -> Iterator[pl.DataFrame]:
    """The rows of live segments, each with these columns and types."""
    for table in group.live:
        frame = pl.DataFrame(pl.from_arrow(table.select([name for name in schema if name in table.column_names])))
        yield conform(frame, list(schema), schema).cast(schema)


def _numbers(frame: pl.DataFrame, position: int) -> pl.Expr:
    start = position * _FILE_STRIDE
    return pl.int_range(start, start + frame.height, dtype=pl.Int64, eager=False).alias(ORDER)


def _ticked(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def import_duckdb() -> Any:
    """The duckdb module.

    Raises:
        XaiError: It is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise XaiError("duckdb is not installed", hint="pip install 'xaicli[duckdb]'") from error
    return duckdb
