"""What a hidden layer makes of every sample; in two or three dimensions, too.

A reduction is fitted once, then applied to everything that follows, so that the points of later epochs and of other
splits lie in the same plane. PCA is built in; UMAP and PaCMAP are taken from their packages when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from xaicli.collectors.collector import METRICS, MetricsCollector, Preprocess
from xaicli.collectors.outputs import Layer, PredictorOutput
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.layout import RunLayout
from xaicli.tables.column import ColumnError, arrow_column
from xaicli.tables.pca import PCA
from xaicli.tables.schema import Embedding

Reshape = Callable[[torch.Tensor], torch.Tensor]


def mean(activations: torch.Tensor) -> torch.Tensor:
    """(N, ...) to (N, C): the mean over positions, so that their number does not matter.

    Four axes and more are (N, C, height, width, ...); three are (N, positions, C), as transformers have them.
    """
    if activations.ndim == 3:
        return activations.mean(dim=1)
    return activations.mean(dim=tuple(range(2, activations.ndim))) if activations.ndim > 3 else activations


def _pooled(size: int) -> Reshape:
    def pool(activations: torch.Tensor) -> torch.Tensor:
        if activations.ndim != 4:
            raise XaiError(
                f"pooling needs (samples, channels, height, width), not shape {tuple(activations.shape)}",
                hint='use reshape_strategy="mean"',
            )
        return functional.adaptive_avg_pool2d(activations, size).flatten(1)

    return pool


STRATEGIES: dict[str, Reshape] = {
    "mean": mean,
    "flatten": lambda activations: activations.flatten(1),
    "avg_pool_1_1": _pooled(1),
    "avg_pool_2_2": _pooled(2),
    "avg_pool_3_3": _pooled(3),
}
"""How a layer's output becomes one vector a sample."""


class EmbeddingsMetricsCollector(MetricsCollector):
    """One vector a sample from each of some hidden layers: columns `embeddings_<layer>`.

    With a reduction there are columns `embeddings_<layer>_<reduction>` too. It is fitted in the first pass and applied
    as it is in every later one: the collector keeps it, and PCA is kept in the run as well, so that a resumed training
    goes on in the same plane.

    Args:
        layers: Names as in `model.named_modules()`, or positions in it.
        reshape_strategy: "mean", "flatten", "avg_pool_1_1", "avg_pool_2_2", "avg_pool_3_3", a function
            (N, ...) -> (N, D), or {layer: one of these}.
        reduction: "pca", "umap", "pacmap", or None.
        n_components: Dimensions after the reduction.
        keep_embeddings: Also keep the unreduced vectors.
    """

    def __init__(
        self,
        layers: Sequence[Layer] | Layer,
        reshape_strategy: str | Reshape | Mapping[Layer, str | Reshape] | None = None,
        *,
        reduction: str | None = None,
        n_components: int = 2,
        keep_embeddings: bool = True,
        preprocess_fn: Preprocess | None = None,
    ) -> None:
        super().__init__(preprocess_fn, compute_aggregates=False)
        self.layers = (layers,) if isinstance(layers, (str, int)) else tuple(layers)
        if not self.layers:
            raise UsageError("no layer given to take embeddings from", hint='for example layers=["fc1"]')
        given = reshape_strategy if isinstance(reshape_strategy, Mapping) else {}
        common = reshape_strategy if not isinstance(reshape_strategy, Mapping) else None
        self._reshape = {layer: _strategy(given.get(layer, common or "mean")) for layer in self.layers}
        if not keep_embeddings and reduction is None:
            raise UsageError("keep_embeddings=False without a reduction leaves nothing", hint='reduction="pca"')
        if reduction is not None:
            make_reducer(reduction, n_components)
        self.reduction = reduction
        self.n_components = n_components
        self.keep_embeddings = keep_embeddings
        self.reducers: dict[str, Reducer] = {}
        """The fitted reductions by column."""

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> dict[str, Any]:
        del batch
        for layer in self.layers if predictor_output.company is not None else ():
            if self._reshape[layer] in STRATEGIES.values():  # a function of the caller's may bring the samples first
                predictor_output.company.refuse_misplaced_layer(layer)  # type: ignore[union-attr]
        return {_column(layer): self._vectors(layer, predictor_output.hidden_layers) for layer in self.layers}

    def finish(self, tables: Mapping[str, pa.Table], layout: RunLayout | None) -> Mapping[str, pa.Table]:
        if self.reduction is None:
            return tables
        rows = tables[METRICS]
        for layer in self.layers:
            column = _column(layer)
            vectors = _matrix(rows[column])
            reduced = self._reduced(column, vectors, layout)
            schema = Embedding(size=reduced.shape[1], layer=str(layer), reduction=self.reduction)
            rows = rows.append_column(*arrow_column(f"{column}_{self.reduction}", reduced, schema))
        if not self.keep_embeddings:
            rows = rows.drop_columns([_column(layer) for layer in self.layers])
        return {**tables, METRICS: rows}

    def schema_for(self, column: str) -> Embedding | None:
        """The schema of an embedding's column."""
        named = {_column(layer): str(layer) for layer in self.layers}
        return Embedding(layer=named[column]) if column in named else None

    def _vectors(self, layer: Layer, hidden: Mapping[Layer, Any]) -> torch.Tensor:
        activations = hidden.get(layer)
        if activations is None:
            raise ColumnError(f"layer {layer!r} was not run by the model, or its output holds no tensor")
        vectors = self._reshape[layer](activations)
        if vectors.ndim != 2:
            raise ColumnError(
                f"the embeddings of layer {layer!r} have shape {tuple(vectors.shape)}, not (samples, size)",
                hint='use reshape_strategy="mean" or "flatten"',
            )
        return vectors.float()

    def _reduced(self, column: str, vectors: NDArrayF, layout: RunLayout | None) -> NDArrayF:
        """The vectors through the column's reduction, which the first call fits; rows not finite become NaN."""
        finite = np.isfinite(vectors).all(axis=1)
        if column not in self.reducers:
            self.reducers[column] = self._fitted(column, vectors[finite], layout)
        mapped = self.reducers[column].transform(vectors[finite])
        reduced = np.full((len(vectors), mapped.shape[1]), np.nan, np.float32)
        reduced[finite] = mapped
        return reduced

    def _fitted(self, column: str, vectors: NDArrayF, layout: RunLayout | None) -> Reducer:
        path = None if layout is None else _model_path(layout, column)
        if self.reduction == PCA.name and path is not None and path.is_file():
            kept = PCA.load(path)
            if kept.components.shape[1] == vectors.shape[1]:
                return kept
        if not len(vectors):
            raise XaiError(f"column {column!r} holds no finite vector to fit a reduction to")
        reducer = make_reducer(self.reduction or PCA.name, self.n_components)
        reducer.fit(vectors)
        if isinstance(reducer, PCA) and path is not None:
            reducer.save(path)
        return reducer


NDArrayF = np.ndarray[Any, np.dtype[np.float32]]


def _column(layer: Layer) -> str:
    return f"embeddings_{layer}"


def _model_path(layout: RunLayout, column: str) -> Path:
    return layout.tables / METRICS / "reductions" / f"{quote(column, safe='')}.npz"


def _strategy(given: str | Reshape) -> Reshape:
    if callable(given):
        return given
    if given not in STRATEGIES:
        raise unknown("reshape strategy", given, STRATEGIES, plural="reshape strategies")
    return STRATEGIES[given]


def _matrix(column: pa.ChunkedArray) -> NDArrayF:
    """A column of vectors of one size as (N, D)."""
    array = column.combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float32).reshape(len(array), -1)


class Reducer(Protocol):
    """Something fitted to vectors that then maps any vector."""

    name: str

    def fit(self, vectors: NDArrayF) -> None:
        """Learn the map from (N, D) vectors."""

    def transform(self, vectors: NDArrayF) -> NDArrayF:
        """(N, D) to (N, n_components)."""


class UMAP:
    """Uniform manifold approximation (McInnes et al. 2018, arXiv:1802.03426), by the package `umap-learn`."""

    name = "umap"

    def __init__(self, n_components: int = 2, *, n_neighbors: int = 15, min_dist: float = 0.1, seed: int = 0) -> None:
        self._model = _package("umap", "umap-learn", "xaicli[umap]").UMAP(
            n_components=n_components, n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1
        )

    def fit(self, vectors: NDArrayF) -> None:
        """Learn the map from (N, D) vectors."""
        self._model.fit(vectors)

    def transform(self, vectors: NDArrayF) -> NDArrayF:
        """(N, D) to (N, n_components)."""
        return np.asarray(self._model.transform(vectors), np.float32)


class PaCMAP:
    """Pairwise controlled manifold approximation (Wang et al. 2021, arXiv:2012.04456), by the package `pacmap`."""

    name = "pacmap"

    def __init__(self, n_components: int = 2, *, n_neighbors: int = 10, seed: int = 0) -> None:
        self._model = _package("pacmap", "pacmap", "pacmap").PaCMAP(
            n_components=n_components, n_neighbors=n_neighbors, random_state=seed, save_tree=True
        )
        self._fitted: NDArrayF = np.zeros((0, 0), np.float32)

    def fit(self, vectors: NDArrayF) -> None:
        """Learn the map from (N, D) vectors."""
        self._fitted = vectors
        self._model.fit(vectors)

    def transform(self, vectors: NDArrayF) -> NDArrayF:
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
