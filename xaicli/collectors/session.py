"""`xai collect`: a checkpoint, data and collectors by name; one pass; what it brought."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer, Counts
from xaicli.api.opening import Opening, find_place
from xaicli.collectors.collect import Collected, collect_metrics
from xaicli.collectors.heading import HEADING
from xaicli.collectors.named import CollectorOptions, collector_named
from xaicli.collectors.predictor import Precision, Predictor
from xaicli.collectors.progress import Progress
from xaicli.collectors.sourced import SourceRows, table_of
from xaicli.collectors.summary import summary
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.recorder.run import Run
from xaicli.report.facts import RunFacts
from xaicli.report.plain import plain_report
from xaicli.results import Result

if TYPE_CHECKING:
    from xaicli.report.model import Report

_CHECKPOINT = "checkpoint"
"""The column that says which checkpoint rows are from."""


def collect_run(
    run_dir: str | os.PathLike[str] | None,
    opening: Opening,
    *,
    model: str | None = None,
    collectors: Sequence[str] = ("classification",),
    options: CollectorOptions | None = None,
    split: str = "",
    epoch: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    aggregates: bool = True,
    progress: Progress | bool = True,
) -> Result:
    """One inference pass of a checkpoint over data, with collectors, into a run.

    Args:
        run_dir: The run; begun where there is none at the path; see `find_run` when None.
        opening: How the model and the data are opened; the data may also be `module:name` of a `Table`.
        model: A checkpoint's path, or its name in the run's `checkpoints/`.
        collectors: Names, or `module:name` of collectors and functions.
        options: What the named collectors are made with.
        epoch: The epoch the rows belong to; the checkpoint's own when None.

    Returns:
        What was collected: a row for each column.

    Raises:
        XaiError: Something named does not exist.
        CollectionError: A collector failed; the others' rows are in the run.
    """
    options = options or CollectorOptions()
    begins = run_dir is not None and not Path(run_dir).exists()
    place = find_place(None if begins else run_dir, [model] if model else [])
    if len(place.checkpoints) > 1:
        raise UsageError(f"{model} names {len(place.checkpoints)} checkpoints", hint="collect over one at a time")
    layout = RunLayout(Path(os.fspath(run_dir))) if begins and run_dir is not None else place.layout
    if layout is None:
        raise XaiError("no run to collect into", hint="name one; it is begun where there is none: xai collect runs/new")
    loaded = opening.load(place.checkpoints[0], device=_device(device))
    names = options.label_names or loaded.facts.label_names or _names_of(layout)
    prepared = opening.preparation(place.layout, loaded.facts) | {"label_names": names or None}
    table = table_of(opening.data, **prepared)
    chosen = [collector_named(name, options, tuple(names), opening.pythonpath) for name in collectors]
    predictor = Predictor(
        loaded.model,
        precision=precision,
        preprocess_fn=_model_inputs if isinstance(table.rows, SourceRows) else None,
    )
    at = epoch if epoch is not None else loaded.facts.epoch
    with Run(layout.root) as run:
        collected = collect_metrics(
            table,
            chosen,
            predictor,
            constants=_known({"epoch": at, "step": loaded.facts.step, _CHECKPOINT: str(place.checkpoints[0])}),
            split=split,
            run=run,
            dataloader_args={"batch_size": loaded.facts.static_batch or batch_size, "num_workers": workers},
            collect_aggregates=aggregates,
            progress=progress,
        )
    skipped = tuple(table.rows.skipped) if isinstance(table.rows, SourceRows) else ()
    selection = _known(
        {
            "model": str(place.checkpoints[0]),
            "data": opening.data,
            "collectors": list(collectors),
            "split": split or None,
            "epoch": at,
            "precision": predictor.precision,
        }
    )
    return _result(layout, selection, collected, skipped)


def _result(layout: RunLayout, selection: dict[str, Any], collected: Collected, skipped: tuple[str, ...]) -> Result:
    data = summary(collected.tables, without=(*HEADING, _CHECKPOINT))
    rows = sum(table.num_rows for table in collected.tables.values())
    answer = Answer(
        command="collect",
        run=str(layout.root),
        selection=selection | {"files": [str(path) for path in collected.paths]},
        data=data,
        counts=Counts(rows=rows, non_finite=int(data["non_finite"].sum()), dropped=collected.left_out),
        warnings=_left_out(collected.left_out, skipped),
    )

    def build() -> Report:
        said = f"{', '.join(f'{t.num_rows:,} rows in {name}' for name, t in collected.tables.items())}."
        return plain_report(answer, RunFacts.of(layout), title="Collected metrics", sentence=said, terminal_rows=60)

    return Result(answer, build)


def _left_out(n: int, skipped: tuple[str, ...]) -> tuple[str, ...]:
    """What to say of samples that could not be read; worker processes count them but cannot say which."""
    if n and not skipped:
        return (f"{n} samples could not be read and are left out; --workers 0 names them",)
    return tuple(f"left out: {text}" for text in skipped)


def _model_inputs(batch: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(batch[0])


def _names_of(layout: RunLayout) -> tuple[str, ...]:
    return layout.read_manifest().label_names or () if layout.is_run() else ()


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _device(given: str) -> str:
    if given != "auto":
        return given
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
