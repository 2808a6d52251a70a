"""What a Python user sees of an error: the remedy, too."""

from __future__ import annotations

import subprocess
import sys
import traceback

import pytest

from xaicli.errors import XaiError, unknown


def test_a_traceback_shows_the_hint() -> None:
    with pytest.raises(XaiError) as caught:
        raise XaiError("no metric 'lossy' in runs/a", hint="recorded metrics: loss, margin")
    shown = "".join(traceback.format_exception_only(caught.value))
    assert shown == "xaicli.errors.XaiError: no metric 'lossy' in runs/a\nhint: recorded metrics: loss, margin\n"
    assert str(caught.value) == "no metric 'lossy' in runs/a"


def test_a_name_that_needs_an_extra_says_which() -> None:
    code = "import sys; sys.modules['torch'] = None; import xaicli; xaicli.collect_metrics"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "hint: xaicli.collect_metrics needs pip install 'xaicli[saliency]'" in ended.stderr


def test_a_name_with_a_comma_is_one_of_a_list() -> None:
    found = unknown("label", "q", ["x, y", 'a "b", c', '"d,e"', "z"])
    assert found.hint == 'known labels: "x, y", "a ""b"", c", "d,e", z'
