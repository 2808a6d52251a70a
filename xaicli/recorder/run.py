"""`Run`: the flight recorder a training loop holds."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.manifest import Manifest
from xaicli.recorder import lifetime, start
from xaicli.recorder.batch import Batches
from xaicli.recorder.beginning import Beginning
from xaicli.recorder.intake import Intake
from xaicli.recorder.ledger import ForeignProcessError, quietly, warn_foreign_process
from xaicli.recorder.loops import MODES, Loops, unknown_mode
from xaicli.recorder.records import Records
from xaicli.recorder.session import Session
from xaicli.state import TrainingState
from xaicli.store.objects import is_url
from xaicli.traceability import describe_environment

if TYPE_CHECKING:
    from xaicli.state import TrainingState as State
    from xaicli.store.upload import Uploader


class Run(Loops, Records):
    """Records one training into a run directory.

    Logging never raises into training unless `strict`: what cannot be stored is dropped, counted and warned about once.

    Attributes:
        layout: The run directory's paths.
        state: Mode, epoch and step where `log_samples` is not told them; saved and restored with the training.
        attempt: The restart number of this process's launch, from 0.
        rank: The process's rank.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        *,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        total_epochs: int = 0,
        label_names: Sequence[str] | None = None,
        epoch_frequency: int = 1,
        keep_probs: bool | Collection[int] = False,
        resume: str = "allow",
        rank: int | None = None,
        strict: bool = False,
        float64: Collection[str] = (),
    ) -> None:
        """
        Args:
            run_dir: The run directory; made, or continued as a new attempt. Of an address like s3://bucket/run a
                local folder is recorded to, and its files are uploaded in the background.
            name: The run's name.
            config: What the training was configured with; shown in reports.
            total_epochs: Epochs the training is meant to run for.
            label_names: The classes' names, in the order of the logits.
            epoch_frequency: Record the samples of every n-th epoch only: those it divides.
            keep_probs: Keep the class probabilities (float16), in all epochs or in those listed.
            resume: "allow" continues a run or begins one, "never" refuses to continue, "must" refuses to begin.
            rank: The process's rank; that of the process group or `RANK` when None.
            strict: Raise what else would be counted and warned about.
            float64: Metrics to be kept in double precision.

        Raises:
            XaiError: The directory's state contradicts `resume`, or its format is newer.
            ValueError: `epoch_frequency` is less than 1.
        """
        if epoch_frequency < 1:
            raise ValueError(f"epoch_frequency={epoch_frequency} must be 1 or more")
        self._uploader = _uploader(os.fspath(run_dir))
        self.layout = RunLayout(self._uploader.root if self._uploader else Path(run_dir))
        self.rank = start.find_rank(rank)
        self.strict = strict
        self._epoch_frequency = epoch_frequency
        self._keep_probs = keep_probs if isinstance(keep_probs, bool) else frozenset(keep_probs)
        fresh = Manifest(
            run_id=uuid.uuid4().hex,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            name=name,
            label_names=tuple(label_names) if label_names else None,
            config=dict(config or {}),
            environment=describe_environment(config),
        )
        self._session = Session(self.layout, fresh, rank=self.rank, resume=resume, strict=strict)
        self.attempt = self._session.attempt
        self.state: State = TrainingState(
            self.layout,
            name=name,
            total_epochs=total_epochs,
            rank=self.rank,
            on_save=self.flush,
            on_load=self._note_resumed,
        )
        self.state.note_start(self.attempt, fresh.environment)
        self._beginning = Beginning(self.layout, self.attempt)
        batches = Batches(
            self._session.catalogue, label_names=self.manifest.label_names, float64=float64, strict=strict
        )
        self._intake = Intake(batches, self._session.samples, self._refuse)
        self._closed = False
        self._unusable: ValueError | None = ValueError(self._session.fault) if self._session.fault else None
        lifetime.watch(self)

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
        **metrics: Any,
    ) -> None:
        """Record one row a sample.

        With `logits` or `probs`, (N, K), the prediction and the metrics of `vocabulary.DERIVED_METRICS` are added.

        Args:
            sample_id: (N,) whole numbers or texts, one kind a run.
            label: (N,) whole numbers or texts.
            prediction: (N,) of the label's kind.
            logits: (N, K); of (N, 1) or (N,) each is the logit of the second of two classes.
            probs: (N, K), rows summing to 1, or the second class's as with logits.
            mode: train, eval, test or infer; `state.mode` when None.
            ds_id: The dataset; `state.ds_id` when None.
            epoch: `state.epoch_idx` when None.
            step: `state.global_step` when None; where that is None too, 0, or in a run that is opened again the step
                after its last, so that nothing recorded before is taken back.
            **metrics: (N,) numbers each.

        Raises:
            ValueError: With `strict`: the batch cannot be stored; the column is named.
        """
        try:
            state = self.state
            at_epoch = state.epoch_idx if epoch is None else int(epoch)
            if at_epoch % self._epoch_frequency:
                return
            at_step = state.global_step if step is None else int(step)
            if at_step is None:
                at_step = self._beginning.step_without_any()
            at_mode = MODES.get(mode or state.mode or "train") or unknown_mode(mode or state.mode)
            if self._unusable is not None:
                raise self._unusable
            keep = self._keep_probs if isinstance(self._keep_probs, bool) else at_epoch in self._keep_probs
            if at_step < self._beginning.noted:
                self._beginning.note(at_step)
            key = (at_mode, state.ds_id if ds_id is None else ds_id, at_epoch)
            self._intake.add(key, at_step, sample_id, label, prediction, logits, probs, metrics, keep)
        except Exception as error:
            self._refuse(error, _length(sample_id))

    # -- life

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def flush(self) -> None:
        """Put everything logged so far into files; they survive power loss when this returns.

        Raises:
            XaiError: With `strict`: something could not be written.
        """
        if not self.flush_within(None) and self.strict:
            raise XaiError(f"{self.layout.root}: not everything could be written", hint="see the warning before")

    def flush_within(self, seconds: float | None) -> bool:
        """Flush for at most this long; False where not everything could be written."""
        if self._closed:
            return True
        self._publish()
        self._intake.drain()
        return self._session.flush(seconds)

    def close(self) -> None:
        """Flush, for a bounded time, and end. What a full disk keeps out is counted."""
        if self._closed:
            return
        self._closed = True
        self._unusable = ValueError(f"the run {self.layout.root} is closed")
        lifetime.forget(self)
        self._publish()
        self._intake.drain()
        self._session.close()
        if self._uploader is not None:
            with quietly():
                self._uploader.close()

    def is_busy(self) -> bool:
        """Whether this thread, interrupted by a signal, is in the middle of keeping a batch."""
        return self._session.samples.is_busy

    def stats(self) -> dict[str, Any]:
        """Counters: rows logged, stored, dropped (and why), stalls, files, bytes."""
        return self._session.ledger.stats()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note_resumed(self, step: int) -> None:
        """Called by `state.load_state` with the first step that will be logged."""
        self._beginning.note(step, certain=True)

    def become_foreign(self) -> None:
        """Called in a fork: the run belongs to the process that opened it."""
        self._closed = True
        self._unusable = ForeignProcessError()

    def _refuse(self, error: Exception, rows: int | None) -> None:
        """Count a batch of rows, or (None) another record, that cannot be stored; raise with `strict`."""
        if self.strict:
            raise error
        if isinstance(error, ForeignProcessError):
            warn_foreign_process()  # the counters belong to the process that opened the run
            return
        ledger, reason = self._session.ledger, str(error) or type(error).__name__
        if rows is None:
            ledger.drop_record(reason)
        else:
            ledger.rows_logged += rows
            ledger.drop(rows, reason)

    def __getstate__(self) -> Any:
        raise XaiError(
            "a run cannot be sent to another process",
            hint="return the values from the worker and log them in the training loop",
        )


def _uploader(address: str) -> Uploader | None:
    """What follows a run that has an address in an object store."""
    if not is_url(address):
        return None
    from xaicli.store.upload import Uploader

    uploader = Uploader(address)
    with quietly():
        uploader.start()
    return uploader


def _length(column: Any) -> int:
    try:
        return len(column)
    except TypeError:
        return 1
