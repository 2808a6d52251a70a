"""The layers of the package, and what each may load."""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "xaicli"

LAYERS = (
    {"errors", "vocabulary", "words", "files", "progress", "extensions"},
    {"layout", "manifest", "answer", "locks", "takeback"},
    {"store"},
    {"location"},
    {"parquet", "wal", "tables"},
    {"summary", "traceability"},
    {"state"},
    {"bookkeeping"},
    {"checkpoint", "heads", "sources"},
    {"recorder"},
    {"reader"},
    {"engines"},
    {"queries"},
    {"dynamics", "diagnosis", "maintenance"},
    {"checks", "choices", "relabel"},
    {"attribution"},
    {"report"},
    {"render"},
    {"results"},
    {"api", "watch"},
    {"collectors", "importers"},
    {"integrations", "demo", "demo_tasks"},
    {"cli"},
    {"testing"},
)
"""From the ground up: a module imports from its own layer and those below, inside functions too."""

FORBIDDEN = {
    "recorder": {"polars", "matplotlib", "xaicli.reader"},
    "queries": {"torch", "matplotlib"},
    "dynamics": {"torch", "matplotlib"},
    "diagnosis": {"torch", "matplotlib"},
    "reader": {"torch", "matplotlib"},
    "report": {"torch", "matplotlib", "xaicli.reader"},
    "render": {"torch"},
    "attribution": {"xaicli.reader", "xaicli.queries"},
}

HEAVY = {"torch", "polars", "pyarrow", "matplotlib", "numpy"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imported(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it, but for typing only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_number(room: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if room in layer)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("xaicli.")}
    rooms -= {"__version__"}
    above = {room for room in rooms if layer_number(room) > layer_number(room_of(path))}
    assert not above, f"{path.relative_to(PACKAGE)} imports from above: {sorted(above)}"


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_rooms_stay_light(room: str) -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in modules()
        if room_of(path) == room
        for name in imported(path)
        if any(name == banned or name.startswith(banned + ".") for banned in FORBIDDEN[room])
    }
    assert not found


def modules_after(*arguments: str) -> set[str]:
    """The modules loaded once `python ARGUMENTS` has run."""
    code = (
        "import atexit, json, runpy, sys\n"
        "atexit.register(lambda: sys.stderr.write('\\n' + json.dumps(sorted(sys.modules))))\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n"
        "    runpy.run_module(sys.argv[0], run_name='__main__') if sys.argv[0] == 'xaicli' else exec(sys.argv[1])\n"
        "except SystemExit:\n"
        "    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    assert not modules_after("xaicli", "--help") & HEAVY


def test_import_loads_nothing_heavy() -> None:
    loaded = modules_after("-", "import xaicli; dir(xaicli)")
    assert "xaicli" in loaded
    assert not loaded & HEAVY


def test_every_module_has_a_layer() -> None:
    assert {room_of(path) for path in modules()} <= set().union(*LAYERS)


def module_of(name: str) -> str | None:
    """The module of this package that an imported name lies in; None for other packages and for the package itself."""
    parts = name.split(".")
    while len(parts) > 1:
        path = PACKAGE.parent.joinpath(*parts)
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return ".".join(parts)
        parts.pop()
    return None


def test_no_module_imports_in_a_circle() -> None:
    graph = {}
    for path in modules():
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        graph[name] = {found for imported_name in imported(path) if (found := module_of(imported_name))} - {name}
    assert list(graphlib.TopologicalSorter(graph).static_order())
