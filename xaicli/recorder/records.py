"""What a run keeps beside its samples: scalars, thumbnails, inputs, tables, checkpoints."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xaicli.errors import XaiError
from xaicli.heads.head import Task
from xaicli.layout import PartName, RunLayout
from xaicli.manifest import Manifest
from xaicli.recorder import columns, media, scalars
from xaicli.recorder.batch import NUMBER_LIKE_ANY
from xaicli.recorder.config import MODES, checked_place, ignored_forms
from xaicli.recorder.facts import fact_table, kinds_before
from xaicli.recorder.parts import store_records
from xaicli.recorder.process import Process
from xaicli.recorder.tokens import words_of_inputs
from xaicli.recorder.transfer import Intake, copied
from xaicli.tables.containers import read
from xaicli.tables.fact_file import in_utc, path_of_facts, read_fact_file, zone_words
from xaicli.vocabulary import SAMPLE_ID
from xaicli.wal.records import common, encode_scalars, encode_table, with_ids

if TYPE_CHECKING:
    from xaicli.state import TrainingState

_TOLD_BY_LABELS = ("binary", "multilabel", "regression", "sequence")
"""Tasks that the labels of a run tell for certain; a class a sample goes with segmentation, too."""
_MOST_INT32 = 2**31 - 1
_ID_KINDS = {"int64": "whole numbers", "string": "texts"}
_FRAME_BYTES = 1 << 20
"""Bytes of pictures or inputs in a frame, about."""


class Records:
    """The part of `Run` that is not about sample rows."""

    layout: RunLayout
    state: TrainingState
    _process: Process
    _intake: Intake
    _kinds: dict[str, str]
    _fact_kinds: dict[str, pa.DataType]
    _facts_before: bool
    _counted: bool
    strict: bool
    _closed: bool

    @property
    def writer(self) -> tuple[int, int]:
        """The attempt and the rank, which no two processes share."""
        return self._process.writer_of_rows()

    @property
    def manifest(self) -> Manifest:
        """What `xai.json` holds, as far as this process knows."""
        return self._process.catalogue.manifest

    def _need_usable(self) -> None:
        """Raise where nothing can be recorded."""
        raise NotImplementedError

    def _refuse(self, error: Exception, rows: int | None, folder: str = "", records: int = 1) -> None:
        """Count a batch of rows, or (None) records of a folder, that cannot be stored; with `strict` raise."""
        raise NotImplementedError

    def _drop_record(self, column: str, reason: str, records: int = 1) -> None:
        """Count a record that cannot be kept; raise with `strict`."""
        raise NotImplementedError

    def _refuse_column(self, column: str, reason: str, rows: int) -> None:
        """Count a column that is left out of what is kept; raise with `strict`."""
        raise NotImplementedError

    def _alter_record(self, column: str, reason: str, records: int = 1) -> None:
        """Count a record that is kept otherwise than given; raise with `strict`."""
        raise NotImplementedError

    def _note(self, message: str) -> None:
        """Say something once."""
        raise NotImplementedError

    def _alter_scalar(self, key: str, reason: str) -> None:
        self._alter_record(key, reason)

    def _alter_media(self, reason: str, records: int) -> None:
        self._alter_record("media", reason, records)

    def _drop_media(self, reason: str, records: int) -> None:
        self._drop_record("media", reason, records)

    def _drop_inputs(self, reason: str, records: int) -> None:
        self._drop_record("inputs", reason, records)

    def log(
        self,
        values: Mapping[str, Any],
        *,
        step: int | None = None,
        epoch: int | None = None,
        mode: str | None = None,
        ds_id: str | None = None,
    ) -> None:
        """Record per-step values of the whole run.

        Args:
            values: {key: number}. A key `step`, `iteration` or `epoch` gives the time axis; else `state.global_step`
                where the run counts one (that of `resume_from` counts with the first step after it), else a counter
                that goes on over restarts. An epoch such as 1.5 beside a finer
                axis says that it is in epoch 1.
            step: In place of a key `step`.
            epoch: In place of a key `epoch`.
            mode: What they are of: train, eval, test or infer, or "" for none of these. When None the walk that goes
                on says it, or the one that ended last in the epoch.
            ds_id: The dataset; that of the walk, if it is of this mode, when None.

        Raises:
            ValueError: With `strict`: a value is no number, or the mode is none; it is named. Else it alone is left
                out, and counted.
        """
        times = {axis: at for axis, at in (("step", step), ("epoch", epoch)) if at is not None}
        if times and isinstance(values, Mapping):
            values = {**values, **times}
        state = self.state
        keys, epoch = _named_in(values)
        named = self._named_place(mode, ds_id)
        mode, ds_id = state.place_of_scalars(keys, epoch, *named)
        # An epoch and a step to go on from are no time until something counts them: a loop of one's own stays there.
        no_epoch, no_step = state.ahead
        at_epoch, at_step = None if no_epoch else state.epoch_of_rows or None, None if no_step else state.global_step
        moment = (mode or "", ds_id, at_epoch, at_step)
        self._make("scalars", lambda: _scalars_in(values), self._log_scalars, values, moment)

    def _named_place(self, mode: Any, ds_id: Any) -> tuple[str | None, str | None]:
        """The mode and the dataset that a caller named for scalars; None, told of, for what is none."""
        if mode is not None and (not isinstance(mode, str) or (mode and mode not in MODES)):
            self._alter_record("mode", f"mode {mode!r} is none of {', '.join(MODES)}: the scalars are kept without it")
            mode = None
        try:
            if ds_id is not None:
                checked_place("", ds_id, 0, 0)
        except ValueError as error:
            self._alter_record("ds_id", f"{error}: the scalars are kept without it")
            ds_id = None
        return MODES.get(mode, mode), ds_id

    def _log_scalars(self, values: Mapping[str, Any], at: tuple[str, str, int | None, int | None]) -> None:
        try:
            self._need_usable()
            if not isinstance(values, Mapping):
                raise ValueError(f"log takes a mapping of names to numbers, not {type(values).__name__}")
            self._go_on_counting()
            moment = scalars.Moment(*at, self.state.log_count, *self.writer)
            self.state.log_count += 1

            def keep(found: Any) -> None:
                if rows := scalars.scalar_rows(found, moment, self._drop_record, self._alter_scalar):
                    self._keep("scalars", len(rows), encode_scalars(rows))

            self._intake.bring(values, keep, lambda error: self._refuse_record("scalars", error, values))
        except Exception as error:
            self._refuse_record("scalars", error, values)

    def _go_on_counting(self) -> None:
        """Let the counter of scalars without a time go on behind earlier attempts, unless a loaded state says where."""
        if not self._counted:
            self._counted = True
            attempt = self._process.settle().attempt
            if attempt and not self.state.log_count:
                self.state.log_count = scalars.counted(self.layout, attempt)

    def log_images(self, sample_id: Any, images: Any) -> None:
        """Keep thumbnails for reports; a later one of the same sample replaces the earlier.

        They are of the mode and data set of the loop that goes on; outside of one, of every sample with their ids.

        Args:
            sample_id: (N,) ids.
            images: (N, H, W, C), (N, C, H, W) or (N, H, W): uint8, uint16, or floats in [0, 1]. Others are stretched
                each from its smallest to its largest value, which is said once.

        Raises:
            ValueError: With `strict`: they are no pictures, have values that are not finite, or are not as many as the
                ids.
        """
        where = self.state.place_of_records()
        self._make("media", lambda: media.count(sample_id, images), self._log_images, sample_id, images, where)

    def _log_images(self, sample_id: Any, images: Any, where: Mapping[str, str]) -> None:
        try:
            self._need_usable()
            kind = self._process.catalogue.dtype("sample_id")

            def keep(found: Any) -> None:
                listeners = media.Listeners(self._drop_media, self._alter_media, self._note)
                rows = media.image_rows(*found, **where, kind=kind, listeners=listeners)
                self._keep_rows("media", rows, media.image_table)

            n = media.count(sample_id, images)
            given = (sample_id, images)
            self._intake.bring(given, keep, lambda error: self._refuse_record("media", error, range(n)))
        except Exception as error:
            self._refuse_record("media", error, range(media.count(sample_id, images)))

    def log_inputs(self, sample_id: Any, inputs: Any, label: Any = None, *, tokens: Any = None) -> None:
        """Keep exact model inputs for saliency; a later one of the same sample replaces the earlier.

        They are of the mode and data set of the loop that goes on; outside of one, of every sample with their ids.

        Args:
            sample_id: (N,) ids.
            inputs: (N, ...), or {input name: (N, ...)}.
            label: (N,) labels; of several classes a sample, (N, K) of 0/1 or N lists of classes.
            tokens: What the ids of tokens stand for, so that maps of texts show words: a tokenizer, a vocabulary
                ({id: text}, {text: id}, or texts in the order of their ids), or N lists of texts; of inputs by name
                those of `input_ids`, or {input name: ...}.

        Raises:
            ValueError: With `strict`: they are not as many as the ids.
        """
        where = self.state.place_of_records()
        named = (sample_id, inputs, label)
        self._make("inputs", lambda: media.count(*named), self._log_inputs, *named, tokens, where)

    def _log_inputs(self, sample_id: Any, inputs: Any, label: Any, tokens: Any, where: Mapping[str, str]) -> None:
        try:
            self._need_usable()
            kind = self._process.catalogue.dtype("sample_id")

            def keep(found: Any) -> None:
                ids, arrays, label = found
                labels = self._label_of_inputs(label, ids)
                words = self._words_of_inputs(tokens, arrays, ids)
                rows = media.input_rows(ids, arrays, labels, words, **where, kind=kind, refuse=self._drop_inputs)
                self._keep_rows("inputs", rows, media.input_table)

            n = media.count(sample_id, inputs, label)
            given = (sample_id, inputs, label)
            self._intake.bring(given, keep, lambda error: self._refuse_record("inputs", error, range(n)))
        except Exception as error:
            self._refuse_record("inputs", error, range(media.count(sample_id, inputs, label)))

    def _words_of_inputs(self, tokens: Any, inputs: Any, sample_id: Any) -> Mapping[str, Any]:
        """What the tokens stand for; nothing, told of, where that cannot be said: the inputs are kept without."""
        if tokens is None:
            return {}
        named = inputs if isinstance(inputs, Mapping) else {"": inputs}
        try:
            arrays = {str(name): columns.to_array(value, str(name) or "inputs") for name, value in named.items()}
            return words_of_inputs(tokens, arrays)
        except Exception as error:  # a tokenizer is the caller's own
            self._refuse_column("tokens of inputs", str(error), media.count(sample_id))
            return {}

    def _label_of_inputs(self, label: Any, sample_id: Any) -> Any:
        """Labels of the run's kind; None, told of, where they are of another: the inputs are kept without them."""
        if label is None:
            return None
        rows = media.count(sample_id)
        try:
            if self.manifest.task == Task.REGRESSION:
                numbers = columns.of_length(self._each_of_inputs(columns.metric, label), rows, "label")
                none = None if self._ignored[0] == NUMBER_LIKE_ANY else self._ignored[0]
                return [float(one) if math.isfinite(one) and one != none else None for one in numbers]
            checked: Any = self._several_labels(label, rows)
            if checked is None:
                checked = columns.of_length(self._each_of_inputs(columns.labels, label), rows, "label")
                ignored = self._ignored[isinstance(checked, list)]
                checked = checked if ignored is None else columns.without_ignored(checked, ignored)[0]
                kind = "string" if isinstance(checked, list) else "int32"
            else:
                kind = "list<int32>" if any(isinstance(one, list) for one in checked) else "int32"
            if kind == "string":
                if all(text is None for text in checked):
                    return None
            elif not isinstance(checked, list):
                beyond = (checked > _MOST_INT32) | (checked < -_MOST_INT32 - 1)
                if beyond.any():
                    self._refuse_column("label of inputs", "label has a value beyond 32 bits", int(beyond.sum()))
                missing = beyond | (checked == columns.NULL_LABEL)
                if missing.any():
                    checked = [None if gone else int(one) for one, gone in zip(checked, missing, strict=True)]
            known = self._process.catalogue.dtype("label") or self._kinds.setdefault("label", kind)
            if known in ("int32", "string", "list<int32>") and known != kind:
                raise ValueError(f"label of inputs must be of type {known} as before in this run, not {kind}")
        except ValueError as error:
            self._refuse_column("label of inputs", str(error), rows)
            return None
        return checked

    @property
    def _ignored(self) -> tuple[int | None, str | None]:
        """The label that stands for none, as a whole number and as a text."""
        return ignored_forms(self.manifest.ignore_label, self.manifest.label_names)

    def _each_of_inputs(self, check: Callable[[Any, str], Any], label: Any) -> Any:
        """Labels of inputs that pass `columns.metric` or `columns.labels`; one that does not is left out alone."""
        try:
            return check(label, "label")
        except ValueError:
            kind = self._process.catalogue.dtype("label")
            is_open = kind is None and self.manifest.task is None
            if self.strict or (is_open and columns.task_of(label, None, None) is Task.REGRESSION):
                raise  # real numbers are not labels of which some are odd
            is_metric = check is columns.metric
            found = columns.metric_alone(label, "label") if is_metric else columns.labels_alone(label, "label", kind)
            if found is None:
                raise
        for reason, rows in found[1].items():
            self._refuse_column("label of inputs", reason, rows)
        return found[0]

    def _several_labels(self, label: Any, rows: int) -> list[Any] | None:
        """Sets of classes as lists, of rows of probabilities the most probable class; None where a label is one value.

        Raises:
            ValueError: They are none of these.
        """
        given, task = read(label), self.manifest.task
        is_array = isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1] > 1
        if not (is_array or columns.is_listed(given)) or task not in (None, Task.CLASSIFICATION, Task.MULTILABEL):
            return None
        names = self.manifest.label_names
        if not is_array and task != Task.CLASSIFICATION:
            is_known = None if columns.are_empty(given) else columns.are_rows(given, "label", len(names or ()) or None)
            if is_known is None and not columns.are_empty(given):
                raise ValueError(columns.ambiguous("label"))
        if is_array or task == Task.CLASSIFICATION or is_known:
            several = columns.rows(given, rows, "label")
            if several is None:
                return [None] * rows
            for reason, n in several.reasons.items():
                self._refuse_column("label of inputs", reason, n)
            given = several.gaps()
            if given.ndim != 2 or given.shape[1] == 1:
                return [None if one != one else int(one) for one in given.reshape(rows, -1)[:, 0].tolist()]
        told = columns.task_of(given, None, None) if task is None else task
        if told != Task.MULTILABEL and isinstance(given, np.ndarray):
            values, sound = columns.soft_labels(given, rows)
            if not sound.all():
                self._refuse_column("label of inputs", columns.NO_PROBABILITIES, int((~sound).sum()))
            return [None if row[0] != row[0] else int(row.argmax()) for row in values]
        found = columns.label_sets(given, rows, "label", self._ignored[0], names=names)
        for reason, n in found.reasons.items():
            self._refuse_column("label of inputs", reason, n)
        return [None if one is None else one.tolist() for one in found.classes]

    def log_facts(self, /, sample_id: Any = None, *, facts: str | os.PathLike[str] | None = None, **named: Any) -> None:
        """Record what samples are: a path, a text, a source, a camera. Of several the last value of a sample counts.

        Args:
            sample_id: (N,) ids, or one.
            facts: A CSV, Parquet or JSON-lines file with a column `sample_id`, in place of the arguments or beside
                them.
            **named: {name: (N,) texts, numbers or dates in the order of the ids, or one for all}; paths and UUIDs are
                texts. Dicts and sets, whose order is not that of the ids, and bytes are refused.

        Raises:
            ValueError: With `strict`: a fact cannot be kept; it is named. Else it alone is left out, and counted.
        """
        self._make("facts", lambda: media.count(sample_id, *named.values()), self._log_facts, sample_id, facts, named)

    def _log_facts(self, sample_id: Any, facts: str | os.PathLike[str] | None, named: Mapping[str, Any]) -> None:
        if facts is not None:
            self._try_fact_file(facts)
            if sample_id is None and not named:
                return
        try:
            self._need_usable()
            if sample_id is None:
                raise ValueError("facts are of samples, and there is no sample_id: run.log_facts(ids, camera=...)")
            if not named:
                raise ValueError("no fact is named: run.log_facts(ids, camera=...)")
            table = fact_table(sample_id, named, self._drop_record, self._process.catalogue.dtype("sample_id"))
            if table is not None:
                table, zones = in_utc(table)
                for name, zone in zones.items():
                    self._process.ledger.warn(f"zone {name}", f"xai: {zone_words(f'fact {name}', zone)}")
                self._note_kinds(table)
                self._keep_tables("facts", [table])
        except Exception as error:
            self._refuse_record("facts", error, range(media.count(sample_id, *named.values())))

    def _note_kinds(self, table: pa.Table) -> None:
        """Say once of a fact that its values are of another kind than before: they are then read as one kind."""
        if not self._facts_before:
            self._facts_before = True
            if self._process.settle().attempt:
                self._fact_kinds |= kinds_before(self.layout.facts)
        for field in table.schema:
            if field.name == SAMPLE_ID or pa.types.is_null(field.type) or _is_without_values(table[field.name]):
                continue
            before = self._fact_kinds.setdefault(field.name, field.type)
            if _kind(before) != _kind(field.type):
                self._process.ledger.warn(
                    f"fact {field.name}",
                    f"xai: fact {field.name} was {_kind(before)} and is now {_kind(field.type)}: all its values are "
                    f"read as {_kind(common({before, field.type}))}",
                )

    def _try_fact_file(self, facts: Any) -> None:
        """Keep the facts of a file; one that cannot be read is counted and takes none of those beside it.

        Raises:
            ValueError: With `strict`: it cannot be read.
        """
        try:
            self._need_usable()
            self._store_fact_file(facts)
        except Exception as error:
            n = 1 if isinstance(facts, (str, os.PathLike)) else media.count(facts)
            self._refuse_record("facts", error, range(n))

    def _store_fact_file(self, facts: Any) -> None:
        """Keep the facts of a file, and say what of it is not kept as it stands there.

        Raises:
            ValueError: It is none, or names no samples of the run's kind.
        """
        kind = self._process.catalogue.dtype(SAMPLE_ID) or self._kinds.get(SAMPLE_ID)
        try:
            path = path_of_facts(facts, "log_facts(ids, name=values) takes values")
            found = read_fact_file(path, kind)
        except XaiError as error:
            raise ValueError(f"{error}; {error.hint}" if error.hint else str(error)) from error
        for column, reason, rows in found.left_out:
            self._drop_record("facts" if column == SAMPLE_ID else column, reason, rows)
        for words in found.notices:  # which are no fault, with `strict` neither
            self._process.ledger.alter("facts", words, found.table.num_rows)
        self._store_facts(found.table)

    def _store_facts(self, table: pa.Table) -> None:
        """Write many facts as a file of their own; they are durable when this returns."""
        table = self._with_ids("facts", table)
        self._note_kinds(table)
        origin, sequence = self._process.samples.next_sequence()
        part = PartName(*origin.writer, sequence, sequence)
        record = store_records(self.layout, table, self.layout.facts.name, part, origin.run_id)
        self._process.ledger.stored(0, record.bytes)

    def _keep_rows(self, folder: str, rows: list[tuple[Any, ...]], to_table: Callable[[list[Any]], pa.Table]) -> None:
        """Keep rows whose last value is their bytes, in frames of about `_FRAME_BYTES`."""
        chunk: list[tuple[Any, ...]] = []
        size, tables = 0, []
        for row in rows:
            chunk.append(row)
            size += len(row[-1])
            if size >= _FRAME_BYTES:
                tables.append(to_table(chunk))
                chunk, size = [], 0
        self._keep_tables(folder, [*tables, *([to_table(chunk)] if chunk else [])])

    def _keep_tables(self, folder: str, tables: list[pa.Table]) -> None:
        for table in tables:
            fitting = self._with_ids(folder, table)
            self._keep(folder, fitting.num_rows, encode_table(fitting))

    def _with_ids(self, folder: str, table: pa.Table) -> pa.Table:
        """Records with ids of the run's kind, or that of the first record; those that have none are told of.

        Raises:
            ValueError: None has.
        """
        kind = str(table.schema.field(SAMPLE_ID).type)
        known = self._process.catalogue.dtype(SAMPLE_ID) or self._kinds.setdefault(SAMPLE_ID, kind)
        fitting = with_ids(table, known)
        lost = table.num_rows - fitting.num_rows
        if lost:
            reason = f"sample_id of {folder} must be {_ID_KINDS[known]} as before in this run"
            if lost == table.num_rows:
                raise ValueError(reason)
            self._drop_record(folder, reason, lost)
        if kind != known:
            self._note(
                f"sample_id of {folder} is {_ID_KINDS[kind]}, and that of the run {_ID_KINDS[known]}: "
                f"the ids are taken as {_ID_KINDS[known]}"
            )
        return fitting

    def _keep(self, folder: str, records: int, payload: bytes) -> None:
        if not self._process.samples.append_records(folder, records, payload):
            self._drop_record(folder, f"no room for {folder}: the disk is too slow or takes no more", records)

    def _refuse_record(self, folder: str, error: Exception, what: Any) -> None:
        """Count what was refused as a whole; raise with `strict`."""
        self._refuse(error, None, folder, _scalars_in(what) if isinstance(what, Mapping) else media.count(what))

    def _make(self, folder: str, records: Callable[[], int], call: Callable[..., None], *given: Any) -> None:
        """Make a call; one that comes from within another, with copies of what was given, when that is done.

        Args:
            folder: Where its records go; "" for rows.
            records: Says how many there are.
            call: What to call.
            given: Its arguments.

        Raises:
            ValueError: With `strict`: too many wait.
        """
        calls = self._process.calls
        if not calls.is_within:
            try:
                with calls.lock:
                    call(*given)
            finally:
                self._leave()
        elif self._closed:
            call(*given)  # which refuses it
        elif not calls.put_aside(partial(call, *map(copied, given))):
            if self.strict:
                raise ValueError("too many calls came from within one")
            calls.over[folder] += records()

    def _leave(self) -> None:
        """At the end of a call: make those that came from within it."""
        raise NotImplementedError

    def add_metrics_data(
        self,
        metrics: Any,
        *,
        input_table_url: Any = None,
        override_column_schemas: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Path | None:
        """Add rows to a metrics table of the run, beside its samples; they are durable when this returns.

        Args:
            metrics: Columns by name, all of one length. With `example_id` (rows of the input table, from 0) rows may
                repeat and need not cover every sample; without it row i is sample i of the input table.
            input_table_url: The `Table` the samples are of, or its `url`.
            override_column_schemas: What columns mean; inferred where nothing is said.
            constants: Columns that are the same in all rows.
            name: The table; when None the first of `metrics`, `metrics-2`, ... that is new or has these columns.

        Returns:
            The file written; None where the disk refuses, or the columns are no table, which is told.

        Raises:
            XaiError: With `strict`: the columns differ in length, one cannot be stored, or the input table is unknown.
            OSError: With `strict`: it cannot be written.
        """
        from xaicli.recorder.parts import append_table
        from xaicli.tables.metrics_table import check_fits, default_name, metrics_table, renamed_classes

        try:
            table = metrics_table(
                metrics, input_table=input_table_url, schemas=override_column_schemas, constants=constants
            )
            if name:
                check_fits(self.layout, name, table)
            where = name or default_name(self.layout, table)
            for said in renamed_classes(self.layout, where, table):
                self._process.ledger.warn(said, f"xai: {said}")
            return append_table(self.layout, self.writer, where, table)
        except Exception as error:
            self._tell(f"table {name or ''}".strip(), error)
            return None

    def _tell(self, what: str, error: Exception) -> None:
        """Say that a file could not be written while what was there before is whole; raise with `strict`."""
        if self.strict:
            raise error
        with contextlib.suppress(OSError):
            self._process.settle()
        is_gone = isinstance(error, OSError) and self._process.note_gone()
        reason = self._process.gone() if is_gone else str(error) or type(error).__name__
        hint = f" ({error.hint})" if isinstance(error, XaiError) and error.hint else ""
        self._process.ledger.drop_record(what, f"{what} cannot be written: {reason}{hint}")

    def add_metrics(
        self, metrics: Any, *, foreign_table_url: Any = None, schema: Mapping[str, Any] | None = None, **others: Any
    ) -> Path | None:
        """`add_metrics_data` in its other spelling."""
        return self.add_metrics_data(
            metrics, input_table_url=foreign_table_url, override_column_schemas=schema, **others
        )

    def save_checkpoint(
        self,
        model: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        example_inputs: Any = None,
        arch: Any = None,
        arch_args: Mapping[str, Any] | None = None,
        label_names: Sequence[str] | None = None,
        input_range: tuple[float, float] | None = None,
        task: str | None = None,
    ) -> Path | None:
        """Write a checkpoint that `xai saliency` loads without user code where the model can be exported.

        Args:
            model: A `torch.nn.Module`.
            path: Where; a bare name lies in the run's `checkpoints/`, `checkpoints/ckpt.pt` when None.
            example_inputs: Inputs to export the model with.
            arch: What makes the model, where it cannot be exported.
            arch_args: Its arguments.
            label_names: The classes' names; the run's when None.
            input_range: Smallest and largest value of an input.
            task: What the model's outputs mean, where neither the run nor the model's configuration says it.

        Returns:
            The path written; None where the disk refuses, or the model cannot be saved: what was there before is whole,
            and the reason is told.

        Raises:
            OSError: With `strict`: the disk refuses.
            XaiError: With `strict`: the model cannot be saved.
        """
        given = {"example_inputs": example_inputs, "arch": arch, "arch_args": arch_args, "input_range": input_range}
        given["task"] = task
        try:
            target = Path(path or "ckpt.pt")
            if os.fspath(path or "ckpt.pt") == target.name:
                target = self.layout.checkpoints / target
            return self._save(model, target, label_names=label_names, **given)
        except Exception as error:
            self._tell(f"checkpoint {Path(path).name if isinstance(path, str | os.PathLike) else 'ckpt.pt'}", error)
            return None

    def _save(
        self, model: Any, path: Any, *, label_names: Sequence[str] | None = None, task: str | None = None, **given: Any
    ) -> Path:
        from xaicli.checkpoint.save import save_checkpoint

        self.state.note_model("model", model)
        names = label_names or self.manifest.label_names
        return save_checkpoint(
            model,
            path,
            label_names=list(names) if names else None,
            epoch=self.state.epoch_idx or None,
            step=self.state.global_step,
            task=task or (self.manifest.task if self.manifest.task in _TOLD_BY_LABELS else None),
            **given,
        )

    def keep_best(
        self,
        model: Any,
        value: Any,
        *,
        metric: str = "loss",
        better: str = "lower",
        keep: int = 1,
        **checkpoint: Any,
    ) -> Path | None:
        """Save a checkpoint if it is among the best by a metric; `checkpoints/best-<metric>.pt` is always the best.

        Args:
            model: A `torch.nn.Module`.
            value: The metric's value; not finite, it is never among the best; no number, it is told.
            metric: What the value is of.
            better: "lower" or "higher".
            keep: How many of the best to keep, `best-<metric>-<step>.pt`; the others are removed.
            **checkpoint: What `save_checkpoint` takes.

        Returns:
            The checkpoint written, or None: it was not among the best, this is not rank 0, an argument makes no sense,
            or the disk refuses; the last two are told while those kept before are whole.

        Raises:
            OSError: With `strict`: the disk refuses.
            TypeError, ValueError, XaiError: With `strict`: the value is no number, `keep` or `better` makes no sense,
                or the model cannot be saved.
        """
        if self._process.identity[1] != 0:
            return None
        from xaicli.state.best import keep_best

        try:
            number = float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, RuntimeError):
            self._tell(f"best checkpoint by {metric}", ValueError(f"its value is no number: {str(value)[:80]!r}"))
            return None
        try:
            return keep_best(
                self.layout.checkpoints,
                lambda path: self._save(model, path, **checkpoint),
                metric=metric,
                value=number,
                better=better,
                keep=keep,
                epoch=self.state.epoch_idx,
                step=self.state.global_step or 0,
            )
        except Exception as error:
            self._tell(f"best checkpoint by {metric}", error)
            return None


def _scalars_in(values: Any) -> int:
    """How many scalars are given, the time not among them."""
    if not isinstance(values, Mapping):
        return media.count(values)
    return len([key for key in values if key not in scalars.AXES])


def _named_in(values: Any) -> tuple[set[str], int | None]:
    """The names of the scalars that are given, and the epoch they name, if any."""
    if not isinstance(values, Mapping):
        return set(), None
    epoch = values.get("epoch")
    return {key for key in values if isinstance(key, str) and key not in scalars.AXES}, (
        int(epoch) if isinstance(epoch, int | float) and math.isfinite(epoch) else None
    )


def _is_without_values(column: pa.ChunkedArray) -> bool:
    """Whether all values of a fact are missing, NaN among them: they say nothing of its kind."""
    return pa.types.is_floating(column.type) and bool(pc.all(pc.is_nan(column)).as_py() is not False)


def _kind(kind: pa.DataType) -> str:
    """A fact's type in words."""
    if pa.types.is_string(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_date(kind):
        return "days"
    if pa.types.is_timestamp(kind):
        return "times with a zone" if kind.tz else "times"
    return "whole numbers" if pa.types.is_integer(kind) else "numbers"
