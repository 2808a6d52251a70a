"""Run every benchmark and write what they print, with machine and versions, to `RESULTS.md`: `make bench`.

Each benchmark is a script of its own and prints a table of ratios measured in one run; nothing is edited afterwards.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    ("The command line", "commands.py", ""),
    ("The recorder", "recorder.py", ""),
    ("The callbacks of trainers", "trainers.py", ""),
    ("Saliency: speed, a small net", "saliency.py", "speed --net lenet --images 16 --steps 25 --draws 7 --repeats 5"),
    ("Saliency: speed, larger nets", "saliency.py", "speed --net resnet18 vit_ti --images 4 --steps 8 --draws 4"),
    ("Saliency: speed, one picture", "saliency.py", "speed --net resnet18 vit_ti --images 1 --steps 16 --draws 1"),
    ("Saliency: memory", "saliency.py", "memory --net resnet18 --images 4 --steps 8 --draws 2"),
    ("Saliency: fidelity", "saliency.py", "fidelity --net lenet resnet vit --images 4"),
    ("Queries", "queries.py", "--size 1M --size 12M --size 115M"),
    ("Training dynamics", "dynamics.py", "--epochs 90"),
)
"""What it is about, the script, its arguments."""

PACKAGES = (
    "numpy",
    "pyarrow",
    "polars",
    "duckdb",
    "narwhals",
    "torch",
    "captum",
    "tensorboard",
    "wandb",
    "mlflow-skinny",
    "trackio",
    "lightning",
    "transformers",
)


def machine() -> str:
    """The machine in one line."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )


def versions() -> str:
    """The versions of what was measured and measured against, where installed."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def measure(script: str, arguments: str) -> str:
    """What a benchmark printed; its error instead where it failed."""
    command = [sys.executable, str(HERE / script), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    failed = f"\n(exit status {done.returncode})\n{done.stderr[-2000:]}" if done.returncode else ""
    return (done.stdout + failed).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted({script.removesuffix(".py") for _, script, _ in BENCHMARKS})
    parser.add_argument("--only", choices=names, action="append", help="run these, and print what would be written")
    only = parser.parse_args().only
    parts = [
        "# Results",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `make bench`, as printed.",
        f"Machine: {machine()}. {versions()}.",
    ]
    for title, script, arguments in BENCHMARKS:
        if only and script.removesuffix(".py") not in only:
            continue
        print(f"{script} ...", file=sys.stderr)
        parts.append(f"## {title}\n\n    $ python benchmarks/{f'{script} {arguments}'.strip()}\n")
        parts.append("\n".join(f"    {line}".rstrip() for line in measure(script, arguments).splitlines()))
    results = "\n\n".join(parts) + "\n"
    if only:
        print(results, end="")
    else:
        (HERE / "RESULTS.md").write_text(results, encoding="utf-8")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
