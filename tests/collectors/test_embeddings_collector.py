"""Embeddings are the layers' outputs; reductions are fitted once; PCA is the singular value decomposition."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xaicli import EmbeddingsMetricsCollector
from xaicli.collectors.collect import CollectionError, collect_metrics
from xaicli.collectors.embeddings import PCA, STRATEGIES, make_reducer
from xaicli.errors import UsageError, XaiError
from xaicli.recorder.run import Run
from xaicli.tables.column import schema_of
from xaicli.tables.schema import Embedding
from xaicli.tables.table import Table


class Net(nn.Module):
    """A convolution, a pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3)
        self.fc = nn.Linear(5 * 6 * 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


PICTURES = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def collected(run: Run, collector: EmbeddingsMetricsCollector, net: nn.Module, x: Any = PICTURES) -> Any:
    table = Table.from_arrays(x)
    return collect_metrics(table, collector, net, run=run, dataloader_args={"batch_size": 5}).tables["metrics"]


@pytest.mark.parametrize(
    ("strategy", "size"),
    [("mean", 5), ("flatten", 180), ("avg_pool_1_1", 5), ("avg_pool_2_2", 20), ("avg_pool_3_3", 45)],
)
def test_strategies_give_one_vector_a_sample(run: Run, net: Net, strategy: str, size: int) -> None:
    rows = collected(run, EmbeddingsMetricsCollector(["conv"], strategy), net)
    field = rows.schema.field("embeddings_conv")
    assert field.type.list_size == size
    assert schema_of(field) == Embedding(layer="conv")
    activations = net.conv(PICTURES).detach()
    assert np.allclose(rows["embeddings_conv"].to_pylist(), STRATEGIES[strategy](activations), atol=1e-6)
    if strategy == "mean":
        assert np.allclose(rows["embeddings_conv"].to_pylist(), activations.mean(dim=(2, 3)), atol=1e-6)


def test_layers_by_position_and_strategies_by_layer(run: Run, net: Net) -> None:
    collector = EmbeddingsMetricsCollector([1, "fc"], {1: lambda a: a.amax(dim=(2, 3)), "fc": "flatten"})
    rows = collected(run, collector, net)
    assert rows.column_names[6:] == ["embeddings_1", "embeddings_fc"]
    assert np.allclose(rows["embeddings_1"].to_pylist(), net.conv(PICTURES).detach().amax(dim=(2, 3)), atol=1e-6)


def test_token_outputs_of_other_lengths_have_one_size() -> None:
    tokens = torch.randn(3, 9, 4)
    assert torch.allclose(STRATEGIES["mean"](tokens), tokens.mean(dim=1))
    assert STRATEGIES["mean"](tokens[:, :5]).shape == (3, 4)


def test_sizes_that_change_are_told(run: Run) -> None:
    shapes = Table([torch.zeros(1, 8, 8)] * 2 + [torch.zeros(1, 9, 9)] * 2)
    collector = EmbeddingsMetricsCollector(["0"], "flatten")
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    with pytest.raises(CollectionError, match=r"\[98\] where the batches before had .*\[72\]") as caught:
        collect_metrics(shapes, collector, model, run=run, dataloader_args={"batch_size": 2})
    assert 'reshape_strategy="mean"' in caught.value.hint


def test_the_reduction_is_fitted_once_and_kept_in_the_run(run: Run, net: Net) -> None:
    collector = EmbeddingsMetricsCollector(["conv"], reduction="pca")
    first = collected(run, collector, net)
    vectors = np.asarray(first["embeddings_conv"].to_pylist())
    centred = vectors - vectors.mean(axis=0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    reduced = np.asarray(first["embeddings_conv_pca"].to_pylist())
    assert np.allclose(np.abs(reduced), np.abs(centred @ rows[:2].T), atol=1e-4)
    other = PICTURES[:4] + 0.5
    later = np.asarray(collected(run, collector, net, other)["embeddings_conv_pca"].to_pylist())
    pca = collector.reducers["embeddings_conv"]
    assert isinstance(pca, PCA)
    assert np.allclose(pca.explained_variance, values[:2] ** 2 / 11, rtol=1e-4)
    vectors = net.conv(other).detach().mean(dim=(2, 3)).numpy()
    assert np.allclose(later, (vectors - pca.mean) @ pca.components.T, atol=1e-5)
    anew = EmbeddingsMetricsCollector(["conv"], reduction="pca", keep_embeddings=False)
    resumed = collected(run, anew, net, other)
    assert np.allclose(np.asarray(resumed["embeddings_conv_pca"].to_pylist()), later, atol=1e-6)
    assert "embeddings_conv" not in resumed.column_names
    facts = schema_of(resumed.schema.field("embeddings_conv_pca"))
    assert facts == Embedding(size=2, layer="conv", reduction="pca")


def test_vectors_that_are_not_finite_have_no_place(run: Run) -> None:
    x = torch.tensor([[1.0, 0.0], [2.0, 1.0], [float("nan"), 0.0], [3.0, 5.0]])
    rows = collected(run, EmbeddingsMetricsCollector([""], "mean", reduction="pca"), nn.Identity(), x)
    reduced = np.asarray(rows["embeddings__pca"].to_pylist())
    assert np.isnan(reduced[2]).all()
    assert np.isfinite(reduced[[0, 1, 3]]).all()


@pytest.mark.parametrize("shape", [(50, 6), (6, 50), (8, 8)])
def test_pca_is_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape) * np.linspace(5, 1, shape[1])
    pca = PCA(3)
    pca.fit(x.astype(np.float32))
    assert np.allclose(pca.components @ pca.components.T, np.eye(3), atol=1e-6)
    assert (np.diff(pca.explained_variance) <= 0).all()
    reduced = pca.transform(x.astype(np.float32))
    assert np.allclose(reduced.var(axis=0, ddof=1), pca.explained_variance, rtol=1e-3)
    assert np.allclose(np.cov(reduced.T), np.diag(pca.explained_variance), atol=1e-3)
    u, values, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(reduced), np.abs(u[:, :3] * values[:3]), atol=1e-3)


def test_pca_of_fewer_samples_than_dimensions_wanted(tmp_path: Path) -> None:
    pca = PCA(3)
    pca.fit(np.array([[1.0, 2.0], [1.0, 2.0]], np.float32))
    assert pca.transform(np.array([[1.0, 2.0]], np.float32)).tolist() == [[0.0, 0.0]]
    pca.save(tmp_path / "deep" / "model.npz")
    again = PCA.load(tmp_path / "deep" / "model.npz")
    assert np.array_equal(again.components, pca.components)
    (tmp_path / "deep" / "model.npz").write_bytes(b"nothing")
    with pytest.raises(XaiError, match="cannot be read"):
        PCA.load(tmp_path / "deep" / "model.npz")


@pytest.mark.parametrize(("method", "package"), [("umap", "umap"), ("pacmap", "pacmap")])
def test_neighbourhood_reductions_are_extras(method: str, package: str) -> None:
    if find_spec(package) is None:
        with pytest.raises(XaiError, match="which is not installed") as caught:
            EmbeddingsMetricsCollector(["conv"], reduction=method)
        assert 'reduction="pca"' in caught.value.hint
        return
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 8)), rng.normal(size=(60, 8)) + 20]).astype(np.float32)
    reducer = make_reducer(method)
    reducer.fit(x)
    near = reducer.transform(x)
    apart = np.linalg.norm(near[:60].mean(axis=0) - near[60:].mean(axis=0))
    assert apart > near[:60].std()
    assert np.array_equal(reducer.transform(x), near)


def test_what_cannot_be_is_told(run: Run, net: Net) -> None:
    with pytest.raises(XaiError, match="no reduction 'pcaa'"):
        EmbeddingsMetricsCollector(["conv"], reduction="pcaa")
    with pytest.raises(XaiError, match="no reshape strategy 'max'") as caught:
        EmbeddingsMetricsCollector(["conv"], "max")
    assert "avg_pool_1_1" in caught.value.hint
    with pytest.raises(UsageError, match="no layer given"):
        EmbeddingsMetricsCollector([])
    with pytest.raises(UsageError, match="leaves nothing"):
        EmbeddingsMetricsCollector(["conv"], keep_embeddings=False)
    with pytest.raises(XaiError, match="no layer 'convv' in the model"):
        collected(run, EmbeddingsMetricsCollector("convv"), net)
    with pytest.raises(CollectionError, match=r"embeddings of layer 'conv' have shape \(5, 5, 6, 6\)"):
        collected(run, EmbeddingsMetricsCollector("conv", lambda a: a), net)
    with pytest.raises(CollectionError, match="pooling needs"):
        collected(run, EmbeddingsMetricsCollector("fc", "avg_pool_2_2"), net)


def test_a_layer_is_kept_as_it_answered_whatever_works_on_it_afterwards(run: Run) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    x = torch.randn(6, 4)
    with torch.no_grad():
        expected = model[0](x)
    rows = collect_metrics(Table.from_arrays(x), EmbeddingsMetricsCollector(["0"]), model, run=run).tables["metrics"]
    assert (expected < 0).any()
    assert torch.allclose(torch.tensor(rows["embeddings_0"].to_pylist()), expected)
