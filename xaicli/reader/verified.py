"""Files verified as a whole, once: for engines that read files themselves and check nothing.

What was found is kept in `cache/verified.json` under each file's size, times and inode; a changed file is verified
again. `xai doctor` does not trust it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.files import write_whole
from xaicli.layout import RunLayout

if TYPE_CHECKING:
    from xaicli.parquet import FileRecord

_NAME = "verified.json"


class VerifiedFiles:
    """The files of a run known to hold what was written."""

    def __init__(self, layout: RunLayout) -> None:
        self._path = layout.cache / _NAME
        self._root = layout.root
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
            facts = file.stat()
            identity = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
            if self._known.get(path) != identity:
                try:
                    parquet.verify(file, records.get(path))
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
