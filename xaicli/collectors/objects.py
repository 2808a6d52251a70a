"""The objects of a picture in one form, however they are written down; and which predicted one is which true one.

Run lengths are read here and not by pycocotools, which takes a text that breaks off for a mask of random memory.

The matching is COCO's. Within each class, predictions in the order of falling confidence take the free true object they
overlap most, if by the threshold at least; of equal overlaps the later. One that finds none may fall on a crowd region,
which any number of predictions may, and counts as neither right nor wrong (Lin et al. 2014, arXiv:1405.0312, and its
published evaluation code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import UsageError, unknown
from xaicli.tables.column import ColumnError

Overlaps = NDArray[np.float64]
RULE = "COCO: by falling confidence, each takes the free ground truth of its class with the largest IoU >= threshold"


class Outcome(StrEnum):
    """What became of an object."""

    TP = "tp"
    FP = "fp"
    FN = "fn"
    IGNORED = "ignored"
    """A crowd region, or a prediction on one."""


@dataclass(frozen=True)
class Objects:
    """The objects of one picture, true or predicted.

    Attributes:
        label: (N,) class numbers.
        confidence: (N,), 1 for true objects.
        crowd: (N,) whether it stands for a group; False for predicted objects.
    """

    label: NDArray[np.int64]
    confidence: NDArray[np.float64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """Who matched whom.

    Attributes:
        truth: (T,) the position of each true object's prediction, -1 without one (a crowd region has none of its own).
        predicted: (P,) the position of each prediction's true object, -1 without one.
        truth_outcome: (T,) tp, fn or ignored.
        predicted_outcome: (P,) tp, fp or ignored.
        truth_iou: (T,) overlap with its prediction, else the largest with one of the same class.
        predicted_iou: (P,) overlap with its true object, else the largest with one of the same class.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth_outcome: list[Outcome]
    predicted_outcome: list[Outcome]
    truth_iou: Overlaps
    predicted_iou: Overlaps


def match(truth: Objects, predicted: Objects, overlaps: Overlaps, threshold: float) -> Matches:
    """Match one picture's objects.

    Args:
        overlaps: (P, T) IoU of predictions with true objects.
        threshold: The least IoU of a match, in (0, 1].
    """
    n_predicted, n_truth = overlaps.shape
    same = predicted.label[:, None] == truth.label[None, :]
    to_truth = np.full(n_predicted, -1)
    to_predicted = np.full(n_truth, -1)
    fits = same & (overlaps >= min(threshold, 1 - 1e-10))
    for p in np.argsort(-predicted.confidence, kind="stable"):
        free = np.flatnonzero(fits[p] & ~truth.crowd & (to_predicted < 0))
        candidates = free if len(free) else np.flatnonzero(fits[p] & truth.crowd)
        if len(candidates):
            # The last of the largest.
            t = candidates[::-1][overlaps[p, candidates[::-1]].argmax()]
            to_truth[p] = t
            if not truth.crowd[t]:
                to_predicted[t] = p
    best = np.where(same, overlaps, 0.0)
    found_p, found_t = np.flatnonzero(to_truth >= 0), np.flatnonzero(to_predicted >= 0)
    predicted_iou = best.max(axis=1, initial=0.0)
    predicted_iou[found_p] = overlaps[found_p, to_truth[found_p]]
    truth_iou = best.max(axis=0, initial=0.0)
    truth_iou[found_t] = overlaps[to_predicted[found_t], found_t]
    return Matches(
        to_predicted,
        to_truth,
        [_of_truth(bool(c), bool(m >= 0)) for c, m in zip(truth.crowd, to_predicted, strict=True)],
        [_of_prediction(int(t), truth.crowd) for t in to_truth],
        truth_iou,
        predicted_iou,
    )


def valid_threshold(iou_threshold: float) -> float:
    """The threshold, checked.

    Raises:
        UsageError: It is not in (0, 1].
    """
    if not 0 < iou_threshold <= 1:
        raise UsageError(f"iou_threshold={iou_threshold} is not in (0, 1]")
    return float(iou_threshold)


def box_overlaps(predicted: NDArray[Any], truth: NDArray[Any], crowd: NDArray[np.bool_]) -> Overlaps:
    """(P, T) IoU of boxes (x0, y0, x1, y1); with a crowd region the share of the prediction inside it."""
    predicted, truth = predicted.reshape(-1, 4).astype(np.float64), truth.reshape(-1, 4).astype(np.float64)
    low = np.maximum(predicted[:, None, :2], truth[None, :, :2])
    high = np.minimum(predicted[:, None, 2:], truth[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return _ratio(shared, _area(predicted), _area(truth), crowd)


def mask_overlaps(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], crowd: NDArray[np.bool_]) -> Overlaps:
    """(P, T) IoU of masks (N, H, W); with a crowd region the share of the prediction inside it."""
    packed_p, packed_t = (np.packbits(masks.reshape(len(masks), -1), axis=1) for masks in (predicted, truth))
    shared = np.zeros((len(predicted), len(truth)))
    for row, mask in enumerate(packed_p):
        shared[row] = np.bitwise_count(mask & packed_t).sum(axis=1)
    areas = [np.bitwise_count(packed).sum(axis=1).astype(np.float64) for packed in (packed_p, packed_t)]
    return _ratio(shared, areas[0], areas[1], crowd)


def _ratio(shared: Overlaps, predicted: Overlaps, truth: Overlaps, crowd: NDArray[np.bool_]) -> Overlaps:
    union = np.where(crowd[None, :], predicted[:, None], predicted[:, None] + truth[None, :] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: NDArray[Any]) -> Overlaps:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))


def _of_truth(crowd: bool, matched: bool) -> Outcome:
    if crowd:
        return Outcome.IGNORED
    return Outcome.TP if matched else Outcome.FN


def _of_prediction(truth: int, crowd: NDArray[np.bool_]) -> Outcome:
    if truth < 0:
        return Outcome.FP
    return Outcome.IGNORED if crowd[truth] else Outcome.TP


BOX_FORMATS = ("xyxy", "xywh", "cxcywh")


@dataclass(frozen=True)
class Annotations:
    """The objects of one picture.

    Attributes:
        objects: Classes, confidences, crowd flags.
        boxes: (N, 4) x0, y0, x1, y1.
        masks: (N, H, W), or None for boxes alone.
    """

    objects: Objects
    boxes: NDArray[np.float64]
    masks: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class AnnotationReader:
    """Reads annotations: a dict of `boxes`, `labels`, `scores`, `iscrowd`, `masks`, or a list of COCO dicts.

    Args:
        box_format: What the numbers of a box in a dict of arrays mean; a COCO dict's `bbox` is always xywh.
        label_mapping: Class numbers of the annotations to those of the classes.
        with_masks: Whether masks are needed.
    """

    box_format: str = "xyxy"
    label_mapping: Mapping[int, int] | None = None
    with_masks: bool = False

    def __post_init__(self) -> None:
        if self.box_format not in BOX_FORMATS:
            raise unknown("box format", self.box_format, BOX_FORMATS)

    def read(self, given: Any, *, predicted: bool) -> Annotations:
        """The objects of one picture.

        Raises:
            ColumnError: Something is missing, or of another length.
        """
        if isinstance(given, Mapping) and isinstance(given.get("annotations"), Sequence):
            given = given["annotations"]
        parts, box_format = (given, self.box_format) if isinstance(given, Mapping) else (_from_coco(given), "xywh")
        labels = _array(parts, ("labels", "label"), np.int64)
        masks = self._masks(parts)
        boxes = _array(parts, ("boxes", "bbox"), np.float64, optional=masks is not None)
        if boxes is None:
            found = [bounding_box(mask) for mask in masks] if masks is not None else []
            boxes, box_format = np.asarray(found, np.float64), "xyxy"
        scores = _array(parts, ("scores", "score", "confidence"), np.float64, optional=not predicted)
        crowd = _array(parts, ("iscrowd",), np.bool_, optional=True)
        n = len(labels) if labels is not None else 0
        labels = np.zeros(0, np.int64) if labels is None else labels
        parts_by_name = {"boxes": boxes.reshape(-1, 4), "scores": scores, "iscrowd": crowd, "masks": masks}
        for name, values in parts_by_name.items():
            if values is not None and len(values) != n:
                raise ColumnError(f"an annotation has {len(values)} {name} for {n} labels")
        return Annotations(
            Objects(
                self._mapped(labels),
                np.ones(n) if scores is None or not predicted else scores,
                np.zeros(n, np.bool_) if crowd is None or predicted else crowd,
            ),
            as_xyxy(boxes.reshape(-1, 4), box_format),
            masks,
        )

    def _mapped(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.label_mapping is None:
            return labels
        if strange := sorted({int(label) for label in labels} - set(self.label_mapping)):
            raise unknown("label", strange[0], sorted(self.label_mapping), where="label_mapping")
        return np.asarray([self.label_mapping[int(label)] for label in labels], np.int64)

    def _masks(self, parts: Mapping[str, Any]) -> NDArray[np.bool_] | None:
        if not self.with_masks:
            return None
        masks = _array(parts, ("masks", "mask"), np.float64)
        assert masks is not None
        if masks.ndim == 4 and masks.shape[1] == 1:
            masks = masks[:, 0]
        if masks.ndim != 3:
            raise ColumnError(f"masks have shape {masks.shape}, not (objects, height, width)")
        return np.asarray(masks > 0.5)


def as_xyxy(boxes: NDArray[np.float64], box_format: str) -> NDArray[np.float64]:
    """(N, 4) boxes as x0, y0, x1, y1.

    Raises:
        UsageError: There is no such format.
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    match box_format:
        case "xyxy":
            return boxes
        case "xywh":
            return np.concatenate([first, first + second], axis=1)
        case "cxcywh":
            return np.concatenate([first - second / 2, first + second / 2], axis=1)
    raise UsageError(f"no box format {box_format!r}", hint="formats: " + ", ".join(BOX_FORMATS))


def _from_coco(given: Any) -> dict[str, Any]:
    """A list of COCO's annotation dicts as a dict of arrays."""
    if not isinstance(given, Sequence) or not all(isinstance(item, Mapping) for item in given):
        raise ColumnError(
            f"the annotations of a picture are a {type(given).__name__}",
            hint="give {'boxes': ..., 'labels': ..., 'scores': ...} or a list of COCO dicts",
        )
    parts: dict[str, Any] = {"labels": [item.get("category_id") for item in given]}
    parts["iscrowd"] = [item.get("iscrowd", 0) for item in given]
    if all("bbox" in item for item in given):
        parts["boxes"] = np.asarray([item["bbox"] for item in given], np.float64).reshape(-1, 4)
    if (given and all("score" in item for item in given)) or not given:
        parts["scores"] = [item["score"] for item in given]
    if given and all(isinstance(item.get("segmentation"), Mapping) for item in given):
        parts["masks"] = np.stack([_coco_mask(item["segmentation"]) for item in given])
    elif not given:
        parts["masks"] = np.zeros((0, 1, 1))
    return parts


def _coco_mask(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    try:
        counts = run_lengths(counts) if isinstance(counts, (str, bytes)) else counts
        return decode(counts, int(height), int(width))
    except ValueError as error:
        raise ColumnError(f"a segmentation cannot be read: {error}") from error


def _array(parts: Mapping[str, Any], names: tuple[str, ...], kind: Any, *, optional: bool = False) -> Any:
    found = next((parts[name] for name in names if parts.get(name) is not None), None)
    if found is None:
        if optional:
            return None
        raise ColumnError(
            f"an annotation has no {names[0]!r}; it holds {', '.join(map(str, parts)) or 'nothing'}",
            hint="give {'boxes': ..., 'labels': ..., 'scores': ...}, or a preprocess_fn that does",
        )
    if hasattr(found, "detach"):
        found = found.detach().cpu().numpy()
    try:
        return np.asarray(found).astype(kind)
    except (TypeError, ValueError) as error:
        raise ColumnError(f"{names[0]!r} of an annotation cannot be read: {error}") from error


def encode(mask: NDArray[Any]) -> list[int]:
    """The run lengths of an (H, W) mask, column by column from a run of zeros on."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], edges, [len(flat)])))
    first = [0] if len(flat) and flat[0] else []
    return [*first, *(int(count) for count in counts)] if len(flat) else []


def decode(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The (H, W) mask behind run lengths.

    Raises:
        ValueError: The runs do not fill the mask.
    """
    if min(counts, default=0) < 0:
        raise ValueError("a run has a negative length")
    values = np.arange(len(counts)) % 2 == 1
    flat = np.repeat(values, np.asarray(counts, np.int64))
    if len(flat) != height * width:
        raise ValueError(f"runs of {len(flat)} pixels do not fill a mask of {height} x {width}")
    return flat.reshape((height, width), order="F")


def run_lengths(compressed: str | bytes) -> list[int]:
    """The run lengths in COCO's compressed text: five bits a character, from the third run on less the last but one.

    Raises:
        ValueError: It is no such text.
    """
    text = compressed.encode("ascii") if isinstance(compressed, str) else compressed
    counts: list[int] = []
    value, shift = 0, 0
    for byte in text:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {byte} is none of compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths end in the middle of one")
    return counts


def bounding_box(mask: NDArray[Any]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) around an (H, W) mask, the far edges outside; all 0 for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
