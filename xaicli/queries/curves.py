"""Curves of values over time: their columns, and several runs averaged to one."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from xaicli.errors import UsageError
from xaicli.queries.recorded import AXIS, KEY, VALUE
from xaicli.queries.selection import Words
from xaicli.vocabulary import DS_ID, EPOCH, MODE, STEP, Mode
from xaicli.words import split

RUN, SOURCE, GRAPH, LINE, LOW, HIGH, N, SMOOTHED = "run", "source", "graph", "line", "low", "high", "n", "smoothed"

SCHEMA = {
    RUN: pl.String(),
    SOURCE: pl.String(),
    GRAPH: pl.String(),
    LINE: pl.String(),
    KEY: pl.String(),
    MODE: pl.String(),
    DS_ID: pl.String(),
    AXIS: pl.String(),
    EPOCH: pl.Int32(),
    STEP: pl.Int64(),
    VALUE: pl.Float64(),
    LOW: pl.Float64(),
    HIGH: pl.Float64(),
    N: pl.Int64(),
}

CURVE = (RUN, SOURCE, GRAPH, LINE, KEY, MODE, DS_ID, AXIS)
"""What rows of one curve share."""


def members_of(given: Words | Mapping[str, str | Iterable[str]], runs: list[str]) -> dict[str, list[str]]:
    """{name: the runs in it}.

    Raises:
        UsageError: An item is no NAME=PATTERN, or matches no run.
    """
    if not given:
        return {}
    if isinstance(given, Mapping):
        items = list(given.items())
    else:
        words = [str(word) for word in ([given] if isinstance(given, str | int) else given)]
        items = [(word.partition("=")[0], word.partition("=")[2]) for word in words]
    groups: dict[str, list[str]] = {}
    for name, patterns in items:
        listed = split(patterns) if isinstance(patterns, str) else list(patterns)
        members = [run for run in runs if any(_matches(run, pattern) for pattern in listed)]
        if not name or not members:
            raise UsageError(
                f"--group {name}={','.join(listed)} matches no run", hint=f"NAME=PATTERN,...; runs: {', '.join(runs)}"
            )
        groups[name] = list(dict.fromkeys([*groups.get(name, []), *members]))
    return groups


def _matches(run: str, pattern: str) -> bool:
    path = Path(run)
    names = (run, path.name, path.stem)
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)


def averaged(rows: pl.DataFrame, groups: Mapping[str, Sequence[str]], warnings: list[str]) -> pl.DataFrame:
    """Each group as one run; runs of no group stay as they are."""
    if not groups:
        return rows
    grouped = {run for members in groups.values() for run in members}
    parts = [rows.filter(~pl.col(RUN).is_in(list(grouped)))]
    curve = [name for name in CURVE if name != RUN]
    for name, members in groups.items():
        part = rows.filter(pl.col(RUN).is_in(list(members)))
        # Trainings of different lengths are tested once, at the end: their tests belong together.
        part = part.with_columns(
            pl.when(pl.col(MODE) == Mode.TEST.value)
            .then(pl.col(STEP).max().over(curve))
            .otherwise(pl.col(STEP))
            .alias(STEP)
        )
        finite = pl.col(VALUE).filter(pl.col(VALUE).is_finite())
        spread = finite.std(ddof=1)
        means = part.group_by([*curve, STEP]).agg(
            pl.col(EPOCH).first(),
            finite.mean().fill_null(math.nan).alias(VALUE),
            (finite.mean() - spread).alias(LOW),
            (finite.mean() + spread).alias(HIGH),
            finite.len().cast(pl.Int64).alias(N),
        )
        if len(members) > 1 and means.filter(pl.col(N) > 1).is_empty():
            warnings.append(f"the runs of group {name} share no step: there is no spread to show")
        parts.append(means.with_columns(pl.lit(name).alias(RUN)).select(list(SCHEMA)).sort(*curve, STEP))
    return pl.concat(parts)
