"""Where a training is: counters, modes, summary, custom graphs, and the batches of an epoch."""

from __future__ import annotations

import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from xaicli.state import randomness
from xaicli.summary import Summary
from xaicli.vocabulary import Mode

T = TypeVar("T")


@dataclass(frozen=True)
class Position:
    """How far the training loop of an epoch has come.

    Attributes:
        done: Batches done, the one in progress included.
        random: The states of the random number generators when the loop began; None where they must not be restored.
    """

    done: int
    random: dict[str, Any] | None


class EpochLoop:
    """The training loop of one epoch, saved with the training state.

    A shuffling loader draws its order from the global random number generators when its loop begins. Their states of
    that moment are kept: a resumed loop begins with them, passes over the batches done, and goes on with the generators
    as they were when the state was saved. A loader that keeps its own position (`load_state_dict`) is not touched.
    """

    def __init__(self) -> None:
        self._open: dict[object, tuple[int, Position]] = {}
        """The epoch and the position of each loop in progress, that which went on last at the end."""
        self.resumed: Position | None = None
        """Where the next loop begins; None for the start."""

    @property
    def position(self) -> Position | None:
        """Where the loop in progress is; None outside of one."""
        return next((position for _, position in reversed(self._open.values())), None)

    def capture(self) -> dict[str, Any] | None:
        """The position as plain data."""
        position = self.position or self.resumed
        return None if position is None else {"done": position.done, "random": position.random}

    @staticmethod
    def parse(saved: Any, *, with_random: bool) -> Position | None:
        """The position behind what `capture` gave.

        Raises:
            ValueError: It is none.
        """
        if saved is None:
            return None
        try:
            done, random = saved["done"], saved["random"]
        except (KeyError, TypeError):
            raise ValueError("the saved loop is none") from None
        if type(done) is not int or done < 0:
            raise ValueError(f"{done!r} batches of a loop cannot be done")
        if random is not None:
            randomness.check(random)
        return Position(done, random if with_random else None)

    def batches(self, loader: Iterable[T], steps: int | None = None, epoch: int = 0) -> Iterator[tuple[int, T]]:
        """The batches with their numbers in the epoch, from 1, or from the first not done.

        Args:
            loader: What gives the batches.
            steps: How many make an epoch; all there are where None.
            epoch: The epoch; loops of others that were left and not closed are no longer in progress.
        """
        self._open = {loop: at for loop, at in self._open.items() if at[0] == epoch}
        resumed, self.resumed = self.resumed, None
        if resumed is None:
            position = Position(0, randomness.capture())
            iterator = iter(cut(loader, steps))
        elif hasattr(loader, "load_state_dict"):
            position = resumed
            iterator = iter(cut(loader, None if steps is None else steps - resumed.done))
        else:
            position = resumed
            iterator = _passed(cut(loader, steps), resumed)
        this = object()
        try:
            self._open[this] = epoch, position
            for number, batch in enumerate(iterator, start=position.done + 1):
                self._open.pop(this, None)  # a loop inside this one has a position of its own
                self._open[this] = epoch, replace(position, done=number)
                yield number, batch
        finally:
            self._open.pop(this, None)


def _passed(loader: Iterable[T], resumed: Position) -> Iterator[T]:
    """An iterator from which the batches done are taken, with the generators as they are now."""
    now = randomness.capture()
    if resumed.random is not None:
        randomness.restore(resumed.random)
    iterator = iter(loader)
    for _ in islice(iterator, resumed.done):
        pass
    if resumed.random is not None:
        randomness.restore(now)
    return iterator


def cut(loader: Iterable[T], steps: int | None) -> Iterable[T]:
    """A loader cut short or begun again so that it gives exactly `steps` batches; itself where that is None."""
    return loader if steps is None else _Cut(loader, steps)


class Turns(dict[tuple[str, str, int], int]):
    """{(mode, ds_id, epoch): the pass of a walk there}.

    Attributes:
        goes_on: Whether nobody has begun it: it goes on with the last pass of each place.
    """

    goes_on = False


@dataclass(eq=False)
class Ended:
    """What holds behind a walk that has ended: its mode and dataset, for what is logged of it in the same epoch.

    Attributes:
        mode: The mode before it, which is given back with the next epoch, or when something else is logged.
        ds_id: The dataset before it, likewise.
        epoch: The epoch its rows name; None where none are known.
        counted: The current epoch when it ended; None where that is not known.
    """

    mode: str | None
    ds_id: str
    epoch: int | None = None
    counted: int | None = None


@dataclass(eq=False)
class Walk:
    """A loop over batches in progress.

    Attributes:
        mode: Its mode.
        ds_id: Its dataset.
        outer: The loop it was begun in; None where there was none.
        epoch: The epoch when it last went on.
        kept_epoch: The epoch it was begun in, where another thread or task than its own counts them; else None.
        before: The mode and dataset before it and the loops around it.
        turns: The pass that it is in each place.
        here: Where the thread or task is that goes through it.
        batch_idx: Its current batch; None before the first.
        is_open: Whether it goes on.
    """

    mode: str | None
    ds_id: str
    outer: Walk | None
    epoch: int
    turns: Turns
    here: Here
    kept_epoch: int | None
    before: tuple[str | None, str]
    batch_idx: int | None = None
    is_open: bool = True


@dataclass(eq=False)
class Here:
    """Where a thread, or a task of asyncio, is among modes, datasets and batches.

    Attributes:
        mode: Its mode; None before the first pass.
        ds_id: Its dataset.
        batch_idx: Its current batch.
        epoch: The epoch of its rows; None where it is the current one.
        walk: The loop whose batch that is; None outside of one.
        ended: What the last loop has left, until it is given back; None inside of one.
        owner: The thread or task that it is of.
        is_set: Whether that said the mode or the dataset itself.
        is_named: Likewise, as the caller's own word for what is behind walks: until a training begins anew or goes on.
        turns: {(mode, ds_id): the passes of its current walk}, of each (mode, ds_id, epoch) that it had rows of.
        passes: {(mode, ds_id, epoch): the pass of rows that come now}, of those that were asked for since it changed.
    """

    owner: Runner
    mode: str | None = None
    ds_id: str = ""
    batch_idx: int | None = None
    epoch: int | None = None
    walk: Walk | None = None
    ended: Ended | None = None
    is_set: bool = False
    is_named: bool = False
    turns: dict[tuple[str, str], Turns] = field(default_factory=dict)
    passes: dict[tuple[str, str, int], int] = field(default_factory=dict)


Runner = weakref.ref[Any]
"""A task of asyncio, or else a thread."""


def _runner() -> Runner:
    """What runs now."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop of events runs in this thread
            task = None
        if task is not None:
            return weakref.ref(task)
    return weakref.ref(threading.current_thread())


def _is_over(runner: Runner) -> bool:
    """Whether a task or a thread has come to its end."""
    ran = runner()
    return ran is None or bool(ran.done() if hasattr(ran, "done") else not ran.is_alive())


class _Cut(Iterable[T]):
    def __init__(self, loader: Iterable[T], steps: int) -> None:
        self._loader = loader
        self._steps = steps

    def __iter__(self) -> Iterator[T]:
        given = 0
        while given < self._steps:
            before = given
            for batch in islice(iter(self._loader), self._steps - given):
                given += 1
                yield batch
            if given == before:
                return  # nothing is left to begin again with


_HALF = 64


class Progress:
    """Where a training is.

    Mode, dataset and batch are a thread's own, or a task's of asyncio: those of the loop that it goes through or,
    behind it, went through last in the epoch. One that goes through none, and sets none, has those of the thread that
    made the state or, where that has come to its end, of the next one that goes through a loop; a task has those of
    the task that began it.

    Attributes:
        mode: "train", "eval", "test", "infer", or None before the first pass (warm-up).
        ds_id: The dataset id inside the mode, "" where there is only one.
        exp_id: The training experiment's number, signed 64 bits; a resumed training keeps it.
        global_step: Training steps done; None before the first. Of a run that is resumed from a step that one, which
            is the first to be counted.
        epoch_idx: The current epoch, from 1; 0 before the first.
        batch_idx: The current batch of the epoch, from 1; None before the first.
        total_epochs: Epochs the training is meant to run for.
        train_steps_per_epoch: Training steps that make an epoch, or None for all of the data.
        eval_steps_per_epoch: The same of an evaluation.
        log_steps: Log every n steps; 0: no training logs; None: no logs at all.
        num_devices: GPUs available.
        stop_training: Whether the training is asked to end.
        experiment_time: When the training began, `YYYYmmdd-HHMMSS`; "" before.
        summary: What the experiment wrote with `write_summary`.
        custom_graphs: {name: summaries} drawn apart from the summary.
        begun: {(mode, ds_id, epoch): the last pass with rows}, from 0; the epoch is the one that the rows are of.
        log_count: How often `run.log` was called: the time of scalars logged without a step or an epoch.
    """

    exp_id: int
    total_epochs: int
    train_steps_per_epoch: int | None
    eval_steps_per_epoch: int | None
    log_steps: int | None
    num_devices: int
    stop_training: bool
    experiment_time: str
    summary: Summary
    custom_graphs: dict[str, list[Summary]]
    begun: dict[tuple[str, str, int], int]
    log_count: int
    _epoch: int = 0
    _epoch_is_ahead: bool = False

    def __init__(
        self,
        *,
        name: str | int | None = None,
        total_epochs: int = 0,
        train_steps_per_epoch: int | None = None,
        eval_steps_per_epoch: int | None = None,
        log_steps: int | None = None,
        num_devices: int | None = None,
        earlier_pass: Callable[[tuple[str, str, int]], int] = lambda _: -1,
    ) -> None:
        """
        Args:
            name: The experiment's name; without one `write_summary` records nothing.
            total_epochs: Epochs the training is meant to run for.
            train_steps_per_epoch: Training steps that make an epoch.
            eval_steps_per_epoch: Evaluation steps that make an epoch.
            log_steps: Log every n steps.
            num_devices: GPUs available; found out when None.
            earlier_pass: Gives the last pass of a (mode, ds_id, epoch) that remains of a training before this one, -1
                without any: those that this one begins come after it.
        """
        self._earlier_pass = earlier_pass
        self._looked_up: set[tuple[str, str, int]] = set()
        self._shared = Here(_runner())
        self._own: ContextVar[Here | None] = ContextVar("here", default=None)
        self._counter: Runner | None = None
        self._outside: set[str] = set()
        """The names of scalars that were logged outside of walks."""
        self._entering = threading.RLock()  # a signal's handler may log, too
        self.total_epochs = total_epochs
        self.train_steps_per_epoch = train_steps_per_epoch
        self.eval_steps_per_epoch = eval_steps_per_epoch
        self.log_steps = log_steps
        self.num_devices = count_gpus() if num_devices is None else num_devices
        self.stop_training = False
        self.experiment_time = ""
        self.summary = Summary(name)
        self.custom_graphs = {}
        self._restart()

    def _restart(self) -> None:
        self.set_passes({})
        self.stand_at(0, 0)
        self.log_count = 0
        # The half of a UUID1 that holds the clock: later experiments differ without coordination.
        self.exp_id = int.from_bytes(uuid.uuid1().bytes, "big", signed=True) >> _HALF

    @property
    def epoch_idx(self) -> int:
        """The current epoch."""
        return self._epoch

    @epoch_idx.setter
    def epoch_idx(self, value: int) -> None:
        if value != self._epoch:
            self.give_back()
        self._epoch, self._epoch_is_ahead = value, False

    @property
    def global_step(self) -> int | None:
        """The training steps done."""
        return self._step

    @global_step.setter
    def global_step(self, value: int | None) -> None:
        self._step, self._step_is_ahead = value, False

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch in the current mode; None outside train and eval, or where all of the data is used."""
        if self.mode == Mode.TRAIN:
            return self.train_steps_per_epoch
        if self.mode == Mode.EVAL:
            return self.eval_steps_per_epoch
        return None

    @property
    def here(self) -> Here:
        """Where this thread or task is."""
        own = self._own.get()
        if own is None or own.walk is not None or own.is_set:
            return own or self._shared
        return own if own.ended is not None and own.ended.counted == self._epoch else self._shared

    def _mine(self) -> Here:
        """Where this thread or task is, for it to change: it gets a place of its own where it has none."""
        here, runner = self.here, _runner()
        if here.owner != runner:
            if here is self._shared and _is_over(here.owner):
                here.owner = runner
            else:
                here = Here(runner, here.mode, here.ds_id, here.batch_idx, is_set=True, turns=dict(here.turns))
            self._own.set(here)
        return here

    @property
    def mode(self) -> str | None:
        """The mode; None before the first pass."""
        return self.here.mode

    @mode.setter
    def mode(self, value: str | None) -> None:
        here = self._mine()
        here.mode, here.ended, here.is_set, here.is_named = value, None, True, True

    @property
    def ds_id(self) -> str:
        """The dataset."""
        return self.here.ds_id

    @ds_id.setter
    def ds_id(self, value: str) -> None:
        here = self._mine()
        here.ds_id, here.ended, here.is_set, here.is_named = value, None, True, True

    @property
    def batch_idx(self) -> int | None:
        """The batch."""
        return self.here.batch_idx

    @batch_idx.setter
    def batch_idx(self, value: int | None) -> None:
        here = self._mine()
        here.batch_idx, here.is_set = value, True

    @property
    def epoch_of_rows(self) -> int:
        """The epoch of rows that come now and name none.

        It is the current one but in a loop that began beside the thread or task that counts the epochs: that loop stays
        in the epoch it began in, however long it lasts.
        """
        kept = self.here.epoch
        return self.epoch_idx if kept is None else kept

    def stand_at(self, epoch: int, step: int) -> None:
        """Go on from an epoch and a step: they are current, and the first that are counted, unless they are set."""
        self._epoch, self._epoch_is_ahead = epoch, epoch > 0
        self._step, self._step_is_ahead = step if step > 0 else None, step > 0

    @property
    def ahead(self) -> tuple[bool, bool]:
        """Whether the current epoch, and the current step, are yet to be counted: those of `stand_at`."""
        return self._epoch_is_ahead, self._step_is_ahead

    @ahead.setter
    def ahead(self, value: tuple[bool, bool]) -> None:
        self._epoch_is_ahead, self._step_is_ahead = value

    @property
    def epochs_done(self) -> int:
        """Epochs counted: the current one, or that before it where it is yet to be counted."""
        return self._epoch - self._epoch_is_ahead

    @property
    def steps_done(self) -> int | None:
        """Training steps counted, likewise; None before the first."""
        return self._step if self._step is None or not self._step_is_ahead else (self._step - 1 or None)

    def count_epoch(self) -> None:
        """Begin the next epoch; this thread or task is the one that counts them."""
        self._counter = _runner()
        self.epoch_idx = self.epochs_done + 1
        self.here.batch_idx = None

    def begin_walk(self, mode: str | None, ds_id: str) -> Walk:
        """Begin a loop over batches in this thread or task, beside those that others go through."""
        with self._entering:
            here = self._mine()
            here.is_set = False
            self._own.set(here)
            kept_epoch = None if self._counter in (None, here.owner) else self.epoch_idx
            left = self.before or (here.mode, here.ds_id)
            here.walk, here.ended = Walk(mode, ds_id, here.walk, self.epoch_idx, Turns(), here, kept_epoch, left), None
        here.mode, here.ds_id, here.batch_idx, here.epoch = mode, ds_id, None, kept_epoch
        return here.walk

    def _enter(self, walk: Walk) -> None:
        here = walk.here
        here.walk = walk
        here.mode, here.ds_id, here.batch_idx, here.epoch = walk.mode, walk.ds_id, walk.batch_idx, walk.kept_epoch

    def _go_on(self, walk: Walk) -> None:
        """A walk comes to its next batch: what is current is its own, whatever a walk inside it has left behind."""
        self._enter(walk)
        walk.epoch = self.epoch_of_rows
        _take_turns(walk.here, (walk.mode or Mode.TRAIN.value, walk.ds_id), walk.turns)

    def _leave(self, walk: Walk) -> None:
        """End a walk; the one around it, if any goes on, is the current one again."""
        walk.is_open = False
        if walk.here.walk is not walk:
            return  # it was only suspended, and another has taken over meanwhile
        outer = walk.outer
        while outer is not None and not outer.is_open:
            outer = outer.outer
        walk.here.walk, walk.here.epoch = outer, None
        if outer is None:
            epochs = [epoch for mode, ds_id, epoch in list(walk.turns) if (mode, ds_id) == (walk.mode, walk.ds_id)]
            walk.here.ended = Ended(*walk.before, max(epochs, default=None), self._epoch)
        else:
            self._enter(outer)
            if outer.epoch == (
                self.epoch_idx if outer.kept_epoch is None else outer.kept_epoch
            ):  # else it was left in an earlier epoch, and not closed
                _take_turns(outer.here, (outer.mode or Mode.TRAIN.value, outer.ds_id), outer.turns)

    def give_back(self) -> None:
        """Let the mode and the dataset be those from before the walk that has ended, if one has."""
        here = self.here
        if here.ended is not None:
            here.mode, here.ds_id, here.ended = here.ended.mode, here.ended.ds_id, None

    @property
    def before(self) -> tuple[str | None, str] | None:
        """The mode and the dataset from before the walk that goes on or has ended; None where those are given back."""
        here = self.here
        if here.walk is not None:
            return here.walk.before
        return None if here.ended is None else (here.ended.mode, here.ended.ds_id)

    @before.setter
    def before(self, value: tuple[str | None, str] | None) -> None:
        if self.here.walk is None:
            self.here.ended = None if value is None else Ended(*value)

    def note_rows(self, mode: str | None, epoch: int | None) -> None:
        """Rows come: behind a walk that has ended they belong to it only in its epoch, and if they name no other mode.

        Args:
            mode: The mode they name, if any.
            epoch: The epoch they name, if any.
        """
        here = self.here
        if here.ended is None or here.owner != _runner():
            return
        if mode not in (None, here.mode) or not self._is_of(here.ended, epoch):
            self.give_back()
        elif epoch is not None:
            here.ended.epoch = epoch

    def place_of_scalars(
        self, keys: Set[str], epoch: int | None, mode: str | None = None, ds_id: str | None = None
    ) -> tuple[str | None, str]:
        """The mode and the dataset of scalars that come now: what they name, else what the walks say.

        Behind a walk that has ended they are its own, in its epoch. Where nobody counts epochs, so that nothing tells
        that another has begun, scalars of a name that was logged outside of walks before are so again.

        Args:
            keys: Their names.
            epoch: The epoch they name, if any.
            mode: The mode they name, if any.
            ds_id: The dataset they name, if any.
        """
        here = self.here
        if mode is not None:  # which says nothing of others of their names
            own = here.ds_id if mode == here.mode else ""
            return mode, own if ds_id is None else ds_id
        if ds_id is not None:
            return here.mode, ds_id
        if here.ended is None:
            if here.walk is None:
                self._outside |= keys
        elif not self._counts_epochs:
            if not keys.isdisjoint(self._outside):
                return here.ended.mode, here.ended.ds_id
            if epoch is not None and here.ended.epoch not in (None, epoch) and here.owner == _runner():
                self.give_back()
        return here.mode, here.ds_id

    def forget_name(self) -> None:
        """The mode and the dataset are the caller's own word no longer: a training begins anew, or goes on."""
        self._mine().is_named = False

    def place_of_records(self) -> dict[str, str]:
        """The mode and the dataset of pictures and inputs that come now; "" for none.

        Behind a walk that has ended they are of none of it: they may be of any samples, which their ids tell. Only a
        mode that the caller has set counts there.
        """
        here = self.here
        mode, ds_id = (here.mode, here.ds_id) if here.ended is None else (here.ended.mode, here.ended.ds_id)
        if here.ended is not None and not here.is_named:
            mode, ds_id = None, ""
        return {"mode": mode or "", "ds_id": ds_id}

    @property
    def _counts_epochs(self) -> bool:
        return self._epoch > 0 and not self._epoch_is_ahead

    def _is_of(self, ended: Ended, epoch: int | None) -> bool:
        """Whether rows may be of the epoch of a walk that has ended; where nobody counts epochs, they must name it."""
        return self._counts_epochs or ended.epoch in (None, epoch)

    def update_global_step(self) -> None:
        """Count one training step."""
        self.global_step = (self.steps_done or 0) + 1

    def update_batch_idx(self) -> None:
        """Count one batch of the epoch."""
        self.batch_idx = (self.batch_idx or 0) + 1

    def begin_pass(self, mode: str | None = None, ds_id: str | None = None, epoch: int | None = None) -> int:
        """Begin another walk over a dataset; its rows say of which epoch it is, and there it is one pass more.

        Args:
            mode: The mode; the current one when None.
            ds_id: The dataset inside it; the current one when None.
            epoch: The epoch whose pass is returned; that of rows that name none when None.

        Returns:
            Its number in the epoch, from 0: how many walks had rows there.
        """
        at, name = mode or self.mode or Mode.TRAIN.value, self.ds_id if ds_id is None else ds_id
        self.begin_turns(at, name)
        place = at, name, self.epoch_of_rows if epoch is None else epoch
        last = self.begun.get(place, -1)
        before = -1 if place in self._looked_up else self._earlier_pass(place)
        return before if at == Mode.TRAIN and before > last else max(last, before) + 1

    def begin_turns(self, mode: str, ds_id: str) -> None:
        """Begin another walk over a dataset, as `begin_pass`; which pass it is nobody asks yet."""
        _take_turns(self._mine(), (mode, ds_id), Turns())

    def walk_of(self, mode: str, ds_id: str) -> Turns:
        """The passes of the walk that rows which come now are of, for `pass_of`."""
        return self._current_turns((mode, ds_id))

    def pass_of(self, place: tuple[str, str, int], walk: Turns | None = None) -> int:
        """The pass of rows: the first that a walk has in an epoch make it one more there.

        Args:
            place: Their mode, dataset and epoch.
            walk: What `walk_of` gave when they came; that of now when None.
        """
        with self._entering:
            current = self._current_turns(place[:2])
            turns = current if walk is None else walk
            self._look_up(place, turns)
            # `setdefault`: the handler of a signal may have been here meanwhile, in the same walk.
            turn = turns.setdefault(place, self.begun.get(place, -1) + 1)
            self.begun[place] = max(turn, self.begun.get(place, -1))
        if turns is current:
            self.here.passes[place] = turn
        return turn

    def note_pass(self, place: tuple[str, str, int], told: int) -> int:
        """The pass a caller named, which is begun by that: those `begin_pass` begins later come after it."""
        with self._entering:
            turns = self._current_turns(place[:2])
            self._look_up(place, turns)
            if told > self.begun.get(place, -1):
                self.begun[place] = self.here.passes[place] = turns[place] = told
        return told

    def earlier_pass(self, place: tuple[str, str, int]) -> int:
        """The last pass of a mode, dataset and epoch that remains of a training before this one; -1 without any."""
        return self._earlier_pass(place)

    def _look_up(self, place: tuple[str, str, int], turns: Turns) -> None:
        """Count the passes of a training before this one, where rows of a place come for the first time.

        The training goes on with the last of them, and so does a walk that nobody has begun.
        """
        if place in self._looked_up:
            return
        self._looked_up.add(place)
        before = self._earlier_pass(place)
        if before > self.begun.get(place, -1):
            self.begun[place] = before
            if place[0] == Mode.TRAIN or turns.goes_on:
                turns[place] = before

    def set_passes(self, begun: Mapping[tuple[str, str, int], int]) -> None:
        """Take over passes: the walk that comes next, unless it is begun, goes on with the last of each place.

        What is known of them is the least: those that remain of a training before this one are counted besides.
        """
        self.begun = dict(begun)
        self._looked_up.clear()
        self.here.turns.clear()
        self.here.passes.clear()

    def _current_turns(self, key: tuple[str, str]) -> Turns:
        turns = self.here.turns
        with self._entering:
            if key not in turns:
                last = Turns({place: turn for place, turn in list(self.begun.items()) if place[:2] == key})
                last.goes_on = True
                turns.setdefault(key, last)
            return turns[key]

    def reset(self, name: str | int | None = None) -> None:
        """Begin a new training: counters, stop flag, summary and graphs anew, a new `exp_id`, mode train.

        Args:
            name: The new experiment's name; without one its summary records nothing.
        """
        self.experiment_time = _now()
        self._mine().walk = None
        self.mode = Mode.TRAIN.value
        self.ds_id = ""
        self.forget_name()
        self._restart()
        self.batch_idx = None
        self.stop_training = False
        self.summary = Summary(name)
        self.custom_graphs = {}

    def reset_for_test(self, name: str | int | None = None) -> None:
        """Begin a new test: mode test, and no `test` values in the summary and the graphs.

        Step, `exp_id` and all other values stay. The stop flag is cleared, and unless it was set the epoch becomes the
        last one.

        Args:
            name: A new name for the experiment; without one it keeps its own.
        """
        self.experiment_time = self.experiment_time or _now()
        self._mine().walk = None
        self.mode = Mode.TEST.value
        self.ds_id = ""
        if not self.stop_training:
            self.epoch_idx = self.total_epochs
        self.stop_training = False
        if name is not None and name != "":
            self.summary.name = name
        for summary in [self.summary, *(graph for graphs in self.custom_graphs.values() for graph in graphs)]:
            summary.history.pop(Mode.TEST.value, None)

    def write_summary(self, key: str, value: Any) -> None:
        """Write a value of the current mode and step (0 before the first) into the summary, if the experiment is named.

        Args:
            key: What it is a value of.
            value: A number (or an array or tensor of one element), a `ValWithError`, or a text.
        """
        if self.summary:
            self.summary.history[self.mode][key][self.global_step or 0] = _plain(value)

    def add_graph(self, name: str, graph: Summary | Iterable[Summary]) -> None:
        """Keep summaries to be drawn apart, in place of those of the same name.

        Args:
            name: The graph's name.
            graph: One summary or several, overlaid.

        Raises:
            TypeError: The graph is neither.
        """
        graphs = [graph] if isinstance(graph, Summary) else list(graph)
        for item in graphs:
            if not isinstance(item, Summary):
                raise TypeError(f"graph {name!r} must be a Summary or several, but holds a {type(item).__name__}")
        self.custom_graphs[name] = graphs


def _take_turns(here: Here, key: tuple[str, str], turns: Turns) -> None:
    """Rows of a mode and dataset are of another walk from now on."""
    if here.turns.get(key) is not turns:
        here.turns[key] = turns
        for place in [known for known in list(here.passes) if known[:2] == key]:
            here.passes.pop(place, None)


def count_gpus() -> int:
    """GPUs torch can use; 0 where torch is not loaded, since a recorder never loads it."""
    torch = sys.modules.get("torch")
    try:
        return int(torch.cuda.device_count()) if torch is not None else 0
    except Exception:  # a broken driver must not stop a training on the CPU
        return 0


def _now() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def _plain(value: Any) -> Any:
    """A one-element array or tensor as its number, so that the history holds no memory of a device."""
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        try:
            return value.item()
        except (TypeError, ValueError, RuntimeError):
            return value
    return value
