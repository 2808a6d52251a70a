"""The file that a type checker reads says what is true when it runs."""

from __future__ import annotations

import types
import typing
from pathlib import Path

import pytest

import xaicli
from tests import typed_api


def test_the_types_are_those_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def assert_type(value: object, kind: object) -> object:
        seen.append(kind)
        plain = kind if isinstance(kind, types.UnionType) else typing.get_origin(kind) or kind or types.NoneType
        assert isinstance(plain, type | types.UnionType), kind
        assert isinstance(value, plain), f"{value!r} is no {kind}"
        return value

    monkeypatch.setattr(typed_api, "assert_type", assert_type)
    typed_api.asked(typed_api.recorded(tmp_path / "run"), tmp_path)
    typed_api.others()
    assert len(seen) > 30


def test_the_names_of_the_package_are_those_that_are_checked() -> None:
    for name in ("Run", "open_run", "compare", "import_run", "Table", "Summary", "RunReader"):
        assert getattr(xaicli, name) is getattr(typed_api, name)
