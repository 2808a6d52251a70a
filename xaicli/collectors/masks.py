"""Binary masks as run lengths, column by column from a run of zeros on, as COCO writes them uncompressed."""

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
    values = np.arange(len(counts)) % 2 == 1
    flat = np.repeat(values, np.asarray(counts, np.int64))
    if len(flat) != height * width:
        raise ValueError(f"runs of {len(flat)} pixels do not fill a mask of {height} x {width}")
    return flat.reshape((height, width), order="F")


def bounding_box(mask: NDArray[Any]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) around an (H, W) mask, the far edges outside; all 0 for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
