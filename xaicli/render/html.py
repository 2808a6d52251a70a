"""Elements of a page: what is not markup already is escaped, so that no text of elsewhere becomes part of it."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from xaicli.render.text import printable

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
