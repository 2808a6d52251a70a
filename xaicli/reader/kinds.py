"""What kinds of values SQL is about: of columns, and of what a statement makes of them."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from sqlglot import exp

SUMMING = re.compile(r"sum|avg|mean|std\w*|var|var_\w+|variance|corr|covar\w*", re.IGNORECASE)
COUNTING = re.compile(r"(?:octet_|bit_|char_|character_|array_)?length|strpos|date_part", re.IGNORECASE)
OF_DOUBLES = re.compile(r"power|pow|sqrt|cbrt|exp|ln|log2|log10", re.IGNORECASE)
"""Functions that give numbers of double precision in SQL, whatever they are given."""
AGGREGATES = re.compile(
    rf"{SUMMING.pattern}|count|min|max|median|quantile\w*|first|last|(?:array|string|list)_agg|list|mode|bool_\w+|any_value",
    re.IGNORECASE,
)
"""Functions that look at several rows at once."""
_OF_FRACTIONS = re.compile(
    rf"(?!sum$)(?:{SUMMING.pattern})|{OF_DOUBLES.pattern}|median|log|quantile_cont", re.IGNORECASE
)
_OF_WHOLE = re.compile(
    rf"{COUNTING.pattern}|count|(?:dense_)?rank|row_number|ntile|year|quarter|month|week|day|hour|minute|second|"
    r"day(?:of)?\w+",
    re.IGNORECASE,
)
_OF_TEXTS = re.compile(
    r"lower|upper|initcap|left|right|substr|[lr]?trim|replace|reverse|concat(?:_ws)?|split_part|lpad|rpad|strftime|"
    r"string_agg|regexp_replace",
    re.IGNORECASE,
)
_OF_TRUTHS = re.compile(r"starts_with|ends_with|regexp_like|bool_and|bool_or", re.IGNORECASE)
_AS_GIVEN = re.compile(
    r"sum|min|max|abs|mod|coalesce|greatest|least|first|last|first_value|last_value|lag|lead|nullif|ifnull|if|any_value|"
    r"quantile_disc",
    re.IGNORECASE,
)
"""Functions that give what they are given."""
_FRACTIONS_AS_GIVEN = re.compile(r"round|floor|ceil|ceiling|trunc|sin|cos|tan|atan2?|degrees|radians", re.IGNORECASE)
_OF_FIRST = re.compile(r"lag|lead|nullif", re.IGNORECASE)


class Kind(enum.Enum):
    """What values are."""

    WHOLE = "whole numbers"
    FRACTION = "numbers with fractions"
    TEXT = "texts"
    TRUTH = "true and false"
    DATE = "dates"
    TIME = "times"
    ZONED = "times with a zone"
    CLOCK = "times of day"
    SPAN = "times between two"

    @property
    def words(self) -> str:
        """What one of them is."""
        return _WORDS[self]


_WORDS = {
    Kind.WHOLE: "a number",
    Kind.FRACTION: "a number",
    Kind.TEXT: "text",
    Kind.TRUTH: "true or false",
    Kind.DATE: "a date",
    Kind.TIME: "a time",
    Kind.ZONED: "a time with a zone",
    Kind.CLOCK: "a time of day",
    Kind.SPAN: "a time between two",
}
_OF_DTYPES = {
    pl.String: Kind.TEXT,
    pl.Boolean: Kind.TRUTH,
    pl.Date: Kind.DATE,
    pl.Time: Kind.CLOCK,
    pl.Duration: Kind.SPAN,
}
NUMBERS = frozenset({Kind.WHOLE, Kind.FRACTION})
MOMENTS = frozenset({Kind.DATE, Kind.TIME, Kind.ZONED})
TEMPORAL = MOMENTS | {Kind.CLOCK, Kind.SPAN}

OF_DATES = "a date is written DATE '2026-01-31'"
OF_ZONES = "a time with a zone is written TIMESTAMPTZ '2026-01-31 12:00:00+00:00'"
OF_TIMES = f"{OF_DATES}, a time between two dates INTERVAL '2 days'"


def kind_of(dtype: pl.DataType) -> Kind | None:
    """The kind of a column's values; None where it is none of these."""
    if dtype.is_numeric():
        return Kind.WHOLE if dtype.is_integer() else Kind.FRACTION
    if isinstance(dtype, pl.Datetime):
        return Kind.TIME if dtype.time_zone is None else Kind.ZONED
    return _OF_DTYPES.get(type(dtype))


def hint_of(kind: Kind, other: Kind, name: str) -> str:
    """What to write where a value is compared with one of another kind; "" where nothing is known to help.

    Args:
        kind: The kind of the value.
        other: What it is compared with.
        name: How the value is typed.
    """
    if kind is Kind.TEXT and other in TEMPORAL:
        return f"compare it with text, {name} > '2026-01-31', or, where each is such a date, DATE({name})"
    if kind is Kind.TEXT and other in NUMBERS:
        return f"a text is written in quotes: {name} = '5'; TRY_CAST({name} AS DOUBLE) is its number"
    if kind is Kind.TEXT:
        return f"a text is written in quotes: {name} = 'true'"
    if kind is Kind.TRUTH and other is Kind.TEXT:
        return f"true and false are written without quotes: {name} = true"
    if kind in NUMBERS and other is Kind.TEXT:
        return f"a number is written without quotes: {name} = 5"
    if kind is Kind.ZONED:
        return OF_ZONES
    return (OF_TIMES if other in NUMBERS else OF_DATES) if kind in TEMPORAL else ""


def common(kinds: Iterable[Kind | None]) -> Kind | None:
    """What values of several kinds are in one column; None where that is not known."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    if Kind.FRACTION in found and found <= {*NUMBERS, None}:
        return Kind.FRACTION
    return Kind.TIME if found == {Kind.DATE, Kind.TIME} else None


def kinds_of(schemas: Iterable[Mapping[str, pl.DataType]]) -> dict[str, Kind]:
    """The kinds of columns, by their names in lower case; what several tables have is what it is in all of them."""
    found: dict[str, set[Kind | None]] = {}
    for name, dtype in (item for schema in schemas for item in schema.items()):
        found.setdefault(name.lower(), set()).add(kind_of(dtype))
    return {name: kind for name, of in found.items() if (kind := common(of)) is not None}


@dataclass(frozen=True)
class Kinds:
    """Of what kind the names of a statement are, and what is made of them.

    Attributes:
        columns: The kinds of columns, by their names in lower case.
        own: What the statement calls by names of its own.
    """

    columns: Mapping[str, Kind]
    own: Mapping[str, Sequence[exp.Expr]]

    @classmethod
    def of(cls, root: exp.Expr, columns: Mapping[str, Kind]) -> Kinds:
        """The names, of a statement that is not yet told in another way."""
        from sqlglot import exp

        own: dict[str, list[exp.Expr]] = {}
        for alias in root.find_all(exp.Alias):
            name = alias.alias.lower()
            if name not in columns or alias.find_ancestor(exp.CTE, exp.Subquery):  # a name of rows that are read from
                own.setdefault(name, []).append(alias.this.copy())
        for table in root.find_all(exp.TableAlias):
            selected = table.parent.this if table.parent else None
            for name, given in zip(table.columns, getattr(selected, "selects", ()), strict=False):
                own.setdefault(name.name.lower(), []).append(given.unalias().copy())
        return cls(columns, own)

    def kind(self, node: exp.Expr | None, seen: frozenset[str] = frozenset()) -> Kind | None:
        """The kind of an expression's values; None where it is not known."""
        from sqlglot import exp

        for types, kind in _always():
            if isinstance(node, types):
                return kind
        match node:
            case exp.Column():
                name = node.name.lower()
                own = [] if name in seen else self.own.get(name, [])
                found = [self.kind(given, seen | {name}) for given in own]
                return common([*found, *([self.columns[name]] if name in self.columns else [])] or [None])
            case exp.Literal():
                number = Kind.WHOLE if node.this.isdecimal() else Kind.FRACTION
                return Kind.TEXT if node.is_string else number
            case exp.Cast():
                return _of_type(node)
            case exp.Extract():
                return Kind.FRACTION if node.name.lower() == "epoch" else Kind.WHOLE
            case exp.Anonymous(this=str(name)):
                return self._called(name, node.expressions, seen)
            case exp.Case():
                results = [part.args["true"] for part in node.args["ifs"]]
                return self._common([*results, node.args.get("default")], seen)
            case exp.Subquery(this=exp.Select(expressions=[only])):
                return self.kind(only.unalias(), seen)
            case exp.Binary():
                return _calculated(node, self.kind(node.this, seen), self.kind(node.expression, seen))
            case exp.Paren() | exp.Neg() | exp.Filter() | exp.Window() | exp.Distinct():
                return self._common(node.expressions or [node.this], seen)
        return None

    def are_days(self, node: exp.Expr) -> bool:
        """Whether an expression is a date minus a date, which may be compared with a time between two as well."""
        from sqlglot import exp

        of_dates = node.unnest()
        if not isinstance(of_dates, exp.Sub):
            return False
        return self.kind(of_dates.this) is self.kind(of_dates.expression) is Kind.DATE

    def _common(self, parts: Sequence[exp.Expr | None], seen: frozenset[str]) -> Kind | None:
        from sqlglot import exp

        return common({self.kind(part, seen) for part in parts if part and not isinstance(part, exp.Null)} or {None})

    def _called(self, name: str, given: Sequence[exp.Expr], seen: frozenset[str]) -> Kind | None:
        """The kind of what a function gives."""
        if _OF_FRACTIONS.fullmatch(name):
            of = self._common(given, seen)
            return Kind.TIME if of in MOMENTS else Kind.SPAN if of is Kind.SPAN else Kind.FRACTION
        for gives, kind in ((_OF_WHOLE, Kind.WHOLE), (_OF_TEXTS, Kind.TEXT), (_OF_TRUTHS, Kind.TRUTH)):
            if gives.fullmatch(name):
                return kind
        if _AS_GIVEN.fullmatch(name):
            parts = given[:1] if _OF_FIRST.fullmatch(name) else given[1:] if name.lower() == "if" else given
            of = self._common(parts, seen)
            return Kind.WHOLE if of is Kind.TRUTH and name.lower() == "sum" else of
        if _FRACTIONS_AS_GIVEN.fullmatch(name):
            return Kind.FRACTION if Kind.FRACTION in [self.kind(part, seen) for part in given] else None
        return {"date": Kind.DATE, "date_trunc": Kind.TIME}.get(name.lower())


@cache
def _always() -> tuple[tuple[tuple[type[exp.Expr], ...], Kind | None], ...]:
    """What is of one kind, whatever it is made of."""
    from sqlglot import exp

    return (
        ((exp.Any, exp.All), None),
        ((exp.Predicate, exp.Connector, exp.Not, exp.Boolean), Kind.TRUTH),
        ((exp.DPipe,), Kind.TEXT),
        ((exp.Pow,), Kind.FRACTION),
        ((exp.Interval,), Kind.SPAN),
        ((exp.CurrentDate,), Kind.DATE),
    )


def _of_type(node: exp.Cast) -> Kind | None:
    from sqlglot import exp

    kind = exp.DType
    for types, of in (
        (exp.DataType.INTEGER_TYPES, Kind.WHOLE),
        (exp.DataType.REAL_TYPES, Kind.FRACTION),
        (exp.DataType.TEXT_TYPES, Kind.TEXT),
        ({kind.BOOLEAN}, Kind.TRUTH),
        ({kind.DATE}, Kind.DATE),
        ({kind.TIMESTAMP, kind.TIMESTAMPNTZ, kind.DATETIME}, Kind.TIME),
        ({kind.TIMESTAMPTZ}, Kind.ZONED),
        ({kind.TIME}, Kind.CLOCK),
        ({kind.INTERVAL}, Kind.SPAN),
    ):
        if node.is_type(*types):
            return of
    return None


def _calculated(node: exp.Binary, left: Kind | None, right: Kind | None) -> Kind | None:
    """The kind of a sum, a difference, a product or a quotient, or of bits."""
    from sqlglot import exp

    both = {left, right}
    if both & TEMPORAL:
        if Kind.CLOCK in both:
            return None
        if isinstance(node, exp.Mul | exp.Div):
            return Kind.SPAN if Kind.SPAN in both else None
        if both <= MOMENTS:
            dates = both == {Kind.DATE} and isinstance(node, exp.Sub)
            return Kind.WHOLE if dates else Kind.SPAN  # days are counted
        moments = both & MOMENTS
        if not moments or None in both:
            return Kind.SPAN if both == {Kind.SPAN} else None
        (moment,), (other,) = moments, both - moments
        if other is Kind.SPAN:
            return Kind.TIME if moment is Kind.DATE else moment
        return Kind.DATE if both == {Kind.DATE, Kind.WHOLE} else None
    return Kind.FRACTION if isinstance(node, exp.Div) else common(both)
