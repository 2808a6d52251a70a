"""Windows has no `fcntl`, `termios` and others: what reads and asks does without them, and what records says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xaicli.cli import COMMANDS

HIDDEN = """
import os, sys

MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "posix_ipc"}
# Other packages are loaded as they are here: they have builds of their own for each system.
import matplotlib.figure, matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, numpy, pathlib, polars
import narwhals, pyarrow.parquet, pyarrow.compute, rich.console, rich.progress, shutil, subprocess, tempfile, typer
import multiprocessing, concurrent.futures, uuid, socket, importlib.metadata, urllib.request, PIL.Image, duckdb

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
for name in MODULES:
    sys.modules.pop(name, None)
for name in ("fork", "register_at_fork", "O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "getuid", "geteuid", "getpgid",
             "killpg", "pread", "pwrite", "preadv", "pwritev", "statvfs", "sched_getaffinity", "fdatasync", "uname"):
    if hasattr(os, name):
        delattr(os, name)
"""

ASK = """
import contextlib, io, json
from xaicli.cli import main

answers = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main([*words, "--json"])
    answers.append([status, out.getvalue()])
print(json.dumps(answers))
"""

QUESTIONS = (
    *(["info"], ["samples"], ["labels", "--bounds", "std,range"], ["dynamics"], ["findings"], ["confusion"], ["steps"]),
    *(["slices", "--min-n", "10"], ["scalars"], ["select", "--rule", "hardest", "--n", "3"], ["ls"]),
    *(["check", "--rule", "loss mean <= 100"], ["doctor"], ["query", "SELECT count(*) AS n FROM samples"]),
    *(["track-report", "--format", "html,csv"], ["export", "--format", "csv"], ["relabel", "export"]),
    *(["watch", "--once"], ["compare"]),
)
ELSEWHERE = {
    **dict.fromkeys(("demo", "collect", "embeddings", "import", "compact", "sync"), "these write runs"),
    "saliency": "it needs torch: a test of its own",
    "checkpoint": "it reads no run",
    "errors": "of several classes it refers to confusion",
}


def test_every_command_is_asked_or_said_to_be_left_out() -> None:
    asked = {words[0].replace("-", "_") for words in QUESTIONS}
    assert asked | set(ELSEWHERE) == set(COMMANDS)


def asked(run: Path, out: Path, before: str) -> list[tuple[int, dict[str, object]]]:
    words = [
        [*question, str(run), *([str(run)] if question == ["compare"] else [])]
        + (["-o", str(out)] if "--format" in question else [])
        for question in QUESTIONS
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys\n{before}\n{ASK}", json.dumps(words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [(status, json.loads(text)) for status, text in json.loads(done.stdout)]


def test_what_reads_answers_the_same_without_them(sample_run: Path, tmp_path: Path) -> None:
    without = asked(sample_run, tmp_path, HIDDEN)
    for words, one, other in zip(QUESTIONS, without, asked(sample_run, tmp_path, ""), strict=True):
        assert one == other, words
        assert one[0] == 0, words
        assert one[1]["rows"] or words[0] in ("slices", "doctor", "track-report", "export"), words


def test_what_records_says_what_it_needs(tmp_path: Path, sample_run: Path) -> None:
    code = f"{HIDDEN}\nimport xaicli\nxaicli.Run({str(tmp_path / 'run')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()
    assert any("XaiError: recording needs Linux or macOS" in line for line in last), done.stderr[-2000:]
    assert not (tmp_path / "run").exists()
    code = f"{HIDDEN}\nfrom xaicli.cli import main\nprint(main(['compact', {str(sample_run)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n"
    assert done.stderr.startswith("error: compacting needs Linux or macOS")


READ = (
    *(
        "api",
        "checks.verdicts",
        "choices.questions",
        "diagnosis.questions",
        "dynamics",
        "engines",
        "importers.recorded",
    ),
    *("maintenance.doctor", "parquet", "queries.samples", "reader", "relabel.questions", "render.page", "report.track"),
    *("results", "summary", "tables.table", "testing", "watch.view", "recorder.run", "extensions"),
)


def test_modules_load_without_them() -> None:
    code = f"{HIDDEN}\nimport importlib\nfor name in {READ}: importlib.import_module('xaicli.' + name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_maps_are_made_without_them(sample_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    words = ["saliency", str(sample_run), "--samples", "2", "-o", str(tmp_path), "--json"]
    code = f"import torch, safetensors.torch\n{HIDDEN}\nfrom xaicli.cli import main\nsys.exit(main({words}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["sample_id"] for row in json.loads(done.stdout)["rows"]] == [0, 5]
