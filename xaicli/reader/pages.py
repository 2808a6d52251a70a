"""What a file of rows tells without being read: its footer, and single values of a metric out of their pages.

To show ten samples takes ten pages of every epoch. Parsing the whole footer of a file, some thousand column chunks,
would take as long as decoding these pages, so that the few entries that matter are found in the footer's bytes instead.
The format: https://parquet.apache.org/docs/file-format/ with its metadata in Thrift's compact protocol.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import threading
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK, STEP

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.parquet import Contents, FileRecord


ORIGIN = ("run_id", MODE, DS_ID, EPOCH, ATTEMPT, RANK, "sequence", "last_sequence")
"""What the footer of a part says of where its rows come from; the last is of compacted files only."""


@dataclass(frozen=True)
class Footer:
    """What is asked of a file most often; `xaicli.parquet` keeps most of it under the footer's key `xai`.

    Attributes:
        rows: How many rows it has.
        steps: Their first and last step; None where that takes reading the column, or there are no rows.
        sorted_ids: A digest of the sample ids where they strictly increase, so that no sample repeats; else None.
        non_finite: {metric: how many values are NaN or infinite}; None where the footer does not say.
        passes: The passes its rows are of, ascending.
        origin: What the footer says of where the rows come from, of the names in `ORIGIN`.
    """

    rows: int
    steps: tuple[int, int] | None = None
    sorted_ids: str | None = None
    non_finite: Mapping[str, int] | None = None
    passes: tuple[int, ...] = (0,)
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Any) -> Footer:
        """The footer of an open file, `pyarrow.parquet.FileMetaData`."""
        rows = int(metadata.num_rows)
        known = cls.parsed((metadata.metadata or {}).get(b"xai"), rows)
        return known if known and known.steps else replace(known or cls(rows), steps=_steps_by_statistics(metadata))

    @classmethod
    def parsed(cls, facts: bytes | None, rows: int) -> Footer | None:
        """What the footer's key `xai` holds, JSON; None where that is nothing that can be read."""
        try:
            known = json.loads(facts or b"")
            steps, digest, non_finite = known.get("steps"), known.get("sorted_ids"), known.get("non_finite")
            return cls(
                rows=rows,
                steps=(int(steps[0]), int(steps[1])) if steps else None,
                sorted_ids=None if digest is None else str(digest),
                non_finite=None if non_finite is None else {str(name): int(n) for name, n in non_finite.items()},
                passes=tuple(sorted(int(n) for n in known.get("passes") or (0,))),
                origin={name: known[name] for name in ORIGIN if name in known},
            )
        except (ValueError, TypeError, AttributeError, LookupError):
            return None


def read_footer(path: Path, record: FileRecord | None, contents: Contents | None = None) -> Footer:
    """The footer of a file; its steps are known if it has rows.

    Raises:
        DamagedFileError: The footer is not what was written, or the steps had to be read and are not.
        FileNotFoundError: The file has vanished.
    """
    if record:
        content = contents.of(path) if contents else None
        said = Footer.parsed(facts_of(parquet.checked_footer(path, record, content)), record.rows)
        if said and said.steps:
            return said
    with parquet.opened(path, record, contents) as file:
        footer = Footer.of(file.metadata)
        if footer.steps is None and footer.rows:
            if STEP not in file.schema_arrow.names:
                raise DamagedFileError(f"{path} has no column {STEP}", hint="see: xai doctor")
            return replace(footer, steps=step_range(file.read(columns=[STEP])))
        return footer


def step_range(table: pa.Table) -> tuple[int, int] | None:
    """The first and last step of rows in memory; None without rows."""
    import pyarrow.compute as pc

    found = pc.min_max(table.column(STEP)).as_py()
    return None if found["min"] is None else (int(found["min"]), int(found["max"]))


def _steps_by_statistics(metadata: Any) -> tuple[int, int] | None:
    names = metadata.schema.names
    if STEP not in names or not metadata.num_row_groups:
        return None
    index = names.index(STEP)
    kept = [metadata.row_group(group).column(index).statistics for group in range(metadata.num_row_groups)]
    if not all(statistics is not None and statistics.has_min_max for statistics in kept):
        return None
    return min(statistics.min for statistics in kept), max(statistics.max for statistics in kept)


_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_HEADER = 64
"""No page header of ours is longer."""
_WIDEST = 9
"""Bytes of a value, at most, with its definition level."""
_FLOATS = {width: struct.Struct(f"<{code}") for width, code in ((2, "e"), (4, "f"), (8, "d"))}
"""Floats by their width in bytes."""
_ZSTD = pa.Codec("zstd")
_PAGE = re.compile(
    rb"\x15\x00\x15(%b)\x15(%b)\x15(%b)\x1c\x15(%b)\x15\x12\x15\x06\x15\x06(?:\x1c\x00)?\x00\x00" % ((_VARINT,) * 4)
)
"""The header of a data page: bytes unpacked and packed, checksum, values; byte-stream-split, without statistics."""


class UnlikeOursError(Exception):
    """The file is not as `xaicli.parquet` writes it: read it by other means."""


class ColumnChunk(NamedTuple):
    """A metric's values of one row group.

    Attributes:
        rows: How many there are, nulls included.
        first: Where its first page begins in the file, and how long all of them are, as the footer spells these.
    """

    rows: int
    first: tuple[bytes, bytes]


def facts_of(footer: bytes) -> bytes | None:
    """What `xaicli.parquet` says of the rows under the footer's key `xai`, JSON; None where it says nothing."""
    # An entry of key_value_metadata: the key, a text of three bytes, then the value, a text, too.
    start = b"\x18\x03xai\x18"
    at = footer.rfind(start)
    if at < 0:
        return None
    length, at = _varint(footer, at + len(start))
    return footer[at : at + length]


def column_chunks(footer: bytes, column: str) -> list[ColumnChunk]:
    """A column's chunks, zstd-compressed and without a dictionary, in the order of the row groups.

    Args:
        footer: The verified footer of a file.
        column: The name of a column of plain values.
    """
    found = _pattern(column).findall(footer)
    return [ColumnChunk(_signed(rows), (begin, size)) for rows, size, begin in found]


@cache
def _pattern(column: str) -> re.Pattern[bytes]:
    """The part of a chunk's metadata from path to first page; its groups: values, compressed bytes, place."""
    name = column.encode()
    path = b"\x19\x18" + _as_varint(len(name)) + name
    codec, n, unpacked, packed, place = rb"\x15\x0c", rb"\x16(%b)", rb"\x16%b", rb"\x16(%b)", rb"\x26(%b)"
    return re.compile(re.escape(path) + codec + b"".join(part % _VARINT for part in (n, unpacked, packed, place)))


def _read(descriptor: int, size: int, place: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, place)
    with _SEEKING:  # Windows reads where the file was left
        os.lseek(descriptor, place, os.SEEK_SET)
        return os.read(descriptor, size)


_SEEKING = threading.Lock()


def values_at(file: int | bytes, chunk: ColumnChunk, rows: Sequence[int]) -> list[float]:
    """Some of the values of a chunk of floats; only pages that hold any are unpacked.

    Plain Python: with a handful of values a chunk, arrays would cost more than they save.

    Args:
        file: Its file's descriptor, or all bytes of the file.
        chunk: Which.
        rows: Numbers of rows within the chunk, ascending.

    Returns:
        The values, NaN for null.

    Raises:
        UnlikeOursError: Its pages are not byte-stream-split floats.
        OSError: The bytes are not those that were written.
    """
    place, size = map(_signed, chunk.first)
    data = file[place : place + size] if isinstance(file, bytes) else _read(file, size, place)
    found: list[float] = []
    at = passed = 0
    while at < len(data):
        header = _PAGE.match(data, at, at + _HEADER)
        if header is None:
            raise UnlikeOursError
        unpacked, packed, crc, n = map(_signed, header.groups())
        at = header.end() + packed
        # No checksum covers a page's header: it must agree with the footer.
        if n < 1 or packed < 0 or at > len(data) or not 0 <= unpacked <= _WIDEST * n + _HEADER:
            raise UnlikeOursError
        last = bisect_left(rows, passed + n, len(found))
        if inside := [row - passed for row in rows[len(found) : last]]:
            content = data[header.end() : at]
            if zlib.crc32(content) != crc & 0xFFFFFFFF:
                raise OSError("a page's checksum is not that of its bytes")
            found += _of_page(_ZSTD.decompress(content, unpacked, asbytes=True), n, inside)
        passed += n
    if passed != chunk.rows:
        raise UnlikeOursError
    return found


def _of_page(plain: bytes, n: int, rows: Sequence[int]) -> list[float]:
    """The values at some rows of a page of n, NaN for null: definition levels, then byte-stream-split floats."""
    begin = 4 + int.from_bytes(plain[:4], "little")
    levels, streams = plain[4:begin], memoryview(plain)[begin:]
    # As a rule no value is null: one run of ones.
    if levels == _as_varint(n << 1) + b"\x01":
        return [_joined(streams, n, row) for row in rows]
    present = _present(levels, n)
    places = np.cumsum(present) - 1
    known = int(np.count_nonzero(present))
    return [_joined(streams, known, int(places[row])) if present[row] else math.nan for row in rows]


def _joined(streams: memoryview, n: int, place: int) -> float:
    """One of n floats of which all first bytes come first, then all second ones, ..."""
    width = len(streams) // n
    if width not in _FLOATS or len(streams) != width * n:
        raise UnlikeOursError
    return float(_FLOATS[width].unpack(bytes(streams[place::n]))[0])


def _present(levels: bytes, n: int) -> NDArray[np.bool_]:
    """Which of n values are not null, from their definition levels of one bit, run-length encoded or packed."""
    parts: list[NDArray[np.bool_]] = []
    at = known = 0
    while known < n and at < len(levels):
        run, at = _varint(levels, at)
        if run & 1:
            bits = np.unpackbits(np.frombuffer(levels, np.uint8, count=run >> 1, offset=at), bitorder="little")
            parts.append(bits.view(np.bool_))
            at += run >> 1
        else:
            parts.append(np.full(run >> 1, levels[at] != 0))
            at += 1
        known += len(parts[-1])
    # Packed ones come by eight.
    if not n <= known < n + 8:
        raise UnlikeOursError
    return np.concatenate(parts)[:n]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


@lru_cache(maxsize=1024)
def _signed(data: bytes) -> int:
    value, _ = _varint(data, 0)
    return (value >> 1) ^ -(value & 1)


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
