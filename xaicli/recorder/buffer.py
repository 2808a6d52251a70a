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


class Buffer:
    """One folder's rows, handed over when they are many or large."""

    def __init__(
        self,
        layout: RunLayout,
        folder: Path,
        origin: tuple[int, int],
        to_table: Callable[[list[Any]], pa.Table],
        *,
        most_rows: int,
        most_bytes: int,
    ) -> None:
        """
        Args:
            layout: The run.
            folder: Where the files go.
            origin: (attempt, rank).
            to_table: Makes a table of the rows added.
            most_rows: Rows that make a file.
            most_bytes: Bytes that make a file.
        """
        self.layout = layout
        self.folder = folder
        self.origin = origin
        self._to_table = to_table
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._rows: list[Any] = []
        self._bytes = 0
        self._sequence = 0
        self._lock = threading.RLock()
        self.writer: Writer
        self.ledger: Ledger

    def add(self, rows: list[Any], size: int) -> None:
        """Keep rows of `size` bytes together."""
        with self._lock:
            self._rows += rows
            self._bytes += size
            if len(self._rows) >= self._most_rows or self._bytes >= self._most_bytes:
                self.hand_over()

    def hand_over(self) -> None:
        """Give the rows held to the writer."""
        with self._lock:
            if self._rows:
                part = PartName(*self.origin, self._sequence, self._sequence)
                self.writer.submit(BufferJob(self, self._rows, self.folder / part.filename))
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

    def give_up(self, reason: str) -> None:
        kind = self._path.parent.name
        self._buffer.ledger.warn(f"lost {kind}", f"xai: {len(self._rows)} rows of {kind} are lost: {reason}")
