"""Pages as text: complete in themselves, escaped, within a policy, the same bytes each time."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.recorded_run import HOSTILE
from tests.report_answers import labels_result, samples_result
from xaicli.render import page as page_module
from xaicli.render.blocks import spark
from xaicli.render.figure import Pictures
from xaicli.render.page import in_script
from xaicli.report.model import Gallery, Section, Text, Views
from xaicli.results import Result

VOID = {"meta", "img", "input", "br", "link", "image", "use"}


class Parsed(HTMLParser):
    """What a browser would find: elements with attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self._inside: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw.append((*self._inside, data))

    def handle_endtag(self, _tag: str) -> None:
        self._inside = None

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


PAGES = {
    "samples": lambda: samples_result(images=True),
    "labels": labels_result,
    "hostile": lambda: labels_result(labels=4, epochs=3, names=HOSTILE),
    "one": lambda: samples_result(epochs=1, top=1, listed=()),
}


@functools.cache
def made(name: str) -> tuple[Result, str]:
    """A result and its page."""
    result = PAGES[name]()
    return result, result.html()


@pytest.fixture(params=sorted(PAGES))
def result(request: pytest.FixtureRequest) -> Result:
    return made(request.param)[0]


@pytest.fixture
def html(result: Result) -> str:
    return next(html for name in PAGES for found, html in [made(name)] if found is result)


@pytest.fixture
def parsed(html: str) -> Parsed:
    return Parsed(html)


def test_nothing_comes_from_elsewhere(parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "data", "poster", "srcset", "action"):
            value = attributes.get(name) or ""
            assert not re.match(r"(?i)\s*(https?:|//|javascript:)", value), (tag, value[:80])
    assert "url(" not in "".join(text for tag, _, text in parsed.raw if tag == "style")


def test_the_policy_allows_our_script_and_sheet_by_their_hashes_and_nothing_else(html: str, parsed: Parsed) -> None:
    policy = next(a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    hashes = {
        tag: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for tag, attributes, text in parsed.raw
        if attributes.get("type") != "application/json"
    }
    assert policy == (
        f"default-src 'none'; img-src data:; style-src {hashes['style']}; script-src {hashes['script']}; "
        "base-uri 'none'; form-action 'none'"
    )
    assert f'content="{policy}"' in html
    assert html.index("Content-Security-Policy") < html.index("<style")
    assert len([1 for tag, _, _ in parsed.raw if tag == "style"]) == 1
    assert len([1 for tag, a, _ in parsed.raw if tag == "script" and "type" not in a]) == 1


def test_no_inline_style_and_no_handler(parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_it_can_be_read_aloud(parsed: Parsed) -> None:
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html")[0]["lang"] == "en"
    assert all(a.get("alt") for a in parsed.all("img"))
    pictures = [a for a in parsed.all("svg") if a.get("role") == "img"]
    assert all(a["aria-label"] for a in pictures)
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in parsed.all("svg"))
    assert all(a.get("scope") == "col" for a in parsed.all("th"))


def test_ids_are_unique_and_every_label_has_its_control(parsed: Parsed) -> None:
    ids = [a["id"] for _, a in parsed.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    assert {a["for"] for a in parsed.all("label")} <= set(ids)
    anchors = {str(a["href"])[1:] for a in parsed.all("a") if str(a.get("href")).startswith("#")}
    assert anchors <= set(ids)


def test_it_carries_the_answer(result: Result, parsed: Parsed) -> None:
    text = next(text for _, attributes, text in parsed.raw if attributes.get("id") == "answer")
    assert json.loads(text) == json.loads(result.to_json())


@pytest.mark.parametrize("name", ["hostile", "one"])
def test_the_same_answer_gives_the_same_bytes(name: str) -> None:
    assert PAGES[name]().html() == made(name)[1]


def test_the_same_answer_gives_the_same_pictures(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        labels_result(labels=2, epochs=2, bounds=("std",)).save(tmp_path / folder, ["png"])
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("a", "b"))
    assert len(first) == 2
    assert first == second


def test_every_element_is_closed_or_void(html: str) -> None:
    depth: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, _attributes: object) -> None:
            if tag not in VOID:
                depth.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in VOID:
                assert depth.pop() == tag

        def handle_startendtag(self, _tag: str, _attributes: object) -> None:
            """Closed in itself."""

    Checker().feed(html)
    assert depth == []


def test_hostile_label_names_stay_text() -> None:
    _, html = made("hostile")
    parsed = Parsed(html)
    assert {tag for tag, _ in parsed.elements} <= ALLOWED
    assert not parsed.all("img")
    assert not {"\x1b", "\u202e"} & set(html)
    assert "y" * 1001 not in re.sub(r'(?s)<script type="application/json" id="answer">.*?</script>', "", html)


ALLOWED = set(
    re.findall(
        r"\w+",
        "html head meta title style script body header main section h1 h2 h3 p ul li nav a div span b figure "
        "figcaption svg path line circle use tspan g text fieldset legend input label table thead tbody tr th td dl dt "
        "dd details summary",
    )
)
"""What our template makes."""


def test_json_cannot_end_its_element() -> None:
    text = in_script('{"a":"</script><!--&\u2028\u2029"}')
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028\u2029"}


def test_a_very_large_answer_is_left_to_the_file_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "_MOST_JSON", 1000)
    result = labels_result(labels=1, epochs=9)
    object.__setattr__(result.answer, "extra", {"labels": result.data, "truth": 1})
    text = next(t for _, a, t in Parsed(result.html()).raw if a.get("id") == "answer")
    found = json.loads(text)
    assert (found["rows"], found["labels"], found["truth"]) == (None, None, 1)


def test_the_labels_page_of_10_labels_is_small() -> None:
    assert len(made("labels")[1].encode()) <= 300_000


def test_the_samples_page_with_12_pictures_is_small() -> None:
    assert len(made("samples")[1].encode()) <= 500_000


def test_thousands_of_labels_show_the_ends_and_list_all() -> None:
    html = labels_result(labels=1000, epochs=2, bounds=("std",)).html()
    parsed = Parsed(html)
    assert len([a for a in parsed.all("tr") if str(a.get("data-k", "")).startswith("l0-")]) == 1000
    cells = [a for a in parsed.all("figure") if a.get("class") == "cell"]
    assert len(cells) == 24
    assert "of 1,000 labels" in html


def test_no_images_leaves_out_pictures_of_samples(tmp_path: Path) -> None:
    samples_result(epochs=1, top=1, images=True).save(tmp_path, ["html"], no_images=True)
    assert not Parsed((tmp_path / "samples.html").read_text()).all("img")


def test_saving_replaces_a_link_and_never_follows_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "labels.csv").symlink_to(outside)
    labels_result(labels=1, epochs=1).save(folder, ["csv"])
    assert outside.read_text() == "mine"
    assert not (folder / "labels.csv").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == ["labels.csv"]


def test_a_small_line_of_very_many_points_keeps_the_last() -> None:
    drawn = spark([0.0] * 99 + [1.0])
    assert drawn.count("L") < 40
    assert "L100.0 2.0" in drawn
    assert "L100.0 2.0" in spark([0.0, None, 0.5, 1.0])
    assert spark([]) == ""


def test_every_chart_says_what_it_shows() -> None:
    _, html = made("samples")
    titles = re.findall(r'<p class="title">([^<]*)</p>', html)
    assert titles[0] == "History of loss · eval"
    assert len(titles) == len(re.findall('<figure class="chart', html)) > 0


def test_every_view_and_every_map_has_a_rule_however_many_there_are() -> None:
    view = (Text("x"),)
    report = replace(labels_result(labels=1, epochs=1).report, sections=())
    views = Views("v", "view", {f"v{i}": view for i in range(14)})
    html = page_module.page(
        replace(report, sections=(Section("s", "s", (views,)),)), labels_result(labels=1, epochs=1).answer, Pictures()
    )
    sheet = next(text for tag, _, text in Parsed(html).raw if tag == "style")
    for order in range(1, 15):
        assert f"input:nth-of-type({order}):checked) > .view:nth-of-type({order}) {{ display: block; }}" in sheet
        assert f"input:nth-of-type({order}):not(:checked)) .m{order - 1} {{ display: none; }}" in sheet


def test_a_title_does_not_say_its_sections_heading_again() -> None:
    result = labels_result()
    chart = result.report.sections[0].blocks[0]
    said = []
    for title in (chart.title, "Something else"):
        report = replace(result.report, sections=(Section(title, "one", (chart,)),))
        text = Result(result.answer, lambda report=report: report).html()
        said.append(len(re.findall(rf"<(?:h2|p class=.title.)[^>]*>{re.escape(chart.title)}<", text)))
    assert said == [1, 1]


def test_cards_of_long_names_are_told_apart() -> None:
    long = "/datasets/pictures/train/{}/image_{:05d}_in_its_original_resolution_as_published.JPEG"
    result = samples_result(top=2, listed=())
    gallery = next(b for b in result.report.sections[0].blocks if isinstance(b, Gallery))
    cards = tuple(replace(c, title=long.format("cat", i)) for i, c in enumerate(gallery.cards))
    report = replace(result.report, sections=(Section("S", "s", (replace(gallery, cards=cards),)),))
    text = Result(result.answer, lambda: report).html()
    titles = re.findall(r"<h4[^>]*>([^<]*)<", text)
    assert len(titles) == len(cards)
    assert [title[-6:-1] for title in titles] == [f"{i:05d}" for i in range(len(cards))] or [
        title[-5:] for title in titles
    ] == [f"{i:05d}" for i in range(len(cards))]
    assert all(f'title="{card.title}"' in text for card in cards)
