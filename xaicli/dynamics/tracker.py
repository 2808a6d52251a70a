"""One pass over the epochs of one (mode, ds_id): every sample's statistics in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, Future

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.arrays import NO_EPOCH, Array, Rows, blocks, distinct_rows, part
from xaicli.dynamics.ids import IdIndex
from xaicli.dynamics.learning import LastLabel, Learning
from xaicli.dynamics.metrics import MetricSums, sample_std
from xaicli.dynamics.plan import Plan
from xaicli.dynamics.ranks import RankJumps
from xaicli.dynamics.regions import named
from xaicli.dynamics.times import Times
from xaicli.vocabulary import CORRECT, EL2N, LABEL_PROB, LOSS, MARGIN, SAMPLE_ID

_GROWTH = 1.25
_SUMMARY = ("last", "first", "mean", "min", "max", "std", "slope")


class Tracker:
    """Takes the epochs in order, gives one row a sample.

    Args:
        plan: What to find out.
        workers: What runs the parts of an epoch.
    """

    def __init__(self, plan: Plan, workers: Executor) -> None:
        self._plan = plan
        self._workers = workers
        self._index = IdIndex()
        self._capacity = 0
        self._times = Times()
        self._sums: dict[str, MetricSums] = {}
        self._own_times: dict[str, Times] = {}
        self._learning = Learning() if plan.judged_by else None
        self._label = LastLabel()
        self._jumps = RankJumps(plan.burn_in) if plan.jumps else None
        self._last_epoch = int(NO_EPOCH)
        self.accuracy: dict[int, float] = {}
        """The share of right predictions on the labels given, by epoch."""

    def add(self, epoch: int, frame: pl.DataFrame) -> None:
        """Take the rows of one epoch, in any order; samples may be missing, new, or there more than once."""
        self._last_epoch = epoch
        slots = self._index.slots(frame[SAMPLE_ID])
        columns = self._metric_columns(frame)
        self._grow()
        judged = self._judged(epoch, frame)
        label = frame[self._plan.label] if self._plan.label in frame.columns else None
        for rows in distinct_rows(slots, len(frame), len(self._index)):
            self._add_rows(epoch, rows, columns, judged)
            if label is not None:
                self._label.update(rows, label)

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
            if not np.isfinite(values).all():
                self._own_times.setdefault(name, self._times.copy())
        return columns

    def _judged(self, epoch: int, frame: pl.DataFrame) -> NDArray[np.int8] | None:
        """1 right, 0 wrong, -1 unknown."""
        if not self._plan.judged_by:
            return None
        if self._plan.judged_by == (CORRECT,):
            right = frame[CORRECT]
        else:
            label, prediction = (frame[name] for name in self._plan.judged_by)
            right = label == prediction
        if (share := right.mean()) is not None:
            self.accuracy[epoch] = float(share)  # type: ignore[arg-type]
        judged: NDArray[np.int8] = right.cast(pl.Int8).fill_null(-1).to_numpy()
        return judged

    def _grow(self) -> None:
        if len(self._index) <= self._capacity:
            return
        self._capacity = max(len(self._index), int(self._capacity * _GROWTH))
        followed = (self._times, self._label, self._learning, self._jumps)
        for state in (*followed, *self._sums.values(), *self._own_times.values()):
            if state is not None:
                state.grow(self._capacity)

    def _add_rows(self, epoch: int, rows: Rows, columns: Mapping[str, Array], judged: NDArray[np.int8] | None) -> None:
        tasks: list[Future[None]] = []
        if self._jumps is not None and rows.last:
            tasks.append(self._workers.submit(self._follow_ranks, self._jumps, epoch, rows, columns))
        every = list(blocks(rows.n))
        half = (len(every) + 1) // 2
        for some in (every[:half], every[half:]):
            tasks.append(self._workers.submit(self._add_blocks, epoch, rows, some, columns, judged))
        for task in tasks:
            task.result()

    def _follow_ranks(self, jumps: RankJumps, epoch: int, rows: Rows, columns: Mapping[str, Array]) -> None:
        name = self._plan.metrics[0]
        values = columns[name] if rows.rows is None else columns[name][rows.rows]
        where = rows.where
        if name in self._own_times:
            finite = np.isfinite(values)
            values, where = values[finite], part(where, finite)
        jumps.update(where, values, epoch)

    def _add_blocks(
        self,
        epoch: int,
        rows: Rows,
        some: list[slice],
        columns: Mapping[str, Array],
        judged: NDArray[np.int8] | None,
    ) -> None:
        for block in some:
            where = part(rows.where, block)
            time = self._times.update(where, epoch)
            observed = self._times.n[where]
            for name, column in columns.items():
                values = rows.of(column, block)
                if name in self._own_times:
                    finite = np.isfinite(values)
                    there = part(where, finite)
                    own_time = self._own_times[name].update(there, epoch)
                    self._sums[name].update(there, values[finite], own_time, observed[finite])
                else:
                    self._sums[name].update(where, values, time, observed)
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
            `sample_id`, `label`, `n_obs`, `stale`, the summaries of each metric wanted, and of `confidence`,
            `variability`, `correctness`, `forgetting`, `never_learned`, `first_learned`, `learned_for_good`, `aum`,
            `el2n`, `ema`, `rank_jump`, `rank_jump_epoch`, `rank_jump_direction`, `rank_from`, `rank_to` those that the
            columns allow; `loss_mean` and `el2n_mean`, over all epochs, wherever there is a loss or an el2n. Null where
            no value was finite.
        """
        n = len(self._index)
        ids = self._index.ids
        order = None if ids.is_sorted() else ids.arg_sort().to_numpy()
        table = _Assembly(n, order)
        table.add_series(SAMPLE_ID, ids)
        table.add_series("label", self._label.series(n))
        table.add("n_obs", self._times.n)
        table.add("stale", self._times.last != self._last_epoch)
        for name in list(self._sums):
            self._add_results(table, name)
        if self._learning is not None:
            found = self._learning.results()
            judged = found.pop("judged")
            for name, values in found.items():
                table.add(name, values, where=judged)
        if self._jumps is not None:
            found = self._jumps.results()
            rises = found.pop("rises")
            jumped = ~np.isnan(found["rank_jump"])
            for name, values in found.items():
                table.add(name, values)
            direction = np.where(jumped, rises, -1).astype(np.int8)[:n]
            table.add_series("rank_jump_direction", named(direction, ("down", "up")))
        return pl.DataFrame(table.columns)

    def _add_results(self, table: _Assembly, name: str) -> None:
        times = self._own_times.pop(name, self._times)
        found = self._sums.pop(name).results(times)
        if name == LABEL_PROB:
            table.add("confidence", found["mean"])
            table.add("variability", np.sqrt(found["variance"]), where=times.n > 0)
        elif name == MARGIN:
            table.add("aum", found["mean"])
        elif name == EL2N:
            table.add("el2n", found.pop("early"))
            table.add("el2n_mean", found["mean"])
        elif name == LOSS:
            table.add("ema", found.pop("ema"))
            table.add("loss_mean", found["mean"])
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
        """Add a column by slot; NaN, NO_EPOCH and all but `where` become null."""
        series = pl.Series(name, values[: self._n])
        if series.dtype.is_float():
            series = series.fill_nan(None)
        elif values.dtype == np.int32 and name.endswith(("_learned", "_for_good", "_epoch")) and len(series):
            series = series.set(series == int(NO_EPOCH), None)
        self.add_series(name, series, where=where)

    def add_series(self, name: str, series: pl.Series, *, where: NDArray[np.bool_] | None = None) -> None:
        if where is not None and not where[: self._n].all():
            series = series.set(pl.Series(~where[: self._n]), None)
        if self._order is not None:
            series = series.gather(self._order)
        self.columns[name] = series.alias(name)
