"""Collectors and samples by name, as a command line gives them."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.collectors.boxes import BoundingBoxMetricsCollector, InstanceMaskMetricsCollector
from xaicli.collectors.classification import ClassificationMetricsCollector
from xaicli.collectors.collector import MetricsCollector, as_collectors
from xaicli.collectors.embeddings import EmbeddingsMetricsCollector
from xaicli.collectors.segmentation import SegmentationMetricsCollector
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.extensions import COLLECTORS as GROUP
from xaicli.extensions import extensions
from xaicli.tables.rows import Unreadable
from xaicli.tables.table import Table

if TYPE_CHECKING:
    from xaicli.sources.inputs import Inputs, Source

_TOGETHER = 256


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
        task: What the model was trained for, where it cannot be told.
    """

    label_names: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    reshape: str = "mean"
    reduction: str | None = "pca"
    components: int = 2
    probs: bool = False
    iou_threshold: float = 0.5
    task: str | None = None


def collector_named(
    name: str, options: CollectorOptions, names: tuple[str, ...], pythonpath: Sequence[str]
) -> MetricsCollector:
    """The collector of a name, ours or another package's, or the user's own at `module:name`.

    Raises:
        XaiError: There is none.
        UsageError: It needs something that the options lack.
    """
    if ":" in name:
        from xaicli.checkpoint.architecture import resolve

        made = resolve(name, pythonpath=pythonpath, option="--collectors")
        return as_collectors(made() if isinstance(made, type) else made)[0]
    known = extensions(GROUP)
    if name not in known:
        raise unknown("collector", name, [*known, "module:name"])
    make = known[name].load()
    if known[name].is_ours:
        made = make(options, names)
    else:
        try:
            made = make(options, names)
        except XaiError:
            raise
        except Exception as error:
            raise XaiError(
                f"--collectors {name} of the package {known[name].package} failed: {type(error).__name__}: {error}",
                hint="it is called with the options and the classes' names, and returns a collector",
            ) from error
    return as_collectors(made)[0]


def classification(options: CollectorOptions, names: tuple[str, ...]) -> MetricsCollector:
    """Labels, predictions and what follows from them."""
    return ClassificationMetricsCollector(names or None, probs=options.probs, task=options.task)


def embeddings(options: CollectorOptions, names: tuple[str, ...]) -> MetricsCollector:
    """What layers put out."""
    del names
    if not options.layers:
        raise UsageError("--collectors embeddings needs layers", hint="--layers NAME,... as in named_modules()")
    return EmbeddingsMetricsCollector(
        options.layers, options.reshape, reduction=options.reduction, n_components=options.components
    )


def segmentation(options: CollectorOptions, names: tuple[str, ...]) -> MetricsCollector:
    """Classes pixel by pixel."""
    return SegmentationMetricsCollector(_needed("segmentation", names), task=options.task)


def boxes(options: CollectorOptions, names: tuple[str, ...]) -> MetricsCollector:
    """Boxes, matched with the labelled ones."""
    return BoundingBoxMetricsCollector(_needed("boxes", names), iou_threshold=options.iou_threshold)


def masks(options: CollectorOptions, names: tuple[str, ...]) -> MetricsCollector:
    """Masks of objects, matched with the labelled ones."""
    return InstanceMaskMetricsCollector(_needed("masks", names), iou_threshold=options.iou_threshold)


def _needed(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise UsageError(f"--collectors {name} needs the classes' names", hint="--label-names cat,dog")
    return names


class SourceRows:
    """A source's samples as rows (tuple of inputs, label), read some hundred at a time.

    A missing label is None, NaN among real numbers; a text that is none of the classes' names stays a text.

    Args:
        source: Where they come from.
        label_names: The classes' names by number, for labels that are text.
    """

    def __init__(self, source: Source, label_names: Sequence[str] = ()) -> None:
        self._source = source
        self._numbers = {name: number for number, name in enumerate(label_names)}
        self._first = -1
        self._read: dict[Any, tuple[Any, ...]] = {}
        self._why: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._source.sample_ids)

    def __getitem__(self, index: int) -> Any:
        first = index - index % _TOGETHER
        if first != self._first:
            ids = [self._source.sample_ids[i] for i in range(first, min(first + _TOGETHER, len(self)))]
            self._read, self._first = self._rows(ids), first
        sample_id = self._source.sample_ids[index]
        return self._read[sample_id] if sample_id in self._read else Unreadable(self._reason(sample_id))

    @property
    def reads_mode(self) -> bool:
        """Whether the mode that was asked for chose among the samples."""
        return self._source.reads_mode

    def told(self) -> tuple[str, ...]:
        """What a user should know of the source, one sentence each."""
        if self._first < 0 and len(self):
            self[0]  # other processes have read the samples, and what is to be said of them is known there
        return self._source.told()

    def _rows(self, ids: list[Any]) -> dict[Any, tuple[Any, ...]]:
        try:
            parts = [part for _, part in self._source.take_alike(ids)]
        except XaiError as error:
            # Not one of these can be read; those of other parts may be.
            self._why = (f"{error.message}: {error.hint}",)
            return {}
        self._why = parts[0].skipped
        return {sample_id: row for part in parts for sample_id, row in self._rows_of(part)}

    def _rows_of(self, inputs: Inputs) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        arrays = list(inputs.arrays.values())
        labels = None if inputs.label is None else [self._number(label) for label in inputs.label]
        if labels is not None and any(isinstance(label, float) for label in labels):
            labels = [math.nan if label is None else label for label in labels]
        for i, sample_id in enumerate(inputs.sample_id):
            yield sample_id, (tuple(array[i] for array in arrays), *(() if labels is None else (labels[i],)))

    def _reason(self, sample_id: Any) -> str:
        named = f"sample {sample_id}: "
        found = next((text for text in self._why if text.startswith(named)), None)
        return found or named + ("; ".join(self._why[:1]) or "cannot be read")

    def _number(self, label: Any) -> Any:
        return self._numbers.get(label, label) if isinstance(label, str) else label


def table_of(
    data: str | None,
    *,
    pythonpath: Sequence[str | os.PathLike[str]] = (),
    label_names: Sequence[str] | None = None,
    **opening: Any,
) -> Table:
    """The samples that `--data` names, or those whose inputs the run keeps.

    Args:
        data: As `xaicli.sources.opening.open_source`; a `module:name` may also name a `Table`.
        pythonpath: Folders searched for a factory's module.
        label_names: The classes of the checkpoint.
        opening: Further arguments of `open_source`.

    Raises:
        XaiError: There is no such data.
    """
    from xaicli.checkpoint.architecture import resolve
    from xaicli.sources.opening import open_source

    if data is not None and ":" in data and not Path(data).exists():
        named = resolve(data, pythonpath=pythonpath, option="--data")
        if isinstance(named, Table):
            return named
    source = open_source(data, pythonpath=pythonpath, label_names=label_names, **opening)
    names = source.label_names or label_names or ()
    ids = list(source.sample_ids)
    if source.pairs and len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        of = [" ".join(filter(None, source.pairs[at])) or "no mode" for at, one in enumerate(ids) if one == twice]
        raise UsageError(
            f"inputs of sample {twice} are kept of {' and of '.join(of)}, and a table tells samples by their ids alone",
            hint="--mode and --ds-id choose those of one",
        )
    return Table(SourceRows(source, names), name=Path(data).stem if data else "inputs", ids=ids, url=data or "inputs")
