"""Batches on a device: never waited for, kept in order once they have arrived."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recorder.recorded import column, rows
from xaicli.recorder import batch, transfer
from xaicli.recorder.run import Run
from xaicli.recorder.transfer import Transfers


class SlowEvent:
    """An event that has passed when its test says so."""

    def __init__(self) -> None:
        self.has_passed = False
        self.waited = False

    def query(self) -> bool:
        return self.has_passed

    def synchronize(self) -> None:
        self.waited = self.has_passed = True


class Device:
    """A make-believe device: float tensors are on it, and copies arrive when their event passes."""

    def __init__(self) -> None:
        self.events: list[SlowEvent] = []

    def copy(self, source: torch.Tensor) -> tuple[torch.Tensor, SlowEvent]:
        self.events.append(SlowEvent())
        return source.clone(), self.events[-1]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    def is_remote(value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point()

    for module in (batch, transfer):
        monkeypatch.setattr(module, "is_remote", is_remote)
    return Device()  # type: ignore[return-value]


def run_on(device: Device, folder: Path, **options: Any) -> Run:
    run = Run(folder, strict=True, **options)
    run._intake._transfers = Transfers(device.copy)
    return run


def test_a_step_waits_for_nothing_and_is_kept_when_it_arrived(tmp_path: Path, device: Device) -> None:
    run = run_on(device, tmp_path / "run")
    for step in range(1, 4):
        ids = np.array([step, 10 * step])
        run.log_samples(sample_id=ids, label=torch.tensor([0, 1]), logits=torch.eye(2) * step, step=step, epoch=1)
        ids[:] = -1  # the caller may use the memory again
    assert run.stats()["rows_logged"] == 0
    assert not any(event.waited for event in device.events)
    device.events[0].has_passed = device.events[2].has_passed = True
    run.log_samples(sample_id=[4], label=[1], logits=torch.tensor([[0.0, 4.0]]), step=4, epoch=1)
    assert run.stats()["rows_logged"] == 2, "the third has arrived, but the second comes first"
    run.flush()
    assert [event.waited for event in device.events] == [False, True, False, True]
    run.close()
    stored = rows(tmp_path / "run").to_pylist()
    assert [row["sample_id"] for row in stored] == [1, 10, 2, 20, 3, 30, 4]
    assert [row["prediction"] for row in stored] == [0, 1] * 3 + [1]
    assert stored[0]["margin"] == pytest.approx(1.0)
    assert stored[4]["loss"] == pytest.approx(np.log1p(np.exp(-3.0)))


def test_what_is_on_the_host_keeps_its_place_behind_a_copy(tmp_path: Path, device: Device) -> None:
    run = run_on(device, tmp_path / "run")
    run.log_samples(sample_id=[1], loss=torch.tensor([1.0]), step=1)
    run.log_samples(sample_id=[2], loss=[2.0], step=2)
    assert run.stats()["rows_logged"] == 0
    device.events[0].has_passed = True
    run.log_samples(sample_id=[3], loss=[3.0], step=3)
    run.close()
    assert rows(tmp_path / "run")["sample_id"].to_pylist() == [1, 2, 3]


def test_half_precision_texts_and_kept_probabilities_travel(tmp_path: Path, device: Device) -> None:
    run = run_on(device, tmp_path / "run", keep_probs=True, label_names=["a", "b", "c"])
    logits = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    run.log_samples(sample_id=["x"], label=["c"], logits=logits, extra=torch.tensor([[0.5]], dtype=torch.float16))
    run.close()
    assert column(tmp_path / "run", "prediction") == ["c"]
    assert column(tmp_path / "run", "extra") == [0.5]
    assert column(tmp_path / "run", "probs")[0] == pytest.approx(torch.softmax(logits[0].float(), 0).tolist(), abs=1e-3)


def test_ragged_batches_are_refused_before_they_travel(tmp_path: Path, device: Device) -> None:
    run = run_on(device, tmp_path / "run")
    with pytest.raises(ValueError, match="loss has 2 values for 1 sample ids"):
        run.log_samples(sample_id=[1], loss=torch.zeros(2))
    with pytest.raises(ValueError, match="label has 2 values for 1 sample ids"):
        run.log_samples(sample_id=[1], label=[0, 1], logits=torch.zeros(1, 3))
    run.close()
    assert not device.events


def test_the_batches_on_their_way_are_bounded(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MOST_PENDING", 3)
    run = run_on(device, tmp_path / "run")
    for step in range(10):
        run.log_samples(sample_id=[step], loss=torch.zeros(1), step=step)
        assert len(run._intake._transfers.pending) <= 5
    assert device.events[0].waited
    run.close()
    assert column(tmp_path / "run", "sample_id") == list(range(10))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_batch_equals_a_cpu_batch_and_does_not_synchronise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(256, 100), torch.randint(0, 100, (256,))
    with Run(tmp_path / "cpu", strict=True) as run:
        run.log_samples(sample_id=torch.arange(256), label=label, logits=logits)
    with Run(tmp_path / "gpu", strict=True) as run:
        on_gpu = logits.cuda()
        run.log_samples(sample_id=torch.arange(256), label=label, logits=on_gpu)
        torch.cuda.set_sync_debug_mode("error")
        try:
            run.log_samples(sample_id=torch.arange(256), label=label.cuda(), logits=on_gpu, step=1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for name in ("loss", "margin", "el2n", "entropy", "label_prob", "top_prob"):
        both = np.array(column(tmp_path / "gpu", name)).reshape(256, 2)
        np.testing.assert_allclose(both[:, 0], column(tmp_path / "cpu", name), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(both[:, 0], both[:, 1])
