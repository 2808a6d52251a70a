"""The attributes of a training state, and how they are saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from xaicli.state.keepers import Keeper
from xaicli.state.loop import EpochLoop
from xaicli.summary import Summary

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


class AttributesKeeper(Keeper):
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
        return {
            "values": {name: getattr(self.thing, name) for name in SAVED},
            "summary": self.thing.summary.to_json(),
            "custom_graphs": {name: [graph.to_json() for graph in several] for name, several in graphs.items()},
            "loop": self.loop.capture(),
            "passes": [[*place, begun] for place, begun in self.thing.passes.items()],
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
        except (KeyError, TypeError, AttributeError) as error:
            raise self.fail(f"the saved state is none of a training ({error!r})") from error

    def apply(self, state: Any) -> None:
        """Take all over but `total_epochs`, where the caller has set it: so a training can be extended."""
        total_epochs = self.thing.total_epochs
        vars(self.thing).update({name: state["values"][name] for name in SAVED})
        self.thing.total_epochs = total_epochs or self.thing.total_epochs
        summary = Summary.from_json(state["summary"])
        self.thing.summary.name, self.thing.summary.history = summary.name, summary.history
        self.thing.custom_graphs = _graphs(state)
        self.loop.resumed = EpochLoop.parse(state["loop"], with_random=self.with_random)
        _refill(self.thing.passes, _passes(state))

    def snapshot(self) -> Any:
        summary = self.thing.summary
        values = {name: getattr(self.thing, name) for name in [*SAVED, "custom_graphs"]}
        return values, summary.name, summary.history, self.loop.resumed, dict(self.thing.passes)

    def undo(self, before: Any) -> None:
        values, name, history, self.loop.resumed, passes = before
        _refill(self.thing.passes, passes)
        vars(self.thing).update(values)
        self.thing.summary.name, self.thing.summary.history = name, history


def _passes(state: Mapping[str, Any]) -> dict[tuple[str, str, int], int]:
    """The passes of the epoch; none in a state of an older version.

    Raises:
        TypeError: They are none.
    """
    passes = {}
    for mode, ds_id, epoch, begun in state.get("passes", ()):
        if (type(mode), type(ds_id), type(epoch), type(begun)) != (str, str, int, int):
            raise TypeError("the saved passes are none")
        passes[mode, ds_id, epoch] = begun
    return passes


def _refill(passes: dict[Any, int], found: Mapping[Any, int]) -> None:
    """Change the passes in place: the recorder looks at this very object."""
    passes.clear()
    passes.update(found)


def _graphs(state: Mapping[str, Any]) -> dict[str, list[Summary]]:
    return {name: [Summary.from_json(graph) for graph in graphs] for name, graphs in state["custom_graphs"].items()}
