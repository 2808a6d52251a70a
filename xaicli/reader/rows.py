"""Rows as frames: of one schema, counted, each sample once, those that meet a condition."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from xaicli.errors import UsageError, XaiError, alike
from xaicli.reader.dialect import for_polars
from xaicli.reader.kinds import NUMBERS, OF_DATES, OF_ZONES, TEMPORAL, Kind, hint_of, kind_of, kinds_of
from xaicli.reader.pieces import Place
from xaicli.tables.labels import in_order_apart
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, LABEL, MODE, PREDICTION, RANK, SAMPLE_ID, STEP, Duplicates


@dataclass
class Tally:
    """Counts that grow while a query reads."""

    rows: int = 0
    """Rows that count: fenced rows and resolved duplicates are not among them."""
    non_finite: int = 0
    """NaN and infinite values among the metrics read."""
    duplicates: int = 0
    """Rows beyond the first of one (mode, ds_id, epoch, sample_id)."""
    unlabelled: int = 0
    """Rows without a label, counted where a question is about labels."""
    valueless: int = 0
    """Values that rows with a label lack of the metrics asked for, finite ones, counted where a question is of them."""

    def add(self, other: Tally) -> None:
        """Count what another tally has counted, too."""
        self.rows += other.rows
        self.non_finite += other.non_finite
        self.duplicates += other.duplicates
        self.unlabelled += other.unlabelled
        self.valueless += other.valueless


_DTYPES: dict[str, pl.DataType] = {
    "bool": pl.Boolean(),
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "uint8": pl.UInt8(),
    "float": pl.Float32(),
    "float32": pl.Float32(),
    "double": pl.Float64(),
    "float64": pl.Float64(),
    "halffloat": pl.Float16(),
    "string": pl.String(),
    "large_string": pl.String(),
    "binary": pl.Binary(),
}


def dtype_of(arrow_name: str) -> pl.DataType:
    """The polars type of a column, by Arrow's name of its type; dictionaries count as their values."""
    if arrow_name.startswith("dictionary<"):
        values = arrow_name.removeprefix("dictionary<values=").partition(",")[0]
        return dtype_of(values)
    if arrow_name.startswith(("list<", "fixed_size_list<", "large_list<")):
        inner = arrow_name.partition("<")[2].rpartition(">")[0].removesuffix(" not null")
        name, colon, value = inner.partition(": ")  # a list's values may or may not be named
        return pl.List(dtype_of(value if colon and "<" not in name else inner))
    return _DTYPES.get(arrow_name, pl.String())


def conform(frame: pl.DataFrame, columns: Sequence[str], dtypes: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The frame with exactly these columns: absent ones null, dictionaries as their values, other types untouched.

    Args:
        frame: Rows of one file.
        columns: The columns of the result, in order.
        dtypes: The type of a column no file has yet.
    """
    present = frame.schema
    texts = [name for name in columns if present.get(name) in (pl.Categorical, pl.Enum)]
    absent = [pl.lit(None, dtype=dtypes.get(name, pl.Null())).alias(name) for name in columns if name not in present]
    if texts or absent:
        frame = frame.with_columns(*(pl.col(name).cast(pl.String) for name in texts), *absent)
    return frame if frame.columns == list(columns) else frame.select(columns)


def finite(frame: pl.DataFrame, metrics: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """The frame with non-finite metric values replaced by null, and how many there were."""
    floats = [name for name in metrics if name in frame.columns and frame.schema[name].is_float()]
    if not floats:
        return frame, 0
    found = frame.select((~pl.col(name).is_finite()).sum() for name in floats).row(0)
    non_finite = [name for name, n in zip(floats, found, strict=True) if n]
    return frame.with_columns(pl.when(pl.col(n).is_finite()).then(pl.col(n)).alias(n) for n in non_finite), sum(found)


_SPREAD = 8
"""Ids whose range is at most this many times their number are marked in a table instead of hashed."""


def count_duplicates(ids: pl.Series) -> int:
    """How many of the ids repeat an earlier one.

    Args:
        ids: The `sample_id` column of one place, any order.
    """
    if len(ids) < 2:
        return 0
    if ids.dtype.is_integer() and not ids.null_count():
        values = ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < max(_SPREAD * len(ids), 1024):
            seen = np.zeros(high - low + 1, dtype=np.bool_)
            seen[values - low] = True
            return len(ids) - int(np.count_nonzero(seen))
    return len(ids) - ids.n_unique()


def that_count(frame: pl.DataFrame, duplicates: Duplicates) -> pl.DataFrame:
    """The rows of one place in which samples repeat, by (attempt, step, rank, order): all, or the last of each sample.

    Args:
        frame: The rows, those of each rank in the order it logged them in, with `attempt`, `step` and `rank`.
    """
    ordered = frame.sort(ATTEMPT, STEP, RANK, maintain_order=True)
    return ordered if duplicates is Duplicates.ALL else ordered.unique(SAMPLE_ID, keep="last", maintain_order=True)


def refuse_duplicates(ids: pl.Series, duplicates: Duplicates, place: Place, run: str) -> None:
    """Raise when duplicates are there and must not be, in a run of this name.

    Raises:
        XaiError: `duplicates` is `error`; names one sample that repeats.
    """
    if duplicates is not Duplicates.ERROR:
        return
    first = ids.filter(ids.is_duplicated()).min()
    raise XaiError(
        f"sample {first!r} was logged more than once in {place.mode}"
        + (f" {place.ds_id}" if place.ds_id else "")
        + f", epoch {place.epoch}"
        + (f", pass {place.turn}" if place.turn else "")
        + f", of {run}",
        hint="--duplicates last takes the last row of each sample, all takes every row",
    )


def name_columns(dtypes: Mapping[str, pl.DataType], names: Sequence[str]) -> dict[str, str]:
    """{`label_name` or `prediction_name`: the column of codes}, of the columns whose codes have names.

    Args:
        dtypes: The columns there are; one that is called so, however spelt, is meant itself.
        names: The names of labels 0, 1, 2, ...
    """
    taken = {name.lower() for name in dtypes}
    return {
        f"{code}_name": code
        for code in (LABEL, PREDICTION)
        if names and f"{code}_name" not in taken and code in dtypes and dtypes[code].is_integer()
    }


def names_of(code: str, names: Sequence[str]) -> pl.Expr:
    """The names of a column of codes, as tables print them; null where a code has none."""
    codes, told = pl.int_range(0, len(names), eager=True), pl.Series(in_order_apart(names), dtype=pl.String)
    return pl.col(code).replace_strict(codes, told, default=None, return_dtype=pl.String)


def _refuse_shared(text: str, names: Sequence[str]) -> None:
    """
    Raises:
        UsageError: A condition on names of labels has one that several labels share, which is none of theirs.
    """
    apart = in_order_apart(names)
    for typed in _TYPED.findall(text):
        name = typed[1:-1].replace("''", "'")
        if name not in apart and name in names:
            of_it = [f"'{own}'" for own, shared in zip(apart, names, strict=True) if shared == name]
            raise UsageError(f"--where {text!r}: {len(of_it)} labels are called {name}", hint=" or ".join(of_it))


MISSING = re.compile(r'unable to find column "(.*?)"; valid columns')
"""How polars says that there is no such column."""


def no_column(name: str, known: Iterable[str]) -> tuple[str, str]:
    """What to say of a column that is not there, and of those that are."""
    names = list(known)
    close = alike(name, names)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"there is no column {name}", f"{meant}columns: {', '.join(names[:_SHOWN])}"


PLACED = {MODE: pl.String(), DS_ID: pl.String(), EPOCH: pl.Int32()}
"""What a condition can name beside the columns of the rows: where a row lies."""
STARTS = {ATTEMPT: pl.Int16(), RANK: pl.Int16()}
"""What it can name of a run: who logged a row."""
_SHOWN = 30
_DATES = "date/datetime/time"
"""What polars says where a date is compared with a text."""
_UNCAST = re.compile(r"(?:conversion|casting) from .*")
_TYPED = re.compile(r"'(?:[^']|'')*'")
_QUOTED = re.compile(r'"[^"]*"')
_OF_SEVERAL = re.compile(
    r"\.(max|min|sum|mean|median|std|var|first|last|count|n_unique|quantile|over|shift|rank|diff|cum_\w+|int_range)\("
    r"|\blen\(\)"
)
"""Polars' names of what looks at more than one row; its own `is_row_separable` overlooks it within a comparison."""


def _nodes(expr: pl.Expr) -> Iterator[pl.Expr]:
    """An expression and what it is made of."""
    yield expr
    for part in expr.meta.pop():
        yield from _nodes(part)


def _dtype(expr: pl.Expr, schema: pl.Schema) -> pl.DataType | None:
    """Of what type an expression is; None where polars cannot answer it."""
    try:
        return pl.DataFrame(schema=schema).select(expr).dtypes[0]
    except pl.exceptions.PolarsError:
        return None


def _kind(dtype: pl.DataType) -> Kind | None:
    return _kind(pl.Series(dtype=dtype).explode().dtype) if isinstance(dtype, pl.List) else kind_of(dtype)


def _of_kinds(expr: pl.Expr, schema: pl.Schema, cell: Callable[[str], Any]) -> tuple[str, str] | None:
    """Why values of two kinds cannot be compared, and what to write instead; None where it is for another reason.

    Polars answers some such comparisons: dates are the days since 1970 to it, and a text is never a number.

    Args:
        expr: The condition.
        schema: The columns there are.
        cell: A value of a column, None where none is known.
    """
    for node in _nodes(expr):
        parts = node.meta.pop()
        dtypes = {str(part): dtype for part in parts if (dtype := _dtype(part, schema)) is not None}
        if len(dtypes) < len(parts) or not parts:
            continue
        kinds = {said: _kind(dtype) for said, dtype in dtypes.items()}
        whole, of = _dtype(node, schema), {*kinds.values()}
        of_texts = Kind.TEXT in of and not of.isdisjoint({Kind.TRUTH, *NUMBERS})
        of_times = not of.isdisjoint(TEMPORAL) and not of.isdisjoint(NUMBERS)
        is_list = {bool(part.meta.root_names()): isinstance(dtypes[str(part)], pl.List) for part in parts}
        of_lists = is_list.get(True, False) and is_list.keys() == {True, False} and ".list." not in str(node)
        if whole is not None and not (whole == pl.Boolean() and (of_texts or of_times or of_lists)):
            continue
        columns = [part for part in parts if part.meta.root_names()]
        if not columns:
            return None
        (name, *_), kind = columns[-1].meta.root_names(), kinds[str(columns[-1])]
        called = name if columns[-1].meta.is_column() else f"what is made of {name}"
        shown = name if re.fullmatch(r"[A-Za-z_]\w*", name) else f'"{name}"'
        if (of_lists or of_texts) and isinstance(dtypes[str(columns[-1])], pl.List):
            one, what = "'a'" if kind is Kind.TEXT else "1", "set" if name in (LABEL, PREDICTION) else "list"
            said = f"{called} is a {what} of {kind.value if kind else 'values'}, not one value"
            return said, f"array_contains({shown}, {one}) asks whether {one} is in it"
        if kind and ".str." in str(node).removeprefix(str(columns[-1])) and kind is not Kind.TEXT:
            return f"{called} is {kind.words}, and only texts are asked so", f"CAST({shown} AS TEXT) is it as text"
        others = [one for said, one in kinds.items() if said != str(columns[-1])]
        if kind is None or None in others:
            return None
        other = next((one for one in others if one and one.words != kind.words), None)
        if other is None or not (hint := hint_of(kind, other, shown)):
            return None
        value = cell(name) if kind is Kind.TEXT and columns[-1].meta.is_column() else None
        such = "" if value is None else f", {str(value)[:_SHOWN]!r} say"
        return f"{called} is {kind.words}{such}, and is compared with {other.words}", hint
    return None


def _asked(text: str, told: str, schema: pl.Schema, cell: Callable[[str], Any]) -> pl.Expr:
    """A condition as polars has it.

    Args:
        text: As it was typed.
        told: As polars understands it.
        schema: The columns there are.
        cell: A value of a column, None where none is known.

    Raises:
        UsageError: It cannot be asked, or compares values of two kinds.
    """
    expr, said = None, ""
    try:
        expr = pl.sql_expr(told)
        pl.LazyFrame(schema=schema).select(expr).collect_schema()
        pl.DataFrame(schema=schema).select(expr)
    except pl.exceptions.PolarsError as error:
        said = str(error).strip().splitlines()[0]
    why = None if expr is None else _of_kinds(expr, schema, cell)
    if expr is not None and not said and why is None:
        return expr
    if why is None and (missing := MISSING.search(said)):
        why = no_column(missing[1], schema)
    of_zones = OF_ZONES if said.count("Datetime(") > 1 else f"columns: {', '.join(list(schema)[:_SHOWN])}"
    said, hint = why or (said, OF_DATES if _DATES in said else of_zones)
    raise UsageError(f"--where {text!r} cannot be asked: {said}", hint=hint)


@dataclass(frozen=True)
class Where:
    """A condition that each row meets or not by itself.

    Attributes:
        text: As it was typed.
        columns: The columns it names.
        expr: The condition; null counts as not met.
        named: Columns of names that it names, each with how it is made.
        codes: The columns of codes behind those.
    """

    text: str
    columns: tuple[str, ...]
    expr: pl.Expr
    named: Mapping[str, pl.Expr] = field(default_factory=dict)
    codes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        text: str,
        dtypes: Mapping[str, pl.DataType],
        label_names: Sequence[str] = (),
        cell: Callable[[str], Any] = lambda _: None,
    ) -> Where:
        """Read a condition.

        Args:
            text: SQL as it follows WHERE.
            dtypes: The columns there are, beside those of `PLACED`.
            label_names: The names of labels 0, 1, 2, ...; with them it can name `label_name` and `prediction_name`.
            cell: A value of a column, to show what it holds where it is compared with another kind.

        Raises:
            UsageError: It is none, names no such column, compares what cannot be compared, or is about several rows.
        """
        if not isinstance(text, str):
            raise UsageError(f"--where is SQL, not {type(text).__name__}", hint="--where 'loss > 2 AND label = 3'")
        if not text.strip():
            raise UsageError("--where names nothing", hint="leave it out for all rows")
        named = name_columns(dtypes, label_names)
        schema = pl.Schema({**dtypes, **PLACED, **dict.fromkeys(named, pl.String())})
        columns = f"columns: {', '.join(list(schema)[:_SHOWN])}"
        single = [name for name in (LABEL, PREDICTION) if schema.get(name) == pl.Float64()]
        expr = _asked(text, for_polars(text, kinds_of([schema]), condition=True, single=single), schema, cell)
        if not expr.meta.eq(expr.meta.undo_aliases()):
            said = f"{expr.meta.output_name()} behind the condition is none of it"
            raise UsageError(f"--where {text!r} cannot be asked: {said}", hint=columns)
        if _dtype(expr, schema) != pl.Boolean():
            raise UsageError(f"--where {text!r} is no condition", hint=f"--where 'loss > 2 AND label = 3'; {columns}")
        if _OF_SEVERAL.search(_QUOTED.sub("", str(expr))):
            raise UsageError(f"--where {text!r} is about several rows at once", hint="xai query takes any SQL")
        found = tuple(dict.fromkeys(expr.meta.root_names()))
        told = {name: names_of(code, label_names) for name, code in named.items() if name in found}
        if told and not any(schema[name] == pl.String() for name in found if name not in named):
            _refuse_shared(text, label_names)
        return cls(text, found, expr, told, tuple(named[name] for name in told))

    @property
    def stored(self) -> list[str]:
        """The columns that it needs of the rows themselves."""
        return [*self.codes, *(name for name in self.columns if name not in PLACED and name not in self.named)]

    def rows(self, frame: pl.DataFrame, place: Place) -> pl.DataFrame:
        """The rows of a place that meet the condition, with the frame's columns.

        Raises:
            UsageError: A value is none of the kind that the condition casts it to.
        """
        with self.answering():
            return self.lazily(frame.lazy(), place).select(frame.columns).collect()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Rows of `lazily` or `among` are collected: that a value cannot be cast shows only then.

        Raises:
            UsageError: A value is none of the kind that the condition casts it to.
        """
        try:
            yield
        except (pl.exceptions.InvalidOperationError, pl.exceptions.ComputeError) as error:
            # Asked of a file as it is read, it comes as a fault of the file.
            cast = _UNCAST.search(str(error))
            if cast is None and isinstance(error, pl.exceptions.ComputeError):
                raise
            said = cast[0] if cast else str(error).strip().splitlines()[0]
            hint = f"TRY_CAST(... AS INT) is missing where CAST cannot be; {OF_DATES}"
            raise UsageError(f"--where {self.text!r} cannot be asked: {said}", hint=hint) from error

    def lazily(self, rows: pl.LazyFrame, place: Place) -> pl.LazyFrame:
        """The same of rows that are read later; columns of `PLACED` come with them."""
        known = {MODE: place.mode, DS_ID: place.ds_id, EPOCH: place.epoch}
        placed = [pl.lit(known[name], PLACED[name]).alias(name) for name in self.columns if name in PLACED]
        return self.among(rows.with_columns(placed))

    def among(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The same of rows that say themselves where they lie."""
        return rows.with_columns(expr.alias(name) for name, expr in self.named.items()).filter(self.expr)
