"""`xai dynamics` over whole runs: every engine and every kind of file against the oracle, truth, damage, messages."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xaicli
from tests.dynamics import dynamics_oracle as oracle
from tests.written_run import WrittenRun
from xaicli import Run, open_run
from xaicli.dynamics import computed
from xaicli.dynamics.computed import compute
from xaicli.dynamics.statistics import dynamics
from xaicli.errors import DamagedFileError, UsageError, XaiError
from xaicli.queries.resolution import resolve
from xaicli.reader import Reader, open_reader

METRICS = ("loss", "label_prob", "margin", "el2n")
VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0, -2.0, 7.5, math.nan, math.inf, -math.inf])


@contextmanager
def reader_of(rows: list[dict[str, Any]], *, batch: int = 1000, row_group_rows: int = 3) -> Iterator[Reader]:
    """A run of these rows, in parts of `batch` rows."""
    folder = Path(tempfile.mkdtemp())
    try:
        run = WrittenRun(folder / "run", metrics=METRICS)
        for start in range(0, len(rows), batch):
            run.write(rows[start : start + batch], row_group_rows=row_group_rows)
        yield open_reader(run.layout)
    finally:
        shutil.rmtree(folder)


@st.composite
def recorded(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows by epoch, by id within or in any order; samples come late, stay away and return, some repeat."""
    text, ordered, repeats = (draw(st.booleans()) for _ in range(3))
    ids = [f"é{number}" if text else number * draw(st.sampled_from([1, 10**12])) for number in range(6)]
    rows = []
    for epoch in sorted(draw(st.sets(st.integers(0, 30), min_size=1, max_size=5))):
        there = draw(st.lists(st.sampled_from(sorted(set(ids))), min_size=1, max_size=8, unique=not repeats))
        for step, key in enumerate(sorted(there) if ordered else there):
            row = {"epoch": epoch, "sample_id": key, "step": epoch * 100 + step}
            row |= {"label": draw(st.sampled_from([3, 4, None])), "correct": draw(st.sampled_from([True, False, None]))}
            rows.append(row | {metric: draw(VALUES) for metric in METRICS})
    return rows


def last_of_each(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["epoch"], row["sample_id"]): row for row in rows}.values())


def assert_same(rows: list[dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> None:
    assert [row["sample_id"] for row in rows] == sorted(expected)
    for row in rows:
        for name, value in expected[row["sample_id"]].items():
            if isinstance(value, float):
                assert row.get(name) == pytest.approx(value, rel=1e-12, abs=1e-12), (name, row["sample_id"])
            else:
                assert row.get(name) == value, (name, row["sample_id"])


@pytest.mark.parametrize(("engine", "examples"), [("polars", 60), ("duckdb", 12)])
def test_equals_the_oracle(engine: str, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computed, "_ROWS", 2)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows=recorded(), batch=st.sampled_from([3, 1000]))
    def check(rows: list[dict[str, Any]], batch: int) -> None:
        with reader_of(rows, batch=batch) as reader:
            selection = resolve(reader, engine=engine)
            answer = dynamics(reader, selection, early_epochs=2, burn_in=1)
            expected = last_of_each(rows)
            assert_same(answer.data.to_dicts(), oracle.dynamics(expected, early_epochs=2, burn_in=1))
            spoilt = sum(not math.isfinite(row[metric]) for row in expected for metric in METRICS)
            counts = answer.counts
            assert (counts.rows, counts.non_finite) == (len(expected), spoilt)
            assert counts.duplicates == len(rows) - len(expected)

    check()


def test_all_duplicates_are_observations() -> None:
    rows = [
        {"epoch": epoch, "sample_id": key, "step": 10 * epoch + turn, "label": 0, "correct": turn == 1, "loss": value}
        for epoch in (1, 2)
        for turn, (key, value) in enumerate([(1, 1.0), (1, 3.0), (2, 5.0)])
    ]
    with reader_of(rows) as reader:
        answer = dynamics(reader, resolve(reader, duplicates="all"))
    found = {row["sample_id"]: row for row in answer.data.to_dicts()}
    assert (found[1]["n_obs"], found[1]["loss_mean"], found[1]["loss_last"]) == (4, 2.0, 3.0)
    assert (found[1]["correctness"], found[1]["forgetting"]) == (2, 1)
    assert found[2]["n_obs"] == 2


def test_by_hand() -> None:
    """Right, wrong, right, right: forgotten once, for good from the third epoch; losses 4, 2, 3, 1."""
    losses, right = [4.0, 2.0, 3.0, 1.0], [True, False, True, True]
    rows = [
        {"epoch": epoch, "sample_id": 7, "label": 2, "prediction": 2 if ok else 1, "loss": loss}
        for epoch, loss, ok in zip((1, 2, 3, 4), losses, right, strict=True)
    ]
    with reader_of(rows) as reader:
        answer = dynamics(reader, resolve(reader))
    (row,) = answer.data.to_dicts()
    assert (row["loss_first"], row["loss_last"], row["loss_min"], row["loss_max"]) == (4.0, 1.0, 1.0, 4.0)
    assert (row["loss_mean"], row["loss_slope"]) == (2.5, pytest.approx(-0.8))
    assert row["loss_std"] == pytest.approx(math.sqrt(5 / 3))
    assert row["ema"] == pytest.approx(((4.0 * 0.9 + 0.2) * 0.9 + 0.3) * 0.9 + 0.1)
    assert (row["correctness"], row["forgetting"], row["never_learned"]) == (3, 1, False)
    assert (row["first_learned"], row["learned_for_good"]) == (1, 3)
    assert "aum" not in row
    assert "confidence" not in row
    assert "aum (need margin)" in answer.warnings[0]


def test_huge_offset_keeps_its_digits() -> None:
    """A metric of 1e8 with changes of 1e-3: naive sums of squares in float64 would lose all of them."""
    values = [1e8 + 1e-3 * number for number in range(20)]
    rows = [{"epoch": epoch, "sample_id": 1, "loss": value} for epoch, value in enumerate(values)]
    from concurrent.futures import ThreadPoolExecutor

    import polars as pl

    from xaicli.dynamics.metrics import Plan
    from xaicli.dynamics.tracker import Tracker

    with ThreadPoolExecutor(1) as helper:
        tracker = Tracker(Plan(("loss",), frozenset({"loss"}), "label"), helper)
        for row in rows:
            tracker.add(row["epoch"], pl.DataFrame([row]).drop("epoch"))
        (found,) = tracker.frame().to_dicts()
    assert found["loss_std"] == pytest.approx(np.std(np.arange(20) * 1e-3, ddof=1), rel=1e-5)
    assert found["loss_slope"] == pytest.approx(1e-3, rel=1e-5)


@pytest.mark.parametrize("place", ["ids", "last loss"])
def test_damage_is_left_out_whole_and_named(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(computed, "_ROWS", 4)
    run = WrittenRun(tmp_path / "run")
    draw = np.random.default_rng(0)
    paths = run.write(
        {"epoch": epoch, "sample_id": key, "loss": float(draw.random())} for epoch in (1, 2, 3) for key in range(40)
    )
    content = bytearray(paths[1].read_bytes())
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(paths[1])
    group, column = (0, "sample_id") if place == "ids" else (metadata.num_row_groups - 1, "loss")
    chunk = metadata.row_group(group).column(metadata.schema.names.index(column))
    content[(chunk.data_page_offset) + chunk.total_compressed_size - 3] ^= 0x10
    paths[1].write_bytes(content)
    reader = open_reader(run.layout)
    answer = dynamics(reader, resolve(reader))
    assert answer.counts.damaged == (paths[1].relative_to(run.layout.root).as_posix(),)
    assert answer.counts.rows == 80
    assert answer.data["n_obs"].to_list() == [2] * 40
    strict = open_reader(run.layout, strict=True)
    with pytest.raises(DamagedFileError):
        dynamics(strict, resolve(strict))


def test_modes_and_ds_ids_are_never_pooled(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(
        {"epoch": 1, "sample_id": 1, "mode": mode, "ds_id": ds_id, "loss": value}
        for mode, ds_id, value in [("train", "", 1.0), ("eval", "a", 2.0), ("eval", "b", 3.0)]
    )
    reader = open_reader(run.layout)
    data = dynamics(reader, resolve(reader, mode="all")).data
    assert data.select("mode", "ds_id", "loss_mean").rows() == [
        ("train", "", 1.0),
        ("eval", "a", 2.0),
        ("eval", "b", 3.0),
    ]


@pytest.mark.parametrize(("option", "value"), [("early_epochs", 0), ("burn_in", -1)])
def test_options_that_make_no_sense(option: str, value: int, tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write([{"epoch": 1, "sample_id": 1, "loss": 1.0}])
    reader = open_reader(run.layout)
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} must be"):
        compute(reader, resolve(reader), **{option: value})


def test_only_rows_that_meet_the_condition(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(
        {"epoch": epoch, "sample_id": key, "label": key % 2, "loss": float(key)} for epoch in (1, 2) for key in range(6)
    )
    reader = open_reader(run.layout, where="label = 1")
    answer = dynamics(reader, resolve(reader))
    assert answer.data["sample_id"].to_list() == [1, 3, 5]
    assert answer.counts.rows == 6


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_numbers_are_neither_right_nor_wrong(tmp_path: Path, engine: str) -> None:
    with Run(tmp_path / "run", task="regression") as run:
        for epoch in (1, 2):
            run.log_samples(sample_id=[1, 2], label=[0.5, 2.0], prediction=[0.5, 1.0 + epoch], mode="eval", epoch=epoch)
    result = open_run(tmp_path / "run").dynamics(engine=engine)
    assert not {"correctness", "forgetting", "never_learned", "first_learned"} & set(result.data.columns)
    assert result.data["loss_last"].to_list() == [0.0, 1.0]
    assert result.report.sentence == "eval: 2 samples."
    assert "labels that are numbers have no probability" in " ".join(str(result).split())
    with pytest.raises(XaiError, match="has no correct, which --stat correctness needs") as raised:
        open_run(tmp_path / "run").samples(stat="correctness", engine=engine)
    assert "--stat loss_mean" in str(raised.value.hint)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("names", [None, ("cat", "dog")])
def test_a_label_that_is_missing_at_the_end_is_missing(tmp_path: Path, engine: str, names: Any) -> None:
    """What is shown of a sample is of its last row, in every view: 2 and 3 have no label at epoch 3, 4 is not there."""
    pytest.importorskip(engine)
    labels = {1: [0, 1, 1, 1], 2: [1, 1, 1, 0], 3: [1, -100, None]}
    if names is None:
        labels = {epoch: [None if n in (None, -100) else f"kind {n}" for n in of] for epoch, of in labels.items()}
    with Run(tmp_path / "run", label_names=names) as recorded:
        for epoch, of in labels.items():
            ids = [1, 2, 3, 4][: len(of)]
            values = {"loss": [float(n) for n in ids], "prediction": labels[1][: len(of)]}
            recorded.log_samples(sample_id=ids, label=of, **values, mode="eval", epoch=epoch, step=epoch)
    run = open_run(tmp_path / "run")
    expected = {1: labels[3][0], 2: None, 3: None, 4: labels[2][3]}
    shown = [run.dynamics(engine=engine), run.samples(max=9, min=0, engine=engine)]
    if engine == "polars":
        shown += [run.select(rule="hardest", n=4)]
        run.export(tmp_path / "wide.parquet", shape="wide")
        assert dict(pl.read_parquet(tmp_path / "wide.parquet").select("sample_id", "label").rows()) == expected
        compared = xaicli.compare(run.layout.root, run.layout.root, ids=[1, 2, 3, 4]).data
        listed = compared.filter(pl.col("group") == "listed")
        assert dict(listed.select("sample_id", "label").rows()) == expected
    for result in shown:
        assert dict(result.data.select("sample_id", "label").rows()) == expected, result.answer.command


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_of_equal_rank_jumps_the_earliest_counts(tmp_path: Path, engine: str) -> None:
    """Of seven samples 3 falls by three ranks and rises by three; where sevenths are rounded, the second is larger."""
    pytest.importorskip(engine)
    ranks = {1: [6, 1, 7, 4, 2, 3, 5], 2: [5, 7, 3, 4, 2, 1, 6], 3: [7, 1, 4, 2, 6, 5, 3], 4: [7, 6, 1, 5, 3, 2, 4]}
    with Run(tmp_path / "run") as run:
        for epoch, of in ranks.items():
            run.log_samples(sample_id=range(7), loss=[float(n) for n in of], mode="eval", epoch=epoch, step=epoch)
    found = open_run(tmp_path / "run").dynamics(engine=engine).data.row(3, named=True)
    assert found["rank_jump"] == pytest.approx(1 / 1.4826)
    assert (found["rank_jump_epoch"], found["rank_jump_direction"]) == (3, "down")
