"""What can be said of every sample from a classifier's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.collectors.collector import MetricsCollector, Preprocess
from xaicli.collectors.outputs import PredictorOutput, labels_of, logits_of
from xaicli.errors import XaiError
from xaicli.tables.column import ColumnError
from xaicli.tables.schema import Bool, CategoricalLabel, Confidence, Float, Schema
from xaicli.wal.derived import derive

_TOP = 5


class ClassificationMetricsCollector(MetricsCollector):
    """Label, prediction and what follows from the logits; the batch is (input, label, ...) or a dict with a label.

    Columns: `label`; `predicted`; `loss`; `accuracy` (right or not); `confidence`, the probability of the prediction;
    `label_prob`, that of the label; `margin`, `entropy`, `el2n` as `xaicli.wal.derived.derive` defines them;
    `top5`, whether the label is among the five most probable classes, where there are more than five; `probs` (float16)
    on request. What needs a label is null where it is none of the classes, as an ignore index is.

    Args:
        classes: The classes' names, by position or value.
        loss_fn: (logits, labels) -> one loss a sample; cross entropy when None.
        probs: Keep all class probabilities.
    """

    def __init__(
        self,
        classes: Sequence[str] | Mapping[int, str] | None = None,
        loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        compute_aggregates: bool = True,
        preprocess_fn: Preprocess | None = None,
        *,
        probs: bool = False,
    ) -> None:
        super().__init__(preprocess_fn, compute_aggregates)
        self.loss_fn = loss_fn
        self.probs = probs
        label: Schema | None = CategoricalLabel(classes=classes) if classes else None
        stated: dict[str, Schema | None] = {
            words.LABEL: label,
            "predicted": label,
            words.LOSS: Float(minimum=0.0) if loss_fn is None else None,
            "accuracy": Bool(description="whether the prediction is the label"),
            "confidence": Confidence(description="probability of the prediction"),
            words.LABEL_PROB: Float("", 0.0, 1.0, description="probability of the label"),
            words.MARGIN: Float(description="label's logit minus the largest other"),
            words.ENTROPY: Float(minimum=0.0, unit="nat"),
            words.EL2N: Float(minimum=0.0),
        }
        self._column_schemas = {column: schema for column, schema in stated.items() if schema is not None}

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> dict[str, Any]:
        logits = _two_or_more_classes(logits_of(predictor_output))
        given = labels_of(batch)
        label = None if given is None else _class_numbers(given, logits)
        scores = logits.detach().float().cpu().numpy()
        known = None if label is None else label.cpu().numpy()
        predicted, found, probs = derive(scores, known, are_logits=True)
        columns: dict[str, Any] = {}
        if label is not None and known is not None:
            valid = (known >= 0) & (known < scores.shape[1])
            columns = {
                words.LABEL: known,
                "predicted": predicted,
                words.LOSS: self._loss(logits, label, found[words.LOSS]),
                "accuracy": pa.array(predicted == known, mask=~valid),
            }
            if scores.shape[1] > _TOP:
                columns["top5"] = pa.array(_among_top(scores, known), mask=~valid)
            columns |= {name: pa.array(found[name], mask=~valid) for name in _OF_LABEL}
        columns |= {
            "predicted": predicted,
            "confidence": found[words.TOP_PROB],
            words.ENTROPY: found[words.ENTROPY],
        }
        if self.probs:
            columns[words.PROBS] = probs.astype(np.float16)
        return columns

    def _loss(self, logits: torch.Tensor, label: torch.Tensor, cross_entropy: NDArray[Any]) -> Any:
        if self.loss_fn is None:
            return pa.array(cross_entropy, mask=np.isnan(cross_entropy))
        loss = self.loss_fn(logits, label)
        if loss.shape != label.shape:
            raise ColumnError(
                f"loss_fn returned shape {tuple(loss.shape)} for {len(label)} samples",
                hint='it must not average: CrossEntropyLoss(reduction="none")',
            )
        return loss


_OF_LABEL = (words.LABEL_PROB, words.MARGIN, words.EL2N)


def _two_or_more_classes(logits: torch.Tensor) -> torch.Tensor:
    """(N, K) logits; the single logit of a binary classifier becomes those of (no, yes).

    Raises:
        XaiError: The output has more axes than a classifier's.
    """
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2:
        raise XaiError(
            f"the model's output has shape {tuple(logits.shape)}, not (samples, classes)",
            hint="give a preprocess_fn, or use SegmentationMetricsCollector for one class a pixel",
        )
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def _class_numbers(label: Any, logits: torch.Tensor) -> torch.Tensor:
    """(N,) whole class numbers from labels, one-hot or soft ones included."""
    tensor = torch.as_tensor(label, device=logits.device)
    if tensor.ndim == 2 and tensor.shape == logits.shape:
        tensor = tensor.argmax(dim=1)
    tensor = tensor.reshape(len(tensor), -1)
    if tensor.shape[1] != 1 or len(tensor) != len(logits):
        raise ColumnError(f"the labels have shape {tuple(torch.as_tensor(label).shape)} for {len(logits)} outputs")
    return tensor[:, 0].long()


def _among_top(scores: NDArray[Any], label: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether fewer than five classes score higher than the label."""
    at_label = np.take_along_axis(scores, label.clip(0, scores.shape[1] - 1)[:, None], axis=1)
    return np.asarray((scores > at_label).sum(axis=1) < _TOP)
