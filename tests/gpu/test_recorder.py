"""The recorder beside a training on a device: no step waits, and the values are the CPU's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional

import xaicli
from tests.gpu.device import DEVICE, HAS_CARD, no_synchronisation, pinned, synchronised
from tests.recorder.recorded import column
from xaicli.recorder.run import Run

BATCHES = 12
"""From the third of a shape on, a captured graph is replayed."""
METRICS = ("loss", "margin", "el2n", "entropy", "label_prob", "top_prob")


def both(folder: Path, n: int, classes: int, dtype: torch.dtype, name: str = "logits") -> None:
    """Record the same batches from host and device, and hold the values against each other."""
    torch.manual_seed(0)
    scores = (3 * torch.randn(BATCHES, n, classes)).to(dtype)
    if name == "probs":
        scores = scores.float().softmax(2)
    label = torch.randint(0, classes, (BATCHES, n))
    label[0, 0] = -100
    for where, device in (("cpu", torch.device("cpu")), ("gpu", DEVICE)):
        with Run(folder / where, strict=True) as run:
            for step in range(BATCHES):
                there = device if step % 2 else "cpu"
                given = {name: scores[step].clone().to(device), "label": label[step].clone().to(there)}
                with torch.inference_mode(step in (3, 6, 9)):  # as an evaluation
                    run.log_samples(sample_id=torch.arange(n), **given, epoch=1, step=step)
                for tensor in given.values():
                    tensor.fill_(0)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-2
    for metric in METRICS:
        expected, found = (np.array(column(folder / where, metric), float) for where in ("cpu", "gpu"))
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=metric)
    assert column(folder / "gpu", "loss").count(None) == 1, "an ignored label has no loss, on a device too"
    assert column(folder / "gpu", "prediction") == column(folder / "cpu", "prediction")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "classes"), [(64, 10), (32, 1000), (4, 50_000)])
def test_values_are_those_of_the_cpu(n: int, classes: int, dtype: torch.dtype, tmp_path: Path) -> None:
    both(tmp_path, n, classes, dtype)


def test_probabilities_are_those_of_the_cpu(tmp_path: Path) -> None:
    both(tmp_path, 64, 10, torch.float32, "probs")


def test_sequences_are_those_of_the_cpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(6, 32, 5000), torch.randint(0, 5000, (6, 32))
    label[1], label[2, :20] = -100, -100
    for where, device in (("cpu", torch.device("cpu")), ("gpu", DEVICE)):
        with Run(tmp_path / where, strict=True) as run:
            for step in range(3):  # all places but the last, as a language model's
                given = {"logits": logits.to(device)[:, :-1], "label": label.to(device)[:, 1:]}
                run.log_samples(sample_id=torch.arange(6), **given, epoch=1, step=step)
    for metric in ("loss", "label_prob", "n_tokens", "token_accuracy", "entropy", "worst_token", "worst_token_loss"):
        expected, found = (np.array(column(tmp_path / where, metric), float) for where in ("cpu", "gpu"))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=metric)
    assert column(tmp_path / "gpu", "loss").count(None) == 3


def test_no_form_of_logging_waits_for_the_device(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 10).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(32, 16, device=DEVICE), torch.randint(0, 10, (32,), device=DEVICE)
    on_host, held = y.cpu(), pinned(y.cpu())
    soft = functional.one_hot(y, 10).float()
    ids, pictures = np.arange(32), torch.rand(32, 3, 8, 8, device=DEVICE)
    run, sequences = Run(tmp_path / "run", strict=True), Run(tmp_path / "sequences", strict=True)

    def step(number: int) -> None:
        logits = model(x)
        loss = functional.cross_entropy(logits, y, reduction="none")
        here: dict[str, Any] = {"mode": "train", "epoch": 1, "step": number}
        run.log_samples(sample_id=ids, label=y, logits=logits, **here)
        run.log_samples(sample_id=torch.arange(32, device=DEVICE), label=held, logits=logits.bfloat16(), **here)
        run.log_samples(sample_id=ids, label=on_host, probs=logits.softmax(1), ds_id="probs", **here)
        run.log_samples(sample_id=ids, label=soft, logits=logits, ds_id="soft", **here)
        run.log_samples(sample_id=ids, prediction=logits.argmax(1), loss=loss, norm=logits.norm(dim=1), **here)
        run.log_samples(sample_id=ids[:3], loss=[loss[0], loss[1], loss[2]], ds_id="list", **here)
        places = {"label": y.reshape(4, 8), "logits": logits.reshape(4, 8, 10)}
        sequences.log_samples(sample_id=ids[:4], **places, **here)
        run.log({"step": number, "loss": loss.mean(), "lr": 0.1})
        run.log_images(ids, pictures)
        run.log_inputs(ids, x, label=y)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    step(0)  # streams and pinned memory are made
    run.flush()
    sequences.flush()
    with no_synchronisation():
        for number in range(1, 6):
            step(number)
    run.close()
    sequences.close()
    assert sequences.stats()["rows_stored"] == 6 * 4
    stats = run.stats()
    assert stats["rows_dropped"] == 0
    assert stats["rows_stored"] == 6 * (5 * 32 + 3)
    assert len(pl.read_parquet(tmp_path / "run" / "scalars" / "*.parquet").filter(pl.col("key") == "loss")) == 6


def test_pinned_buffers_of_a_loader_may_be_used_again_at_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    truth, logits = torch.randint(0, 100, (40, 256)), torch.randn(40, 256, 100, device=DEVICE)
    buffer, ids = pinned(torch.zeros(256, dtype=torch.long)), pinned(torch.zeros(256, dtype=torch.long))
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(40):
            buffer.copy_(truth[step])
            ids.copy_(torch.arange(256) + 1000 * step)
            if HAS_CARD:
                torch.cuda._sleep(1_000_000)  # the device lags behind
            run.log_samples(sample_id=ids, label=buffer, logits=logits[step], step=step, epoch=1)
            buffer.fill_(-1)
            ids.fill_(-1)
    found = pl.read_parquet(tmp_path / "run" / "data").sort("step", "sample_id")
    assert found["label"].to_list() == truth.flatten().tolist()
    expected = functional.cross_entropy(logits.reshape(-1, 100), truth.flatten().to(DEVICE), reduction="none")
    np.testing.assert_allclose(found["loss"].to_numpy(), expected.cpu().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.card
def test_what_is_logged_may_be_overwritten_on_any_stream(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values, scores = torch.randn(40, 4096, device=DEVICE), torch.randn(40, 4096, 10, device=DEVICE)
    expected = values.cpu().flatten().tolist()
    predicted = scores.argmax(2).cpu().flatten().tolist()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(40):
            with torch.cuda.stream(streams[step % 2]):
                torch.cuda._sleep(500_000)
                kept = values[step] * 1
                logits = scores[step] * 1
                run.log_samples(sample_id=np.arange(4096), loss=kept, logits=logits, step=step, epoch=1)
                kept.fill_(float("nan"))
                logits.fill_(float("nan"))
                del kept, logits
    found = pl.read_parquet(tmp_path / "run" / "data").sort("step", "sample_id")
    assert found["loss"].to_list() == pytest.approx(expected)
    assert found["prediction"].to_list() == predicted


@pytest.mark.card
def test_a_captured_step_is_not_spoiled_and_is_logged_after_its_replay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 10).to(DEVICE).requires_grad_(False)
    x, logits = torch.randn(32, 16, device=DEVICE), torch.empty(32, 10, device=DEVICE)
    run = Run(tmp_path / "run")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            logits.copy_(model(x))
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)
    run.log_samples(sample_id=np.arange(32), logits=logits, step=0, epoch=1)  # on its way while a graph is captured
    graph = torch.cuda.CUDAGraph()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with torch.cuda.graph(graph):
            logits.copy_(model(x))
            run.log_samples(sample_id=[1], loss=[0.5], step=1, epoch=1)
            run.log_samples(sample_id=np.arange(32), logits=logits, step=1, epoch=1)
            run._process._beat()
    assert any("after graph.replay" in str(one.message) for one in caught)
    expected = []
    for step in range(2, 6):
        x.copy_(torch.randn(32, 16))
        graph.replay()
        run.log_samples(sample_id=np.arange(32), logits=logits, ds_id="replay", step=step, epoch=1)
        expected += model(x).argmax(1).tolist()
    run.close()
    assert run.stats()["rows_dropped"] == 32
    found = pl.read_parquet(tmp_path / "run" / "data").filter(pl.col("ds_id") == "replay").sort("step", "sample_id")
    assert found["prediction"].to_list() == expected


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_may_log(backend: str, tmp_path: Path) -> None:
    if backend == "inductor" and not (HAS_CARD and os.environ.get("XAI_GPU_INDUCTOR") == "1"):
        pytest.skip("needs a CUDA device, and a minute: XAI_GPU_INDUCTOR=1")
    model = nn.Linear(16, 10).to(DEVICE)
    x, y = torch.randn(32, 16, device=DEVICE), torch.randint(0, 10, (32,), device=DEVICE)
    run = Run(tmp_path / "run", strict=True)

    def step(x: torch.Tensor, number: int) -> torch.Tensor:
        logits = model(x)
        run.log_samples(sample_id=np.arange(32), label=y, logits=logits, step=number, epoch=1)
        return functional.cross_entropy(logits, y)

    compiled = torch.compile(step, backend=backend)
    try:
        compiled(x, 0)
    except Exception as error:
        if backend == "inductor" and type(error).__name__ in ("InductorError", "BackendCompilerFailed"):
            pytest.skip(f"inductor cannot compile here: {str(error).splitlines()[0]}")
        raise
    for number in range(1, 4):
        compiled(x, number)
    run.close()
    expected = functional.cross_entropy(model(x), y, reduction="none").tolist()
    found = pl.read_parquet(tmp_path / "run" / "data").filter(pl.col("step") == 3).sort("sample_id")
    assert found["loss"].to_list() == pytest.approx(expected, abs=1e-4)


@pytest.mark.card
def test_memory_that_runs_out_costs_no_training(tmp_path: Path) -> None:
    logits = torch.randn(64, 50_000, device=DEVICE)
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=np.arange(64), logits=logits, step=0, epoch=1)
    synchronised()
    torch.cuda.empty_cache()
    hoard = []
    try:
        size = torch.cuda.mem_get_info()[0]
        while size > 1 << 16:
            try:
                hoard.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
            except torch.OutOfMemoryError:
                size //= 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.log_samples(sample_id=np.arange(64), logits=logits, step=1, epoch=1)
    finally:
        hoard.clear()
        torch.cuda.empty_cache()
    run.log_samples(sample_id=np.arange(64), logits=logits, step=2, epoch=1)
    run.close()
    stats = run.stats()
    assert stats["rows_stored"] + stats["rows_dropped"] == 3 * 64
    assert {0, 2} <= set(column(tmp_path / "run", "step"))


@pytest.mark.card
def test_what_arrived_outlives_the_context(tmp_path: Path) -> None:
    """An assert on the device ends every further call of CUDA in its process."""
    script = textwrap.dedent(
        f"""
        import numpy as np, torch, xaicli
        run = xaicli.Run({str(tmp_path / "run")!r})
        for step in range(20):
            run.log_samples(sample_id=np.arange(32), logits=torch.randn(32, 10, device="cuda"), step=step, epoch=1)
        torch.cuda.synchronize()
        table = torch.zeros(4, device="cuda")
        table[torch.tensor([99], device="cuda")]
        try:
            torch.cuda.synchronize()
        except Exception as error:
            print("died:", type(error).__name__)
        run.log_samples(sample_id=[1], loss=[0.5], step=20, epoch=1)
        run.log({{"lr": 0.1}})
        run.close()
        print("closed", run.stats()["rows_stored"], flush=True)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "died:" in ended.stdout, ended.stderr[-500:]
    assert "closed 641" in ended.stdout, ended.stdout + ended.stderr[-500:]
    assert len(column(tmp_path / "run", "step")) == 641


@pytest.mark.card
def test_little_memory_is_taken_on_the_device(tmp_path: Path) -> None:
    logits, label = torch.randn(1024, 50_000, device=DEVICE, dtype=torch.bfloat16), torch.arange(1024, device=DEVICE)
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=np.arange(1024), label=label, logits=logits, step=0, epoch=1)
        run.flush()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run.log_samples(sample_id=np.arange(1024), label=label, logits=logits, step=1, epoch=1)
        synchronised()
        assert torch.cuda.max_memory_allocated() - before < 64 << 20


@pytest.mark.card
@pytest.mark.two_cards
def test_columns_of_two_devices(tmp_path: Path) -> None:
    logits, label = torch.randn(8, 5, device="cuda:0"), torch.arange(8, device="cuda:1") % 5
    extra = torch.arange(8, device="cuda:1").float()
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(5):
            run.log_samples(sample_id=np.arange(8), label=label, logits=logits, extra=extra, step=step, epoch=1)
    found = pl.read_parquet(tmp_path / "run" / "data").filter(pl.col("step") == 4).sort("sample_id")
    assert found["extra"].to_list() == list(range(8))
    expected = functional.cross_entropy(logits.cpu(), label.cpu(), reduction="none")
    assert found["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


def test_collectors_compute_in_float32_on_the_device(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).eval()
    x, y = torch.rand(40, 3, 4, 4), torch.randint(0, 10, (40,))
    with torch.no_grad():
        expected = functional.cross_entropy(model(x), y, reduction="none").tolist()
    table = xaicli.Table([(x[i], int(y[i])) for i in range(40)], name="val")
    names = [str(i) for i in range(10)]
    predictor = xaicli.Predictor(model, device=DEVICE)
    with Run(tmp_path / "run") as run:
        xaicli.collect_metrics(table, [xaicli.ClassificationMetricsCollector(names)], predictor, run=run)
    found = pl.read_parquet(tmp_path / "run" / "tables" / "metrics" / "*.parquet").sort("example_id")
    assert found["loss"].to_list() == pytest.approx(expected, abs=1e-5)
    assert next(model.parameters()).device.type == "cpu", "the model is where it was"
