"""`run.state`: where a training is, published with its run, saved and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from xaicli.layout import RunLayout
from xaicli.state.adapters import Adapter, Belongings, RandomnessAdapter, Things, plain_data, restore_all
from xaicli.state.folder import read_state, write_state
from xaicli.state.progress import EpochLoop, Progress, Walk, cut
from xaicli.state.published import Published
from xaicli.summary import Summary
from xaicli.traceability import describe_dataset, describe_model
from xaicli.vocabulary import Mode

SAVED: dict[str, tuple[type, ...]] = {
    "mode": (str, NoneType),
    "ds_id": (str,),
    "exp_id": (int,),
    "global_step": (int, NoneType),
    "epoch_idx": (int,),
    "batch_idx": (int, NoneType),
    "total_epochs": (int,),
    "train_steps_per_epoch": (int, NoneType),
    "eval_steps_per_epoch": (int, NoneType),
    "log_steps": (int, NoneType),
    "num_devices": (int,),
    "stop_training": (bool,),
    "experiment_time": (str,),
    "log_count": (int,),
}
"""The attributes a state holds beside summary and graphs, with the types they may have."""


class AttributesAdapter(Adapter):
    """The attributes, summary and custom graphs of a training state."""

    kind = "training"

    def __init__(self, thing: Any, loop: EpochLoop, *, with_random: bool = True) -> None:
        """
        Args:
            thing: The training state.
            loop: Its training loop.
            with_random: Whether a loop resumed in the middle of an epoch restores the generators of its start.
        """
        super().__init__("training", thing)
        self.loop = loop
        self.with_random = with_random

    def capture(self) -> dict[str, Any]:
        graphs = self.thing.custom_graphs
        before = self.thing.before
        return {
            "values": {name: getattr(self.thing, name) for name in SAVED},
            "ahead": list(self.thing.ahead),
            "before": None if before is None else list(before),
            "summary": self.thing.summary.to_json(),
            "custom_graphs": {name: [graph.to_json() for graph in several] for name, several in graphs.items()},
            "loop": self.loop.capture(),
            "passes": [[*place, begun] for place, begun in dict(self.thing.begun).items()],
        }

    def check(self, state: Any) -> None:
        try:
            for name, kinds in SAVED.items():
                if type(state["values"][name]) not in kinds:
                    raise self.fail(f"{name} cannot be {state['values'][name]!r}")
            Summary.from_json(state["summary"])
            _graphs(state)
            EpochLoop.parse(state["loop"], with_random=self.with_random)
            _passes(state)
            _ahead(state)
            _before(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.fail(f"the saved state is none of a training ({error!r})") from error

    def apply(self, state: Any) -> None:
        """Take all over but `total_epochs`, where the caller has set it: so a training can be extended."""
        total_epochs = self.thing.total_epochs
        for name in SAVED:
            setattr(self.thing, name, state["values"][name])
        self.thing.forget_name()
        self.thing.before = _before(state)
        self.thing.ahead = _ahead(state)
        self.thing.total_epochs = total_epochs or self.thing.total_epochs
        summary = Summary.from_json(state["summary"])
        self.thing.summary.name, self.thing.summary.history = summary.name, summary.history
        self.thing.custom_graphs = _graphs(state)
        self.loop.resumed = EpochLoop.parse(state["loop"], with_random=self.with_random)
        self.thing.set_passes(_passes(state))

    def snapshot(self) -> Any:
        summary = self.thing.summary
        values = {name: getattr(self.thing, name) for name in [*SAVED, "custom_graphs"]}
        return (
            values,
            self.thing.before,
            self.thing.ahead,
            summary.name,
            summary.history,
            self.loop.resumed,
            self.thing.begun,
        )

    def undo(self, before: Any) -> None:
        values, left, ahead, name, history, self.loop.resumed, passes = before
        for attribute, value in values.items():
            setattr(self.thing, attribute, value)
        self.thing.before = left
        self.thing.ahead = ahead
        self.thing.set_passes(passes)
        self.thing.summary.name, self.thing.summary.history = name, history


def _ahead(state: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the saved epoch and step were yet to be counted: neither in a state of an older version.

    Raises:
        TypeError: Neither is told.
    """
    epoch, step = state.get("ahead", (False, False))
    if not isinstance(epoch, bool) or not isinstance(step, bool):
        raise TypeError("whether the saved epoch and step are to be counted is not told")
    return epoch, step


def _before(state: Mapping[str, Any]) -> tuple[str | None, str] | None:
    """The mode and dataset before the walk that the saved ones are of; None of no walk, or an older version.

    Raises:
        TypeError: They are none.
    """
    if (found := state.get("before")) is None:
        return None
    mode, ds_id = found
    if not isinstance(mode, str | None) or not isinstance(ds_id, str):
        raise TypeError("the saved mode and dataset from before the walk are none")
    return mode, ds_id


def _passes(state: Mapping[str, Any]) -> dict[tuple[str, str, int], int]:
    """The last pass of each place; none in a state of an older version.

    Raises:
        TypeError: They are none.
    """
    found = [(mode, ds_id, epoch, begun) for mode, ds_id, epoch, begun in state.get("passes", ())]
    if any(tuple(map(type, one)) != (str, str, int, int) for one in found):
        raise TypeError("the saved passes are none")
    return {(mode, ds_id, epoch): begun for mode, ds_id, epoch, begun in found}


def _graphs(state: Mapping[str, Any]) -> dict[str, list[Summary]]:
    return {name: [Summary.from_json(graph) for graph in graphs] for name, graphs in state["custom_graphs"].items()}


T = TypeVar("T")


class TrainingState(Progress):
    """Where a training is; its attributes are those of `Progress`."""

    def __init__(
        self,
        layout: RunLayout | None = None,
        *,
        rank: Callable[[], int] = lambda: 0,
        on_save: Callable[[], None] | None = None,
        on_load: Callable[[int, int], None] | None = None,
        on_fault: Callable[[str, Exception], None] | None = None,
        **progress: Any,
    ) -> None:
        """
        Args:
            layout: The run the state belongs to; without one nothing is kept unless `save_state` is told where.
            rank: Gives the process's rank, which may be known late; only rank 0 writes files.
            on_save: Called by `save_state` before it writes: what was logged up to here must be in files, too.
            on_load: Called by `load_state`, once all is restored, with the epoch and the first training step that will
                be logged.
            on_fault: Told that a state could not be written, and why; without it that is raised.
            **progress: The arguments of `Progress`.
        """
        super().__init__(**progress)
        self._layout = layout
        self._find_rank = rank
        self._loop = EpochLoop()
        self._on_save = on_save
        self._on_load = on_load
        self._on_fault = on_fault
        self._published = Published((lambda: layout.state) if layout else None)

    def reset(self, name: str | int | None = None) -> None:
        super().reset(name)
        self._loop.resumed = None
        self._published.forget()

    def reset_for_test(self, name: str | int | None = None) -> None:
        super().reset_for_test(name)
        self._published.forget(Mode.TEST.value)

    @property
    def is_mid_epoch(self) -> bool:
        """Whether a state was loaded that had been saved inside the training loop of an epoch not yet gone on with."""
        return self._loop.resumed is not None

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """The batches of the current mode while `batch_idx` and, in training, `global_step` count them.

        There are `steps_per_epoch` of them where that is not None: the loader is cut short or begun again. After a
        state that was saved inside this loop, once the step of a batch was done, the training goes on with the next
        batch: a shuffling loader gives the same order again, and the batches done are passed over.

        A loop inside this one, an evaluation every n steps say, gives this one's mode, dataset and batch back when it
        ends, however it does.
        """
        walk = self.begin_walk(self.mode, self.ds_id)
        yield from self.batches_of(walk, loader)

    def batches_of(self, walk: Walk, loader: Iterable[T]) -> Iterator[T]:
        """The batches of a loop that `begin_walk` has begun, as of `batches`."""
        walk.turns = self._current_turns((walk.mode or Mode.TRAIN.value, walk.ds_id))
        steps = self.steps_per_epoch
        is_training = walk.mode == Mode.TRAIN
        try:
            own = self._loop.batches(loader, steps, walk.epoch) if is_training else None
            for number, batch in own or enumerate(cut(loader, steps), start=1):
                walk.batch_idx = number
                self._go_on(walk)
                if is_training:
                    self.update_global_step()
                yield batch
                if self.stop_training and is_training:
                    return
        finally:
            self._leave(walk)

    def publish(self) -> None:
        """Write summary and custom graphs into the run, where readers find them; nothing if they are unchanged.

        Raises:
            OSError: They cannot be written; the files of before are whole.
        """
        if self._find_rank() == 0:
            self._published.write(self.summary, self.custom_graphs)

    def note_model(self, name: str, model: Any) -> None:
        """Keep what a model is - class, parameters, layers - for the run's reports; once a name, and never raises."""
        self._note("models", name, model, describe_model)

    def note_data(self, mode: str, ds_id: str, data: Any) -> None:
        """Keep what a loader or a dataset is for the run's reports; likewise, and without reading a sample."""
        self._note("data", f"{mode} {ds_id}".strip(), data, describe_dataset)

    def note_start(self, attempt: int, environment: Mapping[str, Any]) -> None:
        """Keep how an attempt was started: the run's environment is that of the last one, and code changes between."""
        if self._find_rank() == 0:
            facts = {name: environment[name] for name in ("command", "code", "host") if name in environment}
            if self.total_epochs:
                facts["total_epochs"] = self.total_epochs
            self._published.describe("starts", str(attempt), facts)

    def _note(self, kind: str, name: str, thing: Any, describe: Callable[[Any], dict[str, Any]]) -> None:
        if self._find_rank() != 0 or self._published.is_described(kind, name):
            return
        try:
            facts = describe(thing)
        except Exception:  # a model of the user's own may fail to print itself; a training goes on
            facts = {"class": type(thing).__qualname__}
        self._published.describe(kind, name, facts)

    def save_state(
        self,
        dir: str | PathLike[str] | None = None,
        models: Things = None,
        optimizers: Things = None,
        objects: Things = None,
        *,
        keep: int = 2,
    ) -> Path | None:
        """Save everything a training needs to go on as if it had never stopped, complete or not at all.

        What the run has logged so far is flushed first, since a resumed training does not log it again. Beside what is
        named, the state holds this object, summary and custom graphs included, and the global random number generators
        of Python, numpy and torch (with its GPUs). In a training of several processes only rank 0 writes.

        Args:
            dir: A folder of states, each in a folder of its own; the run's `state/` by default.
            models: {name: torch.nn.Module}.
            optimizers: {name: optimizer}.
            objects: {name: thing}: anything with `state_dict` and `load_state_dict` (schedulers, scalers, loaders), a
                generator of random numbers, or plain data (numbers, texts, lists, dicts, arrays, tensors).
            keep: How many states to keep, this one included; older ones are removed.

        Returns:
            The folder of the new state; None on other ranks, and where it cannot be saved, which the run tells.

        Raises:
            ValueError, TypeError: Something cannot be saved, named in the message; nothing was written. Of a run only
                with `strict`, as all that follows.
            OSError: It cannot be written; the states of before are whole.
        """
        try:
            return self._save_state(dir, models, optimizers, objects, keep)
        except Exception as error:
            if self._on_fault is None:
                raise
            self._on_fault("training state", error)
            return None

    def _save_state(
        self, dir: str | PathLike[str] | None, models: Things, optimizers: Things, objects: Things, keep: int
    ) -> Path | None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, the state that is saved, not {keep}")
        folder = self._state_folder(dir)
        belongings = Belongings(models, optimizers, objects)
        for name, model in (models or {}).items():
            self.note_model(name, model)
        if self._on_save is not None:
            self._on_save()
        if self._find_rank() != 0:
            return None
        parts = {
            "training": AttributesAdapter(self, self._loop).capture(),
            "random": RandomnessAdapter("random", None).capture(),
            **belongings.capture(),
        }
        return write_state(folder, parts, step=self.steps_done or 0, epoch=self.epochs_done, keep=keep)

    def load_state(
        self,
        dir: str | PathLike[str] | None = None,
        models: Things = None,
        optimizers: Things = None,
        objects: Things = None,
        *,
        random: bool = True,
    ) -> dict[str, Any]:
        """Go on where a saved state was; a load that fails changes nothing.

        This object's own `total_epochs` wins over the saved one unless it is 0, so that a training can be extended.
        Rows that earlier attempts of the run logged beyond the state's step no longer count.

        Args:
            dir: A folder of states, whose newest is loaded, or one state's own folder; the run's `state/` by default.
            models: As for `save_state`, under the same names; all that is given must be in the state and fit.
            optimizers: Likewise.
            objects: Likewise. Dicts, lists, sets, arrays and tensors are filled in place.
            random: Whether to restore the global random number generators; rank 0 only, since only its were saved.

        Returns:
            The plain data among the saved objects, {name: value}, asked for or not.

        Raises:
            FileNotFoundError: There is no state, or a part of it is missing.
            ValueError: It is damaged, or a name, kind or shape differs.
        """
        state = read_state(self._state_folder(dir))
        pairs, data = _matched(state, Belongings(models, optimizers, objects))
        with_random = random and self._find_rank() == 0
        if with_random:
            pairs.append((RandomnessAdapter("random", None), state.get("random")))
        pairs.append((AttributesAdapter(self, self._loop, with_random=with_random), state.get("training")))
        restore_all(pairs, then=self._resumed)
        self._published.forget()
        return data

    def _state_folder(self, given: str | PathLike[str] | None) -> Path:
        if given is not None:
            return Path(given)
        if self._layout is None:
            raise ValueError("this training state belongs to no run: name a folder")
        return self._layout.state

    def _resumed(self) -> None:
        if self._on_load is None:
            return
        if self.global_step is not None:
            self._on_load(self.epoch_idx, (self.steps_done or 0) + 1)
        elif self.epoch_idx:  # of the end of an epoch, whose steps, if there are any, are the caller's
            self._on_load(self.epoch_idx + 1, 0)


def _matched(state: Mapping[str, Any], belongings: Belongings) -> tuple[list[tuple[Adapter, Any]], dict[str, Any]]:
    """Each thing with its saved state, and the plain data.

    Raises:
        ValueError: A thing is missing or of another kind, or the state is none.
    """
    try:
        return belongings.match(state), plain_data(state)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no training state: {error!r}") from error
