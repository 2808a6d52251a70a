"""The code blocks of the guide this package answers to, with `tlc` replaced by `xaicli`; only what they leave as `...`
is filled in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import xaicli
from xaicli.tables.column import schema_of

COLLECT = '''
"""Pseudo-code example of collecting per-sample metrics from a Table and a model."""
import tlc
import torch

table: tlc.Table = given_table
model: torch.nn.Module = given_model

def metrics_collector(batch, predictor_output):
    """Example of a metrics collector function.

    batch: A batch of samples from the Table, optionally mapped according to `map_collect_metrics`
        and collated by a torch.DataLoader.
    predictor_output: The output of the model for the batch.
    """
    return {
        "accuracy": [float(p == y) for p, y in zip(predictor_output.argmax(1), batch[1])]
    }

# The following command orchestrates a full inference pass through the Table,
# collecting metrics using the provided metrics collector(s) and updating the active Run accordingly.
tlc.collect_metrics(table, metrics_collector, model)
'''

LOG = '''
"""Pseudo-code example of logging on-the-fly metrics."""
import tlc

run: tlc.Run = given_run
table: tlc.Table = given_table

# Log a dictionaries of key-value pairs using "epoch" as the time axis:
tlc.log({"epoch": 0, "loss": 0.5, "accuracy": 0.9})
tlc.log({"epoch": 1, "loss": 0.4, "accuracy": 0.91})
tlc.log({"epoch": 10, "loss": 0.3, "accuracy": 0.92})

# Log lists of metrics as a separate metrics table on the Run:
metrics = {"loss": [0.5, 0.4, 0.3], "accuracy": [0.9, 0.91, 0.92]}
run.add_metrics_data(metrics)

# Log predictions with a custom schema, and associate samples with the input table:
# (Assumes that `table` contains exactly 3 samples.)
metrics = {"predicted_label": [0, 1, 0]}
run.add_metrics_data(
    metrics,
    input_table_url=table.url,
    override_column_schemas={"predicted_label": tlc.CategoricalLabel("label", ["cat", "dog"])},
)

# Log metrics for individual samples using `example_id` to associate metrics with samples:
metrics = {
    "example_id": [0, 0, 1, 1, 2, 2],
    "iou": [0.9, 0.8, 0.6, 0.5, 0.3, 0.2],
}
run.add_metrics_data(
    metrics,
    input_table_url=table.url,
)
'''


@pytest.fixture
def given(tmp_path: Path) -> Iterator[dict[str, Any]]:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.4, 0.6]])
    with xaicli.init(tmp_path / "run") as run:
        yield {
            "given_run": run,
            "given_table": xaicli.Table.from_arrays(x, torch.tensor([0, 1, 0])),
            "given_model": torch.nn.Identity(),
        }


def execute(block: str, given: dict[str, Any]) -> None:
    exec(compile(block.replace("tlc", "xaicli"), "<block>", "exec"), given)


def test_collecting_with_a_function(given: dict[str, Any]) -> None:
    execute(COLLECT, given)
    root = given["given_run"].layout.root
    stored = pl.read_parquet(root / "tables" / "metrics" / "*.parquet")
    assert stored["accuracy"].to_list() == [1.0, 1.0, 0.0]
    assert stored["example_id"].to_list() == [0, 1, 2]
    given["given_run"].flush()
    assert pl.read_parquet(root / "scalars" / "*.parquet")["value"].to_list() == [pytest.approx(2 / 3)]


def test_logging_on_the_fly(given: dict[str, Any]) -> None:
    execute(LOG, given)
    run = given["given_run"]
    run.flush()
    scalars = pl.read_parquet(run.layout.scalars / "*.parquet").filter(pl.col("key") == "loss")
    assert scalars.select("step", "axis", "value").rows() == [(0, "epoch", 0.5), (1, "epoch", 0.4), (10, "epoch", 0.3)]
    folders = {path.name: path for path in run.layout.tables.iterdir()}
    assert sorted(folders) == ["metrics", "metrics-2", "metrics-3"]
    plain, labels, repeated = (pl.read_parquet(folders[name] / "*.parquet") for name in sorted(folders))
    assert plain.rows() == [(0.5, 0.9), (0.4, 0.91), (0.3, 0.92)]
    assert labels.select("example_id", "predicted_label").rows() == [(0, 0), (1, 1), (2, 0)]
    assert repeated.select("example_id", "iou").rows()[:3] == [(0, 0.9), (0, 0.8), (1, 0.6)]
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(next(folders["metrics-2"].glob("*.parquet")))
    assert schema_of(schema.field("predicted_label")) == xaicli.CategoricalLabel("label", ["cat", "dog"])


def test_logging_without_a_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="no active run"):
        xaicli.log({"loss": 0.5})
