"""The values behind a chart, for the page's script: short names, five digits, shared x."""

from __future__ import annotations

import math
from typing import Any

from xaicli.render.text import printable
from xaicli.report.charts import LineChart, ScatterChart

Context = dict[str, Any]
_DIGITS = 5
_SHOWN = 300


def line_values(chart: LineChart) -> Context:
    """What a hover says of each point of each line: {xl, yl, x, lines: [{k, n, x, y, lo, hi, c, t}]}."""
    bands = {band.key: band for band in chart.bands if band.key}
    lines = []
    for line in chart.series:
        values: Context = {"k": line.key, "n": printable(line.name, limit=_SHOWN), "t": line.note}
        values |= {"x": [_rounded(x) for x in line.x], "y": [_rounded(y) for y in line.y]}
        if line.key in bands and len(bands[line.key].low) == len(line.y):
            values["lo"] = [_rounded(v) for v in bands[line.key].low]
            values["hi"] = [_rounded(v) for v in bands[line.key].high]
        if len(set(line.counts)) > 1:
            values["c"] = list(line.counts)
        elif line.counts:
            values["t"] = f"n = {line.counts[0]:,}"
        lines.append({key: value for key, value in values.items() if value != ""})
    shared = lines[0]["x"] if lines else []
    lines = [{k: v for k, v in line.items() if k != "x" or v != shared} for line in lines]
    said: Context = {"xl": chart.x_label, "yl": chart.y_label, "x": shared, "lines": lines}
    if chart.other_axis is not None:
        at, values_at = ([_rounded(v) for v in row] for row in (chart.other_axis.at, chart.other_axis.values))
        said["o"] = {"l": chart.other_axis.label, "at": at, "v": values_at}
    return said


def point_values(chart: ScatterChart) -> Context:
    """What a hover says of each named point, as lines of one point."""
    lines = []
    for i, name in enumerate(chart.names):
        if name:
            point: Context = {"k": chart.keys[i] if i < len(chart.keys) else "", "n": printable(name, limit=_SHOWN)}
            lines.append(point | {"x": [_rounded(chart.x[i])], "y": [_rounded(chart.y[i])]})
    return {"xl": chart.x_label, "yl": chart.y_label, "lines": lines}


def _rounded(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
