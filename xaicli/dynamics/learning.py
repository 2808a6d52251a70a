"""When samples were learned and forgotten, and the label each has."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.arrays import (
    MANY,
    NO_EPOCH,
    Array,
    GrowingArrays,
    Rows,
    Where,
    as_epochs,
    as_series,
    blocks,
    part,
    stored_epoch,
)


class Learning:
    """When a sample's prediction was right: forgetting after Toneva et al. 2019, correctness after Swayamdipta 2020.

    Args:
        most: No sample is observed more often.
        furthest: No epoch is further from 0.
    """

    def __init__(self, most: int = MANY, furthest: int = MANY) -> None:
        self._none = none = stored_epoch(furthest)
        count = np.min_scalar_type(-most).type(0)
        self._state = GrowingArrays(
            before=np.int8(-1),
            correctness=count,
            forgetting=count,
            first_learned=none,
            right_since=none,
        )

    def __getitem__(self, name: str) -> Array:
        return self._state[name]

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def update(self, where: Where, correct: NDArray[np.bool_], epoch: int) -> None:
        """Add whether each slot's prediction, (n,), was right at an epoch not before the last one."""
        state = self._state
        before = state["before"][where]
        state["correctness"][where] += correct
        state["forgetting"][where] += (before == 1) & ~correct
        turned = correct & (before != 1)
        if turned.any():
            since = state["right_since"][where]
            since[turned] = epoch
            state["right_since"][where] = since
            learned = state["first_learned"][where]
            learned[turned & (learned == self._none)] = epoch
            state["first_learned"][where] = learned
        state["before"][where] = correct

    def results(self) -> dict[str, Array]:
        """By slot: `correctness`, `forgetting`, `first_learned`, `learned_for_good` (NO_EPOCH for none), int32;
        `never_learned` and `judged`, whether there was any observation at all, bool. The state is used up.
        """
        state = self._state
        before, for_good = state.pop("before"), state.pop("right_since")
        for_good[before != 1] = self._none
        correctness = state.pop("correctness").astype(np.int32)
        return {
            "correctness": correctness,
            "forgetting": state.pop("forgetting").astype(np.int32),
            "never_learned": correctness == 0,
            "first_learned": as_epochs(state.pop("first_learned")),
            "learned_for_good": as_epochs(for_good),
            "judged": before >= 0,
        }


class LastLabel:
    """The last label of each sample that was not null: small whole numbers as they are, all others by a code."""

    def __init__(self) -> None:
        self._state = GrowingArrays(label=NO_EPOCH)
        self._codes: dict[Any, int] | None = None
        self._values: list[pl.Series] = []

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def update(self, rows: Rows, label: pl.Series) -> None:
        codes = self._coded(label).to_numpy()
        for block in blocks(rows.n):
            values = rows.of(codes, block)
            where = part(rows.where, block)
            known = values != NO_EPOCH
            if not known.all():
                where, values = part(where, known), values[known]
            self._state["label"][where] = values

    def _coded(self, label: pl.Series) -> pl.Series:
        if label.dtype == pl.Int32 and self._codes is None:
            return label.fill_null(int(NO_EPOCH)) if label.null_count() else label
        if self._codes is None:
            self._codes = {}
        named = _named(label)
        fresh = pl.DataFrame({"name": named, "value": label}).drop_nulls().unique("name", maintain_order=True)
        fresh = fresh.filter(~pl.col("name").is_in(list(self._codes)))
        self._codes |= {name: len(self._codes) + number for number, name in enumerate(fresh["name"])}
        self._values.append(fresh["value"])
        known = pl.Series(list(self._codes), dtype=named.dtype)
        places = pl.Series(list(self._codes.values()), dtype=pl.Int32)
        if len(known) == 0:
            return pl.repeat(int(NO_EPOCH), len(label), dtype=pl.Int32, eager=True)
        return named.replace_strict(known, places, default=int(NO_EPOCH), return_dtype=pl.Int32)

    def series(self, n: int) -> pl.Series:
        """(n,) labels by slot as they were recorded, null for none."""
        codes = as_series("label", self._state.pop("label")[:n])
        if self._codes is None:
            return codes
        return pl.concat(self._values).gather(codes).alias("label")


def _named(label: pl.Series) -> pl.Series:
    """The labels as something that can be looked up: sets of classes as text."""
    if not isinstance(label.dtype, pl.List):
        return label
    return pl.Series(
        label.name, label.to_frame().select(pl.first().cast(pl.List(pl.String)).list.join(" ")).to_series()
    )
