"""Pages in a real browser: nothing complains, nothing is fetched, everything that can be pressed works."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from markupsafe import Markup

import xaicli
from tests.recorded_run import HOSTILE, record
from tests.render import chromium
from tests.render.chromium import Chromium, Page
from tests.report_answers import labels_result, samples_result
from xaicli.api import open_run
from xaicli.render import html as html_module
from xaicli.render import page as page_module

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    running = Chromium(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = record(folder / "run", label_names=HOSTILE, samples=24, epochs=3)
    texts = {
        "samples": samples_result(epochs=8, images=True, listed=("a b/</script>", "17")).html(),
        "labels": labels_result(labels=4, epochs=5).html(),
        "track": open_run(hostile).report(max=2, min=2).html(),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def open_page(browser: Chromium, pages: dict[str, Path]) -> Iterator[object]:
    opened: list[Page] = []

    def open_one(name: str, fragment: str = "", **how: object) -> Page:
        opened.append(browser.open(pages[name].as_uri() + fragment, **how))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()


@pytest.mark.parametrize("name", ["samples", "labels", "track"])
@pytest.mark.parametrize("how", [{}, {"dark": True}, {"width": 400}, {"script": False}], ids=str)
def test_nothing_complains_and_nothing_is_fetched(open_page, name: str, how: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    page = open_page(name, **how)
    assert page.complaints() == []
    assert page.requests() == []
    assert page.run("window.hit") is None
    assert page.run("document.documentElement.scrollWidth <= innerWidth"), "wider than the window"


def test_hostile_names_are_shown_as_they_are(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("track")
    shown = page.run("document.body.innerText")
    assert HOSTILE[0] in shown
    assert page.run("document.querySelectorAll('img[src=x], svg[onload]').length") == 0


@pytest.mark.parametrize("guard", ["escaping", "policy"])
def test_each_guard_holds_alone(guard: str, browser: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
    result = labels_result(labels=1, epochs=1, names=(hostile,))
    with monkeypatch.context() as patch:
        if guard == "policy":
            patch.setattr(html_module, "escape", Markup)
        else:
            patch.setattr(
                page_module, "policy", lambda *_: "default-src * 'unsafe-inline'; script-src * 'unsafe-inline'"
            )
        html = result.html()
    assert (hostile in html) is (guard == "policy")
    (tmp_path / "x.html").write_text(html)
    page = browser.open((tmp_path / "x.html").as_uri())
    assert page.run("window.hit") is None
    page.close()


@pytest.mark.parametrize("script", [True, False])
def test_another_axis_changes_the_ticks_and_not_the_lines(open_page, script: bool) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples", script=script)
    lines = "[...document.querySelectorAll('.flow .line')].map(e => e.getBoundingClientRect().right)"
    ticks = (
        "[...document.querySelectorAll('.ax1 text, .ax2 text')]"
        ".filter(e => e.getBoundingClientRect().height > 0).map(e => e.textContent)"
    )
    before, epochs = page.run(lines), page.run(ticks)
    page.click(".choice label:nth-of-type(2)")
    steps = page.run(ticks)
    assert page.run(lines) == before
    assert (epochs[-1], steps[-1]) == ("epoch", "step")
    assert [100 * float(tick) for tick in epochs[:-1]] == [float(tick.replace(",", "")) for tick in steps[:-1]]


def test_its_own_axis_moves_the_lines_of_a_small_chart(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("labels")
    top = "[...document.querySelectorAll('.cell .line')].filter(e => e.getBoundingClientRect().height > 0).length"
    ticks = (
        "[...document.querySelectorAll('.cell')].filter(c => c.offsetHeight).map(c => [...c.querySelectorAll('text')]"
        ".filter(e => e.getBoundingClientRect().height > 0).map(e => e.textContent).join(' '))"
    )
    shared = page.run(ticks)
    assert page.run(top) > 0
    page.click(".cells-either label:nth-of-type(2)")
    assert page.run(ticks) != shared
    assert page.run(top) == 0
    assert page.run("[...document.querySelectorAll('.cell use.own')].some(e => e.getBoundingClientRect().height > 5)")


def _line_of(page: Page, name: str) -> tuple[dict[str, Any], float, float]:
    """A line of the first chart, and where it ends in the window."""
    data = json.loads(page.run("document.getElementById('charts').textContent"))
    line = next(line for line in data["d0"]["lines"] if line["n"] == name)
    x, y = page.run(
        "(() => { const svg = document.querySelector('svg.flow'); svg.scrollIntoView({block: 'center'});"
        "const path = svg.querySelector('.line[data-k=" + line["k"] + "]');"
        "const end = path.getPointAtLength(path.getTotalLength());"
        "const at = new DOMPoint(end.x, end.y).matrixTransform(path.getScreenCTM()); return [at.x, at.y]; })()"
    )
    return line, x, y


def test_hover_says_the_value_and_lights_line_and_card(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    line, x, y = _line_of(page, "#100")
    page.hover(x - 1, y)
    tip = page.run("document.getElementById('tip').innerText")
    assert tip.splitlines() == ["#100", f"epoch 8 (step 800), loss: {line['y'][-1]:.4g}"]
    lit = f".on[data-k={line['k']}]"
    assert page.run(f"document.querySelectorAll('article{lit}').length") == 1
    assert page.run(f"document.querySelectorAll('tr{lit}').length") == 1
    page.hover(5, 5)
    assert page.run("document.getElementById('tip').hidden && document.querySelectorAll('.on').length") == 0


def test_keys_walk_along_lines_and_escape_clears(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    page.run("document.querySelector('svg.flow').focus()")
    page.press("ArrowDown")
    first = page.run("document.getElementById('tip').innerText")
    page.press("ArrowLeft")
    second = page.run("document.getElementById('tip').innerText")
    assert "epoch 8" in first
    assert "epoch 7" in second
    assert page.run("document.querySelector('[role=status].quiet').textContent").startswith(second.splitlines()[0])
    page.press("Escape")
    assert page.run("document.getElementById('tip').hidden")


def test_tables_sort_by_value_and_back(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("labels")
    column = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[1].textContent)"
    heading = "thead th:nth-of-type(2) button"
    page.click(heading)
    assert page.run(column) == ["303", "302", "301", "300"]
    page.click(heading)
    assert page.run(column) == ["300", "301", "302", "303"]
    assert page.run("document.querySelector('th[aria-sort]').ariaSort") == "ascending"


def test_rows_filter(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    page.run(
        "(() => { const f = document.querySelector('input[type=search]'); f.value = 'MIN';"
        "f.dispatchEvent(new Event('input')); })()"
    )
    shown = "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    assert page.run(shown) == [f"min {i}" for i in range(1, 6)]


def test_a_table_copies_as_csv(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("labels")
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click(".tools button")
    lines = page.run("window.copied").split("\r\n")
    assert lines[0].startswith("label,n,mean,std,min,max,")
    assert len(lines) == 1 + 4 + 1
    cells = lines[1].split(",")
    shown = page.run("document.querySelector('tbody tr').cells[2].dataset.v")
    assert cells[2] == shown


def test_what_is_drawn_is_not_copied_as_something_else(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click(".tools button")
    head, *rows, _ = page.run("window.copied").split("\r\n")
    shown = page.run("[...document.querySelectorAll('thead th')].map(h => h.textContent)")
    assert "history" in shown
    assert head.split(",") == [title for title in shown if title != "history"]
    assert {row.count(",") for row in rows} == {head.count(",")}
    assert "without the histories" in page.run("document.querySelector('.tools button:last-child').title")


@pytest.mark.parametrize(
    "cells",
    [
        ["max 1", "max 2", "max 10", "min 1"],
        ["9007199254740991", "9007199254740992", "9007199254740993", "9,007,199,254,740,994"],
        ["-12", "-2", "0", "1.5", "3e2"],
        ["img_2", "img_10", "img_010b"],
    ],
    ids=["groups", "large whole numbers", "numbers", "names"],
)
def test_cells_sort_as_people_count(open_page, cells: list[str]) -> None:  # type: ignore[no-untyped-def]
    page = open_page("labels")
    mixed = [*cells[2:], *cells[1::-1]]
    page.run(
        "(() => { const rows = [...document.querySelector('tbody').rows];"
        f"const texts = {json.dumps(mixed)};"
        "rows.slice(texts.length).forEach(r => r.remove());"
        "texts.forEach((t, i) => {"
        "const row = rows[i] ?? rows[0].parentElement.appendChild(rows[0].cloneNode(true));"
        "row.cells[0].textContent = t; delete row.cells[0].dataset.v; }); })()"
    )
    page.click("thead th:nth-of-type(1) button")
    found = page.run("[...document.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent)")
    assert found == cells


@pytest.mark.parametrize("sample", ["a b/</script>", "17"])
def test_a_link_finds_its_sample(open_page, sample: str) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples", "#s=" + quote(sample, safe=""))
    assert page.run("document.querySelector('article.on').dataset.s") == sample


@pytest.mark.parametrize(("at", "there"), [("eval/", True), ("eval/night & day", False)])
def test_a_link_finds_the_sample_of_its_own_data_set(open_page, at: str, there: bool) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples", "#s=17&at=" + quote(at, safe=""))
    assert page.run("document.querySelectorAll('article.on').length > 0") is there
    said = page.run("document.querySelector('header').innerText")
    assert ("Sample 17 of eval night & day is not on this page" in said) is not there


@pytest.mark.parametrize(
    ("name", "advice"),
    [("samples", "; ask for it with --ids."), ("track", "; ask for it with --ids."), ("labels", ".")],
)
def test_a_link_to_a_sample_that_is_not_there_says_so_and_what_to_do(  # type: ignore[no-untyped-def]
    open_page, name: str, advice: str
) -> None:
    page = open_page(name, "#s=nobody")
    said = page.run("document.querySelector('header [role=status]').textContent")
    assert said == f"Sample nobody is not on this page{advice}"
    page = open_page(name, "#s=nobody&at=" + quote("eval/day\ntrain/", safe=""))
    said = page.run("document.querySelector('header [role=status]').textContent")
    assert said == f"Sample nobody of eval day, train is not on this page{advice}"


@pytest.mark.parametrize("at", ["eval/", "train/x\neval/"])
def test_a_link_finds_what_stands_for_samples_of_several_places(open_page, at: str) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    page.run("document.querySelectorAll('article[data-s]').forEach((card) => { card.dataset.at = 'test/\\neval/' })")

    def followed(fragment: str) -> str:
        return str(
            page.run(
                "new Promise((done) => { addEventListener('hashchange', () => setTimeout(() => done("
                "document.querySelector('header [role=status]').textContent)), { once: true });"
                f"location.hash = {json.dumps(fragment)}; }})"
            )
        )

    assert followed("#s=17&at=" + quote(at, safe="")) == ""
    assert page.run("document.querySelector('article.on').dataset.s") == "17"
    assert followed("#s=17&at=train%2F").startswith("Sample 17 of train is not on this page")


def test_pinning_a_card_changes_the_address(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    page.click("article[data-s='100'] button")
    assert page.run("location.hash") == "#s=100&at=eval%2F"
    page.click("article[data-s='100'] button")
    assert page.run("document.querySelectorAll('.line.on').length") == 0


def test_pinning_a_line_of_a_chart_names_its_sample_and_place_as_its_card_does(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("samples")
    _, x, y = _line_of(page, "#100")
    page.hover(x - 1, y)
    for kind in ("mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, x=x - 1, y=y, button="left", clickCount=1)
    assert page.run("location.hash") == "#s=100&at=eval%2F"
    page.press("Escape")
    page.run("history.replaceState(null, '', '#')")
    page.run("document.querySelector('svg.flow').focus()")
    page.hover(x - 1, y)
    page.press("Enter")
    assert page.run("location.hash") == "#s=100&at=eval%2F"


def test_dark_and_light_have_contrast(open_page) -> None:  # type: ignore[no-untyped-def]
    for dark in (False, True):
        page = open_page("samples", dark=dark)
        ratio = page.run(CONTRAST)
        assert min(ratio.values()) >= 4.5, ratio


CONTRAST = """(() => {
  const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const page = light(getComputedStyle(document.body).backgroundColor);
  const ratio = (c) => { const l = light(c); return (Math.max(l, page) + .05) / (Math.min(l, page) + .05); };
  const probe = document.createElement('i'); document.body.append(probe);
  return Object.fromEntries(['ink', 'muted', 'max', 'min', 'listed', 'p0', 'p1', 'p2', 'p3', 'p4', 'p5'].map(name => {
    probe.style.color = `var(--${name})`; return [name, ratio(getComputedStyle(probe).color)]; }));
})()"""


_OVERLAPS = """[...document.querySelectorAll('.chart > svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const shown = texts.filter(([, b]) => b.width > 0);
  return shown.flatMap(([one, a], i) => shown.slice(i + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
    .map(([other]) => one + ' over ' + other));
})"""
_HEIGHTS = "[...document.querySelectorAll('{}')].map(e => e.getBoundingClientRect().height)"


@pytest.mark.parametrize("width", [400, 1280])
def test_rows_and_cards_stay_low_and_no_text_lies_over_another(browser: Chromium, tmp_path: Path, width: int) -> None:
    run = open_run(record(tmp_path / "run", samples=40, epochs=6))
    for name, result in (("confusion", run.confusion()), ("dynamics", run.dynamics()), ("findings", run.findings())):
        (tmp_path / f"{name}.html").write_text(result.html())
        page = browser.open((tmp_path / f"{name}.html").as_uri(), width=width)
        assert max(page.run(_HEIGHTS.format("tbody tr")), default=0) <= 80, name
        assert max(page.run(_HEIGHTS.format(".card")), default=0) <= 150, name
        assert page.run(_OVERLAPS) == [], name
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), name
        page.close()


def test_the_numbers_at_the_corner_of_a_plane_are_apart_on_a_phone(browser: Chromium, tmp_path: Path) -> None:
    rng, label = np.random.default_rng(0), np.linspace(-180.0, 250.0, 40)
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in run.epochs(2):
            said = label + rng.normal(size=40) / (1 + epoch)
            run.log_samples(sample_id=np.arange(40), label=label, prediction=said, mode="eval")
    (tmp_path / "errors.html").write_text(open_run(tmp_path / "run").errors().html())
    page = browser.open((tmp_path / "errors.html").as_uri(), width=400)
    assert page.run("document.querySelectorAll('.k-square svg text').length") > 4
    assert page.run(_OVERLAPS) == []
    page.close()


_REASONS = """[...document.querySelectorAll('table')].flatMap(table => {
  table.closest('details')?.setAttribute('open', '');
  const heads = [...table.tHead.rows[0].cells].map(h => h.dataset.name || h.textContent.replace(/ .$/, ''));
  const at = heads.indexOf('reason'), view = table.closest('.scroll').getBoundingClientRect();
  return at < 0 ? [] : [{name: table.dataset.name, heads,
    right: Math.max(...[...table.tBodies[0].rows].map(row => row.cells[at].getBoundingClientRect().right)) - view.right,
    cut: [...table.tBodies[0].rows].filter(row => row.cells[at].title).length,
    height: Math.max(...[...table.tBodies[0].rows].map(row => row.getBoundingClientRect().height))}];
})"""
_FACTS = ["path", "camera", "brightness", "shot"]


@pytest.mark.parametrize("width", [400, 1280])
def test_a_reason_stands_before_the_facts_whole_and_in_view(browser: Chromium, tmp_path: Path, width: int) -> None:
    """A sixth of the labels are wrong, which the model says of nearly all; of each sample four facts are known."""
    rng, n = np.random.default_rng(0), 300
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    true = np.arange(n) % 5
    given = np.where(np.arange(n) % 6 == 0, (true + 1) % 5, true)
    with xaicli.Run(tmp_path / "run", label_names=names, keep_probs=True) as run:
        run.log_facts(
            np.arange(n),
            path=[f"data/cifar/train/{names[label]}/img_{i:05d}.png" for i, label in enumerate(given)],
            camera=["left", "right", "top"] * (n // 3),
            brightness=rng.uniform(0, 255, n).astype(np.float32),
            shot=[datetime.date(2026, 1, 1 + i % 28) for i in range(n)],
        )
        for epoch in run.epochs(6):
            logits = rng.normal(size=(n, 5)) + np.eye(5)[true] * epoch * (1 + rng.random((n, 1)))
            run.log_samples(sample_id=np.arange(n), label=given, logits=logits, mode="train")
    opened = open_run(tmp_path / "run")
    results = (opened.findings(), opened.select(rule="suspects", n=30), opened.report())
    told = []
    for number, result in enumerate(results):
        (tmp_path / f"{number}.html").write_text(result.html())
        page = browser.open((tmp_path / f"{number}.html").as_uri(), width=width)
        told += page.run(_REASONS)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        page.close()
    assert len(told) >= 5
    for table in told:
        at = table["heads"].index("reason")
        assert table["heads"][at + 1 :] == (_FACTS if "path" in table["heads"] else []), table
        assert table["height"] < 70, table
        assert not table["cut"], table
        assert width < 1280 or table["right"] <= 0, table
    assert sum("path" in table["heads"] for table in told) >= 4


def test_names_of_small_charts_are_whole_on_a_phone(browser: Chromium, tmp_path: Path) -> None:
    """They keep what tells them apart: no name is cut again where it was cut already."""
    names = [f"Lens-mounted electro-optical device, revision {n}" for n in range(4)]
    (tmp_path / "labels.html").write_text(labels_result(labels=4, epochs=5, names=names).html())
    for width in (400, 1280):
        page = browser.open((tmp_path / "labels.html").as_uri(), width=width)
        cells = "[...document.querySelectorAll('.cell b')]"
        shown = page.run(f"{cells}.map(e => [e.innerText, e.scrollWidth <= e.clientWidth + 1])")
        assert {text[-1] for text, _ in shown} == set("0123")
        assert all(fits for _, fits in shown)
        page.close()
