"""matplotlib's SVG made fit for a page under a strict Content-Security-Policy.

Each style declaration becomes a presentation attribute (a policy without 'unsafe-inline' drops `style=`), our group ids
become classes and keys that the page's sheet colours and the script knows, all other ids go, and the size halves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from xaicli.render.text import printable

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_COLOURS = {"fill", "stroke"}
_KEPT = {"fill-opacity", "opacity", "stroke-dasharray", "stroke-opacity", "stroke-width", "text-anchor"}
_DRAWN = {"line", "dot", "band", "span", "bar", "name", "leader", "points", "ring"}
"""The first words of our group ids: `line.max.s-3` is the line of sample 3, in the colour `max`."""


@dataclass(frozen=True)
class Frame:
    """What part of a picture to show, and what to call it.

    Attributes:
        box: Left, top, width, height in points from the top left.
        alt: What the picture shows, in words.
        axes: The axes to show; None for all.
        attributes: Further attributes of the `<svg>` element.
    """

    box: tuple[float, float, float, float]
    alt: str
    axes: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def inline(source: bytes, frames: Sequence[Frame]) -> list[str]:
    """Turn a picture into inline SVG, one text per frame.

    Args:
        source: What matplotlib wrote; nothing in it may need clipping.
        frames: The parts to show.
    """
    root = ElementTree.fromstring(source)
    shapes = {e.attrib["id"]: e for e in root.iter() if "id" in e.attrib}
    figure = next(e for e in root if e.get("id", "").startswith("figure"))
    return [_part(figure, frame, shapes) for frame in frames]


def _part(figure: ElementTree.Element, frame: Frame, shapes: Mapping[str, ElementTree.Element]) -> str:
    head = {"viewBox": " ".join(_short(v) for v in frame.box), "role": "img", "aria-label": printable(frame.alt)}
    svg = ElementTree.Element("svg", {**head, **frame.attributes})
    for child in figure:
        name = child.get("id", "")
        if frame.axes is None or name == f"axes-{frame.axes}":
            svg.extend(_rewritten(child, shapes, classed=False))
    return ElementTree.tostring(svg, encoding="unicode").replace(" />", "/>")


def _rewritten(
    element: ElementTree.Element, shapes: Mapping[str, ElementTree.Element], *, classed: bool
) -> Iterator[ElementTree.Element]:
    """The element as the page takes it: none, one, or the children of a group that says nothing.

    Args:
        element: What matplotlib wrote.
        shapes: What `<use>` refers to, by id.
        classed: Whether a class gives the colour, so that attributes need not.
    """
    tag, name = _tag(element), element.get("id", "")
    kind, _, rest = name.partition(".")
    if tag in ("defs", "metadata", "style") or name == "header" or name.startswith("patch_"):
        return
    if tag == "path":
        looks = _attributes(element, classed=classed)
        yield ElementTree.Element("path", {**looks, "d": path_data(element.attrib.get("d", ""))})
    elif tag == "use":
        yield _resolved(element, shapes, classed=classed)
    elif tag == "text":
        yield _text(element)
    else:
        ours = kind in _DRAWN or name == "grid"
        children = [out for child in element for out in _rewritten(child, shapes, classed=classed or ours)]
        yield from _grouped(children, kind, rest) if ours else children


def _grouped(children: list[ElementTree.Element], kind: str, rest: str) -> Iterator[ElementTree.Element]:
    """A group of ours: its only child bears the class, several get a group."""
    colour, _, key = rest.partition(".")
    attributes = {"class": f"{kind} c-{colour}" if colour else kind, **({"data-k": key} if key else {})}
    if len(children) == 1:
        children[0].attrib.update(attributes)
        yield children[0]
        return
    group = ElementTree.Element("g", attributes)
    group.extend(children)
    yield group


def _text(element: ElementTree.Element) -> ElementTree.Element:
    out = ElementTree.Element("text", _attributes(element, classed=True))
    out.attrib.update({key: _short(float(element.attrib[key])) for key in ("x", "y") if key in element.attrib})
    out.text = "".join(element.itertext())
    # matplotlib turns a text by minus nothing.
    if "transform" in element.attrib and not element.attrib["transform"].startswith("rotate(-0 "):
        out.set("transform", _NUMBER.sub(lambda m: _short(float(m.group())), element.attrib["transform"]))
    return out


def _resolved(
    element: ElementTree.Element, shapes: Mapping[str, ElementTree.Element], *, classed: bool
) -> ElementTree.Element:
    """A reference to a shape replaced by the shape, moved to its place."""
    shape = shapes[element.attrib[_HREF][1:]]
    looks = _attributes(shape, classed=classed) | _attributes(element, classed=classed)
    move = float(element.get("x", 0)), float(element.get("y", 0))
    return ElementTree.Element("path", {**looks, "d": path_data(shape.attrib["d"], move)})


def _attributes(element: ElementTree.Element, *, classed: bool) -> dict[str, str]:
    """The element's own looks as presentation attributes."""
    found: dict[str, str] = {}
    for declaration in element.get("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in _KEPT:
            found[key] = _NUMBER.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), value)
        elif key in _COLOURS and not classed:
            found[key] = value
        elif key == "font-size":
            found[key] = value.removesuffix("px")
        elif key == "font-weight":
            found[key] = value
    return found


def path_data(text: str, move: tuple[float, float] = (0.0, 0.0)) -> str:
    """Path data with every point moved, rounded to a tenth of a point, and lines written relative to each other.

    matplotlib writes absolute commands only, so numbers alternate between x and y.
    """
    out: list[str] = []
    at = (0, 0)
    command = ""
    for name, points in _commands(text, move):
        if name == "L":
            step = points[0][0] - at[0], points[0][1] - at[1]
            out.append(_joined("" if command == "L" else "l", [step]))
        elif name:
            out.append(_joined(name, points))
        at = points[-1] if points else at
        command = name
    return "".join(out)


def _commands(text: str, move: tuple[float, float]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """(command, points in tenths) in order."""
    name, numbers = "", list[float]()
    for word in [*text.split(), "Z"]:
        if not word[0].isalpha():
            numbers.append(float(word))
            continue
        if name:
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            yield name, [(round((x + move[0]) * 10), round((y + move[1]) * 10)) for x, y in pairs]
        name, numbers = word, []


def _joined(command: str, points: Sequence[tuple[int, int]]) -> str:
    """A command with its numbers, a space only where a number would run into the one before."""
    out = command
    for number in (n for point in points for n in point):
        text = _tenths(number)
        out += text if text.startswith("-") or (out and out[-1].isalpha()) else f" {text}"
    return out


def _tenths(number: int) -> str:
    sign, number = ("-", -number) if number < 0 else ("", number)
    whole, tenth = divmod(number, 10)
    return f"{sign}{whole}" if not tenth else f"{sign}{whole or ''}.{tenth}"


def _short(number: float) -> str:
    return _tenths(round(number * 10))


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).removeprefix(_SVG)
