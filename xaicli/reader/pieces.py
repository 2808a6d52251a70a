"""The pieces a run's rows lie in at one moment, files and live segments, and which of their rows count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, RunLayout
from xaicli.reader.footers import read_footer, step_range
from xaicli.wal import take_snapshot
from xaicli.wal.live import LiveRows, live_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.parquet import FileRecord


class Place(NamedTuple):
    """What all rows of a piece share."""

    mode: str
    ds_id: str
    epoch: int


@dataclass(frozen=True)
class Piece:
    """Rows of one place by one writer: a finished file, or the copy of a live segment.

    Attributes:
        place: Their mode, ds_id and epoch.
        order: (attempt, rank, sequence): later pieces win over earlier ones.
        file: The finished file; None for a live segment.
        live: The rows of a live segment; None for a file.
        fence: Rows from this step on do not count, a later attempt logged them again; None where all count.
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
        places: The pieces of each place in order; places without a piece that counts are absent.
        fences: {attempt: first step whose rows do not count}, of attempts that have one.
        damaged: Files whose footer could not be trusted, or that are recorded but gone, and segments that lost rows;
            relative to the run.
    """

    places: Mapping[Place, tuple[Piece, ...]]
    fences: Mapping[int, int]
    damaged: tuple[str, ...] = ()


def list_pieces(layout: RunLayout, records: Mapping[str, FileRecord]) -> Listing:
    """List what counts now.

    Args:
        layout: The run.
        records: What is recorded of finished files, read *before* this call, {path relative to the run: record}.
    """
    snapshot = take_snapshot(layout)
    pieces = [_of_file(file) for file in snapshot.files]
    pieces += [_of_rows(rows) for rows in live_rows(layout, snapshot.segments)]
    damaged = {path.relative_to(layout.root).as_posix() for path in snapshot.damaged}
    damaged |= set(_gone(layout, records, snapshot.files))
    steps = _Steps(layout, records, damaged)
    fences = _fences(layout, pieces, steps)
    kept = _fenced(pieces, fences, steps)
    places: dict[Place, list[Piece]] = {}
    for piece in sorted(kept, key=lambda piece: (piece.place, piece.order)):
        places.setdefault(piece.place, []).append(piece)
    return Listing({place: tuple(group) for place, group in places.items()}, fences, tuple(sorted(damaged)))


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
    gone = []
    for path in records:
        folder, _, name = path.rpartition("/")
        part = PartName.parse(name) if folder.startswith("data/") else None
        here = present.get(folder, set())
        if part and part not in here and not any(other.supersedes(part) for other in here):
            gone.append(path)
    return gone


def _fences(layout: RunLayout, pieces: list[Piece], steps: _Steps) -> dict[int, int]:
    """The first step of each attempt whose rows no longer count: where the first of the later attempts set in."""
    starts = {facts.attempt: facts.resumed_from_step for facts in layout.read_attempts()}
    logged = sorted({piece.attempt for piece in pieces})
    for attempt in logged[1:]:
        if starts.get(attempt) is None:
            ranges = [steps.of(piece) for piece in pieces if piece.attempt == attempt]
            starts[attempt] = min((found[0] for found in ranges if found), default=None)
    fences = {}
    for attempt in {*starts, *logged}:
        later = [step for other, step in starts.items() if other > attempt and step is not None]
        if later:
            fences[attempt] = min(later)
    return fences


def _fenced(pieces: list[Piece], fences: Mapping[int, int], steps: _Steps) -> Iterator[Piece]:
    """The pieces of which any row counts, each with its fence if that cuts through it."""
    for piece in pieces:
        fence = fences.get(piece.attempt)
        found = None if fence is None else steps.of(piece)
        if fence is None or (found and found[1] < fence):
            yield piece
        elif found and found[0] < fence:
            yield replace(piece, fence=fence)


class _Steps:
    """The first and last step of pieces, each looked up once."""

    def __init__(self, layout: RunLayout, records: Mapping[str, FileRecord], damaged: set[str]) -> None:
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
            return read_footer(piece.file.path, self._records.get(path)).steps
        except DamagedFileError:
            self._damaged.add(path)
            return None
