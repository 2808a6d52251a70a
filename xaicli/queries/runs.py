"""The runs below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import XaiError
from xaicli.layout import RunLayout, find_runs
from xaicli.reader import Place, Reader

_SCHEMA = {
    "run": pl.String(),
    "name": pl.String(),
    "created_at": pl.String(),
    "modes": pl.List(pl.String),
    "epochs": pl.Int64(),
    "rows": pl.Int64(),
    "metrics": pl.List(pl.String),
    "problem": pl.String(),
}


def runs(folder: Path) -> Answer:
    """One row per run at or below a folder.

    Returns:
        Rows run (its path), name, created_at, modes, epochs (how many), rows (as recorded, not verified), metrics,
        problem (why it cannot be read; null where it can); by path.

    Raises:
        XaiError: There is no such folder.
    """
    if not folder.is_dir():
        raise XaiError(f"{folder} is no folder", hint="xai ls [FOLDER] lists the runs at or below a folder")
    found = find_runs(folder)
    data = pl.DataFrame([_row(layout) for layout in found], schema=_SCHEMA, orient="row")
    return Answer(
        command="ls",
        run=str(folder),
        selection={},
        data=data,
        counts=Counts(rows=data.height),
        warnings=() if found else (f"there are no runs at or below {folder}",),
    )


def _row(layout: RunLayout) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_SCHEMA) | {"run": str(layout.root)}
    try:
        reader = Reader(layout)
        manifest = reader.manifest
        modes = reader.modes()
        pairs = [(mode, ds_id) for mode in modes for ds_id in reader.ds_ids(mode)]
        places = [Place(*pair, epoch) for pair in pairs for epoch in reader.epochs(*pair)]
        return row | {
            "name": manifest.name or layout.root.resolve().name,
            "created_at": manifest.created_at,
            "modes": modes,
            "epochs": len({place.epoch for place in places}),
            "rows": sum(reader.row_count(place) for place in places),
            "metrics": list(reader.metrics),
        }
    except XaiError as error:
        return row | {"problem": error.message}
