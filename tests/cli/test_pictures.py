"""`xai saliency --pictures` is honoured or refused by name."""

from __future__ import annotations

import pytest

from xaicli.cli import main


def test_pictures_without_a_format_for_them_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["saliency", "--model", "nosuch.pt", "--pictures", "--format", "html"]) == 2
    assert "--pictures draws PNGs" in capsys.readouterr().err


def test_pictures_with_the_usual_formats_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["saliency", "--model", "nosuch.pt", "--pictures"]) != 0
    assert "--pictures" not in capsys.readouterr().err
