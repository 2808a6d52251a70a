"""What a run holds: its files, modes, dataset ids, epochs, columns, and what is missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import polars as pl

from xaicli import parquet
from xaicli.answer import Counts
from xaicli.bookkeeping import Fault, faults, folders
from xaicli.errors import DamagedFileError, UsageError
from xaicli.files import write_whole
from xaicli.layout import DataFile, PartName, RunLayout, facts_of, without_superseded
from xaicli.locks import Reading
from xaicli.manifest import Attempt
from xaicli.reader.pieces import (
    Listing,
    Piece,
    Place,
    count_taken_back,
    foreign_records,
    gone_records,
    list_pieces,
    relative,
)
from xaicli.reader.rows import Tally, dtype_of
from xaicli.takeback import TakeBack, TakenBack
from xaicli.vocabulary import CORRECT, EPOCH, LABEL, PASS, RESERVED_COLUMNS, Attempts, Mode, Role

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from xaicli.parquet import FileRecord
    from xaicli.wal.snapshot import LiveRows

T = TypeVar("T")

_NAME = "verified.json"
_TRIES = 5
_MODE_ORDER = {mode.value: number for number, mode in enumerate(Mode)}


class VerifiedFiles:
    """The files of a run known to hold what was written."""

    def __init__(self, layout: RunLayout, contents: parquet.Contents) -> None:
        self._path = layout.cache / _NAME
        self._root = layout.root
        self._contents = contents
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known: dict[str, list[int]] = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def check(
        self, files: Iterable[Path], records: Mapping[str, FileRecord]
    ) -> tuple[list[Path], list[tuple[str, DamagedFileError]]]:
        """Verify what is not known yet.

        Args:
            files: The files an engine is going to read.
            records: What is recorded of finished files, {path relative to the run: record}.

        Returns:
            The sound files, and (path, error) of each damaged one.

        Raises:
            FileNotFoundError: A file has vanished.
        """
        sound: list[Path] = []
        damaged: list[tuple[str, DamagedFileError]] = []
        fresh = False
        for file in files:
            path = file.relative_to(self._root).as_posix()
            identity = list(parquet.identity_of(file))
            if self._known.get(path) != identity:
                try:
                    parquet.verify(file, records.get(path), self._contents)
                except DamagedFileError as error:
                    damaged.append((path, error))
                    continue
                self._known[path] = identity
                fresh = True
            sound.append(file)
        if fresh:
            self._keep()
        return sound, damaged

    def _keep(self) -> None:
        # A cache that cannot be written (a read-only run) only costs time.
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps(self._known).encode())


class Holdings:
    """What one run holds, listed once.

    Args:
        layout: The run.
        strict: Raise `DamagedFileError` on a damaged file instead of leaving it out and naming it in `damaged`.
        attempts: `last` leaves out what later attempts took back of earlier ones, `all` leaves out nothing.

    Raises:
        UsageError: `attempts` is neither.
    """

    def __init__(self, layout: RunLayout, *, strict: bool = False, attempts: str = Attempts.LAST) -> None:
        if attempts not in set(Attempts):
            raise UsageError(f"--attempts {attempts!r} is not possible", hint="choose from: " + ", ".join(Attempts))
        self.layout = layout
        self._reading = Reading(layout.data)
        self.strict = strict
        self.which_attempts = Attempts(attempts)
        self.manifest = layout.read_manifest()
        self.contents = parquet.Contents()
        self._damaged: set[str] = set()
        self._faults: dict[str, str] = {}
        self._live: dict[Any, LiveRows] = {}
        self.refresh()

    def while_files_last(self, ask: Callable[[], T]) -> T:
        """What a question answers; of the files listed anew, asked again, where one has vanished meanwhile.

        Raises:
            DamagedFileError: Files keep vanishing.
        """
        for _ in range(_TRIES):
            try:
                return ask()
            except FileNotFoundError:
                self.refresh()
        raise DamagedFileError("files keep vanishing while they are read", hint="try again")

    def refresh(self) -> None:
        """List the run's files; again when one has vanished meanwhile."""
        self.__dict__.pop("taken_back", None)
        lost = self._listing.damaged if "_listing" in self.__dict__ else {}
        for attempt in range(_TRIES):
            torn: dict[Path, str] = {}
            self.records: dict[str, FileRecord] = parquet.read_records(self.layout, torn)
            try:
                self._listing: Listing = list_pieces(
                    self.layout, self.records, self.manifest.run_id, self.which_attempts, self.contents, self._live
                )
                break
            except FileNotFoundError:
                if attempt == _TRIES - 1:
                    raise
        # A file that was missing may have come since, and counts then.
        self._damaged.difference_update(lost.keys() - self._listing.damaged.keys())
        # Counters that were just being written over may be whole now.
        changing = tuple(f"{folder.name}/" for folder in (self.layout.attempts, self.layout.wal))
        for name in [name for name in self._faults if name.startswith(changing)]:
            del self._faults[name]
            self._damaged.discard(name)
        for path, fault in self._listing.damaged.items():
            if path.startswith(f"{self.layout.wal.name}/"):
                self._faults[path] = f"{path} {fault}"
            self.note(DamagedFileError(f"{path} {fault}", hint="see: xai doctor"), path)
        for folder in (self.layout.root, self.layout.attempts, self.layout.wal):
            self.note_faults(folder)
        for listing, reason in torn.items():
            self._note_fault(Fault(listing, reason, "of the files that it alone tells of none is known to be gone"))
        for folder in self.layout.closed_folders():
            name = folder.relative_to(self.layout.root).as_posix()
            # Its files are named like those that may not be read one by one; the folder itself where none is known.
            for path in [known for known in self.records if known.startswith(f"{name}/")] or [name]:
                self.note(DamagedFileError(f"{path} may not be read", hint="see: xai doctor"), path)

    def record_files(self, folder: Path) -> list[DataFile]:
        """The files that count of a folder of what is logged beside samples, as they were logged.

        Others, and those that are recorded but gone, are noted.

        Raises:
            DamagedFileError: One is not this run's, or is gone, and the reader is strict.
        """
        others = foreign_records(self.layout, folder, self.records, self.manifest.run_id, self.contents)
        for path in sorted(others):
            name = path.relative_to(self.layout.root).as_posix()
            self.note(DamagedFileError(f"{name} is not this run's", hint="see: xai doctor"), name)
        for name in gone_records(self.layout, folder, self.records):
            self.note(DamagedFileError(f"{name} is missing", hint="see: xai doctor"), name)
        named = {p: part for p in sorted(folder.glob("*.parquet")) if (part := PartName.parse(p.name))}
        return without_superseded(DataFile("", "", 0, part, p) for p, part in named.items() if p not in others)

    def table_folders(self) -> dict[str, Path]:
        """The folders of the metrics tables under their names, in order; also those of recorded files that are gone."""
        inside = f"{self.layout.tables.name}/"
        gone = {path.split("/")[1] for path in self.records if path.startswith(inside)}
        folders = {*self.layout.table_folders(), *(self.layout.tables / name for name in gone)}
        return {unquote(folder.name): folder for folder in sorted(folders)}

    def note(self, error: DamagedFileError, path: str) -> None:
        """Leave a damaged file out, naming it; raise the error instead when strict."""
        if self.strict:
            raise error
        self._damaged.add(path)

    def note_faults(self, folder: Path) -> None:
        """Name the small files of a folder that are not what was written, for an answer that goes by them.

        Args:
            folder: One of those that `xaicli.bookkeeping` knows.

        Raises:
            DamagedFileError: One is damaged, and the reader is strict.
        """
        for fault in faults(self.layout, folder):
            self._note_fault(fault)

    def note_all_faults(self) -> None:
        """The same of every folder, for an answer that tells of all of the run."""
        for folder in folders(self.layout):
            self.note_faults(folder)

    def _note_fault(self, fault: Fault) -> None:
        name = fault.path.relative_to(self.layout.root).as_posix()
        self._faults[name] = f"{name} is damaged ({fault.reason}): {fault.effect}"
        self.note(DamagedFileError(f"{name} is damaged: {fault.reason}", hint="see: xai doctor"), name)

    @property
    def faulty(self) -> frozenset[str]:
        """The small files that `faults` tells of."""
        return frozenset(self._faults)

    @property
    def faults(self) -> tuple[str, ...]:
        """What the answers do without because a small file is damaged, a line a file."""
        return tuple(said for _, said in sorted(self._faults.items()))

    def opened(self, path: Path) -> AbstractContextManager[pq.ParquetFile]:
        """A data file open for verified reading; see `xaicli.parquet.opened`."""
        record = self.records.get(path.relative_to(self.layout.root).as_posix())
        return parquet.opened(path, record, self.contents)

    @cached_property
    def attempts(self) -> list[Attempt]:
        """All starts of the run, in order."""
        return self.layout.read_attempts()

    @property
    def take_backs(self) -> tuple[TakeBack, ...]:
        """From where each attempt takes back the rows of earlier ones, by attempt."""
        return self._listing.take_backs

    @property
    def trained(self) -> frozenset[int]:
        """The attempts that have `train` rows, whether these count or not."""
        return self._listing.trained

    @property
    def steps_go_on(self) -> bool:
        """Whether the training steps go on over the epochs, as far as rows say; else each begins anew, or may."""
        return self._listing.steps_go_on()

    def begins_anew(self, by: TakeBack) -> bool:
        """Whether an attempt trains the epoch from which on it takes back from its first step on."""
        return self._listing.begins_anew(by)

    @cached_property
    def taken_back(self) -> tuple[TakenBack, ...]:
        """How many rows each attempt took back of each earlier one."""
        damaged: dict[str, str] = {}
        found = count_taken_back(self.layout, self.records, self._listing.taken, self.contents, damaged)
        for path, fault in damaged.items():
            self.note(DamagedFileError(f"{path} {fault}", hint="see: xai doctor"), path)
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """What everyone who asks this run anything should know."""
        return (*map(str, self.taken_back), *self.faults)

    def counts(self, tally: Tally | None = None, *, stale: int | None = None) -> Counts:
        """What an answer says was counted and left out.

        Args:
            tally: What was counted while its rows were read.
            stale: Samples without a finite value in the last epoch, where the question is about samples.
        """
        return Counts(
            rows=tally.rows if tally else None,
            non_finite=tally.non_finite if tally else None,
            duplicates=tally.duplicates if tally else None,
            dropped=self.dropped,
            stale=stale,
            taken_back=sum(taken.rows for taken in self.taken_back),
            ignored=self.ignored,
            damaged=self.damaged,
        )

    @property
    def damaged(self) -> tuple[str, ...]:
        """The files left out so far, relative to the run directory."""
        return tuple(sorted(self._damaged))

    @cached_property
    def verified(self) -> VerifiedFiles:
        """Which of its files are known to hold what was written."""
        return VerifiedFiles(self.layout, self.contents)

    @cached_property
    def counters(self) -> dict[str, dict[str, Any]]:
        """What the run's processes kept of what they counted, each under its file's name: attempt and rank."""
        found = {}
        for path in sorted(self.layout.attempts.glob("*.stats")):
            try:
                found[path.stem] = facts_of(path)
            except (OSError, ValueError):  # which `faults` names
                continue
        return found

    @cached_property
    def drops(self) -> dict[str, int]:
        """Rows the recorder could not store, by reason."""
        reasons: dict[str, int] = {}
        for facts in self.counters.values():
            try:
                dropped = int(facts.get("rows_dropped") or 0)
                named = {str(reason): int(n) for reason, n in (facts.get("reasons") or {}).items()}
            except (ValueError, TypeError, AttributeError):
                continue
            rest = dropped - sum(named.values())
            for reason, n in (named | ({"other": rest} if rest > 0 else {})).items():
                reasons[reason] = reasons.get(reason, 0) + n
        return reasons

    @cached_property
    def losses(self) -> tuple[str, ...]:
        """What the recorder could not store as given, a line each: rows, values of single columns, other records."""
        altered = self._counted("altered")
        lines = [f"{_several(n, 'row')} not recorded: {reason}" for reason, n in self.drops.items()]
        for (column, reason), n in self._counted("refused").items():
            noun, of = _RECORDS.get(column, "value"), "" if column in _RECORDS else f" of {column}"
            if reason.startswith(f"{column} cannot be written"):  # a file
                lines.append(reason + (f" ({n:,} times)" if n > 1 else ""))
                continue
            kept = min(n, altered.get((column, reason), 0))
            if kept:
                lines.append(f"{_several(kept, noun, of)} recorded, but {reason}")
            if n > kept:
                lines.append(f"{_several(n - kept, noun, of)} not recorded: {reason}")
        return tuple(lines)

    def _counted(self, what: str) -> dict[tuple[str, str], int]:
        """{(column, reason): how many} of a counter of all processes."""
        found: dict[tuple[str, str], int] = {}
        for facts in self.counters.values():
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                for column, reasons in (facts.get(what) or {}).items():
                    for reason, n in reasons.items():
                        found[column, str(reason)] = found.get((column, str(reason)), 0) + int(n)
        return found

    @cached_property
    def ignored(self) -> int | None:
        """How many labels stood for none, in all of the run; None in one without labels."""
        stored = [facts.get("labels_ignored") for facts in self.counters.values()]
        found = self._listing.ignored + sum(n for n in stored if isinstance(n, int))
        return found if found or any(facts.name == LABEL for facts in self.manifest.columns) else None

    @property
    def dropped(self) -> int:
        """How many rows the recorder could not store."""
        return sum(self.drops.values())

    @cached_property
    def stored(self) -> dict[str, pl.DataType]:
        """Every column of the rows, with its type."""
        known: dict[str, pl.DataType] = {}
        for facts in self.manifest.columns:
            known[facts.name] = dtype_of(facts.dtype)
            if facts.name == EPOCH:
                known[PASS] = pl.Int16()
        # A killed process may have stored rows of a column that never reached `xai.json`.
        for mode in self.modes():
            for ds_id in self.ds_ids(mode):
                newest = self.pieces(Place(mode, ds_id, self.epochs(mode, ds_id)[-1]))[-1]
                known |= {n: dtype for n, dtype in self._columns_of(newest).items() if n not in known}
        return known

    def _columns_of(self, piece: Piece) -> dict[str, pl.DataType]:
        if piece.live is not None:
            return {field.name: dtype_of(str(field.type)) for field in piece.live.schema}
        assert piece.file is not None
        path = relative(self.layout, piece.file)
        try:
            with self.opened(piece.file.path) as file:
                schema = file.schema_arrow
        except FileNotFoundError:
            return {}
        except DamagedFileError as error:
            self.note(error, path)
            return {}
        return {field.name: dtype_of(str(field.type)) for field in schema}

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The per-sample metrics, in the order they were first recorded."""
        roles = {facts.name: facts.role for facts in self.manifest.columns}
        return tuple(
            name
            for name, dtype in self.stored.items()
            if roles.get(name, Role.METRIC) == Role.METRIC and name not in RESERVED_COLUMNS and dtype.is_numeric()
        )

    @property
    def askable(self) -> tuple[str, ...]:
        """What a question can be about: the metrics and, where it is known, `correct`, whose mean is the accuracy."""
        return (*self.metrics, CORRECT) if CORRECT in self.stored else self.metrics

    def modes(self) -> list[str]:
        """The modes with rows: train, eval, test, infer."""
        found = {place.mode for place in self._listing.places}
        return sorted(found, key=lambda mode: (_MODE_ORDER.get(mode, len(_MODE_ORDER)), mode))

    def ds_ids(self, mode: str) -> list[str]:
        """The dataset ids with rows in a mode."""
        return sorted({place.ds_id for place in self._listing.places if place.mode == mode})

    def epochs(self, mode: str, ds_id: str) -> list[int]:
        """The epochs with rows that count, ascending."""
        return sorted(p.epoch for p in self._listing.places if (p.mode, p.ds_id) == (mode, ds_id))

    def folders(self, mode: str | None = None, ds_id: str | None = None) -> tuple[Place, ...]:
        """Every (mode, ds_id, epoch) with rows, in order; of one mode or ds_id where it is given."""
        return tuple(
            sorted(
                place
                for place in self._listing.places
                if (mode is None or place.mode == mode) and (ds_id is None or place.ds_id == ds_id)
            )
        )

    def pieces(self, place: Place) -> tuple[Piece, ...]:
        """The files and live segments that hold the epoch of a place, later ones last."""
        return self._listing.places.get(place.folder, ())

    def files(
        self,
        modes: Sequence[str] | None = None,
        ds_ids: Sequence[str] | None = None,
        epochs: Sequence[int] | None = None,
    ) -> list[DataFile]:
        """The files that count, of the given modes, ds_ids and epochs; None for all. Nothing is opened."""
        return [
            piece.file
            for place, pieces in self._listing.places.items()
            if (modes is None or place.mode in modes)
            and (ds_ids is None or place.ds_id in ds_ids)
            and (epochs is None or place.epoch in epochs)
            for piece in pieces
            if piece.file
        ]


_RECORDS = {"records": "record", "media": "picture", "inputs": "input", "facts": "fact", "scalars": "scalar"}
"""What is counted under names that are no columns."""


def _several(n: int, noun: str, more: str = "") -> str:
    return f"1 {noun}{more} was" if n == 1 else f"{n:,} {noun}s{more} were"
