"""The run's one schema: which columns its samples have, shared by all ranks and attempts through `xai.json`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import replace

from xaicli import vocabulary as words
from xaicli.errors import XaiError
from xaicli.files import make_folder, write_whole
from xaicli.heads.head import Task
from xaicli.layout import RunLayout
from xaicli.manifest import ColumnFacts, Manifest
from xaicli.recorder.attempt import locked


def open_manifest(layout: RunLayout, fresh: Manifest) -> Manifest:
    """The run's manifest: the one that is there, brought to this format version, or a new one.

    Raises:
        XaiError: What is there is no manifest, or of a newer format.
        OSError: It cannot be written.
    """
    make_folder(layout.attempts)
    with locked(layout):
        if not layout.is_run():
            write_whole(layout.manifest, fresh.to_json().encode(), durable=True)
            return fresh
        known = layout.read_manifest()
        merged = replace(
            known,
            name=fresh.name or known.name,
            label_names=fresh.label_names or known.label_names,
            config={**known.config, **fresh.config},
            environment=fresh.environment or known.environment,
            task=known.task or fresh.task,
            columns=_in_order({c.name: c.dtype for c in known.columns}) if known.columns else (),
            version=fresh.version,
        )
        if merged != known:
            write_whole(layout.manifest, merged.to_json().encode(), durable=True)
        return merged


_KINDS = {
    "int64": "whole numbers",
    "int32": "whole numbers",
    "string": "texts",
    "double": "real numbers",
    "list<int32>": "sets of classes",
}


class Catalogue:
    """The columns known so far; a new one is added to `xai.json` before its first row is stored."""

    def __init__(self, layout: RunLayout, manifest: Manifest) -> None:
        self._layout = layout
        self._lock = threading.RLock()
        self._unsaved = False
        self._wide: set[str] = set()
        self._adopt(manifest)

    def _adopt(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.facts: tuple[ColumnFacts, ...] = manifest.columns
        self._dtypes = {column.name: column.dtype for column in manifest.columns}

    def learn(self, dtypes: Mapping[str, str]) -> None:
        """Add the columns of a batch; when `xai.json` cannot be written now, it is tried again before the next part.

        Args:
            dtypes: {name: Arrow type}.

        Raises:
            ValueError: A column is of another kind than the run's.
        """
        for name, dtype in dtypes.items():
            self.check(name, dtype)
        if dtypes.keys() <= self._dtypes.keys():
            return
        with self._lock:
            try:
                with locked(self._layout):
                    known, task = self._layout.read_manifest(), self.manifest.task
                    self._adopt(replace(known, task=known.task or task))
                    for name, dtype in dtypes.items():
                        self.check(name, dtype)
                    self._add(dtypes)
                    self._write()
            except (OSError, XaiError):
                self._add(dtypes)

    def dtype(self, name: str) -> str | None:
        """The type of a column; None where it is not known yet."""
        return self._dtypes.get(name)

    def widen(self, name: str) -> None:
        """Keep a metric in double precision from now on."""
        with self._lock:
            self._wide.add(name)
            if self._dtypes.get(name) == "float":
                self._add({**self._dtypes, name: "double"})
                with contextlib.suppress(OSError, XaiError):
                    self.current()

    def settle_task(self, task: Task) -> Task:
        """The run's task: the one that is known, or this one."""
        with self._lock:
            known = self.manifest.task
            if known in set(Task):
                return Task(known)
            self._adopt(replace(self.manifest, task=task.value))
            self._unsaved = True
            return task

    def current(self) -> tuple[ColumnFacts, ...]:
        """The run's columns now, those of other ranks included; written if that failed before.

        Raises:
            OSError: They cannot be written.
        """
        with self._lock, locked(self._layout):
            try:
                known = self._layout.read_manifest()
            except XaiError as error:
                raise OSError(str(error)) from error
            if known.columns != self.facts or self._unsaved:
                mine, task = self._dtypes, self.manifest.task
                self._adopt(replace(known, task=known.task or task))
                if self.manifest != known or not mine.keys() <= self._dtypes.keys() or self._wide_now():
                    self._add(mine)
                    self._write()
            return self.facts

    def _add(self, dtypes: Mapping[str, str]) -> None:
        merged = self._dtypes | {name: dtype for name, dtype in dtypes.items() if name not in self._dtypes}
        merged |= {name: "double" for name in self._wide if merged.get(name) == "float"}
        if merged.get(words.LABEL) == merged.get(words.PREDICTION) in ("int32", "string"):
            merged[words.CORRECT] = "bool"
        columns = _in_order(merged)
        self._adopt(replace(self.manifest, columns=columns, id_type=merged.get(words.SAMPLE_ID)))
        self._unsaved = True

    def _write(self) -> None:
        write_whole(self._layout.manifest, self.manifest.to_json().encode(), durable=True)
        self._unsaved = False

    def _wide_now(self) -> bool:
        return any(self._dtypes.get(name) == "float" for name in self._wide)

    def check(self, name: str, dtype: str) -> None:
        """Refuse a column of another kind than the run's.

        Raises:
            ValueError: It is; both are named.
        """
        known = self._dtypes.get(name, dtype)
        if known != dtype and name in (words.SAMPLE_ID, words.LABEL, words.PREDICTION):
            raise ValueError(f"{name} must be {_KINDS[known]} as before in this run, not {_KINDS[dtype]}")


def _in_order(columns: Mapping[str, str]) -> tuple[ColumnFacts, ...]:
    """The run's columns in the order of a part.

    Args:
        columns: {name: Arrow type} of the id, label, prediction, correct, probs and metrics seen so far, metrics in the
            order of their appearance.
    """
    fixed = {
        words.SAMPLE_ID: (columns.get(words.SAMPLE_ID, "int64"), words.Role.ID),
        words.MODE: ("string", words.Role.ORIGIN),
        words.DS_ID: ("string", words.Role.ORIGIN),
        words.EPOCH: ("int32", words.Role.TIME),
        words.PASS: ("int16", words.Role.TIME),
        words.STEP: ("int64", words.Role.TIME),
        words.ATTEMPT: ("int16", words.Role.ORIGIN),
        words.RANK: ("int16", words.Role.ORIGIN),
    }
    facts = [ColumnFacts(name, dtype, role.value) for name, (dtype, role) in fixed.items()]
    for name in (words.LABEL, words.PREDICTION, words.CORRECT):
        if name in columns:
            facts.append(ColumnFacts(name, columns[name], words.Role.LABEL.value))
    metrics = [name for name in columns if name not in words.RESERVED_COLUMNS]
    facts += [ColumnFacts(name, columns[name], words.Role.METRIC.value) for name in metrics]
    if words.PROBS in columns:
        facts.append(ColumnFacts(words.PROBS, columns[words.PROBS], words.Role.LABEL.value))
    return tuple(facts)
