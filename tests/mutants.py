"""Plant small faults into the code, one at a time, and see whether the room's tests find them: `make mutants`.

    python tests/mutants.py                          # 15 faults in each room
    python tests/mutants.py dynamics wal -n 30 --seed 7
    python tests/mutants.py --at xaicli/wal/frames.py:120

A fault is a changed comparison, operator, constant or condition in a line that the room's tests run (or that no test
of the room runs: those count as survived). It is planted into a copy of the tree, never in place. Of the room's tests
those that ran the line go first, then, where they find nothing and processes of their own might, the rest.
What survives is a missing assertion, code that need not be there, or, rarely, a change that makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

ROOMS = {
    "queries": ("queries", "state/test_scalars.py"),
    "dynamics": ("dynamics",),
    "reader": ("reader", "maintenance", "recorder/test_snapshot.py", "queries/test_corruption.py"),
    "wal": ("recorder", "reader"),
    "recorder": ("recorder",),
    "attribution": ("attribution",),
    "checkpoint": ("checkpoint",),
    "report": ("report", "relabel", "diagnosis", "checks", "choices", "render/test_page.py"),
}
"""The room, and the tests that are its own."""

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


LIMIT = 900
"""Seconds after which tests that do not end have found the fault."""
NOTHING_RAN = (4, 5)
UNSHRUNK = """
plain = hypothesis.settings(phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], deadline=None)
hypothesis.settings.register_profile("mutants", plain, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("mutants")
"""
"""In the copy: that a property fails is enough, and the smallest example of it costs minutes."""


@dataclass(frozen=True)
class Mutant:
    """One fault: an expression of a file and what stands in its place."""

    path: Path
    line: int
    start: int
    end: int
    was: str
    becomes: str

    @property
    def words(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.was.split())} -> {' '.join(self.becomes.split())}"


class Faults(ast.NodeVisitor):
    """Every fault that can be planted into one file."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text.encode()
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.visit(ast.parse(text))

    def add(self, node: ast.expr, becomes: ast.expr) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        new = ast.unparse(becomes)
        if not isinstance(node, ast.Constant):
            new = f"({new})"
        self.found.append(Mutant(self.path, node.lineno, start, end, self.text[start:end].decode(), new))

    def visit_Compare(self, node: ast.Compare) -> None:
        for at, operator in enumerate(node.ops):
            operators = [*node.ops]
            operators[at] = COMPARISONS[type(operator)]()
            self.add(node, ast.Compare(node.left, operators, node.comparators))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        is_text = any(
            isinstance(side, ast.JoinedStr | ast.List | ast.Tuple) for side in (node.left, node.right)
        ) or any(
            isinstance(side, ast.Constant) and isinstance(side.value, str | bytes) for side in (node.left, node.right)
        )
        if type(node.op) in OPERATORS and not is_text:
            self.add(node, ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.add(node, ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add(node, node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, ast.Constant(not node.value))
        elif isinstance(node.value, int | float):
            self.add(node, ast.Constant(node.value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        """`zip(..., strict=True)` asserts by itself: without it nothing changes but what follows a mistake."""
        for part in (node.func, *node.args, *(word.value for word in node.keywords if word.arg != "strict")):
            self.visit(part)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return
        self.condition(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    def condition(self, test: ast.expr) -> None:
        if isinstance(test, ast.Name | ast.Attribute | ast.Call):
            self.add(test, ast.UnaryOp(ast.Not(), test))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in [*node.defaults, *filter(None, node.kw_defaults)]:
            self.visit(default)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Positions inside f-strings are those of the whole text before Python 3.12: left alone."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)


def faults(paths: list[Path]) -> list[Mutant]:
    return [
        mutant for path in paths for mutant in Faults(path.relative_to(ROOT), path.read_text(encoding="utf-8")).found
    ]


def sampled(room: str, n: int, seed: int) -> list[Mutant]:
    """Files with many faults give many, but no line gives two."""
    mutants = faults(sorted((ROOT / "xaicli" / room).rglob("*.py")))
    random.Random(f"{room} {seed}").shuffle(mutants)
    chosen = {(mutant.path, mutant.line): mutant for mutant in reversed(mutants)}
    return [mutant for mutant in mutants if chosen[mutant.path, mutant.line] is mutant][:n]


class Copy:
    """A copy of the tree that faults are planted into."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        with (self.root / "tests" / "conftest.py").open("a", encoding="utf-8") as settings:
            settings.write(UNSHRUNK)

    def pytest(self, arguments: list[str], limit: float, *, coverage: str | None = None) -> int | None:
        """The exit status of the tests; None where they took longer than the limit, in seconds."""
        start = [sys.executable, "-B", "-m"]
        if coverage:
            (self.root / "build").mkdir(exist_ok=True)
            settings = self.root / "build" / "coverage.ini"
            settings.write_text("[run]\ndynamic_context = test_function\n", encoding="utf-8")
            start += ["coverage", "run", f"--rcfile={settings}", f"--data-file={coverage}", "--source=xaicli", "-m"]
        command = [*start, "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        environment |= {"HYPOTHESIS_STORAGE_DIRECTORY": str(self.root / "build" / "hypothesis")}
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                self.said = process.communicate(timeout=limit)[0].decode(errors="replace")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                self.said = process.communicate()[0].decode(errors="replace")
                return None
        return process.returncode


def tests_of(data: Path) -> dict[tuple[str, int], set[str]]:
    """The names of the test functions that ran each line."""
    from coverage.numbits import numbits_to_nums

    ran: dict[tuple[str, int], set[str]] = {}
    with sqlite3.connect(data) as base:
        for path, context, bits in base.execute(
            "select path, context, numbits from line_bits"
            " join file on file.id = file_id join context on context.id = context_id"
        ):
            for line in numbits_to_nums(bits):
                ran.setdefault((f"xaicli/{path.rpartition('/xaicli/')[2]}", line), set()).add(context)
    return ran


def chosen_tests(contexts: set[str]) -> list[str]:
    """pytest's arguments for coverage's names of functions: `tests.room.test_x.Class.test_y`, by file."""
    found: dict[str, set[str]] = {}
    for context in filter(None, contexts):
        parts = context.split(".")
        names = [part for part in parts if part.startswith("test_")]
        if len(names) >= 2:
            file = "/".join(parts[: parts.index(names[0]) + 1]) + ".py"
            found.setdefault(file, set()).add(names[-1])
    return [f"{file}::{name}" for file in sorted(found) for name in sorted(found[file])]


def is_found(mutant: Mutant, copy: Copy, ran: dict[tuple[str, int], set[str]], room_tests: list[str]) -> bool:
    place = copy.root / mutant.path
    sound = place.read_bytes()
    place.write_bytes(sound[: mutant.start] + mutant.becomes.encode() + sound[mutant.end :])
    try:
        contexts = ran.get((str(mutant.path), mutant.line), set())
        first = chosen_tests(contexts)
        if first:
            status = copy.pytest(first, LIMIT)
            if status not in (0, *NOTHING_RAN):
                return True
            if status == 0 and "" not in contexts:
                return False
        return copy.pytest(room_tests, LIMIT) != 0
    finally:
        place.write_bytes(sound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)}; all of them when none is named")
    parser.add_argument("-n", type=int, default=15, help="faults a room (15)")
    parser.add_argument("--seed", type=int, default=0, help="which faults are drawn (0)")
    parser.add_argument(
        "--again", action="store_true", help="use what the last run noted of which tests run which lines"
    )
    parser.add_argument(
        "--at", nargs="*", default=[], metavar="FILE:LINE", help="plant every fault of these lines instead"
    )
    arguments = parser.parse_args()
    wanted = {tuple(place.rsplit(":", 1)) for place in arguments.at}
    rooms = arguments.rooms or sorted({Path(path).parts[1] for path, _ in wanted}) or list(ROOMS)
    if unknown := set(rooms) - set(ROOMS):
        parser.error(f"no such room: {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    survived = planted = 0
    with tempfile.TemporaryDirectory(prefix="xai-mutants-") as folder:
        copy = Copy(Path(folder))
        for room in rooms:
            tests = [f"tests/{name}" for name in ROOMS[room]]
            mutants = sampled(room, arguments.n, arguments.seed)
            if wanted:
                everything = faults(sorted((ROOT / "xaicli" / room).rglob("*.py")))
                mutants = [mutant for mutant in everything if (str(mutant.path), str(mutant.line)) in wanted]
            data = ROOT / "build" / "mutants" / f"{room}.coverage"
            if not (arguments.again and data.exists()):
                data.parent.mkdir(parents=True, exist_ok=True)
                data.unlink(missing_ok=True)
                if copy.pytest(tests, 3600, coverage=str(data)):
                    data.unlink(missing_ok=True)
                    print(copy.said[-3000:])
                    print(f"{room}: the tests fail before any fault is planted", file=sys.stderr)
                    return 2
            ran = tests_of(data)
            left = 0
            for mutant in mutants:
                found = is_found(mutant, copy, ran, tests)
                left += not found
                print(f"{'found   ' if found else 'SURVIVED'} {mutant.words}", flush=True)
            print(f"{room}: {len(mutants) - left} of {len(mutants)} found", flush=True)
            survived += left
            planted += len(mutants)
    print(f"in all: {planted - survived} of {planted} found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
