"""Text from elsewhere made safe for a terminal: no control characters, no escape sequences, no bidi tricks."""

from __future__ import annotations

import unicodedata

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
