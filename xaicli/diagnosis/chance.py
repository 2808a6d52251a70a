"""How likely chance alone would bring what was found: tails of distributions, and corrections for many looks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_TINY = 1e-300
_NEGLIGIBLE = 1e-18
_TERMS = 300
_ENDS, _NODES = 100, 300
"""Of many values so many on each side stand for themselves, and those between are put into so many groups."""
_TOGETHER = 512
"""Draws worked on at a time."""
_STEPS, _HALVED = 60, 30
_SETTLED = 1e-9
"""What another step would bring at most, of a logarithm of a chance."""
_LARGE = 700.0
_NEAR = 0.3
"""Nearer to the middle the approximation is 0 / 0, and no chance is small."""


def binomial_tail(k: int, n: int, chance: float) -> float:
    """The chance of at least k hits in n tries."""
    if k <= 0 or chance >= 1:
        return 1.0
    if chance <= 0 or k > n:
        return 0.0
    if k > n * chance:
        return min(1.0, _falling(k, n, chance))
    return max(0.0, 1.0 - _falling(n - k + 1, n, 1 - chance))


def _falling(k: int, n: int, chance: float) -> float:
    """The chances of k, k + 1, ... hits, together: above the mean each is smaller than the one before."""
    odds = chance / (1 - chance)
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    term = math.exp(ways + k * math.log(chance) + (n - k) * math.log1p(-chance))
    total = 0.0
    for hits in range(k, n + 1):
        total += term
        term *= (n - hits) / (hits + 1) * odds
        if term <= total * _NEGLIGIBLE:
            break
    return total


def benjamini_hochberg(p: Floats) -> Floats:
    """p-values corrected for how many there are: the smallest rate of false discoveries at which each is one.

    Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57, 289-300.
    """
    order = np.argsort(p, kind="stable")
    ranked = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty_like(ranked)
    found[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return found


def welch(
    n: Floats, total: Floats, squares: Floats, other_n: Floats, other_total: Floats, other_squares: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Welch's t of two means, from counts, sums and sums of squares (Welch 1947, Biometrika 34, 28-35).

    Args:
        n: (S,) at least 2.
        total: (S,) sums.
        squares: (S,) sums of squares.
        other_n: (S,) of the others, likewise.

    Returns:
        (S,) two-sided p, difference of the means, its standard error and degrees of freedom: the 95 % interval is
        difference -/+ student_975(freedom) x error.
    """
    difference = total / n - other_total / other_n
    a = np.maximum(squares - total * total / n, 0) / (n - 1) / n
    b = np.maximum(other_squares - other_total * other_total / other_n, 0) / (other_n - 1) / other_n
    error = np.sqrt(a + b)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, difference / error, np.where(difference == 0, 0.0, np.inf))
        freedom = np.where(error > 0, (a + b) ** 2 / (a * a / (n - 1) + b * b / (other_n - 1)), 1.0)
    return student_two_sided(t, freedom), difference, error, freedom


def _log_factorial(n: Floats) -> Floats:
    """(S,) the logarithm of n!, of which several are alike."""
    values, places = np.unique(n, return_inverse=True)
    found: Floats = np.array([math.lgamma(value + 1) for value in values.tolist()])[places]
    return found


def hypergeometric_tail(k: Floats, n: Floats, hits: Floats, total: int) -> Floats:
    """(S,) the chance of at least k hits, of which as many are expected at most, among n drawn without putting back.

    Args:
        k: (S,) how many hits are among the drawn.
        n: (S,) how many are drawn.
        hits: (S,) how many there are among all.
        total: How many there are to draw from.
    """
    k, n, hits = (np.array(part, np.float64) for part in (k, n, hits))
    ways = [
        _log_factorial(a) - _log_factorial(b) - _log_factorial(a - b) for a, b in ((hits, k), (total - hits, n - k))
    ]
    every = math.lgamma(total + 1) - _log_factorial(n) - _log_factorial(total - n)
    term = np.exp(np.minimum(ways[0] + ways[1] - every, 0.0))
    found = np.zeros(len(k))
    left = np.arange(len(k))
    while len(left):
        found[left] += term
        term = term * (hits - k) * (n - k) / ((k + 1) * (total - hits - n + k + 1))
        k = k + 1
        more = term > found[left] * _NEGLIGIBLE
        left, term, k, n, hits = left[more], term[more], k[more], n[more], hits[more]
    return np.minimum(found, 1.0)


class Draws:
    """Means of samples drawn at random, without putting any back, from given values.

    Of two values, hits and misses, their tails are those of the hypergeometric distribution. Of more they are by the
    saddlepoint approximation of a sum under the condition of how many are drawn, each value being in or out by itself
    (Skovgaard 1987, J. Appl. Prob. 24, 875-887; Booth and Butler 1990, Biometrika 77, 787-796). So those drawn and
    those left tell of one chance.
    """

    def __init__(self, values: Floats) -> None:
        """
        Args:
            values: (N,) finite.
        """
        ordered = np.sort(values)
        self._n = len(ordered)
        self._ends = (float(ordered[0]), float(ordered[-1])) if self._n else (0.0, 0.0)
        self._hits = int((ordered == self._ends[1]).sum())
        self._are_hits = self._hits + int((ordered == self._ends[0]).sum()) == self._n
        if self._n > 2 * _ENDS + _NODES:
            middle = ordered[_ENDS:-_ENDS]
            edges = np.linspace(0, len(middle), _NODES + 1)[:-1].astype(np.intp)
            times = np.diff(np.append(edges, len(middle)))
            nodes = np.concatenate([ordered[:_ENDS], np.add.reduceat(middle, edges) / times, ordered[-_ENDS:]])
            weights = np.concatenate([np.ones(_ENDS), times, np.ones(_ENDS)])
        else:
            nodes, weights = np.unique(ordered, return_counts=True)
        self._mean = float(ordered.mean()) if self._n else 0.0
        self._scale = float(ordered.std()) if self._n else 0.0
        self._x = (nodes - self._mean) / (self._scale or 1.0)
        self._weights = weights.astype(np.float64)
        self._moments = np.stack([self._weights, self._weights * self._x, self._weights * self._x**2], axis=1)

    def two_sided(self, n: Floats, mean: Floats) -> Floats:
        """The chance that the mean of n drawn values lies at least as far out, twice that of its side.

        Args:
            n: (S,) how many are drawn, at least 1 and less than N.
            mean: (S,) their means.
        """
        if not self._scale:
            return np.ones(len(n))
        if self._are_hits:
            return self._of_hits(np.asarray(n, np.float64), mean)
        z = (mean - self._mean) / self._scale
        found = np.empty(len(z))
        for start in range(0, len(z), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            found[part] = self._outer(np.asarray(n[part], np.float64), z[part])
        return np.minimum(2 * found, 1.0)

    def _of_hits(self, n: Floats, mean: Floats) -> Floats:
        """(S,) twice the chance of as many hits among n drawn or more, of fewer than expected: as many or fewer."""
        low, high = self._ends
        hits = np.round((mean - low) / (high - low) * n)
        more = hits * self._n >= n * self._hits
        found = hypergeometric_tail(
            np.where(more, hits, n - hits), n, np.where(more, self._hits, self._n - self._hits), self._n
        )
        return np.minimum(2 * found, 1.0)

    def _outer(self, n: Floats, z: Floats) -> Floats:
        """(S,) the chance of a mean of n at least z standard deviations from that of all, on its side."""
        level, tilt, value = np.zeros(len(n)), np.zeros(len(n)), np.zeros(len(n))
        spread = np.ones(len(n))
        left = np.arange(len(n))
        drawn, total, (a, b, c) = self._log_moment(n, level, tilt)[1:]
        for _ in range(_STEPS):  # Newton's, to the highest level n + tilt n z - log moment, which is concave
            own, sums = n[left], (n * z)[left]
            det = np.maximum(a * c - b * b, _TINY)
            spread[left] = det
            up, side = (c * (own - drawn) - b * (sums - total)) / det, (a * (sums - total) - b * (own - drawn)) / det
            more = up * (own - drawn) + side * (sums - total) > _SETTLED
            left, up, side, own, sums = left[more], up[more], side[more], own[more], sums[more]
            if not len(left):
                break
            step = np.ones(len(left))
            for _ in range(_HALVED):
                at = level[left] + step * up, tilt[left] + step * side
                moment, drawn, total, (a, b, c) = self._log_moment(own, *at)
                reached = at[0] * own + at[1] * sums - moment
                short = ~(reached > value[left])
                if not short.any():
                    break
                step[short] /= 2
            level[left], tilt[left], value[left] = *at, reached
        w = np.sqrt(np.maximum(2 * value, 0))
        u = np.abs(tilt) * np.sqrt(spread / (n * (1 - n / self._n)))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            density = np.exp(-w * w / 2) / math.sqrt(2 * math.pi)
            tail = _normal_upper(w) + density * (1 / u - 1 / w)
        near = np.where(w < _NEAR, 0.5, np.nan_to_num(tail, nan=0.5, posinf=0.5, neginf=0.5))
        # Near the largest mean there is, the approximation breaks down. Chernoff's bound, which becomes exact there,
        # and the chance of what was drawn, one of all ways to draw n, hold everywhere.
        rest = self._n - n
        ways = math.lgamma(self._n + 1) - _log_factorial(n) - _log_factorial(rest)
        as_many = ways + n * np.log(n / self._n) + rest * np.log(rest / self._n)
        most = np.exp(np.minimum(-value - as_many, 0.0))
        return np.minimum(np.maximum(np.minimum(near, most), np.exp(-ways)), 0.5)

    def _log_moment(
        self, n: Floats, level: Floats, tilt: Floats
    ) -> tuple[Floats, Floats, Floats, tuple[Floats, Floats, Floats]]:
        """The cumulant generating function of (how many are drawn, their sum), its gradient and its curvature."""
        share = n / self._n
        exponent = np.multiply.outer(tilt, self._x)
        exponent += (np.log(share / (1 - share)) + level)[:, None]
        odds = np.exp(np.minimum(exponent, _LARGE, out=exponent), out=exponent)
        chance = odds / (1 + odds)
        value = np.log1p(odds, out=odds) @ self._weights + self._n * np.log1p(-share)
        first, second = self._moments[:, :2], self._moments
        drawn, total = (chance @ first).T
        chance *= 1 - chance
        a, b, c = (chance @ second).T
        return value, drawn, total, (a, b, c)


def _normal_upper(w: Floats) -> Floats:
    """The chance that a standard normal lies above w."""
    found: Floats = np.vectorize(math.erfc, otypes=[np.float64])(w / math.sqrt(2)) / 2
    return found


def student_two_sided(t: Floats, freedom: Floats) -> Floats:
    """The chance that Student's t lies at least as far from 0."""
    t, freedom = np.asarray(t, np.float64), np.asarray(freedom, np.float64)
    with np.errstate(over="ignore"):
        x = np.where(np.isinf(t), 0.0, freedom / (freedom + np.where(np.isinf(t), 0.0, t) ** 2))
    return incomplete_beta(freedom / 2, np.full_like(x, 0.5), x)


def student_975(freedom: Floats) -> Floats:
    """The 97.5 % points of Student's t, to six digits, by bisection."""
    freedom = np.asarray(freedom, np.float64)
    low, high = np.full_like(freedom, 1.9), np.full_like(freedom, 13.0)
    for _ in range(30):
        middle = (low + high) / 2
        far = student_two_sided(middle, freedom) < 0.05
        low, high = np.where(far, low, middle), np.where(far, middle, high)
    return (low + high) / 2


def incomplete_beta(a: Floats, b: Floats, x: Floats) -> Floats:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22, Lentz's evaluation)."""
    a, b, x = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float), np.asarray(x, float))
    turned = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(turned, b, a), np.where(turned, a, b), np.where(turned, 1 - x, x)
    log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = p * np.log(y) + q * np.log1p(-y) + log_gamma(p + q) - log_gamma(p) - log_gamma(q)
        front = np.where((y > 0) & (y < 1), np.exp(scale) / p, 0.0)
    value = front * _fraction(p, q, y)
    return np.clip(np.where(turned, 1 - value, value), 0.0, 1.0)


def _fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    c, d = np.ones_like(x), 1 / _off_zero(1 - (a + b) * x / (a + 1))
    found = d.copy()
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _off_zero(1 + term * d)
            c = _off_zero(1 + term / c)
            found *= c * d
        if np.all(np.abs(c * d - 1) < 1e-14):
            break
    return found


def _off_zero(values: Floats) -> Floats:
    return np.where(np.abs(values) < _TINY, _TINY, values)
