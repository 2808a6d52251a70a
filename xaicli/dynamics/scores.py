"""Scores for the highest and lowest samples by any statistic of the dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from xaicli.errors import unknown
from xaicli.queries.samples import LAST
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID

if TYPE_CHECKING:
    from xaicli.dynamics.computed import Statistics

_NO_SCORES = {SAMPLE_ID, LABEL, STALE}


def scores_by(
    reader: Reader, selection: Selection, stat: str, computed: Statistics | None = None
) -> dict[tuple[Pair, str], pl.DataFrame] | None:
    """The score of every sample by a statistic.

    Args:
        reader: The run.
        selection: Which rows.
        stat: A column of `dynamics`, whole (`confidence`) or without its metric (`mean` for `loss_mean`).
        computed: The pass over the epochs, when it has been made already.

    Returns:
        {((mode, ds_id), metric): sample_id, score (float64), stale}; samples without the statistic are left out.
        None for `last`, which `samples` finds without the dynamics.

    Raises:
        XaiError: There is no such statistic.
    """
    if stat == LAST:
        return None
    # A tenth of a second that the last value does not need.
    from xaicli.dynamics.computed import compute
    from xaicli.dynamics.statistics import dynamics

    # Ranks are half of the work: they are followed where they are the score, or where no statistic has that name.
    found = computed or compute(reader, selection, jumps=False)
    names = [name for metric in selection.metrics for name in (stat, f"{metric}_{stat}")]
    if computed is None and found.names.isdisjoint(names):
        found = compute(reader, selection)
    data = dynamics(reader, selection, computed=found).data
    numeric = [name for name, dtype in data.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
    scores = {}
    for metric in selection.metrics:
        column = f"{metric}_{stat}" if f"{metric}_{stat}" in numeric else stat
        if column not in numeric:
            short = [name.removeprefix(f"{metric}_") for name in numeric]
            raise unknown("statistic", stat, [name for name in short if name not in _NO_SCORES])
        score = pl.col(column).cast(pl.Float64).alias(SCORE)
        for mode, ds_id in selection.pairs:
            of_pair = data.filter(pl.col(MODE) == mode, pl.col(DS_ID) == ds_id)
            scores[(mode, ds_id), metric] = of_pair.select(SAMPLE_ID, score, STALE).drop_nulls(SCORE)
    return scores
