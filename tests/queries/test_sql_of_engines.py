"""SQL that polars and DuckDB answer alike, and what is told where they do not; values by plain Python."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.api import RunReader, open_run
from xaicli.recorder.run import Run

N = 60_000
LOSS = np.tile(np.array([0.1, 0.2, 4096.3], np.float32), N // 3)
LOSSES = [float(value) for value in LOSS]
"""What is stored: numbers of single precision."""
TENTHS = N // 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    root = tmp_path_factory.mktemp("sql") / "run"
    with Run(root) as recorded:
        recorded.log_samples(sample_id=np.arange(N), label=np.full(N, 100_000), loss=LOSS, mode="eval", epoch=1, step=1)
    return open_run(root)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT sum(l) FROM (SELECT loss AS l FROM samples) AS renamed", math.fsum(LOSSES)),
        ("WITH a AS (SELECT loss AS \"sum(\" FROM samples) SELECT avg(a.\"sum(\") FROM a", math.fsum(LOSSES) / N),
        ("SELECT sum(n) FROM (SELECT label AS n FROM samples) AS renamed", 100_000 * N),
        ("SELECT sum(x) FROM (SELECT sum(label) AS x FROM samples GROUP BY sample_id % 7) AS sums", 100_000 * N),
        ("SELECT stddev(loss) FROM samples", statistics.stdev(LOSSES)),
        ("SELECT max(label * 1000000) FROM samples", 10**11),
        ("SELECT sum(sample_id + 9000000000000000000) > 0 FROM samples", True),
        ("SELECT sum(label) / 2 FROM samples", 50_000.0 * N),
        ("SELECT sum(label) * 0.5 + max(loss) - max(loss) FROM samples", 50_000.0 * N),
        ("SELECT sample_id FROM samples WHERE sample_id * 2000000 = (SELECT sum(label) FROM samples)", N // 20),
        ("SELECT sum(label) % 7 FROM samples", 100_000 * N % 7),
        ("SELECT CASE WHEN sum(label) > 5 THEN sum(label) ELSE 0 END FROM samples", 100_000 * N),
        ("SELECT coalesce(sum(label), 0) + round(sum(label)) FROM samples", 200_000 * N),
        ("SELECT variance(loss /* of (all */) FROM samples", statistics.variance(LOSSES)),
        ("SELECT sum(DISTINCT loss) FROM samples", math.fsum(set(LOSSES))),
        ("SELECT sum(CASE WHEN loss = 0.1 THEN 1 ELSE 0 END) FROM samples", TENTHS),
        ("SELECT corr(loss, loss * 2) FROM samples", 1.0),
        ("SELECT sum(CAST(loss = 0.1 AS INT)) FROM samples", TENTHS),
        ("SELECT label FROM samples GROUP BY label HAVING sum(loss) > 1 ORDER BY sum(loss)", 100_000),
        ("SELECT count(*) FROM samples WHERE loss = 0.1", TENTHS),
        ("SELECT count(*) FROM samples WHERE loss > 0.1", N - TENTHS),
        ("SELECT count(*) FROM samples WHERE loss BETWEEN 0.1 AND 0.2", 2 * TENTHS),
        ("SELECT count(*) FROM samples s WHERE s.loss NOT between 0.1 AND .2 OR label = 1", TENTHS),
        ("SELECT count(*) FROM samples WHERE NOT \"loss\" BETWEEN 0.1 AND 0.2 AND label > 1", TENTHS),
        ("SELECT count(*) FROM samples WHERE 'a BETWEEN 1 AND 2' <> '' AND loss * 2 BETWEEN 0.2 AND 0.1 * 2", TENTHS),
        ("SELECT count(*) FROM samples WHERE loss IN (0.1, 0.2)", 2 * TENTHS),
        ("SELECT count(*) FROM samples WHERE abs(coalesce(loss, abs(1))) BETWEEN (0.1) AND (0.2)", 2 * TENTHS),
        ("SELECT count(*) FROM samples WHERE loss BETWEEN (SELECT min(loss) FROM samples) AND 0.2", 2 * TENTHS),
        ("SELECT sum(label // 7) FROM samples", 100_000 // 7 * N),
        ("SELECT count(*) FROM samples WHERE epoch>=1 AND label/2>1 AND NOT epoch>=2", N),
        ("SELECT sum(CASE WHEN sample_id % 3 >= 1 THEN 1 ELSE 0 END) FROM samples", 2 * TENTHS),
        ("SELECT round(round(round(max(sample_id) / 8, 2), 1) / 2) FROM samples", 3750.0),
        ("SELECT count(*) * 1.0 / 98765432109 FROM samples", N / 98765432109),
        ("SELECT 1.0 * sum(CASE WHEN loss > 1 THEN 1 ELSE 0 END) / count(*) FROM samples", 1 / 3),
        ("SELECT 1.0 / 3 * 3 -- not 1 / 3\nFROM samples LIMIT 1", 1.0),
        ("SELECT round(100.0 * count(*) / 7, 2) FROM samples", round(100 * N / 7, 2)),
        ("SELECT 100.0 * count(*) FROM samples", 100.0 * N),
        ("SELECT sum(0.25 * label) FROM samples", 25_000.0 * N),
        ("SELECT count(*) FROM samples WHERE label * 0.00001 = 1 AND 'a/b' <> 'a * 1e0 /b'", N),
        ("SELECT max(sample_id // 7) FROM samples", (N - 1) // 7),
        ("SELECT power(2, 62) FROM samples LIMIT 1", 2.0**62),
        ("SELECT max(power(label, 4)) FROM samples", 1e20),
        ("SELECT min(pow(label, -1)) FROM samples", 1e-5),
        ("SELECT sum(power(loss, 2)) FROM samples", math.fsum(value**2 for value in LOSSES)),
        ("SELECT sum(sqrt(loss)) FROM samples", math.fsum(map(math.sqrt, LOSSES))),
        ("SELECT avg(exp(-(loss))) FROM samples", math.fsum(math.exp(-value) for value in LOSSES) / N),
    ],
)  # fmt: skip
def test_engines_agree(run: RunReader, engine: str, sql: str, expected: float) -> None:
    pytest.importorskip(engine)
    found = run.query(sql, engine=engine).data.item()
    assert found == pytest.approx(expected, rel=1e-11)
    assert isinstance(found, int) == isinstance(expected, int)


def test_bounds_of_a_condition_are_of_the_precision_of_the_metric(run: RunReader) -> None:
    for where in ("loss BETWEEN 0.1 AND 0.2", "loss >= 0.1 AND loss <= 0.2"):
        assert run.labels(where=where).data["n"].sum() == 2 * TENTHS, where
    assert run.labels(where="loss NOT BETWEEN 0.1 AND 0.2").data["n"].sum() == TENTHS


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_numbers_with_a_point_are_numbers_in_json(run: RunReader, engine: str) -> None:
    pytest.importorskip(engine)
    sql = "SELECT epoch * 0.1 AS a, 100.0 * count(*) AS b, array_agg(0.5 * epoch) AS c FROM samples GROUP BY epoch"
    answer = run.query(sql, engine=engine)
    assert json.loads(answer.to_json())["rows"] == [{"a": 0.1, "b": 100.0 * N, "c": [0.5] * N}]


def test_quotients_and_powers_of_a_condition_are_of_double_precision(run: RunReader) -> None:
    for where in ("1.0 * label / 300000 > 0.33333333", "power(sample_id, 9) >= 0", "power(label, -1) = 0.00001"):
        assert run.labels(where=where).data["n"].sum() == N, where


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_sum_beyond_64_bits_is_exact(tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine)
    ids = [10**18 + i for i in range(40)]
    with Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=ids, loss=[0.5] * 40, mode="eval", epoch=1, step=1)
    answer = open_run(tmp_path / "run").query("SELECT sum(sample_id) AS s FROM samples", engine=engine)
    assert int(answer.data["s"].item()) == sum(ids)
    assert str(sum(ids)) in answer.to_json()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    root = tmp_path_factory.mktemp("odd") / "run"
    with Run(root) as recorded:
        loss, other = [0.5, math.nan, 1.5, None], [1.0, 2.0, 3.0, 4.0]
        recorded.log_samples(sample_id=[0, 1, 2, 3], loss=loss, other=other, mode="eval", epoch=1, step=1)
    return open_run(root)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_the_order_of_what_is_missing_or_nan_is_one(odd: RunReader, engine: str) -> None:
    """As in PostgreSQL: NaN above every number, a missing value above NaN."""
    pytest.importorskip(engine)
    for order, expected in (("ASC", [0, 2, 1, 3]), ("DESC", [3, 1, 2, 0]), ("DESC NULLS LAST", [1, 2, 0, 3])):
        found = odd.query(f"SELECT sample_id FROM samples ORDER BY loss {order}", engine=engine).data
        assert found["sample_id"].to_list() == expected, order


@pytest.mark.parametrize(("engine", "largest"), [("polars", 1.5), ("duckdb", None)])
def test_engines_that_differ_in_the_largest_value_say_so(odd: RunReader, engine: str, largest: float | None) -> None:
    pytest.importorskip(engine)

    def asked(sql: str) -> tuple[list[Any], bool]:
        answer = odd.query(sql, engine=engine)
        value = answer.data.item()
        told = any(said.startswith("some values of loss are NaN: max and greatest") for said in answer.answer.warnings)
        return [None if isinstance(value, float) and math.isnan(value) else value], told

    assert asked("SELECT max(loss) AS x FROM samples") == ([largest], True)
    assert asked("SELECT max(l) AS x FROM (SELECT loss AS l FROM samples) AS renamed") == ([largest], True)
    assert asked("SELECT max(loss) AS x FROM samples WHERE loss - loss = 0")[0] == [1.5]
    assert asked("SELECT max(other) AS x FROM samples") == ([4.0], False)
    assert asked("SELECT min(loss) AS x FROM samples") == ([0.5], False)
    assert asked("SELECT max(loss) AS x FROM samples WHERE epoch = 9") == ([None], True)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_aggregates_of_no_rows(odd: RunReader, engine: str) -> None:
    pytest.importorskip(engine)
    sql = "SELECT count(*) AS n, max(loss) AS m, min(other) AS l, avg(loss) AS a FROM samples WHERE epoch = 9"
    assert odd.query(sql, engine=engine).data.rows() == [(0, None, None, None)]
    assert xaicli.open_run(odd.layout.root).query("SELECT sample_id FROM samples WHERE epoch = 9").data.is_empty()


VALUES = [True, False, None]
CONDITIONS = {
    "a": lambda row: row[0],
    "x > 1": lambda row: None if row[2] is None else row[2] > 1,
    "a = b": lambda row: None if None in row[:2] else row[0] == row[1],
    "s LIKE 'c%'": lambda row: None if row[3] is None else row[3] == "cat",
    "s = 'x IS NOT TRUE'": lambda row: None if row[3] is None else False,
}
ASKED = {
    "TRUE": lambda value: value is True,
    "false": lambda value: value is False,
    "NULL": lambda value: value is None,
    "unknown": lambda value: value is None,
    "DISTINCT FROM FALSE": lambda value: value is not False,
    "DISTINCT FROM NULL": lambda value: value is not None,
}


@pytest.fixture(scope="module")
def with_facts(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunReader, list[tuple[Any, ...]]]:
    """A run with every mix of facts that are true, false or not there."""
    rows = list(itertools.product(VALUES, VALUES, [1, 3, None], ["cat", "dog", None]))
    root = tmp_path_factory.mktemp("truths") / "run"
    with Run(root) as recorded:
        ids = list(range(len(rows)))
        recorded.log_samples(sample_id=ids, label=ids, loss=[1.0] * len(ids), mode="eval", epoch=1, step=1)
        a, b, x, s = (list(column) for column in zip(*rows, strict=True))
        recorded.log_facts(sample_id=ids, a=a, b=b, x=x, s=s)
    return open_run(root), rows


def truths(rows: list[tuple[Any, ...]]) -> dict[str, list[int]]:
    """Every condition with the rows that it holds for."""
    found = {}
    for (of, value), (wanted, holds), is_not in itertools.product(CONDITIONS.items(), ASKED.items(), (False, True)):
        if "LIKE" in of and "DISTINCT" in wanted:
            continue  # polars refuses what goes on behind
        asked = f"{of} IS {'NOT ' if is_not else ''}{wanted}"
        kept = [n for n, row in enumerate(rows) if holds(value(row)) != is_not]
        found[asked] = kept
        found[f"NOT {asked}"] = [n for n in range(len(rows)) if n not in kept]
        found[f"{asked} AND b"] = [n for n in kept if rows[n][1]]
    return found


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_is_true_and_its_like_are_never_null(with_facts: Any, engine: str) -> None:
    """All in a few statements, a part of each for a condition."""
    pytest.importorskip(engine)
    run, rows = with_facts
    asked = list(truths(rows).items())
    for first in range(0, len(asked), 24):
        some = asked[first : first + 24]
        parts = (
            f"SELECT {n} AS n, f.sample_id FROM facts f WHERE {condition}" for n, (condition, _) in enumerate(some)
        )
        found = run.query(" UNION ALL ".join(parts), engine=engine).data
        for n, (condition, expected) in enumerate(some):
            assert sorted(found.filter(pl.col("n") == n)["sample_id"].to_list()) == expected, condition


def test_is_true_and_its_like_are_never_null_in_where(with_facts: Any) -> None:
    run, rows = with_facts
    for condition, expected in truths(rows).items():
        if expected:
            found = sorted(run.samples(max=99, min=0, where=condition).data["sample_id"].to_list())
            assert found == expected, condition


def test_whole_numbers_do_not_begin_again_below_zero(tmp_path: Path) -> None:
    """Python's integers have no end; DuckDB refuses what it cannot hold."""
    ids = [4_000_000_000, -4_000_000_000, 3, 0]
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=ids, label=[0, 1, 1, 0], loss=[0.5] * 4, mode="eval", epoch=1, step=7)
    reader = open_run(tmp_path / "run")

    def rows(sql: str) -> list[int]:
        found = reader.query(sql)
        assert found.answer.warnings == ()
        return [int(value) for value in found.data["x"]]

    assert rows("SELECT sample_id * sample_id AS x FROM samples") == [i * i for i in ids]
    assert rows("SELECT sample_id - 9223372036854775807 AS x FROM samples") == [i - (2**63 - 1) for i in ids]
    assert rows("SELECT sum(sample_id * sample_id) AS x FROM samples") == [sum(i * i for i in ids)]
    assert rows("SELECT sample_id AS x FROM samples WHERE sample_id * sample_id > 9") == ids[:2]
    nested = "WITH t AS (SELECT sample_id * 2 AS y FROM samples) SELECT y * y * y AS x FROM t"
    assert [int(v) for v in reader.query(nested).data["x"]] == [(2 * i) ** 3 for i in ids]
    assert rows("SELECT length('abc') - 5 AS x FROM samples LIMIT 1") == [-2]
    assert rows("SELECT step * 1000 + epoch AS x, sample_id + 1 AS y FROM samples LIMIT 1") == [7001]
    assert reader.query("SELECT step + 1 AS x FROM samples").data["x"].dtype == pl.Int64


FRACTIONS = [0.25, 0.75, -0.75, 1.0, 2.5, -2.5, 7.0, None, math.nan, math.inf]


@pytest.fixture(scope="module")
def fractions(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    root = tmp_path_factory.mktemp("fractions") / "run"
    with Run(root) as recorded:
        ids = list(range(len(FRACTIONS)))
        recorded.log_samples(sample_id=ids, label=ids, loss=FRACTIONS, mode="eval", epoch=3, step=1)
    return open_run(root)


def _told(values: list[Any]) -> list[str]:
    return [str(value) if value is None else str(float(value) + 0.0) for value in values]


@pytest.mark.parametrize(
    ("sql", "of"),
    [
        ("loss // 0.5", lambda x, _: math.trunc(x / 0.5)),
        ("-loss // 2 + 1", lambda x, _: math.trunc(-x / 2) + 1),
        ("sample_id // 2.0 * 2", lambda _, n: n // 2 * 2),
        ("(loss * 2) // sample_id", lambda x, n: math.trunc(2 * x / n) if n else 2 * x * math.inf),
        ("(sample_id + 3) // 2", lambda _, n: (n + 3) // 2),
        ("count(*) OVER () // 3", lambda *_: len(FRACTIONS) // 3),
    ],
)
def test_a_quotient_without_its_fraction(fractions: RunReader, sql: str, of: Any) -> None:
    """NaN and infinite where what is divided is."""
    found = fractions.query(f"SELECT {sql} AS q FROM samples ORDER BY sample_id").data["q"].to_list()
    expected = []
    for n, x in enumerate(FRACTIONS):
        if "loss" not in sql or (x is not None and math.isfinite(x)):
            expected.append(of(0.0 if x is None else x, n))
        else:
            expected.append(x if x is None or not sql.startswith("-") else -x)
    assert _told(found) == _told(expected)


@pytest.mark.parametrize(
    ("sql", "told"),
    [("loss // 0.5", True), ("avg(loss) // 2", True), ("sample_id // 2", False), ("count(*) // 2", False)],
)
def test_duckdb_keeps_fractions_and_that_is_said(fractions: RunReader, sql: str, told: bool) -> None:
    pytest.importorskip("duckdb")
    warnings = fractions.query(
        f"SELECT {sql} AS q FROM samples GROUP BY sample_id, loss", engine="duckdb"
    ).answer.warnings
    assert any("a // b of numbers with fractions is a / b to DuckDB" in said for said in warnings) == told


@pytest.mark.parametrize("engine", ["polars", "duckdb", "where"])
@pytest.mark.parametrize("by", [0.5, 0.3, 2])
def test_what_is_left_of_a_division(fractions: RunReader, engine: str, by: float) -> None:
    if engine == "duckdb":
        pytest.importorskip(engine)
    finite = {n: x for n, x in enumerate(FRACTIONS) if x is not None and math.isfinite(x)}
    kept = [n for n, x in finite.items() if math.fmod(x, by) > 0.12]
    where = f"loss % {by} > 0.12 AND epoch>=3 AND loss - loss = 0"
    if engine == "where":
        assert sorted(fractions.samples(where=where, max=99, min=0).data["sample_id"]) == kept
    else:
        sql = f"SELECT sample_id FROM samples WHERE {where} ORDER BY 1"
        assert fractions.query(sql, engine=engine).data["sample_id"].to_list() == kept


HALVES = [0.25, 0.5, 1.25, 1.5, 2.5, -0.5, -1.5, -2.25, None, 7.0]
TEXTS = ["abc", "b", "", None, "bb", "cab", None, "x", "a", "abab"]
PARTS = ["b", None, "a", "b", "", "ab", None, "x", "b", "ba"]
LENGTHS = [1, 2, 0, None, 1, None, 3, 2, 1, 3]


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    root = tmp_path_factory.mktemp("halves") / "run"
    with Run(root) as recorded:
        ids = list(range(len(HALVES)))
        recorded.log_samples(sample_id=ids, loss=HALVES, score=[1.0] * len(ids), mode="eval", epoch=1, step=1)
        recorded.log_facts(sample_id=ids, text=TEXTS, part=PARTS, k=LENGTHS)
    return open_run(root)


def to_even(x: float | None, places: str = "1") -> float | None:
    return None if x is None else float(Decimal(str(x)).quantize(Decimal(places), ROUND_HALF_EVEN))


def from_zero(x: float | None, places: str = "1") -> float | None:
    return None if x is None else float(Decimal(str(x)).quantize(Decimal(places), ROUND_HALF_UP))


def where(text: str | None, part: str | None) -> int | None:
    return None if text is None or part is None else text.find(part) + 1


class Row(NamedTuple):
    n: int
    x: float | None
    text: str | None
    part: str | None
    k: int | None


ROUNDED = {
    # What is typed with a point is a decimal to both engines, and a whole number times it.
    "round(2.5)": lambda _: 3.0,
    "round(-2.5) + round(0.5) + round(3.5)": lambda _: 2.0,
    "round(1.005 * 100) + round(1.005, 2)": lambda _: 101 + 1.01,
    "round(sample_id * 0.5)": lambda r: from_zero(r.n * 0.5),
    "round(sample_id + 0.5)": lambda r: r.n + 1.0,
    "round(-sample_id * 0.25, 1)": lambda r: from_zero(-r.n * 0.25, "0.1"),
    "round(sum(sample_id) OVER () * 0.1)": lambda _: from_zero(sum(range(len(HALVES))) * 0.1),
    "round(CASE WHEN sample_id > 3 THEN 2.5 ELSE 1.5 END)": lambda r: 3.0 if r.n > 3 else 2.0,
    "round(loss)": lambda r: from_zero(r.x),
    # A cast rounds, doubles to the even neighbour and decimals away from zero.
    "CAST(loss AS INT)": lambda r: to_even(r.x),
    "loss::BIGINT + 1": lambda r: r.x if r.x is None else to_even(r.x) + 1,
    "TRY_CAST(-loss AS SMALLINT)": lambda r: r.x if r.x is None else to_even(-r.x),
    "CAST(sample_id / 2 AS INT)": lambda r: to_even(r.n / 2),
    "CAST(sample_id * 0.5 AS INT)": lambda r: from_zero(r.n * 0.5),
    "CAST(0.5 AS INT)": lambda _: 1.0,
    "CAST(loss AS DECIMAL(6, 1))": lambda r: from_zero(r.x, "0.1"),
    "CAST(loss AS DECIMAL(6, 0))": lambda r: from_zero(r.x),
    "CAST(coalesce(loss, 9.5e0) AS INT)": lambda r: to_even(9.5 if r.x is None else r.x),
    "CAST(max(loss) OVER () / 2 AS INT)": lambda _: 4.0,
    "CAST((SELECT avg(sample_id) FROM samples) AS INT)": lambda _: 4.0,
    # What is no number with a fraction is cast as it is.
    "CAST(loss > 1 AS INT)": lambda r: None if r.x is None else float(r.x > 1),
    "CAST(CAST(sample_id AS TEXT) AS INT)": lambda r: float(r.n),
    "log(2, sample_id + 1)": lambda r: math.log2(r.n + 1),
    "log(sample_id + 1)": lambda r: math.log10(r.n + 1),
    # A text that is missing has no place in it.
    "strpos(text, 'b')": lambda r: where(r.text, "b"),
    "strpos('abc', part)": lambda r: where("abc", r.part),
    "position(part IN text)": lambda r: where(r.text, r.part),
    "length(left('abc', k))": lambda r: r.k,
    "length(substr('abc', 1, k))": lambda r: r.k,
    "length(substring('abc' FROM 1 FOR k))": lambda r: r.k,
    "length(replace(text, 'b', part))": lambda r: (
        None if None in (r.text, r.part) else len(r.text.replace("b", r.part))
    ),
    "length(rtrim('abb', part))": lambda r: None if r.part is None else len("abb".rstrip(r.part)),
    "length(ltrim('abb', part))": lambda r: None if r.part is None else len("abb".lstrip(r.part)),
    "length(split_part('a-b', '-', CASE WHEN k > 0 THEN 2 END))": lambda r: 1 if r.k else None,
}  # fmt: skip


@pytest.mark.parametrize("engine", ["polars", "duckdb", "where"])
@pytest.mark.parametrize("sql", ROUNDED)
def test_what_is_rounded_cast_or_missing(halves: RunReader, engine: str, sql: str) -> None:
    """By Python's decimals; `--where` of any engine is answered as both answer the statement."""
    if engine == "duckdb":
        pytest.importorskip(engine)
    expected = [ROUNDED[sql](Row(*row)) for row in zip(range(len(HALVES)), HALVES, TEXTS, PARTS, LENGTHS, strict=True)]
    if engine == "where":
        if "SELECT" in sql or "OVER" in sql:
            return
        for value in {*expected} - {None}:
            condition = f"{sql} = {value}" if "log" not in sql else f"abs({sql} - {value}) < 1e-9"
            kept = [n for n, told in enumerate(expected) if told == value]  # none where it is missing
            assert sorted(halves.samples(metric="score", where=condition, max=99, min=0).data["sample_id"]) == kept, (
                condition
            )
        return
    columns = "s.sample_id AS sample_id, loss, f.text, f.part, f.k"
    rows = f"(SELECT {columns} FROM samples s JOIN facts f ON s.sample_id = f.sample_id) AS r"
    found = halves.query(f"SELECT {sql} AS q FROM {rows} ORDER BY sample_id", engine=engine).data["q"].to_list()
    assert found == [value if value is None else pytest.approx(value, rel=1e-12) for value in expected]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_what_a_statement_calls_by_a_name_is_cast_as_it_is(halves: RunReader, engine: str) -> None:
    pytest.importorskip(engine)
    for inner, expected in (("avg(sample_id)", 4), ("CAST(min(sample_id) AS TEXT)", 0), ("max(loss) > 1", 1)):
        sql = f"WITH a AS (SELECT {inner} AS m FROM samples) SELECT CAST(m AS INT) AS q FROM a"
        assert halves.query(sql, engine=engine).data["q"].to_list() == [expected], inner
    sql = "SELECT CAST(loss AS INT) AS q, count(*) AS n FROM samples GROUP BY CAST(loss AS INT) ORDER BY q"
    expected = sorted(Counter(to_even(x) for x in HALVES).items(), key=lambda pair: (pair[0] is None, pair[0]))
    assert halves.query(sql, engine=engine).data.rows() == expected


@pytest.mark.parametrize(
    "where",
    ["qualify/2 > 1", "loss/2 >", "loss/2 > 1; SELECT 1", "(loss BETWEEN 1 AND 2", "(" * 99 + "loss/2" + ")" * 99],
)
def test_what_cannot_be_read_is_shown(fractions: RunReader, where: str) -> None:
    with pytest.raises(xaicli.errors.XaiError) as raised:
        fractions.samples(where=where)
    assert where[:60] in str(raised.value)


RIGHT = [True, True, False, None, True, False]
ONES = [int(right) for right in RIGHT if right is not None]
OF_TRUTHS = {
    "avg(correct)": 3 / 5,
    "avg(NOT s.correct)": 2 / 5,
    "sum(correct)": 3,
    "avg(DISTINCT correct)": 1 / 2,
    "avg(DISTINCT(correct))": 1 / 2,
    "median(correct)": 1.0,
    "stddev(correct)": statistics.stdev(ONES),
    "avg(sample_id > 1) - avg(correct)": 4 / 6 - 3 / 5,
    "avg(correct) FILTER (WHERE sample_id < 3 /* avg( */)": 2 / 3,
    "avg(correct AND sample_id > 0)": 2 / 5,
    "corr(correct, 2 * s.correct)": 1.0,
    "sum((1 - correct) * sample_id)": 7,
    "round(avg(CASE WHEN sample_id > 0 THEN correct END), 2)": 0.5,
    "avg(correct) OVER (PARTITION BY label)": 3 / 5,
    "max(correct)": True,
    "count(correct)": 5,
}


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("sql", OF_TRUTHS)
def test_true_and_false_are_one_and_zero_where_they_are_calculated_with(tmp_path: Path, engine: str, sql: str) -> None:
    pytest.importorskip(engine)
    with Run(tmp_path / "run") as recorded:
        told = {"sample_id": range(6), "label": [0] * 6, "prediction": [1 if right is False else 0 for right in RIGHT]}
        recorded.log_samples(**told, correct=RIGHT, mode="eval", epoch=1)
    opened = open_run(tmp_path / "run")
    found = opened.query(f"SELECT {sql} AS q FROM samples AS s LIMIT 1", engine=engine).data["q"].item()
    assert found == pytest.approx(OF_TRUTHS[sql], rel=1e-12)
    assert isinstance(found, bool) is isinstance(OF_TRUTHS[sql], bool)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("order", ["DESC NULLS LAST", "NULLS FIRST", "DESC", ""])
def test_where_missing_values_stand_is_kept_of_a_statement_with_a_mean(tmp_path: Path, engine: str, order: str) -> None:
    pytest.importorskip(engine)
    with Run(tmp_path / "run") as recorded:
        told = {"sample_id": range(3), "label": range(3), "loss": [0.0, 3.0, None]}
        recorded.log_samples(**told, mode="eval", epoch=1)
    sql = f"SELECT avg(loss) AS q FROM samples GROUP BY label ORDER BY q {order}"
    found = open_run(tmp_path / "run").query(sql, engine=engine).data["q"].to_list()
    expected = {"DESC NULLS LAST": [3, 0, None], "NULLS FIRST": [None, 0, 3], "DESC": [None, 3, 0], "": [0, 3, None]}
    assert found == expected[order]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_the_tables_of_a_run_are_listed_alone(halves: RunReader, engine: str) -> None:
    pytest.importorskip(engine)
    assert set(halves.query("SHOW TABLES", engine=engine).data["name"]) == {"samples", "facts"}


def test_a_function_that_polars_lacks_points_to_duckdb(halves: RunReader) -> None:
    with pytest.raises(xaicli.errors.UsageError) as raised:
        halves.query("SELECT md5(text) FROM facts")
    assert raised.value.hint.startswith("--engine duckdb has more functions; tables: samples(")
    pytest.importorskip("duckdb")
    assert halves.query("SELECT md5(text) AS m FROM facts", engine="duckdb").data.height == len(TEXTS)


def test_sql_is_read_only_where_it_says_something_else() -> None:
    """Cold starts: the library that reads SQL is loaded for no other question."""
    code = (
        "import sys; from xaicli.reader.dialect import for_polars\n"
        "for sql in ('loss > 2 AND label = 3', 'epoch>=3', \"name = 'a/b' -- round(\", 'SELECT max(loss)'):\n"
        "    assert for_polars(sql) == sql\n"
        "assert 'sqlglot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
