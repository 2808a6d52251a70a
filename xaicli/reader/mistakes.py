"""SQL that polars would answer though it means something else: named, with what was meant."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from xaicli.errors import UsageError
from xaicli.reader.kinds import AGGREGATES, MOMENTS, NUMBERS, OF_DATES, OF_TIMES, TEMPORAL, Kind, Kinds, hint_of

_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
_LOGIC: dict[type[exp.Expr], tuple[str, type[exp.Connector]]] = {
    exp.BitwiseAnd: ("&", exp.And),
    exp.BitwiseOr: ("|", exp.Or),
    exp.ArrayOverlaps: ("&&", exp.And),
    exp.DPipe: ("||", exp.Or),
}
"""Operators of other languages for AND and OR: those of SQL are of bits, lists and texts, and precede comparisons."""
_MIXING = ("coalesce", "ifnull", "nullif", "greatest", "least")


@dataclass(frozen=True)
class Mistakes:
    """What a statement or a condition may have that means something else than it seems to.

    Attributes:
        root: It, in brackets.
        kinds: What its names stand for.
        condition: Whether it is one, or any expression, and no statement.
    """

    root: exp.Paren
    kinds: Kinds
    condition: bool

    def refuse(self, said: str) -> None:
        """
        Args:
            said: What cannot be asked.

        Raises:
            UsageError: The first mistake, and what to write instead.
        """
        for why, hint in self._found():
            raise UsageError(f"{said}: {why}", hint=hint)

    def _found(self) -> Iterator[tuple[str, str]]:
        """Each mistake, and what to write instead."""
        for node in self.root.walk():
            match node:
                case exp.BitwiseNot() if self.kinds.kind(node.this) is Kind.TRUTH:
                    yield f"{_sql(node)!r} would turn the bits of numbers", self._meant(node, exp.not_(node.this))
                case exp.Where() | exp.Join():
                    yield from _of_several(node)
                case exp.Select():
                    yield from self._unlike(node)
                case exp.SetOperation(this=exp.Select() as upper, expression=exp.Select() as lower):
                    for one, other in zip(upper.selects, lower.selects, strict=False):
                        yield from self._mixed([one.unalias(), other.unalias()], "one column")
                case exp.Anonymous(this=str(name)) if name.lower() in _MIXING:
                    yield from self._mixed(node.expressions, name)
                case exp.Case():
                    results = [*(part.args["true"] for part in node.args["ifs"]), node.args.get("default")]
                    yield from self._mixed([part for part in results if part], "CASE")
                case exp.Cast() if (kind := self.kinds.kind(node.this)) in TEMPORAL and node.is_type(
                    *exp.DataType.NUMERIC_TYPES
                ):
                    yield from _of_cast(node, kind)
                case exp.Sub() if self._is_of_text(node):
                    yield f"{_sql(node)!r} takes a text from a date, or a date from a text", OF_DATES
                case exp.Binary() | exp.In() | exp.Between():
                    yield from self._of_operator(node)

    def _of_operator(self, node: exp.Expr) -> Iterator[tuple[str, str]]:
        sides = [node.this, node.expression] if isinstance(node, exp.Binary) else []
        loose = next((side for side in sides if self._is_logic(side)), node)
        compares = isinstance(node, _COMPARISONS)
        if compares and any(isinstance(side, _COMPARISONS) for side in sides) and loose is node:
            why = "SQL takes a first comparison for true or false, and compares that"
            yield f"{_sql(node)!r} chains comparisons: {why}", self._unchained(node)
        elif (compares and loose is not node) or isinstance(node, exp.ArrayOverlaps) or self._is_mixed(node):
            sign, meant = _LOGIC[type(loose)]
            why = f"{sign} is no {meant.key.upper()} in SQL, and is taken before a comparison"
            yield f"{_sql(node)!r}: {why}", self._meant(node, _with_words(node))
        elif compares or isinstance(node, exp.Is | exp.NullSafeEQ | exp.NullSafeNEQ | exp.In | exp.Between):
            yield from self._of_kinds(node)

    def _is_logic(self, node: exp.Expr) -> bool:
        """Whether a side of a comparison is of an operator that was to join it with something else."""
        if type(node) not in _LOGIC:
            return False
        parts = {self.kinds.kind(part) for part in (node.this, node.expression)}
        chained = isinstance(node.parent, _COMPARISONS) and isinstance(node.parent.parent, _COMPARISONS)
        below = isinstance(node.parent.this, _COMPARISONS) if node.parent else False
        if isinstance(node, exp.DPipe) and Kind.TEXT in parts:
            return False
        return chained or below or (Kind.TRUTH in parts and parts != {Kind.TRUTH})

    def _is_of_text(self, node: exp.Sub) -> bool:
        kinds = {self.kinds.kind(node.this), self.kinds.kind(node.expression)}
        return Kind.TEXT in kinds and not kinds.isdisjoint(MOMENTS)

    def _is_mixed(self, node: exp.Expr) -> bool:
        """Whether bits are asked of a number and of true or false."""
        parts = {self.kinds.kind(part) for part in (node.this, node.args.get("expression"))}
        return (
            isinstance(node, exp.BitwiseAnd | exp.BitwiseOr) and Kind.TRUTH in parts and not parts.isdisjoint(NUMBERS)
        )

    def _unchained(self, node: exp.Expr) -> str:
        for side, other in ((node.this, node.expression), (node.expression, node.this)):
            other_is_truth = not isinstance(other, _COMPARISONS) and self.kinds.kind(other) is Kind.TRUTH
            if isinstance(side, _COMPARISONS) and other_is_truth:
                told = node.copy()
                told.set("this" if side is node.this else "expression", exp.Paren(this=side.copy()))
                return self._meant(node, told)
        return self._meant(node, _with_words(node))

    def _meant(self, node: exp.Expr, told: exp.Expr) -> str:
        """The condition with a part as it was meant, of a statement that part alone."""
        if not self.condition:
            return _sql(told)
        several = isinstance(told, exp.Connector | exp.Between) and not isinstance(node.parent, exp.Paren)
        node.replace(expression=exp.Paren(this=told.copy()) if several else told.copy())
        return _sql(self.root.this)

    def _of_kinds(self, node: exp.Expr) -> Iterator[tuple[str, str]]:
        """Values of kinds that cannot be compared. Of texts and numbers in a condition its reader knows more to say."""
        sides = [node.this, *node.expressions, *(node.args[key] for key in ("low", "high") if key in node.args)]
        sides += [node.expression] if isinstance(node, exp.Binary) else []
        kinds = {side: kind for side in sides if (kind := self.kinds.kind(side)) is not None}
        for (one, kind), (other, against) in itertools.permutations(kinds.items(), 2):
            of_spans = kind is Kind.SPAN and self.kinds.are_days(other)
            clash = kind in TEMPORAL and against in NUMBERS and not of_spans
            if one.find(exp.Column):
                clash |= {kind, against} == {Kind.TEXT, Kind.TRUTH}
                clash |= isinstance(node, exp.Is) and kind in NUMBERS and against is Kind.TRUTH
                clash |= not self.condition and kind is Kind.TEXT and against in {*NUMBERS, *TEMPORAL}
                clash |= not self.condition and kind in NUMBERS and against is Kind.TEXT
            if clash:
                hint = hint_of(kind, against, _sql(one)) or f"{_sql(one)} <> 0 is true or false"
                yield f"{_sql(one)} is {kind.words}, and is compared with {against.words}", hint

    def _mixed(self, parts: list[exp.Expr], where: str) -> Iterator[tuple[str, str]]:
        """Dates or times among numbers, which polars makes numbers of."""
        kinds = [self.kinds.kind(part) for part in parts]
        for part, kind in zip(parts, kinds, strict=True):
            if kind in TEMPORAL and not NUMBERS.isdisjoint(kinds):
                yield f"{_sql(part)} is {kind.words}, and stands in {where} with a number", OF_TIMES

    def _unlike(self, select: exp.Select) -> Iterator[tuple[str, str]]:
        """What polars takes in another way of a whole SELECT."""
        if select.args.get("where") and not select.args.get("from_"):
            yield "WHERE without FROM is not looked at", "SELECT ... FROM samples WHERE ..."
        own = {part.alias.lower(): part for part in select.selects if isinstance(part, exp.Alias)}
        ordered = select.args["order"].expressions if select.args.get("order") else []
        for column in (column for item in ordered for column in item.find_all(exp.Column)):
            part = own.get(column.name.lower())
            bare = isinstance(column.parent, exp.Ordered) and not column.table
            if part is None or bare or column.name.lower() not in self.kinds.columns:
                continue
            if not isinstance(part.this, exp.Column) or part.this.name.lower() != column.name.lower():
                name = column.name
                what = f"{name} of ORDER BY is a column, and a name of this statement for something else"
                yield what, f"give {_sql(part.this)} another name: {_sql(part.this)} AS {name}_2"


def _of_cast(node: exp.Cast, kind: Kind | None) -> Iterator[tuple[str, str]]:
    shown = _sql(node.this)
    assert kind is not None
    hints = {
        Kind.DATE: f"{shown} - DATE '1970-01-01' is in days",
        Kind.SPAN: f"compare it with a time between two: {shown} > INTERVAL '2 days'",
    }
    moment = f"EXTRACT(epoch FROM {shown}) is in seconds" if kind in MOMENTS else f"EXTRACT(hour FROM {shown})"
    yield f"{shown} is {kind.words}, and none is a number", hints.get(kind, moment)


def _of_several(node: exp.Expr) -> Iterator[tuple[str, str]]:
    """What looks at several rows, where one is picked."""
    picked = node.args.get("on") if isinstance(node, exp.Join) else node.this
    if picked is None:
        return
    for part in picked.walk(prune=lambda part: isinstance(part, exp.Query)):
        called = isinstance(part, exp.Anonymous) and AGGREGATES.fullmatch(str(part.this))
        if not isinstance(part, exp.Window) and not called:
            continue
        scope = node.find_ancestor(exp.Select)
        source = scope.args.get("from_") if scope else None
        table = _sql(source.this.copy()) if source else "samples"
        if isinstance(part, exp.Window):
            yield f"rows are picked before {_sql(part)} is known", "QUALIFY picks by it"
        else:
            whole = f"(SELECT {_sql(part)} FROM {table}) is that of all rows"
            yield f"rows are picked before {_sql(part)} of them is known", f"HAVING picks groups by it; {whole}"


def _with_words(node: exp.Expr) -> exp.Expr:
    """Comparisons one after another, and other languages' operators between them, as AND, OR and BETWEEN."""
    groups: list[list[exp.Expr | type[exp.Expr]]] = [[]]
    joined: list[type[exp.Connector]] = []
    for part in _in_order(node):
        if isinstance(part, type) and issubclass(part, exp.Connector):
            joined.append(part)
            groups.append([])
        else:
            groups[-1].append(part)
    alternatives = [[_compared(groups[0])]]
    for how, group in zip(joined, groups[1:], strict=True):
        if how is exp.Or:
            alternatives.append([])
        alternatives[-1].append(_compared(group))
    return exp.or_(*(exp.and_(*terms, wrap=False) for terms in alternatives), wrap=False)


def _in_order(node: exp.Expr) -> Iterator[exp.Expr | type[exp.Expr]]:
    """What is compared, and how, as it was typed."""
    if isinstance(node, _COMPARISONS) or type(node) in _LOGIC:
        yield from _in_order(node.this)
        yield type(node) if isinstance(node, _COMPARISONS) else _LOGIC[type(node)][1]
        yield from _in_order(node.expression)
    else:
        yield node


def _compared(group: list[exp.Expr | type[exp.Expr]]) -> exp.Expr:
    """`a < b < c` as two comparisons, or as a BETWEEN."""
    values = [part.copy() for part in group[::2] if isinstance(part, exp.Expr)]
    how = [part for part in group[1::2] if isinstance(part, type)]
    if how == [exp.LTE, exp.LTE]:
        return exp.Between(this=values[1], low=values[0], high=values[2])
    if how == [exp.GTE, exp.GTE]:
        return exp.Between(this=values[1], low=values[2], high=values[0])
    pairs = zip(how, itertools.pairwise(values), strict=True)
    return exp.and_(*(by(this=one.copy(), expression=other.copy()) for by, (one, other) in pairs)) if how else values[0]


def _sql(node: exp.Expr) -> str:
    return str(node.sql(dialect="duckdb", comments=False, normalize_functions=False))
