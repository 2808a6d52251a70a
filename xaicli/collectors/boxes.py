"""Object detection: one row for every true and every predicted object, matched; and counts for every picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from xaicli.collectors.collector import METRICS, MetricsCollector
from xaicli.collectors.objects import (
    RULE,
    AnnotationReader,
    Annotations,
    Matches,
    Outcome,
    box_overlaps,
    encode,
    mask_overlaps,
    match,
    valid_threshold,
)
from xaicli.collectors.outputs import PredictorOutput, labels_of
from xaicli.collectors.stored_objects import average_precision
from xaicli.tables.column import ColumnError
from xaicli.tables.metrics_table import EXAMPLE_ID
from xaicli.tables.schema import Bool, CategoricalLabel, Confidence, Float, Int, IoU, Schema, String

BOXES = "boxes"
_TYPES = {
    EXAMPLE_ID: pa.int64(),
    "instance_id": pa.int32(),
    "source": pa.string(),
    "label": pa.int32(),
    "confidence": pa.float64(),
    "iou": pa.float32(),
    "match_id": pa.int32(),
    "outcome": pa.string(),
    "iscrowd": pa.bool_(),
    "iou_threshold": pa.float32(),
    # In double precision as the confidence: matching the stored boxes again gives what matching the model's gave.
    "x0": pa.float64(),
    "y0": pa.float64(),
    "x1": pa.float64(),
    "y1": pa.float64(),
}
_MASK_TYPES = {"height": pa.int32(), "width": pa.int32(), "counts": pa.list_(pa.int32())}


class BoundingBoxMetricsCollector(MetricsCollector):
    """Matches predicted with true boxes by COCO's rule.

    The table `boxes` has one row a box: `instance_id` counts the picture's objects, true ones first; `source` is gt or
    pred; `match_id` is the matching object; `outcome` is tp, fp, fn or ignored (crowds), for true and predicted
    objects alike, so count tp over one source; `iou` is that of the match, else the largest with an object of the same
    class. `xaicli.rematch` matches the stored rows at another IoU. The table `metrics` gets `tp`, `fp`, `fn` and
    `mean_iou` (of the matches) for each picture; the run gets `precision`, `recall` and `average_precision`, the mean
    over the classes of `xaicli.average_precision`.

    The model's output and the labels are one dict a picture (boxes, labels, scores, iscrowd, as torchvision's detectors
    have them) or one list of COCO dicts a picture.

    Args:
        classes: The classes' names, by position or value.
        label_mapping: Class numbers of the annotations to those of `classes`.
        iou_threshold: The least IoU of a match.
        box_format: "xyxy", "xywh" or "cxcywh".
        preprocess_fn: Turns (batch, predictor output) into (truth, predictions), one of the above a picture.
        extra_metrics_fn: (truth, predictions) of the batch -> more columns of `metrics`.
    """

    with_masks = False

    def __init__(
        self,
        classes: Sequence[str] | Mapping[int, str],
        label_mapping: Mapping[int, int] | None = None,
        iou_threshold: float = 0.5,
        *,
        box_format: str = "xyxy",
        preprocess_fn: Callable[[Any, PredictorOutput], tuple[Any, Any]] | None = None,
        extra_metrics_fn: Callable[[Any, Any], Mapping[str, Any]] | None = None,
        compute_aggregates: bool = True,
    ) -> None:
        super().__init__(preprocess_fn, compute_aggregates)
        self.iou_threshold = valid_threshold(iou_threshold)
        self.extra_metrics_fn = extra_metrics_fn
        self.reader = AnnotationReader(box_format, label_mapping, self.with_masks)
        self._column_schemas: dict[str, Schema] = {
            "label": CategoricalLabel(classes=classes),
            "confidence": Confidence(description="of the prediction in its label; null for true objects"),
            "iou": IoU(description="with the match, else the largest with an object of the same class"),
            "outcome": String(description=f"tp, fp, fn or ignored. {RULE}"),
            "iou_threshold": Float(minimum=0.0, maximum=1.0, description="the least IoU of a match"),
            "iscrowd": Bool(),
            "mean_iou": IoU(description="of the matched objects"),
            "match_id": Int(description="instance_id of the matching object"),
            **{name: Float(unit="px") for name in ("x0", "y0", "x1", "y1")},
        }

    @property
    def table(self) -> str:
        """The name of the table of one row an object."""
        return BOXES

    def tables(self, batch: Any, predictor_output: PredictorOutput) -> Mapping[str, Mapping[str, Any]]:
        if self.preprocess_fn is not None:
            truth, predictions = self.preprocess_fn(batch, predictor_output)
        else:
            truth, predictions = labels_of(batch), predictor_output.forward
        example_id = predictor_output.example_id
        for what, given in (("truth", truth), ("predictions", predictions)):
            if not isinstance(given, Sequence) or len(given) != len(example_id):
                n = len(given) if isinstance(given, Sequence) else type(given).__name__
                raise ColumnError(
                    f"the {what} of {len(example_id)} pictures are {n}",
                    hint="one dict or list a picture; give a collate_fn that keeps lists, or a preprocess_fn",
                )
        rows = _Rows(self.iou_threshold, self.with_masks)
        for index, true, predicted in zip(example_id, truth, predictions, strict=True):
            rows.add(index, self.reader.read(true, predicted=False), self.reader.read(predicted, predicted=True))
        extra = dict(self.extra_metrics_fn(truth, predictions)) if self.extra_metrics_fn else {}
        return {self.table: rows.columns(), METRICS: rows.pictures() | extra}

    def doubts(self, tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
        rows = tables[self.table].to_pydict()
        corners = np.array([rows[name] for name in ("x0", "y0", "x1", "y1")], dtype=np.float64)
        finite = np.isfinite(corners).all(0)
        turned = int((finite & ((corners[2] < corners[0]) | (corners[3] < corners[1]))).sum())
        label = self._column_schemas["label"]
        known = label.names if isinstance(label, CategoricalLabel) else {}
        strange = sorted({n for n in rows["label"] if n not in known})
        said = {
            f"{(~finite).sum()} boxes hold a value that is not finite: they match nothing": not finite.all(),
            f"{turned} boxes end before they begin (x1 < x0 or y1 < y0): is box_format right?": turned,
            f"classes that have no name: {', '.join(map(str, strange[:5]))}": strange,
        }
        return tuple(text for text, holds in said.items() if holds)

    def aggregates(self, tables: Mapping[str, pa.Table]) -> dict[str, float]:
        counts = {name: sum(tables[METRICS][name].to_pylist()) for name in ("tp", "fp", "fn")}
        found, wanted = counts["tp"] + counts["fp"], counts["tp"] + counts["fn"]
        ratios = {"precision": counts["tp"] / found} if found else {}
        ratios |= {"recall": counts["tp"] / wanted} if wanted else {}
        by_label = average_precision(tables[self.table])
        ratios |= {"average_precision": sum(by_label.values()) / len(by_label)} if by_label else {}
        return super().aggregates(tables) | ratios


class InstanceMaskMetricsCollector(BoundingBoxMetricsCollector):
    """Matches predicted with true instance masks; `iou` is that of the masks.

    As `BoundingBoxMetricsCollector`, with masks (objects, height, width) besides. Probabilities above 0.5 are inside,
    and a mask without a box gets its own. The table `instances` also keeps the mask: `height`, `width`, and `counts`,
    the run lengths column by column as COCO writes them.
    """

    with_masks = True

    @property
    def table(self) -> str:
        return "instances"


class _Rows:
    """The rows of a batch as they are matched, picture by picture."""

    def __init__(self, threshold: float, with_masks: bool) -> None:
        self._threshold = threshold
        self._types = _TYPES | (_MASK_TYPES if with_masks else {})
        self._columns: dict[str, list[Any]] = {name: [] for name in self._types}
        self._pictures: dict[str, list[Any]] = {name: [] for name in ("tp", "fp", "fn", "mean_iou")}

    def add(self, example_id: int, truth: Annotations, predicted: Annotations) -> None:
        crowd = truth.objects.crowd
        if truth.masks is not None and predicted.masks is not None and len(truth.masks) and len(predicted.masks):
            if truth.masks.shape[1:] != predicted.masks.shape[1:]:
                raise ColumnError(f"true masks are {truth.masks.shape[1:]}, predicted {predicted.masks.shape[1:]}")
            overlaps = mask_overlaps(predicted.masks, truth.masks, crowd)
        else:
            # A box that is not finite overlaps nothing.
            overlaps = np.nan_to_num(box_overlaps(predicted.boxes, truth.boxes, crowd), nan=0.0, posinf=0.0)
        found = match(truth.objects, predicted.objects, overlaps, self._threshold)
        n_truth = len(crowd)
        self._add_objects(example_id, "gt", truth, found.truth_outcome, found.truth_iou, found.truth, 0, n_truth)
        self._add_objects(
            example_id, "pred", predicted, found.predicted_outcome, found.predicted_iou, found.predicted, n_truth, 0
        )
        self._add_picture(found)

    def columns(self) -> dict[str, Any]:
        """The rows of one object each."""
        return {name: pa.array(values, self._types[name]) for name, values in self._columns.items()}

    def pictures(self) -> dict[str, Any]:
        """The rows of one picture each."""
        kinds = {"mean_iou": pa.float32()}
        return {name: pa.array(values, kinds.get(name, pa.int32())) for name, values in self._pictures.items()}

    def _add_objects(
        self,
        example_id: int,
        source: str,
        objects: Annotations,
        outcomes: list[Outcome],
        iou: np.ndarray[Any, Any],
        matched: np.ndarray[Any, Any],
        first: int,
        first_match: int,
    ) -> None:
        for position, outcome in enumerate(outcomes):
            values: dict[str, Any] = {
                EXAMPLE_ID: example_id,
                "instance_id": first + position,
                "source": source,
                "label": int(objects.objects.label[position]),
                "confidence": float(objects.objects.confidence[position]) if source == "pred" else None,
                "iou": float(iou[position]),
                "match_id": first_match + int(matched[position]) if matched[position] >= 0 else None,
                "outcome": str(outcome),
                "iscrowd": bool(objects.objects.crowd[position]),
                "iou_threshold": self._threshold,
                **dict(zip(("x0", "y0", "x1", "y1"), objects.boxes[position].tolist(), strict=True)),
            }
            if objects.masks is not None:
                height, width = objects.masks.shape[1:]
                values |= {"height": height, "width": width, "counts": encode(objects.masks[position])}
            for name, column in self._columns.items():
                column.append(values[name])

    def _add_picture(self, found: Matches) -> None:
        hits = [i for i, outcome in enumerate(found.predicted_outcome) if outcome is Outcome.TP]
        self._pictures["tp"].append(len(hits))
        self._pictures["fp"].append(found.predicted_outcome.count(Outcome.FP))
        self._pictures["fn"].append(found.truth_outcome.count(Outcome.FN))
        self._pictures["mean_iou"].append(float(found.predicted_iou[hits].mean()) if hits else None)
