"""Answers to expensive questions, kept in `cache/` under what they were computed from.

The name of an entry is a digest of the question and of every file it is about - path, size, times, inode - so an entry
is found only while nothing has changed. Runs that answer at once are not cached, nor are runs with live segments.
The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from xaicli import __version__
from xaicli.answer import Answer, Counts
from xaicli.files import appearing, write_whole
from xaicli.queries.selection import Selection
from xaicli.reader import Place, Reader

_WORTH_ROWS = 2_000_000
_LARGEST_BYTES = 64 << 20
_MOST_ENTRIES = 16


def cached(reader: Reader, selection: Selection, options: Mapping[str, Any], compute: Callable[[], Answer]) -> Answer:
    """The answer to a question, computed unless it is known.

    Args:
        reader: The run.
        selection: Which rows the question is about.
        options: What else was asked, the question's name among it, as plain JSON types.
        compute: What answers.
    """
    path = _entry(reader, selection, options)
    if path is None:
        return compute()
    if (known := _load(path)) is not None:
        return replace(known, run=str(reader.layout.root))
    answer = compute()
    # Damage may be repaired and looked at again.
    if not answer.counts.damaged and not answer.extra:
        _keep(path, answer)
    return answer


def _entry(reader: Reader, selection: Selection, options: Mapping[str, Any]) -> Path | None:
    """Where the answer is kept; None where it is not worth keeping, or the files are still changing."""
    identity: list[Any] = [__version__, selection.as_dict(), dict(options), [*reader.take_backs]]
    rows = 0
    for pair in selection.pairs:
        for epoch in selection.epochs[pair]:
            for piece in reader.pieces(Place(*pair, epoch)):
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
    identity += [reader.dropped, reader.manifest.label_names]
    digest = hashlib.blake2b(json.dumps(identity, default=str).encode(), digest_size=16).hexdigest()
    return reader.layout.cache / f"answer-{digest}.arrow"


def _load(path: Path) -> Answer | None:
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = pl.read_ipc(path)
        if facts.pop("shape") != list(data.shape):
            return None
        counts = facts.pop("counts")
        damaged = counts.pop("damaged", None)
        return Answer(
            data=data,
            counts=Counts(**counts, damaged=None if damaged is None else tuple(damaged)),
            warnings=tuple(facts.pop("warnings")),
            **facts,
        )
    except (OSError, ValueError, TypeError, KeyError, pl.exceptions.PolarsError):
        return None


def _keep(path: Path, answer: Answer) -> None:
    """Keep an answer; a cache that cannot be written (a read-only run) only costs time."""
    if answer.data.estimated_size() > _LARGEST_BYTES:
        return
    facts = {
        "command": answer.command,
        "run": answer.run,
        "selection": answer.selection,
        "warnings": answer.warnings,
        "counts": answer.counts.as_dict(),
        "shape": answer.data.shape,
    }
    try:
        with appearing(path) as file:
            answer.data.write_ipc(file)
        write_whole(path.with_suffix(".json"), json.dumps(facts).encode())
        entries = sorted(path.parent.glob("answer-*.arrow"), key=lambda entry: entry.stat().st_mtime_ns)
        for old in entries[:-_MOST_ENTRIES]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
    except (OSError, TypeError, ValueError):
        return
