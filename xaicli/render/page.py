"""The self-contained page: one file, no network, a policy that lets nothing but our own script and sheet run."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import polars as pl

from xaicli import __version__
from xaicli.answer import Answer
from xaicli.render.blocks import Blocks
from xaicli.render.machine import to_json
from xaicli.render.palette import DARK, LIGHT
from xaicli.render.text import printable
from xaicli.report.model import Report

if TYPE_CHECKING:
    from jinja2 import Template

    from xaicli.render.figure import Pictures

_MOST_JSON = 1 << 17
"""A page carries its answer as JSON up to this many characters; beyond, `rows` is null and the file beside has them."""

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
    from markupsafe import Markup

    blocks = Blocks(pictures, no_images=no_images)
    sections = [
        {
            "title": printable(section.title, limit=120),
            "anchor": section.anchor,
            "blocks": [blocks.context(b) for b in section.blocks],
        }
        for section in report.sections
    ]
    # JSON is longer than the values in memory, so what is larger than that need not be written to be measured.
    tables = [answer.data, *(value for value in answer.extra.values() if isinstance(value, pl.DataFrame))]
    json = to_json(answer, rows=sum(table.estimated_size() for table in tables) <= _MOST_JSON)
    if len(json) > _MOST_JSON:
        json = to_json(answer, rows=False)
    style, script = style_sheet(blocks.most_choices), _read("page.js")
    return _template().render(
        report=report,
        sections=sections,
        run=printable(answer.run, limit=120),
        version=__version__,
        policy=Markup(policy(style, script)),  # its quotes stay readable; nothing in it is from outside
        style=Markup(style),
        script=Markup(script),
        answer=Markup(in_script(json)),
        charts=Markup(in_script(blocks.charts)),
    )


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


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    return environment.from_string(_read("page.html"))


def _shown(value: object) -> object:
    """What the template puts on the page: text without characters that hide or reorder others; then it is escaped."""
    return printable(value) if type(value) is str else value
