"""What is asked of a run in this room: `confusion`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.calibration import Calibration, calibration, probability_scores
from xaicli.diagnosis.confusion import (
    Overall,
    by_class,
    confusion_counts,
    exact_sets,
    label_figures,
    overall_figures,
    set_counts,
)
from xaicli.dynamics.names import LabelNames
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.rows import walk
from xaicli.queries.samples import samples
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import (
    CORRECT,
    DS_ID,
    EPOCH,
    LABEL,
    MODE,
    NO_CLASS,
    PASS,
    PREDICTION,
    PROBS,
    SAMPLE_ID,
    STEP,
    TOP_PROB,
)
from xaicli.words import split

_MOST_GROUPS = 50
_NEEDS = "log them with run.log_samples(..., label=..., logits=...)"


def confusion(reader: Reader, selection: Selection, *, by: str | None = None) -> Answer:
    """Who is taken for whom at every selected place, and how sure the model is at the last.

    Args:
        reader: The run.
        selection: Which rows; its label map limits the samples to some labels and names them.
        by: A column whose every value gets figures and counts of its own at the last place.

    Returns:
        Rows mode, ds_id, epoch, pass, step, label, name, n, n_predicted, n_right, precision, recall, f1 (0 where
        undefined), undefined. Further keys: `overall`, the figures of every place; `cells`, the counts by (label,
        prediction) of the last place of each (mode, ds_id); `calibration` and `probabilities` of that place; and
        `by`, the overall figures and cells of each value. A label that is a set of classes counts for each class:
        in its cells the prediction of what was missed is null, and the label of what was predicted without being
        there (both named "(none)"); right overall is who has exactly its set, and there is no `mcc`.

    Raises:
        XaiError: The run has no labels or predictions, they are numbers, or there is no such column.
        UsageError: `by` has more than 50 values.
    """
    refuse_other_tasks(reader, selection.label_key, by)
    columns = [name for name in (SAMPLE_ID, PREDICTION, TOP_PROB, CORRECT, by) if name and name in reader.dtypes]
    names = LabelNames.of(reader, selection)
    tally = Tally()
    labels: list[pl.DataFrame] = []
    extra: dict[str, list[dict[str, Any]]] = {
        "overall": [],
        "cells": [],
        "calibration": [],
        "probabilities": [],
        "by": [],
    }
    for pair in selection.pairs:
        last: Rows | None = None
        for rows in _labelled(reader, selection, pair, columns, tally=tally):
            _, table, overall = _counted(rows.frame)
            labels.append(_placed(table, pair, rows, names))
            if overall is not None:
                ece = _calibration(rows.frame, resamples=0)
                extra["overall"].append({**_place(pair, rows), **_figures(overall), "ece": ece and ece.ece})
                last = rows
        if last is not None:
            _of_last(reader, selection, pair, last, by, names, extra)
    data = pl.concat(labels, how="vertical_relaxed") if labels else _no_rows()
    if not extra["overall"]:
        raise XaiError(f"{reader.layout.root} has no sample with both a label and a prediction here", hint=_NEEDS)
    return Answer(
        command="confusion",
        run=str(reader.layout.root),
        selection={**{key: value for key, value in selection.as_dict().items() if key != "metric"}, "by": by},
        data=data,
        counts=reader.counts(tally),
        warnings=selection.warnings,
        extra={key: value for key, value in extra.items() if value or key != "by"},
    )


def cell_samples(reader: Reader, selection: Selection, cell: str, *, top: int = 20) -> Answer:
    """The samples of one cell at the last place of each (mode, ds_id), with their histories.

    Args:
        reader: The run.
        selection: Which rows; the first of its metrics orders the samples, the highest first.
        cell: LABEL,PREDICTION as values or names.
        top: At most how many of each (mode, ds_id); how many there are is in the key `n`.

    Returns:
        Rows as `samples` gives them of listed ids.

    Raises:
        UsageError: The cell is not two labels, or `top` is less than 1.
        XaiError: A label does not occur, or the cell is empty.
    """
    refuse_other_tasks(reader, selection.label_key)
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    ends = split(cell)
    if len(ends) != 2:
        raise UsageError(f"--cell {cell!r} is not LABEL,PREDICTION", hint="--cell cat,dog")
    found = {pair: ids for pair in selection.pairs if (ids := _in_cell(reader, selection, pair, ends))}
    if not found:
        raise XaiError(
            f"no sample of {ends[0]} is taken for {ends[1]} at the last epoch selected",
            hint="see the counts: xai confusion",
        )
    answers = [
        samples(reader, replace(selection, pairs=(pair,)), max=0, min=0, ids=ids[:top]) for pair, ids in found.items()
    ]
    parts = []
    for (_, ids), part in zip(found.items(), answers, strict=True):
        order = pl.DataFrame(
            {SAMPLE_ID: ids, "place": range(len(ids))}, schema_overrides={SAMPLE_ID: part.data.schema[SAMPLE_ID]}
        )
        parts.append(part.data.join(order, on=SAMPLE_ID, how="left").sort("place", maintain_order=True).drop("place"))
    n = [{MODE: mode, DS_ID: ds_id, "n": len(ids)} for (mode, ds_id), ids in found.items()]
    options = {"cell": cell, "top": top}
    return replace(
        answers[0],
        command="confusion",
        selection={**selection.as_dict(), **options},
        data=pl.concat(parts),
        counts=reader.counts(),
        extra={"n": n},
    )


def _counted(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, Overall | None]:
    """The counts of a place, the figures of each label, and those of all."""
    are_sets = isinstance(frame.schema[LABEL], pl.List)
    counts = set_counts(by_class(frame)) if are_sets else confusion_counts(frame)
    table = label_figures(counts)
    return counts, table, overall_figures(counts, table, exact=exact_sets(frame) if are_sets else None)


def _in_cell(reader: Reader, selection: Selection, pair: Pair, ends: list[str]) -> list[Any]:
    """The samples of a cell at the last place of a (mode, ds_id), the highest value of the metric first."""
    metric = selection.metrics[0]
    columns = [SAMPLE_ID, PREDICTION, metric]
    rows = next(_labelled(reader, selection, pair, columns, epochs=selection.epochs[pair][-1:], backwards=True), None)
    if rows is None:
        return []
    frame = rows.frame.with_columns(pl.col(metric).cast(pl.Float64).alias("worst"))
    kept = (SAMPLE_ID, "worst")
    are_sets = isinstance(frame.schema[LABEL], pl.List)
    pairs = by_class(frame, kept) if are_sets else frame.select(LABEL, PREDICTION, *kept)
    names = LabelNames.of(reader, selection)
    known: dict[str, Any] = {NO_CLASS: None} if are_sets else {}
    for value in pl.concat([pairs[LABEL], pairs[PREDICTION]]).drop_nulls().unique().sort():
        known |= {names[value]: value, str(value): value}
    for end in ends:
        if end not in known:
            raise unknown("label", end, list(known), where=str(reader.layout.root))
    is_one = [
        pl.col(name).is_null() if known[end] is None else pl.col(name) == known[end]
        for name, end in zip((LABEL, PREDICTION), ends, strict=True)
    ]
    chosen = pairs.filter(is_one)
    ordered = chosen.sort("worst", SAMPLE_ID, descending=[True, False], nulls_last=True)
    return ordered[SAMPLE_ID].unique(maintain_order=True).to_list()


def _labelled(reader: Reader, selection: Selection, pair: Pair, columns: list[str], **walked: Any) -> Iterator[Rows]:
    """The rows of each place, the column of the label key as `label`."""
    key = selection.label_key
    for rows in walk(reader, selection, pair, list(dict.fromkeys([key, *columns])), **walked):
        frame = rows.frame
        if key != LABEL:
            frame = frame.drop(LABEL, strict=False).with_columns(pl.col(key).alias(LABEL))
        yield rows._replace(frame=frame)


def refuse_other_tasks(reader: Reader, key: str = LABEL, by: str | None = None) -> None:
    """Say why a run has no confusions.

    Raises:
        XaiError: It has no labels or predictions, they are numbers, or there is no column `by`.
    """
    where = str(reader.layout.root)
    for name, logged in ((key, "label=..."), (PREDICTION, "logits=... or prediction=...")):
        if name not in reader.dtypes:
            raise XaiError(f"{where} has no {name}s", hint=f"log them with run.log_samples(..., {logged})")
    if reader.dtypes[PREDICTION].is_float():
        raise XaiError(
            f"{where} predicts numbers, which are not confused with one another",
            hint="see the residuals: xai samples --metric abs_error",
        )
    if key == PREDICTION or _kind(reader.dtypes[key]) is not _kind(reader.dtypes[PREDICTION]):
        raise UsageError(
            f"--label-key {key} cannot be held against the predictions of {where}",
            hint="it takes a column of true classes of the predictions' kind, such as label",
        )
    if by is not None and by not in reader.dtypes:
        raise unknown("column", by, list(reader.dtypes), where=where)


def _kind(dtype: pl.DataType) -> type[pl.DataType]:
    """What a column's classes are: whole numbers of any width, or what its type says."""
    return pl.Int64 if dtype.is_integer() else type(dtype)


def _of_last(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    rows: Rows,
    by: str | None,
    names: LabelNames,
    extra: dict[str, list[dict[str, Any]]],
) -> None:
    """What only the last place is asked for."""
    place = _place(pair, rows)
    counts, _, _ = _counted(rows.frame)
    extra["cells"] += [{**place, **cell} for cell in _cells(counts, names)]
    found = _calibration(rows.frame.sort(SAMPLE_ID))
    if found is not None:
        extra["calibration"].append({**place, **_calibration_facts(found)})
    scores = _probabilities(reader, selection, pair, rows)
    if scores is not None:
        extra["probabilities"].append({**place, **scores})
    if by is None:
        return
    values = rows.frame[by].unique().sort()
    if len(values) > _MOST_GROUPS:
        raise UsageError(
            f"--by {by} has {len(values):,} values", hint=f"a matrix each of at most {_MOST_GROUPS} is shown"
        )
    for value in values:
        part = rows.frame.filter(pl.col(by).eq_missing(pl.lit(value, rows.frame.schema[by])))
        counted, _, overall = _counted(part)
        if overall is not None:
            facts = {"column": by, "value": names[value] if by in (LABEL, PREDICTION) else value}
            extra["by"].append({**place, **facts, **_figures(overall), "cells": _cells(counted, names)})


def _cells(counts: pl.DataFrame, names: LabelNames) -> list[dict[str, Any]]:
    named = {None: NO_CLASS, **{value: names[value] for value in counts[LABEL].append(counts[PREDICTION]).drop_nulls()}}
    return [
        {"label": label, "prediction": taken, "name": named[label], "prediction_name": named[taken], "n": n}
        for label, taken, n in counts.iter_rows()
    ]


def _placed(table: pl.DataFrame, pair: Pair, rows: Rows, names: LabelNames) -> pl.DataFrame:
    named = pl.Series("name", [names[label] for label in table[LABEL]], pl.String)
    where = [pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), *rows.times]
    return table.select(*where, pl.col(LABEL), named, pl.exclude(LABEL))


def _place(pair: Pair, rows: Rows) -> dict[str, Any]:
    place = rows.place
    return {MODE: pair[0], DS_ID: pair[1], EPOCH: place.epoch, PASS: place.turn, STEP: rows.step}


def _figures(found: Overall) -> dict[str, Any]:
    return {**vars(found), "accuracy_interval": list(found.accuracy_interval)}


def _calibration(frame: pl.DataFrame, resamples: int | None = None) -> Calibration | None:
    if not {TOP_PROB, CORRECT} <= set(frame.columns):
        return None
    sure = frame[TOP_PROB].cast(pl.Float64).to_numpy()
    right = frame[CORRECT].cast(pl.Float64).to_numpy()
    return calibration(sure, right) if resamples is None else calibration(sure, right, resamples=resamples)


def _calibration_facts(found: Calibration) -> dict[str, Any]:
    bins = [{"n": n, "top_prob": sure, "accuracy": right} for n, sure, right in found.bins]
    return {
        "n": found.n,
        "ece": found.ece,
        "ece_interval": list(found.ece_interval),
        "mce": found.mce,
        "mce_interval": list(found.mce_interval),
        "over_confidence": found.over_confidence,
        "bins": bins,
    }


def _probabilities(reader: Reader, selection: Selection, pair: Pair, rows: Rows) -> dict[str, Any] | None:
    """Figures of the whole probabilities, where the run keeps them."""
    if PROBS not in reader.dtypes or not reader.dtypes[selection.label_key].is_integer():
        return None
    place = rows.place
    kept = next(_labelled(reader, selection, pair, [PROBS], epochs=[place.epoch], backwards=True), None)
    if kept is None:
        return None
    frame = kept.frame.drop_nulls([LABEL, PROBS])
    widths = frame[PROBS].list.len()
    if frame.is_empty() or widths.n_unique() != 1:
        return None
    probs = np.asarray(frame[PROBS].cast(pl.List(pl.Float32)).list.to_array(int(widths[0])).to_numpy(), np.float64)
    scores = probability_scores(probs, frame[LABEL].to_numpy().astype(np.int64))
    if scores is None:
        return None
    per_class = [
        {"label": number, "auroc": _finite(a), "average_precision": _finite(p)}
        for number, (a, p) in enumerate(zip(scores.auroc, scores.average_precision, strict=True))
    ]
    return {"n": scores.n, "brier": scores.brier, "log_loss": scores.log_loss, "one_against_rest": per_class}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _no_rows() -> pl.DataFrame:
    times = {EPOCH: pl.Int32(), PASS: pl.Int16(), STEP: pl.Int64()}
    counts = dict.fromkeys(("n", "n_predicted", "n_right"), pl.Int64())
    figures = dict.fromkeys(("precision", "recall", "f1"), pl.Float64())
    label = {LABEL: pl.Int32(), "name": pl.String()}
    places = {MODE: pl.String(), DS_ID: pl.String(), **times}
    return pl.DataFrame(schema={**places, **label, **counts, **figures, "undefined": pl.List(pl.String)})
