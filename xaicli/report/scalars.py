"""The report of scalars over time, and of custom graphs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.queries.recorded import AXIS, KEY, VALUE, counted_on, going_on
from xaicli.queries.scalars import CURVE, GRAPH, HIGH, LINE, LOW, RUN, SMOOTHED, SOURCE, smooth
from xaicli.report.charts import Band, LineChart, Multiples, Series, Tone
from xaicli.report.model import IN_CSV, Block, Cell, Column, Report, Section, Table, Text, either
from xaicli.report.numbers import count, listed, shorts
from xaicli.report.page import Names, RunFacts, label_names_of, made, run_line
from xaicli.vocabulary import DS_ID, EPOCH, MODE, STEP
from xaicli.words import spelled

_X, _AGAIN = "x", "again"
_IN_CHART = (GRAPH, KEY, AXIS)
"""What the curves of one chart share."""
POINTS = 400
"""The most points of a line that are drawn, about."""


@dataclass(frozen=True)
class Curve:
    """One line over time; `smoothed` is `value` without smoothing."""

    what: dict[str, str]
    """What tells it apart: the values of `CURVE`."""
    step: tuple[int, ...]
    epoch: tuple[int | None, ...]
    x: tuple[float, ...]
    """Where the values are drawn: at the step, counted on where steps start again with the epochs."""
    value: tuple[float | None, ...]
    smoothed: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    run: str = ""
    """The short name of its run or group where several were asked, also where the others have nothing to show."""

    @property
    def known(self) -> list[tuple[int, float]]:
        """The finite values, each with its number among all."""
        return [(number, value) for number, value in enumerate(self.value) if value is not None]

    @property
    def starts_again(self) -> bool:
        """Whether its steps start again with the epochs."""
        return any(x != step for x, step in zip(self.x, self.step, strict=True))

    def when(self, number: int) -> str:
        """When a value was logged, in words."""
        said = f"{self.what[AXIS]} {self.step[number]:,}"
        return f"{said} of epoch {self.epoch[number]}" if self.starts_again else said

    @property
    def has_band(self) -> bool:
        """Whether anything lies between a low and a high value."""
        return any(low is not None for low in self.low)


def curves(rows: pl.DataFrame, smoothing: float = 0.0, asked: Sequence[str] = ()) -> Iterator[Curve]:
    """The rows curve by curve, in their order; `asked` are the runs and groups that may have some."""
    runs = _short_runs(list(dict.fromkeys([*asked, *rows[RUN]])))
    wanted = [VALUE, SMOOTHED if SMOOTHED in rows.columns else VALUE, LOW, HIGH]
    for key, part in _drawn(rows).group_by(CURVE, maintain_order=True):
        if smoothing:
            part = part.with_columns(smooth(name, smoothing).alias(name) for name in (LOW, HIGH))
        value, smoothed, low, high = (_finite(part[name]) for name in wanted)
        what = dict(zip(CURVE, (str(item) for item in key), strict=True))
        step, epoch, x = (tuple(part[name].to_list()) for name in (STEP, EPOCH, _X))
        yield Curve(what, step, epoch, x, value, smoothed, low, high, runs[what[RUN]] if len(runs) > 1 else "")


def _drawn(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with where they are drawn; the curves of one chart whose steps start again are counted on alike."""
    again = (pl.col(STEP).diff() < 0).any().over(CURVE)
    rows = rows.with_columns(pl.col(STEP).cast(pl.Float64).alias(_X), again.alias(_AGAIN))
    if not rows[_AGAIN].any():
        return rows
    parts = []
    for _, chart in rows.group_by(_IN_CHART, maintain_order=True):
        counted = going_on(counted_on(chart.filter(_AGAIN))).cast(pl.Float64).fill_null(pl.col(_X))
        parts.append(chart.with_columns(pl.when(_AGAIN).then(counted).otherwise(_X).alias(_X)))
    return pl.concat(parts)


def thinned(y: Sequence[float | None], most: int = POINTS) -> list[int]:
    """Which points of a long line to draw: the lowest and highest of each stretch, so that no spike is lost."""
    if len(y) <= most:
        return list(range(len(y)))
    stretches = most // 2
    kept: set[int] = {0, len(y) - 1}
    for number in range(stretches):
        inside = range(number * len(y) // stretches, (number + 1) * len(y) // stretches)
        known = [index for index in inside if y[index] is not None]
        if known:
            kept |= {min(known, key=lambda i: y[i] or 0.0), max(known, key=lambda i: y[i] or 0.0)}
        elif inside:
            kept.add(inside[0])
    return sorted(kept)


def _finite(column: pl.Series) -> tuple[float | None, ...]:
    return tuple(value if value is not None and math.isfinite(value) else None for value in column.to_list())


_CHARTS = 6
"""Keys that get a chart each; more share a grid of small ones."""
_CELLS = 48
_LINES = 24
_TABLE_ROWS = 2000
_WHEN = "(during a mode) and (no mode) say when a scalar was logged, not what it is of"
_COURSE = 12


def scalars_report(answer: Answer, facts: RunFacts | None = None) -> Report:
    """The page of `xai scalars`.

    Args:
        answer: The rows of `queries.scalars`.
        facts: The run; None for several.
    """
    names = Names()
    weight = float(answer.selection.get("smoothing") or 0)
    plain, drawn = answer.data.filter(pl.col(SOURCE) != "graph"), answer.data.filter(pl.col(SOURCE) == "graph")
    sections = [
        Section(title, anchor, tuple(scalar_blocks(rows, names, smoothing=weight, title=title, asked=_asked(answer))))
        for title, anchor, rows in (("Scalars", "scalars", plain), ("Custom graphs", "graphs", drawn))
        if rows.height
    ]
    rules = []
    if weight:
        rules.append(("smoothing", f"exponential mean, weight {weight:g} of the past, corrected for its start"))
    if answer.selection.get("group"):
        rules.append(("groups", "mean of the runs, band mean ± standard deviation (n − 1) over the runs"))
    return Report(
        name="scalars",
        title="Scalars over time",
        run_line=run_line(answer, facts),
        label_names=label_names_of(facts),
        sentence=_sentence(answer),
        sections=tuple(sections),
        made=made(answer, *rules),
        warnings=answer.warnings,
        tables={"scalars": lambda: answer.data},
    )


def scalar_blocks(
    rows: pl.DataFrame, names: Names, *, smoothing: float = 0.0, title: str = "Scalars", asked: Sequence[str] = ()
) -> Iterator[Block]:
    """A chart for each key and time axis, then every curve in figures.

    Args:
        rows: Rows of `queries.scalars`.
        names: Hands out file names.
        smoothing: The weight the rows were smoothed with.
        title: What the table is called.
        asked: The runs and groups that were asked.
    """
    found = list(curves(rows, smoothing, asked))
    charts = [_chart(group, found, names, smoothing) for group in _by_chart(found).values()]
    charts = [chart for chart in charts if chart.series]
    if not charts:
        yield Text("Every value here is NaN or infinite: there is no line to draw.", Tone.BAD)
    elif len(charts) <= _CHARTS:
        yield from charts
    else:
        more = len(charts) - _CELLS
        legend = charts[0].legend + (f" {more:,} more are in the table." if more > 0 else "")
        alt = f"Small charts of {count(len(charts[:_CELLS]), 'scalar')} over time."
        yield Multiples(names("grid", title), title, tuple(charts[:_CELLS]), legend=legend, alt=alt)
    yield _table(found, names, title)


def _by_chart(found: Sequence[Curve]) -> dict[tuple[str, ...], list[Curve]]:
    charts: dict[tuple[str, ...], list[Curve]] = {}
    for curve in found:
        charts.setdefault(tuple(curve.what[part] for part in _IN_CHART), []).append(curve)
    return charts


def _chart(group: Sequence[Curve], found: Sequence[Curve], names: Names, smoothing: float) -> LineChart:
    what = group[0].what
    drawn = [curve for curve in group if curve.known][:_LINES]
    series: list[Series] = []
    bands: list[Band] = []
    for order, curve in enumerate(drawn):
        name, key = _name(curve, group), _key(curve, found)
        points = thinned(curve.smoothed)
        x = tuple(curve.x[i] for i in points)
        if smoothing:
            raw = thinned(curve.value)
            y = tuple(curve.value[i] for i in raw)
            series.append(Series(f"{name}, as recorded", tuple(curve.x[i] for i in raw), y, Tone.FAINT))
        if curve.has_band:
            low, high = (tuple(side[i] for i in points) for side in (curve.low, curve.high))
            bands.append(Band(name, x, low, high, key=key))
        series.append(Series(name, x, tuple(curve.smoothed[i] for i in points), key=key, colour=order))
    title = f"{what[GRAPH]}: {what[KEY]}" if what[GRAPH] and what[GRAPH] != what[KEY] else what[KEY]
    legend = _legend(group, drawn, smoothing)
    return LineChart(
        name=names("scalar", what[GRAPH], what[KEY], what[AXIS]),
        title=title,
        x_label=f"{what[AXIS]}, counted on over the epochs" if any(c.starts_again for c in drawn) else what[AXIS],
        y_label=what[KEY],
        series=tuple(sorted(series, key=lambda line: line.tone is not Tone.FAINT)),
        bands=tuple(bands),
        legend=legend,
        alt=f"{title} over {what[AXIS]}, {count(len(drawn), 'line')}. "
        + " ".join(_in_words(c, group) for c in drawn[:4]),
    )


def _legend(group: Sequence[Curve], drawn: Sequence[Curve], smoothing: float) -> str:
    said = []
    if smoothing:
        said.append(f"Smoothed, weight {smoothing:g}; faint: as recorded.")
    if any(curve.has_band for curve in drawn):
        said.append("Band: the value's error band, or mean ± standard deviation over the runs of a group.")
    if _when_logged(group[0], group):
        said.append("A mode says when a value was logged, not what it is of.")
    if any(len(curve.step) > POINTS for curve in drawn):
        said.append("Of long lines the lowest and highest point of each stretch is drawn.")
    if len(group) > len(drawn):
        said.append(f"{len(group) - len(drawn):,} more lines are in the table.")
    return " ".join(said)


def _name(curve: Curve, group: Sequence[Curve]) -> str:
    """What tells a curve apart from the others of its chart."""
    parts = [LINE, RUN, MODE, DS_ID, SOURCE]
    differing = [part for part in parts if (part == RUN and curve.run) or len({one.what[part] for one in group}) > 1]
    told = {part: curve.what[part] for part in differing} | _when_logged(curve, group)
    words = [curve.run if part == RUN else told[part] for part in differing if told[part]]
    return " · ".join(words) or curve.what[LINE] or curve.what[KEY]


def _when_logged(curve: Curve, others: Sequence[Curve]) -> dict[str, str]:
    """A curve's mode in words where one of the others has none: it says when values were logged, not what they are of.

    What is logged no mode is no curve without a name, and `eval_acc` of mode train no accuracy in training.
    """
    modes = {other.what[MODE] for other in others}
    if "" not in modes or len(modes) == 1:
        return {}
    mode = curve.what[MODE]
    return {MODE: f"during {mode}" if mode else "no mode"}


def _key(curve: Curve, found: Sequence[Curve]) -> str:
    return f"c-{next(number for number, other in enumerate(found) if other is curve)}"


def _in_words(curve: Curve, group: Sequence[Curve]) -> str:
    (begin, first), (end, last) = curve.known[0], curve.known[-1]
    said = shorts((first, last))
    return f"{_name(curve, group)}: {said[0]} at {curve.when(begin)}, {said[1]} at {curve.when(end)}."


def _table(found: Sequence[Curve], names: Names, title: str) -> Table:
    several = any(curve.run for curve in found)
    columns = [
        Column("scalar"),
        *([Column("run")] if several else []),
        *(Column(name, Cell.NUMBER) for name in ("first", "last", "lowest", "highest")),
        Column("course, own scale", Cell.SPARKLINE),
    ]
    rows = []
    for curve in found[:_TABLE_ROWS]:
        values = [value for _, value in curve.known]
        figures: list[Any] = [values[0], values[-1], min(values), max(values)] if values else [None] * 4
        course = _on_own_scale([curve.smoothed[i] for i in thinned(curve.smoothed, _COURSE)])
        named = (_title(curve, found), curve.run) if several else (_title(curve, found),)
        rows.append((*named, *figures, course))
    left_out = len(found) - len(rows)
    notes = [f"and {left_out:,} more curves: xai scalars with {either(IN_CSV)} has all"] if left_out else []
    if any(_when_logged(curve, [other for other in found if other.what[KEY] == curve.what[KEY]]) for curve in found):
        notes.append(_WHEN)
    return Table(
        name=names("table", title),
        title=title,
        columns=tuple(columns),
        rows=tuple(rows),
        note="; ".join(notes),
        keys=tuple(_key(curve, found) for curve in found[:_TABLE_ROWS]),
        terminal_rows=60,
        rest_in=IN_CSV,
    )


def _on_own_scale(values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Values from 0 to 1: the sparklines of a table share one scale, but scalars are of different kinds."""
    known = [value for value in values if value is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    return tuple(None if value is None else (value - low) / span if span else 0.5 for value in values)


def _title(curve: Curve, found: Sequence[Curve]) -> str:
    """A curve's name in the table: its key with what else differs among curves of that key."""
    what = curve.what
    alike = [other for other in found if other.what[KEY] == what[KEY]]
    words = [what[part] for part in (GRAPH, LINE) if what[part] not in ("", what[KEY])]
    differing = [part for part in (MODE, DS_ID, AXIS, SOURCE) if len({other.what[part] for other in alike}) > 1]
    told = {part: what[part] for part in differing} | _when_logged(curve, alike)
    words += [f"({told[part]})" if told[part] != what[part] else told[part] for part in differing if told[part]]
    return " ".join([what[KEY], *words])


def _asked(answer: Answer) -> list[str]:
    """The runs and groups that were asked, by their names in the rows."""
    groups = answer.selection.get("group") or {}
    grouped = {run for members in groups.values() for run in members}
    return [spelled(str(run)) for run in (*groups, *(answer.selection.get("runs") or ())) if run not in grouped]


def _short_runs(runs: Sequence[str]) -> dict[str, str]:
    """{run: its path below the folder all share}."""
    mixed = len({Path(run).is_absolute() for run in runs}) > 1
    paths = {run: Path(run).absolute() if mixed and Path(run).exists() else Path(run) for run in runs}
    try:
        shared = os.path.commonpath([path.parent for path in paths.values()]) if len(runs) > 1 else ""
    except ValueError:  # on several drives, or beside a group, which is no path
        shared = ""
    return {run: os.path.relpath(path, shared) if shared else run for run, path in paths.items()}


def _sentence(answer: Answer) -> str:
    keys, runs = answer.data[KEY].unique().sort().to_list(), answer.data[RUN].n_unique()
    said = f"{count(answer.data.height, 'value')} of {listed([str(key) for key in keys])}"
    asked = len(_asked(answer))
    of = "runs and groups" if answer.selection.get("group") else "runs"
    said += f" in {runs:,} of {asked:,} {of}." if runs < asked else f" in {count(runs, 'run')}." if runs > 1 else "."
    if answer.counts.non_finite:
        said += f" NaN or infinite, and a gap in the line: {answer.counts.non_finite:,}."
    return said
