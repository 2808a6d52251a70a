"""Charts of several runs: a line a run over the epochs, the same for each label; samples as dots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xaicli.queries.compare import Course
from xaicli.report.charts import LineChart, Multiples, ScatterChart, Series
from xaicli.report.numbers import count, cut, listed, short
from xaicli.report.page import Names

_CELLS = 24
_LOOKS = ("blue", "vermilion", "green", "purple", "ochre", "grey")
"""How the palette's lines look, in words."""


def words_of(course: Course) -> str:
    """What a course is about, in a heading."""
    return " · ".join(part for part in (course.metric, *course.pair) if part)


def mean_chart(course: Course, runs: Sequence[str], names: Names) -> Iterator[LineChart]:
    """The mean over all samples at every epoch, a line a run; nothing where no run has a finite value."""
    lines = [
        _line(run, order, frame.iter_rows(named=True))
        for order, (run, frame) in enumerate(zip(runs, course.means, strict=True))
    ]
    lines = [line for line in lines if any(y is not None for y in line.y)]
    if not lines:
        return
    ends = [f"{line.name} {short(line.y[-1], 3)}" for line in lines]
    yield LineChart(
        name=names("compare", words_of(course)),
        title=f"Mean {words_of(course)} of each run",
        x_label="epoch",
        y_label="mean",
        series=tuple(lines),
        legend="Mean over all samples.",
        alt=f"Mean {words_of(course)} over epochs, {count(len(lines), 'run')}; at the end {listed(ends, 6)}.",
    )


def label_charts(course: Course, runs: Sequence[str], names: Names) -> Iterator[Multiples]:
    """A small chart a label with a line a run, those that changed most first."""
    lines: dict[str, list[Series]] = {}
    for order, (run, frame) in enumerate(zip(runs, course.labels, strict=True)):
        for (label,), rows in frame.group_by("name", maintain_order=True):
            line = _line(run, order, rows.sort("epoch").iter_rows(named=True))
            if any(y is not None for y in line.y):
                lines.setdefault(str(label), []).append(line)
    if not lines:
        return
    order_of = sorted(lines, key=lambda label: (-_change(lines[label]), label))
    cells = tuple(
        LineChart(
            name=label,
            title=label,
            x_label="epoch",
            y_label="mean",
            series=tuple(lines[label]),
            subtitle=" → ".join(dict.fromkeys(short(line.y[-1], 2) for line in (lines[label][0], lines[label][-1]))),
            alt=f"{cut(label)}: " + ", ".join(f"{line.name} {short(line.y[-1], 3)}" for line in lines[label][:6]),
        )
        for label in order_of[:_CELLS]
    )
    more = f" The {_CELLS} that changed most of {len(lines):,} labels." if len(lines) > _CELLS else ""
    said = "; ".join(f"{run} {_look(order)}" for order, run in enumerate(runs[: len(_LOOKS)]))
    yield Multiples(
        name=names("compare-labels", words_of(course)),
        title=f"Mean {words_of(course)} of each label",
        charts=cells,
        legend=f"A line a run: {said}. Each label on its own axis; the largest change first.{more}",
        alt=f"{count(len(cells), 'small chart')}, one a label, a line a run.",
    )


def sample_chart(course: Course, runs: Sequence[str], names: Names) -> Iterator[ScatterChart]:
    """Each sample's value in the first run against that in the last, coloured by which of them predicts it rightly."""
    frame = course.samples.filter(course.samples["first"].is_finite() & course.samples["last"].is_finite())
    if frame.is_empty():
        return
    groups = {
        (True, True): "right: both",
        (True, False): f"right: {cut(runs[0])}",
        (False, True): f"right: {cut(runs[-1])}",
        (False, False): "right: neither",
    }
    found = tuple(groups.get(both) for both in zip(frame["first_correct"], frame["last_correct"], strict=True))
    known = any(found)
    yield ScatterChart(
        name=names("compare-samples", words_of(course)),
        title=f"{words_of(course)} of each sample",
        x_label=cut(runs[0]),
        y_label=cut(runs[-1]),
        x=tuple(frame["first"]),
        y=tuple(frame["last"]),
        colour=found if known else (),
        colours=tuple(groups.values()) if known else (),
        names=tuple(f"#{sample_id}" for sample_id in frame["sample_id"]),
        legend=f"Each dot is a sample at its last epoch; above the dashed line it is higher in {cut(runs[-1])}.",
        alt=f"{course.metric} of {count(frame.height, 'sample')} in {cut(runs[0])} against {cut(runs[-1])}.",
        diagonal=True,
    )


def _line(run: str, order: int, rows: Iterator[Mapping[str, Any]]) -> Series:
    points = list(rows)
    return Series(
        name=run,
        x=tuple(float(row["epoch"]) for row in points),
        y=tuple(row["mean"] for row in points),
        key=f"run-{order}",
        counts=tuple(row["n"] for row in points if "n" in row),
        colour=_colour(order),
    )


def _colour(order: int) -> int:
    """Which colour and dash a run's line takes: of two neighbours one is dashed, for colour alone may not be seen."""
    return order + len(_LOOKS) * (order % 2)


def _look(order: int) -> str:
    """How the line of a run looks where there is no room for its name."""
    return _LOOKS[order % len(_LOOKS)] + (", dashed" if order % 2 else "")


def _change(lines: Sequence[Series]) -> float:
    first, last = ([y for y in line.y if y is not None][-1] for line in (lines[0], lines[-1]))
    return abs(last - first)
