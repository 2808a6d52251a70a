"""All training dynamics of a large run against the time to decode the same columns, each in its own process.

Measured on two shared, busy cores, ImageNet x 90 epochs (115.3 M rows, compacted): decode 14.3 s; without `rank_jump`
1.7 x that and 359 MB; everything 1.5 x (2.9 x in another run) and 404 MB; asked again 0.9 s. Nine epochs (11.5 M rows)
by processor time, among other work: decode 1.2 s; without `rank_jump` 2.1 x and 324 MB; everything 3.2 x and 376 MB.

    python benchmarks/dynamics.py --samples 1281167 --epochs 90      # ImageNet x 90: 115 M rows, 2 GB on disk
    python benchmarks/dynamics.py --order shuffled                   # as logged, not compacted

On a machine that does other things the clock tells of these, too: the processors' time does not.
The run is made below `--folder` (a temporary folder unless given) and removed afterwards unless `--keep`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from xaicli import parquet
from xaicli.layout import PartName, RunLayout
from xaicli.manifest import Attempt, ColumnFacts, Manifest

METRICS = ("loss", "label_prob", "margin", "el2n")
CLASSES = 1000
BATCH = 256


def make_run(root: Path, samples: int, epochs: int, *, compacted: bool) -> None:
    """A run of one file an epoch, by id or in random order, with plausible histories."""
    layout = RunLayout(root)
    layout.attempts.mkdir(parents=True)
    layout.attempt_file(0).write_text(json.dumps(Attempt(0).__dict__))
    draw = np.random.default_rng(0)
    difficulty = draw.gamma(2.0, 0.5, samples)
    label = draw.integers(0, CLASSES, samples, dtype=np.int32)
    for epoch in range(1, epochs + 1):
        loss = (difficulty * (0.2 + 6 / (epoch + 2)) * draw.lognormal(0, 0.4, samples)).astype(np.float32)
        prob = np.exp(-loss)
        correct = prob > 0.4
        columns: dict[str, np.ndarray] = {
            "sample_id": np.arange(samples),
            "step": np.arange(samples) // BATCH + (epoch - 1) * (samples // BATCH + 1),
            "label": label,
            "prediction": np.where(correct, label, (label + 1) % CLASSES).astype(np.int32),
            "correct": correct,
            "loss": loss,
            "label_prob": prob,
            "margin": np.log(prob / (1 - prob + 1e-6)),
            "el2n": (1 - prob) * np.float32(1.2),
        }
        step = columns.pop("step")
        if not compacted:
            order = draw.permutation(samples)
            columns = {name: values[order] for name, values in columns.items()}
        name = PartName(0, 0, epoch, epoch, compacted=compacted)
        footer = {"sorted_ids": f"{samples:x}", "non_finite": dict.fromkeys(METRICS, 0)} if compacted else {}
        table = pa.table({"sample_id": columns.pop("sample_id"), "step": step, **columns})
        table = table.replace_schema_metadata({b"xai": json.dumps(footer).encode()})
        path = layout.folder("train", "", epoch) / name.filename
        record = parquet.write(table, path, root=root, row_group_rows=16_384 if compacted else 131_072)
        parquet.append_record(layout, 0, 0, record)
    kinds = {"sample_id": ("int64", "id"), "label": ("int32", "label"), "prediction": ("int32", "label")}
    facts = [ColumnFacts(name, *kinds.get(name, ("bool", "label"))) for name in (*kinds, "correct")]
    facts += [ColumnFacts(name, "float", "metric") for name in METRICS]
    manifest = Manifest("benchmark", "2026-01-01T00:00:00Z", id_type="int64", columns=tuple(facts))
    layout.manifest.write_text(manifest.to_json())


def decode(root: Path) -> None:
    """Read the columns that all dynamics need, verified, one epoch after another, and drop them."""
    from xaicli.dynamics.metrics import Plan
    from xaicli.reader import open_reader

    reader = open_reader(RunLayout(root))
    columns = Plan(("loss",), frozenset(reader.dtypes), "label").columns()
    for file in reader.files():
        parquet.read(file.path, columns)


def decode_polars(root: Path) -> None:
    """The same by polars, unverified, folded to one sum a column."""
    import polars as pl

    from xaicli.dynamics.metrics import Plan
    from xaicli.reader import open_reader

    reader = open_reader(RunLayout(root))
    columns = Plan(("loss",), frozenset(reader.dtypes), "label").columns()
    paths = [file.path for file in reader.files()]
    pl.scan_parquet(paths, hive_partitioning=False).select(columns).sum().collect(engine="streaming")


def statistics(root: Path, *, jumps: bool) -> None:
    from xaicli.dynamics.computed import compute
    from xaicli.queries.resolution import resolve
    from xaicli.reader import open_reader

    reader = open_reader(RunLayout(root))
    compute(reader, resolve(reader, mode="train"), jumps=jumps)


AGAIN = "dynamics asked again"
WORK: dict[str, Callable[[Path], None]] = {
    "decode": decode,
    "decode, polars": decode_polars,
    "dynamics without rank_jump": lambda root: statistics(root, jumps=False),
    "dynamics": lambda root: statistics(root, jumps=True),
    AGAIN: lambda root: statistics(root, jumps=True),
}


def peak_memory() -> float:
    """The largest resident memory of this process in MB; unlike `ru_maxrss` without that of the process before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def measure(name: str, root: Path) -> tuple[float, float, float]:
    """Seconds by the clock and of all processors, imports apart, and the peak memory in MB, of a fresh process."""
    if name != AGAIN:
        shutil.rmtree(root / "cache", ignore_errors=True)
    command = [sys.executable, __file__, "--work", name, "--folder", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, work, peak = map(float, done.stdout.split())
    return seconds, work, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--order", choices=["compacted", "shuffled"], default="compacted")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--work", choices=list(WORK), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        import polars  # noqa: F401 - loaded before the clock starts
        import pyarrow.parquet  # noqa: F401

        start, worked = time.perf_counter(), time.process_time()
        WORK[given.work](given.folder)
        print(time.perf_counter() - start, time.process_time() - worked, peak_memory())
        return
    root = given.folder or Path(tempfile.mkdtemp()) / "run"
    if not (root / "xai.json").exists():
        make_run(root, given.samples, given.epochs, compacted=given.order == "compacted")
    try:
        print(f"{given.samples * given.epochs / 1e6:.1f} M rows, {given.order}")
        floor = busy = 0.0
        for name in WORK:
            seconds, work, peak = measure(name, root)
            floor, busy = floor or seconds, busy or work
            print(
                f"{name:28s} {seconds:7.2f} s  {seconds / floor:5.2f} x decode  "
                f"processors {work:7.2f} s  {work / busy:5.2f} x  {peak:6.0f} MB",
                flush=True,
            )
    finally:
        if not given.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
