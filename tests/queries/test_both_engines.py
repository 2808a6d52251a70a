"""SQL of a grammar, by both engines: what both answer is one answer, and what DuckDB refuses polars does not answer."""

from __future__ import annotations

import datetime
import itertools
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from xaicli import Run, XaiError
from xaicli.api import RunReader, open_run

N = 24
NUMBERS = [None if n == 7 else n % 5 - 1 for n in range(N)]
FRACTIONS = [None if n == 3 else math.nan if n == 11 else n / 4 - 2 for n in range(N)]
TEXTS = [None if n == 5 else ["a", "B", "", "ab", "b"][n % 5] for n in range(N)]
TRUTHS = [None if n == 9 else n % 3 == 0 for n in range(N)]
DAYS = [None if n == 2 else datetime.date(2026, 1, 20) + datetime.timedelta(days=5 * n % 17) for n in range(N)]
MADE = [datetime.date(2026, 1, 18) + datetime.timedelta(days=n % 4) for n in range(N)]
SEEN = [datetime.datetime(2026, 1, 20, 9, 30) + datetime.timedelta(hours=7 * n % 50) for n in range(N)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    pytest.importorskip("duckdb")
    root: Path = tmp_path_factory.mktemp("both") / "run"
    with Run(root) as recorded:
        recorded.log_samples(sample_id=range(N), loss=[1.0] * N, mode="eval", epoch=1, step=1)
        facts = {"n": NUMBERS, "x": FRACTIONS, "t": TEXTS, "b": TRUTHS, "day": DAYS, "made": MADE, "seen": SEEN}
        recorded.log_facts(range(N), **facts)
    return open_run(root)


LEAVES = {
    "number": ["n", "sample_id", "0", "1", "3", "-1"],
    "fraction": ["x", "0.25", "1.5", "2e0", "n / 2"],
    "text": ["t", "'a'", "'B'", "''", "lower(t)", "t || 'b'", "substr(t, 1, 1)"],
    "truth": ["b", "TRUE", "FALSE", "n > 1", "x < 0.5", "t = 'a'", "t LIKE 'a%'", "b IS NULL", "n IN (1, 3)"],
    "date": ["day", "made", "DATE '2026-01-25'", "made + 3", "day - 1"],
    "time": ["seen", "TIMESTAMP '2026-01-21 00:00:00'", "seen + INTERVAL '5 hours'"],
}
FORMS = {
    "number": ["{number} + {number}", "{number} - {number}", "{number} * {number}", "-({number})", "abs({number})",
               "({number}) // 2", "({number}) % 3", "coalesce({number}, {number})", "{date} - {date}",
               "CASE WHEN {truth} THEN {number} ELSE {number} END", "CASE WHEN {truth} THEN {number} END",
               "nullif({number}, 1)", "length({text})", "greatest({number}, {number})", "CAST({truth} AS INT)",
               "({number} + {number}) * {number}", "extract(day from {date})"],
    "fraction": ["{fraction} + {number}", "{fraction} * 2", "{number} / 4", "round({fraction})", "floor({fraction})",
                 "coalesce({fraction}, 0.5)", "CASE WHEN {truth} THEN {fraction} ELSE {number} END", "{number} ** 2"],
    "text": ["upper({text})", "{text} || {text}", "coalesce({text}, 'z')", "CASE WHEN {truth} THEN {text} ELSE 'q' END",
             "CAST({number} AS TEXT)", "CAST({date} AS TEXT)", "CAST({time} AS TEXT)", "replace({text}, 'b', 'c')"],
    "truth": ["{number} < {number}", "{number} = {number}", "{fraction} >= {fraction}", "{fraction} <> {number}",
              "{text} = {text}", "{text} < {text}", "{date} < {date}", "{date} = {date}", "{time} > {time}",
              "{date} <= '2026-01-26'", "{time} < '2026-01-21 12:00'", "{date} < {time}", "NOT {truth}",
              "{truth} AND {truth}", "{truth} OR {truth}", "({truth}) AND NOT ({truth} OR {truth})",
              "{number} BETWEEN {number} AND {number}", "{text} BETWEEN 'A' AND 'b'", "{number} IN ({number}, 2, NULL)",
              "{number} NOT IN (0, 2)", "{text} IN ('a', 'B')", "({truth}) = ({truth})", "({truth}) IS NOT TRUE",
              "{number} IS NULL", "{text} IS NOT DISTINCT FROM {text}", "{text} NOT LIKE '%b'", "{text} ILIKE 'A%'",
              "{truth} IS NULL", "{number} < {number} = {truth}", "{number} < {number} < {number}",
              "{number} = {number} & {number} = {number}", "{any} = {any}", "{any} < {any}", "{any} IN ({any})",
              "{time} - {time} > INTERVAL '5 hours'", "{date} - {date} > {number}", "coalesce({truth}, FALSE)"],
    "date": ["{date} + 2", "least({date}, {date})", "coalesce({date}, made)", "CAST({time} AS DATE)",
             "CASE WHEN {truth} THEN {date} ELSE {date} END"],
    "time": ["{date} + INTERVAL '1 day'", "{time} - INTERVAL '2 hours'", "greatest({time}, seen)"],
}  # fmt: skip
AGGREGATES = ["count(*)", "count({any})", "count(DISTINCT {any})", "sum({number})", "avg({number})", "min({any})",
              "max({number})", "max({date})", "max({date}) - min({date})", "avg({date} - {date})", "median({number})",
              "sum(CASE WHEN {truth} THEN 1 END)", "stddev({number})", "count(*) FILTER (WHERE {truth})",
              "max({time}) - min({time}) > INTERVAL '1 day'", "sum({number}) / count(*)", "sum(CAST({truth} AS INT))",
              ]  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn, kind: str, depth: int = 3) -> str:
    kind = draw(st.sampled_from(sorted(LEAVES))) if kind == "any" else kind
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(LEAVES[kind]))
    form = draw(st.sampled_from(FORMS[kind]))
    while "{" in form:
        before, _, rest = form.partition("{")
        wanted, _, after = rest.partition("}")
        form = before + draw(expressions(wanted, depth - 1)) + after
    return form


@st.composite
def statements(draw: st.DrawFn) -> str:
    where = f" WHERE {draw(expressions('truth', 2))}" if draw(st.booleans()) else ""
    if draw(st.booleans()):
        return f"SELECT {draw(expressions('any'))} AS q FROM facts{where} ORDER BY sample_id"
    form = draw(st.sampled_from(AGGREGATES))
    while "{" in form:
        before, _, rest = form.partition("{")
        wanted, _, after = rest.partition("}")
        form = before + draw(expressions(wanted, 2)) + after
    group = draw(st.sampled_from(["b", "t", "n % 2", "day", "x"])) if draw(st.booleans()) else ""
    if not group:
        return f"SELECT {form} AS q FROM facts{where}"
    return f"SELECT {group} AS g, {form} AS q FROM facts{where} GROUP BY {group} ORDER BY g"


def answered(run: RunReader, sql: str, engine: str) -> list[tuple[Any, ...]] | str:
    """The rows, or why there are none."""
    try:
        return run.query(sql, engine=engine).data.rows()
    except XaiError as error:
        return str(error)


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


_OF_VALUES = ("Could not convert", "Unimplemented type for cast", "Overflow")
"""What DuckDB refuses for the values that it finds."""
_OF_POLARS = ("&(BOOLEAN, BOOLEAN)", "avg(BOOLEAN)", "stddev(BOOLEAN)")
"""What polars alone has."""


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sql=statements())
def test_what_both_engines_answer(run: RunReader, sql: str) -> None:
    polars, duckdb = (answered(run, sql, engine) for engine in ("polars", "duckdb"))
    if isinstance(duckdb, str):
        assert isinstance(polars, str) or any(said in duckdb for said in (*_OF_VALUES, *_OF_POLARS)), (sql, duckdb)
    elif not isinstance(polars, str):
        assert len(polars) == len(duckdb), sql
        assert all(map(is_same, itertools.chain(*polars), itertools.chain(*duckdb))), (sql, polars, duckdb)
