"""A segment being filled: frames assembled in a scratch buffer and copied in whole, the used size stored last."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xaicli.recorder.columns import Column, Texts
from xaicli.wal.frames import (
    CRC_FROM,
    FRAME,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    NULL_LENGTH,
    USED_AT,
    Frame,
    Kind,
    SegmentFacts,
    item_size,
    padded,
    scan_frames,
    storage,
)

SEGMENT_BYTES = 5_500_000
_SCRATCHES_KEPT = 32
_CRC = struct.Struct("<I")
_ROWS = int(Kind.ROWS)


class Scratch(NamedTuple):
    """The memory a frame is assembled in.

    Attributes:
        frame: All of it.
        checked: What the checksum covers.
        columns: The place of each column.
        fixed: Bytes up to where texts begin.
    """

    frame: memoryview
    checked: memoryview
    columns: list[NDArray[Any]]
    fixed: int


class Plan:
    """The columns of a batch, and the memory a batch of them is assembled in."""

    def __init__(self, columns: Sequence[tuple[str, str]]) -> None:
        self.columns = tuple(columns)
        self.has_texts = any(dtype == "string" for _, dtype in columns)
        self._scratches: dict[int, Scratch] = {}

    def scratch(self, rows: int) -> Scratch:
        """Memory for a frame of `rows` rows."""
        if made := self._scratches.get(rows):
            return made
        if len(self._scratches) >= _SCRATCHES_KEPT:
            self._scratches.clear()
        size = FRAME.size + sum(padded(rows * item_size(dtype)) for _, dtype in self.columns)
        frame = memoryview(bytearray(size))
        places, at = [], FRAME.size
        for _, dtype in self.columns:
            base, width = storage(dtype)
            place = np.frombuffer(frame, base, rows * (width or 1), at)
            places.append(place.reshape(rows, width) if width else place)
            at += padded(rows * item_size(dtype))
        made = self._scratches[rows] = Scratch(frame, frame[CRC_FROM:], places, at)
        return made


class Segment:
    """Memory for the rows of one (mode, ds_id, epoch): a file mapped into memory, or plain memory.

    Attributes:
        sequence: The number of the part these rows become.
        rows: Rows held.
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
        self._used = np.frombuffer(memory, np.uint64, 1, USED_AT)
        self._room = len(self._view) - HEADER_BYTES
        self.facts: SegmentFacts | None = None
        self.sequence = 0
        self.rows = 0
        self._at = 0
        self._plans: dict[Plan, int] = {}

    def begin(self, facts: SegmentFacts, sequence: int) -> None:
        """Make the segment empty and say whose rows follow."""
        self._used[0] = 0
        self.facts, self.sequence, self.rows, self._at = facts, sequence, 0, 0
        self._plans = {}
        text = facts.to_json()
        if HEADER.size + len(text) > HEADER_BYTES:
            raise ValueError(f"ds_id is too long: {len(facts.ds_id)} characters")
        self._view[HEADER.size : HEADER.size + len(text)] = text
        HEADER.pack_into(self._view, 0, MAGIC, sequence, 0, len(text), crc32(text))

    def append(self, plan: Plan, rows: int, step: int, values: Sequence[Column]) -> bool:
        """Add a batch; False where there is no room for it.

        Args:
            plan: The batch's columns.
            rows: Its rows.
            step: Its step.
            values: (rows,) each, in the order the plan was made with.

        Raises:
            ValueError: A text has no UTF-8 form.
        """
        number = self._plans.get(plan)
        if number is None:
            number = self._add_plan(plan)
            if number is None:
                return False
        if plan.has_texts:
            return self._append_texts(plan, number, rows, step, values)
        frame, checked, places, length = plan.scratch(rows)
        if self._at + length > self._room:
            return False
        for place, value in zip(places, values):  # noqa: B905 - the plan was made of these values
            place[...] = value
        FRAME.pack_into(frame, 0, length, 0, rows, number, _ROWS, step)
        _CRC.pack_into(frame, 4, crc32(checked))
        start = HEADER_BYTES + self._at
        self._view[start : start + length] = frame
        self.rows += rows
        self._at += length
        self._used[0] = self._at
        return True

    def _put(self, frame: bytearray, rows: int) -> None:
        _CRC.pack_into(frame, 4, crc32(memoryview(frame)[CRC_FROM:]))
        start = HEADER_BYTES + self._at
        self._view[start : start + len(frame)] = frame
        self.rows += rows
        self._at += len(frame)
        self._used[0] = self._at

    def _add_plan(self, plan: Plan) -> int | None:
        text = json.dumps(plan.columns).encode()
        frame = bytearray(padded(FRAME.size + len(text)))
        frame[FRAME.size :] = text.ljust(len(frame) - FRAME.size)
        if self._at + len(frame) > self._room:
            return None
        number = len(self._plans)
        FRAME.pack_into(frame, 0, len(frame), 0, 0, number, Kind.PLAN, 0)
        self._put(frame, 0)
        self._plans[plan] = number
        return number

    def _append_texts(self, plan: Plan, number: int, rows: int, step: int, values: Sequence[Column]) -> bool:
        scratch = plan.scratch(rows)
        texts = []
        for place, value, (_, dtype) in zip(scratch.columns, values, plan.columns, strict=True):
            if dtype == "string":
                place[...], text = encode_texts(value)  # type: ignore[arg-type]
                texts.append(text)
            else:
                place[...] = value
        length = padded(scratch.fixed + sum(map(len, texts)))
        if self._at + length > self._room:
            return False
        frame = bytearray(scratch.frame)
        FRAME.pack_into(frame, 0, length, 0, rows, number, _ROWS, step)
        for text in texts:
            frame += text
        frame += bytes(length - len(frame))
        self._put(frame, rows)
        return True

    def content(self) -> memoryview:
        """The frames' bytes."""
        return self._view[HEADER_BYTES : HEADER_BYTES + self._at]

    def frames(self) -> list[Frame]:
        """The batches held, in the order they were added."""
        return list(scan_frames(self.content(), checked=False))

    def reset(self) -> None:
        """Forget the rows: they are in a part."""
        self._used[0] = 0
        self.rows = self._at = 0

    @property
    def is_durable(self) -> bool:
        """Whether the rows outlive the process."""
        return self.path is not None and self.path.exists()


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
