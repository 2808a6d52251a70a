"""Embeddings in two or three dimensions: fitted once, then applied to everything that follows.

So the points of later epochs and of other splits lie in the same plane. PCA is built in; UMAP and PaCMAP are taken
from their packages when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import XaiError, unknown
from xaicli.tables.pca import PCA

__all__ = ["PCA", "REDUCERS", "UMAP", "PaCMAP", "Reducer", "make_reducer"]

Vectors = NDArray[np.float32]


class Reducer(Protocol):
    """Something fitted to vectors that then maps any vector."""

    name: str

    def fit(self, vectors: Vectors) -> None:
        """Learn the map from (N, D) vectors."""

    def transform(self, vectors: Vectors) -> Vectors:
        """(N, D) to (N, n_components)."""


class UMAP:
    """Uniform manifold approximation (McInnes et al. 2018, arXiv:1802.03426), by the package `umap-learn`."""

    name = "umap"

    def __init__(self, n_components: int = 2, *, n_neighbors: int = 15, min_dist: float = 0.1, seed: int = 0) -> None:
        self._model = _package("umap", "umap-learn", "xaicli[umap]").UMAP(
            n_components=n_components, n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1
        )

    def fit(self, vectors: Vectors) -> None:
        """Learn the map from (N, D) vectors."""
        self._model.fit(vectors)

    def transform(self, vectors: Vectors) -> Vectors:
        """(N, D) to (N, n_components)."""
        return np.asarray(self._model.transform(vectors), np.float32)


class PaCMAP:
    """Pairwise controlled manifold approximation (Wang et al. 2021, arXiv:2012.04456), by the package `pacmap`."""

    name = "pacmap"

    def __init__(self, n_components: int = 2, *, n_neighbors: int = 10, seed: int = 0) -> None:
        self._model = _package("pacmap", "pacmap", "pacmap").PaCMAP(
            n_components=n_components, n_neighbors=n_neighbors, random_state=seed, save_tree=True
        )
        self._fitted: Vectors = np.zeros((0, 0), np.float32)

    def fit(self, vectors: Vectors) -> None:
        """Learn the map from (N, D) vectors."""
        self._fitted = vectors
        self._model.fit(vectors)

    def transform(self, vectors: Vectors) -> Vectors:
        """(N, D) to (N, n_components)."""
        return np.asarray(self._model.transform(vectors, basis=self._fitted), np.float32)


REDUCERS: dict[str, type[Any]] = {"pca": PCA, "umap": UMAP, "pacmap": PaCMAP}


def make_reducer(method: str, n_components: int = 2) -> Reducer:
    """An unfitted reducer.

    Raises:
        XaiError: There is no such method, or its package is not installed.
    """
    if method not in REDUCERS:
        raise unknown("reduction", method, REDUCERS)
    reducer: Reducer = REDUCERS[method](n_components)
    return reducer


def _package(module: str, package: str, requirement: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise XaiError(
            f"the reduction needs the package {package}, which is not installed",
            hint=f"pip install '{requirement}', or use reduction=\"pca\"",
        ) from error
