"""A condition on rows, as the SQL of a WHERE clause: which of the rows that count are asked about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from xaicli.errors import UsageError
from xaicli.reader.pieces import Place
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK

PLACED = {MODE: pl.String(), DS_ID: pl.String(), EPOCH: pl.Int32()}
"""What a condition can name beside the columns of the rows: where a row lies."""
_STARTS = {ATTEMPT: pl.Int16(), RANK: pl.Int16()}
_SHOWN = 30
_QUOTED = re.compile(r'"[^"]*"')
_OF_SEVERAL = re.compile(
    r"\.(max|min|sum|mean|median|std|var|first|last|count|n_unique|quantile|over|shift|rank|diff|cum_\w+|int_range)\("
    r"|\blen\(\)"
)
"""Polars' names of what looks at more than one row; its own `is_row_separable` overlooks it within a comparison."""


@dataclass(frozen=True)
class Where:
    """A condition that each row meets or not by itself.

    Attributes:
        text: As it was typed.
        columns: The columns it names.
        expr: The condition; null counts as not met.
    """

    text: str
    columns: tuple[str, ...]
    expr: pl.Expr

    @classmethod
    def of(cls, text: str, dtypes: Mapping[str, pl.DataType]) -> Where:
        """Read a condition.

        Args:
            text: SQL as it follows WHERE.
            dtypes: The columns there are, beside those of `PLACED`, attempt and rank.

        Raises:
            UsageError: It is none, names no such column, compares what cannot be compared, or is about several rows.
        """
        schema = pl.Schema({**dtypes, **PLACED, **_STARTS})
        columns = f"columns: {', '.join(list(schema)[:_SHOWN])}"
        try:
            expr = pl.sql_expr(text)
            kind = pl.LazyFrame(schema=schema).select(expr).collect_schema().dtypes()
            pl.DataFrame(schema=schema).select(expr)
        except pl.exceptions.PolarsError as error:
            said = str(error).strip().splitlines()[0]
            raise UsageError(f"--where {text!r} cannot be asked: {said}", hint=columns) from None
        if kind != [pl.Boolean()]:
            raise UsageError(f"--where {text!r} is no condition", hint=f"--where 'loss > 2 AND label = 3'; {columns}")
        if _OF_SEVERAL.search(_QUOTED.sub("", str(expr))):
            raise UsageError(f"--where {text!r} is about several rows at once", hint="xai query takes any SQL")
        return cls(text, tuple(dict.fromkeys(expr.meta.root_names())), expr)

    @property
    def stored(self) -> list[str]:
        """The columns that it needs of the rows themselves."""
        return [name for name in self.columns if name not in PLACED]

    def rows(self, frame: pl.DataFrame, place: Place) -> pl.DataFrame:
        """The rows of a place that meet the condition, with the frame's columns."""
        return self.lazily(frame.lazy(), place).select(frame.columns).collect()

    def lazily(self, rows: pl.LazyFrame, place: Place) -> pl.LazyFrame:
        """The same of rows that are read later; columns of `PLACED` come with them."""
        known = {MODE: place.mode, DS_ID: place.ds_id, EPOCH: place.epoch}
        placed = [pl.lit(known[name], PLACED[name]).alias(name) for name in self.columns if name in PLACED]
        return rows.with_columns(placed).filter(self.expr)
