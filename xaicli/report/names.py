"""File names and keys made from text of elsewhere: safe, short, and never the same twice."""

from __future__ import annotations

import re
from collections.abc import Hashable

_LONGEST = 40


class Names:
    """Hands out names; the same thing gets the same name, two things never share one."""

    def __init__(self) -> None:
        self._given: dict[tuple[Hashable, ...], str] = {}

    def __call__(self, *parts: Hashable) -> str:
        """A name of lower-case letters, digits and dashes for what `parts` identify together."""
        if parts not in self._given:
            words = (re.sub(r"[^a-z0-9]+", "-", str(part).lower()).strip("-")[:_LONGEST] for part in parts)
            stem = "-".join(word for word in words if word) or "x"
            name, again = stem, 1
            while name in self._given.values():
                again += 1
                name = f"{stem}-{again}"
            self._given[parts] = name
        return self._given[parts]


class Keys:
    """Numbers the samples of a page: `s-0`, `s-1`, ..."""

    def __init__(self) -> None:
        self._given: dict[Hashable, str] = {}

    def __call__(self, mode: str, ds_id: str, sample_id: int | str) -> str:
        """The key of a sample, the same one each time."""
        return self._given.setdefault((mode, ds_id, sample_id), f"s-{len(self._given)}")

    def known(self, mode: str, ds_id: str, sample_id: int | str) -> str:
        """The key of a sample that has one, else ""."""
        return self._given.get((mode, ds_id, sample_id), "")
