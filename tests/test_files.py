"""Files appear whole, in one way, and what is durable is synced before it has its name."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from xaicli import files

PACKAGE = Path(__file__).parents[1] / "xaicli"
APPEARS = {"rename", "renames", "replace", "link", "symlink", "hardlink_to", "symlink_to", "move", "fsync", "fdatasync"}
"""What gives a file a name or puts it on the disk, of `os`, `shutil` and `Path`."""


def naming_calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of those; not `text.replace(a, b)`, `frame.rename({...})`, or `facts.replace(name=...)`."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr not in APPEARS:
            continue
        of_module = isinstance(call.func.value, ast.Name) and call.func.value.id in ("os", "shutil")
        of_path = len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Dict | ast.DictComp)
        if of_module or of_path:
            yield call


def test_only_one_module_renames_links_and_syncs() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{call.lineno} {ast.unparse(call)}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "files.py"
        for call in naming_calls(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found, "xaicli/files.py does this for everyone"


def test_a_rename_is_found_where_there_is_one() -> None:
    text = (
        "import os\nos.replace(a, b)\nos.rename(a, b)\npath.replace(other)\npath.rename(other)\nos.fsync(3)\nx.link_to"
    )
    assert len(list(naming_calls(ast.parse(text)))) == 5
    assert not list(naming_calls(ast.parse("t.replace('a', 'b')\nf.rename({'a': 'b'})\nd.replace(tzinfo=None)")))
    assert len(list(naming_calls(ast.parse((PACKAGE / "files.py").read_text(encoding="utf-8"))))) >= 6


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The way of a file, with the syncs of the operating system among its named points."""
    seen: list[str] = []
    sync = os.fsync

    def synced(descriptor: int) -> None:
        seen.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")  # noqa: PTH112
        sync(descriptor)

    monkeypatch.setattr(files, "reached", seen.append)
    monkeypatch.setattr(os, "fsync", synced)
    return seen


def test_what_is_durable_is_synced_before_it_has_its_name(tmp_path: Path, points: list[str]) -> None:
    files.write_whole(tmp_path / "a", b"whole", durable=True)
    assert points == [
        "opened",
        "written",
        "fsync file",
        "synced",
        "renamed",
        "fsync folder",
        "folder synced",
    ]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_what_can_be_made_again_is_not_synced(tmp_path: Path, points: list[str]) -> None:
    files.write_whole(tmp_path / "deep" / "a", b"whole")
    assert points == ["opened", "written", "renamed"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]


@pytest.mark.parametrize("durable", [False, True])
def test_what_fails_leaves_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = files.write_whole(tmp_path / "a", b"before")

    def half(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), files.appearing(path, durable=durable) as file:
        half(file)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = files.write_whole(tmp_path / "target", b"mine")
    (tmp_path / "link").symlink_to(target)
    files.write_whole(tmp_path / "link", b"new")
    assert target.read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


def test_a_name_is_claimed_by_one(tmp_path: Path) -> None:
    assert files.claim_name(tmp_path / "a", b"first")
    assert not files.claim_name(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_second_name_takes_the_place_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    first = files.write_whole(tmp_path / "first", b"best")
    second = files.write_whole(tmp_path / "second", b"before")
    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    files.give_second_name(first, second)
    assert second.read_bytes() == first.read_bytes() == b"best"
    assert second.samefile(first) is has_links
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_a_folder_appears_full_under_the_next_free_name(tmp_path: Path) -> None:
    names = iter(["taken", "free"])
    files.write_whole(tmp_path / "taken" / "x", b"theirs")
    final = files.write_folder(tmp_path, lambda folder: (folder / "x").write_bytes(b"mine"), lambda: next(names))
    assert final == tmp_path / "free"
    assert (final / "x").read_bytes() == b"mine"
    assert (tmp_path / "taken" / "x").read_bytes() == b"theirs"
    with pytest.raises(ZeroDivisionError):
        files.write_folder(tmp_path, lambda _: 1 // 0, lambda: "never")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free", "taken"]
    files.remove_folder(final)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_only_what_the_dead_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = f"{files.TEMPORARY}{int(gone.stdout)}-aa"
    (tmp_path / dead).mkdir()
    (tmp_path / f"{dead}-file").touch()
    mine = tmp_path / f"{files.TEMPORARY}{os.getpid()}-bb"
    mine.touch()
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize("way", ["folder in its place", "folder that takes no files", "full disk"])
def test_what_cannot_be_written_is_called_by_its_own_name(tmp_path: Path, monkeypatch, way: str) -> None:
    path = tmp_path / "report.json"
    if way == "folder in its place":
        path.mkdir()
    elif way == "folder that takes no files":

        def refused(self: Path, *_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", refused)
    else:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match=r"report\.json") as error:
        files.write_whole(path, b"{}")
    assert error.value.filename == str(path)
    assert ".tmp-" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ([path.name] if way == "folder in its place" else [])


_ALONE = """
import errno, sys
from pathlib import Path
from xaicli import locks
def refused(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
if sys.argv[2] != "flock":
    locks.fcntl.flock = refused
if sys.argv[2] == "neither":
    locks.fcntl.lockf = locks.fcntl.fcntl = refused
with locks.alone_at(Path(sys.argv[1])) as is_alone:
    print(is_alone, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["flock", "lockf", "neither"])
def test_one_process_is_alone_at_something_with_either_kind_of_lock_and_without(tmp_path: Path, kind: str) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _ALONE, str(tmp_path / "lock"), kind]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    first, second = start(), None
    try:
        assert answer(first) == "True"
        second = start()
        assert answer(second) == "False"
        second.communicate("\n", timeout=60)
        first.kill()
        first.wait()
        second = start()
        assert answer(second) == "True"
        second.communicate("\n", timeout=60)
        second = start()
        assert answer(second) == "True"
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()
