"""Runs in an object store: what the other side lacks travels, at once or, behind a training, from a thread.

A training writes to a local folder and never waits for the network. What a store did not take is tried again; what is
left when the process ends is said, and `xai sync` finishes it.

A run at an address is read through a mirror, which is also where a training that has an address records. So a mirror
keeps a list of what its address was seen to hold, and by which mark: what is gone there goes here, what has another
mark is fetched anew, and a file that was never there is nobody's to remove.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xaicli.errors import XaiError, leaving
from xaicli.files import move, write_whole
from xaicli.locks import is_held
from xaicli.store.objects import Entry, Store, local_files, mirror_folder, missing_in, travels, without_credentials

Progress = Callable[[int, int], None]
_MANIFEST = "xai.json"


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
        XaiError: The store cannot be reached, or holds another run.
    """
    there = store.entries()
    _need_one_run(store, there, root, "sync to another address")
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

    Nothing is removed: the folder is the user's.

    Args:
        store: Where from.
        root: The run directory, made if need be.
        progress: Called with (files done, files).

    Raises:
        XaiError: The store cannot be reached, or holds another run than the folder.
    """
    if _is_recorded(root):
        return _synced([], 0)  # what the store has is older
    there = store.entries()
    _need_one_run(store, there, root, "pull into another folder")
    here = {entry.key: entry for entry in local_files(root)}
    wanted = missing_in(here, there.values())
    fetched = {entry.key for entry in wanted}
    wanted += [e for e in there.values() if not e.immutable and e.key not in fetched and store.differs(root, e)]
    _fetch(store, wanted, root, progress)
    return _synced(wanted, len(there))


def mirror(store: Store, root: Path) -> None:
    """Make a mirror hold what its address holds now, with one list of the address and one request a changed file.

    Nothing is touched while it is being recorded to. New files come before those that are gone there go, as when a run
    is compacted under its readers. Where another run, or none, has taken the place of the one that was mirrored, all of
    its files go at once, or are set aside with a warning where the address never held some of them.

    Args:
        store: The address.
        root: The mirror, made if need be.

    Raises:
        XaiError: The store cannot be reached.
    """
    if _is_recorded(root):
        return  # what the store has is older
    known, there = _looked_at(store, root)
    there = {key: entry for key, entry in there.items() if travels(key)}
    is_whole = (root / _MANIFEST).is_file()
    wanted = [entry for entry in there.values() if not _is_mirrored(root, entry, known.get(entry.key, ""), is_whole)]
    marks = {key: entry.mark for key, entry in there.items()}
    if wanted:
        # An interrupted call leaves some as they were: no mark is theirs.
        _note(root, marks | {entry.key: _NO_MARK for entry in wanted if (root / entry.key).exists()})
        _fetch(store, wanted, root, None)
    gone = _drop(root, known, there)
    if wanted or gone or marks != known:
        _note(root, marks, gone)


_NO_MARK = "-"


def _is_mirrored(root: Path, entry: Entry, mark: str, is_whole: bool) -> bool:
    """Whether a mirror has a file as the address has it now.

    Args:
        root: The mirror.
        entry: The file at the address.
        mark: By which it was seen there; "" for one that was recorded here, or before marks were noted.
        is_whole: Whether the mirror holds a run, which is that of the address.
    """
    if entry.key.startswith("wal/"):
        return False  # a segment is written where it lies
    try:
        if (root / entry.key).stat().st_size != entry.size:
            return False
    except OSError:
        return False
    return mark == entry.mark or (not mark and entry.immutable and is_whole)


def _looked_at(store: Store, root: Path) -> tuple[dict[str, str], dict[str, Entry]]:
    """What an address was seen to hold, and what it holds; a run in the mirror that it holds no more is gone then."""
    # In this order: what somebody else fetches meanwhile is not taken for gone.
    known = _marks(root)
    there = store.entries()
    now = there.get(_MANIFEST)
    here = _run_id(_text_here(root))
    if now is None:
        is_other = _MANIFEST in known
    else:
        is_other = bool(here) and now.mark != known.get(_MANIFEST) and _run_id(store.read(_MANIFEST)) not in ("", here)
    if is_other and _run_id(_text_here(root)) == here:  # and nobody else has seen to it meanwhile
        _make_way(root, known, store.url, here)
        known = {}
    return known, there


def _make_way(root: Path, known: Mapping[str, str], url: str, run_id: str) -> None:
    """Take a run out of a mirror, all at once: readers find it whole or gone. Reports stay; so does what never left."""
    own = [entry.key for entry in local_files(root) if entry.key not in known]
    own += [f"wal/{path.name}" for path in (root / "wal").glob("*") if path.suffix != ".lock"]
    own = [key for key in own if key not in known]
    aside = _free(root.with_name(f"{root.name}-{run_id or 'gone'}"))
    try:
        move(root, aside)
    except FileNotFoundError:  # somebody else has
        return
    if own:
        warnings.warn(
            f"{without_credentials(url)} does not hold run {run_id} any more; {len(own):,} of its files were not seen "
            f"there, and it is kept in {aside}",
            stacklevel=5,
        )
        return
    with contextlib.suppress(OSError):
        root.mkdir()
        move(aside / "reports", root / "reports")
    shutil.rmtree(aside, ignore_errors=True)


def _free(folder: Path) -> Path:
    """A folder that is not there yet, called so or so with a number."""
    number, free = 2, folder
    while free.exists():
        number, free = number + 1, folder.with_name(f"{folder.name}-{number}")
    return free


def _drop(root: Path, known: Mapping[str, str], there: Mapping[str, Entry]) -> list[str]:
    """Remove from a mirror what its address held and holds no more; which files."""
    gone = [key for key in known if key not in there]
    for key in gone:
        if (root / key).resolve().is_relative_to(root.resolve()):  # a key may be any text
            (root / key).unlink(missing_ok=True)
    return gone


def _notes(root: Path) -> Path:
    return root / "cache" / "address.json"


def _marks(root: Path) -> dict[str, str]:
    """The mark of each file that an address was seen to hold; "" where it went there from here."""
    try:
        found = json.loads(_notes(root).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(key): str(mark) for key, mark in found.items()} if isinstance(found, dict) else {}


def _note(root: Path, marks: Mapping[str, str], gone: Iterable[str] = ()) -> None:
    """Note what an address was seen to hold, beside what others saw meanwhile."""
    left = {key: mark for key, mark in _marks(root).items() if key not in set(gone)}
    write_whole(_notes(root), json.dumps(left | dict(marks)).encode())


def _is_recorded(root: Path) -> bool:
    return any(is_held(lock) for lock in (root / "wal").glob("*.lock"))


def _need_one_run(store: Store, there: Mapping[str, Entry], root: Path, hint: str) -> None:
    """
    Raises:
        XaiError: The store holds another run than the folder: their files would be mixed.
    """
    here = _run_id(_text_here(root))
    if here and _MANIFEST in there and (other := _run_id(store.read(_MANIFEST))) not in ("", here):
        raise XaiError(f"{store.url} holds run {other}, and {root} run {here}", hint=f"{hint}: two runs would be mixed")


def _text_here(root: Path) -> bytes:
    try:
        return (root / _MANIFEST).read_bytes()
    except OSError:
        return b""


def _run_id(text: bytes) -> str:
    """The run that an `xai.json` describes; "" where it does not say."""
    try:
        return str(json.loads(text)["run_id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _fetch(store: Store, wanted: list[Entry], root: Path, progress: Progress | None) -> None:
    """Fetch files; the manifest last."""
    wanted.sort(key=_manifest_last)
    done = 0
    with leaving(lambda: _left(done, len(wanted))):
        for done, entry in enumerate(wanted):
            if progress:
                progress(done, len(wanted))
            store.fetch(entry, root)


def _left(done: int, total: int) -> str:
    """What an interrupted synchronisation leaves: each file is whole or not there."""
    return f"{done:,} of {total:,} files went over, each whole; the same call sends the others"


def _manifest_last(entry: Entry) -> tuple[bool, str]:
    return entry.key == _MANIFEST, entry.key


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
            for entry in self._entries().values():
                wanted = entry.key == _MANIFEST or entry.key.startswith(_CONTINUED)
                if wanted and not (self.root / entry.key).exists():
                    self._store.fetch(entry, self.root)
                if entry.immutable:
                    self._sent[entry.key] = (entry.size, -1)
        except XaiError as error:
            warnings.warn(f"{error.message}; recording to {self.root} alone for now", stacklevel=3)
        self._thread.start()

    def _entries(self) -> dict[str, Entry]:
        """What the store holds; what it held and holds no more is not sent again, nor is another run continued."""
        if _is_recorded(self.root):  # by another rank
            return self._store.entries()
        known, there = _looked_at(self._store, self.root)
        if gone := _drop(self.root, known, there):
            _note(self.root, {}, gone)
        return there

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
        sent: dict[str, str] = {}
        try:
            return self._send_all(due, sent)
        finally:
            if sent:
                with contextlib.suppress(OSError):
                    _note(self.root, sent)

    def _send_all(self, due: list[Entry], sent: dict[str, str]) -> bool:
        for entry in sorted(due, key=lambda entry: entry.key == _MANIFEST):
            state = _state(self.root / entry.key)
            try:
                self._store.put(self.root, entry)
            except XaiError as error:
                self._fault = error
                return False
            self._sent[entry.key] = state
            sent[entry.key] = ""
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
