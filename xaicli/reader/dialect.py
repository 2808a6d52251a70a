"""SQL as it is typed, and as polars answers it as other engines do."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from xaicli.errors import UsageError
from xaicli.reader.kinds import AGGREGATES, COUNTING, OF_DOUBLES, SUMMING, TEMPORAL, Kind, Kinds

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.dialects.dialect import Dialect

_OPAQUE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
"""What no function and no bracket is in: texts, quoted names and comments."""
_WITHOUT_MISSING = re.compile(r"strpos|left|substr|ltrim|rtrim|replace|split_part", re.IGNORECASE)
"""Functions of texts that polars answers although something they are given is missing."""
_OTHERWISE = re.compile(
    r"/|::|\bbetween\b|\bis\s+(?:not\s+)?(?:true|false|unknown|distinct)\b|"
    rf"\b(?:round|extract|(?:try_)?cast|log|position|substring|{_WITHOUT_MISSING.pattern}|{SUMMING.pattern}|"
    rf"{COUNTING.pattern}|{OF_DOUBLES.pattern})\s*\(",
    re.IGNORECASE,
)
"""What polars answers in another way: only a text with one of these is read, since sqlglot takes 0.1 s to import."""
_AS_NUMBERS = re.compile(
    rf"(?!sum$)(?:{SUMMING.pattern})|{OF_DOUBLES.pattern}|median|quantile_cont|abs|round|sign", re.IGNORECASE
)
"""Functions of numbers that DuckDB does not give true and false, or gives them back."""
_CALCULATED = re.compile(rf"\b(?:{_AS_NUMBERS.pattern})\s*\(|[-+*/%]", re.IGNORECASE)
_DISTINCT = re.compile(r"\s*distinct\b", re.IGNORECASE)
_MISTAKEN = re.compile(
    r"[&|~]|\*\*|\^|!(?!=)|\bin\s*\[|\b(?:date|time|timestamp(?:tz)?|interval)\b|"
    r"\b(?:where|on|qualify)\b(?:(?!\b(?:where|select|group|order|having|limit|union)\b).)*?"
    rf"\b(?:over|{AGGREGATES.pattern})\s*\(|"
    r"^(?!.*\bfrom\b).*\bwhere\b",
    re.IGNORECASE | re.DOTALL,
)
"""What may be meant in another way than polars takes it; chains of comparisons, and kinds, beside."""
_BRACKETED = re.compile(r"\([^()]*\)|\[[^][]*\]")
_BESIDE = re.compile(
    r"[,;]|\b(?:and|or|case|when|then|else|end|select|from|where|on|having|qualify|group|order|by|limit|join|as|union|"
    r"except|intersect|with)\b",
    re.IGNORECASE,
)
_COMPARING = re.compile(r"[<>=!]+")
_FRACTION = re.compile(r"\d\.\d|\.\d|\de-", re.IGNORECASE)
_NAMES = re.compile(r'"((?:[^"]|"")*)"|(\w+)')
_TEXTS = re.compile(r"'(?:[^']|'')*'")
_GIVEN = re.compile(r"\bas\s+\"?(\w+)", re.IGNORECASE)
_COMPARED = r'"?(?:[^()]*\))*\s*(?:[<>=!]+|(?:not\s+)?in\s*\()\s*(?:\w+\.|\w+\(|")*'
"""What is between two names or values that are compared as they are, or within a function."""
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(rf"{_DAY.pattern}(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{{1,6}})?)?)?")
_OF_64_BITS = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "INT128", "UINT128")
_EXPLAIN = re.compile(r"\s*explain\b", re.IGNORECASE)


def opaque_blanked(sql: str) -> str:
    """The statement with a word in place of each text and quoted name, and nothing for comments; of the same length."""
    return _OPAQUE.sub(lambda match: ("_" if match[0][0] in "'\"" else " ") * len(match[0]), sql)


def for_polars(
    sql: str,
    columns: Mapping[str, Kind] = MappingProxyType({}),
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
        columns: The kinds of the columns there are, by their names in lower case; any other may be of any.
        condition: Whether it is one, or any expression, and no statement.
        single: The columns of doubles that may hold numbers of single precision.

    Raises:
        UsageError: It cannot be read, or is something else than it seems to be.
    """
    if not _is_otherwise(sql, columns) and not (single and _FRACTION.search(sql)):
        return sql
    if plan := _EXPLAIN.match(sql):
        return f"{plan[0]} {for_polars(sql[plan.end() :], columns)}"
    from sqlglot import exp

    root = exp.Paren(this=_read(sql, condition=condition).copy())
    kinds = _refused(root, columns, f"--where {sql!r} cannot be asked" if condition else "")
    of_single = frozenset(name.lower() for name in single)
    for tell in (
        lambda node: _dated(node, kinds),
        _bounded,
        lambda node: _told(node, kinds) or _of_single(node, of_single),
    ):
        for node in reversed(list(root.walk())):  # what is within before what it is in
            if (told := tell(node)) is not None:
                node.replace(expression=told)
    return str(root.this.sql(_polars(), comments=False))


def for_duckdb(sql: str, columns: Mapping[str, Kind] = MappingProxyType({})) -> str:
    """A statement that DuckDB takes for what polars takes it: yes and no are 1 and 0 where they are calculated with.

    To DuckDB `avg(correct)` is a mistake, and the median of such values one of them. The rest stays as it was typed.

    Args:
        sql: As it was typed.
        columns: The kinds of the columns there are, by their names in lower case.
    """
    text = opaque_blanked(sql)
    if not _CALCULATED.search(text):
        return sql
    if plan := _EXPLAIN.match(sql):
        return plan[0] + for_duckdb(sql[plan.end() :], columns)
    from sqlglot import exp

    try:
        root = exp.Paren(this=_read(sql).copy())
    except UsageError:  # of DuckDB alone
        return sql
    kinds = Kinds.of(root, columns)
    ends: list[tuple[int, str]] = []
    for node in root.find_all(exp.Anonymous, exp.Binary):
        if isinstance(node, exp.Anonymous):
            if _AS_NUMBERS.fullmatch(node.name):
                for part, (begin, end) in zip(node.expressions, _given_at(text, node.meta["end"] + 1), strict=False):
                    ends += _as_number(begin, end) if kinds.kind(part) is Kind.TRUTH else []
        elif isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div | exp.IntDiv | exp.Mod):
            for side in (node.this, node.expression):
                if isinstance(side, exp.Column) and kinds.kind(side) is Kind.TRUTH:
                    names = [part.meta for part in side.parts]
                    ends += _as_number(names[0]["start"], names[-1]["end"] + 1)
    for place, told in sorted(ends, reverse=True):
        sql = sql[:place] + told + sql[place:]
    return sql


def _as_number(begin: int, end: int) -> list[tuple[int, str]]:
    """What stands around what lies there, to be a number."""
    return [(begin, " CAST("), (end, " AS INTEGER)")]


def _given_at(text: str, place: int) -> Iterator[tuple[int, int]]:
    """Where what a function is given begins and ends, in a text without its quotes, whose bracket opens at a place."""
    begin = text.index("(", place) + 1
    if distinct := _DISTINCT.match(text, begin):
        begin = distinct.end()
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[at], 0)
        if depth < 0 or (text[at] == "," and not depth):
            yield begin, at
            begin = at + 1
        if depth < 0:
            return


def refuse_mistakes(sql: str, columns: Mapping[str, Kind]) -> None:
    """What there is to say of a statement that polars refuses; nothing of one that cannot be read.

    Raises:
        UsageError: It is something else than it seems to be.
    """
    from sqlglot import exp

    try:
        root = exp.Paren(this=_read(sql[plan.end() if (plan := _EXPLAIN.match(sql)) else 0 :]).copy())
    except UsageError:
        return
    _refused(root, columns)


def _refused(root: exp.Paren, columns: Mapping[str, Kind], condition: str = "") -> Kinds:
    """The kinds of what has no mistake.

    Raises:
        UsageError: It is something else than it seems to be.
    """
    from xaicli.reader.mistakes import Mistakes

    kinds = Kinds.of(root, columns)
    Mistakes(root, kinds, bool(condition)).refuse(condition or "the query cannot be run")
    return kinds


def _is_otherwise(sql: str, columns: Mapping[str, Kind]) -> bool:
    """Whether a text has what polars answers in another way, or what may be meant so."""
    text = opaque_blanked(sql)
    if _OTHERWISE.search(text) or _MISTAKEN.search(text) or any(_chained(text)):
        return True
    named = {(quoted or plain).lower() for quoted, plain in _NAMES.findall(sql)}
    of = {kind for name, kind in columns.items() if name in named}
    renamed = {name.lower() for name in _GIVEN.findall(sql)} & columns.keys()
    if of & TEMPORAL or (renamed and _ORDERED.search(text)):
        return True
    typed = _TEXTS.sub("_", sql)
    texts, truths = (
        "|".join(re.escape(name) for name in named if columns.get(name) is kind) for kind in (Kind.TEXT, Kind.TRUTH)
    )
    others = rf"(?:[-+.\d]|\b(?:true|false{truths and '|'}{truths})\b)"
    unlike = [(texts, others)] * bool(texts) + [(truths, r"(?<!\w)_(?!\w)")] * bool(truths)
    return any(
        re.search(rf"\b(?:{these})\b{_COMPARED}{those}|{those}{_COMPARED}\b(?:{these})\b", typed, re.IGNORECASE)
        for these, those in unlike
    )


def _chained(text: str) -> Iterator[bool]:
    """Of each part of a text without its quotes, what is in brackets first, whether it compares twice."""
    while inner := _BRACKETED.findall(text):
        yield any(len(_COMPARING.findall(part)) > 1 for one in inner for part in _BESIDE.split(one))
        text = _BRACKETED.sub(" _ ", text)
    yield any(len(_COMPARING.findall(part)) > 1 for part in _BESIDE.split(text))


def cuts_fractions(sql: str, columns: Mapping[str, Kind]) -> bool:
    """Whether a statement has `a // b` of numbers with fractions, which to DuckDB is a / b.

    Args:
        sql: As it was typed.
        columns: The kinds of the columns there are, by their names in lower case.
    """
    from sqlglot import exp

    try:
        root = _read(sql[plan.end() if (plan := _EXPLAIN.match(sql)) else 0 :])
    except UsageError:  # not to be read here is not to be asked there
        return False
    kinds = Kinds.of(root, columns)
    return any(not _are_whole(node, kinds) for node in root.find_all(exp.IntDiv))


def is_condition(sql: str) -> bool:
    """Whether a text can be read as a condition, whatever it names."""
    try:
        _read(sql, condition=True)
    except UsageError:
        return False
    return True


@lru_cache(maxsize=64)
def tables_in(sql: str) -> list[tuple[str, str]]:
    """The tables that a statement asks, each with what its columns are told apart by; none of one that is no SQL."""
    from sqlglot import exp

    try:
        found = list(_read(sql).find_all(exp.Table))
    except UsageError:
        return []
    return [(table.name, exp.to_identifier(table.alias_or_name).sql(_polars())) for table in found]


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
        NULL_ORDERING = "nulls_are_large"  # else NULLS LAST behind DESC is taken for what is so without it

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


def _told(node: exp.Expr, kinds: Kinds) -> exp.Expr | None:
    """What stands in place of a part of a statement, whose own parts are told already; None where it stays."""
    from sqlglot import exp

    match node:
        case exp.Is(expression=exp.Boolean()) | exp.NullSafeEQ():
            return _made("((x) IS NOT DISTINCT FROM (y))", x=node.this, y=node.expression)
        case exp.NullSafeNEQ():
            return _made("(NOT ((x) IS NOT DISTINCT FROM (y)))", x=node.this, y=node.expression)
        case exp.Div() if kinds.kind(node.this) not in TEMPORAL:
            return _quotient(node)
        case exp.Pow():
            return _made("POWER(CAST(x AS DOUBLE), y)", x=node.this, y=node.expression)
        case exp.IntDiv() if not _are_whole(node, kinds):
            return _made("TRUNC(x)", x=_quotient(node))
        case exp.Cast():
            return _cast(node, kinds)
        case exp.StrPosition(this=text, args={"substr": part}):
            return _call(exp.Anonymous(this="strpos", expressions=[text.copy(), part.copy()]), "strpos", kinds)
        case exp.Substring():
            return _unless_missing(node, [node.args[key] for key in ("start", "length") if node.args.get(key)])
        case exp.Extract() if node.name.lower() == "epoch" and kinds.kind(node.expression) in (Kind.DATE, Kind.TIME):
            of_epoch = _made("CAST(CAST(x AS TIMESTAMP) AS BIGINT)", x=node.expression)
            return _quotient(exp.Div(this=of_epoch, expression=exp.Literal.number("1e6")))
        case exp.Extract():
            return exp.cast(node.copy(), "BIGINT")
        case exp.Anonymous(this=str(name)):
            return _call(node, name, kinds)
    return None


def _dated(node: exp.Expr, kinds: Kinds) -> exp.Expr | None:
    """What stands in place of a part that has to do with dates or times, whose own parts are as they were typed."""
    from sqlglot import exp

    match node:
        case exp.Sub() if kinds.are_days(node):
            compared = node.find_ancestor(exp.Binary, exp.Between, exp.In, exp.Func, exp.Query)
            sides = compared.unnest_operands() if isinstance(compared, exp.Predicate) else ()
            if any(kinds.kind(side) is Kind.SPAN for side in sides):
                return None
            return _made("(CAST(x AS BIGINT) - CAST(y AS BIGINT))", x=node.this, y=node.expression)
        case exp.Add() | exp.Sub() if [kinds.kind(node.this), kinds.kind(node.expression)] == [Kind.DATE, Kind.WHOLE]:
            of_days = exp.Paren(this=exp.cast(node.this.copy(), "BIGINT"))
            return exp.cast(type(node)(this=of_days, expression=node.expression.copy()), "DATE")
        case exp.Add() | exp.Sub() if {kinds.kind(node.this), kinds.kind(node.expression)} == {Kind.DATE, Kind.SPAN}:
            told = node.copy()
            for side in (told.this, told.expression):
                if kinds.kind(side) is Kind.DATE:
                    side.replace(expression=exp.cast(side.copy(), "TIMESTAMP"))
            return told
        case exp.DPipe() | exp.Anonymous() if isinstance(node, exp.DPipe) or node.name.lower().startswith("concat"):
            joined: exp.Expr = node.copy()
            for side in joined.expressions or (joined.this, joined.expression):
                if kinds.kind(side) is Kind.TIME:
                    side.replace(expression=exp.cast(side.copy(), "TEXT"))
            return joined if joined != node else None
        case exp.EQ() | exp.NEQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE() | exp.In() | exp.Between():
            return _with_dates(node, kinds)
    return None


def _with_dates(node: exp.Expr, kinds: Kinds) -> exp.Expr | None:
    """What stands in place of a comparison of dates or times with texts that are such."""
    from sqlglot import exp

    told = node.copy()
    sides = [side for side in told.iter_expressions() if isinstance(side, exp.Condition)]
    of = [kind for side in sides if (kind := kinds.kind(side)) in (Kind.DATE, Kind.TIME)]
    if len({*of}) != 1:
        return None
    such, name = (_DAY, "DATE") if of[0] is Kind.DATE else (_MOMENT, "TIMESTAMP")
    for side in sides:
        text = side.unnest()
        if isinstance(text, exp.Literal) and text.is_string and such.fullmatch(text.this):
            text.replace(expression=exp.cast(text.copy(), name))
    return told if told != node else None


def _call(node: exp.Anonymous, name: str, kinds: Kinds) -> exp.Expr | None:
    """What stands in place of a function."""
    from sqlglot import exp

    if _WITHOUT_MISSING.fullmatch(name):
        text, *others = node.expressions or [None]
        place = name.lower() == "strpos"
        call = exp.cast(node.copy(), "BIGINT") if place else node
        return _unless_missing(call, [text, *others] if place else others) or (call if place else None)
    if COUNTING.fullmatch(name):
        return exp.cast(node.copy(), "BIGINT")
    if name.lower() == "round":
        return _rounded(*node.expressions)
    if name.lower() == "log" and len(node.expressions) in (1, 2):
        *base, x = node.expressions
        return _made("LOG(CAST(x AS DOUBLE), b)", x=x, b=base[0]) if base else _made("LOG10(CAST(x AS DOUBLE))", x=x)
    if SUMMING.fullmatch(name):
        if any(kinds.kind(part) in TEMPORAL for part in node.expressions):
            return None
        template = "(x) + CAST(0 AS HUGEINT)"  # of single precision that is double, of integers 128 bits
    elif OF_DOUBLES.fullmatch(name):
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


def _cast(node: exp.Cast, kinds: Kinds) -> exp.Expr | None:
    """A number with a fraction as a whole number or a decimal; polars cuts off, or rounds decimals to the even one.

    Whole numbers of fewer bits begin again below zero where they are calculated with.
    """
    from sqlglot import exp

    told, of = node.copy(), kinds.kind(node.this)
    if node.is_type(*exp.DataType.INTEGER_TYPES):
        if of is Kind.FRACTION:
            told.set("this", exp.func("ROUND", node.this.copy(), dialect=_polars()))
        return told if node.is_type(*_OF_64_BITS) else exp.cast(told, "BIGINT")
    if node.is_type(exp.DataType.Type.DECIMAL) and of is Kind.FRACTION:
        digits = [part.this for part in node.to.expressions[1:]] or [exp.Literal.number(0)]
        told.set("this", _rounded(node.this, *digits))
        return told
    if node.is_type(*exp.DataType.TEXT_TYPES) and of is Kind.TIME:
        return _made("RTRIM(RTRIM(x, '0'), '.')", x=told)  # without the fraction of a second that it has not
    return None


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


def _are_whole(node: exp.Expr, kinds: Kinds) -> bool:
    """Whether a quotient is of whole numbers only."""
    return kinds.kind(node.this) is kinds.kind(node.args["expression"]) is Kind.WHOLE


def _made(template: str, **parts: exp.Expr) -> exp.Expr:
    """An expression with parts in place of the names in it."""
    from sqlglot import exp

    def filled(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column) or node.name not in parts:
            return node
        part = parts[node.name].copy()
        return part if isinstance(node.parent, exp.Paren) else exp.Paren(this=part)

    return _read(template, condition=True).transform(filled)
