"""What small files hold, read once: a question that looks at a file in several ways opens it in one."""

from __future__ import annotations

import threading
from pathlib import Path

_SMALL = 1 << 20
"""Bytes of a file that is read whole: reading its footer alone would take about as long."""
_MOST = 32 << 20
"""Bytes kept of all files together."""


class Contents:
    """The bytes of small files, each read when it is first asked for; as unverified as on the disk."""

    def __init__(self) -> None:
        self._kept: dict[Path, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, path: Path) -> bytes | None:
        """The bytes of a file; None where it is too large to keep, or enough are kept already.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: It cannot be read.
        """
        with self._lock:
            if (known := self._kept.get(path)) is not None:
                return known
            if path.stat().st_size > min(_SMALL, _MOST - self._bytes):
                return None
            content = path.read_bytes()
            self._kept[path] = content
            self._bytes += len(content)
            return content
