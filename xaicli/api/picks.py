"""Which samples `xai saliency` explains: the first, some by id, or those a logged metric points at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout

if TYPE_CHECKING:
    from xaicli.sources.inputs import Source

PICKS = ("first", "worst", "best", "random")
HIGHER_IS_BETTER = frozenset(
    {"label_prob", "top_prob", "margin", "correct", "confidence", "correctness", "aum", "accuracy", "acc", "f1", "iou"}
)
"""Metrics whose worst samples are the lowest; of every other metric, as of a loss, the highest."""


@dataclass(frozen=True)
class Choice:
    """Which samples to explain.

    Attributes:
        samples: How many.
        ids: These; then `samples` and `pick` do not count.
        pick: Of `PICKS`.
        metric, mode: Of the logged values that `pick` goes by; the run's own defaults when None.
        typed: Those of these that were asked for in words, also where it is with their default.
    """

    samples: int = 16
    ids: Sequence[str] | None = None
    pick: str = "first"
    metric: str | None = None
    mode: str | None = None
    typed: Collection[str] = ()

    def of(self, source: Source, layout: RunLayout | None, seed: int) -> int | list[Any]:
        """What to take of a source: a number of samples, or their ids.

        Args:
            source: Where the samples are.
            layout: The run that logged the metric.
            seed: Of a random pick.

        Raises:
            XaiError: There is no such pick, or no logged value to go by.
        """
        if self.pick not in PICKS:
            raise UsageError(f"no pick {self.pick!r}", hint="picks: " + ", ".join(PICKS))
        if self.ids is not None:
            if not self.ids:
                raise UsageError("ids names no sample", hint="leave it out to have some picked")
            return list(self.ids)
        if self.samples < 1:
            raise UsageError(f"samples is {self.samples}", hint="a whole number from 1")
        match self.pick:
            case "first":
                return self.samples
            case "random":
                import random

                every = list(source.sample_ids)
                return random.Random(seed).sample(every, min(self.samples, len(every)))
            case "worst" | "best":
                if layout is None:
                    raise XaiError(
                        f"--pick {self.pick} needs a run that logged a metric",
                        hint="name the run, or use --pick first or random",
                    )
                return self._ranked(source.sample_ids, layout)
            case _:
                raise UsageError(f"no pick {self.pick!r}", hint="picks: " + ", ".join(PICKS))

    def unused(self, *, mode_is_read: bool = True) -> tuple[str, ...]:
        """What was said and does not count, one sentence each.

        Args:
            mode_is_read: Whether the source of samples goes by the mode.
        """
        ranked = self.ids is None and self.pick in ("worst", "best")
        own = type(self)()
        said = []
        if self.ids is not None:
            left = [
                name for name in ("samples", "pick") if name in self.typed or getattr(self, name) != getattr(own, name)
            ]
            said += [f"--{name} was not used: the samples are named by --ids" for name in left]
        if self.metric is not None and not ranked:
            said.append("--metric was not used: it is for --pick worst and best")
        if self.mode is not None and not ranked and not mode_is_read:
            said.append("--mode was not used: the data has no modes, and no logged metric picks its samples")
        return tuple(said)

    def _ranked(self, available: Iterable[Any], layout: RunLayout) -> list[Any]:
        """The worst or best samples of the source by their last logged value."""
        from xaicli.api import RunReader

        chosen: Any = {key: value for key, value in (("metric", self.metric), ("mode", self.mode)) if value}
        run = RunReader(layout)
        _, selection = run.selected(**chosen)
        name = selection.metrics[0]
        highest = (self.pick == "worst") != (name in HIGHER_IS_BETTER)
        held = {str(sample_id) for sample_id in available}
        asked = self.samples
        while True:
            # The extremes of the whole run first; further only while the source holds too few of them.
            sides: Any = {"max": asked, "min": 0} if highest else {"max": 0, "min": asked}
            rows = run.samples(**sides, **{**chosen, "metric": name}).data
            best = rows.sort("score", "sample_id", descending=[highest, False])["sample_id"].to_list()
            found = list(dict.fromkeys(sample_id for sample_id in best if str(sample_id) in held))
            if len(found) >= self.samples or len(best) < asked:
                break
            asked *= 8
        if not found:
            raise XaiError(
                f"none of the data's samples has a logged {name} in mode {', '.join(selection.modes)}",
                hint="do the ids of --data equal the logged ones? --mode chooses the rows",
            )
        return found[: self.samples]
