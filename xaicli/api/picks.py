"""Which samples `xai saliency` explains: the first, some by id, or those a logged metric points at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError, XaiError
from xaicli.vocabulary import HIGH_IS_GOOD, MODE, SAMPLE_ID

if TYPE_CHECKING:
    from xaicli.reader import Reader
    from xaicli.sources.inputs import Source

PICKS = ("first", "worst", "best", "random")
HIGHER_IS_BETTER = frozenset(
    {*HIGH_IS_GOOD, "top_prob", "confidence", "correctness", "aum", "accuracy", "acc", "f1", "iou"}
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

    def of(self, source: Source, reader: Reader | None, seed: int) -> tuple[int | list[Any], Mapping[str, Any] | None]:
        """What to take of a source, a number of samples or their ids; and how they were ranked, where they were.

        Args:
            source: Where the samples are.
            reader: The run that logged the metric.
            seed: Of a random pick.

        Raises:
            XaiError: There is no such pick, or no logged value to go by.
        """
        if self.pick not in PICKS:
            raise UsageError(f"no pick {self.pick!r}", hint="picks: " + ", ".join(PICKS))
        if self.ids is not None:
            if not self.ids:
                raise UsageError("ids names no sample", hint="leave it out to have some picked")
            return list(self.ids), None
        if self.samples < 1:
            raise UsageError(f"samples is {self.samples}", hint="a whole number from 1")
        match self.pick:
            case "first":
                return self.samples, None
            case "random":
                import random

                every = list(source.sample_ids)
                return random.Random(seed).sample(every, min(self.samples, len(every))), None
            case "worst" | "best":
                if reader is None:
                    raise XaiError(
                        f"--pick {self.pick} needs a run that logged a metric",
                        hint="name the run, or use --pick first or random",
                    )
                return self._ranked(source, reader)
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

    def _ranked(self, source: Source, reader: Reader) -> tuple[list[Any], dict[str, Any]]:
        """The worst or best samples of the source by their last logged value, and how they were ranked.

        Kept inputs are ranked together, each by the value that was logged in its own mode.
        """
        import polars as pl

        from xaicli.api.rows import refuse_objects_alone
        from xaicli.queries.resolution import resolve
        from xaicli.queries.samples import last_scores
        from xaicli.queries.scores import SCORE

        of_modes = self.mode or ("all" if source.modes else None)
        chosen: Any = {key: value for key, value in (("metric", self.metric), ("mode", of_modes)) if value}
        refuse_objects_alone(reader)
        selection = resolve(reader, **chosen)
        name = selection.metrics[0]
        highest = (self.pick == "worst") != (name in HIGHER_IS_BETTER)
        held = {str(sample_id) for sample_id in source.sample_ids}
        own = {str(sample_id): mode for sample_id, mode in source.modes.items() if mode in selection.modes}
        scores = last_scores(reader, selection, name).filter(pl.col(SAMPLE_ID).cast(pl.String).is_in(held))
        ranked = scores.sort(SCORE, SAMPLE_ID, descending=[highest, False])
        found: dict[Any, str] = {}
        for sample_id, mode in ranked.select(SAMPLE_ID, MODE).iter_rows():
            if own.get(str(sample_id), mode) == mode:
                found.setdefault(sample_id, mode)
        if not found:
            raise XaiError(
                f"none of the data's samples has a logged {name} in mode {', '.join(selection.modes)}",
                hint="do the ids of --data equal the logged ones? --mode chooses the rows",
            )
        modes = [mode for mode in selection.modes if mode in found.values()]
        return list(found)[: self.samples], {"pick": self.pick, "metric": name, "mode": modes}
