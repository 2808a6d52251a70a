"""What executes a portable query: polars in this process, DuckDB, or Spark. Engines only open rows and collect results.

Every engine sees the same verified files, without what was taken back, in one schema: absent columns null, types as the
run's, mode, ds_id and epoch as the folders say. `ORDER` numbers the rows as they were logged, for queries that must
choose among duplicates. Columns go by the name `column` gives them: to SQL `F1` and `f1` are one name, and a dot looks
into a struct.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import polars as pl

from xaicli.errors import XaiError
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import FOLDER_COLUMNS, Source, scan, sources
from xaicli.reader.rows import conform
from xaicli.vocabulary import DS_ID, EPOCH, MODE, PASS, STEP, Engine
from xaicli.words import spelled

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
        FileNotFoundError: A file has vanished: see `Reader.while_files_last`.
    """
    wanted = {name: column(name) for name in (*columns, STEP)}
    with vanished_told(reader, places):
        if engine is Engine.POLARS:
            yield nw.from_native(_numbered(reader, places, wanted))
        elif engine is Engine.DUCKDB:
            with import_duckdb().connect(":memory:") as connection:
                yield nw.from_native(duckdb_rows(connection, reader, places, wanted))
        else:
            yield nw.from_native(_spark_rows(spark_session(spark_remote), reader, places, wanted))


@contextmanager
def vanished_told(reader: Reader, places: Sequence[Place]) -> Iterator[None]:
    """Whatever an engine makes of a file that vanished while it read is a `FileNotFoundError`."""
    try:
        yield
    except (XaiError, FileNotFoundError):
        raise
    except Exception as error:
        listed = (piece.file.path for place in places for piece in reader.pieces(place) if piece.file)
        if gone := next((path for path in listed if not path.exists()), None):
            raise FileNotFoundError(errno.ENOENT, "vanished while it was read", str(gone)) from error
        raise


@contextmanager
def handed(frame: pl.DataFrame, engine: Engine, *, spark_remote: str | None = None) -> Iterator[nw.LazyFrame[Any]]:
    """Rows that are in memory as `opened` gives those of files, for as long as the block lasts.

    Raises:
        XaiError: The engine is not installed.
    """
    named = [pl.col(name).cast(_wide(dtype)).alias(column(name)) for name, dtype in frame.schema.items()]
    rows = frame.select(*named, pl.int_range(pl.len(), dtype=pl.Int64).alias(ORDER))
    if engine is Engine.POLARS:
        yield nw.from_native(rows.lazy())
    elif engine is Engine.DUCKDB:
        with import_duckdb().connect(":memory:") as connection:
            connection.register("_rows", rows.to_arrow())
            yield nw.from_native(connection.sql("SELECT * FROM _rows"))
    else:
        yield nw.from_native(spark_session(spark_remote).createDataFrame(rows.to_arrow()))


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
    root = str(reader.layout.root)
    if in_memory or _alike(reader, names) or spelled(root) != root:
        # DuckDB cannot tell such columns of a file apart, nor open what is no UTF-8; polars can, at the price of
        # memory.
        connection.register("_rows", _numbered(reader, places, names).collect(engine="streaming").to_arrow())
        return connection.sql("SELECT * FROM _rows")
    schema = _schema(reader, names)
    stored = pl.Schema({name: dtype for name, dtype in schema.items() if name not in FOLDER_COLUMNS})
    connection.register("_types", stored.to_frame().to_arrow())
    listed = ", ".join(f"{_duckdb_value(name)} AS {_quoted(called)}" for name, called in names.items())
    nowhere = "'' AS _mode, '' AS _ds_id, 0 AS _epoch"
    selects = [f"SELECT {listed}, 0::BIGINT AS {ORDER} FROM (SELECT *, {nowhere} FROM _types)"]
    for number, (fence, group) in enumerate(_by_fence(sources(reader, places)).items()):
        where = "" if fence is None else f" WHERE {STEP} < {int(fence)}"
        if files := [(position, source) for position, source in group if source.path]:
            connection.register(f"_files{number}", _files(files).to_arrow())
            # The empty table gives absent columns their type; BY NAME fills them with null.
            selects.append(
                f"SELECT {listed}, _file * {_FILE_STRIDE} + file_row_number AS {ORDER} FROM ("
                "SELECT *, 0::BIGINT AS file_row_number, '' AS filename FROM _types UNION ALL BY NAME "
                f"SELECT * FROM read_parquet({[str(source.path) for _, source in files]}, union_by_name=true, "
                "hive_partitioning=false, file_row_number=true, filename=true)"
                f") JOIN _files{number} USING (filename){where}"
            )
        for position, source in group:
            if source.live is not None:
                connection.register(f"_live{position}", _live(source, position, stored).to_arrow())
                mode, ds_id, epoch, _ = source.place
                known = f"{_text(mode)} AS _mode, {_text(ds_id)} AS _ds_id, {epoch} AS _epoch"
                selects.append(f"SELECT {listed}, {ORDER} FROM (SELECT *, {known} FROM _live{position}){where}")
    return connection.sql(" UNION ALL BY NAME ".join(selects))


def _duckdb_value(name: str) -> str:
    """A column of the run: what a file need not say comes from where it lies."""
    told = {MODE: "_mode", DS_ID: "_ds_id", EPOCH: "CAST(_epoch AS INTEGER)", PASS: 'coalesce("pass", 0::SMALLINT)'}
    return told.get(name) or _quoted(name)


def _by_fence(found: Sequence[Source]) -> dict[int | None, list[tuple[int, Source]]]:
    """Sources with their place in the order of logging, by where their rows stop to count."""
    groups: dict[int | None, list[tuple[int, Source]]] = {}
    for position, source in enumerate(found):
        groups.setdefault(source.fence, []).append((position, source))
    return groups


def _files(group: Sequence[tuple[int, Source]]) -> pl.DataFrame:
    """What is known of files beside their rows: filename, _file (its place in the order), _mode, _ds_id, _epoch."""
    rows = [(str(source.path), position, *source.place[:3]) for position, source in group]
    kinds = {"filename": pl.String, "_file": pl.Int64, "_mode": pl.String, "_ds_id": pl.String, "_epoch": pl.Int32}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _numbered(reader: Reader, places: Sequence[Place], names: Mapping[str, str]) -> pl.LazyFrame:
    """The rows of some places by polars, as logged, columns under the given names."""
    rows = scan(reader, places, list(names)).with_row_index(ORDER).cast({ORDER: pl.Int64()})
    types = _schema(reader, names)
    return rows.select(*(pl.col(name).cast(types[name]).alias(called) for name, called in names.items()), ORDER)


def _alike(reader: Reader, names: Mapping[str, str]) -> bool:
    """Whether the run has another column that is one of these but for case."""
    spelt = [name.lower() for name in {*reader.stored, *names}]
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

    schema = _schema(reader, names)
    stored = pl.Schema({name: dtype for name, dtype in schema.items() if name not in FOLDER_COLUMNS})
    # Named columns only: Spark cannot read the half precision of kept probabilities.
    ddl = ", ".join(f"{_ticked(name)} {_spark_type(dtype)}" for name, dtype in stored.items())
    frames = []
    for fence, group in _by_fence(sources(reader, places)).items():
        where = sf.lit(True) if fence is None else sf.col(STEP) < fence
        if files := [(at, replace(source, path=source.path.resolve())) for at, source in group if source.path]:
            paths = [str(source.path) for _, source in files]
            frame = session.read.schema(ddl).option("recursiveFileLookup", "true").parquet(*paths)
            known = session.createDataFrame(
                _files(files).rows(), "_path string, _file long, _mode string, _ds_id string, _epoch int"
            )
            row = sf.col("_metadata.row_index")
            path = sf.regexp_replace(sf.url_decode(sf.col("_metadata.file_path")), "^file:/*", "/")
            located = frame.withColumn("_row", row).withColumn("_path", path).join(sf.broadcast(known), "_path")
            frame = located.withColumn(ORDER, sf.col("_file") * _FILE_STRIDE + sf.col("_row"))
            frames.append(_spark_conform(frame.where(where), schema, names))
        for position, source in group:
            if source.live is not None:
                numbered = session.createDataFrame(_live(source, position, stored).to_arrow())
                for name, value in zip(("_mode", "_ds_id", "_epoch"), source.place[:3], strict=True):
                    numbered = numbered.withColumn(name, sf.lit(value))
                frames.append(_spark_conform(numbered.where(where), schema, names))
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
    told = {MODE: sf.col("_mode"), DS_ID: sf.col("_ds_id"), EPOCH: sf.col("_epoch")}

    def value(name: str) -> Any:
        if name in told:
            return told[name]
        found = sf.col(_ticked(name)) if name in present else sf.lit(None)
        return sf.coalesce(found, sf.lit(0)) if name == PASS else found

    return frame.select(
        *(value(name).cast(_spark_type(dtype)).alias(names[name]) for name, dtype in schema.items()),
        sf.col(ORDER).cast("bigint").alias(ORDER),
    )


def _live(source: Source, position: int, schema: pl.Schema) -> pl.DataFrame:
    """The rows of a live segment with these columns and types, and their place in the order of logging."""
    assert source.live is not None
    names = [name for name in schema if name in source.live.column_names]
    frame = conform(pl.DataFrame(pl.from_arrow(source.live.select(names))), list(schema), schema).cast(schema)
    start = position * _FILE_STRIDE
    return frame.with_columns(pl.int_range(start, start + frame.height, dtype=pl.Int64).alias(ORDER))


def _schema(reader: Reader, names: Iterable[str]) -> pl.Schema:
    """The types other engines know the columns in; `pass` is one of every run."""
    kinds: dict[str, pl.DataType] = {PASS: pl.Int16(), **reader.stored}
    return pl.Schema({name: _wide(kinds.get(name, pl.Int32())) for name in names})


def _ticked(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


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
