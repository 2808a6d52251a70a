"""Saliency in a report, as frozen plain data: a row a sample, a panel a method. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from xaicli.report.charts import BarChart, Image, LineChart, Tone

FIXED = "fixed"
"""The name of the view that always lies over the input, whatever is toggled."""


@dataclass(frozen=True)
class MapView:
    """One way to look at an attribution: "clipped", "full", "signed"; or `FIXED`."""

    name: str
    image: Image


@dataclass(frozen=True)
class MapPanel:
    """One method's map of one sample, with its trust figures in words.

    Attributes:
        method: What a toggle switches it by.
        toggle: What that toggle is called; "" for the title.
    """

    method: str
    title: str
    views: tuple[MapView, ...]
    lines: tuple[str, ...] = ()
    flat: bool = False
    chart: BarChart | LineChart | None = None
    """In place of pictures, for tables and signals."""
    tokens: tuple[tuple[str, float], ...] = ()
    """In place of pictures, for text: (token, strength in [0, 1])."""
    toggle: str = ""


@dataclass(frozen=True)
class MapRow:
    """One sample's saliency: what went in, what came out, and each method's map."""

    key: str
    title: str
    lines: tuple[str, ...]
    tone: Tone
    probabilities: tuple[tuple[str, float, Tone], ...]
    input: Image | None
    panels: tuple[MapPanel, ...]
    links: tuple[tuple[str, str], ...] = ()
    deep_link: str = ""


@dataclass(frozen=True)
class MapGrid:
    """Saliency, a row a sample."""

    name: str
    title: str
    rows: tuple[MapRow, ...]
    note: str = ""
    toggles: str = "methods"
    """What the toggles switch."""
