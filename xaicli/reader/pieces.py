"""The pieces a run's rows lie in at one moment, files and live segments, and which of their rows count."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, RunLayout, decode_ds_id, decode_epoch
from xaicli.reader.pages import Footer, read_footer, step_range
from xaicli.takeback import Share, TakeBack, TakenBack, shares, take_backs
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK, STEP, Attempts, Mode
from xaicli.wal import take_snapshot
from xaicli.wal.snapshot import LiveRows, live_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.parquet import Contents, FileRecord


class Place(NamedTuple):
    """What a row belongs to: a walk over one data set in one mode."""

    mode: str
    ds_id: str
    epoch: int
    turn: int | None = None
    """The pass, from 0; None for the last one of the epoch."""

    @property
    def folder(self) -> Place:
        """The epoch, whatever the pass: what rows of one folder belong to."""
        return Place(self.mode, self.ds_id, self.epoch)


@dataclass(frozen=True)
class Piece:
    """Rows of one epoch by one writer: a finished file, or the copy of a live segment.

    Attributes:
        place: Their mode, ds_id and epoch; their passes are in the rows.
        order: (attempt, rank, sequence): later pieces win over earlier ones.
        file: The finished file; None for a live segment.
        live: The rows of a live segment; None for a file.
        fence: Rows from this step on do not count, a later attempt took them back; None where all count.
    """

    place: Place
    order: tuple[int, int, int]
    file: DataFile | None = None
    live: pa.Table | None = None
    fence: int | None = None

    @property
    def attempt(self) -> int:
        """The restart the rows belong to."""
        return self.order[0]


@dataclass(frozen=True)
class Listing:
    """Everything that counts, at one moment.

    Attributes:
        places: The pieces of each folder in order; folders without a piece that counts are absent.
        take_backs: From where each attempt takes back earlier ones' rows.
        taken: Pieces of which rows were taken back, with what of them.
        damaged: Files whose footer could not be trusted, that are not this run's, or that are recorded but gone, and
            segments that lost rows, relative to the run; each with what is wrong with it.
        ignored: Labels in live segments that stood for none.
        trained: The attempts that have `train` rows.
        steps_go_on: Whether the training steps go on over the epochs, so that a step alone is a moment.
        begins_anew: Whether an attempt trains the epoch from which on it takes back from its first step on.
    """

    places: Mapping[Place, tuple[Piece, ...]]
    take_backs: tuple[TakeBack, ...] = ()
    taken: tuple[tuple[Piece, tuple[Share, ...]], ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    ignored: int = 0
    trained: frozenset[int] = frozenset()
    steps_go_on: Callable[[], bool] = lambda: False
    begins_anew: Callable[[TakeBack], bool] = lambda _: False


def list_pieces(
    layout: RunLayout,
    records: Mapping[str, FileRecord],
    run_id: str,
    attempts: Attempts = Attempts.LAST,
    contents: Contents | None = None,
    known: dict[Any, LiveRows] | None = None,
) -> Listing:
    """List what counts now.

    Args:
        layout: The run.
        run_id: Its id, which files that are not recorded must say in their footer.
        records: What is recorded of finished files, read *before* this call, {path relative to the run: record}.
        attempts: `last` leaves out what later attempts took back, `all` leaves out nothing.
        contents: What keeps small files, so that none is opened twice.
        known: Rows of live segments as they were listed before, which takes those listed now.
    """
    others = foreign_files(layout, records, run_id, contents)
    closed: list[Path] = []
    snapshot = take_snapshot(layout, others, closed)
    damaged = {p.relative_to(layout.root).as_posix(): f"is damaged: {lost}" for p, lost in snapshot.damaged.items()}
    damaged |= {path.relative_to(layout.root).as_posix(): "is not this run's" for path in others}
    damaged |= dict.fromkeys(_gone(layout, records, snapshot.files), "is missing")
    for folder in (path.relative_to(layout.root).as_posix() for path in dict.fromkeys(closed)):
        # Its files are named like those that may not be read one by one; the folder itself where none is known.
        inside = [path for path in records if path.startswith(f"{folder}/") and path in damaged]
        damaged |= dict.fromkeys(inside or [folder], "may not be read")
    pieces = []
    for file in snapshot.files:
        if relative(layout, file) in records or is_of_run(file, run_id, contents):
            pieces.append(_of_file(file))
        else:
            damaged[relative(layout, file)] = "is not this run's"
    live = live_rows(layout, snapshot.segments, known)
    pieces += [_of_rows(rows) for rows in live]
    steps = _Steps(layout, records, damaged, contents)
    back = _take_backs(layout, pieces, steps) if attempts is Attempts.LAST else ()
    kept: list[Piece] = []
    taken: list[tuple[Piece, tuple[Share, ...]]] = []
    for piece in pieces:
        left, lost = _divided(piece, back, steps)
        kept += [left] if left else []
        taken += [(piece, lost)] if lost else []
    places: dict[Place, list[Piece]] = {}
    for piece in sorted(kept, key=lambda piece: (piece.place, piece.order)):
        places.setdefault(piece.place, []).append(piece)
    in_order = {place: tuple(group) for place, group in places.items()}
    ignored = sum(rows.ignored for rows in live)
    trained = [piece for piece in pieces if piece.place.mode == Mode.TRAIN]
    return Listing(
        in_order,
        back,
        tuple(taken),
        dict(sorted(damaged.items())),
        ignored,
        frozenset(piece.attempt for piece in trained),
        lambda: _go_on(trained, steps),
        lambda by: _begins_anew(by, trained, steps),
    )


def count_taken_back(
    layout: RunLayout,
    records: Mapping[str, FileRecord],
    taken: Iterable[tuple[Piece, tuple[Share, ...]]],
    contents: Contents | None = None,
    damaged: dict[str, str] | None = None,
) -> tuple[TakenBack, ...]:
    """How many rows each attempt took back of each other; a file is read only where a limit lies within it.

    Args:
        layout: The run.
        records: What is recorded of finished files.
        taken: As of `Listing`.
        contents: What keeps small files.
        damaged: Takes the files whose rows cannot be counted, each with what is wrong with it.
    """
    rows: dict[tuple[TakeBack, int], int] = {}
    faults: dict[str, str] = {} if damaged is None else damaged
    steps = _Steps(layout, records, faults, contents)
    for piece, lost in taken:
        for share in lost:
            key = (share.by, piece.attempt)
            rows[key] = rows.get(key, 0) + _count(layout, records, piece, share, steps.of(piece), contents, faults)
    return tuple(TakenBack(by.attempt, attempt, by.epoch, by.step, n) for (by, attempt), n in sorted(rows.items()) if n)


def _count(
    layout: RunLayout,
    records: Mapping[str, FileRecord],
    piece: Piece,
    share: Share,
    steps: tuple[int, int] | None,
    contents: Contents | None,
    damaged: dict[str, str],
) -> int:
    inside = share.holds(steps) if steps else False
    if not inside and inside is not None:
        return 0
    if piece.live is not None:
        found = piece.live.column(STEP).to_numpy()
    else:
        assert piece.file is not None
        record = records.get(relative(layout, piece.file))
        if inside and record:
            return record.rows
        try:
            with parquet.opened(piece.file.path, record, contents) as file:
                found = parquet.decoded(file, [STEP]).column(STEP).to_numpy()
        except DamagedFileError:
            damaged[relative(layout, piece.file)] = "is damaged"
            return 0
        except FileNotFoundError:
            return 0
    kept = found >= share.low if share.low is not None else found == found
    return int((kept & (found < share.high) if share.high is not None else kept).sum())


def is_of_run(file: DataFile, run_id: str, contents: Contents | None = None) -> bool:
    """Whether a file that nothing is recorded of says in its footer that it belongs where it lies.

    Raises:
        FileNotFoundError: It has vanished.
    """
    try:
        with parquet.opened(file.path, contents=contents) as opened:
            footer = Footer.of(opened.metadata)
    except DamagedFileError:
        return False
    place = {MODE: file.mode, DS_ID: file.ds_id, EPOCH: file.epoch}
    writer = {ATTEMPT: file.part.attempt, RANK: file.part.rank}
    # A copy of a part under another number would double its rows.
    numbers = {"sequence": file.part.first, "last_sequence": file.part.last}
    told = {"last_sequence": footer.origin.get("sequence"), **footer.origin}
    return told == {"run_id": run_id, **place, **writer, **numbers}


def foreign_files(
    layout: RunLayout, records: Mapping[str, FileRecord], run_id: str, contents: Contents | None = None
) -> frozenset[Path]:
    """The Parquet files among the data that are not this run's: by name, by folder, or by what their footer says.

    Only files that nothing is recorded of are opened.
    """
    found = []
    for folder, _, names in os.walk(layout.data):
        at = Path(folder)
        place = _place_of(at.relative_to(layout.data).parts)
        prefix = at.relative_to(layout.root).as_posix()
        for name in names:
            if not name.endswith(".parquet") or name.startswith("."):
                continue
            part = PartName.parse(name) if place else None
            if place is None or part is None:
                found.append(at / name)
            elif f"{prefix}/{name}" not in records:
                with contextlib.suppress(FileNotFoundError):
                    if not is_of_run(DataFile(*place[:3], part, at / name), run_id, contents):
                        found.append(at / name)
    return frozenset(found)


def foreign_records(
    layout: RunLayout,
    folder: Path,
    records: Mapping[str, FileRecord],
    run_id: str,
    contents: Contents | None = None,
) -> set[Path]:
    """The Parquet files in a folder of what is logged beside samples that are not this run's.

    By name, or those that neither the run's records nor their own footer know, where any file of the folder is recorded
    at all. What a training has stored since the records were read is known to its own footer, or to the records now.
    """
    found = set()
    unknown = []
    here = folder.relative_to(layout.root).as_posix()
    for path in _parquet_in(folder):
        part = PartName.parse(path.name)
        if part is None:
            found.add(path)
        elif f"{here}/{path.name}" not in records and not _says(path, part, run_id, contents):
            unknown.append(path)
    now = parquet.read_records(layout) if unknown else {}
    if any(known.startswith(f"{here}/") for known in now):
        found |= {path for path in unknown if f"{here}/{path.name}" not in now}
    return found


def _parquet_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.name.endswith(".parquet") and not p.name.startswith("."))
    except OSError:
        return []


def _says(path: Path, part: PartName, run_id: str, contents: Contents | None) -> bool:
    """Whether the footer of a file says that it is a run's part of that name, or it has vanished meanwhile."""
    try:
        with parquet.opened(path, contents=contents) as opened:
            origin = Footer.of(opened.metadata).origin
    except FileNotFoundError:
        return True
    except DamagedFileError:
        return False
    return origin == {"run_id": run_id, ATTEMPT: part.attempt, RANK: part.rank, "sequence": part.first}


def foreign(path: str, missing: Iterable[str]) -> DamagedFileError:
    """The error for a sound file that lacks columns which every file of its folder has."""
    return DamagedFileError(
        f"{path} is not this run's: it has no column {', '.join(sorted(missing))}", hint="see: xai doctor"
    )


def _place_of(parts: tuple[str, ...]) -> Place | None:
    """The place of a folder below `data/`; None for one that is none."""
    if len(parts) != 3 or not parts[0].startswith("mode=") or not parts[1].startswith("ds="):
        return None
    epoch = decode_epoch(parts[2])
    if epoch is None:
        return None
    return Place(parts[0].removeprefix("mode="), decode_ds_id(parts[1].removeprefix("ds=")), epoch)


def relative(layout: RunLayout, file: DataFile) -> str:
    """A file's path as records and reports name it."""
    return file.path.relative_to(layout.root).as_posix()


def _of_file(file: DataFile) -> Piece:
    part = file.part
    return Piece(Place(file.mode, file.ds_id, file.epoch), (part.attempt, part.rank, part.first), file=file)


def _of_rows(rows: LiveRows) -> Piece:
    return Piece(Place(rows.mode, rows.ds_id, rows.epoch), (rows.attempt, rows.rank, rows.sequence), live=rows.table)


def _gone(layout: RunLayout, records: Mapping[str, FileRecord], files: Iterable[DataFile]) -> list[str]:
    """Recorded data files that are neither there nor superseded: their rows are missing from every answer."""
    present: dict[str, set[PartName]] = {}
    for file in files:
        present.setdefault(relative(layout, file).rpartition("/")[0], set()).add(file.part)
    return [path for path in records if path.startswith("data/") and _is_gone(path, present)]


def gone_records(layout: RunLayout, folder: Path, records: Mapping[str, FileRecord]) -> list[str]:
    """The same of a folder of what is logged beside samples."""
    here = folder.relative_to(layout.root).as_posix()
    recorded = [path for path in records if path.rpartition("/")[0] == here]
    present = {here: {part for path in _parquet_in(folder) if (part := PartName.parse(path.name))}}
    return [path for path in recorded if _is_gone(path, present)]


def _is_gone(path: str, present: Mapping[str, Collection[PartName]]) -> bool:
    """Whether a recorded file is not among those of its folder, nor one that holds its rows."""
    folder, _, name = path.rpartition("/")
    part = PartName.parse(name)
    return part is not None and not any(other.covers(part) for other in present.get(folder, ()))


def _take_backs(layout: RunLayout, pieces: list[Piece], steps: _Steps) -> tuple[TakeBack, ...]:
    """From where each attempt takes back earlier ones' rows."""
    first: dict[int, tuple[int, int]] = {}
    for attempt in sorted({piece.attempt for piece in pieces} - {0}):
        trained = [p for p in pieces if p.attempt == attempt and p.place.mode == Mode.TRAIN]
        for epoch in sorted({piece.place.epoch for piece in trained}):
            ranges = [steps.of(piece) for piece in trained if piece.place.epoch == epoch]
            if known := [found[0] for found in ranges if found]:
                first[attempt] = (epoch, min(known))
                break
    return take_backs(layout.read_attempts(), first)


def _go_on(trained: Iterable[Piece], steps: _Steps) -> bool:
    """Whether each epoch's steps come after those of the epoch before, in all attempts together."""
    ranges: dict[int, tuple[int, int]] = {}
    for piece in trained:
        if found := steps.of(piece):
            low, high = ranges.get(piece.place.epoch, found)
            ranges[piece.place.epoch] = min(low, found[0]), max(high, found[1])
    in_order = [ranges[epoch] for epoch in sorted(ranges)]
    return all(before[1] < after[0] for before, after in pairwise(in_order))


def _begins_anew(by: TakeBack, trained: Iterable[Piece], steps: _Steps) -> bool:
    """Whether earlier attempts trained nothing of an epoch before the step from which on it is taken back."""
    earlier = [piece for piece in trained if piece.attempt < by.attempt and piece.place.epoch == by.epoch]
    first = [found[0] for piece in earlier if (found := steps.of(piece))]
    return by.step <= 0 or (bool(first) and min(first) >= by.step)


def _divided(piece: Piece, back: tuple[TakeBack, ...], steps: _Steps) -> tuple[Piece | None, tuple[Share, ...]]:
    """What counts of a piece, None for nothing, and what was taken back of it."""
    lost = tuple(shares(piece.attempt, piece.place.epoch, back)) if back else ()
    if not lost:
        return piece, ()
    low = lost[-1].low
    if low is None:
        return None, lost
    found = steps.of(piece)
    if found is None:
        return None, ()
    if found[1] < low:
        return piece, ()
    return (None if found[0] >= low else replace(piece, fence=low)), lost


class _Steps:
    """The first and last step of pieces, each looked up once."""

    def __init__(
        self, layout: RunLayout, records: Mapping[str, FileRecord], damaged: dict[str, str], contents: Contents | None
    ) -> None:
        self._contents = contents
        self._layout = layout
        self._records = records
        self._damaged = damaged
        self._known: dict[tuple[Place, tuple[int, int, int]], tuple[int, int] | None] = {}

    def of(self, piece: Piece) -> tuple[int, int] | None:
        """The range of a piece; None where it has no rows or its file is damaged, which is noted."""
        key = (piece.place, piece.order)
        if key not in self._known:
            self._known[key] = self._look_up(piece)
        return self._known[key]

    def _look_up(self, piece: Piece) -> tuple[int, int] | None:
        if piece.live is not None:
            return step_range(piece.live)
        assert piece.file is not None
        path = relative(self._layout, piece.file)
        try:
            return read_footer(piece.file.path, self._records.get(path), self._contents).steps
        except DamagedFileError:
            self._damaged[path] = "is damaged"
            return None
