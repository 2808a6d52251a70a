"""How a run directory is opened: which attempt a process belongs to, agreed on without coordination."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.manifest import Attempt, Manifest
from xaicli.parquet import make_folder, write_bytes

RESUME = ("allow", "never", "must")
_LAUNCH_VARIABLES = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID",
                     "SLURM_STEP_ID", "SLURM_RESTART_COUNT")  # fmt: skip


def find_rank(given: int | None) -> int:
    """The process's rank: the caller's, the process group's, `RANK`, or 0."""
    if given is not None:
        return given
    group = _process_group()
    return int(group.get_rank()) if group else int(os.environ.get("RANK") or 0)


def find_world_size() -> int:
    """How many ranks there are, as far as one can tell."""
    group = _process_group()
    return int(group.get_world_size()) if group else int(os.environ.get("WORLD_SIZE") or 1)


def _process_group() -> Any:
    torch = sys.modules.get("torch")
    group = getattr(torch, "distributed", None)
    return group if group is not None and group.is_available() and group.is_initialized() else None


def claim_attempt(layout: RunLayout, rank: int, *, resume: str) -> int:
    """The attempt this process belongs to.

    A process joins the last attempt if the same launch began it and its rank is still unclaimed there; else it begins
    the next one. Both steps are exclusive creations of a file, so ranks that start at once agree.

    Raises:
        UsageError: `resume` is no such word.
        XaiError: The run exists and must not, or the other way round.
    """
    if resume not in RESUME:
        raise UsageError(f"resume={resume!r} is none of the choices", hint="choices: " + ", ".join(RESUME))
    if resume == "must" and not layout.is_run():
        raise XaiError(f"{layout.root} holds no run to resume", hint='begin one with resume="allow"')
    if layout.root.exists() and not layout.root.is_dir():
        raise XaiError(f"{layout.root} is a file", hint="name a folder to record into, a new one or that of a run")
    make_folder(layout.attempts)
    launch = launch_key()
    while True:
        last = max((a.attempt for a in layout.read_attempts()), default=None)
        if last is not None and _launch_of(layout, last) == launch and _claim(layout, last, rank):
            return last
        if resume == "never" and last is not None:
            raise XaiError(f"{layout.root} holds a run already", hint='continue it with resume="allow"')
        _begin(layout, 0 if last is None else last + 1, launch)


def launch_key() -> str:
    """What the ranks of one start share and other starts do not have."""
    facts = [os.environ.get(name, "") for name in _LAUNCH_VARIABLES]
    world, local = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")
    if world is None or world == local:
        # All ranks are children of one process of this host.
        facts += [socket.gethostname(), boot_id(), str(os.getppid()), _start_time(os.getppid())]
    return sha256("\0".join(facts).encode()).hexdigest()[:16]


def boot_id() -> str:
    """What tells one boot of this host from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _begin(layout: RunLayout, attempt: int, launch: str) -> None:
    """Make the attempt's file, complete at once; another rank may have been first."""
    facts = Attempt(
        attempt,
        world_size=find_world_size(),
        host=socket.gethostname(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    temporary = layout.attempts / f".{attempt:06d}.{uuid.uuid4().hex}.tmp"
    temporary.write_text(json.dumps({**asdict(facts), "launch": launch}))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, layout.attempt_file(attempt))
    finally:
        temporary.unlink()


def _claim(layout: RunLayout, attempt: int, rank: int) -> bool:
    try:
        os.close(os.open(stats_file(layout, attempt, rank), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except FileExistsError:
        return False
    return True


def _launch_of(layout: RunLayout, attempt: int) -> str | None:
    try:
        return json.loads(layout.attempt_file(attempt).read_text()).get("launch")  # type: ignore[no-any-return]
    except (OSError, ValueError, AttributeError):
        return None


def stats_file(layout: RunLayout, attempt: int, rank: int) -> Path:
    """Where a process keeps its counters."""
    return layout.attempts / f"{attempt:06d}-r{rank:04d}.stats"


@contextlib.contextmanager
def locked(layout: RunLayout) -> Iterator[None]:
    """Hold the run's lock while a shared file is read and written again; without one where the file system has none."""
    descriptor = os.open(layout.attempts / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_manifest(layout: RunLayout, fresh: Manifest) -> Manifest:
    """The run's manifest: the one that is there, or a new one.

    Raises:
        XaiError: What is there is no manifest, or of a newer format.
    """
    with locked(layout):
        if not layout.is_run():
            write_bytes(fresh.to_json().encode(), layout.manifest)
            return fresh
        known = layout.read_manifest()
        merged = replace(
            known,
            name=fresh.name or known.name,
            label_names=fresh.label_names or known.label_names,
            config={**known.config, **fresh.config},
            environment=fresh.environment or known.environment,
        )
        if merged != known:
            write_bytes(merged.to_json().encode(), layout.manifest)
        return merged
