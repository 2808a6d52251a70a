"""The attempt a process belongs to: found without coordination, known to be alive, and what it takes back.

An attempt is one start of the training, by one process or by many ranks. Which one a process belongs to is settled when
its first row comes, since many scripts open the run before the process group. Its number is a file that is created
exclusively, as is each rank's file of counters in it, so processes that start at once agree; two that think they are
the same rank become two attempts.

A process holds a lock in `wal/` for as long as it lives. An attempt that begins while another is alive is one more rank
of the same recording, written down as `beside`: it takes nothing back.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError, XaiError
from xaicli.files import claim_name, make_folder, with_check, write_whole
from xaicli.layout import RunLayout, facts_of, facts_to_write_over
from xaicli.locks import boot_id, fcntl, hold, is_held, start_time
from xaicli.manifest import Attempt, TakesBack
from xaicli.recorder.ledger import claim_counters

RESUME = ("allow", "never", "must")
MOST_RANKS = 2**15
_LAUNCH_VARIABLES = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID",
                     "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "PMIX_NAMESPACE")  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """What a process has found itself to be.

    Attributes:
        attempt: The number of its attempt.
        rank: Its rank in it.
        beside: The attempts that were alive when this one began.
    """

    attempt: int
    rank: int
    beside: tuple[int, ...] = ()


def find_rank(given: int | None) -> int:
    """The process's rank: the caller's, the process group's, `RANK`, or 0; negative ones mean "not distributed"."""
    if given is not None and given >= 0:
        return given
    group = _process_group()
    found = int(group.get_rank()) if group else _number("RANK", 0)
    return max(0, found)


def find_world_size() -> int:
    """How many ranks there are, as far as one can tell."""
    group = _process_group()
    return max(1, int(group.get_world_size()) if group else _number("WORLD_SIZE", 1))


def _process_group() -> Any:
    torch = sys.modules.get("torch")
    group = getattr(torch, "distributed", None)
    return group if group is not None and group.is_available() and group.is_initialized() else None


def _number(variable: str, default: int) -> int:
    try:
        return int(os.environ.get(variable) or default)
    except ValueError:
        return default


def odd_variables(rank: int | None) -> list[str]:
    """What the environment says of this process that is no number, and what it is taken for instead, a line each."""
    if _process_group():
        return []
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    if rank is not None and rank >= 0:
        given.pop("RANK")
    meant = {"RANK": "this process is taken for rank 0", "WORLD_SIZE": "it is taken for 1"}
    return [
        f"{name}={text!r} is no whole number: {meant[name]}"
        for name, text in given.items()
        if text and _number(name, 0) != _number(name, 1)
    ]


def check_resume(layout: RunLayout, rank: int | None, resume: str) -> None:
    """Refuse to open a run that must not be there, or that must; nothing of it is changed.

    Raises:
        UsageError: `resume` is no such word, or `rank` no such number.
        XaiError: The run exists and must not, or the other way round.
    """
    if resume not in RESUME:
        raise UsageError(f"resume={resume!r} is none of the choices", hint="choices: " + ", ".join(RESUME))
    if rank is not None and rank >= MOST_RANKS:
        raise UsageError(f"rank={rank} is beyond 16 bits", hint=f"ranks are 0 to {MOST_RANKS - 1}")
    if resume == "must" and not layout.is_run():
        raise XaiError(f"{layout.root} holds no run to resume", hint='begin one with resume="allow"')
    if layout.root.exists() and not layout.root.is_dir():
        raise XaiError(f"{layout.root} is a file", hint="name a folder to record into, a new one or that of a run")
    last = max(_numbers(layout), default=None)
    if resume == "never" and last is not None:
        ours = _launch_of(layout, last) == launch_key() and is_live(layout, last)
        if not ours or stats_file(layout, last, find_rank(rank)).exists():
            raise XaiError(f"{layout.root} holds a run already", hint='continue it with resume="allow"')


def claim(layout: RunLayout, rank: int, takes_back: TakesBack | None = None, total_epochs: int = 0) -> Claim:
    """Settle which attempt and rank this process is, and hold its lock.

    A process joins the last attempt if the same launch began it and its rank is still unclaimed there; else it begins
    the next one, beside those that are alive.

    Args:
        layout: The run.
        rank: The process's rank.
        takes_back: What the attempt takes back, where restored state or the caller says so.
        total_epochs: For how many epochs the training is meant, as far as is known; 0 where that is open.

    Raises:
        OSError: The files cannot be written.
    """
    make_folder(layout.attempts)
    launch, world_size = launch_key(), find_world_size()
    with locked(layout):
        while True:
            last = max(_numbers(layout), default=None)
            facts = _facts_of(layout, last) if last is not None else {}
            if last is not None and (facts.get("launch"), facts.get("world_size")) == (launch, world_size):
                claimed = claim_counters(stats_file(layout, last, rank))
                if claimed:
                    hold(lock_path(layout, last, rank))
                    if takes_back:
                        note(layout, last, takes_back_from=asdict(takes_back))
                    return Claim(last, rank)
            number = 0 if last is None else last + 1
            beside = tuple(n for n in _numbers(layout) if is_live(layout, n))
            if _begin(layout, number, launch, world_size, beside, takes_back, total_epochs) and claim_counters(
                stats_file(layout, number, rank)
            ):
                hold(lock_path(layout, number, rank))
                return Claim(number, rank, beside)


def claim_again(layout: RunLayout, claim: Claim) -> bool:
    """Hold the lock of an attempt that this process has ended once more; False where another has begun since.

    Raises:
        OSError: The run directory is gone, or cannot be written.
    """
    with locked(layout):
        is_last = max(_numbers(layout), default=None) == claim.attempt
        if is_last and stats_file(layout, claim.attempt, claim.rank).exists():
            hold(lock_path(layout, claim.attempt, claim.rank))
            return True
        return False


def launch_key() -> str:
    """What the ranks of one start share and other starts do not have."""
    facts = [os.environ.get(name, "") for name in _LAUNCH_VARIABLES]
    world, local = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")
    by_srun = bool(os.environ.get("SLURM_STEP_ID")) and _number("SLURM_NTASKS", 1) > 1
    if (world is None or world == local) and not by_srun and not os.environ.get("PMIX_NAMESPACE"):
        # All ranks are children of one process of this host.
        facts += [socket.gethostname(), boot_id(), str(os.getppid()), start_time(os.getppid())]
    return sha256("\0".join(facts).encode()).hexdigest()[:16]


def _begin(
    layout: RunLayout,
    attempt: int,
    launch: str,
    world_size: int,
    beside: tuple[int, ...],
    takes_back: TakesBack | None,
    total_epochs: int,
) -> bool:
    """Make the attempt's file, in one write; False where another process was first."""
    facts = Attempt(
        attempt,
        resumed_from_step=takes_back.step if takes_back else None,
        world_size=world_size,
        host=socket.gethostname(),
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        takes_back_from=asdict(takes_back) if takes_back else None,
        beside=beside,
        total_epochs=total_epochs,
    )
    text = with_check(json.dumps({**asdict(facts), "launch": launch}))
    return claim_name(layout.attempt_file(attempt), text.encode())


def _numbers(layout: RunLayout) -> list[int]:
    """The attempts that have a file, whatever is in it."""
    return sorted(int(path.stem) for path in layout.attempts.glob("*.json") if path.stem.isdigit())


def _launch_of(layout: RunLayout, attempt: int) -> str | None:
    return _facts_of(layout, attempt).get("launch")


def _facts_of(layout: RunLayout, attempt: int) -> dict[str, Any]:
    try:
        return facts_of(layout.attempt_file(attempt))
    except (OSError, ValueError):
        return {}


def note(layout: RunLayout, attempt: int, **facts: Any) -> None:
    """Keep facts in an attempt's file.

    Raises:
        OSError: It cannot be written.
    """
    with locked(layout):
        path = layout.attempt_file(attempt)
        known = facts_to_write_over(path)
        write_whole(path, with_check(json.dumps(known | facts)).encode(), durable=True)


def note_first_step(layout: RunLayout, attempt: int, step: int) -> None:
    """Keep the first training step an attempt logged, unless it is known already.

    Raises:
        OSError: It cannot be written.
    """
    with locked(layout):
        known = _facts_of(layout, attempt).get("resumed_from_step")
        if known is None:
            note(layout, attempt, resumed_from_step=step)


def stats_file(layout: RunLayout, attempt: int, rank: int) -> Path:
    """Where a process keeps its counters."""
    return layout.attempts / f"{attempt:06d}-r{rank:04d}.stats"


_locking: dict[Path, int] = {}


@contextlib.contextmanager
def locked(layout: RunLayout) -> Iterator[None]:
    """Hold the run's lock while a shared file is read and written again; without one where the file system has none.

    Within one `with` block of a thread it may be entered again.
    """
    import threading

    key = layout.attempts / f".lock {threading.get_ident()}"
    if key in _locking:
        yield
        return
    descriptor = os.open(layout.attempts / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _locking[key] = descriptor
        yield
    finally:
        _locking.pop(key, None)
        os.close(descriptor)


def lock_path(layout: RunLayout, attempt: int, rank: int) -> Path:
    """The lock that says a process records: as rank of an attempt."""
    return layout.wal / f"a{attempt:06d}-r{rank:04d}.lock"


def is_live(layout: RunLayout, attempt: int) -> bool:
    """Whether any rank of an attempt is still being recorded."""
    return any(is_held(path) for path in layout.wal.glob(f"a{attempt:06d}-r*.lock"))
