"""Numbers and names that are shown together: what differs reads differently, everywhere that it is shown."""

from __future__ import annotations

import html
import math
import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaicli import Run, open_run
from xaicli.answer import Answer
from xaicli.diagnosis.slices import by_quintile
from xaicli.render.canvas import width_of
from xaicli.render.figure import Pictures, draw, line_values
from xaicli.render.markdown import markdown
from xaicli.render.page import page
from xaicli.render.terminal import as_text
from xaicli.render.text import told_apart
from xaicli.report.charts import LineChart, Multiples, ScatterChart, Series
from xaicli.report.info import info_report, runs_report
from xaicli.report.labels import labels_report
from xaicli.report.model import Card, Cell, Column, Gallery, Link, Report, Section, Table
from xaicli.report.numbers import brief, column, cut_apart, exact, short, shorts
from xaicli.report.page import Page
from xaicli.report.samples import blocks, sentence, subjects

FAR = (-12345.678, -12345.671, -12345.691)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (FAR, ["-12,345.678", "-12,345.671", "-12,345.691"]),
        # One that lies elsewhere does not make the others alike.
        ((*FAR, 0.5), ["-12,345.678", "-12,345.671", "-12,345.691", "0.5"]),
        ((0.1234567, 0.9, 5.12345), ["0.1235", "0.9", "5.123"]),
        ((1e6 + 0.5, 1e6 + 0.7), ["1,000,000.5", "1,000,000.7"]),
        ((1.2345e9, 1.2346e9), ["1.2345e+09", "1.2346e+09"]),
        # Nothing but rounding lies between these.
        ((0.3, 0.1 + 0.2), ["0.3", "0.3"]),
        ((None, math.nan, math.inf, 2.0, 3), ["–", "nan", "inf", "2", "3"]),
        ((), []),
    ],
)
def test_numbers_shown_together(values: tuple[Any, ...], said: list[str]) -> None:
    if values and values[0] == 1.2345e9:
        assert [float(text.replace(",", "")) for text in shorts(values)] == [float(text) for text in said]
    else:
        assert shorts(values) == said


@given(st.floats(-1e9, 1e9), st.lists(st.integers(-50, 50), min_size=2, max_size=20))
def test_different_numbers_never_read_alike(middle: float, steps: list[int]) -> None:
    values = [middle + step * max(1e-6 * abs(middle), 1e-3) for step in steps]
    said = shorts(values)
    assert len(set(said)) == len(set(steps))
    read = [float(text.replace(",", "")) for text in said]
    assert sorted(range(len(values)), key=lambda i: (values[i], i)) == sorted(
        range(len(read)), key=lambda i: (read[i], i)
    )


def fits(told: str, name: str) -> bool:
    """Whether what was told of a name can be read as a name, where "…" stands for one character or more."""
    return re.fullmatch(".+".join(map(re.escape, told.split("…"))), name, re.DOTALL) is not None


@given(st.lists(st.text("ab/", min_size=1, max_size=30), unique=True, max_size=12), st.integers(8, 40), st.data())
def test_what_stands_for_a_name_fits_no_other(middles: list[str], limit: int, data: st.DataObject) -> None:
    start, end = data.draw(st.sampled_from([("x" * 30, "y" * 30), ("", "y" * 30), ("x" * 30, ""), ("", "")]))
    names = [start + middle + end for middle in middles]
    shown = names[: data.draw(st.integers(0, len(names)))]
    said = cut_apart(shown, limit, among=names)
    assert set(said) == set(shown)
    for name, told in said.items():
        assert [other for other in names if fits(told, other)] == [name]
        assert told == name or len(told) < len(name)
        assert len(told) <= limit or told == name
        # What is left out at the end is what all have there.
        assert not told.endswith("…") or len({other[-1] for other in names if len(other) > limit}) == 1


@given(st.lists(st.text("ab", min_size=1, max_size=30), unique=True, max_size=12), st.integers(8, 40))
def test_names_of_a_chart_are_no_longer_than_there_is_room_for(middles: list[str], limit: int) -> None:
    names = ["x" * 30 + middle + "y" * 30 for middle in middles]
    said = cut_apart(names, limit, longest=limit)
    assert len(set(said.values())) == len(names)
    assert max(map(len, said.values()), default=0) <= limit


@pytest.mark.parametrize("limit", [12, 16, 20, 24])
def test_a_picture_of_a_folder_keeps_its_own_name(limit: int) -> None:
    numbers = (4, 46, 16, 95, 15, 71, 66)
    said = cut_apart([f"/data/images/train/a/folder/whose/name/repeats/{n:06d}.png" for n in numbers], limit)
    assert [told.partition("…")[2] for told in said.values()] == [f"/{n:06d}.png" for n in numbers]


def test_ids_of_rows_that_are_not_shown_are_not_read_from_those_that_are() -> None:
    heads = ("camera/left/of/the/long/road/", "camera/rear/of/the/long/road/")
    ids = [f"{head}{n:04d}/picture-of-the-day.png" for n in range(25) for head in heads]
    rows = tuple((one, 0.5) for one in ids)
    table = Table("t", "t", (Column("sample"), Column("loss", Cell.NUMBER)), rows, terminal_rows=3)
    report = Report("r", "r", "", "", (Section("s", "s", (table,)),), ())
    for width in (60, 80):
        told = re.findall(r"^(\S+) +0\.5$", as_text(report, width), re.MULTILINE)
        assert [[one for one in ids if fits(cell, one)] for cell in told] == [[one] for one in ids[:3]]


ANIMALS = ("bird", "frog", "cat (four legs, domestic)", "dog (four legs, domestic)", "horse")
PICTURED = [f"picture of a {animal}" for animal in ANIMALS]


@pytest.mark.parametrize("limit", [20, 24, 36])
def test_a_pair_of_labels_is_cut_at_each_side(limit: int) -> None:
    pairs = [f"{one} → {other}" for one in PICTURED for other in PICTURED if one != other]
    for pair, told in cut_apart(pairs, limit, longest=limit).items():
        assert len(told) <= limit
        for name, side in zip(pair.split(" → "), told.split(" → "), strict=True):
            assert [other for other in PICTURED if fits(side, other)] == [name]
            assert name.split()[3] in side


def test_a_name_is_cut_to_what_only_it_has_between_its_ends() -> None:
    names = [f"{place}/{what}/{name}" for place in ("north", "south") for what in ("label", "top") for name in PICTURED]
    told = cut_apart(names, 16, longest=16)
    assert max(map(len, told.values())) <= 16
    for name, short_name in told.items():
        assert [other for other in names if fits(short_name, other)] == [name]
        assert name.split()[3] in short_name
        assert short_name.startswith(name[:5])


def test_names_that_differ_in_what_cannot_be_shown_are_spelled_out() -> None:
    assert told_apart(["a\u200b", "a\u200c", "b\x1b"], 20) == {
        "a\u200b": "a\\u200b",
        "a\u200c": "a\\u200c",
        "b\x1b": "b�",
    }


def labels_of(names: tuple[str, ...], means: tuple[float, ...], std: float = 0.0) -> Answer:
    rows = [
        {
            "mode": "eval",
            "ds_id": "",
            "metric": "loss",
            "label": label,
            "name": names[label],
            "epoch": epoch,
            "step": epoch,
            "n": 1 + bool(std),
            "mean": mean + epoch,
            "std": std,
            "min": mean + epoch,
            "max": mean + epoch,
            "bounds": {"std": [mean + epoch, mean + epoch]},
        }
        for label, mean in enumerate(means)
        for epoch in (-1, 0)
    ]
    return Answer("labels", "runs/odd", {"metric": ["loss"], "bounds": ["std"]}, pl.DataFrame(rows))


def test_labels_far_from_zero_are_told_apart_wherever_their_numbers_stand() -> None:
    answer = labels_of(("a", "b", "c"), FAR)
    report = labels_report(answer)
    exact = {"a": "-12,345.678", "b": "-12,345.671", "c": "-12,345.691"}
    assert report.sentence.startswith("Highest mean at the last epoch: b (-12,345.671). Lowest: c (-12,345.691).")
    rows = re.findall(r"^([abc]) +1 +(\S+)", as_text(report), re.MULTILINE)
    assert dict(rows) == exact
    assert dict(re.findall(r"^\| ([abc]) \| 1 \| ([^ ]+)", markdown(report), re.MULTILINE)) == exact
    shown = page(report, answer, Pictures())
    cells = re.findall(r'<td>([abc])</td><td class="num">1</td><td class="num"[^>]*>([^<]+)', shown)
    assert dict(cells) == exact
    (grid,) = (b for s in report.sections for v in s.blocks for b in _inside(v) if isinstance(b, Multiples))
    assert {c.title: c.subtitle.split(" ·")[0] for c in grid.charts} == exact
    hovers = {c.title: line_values(c)["lines"][-1]["y"][-1] for c in grid.charts}
    assert hovers == {"a": FAR[0], "b": FAR[1], "c": FAR[2]}


def test_a_mean_has_the_digits_of_its_deviation() -> None:
    sentence = labels_report(labels_of(("a", "b"), (-12345.678, 7.0), std=0.0123)).sentence
    assert "b (7 ± 0.012). Lowest: a (-12,345.68 ± 0.012)." in sentence


def test_tiles_and_cards_of_samples_far_from_zero() -> None:
    rows = [
        {
            "mode": "eval",
            "ds_id": "",
            "metric": "loss",
            "sample_id": i,
            "label": value,
            "group": "max",
            "rank": i + 1,
            "score": value,
            "stale": False,
            "facts": None,
            "history": [{"epoch": 0, "step": 0, "value": value}],
        }
        for i, value in enumerate(FAR)
    ]
    population = pl.DataFrame(
        {
            "mode": ["eval"] * 2,
            "ds_id": [""] * 2,
            "metric": ["loss"] * 2,
            "epoch": [0, 1],
            "step": [0, 1],
            "n": [3, 3],
            **{quantile: [FAR[0], FAR[1]] for quantile in ("q05", "q25", "q50", "q75", "q95")},
        }
    )
    (subject,) = subjects(Answer("samples", "r", {}, pl.DataFrame(rows)), ["loss"], population)
    shown = Page(predictions={("eval", "", i, 0, None): value + 0.0004 for i, value in enumerate(FAR)})
    said = sentence(subject, shown)
    assert said.startswith("The median loss rises from -12,345.678 to -12,345.671.")
    assert "The 3 highest samples are at -12,345.691 to -12,345.671." in said
    gallery = next(block for block in blocks(subject, shown) if isinstance(block, Gallery))
    assert [card.lines[0] for card in gallery.cards] == ["loss -12,345.678", "loss -12,345.671", "loss -12,345.691"]
    assert gallery.cards[0].lines[1] == "-12,345.678 → -12,345.6776"


def histories(scores: tuple[float, ...], groups: tuple[str, ...], medians: tuple[float, float]) -> Any:
    rows = [
        {"mode": "eval", "ds_id": "", "metric": "loss", "sample_id": i, "label": None, "group": group, "rank": 1}
        | {"score": score, "stale": False, "facts": None, "history": [{"epoch": 0, "step": 0, "value": score}]}
        for i, (score, group) in enumerate(zip(scores, groups, strict=True))
    ]
    population = pl.DataFrame(
        {"mode": ["eval"] * 2, "ds_id": [""] * 2, "metric": ["loss"] * 2, "epoch": [0, 1], "step": [0, 1], "n": [9, 9]}
        | {quantile: list(medians) for quantile in ("q05", "q25", "q50", "q75", "q95")}
    )
    (subject,) = subjects(Answer("samples", "r", {}, pl.DataFrame(rows)), ["loss"], population)
    return subject


def test_one_number_reads_the_same_in_sentence_cards_and_table() -> None:
    first, last = float(np.float32(0.99999911)), float(np.float32(0.99999905))
    subject = histories((last,) * 4, ("max", "max", "min", "min"), (first, last))
    assert sentence(subject, Page()) == (
        "The median loss falls from 0.999999106 to 0.999999046. The 2 highest samples are at 0.999999046. "
        "The 2 lowest samples are at 0.999999046."
    )
    shown = blocks(subject, Page())
    cards = [card.lines[0] for block in shown if isinstance(block, Gallery) for card in block.cards]
    assert set(cards) == {"loss 0.999999046"}
    (table,) = (block for block in shown if isinstance(block, Table))
    place = [heading.title for heading in table.columns].index("score")
    scores = column([row[place] for row in table.rows], table.columns[place].apart)
    assert set(scores) == {"0.999999046"}


def test_no_rounded_number_is_told_as_a_bound() -> None:
    subject = histories((7.19973, 9.5, 0.04136, 0.01), ("max", "max", "min", "min"), (1.0, 1.0))
    assert sentence(subject, Page()) == (
        "The 2 highest samples are at 7.2 to 9.5. The 2 lowest samples are at 0.01 to 0.0414."
    )


def _inside(block: Any) -> list[Any]:
    return [inner for views in block.views.values() for inner in views] if hasattr(block, "views") else [block]


LONG = tuple(
    "a common beginning of forty characters, " + c + ", and an end of forty characters that is alike" for c in "abc"
)


def test_long_names_that_differ_in_their_middle_are_told_apart_everywhere() -> None:
    answer = labels_of(LONG, (1.0, 2.0, 3.0))
    report = labels_report(answer)
    ((top, low),) = re.findall(r"epoch: (.+) \(3\)\. Lowest: (.+) \(1\)\.", report.sentence)
    assert (top[-2:], low[-2:]) == ("c…", "a…")
    assert max(len(top), len(low)) <= 40
    rows = [line for line in as_text(report).splitlines() if line.startswith("…")]
    assert [re.split(r"  +", row)[0][-2:] for row in rows[-3:]] == ["c…", "b…", "a…"]
    assert all(name in html.unescape(page(report, answer, Pictures())) for name in LONG)
    figures = [
        draw(chart).figure for s in report.sections for b in s.blocks for chart in _inside(b) if _is_chart(chart)
    ]
    for figure in figures:
        titles = {
            text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")) if "…" in text.get_text()
        }
        assert len(titles) == 3


def _is_chart(block: Any) -> bool:
    return isinstance(block, (LineChart, Multiples))


def test_a_label_reads_the_same_in_each_column_of_a_table() -> None:
    rows = ((LONG[0], LONG[1], "why"), (LONG[0], LONG[2], "why"))
    table = Table("t", "t", (Column("label"), Column("suggested"), Column("reason")), rows)
    report = Report("r", "r", "", "", (Section("s", "s", (table,)),), ())
    cells = [re.split(r"  +", line.strip())[:2] for line in as_text(report).splitlines() if line.startswith("…")]
    assert [[cell[-1] if not cell.endswith("…") else cell[-2] for cell in row] for row in cells] == [
        ["a", "b"],
        ["a", "c"],
    ]


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-12345.679, -12345.67), (1e11, 1e11 + 10.0)])
def test_the_frame_of_a_chart_holds_the_numbers_of_its_axis(limits: tuple[float, float]) -> None:
    middle = sum(limits) / 2
    line = Series("a", (0.0, 1.0), (middle, middle))
    chart = LineChart("n", "t", "epoch", "loss", (line,), y_limits=limits)
    svg = Pictures().of(chart).svgs[0]
    texts = re.findall(r'<text [^>]*text-anchor="end"[^>]*x="0" dx="-5"[^>]*>([^<]+)<', svg)
    assert len(texts) >= 2
    shown = page(_only(chart), labels_of(("a",), (1.0,)), Pictures())
    step = int((re.search(r'class="plot [^"]*left(\d+)"', shown) or [0, 0])[1])
    # The sheet gives 48 and 12 a step at a font size of 12, on phones 42 and 11 at 11.
    widest = max(map(width_of, texts))
    assert widest * 12 + 5 <= 48 + 12 * step
    assert widest * 11 + 5 <= 42 + 11 * step
    assert step == 0 or widest * 11 + 5 > 42 + 11 * (step - 2)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-12345.679, -12345.67)])
def test_a_small_chart_holds_the_numbers_of_its_axis_as_large_as_a_phone_shows_them(
    limits: tuple[float, float],
) -> None:
    middle = sum(limits) / 2
    line = Series("a", (0.0, 1.0), (middle, middle))
    cells = tuple(LineChart(name, name, "epoch", "loss", (line,), y_limits=limits) for name in "ab")
    svgs = Pictures().of(Multiples("n", "t", cells)).svgs
    for svg in svgs:
        left = float((re.search(r'viewBox="(\S+)', svg) or [0, 0])[1])
        ticks = re.findall(r'<text [^>]*text-anchor="end"[^>]*x="(\S+)"[^>]*>([^<]+)<', svg)
        assert len(ticks) >= 2
        assert all(float(x) - 12 * width_of(text) >= left for x, text in ticks)


@pytest.mark.parametrize("longest", [6, 21, 60])
def test_a_plane_of_points_holds_the_names_of_its_colours_as_large_as_a_phone_shows_them(longest: int) -> None:
    names = [f"{'W' * (longest - 2)} {n}" for n in range(9)]
    places = tuple(float(n) for n in range(9))
    chart = ScatterChart("n", "t", "x", "y", places, places, colour=tuple(names), colours=tuple(names))
    (svg,) = Pictures().of(chart).svgs
    _, _, width, _ = map(float, re.findall(r"viewBox=\"(\S+) (\S+) (\S+) (\S+)\"", svg)[0])
    labels = re.findall(r'<text [^>]*class="label[^>]*x="(\S+)"[^>]*>([^<]+)<', svg)
    assert len({text for _, text in labels}) == 9
    assert all(float(x) + 12 * width_of(text) <= width for x, text in labels)


def test_what_is_never_anything_but_zero_has_an_axis_that_begins_there() -> None:
    chart = LineChart("n", "t", "epoch", "share", (Series("a", (1.0, 2.0), (0.0, 0.0)),))
    texts = re.findall(r">([^<>]+)</text>", Pictures().of(chart).svgs[0])
    assert "0" in texts
    assert not [text for text in texts if text.startswith(("−", "-"))]


@pytest.mark.parametrize(
    ("bound", "ends", "said"),
    [
        ("std", [0.25, 1.25], "0.75 ± 0.5 · n 2"),
        ("ci", [0.5, 1.0], "0.75, 0.5 to 1 · n 2"),
        ("range", [0.0, 2.0], "0.75, 0 to 2 · n 2"),
        ("quantile", [0.125, 0.5, 1.5], "0.75, 0.12 to 1.5 · n 2"),
    ],
)
def test_a_small_chart_says_the_band_that_it_draws(bound: str, ends: list[float], said: str) -> None:
    answer = labels_of(("a", "b"), (0.75, 0.75), std=0.5)
    rows = [row | {"bounds": {bound: ends}} for row in answer.data.to_dicts()]
    own = replace(answer, selection=answer.selection | {"bounds": [bound]}, data=pl.DataFrame(rows))
    charts = [
        chart
        for section in labels_report(own).sections
        for block in section.blocks
        for chart in _inside(block)
        if isinstance(chart, Multiples)
    ]
    assert [cell.subtitle for chart in charts for cell in chart.charts] == [said, said]


def test_reports_know_the_labels_that_are_in_no_row_and_pairs_over_time_are_whole(tmp_path: Path) -> None:
    n = len(PICTURED)
    with Run(tmp_path / "run", label_names=PICTURED) as recorded:
        for epoch in recorded.epochs(2):
            ids = np.arange(4 * n)
            logits = np.eye(n)[(ids + (ids < n + epoch)) % n]
            recorded.log_samples(sample_id=ids, label=ids % n, logits=logits, mode="eval")
    run = open_run(tmp_path / "run")
    confusion = run.confusion()
    for result in (
        run.samples(max=1, min=0),
        run.findings(),
        run.report(),
        run.select(rule="suspects", n=2),
        confusion,
    ):
        assert result.report.label_names == tuple(PICTURED)
    charts = [b for s in confusion.report.sections for b in s.blocks if isinstance(b, LineChart) and "pairs" in b.title]
    (chart,) = charts
    assert {line.name for line in chart.series} == {
        f"{a} → {b}" for a, b in zip(PICTURED, (*PICTURED[1:], PICTURED[0]), strict=True)
    }


def _only(chart: LineChart) -> Any:
    return Report("r", "r", "", "", (Section("s", "s", (chart,)),), ())


def test_facts_and_titles_on_cards_are_told_apart() -> None:
    head, tail = "/a/very/long/folder/of/a/data/set/that/everybody/uses/", "/and/its/end/that/is/alike/too.png"
    paths = [f"{head}{n:04d}{tail}" for n in (7, 8)]
    cards = tuple(
        Card(str(i), path, (f"loss {i}",), verdict=path * 4, facts=(("path", Link(path)),))
        for i, path in enumerate(paths)
    )
    report = Report("r", "r", "", "", (Section("s", "s", (Gallery("g", cards),)),), ())
    shown = html.unescape(page(report, labels_of(("a",), (1.0,)), Pictures()))
    articles = re.findall(r"<article.*?</article>", shown, re.DOTALL)
    for pattern in (r"<h4[^>]*>([^<]+)", r"<dd><span[^>]*>([^<]+)", r'class="verdict"[^>]*>([^<]+)'):
        said = [re.findall(pattern, article)[0] for article in articles]
        assert ["0007" in said[0], "0008" in said[1]] == [True, True]


def test_a_hover_tells_a_share_that_is_not_quite_all_as_less() -> None:
    shares = (0.99997, 0.999997, -0.9999995, 1.0, 0.5)
    epochs = tuple(float(n) for n in range(5))
    chart = LineChart("c", "c", "epoch", "accuracy", (Series("a", epochs, shares),), alt="a")
    assert line_values(chart)["lines"][0]["y"] == [0.99997, 0.999997, -0.9999995, 1, 0.5]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_tells_it_so_too() -> None:
    script = (files("xaicli.render") / "page.js").read_text(encoding="utf-8")
    (function,) = re.findall(r"const (number = \(.*?\n  };)", script, re.DOTALL)
    asked = "[0.99997, 0.999997, -0.99997, 1, 0.5, 1234.5678, 0.99949].map((v) => number(v)).join(' ')"
    told = subprocess.run(
        ["node", "-e", f"{function} console.log({asked})"], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["0.99997", "0.999997", "-0.99997", "1", "0.5", "1,235", "0.9995"]


def test_a_run_without_samples_has_rows_of_tables_and_one_of_no_time_took_less_than_a_second() -> None:
    row = {"name": "", "created_at": "2026-11-20T17:02:00", "modes": [], "epochs": 0, "rows": 0, "accuracy": None}
    row |= {"run": "runs/a", "state": "finished", "seconds": 0.2, "metrics": [], "problem": None}
    (table,) = runs_report(Answer("ls", "runs", {}, pl.DataFrame([row]))).sections[0].blocks
    assert isinstance(table, Table)
    assert table.rows[0][-1] == "<1 s"
    assert table.note == "rows: of samples; xai info RUN says what its tables hold"
    (table,) = runs_report(Answer("ls", "runs", {}, pl.DataFrame([row | {"rows": 7}]))).sections[0].blocks
    assert isinstance(table, Table)
    assert "several data sets, which xai confusion RUN tells one by one" in table.note
    none = pl.DataFrame(schema={"mode": pl.String, "rows": pl.Int64, "metrics": pl.List(pl.String)})
    tables = [
        {"name": name, "rows": n, "columns": ["tp"], "ask": []} for name, n in (("boxes", 3117), ("metrics", 960))
    ]
    told = info_report(Answer("info", "runs/a", {}, none, extra={"tables": tables})).sentence
    assert told == "No samples were logged; the run's tables have 3,117 rows of boxes and 960 rows of metrics."
    told = info_report(Answer("info", "runs/a", {}, none)).sentence
    assert told == "No rows yet: training has not logged a sample, or nothing has been written."


def test_every_run_keeps_what_people_ask_first_at_80_columns() -> None:
    names = [f"runs/experiment-{n}/resnet50-lr0.001-batch256-seed{n}" for n in (1, 2)]
    row = {"name": "", "created_at": "2026-11-20T17:02:00", "modes": ["train", "eval"], "epochs": 90, "rows": 4_500_000}
    row |= {"accuracy": 0.7613, "accuracy_mode": "eval"}
    row |= {"state": "finished", "seconds": 7200.0, "metrics": ["loss"], "problem": None}
    broken = dict.fromkeys(row) | {"run": "runs/broken", "problem": "xai.json cannot be read"}
    answer = Answer("ls", "runs", {}, pl.DataFrame([*({"run": name} | row for name in names), broken]))
    report = runs_report(answer)
    (table,) = (block for section in report.sections for block in section.blocks if isinstance(block, Table))
    assert [row[1] for row in table.rows] == ["2026-11-20 17:02", "2026-11-20 17:02", ""]
    lines = as_text(report).splitlines()
    assert max(map(len, lines)) <= 80
    for n in (1, 2):
        (line,) = (line for line in lines if f"seed{n}" in line)
        assert re.search(r"90 +0\.7613 eval +finished +2\.0 h", line)
    assert "xai.json cannot be read" in " ".join(" ".join(lines).split())


def test_fifths_of_labels_far_from_zero_have_names_of_their_own() -> None:
    values = pl.Series([-12345.678 + 0.001 * n for n in range(200)])
    names, codes = by_quintile(values)
    assert len(set(names[:5])) == 5
    for name, code in zip(names, range(5), strict=False):
        # What a name says is so of every value it names, but for the digits it leaves out.
        numbers = [float(number) for number in re.findall(r"-\d[\d.]*", name)]
        mine = [value for value, own in zip(values, codes, strict=True) if own == code]
        assert len(mine) == 40
        assert min(mine) >= (numbers[0] - 0.006 if not name.startswith("up to") else -math.inf)
        assert max(mine) <= (numbers[-1] + 0.006 if not name.startswith("above") else math.inf)


def test_a_fifth_is_called_the_same_by_every_question(tmp_path: Path) -> None:
    labels = np.arange(100) * 0.0123457
    with Run(tmp_path, task="regression") as run:
        run.log_samples(sample_id=np.arange(100), mode="eval", epoch=0, step=0, label=labels, prediction=labels + 0.5)
    asked = open_run(tmp_path)
    called = [row["name"] for row in asked.labels(mode="eval", metric="residual").data.to_dicts()]
    # The bounds lie a fifth of the way from one label to the next: 19.8, 39.6, 59.4 and 79.2 steps of 0.0123457.
    assert called == [
        "up to 0.2444", "0.2444 to 0.4889", "0.4889 to 0.7333", "0.7333 to 0.9778", "above 0.9778"
    ]  # fmt: skip
    groups = asked.errors(mode="eval").answer.extra["groups"]
    assert [row["value"] for row in groups if row["column"] == "label"] == called


def test_a_fifth_of_whole_numbers_is_called_by_what_there_is_by_every_question(tmp_path: Path) -> None:
    tens = np.arange(100) * 10.0  # 0 to 990: 20 of each fifth, and nothing between two of them
    wanted = ["up to 190", "200 to 390", "400 to 590", "600 to 790", "above 790"]
    with Run(tmp_path, task="regression") as run:
        run.log_samples(sample_id=np.arange(100), mode="eval", epoch=0, label=tens, prediction=tens + 0.5)
        run.log_facts(np.arange(100), size=tens.astype(int))
    asked = open_run(tmp_path)
    assert [row["name"] for row in asked.labels(mode="eval", metric="residual").data.to_dicts()] == wanted
    groups = asked.errors(mode="eval", by=["size"]).answer.extra["groups"]
    for of in ("label", "size"):
        own = [row for row in groups if row["column"] == of]
        assert [(row["value"], row["n"]) for row in own] == [(name, 20) for name in wanted]


def test_scores_on_cards_are_those_of_the_table_and_told_apart(tmp_path: Path) -> None:
    losses = np.array([5.542, 5.537, 0.1, 0.2])
    with Run(tmp_path / "run") as run:
        run.log_images(np.arange(4), np.zeros((4, 4, 4, 1), np.uint8))
        run.log_samples(sample_id=np.arange(4), mode="train", epoch=0, step=0, loss=losses, label=np.zeros(4, int))
    report = open_run(tmp_path / "run").select(rule="hardest", n=2, mode="train").report
    shown = [block for section in report.sections for block in section.blocks]
    cards = [line for block in shown if isinstance(block, Gallery) for card in block.cards for line in card.lines]
    assert [line for line in cards if line.startswith("score")] == ["score 5.542", "score 5.537"]


def test_the_most_frequent_confusion_says_which_others_are_as_frequent(tmp_path: Path) -> None:
    label = np.array([0, 0, 1, 1, 2, 2, 0, 1])
    taken = np.array([1, 1, 2, 2, 0, 2, 0, 1])
    with Run(tmp_path / "run", label_names=["cat", "dog", "owl"]) as run:
        run.log_samples(sample_id=np.arange(8), mode="eval", epoch=0, step=0, label=label, prediction=taken)
    said = open_run(tmp_path / "run").confusion().report.sentence
    assert "most often cat is taken for dog (2 times, as 1 other)" in said


def test_a_page_of_verdicts_has_no_empty_column(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0, 1], mode="eval", epoch=0, step=0, loss=np.array([0.5, 0.5]))
    run_there = open_run(tmp_path / "run")
    heads = []
    for rule in ("loss mean < 1", "gone mean < 1"):
        (table,) = (b for s in run_there.check(rule=rule).report.sections for b in s.blocks if isinstance(b, Table))
        heads.append([heading.title for heading in table.columns])
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert ["why" in titles for titles in heads] == [False, True]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1700000000.5, "1700000000.5"),
        (1700000060.0, "1700000060"),
        (52.52 + 1e-5, "52.52001"),
        (1234567.25, "1234567.25"),
        (123456789012.25, "123456789012.25"),
        (float(np.float32(0.1)), "0.1"),
        (0.1 + 0.2, "0.3"),
        (1e-9, "1e-09"),
        (-0.0625, "-0.0625"),
        (1e15 + 0.5, "1000000000000000.5"),
        (math.inf, "inf"),
    ],
)
def test_a_fact_that_is_a_number_has_all_its_digits(value: float, said: str) -> None:
    assert exact(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.5437261904761905, "0.54372619"),
        (-122.4194155, "-122.4194155"),
        (-122.419415512345, "-122.419416"),
        (52.520001, "52.520001"),
        (1700000000.25, "1700000000.25"),
        (1700000000.123456, "1700000000.12"),
        (123456789012345.0, "123456789012345"),
        (1.0 / 3e7, "3.33333333e-08"),
        (math.inf, "inf"),
    ],
)
def test_of_a_fact_with_seventeen_digits_those_are_shown_that_say_anything(value: float, said: str) -> None:
    assert brief(value) == said


def test_all_of_what_is_cut_or_rounded_is_told_where_a_pointer_rests(tmp_path: Path) -> None:
    brightness, long = 0.5437261904761905, "start " + "and so on " * 40 + "end"
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[3], mode="eval", epoch=0, loss=[1.0])
        run.log_facts([3], brightness=[brightness], words=[long])
    shown = open_run(tmp_path / "run").samples(max=1, min=0).html()
    assert f'<dd><span title="{brightness}">0.54372619</span>' in shown
    assert re.search(rf'<td class="[^"]*" title="{long}">start and so on', shown) is not None
    probs = open_run(tmp_path / "run").query("SELECT [0.12345678, 0.5] AS probs, [1, 2] AS classes").html()
    assert '<td class="short" title="0.12345678, 0.5">0.1235, 0.5</td><td class="short">1, 2</td>' in probs


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_fact_is_lost_but_to_rounding(value: float) -> None:
    assert abs(float(exact(value)) - value) <= 2 * math.ulp(value) or float(np.float32(float(exact(value)))) == value


def test_times_places_and_keys_are_told_apart_on_cards_in_tables_and_when_sorted_or_copied(tmp_path: Path) -> None:
    n = 6
    known = {
        "time": [1700000000.5 + i * 0.25 for i in range(n)],
        "latitude": [52.52 + i * 1e-6 for i in range(n)],
        "key": [123456789012.0 + i for i in range(n)],
    }
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=np.arange(n), mode="eval", epoch=0, loss=np.arange(n) / 7)
        run.log_facts(np.arange(n), **known)
    result = open_run(tmp_path / "run").samples(max=n, min=0)
    shown = result.html()
    (table,) = (b for s in result.report.sections for b in s.blocks if isinstance(b, Table))
    places = [[heading.title for heading in table.columns].index(name) for name in known]
    rows = {int(row[1]): [str(row[place]) for place in places] for row in table.rows}
    assert [rows[i] for i in (0, 1, 5)] == [
        ["1700000000.5", "52.52", "123456789012"],
        ["1700000000.75", "52.520001", "123456789013"],
        ["1700000001.75", "52.520005", "123456789017"],
    ]
    for row in rows.values():
        assert all(f"<dd><span>{told}</span>" in shown for told in row)
        assert all(f">{told}</td>" in shown for told in row)
    keys = [float(key) for key in re.findall(r'class="num" data-v="([^"]+)"', shown)]
    assert {float(np.float32(i / 7)) for i in range(1, n)} <= set(keys)


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(0.9993, 2, "0.9993"), (0.99996, 4, "0.99996"), (-0.99996, 4, "-0.99996"), (1.0, 4, "1"), (1 - 1e-12, 4, "1")],
)
def test_a_number_below_one_reads_as_one_only_where_it_is(value: float, digits: int, said: str) -> None:
    assert short(value, digits) == said
