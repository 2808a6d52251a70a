"""Recording a Lightning training: `trainer = Trainer(callbacks=[XaiCallback("runs/exp1")])`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch

from xaicli.collectors.outputs import entries_of, taken
from xaicli.errors import XaiError
from xaicli.heads.decision import NOTHING
from xaicli.heads.head import Task
from xaicli.heads.outputs import NAMED
from xaicli.integrations.answers import (
    answers_of,
    are_parts,
    at_all_places,
    is_of_some,
    is_one,
    is_output,
    is_same,
    is_turned_part,
    tensors_of,
)
from xaicli.integrations.capture import Forward, Judged, Step, captured
from xaicli.integrations.columns import SOME_PLACES, columns_of, of_chosen_places
from xaicli.integrations.criteria import Criteria
from xaicli.integrations.identity import may_be_ids, place_of_ids
from xaicli.integrations.options import settled
from xaicli.integrations.order import has_places_first, with_samples_first
from xaicli.integrations.parts import Held, Part, Rows, ids_taken, line_by_loader, listed, numbered_of
from xaicli.integrations.recording import Recording, inputs_of, rows_of, tokenizer_of
from xaicli.integrations.steps import COMPARED, DISPUTED, StepOrders, is_of_batch
from xaicli.integrations.views import TOO_MANY, Views
from xaicli.vocabulary import Mode

_STEPS = {
    "training_step": Mode.TRAIN,
    "validation_step": Mode.EVAL,
    "test_step": Mode.TEST,
    "predict_step": Mode.INFER,
}
_END = "end it with return {'loss': loss, 'logits': logits}"
_FIRST = "return {'loss': loss, 'logits': logits[:n]}"
_TOGETHER = (
    "{name} runs for what several loaders gave together, and which of its answers are whose is not known; no samples "
    "of it are recorded: end it with {line}"
)
_UNFIT_LABELS = (
    "the labels of a batch, {shape}, do not fit the model's answers of {task}: rows have no label and no loss; let the "
    "step give a criterion the labels that the model is trained on, or give samples_fn"
)
_STEP_DISORDER = (
    "gives the model the batch's samples in another order, and whose answers are where is not known; no samples of it "
    f"are recorded: {_END} in the batch's order"
)
_AGAIN = (
    "the optimizer runs training_step several times a batch, as LBFGS its closure: the rows of every run are recorded; "
    "those of a sample count as duplicates, and the last one counts"
)
_NO_LABEL = (
    "{name} gives no criterion its labels, and none of the batch's entries {entries} is named like labels: rows have "
    "no label and no loss; call it 'label', give it to a criterion in the step, or give samples_fn"
)
_UNPLACED = (
    "{name} gives a criterion the classes of places one below the other, and whose these are is not known: rows have "
    "no label and no loss; give it the answers as (samples, classes, places), or give samples_fn"
)
_OTHERS = (
    "gives its criterion other labels than the batch has, and nothing shows whether these are the samples' or are only "
    "watched: rows have no label and no loss; return the loss, or give samples_fn"
)
_OBJECTS = (
    "{name} answers for pictures with lists of objects: these are no classes, and which figure of a picture counts is "
    "not known; no samples of it are recorded: give numbers a picture, as XaiCallback(..., samples_fn=lambda batch, "
    'output: {{"n_found": [len(one["boxes"]) for one in output] if isinstance(output, list) else len(batch[0]) * '
    "[None]}}), where output is what the module's forward returned"
)
_COMPARED = f"where the model has answers of each sample, {_END} of these, or give samples_fn"
_INPUTS_OF_PLACES = (
    "the module takes its places before its samples, and xai saliency gives a model samples first: no inputs are kept, "
    "and the checkpoint is saved without an exported graph; keep_inputs=0, save_checkpoint=False ask for neither"
)
_PREDICTED = ("preds", "predictions", "pred", "prediction", "y_pred", "y_hat", "yhat")


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
        run: An open run, of which a training that is resumed from a checkpoint begins another attempt, or where to
            record one.
        **options: Those of `xaicli.integrations.recording.Recording`: samples_fn, ids, keeps_order, task, facts,
            tokenizer, tables, collectors, collect_epochs, collect_before, dataloader_args, keep_inputs,
            save_checkpoint, label_names; and of the run: keep_probs, keep_tokens, epoch_frequency, ignore_label,
            float64, name, config, resume, strict.

    Raises:
        UsageError: An argument is unknown, or makes no sense.
    """

    def __init__(self, run: Any = None, *unnamed: Any, **options: Any) -> None:
        super().__init__()
        self._recording = Recording(run, **settled(Recording, run, options, unnamed))
        self._undo: list[Callable[[], None]] = []
        self._orders = StepOrders(self._recording.tell, self._recording.keeps_order)
        self._views = Views(self._orders.watched)
        self._criteria = Criteria(self._recording, self._orders, f"{_END} in the batch's order", _FIRST)
        self._batch_at: tuple[Any, ...] = ()
        """The epoch, the optimizer's steps and the number of the last batch of a training."""
        self._loader = 0
        """Which of an evaluation's loaders gave its batch."""
        self._held: tuple[Any, Held] | None = None
        """The batch that comes, and its parts before the module's hooks and its step take some out."""
        self._rows = Rows(self._recording)
        self._trainer: Any = None
        self._logged: dict[str, Any] = {}
        """The trainer's metrics that were logged: it leaves them standing until they come anew."""
        self._said: dict[str, tuple[int, str]] = {}
        """The epoch and the value with which each of a training was logged last."""
        self._before: dict[str, Any] = {}
        """Its metrics when the last evaluation began."""

    @property
    def run(self) -> Any:
        """The run that is recorded."""
        return self._recording.shown_run

    def __getstate__(self) -> dict[str, Any]:
        """Without what is bound to this process: a trainer may be sent to others."""
        return {**self.__dict__, "_undo": [], "_trainer": None, "_held": None}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand beside the strategy's steps until `teardown`."""
        del stage
        self._restore()
        self._recording.stand_once(self, trainer.callbacks)
        self._recording.is_main = trainer.is_global_zero
        self._recording.described(dict(getattr(pl_module, "hparams", None) or {}))
        if self._recording.tokenizer is None:
            holders = (pl_module, getattr(trainer, "datamodule", None))
            self._recording.tokenizer = next((t for one in holders if (t := tokenizer_of(one)) is not None), None)
        for name, mode in _STEPS.items():
            self._wrap(trainer, pl_module, name, mode)
        self._watch_validations(trainer)
        self._undo += self._rows.stand_beside(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave strategy and loaders as they were, and the run in files."""
        del trainer, pl_module, stage
        self._restore()
        self._recording.release()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on from what was recorded before, or, resumed from a checkpoint, from where that was."""
        goes_back = getattr(trainer, "ckpt_path", None) is not None  # where to is restored after this
        resumed = goes_back or trainer.current_epoch > 0 or trainer.global_step > 0
        goes_on = self._trainer is not None and self._trainer() is trainer
        if not (resumed and goes_on):  # a trainer that goes on counts on
            self._recording.count_on(is_resumed=resumed)
        self._trainer = weakref.ref(trainer)
        self._orders.begin()
        self._batch_at = ()  # of one that an error ended, which comes again
        if goes_back:
            self._said.clear()  # what is logged again with the same value was taken back
        self._recording.begin(max(trainer.max_epochs or 0, 0), is_resumed=goes_back)
        if self._recording.collects_before:
            self._recording.collect(pl_module, 0)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the epoch, from 1."""
        del pl_module
        self._log_scalars(trainer, Mode.TRAIN)  # of the epoch before, which the module's own hook has logged
        self._at(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a pass over every validation set."""
        del pl_module
        self._begin(trainer, Mode.EVAL, trainer.val_dataloaders)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a pass over every test set."""
        del pl_module
        self._begin(trainer, Mode.TEST, trainer.test_dataloaders)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a pass over every set to predict."""
        del pl_module
        self._begin(trainer, Mode.INFER, trainer.predict_dataloaders)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember the parts of the batch."""
        del trainer, pl_module, batch_idx
        self._held = batch, Held(batch)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember whose batch it is, and its parts."""
        self.on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._loader = dataloader_idx

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the epoch's scalars and collect if it is time."""
        self._log_scalars(trainer, Mode.TRAIN)
        self._recording.epoch_end(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the validation's scalars."""
        del pl_module
        if not trainer.sanity_checking:
            self._log_scalars(trainer, Mode.EVAL, trainer.val_dataloaders)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the test's scalars."""
        del pl_module
        self._log_scalars(trainer, Mode.TEST, trainer.test_dataloaders)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect if it is time, save."""
        self._log_scalars(trainer, Mode.TRAIN)
        self._restore()
        self._recording.end(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep what was logged, let go."""
        del trainer, pl_module
        self._restore()
        self._recording.release(exception)

    def _wrap(self, trainer: Any, pl_module: Any, name: str, mode: Mode) -> None:
        """Stand beside one of the strategy's steps: on the strategy, never on the module."""
        strategy, own = trainer.strategy, getattr(trainer.strategy, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if trainer.sanity_checking or not any(one is self for one in trainer.callbacks):
                return own(*args, **kwargs)  # a trial, or the tuner's, which sets the callbacks aside for it
            if mode is Mode.TRAIN:
                batch_at = (trainer.current_epoch, trainer.global_step, *args[1:2])
                if len(batch_at) > 2 and batch_at == self._batch_at:
                    self._recording.tell(_AGAIN)
                self._batch_at = batch_at
                self._at(trainer)  # before a step that calls its optimizers itself has them count
            within = getattr(strategy, "model", None)
            held = self._held[1] if self._held is not None and self._held[0] is args[0] else Held(args[0])
            self._held = None
            with captured(pl_module, closely=mode not in self._orders.watched, within=within, batch=args[0]) as taken:
                returned = own(*args, **kwargs)
            self._recording.guarded("telling what the loss is made of", partial(taken.end, returned))
            is_wrapped = within is not None and within is not pl_module
            taken.forwards = _own_forwards(taken.forwards, returned, is_wrapped=is_wrapped)
            batch = held.put_back(args[0])
            with torch.no_grad():
                self._recording.guarded(
                    "logging samples", lambda: self._log(trainer, taken, batch, mode), rows=rows_of(batch, None)
                )
            if not self._recording.is_undecided:
                self._orders.watched.add(mode)
            # The graph goes when the trainer lets go of it.
            taken.forwards.clear()
            taken.returned = None
            return returned

        setattr(strategy, name, step)
        self._undo.append(lambda: strategy.__dict__.pop(name, None))

    def _watch_validations(self, trainer: Any) -> None:
        """Have what a validation leaves among the trainer's metrics known as logged, whoever asked for it since.

        The trainer makes its tensors anew for each callback that asks behind this one, as a checkpoint's does; the
        strategy is the last that is told of the end, and from then on they stay.
        """
        strategy, own = trainer.strategy, trainer.strategy.on_validation_end

        def note() -> None:
            self._logged |= _come_since(trainer, self._before)

        def ended() -> None:
            own()
            if not trainer.sanity_checking:
                self._recording.guarded("telling a validation's scalars from the training's", note)

        strategy.on_validation_end = ended
        self._undo.append(lambda: strategy.__dict__.pop("on_validation_end", None))

    def _log(self, trainer: Any, step: Step, batch: Any, mode: Mode) -> None:
        recording = self._recording
        number = 0 if mode is Mode.TRAIN else self._loader  # that of the last evaluation says nothing of a training
        parts = self._rows.parts_of(trainer, mode, batch, number)
        rows = sum(part.rows or 0 for part in parts)
        if len(parts) != 1 or recording.samples_fn is not None:
            self._orders.leave_out_watched(step, None, mode)
        if recording.samples_fn is not None:
            whole = parts[0] if len(parts) == 1 else Part(batch, batch, labels=recording.label_in(batch))
            output = step.named if step.named is not None else step.forwards[-1].output if step.forwards else None
            output = answers_of(step, whole.labels, mode, whole.rows) if output is None else output
            columns = dict(recording.samples_fn(whole.given, output))
            ids, found = columns.pop("sample_id", None), "what samples_fn gives"
            if ids is None:
                whole, ids, reason = self._rows.identified(self._rows.with_ids(whole), step)
                found = whole.found
                if reason is not None:
                    recording.missed(rows or None, reason)
                    return
            inputs = _inputs_of(step)
            place = {"mode": mode, "ds_id": whole.ds_id}
            recording.numbered_by(numbered_of(whole), mode, whole.ds_id)
            recording.log(columns, sample_id=ids, **place, inputs=inputs, rows=rows or None, found=found)
            recording.note_texts(ids, mode, _texts_of(whole.batch, inputs), whole.ds_id)
            return
        parts = [self._rows.with_ids(part) for part in parts]
        ids = parts[0].ids if len(parts) == 1 and mode is not Mode.INFER else None
        batch = parts[0].batch if len(parts) == 1 else batch
        compared = [] if mode is Mode.INFER else self._orders.leave_out_compared(step, batch, ids, mode)
        if compared and not self._answers_beside(step, compared, mode):
            recording.missed(
                rows,
                f"{_name_of(mode)} {COMPARED}: {_COMPARED}",
            )
            return
        if len(parts) == 1:
            whole = parts[0]
            step.judged = [at_all_places(one, whole.labels, batch) for one in step.judged]
            module = trainer.lightning_module
            rows = held = (self._rows.held(whole) if ids is None else len(ids)) or 0
            self._views.take_first(step, batch, whole.labels, held, mode)
            labels = self._orders.labels_of_places(step, batch, whole.labels, held, module, mode)
            is_turned = self._rows.has_places_first(whole.loader, trainer)
            turned, labels, reason = self._orders.samples_first(step, batch, labels, held, module, is_turned, mode)
            # Of labels of samples alone.
            is_other = turned is batch and whole.listed is None and has_places_first(batch, held)
            turned = with_samples_first(batch, held) if is_other else turned
            if reason is not None:
                recording.missed(rows, f"{_name_of(mode)} {reason}")
                return
            whole, result = self._answered(replace(whole, batch=turned, labels=labels), step, mode)
            inputs = _inputs_of(step)
            if turned is not batch or _are_places_first(inputs, batch, held, is_turned):
                inputs = None
                if recording.wants_inputs:
                    recording.tell(_INPUTS_OF_PLACES)
            if not self._log_part(whole, result, step, mode, inputs):
                recording.missed(rows, _ask(step, mode, rows, batch))
            return
        shared = self._rows.shared_out(step, parts)
        logged = [part for part, result in shared if self._log_part(part, result, step, mode, None)]
        line = line_by_loader(batch, parts)
        if not logged:
            recording.missed(rows, _TOGETHER.format(name=_name_of(mode), line=line))
        elif len(logged) < len(parts):
            named = ", ".join(repr(part.ds_id) for part in logged)
            recording.tell(
                f"of the {len(parts)} loaders that make a batch, only those are recorded whose labels a criterion was "
                f"given: {named}; end it with {line} to have all"
            )

    def _answers_beside(self, step: Step, compared: list[Judged], mode: Mode) -> bool:
        """Whether a step has answers of each sample beside those by which it compares samples with one another."""
        if any(one.counts is not False for one in step.judged):
            return True
        returned = None if step.named is None else _tensor_of(step.named)
        is_of_each = returned is not None and returned.is_floating_point()
        return is_of_each and not self._orders.judged_of(step.named, compared, None, mode)

    def _answered(self, whole: Part, step: Step, mode: Mode) -> tuple[Part, Any]:
        """What a step answered, and its batch; without labels where it is not known which count."""
        recording, name = self._recording, _name_of(mode)
        if self._orders.leave_out_watched(step, whole.labels, mode, whole.batch):
            recording.tell(f"{name} {_OTHERS}")
            whole = replace(whole, labels=None)
        result = answers_of(step, whole.labels, mode, whole.rows)
        judged = self._orders.judged_of(step.named, step.judged, whole.labels, mode)
        if len(judged) == 1:
            result = judged[0]
        answers = result if isinstance(result, Judged) or step.named is not None else _tensor_of(result)
        if len(judged) > 1:
            recording.tell(DISPUTED.format(name=name))
        if len(judged) > 1 or self._orders.are_disputed(step, answers, whole.labels, mode, name):
            whole = replace(whole, labels=None)
        if result is None and (chosen := of_chosen_places(step, whole.batch, whole.labels)) is not None:
            return replace(whole, labels=chosen[1]), chosen[0]
        return whole, result

    def _log_part(self, part: Part, result: Any, step: Step, mode: Mode, inputs: Any) -> bool:
        """Log what one loader's samples were answered; False where that is not known."""
        recording = self._recording
        part, ids, reason = self._rows.identified(part, step)
        if reason is None:
            if result is None and step.classes is None:
                return False
            places, reason = self._reordered(part, step, result, mode)
            if places is not None:
                listed = None if part.listed is None else len(places)
                part = replace(part, batch=taken(part.batch, places), labels=taken(part.labels, places), listed=listed)
                ids = ids_taken(ids, places)
        if reason is not None:
            recording.missed(part.rows, reason)
            return True
        labels = part.labels
        if isinstance(result, Judged):
            found = self._of_criterion(part, step, result, mode, is_turned=places is not None)
            if isinstance(found, str):
                recording.missed(part.rows, f"{_name_of(mode)} {found}")
                return True
            columns = found
        elif step.classes is not None and (result is None or result is step.returned):
            columns = {"prediction": step.classes} | ({} if labels is None else {"label": labels})
        else:
            task = None if mode is Mode.TRAIN else recording.task_of_training(_tensor_of(result))
            head, values = recording.answers(result, labels, task=task, origin=step.origin, known=NOTHING)
            recording.trained(head.task, values, mode)
            keep, void = recording.keeps_tokens(head.task), recording.void_label
            columns = columns_of(head, values, labels, keep_tokens=keep, void=void)
            if labels is not None and not columns.keys() & {"label", "loss"}:
                shape = tuple(getattr(labels, "shape", (len(labels),)))
                recording.tell(_UNFIT_LABELS.format(shape=shape, task=head.task.value))
        if labels is None and not isinstance(result, Judged):
            self._ask_for_labels(part, mode)
            if mode is not Mode.INFER and not columns.keys() & {"label", "loss"} and _are_of_places(step, part.rows):
                recording.tell(_UNPLACED.format(name=_name_of(mode)))
        if self._is_miscounted(part, ids, columns, mode):
            return True
        place = {"mode": mode, "ds_id": part.ds_id}
        recording.numbered_by(numbered_of(part), mode, part.ds_id)
        recording.log(columns, sample_id=ids, **place, inputs=inputs, rows=part.rows, found=part.found)
        recording.note_texts(ids, mode, _texts_of(part.batch, inputs), part.ds_id)
        return True

    def _of_criterion(
        self, part: Part, step: Step, result: Judged, mode: Mode, *, is_turned: bool
    ) -> dict[str, Any] | str:
        """The columns of what a criterion was given, or why they are not known.

        Args:
            part: What one loader's samples are.
            step: What was seen.
            result: What the criterion was given.
            mode: The mode.
            is_turned: Whether the answers are in another order than the batch was.
        """
        is_in_order = not is_turned and self._orders.is_kept(mode) and step.is_answer(result.answers)
        found = self._criteria.columns(
            step, result, part.batch, part.labels, part.rows, mode, _name_of(mode), is_in_order=is_in_order
        )
        if isinstance(found, str):
            return found
        columns, task = found
        return columns | ({} if is_turned else _predicted(step, task, len(result.answers)))

    def _is_miscounted(self, part: Part, ids: Any, columns: Mapping[str, Any], mode: Mode) -> bool:
        """Whether there are more or fewer ids than answers, whose rows are then counted."""
        rows = {len(value) for value in columns.values() if isinstance(value, torch.Tensor) and value.ndim}
        if ids is None or not rows or len(ids) in rows:
            return False
        self._recording.missed(
            max(rows),
            f"{part.found}: {len(ids)} ids for {max(rows)} answers of {_name_of(mode)}, and whose each is is not "
            "known; such batches are not recorded: one id a sample is needed",
        )
        return True

    def _ask_for_labels(self, part: Part, mode: Mode) -> None:
        """Say of rows without a label which of the batch's entries may be it."""
        entries, place = entries_of(part.batch) or {}, place_of_ids(part.batch)
        found = [key for key, value in entries.items() if key not in (place, self._recording.ids_at)]
        found = [
            key
            for key in found
            if (may_be_ids(entries[key]) and len(entries[key]) == part.rows) or are_parts(entries[key], part.rows)
        ]
        if found and mode is not Mode.INFER and self._recording.label_in(part.batch) is None:
            self._recording.tell(_NO_LABEL.format(name=_name_of(mode), entries=", ".join(map(repr, found))))

    def _reordered(
        self, part: Part, step: Step, result: Any, mode: Mode
    ) -> tuple[tuple[int | None, ...] | None, str | None]:
        """The row of the batch that each answer of a step is of, None where that is in order; or why it is not known.

        A step may sort, shuffle or repeat its batch. Labels that a criterion is given as they are in the batch say
        that the answers are in its order; else what the step gave its model says it.
        """
        labels, name = part.labels, _name_of(mode)
        truth = result.truth if isinstance(result, Judged) else None
        if is_of_batch(truth, labels):
            return None, None
        is_asked_for = step.named is not None
        order, reason = self._orders.order_of(step, part.batch, part.rows or 0, mode, name, is_asked_for=is_asked_for)
        if order is None:
            return None, reason
        outputs = [one.output for one in step.forwards]
        answers = result.answers if isinstance(result, Judged) else _tensor_of(result)
        is_own_output = any(isinstance(answers, torch.Tensor) and is_output(answers, one) for one in outputs)
        if not order.places:
            return None, f"{name} {_STEP_DISORDER}"
        is_in_order = step.named is not None and not is_own_output  # given back in the batch's, as it is asked for
        if truth is None or not isinstance(labels, torch.Tensor) or truth.shape != labels.shape:
            return None if is_in_order else order.places, None
        is_own, is_turned = (
            bool((truth == one.to(truth.dtype)).all()) for one in (labels, taken(labels, order.places))
        )
        if is_own and not is_turned:
            return None, None
        if is_own and not is_own_output:
            return None, f"{name} {_STEP_DISORDER}"
        return None if is_in_order and not is_turned else order.places, None

    def _begin(self, trainer: Any, mode: Mode, loaders: Any) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            self._at(trainer)
        self._before = dict(trainer.callback_metrics)
        for ds_id, _ in listed(loaders):
            self._recording.begin_pass(mode, ds_id)
        self._loader = 0

    def _at(self, trainer: Any) -> None:
        # The step that is now computed: the optimizer has not counted it yet.
        self._recording.at(trainer.current_epoch + 1, trainer.global_step + (1 if trainer.training else 0))

    def _log_scalars(self, trainer: Any, mode: Mode, loaders: Any = None) -> None:
        """Log the metrics that have come since: of an evaluation within a training at its step, others at the epoch.

        Several evaluations of an epoch are so kept apart, also from one that stands alone behind the training.
        """
        self._recording.guarded("logging scalars", partial(self._log_new, trainer, mode, listed(loaders)))

    def _log_new(self, trainer: Any, mode: Mode, loaders: list[tuple[str, Any]]) -> None:
        recording, before = self._recording, self._logged if mode is Mode.TRAIN else self._before
        new = _come_since(trainer, before)
        self._logged |= new
        time = {"epoch": recording.epoch}
        if mode is Mode.EVAL and trainer.state.fn == "fit":
            time["step"] = recording.step
        of_set: dict[str, dict[str, float]] = {}
        for name, value in new.items():
            if isinstance(value, (int, float)) or torch.numel(value) == 1:
                of_set.setdefault(_set_of(name, loaders), {})[name] = float(value)
        for ds_id, scalars in of_set.items():
            if mode is Mode.TRAIN:  # whose means the trainer computes anew when it is asked again
                said = {name: (recording.epoch, value.hex()) for name, value in scalars.items()}
                scalars = {name: value for name, value in scalars.items() if said[name] != self._said.get(name)}
                self._said |= said
            if scalars:
                recording.run.log({**scalars, **time}, mode=mode, ds_id=ds_id)

    def _restore(self) -> None:
        while self._undo:
            self._undo.pop()()


def _come_since(trainer: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a trainer's metrics that are not the very ones that it had before."""
    return {name: value for name, value in trainer.callback_metrics.items() if value is not before.get(name)}


def _set_of(metric: str, loaders: list[tuple[str, Any]]) -> str:
    """The data set that a metric of an evaluation is of: Lightning says its number where there are several."""
    number = metric.rpartition("/dataloader_idx_")[2] if len(loaders) > 1 else "0"
    return loaders[int(number)][0] if number.isdecimal() and int(number) < len(loaders) else ""


def _tensor_of(result: Any) -> torch.Tensor | None:
    """The answers in what a step or a module returned, where these are one tensor."""
    found = next((result[name] for name in NAMED if name in result), None) if isinstance(result, Mapping) else result
    return found if isinstance(found, torch.Tensor) else None


def _predicted(step: Step, task: Task, rows: int) -> dict[str, Any]:
    """The predictions that a step returned as whole numbers beside what it gave its criterion."""
    named = step.returned if isinstance(step.returned, Mapping) else {}
    found = next((named[name] for name in _PREDICTED if name in named), None)
    if task not in (Task.CLASSIFICATION, Task.BINARY) or not isinstance(found, torch.Tensor):
        return {}
    is_whole = not (found.is_floating_point() or found.is_complex() or found.dtype is torch.bool)
    return {"prediction": found} if is_whole and found.shape == (rows,) else {}


def _inputs_of(step: Step) -> Any:
    return inputs_of(step.forwards[0].args, step.forwards[0].kwargs) if step.forwards else None


def _are_places_first(inputs: Any, batch: Any, rows: int | None, is_turned: bool | None) -> bool:
    """Whether a model was given its places before its samples, which are so many."""
    given = [one for _, one in tensors_of(inputs) if one.ndim > 1] if isinstance(inputs, Mapping) else [inputs]
    given = [one for one in given if isinstance(one, torch.Tensor) and one.ndim > 1 and one.shape[1] == rows]
    as_it_is = [part for _, part in tensors_of(batch)] if is_turned else []
    return any(
        len(one) != rows or any(is_same(one, part) for part in as_it_is) or is_turned_part(one, batch) for one in given
    )


def _texts_of(batch: Any, inputs: Any) -> Any:
    """Where the ids of tokens are: among the batch's entries, or the model's inputs."""
    return batch if isinstance(batch, Mapping) and "input_ids" in batch else inputs


def _are_of_places(step: Step, rows: int | None) -> bool:
    """Whether a criterion that the loss is made of was given more classes than the batch has samples."""
    given = (one.truth for one in step.judged if one.counts is not False)
    return rows is not None and any(truth.numel() > rows and not truth.is_floating_point() for truth in given)


def _holds_objects(batch: Any) -> bool:
    """Whether a batch has a dict with boxes a sample, as of pictures with lists of objects."""
    parts = (entries_of(batch) or {}).values() if entries_of(batch) is not None else batch
    parts = list(parts) if not isinstance(parts, torch.Tensor) and isinstance(parts, Iterable) else []
    listed = [part for part in parts if isinstance(part, (list, tuple)) and part]
    return any(all(isinstance(one, Mapping) and "boxes" in one for one in part) for part in listed)


def _own_forwards(forwards: list[Forward], returned: Any, *, is_wrapped: bool) -> list[Forward]:
    """The forwards that may show the model's answers, among them what the step returned as it is.

    Without the step itself, which several processes run as the module's forward, and without a loss that a forward
    computed, of which nothing but that is returned.
    """
    if is_wrapped:
        return forwards[:-1] if forwards and forwards[-1].output is returned else forwards
    return [one for one in forwards if one.output is not returned or any(t.ndim for _, t in tensors_of(one.output))]


def _name_of(mode: Mode) -> str:
    """The step of a mode."""
    return next(name for name, of in _STEPS.items() if of is mode)


def _ask(step: Step, mode: Mode, rows: int, batch: Any) -> str:
    """What to say where the answers cannot be told."""
    name = _name_of(mode)
    if _holds_objects(batch):
        return _OBJECTS.format(name=name)
    is_unseen = step.ran_compiled and not step.judged
    if (step.is_compiled and len(step.judged) < 2) or is_unseen:
        what = "a function that it calls" if is_unseen else "the module"
        return (
            f"{what} is compiled (torch.compile), and what {name} computes inside of it cannot be seen; no samples "
            f"of it are recorded: {_END}"
        )
    if step.returned is None and not (step.forwards or step.judged or step.given):
        return f"{name} left batches out, whose samples are not recorded; where it computes answers for them, {_END}"
    if len(step.forwards) == 1 and any(part.ndim > 2 for _, part in tensors_of(step.forwards[0].output)):
        shorter = [one for one in step.judged if one.answers.ndim == 2 and one.truth.ndim == 1]
        are_of_samples = len(shorter) > 1 and all(len(one.truth) == rows for one in shorter)
        if len(shorter) == len(step.judged) > 0 and not are_of_samples:
            return f"{name} {SOME_PLACES}"
    several = [*(one.output for one in step.forwards), *([step.returned] if mode is Mode.INFER else [])]
    if len(step.judged) < 2 and not all(is_one(one) for one in several):
        return (
            f"the module returns several tensors to {name}, and which of them are its answers cannot be told; no "
            f"samples of it are recorded: {_END}"
        )
    if len(step.forwards) > 1 or len(step.judged) > 1:
        why = f"{name} runs the model or a criterion several times, and which of the answers count cannot be told"
    elif step.judged and is_of_some(step.judged[0], rows):
        return (
            f"{name} gives its criterion some of the batch's samples alone, and which they are is not known; no "
            f"samples of it are recorded: {_END} of the whole batch"
        )
    elif step.judged and len(step.judged[0].answers) > rows:
        return f"{name} {TOO_MANY.format(line=_FIRST)}"
    elif step.judged:
        why = f"{name} gives its criterion other rows than the batch has, and whose answers they are is not known"
    elif step.forwards:
        why = f"{name} gives the model other rows than the batch has, and which of the answers count cannot be told"
    else:
        why = f"{name} neither returns the model's answers nor runs the module's forward or a criterion that is known"
    return f"{why}; no samples of it are recorded: {_END}"
