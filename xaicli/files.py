"""Files that are there complete, or not at all: written beside, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_NO_SUCH_CALL = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR}
TEMPORARY = ".tmp-"
"""How the name of an unfinished file begins; the number of the process that writes it follows."""


@contextmanager
def appearing(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file open for writing that has its name once the block has ended well.

    A link in its place is replaced, never followed.

    Args:
        path: The file; its folder is made where there is none.
        durable: Survive power loss when the block has ended.

    Raises:
        OSError: It cannot be written; what was there before is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}")
    try:
        with temporary.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_whole(path: Path, content: bytes, *, durable: bool = False) -> Path:
    """Write a file as `appearing` does.

    Args:
        path: The file.
        content: All it is to hold.
        durable: Survive power loss when this returns.

    Returns:
        `path`.
    """
    with appearing(path, durable=durable) as file:
        file.write(content)
    return path


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk; a file system that cannot sync folders is left as it is.

    Raises:
        OSError: The disk fails.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)
