"""Recording a training by the transformers `Trainer`: `Trainer(..., callbacks=[XaiCallback("runs/exp1")])`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from types import NoneType
from typing import Any

import torch

from xaicli.collectors.outputs import taken
from xaicli.errors import UsageError, XaiError
from xaicli.heads.decision import NOTHING, Known, OriginOf, known_of
from xaicli.heads.head import Head, Task, Text, Values
from xaicli.heads.operations import Origin, Range
from xaicli.heads.outputs import NAMED
from xaicli.integrations.answers import are_reordered, at_all_places, meaning_of, of_some_places
from xaicli.integrations.capture import Judged, Step, captured, is_compiled
from xaicli.integrations.collators import IdsBesideCollator, SeenOrders
from xaicli.integrations.columns import SOME_PLACES, columns_of, of_chosen_places, that_count, weighed, without_left_out
from xaicli.integrations.criteria import Criteria
from xaicli.integrations.dataset import KEPT, ROW, are_texts, has_ids, numbered_rows, with_column
from xaicli.integrations.identity import ID_KEYS, may_be_ids
from xaicli.integrations.options import settled
from xaicli.integrations.order import order_in, rows_apart, rows_in
from xaicli.integrations.parts import ids_taken
from xaicli.integrations.recording import Recording, inputs_of, label_in, rows_of, tokenizer_of
from xaicli.integrations.steps import COMPARED, DISPUTED, StepOrders, is_of_batch
from xaicli.integrations.views import Views
from xaicli.sources.table import OF_PLACES
from xaicli.vocabulary import Mode

_FRAMES = 8
_IDS_ALONE = frozenset({"sample_id", "sample_ids", "example_id", "guid"})
"""Names under which nothing but ids stands, also where a model takes them."""
_IGNORED = -100
"""The label of a place that does not count."""
_NO_IDS = (
    "no sample ids in the batch, so per-sample metrics are not logged; let the dataset have a column sample_id, and a "
    "loader of your own (get_train_dataloader) a collator that returns it, or give samples_fn"
)
_BY_NUMBER = "the rows' numbers in the dataset"
_UNDER_WAY = (
    "the callback was added to a trainer that was there already, and what that evaluates now is not recorded: call "
    "callback.attach(trainer) after trainer.add_callback(callback)"
)
_LINE = (
    'XaiCallback(..., samples_fn=lambda batch, output: {{"sample_id": batch["sample_id"], "loss": {}}}), '
    "with torch.nn.functional as F, says it"
)
_FIRST = 'return (loss, {"logits": logits[:n]})'
_UNFIT_LABELS = (
    "the labels of a batch, {shape}, do not fit the model's answers of {task}: rows have no label and no loss; let "
    "compute_loss give a criterion of torch.nn.functional the labels that the model is trained on"
)
_SETS_LINE = (
    'XaiCallback(..., task="multilabel", samples_fn=lambda batch, output: {"sample_id": batch["sample_id"], "logits": '
    'output["logits"], "label": F.one_hot(batch["labels"], output["logits"].shape[1])}), with torch.nn.functional as F'
)
_TAKEN_OUT = (
    "compute_loss is given rows without their ids, and whose of the step's batch they are is not known; no samples of "
    "it are recorded: let the step leave sample_id beside its rows, say XaiCallback(..., keeps_order=True) that they "
    "are the batch's, or give samples_fn"
)
_PERMUTED = (
    "{name} gives the model or its criterion the samples in another order than the batch has, and whose answers "
    "are where is not known; no samples of it are recorded: let it return its outputs in the batch's order"
)
_SEVERAL = (
    "gives criteria its answers with several labels, and which of them are the samples' is not known; no samples of it "
    "are recorded: give one criterion all answers with their labels, or give samples_fn"
)
_PARTS = (
    "gives criteria several parts of its answers, and which of them are the samples' is not known; no samples of it "
    'are recorded: let it return the part that counts, return (loss, {"logits": logits[:, :3]}), or give samples_fn'
)
_NO_LABELS = (
    "the batch has no labels, and {name} gives no criterion of torch.nn.functional all answers with some: let "
    "the dataset have a column labels, or give samples_fn"
)
_COMPILED = (
    "the model is compiled (torch.compile), and which criterion it computes its loss by is not seen: rows have the "
    "plain loss of its answers with the batch's labels; let compute_loss give a criterion of torch.nn.functional the "
    "answers, or give samples_fn"
)
_OTHER_PLACES = "the labels do not fit the model's answers: give samples_fn"
_SHIFTED = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of the classes whose answer at a place is about the next one; of others the configuration says."""


def _callback_class() -> Any:
    try:
        return import_module("transformers").TrainerCallback
    except ImportError as error:
        raise XaiError("transformers is not installed", hint="pip install 'xaicli[transformers]'") from error


_Callback: Any = _callback_class()


@dataclass(frozen=True)
class _Read:
    """What the answers of a step were judged by.

    Attributes:
        labels: The labels of the samples.
        meaning: What the answers mean, and the numbers (N, K, ...), where a criterion says it; None where the model's
            configuration does.
        shifted: Whether the answer at each place of a text is about the next one.
        columns: All columns, where the criterion alone says what the answers mean.
        reason: Why no samples are recorded.
    """

    labels: Any = None
    meaning: tuple[Head, torch.Tensor] | None = None
    shifted: bool = False
    columns: Mapping[str, Any] | None = None
    reason: str | None = None


class XaiCallback(_Callback):  # type: ignore[misc]
    """Logs every sample of train, evaluate and predict, collects metrics at chosen epochs, saves model and inputs.

    The dataset has a column `sample_id` (whole numbers or texts) beside the model's inputs and `labels`: it gets past
    the collator and `remove_unused_columns`, and the model does not see it unless its forward takes it; without one the
    rows' numbers are taken.
    The model's answers are what the Trainer's `compute_loss` and `prediction_step` compute; what they mean is told from
    the model's configuration. Nothing is hung on the model. Training rows come from moving weights; collected tables do
    not.

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
        if not isinstance(self._recording.ids_at, (str, NoneType)):
            raise UsageError("ids is the name of the dataset's column", hint='XaiCallback(..., ids="image_id")')
        self._recording.no_ids = _NO_IDS
        self._trainer: Any = None
        self._config: Any = None
        """The model's own."""
        self._known: Known | None = None
        self._shifted = False
        self._epoch = 0
        self._walks = 0
        """How many walks over the data of this training began."""
        self._is_resumed = False
        self._begun: Any = None
        """The trainer whose training began and was not seen to end."""
        self._broke = False
        """Whether the last training was ended by an error: the trainer then takes itself for training."""
        self._loop: tuple[Mode, str] | None = None
        self._evaluated: tuple[Mode, str] | None = None
        """The place of the evaluation whose scalars are still to come."""
        self._door = ""
        """Whether the trainer's evaluate or its predict runs, the innermost of both."""
        self._held: tuple[Mapping[str, Any], Any] | None = None
        """The batch of the step that runs, as it came, and its ids, which the step may take out."""
        self._found = ""
        """Where the ids of the last batch were found, in words."""
        self._has_answered = False
        self._has_called = False
        """Whether training called the trainer's compute_loss."""
        self._is_permuted = False
        """Whether a compute_loss was seen to give its model the samples in another order."""
        self._orders = StepOrders(self._recording.tell, self._recording.keeps_order)
        self._views = Views(self._orders.watched)
        self._criteria = Criteria(self._recording, self._orders, "give samples_fn", _FIRST)
        self._is_configured = False
        """Whether the model computes the loss that its configuration names, as a class of transformers does."""
        self._is_by_caller = False
        """Whether the last loss was computed by a function of the caller's."""
        self._numbered: dict[bool, Any] = {}
        """The last dataset whose rows were numbered, for a training or not."""
        self._seen: dict[tuple[int, int], tuple[Any, Any, SeenOrders]] = {}
        """What each collator was seen to do with the order of each set's samples, by the numbers of both."""
        self._keys: tuple[str, ...] = ID_KEYS
        """The entries of a batch that may be ids."""
        self._taken: frozenset[str] = frozenset()
        """Those of them that the model itself takes: it gets them as without this."""
        self._hidden: dict[str, Any] = {}
        """What was kept from a prediction_step of the library's, and is for a compute_loss of the caller's."""

    @property
    def run(self) -> Any:
        """The run that is recorded."""
        return self._recording.shown_run

    def attach(self, trainer: Any) -> XaiCallback:
        """Stand beside a trainer's steps; a callback given to `Trainer(callbacks=[...])` does so by itself."""
        self._recording.stand_once(self, trainer.callback_handler.callbacks)
        if self._trainer is trainer:
            return self
        self._trainer = trainer
        self._known = None
        bare = _bare(trainer.model)
        self._shifted = type(bare).__name__.endswith(_SHIFTED) or known_of(bare).text is Text.CAUSAL
        forward = str(getattr(type(bare).forward, "__module__", ""))
        self._is_configured = known_of(bare).task is not None and forward.startswith("transformers.")
        self._config = getattr(bare, "config", None)
        names = getattr(self._config, "id2label", None) or {}
        named = [str(names[key]) for key in sorted(names)] if names and not _is_default(names) else None
        self._recording.described(trainer.args.to_sanitized_dict(), named)
        self._recording.is_main = trainer.is_world_process_zero()
        if self._recording.tokenizer is None:
            self._recording.tokenizer = tokenizer_of(getattr(trainer, "processing_class", None))
        accepted = inspect.signature(_bare(trainer.model).forward).parameters
        said = self._recording.ids_at
        # Under a name that says less, what the model takes is one of its inputs.
        ids = tuple(key for key in ID_KEYS if key not in accepted or key in _IDS_ALONE)
        self._keys = (said,) if isinstance(said, str) else ids
        self._taken = frozenset(self._keys) & accepted.keys()
        steps = ("compute_loss", "prediction_step", "evaluation_loop", "_get_dataloader")
        for name in (*steps, "training_step", "train", "evaluate", "predict"):
            if (own := getattr(trainer, name, None)) is not None:
                setattr(trainer, name, _Beside(getattr(self, f"_beside_{name.strip('_')}"), own))
        if trainer.args.remove_unused_columns:
            trainer._set_signature_columns_if_needed()
            trainer._signature_columns += [k for k in (*self._keys, ROW, KEPT) if k not in trainer._signature_columns]
        return self

    def on_init_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Find the trainer that has just been made."""
        del args, state, control
        self._find()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Find a trainer that this was added to after it was made: its evaluation is then under way."""
        del args, state, control
        if self._trainer is None:
            batch = self._find("inputs")
            self._recording.missed(rows_of(batch, None), _UNDER_WAY)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Put an evaluation that stands alone into files, its scalars too."""
        del args, state, control
        if not self._is_training:
            self._recording.release()

    def on_predict(self, args: Any, state: Any, control: Any, *, metrics: Any = None, **others: Any) -> None:
        """Log the scalars of a prediction, which the trainer logs nowhere, and put it into files."""
        self._log_scalars(metrics, state)
        self.on_evaluate(args, state, control, **others)

    @property
    def _is_training(self) -> bool:
        return bool(getattr(self._trainer, "is_in_train", False)) and not self._broke

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_others: Any) -> None:
        """Go on from what was recorded before, or, resumed from a checkpoint, from where that was."""
        del control
        self._find()
        self._recording.is_main = state.is_world_process_zero
        resumed = state.global_step > 0
        # Out of memory, and once more with smaller batches: the same training, from its beginning.
        is_anew = self._begun is self._trainer is not None and args.auto_find_batch_size and not resumed
        self._end_unseen()
        self._begun, self._broke = self._trainer, False
        if not is_anew:
            self._recording.count_on(is_resumed=resumed)
        self._walks, self._is_resumed = 0, resumed
        self._recording.begin(int(args.num_train_epochs), is_resumed=resumed or is_anew)
        if self._recording.collects_before:
            self._recording.collect(model, 0)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Count the epoch, from 1."""
        del control
        said = int((state.epoch or 0) + 1e-6) + 1
        # A stream has no length: the trainer then counts a share of max_steps, however often it walks over the data.
        data = getattr(self._trainer, "train_dataset", None)
        is_endless = args.max_steps > 0 and not hasattr(data, "__len__") and not self._is_resumed
        self._epoch = max(said, self._walks + 1) if is_endless else said
        self._walks = self._epoch
        self._recording.at(self._epoch, state.global_step + 1)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Count the step: the one that is now computed."""
        del args, control
        self._recording.at(self._epoch, state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Evaluations after this step belong to it."""
        del args, control
        self._recording.at(self._epoch, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Any = None, **_others: Any) -> None:
        """Log the trainer's scalars."""
        del args, control
        self._log_scalars(logs, state)

    def _log_scalars(self, logs: Any, state: Any) -> None:
        """Log scalars of the training, or of the evaluation behind which they come.

        Those of one that stands alone are at the epoch: kept apart from the training's last, which is at the same step.
        """
        scalars = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        scalars.pop("epoch", None)
        if not scalars:
            return
        recording, is_alone = self._recording, self._evaluated is not None and not self._is_training
        mode, ds_id = self._evaluated or (Mode.TRAIN if self._is_training else None, None)
        step = recording.before[1] + state.global_step
        recording.run.log(
            {"epoch": recording.epoch, **scalars} if is_alone else {"step": step, **scalars}, mode=mode, ds_id=ds_id
        )

    def on_epoch_end(self, args: Any, state: Any, control: Any, *, model: Any, **_others: Any) -> None:
        """Collect if it is time."""
        del args, state, control
        if not self._has_called:
            self._recording.tell(
                "no sample of this epoch is recorded: the trainer's training_step does not call compute_loss; let it "
                "do so, or log the samples there with callback.run.log_samples"
            )
        self._recording.epoch_end(model)

    def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **_others: Any) -> None:
        """Collect if it is time, save."""
        del args, state, control
        self._recording.end(model)
        self._begun = None

    def _end_unseen(self, error: BaseException | None = None) -> None:
        """Let go of a training that an error ended, of which the trainer tells callbacks nothing."""
        if self._begun is not None:
            self._begun = None
            self._recording.release(error)

    def _find(self, beside: str = "") -> Any:
        """Stand beside the trainer, which is not handed to callbacks: it is the one that calls this.

        Returns:
            What it calls `beside`, where it does.
        """
        frame: Any = sys._getframe(1)
        for _ in range(_FRAMES):
            if frame is None:
                break
            own = frame.f_locals.get("self")
            if own is not None and hasattr(own, "compute_loss") and hasattr(own, "evaluation_loop"):
                self._recording.guarded("watching the trainer", partial(self.attach, own))
                return frame.f_locals.get(beside)
            frame = frame.f_back
        if self._trainer is None:
            self._recording.tell("the trainer was not found: call callback.attach(trainer) before trainer.train()")
        return None

    def _beside_get_dataloader(self, own: Callable[..., Any], dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Have the collator keep the ids, or number the rows where there are none."""
        trainer, collate = self._trainer, self._trainer.data_collator
        keys, given = self._keys, dataset
        _, _, seen = self._seen.setdefault((id(collate), id(dataset)), (collate, dataset, SeenOrders(collate)))
        dataset = with_column(dataset, keys)
        if not has_ids(dataset, keys):
            if self._recording.ids_at is not None:
                self._recording.tell(f"the dataset has no column {self._recording.ids_at!r} of ids")
            numbered = numbered_rows(dataset)
            if numbered is not None:
                self._recording.tell(
                    "no sample ids in the dataset: its rows' numbers are taken; give it a column sample_id to have "
                    "your own"
                )
                is_training = kwargs.get("is_training", args[3] if len(args) > 3 else False)
                self._numbered[bool(is_training)] = given
                dataset, keys = numbered, (ROW, *keys)
        elif are_texts(dataset, keys):
            self._recording.tell("the sample ids are texts, which a collator drops: they are kept beside it")
        trainer.data_collator = IdsBesideCollator(
            collate, keys, self._recording.keeps_order, seen, taken=self._taken, kept=KEPT
        )
        try:
            return own(dataset, *args, **kwargs)
        finally:
            trainer.data_collator = collate

    def _beside_train(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A training, which is over when an error or Ctrl-C ends it."""
        self._end_unseen()
        try:
            return own(*args, **kwargs)
        except BaseException as error:
            self._broke = True
            self._end_unseen(error)
            raise

    def _beside_evaluate(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Remember by which door an evaluation came in."""
        return self._entered("evaluate", own, *args, **kwargs)

    def _beside_predict(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same of a prediction."""
        return self._entered("predict", own, *args, **kwargs)

    def _entered(self, door: str, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before, self._door = self._door, door
        try:
            return own(*args, **kwargs)
        finally:
            self._door, self._evaluated = before, None
            if not before and not self._is_training:
                self._recording.release()

    def _beside_evaluation_loop(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One walk over an evaluation set: a pass of its own."""
        prefix = kwargs.get("metric_key_prefix", args[4] if len(args) > 4 else "eval")
        kind, _, ds_id = str(prefix).partition("_")
        is_predicted = self._door == "predict"
        mode = Mode.TEST if is_predicted or kind == "test" else Mode.EVAL
        if kind not in (("test", "predict") if is_predicted else ("eval", "test")):
            ds_id = str(prefix)
        before, self._loop = self._loop, (mode, ds_id)
        self._recording.begin_pass(mode, ds_id)
        try:
            return own(*args, **kwargs)
        finally:
            self._loop = before
            if self._door:  # its scalars come now
                self._evaluated = mode, ds_id
            elif not self._is_training:
                self._recording.release()

    def _beside_training_step(self, own: Callable[..., Any], model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One batch of a training: its ids are remembered, as the step may take them out before it computes a loss."""
        self._held = self._without_ids(inputs)
        try:
            return own(model, inputs, *args, **kwargs)
        finally:
            self._held = None

    def _beside_prediction_step(
        self, own: Callable[..., Any], model: Any, inputs: Any, prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        """One batch of an evaluation: its answers are what the loss was computed of, else what the step returns."""
        if self._loop is None:  # a loop that began before the callback stood beside it
            self._recording.missed(rows_of(inputs, None), _UNDER_WAY)
            return own(model, inputs, prediction_loss_only, *args, **kwargs)
        whole = inputs
        inputs, ids = self._without_ids(inputs)
        self._has_answered = self._is_by_caller = False
        given, labels = dict(inputs), self._label_in(inputs)
        self._held = given, ids
        shown = self._shown(whole, inputs)
        self._hidden = {name: shown[name] for name in shown if name not in inputs} if shown is not inputs else {}
        if not _is_of_library(own):
            inputs, self._hidden = shown, {}
        generates = bool(getattr(self._trainer.args, "predict_with_generate", False)) and not prediction_loss_only
        names = getattr(self._trainer, "label_names", None)
        # Without labels that the trainer knows of, it computes no loss, and keeps no answers where it wants losses.
        has_labels = bool(names and all(inputs.get(name) is not None for name in names))
        watch = nullcontext(Step()) if has_labels or generates else self._watched(model, given)
        listens = _Heard(model, generates and labels is not None, prediction_loss_only and not has_labels)
        try:
            with listens as model_heard, watch as heard, self._spared(model, inputs):
                result = own(model, inputs, prediction_loss_only, *args, **kwargs)
        finally:
            self._held, self._hidden = None, {}
        if not self._has_answered:
            self._recording.guarded("telling what the loss is made of", partial(heard.end, result[0]))
            answers = result[1]
            if _are_whole(answers) and model_heard.output is not None:
                answers = model_heard.output
            answers = model_heard.output if answers is None else answers
            if answers is None:
                self._recording.missed(
                    rows_of(given, None),
                    "prediction_step returns no answers, and runs no model that shows them: let it return them as its "
                    "second value",
                )
            elif self._orders.is_of_pairs and labels is None and self._recording.samples_fn is None:
                self._recording.missed(rows_of(given, None), f"{self._name} {COMPARED}: give samples_fn")
            elif _are_whole(answers):
                rows = rows_of(given, None)
                self._recording.missed(rows, "generated texts without labels beside them have no loss, and no row")
            else:
                self._recording.guarded(
                    "logging samples",
                    lambda: self._log_judged(heard, answers, given, labels, ids),
                    rows=rows_of(given, None),
                )
        return result

    def _beside_compute_loss(self, own: Callable[..., Any], model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One loss: the outputs it was computed of are the model's answers."""
        is_own = getattr(own, "__func__", own) is not import_module("transformers").Trainer.compute_loss
        if self._loop is None and not self._is_training:
            # Called by hand, or by an evaluation that began before this stood beside it: no training.
            shown = self._shown(inputs, self._without_ids(inputs)[0]) if is_own else self._without_ids(inputs)[0]
            with self._spared(model, shown):
                return own(model, shown, *args, **kwargs)
        self._has_called = self._has_called or self._loop is None
        wants_outputs = bool(args[0]) if args else bool(kwargs.get("return_outputs", False))
        whole = inputs
        inputs, ids = self._without_ids(inputs)
        given, labels = dict(inputs), self._label_in(inputs)
        ids = self._ids_held(given) if ids is None else ids
        asked = {**kwargs, "return_outputs": True}
        if is_own:
            hidden = self._trainer._prepare_inputs(self._hidden) if self._hidden else {}
            inputs = {**hidden, **inputs} if hidden else self._shown(whole, inputs)
        self._is_by_caller = is_own or getattr(self._trainer, "compute_loss_func", None) is not None
        with self._watched(model, given) as heard, self._spared(model, inputs):
            result = own(model, inputs, **asked) if not args else own(model, inputs, True, *args[1:], **kwargs)
        rows = rows_of(given, None)
        if not isinstance(result, tuple):
            self._recording.missed(
                rows, "compute_loss returns no outputs: end it with return (loss, outputs) if return_outputs else loss"
            )
            return result
        loss, outputs = result[0], result[1]
        self._recording.guarded("telling what the loss is made of", partial(heard.end, loss))
        self._has_answered = True
        with torch.no_grad():
            self._recording.guarded(
                "logging samples", lambda: self._log_judged(heard, outputs, given, labels, ids), rows=rows
            )
        return result if wants_outputs else loss

    def _log_judged(self, heard: Step, outputs: Any, given: Mapping[str, Any], labels: Any, ids: Any) -> None:
        """Log what a step answered, under the samples and by the labels that it was seen to be of."""
        rows, mode = rows_of(given, None), self._mode
        is_by_hand = self._recording.samples_fn is not None
        # Asked after the first forward: a model without a problem_type decides it there, by its labels.
        self._known = self._known or known_of(self._trainer.model)
        compared = self._orders.leave_out_compared(heard, given, ids, mode)
        if compared and not is_by_hand and self._orders.are_compared_alone(heard, compared, mode):
            self._orders.watched.add(mode)
            self._recording.missed(rows, f"{self._name} {COMPARED}: give samples_fn")
            return
        if (heard.is_compiled or heard.ran_compiled) and not (heard.judged or is_by_hand or labels is None):
            self._recording.tell(_COMPILED)
        heard.judged = [at_all_places(one, labels, given) for one in heard.judged]
        if not is_by_hand:
            outputs = self._views.take_first(heard, given, labels, rows, mode)(outputs)
        if self._orders.leave_out_watched(heard, labels, mode):
            self._recording.tell(DISPUTED.format(name=self._name))
            labels = None
        task = _task_of(heard.judged, _scores(outputs), rows, self._config)
        places, reason = self._order_of(heard, given, labels, outputs) if self._is_by_caller else (None, None)
        if reason is None and places is not None:
            given, labels, ids = (taken(one, places) for one in (dict(given), labels, ids))
        read = _Read(labels, shifted=self._shifted, reason=reason)
        is_packed = ids is not None and not isinstance(ids, str) and rows == 1 < len(ids)
        if reason is None and not is_by_hand and not (is_packed and self._known.task is None):
            read = (self._labels_of_next if self._shifted else self._labels_of)(heard, given, labels, outputs)
        if read.reason is not None:
            self._orders.watched.add(mode)
            self._recording.missed(rows_of(given, None), read.reason)
            return
        self._log(outputs, given, read, ids, task, heard)
        if not self._recording.is_undecided:
            self._orders.watched.add(mode)

    @property
    def _mode(self) -> Mode:
        return (self._loop or (Mode.TRAIN, ""))[0]

    @property
    def _name(self) -> str:
        """What gives the criteria that are seen their answers, in words."""
        return "compute_loss" if self._is_by_caller else "the model's forward"

    def _watched(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """What a step gives its criteria and its model, watched while it runs; nothing stays on the model.

        The loss of a class of transformers, and the Trainer's own of it, are known, and so let be.
        """
        is_known = self._is_configured and not self._is_by_caller
        if is_known:
            return nullcontext(Step())
        return captured(model, closely=self._mode not in self._orders.watched, batch=batch)

    def _order_of(
        self, heard: Step, given: Mapping[str, Any], labels: Any, outputs: Any
    ) -> tuple[tuple[int | None, ...] | None, str | None]:
        """Which sample of the batch each answer of a compute_loss of the caller's is of; None of its own order.

        It is told by what its model was given and answered, and what it returned of that. Else why it is not known.
        """
        mode, rows, order = self._mode, rows_of(given, None) or 0, None
        if not any(is_of_batch(one.truth, labels) for one in heard.judged):
            order, reason = self._orders.order_of(heard, given, rows, mode, "compute_loss")
            if reason is not None:
                return None, reason
            if order is None and not self._orders.is_kept(mode):
                self._is_permuted = self._is_permuted or _is_permuted(heard.judged, labels)
        if (order is None and self._is_permuted) or (order is not None and not order.places):
            return None, _PERMUTED.format(name=self._name)
        returned = _scores(outputs)
        answered = [one for forward in heard.forwards if (one := _scores(forward.output)) is not None]
        answered = [one for one in answered if returned is not None and one.shape == returned.shape]
        if returned is None or not answered or len(returned) < 2:
            return (None if order is None else order.places), None
        after = self._orders.order_of_returned(returned, answered, mode)
        if after is None:
            return (None if order is None else order.places), None
        if not after.places:
            return None, _PERMUTED.format(name=self._name)
        before = range(rows) if order is None else order.places
        return tuple(None if place is None else before[place] for place in after.places), None

    def _labels_of(self, heard: Step, given: Mapping[str, Any], labels: Any, outputs: Any) -> _Read:
        """The labels that the answers were judged by, where a criterion shows it; or why they are of no sample."""
        scores, mode, rows = _scores(outputs), self._mode, rows_of(given, None)
        if scores is None or not rows:
            return _Read(labels)
        if self._is_configured or not (labels is None or isinstance(labels, torch.Tensor)):
            heard = replace(heard, judged=[one for one in heard.judged if not one.is_inner])
        judged = self._orders.judged_of(scores, heard.judged, labels, mode)
        parts: list[Judged] = []
        if not judged or judged[0].is_inner:
            parts = self._orders.part_of(scores, heard, labels, rows, mode, is_alone=not judged)
        if len(parts) > 1:
            return _Read(reason=f"{self._name} {_PARTS}")
        judged = parts or judged
        if not judged:
            labels, reason = self._labels_of_places(heard, given, labels, scores)
            return _Read(labels, reason=reason)
        if len(judged) > 1:
            self._recording.tell(DISPUTED.format(name=self._name))
            return _Read()
        if self._orders.are_disputed(heard, judged[0], labels, mode, self._name):
            return _Read()
        return self._of_criterion(heard, given, judged[0], labels, rows, is_part=bool(parts))

    def _of_criterion(
        self, heard: Step, given: Mapping[str, Any], judged: Judged, labels: Any, rows: int, *, is_part: bool
    ) -> _Read:
        """What a criterion says that was given the answers that count.

        Of a model without a configuration it says all, as in any other trainer; of others the labels, and of yes and no
        at every place, of probabilities, and of a part of the answers also what these mean.
        """
        mode, name = self._mode, self._name
        # And so are answers that are returned in the order of the model's.
        is_in_order = self._orders.is_kept(mode) or not self._is_by_caller
        if (self._known or NOTHING).task is None:
            found = self._criteria.columns(heard, judged, given, labels, rows, mode, name, is_in_order=is_in_order)
            return _Read(reason=f"{name} {found}") if isinstance(found, str) else _Read(labels, columns=found[0])
        if (reason := self._criteria.too_many(heard, judged, labels, rows)) is not None:
            return _Read(reason=f"{name} {reason}")
        self._orders.say_soft(judged, labels, mode, name)
        judged = self._orders.with_own_label(judged, labels, mode, name)
        own, stray = self._orders.labels_of(judged, labels, mode, is_in_order=is_in_order)
        if stray is not None:
            return _Read(reason=f"{name} {stray}; no samples of it are recorded: give samples_fn")
        meant = meaning_of(judged, own, rows)
        truth, counting, unknown = that_count(heard, given, judged, meant, labels, self._orders.told, mode)
        if unknown is not None:
            return _Read(reason=f"{name} {unknown}")
        says_all = is_part or (judged.is_each and (meant[0].has_places or judged.values is Values.PROBABILITIES))
        meaning = meant[:2] if says_all else None
        if isinstance(truth, torch.Tensor) and truth.is_floating_point():
            truth = truth if counting is None else truth.masked_fill(~counting.reshape(truth.shape), torch.nan)
        elif isinstance(truth, torch.Tensor) and judged.ignored is not None:
            truth = truth.masked_fill(truth == judged.ignored, _IGNORED)
        return _Read(truth, meaning)

    def _labels_of_next(self, heard: Step, given: Mapping[str, Any], labels: Any, outputs: Any) -> _Read:
        """As `_labels_of`, of a causal model, and whether each answer is about the label of the next place.

        A loss of the caller's own may shift them itself, make them of the inputs, or have them shifted by its dataset.
        """
        scores, mode, rows = _scores(outputs), self._mode, rows_of(given, None) or 0
        if scores is None or scores.ndim != 3:
            return _Read(labels, shifted=True)
        n, length = scores.shape[:2]
        if self._is_configured:
            heard = replace(heard, judged=[one for one in heard.judged if not one.is_inner])
        judged = self._orders.judged_of(scores, heard.judged, labels, mode)
        if len(judged) > 1:
            return _Read(reason=f"{self._name} {_SEVERAL}")
        if not judged:
            parts = self._orders.part_of(scores, heard, labels, rows, mode, is_alone=True) if rows else []
            if len(parts) > 1:
                return _Read(reason=f"{self._name} {_PARTS}")
            if parts:
                return self._of_criterion(heard, given, parts[0], labels, rows, is_part=True)
            own, reason = self._labels_of_places(heard, _but_first(given, length), _next(labels), scores[:, :-1])
            return _Read(labels if own is None or reason else _before_first(own), shifted=True, reason=reason)
        one = judged[0]
        if (reason := self._criteria.too_many(heard, one, labels, rows)) is not None:
            return _Read(reason=f"{self._name} {reason}")
        if one.truth.is_floating_point() or one.truth.numel() not in (n * length, n * (length - 1)):
            return _Read(labels, shifted=True)
        truth = one.truth.reshape(n, -1)
        if one.ignored is not None:
            truth = truth.masked_fill(truth == one.ignored, _IGNORED)
        is_next = truth.shape[1] < length or self._orders.is_next(truth, labels, mode)
        if truth.shape[1] == length and (is_next or (truth.is_cpu and bool((truth[:, -1] == _IGNORED).all()))):
            truth, is_next = truth[:, :-1], True
        if one.is_weighed:
            values = (scores[:, :-1] if is_next else scores).movedim(2, 1)
            batch = {**_but_first(given, length), **_but_last(given, length)} if is_next else given
            weighed_as = replace(one, ignored=_IGNORED)
            counted = without_left_out(heard, batch, weighed_as, values, truth, self._orders.told, mode)
            if counted is None:
                return _Read(reason=f"{self._name} {weighed(heard)}")
            truth = counted
        return _Read(_before_first(truth) if is_next else truth, shifted=is_next)

    def _labels_of_places(
        self, heard: Step, given: Mapping[str, Any], labels: Any, scores: torch.Tensor
    ) -> tuple[Any, str | None]:
        """The labels where no criterion was given the answers as they are: of some places alone, those of these."""
        if not of_some_places(heard, labels, scores):
            return labels, None
        chosen = of_chosen_places(heard, given, labels, scores)
        return (labels, f"{self._name} {SOME_PLACES}") if chosen is None else (chosen[1], None)

    def _log(
        self, outputs: Any, inputs: Mapping[str, Any], read: _Read, ids: Any, task: str | None, heard: Step
    ) -> None:
        recording = self._recording
        mode, ds_id = self._loop or (Mode.TRAIN, "")
        rows, found, labels = rows_of(inputs, None), self._found, read.labels
        kept = _with_decoder_ids(inputs_of((), inputs), inputs, outputs, _bare(self._trainer.model))
        for _, _, seen in self._seen.values():
            for line, known_by in seen.notes:
                recording.tell(line, known_by)
        if isinstance(ids, str):
            recording.missed(rows, ids)
            return
        if recording.samples_fn is not None:
            batch = {"sample_id": ids, **inputs}
            columns = dict(recording.samples_fn(batch, outputs))
            given = columns.pop("sample_id", None)
            ids, found = (ids, found) if given is None or given is ids else (given, "what samples_fn gives")
        elif read.columns is not None:
            columns = dict(read.columns)
        else:
            known = self._known or NOTHING
            if (reason := _by_hand(outputs, inputs, labels, self._config)) is not None:
                recording.missed(rows, reason)
                return
            origin = None if heard.origin is None else partial(_of_probabilities, heard.origin)
            head, values = read.meaning or recording.answers(outputs, labels, task=task, origin=origin, known=known)
            recording.settle(head.task)
            if ids is not None and len(values) == 1 < len(ids):
                rows, spans = len(ids), _spans(inputs)
                if len(spans) != rows or not isinstance(labels, torch.Tensor):
                    recording.missed(
                        rows,
                        "several samples lie in one row, and where each begins is not said: let the collator give "
                        "position_ids, or give samples_fn",
                    )
                    return
                values = _apart(values, spans, 0.0)
                labels = _apart(labels, spans, _IGNORED)
                texts = [inputs["input_ids"][0, span] for span in spans] if "input_ids" in inputs else None
                inputs, kept = ({} if texts is None else {"input_ids": texts}), None
            is_shifted = read.shifted and head.task is Task.SEQUENCE
            keep = recording.keeps_tokens(head.task)
            void = recording.void_label
            if is_shifted == self._shifted and head.task is Task.SEQUENCE:
                kept = _with_labels(kept, labels)
            columns = columns_of(head, values, labels, shifted=is_shifted, keep_tokens=keep, void=void)
            if head.task is Task.TOKEN_CLASSIFICATION:
                recording.tell("every sequence is one row: its loss and token_accuracy are of its labelled places")
            if not columns:
                recording.missed(rows, _NO_LABELS.format(name=self._name) if labels is None else _OTHER_PLACES)
                return
            self._tell_unfit(columns, labels, head.task)
        if found == _BY_NUMBER:
            recording.numbered_by(self._numbered.get(mode is Mode.TRAIN), mode, ds_id)
        recording.log(columns, sample_id=ids, mode=mode, ds_id=ds_id, inputs=kept, rows=rows, found=found)
        recording.note_texts(ids, mode, inputs, ds_id)

    def _tell_unfit(self, columns: Mapping[str, Any], labels: Any, task: Task) -> None:
        if labels is not None and not columns.keys() & {"label", "loss"}:
            shape = tuple(getattr(labels, "shape", (len(labels),)))
            line = f", or say {_SETS_LINE}" if task is Task.MULTILABEL and len(shape) == 1 else ""
            self._recording.tell(_UNFIT_LABELS.format(shape=shape, task=task.value) + line)

    def _without_ids(self, inputs: Any) -> tuple[Any, Any]:
        """The inputs without what the model does not take for an input, and the ids among it."""
        if not isinstance(inputs, Mapping):
            return inputs, None
        keys = (ROW, KEPT, *self._keys)
        key = next((k for k in keys if k in inputs and (isinstance(inputs[k], str) or _are_ids(inputs[k]))), None)
        if key is not None:
            name = next((k for k in self._keys if k in self._taken), key) if key == KEPT else key
            # Of a loader of the caller's own nothing but the batch is seen.
            here = f"the column {name!r} of the dataset" if self._seen else f"the entry {name!r} of the batches"
            self._found = _BY_NUMBER if key == ROW else here
        ids = None if key is None else inputs[key]
        apart = frozenset(keys) - self._taken
        return {name: value for name, value in inputs.items() if name not in apart}, ids

    def _ids_held(self, given: Mapping[str, Any]) -> Any:
        """The ids that a step took out of its batch, of the rows that it gives its loss; or why they are not known."""
        batch, ids = self._held or ({}, None)
        if ids is None or isinstance(ids, str):
            return ids
        parts = {name: part for name, part in given.items() if isinstance(part, torch.Tensor) and part.ndim}
        came = {
            name: part.to(parts[name].device) if name in parts and isinstance(part, torch.Tensor) else part
            for name, part in batch.items()
        }
        are_same = [came.get(name) is part for name, part in parts.items()]
        if parts and all(are_same):
            return ids
        n, rows = len(ids), rows_of(given, None)
        order = rows_in(list(parts.values()), came) if rows == n else order_in(rows_apart(came, n), given, rows)
        if order.places:
            return ids_taken(ids, order.places)
        keeps_order = self._recording.keeps_order
        is_kept = any(are_same) if keeps_order is None else keeps_order
        if rows == n and is_kept and not order.is_other:
            return ids
        return None if self._recording.samples_fn is not None else _TAKEN_OUT

    def _shown(self, inputs: Any, without: Any) -> Any:
        """What a method of the caller's is given: as without this, the ids that its own batches hold among it.

        Args:
            inputs: The batch.
            without: The same without what the model does not take.
        """
        is_removed = self._trainer.args.remove_unused_columns and bool(self._seen)
        if is_removed or not isinstance(inputs, Mapping) or not any(key in inputs for key in self._keys):
            return without
        if ROW not in inputs and KEPT not in inputs:
            return inputs
        return {name: value for name, value in inputs.items() if name not in (ROW, KEPT)}

    @contextmanager
    def _spared(self, model: Any, inputs: Any) -> Iterator[None]:
        """While a step runs, keep ids that it gives its model by name from one that does not take them."""
        apart = frozenset(self._keys) - self._taken
        is_needed = isinstance(inputs, Mapping) and any(key in inputs for key in apart)
        bare = _bare(model)
        called = [model] if bare is model else [model, bare]
        if not is_needed or not isinstance(bare, torch.nn.Module):
            called = []
        elif is_compiled(model):  # a hook within would be compiled
            called = [one for one in called if "_orig_mod" in one._modules]

        def spare(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {name: value for name, value in kwargs.items() if name not in apart}

        hooks = [one.register_forward_pre_hook(spare, with_kwargs=True) for one in called]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _label_in(self, inputs: Any) -> Any:
        """The labels: what the trainer calls so, else what is named like them."""
        names: Any = getattr(self._trainer, "label_names", None) or ()
        if len(names) == 1 and isinstance(inputs, Mapping) and inputs.get(names[0]) is not None:
            return inputs[names[0]]
        return label_in(inputs)


def _with_decoder_ids(kept: Any, inputs: Mapping[str, Any], outputs: Any, model: Any) -> Any:
    """A model's inputs with the ids that it made of its labels for its decoder, where it was given none.

    Args:
        kept: The inputs.
        inputs: They and the labels.
        outputs: What the model answered; with a loss of its own where it was given the labels.
        model: The model itself.
    """
    labels, given = inputs.get("labels"), isinstance(outputs, Mapping) and outputs.get("loss") is not None
    if not given or not isinstance(kept, Mapping) or not isinstance(labels, torch.Tensor) or labels.ndim != 2:
        return kept
    accepted = inspect.signature(model.forward).parameters
    if "decoder_input_ids" not in accepted or kept.keys() & {"decoder_input_ids", "decoder_inputs_embeds"}:
        return kept
    make = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    shift = getattr(sys.modules.get(type(model).__module__), "shift_tokens_right", None)
    if make is not None:
        return {**kept, "decoder_input_ids": make(labels=labels)}
    if shift is not None:
        config = model.config
        return {**kept, "decoder_input_ids": shift(labels, config.pad_token_id, config.decoder_start_token_id)}
    return kept


def _with_labels(kept: Any, labels: Any) -> Any:
    """A model's inputs with the right token at each place of the texts that it answers about, where these are known."""
    texts = kept.get("decoder_input_ids", kept.get("input_ids")) if isinstance(kept, Mapping) else None
    are_tokens = isinstance(labels, torch.Tensor) and not labels.is_floating_point()
    return {**kept, OF_PLACES: labels} if are_tokens and texts is not None and texts.shape == labels.shape else kept


def _scores(output: Any) -> torch.Tensor | None:
    """The answers among what a model, or a compute_loss, returned: a row a sample."""
    found = output
    if isinstance(output, Mapping):
        found = next((output[name] for name in NAMED if isinstance(output.get(name), torch.Tensor)), None)
    if isinstance(found, (list, tuple)):
        parts = [part for part in found if isinstance(part, torch.Tensor) and part.ndim > 0]
        found = next((part for part in parts if part.ndim > 1), next(iter(parts), None))
    return found if isinstance(found, torch.Tensor) and found.ndim > 0 else None


def _of_probabilities(origin: OriginOf, tensor: torch.Tensor) -> Origin | None:
    """What made a tensor, where that says that it holds probabilities: of all else the configuration tells it."""
    made = origin(tensor)
    return None if made is None or made.range in (Range.REAL, Range.POSITIVE, Range.UNKNOWN) else made


def _next(labels: Any) -> Any:
    """The labels that the answers of a causal model are about: all but the first place's."""
    return labels[:, 1:] if isinstance(labels, torch.Tensor) and labels.ndim == 2 else None


def _before_first(labels: torch.Tensor) -> torch.Tensor:
    """Labels of the next places as those of a text: no answer is about its first."""
    return torch.cat([labels.new_full((len(labels), 1), _IGNORED), labels], 1)


def _but_first(batch: Mapping[str, Any], length: int) -> dict[str, Any]:
    """What a batch says of each place but the first."""
    of_places = {name: part for name, part in batch.items() if isinstance(part, torch.Tensor) and part.ndim == 2}
    return {name: part[:, 1:] for name, part in of_places.items() if part.shape[1] == length}


def _but_last(batch: Mapping[str, Any], length: int) -> dict[str, Any]:
    """What a batch says of each place but the last, under names of their own."""
    of_places = {name: part for name, part in batch.items() if isinstance(part, torch.Tensor) and part.ndim == 2}
    return {f"{name} before": part[:, :-1] for name, part in of_places.items() if part.shape[1] == length}


def _is_permuted(judged: Sequence[Judged], labels: Any) -> bool:
    """Whether criteria were given the batch's labels in another order, and never in their own."""
    if not isinstance(labels, torch.Tensor) or labels.numel() < 2 or not labels.is_cpu:
        return False
    given = [one.truth for one in judged if one.truth.numel() == labels.numel()]
    if any(torch.equal(truth.reshape(-1).double(), labels.reshape(-1).double()) for truth in given):
        return False
    return any(are_reordered(truth, labels) for truth in given)


def _task_of(judged: Sequence[Judged], scores: torch.Tensor | None, rows: int | None, config: Any) -> str | None:
    """What a criterion of the caller's says that takes each number for itself; None where none does.

    Without a word of the configuration (`problem_type`) a model of one number is taken for one of a regression, and one
    of several for one of classes.

    Args:
        judged: What criteria were given.
        scores: The answers that were returned; None where these are not known.
        rows: How many samples there are.
        config: The model's configuration.
    """
    if getattr(config, "problem_type", None) is not None:
        return None
    is_one = scores is None or scores.numel() == rows
    one = [one for one in judged if is_one and one.answers.numel() == rows]
    if one and all(judged.values is Values.VALUE for judged in one):
        return Task.REGRESSION.value
    for task, given in (
        (Task.BINARY, one),
        (Task.MULTILABEL, [o for o in judged if o.answers.ndim == 2 and len(o.answers) == rows != o.answers.numel()]),
    ):
        if given and all(one.is_each and one.values is Values.LOGITS for one in given):
            return task.value
    return None


def _by_hand(outputs: Any, inputs: Mapping[str, Any], labels: Any, config: Any) -> str | None:
    """Why answers are not recorded that are no class, number or class a place alone, with the line that does it."""
    void = getattr(config, "semantic_loss_ignore_index", 255)
    names = list(outputs) if isinstance(outputs, Mapping) else []
    if {"start_logits", "end_logits"} <= set(names):
        # As the model's own loss, which leaves out ends that lie outside of a text that was cut.
        loss = (
            'sum(F.cross_entropy(output[f"{side}_logits"], batch[f"{side}_positions"].clamp(0, n), reduction="none", '
            'ignore_index=n) for n in [output["end_logits"].shape[1]] for side in ("start", "end")) / 2'
        )
        return f"the model answers where a span begins and ends: {_LINE.format(loss)}"
    chosen, rejected = (next((n for n in names if word in str(n)), None) for word in ("chosen", "rejected"))
    if chosen is not None and rejected is not None and "logits" not in names:
        return _of_pairs(outputs, chosen, rejected, rows_of(inputs, None))
    scores = outputs.get("logits") if "logits" in names else None
    if not (isinstance(scores, torch.Tensor) and isinstance(labels, torch.Tensor)):
        return None
    if scores.ndim != 4 or labels.ndim != 3 or scores.shape[-2:] == labels.shape[-2:]:
        return None
    name = next((name for name, value in inputs.items() if value is labels), "labels")
    loss = (
        f'F.cross_entropy(F.interpolate(output["logits"], batch["{name}"].shape[-2:], mode="bilinear"), '
        f'batch["{name}"], reduction="none", ignore_index={void}).sum((1, 2)) / (batch["{name}"] != {void}).sum((1, 2))'
    )
    return (
        f"the model's pictures of classes are {tuple(scores.shape[-2:])}, the labels {tuple(labels.shape[-2:])}: "
        + _LINE.format(loss)
    )


def _of_pairs(outputs: Mapping[str, Any], chosen: str, rejected: str, rows: int | None) -> str:
    """Why answers are not recorded that compare two texts a sample, with the line that does it."""
    why = "compute_loss compares two texts a sample, one that was chosen and one that was rejected, which is no class"
    if all(isinstance(outputs[name], torch.Tensor) and outputs[name].shape == (rows,) for name in (chosen, rejected)):
        line = f'{{"sample_id": batch["sample_id"], "preferred_by": output[{chosen!r}] - output[{rejected!r}]}}'
        return f"{why}: XaiCallback(..., samples_fn=lambda batch, output: {line}) records by how much each is preferred"
    return (
        f"{why}, and what it returns ({', '.join(map(str, outputs))}) has no number a sample: let it return some by "
        "name, and XaiCallback(..., samples_fn=lambda batch, output: {...}) take them"
    )


def _spans(inputs: Mapping[str, Any]) -> list[slice]:
    """Where each sample lies in a row that holds several: positions begin anew with each."""
    positions = inputs.get("position_ids")
    if not isinstance(positions, torch.Tensor) or positions.shape[:1] != (1,) or positions.ndim != 2:
        return []
    first = (positions[0] == positions[0, 0]).nonzero()[:, 0].tolist()
    return [slice(begin, end) for begin, end in zip(first, [*first[1:], positions.shape[1]], strict=True)]


def _apart(row: torch.Tensor, spans: list[slice], fill: float) -> torch.Tensor:
    """(1, ..., T) as (samples, ..., longest), filled up."""
    longest = max(span.stop - span.start for span in spans)
    made = row.new_full((len(spans), *row.shape[1:-1], longest), fill)
    for one, span in zip(made, spans, strict=True):
        one[..., : span.stop - span.start] = row[0, ..., span]
    return made


class _Heard:
    """What a model answers to the labels while a step generates texts beside: heard there alone, and let go after.

    A step that generates returns the texts, one that is asked for losses alone and finds no labels nothing; the answers
    are in no place else.
    """

    def __init__(self, model: Any, is_wanted: bool, is_any: bool = False) -> None:
        self.output: Any = None
        self._is_any = is_any
        is_hooked = (is_wanted or is_any) and hasattr(model, "register_forward_hook")
        self._hooked = model.register_forward_hook(self._hear, with_kwargs=True) if is_hooked else None

    def _hear(self, _module: Any, _args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        if self._is_any or kwargs.get("labels") is not None:
            self.output = output

    def __enter__(self) -> _Heard:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._hooked is not None:
            self._hooked.remove()


class _Beside:
    """A method of a trainer with ours around it: on the trainer, told apart so that it is never wrapped twice."""

    def __init__(self, around: Callable[..., Any], own: Any) -> None:
        self.own: Callable[..., Any] = own.own if isinstance(own, _Beside) else own
        self._around = around

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._around(self.own, *args, **kwargs)


def _bare(model: Any) -> Any:
    from xaicli.checkpoint.save import unwrapped

    return unwrapped(model)


def _are_whole(answers: Any) -> bool:
    """Whether these are whole numbers: tokens that were generated, and no answers with a loss."""
    return isinstance(answers, torch.Tensor) and not answers.is_floating_point()


def _is_of_library(method: Any) -> bool:
    """Whether a method of a trainer is one of transformers' own."""
    return str(getattr(getattr(method, "__func__", method), "__module__", "")).startswith("transformers.")


def _is_default(names: Mapping[Any, str]) -> bool:
    """Whether these are the names transformers makes up: LABEL_0, LABEL_1, ..."""
    return all(str(name) == f"LABEL_{key}" for key, name in names.items())


def _are_ids(values: Any) -> bool:
    """Whether these are ids, some of which may be missing: their rows are left out by the run, with a word."""
    are_listed = isinstance(values, list)
    return may_be_ids([one for one in values if one is not None] if are_listed else values)
