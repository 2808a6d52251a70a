"""Every pass of every method flattened into one stream of rows: the points evaluated, and what becomes of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from xaicli.attribution.settings import GRADIENT, INTEGRATED, SMINT, SMOOTHGRAD, Settings

Weights = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""The places of a path's points and what each counts."""


class Kind(IntEnum):
    """What becomes of a term of the stream."""

    CLEAN = 0
    SMOOTH = 1
    INTEGRATED = 2
    SMINT = 3


@dataclass(frozen=True)
class Stream:
    """Every row of every method, unit after unit; the rows of a term are consecutive.

    Attributes:
        unit, draw, term: (row,) int64; draw 0 is the clean input.
        alpha: (row,) float32, the place on the path; 1 for a gradient at the point itself.
        weight: (row,) float32, what the row counts in its term; those of a path sum to one.
        term_kind, term_half, term_unit, term_draw: (term,).
        term_last: (term,), the row after its last one.
    """

    unit: npt.NDArray[np.int64]
    draw: npt.NDArray[np.int64]
    alpha: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    term: npt.NDArray[np.int64]
    term_kind: npt.NDArray[np.int64]
    term_half: npt.NDArray[np.int64]
    term_unit: npt.NDArray[np.int64]
    term_draw: npt.NDArray[np.int64]
    term_last: npt.NDArray[np.int64]

    @property
    def has_paths(self) -> bool:
        """Whether any term has more than one point."""
        return len(self.unit) > len(self.term_unit)


def midpoints(steps: int) -> Weights:
    """One point in the middle of each of `steps` equal intervals."""
    return ((np.arange(steps) + 0.5) / steps).astype(np.float32), np.full(steps, 1 / steps, dtype=np.float32)


def gauss(steps: int) -> Weights:
    """The points of Gauss and Legendre: with two steps a path costs the least for what it is worth."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return ((places + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)


def plan(settings: Settings, n_units: int) -> Stream:
    """Flatten every pass of every method into one stream."""
    terms: list[tuple[int, int, int, Weights]] = []
    point = np.ones(1, dtype=np.float32), np.ones(1, dtype=np.float32)
    rule = gauss if settings.economical else midpoints
    wants = settings.methods.__contains__
    if wants(GRADIENT) or wants(SMOOTHGRAD):
        terms.append((Kind.CLEAN, 0, 0, point))
    if wants(SMOOTHGRAD):
        terms += [(Kind.SMOOTH, settings.half(draw), draw, point) for draw in range(1, settings.draws)]
    if wants(INTEGRATED):
        places, weights = rule(settings.steps)
        terms += [
            (Kind.INTEGRATED, half, 0, (places[half::2], weights[half::2])) for half in (0, 1) if len(places) > half
        ]
    if wants(SMINT):
        first = int(settings.smint_shares_the_clean_path)
        paths = [rule(settings.steps_of(draw)) for draw in range(settings.smint_draws)]
        terms += [(Kind.SMINT, settings.half(draw), draw, paths[draw]) for draw in range(first, settings.smint_draws)]
    return _flatten(terms, n_units)


def _flatten(terms: list[tuple[int, int, int, Weights]], n_units: int) -> Stream:
    lengths = np.array([len(places) for *_, (places, _) in terms])
    kind, half, draw = (np.array(column, dtype=np.int64) for column in zip(*(t[:3] for t in terms), strict=True))
    n_terms, rows = len(terms), int(lengths.sum())
    term = np.repeat(np.arange(n_terms), lengths)
    return Stream(
        unit=np.repeat(np.arange(n_units), rows),
        draw=np.tile(draw[term], n_units),
        alpha=np.tile(np.concatenate([places for *_, (places, _) in terms]), n_units),
        weight=np.tile(np.concatenate([weights for *_, (_, weights) in terms]), n_units),
        term=(np.arange(n_units)[:, None] * n_terms + term).ravel(),
        term_kind=np.tile(kind, n_units),
        term_half=np.tile(half, n_units),
        term_unit=np.repeat(np.arange(n_units), n_terms),
        term_draw=np.tile(draw, n_units),
        term_last=(np.arange(n_units)[:, None] * rows + np.cumsum(lengths)).ravel(),
    )


def edges(terms: npt.NDArray[np.int64]) -> list[int]:
    """Where the rows of each term begin, and the end."""
    return [0, *(np.flatnonzero(np.diff(terms)) + 1).tolist(), len(terms)]
