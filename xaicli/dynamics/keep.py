"""Statistics of large runs, kept in `cache/` under what they were computed from: asked again, they are read."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

import xaicli
from xaicli.dynamics.plan import Plan
from xaicli.files import appearing, write_whole
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Tally
from xaicli.reader.pieces import Piece, relative

_FEWEST_ROWS = 2_000_000
"""Fewer rows are sooner read again than looked up."""
_NEWEST = 4
"""Older ones than these are removed."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """What one pass over a (mode, ds_id) found."""

    frame: pl.DataFrame
    accuracy: Mapping[int, float]
    tally: Tally


class Keeper:
    """The kept statistics of one question about one (mode, ds_id), if there may be any.

    The name holds everything the numbers depend on: the files by size, times and inode, the plan, the selection and
    this version of xai. Rows still in live segments, and damaged files, are never kept.
    """

    def __init__(self, reader: Reader, selection: Selection, pair: Pair, plan: Plan) -> None:
        self._folder = reader.layout.cache
        self._name = _name(reader, selection, pair, plan)

    def load(self) -> Kept | None:
        """What was kept; None where nothing was, or it is not what was written."""
        if self._name is None:
            return None
        data, facts = self._paths()
        try:
            known = json.loads(facts.read_text(encoding="utf-8"))
            if _crc32(data) != known["crc32"]:
                return None
            accuracy = {int(epoch): float(share) for epoch, share in known["accuracy"].items()}
            # Mapped, not read: columns nobody asks for cost nothing.
            table = pa.ipc.open_file(pa.memory_map(str(data))).read_all()
            frame = pl.DataFrame(pl.from_arrow(table, rechunk=False))
            return Kept(frame, accuracy, Tally(**known["tally"]))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, pl.exceptions.PolarsError):
            return None

    def save(self, kept: Kept) -> None:
        """Keep what was found, if that saves time; a folder that cannot be written to only costs it."""
        if self._name is None or kept.tally.rows < _FEWEST_ROWS:
            return
        data, facts = self._paths()
        try:
            with appearing(data) as file:
                kept.frame.write_ipc(file, compression="uncompressed")
            known = {"crc32": _crc32(data), "accuracy": kept.accuracy, "tally": asdict(kept.tally)}
            write_whole(facts, json.dumps(known).encode())
            self._forget_older()
        except OSError:
            return

    def _paths(self) -> tuple[Path, Path]:
        stem = f"dynamics-{self._name}"
        return self._folder / f"{stem}.arrow", self._folder / f"{stem}.json"

    def _forget_older(self) -> None:
        kept = sorted(self._folder.glob("dynamics-*.arrow"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in kept[_NEWEST:]:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def _name(reader: Reader, selection: Selection, pair: Pair, plan: Plan) -> str | None:
    """The digest of all that the numbers depend on; None where they must not be kept."""
    pieces = [piece for epoch in selection.epochs[pair] for piece in reader.pieces(Place(*pair, epoch))]
    if reader.damaged or any(piece.file is None for piece in pieces):
        return None
    try:
        files = [_identity(reader, piece) for piece in pieces]
    except OSError:
        return None
    plan_facts = {**asdict(plan), "available": sorted(plan.available), "id_type": str(plan.id_type)}
    asked = [
        pair,
        selection.epochs[pair],
        sorted(map(str, selection.label_map)),
        selection.duplicates,
        selection.where,
        plan_facts,
    ]
    return hashlib.sha256(json.dumps([xaicli.__version__, files, asked]).encode()).hexdigest()[:32]


def _identity(reader: Reader, piece: Piece) -> list[Any]:
    assert piece.file is not None
    facts = piece.file.path.stat()
    times = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    return [relative(reader.layout, piece.file), piece.fence, *times]


def _crc32(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while content := file.read(_CHUNK):
            found = zlib.crc32(content, found)
    return found
