"""The documents are true: their code runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

OPTIONAL = {"lightning", "transformers"}


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: path.name)
def test_the_code_blocks_run_in_their_order(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for package in OPTIONAL & {path.stem}:
        pytest.importorskip(package, reason=f"{package} is not installed")
    names: dict[str, object] = {}
    for number, block in enumerate(python_blocks(path), start=1):
        exec(compile(block, f"{path.name}, block {number}", "exec"), names)
    assert names


def commands_named(path: Path) -> set[str]:
    """The commands of indented command lines and of inline code."""
    return set(re.findall(r"(?:^    |`)xai ([a-z][a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_named_exists(path: Path) -> None:
    from xaicli.cli import COMMANDS

    assert commands_named(path) <= {name.replace("_", "-") for name in COMMANDS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_page_of_commands_is_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # no settings file of the user's
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_commands  # type: ignore[import-not-found]

    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == make_commands.markdown(), "run: make docs"
    assert (ROOT / "docs" / "xai.1").read_text(encoding="utf-8") == make_commands.man_page(), "run: make docs"
