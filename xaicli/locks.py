"""Locks that say a process lives: held for as long as it does, however it ends.

A process of this host is known by its lock, one of another host by its lock where the file system shows it, or else by
having touched the file lately. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import socket
import struct
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError
from xaicli.files import claim_name

fcntl: Any
try:
    import fcntl
except ModuleNotFoundError:  # Windows has none: what reads does without locks
    fcntl = None

BEAT_SECONDS = 15.0
"""How often a living process touches its lock, for hosts that do not see locks."""
_STALE_SECONDS = 60.0
_TRIES = 100
_LOCK_QUERY = "hhqqi" if sys.platform.startswith("linux") else "qqihh"

_held: dict[tuple[int, int], int] = {}
"""The locks this process holds: {(device, inode) of the lock file: descriptor}.

POSIX locks do not exclude the process that has them, and are lost when it closes any descriptor of the file, so a file
in here is never opened a second time.
"""


def need_locks(doing: str = "recording") -> None:
    """
    Args:
        doing: What needs them.

    Raises:
        XaiError: The system has no locks that end with their process.
    """
    if fcntl is None:
        raise XaiError(
            f"{doing} needs Linux or macOS, not {sys.platform}",
            hint="what reads runs works here; on Windows, write them in WSL or a container",
        )


def boot_id() -> str:
    """What tells one boot of this host from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """When a process of this host began, by its kernel; "" where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def hold(lock: Path) -> None:
    """Hold a lock for as long as this process lives, however it ends; best effort where a disk refuses.

    The lock is not inherited by forks, so a DataLoader worker that outlives its parent does not keep it. Who holds it
    is written into the file, for file systems without locks.
    """
    facts = _own_facts()
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                fcntl.lockf(descriptor, fcntl.LOCK_EX)
            if not _is_the_file(descriptor, lock):  # whoever tidies up took it for that of a dead process
                os.close(descriptor)
                continue
            _held[_identity(os.fstat(descriptor))] = descriptor
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(facts).encode(), 0)
            return


def _own_facts() -> dict[str, Any]:
    """What tells this process from all others."""
    return {"host": socket.gethostname(), "boot_id": boot_id(), "pid": os.getpid(), "start": start_time(os.getpid())}


def remove_dead(lock: Path) -> None:
    """Remove a lock that nobody holds; one that a process has just made, and is about to hold, it makes again."""
    if is_held(lock):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _holder(descriptor) in (None, _NO_LOCKS) and _is_the_file(descriptor, lock):
                lock.unlink()
        finally:
            os.close(descriptor)


def _is_the_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one that has the name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def beat(lock: Path) -> None:
    """Say that the process lives, to hosts that do not see its lock."""
    if (descriptor := _mine(lock)) is not None:
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def release(lock: Path) -> None:
    """Give a lock back and remove its file; one whose file is gone is held until the process ends."""
    if (descriptor := _mine(lock)) is not None:
        del _held[_identity(os.fstat(descriptor))]
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _mine(lock: Path) -> int | None:
    """The descriptor by which this process holds a lock, by whatever path it is named."""
    try:
        return _held.get(_identity(lock.stat()))
    except OSError:
        return None


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def is_held(lock: Path) -> bool:
    """Whether the process that made a lock lives, on this host or another one.

    A process of this host is known by its lock, or by its number where the file system has no locks. One of another
    host is known by its lock where that is seen here, or else by having touched it lately. One that is gone may have
    ended in order just now: whoever says that it died looks at what it left once it is known to be gone.
    """
    if _mine(lock) is not None:
        return True
    try:
        with lock.open("rb") as file:
            holder, text, touched = _holder(file.fileno()), file.read(), os.fstat(file.fileno()).st_mtime
        facts = json.loads(text) if text else {}
    except OSError:
        return False
    except ValueError:
        facts = {}
    if (facts.get("host"), facts.get("boot_id")) == (socket.gethostname(), boot_id()):
        if holder == _NO_LOCKS:
            return bool(facts["start"]) and start_time(facts["pid"]) == facts["start"]
        return holder in (0, facts["pid"])
    seen = holder not in (None, _NO_LOCKS)
    return seen or (bool(facts) and _now_there(lock) - touched < _STALE_SECONDS)


_NO_LOCKS = -1


def _holder(descriptor: int) -> int | None:
    """The process that holds a lock; None where none does, `_NO_LOCKS` where the file system has none."""
    if fcntl is None:
        return _NO_LOCKS
    linux = _LOCK_QUERY.startswith("h")
    whole_file = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    try:
        answer = struct.unpack(
            _LOCK_QUERY, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_LOCK_QUERY, *whole_file))
        )
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            return _NO_LOCKS
        raise
    kind, pid = (answer[0], answer[4]) if linux else (answer[3], answer[2])
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def _now_there(lock: Path) -> float:
    """The time by the clock that stamps the lock's folder, which may be another host's."""
    probe = lock.with_name(f".clock-{os.getpid()}")
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return time.time()


_READ_TRIES = 50
_READ_PAUSE = 0.02


_readings: weakref.WeakSet[Reading] = weakref.WeakSet()
"""What this process says so of; garbage among them, until it is collected."""


class Reading:
    """Says for as long as it is held that a process reads the files of a folder by the names it has listed.

    A shared lock on the folder itself, which needs no right to write and goes with the process however it ends.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: The folder; where it is missing, or its file system has no such locks, nothing is said.
        """
        self._descriptor: int | None = None
        if fcntl is None:
            return
        _readings.add(self)
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._descriptor = descriptor
            for _ in range(_READ_TRIES):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # files are being removed, which is done in a moment
                    time.sleep(_READ_PAUSE)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@contextlib.contextmanager
def alone_at(path: Path) -> Iterator[bool]:
    """Whether nobody else is at what a file stands for; the file is made where it is missing.

    On a file system without locks whoever is at it is named in a file beside, which counts for as long as it lives.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        is_locked = _lock_now(descriptor)
        if is_locked is None:
            with _named_at(path.with_name(f"{path.name}.holder")) as is_named:
                yield is_named
        else:
            yield is_locked
    finally:
        os.close(descriptor)


def _lock_now(descriptor: int) -> bool | None:
    """Whether a file could be locked, by either kind of lock; None where the file system has none."""
    for lock in (fcntl.flock, fcntl.lockf):
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
        else:
            return True
    return None


@contextlib.contextmanager
def _named_at(holder: Path) -> Iterator[bool]:
    """Whether a file that names this process could be made: no other living one has."""
    while not claim_name(holder, json.dumps(_own_facts()).encode()):
        with contextlib.suppress(FileNotFoundError):
            facts = holder.stat()
            is_new = not facts.st_size and _now_there(holder) - facts.st_mtime < _STALE_SECONDS
            if is_new or is_held(holder):
                yield False
                return
            holder.unlink()
    try:
        yield True
    finally:
        holder.unlink(missing_ok=True)


@contextlib.contextmanager
def unread(folder: Path, seconds: float) -> Iterator[bool]:
    """Whether nobody reads a folder's files by names listed before; nobody begins to while the block lasts.

    Args:
        folder: The folder.
        seconds: How long readers are waited for.
    """
    if fcntl is None:
        yield False
        return
    deadline = time.monotonic() + seconds
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    is_collected = not _readings
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not is_collected:  # a reader that this process has let go may hold the lock still
                    is_collected = True
                    gc.collect()
                    continue
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(_READ_PAUSE)
            except OSError:  # a file system without such locks tells of no reader
                yield False
                return
            else:
                yield True
                return
    finally:
        os.close(descriptor)


def forget_held() -> None:
    """Called in a fork: the locks are the parent's."""
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_held)
