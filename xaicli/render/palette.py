"""Colours and dashes: one place for pictures and pages, readable by the colour-blind, light and dark.

Contrast against the page is at least 4.9:1 in light and 7:1 in dark.
"""

from __future__ import annotations

from xaicli.report.charts import Tone

LIGHT = {
    "page": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#dfe3e8",
    "max": "#b84300",
    "min": "#0064a6",
    "listed": "#00704f",
    "median": "#57606a",
    "faint": "#9aa3ad",
    "band": "#5b6673",
    "p0": "#0064a6",
    "p1": "#b84300",
    "p2": "#00704f",
    "p3": "#8a3f94",
    "p4": "#7d5f00",
    "p5": "#4a5560",
    "v0": "#b84300",
    "v1": "#b07a2a",
    "v2": "#8a8f98",
    "v3": "#3f86b8",
    "v4": "#0a4f8a",
}
"""What the pictures are drawn in."""

DARK = {
    "page": "#14171b",
    "ink": "#e8ebee",
    "muted": "#a5aeb8",
    "grid": "#2b3138",
    "max": "#ff9152",
    "min": "#62b8ff",
    "listed": "#3fd0a0",
    "median": "#a5aeb8",
    "faint": "#6b7580",
    "band": "#8c98a6",
    "p0": "#62b8ff",
    "p1": "#ff9152",
    "p2": "#3fd0a0",
    "p3": "#dd9fe6",
    "p4": "#e5bd4c",
    "p5": "#b8c2cc",
    "v0": "#ff9152",
    "v1": "#d9a45c",
    "v2": "#9aa3ad",
    "v3": "#7cbbe6",
    "v4": "#b5defc",
}
"""What the page's sheet turns them into in the dark."""

COLOURS = 6
"""Colours for lines without a meaning of their own; each comes solid, then dashed."""

Dash = str | tuple[float, tuple[float, ...]]
"""A dash pattern as matplotlib takes it."""

_TONES: dict[Tone, tuple[str, Dash]] = {
    Tone.MAX: ("max", "solid"),
    Tone.MIN: ("min", (0, (5, 2))),
    Tone.LISTED: ("listed", (0, (1.2, 1.6))),
    Tone.MEDIAN: ("median", "solid"),
    Tone.FAINT: ("faint", "solid"),
    Tone.REFERENCE: ("faint", (0, (3, 2))),
    Tone.GOOD: ("listed", "solid"),
    Tone.BAD: ("max", "solid"),
}
_DASHES: tuple[Dash, ...] = ("solid", (0, (5, 2)), (0, (1.2, 1.6)))


def colour_and_dash(tone: Tone, index: int | None) -> tuple[str, Dash]:
    """The name of a line's colour in the palettes, and its dash pattern as matplotlib takes it.

    Args:
        tone: What the line means.
        index: Which of the colours without a meaning, for a plain line.
    """
    if tone in _TONES:
        return _TONES[tone]
    number = index or 0
    return f"p{number % COLOURS}", _DASHES[number // COLOURS % len(_DASHES)]
