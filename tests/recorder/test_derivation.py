"""Derived metrics against torch in double precision, in numpy and on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xaicli.recorder.scores import derive_on_device, derive_sequences_on_device
from xaicli.wal.derived import as_half, derive, sequence
from xaicli.wal.frames import is_missing

METRICS = ("loss", "label_prob", "top_prob", "margin", "el2n", "entropy")


def truth(z: np.ndarray[Any, Any], y: np.ndarray[Any, Any], *, are_logits: bool) -> dict[str, np.ndarray[Any, Any]]:
    """The definitions, one sample at a time."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for scores, label in zip(torch.from_numpy(z).double(), y.tolist(), strict=True):
        p = torch.softmax(scores, 0) if are_logits else scores
        others = torch.cat([scores[:label], scores[label + 1 :]])
        onehot = torch.zeros_like(p)
        onehot[label] = 1
        found["loss"].append(-(torch.log_softmax(scores, 0)[label] if are_logits else p[label].log()).item())
        found["label_prob"].append(p[label].item())
        found["top_prob"].append(p.max().item())
        found["margin"].append((scores[label] - others.max()).item() if len(others) else np.inf)
        found["el2n"].append((p - onehot).norm().item())
        found["entropy"].append(torch.special.entr(p).sum().item())
    return {name: np.array(values) for name, values in found.items()}


_logits = st.tuples(st.integers(1, 6), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float32, shape, elements=st.floats(-30, 30, width=32)),
        arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)


@settings(max_examples=80, deadline=None)
@given(batch=_logits, are_logits=st.booleans())
def test_numpy_and_device_agree_with_the_definitions(batch: Any, are_logits: bool) -> None:
    z, y = batch
    if not are_logits:
        z = torch.softmax(torch.from_numpy(z).double(), 1).float().numpy()
    expected = truth(z, y, are_logits=are_logits)
    in_numpy = derive(z, y, are_logits=are_logits)
    on_device = derive_on_device(torch.from_numpy(z), torch.from_numpy(y), are_logits=are_logits, with_loss=True)
    for name in METRICS:
        np.testing.assert_allclose(in_numpy.metrics[name], expected[name], rtol=2e-5, atol=3e-6, err_msg=name)
        np.testing.assert_allclose(on_device[name].numpy(), expected[name], rtol=2e-5, atol=3e-6, err_msg=name)
    rows = np.arange(len(z))
    for prediction in (in_numpy.prediction, on_device["prediction"].numpy()):
        assert (z[rows, prediction] == z.max(1)).all()


def test_a_sure_and_right_model_has_a_tiny_el2n_that_is_not_zero() -> None:
    z = np.array([[20.0, 0.0, 0.0]], np.float32)
    el2n = derive(z, np.array([0]), are_logits=True).metrics["el2n"][0]
    small = 2 * np.exp(-20.0)
    assert el2n == pytest.approx(np.sqrt(small**2 + 2 * np.exp(-20.0) ** 2), rel=1e-4)


def test_no_result_depends_on_batch_mates() -> None:
    z = np.random.default_rng(0).normal(size=(64, 7)).astype(np.float32)
    y = np.arange(64) % 7
    whole = derive(z, y, are_logits=True).metrics
    for i in range(64):
        one = derive(z[i : i + 1], y[i : i + 1], are_logits=True).metrics
        for name in METRICS:
            assert whole[name][i] == pytest.approx(one[name][0], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("backend", ["numpy", "device"])
def test_ignored_labels_ruled_out_classes_and_no_labels(backend: str) -> None:
    def found(z: Any, y: Any) -> dict[str, Any]:
        z = np.asarray(z, np.float32)
        if backend == "numpy":
            derived = derive(z, y, are_logits=True)
            return derived.metrics | {"prediction": derived.prediction}
        label = None if y is None else torch.from_numpy(y)
        tensors = derive_on_device(torch.from_numpy(z), label, are_logits=True, with_loss=True)
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    ignored = found([[1.0, 2.0]] * 3, np.array([-100, 1, 2]))
    assert np.isnan(ignored["loss"]).tolist() == [True, False, True]
    assert np.isfinite(ignored["top_prob"]).all()
    masked = found([[-np.inf, 0.0, 0.0]], np.array([0]))
    assert (masked["loss"][0], masked["label_prob"][0], masked["margin"][0]) == (np.inf, 0.0, -np.inf)
    assert masked["entropy"][0] == pytest.approx(np.log(2))
    assert set(found([[1.0, 2.0]], None)) == {"prediction", "top_prob", "entropy"}
    assert np.isnan(found([[np.nan, 0.0]], np.array([1]))["loss"]).all()


def test_half_precision_is_numpys() -> None:
    draw = np.random.default_rng(0)
    values = np.exp(draw.uniform(-20, 0, 100_000)).astype(np.float32)
    values[:4] = 0, 1, 2**-14, np.nextafter(np.float32(2**-14), np.float32(0))
    assert (as_half(values).view(np.uint16) == values.astype(np.float16).view(np.uint16)).all()


@pytest.mark.parametrize("with_loss", [True, False])
def test_many_classes_are_derived_alike(with_loss: bool) -> None:
    draw = np.random.default_rng(0)
    logits = (draw.normal(size=(6, 3000)) * 3).astype(np.float32)
    logits[0, 7] = -np.inf
    label = np.array([0, 2999, -1, 3000, 5, int(logits[5].argmax())])
    found = derive(logits, label, are_logits=True, with_loss=with_loss)
    z = torch.from_numpy(logits)
    p, known = z.softmax(1), [0, 1, 4, 5]
    assert found.prediction.tolist() == z.argmax(1).tolist()
    assert np.allclose(found.probs, p, atol=1e-6)
    assert np.allclose(found.metrics["entropy"], torch.special.entr(p).sum(1), atol=1e-4)
    assert ("loss" in found.metrics) is with_loss
    y = torch.from_numpy(label[known])
    one_hot = torch.nn.functional.one_hot(y, 3000)
    assert np.allclose(found.metrics["el2n"][known], (p[known] - one_hot).norm(dim=1), atol=1e-5)
    others = torch.where(one_hot.bool(), -torch.inf, z[known]).max(1).values
    assert np.allclose(found.metrics["margin"][known], z[known].gather(1, y[:, None])[:, 0] - others, atol=1e-5)
    assert np.isnan(found.metrics["label_prob"][[2, 3]]).all()


@pytest.mark.parametrize("are_logits", [True, False])
@pytest.mark.parametrize("is_part", [False, True])
def test_sequences_on_a_device_agree_with_numpy(are_logits: bool, is_part: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 8, 11, generator=generator)
    label = torch.randint(0, 11, (5, 8), generator=generator)
    label[1] = -100
    label[2, :6] = -100
    label[3, 2] = 50
    scores[4, 3] = torch.nan
    if is_part:
        scores, label = scores[:, :-1], label[:, 1:]
    if not are_logits:
        scores = scores.softmax(2)
    expected = sequence(scores.numpy(), label.numpy(), -100, are_logits=are_logits).metrics
    found = derive_sequences_on_device(scores, label, are_logits=are_logits, ignored=-100)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=2e-5, atol=3e-6, err_msg=name)
    assert [bool(gone) for gone in is_missing(found["loss"].numpy())] == [False, True, False, False, False]
