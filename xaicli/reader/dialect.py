"""SQL as it is typed, and as polars answers it as other engines do."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
_OF_FRACTIONS = re.compile(
    rf"{_SUMMING.pattern}|{_OF_WHOLE.pattern}|{_OF_DOUBLES.pattern}|log|round|floor|ceil|ceiling|trunc|median|"
    r"quantile_\w+|first|last|nullif|ifnull|if|sin|cos|tan|atan2?|degrees|radians",
    re.IGNORECASE,
)
"""Functions that give a number with a fraction where they are given such."""
_WITHOUT_MISSING = re.compile(r"strpos|left|substr|ltrim|rtrim|replace|split_part", re.IGNORECASE)
"""Functions of texts that polars answers although something they are given is missing."""
_OTHERWISE = re.compile(
    r"/|::|\bbetween\b|\bis\s+(?:not\s+)?(?:true|false|unknown|distinct)\b|"
    rf"\b(?:round|extract|(?:try_)?cast|log|position|substring|{_WITHOUT_MISSING.pattern}|{_SUMMING.pattern}|"
    rf"{_COUNTING.pattern}|{_OF_DOUBLES.pattern})\s*\(",
    re.IGNORECASE,
)
"""What polars answers in another way: only a text with one of these is read, since sqlglot takes 0.1 s to import."""
_FRACTION = re.compile(r"\d\.\d|\.\d|\de-", re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*explain\b", re.IGNORECASE)


def opaque_blanked(sql: str) -> str:
    """The statement with a word in place of each text and quoted name, and nothing for comments; of the same length."""
    return _OPAQUE.sub(lambda match: ("_" if match[0][0] in "'\"" else " ") * len(match[0]), sql)


def for_polars(
    sql: str,
    whole: Collection[str] = (),
    fractions: Collection[str] = (),
    *,
    condition: bool = False,
    single: Collection[str] = (),
) -> str:
    """A statement that means to polars what it means to DuckDB.

    - Sums, means and spreads are in double precision and integers of 128 bits. Only what is summed is widened: a
      column that is compared, `loss = 0.1`, stays of the precision it is stored with.
    - Lengths, places and parts of dates are integers of 64 bits. To polars a length is of 32 bits without a sign, and
      a month of 8: `length(name) - 9` and `month(day) * 100` begin again at the other end.
    - Quotients, powers, roots and the like are in double precision. To polars 1.0 is a decimal of one place, whose
      quotients are cut off: 1.0 / 3 * 3 is .9999999. Powers of whole numbers begin again at the other end there.
    - Numbers that lie halfway are rounded away from zero, not to the even neighbour.
    - What is cast to whole numbers or decimals is rounded, halves of doubles to the even neighbour; polars cuts off.
    - The base of a logarithm comes first, and is 10 where none is given.
    - A place in a text that is missing, or a part of it up to a missing end, is missing; to polars it is 0, or all.
    - `a BETWEEN b AND c` is `a >= b AND a <= c`: a number that is compared with a column of single precision is taken
      in that; polars takes bounds in double.
    - What IS [NOT] TRUE, FALSE or DISTINCT FROM something is never null.
    - `a // b` of numbers with a fraction is their quotient without its fraction, NaN and infinite where that is.
    - A number that is compared with a column of doubles that may hold numbers of single precision equals both itself
      and what it is rounded to in that: a label of 0.2 is 0.20000000298 as torch.float32 (see `words.is_same_number`).

    Args:
        sql: As it was typed.
        whole: The columns of whole numbers; each that is not named may have fractions.
        fractions: The columns of numbers with fractions.
        condition: Whether it is one, or any expression, and no statement.
        single: The columns of doubles that may hold numbers of single precision.

    Raises:
        UsageError: It cannot be read.
    """
    if not _OTHERWISE.search(opaque_blanked(sql)) and not (single and _FRACTION.search(sql)):
        return sql
    if plan := _EXPLAIN.match(sql):
        return f"{plan[0]} {for_polars(sql[plan.end() :], whole, fractions)}"
    from sqlglot import exp

    root = exp.Paren(this=_read(sql, condition=condition).copy())
    of_whole, of_single = (frozenset(name.lower() for name in some) for some in (whole, single))
    named = _Named.of(root, fractions)
    for tell in (_bounded, lambda node: _told(node, of_whole, named) or _of_single(node, of_single)):
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


def _told(node: exp.Expr, whole: frozenset[str], named: _Named) -> exp.Expr | None:
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
        case exp.Cast() if named.has_fractions(node.this):
            return _cast(node)
        case exp.StrPosition(this=text, args={"substr": part}):
            return _call(exp.Anonymous(this="strpos", expressions=[text.copy(), part.copy()]), "strpos")
        case exp.Substring():
            return _unless_missing(node, [node.args[key] for key in ("start", "length") if node.args.get(key)])
        case exp.Extract():
            return exp.cast(node.copy(), "BIGINT")
        case exp.Anonymous(this=str(name)):
            return _call(node, name)
    return None


def _call(node: exp.Anonymous, name: str) -> exp.Expr | None:
    """What stands in place of a function."""
    from sqlglot import exp

    if _WITHOUT_MISSING.fullmatch(name):
        text, *others = node.expressions or [None]
        place = name.lower() == "strpos"
        call = exp.cast(node.copy(), "BIGINT") if place else node
        return _unless_missing(call, [text, *others] if place else others) or (call if place else None)
    if _COUNTING.fullmatch(name):
        return exp.cast(node.copy(), "BIGINT")
    if name.lower() == "round":
        return _rounded(*node.expressions)
    if name.lower() == "log" and len(node.expressions) in (1, 2):
        *base, x = node.expressions
        return _made("LOG(CAST(x AS DOUBLE), b)", x=x, b=base[0]) if base else _made("LOG10(CAST(x AS DOUBLE))", x=x)
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


def _unless_missing(call: exp.Expr, given: list[exp.Expr]) -> exp.Expr | None:
    """A call that is missing where something it is given is; None where that is all typed in."""
    from sqlglot import exp

    if not (there := [exp.not_(part.is_(exp.null())) for part in given if not isinstance(part, exp.Literal)]):
        return None
    return exp.Paren(this=exp.case().when(exp.and_(*there), call.copy()))


def _cast(node: exp.Cast) -> exp.Expr | None:
    """A number with a fraction as a whole number or a decimal; polars cuts off, or rounds decimals to the even one."""
    from sqlglot import exp

    told = node.copy()
    if node.is_type(*exp.DataType.INTEGER_TYPES):
        told.set("this", exp.func("ROUND", node.this.copy(), dialect=_polars()))
    elif node.is_type(exp.DataType.Type.DECIMAL):
        digits = [part.this for part in node.to.expressions[1:]] or [exp.Literal.number(0)]
        told.set("this", _rounded(node.this, *digits))
    else:
        return None
    return told


def _rounded(*given: exp.Expr) -> exp.Expr | None:
    """A number rounded; to polars what lies halfway above an even number is one too small, unless it is a decimal."""
    from sqlglot import exp

    match given:
        case [x]:
            return _made("(CASE WHEN ABS(x) % 2e0 = 5e-1 THEN TRUNC(x) + SIGN(x) ELSE ROUND(x) END)", x=x)
        case [x, exp.Literal(this=digits)] if digits.isdecimal():
            halfway = f"ABS(x * 1e{digits}) % 2e0 = 5e-1"
            away = f"ROUND((TRUNC(x * 1e{digits}) + SIGN(x)) / 1e{digits}, {digits})"
            return _made(f"(CASE WHEN {halfway} THEN {away} ELSE ROUND(x, {digits}) END)", x=x)
    return None


@dataclass(frozen=True)
class _Named:
    """What the names of a statement stand for.

    Attributes:
        fractions: The columns of numbers with fractions.
        own: What the statement calls by names of its own.
    """

    fractions: frozenset[str]
    own: Mapping[str, Sequence[exp.Expr]]

    @classmethod
    def of(cls, root: exp.Expr, fractions: Collection[str]) -> _Named:
        """The names, of a statement that is not yet told in another way."""
        from sqlglot import exp

        own: dict[str, list[exp.Expr]] = {}
        for alias in root.find_all(exp.Alias):
            own.setdefault(alias.alias.lower(), []).append(alias.this.copy())
        return cls(frozenset(name.lower() for name in fractions), own)

    def has_fractions(self, node: exp.Expr | None, seen: frozenset[str] = frozenset()) -> bool:
        """Whether an expression is known to be of numbers with fractions; never of a text, or of true and false."""
        from sqlglot import exp

        match node:
            case exp.Column():
                name = node.name.lower()
                own = [] if name in seen else self.own.get(name, [])
                known = all(self.has_fractions(given, seen | {name}) for given in own)
                return known and (name in self.fractions or bool(own))
            case exp.Literal():
                return not node.is_string and not node.this.isdecimal()
            case exp.Cast():
                return node.is_type(*exp.DataType.REAL_TYPES)
            case exp.Div():
                return True
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Mod() | exp.IntDiv():
                return self.has_fractions(node.this, seen) or self.has_fractions(node.expression, seen)
            case exp.Anonymous(this=str(name)) if _OF_FRACTIONS.fullmatch(name):
                always = _OF_DOUBLES.fullmatch(name) or name.lower() in ("avg", "mean", "median", "log")
                return bool(always) or any(self.has_fractions(part, seen) for part in node.expressions)
            case exp.Case():
                results = [part.args["true"] for part in node.args["ifs"]]
                return any(self.has_fractions(part, seen) for part in (*results, node.args.get("default")))
            case exp.Subquery(this=exp.Select(expressions=[only])):
                return self.has_fractions(only.unalias(), seen)
            case exp.Paren() | exp.Neg() | exp.Filter() | exp.Window() | exp.Distinct():
                return any(self.has_fractions(part, seen) for part in node.expressions or [node.this])
        return False


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
