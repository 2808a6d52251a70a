"""What a training has recorded so far, read again and again at little cost: only what is new is read."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import polars as pl

from xaicli.diagnosis.steps import batch_losses, with_spikes
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.layout import RunLayout
from xaicli.queries.names import LabelNames
from xaicli.queries.recorded import AXIS, recorded_scalars
from xaicli.queries.resolution import resolve
from xaicli.queries.runs import state_of
from xaicli.queries.selection import Pair, Selection, words
from xaicli.reader import Place, Reader
from xaicli.reader.pieces import Piece
from xaicli.reader.rows import that_count
from xaicli.state.published import read_descriptions
from xaicli.vocabulary import (
    ATTEMPT,
    CORRECT,
    END_IS_KNOWN,
    EPOCH,
    HIGH_IS_GOOD,
    LABEL,
    MODE,
    PASS,
    RANK,
    SAMPLE_ID,
    STEP,
    Duplicates,
    Mode,
)

_HISTORY = 24
"""Places of the past whose mean is told."""
_STEPS = 4_000
"""Batches that are looked at for spikes."""
_RATE_SECONDS = 30.0
_GUESSED = "the highest count as the worst, and a rise as a spike"
_RUNNING = "running"
_WAITING = "waiting"
_CRASHED = "crashed"
FINISHED = "finished"
"""The state of a run that was closed."""
REMOTE = "remote"
"""The state of a run in an object store: whether a process lives is not in its files."""
_Key = tuple[str, Any, Any]


@dataclass(frozen=True)
class Now:
    """A data set at its last place.

    Attributes:
        mode, ds_id: The data set.
        epoch, turn, step: Its last place.
        n: Samples there so far.
        n_before: Samples of the place before; None for the first.
        rows, rows_before: The same in rows, which may repeat a sample.
        mean: Their mean of the metric, None where nothing was finite.
        before: The mean at the place before.
        accuracy: The share right, where that is known.
        non_finite: Values that are not finite.
        duplicates: Rows that repeat a sample; the last one counts.
        history: (epoch, pass, mean) of the last places, this one last.
        n_labels: How many labels have a mean there.
    """

    mode: str
    ds_id: str
    epoch: int
    turn: int
    step: int
    n: int
    n_before: int | None
    rows: int
    rows_before: int | None
    mean: float | None
    before: float | None
    accuracy: float | None
    non_finite: int
    duplicates: int
    history: tuple[tuple[int, int, float | None], ...]
    n_labels: int = 0


@dataclass(frozen=True)
class Watched:
    """A training at one moment.

    Attributes:
        state: running, finished or crashed, waiting before the first row; remote for a run in an object store, of which
            it cannot be told.
        metric: What is told of.
        places: Each data set, train first.
        worst: mode, ds_id, sample_id, label, name, value: the worst at the last places, the worst first.
        labels: mode, ds_id, label, name, n, mean, change (since the place before), usual (the median of these
            means).
        spikes: mode, ds_id, epoch, step, rank, loss, height: the newest first.
        rows: Rows of the whole run that count, whatever is looked at.
        rows_per_second: Of these, lately, else since the start; 0 of a training that has died; None where not known.
        quiet_seconds: Since the last row was seen; None before the first.
        dropped: Rows the recorder could not store.
        total_epochs: For how many epochs it was started; None where it does not say.
        seconds_left: Until then at this speed; None where that cannot be told.
        warnings: What the user should know.
        n_spikes: How many there are of them in the batches that were looked at.
        lacks: What was asked for and has not been recorded yet, which is waited for; "" for nothing.
        spikes_since: mode, ds_id, epoch, step, within_epoch: of each data set of whose batches the newest alone were
            looked at the first of these, and whether its epoch has earlier ones.
    """

    state: str
    metric: str
    places: tuple[Now, ...] = ()
    worst: tuple[dict[str, Any], ...] = ()
    labels: tuple[dict[str, Any], ...] = ()
    spikes: tuple[dict[str, Any], ...] = ()
    rows: int = 0
    rows_per_second: float | None = None
    quiet_seconds: float | None = None
    dropped: int = 0
    total_epochs: int | None = None
    seconds_left: float | None = None
    warnings: tuple[str, ...] = ()
    n_spikes: int = 0
    spikes_since: tuple[dict[str, Any], ...] = ()
    lacks: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing writes into the run any more."""
        return self.state not in (_RUNNING, _WAITING, REMOTE)


@dataclass
class _Epoch:
    """What is known of an epoch of one data set, as of the pieces it was read from."""

    key: tuple[_Key, ...]
    n_rows: int = 0
    turns: dict[int, _Turn] = field(default_factory=dict)
    batches: pl.DataFrame | None = None


@dataclass
class _Turn:
    n: int
    mean: float | None
    step: int
    accuracy: float | None
    non_finite: int
    duplicates: int
    by_label: dict[Any, tuple[int, float]]
    worst: list[dict[str, Any]]


@dataclass(frozen=True)
class _Course:
    """The epochs of one data set, or of the scalars of a mode, by which a training goes on.

    Attributes:
        mode: The mode.
        epochs: All, ascending.
        own: Those of the last start.
        size: How much an epoch has, to compare it with the one before.
        is_trained: Whether these are rows of train.
    """

    mode: str
    epochs: Sequence[int]
    own: Sequence[int]
    size: Callable[[int], int]
    is_trained: bool = False

    @property
    def step(self) -> int:
        """From one epoch to the next: more than 1 where not every epoch is recorded."""
        return self.epochs[-1] - self.epochs[-2] if len(self.epochs) > 1 else 1


class Training:
    """Follows one run.

    Args:
        layout: The run.
        metric: The metric; loss, else the first there is, when None.
        mode: Modes, as everywhere; all when None.
        ds_id: Data sets; all when None.
        top: How many samples and spikes are told of, how many of the worst labels, and of those that fell behind most.
        is_remote: Whether the run lies in an object store, and this is its copy.
        waits: Whether a mode, data set or metric that is not there yet is waited for while the training goes on.

    Attributes:
        behind: Why the copy is older than what the store holds; "" where it is not.
    """

    def __init__(
        self,
        layout: RunLayout,
        *,
        metric: str | None = None,
        mode: Any = None,
        ds_id: Any = None,
        top: int = 5,
        is_remote: bool = False,
        waits: bool = False,
    ) -> None:
        if top < 1:
            raise UsageError(f"--top must be at least 1, not {top}")
        self.layout = layout
        self._is_remote = is_remote
        self._waits = waits
        self._told = ""
        self.behind = ""
        self._metric, self._mode, self._ds_id, self._top = metric, mode, ds_id, top
        self._reader: Reader | None = None
        self._stamp: tuple[int, int] | None = None
        self._epochs: dict[tuple[Pair, int], _Epoch] = {}
        self._frames: dict[_Key, pl.DataFrame] = {}
        self._counts: dict[_Key, int] = {}
        self._passes: dict[tuple[Pair, int], tuple[tuple[_Key, ...], list[int]]] = {}
        self._rates: deque[tuple[float, int]] = deque()
        self._seen: tuple[int, float] | None = None

    def look(self) -> Watched:
        """The training now; what was read before is not read again.

        Raises:
            XaiError: There is no such metric, mode or data set, or the folder is no run.
        """
        state = REMOTE if self._is_remote else state_of(self.layout)
        listed = time.monotonic()
        reader = self._opened()
        may_come = self._waits and state in (_RUNNING, _WAITING, REMOTE)
        if not reader.modes():
            if not may_come and self._metric is not None and reader.metrics and self._metric not in reader.askable:
                raise unknown("metric", self._metric, reader.askable, where=reader.described)
            whole = self._of_the_run(reader, state, listed)
            return Watched(state, self._metric or "loss", warnings=reader.losses, **whole)
        metric = self._metric or ("loss" if "loss" in reader.metrics else next(iter(reader.askable), ""))
        if not metric:
            said = "no metric is recorded: log one with run.log_samples(..., loss=...)"
            return Watched(state, "", warnings=(said, *reader.losses), **self._of_the_run(reader, state, listed))
        try:
            selection = resolve(reader, metric=metric, mode=self._mode or "all", ds_id=self._ds_id)
        except UsageError:
            raise
        except XaiError as error:
            if not may_come or self._names_no_mode():
                raise
            whole = self._of_the_run(reader, state, listed)
            return Watched(state, metric, warnings=reader.losses, lacks=not_yet(error), **whole)
        if metric != self._told:  # the loss came later: what was read is of another
            self._told = metric
            self._epochs.clear()
            self._frames.clear()
        names = LabelNames.of(reader, selection)
        places, worst, labels, spikes, since = [], [], [], [], []
        for pair in sorted(selection.pairs, key=_order):
            now, own = self._place(reader, selection, pair, metric, names)
            if now is not None:
                places.append(now)
                worst += own["worst"]
                labels += own["labels"]
                spikes += own["spikes"]
                since += own["since"]
        return Watched(
            state,
            metric,
            tuple(places),
            tuple(worst),
            tuple(labels),
            tuple(sorted(spikes, key=lambda row: (-row[EPOCH], -row[STEP]))[: self._top]),
            warnings=(
                *filter(None, [self.behind]),
                *reader.warnings,
                *reader.losses,
                *(words for words in selection.warnings if words not in reader.warnings),
                *(f"{name} is damaged, and left out" for name in reader.damaged if name not in reader.faulty),
                *(() if metric in END_IS_KNOWN else (f"which end of {metric} is good is not known: {_GUESSED}",)),
            ),
            n_spikes=len(spikes),
            spikes_since=tuple(since),
            **self._of_the_run(reader, state, listed),
        )

    def _of_the_run(self, reader: Reader, state: str, listed: float) -> dict[str, Any]:
        """What is told of the training as a whole, whatever mode, data set or metric is looked at."""
        rows, total = sum(self._rows_of(reader)), self._total_epochs()
        lately = self._rate(rows, listed)
        return {
            "rows": rows,
            "rows_per_second": 0.0 if state == _CRASHED else lately,
            "quiet_seconds": None if self._seen is None or not rows else time.monotonic() - self._seen[1],
            "dropped": reader.dropped,
            "total_epochs": total,
            "seconds_left": self._seconds_left(reader, total) if state in (_RUNNING, REMOTE) else None,
        }

    def _names_no_mode(self) -> bool:
        """Whether a mode is asked for that no run can have."""
        given = [word.removeprefix("!") for word in words(self._mode, "mode") or ()]
        return any(word not in {"all", *map(str, Mode)} for word in given)

    @property
    def reader(self) -> Reader:
        """The run's files as they were last listed."""
        return self._reader or self._opened()

    def _opened(self) -> Reader:
        """The reader, listing anew; another one where the run has new columns."""
        about = self.layout.manifest.stat()
        stamp = about.st_mtime_ns, about.st_size
        if self._reader is None or stamp != self._stamp:
            self._reader, self._stamp = Reader(self.layout), stamp
        else:
            self._reader.refresh()
            for known in ("dtypes", "metrics", "counters", "drops", "losses", "attempts", "ignored"):
                self._reader.__dict__.pop(known, None)
        return self._reader

    def _rows_of(self, reader: Reader) -> list[int]:
        """The rows of each epoch of the whole run: of those read before as they were read, of others as files say."""
        found = []
        for place in reader.folders():
            known = self._epochs.get(((place.mode, place.ds_id), place.epoch))
            if known is not None:
                found.append(known.n_rows)
                continue
            key = ("rows", place.folder, tuple(map(_key, reader.pieces(place))))
            if key not in self._counts:
                self._counts[key] = reader.row_count(place)
            found.append(self._counts[key])
        return found

    def _place(
        self, reader: Reader, selection: Selection, pair: Pair, metric: str, names: LabelNames
    ) -> tuple[Now | None, dict[str, list[dict[str, Any]]]]:
        """A data set at its last place, with its worst samples, labels and spikes, and since when it looks for them."""
        epochs = reader.epochs(*pair)
        turns: list[tuple[int, int, _Turn]] = []
        batches: list[pl.DataFrame] = []
        for epoch in epochs[-_HISTORY:]:
            known = self._epoch(reader, selection, pair, epoch, metric, is_last=epoch == epochs[-1])
            turns += [(epoch, turn, known.turns[turn]) for turn in sorted(known.turns)]
            batches += [] if known.batches is None else [known.batches]
        if not turns:
            return None, {"worst": [], "labels": [], "spikes": [], "since": []}
        epoch, turn, last = turns[-1]
        previous = turns[-2][2] if len(turns) > 1 else None
        origin = {"mode": pair[0], "ds_id": pair[1]}
        now = Now(
            *pair,
            epoch,
            turn,
            last.step,
            last.n,
            None if previous is None else previous.n,
            last.n + last.duplicates,
            None if previous is None else previous.n + previous.duplicates,
            last.mean,
            None if previous is None else previous.mean,
            last.accuracy,
            last.non_finite,
            last.duplicates,
            tuple((e, t, one.mean) for e, t, one in turns[-_HISTORY:]),
            len(last.by_label),
        )
        worst = [{**origin, **row, "name": names.beside(row[LABEL])} for row in last.worst]
        spikes, since = ([], []) if metric in HIGH_IS_GOOD else self._spikes(batches, is_whole=len(epochs) <= _HISTORY)
        return now, {
            "worst": worst,
            "labels": [{**origin, **row} for row in self._labels(last, previous, metric, names)],
            "spikes": [{**origin, **row} for row in spikes],
            "since": [{**origin, **row} for row in since],
        }

    def _epoch(
        self, reader: Reader, selection: Selection, pair: Pair, epoch: int, metric: str, *, is_last: bool
    ) -> _Epoch:
        """What is known of an epoch; read where a piece of it is new."""
        pieces = reader.pieces(Place(*pair, epoch))
        key = tuple(map(_key, pieces))
        known = self._epochs.get((pair, epoch))
        if known is not None and known.key == key:
            return known
        label = selection.label_key
        wanted = [SAMPLE_ID, label, metric, CORRECT, STEP, RANK, PASS, ATTEMPT]
        columns = [name for name in dict.fromkeys(wanted) if name in reader.dtypes or name in (RANK, PASS, ATTEMPT)]
        parts = []
        for piece, name in zip(pieces, key, strict=True):
            frame = self._frames.get(name)
            if frame is None:
                read = reader.read(piece, columns)
                frame = pl.DataFrame() if read is None else read
                if piece.file is not None:
                    self._frames[name] = frame
            if frame.width:
                parts.append(frame)
        known = _Epoch(key)
        if parts:
            self._summarise(known, pl.concat(parts, how="diagonal_relaxed"), pair, epoch, metric, label)
        if not is_last:  # its files are not read again unless one is new
            for name in key:
                self._frames.pop(name, None)
        self._epochs[pair, epoch] = known
        return known

    def _summarise(self, known: _Epoch, every: pl.DataFrame, pair: Pair, epoch: int, metric: str, label: str) -> None:
        known.n_rows = every.height
        value = pl.col(metric).cast(pl.Float64)
        if pair[0] == Mode.TRAIN:
            placed = every.with_columns(pl.lit(epoch, pl.Int32).alias(EPOCH), value.alias(metric))
            known.batches = batch_losses(placed, metric).tail(_STEPS + 1)  # one more tells that there are
        for (turn,), rows in every.group_by(PASS, maintain_order=True):
            frame = that_count(rows, Duplicates.LAST) if rows[SAMPLE_ID].is_duplicated().any() else rows
            numbers = frame.select(value.alias("value"))["value"]
            finite = numbers.is_finite().fill_null(False)
            mean = numbers.filter(finite).mean()
            right = frame[CORRECT].cast(pl.Float64).mean() if CORRECT in frame.columns else None
            known.turns[int(str(turn))] = _Turn(
                frame.height,
                mean if isinstance(mean, float) else None,
                int(frame[STEP].max()),  # type: ignore[arg-type]
                right if isinstance(right, float) else None,
                int((~finite & numbers.is_not_null()).sum()),
                rows.height - frame.height,
                self._by_label(frame, value, label),
                self._worst(frame, value, metric, label),
            )

    @staticmethod
    def _by_label(frame: pl.DataFrame, value: pl.Expr, label: str) -> dict[Any, tuple[int, float]]:
        if label not in frame.columns or frame.schema[label].is_float():
            return {}
        known = frame.select(pl.col(label).alias(LABEL), value.alias("value")).filter(pl.col("value").is_finite())
        if isinstance(known.schema[LABEL], pl.List):
            known = known.explode(LABEL)
        means = known.drop_nulls(LABEL).group_by(LABEL).agg(pl.len(), pl.col("value").mean())
        return {one: (n, mean) for one, n, mean in means.iter_rows()}

    def _worst(self, frame: pl.DataFrame, value: pl.Expr, metric: str, label: str) -> list[dict[str, Any]]:
        shown = [pl.col(SAMPLE_ID), *([pl.col(label).alias(LABEL)] if label in frame.columns else [])]
        known = frame.select(*shown, value.alias("value")).filter(pl.col("value").is_finite())
        is_high_bad = metric not in HIGH_IS_GOOD
        most = known.top_k(
            self._top, by=["value", SAMPLE_ID], reverse=[not is_high_bad, True]
        )  # sorting all takes time
        best = most.sort("value", SAMPLE_ID, descending=[is_high_bad, False])
        return [{LABEL: None, **row} for row in best.to_dicts()]

    def _labels(self, last: _Turn, previous: _Turn | None, metric: str, names: LabelNames) -> list[dict[str, Any]]:
        """The labels that are worst, and those that became worse since the place before, the worst first."""
        if len(last.by_label) < 2:
            return []
        sign = -1 if metric in HIGH_IS_GOOD else 1
        usual = median(mean for _, mean in last.by_label.values())
        rows = []
        for label, (n, mean) in last.by_label.items():
            before = None if previous is None else previous.by_label.get(label)
            change = None if before is None else mean - before[1]
            rows.append({LABEL: label, "name": names[label], "n": n, "mean": mean, "change": change, "usual": usual})
        rows.sort(key=lambda row: (-sign * row["mean"], str(row["name"])))
        behind = sorted(rows, key=lambda row: -sign * (row["change"] or 0.0))[: self._top]
        return [row for place, row in enumerate(rows) if place < self._top or row in behind]

    @staticmethod
    def _spikes(
        batches: Sequence[pl.DataFrame], *, is_whole: bool
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The spikes among the newest batches, the newest last; and the first of these, where there are earlier ones.

        Args:
            batches: Those of the last epochs, train alone.
            is_whole: Whether these are all epochs.
        """
        if not batches:
            return [], []
        every = pl.concat(batches)
        newest = every.tail(_STEPS)
        found = with_spikes(newest).filter("is_spike").select(EPOCH, STEP, RANK, "loss", "height")
        spikes = [
            {**row, "height": row["height"] if math.isfinite(row["height"]) else None} for row in found.to_dicts()
        ]
        if is_whole and newest.height == every.height:
            return spikes, []
        first = newest.select(EPOCH, STEP).row(0, named=True)
        within = newest.height < every.height and every[EPOCH][every.height - newest.height - 1] == first[EPOCH]
        return spikes, [{**first, "within_epoch": within}]

    def _rate(self, rows: int, moment: float) -> float | None:
        """Rows a second over the last half minute; while no row has come in less, as the recorder's own counters say.

        Args:
            rows: Rows that count.
            moment: When the files that hold them were listed: reading them may take longer than the time between looks.
        """
        if self._seen is None or rows != self._seen[0]:
            self._seen = rows, moment
        if self._rates and rows < self._rates[-1][1]:
            self._rates.clear()  # a later start took rows back
        self._rates.append((moment, rows))
        while len(self._rates) > 2 and moment - self._rates[0][0] > _RATE_SECONDS:
            self._rates.popleft()
        since, before = self._rates[0]
        span = moment - since
        if span > 0 and rows != before:
            return (rows - before) / span
        return 0.0 if span >= _RATE_SECONDS else self._rate_of_counters()

    def _rate_of_counters(self) -> float | None:
        """Since the start of the last attempt; None where its counters, kept with its files, do not tell yet."""
        assert self._reader is not None
        attempts = self._reader.attempts
        if not attempts:
            return None
        last = attempts[-1]
        try:
            of_last = f"{last.attempt:06d}-r"
            found = [facts for name, facts in self._reader.counters.items() if name.startswith(of_last)]
            began = datetime.fromisoformat(last.started_at)
            ends = [datetime.fromisoformat(str(facts["written_at"])) for facts in found]
            logged = sum(int(facts["rows_logged"]) for facts in found)
            seconds = (max(ends) - began).total_seconds()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # While it goes on, what was counted within its first seconds is no pace.
        is_told = seconds >= _RATE_SECONDS or all(facts.get("closed") for facts in found)
        return logged / seconds if logged and seconds > 0 and is_told else None

    def _total_epochs(self) -> int | None:
        """What the last start is meant for: as it said within its epochs, else as its first row came."""
        assert self._reader is not None
        if not self._reader.attempts:
            return None
        last = self._reader.attempts[-1]
        said = read_descriptions(self.layout.state).get("starts", {}).get(str(last.attempt), {})
        total = said.get("total_epochs") if isinstance(said, dict) else None
        return total if isinstance(total, int) and total > 0 else last.total_epochs or None

    def _seconds_left(self, reader: Reader, total: int | None) -> float | None:
        """What is left of the epochs, at the speed of those that this start has done."""
        attempts = reader.attempts
        if total is None or not attempts:
            return None
        try:
            began = datetime.fromisoformat(attempts[-1].started_at)
        except ValueError:
            return None
        courses = self._courses(reader, attempts[-1].attempt)
        course = _telling(courses)
        if course is None or len(course.epochs) < 2:
            return None
        before, last = course.epochs[-2:]
        n_before, n = course.size(before), course.size(last)
        part = min(1.0, n / n_before) if n_before else 1.0
        # Before the first epoch a validation may have been, but no training.
        origin = min([1, *(epoch for one in courses if one.is_trained for epoch in one.epochs)])
        done = last - _began_in(courses, origin) + part
        elapsed = (datetime.now(UTC) - began).total_seconds()
        return elapsed / done * max(0.0, total - (last - origin) - part) if done > 0 else None

    def _courses(self, reader: Reader, attempt: int) -> list[_Course]:
        """What tells how far a start has come: rows, and scalars too where not each epoch has rows of train."""
        pairs = sorted(((mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode)), key=_order)
        found = []
        for pair in pairs:
            epochs = reader.epochs(*pair)
            places = [(epoch, reader.pieces(Place(*pair, epoch))) for epoch in epochs]
            own = [epoch for epoch, pieces in places if any(piece.attempt == attempt for piece in pieces)]
            size = partial(self._size, reader, pair)
            found.append(_Course(pair[0], epochs, own, size, is_trained=pair[0] == Mode.TRAIN))
        telling = _telling(found)
        if telling is not None and telling.is_trained and telling.step == 1:
            return found
        return sorted([*found, *_of_scalars(reader, attempt)], key=lambda one: one.mode != Mode.TRAIN)

    def _size(self, reader: Reader, pair: Pair, epoch: int) -> int:
        return sum(self._sizes(reader, pair, epoch))

    def _sizes(self, reader: Reader, pair: Pair, epoch: int) -> list[int]:
        """How many samples each pass of an epoch has, in order; read where the epoch is not looked at."""
        pieces = reader.pieces(Place(*pair, epoch))
        key = tuple(map(_key, pieces))
        known = self._epochs.get((pair, epoch))
        if known is not None and known.key == key:
            return [known.turns[turn].n for turn in sorted(known.turns)]
        if self._passes.get((pair, epoch), ((), []))[0] != key:
            parts = [frame for piece in pieces if (frame := reader.read(piece, [SAMPLE_ID, PASS])) is not None]
            every = pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame(schema=[PASS, SAMPLE_ID])
            counted = every.group_by(PASS).agg(pl.n_unique(SAMPLE_ID)).sort(PASS)
            self._passes[pair, epoch] = key, counted[SAMPLE_ID].to_list()
        return self._passes[pair, epoch][1]


def _telling(courses: Sequence[_Course]) -> _Course | None:
    """What tells best how far the last start has come: train where that keeps up, else what has the newest epoch."""
    own = [one for one in courses if one.own]
    newest = max((one.own[-1] for one in own), default=0)
    # A validation at the beginning of an epoch says less of it than the training that is to come.
    waits = (one.mode == Mode.TRAIN and one.step == 1 for one in own)
    return next((one for one, is_next in zip(own, waits, strict=True) if one.own[-1] + is_next >= newest), None)


def _began_in(courses: Sequence[_Course], origin: int) -> int:
    """The epoch in which the last start began; where not every epoch is recorded, the one after the last before it."""
    own = [one for one in courses if one.own]
    first = min(one.own[0] for one in own)
    step = min(one.step for one in own if one.own[0] == first)
    earlier = max((epoch for one in courses for epoch in one.epochs if epoch < first), default=origin - 1)
    return max(earlier + 1, first - step + 1)


def _of_scalars(reader: Reader, attempt: int) -> list[_Course]:
    """The scalars of each mode, by the epochs they were logged in."""
    epoch = pl.when(pl.col(AXIS) == EPOCH).then(pl.col(STEP)).otherwise(pl.col(EPOCH)).cast(pl.Int64).alias(EPOCH)
    rows = recorded_scalars(reader).with_columns(pl.struct(AXIS, STEP).alias("moment"), epoch).drop_nulls(EPOCH)
    found = []
    for mode in sorted(rows[MODE].unique()):
        of_mode = rows.filter(pl.col(MODE) == mode)
        sizes = dict(of_mode.group_by(EPOCH).agg(pl.col("moment").n_unique()).iter_rows())
        own = sorted(of_mode.filter(pl.col(ATTEMPT) == attempt)[EPOCH].unique())
        found.append(_Course(mode, sorted(sizes), own, sizes.__getitem__))
    return found


def not_yet(error: XaiError) -> str:
    """What a run lacks while it is trained: what the error says, and what is there."""
    return f"{error.message} yet" + (f" ({error.hint})" if error.hint else "")


def _order(pair: Pair) -> tuple[int, str]:
    modes = [mode.value for mode in Mode]
    return (modes.index(pair[0]) if pair[0] in modes else len(modes)), pair[1]


def _key(piece: Piece) -> _Key:
    """What a piece is: a file never changes, a live segment grows."""
    if piece.file is not None:
        return str(piece.file.path), piece.fence, None
    rows = 0 if piece.live is None else piece.live.num_rows
    return "live", (*piece.order, piece.fence), rows
