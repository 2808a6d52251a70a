"""A segment being filled: frames assembled in a scratch buffer and copied in whole, the used size stored last."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.recorder.columns import Column, Texts
from xaicli.wal import (
    ALIGNMENT,
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
    scan_frames,
    storage,
)

SEGMENT_BYTES = 5_500_000
_SCRATCHES_KEPT = 32


class Plan:
    """The columns of a batch, and the memory a batch of them is assembled in."""

    def __init__(self, columns: Sequence[tuple[str, str]]) -> None:
        # Widest first, so that every column is aligned.
        self.columns = tuple(sorted(columns, key=lambda column: -item_size(column[1])))
        self.order = [columns.index(column) for column in self.columns]
        self.row_bytes = sum(item_size(dtype) for _, dtype in self.columns)
        self.has_texts = any(dtype == "string" for _, dtype in self.columns)
        self._scratches: dict[int, tuple[bytearray, list[NDArray[Any]]]] = {}

    def scratch(self, rows: int) -> tuple[bytearray, list[NDArray[Any]]]:
        """A frame of `rows` rows and the views of its columns."""
        if made := self._scratches.get(rows):
            return made
        if len(self._scratches) >= _SCRATCHES_KEPT:
            self._scratches.clear()
        buffer = bytearray(padded(FRAME.size + rows * self.row_bytes))
        views, at = [], FRAME.size
        for _, dtype in self.columns:
            views.append(np.frombuffer(buffer, storage(dtype), rows, at))
            at += rows * item_size(dtype)
        self._scratches[rows] = buffer, views
        return buffer, views


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
        HEADER.pack_into(self._view, 0, MAGIC, sequence, 0, len(text), zlib.crc32(text))

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
        buffer, views = plan.scratch(rows)
        if plan.has_texts:
            return self._append_texts(plan, number, rows, step, values)
        length = len(buffer)
        end = self._at + length
        if end > self._room:
            return False
        for view, place in zip(views, plan.order, strict=True):
            view[...] = values[place]
        FRAME.pack_into(buffer, 0, length, 0, rows, number, Kind.ROWS, step)
        self._put(buffer, rows)
        return True

    def _put(self, frame: bytearray, rows: int) -> None:
        view = memoryview(frame)
        frame[4:8] = zlib.crc32(view[CRC_FROM:]).to_bytes(4, "little")
        start = HEADER_BYTES + self._at
        self._view[start : start + len(frame)] = view
        self._at += len(frame)
        self.rows += rows
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
        buffer, views = plan.scratch(rows)
        texts = []
        for view, place, (_, dtype) in zip(views, plan.order, plan.columns, strict=True):
            value = values[place]
            if dtype == "string":
                view[...], text = encode_texts(value)  # type: ignore[arg-type]
                texts.append(text)
            else:
                view[...] = value
        fixed = FRAME.size + rows * plan.row_bytes
        length = padded(fixed + sum(map(len, texts)))
        if self._at + length > self._room:
            return False
        frame = buffer[:fixed]
        FRAME.pack_into(frame, 0, length, 0, rows, number, Kind.ROWS, step)
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


def padded(size: int) -> int:
    """A size rounded up so that what follows is aligned."""
    return -(-size // ALIGNMENT) * ALIGNMENT


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
