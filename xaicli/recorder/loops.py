"""The loops of a training, counted: `run.epochs` and `run.steps`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from xaicli.recorder.session import Session
from xaicli.state import TrainingState
from xaicli.vocabulary import Mode

T = TypeVar("T")

MODES: dict[str, str] = {mode: mode.value for mode in Mode}


class Loops:
    """The part of `Run` that goes through epochs and batches."""

    state: TrainingState
    _session: Session
    _environment: Mapping[str, Any]

    def epochs(self, n: int | None = None) -> Iterator[int]:
        """Count epochs in `state.epoch_idx`: from the one after the last done, to `n` (`state.total_epochs`).

        After a state that was saved inside the training loop, first the epoch it was saved in, which `steps` goes on
        with.
        """
        state = self.state
        last = state.total_epochs if n is None else n
        state.total_epochs = max(state.total_epochs, last)
        if state.is_mid_epoch and not state.stop_training:
            yield state.epoch_idx
            self._publish()
        elif state.epoch_idx >= last > 0 and not state.stop_training:
            message = f"xai: epochs({last}): {state.epoch_idx} epochs are done, so there is none to go through"
            self._session.ledger.warn("epochs", f"{message}; state.reset() begins anew, epochs({last + 1}) goes on")
        while state.epoch_idx < last and not state.stop_training:
            state.epoch_idx += 1
            state.batch_idx = None
            yield state.epoch_idx
            self._publish()

    def steps(self, batches: Iterable[T], *, mode: str = "train", ds_id: str = "") -> Iterator[T]:
        """Yield batches while `state` has the mode, the dataset, the batch and, in training, the step.

        Each call begins a new pass over (mode, ds_id) within the epoch, the first being pass 0; a training loop that is
        gone on with after a resume stays in its pass.

        `TrainingState.batches` says how many, and what a resume does.
        """
        state = self.state
        state.mode, state.ds_id, state.batch_idx = MODES.get(mode) or unknown_mode(mode), ds_id, None
        state.note_data(state.mode, ds_id, batches)
        if not (state.mode == Mode.TRAIN and state.is_mid_epoch):  # else the pass in progress is gone on with
            state.begin_pass()
        yield from state.batches(batches)

    def begin_pass(self, mode: str = "eval", ds_id: str = "") -> int:
        """Begin another walk over a dataset within the current epoch, in a loop that does not use `steps`.

        Args:
            mode: train, eval, test or infer.
            ds_id: The dataset.

        Returns:
            Its number in the epoch, from 0.
        """
        return self.state.begin_pass(MODES.get(mode) or unknown_mode(mode), ds_id)

    def _publish(self) -> None:
        if self._session.fault:
            return
        try:
            self.state.note_start(self._session.settle().attempt, self._environment)
            self.state.publish()
        except Exception as error:
            self._session.ledger.warn("publish", f"xai: the summary cannot be written: {error}")


def unknown_mode(given: object) -> str:
    """Refuse what is no mode.

    Raises:
        ValueError: Always; the modes are named.
    """
    raise ValueError(f"mode {given!r} is none of {', '.join(Mode)}")
