"""Average precision of matched objects, by COCO's rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xaicli.collectors.matching import Outcome
from xaicli.collectors.rematching import rematch

_RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(table: Any, iou_thresholds: Sequence[float] = ()) -> dict[int, float]:
    """The average precision of every class that has true objects, over all pictures of the table.

    At each of 101 recalls from 0 to 1 the highest precision at that recall or above, in the order of falling
    confidence; crowds and what matches them do not count (Lin et al., "Microsoft COCO", 2014, and its evaluation code,
    without its limit of 100 objects a picture).

    Args:
        table: The rows of `boxes` or `instances`, as Arrow or polars.
        iou_thresholds: The mean over these, matching anew at each (`numpy.arange(0.5, 1, 0.05)` is COCO's AP); as the
            rows are matched when empty.

    Returns:
        {label: average precision in [0, 1]}.

    Raises:
        XaiError: The rows are not those of objects.
    """
    rows = table.to_arrow() if hasattr(table, "to_arrow") else table
    found = [_of_matched(rematch(rows, threshold)) for threshold in iou_thresholds] or [_of_matched(rows)]
    return {label: sum(by_label[label] for by_label in found) / len(found) for label in found[0]}


def _of_matched(rows: pa.Table) -> dict[int, float]:
    columns = {name: np.asarray(rows[name].to_pylist()) for name in ("label", "source", "outcome")}
    confidence = np.asarray(rows["confidence"].to_numpy(), np.float64)
    counted = columns["outcome"] != Outcome.IGNORED
    true = (columns["source"] == "gt") & counted
    found = {}
    for label in np.unique(columns["label"][true]):
        of_label = columns["label"] == label
        predicted = np.flatnonzero(of_label & counted & (columns["source"] == "pred"))
        order = predicted[np.argsort(-confidence[predicted], kind="stable")]
        found[int(label)] = _area(columns["outcome"][order] == Outcome.TP, int((true & of_label).sum()))
    return found


def _area(hits: NDArray[np.bool_], n_true: int) -> float:
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / n_true, _RECALLS, side="left")
    return float(np.where(places < len(hits), highest[np.minimum(places, len(hits) - 1)], 0.0).mean())
