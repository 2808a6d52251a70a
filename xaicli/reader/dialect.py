"""SQL as it is typed, and as polars answers it as other engines do."""

from __future__ import annotations

import re

_OPAQUE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
"""What no function and no bracket is in: texts, quoted names and comments."""
_SUMMING = re.compile(
    r"\b(?:sum|avg|mean|std\w*|var|var_\w+|variance|corr|covar\w*)\s*\(\s*(?:distinct\b)?", re.IGNORECASE
)
"""Up to what is summed."""
_COUNTING = re.compile(
    r"\b(?:(?:octet_|bit_|char_|character_|array_)?length|strpos|extract|date_part)\s*\(", re.IGNORECASE
)
"""Up to what is counted, or taken out of a date."""
_OF_DOUBLES = re.compile(r"\b(?:power|pow|sqrt|cbrt|exp|ln|log2|log10)\s*\(", re.IGNORECASE)
"""Up to what functions are of that give numbers of double precision in SQL, whatever they are given."""
_ROUND = re.compile(r"\bround\s*\(", re.IGNORECASE)
_DIGITS = re.compile(r"\s*(\d{1,2})\s*")
_DIVIDED = re.compile(r"(?<!/)/(?!/)")
_TOKEN = re.compile(r"\s+|\d[\d.]*(?:e[+-]?\d+)?|\w+|::|.", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"(?<!\w)\d[\w.]*")
_OPEN, _CLOSED = ("(", "[", "case"), (")", "]", "end")
_APART = re.compile(
    r"all|and|as|between|by|distinct|else|except|from|having|ilike|in|intersect|is|like|limit|not|offset|on|or|qualify|"
    r"rlike|select|then|union|values|when|where|[-+,;<>=!&|#~^]"
)
"""What a product does not go on over."""
_JOINING = frozenset([".", "::", "over", "filter"])
"""What stands between two parts of one value."""
_GOING_ON = _JOINING | {"(", "["}
_WIDE = "CAST(0 AS HUGEINT)"
"""Added, it makes a number of single precision one of double, an integer one of 128 bits, and changes no value."""
_ONE = r"(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+|(?:\w+\s*\.\s*)?\w+|\w*\([^()]*\))"
_VALUE = rf"[+-]?\s*{_ONE}(?:\s*[-+*/%]\s*{_ONE})*"
_BETWEEN = re.compile(
    rf"(?P<before>^|[(,]|\b(?:where|and|or|not|when|then|else|on|having|select|by)\b)\s*(?P<of>{_VALUE})\s+(?P<not>not\s+)?between\s+"
    rf"(?P<low>{_VALUE})\s+and\s+(?P<high>{_VALUE})"
    r"(?=\s*(?:$|[),;]|\b(?:and|or|then|group|order|limit|offset|having|union|intersect|except|window|as|else|end)\b))",
    re.IGNORECASE,
)
"""One value between two others, with what bounds it on either side; no brackets in brackets."""
_TRUTH = re.compile(r"\bis\s+(?P<not>not\s+)?(?:(?P<value>true|false)|(?P<unknown>unknown))\b", re.IGNORECASE)
_DISTINCT = re.compile(
    rf"\bis\s+(?P<not>not\s+)?distinct\s+from\s+(?P<other>{_VALUE})(?=\s*\b(?:and|or)\b)", re.IGNORECASE
)
"""Compared as values, null with null, with what goes on behind."""


def opaque_blanked(sql: str) -> str:
    """The statement with a word in place of each text and quoted name, and nothing for comments; of the same length."""
    return _OPAQUE.sub(lambda match: ("_" if match[0][0] in "'\"" else " ") * len(match[0]), sql)


def widely_summed(sql: str) -> str:
    """The statement with its sums, means and spreads in double precision and integers of 128 bits, as DuckDB has them.

    Only what is summed is widened: a column that is compared, `loss = 0.1`, stays of the precision it is stored with.
    """
    for begin in reversed([match.end() for match in _SUMMING.finditer(opaque_blanked(sql))]):
        # What stands before is where it was; an inner sum comes before its outer one.
        end, commas = _closing(opaque_blanked(sql), begin)
        parts = [sql[a:b] for a, b in zip([begin, *(at + 1 for at in commas)], [*commas, end], strict=True)]
        wide = ",".join(f" ({part}) + {_WIDE}" if part.strip() else part for part in parts)
        sql = f"{sql[:begin]}{wide}{sql[end:]}"
    return sql


def counts_widened(sql: str) -> str:
    """The statement with lengths, places and parts of dates as integers of 64 bits, as DuckDB has them.

    To polars a length is of 32 bits without a sign, and a month of 8: `length(name) - 9` and `month(day) * 100` begin
    again at the other end.
    """
    for match in reversed([*_COUNTING.finditer(opaque_blanked(sql))]):
        end, _ = _closing(opaque_blanked(sql), match.end())
        sql = f"{sql[: match.start()]}CAST({sql[match.start() : end + 1]} AS BIGINT){sql[end + 1 :]}"
    return sql


def in_doubles(sql: str) -> str:
    """The statement with quotients, powers, roots and the like in double precision, as DuckDB has them.

    To polars 1.0 is a decimal of one place, whose quotients are cut off: 1.0 / 3 * 3 is .9999999. Powers of
    whole numbers begin again at the other end there, and have no negative exponent.

    By one value for all rows polars does not divide: it multiplies by 1 / value, and 49 * (1 / 49) is below 1. So
    nothing is added to each divisor, by row: the lesser of 0 and what is divided, without its sign.
    """
    for match in reversed([*_DIVIDED.finditer(opaque_blanked(sql))]):
        text = opaque_blanked(sql)
        dividend = slice(_product_before(text, match.start()), match.start())
        end = _value_after(text, match.end())
        by = sql[match.end() : end]
        if by.strip() and re.search(r"[^\W\d]", _NUMBER.sub("", text[dividend])):
            whole = _divided_as_is(sql[dividend])
            by = f" ({by} + LEAST(ABS(({whole}) * 1e0), 0e0))"
        sql = f"{sql[: match.start()]} * 1e0 /{by}{sql[end:]}"
    for begin in reversed([match.end() for match in _OF_DOUBLES.finditer(opaque_blanked(sql))]):
        end, commas = _closing(opaque_blanked(sql), begin)
        parts = [sql[a:b] for a, b in zip([begin, *(at + 1 for at in commas)], [*commas, end], strict=True)]
        doubles = ", ".join(f"CAST({part} AS DOUBLE)" if part.strip() else part for part in parts)
        sql = f"{sql[:begin]}{doubles}{sql[end:]}"
    return sql


def halves_away(sql: str) -> str:
    """The statement with numbers that lie halfway rounded away from zero, as DuckDB rounds them.

    Polars rounds them to the even neighbour. What was rounded towards zero by a half is one too small.
    """
    for match in reversed([*_ROUND.finditer(opaque_blanked(sql))]):
        end, commas = _closing(opaque_blanked(sql), match.end())
        of = f"({sql[match.end() : commas[0] if commas else end]})"
        digits = _DIGITS.fullmatch(sql[commas[0] + 1 : end]) if len(commas) == 1 else None
        if len(commas) > 1 or (commas and digits is None):
            continue
        scale = int(digits[1]) if digits else 0
        wide = f"({of} * 1e{scale})" if scale else of
        away = f"ROUND({wide}) + SIGN({wide})"
        told, rounded = (f"({away}) / 1e{scale}", f"ROUND({of}, {scale})") if scale else (away, f"ROUND({of})")
        halfway = f"({wide} - ROUND({wide})) * SIGN({wide}) = 5e-1"
        sql = f"{sql[: match.start()]}(CASE WHEN {halfway} THEN {told} ELSE {rounded} END){sql[end + 1 :]}"
    return sql


def bounds_apart(sql: str) -> str:
    """The statement with `a BETWEEN b AND c` as `a >= b AND a <= c`, which it means.

    A number that is compared with a column of single precision is taken in that; polars takes bounds in double.
    """
    place = 0
    while match := _BETWEEN.search(opaque_blanked(sql), place):
        of, low, high = (sql[match.start(part) : match.end(part)] for part in ("of", "low", "high"))
        told = f"{'NOT ' if match['not'] else ''}({of} >= {low} AND {of} <= {high})"
        sql = f"{sql[: match.end('before')]} {told}{sql[match.end() :]}"
        place = match.end("before") + 1 + len(told)
    return sql


def truths_told(sql: str) -> str:
    """The statement with `IS [NOT] TRUE | FALSE | UNKNOWN`, and `IS [NOT] DISTINCT FROM`, as SQL means them.

    To polars null IS NOT TRUE is null, which no condition keeps, and the other side of DISTINCT FROM goes on to the
    end. What is asked of a condition stays behind it, then null is made true or false.
    """
    for match in reversed([*_TRUTH.finditer(opaque_blanked(sql))]):
        told = f"{match[0]} {'<=> FALSE <=> FALSE' if match['not'] else '<=> TRUE'}"
        if match["unknown"]:
            told = f"IS {match['not'] or ''}NULL"
        sql = f"{sql[: match.start()]}{told}{sql[match.end() :]}"
    for match in reversed([*_DISTINCT.finditer(opaque_blanked(sql))]):
        told = f"<=> ({sql[match.start('other') : match.end('other')]}){'' if match['not'] else ' <=> FALSE'}"
        sql = f"{sql[: match.start()]}{told}{sql[match.end() :]}"
    return sql


def _divided_as_is(sql: str) -> str:
    """The statement with its quotients in double precision, of whatever accuracy."""
    for match in reversed([*_DIVIDED.finditer(opaque_blanked(sql))]):
        sql = f"{sql[: match.start()]} * 1e0 /{sql[match.end() :]}"
    return sql


def _product_before(text: str, end: int) -> int:
    """Where the factors begin that stand before a place of a text without texts and comments."""
    depth = 0
    tokens = [match for match in _TOKEN.finditer(text, 0, end) if not match[0].isspace()]
    for number in range(len(tokens) - 1, -1, -1):
        token = tokens[number][0].lower()
        if token in _CLOSED:
            depth += 1
        elif token in _OPEN:
            depth -= 1
        signs = token in "+-" and number > 0 and tokens[number - 1][0] in "*/%"
        if depth < 0 or (depth == 0 and _APART.fullmatch(token) and not signs):
            return tokens[number].end()
    return 0


def _value_after(text: str, begin: int) -> int:
    """Where the one value ends that begins at a place of a text without texts and comments."""
    depth, end, before = 0, begin, ""
    for match in _TOKEN.finditer(text, begin):
        token = match[0].lower()
        if token.isspace():
            continue
        if depth == 0 and before and before not in _JOINING and token not in _GOING_ON:
            break
        if token in _CLOSED:
            depth -= 1
        if depth < 0:
            break
        depth += token in _OPEN
        end = match.end()
        before = "" if depth == 0 and before == "" and token in "+-" else token
    return end


def _closing(text: str, begin: int) -> tuple[int, list[int]]:
    """Where the bracket closes that is open at a place of a text (else its end), and the commas directly in it."""
    depth = 1
    commas: list[int] = []
    for place in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place, commas
        if depth == 1 and text[place] == ",":
            commas.append(place)
    return len(text), commas
