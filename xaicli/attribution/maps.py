"""From a signed attribution to the picture people see, and how alike two pictures are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xaicli.attribution.explanation import Floats
from xaicli.attribution.inputs import Layout

_UPPER = 0.99


def strength(attribution: npt.NDArray[Any], layout: Layout) -> Floats:
    """The sum of |attribution| over channels as a plane, non-finite values as 0.

    Args:
        attribution: One sample of the input's shape.

    Returns:
        (H, W); (1, length) where one axis is left; further axes before the last two are summed over too.
    """
    m = np.abs(np.nan_to_num(attribution.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    match layout:
        case Layout.CHANNELS_FIRST:
            m = m.sum(axis=0)
        case Layout.CHANNELS_LAST:
            m = m.sum(axis=-1)
        case Layout.NO_CHANNELS:
            pass
    if m.ndim > 2:
        m = m.sum(axis=tuple(range(m.ndim - 2)))
    plane: Floats = np.atleast_2d(m).astype(np.float32)
    return plane


def scaled(plane: Floats) -> tuple[Floats, bool]:
    """The saliency map of a plane of strengths, and whether it is flat.

    lo = min, hi = the value at sorted position floor(0.99 (HW - 1)); clip((m - lo) / (hi - lo), 0, 1); a flat map is
    all zero. Where so few places stand out that the 99th percentile is the minimum, hi is the maximum.
    """
    values = np.sort(plane, axis=None)
    lo, hi = float(values[0]), float(values[int(_UPPER * (values.size - 1))])
    hi = hi if hi > lo else float(values[-1])
    if not hi > lo:
        return np.zeros_like(plane), True
    return np.clip((plane - lo) / (hi - lo), 0.0, 1.0).astype(np.float32), False


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Spearman's rank correlation with mid-ranks for ties; NaN where either has no contrast."""
    x, y = _mid_ranks(a), _mid_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def _mid_ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse.ravel()]
    return ranks
