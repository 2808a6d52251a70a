"""Several runs over time: the mean of the same metric and labels at every epoch, and the same samples at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from xaicli.queries.compare import joined_at_end, shared
from xaicli.queries.labels import labels
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.walk import walk
from xaicli.reader import Reader
from xaicli.vocabulary import CORRECT, EPOCH, PASS, SAMPLE_ID

_MOST_SAMPLES = 3000
"""Samples of a picture; of more every k-th."""


@dataclass(frozen=True)
class Course:
    """One (mode, ds_id, metric) of several runs, for their pictures.

    Attributes:
        pair: mode and ds_id.
        metric: The metric.
        means: For each run epoch (int32), pass (int16) and mean (float64, null where no value is finite), over all
            samples.
        labels: For each run name, epoch, pass, mean and n of each label; empty where it has no labels.
        samples: sample_id, first and last (float64: the value in the first and the last run), first_correct and
            last_correct (bool, nullable), of the samples that have both, at most a few thousand, evenly chosen.
    """

    pair: Pair
    metric: str
    means: tuple[pl.DataFrame, ...]
    labels: tuple[pl.DataFrame, ...]
    samples: pl.DataFrame


def courses(readers: Sequence[Reader], **select: Any) -> list[Course]:
    """What `compare` shows at the last epoch, at all of them.

    Args:
        readers: The runs, in order.
        select: What `resolve` takes.

    Raises:
        XaiError: As `compare`.
    """
    found = shared(readers, **select)
    return [
        _course(readers, [replace(s, pairs=(pair,), metrics=(metric,)) for s in found.selections], pair, metric)
        for pair in found.pairs
        for metric in found.metrics
    ]


def _course(readers: Sequence[Reader], selections: Sequence[Selection], pair: Pair, metric: str) -> Course:
    both = list(zip(readers, selections, strict=True))
    at_end = joined_at_end((readers[0], readers[-1]), (selections[0], selections[-1]), pair, metric)
    samples = at_end.select(
        SAMPLE_ID,
        pl.col("value0").alias("first"),
        pl.col("value1").alias("last"),
        pl.col(f"{CORRECT}0").alias("first_correct"),
        pl.col(f"{CORRECT}1").alias("last_correct"),
    ).drop_nulls(["first", "last"])
    stride = -(-samples.height // _MOST_SAMPLES) or 1
    return Course(
        pair,
        metric,
        tuple(_means(reader, selection, pair, metric) for reader, selection in both),
        tuple(_labels(reader, selection) for reader, selection in both),
        samples.sort(SAMPLE_ID).gather_every(stride),
    )


def _means(reader: Reader, selection: Selection, pair: Pair, metric: str) -> pl.DataFrame:
    places = walk(reader, selection, pair, [metric])
    rows = [(rows.place.epoch, rows.place.turn, rows.frame[metric].cast(pl.Float64).mean()) for rows in places]
    return pl.DataFrame(rows, schema={EPOCH: pl.Int32(), PASS: pl.Int16(), "mean": pl.Float64()}, orient="row")


def _labels(reader: Reader, selection: Selection) -> pl.DataFrame:
    wanted = ["name", EPOCH, PASS, "mean", "n"]
    if selection.label_key not in reader.dtypes:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.Null()))
    return labels(reader, selection, bounds="none").data.select(wanted)
