"""What recording costs a training step, beside other ways of keeping the same 128 samples, in one process.

    python benchmarks/recorder.py                 # a table; peers that are not installed are left out
    python benchmarks/recorder.py --json out.json

Every line logs the same step: an id, a label, a prediction (64-bit, as loaders give them) and four float32 metrics for
each of 128 samples. Trackers that have no notion of a sample are measured twice: with every sample's values, and with
one mean a metric, a 128th of the data. Timed is the call alone, step by step, in a tight loop: whatever a tool does in
the background competes with it, ours included. The first hundred steps are left out; a line ends after 3 s. Steps that
are 2 ms apart find the caches cold, as in a training; they are measured for the recorder and for a copy of the same
arrays, which is the floor. Measured for the recorder alone: the steps of a loop whose mode and dataset alternate, those
that keep the probabilities of 10,000 classes, and the longest step while the disk refuses every write, or takes 2.5 s
for a sync. Ratios are those of medians, against the first line. The share added to a real training is the median of six
pairs of epochs, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import errno
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xaicli.recorder.run import Run

BATCH = 128
CLASSES = 10
METRICS = ("loss", "margin", "el2n", "entropy")
DISTINCT = 64
"""Different batches, so that no cache holds all of them."""
BUDGET = 3.0
"""Seconds a line may take."""
PAUSE = 0.002
"""Seconds between steps: without any, 1,024 samples a step are 30 M rows a second, more than any disk takes."""

Step = Callable[[int], object]


@dataclass(frozen=True)
class Line:
    """One line of the table, in microseconds a step."""

    name: str
    median: float
    p99: float
    worst: float
    steps: int
    ratio: float = 1.0


class Batches:
    """What a training loop has in its hands at each step."""

    def __init__(self, n: int) -> None:
        draw = np.random.default_rng(0)
        self.n = n
        self.ids = list(draw.integers(0, 1_281_167, (DISTINCT, n)))
        self.label = list(draw.integers(0, CLASSES, (DISTINCT, n)))
        self.prediction = list(draw.integers(0, CLASSES, (DISTINCT, n)))
        self.metrics = {name: list(draw.normal(size=(DISTINCT, n)).astype(np.float32)) for name in METRICS}
        self.logits = list(draw.normal(size=(DISTINCT, n, CLASSES)).astype(np.float32))

    def arrays(self, step: int) -> dict[str, Any]:
        """The arguments of `log_samples`."""
        at = step % DISTINCT
        given = {"sample_id": self.ids[at], "label": self.label[at], "prediction": self.prediction[at]}
        return given | {name: values[at] for name, values in self.metrics.items()}

    def rows(self, step: int) -> Iterator[tuple[Any, ...]]:
        """One tuple a sample, of plain Python values."""
        return zip(*(column.tolist() for column in self.arrays(step).values()), strict=True)


def measure(name: str, step: Step, *, most: int = 20_000, pause: float = 0.0) -> Line:
    """Time every single step, after a warm-up, for `BUDGET` seconds at most.

    Args:
        name: The line's name.
        step: What is measured.
        most: Steps at most.
        pause: Seconds between steps, where a model would compute.
    """
    clock = time.perf_counter_ns
    for i in range(3):
        step(i)
    end = clock() + int(BUDGET * 1e9)
    taken = []
    for i in range(3, most):
        before = clock()
        step(i)
        after = clock()
        taken.append(after - before)
        if pause:
            time.sleep(pause)
        if after > end:
            break
    micros = np.array(taken[min(100, len(taken) // 10) :]) / 1e3
    return Line(name, float(np.median(micros)), float(np.percentile(micros, 99)), float(micros.max()), len(micros))


def copies(given: Sequence[dict[str, Any]]) -> Step:
    """What any way to keep a step's arrays does at least: each is copied into memory that is there."""
    memory, at = np.zeros(64 << 20, np.uint8), 0

    def step(i: int) -> None:
        nonlocal at
        for column in given[i % DISTINCT].values():
            content = column.view(np.uint8)
            at = at if at + len(content) <= len(memory) else 0
            memory[at : at + len(content)] = content
            at += len(content)

    return step


def ours(folder: Path) -> tuple[list[Line], dict[str, float]]:
    """The recorder, by batch size and kind of array; and bytes a row."""
    lines: list[Line] = []
    for n in (BATCH, 1024):
        batches = Batches(n)
        given = [batches.arrays(i) for i in range(DISTINCT)]
        with Run(folder / f"numpy-{n}") as run:
            log = run.log_samples

            def as_numpy(i: int) -> None:
                log(mode="train", epoch=1, step=i, **given[i % DISTINCT])  # noqa: B023

            lines.append(measure(f"xai, numpy, {n} samples", as_numpy))
            run.flush()  # what the tight loop left to write would compete with a loop that leaves nothing
            lines.append(measure(f"xai, numpy, {n} samples, {PAUSE * 1e3:g} ms apart", as_numpy, pause=PAUSE))
            lines.append(
                measure(f"its arrays copied, {n} samples, {PAUSE * 1e3:g} ms apart", copies(given), pause=PAUSE)
            )

            def alternating(i: int) -> None:
                mode, ds_id = ("train", "eval")[i % 2], ("de", "en", "fr")[i % 3]
                log(mode=mode, ds_id=ds_id, epoch=1, step=i, **given[i % DISTINCT])  # noqa: B023

            lines.append(measure(f"xai, numpy, {n} samples, mode and ds_id alternating", alternating))
        lines += _with_torch(folder, batches)
    line, parts = many_classes(folder)
    facts = {"bytes a row (8 columns, random values)": bytes_a_row(folder), "steps a part, 10,000 classes": parts}
    for name, sync, write in (("refuses writes", None, _refuse), ("takes 2.5 s for a sync", _slowly, None)):
        facts[f"longest step on a disk that {name} (s)"] = longest_step(folder / name.split()[0], sync, write)
    return [*lines, line], facts


def many_classes(folder: Path) -> tuple[Line, float]:
    """Steps of 32 samples that keep the probabilities of 10,000 classes; and how many of them make a part."""
    draw = np.random.default_rng(0)
    classes, n = 10_000, 32
    logits = list(draw.normal(size=(8, n, classes)).astype(np.float32))
    label = draw.integers(0, classes, n)
    with Run(folder / "many", keep_probs=True) as run:

        def step(i: int) -> None:
            ids = np.arange(i * n, i * n + n)
            run.log_samples(sample_id=ids, label=label, logits=logits[i % 8], epoch=1, step=i)

        line = measure(f"xai, numpy, {n} samples, {classes:,} logits, probabilities kept", step, most=300)
    parts = len(list((folder / "many" / "data").rglob("part-*.parquet")))
    return line, (line.steps + 3) / max(parts, 1)


def _refuse(*_: object) -> int:
    raise OSError(errno.EIO, "Input/output error")


def _slowly(_: int) -> None:
    time.sleep(2.5)


def longest_step(folder: Path, sync: Callable[[int], None] | None, write: Callable[..., int] | None) -> float:
    """Seconds of the longest of many large steps, the first and one with a new column among them, on a bad disk.

    Args:
        folder: The run.
        sync: What stands for `os.fsync`, if anything.
        write: What stands for `os.write`, if anything.
    """
    n, longest = 8192, 0.0
    loss = np.zeros(n, np.float32)
    run = Run(folder)
    good = os.fsync, os.write
    os.fsync, os.write = sync or os.fsync, write or os.write  # type: ignore[assignment]
    end = time.perf_counter() + 8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that rows are dropped
            for step in range(1500):
                given = {"late": loss} if step == 50 else {}
                began = time.perf_counter()
                run.log_samples(sample_id=np.arange(n) + step * n, loss=loss, epoch=1, step=step, **given)
                longest = max(longest, time.perf_counter() - began)
                if time.perf_counter() > end:
                    break
                time.sleep(PAUSE)
    finally:
        os.fsync, os.write = good  # type: ignore[assignment]
    run.close()
    return longest


def bytes_a_row(folder: Path) -> float:
    """Of rows with an id, a step, a label, a prediction and four metrics, all random."""
    draw = np.random.default_rng(1)
    rows = 131_072
    ids = draw.permutation(1_281_167)[:rows].reshape(-1, BATCH)
    with Run(folder / "bytes") as run:
        for step, batch in enumerate(ids):
            values = {name: draw.normal(size=BATCH).astype(np.float32) for name in METRICS}
            label, prediction = draw.integers(0, CLASSES, (2, BATCH))
            run.log_samples(sample_id=batch, label=label, prediction=prediction, epoch=1, step=step, **values)
    return float(run.stats()["bytes"] / run.stats()["rows_stored"])


def _with_torch(folder: Path, batches: Batches) -> list[Line]:
    try:
        import torch
    except ImportError:
        return []
    torch.set_num_threads(1)
    lines = []
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            continue
        ids = [torch.from_numpy(x) for x in batches.ids]
        label = [torch.from_numpy(x).to(device) for x in batches.label]
        logits = [torch.from_numpy(x).to(device) for x in batches.logits]
        with Run(folder / f"{device}-{batches.n}") as run:
            log = run.log_samples

            def as_torch(i: int) -> None:
                at = i % DISTINCT
                log(sample_id=ids[at], label=label[at], logits=logits[at], mode="train", epoch=1, step=i)  # noqa: B023

            name = f"xai, torch {device}, {batches.n} samples, {CLASSES} logits, all derived"
            lines.append(measure(name, as_torch))
            run.flush()
            lines.append(measure(f"{name}, {PAUSE * 1e3:g} ms apart", as_torch, pause=PAUSE))
    return lines


@contextlib.contextmanager
def in_memory(folder: Path, batches: Batches) -> Iterator[dict[str, Step]]:
    """Lists of values, as FastEstimator's traces keep them; gone on a crash."""
    del folder
    kept: dict[str, list[Any]] = {name: [] for name in batches.arrays(0)}
    histories: dict[int, list[Any]] = {}

    def lists(i: int) -> None:
        for name, value in batches.arrays(i).items():
            kept[name].append(value)
        if i % 1000 == 999:
            for column in kept.values():
                column.clear()

    def by_sample(i: int) -> None:
        for row in batches.rows(i):
            histories.setdefault(row[0], []).append((i, *row[1:]))

    yield {"in-RAM lists of arrays (lost on a crash)": lists, "in-RAM history a sample (lost on a crash)": by_sample}


@contextlib.contextmanager
def csv_file(folder: Path, batches: Batches) -> Iterator[dict[str, Step]]:
    """Every row as text, buffered."""
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)

        def rows(i: int) -> None:
            writer.writerows((i, *row) for row in batches.rows(i))

        yield {"CSV, every sample": rows}


@contextlib.contextmanager
def tensorboard(folder: Path, batches: Batches) -> Iterator[dict[str, Step]]:
    from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

    writer = SummaryWriter(str(folder / "tensorboard"))

    def samples(i: int) -> None:
        for row in batches.rows(i):
            for name, value in zip(METRICS, row[3:], strict=True):
                writer.add_scalar(f"{name}/{row[0]}", value, i)

    def means(i: int) -> None:
        for name in METRICS:
            writer.add_scalar(name, float(batches.metrics[name][i % DISTINCT].mean()), i)

    yield {"TensorBoard, every sample": samples, "TensorBoard, means only": means}
    writer.close()


@contextlib.contextmanager
def wandb(folder: Path, batches: Batches) -> Iterator[dict[str, Step]]:
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(folder)}
    import wandb

    run = wandb.init(project="benchmark", dir=str(folder))
    columns = ["sample_id", "label", "prediction", *METRICS]

    def table(i: int) -> None:
        run.log({"samples": wandb.Table(columns=columns, data=list(batches.rows(i)))})

    def means(i: int) -> None:
        run.log({name: float(batches.metrics[name][i % DISTINCT].mean()) for name in METRICS})

    yield {"W&B offline, a table a step": table, "W&B offline, means only": means}
    run.finish()


@contextlib.contextmanager
def mlflow(folder: Path, batches: Batches) -> Iterator[dict[str, Step]]:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    mlflow.set_tracking_uri((folder / "mlruns").as_uri())
    mlflow.set_experiment("benchmark")

    def means(i: int) -> None:
        values = {name: float(batches.metrics[name][i % DISTINCT].mean()) for name in METRICS}
        mlflow.log_metrics(values, step=i)

    with mlflow.start_run():
        yield {"MLflow, means only": means}


@contextlib.contextmanager
def trackio(folder: Path, batches: Batches) -> Iterator[dict[str, Step]]:
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    import trackio

    trackio.init(project="benchmark", embed=False)

    def lists(i: int) -> None:
        trackio.log({name: column.tolist() for name, column in batches.arrays(i).items()})

    def means(i: int) -> None:
        trackio.log({name: float(batches.metrics[name][i % DISTINCT].mean()) for name in METRICS})

    yield {"trackio, lists": lists, "trackio, means only": means}
    trackio.finish()


PEERS = (in_memory, csv_file, tensorboard, wandb, mlflow, trackio)


def peers(folder: Path) -> Iterator[Line]:
    """Every peer that is installed; one that is not, or does not work here, is a note on standard error."""
    batches = Batches(BATCH)
    for peer in PEERS:
        lines = []
        try:
            # Peers talk on standard output, where the table goes.
            with contextlib.redirect_stdout(sys.stderr), peer(folder, batches) as steps:
                for name, step in steps.items():
                    lines.append(measure(name, step, most=5000))
        except Exception as error:  # a peer's fault is not ours
            print(f"{peer.__name__} is left out: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        yield from lines


def overhead(folder: Path) -> dict[str, float]:
    """A real training loop with and without the recorder, in turns: seconds an epoch, and the share added."""
    try:
        import torch
        from torch.nn import functional
    except ImportError:
        return {}
    torch.manual_seed(0)
    torch.set_num_threads(1)
    n, steps = BATCH, 60
    x, y = torch.randn(n * steps, 1, 28, 28), torch.randint(0, CLASSES, (n * steps,))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, stride=2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(32 * 12 * 12, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def epoch(run: Run | None, number: int) -> float:
        began = time.perf_counter()
        for i in range(steps):
            at = slice(i * n, i * n + n)
            logits = model(x[at])
            loss = functional.cross_entropy(logits, y[at], reduction="none")
            if run is not None:
                ids = torch.arange(i * n, i * n + n)
                run.log_samples(sample_id=ids, label=y[at], logits=logits, loss=loss, epoch=number, step=i)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        return time.perf_counter() - began

    with Run(folder / "overhead") as run:
        pairs = [(epoch(None, i), epoch(run, i)) for i in range(7)][1:]
    without, with_run = (float(np.median(side)) for side in zip(*pairs, strict=True))
    share = float(np.median([b / a - 1 for a, b in pairs]))
    return {"epoch without (s)": without, "epoch with (s)": with_run, "share added": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--no-peers", action="store_true", help="the recorder alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, facts = ours(folder)
        reference = lines[0].median
        if not arguments.no_peers:
            lines += peers(folder)
        lines = [Line(**{**asdict(line), "ratio": line.median / reference}) for line in lines]
        facts |= overhead(folder)
    width = max(len(line.name) for line in lines)
    print(f"{'one step':{width}}  {'median us':>10}  {'p99 us':>10}  {'max us':>10}  {'ratio':>8}")
    for line in lines:
        print(f"{line.name:{width}}  {line.median:10.1f}  {line.p99:10.1f}  {line.worst:10.0f}  {line.ratio:8.1f}")
    for key, value in facts.items():
        print(f"{key}: {value:.4g}")
    if arguments.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
        told = {"machine": machine, "lines": [asdict(line) for line in lines], "facts": facts}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
