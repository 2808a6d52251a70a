"""Principal components, fitted once and kept."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import UsageError, XaiError
from xaicli.files import write_whole

Vectors = NDArray[np.float32]


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
        write_whole(path, sink.getvalue(), durable=True)

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
