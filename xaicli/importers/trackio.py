"""trackio's projects: one SQLite file each, with all runs of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError
from xaicli.importers.recorded import Recorded, Values, attempted

_SQLITE = b"SQLite format 3\0"


class TrackioRuns:
    """A project's `.db`, or trackio's folder with one."""

    def reads(self, path: Path) -> bool:
        """Whether it is a SQLite file with a table of metrics, or there is one in it."""
        return any(_has_metrics(file) for file in _files(path))

    def runs(self, path: Path) -> Iterator[Recorded]:
        """The runs of each project; one that cannot be read has a problem, and so has a project, under its own name."""
        for file in _files(path):
            if _has_metrics(file):
                try:
                    yield from _runs(file)
                except sqlite3.Error as error:
                    problem = XaiError(f"{file} cannot be read as a project of trackio: {error}")
                    yield Recorded(file.stem, problem=problem)


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob("*.db"))
    return [file for file in files if _begins(file) == _SQLITE]


def _begins(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(len(_SQLITE))


def _open(file: Path) -> sqlite3.Connection:
    # Nothing is written, not even beside the file.
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)


def _has_metrics(file: Path) -> bool:
    try:
        with closing(_open(file)) as base:
            return {"run_name", "step", "metrics"} <= {row[1] for row in base.execute("pragma table_info(metrics)")}
    except sqlite3.Error:
        return False


def _runs(file: Path) -> Iterator[Recorded]:
    with closing(_open(file)) as base:
        columns = {row[1] for row in base.execute("pragma table_info(metrics)")}
        # Files of older versions have no run_id; names are unique there.
        key = "run_id" if "run_id" in columns else "run_name"
        runs = base.execute(f"select {key}, min(run_name) from metrics group by {key} order by min(id)").fetchall()
        for run, name in runs:
            yield attempted(name, file, partial(_run, base, key, run, name))


def _run(base: sqlite3.Connection, key: str, run: Any, name: str) -> Recorded:
    values = Values()
    logged = base.execute(f"select step, metrics from metrics where {key} = ? order by step, id", (run,))
    rows = tuple({**values.numbers(json.loads(text)), "step": step} for step, text in logged)
    config: dict[str, Any] = {}
    if base.execute("select 1 from sqlite_master where type = 'table' and name = 'configs'").fetchone():
        for (text,) in base.execute(f"select config from configs where {key} = ?", (run,)):
            config |= json.loads(text)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return Recorded(name, rows, config=config, left_out=values.left_out, notes=values.notes())
