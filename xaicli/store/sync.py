"""Push a run directory to an object store, pull it back: only what the other side lacks travels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xaicli.locks import is_held
from xaicli.store.objects import Entry, Store, local_files, missing_in

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
    sent = []
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
    for done, entry in enumerate(wanted):
        if progress:
            progress(done, len(wanted))
        store.fetch(entry, root)
    return _synced(wanted, len(there))


def _manifest_last(entry: Entry) -> tuple[bool, str]:
    return entry.key == "xai.json", entry.key


def _synced(travelled: list[Entry], total: int) -> Synced:
    size = sum(entry.size for entry in travelled)
    return Synced(tuple(entry.key for entry in travelled), size, total - len(travelled))
