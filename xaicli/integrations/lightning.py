"""Recording a Lightning training: `trainer = Trainer(callbacks=[XaiCallback("runs/exp1")])`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from xaicli.errors import XaiError
from xaicli.heads.decision import NOTHING
from xaicli.heads.head import Head, Task, Values
from xaicli.heads.outputs import tensor_at, where_of
from xaicli.integrations.capture import Judged, Step, captured
from xaicli.integrations.columns import columns_of
from xaicli.integrations.identity import NumberedSampler, ids_of, numbered
from xaicli.integrations.recording import Recording, inputs_of, label_in, rows_of
from xaicli.vocabulary import Mode

_STEPS = {
    "training_step": Mode.TRAIN,
    "validation_step": Mode.EVAL,
    "test_step": Mode.TEST,
    "predict_step": Mode.INFER,
}
_ROW_NUMBERS = (
    "no sample ids in the batches: the rows' numbers in the dataset are taken, in the order of the loader's sampler; "
    "let the dataset yield (id, input, label), or a dict with sample_id, to have your own"
)


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
    """Logs every sample of fit, validate, test and predict, collects metrics at chosen epochs, saves model and inputs.

    The dataset yields (id, input, label), or a dict with `sample_id`; without ids the rows' numbers are taken. The
    model's answers are, in this order: what the step returns as `logits` or `preds`, what it gives to its criterion
    (`F.cross_entropy` and its kin), what the module's own `forward` returned, where it ran once. Nothing is hung on the
    module: copies, pickles and compiled modules are what they are without the callback.

    Training rows come from moving weights and augmented inputs; collected tables do not.

    Args:
        run: An open run, or where to record one.
        **options: Those of `xaicli.integrations.recording.Recording`: samples_fn, task, tables, collectors,
            collect_epochs, collect_before, dataloader_args, keep_inputs, save_checkpoint, label_names.
    """

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__()
        self._recording = Recording(run, **options)
        self._undo: list[Callable[[], None]] = []
        self._samplers: dict[tuple[Mode, int], NumberedSampler] = {}
        self._watched: set[Mode] = set()
        self._loader = 0
        self._before = (0, 0)
        """The last epoch and step of the fits before this one, which a new one goes on from."""
        self._trainer: Any = None

    @property
    def run(self) -> Any:
        """The run that is recorded."""
        return self._recording.run

    def __getstate__(self) -> dict[str, Any]:
        """Without what is bound to this process: a trainer may be sent to others."""
        return {**self.__dict__, "_undo": [], "_samplers": {}, "_trainer": None}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand beside the strategy's steps until `teardown`."""
        del stage
        self._restore()
        self._recording.is_main = trainer.is_global_zero
        self._recording.described(dict(getattr(pl_module, "hparams", None) or {}))
        for name, mode in _STEPS.items():
            self._wrap(trainer, pl_module, name, mode)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave strategy and loaders as they were, and the run in files."""
        del trainer, pl_module, stage
        self._restore()
        self._recording.release()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on from what was recorded before, or, resumed from a checkpoint, from where that was."""
        resumed = trainer.current_epoch > 0 or trainer.global_step > 0
        is_same = self._trainer is not None and self._trainer() is trainer
        if not (resumed and is_same):  # a trainer that goes on counts on
            self._before = (0, 0) if resumed else (self._recording.epoch, self._recording.step)
        self._trainer = weakref.ref(trainer)
        self._recording.begin(max(trainer.max_epochs or 0, 0) + self._before[0])
        if self._recording.collects_before:
            self._recording.collect(pl_module, 0)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Know which rows the loaders give."""
        del pl_module
        self._number(Mode.TRAIN, trainer.train_dataloader)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the epoch, from 1."""
        del pl_module
        self._at(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a pass over every validation set."""
        self._begin(trainer, pl_module, Mode.EVAL, trainer.val_dataloaders)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a pass over every test set."""
        self._begin(trainer, pl_module, Mode.TEST, trainer.test_dataloaders)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a pass over every set to predict."""
        self._begin(trainer, pl_module, Mode.INFER, trainer.predict_dataloaders)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember whose batch it is."""
        del trainer, pl_module, batch, batch_idx
        self._loader = dataloader_idx

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the epoch's scalars and collect if it is time."""
        self._log_scalars(trainer)
        self._recording.epoch_end(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scalars of a validation that stands alone."""
        del pl_module
        if trainer.state.fn == "validate":
            self._log_scalars(trainer)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the test's scalars."""
        del pl_module
        self._log_scalars(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect if it is time, save."""
        del trainer
        self._restore()
        self._recording.end(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep what was logged, let go."""
        del trainer, pl_module, exception
        self._restore()
        self._recording.release()

    def _wrap(self, trainer: Any, pl_module: Any, name: str, mode: Mode) -> None:
        """Stand beside one of the strategy's steps: on the strategy, never on the module."""
        strategy, own = trainer.strategy, getattr(trainer.strategy, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if trainer.sanity_checking:
                return own(*args, **kwargs)
            closely = mode not in self._watched
            self._watched.add(mode)
            with captured(pl_module, closely=closely) as taken:
                taken.returned = own(*args, **kwargs)
            returned = taken.returned
            # Several processes run the step as the module's forward: that one is the step itself.
            taken.forwards = [one for one in taken.forwards if one.output is not returned]
            with torch.no_grad():
                self._recording.guarded("logging samples", lambda: self._log(trainer, taken, args[0], mode))
            # The graph goes when the trainer lets go of it.
            taken.forwards.clear()
            taken.returned = None
            return returned

        setattr(strategy, name, step)
        self._undo.append(lambda: strategy.__dict__.pop(name, None))

    def _log(self, trainer: Any, step: Step, batch: Any, mode: Mode) -> None:
        recording = self._recording
        if mode is Mode.TRAIN:
            self._at(trainer)
        labels = label_in(batch)
        rows = rows_of(batch, step.returned)
        result = _answers_of(step, labels, mode, rows)
        sampler = self._samplers.get((mode, 0 if mode is Mode.TRAIN else self._loader))
        numbers = sampler.take(rows) if sampler is not None and rows is not None else None
        ds_id = self._ds_id(mode)
        inputs = inputs_of(step.forwards[0].args, step.forwards[0].kwargs) if step.forwards else None
        if recording.samples_fn is not None:
            output = step.named if step.named is not None else step.forwards[-1].output if step.forwards else result
            columns = dict(recording.samples_fn(batch, output))
            ids = columns.pop("sample_id", None)
            recording.log(columns, sample_id=ids, mode=mode, ds_id=ds_id, inputs=inputs, rows=rows)
            return
        ids = ids_of(batch)
        if ids is None and numbers is not None:
            recording.tell(_ROW_NUMBERS)
            ids = numbers
        if result is None:
            recording.missed(rows, _ask(step, mode))
            return
        if isinstance(result, Judged):
            head, values, truth = _judged(result, labels, rows)
            recording.settle(head.task)
            columns = columns_of(head, values, truth)
        else:
            head, values = recording.answers(result, labels, origin=step.origin, known=NOTHING)
            columns = columns_of(head, values, labels)
        recording.log(columns, sample_id=ids, mode=mode, ds_id=ds_id, inputs=inputs, rows=rows)

    def _begin(self, trainer: Any, pl_module: Any, mode: Mode, loaders: Any) -> None:
        del pl_module
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            self._at(trainer)
        self._number(mode, loaders)
        for self._loader in range(len(_listed(loaders))):
            self._recording.begin_pass(mode, self._ds_id(mode))
        self._loader = 0

    def _ds_id(self, mode: Mode) -> str:
        return "" if mode is Mode.TRAIN or not self._loader else str(self._loader)

    def _at(self, trainer: Any) -> None:
        epoch, step = self._before
        # The step that is now computed: the optimizer has not counted it yet.
        done = trainer.global_step + (1 if trainer.training else 0)
        self._recording.at(epoch + trainer.current_epoch + 1, step + done)

    def _number(self, mode: Mode, loaders: Any) -> None:
        for number, loader in enumerate(_listed(loaders)):
            if (mode, number) not in self._samplers and (made := numbered(loader)) is not None:
                self._samplers[mode, number], undo = made
                self._undo.append(undo)

    def _log_scalars(self, trainer: Any) -> None:
        scalars = {name: float(value) for name, value in trainer.callback_metrics.items() if torch.numel(value) == 1}
        if scalars:
            self.run.log({"epoch": self._recording.epoch, **scalars})

    def _restore(self) -> None:
        while self._undo:
            self._undo.pop()()
        self._samplers.clear()


def _listed(loaders: Any) -> list[Any]:
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return list(loaders.values())
    return list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]


def _answers_of(step: Step, labels: Any, mode: Mode, rows: int | None) -> Any:
    """The model's answers in a step: what it returned, what a criterion was given; None where they cannot be told."""
    if step.named is not None:
        return step.named
    if mode is Mode.INFER and step.returned is not None:
        return step.returned
    judged = [one for one in step.judged if rows is None or _fits(one, labels, rows)]
    if len(judged) > 1:
        # An auxiliary loss beside: the criterion that was given the batch's labels is meant, and the module's output.
        judged = [one for one in judged if isinstance(labels, torch.Tensor) and _same(one.truth, labels)]
        if len(judged) > 1 and len(step.forwards) == 1:
            judged = [one for one in judged if _is_output(one.answers, step.forwards[0].output)]
    if len(judged) == 1:
        return judged[0]
    return step.forwards[0].output if len(step.forwards) == 1 else None


def _fits(judged: Judged, labels: Any, rows: int) -> bool:
    """Whether a criterion was given one row a sample, or the places of all samples one below the other."""
    n = len(judged.answers) if judged.answers.ndim else 0
    if n == rows:
        return True
    if judged.answers.ndim != 2 or not isinstance(labels, torch.Tensor) or labels.ndim != 2:
        return False
    return n in (labels.numel(), labels.numel() - rows)


def _is_output(answers: torch.Tensor, output: Any) -> bool:
    try:
        return tensor_at(output, where_of(output)[0]).data_ptr() == answers.data_ptr()
    except XaiError:
        return False


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and (a.data_ptr() == b.data_ptr() or (a.device == b.device and bool((a == b).all())))


def _judged(judged: Judged, labels: Any, rows: int | None) -> tuple[Head, torch.Tensor, Any]:
    """What a criterion was given: what the answers mean, the answers (N, K, ...), and the truth."""
    answers, truth = judged.answers, judged.truth
    if rows and len(answers) != rows and answers.ndim == 2 and len(answers) % rows == 0:
        # The places of all samples one below the other, as texts are given to a cross entropy.
        answers = answers.reshape(rows, -1, answers.shape[1]).movedim(2, 1)
        truth = truth.reshape(rows, -1)
    width = 1 if answers.ndim == 1 else answers.shape[1]
    values = answers[:, None] if answers.ndim == 1 else answers
    if judged.values is Values.VALUE:
        values = values.flatten(1)
        width = values.shape[1]
        return Head(Task.REGRESSION, Values.VALUE, width, single=width == 1), values, truth.flatten(1)
    if judged.is_each:
        task = Task.BINARY if width == 1 else Task.MULTILABEL
        head = Head(task, judged.values, 2 if width == 1 else width, single=width == 1, independent=width > 1)
        return head, values, truth
    # The batch's own labels before a mixture of them.
    is_own = isinstance(labels, torch.Tensor) and labels.shape == truth.shape
    given = labels if labels is not None and (is_own or truth.is_floating_point()) else truth
    task = Task.TOKEN_CLASSIFICATION if values.ndim > 2 else Task.CLASSIFICATION
    return Head(task, judged.values, width), values, given


def _ask(step: Step, mode: Mode) -> str:
    """What to say where the answers cannot be told."""
    name = next(name for name, of in _STEPS.items() if of is mode)
    if len(step.forwards) > 1 or len(step.judged) > 1:
        why = f"{name} runs the model or a criterion several times, and which of the answers count cannot be told"
    else:
        why = f"{name} neither returns the model's answers nor runs the module's forward or a criterion that is known"
    return f"{why}; no samples of it are recorded: end it with return {{'loss': loss, 'logits': logits}}"
