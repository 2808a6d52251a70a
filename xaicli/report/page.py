"""What everything on one page has in common: the run, the samples it shows, the names it hands out."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xaicli.report.charts import Image
from xaicli.report.facts import RunFacts

SampleKey = tuple[str, str, int | str]
"""(mode, ds_id, sample_id)."""

_LONGEST = 40


class Names:
    """Hands out file names made from text of elsewhere, safe and short.

    The same thing gets the same name, two things never share one.
    """

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


@dataclass(frozen=True)
class Page:
    """One page: handed down whole, so that nothing on it comes from another place or data set.

    Attributes:
        facts: The run.
        images: Thumbnails of its samples.
        predictions: The model's answers at the place that the question selected last.
        names: Of files and parts.
        keys: What links the parts of a sample.
    """

    facts: RunFacts = field(default_factory=lambda: RunFacts(""))
    images: Mapping[SampleKey, Image] = field(default_factory=dict)
    predictions: Mapping[SampleKey, Any] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    keys: Keys = field(default_factory=Keys)

    def label_name(self, label: Any) -> str:
        """What a label is called, in few enough characters to show."""
        return self.facts.label_name(label)
