"""xai: the flight recorder for PyTorch training, and the command line that reads it.

Names resolve lazily: `import xaicli` takes no torch, polars, pyarrow, matplotlib or numpy with it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Nothing is imported here: the command `xai` is quiet when it is interrupted from its second module on.
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Run": "xaicli.recorder.run",
    "init": "xaicli.recorder.run",
    "log": "xaicli.recorder.run",
    "open_run": "xaicli.api",
    "RunReader": "xaicli.api",
    "compare": "xaicli.api.runs",
    "import_run": "xaicli.importers.importing",
    "saliency": "xaicli.api.saliency",
    "collect_metrics": "xaicli.collectors.collect",
    "Table": "xaicli.tables.table",
    "sampler_of": "xaicli.tables.lists",
    "Predictor": "xaicli.collectors.predictor",
    "PredictorOutput": "xaicli.collectors.outputs",
    "MetricsCollector": "xaicli.collectors.collector",
    "FunctionalMetricsCollector": "xaicli.collectors.collector",
    "ClassificationMetricsCollector": "xaicli.collectors.classification",
    "EmbeddingsMetricsCollector": "xaicli.collectors.embeddings",
    "SegmentationMetricsCollector": "xaicli.collectors.segmentation",
    "BoundingBoxMetricsCollector": "xaicli.collectors.boxes",
    "InstanceMaskMetricsCollector": "xaicli.collectors.boxes",
    "rematch": "xaicli.collectors.stored_objects",
    "average_precision": "xaicli.collectors.stored_objects",
    "Schema": "xaicli.tables.schema",
    "CategoricalLabel": "xaicli.tables.schema",
    "CategoricalLabelSchema": "xaicli.tables.schema",
    "Bool": "xaicli.tables.schema",
    "Int": "xaicli.tables.schema",
    "Float": "xaicli.tables.schema",
    "String": "xaicli.tables.schema",
    "Confidence": "xaicli.tables.schema",
    "IoU": "xaicli.tables.schema",
    "Embedding": "xaicli.tables.schema",
    "Image": "xaicli.tables.schema",
    "Mask": "xaicli.tables.schema",
    "BoundingBoxes": "xaicli.tables.schema",
    "Summary": "xaicli.summary",
    "ValWithError": "xaicli.summary",
    "average_summaries": "xaicli.summary",
    "XaiError": "xaicli.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> "Any":
    if not (home := _HOMES.get(name)):
        raise AttributeError(f"module 'xaicli' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        from xaicli.errors import EXTRAS

        if extra := EXTRAS.get((error.name or "").partition(".")[0]):
            error.add_note(f"hint: xaicli.{name} needs pip install 'xaicli[{extra}]'")
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
