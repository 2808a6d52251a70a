"""Runs kept as CSV: values over time, as Lightning's `CSVLogger` writes them, or one row a sample and epoch."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError
from xaicli.importers.recorded import Recorded, Values, attempted
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, PASS, PREDICTION, SAMPLE_ID, STEP
from xaicli.words import unguarded

_LOG = "metrics.csv"
_SETTINGS = "hparams.yaml"
_TIMES = {"step": STEP, "_step": STEP, "global_step": STEP, "iteration": "iteration", "epoch": EPOCH}
"""Columns that give the time, in any case of letters."""
_PLACE = (MODE, DS_ID, EPOCH, PASS, STEP)
_BATCH = 65_536
_WHOLE = re.compile(r"-?(0|[1-9]\d*)")


class CsvRuns:
    """A `.csv`, or a folder with `metrics.csv` in it or in folders below (`lightning_logs/`)."""

    def reads(self, path: Path) -> bool:
        """Whether it is such a file, or there is one in it or below."""
        return bool(_files(path))

    def runs(self, path: Path) -> Iterator[Recorded]:
        """The run of each file.

        With a column `sample_id` a row is a sample's, with mode, ds_id, epoch, pass, step, label, prediction as far as
        there are such columns, and metrics; without it each is what was logged at one time.

        A file that cannot be read is a run with a problem.
        """
        for file in _files(path):
            name = file.parent.name if file.name == _LOG else file.stem
            yield attempted(name, file, partial(_run, file, name))


def _run(file: Path, name: str) -> Recorded:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            names = [unguarded(name) for name in next(csv.reader(lines), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise XaiError(f"{file} cannot be read: {error}") from error
    if len(set(names)) < len(names) or not names:
        raise XaiError(f"{file} has no header with a name of its own for each column")
    return _samples(file, name, names) if SAMPLE_ID in names else _log(file, name, names)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".csv" else []
    return sorted({*path.glob(_LOG), *path.glob(f"*/{_LOG}"), *path.glob(f"*/*/{_LOG}")})


def _rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines, strict=True), start=2):
                if None in row or None in row.values():
                    raise XaiError(f"{file}, row {number}: another number of cells than in the header")
                yield {unguarded(name): unguarded(cell) for name, cell in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise XaiError(f"{file} cannot be read: {error}") from error


def _log(file: Path, name: str, names: list[str]) -> Recorded:
    """Values over time; an empty cell is a value that was not logged then."""
    times = {column: axis for column in names if (axis := _TIMES.get(column.lower()))}
    values = Values()
    rows = []
    for row in _rows(file):
        own = {times.get(column, column): _number(cell) for column, cell in row.items() if cell.strip()}
        rows.append(values.numbers(own))
    notes = () if times else ("no column says when: the values are numbered",)
    left_out = values.left_out | ({f"settings in {_SETTINGS}": 1} if (file.parent / _SETTINGS).exists() else {})
    return Recorded(name, tuple(rows), left_out=left_out, notes=(*notes, *values.notes()))


def _number(cell: str) -> float | int | str:
    """What a cell says: a whole number, a number, or the text that it is."""
    text = cell.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _samples(file: Path, name: str, names: list[str]) -> Recorded:
    """One row a sample. What a column holds is decided by all of it, in a first reading."""
    keys = [key for key in (SAMPLE_ID, LABEL, PREDICTION) if key in names]
    # Whether a prediction is right follows from the label.
    passed_over = (*_PLACE, *(("correct",) if len(keys) == 3 else ()))
    held = {column: _Column() for column in names if column not in passed_over}
    for row in _rows(file):
        for column, seen in held.items():
            seen.look(row[column])
    metrics = [column for column in held if column not in keys]
    readings = {key: held[key].reading(is_id=key == SAMPLE_ID) for key in keys} | dict.fromkeys(metrics, _metric)
    return Recorded(
        name,
        samples=_batches(file, readings),
        float64=tuple(metrics),
        left_out={f"texts in the column {column}": n for column in metrics if (n := held[column].texts)},
        notes=() if MODE in names else ("no column mode: the rows are those of train",),
    )


def _metric(cell: str) -> float | None:
    value = _number(cell)
    return None if isinstance(value, str) else float(value)


class _Column:
    """What the cells of a column are, as far as they were looked at."""

    def __init__(self) -> None:
        self.texts = 0
        self._are_whole = self._are_sets = True

    def look(self, cell: str) -> None:
        """Take one more cell into account; an empty one says nothing."""
        if text := cell.strip():
            value = _number(text)
            self.texts += isinstance(value, str)
            self._are_whole &= isinstance(value, int)
            self._are_sets &= text.startswith("[")

    def reading(self, *, is_id: bool) -> Callable[[str], Any]:
        """How its cells are read: as whole numbers, sets of classes, text, or numbers."""
        if self._are_whole:
            return _or_none(int)
        if is_id:
            return _or_none(str)
        return _or_none(json.loads if self._are_sets else str if self.texts else float)


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: read(cell) if cell.strip() else None


def _batches(file: Path, readings: Mapping[str, Callable[[str], Any]]) -> Iterator[dict[str, Any]]:
    """What `Run.log_samples` takes: rows behind each other that are of one place and step, at most `_BATCH` at once."""

    def place(row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row.get(key, "").strip() for key in _PLACE)

    for (mode, ds_id, *numbers), rows in groupby(_rows(file), key=place):
        origin: dict[str, Any] = {MODE: mode or None, DS_ID: ds_id or None}
        for key, text in zip((EPOCH, "eval_pass", STEP), numbers, strict=True):
            origin[key] = _number(text) if text else None
        for some in _in_parts(rows):
            yield origin | {column: [read(row[column]) for row in some] for column, read in readings.items()}


def _in_parts(rows: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    part: list[dict[str, str]] = []
    for row in rows:
        part.append(row)
        if len(part) == _BATCH:
            yield part
            part = []
    if part:
        yield part
