"""How fast a run is asked: `python benchmarks/queries.py [--size 1M|12M|115M|1B]... [--folder DIR]`.

Makes compacted runs (one file an epoch, sorted by sample, 16,384-row groups), then asks each question in a fresh
process, the questions in turns, and reports wall time without imports, processor time, peak memory with imports and
bytes read - beside the floor, which is decoding the columns of the question with verified pages and nothing more,
DuckDB on the same files, and a dict of lists as the trackers of FastEstimator keep it. The files are in the page cache.
1B links the files of 115M nine times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

SIZES = {"1M": (20_000, 50, 1), "12M": (128_000, 90, 1), "115M": (1_281_167, 90, 1), "1B": (1_281_167, 90, 9)}
"""Name: (samples, epochs written, how often they are linked)."""

METRICS = ("loss", "label_prob", "margin", "el2n")
ROW_GROUP = 16_384


def make_run(root: Path, samples: int, epochs: int, links: int) -> None:
    """A compacted run of `samples` x `epochs` x `links` rows."""
    import numpy as np
    import pyarrow as pa

    from xaicli import parquet
    from xaicli.layout import PartName, RunLayout
    from xaicli.manifest import Attempt, ColumnFacts, Manifest

    layout = RunLayout(root)
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = np.arange(samples, dtype=np.int64)
    label = rng.integers(0, 1000, samples).astype(np.int32)
    hard = rng.gamma(2.0, 1.0, samples).astype(np.float32)
    columns: tuple[ColumnFacts, ...] = ()
    for epoch in range(1, epochs + 1):
        loss = hard * np.float32(3.0 / (1 + 0.1 * epoch)) * rng.random(samples, dtype=np.float32)
        wrong = rng.random(samples) < 0.3
        table = pa.table(
            {
                "sample_id": ids,
                "mode": pa.array(["eval"]).dictionary_encode().take(pa.array(np.zeros(samples, np.int32))),
                "ds_id": pa.array([""]).dictionary_encode().take(pa.array(np.zeros(samples, np.int32))),
                "epoch": np.full(samples, epoch, np.int32),
                "step": np.full(samples, epoch * 10_000, np.int64),
                "attempt": np.zeros(samples, np.int16),
                "rank": np.zeros(samples, np.int16),
                "label": label,
                "prediction": np.where(wrong, (label + 1) % 1000, label).astype(np.int32),
                "correct": ~wrong,
                "loss": loss,
                "label_prob": np.exp(-loss),
                "margin": rng.normal(size=samples).astype(np.float32),
                "el2n": rng.random(samples, dtype=np.float32),
            }
        )
        columns = columns or tuple(
            ColumnFacts(f.name, "string" if f.name in ("mode", "ds_id") else str(f.type), _role(f.name))
            for f in table.schema
        )
        folder = layout.folder("eval", "", epoch)
        name = PartName(0, 0, epoch * 10, epoch * 10 + 9, compacted=True).filename
        record = parquet.write(table, folder / name, root=root, row_group_rows=ROW_GROUP)
        parquet.append_record(layout, 0, 0, record)
        for link in range(1, links):
            copy = layout.folder("eval", "", epoch + link * epochs) / name
            copy.parent.mkdir(parents=True)
            os.link(folder / name, copy)
            linked = {**asdict(record), "path": copy.relative_to(root).as_posix()}
            parquet.append_record(layout, 0, 0, parquet.FileRecord(**linked))
    manifest = Manifest(run_id="benchmark", created_at="2026-01-01T00:00:00Z", id_type="int64", columns=columns)
    layout.manifest.write_text(manifest.to_json())
    layout.attempt_file(0).write_text(json.dumps(asdict(Attempt(0))))


def _role(name: str) -> str:
    return "metric" if name in METRICS else "id" if name == "sample_id" else "label"


# The questions; each takes the run directory and returns what is to be timed.


def samples(root: Path) -> Callable[[], Any]:
    """Top 5, bottom 5, histories."""
    from xaicli.api import open_run

    return lambda: open_run(root).samples().data


def labels(root: Path) -> Callable[[], Any]:
    """Mean, std, min, max of each label in every epoch."""
    from xaicli.api import open_run

    return lambda: open_run(root).labels(bounds=["std", "range"]).data


def decode_labels(root: Path) -> Callable[[], Any]:
    """The floor of `labels`: its two columns decoded, pages verified."""
    return _decode(root, ["label", "loss"])


def decode_last(root: Path) -> Callable[[], Any]:
    """The floor of `samples`: id and metric of the last epoch decoded."""
    return _decode(root, ["sample_id", "label", "loss"], last=True)


def _decode(root: Path, columns: list[str], *, last: bool = False) -> Callable[[], Any]:
    from xaicli import parquet
    from xaicli.layout import RunLayout

    files = sorted(RunLayout(root).data_files())[-1 if last else 0 :]
    return lambda: [parquet.read(file.path, columns).num_rows for file in files]


def duckdb_samples(root: Path) -> Callable[[], Any]:
    """The same extremes and histories in DuckDB's SQL, unverified, over the same files."""
    return _duckdb(
        root,
        "WITH last AS (SELECT sample_id, loss FROM f WHERE epoch = (SELECT max(epoch) FROM f)), "
        "high AS (FROM last ORDER BY loss DESC, sample_id LIMIT 5), "
        "low AS (FROM last ORDER BY loss, sample_id LIMIT 5),"
        " chosen AS (FROM high UNION FROM low) "
        "SELECT sample_id, epoch, step, f.loss FROM f WHERE sample_id IN (SELECT sample_id FROM chosen)",
    )


def duckdb_labels(root: Path) -> Callable[[], Any]:
    """The same label statistics in DuckDB's SQL, unverified."""
    return _duckdb(
        root,
        "SELECT epoch, label, count(*), avg(loss::DOUBLE), stddev_samp(loss::DOUBLE), min(loss), max(loss) "
        "FROM f GROUP BY ALL",
    )


def _duckdb(root: Path, sql: str) -> Callable[[], Any]:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW f AS FROM read_parquet('{root}/data/**/*.parquet', hive_partitioning=false)")
    return lambda: connection.execute(sql).to_arrow_table()


def dict_of_lists(root: Path) -> Callable[[], Any]:
    """What FastEstimator's InstanceTracker keeps: {id: [(step, value), ...]} in memory, appended to every epoch."""
    from xaicli import parquet
    from xaicli.layout import RunLayout

    def build() -> Any:
        histories: dict[int, list[tuple[int, float]]] = {}
        for file in sorted(RunLayout(root).data_files()):
            table = parquet.read(file.path, ["sample_id", "step", "loss"])
            for sample, step, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
                histories.setdefault(sample, []).append((step, value))
        ranked = sorted(histories, key=lambda sample: histories[sample][-1][1])
        return {sample: histories[sample] for sample in ranked[:5] + ranked[-5:]}

    return build


FLOORS = {
    "samples": "decode_last",
    "decode_last": "decode_last",
    "duckdb_samples": "decode_last",
    "dict_of_lists": "decode_last",
    "labels": "decode_labels",
    "decode_labels": "decode_labels",
    "duckdb_labels": "decode_labels",
}
"""Every question, and the decoding it cannot do without."""

MOST_IN_LISTS = 12_000_000
"""More rows than this do not fit a dict of lists in the memory of a laptop."""


def measure(question: str, root: Path) -> dict[str, float]:
    """Ask once, in this process: seconds, processor seconds, peak MB, MB read."""
    for module in ("polars", "pyarrow.parquet", "xaicli.api", "xaicli.queries.samples", "xaicli.queries.labels"):
        __import__(module)
    ask = globals()[question](root)
    read = _bytes_read()
    start, cpu = time.perf_counter(), time.process_time()
    ask()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    # Not ru_maxrss: across exec it keeps what the parent had.
    peak = _proc("status", "VmHWM") / 1024
    return {"seconds": seconds, "cpu": cpu, "peak_mb": peak, "read_mb": (_bytes_read() - read) / 1e6}


def _bytes_read() -> int:
    return _proc("io", "rchar")


def _proc(file: str, key: str) -> int:
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def measured(questions: list[str], root: Path, times: int) -> dict[str, dict[str, float]]:
    """Of each question the median of several fresh processes, taken in turns, and the largest peak."""
    runs: dict[str, list[dict[str, float]]] = {question: [] for question in questions}
    for _ in range(times):
        for question, found in runs.items():
            # What a first question leaves in the cache must not answer the next.
            shutil.rmtree(root / "cache", ignore_errors=True)
            command = [sys.executable, __file__, "--measure", question, "--folder", str(root)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {name: sorted(found, key=lambda run: run["seconds"])[times // 2] for name, found in runs.items()}
    return {name: {**middle[name], "peak_mb": max(run["peak_mb"] for run in found)} for name, found in runs.items()}


def table(found: dict[str, dict[str, float]]) -> str:
    """One line a question, with the ratio to its floor."""
    lines = [f"{'question':<16}{'seconds':>9}{'x floor':>9}{'cpu s':>9}{'x floor':>9}{'peak MB':>9}{'MB read':>9}"]
    for name, numbers in found.items():
        floor = found.get(FLOORS[name])
        ratios = [f"{numbers[key] / floor[key]:.2f}" if floor else "" for key in ("seconds", "cpu")]
        lines.append(
            f"{name:<16}{numbers['seconds']:>9.3f}{ratios[0]:>9}{numbers['cpu']:>9.3f}{ratios[1]:>9}"
            f"{numbers['peak_mb']:>9.0f}{numbers['read_mb']:>9.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the runs asked for, measure every question, print one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", action="append", choices=list(SIZES))
    parser.add_argument("--folder", type=Path, help="where runs are made; they are kept there")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", help="one question")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.folder)))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="xai-benchmark-"))
    try:
        for size in given.size or ["1M"]:
            root = folder / size
            if not root.exists():
                make_run(root, *SIZES[size])
            total = SIZES[size][0] * SIZES[size][1] * SIZES[size][2]
            print(f"\n{size}: {total:,} rows")
            questions = [name for name in FLOORS if given.only in (None, name)]
            if total > MOST_IN_LISTS and "dict_of_lists" in questions:
                questions.remove("dict_of_lists")
            print(table(measured(questions, root, given.times)), flush=True)
    finally:
        if not given.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
