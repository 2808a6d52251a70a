"""What every picture shares: settings, fonts, colours, axes without clutter, texts that cannot hurt."""

from __future__ import annotations

import functools
import itertools
import math
import re
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaicli.render.text import printable, told_apart
from xaicli.report.charts import Tone
from xaicli.report.numbers import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

    from xaicli.render.svg import Frame

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
    "g0": "#0064a6",
    "g1": "#d1600a",
    "g2": "#1a7f37",
    "g3": "#b3122e",
    "g4": "#7b3fb8",
    "g5": "#7a4a2b",
    "g6": "#d25aa6",
    "g7": "#6b7280",
    "g8": "#9a8f00",
    "g9": "#00a0a8",
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
    "g0": "#62b8ff",
    "g1": "#ff9d4a",
    "g2": "#4fce6f",
    "g3": "#ff6b6b",
    "g4": "#b794f6",
    "g5": "#c49a7c",
    "g6": "#ff9ad5",
    "g7": "#a5aeb8",
    "g8": "#d8cf3f",
    "g9": "#3fd9e0",
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


POINTS_PER_INCH = 72.0
REGULAR, BOLD = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"
LONGEST_NAME = 24
_LEAST_NAME = 4
_CHARACTER = 0.58
"""The mean width of a character, in font sizes."""

_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "path.simplify": False,
    "font.family": ["DejaVu Sans"],
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "figure.dpi": POINTS_PER_INCH,
}


@dataclass(frozen=True)
class Size:
    """The measures of a picture in points; `header` is the strip above that only the PNG shows."""

    width: float
    height: float
    header: float
    font: float


@dataclass(frozen=True)
class Drawn:
    """A chart as a figure, and what of it a page shows.

    Attributes:
        figure: The whole picture, its header included.
        frames: The parts: one, or one a cell of a grid.
        flows: Whether the page may make it wider and narrower without scaling its texts.
    """

    figure: Figure
    frames: tuple[Frame, ...]
    flows: bool = False


WIDE = Size(800, 356, 52, 9)
SQUARE = Size(560, 400, 52, 9)


_documented = True


def without_signatures() -> None:
    """Have matplotlib imported without the signatures that it writes for every artist's `set`, if it is not yet.

    They take a fifth of its import and are for people who write code with it: a command that draws and ends needs none.
    """
    global _documented
    _documented = False


def _import_artists() -> None:
    if _documented or "matplotlib.lines" in sys.modules:
        return
    from matplotlib.artist import Artist

    # A name of matplotlib's own: where a version has it no more, its import only takes its time.
    if hasattr(Artist, "_update_set_signature_and_docstring"):
        Artist._update_set_signature_and_docstring = classmethod(lambda _: None)


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib with its defaults and ours, whatever the user's `matplotlibrc` says."""
    import warnings

    import matplotlib as mpl

    _import_artists()
    defaults = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)
        mpl.rcParams.update(defaults)
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(size: Size, title: str, legend: str) -> Figure:
    """An empty figure with its header: a title and, in words, what lines and bands mean."""
    from xaicli.render.shown import ShownFigure

    total = size.height + size.header
    figure = ShownFigure(figsize=(size.width / POINTS_PER_INCH, total / POINTS_PER_INCH), facecolor=LIGHT["page"])
    place: dict[str, Any] = {"x": 14 / size.width, "ha": "left", "va": "top", "gid": "header"}
    told = name(title, 90)
    # A long title is written smaller: its end says the epoch and the data set.
    points = min(size.font + 3, (size.width - 28) / max(1.0, width_of(told, "bold")))
    figure.text(y=1 - 10 / total, s=told, fontsize=points, weight="bold", color=LIGHT["ink"], **place)
    lines = wrapped(legend, size.width, size.font - 1)
    figure.text(
        y=1 - 28 / total, s="\n".join(lines), fontsize=size.font - 1, color=LIGHT["muted"], linespacing=1.3, **place
    )
    return figure


def wrapped(text: str, width: float, size: float) -> list[str]:
    """The first two lines of a text under a heading."""
    return textwrap.wrap(printable(text).replace("\n", " "), int(width / (size + 1) / _CHARACTER * 1.08))[:2]


def add_axes(figure: Figure, size: Size, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes at margins in points, below the header."""
    total = size.height + size.header
    box = (
        left / size.width,
        bottom / total,
        (size.width - left - right) / size.width,
        (size.height - top - bottom) / total,
    )
    axes = figure.add_axes(box)
    plain_axes(axes, size.font)
    return axes


def in_points(figure: Figure) -> Transform:
    """From points of a figure, y upwards, to whatever it is drawn on."""
    from matplotlib.transforms import Affine2D

    return Affine2D().scale(1 / POINTS_PER_INCH) + figure.dpi_scale_trans


def plain_axes(axes: Axes, font: float) -> None:
    """No frame and no ticks, only numbers and quiet horizontal lines."""
    from matplotlib.ticker import Formatter

    class Ticks(Formatter):
        def __call__(self, value: float, _: object = None) -> str:
            return tick(value)

        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return ticks(values)

    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=font, labelcolor=LIGHT["muted"], pad=5, which="both")
    axes.grid(True, axis="y", color=LIGHT["grid"], linewidth=0.7, gid="grid")
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(Ticks())
        axis.label.set_color(LIGHT["muted"])
        axis.label.set_fontsize(font)


def tick(value: float, digits: int = 4) -> str:
    """The text of a number at an axis."""
    said = short(float(value), digits)
    return re.sub(r"\.?0*e([+-])0*", lambda found: "e" + found[1].strip("+"), said).replace("-", "−")


def ticks(values: Sequence[float], *, log: bool = False) -> list[str]:
    """The texts of an axis's ticks, with the digits that say each to a tenth of the distance of the nearest two.

    What is next to nothing beside that distance is 0; on a logarithmic axis, where there is none, nothing is.
    """
    given = [float(value) for value in values]
    if log:
        return [tick(value) for value in given]
    apart = min((b - a for a, b in itertools.pairwise(sorted(set(given)))), default=0.0)
    given = [0.0 if abs(value) < 1e-6 * apart else value for value in given]
    said: list[str] = []
    for digits in range(4, 19):
        said = [tick(value, digits) for value in given]
        read = [float(text.replace(",", "").replace("−", "-")) for text in said]
        if all(abs(a - b) <= 0.1 * (apart or abs(b)) for a, b in zip(read, given, strict=True)):
            break
    return said


def name(text: str, limit: int = LONGEST_NAME) -> str:
    """A text of elsewhere as one line a picture can show."""
    return printable(text.replace("\n", " "), limit=limit)


def gaps(values: Sequence[float | None]) -> list[float]:
    """Values for drawing: what is missing or not finite becomes NaN, a gap."""
    return [value if value is not None and math.isfinite(value) else math.nan for value in values]


_FROM_THE_RIGHT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
"""Letters of Hebrew, Arabic and the other scripts that are read from the right."""


def reads_from_the_right(text: str) -> bool:
    """Whether any of a text does: its letters are drawn in another order than they are stored in."""
    return not text.isascii() and _FROM_THE_RIGHT.search(text) is not None


@functools.cache
def can_reorder() -> bool:
    """Whether this machine's Pillow can put such letters in order; else they are drawn mirrored."""
    from PIL import features

    return bool(features.check("raqm")) and features.check("fribidi") is not False


def setting_of(text: str) -> dict[str, str]:
    """What Pillow is told for a line of text: nothing, or to order it as a page does, whose lines begin at the left."""
    return {"direction": "ltr"} if reads_from_the_right(text) and can_reorder() else {}


def font(size: float, name: str = REGULAR, text: str = "") -> Any:
    """A face of the family that matplotlib ships, at a size in pixels, as Pillow takes it.

    Args:
        size: In pixels.
        name: The face.
        text: What is written with it.
    """
    return _font(size, name, bool(setting_of(text)))


@functools.lru_cache(maxsize=64)
def _font(size: float, name: str, is_reordered: bool) -> Any:
    from importlib.util import find_spec
    from pathlib import Path

    from PIL import ImageFont

    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    engine = ImageFont.Layout.RAQM if is_reordered else ImageFont.Layout.BASIC
    return ImageFont.truetype(
        Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name, size, layout_engine=engine
    )


@functools.lru_cache(maxsize=4096)
def width_of(text: str, weight: str = "normal") -> float:
    """How wide a line of text is, in font sizes."""
    return float(font(64, BOLD if weight == "bold" else REGULAR, text).getlength(text, **setting_of(text))) / 64


def ems(texts: Iterable[str]) -> float:
    """How wide the widest of some texts is on a page, in font sizes: what our font lacks is as wide as it is high."""
    return max((width_of(text) + sum(map(_beyond, text)) for text in texts), default=0.0)


def _beyond(character: str) -> float:
    """By how much a character is wider than the box that our font has for it."""
    if unicodedata.east_asian_width(character) not in "WF":
        return 0.0
    return (1.4 if unicodedata.category(character) == "So" else 1.0) - width_of(character)


def told_within(names: Sequence[str], limit: int, room: float) -> dict[str, str]:
    """Each of some names as `told_apart` gives it, and none wider than there is room for, where letters are wide.

    Args:
        names: The names, as often as they occur.
        limit: The longest result in characters.
        room: The widest result in font sizes.
    """
    while ems((told := told_apart(names, limit, longest=limit)).values()) > room and limit > _LEAST_NAME:
        limit -= 1
    return told


@functools.lru_cache(maxsize=4096)
def has_glyph(character: str) -> bool:
    """Whether the pictures' font can draw a character; what it cannot it draws as a box."""
    face = font(64)
    return bytes(face.getmask(character)) != bytes(face.getmask("\uffff"))


_EVERYWHERE = 0x24F
"""Up to here (Latin) the font has every character."""
_NAMED = 8


def lacking(text: str) -> set[str]:
    """The characters of a text that the pictures' font lacks."""
    return set() if text.isascii() else {c for c in text if ord(c) > _EVERYWHERE and not has_glyph(c)}


def what_is_not_drawn(lacking: Collection[str], *, is_mirrored: bool) -> list[str]:
    """What to say of pictures whose texts are not what a page shows.

    Args:
        lacking: The characters drawn as boxes.
        is_mirrored: Whether a text that reads from the right is drawn from the left.
    """
    said = []
    if lacking:
        shown = "".join(sorted(lacking)[:_NAMED]) + ("…" if len(lacking) > _NAMED else "")
        said.append(
            f"the PNGs show boxes in place of {len(lacking)} character{'' if len(lacking) == 1 else 's'} that their "
            f"font lacks ({shown}); the page has the names as they are"
        )
    if is_mirrored:
        said.append(
            "the PNGs show names that are read from the right with their letters in the wrong order, since Pillow's "
            "raqm and fribidi are not there; the page has the names as they are"
        )
    return said
