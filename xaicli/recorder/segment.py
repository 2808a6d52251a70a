"""A segment being filled: frames copied in whole, the used size stored last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xaicli.recorder.columns import Column, Texts
from xaicli.wal.frames import (
    FRAME,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    NULL_LENGTH,
    SALT,
    USED_AT,
    Frame,
    Kind,
    Place,
    SegmentFacts,
    is_varied,
    scan_frames,
    storage,
)

SEGMENT_BYTES = 5_500_000
_MOST_PLANS = 65_535
_ROWS = int(Kind.ROWS)
_FRAME_BYTES = FRAME.size
_pack_frame = FRAME.pack_into


class Plan:
    """The columns of a batch: ((name, dtype), ...), dtypes as `xaicli.wal.frames.storage` reads them.

    Plans are told apart by identity: one is made once and used for every batch like it.
    """

    def __init__(self, columns: Sequence[tuple[str, str]]) -> None:
        self.columns = tuple(columns)
        self.has_texts = any(is_varied(dtype) for _, dtype in columns)


class Segment:
    """Memory for rows of any place: a file mapped into memory, or plain memory.

    Attributes:
        sequence: The number of the parts these rows become.
        rows: Sample rows held.
        size: Bytes of the memory.
        wanted: Bytes of the last frame that found no room.
    """

    def __init__(self, memory: Any, *, path: Path | None = None) -> None:
        """
        Args:
            memory: A writable buffer.
            path: The file it maps, if it is one: its rows survive the process.
        """
        self.path = path
        self._memory = memory
        self._view = memoryview(memory).cast("B")
        self.size = len(self._view)
        self.wanted = 0
        self._used = self._view[USED_AT : USED_AT + 8].cast("Q")
        self._room = len(self._view) - HEADER_BYTES
        self.facts: SegmentFacts | None = None
        self.sequence = 0
        self.rows = 0
        self._at = 0
        self._salt = 0
        self._plans: dict[Plan, int] = {}
        self._places: dict[Place, int] = {}

    def begin(self, facts: SegmentFacts, sequence: int) -> None:
        """Make the segment empty and say whose rows follow."""
        self._used[0] = 0
        self.facts, self.sequence, self.rows, self._at = facts, sequence, 0, 0
        self._plans, self._places = {}, {}
        self._salt = sequence * SALT
        text = facts.to_json()
        self._view[HEADER.size : HEADER.size + len(text)] = text
        HEADER.pack_into(self._view, 0, MAGIC, sequence, 0, len(text), crc32(text))

    def append(self, place: Place, plan: Plan, rows: int, step: int, values: Sequence[Column]) -> bool:
        """Add a batch; False where there is no room for it.

        Args:
            place: What its rows belong to.
            plan: The batch's columns.
            rows: Its rows.
            step: Its step.
            values: (rows,) each, in the order and of the types the plan was made with.

        Raises:
            ValueError: A text has no UTF-8 form.
        """
        number = self._plans.get(plan)
        if number is None:
            number = self._add_plan(plan)
        where = self._places.get(place)
        if where is None:
            where = self._add_place(place)
        if number is None or where is None:
            return False
        if plan.has_texts:
            payload = _with_texts(plan, values)
        else:
            try:
                payload = b"".join(values)  # type: ignore[arg-type]
            except (TypeError, ValueError, BufferError):  # a value is not contiguous, or no array of numpy's
                payload = b"".join(_contiguous(plan, values))  # type: ignore[arg-type]
        return self._put(payload, rows, number, _ROWS, where, step)

    def append_records(self, folder: int, records: int, payload: bytes) -> bool:
        """Add records beside samples; False where there is no room for them.

        Args:
            folder: Where they go, by its number in `RECORD_FOLDERS`.
            records: How many there are.
            payload: As `xaicli.wal.records` encodes them.
        """
        if not self._put(payload, records, folder, int(Kind.RECORDS), 0, 0):
            return False
        self.rows -= records
        return True

    def _put(self, payload: bytes, rows: int, number: int, kind: int, place: int, step: int) -> bool:
        length = _FRAME_BYTES + len(payload)
        start = HEADER_BYTES + self._at
        if self._at + length > self._room:
            self.wanted = length
            return False
        # checksum_seed, without the call
        crc = crc32(payload, (step + rows + number + (place << 8) + (kind << 30) + self._salt) & 0xFFFFFFFF)
        _pack_frame(self._view, start, length, crc, rows, number, kind, place, step)
        self._view[start + _FRAME_BYTES : start + length] = payload
        self.rows += rows
        self._at += length
        self._used[0] = self._at
        return True

    def _add_plan(self, plan: Plan) -> int | None:
        number = len(self._plans)
        if number > _MOST_PLANS or not self._put(json.dumps(plan.columns).encode(), 0, number, int(Kind.PLAN), 0, 0):
            return None
        self._plans[plan] = number
        return number

    def _add_place(self, place: Place) -> int | None:
        number = len(self._places)
        if not self._put(json.dumps(place).encode(), 0, 0, int(Kind.PLACE), number, 0):
            return None
        self._places[place] = number
        return number

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._at

    def content(self) -> memoryview:
        """The frames' bytes."""
        return self._view[HEADER_BYTES : HEADER_BYTES + self._at]

    def frames(self) -> list[Frame]:
        """The batches held, in the order they were added."""
        return [frame for frame in scan_frames(self.content()) if frame.rows]

    def reset(self) -> None:
        """Forget the rows: they are in a part."""
        self._used[0] = 0
        self.rows = self._at = 0

    @property
    def is_durable(self) -> bool:
        """Whether the rows outlive the process."""
        return self.path is not None and self.path.exists()


def _contiguous(plan: Plan, values: Sequence[Column]) -> list[NDArray[Any]]:
    """The values of a plan without texts as arrays that can be copied as bytes."""
    return [np.ascontiguousarray(v, storage(dtype)[0]) for v, (_, dtype) in zip(values, plan.columns, strict=True)]


def _with_texts(plan: Plan, values: Sequence[Column]) -> bytes:
    """The payload of a batch with texts or lists: lengths among the columns, the bytes after them."""
    pieces, texts = [], []
    for value, (_, dtype) in zip(values, plan.columns, strict=True):
        if is_varied(dtype):
            lengths, text = encode_texts(value) if dtype == "string" else _encode_lists(value)  # type: ignore[arg-type]
            pieces.append(np.array(lengths, np.uint32))
            texts.append(text)
        else:
            pieces.append(np.ascontiguousarray(value))
    return b"".join([*pieces, *texts])  # type: ignore[list-item]


def _encode_lists(values: Sequence[bytes | None]) -> tuple[list[int], bytes]:
    """The lengths of lists in bytes, and their bytes one after the other."""
    lengths = [NULL_LENGTH if value is None else len(value) for value in values]
    return lengths, b"".join(value for value in values if value)


def encode_texts(values: Texts) -> tuple[list[int], bytes]:
    """The lengths of texts in bytes, and their bytes one after the other.

    Raises:
        ValueError: A text has no UTF-8 form (a lone surrogate).
    """
    try:
        joined = "".join(values)  # type: ignore[arg-type]
        if joined.isascii():
            return list(map(len, values)), joined.encode("ascii")  # type: ignore[arg-type]
    except TypeError:
        pass  # one is missing
    pieces = [None if value is None else value.encode() for value in values]
    lengths = [NULL_LENGTH if piece is None else len(piece) for piece in pieces]
    return lengths, b"".join(piece for piece in pieces if piece)
