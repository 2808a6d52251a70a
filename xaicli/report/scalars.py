"""The report of per-step scalars, summaries and custom graphs, several runs overlaid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.facts import RunFacts, made, run_line
from xaicli.report.model import (
    Band,
    Block,
    Cell,
    Column,
    LineChart,
    Multiples,
    Report,
    Section,
    Series,
    Table,
    Text,
    Tone,
    Views,
)
from xaicli.report.names import Names
from xaicli.report.numbers import count

_CELLS = 24
_POINTS = 400
_LINES = 24

Rows = list[Mapping[str, Any]]


def scalars_report(answer: Answer, facts: RunFacts | None = None) -> Report:
    """The page of `xai scalars`.

    Args:
        answer: Rows run, source, graph, line, key, mode, ds_id, axis, epoch, step, value, low, high, n, and `smoothed`.
        facts: The run, where there is one.
    """
    names = Names()
    blocks = tuple(scalar_blocks(answer.data, names)) or (Text("No scalars: run.log was not called.", Tone.FAINT),)
    keys = list(dict.fromkeys(answer.data["key"])) if answer.data.height else []
    runs = answer.data["run"].n_unique() if answer.data.height else 0
    return Report(
        name="scalars",
        title="Scalars",
        run_line=run_line(answer, facts),
        sentence=f"{count(len(keys), 'key')} in {count(runs, 'run')}, {count(answer.data.height, 'value')}.",
        sections=(Section("Scalars and custom graphs", "scalars", blocks),),
        made=made(answer),
        warnings=answer.warnings,
        tables={"scalars": lambda: answer.data.iter_rows(named=True)},
    )


def scalar_blocks(data: pl.DataFrame, names: Names) -> Iterator[Block]:
    """A chart per custom graph, a small one per key, and the last values as a table."""
    if data.is_empty():
        return
    runs = data["run"].n_unique()
    for (graph,), frame in data.filter(pl.col("graph").fill_null("") != "").group_by("graph", maintain_order=True):
        yield _graph(str(graph), frame, runs, names)
    keyed = data.filter(pl.col("graph").fill_null("") == "")
    charts = [_small(str(key), frame, runs) for (key,), frame in keyed.group_by("key", maintain_order=True)]
    drawn = [chart for chart in charts if any(_finite(y) for line in chart.series for y in line.y)]
    if drawn:
        legend = f"The first {_CELLS} of {len(drawn):,} keys; the table has all. " if len(drawn) > _CELLS else ""
        yield Multiples(
            names("scalars"),
            "Each key over time",
            tuple(drawn[:_CELLS]),
            legend=legend
            + ("One line a run. " if runs > 1 else "")
            + "Bands, where there are some: mean ± std of runs.",
            alt=f"{count(len(drawn), 'key')} over steps: " + ", ".join(chart.title for chart in drawn[:_CELLS]),
        )
    yield _table(data, names)


def _graph(graph: str, frame: pl.DataFrame, runs: int, names: Names) -> Block:
    views: dict[str, tuple[Block, ...]] = {}
    for (key,), of_key in frame.group_by("key", maintain_order=True):
        series, bands = _lines(of_key, runs)
        chart = LineChart(
            name=names("graph", graph, key),
            title=f"{graph}: {key}",
            x_label=_axis(of_key),
            y_label=str(key),
            series=series,
            bands=bands,
            alt=f"Custom graph {graph}, {key}: {count(len(series), 'line')} over {_axis(of_key)}s",
        )
        views[str(key)] = (chart,)
    return Views(names("graph-views", graph), graph, views)


def _small(key: str, frame: pl.DataFrame, runs: int) -> LineChart:
    series, bands = _lines(frame, runs)
    ends = [line.y[-1] for line in series if line.y]
    last = f"{ends[0]:.4g}" if len(ends) == 1 and ends[0] is not None else count(len(series), "line")
    return LineChart(
        key, key, _axis(frame), key, series, bands, subtitle=last, alt=f"{key} over {_axis(frame)}s, last {last}"
    )


def _lines(frame: pl.DataFrame, runs: int) -> tuple[tuple[Series, ...], tuple[Band, ...]]:
    by = ["run", "source", "line", "mode", "ds_id", "axis"]
    series: list[Series] = []
    bands: list[Band] = []
    for order, (curve, rows) in enumerate(frame.group_by(by, maintain_order=True)):
        if order == _LINES:
            break
        run, _, line, mode, ds_id, _ = (str(part or "") for part in curve)
        shown = _thinned(rows.to_dicts())
        words = [line, mode, ds_id] if runs == 1 else [run.rstrip("/").rsplit("/", 1)[-1], line, mode, ds_id]
        name = " ".join(word for word in words if word) or "value"
        x = tuple(float(row["step"] if row["step"] is not None else i) for i, row in enumerate(shown))
        value = "smoothed" if "smoothed" in frame.columns else "value"
        series.append(Series(name, x, tuple(row[value] for row in shown), key=f"c-{order}", colour=order))
        if any(row["low"] is not None for row in shown):
            low, high = (tuple(row[side] for row in shown) for side in ("low", "high"))
            bands.append(Band("mean ± std", x, low, high, key=f"c-{order}"))
    return tuple(series), tuple(bands)


def _thinned(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """At most some hundred points, evenly, the last one among them."""
    stride = -(-len(rows) // _POINTS)
    return [row for i, row in enumerate(rows) if (len(rows) - 1 - i) % stride == 0] if stride > 1 else list(rows)


def _axis(frame: pl.DataFrame) -> str:
    axes = frame["axis"].drop_nulls().unique().to_list()
    return str(axes[0]) if len(axes) == 1 else "step"


def _table(data: pl.DataFrame, names: Names) -> Table:
    several = data["run"].n_unique() > 1
    rows = []
    for curve, frame in data.group_by("run", "graph", "line", "key", "mode", "ds_id", maintain_order=True):
        run, *words = (str(part or "") for part in curve)
        history = tuple(frame["value"].to_list())
        known = [v for v in history if _finite(v)]
        name = " ".join(word for word in words if word)
        ends = (known[0], known[-1], min(known), max(known)) if known else (None,) * 4
        rows.append((*([run] if several else []), name, len(history), *ends, history))
    columns = (
        *([Column("run")] if several else []),
        Column("key"),
        Column("values", Cell.INTEGER),
        *(Column(title, Cell.NUMBER) for title in ("first", "last", "min", "max")),
        Column("history", Cell.SPARKLINE),
    )
    return Table(names("scalars-table"), "First, last and extreme values", columns, tuple(rows))


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
