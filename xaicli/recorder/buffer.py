"""Rows that wait in memory for the writer: scalars, thumbnails, inputs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from xaicli.layout import PartName, RunLayout
from xaicli.parquet import make_folder
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.parts import store_table
from xaicli.recorder.writer import Writer
from xaicli.wal.journal import Journal, journal_path

_MOST_ROWS = 65_536
_MOST_BYTES = 8 << 20


class Buffer:
    """One folder's rows, handed over when they are many or large."""

    def __init__(
        self,
        layout: RunLayout,
        folder: Path,
        origin: Callable[[], tuple[int, int]],
        to_table: Callable[[list[Any]], pa.Table],
        writer: Writer,
        ledger: Ledger,
        *,
        with_journal: bool = False,
    ) -> None:
        """
        Args:
            layout: The run.
            folder: Where the files go.
            origin: Gives (attempt, rank).
            to_table: Makes a table of the rows added.
            writer: What writes the files.
            ledger: What counts them.
            with_journal: Keep the rows, plain JSON values, in `wal/` too, where they survive the process.
        """
        self.layout = layout
        self.folder = folder
        self.ledger = ledger
        self._origin = origin
        self._to_table = to_table
        self._writer = writer
        self._with_journal = with_journal
        self._journal: Journal | None = None
        self._rows: list[Any] = []
        self._bytes = 0
        self._sequence = 0
        self._lock = threading.RLock()

    def add(self, rows: list[Any], size: int) -> None:
        """Keep rows of `size` bytes together."""
        with self._lock:
            self._rows += rows
            self._bytes += size
            if self._with_journal:
                self._write_down(rows)
            if len(self._rows) >= _MOST_ROWS or self._bytes >= _MOST_BYTES:
                self.hand_over()

    @property
    def _part(self) -> PartName:
        return PartName(*self._origin(), self._sequence, self._sequence)

    def _write_down(self, rows: list[Any]) -> None:
        try:
            if self._journal is None:
                self._journal = _begin(self.layout, journal_path(self.layout, self._part))
            self._journal.append(rows)
        except OSError as error:
            self.ledger.warn("journal", f"xai: {self.folder.name} wait in memory, up to a minute ({error})")

    def hand_over(self) -> None:
        """Give the rows held to the writer."""
        with self._lock:
            if self._rows:
                self._writer.submit(BufferJob(self, self._rows, self._part, self._journal))
                self._rows, self._bytes, self._journal = [], 0, None
                self._sequence += 1

    def store(self, rows: list[Any], part: PartName) -> None:
        """Write one file."""
        record = store_table(self.layout, self._to_table(rows), self.folder, part)
        self.ledger.stored(0, record.bytes)


class BufferJob:
    """Rows on their way into a file."""

    def __init__(self, buffer: Buffer, rows: list[Any], part: PartName, journal: Journal | None) -> None:
        self._buffer = buffer
        self._rows = rows
        self._part = part
        self._journal = journal

    def store(self) -> None:
        self._buffer.store(self._rows, self._part)
        self._end_journal()

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        if self._journal is not None and not for_good:
            self._journal.close()  # the next open makes a file of it
            return
        self._end_journal()
        kind = self._buffer.folder.name
        self._buffer.ledger.warn(f"lost {kind}", f"xai: {len(self._rows)} rows of {kind} are lost: {reason}")

    def _end_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            with contextlib.suppress(OSError):
                self._journal.path.unlink()


def _begin(layout: RunLayout, path: Path) -> Journal:
    """Make a journal, in a run directory that is still there.

    Raises:
        OSError: It cannot be made.
    """
    if not layout.wal.is_dir():
        layout.root.stat()
        make_folder(layout.wal)
    return Journal(path)
