"""What executes a portable query: polars in this process, DuckDB, or Spark. Engines only open rows and collect results.

Every engine sees the same verified files, fenced, with one schema: absent columns null, types as the run's. `ORDER`
numbers the rows as they were logged, for queries that must choose among duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import polars as pl

from xaicli.errors import XaiError
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import Sources, scan, sources
from xaicli.vocabulary import STEP, Engine

if TYPE_CHECKING:
    import pyarrow as pa

ORDER = "_order"
"""Grows with the order of logging among rows of equal attempt, step and rank."""

_FILE_STRIDE = 1 << 40


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
        columns: Which columns; `ORDER` comes with them.
        engine: What executes.
        spark_remote: A Spark Connect server; a local session without one.

    Raises:
        XaiError: The engine is not installed.
    """
    wanted = list(dict.fromkeys([*columns, STEP]))
    if engine is Engine.POLARS:
        yield nw.from_native(scan(reader, places, wanted).with_row_index(ORDER).cast({ORDER: pl.Int64}))
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


def duckdb_rows(connection: Any, reader: Reader, places: Sequence[Place], columns: Sequence[str]) -> Any:
    """The rows of some places as a DuckDB relation, scanned lazily."""
    listed = ", ".join(_quoted(name) for name in columns)
    selects = []
    position = 0
    for number, group in enumerate(sources(reader, places)):
        where = "" if group.fence is None else f" WHERE {STEP} < {int(group.fence)}"
        tables = list(_live(group, columns))
        if group.paths:
            order = pl.DataFrame({"filename": [str(path) for path in group.paths]}).with_row_index("_file", position)
            connection.register(f"_files{number}", order.with_columns(pl.col("_file").cast(pl.Int64)).to_arrow())
            connection.register(f"_types{number}", _empty(reader, columns))
            # The empty table gives absent columns their type; BY NAME fills them with null.
            selects.append(
                f"SELECT {listed}, _file * {_FILE_STRIDE} + file_row_number AS {ORDER} FROM ("
                f"SELECT *, 0::BIGINT AS file_row_number, '' AS filename FROM _types{number} UNION ALL BY NAME "
                f"SELECT * FROM read_parquet({[str(path) for path in group.paths]}, union_by_name=true, "
                "hive_partitioning=false, file_row_number=true, filename=true)"
                f") JOIN _files{number} USING (filename){where}"
            )
        position += len(group.paths)
        for table in tables:
            connection.register(f"_live{position}", table.append_column(ORDER, [_numbers(table, position)]))
            selects.append(f"SELECT {listed}, {ORDER} FROM _live{position}{where}")
            position += 1
    if not selects:
        connection.register("_types", _empty(reader, columns))
        selects = [f"SELECT {listed}, 0::BIGINT AS {ORDER} FROM _types"]
    return connection.sql(" UNION ALL BY NAME ".join(selects))


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
        return session
    except Exception as error:
        where = f"at {remote}" if remote else "here"
        raise XaiError(
            f"no Spark session {where}: {error}", hint="Spark needs Java 17, or --spark-remote URL"
        ) from error


def _spark_rows(session: Any, reader: Reader, places: Sequence[Place], columns: Sequence[str]) -> Any:
    from pyspark.sql import functions as sf

    dtypes = {name: reader.dtypes.get(name, pl.Int32()) for name in columns}
    frames = []
    position = 0
    for group in sources(reader, places):
        where = sf.lit(True) if group.fence is None else sf.col(STEP) < group.fence
        if group.paths:
            paths = [str(path.resolve()) for path in group.paths]
            # Named columns only: Spark cannot read the half precision of kept probabilities.
            schema = ", ".join(f"`{name}` {_SPARK_TYPES[type(dtype)]}" for name, dtype in dtypes.items())
            frame = session.read.schema(schema).option("recursiveFileLookup", "true").parquet(*paths)
            order = session.createDataFrame(
                [(path, number) for number, path in enumerate(paths, position)], "_path string, _file long"
            )
            row = sf.col("_metadata.row_index")
            path = sf.regexp_replace(sf.url_decode(sf.col("_metadata.file_path")), "^file:/*", "/")
            located = frame.withColumn("_row", row).withColumn("_path", path).join(sf.broadcast(order), "_path")
            frame = located.withColumn(ORDER, sf.col("_file") * _FILE_STRIDE + sf.col("_row"))
            frames.append(_spark_conform(frame.where(where), dtypes))
        position += len(group.paths)
        for table in _live(group, columns):
            numbered = table.append_column(ORDER, [_numbers(table, position)])
            frames.append(_spark_conform(session.createDataFrame(numbered).where(where), dtypes))
            position += 1
    if not frames:
        raise XaiError("there are no rows that count", hint="see: xai info")
    rows = frames[0]
    for frame in frames[1:]:
        rows = rows.unionByName(frame)
    return rows


_SPARK_TYPES = {
    pl.Boolean: "boolean",
    pl.Int16: "smallint",
    pl.Int32: "int",
    pl.Int64: "bigint",
    pl.Float32: "float",
    pl.Float64: "double",
    pl.String: "string",
}


def _spark_conform(frame: Any, dtypes: dict[str, pl.DataType]) -> Any:
    """Exactly these columns with the run's types; a Connect server may have read a folder's name as text."""
    from pyspark.sql import functions as sf

    present = set(frame.columns)
    return frame.select(
        *(
            (sf.col(f"`{name}`") if name in present else sf.lit(None)).cast(_SPARK_TYPES[type(dtype)]).alias(name)
            for name, dtype in dtypes.items()
        ),
        sf.col(ORDER).cast("bigint").alias(ORDER),
    )


def _live(group: Sources, columns: Sequence[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    for table in group.live:
        wanted = {name: table.column(name) for name in columns if name in table.column_names}
        yield pa.table({**wanted, **{n: pa.nulls(table.num_rows) for n in columns if n not in wanted}})


def _numbers(table: pa.Table, position: int) -> pa.Array:
    import pyarrow as pa

    return pa.array(range(position * _FILE_STRIDE, position * _FILE_STRIDE + table.num_rows), pa.int64())


def _empty(reader: Reader, columns: Sequence[str]) -> pa.Table:
    return pl.DataFrame(schema={name: reader.dtypes.get(name, pl.Int32()) for name in columns}).to_arrow()


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
