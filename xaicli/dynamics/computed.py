"""One pass over the selected epochs, piece by piece, for every question about training dynamics that needs it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import polars as pl

from xaicli.answer import Counts
from xaicli.dynamics.arrays import MANY
from xaicli.dynamics.metrics import GROWING, LEARNING, MEMORISED, Plan
from xaicli.dynamics.regions import on_map
from xaicli.dynamics.tracker import Tracker
from xaicli.errors import DamagedFileError, whole_number
from xaicli.progress import doing
from xaicli.queries.cache import Entry
from xaicli.queries.rows import within_labels
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.truth import is_true_number, is_truth, measured_otherwise
from xaicli.reader import Piece, Place, Reader, Tally
from xaicli.reader.pages import Footer
from xaicli.reader.pieces import relative
from xaicli.reader.rows import conform, finite
from xaicli.vocabulary import (
    CORRECT,
    EL2N,
    LABEL,
    LABEL_PROB,
    LOSS,
    MARGIN,
    OF_ONE_LABEL,
    PREDICTION,
    SAMPLE_ID,
    STEP,
    Duplicates,
    Engine,
    Mode,
)
from xaicli.words import percent

T = TypeVar("T")

_ROWS = 1 << 16
"""Rows of a large file read at a time."""


class DamageFoundError(Exception):
    """A file turned out to be damaged after some of its rows were given out: what they went into must be redone."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of one place; no sample is in two chunks of a place.

    Attributes:
        epoch: The epoch.
        frame: The rows: non-finite metric values are null, duplicates resolved.
        complete: Whether these are the last rows of the place.
        epoch_rows: How many rows the place has, as far as its files say before they are read; else those given here.
    """

    epoch: int
    frame: pl.DataFrame
    complete: bool
    epoch_rows: int


def chunks(reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str], tally: Tally) -> Iterator[Chunk]:
    """The selected rows of one (mode, ds_id) in the order of epochs, each chunk read while the one before is used.

    An epoch in one compacted file comes in several chunks, any other in one for each of its passes.

    Raises:
        DamageFoundError: A file is damaged, now noted and left out by the reader: start again.
        DamagedFileError: A file is damaged and the reader is strict.
    """
    return _ahead(_chunks(reader, selection, pair, columns, tally))


def _chunks(reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str], tally: Tally) -> Iterator[Chunk]:
    limit = [selection.label_key] if selection.label_map else []  # of what has no labels, none are followed
    columns = list(dict.fromkeys([*columns, *limit]))
    for epoch in selection.epochs[pair]:
        place = Place(*pair, epoch)
        pieces = reader.pieces(place)
        own = reader.where is None and reader.facts.dtypes.keys().isdisjoint(columns)
        plain = len(pieces) == 1 and own and len(reader.turns(place)) < 2
        if plain and pieces[0].file is not None:
            begun = False
            try:
                for chunk in _of_file(reader, selection, pieces[0], columns, tally):
                    begun = True
                    yield chunk
            except (DamagedFileError, FileNotFoundError) as error:
                if begun:
                    reader.refresh()
                    if isinstance(error, DamagedFileError):
                        reader.note(error, relative(reader.layout, pieces[0].file))
                    raise DamageFoundError from error
            if begun:
                continue
        for rows in reader.of_epoch(place, columns, selection.duplicates):
            tally.add(rows.tally)
            yield Chunk(epoch, within_labels(rows.frame, selection), True, rows.frame.height)


def _of_file(
    reader: Reader, selection: Selection, piece: Piece, columns: Sequence[str], tally: Tally
) -> Iterator[Chunk]:
    """The rows of a file in which no sample repeats; nothing for any other file."""
    assert piece.file is not None
    path = relative(reader.layout, piece.file)
    wanted = list(dict.fromkeys([*columns, *([] if piece.fence is None else [STEP])]))
    if path in reader.damaged:
        return
    with reader.opened(piece.file.path) as file:
        rows = file.metadata.num_rows
        footer = Footer.of(file.metadata)
        if footer.sorted_ids is None:
            return
        sound = footer.non_finite is not None and not any(footer.non_finite.values())
        left = rows
        # In this thread alone: it is ahead of the work anyway, and each of Arrow's threads keeps megabytes.
        for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
            left -= batch.num_rows
            read = pl.DataFrame(pl.from_arrow(batch))
            kept = read if piece.fence is None else read.filter(pl.col(STEP) < piece.fence)
            rows_read = conform(kept, columns, reader.dtypes)
            frame, n = (rows_read, 0) if sound else finite(rows_read, reader.metrics)
            tally.add(Tally(frame.height, n, 0))
            yield Chunk(piece.place.epoch, within_labels(frame, selection), left == 0, rows)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in another thread while one is used."""
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, items, None)
            yield item
            del item


MEMORISED_TOLD = "the network has memorised its labels"


def memorised(reader: Reader, selection: Selection, known: Mapping[Pair, Mapping[int, float]]) -> list[str]:
    """A warning for each training set whose labels were memorised: at a selected epoch, or at the last one up to there.

    The training rows are looked at even when another mode is selected: the same network made those. Where they are
    selected, this is told from the first epoch on after which not all observations count for suspects.

    Args:
        reader: The run.
        selection: Which rows a question is about.
        known: The accuracies there are already, by (mode, ds_id) and epoch.
    """
    warnings = []
    for ds_id in reader.ds_ids(Mode.TRAIN) if Mode.TRAIN in reader.modes() else ():
        pair = (Mode.TRAIN.value, ds_id)
        shares = sorted(known.get(pair, {}).items())
        first = next((each for each in shares if each[1] >= MEMORISED), None)
        if pair in known:
            epoch, share = first or (0, 0.0)
        else:
            last = max(epoch for epochs in selection.epochs.values() for epoch in epochs)
            epoch = max((e for e in reader.epochs(*pair) if e <= last), default=-1)
            share = accuracy(reader, pair, epoch) if epoch >= 0 else 0.0
        if share >= MEMORISED:
            where = f"train {ds_id}".strip()
            last, at_last = shares[-1] if shares else (epoch, share)
            later = f" and {percent(at_last, 1)} at epoch {last}" if last > epoch else ""
            warnings.append(
                f"{MEMORISED_TOLD}: {percent(share, 1)} of the {where} labels are predicted at "
                f"epoch {epoch}{later}; wrong ones no longer stand out there, and a short list does not mean clean "
                "labels"
            )
            if last > epoch and len(shares) > LEARNING:
                warnings[-1] += (
                    f"; after epoch {epoch} only the first {LEARNING} observations of a sample count for suspects"
                )
    return warnings


def accuracy(reader: Reader, pair: Pair, epoch: int) -> float:
    """The share of predictions of one epoch that equal the labels given; 0 where nothing says."""
    columns = set(reader.stored)
    if CORRECT in columns:
        frame, _ = reader.frame(Place(*pair, epoch), [CORRECT])
        right = frame[CORRECT]
    elif {LABEL, PREDICTION} <= columns:
        frame, _ = reader.frame(Place(*pair, epoch), [LABEL, PREDICTION])
        right = frame[LABEL] == frame[PREDICTION]
    else:
        return 0.0
    share = right.cast(pl.Float64).mean()
    return float(share) if isinstance(share, float) else 0.0


NEEDS = {
    LABEL_PROB: ("confidence", "variability", "region"),
    CORRECT: ("correctness", "forgetting", "never_learned", "first_learned", "learned_for_good"),
    MARGIN: ("aum",),
    EL2N: ("el2n",),
    LOSS: ("ema",),
}
"""The statistics that need a column, in the order of the answer; the first is null only where the column is."""


LEFT_OUT = "so left out"
"""In every warning of statistics that these rows do not give."""


_NEWEST = 4
"""Large: only so many are kept."""


@dataclass(frozen=True)
class Statistics:
    """One pass over the selected epochs, for every question that needs it.

    Attributes:
        frames: By (mode, ds_id): one row a sample, by id, with the columns of `Tracker.frame`.
        judged: By (mode, ds_id) and epoch: how many predictions equal the labels given, of how many, in its last pass.
        early_epochs: Of how many first observations `el2n` is the mean.
        burn_in: Changes of rank that end in one of so many first epochs do not count.
        tally: What was counted while reading.
        warnings: What the user should know.
    """

    frames: Mapping[Pair, pl.DataFrame]
    judged: Mapping[Pair, Mapping[int, tuple[int, int]]]
    early_epochs: int
    burn_in: int
    tally: Tally
    warnings: tuple[str, ...]

    @property
    def accuracy(self) -> dict[Pair, Mapping[int, float]]:
        """By (mode, ds_id) and epoch: the share of predictions that equal the labels given."""
        return _shares(self.judged)

    @property
    def names(self) -> frozenset[str]:
        """The statistics found of any (mode, ds_id)."""
        return frozenset(name for frame in self.frames.values() for name in frame.columns)

    @property
    def stale(self) -> int:
        """How many samples have no finite value in the last epoch: absent from it, or there without one."""
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
    early_epochs = whole_number("--early-epochs", early_epochs, least=1, hint="el2n is their mean; 10 is usual")
    burn_in = whole_number("--burn-in", burn_in, least=0, hint="--burn-in 0 takes every change")
    # A number that was predicted is near its label or far from it, and hardly ever equal to it.
    are_numbers = reader.dtypes.get(PREDICTION, pl.Null()).is_float()
    plan = Plan(
        selection.metrics,
        frozenset(reader.stored) - ({PREDICTION} if are_numbers else set()),
        selection.label_key,
        early_epochs,
        burn_in,
        jumps,
        reader.dtypes.get(SAMPLE_ID, pl.Int64()),
        MANY if selection.duplicates is Duplicates.ALL else max(map(len, selection.epochs.values())),
        max(abs(epoch) for epochs in selection.epochs.values() for epoch in epochs),
        selection.label_key in reader.facts.dtypes,
        is_truth(reader, selection.label_key),
    )
    tally = Tally()
    frames: dict[Pair, pl.DataFrame] = {}
    told: dict[Pair, Mapping[int, tuple[int, int]]] = {}
    for pair in selection.pairs:
        frames[pair], told[pair] = _track(reader, selection, pair, plan, tally)
    absent = _absent(frames)
    explained = _explained(absent, reader.dtypes, reader.manifest.task)
    return Statistics(
        frames={pair: frame.drop(absent, strict=False) for pair, frame in frames.items()},
        judged=told,
        early_epochs=early_epochs,
        burn_in=burn_in,
        tally=tally,
        warnings=(
            *selection.warnings,
            *explained,
            *_measured(reader, plan),
            *memorised(reader, selection, _shares(told)),
        ),
    )


def _measured(reader: Reader, plan: Plan) -> list[str]:
    """What is not measured against the label key, where this is the truth."""
    if is_true_number(reader, plan.label):
        return measured_otherwise(reader, plan.label, [*plan.parts()])
    own = [name for name in (LOSS, LABEL_PROB, MARGIN, EL2N) if name in plan.available]
    if not plan.label_is_truth or LABEL not in plan.available or not own:
        return []
    return [
        f"predictions are right where they are {plan.label}; {', '.join(own)} and what follows from them, as how "
        "suspicious a sample is, are as recorded, measured against label"
    ]


def _shares(judged: Mapping[Pair, Mapping[int, tuple[int, int]]]) -> dict[Pair, Mapping[int, float]]:
    return {pair: {epoch: right / n for epoch, (right, n) in told.items()} for pair, told in judged.items()}


def _track(
    reader: Reader, selection: Selection, pair: Pair, plan: Plan, tally: Tally
) -> tuple[pl.DataFrame, Mapping[int, tuple[int, int]]]:
    if selection.engine is not Engine.POLARS:
        from xaicli.dynamics.relations import statistics_by_engine
        from xaicli.queries.relations import tallied

        found, told = tallied(reader, tally, partial(statistics_by_engine, reader, selection, pair, plan))
        return found.with_columns(**on_map(found.to_dict())), told
    facts = {
        **asdict(plan),
        "counting": (GROWING, LEARNING),
        "available": sorted(plan.available),
        "id_type": str(plan.id_type),
        "told": "judged",
    }
    entry = Entry.of(reader, selection, [pair], "dynamics", facts)
    kept = None if entry is None else entry.load()
    if kept is not None:
        frame, known = kept
        tally.add(Tally(**known["tally"]))
        return frame, {int(epoch): (right, n) for epoch, (right, n) in known["judged"].items()}
    frame, told, counted = _pass(reader, selection, pair, plan)
    if entry is not None and not reader.damaged:
        entry.keep(frame, {"judged": told, "tally": asdict(counted)}, newest=_NEWEST)
    tally.add(counted)
    return frame, told


def _pass(
    reader: Reader, selection: Selection, pair: Pair, plan: Plan
) -> tuple[pl.DataFrame, Mapping[int, tuple[int, int]], Tally]:
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
        return tracker.frame(), tracker.judged, tally


def _absent(frames: Mapping[Pair, pl.DataFrame]) -> dict[str, str]:
    """The statistics nothing was recorded for, {statistic: the column it needs}."""
    absent: dict[str, str] = {}
    for column, statistics in NEEDS.items():
        sign = statistics[0]
        if all(sign not in frame.columns or frame[sign].is_null().all() for frame in frames.values()):
            absent |= dict.fromkeys(statistics, column)
    return absent


def _explained(absent: Mapping[str, str], recorded: Container[str], task: str | None) -> list[str]:
    """What is missing and why: a column that was never recorded, or one without any finite value in these rows.

    Of a task that has no such columns nothing is missing.
    """
    said = []
    if task not in OF_ONE_LABEL:
        absent = {statistic: column for statistic, column in absent.items() if column in recorded}
    for is_known, why in ((False, "not recorded"), (True, "recorded, but without a finite value here")):
        by_column: dict[str, list[str]] = {}
        for statistic, column in absent.items():
            if (column in recorded) is is_known:
                by_column.setdefault(column, []).append(statistic)
        if by_column:
            missing = "; ".join(f"{', '.join(names)} (need {column})" for column, names in by_column.items())
            way_out = "" if is_known else "; log_samples(logits=..., label=...) records all of these"
            said.append(f"{why}, {LEFT_OUT}: {missing}{way_out}")
    return said
