"""Blocks of a report as elements of the page: pictures drawn, numbers in words, ids handed out."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

from markupsafe import Markup

from xaicli.render.canvas import ems
from xaicli.render.figure import line_values, point_values
from xaicli.render.html import choice, element, joined
from xaicli.render.lines import end_names, widest_tick
from xaicli.render.machine import dump
from xaicli.render.pictures import LOSSLESS_PIXELS, data_uri, shown_panels
from xaicli.render.text import averaged, printable, told_apart
from xaicli.report import numbers
from xaicli.report.charts import BarChart, Image, ImageChart, LineChart, MatrixChart, Multiples, ScatterChart, Tone
from xaicli.report.model import (
    FIXED,
    UNKNOWN,
    Block,
    Card,
    Cell,
    Column,
    Figure,
    Figures,
    Gallery,
    Link,
    MapGrid,
    MapPanel,
    MapRow,
    Passage,
    Scale,
    Table,
    Text,
    Views,
)
from xaicli.words import fraction

if TYPE_CHECKING:
    from xaicli.render.figure import Chart, Pictures

_SCALES = {"clipped": "clipped at 99 %", "full": "full range", "signed": "signed"}
_TITLE = 36
"""The longest name of a sample over its card: two lines."""
_CELL_NAME = 20
"""The longest name over a small chart: half the width of a phone."""
_SHORT_TICK, _MOST_LEFT = 3.2, 14
"""A number of a y axis for which the sheet has room anyway, in font sizes, and for how many more it has classes."""
_PAGE_FONT, _BESIDE_NAME = 12, 20
"""The size of a chart's texts on the page, and what lies beside the name at the end of a line, in pixels."""
_HEADS = {Cell.SPARKLINE: "drawn", Cell.NUMBER: "num", Cell.INTEGER: "num"}
"""The class of a column's heading; one that is drawn has no text and is not copied."""
_SPARK_POINTS = 40
"""A line of a finger's width shows no more."""
_LONG = 24
"""Characters of a cell or a line of a card that would wrap many times on a phone."""
_SENTENCE = 62
"""Characters of a cell that is a sentence, which gets more room than a name."""
_SPECIAL_TOKEN = re.compile(r"\[[A-Z]+[0-9]*\]|<[^<>\s]+>|<\|[^|]+\|>")
"""What tokenizers put among the words: [CLS], </s>, <|endoftext|>."""
_WORDS = 120
"""So many words of a text are shown, the others on request."""
_ON_CARD = 80
"""The longest fact on a card; a hover says more."""
_SHOWN = 300
"""The longest text of a cell or card: a label may be kilobytes long."""
_HOVER = 1000
"""The longest text that a hover says, and that is copied from a cell."""


class Blocks:
    """Turns blocks into elements, sharing pictures' values between charts that show the same lines.

    Args:
        pictures: The charts, each drawn once.
        no_images: Leave out pictures of samples.
    """

    def __init__(self, pictures: Pictures, *, no_images: bool = False) -> None:
        self._pictures = pictures
        self._no_images = no_images
        self._data: dict[str, str] = {}
        self._identities = 0
        self._heading = ""
        self._passages: dict[str, str] = {}
        self.most_choices = 1
        """The most buttons of a set of views or maps so far."""

    @property
    def charts(self) -> str:
        """The values behind the charts as JSON, for the script: {id: {xl, yl, lines: [{k, n, x, y, lo, hi, c, t}]}}."""
        return "{" + ",".join(f'"{name}":{text}' for text, name in self._data.items()) + "}"

    def under(self, heading: str, blocks: Sequence[Block]) -> list[Markup]:
        """The blocks of a section, without titles that only say its heading again."""
        self._heading = heading
        self._passages = told_apart([block.title for block in blocks if isinstance(block, Passage)], _TITLE)
        return [self.shown(block) for block in blocks]

    def shown(self, block: Block) -> Markup:
        """One block as the page has it."""
        match block:
            case LineChart():
                return self._line_chart(block)
            case ScatterChart():
                return self._figure("square", block, point_values(block), self._svg(block))
            case MatrixChart() | BarChart():
                kind = "bars" if isinstance(block, BarChart) else "matrix"
                return self._figure(kind, block, {"lines": []}, self._svg(block))
            case Multiples():
                return self._multiples(block)
            case Table():
                return _table(block, titled=block.title != self._heading)
            case Gallery():
                return self._gallery(block)
            case Text():
                return _paragraph(block)
            case Figures():
                return element("div", *map(_key_figure, block.figures), class_="figures")
            case ImageChart():
                return self._image(block)
            case Views():
                self.most_choices = max(self.most_choices, len(block.views))
                views = [element("div", *map(self.shown, inner), class_="view") for inner in block.views.values()]
                buttons = choice(self._identity(), block.title, block.views, hidden=len(block.views) == 1)
                return element("div", buttons, *views, class_="views")
            case MapGrid():
                return self._maps(block)
            case Passage():
                return _passage(block, self._passages.get(block.title, printable(block.title, limit=_TITLE)))
            case _:
                assert_never(block)

    def _image(self, block: ImageChart) -> Markup:
        if self._no_images:
            return element("p", "Pictures were left out (--no-images).", class_="note")
        picture = element("img", src=data_uri(block.image), alt=block.image.alt)
        return element("figure", picture, element("figcaption", block.title))

    def _identity(self) -> str:
        self._identities += 1
        return f"b{self._identities}"

    def _values(self, values: Mapping[str, Any]) -> str:
        text = dump(values)
        return self._data.setdefault(text, f"d{len(self._data)}")

    def _svg(self, chart: Chart) -> Markup:
        # Written by `render.svg`, which escapes.
        return Markup(self._pictures.of(chart).svgs[0])

    def _line_chart(self, chart: LineChart, *, titled: bool = True) -> Markup:
        plot = element("div", self._svg(chart), class_=f"plot room{_room(chart)}{_left(chart)}")
        buttons = None
        if chart.other_axis is not None:
            buttons = choice(self._identity(), "axis", (chart.x_label, chart.other_axis.label), class_="choice")
        return self._figure("line", chart, line_values(chart), plot, buttons, titled=titled)

    def _figure(
        self,
        kind: str,
        chart: LineChart | ScatterChart | MatrixChart | BarChart,
        values: Mapping[str, Any],
        plot: Markup,
        buttons: Markup | None = None,
        *,
        titled: bool = True,
    ) -> Markup:
        titled = titled and chart.title not in ("", self._heading)
        shown = printable(chart.title, limit=_SHOWN)
        title = element("p", shown, class_="title", title=all_of(chart.title, shown)) if titled else ""
        legend = getattr(chart, "legend", "")
        caption = element("figcaption", legend) if legend else ""
        either = " either" if buttons is not None else ""
        inside = (title, buttons or "", plot, caption)
        return element("figure", *inside, class_=f"chart k-{kind}{either}", data_d=self._values(values))

    def _multiples(self, grid: Multiples) -> Markup:
        cells = []
        short_names = told_apart([chart.title for chart in grid.charts], _CELL_NAME)
        for chart, drawn in zip(grid.charts, self._pictures.of(grid).svgs, strict=True):
            name = printable(chart.title, limit=_SHOWN)
            head = element("b", short_names[chart.title], title=name), element("span", chart.subtitle)
            inside = element("figcaption", *head), Markup(drawn)
            values = self._values(line_values(chart))
            cells.append(element("figure", *inside, class_="cell", data_k=chart.series[-1].key, data_d=values))
        own = any(chart.y_own for chart in grid.charts)
        buttons = choice(self._identity(), "y axis", ("the same for all", "its own"), class_="choice") if own else ""
        both = element("div", buttons, element("div", *cells, class_="cells"), class_="either cells-either")
        return joined((element("h3", grid.title), both, element("p", grid.caption, class_="note")))

    def _gallery(self, block: Gallery) -> Markup:
        pictured = not self._no_images and any(card.image for card in block.cards)
        short_titles = told_apart([card.title for card in block.cards], _TITLE)
        lines = told_apart([line for card in block.cards for line in (card.verdict, *card.lines)], _SHOWN)
        facts = told_apart([value.text for card in block.cards for _, value in card.facts], _ON_CARD)
        cards = [self._card(card, short_titles[card.title], lines | facts, pictured=pictured) for card in block.cards]
        title = element("h3", block.title) if block.title else ""
        told = ". ".join(filter(None, (block.note, block.legend if pictured else "")))
        note = element("p", told, class_="note") if told else ""
        said = (text for c in block.cards for text in (c.title, *c.lines, *(fact.text for _, fact in c.facts)))
        wordy = any(len(text) > _LONG for text in said)
        kinds = "cards" + (" wordy" if wordy else "") + ("" if pictured else " plain")
        return joined((title, element("div", *cards, class_=kinds), note))

    def _card(self, card: Card, title: str, texts: Mapping[str, str], *, pictured: bool) -> Markup:
        words: list[object] = [element("h4", title, title=card.title if title != card.title else "")]
        words += [_line(card.verdict, texts[card.verdict], "verdict")] if card.verdict else []
        words += [_line(line, texts[line]) for line in card.lines]
        facts = _facts(card.facts, texts) if card.facts else ""
        inside = element("div", *words, _links(card.links), class_="words"), facts, spark(card.sparkline, fill=True)
        picture: object = element("span", "no picture", class_="picture tile") if pictured else ""
        if card.image is not None and not self._no_images:
            pixels = " pixels" if card.image.width * card.image.height <= LOSSLESS_PIXELS else ""
            picture = element("img", class_=f"picture{pixels}", src=data_uri(card.image), alt=card.image.alt)
        at = card.place if card.deep_link else ""
        named = {"class_": f"card c-{card.tone}", "data_k": card.key, "data_s": card.deep_link, "data_at": at}
        return element("article", picture, *inside, **named)

    def _maps(self, grid: MapGrid) -> Markup:
        rows = [replace(row, panels=shown_panels(row, no_images=self._no_images)) for row in grid.rows]
        titles = {panel.method: panel.toggle or panel.title for row in rows for panel in row.panels}
        names = (view.name for row in rows for panel in row.panels for view in panel.views)
        scales = [name for name in dict.fromkeys(names) if name != FIXED]
        self.most_choices = max(self.most_choices, len(titles))
        identity = self._identity()
        controls: list[Markup] = []
        if scales:
            size = element("span", "low ", element("i"), " high", class_="size")
            sign = element("span", "against ", element("i"), " for", class_="sign")
            scaled = [_SCALES.get(name, name) for name in scales]
            controls = [
                choice(f"{identity}-b", "view", ("map", "overlay", "mask"), class_="blend"),
                choice(f"{identity}-s", "scale", scaled, class_="scale"),
                element("p", size, sign, class_="ramp"),
            ]
        boxes: list[Markup] = []
        for order, title in enumerate(titles.values(), 1):
            name = f"{identity}-m{order}"
            boxes += [element("input", type="checkbox", id=name, checked=True), element("label", title, for_=name)]
        controls.append(element("fieldset", element("legend", grid.toggles), *boxes, class_="methods"))
        inputs = [
            {} if self._no_images else {of: f"{identity}-i{i}" + f"-{n}" * (n > 0) for n, of in enumerate(row.inputs)}
            for i, row in enumerate(rows)
        ]
        kept = [
            _stored(row.inputs[of], name) for row, ids in zip(rows, inputs, strict=True) for of, name in ids.items()
        ]
        store = element(
            "svg",
            element("defs", *kept),
            class_="store",
            aria_hidden="true",
        )
        note = element("p", grid.note, class_="note") if grid.note else ""
        named = told_apart([row.title for row in rows], _TITLE)
        texts = told_apart([value.text for row in rows for _, value in row.facts], _ON_CARD)
        classes = told_apart([name for row in rows for name, *_ in row.probabilities], _CELL_NAME)
        shown = [
            self._map_row(row, named[row.title], (texts, classes), list(titles), ids)
            for row, ids in zip(rows, inputs, strict=True)
        ]
        return element("div", store, element("div", *controls, class_="controls"), note, *shown, class_="maps")

    def _map_row(
        self,
        row: MapRow,
        title: str,
        short: tuple[Mapping[str, str], Mapping[str, str]],
        methods: Sequence[str],
        input_ids: Mapping[str, str],
    ) -> Markup:
        texts, classes = short
        words: list[object] = [element("h3", title, title=row.title if title != row.title else "")]
        words += [_line(line, printable(line, limit=_SHOWN), "flat" if line == row.wrong else "") for line in row.lines]
        bars = [
            part for name, value, tone in row.probabilities for part in _probability(name, classes[name], value, tone)
        ]
        known = _facts(row.facts, texts) if row.facts else ""
        words += [element("div", *bars, class_="bars3"), known, _links(row.links)]
        panels = []
        for of, input_id in input_ids.items():
            under = _under(row.inputs[of], input_id, role="img", aria_label=row.inputs[of].alt)
            caption = element("figcaption", element("b", f"input · {of}" if len(row.inputs) > 1 else "input"))
            panels.append(element("figure", element("div", under, class_="stack"), caption, class_="panel"))
        panels += [self._panel(row, panel, methods.index(panel.method), input_ids) for panel in row.panels]
        inside = element("div", *words, class_="words"), element("div", *panels, class_="panels")
        return element("article", *inside, class_="maprow", data_k=row.key, data_s=row.deep_link, data_at=row.place)

    def _panel(self, row: MapRow, panel: MapPanel, order: int, input_ids: Mapping[str, str]) -> Markup:
        inside: list[object] = []
        if panel.views:
            dim = panel.views[0].name == FIXED
            shape = row.inputs.get(panel.input, panel.views[0].image)
            stack = [_under(shape, input_ids.get(panel.input, ""), dim=dim, aria_hidden="true")]
            for view in panel.views:
                pixels = " pixels" if view.image.width * view.image.height <= LOSSLESS_PIXELS else ""
                looks = f"over {view.name}{pixels}"
                stack.append(element("img", class_=looks, src=data_uri(view.image), alt=view.image.alt))
            inside.append(element("div", *stack, class_="stack"))
        # The panel's own caption says what its chart is.
        if isinstance(panel.chart, LineChart):
            inside.append(self._line_chart(panel.chart, titled=False))
        elif isinstance(panel.chart, BarChart):
            inside.append(self._figure("bars", panel.chart, {"lines": []}, self._svg(panel.chart), titled=False))
        if panel.tokens:
            inside.append(_words(panel.tokens, panel.special))
        lines = [part for line in panel.lines for part in (Markup("<br>"), line)][1:]
        flat = (" · " if lines else " ", element("span", "flat", class_="flat")) if panel.flat else ()
        inside.append(element("figcaption", element("b", panel.title), *lines, *flat))
        return element("figure", *inside, class_=f"panel m{order}")


def _paragraph(block: Text) -> Markup:
    faint = block.tone is Tone.FAINT
    tone = "note" if faint else "" if block.tone is Tone.PLAIN else f"c-{block.tone}"
    return element("p", block.text, class_=tone)


def _passage(block: Passage, title: str) -> Markup:
    said = (
        element("h4", title, title=block.title if title != block.title else ""),
        *(element("p", line) for line in block.lines),
    )
    named = {"class_": "passage", "data_k": block.key, "data_s": block.deep_link, "data_at": block.place}
    return element("article", *said, _words(block.words), **named)


def _words(words: Sequence[tuple[str, float]], special: Collection[int] | None = None) -> Markup:
    """Words coloured by their strength, those that stand for no text marked; the rest of a long text on request.

    Args:
        words: Each with its strength in [0, 1].
        special: The places of those that stand for no text; told by their spelling when None.
    """
    if special is None:
        special = [place for place, (text, _) in enumerate(words) if _SPECIAL_TOKEN.fullmatch(text.strip())]
    shown = [
        part
        for place, (text, strength) in enumerate(words)
        for part in (
            element(
                "span",
                printable(text, limit=_SHOWN),
                class_=f"t{_tenths(strength)}" + (" special" if place in special else ""),
            ),
            " ",
        )
    ]
    head = element("p", *shown[: 2 * _WORDS], class_="tokens")
    if len(words) <= _WORDS:
        return head
    rest = element("p", *shown[2 * _WORDS :], class_="tokens")
    more = element("details", element("summary", f"{len(words) - _WORDS:,} more words"), rest)
    return joined((head, more))


def _line(text: str, shown: str, kind: str = "") -> Markup:
    """A line of a card; of one that is cut a hover says all."""
    return element("span", shown, class_=kind, title=all_of(text, shown))


def _key_figure(item: Figure) -> Markup:
    tone = "ink" if item.tone is Tone.PLAIN else item.tone.value
    return element("div", element("b", item.value, class_=f"c-{tone}"), element("span", item.caption))


def _links(links: Sequence[tuple[str, str]]) -> Markup:
    """Closed until the page they lead to lies beside; see `links.py`."""
    # The attributes stand in the order that `links.py` looks for.
    return joined(part for text, address in links for part in (" ", element("a", text, hidden=True, data_href=address)))


def _facts(facts: Sequence[tuple[str, Link]], texts: Mapping[str, str]) -> Markup:
    """What a sample is, name by name."""
    names = told_apart([name for name, _ in facts], _TITLE)
    terms = (
        element("div", element("dt", names[name]), element("dd", _linked(value, texts[value.text])))
        for name, value in facts
    )
    return element("dl", *terms, class_="facts")


def _linked(value: Link, shown: str) -> Markup:
    """A text from elsewhere as it is shown, leading where it may; all of it where a pointer rests."""
    title = all_of(value.whole or value.text, shown)
    if not value.address:
        return element("span", shown, title=title)
    return element("a", shown, href=value.address, rel="noreferrer noopener", title=title)


def all_of(whole: str, shown: str) -> str:
    """What a hover says of a text that may be cut: all of it; "" where that is what is shown."""
    said = printable(whole, limit=_HOVER)
    return said if said != shown else ""


def _stored(image: Image, name: str) -> Markup:
    small = image.width * image.height <= LOSSLESS_PIXELS
    size = {"width": image.width, "height": image.height}
    return element("image", id=name, href=data_uri(image), **size, class_="pixels" if small else "")


def _under(shape: Image, input_id: str, *, dim: bool = False, **said: str) -> Markup:
    """The input below a map, or a dark place of its shape."""
    use = element("use", href=f"#{input_id}") if input_id else ""
    box = f"0 0 {shape.width} {shape.height}"
    return element("svg", use, class_="under dim" if dim else "under", viewBox=box, **said)


def _probability(name: str, shown: str, value: float, tone: Tone) -> tuple[Markup, Markup, Markup]:
    width = f"{100 * max(0.0, min(1.0, value)):.1f}"
    bar = Markup(
        f'<svg class="c-{tone}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{width}" height="8" rx="1"/></svg>'
    )
    return element("span", shown, title=all_of(name, shown)), bar, element("span", fraction(value, further=0))


def _tenths(strength: float) -> int:
    return round(10 * max(0.0, min(1.0, strength)))


def spark(values: Sequence[float | None], scale: Scale = UNKNOWN, *, fill: bool = False) -> Markup:
    """A history as a line without axes; empty where there is none.

    Of very many points it shows every k-th up to the last, or where some are missing what `averaged` makes of them.
    """
    values = [v if v is not None and math.isfinite(v) else None for v in values]
    if None in values:
        values = averaged(values, _SPARK_POINTS)
    stride = -(-len(values) // _SPARK_POINTS) or 1
    values = values[(len(values) - 1) % stride :: stride]
    known = [v for v in values if v is not None]
    if not known:
        return Markup("")
    low, high = (own if end is None else end for own, end in zip((min(known), max(known)), scale, strict=True))
    step = 100 / max(1, len(values) - 1)
    places = [
        None if v is None else (i * step, 18 - 16 * (v - low) / (high - low or 1.0)) for i, v in enumerate(values)
    ]
    path, pen = "", "M"
    for place, after in zip(places, [*places[1:], None], strict=True):
        if place is None:
            pen = "M"
            continue
        path += f"{pen}{place[0]:.1f} {place[1]:.1f}"
        if pen == "M" and after is None:
            # A value between two gaps, or alone: a dash, the last one within the picture.
            path += "h4" if place[0] < 98 else "h-4"
        pen = "L"
    under = f'<path class="fill" d="{path}L100 20L0 20z"/>' if fill and len(known) == len(values) > 1 else ""
    return Markup(
        f'<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">'
        f'{under}<path d="{path}"/></svg>'
    )


def _room(chart: LineChart) -> int:
    """How much room the names at the lines' ends need, in steps of 30 pixels that the sheet has classes for."""
    return min(6, math.ceil((_BESIDE_NAME + _PAGE_FONT * ems(end_names(chart).values()) - 16) / 30))


def _left(chart: LineChart) -> str:
    """The class that gives long numbers of the y axis room, a font size a step; "" where there is enough."""
    beyond = math.ceil(widest_tick(chart) - _SHORT_TICK)
    return f" left left{min(beyond, _MOST_LEFT)}" if beyond > 0 else ""


def _table(table: Table, *, titled: bool = True) -> Markup:
    shown = [(index, table.columns[index]) for index in table.facts_last]
    keys = table.keys or ("",) * len(table.rows)
    heads = [element("th", column.title, class_=_HEADS.get(column.cell, ""), scope="col") for _, column in shown]
    anchors = table.anchors or ("",) * len(table.rows)
    names = _names(table)
    columns = [_cells([row[index] for row in table.rows], column, names, table.scale(index)) for index, column in shown]
    rows = [
        element("tr", *cells, data_k=key, id=anchor)
        for key, anchor, cells in zip(keys, anchors, zip(*columns, strict=True), strict=True)
    ]
    inside = element("thead", element("tr", *heads)), element("tbody", *rows)
    region = {"tabindex": "0", "role": "region", "aria_label": table.title or "table", "class_": "scroll"}
    scrolled = element("div", element("table", *inside, data_name=table.name), **region)
    note = element("p", table.note, class_="note") if table.note else ""
    if table.folded:
        return element("details", element("summary", table.title), scrolled, note)
    return joined((element("h3", table.title) if table.title and titled else "", scrolled, note))


def _names(table: Table) -> dict[str, str]:
    """The long texts of a table, short enough and told apart wherever in it they stand."""
    of_texts = [index for index, column in enumerate(table.columns) if column.cell is Cell.TEXT]
    long = {text for row in table.rows for index in of_texts if len(text := str(row[index])) > _SHOWN}
    return told_apart(sorted(long), _SHOWN)


def _cells(values: Sequence[Any], column: Column, names: Mapping[str, str], scale: Scale) -> list[Markup]:
    """The cells of a column."""
    match column.cell:
        case Cell.SPARKLINE:
            return [_history(value or (), scale) for value in values]
        case Cell.NUMBER | Cell.INTEGER:
            return [
                _number(value, shown) for value, shown in zip(values, numbers.column(values, column.apart), strict=True)
            ]
        case Cell.TEXT:
            texts = numbers.texts(values)
            return [_text(v, printable(names.get(text, text))) for v, text in zip(values, texts, strict=True)]
        case _:
            assert_never(column.cell)


def _history(values: Sequence[float | None], scale: Scale) -> Markup:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return element("td", spark(values, scale), data_v=_key(known[-1]) if known else "")


def _number(value: Any, shown: str) -> Markup:
    """A number as people read it, and for sorting and copying as it is."""
    return element("td", printable(shown, limit=_SHOWN), class_="num", data_v=_key(value, shown))


def _key(value: Any, shown: str = "") -> str:
    """What a cell of a number is sorted and copied by: all its digits; "" where these are what is shown."""
    if not isinstance(value, float) or not math.isfinite(value):
        return ""
    key = repr(value).removesuffix(".0")
    return "" if key == shown else key


def _text(value: Any, shown: str) -> Markup:
    if isinstance(value, Link):
        inside = _linked(value, shown) if value.address else shown
        return element("td", inside, class_=_room_of(value.text), title=all_of(value.whole or value.text, shown))
    if isinstance(value, str):
        return element("td", shown, class_=_room_of(shown), title=all_of(value, shown))
    return element("td", shown, class_=_room_of(shown), data_v=_key(value, shown))


def _room_of(text: str) -> str:
    """A short text keeps its line, a date and the like on every screen, and a long one gets room: rows stay low."""
    if len(text) > _LONG:
        return "long sentence" if len(text) > _SENTENCE and text.count(" ") >= len(text) // 12 else "long"
    return "short" if " " in text else "whole" if "-" in text else ""
