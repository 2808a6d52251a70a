"""What the callbacks of every framework do: log samples, collect at chosen epochs, keep inputs, save the model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from xaicli.collectors.collect import collect_metrics
from xaicli.collectors.outputs import labels_of
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.heads.outputs import tensor_at, where_of
from xaicli.integrations.tap import Passed, Tap, first_of, tensors_of
from xaicli.recorder.run import Run
from xaicli.tables.table import Table

SamplesFn = Callable[[Any, Any], Mapping[str, Any]]
EpochChoice = str | int | Collection[int]
_CHOICES = ("every", "last", "never")
_NO_IDS = (
    "no sample ids in the batch, so per-sample metrics are not logged; let the dataset yield (id, input, label), or a "
    "dict with sample_id, or give samples_fn"
)


class Recording:
    """Records a training that a framework runs; faults are warned about, never raised, unless the run is strict.

    Args:
        run: An open run, or where to record one; such a one is closed at the end.
        samples_fn: (batch, model output) -> the arguments of `Run.log_samples`; by default ids and label are found in
            the batch and logits in the output.
        tables: What metrics are collected over, by split.
        collectors: Metrics collectors or functions.
        collect_epochs: "every", "last", "never", a number n for every n-th, or the epochs themselves.
        collect_before: Also collect before the training, as epoch 0.
        dataloader_args: Of the collections.
        keep_inputs: How many samples' model inputs are kept, of each mode, for saliency.
        save_checkpoint: Whether the model is saved when training ends.
        label_names: The classes' names, for the checkpoint.

    Raises:
        UsageError: The collections make no sense.
    """

    def __init__(
        self,
        run: Run | str | os.PathLike[str],
        *,
        samples_fn: SamplesFn | None = None,
        tables: Table | Mapping[str, Any] | None = None,
        collectors: Any = (),
        collect_epochs: EpochChoice = "last",
        collect_before: bool = False,
        dataloader_args: Mapping[str, Any] | None = None,
        keep_inputs: int = 32,
        save_checkpoint: bool = True,
        label_names: Sequence[str] | None = None,
    ) -> None:
        self._given = run
        self._samples_fn = samples_fn
        self._tables = dict(tables) if isinstance(tables, Mapping) else {"": tables} if tables is not None else {}
        self._collectors = list(collectors) if isinstance(collectors, (list, tuple)) else [collectors]
        if bool(self._tables) != bool(self._collectors):
            raise UsageError(
                "tables and collectors belong together",
                hint="tables={'val': table}, collectors=[xaicli.ClassificationMetricsCollector()]",
            )
        if isinstance(collect_epochs, str) and collect_epochs not in _CHOICES:
            raise unknown("choice of epochs", collect_epochs, _CHOICES, plural="choices of epochs")
        self._epochs = collect_epochs
        self._before = collect_before
        self._dataloader_args = dict(dataloader_args or {})
        self._wanted_inputs = keep_inputs
        self._wants_checkpoint = save_checkpoint
        self._label_names = label_names
        self._run: Run | None = run if isinstance(run, Run) else None
        self._tap: Tap | None = None
        self._last: Passed | None = None
        self._kept: dict[str, int] = {}
        self._example: Any = None
        self._told: set[str] = set()
        self._collected: int | None = None
        self.is_main = True
        """Whether this process collects and saves."""

    @property
    def run(self) -> Run:
        """The run; opened when it is first needed."""
        if self._run is None or (self._run.is_closed and not isinstance(self._given, Run)):
            self._run = Run(self._given) if not isinstance(self._given, Run) else self._given
        return self._run

    def begin(self, model: nn.Module, seen: Callable[[Passed], None]) -> None:
        """Training starts: watch the model, collect if so wished."""
        if self._tap is None:
            self._tap = Tap(model, lambda passed: self._guarded("watching the model", lambda: self._see(passed, seen)))
        if self._before:
            self.collect(model, 0)

    def log(
        self, batch: Any, passed: Passed | None, *, output: Any, sample_id: Any, mode: str, ds_id: str = ""
    ) -> None:
        """Log one batch's samples, and keep inputs as long as some are wanted.

        Args:
            batch: The batch as the loop had it.
            passed: The forward that was made of it, if it was seen.
            output: What holds the logits.
            sample_id: Its ids; None if there are none.
            mode: train, eval or test.
            ds_id: The dataset.
        """
        self.run.state.mode, self.run.state.ds_id = mode, ds_id
        self._guarded("logging samples", lambda: self._log(batch, passed, output, sample_id))

    def epoch_end(self, model: nn.Module, epoch: int, *, is_last: bool = False) -> None:
        """Collect if this epoch is one to collect at."""
        if self._is_due(epoch, is_last):
            self.collect(model, epoch)

    def end(self, model: nn.Module, epoch: int) -> None:
        """Training is over: collect if that was asked for the last epoch, save, let go of the model."""
        if self._is_due(epoch, True):
            self.collect(model, epoch)
        self._let_go()
        if self._wants_checkpoint and self.is_main:
            self._guarded("saving the checkpoint", lambda: self._save(model))
        self.release()

    def release(self) -> None:
        """Leave the model as it was; close the run if it was opened here."""
        self._let_go()
        if self._run is not None:
            if isinstance(self._given, Run):
                self._guarded("flushing", self._run.flush)
            else:
                self._run.close()

    def collect(self, model: nn.Module, epoch: int) -> None:
        """One inference pass over every table."""
        if not self.is_main or not self._tables or self._collected == epoch:
            return
        self._collected = epoch
        for split, table in self._tables.items():
            one_pass = partial(self._pass, model, split, table, epoch)
            self._guarded(f"collecting over {split or 'the table'}", one_pass)

    def take_last(self) -> Passed | None:
        """The last forward of the model since this was asked."""
        last, self._last = self._last, None
        return last

    def _let_go(self) -> None:
        if self._tap is not None:
            self._tap.remove()
            self._tap = None

    def _is_due(self, epoch: int, is_last: bool) -> bool:
        match self._epochs:
            case "every":
                return True
            case "last":
                return is_last
            case "never":
                return False
            case int(every):
                return every > 0 and epoch % every == 0
            case chosen:
                return epoch in chosen

    def _pass(self, model: nn.Module, split: str, table: Any, epoch: int) -> None:
        assert self._tap is not None
        with self._tap.paused():
            collect_metrics(
                table,
                self._collectors,
                model,
                constants={"epoch": epoch},
                split=split,
                run=self.run,
                dataloader_args=self._dataloader_args,
            )

    def _see(self, passed: Passed, seen: Callable[[Passed], None]) -> None:
        self._last = passed
        seen(passed)

    def _log(self, batch: Any, passed: Passed | None, output: Any, sample_id: Any) -> None:
        if self._samples_fn is not None:
            columns = dict(self._samples_fn(batch, output))
        else:
            columns = {"sample_id": sample_id, "label": _third_or_label(batch), "logits": _class_logits(output)}
        if columns.get("sample_id") is None:
            self._tell(_NO_IDS)
            return
        self.run.log_samples(**columns)
        inputs = None if passed is None else tensors_of(passed)
        if inputs is not None:
            self._keep(inputs, columns)

    def _keep(self, inputs: Any, columns: Mapping[str, Any]) -> None:
        """Keep the first inputs of a mode, and an example to export the model with."""
        mode = self.run.state.mode or ""
        missing = self._wanted_inputs - self._kept.get(mode, 0)
        if self._example is None:
            self._example = first_of(inputs, 2)
        if missing > 0:
            label = columns.get("label")
            ids = columns["sample_id"][:missing]
            self.run.log_inputs(ids, first_of(inputs, missing), None if label is None else label[:missing])
            self._kept[mode] = self._kept.get(mode, 0) + len(ids)

    def _save(self, model: nn.Module) -> None:
        with warnings.catch_warnings():
            # Tracing another's forward warns about many things that are not the caller's.
            warnings.simplefilter("ignore", UserWarning)
            self.run.save_checkpoint(model, example_inputs=self._example, label_names=self._label_names)

    def _guarded(self, doing: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:
            if self._run is not None and self._run.strict:
                raise
            hint = f" ({error.hint})" if isinstance(error, XaiError) and error.hint else ""
            self._tell(f"{doing} failed: {error}{hint}")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(f"xai: {what}", stacklevel=3)


def _third_or_label(batch: Any) -> Any:
    """The labels: third of (id, input, label), or as in a batch without ids."""
    return batch[2] if isinstance(batch, (list, tuple)) and len(batch) > 2 else labels_of(batch)


def _class_logits(output: Any) -> torch.Tensor:
    logits = tensor_at(output, where_of(output)[0])
    if logits.ndim != 2:
        raise XaiError(
            f"the model's output has shape {tuple(logits.shape)}, not (samples, classes)",
            hint="return {'loss': loss, 'logits': logits} from training_step, or give samples_fn",
        )
    return logits.detach()
