"""Bounds and orders that larger tests pass over: the last class, the newest file, the first moment."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xaicli
from xaicli.errors import UsageError, XaiError
from xaicli.recorder.columns import label_sets
from xaicli.recorder.facts import kinds_before
from xaicli.recorder.run import Run


@pytest.mark.parametrize(
    ("given", "classes", "kept", "reason"),
    [
        ([[0, 2]], 3, [[0, 2]], None),
        ([[0, 3]], 3, [None], "label 3 is no class of the 3 of the scores: it is neither right nor wrong"),
        ([[-1]], 3, [None], "label -1 is no class of the 3 of the scores: it is neither right nor wrong"),
        ([[2**31 - 1]], None, [[2**31 - 1]], None),
        ([[2**31]], None, [None], f"label {2**31} is no class: it is neither right nor wrong"),
    ],
)
def test_the_classes_of_a_set_end_where_the_scores_do(given, classes, kept, reason) -> None:
    sets = label_sets(given, 1, "label", classes=classes)
    assert [None if found is None else found.tolist() for found in sets.classes] == kept
    assert dict(sets.reasons) == ({} if reason is None else {reason: 1})


def test_the_newest_file_says_of_what_kind_a_fact_is(tmp_path: Path) -> None:
    for attempt, values in enumerate(([1], [0.5])):
        table = pa.table({"sample_id": [1], "size": values, "made": pa.nulls(1)})
        pq.write_table(table, tmp_path / f"part-a00000{attempt}-r0000-00000000.parquet")
    (tmp_path / "part-a000002-r0000-00000000.parquet").write_bytes(b"no Parquet")
    assert kinds_before(tmp_path) == {"size": pa.float64()}


def test_a_state_that_is_loaded_after_the_first_row_is_noted_in_the_attempt(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", resume="allow") as run:
        for epoch in run.epochs(3):
            for step, _ in enumerate(run.steps([0, 1], mode="train")):
                run.log_samples(sample_id=np.arange(3), loss=[float(10 * epoch + step)] * 3)
            if epoch == 1:
                run.state.save_state(tmp_path / "state")
    with xaicli.Run(tmp_path / "run", resume="allow") as run, warnings.catch_warnings():
        warnings.simplefilter("error")
        run.log_samples(sample_id=[0], loss=[1.0], mode="eval", epoch=1, step=2)
        run.flush()
        run.state.load_state(tmp_path / "state")
    said = json.loads(run.layout.attempt_file(1).read_text())
    assert said["resumed_from_step"] == said["takes_back_from"]["step"]
    rows = xaicli.open_run(tmp_path / "run").scan(mode="train").collect()
    assert rows["epoch"].unique().to_list() == [1]  # though the second attempt trained nothing


@pytest.mark.parametrize("given", ["", "  ", b"", "a\0b", None, 3])
def test_what_names_no_folder_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    """An unset variable of a shell must not record into the folder that is current."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is no path") as refused:
        Run(given)
    assert ("unset" in str(refused.value)) == (given in ("", b""))
    assert 'Run("runs/exp1")' in str(refused.value.hint)
    if given is not None:
        with pytest.raises(UsageError, match="is no path"):
            xaicli.init(given)
    assert list(tmp_path.iterdir()) == []


def test_no_run_is_opened_by_an_empty_name_or_one_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Run("runs/newest").close()
    with pytest.raises(XaiError, match="names no run"):
        xaicli.open_run("")
    with pytest.raises(XaiError, match="too long for a folder"):
        xaicli.open_run("x" * 300)
    assert xaicli.open_run().info() is not None


def test_an_iterator_of_ids_is_refused_with_the_rows_beside_it(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path) as run:
        warnings.simplefilter("always")
        ids = iter(range(7))
        run.log_samples(sample_id=ids, label=[0] * 7, loss=np.zeros(7), epoch=1, step=1)
        run.log_samples(sample_id=(n for n in range(5)), loss=np.zeros(5), epoch=1, step=1)
        assert list(ids) == list(range(7))
    assert run.stats()["rows_dropped"] == 12
    assert len(said) <= 2


@pytest.mark.parametrize("raw", [bytearray(b"abc"), memoryview(b"abc")])
def test_bytes_are_no_numbers(tmp_path: Path, raw: Any) -> None:
    with Run(tmp_path, strict=True) as run:
        for refused in ({"sample_id": raw}, {"loss": raw}, {"label": raw}):
            with pytest.raises(ValueError, match=f"{next(iter(refused))} .*bytes"):
                run.log_samples(**{"sample_id": [1, 2, 3], "epoch": 1, "step": 1, **refused})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="bytes"):
            run.log_facts(raw, camera=["a", "b", "c"])
        with pytest.raises(ValueError, match="bytes"):
            run.log({"lr": raw})
        run.log_samples(sample_id=[1, 2, 3], loss=memoryview(np.array([0.5, 1.5, 2.5])), epoch=1, step=1)
    with pytest.raises(XaiError, match="'x' is a single"), Run(tmp_path / "other", strict=True) as run:
        run.add_metrics_data({"m": [1.0, 2.0, 3.0], "x": raw})
    assert xaicli.open_run(tmp_path).scan(mode="all").collect()["loss"].to_list() == [0.5, 1.5, 2.5]


def test_inputs_by_id_are_not_inputs_by_name(tmp_path: Path) -> None:
    """Three samples of three values each: as inputs by name they would be nine."""
    by_id = {1: np.ones(3), 2: np.ones(3), 3: np.ones(3)}
    with Run(tmp_path, strict=True) as run:
        with pytest.raises(ValueError, match="inputs is a dict by 1, which is no input's name"):
            run.log_inputs([1, 2, 3], by_id)
        run.log_inputs([1, 2, 3], {"x": np.ones((3, 3))})
    assert sum(pq.read_table(file).num_rows for file in (tmp_path / "inputs").glob("*.parquet")) == 3
    with warnings.catch_warnings(record=True), Run(tmp_path / "count") as run:
        warnings.simplefilter("always")
        run.log_images((n for n in range(3)), np.zeros((3, 4, 4), np.uint8))
        run.log_inputs((n for n in range(4)), np.zeros((4, 2)))
        run.log_facts((n for n in range(5)), a=[1, 2, 3, 4, 5])
    assert run.stats()["records_dropped"] == 12
