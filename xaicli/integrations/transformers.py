"""Recording a training by the transformers `Trainer`: `Trainer(..., callbacks=[XaiCallback("runs/exp1")])`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from xaicli.errors import XaiError
from xaicli.integrations.recording import Recording
from xaicli.integrations.tap import Passed
from xaicli.vocabulary import Mode


def _callback_class() -> Any:
    try:
        return import_module("transformers").TrainerCallback
    except ImportError as error:
        raise XaiError("transformers is not installed", hint="pip install 'xaicli[transformers]'") from error


_Callback: Any = _callback_class()


class XaiCallback(_Callback):  # type: ignore[misc]
    """Logs every sample of training and evaluation, collects metrics at chosen epochs, saves model and inputs.

    The dataset yields dicts with `sample_id` (whole numbers) beside the model's inputs and `labels`, and the arguments
    say `remove_unused_columns=False`; the model never sees the ids. Training rows come from moving weights and
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

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_others: Any) -> None:
        """Open the run and watch the model."""
        del control
        self._recording.is_main = state.is_world_process_zero
        self.run.state.total_epochs = int(args.num_train_epochs)
        self._recording.begin(model, self._log)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Count the epoch, from 1."""
        del args, control
        self._epoch = int(state.epoch or 0) + 1
        self.run.state.epoch_idx = self._epoch

    def on_step_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Count the step: the one that is now computed."""
        del args, control
        self.run.state.global_step = state.global_step + 1

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Any = None, **_others: Any) -> None:
        """Log the trainer's scalars."""
        del args, control
        scalars = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        scalars.pop("epoch", None)
        if scalars:
            self.run.log({"step": state.global_step, **scalars})

    def on_epoch_end(self, args: Any, state: Any, control: Any, *, model: Any, **_others: Any) -> None:
        """Collect if it is time."""
        del args, state, control
        self._recording.epoch_end(model, self._epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **_others: Any) -> None:
        """Collect if it is time, save, let go."""
        del args, state, control
        self._recording.end(model, self._epoch)

    def _log(self, passed: Passed) -> None:
        mode = Mode.TRAIN if passed.training else Mode.EVAL
        batch = {"sample_id": passed.sample_id, **passed.kwargs}
        self._recording.log(batch, passed, output=passed.output, sample_id=passed.sample_id, mode=mode.value)
