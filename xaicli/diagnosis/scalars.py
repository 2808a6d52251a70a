"""The scalars that were logged beside the batches of a training."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from xaicli.diagnosis.steps import AROUND
from xaicli.queries.recorded import (
    AXIS,
    COUNTER,
    KEY,
    TRAINING_AXES,
    VALUE,
    LeftOut,
    Preferred,
    counted_on,
    going_on,
    of_preferred_attempt,
    preferred,
    recorded_scalars,
    start_again,
)
from xaicli.queries.selection import Pair
from xaicli.reader import Reader
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, STEP, Attempts

_AT = "at"
_OF_BATCHES = "_of_batches"
_SEVERAL = 3
"""Of fewer steps in an epoch nothing says how they are counted: they may be those at its beginning alone."""
_COUNTED = "what was logged without a step and an epoch has no more than its count in the run"


@dataclass(frozen=True)
class ScalarsBeside:
    """The scalars of a mode and dataset, or of none, and where they stand among the batches.

    Attributes:
        rows: key, mode, ds_id, epoch, step, axis, value, attempt, rank, logged at training steps; of one key by moment.
        of_epochs: Likewise those logged at an epoch alone, which hold for it.
        offsets: Of each key that can stand beside the batches, what to add to the steps of each epoch.
        apart: Keys that cannot, each with the reason.
        order: Which attempt counts where several may have logged one moment; None where none may.
        moments: The epoch and step of every batch that was logged.
        left_out: Values of the run beside those that count, such as another rank's at the same moments.
    """

    rows: pl.DataFrame
    of_epochs: pl.DataFrame
    offsets: Mapping[str, Mapping[int, int]]
    apart: Mapping[str, str]
    order: Preferred | None
    moments: pl.DataFrame
    left_out: LeftOut

    @classmethod
    def of(cls, reader: Reader, pair: Pair, moments: pl.DataFrame) -> ScalarsBeside:
        """Those of a run.

        Args:
            reader: The run.
            pair: The mode and the dataset.
            moments: The epoch and step of every batch that was logged, not only of those that are asked about: these
                alone do not tell whether steps start again with the epochs.
        """
        near = pl.col(MODE).is_in([pair[0], ""]) & pl.col(DS_ID).is_in([pair[1], ""])
        left_out = LeftOut()
        known = recorded_scalars(reader, left_out).filter(near).sort(KEY, maintain_order=True)
        rows, of_epochs = known.filter(pl.col(AXIS).is_in(TRAINING_AXES)), known.filter(pl.col(AXIS) == EPOCH)
        offsets: dict[str, Mapping[int, int]] = {}
        counted = known.filter(pl.col(AXIS) == COUNTER)[KEY].unique(maintain_order=True)
        apart: dict[str, str] = dict.fromkeys(counted, _COUNTED)
        for (key,), own in rows.group_by(KEY, maintain_order=True):
            if why := _counts_otherwise(own, moments):
                apart[str(key)] = why
            elif start_again(moments) or start_again(own):
                offsets[str(key)] = counted_on(pl.concat([moments, own.select(EPOCH, STEP)]))
            else:
                offsets[str(key)] = {}
        order = preferred(reader) if reader.which_attempts is Attempts.ALL else None
        return cls(rows, of_epochs, offsets, apart, order, moments, left_out)

    def at(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Each scalar at a batch, or the last before it, and its median over the steps around.

        Then those of the batch's epoch, whose step and median are null.

        What another attempt than the batch's logged at a moment that the batch's own, or one before it, logged too does
        not count.
        """
        rows, of_epochs, found = self.rows, self.of_epochs.filter(pl.col(EPOCH) == batch[EPOCH]), []
        if self.order is not None:
            until_then = pl.col(ATTEMPT) <= batch[ATTEMPT]
            order = replace(self.order, first=batch[ATTEMPT])
            rows, of_epochs = (of_preferred_attempt(each.filter(until_then), order) for each in (rows, of_epochs))
        for (key,), own in rows.group_by(KEY, maintain_order=True):
            if (offsets := self.offsets.get(str(key))) is None:
                continue
            here = batch[STEP] + offsets.get(batch[EPOCH], 0)
            own = own.with_columns(going_on(offsets).alias(_AT)).drop_nulls(_AT).sort(_AT, maintain_order=True)
            until = own.filter(pl.col(_AT) <= here).tail(1)
            if until.height:
                around = own.filter((pl.col(_AT) - here).abs() <= AROUND // 2)[VALUE]
                usual = around.filter(around.is_finite()).median()
                found.append({KEY: key, **until.select(EPOCH, STEP, VALUE).row(0, named=True), "usual": usual})
        for (key,), own in of_epochs.group_by(KEY, maintain_order=True):
            found.append({KEY: key, EPOCH: batch[EPOCH], STEP: None, VALUE: own[VALUE][-1], "usual": None})
        return found

    def one_a_moment(self) -> pl.DataFrame:
        """Those of a step that stand beside batches; of several attempts, those of the one that counts."""
        rows = self.rows.filter(~pl.col(KEY).is_in(list(self.apart)))
        return rows if self.order is None else of_preferred_attempt(rows, self.order)

    def non_finite(self, around: int | None = None, left_out: Collection[int] = ()) -> list[dict[str, Any]]:
        """Where each scalar was NaN or infinite, of the steps within 50 of one or of all: first, last and how often.

        Of all, one that was logged at an epoch alone is among them; its steps are null.

        Args:
            around: The step; None for all.
            left_out: Epochs that are not asked about. The epoch of a scalar that was logged at a step alone is that of
                the batch there, where the steps of the batches do not start again with the epochs.

        Returns:
            key, epoch and step (the first time), n (values that are not finite), last_epoch and last_step,
            counts_otherwise (whether the steps are not those of the batches).
        """
        of_epochs = self.of_epochs.with_columns(pl.lit(None, pl.Int64).alias(STEP))
        odd = pl.concat([self.rows, of_epochs]).filter(~pl.col(VALUE).is_finite())
        if left_out:
            steps = self.moments if not start_again(self.moments) else self.moments.clear()
            known = dict(zip(steps[STEP], steps[EPOCH], strict=True))
            epoch = pl.coalesce(EPOCH, pl.col(STEP).replace_strict(known, default=None, return_dtype=pl.Int64))
            odd = odd.filter(~epoch.is_in(list(left_out)).fill_null(False))
        if around is not None:
            odd = odd.filter((pl.col(STEP) - around).abs() <= AROUND // 2)
        return (
            odd.group_by(KEY, AXIS, maintain_order=True)
            .agg(
                pl.col(EPOCH, STEP).first(),
                pl.len().cast(pl.Int64).alias("n"),
                pl.col(EPOCH, STEP).last().name.prefix("last_"),
            )
            .sort(KEY, maintain_order=True)
            .with_columns((pl.col(KEY).is_in(list(self.apart)) & (pl.col(AXIS) != EPOCH)).alias("counts_otherwise"))
            .drop(AXIS)
            .to_dicts()
        )

    def warnings(self, where: str = "") -> list[str]:
        """Which values do not count, and which scalars stand beside no batch, and why.

        Args:
            where: The mode and dataset in words, where the run has others, whose batches they may stand beside.
        """
        whys: dict[str, list[str]] = {}
        for key, why in self.apart.items():
            whys.setdefault(why, []).append(key)
        return self.left_out.warnings() + [
            f"{', '.join(keys)} {'stands' if len(keys) == 1 else 'stand'} beside no batch"
            f"{f' of {where}' if where and why != _COUNTED else ''}: {why}"
            for why, keys in whys.items()
        ]


def _counts_otherwise(own: pl.DataFrame, moments: pl.DataFrame) -> str:
    """Why the steps of a scalar are not those of the batches; "" where they may be."""
    theirs, batches = _by_epoch(own), _by_epoch(moments)
    both = theirs.join(batches, on=EPOCH, suffix=_OF_BATCHES, maintain_order="left")
    several = both.height > 1 and int(both["n"].max()) >= _SEVERAL  # type: ignore[arg-type]
    if not start_again(moments):
        if start_again(own) and moments[EPOCH].n_unique() > 1:
            return "the steps it was logged at start again with the epochs, and those of the batches go on"
        if _of_other_epochs(theirs, batches):
            return "the batches at steps it was logged at are of other epochs than it"
    else:
        if own[EPOCH].null_count() == own.height:
            return "the steps of the batches start again with the epochs, and no epoch was logged with it"
        # What is logged behind the last batch of an epoch may be a step further.
        is_further = own[STEP].max() > moments[STEP].max() + 1  # type: ignore[operator]
        if is_further or (several and (both["first"] > both["last"].shift(1)).all()):
            return "the steps of the batches start again with the epochs, and those it was logged at go on"
        if several and (2 * both["last"] <= both["first" + _OF_BATCHES] + both["last" + _OF_BATCHES]).all():
            return (
                "in each epoch the steps it was logged at end before the middle of those of the batches, as optimizer "
                "steps do where gradients accumulate"
            )
    if _are_elsewhere(own, both):
        return "most steps it was logged at lie outside of those of the batches of their epoch"
    return ""


def _by_epoch(moments: pl.DataFrame) -> pl.DataFrame:
    """The first and the last step of each epoch that is known, and n, how many there are; by epoch."""
    step = pl.col(STEP)
    steps = (step.min().alias("first"), step.max().alias("last"), step.n_unique().cast(pl.Int64).alias("n"))
    return moments.select(pl.col(EPOCH).cast(pl.Int64), STEP).drop_nulls().group_by(EPOCH).agg(steps).sort(EPOCH)


def _of_other_epochs(theirs: pl.DataFrame, batches: pl.DataFrame) -> bool:
    """Whether a step of an epoch lies among those of the batches of earlier or later ones, not only at their end."""
    epochs, first, last = (batches[name].to_list() for name in (EPOCH, "first", "last"))
    for epoch, begin, end in theirs.select(EPOCH, "first", "last").iter_rows():
        before, behind = bisect_left(epochs, epoch), bisect_right(epochs, epoch)
        if (before > 0 and begin < last[before - 1]) or (behind < len(epochs) and end > first[behind]):
            return True
    return False


def _are_elsewhere(own: pl.DataFrame, both: pl.DataFrame) -> bool:
    """Whether most steps lie outside of those of their epoch's batches, of epochs with no more steps than batches."""
    among = both.filter((pl.col("n" + _OF_BATCHES) >= _SEVERAL) & (pl.col("n") <= pl.col("n" + _OF_BATCHES)))
    rows = own.select(pl.col(EPOCH).cast(pl.Int64), STEP).join(among, on=EPOCH)
    begin, end = pl.col("first" + _OF_BATCHES) - 1, pl.col("last" + _OF_BATCHES) + 1
    outside = rows.select(~pl.col(STEP).is_between(begin, end)).to_series()
    return bool(rows.height) and 2 * int(outside.sum()) > rows.height
