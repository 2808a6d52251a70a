"""Values as they are typed: the same as typer makes of them, without what typer loads for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from tests.test_architecture import modules_after
from xaicli.cli.plainvalues import plain_values
from xaicli.errors import UsageError

TYPED = ["", " ", "0", "7", "-3", "+3", "007", "1_000", "1.5", "-2e3", "1e", ".5", "nan", "inf", "1e999", "9" * 25]
TYPED += ["true", "TRUE", "no", "off", "t", "2", "x y", "-", "a,b", "é", "x" * 5000, "/", "nowhere/at/all"]


def command(kind: Any, **asked: Any) -> Any:
    option = typer.Option(None, **asked)

    def one(value: Any = option) -> Any:
        return value

    one.__annotations__ = {"value": kind}
    app = typer.Typer()
    app.command()(one)
    return typer.main.get_command(app)


def answered(tree: Any, *arguments: str) -> Any:
    try:
        value = tree.main(args=list(arguments), standalone_mode=False)
    except TyperException as error:
        return type(error).__name__, error.format_message()
    return type(value).__name__, repr(value)


@pytest.mark.parametrize("kind", [str, int, float, Path, list[str], list[Path], list[int], bool])
def test_values_are_what_typer_makes_of_them(kind: Any) -> None:
    plain, typers = command(kind), command(kind)
    plain_values(plain)
    # An empty text is no path: typer makes the current folder of it.
    for text in TYPED[2:] if kind is Path else TYPED:
        arguments = ["--value"] if kind is bool else [f"--value={text}"]
        assert answered(plain, *arguments) == answered(typers, *arguments), text
        if str(kind).startswith("list"):
            assert answered(plain, *arguments, "--value=7") == answered(typers, *arguments, "--value=7"), text
    assert answered(plain) == answered(typers)


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_no_path(text: str) -> None:
    plain = command(Path)
    plain_values(plain)
    with pytest.raises(UsageError, match="--value names nothing"):
        plain.main(args=[f"--value={text}"], standalone_mode=False)


@pytest.mark.parametrize("text", TYPED)
def test_flags_from_a_variable_are_what_typer_makes_of_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUE", text)
    plain, typers = command(bool, envvar="VALUE"), command(bool, envvar="VALUE")
    plain_values(plain)
    assert answered(plain) == answered(typers)


@pytest.mark.parametrize("asked", [{"min": 3}, {"max": 5}, {"parser": lambda text: int(text) + 1}])
def test_what_is_not_plain_is_left_to_typer(asked: dict[str, Any]) -> None:
    plain, typers = command(int, **asked), command(int, **asked)
    plain_values(plain)
    for text in ("2", "4", "6", "x"):
        assert answered(plain, f"--value={text}") == answered(typers, f"--value={text}")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="everything may be read by root")
def test_a_path_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.touch(mode=0)
    plain, typers = command(Path), command(Path)
    plain_values(plain)
    assert answered(plain, f"--value={closed}") == answered(typers, f"--value={closed}")


def test_a_question_needs_no_validators(sample_run: Path, tmp_path: Path) -> None:
    asked = ("xaicli", "labels", str(sample_run), "--bounds", "std,range", "-o", str(tmp_path), "--format", "csv")
    assert "pydantic" not in modules_after(*asked)
