"""Follow a training: put each finished file of its run into an object store, in the background.

Training writes to a local folder and never waits for the network. What a store did not take is tried again; what is
left when the process ends is said, and `xai sync` finishes it.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path

from xaicli.errors import XaiError
from xaicli.store.objects import Entry, Store, local_files, mirror_folder

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
        wait = float(os.environ.get("XAI_UPLOAD_WAIT", _WAIT_AT_EXIT)) if timeout is None else timeout
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


def _state(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (facts.st_size, facts.st_mtime_ns)
