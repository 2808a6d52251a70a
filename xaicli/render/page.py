"""The self-contained page: one file, no network, a policy that lets nothing but our own script and sheet run."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import polars as pl
from markupsafe import Markup

from xaicli import __version__
from xaicli.answer import Answer
from xaicli.render.blocks import Blocks, all_of
from xaicli.render.canvas import DARK, LIGHT
from xaicli.render.html import element
from xaicli.render.machine import to_json
from xaicli.render.text import printable, to_copy
from xaicli.report.model import Report

if TYPE_CHECKING:
    from xaicli.render.figure import Pictures

_MOST_JSON = 1 << 17
"""A page carries its answer as JSON up to this many characters; beyond, `rows` is null and the file beside has them."""

_FEW_SECTIONS = 2
"""More than these get links at the top."""

_HEADING = 120
"""The longest heading."""

_HIDDEN = (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_ESCAPES = {code: f"\\u{code:04x}" for code in (*map(ord, "<>&"), *_HIDDEN)}
_EXTRA = {"light": {"card": "#f6f8fa", "edge": "#c3cad2"}, "dark": {"card": "#1c2127", "edge": "#444c56"}}


def page(report: Report, answer: Answer, pictures: Pictures, *, no_images: bool = False) -> str:
    """Render a report as HTML; the same text each time for the same input.

    Args:
        report: What to show.
        answer: Whose JSON the page carries.
        pictures: The charts, each drawn once.
        no_images: Leave out pictures of samples.
    """
    blocks = Blocks(pictures, no_images=no_images)
    sections = [
        element(
            "section",
            "\n",
            *((_named("h2", section.title),) if section.title != report.title else ()),
            *(part for shown in blocks.under(section.title, section.blocks) for part in ("\n", shown)),
            "\n",
            id=section.anchor,
        )
        for section in report.sections
    ]
    # JSON is longer than the values in memory, so what is larger than that need not be written to be measured.
    tables = [answer.data, *(value for value in answer.extra.values() if isinstance(value, pl.DataFrame))]
    json = to_json(answer, rows=sum(table.estimated_size() for table in tables) <= _MOST_JSON)
    if len(json) > _MOST_JSON:
        json = to_json(answer, rows=False)
    style, script = style_sheet(blocks.most_choices), _read("page.js")
    body = element(
        "body",
        *_on_lines(_header(report), element("main", *_on_lines(*sections, _made(report)))),
        element("script", Markup(in_script(json)), type="application/json", id="answer"),
        "\n",
        element("script", Markup(in_script(blocks.charts)), type="application/json", id="charts"),
        "\n",
        element("script", Markup(script)),
        "\n",
    )
    head = element("head", *_on_lines(*_head(report, answer, style, script)))
    return f"<!doctype html>\n{element('html', *_on_lines(head, body), lang='en')}\n"


def _head(report: Report, answer: Answer, style: str, script: str) -> Iterator[Markup]:
    yield element("meta", charset="utf-8")
    # Its quotes stay readable; nothing in it is from outside.
    allowed = Markup(policy(style, script))
    yield Markup(f'<meta http-equiv="Content-Security-Policy" content="{allowed}">')
    yield element("meta", name="viewport", content="width=device-width, initial-scale=1")
    yield element("meta", name="generator", content=f"xaicli {__version__}")
    if report.run_id:
        yield element("meta", name="run", content=report.run_id)
    yield element("title", report.title, " · ", printable(answer.run, limit=120))
    yield element("style", Markup(style))


def _header(report: Report) -> Markup:
    parts = [element("h1", report.title), element("p", report.run_line, class_="run")]
    parts += [element("p", report.sentence, class_="lead")] if report.sentence else []
    if report.warnings:
        parts.append(element("ul", *(element("li", warning) for warning in report.warnings), class_="warnings"))
    if len(report.sections) > _FEW_SECTIONS:
        links = [_named("a", s.title, href=f"#{s.anchor}") for s in report.sections]
        parts.append(element("nav", *links, element("a", "How this was made", href="#made"), aria_label="parts"))
    return element("header", *_on_lines(*parts), data_absent=report.absent)


def _named(tag: str, title: str, **attributes: object) -> Markup:
    """A heading or a link to it; of one that is cut a hover says all."""
    shown = printable(title, limit=_HEADING)
    return element(tag, shown, title=all_of(title, shown), **attributes)


def _made(report: Report) -> Markup:
    pairs = (*report.made, ("written by", f"xaicli {__version__}"))
    said: list[Markup] = []
    for what, value in pairs:
        is_command = what == "command"
        shown = to_copy(value) if is_command else value
        said += [element("dt", what), element("dd", shown, class_="command" if is_command else "")]
    return element(
        "section", *_on_lines(element("h2", "How this was made"), element("dl", *said, class_="made")), id="made"
    )


def _on_lines(*parts: object) -> list[object]:
    return ["\n", *(piece for part in parts for piece in (part, "\n"))]


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: pictures from the page itself, and the one sheet and script by their hashes."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def in_script(json: str) -> str:
    """JSON that cannot end the script element it stands in, nor reorder the page's source to a reader's eye."""
    return json.translate(_ESCAPES)


@functools.cache
def style_sheet(choices: int = 1) -> str:
    """The sheet: our palettes as variables, then the rules, one for each place in a set of buttons.

    Args:
        choices: The most buttons of one set.
    """
    light = _variables(LIGHT | _EXTRA["light"] | {"opacity": ".6"})
    dark = _variables(DARK | _EXTRA["dark"])
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}\n"
        f"@media screen {{ :root[data-theme=dark] {{ color-scheme: dark; {dark} }} "
        ":root[data-theme=light] { color-scheme: light; } }\n"
        + _read("page.css")
        + "".join(map(_choice, range(choices)))
    )


def _choice(order: int) -> str:
    """What a button does without a script: it shows its view, or hides its maps."""
    button = f"input:nth-of-type({order + 1})"
    return (
        "@supports selector(:has(a)) { "
        f".views:has(> fieldset > {button}:checked) > .view:nth-of-type({order + 1}) {{ display: block; }} "
        f".maps:has(.methods > {button}:not(:checked)) .m{order} {{ display: none; }} }}\n"
    )


def _variables(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (files("xaicli.render") / name).read_text(encoding="utf-8")
