"""Where segments live: files really allocated on the disk and mapped into memory, or plain memory where that fails."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path

from xaicli.files import make_folder
from xaicli.layout import RunLayout
from xaicli.recorder.segment import SEGMENT_BYTES, Segment
from xaicli.wal.frames import HEADER_BYTES

SEGMENTS = 3
_PAGE = mmap.PAGESIZE
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "fuse",
    "ceph",
    "gpfs",
    "beegfs",
    "9p",
    "afs",
    "glusterfs",
    "orangefs",
    "virtiofs",
)
"""File systems on which a mapped file is slow, or not what other hosts see."""


def segment_path(layout: RunLayout, attempt: int, rank: int, number: int) -> Path:
    """Where a rank's segment lies."""
    return layout.wal / f"a{attempt:06d}-r{rank:04d}-{number}.seg"


def file_segment(path: Path, size: int = 0) -> Segment:
    """A segment whose rows survive the process.

    Every page is allocated before the first row: a file that is merely long would end the training with SIGBUS when the
    disk fills.

    Raises:
        OSError: There is no room, or the file system cannot do this.
    """
    size = size or SEGMENT_BYTES
    make_folder(path.parent)
    if kind := remote_file_system(path.parent):
        raise OSError(errno.ENOTSUP, f"a {kind} file system cannot hold write-ahead segments", str(path))
    total = -(-(HEADER_BYTES + size) // _PAGE) * _PAGE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, total)
        memory = mmap.mmap(descriptor, total)
        memory[::_PAGE] = bytes(total // _PAGE)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)
    return Segment(memory, path=path)


def memory_segment(size: int = SEGMENT_BYTES) -> Segment:
    """A segment that is lost with the process."""
    return Segment(bytearray(HEADER_BYTES + size))


def remote_file_system(folder: Path) -> str:
    """The type of the file system a folder is on if it is one of `_REMOTE`, else ""."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    best, found = 0, ""
    for line in lines:
        fields = line.split()
        mount = Path(fields[4].replace("\\040", " "))
        if (real == mount or mount in real.parents) and len(mount.parts) >= best:
            best, found = len(mount.parts), fields[fields.index("-") + 1]
    return found if found.startswith(_REMOTE) else ""
