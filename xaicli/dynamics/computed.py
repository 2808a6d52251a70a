"""One pass over the selected epochs, for every question about training dynamics that needs it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import polars as pl

from xaicli.answer import Counts
from xaicli.dynamics.arrays import MANY
from xaicli.dynamics.by_engine import statistics_by_engine
from xaicli.dynamics.chunks import DamageFoundError, chunks
from xaicli.dynamics.memorisation import memorised
from xaicli.dynamics.plan import Plan
from xaicli.dynamics.regions import on_map
from xaicli.dynamics.tracker import Tracker
from xaicli.errors import UsageError
from xaicli.progress import doing
from xaicli.queries.cache import Entry
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Tally
from xaicli.vocabulary import CORRECT, EL2N, LABEL_PROB, LOSS, MARGIN, SAMPLE_ID, Duplicates, Engine

NEEDS = {
    LABEL_PROB: ("confidence", "variability", "region"),
    CORRECT: ("correctness", "forgetting", "never_learned", "first_learned", "learned_for_good"),
    MARGIN: ("aum",),
    EL2N: ("el2n",),
    LOSS: ("ema",),
}
"""The statistics that need a column, in the order of the answer; the first is null only where the column is."""


_NEWEST = 4
"""Large: only so many are kept."""


@dataclass(frozen=True)
class Statistics:
    """One pass over the selected epochs, for every question that needs it.

    Attributes:
        frames: By (mode, ds_id): one row a sample, by id, with the columns of `Tracker.frame`.
        accuracy: By (mode, ds_id) and epoch: the share of predictions that equal the labels given.
        early_epochs: Of how many first observations `el2n` is the mean.
        burn_in: Changes of rank that end in one of so many first epochs do not count.
        tally: What was counted while reading.
        warnings: What the user should know.
    """

    frames: Mapping[Pair, pl.DataFrame]
    accuracy: Mapping[Pair, Mapping[int, float]]
    early_epochs: int
    burn_in: int
    tally: Tally
    warnings: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The statistics found of any (mode, ds_id)."""
        return frozenset(name for frame in self.frames.values() for name in frame.columns)

    @property
    def stale(self) -> int:
        """How many samples are absent from the last epoch."""
        return sum(int(frame["stale"].sum()) for frame in self.frames.values())

    def counts(self, reader: Reader) -> Counts:
        """What went in and what had to be left out."""
        return reader.counts(self.tally, stale=self.stale)


def compute(
    reader: Reader, selection: Selection, *, early_epochs: int = 10, burn_in: int = 2, jumps: bool = True
) -> Statistics:
    """All statistics of every sample of each (mode, ds_id), one epoch in memory at a time.

    Args:
        reader: The run.
        selection: Which rows.
        early_epochs: `el2n` is the mean over so many first observations of a sample.
        burn_in: Changes of rank that end in one of so many first epochs do not count.
        jumps: Whether to follow ranks at all: half of the work.

    Raises:
        UsageError: `early_epochs` or `burn_in` makes no sense.
    """
    if early_epochs < 1:
        raise UsageError(
            f"--early-epochs must be at least 1, not {early_epochs}", hint="el2n is their mean; 10 is usual"
        )
    if burn_in < 0:
        raise UsageError(f"--burn-in must be non-negative, not {burn_in}", hint="--burn-in 0 takes every change")
    plan = Plan(
        selection.metrics,
        frozenset(reader.dtypes),
        selection.label_key,
        early_epochs,
        burn_in,
        jumps,
        reader.dtypes.get(SAMPLE_ID, pl.Int64()),
        MANY if selection.duplicates is Duplicates.ALL else max(map(len, selection.epochs.values())),
        max(abs(epoch) for epochs in selection.epochs.values() for epoch in epochs),
    )
    tally = Tally()
    frames: dict[Pair, pl.DataFrame] = {}
    accuracy: dict[Pair, Mapping[int, float]] = {}
    for pair in selection.pairs:
        frames[pair], accuracy[pair] = _track(reader, selection, pair, plan, tally)
    absent = _absent(frames)
    return Statistics(
        frames={pair: frame.drop(absent, strict=False) for pair, frame in frames.items()},
        accuracy=accuracy,
        early_epochs=early_epochs,
        burn_in=burn_in,
        tally=tally,
        warnings=(*selection.warnings, *_explained(absent), *memorised(reader, selection, accuracy)),
    )


def _track(
    reader: Reader, selection: Selection, pair: Pair, plan: Plan, tally: Tally
) -> tuple[pl.DataFrame, Mapping[int, float]]:
    if selection.engine is not Engine.POLARS:
        found, accuracy = statistics_by_engine(reader, selection, pair, plan, tally)
        return found.with_columns(**on_map(found.to_dict())), accuracy
    facts = {**asdict(plan), "available": sorted(plan.available), "id_type": str(plan.id_type)}
    entry = Entry.of(reader, selection, [pair], "dynamics", facts)
    kept = None if entry is None else entry.load()
    if kept is not None:
        frame, known = kept
        tally.add(Tally(**known["tally"]))
        return frame, {int(epoch): float(share) for epoch, share in known["accuracy"].items()}
    frame, accuracy, counted = _pass(reader, selection, pair, plan)
    if entry is not None and not reader.damaged:
        entry.keep(frame, {"accuracy": accuracy, "tally": asdict(counted)}, newest=_NEWEST)
    tally.add(counted)
    return frame, accuracy


def _pass(
    reader: Reader, selection: Selection, pair: Pair, plan: Plan
) -> tuple[pl.DataFrame, Mapping[int, float], Tally]:
    """Once over the epochs; from the start when a file turns out to be damaged."""
    tally = Tally()
    epochs = selection.epochs[pair]
    with ThreadPoolExecutor(1) as helper:
        tracker = Tracker(plan, helper)
        try:
            for chunk in chunks(reader, selection, pair, plan.columns(), tally):
                doing("following every sample, epoch", epochs.index(chunk.epoch) + 1, len(epochs))
                tracker.reserve(chunk.epoch_rows)
                tracker.add(chunk.epoch, chunk.frame, complete=chunk.complete)
                del chunk
        except DamageFoundError:
            return _pass(reader, selection, pair, plan)
        return tracker.frame(), tracker.accuracy, tally


def _absent(frames: Mapping[Pair, pl.DataFrame]) -> dict[str, str]:
    """The statistics nothing was recorded for, {statistic: the column it needs}."""
    absent: dict[str, str] = {}
    for column, statistics in NEEDS.items():
        sign = statistics[0]
        if all(sign not in frame.columns or frame[sign].is_null().all() for frame in frames.values()):
            absent |= dict.fromkeys(statistics, column)
    return absent


def _explained(absent: Mapping[str, str]) -> list[str]:
    if not absent:
        return []
    by_column: dict[str, list[str]] = {}
    for statistic, column in absent.items():
        by_column.setdefault(column, []).append(statistic)
    missing = "; ".join(f"{', '.join(names)} (need {column})" for column, names in by_column.items())
    return [f"not recorded, so left out: {missing}; log_samples(logits=..., label=...) records all of these"]
