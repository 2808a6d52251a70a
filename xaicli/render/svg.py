"""matplotlib's SVG made fit for a page under a strict Content-Security-Policy.

Each style declaration becomes a presentation attribute (a policy without 'unsafe-inline' drops `style=`), our group ids
become classes and keys that the page's sheet and script know, ids are made unique to the page, and the size halves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_KEPT = {
    "fill",
    "fill-opacity",
    "opacity",
    "stroke",
    "stroke-dasharray",
    "stroke-linecap",
    "stroke-opacity",
    "stroke-width",
    "text-anchor",
}
_DRAWN = {"line", "dot", "band", "bar", "name", "leader", "points", "ring"}
"""The first words of our group ids: `line.max.s-3` is the line of sample 3, in the colour `max`."""


@dataclass(frozen=True)
class Frame:
    """What part of a picture to show, and what to call it.

    Attributes:
        box: Left, top, width, height in points from the top left.
        identity: A prefix that makes ids unique on the page.
        alt: What the picture shows, in words.
        axes: The axes to show; None for all.
        attributes: Further attributes of the `<svg>` element.
    """

    box: tuple[float, float, float, float]
    identity: str
    alt: str
    axes: int | None = None
    attributes: Mapping[str, str] | None = None


def inline(source: bytes, frames: Sequence[Frame]) -> list[str]:
    """Turn a picture into inline SVG, one text per frame.

    Args:
        source: What matplotlib wrote.
        frames: The parts to show.
    """
    root = ElementTree.fromstring(source)
    shapes = {e.attrib["id"]: e for e in root.iter() if "id" in e.attrib}
    figure = next(e for e in root if e.get("id", "").startswith("figure"))
    return [_part(figure, frame, shapes) for frame in frames]


def _part(figure: ElementTree.Element, frame: Frame, shapes: Mapping[str, ElementTree.Element]) -> str:
    left, top, width, height = (_short(v) for v in frame.box)
    head = {"viewBox": f"{left} {top} {width} {height}", "role": "img", "aria-label": frame.alt}
    svg = ElementTree.Element("svg", {**head, **(frame.attributes or {})})
    clips: dict[str, str] = {}
    for child in figure:
        name = child.get("id", "")
        is_axes = name.startswith("axes-")
        if is_axes and frame.axes is not None and name != f"axes-{frame.axes}":
            continue
        if not is_axes and frame.axes is not None:
            continue
        svg.extend(_rewritten(child, shapes, clips, frame.identity))
    defs = ElementTree.Element("defs")
    for source, target in clips.items():
        clip = ElementTree.SubElement(defs, "clipPath", {"id": target})
        for shape in shapes[source]:
            clip.append(ElementTree.Element(_tag(shape), {k: _short(float(v)) for k, v in shape.attrib.items()}))
    if clips:
        svg.insert(0, defs)
    return ElementTree.tostring(svg, encoding="unicode")


def _rewritten(
    element: ElementTree.Element,
    shapes: Mapping[str, ElementTree.Element],
    clips: dict[str, str],
    identity: str,
) -> Iterator[ElementTree.Element]:
    """The element as the page takes it: none, one, or the children of a group that says nothing."""
    tag, name = _tag(element), element.get("id", "")
    if tag in ("defs", "metadata", "style") or name == "header" or name.startswith("patch_"):
        return
    out = ElementTree.Element(tag, _attributes(element))
    if clip := element.get("clip-path"):
        source = clip[5:-1]
        out.set("clip-path", f"url(#{clips.setdefault(source, f'{identity}-{len(clips)}')})")
    if tag == "use":
        yield _resolved(element, out, shapes)
        return
    if tag == "path":
        out.set("d", path_data(element.attrib.get("d", "")))
    elif tag == "text":
        out.text = "".join(element.itertext())
        # matplotlib turns a text by minus nothing.
        if not element.get("transform", "").startswith("rotate(-0 "):
            out.set("transform", _NUMBER.sub(lambda m: _short(float(m.group())), element.get("transform", "")))
    for child in element:
        if tag != "text":
            out.extend(_rewritten(child, shapes, clips, identity))
    kind, _, rest = name.partition(".")
    if kind in _DRAWN:
        colour, _, key = rest.partition(".")
        out.set("class", f"{kind} c-{colour}")
        if key:
            out.set("data-k", key)
    elif name == "grid":
        out.set("class", "grid")
    elif tag == "g":
        yield from out
        return
    yield out


def _resolved(
    element: ElementTree.Element, out: ElementTree.Element, shapes: Mapping[str, ElementTree.Element]
) -> ElementTree.Element:
    """A reference to a shape replaced by the shape, moved to its place."""
    shape = shapes[element.attrib[_HREF][1:]]
    move = float(element.get("x", 0)), float(element.get("y", 0))
    attributes = {**_attributes(shape), **out.attrib}
    return ElementTree.Element("path", {**attributes, "d": path_data(shape.attrib["d"], move)})


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    """The element's own looks as presentation attributes."""
    found: dict[str, str] = {}
    if _tag(element) == "text":
        found = {key: _short(float(element.attrib[key])) for key in ("x", "y") if key in element.attrib}
    for declaration in element.get("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in _KEPT:
            found[key] = _NUMBER.sub(lambda m: _short(float(m.group())), value) if "#" not in value else value
        elif key == "font-size":
            found[key] = value.removesuffix("px")
        elif key == "font-weight":
            found[key] = value
    return found


def path_data(text: str, move: tuple[float, float] = (0.0, 0.0)) -> str:
    """Path data with every point moved and rounded to a tenth of a point.

    matplotlib writes absolute commands only, so numbers alternate between x and y.
    """
    out: list[str] = []
    axis = 0
    for word in text.split():
        if word[0].isalpha():
            out.append(word)
            axis = 0
        else:
            number = _short(float(word) + move[axis])
            out.append(number if out[-1].isalpha() or number.startswith("-") else f" {number}")
            axis = 1 - axis
    return "".join(out)


def _short(number: float) -> str:
    text = f"{number:.1f}"
    return "0" if text == "-0.0" else text.removesuffix(".0")


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).removeprefix(_SVG)
