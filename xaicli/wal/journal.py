"""Journals: the scalars that are logged but not yet in a file, a line a call.

A line is the CRC-32 of what follows it, in hexadecimal, a space, and the rows as JSON. Lines are written one at a time
and unbuffered, so that they survive the process; one that was not finished fails its checksum.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xaicli.layout import PartName, RunLayout

_NAME = re.compile(r"a(\d{6,})-r(\d{4,})-(\d{8,})\.scalars")


def journal_path(layout: RunLayout, part: PartName) -> Path:
    """Where the rows of a part of `scalars/` lie until it is there."""
    return layout.wal / f"a{part.attempt:06d}-r{part.rank:04d}-{part.first:08d}.scalars"


def journal_files(layout: RunLayout) -> dict[Path, PartName]:
    """The journals of all ranks and attempts, and the parts they become."""
    found = {}
    for path in sorted(layout.wal.glob("*.scalars")):
        if match := _NAME.fullmatch(path.name):
            attempt, rank, sequence = map(int, match.groups())
            found[path] = PartName(attempt, rank, sequence, sequence)
    return found


class Journal:
    """A journal being written."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: The file; it is made.

        Raises:
            OSError: It cannot be made.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def append(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows.

        Raises:
            OSError: They cannot be written.
        """
        text = json.dumps(rows).encode()
        os.write(self._descriptor, b"%08x %s\n" % (zlib.crc32(text), text))

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


def read_journal(path: Path) -> tuple[list[tuple[Any, ...]], int]:
    """The rows of a journal in the order they were logged, and how many of its lines are damaged.

    A last line without an end is just being written.

    Raises:
        FileNotFoundError: It has become a part.
    """
    rows: list[tuple[Any, ...]] = []
    damaged = 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        crc, _, text = line.partition(b" ")
        if crc == b"%08x" % zlib.crc32(text):
            rows += map(tuple, json.loads(text))
        else:
            damaged += 1
    return rows, damaged
