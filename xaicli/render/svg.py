"""The marks of a picture as inline SVG, fit for a page under a strict Content-Security-Policy.

Classes and keys, which the page's sheet colours and the script knows, and presentation attributes in place of styles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING

from xaicli.render.canvas import told_within
from xaicli.render.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SPAN = 1000.0
"""The width of a chart that fills the page, in units of its lines; its texts stand at percentages."""

_NAME_NARROW, _WIDEST_NARROW = 17, 9.0
"""A name at the end of a line on a phone, in characters and in font sizes."""
X_AXIS = "x"
"""The colour that marks the numbers and the label of the x axis, which another axis replaces."""
_LONG_TICK, _FEW_TICKS = 4, 4
"""So long a number is long, and so many of them have room on a phone."""
_FINE = 5.0
"""Up to so large a scale the rounded places of a line can be scaled."""
OURS = frozenset({"line", "dot", "band", "span", "bar", "name", "leader", "points", "ring", "grid", "label"})
"""The first words of our group ids: `line.max.s-3` is the line of sample 3, in the colour `max`."""
_DATA = frozenset({"line", "dot", "band", "span"})
_SHARED = "same"
"""The colour that marks the lines and texts of an axis shared by all cells."""


@dataclass(slots=True)
class Mark:
    """One thing drawn, in points from the picture's top left.

    Attributes:
        cell: Which cell of a grid it lies in; "" in a picture without cells.
        kind: What it is (a word of `OURS`), "" for the text of a tick or label.
        colour: The name of its colour in the palettes.
        key: What links it with cards and tables.
        looks: Presentation attributes.
        vertices: (n, 2), of a path; None otherwise.
        codes: The path's commands, as matplotlib numbers them.
        place: Where a text or a circle lies.
        radius: Of a circle.
        text: What a text says.
        turned: Whether it reads from the bottom up.
    """

    cell: str
    kind: str
    colour: str
    key: str
    looks: dict[str, str]
    vertices: npt.NDArray[np.float64] | None = None
    codes: Sequence[int] = ()
    place: tuple[float, float] = (0.0, 0.0)
    radius: float = 0.0
    text: str = ""
    turned: bool = False


@dataclass(frozen=True)
class Frame:
    """What part of a picture to show, and what to call it.

    Attributes:
        box: Left, top, width, height in points from the top left.
        alt: What the picture shows, in words.
        cell: The cell of a grid to show; "" for all of a picture without cells.
        attributes: Further attributes of the `<svg>` element.
        own: Scale and shift (y' = scale y + shift) that put the cell's data on its own y axis; None where there is no
            such axis.
        own_ticks: What that axis has in place of the shared one's lines and texts.
        other_axis: The ticks and label of another x axis.
        links: {key of marks: (id of what they lead to on the page, what that is)}.
    """

    box: tuple[float, float, float, float]
    alt: str
    cell: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    own: tuple[float, float] | None = None
    own_ticks: tuple[Mark, ...] = ()
    other_axis: tuple[Mark, ...] = ()
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def scaled(marks: Iterable[Mark], frame: Frame) -> str:
    """A picture whose texts grow and shrink with it."""
    left, top, width, height = frame.box
    head = {"viewBox": f"{_tenth(left)} {_tenth(top)} {_tenth(width)} {_tenth(height)}"}
    inside = [mark for mark in marks if mark.cell == frame.cell]
    if frame.own is None:
        told = {mark.key for mark in inside if mark.text}
        return _svg(head, frame, "".join(_linked(mark, frame.links, told) for mark in inside))
    data = [mark for mark in inside if mark.kind in _DATA]
    ticks = [mark for mark in inside if mark.colour == _SHARED]
    rest = [mark for mark in inside if mark.kind not in _DATA and mark.colour != _SHARED]
    identity = f"{frame.attributes['id']}-data"
    scale, shift = frame.own
    body = [f'<g class="same">{_all(ticks)}</g><g class="own">{_all(frame.own_ticks)}</g>{_all(rest)}']
    if scale <= _FINE:
        body.append(f'<g class="same"><g id="{identity}">{_all(data)}</g></g>')
        body.append(f'<use class="own" href="#{identity}" transform="matrix(1 0 0 {scale:.5g} 0 {shift:.5g})"/>')
    else:
        # Places are rounded to a tenth of a point, which so large a scale would show as steps.
        own = [_scaled(mark, scale, shift) for mark in data]
        body.append(f'<g class="same">{_all(data)}</g><g class="own">{_all(own)}</g>')
    return _svg(head, frame, "".join(body))


def _scaled(mark: Mark, scale: float, shift: float) -> Mark:
    """A mark at its places on another y axis."""
    vertices = None if mark.vertices is None else mark.vertices * (1.0, scale) + (0.0, shift)
    return replace(mark, vertices=vertices, place=(mark.place[0], mark.place[1] * scale + shift))


def flowing(marks: Sequence[Mark], frame: Frame) -> str:
    """A chart as wide as the page has room, its texts as large as the page's own, at any width.

    The box of the frame is that of the axes: the picture's other parts lie outside of it, where the sheet leaves room.
    """
    left, top, width, height = frame.box
    lines, ends, rest = [], [], []
    names = [printable(mark.text) for mark in marks if mark.kind == "name"]
    short = told_within(names, _NAME_NARROW, _WIDEST_NARROW)
    axis: list[Mark] = []
    for mark in marks:
        if mark.vertices is not None and mark.kind == "leader":
            (x0, y0), (x1, y1) = mark.vertices
            percent = _percent((x0 - left) / width)
            looks = _looks(mark)
            if x0 >= left + width - 3:
                ends.append(f'<path {looks} d="M{_tenth(x0 - left - width)} {_tenth(y0 - top)}')
                ends[-1] += f'L{_tenth(x1 - left - width)} {_tenth(y1 - top)}"/>'
            else:
                rest.append(f'<line {looks} x1="{percent}" y1="{_tenth(y0 - top)}" x2="100%" y2="{_tenth(y1 - top)}"/>')
        elif mark.vertices is not None:
            moved = (mark.vertices - (left, top)) * (_SPAN / width, 1.0)
            lines.append(f'<path {_looks(mark)} d="{path_data(moved, mark.codes)}"/>')
        elif mark.colour == X_AXIS:
            axis.append(mark)
        else:
            rest.append(_placed(mark, left, top, width, short))
    for name, ticks in (("ax1", axis), ("ax2", frame.other_axis)):
        if ticks:
            said = "".join(_placed(mark, left, top, width, short) for mark in _thinned(ticks))
            rest.append(f'<g class="{name}">{said}</g>')
    body = (
        f'<svg class="lines" aria-hidden="true" viewBox="0 0 {_SPAN:g} {_tenth(height)}" width="100%" '
        f'height="{_tenth(height)}" preserveAspectRatio="none">{"".join(lines)}</svg>'
    )
    if ends:
        body += f'<svg aria-hidden="true" x="100%" class="ends">{"".join(ends)}</svg>'
    return _svg(
        {"class": "flow", "width": "100%", "height": _tenth(height)},
        frame,
        body + "".join(rest),
    )


def _thinned(ticks: Sequence[Mark]) -> Iterator[Mark]:
    """The numbers of an axis, and its label last; every second of many long ones is marked to go on a phone."""
    *numbers, label = ticks
    crowded = len(numbers) > _FEW_TICKS and any(len(mark.text) > _LONG_TICK for mark in numbers)
    yield from (replace(mark, kind="odd") if crowded and n % 2 else mark for n, mark in enumerate(numbers))
    yield label


def path_data(vertices: npt.NDArray[np.float64], codes: Sequence[int]) -> str:
    """A path rounded to a tenth of a point, its lines written relative to each other.

    Args:
        vertices: (n, 2).
        codes: n commands as matplotlib numbers them: 1 move, 2 line, 3 and 4 curves, 79 close.
    """
    out: list[str] = []
    at = (0, 0)
    before = 0
    tenths = [(round(x), round(y)) for x, y in (vertices * 10).tolist()]
    for (x, y), code in zip(tenths, codes, strict=True):
        if code == 79:
            out.append("z")
        elif code == 2:
            out.append(_joined("" if before == 2 else "l", (x - at[0], y - at[1])))
            at = (x, y)
        else:
            letter = {1: "M", 3: "Q", 4: "C"}[code]
            out.append(_joined("" if before == code and code != 1 else letter, (x, y)))
            at = (x, y)
        before = code
    return "".join(out)


def _svg(head: Mapping[str, str], frame: Frame, body: str) -> str:
    attributes = {**head, "role": "img", "aria-label": printable(frame.alt), **frame.attributes}
    return f"<svg {_written(attributes)}>{body}</svg>"


def _all(marks: Iterable[Mark]) -> str:
    return "".join(_plain(mark) for mark in marks)


def _linked(mark: Mark, links: Mapping[str, tuple[str, str]], told: Collection[str]) -> str:
    """A mark, leading somewhere where it has a link; keys stop once at each, at its text where it has one."""
    if mark.key not in links:
        return _plain(mark)
    place, name = links[mark.key]
    is_beside = mark.key in told and not mark.text
    looks = {"tabindex": "-1", "aria-hidden": "true"} if is_beside else {"aria-label": printable(name)}
    return f"<a {_written({'href': f'#{place}', **looks})}>{_plain(mark)}</a>"


def _plain(mark: Mark) -> str:
    if mark.vertices is not None:
        return f'<path {_looks(mark)} d="{path_data(mark.vertices, mark.codes)}"/>'
    x, y = (_tenth(v) for v in mark.place)
    if mark.radius:
        return f'<circle {_looks(mark)} cx="{x}" cy="{y}" r="{_tenth(mark.radius)}"/>'
    turned = f' transform="rotate(-90 {x} {y})"' if mark.turned else ""
    return f'<text {_looks(mark)} x="{x}" y="{y}"{turned}>{escape(printable(mark.text))}</text>'


def _placed(mark: Mark, left: float, top: float, width: float, names: Mapping[str, str]) -> str:
    """A text or a dot: between the ends of the axis at a percentage, beside it at a distance."""
    x, y = mark.place[0] - left, _tenth(mark.place[1] - top)
    beside = f' dx="{_tenth(x if x < 0 else x - width)}"' if x < -1 or x > width + 1 else ""
    percent = ("0" if x < 0 else "100%") if beside else _percent(x / width)
    if mark.radius:
        return f'<circle {_looks(mark)} cx="{percent}" cy="{y}" r="{_tenth(mark.radius)}"/>'
    words = _at_both_widths(printable(mark.text), names if mark.kind == "name" else {})
    return f'<text {_looks(mark)} x="{percent}"{beside} y="{y}">{words}</text>'


def _at_both_widths(text: str, names: Mapping[str, str]) -> str:
    """A name in full, and the same shorter for a phone."""
    short = names.get(text, text)
    if short == text:
        return escape(text)
    return f'<tspan class="w">{escape(text)}</tspan><tspan class="n">{escape(short)}</tspan>'


def _looks(mark: Mark) -> str:
    """Class, key and presentation attributes."""
    coloured = f" c-{mark.colour}" if mark.kind and mark.colour and mark.colour not in (_SHARED, X_AXIS) else ""
    classes = f"{mark.kind}{coloured}"
    found = {"class": classes, "data-k": mark.key, **mark.looks}
    return _written({name: value for name, value in found.items() if value})


def _written(attributes: Mapping[str, str]) -> str:
    return " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())


def _percent(part: float) -> str:
    return f"{100 * part:.2f}".rstrip("0").rstrip(".") + "%"


def _joined(command: str, point: tuple[int, int]) -> str:
    """A command with its numbers, a space only where a number would run into the one before."""
    out = command
    for number in point:
        text = _tenths(number)
        out += text if text.startswith("-") or (out and out[-1].isalpha()) else f" {text}"
    return out


def _tenths(number: int) -> str:
    sign, number = ("-", -number) if number < 0 else ("", number)
    whole, tenth = divmod(number, 10)
    return f"{sign}{whole}" if not tenth else f"{sign}{whole or ''}.{tenth}"


def _tenth(number: float) -> str:
    return _tenths(round(number * 10))
