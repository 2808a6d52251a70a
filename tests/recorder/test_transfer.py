"""Batches on a device: never waited for, kept in order once they have arrived, whatever becomes of the device."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tests.recorder.fake_cuda import FakeCuda, on_device, run_on
from tests.recorder.recorded import column, rows
from xaicli.recorder import device as device_room
from xaicli.recorder import graphs, transfer
from xaicli.recorder import scores as scores_room
from xaicli.recorder.run import Run
from xaicli.recorder.scores import derive_on_device


@pytest.fixture
def device() -> FakeCuda:
    return FakeCuda()


def test_a_step_waits_for_nothing_and_is_kept_when_it_arrived(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run", strict=True)
    for step in range(1, 4):
        ids = np.array([step, 10 * step])
        run.log_samples(
            sample_id=ids, label=torch.tensor([0, 1]), logits=on_device(torch.eye(2) * step), step=step, epoch=1
        )
        ids[:] = -1  # the caller may use the memory again
    assert run.stats()["rows_logged"] == 0
    device.land(0, 2)
    run.log_samples(sample_id=[4], label=[1], logits=on_device([[0.0, 4.0]]), step=4, epoch=1)
    assert run.stats()["rows_logged"] == 2, "the third has arrived, but the second comes first"
    assert device.asked == 0, "a step asks nothing of the device"
    run.flush()
    run.close()
    stored = rows(tmp_path / "run").to_pylist()
    assert [row["sample_id"] for row in stored] == [1, 10, 2, 20, 3, 30, 4]
    assert [row["prediction"] for row in stored] == [0, 1] * 3 + [1]
    assert stored[0]["margin"] == pytest.approx(1.0)
    assert stored[4]["loss"] == pytest.approx(np.log1p(np.exp(-3.0)))


def test_what_is_on_the_host_keeps_its_place_behind_a_copy(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run", strict=True)
    run.log_samples(sample_id=[1], loss=on_device([1.0]), step=1)
    losses = np.array([2.0])
    run.log_samples(sample_id=[2], loss=losses, step=2)
    losses[:] = 99.0
    assert run.stats()["rows_logged"] == 0
    device.land()
    run.log_samples(sample_id=[3], loss=[3.0], step=3)
    run.close()
    assert rows(tmp_path / "run")["sample_id"].to_pylist() == [1, 2, 3]
    assert column(tmp_path / "run", "loss") == [1.0, 2.0, 3.0]


def test_half_precision_texts_and_kept_probabilities_travel(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run", keep_probs=True, label_names=["a", "b", "c"], strict=True)
    logits = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.bfloat16)
    extra = on_device(torch.tensor([[0.5]], dtype=torch.float16))
    run.log_samples(sample_id=["x"], label=["c"], logits=on_device(logits), extra=extra)
    run.close()
    assert column(tmp_path / "run", "prediction") == ["c"]
    assert column(tmp_path / "run", "extra") == [0.5]
    assert column(tmp_path / "run", "probs")[0] == pytest.approx(torch.softmax(logits[0].float(), 0).tolist(), abs=1e-3)


def test_ragged_batches_are_refused_before_they_travel(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run", strict=True)
    with pytest.raises(ValueError, match="loss has 2 values for 1 sample ids"):
        run.log_samples(sample_id=[1], loss=on_device(torch.zeros(2)))
    with pytest.raises(ValueError, match="label has 2 values for 1 sample ids"):
        run.log_samples(sample_id=[1], label=[0, 1], logits=on_device(torch.zeros(1, 3)))
    run.close()
    assert not device.flights


@pytest.mark.parametrize("where", ["host", "device"])
def test_a_callers_label_may_be_overwritten_at_once(where: str, tmp_path: Path, device: FakeCuda) -> None:
    """A loader that reuses its (pinned) buffers writes the next labels before the device has read the last."""
    torch.manual_seed(0)
    logits, buffer = torch.randn(6, 4, 5), torch.zeros(4, dtype=torch.long)
    truth = torch.randint(0, 5, (6, 4))
    run = run_on(device, tmp_path / "run", strict=True)
    for step in range(6):
        buffer.copy_(truth[step])
        label = buffer if where == "host" else on_device(buffer)
        run.log_samples(sample_id=np.arange(4), label=label, logits=on_device(logits[step]), step=step, epoch=1)
        for given in device.uploaded:
            assert given.untyped_storage().data_ptr() != buffer.untyped_storage().data_ptr()
        buffer.fill_(-1)
    run.close()
    stored = rows(tmp_path / "run").to_pylist()
    expected = functional.cross_entropy(logits.reshape(24, 5), truth.reshape(24), reduction="none").tolist()
    found = {(row["step"], row["sample_id"]): (row["label"], row["loss"]) for row in stored}
    for step in range(6):
        for i in range(4):
            assert found[step, i] == (int(truth[step, i]), pytest.approx(expected[4 * step + i], abs=1e-5))
    assert len(device.uploaded) == (6 if where == "host" else 0)


def test_columns_of_two_devices_make_one_row(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run", strict=True)
    run.log_samples(sample_id=[1, 2], loss=on_device([0.5, 1.5], 0), other=on_device([3.0, 4.0], 1), step=1, epoch=1)
    assert len(device.flights) == 2
    device.land(1)
    run._intake.drain()
    assert run.stats()["rows_logged"] == 0
    device.land(0)
    run._intake.drain()
    assert run.stats()["rows_logged"] == 2
    run.close()
    assert (column(tmp_path / "run", "loss"), column(tmp_path / "run", "other")) == ([0.5, 1.5], [3.0, 4.0])


def test_nothing_is_asked_of_a_device_while_a_graph_is_captured(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run")
    run.log_samples(sample_id=[1], loss=on_device([1.0]), step=1, epoch=1)
    device.captures = True
    begun = len(device.flights)
    with pytest.warns(UserWarning, match="after graph.replay"):
        run.log_samples(sample_id=[2, 3], loss=on_device([1.0, 2.0]), step=2, epoch=1)
    run.log({"loss": on_device(1.0)})
    run._process.hand_over()
    assert (len(device.flights), device.asked, len(device.uploaded)) == (begun, 0, 0)
    device.captures = False
    run.log_samples(sample_id=[2, 3], loss=on_device([1.0, 2.0]), step=2, epoch=1)
    run.close()
    assert run.stats()["rows_dropped"] == 2
    assert column(tmp_path / "run", "sample_id") == [1, 2, 3]


def test_the_last_batch_is_kept_by_the_timer(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run")
    run.log_samples(sample_id=[1], loss=on_device([1.0]), step=1, epoch=1)
    device.land()
    beat = threading.Thread(target=run._process._beat)
    beat.start()
    beat.join()
    assert run.stats()["rows_logged"] == 1
    assert device.asked == 0, "another thread that asks a device spoils a capture"
    run.close()


def test_what_arrived_is_kept_when_the_context_dies(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run")
    for step in range(1, 5):
        run.log_samples(sample_id=[step], loss=on_device([float(step)]), step=step, epoch=1)
    device.land(0, 1)
    device.is_dead = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.log_samples(sample_id=[5], loss=on_device([5.0]), step=5, epoch=1)  # the training's own error comes next
        run.log({"lr": 0.1})
        run.flush()
        run.close()
        run.close()
    assert column(tmp_path / "run", "sample_id") == [1, 2]
    stats = run.stats()
    assert (stats["rows_stored"], stats["rows_dropped"]) == (2, 3)
    assert any("device-side assert" in str(one.message) for one in caught)
    assert pl.read_parquet(tmp_path / "run" / "scalars" / "*.parquet")["value"].to_list() == [0.1]


def test_a_device_that_hangs_is_not_waited_for(
    tmp_path: Path, device: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xaicli.recorder.run.DRAIN_SECONDS", 0.05)
    run = run_on(device, tmp_path / "run")
    run.log_samples(sample_id=[1], loss=on_device([1.0]), step=1, epoch=1)
    run.log_samples(sample_id=[2], loss=[2.0], step=2, epoch=1)
    device.hangs = True
    with pytest.warns(UserWarning, match="did not finish in time"):
        run.close()
    assert column(tmp_path / "run", "sample_id") == [2]


def test_waiting_keeps_no_core_busy(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run")
    run.log_samples(sample_id=[1], loss=on_device([1.0]), step=1, epoch=1)
    device.hangs = True
    later = threading.Timer(0.3, device.land)
    later.start()
    used = time.process_time()
    run.flush()
    assert time.process_time() - used < 0.2
    assert run.stats()["rows_logged"] == 1
    run.close()


def test_pinned_memory_is_bounded_in_bytes_and_used_again(
    tmp_path: Path, device: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_room, "FIRST_BYTES", 1 << 10)
    monkeypatch.setattr(device_room, "MOST_BYTES", 1 << 12)
    run = run_on(device, tmp_path / "run", strict=True)
    rng, expected = np.random.default_rng(0), []
    for step in range(200):
        n = int(rng.integers(1, 90))
        values = rng.normal(size=n).astype(np.float32)
        expected += values.tolist()
        run.log_samples(sample_id=np.arange(n), loss=on_device(values), step=step, epoch=1)
        if rng.random() < 0.2:
            device.land()
    run.close()
    assert device.pinned_bytes <= (1 << 10) + (1 << 11) + (1 << 12)
    assert pq.read_table(tmp_path / "run" / "data").sort_by([("step", "ascending"), ("sample_id", "ascending")])[
        "loss"
    ].to_pylist() == pytest.approx(expected)
    large = np.arange(5000, dtype=np.float32)  # larger than all pinned memory there may be
    run = run_on(device, tmp_path / "large", strict=True)
    run.log_samples(sample_id=[1], loss=on_device([7.0]), step=1, epoch=1)
    run.log_samples(sample_id=np.arange(5000), loss=on_device(large), step=2, epoch=1)
    run.close()
    assert sorted(column(tmp_path / "large", "loss")) == sorted([7.0, *large.tolist()])


def test_a_copy_that_cannot_be_begun_keeps_no_memory(
    tmp_path: Path, device: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out on one of two devices, again and again: the pinned memory of the other's copies is not lost."""
    monkeypatch.setattr(device_room, "FIRST_BYTES", 1 << 11)
    monkeypatch.setattr(device_room, "MOST_BYTES", 1 << 11)
    run, own, failing = run_on(device, tmp_path / "run"), device.download, False

    def download(source: torch.Tensor, data: torch.Tensor, flag: torch.Tensor) -> Any:
        if failing and len(device.flights) % 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(source, data, flag)

    monkeypatch.setattr(device, "download", download)
    for step in range(60):
        failing = step % 2 == 1 and len(device.flights) % 2 == 0
        loss, other = on_device(torch.full((20,), float(step)), 0), on_device(torch.full((20,), float(step)), 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.log_samples(sample_id=np.arange(20), loss=loss, other=other, step=step, epoch=1)
        if failing:
            device.flights.append(device.flights[-1])  # an even number again
    run.close()
    stats = run.stats()
    assert stats["rows_stored"] == 30 * 20
    assert stats["rows_dropped"] == 30 * 20
    found = rows(tmp_path / "run").to_pylist()
    assert all(row["loss"] == row["other"] == row["step"] for row in found)


def test_a_step_waits_no_longer_than_a_second_for_room(
    tmp_path: Path, device: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_room, "MOST_BYTES", 1 << 10)
    monkeypatch.setattr(device_room, "FIRST_BYTES", 1 << 10)
    monkeypatch.setattr(transfer, "ROOM_SECONDS", 0.05)
    run = run_on(device, tmp_path / "run")
    device.hangs = True
    step = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while not run.stats()["rows_dropped"]:
            run.log_samples(sample_id=np.arange(20), loss=on_device(torch.zeros(20)), step=step, epoch=1)
            step += 1
    assert ["batches before this one" in str(one.message) for one in caught] == [True]
    device.hangs = False
    run.close()
    assert run.stats()["rows_dropped"] == 20
    assert run.stats()["rows_stored"] == 20 * (step - 1) > 0


def test_scalars_lists_pictures_and_inputs_on_a_device_wait_for_nothing(tmp_path: Path, device: FakeCuda) -> None:
    """Every call is made with tensors that raise when they are read."""
    run = run_on(device, tmp_path / "run", strict=True)
    run.state.global_step, run.state.epoch_idx = 7, 1
    run.log({"loss": on_device(0.25), "lr": 0.1})
    losses = [on_device(torch.tensor(float(i))) for i in range(3)]
    run.log_samples(sample_id=on_device(torch.arange(3)), loss=losses, mode="train")
    pictures = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(3, 1, 4, 4)
    run.log_images([0, 1, 2], on_device(pictures))
    inputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    run.log_inputs([0, 1, 2], {"x": on_device(inputs)}, label=on_device(torch.tensor([2, 1, 0])))
    run.state.global_step = 99
    assert device.asked == 0
    device.land()
    run._intake.drain()
    run.close()
    scalars = pl.read_parquet(tmp_path / "run" / "scalars" / "*.parquet")
    assert {(key, value, step) for key, value, step in scalars.select("key", "value", "step").rows()} == {
        ("loss", 0.25, 7),
        ("lr", 0.1, 7),
    }
    assert column(tmp_path / "run", "loss") == [0.0, 1.0, 2.0]
    kept = pl.read_parquet(tmp_path / "run" / "inputs" / "*.parquet").sort("sample_id")
    assert kept["label"].to_list() == [2, 1, 0]
    assert b"".join(kept["data"]) == inputs.numpy().tobytes()
    media = pl.read_parquet(tmp_path / "run" / "media" / "*.parquet").sort("sample_id")
    assert b"".join(media["pixels"]) == pictures.numpy().tobytes()


@pytest.mark.parametrize("on_host", [False, True])
def test_a_vocabulary_does_not_travel(on_host: bool, tmp_path: Path, device: FakeCuda) -> None:
    """Of (N, T, K) logits what follows for a sequence is brought, some bytes a sample."""
    torch.manual_seed(0)
    logits, label = torch.randn(6, 9, 1000), torch.randint(0, 1000, (6, 9))
    label[2] = -100
    label[0, :4] = -100
    run = run_on(device, tmp_path / "run", strict=True)
    for step in range(2):
        given = label if on_host else on_device(label)
        run.log_samples(sample_id=np.arange(6), label=given, logits=on_device(logits), step=step, epoch=1)
    assert device.pinned_bytes == device_room.FIRST_BYTES
    run.close()
    assert run.manifest.task == "sequence"
    found = [row for row in rows(tmp_path / "run").to_pylist() if row["step"] == 1]
    each = functional.cross_entropy(logits.transpose(1, 2), label, reduction="none", ignore_index=-100)
    for i, row in enumerate(sorted(found, key=lambda row: row["sample_id"])):
        known = label[i] != -100
        assert row["n_tokens"] == int(known.sum())
        assert row["loss"] == (None if i == 2 else pytest.approx(float(each[i][known].mean()), rel=1e-5))
        if i != 2:
            assert row["worst_token"] == int(each[i].argmax())
            right = (logits[i].argmax(1) == label[i])[known]
            assert row["token_accuracy"] == pytest.approx(float(right.float().mean()))


def test_a_prediction_of_a_sequence_is_told_of(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run")
    label = torch.tensor([[0, 1, -100], [2, 0, 1]])
    batch = {"label": on_device(label), "prediction": on_device(label), "logits": on_device(torch.zeros(2, 3, 5))}
    run.log_samples(sample_id=[1, 2], **batch, step=1, epoch=1)
    with pytest.warns(UserWarning, match="prediction of a sequence is not kept") as told:
        run.close()
    assert len(told) == 1
    assert {name: sum(why.values()) for name, why in run.stats()["refused"].items()} == {"prediction": 2}
    assert column(tmp_path / "run", "n_tokens") == [2.0, 3.0]


def test_a_token_that_is_no_class_is_told_of(tmp_path: Path, device: FakeCuda) -> None:
    run = run_on(device, tmp_path / "run")
    label = torch.tensor([[0, 1, -100], [2, 70, 1]])
    run.log_samples(sample_id=[1, 2], label=on_device(label), logits=on_device(torch.zeros(2, 3, 5)), step=1, epoch=1)
    with pytest.warns(UserWarning, match="label 70 is no class"):
        run.close()
    assert list(run.stats()["refused"]) == ["label"]
    assert column(tmp_path / "run", "n_tokens") == [2.0, 2.0]


def test_a_stream_of_its_own_copies_behind_what_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """First it waits for the stream that computed the bytes, then the bytes, then the flag, then the event."""
    order: list[str] = []

    class Stream:
        def __init__(self, device: Any = None) -> None:
            self.name = "computing" if device is None else "side"

        def wait_stream(self, other: Any) -> None:
            order.append(f"{self.name} waits for {other.name}")

    class Event:
        def record(self, stream: Any) -> None:
            order.append(f"event on {stream.name}")

    class On:
        def __init__(self, what: Any) -> None:
            self.name = getattr(what, "name", "device")

        def __enter__(self) -> None:
            order.append(f"on {self.name}")

        def __exit__(self, *_: object) -> None:
            order.append(f"off {self.name}")

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "copy_" in str(func):
                order.append(f"copy of {args[1].numel()} bytes, non_blocking={args[2]}")
            return func(*args, **(kwargs or {}))

    for name, fake in (("Stream", Stream), ("Event", Event), ("stream", On), ("device", On)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream())
    driver, source = device_room.Driver(), torch.arange(20, dtype=torch.uint8)
    data, flag = torch.zeros(20, dtype=torch.uint8), torch.zeros(8, dtype=torch.uint8)
    for _ in range(2):
        order.clear()
        with Copies():
            driver.download(source, data, flag)
        assert order == [
            "on device", "side waits for computing", "on side", "copy of 20 bytes, non_blocking=True",
            "copy of 8 bytes, non_blocking=True", "event on side", "off side", "off device",
        ]  # fmt: skip
    assert data.tolist() == list(range(20))
    assert flag.all()


class OfTheStep(TorchDispatchMode):
    """The kernels that the training's own stream is given."""

    def __init__(self, device: FakeCuda) -> None:
        super().__init__()
        self.device = device
        self.kernels: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.").partition(".")[0]
        if not self.device.is_beside and name not in ("view", "as_strided", "slice", "detach", "alias"):
            self.kernels.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(6, 9), (6, 4, 9)])
def test_a_step_pays_for_one_copy_and_all_else_is_computed_beside_it(
    shape: tuple[int, ...], tmp_path: Path, device: FakeCuda
) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(*shape).bfloat16(), torch.randint(0, 9, shape[:-1])
    loss = torch.rand(6)
    batch = {"label": on_device(label), "logits": on_device(logits), "loss": on_device(loss)}
    run = run_on(device, tmp_path / "run", strict=True)
    with OfTheStep(device) as step:
        run.log_samples(sample_id=np.arange(6), **batch, step=1, epoch=1)
    assert step.kernels == ["cat"]
    memory = [held.nbytes for one in run._intake._transfers.pending for held in one.held]
    assert memory == [logits.nbytes + label.nbytes + loss.nbytes], "held until the copy is there"
    device.land()
    run._intake.drain()
    assert not run._intake._transfers.pending
    run.close()
    found = rows(tmp_path / "run").sort_by("sample_id")
    if len(shape) == 2:
        assert found["prediction"].to_pylist() == logits.argmax(1).tolist()
        assert found["loss"].to_pylist() == pytest.approx(loss.tolist())


def test_large_scores_are_looked_at_where_they_lie(
    tmp_path: Path, device: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(device_room, "MOST_COPIED", logits.nbytes)
    monkeypatch.setattr(device_room, "MOST_BYTES", 2 * logits.nbytes)
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 0)
    run = run_on(device, tmp_path / "run", strict=True)

    def kernels(scores: torch.Tensor, step: int) -> int:
        there = on_device(scores)
        with OfTheStep(device) as counted:
            run.log_samples(sample_id=np.arange(len(scores)), logits=there, step=step, epoch=1)
        return len(counted.kernels)

    assert kernels(torch.cat([logits, logits]), 0) > 5, "more than is copied at a time"
    assert [kernels(logits, step) for step in (1, 2)] == [1, 1]
    assert kernels(logits, 3) > 5, "more than is copied in all"
    device.land()
    run._intake.drain()
    assert kernels(logits, 4) == 1
    run.close()
    found = rows(tmp_path / "run").sort_by([("step", "ascending"), ("sample_id", "ascending")])
    assert found["prediction"].to_pylist() == logits.argmax(1).tolist() * 6


def logged(
    device: FakeCuda, folder: Path, sizes: list[int], where: str, dtype: torch.dtype = torch.float32
) -> list[tuple[Any, ...]]:
    """Record batches of so many samples, scores written over at once: each row that is expected, in order."""
    torch.manual_seed(0)
    run, expected = run_on(device, folder, strict=True), []
    for step, n in enumerate(sizes):
        logits, label = (3 * torch.randn(n, 5)).to(dtype), torch.randint(0, 5, (n,))
        there, y = on_device(logits), on_device(label) if where == "device" else label.clone()
        run.log_samples(sample_id=np.arange(n), label=y, logits=there, norm=there.norm(dim=1), step=step, epoch=1)
        there.fill_(float("nan"))
        y.fill_(-1)
        if step % 3 == 2:
            device.land()
        loss = functional.cross_entropy(logits.float(), label, reduction="none").tolist()
        expected += zip([step] * n, range(n), label.tolist(), logits.argmax(1).tolist(), loss, strict=True)
    run.close()
    assert run.stats()["rows_dropped"] == 0
    return expected


def stored(folder: Path) -> list[tuple[Any, ...]]:
    found = rows(folder).sort_by([("step", "ascending"), ("sample_id", "ascending")])
    names = ("step", "sample_id", "label", "prediction", "loss")
    return list(zip(*(found[name].to_pylist() for name in names), strict=True))


def agree(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    assert [row[-1] for row in found] == pytest.approx([row[-1] for row in expected], rel=1e-4)


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_of_a_shape_are_replayed_from_the_third_on(
    dtype: torch.dtype, where: str, tmp_path: Path, device: FakeCuda
) -> None:
    expected = logged(device, tmp_path / "run", [6, 6, 6, 4, 6, 6, 4, 4, 6, 3], where, dtype)
    agree(stored(tmp_path / "run"), expected)
    assert device.captured == 2, "one for the batches of six and one for those of four"
    assert device.replays == 4 + 1
    assert len(device.uploaded) == (10 if where == "host" else 0)


def test_without_memory_for_a_graph_each_batch_goes_by_itself(tmp_path: Path, device: FakeCuda) -> None:
    device.memory_runs_out = True
    expected = logged(device, tmp_path / "run", [6] * 8, "device")
    agree(stored(tmp_path / "run"), expected)
    assert not device.replays


def test_few_shapes_are_captured(tmp_path: Path, device: FakeCuda) -> None:
    sizes = [n for n in range(2, 14) for _ in range(4)]
    expected = logged(device, tmp_path / "run", sizes, "device")
    agree(stored(tmp_path / "run"), expected)
    assert device.captured == graphs.MOST_GRAPHS
    assert device.replays == 2 * graphs.MOST_GRAPHS


class Counted(TorchDispatchMode):
    """Counts operations, and the bytes alive at a time of what they allocate, where that is more than a few a row."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.operations, self.peak = rows, 0, 0
        self.live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        self.operations += not any(word in str(func) for word in ("view", "slice", "select", "detach", "unsqueeze"))
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, torch.Tensor) and one.numel() > 4 * self.rows:
                storage = one.untyped_storage()
                if storage.data_ptr() not in given:
                    self.live[storage.data_ptr()] = storage
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.live.values()))
        return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deriving_allocates_little_by_few_kernels(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(64, 1000).to(dtype), torch.randint(0, 1000, (64,))
    with Counted(64) as counted:
        derive_on_device(logits, label, are_logits=True, with_loss=True)
    assert 10 < counted.operations <= 36
    one = 64 * 1000 * 4
    assert one < counted.peak <= 3 * one, "log-probabilities and probabilities, in float32, and one at work"


@pytest.mark.parametrize("are_logits", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("classes", [2, 7, 1000])
def test_of_equal_scores_the_first_class_is_predicted(classes: int, dtype: torch.dtype, are_logits: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randint(1, 4, (500, classes), generator=generator)  # three values: nearly every row has a tie
    label = torch.randint(0, classes, (500,), generator=generator)
    found = derive_on_device(scores.to(dtype), label, are_logits=are_logits, with_loss=True)
    rows = scores.tolist()
    assert found["prediction"].tolist() == [row.index(max(row)) for row in rows]
    others = [max(row[:y] + row[y + 1 :]) for row, y in zip(rows, label.tolist(), strict=True)]
    assert found["margin"].tolist() == [row[y] - o for row, y, o in zip(rows, label.tolist(), others, strict=True)]


def test_deriving_looks_at_few_rows_of_a_large_vocabulary_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(32, 5000), torch.randint(0, 5000, (32,))
    whole = derive_on_device(logits, label, are_logits=True, with_loss=True)
    monkeypatch.setattr(scores_room, "CHUNK", 4 * 5000)
    sizes: list[int] = []
    own = scores_room._derived_rows
    monkeypatch.setattr(scores_room, "_derived_rows", lambda z, *others: (sizes.append(z.numel()), own(z, *others))[1])
    found = derive_on_device(logits, label, are_logits=True, with_loss=True)
    assert sizes == [4 * 5000] * 8
    for name, values in whole.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("with_graph_break", [False, True])
def test_a_compiled_step_may_log(with_graph_break: bool, tmp_path: Path) -> None:
    run, model = Run(tmp_path / "run", strict=True), torch.nn.Linear(3, 2)
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])

    def step(x: torch.Tensor, number: int) -> torch.Tensor:
        logits = model(x)
        if with_graph_break:
            torch._dynamo.graph_break()
        run.log_samples(sample_id=np.arange(4), label=y, logits=logits, step=number, epoch=1)
        run.log({"loss": 0.5})
        return functional.cross_entropy(logits, y)

    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(step, backend="eager")
    for number in range(5):
        compiled(x, number)
    assert counters["frames"]["total"] <= 12, "nothing of ours is compiled"
    run.close()
    assert sorted(column(tmp_path / "run", "step")) == sorted(list(range(5)) * 4)
    with torch.no_grad():
        expected = functional.cross_entropy(model(x), y, reduction="none")
    losses = column(tmp_path / "run", "loss")
    assert losses[::5] == pytest.approx(expected.tolist(), abs=1e-5)


def test_another_accelerator_is_waited_for_and_that_is_said_once(tmp_path: Path) -> None:
    class OnMps(torch.Tensor):
        is_cpu = False

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("mps")

    with Run(tmp_path / "run") as run, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            run.log_samples(sample_id=[1], loss=torch.tensor([1.5]).as_subclass(OnMps), step=step, epoch=1)
    assert ["on mps" in str(one.message) for one in caught] == [True]
    assert column(tmp_path / "run", "loss") == [1.5] * 3
