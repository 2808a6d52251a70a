"""One pass over the epochs of one (mode, ds_id): every sample's statistics in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, Future

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.arrays import NO_EPOCH, Array, IdIndex, Rows, Where, as_series, blocks, distinct_rows, joined, part
from xaicli.dynamics.learning import LastLabel, Learning, Times
from xaicli.dynamics.metrics import MEMORISED, MetricSums, Plan, sample_std, stale_of
from xaicli.dynamics.ranks import RankJumps
from xaicli.dynamics.regions import named, on_map
from xaicli.queries.truth import is_right
from xaicli.vocabulary import EL2N, LABEL_PROB, LOSS, MARGIN, SAMPLE_ID

_GROWTH = 1.25
_SUMMARY = ("last", "first", "mean", "min", "max", "std", "slope")


class Tracker:
    """Takes the epochs in order, gives one row a sample.

    Args:
        plan: What to find out.
        helper: What follows the ranks of one epoch while the next is taken; one thread suffices.
    """

    def __init__(self, plan: Plan, helper: Executor) -> None:
        self._plan = plan
        self._helper = helper
        self._index = IdIndex.of(plan.id_type)
        self._capacity = 0
        self._times = Times()
        self._sums: dict[str, MetricSums] = {}
        self._own_times: dict[str, Times] = {}
        self._learning = Learning(plan.most, plan.furthest) if plan.judged_by else None
        self._label = LastLabel()
        self._jumps = RankJumps(plan.burn_in, plan.furthest) if plan.jumps else None
        self._to_rank: list[tuple[Where, Array]] = []
        self._ranking: Future[None] | None = None
        self._last_epoch = int(NO_EPOCH)
        self._taken = 0
        self._right: dict[int, list[list[int]]] = {}
        self._is_settled = False

    @property
    def accuracy(self) -> dict[int, float]:
        """The share of right predictions on the labels given, by epoch: of its last pass that says."""
        return {epoch: right / known for epoch, (right, known) in self.judged.items()}

    @property
    def judged(self) -> dict[int, tuple[int, int]]:
        """How many predictions are right and of how many, by epoch: of its last pass that says."""
        return {epoch: (right, known) for epoch, passes in self._right.items() for right, known in passes if known}

    def reserve(self, n: int) -> None:
        """Make room for so many samples at once: cheaper than growing."""
        if not self._capacity:
            self._grow(n)
            self._index.reserve(n)

    def add(self, epoch: int, frame: pl.DataFrame, *, complete: bool = True) -> None:
        """Take rows of one epoch, in any order; samples may be missing, new, or there more than once.

        Args:
            epoch: Not before the last one.
            frame: The columns of the plan. Where an epoch comes in several frames, no sample is in two of them.
            complete: Whether these are the last rows of the epoch.
        """
        if epoch != self._last_epoch:
            self._settle()
        self._last_epoch = epoch
        slots = self._index.slots(frame[SAMPLE_ID], after=self._taken)
        columns = self._metric_columns(frame)
        if len(self._index) > self._capacity:
            self._grow(max(len(self._index), int(self._capacity * _GROWTH)))
        judged = self._judged(epoch, frame)
        label = frame[self._plan.label] if self._plan.label in frame.columns else None
        for rows in distinct_rows(slots, len(frame), len(self._index)):
            for block in blocks(rows.n):
                self._add_block(epoch, rows, block, columns, judged)
            if label is not None:
                self._label.update(rows, label)
            if self._jumps is not None and rows.last:
                self._to_rank.append(self._ranked_by(rows, columns))
        self._taken = 0 if complete else self._taken + len(frame)
        if complete:
            for times in (self._times, *self._own_times.values()):
                times.complete(len(self._index))
            if self._jumps is not None:
                self._follow_ranks(self._jumps, epoch)

    def _settle(self) -> None:
        """Tell the sums once the epoch before had nearly all labels right."""
        if not self._is_settled and self.accuracy.get(self._last_epoch, 0.0) >= MEMORISED:
            self._is_settled = True
            shared = self._times.n.astype(np.int32)
            for name, sums in self._sums.items():
                sums.settle(self._own_times[name].n.astype(np.int32) if name in self._own_times else shared)

    def _metric_columns(self, frame: pl.DataFrame) -> dict[str, Array]:
        """The metrics as float arrays, NaN for null; from the first gap on a metric has its own times."""
        columns: dict[str, Array] = {}
        for name, parts in self._plan.parts().items():
            series = frame[name]
            if not series.dtype.is_float():
                series = series.cast(pl.Float64)
            columns[name] = values = series.to_numpy()
            if name not in self._sums:
                self._sums[name] = MetricSums(parts, values.dtype)
                self._sums[name].grow(self._capacity)
            if not np.isfinite(values).all() and name not in self._own_times:
                self._own_times[name] = self._times.copy()
        return columns

    def _judged(self, epoch: int, frame: pl.DataFrame) -> NDArray[np.int8] | None:
        """1 right, 0 wrong, -1 unknown."""
        if not self._plan.judged_by:
            return None
        right = _right(frame, self._plan.judged_by)
        judged = _codes(right)
        # What is memorised are the labels given, whatever a prediction is held against.
        given = right if self._plan.given_by == self._plan.judged_by else _right(frame, self._plan.given_by)
        passes = self._right.setdefault(epoch, [])
        if not self._taken:
            passes.append([0, 0])
        so_far = passes[-1]
        so_far[0] += int(np.count_nonzero(judged == 1)) if given is right else int(_codes(given).clip(0).sum())
        so_far[1] += len(given) - given.null_count()
        return judged

    def _grow(self, capacity: int) -> None:
        self._wait()
        self._capacity = capacity
        followed = (self._times, self._label, self._learning, self._jumps)
        for state in (*followed, *self._sums.values(), *self._own_times.values()):
            if state is not None:
                state.grow(capacity)

    def _wait(self) -> None:
        """Until the ranks of the epoch before are done."""
        if self._ranking is not None:
            self._ranking.result()
            self._ranking = None

    def _ranked_by(self, rows: Rows, columns: Mapping[str, Array]) -> tuple[Where, Array]:
        """Slots and finite values of the metric whose ranks are followed."""
        name = self._plan.metrics[0]
        values = columns[name] if rows.rows is None else columns[name][rows.rows]
        if name not in self._own_times:
            return rows.where, values
        finite = np.isfinite(values)
        return part(rows.where, finite), values[finite]

    def _follow_ranks(self, jumps: RankJumps, epoch: int) -> None:
        self._wait()
        where, values = joined(self._to_rank)
        self._to_rank = []
        self._ranking = self._helper.submit(jumps.update, where, values, epoch)

    def _add_block(
        self, epoch: int, rows: Rows, block: slice, columns: Mapping[str, Array], judged: NDArray[np.int8] | None
    ) -> None:
        where = part(rows.where, block)
        time = self._times.update(where, epoch)
        observed = self._times.observed(where)
        for name, column in columns.items():
            values = rows.of(column, block)
            if name in self._own_times:
                finite = np.isfinite(values)
                there = part(where, finite)
                own = self._own_times[name]
                own_time = own.update(there, epoch)
                self._sums[name].update(there, values[finite], own_time, observed[finite], own.observed(there))
            else:
                self._sums[name].update(where, values, time, observed, observed)
        if judged is not None and self._learning is not None:
            right = rows.of(judged, block)
            known = right >= 0
            if known.all():
                self._learning.update(where, right.view(np.bool_), epoch)
            else:
                self._learning.update(part(where, known), right[known] == 1, epoch)

    def frame(self) -> pl.DataFrame:
        """One row a sample, by id; the tracker is used up.

        Returns:
            `sample_id`, `label`, `n_obs`, `stale` (a metric asked for has no finite value in the last epoch; with
            several also `stale_of` each), the summaries of each metric wanted, and of `confidence`,
            `variability`, `correctness`, `forgetting`, `never_learned`, `first_learned`, `learned_for_good`, `aum`,
            `el2n`, `ema`, `rank_jump`, `rank_jump_epoch`, `rank_jump_direction`, `rank_from`, `rank_to`, `region`
            those that the columns allow; `loss_mean`, and `loss_recent`, `el2n_recent` and `aum_recent`, the means in
            which late epochs count for more, wherever there is such a metric. Null where no value was finite.
        """
        self._wait()
        if self._jumps is not None:
            self._jumps.end()
        n = len(self._index)
        ids = self._index.ids
        order = None if self._index.ascend else ids.arg_sort().to_numpy()
        table = _Assembly(n, order)
        table.add_series(SAMPLE_ID, ids)
        table.add_series("label", self._label.series(n))
        table.add("n_obs", self._times.n.astype(np.int32))
        self._add_stale(table)
        for name in list(self._sums):
            self._add_results(table, name)
        # Before the results that need more room than what they come from.
        regions = on_map(table.columns)
        if self._learning is not None:
            found = self._learning.results()
            judged = found.pop("judged")
            for name, values in found.items():
                table.add(name, values, where=judged)
        if self._jumps is not None:
            found = self._jumps.results()
            rises = found.pop("rises")
            direction = rises[:n].astype(np.int8)
            direction[np.isnan(found["rank_jump"][:n])] = -1
            for name, values in found.items():
                table.add(name, values)
            table.add_series("rank_jump_direction", named(direction, ("down", "up")))
        return pl.DataFrame({**table.columns, **regions})

    def _add_stale(self, table: _Assembly) -> None:
        """Which samples have no finite value in the last epoch, of each metric asked for and of any of them."""
        each = {name: self._own_times.get(name, self._times).last != self._last_epoch for name in self._plan.metrics}
        # Of a run without metrics: which are absent.
        table.add("stale", np.logical_or.reduce(list(each.values()) or [self._times.last != self._last_epoch]))
        if len(each) > 1:
            for name, stale in each.items():
                table.add(stale_of(name), stale)

    def _add_results(self, table: _Assembly, name: str) -> None:
        times = self._own_times.pop(name, self._times)
        found = self._sums.pop(name).results(times)
        if name == LABEL_PROB:
            table.add("confidence", found["mean"])
            # In the variance's place, unless that is wanted.
            spare = None if name in self._plan.metrics else found["variance"]
            table.add("variability", np.sqrt(found["variance"], out=spare), where=times.n > 0)
        elif name == MARGIN:
            table.add("aum", found["mean"])
            table.add("aum_recent", found.pop("recent"))
        elif name == EL2N:
            table.add("el2n", found.pop("early"))
            table.add("el2n_recent", found.pop("recent"))
        elif name == LOSS:
            table.add("ema", found.pop("ema"))
            table.add("loss_mean", found["mean"])
            table.add("loss_recent", found.pop("recent"))
        if name in self._plan.metrics:
            found["std"] = sample_std(found.pop("variance"), times.n)
            for statistic in _SUMMARY:
                table.add(f"{name}_{statistic}", found.pop(statistic), where=times.n > 0)


class _Assembly:
    """The columns of the result, cut to the samples there are and put in their order."""

    def __init__(self, n: int, order: Array | None) -> None:
        self.columns: dict[str, pl.Series] = {}
        self._n = n
        self._order = order

    def add(self, name: str, values: Array, *, where: NDArray[np.bool_] | None = None) -> None:
        """Add a column by slot, in the memory where it lies; NaN, NO_EPOCH and all but `where` become null."""
        self.add_series(name, as_series(name, values[: self._n]), where=where)

    def add_series(self, name: str, series: pl.Series, *, where: NDArray[np.bool_] | None = None) -> None:
        if where is not None and not where[: self._n].all():
            series = series.set(pl.Series(~where[: self._n]), None)
        if self._order is not None:
            series = series.gather(self._order)
        self.columns[name] = series.alias(name)


def _right(frame: pl.DataFrame, by: tuple[str, ...]) -> pl.Series:
    """Whether each prediction was right, by columns that a plan names for it; null for unknown."""
    return frame[by[0]] if len(by) == 1 else frame.select(is_right(by[0], frame.schema[by[0]])).to_series()


def _codes(right: pl.Series) -> NDArray[np.int8]:
    """1 right, 0 wrong, -1 unknown."""
    whole = right.cast(pl.Int8)
    return (whole.fill_null(-1) if whole.null_count() else whole).to_numpy()
