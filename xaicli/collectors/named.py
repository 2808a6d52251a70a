"""Collectors by name, as a command line gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xaicli.collectors.boxes import BoundingBoxMetricsCollector, InstanceMaskMetricsCollector
from xaicli.collectors.classification import ClassificationMetricsCollector
from xaicli.collectors.collector import MetricsCollector, as_collectors
from xaicli.collectors.embeddings import EmbeddingsMetricsCollector
from xaicli.collectors.segmentation import SegmentationMetricsCollector
from xaicli.errors import UsageError, unknown

COLLECTORS = ("classification", "embeddings", "segmentation", "boxes", "masks")
"""The collectors that have a name; others are `module:name`."""


@dataclass(frozen=True)
class CollectorOptions:
    """What the named collectors are made with.

    Attributes:
        label_names: The classes' names.
        layers: The layers of `embeddings`.
        reshape: Its strategy.
        reduction: Its reduction, None for none.
        components: Dimensions after the reduction.
        probs: Whether `classification` keeps all probabilities.
        iou_threshold: Of `boxes` and `masks`.
    """

    label_names: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    reshape: str = "mean"
    reduction: str | None = "pca"
    components: int = 2
    probs: bool = False
    iou_threshold: float = 0.5


def collector_named(
    name: str, options: CollectorOptions, names: tuple[str, ...], pythonpath: Sequence[str]
) -> MetricsCollector:
    """The collector of a name, or the user's own at `module:name`.

    Raises:
        XaiError: There is none.
        UsageError: It needs something that the options lack.
    """
    match name:
        case "classification":
            return ClassificationMetricsCollector(names or None, probs=options.probs)
        case "embeddings":
            if not options.layers:
                raise UsageError("--collectors embeddings needs layers", hint="--layers NAME,... as in named_modules()")
            return EmbeddingsMetricsCollector(
                options.layers, options.reshape, reduction=options.reduction, n_components=options.components
            )
        case "segmentation":
            return SegmentationMetricsCollector(_needed(name, names))
        case "boxes":
            return BoundingBoxMetricsCollector(_needed(name, names), iou_threshold=options.iou_threshold)
        case "masks":
            return InstanceMaskMetricsCollector(_needed(name, names), iou_threshold=options.iou_threshold)
    if ":" not in name:
        raise unknown("collector", name, [*COLLECTORS, "module:name"])
    from xaicli.checkpoint.architecture import resolve

    made = resolve(name, pythonpath=pythonpath, option="--collectors")
    return as_collectors(made() if isinstance(made, type) else made)[0]


def _needed(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise UsageError(f"--collectors {name} needs the classes' names", hint="--label-names cat,dog")
    return names
