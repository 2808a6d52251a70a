"""Recording a Lightning training: `trainer = Trainer(callbacks=[XaiCallback("runs/exp1")])`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch

from xaicli.errors import XaiError
from xaicli.integrations.recording import Recording
from xaicli.integrations.tap import Passed, ids_of
from xaicli.vocabulary import Mode


def _callback_class() -> Any:
    """Lightning's `Callback`, under either of the package's names."""
    for name in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"):
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise XaiError("Lightning is not installed", hint="pip install 'xaicli[lightning]'")


_Callback: Any = _callback_class()


class XaiCallback(_Callback):  # type: ignore[misc]
    """Logs every sample of training, validation and test, collects metrics at chosen epochs, saves model and inputs.

    The dataset yields (id, input, label), or a dict with `sample_id`. The logits are `logits` of what `training_step`
    returns, else what the module's own `forward` returned in that step. Training rows come from moving weights and
    augmented inputs; collected tables do not.

    Args:
        run: An open run, or where to record one.
        **options: Those of `xaicli.integrations.recording.Recording`: samples_fn, tables, collectors, collect_epochs,
            collect_before, dataloader_args, keep_inputs, save_checkpoint, label_names.
    """

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__()
        self._recording = Recording(run, **options)
        self._epoch = 0

    @property
    def run(self) -> Any:
        """The run that is recorded."""
        return self._recording.run

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run and watch the module."""
        self._recording.is_main = trainer.is_global_zero
        self.run.state.total_epochs = max(trainer.max_epochs or 0, 0)
        self._recording.begin(pl_module, _look_on)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch the module."""
        self._recording.is_main = trainer.is_global_zero
        self._recording.begin(pl_module, _look_on)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the epoch, from 1."""
        del pl_module
        self._epoch = trainer.current_epoch + 1
        self.run.state.epoch_idx = self._epoch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the batch."""
        del pl_module
        self.run.state.batch_idx, self.run.state.global_step = batch_idx, trainer.global_step
        self._log(outputs, batch, Mode.TRAIN)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Log the batch, unless it is of the sanity check before training."""
        del pl_module, batch_idx
        if not trainer.sanity_checking:
            self._log(outputs, batch, Mode.EVAL, str(dataloader_idx) if dataloader_idx else "")

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Log the batch."""
        del trainer, pl_module, batch_idx
        self._log(outputs, batch, Mode.TEST, str(dataloader_idx) if dataloader_idx else "")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the epoch's scalars and collect if it is time."""
        scalars = {name: float(value) for name, value in trainer.callback_metrics.items() if torch.numel(value) == 1}
        if scalars:
            self.run.log({"epoch": self._epoch, **scalars})
        self._recording.epoch_end(pl_module, self._epoch)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect if it is time, save, let go."""
        del trainer
        self._recording.end(pl_module, self._epoch)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of the module."""
        del trainer, pl_module
        self._recording.release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep what was logged, let go."""
        del trainer, pl_module, exception
        self._recording.release()

    def _log(self, outputs: Any, batch: Any, mode: Mode, ds_id: str = "") -> None:
        passed = self._recording.take_last()
        has_logits = isinstance(outputs, Mapping) and "logits" in outputs
        output = outputs if has_logits or passed is None else passed.output
        self._recording.log(batch, passed, output=output, sample_id=ids_of(batch), mode=mode.value, ds_id=ds_id)


def _look_on(_passed: Passed) -> None:
    """The batch hooks log; the watching only remembers."""
