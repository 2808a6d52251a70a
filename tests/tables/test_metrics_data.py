"""`Run.add_metrics_data`: the caller's columns come back as they were, with ids, constants and schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

import xaicli
from xaicli.errors import UsageError, XaiError
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run
from xaicli.tables.column import ColumnError, schema_of
from xaicli.tables.schema import CategoricalLabel
from xaicli.tables.table import Table


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


@pytest.fixture
def table() -> Table:
    return Table.from_arrays(np.zeros((3, 2)), name="three")


def test_columns_come_back_as_they_were(run: Run) -> None:
    path = run.add_metrics_data({"loss": [0.5, 0.4, 0.3], "accuracy": torch.tensor([0.9, 0.91, 0.92])})
    stored = pl.read_parquet(path)
    assert stored.columns == ["loss", "accuracy"]
    assert stored["loss"].to_list() == [0.5, 0.4, 0.3]
    assert path.parent.name == "metrics"


def test_rows_are_samples_of_the_input_table_by_position(run: Run, table: Table) -> None:
    path = run.add_metrics_data(
        {"predicted_label": [0, 1, 0]},
        input_table_url=table.url,
        override_column_schemas={"predicted_label": CategoricalLabel("label", ["cat", "dog"])},
        constants={"epoch": 4, "part": "val"},
    )
    stored = pl.read_parquet(path)
    assert stored.columns == ["example_id", "input_table", "epoch", "part", "predicted_label"]
    assert stored["example_id"].to_list() == [0, 1, 2]
    assert stored["epoch"].to_list() == [4, 4, 4]
    assert set(stored["input_table"]) == {table.url}
    field = parquet.read_schema(path).field("predicted_label")
    assert schema_of(field) == CategoricalLabel("label", ["cat", "dog"])
    described = json.loads((path.parent / "schema.json").read_text())
    assert described["predicted_label"]["classes"] == {"0": "cat", "1": "dog"}
    assert described["epoch"] == {"type": "int"}


def test_example_ids_repeat_and_need_not_cover_all(run: Run, table: Table) -> None:
    path = run.add_metrics_data({"example_id": [2, 0, 0, 2], "iou": [0.9, 0.8, 0.6, 0.5]}, input_table_url=table)
    assert pl.read_parquet(path)["example_id"].to_list() == [2, 0, 0, 2]


def test_both_spellings_write_the_same(run: Run, table: Table) -> None:
    label = CategoricalLabel("label", ["cat", "dog"])
    first = run.add_metrics_data({"p": [0, 1, 0]}, input_table_url=table, override_column_schemas={"p": label})
    second = run.add_metrics({"p": [0, 1, 0]}, foreign_table_url=table, schema={"p": label})
    assert first.parent == second.parent
    assert parquet.read_table(first).equals(parquet.read_table(second), check_metadata=True)


def test_unnamed_metrics_go_where_their_columns_are(run: Run) -> None:
    folders = [
        run.add_metrics_data(columns).parent.name
        for columns in ({"a": [1]}, {"b": [1]}, {"a": [2, 3]}, {"b": [4], "a": [5]}, {"b": [6]})
    ]
    assert folders == ["metrics", "metrics-2", "metrics", "metrics-3", "metrics-2"]
    assert pl.read_parquet(run.layout.tables / "metrics" / "*.parquet")["a"].to_list() == [1, 2, 3]
    named = run.add_metrics_data({"a": [1]}, name="../evil name")
    assert named.parent.parent == run.layout.tables


def test_a_column_keeps_its_kind_within_a_table(run: Run) -> None:
    run.add_metrics_data({"a": [1]}, name="own")
    run.add_metrics_data({"a": [0.5], "late": ["x"]}, name="own")
    with pytest.raises(ColumnError, match="column 'a' is string; in the table 'own' it is int64") as caught:
        run.add_metrics_data({"a": ["x"]}, name="own")
    assert "a table of their own" in caught.value.hint
    folders = [run.add_metrics_data(columns).parent.name for columns in ({"b": [1]}, {"b": ["x"]}, {"b": [2.5]})]
    assert folders == ["metrics", "metrics-2", "metrics"]


def test_lengths_that_do_not_match_are_named(run: Run, table: Table) -> None:
    with pytest.raises(ValueError, match="the columns differ in length: 'loss' has 2, 'accuracy' has 3"):
        run.add_metrics_data({"loss": [1, 2], "accuracy": [1, 2, 3]})
    with pytest.raises(ColumnError, match="the metrics have 2 rows, the input table 3") as caught:
        run.add_metrics_data({"loss": [1, 2]}, input_table_url=table)
    assert "example_id" in caught.value.hint
    assert not run.layout.tables.exists()


@pytest.mark.parametrize(
    ("ids", "told"),
    [([0, 3], "example_id 3 is no row"), ([-1, 0], "example_id -1 is no row"), ([0.5, 1.0], "example_id is double")],
)
def test_an_example_id_is_a_row_of_the_input_table(run: Run, table: Table, ids: list[float], told: str) -> None:
    with pytest.raises(ColumnError, match=told):
        run.add_metrics_data({"example_id": ids, "iou": [1.0, 1.0]}, input_table_url=table.url)


def test_what_is_misspelt_is_told(run: Run) -> None:
    with pytest.raises(XaiError, match="no column 'los' in the metrics") as caught:
        run.add_metrics_data({"loss": [1]}, override_column_schemas={"los": xaicli.Float()})
    assert "loss" in caught.value.hint
    with pytest.raises(UsageError, match="'loss' is both a column and a constant"):
        run.add_metrics_data({"loss": [1]}, constants={"loss": 2})
    with pytest.raises(ColumnError, match="constant 'epoch' is a list"):
        run.add_metrics_data({"loss": [1]}, constants={"epoch": [2]})
    with pytest.raises(XaiError, match="no table 'elsewhere'"):
        run.add_metrics_data({"loss": [1]}, input_table_url="elsewhere")
    with pytest.raises(UsageError, match="the metrics hold no column"):
        run.add_metrics_data({})


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        ({"loss": [1, 2], "accuracy": [1, 2, 3]}, {}, "differ in length: 'loss' has 2, 'accuracy' has 3"),
        ({"v": [1, "a"]}, {}, "column 'v' holds values that are no column"),
        ({"v": [object()]}, {}, "column 'v' holds values that are no column"),
        ({"v": ["text"]}, {"name": "own"}, "column 'v' is string; in the table 'own' it is double"),
        ([1, 2], {}, "metrics are a list, not columns by name (give "),
        ({"v": [1]}, {"input_table_url": "elsewhere"}, "no table 'elsewhere'"),
        ({"v": [1]}, {"name": 3}, "cannot be written"),
    ],
)
def test_metrics_that_are_no_table_are_told_and_the_training_goes_on(
    tmp_path: Path, given: object, options: dict[str, object], told: str
) -> None:
    with Run(tmp_path / "run") as run:
        assert run.add_metrics_data({"v": [0.5]}, name="own") is not None
        with pytest.warns(RecorderWarning) as said:
            assert run.add_metrics_data(given, **options) is None
        assert run.add_metrics_data({"v": [1.5]}, name="own") is not None
    assert told in str(said[0].message)
    assert run.stats()["records_dropped"] == 1
    assert pl.read_parquet(tmp_path / "run" / "tables" / "own" / "*.parquet")["v"].to_list() == [0.5, 1.5]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_are_their_columns(run: Run, make: Callable[[object], object]) -> None:
    given = {"example_id": [2, 0], "iou": [0.5, 0.25], "text": ["a", None]}
    path = run.add_metrics_data(make(given))
    assert path is not None
    assert pl.read_parquet(path).to_dict(as_series=False) == given
    if make is pd.DataFrame:
        with pytest.raises(UsageError, match="the metrics have the column 'a' more than once"):
            run.add_metrics_data(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_metrics_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, xaicli\n"
        f"with xaicli.Run({str(tmp_path / 'run')!r}) as run:\n"
        "    table = xaicli.Table.from_dict({'x': [1, 2]})\n"
        "    schemas = {'a': ['u', 'v']}\n"
        "    run.add_metrics_data({'a': [1, 2]}, input_table_url=table.url, override_column_schemas=schemas)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_frames_are_columns_too(run: Run) -> None:
    path = run.add_metrics_data(pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    assert pl.read_parquet(path).rows() == [(1, "x"), (2, "y")]
