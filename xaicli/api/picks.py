"""Which samples `xai saliency` explains: the first, some by id, or those a logged metric points at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError, XaiError
from xaicli.sources.inputs import NOWHERE, Positions, Which
from xaicli.tables.lists import PlacedId, RowPlace, is_of
from xaicli.vocabulary import DS_ID, HIGH_IS_GOOD, MODE, SAMPLE_ID

if TYPE_CHECKING:
    from xaicli.reader import Reader
    from xaicli.sources.inputs import Source

PICKS = ("first", "worst", "best", "random")
HIGHER_IS_BETTER = frozenset(
    {*HIGH_IS_GOOD, "top_prob", "confidence", "correctness", "aum", "accuracy", "acc", "f1", "iou"}
)
"""Metrics whose worst samples are the lowest; of every other metric, as of a loss, the highest."""


@dataclass(frozen=True)
class Ranking:
    """How samples were picked.

    Attributes:
        pick: `worst` or `best`.
        metric: By the last values of which metric.
        modes, ds_ids: Of which modes and data sets these are.
        n: Among how many samples: those of the data that have such a value.
        found: How many samples were picked.
        unsure: Those of them that do not say their mode and data set, and have values in several.
    """

    pick: str
    metric: str
    modes: list[str]
    ds_ids: list[str]
    n: int
    found: int
    unsure: int

    def as_dict(self) -> dict[str, Any]:
        """What an answer says of it."""
        return {"pick": self.pick, "metric": self.metric, "mode": self.modes, "ds_id": self.ds_ids}


@dataclass(frozen=True)
class Choice:
    """Which samples to explain.

    Attributes:
        samples: How many.
        ids: These; then `samples` and `pick` do not count.
        pick: Of `PICKS`.
        metric, mode, ds_id: Of the logged values that `pick` goes by; the run's own defaults when None.
        typed: Those of these that were asked for in words, also where it is with their default.
    """

    samples: int = 16
    ids: Sequence[str] | None = None
    pick: str = "first"
    metric: str | None = None
    mode: Sequence[str] | None = None
    ds_id: Sequence[str] | None = None
    typed: Collection[str] = ()

    @property
    def goes_by_values(self) -> bool:
        """Whether samples are picked by a logged metric."""
        return self.ids is None and self.pick in ("worst", "best")

    @property
    def says_how_many(self) -> bool:
        """Whether so many samples were asked for."""
        return self.ids is None and ("samples" in self.typed or self.samples != type(self)().samples)

    def of(self, source: Source, reader: Reader | None, seed: int) -> tuple[Which, Ranking | None]:
        """What to take of a source; and how it was ranked, where it was.

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
            return self._listed(source)[0], None
        if self.samples < 1:
            raise UsageError(f"samples is {self.samples}", hint="a whole number from 1")
        match self.pick:
            case "first":
                return self.samples, None
            case "random":
                import random

                every = [at for at, sample_id in enumerate(source.sample_ids) if sample_id is not None]
                return Positions(random.Random(seed).sample(every, min(self.samples, len(every)))), None
            case "worst" | "best":
                if reader is None:
                    raise XaiError(
                        f"--pick {self.pick} needs a run that logged a metric",
                        hint="name the run, or use --pick first or random",
                    )
                return self._ranked(source, reader)
            case _:
                raise UsageError(f"no pick {self.pick!r}", hint="picks: " + ", ".join(PICKS))

    def misplaced(self, source: Source, reader: Reader | None) -> list[str]:
        """What is said of listed ids whose list names a mode or data set that the samples are not of.

        Args:
            source: Where the samples are.
            reader: The run, which knows where an id was logged.

        Raises:
            XaiError: All of them are.
        """
        return self._listed(source)[1] + (self._never_there(source, reader) if reader is not None else [])

    def _never_there(self, source: Source, reader: Reader) -> list[str]:
        """What is said of listed ids that were never logged where their list says, and of which an input is taken that
        was kept outside of any mode.
        """
        placed = [one for one in self.ids or () if isinstance(one, PlacedId)]
        if not placed or not source.pairs:
            return []
        kept: dict[str, dict[tuple[str, str], Any]] = {}
        for sample_id, pair in zip(source.sample_ids, source.pairs, strict=True):
            kept.setdefault(str(sample_id), {})[pair] = sample_id
        without = [
            (one, there[NOWHERE])
            for one in placed
            if NOWHERE in (there := kept.get(str(one), {})) and not any(is_of(one.place, pair) for pair in there)
        ]
        of_run = [(mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode)] if without else []
        logged = {pair: reader.ids_among(pair, {own for _, own in without}) for pair in of_run}
        stray = [
            one
            for one, own in without
            if not any(is_of(one.place, pair) and own in ids for pair, ids in logged.items())
        ]
        if not stray:
            return []
        where = ", ".join(dict.fromkeys(" ".join(filter(None, one.place)) for one in stray))
        return [
            f"{len(stray):,} of the {len(placed):,} listed ids were never logged in {where}, where their list has "
            "them: what is explained is the input that was kept of them without a mode"
        ]

    def _listed(self, source: Source) -> tuple[list[Any], list[str]]:
        """The listed ids that may be of the source, and what is said of the others."""
        from xaicli.queries.listed import Listed

        ids = list(self.ids or ())
        placed = [one for one in ids if isinstance(one, PlacedId)]
        if placed and not source.pairs:
            several = len({one.place for one in placed}) > 1
            return ids, ["mode and ds_id of the listed ids were not used: the data says neither"] if several else []
        pairs = list(dict.fromkeys(source.pairs))
        if not placed or any(not mode for mode, _ in pairs):
            return ids, []  # of what was kept outside of any mode nobody knows
        places: dict[Any, list[RowPlace]] = {}
        for one in placed:
            places.setdefault(str(one), []).append(one.place)
        said = Listed(list(dict.fromkeys(map(str, ids))), places).not_in(pairs)
        own = [one for one in ids if not isinstance(one, PlacedId) or any(is_of(one.place, pair) for pair in pairs)]
        return own, said

    def unused(self, *, mode_is_read: bool = True, ds_id_is_read: bool = True) -> tuple[str, ...]:
        """What was said and does not count, one sentence each.

        Args:
            mode_is_read: Whether the source of samples goes by the mode.
            ds_id_is_read: Whether it goes by the data set.
        """
        ranked = self.goes_by_values
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
        if self.ds_id is not None and not ranked and not ds_id_is_read:
            said.append("--ds-id was not used: the data has no data sets, and no logged metric picks its samples")
        return tuple(said)

    def _ranked(self, source: Source, reader: Reader) -> tuple[Positions, Ranking]:
        """The worst or best samples of the source by their last logged value, and how they were ranked.

        Kept inputs are ranked together, each by the value that was logged of it in its own mode and data set. What
        says none, as other data, is ranked by the values of its id; `unsure` of those picked have several.
        """
        import polars as pl

        from xaicli.api.rows import refuse_objects_alone
        from xaicli.queries.resolution import resolve
        from xaicli.queries.samples import last_scores
        from xaicli.queries.scores import SCORE

        of_modes = self.mode or ("all" if source.pairs else None)
        chosen: Any = {key: value for key, value in (("metric", self.metric), ("mode", of_modes)) if value}
        chosen |= {} if self.ds_id is None else {"ds_id": self.ds_id}
        refuse_objects_alone(reader)
        selection = resolve(reader, **chosen)
        name = selection.metrics[0]
        highest = (self.pick == "worst") != (name in HIGHER_IS_BETTER)
        held: dict[tuple[str, str, str], int] = {}
        for position, sample_id in enumerate(source.sample_ids):
            held.setdefault((*(source.pairs[position] if source.pairs else ("", "")), str(sample_id)), position)
        ids = {sample_id for *_, sample_id in held}
        scores = last_scores(reader, selection, name).filter(pl.col(SAMPLE_ID).cast(pl.String).is_in(ids))
        ranked = scores.sort(SCORE, SAMPLE_ID, descending=[highest, False])
        found: dict[int, tuple[str, str]] = {}
        again: set[int] = set()
        for sample_id, *pair in ranked.select(SAMPLE_ID, MODE, DS_ID).iter_rows():
            mode, ds_id = pair
            for own in ((mode, ds_id), ("", ds_id), ("", "")):
                if (at := held.get((*own, str(sample_id)))) is not None:
                    again |= {at} & found.keys()
                    found.setdefault(at, (mode, ds_id))
                    break
        if not found and source.pairs:
            places = {pair if any(pair) else (mode, "") for pair in source.pairs for mode in selection.modes}
            of = ", ".join(sorted(" ".join(filter(None, place)) for place in places))
            raise XaiError(
                f"of none of the {len(source.sample_ids):,} samples whose inputs the run kept is a {name} logged in "
                f"{of}",
                hint="--data ranks samples by whatever was logged of their ids",
            )
        if not found:
            raise XaiError(
                f"none of the data's samples has a logged {name} in mode {', '.join(selection.modes)}",
                hint="do the ids of --data equal the logged ones? --mode chooses the rows",
            )
        modes = [mode for mode in selection.modes if mode in {mode for mode, _ in found.values()}]
        ds_ids = sorted({ds_id for _, ds_id in found.values()})
        picked = list(found)[: self.samples]
        unsure = len(again.intersection(picked))
        return Positions(picked), Ranking(self.pick, name, modes, ds_ids, len(found), len(picked), unsure)
