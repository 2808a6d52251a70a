"""What is asked of a training step by step: `steps`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.steps import (
    AROUND,
    batch_losses,
    enrichment,
    first_non_finite,
    loss_shares,
    mix,
    with_spikes,
)
from xaicli.dynamics.names import LabelNames
from xaicli.errors import UsageError, XaiError
from xaicli.queries.rows import within_labels
from xaicli.queries.samples import samples
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, PREDICTION, RANK, SAMPLE_ID, STEP

_SHOWN = 5
_LISTED = 20
_RETURNING = 20
_SURE = 0.05


def steps(reader: Reader, selection: Selection, *, spikes: int = 5, around: int | None = None) -> Answer:
    """The loss of every batch, and what stood in those that jumped.

    Args:
        reader: The run.
        selection: Which rows; the first of its metrics is the loss.
        spikes: How many spikes are told with their samples, the highest first.
        around: Only the steps within 50 of this one.

    Returns:
        A row a batch: mode, ds_id, epoch, step, rank, loss (mean of the finite values, null without any), n,
        non_finite, usual (the median about the step), height (robust deviations above it), is_spike. Further keys:
        `spikes` and `first_non_finite` (at most one a (mode, ds_id)), each with `samples` by share of the loss and the
        `mix` of its labels against the expected; `returning`, the samples that stand in spikes more often than chance
        would put them there (q <= 5 %).

    Raises:
        UsageError: `spikes` is negative.
        XaiError: There is no such step.
    """
    if spikes < 0:
        raise UsageError(f"--spikes must be non-negative, not {spikes}")
    metric = selection.metrics[0]
    names = LabelNames.of(reader, selection)
    tally = Tally()
    parts: list[pl.DataFrame] = []
    extra: dict[str, list[dict[str, Any]]] = {"spikes": [], "first_non_finite": [], "returning": []}
    for pair in selection.pairs:
        batches, seen, labels = _batches(reader, selection, pair, tally)
        if around is not None:
            near = batches.filter((pl.col(STEP) - around).abs() <= AROUND // 2)
            if not (near[STEP] == around).any():
                raise _no_step(around, batches)
        else:
            near = batches
        parts.append(near.select(pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), pl.all()))
        chosen = near.filter("is_spike").sort("height", STEP, descending=[True, False]).head(spikes)
        told = [("spikes", row) for row in chosen.iter_rows(named=True)]
        if (first := first_non_finite(near)) is not None:
            told.append(("first_non_finite", first))
        for key, row in told:
            rows = _of_batch(reader, selection, pair, row)
            extra[key].append({MODE: pair[0], DS_ID: pair[1], **row, **_contents(rows, metric, labels, names, _SHOWN)})
        if batches["is_spike"].any():
            found = _returning(reader, selection, pair, batches, seen)
            extra["returning"] += [{MODE: pair[0], DS_ID: pair[1], **row} for row in found.iter_rows(named=True)]
    return Answer(
        command="steps",
        run=str(reader.layout.root),
        selection={**selection.as_dict(), "spikes": spikes, "around": around},
        data=pl.concat(parts),
        counts=reader.counts(tally),
        warnings=selection.warnings,
        extra=extra,
    )


def samples_of_step(reader: Reader, selection: Selection, step: int) -> Answer:
    """The samples of one step by their share of its loss, with their histories.

    Args:
        reader: The run.
        selection: Which rows; the first of its metrics is the loss.
        step: The step.

    Returns:
        Rows mode, ds_id, epoch, step, rank, sample_id, label, prediction (as logged there), value, share, history. The
        key `mix` holds the step's labels against the expected, `batches` what `steps` says of it.

    Raises:
        XaiError: There is no such step.
    """
    metric = selection.metrics[0]
    names = LabelNames.of(reader, selection)
    tally = Tally()
    parts, extra = [], {"batches": [], "mix": []}  # type: ignore[var-annotated]
    known: list[pl.DataFrame] = []
    for pair in selection.pairs:
        batches, _, labels = _batches(reader, selection, pair, tally)
        known.append(batches)
        for row in batches.filter(pl.col(STEP) == step).iter_rows(named=True):
            rows = loss_shares(_of_batch(reader, selection, pair, row), metric)
            place = {MODE: pair[0], DS_ID: pair[1]}
            extra["batches"].append({**place, **row})
            extra["mix"] += [{**place, RANK: row[RANK], **item} for item in _mix(rows, labels, names)]
            parts.append(_with_histories(reader, selection, pair, row, rows))
    if not parts:
        raise _no_step(step, pl.concat(known))
    return Answer(
        command="steps",
        run=str(reader.layout.root),
        selection={**selection.as_dict(), "step": step},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=reader.counts(tally),
        warnings=selection.warnings,
        extra=extra,
    )


def _no_step(step: int, batches: pl.DataFrame) -> XaiError:
    known = sorted(batches[STEP].unique().to_list())
    near = min(known, key=lambda other: abs(other - step))
    return XaiError(
        f"no batch was logged at step {step}", hint=f"steps {known[0]} to {known[-1]} were; the nearest is {near}"
    )


def _frames(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    columns: list[str],
    epochs: list[int] | None = None,
    tally: Any = None,
) -> Iterator[Rows]:
    """The rows of each place as they were logged, NaN and infinities included."""
    limit = [selection.label_key] if selection.label_map else []
    wanted = [name for name in dict.fromkeys([*columns, *limit]) if name in reader.dtypes or name == RANK]
    for rows in reader.place_frames(
        *pair,
        wanted,
        list(selection.epochs[pair]) if epochs is None else epochs,
        duplicates=selection.duplicates,
        tally=tally,
        keep_non_finite=True,
    ):
        frame = within_labels(rows.frame, selection)
        if selection.label_key != LABEL and selection.label_key in frame.columns:
            frame = frame.drop(LABEL, strict=False).rename({selection.label_key: LABEL})
        yield rows._replace(frame=frame)


def _batches(
    reader: Reader, selection: Selection, pair: Pair, tally: Tally
) -> tuple[pl.DataFrame, pl.DataFrame, dict[Any, int]]:
    """Every batch with what is usual about it, how often each sample was in one, and how often each label."""
    metric, key = selection.metrics[0], selection.label_key
    parts, seen = [], []
    labels: dict[Any, int] = {}
    for rows in _frames(reader, selection, pair, [SAMPLE_ID, STEP, RANK, key, metric], tally=tally):
        frame = rows.frame.with_columns(pl.lit(rows.place.epoch, pl.Int32).alias(EPOCH))
        parts.append(batch_losses(frame, metric))
        seen.append(frame.group_by(SAMPLE_ID).agg(pl.len().cast(pl.Int64).alias("n")))
        if LABEL in frame.columns and not frame.schema[LABEL].is_nested():
            for value, n in frame[LABEL].value_counts().iter_rows():
                labels[value] = labels.get(value, 0) + n
    batches = with_spikes(pl.concat(parts).group_by(EPOCH, STEP, RANK).agg(_merged()).sort(EPOCH, STEP, RANK))
    counted = pl.concat(seen).group_by(SAMPLE_ID).agg(pl.col("n").sum())
    return batches, counted, labels


def _merged() -> list[pl.Expr]:
    """The batches of several passes that share a step, as one."""
    finite = pl.col("n") - pl.col("non_finite")
    mean = (pl.col("loss") * finite).sum() / pl.when(pl.col("loss").is_not_null()).then(finite).sum()
    return [pl.when(finite.sum() > 0).then(mean).alias("loss"), pl.col("n").sum(), pl.col("non_finite").sum()]


def _of_batch(reader: Reader, selection: Selection, pair: Pair, row: dict[str, Any]) -> pl.DataFrame:
    """The rows of one batch."""
    metric, key = selection.metrics[0], selection.label_key
    columns = [SAMPLE_ID, STEP, RANK, key, PREDICTION, metric]
    parts = [
        rows.frame.filter((pl.col(STEP) == row[STEP]) & (pl.col(RANK) == row[RANK]))
        for rows in _frames(reader, selection, pair, columns, [row[EPOCH]])
    ]
    return pl.concat(parts)


def _contents(rows: pl.DataFrame, metric: str, labels: dict[Any, int], names: LabelNames, top: int) -> dict[str, Any]:
    ordered = loss_shares(rows, metric).head(top)
    found = []
    for row in ordered.iter_rows(named=True):
        item = {SAMPLE_ID: row[SAMPLE_ID], "value": row[metric], "share": row["share"]}
        if LABEL in row and not isinstance(row[LABEL], list):
            item |= {LABEL: row[LABEL], "name": names[row[LABEL]]}
        if PREDICTION in row:
            item |= {PREDICTION: row[PREDICTION]}
        found.append(item)
    return {"samples": found, "mix": _mix(rows, labels, names)[:top]}


def _mix(rows: pl.DataFrame, labels: dict[Any, int], names: LabelNames) -> list[dict[str, Any]]:
    if LABEL not in rows.columns or rows.schema[LABEL].is_nested() or rows.schema[LABEL].is_float():
        return []
    everywhere = pl.DataFrame(
        {LABEL: list(labels), "n": list(labels.values())}, schema_overrides={LABEL: rows.schema[LABEL]}
    )
    return [
        {LABEL: item.value, "name": names[item.value], "n": item.n, "expected": item.expected}
        for item in mix(rows[LABEL], everywhere)
    ]


def _returning(
    reader: Reader, selection: Selection, pair: Pair, batches: pl.DataFrame, seen: pl.DataFrame
) -> pl.DataFrame:
    """The samples that stand in spikes surprisingly often."""
    spiked = batches.filter("is_spike").select(EPOCH, STEP, RANK)
    parts = []
    for epoch in spiked[EPOCH].unique().sort():
        at = spiked.filter(pl.col(EPOCH) == epoch)
        for rows in _frames(reader, selection, pair, [SAMPLE_ID, STEP, RANK], [epoch]):
            parts.append(rows.frame.join(at, on=[STEP, RANK], how="semi").select(SAMPLE_ID))
    found: pl.DataFrame = enrichment(
        seen, pl.concat(parts).group_by(SAMPLE_ID).agg(pl.len().cast(pl.Int64).alias("n_spikes"))
    )
    return found.filter(pl.col("q") <= _SURE).head(_RETURNING)


def _with_histories(
    reader: Reader, selection: Selection, pair: Pair, batch: dict[str, Any], rows: pl.DataFrame
) -> pl.DataFrame:
    """The samples of a batch, the first with their histories."""
    metric = selection.metrics[0]
    asked = replace(selection, pairs=(pair,), metrics=(metric,))
    ids = rows[SAMPLE_ID].unique(maintain_order=True).head(_LISTED).to_list()
    told = samples(reader, asked, max=0, min=0, ids=ids).data.select(SAMPLE_ID, "history")
    joined = rows.join(told, on=SAMPLE_ID, how="left", maintain_order="left")
    place = [pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), pl.lit(batch[EPOCH], pl.Int32).alias(EPOCH)]
    own = [name for name in (LABEL, PREDICTION) if name in joined.columns]
    value = pl.col(metric).cast(pl.Float64).alias("value")
    return joined.select(*place, STEP, RANK, SAMPLE_ID, *own, value, "share", "history")
