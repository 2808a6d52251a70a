"""The run's one schema: which columns its samples have, shared by all ranks and attempts through `xai.json`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xaicli import vocabulary as words
from xaicli.errors import XaiError
from xaicli.files import make_folder, set_aside, write_whole
from xaicli.heads.head import Task
from xaicli.layout import RunLayout
from xaicli.manifest import ColumnFacts, Manifest
from xaicli.recorder.attempt import locked
from xaicli.wal.frames import Frame
from xaicli.wal.rows import in_order, too_wide, widened, with_correct, with_those_of

_TOLD = {Task.MULTILABEL: "list<int32>", Task.REGRESSION: "double"}
"""What the labels of a task are stored as; those of the others are classes."""


def open_manifest(layout: RunLayout, fresh: Manifest, note: Callable[[str], None] = lambda _: None) -> Manifest:
    """The run's manifest: the one that is there, brought to this format version, or a new one.

    Args:
        layout: The run.
        fresh: That of a new run.
        note: Told of what a run is gone on with otherwise than it was recorded.

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
            task=_gone_on_with(known, fresh, note),
            ignore_label=fresh.ignore_label,
            epoch_frequency=fresh.epoch_frequency,
            keep_probs=fresh.keep_probs,
            columns=in_order({c.name: c.dtype for c in known.columns}) if known.columns else (),
            version=fresh.version,
            is_whole=True,
        )
        if not known.is_whole:
            note(f"xai.json is not what was written: it is kept as {set_aside(layout.manifest).name}, and gone by")
        if merged != known or not known.is_whole:
            write_whole(layout.manifest, merged.to_json().encode(), durable=True)
        return merged


def _gone_on_with(known: Manifest, fresh: Manifest, note: Callable[[str], None]) -> str | None:
    """The task of a run that is opened again; what differs from before is told."""
    if known.columns:
        for name in ("ignore_label", "epoch_frequency", "keep_probs"):
            before, now = getattr(known, name), getattr(fresh, name)
            if before != now:
                note(f"{name}={_shown(now)} from now on; what this run recorded before was with {_shown(before)}")
        changed = [name for name, now in fresh.config.items() if known.config.get(name, now) != now]
        if changed:
            named = [
                f"{name} {_shown(known.config[name])} -> {_shown(fresh.config[name])}" for name in changed[:_NAMED]
            ]
            more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
            note(f"the configuration differs from that of before, which it replaces: {', '.join(named)}{more}")
        if known.label_names and fresh.label_names not in (None, known.label_names):
            note("label_names differ from those of this run, which are replaced: what they name is not renumbered")
    if fresh.task in (None, known.task) or known.task is None:
        return known.task or fresh.task
    stored = {_TOLD.get(Task(task), "int32") for task in (known.task, fresh.task) if task in set(Task)}
    if known.columns and len(stored) > 1:
        note(f"task={fresh.task!r} is not that of this run, whose labels are of a {known.task} task: it stays so")
        return known.task
    note(f"task={fresh.task!r} from now on; what this run recorded before was of a {known.task} task")
    return fresh.task


_NAMED = 5
"""Settings that differ are named up to so many."""


def _shown(value: Any) -> str:
    """A setting in a message, cut where it is long."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."


_KINDS = {
    "int64": "whole numbers",
    "int32": "whole numbers",
    "string": "texts",
    "double": "real numbers",
    "list<int32>": "sets of classes",
}


def add_columns(layout: RunLayout, frames: Sequence[Frame], content: memoryview) -> Manifest:
    """The run's manifest with the columns that a killed process's rows bring and it did not come to write down.

    Raises:
        XaiError: There is no manifest.
        OSError: It cannot be written.
    """
    with locked(layout):
        known = layout.read_manifest()
        columns = with_those_of(known.columns, frames)
        columns = widened(columns, too_wide(content, frames, columns))
        if columns == known.columns:
            return known
        ids = next((column.dtype for column in columns if column.name == words.SAMPLE_ID), None)
        added = replace(known, columns=columns, id_type=ids)
        write_whole(layout.manifest, added.to_json().encode(), durable=True)
        return added


class Catalogue:
    """The columns known so far; the writer's thread adds new ones to `xai.json` before their first row is in a file."""

    def __init__(self, layout: RunLayout, manifest: Manifest, on_news: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            layout: The run.
            manifest: What is known of it.
            on_news: Told of columns that are not in `xai.json` yet; `current` writes them.
        """
        self._layout = layout
        self._on_news = on_news
        self._lock = threading.RLock()
        self._unsaved = False
        self._wide: set[str] = set()
        self._adopt(manifest)

    def _adopt(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.facts: tuple[ColumnFacts, ...] = manifest.columns
        self._dtypes = {column.name: column.dtype for column in manifest.columns}

    def adopt(self, manifest: Manifest) -> None:
        """Take over what is known of the run."""
        with self._lock:
            self._adopt(manifest)

    def learn(self, dtypes: Mapping[str, str]) -> None:
        """Add the columns of a batch.

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
            self._add(dtypes)
        self._on_news()

    def dtype(self, name: str) -> str | None:
        """The type of a column; None where it is not known yet."""
        return self._dtypes.get(name)

    def widen(self, name: str) -> None:
        """Keep a metric in double precision from now on."""
        with self._lock:
            self._wide.add(name)
            is_new = self._dtypes.get(name) == "float"
            if is_new:
                self._add({})
        if is_new:
            self._on_news()

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
        """The run's columns now, those of other ranks included; this process's news are in `xai.json` then.

        The disk is not waited for under the lock that `learn` needs.

        Raises:
            OSError: They cannot be written.
        """
        with locked(self._layout):
            try:
                known = self._layout.read_manifest()
            except XaiError as error:
                raise OSError(str(error)) from error
            with self._lock:
                mine, task = self._dtypes, self.manifest.task
                if known.columns == self.facts and not self._unsaved:
                    return self.facts
                self._adopt(replace(known, task=known.task or task))
                self._add(mine)
                merged, self._unsaved = self.manifest, False
            if merged != known:
                try:
                    write_whole(self._layout.manifest, merged.to_json().encode(), durable=True)
                except BaseException:
                    self._unsaved = True
                    raise
            return merged.columns

    def _add(self, dtypes: Mapping[str, str]) -> None:
        merged = self._dtypes | {name: dtype for name, dtype in dtypes.items() if name not in self._dtypes}
        merged |= {name: "double" for name in self._wide if merged.get(name) == "float"}
        columns = in_order(with_correct(merged))
        self._adopt(replace(self.manifest, columns=columns, id_type=merged.get(words.SAMPLE_ID)))
        self._unsaved = True

    def check(self, name: str, dtype: str) -> None:
        """Refuse a column of another kind than the run's.

        Raises:
            ValueError: It is; both are named.
        """
        known = self._dtypes.get(name, dtype)
        if known != dtype and name in (words.SAMPLE_ID, words.LABEL, words.PREDICTION):
            raise ValueError(f"{name} must be {_KINDS[known]} as before in this run, not {_KINDS[dtype]}")


class SaveColumns:
    """New columns on their way into `xai.json`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def store(self) -> None:
        """Write them; where the disk refuses, the next part tries again, and what is behind this is not held up."""
        with contextlib.suppress(OSError):
            self._catalogue.current()

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """Readers and the next start find them in what holds their rows."""
        del reason, for_good
