"""Run directories written row by row, as the format says, without the recorder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from xaicli import parquet
from xaicli.layout import PartName, RunLayout
from xaicli.manifest import Attempt, ColumnFacts, Manifest
from xaicli.vocabulary import RESERVED_COLUMNS

Row = Mapping[str, Any]
"""A row: sample_id, epoch and metrics; mode ("eval"), ds_id (""), pass (none: format version 1), step (epoch * 10),
attempt, rank (0) unless given.
"""

_ARROW = {"step": pa.int64(), "label": pa.int32(), "prediction": pa.int32(), "correct": pa.bool_()}


class WrittenRun:
    """A run directory that grows part by part."""

    def __init__(self, root: Path, *, metrics: Sequence[str] = ("loss",), label_names: Sequence[str] = ()) -> None:
        self.layout = RunLayout(root)
        self.metrics = list(metrics)
        self.label_names = tuple(label_names) or None
        self._sequence: dict[tuple[int, int], int] = {}
        self._columns: dict[str, ColumnFacts] = {}
        root.mkdir(parents=True)
        self.attempt(0)
        self.manifest()

    @classmethod
    def at(cls, root: Path) -> WrittenRun:
        """A run that exists."""
        run = cls.__new__(cls)
        run.layout = RunLayout(root)
        return run

    def manifest(self) -> None:
        """Write `xai.json` as the columns are now."""
        id_type = self._columns["sample_id"].dtype if "sample_id" in self._columns else None
        facts = Manifest(
            run_id="test",
            created_at="2026-01-01T00:00:00Z",
            name=self.layout.root.name,
            id_type=id_type,
            label_names=self.label_names,
            columns=tuple(self._columns.values()),
        )
        self.layout.manifest.write_text(facts.to_json(), encoding="utf-8")

    def attempt(
        self, attempt: int, takes_back_from: tuple[int, int] | None = None, *, beside: Sequence[int] = ()
    ) -> None:
        """Write an attempt's file."""
        self.layout.attempts.mkdir(exist_ok=True)
        said = takes_back_from and dict(zip(("epoch", "step"), takes_back_from, strict=True))
        facts = Attempt(attempt, takes_back_from=said, beside=tuple(beside))
        self.layout.attempt_file(attempt).write_text(json.dumps(facts.__dict__), encoding="utf-8")

    def write(self, rows: Iterable[Row], *, row_group_rows: int = 131_072, recorded: bool = True) -> list[Path]:
        """One part for each (mode, ds_id, epoch, attempt, rank) among the rows, in the order of first appearance."""
        groups: dict[tuple[str, str, int, int, int], list[dict[str, Any]]] = {}
        for given in rows:
            row = {"mode": "eval", "ds_id": "", "attempt": 0, "rank": 0, "step": given["epoch"] * 10, **given}
            groups.setdefault((row["mode"], row["ds_id"], row["epoch"], row["attempt"], row["rank"]), []).append(row)
        paths = []
        for (mode, ds_id, epoch, attempt, rank), group in groups.items():
            sequence = self._sequence.get((attempt, rank), 0)
            self._sequence[attempt, rank] = sequence + 1
            name = PartName(attempt, rank, sequence, sequence)
            path = self.layout.folder(mode, ds_id, epoch) / name.filename
            place = {"mode": mode, "ds_id": ds_id, "epoch": epoch, "attempt": attempt, "rank": rank}
            footer = {"xai": json.dumps({"version": 2, "run_id": "test", **place, "sequence": sequence})}
            table = self._table(group).replace_schema_metadata(footer)
            record = parquet.write(table, path, root=self.layout.root, row_group_rows=row_group_rows)
            if recorded:
                parquet.append_record(self.layout, attempt, rank, record)
            paths.append(path)
        self.manifest()
        return paths

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        arrays: dict[str, pa.Array] = {}
        for name in dict.fromkeys(key for row in rows for key in row):
            values = [row.get(name) for row in rows]
            if name in ("mode", "ds_id"):
                arrays[name] = pa.array(values, pa.string()).dictionary_encode()
                continue
            arrays[name] = pa.array(values, _arrow_type(name, values))
            role = "metric" if name not in RESERVED_COLUMNS else "id" if name == "sample_id" else "label"
            self._columns.setdefault(name, ColumnFacts(name, str(arrays[name].type), role))
        return pa.table(arrays)


def _arrow_type(name: str, values: Sequence[Any]) -> pa.DataType:
    if any(isinstance(value, str) for value in values):
        return pa.string()
    if any(isinstance(value, list) for value in values):
        return pa.list_(pa.float16() if name == "probs" else pa.int32())
    if name in ("label", "prediction") and any(isinstance(value, float) for value in values):
        return pa.float64()
    if name == "sample_id":
        return pa.int64()
    if name in ("epoch",):
        return pa.int32()
    if name in ("attempt", "rank", "pass"):
        return pa.int16()
    return _ARROW.get(name, pa.float32())
