"""Every pass of every method flattened into one stream of rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from xaicli.attribution.settings import GRADIENT, INTEGRATED, SMINT, SMOOTHGRAD, Settings


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
        term_kind, term_half, term_unit, term_draw: (term,).
        term_steps: (term,), by how much a term's sum is divided: a path's steps; 1 for a point.
        term_last: (term,), the row after its last one.
    """

    unit: npt.NDArray[np.int64]
    draw: npt.NDArray[np.int64]
    alpha: npt.NDArray[np.float32]
    term: npt.NDArray[np.int64]
    term_kind: npt.NDArray[np.int64]
    term_half: npt.NDArray[np.int64]
    term_unit: npt.NDArray[np.int64]
    term_draw: npt.NDArray[np.int64]
    term_steps: npt.NDArray[np.int64]
    term_last: npt.NDArray[np.int64]


def alphas(steps: int, shift: float = 0.5) -> npt.NDArray[np.float32]:
    """The places of a path's points, one in each of `steps` equal intervals; their middles unless shifted."""
    return ((np.arange(steps) + shift) / steps).astype(np.float32)


def plan(settings: Settings, n_units: int) -> Stream:
    """Flatten every pass of every method into one stream."""
    terms: list[tuple[int, int, int, int, npt.NDArray[np.float32]]] = []
    point = np.ones(1, dtype=np.float32)
    wants = settings.methods.__contains__
    shifts = np.random.default_rng(settings.seed).random(settings.smint_draws)
    if wants(GRADIENT) or wants(SMOOTHGRAD):
        terms.append((Kind.CLEAN, 0, 0, 1, point))
    if wants(SMOOTHGRAD):
        terms += [(Kind.SMOOTH, draw % 2, draw, 1, point) for draw in range(1, settings.draws)]
    if wants(INTEGRATED):
        places = alphas(settings.steps)
        terms += [(Kind.INTEGRATED, half, 0, settings.steps, places[half::2]) for half in (0, 1) if len(places) > half]
    if wants(SMINT):
        first = int(settings.smint_shares_the_clean_path)
        for draw in range(first, settings.smint_draws):
            places = alphas(settings.smint_steps, float(shifts[draw]) if settings.shifted else 0.5)
            terms.append((Kind.SMINT, draw % 2, draw, settings.smint_steps, places))
    return _flatten(terms, n_units)


def _flatten(terms: list[tuple[int, int, int, int, npt.NDArray[np.float32]]], n_units: int) -> Stream:
    lengths = np.array([len(places) for *_, places in terms])
    kind, half, draw, steps = (np.array(column, dtype=np.int64) for column in zip(*(t[:4] for t in terms), strict=True))
    n_terms, rows = len(terms), int(lengths.sum())
    term = np.repeat(np.arange(n_terms), lengths)
    return Stream(
        unit=np.repeat(np.arange(n_units), rows),
        draw=np.tile(draw[term], n_units),
        alpha=np.tile(np.concatenate([places for *_, places in terms]), n_units),
        term=(np.arange(n_units)[:, None] * n_terms + term).ravel(),
        term_kind=np.tile(kind, n_units),
        term_half=np.tile(half, n_units),
        term_unit=np.repeat(np.arange(n_units), n_terms),
        term_draw=np.tile(draw, n_units),
        term_steps=np.tile(steps, n_units),
        term_last=(np.arange(n_units)[:, None] * rows + np.cumsum(lengths)).ravel(),
    )


def edges(terms: npt.NDArray[np.int64]) -> list[int]:
    """Where the rows of each term begin, and the end."""
    return [0, *(np.flatnonzero(np.diff(terms)) + 1).tolist(), len(terms)]
