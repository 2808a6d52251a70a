"""Stored objects, without the model: matched again at another IoU, and their average precision by COCO's rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xaicli.collectors.objects import (
    Objects,
    Outcome,
    Overlaps,
    box_overlaps,
    decode,
    mask_overlaps,
    match,
    valid_threshold,
)
from xaicli.diagnosis.objects import precision_area
from xaicli.errors import XaiError
from xaicli.tables.metrics_table import EXAMPLE_ID

_BOX = ("x0", "y0", "x1", "y1")
_OF_OBJECT = frozenset(
    {"sample_id", "instance_id", "source", "label", "confidence", "iou", "match_id", "outcome", "iscrowd"}
    | {"iou_threshold", *_BOX, "height", "width", "counts"}
)
_NEEDED = (EXAMPLE_ID, "instance_id", "source", "label", "confidence", *_BOX)


def rematch(table: Any, iou_threshold: float) -> pa.Table:
    """Match the rows of a `boxes` or `instances` table again.

    Args:
        table: The rows, as Arrow or polars; a picture is one `example_id` with equal constants (epoch, split, ...).
        iou_threshold: The least IoU of a match, in (0, 1].

    Returns:
        The rows in their order, with `iou`, `match_id`, `outcome` and `iou_threshold` anew.

    Raises:
        XaiError: The rows are not those of objects.
    """
    threshold = valid_threshold(iou_threshold)
    rows = table.to_arrow() if hasattr(table, "to_arrow") else table
    if missing := [name for name in _NEEDED if name not in rows.column_names]:
        raise XaiError(
            f"the table has no column {missing[0]!r}: its rows are no objects",
            hint="give the table `boxes` of a BoundingBoxMetricsCollector; columns: " + ", ".join(rows.column_names),
        )
    anew: dict[str, list[Any]] = {
        "iou": [None] * rows.num_rows,
        "match_id": [None] * rows.num_rows,
        "outcome": [None] * rows.num_rows,
    }
    columns = {name: rows[name].to_numpy() for name in ("label", "confidence", "instance_id", "source")}
    crowd = rows["iscrowd"].to_numpy() if "iscrowd" in rows.column_names else np.zeros(rows.num_rows, bool)
    boxes = np.stack([rows[name].to_numpy() for name in _BOX], axis=1)
    for picture in _pictures(rows):
        is_truth = columns["source"][picture] == "gt"
        truth, predicted = picture[is_truth], picture[~is_truth]
        sides = [
            Objects(columns["label"][part], np.nan_to_num(columns["confidence"][part], nan=1.0), crowd[part])
            for part in (truth, predicted)
        ]
        overlaps = _overlaps(rows, boxes, truth, predicted, sides[0].crowd)
        found = match(sides[0], sides[1], overlaps, threshold)
        for part, others, iou, matched, outcome in (
            (truth, predicted, found.truth_iou, found.truth, found.truth_outcome),
            (predicted, truth, found.predicted_iou, found.predicted, found.predicted_outcome),
        ):
            for position, row in enumerate(part):
                anew["iou"][row] = float(iou[position])
                anew["outcome"][row] = str(outcome[position])
                if matched[position] >= 0:
                    anew["match_id"][row] = int(columns["instance_id"][others[matched[position]]])
    replaced: dict[str, Any] = {**anew, "iou_threshold": [threshold] * rows.num_rows}
    kinds = {"iou": pa.float32(), "match_id": pa.int32(), "outcome": pa.string(), "iou_threshold": pa.float32()}
    for name, values in replaced.items():
        field = rows.schema.field(name) if name in rows.column_names else pa.field(name, kinds[name])
        array = pa.array(values, kinds[name])
        position = rows.schema.get_field_index(name)
        field = field.with_type(kinds[name])
        rows = rows.append_column(field, array) if position < 0 else rows.set_column(position, field, array)
    return rows


def _pictures(rows: pa.Table) -> Iterator[NDArray[np.int64]]:
    """The row numbers of each picture."""
    keys = [name for name in rows.column_names if name not in _OF_OBJECT]
    plain = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in (rows[name] for name in keys)
    ]
    numbered = pa.table([*plain, pa.array(np.arange(rows.num_rows))], names=[*keys, "row"])
    groups = numbered.group_by(keys, use_threads=False).aggregate([("row", "list")])
    for group in groups["row_list"]:
        yield np.sort(np.asarray(group.values))


def _overlaps(
    rows: pa.Table, boxes: NDArray[Any], truth: NDArray[Any], predicted: NDArray[Any], crowd: NDArray[np.bool_]
) -> Overlaps:
    if "counts" not in rows.column_names or not len(truth) or not len(predicted):
        return box_overlaps(boxes[predicted], boxes[truth], crowd)
    return mask_overlaps(_masks(rows, predicted), _masks(rows, truth), crowd)


def _masks(rows: pa.Table, which: NDArray[Any]) -> NDArray[np.bool_]:
    chosen = pc.take(rows.select(["counts", "height", "width"]), pa.array(which)).to_pylist()
    return np.stack([decode(row["counts"], row["height"], row["width"]) for row in chosen])


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
        found[int(label)] = precision_area(columns["outcome"][order] == Outcome.TP, int((true & of_label).sum()))
    return found
