"""A classifier's metrics against torch's own formulas, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional

from xaicli import ClassificationMetricsCollector
from xaicli.collectors.collect import CollectionError, collect_metrics
from xaicli.recorder.run import Run
from xaicli.tables.column import schema_of
from xaicli.tables.schema import CategoricalLabel, Confidence
from xaicli.tables.table import Table

K = 7
X = torch.randn(11, K, generator=torch.Generator().manual_seed(0)) * 2
Y = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, -100])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


def collected(run: Run, collector: ClassificationMetricsCollector, *arrays: Any) -> pa.Table:
    table = Table.from_arrays(*(arrays or (X, Y)))
    return collect_metrics(table, collector, nn.Identity(), run=run, dataloader_args={"batch_size": 4}).tables[
        "metrics"
    ]


def test_names_that_are_not_as_many_as_the_classes_are_told(run: Run) -> None:
    table = Table.from_arrays(X, Y)
    found = collect_metrics(table, ClassificationMetricsCollector(["a", "b"]), nn.Identity(), run=run)
    assert f"{len(X)} predictions are of {K} classes, and 2 have names" in found.doubts
    named = ClassificationMetricsCollector([f"class {i}" for i in range(K)])
    (renamed,) = [said for said in collect_metrics(table, named, nn.Identity(), run=run).doubts if "name" in said]
    assert renamed.endswith("all are told by those of now: 'a' is 'class 0', 'b' is 'class 1'")


@pytest.mark.parametrize("n", [4, 11])
def test_scalars_of_named_classes_are_shares_of_the_predictions_there_are(run: Run, n: int) -> None:
    scores, names = X[:n].clone(), [f"class {i}" for i in range(K)]
    scores[1] = torch.nan  # predicts nothing
    table = Table.from_arrays(scores, Y[:n])
    found = collect_metrics(table, ClassificationMetricsCollector(names), nn.Identity(), run=run, split="val")
    predicted = [int(k) for i, k in enumerate(scores.argmax(1)) if i != 1]
    told = {name: value for name, value in found.aggregates.items() if name.startswith("predicted/")}
    assert told == {f"predicted/class {k}": pytest.approx(predicted.count(k) / (n - 1)) for k in range(K)}
    labels = [int(k) for k in Y[:n] if k >= 0]
    assert found.aggregates["label/class 0"] == pytest.approx(labels.count(0) / len(labels))
    broken = Table.from_arrays(torch.full_like(scores, torch.nan), Y[:n])
    nothing = collect_metrics(broken, ClassificationMetricsCollector(names), nn.Identity(), run=run)
    assert not [name for name in nothing.aggregates if name.startswith("predicted/")]


def test_every_column_by_its_formula(run: Run) -> None:
    names = [f"class {i}" for i in range(K)]
    rows = collected(run, ClassificationMetricsCollector(names, probs=True))
    p = X.softmax(1)
    valid = Y >= 0
    y = Y.clamp(min=0)
    label_prob = p[torch.arange(11), y]
    others = X.clone()
    others[torch.arange(11), y] = -torch.inf
    expected = {
        "loss": functional.cross_entropy(X, y, reduction="none"),
        "confidence": p.max(1).values,
        "label_prob": label_prob,
        "margin": X[torch.arange(11), y] - others.max(1).values,
        "entropy": torch.distributions.Categorical(logits=X).entropy(),
        "el2n": (p - functional.one_hot(y, K)).norm(dim=1),
    }
    needs_label = {"loss", "label_prob", "margin", "el2n"}
    for name, values in expected.items():
        got = rows[name].to_pylist()
        for value, want, is_known in zip(got, values.tolist(), valid.tolist(), strict=True):
            if name in needs_label and not is_known:
                assert value is None
            else:
                assert value == pytest.approx(want, abs=1e-5), name
    assert rows["predicted"].to_pylist() == X.argmax(1).tolist()
    assert rows["label"].to_pylist() == [*Y.tolist()[:-1], None]  # -100 says that there is none
    right = [a == b for a, b in zip(X.argmax(1).tolist(), Y.tolist(), strict=True)]
    assert rows["accuracy"].to_pylist() == [*right[:-1], None]
    top5 = [label in X[i].topk(5).indices.tolist() for i, label in enumerate(Y.tolist())]
    assert rows["top5"].to_pylist() == [*top5[:-1], None]
    assert np.allclose(rows["probs"].to_pylist(), p, atol=1e-3)
    assert schema_of(rows.schema.field("predicted")) == CategoricalLabel(classes=names)
    assert isinstance(schema_of(rows.schema.field("confidence")), Confidence)


def test_labels_are_not_needed_and_may_be_soft(run: Run) -> None:
    assert collected(run, ClassificationMetricsCollector(), X).column_names[6:] == [
        "predicted",
        "confidence",
        "entropy",
    ]
    hard = collected(run, ClassificationMetricsCollector(), X[:10], Y[:10])
    soft = functional.one_hot(Y[:10], K) * 0.9 + 0.1 / K
    assert collected(run, ClassificationMetricsCollector(), X[:10], soft)["label"].equals(hard["label"])


def test_one_logit_is_a_binary_classifier(run: Run) -> None:
    z, y = torch.tensor([-2.0, 0.5, 3.0]), torch.tensor([0, 0, 1])
    rows = collected(run, ClassificationMetricsCollector(["no", "yes"]), z[:, None], y.float())
    expected = functional.binary_cross_entropy_with_logits(z, y.float(), reduction="none")
    assert rows["loss"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert rows["predicted"].to_pylist() == [0, 1, 1]


def test_another_loss_is_used_and_must_not_average(run: Run) -> None:
    smooth = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.2)
    rows = collected(run, ClassificationMetricsCollector(loss_fn=smooth), X[:10], Y[:10])
    assert rows["loss"].to_pylist() == pytest.approx(smooth(X[:10], Y[:10]).tolist(), abs=1e-6)
    with pytest.raises(CollectionError, match=r"loss_fn returned shape \(\) for 4 samples") as caught:
        collected(run, ClassificationMetricsCollector(loss_fn=nn.CrossEntropyLoss()), X[:10], Y[:10])
    assert 'reduction="none"' in caught.value.hint
    with pytest.raises(CollectionError, match=r"numbers of shape \(N, 2, 3\): a class of 3"):
        collected(run, ClassificationMetricsCollector(), torch.zeros(5, 2, 3))
