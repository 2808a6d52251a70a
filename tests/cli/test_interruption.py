"""Ctrl-C at moments in which Python or a library makes something else of it, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
LOST = """
import os, signal, time
import xaicli.cli as cli
class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
class Command:
    def main(self, **_):
        Gone()
        AFTER
cli.build = lambda arguments=(): Command()
from xaicli.__main__ import entry
entry()
"""
AT_ONCE = """
import os, runpy, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
for name in [MODULE]:
    sys.modules.pop(name, None)
sys.argv = ["xai", "--version"]
from xaicli.__main__ import entry
entry()
"""

DRAWING = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["xai", "labels", RUN, "-o", OUT]
from xaicli.__main__ import entry
entry()
"""
PRINTING = """
import os, signal, sys, time
from xaicli.results import Result
Result.show_terminal = lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30))
sys.argv = ["xai", "labels", RUN, "-o", OUT]
from xaicli.__main__ import entry
entry()
"""
SAMPLE_RUN = Path(__file__).parents[2] / "sample_data" / "run"


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


def test_ctrl_c_that_python_drops_comes_again() -> None:
    """Within a finalizer, a weak reference's callback or the collector's, Python drops what is raised."""
    assert run(LOST.replace("AFTER", "while True: pass")) == (130, "")


def test_a_command_that_went_on_after_ctrl_c_is_interrupted_all_the_same() -> None:
    swallowing = "try:\n            time.sleep(5)\n        except BaseException:\n            pass"
    assert run(LOST.replace("AFTER", swallowing)) == (130, "")
    assert run(LOST.replace("Gone()", "").replace("AFTER", "return 0")) == (0, "")


def test_what_else_python_drops_is_told_as_ever() -> None:
    status, said = run(
        LOST.replace("os.kill(os.getpid(), signal.SIGINT)", "raise ValueError('mine')").replace("AFTER", "")
    )
    assert status == 0
    assert "Exception ignored in" in said
    assert "ValueError: mine" in said


@pytest.mark.parametrize("module", ["gc", "pathlib", "xaicli.cli", "typer"])
def test_ctrl_c_while_the_command_is_loaded_is_quiet(module: str) -> None:
    assert run(AT_ONCE.replace("MODULE", repr(module))) == (130, "")


@pytest.mark.parametrize("module", ["matplotlib", "matplotlib.ticker", "matplotlib.figure", "matplotlib.lines"])
def test_ctrl_c_while_what_draws_is_loaded_leaves_the_page(tmp_path: Path, module: str) -> None:
    code = DRAWING.replace("MODULE", repr(module)).replace("RUN", repr(str(SAMPLE_RUN)))
    status, said = run(code.replace("OUT", repr(str(tmp_path / "out"))))
    assert status == 130
    # Mostly "labels.html is in ..."; on a busy machine the signal that comes again may find every file written.
    assert "warning: interrupted: " in said
    assert "labels.html" in said
    assert "<table" in (tmp_path / "out" / "labels.html").read_text(encoding="utf-8")


def test_ctrl_c_while_the_answer_is_printed_says_that_every_file_is_there(tmp_path: Path) -> None:
    code = PRINTING.replace("RUN", repr(str(SAMPLE_RUN))).replace("OUT", repr(str(tmp_path / "out")))
    page = tmp_path / "out" / "labels.html"
    assert run(code) == (130, f"warning: interrupted: every file is written, {page} the first\n")
    assert {path.suffix for path in page.parent.iterdir()} == {".html", ".png", ".csv", ".json"}
