"""A quotient is that of two doubles, whatever it is divided by: 49 / 49 is 1."""

from __future__ import annotations

import math
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import polars as pl
import pytest

import xaicli
from xaicli import open_run
from xaicli.reader.dialect import for_polars
from xaicli.reader.rows import Where

STEPS = range(0, 2000, 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quotients") / "run"
    with xaicli.Run(folder) as run:
        for step in STEPS:
            run.log({"loss": float(step), "step": step})
            run.log_samples(
                sample_id=[step], label=[step % 3], prediction=[1], loss=[step / 8], mode="eval", epoch=1, step=step
            )
    return folder


def test_the_quotient_by_each_number_below_2000_is_that_of_doubles() -> None:
    numbers = [*range(0, 2000, 13), 49, 98, 103, 107, 161, 187, 196, 197, 1961]
    frame = pl.DataFrame({"step": numbers, "x": [float(-n) for n in numbers]})
    with pl.SQLContext({"samples": frame.lazy()}) as context:
        for begin in range(1, 2000, 250):
            divisors = range(begin, min(begin + 250, 2000))
            asked = [f"step/{by} AS q{by}, x / -{by}.0 AS x{by}" for by in divisors]
            sql = for_polars(f"SELECT {', '.join(asked)} FROM samples")
            found = context.execute(sql).collect(engine="streaming")
            for by in divisors:
                expected = [n / by for n in numbers]
                assert found[f"q{by}"].to_list() == expected, by
                assert found[f"x{by}"].to_list() == expected, by


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    ("sql", "of"),
    [
        ("step/49", lambda n: n / 49),
        ("floor(step/49)", lambda n: n // 49),
        ("CAST(floor(step / 196) AS INT)", lambda n: n // 196),
        ("1 + step/ 49 - 1e0", lambda n: 1 + n / 49 - 1),
        ("2*step/98", lambda n: 2 * n / 98),
        ("step * -1 / 49", lambda n: -n / 49),
        ("step / (7 * 7)", lambda n: n / 49),
        ("step / 4.9e1", lambda n: n / 49),
        ("step/7/7", lambda n: n / 7 / 7),
        ("(step/7)/(7)", lambda n: n / 7 / 7),
        ("100.0 * (step /* in / out */ / /* of */ 49)", lambda n: 100 * (n / 49)),
        ('samples."step" / CAST(49 AS DOUBLE)', lambda n: n / 49),
        ("CASE WHEN step > 100 THEN step ELSE 49 END / 49", lambda n: (n if n > 100 else 49) / 49),
        ("step / CASE WHEN step > 100 THEN 49 ELSE 98 END", lambda n: n / (49 if n > 100 else 98)),
        ("step / max(step) OVER ()", lambda n: n / 1995),
        ("abs(step - 2000) / 49", lambda n: (2000 - n) / 49),
    ],
)
def test_a_quotient_of_a_column(run: Path, engine: str, sql: str, of: object) -> None:
    found = open_run(run).query(f"SELECT {sql} AS q FROM samples ORDER BY step", engine=engine).data
    assert found["q"].to_list() == [of(n) for n in STEPS]  # type: ignore[operator]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_epochs_of_steps(run: Path, engine: str) -> None:
    sql = (
        "SELECT floor(step/196) AS e, count(*) AS n, min(step) AS low FROM scalars GROUP BY floor(step/196) ORDER BY e"
    )
    found = open_run(run).query(sql, engine=engine).data
    expected = [[n for n in STEPS if n // 196 == e] for e in range(1995 // 196 + 1)]
    assert found.rows() == [(float(e), len(steps), min(steps)) for e, steps in enumerate(expected)]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_quotients_of_counts_and_sums(run: Path, engine: str) -> None:
    n, total = len(STEPS), sum(STEPS)
    sql = "SELECT count(*)/10 AS a, sum(step)/49 AS b, sum(step)/count(*) AS c, 57*1/100 AS d FROM samples"
    assert open_run(run).query(sql, engine=engine).data.row(0) == (n / 10, total / 49, total / n, 0.57)
    sql = "SELECT label, count(*)/49 AS a FROM samples GROUP BY label ORDER BY label"
    counts = [sum(step % 3 == label for step in STEPS) for label in range(3)]
    assert open_run(run).query(sql, engine=engine).data["a"].to_list() == [count / 49 for count in counts]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("step/49 = 1", lambda n: n / 49 == 1),
        ("step/100 > 0.7", lambda n: n / 100 > 0.7),
        ("floor(step/196) = 1", lambda n: n // 196 == 1),
        ("NOT step/49 < 1 AND step/ 49 <= 3", lambda n: 1 <= n / 49 <= 3),
        ("step/49 BETWEEN 1 AND 2", lambda n: 1 <= n / 49 <= 2),
    ],
)
def test_a_condition_of_quotients(run: Path, where: str, kept: object) -> None:
    expected = {n for n in STEPS if kept(n)}  # type: ignore[operator]
    found = open_run(run).samples(where=where, max=999, min=0).data
    assert set(found["sample_id"]) == expected
    sql = f"SELECT step FROM samples WHERE {where}"
    assert set(open_run(run).query(sql).data["step"]) == expected


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    ("sql", "digits", "of"),
    [
        ("round(step/4)", "1", lambda n: Decimal(n) / 4),
        ("round(-step/2.0)", "1", lambda n: -Decimal(n) / 2),
        ("round(step / 4, 0)", "1", lambda n: Decimal(n) / 4),
        ("round(abs(step - 1000) / 8, 2)", "0.01", lambda n: abs(Decimal(n) - 1000) / 8),
        ("round(loss, 1)", "0.1", lambda n: Decimal(n) / 8),
        ("1 + round( (step*0.25), 1) - 1", "0.1", lambda n: Decimal(n) / 4),
        ("round(round(step / 8, 1) / 2)", "1", lambda n: rounded(Decimal(n) / 8, "0.1") / 2),
    ],
)
def test_what_lies_halfway_is_rounded_away_from_zero(run: Path, engine: str, sql: str, digits: str, of: object) -> None:
    found = open_run(run).query(f"SELECT {sql} AS r FROM samples ORDER BY step", engine=engine).data["r"]
    expected = [float(rounded(of(n), digits)) for n in STEPS]  # type: ignore[operator]
    assert found.to_list() == pytest.approx(expected, rel=1e-6 if "loss" in sql else 1e-12)


def rounded(value: Decimal, digits: str) -> Decimal:
    """Half away from zero."""
    return value.quantize(Decimal(digits), ROUND_HALF_UP)


@pytest.mark.parametrize("by", ["round(loss)", "round(step/8)"])
def test_rows_by_what_is_rounded(run: Path, by: str) -> None:
    expected = Counter(int(rounded(Decimal(step) / 8, "1")) for step in STEPS)
    for engine in ("polars", "duckdb"):
        found = open_run(run).query(
            f"SELECT {by} AS r, count(*) AS n FROM samples GROUP BY {by} ORDER BY r", engine=engine
        )
        assert dict(found.data.rows()) == expected
    kept = open_run(run).samples(where=f"{by} = 3", max=999, min=0).data["sample_id"]
    assert set(kept) == {step for step in STEPS if rounded(Decimal(step) / 8, "1") == 3}


def test_numbers_without_a_half_are_rounded_as_before() -> None:
    odd = [0.49999999999999994, 4503599627370497.0, 1e300, math.inf, math.nan, None, -0.3, 2.5]
    frame = pl.DataFrame({"x": odd, "n": range(8)})
    found = frame.select(
        pl.sql_expr(for_polars("round(x) AS x", condition=True)),
        pl.sql_expr(for_polars("round(n) AS n", condition=True)),
    )
    expected = [0.0, 4503599627370497.0, 1e300, math.inf, math.nan, None, 0.0, 3.0]
    assert [None if x is None else str(x + 0.0) for x in found["x"]] == [
        None if x is None else str(x) for x in expected
    ]
    assert (found["n"].dtype, found["n"].to_list()) == (pl.Int64, list(range(8)))


def test_nothing_but_the_quotient_is_changed() -> None:
    odd = [1.5, None, math.inf, -math.inf, -7.25, -0.0]
    frame = pl.DataFrame({"x": pl.Series(odd, dtype=pl.Float32)})
    for by in (4, 0, -8):
        found = frame.select(pl.sql_expr(for_polars(f"x / {by} AS q", condition=True)))["q"]
        assert found.dtype == pl.Float32
        expected = [None if x is None else math.nan if x == by == 0 else x / by if by else x * math.inf for x in odd]
        assert [str(x) for x in found.to_list()] == [str(x) for x in expected]


def test_a_condition_that_divides_is_of_one_row() -> None:
    where = Where.of("loss / 49 > 1", {"loss": pl.Float32()})
    assert where.columns == ("loss",)
