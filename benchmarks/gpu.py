"""The recorder and saliency on one CUDA device: `make gpu` runs the tests in `tests/gpu` and this, and prints a table.

    python benchmarks/gpu.py [--no-tests] [--write]

Needs no network, and of packages only what is measured: torch, numpy, pyarrow, polars; pytest for the tests; captum to
be measured beside it. Without a CUDA device it says so and ends with 0. `--write` puts the table under a heading with
the card's name into `RESULTS.md`.

Times are of the clock with the device waited for at both ends, medians; contestants take turns. The floor is the
forward and input-backward time of the convolutions and matrix products alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

HEADING = "## On a GPU"
IMAGES, STEPS, DRAWS = 16, 25, 7
STEP_IMAGES = (128, 512)
CAPTUM_BATCHES = (128, 256, 512)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        name: What was measured.
        value: In `unit`.
        unit: us, ms, s, MB or %.
        target: What must be reached, in the same unit; None where nothing must.
    """

    name: str
    value: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        must = "" if self.target is None else f"{self.target:12.3f}  {'ok' if self.value <= self.target else 'MISSED'}"
        return f"    {self.name:66} {self.value:12.3f} {self.unit:3} {must}".rstrip()


def seconds(run: Callable[[], object]) -> float:
    """Of the clock, the device waited for before and after."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def recorder(device: torch.device) -> Iterator[Line]:
    """What `log_samples` of CUDA logits costs: the call, and its share of a ResNet-18 training step."""
    from xaicli.recorder.run import Run

    torch.manual_seed(0)
    logits, label = torch.randn(128, 1000, device=device), torch.randint(0, 1000, (128,), device=device)
    ids = torch.arange(128)
    with tempfile.TemporaryDirectory() as folder, Run(Path(folder, "calls")) as run:

        def call(step: int) -> None:
            run.log_samples(sample_id=ids, label=label, logits=logits, mode="train", epoch=1, step=step)

        spent = []
        for step in range(400):
            begun = time.perf_counter()
            call(step)
            spent.append((time.perf_counter() - begun) * 1e6)
            if step % 8 == 0:
                torch.cuda.synchronize()  # as training does now and then; else the queue is what is measured
        spent = sorted(spent[50:])
        yield Line("log_samples, 128 x 1000 logits on the device, median", statistics.median(spent), "us")
        yield Line("the same, p99", spent[int(0.99 * len(spent))], "us")
        on_device = [seconds(lambda: [call(1000) for _ in range(20)]) / 20 * 1e6 for _ in range(10)]
        yield Line("the same, with what it has the device do", statistics.median(on_device), "us")

    for images in STEP_IMAGES:
        yield from training_step(device, images)


def training_step(device: torch.device, images: int) -> Iterator[Line]:
    """What recording adds to a training step of ResNet-18: of few images it waits for the processor, of many not."""
    from benchmarks.nets import resnet
    from xaicli.recorder.run import Run

    model = resnet(18).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.rand(images, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    label, ids = torch.randint(0, 1000, (images,), device=device), torch.arange(images)
    with tempfile.TemporaryDirectory() as folder, Run(Path(folder, "steps")) as run:

        def train(step: int, *, records: bool) -> None:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                out = model(x)
            loss = functional.cross_entropy(out.float(), label, reduction="none")
            if records:
                run.log_samples(sample_id=ids, label=label, logits=out, loss=loss, mode="train", epoch=1, step=step)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()

        def ten(records: bool) -> None:
            for step in range(10):
                train(step, records=records)

        ten(True)
        plain, recorded = [], []
        for _ in range(12):
            plain.append(seconds(lambda: ten(False)) / 10)
            recorded.append(seconds(lambda: ten(True)) / 10)
        step = statistics.median(plain)
        yield Line(f"a training step of ResNet-18, {images} x 224 px, bf16", step * 1e3, "ms")
        share = statistics.median(b - a for a, b in zip(plain, recorded, strict=True)) / step * 100
        yield Line("of it, recording", share, "%", 1.0)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products of float32 may be in TF32."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def saliency(device: torch.device) -> Iterator[Line]:
    """ResNet-50, 16 images of 224 px: 25 x 7 and the default budget, in three precisions, beside floor and Captum."""
    from benchmarks.saliency import Work, attribute

    work = Work("resnet50", IMAGES, STEPS, DRAWS, str(device))
    x = work.x

    def ours(precision: str, **how: Any) -> Callable[[], object]:
        return lambda: attribute(work.model, x, device=str(device), precision=precision, **how)

    exact = {"methods": ("smint",), "integrating": (STEPS, DRAWS)}
    targets = {"bf16": (0.15, 0.05)}
    for name, precision, allowed in (("fp32", "fp32", False), ("TF32", "fp32", True), ("bf16", "bf16", True)):
        with tf32(allowed):
            must = targets.get(name, (None, None))
            for what, how, target in ((f"{STEPS} x {DRAWS}", exact, must[0]), ("default budget", {}, must[1])):
                run = ours(precision, **how)
                run()
                torch.cuda.reset_peak_memory_stats()
                spent = statistics.median(seconds(run) for _ in range(5))
                label = f"saliency, ResNet-50, {IMAGES} images, {what}, {name}"
                yield Line(label, spent, "s", target)
                if not how:
                    continue
                yield Line("  peak memory", torch.cuda.max_memory_allocated() / 2**20, "MB")
            yield Line(f"  floor of {STEPS} x {DRAWS}, {name}", floor(work, bf16=name == "bf16"), "s")
    if importlib.util.find_spec("captum") is None:
        return
    for name, allowed in (("fp32", False), ("TF32", True)):
        with tf32(allowed):
            times = {}
            for batch in CAPTUM_BATCHES:
                try:
                    times[batch] = seconds(work.captum(batch))
                except torch.OutOfMemoryError:
                    torch.cuda.empty_cache()
            best = min(times, key=lambda one: times[one])
            again = seconds(work.captum(best))
            yield Line(f"Captum, the same {STEPS} x {DRAWS}, best batch {best}, {name}", min(times[best], again), "s")


def floor(work: Any, *, bf16: bool) -> float:
    """Seconds of the products of all evaluations alone."""
    if not bf16:
        return float(work.floor())
    own = work.model
    before = torch.get_default_dtype()
    work.model = own.bfloat16()
    torch.set_default_dtype(torch.bfloat16)
    x, work.x = work.x, work.x.bfloat16()
    try:
        return float(work.floor())
    finally:
        torch.set_default_dtype(before)
        work.model, work.x = own.float(), x


def maps_of_the_cpu(device: torch.device) -> Iterator[Line]:
    """How far fp32 maps on the device are from the CPU's, of their range."""
    import numpy as np

    from benchmarks.saliency import attribute

    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10),
    ).eval()  # fmt: skip
    x = torch.rand(8, 3, 64, 64)
    with tf32(False):
        found = [attribute(model, x, device=where, precision="fp32") for where in ("cpu", str(device))]
    worst = max(float(np.abs(found[0].maps[m][""] - found[1].maps[m][""]).max()) for m in found[0].maps)
    yield Line("maps in fp32: largest difference from the CPU's, of their range", worst * 100, "%", 0.1)


def table(device: torch.device) -> list[str]:
    """All of it, printed as it comes."""
    card = torch.cuda.get_device_properties(device)
    lines = [
        f"    {card.name}, {card.total_memory / 2**30:.0f} GiB; torch {torch.__version__}, Python "
        f"{sys.version.split()[0]}",
        f"    {'':66} {'':12}     {'must reach':>12}",
    ]
    print("\n".join(lines), flush=True)
    for part in (recorder, saliency, maps_of_the_cpu):
        for line in part(device):
            lines.append(str(line))
            print(line, flush=True)
    return lines


def written(text: str, lines: list[str], day: str) -> str:
    """The results with this table under `HEADING`, in place of the one before."""
    before, found, after = text.partition(f"{HEADING}\n")
    rest = after[after.find("\n## ") + 1 :] if found and "\n## " in after else ""
    section = [HEADING, "", "    $ make gpu", "", f"Measured on {day}.", "", *lines, ""]
    return before.rstrip("\n") + "\n\n" + "\n".join(section) + (f"\n{rest}" if rest else "")


def tests() -> int:
    """Run `tests/gpu` with whatever pytest there is."""
    if importlib.util.find_spec("pytest") is None:
        print("pytest is not installed: the tests of tests/gpu are not run", flush=True)
        return 0
    # Not the configuration of the other tests, which wants packages that these do without.
    # Another torch than the one that is pinned warns of other things.
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-W", "default", "--confcutdir", "tests/gpu"]
    command = [sys.executable, "-m", "pytest", *options, "tests/gpu"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Tests, then figures."""
    parser = argparse.ArgumentParser(description="The recorder and saliency on one CUDA device.")
    parser.add_argument("--no-tests", action="store_true", help="only the figures")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"no CUDA device (torch {torch.__version__}): nothing to test and to measure")
        return 0
    failed = 0 if asked.no_tests else tests()
    lines = table(torch.device("cuda", 0))
    if asked.write:
        results = ROOT / "benchmarks" / "RESULTS.md"
        results.write_text(written(results.read_text(), lines, f"{datetime.now(UTC):%Y-%m-%d}"))
    return failed


if __name__ == "__main__":
    sys.exit(main())
