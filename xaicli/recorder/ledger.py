"""What became of every row: counted, warned about once, kept where every later report finds it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xaicli.errors import level_outside
from xaicli.files import claim_name, with_check, write_all, write_whole
from xaicli.layout import NOWHERE, facts_of, facts_to_write_over

_FILE_BYTES = 4096
_REASONS_KEPT = 12
_REASON_LENGTH = 240
_COLUMNS_KEPT = 20


class RecorderWarning(UserWarning, RuntimeWarning):
    """Something could not be recorded; training goes on."""


class ForeignProcessError(ValueError):
    """A DataLoader worker or a fork logged."""

    def __init__(self, message: str = "") -> None:
        # A DataLoader raises a worker's exception again, by its type and a message.
        super().__init__(
            message
            or "a run is logged to by the process that opened it, not by a DataLoader worker or a fork: "
            "return the values from the worker and log them in the training loop"
        )


_foreign_warned = False


def warn_foreign_process() -> None:
    """Say once in this process that it cannot log."""
    global _foreign_warned
    if not _foreign_warned:
        _foreign_warned = True
        say(f"xai: {ForeignProcessError()}; its rows are not recorded")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Let a warning be no more than a warning, whatever the filters."""
    try:
        yield
    except Warning as warning:
        print(warning, file=sys.stderr)  # noqa: T201


def say(message: str) -> None:
    """Warn, with the line of the caller outside this package; nothing is raised into training."""
    with quietly():
        warnings.warn(message, RecorderWarning, stacklevel=level_outside())


_PARTICULAR = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|'[^']*')")
"""A number or a name in a reason."""


def kind_of(reason: str) -> str:
    """What reasons have in common that differ in their numbers and names only."""
    return _PARTICULAR.sub("*", reason)


class _Wording:
    """How reasons of one kind are told: as the first was, without the numbers and names in which others differ."""

    def __init__(self, reason: str) -> None:
        self._pieces = _PARTICULAR.split(reason)
        self._first: dict[int, str] = {}

    def take(self, reason: str) -> None:
        """Let it be true of one more reason of the kind."""
        for at, piece in enumerate(_PARTICULAR.split(reason)):
            if self._pieces[at] not in (piece, "..."):
                self._first[at], self._pieces[at] = self._pieces[at], "..."

    def __str__(self) -> str:
        first = [self._first[at] for at in sorted(self._first)]
        return ("".join(self._pieces) + (f" (first: {', '.join(first)})" if first else ""))[:_REASON_LENGTH]


def _rows_kept(rows: int) -> str:
    return "1 row, which is kept" if rows == 1 else f"{rows:,} rows, which are kept"


def _plain(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {column: dict(reasons) for column, reasons in counts.items()}


class Ledger:
    """The counters of one process.

    They lie in a file whose size never changes, so that writing them again needs no room on a full disk.
    """

    def __init__(self) -> None:
        self._find_path: Callable[[], Path] | None = None
        self._size = _FILE_BYTES
        self.is_gone: Callable[[], bool] = lambda: False
        """Whether the run directory is gone, which is told then."""
        # A signal may come while the lock is held, and its handler counts too.
        self._lock = threading.RLock()
        self._warned: set[str] = set()
        self.rows_logged = 0
        self.rows_stored = 0
        self.rows_dropped = 0
        self.records_dropped = 0
        self.labels_ignored = 0
        self.reasons: Counter[str] = Counter()
        self.refused: dict[str, Counter[str]] = {}
        self.altered: dict[str, Counter[str]] = {}
        self.is_closed = False
        self.ended_by = ""
        """The exception or signal that ended the training; "" for none."""
        self._wordings: dict[tuple[int, str], _Wording] = {}
        """The wording of each kind of reason, by the identity of its counter and the kind."""
        self.stalls = 0
        self.bytes = 0
        self.files = 0
        self.write_failures = 0

    def keep_in(self, path: Callable[[], Path]) -> None:
        """Keep the counters in a file from now on, wherever it is then."""
        self._find_path = path
        self.write()

    @property
    def rows_waiting(self) -> int:
        """Rows that are safe in a segment and not yet in a file."""
        return max(0, self.rows_logged - self.rows_stored - self.rows_dropped)

    def stats(self) -> dict[str, Any]:
        """The counters as plain JSON types."""
        return {
            "rows_logged": self.rows_logged,
            "rows_stored": self.rows_stored,
            "rows_dropped": self.rows_dropped,
            "rows_waiting": self.rows_waiting,
            "records_dropped": self.records_dropped,
            "labels_ignored": self.labels_ignored,
            "reasons": dict(self.reasons),
            "refused": _plain(self.refused),
            "altered": _plain(self.altered),
            "stalls": self.stalls,
            "files": self.files,
            "bytes": self.bytes,
            "write_failures": self.write_failures,
        }

    def drop(self, rows: int, reason: str) -> None:
        """Count rows that will not be stored, and say so the first time."""
        with self._lock:
            self.rows_dropped += rows
            self._count(self.reasons, reason, rows)
        self.warn(kind_of(reason), f"xai: {reason}; rows are dropped and counted, training goes on")
        self.write()

    def refuse(self, column: str, reason: str, rows: int) -> None:
        """Count values of a column that are left out while their rows are kept, and say so the first time."""
        with self._lock:
            self._count_of(self.refused, column, reason, rows)
        self.warn(f"{column}: {kind_of(reason)}", f"xai: {reason}; it is left out of {_rows_kept(rows)}")
        self.write()

    def ignore(self, labels: int) -> None:
        """Count labels that stand for none."""
        with self._lock:
            self.labels_ignored += labels
        self.write()

    def drop_record(self, column: str, reason: str, records: int = 1) -> None:
        """Count scalars, pictures, inputs or facts that will not be stored, and say so the first time."""
        with self._lock:
            self.records_dropped += records
            self._count_of(self.refused, column, reason, records)
        self.warn(f"{column}: {kind_of(reason)}", f"xai: {reason}; it is not recorded, training goes on")
        self.write()

    def alter(self, column: str, reason: str, records: int) -> None:
        """Count values that are kept but not as they may be meant, among those refused too; say so the first time."""
        with self._lock:
            self._count_of(self.refused, column, reason, records)
            self._count_of(self.altered, column, reason, records)
        self.warn(f"{column}: {kind_of(reason)}", f"xai: {reason}; such are counted")
        self.write()

    def _count_of(self, counts: dict[str, Counter[str]], column: str, reason: str, n: int) -> None:
        if column not in counts and len(counts) >= _COLUMNS_KEPT:
            column = "other"
        self._count(counts.setdefault(column, Counter()), reason, n)

    def _count(self, counter: Counter[str], reason: str, n: int) -> None:
        """Count under a wording that is true of all reasons of the kind in this counter."""
        key = id(counter), kind_of(reason)
        wording = self._wordings.get(key)
        if wording is None and len(counter) >= _REASONS_KEPT:
            counter["other"] += n
            return
        if wording is None:
            wording = self._wordings[key] = _Wording(reason)
        before = str(wording)
        wording.take(reason)
        if str(wording) != before and before in counter:
            counter[str(wording)] = counter.pop(before)
        counter[str(wording)] += n

    def stored(self, rows: int, size: int) -> None:
        """Count a finished file; `rows` are its sample rows."""
        with self._lock:
            self.rows_stored += rows
            self.bytes += size
            self.files += 1
        self.write()

    def not_stored(self, rows: int, size: int) -> None:
        """Take back the count of a file that was finished where the run is no more; its rows are stored again."""
        with self._lock:
            self.rows_stored -= rows
            self.bytes -= size
            self.files -= 1

    def lose_stored(self, reason: str) -> None:
        """Count rows and files that were stored as lost: what held them is gone."""
        with self._lock:
            rows, self.rows_stored = self.rows_stored, 0
            self.files = self.bytes = 0
            self.rows_dropped += rows
            if rows:
                self._count(self.reasons, reason, rows)
        self.warn(kind_of(reason), f"xai: {reason}; nothing more is recorded, training goes on")

    def warn(self, kind: str, message: str) -> bool:
        """Warn, once a kind; whether it was said now. Of a run directory that is gone that alone is said."""
        if kind in self._warned or (str(NOWHERE) in message and self.is_gone()):
            return False
        self._warned.add(kind)
        say(message)
        return True

    def forget(self, kind: str) -> None:
        """Warn again when this kind comes the next time."""
        self._warned.discard(kind)

    def write(self) -> None:
        """Keep the counters in the run; a disk that refuses even that leaves them in `stats()`."""
        if self._find_path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        ending = {"closed": self.is_closed, "ended_by": self.ended_by, "written_at": now}
        text = with_check(json.dumps({**self.stats(), **ending})).encode()
        with contextlib.suppress(OSError), self._lock:
            # Never smaller than before, or what was written then would end it.
            self._size = max(self._size, -(-len(text) // _FILE_BYTES) * _FILE_BYTES)
            descriptor = os.open(self._find_path(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.pwrite(descriptor, text.ljust(self._size), 0)
            finally:
                os.close(descriptor)


@dataclass(frozen=True)
class Ending:
    """What the counters of a process say of its end.

    Attributes:
        is_closed: Whether it closed its run, which a killed one did not; None where they do not say.
        by: The exception or signal that ended the training; "" for none.
        written_at: When they were last written, in seconds since 1970; None where they do not say.
        last_sign: Of a killed process whose rows were stored since: when it last showed that it lived.
    """

    is_closed: bool | None = None
    by: str = ""
    written_at: float | None = None
    last_sign: float | None = None


def read_ending(path: Path) -> Ending:
    """What the counters that lie there say of the end of their process; nothing where they cannot be read."""
    try:
        facts = facts_of(path)
        closed, by, sign = facts.get("closed"), str(facts.get("ended_by") or ""), facts.get("last_sign")
    except (OSError, ValueError, AttributeError):
        return Ending()
    known = sign if isinstance(sign, int | float) else None
    return Ending(closed if isinstance(closed, bool) else None, by, _moment(facts.get("written_at")), known)


def _moment(text: Any) -> float | None:
    try:
        when = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def claim_counters(path: Path) -> bool:
    """Make the file of a process's counters that no other process has made; False where one was first.

    Raises:
        OSError: It cannot be made.
    """
    if not claim_name(path):
        return False
    # So that an empty one is known for damage; a full disk may leave it so.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            write_all(descriptor, with_check('{"rows_logged": 0}').encode().ljust(_FILE_BYTES))
        finally:
            os.close(descriptor)
    return True


def note_last_sign(path: Path, seconds: float) -> None:
    """Keep when a killed process last showed that it lived, before what says so goes; a disk may refuse.

    Args:
        path: Its counters.
        seconds: Since 1970.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        facts = facts_of(path)
        if facts.get("closed") is False and (facts.get("last_sign") or 0) < seconds:
            write_whole(path, with_check(json.dumps(facts | {"last_sign": seconds})).encode(), durable=True)


def add_to_counters(
    path: Path,
    counted: Mapping[str, Mapping[str, int]],
    labels_ignored: int,
    altered: Mapping[str, Mapping[str, int]],
) -> None:
    """Add to the counters of a process that is gone; a disk that refuses is left as it is.

    Args:
        path: Its file.
        counted: {column: {why: values left out}}.
        labels_ignored: Labels that stood for none.
        altered: Those of `counted` that were not left out but kept.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        facts = facts_to_write_over(path)
        facts["labels_ignored"] = int(facts.get("labels_ignored") or 0) + labels_ignored
        for what, counts in (("refused", counted), ("altered", altered)):
            known = facts.setdefault(what, {})
            for column, reasons in counts.items():
                of_column = known.setdefault(column, {})
                for reason, n in reasons.items():
                    of_column[reason] = int(of_column.get(reason) or 0) + n
        write_whole(path, with_check(json.dumps(facts)).encode(), durable=True)
