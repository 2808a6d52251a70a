"""Text from elsewhere made safe for a terminal: no control characters, no escape sequences, no bidi tricks."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, *, limit: int = 0) -> str:
    """Replace what a terminal would obey instead of show.

    Args:
        text: Any text, of a label say.
        limit: The longest result in characters; 0 for no limit. What is longer loses its middle: names of samples
            often differ at the end.
    """
    kept = text
    if not text.isprintable():
        kept = "".join(c if c == "\n" or unicodedata.category(c) not in _HIDDEN else "�" for c in text)
    if not limit or len(kept) <= limit:
        return kept
    end = (limit - 1) // 2
    return f"{kept[: limit - 1 - end]}…{kept[len(kept) - end :]}"


def told_apart(names: Sequence[str], limit: int) -> dict[str, str]:
    """Each of some names short enough for a picture, and still another than the others where it is another.

    Long names lose their middle; where that leaves two the same, they lose what all of them begin and end with.

    Args:
        names: The names, as often as they occur.
        limit: The longest result in characters.
    """
    short = {name: printable(name, limit=limit) for name in names}
    long = [name for name in short if short[name] != name]
    if len({short[name] for name in long}) == len(long):
        return short
    alike = [len(set(last)) == 1 for last in zip(*(name[::-1] for name in long), strict=False)]
    end = alike.index(False) if False in alike else 0
    return short | {name: "…" + printable(name[: len(name) - end])[1 - limit :] for name in long}
