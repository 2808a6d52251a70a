"""What the callbacks of every framework do: log samples, collect at chosen epochs, keep inputs, save the model."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from xaicli.collectors.collect import collect_metrics
from xaicli.collectors.outputs import entries_of, labels_of
from xaicli.errors import UsageError, XaiError
from xaicli.heads.decision import Known, OriginOf, decide
from xaicli.heads.head import Head, Task, named_task
from xaicli.integrations.identity import (
    NO_IDS,
    chosen,
    ids_of,
    may_be_ids,
    numbered_in,
    place_of_ids,
    size_of,
)
from xaicli.recorder.attempt import find_world_size
from xaicli.recorder.config import ignored_forms
from xaicli.recorder.process import ending
from xaicli.recorder.run import Run
from xaicli.sources.table import OF_PLACES
from xaicli.tables.table import Table

SamplesFn = Callable[[Any, Any], Mapping[str, Any]]
IdsAt = str | int | Callable[[Any], Any]
EpochChoice = str | int | Collection[int]
LABELS = ("labels", "label", "label_ids")
_TOKENS = ("input_ids", "decoder_input_ids")
"""What transformers call inputs of token ids."""
_RECORDED = {Task.TOKEN_CLASSIFICATION: "sequence", Task.SEGMENTATION: "sequence"}
"""The task of a run whose rows are of this one, where it is not of the same name."""
_SHARED = (
    "the rows of {first} and of {other} have their numbers for ids, and these are data sets of their own: the same "
    "number names another sample in each; give both sets a column sample_id (in a batch: (id, input, label), or a dict "
    "with sample_id) of ids that no two samples share"
)
_NO_TEXTS = (
    "the texts of {count} samples of {other} are not kept as facts: their ids, the rows' numbers, are those of other "
    "samples in {first}; a column sample_id of ids that no two samples share keeps all"
)
_OF_SAMPLES = frozenset({Task.CLASSIFICATION, Task.BINARY, Task.MULTILABEL, Task.REGRESSION})
"""The tasks of answers that are of a sample as a whole."""


class _ToStderr(logging.Handler):
    """What is said where the caller has set up no logging."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(f"xai: {record.getMessage()}\n")


_LOG = logging.getLogger("xaicli.integrations")
_LOG.addHandler(_ToStderr())
if not _LOG.level and not logging.getLogger("xaicli").level:
    _LOG.setLevel(logging.INFO)  # what the caller has set counts


class Recording:
    """Records a training that a framework runs; faults are warned about, never raised, unless the run is strict.

    Args:
        run: An open run, or where to record one; such a one is closed when a training, validation or test is over, and
            opened again by the next, which goes on with it in the same attempt unless another has begun meanwhile; of
            several processes it stays open until they end.
        samples_fn: (batch, model output) -> the arguments of `Run.log_samples`; by default ids and label are found in
            the batch, and the model's answers where the step computed them.
        ids: Where the ids are in a batch, where they are not found: a key, the number of a part, or a function of the
            batch; with transformers, the dataset's column.
        keeps_order: Whether the collator gives the samples in the order it is given them, which counts where no ids
            are in a batch and nothing in it shows that: True takes it so, False leaves such rows out, None takes it so
            where nothing contradicts, and says it once.
        task: What the model was trained for, where that cannot be told: see `xaicli.heads.head.Task`.
        facts: Of ("text",): keep the text of each sample, where a tokenizer is at hand.
        tokenizer: What tells the texts of samples and the words of kept inputs, where the framework has none at hand: a
            tokenizer, or for the words a vocabulary as `Run.log_inputs` takes it.
        tables: What metrics are collected over, by split.
        collectors: Metrics collectors or functions.
        collect_epochs: "every", "last", "never", a number n for every n-th, or the epochs themselves.
        collect_before: Also collect before the training, as epoch 0.
        dataloader_args: Of the collections.
        keep_inputs: How many samples' model inputs are kept, of each mode, for saliency.
        save_checkpoint: Whether the model is saved when training ends.
        label_names: The classes' names, for run and checkpoint.
        of_run: Further arguments of the run that is opened here, as `keep_probs`.

    Raises:
        UsageError: The collections make no sense.
    """

    def __init__(
        self,
        run: Run | str | os.PathLike[str],
        *,
        samples_fn: SamplesFn | None = None,
        ids: IdsAt | None = None,
        keeps_order: bool | None = None,
        task: str | None = None,
        facts: Sequence[str] = (),
        tokenizer: Any = None,
        tables: Table | Mapping[str, Any] | None = None,
        collectors: Any = (),
        collect_epochs: EpochChoice = "last",
        collect_before: bool = False,
        dataloader_args: Mapping[str, Any] | None = None,
        keep_inputs: int = 32,
        save_checkpoint: bool = True,
        label_names: Sequence[str] | None = None,
        of_run: Mapping[str, Any] | None = None,
    ) -> None:
        self._given = run
        self.samples_fn = samples_fn
        self.ids_at = ids
        self.keeps_order = keeps_order
        self.no_ids = NO_IDS
        """What to say of a batch without ids."""
        self._task = task
        self.facts = tuple(facts)
        self.tokenizer = tokenizer
        self._of_run = dict(of_run or {})
        self._tables = dict(tables) if isinstance(tables, Mapping) else {"": tables} if tables is not None else {}
        self._collectors = list(collectors) if isinstance(collectors, (list, tuple)) else [collectors]
        if bool(self._tables) != bool(self._collectors):
            raise UsageError(
                "tables and collectors belong together",
                hint="tables={'val': table}, collectors=[xaicli.ClassificationMetricsCollector()]",
            )
        self._epochs = collect_epochs
        self.collects_before = collect_before
        self._dataloader_args = dict(dataloader_args or {})
        self._wanted_inputs = keep_inputs
        self._wants_checkpoint = save_checkpoint
        self._label_names = label_names
        self._run: Run | None = run if isinstance(run, Run) else None
        self._kept: dict[str, int] = {}
        self._example: Any = None
        self._told: set[Hashable] = set()
        self._collected: int | None = None
        self._heads: dict[tuple[str, bool], Head] = {}
        self._noted: dict[str, int] = {}
        self._numbered: dict[tuple[str, str], Any] = {}
        """Of each data set whose rows' numbers are its ids, the dataset that they are of."""
        self._textless: dict[tuple[str, str], set[Hashable]] = {}
        """Of data sets whose numbers are others' in the first one, the samples whose texts are not kept."""
        self._passes: dict[tuple[str, str, int], int] = {}
        self._first_passes: dict[tuple[str, str, int], int] = {}
        self._recorded_task: str | None = None
        self._trained: tuple[Task, int] | None = None
        """What the training's answers mean, and how many numbers a sample's are."""
        if samples_fn is not None and task is not None:  # it counts for the run: no answers of a model are decided on
            self.settle(Task(task.partition(":")[0]))
        self._has_logged = False
        self._begins_anew = False
        """Whether what is recorded next is of a new attempt."""
        self._mode_before: tuple[str | None, str] | None = None
        """The run's mode and dataset as the caller left them, while those of a training stand there."""
        self.is_undecided = False
        """Whether what the answers mean could not be decided when that was last tried."""
        self.total_epochs = 0
        self.before = 0, 0
        """The last epoch and step of the trainings before this one, which a new one goes on from."""
        self.config: Mapping[str, Any] = {}
        """What the framework was configured with: the configuration of a run that is begun here."""
        self.is_main = True
        """Whether this process collects and saves."""
        self.epoch = 0
        """The epoch rows belong to, from 1; 0 before any training."""
        self.step = 0
        """The optimizer's step rows belong to."""

    @property
    def run(self) -> Run:
        """The run; opened when it is first needed."""
        if self._run is None or (self._run.is_closed and not isinstance(self._given, Run)):
            if isinstance(self._given, Run):
                self._run = self._given
            elif self._run is None or self._begins_anew or self._is_shared or not self._run.reopen():
                self._run = Run(
                    self._given,
                    label_names=self._label_names,
                    total_epochs=self.total_epochs,
                    task=self._recorded_task,
                    **{"config": self.config, **self._of_run},
                )
                self._of_run.pop("resume", None)  # it has begun, or was gone on with
            elif self.total_epochs:
                self._run.state.total_epochs = self.total_epochs
            self._begins_anew = False
            self._run.state.epoch_idx, self._run.state.global_step = self.epoch, self.step
        return self._run

    @property
    def shown_run(self) -> Any:
        """The run for the caller: of one that is over, what it counted; it still takes more."""
        run = self._run
        is_over = run is not None and run.is_closed and not isinstance(self._given, Run)
        return _Ended(run, self) if is_over else self.run

    @property
    def says_task(self) -> bool:
        """Whether the caller says what the answers mean."""
        return self._task is not None

    def keeps_tokens(self, task: Task) -> bool:
        """Whether the run keeps the loss of every token of what is of this task."""
        if task not in (Task.SEQUENCE, Task.TOKEN_CLASSIFICATION):
            if self.run.keeps_tokens and task is Task.SEGMENTATION:  # of others the run says it
                self.tell(f"keep_tokens keeps the losses of a text's tokens: of answers that are {task} there are none")
            return False
        return self.run.keeps_tokens

    @property
    def void_label(self) -> int | None:
        """The whole number among the run's labels that stands for none."""
        return ignored_forms(self.run.manifest.ignore_label, self.run.manifest.label_names)[0]

    def described(self, config: Mapping[str, Any], label_names: Sequence[str] | None = None) -> None:
        """Take what the framework knows as the configuration and the classes' names of a run begun here."""
        self.config = self.config or dict(config)
        if self._label_names is None and label_names:
            self._label_names = tuple(label_names)

    def stand_once(self, callback: Any, listed: list[Any]) -> None:
        """Leave a callback in a trainer's list once."""
        places = [place for place, one in enumerate(listed) if one is callback]
        if len(places) > 1:
            self.tell("the same callback stands several times in the trainer's list: it counts once")
            for place in reversed(places[1:]):
                del listed[place]

    def count_on(self, *, is_resumed: bool) -> None:
        """A trainer counts from its beginning, or from that of the training that it goes on with."""
        self.before = (0, 0) if is_resumed else (self.epoch, self.step)

    def begin(self, total_epochs: int, *, is_resumed: bool = False) -> None:
        """A training begins that is meant to end after so many epochs.

        Args:
            total_epochs: These, as the trainer counts them.
            is_resumed: It goes on from a checkpoint: what was recorded behind that is taken back, by a new attempt.
        """
        self.total_epochs = total_epochs = total_epochs + self.before[0]
        given = self._run if isinstance(self._given, Run) and self._run is not None else None
        goes_back = given is not None and is_resumed and not given.is_closed
        if is_resumed and (self._is_shared or (goes_back and find_world_size() > 1)):
            if self._run is not None:
                self._run.close()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.barrier()  # an attempt that begins beside a living one takes nothing back
        if given is not None and goes_back and given.begin_attempt() and self.is_main:
            _LOG.info(
                "the open run goes on as attempt %d, from where the training goes on: what was recorded behind that "
                "is taken back",
                given.attempt,
            )
        if is_resumed and (goes_back or self._run is None or self._run.is_closed):
            # A new attempt counts what it does not take back.
            self._begins_anew = True
            self._collected = None
            self._passes.clear()
            self._first_passes.clear()
        if self._run is not None and not self._run.is_closed:
            self._run.state.total_epochs = total_epochs

    def settle(self, task: Task) -> None:
        """What the rows are about, said to a run that is opened after this."""
        recorded = _RECORDED.get(task, task.value)
        if self._recorded_task is None:
            self._recorded_task = recorded
        elif self._recorded_task != recorded and not {self._recorded_task, recorded} <= {"binary", "classification"}:
            self.tell(
                f"the run's rows are of {self._recorded_task}, and these answers of {recorded}: what only those have "
                f'is left out; XaiCallback(..., task="{recorded}") says that all are'
            )

    def at(self, epoch: int, step: int) -> None:
        """Rows from now on belong to this epoch and step, as the trainer counts them."""
        epoch, step = self.before[0] + epoch, self.before[1] + step
        self.epoch, self.step = epoch, step
        if self._run is not None and not self._run.is_closed:
            self._run.state.epoch_idx, self._run.state.global_step = epoch, step

    def begin_pass(self, mode: str, ds_id: str = "") -> None:
        """A walk over a data set begins: the n-th of its epoch."""
        place = (mode, ds_id, self.epoch)
        self._passes[place] = self._passes.get(place, -1) + 1

    def _pass_of(self, mode: str, ds_id: str) -> int:
        """The pass of rows that come now; the first walk comes behind those that remain of earlier attempts."""
        place = (mode, ds_id, self.epoch)
        if place not in self._first_passes:
            self._first_passes[place] = 0 if mode == "train" else self.run.state.earlier_pass(place) + 1
        return self._first_passes[place] + self._passes.get(place, 0)

    def ids_in(self, batch: Any, given: Any = None) -> Any:
        """The ids in a batch: where the caller says they are, else where they are told apart; None without.

        Args:
            batch: The batch.
            given: As of `chosen`.

        Raises:
            XaiError: They are not where the caller says.
        """
        return ids_of(batch) if self.ids_at is None else chosen(batch, self.ids_at, given)

    def place_in(self, batch: Any) -> str:
        """Where `ids_in` finds the ids, in words."""
        place = place_of_ids(batch) if self.ids_at is None else self.ids_at
        if callable(place):
            return "what the function ids= finds in the batches"
        if isinstance(place, int) and not isinstance(batch, Mapping):
            which = "the first part" if place == 0 else f"part {place}, counted from 0,"
            return f"{which} of the batches{'' if self.ids_at is None else ', as ids= says'}"
        return f"the entry {place!r} of the batches{'' if self.ids_at is None else ', as ids= says'}"

    def label_in(self, batch: Any) -> Any:
        """The labels of a batch: of (input, label) with the ids between or around them, or an entry named like one."""
        if isinstance(self.ids_at, int) and isinstance(batch, (list, tuple)) and entries_of(batch) is None:
            others = [part for place, part in enumerate(batch) if place != self.ids_at]
            return others[1] if len(others) > 1 else None
        return label_in(batch)

    def task_beside(self, task: Task, answers: torch.Tensor, mode: str) -> Task | None:
        """What the run's answers mean, where a criterion that they are given to says something else.

        What the caller says counts, and then what the training's criterion said of as many numbers a sample.

        Args:
            task: What this criterion says.
            answers: (N, ...).
            mode: train, eval, test or infer.
        """
        said = named_task(self._task)[0] if self._task is not None else None
        if said is None:
            self.trained(task, answers, mode)
            said = self.task_of_training(answers)
        are_alike = said is Task.CLASSIFICATION and task is Task.BINARY and answers[:1].numel() == 1
        return None if said in (None, task) or are_alike or not {said, task} <= _OF_SAMPLES else said

    def trained(self, task: Task, answers: torch.Tensor, mode: str) -> None:
        """Remember what the answers of a training mean."""
        if mode == "train":
            self._trained = task, answers[:1].numel()

    def task_of_training(self, answers: Any) -> Task | None:
        """What the training's answers mean, where these are as many numbers a sample."""
        if self._trained is None or not isinstance(answers, torch.Tensor) or not answers.ndim:
            return None
        return self._trained[0] if self._trained[1] == answers[:1].numel() else None

    def answers(
        self, result: Any, labels: Any, *, task: str | None = None, origin: OriginOf | None = None, known: Known
    ) -> tuple[Head, torch.Tensor]:
        """What a model's answers mean, and the numbers that count; decided once, and at first with what made them.

        Raises:
            XaiError: It cannot be decided.
        """
        key = (task or "", isinstance(result, torch.Tensor))
        if key not in self._heads:
            every = tuple(Task)
            self.is_undecided = True
            try:
                self._heads[key] = decide(
                    result,
                    origin=origin,
                    task=self._task or task,
                    labels=_without_logarithm(labels),
                    known=known,
                    expected=every,
                )
            except XaiError as error:
                raise XaiError(str(error), hint=_advice(error.hint)) from error
            self.is_undecided = False
        head = self._heads[key]
        self.settle(head.task)
        return head, head.tensor(result)

    def log(
        self,
        columns: Mapping[str, Any],
        *,
        sample_id: Any,
        mode: str,
        ds_id: str = "",
        inputs: Any = None,
        rows: int | None = None,
        found: str = "",
    ) -> None:
        """Log one batch's samples, and keep inputs as long as some are wanted.

        Args:
            columns: Arguments of `log_samples`.
            sample_id: The ids; None if there are none: the rows are counted as dropped.
            mode: train, eval, test or infer.
            ds_id: The dataset.
            inputs: The model's inputs, by name or one; None where they are not known.
            rows: How many samples there are, where no ids say it.
            found: Where the ids were found, in words; said once of each data set.
        """
        if sample_id is None:
            self.missed(rows, self.no_ids)
            return
        if found:
            self.say_ids(mode, ds_id, found)
        run = self.run
        self._has_logged = True
        if mode == "train":
            self._mode_before = self._mode_before or (run.state.mode, run.state.ds_id)
            run.state.mode, run.state.ds_id = mode, ds_id
        place = {"mode": mode, "ds_id": ds_id, "epoch": self.epoch, "step": self.step}
        turn = {"eval_pass": self._pass_of(mode, ds_id)}
        run.log_samples(**{"sample_id": sample_id, **place, **turn, **columns})
        if inputs is not None:
            scores = columns.get("logits", columns.get("probs"))
            is_of_places = (
                isinstance(scores, torch.Tensor) and scores.ndim > 2
            )  # a class a token is no class of a sample
            self._keep(inputs, sample_id, None if is_of_places else columns.get("label"), mode, ds_id)

    @property
    def wants_inputs(self) -> bool:
        """Whether inputs are kept, for saliency or to export the model with."""
        return self._wanted_inputs > 0 or self._wants_checkpoint

    def numbered_by(self, dataset: Any, mode: str, ds_id: str) -> None:
        """The ids of a data set are the numbers of its rows; said once where another has the same for others."""
        dataset, place = numbered_in(dataset), (mode, ds_id)
        if dataset is None or place in self._numbered:
            return
        self._numbered[place] = dataset
        first, of_first = next(iter(self._numbered.items()))
        if dataset is not of_first:
            self._textless[place] = set()
            self.tell(_SHARED.format(first=_name_of_set(first), other=_name_of_set(place)))

    def note_texts(self, sample_id: Any, mode: str, inputs: Any, ds_id: str = "") -> None:
        """Keep the samples' texts as facts where that is asked for, in the first epoch of each mode: they stay.

        Args:
            sample_id: The ids.
            mode: The mode.
            inputs: A batch or a model's inputs by name, or token ids alone.
            ds_id: The data set.
        """
        if "text" not in self.facts or sample_id is None or self._noted.setdefault(mode, self.epoch) != self.epoch:
            return
        tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
        if not hasattr(self.tokenizer, "batch_decode"):
            self.tell(
                'facts=("text",) needs a tokenizer: Trainer(processing_class=tokenizer), or XaiCallback(..., '
                "tokenizer=tokenizer)"
            )
        elif tokens is None or (isinstance(tokens, torch.Tensor) and (tokens.ndim != 2 or tokens.is_floating_point())):
            self.tell('facts=("text",) needs the ids of tokens in the batch, as input_ids: no texts are kept')
        elif (textless := self._textless.get((mode, ds_id))) is not None:
            textless.update(sample_id.tolist() if isinstance(sample_id, torch.Tensor) else sample_id)
        else:
            texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            self.run.log_facts(sample_id, text=list(texts))

    def missed(self, rows: int | None, reason: str) -> None:
        """Count rows that cannot be recorded, and say why once."""
        self.tell(reason)
        if rows:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # it was said
                self.run.miss(rows, reason)

    def epoch_end(self, model: nn.Module, *, is_last: bool = False) -> None:
        """Collect if this epoch is one to collect at."""
        if self._is_due(self.epoch, is_last):
            self.collect(model, self.epoch)

    def end(self, model: nn.Module) -> None:
        """Training is over: collect if that was asked for the last epoch, save, close."""
        self.epoch_end(model, is_last=True)
        if self._wants_checkpoint and self.is_main:
            self.guarded("saving the checkpoint", lambda: self._save(model))
        self.release()

    def release(self, error: BaseException | None = None) -> None:
        """Put everything into files; close the run if it was opened here, and by this process alone.

        Processes get here at different times: opened anew, the run would be another attempt for each.

        Args:
            error: What ended the training before its end.
        """
        for place, textless in self._textless.items():
            if textless:
                first = _name_of_set(next(iter(self._numbered)))
                line = _NO_TEXTS.format(count=len(textless), other=_name_of_set(place), first=first)
                self.tell(line, (_NO_TEXTS, place))
        if self._run is not None and not self._run.is_closed:
            if self._mode_before is not None:
                (self._run.state.mode, self._run.state.ds_id), self._mode_before = self._mode_before, None
            if isinstance(self._given, Run) or self._is_shared:
                self.guarded("flushing", self._run.flush)
            else:
                if by := ending(error):
                    self._run.note_end(by)
                self._run.close()

    @property
    def _is_shared(self) -> bool:
        """Whether several processes record into a run that is opened here."""
        return not isinstance(self._given, Run) and find_world_size() > 1

    def collect(self, model: nn.Module, epoch: int) -> None:
        """One inference pass over every table."""
        if not self.is_main or not self._tables or self._collected == epoch:
            return
        self._collected = epoch
        for split, table in self._tables.items():
            one_pass = partial(self._pass, model, split, table, epoch)
            self.guarded(f"collecting over {split or 'the table'}", one_pass)

    def guarded(self, doing: str, work: Callable[[], Any], *, rows: int | None = None) -> None:
        """Do something of ours: a fault of it is told once and costs the training nothing.

        Args:
            doing: What, for the user.
            work: Does it.
            rows: How many samples are not recorded when it fails before they are logged; these are counted.
        """
        self._has_logged = False
        try:
            work()
        except Exception as error:
            if self._run is not None and self._run.strict:
                raise
            hint = f" ({error.hint})" if isinstance(error, XaiError) and error.hint else ""
            self.missed(0 if self._has_logged else rows, f"{doing} failed: {error}{hint}")

    def tell(self, what: str, known_by: Hashable = None) -> None:
        """Warn about something once: known by its words, or by what is given for them where these may change."""
        known_by = what if known_by is None else known_by
        if known_by not in self._told:
            self._told.add(known_by)
            warnings.warn(f"xai: {what}", stacklevel=3)

    def say_ids(self, mode: str, ds_id: str, where: str) -> None:
        """Say once of each data set where its ids were found; that is no warning."""
        known_by = ("ids", mode, ds_id, where)
        if known_by not in self._told:
            self._told.add(known_by)
            if self.is_main:
                _LOG.info("sample ids of %s: %s", f"{mode} {ds_id}".strip(), where)

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
        collect_metrics(
            table,
            self._collectors,
            model,
            constants={"epoch": epoch},
            split=split,
            run=self.run,
            dataloader_args=self._dataloader_args,
        )

    def _keep(self, inputs: Any, sample_id: Any, label: Any, mode: str, ds_id: str) -> None:
        """Keep the first inputs of a mode, and an example to export the model with."""
        missing = self._wanted_inputs - self._kept.get(mode, 0)
        if self._example is None:
            own = {k: v for k, v in inputs.items() if k != OF_PLACES} if isinstance(inputs, Mapping) else inputs
            self._example = first_of(own, 2)
        if missing > 0:
            ids, state = sample_id[:missing], self.run.state
            before = state.mode, state.ds_id
            state.mode, state.ds_id = mode, ds_id
            try:
                if isinstance(label, torch.Tensor) and label.is_floating_point() and label.ndim == 2:
                    label = label.argmax(1)  # of parts the largest, as in the rows
                labels = label[:missing] if _are_classes(label) else None
                self.run.log_inputs(ids, first_of(inputs, missing), labels, tokens=self._words_of(inputs))
            finally:
                state.mode, state.ds_id = before
            self._kept[mode] = self._kept.get(mode, 0) + len(ids)

    def _words_of(self, inputs: Any) -> Any:
        """What tells the words of kept inputs; None where they are no texts, or nothing does."""
        if self.tokenizer is None:
            return None
        if isinstance(inputs, Mapping):
            of_name = {name: self.tokenizer for name in _TOKENS if _are_tokens(inputs.get(name))}
            return of_name or None
        return self.tokenizer if _are_tokens(inputs) else None

    def _save(self, model: nn.Module) -> None:
        with warnings.catch_warnings():
            # Tracing another's forward warns about many things that are not the caller's.
            warnings.simplefilter("ignore", UserWarning)
            heads = {head.task for head in self._heads.values()}
            task = str(heads.pop()) if len(heads) == 1 else None
            self.run.save_checkpoint(model, example_inputs=self._example, label_names=self._label_names, task=task)


class _Ended:
    """A run that is over: what is asked of it is its own; what is to be recorded opens it again."""

    _RECORDING = ("log", "add", "save", "miss", "steps", "flush")

    def __init__(self, run: Any, recording: Recording) -> None:
        self._ended, self._recording = run, recording

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recording.run if name.startswith(self._RECORDING) else self._ended, name)


def _name_of_set(place: tuple[str, str]) -> str:
    """A mode and a ds_id, in words."""
    return " ".join(place).strip()


def _advice(hint: str | None) -> str:
    """What a user of a callback can do about answers that mean nothing known: the command line's options are none."""
    if hint and "(task=)" in hint:
        return hint.replace("--task (task=)", "XaiCallback(..., task=)")
    return "XaiCallback(..., samples_fn=lambda batch, output: {'sample_id': ..., 'loss': ...}) says it"


def label_in(batch: Any) -> Any:
    """The labels of a batch: third of (id, input, label), an entry named like one, or the second of a pair."""
    if (entries := entries_of(batch)) is not None:
        found = next((entries[k] for k in LABELS if k in entries), None)
        found = labels_of(entries) if found is None else found
        if found is not None or not isinstance(batch, tuple):
            return found
    if isinstance(batch, (list, tuple)):
        if len(batch) > 2 and ids_of(batch) is not None:
            return batch[2]
        if len(batch) == 2 and may_be_ids(batch[0]) and getattr(batch[1], "ndim", 1) > 1:
            return None  # (id, input) as well as (input, label)
    return labels_of(batch)


def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A model's inputs as `save_checkpoint` and `log_inputs` take them: by name, or one; None where none is a tensor.

    Labels are left out.
    """
    named = {
        name: value
        for name, value in kwargs.items()
        if isinstance(value, torch.Tensor) and value.ndim > 0 and name not in LABELS
    }
    positional = [value for value in args if isinstance(value, torch.Tensor)]
    if positional:
        return positional[0] if len(positional) == 1 and not named else None
    return named or None


def tokenizer_of(holder: Any) -> Any:
    """The tokenizer that somebody is or has; None without."""
    if hasattr(holder, "convert_ids_to_tokens"):
        return holder
    found = getattr(holder, "tokenizer", None)
    return found if hasattr(found, "convert_ids_to_tokens") else None


def first_of(inputs: Any, n: int) -> Any:
    """The first `n` samples of a model's inputs."""
    if isinstance(inputs, Mapping):
        return {name: value[:n].detach() for name, value in inputs.items()}
    return inputs[:n].detach()


def _are_tokens(value: Any) -> bool:
    """Whether this may be the ids of tokens, (samples, tokens)."""
    return isinstance(value, torch.Tensor) and value.ndim == 2 and not value.is_floating_point()


def _without_logarithm(labels: Any) -> Any:
    """Labels that are logarithms of probabilities, as a teacher's for KLDivLoss(log_target=True), as these."""
    if not isinstance(labels, torch.Tensor) or labels.ndim != 2 or labels.shape[1] < 2:
        return labels
    if not labels.is_floating_point() or not bool((labels <= 0).all()):
        return labels
    sums = labels.double().logsumexp(1)
    return labels.exp() if torch.allclose(sums, torch.zeros_like(sums), atol=1e-3) else labels


def _are_classes(label: Any) -> bool:
    """Whether these are classes or sets of classes; numbers and classes of places stay with the rows alone."""
    if isinstance(label, torch.Tensor):
        return not label.is_floating_point() and label.ndim in (1, 2)
    return label is not None


def rows_of(batch: Any, result: Any) -> int | None:
    """How many samples a batch holds."""
    return size_of(batch) or (len(result) if isinstance(result, torch.Tensor) and result.ndim else None)
