"""Folders that appear only complete, and what an interrupted one leaves behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xaicli.files import TEMPORARY


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """An empty folder to fill and rename; removed if it is still there at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove the temporary files and folders of processes that are gone."""
    for entry in parent.glob(f"{TEMPORARY}*"):
        owner = entry.name.removeprefix(TEMPORARY).split("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file's bytes on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
