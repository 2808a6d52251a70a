"""Rows that wait in memory for the writer: scalars, thumbnails, inputs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from xaicli import parquet
from xaicli.layout import PartName, RunLayout
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.writer import Writer

_MOST_ROWS = 65_536
_MOST_BYTES = 8 << 20


class Buffer:
    """One folder's rows, handed over when they are many or large."""

    def __init__(
        self,
        layout: RunLayout,
        folder: Path,
        origin: tuple[int, int],
        to_table: Callable[[list[Any]], pa.Table],
        writer: Writer,
        ledger: Ledger,
    ) -> None:
        """
        Args:
            layout: The run.
            folder: Where the files go.
            origin: (attempt, rank).
            to_table: Makes a table of the rows added.
            writer: What writes the files.
            ledger: What counts them.
        """
        self.layout = layout
        self.folder = folder
        self.origin = origin
        self._to_table = to_table
        self._writer = writer
        self.ledger = ledger
        self._rows: list[Any] = []
        self._bytes = 0
        self._sequence = 0
        self._lock = threading.RLock()

    def add(self, rows: list[Any], size: int) -> None:
        """Keep rows of `size` bytes together."""
        with self._lock:
            self._rows += rows
            self._bytes += size
            if len(self._rows) >= _MOST_ROWS or self._bytes >= _MOST_BYTES:
                self.hand_over()

    def hand_over(self) -> None:
        """Give the rows held to the writer."""
        with self._lock:
            if self._rows:
                part = PartName(*self.origin, self._sequence, self._sequence)
                self._writer.submit(BufferJob(self, self._rows, self.folder / part.filename))
                self._rows, self._bytes = [], 0
                self._sequence += 1

    def store(self, rows: list[Any], path: Path) -> None:
        """Write one file."""
        record = parquet.write(self._to_table(rows), path, root=self.layout.root)
        parquet.append_record(self.layout, *self.origin, record)
        self.ledger.stored(0, record.bytes)


class BufferJob:
    """Rows on their way into a file."""

    def __init__(self, buffer: Buffer, rows: list[Any], path: Path) -> None:
        self._buffer = buffer
        self._rows = rows
        self._path = path

    def store(self) -> None:
        self._buffer.store(self._rows, self._path)

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        del for_good
        kind = self._path.parent.name
        self._buffer.ledger.warn(f"lost {kind}", f"xai: {len(self._rows)} rows of {kind} are lost: {reason}")
