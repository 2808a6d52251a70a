"""What takes long to find out, kept in `cache/` under what it was computed from: asked again, it is read.

The name of an entry is a digest of the question and of every file it is about - path, size, times, inode - so an entry
is found only while nothing has changed; its content is checked before it is believed. Runs that answer at once are not
cached, nor are runs with live segments or damaged files. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from xaicli import __version__
from xaicli.answer import Answer, Counts
from xaicli.files import appearing, facts_in, with_check, write_whole
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader

_WORTH_ROWS = 2_000_000
"""Fewer rows are sooner read again than looked up."""
_LARGEST_BYTES = 64 << 20
_MOST_ENTRIES = 16
_CHUNK = 1 << 20

CachedAnswer = tuple[pl.DataFrame, dict[str, Any]]
"""Rows, and facts about them in JSON types."""


@dataclass(frozen=True)
class Entry:
    """Where the rows that answer one question are kept.

    Attributes:
        path: The rows; facts lie beside them as JSON.
    """

    path: Path

    @classmethod
    def of(cls, reader: Reader, selection: Selection, pairs: Sequence[Pair], question: str, asked: Any) -> Entry | None:
        """The entry of a question; None where it is not worth keeping, or the files are still changing.

        Args:
            reader: The run.
            selection: Which rows the question is about.
            pairs: Those of its (mode, ds_id) that the answer depends on.
            question: Its name.
            asked: What else it depends on, as plain JSON types.
        """
        if reader.damaged:
            return None
        # The same epochs are one answer, in whatever words they were asked for.
        selected = replace(selection, epoch_asked=()).as_dict()
        identity: list[Any] = [__version__, selected, pairs, asked, [*reader.take_backs]]
        identity += [reader.facts.identity, reader.faults]
        rows = 0
        for pair in pairs:
            for piece in (piece for epoch in selection.epochs[pair] for piece in reader.pieces(Place(*pair, epoch))):
                if piece.file is None:
                    return None
                name = piece.file.path.relative_to(reader.layout.root).as_posix()
                record = reader.records.get(name)
                if record is None:
                    return None
                rows += record.rows
                try:
                    facts = piece.file.path.stat()
                except OSError:
                    return None
                identity.append([name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino])
        if rows < _WORTH_ROWS:
            return None
        digest = hashlib.blake2b(json.dumps(identity, default=str).encode(), digest_size=16).hexdigest()
        return cls(reader.layout.cache / f"{question}-{digest}.arrow")

    def load(self) -> CachedAnswer | None:
        """What was kept; None where nothing was, or it is not what was written."""
        try:
            facts = facts_in(self._facts.read_text(encoding="utf-8"))
            if _crc32(self.path) != facts.pop("crc32"):
                return None
            # Mapped, not read: columns nobody asks for cost nothing.
            table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
            return pl.DataFrame(pl.from_arrow(table, rechunk=False)), facts
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, pl.exceptions.PolarsError):
            return None

    def keep(self, data: pl.DataFrame, facts: Mapping[str, Any], *, newest: int) -> None:
        """Keep rows and facts; a folder that cannot be written to only costs time.

        Args:
            data: The rows.
            facts: In JSON types.
            newest: How many entries of the same question stay.
        """
        try:
            with appearing(self.path) as file:
                data.write_ipc(file, compression="uncompressed")
            text = with_check(json.dumps({**facts, "crc32": _crc32(self.path)}))
            write_whole(self._facts, text.encode())
            question = self.path.name.partition("-")[0]
            entries = sorted(self.path.parent.glob(f"{question}-*.arrow"), key=lambda path: path.stat().st_mtime_ns)
            for old in entries[:-newest]:
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink(missing_ok=True)
        except (OSError, TypeError, ValueError):
            return

    @property
    def _facts(self) -> Path:
        return self.path.with_suffix(".json")


def _crc32(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while content := file.read(_CHUNK):
            found = zlib.crc32(content, found)
    return found


def cached(reader: Reader, selection: Selection, options: Mapping[str, Any], compute: Callable[[], Answer]) -> Answer:
    """The answer to a question, computed unless it is known.

    Args:
        reader: The run.
        selection: Which rows the question is about.
        options: What else was asked, the question's name among it, as plain JSON types.
        compute: What answers.
    """
    asked = [dict(options), reader.dropped, reader.manifest.label_names]
    entry = Entry.of(reader, selection, selection.pairs, "answer", asked)
    if entry is None:
        return compute()
    if (kept := entry.load()) is not None:
        data, facts = kept
        counts, warnings = facts.pop("counts"), facts.pop("warnings")
        if "damaged" in counts:
            counts["damaged"] = tuple(counts["damaged"])
        return Answer(
            data=data, run=reader.layout.described, counts=Counts(**counts), warnings=tuple(warnings), **facts
        )
    answer = compute()
    # Damage may be repaired and looked at again.
    if not answer.counts.damaged and not answer.extra and answer.data.estimated_size() <= _LARGEST_BYTES:
        counts = answer.counts.as_dict()
        facts = {
            "command": answer.command,
            "selection": answer.selection,
            "counts": counts,
            "warnings": answer.warnings,
        }
        entry.keep(answer.data, facts, newest=_MOST_ENTRIES)
    return answer
