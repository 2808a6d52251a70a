"""Where values are not finite or not there: gaps at their place, and sentences that say of which epoch figures are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xaicli import Run, open_run
from xaicli.render.blocks import spark
from xaicli.render.terminal import as_text
from xaicli.report.charts import LineChart, Multiples, Times
from xaicli.report.model import Cell, Gallery, Report, Table, Views
from xaicli.report.numbers import sample_name

GAPS = {0: (), 1: (3, 4), 2: (1, 2), 3: (5,)}
"""{label: the epochs in which none of its values is finite}, of epochs 1 to 5."""


def run_with_gaps(folder: Path) -> Path:
    """Four labels of 3 samples: the loss of label k is k + epoch, but in its gaps NaN; label 3 begins at epoch 2."""
    with Run(folder) as run:
        for epoch in (1, 2, 3, 4, 5):
            label = np.arange(12) % 4
            loss = np.array([np.nan if epoch in GAPS[k] else k + epoch for k in label])
            here = (label < 3) | (epoch > 1)
            run.log_samples(sample_id=np.arange(12)[here], label=label[here], loss=loss[here], mode="eval", epoch=epoch)
    return folder


def run_that_diverges(folder: Path) -> Path:
    """Losses of 1 and 2 at epoch 1, 3 and 4 at epoch 2, and from then on NaN, but for one that is infinite."""
    with Run(folder) as run:
        for epoch in (1, 2, 3, 4):
            loss = np.array([1.0, 2.0] * 3) + 2 * (epoch - 1)
            loss = loss if epoch < 3 else np.where((np.arange(6) == 0) & (epoch == 3), np.inf, np.nan)
            run.log_samples(sample_id=np.arange(6), label=np.arange(6) % 2, loss=loss, mode="eval", epoch=epoch)
    return folder


def tables(report: Report) -> list[Table]:
    return [block for section in report.sections for block in section.blocks if isinstance(block, Table)]


def courses(table: Table) -> dict[str, tuple[float | None, ...]]:
    (column,) = (i for i, column in enumerate(table.columns) if column.cell is Cell.SPARKLINE)
    titles = [column.title for column in table.columns]
    name = titles.index("sample" if "sample" in titles else "label")
    return {row[name]: row[column] for row in table.rows}


def charts(report: Report) -> tuple[LineChart, Multiples]:
    blocks = [block for section in report.sections for block in section.blocks]
    (overview,) = (block for block in blocks if isinstance(block, LineChart))
    (views,) = (block for block in blocks if isinstance(block, Views))
    ((grid,),) = views.views.values()
    assert isinstance(grid, Multiples)
    return overview, grid


def test_the_histories_of_labels_have_each_epoch_at_its_place(tmp_path: Path) -> None:
    report = open_run(run_with_gaps(tmp_path / "run")).labels().report
    assert courses(tables(report)[0]) == {
        "0": (1, 2, 3, 4, 5),
        "1": (2, 3, None, None, 6),
        "2": (None, None, 5, 6, 7),
        "3": (None, 5, 6, 7, None),
    }


def test_the_histories_of_samples_have_each_epoch_at_its_place(tmp_path: Path) -> None:
    report = open_run(run_with_gaps(tmp_path / "run")).samples(ids=[0, 1, 2, 3], max=0, min=0).report
    found = courses(tables(report)[0])
    assert found["1"] == (2, 3, None, None, 6)
    assert found["3"] == (None, 5, 6, 7, None)
    assert {len(course) for course in found.values()} == {5}


def test_a_line_of_a_label_has_a_gap_where_nothing_is_finite(tmp_path: Path) -> None:
    overview, grid = charts(open_run(run_with_gaps(tmp_path / "run")).labels().report)
    lines = {line.name: (line.x, line.y) for line in overview.series}
    assert lines["1"] == ((1, 2, 3, 4, 5), (2, 3, None, None, 6))
    assert "A gap in a line: no value is finite there." in overview.legend
    cell = next(chart for chart in grid.charts if chart.title == "1")
    assert cell.series[-1].y == (2, 3, None, None, 6)
    assert cell.bands[0].low == (2, 3, None, None, 6)
    assert "A gap in a line: no value is finite there." in grid.legend


def test_without_gaps_no_caption_speaks_of_them(sample_run: Path) -> None:
    overview, grid = charts(open_run(sample_run).labels().report)
    samples = open_run(sample_run).samples(max=2, min=2, metric="loss").report
    (chart,) = (b for section in samples.sections for b in section.blocks if isinstance(b, LineChart))
    assert "finite" not in overview.legend + grid.legend + chart.legend


def test_labels_of_a_run_that_diverged_say_of_which_epoch_they_are(tmp_path: Path) -> None:
    report = open_run(run_that_diverges(tmp_path / "run")).labels().report
    assert report.sentence == (
        "No label has a finite value after epoch 2, and the last is epoch 4. "
        "Highest mean at epoch 2: 1 (4 for each of 3 samples). Lowest: 0 (3 for each of 3 samples)."
    )
    overview, grid = charts(report)
    assert [line.x for line in overview.series] == [(1, 2, 3, 4)] * 2
    assert overview.series[0].y == (2, 4, None, None)
    assert overview.legend.endswith("After epoch 2 no value is finite.")
    everyone = grid.charts[0].series[0]
    assert (everyone.x, everyone.y) == ((1, 2, 3, 4), (1.5, 3.5, None, None))
    assert "at epoch 2" in grid.charts[0].subtitle


def test_samples_of_a_run_that_diverged_say_of_which_epoch_they_are(tmp_path: Path) -> None:
    opened = open_run(run_that_diverges(tmp_path / "run"))
    said = "a finite loss after epoch 2, and the last is epoch 4: no figure here is of a later epoch than 2."
    assert opened.samples().report.sentence.startswith(f"No sample has {said} The median loss rises from 1.5 to 3.5.")
    listed = repr(opened.samples(ids=[1], max=0, min=0))
    assert f"No sample has {said} The median loss rises from 1.5 to 3.5." in " ".join(listed.split())


def test_the_page_of_a_healthy_run_says_nothing_of_earlier_epochs(sample_run: Path) -> None:
    opened = open_run(sample_run)
    assert "after epoch" not in opened.labels().report.sentence + opened.samples().report.sentence


def test_each_place_and_metric_of_the_first_sentence_is_named(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for number, (mode, ds_id) in enumerate([("train", ""), ("eval", "a"), ("eval", "b")]):
            values = np.array([1.0, 3.0]) + 10 * number
            run.log_samples(sample_id=[0, 1], label=[0, 1], loss=values, other=-values, mode=mode, ds_id=ds_id, epoch=1)
    opened = open_run(tmp_path / "run")
    said = opened.labels(mode="all", metric=["loss", "other"]).report.sentence
    assert "loss · train: Highest mean at the last epoch: 1 (3). Lowest: 0 (1)." in said
    assert "other · train: Highest mean at the last epoch: 0 (−1)".replace("−", "-") in said
    assert said.endswith("And 3 more, below.")
    one = opened.labels(mode="train", metric="loss").report.sentence
    assert one == "Highest mean at the last epoch: 1 (3). Lowest: 0 (1)."


def test_samples_that_are_nowhere_finite_are_not_said_to_be_left_out(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0, 1], label=[0, 1], loss=[np.nan, np.inf], mode="eval", epoch=1)
    opened = open_run(tmp_path / "run")
    shown = repr(opened.samples())
    assert "No sample has a finite loss." in shown
    assert "leaves nothing" not in shown + as_text(opened.samples().report)
    (table,) = tables(opened.samples(ids=[1]).report)
    assert "no finite value at all" in table.note
    assert "shown with the last value" not in table.note


def test_a_value_between_two_gaps_is_seen_on_the_page() -> None:
    assert 'd="M0.0 18.0L25.0 10.0M100.0 2.0h-4"' in spark([0.0, 1.0, None, None, 2.0])
    assert 'd="M50.0 18.0h4"' in spark([None, 1.0, None])


@pytest.mark.parametrize("n", [3, 60])
def test_a_history_of_few_values_among_many_places_is_drawn(n: int) -> None:
    times = Times.among([[{"epoch": epoch} for epoch in range(n)]])
    course = times.course([{"epoch": 1, "value": 5.0}])
    assert (len(course), course[1], sum(v is not None for v in course)) == (n, 5.0, 1)
    assert "M" in spark(course)


def test_a_label_says_which_pass_its_figures_are_of(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for number in (0, 1):
            run.log_samples(
                sample_id=[0, 1], label=[0, 0], loss=[1.0, 2.0 + number], mode="eval", epoch=3, eval_pass=number
            )
    (table,) = tables(open_run(tmp_path / "run").labels().report)
    assert [column.title for column in table.columns][-2:] == ["epoch", "pass"]
    assert table.rows[0][-2:] == (3, 1)
    assert table.rows[0][-3] == (1.5, 2.0)


def test_a_score_that_is_a_statistic_is_named_as_that(tmp_path: Path) -> None:
    """The loss of sample k rises by k an epoch; sample 2 is not in the last epoch."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            ids = np.arange(3 if epoch < 3 else 2)
            run.log_samples(sample_id=ids, label=ids, loss=1.0 * ids * epoch, mode="eval", epoch=epoch)
    report = open_run(tmp_path / "run").samples(stat="slope", max=1, min=1).report
    assert "The highest sample by slope of loss is at 2." in report.sentence
    galleries = [b for section in report.sections for b in section.blocks if isinstance(b, Gallery)]
    assert [gallery.title for gallery in galleries] == ["Highest slope of loss", "Lowest slope of loss"]
    assert galleries[0].cards[0].lines[0] == "slope of loss 2 (stale)"
    (table,) = tables(report)
    assert "last value" not in table.note
    assert "shown with the slope of loss before" in table.note


def test_a_count_of_the_rows_of_a_table_is_named_as_that(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.add_metrics_data({"example_id": [0, 0, 1], "iou": [0.1, 0.3, 0.5]}, name="boxes")
    report = open_run(tmp_path / "run").samples(table="boxes", metric="iou", reduce="count", max=1, min=0).report
    assert report.sentence == "The highest sample by count of iou is at 2."
    (gallery,) = (b for section in report.sections for b in section.blocks if isinstance(b, Gallery))
    assert (gallery.title, gallery.cards[0].lines[0]) == ("Highest count of iou", "count of iou 2")


def test_a_line_has_a_gap_where_a_label_or_sample_is_absent(tmp_path: Path) -> None:
    """Two labels of two samples: label 1 is absent from epochs 2 and 3, and sample 2 from epoch 4."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3, 4, 5):
            ids = np.arange(4)
            ids = ids[((ids % 2 == 0) | (epoch not in (2, 3))) & ((ids != 2) | (epoch != 4))]
            run.log_samples(sample_id=ids, label=ids % 2, loss=1.0 * ids + epoch, mode="eval", epoch=epoch)
    opened = open_run(tmp_path / "run")
    overview, grid = charts(opened.labels().report)
    cell = next(chart for chart in grid.charts if chart.title == "1")
    line = next(line for line in overview.series if line.name == "1")
    for x, y in ((line.x, line.y), (cell.series[-1].x, cell.series[-1].y)):
        assert (x, y) == ((1, 2, 3, 4, 5), (3, None, None, 6, 7))
    assert cell.bands[0].low[1:3] == cell.bands[0].high[1:3] == (None, None)
    assert line.counts == (2, 0, 0, 2, 2)
    assert "A gap in a line: no value is finite there." in overview.legend
    blocks = [block for section in opened.samples(ids=[1, 2], max=0, min=0).report.sections for block in section.blocks]
    (chart,) = (block for block in blocks if isinstance(block, LineChart))
    assert chart.legend.endswith("A gap in a line: no finite value is there.")
    lines = {line.name: line.y for line in chart.series}
    assert (lines[sample_name(1)], lines[sample_name(2)]) == ((2, None, None, 5, 6), (3, 4, 5, None, 7))
