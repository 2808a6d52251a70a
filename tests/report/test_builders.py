"""Reports built from answers: what they say, in which order, under which names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xaicli
import xaicli.api
from tests.report_answers import FACTS, labels_result, samples_result
from xaicli import Run, open_run
from xaicli.answer import Answer, Counts
from xaicli.dynamics.findings import Finding
from xaicli.queries.compare import Comparison
from xaicli.queries.scalars import SCHEMA
from xaicli.render.figure import draw
from xaicli.render.pen import drawn
from xaicli.render.terminal import as_text
from xaicli.report.charts import Image, LineChart, MatrixChart, Multiples, ScatterChart, Tone
from xaicli.report.compare import compare_report, label_charts, mean_chart, sample_chart
from xaicli.report.datamap import dynamics_report
from xaicli.report.embeddings import embedding_blocks
from xaicli.report.facts import address_of
from xaicli.report.findings import SCORES, findings_report
from xaicli.report.info import system_blocks
from xaicli.report.labels import few_enough, labels_report
from xaicli.report.model import Figures, Gallery, Table, Text, Views
from xaicli.report.numbers import count, cut, listed, short, shortened
from xaicli.report.page import Keys, Names, Page, RunFacts, made, plain_report
from xaicli.report.samples import samples_report
from xaicli.report.scalars import _on_own_scale, scalar_blocks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1234567, "1,234,567"),
        (0.12345, "0.1235"),
        (12.0, "12"),
        (1234.56, "1,235"),
        (99999.9, "100,000"),
        (0.00001234, "1.23e-05"),
        (-0.5, "-0.5"),
        (1e12, "1.00e+12"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (True, "true"),
    ],
)
def test_numbers_for_people(value: float | None, text: str) -> None:
    assert short(value) == text


@given(st.floats(-1e300, 1e300))
def test_four_digits_are_close_enough(value: float) -> None:
    assert float(short(value).replace(",", "")) == pytest.approx(value, rel=6e-3)


def test_words() -> None:
    assert count(1, "sample") == "1 sample"
    assert count(1797, "sample") == "1,797 samples"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([str(i) for i in range(9)], 3) == "0, 1 and 7 more"
    assert listed([]) == "none"
    assert cut("dog-0123456789-left", 10) == "dog-0…left"
    assert shortened("a long reason", 7) == "a long…"


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_names_are_safe_and_never_shared(parts: list[tuple[str, str]]) -> None:
    names = Names()
    given_names = {part: names(*part) for part in parts}
    assert len(set(given_names.values())) == len(set(parts))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in given_names.values())
    assert all(names(*part) == name for part, name in given_names.items())


def test_names_of_hostile_metrics_stay_in_their_folder() -> None:
    assert Names()("samples", "../../etc", "a/b\\c") == "samples-etc-a-b-c"


def test_keys_tell_modes_apart() -> None:
    keys = Keys()
    assert keys("eval", "", 1) == keys("eval", "", 1) != keys("train", "", 1)
    assert keys.known("eval", "", 2) == ""


def chart_of(result: Any) -> LineChart:
    return next(b for s in result.report.sections for b in s.blocks if isinstance(b, LineChart))


def test_a_sample_in_two_groups_is_one_line() -> None:
    result = samples_result(epochs=3, top=1, listed=(100,))
    assert [line.name for line in chart_of(result).series] == ["median", "#100", "#200"]


def test_lines_have_the_tone_of_their_group_and_bands_come_from_the_population() -> None:
    chart = chart_of(samples_result(epochs=3, top=1, listed=(17,)))
    assert [line.tone for line in chart.series] == [Tone.MEDIAN, Tone.MAX, Tone.MIN, Tone.LISTED]
    assert [band.low[0] < band.high[0] for band in chart.bands] == [True, True]
    assert chart.bands[0].low[0] < chart.bands[1].low[0]


def with_history(*points: tuple[int, int, float]) -> LineChart:
    """The chart of a sample with these (epoch, step, value) points."""
    history = [dict(zip(("epoch", "step", "value"), point, strict=True)) for point in points]
    dtype = pl.List(pl.Struct({"epoch": pl.Int64, "step": pl.Int64, "value": pl.Float64}))
    data = samples_result(epochs=1, top=1, listed=()).data.head(1).with_columns(history=pl.lit(history, dtype=dtype))
    blocks = samples_report(Answer("samples", "r", {"metric": ["loss"]}, data)).sections[0].blocks
    return next(block for block in blocks if isinstance(block, LineChart))


def test_values_over_decades_stand_on_a_logarithmic_scale() -> None:
    assert with_history((1, 7, 0.01), (2, 14, 1.1)).y_log
    assert not with_history((1, 7, 0.02), (2, 14, 1.1)).y_log
    assert not with_history((1, 7, -1.0), (2, 14, 1000.0)).y_log


def test_the_step_axis_says_the_step_of_each_epoch() -> None:
    axis = with_history((1, 7, 1.0), (2, 14, 1.0), (5, 40, 1.0)).other_axis
    assert axis is not None
    assert dict(zip(axis.at, axis.values, strict=True)) == {1: 7, 2: 14, 5: 40}


def test_no_samples_is_a_page_that_says_so() -> None:
    empty = samples_result(epochs=1).data.clear()
    report = samples_report(Answer("samples", "r", {"metric": ["loss"]}, empty))
    assert report.sentence == "No samples: the selection leaves nothing."
    assert report.sections == (), "it is said once"


def test_that_no_sample_was_asked_for_is_not_said_of_the_selection_or_the_values() -> None:
    empty = samples_result(epochs=1).data.clear()
    none = {"metric": ["loss"], "max": 0, "min": 0, "ids": []}
    report = samples_report(Answer("samples", "r", none, empty))
    assert report.sentence == "No samples are asked for: --max and --min are 0, and no --ids are given."
    data = samples_result(epochs=2, top=1, listed=(3, 17)).data.filter(pl.col("group") == "listed")
    listed = samples_report(Answer("samples", "r", none | {"ids": [3, 17]}, data))
    low, high = sorted(data["score"])
    assert listed.sentence == f"The listed samples are at {low:.3g} to {high:.3g}."
    one = samples_report(Answer("samples", "r", none | {"ids": [3]}, data.head(1)))
    assert one.sentence == f"What is listed is at {data['score'][0]:.3g}."


def test_labels_stand_from_the_highest_last_mean_to_the_lowest() -> None:
    report = labels_result(labels=6).report
    table = next(b for s in report.sections for b in s.blocks if isinstance(b, Table))
    means = [row[2] for row in table.rows]
    assert means == sorted(means, reverse=True)
    views = next(b for s in report.sections for b in s.blocks if isinstance(b, Views))
    assert list(views.views) == ["± std", "min–max"]
    for blocks in views.views.values():
        (grid,) = blocks
        assert isinstance(grid, Multiples)
        assert [chart.title for chart in grid.charts] == [row[0] for row in table.rows]


def test_the_same_axis_holds_every_band() -> None:
    views = next(b for s in labels_result().report.sections for b in s.blocks if isinstance(b, Views))
    (grid,) = views.views["min–max"]
    assert isinstance(grid, Multiples)
    (limits,) = {chart.y_limits for chart in grid.charts}
    assert limits is not None
    values = [v for chart in grid.charts for band in chart.bands for v in (*band.low, *band.high) if v is not None]
    assert limits[0] < min(values) <= max(values) < limits[1]
    for chart in grid.charts:
        own = [v for curve in (*chart.series, *chart.bands) for v in getattr(curve, "y", ()) if v is not None]
        own += [v for band in chart.bands for v in (*band.low, *band.high) if v is not None]
        assert chart.y_own is not None
        assert chart.y_own[0] < min(own) <= max(own) < chart.y_own[1]


def test_the_legend_says_what_the_band_means() -> None:
    views = next(b for s in labels_result().report.sections for b in s.blocks if isinstance(b, Views))
    legends = [block.legend for blocks in views.views.values() for block in blocks if isinstance(block, Multiples)]
    assert "standard deviation of the label's samples (n − 1): their spread, not the error of the mean" in legends[0]
    assert "lowest to highest sample" in legends[1]


def test_the_dashed_line_is_the_mean_of_all_samples() -> None:
    data = labels_result(labels=2, epochs=1).data
    views = next(b for s in labels_result(labels=2, epochs=1).report.sections for b in s.blocks if isinstance(b, Views))
    (grid,) = views.views["± std"]
    assert isinstance(grid, Multiples)
    everyone = next(line for line in grid.charts[0].series if line.tone is Tone.REFERENCE)
    assert everyone.y[0] == pytest.approx((data["mean"] * data["n"]).sum() / data["n"].sum())


def test_the_number_of_samples_behind_each_point_is_kept() -> None:
    views = next(b for s in labels_result(labels=1, epochs=3).report.sections for b in s.blocks if isinstance(b, Views))
    (grid,) = views.views["± std"]
    assert isinstance(grid, Multiples)
    assert grid.charts[0].series[-1].counts == (300, 300, 300)


def test_a_label_without_a_finite_value_stands_last_and_is_no_extreme() -> None:
    data = labels_result(labels=3, epochs=2).data
    data = data.with_columns(mean=pl.when(pl.col("label") == 0).then(math.nan).otherwise(pl.col("mean")))
    report = labels_report(Answer("labels", "r", {"bounds": ["std"]}, data), FACTS)
    table = next(b for s in report.sections for b in s.blocks if isinstance(b, Table))
    assert table.rows[-1][0] == "airplane"
    assert "airplane" not in report.sentence


DYNAMICS = pl.DataFrame(
    {
        "mode": ["eval"] * 4,
        "ds_id": [""] * 4,
        "sample_id": [1, 2, 3, 4],
        "label": [0, 1, 0, None],
        "n_obs": [3, 3, 3, 3],
        "stale": [False, False, True, False],
        "loss_mean": [0.1, 2.0, 1.0, math.nan],
        "confidence": [0.9, 0.1, 0.5, None],
        "variability": [0.05, 0.02, 0.3, None],
        "region": ["easy", "hard", "ambiguous", None],
        "never_learned": [False, True, False, None],
        "forgetting": [0, 0, 2, None],
    }
)


def test_the_data_map_shows_regions_and_leaves_out_samples_without_a_place() -> None:
    report = dynamics_report(Answer("dynamics", "r", {"early_epochs": 10}, DYNAMICS), Page(FACTS))
    blocks = report.sections[0].blocks
    figures = next(b for b in blocks if isinstance(b, Figures))
    assert [(f.caption.split(":")[0], f.value) for f in figures.figures] == [
        ("easy", "1"),
        ("ambiguous", "1"),
        ("hard", "1"),
    ]
    chart = next(b for b in blocks if isinstance(b, ScatterChart))
    assert chart.x == (0.05, 0.02, 0.3)
    assert chart.names == ("#1 airplane", "#2 car", "#3 airplane")
    assert report.sentence == "eval: 4 samples, 1 never learned, 1 forgotten at least once."
    assert ("variability", "standard deviation of it, divisor n") in report.made


def test_the_truth_is_a_table() -> None:
    truth = {"mean loss": {"auroc": 0.8, "ap": 0.5, "p_at_100": 0.4}}
    report = dynamics_report(Answer("dynamics", "r", {}, DYNAMICS, extra={"truth": truth}))
    (table,) = report.sections[0].blocks
    assert isinstance(table, Table)
    assert table.rows == (("mean loss", 0.8, 0.5, 0.4),)


def test_findings_are_grouped_with_their_reasons() -> None:
    row = {"mode": "eval", "ds_id": "", "label": 1, "score": 0.5, "epoch": None, "suggested_label": None}
    rows = [
        {"finding": "suspect", "sample_id": 7, **row, "suggested_label": 2, "reason": "never learned"},
        {"finding": "departing_label", "sample_id": None, **row, "epoch": 3, "reason": "rises while others fall"},
    ]
    report = findings_report(Answer("findings", "r", {}, pl.DataFrame(rows, infer_schema_length=None)), Page(FACTS))
    assert [s.title for s in report.sections] == ["Suspected labels", "Labels that depart from the others"]
    first, second = (next(b for b in s.blocks if isinstance(b, Table)) for s in report.sections)
    assert first.rows == (("7", "car", "bird", 0.5, "never learned"),)
    assert second.rows == (("car", 0.5, 3, "rises while others fall"),)


def test_suspects_are_a_ranking_whose_number_is_estimated() -> None:
    row = {"mode": "eval", "ds_id": "", "finding": "suspect", "score": 0.9, "epoch": None, "suggested_label": None}
    frame = pl.DataFrame([{**row, "sample_id": n, "label": 1, "reason": "never learned"} for n in range(2)])
    noise = [
        {"mode": "eval", "ds_id": "", "label": n, "name": str(n), "n": 20, "contradicted": wrong}
        | {"rate": wrong / 20, "low": 0.0, "high": 0.2, "unsure": False}
        for n, wrong in enumerate((2, 1))
    ]
    # 20 labels were contradicted at some time, a few by the model's own mistakes; the early epochs contradict 3.
    report = findings_report(Answer("findings", "r", {}, frame, extra={"label_noise": noise, "found": {"suspect": 20}}))
    assert "suspected labels 2 of 20 (about 3 of 40 samples may be wrong)" in report.sentence
    assert "The first 2 of 20 samples" in {table.title.split(",")[0] for table in report.sections[0].blocks}
    # Of a network that was not sure yet a count of contradicted labels is no estimate, nor is none of them.
    for counts, told in (((2, 1), "3 of 40"), ((0, 0), "0 of 40")):
        unsure = [row | {"unsure": True, "contradicted": n} for row, n in zip(noise, counts, strict=True)]
        report = findings_report(Answer("findings", "r", {}, frame, extra={"label_noise": unsure}))
        assert f"({told} samples contradicted in the early epochs, when the network was not sure yet" in report.sentence
        assert "about" not in report.sentence


@pytest.mark.parametrize("kind", Finding)
def test_each_table_of_findings_says_what_its_scores_are(kind: Finding) -> None:
    row = {"mode": "eval", "ds_id": "", "score": 0.9, "epoch": None, "suggested_label": None, "label": 1}
    found = pl.DataFrame([{**row, "finding": kind.value, "sample_id": 7, "reason": "as it is"}])
    report = findings_report(Answer("findings", "r", {}, found), Page(FACTS))
    (table,) = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    assert table.note.startswith("score: ")


def test_spikes_are_counted_as_spikes_and_the_scores_meaning_stays_beside_cards() -> None:
    row = {"mode": "eval", "ds_id": "", "score": 0.9, "epoch": None, "suggested_label": None, "label": 1}
    spikes = [{**row, "finding": "spike", "sample_id": 7, "reason": f"loss 9 at step {n}"} for n in range(3)]
    suspected = [{**row, "finding": "suspect", "sample_id": n, "reason": "never learned"} for n in range(20)]
    picture = Image(1, 1, 1, b"\0", "")
    page = Page(FACTS, images={("eval", "", n): picture for n in range(20)})
    report = findings_report(Answer("findings", "r", {}, pl.DataFrame([*suspected, *spikes])), page)
    tables = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    assert [table.title for table in tables if table.title.startswith("3 ")] == ["3 spikes, each with its reason"]
    for kind, noun in (("confused_pair", "pairs"), ("doubted_label", "labels"), ("over_confident", "data sets")):
        some = [{**row, "finding": kind, "sample_id": None, "reason": f"number {n}"} for n in range(2)]
        section = findings_report(Answer("findings", "r", {}, pl.DataFrame(some)), page).sections[0]
        assert [block.title for block in section.blocks if isinstance(block, Table)] == [
            f"2 {noun}, each with its reason"
        ]
    assert tables[0].note == SCORES["suspect"]
    gallery = next(block for section in report.sections for block in section.blocks if isinstance(block, Gallery))
    assert gallery.note == "the first 12 of 20; the table has all"


def test_no_findings_is_no_promise() -> None:
    empty = pl.DataFrame(schema={"finding": pl.String, "mode": pl.String, "ds_id": pl.String})
    assert "Nothing stands out" in findings_report(Answer("findings", "r", {}, empty)).sentence


def test_findings_that_were_not_asked_for_are_counted() -> None:
    empty = pl.DataFrame(schema={"finding": pl.String, "mode": pl.String, "ds_id": pl.String})
    found = {"suspect": 14, "forgotten": 0, "rank_jump": 3}
    report = findings_report(Answer("findings", "r", {"top": 0}, empty, extra={"found": found}))
    assert report.sentence == "None is listed, as --top 0 says. Found: suspected labels 14, sudden rank changes 3."
    assert "Nothing stands out" in findings_report(Answer("findings", "r", {"top": 0}, empty)).sentence


def test_runs_side_by_side() -> None:
    base = {
        "mode": "eval",
        "ds_id": "",
        "metric": "loss",
        "label": None,
        "name": None,
        "sample_id": None,
        "group": None,
        "rank": None,
        "stale": None,
        "n": None,
        "epoch": None,
        "pass": None,
    }
    counted = {"n": [24, 20], "epoch": [3, 3], "pass": [0, 0]}
    rows = [
        {"kind": "metric", **base, **counted, "values": [1.0, 0.5], "change": -0.5, "correct": None},
        {
            "kind": "sample",
            **base,
            "sample_id": "7",
            "group": "flipped",
            "rank": 1,
            "values": [2.0, None],
            "change": None,
            "correct": [True, False],
            "stale": [False, None],
        },
    ]
    answer = Answer("compare", "a b", {"runs": ["runs/a", "runs/b"]}, pl.DataFrame(rows, infer_schema_length=None))
    report = compare_report(answer)
    assert report.sentence.startswith("Mean loss (eval): 1 in a, 0.5 in b.")
    tables = {s.title: b for s in report.sections for b in s.blocks if isinstance(b, Table)}
    assert [rows for title, table in tables.items() if title != "Samples" for rows in table.rows] == [
        ("eval", "loss", 1.0, 0.5, -0.5, "24 | 20", "3")
    ]
    samples = tables["Samples"]
    assert samples.rows == (("eval", "became wrong", "7", 2.0, None, None, "✓ ✗"),)


def test_compared_runs_are_a_line_each_and_samples_lie_about_the_diagonal() -> None:
    means = tuple(pl.DataFrame({"epoch": [1, 2], "mean": [1.0, end]}) for end in (0.5, 0.75))
    labels = tuple(
        pl.DataFrame({"name": ["cat", "dog"], "epoch": [1, 1], "mean": [0.5, end], "n": [3, 4]}) for end in (1.0, 3.0)
    )
    right = {"first_correct": [True, None, False], "last_correct": [False, True, False]}
    samples = pl.DataFrame({"sample_id": [1, 2, 3], "first": [0.1, 0.2, math.nan], "last": [0.3, 0.1, 1.0], **right})
    course = Comparison(("eval", ""), "loss", means, labels, samples)
    (line,) = mean_chart(course, ["a", "b"], Names())
    assert [(series.name, series.y) for series in line.series] == [("a", (1.0, 0.5)), ("b", (1.0, 0.75))]
    (grid,) = label_charts(course, ["a", "b"], Names())
    assert [(cell.title, cell.subtitle) for cell in grid.charts] == [("dog", "1 → 3"), ("cat", "0.5")]
    assert "a blue; b vermilion, dashed" in grid.legend
    assert "Beside a label its last mean in the first run → in the last." in grid.legend
    (dots,) = sample_chart(course, ["a", "b"], Names())
    assert (dots.x, dots.y, dots.colour) == ((0.1, 0.2), (0.3, 0.1), ("right: a", None))
    assert dots.diagonal
    assert draw(dots).figure.axes[0].lines[0].get_gid() == "line.median."


def test_samples_of_two_runs_are_coloured_by_who_is_right() -> None:
    right = {"first_correct": [True, True, False, False, None], "last_correct": [True, False, True, False, None]}
    values = pl.DataFrame({"sample_id": range(5), "first": [0.5] * 5, "last": [1.5] * 5, **right})
    (dots,) = sample_chart(Comparison(("eval", ""), "loss", (), (), values), ["a", "b"], Names())
    assert dots.colour == ("right: both", "right: a", "right: b", "right: neither", None)
    assert dots.colours == dots.colour[:4]
    unsaid = values.with_columns(pl.lit(None, pl.Boolean).alias(name) for name in right)
    (dots,) = sample_chart(Comparison(("eval", ""), "loss", (), (), unsaid), ["a", "b"], Names())
    assert (dots.colour, dots.colours) == ((), ())


@pytest.mark.parametrize(
    ("values", "scaled"),
    [
        ([2.0, None, 4.0, 3.0], (0.0, None, 1.0, 0.5)),
        ([7.0, None, 7.0], (0.5, None, 0.5)),
        ([None], (None,)),
        ([], ()),
    ],
)
def test_curves_of_a_table_each_fill_their_height(values: list[float | None], scaled: tuple[float | None, ...]) -> None:
    assert _on_own_scale(values) == scaled


def test_dots_are_coloured_by_fifths_the_highest_first() -> None:
    values = (0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 90.0)
    axes = draw(ScatterChart("c", "c", "x", "y", values, values, colour=values)).figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.7 – 90", "0.5 – 0.6", "0.3 – 0.4", "0.1 – 0.2", "0"]
    assert [line.get_gid() for line in axes.lines if line.get_gid().startswith("points")] == [
        f"points.v{level}." for level in range(5)
    ]


def test_no_two_groups_share_a_colour() -> None:
    # Twelve labels; those with most points keep colours of their own.
    labels = tuple(f"label {i:02d}" for i in range(12) for _ in range(i + 1))
    x = tuple(map(float, range(len(labels))))
    axes = draw(ScatterChart("c", "c", "x", "y", x, x, colour=labels)).figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [*(f"label {i:02d}" for i in range(3, 12)), "3 others"]
    colours = [line.get_gid() for line in axes.lines if line.get_gid().startswith("points")]
    assert len(set(colours)) == len(colours) == 10


def scalar_rows(*curves: tuple[str, str]) -> pl.DataFrame:
    """Two values of each (key, mode)."""
    plain = {"run": "runs/a", "source": "scalars", "graph": "", "line": "", "ds_id": "", "axis": "epoch"}
    rows = [
        plain | {"key": key, "mode": mode, "step": step, "value": 0.5 * step, "low": None, "high": None, "n": 1}
        for key, mode in curves
        for step in (1, 2)
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def test_a_scalar_is_named_after_its_mode_only_where_that_tells_it_apart() -> None:
    blocks = list(scalar_blocks(scalar_rows(("lr", "eval"), ("loss", "train"), ("loss", "eval")), Names()))
    charts = {block.title: [line.name for line in block.series] for block in blocks if isinstance(block, LineChart)}
    assert charts == {"lr": ["lr"], "loss": ["train", "eval"]}
    table = next(block for block in blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["lr", "loss train", "loss eval"]


def test_any_answer_is_a_table() -> None:
    data = pl.DataFrame({"a": [[1, 2]], "b": [{"x": None}], "c": [b"abc"], "d": [None]})
    report = plain_report(Answer("query", "r", {}, data))
    (table,) = report.sections[0].blocks
    assert isinstance(table, Table)
    assert table.rows == (("1, 2", "x ", "3 bytes", ""),)


def test_every_count_is_told() -> None:
    counts = Counts(
        rows=5, non_finite=1, duplicates=2, dropped=3, stale=4, taken_back=6, ignored=7, damaged=("data/x.parquet",)
    )
    said = dict(made(Answer("samples", "r", {}, pl.DataFrame(), counts)))
    assert said["rows read"] == "5 rows"
    assert said["non-finite values"] == "1, left out of every statistic"
    assert said["duplicate rows"].startswith("2;")
    assert said["rows dropped while recording"] == "3"
    assert said["rows taken back by a later attempt"].startswith("6;")
    assert said["ignored labels"].startswith("7,")
    assert said["samples without a finite value in the last epoch"] == "4"
    assert said["damaged files left out"] == "data/x.parquet"
    of_sql = dict(made(Answer("query", "r", {}, pl.DataFrame(), counts)))
    assert of_sql["non-finite values"] == "1, shown as they are, null in JSON"


def test_label_names() -> None:
    facts = RunFacts("r", label_names=("cat", "dog"))
    assert [facts.label_name(v) for v in (0, 1, 2, -1, None, "owl", True)] == [
        "cat",
        "dog",
        "2",
        "-1",
        "–",
        "owl",
        "true",
    ]


def test_a_page_holds_few_enough_labels() -> None:
    n = 30_000
    labels_ = range(n)
    data = pl.DataFrame(
        {
            "metric": "loss",
            "mode": "eval",
            "ds_id": "",
            "label": labels_,
            "epoch": 1,
            "mean": [float(i) for i in labels_],
        }
    )
    kept, said = few_enough(data)
    assert kept["label"].to_list() == [*range(5_000), *range(n - 5_000, n)]
    assert "of 30,000 labels" in said[0]
    assert said[0].endswith("; --format csv or --json has all")
    few, nothing = few_enough(data.head(100))
    assert (few.height, nothing) == (100, ())


def test_the_first_sentence_says_of_which_metric_it_speaks_where_there_are_several() -> None:
    one = samples_result(epochs=1, top=1, listed=()).data.head(1)
    rows = [one.with_columns(metric=pl.lit(m), score=pl.lit(v)) for m, v in (("loss", 4.5), ("margin", 8.25))]
    said = samples_report(Answer("samples", "r", {"metric": ["loss", "margin"]}, pl.concat(rows))).sentence
    assert said == ("loss · eval: The highest sample is at 4.5. margin · eval: The highest sample is at 8.25.")
    many = [one.with_columns(metric=pl.lit(f"m{n}"), score=pl.lit(1.0)) for n in range(5)]
    said = samples_report(Answer("samples", "r", {"metric": [f"m{n}" for n in range(5)]}, pl.concat(many))).sentence
    assert "m2 · eval" in said
    assert "m3" not in said
    assert said.endswith("And 2 more, below.")


def test_labels_with_long_names_are_told_apart_in_matrices_and_small_charts() -> None:
    names = tuple(f"class number {n:04d} of the catalogue" for n in (35, 661, 304))
    drawn = draw(MatrixChart("m", "m", names, ((3, 1, 0), (0, 2, 1), (1, 0, 4)), "taken for", "label"))
    shown = [text.get_text() for text in drawn.figure.axes[0].get_yticklabels()]
    assert len(set(shown)) == 3
    assert [text[-5:-1] if text.endswith("…") else text[-4:] for text in shown] == ["0035", "0661", "0304"]


def test_only_addresses_that_lead_somewhere_are_links() -> None:
    assert address_of("https://host/7.png", "/run") == "https://host/7.png"
    assert address_of("https://host", "/run") == "https://host"
    assert [address_of(text, "/run") for text in ("https://", "javascript://host/x")] == ["", ""]


def test_files_named_from_within_a_folder_lie_there_or_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("here/7.png").touch()
    assert address_of("here/7.png", "/run") == (tmp_path / "here/7.png").as_uri()
    assert address_of("there/7.png", "/run") == "file:///run/there/7.png"
    assert address_of("there/7.png", "s3://bucket/run") == (tmp_path / "there/7.png").as_uri()


def test_embeddings_that_are_not_finite_are_no_points(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        vectors = np.array([[0.0, 1.0], [2.0, 3.0], [np.nan, 1.0]], np.float32)
        run.add_metrics_data({"example_id": [0, 1, 2], "embeddings_a": vectors})
    answer = xaicli.open_run(tmp_path / "run").embeddings().answer
    (chart,) = embedding_blocks(answer, "a", answer.data, Names())
    assert isinstance(chart, ScatterChart)
    assert len(chart.x) == 2
    (text,) = embedding_blocks(answer, "a", answer.data.filter(~pl.col("x").is_finite()), Names())
    assert text == Text("No sample has a finite embedding.", Tone.FAINT)


def test_why_there_is_nothing_is_said_once(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], m=[math.nan, math.nan], mode="eval", epoch=1)
    report = xaicli.open_run(tmp_path / "run").labels(metric="m").report
    said = "No label has a finite m: what was recorded is NaN or infinite."
    assert (report.sentence, as_text(report, 200).count(said)) == (said, 1)


@pytest.mark.parametrize(
    ("n_other", "said"),
    [
        (
            112,
            "eval: a has 22 points of accuracy more than b (95 % 12 to 31, n 120), but 112 of the 120 samples in both "
            "have other labels: the two were asked different questions.",
        ),
        (3, "eval: a is better than b by 22 points of accuracy (95 % 12 to 31, n 120)."),
    ],
)
def test_no_run_is_better_that_was_asked_something_else(n_other: int, said: str) -> None:
    paired = {"mode": "eval", "ds_id": None, "metric": "correct", "first": "runs/a", "last": "runs/b", "n": 120}
    paired |= {"values": [0.92, 0.7], "difference": -0.22, "low": -0.31, "high": -0.12, "better": "first", "p": 1e-5}
    paired |= {"stale": 0, "method": "McNemar"}
    warning = (
        f"{n_other} of the 120 samples of eval in both have another label in runs/b than in runs/a: "
        "what is right there is not what is right here"
    )
    rows = pl.DataFrame(schema={"kind": pl.String, "group": pl.String, "metric": pl.String})
    runs = {"runs": ["runs/a", "runs/b"]}
    answer = Answer("compare", "a b", runs, rows, warnings=(warning,), extra={"paired": [paired]})
    assert compare_report(answer).sentence.startswith(said)


def test_one_epoch_is_no_history_and_one_observation_no_habit(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        for mode in ("train", "eval"):
            run.log_samples(
                sample_id=np.arange(40),
                label=np.arange(40) % 2,
                prediction=np.where(np.arange(40) == 6, 1, np.arange(40) % 2),
                loss=np.where(np.arange(40) == 6, 5.0, 0.1),
                mode=mode,
                epoch=1,
            )
    report = open_run(tmp_path / "run").report().report
    assert "Most suspicious label: #6, wrong the one time it was seen; predicted dog" in report.sentence
    blocks = report.sections[0].blocks
    cards = [card for block in blocks if isinstance(block, Gallery) for card in block.cards]
    assert cards
    assert all(card.sparkline == () for card in cards)
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert [column.title for column in table.columns][-1] == "score"
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_every_column_has_a_heading_and_a_line_that_ends_early_leads_to_its_name(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 7):
            loss = np.arange(12) + 1.0 if epoch < 4 else np.full(12, np.nan)
            run.log_samples(sample_id=np.arange(12), label=[0, 1] * 6, loss=loss, mode="eval", epoch=epoch)
    report = open_run(tmp_path / "run").samples(max=1, min=1).report
    blocks = [block for section in report.sections for block in section.blocks]
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert ([c.title for c in table.columns][-1], {row[-1] for row in table.rows}) == ("state", {"stale"})
    (chart,) = (block for block in blocks if isinstance(block, LineChart))
    marks = drawn(draw(chart).figure).marks
    leaders = [mark.vertices for mark in marks if mark.kind == "leader" and mark.vertices is not None]
    crossing = [vertices for vertices in leaders if vertices[1][0] - vertices[0][0] > 100]
    # The highest, the lowest and the median: each level from its end to where its name begins.
    assert len(crossing) == 3
    assert all(start[1] == pytest.approx(end[1]) for start, end in crossing)


def test_models_are_called_by_their_names_where_there_are_several() -> None:
    one = {"class": "Net", "parameters": 7, "summary": "Net(\n  (0): Linear\n)"}
    facts = RunFacts("r", environment={"models": {"model": one, "teacher": {"class": "Big"}}})
    tables = {block.title: block.rows for block in system_blocks(facts) if isinstance(block, Table)}
    assert tables["Model"] == (
        ("class", "Net"), ("parameters", "7"), ("layers", "Net("), ("", "  (0): Linear"), ("", ")"),
    )  # fmt: skip
    assert tables["Model teacher"] == (("class", "Big"),)


def test_scalars_of_one_key_logged_in_a_mode_and_outside_are_told_apart(tmp_path: Path) -> None:
    """As a training that evaluates does, and an evaluation on its own later."""
    with xaicli.Run(tmp_path / "run") as run:
        for step, value in ((1, 0.25), (2, 0.5)):
            run.state.mode, run.state.global_step = "train", step
            run.log({"accuracy": value})
    with xaicli.Run(tmp_path / "run") as run:
        run.state.mode, run.state.global_step = "", 3
        run.log({"accuracy": 0.75})
    result = xaicli.open_run(tmp_path / "run").scalars()
    assert set(result.data["mode"]) == {"train", ""}
    text = " ".join(result.markdown().split())
    assert "accuracy (during train)" in text
    assert "accuracy (no mode)" in text
    assert "say when a scalar was logged, not what it is of" in text
    assert 'mode ""' not in text
    assert "mode train, and none" in text
    (chart,) = (block for block in scalar_blocks(result.data, Names()) if isinstance(block, LineChart))
    assert {line.name: line.y for line in chart.series} == {"during train": (0.25, 0.5), "no mode": (0.75,)}
    assert "A mode says when a value was logged" in chart.legend


def test_a_run_with_nothing_to_show_is_named_and_the_others_are_told_by_their_names(tmp_path: Path) -> None:
    for name, mode in (("a", "eval"), ("b", "train"), ("none, yet", None)):
        with Run(tmp_path / name) as run:
            for step in (1, 2):
                if mode is None:
                    run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=step)
                else:
                    run.log({"step": step, f"of_{name}": step / 2, "lr": 0.1}, mode=mode)
    a, b, none = (tmp_path / name for name in ("a", "b", "none, yet"))
    for runs, options, lacks in (
        ((a, none), {}, [f'no scalars in "{none}"']),
        ((a, b), {"mode": "eval"}, [f"no scalars of mode eval in {b}"]),
        ((a, b), {"key": "of_a"}, [f"no scalar of_a in {b}"]),
        ((none, a, b), {"key": "of_a"}, [f'no scalars in "{none}"', f"no scalar of_a in {b}"]),
        (
            (a, b, none),
            {"mode": "eval", "group": {"g": ["b"]}},
            [f'no scalars in "{none}"', f"no scalars of mode eval in {b}"],
        ),
    ):
        result = xaicli.api.scalars(*runs, **options)
        assert list(result.answer.warnings) == lacks
        (section,) = result.report.sections
        (table,) = (block for block in section.blocks if isinstance(block, Table))
        assert {Path(row[1]).name for row in table.rows} == {"a"}
        charts = [block for block in section.blocks if isinstance(block, LineChart)]
        assert all(Path(line.name).name == "a" for chart in charts for line in chart.series)
        assert f" in 1 of {len(runs)} runs" in result.report.sentence
    alone = xaicli.api.scalars(a)
    assert not alone.answer.warnings
    tables = [block for block in alone.report.sections[0].blocks if isinstance(block, Table)]
    assert "run" not in [column.title for table in tables for column in table.columns]
