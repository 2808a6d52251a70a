"""Files that appear complete under their names or not at all, also after power loss."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from xaicli import files


def reached(point: str) -> None:
    """A named point on the way of a file to the disk. Does nothing; a test puts a kill or a fault in its place."""
    del point


def write_bytes(content: bytes | memoryview, path: Path) -> None:
    """Make a file appear complete under its name.

    Raises:
        OSError: It cannot be written.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            reached("opened")
            write_all(descriptor, content)
            reached("written")
            os.fsync(descriptor)
            reached("synced")
        finally:
            os.close(descriptor)
        temporary.rename(path)
        reached("renamed")
        sync_folder(path.parent)
        reached("folder synced")
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write every byte, whatever the size of the single writes."""
    view = memoryview(content).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each durable in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a file system that cannot sync folders is left as it is."""
    files.sync_folder(folder)
