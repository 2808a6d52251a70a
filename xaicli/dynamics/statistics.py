"""`xai dynamics`: every training-dynamics statistic of every sample."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import polars as pl

from xaicli.answer import Answer
from xaicli.dynamics.computed import NEEDS, Statistics, compute
from xaicli.dynamics.metrics import stale_of
from xaicli.dynamics.truth import score_rankings
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.samples import LAST
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.tasks import never_recorded
from xaicli.queries.truth import told_by_label
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, LABEL, LOSS, MODE, SAMPLE_ID

if TYPE_CHECKING:
    from xaicli.dynamics.computed import Statistics


_SUMMARIES = ("last", "first", "mean", "min", "max", "std", "slope")
_JUMP = ("rank_jump", "rank_jump_epoch", "rank_jump_direction")


def dynamics(
    reader: Reader,
    selection: Selection,
    *,
    early_epochs: int = 10,
    burn_in: int = 2,
    truth: str | os.PathLike[str] | None = None,
    computed: Statistics | None = None,
) -> Answer:
    """Every training-dynamics statistic of every sample.

    Args:
        reader: The run.
        selection: Which rows.
        early_epochs: `el2n` is the mean over so many first observations of a sample.
        burn_in: Changes of rank that end in one of so many first epochs do not count.
        truth: A CSV, Parquet, JSON or JSON-lines file with `sample_id` and `label` (the true one) or `mislabelled`
            (0/1); scores every ranking of suspects against it.
        computed: The pass over the epochs, when it has been made already; the two options above are then its.

    Returns:
        One row a sample, by mode, ds_id and id: mode, ds_id, sample_id, label, n_obs, stale, and the statistics; those
        that the recorded columns do not allow are absent and named in a warning.

    Raises:
        UsageError: An option makes no sense.
        XaiError: The truth cannot be read or does not fit the run.
    """
    found = computed or compute(reader, selection, early_epochs=early_epochs, burn_in=burn_in)
    extra: dict[str, Any] = {}
    warnings = list(found.warnings)
    if truth is not None:
        extra["truth"], said = score_rankings(reader, selection, found, truth)
        warnings += said
    data = pl.concat([_public(found, selection, pair) for pair in selection.pairs], how="diagonal")
    if "correctness" in data.columns:
        warnings += told_by_label(reader, selection.label_key)
    return Answer(
        command="dynamics",
        run=reader.layout.described,
        selection={
            **selection.as_dict(),
            "early_epochs": found.early_epochs,
            "burn_in": found.burn_in,
            "truth": None if truth is None else os.fspath(truth),
        },
        data=data,
        counts=found.counts(reader),
        warnings=tuple(warnings),
        extra=extra,
    )


def _public(found: Statistics, selection: Selection, pair: Pair) -> pl.DataFrame:
    """The columns that are shown, in their order."""
    frame = found.frames[pair]
    summaries = [f"{metric}_{name}" for metric in selection.metrics for name in _SUMMARIES]
    statistics = [name for names in NEEDS.values() for name in names]
    order = [SAMPLE_ID, LABEL, "n_obs", "stale", *summaries, *statistics, *_JUMP]
    origin = [pl.lit(value).alias(name) for name, value in zip((MODE, DS_ID), pair, strict=True)]
    return frame.select(*origin, *(name for name in order if name in frame.columns))


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
    if not isinstance(stat, str):
        raise UsageError(f"--stat is one statistic, not {stat!r}", hint="--stat mean")
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
            _refuse_unrecorded(reader, stat)
            short = [name.removeprefix(f"{metric}_") for name in numeric]
            known = [name for name in short if name not in _NO_SCORES]
            raise unknown("statistic", stat, known, most=len(known))
        score = pl.col(column).cast(pl.Float64).alias(SCORE)
        for mode, ds_id in selection.pairs:
            of_pair = data.filter(pl.col(MODE) == mode, pl.col(DS_ID) == ds_id).select(SAMPLE_ID, score, STALE)
            if stale_of(metric) in (frame := found.frames[mode, ds_id]).columns:
                of_pair = of_pair.with_columns(frame[stale_of(metric)].alias(STALE))
            scores[(mode, ds_id), metric] = of_pair.drop_nulls(SCORE)
    return scores


def _refuse_unrecorded(reader: Reader, stat: str) -> None:
    """Say of a statistic that exists what it needs of the run.

    Raises:
        XaiError: There is such a statistic, and the run lacks its column.
    """
    for column, names in NEEDS.items():
        if stat in names and column not in reader.dtypes:
            hint = "log it with run.log_samples(..., label=..., logits=...)"
            if why := never_recorded(reader, column):
                hint = f"{why}: --stat {LOSS}_mean" if LOSS in reader.dtypes else f"{why}: --stat mean"
            raise XaiError(f"{reader.described} has no {column}, which --stat {stat} needs", hint=hint)
