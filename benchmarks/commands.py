"""What a whole command costs, process start included, against the import of what it cannot do without.

The commands take turns, so that all meet the same machine; modules are compiled beforehand, as an installed package's
are. Processor time (user and system, children included) and wall time, each the median.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

SAMPLE_RUN = Path(__file__).parents[1] / "sample_data" / "run"
TIMES = 7
LABELS, EPOCHS, SAMPLES = 1000, 200, 4000
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PYTHON = [sys.executable, "-c"]
PASS, FRAMES, TORCH = "pass", "import polars, pyarrow, matplotlib.figure", "import torch"


class Taken(NamedTuple):
    """Seconds of one process."""

    cpu: float
    wall: float


def taken(command: list[str]) -> Taken:
    """Run a process and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Taken(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall)


def many_labels(folder: Path) -> Path:
    """A run of a thousand labels and two hundred epochs."""
    import xaicli

    draw = np.random.default_rng(0)
    ids = np.arange(SAMPLES)
    with xaicli.Run(folder) as run:
        for epoch in range(1, EPOCHS + 1):
            loss = draw.gamma(2.0, 1.0 / epoch, SAMPLES)
            run.log_samples(sample_id=ids, label=ids % LABELS, loss=loss, mode="eval", epoch=epoch, step=epoch)
            run.flush()
    return folder


def main() -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(SAMPLE_RUN.parents[1] / "xaicli")], env=ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(SAMPLE_RUN, run, ignore=shutil.ignore_patterns("reports", "cache"))
        many = many_labels(Path(folder) / "many")
        xai, out = [sys.executable, "-m", "xaicli"], ["-o", f"{folder}/out", "-q"]
        commands = {
            PASS: ([*PYTHON, PASS], PASS),
            FRAMES: ([*PYTHON, FRAMES], FRAMES),
            TORCH: ([*PYTHON, TORCH], TORCH),
            "xai --help": ([*xai, "--help"], PASS),
            "xai samples RUN": ([*xai, "samples", str(run)], PASS),
            "xai samples RUN --json": ([*xai, "samples", str(run), "--json"], PASS),
            "xai labels RUN --bounds std,range": ([*xai, "labels", str(run), "--bounds", "std,range", *out], FRAMES),
            "xai track-report RUN": ([*xai, "track-report", str(run), *out], FRAMES),
            f"the same, {LABELS:,} labels x {EPOCHS} epochs": ([*xai, "track-report", str(many), *out], FRAMES),
            "xai saliency RUN --samples 16": ([*xai, "saliency", str(run), "--samples", "16", *out], TORCH),
        }
        found: dict[str, list[Taken]] = {name: [] for name in commands}
        for command, _ in commands.values():
            taken(command)
        for _ in range(TIMES):
            # The maps are made again each time: nothing that is kept of the last call answers this one.
            shutil.rmtree(run / "cache", ignore_errors=True)
            for name, (command, _) in commands.items():
                found[name].append(taken(command))
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; median of {TIMES}")
    print(f"{'command':44}{'cpu s':>8}{'wall s':>8}  x floor (cpu), and which")
    for name, (_, floor) in commands.items():
        cpu, wall = (statistics.median(column) for column in zip(*found[name], strict=True))
        ratio = cpu / statistics.median(taken.cpu for taken in found[floor])
        print(f"{name:44}{cpu:8.3f}{wall:8.3f}  {ratio:6.2f}  {floor}")


if __name__ == "__main__":
    main()
