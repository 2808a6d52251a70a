"""`xai collect`: a checkpoint, data and collectors by name; one pass; what it brought."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from xaicli.answer import Answer, Counts
from xaicli.api.opening import Opening, find_place
from xaicli.collectors.collect import Collected, Progress, collect_metrics
from xaicli.collectors.gathering import HEADING
from xaicli.collectors.named import CollectorOptions, SourceRows, collector_named, table_of
from xaicli.collectors.predictor import Precision, Predictor, chosen_device, layers_of
from xaicli.errors import UsageError, XaiError
from xaicli.files import write_whole
from xaicli.layout import PartName, RunLayout
from xaicli.parquet import append_record, write
from xaicli.recorder.run import Run
from xaicli.recorder.scalars import Moment, scalar_rows
from xaicli.report.page import RunFacts, plain_report
from xaicli.results import Result
from xaicli.store.objects import Store, is_url
from xaicli.store.sync import push
from xaicli.tables.column import schema_of
from xaicli.tables.schema import CategoricalLabel
from xaicli.traceability import describe_environment
from xaicli.wal.records import scalar_table

if TYPE_CHECKING:
    from xaicli.report.model import Report

_CHECKPOINT = "checkpoint"
"""The column that says which checkpoint rows are from."""
_BATCH = 64
_RANK = 9999
"""Writes what is added to a run after its training: no rank of a training has this number."""
_ONLY_FOR = {
    "layers": ("embeddings",),
    "reshape": ("embeddings",),
    "reduction": ("embeddings",),
    "components": ("embeddings",),
    "probs": ("classification",),
    "iou_threshold": ("boxes", "masks"),
    "task": ("classification", "segmentation"),
}
"""Which collectors take an option."""


def collect_run(
    run_dir: str | os.PathLike[str] | None,
    opening: Opening,
    *,
    model: str | None = None,
    collectors: Sequence[str] = ("classification",),
    options: CollectorOptions | None = None,
    split: str = "",
    epoch: int | None = None,
    batch_size: int = _BATCH,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    aggregates: bool = True,
    progress: Progress | bool = True,
    typed: Collection[str] = (),
) -> Result:
    """One inference pass of a checkpoint over data, with collectors, into a run.

    Args:
        run_dir: The run; begun where there is none at the path; see `find_run` when None.
        opening: How the model and the data are opened; the data may also be `module:name` of a `Table`.
        model: A checkpoint's path, or its name in the run's `checkpoints/`.
        collectors: Names, or `module:name` of collectors and functions.
        options: What the named collectors are made with.
        split: What part of the data this is; with one, means of the columns become scalars (`val/loss`).
        epoch: The epoch the rows belong to; the checkpoint's own when None.
        aggregates: Whether the means become scalars.
        typed: Options that were asked for in words, also those with their default.

    How the run was made stays as it is noted: a pass is no start of the training. What this pass was made with stands
    in `collections/` of the run.

    Returns:
        What was collected: a row for each column.

    Raises:
        XaiError: Something named does not exist.
        CollectionError: A collector failed; the others' rows are in the run.
    """
    options = options or CollectorOptions()
    _check_options(options, collectors, typed)
    begins = run_dir is not None and not is_url(run_dir) and not Path(run_dir).exists()
    place = find_place(None if begins else run_dir, [model] if model else [])
    if len(place.checkpoints) > 1:
        raise UsageError(f"{model} names {len(place.checkpoints)} checkpoints", hint="collect over one at a time")
    layout = RunLayout(Path(os.fspath(run_dir))) if begins and run_dir is not None else place.layout
    if layout is None:
        raise XaiError("no run to collect into", hint="name one; it is begun where there is none: xai collect runs/new")
    loaded = opening.load(place.checkpoints[0], device=str(chosen_device(device)))
    names = options.label_names or loaded.facts.label_names or _names_of(layout)
    if "embeddings" in collectors and not options.layers:
        raise UsageError("--collectors embeddings needs layers", hint=f"--layers NAME,... of {layers_of(loaded.model)}")
    prepared = opening.preparation(place.layout, loaded) | {"label_names": names or None}
    table = table_of(opening.data, **prepared)
    _check_opening(opening, table.rows)
    chosen = [collector_named(name, options, tuple(names), opening.pythonpath) for name in collectors]
    predictor = Predictor(
        loaded.model,
        precision=precision,
        preprocess_fn=_model_inputs if isinstance(table.rows, SourceRows) else None,
        facts=loaded.facts,
    )
    at = epoch if epoch is not None else loaded.facts.epoch
    selection = _known(
        {
            "model": str(place.checkpoints[0]),
            "data": opening.data,
            "collectors": list(collectors),
            "split": split or None,
            "epoch": at,
            "precision": predictor.precision,
            "task": options.task,
            **opening.asked(),
            **_chosen(options),
            "batch_size": batch_size if batch_size != _BATCH else None,
            "no_aggregates": True if split and not aggregates else None,
        }
    )
    if not layout.is_run():
        Run(layout.root).close()
    trace = _Trace(layout, selection | {"sha256": loaded.facts.sha256})
    try:
        collected = collect_metrics(
            table,
            chosen,
            predictor,
            constants=_known({"epoch": at, "step": loaded.facts.step, _CHECKPOINT: str(place.checkpoints[0])}),
            split=split,
            run=_Addition.to(layout),
            dataloader_args={"batch_size": loaded.facts.static_batch or batch_size, "num_workers": workers},
            collect_aggregates=aggregates and bool(split),
            progress=progress,
            strict=opening.strict,
        )
    except BaseException as error:
        if begins and _holds_nothing(layout):
            shutil.rmtree(layout.root, ignore_errors=True)
        else:
            trace.write(failed=f"{type(error).__name__}: {error}")
        where = [note for note in getattr(error, "__notes__", ()) if note.startswith("while the model ran on")]
        if where and isinstance(error, RuntimeError | TypeError | ValueError | IndexError):
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise XaiError(
                f"the model fails on {where[0].removeprefix('while the model ran on ')}: {said}",
                hint="do the inputs fit the model? check the order, shapes and dtypes of the data, and --batch-size",
            ) from error
        raise
    told = table.rows.told() if isinstance(table.rows, SourceRows) else ()
    if (fixed := loaded.facts.static_batch) and (batch_size not in (_BATCH, fixed) or "batch_size" in typed):
        told = (*told, f"--batch-size was not used: the graph was exported for batches of {fixed}")
    collected = replace(collected, doubts=(*loaded.facts.notes, *told, *_other_ids(layout, table), *collected.doubts))
    trace.write(files=[str(path.relative_to(layout.root)) for path in collected.paths], decided=collected.decided)
    if layout.address:
        # In the mirror alone it would be lost: whoever reads next takes the store's list of finished files.
        push(layout.root, Store(layout.address))
    return _result(layout, selection, collected)


def _holds_nothing(layout: RunLayout) -> bool:
    """Whether a run that was begun for this pass alone has no rows: none collected, none of a training meanwhile."""
    files = [path.relative_to(layout.root) for path in layout.root.rglob("*") if path.is_file()]
    return len(layout.read_attempts()) <= 1 and not any(f.suffix == ".parquet" or f.parts[0] == "wal" for f in files)


@dataclass(frozen=True)
class _Addition:
    """A run that is added to after, or beside, its training: no start of it, with files of a writer of its own."""

    layout: RunLayout
    writer: tuple[int, int]
    state: None = None

    @classmethod
    def to(cls, layout: RunLayout) -> _Addition:
        attempts = layout.read_attempts()
        return cls(layout, (attempts[-1].attempt if attempts else 0, _RANK))

    def log(self, scalars: dict[str, Any]) -> None:
        attempt = self.writer[0]
        moment = Moment(mode="", ds_id="", epoch=None, step=None, count=0, attempt=attempt, rank=0)
        rows = scalar_rows(scalars, moment, _refused, _refused)
        parts = (PartName.parse(path.name) for path in self.layout.scalars.glob("*.parquet"))
        sequence = (
            max((part.last for part in parts if part and (part.attempt, part.rank) == self.writer), default=-1) + 1
        )
        path = self.layout.scalars / PartName(*self.writer, sequence, sequence).filename
        append_record(self.layout, *self.writer, write(scalar_table(rows), path, root=self.layout.root))


def _refused(key: str, reason: str) -> None:
    raise ValueError(f"{key}: {reason}")


class _Trace:
    """What a pass was made with, in a file of its own beside how the run was made."""

    def __init__(self, layout: RunLayout, asked: Mapping[str, Any]) -> None:
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._path = layout.root / "collections" / f"{self._started.replace(':', '')[:17]}-{uuid.uuid4().hex[:8]}.json"
        self._asked = dict(asked)

    def write(self, **outcome: Any) -> None:
        """Put it down, with what came of it."""
        facts = {"started_at": self._started, "asked": self._asked, "environment": describe_environment(), **outcome}
        self._path.parent.mkdir(exist_ok=True)
        write_whole(self._path, json.dumps(facts, default=str, indent=2).encode(), durable=True)


def _chosen(options: CollectorOptions) -> dict[str, Any]:
    """The options that are not their defaults, under the names of the command line."""
    plain = CollectorOptions()
    chosen = {
        f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != getattr(plain, f.name)
    }
    if "reduction" in chosen:
        chosen["reduction"] = chosen["reduction"] or "none"
    if "iou_threshold" in chosen:
        chosen["iou"] = chosen.pop("iou_threshold")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def _check_options(options: CollectorOptions, collectors: Sequence[str], typed: Collection[str]) -> None:
    """That every option reaches a collector.

    Raises:
        UsageError: One does not.
    """
    plain = CollectorOptions()
    for name, takers in _ONLY_FOR.items():
        flag = "iou" if name == "iou_threshold" else name
        asked = flag in typed or getattr(options, name) != getattr(plain, name)
        if asked and not set(takers) & set(collectors):
            raise UsageError(
                f"--{flag} is an option of --collectors {' or '.join(takers)}",
                hint="name that collector, or leave it out",
                refused=(flag,),
            )
    if options.reduction is None and ("components" in typed or options.components != plain.components):
        raise UsageError(
            "--components: --reduction none keeps all dimensions",
            hint="leave out one of them",
            refused=("components",),
            by=("reduction",),
        )


def _check_opening(opening: Opening, rows: Any) -> None:
    """That every option about the data is one of this kind of data.

    Raises:
        UsageError: One is not.
    """
    own = not isinstance(rows, SourceRows)
    if own and (said := [n for n in ("mode", "resize", "mean", "std") if getattr(opening, n) is not None]):
        raise UsageError(
            f"--{said[0]}: a table of your own is taken as it is",
            hint="prepare the samples in the table",
            refused=tuple(said),
        )
    if opening.mode is not None and not (opening.reads_mode and (own or rows.reads_mode)):
        raise UsageError(
            f"--mode: the samples of {opening.data} have no mode",
            hint="it chooses among inputs kept in a run",
            refused=("mode",),
        )
    if opening.ds_id is not None and opening.data is not None:
        raise UsageError(
            "--ds-id: it chooses among inputs kept in a run, and --data names others",
            hint="leave out one of them",
            refused=("ds_id",),
            by=("data",),
        )


def _result(layout: RunLayout, selection: dict[str, Any], collected: Collected) -> Result:
    data = _summary(collected.tables, without=(*HEADING, _CHECKPOINT))
    rows = sum(table.num_rows for table in collected.tables.values())
    answer = Answer(
        command="collect",
        run=layout.described,
        selection=selection | {"head": list(collected.decided), "files": [str(path) for path in collected.paths]},
        data=data,
        counts=Counts(rows=rows, non_finite=int(data["non_finite"].sum()), dropped=len(collected.unreadable)),
        warnings=(*(f"left out: {text}" for text in collected.unreadable), *collected.doubts),
    )

    def build() -> Report:
        read = f" The model's output is {'; '.join(collected.decided)}." if collected.decided else ""
        said = f"{', '.join(f'{t.num_rows:,} rows in {name}' for name, t in collected.tables.items())}.{read}"
        return plain_report(answer, RunFacts.of(layout), title="Collected metrics", sentence=said, terminal_rows=60)

    return Result(answer, build)


def _model_inputs(batch: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(batch[0])


def _names_of(layout: RunLayout) -> tuple[str, ...]:
    return layout.read_manifest().label_names or () if layout.is_run() else ()


def _other_ids(layout: RunLayout, table: Any) -> tuple[str, ...]:
    """What to say of samples whose ids are of another kind than the run's: they are none of its samples."""
    kind, ids = layout.read_manifest().id_type, table.sample_ids
    if kind is None or ids is None or not len(ids) or not layout.data.is_dir():
        return ()
    own = "string" if isinstance(ids[0], str) else "int64"
    if str(kind) == own:
        return ()
    said = {"string": "texts", "int64": "integers"}
    return (
        f"the data's sample ids are {said[own]}, the run's {said.get(str(kind), kind)}: what was collected stands in "
        "the table and belongs to no sample of the run",
    )


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _summary(tables: Mapping[str, pa.Table], *, without: Collection[str] = ()) -> pl.DataFrame:
    """One row a column, but for those `without`: missing values, rows, table, type, and of numbers mean and range.

    Classes have numbers and no mean.
    """
    return pl.DataFrame(
        [
            {"table": name, "column": field.name, "type": kind, **_figures(rows[field.name], kind)}
            for name, rows in tables.items()
            for field in rows.schema
            if field.name not in without
            for kind in [schema_of(field).kind]
        ],
        # What says most comes first: a narrow terminal shows no more.
        schema={
            "column": pl.String,
            "mean": pl.Float64,
            "min": pl.Float64,
            "max": pl.Float64,
            "missing": pl.Int64,
            "rows": pl.Int64,
            "table": pl.String,
            "type": pl.String,
            "non_finite": pl.Int64,
        },
    )


def _figures(column: pa.ChunkedArray, meaning: str) -> dict[str, Any]:
    known: dict[str, Any] = {"rows": len(column), "missing": column.null_count}
    kind = column.type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if not is_number or meaning == CategoricalLabel.kind:
        return known
    values = pl.Series(pl.from_arrow(column)).cast(pl.Float64).drop_nulls()
    finite = values.filter(values.is_finite())
    return known | {
        "non_finite": len(values) - len(finite),
        "mean": finite.mean(),
        "min": finite.min(),
        "max": finite.max(),
    }
