"""Ctrl-C at moments in which Python or a library makes something else of it, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

SWALLOWED = """
import os, signal, sys
import xaicli.cli as cli
class Command:
    def main(self, **_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            while True: pass
        except KeyboardInterrupt:
            raise TypeError("incompatible arguments: [[1., 0., 0.]]") from None
cli.build = lambda arguments=(): Command()
sys.argv = ["xai", "samples"]
from xaicli.__main__ import entry
entry()
"""
AT_THE_END = """
import os, signal, sys
import xaicli.cli as cli
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT):
        kill(pid, number)
sys.last_of_all = Last()
cli.main = lambda: STATUS
from xaicli.__main__ import entry
entry()
"""


def run(code: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_an_error_that_a_library_makes_of_ctrl_c_is_no_fault() -> None:
    assert run(SWALLOWED) == (130, "")


def test_the_same_error_without_ctrl_c_is_told() -> None:
    status, said = run(SWALLOWED.replace("os.kill(os.getpid(), signal.SIGINT)", "raise KeyboardInterrupt"))
    assert status == 1
    assert "incompatible arguments" in said


def test_ctrl_c_after_the_answer_leaves_its_status() -> None:
    assert run(AT_THE_END.replace("STATUS", "0")) == (0, "")
    assert run(AT_THE_END.replace("STATUS", "1")) == (1, "")
