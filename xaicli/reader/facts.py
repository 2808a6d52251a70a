"""What samples are: the facts a run recorded and those of a file beside it, as columns that rows are joined with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError
from xaicli.reader.lazy import scan_table
from xaicli.reader.pieces import foreign, relative
from xaicli.reader.rows import dtype_of
from xaicli.tables.column import whole_ids
from xaicli.tables.fact_file import path_of_facts, read_fact_file
from xaicli.vocabulary import FACT, RESERVED_COLUMNS, SAMPLE_ID, fact_columns
from xaicli.wal.records import live_records

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.reader.run import Reader

FactFiles = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
"""One or several files of facts."""

_IN_MEMORY = "write it to one with a column sample_id, or record values: run.log_facts(ids, name=values)"

_IDENTITIES = (SAMPLE_ID, "example_id")
"""What the rows of a table are about, the first that it has."""


def each_file(files: FactFiles) -> tuple[Path, ...]:
    """The files of facts that are given.

    Raises:
        UsageError: They are none, but a table in memory, say.
    """
    if files is None:
        return ()
    every = files if isinstance(files, Sequence) and not isinstance(files, str | bytes) else [files]
    return tuple(path_of_facts(one, _IN_MEMORY) for one in every)


class Facts:
    """What is known of the samples of a run. What nobody asks for is not read.

    Args:
        reader: The run; damaged files are left out and noted there.
        files: CSV, Parquet or JSON lines with a column `sample_id`; their values count before those recorded, those of
            a later file before those of the others.
        wanted: Whether anything is to be known.

    Raises:
        XaiError: A file cannot be read, has no sample ids, or none of the run's kind.
    """

    def __init__(self, reader: Reader, files: FactFiles = None, *, wanted: bool = True) -> None:
        self._reader = reader
        self.wanted = wanted
        self.files = each_file(files)
        """Where further facts are from."""
        self._given = _together([_of_file(file, self._id_kind) for file in self.files])
        self._shared: SharedFacts | None = None
        self._whole: set[str] = set()

    def hold_whole(self, name: str) -> None:
        """Hold a fact of numbers, all of them whole, as whole ones from now on."""
        self._whole.add(name)
        for known in ("own_dtypes", "_joined"):
            self.__dict__.pop(known, None)

    def share(self, together: SharedFacts) -> None:
        """Know from now on what several runs know, this one among them."""
        self._shared = together
        for name in ("_called", "own_dtypes", "_joined"):  # a name that is free here may be a column of another's rows
            self.__dict__.pop(name, None)

    @property
    def differing(self) -> Mapping[str, int]:
        """Of how many samples the runs that share them say several values of a fact."""
        return {} if self._shared is None else self._shared.differing

    @property
    def given(self) -> str:
        """The files as an answer tells what was asked; "" without any."""
        return ", ".join(map(str, self.files))

    @property
    def told_in(self) -> str:
        """What the files are called."""
        return ", ".join(file.name for file in self.files)

    @property
    def left_out(self) -> str:
        """What may be missing where a name is unknown: facts that were not asked for, or cannot be read."""
        if not self.wanted:
            return "--no-facts leaves out every fact" if self._reader.layout.facts.is_dir() else ""
        damaged = [path for path in self._reader.damaged if path.partition("/")[0] == self._reader.layout.facts.name]
        return f"facts are left out, see xai doctor: {damaged[0]}" if damaged else ""

    @property
    def names(self) -> tuple[str, ...]:
        """What is known, as columns are called."""
        return tuple(self.dtypes)

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Each fact with its type: one for all its values, text where they are of several kinds."""
        return self.own_dtypes if self._shared is None else self._shared.dtypes

    @cached_property
    def own_dtypes(self) -> dict[str, pl.DataType]:
        """Those that this run knows by itself."""
        called = {self._called[name]: dtype for name, dtype in self._kinds.items()}
        return {name: pl.Int64() if name in self._whole else dtype for name, dtype in called.items()}

    @cached_property
    def _kinds(self) -> dict[str, pl.DataType]:
        """The facts under their own names."""
        kinds: dict[str, set[pl.DataType]] = {}
        for source in self._sources:
            for name, dtype in source.dtypes.items():
                if name != SAMPLE_ID and name not in source.unreadable:
                    kinds.setdefault(name, set()).add(dtype)
        return {name: _common(found - {pl.Null()}) for name, found in kinds.items()}

    @cached_property
    def _called(self) -> dict[str, str]:
        """{fact: its column}: one named like a column of the rows has a word before it."""
        stored = self._reader.stored if self._shared is None else self._shared.stored
        return fact_columns(self._kinds, [*stored, *RESERVED_COLUMNS, *filter(_is_pattern, self._kinds)])

    @property
    def frame(self) -> pl.DataFrame:
        """sample_id and a column a fact; one row a sample, the last value of each fact that is not null."""
        return self.own if self._shared is None else self._shared.frame_of(self._id_kind)

    @property
    def own(self) -> pl.DataFrame:
        """Those that this run knows by itself."""
        return self._joined.frame

    @property
    def are_read(self) -> bool:
        """Whether a question has looked at their values."""
        return "_joined" in self.__dict__

    @property
    def changed(self) -> Mapping[str, int]:
        """Facts of which some sample was recorded with several values, with how many samples: the last counts."""
        return self._joined.changed

    @property
    def notices(self) -> tuple[str, ...]:
        """What every question says of them: what was left out of the file, and what goes by another name."""
        said = [
            f"the fact {name} is called {new}: a column of the rows has its name"
            if not _is_pattern(name)
            else f'the fact "{name}" is called {new}: such a name stands for others'
            for name, new in self._called.items()
            if name != new
        ]
        return (*said, *(self._given.notices if self._given is not None else ()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a question that reads their values says too: which of them changed, and which a file replaced."""
        said = [
            f"{name} of {_many(n)} was recorded with several values: the last counts"
            for name, n in self.changed.items()
        ]
        zones = {name: zone for source in self._sources for name, zone in source.zones.items()}
        said += [f"{name} was recorded in the zone {zone}: its times are those of UTC" for name, zone in zones.items()]
        said += [
            f"{n:,} {'value' if n == 1 else 'values'} of the fact {name} cannot be read: left out"
            for name, n in self._joined.unreadable.items()
        ]
        if n := self._joined.unfit:
            said.append(
                f"facts of {n:,} {'id' if n == 1 else 'ids'} are left out: none of the run's kind (whole numbers)"
            )
        if self.files:
            said += [
                f"{name} of {_many(n)} has several values in {self.told_in}: the last counts"
                for name, n in self._joined.repeated.items()
            ]
            said += [
                f"{name} of {_many(n)} is another in {self.told_in} than recorded: the file's counts"
                for name, n in self._joined.replaced.items()
            ]
        return tuple(said)

    @property
    def told(self) -> tuple[str, ...]:
        """What is said where a question has been answered: of their values, where it read any or was given some."""
        return (*(self.warnings if self.files or self.are_read else ()), *self.mismatches())

    def of(self, ids: pl.Series) -> pl.DataFrame:
        """The facts of some samples: a row an id, in their order, nulls where nothing is known."""
        return pl.DataFrame({SAMPLE_ID: ids}).join(self.frame, on=SAMPLE_ID, how="left", maintain_order="left")

    def joined(self, frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """Rows with `sample_id`, with some facts as columns beside; in their order."""
        facts = self.frame.select(SAMPLE_ID, *names)
        rows = frame.drop(names, strict=False)
        if rows[SAMPLE_ID].equals(facts[SAMPLE_ID]):  # sooner found than joined
            return rows.hstack(facts.select(names))
        return rows.join(facts, on=SAMPLE_ID, how="left", maintain_order="left")

    def lacking(self, ids: pl.Series) -> int:
        """How many of some samples have no facts."""
        known = self.frame.select(SAMPLE_ID)
        return 0 if ids.equals(known[SAMPLE_ID]) else _apart(pl.DataFrame({SAMPLE_ID: ids}), known).height

    def mismatches(self) -> tuple[str, ...]:
        """How the ids of the file fit those of the run's samples, of every epoch and selection, where not."""
        if self._given is None:
            return ()
        samples, others = self._samples
        told = self._given.frame.select(SAMPLE_ID)
        if told.equals(samples):  # sooner found than joined
            return ()
        told = told.unique()
        unknown = _apart(_apart(told, samples), others).height
        without = _apart(samples, told).height
        said = []
        if unknown:
            said.append(f"{unknown:,} of the {told.height:,} ids in {self.told_in} are no samples of the run")
            said[-1] += _spelt_otherwise(_apart(told, samples), samples)
        if without:
            said.append(f"{without:,} of the run's {samples.height:,} samples are not in {self.told_in}")
        return tuple(said)

    def n_unknown_ids(self) -> int:
        """How many ids have recorded facts and are no samples of the run, of whatever epoch; 0 of a run without any.

        Those among them that no sample could have are counted as often as they were recorded.
        """
        samples, others = self._samples
        unknown = _apart(_apart(self.own.select(SAMPLE_ID), samples), others).height
        return unknown + self._joined.unfit if samples.height else 0

    def of_no_sample(self) -> tuple[str, ...]:
        """What is to be said where not one of the ids that facts were recorded of is a sample of the run."""
        n = self.own.height
        if self.files or not n or self.n_unknown_ids() < n + self._joined.unfit:
            return ()
        own, other = self.own[SAMPLE_ID].min(), self._samples[0][SAMPLE_ID].min()
        words = "the 1 id" if n == 1 else f"none of the {n:,} ids"
        return (f"{words} with facts is {'no' if n == 1 else 'a'} sample of the run: {own!r} against {other!r}",)

    @cached_property
    def _samples(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ids of the samples: of the run's rows, of which a run of objects alone has none, and of its tables."""
        reader = self._reader
        kind = self.own.schema[SAMPLE_ID]
        rows = pl.DataFrame({SAMPLE_ID: reader.sample_ids().cast(kind, strict=False)}).drop_nulls()
        found = [ids.select(pl.col(SAMPLE_ID).cast(kind, strict=False)).unique().collect() for ids in self._of_tables()]
        tables = pl.concat(found).unique().drop_nulls() if found else rows.clear()
        return (rows, tables) if rows.height else (tables, rows)

    def _of_tables(self) -> Iterator[pl.LazyFrame]:
        """The ids in each table of the run that has any."""
        for one in self._reader.table_folders().values():
            lazy = scan_table(self._reader, one)
            known = () if lazy is None else lazy.collect_schema().names()
            if lazy is not None and (name := next((name for name in _IDENTITIES if name in known), None)):
                yield lazy.select(pl.col(name).alias(SAMPLE_ID))

    @cached_property
    def _id_kind(self) -> pl.DataType:
        """What ids are: as in the run's rows, of which a run of objects alone has none, else as in its tables."""
        if (recorded := self._reader.stored.get(SAMPLE_ID)) is not None:
            return recorded
        kinds = [ids.collect_schema()[SAMPLE_ID] for ids in self._of_tables()]
        return pl.String() if any(not kind.is_integer() for kind in kinds) else pl.Int64()

    @property
    def identity(self) -> list[Any]:
        """What an answer made from them depends on, as plain JSON types: each file's name, size and time."""
        return self.own_identity if self._shared is None else self._shared.identity

    @cached_property
    def own_identity(self) -> list[Any]:
        """The same of those that this run knows by itself."""
        paths = [source.path for source in self._sources if source.path] + [*self.files]
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
            found.append(_in_memory(self._given.frame))
        return found

    def _recorded(self) -> Iterator[_Source]:
        """The rows of `run.log_facts` in the order they were logged, those not in files yet last."""
        reader = self._reader
        live, damaged = live_records(reader.layout, "facts")
        for path in damaged:
            name = path.relative_to(reader.layout.root).as_posix()
            reader.note(DamagedFileError(f"{name} is damaged", hint="see: xai doctor"), name)
        for file in reader.record_files(reader.layout.facts):
            place = relative(reader.layout, file)
            try:
                with parquet.opened(file.path, reader.records.get(place), reader.contents) as opened:
                    schema = opened.schema_arrow
                if SAMPLE_ID not in schema.names:
                    raise foreign(place, {SAMPLE_ID})
            except DamagedFileError as error:
                reader.note(error, place)
                continue
            except FileNotFoundError:
                continue
            dtypes = {field.name or FACT: _plain_dtype(field.type) for field in schema}
            yield _Source(file.path, None, dtypes, zones=_unknown_zones(schema))
        for table in live:
            frame, unreadable = _readable(table)
            yield _in_memory(frame, unreadable, _unknown_zones(table.schema))

    def _read(self, source: _Source) -> tuple[pl.DataFrame, Mapping[str, int]] | None:
        """The rows of a source, and of each fact that cannot be read how many values it has."""
        if source.frame is not None:
            return source.frame, source.unreadable
        assert source.path is not None
        place = source.path.relative_to(self._reader.layout.root).as_posix()
        try:
            with parquet.opened(source.path, self._reader.records.get(place), self._reader.contents) as opened:
                table = parquet.decoded(opened, list(opened.schema_arrow.names))
        except DamagedFileError as error:
            self._reader.note(error, place)
            return None
        return _readable(table)

    @cached_property
    def _joined(self) -> _Joined:
        kind = self._id_kind
        kinds = self.own_dtypes
        frames: list[pl.DataFrame] = []
        n_given = n_unfit = 0
        unreadable = Counter[str]()
        for source in self._sources:
            read = self._read(source)
            if read is None:
                continue
            frame, lost = read
            unreadable.update(lost)
            if not frame.height:
                continue
            n = frame.height
            frame = _with_ids(frame.rename({name: new for name, new in self._called.items() if name in frame}), kind)
            n_unfit += n - frame.height
            frame = frame.with_columns(pl.col(pl.Float64, pl.Float32).fill_nan(None))  # as older versions recorded
            frame, lost = _of_kinds(frame, kinds)
            unreadable.update(lost)
            frames.append(frame)
            n_given = frame.height if self._given is not None and source.frame is self._given.frame else 0
        if not frames:
            return _Joined(pl.DataFrame(schema={SAMPLE_ID: kind, **kinds}), unfit=n_unfit, unreadable=unreadable)
        every = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
        every = every.with_columns(pl.lit(None, to).alias(name) for name, to in kinds.items() if name not in every)
        every = every.select(SAMPLE_ID, *kinds)
        recorded, changed = _last(every.head(every.height - n_given))
        if not n_given:
            return _Joined(recorded, changed, unfit=n_unfit, unreadable=unreadable)
        given, repeated = _last(every.tail(n_given))
        both, replaced = _last(pl.concat([recorded, given]))
        return _Joined(both, changed, repeated, replaced, n_unfit, unreadable)


class SharedFacts:
    """What several runs know of their samples together: of each fact the value of the last run that has one.

    Args:
        readers: The runs, in their order; each knows the same from now on, whatever it is asked.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._every = [reader.facts for reader in readers]
        self.stored = frozenset[str]().union(*(reader.stored for reader in readers))
        """The columns of any run's rows, as which no fact is called."""
        self._frames: dict[pl.DataType, pl.DataFrame] = {}
        for facts in self._every:
            facts.share(self)

    @cached_property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Each fact with its type."""
        found: dict[str, set[pl.DataType]] = {}
        for one in self._every:
            for name, dtype in one.own_dtypes.items():
                found.setdefault(name, set()).add(dtype)
        return {name: _common(dtypes - {pl.Null()}) for name, dtypes in found.items()}

    @cached_property
    def _last(self) -> tuple[pl.DataFrame, Mapping[str, int]]:
        ids = self._every[-1].own.schema[SAMPLE_ID]
        frames = [_of_kinds(_with_ids(one.own, ids), self.dtypes)[0] for one in self._every]
        return _last(pl.concat(frames, how="diagonal").select(SAMPLE_ID, *self.dtypes))

    def frame_of(self, ids: pl.DataType) -> pl.DataFrame:
        """sample_id as of a kind, and a column a fact; one row a sample."""
        if ids not in self._frames:
            self._frames[ids] = _with_ids(self._last[0], ids)
        return self._frames[ids]

    @property
    def differing(self) -> Mapping[str, int]:
        """Of how many samples the runs say several values of a fact."""
        return self._last[1]

    @cached_property
    def identity(self) -> list[Any]:
        """What an answer made from them depends on, as plain JSON types."""
        return [facts.own_identity for facts in self._every]


@dataclass(frozen=True)
class _Joined:
    """A row a sample, and of how many samples each fact has several values."""

    frame: pl.DataFrame
    changed: Mapping[str, int] = field(default_factory=dict)
    """As it was recorded."""
    repeated: Mapping[str, int] = field(default_factory=dict)
    """Within the user's file."""
    replaced: Mapping[str, int] = field(default_factory=dict)
    """In the user's file and as it was recorded."""
    unfit: int = 0
    """Rows that were recorded with an id which is none of the run's kind, before the run had any."""
    unreadable: Mapping[str, int] = field(default_factory=dict)
    """Of each fact the values that cannot be read."""


def _last(every: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """A row a sample, the last value of each fact that is not null; and of how many samples a fact had several."""
    if not every[SAMPLE_ID].null_count() and every[SAMPLE_ID].n_unique() == every.height:
        return every, {}
    names = every.columns[1:]
    every = every.drop_nulls(SAMPLE_ID)
    last = [pl.col(name).drop_nulls().last() for name in names]
    several = [(pl.col(name).drop_nulls().n_unique() > 1).alias(name) for name in names]
    repeated = every.filter(pl.col(SAMPLE_ID).is_duplicated())
    counts = repeated.group_by(SAMPLE_ID).agg(several).select(pl.col(name).sum() for name in names)
    changed = {name: int(n) for name, n in zip(names, counts.row(0), strict=True) if n} if names else {}
    once = every.filter(~pl.col(SAMPLE_ID).is_duplicated())
    return pl.concat([once, repeated.group_by(SAMPLE_ID, maintain_order=True).agg(last)]), changed


def _many(n: int) -> str:
    return f"{n:,} {'sample' if n == 1 else 'samples'}"


def _apart(ids: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The ids that are none of some others; several times sooner found so than by a join."""
    return ids.filter(~pl.col(SAMPLE_ID).is_in(known[SAMPLE_ID].implode()))


def _spelt_otherwise(unknown: pl.DataFrame, samples: pl.DataFrame) -> str:
    """How many ids would be known, were they spelt as the run's are, and what differs; "" where none would."""
    if unknown.schema[SAMPLE_ID] != pl.String:
        return ""
    ids = pl.col(SAMPLE_ID).str
    spellings = {
        "how accents are encoded (Unicode's NFC and NFD)": ids.normalize("NFC"),  # file systems change them
        "zeros before them": ids.strip_chars_start("0"),
        "the folders before them": ids.replace(r"^.*[/\\]", ""),
    }
    for words, alike in spellings.items():
        if n := unknown.height - _apart(unknown.with_columns(alike), samples.with_columns(alike)).height:
            return f"; {n:,} of them but for {words}"
    return ""


def _with_ids(frame: pl.DataFrame, kind: pl.DataType) -> pl.DataFrame:
    """Facts that were told before the first rows said what ids are: "17" and "17.0" are 17 in a run of numbers."""
    ids = frame[SAMPLE_ID]
    if ids.dtype == kind:
        return frame
    if ids.dtype == pl.String and kind.is_integer():
        ids = pl.Series(SAMPLE_ID, whole_ids(ids.to_arrow(compat_level=pl.CompatLevel.oldest())))
    return frame.with_columns(ids.cast(kind, strict=False)).drop_nulls(SAMPLE_ID)


@dataclass(frozen=True)
class _Source:
    """Some facts: a file of the run, or rows that are in memory."""

    path: Path | None
    frame: pl.DataFrame | None
    dtypes: Mapping[str, pl.DataType]
    unreadable: Mapping[str, int] = field(default_factory=dict)
    """Of each fact in memory that cannot be read how many values it has."""
    zones: Mapping[str, str] = field(default_factory=dict)
    """The zones of facts that are read in UTC."""


def _in_memory(
    frame: pl.DataFrame, unreadable: Mapping[str, int] | None = None, zones: Mapping[str, str] | None = None
) -> _Source:
    return _Source(None, frame, dict(frame.schema), unreadable or {}, zones or {})


def _named(table: pa.Table) -> pa.Table:
    """The table, a column without a name called as facts are."""
    return table.rename_columns([name or FACT for name in table.column_names])


def _readable(table: pa.Table) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows as polars has them, and of each fact that it has no kind for how many values are left out.

    Raises:
        polars.exceptions.PolarsError: The ids are of no kind.
    """
    import pyarrow as pa

    table = _named(table)
    for at, column in enumerate(table.schema):
        if _unknown_zone(column.type):
            table = table.set_column(at, column.name, table.column(at).cast(pa.timestamp(column.type.unit, "UTC")))
    try:
        return pl.DataFrame(pl.from_arrow(table)), {}
    except _UNREADABLE:
        lost = {}
        for name in [name for name in table.column_names if name != SAMPLE_ID]:
            try:
                pl.from_arrow(table.select([name]))
            except _UNREADABLE:
                lost[name] = table.num_rows - table[name].null_count
        return pl.DataFrame(pl.from_arrow(table.drop_columns(list(lost)))), lost


def _of_kinds(frame: pl.DataFrame, kinds: Mapping[str, pl.DataType]) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows with each fact as what it is in the whole run; of one where that fails its values are missing."""
    casts = {name: _as(to, name, frame.schema[name]) for name, to in kinds.items() if name in frame.columns}
    try:
        return frame.with_columns(**casts), {}
    except _UNREADABLE:
        found, lost = frame, {}
        for name, cast in casts.items():
            try:
                found = found.with_columns(cast)
            except _UNREADABLE:
                found = found.with_columns(pl.lit(None, kinds[name]).alias(name))
                lost[name] = frame.height - frame[name].null_count()
        return found, lost


def _unknown_zones(schema: pa.Schema) -> dict[str, str]:
    return {column.name or FACT: zone for column in schema if (zone := _unknown_zone(column.type))}


def _unknown_zone(kind: pa.DataType) -> str:
    """The zone of times where it is one that polars has not: an offset with minutes, or an unknown name."""
    import pyarrow as pa

    return kind.tz if pa.types.is_timestamp(kind) and kind.tz and not _is_known(kind.tz) else ""


@cache
def _is_known(zone: str) -> bool:
    try:
        pl.Series([None], dtype=pl.Datetime("us", zone))
    except _UNREADABLE:
        return False
    return True


_UNREADABLE = (pl.exceptions.PolarsError, ValueError, TypeError, OverflowError)


def _is_pattern(name: str) -> bool:
    """Whether a name would be read as one of several columns, or of none."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def _plain_dtype(kind: pa.DataType) -> pl.DataType:
    import pyarrow as pa

    if pa.types.is_date(kind):
        return pl.Date()
    if pa.types.is_timestamp(kind):
        return pl.Datetime(kind.unit if kind.unit != "s" else "ms", "UTC" if _unknown_zone(kind) else kind.tz)
    return pl.Null() if pa.types.is_null(kind) else dtype_of(str(kind))


def _as(kind: pl.DataType, name: str, own: pl.DataType) -> pl.Expr:
    """A fact as of another kind; NaN beside texts is a missing one."""
    column = pl.col(name)
    return (column.fill_nan(None) if kind == pl.String and own.is_float() else column).cast(kind)


def _common(kinds: set[pl.DataType]) -> pl.DataType:
    """The one type of a fact: numbers of several widths as the widest, days beside times as times, else text."""
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds and all(kind.is_numeric() for kind in kinds):
        return pl.Float64() if any(kind.is_float() for kind in kinds) else pl.Int64()
    times = [kind for kind in kinds if isinstance(kind, pl.Datetime)]
    unit: Literal["ns", "us"] = "ns" if any(kind.time_unit == "ns" for kind in times) else "us"
    if times and len(times) == len(kinds) and all(kind.time_zone for kind in times):
        return pl.Datetime(unit, "UTC")
    if times and all(kind == pl.Date or (isinstance(kind, pl.Datetime) and not kind.time_zone) for kind in kinds):
        return pl.Datetime(unit)
    return pl.String()


@dataclass(frozen=True)
class _Given:
    """The rows of the user's file that name a sample, and what was left out."""

    frame: pl.DataFrame
    notices: tuple[str, ...]


def _together(every: Sequence[_Given]) -> _Given | None:
    """The rows of several files, those of the last at the end."""
    if len(every) < 2:
        return every[0] if every else None
    dtypes: dict[str, set[pl.DataType]] = {}
    for name, dtype in (item for one in every for item in one.frame.schema.items()):
        dtypes.setdefault(name, set()).add(dtype)
    kinds = {name: _common(found - {pl.Null()}) for name, found in dtypes.items()}
    frames = [_of_kinds(one.frame, kinds)[0] for one in every]
    return _Given(pl.concat(frames, how="diagonal"), tuple(words for one in every for words in one.notices))


def _of_file(file: Path, kind: pl.DataType) -> _Given:
    """The facts of a file.

    Raises:
        XaiError: It cannot be read, has no sample ids, or none of the run's kind.
    """
    try:
        found = read_fact_file(file, "int64" if kind.is_integer() else "string")
    except XaiError as error:
        raise XaiError(f"--facts {error}", hint=error.hint) from error
    left_out = (f"{reason}: left out" for _, reason, _ in found.left_out)
    return _Given(_readable(found.table)[0], (*left_out, *found.notices))
