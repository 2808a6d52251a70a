"""What earlier attempts recorded, as far as a new one must know it: how far they came, and which passes remain.

Nothing of it takes reading rows: what is recorded of finished files says the first step of each pass, and so do the
frames of segments. Only files of older versions, of which that was not recorded, are opened.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.files import for_arrow
from xaicli.layout import DataFile, PartName, RunLayout, decode_ds_id, decode_epoch
from xaicli.takeback import TakeBack, take_backs
from xaicli.vocabulary import PASS, STEP, Mode
from xaicli.wal.frames import Folder, read_header, read_segment, segment_files

_Passes = dict[int, int]
"""{pass: its first step}."""


class Earlier:
    """The passes that other attempts have recorded, as they are now."""

    def __init__(self, layout: RunLayout, attempt: int, beside: tuple[int, ...] = ()) -> None:
        """
        Args:
            layout: The run.
            attempt: The attempt that asks.
            beside: Those that were still being recorded when it began: it is one more rank of these, whose walks are
                the same as its own.

        Raises:
            OSError: A folder may not be listed.
        """
        self._attempt = attempt
        self._counted = set(range(attempt)) - set(beside)
        self._beside = beside
        self._passes: dict[tuple[int, Folder], _Passes] = {}
        self._unread: dict[tuple[int, Folder], list[DataFile]] = {}
        # Segments first: what becomes a file meanwhile is seen twice, and not missed.
        for segment in segment_files(layout):
            self._add_segment(segment)
        records = parquet.read_records(layout)
        for path, record in records.items():
            placed = _place_of(path)
            if placed is not None and record.passes is not None and placed[0] < attempt:
                self._add(placed, record.passes)
        for file in layout.data_files():
            record_of = records.get(file.path.relative_to(layout.root).as_posix())
            if file.part.attempt < attempt and (record_of is None or record_of.passes is None):
                key = file.part.attempt, (file.mode, file.ds_id, file.epoch)
                self._unread.setdefault(key, []).append(file)
        self._back = tuple(self._take_backs(layout))

    def last_pass(self, folder: Folder, takes_back: tuple[int, int] | None) -> int:
        """The last pass of a (mode, ds_id, epoch) that remains of earlier attempts; -1 without any.

        Of `train` it is the one that the attempt goes on with: where an earlier one began a walk at the very step from
        which on it is taken back, that walk, which is gone through again as a whole.

        Args:
            folder: The mode, dataset and epoch.
            takes_back: (epoch, step) from where on the attempt that asks takes rows back, as far as that is known.
        """
        own = takes_back if takes_back is not None and not self._beside else None
        last = -1
        for attempt in self._counted:
            end = min(((by.epoch, by.step) for by in self._back if by.attempt > attempt), default=None)
            for turn, step in self._of(attempt, folder).items():
                at = folder[2], step
                if end is not None and at >= end:
                    continue
                if own is None or at < own or (at == own and folder[0] == Mode.TRAIN):
                    last = max(last, turn)
        return last

    def _add_segment(self, path: Path) -> None:
        header = read_header(path)
        if header is None or header.facts.attempt >= self._attempt:
            return
        with contextlib.suppress(DamagedFileError):
            copy = read_segment(path)
            for frame in copy.frames if copy else ():
                if frame.place:
                    self._add((header.facts.attempt, frame.place.folder), ((frame.place.turn, frame.step),))

    def _add(self, key: tuple[int, Folder], passes: parquet.Passes) -> None:
        known = self._passes.setdefault(key, {})
        for turn, step in passes:
            known[turn] = min(step, known.get(turn, step))

    def _of(self, attempt: int, folder: Folder) -> _Passes:
        """The passes of one attempt."""
        key = attempt, folder
        for file in self._unread.pop(key, ()):
            # A damaged file, or one that a compaction has just replaced, says nothing.
            with contextlib.suppress(OSError, pa.ArrowException, ValueError, LookupError, TypeError):
                self._add(key, _passes_in(file))
        return self._passes.get(key, {})

    def _take_backs(self, layout: RunLayout) -> Iterator[TakeBack]:
        """From where on attempts before the one that asks took back earlier ones' rows."""
        first: dict[int, tuple[int, int]] = {}
        trained = {key for key in (*self._passes, *self._unread) if key[0] and key[1][0] == Mode.TRAIN}
        for attempt, folder in sorted(trained, key=lambda key: (key[0], key[1][2])):
            _, _, epoch = folder
            if attempt not in first or first[attempt][0] == epoch:  # one of a later epoch need not be looked at
                for step in self._of(attempt, folder).values():
                    first[attempt] = min((epoch, step), first.get(attempt, (epoch, step)))
        yield from take_backs((a for a in layout.read_attempts() if a.attempt < self._attempt), first)


def last_place(layout: RunLayout, attempt: int) -> tuple[int, int]:
    """The last (epoch, step) in the files of earlier attempts, by their footers; (0, -1) without any."""
    last = (0, -1)
    newest = [file for file in layout.data_files() if file.part.attempt < attempt]
    epoch = max((file.epoch for file in newest), default=0)
    for file in newest:
        if file.epoch == epoch:
            # A damaged file, or one that a compaction has just replaced, says nothing.
            with contextlib.suppress(OSError, pa.ArrowException, ValueError, LookupError, TypeError):
                footer = pq.read_metadata(for_arrow(file.path)).metadata
                last = max(last, (epoch, int(json.loads(footer[b"xai"])["steps"][1])))
    return last


def _place_of(path: str) -> tuple[int, Folder] | None:
    """The attempt and the place of a recorded file of rows; None for others."""
    folders = path.split("/")
    if len(folders) != 5 or folders[0] != "data":
        return None
    part, epoch = PartName.parse(folders[4]), decode_epoch(folders[3])
    if part is None or epoch is None:
        return None
    return part.attempt, (folders[1].removeprefix("mode="), decode_ds_id(folders[2].removeprefix("ds=")), epoch)


def _passes_in(file: DataFile) -> parquet.Passes:
    """The passes of a file of which they are not recorded."""
    with pq.ParquetFile(for_arrow(file.path)) as opened:
        facts = json.loads((opened.metadata.metadata or {}).get(b"xai", b"{}"))
        passes, steps = facts.get("passes"), facts.get("steps")
        if steps and passes is not None and len(passes) == 1:
            return ((int(passes[0]), int(steps[0])),)
        if PASS not in opened.schema_arrow.names:  # format version 1
            rows = opened.read(columns=[STEP])
            return ((0, min(rows[STEP].to_pylist())),)
        return parquet.passes_of(opened.read(columns=[PASS, STEP]))
