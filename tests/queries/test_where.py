"""`--where`: only rows that meet a condition, in every question, as plain Python picks them."""

from __future__ import annotations

import datetime
import html
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli
from tests.written_run import WrittenRun
from xaicli import XaiError
from xaicli.api import open_run

ROWS: list[dict[str, Any]] = [
    {
        "sample_id": sample_id,
        "epoch": epoch,
        "step": 10 * epoch,
        "mode": "eval",
        "label": sample_id % 3,
        "prediction": (sample_id + epoch) % 3,
        "correct": (sample_id + epoch) % 3 == sample_id % 3,
        "loss": round(((7 * sample_id + 3 * epoch) % 11) / 4, 2),
    }
    for epoch, sample_id in itertools.product((1, 2, 3), range(12))
]
CONDITIONS = {
    "loss > 1": lambda row: row["loss"] > 1,
    "label = 1 AND NOT correct": lambda row: row["label"] == 1 and not row["correct"],
    "epoch >= 2 AND mode = 'eval'": lambda row: row["epoch"] >= 2,
    "sample_id IN (3, 4, 5) OR prediction = label": lambda r: (
        r["sample_id"] in (3, 4, 5) or r["prediction"] == r["label"]
    ),
    "sample_id < 4": lambda row: row["sample_id"] < 4,
    "label_name = 'dog' OR prediction_name LIKE 'c%' AND loss / 2 < 0.5": lambda row: (
        row["label"] == 1 or (row["prediction"] in (0, 2) and row["loss"] / 2 < 0.5)
    ),
}
ENGINES = ("polars", "duckdb")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = WrittenRun(tmp_path_factory.mktemp("where") / "run", label_names=("cat", "dog", "cow"))
    written.write(ROWS)
    return written.layout.root


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_samples(run: Path, condition: str, engine: str) -> None:
    answer = open_run(run).samples(max=100, min=0, where=condition, engine=engine).answer
    kept = [row for row in ROWS if CONDITIONS[condition](row)]
    expected = {
        sample_id: [(row["epoch"], row["loss"]) for row in rows]
        for sample_id, rows in itertools.groupby(
            sorted(kept, key=lambda r: (r["sample_id"], r["epoch"])), lambda r: r["sample_id"]
        )
    }
    found = {
        row["sample_id"]: [(point["epoch"], point["value"]) for point in row["history"]]
        for row in answer.data.iter_rows(named=True)
    }
    assert found == expected
    assert answer.counts.rows == len(kept)
    assert answer.selection["where"] == condition


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_labels_and_dynamics(run: Path, condition: str, engine: str) -> None:
    kept = [row for row in ROWS if CONDITIONS[condition](row)]
    of_labels = {
        (row["label"], row["epoch"]): row["n"]
        for row in open_run(run).labels(where=condition, engine=engine).data.to_dicts()
    }
    counted: dict[tuple[int, int], int] = {}
    for row in kept:
        counted[row["label"], row["epoch"]] = counted.get((row["label"], row["epoch"]), 0) + 1
    assert of_labels == counted
    seen = dict(open_run(run).dynamics(where=condition, engine=engine).data.select("sample_id", "n_obs").iter_rows())
    assert seen == {s: sum(row["sample_id"] == s for row in kept) for s in {row["sample_id"] for row in kept}}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_rows_and_export(run: Path, tmp_path: Path, condition: str) -> None:
    kept = sorted((row["sample_id"], row["epoch"]) for row in ROWS if CONDITIONS[condition](row))
    assert sorted(open_run(run).scan(where=condition).select("sample_id", "epoch").collect().rows()) == kept
    open_run(run).export(tmp_path / "x.jsonl", where=condition)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert sorted((line["sample_id"], line["epoch"]) for line in lines) == kept


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("loss >", "cannot be asked"),
        ("nosuch = 1", "nosuch"),
        ("label = 'cat'", "cannot be asked"),
        ("loss", "is no condition"),
        ("max(loss) = loss", "several rows"),
        ("count(*) > 2", "several rows"),
        ("row_number() OVER (ORDER BY loss) = 1", "several rows"),
        ("loss > 1; DROP TABLE x", "cannot be asked"),
    ],
)
def test_what_is_no_condition_is_refused(run: Path, condition: str, said: str) -> None:
    with pytest.raises(XaiError, match=said) as refused:
        open_run(run).samples(where=condition)
    assert refused.value.exit_status == 2
    assert refused.value.hint


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_asked_of_the_row_that_counts(tmp_path: Path, engine: str) -> None:
    """Of a sample that was logged twice the last row counts, whether it meets the condition or not."""
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        for step, loss in ((1, [5.0, 1.0, math.nan]), (2, [1.0, 5.0, 6.0])):
            run.log_samples(sample_id=[0, 1, 2], label=[0, 1, 1], loss=loss, mode="eval", epoch=1, step=step)
        run.log_samples(sample_id=[3], label=[0], loss=[math.inf], mode="eval", epoch=1, step=3)
    asked = {"where": "loss > 2 AND label_name = 'dog'", "engine": engine}
    samples = open_run(tmp_path / "run").samples(max=9, min=0, **asked).answer
    assert samples.data["sample_id"].to_list() == [2, 1]
    assert [point["step"] for history in samples.data["history"] for point in history] == [3, 3]
    assert (samples.counts.rows, samples.counts.duplicates, samples.counts.non_finite) == (2, 3, 0)
    everyone = open_run(tmp_path / "run").labels(duplicates="all", where="loss > 2", engine=engine).answer
    assert everyone.data.select("label", "n", "mean").rows() == [(0, 1, 5.0), (1, 2, 5.5)]
    assert everyone.counts.non_finite == 2  # infinity is more than 2, and NaN is more than any number
    none = open_run(tmp_path / "run").labels(where="loss > 99 AND label = 7", engine=engine)
    assert none.data.height == 0


def order(value: float) -> tuple[bool, float]:
    """Where a number stands among others in SQL, as PostgreSQL, DuckDB, Spark and polars have it: NaN above all."""
    return (math.isnan(value), 0.0 if math.isnan(value) else value)


ODD: list[float | None] = [0.5, 2.0, math.nan, math.inf, -math.inf, None]
OF_ODD: dict[str, Callable[[tuple[bool, float]], bool]] = {
    "loss > 1": lambda at: at > order(1),
    "loss < 1": lambda at: at < order(1),
    "loss >= 2": lambda at: at >= order(2),
    "NOT loss > 1": lambda at: not at > order(1),
    "NOT (loss <= 1)": lambda at: not at <= order(1),
    "loss <> 2": lambda at: at != order(2),
    "loss = loss": lambda _: True,
    "loss BETWEEN 0 AND 9": lambda at: order(0) <= at <= order(9),
    "loss - loss = 0": lambda at: not at[0] and math.isfinite(at[1]),
    "loss = CAST('nan' AS REAL)": lambda at: at[0],
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("condition", OF_ODD)
def test_nan_is_above_every_number_as_in_sql(tmp_path: Path, condition: str, engine: str) -> None:
    """For every engine, and in `xai query` by either; null meets nothing."""
    with xaicli.Run(tmp_path / "run") as recorded:
        ids = range(len(ODD))
        recorded.log_samples(sample_id=ids, label=[i % 2 for i in ids], loss=ODD, mode="eval", epoch=1, step=1)
    kept = [i for i, value in enumerate(ODD) if value is not None and OF_ODD[condition](order(value))]
    run = open_run(tmp_path / "run")
    assert sorted(run.scan(where=condition).collect()["sample_id"]) == kept
    sql = f"SELECT sample_id FROM samples WHERE {condition} ORDER BY sample_id"
    assert run.query(sql, engine=engine).data["sample_id"].to_list() == kept
    counts = run.labels(where=condition, engine=engine).answer.counts
    assert (counts.rows, counts.non_finite) == (len(kept), sum(not math.isfinite(ODD[i] or 0) for i in kept))


def test_a_date_is_written_as_one(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
        recorded.log_facts([1, 2], day=[datetime.date(2026, 1, 20), datetime.date(2026, 1, 21)])
    run = open_run(tmp_path / "run")
    for of_both in ("day > DATE '2026-01-20'", "day > '2026-01-20'", "'2026-01-20' < day", "day IN ('2026-01-21')"):
        assert run.labels(where=of_both).data["label"].to_list() == [1], of_both
    with pytest.raises(XaiError) as refused:
        run.labels(where="day > '20 Jan 2026'")
    assert refused.value.hint == "a date is written DATE '2026-01-31'"


KINDS = {
    "taken > DATE '2026-01-20'": (
        "taken is text, '20 Jan 2026' say, and is compared with a date",
        "compare it with text, taken > '2026-01-31', or, where each is such a date, DATE(taken)",
    ),
    "taken IN (DATE '2026-01-20')": (
        "taken is text, '20 Jan 2026' say, and is compared with a date",
        "compare it with text, taken > '2026-01-31', or, where each is such a date, DATE(taken)",
    ),
    "label = 1 AND taken <= TIMESTAMP '2026-01-20 00:00:00'": (
        "taken is text, '20 Jan 2026' say, and is compared with a time",
        "compare it with text, taken > '2026-01-31', or, where each is such a date, DATE(taken)",
    ),
    '"the place" > 5': (
        "the place is text, 'north' say, and is compared with a number",
        'a text is written in quotes: "the place" = \'5\'; TRY_CAST("the place" AS DOUBLE) is its number',
    ),
    "age = '60'": ("age is a number, and is compared with text", "a number is written without quotes: age = 5"),
    "age IN ('60', '61')": (
        "age is a number, and is compared with text",
        "a number is written without quotes: age = 5",
    ),
    "NOT age BETWEEN '1' AND '6'": (
        "age is a number, and is compared with text",
        "a number is written without quotes: age = 5",
    ),
    "day IN ('2026')": ("day is a date, and is compared with text", "a date is written DATE '2026-01-31'"),
    "day = '2026'": ("day is a date, and is compared with text", "a date is written DATE '2026-01-31'"),
    "day LIKE '2026%'": ("day is a date, and only texts are asked so", "CAST(day AS TEXT) is it as text"),
    "age NOT ILIKE '6%'": ("age is a number, and only texts are asked so", "CAST(age AS TEXT) is it as text"),
    "age * 2 = '60'": (
        "what is made of age is a number, and is compared with text",
        "a number is written without quotes: age = 5",
    ),
}


@pytest.mark.parametrize("condition", KINDS)
def test_what_cannot_be_compared_is_told_by_its_kinds(tmp_path: Path, condition: str) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
        facts = {"taken": ["20 Jan 2026", "x"], "the place": ["north", "south"], "age": [59, 60]}
        recorded.log_facts([1, 2], day=[datetime.date(2026, 1, 20), datetime.date(2026, 1, 21)], **facts)
    run = open_run(tmp_path / "run")
    with pytest.raises(XaiError) as refused:
        run.labels(where=condition)
    said, hint = KINDS[condition]
    assert (refused.value.message, refused.value.hint) == (f"--where {condition!r} cannot be asked: {said}", hint)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_what_hints_of_kinds_suggest_is_answered(tmp_path: Path, engine: str) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
        days = [datetime.date(2026, 1, 20), datetime.date(2025, 1, 21)]
        recorded.log_facts([1, 2], day=days, taken=["2026-01-20", "2025-01-21"], size=["7", "large"], age=[59, 160])
    run = open_run(tmp_path / "run")
    for condition in (
        "DATE(taken) > DATE '2026-01-19'",
        "TRY_CAST(size AS DOUBLE) = 7",
        "CAST(day AS TEXT) LIKE '2026%'",
        "CAST(age AS TEXT) LIKE '5%'",
        "taken > '2025-12-31'",
    ):
        assert run.labels(where=condition, engine=engine).data["label"].to_list() == [0], condition


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "condition",
    [
        "day > 3",
        "20473 = day",
        "day BETWEEN 1 AND 3",
        "NOT day < 3 OR label = 1",
        "seen >= 5.5",
        "seen - TIMESTAMP '2026-01-19 00:00:00' > 1",
        "CASE WHEN day > 3 THEN true ELSE false END",
    ],
)
def test_a_date_is_no_number(tmp_path: Path, condition: str, engine: str) -> None:
    """Polars would compare the days, or microseconds, since 1970; no other SQL has such a number."""
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
        days = [datetime.date(2026, 1, 20), datetime.date(2026, 1, 21)]
        recorded.log_facts([1, 2], day=days, seen=[datetime.datetime(2026, 1, day.day, 9) for day in days])
    run = open_run(tmp_path / "run")
    with pytest.raises(
        XaiError, match=r"is a (?:date|time)(?: between two)?, and is compared with a number"
    ) as refused:
        run.labels(where=condition, engine=engine)
    assert refused.value.exit_status == 2
    between = "day - DATE '2026-01-19' > INTERVAL '1 day' AND label < 3"
    assert run.labels(where=between, engine=engine).data["label"].to_list() == [1]


def test_what_nothing_meets_is_said_to_be_the_selection(run: Path) -> None:
    opened = open_run(run)
    assert "the selection leaves nothing" in str(opened.labels(where="loss < -1"))
    with pytest.raises(XaiError) as refused:
        opened.confusion(where="loss < -1")
    assert "--where 'loss < -1'" in refused.value.hint


@pytest.mark.parametrize("engine", ENGINES)
def test_a_value_that_cannot_be_cast_is_the_conditions_fault(tmp_path: Path, engine: str) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        recorded.log_samples(sample_id=[1, 2, 3], label=[0, 1, 2], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1, step=1)
        recorded.log_facts([1, 2, 3], size=["7", "12", "large"])
        recorded.add_metrics_data({"sample_id": [1, 2], "iou": [0.5, 0.75], "size": ["7", "large"]}, name="boxes")
    run = open_run(tmp_path / "run")
    assert run.labels(where="TRY_CAST(size AS INT) > 8", engine=engine).data["label"].to_list() == [1]
    asked: list[Callable[[], object]] = [
        lambda: run.labels(where="CAST(size AS INT) > 8", engine=engine),
        lambda: run.samples(where="CAST(size AS INT) > 8", engine=engine),
        lambda: run.samples(table="boxes", metric="iou", where="CAST(size AS INT) > 8"),
        lambda: run.export(tmp_path / "out.csv", where="CAST(size AS INT) > 8"),
        lambda: run.select(rule="CAST(size AS INT) > 8", n=1),
    ]
    for question in asked:
        with pytest.raises(XaiError, match=r"CAST\(size AS INT\) > 8' cannot be asked: .*'large'|\"large\"") as refused:
            question()
        assert refused.value.exit_status == 2
        assert "TRY_CAST" in str(refused.value.hint)
    assert not (tmp_path / "out.csv").exists()


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples: train in epochs 1 to 3, eval x in 1 and 2, eval y in 2 and 3, test in 3 alone."""
    root = tmp_path_factory.mktemp("parted") / "run"
    with xaicli.Run(root) as recorded:
        for mode, ds_id, epochs in (
            ("train", "", (1, 2, 3)),
            ("eval", "x", (1, 2)),
            ("eval", "y", (2, 3)),
            ("test", "", (3,)),
        ):
            for epoch in epochs:
                recorded.log_samples(
                    sample_id=[1, 2], label=[0, 1], loss=[0.5 + epoch, 1.5], mode=mode, ds_id=ds_id, epoch=epoch
                )
    return root


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("options", "left", "said"),
    [
        (
            {"mode": "train,test", "epoch": "1-2"},
            {("train", "")},
            ["test is left out: --epoch 1-2 takes none of its epochs, 3"],
        ),
        (
            {"ds_id": "x,y", "epoch": 1},
            {("eval", "x")},
            ["eval y is left out: --epoch 1 takes none of its epochs, 2-3"],
        ),
        (
            {"mode": "train,test,eval", "epoch_frequency": 2},
            {("train", ""), ("eval", "x"), ("eval", "y")},
            ["test is left out: --epoch-frequency 2 takes none of its epochs, 3"],
        ),
        (
            {"mode": "train,test", "where": "epoch < 3"},
            {("train", "")},
            ["test is left out: none of its rows meets --where 'epoch < 3'"],
        ),
        (
            {"ds_id": "x,y", "where": "loss > 2.4", "epoch": "1,2"},
            {("eval", "x"), ("eval", "y")},
            [],
        ),
        (
            {"ds_id": "x,y", "where": "loss > 2.4", "epoch": "1,3"},
            {("eval", "y")},
            ["eval x is left out: none of its rows at the epochs selected meets --where 'loss > 2.4'"],
        ),
        ({"mode": "train,test", "epoch": "last"}, {("train", ""), ("test", "")}, []),
    ],
)
def test_what_an_option_empties_is_named(
    parted: Path, options: dict[str, Any], left: set[tuple[str, str]], said: list[str], engine: str
) -> None:
    opened = open_run(parted)
    for question in (opened.labels, opened.samples):
        found = question(engine=engine, **options)
        assert set(found.data.select("mode", "ds_id").rows()) == left
        assert [warning for warning in found.answer.warnings if "left out: " in warning] == said
        page = html.unescape(found.html())
        assert all(warning in page for warning in said)


@pytest.fixture(scope="module")
def two_modes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, n = tmp_path_factory.mktemp("modes") / "run", 80
    rng, label = np.random.default_rng(2), np.arange(n) % 4
    with xaicli.Run(path, keep_probs=True) as run:
        for epoch in range(1, 5):
            for mode in ("train", "eval"):
                logits = rng.normal(0, 1, (n, 4))
                logits[np.arange(n), (label + (np.arange(n) < 8)) % 4] += 3
                for part in (slice(0, 40), slice(40, n)):
                    step = 2 * epoch + part.start // 40
                    known = {"sample_id": np.arange(n)[part], "label": label[part], "logits": logits[part]}
                    run.log_samples(**known, mode=mode, epoch=epoch, step=step)
    return path


_OF_MODES: dict[str, dict[str, object]] = {
    name: {} for name in ("samples", "labels", "dynamics", "findings", "slices", "confusion", "steps", "report")
} | {"select": {"rule": "hardest", "n": 5}}


@pytest.mark.parametrize("question", _OF_MODES)
def test_a_mode_that_a_condition_empties_is_left_out_and_said_once(two_modes: Path, question: str) -> None:
    """The answer is that of the other mode alone, whatever is asked."""
    run, how = xaicli.open_run(two_modes), _OF_MODES[question]
    both = json.loads(getattr(run, question)(mode="all", where="mode = 'train'", **how).to_json())
    alone = json.loads(getattr(run, question)(mode="train", where="mode = 'train'", **how).to_json())
    said = "eval is left out: none of its rows meets --where \"mode = 'train'\""
    assert both.pop("warnings") == [said, *alone.pop("warnings")]
    assert both == alone


def test_slices_of_a_condition_that_no_row_meets(two_modes: Path) -> None:
    with pytest.raises(XaiError, match="no row of train meets --where 'epoch > 99'"):
        xaicli.open_run(two_modes).slices(mode="all", where="epoch > 99")


def recorded_in_passes(root: Path, n_epochs: int, shift: float) -> tuple[Path, list[dict[str, Any]]]:
    """Three passes an epoch over nine samples of three labels; the last pass of the last epoch has four of them."""
    rows = []
    with xaicli.Run(root, task="classification") as run:
        for epoch, turn in itertools.product(range(1, n_epochs + 1), range(3)):
            ids = list(range(4 if (epoch, turn) == (n_epochs, 2) else 9))
            losses = [shift + ((7 * i + 3 * epoch + 5 * turn) % 11) / 4 for i in ids]
            labels = [i // 3 for i in ids]
            run.log_samples(
                sample_id=ids, label=labels, prediction=[(i + turn) % 3 for i in ids], loss=losses, mode="eval",
                epoch=epoch, step=10 * epoch + turn, eval_pass=turn,
            )  # fmt: skip
            rows += [
                {"sample_id": i, "epoch": epoch, "pass": turn, "step": 10 * epoch + turn, "label": label, "loss": loss}
                for i, label, loss in zip(ids, labels, losses, strict=True)
            ]
    return root, rows


@pytest.fixture(scope="module")
def in_passes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, list[dict[str, Any]]]]:
    """Two runs of different lengths."""
    root = tmp_path_factory.mktemp("passes")
    return [recorded_in_passes(root / "a", 4, 0.0), recorded_in_passes(root / "b", 3, 1.0)]


EMPTYING: dict[str, Callable[[dict[str, Any]], bool]] = {
    "pass = 0": lambda row: row["pass"] == 0,
    "pass = 1": lambda row: row["pass"] == 1,
    "pass < 2": lambda row: row["pass"] < 2,
    "epoch < 3": lambda row: row["epoch"] < 3,
    "step < 32": lambda row: row["step"] < 32,
    "sample_id > 5": lambda row: row["sample_id"] > 5,
    "label = 2 AND epoch < 3": lambda row: row["label"] == 2 and row["epoch"] < 3,
    "loss >= 0": lambda row: row["loss"] >= 0,
}
"""Conditions that leave nothing of the last pass or epochs, and one that leaves all."""


def at_the_end(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max((row["epoch"], row["pass"]) for row in rows)
    return [row for row in rows if (row["epoch"], row["pass"]) == last]


def mean(rows: list[dict[str, Any]]) -> float | None:
    return pytest.approx(sum(row["loss"] for row in rows) / len(rows)) if rows else None


@pytest.mark.parametrize("condition", EMPTYING)
def test_runs_are_compared_at_the_last_place_a_condition_leaves(
    in_passes: list[tuple[Path, list[dict[str, Any]]]], condition: str
) -> None:
    ends = [at_the_end([row for row in rows if EMPTYING[condition](row)]) for _, rows in in_passes]
    told = xaicli.compare(*(root for root, _ in in_passes), where=condition, max=0, min=0).data.to_dicts()
    assert [row["values"] for row in told if row["kind"] == "metric"] == [[mean(end) for end in ends]]
    of_labels = {row["label"]: row["values"] for row in told if row["kind"] == "label"}
    known = sorted({row["label"] for end in ends for row in end})
    assert of_labels == {
        label: [mean([row for row in end if row["label"] == label]) for end in ends] for label in known
    }


def test_labels_of_a_map_are_compared_at_their_own_last_place(
    in_passes: list[tuple[Path, list[dict[str, Any]]]],
) -> None:
    ends = [at_the_end([row for row in rows if row["label"] == 2]) for _, rows in in_passes]
    told = xaicli.compare(*(root for root, _ in in_passes), label_map={"two": 2}, max=0, min=0).data.to_dicts()
    assert [row["values"] for row in told if row["kind"] in ("metric", "label")] == [[mean(end) for end in ends]] * 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("condition", EMPTYING)
def test_stale_is_who_is_absent_from_the_last_epoch_a_condition_leaves(
    in_passes: list[tuple[Path, list[dict[str, Any]]]], condition: str, engine: str
) -> None:
    root, rows = in_passes[0]
    kept = [row for row in rows if EMPTYING[condition](row)]
    last = max(row["epoch"] for row in kept)
    latest = {row["sample_id"]: row for row in kept}  # they are in the order of places
    result = open_run(root).samples(max=100, min=0, where=condition, engine=engine)
    assert {r["sample_id"]: (r["score"], r["stale"]) for r in result.data.to_dicts()} == {
        sample_id: (pytest.approx(row["loss"]), row["epoch"] != last) for sample_id, row in latest.items()
    }
    assert result.answer.counts.stale == sum(row["epoch"] != last for row in latest.values())
    ended = open_run(root).labels(where=condition, engine=engine).data["epoch"].max()
    confused = json.loads(open_run(root).confusion(where=condition).to_json())["rows"]
    assert ended == last == max(row["epoch"] for row in confused)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_number_equals_the_label_of_single_precision_that_it_rounds_to(tmp_path: Path, engine: str) -> None:
    """As `--truth` and corrections have it; labels of double precision equal themselves alone."""
    labels = [-0.2, 0.1, 0.2, 0.25, 0.3, 0.7]
    asked: dict[str, Callable[[float], bool]] = {
        "label = 0.2": lambda y: y == 0.2,
        "label <> 0.2 AND 0.3 <> label": lambda y: y not in (0.2, 0.3),
        "label > 0.2": lambda y: y > 0.2,
        "0.7 > label": lambda y: y < 0.7,
        "label >= (0.2)": lambda y: y >= 0.2,
        "label < -0.2 OR label <= -0.2": lambda y: y <= -0.2,
        "label BETWEEN 0.1 AND 0.3": lambda y: 0.1 <= y <= 0.3,
        "label IN (0.1, 7e-1)": lambda y: y in (0.1, 0.7),
        "NOT prediction IN (0.2, 0.25)": lambda y: y not in (0.2, 0.25),
    }
    for kind in (np.float32, np.float64):
        root, values = tmp_path / kind.__name__, np.array(labels, kind)
        with xaicli.Run(root, task="regression") as recorded:
            recorded.log_samples(sample_id=range(6), label=values, prediction=values, mode="eval", epoch=1, step=1)
        run = open_run(root)
        for where, holds in asked.items():
            found = run.samples(where=where, metric="abs_error", max=9, min=0, engine=engine).data["sample_id"]
            assert sorted(found) == [n for n, y in enumerate(labels) if holds(y)], (kind, where)


@pytest.mark.parametrize("question", ["samples", "labels", "dynamics", "confusion", "findings"])
@pytest.mark.parametrize(
    ("where", "epoch"),
    [("epoch >= 2", "2-3"), ("epoch IN (1, 3)", "1,3"), ("epoch < 3", "1-2"), ("sample_id >= 0 AND epoch>=2", "2-3")],
)
def test_a_condition_on_epochs_is_the_option(run: Path, question: str, where: str, epoch: str) -> None:
    """Rows, and the epochs that the answer says it is of."""
    asked, meant = (
        getattr(open_run(run), question)(**select).answer for select in ({"where": where}, {"epoch": epoch})
    )
    assert asked.selection["epoch"] == meant.selection["epoch"]
    assert asked.data.equals(meant.data)
    assert asked.counts == meant.counts


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six samples at two epochs; those of the second were logged again in the same pass, with a loss 100 higher."""
    root = tmp_path_factory.mktemp("repeated") / "run"
    ids = np.arange(6)
    with xaicli.Run(root) as recorded:
        for step, (epoch, more) in enumerate([(1, 1.0), (2, 2.0), (2, 102.0)], start=1):
            values = {"label": ids % 2, "prediction": ids % 2, "loss": ids + more}
            recorded.log_samples(sample_id=ids, **values, mode="eval", epoch=epoch, step=step, eval_pass=0)
    return root


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("where", ["loss < 50", "step < 3", "loss < 50 AND epoch > 0"])
def test_the_last_epoch_is_of_rows_that_count(repeated: Path, where: str, engine: str) -> None:
    """What only a superseded row meets is none: the condition leaves epoch 1, of which no sample is stale."""
    pytest.importorskip(engine)
    run = open_run(repeated)
    for complete_only in (False, True):
        found = run.samples(where=where, max=9, min=0, complete_only=complete_only, engine=engine)
        assert found.data["stale"].to_list() == [False] * 6
        assert [[(at["epoch"], at["value"]) for at in history] for history in found.data["history"]] == [
            [(1, sample + 1.0)] for sample in (5, 4, 3, 2, 1, 0)
        ]
        assert (found.answer.counts.stale, found.answer.selection["epoch"]) == (0, [1])
    assert run.dynamics(where=where, engine=engine).data["stale"].to_list() == [False] * 6
    every = run.samples(where=where, max=9, min=0, duplicates="all", engine=engine)
    assert (every.answer.counts.stale, every.answer.selection["epoch"]) == (0, [1, 2])


def test_other_questions_of_rows_that_count(repeated: Path) -> None:
    where = "loss < 50"
    compared = xaicli.compare(repeated, repeated, where=where)
    assert (compared.answer.counts.stale, compared.answer.extra["paired"][0]["stale"]) == (0, 0)
    chosen = open_run(repeated).select(rule="hardest", n=3, complete_only=True, where=where)
    assert chosen.data["sample_id"].to_list() == [5, 4, 3]


def test_labels_of_superseded_rows_are_none(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as recorded:
        for step, label in ((1, 1), (2, 0)):  # the second counts
            recorded.log_samples(sample_id=[1, 2], label=[0, label], loss=[1.0, 2.0], mode="eval", epoch=1, step=step)
    run = open_run(tmp_path / "run")
    with pytest.raises(XaiError, match="in no row selected"):
        run.labels(label_map="a=1")
    assert run.labels(label_map="a=1", duplicates="all").data["n"].to_list() == [1]


@pytest.mark.parametrize("engine", ENGINES)
def test_where_attempts_count_that_were_taken_back(tmp_path: Path, engine: str) -> None:
    """Epoch 2 was trained by both attempts: with all of them the later one's rows count."""
    pytest.importorskip(engine)
    for more in (0.0, 10.0):
        with xaicli.Run(tmp_path / "run", resume_from=(2, 2) if more else None) as recorded:
            for epoch in (1, 2) if not more else (2,):
                values = [more + epoch + n for n in range(4)]
                recorded.log_samples(sample_id=range(4), loss=values, mode="train", epoch=epoch, step=epoch)
    found = open_run(tmp_path / "run").samples(where="attempt = 0", attempts="all", max=9, min=0, engine=engine)
    assert found.answer.selection["epoch"] == [1]
    assert found.data["stale"].to_list() == [False] * 4


@pytest.mark.parametrize(
    "condition", ["label = 'sea'", "label = 1", "label LIKE '%sea%'", "label IN (1, 2)", "1 <> label"]
)
def test_a_set_of_classes_is_asked_for_one_of_them(tmp_path: Path, condition: str) -> None:
    sets = [[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["sun", "sea", "car"]) as run:
        run.log_samples(sample_id=range(4), label=sets, loss=[0.5] * 4, mode="eval", epoch=1, step=1)
    read = open_run(tmp_path / "run")
    with pytest.raises(XaiError, match="label is a set of whole numbers, not one value") as refused:
        read.samples(where=condition)
    meant, _, _ = str(refused.value.hint).partition(" asks")
    for engine in ("polars", "duckdb"):
        found = read.samples(where=meant, max=9, min=0, engine=engine).data["sample_id"]
        assert sorted(found.to_list()) == [1, 2]
    assert read.samples(where="label IS NOT NULL AND array_contains(label, 2)", max=9, min=0).data[
        "sample_id"
    ].to_list() == [1]
