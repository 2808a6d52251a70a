"""The loops of a training, counted: `run.epochs` and `run.steps`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from xaicli.recorder.session import Session
from xaicli.state import TrainingState
from xaicli.vocabulary import Mode

T = TypeVar("T")

MODES: dict[str, str] = {mode: mode.value for mode in Mode}


class Loops:
    """The part of `Run` that goes through epochs and batches."""

    state: TrainingState
    _session: Session

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
        while state.epoch_idx < last and not state.stop_training:
            state.epoch_idx += 1
            state.batch_idx = None
            yield state.epoch_idx
            self._publish()

    def steps(self, batches: Iterable[T], *, mode: str = "train", ds_id: str = "") -> Iterator[T]:
        """Yield batches while `state` has the mode, the dataset, the batch and, in training, the step.

        `TrainingState.batches` says how many, and what a resume does.
        """
        state = self.state
        state.mode, state.ds_id, state.batch_idx = MODES.get(mode) or unknown_mode(mode), ds_id, None
        state.note_data(state.mode, ds_id, batches)
        yield from state.batches(batches)

    def _publish(self) -> None:
        if self._session.fault:
            return
        try:
            self.state.publish()
        except Exception as error:
            self._session.ledger.warn("publish", f"xai: the summary cannot be written: {error}")


def unknown_mode(given: object) -> str:
    """Refuse what is no mode.

    Raises:
        ValueError: Always; the modes are named.
    """
    raise ValueError(f"mode {given!r} is none of {', '.join(Mode)}")
