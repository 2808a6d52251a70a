"""The runs below a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import XaiError
from xaicli.layout import RunLayout, find_runs
from xaicli.locks import is_held
from xaicli.reader import Place, Reader
from xaicli.vocabulary import CORRECT, Mode

_SCHEMA = {
    "run": pl.String(),
    "name": pl.String(),
    "created_at": pl.String(),
    "modes": pl.List(pl.String),
    "epochs": pl.Int64(),
    "rows": pl.Int64(),
    "accuracy": pl.Float64(),
    "state": pl.String(),
    "seconds": pl.Float64(),
    "metrics": pl.List(pl.String),
    "problem": pl.String(),
}


def runs(folder: Path) -> Answer:
    """One row per run at or below a folder.

    Returns:
        Rows run (its path), name, created_at, modes, epochs (how many), rows (as recorded, not verified), accuracy (the
        share of right predictions in the last epoch of eval, else of train; null without predictions, and with several
        data sets), state (`running`, `finished`, `crashed`), seconds (that its attempts were recorded for; null where
        they do not say), metrics, problem (why it cannot be read; null where it can); by path.

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
            "accuracy": _accuracy(reader),
            "state": _state(layout),
            "seconds": _seconds(layout),
            "metrics": list(reader.metrics),
        }
    except XaiError as error:
        return row | {"problem": error.message}


def _accuracy(reader: Reader) -> float | None:
    mode = next((mode for mode in (Mode.EVAL, Mode.TRAIN) if mode in reader.modes()), None)
    ds_ids = reader.ds_ids(mode) if mode else []
    if CORRECT not in reader.dtypes or mode is None or len(ds_ids) != 1:
        return None
    frame, _ = reader.frame(Place(mode, ds_ids[0], reader.epochs(mode, ds_ids[0])[-1]), [CORRECT])
    mean = frame[CORRECT].cast(pl.Float64).mean()
    return float(mean) if isinstance(mean, float) else None


def _state(layout: RunLayout) -> str:
    """`running` where a process holds a lock of the run, `crashed` where the last start left one behind."""
    locks = list(layout.wal.glob("a*-r*.lock"))
    if any(is_held(lock) for lock in locks):
        return "running"
    last = max((attempt.attempt for attempt in layout.read_attempts()), default=0)
    return "crashed" if any(lock.name.startswith(f"a{last:06d}-") for lock in locks) else "finished"


def _seconds(layout: RunLayout) -> float | None:
    """How long all attempts were recorded together, as their files say; None where one does not."""
    total = 0.0
    for attempt in layout.read_attempts():
        ends = [_written_at(path) for path in layout.attempts.glob(f"{attempt.attempt:06d}-r*.stats")]
        try:
            began = datetime.fromisoformat(attempt.started_at)
        except ValueError:
            return None
        if began.tzinfo is None or not ends or None in ends:
            return None
        total += max(0.0, max((end - began).total_seconds() for end in ends if end is not None))
    return total


def _written_at(path: Path) -> datetime | None:
    """When the counters of a rank were last written."""
    try:
        when = datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["written_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
