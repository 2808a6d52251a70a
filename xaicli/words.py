"""Words: lists as people type them, text as it can be written, and numbers as they are told.

A list is values with commas between, each in double quotes where it holds a comma itself. The command line, settings,
Python's texts with commas, and the command under every page read and write them alike. Standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from xaicli.errors import XaiError, unknown

_QUOTE = '"'
_NOT = "!"
_ALL = "all"


def split(text: str) -> list[str]:
    """The values of a list: `a, b` is two, `"a,b"` one, `""` the empty one; a quote within quotes is doubled."""
    return [unquoted(item) for item in split_raw(text)]


def split_raw(text: str) -> list[str]:
    """The values of a list with their quotes; nothing between two commas is no value."""
    return [item for piece in _between(text, ",") if (item := piece.strip())]


def split_pair(text: str) -> tuple[str, str] | None:
    """NAME and VALUE of `NAME=VALUE`, each in quotes where it holds `=` or a comma; None where it is none.

    Of several `=` outside of quotes the last one counts.
    """
    pieces = list(_between(unquoted(text) if _is_quoted(text) else text, "="))
    name, value = "=".join(pieces[:-1]), pieces[-1]
    return (unquoted(name), unquoted(value)) if len(pieces) > 1 and name and value else None


def quoted(value: str, *, special: str = ",") -> str:
    """A value as it stands in a list: in quotes where it could be taken for something else."""
    plain = value == value.strip() and value and not value.startswith((_QUOTE, _NOT + _QUOTE))
    if plain and not any(char in value for char in special):
        return value
    return _QUOTE + value.replace(_QUOTE, _QUOTE * 2) + _QUOTE


def unquoted(item: str) -> str:
    """The value of one item of a list; `!"a,b"` is all but `a,b`."""
    if item.startswith(_NOT) and _is_quoted(item[1:]):
        return _NOT + unquoted(item[1:])
    return item[1:-1].replace(_QUOTE * 2, _QUOTE) if _is_quoted(item) else item


def chosen_names(
    kind: str,
    given: Sequence[str],
    known: Sequence[str],
    *,
    allowed: Iterable[str],
    where: str,
    elsewhere: Iterable[str] = (),
) -> list[str]:
    """The known names that words like `a`, `all`, `!b` mean.

    Args:
        kind: What they are names of, as the option is called.
        given: The words.
        known: The names.
        allowed: What may be excluded.
        where: Where they are known.
        elsewhere: Names that other questions about the run know: one of them that nobody typed is passed over.
    """
    # A data set may be called anything, "!x" or "all" too: its name is meant before the word.
    excluded = {word[1:] for word in given if word.startswith(_NOT) and word not in known}
    wanted = [word for word in given if word in known or not word.startswith(_NOT)]
    shown = [quoted(name) for name in known]
    for word in excluded - set(allowed):
        raise unknown(kind, word, shown, where=where, refused=(kind,) if word in elsewhere else (), by=("table",))
    for word in wanted:
        if word not in known and word != _ALL:
            raise unknown(kind, word, shown, where=where, refused=(kind,) if word in elsewhere else (), by=("table",))
    everything = not wanted or (_ALL in wanted and _ALL not in known)
    chosen = [name for name in known if (everything or name in wanted) and name not in excluded]
    if not chosen:
        said = f"no {kind} is left of {', '.join(given)} in {where}"
        others = (kind,) if {*elsewhere} - excluded else ()  # all there is was excluded: no default to pass over
        raise XaiError(said, hint=f"recorded: {', '.join(shown)}", refused=others)
    return chosen


def _is_quoted(item: str) -> bool:
    """Whether an item is one quoted value from end to end."""
    return len(item) > 1 and item[0] == item[-1] == _QUOTE and _QUOTE not in item[1:-1].replace(_QUOTE * 2, "")


def _between(text: str, separator: str) -> Iterator[str]:
    """The pieces between separators that are not in quotes; a quote opens at the start of a piece, after `!` or `=`."""
    start = at = 0
    while at < len(text):
        if text[at] == _QUOTE and (text[start:at].strip() in ("", _NOT) or text[at - 1] == "="):
            closing = _closing(text, at)
            at = closing if closing is not None else at
        elif text[at] == separator:
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def _closing(text: str, opening: int) -> int | None:
    """Where the quote that opens at a place closes; None where it never does, and is a character like any other."""
    at = opening + 1
    while at < len(text):
        if text[at] == _QUOTE:
            if text[at + 1 : at + 2] != _QUOTE:
                return at
            at += 1
        at += 1
    return None


FORMULA = r"^'*[=+\-@\t\r]"
NUMBER = r"^'*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""Text is guarded where it is like the first and not like the second; both as Python and polars understand them."""
_FORMULA, _NUMBER = re.compile(FORMULA), re.compile(NUMBER.removesuffix("$") + r"\Z")


def guarded(text: str) -> str:
    """A text as a cell of comma-separated values: with an apostrophe before what a spreadsheet would run as a formula.

    That is what begins with `=`, `+`, `-`, `@`, a tab or a carriage return and is no number, and what looks like such
    text guarded already; so `unguarded` gives back every text there is.
    """
    return f"'{text}" if _needs_guard(text) else text


def unguarded(cell: str) -> str:
    """The text of a cell that `guarded` made."""
    return cell[1:] if cell.startswith("'") and _needs_guard(cell) else cell


def is_bare(cell: str) -> bool:
    """Whether a cell stands as `guarded` never leaves it, so that its file is from elsewhere."""
    return not cell.startswith("'") and _needs_guard(cell)


def _needs_guard(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.match(text) is None


def spelled(text: str) -> str:
    r"""A text with what UTF-8 cannot hold spelled out: `caf\xe9` of a file's name with a byte that is no text.

    Such bytes come as lone surrogates out of names of files and arguments; no JSON, page, table or hash can hold them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_spelled(char) if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def _spelled(char: str) -> str:
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else f"\\u{ord(char):04x}"


def ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending whole numbers as they are typed and told: `1-3` and `5` for 1, 2, 3, 5."""
    starts = [*numbers[:1], *(b for a, b in pairwise(numbers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(numbers) if b != a + 1), *numbers[-1:]]
    return [str(low) if low == high else f"{low}-{high}" for low, high in zip(starts, ends, strict=True)]


_LEAST, _MOST = 1e-4, 1e9
"""Between them a number is told without an exponent."""


def distinct(numbers: Sequence[float], digits: int) -> list[str]:
    """Numbers that are compared, in words: in so many significant digits, or as many more as tell them apart.

    Beyond twelve digits nothing but rounding tells two apart, and they read the same.

    Args:
        numbers: The numbers; those that are the same read the same.
        digits: The least digits of each.
    """
    several = len(set(numbers))
    for further in range(digits, 13):
        texts = [_in_digits(number, further) for number in numbers]
        if len(set(texts)) == several:
            return texts
    return [_in_digits(number, digits) for number in numbers]


def _in_digits(number: float, digits: int) -> str:
    """A number in so many significant digits, those before the point whole, without an exponent where that is short."""
    if not math.isfinite(number) or not _LEAST <= abs(number) < _MOST:
        return f"{number:.{digits}g}"
    text = f"{number:.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parts_between(bounds: Sequence[str], between: Sequence[str] = ()) -> list[str]:
    """What the parts are called that ascending bounds divide values into; each bound belongs to the part that it ends.

    Args:
        bounds: The bounds in words, at least one.
        between: What the parts between two bounds are called, where that is something other than the two.
    """
    inner = between or [f"{low} to {high}" for low, high in pairwise(bounds)]
    return [f"up to {bounds[0]}", *inner, f"above {bounds[-1]}"]


_REACHED = 1e-9
"""What part of a whole lies between a share and nothing or all where rounding alone keeps it from them."""


def percent(share: float | None, decimals: int = 0, *, absent: str = "–") -> str:
    """A share in words: "5 %" of 0.05; "99.96 %", never "100.0 %", of what is not quite all.

    Args:
        share: The part of a whole; negative for a difference of two.
        decimals: How many it has, and up to two more where it would else read as nothing or as all.
        absent: What is said where there is none.
    """
    return absent if share is None else _short_of(share, decimals, 100.0, 2) + " %"


def fraction(share: float, decimals: int = 2, *, further: int = 2, bounds: Sequence[float] = ()) -> str:
    """A probability, a correlation or another part of one: "0.97", and "0.9993", never "1.00", of what is less.

    Args:
        share: The number, from -1 to 1.
        decimals: How many it has.
        further: How many more it has at most where it would else read as a bound; then it is "<0.01" or ">0.99".
        bounds: Other numbers than 0, 1 and -1 that it must not read as.
    """
    return _short_of(share, decimals, 1.0, further, bounds)


def _short_of(share: float, decimals: int, whole: float, further: int, bounds: Sequence[float] = ()) -> str:
    """A part of a whole that reads as a bound only where it is one."""
    value = whole * share
    crossed = [whole * bound for bound in (0.0, 1.0, -1.0, *bounds) if abs(share - bound) > _REACHED]
    said = ""
    for places in range(decimals, decimals + further + 1):
        said = f"{value:.{places}f}"
        if float(said) not in crossed:
            return said if float(said) else said.lstrip("-")
    bound, least = float(said), 10.0 ** -(decimals + further)
    inner = bound + math.copysign(least, value - bound)
    return f"{'<' if inner > bound else '>'}{inner:.{decimals + further}f}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def how_often(number: float) -> str:
    """How often a spread something is, in words: "12.3", and of what lies beyond any scale "1e+38"."""
    return f"{number:,.1f}" if abs(number) < 1e6 else f"{number:.1g}"
