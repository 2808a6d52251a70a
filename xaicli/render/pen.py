"""One drawing of a figure, put down twice: as marks that become inline SVG, and as the pixels of the PNG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matplotlib.backend_bases import RendererBase

from xaicli.render.canvas import (
    BOLD,
    POINTS_PER_INCH,
    REGULAR,
    can_reorder,
    font,
    lacking,
    reads_from_the_right,
    setting_of,
    width_of,
)
from xaicli.render.pictures import png_bytes
from xaicli.render.svg import OURS, Mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path

HEADER = "header"
"""The group id of what the PNG alone shows: the page says it in its own words."""

_ALIGNED = {"left": "start", "center": "middle", "right": "end", "top": "end", "bottom": "start", "baseline": "start"}


@dataclass(frozen=True)
class _Text:
    """A text for the pixels: where its baseline begins, in points."""

    x: float
    y: float
    text: str
    size: float
    weight: str
    colour: tuple[int, int, int]
    turned: bool


@dataclass(eq=False)
class Pen(RendererBase):
    """What a figure is drawn with.

    Args:
        width: Of the picture, in points.
        height: Of the picture, in points.
        density: Pixels a point of the PNG; 0 where no PNG is wanted.
    """

    width: float
    height: float
    density: float = 0.0
    marks: list[Mark] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._texts: list[_Text] = []
        self._groups: list[str] = []
        self._agg: Any = None
        if self.density:
            from matplotlib.backends.backend_agg import RendererAgg
            from matplotlib.transforms import Affine2D

            self._pixels = (round(self.width * self.density), round(self.height * self.density))
            renderer: Any = RendererAgg
            self._agg = renderer(*self._pixels, POINTS_PER_INCH * self.density)
            self._scale = Affine2D().scale(self.density)

    # What matplotlib asks of a renderer.

    def get_canvas_width_height(self) -> tuple[float, float]:
        """The size in points."""
        return self.width, self.height

    def open_group(self, s: str, gid: str | None = None) -> None:
        """A group of ours begins, or one that says nothing."""
        del s
        self._groups.append(gid or "")

    def close_group(self, s: str) -> None:
        """The group ends."""
        del s
        self._groups.pop()

    def draw_path(self, gc: Any, path: Path, transform: Any, rgbFace: Any = None) -> None:  # noqa: N803
        """A line or an area."""
        if self._agg is not None:
            gc.set_clip_rectangle(None)
            self._agg.draw_path(gc, path, transform + self._scale, rgbFace)
        if (mark := self._mark(gc, rgbFace)) is not None:
            drawn: Any = path.cleaned(transform=transform, remove_nans=True, simplify=False)
            # The last command only says that there are no more.
            vertices = drawn.vertices[:-1].copy()
            vertices[:, 1] = self.height - vertices[:, 1]
            mark.vertices, mark.codes = vertices, drawn.codes[:-1].tolist()
            self.marks.append(mark)

    def draw_markers(
        self,
        gc: Any,
        marker_path: Path,
        marker_trans: Any,
        path: Path,
        trans: Any,
        rgbFace: Any = None,  # noqa: N803
    ) -> None:
        """Circles: we have no other markers."""
        if self._agg is not None:
            gc.set_clip_rectangle(None)
            self._agg.draw_markers(gc, marker_path, marker_trans + self._scale, path, trans + self._scale, rgbFace)
        radius = float(abs(marker_trans.transform(marker_path.vertices)[:, 0]).max())
        for x, y in trans.transform(path.vertices):
            if x == x and y == y and (mark := self._mark(gc, None if gc.get_linewidth() else rgbFace)) is not None:
                mark.place, mark.radius = (float(x), self.height - float(y)), radius
                self.marks.append(mark)

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False, mtext: Any = None
    ) -> None:
        """A line of text, its baseline beginning at (x, y) from the top left."""
        del ismath
        turned, size, weight = angle == 90, float(prop.get_size_in_points()), str(prop.get_weight())
        if self._agg is not None:
            red, green, blue = (round(255 * part) for part in gc.get_rgb()[:3])
            self._texts.append(_Text(x, y, s, size, weight, (red, green, blue), turned))
        cell, kind, colour, key = self._named()
        if kind == HEADER:
            return
        looks = {"font-size": f"{size:g}"}
        aligned = mtext.get_horizontalalignment()
        if turned and mtext.get_rotation_mode() != "anchor":
            aligned = mtext.get_verticalalignment()
        if (anchor := _ALIGNED[aligned]) != "start":
            looks["text-anchor"] = anchor
        along, up = mtext.get_transform().transform(mtext.get_unitless_position())
        place = (x, self.height - up) if turned else (float(along), y)
        kind = kind if kind in OURS else ""
        self.marks.append(Mark(cell, kind, colour, key, looks, place=place, text=s, turned=turned))

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        """The extent of a line, in points; all lines of a size are equally high."""
        del ismath
        size = float(prop.get_size_in_points())
        return width_of(s, str(prop.get_weight())) * size, 0.97 * size, 0.21 * size

    # What comes of it.

    @property
    def boxes(self) -> frozenset[str]:
        """The characters that the PNG shows as boxes, since its font has none of them."""
        return frozenset(c for text in self._texts for c in lacking(text.text))

    @property
    def is_mirrored(self) -> bool:
        """Whether the PNG shows a text that reads from the right as if it did not."""
        return not can_reorder() and any(reads_from_the_right(text.text) for text in self._texts)

    def png(self) -> bytes:
        """The pixels as PNG; nothing more can be drawn."""
        from PIL import Image, ImageDraw

        # Copied at once, so that the canvas is not there beside the picture and its PNG.
        picture = Image.frombytes("RGBA", self._pixels, self._agg.buffer_rgba())
        self._agg = None
        brush = ImageDraw.Draw(picture)
        for text in self._texts:
            _write(picture, brush, text, self.density)
        return png_bytes(picture)

    def _named(self) -> tuple[str, str, str, str]:
        """The cell, kind, colour and key that the innermost group with a name says."""
        name = next((name for name in reversed(self._groups) if name), "")
        cell, slash, rest = name.partition("/")
        kind, _, rest = (rest if slash else name).partition(".")
        colour, _, key = rest.partition(".")
        return cell if slash else "", kind, colour, key

    def _mark(self, gc: Any, face: Any) -> Mark | None:
        cell, kind, colour, key = self._named()
        if kind not in OURS:
            return None
        looks = {}
        if face is None:
            looks["stroke-width"] = _short(gc.get_linewidth())
            _, dashes = gc.get_dashes()
            if dashes:
                looks["stroke-dasharray"] = ",".join(_short(part) for part in dashes)
        if gc.get_alpha() not in (None, 1.0):
            looks["opacity"] = _short(gc.get_alpha())
        return Mark(cell, kind, colour, key, looks)


def drawn(figure: Figure, *, density: float = 0.0) -> Pen:
    """Draw a figure once.

    Args:
        figure: What to draw; a point is a unit of it.
        density: Pixels a point of the PNG; 0 for the marks alone.
    """
    width, height = (float(v) * POINTS_PER_INCH for v in figure.get_size_inches())
    pen = Pen(width, height, density)
    figure.draw(pen)
    return pen


def _write(picture: Any, brush: Any, text: _Text, density: float) -> None:
    face = font(text.size * density, BOLD if text.weight == "bold" else REGULAR, text.text)
    how: dict[str, Any] = setting_of(text.text)
    if not text.turned:
        brush.text((text.x * density, text.y * density), text.text, fill=text.colour, font=face, anchor="ls", **how)
        return
    from PIL import Image, ImageDraw

    ascent, descent = face.getmetrics()
    strip = Image.new("L", (round(face.getlength(text.text, **how)) + 2, ascent + descent))
    ImageDraw.Draw(strip).text((0, ascent), text.text, fill=255, font=face, anchor="ls", **how)
    upright = strip.transpose(Image.Transpose.ROTATE_90)
    place = (round(text.x * density) - ascent, round(text.y * density) - upright.height)
    picture.paste(text.colour, (*place, place[0] + upright.width, place[1] + upright.height), upright)


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
