"""What is asked of a session: which models, which maps, whose share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from xaicli.attribution.baselines import InputRange
from xaicli.attribution.explanation import CheckpointColumn
from xaicli.attribution.settings import Convention, Settings, Target

if TYPE_CHECKING:
    from xaicli.checkpoint.facts import CheckpointFacts
    from xaicli.sources.inputs import Inputs


_MARGIN = 0.25
"""How far beyond the known range, as a share of it, an input may reach without a word: noise, another normalisation."""


@dataclass(frozen=True)
class Column:
    """One model to be explained.

    Attributes:
        name: What the column is called.
        load: Gives the model; called when its turn comes, so that only one is in memory.
        facts: What its checkpoint says; None for a bare module.
    """

    name: str
    load: Callable[[], nn.Module]
    facts: CheckpointFacts | None = None

    @property
    def known(self) -> InputRange:
        """What the checkpoint says of its inputs' range; unknown where the model did not come from one."""
        facts = self.facts
        if facts is None:
            return InputRange()
        return InputRange(facts.input_range[0] if facts.input_range else None, facts.mean, facts.std)

    def complaint(self, inputs: Inputs) -> str | None:
        """What to say of inputs far outside the range the model was saved with; None where there is nothing to say."""
        facts = self.facts
        if facts is None or facts.input_range is None or facts.mean is not None or len(inputs.arrays) != 1:
            return None
        values = next(iter(inputs.arrays.values()))
        if values.dtype.kind not in "fiu" or not values.size:
            return None
        low, high = facts.input_range
        margin = _MARGIN * (high - low)
        least, most = float(values.min()), float(values.max())
        if low - margin <= least and most <= high + margin:
            return None
        return f"inputs reach from {least:.3g} to {most:.3g}, but the model was saved for {low:.3g} to {high:.3g}"

    def described(self) -> CheckpointColumn:
        """The checkpoint as a report names it."""
        facts = self.facts
        if facts is None:
            return CheckpointColumn(self.name)
        return CheckpointColumn(self.name, str(facts.path), facts.sha256, facts.epoch, facts.step)


@dataclass(frozen=True)
class Request:
    """What is asked of a session.

    Attributes:
        target, outputs: As `prepare`'s target and output; several outputs are explained one after the other.
        store: Where finished samples are kept; None to keep nothing.
        captum: Further methods by their names in `captum.attr`.
        evaluate, sanity: Also score the maps; also compare them with those of randomised models.
        rank, world_size: Which share of the samples is this process's.
    """

    settings: Settings
    target: Target | Any = "predicted"
    outputs: tuple[str | int | None, ...] = (None,)
    device: str = "auto"
    label_names: tuple[str, ...] = ()
    store: Path | None = None
    captum: tuple[str, ...] = ()
    evaluate: bool = False
    sanity: bool = False
    rank: int = 0
    world_size: int = 1

    def share(self, n: int) -> list[int]:
        """The positions of this rank's samples; the seed's convention cannot divide its batch."""
        if self.settings.convention is Convention.FE:
            return list(range(n)) if self.rank == 0 else []
        return list(range(self.rank, n, self.world_size))
