"""What samples are: the facts a run recorded and those of a file beside it, as columns that rows are joined with."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError
from xaicli.layout import DataFile, PartName, without_superseded
from xaicli.reader.pieces import Place, foreign, relative
from xaicli.reader.rows import dtype_of
from xaicli.vocabulary import RESERVED_COLUMNS, SAMPLE_ID
from xaicli.wal.records import live_records

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.reader.run import Reader

FACT = "fact_"
"""Goes before the name of a fact that is called like a column of the rows."""
_KINDS = "CSV (.csv, .tsv), Parquet (.parquet, .pq) or JSON lines (.jsonl, .ndjson)"
_LONGEST_NAME = 200


class Facts:
    """What is known of the samples of a run. What nobody asks for is not read.

    Args:
        reader: The run; damaged files are left out and noted there.
        file: CSV, Parquet or JSON lines with a column `sample_id`; its values count before those recorded.
        wanted: Whether anything is to be known.

    Raises:
        XaiError: The file cannot be read, has no sample ids, or none of the run's kind.
    """

    def __init__(self, reader: Reader, file: Path | None = None, *, wanted: bool = True) -> None:
        self._reader = reader
        self.wanted = wanted
        self.file = file
        """Where further facts are from."""
        self._given = None if file is None else _of_file(file, reader.stored.get(SAMPLE_ID, pl.Int64()))

    @property
    def names(self) -> tuple[str, ...]:
        """What is known, as columns are called."""
        return tuple(self.dtypes)

    @cached_property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Each fact with its type: one for all its values, text where they are of several kinds."""
        return {self._called[name]: dtype for name, dtype in self._kinds.items()}

    @cached_property
    def _kinds(self) -> dict[str, pl.DataType]:
        """The facts under their own names."""
        kinds: dict[str, set[pl.DataType]] = {}
        for source in self._sources:
            for name, dtype in source.dtypes.items():
                if name != SAMPLE_ID:
                    kinds.setdefault(name, set()).add(dtype)
        return {name: _common(found - {pl.Null()}) for name, found in kinds.items()}

    @cached_property
    def _called(self) -> dict[str, str]:
        """{fact: its column}: one named like a column of the rows has a word before it."""
        taken = {*self._reader.stored, *RESERVED_COLUMNS}
        called: dict[str, str] = {}
        for name in self._kinds:
            new = FACT + name if _is_pattern(name) else name
            while new in taken or (new != name and new in self._kinds):
                new = FACT + new
            called[name] = new
        return called

    @cached_property
    def frame(self) -> pl.DataFrame:
        """sample_id and a column a fact; one row a sample, the last value of each fact that is not null."""
        return self._joined[0]

    @property
    def are_read(self) -> bool:
        """Whether a question has looked at their values."""
        return "_joined" in self.__dict__

    @property
    def changed(self) -> dict[str, int]:
        """Facts of which some sample was told several values, with how many samples: the last counts."""
        return self._joined[1]

    @property
    def said(self) -> tuple[str, ...]:
        """What every question says of them: what was left out of the file, and what goes by another name."""
        said = [
            f"the fact {name} is called {new}: a column of the rows has its name"
            if not _is_pattern(name)
            else f'the fact "{name}" is called {new}: such a name stands for others'
            for name, new in self._called.items()
            if name != new
        ]
        return (*said, *(self._given.said if self._given is not None else ()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a question that reads their values says too: which of them changed."""
        return tuple(
            f"{name} of {n:,} {'sample' if n == 1 else 'samples'} was recorded with several values: the last counts"
            for name, n in self.changed.items()
        )

    def of(self, ids: pl.Series) -> pl.DataFrame:
        """The facts of some samples: a row an id, in their order, nulls where nothing is known."""
        return pl.DataFrame({SAMPLE_ID: ids}).join(self.frame, on=SAMPLE_ID, how="left", maintain_order="left")

    def joined(self, frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """Rows with `sample_id`, with some facts as columns beside; in their order."""
        facts = self.frame.select(SAMPLE_ID, *names)
        return frame.drop(names, strict=False).join(facts, on=SAMPLE_ID, how="left", maintain_order="left")

    def mismatches(self) -> tuple[str, ...]:
        """How the ids of the file fit those that the run recorded, where they do not."""
        if self._given is None or self.file is None:
            return ()
        reader = self._reader
        places = [(mode, ds_id, reader.epochs(mode, ds_id)) for mode in reader.modes() for ds_id in reader.ds_ids(mode)]
        parts = [
            reader.frame(Place(mode, ds_id, epochs[-1]), [SAMPLE_ID])[0].unique() for mode, ds_id, epochs in places
        ]
        run = pl.concat(parts).unique() if parts else pl.DataFrame(schema={SAMPLE_ID: pl.Int64()})
        told = self._given.frame.select(SAMPLE_ID).unique()
        strangers = told.join(run, on=SAMPLE_ID, how="anti").height
        without = run.join(told, on=SAMPLE_ID, how="anti").height
        said = []
        if strangers:
            said.append(f"{strangers:,} of the {told.height:,} ids in {self.file.name} are no samples of the run")
        if without:
            said.append(f"{without:,} of the run's {run.height:,} samples are not in {self.file.name}")
        return tuple(said)

    @cached_property
    def identity(self) -> list[Any]:
        """What an answer made from them depends on, as plain JSON types: each file's name, size and time."""
        paths = [source.path for source in self._sources if source.path] + ([self.file] if self.file else [])
        found: list[Any] = []
        for path in paths:
            try:
                facts = path.stat()
            except OSError:
                found.append([str(path)])
            else:
                found.append([str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino])
        return [*found, sum(source.path is None for source in self._sources)]

    @cached_property
    def _sources(self) -> list[_Source]:
        """Where facts are, in the order they were told: files, live segments, the user's file."""
        found = list(self._recorded()) if self.wanted else []
        if self._given is not None:
            found.append(_Source(None, self._given.frame, dict(self._given.frame.schema)))
        return found

    def _recorded(self) -> Iterator[_Source]:
        """The rows of `run.log_facts` in the order they were logged, those not in files yet last."""
        reader = self._reader
        live, damaged = live_records(reader.layout, "facts")
        for path in damaged:
            name = path.relative_to(reader.layout.root).as_posix()
            reader.note(DamagedFileError(f"{name} is damaged", hint="see: xai doctor"), name)
        folder = reader.layout.facts
        named = {path: part for path in sorted(folder.glob("*.parquet")) if (part := PartName.parse(path.name))}
        for file in without_superseded(DataFile("", "", 0, part, path) for path, part in named.items()):
            place = relative(reader.layout, file)
            try:
                with parquet.opened(file.path, reader.records.get(place)) as opened:
                    schema = opened.schema_arrow
                if SAMPLE_ID not in schema.names:
                    raise foreign(place, {SAMPLE_ID})
            except DamagedFileError as error:
                reader.note(error, place)
                continue
            except FileNotFoundError:
                continue
            yield _Source(file.path, None, {field.name or FACT: _plain_dtype(field.type) for field in schema})
        for table in live:
            frame = _frame(table)
            yield _Source(None, frame, dict(frame.schema))

    def _read(self, source: _Source) -> pl.DataFrame | None:
        if source.frame is not None:
            return source.frame
        assert source.path is not None
        place = source.path.relative_to(self._reader.layout.root).as_posix()
        try:
            with parquet.opened(source.path, self._reader.records.get(place)) as opened:
                table = parquet.decoded(opened, list(opened.schema_arrow.names))
        except DamagedFileError as error:
            self._reader.note(error, place)
            return None
        return _frame(table)

    @cached_property
    def _joined(self) -> tuple[pl.DataFrame, dict[str, int]]:
        kind = self._reader.stored.get(SAMPLE_ID, pl.Int64())
        kinds = self.dtypes
        found = [
            frame.rename({name: new for name, new in self._called.items() if name in frame.columns})
            for frame in map(self._read, self._sources)
            if frame is not None and frame.height and frame.schema[SAMPLE_ID] == kind
        ]
        frames = [
            frame.with_columns(pl.col(name).cast(dtype) for name, dtype in kinds.items() if name in frame.columns)
            for frame in found
        ]
        names = list(kinds)
        if not frames:
            return pl.DataFrame(schema={SAMPLE_ID: kind, **self.dtypes}), {}
        every = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
        every = every.with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in kinds.items() if name not in every.columns
        )
        changed: dict[str, int] = {}
        if every[SAMPLE_ID].null_count() or every[SAMPLE_ID].n_unique() < every.height:
            every = every.drop_nulls(SAMPLE_ID)
            last = [pl.col(name).drop_nulls().last() for name in names]
            several = [(pl.col(name).drop_nulls().n_unique() > 1).alias(name) for name in names]
            repeated = every.filter(pl.col(SAMPLE_ID).is_duplicated())
            counts = repeated.group_by(SAMPLE_ID).agg(several).select(pl.col(name).sum() for name in names)
            changed = {name: int(n) for name, n in zip(names, counts.row(0), strict=True) if n} if names else {}
            once = every.filter(~pl.col(SAMPLE_ID).is_duplicated())
            every = pl.concat([once, repeated.group_by(SAMPLE_ID, maintain_order=True).agg(last)])
        return every.select(SAMPLE_ID, *names), changed


@dataclass(frozen=True)
class _Source:
    """Some facts: a file of the run, or rows that are in memory."""

    path: Path | None
    frame: pl.DataFrame | None
    dtypes: Mapping[str, pl.DataType]


def _named(table: pa.Table) -> pa.Table:
    """The table, a column without a name called as facts are."""
    return table.rename_columns([name or FACT for name in table.column_names])


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(_named(table)))


def _is_pattern(name: str) -> bool:
    """Whether a name would be read as one of several columns, or of none."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def _plain_dtype(kind: pa.DataType) -> pl.DataType:
    import pyarrow as pa

    if pa.types.is_date(kind):
        return pl.Date()
    if pa.types.is_timestamp(kind):
        return pl.Datetime(kind.unit if kind.unit != "s" else "ms", kind.tz)
    return pl.String() if pa.types.is_null(kind) else dtype_of(str(kind))


def _common(kinds: set[pl.DataType]) -> pl.DataType:
    """The one type of a fact: numbers of several widths as the widest, other mixtures as text."""
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds and all(kind.is_numeric() for kind in kinds):
        return pl.Float64() if any(kind.is_float() for kind in kinds) else pl.Int64()
    return pl.String()


@dataclass(frozen=True)
class _Given:
    """The rows of the user's file that name a sample, and what was left out."""

    frame: pl.DataFrame
    said: tuple[str, ...]


def _of_file(file: Path, kind: pl.DataType) -> _Given:
    """The facts of a file.

    Raises:
        XaiError: It cannot be read, has no sample ids, or none of the run's kind.
    """
    said: list[str] = []
    try:
        frame = _table(file, said)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        words = str(getattr(error, "strerror", None) or error).strip().splitlines() or [type(error).__name__]
        raise XaiError(f"--facts {file} cannot be read: {words[0]}", hint=_KINDS) from error
    frame = frame.rename({name: name.strip() for name in frame.columns if name.strip() and _only(name, frame)})
    if SAMPLE_ID not in frame.columns:
        shown = ", ".join(frame.columns[:20])
        raise XaiError(f"--facts {file} has no column sample_id", hint=f"its columns: {shown or 'none'}")
    ids, lost, empty = _ids(frame[SAMPLE_ID], kind)
    if empty:
        said.append(f"{empty:,} {'row' if empty == 1 else 'rows'} of {file.name} have no sample_id and were left out")
    if lost:
        said.append(f"{lost:,} sample ids of {file.name} are none of the run's kind ({_kind_name(kind)}): left out")
    frame = frame.with_columns(ids).filter(ids.is_not_null())
    if frame.is_empty():
        raise XaiError(
            f"--facts {file} has no sample id of the run's kind", hint=f"the run's ids are {_kind_name(kind)}"
        )
    nested = [name for name, dtype in frame.schema.items() if name != SAMPLE_ID and not _is_plain(dtype)]
    if nested:
        said.append(f"{', '.join(nested)} of {file.name} hold neither texts, numbers nor dates: kept as text")
    texts = [
        pl.Series(name, [None if value is None else _as_text(value) for value in frame[name]], pl.String)
        for name in nested
    ]
    plain = [
        pl.col(name).cast(pl.String)
        for name, dtype in frame.schema.items()
        if dtype in (pl.Categorical, pl.Enum) or dtype == pl.Null
    ]
    return _Given(frame.with_columns(*texts, *plain), tuple(said))


def _only(name: str, frame: pl.DataFrame) -> bool:
    return sum(other.strip() == name.strip() for other in frame.columns) == 1


def _table(file: Path, said: list[str]) -> pl.DataFrame:
    match file.suffix.lower():
        case ".csv" | ".tsv":
            separator = "\t" if file.suffix.lower() == ".tsv" else ","
            content = file.read_bytes()
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                said.append(f"{file.name} is not all UTF-8: other bytes are shown as \ufffd")
                content = content.decode("utf-8", errors="replace").encode()
            # Ids of text may look like numbers: "007" is not 7.
            looks: dict[str, Any] = {SAMPLE_ID: pl.String}
            return pl.read_csv(
                content,
                separator=separator,
                infer_schema_length=None,
                try_parse_dates=True,
                schema_overrides=looks,
                truncate_ragged_lines=True,
            )
        case ".parquet" | ".pq":
            return pl.read_parquet(file)
        case ".jsonl" | ".ndjson":
            return _of_lines(file, said)
        case other:
            raise XaiError(f"--facts {file}: {other or 'no suffix'} is no kind of table", hint=_KINDS)


def _of_lines(file: Path, said: list[str]) -> pl.DataFrame:
    """Objects a line; a line that is none is left out and counted, a key with values of several kinds is text."""
    content = file.read_bytes()
    try:
        return pl.read_ndjson(io.BytesIO(content), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        pass
    rows: list[dict[str, Any]] = []
    bad = 0
    for line in content.decode("utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    if bad:
        said.append(f"{bad:,} {'line' if bad == 1 else 'lines'} of {file.name} are no JSON objects and were left out")
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([_of_values(name, [row.get(name) for row in rows]) for name in names])


def _of_values(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) == 1:
        try:
            return pl.Series(name, values, pl.Float64 if kinds == {int, float} else None, strict=False)
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            pass
    return pl.Series(name, [None if value is None else _as_text(value) for value in values], pl.String)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return json.dumps(plain, ensure_ascii=False, default=str)


def _ids(given: pl.Series, kind: pl.DataType) -> tuple[pl.Series, int, int]:
    """The ids as the run has them, how many are none, and how many rows have no id."""
    empty = given.null_count()
    if kind.is_integer():
        if given.dtype == pl.String:
            given = given.str.strip_chars()
            blank = int((given == "").sum())
            empty, given = empty + blank, given.replace({"": None})
            # A table program writes 17 as 17.0.
            given = given.str.replace(r"\.0+$", "")
        elif given.dtype.is_float():
            given = given.set(given != given.floor(), None)
        ids = given.cast(kind, strict=False)
    else:
        whole = given.cast(pl.Int64, strict=False) if given.dtype.is_float() else given
        ids = (whole if given.dtype.is_float() and (whole == given).all() else given).cast(pl.String, strict=False)
    return ids.alias(SAMPLE_ID), ids.null_count() - empty, empty


def _kind_name(kind: pl.DataType) -> str:
    return "whole numbers" if kind.is_integer() else "texts"


def _is_plain(dtype: pl.DataType) -> bool:
    is_text = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null, pl.Boolean)
    return is_text or dtype.is_numeric() or (dtype.is_temporal() and dtype not in (pl.Duration, pl.Time))
