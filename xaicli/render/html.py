"""Elements of a page, in which no text of elsewhere becomes markup, and links between the pages of one folder."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from markupsafe import Markup, escape

from xaicli.files import write_whole
from xaicli.render.text import printable

_PROSE = frozenset({"p", "li", "h2", "h3", "b", "span", "figcaption"})
_PERCENT = re.compile(r"(?<=\d) %")
_VOID = frozenset({"img", "input", "meta", "image", "use"})


def text(value: object) -> Markup:
    """A value as the page shows it: markup as it is, all else escaped and without what hides or reorders text."""
    return value if isinstance(value, Markup) else escape(printable(str(value)))


def element(tag: str, /, *inside: object, **attributes: object) -> Markup:
    """An element.

    Args:
        tag: What kind.
        inside: What it holds, in order: elements, or text.
        attributes: By name, `_` for `-`, and a `_` at the end that Python asks for left out. True makes an attribute
            without a value; one that is None, False or "" is left out.
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False and value != ""
    )
    if tag in _VOID:
        return Markup(f"<{tag}{said}>")
    if tag in _PROSE:
        # "7.0 %" stays on one line.
        inside = tuple(_PERCENT.sub("\xa0%", part) if type(part) is str else part for part in inside)
    return Markup(f"<{tag}{said}>{joined(inside)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """Elements and texts one after the other."""
    return Markup("".join(map(text, parts)))


def choice(identity: str, title: str, words: Iterable[object], **attributes: object) -> Markup:
    """Buttons of which one is pressed, the first at the start; they work without a script."""
    buttons: list[Markup] = []
    for order, word in enumerate(words, 1):
        name = f"{identity}-{order}"
        buttons.append(element("input", type="radio", name=identity, id=name, checked=order == 1))
        buttons.append(element("label", word, for_=name))
    return element("fieldset", element("legend", title), *buttons, **attributes)


_OURS = '<meta name="generator" content="xaicli '
_LINK = re.compile(r'<a (?:hidden data-)?href="([\w-]+\.html)#s=([^"]*)">')
_SAMPLE = re.compile(r' data-s="([^"]*)"(?: data-at="([^"]*)")?')
_AT = "&at="
_RUN = re.compile(r'<meta name="run" content="([^"]*)">')


def link_pages(folder: Path) -> None:
    """Open the links of a folder's pages that lead somewhere, close those that do not.

    A link that says the mode and data set of its sample, or several, leads to one of them, or to one of which nothing
    says them. None leads to a page of another run.

    Raises:
        OSError: A page cannot be read or written.
    """
    pages = {path: text for path in sorted(folder.glob("*.html")) if (text := _page_of_ours(path))}
    shown: dict[str, dict[str, set[str]]] = {path.name: {} for path in pages}
    for path, text in pages.items():
        for sample, at in _SAMPLE.findall(text):
            shown[path.name].setdefault(html.unescape(sample), set()).update(html.unescape(at).split("\n"))
    runs = {path.name: found[1] if (found := _RUN.search(text[:4096])) else "" for path, text in pages.items()}

    def link(match: re.Match[str], run: str) -> str:
        page, sample = match.groups()
        named, _, at = html.unescape(sample).partition(_AT)
        places = shown.get(page, {}).get(printable(unquote(named)), set())
        alike = len({run, runs.get(page, "")} - {""}) < 2
        leads = alike and bool(places if not at else places & {"", *printable(unquote(at)).split("\n")})
        return f'<a {"" if leads else "hidden data-"}href="{page}#s={sample}">'

    for path, text in pages.items():
        linked = _LINK.sub(partial(link, run=runs[path.name]), text)
        if linked != text:
            write_whole(path, linked.encode())


def _page_of_ours(path: Path) -> str:
    """A page's text; "" for what is none of ours, or a link to elsewhere."""
    if path.is_symlink() or not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text if _OURS in text[:4096] else ""
