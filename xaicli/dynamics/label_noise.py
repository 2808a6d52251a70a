"""How many labels are probably wrong, label by label."""

from __future__ import annotations

from typing import Any

import polars as pl

from xaicli.diagnosis.confusion import wilson
from xaicli.dynamics.names import LabelNames
from xaicli.queries.selection import Pair
from xaicli.vocabulary import DS_ID, EL2N, LABEL, MODE

_FAR = 1.0
"""An error norm beyond which most of the probability went to one other label."""


def label_noise(frame: pl.DataFrame, pair: Pair, names: LabelNames) -> list[dict[str, Any]]:
    """The share of each label's samples whose probability went to one other label while the net was learning.

    The error norm, mean of the first `--early-epochs`, is above 1: the probabilities lie nearer to another label's
    corner than halfway. These epochs are hardly memorised. On digits with labels made wrong at random, and on pictures
    with labels by people, this is within 1 to 6 points of the true rate of a label once the net has learned something;
    it is too low for labels that were mistaken for the one the sample looks like most, and where many labels are wrong
    by one and the same rule (`benchmarks/findings.py`).

    Args:
        frame: One row a sample with label and `el2n`.
        pair: Their (mode, ds_id).
        names: Of the labels.

    Returns:
        Rows mode, ds_id, label, name, n, contradicted, rate, low, high (Wilson's 95 % interval: of drawing these
        samples, not of the method), the highest rate first. Empty without error norms, and where labels are no classes.
    """
    kind = frame.schema[LABEL]
    if EL2N not in frame.columns or kind.is_float() or kind.is_nested():
        return []
    known = frame.drop_nulls([LABEL, EL2N])
    far = (pl.col(EL2N) > _FAR).sum().cast(pl.Int64).alias("contradicted")
    counted = known.group_by(LABEL).agg(pl.len().cast(pl.Int64).alias("n"), far)
    ordered = counted.sort(pl.col("contradicted") / pl.col("n"), LABEL, descending=[True, False])
    rows = []
    for label, n, contradicted in ordered.iter_rows():
        low, high = wilson(contradicted, n)
        place = {MODE: pair[0], DS_ID: pair[1], LABEL: label, "name": names[label]}
        rows.append({**place, "n": n, "contradicted": contradicted, "rate": contradicted / n, "low": low, "high": high})
    return rows
