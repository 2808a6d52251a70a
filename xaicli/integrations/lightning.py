"""Recording a Lightning training: `trainer = Trainer(callbacks=[XaiCallback("runs/exp1")])`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import torch

from xaicli.errors import XaiError
from xaicli.heads.decision import NOTHING
from xaicli.heads.head import Head, Task, Values
from xaicli.heads.outputs import items_of, tensor_at, where_of
from xaicli.integrations.capture import Judged, Step, captured
from xaicli.integrations.columns import columns_of
from xaicli.integrations.identity import number, numbering_of
from xaicli.integrations.options import settled
from xaicli.integrations.order import watch, watched_of
from xaicli.integrations.recording import Recording, inputs_of, rows_of, tokenizer_of
from xaicli.vocabulary import Mode

_STEPS = {
    "training_step": Mode.TRAIN,
    "validation_step": Mode.EVAL,
    "test_step": Mode.TEST,
    "predict_step": Mode.INFER,
}
_STAGES = {"train": Mode.TRAIN, "validate": Mode.EVAL, "test": Mode.TEST, "predict": Mode.INFER}
_END = "end it with return {'loss': loss, 'logits': logits}"
_ROW_NUMBERS = (
    "no sample ids in the batches: the rows' numbers in the dataset are taken, in the order of the loader's sampler; "
    "let the dataset yield (id, input, label), or a dict with sample_id, to have your own, or say where they are: "
    "XaiCallback(..., ids=2) for (input, label, id)"
)

_ASKED = "what stands in it does not tell whose row is whose: let the dataset yield ids and the collate_fn return them"
_OTHER_COUNT = (
    "the collate_fn makes batches of more or fewer rows than it is given samples, and whose rows these are is not "
    "known: let the dataset yield ids and the collate_fn return those of the samples it takes"
)
_UNSHOWN = (
    "nothing in a batch of the collate_fn shows that it keeps its samples' order, and keeps_order=False says that it "
    "may not: let the dataset yield ids and the collate_fn return them"
)
_WEIGHED = (
    "weighs the losses of the places itself, and which of them count is not known; no samples of it are recorded: give "
    "those that do not count the label -100 (ignore_index), or give samples_fn"
)
_SOME_PLACES = (
    "gives its criterion some of the places alone, and which they are is not known; no samples of it are recorded: "
    "give it all, those that do not count with the label -100 (ignore_index), or give samples_fn"
)
_LEFT_OUT = -100
"""The label of a place that does not count."""
_MASKS = ("mask", "length", "lens")
"""Parts of names under which batches say which places hold something."""


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
        self._watched: set[Mode] = set()
        self._strays: dict[Mode, str | None] = {}
        """Why what a criterion is given cannot be recorded, by the last comparison of a mode."""
        self._loader = 0
        self._numbers: dict[int, list[int]] = {}
        """Of each loader that made the batch, the rows' numbers."""
        self._before = (0, 0)
        """The last epoch and step of the fits before this one, which a new one goes on from."""
        self._trainer: Any = None

    @property
    def run(self) -> Any:
        """The run that is recorded."""
        return self._recording.run

    def __getstate__(self) -> dict[str, Any]:
        """Without what is bound to this process: a trainer may be sent to others."""
        return {**self.__dict__, "_undo": [], "_trainer": None}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand beside the strategy's steps until `teardown`."""
        del stage
        self._restore()
        self._recording.is_main = trainer.is_global_zero
        self._recording.described(dict(getattr(pl_module, "hparams", None) or {}))
        if self._recording.tokenizer is None:
            holders = (pl_module, getattr(trainer, "datamodule", None))
            self._recording.tokenizer = next((t for one in holders if (t := tokenizer_of(one)) is not None), None)
        for name, mode in _STEPS.items():
            self._wrap(trainer, pl_module, name, mode)
        self._number(trainer)

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
        goes_back = getattr(trainer, "ckpt_path", None) is not None
        self._recording.begin(max(trainer.max_epochs or 0, 0) + self._before[0], is_resumed=goes_back)
        if self._recording.collects_before:
            self._recording.collect(pl_module, 0)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the epoch, from 1."""
        del pl_module
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
            if trainer.sanity_checking or not any(one is self for one in trainer.callbacks):
                return own(*args, **kwargs)  # a trial, or the tuner's, which sets the callbacks aside for it
            with captured(pl_module, closely=mode not in self._watched) as taken:
                taken.returned = own(*args, **kwargs)
            returned = taken.returned
            # Several processes run the step as the module's forward: that one is the step itself.
            taken.forwards = [one for one in taken.forwards if one.output is not returned]
            with torch.no_grad():
                self._recording.guarded(
                    "logging samples", lambda: self._log(trainer, taken, args[0], mode), rows=rows_of(args[0], None)
                )
            if not self._recording.is_undecided:
                self._watched.add(mode)
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
        parts = _parts(*_loaders(trainer, mode), batch, self._loader, recording.label_in)
        rows = sum(part.rows or 0 for part in parts)
        if recording.samples_fn is not None:
            whole = parts[0] if len(parts) == 1 else _Part(batch, labels=recording.label_in(batch))
            output = step.named if step.named is not None else step.forwards[-1].output if step.forwards else None
            output = _answers_of(step, whole.labels, mode, whole.rows) if output is None else output
            columns = dict(recording.samples_fn(batch, output))
            ids = columns.pop("sample_id", None)
            ids = recording.ids_in(whole.batch) if ids is None else ids
            inputs = _inputs_of(step)
            recording.log(columns, sample_id=ids, mode=mode, ds_id=whole.ds_id, inputs=inputs, rows=rows or None)
            recording.note_texts(ids, mode, _texts_of(whole.batch, inputs))
            return
        if len(parts) == 1:
            result, whole = _answers_of(step, parts[0].labels, mode, parts[0].rows), parts[0]
            if result is None and (chosen := _of_chosen_places(step, whole.batch, whole.labels)) is not None:
                result, whole = chosen[0], replace(whole, labels=chosen[1])
            if not self._log_part(whole, result, step, mode, _inputs_of(step)):
                recording.missed(rows, _ask(step, mode, rows))
            return
        logged = [part for part, result in _shared_out(step, parts) if self._log_part(part, result, step, mode, None)]
        if not logged:
            recording.missed(rows, _ask(step, mode, rows))
        elif len(logged) < len(parts):
            named = ", ".join(repr(part.ds_id) for part in logged)
            recording.tell(
                f"of the {len(parts)} loaders that make a batch, only those are recorded whose labels a criterion was "
                f"given: {named}"
            )

    def _log_part(self, part: _Part, result: Any, step: Step, mode: Mode, inputs: Any) -> bool:
        """Log what one loader's samples were answered; False where that is not known."""
        recording, labels, ids = self._recording, part.labels, self._recording.ids_in(part.batch)
        numbers = self._numbers.get(id(part.loader))
        if ids is None and numbers is not None:
            if (reason := self._doubt(part, numbers)) is not None:
                recording.missed(part.rows, reason)
                return True
            recording.tell(_ROW_NUMBERS)
            if (collator := watched_of(part.loader)) is not None:
                for line in collator.seen.said:
                    recording.tell(line)
            ids = numbers
        if result is None and step.classes is None:
            return False
        if isinstance(result, Judged):
            labels, stray = self._labels_judged(result, labels, mode)
            if stray is not None:
                recording.missed(
                    part.rows, f"{_name_of(mode)} {stray}; no samples of it are recorded: {_END} in the batch's order"
                )
                return True
            head, values, truth = _judged(result, labels, part.rows)
            is_weighed = result.is_weighed and head.task is Task.TOKEN_CLASSIFICATION
            if is_weighed and not _is_mean(step, values, truth):
                inside = _counting(step, part.batch, values, truth)
                if inside is None and _may_leave_out(part.batch, truth, result.ignored):
                    recording.missed(part.rows, f"{_name_of(mode)} {_WEIGHED}")
                    return True
                truth = truth if inside is None else truth.masked_fill(~inside, _LEFT_OUT)
            recording.settle(head.task)
            keep, void = recording.keeps_tokens(head.task), recording.void_label
            columns = columns_of(head, values, truth, keep_tokens=keep, ignored=result.ignored, void=void)
        elif step.classes is not None and (result is None or result is step.returned):
            columns = {"prediction": step.classes} | ({} if labels is None else {"label": labels})
        else:
            head, values = recording.answers(result, labels, origin=step.origin, known=NOTHING)
            keep, void = recording.keeps_tokens(head.task), recording.void_label
            columns = columns_of(head, values, labels, keep_tokens=keep, void=void)
        recording.log(columns, sample_id=ids, mode=mode, ds_id=part.ds_id, inputs=inputs, rows=part.rows)
        recording.note_texts(ids, mode, _texts_of(part.batch, inputs))
        return True

    def _doubt(self, part: _Part, numbers: list[int]) -> str | None:
        """Why the rows of a batch are not those numbers, in this order; None where nothing speaks against it."""
        collator, keeps_order = watched_of(part.loader), self._recording.keeps_order
        if part.rows is not None and part.rows != len(numbers):
            return _OTHER_COUNT
        if collator is None or len(numbers) < 2:
            return None
        if collator.disorder is not None:
            return f"the collate_fn {collator.disorder}, and {_ASKED}"
        if keeps_order or collator.is_known:
            return None
        if keeps_order is False:
            return _UNSHOWN
        if (doubt := collator.seen.doubt) is not None:
            return doubt
        collator.seen.note("assumed")
        return None

    def _labels_judged(self, judged: Judged, labels: Any, mode: Mode) -> tuple[Any, str | None]:
        """As the function; on a device, where comparing waits for it, compared in the first step of a mode alone."""
        if judged.truth.is_cpu or mode not in self._watched:
            found = _labels_judged(judged, labels)
            self._strays[mode] = found[1]
            return found
        if self._strays.get(mode) is not None:
            return labels, self._strays[mode]
        is_mixed = judged.truth.is_floating_point() and not judged.is_each
        return (labels if is_mixed else None), None

    def _begin(self, trainer: Any, mode: Mode, loaders: Any) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            self._at(trainer)
        for ds_id, _ in _listed(loaders):
            self._recording.begin_pass(mode, ds_id)
        self._loader = 0

    def _at(self, trainer: Any) -> None:
        epoch, step = self._before
        # The step that is now computed: the optimizer has not counted it yet.
        done = trainer.global_step + (1 if trainer.training else 0)
        self._recording.at(epoch + trainer.current_epoch + 1, step + done)

    def _number(self, trainer: Any) -> None:
        """Have every loader remember the rows it gives, from before its workers are started."""
        strategy, own = trainer.strategy, trainer.strategy.process_dataloader

        def process(loader: Any) -> Any:
            processed = own(loader)
            if (undo := number(processed, lambda: trainer.state.stage)) is not None:
                self._undo += [undo, watch(processed)]
            return processed

        to_device = strategy.batch_to_device

        def fetched(batch: Any, *args: Any, **kwargs: Any) -> Any:
            """Every batch comes by here, those too that no step is run for, or one several times."""
            place = kwargs.get("dataloader_idx", args[1] if len(args) > 1 else 0)
            if (mode := _STAGES.get(getattr(trainer.state.stage, "value", ""))) is not None:
                self._numbers = {
                    id(loader): sampler.take()
                    for _, _, loader in _pieces(*_loaders(trainer, mode), batch, place)
                    if (sampler := numbering_of(loader)) is not None
                }
            return to_device(batch, *args, **kwargs)

        strategy.process_dataloader, strategy.batch_to_device = process, fetched
        for name in ("process_dataloader", "batch_to_device"):
            self._undo.append(partial(strategy.__dict__.pop, name, None))

    def _log_scalars(self, trainer: Any) -> None:
        scalars = {name: float(value) for name, value in trainer.callback_metrics.items() if torch.numel(value) == 1}
        if scalars:
            self.run.log({"epoch": self._recording.epoch, **scalars})

    def _restore(self) -> None:
        while self._undo:
            self._undo.pop()()


@dataclass(frozen=True)
class _Part:
    """What one loader gave of a batch: all of it, unless several loaders make it together."""

    batch: Any
    loader: Any = None
    ds_id: str = ""
    labels: Any = None

    @property
    def rows(self) -> int | None:
        return rows_of(self.batch, None)


def _loaders(trainer: Any, mode: Mode) -> tuple[Any, bool]:
    """The loaders of a mode as they were given, and whether they make every batch together."""
    combined = getattr(getattr(trainer, "_active_loop", None), "_combined_loader", None)
    given = {
        Mode.TRAIN: "train_dataloader",
        Mode.EVAL: "val_dataloaders",
        Mode.TEST: "test_dataloaders",
        Mode.INFER: "predict_dataloaders",
    }[mode]
    return getattr(trainer, given, None), getattr(combined, "_mode", "sequential") != "sequential"


def _listed(loaders: Any) -> list[tuple[str, Any]]:
    """The loaders with their ds_ids: their names, or their numbers from the second on."""
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return [(str(name), loader) for name, loader in loaders.items()]
    listed = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    return [(str(number) if number else "", loader) for number, loader in enumerate(listed)]


def _parts(loaders: Any, together: bool, batch: Any, number: int, label_in: Callable[[Any], Any]) -> list[_Part]:
    """The batch by the loaders that made it."""
    given = _pieces(loaders, together, batch, number)
    return [_Part(piece, loader, ds_id, label_in(piece)) for piece, ds_id, loader in given]


def _pieces(loaders: Any, together: bool, batch: Any, number: int) -> list[tuple[Any, str, Any]]:
    """What each loader gave of a batch, its ds_id, and the loader; of several that make it together those that did."""
    listed = _listed(loaders)
    if not together or not isinstance(loaders, (Mapping, list, tuple)):
        return [(batch, *(listed[number] if number < len(listed) else ("", None)))]
    pieces = list(batch.values()) if isinstance(batch, Mapping) else batch
    if not isinstance(pieces, (list, tuple)) or len(pieces) != len(listed):
        return [(batch, "", None)]
    return [(piece, *named) for piece, named in zip(pieces, listed, strict=True) if piece is not None]


def _shared_out(step: Step, parts: Sequence[_Part]) -> list[tuple[_Part, Judged | None]]:
    """Each loader's part with what the criterion was given that got its labels: nothing else tells whose answers.

    Labels that a criterion was handed as they are count before labels that are equal.
    """
    found: list[list[Judged]] = [[] for _ in parts]
    for judged in _distinct(step.judged):
        for same in (_is_same, _same):
            of = [
                i
                for i, part in enumerate(parts)
                if isinstance(part.labels, torch.Tensor) and same(judged.truth, part.labels)
            ]
            if of:
                break
        if len(of) == 1:
            found[of[0]].append(judged)
    return [(part, judged[0] if len(judged) == 1 else None) for part, judged in zip(parts, found, strict=True)]


def _inputs_of(step: Step) -> Any:
    return inputs_of(step.forwards[0].args, step.forwards[0].kwargs) if step.forwards else None


def _texts_of(batch: Any, inputs: Any) -> Any:
    """Where the ids of tokens are: among the batch's entries, or the model's inputs."""
    return batch if isinstance(batch, Mapping) and "input_ids" in batch else inputs


def _answers_of(step: Step, labels: Any, mode: Mode, rows: int | None) -> Any:
    """The model's answers in a step: what it returned, what a criterion was given; None where they cannot be told."""
    if step.named is not None:
        return step.named
    if mode is Mode.INFER and step.returned is not None:
        return step.returned if _is_one(step.returned) else None
    judged = _distinct([one for one in step.judged if rows is None or _fits(one, labels, rows)])
    if len(judged) > 1:
        # An auxiliary loss beside: the criterion that was given the batch's labels is meant, and the module's output.
        judged = [one for one in judged if isinstance(labels, torch.Tensor) and _same(one.truth, labels)]
        if len(judged) > 1 and len(step.forwards) == 1:
            judged = [one for one in judged if _is_output(one.answers, step.forwards[0].output)]
    if len(judged) == 1:
        return judged[0]
    if len(step.forwards) != 1 or not _is_one(output := step.forwards[0].output):
        return None
    if _of_some_places(step, labels, output):
        return None
    # More rows than samples, as of several views of each: which of them is the sample's cannot be told.
    is_other = isinstance(output, torch.Tensor) and rows is not None and output.shape[:1] != (rows,)
    return None if is_other else output


def _labels_judged(judged: Judged, labels: Any) -> tuple[Any, str | None]:
    """The labels to record beside what a criterion was given, or why there are none.

    What a criterion was given counts: labels may be mapped, or changed. The batch's own count beside a mixture of
    classes. Where the very same labels came in another order, the answers did, and whose they are cannot be told.
    """
    truth = judged.truth
    if labels is None or not isinstance(labels, torch.Tensor):
        return labels, _as_places(judged)
    if (truth.is_floating_point() and not judged.is_each and judged.values is not Values.VALUE) or (
        labels.numel() != truth.numel()
    ):
        return labels, None
    if labels.data_ptr() == truth.data_ptr() or labels.device != truth.device:
        return labels, None
    own, given = labels.reshape(-1).double(), truth.reshape(-1).double()
    if torch.equal(own, given):
        return labels, None
    if torch.equal(own.sort().values, given.sort().values):
        return (
            labels,
            "gives its criterion the batch's labels in another order, and whose answers are where is not known",
        )
    return None, _as_places(judged)


def _as_places(judged: Judged) -> str | None:
    """Whether the truth is each sample's own place in the batch: the samples are compared with one another."""
    n = len(judged.truth) if judged.truth.ndim == 1 else 0
    if n < 3 or judged.answers.shape != (n, n) or judged.truth.is_floating_point():
        return None
    if not torch.equal(judged.truth, torch.arange(n, device=judged.truth.device)):
        return None
    return "compares the samples of a batch with one another: its answers are no classes"


def _is_one(output: Any) -> bool:
    """Whether a module's output holds one tensor that may be its answers: the place in a tuple says nothing."""
    if not isinstance(output, (list, tuple)) or hasattr(output, "_fields"):
        return True
    answers = [part for part in output if isinstance(part, torch.Tensor) and part.is_floating_point() and part.ndim > 0]
    return len([part for part in answers if part.ndim > 1] or answers) == 1


def _distinct(judged: Sequence[Judged]) -> list[Judged]:
    """Without what is the same answers compared with the same labels again, as for a loss that is also logged."""
    kept: list[Judged] = []
    for one in judged:
        again = (other for other in kept if other.values is one.values and _is_same(other.answers, one.answers))
        if not any(_same(other.truth, one.truth) for other in again):
            kept.append(one)
    return kept


def _fits(judged: Judged, labels: Any, rows: int) -> bool:
    """Whether a criterion was given one row a sample, or the places of all samples one below the other."""
    n = len(judged.answers) if judged.answers.ndim else 0
    if n == rows:
        return True
    if judged.answers.ndim != 2 or not isinstance(labels, torch.Tensor) or labels.ndim != 2:
        return False
    return n in (labels.numel(), labels.numel() - rows)


def _of_some_places(step: Step, labels: Any, output: Any) -> bool:
    """Whether a criterion was given the classes of some places of the output, laid one below the other."""
    if not (isinstance(labels, torch.Tensor) and labels.ndim == 2 and not labels.is_floating_point()):
        return False
    classes = output.shape[-1] if isinstance(output, torch.Tensor) and output.ndim > 2 else None
    chosen = (one for one in step.judged if one.answers.ndim == 2 and one.truth.ndim == 1)
    return any(len(one.truth) < labels.numel() and one.answers.shape[1] == classes for one in chosen)


def _is_of_some(judged: Judged, rows: int) -> bool:
    """Whether a criterion was given an answer and a label of fewer samples than the batch has."""
    return judged.answers.ndim > 0 and len(judged.answers) == len(judged.truth) < rows


def _may_leave_out(batch: Any, truth: Any, ignored: int | None) -> bool:
    """Whether a batch says of some places that they hold nothing, and their labels do not: the step may heed it."""
    if not isinstance(truth, torch.Tensor) or (truth.is_cpu and ignored in truth):
        return False
    named = [(str(name), part) for name, part in items_of(batch) if isinstance(part, torch.Tensor)]
    masks = [
        part
        for name, part in named
        if any(word in name.lower() for word in _MASKS) or (part.dtype is torch.bool and part.shape == truth.shape)
    ]
    return any(not part.is_cpu or bool((part != part.flatten()[:1]).any()) for part in masks) or any(
        _is_filled_up(part) for _, part in named if part.shape == truth.shape and not part.is_floating_point()
    )


def _is_filled_up(rows: torch.Tensor) -> bool:
    """Whether some rows end, or begin, with a value over and over that stands nowhere else: a step may leave it out."""
    if not rows.is_cpu or rows.ndim != 2:
        return False
    for at_end in (rows, rows.flip(1)):
        is_fill = at_end == at_end[:, -1].mode().values
        filled = is_fill.flip(1).long().cumprod(1).flip(1).bool()
        if bool((filled.sum(1) > 1).any() and not (is_fill & ~filled).any() and not filled.all()):
            return True
    return False


def _masks(batch: Any, truth: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a step may make of a batch to say which places count: what is not zero, or not what fills up."""
    for _, part in items_of(batch):
        if not isinstance(part, torch.Tensor) or not part.is_cpu:
            continue
        if part.shape == truth.shape:
            yield part != 0
            if part.dtype is torch.bool:
                yield ~part
            elif not part.is_floating_point():
                yield from (part != value for value in {int(part[:, end].mode().values) for end in (0, -1)} - {0})
        elif part.ndim == 1 and len(part) == len(truth) and truth.ndim == 2 and not part.is_floating_point():
            yield torch.arange(truth.shape[1])[None] < part[:, None]


def _distinct_masks(masks: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    kept: list[torch.Tensor] = []
    for mask in masks:
        if not any(torch.equal(mask, other) for other in kept):
            kept.append(mask)
    return kept


def _counting(step: Step, batch: Any, values: torch.Tensor, truth: Any) -> torch.Tensor | None:
    """The places of which the loss that a step returned is the mean, by what it may make of its batch.

    None where no such places, or several, give that loss.
    """
    loss = step.returned.get("loss") if isinstance(step.returned, Mapping) else step.returned
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.is_cpu and isinstance(truth, torch.Tensor)):
        return None
    each = torch.nn.functional.cross_entropy(values.float(), truth.long(), reduction="none")
    found = []
    for mask in _distinct_masks(_masks(batch, truth)):
        inside = mask & (truth != _LEFT_OUT)
        counts = inside.sum(1)
        if not bool(counts.sum()) or bool(inside.all()):
            continue
        of_rows = (each * inside).sum(1)
        means = (of_rows.sum() / counts.sum(), (of_rows / counts.clamp(min=1))[counts > 0].mean())
        if any(torch.isclose(loss.detach().float().reshape(()), mean, rtol=1e-4) for mean in means):
            found.append(mask)
    return found[0] if len(found) == 1 else None


def _of_chosen_places(step: Step, batch: Any, labels: Any) -> tuple[Any, torch.Tensor] | None:
    """The module's output, and the labels of those places that a criterion was given laid one below the other.

    None where what a step may make of its batch does not say which these are.
    """
    if len(step.forwards) != 1 or not isinstance(labels, torch.Tensor) or not labels.is_cpu:
        return None
    output = step.forwards[0].output
    if not isinstance(output, torch.Tensor) or not _of_some_places(step, labels, output) or len(step.judged) != 1:
        return None
    judged = step.judged[0]
    found = [
        mask
        for mask in _distinct_masks(_masks(batch, labels))
        if torch.equal(labels[mask], judged.truth) and torch.equal(output.detach()[mask], judged.answers)
    ]
    return (output, labels.masked_fill(~found[0], _LEFT_OUT)) if len(found) == 1 else None


def _is_mean(step: Step, values: torch.Tensor, truth: torch.Tensor) -> bool:
    """Whether the loss that a step returned is the mean over all places: then each counts."""
    loss = step.returned.get("loss") if isinstance(step.returned, Mapping) else step.returned
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.is_cpu):
        return False
    whole = torch.nn.functional.cross_entropy(values.float(), truth.long())
    return bool(torch.isclose(loss.detach().float().reshape(()), whole, rtol=1e-4))


def _is_output(answers: torch.Tensor, output: Any) -> bool:
    """Whether these are the module's output: of a named one the answers, of a plain tuple any part."""
    parts = items_of(output)
    if not isinstance(output, (list, tuple)) or hasattr(output, "_fields"):
        try:
            parts = [("", tensor_at(output, where_of(output)[0]))]
        except XaiError:
            return False
    return any(isinstance(part, torch.Tensor) and part.data_ptr() == answers.data_ptr() for _, part in parts)


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.data_ptr() == b.data_ptr()


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return _is_same(a, b) or (a.shape == b.shape and a.device == b.device and bool((a == b).all()))


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
        return Head(Task.REGRESSION, Values.VALUE, width, single=width == 1), values, truth.reshape(len(truth), -1)
    if judged.is_each:
        task = Task.BINARY if width == 1 else Task.MULTILABEL
        head = Head(task, judged.values, 2 if width == 1 else width, single=width == 1, independent=width > 1)
        return head, values, truth
    # The batch's own labels before a mixture of them.
    is_own = isinstance(labels, torch.Tensor) and labels.shape == truth.shape
    given = labels if labels is not None and (is_own or truth.is_floating_point()) else truth
    task = Task.TOKEN_CLASSIFICATION if values.ndim > 2 else Task.CLASSIFICATION
    return Head(task, judged.values, width), values, given


def _tensors(output: Any) -> list[tuple[Any, torch.Tensor]]:
    return [(name, part) for name, part in items_of(output) if isinstance(part, torch.Tensor)]


def _name_of(mode: Mode) -> str:
    """The step of a mode."""
    return next(name for name, of in _STEPS.items() if of is mode)


def _ask(step: Step, mode: Mode, rows: int) -> str:
    """What to say where the answers cannot be told."""
    name = _name_of(mode)
    if step.is_compiled and len(step.judged) < 2:
        return (
            f"the module is compiled (torch.compile), and what {name} computes inside of it cannot be seen; no samples "
            f"of it are recorded: {_END}"
        )
    if step.returned is None and not (step.forwards or step.judged):
        return f"{name} left batches out, whose samples are not recorded; where it computes answers for them, {_END}"
    if len(step.forwards) == 1 and any(part.ndim > 2 for _, part in _tensors(step.forwards[0].output)):
        shorter = [one for one in step.judged if one.answers.ndim == 2 and one.truth.ndim == 1]
        if len(shorter) == len(step.judged) > 0:
            return f"{name} {_SOME_PLACES}"
    several = [*(one.output for one in step.forwards), *([step.returned] if mode is Mode.INFER else [])]
    if len(step.judged) < 2 and not all(_is_one(one) for one in several):
        return (
            f"the module returns several tensors to {name}, and which of them are its answers cannot be told; no "
            f"samples of it are recorded: {_END}"
        )
    if len(step.forwards) > 1 or len(step.judged) > 1:
        why = f"{name} runs the model or a criterion several times, and which of the answers count cannot be told"
    elif step.judged and _is_of_some(step.judged[0], rows):
        return (
            f"{name} gives its criterion some of the batch's samples alone, and which they are is not known; no "
            f"samples of it are recorded: {_END} of the whole batch"
        )
    elif step.judged:
        why = f"{name} gives its criterion other rows than the batch has, and whose answers they are is not known"
    elif step.forwards:
        why = f"{name} gives the model other rows than the batch has, and which of the answers count cannot be told"
    else:
        why = f"{name} neither returns the model's answers nor runs the module's forward or a criterion that is known"
    return f"{why}; no samples of it are recorded: {_END}"
