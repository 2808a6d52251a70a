"""What a segmentation model makes of every picture: its mask, and how far it agrees with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional

from xaicli.collectors.collector import MetricsCollector, Preprocess
from xaicli.collectors.outputs import PredictorOutput, labels_of
from xaicli.errors import XaiError
from xaicli.heads.head import Task, named_task
from xaicli.heads.outputs import tensor_at, where_of
from xaicli.tables.column import ColumnError
from xaicli.tables.schema import Float, IoU, Mask

_TARGETS = ("mask", "masks", "segmentation")
_LARGEST_CLASS = 255


class SegmentationMetricsCollector(MetricsCollector):
    """Predicted mask, pixel accuracy, IoU of every class, mean IoU and dice, one row a picture.

    A class that neither truth nor prediction has is undefined: null, and left out of the means. Whether the model gives
    logits or probabilities, of each class or of yes and no, is decided by the head that saliency uses as well.

    Args:
        label_map: The classes' names, by position or value.
        ignore_index: Pixels of this class in the truth do not count.
        save_masks: Keep the predicted mask as a palette PNG, column `predicted_mask`.
        preprocess_fn: Turns (batch, predictor output) into (truth, prediction): class numbers (N, H, W), the prediction
            also as the model's numbers (N, C, H, W).
        task: "segmentation:logits" or "segmentation:probabilities", where that cannot be told.
    """

    reads_heads = True

    def __init__(
        self,
        label_map: Mapping[int, str] | Sequence[str],
        *,
        ignore_index: int = 255,
        save_masks: bool = True,
        preprocess_fn: Preprocess | None = None,
        compute_aggregates: bool = True,
        task: str | None = None,
    ) -> None:
        super().__init__(preprocess_fn, compute_aggregates)
        if task is not None and named_task(task)[0] is not Task.SEGMENTATION:
            raise XaiError(
                f"the task {task} is none of pictures' masks",
                hint='task="segmentation:logits" or "segmentation:probabilities"; one channel is read as yes and no',
            )
        self.task = task
        mask = Mask(classes=label_map)
        if not mask.names or not all(0 <= value <= _LARGEST_CLASS for value in mask.names):
            raise XaiError("label_map needs class values between 0 and 255", hint='{0: "background", 1: "cat"}')
        self.names = mask.names
        self.ignore_index = ignore_index
        self.save_masks = save_masks
        measures = {name: IoU() for name in ("mean_iou", *map(_column, self.names.values()))}
        shares = {name: Float(minimum=0.0, maximum=1.0) for name in ("pixel_accuracy", "dice")}
        self._column_schemas = {"predicted_mask": mask, **measures, **shares}
        self._pixels = self._ignored = self._strange = 0
        self._values: set[int] = set()

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> dict[str, Any]:
        truth = batch if isinstance(batch, torch.Tensor) and self.preprocess_fn else _truth_of(batch)
        masks = self._masks(PredictorOutput.of(predictor_output), truth)
        columns: dict[str, Any] = {}
        if self.save_masks:
            columns["predicted_mask"] = masks.to(torch.uint8)
        if truth is None:
            return columns
        if truth.ndim == 4 and truth.shape[1] == 1:
            truth = truth[:, 0]
        if truth.shape != masks.shape:
            raise ColumnError(f"the truth has shape {tuple(truth.shape)}, the prediction {tuple(masks.shape)}")
        return columns | self._measures(truth.long(), masks.long())

    def doubts(self, tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
        del tables
        said = []
        if self._strange:
            values = ", ".join(map(str, sorted(self._values)[:5]))
            pixels = f"{self._strange} of {self._pixels} pixels of the truth"
            said.append(f"{pixels} are of no class ({values}): counted as wrong")
        if self._ignored:
            said.append(f"{self._ignored} of {self._pixels} pixels of the truth are ignored ({self.ignore_index})")
        self._pixels = self._ignored = self._strange = 0
        self._values = set()
        return tuple(said)

    def _masks(self, output: PredictorOutput, truth: torch.Tensor | None) -> torch.Tensor:
        """(N, H, W) class numbers, -1 where the model answers NaN; numbers of another size are interpolated first.

        Raises:
            XaiError: The output is neither class numbers nor numbers of classes.
        """
        where = where_of(output.forward)[0] if not isinstance(output.forward, torch.Tensor) else ""
        given = output.forward if not where else tensor_at(output.forward, where)
        if given.ndim == 3 and not given.is_floating_point():
            return given
        if given.ndim not in (3, 4):
            raise XaiError(
                f"the model's output has shape {tuple(given.shape)}, not (samples, classes, height, width)",
                hint="give a preprocess_fn that returns (truth, prediction)",
            )
        n = len(self.names)
        head = output.head(task=self.task, labels=truth, classes=n if n > 2 else None, expected=(Task.SEGMENTATION,))
        values = head.tensor(output.forward).detach()
        head.refuse_no_probabilities(values)
        if truth is not None and values.shape[-2:] != truth.shape[-2:]:
            values = functional.interpolate(
                values.float(), size=tuple(truth.shape[-2:]), mode="bilinear", align_corners=False
            )
        return head.place_predictions(values)

    def _measures(self, truth: torch.Tensor, masks: torch.Tensor) -> dict[str, Any]:
        both, true, predicted, right, counted = self._areas(truth, masks)
        union = true + predicted - both
        iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
        dice = np.divide(2 * both, true + predicted, out=np.zeros_like(both), where=union > 0)
        defined = union > 0
        columns = {
            "pixel_accuracy": _share(right, counted),
            "mean_iou": _share((iou * defined).sum(axis=1), defined.sum(axis=1)),
            "dice": _share((dice * defined).sum(axis=1), defined.sum(axis=1)),
        }
        for position, name in enumerate(self.names.values()):
            columns[_column(name)] = pa.array(iou[:, position].astype(np.float32), mask=~defined[:, position])
        return columns

    def _areas(self, truth: torch.Tensor, masks: torch.Tensor) -> tuple[NDArray[np.float64], ...]:
        """Pixels of each picture that both, the truth, the prediction have in each class; that agree; that count."""
        n, valid = len(self.names), truth != self.ignore_index
        true, predicted = self._positions(truth), self._positions(masks)
        strange = truth[(true == n) & valid]
        self._pixels += truth.numel()
        self._ignored += int((~valid).sum())
        self._strange += len(strange)
        self._values |= set(strange[:1000].tolist())
        picture = torch.arange(len(truth), device=truth.device).reshape(-1, 1, 1)
        pairs = ((picture * (n + 1) + true) * (n + 1) + predicted)[valid]
        counts = torch.bincount(pairs, minlength=len(truth) * (n + 1) ** 2).reshape(-1, n + 1, n + 1)
        both, right = counts.diagonal(dim1=1, dim2=2)[:, :n], ((truth == masks) & valid).flatten(1).sum(dim=1)
        areas = (both, counts.sum(dim=2)[:, :n], counts.sum(dim=1)[:, :n], right, valid.flatten(1).sum(dim=1))
        return tuple(part.cpu().numpy().astype(np.float64) for part in areas)

    def _positions(self, values: torch.Tensor) -> torch.Tensor:
        """Class values as positions in `names`; all others as one more."""
        table = torch.full((_LARGEST_CLASS + 2,), len(self.names), device=values.device)
        table[torch.tensor(list(self.names), device=values.device)] = torch.arange(
            len(self.names), device=values.device
        )
        known = (values >= 0) & (values <= _LARGEST_CLASS)
        return table[values.where(known, torch.full_like(values, _LARGEST_CLASS + 1))]


def _column(name: str) -> str:
    return f"iou_{name}"


def _share(part: NDArray[Any], whole: NDArray[Any]) -> pa.Array:
    values = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return pa.array(values.astype(np.float32), mask=whole == 0)


def _truth_of(batch: Any) -> torch.Tensor | None:
    found = labels_of(batch)
    if found is None and isinstance(batch, Mapping):
        found = next((batch[key] for key in _TARGETS if key in batch), None)
    return None if found is None else torch.as_tensor(found)
