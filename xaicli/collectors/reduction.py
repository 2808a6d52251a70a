"""Embeddings in two or three dimensions: fitted once, then applied to everything that follows.

So the points of later epochs and of other splits lie in the same plane. PCA is built in; UMAP and PaCMAP are taken
from their packages when they are asked for.
"""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import UsageError, XaiError, unknown
from xaicli.parquet import write_bytes

Vectors = NDArray[np.float32]


class Reducer(Protocol):
    """Something fitted to vectors that then maps any vector."""

    name: str

    def fit(self, vectors: Vectors) -> None:
        """Learn the map from (N, D) vectors."""

    def transform(self, vectors: Vectors) -> Vectors:
        """(N, D) to (N, n_components)."""


class PCA:
    """Principal components: the orthogonal directions of largest variance (Pearson 1901).

    The sign of a direction is free; here its largest entry is positive, so that two fits agree.

    Args:
        n_components: How many directions to keep.

    Attributes:
        mean: (D,) of the fitted vectors.
        components: (n_components, D), orthonormal rows in the order of their variance.
        explained_variance: (n_components,), divisor n - 1.
    """

    name = "pca"

    def __init__(self, n_components: int = 2) -> None:
        if n_components < 1:
            raise UsageError(f"n_components={n_components} must be 1 or more")
        self.n_components = n_components
        self.mean: NDArray[np.float64] = np.zeros(0)
        self.components: NDArray[np.float64] = np.zeros((0, 0))
        self.explained_variance: NDArray[np.float64] = np.zeros(0)

    def fit(self, vectors: Vectors) -> None:
        """Learn mean and directions from (N, D) vectors; fewer directions if N or D allow no more."""
        x = np.asarray(vectors, np.float64)
        kept = min(self.n_components, *x.shape)
        self.mean = x.mean(axis=0)
        x = x - self.mean
        if x.shape[0] > x.shape[1]:
            # The D x D covariance is smaller than the data.
            variance, columns = np.linalg.eigh(x.T @ x / max(len(x) - 1, 1))
            order = np.argsort(variance)[::-1][:kept]
            components, variance = columns[:, order].T, variance[order]
        else:
            _, values, rows = np.linalg.svd(x, full_matrices=False)
            components, variance = rows[:kept], values[:kept] ** 2 / max(len(x) - 1, 1)
        largest = np.abs(components).argmax(axis=1)
        self.components = components * np.sign(components[np.arange(kept), largest])[:, None]
        self.explained_variance = variance.clip(0)

    def transform(self, vectors: Vectors) -> Vectors:
        """(N, D) to (N, n_components)."""
        return ((np.asarray(vectors, np.float64) - self.mean) @ self.components.T).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the fitted map; it appears complete."""
        sink = io.BytesIO()
        np.savez(sink, mean=self.mean, components=self.components, explained_variance=self.explained_variance)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(sink.getvalue(), path)

    @classmethod
    def load(cls, path: Path) -> PCA:
        """Read a fitted map.

        Raises:
            XaiError: The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                fitted = cls(len(stored["components"]))
                fitted.mean, fitted.components = stored["mean"], stored["components"]
                fitted.explained_variance = stored["explained_variance"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise XaiError(f"{path} cannot be read: {error}", hint="delete it to fit the reduction anew") from error
        return fitted


class UMAP:
    """Uniform manifold approximation (McInnes et al. 2018, arXiv:1802.03426), by the package `umap-learn`."""

    name = "umap"

    def __init__(self, n_components: int = 2, *, n_neighbors: int = 15, min_dist: float = 0.1, seed: int = 0) -> None:
        self._model = _package("umap", "umap-learn", "xaicli[umap]").UMAP(
            n_components=n_components, n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed
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
