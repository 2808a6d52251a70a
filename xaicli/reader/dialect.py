"""SQL as it is typed, and as polars answers it as other engines do."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from xaicli.errors import UsageError

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.dialects.dialect import Dialect

_OPAQUE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
"""What no function and no bracket is in: texts, quoted names and comments."""
_SUMMING = re.compile(r"sum|avg|mean|std\w*|var|var_\w+|variance|corr|covar\w*", re.IGNORECASE)
_COUNTING = re.compile(r"(?:octet_|bit_|char_|character_|array_)?length|strpos|date_part", re.IGNORECASE)
_OF_DOUBLES = re.compile(r"power|pow|sqrt|cbrt|exp|ln|log2|log10", re.IGNORECASE)
"""Functions that give numbers of double precision in SQL, whatever they are given."""
_OF_WHOLE = re.compile(r"sum|min|max|abs|mod|coalesce|greatest|least", re.IGNORECASE)
"""Functions that give whole numbers where they are given such."""
_OTHERWISE = re.compile(
    r"/|\bbetween\b|\bis\s+(?:not\s+)?(?:true|false|unknown|distinct)\b|"
    rf"\b(?:round|extract|{_SUMMING.pattern}|{_COUNTING.pattern}|{_OF_DOUBLES.pattern})\s*\(",
    re.IGNORECASE,
)
"""What polars answers in another way: only a text with one of these is read, since sqlglot takes 0.1 s to import."""
_FRACTION = re.compile(r"\d\.\d|\.\d|\de-", re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*explain\b", re.IGNORECASE)


def opaque_blanked(sql: str) -> str:
    """The statement with a word in place of each text and quoted name, and nothing for comments; of the same length."""
    return _OPAQUE.sub(lambda match: ("_" if match[0][0] in "'\"" else " ") * len(match[0]), sql)


def for_polars(sql: str, whole: Collection[str] = (), *, condition: bool = False, single: Collection[str] = ()) -> str:
    """A statement that means to polars what it means to DuckDB.

    - Sums, means and spreads are in double precision and integers of 128 bits. Only what is summed is widened: a
      column that is compared, `loss = 0.1`, stays of the precision it is stored with.
    - Lengths, places and parts of dates are integers of 64 bits. To polars a length is of 32 bits without a sign, and
      a month of 8: `length(name) - 9` and `month(day) * 100` begin again at the other end.
    - Quotients, powers, roots and the like are in double precision. To polars 1.0 is a decimal of one place, whose
      quotients are cut off: 1.0 / 3 * 3 is .9999999. Powers of whole numbers begin again at the other end there.
    - Numbers that lie halfway are rounded away from zero, not to the even neighbour.
    - `a BETWEEN b AND c` is `a >= b AND a <= c`: a number that is compared with a column of single precision is taken
      in that; polars takes bounds in double.
    - What IS [NOT] TRUE, FALSE or DISTINCT FROM something is never null.
    - `a // b` of numbers with a fraction is their quotient without its fraction, NaN and infinite where that is.
    - A number that is compared with a column of doubles that may hold numbers of single precision equals both itself
      and what it is rounded to in that: a label of 0.2 is 0.20000000298 as torch.float32 (see `words.is_same_number`).

    Args:
        sql: As it was typed.
        whole: The columns of whole numbers; each that is not named may have fractions.
        condition: Whether it is one, or any expression, and no statement.
        single: The columns of doubles that may hold numbers of single precision.

    Raises:
        UsageError: It cannot be read.
    """
    if not _OTHERWISE.search(opaque_blanked(sql)) and not (single and _FRACTION.search(sql)):
        return sql
    if plan := _EXPLAIN.match(sql):
        return f"{plan[0]} {for_polars(sql[plan.end() :], whole)}"
    from sqlglot import exp

    root = exp.Paren(this=_read(sql, condition=condition).copy())
    names, of_single = (frozenset(name.lower() for name in some) for some in (whole, single))
    for tell in (_bounded, lambda node: _told(node, names) or _of_single(node, of_single)):
        for node in reversed(list(root.walk())):  # what is within before what it is in
            if (told := tell(node)) is not None:
                node.replace(expression=told)
    return str(root.this.sql(_polars(), comments=False))


def cuts_fractions(sql: str, whole: Collection[str]) -> bool:
    """Whether a statement has `a // b` of numbers with fractions, which to DuckDB is a / b.

    Args:
        sql: As it was typed.
        whole: The columns of whole numbers.
    """
    from sqlglot import exp

    names = frozenset(name.lower() for name in whole)
    try:
        found = _read(sql[plan.end() if (plan := _EXPLAIN.match(sql)) else 0 :]).find_all(exp.IntDiv)
    except UsageError:  # not to be read here is not to be asked there
        return False
    return any(not _is_whole(node, names) for node in found)


@lru_cache(maxsize=64)
def _read(sql: str, *, condition: bool = False) -> exp.Expr:
    """What a statement or a condition is made of, not to be changed.

    Raises:
        UsageError: It cannot be read.
    """
    import sqlglot
    from sqlglot import exp

    try:
        return sqlglot.parse_one(sql, read=_polars(), into=exp.Expr if condition else None)
    except sqlglot.errors.ParseError as error:
        said = "{description}, at {highlight!r}".format_map(error.errors[0]) if error.errors else str(error)
    except sqlglot.errors.SqlglotError as error:
        said = str(error).splitlines()[0]
    except RecursionError:
        said = "brackets in too many brackets"
    hint = 'a name that is a word of SQL too is quoted: "map"'
    raise UsageError(f"{sql.strip()[:60]!r} cannot be read as SQL: {said}", hint=hint)


@cache
def _polars() -> type[Dialect]:
    """SQL of polars: DuckDB's, with every function called as it is typed."""
    from sqlglot import exp
    from sqlglot.dialects.duckdb import DuckDB
    from sqlglot.generators.duckdb import DuckDBGenerator
    from sqlglot.parsers.duckdb import DuckDBParser

    apart = ("CAST", "TRY_CAST", "EXTRACT", "POSITION", "SUBSTRING")
    operators = {exp.RegexpLike: "~", exp.RegexpILike: "~*"}

    class Polars(DuckDB):
        class Parser(DuckDBParser):
            FUNCTIONS: ClassVar[dict[str, Any]] = {}
            FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {name: DuckDBParser.FUNCTION_PARSERS[name] for name in apart}
            NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
                "CASE": DuckDBParser.NO_PAREN_FUNCTION_PARSERS["CASE"]
            }

        class Generator(DuckDBGenerator):
            TRANSFORMS: ClassVar[dict[Any, Any]] = {
                **DuckDBGenerator.TRANSFORMS,
                **{kind: lambda self, node: self.binary(node, operators[type(node)]) for kind in operators},
            }

    return Polars


def _bounded(node: exp.Expr) -> exp.Expr | None:
    """What stands in place of one value between two others."""
    from sqlglot import exp

    if not isinstance(node, exp.Between) or node.args.get("symmetric"):
        return None
    return _made("(x >= low AND x <= high)", x=node.this, low=node.args["low"], high=node.args["high"])


def _of_single(node: exp.Expr, single: frozenset[str]) -> exp.Expr | None:
    """What stands in place of a column's comparison with a number that single precision rounds."""
    from sqlglot import exp

    if not isinstance(node, exp.Binary | exp.In):
        return None
    others = node.expressions if isinstance(node, exp.In) else [node.expression]
    sides = [side.unnest() for side in (node.this, *others)]
    columns = [side for side in sides if isinstance(side, exp.Column) and side.name.lower() in single]
    rounded = [short for side in sides if (short := _in_single(side)) is not None]
    if not columns or not rounded:
        return None
    x, short = columns[0], rounded[0]
    match node:
        case exp.In():
            told = node.copy()
            told.set("expressions", [*told.expressions, *rounded])
            return told
        case exp.EQ() | exp.GTE() | exp.LTE():
            return _made("(n OR x = s)", n=node, x=x, s=short)
        case exp.NEQ() | exp.GT() | exp.LT():
            return _made("(n AND x <> s)", n=node, x=x, s=short)
    return None


def _in_single(node: exp.Expr) -> exp.Expr | None:
    """What a number is rounded to in single precision, where that is another."""
    from sqlglot import exp

    if isinstance(node, exp.Neg):
        return exp.Neg(this=positive) if (positive := _in_single(node.this)) else None
    if not isinstance(node, exp.Literal) or node.is_string:
        return None
    try:
        (short,) = struct.unpack("f", struct.pack("f", float(node.this)))
    except (OverflowError, ValueError):  # beyond single precision
        return None
    return exp.Literal.number(f"{short:.17e}") if short != float(node.this) else None


def _told(node: exp.Expr, whole: frozenset[str]) -> exp.Expr | None:
    """What stands in place of a part of a statement, whose own parts are told already; None where it stays."""
    from sqlglot import exp

    match node:
        case exp.Is(expression=exp.Boolean()) | exp.NullSafeEQ():
            return _made("((x) IS NOT DISTINCT FROM (y))", x=node.this, y=node.expression)
        case exp.NullSafeNEQ():
            return _made("(NOT ((x) IS NOT DISTINCT FROM (y)))", x=node.this, y=node.expression)
        case exp.Div():
            return _quotient(node)
        case exp.IntDiv() if not _is_whole(node, whole):
            return _made("TRUNC(x)", x=_quotient(node))
        case exp.Extract():
            return exp.cast(node.copy(), "BIGINT")
        case exp.Anonymous(this=str(name)):
            return _call(node, name)
    return None


def _call(node: exp.Anonymous, name: str) -> exp.Expr | None:
    """What stands in place of a function."""
    from sqlglot import exp

    if _COUNTING.fullmatch(name):
        return exp.cast(node.copy(), "BIGINT")
    if name.lower() == "round":
        return _rounded(node)
    if _SUMMING.fullmatch(name):
        template = "(x) + CAST(0 AS HUGEINT)"  # of single precision that is double, of integers 128 bits
    elif _OF_DOUBLES.fullmatch(name):
        template = "CAST(x AS DOUBLE)"
    else:
        return None
    told = node.copy()
    for given in told.expressions:
        for part in given.expressions if isinstance(given, exp.Distinct) else [given]:
            part.replace(expression=_made(template, x=part))
    return told


def _quotient(node: exp.Binary) -> exp.Expr:
    """A quotient in double precision.

    By one value for all rows polars does not divide: it multiplies by 1 / value, and 49 * (1 / 49) is below 1. So
    nothing is added to each divisor, by row: the lesser of 0 and what is divided, without its sign.
    """
    from sqlglot import exp

    template = "(x * 1e0 / (y + LEAST(ABS(x * 1e0), 0e0)))" if node.this.find(exp.Column, exp.Func) else "(x * 1e0 / y)"
    return _made(template, x=node.this, y=node.expression)


def _rounded(node: exp.Anonymous) -> exp.Expr | None:
    """A number rounded; to polars what lies halfway above an even number is one too small."""
    from sqlglot import exp

    match node.expressions:
        case [x]:
            return _made("(CASE WHEN ABS(x) % 2e0 = 5e-1 THEN ROUND(x) + SIGN(x) ELSE ROUND(x) END)", x=x)
        case [x, exp.Literal(this=digits)] if digits.isdecimal():
            halfway = f"ABS(x * 1e{digits}) % 2e0 = 5e-1"
            away = f"(ROUND(x * 1e{digits}) + SIGN(x)) / 1e{digits}"
            return _made(f"(CASE WHEN {halfway} THEN {away} ELSE ROUND(x, {digits}) END)", x=x)
    return None


def _is_whole(node: exp.Expr, whole: frozenset[str]) -> bool:
    """Whether an expression is of whole numbers only."""
    from sqlglot import exp

    match node:
        case exp.Column():
            return node.name.lower() in whole
        case exp.Literal():
            return not node.is_string and node.this.isdecimal()
        case exp.Cast():
            return node.is_type(*exp.DataType.INTEGER_TYPES)
        case exp.Anonymous(this=str(name)):
            of_whole = bool(_OF_WHOLE.fullmatch(name)) and all(_is_whole(part, whole) for part in node.expressions)
            return of_whole or bool(_COUNTING.fullmatch(name)) or name.lower() == "count"
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Mod() | exp.IntDiv():
            return _is_whole(node.this, whole) and _is_whole(node.expression, whole)
        case exp.Paren() | exp.Neg() | exp.Filter() | exp.Window() | exp.Distinct():
            return all(_is_whole(part, whole) for part in node.expressions or [node.this])
    return False


def _made(template: str, **parts: exp.Expr) -> exp.Expr:
    """An expression with parts in place of the names in it."""
    from sqlglot import exp

    def filled(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column) or node.name not in parts:
            return node
        part = parts[node.name].copy()
        return part if isinstance(node.parent, exp.Paren) else exp.Paren(this=part)

    return _read(template, condition=True).transform(filled)
