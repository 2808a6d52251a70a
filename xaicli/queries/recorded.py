"""The scalars a run recorded with `run.log`, verified, none taken back, one value a moment; those of training logs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError
from xaicli.reader import Reader, TakeBack
from xaicli.reader.pieces import foreign, relative
from xaicli.summary import Summary, ValWithError
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK, STEP, Attempts, Mode
from xaicli.wal.records import live_records

KEY, AXIS, VALUE = "key", "axis", "value"

SCHEMA = {
    KEY: pl.String(),
    MODE: pl.String(),
    DS_ID: pl.String(),
    EPOCH: pl.Int32(),
    STEP: pl.Int64(),
    AXIS: pl.String(),
    VALUE: pl.Float64(),
    ATTEMPT: pl.Int16(),
    RANK: pl.Int16(),
}

_CURVE = (KEY, MODE, DS_ID, AXIS)
COUNTER = "counter"
TRAINING_AXES = ("step", "iteration")
_TRIES = 5
_NAMED = 3
_OF = "of epoch"
_BY = "by"
_COUNTED_WITH = "xai scalars and most others count them with --attempts all"
_APART = "log the mean of the ranks, or each rank's under a name of its own, as loss/rank1"


@dataclass
class LeftOut:
    """Values beside those that count.

    Attributes:
        taken_back: Of earlier attempts, where a later one trained that part again.
        duplicates: At a moment of another that counts: of the same attempt, by other ranks or before, or of others
            that took nothing back there.
        by_others: Of these, those at a moment of another attempt: {(the key, the attempt that counts): how many}.
        again: Of these, those that their own process logged again at a training step, and no epoch tells apart: {key:
            how many}.
        again_in_epoch: Likewise those that it logged again at an epoch, without a step.
        again_at_step: Likewise those that it logged again at a step of an epoch, as in every batch of an evaluation.
    """

    taken_back: int = 0
    duplicates: int = 0
    by_others: Counter[tuple[str, int]] = field(default_factory=Counter)
    by_ranks: Counter[tuple[str, int]] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    again_in_epoch: Counter[str] = field(default_factory=Counter)
    again_at_step: Counter[str] = field(default_factory=Counter)

    def add(self, other: LeftOut) -> None:
        """Count another's, too."""
        self.taken_back += other.taken_back
        self.duplicates += other.duplicates
        self.by_others += other.by_others
        self.by_ranks += other.by_ranks
        self.again += other.again
        self.again_in_epoch += other.again_in_epoch
        self.again_at_step += other.again_at_step

    def warnings(self) -> list[str]:
        """What was taken back or logged again, as warnings; none where nothing was."""
        said = []
        if self.taken_back:
            are = "scalar of an earlier attempt does" if self.taken_back == 1 else "scalars of earlier attempts do"
            why = f"a later attempt logged that part of the training again; {_COUNTED_WITH}"
            said.append(f"{self.taken_back:,} {are} not count: {why}")
        for of, whose, how in ((self.by_others, "attempt", _COUNTED_WITH), (self.by_ranks, "rank", _APART)):
            if n := of.total():
                keys = _some(sorted({key for key, _ in of}))
                counting = ", ".join(f"{whose} {by}'s" for by in sorted({by for _, by in of}))
                values, do, moments = ("1 value", "does", "moment") if n == 1 else (f"{n:,} values", "do", "moments")
                said.append(f"{values} of {keys} {do} not count: {counting} at the same {moments} {do}; {how}")
        apart = 'run.log({"epoch": ..., "step": ..., ...}) keeps them apart'
        of_batch = 'run.log({"step": ..., ...}) with the number of the batch keeps them apart'
        for again, where, how in (
            (self.again, "step", f"where steps start again with each epoch, {apart}"),
            (self.again_in_epoch, "epoch", f"where it is logged in every batch, {apart}"),
            (
                self.again_at_step,
                "step of an epoch",
                f"in a loop that counts no steps, as of an evaluation, {of_batch}",
            ),
        ):
            if n := again.total():
                were = "1 value was" if n == 1 else f"{n:,} values were"
                said.append(
                    f"{were} logged again at the same {where}, of {_some(sorted(again))}; the last counts: {how}"
                )
        return said


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more


def recorded_scalars(reader: Reader, left_out: LeftOut | None = None) -> pl.DataFrame:
    """Every scalar that counts, one a moment, as `preferred` says; with `--attempts all` one of each attempt.

    A moment is a step of an epoch, as far as the epoch is known: steps may start again with each.

    A value counts unless a later attempt took it back, as it does with samples: by epoch and step where the time axis
    is the training step, by the count where `load_state` set the recorder's counter back, and by the epoch alone.

    Args:
        reader: The run.
        left_out: Where to say how many values do not count.

    Returns:
        key, mode, ds_id, epoch, step (the time), axis (of what: step, iteration, epoch, counter), value, attempt, rank;
        by key, mode, ds_id, axis, step and attempt, or by the epoch before the step where steps start again with each.
        Damaged files are left out and noted.

    Raises:
        DamagedFileError: A file is damaged and the reader is strict.
    """
    rows = _rows(reader)
    counters: dict[int, int | None] = {a.attempt: None for a in reader.attempts if a.takes_back_from}
    counted = rows.filter(pl.col(AXIS) == COUNTER, pl.col(ATTEMPT).is_in(list(counters)))
    counters |= dict(counted.group_by(ATTEMPT).agg(pl.col(STEP).min()).iter_rows())
    curves = rows.partition_by(_CURVE, as_dict=True, maintain_order=True)
    nameless = rows.filter(pl.col(AXIS).is_in(TRAINING_AXES), pl.col(EPOCH).is_null())
    by_step = bool(reader.take_backs and nameless.height) and reader.steps_go_on
    anew = frozenset(back for back in reader.take_backs if reader.begins_anew(back))
    taken = _TakenBack(reader.take_backs, counters, by_step, anew)
    kept = [taken.left_of(curves[key]) for key in sorted(curves)]
    order = preferred(reader)
    told = [_one_a_moment(curve, order, each_attempt=True) for curve in kept]
    counting = told if reader.which_attempts is Attempts.ALL else [_one_a_moment(curve, order) for curve in told]
    if left_out is not None:
        left_out.duplicates = _height(kept) - _height(told)
        left_out.taken_back = rows.height - _height(kept)
        if reader.which_attempts is Attempts.LAST:
            for key, by, trained in chain.from_iterable(_of_others(curve, order, taken) for curve in told):
                left_out.taken_back += trained
                left_out.duplicates += not trained
                left_out.by_others[key, by] += not trained
        for curve in kept:
            left_out.by_ranks.update(_of_other_ranks(curve))
            axis = curve[AXIS][0] if curve.height else None
            nameless = curve if axis == EPOCH else curve.filter(pl.col(EPOCH).is_null())
            rest = curve.clear() if axis == EPOCH else curve.filter(pl.col(EPOCH).is_not_null())
            for again, some, axes in (
                (left_out.again, nameless, TRAINING_AXES),
                (left_out.again_in_epoch, nameless, (EPOCH,)),
                (left_out.again_at_step, rest, TRAINING_AXES),
            ):
                if axis in axes and (n := _logged_again(some)):
                    again[curve[KEY][0]] += n
    return pl.concat(counting) if counting else pl.DataFrame(schema=SCHEMA)


def _height(frames: Sequence[pl.DataFrame]) -> int:
    return sum(frame.height for frame in frames)


@dataclass(frozen=True)
class Preferred:
    """Whose value counts where several attempts logged the same moment.

    One that trained counts before one that did not, as of an evaluation script; then the later one, as with samples;
    but of two that were recorded at once, which are ranks of one another, the first.

    Attributes:
        trained: The attempts that have `train` rows.
        beside: {attempt: earlier ones that were still being recorded when it began}.
        first: One that counts before all others; None for none.
    """

    trained: Collection[int]
    beside: Mapping[int, Collection[int]]
    first: int | None = None

    def of(self, attempts: Collection[int]) -> int:
        """The attempt that counts of those that logged a moment."""
        if self.first is not None and self.first in attempts:
            return self.first
        rivals = [attempt for attempt in attempts if attempt in self.trained] or attempts
        # One that is followed by another stands behind it, whoever lived beside both.
        left = [
            one for one in rivals if not any(later > one and one not in self.beside.get(later, ()) for later in rivals)
        ]
        return min(left)

    def counting(self, curve: pl.DataFrame, at: Sequence[str]) -> pl.DataFrame:
        """A curve with the attempt that counts at the moment of each value beside, as `_BY`; `at` tells the moments."""
        if curve[ATTEMPT].n_unique() < 2:
            return curve.with_columns(pl.col(ATTEMPT).alias(_BY))
        those = pl.col(ATTEMPT).unique().sort().cast(pl.String).str.join(" ").over(at)
        curve = curve.with_columns(those.alias(_BY))
        found = {text: self.of(list(map(int, text.split()))) for text in curve[_BY].unique()}
        return curve.with_columns(pl.col(_BY).replace_strict(found, return_dtype=SCHEMA[ATTEMPT]))


def preferred(reader: Reader) -> Preferred:
    """Whose scalars count in a run."""
    return Preferred(reader.trained, {facts.attempt: facts.beside for facts in reader.attempts})


def of_preferred_attempt(rows: pl.DataFrame, order: Preferred) -> pl.DataFrame:
    """Of scalars of several attempts, of each moment those of the attempt that counts, as `preferred` says."""
    curves = rows.partition_by(_CURVE, maintain_order=True)
    return pl.concat([_one_a_moment(curve, order) for curve in curves]) if curves else rows


def start_again(moments: pl.DataFrame) -> bool:
    """Whether training steps start again with the epochs, so that a step alone is no moment.

    Args:
        moments: Rows with epoch and step, in any order; an epoch that is null says nothing.
    """
    known = moments.select(EPOCH, STEP).drop_nulls().sort(EPOCH, STEP)
    return bool((known[STEP].diff() < 0).any())


def counted_on(moments: pl.DataFrame) -> dict[int, int]:
    """What to add to the steps of each epoch so that they go on over the epochs: nothing where they do so already.

    Args:
        moments: As of `start_again`.
    """
    if not start_again(moments):
        return {}
    known = moments.select(EPOCH, STEP).drop_nulls()
    first = int(known[STEP].min())  # type: ignore[arg-type]
    added, offsets = 0, {}
    for epoch, last in known.group_by(EPOCH).agg(pl.col(STEP).max()).sort(EPOCH).iter_rows():
        offsets[epoch] = added
        added += last - first + 1
    return offsets


def going_on(offsets: Mapping[int, int]) -> pl.Expr:
    """The step of a row, counted on over the epochs as `counted_on` says; null where the epoch is not known to it."""
    if not offsets:
        return pl.col(STEP)
    return pl.col(STEP) + pl.col(EPOCH).replace_strict(dict(offsets), default=None, return_dtype=pl.Int64)


@dataclass(frozen=True)
class _TakenBack:
    """Which values later attempts took back; what a value does not say does not count against it.

    Attributes:
        take_backs: From where each attempt takes back.
        counters: {attempt: where its counter began}, of attempts that were told where to go on; None without a counter.
        by_step: Whether a step without an epoch tells the moment.
        anew: Those of the places of `take_backs` at which an epoch begins anew.
    """

    take_backs: Sequence[TakeBack]
    counters: Mapping[int, int | None]
    by_step: bool
    anew: Collection[TakeBack]

    def left_of(self, curve: pl.DataFrame) -> pl.DataFrame:
        """The values of a curve that none has taken back."""
        axis = curve[AXIS][0]
        for back in self.take_backs:
            curve = curve.filter((pl.col(ATTEMPT) >= back.attempt) | self._before(back, axis).fill_null(True))
        return curve

    def again(self, axis: str, by: pl.Expr) -> pl.Expr:
        """Whether a value that may have been logged before an attempt went on was logged again since.

        That is so in an epoch within which it went on, or where no epoch is known.

        Args:
            axis: The value's.
            by: The attempt that logged its moment, too.
        """
        said = pl.lit(False)
        for back in self.take_backs:
            surely = pl.col(STEP) < back.epoch if axis == EPOCH else self._before(back, axis).fill_null(False)
            said = said | ((pl.col(ATTEMPT) < back.attempt) & (by >= back.attempt) & ~surely)
        return said

    def _before(self, back: TakeBack, axis: str) -> pl.Expr:
        """Whether a value was logged before the place from which on an attempt takes back; null where nobody knows."""
        # An epoch's own value may be of its beginning, and the epoch be gone on with; not where it begins anew.
        last = back.epoch - 1 if back in self.anew else back.epoch
        if axis == EPOCH:
            return pl.col(STEP) <= last
        if axis in TRAINING_AXES:
            # Scalars logged outside of epochs have the step alone.
            alone = self.by_step or back.attempt in self.counters
            epoch = pl.col(EPOCH).fill_null(back.epoch) if alone else pl.col(EPOCH)
            return (epoch < back.epoch) | ((epoch == back.epoch) & (pl.col(STEP) < back.step))
        if (began := self.counters.get(back.attempt)) is not None:
            return (pl.col(STEP) < began) & (pl.col(EPOCH) <= last).fill_null(True)
        return pl.col(EPOCH) <= last


def _one_a_moment(curve: pl.DataFrame, order: Preferred, *, each_attempt: bool = False) -> pl.DataFrame:
    """The value of the attempt that counts, in it the lowest rank's, in it the last, at each moment; by moment."""
    if curve.height < 2 or bool((curve[STEP].diff().drop_nulls() > 0).all()):
        return curve
    curve, at = _moments(curve)
    if each_attempt:
        at.append(ATTEMPT)
    else:
        curve = order.counting(curve, at).filter(pl.col(ATTEMPT) == pl.col(_BY)).drop(_BY)
    ordered = curve.sort(RANK, descending=True, maintain_order=True)
    return ordered.unique(at, keep="last", maintain_order=True).sort(at, maintain_order=True).drop(_OF, strict=False)


def _moments(curve: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """A curve, with the epoch of a moment beside where that is a step; and what tells its moments apart, in order."""
    if curve[AXIS][0] not in TRAINING_AXES:
        return curve, [STEP]
    # One that says no epoch is at the step of the one that does.
    curve = curve.with_columns(pl.col(EPOCH).fill_null(pl.col(EPOCH).max().over(STEP)).alias(_OF))
    return curve, [_OF, STEP] if start_again(curve) else [STEP, _OF]


def _of_others(curve: pl.DataFrame, order: Preferred, taken: _TakenBack) -> Iterator[tuple[str, int, bool]]:
    """The values at whose moment another attempt's counts: the key, that attempt, and whether it went on there.

    Args:
        curve: One value a moment of each attempt.
        order: As `preferred` gives it.
        taken: What later attempts took back.
    """
    if curve[ATTEMPT].n_unique() < 2:
        return
    moments, at = _moments(curve)
    beside = order.counting(moments, at).filter(pl.col(ATTEMPT) != pl.col(_BY))
    yield from beside.select(KEY, _BY, taken.again(curve[AXIS][0], pl.col(_BY)).alias(_OF)).iter_rows()


def _of_other_ranks(curve: pl.DataFrame) -> Iterator[tuple[str, int]]:
    """The values that differ from that of a lower rank of their attempt at their moment: the key, and that rank."""
    if curve[RANK].n_unique() < 2:
        return
    moments, at = _moments(curve)
    at.append(ATTEMPT)
    each = moments.unique([*at, RANK], keep="last", maintain_order=True).sort(RANK, maintain_order=True)
    differs = pl.col(VALUE) != pl.col(VALUE).first().over(at)
    yield from each.with_columns(pl.col(RANK).first().over(at).alias(_BY)).filter(differs).select(KEY, _BY).iter_rows()


def _logged_again(curve: pl.DataFrame) -> int:
    """How many values their own process logged again at a moment."""
    return curve.height - curve.select(EPOCH, STEP, ATTEMPT, RANK).n_unique() if curve.height else 0


def _rows(reader: Reader) -> pl.DataFrame:
    """All rows of all files, and of journals that are not files yet, in the order they were logged in."""
    for attempt in range(_TRIES):
        frames = []
        live = _journalled(reader)  # before the files: what becomes one meanwhile is seen twice, and counts once
        try:
            for file in reader.record_files(reader.layout.scalars):
                path = relative(reader.layout, file)
                try:
                    table = parquet.read(file.path, list(SCHEMA), None, reader.records.get(path), reader.contents)
                    if missing := set(SCHEMA) - set(table.column_names):
                        raise foreign(path, missing)
                except DamagedFileError as error:
                    reader.note(error, path)
                    continue
                frame = pl.DataFrame(pl.from_arrow(table))
                frames.append(frame.with_columns(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()))
        except FileNotFoundError:
            # A compaction has replaced a file since the folder was listed.
            if attempt == _TRIES - 1:
                raise
            reader.refresh()
            continue
        frames.append(live)
        break
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


def _journalled(reader: Reader) -> pl.DataFrame:
    """The scalars that are not in files yet."""
    tables, damaged = live_records(reader.layout, "scalars")
    for path in damaged:
        name = path.relative_to(reader.layout.root).as_posix()
        reader.note(DamagedFileError(f"{name} is damaged", hint="see: xai doctor"), name)
    return pl.concat([pl.DataFrame(schema=SCHEMA), *(pl.DataFrame(pl.from_arrow(table)) for table in tables)])


_LINE = re.compile(r"\s*FastEstimator-(Train|Eval|Test):\s*(.*)")
_ITEM = re.compile(r"([^:;]+):([^;]*);")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf)"
_VALUE = re.compile(rf"({_NUMBER})(?:\s+\w+)?", re.IGNORECASE)
_BAND = re.compile(rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)", re.IGNORECASE)
_STEP, _EPOCH = "step", "epoch"


def read_log(path: Path, left_out: LeftOut | None = None) -> Summary:
    """The values of a log file, under the file's name without its suffix; of several at one step the last.

    Lines that begin `FastEstimator-Train:`, `-Eval:` or `-Test:` count, with their `key: value;` pairs: a number, also
    `nan`, `inf`, `1e-05` or one with a unit (`12.3 sec`), or a band `(low, value, high)`; other values are passed over.
    A line without a step takes that of the line before.

    Args:
        path: The file.
        left_out: Where to say how many values a later line tells again.

    Raises:
        XaiError: The file cannot be read, or holds no such line.
    """
    summary = Summary(path.stem)
    step = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if match := _LINE.match(line):
                    values = dict(_values(match[2]))
                    step = int(float(values.pop(_STEP, step)))
                    values.pop(_EPOCH, None)
                    mode = Mode(match[1].lower()).value
                    for key, value in values.items():
                        known = summary.history[mode][key]
                        if left_out is not None:
                            left_out.duplicates += step in known
                        known[step] = value
    except (OSError, ValueError, OverflowError) as error:
        raise XaiError(f"{path} cannot be read as a training log: {error}") from error
    if not summary.history:
        raise XaiError(
            f"{path} holds no line of a FastEstimator log", hint="such lines begin FastEstimator-Train: step: 1; ..."
        )
    return summary


def is_log(path: Path) -> bool:
    """Whether a file has a line of a training log among its first lines."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return any(_LINE.match(line) for line, _ in zip(lines, range(200), strict=False))
    except OSError:
        return False


def _values(text: str) -> Iterator[tuple[str, float | ValWithError]]:
    for key, value in _ITEM.findall(text):
        if match := _VALUE.fullmatch(value.strip()):
            yield key.strip(), float(match[1])
        elif match := _BAND.fullmatch(value.strip()):
            yield key.strip(), ValWithError(*map(float, match.groups()))
