"""Single values of a metric, picked out of the pages they lie in; every byte used is verified.

To show ten samples takes ten pages of every epoch. Parsing the whole footer of a file, some thousand column chunks,
would take as long as decoding these pages, so that the few entries that matter are found in the footer's bytes instead.
The format: https://parquet.apache.org/docs/file-format/ with its metadata in Thrift's compact protocol.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_HEADER = 64
"""No page header of ours is longer."""
_WIDEST = 9
"""Bytes of a value, at most, with its definition level."""
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


def values_at(file: int, chunk: ColumnChunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Some of the values of a chunk of floats; pages without any of them are passed over.

    Args:
        file: Its file's descriptor.
        chunk: Which.
        rows: (n,) numbers of rows within the chunk, ascending.

    Returns:
        (n,) values, NaN for null.

    Raises:
        UnlikeOursError: Its pages are not byte-stream-split floats.
        OSError: The bytes are not those that were written.
    """
    pages = list(_pages(file, chunk))
    begins = np.cumsum([0, *(page.rows for page in pages)])
    # No checksum covers a page's header; together they must say what the footer says.
    if begins[-1] != chunk.rows:
        raise UnlikeOursError
    of_row = np.searchsorted(begins, rows, side="right") - 1
    found = [pages[number].values_at(file, rows[of_row == number] - begins[number]) for number in np.unique(of_row)]
    return np.concatenate(found).astype(np.float64)


def _pages(file: int, chunk: ColumnChunk) -> Iterator[_Page]:
    begin, size = map(_signed, chunk.first)
    end = begin + size
    while begin < end:
        page = _Page.at(file, begin, end)
        yield page
        begin = page.end


class _Page(NamedTuple):
    """A page of byte-stream-split floats: what its header says, and where its bytes lie."""

    rows: int
    unpacked: int
    crc: int
    begin: int
    end: int

    @classmethod
    def at(cls, file: int, begin: int, limit: int) -> _Page:
        found = _PAGE.match(os.pread(file, min(_HEADER, limit - begin), begin))
        if found is None:
            raise UnlikeOursError
        unpacked, packed, crc, rows = map(_signed, found.groups())
        begin += found.end()
        if rows < 1 or packed < 0 or begin + packed > limit or not 0 <= unpacked <= _WIDEST * rows + _HEADER:
            raise UnlikeOursError
        return cls(rows, unpacked, crc & 0xFFFFFFFF, begin, begin + packed)

    def values_at(self, file: int, rows: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """(n,) values at some rows of the page, NaN for null."""
        packed = os.pread(file, self.end - self.begin, self.begin)
        if zlib.crc32(packed) != self.crc:
            raise OSError("a page's checksum is not that of its bytes")
        plain = pa.Codec("zstd").decompress(packed, self.unpacked, asbytes=True)
        begin = 4 + int.from_bytes(plain[:4], "little")
        levels, values = plain[4:begin], np.frombuffer(plain, np.uint8, offset=begin)
        # As a rule no value is null: one run of ones.
        if levels == _as_varint(self.rows << 1) + b"\x01":
            return _joined(values, self.rows, rows)
        present = _present(levels, self.rows)
        n = int(np.count_nonzero(present))
        found = np.full(len(rows), np.nan)
        if n:
            found[present[rows]] = _joined(values, n, np.cumsum(present)[rows[present[rows]]] - 1)
        return found


def _joined(streams: NDArray[np.uint8], n: int, places: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Some of n floats of which all first bytes come first, then all second ones, ..."""
    width = len(streams) // n
    if width not in (2, 4, 8) or len(streams) != width * n:
        raise UnlikeOursError
    return np.ascontiguousarray(streams.reshape(width, n)[:, places].T).view(f"<f{width}")[:, 0]


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
