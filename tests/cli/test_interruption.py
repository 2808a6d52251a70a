"""Ctrl-C at moments in which Python or a library makes something else of it, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
import atexit, os, signal
import xaicli.cli as cli
atexit.register(os.kill, os.getpid(), signal.SIGINT)
cli.main = lambda **_: STATUS
from xaicli.__main__ import entry
entry()
"""
WHILE_IMPORTING = """
import sys
import xaicli.cli as cli
class Command:
    def main(self, **_):
        sys.path.insert(0, FOLDER)
        import half_a_library
        print("went on with half of it")
cli.build = lambda arguments=(): Command()
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


def test_ctrl_c_that_an_import_swallows_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "half_a_library.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
        "except BaseException:\n"
        "    pass\n"
    )
    assert run(WHILE_IMPORTING.replace("FOLDER", repr(str(tmp_path)))) == (130, "")
