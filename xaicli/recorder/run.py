"""`Run`: the flight recorder a training loop holds; `xaicli.init` opens one, `xaicli.log` writes to it."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from xaicli.errors import XaiError
from xaicli.locks import need_locks
from xaicli.manifest import Manifest, TakesBack
from xaicli.recorder import process
from xaicli.recorder.batch import Batches, Repeats
from xaicli.recorder.config import (
    MODES,
    checked_place,
    checked_rank,
    epochs_kept,
    epochs_meant,
    ignored_label,
    names_of_classes,
    names_of_metrics,
    nth_epochs,
    plain_config,
    resume_place,
    run_address,
    task_named,
    unknown_mode,
    whole_number,
)
from xaicli.recorder.device import leave_to_python
from xaicli.recorder.earlier import Earlier, last_place
from xaicli.recorder.ledger import ForeignProcessError, kind_of, quietly, warn_foreign_process
from xaicli.recorder.media import count
from xaicli.recorder.process import Process
from xaicli.recorder.records import Records
from xaicli.recorder.transfer import Intake
from xaicli.recorder.writer import is_background
from xaicli.state import TrainingState
from xaicli.state.progress import Turns
from xaicli.store.objects import is_url
from xaicli.traceability import describe_environment
from xaicli.vocabulary import Mode
from xaicli.wal.frames import Folder, Place

if TYPE_CHECKING:
    from xaicli.state import TrainingState as State
    from xaicli.store.sync import Uploader


DRAIN_SECONDS = 2.0
"""How long `close` waits for batches on a device."""


T = TypeVar("T")
_Given = tuple[Any, Any, Any, Any, Any, Mapping[str, Any]]
"""Ids, labels, predictions, logits, probabilities and metrics as the caller gave them."""


@dataclass(frozen=True, slots=True)
class _Named:
    """What a call of `log_samples` names of its rows beside their columns; None where it leaves that to the run."""

    mode: str | None
    ds_id: str | None
    epoch: int | None
    step: int | None
    eval_pass: int | None
    keep_tokens: bool | None


class Loops:
    """The part of `Run` that goes through epochs and batches."""

    state: TrainingState
    strict: bool
    _process: Process
    _environment: Mapping[str, Any]
    _walks_again: set[tuple[str, str]]
    _left_in: int | None
    """The epoch of a training walk that has not come to its end, nor its epoch."""

    def epochs(self, n: int | None = None) -> Iterator[int]:
        """Count epochs in `state.epoch_idx`: from the one after the last done, to `n` (`state.total_epochs`).

        After a state that was saved inside the training loop, first the epoch it was saved in, which `steps` goes on
        with; with `Run(resume_from=(epoch, step))` first that epoch, whose first training step `steps` counts as that.
        An epoch that was interrupted within its training (a cell of a notebook, run again) comes once more.
        """
        state = self.state
        last = state.total_epochs if n is None else n
        state.total_epochs = max(state.total_epochs, last)
        was_left = state.epoch_idx > 0 and self._left_in == state.epoch_idx
        self._left_in = None
        if (state.is_mid_epoch or was_left) and not state.stop_training:
            yield state.epoch_idx
            self._left_in = None
            self._publish()
        elif state.epochs_done >= last > 0 and not state.stop_training:
            message = f"xai: epochs({last}): {state.epochs_done} epochs are done, so there is none to go through"
            self._process.ledger.warn("epochs", f"{message}; state.reset() begins anew, epochs({last + 1}) goes on")
        while state.epochs_done < last and not state.stop_training:
            state.count_epoch()
            yield state.epoch_idx
            self._left_in = None
            self._publish()

    def steps(self, batches: Iterable[T], *, mode: str = "train", ds_id: str = "") -> Iterator[T]:
        """Yield batches while `state` has the mode, the dataset, the batch and, in training, the step.

        Each call is a new pass over (mode, ds_id) within the epoch that its rows are of, the first that has rows being
        pass 0; a training loop that is gone on with after a resume stays in its pass.

        The loop is this thread's: another thread may go through another at the same time. `TrainingState.batches` says
        how many batches there are, and what a resume does.
        """
        state = self.state
        at = MODES.get(mode) or unknown_mode(mode)
        state.note_data(at, ds_id, batches)
        walk = state.begin_walk(at, ds_id)
        goes_on = at == Mode.TRAIN and state.is_mid_epoch  # with the pass in progress
        if not goes_on:
            state.begin_turns(at, ds_id)
            if not state.epoch_idx and (at, ds_id, state.epoch_of_rows) in state.begun:
                self._walks_again.add((at, ds_id))
        if at == Mode.TRAIN:
            self._left_in = state.epoch_idx
        yield from state.batches_of(walk, batches)
        if at == Mode.TRAIN:
            self._left_in = None

    def begin_pass(self, mode: str = "eval", ds_id: str = "", *, epoch: int | None = None) -> int:
        """Begin another walk over a dataset within an epoch, in a loop that does not use `steps`.

        Args:
            mode: train, eval, test or infer.
            ds_id: The dataset.
            epoch: The epoch that the rows will name; the current one when None, or where it is no whole number, which
                is told.

        Returns:
            Its number in that epoch, from 0: how many walks had rows there.

        Raises:
            ValueError: With `strict`: the epoch is no whole number.
        """
        state, at = self.state, MODES.get(mode) or unknown_mode(mode)
        try:
            named = None if epoch is None else whole_number("epoch", epoch)
        except ValueError as error:
            if self.strict:
                raise
            named = None
            self._process.ledger.warn(
                "begin_pass",
                f"xai: begin_pass: {error}: its number in the current epoch, {state.epoch_of_rows}, is given",
            )
        return state.begin_pass(at, ds_id, named)

    def _resumes_at(self) -> TakesBack | None:
        """Where the caller said that the training goes on."""
        said = self._process.takes_back
        return said if said and said.by == "resume_from" else None

    def _publish(self) -> None:
        if not self._process.fault:
            self._process.calls.within(self._publish_now)

    def _publish_now(self) -> None:
        try:
            self.state.note_start(self._process.settle().attempt, self._environment)
            self.state.publish()
        except Exception as error:
            self._process.ledger.warn("publish", f"xai: the summary cannot be written: {error}")


@dataclass(frozen=True)
class _Opening:
    """What a run was opened with that each of its attempts is."""

    fresh: Manifest
    rank: int | None
    ignore_label: int | str | None
    float64: Collection[str]


class Run(Loops, Records):
    """Records one training into a run directory.

    Logging never raises into training unless `strict`: what cannot be stored is dropped, counted and warned about once.

    Attributes:
        layout: The run directory's paths.
        state: Mode, epoch and step where `log_samples` is not told them; saved and restored with the training.
    """

    def __init__(
        self,
        run_dir: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        name: str | None = None,
        config: Any = None,
        total_epochs: int = 0,
        label_names: Sequence[str] | Mapping[int, str] | Mapping[str, int] | None = None,
        epoch_frequency: int = 1,
        keep_probs: bool | Collection[int] = False,
        resume: str = "allow",
        rank: int | None = None,
        strict: bool = False,
        float64: Collection[str] | str = (),
        resume_from: tuple[int, int] | None = None,
        task: str | None = None,
        ignore_label: int | str | None = -100,
        keep_tokens: bool = False,
        facts: str | os.PathLike[str] | None = None,
    ) -> None:
        """
        Args:
            run_dir: The run directory; made, or continued as a new attempt. Of an address like s3://bucket/run a
                local folder is recorded to, and its files are uploaded in the background.
            name: The run's name.
            config: What the training was configured with, shown in reports: a mapping, `Namespace`, dataclass,
                OmegaConf. What JSON cannot hold is kept as text; texts are masked under a name one of whose words is
                key, token, secret, password or the like.
            total_epochs: Epochs the training is meant to run for.
            label_names: The classes' names, in the order of the logits, or {class: name}, or {name: class}.
            epoch_frequency: Record the samples of every n-th epoch only: those it divides.
            keep_probs: Keep the class probabilities (float16), in all epochs or in those listed; of tasks with one
                class a sample, others say once that theirs are not kept.
            resume: "allow" continues a run or begins one, "never" refuses to continue, "must" refuses to begin.
            rank: The process's rank; when None or negative that of the process group or `RANK`, looked up when the
                first row comes.
            strict: Raise what else would be counted and warned about.
            float64: Metrics of yours to be kept in double precision; what follows from logits is of single precision.
            resume_from: (epoch, step) that the training goes on from: what earlier attempts recorded there and later is
                taken back, and `state`, `epochs` and `steps` go on there. When None the first `train` row says it, or
                `state.load_state`.
            task: What an output means: classification, binary, multilabel, regression or sequence; taken from the first
                batch when None.
            ignore_label: The label that stands for none, by its number or its name in `label_names`: such a sample is
                neither right nor wrong. None for no such.
                Of a regression -100 is a number like any other; another one is honoured.
            keep_tokens: Of sequences, keep the loss of every token (float16).
            facts: A CSV, Parquet or JSON-lines file of what the samples are, as of `log_facts`.

        Raises:
            XaiError: The directory's state contradicts `resume`, its format is newer, or the system is Windows.
            UsageError: There is no such task, or `run_dir` is no path.
            ValueError: `epoch_frequency` is less than 1, `total_epochs` or `rank` no whole number, `label_names` or
                `float64` no names, `resume_from` no pair of whole numbers, `keep_probs` no list
                of epochs, or `ignore_label` no label.
        """
        need_locks()
        self._epoch_frequency = nth_epochs(epoch_frequency)
        self._keep_probs = epochs_kept(keep_probs)
        ignore_label = ignored_label(ignore_label)
        takes_back = resume_place(resume_from)
        meant, names, wide = epochs_meant(total_epochs), names_of_classes(label_names), names_of_metrics(float64)
        rank = checked_rank(rank)
        address = run_address(run_dir)
        self._uploader = _uploader(address)
        root = (self._uploader.root if self._uploader else Path(address)).absolute()
        self.strict = strict
        settings = plain_config(config)
        fresh = Manifest(
            run_id=uuid.uuid4().hex,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            name=name,
            label_names=names,
            task=None if task is None else str(task_named(task)),
            ignore_label=ignore_label,
            epoch_frequency=self._epoch_frequency,
            keep_probs=self._keep_probs if isinstance(self._keep_probs, bool) else tuple(sorted(self._keep_probs)),
            config=settings,
            environment=describe_environment(settings),
        )
        self._opening = _Opening(fresh, rank, ignore_label, wide)
        self._keep_tokens = keep_tokens
        self._open(root, resume, takes_back)
        self.state: State = TrainingState(
            self.layout,
            name=name,
            total_epochs=meant,
            rank=lambda: self.rank,
            on_save=self.flush,
            on_load=self._note_resumed,
            on_fault=self._tell,
            earlier_pass=self._earlier_pass,
        )
        if takes_back:
            self.state.stand_at(takes_back.epoch, takes_back.step)
        self._environment = fresh.environment
        self._begin()
        leave_to_python(*_CALLED_IN_STEPS)
        if facts is not None:
            self.log_facts(facts=facts)

    def _open(self, root: Path, resume: str, takes_back: TakesBack | None) -> None:
        """Open the run directory, as the process that records into it."""
        self._process = Process(
            root,
            self._opening.fresh,
            rank=self._opening.rank,
            resume=resume,
            strict=self.strict,
            takes_back=takes_back,
            ignore_label=self._opening.ignore_label,
        )
        self._process.is_uploaded = self._uploader is not None
        self._calls = self._process.calls
        self._closed = False
        self.layout = self._process.layout

    def _begin(self) -> None:
        """Begin to record, with nothing known of what was."""
        meant_by = weakref.ref(self.state)  # the writer, which has the process, keeps no run alive
        self._process.total_epochs = lambda: state.total_epochs if (state := meant_by()) else 0
        self._after_all: tuple[int, int] | None = None
        self._stepless: int | None = None
        self._trained: tuple[int, int] | None = None
        self._earlier: Earlier | None = None
        batches = Batches(
            self._process.catalogue,
            label_names=self.manifest.label_names,
            float64=self._opening.float64,
            refuse=self._refuse_column,
            drop=lambda rows, reason: self._refuse(ValueError(reason), rows),
            strict=self.strict,
            task=task_named(self.manifest.task),
            ignore_label=self._opening.ignore_label,
            note=self._note,
            alter=self._process.ledger.alter,
            ignore=self._process.ledger.ignore,
        )
        self._intake = Intake(batches, self._process.samples, self._refuse, self._lose)
        if not self.strict:  # which raises, and in the training's thread alone
            self._process.keep_arrived = _if_alive(self._intake)
        self._ended = False
        self._places: dict[tuple[Folder, int | None], Place] = {}
        self._kinds: dict[str, str] = {}
        self._fact_kinds: dict[str, Any] = {}
        self._facts_before = False
        self._unnamed = Repeats()
        self._walks_again = set()
        self._left_in = None
        self._counted = False
        self._unusable: ValueError | None = None
        if self._process.fault:
            self._unusable = _FaultError(self._process.fault)
        process.watch(self)

    # -- logging

    def log_samples(
        self,
        *,
        sample_id: Any,
        label: Any = None,
        prediction: Any = None,
        logits: Any = None,
        probs: Any = None,
        mode: str | None = None,
        ds_id: str | None = None,
        epoch: int | None = None,
        step: int | None = None,
        eval_pass: int | None = None,
        keep_tokens: bool | None = None,
        **metrics: Any,
    ) -> None:
        """Record one row a sample.

        With `logits` or `probs`, (N, K), the prediction and the metrics of `vocabulary.DERIVED_METRICS` are added.

        Args:
            sample_id: (N,) whole numbers or texts, one kind a run; paths and UUIDs are texts.
            label: (N,) whole numbers or texts, None where one is missing; (N, K) probabilities; of a multilabel task
                (N, K) of 0 and 1 or lists of classes, of a regression real numbers, of a sequence (N, T).
            prediction: (N,) of the label's kind.
            logits: (N, K); of (N, 1) or (N,) each is the logit of the second of two classes; of a sequence (N, T, K).
            probs: (N, K), rows summing to 1, or the second class's as with logits.
            mode: train, eval, test or infer; `state.mode` when None.
            ds_id: The dataset; `state.ds_id` when None.
            epoch: `state.epoch_idx` when None.
            step: `state.global_step` when None. Where that is None too: 0 for a training, so that one which is opened
                again takes back the epoch it names and those after it; for all else, and for a training that names no
                epoch, the step after the last of earlier attempts, so that nothing is taken back.
            eval_pass: Which walk over the dataset within the epoch this is, from 0; when None that which `steps` or
                `begin_pass` has begun, or 0. Those begin the pass after the last one that was named.
            keep_tokens: Keep the loss of every token of a sequence; what the run was opened with when None.
            **metrics: (N,) numbers each.

        Raises:
            ValueError: With `strict`: a column cannot be kept; it is named. Else it alone is left out, and counted.
        """
        calls = self._calls
        lock = calls.lock
        if lock.locked():
            given = (sample_id, label, prediction, logits, probs, metrics)
            self._put_samples_aside(given, _Named(mode, ds_id, epoch, step, eval_pass, keep_tokens))
            return
        try:
            with lock:
                try:
                    state = self.state
                    if self._unusable is None and logits is None and probs is None and eval_pass is None:
                        # It may be like the one before, in a place where there were some.
                        here = state.here
                        at_epoch = (state.epoch_idx if here.epoch is None else here.epoch) if epoch is None else epoch
                        # An epoch of 0 that no caller names is looked at for samples that come again.
                        if type(at_epoch) is int and (at_epoch or epoch is not None) and here.ended is None:
                            folder = (mode or here.mode or "train", here.ds_id if ds_id is None else ds_id, at_epoch)
                            place = self._places.get((folder, here.passes.get(folder)))
                            at_step = state.global_step if step is None else step
                            if place is not None and self._intake.add_usual(
                                place, at_step, sample_id, label, prediction, metrics
                            ):
                                return
                    given = (sample_id, label, prediction, logits, probs, metrics)
                    self._add_samples(given, _Named(mode, ds_id, epoch, step, eval_pass, keep_tokens))
                except Exception as error:
                    self._refuse(error, count(sample_id, label, prediction, logits, probs, *metrics.values()))
        finally:
            if calls.aside or calls.after or process.is_pending():
                self._leave()

    def _add_samples(self, given: _Given, named: _Named, walk: Turns | None = None) -> None:
        """Record a batch, whatever it is like.

        Args:
            given: Its columns.
            named: Where it belongs, as far as the call says so.
            walk: The walk over the dataset that it is of; that of now when None.
        """
        state, (sample_id, label, prediction, logits, probs, metrics) = self.state, given
        state.note_rows(named.mode and MODES.get(named.mode), named.epoch)
        mode, epoch = named.mode or state.mode or "train", named.epoch
        at_mode = MODES.get(mode) or unknown_mode(mode)
        at_epoch = whole_number("epoch", state.epoch_of_rows if epoch is None else epoch)
        at_step = self._named_step(state.global_step if named.step is None else named.step, sample_id)
        is_named = epoch is not None or bool(at_epoch)
        if at_step is None and not is_named and at_mode == Mode.TRAIN and not self._process.fault:
            at_epoch, _ = self._behind_all()
        if at_epoch % self._epoch_frequency:
            return
        self._need_usable()
        keep = self._keep_probs if isinstance(self._keep_probs, bool) else at_epoch in self._keep_probs
        tokens = self._keep_tokens if named.keep_tokens is None else named.keep_tokens
        folder = (at_mode, state.ds_id if named.ds_id is None else named.ds_id, at_epoch)
        told = None if named.eval_pass is None else self._named_pass(named.eval_pass, sample_id)
        is_first = told is None and folder not in state.begun
        if at_mode == Mode.TRAIN and (at_step is not None or (is_named and not told)):
            self._note_trained(at_epoch, at_step)
        turn = state.pass_of(folder, walk) if told is None else state.note_pass(folder, told)
        begins = is_named and at_mode == Mode.TRAIN and (is_first or not turn)
        at_step = self._step_without_any(at_epoch, begins) if at_step is None else at_step
        if epoch is None and not at_epoch and not self._unnamed.is_said:
            self._look_for_repeats(folder, turn, sample_id)
        place = self._places.get((folder, turn))
        if place is None:
            place = self._places[folder, turn] = checked_place(*folder, turn)
        self._intake.add(place, at_step, sample_id, label, prediction, logits, probs, metrics, keep, tokens)

    def _put_samples_aside(self, given: _Given, named: _Named) -> None:
        """Record a batch that comes from within a call when that is done, in the place where it was logged."""
        state = self.state
        state.note_rows(named.mode and MODES.get(named.mode), named.epoch)
        mode, ds_id = named.mode or state.mode or "train", state.ds_id if named.ds_id is None else named.ds_id
        walk = state.walk_of(MODES[mode], ds_id) if mode in MODES else None
        epoch = (state.epoch_of_rows or None) if named.epoch is None else named.epoch
        step = state.global_step if named.step is None else named.step
        here = replace(named, mode=mode, ds_id=ds_id, epoch=epoch, step=step)
        rows = count(*given[:-1], *given[-1].values())

        def add(held: _Given) -> None:
            try:
                self._add_samples(held, here, walk)
            except Exception as error:
                self._refuse(error, rows)

        self._make("", lambda: rows, add, given)

    def miss(self, rows: int, reason: str) -> None:
        """Count rows that a training had and that could not be taken from it, with the reason.

        Raises:
            ValueError: With `strict`.
        """
        self._make("", lambda: rows, lambda: self._refuse(ValueError(reason), rows))

    def _look_for_repeats(self, folder: Folder, turn: int, sample_id: Any) -> None:
        """Say once that a loop which names no epochs comes to samples again: their rows are all of epoch 0."""
        mode, ds_id, _ = folder
        if turn and (mode, ds_id) in self._walks_again:
            self._unnamed.is_said = True
            self._note(
                f"run.steps goes through {mode}{ds_id and f' {ds_id}'} again, and the loop names no epochs: each walk "
                "is a pass of epoch 0. Write: for epoch in run.epochs(n): ..., or log_samples(..., epoch=epoch)"
            )
            return
        again = self._unnamed.again((folder, turn), sample_id)
        if again is not None:
            self._note(
                f"sample {again!r} comes again in {mode}{ds_id and f' {ds_id}'}, and the loop names no epochs: all "
                "rows are in epoch 0, where the last of a sample counts. Write: for epoch in run.epochs(n): ..., or "
                "log_samples(..., epoch=epoch)"
            )

    def _named_step(self, step: Any, sample_id: Any) -> int | None:
        """The step a caller named, if any; the run's own where it is no number, which is told."""
        if step is None:
            return None
        try:
            return whole_number("step", step, 63)
        except ValueError as error:
            self._refuse_column("step", str(error), count(sample_id))
            own = self.state.global_step
            return own if type(own) is int else None

    def _named_pass(self, eval_pass: Any, sample_id: Any) -> int | None:
        """The pass a caller named; None, told of, where it is none."""
        try:
            turn = whole_number("eval_pass", eval_pass)
            if not 0 <= turn < 2**15:
                raise ValueError(f"eval_pass {turn} is not a number from 0 to {2**15 - 1}")
        except ValueError as error:
            self._refuse_column("eval_pass", str(error), count(sample_id))
            return None
        return turn

    # -- life

    @property
    def keeps_tokens(self) -> bool:
        """Whether the loss of every token of a sequence is kept, where `log_samples` does not say otherwise."""
        return self._keep_tokens

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def flush(self) -> None:
        """Put everything logged so far into files; they survive power loss when this returns.

        Called from within another call, as by the handler of a signal, it is done when that ends.

        Raises:
            XaiError: With `strict`: something could not be written.
        """
        if self._calls.is_within:
            if not self._closed and self.flush not in self._calls.after:
                self._calls.after.append(self.flush)
            return
        try:
            if not self.flush_within(None) and self.strict:
                raise XaiError(f"{self.layout.root}: not everything could be written", hint="see the warning before")
        finally:
            self._leave()

    def flush_within(self, seconds: float | None) -> bool:
        """Flush for at most this long; False where not everything could be written."""
        if self._closed:
            return True
        self._publish()
        self._calls.within(lambda: self._intake.drain(math.inf if seconds is None else seconds))
        return self._process.flush(seconds)

    def close(self) -> None:
        """Flush, for a bounded time, and end. What a full disk keeps out is counted.

        Called from within another call, as by the handler of a signal, it is done when that ends.
        """
        if self._ended:
            return
        if self._calls.is_within:
            if not self._closed and self.close not in self._calls.after:
                self._calls.after.append(self.close)
            return
        if is_background():  # the writer cannot wait for itself
            process.let_go(self)
            return
        process.close_within(self.note_end)
        try:
            self._closed = True
            with self._calls.lock:
                self._end()
        finally:
            self._leave()
        process.forget(self)

    def note_end(self, by: str) -> None:
        """Say what ended the training, where it did not come to its end: `xai ls` and `watch` tell it as crashed.

        Args:
            by: The name of an exception or signal.
        """
        self._process.note_end(by)

    def _end(self) -> None:
        self._unusable = ValueError(f"the run {self.layout.root} is being closed")
        # Interrupted anywhere, a second call finishes what is left.
        for end in (self._publish, self._end_transfers, self._process.close, self._end_uploads):
            try:
                end()
            except Exception as error:  # the training's own error must be what leaves its `with` block
                self._process.ledger.warn(f"close {end.__name__}", f"xai: closing {self.layout.root}: {error}")
        self._unusable = ValueError(f"the run {self.layout.root} is closed")
        self._ended = True

    def reopen(self) -> bool:
        """Go on recording after `close`, in the same attempt and as if it had stayed open.

        Returns:
            False where that cannot be, and a new `Run` goes on with the directory: another attempt has begun since, the
            directory is gone, its disk refused something, or this is another process.
        """
        if not self._ended:
            return False
        if self._uploader is not None:  # which fetches the attempts that others have begun
            self._uploader = _uploader(self._uploader.url)
        if not self._process.reopen():
            self._end_uploads()
            return False
        self._unusable = None
        self._closed = self._ended = False
        process.watch(self)
        return True

    def begin_attempt(self) -> bool:
        """Go on as another attempt, as a new `Run` on the closed run's directory would, also after `close`.

        For a training that goes back to a checkpoint: the first of its `train` rows says from where on what was
        recorded before is taken back. Where this attempt has no rows, it goes on itself.

        Returns:
            Whether another one begins.

        Raises:
            XaiError: With `strict`: the disk refuses.
        """
        if not (self._trained or self.state.begun):
            self.reopen()
            return False
        self.close()
        if not self._ended:  # from within another call
            return False
        if self._uploader is not None:
            self._uploader = _uploader(self._uploader.url)
        self._open(self.layout.root, "allow", None)
        self.state.set_passes({})
        self._begin()
        return True

    def _end_transfers(self) -> None:
        self._intake.drain(DRAIN_SECONDS)
        self._intake.tell_last()

    def _end_uploads(self) -> None:
        if self._uploader is not None:
            with quietly():
                self._uploader.close()

    def __del__(self) -> None:
        if getattr(self, "_ended", True):
            return
        process.let_go(self)

    def is_busy(self) -> bool:
        """Whether this thread, interrupted by a signal, is in the middle of a call."""
        return self._calls.is_within

    def _leave(self) -> None:
        """At the end of a call: make those that came from within it, and heed a SIGTERM."""
        if self._calls.is_within:
            return
        try:
            self._calls.finish()
        finally:
            if process.is_pending():
                process.finish_pending()

    def stats(self) -> dict[str, Any]:
        """Counters: rows logged, stored, dropped (and why), stalls, files, bytes."""
        self._process.count_foreign()
        return self._process.ledger.stats()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if by := process.ending(value):
            self.note_end(by)
        self.close()

    def _note_resumed(self, epoch: int, step: int) -> None:
        """Called by `state.load_state` with the epoch and the first step that will be logged."""
        with contextlib.suppress(OSError):
            self._process.take_back(TakesBack(epoch, step, "load_state"))

    def _note_trained(self, epoch: int, step: int | None) -> None:
        """Note from where on the `train` rows of this process take back those of earlier attempts.

        Args:
            epoch: Theirs.
            step: Theirs; None where they come with none.
        """
        if step is None:
            said = self._resumes_at()
            step = self._stepless if self._stepless is not None else said.step if said else 0
        if self._trained is None or (epoch, step) < self._trained:
            self._trained = epoch, step

    def _earlier_pass(self, folder: Folder) -> int:
        """The last pass of a mode, dataset and epoch that remains of earlier attempts; -1 without any."""
        said = self._process.takes_back
        takes_back = (said.epoch, said.step) if said else self._trained
        if takes_back is None and folder[0] == Mode.TRAIN:
            return -1  # its rows say from where on it goes again
        if self._closed:
            return -1
        try:
            claim = self._process.settle()
            if not claim.attempt or self._process.fault:
                return -1
            if self._earlier is None or claim.beside:  # others go on
                self._earlier = Earlier(self.layout, claim.attempt, claim.beside)
            return self._earlier.last_pass(folder, takes_back)
        except Exception as error:
            self._process.ledger.warn(
                "earlier passes", f"xai: passes are counted from 0, since those recorded before cannot be read: {error}"
            )
            return -1

    def _behind_all(self) -> tuple[int, int]:
        """The last epoch of earlier attempts, and the step after its last."""
        if self._after_all is None:
            attempt = self.attempt
            last_epoch, last_step = last_place(self.layout, attempt) if attempt else (0, -1)
            self._after_all = last_epoch, last_step + 1
        return self._after_all

    def _step_without_any(self, epoch: int, begins_epoch: bool) -> int:
        """The step of rows that come with none, before the training's first.

        A training that is opened again and names the epoch trains all of it again: its rows are at the first step, so
        that the epoch is taken back whole. All else comes behind what earlier attempts recorded.

        Args:
            epoch: Theirs.
            begins_epoch: Whether they are `train` rows of an epoch's first pass that is known by name.
        """
        if begins_epoch and self._stepless is None:
            said = self._resumes_at()
            # A state without a step is of the end of an epoch, whose rows are at step 0.
            self._stepless = said.step if said else 0
            if not self._process.takes_back and self.attempt:
                self._tell_of_restart(epoch)
        return self._behind_all()[1] if self._stepless is None else self._stepless

    def _tell_of_restart(self, epoch: int) -> None:
        """Say what a restart that names an epoch and no step takes back."""
        claim = self._process.settle()
        gone = {file.part.attempt for file in self.layout.data_files() if file.epoch >= epoch}
        earlier = sorted(number for number in gone if number < claim.attempt)
        if earlier and not claim.beside:
            named = f"attempt{'s'[: len(earlier) != 1]} {', '.join(map(str, earlier))}"
            self._note(
                f"{self.layout.root} goes on with epoch {epoch}, and no step is named: what {named} recorded of that "
                "epoch and later ones is taken back (--attempts all counts it). If it goes on within the epoch: "
                "Run(resume_from=(epoch, step)), or log_samples(..., step=step)"
            )

    def _need_usable(self) -> None:
        """
        Raises:
            ValueError: Nothing can be recorded: the run is closed, another process's, or its disk refuses it still.
        """
        if isinstance(self._unusable, _FaultError) and not self._process.fault:
            self._unusable = None
        if self._unusable is not None:
            raise self._unusable

    def become_foreign(self) -> None:
        """Called in a fork: the run belongs to the process that opened it."""
        self._closed = self._ended = True
        self._unusable = ForeignProcessError()

    def _note(self, message: str) -> None:
        self._process.ledger.warn(kind_of(message), f"xai: {message}")

    def _lose(self, rows: int, reason: str) -> None:
        """Count rows that were accepted and did not arrive."""
        self._process.ledger.rows_logged += rows
        self._process.ledger.drop(rows, reason)

    def _refuse_column(self, column: str, reason: str, rows: int) -> None:
        """Count a column that is left out of rows that are kept; raise with `strict`."""
        self._count_unless_strict(self._process.ledger.refuse, column, reason, rows)

    def _alter_record(self, column: str, reason: str, records: int = 1) -> None:
        self._count_unless_strict(self._process.ledger.alter, column, reason, records)

    def _drop_record(self, column: str, reason: str, records: int = 1) -> None:
        self._count_unless_strict(self._process.ledger.drop_record, column, reason, records)

    def _count_unless_strict(self, count_in: Callable[[str, str, int], None], column: str, reason: str, n: int) -> None:
        if self.strict:
            raise ValueError(reason)
        with contextlib.suppress(OSError):
            self._process.settle()
        count_in(column, reason, n)

    def _refuse(self, error: Exception, rows: int | None, folder: str = "", records: int = 1) -> None:
        """Count a batch of rows, or (None) records of a folder, that cannot be stored; raise with `strict`."""
        if self.strict:
            raise error
        if isinstance(error, ForeignProcessError):
            warn_foreign_process()
            self._process.foreign.add(rows or 0, records if rows is None else 0)
            return
        ledger, reason = self._process.ledger, str(error) or type(error).__name__
        if not self._closed:
            with contextlib.suppress(OSError):
                self._process.settle()
        if rows is None:
            ledger.drop_record(folder, reason, records)
        else:
            ledger.rows_logged += rows
            ledger.drop(rows, reason)

    @property
    def attempt(self) -> int:
        """The restart number of this process's launch, from 0."""
        return self._process.identity[0]

    @property
    def rank(self) -> int:
        """The process's rank."""
        return self._process.identity[1]

    def __getstate__(self) -> Any:
        raise XaiError(
            "a run cannot be sent to another process",
            hint="return the values from the worker and log them in the training loop",
        )


class _FaultError(ValueError):
    """The run directory cannot be written, which is tried again."""


_CALLED_IN_STEPS = (Run.log_samples, Run.log, Run.log_images, Run.log_inputs, Run.log_facts, Run.flush)


def _if_alive(intake: Intake) -> Callable[[], None]:
    """Keep what has arrived, without holding the run: the writer's thread, which calls this, outlives it."""
    found = weakref.ref(intake)

    def keep_arrived() -> None:
        if (alive := found()) is not None:
            alive.drain()

    return keep_arrived


def _uploader(address: str) -> Uploader | None:
    """What follows a run that has an address in an object store."""
    if not is_url(address):
        return None
    from xaicli.store.sync import Uploader

    uploader = Uploader(address)
    with quietly():
        uploader.start()
    return uploader


class _Own(threading.local):
    run: Run | None = None


_own = _Own()
"""The run that each thread made the active one."""
_latest: Run | None = None
"""The one made so last; for threads that made none."""


def init(run_dir: str | os.PathLike[str] | None = None, **options: Any) -> Run:
    """Open a run and make it the active one; the one that the same thread made so before is closed.

    Each of several threads has the run that it opened itself; one that opened none has that which was opened last.

    Args:
        run_dir: The run directory; `runs/<date>-<time>` when None.
        **options: Those of `Run`.
    """
    global _latest
    if _own.run is not None:
        _own.run.close()
    place = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}" if run_dir is None else run_dir
    _own.run = _latest = Run(place, **options)
    return _latest


def log(
    values: Mapping[str, Any],
    *,
    step: int | None = None,
    epoch: int | None = None,
    mode: str | None = None,
    ds_id: str | None = None,
) -> None:
    """Record per-step values on the active run; see `Run.log`.

    Raises:
        ValueError: There is no active run.
    """
    active_run().log(values, step=step, epoch=epoch, mode=mode, ds_id=ds_id)


def active_run() -> Run:
    """The run that `init` opened in this thread or, where it opened none, last in any.

    Raises:
        ValueError: There is none, or it is closed.
    """
    run = _own.run or _latest
    if run is None or run.is_closed:
        raise ValueError("there is no active run; open one with xaicli.init(run_dir)")
    return run
