"""What a user at a terminal sees of long work, in real processes: progress, and nothing after an interruption."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xaicli.cli.status import StatusLine
from xaicli.layout import RunLayout

_SLOWLY = """
import sys, time
from xaicli.reader.run import Reader
plain, PAUSE = Reader.of_epoch, float(sys.argv.pop(1))

def slowly(self, *args, **more):
    time.sleep(PAUSE)
    return plain(self, *args, **more)

Reader.of_epoch = slowly
from xaicli.__main__ import entry
entry()
"""


class Terminal:
    """A command whose standard error is a terminal."""

    def __init__(self, command: list[object], folder: Path, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=slave,
            cwd=folder,
            env={**os.environ, "TERM": "xterm", **environment},
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str, seconds: float = 120.0) -> None:
        """Read until what a pattern says has appeared."""
        end = time.monotonic() + seconds
        while not re.search(text, self.seen) and time.monotonic() < end and self._read():
            pass
        assert re.search(text, self.seen), repr(self.seen)

    def end(self) -> tuple[int, str]:
        """The exit status and standard output."""
        while self._read():
            pass
        out = self.process.communicate()[0].decode()
        os.close(self._master)
        return self.process.returncode, out

    @property
    def left(self) -> str:
        """What is left on the terminal in the end, but for warnings: each line after its last erasure."""
        lines = [line.rpartition("\x1b[2K")[2] for line in self.seen.replace("\r\n", "\n").split("\n")]
        return "\n".join(line for line in lines if not line.startswith("warning: ")).strip()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 60.0)
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # the last writer has closed it
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    """A run of its own."""
    return Path(shutil.copytree(sample_run, tmp_path / "run"))


@pytest.mark.parametrize("question", ["track-report", "labels", "export"])
def test_a_terminal_is_told_what_is_done_and_keeps_nothing_of_it(question: str, run: Path, tmp_path: Path) -> None:
    seen = Terminal(["-c", _SLOWLY, "0.1", question, run], tmp_path)
    seen.until(r"reading eval epochs \d+ of 12")
    status, out = seen.end()
    assert (status, seen.left) == (0, "")
    assert "wrote " in out


def test_dynamics_tell_the_epoch_they_follow(run: Path, tmp_path: Path) -> None:
    seen = Terminal(["-c", _SLOWLY, "0.1", "dynamics", run, "--where", "epoch > 0"], tmp_path)
    seen.until(r"following every sample, epoch \d+ of 12")
    assert seen.end()[0] == 0


@pytest.mark.parametrize("choice", ["--no-progress", "-q"])
def test_nothing_is_told_where_nobody_wants_it(choice: str, run: Path, tmp_path: Path) -> None:
    seen = Terminal(["-c", _SLOWLY, "0.05", "labels", run, choice], tmp_path)
    assert seen.end()[0] == 0
    assert seen.seen == ""


def test_a_pipe_is_told_nothing(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SLOWLY, "0.05", "labels", run]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("question", ["track-report", "labels", "export", "dynamics"])
def test_an_interruption_is_quiet_and_leaves_no_half_of_a_file(question: str, run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "reports", ignore_errors=True)
    seen = Terminal(
        ["-c", _SLOWLY, "0.4", question, run, *(["--where", "epoch > 0"] * (question == "dynamics"))], tmp_path
    )
    seen.until(r"epochs? \d+ of 1\d")
    seen.process.send_signal(signal.SIGINT)
    status, out = seen.end()
    assert (status, out, seen.left) == (130, "", "")
    assert [path for path in (run / "reports").rglob("*") if path.is_file()] == []


def test_an_interrupted_compaction_leaves_the_epochs_that_are_done(tmp_path: Path) -> None:
    from tests.written_run import WrittenRun

    written = WrittenRun(tmp_path / "parts")
    rows = [{"sample_id": i, "epoch": epoch, "loss": float(i)} for epoch in range(8) for i in range(10)]
    for half in (0, 1):
        for epoch in range(8):
            written.write([row for row in rows if row["epoch"] == epoch and row["sample_id"] % 2 == half])
    slowly = _SLOWLY.replace("xaicli.reader.run import Reader", "xaicli.maintenance import compact as Reader")
    slowly = (
        slowly.replace("of_epoch", "_merge")
        .replace("slowly(self, *args", "slowly(*args")
        .replace("plain(self, ", "plain(")
    )
    seen = Terminal(["-c", slowly, "0.4", "compact", written.layout.root, "--grace", "0"], tmp_path)
    seen.until("compacting epochs [3-7] of 8")
    seen.process.send_signal(signal.SIGINT)
    assert (seen.end(), seen.left) == ((130, ""), "")
    from xaicli.api import open_run

    merged = [path for path in RunLayout(written.layout.root).data.rglob("*.parquet") if path.stem.count("-") > 3]
    assert 1 <= len(merged) < 8
    assert open_run(written.layout.root).dynamics(metric="loss").data.height == 10


def test_interrupted_maps_are_gone_on_with(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from xaicli.checkpoint.save import save_checkpoint

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    save_checkpoint(model, tmp_path / "model.pt", example_inputs=torch.zeros(1, 1, 4, 4))
    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).random((12, 1, 4, 4), dtype=np.float32))
    slowly = """
import sys, time
from xaicli.attribution.store import Store
plain, PAUSE = Store.write, float(sys.argv.pop(1))

def slowly(self, *args):
    plain(self, *args)
    open("kept", "a").write(args[0] + "\\n")
    time.sleep(PAUSE)

Store.write = slowly
from xaicli.__main__ import entry
entry()
"""
    question = ["saliency", "--model", "model.pt", "--data", "data.npz", "--samples", "12", "-o", "out"]
    seen = Terminal(["-c", slowly, "0.3", *question], tmp_path)
    seen.until("loading the model")
    kept = tmp_path / "kept"
    while not kept.exists() or len(kept.read_text().split()) < 3:
        assert seen.process.poll() is None, seen.seen
        time.sleep(0.05)
    seen.process.send_signal(signal.SIGINT)
    assert (seen.end(), seen.left) == ((130, ""), "")
    first = set(kept.read_text().split())
    n_written = len(kept.read_text().split())
    again = Terminal(["-c", slowly, "0", *question], tmp_path)
    assert again.end()[0] == 0, again.seen
    later = kept.read_text().split()[n_written:]
    assert len(first) + len(later) == 12
    assert not first & set(later)


def test_a_count_never_goes_backwards() -> None:
    line = StatusLine("starting")
    said = []
    for done in (1, 2, 2, 3, 1, 2, 3, 4):
        line.tell("reading eval epochs", done, 4)
        said.append(line._text())
    line.close()
    numbers = [found[1] for text in said if (found := re.search(r"epochs (\d)", text))]
    assert numbers == ["1", "2", "2", "3"]
    assert [text.split(" 1")[0] for text in said[4:]] == ["reading eval epochs"] * 4


def test_the_time_left_is_told_from_what_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the first are finished, nor as if those that were there before had been made; it counts down."""
    line = StatusLine("starting")
    now = [1000.0]
    monkeypatch.setattr("xaicli.cli.status.time.monotonic", lambda: now[0])

    def said(after: float, *told: float) -> str:
        now[0] += after
        if told:
            line.tell("maps", int(told[0]), 48, *told[1:])
        return line._text().partition(" so far")[0].partition(", ")[2]

    assert "left" not in said(0, 8)
    assert "left" not in said(5, 8, 1.5)
    assert said(5, 10) == "about 3 min left", "two in ten seconds, 38 to go"
    assert said(10) == "about 3 min left"
    assert said(10, 10, 34) == "about 3 s left", "36 of 40 in thirty seconds"
    assert "left" not in said(1)
    line.tell("scoring the maps")
    assert said(70, 44) == "about 11 s left", "36 of 40 in 101 seconds"
    line.close()
