"""The time axis of pictures: `--axis epoch|step|pass` puts every point where its place says."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaicli.answer import Answer
from xaicli.api import open_run
from xaicli.recorder.run import Run
from xaicli.report.charts import LineChart, Multiples, Times
from xaicli.report.model import Report, Views

POINTS = [
    {"epoch": 1, "pass": 0, "step": 10},
    {"epoch": 1, "pass": 1, "step": 20},
    {"epoch": 2, "pass": 0, "step": 30},
    {"epoch": 2, "pass": 0, "step": 28},
]


@pytest.mark.parametrize(
    ("over", "x", "other"),
    [
        (None, [1.0, 1.5, 2.0, 2.0], ("step", (1.0, 1.5, 2.0), (10.0, 20.0, 30.0))),
        ("step", [10.0, 20.0, 30.0, 30.0], ("epoch", (10.0, 20.0, 30.0), (1.0, 1.0, 2.0))),
        ("pass", [0.0, 1.0, 2.0, 2.0], ("step", (0.0, 1.0, 2.0), (10.0, 20.0, 30.0))),
    ],
)
def test_places(over: str | None, x: list[float], other: tuple[object, ...]) -> None:
    times = Times.of(over, POINTS)
    assert [times.x(point) for point in POINTS] == x
    assert times.other is not None
    assert (times.other.label, times.other.at, times.other.values) == other


def test_points_of_before_there_were_passes() -> None:
    times = Times.of("epoch", [{"epoch": 3, "step": None}])
    assert (times.x({"epoch": 3}), times.other) == (3.0, None)


def line_charts(report: Report) -> list[LineChart]:
    found: list[LineChart] = []
    for block in [block for section in report.sections for block in section.blocks]:
        inner = [one for blocks in block.views.values() for one in blocks] if isinstance(block, Views) else [block]
        for one in inner:
            found += [one] if isinstance(one, LineChart) else one.charts if isinstance(one, Multiples) else []
    return found


@pytest.mark.parametrize("question", ["samples", "labels", "report"])
def test_a_page_over_steps(sample_run, question: str) -> None:
    run = open_run(sample_run)
    steps = {row["epoch"]: row["step"] for row in run.labels().data.to_dicts()}
    by_epoch = {chart.name: chart for chart in line_charts(getattr(run, question)().report)}
    result = getattr(run, question)(axis="step")
    assert isinstance(result.answer, Answer)
    # Scalars have axes of their own.
    charts = [chart for chart in line_charts(result.report) if chart.name.startswith(("samples", "labels", "l"))]
    assert charts
    for chart in charts:
        assert chart.x_label == "step"
        for line, same in zip(chart.series, by_epoch[chart.name].series, strict=True):
            assert line.x == tuple(steps[epoch] for epoch in same.x)
            assert line.y == same.y


def test_confusion_over_time_gives_each_pass_a_place_of_its_own(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            for number in (0, 1):
                label = [i % 2 for i in range(20)]
                taken = [1 - y if i < 4 + 2 * number else y for i, y in enumerate(label)]
                run.log_samples(
                    sample_id=list(range(20)), label=label, prediction=taken, mode="eval", epoch=epoch, eval_pass=number
                )
    report = open_run(tmp_path / "run").confusion().report
    charts = {
        block.title: block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, LineChart) and block.x_label == "epoch"
    }
    assert len(charts) == 3
    for chart in charts.values():
        assert all(line.x == (1.0, 1.5, 2.0, 2.5) for line in chart.series), chart.title
    overall = next(chart for title, chart in charts.items() if title.startswith("Accuracy"))
    assert overall.series[0].y == (0.8, 0.7, 0.8, 0.7)
