"""Marks of a picture as inline SVG that is fit for a page."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageColor

from tests.report_answers import labels_result
from xaicli.render import canvas, figure
from xaicli.render.canvas import LIGHT, ems, tick, ticks, told_within
from xaicli.render.lines import end_names, set_apart
from xaicli.render.svg import path_data
from xaicli.report.charts import Axis, Band, BarChart, LineChart, MatrixChart, Multiples, ScatterChart, Series, Tone

NAN = float("nan")


def line_chart(*series: Series, bands: tuple[Band, ...] = (), y_log: bool = False) -> LineChart:
    return LineChart("c", "Title", "epoch", "loss", series, bands, "A legend.", alt="an alt", y_log=y_log)


def drawn(chart: object) -> ElementTree.Element:
    (text,) = figure.Pictures().of(chart).svgs  # type: ignore[arg-type]
    return ElementTree.fromstring(text)


def classes(root: ElementTree.Element) -> list[str]:
    return [e.attrib["class"] for e in root.iter() if "class" in e.attrib]


def test_lines_bear_their_class_and_key_and_no_style() -> None:
    root = drawn(line_chart(Series("a", (1, 2), (1.0, 2.0), Tone.MAX, key="s-0")))
    line = next(e for e in root.iter() if e.get("class") == "line c-max")
    assert line.get("data-k") == "s-0"
    assert not [e for e in root.iter() if "style" in e.attrib]
    assert [e.attrib["id"] for e in root.iter() if "id" in e.attrib] == ["c1"]
    assert root.attrib["aria-label"] == "an alt"


def test_the_title_and_legend_are_for_the_png_only() -> None:
    texts = [e.text for e in drawn(line_chart(Series("a", (1, 2), (1.0, 2.0)))).iter("text")]
    assert "Title" not in texts
    assert "A legend." not in texts
    assert {"a", "epoch"} <= set(texts)


def test_the_script_finds_a_point_where_the_line_is_drawn() -> None:
    root = drawn(line_chart(Series("a", (1, 5), (10.0, 20.0), key="k")))
    x0, x1 = map(float, root.attrib["data-x"].split())
    y0, y1 = map(float, root.attrib["data-y"].split())
    path = next(e for e in root.iter("path") if e.get("data-k") == "k" and "line" in e.attrib["class"]).attrib["d"]
    start = [float(v) for v in re.match(r"M(\S+) (\S+)l", path).groups()]  # type: ignore[union-attr]
    height = float(root.attrib["height"])
    assert (x0, x1) == (1, 5)
    assert start[0] == 0
    assert start[1] == pytest.approx(height - height * (10 - y0) / (y1 - y0), abs=0.1)


def test_the_script_finds_a_point_of_a_cell_on_both_of_its_axes() -> None:
    cells = tuple(
        replace(line_chart(Series("n", (1, 2), (0.0, top), key="k")), y_limits=(-1.0, 11.0), y_own=(-top, 2 * top))
        for top in (1.0, 10.0)
    )
    for cell, text in zip(cells, figure.Pictures().of(Multiples("g", "Grid", cells)).svgs, strict=True):
        root = ElementTree.fromstring(text)
        _, top, _, bottom = map(float, root.attrib["data-box"].split())
        path = next(e for e in root.iter("path") if (e.get("class") or "").startswith("line")).attrib["d"]
        start = float(re.match(r"M(\S+) (\S+)l", path).group(2))  # type: ignore[union-attr]
        for limits, scale, shift in ((cell.y_limits, 1.0, 0.0), (cell.y_own, *own_of(root))):
            assert limits is not None
            expected = bottom - (bottom - top) * (0.0 - limits[0]) / (limits[1] - limits[0])
            assert scale * start + shift == pytest.approx(expected, abs=0.3)
        assert root.attrib["data-own"] == "{:g} {:g}".format(*(cell.y_own or ()))


def own_of(root: ElementTree.Element) -> tuple[float, float]:
    """The scale and shift that put a cell's data on its own axis."""
    matrix = next(e for e in root.iter("use")).attrib["transform"]
    _, _, _, scale, _, shift = (float(v) for v in matrix[len("matrix(") : -1].split())
    return scale, shift


def test_the_other_axis_has_its_own_numbers_at_the_same_places() -> None:
    chart = line_chart(Series("a", (1, 2, 3), (1.0, 2.0, 3.0), key="k"))
    root = drawn(replace(chart, other_axis=Axis("step", (1.0, 2.0, 3.0), (10.0, 20.0, 35.0))))
    first, second = (next(e for e in root.iter("g") if e.get("class") == name) for name in ("ax1", "ax2"))
    assert [e.text for e in first] == ["1", "2", "3", "epoch"]
    assert [e.text for e in second] == ["10", "20", "35", "step"]
    assert [e.attrib["x"] for e in first] == [e.attrib["x"] for e in second] == ["0%", "50%", "100%", "50%"]


def axes(root: ElementTree.Element) -> dict[str, list[tuple[str | None, str]]]:
    """What each x axis says and where: {class of its group: [(text, place)]}."""
    groups = [e for e in root.iter("g") if e.get("class") in ("ax1", "ax2")]
    return {e.attrib["class"]: [(t.text, t.attrib["x"]) for t in e] for e in groups}


def test_no_name_goes_with_an_axis_however_low_its_line_ends() -> None:
    low = tuple(Series(f"#{n}", (1, 2), (9.0, n / 1e6), Tone.MIN, key=f"s-{n}") for n in range(12))
    root = drawn(replace(line_chart(*low), other_axis=Axis("step", (1.0, 2.0), (10.0, 20.0))))
    assert axes(root) == {
        "ax1": [("1", "0%"), ("2", "100%"), ("epoch", "50%")],
        "ax2": [("10", "0%"), ("20", "100%"), ("step", "50%")],
    }
    names = [e.text for e in root.iter("text") if (e.get("class") or "").startswith("name")]
    assert sorted(names) == sorted(line.name for line in low)


def test_epochs_among_steps_have_round_numbers_at_their_places() -> None:
    steps = tuple(23.0 * epoch for epoch in range(1, 13))
    chart = replace(line_chart(Series("a", steps, steps, key="k")), x_label="step")
    root = drawn(replace(chart, other_axis=Axis("epoch", steps, tuple(map(float, range(1, 13))))))
    assert [said for said, _ in axes(root)["ax1"]] == ["50", "100", "150", "200", "250", "step"]
    *said, label = axes(root)["ax2"]
    assert label == ("epoch", "50%")
    assert [text for text, _ in said] == ["2", "4", "6", "8", "10", "12"]
    expected = [100 * (23 * epoch - 23) / (276 - 23) for epoch in range(2, 13, 2)]
    assert [float(place.rstrip("%")) for _, place in said] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("at", [(3.0, 3.0), (7.0,)])
def test_points_that_share_their_place_have_it_as_the_only_number(at: tuple[float, ...]) -> None:
    root = drawn(line_chart(Series("a", at, tuple(map(float, range(len(at)))), key="k")))
    ticks_at = [e.text for e in root.iter("text") if e.text and e.text.isdecimal() and e.get("text-anchor") == "middle"]
    assert ticks_at == [f"{at[0]:g}"]


def test_steps_of_sixteen_digits_have_numbers_that_are_told_apart() -> None:
    steps = tuple(1e15 + n for n in range(6))
    chart = line_chart(Series("a", steps, (1.0,) * 6, key="k"))
    said = [text for text, _ in axes(drawn(replace(chart, other_axis=Axis("epoch", steps, steps))))["ax1"][:-1]]
    assert len(said) > 2
    assert [float(text or "") for text in said] == [1e15 + n for n in range(0, 6, 5 // (len(said) - 1))][: len(said)]


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e30), (1e-3, 1e38), (0.02, 30.0), (1e-300, 1e307)])
def test_a_logarithmic_axis_has_no_zero(low: float, high: float) -> None:
    root = drawn(line_chart(Series("a", (1, 2), (low, high), key="k"), y_log=True))
    said = [e.text or "" for e in root.iter("text") if e.get("text-anchor") == "end"]
    read = [float(text.replace(",", "").replace("−", "-")) for text in said]
    assert len(read) > 2
    assert all(low / 1.2 <= value <= high * 1.2 and f"{value:e}".startswith("1.000000e") for value in read)


@pytest.mark.parametrize("stem", ["WMA1000{}MW_MWMWMWMW", "<b>&amp;{}</b>", "日本語の写真の名前{}", "il{}"])
def test_a_name_at_the_end_of_a_line_keeps_within_the_room_that_the_page_leaves(stem: str) -> None:
    names = [stem.format(n) for n in range(4)]
    chart = line_chart(*(Series(name, (1, 2), (1.0, 2.0), Tone.MAX, key=f"k{n}") for n, name in enumerate(names)))
    page = end_names(chart)
    short = [*told_within([*page.values()], 17, 9.0).values()]
    assert len(set(short)) == len(set(page.values())) == 4
    # On a phone 114 pixels for letters of 11 and 14 before them, else at most 196 for letters of 12.
    assert 14 + 11 * ems(short) <= 114
    assert 14 + 12 * ems(page.values()) <= 196
    spans = {e.text for e in drawn(chart).iter("tspan") if e.get("class") == "n"} or set(names)
    assert spans == set(short)


def test_every_second_of_many_long_numbers_can_go_on_a_phone_and_no_short_one() -> None:
    steps = tuple(50_000.0 * n for n in range(5))
    chart = replace(line_chart(Series("a", steps, steps, key="k")), other_axis=Axis("epoch", steps, tuple(range(5))))
    groups = {g.get("class"): [(e.text, e.get("class")) for e in g] for g in drawn(chart).iter("g")}
    assert groups["ax1"] == [
        ("0", None), ("50,000", "odd"), ("100,000", None), ("150,000", "odd"), ("200,000", None), ("epoch", None)
    ]  # fmt: skip
    assert groups["ax2"] == [("0", None), ("1", None), ("2", None), ("3", None), ("4", None), ("epoch", None)]
    few = line_chart(Series("a", (10_000, 10_001, 10_002), (1.0, 2.0, 3.0), key="k"))
    texts = {e.text: e.get("class") for e in drawn(few).iter("text")}
    assert [texts[said] for said in ("10,000", "10,001", "10,002")] == [None, None, None]


def test_one_drawing_gives_the_picture_and_the_page() -> None:
    chart = line_chart(Series("a", (1, 2), (1.0, 2.0), Tone.MAX, key="s-0"))
    both = figure.Pictures(png=True).of(chart)
    assert both.svgs == figure.Pictures().of(chart).svgs
    picture = Image.open(io.BytesIO(both.png))
    assert picture.size == (1600, 816)
    colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {ImageColor.getrgb(LIGHT[name]) for name in ("page", "ink", "max", "muted")} <= colours


@pytest.mark.parametrize("gap", [None, NAN, float("inf")])
def test_a_gap_parts_the_line_and_a_lone_point_is_a_dot(gap: float | None) -> None:
    root = drawn(line_chart(Series("a", (1, 2, 3, 4, 5), (1.0, 2.0, gap, gap and gap, 3.0), key="k")))
    path = next(e for e in root.iter("path") if (e.get("class") or "").startswith("line")).attrib["d"]
    assert path.count("l") == 1
    assert len([c for c in classes(root) if c.startswith("dot")]) == 1


def test_one_epoch_is_a_dot_with_its_name() -> None:
    root = drawn(line_chart(Series("only", (3,), (1.0,), key="k")))
    assert [c for c in classes(root) if c.startswith(("dot", "name"))] == ["dot c-p0", "name c-p0"]


def test_a_band_over_one_epoch_is_a_bar() -> None:
    band = Band("b", (3,), (1.0,), (2.0,), key="k")
    root = drawn(line_chart(Series("a", (3,), (1.5,), key="k"), bands=(band,)))
    assert "span c-p0" in classes(root)


def test_too_many_lines_get_no_names() -> None:
    root = drawn(line_chart(*(Series(f"n{i}", (1, 2), (i, i), key=f"k{i}") for i in range(60))))
    assert not [c for c in classes(root) if c.startswith("name")]


@pytest.mark.parametrize("name", ["_hidden", "x_$\\frac{$", "<b>&amp;", "日本語", "\ud800", "\x00", "a\nb", "$$"])
def test_any_name_can_be_drawn(name: str) -> None:
    chart = line_chart(Series(name, (1, 2), (1.0, 2.0), key="k"))
    texts = [e.text or "" for e in drawn(chart).iter("text")]
    shown = name.replace("\n", " ").replace("\x00", "\ufffd").replace("\ud800", "\\ud800")
    assert shown in texts


def test_a_log_axis_leaves_out_what_it_cannot_show() -> None:
    root = drawn(line_chart(Series("a", (1, 2, 3), (0.001, 0.0, 1000.0), key="k"), y_log=True))
    assert root.attrib["data-y"].endswith(" log")


def test_a_grid_is_one_picture_and_a_cell_each() -> None:
    cells = tuple(line_chart(Series(f"n{i}", (1, 2), (1.0, i), key=f"k{i}")) for i in range(5))
    grid = Multiples("g", "Grid", cells)
    texts = figure.Pictures().of(grid).svgs
    assert len(texts) == 5
    boxes = [ElementTree.fromstring(text).attrib["viewBox"] for text in texts]
    assert len(set(boxes)) == 5
    for index, text in enumerate(texts):
        keys = {e.attrib["data-k"] for e in ElementTree.fromstring(text).iter() if "data-k" in e.attrib}
        assert keys == {f"k{index}"}


def test_a_cell_lies_inside_its_box() -> None:
    grid = next(c for c in figure.charts(labels_result(labels=6, epochs=4).report) if isinstance(c, Multiples))
    for text in figure.Pictures().of(grid).svgs:
        root = ElementTree.fromstring(text)
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        x0, y0, x1, y1 = map(float, root.attrib["data-box"].split())
        assert left < x0 < x1 < left + width
        assert top < y0 < y1 < top + height


def test_points_are_one_path_per_group_and_marked_ones_ringed() -> None:
    chart = ScatterChart("s", "S", "x", "y", (0, 1, 2, NAN), (0, 1, 2, 3), ("a", "b", "a", "a"), keys=("", "k", "", ""))
    found = classes(drawn(chart))
    assert found.count("points c-g0") == 1
    assert found.count("points c-g1") == 1
    assert found.count("ring c-ink") == 1


def test_very_many_points_are_thinned_but_marked_ones_stay() -> None:
    n = 10_000
    keys = tuple("k" if i == 7777 else "" for i in range(n))
    chart = ScatterChart("s", "S", "x", "y", tuple(map(float, range(n))), (0.5,) * n, keys=keys)
    shown = figure.scatter.drawn_points(chart)
    assert len(shown) <= 3001
    assert 7777 in shown


def test_bars_tell_for_from_against() -> None:
    found = classes(drawn(BarChart("b", "B", "attribution", ("up", "down"), (2.0, -1.0), alt="bars")))
    assert [c for c in found if c.startswith("bar")] == ["bar c-max", "bar c-min"]


@given(st.lists(st.tuples(st.floats(-900, 900), st.floats(-900, 900)), min_size=1, max_size=30))
def test_relative_path_data_does_not_drift(points: list[tuple[float, float]]) -> None:
    text = path_data(np.array(points), [1, *[2] * (len(points) - 1)])
    numbers = [float(v) for v in re.findall(r"-?\d*\.?\d+", text)]
    at, found = (0.0, 0.0), []
    for x, y in zip(numbers[::2], numbers[1::2], strict=True):
        at = (at[0] + x, at[1] + y)
        found.append(at)
    for (x, y), (a, b) in zip(found, points, strict=True):
        assert (x, y) == (pytest.approx(a, abs=0.06), pytest.approx(b, abs=0.06))


@given(st.lists(st.floats(-50, 150), min_size=1, max_size=12))
def test_names_keep_their_distance_and_order(wanted: list[float]) -> None:
    places = set_apart(wanted, 5.0, 0.0, 100.0)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    ordered = [places[i] for i in order]
    assert all(b - a >= 5.0 - 1e-6 for a, b in itertools.pairwise(ordered))
    assert ordered[-1] <= 100.0 + 1e-6


@given(st.lists(st.integers(0, 20), min_size=1, max_size=10, unique=True))
def test_names_with_room_stay_where_they_belong(steps: list[int]) -> None:
    wanted = [10.0 * step for step in steps]
    assert set_apart(wanted, 5.0, -10.0, 300.0) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("value", "said"), [(1e-6, "1e−6"), (1.5e-7, "1.5e−7"), (2e6, "2e6"), (0.0001, "0.0001"), (-30.0, "−30")]
)
def test_ticks_are_short(value: float, said: str) -> None:
    assert tick(value) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.9998, 0.99985, 0.9999, 1.0], ["0.9998", "0.99985", "0.9999", "1"]),
        ([12345, 12345.5, 12346], ["12,345", "12,345.5", "12,346"]),
        ([6.90775, 6.9078, 6.90785], ["6.90775", "6.9078", "6.90785"]),
        ([1e-22, 1e-20, 1e-18], ["1e−22", "1e−20", "1e−18"]),
        ([-0.1, 1e-17, 0.1], ["−0.1", "0", "0.1"]),
        ([0, 5e-13, 1e-12], ["0", "5e−13", "1e−12"]),
        ([1e-3, 1.0, 1e6], ["0.001", "1", "1e6"]),
        ([], []),
    ],
)
def test_ticks_are_told_apart_and_true(values: list[float], said: list[str]) -> None:
    assert ticks(values) == said


@given(st.integers(-(10**9), 10**9), st.integers(-9, 3), st.sampled_from([1, 2, 5]), st.integers(2, 7))
def test_ticks_say_their_values(first: int, power: int, step: int, n: int) -> None:
    values = [(first + step * i) * 10.0**power for i in range(n)]
    read = [float(text.replace(",", "").replace("−", "-")) for text in ticks(values)]
    assert read == pytest.approx(values, abs=0.1 * step * 10.0**power)


def test_cells_of_a_matrix_are_coloured_by_share_and_lead_somewhere() -> None:
    chart = MatrixChart("m", "M", ("cat", "dog"), ((8, 2), (0, 5)), "taken for", "label", (("", "cat-dog"), ("", "")))
    (svg,) = figure.Pictures().of(chart).svgs
    cells = re.findall(r'<path class="bar c-(\w+)" data-k="m-(\d)-(\d)" opacity="([\d.]+)"', svg)
    # 80 % of cats are right, all dogs are; the one wrong cell is the most frequent one.
    assert cells == [("min", "0", "0", "0.5"), ("max", "0", "1", "0.6"), ("min", "1", "1", "0.6")]
    assert [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg) if text.isdigit()] == ["8", "2", "5"]
    # Keys stop once at a cell, at its number, and a reader says which cell it is.
    assert re.findall(r'<a href="#([^"]*)" tabindex="-1" aria-hidden="true"><path[^>]*data-k="([^"]*)"', svg) == [
        ("cat-dog", "m-0-1")
    ]
    assert '<a href="#cat-dog" aria-label="cat, taken for dog: 2"><text data-k="m-0-1"' in svg
    assert svg.count("<a ") == 2
    assert ' role="group"' in svg
    # Names below the cells end at them.
    below = re.findall(r'<text [^>]*text-anchor="(\w+)"[^>]*transform="rotate[^>]*>(?:cat|dog)</text>', svg)
    assert below == ["end", "end"]


@pytest.mark.parametrize("most", [2.0, 1e4, 1e8])
def test_a_cell_on_its_own_axis_is_as_fine_as_on_a_shared_one(most: float) -> None:
    values = tuple(i / 10 for i in range(11))
    line = Series("a", tuple(map(float, range(11))), values)
    cells = [LineChart(n, n, "epoch", "loss", (line,), y_limits=(0.0, most), y_own=(0.0, 1.0)) for n in "ab"]
    far = [replace(cell, y_limits=(0.0, 1e300)) for cell in cells]
    assert all("own" not in svg for svg in figure.Pictures().of(Multiples("n", "t", tuple(far))).svgs)
    for svg in figure.Pictures().of(Multiples("n", "t", tuple(cells))).svgs:
        _, top, _, bottom = map(float, re.findall(r'data-box="([^"]+)"', svg)[0].split())
        scale, shift = 1.0, 0.0
        if use := re.search(r'transform="matrix\(1 0 0 (\S+) 0 (\S+)\)"', svg):
            scale, shift = float(use[1]), float(use[2])
        else:
            svg = svg.rsplit('<g class="own">', 1)[1]
        drawn = re.findall(r'class="line[^"]*"[^>]* d="([^"]+)"', svg)[0]
        at, *steps = [float(number) for number in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", drawn)][1::2]
        places = [at + sum(steps[:i]) for i in range(len(steps) + 1)]
        wanted = [bottom - value * (bottom - top) for value in values]
        assert [scale * place + shift for place in places] == pytest.approx(wanted, abs=0.3)


def test_a_title_that_is_long_is_written_smaller_and_ends_within_its_picture() -> None:
    size = canvas.Size(500, 300, 52, 9)
    for words in ("matrix, epoch 6", "Labels by row, predictions by column: eval · openimages-challenge-2019, epoch 6"):
        drawn = canvas.new_figure(size, words, "")
        title = drawn.texts[0]
        assert title.get_text() == words
        assert title.get_window_extent(FigureCanvasAgg(drawn).get_renderer()).x1 <= drawn.bbox.x1
