"""Pictures of samples as compact files, and saliency as a sheet of them: a row a sample, input and maps beside."""

from __future__ import annotations

import base64
import functools
import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xaicli.render.canvas import (
    BOLD,
    LIGHT,
    REGULAR,
    can_reorder,
    colour_and_dash,
    ems,
    font,
    lacking,
    name,
    reads_from_the_right,
    setting_of,
    told_within,
    width_of,
)
from xaicli.report.charts import BarChart, Image, LineChart
from xaicli.report.model import FIXED, MapGrid, MapPanel, MapRow
from xaicli.words import fraction

if TYPE_CHECKING:
    from PIL.Image import Image as Pillow

    Panel = MapPanel | tuple[str, Image]

LOSSLESS_PIXELS = 64 * 64
"""Up to this size pictures are kept exactly, and shown as the squares they are."""

_QUALITY = 80


def png_of(image: Image) -> bytes:
    """The picture as PNG, losslessly."""
    return _encoded(image, "PNG", optimize=True)


def data_uri(image: Image) -> str:
    """The picture as a `data:` address: PNG up to 64 x 64 pixels, WebP (quality 80) beyond.

    A 224 x 224 saliency map takes 45-52 KB as PNG, 11-18 KB as WebP.
    """
    if image.width * image.height <= LOSSLESS_PIXELS:
        return "data:image/png;base64," + base64.b64encode(png_of(image)).decode()
    encoded = _encoded(image, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()


_PNG_ROWS = 128


def png_bytes(picture: Pillow) -> bytes:
    """A large picture, RGB or RGBA, as PNG, compressed for time rather than for size.

    Each row is written as its difference from the one above (filter 2 of the PNG specification), which suits charts and
    sheets; looking for the best filter of each row, as Pillow does, takes three times as long.
    """
    import numpy as np

    packer, packed = zlib.compressobj(1), []
    above = np.zeros(picture.width * len(picture.getbands()), np.uint8)
    # Some rows at a time: a sheet has tens of megabytes of pixels.
    for top in range(0, picture.height, _PNG_ROWS):
        part = np.asarray(picture.crop((0, top, picture.width, min(top + _PNG_ROWS, picture.height))))
        pixels = part.reshape(len(part), -1)
        rows = np.empty((len(pixels), 1 + pixels.shape[1]), np.uint8)
        rows[:, 0] = 2
        np.subtract(pixels[0], above, out=rows[0, 1:])
        np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
        packed.append(packer.compress(rows.data))
        above = pixels[-1]
    kind = {3: 2, 4: 6}[len(picture.getbands())]
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", b"".join((*packed, packer.flush()))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def rgb(image: Image) -> tuple[str, bytes]:
    """Pillow's name of the kind of pixels, and the pixels with the palette applied."""
    if not image.palette:
        return {1: "L", 3: "RGB", 4: "RGBA"}[image.channels], image.pixels
    red, green, blue = (image.pixels.translate(table) for table in _tables(image.palette))
    pixels = bytearray(3 * len(image.pixels))
    pixels[0::3], pixels[1::3], pixels[2::3] = red, green, blue
    return "RGB", bytes(pixels)


@functools.cache
def _tables(palette: str) -> tuple[bytes, bytes, bytes]:
    """The red, green and blue of each grey level."""
    from matplotlib import colormaps

    levels = [colormaps[palette](level / 255, bytes=True) for level in range(256)]
    red, green, blue = (bytes(int(level[channel]) for level in levels) for channel in range(3))
    return red, green, blue


def as_pillow(image: Image) -> Pillow:
    """The picture as Pillow has it."""
    from PIL import Image as Pillow

    mode, pixels = rgb(image)
    return Pillow.frombytes(mode, (image.width, image.height), pixels)


def _encoded(image: Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    as_pillow(image).save(out, kind, **options)
    return out.getvalue()


_SIDE, _GAP, _HEAD, _FOOT = 132, 10, 16, 15
_WORDS = 150
_BESIDE = _WORDS - 16 - 14
"""The room of what stands at the left of a row."""
_HEADER = 44
_TEXT, _SMALL = 8.0, 6.5
_PITCH, _SMALL_PITCH = 10, 9
"""From one line of a text to its next."""
_LONGEST = 72
"""So many characters of one thing that is said are shown."""
_TOKENS = 10
"""So many tokens of a text are listed."""
_DIMMED = 0.55
_DENSITY = 2
"""Pixels a point."""


@dataclass(frozen=True)
class Sheet:
    """Rows of a grid as one picture, RGB, and what of their texts it does not show as it is."""

    picture: Pillow
    boxes: frozenset[str]
    is_mirrored: bool


def sheet(grid: MapGrid, rows: Sequence[MapRow], *, no_images: bool = False) -> Sheet:
    """Rows of a grid as one picture.

    Args:
        grid: What they belong to.
        rows: The samples to show.
        no_images: Leave out the inputs, and what shows them.
    """
    shown: list[list[Panel]] = [
        [*(() if no_images else _titled(row.inputs)), *shown_panels(row, no_images=no_images)] for row in rows
    ]
    columns = max(map(len, shown), default=1)
    width = _WORDS + max(columns, 2) * (_SIDE + _GAP) + 16
    note = _lines(grid.note, width - 28, _TEXT - 1)
    tiles = [[_Tile.of(panel) for panel in panels] for panels in shown]
    words = [_Words.of(row) for row in rows]
    top: float = _HEADER + _PITCH * max(0, len(note) - 2)
    heights = [max(said.height, _under(line)) for said, line in zip(words, tiles, strict=True)]
    heads = [_HEAD + _PITCH * (max((len(tile.title) for tile in line), default=1) - 1) for line in tiles]
    brush = _Brush.on(width, top + sum(heights) + sum(heads) + 4)
    brush.write(14, 16, name(grid.title, 90), _TEXT + 3, bold=True)
    for number, line in enumerate(note):
        brush.write(14, 28 + _PITCH * number, line, _TEXT - 1, "muted")
    for row, said, laid, head, height in zip(rows, words, tiles, heads, heights, strict=True):
        top += head
        _words(brush, row, said, top)
        for column, tile in enumerate(laid):
            _draw_tile(brush, tile, row.inputs, _WORDS + column * (_SIDE + _GAP), top)
        top += height
    boxes = frozenset(c for text in brush.texts for c in lacking(text))
    return Sheet(brush.picture, boxes, not can_reorder() and any(map(reads_from_the_right, brush.texts)))


def _titled(inputs: Mapping[str, Image]) -> Iterator[tuple[str, Image]]:
    """The pictures of what went in, each with what stands above it."""
    for of, image in inputs.items():
        yield f"input · {name(of, _LONGEST)}" if len(inputs) > 1 else "input", image


def shown_panels(row: MapRow, *, no_images: bool) -> tuple[MapPanel, ...]:
    """The panels of a sample; without images, those that do not show the input."""
    return tuple(p for p in row.panels if not (no_images and p.views and p.views[0].name == FIXED))


@dataclass(frozen=True)
class _Brush:
    """Text and shapes on a picture, at places in points from its top left."""

    picture: Pillow
    draw: Any
    texts: set[str] = field(default_factory=set)
    """What was written."""

    @classmethod
    def on(cls, width: float, height: float) -> _Brush:
        from PIL import Image as Pillow
        from PIL import ImageDraw

        size = round(width * _DENSITY), round(height * _DENSITY)
        picture = Pillow.new("RGB", size, LIGHT["page"])
        return cls(picture, ImageDraw.Draw(picture))

    def write(
        self, x: float, y: float, text: str, size: float, colour: str = "ink", *, bold: bool = False, at: str = "l"
    ) -> None:
        """A line of text, its baseline at y; at x its left end, its middle ("m") or its right end ("r")."""
        self.texts.add(text)
        how = {"font": font(size * _DENSITY, BOLD if bold else REGULAR, text), **setting_of(text)}
        self.draw.text((x * _DENSITY, y * _DENSITY), text, fill=LIGHT[colour], anchor=f"{at}s", **how)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """A filled rectangle."""
        corners = [v * _DENSITY for v in (min(x0, x1), y0, max(x0, x1), y1)]
        self.draw.rectangle(corners, fill=LIGHT[colour])

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """A line from point to point."""
        self.draw.line([(x * _DENSITY, y * _DENSITY) for x, y in points], fill=LIGHT[colour], width=2, joint="curve")


_BREAKS = (" · ", " ", "-", "")
"""Where a text that is too wide is broken: between what is said, between words, behind a hyphen, anywhere."""


def _lines(text: str, room: float, size: float, *, bold: bool = False, at: Sequence[str] = _BREAKS) -> list[str]:
    """A text as lines no wider than there is room for: nothing of it is left out, least of all of a number."""
    if not text:
        return []
    face = font(size * _DENSITY, BOLD if bold else REGULAR, text)

    def fits(line: str) -> bool:
        return float(face.getlength(line, **setting_of(line))) <= room * _DENSITY

    if fits(text) or len(text) == 1:
        return [text]
    between, *finer = at
    pieces = list(text) if not between else _BEHIND.split(text) if between == "-" else text.split(between)
    joint = "" if between == "-" else between
    if between == " · ":  # filled from the last line on: a prediction stands above its figures
        pieces.reverse()
    lines: list[str] = []
    for piece in pieces:
        joined = (piece, lines[-1]) if lines and between == " · " else (lines[-1], piece) if lines else ()
        if joined and fits(joint.join(joined)):
            lines[-1] = joint.join(joined)
        else:
            broken = _lines(piece, room, size, bold=bold, at=finer)
            lines += reversed(broken) if between == " · " else broken
    return lines[::-1] if between == " · " else lines


_BEHIND = re.compile("(?<=[-_/=])")


@dataclass(frozen=True)
class _Words:
    """What stands at the left of a row, in lines."""

    title: list[str]
    lines: list[tuple[str, bool]]
    """Each with whether it is of what is wrong."""
    height: float

    @classmethod
    def of(cls, row: MapRow) -> _Words:
        title = _lines(name(row.title, _LONGEST), _BESIDE, 10, bold=True)
        lines = [
            (line, said == row.wrong) for said in row.lines for line in _lines(name(said, _LONGEST), _BESIDE, _TEXT)
        ]
        return cls(title, lines, 10 + 12 * (len(title) + len(lines) + 0.6 + len(row.probabilities)) + 6)


def _words(brush: _Brush, row: MapRow, said: _Words, top: float) -> None:
    for number, text in enumerate(said.title):
        brush.write(14, top + 8 + 12 * number, text, 10, bold=True)
    for number, (text, is_wrong) in enumerate(said.lines, len(said.title)):
        brush.write(14, top + 10 + 12 * number, text, _TEXT, "max" if is_wrong else "ink")
    size = _TEXT - 0.5
    values = [fraction(value, further=0) for _, value, _ in row.probabilities]
    names = _within([text for text, _, _ in row.probabilities], 16, _BESIDE - 6 - size * ems(values), size)
    for number, (text, value) in enumerate(zip(names, values, strict=True)):
        y = top + 10 + 12 * (len(said.title) + len(said.lines) + 0.6 + number)
        brush.write(14, y, text, size, "muted")
        brush.write(_WORDS - 16, y, value, size, "muted", at="r")


def _within(names: Sequence[str], limit: int, room: float, size: float) -> list[str]:
    """Each of some names as one line, none to be taken for another where there is room to tell them apart."""
    plain = [name(text, 0) for text in names]
    # Letters of a small size are drawn at whole pixels: somewhat wider than they are.
    told = told_within(plain, limit, 0.94 * room / size)
    return [told[text] for text in plain]


@dataclass(frozen=True)
class _Tile:
    """A panel, with what stands above and below it in lines."""

    panel: Panel
    title: list[str]
    caption: list[str]

    @classmethod
    def of(cls, panel: Panel) -> _Tile:
        if isinstance(panel, tuple):
            return cls(panel, _lines(panel[0], _SIDE, _TEXT), [])
        title = " · ".join(name(part, _LONGEST) for part in panel.title.split(" · "))
        left_out = len(panel.tokens) - _TOKENS
        few = (f"the {_TOKENS} strongest of {len(panel.tokens):,} tokens",) if left_out > 0 else ()
        flat = ("flat",) if panel.flat else ()
        words = " · ".join(name(part, _LONGEST) for part in (*panel.lines, *few, *flat))
        return cls(panel, _lines(title, _SIDE, _TEXT), _lines(words, _SIDE, _SMALL))


def _under(tiles: Sequence[_Tile]) -> float:
    """How far a row reaches, its captions included."""
    return _SIDE + _FOOT + _SMALL_PITCH * max((len(tile.caption) for tile in tiles), default=1)


def _draw_tile(brush: _Brush, tile: _Tile, inputs: Mapping[str, Image], left: float, top: float) -> None:
    panel, middle = tile.panel, left + _SIDE / 2
    view = panel.views[0] if isinstance(panel, MapPanel) and panel.views else None
    image = panel[1] if isinstance(panel, tuple) else view.image if view else None
    below = inputs.get(panel.input) if isinstance(panel, MapPanel) and view and view.name == FIXED else None
    for number, line in enumerate(reversed(tile.title)):
        brush.write(middle, top - 5 - _PITCH * number, line, _TEXT, at="m")
    if image is not None:
        _picture(brush, image, below, left, top)
    elif isinstance(panel, MapPanel):
        _drawing(brush, panel, left, top)
    colour = "max" if isinstance(panel, MapPanel) and panel.flat else "muted"
    for number, line in enumerate(tile.caption):
        brush.write(middle, top + _SIDE + 11 + _SMALL_PITCH * number, line, _SMALL, colour, at="m")


def _picture(brush: _Brush, image: Image, below: Image | None, left: float, top: float) -> None:
    """Show a picture; over another one, dimmed, as light over light ("screen")."""
    from PIL import Image as Pillow
    from PIL import ImageChops

    shown = as_pillow(image).convert("RGB")
    if below is not None and (below.width, below.height) == (image.width, image.height):
        dimmed = as_pillow(below).convert("RGB").point(lambda level: round(level * _DIMMED))
        shown = ImageChops.screen(dimmed, shown)
    side = _SIDE * _DENSITY
    scale = side / max(shown.size)
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    few = image.width * image.height <= LOSSLESS_PIXELS
    shown = shown.resize(size, Pillow.Resampling.NEAREST if few else Pillow.Resampling.LANCZOS)
    place = round(left * _DENSITY + (side - size[0]) / 2), round(top * _DENSITY + (side - size[1]) / 2)
    brush.picture.paste(shown, place)


def _drawing(brush: _Brush, panel: MapPanel, left: float, top: float) -> None:
    match panel.chart:
        case BarChart() as chart:
            _bars(brush, chart, left, top)
        case LineChart() as chart:
            _curves(brush, chart, left, top)
        case None:
            strongest = sorted(panel.tokens, key=lambda pair: -pair[1])[:_TOKENS]
            values = [fraction(strength, further=0) for _, strength in strongest]
            tokens = _within([token for token, _ in strongest], 16, _SIDE - 6 - _TEXT * ems(values), _TEXT)
            for number, (token, value) in enumerate(zip(tokens, values, strict=True), 1):
                brush.write(left, top + 12 * number, token, _TEXT)
                brush.write(left + _SIDE, top + 12 * number, value, _TEXT, "muted", at="r")


def _bars(brush: _Brush, chart: BarChart, left: float, top: float) -> None:
    """Values by name, the names in a column of their own."""
    pitch = min(12.0, _SIDE / max(1, len(chart.names)))
    size = min(_SMALL, pitch * 0.8)
    words = left + 52
    low, high = min(0.0, *chart.values), max(0.0, *chart.values)
    scale = (left + _SIDE - words) / (high - low or 1.0)
    zero = words - low * scale
    names = _within(chart.names, 14, words - 3 - left, size)
    for number, (text, value) in enumerate(zip(names, chart.values, strict=True)):
        y = top + number * pitch
        brush.write(words - 3, y + pitch * 0.75, text, size, at="r")
        if value == value:
            brush.box(zero, y + pitch * 0.15, zero + value * scale, y + pitch * 0.85, "max" if value >= 0 else "min")
    brush.line([(zero, top), (zero, top + pitch * len(chart.names))], "faint")


def _curves(brush: _Brush, chart: LineChart, left: float, top: float) -> None:
    """Lines within [0, 1] below their names: the signal, and what of it counts."""
    colours = [colour_and_dash(line.tone, line.colour)[0] for line in chart.series]
    x, below = left, top + _SMALL
    for line, colour in zip(chart.series, colours, strict=True):
        width = _SMALL * width_of(line.name)
        if x > left and x + width > left + _SIDE:
            x, below = left, below + _SMALL_PITCH
        brush.write(x, below, line.name, _SMALL, colour)
        x += width + _SMALL
    high, low = below + _SMALL_PITCH / 2, top + _SIDE
    for line, colour in zip(chart.series, colours, strict=True):
        known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and y == y]
        if len(known) < 2:
            continue
        start, end = known[0][0], known[-1][0]
        across = _SIDE / (end - start or 1.0)
        brush.line([(left + (x - start) * across, low - y * (low - high)) for x, y in known], colour)
