"""A segment being filled: frames assembled in a scratch buffer and copied in whole, the used size stored last."""

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
_ROWS = int(Kind.ROWS)
_FRAME_BYTES = FRAME.size
_pack_frame = FRAME.pack_into


class Plan:
    """The columns of a batch, and the memory a batch of them is assembled in.

    Attributes:
        columns: ((name, dtype), ...).
        is_direct: Values come in exactly these types and may be copied as bytes.
    """

    def __init__(self, columns: Sequence[tuple[str, str]], *, is_direct: bool = False) -> None:
        self.columns = tuple(columns)
        self.is_direct = is_direct
        self.has_texts = any(dtype == "string" for _, dtype in columns)
        self._scratches: dict[int, tuple[bytearray, list[NDArray[Any]]]] = {}

    def scratch(self, rows: int) -> tuple[bytearray, list[NDArray[Any]]]:
        """Memory for the payload of `rows` rows, texts left out, and the place of each column in it."""
        if made := self._scratches.get(rows):
            return made
        if len(self._scratches) >= _SCRATCHES_KEPT:
            self._scratches.clear()
        payload = bytearray(sum(padded(rows * item_size(dtype)) for _, dtype in self.columns))
        places, at = [], 0
        for _, dtype in self.columns:
            base, width = storage(dtype)
            place = np.frombuffer(payload, base, rows * (width or 1), at)
            places.append(place.reshape(rows, width) if width else place)
            at += padded(rows * item_size(dtype))
        made = self._scratches[rows] = payload, places
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
        try:
            # An even number of rows needs no padding; the copy is then one call.
            payload = b"".join(values) if plan.is_direct and not rows & 1 else _assembled(plan, rows, values)  # type: ignore[arg-type]
        except TypeError:  # a value is not contiguous
            payload = _assembled(plan, rows, values)
        return self._put(payload, rows, number, _ROWS, step)

    def _put(self, payload: bytes | bytearray, rows: int, number: int, kind: int, step: int) -> bool:
        length = _FRAME_BYTES + len(payload)
        start = HEADER_BYTES + self._at
        if self._at + length > self._room:
            return False
        crc = crc32(payload, (step + rows + number) & 0xFFFFFFFF)  # checksum_seed, without the call
        _pack_frame(self._view, start, length, crc, rows, number, kind, step)
        self._view[start + _FRAME_BYTES : start + length] = payload
        self.rows += rows
        self._at += length
        self._used[0] = self._at
        return True

    def _add_plan(self, plan: Plan) -> int | None:
        text = json.dumps(plan.columns).encode()
        number = len(self._plans)
        if not self._put(text.ljust(padded(len(text))), 0, number, int(Kind.PLAN), 0):
            return None
        self._plans[plan] = number
        return number

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


def _assembled(plan: Plan, rows: int, values: Sequence[Column]) -> bytearray:
    """The payload of a batch, each value brought into its column's type."""
    payload, places = plan.scratch(rows)
    if plan.has_texts:
        return _with_texts(plan, payload, places, values)
    for place, value in zip(places, values, strict=True):
        place[...] = value
    return payload


def _with_texts(plan: Plan, fixed: bytearray, places: Sequence[NDArray[Any]], values: Sequence[Column]) -> bytearray:
    """The payload of a batch with texts: lengths among the columns, the bytes after them."""
    texts = []
    for place, value, (_, dtype) in zip(places, values, plan.columns, strict=True):
        if dtype == "string":
            place[...], text = encode_texts(value)  # type: ignore[arg-type]
            texts.append(text)
        else:
            place[...] = value
    payload = fixed + b"".join(texts)
    return payload + bytes(padded(len(payload)) - len(payload))


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
