"""Samples far from each other: k-centre greedy (Gonzalez 1985; Sener and Savarese 2018 for choosing training data)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 22
"""Values looked at in one go."""


def k_centres(vectors: NDArray[np.floating], k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The places of k vectors, each the farthest from all chosen before it; of equally far ones the first.

    The first is the one nearest to the mean of all. Vectors that equal a chosen one come last, at distance 0.

    Args:
        vectors: (n, d), finite.
        k: At most n.

    Returns:
        (k,) places in the order chosen, and (k,) the distance of each to the nearest chosen before it; of the first, to
        the mean.
    """
    points = np.ascontiguousarray(vectors, np.float64)
    chosen = np.empty(min(k, len(points)), np.intp)
    far = np.empty(len(chosen), np.float64)
    if not len(chosen):
        return chosen, far
    to_mean = _squares(points, points.mean(axis=0))
    nearest = np.full(len(points), np.inf)
    for number in range(len(chosen)):
        # Chosen ones are out of the running, also where all that is left lies upon them.
        at = int(to_mean.argmin()) if number == 0 else int(nearest.argmax())
        chosen[number], far[number] = at, to_mean[at] if number == 0 else nearest[at]
        np.minimum(nearest, _squares(points, points[at]), out=nearest)
        nearest[at] = -1.0
    return chosen, np.sqrt(far)


def _squares(points: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) squared distances, some rows at a time."""
    found = np.empty(len(points))
    rows = max(1, _BLOCK // max(points.shape[1], 1))
    for start in range(0, len(points), rows):
        away = points[start : start + rows] - centre
        found[start : start + rows] = np.einsum("ij,ij->i", away, away)
    return found
