"""Runs in an object store: what the other side lacks travels, at once or, behind a training, from a thread.

A training writes to a local folder and never waits for the network. What a store did not take is tried again; what is
left when the process ends is said, and `xai sync` finishes it.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xaicli.errors import XaiError, leaving
from xaicli.locks import is_held
from xaicli.store.objects import Entry, Store, local_files, mirror_folder, missing_in

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Synced:
    """What one synchronisation did.

    Attributes:
        sent: Keys of the files that travelled.
        bytes: Their size together.
        present: How many files were there already.
    """

    sent: tuple[str, ...]
    bytes: int
    present: int


def push(root: Path, store: Store, *, progress: Progress | None = None) -> Synced:
    """Put every finished file of a run that the store does not have.

    The manifest goes last, so that a reader of the store never finds a run whose files are still to come.

    Args:
        root: The run directory.
        store: Where to.
        progress: Called with (files done, files).

    Raises:
        XaiError: The store cannot be reached, or holds another run's file under the same name.
    """
    there = store.entries()
    here = list(local_files(root))
    wanted = missing_in(there, here)
    changed = {entry.key for entry in wanted}
    wanted += [e for e in here if not e.immutable and e.key not in changed and store.differs(root, e)]
    wanted.sort(key=_manifest_last)
    sent: list[Entry] = []
    with leaving(lambda: _left(len(sent), len(wanted))):
        for done, entry in enumerate(wanted):
            if progress:
                progress(done, len(wanted))
            if store.put(root, entry):
                sent.append(entry)
    return _synced(sent, len(here))


def pull(store: Store, root: Path, *, progress: Progress | None = None) -> Synced:
    """Fetch every file of a run in a store that is not here; nothing into a folder that is being recorded to.

    Args:
        store: Where from.
        root: The run directory, made if need be.
        progress: Called with (files done, files).

    Raises:
        XaiError: The store cannot be reached.
    """
    if any(is_held(lock) for lock in (root / "wal").glob("*.lock")):
        return _synced([], 0)  # it is being recorded here: what the store has is older
    there = store.entries()
    here = {entry.key: entry for entry in local_files(root)}
    wanted = missing_in(here, there.values())
    fetched = {entry.key for entry in wanted}
    wanted += [e for e in there.values() if not e.immutable and e.key not in fetched and store.differs(root, e)]
    wanted.sort(key=_manifest_last)
    done = 0
    with leaving(lambda: _left(done, len(wanted))):
        for done, entry in enumerate(wanted):
            if progress:
                progress(done, len(wanted))
            store.fetch(entry, root)
    return _synced(wanted, len(there))


def _left(done: int, total: int) -> str:
    """What an interrupted synchronisation leaves: each file is whole or not there."""
    return f"{done:,} of {total:,} files went over, each whole; the same call sends the others"


def _manifest_last(entry: Entry) -> tuple[bool, str]:
    return entry.key == "xai.json", entry.key


def _synced(travelled: list[Entry], total: int) -> Synced:
    size = sum(entry.size for entry in travelled)
    return Synced(tuple(entry.key for entry in travelled), size, total - len(travelled))


_INTERVAL = 10.0
_WAIT_AT_EXIT = 30.0
_CONTINUED = ("attempts/", "state/")


class Uploader:
    """Uploads a run's files from a thread of its own.

    Args:
        url: The run's address.
        interval: Seconds between two looks at the folder.
    """

    def __init__(self, url: str, *, interval: float = _INTERVAL) -> None:
        self.url = url
        self.root = mirror_folder(url)
        self._store = Store(url)
        self._interval = interval
        self._sent: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._deadline = 0.0
        self._fault: XaiError | None = None
        self._thread = threading.Thread(target=self._follow, name="xai-upload", daemon=True)

    def start(self) -> None:
        """Fetch what continuing the run needs - its manifest, attempts and states - and begin to follow.

        A store that cannot be reached is warned about: the training goes on with the local folder alone.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            for entry in self._store.entries().values():
                wanted = entry.key == "xai.json" or entry.key.startswith(_CONTINUED)
                if wanted and not (self.root / entry.key).exists():
                    self._store.fetch(entry, self.root)
                if entry.immutable:
                    self._sent[entry.key] = (entry.size, -1)
        except XaiError as error:
            warnings.warn(f"{error.message}; recording to {self.root} alone for now", stacklevel=3)
        self._thread.start()

    def left(self) -> list[str]:
        """Keys of the finished files the store does not have yet."""
        return [entry.key for entry in local_files(self.root) if self._is_due(entry)]

    def close(self, timeout: float | None = None) -> list[str]:
        """Send the rest, for a bounded time.

        Args:
            timeout: Seconds at most; `$XAI_UPLOAD_WAIT` or 30 when None.

        Returns:
            Keys of the files that could not be sent in time; a warning names their number and how to finish.
        """
        wait = _wait_at_exit() if timeout is None else timeout
        self._deadline = time.monotonic() + wait
        self._stop.set()
        self._thread.join(wait)
        left = self.left()
        if left:
            reason = f" ({self._fault.message})" if self._fault else ""
            warnings.warn(
                f"{len(left)} files are not yet in {self.url}{reason}; finish with: xai sync {self.root} {self.url}",
                stacklevel=3,
            )
        return left

    def _follow(self) -> None:
        while not self._stop.wait(self._interval):
            self._send()
        while not self._send() and time.monotonic() < self._deadline:
            time.sleep(0.5)

    def _send(self) -> bool:
        """Send what is due; whether all of it went."""
        due = [entry for entry in local_files(self.root) if self._is_due(entry)]
        for entry in sorted(due, key=lambda entry: entry.key == "xai.json"):
            state = _state(self.root / entry.key)
            try:
                self._store.put(self.root, entry)
            except XaiError as error:
                self._fault = error
                return False
            self._sent[entry.key] = state
        return True

    def _is_due(self, entry: Entry) -> bool:
        sent = self._sent.get(entry.key)
        if sent is None:
            return True
        return not entry.immutable and sent != _state(self.root / entry.key)


def _wait_at_exit() -> float:
    """How many seconds the end of a process waits for uploads: the environment's, where that is a number."""
    text = os.environ.get("XAI_UPLOAD_WAIT", "").strip()
    try:
        wait = float(text or _WAIT_AT_EXIT)
        if 0 <= wait <= threading.TIMEOUT_MAX:
            return wait
    except ValueError:
        pass
    warnings.warn(
        f"XAI_UPLOAD_WAIT={text!r} is no number of seconds such as 60: {_WAIT_AT_EXIT:g} is taken", stacklevel=4
    )
    return _WAIT_AT_EXIT


def _state(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (facts.st_size, facts.st_mtime_ns)
