"""Text from elsewhere made safe for a terminal: no control characters, no escape sequences, no bidi tricks."""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, *, limit: int = 0) -> str:
    """Replace what a terminal would obey instead of show.

    Args:
        text: Any text, of a label say.
        limit: The longest result in characters, an ellipsis included; 0 for no limit.
    """
    kept = "".join(c if c == "\n" or unicodedata.category(c) not in _HIDDEN else "�" for c in text)
    return kept if not limit or len(kept) <= limit else kept[: limit - 1] + "…"
