"""What a run holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.queries.sql import metrics_tables
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import sources
from xaicli.state.best import Checkpoint, checkpoints
from xaicli.state.folder import saved_states
from xaicli.vocabulary import DS_ID, MODE


def info(reader: Reader) -> Answer:
    """One row per (mode, ds_id); saved states and checkpoints are named in the selection.

    Returns:
        Rows mode, ds_id, epochs (list), rows (those that count), metrics (list of the run's metrics), files, last_step,
        duplicates (rows that repeat a sample), gaps (epochs missing between the first and the last); beside them
        `tables`: name, rows and columns of each metrics table. Every byte is verified, once while nothing changes.
    """
    sources(reader, reader.folders())
    tables = _tables(reader)
    rows = []
    for mode in reader.modes():
        for ds_id in reader.ds_ids(mode):
            epochs = reader.epochs(mode, ds_id)
            places = [Place(mode, ds_id, epoch) for epoch in epochs]
            rows.append(
                {
                    MODE: mode,
                    DS_ID: ds_id,
                    "epochs": epochs,
                    "rows": sum(reader.row_count(place) for place in places),
                    "metrics": list(reader.metrics),
                    "files": sum(len(reader.pieces(place)) for place in places),
                    "last_step": reader.last_step(places[-1]),
                    "duplicates": sum(map(reader.duplicate_count, places)),
                    "gaps": gaps(epochs),
                }
            )
    schema = {
        MODE: pl.String(),
        DS_ID: pl.String(),
        "epochs": pl.List(pl.Int64),
        "rows": pl.Int64(),
        "metrics": pl.List(pl.String),
        "files": pl.Int64(),
        "last_step": pl.Int64(),
        "duplicates": pl.Int64(),
        "gaps": pl.List(pl.Int64),
    }
    data = pl.DataFrame(rows, schema=schema, orient="row")
    return Answer(
        command="info",
        run=str(reader.layout.root),
        selection={
            "id_type": reader.manifest.id_type,
            "attempts": len(reader.attempts),
            "states": [f"{s.path.name} (step {s.step}, epoch {s.epoch})" for s in saved_states(reader.layout.state)],
            "checkpoints": [_checkpoint(found) for found in checkpoints(reader.layout.checkpoints)],
        },
        data=data,
        counts=replace(reader.counts(), rows=int(data["rows"].sum()), duplicates=int(data["duplicates"].sum())),
        warnings=(*reader.warnings, *reader.losses),
        extra={"tables": tables},
    )


def _tables(reader: Reader) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "rows": lazy.select(pl.len()).collect().item(),
            "columns": lazy.collect_schema().names(),
        }
        for name, lazy in metrics_tables(reader).items()
    ]


def _checkpoint(found: Checkpoint) -> str:
    if found.value is None:
        return found.path.name
    best = "best " if found.is_best else ""
    return f"{found.path.name} ({best}{found.metric} {found.value:g})"


def gaps(epochs: list[int]) -> list[int]:
    """The epochs missing from an ascending list, which may hold every n-th epoch only."""
    if len(epochs) < 2:
        return []
    stride = min(later - earlier for earlier, later in pairwise(epochs))
    present = set(epochs)
    return [epoch for epoch in range(epochs[0], epochs[-1], stride) if epoch not in present]
