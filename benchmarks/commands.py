"""What a whole command costs, process start included, against the floor of starting Python.

The modules are compiled beforehand, as an installed package's are.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE_RUN = Path(__file__).parents[1] / "sample_data" / "run"
TIMES = 7
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    """The wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(SAMPLE_RUN, run)
        xai = [sys.executable, "-m", "xaicli"]
        commands = {
            "python -c pass (floor)": [sys.executable, "-c", "pass"],
            "xai --version": [*xai, "--version"],
            "xai --help": [*xai, "--help"],
            "xai samples RUN": [*xai, "samples", str(run)],
            "xai samples RUN --json": [*xai, "samples", str(run), "--json"],
            "xai info RUN": [*xai, "info", str(run)],
            "xai dynamics RUN --json": [*xai, "dynamics", str(run), "--json"],
            "xai labels RUN (page and pictures)": [*xai, "labels", str(run), "-o", folder],
            "xai track-report RUN": [*xai, "track-report", str(run), "-o", folder],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command)
        for _ in range(TIMES):
            for name, command in commands.items():
                taken[name].append(seconds(command))
    floor = statistics.median(taken["python -c pass (floor)"])
    print(f"{'command':38}{'median s':>10}{'max s':>10}{'x floor':>10}")
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{name:38}{median:10.3f}{max(values):10.3f}{median / floor:10.1f}")


if __name__ == "__main__":
    main()
