"""Binary masks as run lengths, column by column from a run of zeros on, as COCO writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode(mask: NDArray[Any]) -> list[int]:
    """The run lengths of an (H, W) mask."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], edges, [len(flat)])))
    first = [0] if len(flat) and flat[0] else []
    return [*first, *(int(count) for count in counts)] if len(flat) else []


def decode(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The (H, W) mask behind run lengths.

    Raises:
        ValueError: The runs do not fill the mask.
    """
    if min(counts, default=0) < 0:
        raise ValueError("a run has a negative length")
    values = np.arange(len(counts)) % 2 == 1
    flat = np.repeat(values, np.asarray(counts, np.int64))
    if len(flat) != height * width:
        raise ValueError(f"runs of {len(flat)} pixels do not fill a mask of {height} x {width}")
    return flat.reshape((height, width), order="F")


def run_lengths(compressed: str | bytes) -> list[int]:
    """The run lengths in COCO's compressed text: five bits a character, from the third run on less the last but one.

    Raises:
        ValueError: It is no such text.
    """
    text = compressed.encode("ascii") if isinstance(compressed, str) else compressed
    counts: list[int] = []
    value, shift = 0, 0
    for byte in text:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {byte} is none of compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths end in the middle of one")
    return counts


def bounding_box(mask: NDArray[Any]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) around an (H, W) mask, the far edges outside; all 0 for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
