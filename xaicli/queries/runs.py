"""What a run holds, and the runs below a folder."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import DamagedFileError, XaiError
from xaicli.layout import RunLayout, find_runs
from xaicli.locks import is_held
from xaicli.queries.recorded import LeftOut, recorded_scalars
from xaicli.queries.sql import metrics_tables
from xaicli.reader import Place, Reader
from xaicli.reader.lazy import sound_pieces
from xaicli.reader.pieces import foreign_files
from xaicli.recorder.attempt import lock_path
from xaicli.recorder.ledger import Ending, read_ending
from xaicli.recorder.parts import last_sign
from xaicli.recorder.uniformity import other_tools
from xaicli.state.best import Checkpoint, checkpoints
from xaicli.state.folder import saved_states
from xaicli.vocabulary import CORRECT, DS_ID, MODE, Mode
from xaicli.words import spelled


def info(reader: Reader) -> Answer:
    """One row per (mode, ds_id); saved states and checkpoints are named in the selection.

    Returns:
        Rows mode, ds_id, epochs (list), rows (those that count), metrics (list of the run's metrics), files, last_step,
        duplicates (rows that repeat a sample), gaps (epochs missing between the first and the last, the first 1,000 of
        them), n_gaps (how many there are), stride (every so manyth epoch was meant to be there); beside them
        `tables`: name, rows and columns of each metrics table, and the commands that `ask` it beside `xai query`; and
        `facts`: fact, type, samples, values. Every byte is verified, once while nothing changes.
    """
    sound_pieces(reader, reader.folders())
    _verify_beside(reader)
    reader.note_all_faults()
    # Whoever reads them notes what is damaged, which is counted below.
    tables, facts = _tables(reader), _facts(reader)
    rows = []
    for mode in reader.modes():
        for ds_id in reader.ds_ids(mode):
            epochs = reader.epochs(mode, ds_id)
            places = [Place(mode, ds_id, epoch) for epoch in epochs]
            missing, n_missing, stride = gaps(epochs, reader.manifest.epoch_frequency)
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
                    "gaps": missing,
                    "n_gaps": n_missing,
                    "stride": stride,
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
        "n_gaps": pl.Int64(),
        "stride": pl.Int64(),
    }
    data = pl.DataFrame(rows, schema=schema, orient="row")
    other_scalars = LeftOut()
    recorded_scalars(reader, other_scalars)
    non_finite = sum(map(reader.non_finite_count, reader.folders()))  # which may read files that are damaged
    return Answer(
        command="info",
        run=reader.layout.described,
        selection={
            "id_type": reader.manifest.id_type,
            "task": reader.manifest.task,
            "attempts": reader.which_attempts.value,
            "starts": len(reader.attempts),
            **ending_of(reader.layout),
            "states": [f"{s.path.name} (step {s.step}, epoch {s.epoch})" for s in saved_states(reader.layout.state)],
            "checkpoints": [_checkpoint(found) for found in checkpoints(reader.layout.checkpoints)],
        },
        data=data,
        counts=replace(
            reader.counts(),
            rows=int(data["rows"].sum()),
            non_finite=non_finite,
            duplicates=int(data["duplicates"].sum()),
        ),
        warnings=(
            *reader.warnings,
            *other_scalars.warnings(),
            *reader.facts.warnings,
            *_unknown_ids_note(reader),
            *_hidden(reader.manifest.epoch_frequency),
            *reader.losses,
            *other_tools(reader.layout, reader.manifest.columns, _foreign(reader), reader.contents),
        ),
        extra={"tables": tables, "facts": facts},
    )


def _verify_beside(reader: Reader) -> None:
    """Note which files of pictures and of kept inputs are damaged."""

    def damaged() -> list[tuple[str, DamagedFileError]]:
        folders = (reader.layout.media, reader.layout.inputs)
        files = [file.path for folder in folders for file in reader.record_files(folder)]
        return reader.verified.check(files, reader.records)[1]

    for path, error in reader.while_files_last(damaged):
        reader.note(error, path)


def _foreign(reader: Reader) -> frozenset[Path]:
    """The files among the run's that are not its own."""
    return foreign_files(reader.layout, reader.records, reader.manifest.run_id, reader.contents)


def _facts(reader: Reader) -> list[dict[str, Any]]:
    """What is known of samples: fact, type, samples it is known of, values (how many there are)."""
    frame = reader.facts.frame
    return [
        {
            "fact": name,
            "type": _type(frame.schema[name]),
            "samples": frame.height - frame[name].null_count(),
            "values": frame[name].drop_nulls().n_unique(),
        }
        for name in reader.facts.names
    ]


def _type(dtype: pl.DataType) -> str:
    """The type of a fact as people say it: `datetime (utc)`, without its unit."""
    if isinstance(dtype, pl.Datetime):
        return f"datetime ({dtype.time_zone})" if dtype.time_zone else "datetime"
    return str(dtype).lower()


def _unknown_ids_note(reader: Reader) -> tuple[str, ...]:
    """How many ids of recorded facts are no samples: no question shows those facts."""
    if not reader.facts.names or not (n := reader.facts.n_unknown_ids()):
        return ()
    ids = "1 id with facts is no sample" if n == 1 else f"{n:,} ids with facts are no samples"
    return (f"{ids} of the run: nothing was logged of {'it' if n == 1 else 'them'}",)


def _hidden(epoch_frequency: int) -> tuple[str, ...]:
    if epoch_frequency == 1:
        return ()
    every = f"epochs that {epoch_frequency} divides"
    return (f"samples are recorded in {every} only: epoch_frequency={epoch_frequency} of Run",)


def _tables(reader: Reader) -> list[dict[str, Any]]:
    from xaicli.queries.table_samples import ways_to_ask

    return [
        {
            "name": name,
            "rows": lazy.select(pl.len()).collect().item(),
            "columns": lazy.collect_schema().names(),
            "ask": ways_to_ask(reader, name),
        }
        for name, lazy in metrics_tables(reader).items()
    ]


def _checkpoint(found: Checkpoint) -> str:
    if found.value is None:
        return found.path.name
    best = "best " if found.is_best else ""
    return f"{found.path.name} ({best}{found.metric} {found.value:g})"


_GAPS = 1000


def gaps(epochs: list[int], recorded_every: int = 1) -> tuple[list[int], int, int]:
    """The epochs missing from an ascending list, counted, of every epoch or of every n-th.

    They are counted and not all listed: whoever takes the date or the time for an epoch has them millions apart.

    Args:
        epochs: Those that are there.
        recorded_every: The run's `epoch_frequency`.

    Returns:
        The first 1,000 that are missing, how many are, and n: the shortest distance where it divides all others and
        occurs twice or more, since of two epochs any distance would be one; else `epoch_frequency`, where that divides
        them; else 1.
    """
    distances = [later - earlier for earlier, later in pairwise(epochs)]
    if not distances:
        return [], 0, recorded_every
    shortest = min(distances)
    strides = [shortest] if distances.count(shortest) > 1 else []
    stride = next(n for n in (*strides, recorded_every, 1) if not any(distance % n for distance in distances))
    meant, present = range(epochs[0], epochs[-1], stride), set(epochs)
    missing = (epoch for epoch in meant if epoch not in present)
    return list(islice(missing, _GAPS)), len(meant) + 1 - len(epochs), stride


_SCHEMA = {
    "run": pl.String(),
    "name": pl.String(),
    "created_at": pl.String(),
    "modes": pl.List(pl.String),
    "epochs": pl.Int64(),
    "rows": pl.Int64(),
    "accuracy": pl.Float64(),
    "accuracy_mode": pl.String(),
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
        data sets), accuracy_mode (which of the two, null without), state (`running`, `finished`, `crashed`, or
        `waiting` before the first row), seconds (that its attempts were recorded for; null where they do not say),
        metrics, problem (why it cannot be read; null where it can); by path. Damaged files that were met are left out
        and counted; not every byte is verified.

    Raises:
        XaiError: There is no such folder.
    """
    if not folder.is_dir():
        raise XaiError(f"{folder} is no folder", hint="xai ls [FOLDER] lists the runs at or below a folder")
    found = find_runs(folder)
    rows, damaged, said = [], [], []
    for layout in found:
        row, left_out, faults = _row(layout)
        rows.append(row)
        damaged += [f"{row['run']}/{path}" for path in left_out]
        said += [f"{row['run']}/{fault}" for fault in faults]
    data = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    return Answer(
        command="ls",
        run=str(folder),
        selection={},
        data=data,
        counts=Counts(rows=data.height, damaged=tuple(damaged)),
        warnings=tuple(said)
        if found
        else (f"there are no runs at or below {folder.resolve() if folder == Path() else folder}",),
    )


def _row(layout: RunLayout) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """A run's row, its files that were left out as damaged, and what the row does without because of small ones."""
    row: dict[str, Any] = dict.fromkeys(_SCHEMA) | {"run": spelled(layout.described)}
    try:
        reader = Reader(layout)
        manifest = reader.manifest
        modes = reader.modes()
        pairs = [(mode, ds_id) for mode in modes for ds_id in reader.ds_ids(mode)]
        places = [Place(*pair, epoch) for pair in pairs for epoch in reader.epochs(*pair)]
        row |= {
            "name": spelled(manifest.name or layout.root.resolve().name),
            "created_at": manifest.created_at,
            "modes": modes,
            "epochs": len({place.epoch for place in places}),
            "rows": sum(reader.row_count(place) for place in places),
            **dict(zip(("accuracy", "accuracy_mode"), _accuracy(reader), strict=True)),
            "state": state_of(layout),
            "seconds": _seconds(layout),
            "metrics": list(reader.metrics),
        }
        return row, reader.damaged, reader.faults
    except XaiError as error:
        return row | {"problem": spelled(error.message)}, (), ()
    except OSError as error:
        return row | {"problem": spelled(f"{error.strerror or error}: {error.filename or layout.described}")}, (), ()


def _accuracy(reader: Reader) -> tuple[float | None, str | None]:
    """The share of right predictions, and the mode they are of."""
    mode = next((mode for mode in (Mode.EVAL, Mode.TRAIN) if mode in reader.modes()), None)
    ds_ids = reader.ds_ids(mode) if mode else []
    if CORRECT not in reader.dtypes or mode is None or len(ds_ids) != 1:
        return None, None
    frame, _ = reader.frame(Place(mode, ds_ids[0], reader.epochs(mode, ds_ids[0])[-1]), [CORRECT])
    mean = frame[CORRECT].cast(pl.Float64).mean()
    return (float(mean), str(mode)) if isinstance(mean, float) else (None, None)


def state_of(layout: RunLayout) -> str:
    """`running` where a process holds a lock of the run, `crashed` where the last start was killed or died of an error.

    A killed process left its lock behind, or has not said that it closed the run; one that an exception or a signal
    ended has said so. `waiting` where none has recorded anything yet: the first row is what makes the first lock.
    """
    return _state_and_ends(layout)[0]


def ending_of(layout: RunLayout) -> dict[str, str]:
    """`state`, and `ended_by`, the exceptions and signals that ended the last start; nothing of a run in a store."""
    if layout.address:
        return {}
    state, ends = _state_and_ends(layout)
    return {"state": state, "ended_by": ", ".join(dict.fromkeys(end.by for end in ends if end.by))}


def _state_and_ends(layout: RunLayout) -> tuple[str, list[Ending]]:
    """The state of a run, and what each rank of its last start says of its end."""
    locks, last = _left(layout)
    running = any(is_held(lock) for lock in locks)
    ends = [read_ending(path) for path in _counters(layout, last or 0)]
    if running:
        return "running", ends
    # A process that ended in order while it was asked for has taken its lock away, and another may have begun.
    if _left(layout) != (locks, last):
        return _state_and_ends(layout)
    killed = any(lock.name.startswith(f"a{last or 0:06d}-") for lock in locks)
    if killed or any(end.by or end.is_closed is False for end in ends):
        return "crashed", ends
    # A start is claimed before its lock is made, and says nothing of itself in between.
    recorded = any(folder.is_dir() for folder in (layout.data, layout.scalars, layout.tables, layout.facts))
    return "finished" if recorded or any(end.is_closed for end in ends) else "waiting", ends


def _counters(layout: RunLayout, attempt: int) -> list[Path]:
    """The counters of the ranks of an attempt."""
    return sorted(layout.attempts.glob(f"{attempt:06d}-r*.stats"))


def _left(layout: RunLayout) -> tuple[set[Path], int | None]:
    """The locks of a run, and its last start; None where none is told of."""
    last = max((attempt.attempt for attempt in layout.read_attempts()), default=None)
    return set(layout.wal.glob("a*-r*.lock")), last


def _seconds(layout: RunLayout) -> float | None:
    """How long its attempts were recorded, one that is still recorded until now; None where one does not say.

    A killed process was at work until its last row, or the last that it touched its lock, which it does every 15 s.
    What two attempts were at at once counts once.
    """
    spans = []
    for attempt in layout.read_attempts():
        ends = [_end(layout, attempt.attempt, path) for path in _counters(layout, attempt.attempt)]
        try:
            began = datetime.fromisoformat(attempt.started_at)
        except ValueError:
            return None
        if began.tzinfo is None or not ends or None in ends:
            return None
        spans.append((began.timestamp(), max(end for end in ends if end is not None)))
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _end(layout: RunLayout, attempt: int, counters: Path) -> float | None:
    """Until when a rank was recorded, in seconds since 1970; now where it still is, None where nothing says so."""
    rank = int(counters.stem.partition("-r")[2])
    if is_held(lock_path(layout, attempt, rank)):
        return time.time()
    ending = read_ending(counters)
    if ending.is_closed is not False:
        return ending.written_at
    signs = [sign for sign in (ending.last_sign, last_sign(layout, attempt, rank)) if sign]
    # The counters may be older than the last row; alone they say nothing of the end.
    return max([*signs, ending.written_at or 0.0]) if signs else None
