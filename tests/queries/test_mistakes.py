"""SQL that says something else than it seems to is refused with what was meant; the rest is answered as Python does."""

from __future__ import annotations

import datetime
import itertools
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Xai
from xaicli import Run, XaiError
from xaicli.api import RunReader, open_run

ENGINES = ("polars", "duckdb")
FIRST = datetime.date(2026, 1, 10)
FEBRUARY = datetime.date(2026, 2, 1)
START = datetime.datetime(2026, 1, 10, 9, 30)


class Row(NamedTuple):
    n: int
    label: int
    prediction: int
    correct: bool
    loss: float
    day: datetime.date | None
    made: datetime.date
    seen: datetime.datetime
    flag: bool | None
    text: str


ROWS = [
    Row(
        n=n,
        label=n % 4,
        prediction=(n // 2) % 4,
        correct=n % 4 == (n // 2) % 4,
        loss=n / 4,
        day=None if n == 5 else FIRST + datetime.timedelta(days=3 * n),
        made=FIRST - datetime.timedelta(days=n % 3),
        seen=START + datetime.timedelta(hours=7 * n),
        flag=None if n == 2 else n % 3 == 0,
        text=["9", "10", "b"][n % 3],
    )
    for n in range(16)
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    root = tmp_path_factory.mktemp("mistakes") / "run"
    with Run(root) as recorded:
        ids = [row.n for row in ROWS]
        of_samples = {name: [getattr(row, name) for row in ROWS] for name in ("label", "prediction", "correct", "loss")}
        recorded.log_samples(sample_id=ids, mode="eval", epoch=1, step=1, **of_samples)
        recorded.log_facts(
            ids, **{k: [getattr(row, k) for row in ROWS] for k in ("day", "made", "seen", "flag", "text")}
        )
    return open_run(root)


def picked(run: RunReader, where: str) -> list[int]:
    return sorted(run.samples(where=where, max=99, min=0).data["sample_id"])


BESIDE = (
    "(SELECT s.sample_id AS n, label, prediction, correct, loss, day, made, seen, flag, text "
    "FROM samples s JOIN facts f ON s.sample_id = f.sample_id) AS t"
)


def queried(run: RunReader, where: str, engine: str) -> list[int]:
    return run.query(f"SELECT n FROM {BESIDE} WHERE {where} ORDER BY n", engine=engine).data["n"].to_list()


MEANT: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "3 <= sample_id <= 5": ("sample_id BETWEEN 3 AND 5", lambda r: 3 <= r.n <= 5),
    "5 >= sample_id >= 3": ("sample_id BETWEEN 3 AND 5", lambda r: 3 <= r.n <= 5),
    "1 < loss < 2": ("1 < loss AND loss < 2", lambda r: 1 < r.loss < 2),
    "label = prediction = 2": ("label = prediction AND prediction = 2", lambda r: r.label == r.prediction == 2),
    "NOT 1 < loss < 2": ("NOT (1 < loss AND loss < 2)", lambda r: not 1 < r.loss < 2),
    "correct AND 1 < loss <= 3": ("correct AND (1 < loss AND loss <= 3)", lambda r: r.correct and 1 < r.loss <= 3),
    "(1 < loss < 2) OR label = 0": ("(1 < loss AND loss < 2) OR label = 0", lambda r: 1 < r.loss < 2 or r.label == 0),
    "label == 3 & prediction == 1": ("label = 3 AND prediction = 1", lambda r: r.label == 3 and r.prediction == 1),
    "label = 3 | label = 1": ("label = 3 OR label = 1", lambda r: r.label in (1, 3)),
    "label = 3 & prediction = 1 | loss > 3": (
        "label = 3 AND prediction = 1 OR loss > 3",
        lambda r: (r.label == 3 and r.prediction == 1) or r.loss > 3,
    ),
    "loss > 1 & correct": ("loss > 1 AND correct", lambda r: r.loss > 1 and r.correct),
    "correct & loss > 1": ("correct AND loss > 1", lambda r: r.correct and r.loss > 1),
    "loss > 1 && correct": ("loss > 1 AND correct", lambda r: r.loss > 1 and r.correct),
    "loss > 3 || correct": ("loss > 3 OR correct", lambda r: r.loss > 3 or r.correct),
    "loss > 1 = correct": ("(loss > 1) = correct", lambda r: (r.loss > 1) == r.correct),
    "correct = loss > 1": ("correct = (loss > 1)", lambda r: (r.loss > 1) == r.correct),
    "~correct": ("NOT correct", lambda r: not r.correct),
}


@pytest.mark.parametrize("typed", MEANT)
def test_what_is_refused_is_answered_as_it_was_meant(run: RunReader, typed: str) -> None:
    """The hint is a condition that picks the rows; nothing is answered in the other way, by any engine or command."""
    meant, holds = MEANT[typed]
    kept = [row.n for row in ROWS if holds(row)]
    asked: list[Callable[[], object]] = [
        lambda: run.samples(where=typed),
        lambda: run.labels(where=typed, engine="duckdb"),
        lambda: run.select(rule=typed, n=3),
    ]
    for question in asked:
        with pytest.raises(XaiError) as refused:
            question()
        assert (refused.value.exit_status, refused.value.hint) == (2, meant)
    with pytest.raises(XaiError):
        queried(run, typed.replace("sample_id", "n"), "polars")
    assert picked(run, meant) == kept
    for engine in ENGINES:
        assert queried(run, meant.replace("sample_id", "n"), engine) == kept


ANSWERED: dict[str, Callable[[Row], Any]] = {
    "correct = 1": lambda r: r.correct,
    "(loss > 1) = correct": lambda r: (r.loss > 1) == r.correct,
    "label IN (1, 2) = correct": lambda r: (r.label in (1, 2)) == r.correct,
    "loss BETWEEN 1 AND 2 = correct": lambda r: (1 <= r.loss <= 2) == r.correct,
    "flag IS NULL = correct": lambda r: (r.flag is None) == r.correct,
    "NOT label = 1": lambda r: r.label != 1,
    "NOT flag OR correct": lambda r: r.correct or r.flag is False,
    "label IN [1, 3]": lambda r: r.label in (1, 3),
    "loss ** 2 > 4": lambda r: r.loss**2 > 4,
    "-label ^ 2 = 4": lambda r: r.label == 2,
    "label & 1 = 1": lambda r: r.label % 2 == 1,
    "label | 1 = 3": lambda r: r.label in (2, 3),
    "text || label = 'b2'": lambda r: f"{r.text}{r.label}" == "b2",
    "text = '9' AND loss > 1": lambda r: r.text == "9" and r.loss > 1,
    "CASE WHEN flag THEN label > 1 ELSE label < 1 END": lambda r: r.label > 1 if r.flag else r.label < 1,
    "day - made > 20": lambda r: r.day and (r.day - r.made).days > 20,
    "20 < day - made": lambda r: r.day and (r.day - r.made).days > 20,
    "(day - made) > INTERVAL '20 days'": lambda r: r.day and (r.day - r.made).days > 20,
    "INTERVAL '10 days' <= day - made AND loss > 1": lambda r: r.loss > 1 and r.day and (r.day - r.made).days >= 10,
    "day - made BETWEEN INTERVAL '9 days' AND INTERVAL '20 days'": lambda r: r.day and 9 <= (r.day - r.made).days <= 20,
    "(day - made) / 2 > 10": lambda r: r.day and (r.day - r.made).days > 20,
    "-(day - made) BETWEEN -20 AND -10": lambda r: r.day and 10 <= (r.day - r.made).days <= 20,
    "day - DATE '2026-01-01' IN (9, 12)": lambda r: r.day and (r.day - datetime.date(2026, 1, 1)).days in (9, 12),
    "coalesce(day, made) - made < 7": lambda r: ((r.day or r.made) - r.made).days < 7,
    "CAST(day AS DATE) - least(made, day) = 0": lambda r: r.day and r.day <= r.made,
    "CAST(seen AS DATE) - made > 2": lambda r: (r.seen.date() - r.made).days > 2,
    "day > made + 20": lambda r: r.day and r.day > r.made + datetime.timedelta(days=20),
    "day > made + INTERVAL '12 hours'": lambda r: r.day and r.day > r.made,
    "seen - TIMESTAMP '2026-01-10 00:00:00' > INTERVAL '30 hours'": lambda r: r.n * 7 + 9.5 > 30,
    "seen - made < INTERVAL '2 days'": lambda r: r.seen - datetime.datetime.combine(
        r.made, datetime.time()
    ) < datetime.timedelta(2),
    "day > '2026-01-25'": lambda r: r.day and r.day > datetime.date(2026, 1, 25),
    "day NOT BETWEEN '2026-01-16' AND '2026-01-25'": lambda r: r.day
    and not datetime.date(2026, 1, 16) <= r.day <= datetime.date(2026, 1, 25),
    "'2026-01-13' = day": lambda r: r.n == 1,
    "day IN ('2026-01-13', '2026-01-16')": lambda r: r.n in (1, 2),
    "seen >= '2026-01-11'": lambda r: r.seen >= datetime.datetime(2026, 1, 11),
    "seen < '2026-01-11 06:30'": lambda r: r.seen < datetime.datetime(2026, 1, 11, 6, 30),
    "CAST(seen AS TEXT) LIKE '% 09:30:00'": lambda r: (r.seen.hour, r.seen.minute) == (9, 30),
    "seen || '' = '2026-01-10 16:30:00'": lambda r: r.n == 1,
    "EXTRACT(epoch FROM seen) - EXTRACT(epoch FROM made) > 86400": lambda r: r.seen
    - datetime.datetime.combine(r.made, datetime.time()) > datetime.timedelta(days=1),
    "CAST(label AS TINYINT) * 100 > 150": lambda r: r.label > 1,
    "CAST(label AS INT) * 1500000000 > 3000000000": lambda r: r.label > 2,
}  # fmt: skip


OF_POLARS = ("TINYINT", "CAST(label AS INT)", "10 days", "20 days")


@pytest.mark.parametrize("condition", ANSWERED)
def test_what_is_no_mistake_is_answered(run: RunReader, condition: str) -> None:
    """By both engines, but for what outgrows a small number, and days beside intervals, which DuckDB refuses."""
    kept = [row.n for row in ROWS if ANSWERED[condition](row)]
    assert picked(run, condition) == kept
    assert queried(run, condition, "polars") == kept
    if not any(alone in condition for alone in OF_POLARS):
        assert queried(run, condition, "duckdb") == kept


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("day > 20000", "day is a date, and is compared with a number"),
        ("seen - TIMESTAMP '2026-01-10 00:00:00' > 5", "is a time between two, and is compared with a number"),
        ("CAST(day AS INT) > 20000", "day is a date, and none is a number"),
        ("CAST(seen - seen AS BIGINT) > 5", "seen - seen is a time between two, and none is a number"),
        ("CASE WHEN flag THEN day ELSE 0 END > 3", "day is a date, and stands in CASE with a number"),
        ("abs(day - made) > INTERVAL '2 days'", "is a time between two, and is compared with a number"),
        ("nullif(day, 5) = made", "day is a date, and stands in nullif with a number"),
        ("day - '2026-01-01' > 3", "takes a text from a date"),
        ("text = 9", "text is text(, '9' say)?, and is compared with a number"),
        ("text IN (9, 10)", "text is text(, '9' say)?, and is compared with a number"),
        ("text = 9.0", "text is text(, '9' say)?, and is compared with a number"),
        ("lower(text) = 9", "is text, and is compared with a number"),
        ("text = flag", "text is text(, '9' say)?, and is compared with true or false"),
        ("text <> TRUE", "text is text(, '9' say)?, and is compared with true or false"),
        ("text IS NOT TRUE", "text is text(, '9' say)?, and is compared with true or false"),
        ("flag = 'True'", "flag is true or false, and is compared with text"),
        ("flag <> 'yes'", "flag is true or false, and is compared with text"),
        ("'True' = flag", "flag is true or false, and is compared with text"),
        ("flag IN ('True', 'true')", "flag is true or false, and is compared with text"),
        ("NOT flag = 'false'", "flag is true or false, and is compared with text"),
        ("label IS TRUE", "label is a number, and is compared with true or false"),
        ("label = '1'", "label is a number, and is compared with text"),
        ("LABEL = 1", "there is no column LABEL"),
    ],
)
def test_kinds_that_polars_would_mix(run: RunReader, condition: str, said: str) -> None:
    for ask in (picked, lambda run, where: queried(run, where, "polars")):
        with pytest.raises(XaiError, match=said) as refused:
            ask(run, condition)
        assert refused.value.exit_status == 2
        assert refused.value.hint
    if condition == "LABEL = 1":
        assert "did you mean label?" in refused.value.hint


@pytest.mark.parametrize("behind", ["correct", "AS x", "ISNULL", '"loss"'])
def test_what_stands_behind_a_condition_is_none_of_it(run: RunReader, behind: str) -> None:
    """Polars takes it for a name of the condition: `correct ISNULL` would pick who is right."""
    with pytest.raises(XaiError, match="behind the condition is none of it"):
        picked(run, f"label = 1 {behind}")


DAYS = [(row.day - row.made).days for row in ROWS if row.day]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM facts WHERE day - DATE '2026-01-01' > 40", sum(9 + 3 * n > 40 for n in range(16))),
        ("SELECT max(day) - min(day) FROM facts", 45),
        ("SELECT avg(day - made) FROM facts", statistics.mean(DAYS)),
        ("SELECT sum(day - made) FROM facts", sum(DAYS)),
        ("SELECT median(day - made) FROM facts", statistics.median(DAYS)),
        ("SELECT stddev(day - made) FROM facts", statistics.stdev(DAYS)),
        ("SELECT count(DISTINCT day - made) FROM facts", len(set(DAYS))),
        ("SELECT max(d) FROM (SELECT day - made AS d FROM facts) AS t WHERE d < 20", max(d for d in DAYS if d < 20)),
        ("WITH t AS (SELECT day AS d FROM facts) SELECT max(d) - min(d) FROM t", 45),
        ("WITH t(d, e) AS (SELECT max(day), min(made) FROM facts) SELECT d - e FROM t", 47),
        ("SELECT count(*) FROM facts WHERE (SELECT max(day) FROM facts) - day < 7", 3),
        ("SELECT max(x) FROM (SELECT day - lag(day) OVER (ORDER BY sample_id) AS x FROM facts) AS t", 3),
        ("SELECT max(a.day - b.made) FROM facts a JOIN facts b ON a.sample_id = b.sample_id + 2", 46),
        ("SELECT sum(CASE WHEN flag THEN day - made ELSE 0 END) FROM facts",
         sum((r.day - r.made).days for r in ROWS if r.flag and r.day)),
        ("SELECT max(d) FROM (SELECT day - made AS d FROM facts UNION ALL SELECT 99 AS d) AS t", 99),
        ("SELECT count(*) FROM facts WHERE day > '2026-02-01'", sum(r.day > FEBRUARY for r in ROWS if r.day)),
        ("SELECT avg(seen) FROM facts", START + datetime.timedelta(hours=7 * 7.5)),
        ("SELECT max(EXTRACT(epoch FROM seen + INTERVAL '500 milliseconds')) FROM facts",
         (ROWS[-1].seen - datetime.datetime(1970, 1, 1)).total_seconds() + 0.5),
        ("SELECT min(CAST(seen AS TEXT)) FROM facts", "2026-01-10 09:30:00"),
        ("SELECT min(CAST(seen + INTERVAL '250 milliseconds' AS TEXT)) FROM facts", "2026-01-10 09:30:00.25"),
        ("SELECT min(day + INTERVAL '1 day') FROM facts", datetime.datetime(2026, 1, 11)),
        ("SELECT sum(label ** 2) FROM samples", sum(r.label**2 for r in ROWS)),
    ],
)  # fmt: skip
def test_days_between_dates(run: RunReader, engine: str, sql: str, expected: Any) -> None:
    pytest.importorskip(engine)
    found = run.query(sql, engine=engine).data.item()
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(
    ("sql", "said", "hint"),
    [
        ("SELECT label FROM samples WHERE loss > avg(loss)", "before avg(loss)", "(SELECT avg(loss) FROM samples)"),
        ("SELECT label FROM samples WHERE count(*) > 2 GROUP BY label", "before count(*) of them", "HAVING"),
        ("SELECT label FROM samples WHERE row_number() OVER (ORDER BY loss) = 1", "row_number() OVER", "QUALIFY"),
        ("SELECT count(*) FROM facts a JOIN facts b ON max(a.day) = b.day", "before max(a.day)", "(SELECT max(a.day)"),
        ("SELECT -label AS label FROM samples ORDER BY label + 0", "label of ORDER BY", "AS label_2"),
        ("SELECT -loss AS loss FROM samples ORDER BY samples.loss", "loss of ORDER BY", "AS loss_2"),
        ("SELECT 1 AS x WHERE 1 = 2", "WHERE without FROM", "FROM samples"),
        ("SELECT day FROM facts UNION ALL SELECT 5 AS day", "stands in one column with a number", "DATE"),
        ("EXPLAIN SELECT label FROM samples WHERE 1 < loss < 2", "chains comparisons", "1 < loss AND loss < 2"),
    ],
)  # fmt: skip
def test_statements_that_polars_alone_answers(run: RunReader, sql: str, said: str, hint: str) -> None:
    with pytest.raises(XaiError) as refused:
        run.query(sql)
    assert said in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM samples WHERE loss > (SELECT avg(loss) FROM samples)", 8),
        ("SELECT count(*) FROM (SELECT label FROM samples GROUP BY label HAVING count(*) > 2) AS t", 4),
        ("SELECT sample_id FROM samples QUALIFY row_number() OVER (ORDER BY loss) = 1", 0),
        ("SELECT sum(CASE WHEN loss > 1 THEN 1 END) FROM samples WHERE label = 0", 2),
        ("SELECT max(label) FROM samples WHERE epoch = 1", 3),
        ("SELECT min(l) FROM (SELECT -label AS l FROM samples ORDER BY label + 0) AS t", -3),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_hints_of_statements_suggest_is_answered(run: RunReader, engine: str, sql: str, expected: int) -> None:
    pytest.importorskip(engine)
    assert run.query(sql, engine=engine).data.item() == expected


def test_ordinary_conditions_are_not_read() -> None:
    """Cold starts: the library that reads SQL is loaded for no other question."""
    code = (
        "import sys; from xaicli.reader.dialect import for_polars; from xaicli.reader.kinds import Kind\n"
        "columns = {'mode': Kind.TEXT, 'loss': Kind.FRACTION, 'label': Kind.WHOLE, 'taken': Kind.DATE}\n"
        "for sql in (\"mode = 'eval' AND loss > 2\", 'label IN (1, 2) AND NOT loss <= 3 OR (loss > 1 AND label = 3)',\n"
        "            \"SELECT label, count(*) FROM samples WHERE mode = 'eval' AND label <> 3 GROUP BY label\"):\n"
        "    assert for_polars(sql, columns) == sql\n"
        "assert 'sqlglot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_commands_refuse(run: RunReader, xai: Xai) -> None:
    """The command line, with its exit status and both lines."""
    asked = [
        [name, str(run.layout.root), "--where", "1 < loss < 2"]
        for name in ("samples", "labels", "dynamics", "confusion", "findings", "slices", "export")
    ]
    for arguments in itertools.chain(asked, [["relabel", "export", str(run.layout.root), "--rule", "1 < loss < 2"]]):
        status, _, err = xai(*arguments)
        assert status == 2, (arguments, err)
        assert "'1 < loss < 2' chains comparisons" in err
        assert "hint: 1 < loss AND loss < 2" in err


def test_rules_of_check_refuse(run: RunReader, tmp_path: Path, xai: Xai) -> None:
    (tmp_path / "rules.toml").write_text('[[rule]]\nmetric = "loss"\nmost = 9\nwhere = "1 < loss < 2"\n')
    status, out, err = xai("check", run.layout.root, "--rules", tmp_path / "rules.toml")
    assert status == 2
    assert "chains comparisons" in out + err
