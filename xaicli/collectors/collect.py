"""One inference pass over a table: each batch goes through the model once and to every collector."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate

from xaicli.collectors.collector import METRICS, MetricsCollector, as_collectors
from xaicli.collectors.gathering import BatchOfRows, CollectorError, Gathering, Heading, Recipient, moment
from xaicli.collectors.outputs import TARGETS
from xaicli.collectors.predictor import Predictor
from xaicli.errors import UsageError, XaiError, leaving
from xaicli.layout import RunLayout
from xaicli.recorder.parts import append_table
from xaicli.recorder.run import active_run
from xaicli.state.randomness import randomness_kept
from xaicli.tables.metrics_table import EXAMPLE_ID, misfit, names_like, renamed_classes, stored_columns
from xaicli.tables.rows import Unreadable
from xaicli.tables.table import CollectView, Table

_BATCH_SIZE = 64
_OURS = ("dataset", "shuffle", "sampler", "batch_sampler", "drop_last")
_AXES = ("epoch", "iteration", "step")
_PART_ROWS = 1 << 17

Progress = Callable[[int, int], None]
"""(samples done, samples in all)."""


@dataclass(frozen=True)
class Collected:
    """What a pass brought.

    Attributes:
        tables: The rows by table, as they were written to the run.
        aggregates: The scalars the run got, without the split before their names.
        paths: The files written.
        unreadable: Of each sample that could not be read, its name and why.
        decided: What the model's output was taken for, one sentence a head.
        doubts: What a user should know of the figures, one sentence each: labels that are no class, say.
    """

    tables: Mapping[str, pa.Table]
    aggregates: Mapping[str, float]
    paths: tuple[Path, ...]
    unreadable: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


class CollectionError(CollectorError):
    """Collectors failed; what the others brought is in the run, and in `collected`."""

    def __init__(self, failures: list[CollectorError], collected: Collected) -> None:
        kept = ", ".join(collected.tables) or "nothing"
        super().__init__(
            "; ".join(failure.message for failure in failures),
            hint=" ".join(filter(None, [failures[0].hint, f"kept from the other collectors: {kept}"])),
        )
        self.collected = collected


def collect_metrics(
    table: Table,
    metrics_collectors: MetricsCollector | Callable[..., Any] | list[Any] | tuple[Any, ...],
    model_or_predictor: nn.Module | Predictor | Callable[..., Any],
    *,
    constants: Mapping[str, Any] | None = None,
    split: str = "",
    run: Recipient | None = None,
    dataloader_args: Mapping[str, Any] | None = None,
    exclude_zero_weights: bool = False,
    collect_aggregates: bool = True,
    progress: Progress | bool = True,
    seed: int = 0,
    strict: bool = False,
) -> Collected:
    """Run a model over a table once and write what the collectors make of it into the run.

    The model runs in evaluation mode without gradients; its modes, gradient flags, hooks and device are as before
    afterwards, and so is every random generator: collecting during training does not change the training. Samples
    come in the table's order through `Table.map_collect_metrics`. Memory grows with what the collectors return.

    Args:
        table: The samples; a torch dataset is made a `Table`.
        metrics_collectors: One collector or function `(batch, predictor output) -> columns`, or several.
        model_or_predictor: A model, or a `Predictor` with device, precision and hidden layers of its own.
        constants: Columns that are the same in all rows (`{"epoch": 3}`); epoch and step are the run's unless given.
        split: What part of the data this is; a column, and the prefix of the scalars (`val/loss`).
        run: The run; the active one when None.
        dataloader_args: Options of the `DataLoader` (batch_size, num_workers, collate_fn, ...).
        exclude_zero_weights: Leave out samples of weight 0.
        collect_aggregates: Log means of the columns as scalars of the run.
        progress: Called with (samples done, samples in all) after every batch; True is a bar, on a terminal only.
        seed: Of the random numbers that transforms draw while collecting.
        strict: Raise for a sample that cannot be read; else it is left out, named in a warning and in the result.

    Returns:
        The rows, scalars and files.

    Raises:
        CollectionError: A collector failed; the others' rows are written, and in the error's `collected`.
        UsageError: The arguments make no sense.
        XaiError: No sample can be read, or with `strict` one cannot.
        ValueError: No run was given and none is active.
    """
    run = run if run is not None else active_run()
    table = table if isinstance(table, Table) else Table(table)
    collectors = as_collectors(metrics_collectors)
    predictor = (
        model_or_predictor if isinstance(model_or_predictor, Predictor) else Predictor(model_or_predictor)
    ).with_layers([layer for collector in collectors for layer in collector.layers])
    indices = table.indices(exclude_zero_weights=exclude_zero_weights)
    if not indices:
        raise UsageError(f"{table!r} has no samples to collect metrics of")
    loader = _loader(table, indices, dataloader_args or {}, seed)
    with leaving(lambda: f"no row of this pass over {len(indices):,} samples is kept"), _shown(progress) as told:
        passed = _pass(loader, predictor, collectors, len(indices), told, seed, strict)
    gatherings = passed.gatherings
    results = _finished(gatherings, run)
    head = Heading(table, split, moment(run) | dict(constants or {}))
    tables = _fitting(run.layout, {name: head.before(rows) for name, rows in _merged(results).items()})
    renamed = tuple(said for name, rows in tables.items() for said in renamed_classes(run.layout, name, rows))
    paths: tuple[Path, ...] = ()
    with leaving(lambda: f"{len(paths):,} files of rows of this pass are there, the others and its means are not"):
        for name, rows in tables.items():
            for start in range(0, rows.num_rows, _PART_ROWS):
                paths += (append_table(run.layout, run.writer, name, rows.slice(start, _PART_ROWS)),)
    table.log_facts(run)
    doubts = tuple(dict.fromkeys(said for gathering, found in results for said in gathering.collector.doubts(found)))
    doubts = (*filter(None, [passed.doubt]), *doubts, *head.doubts, *renamed)
    for said in doubts:
        warnings.warn(f"xai: {said}", stacklevel=2)
    aggregates: dict[str, float] = {}
    if collect_aggregates:
        for gathering, found in results:
            aggregates |= gathering.collector.aggregates(found) if gathering.collector.compute_aggregates else {}
        if aggregates:
            named = {f"{split}/{name}" if split else name: value for name, value in aggregates.items()}
            times = {axis: head.constants[axis] for axis in _AXES if head.constants.get(axis) is not None}
            run.log(times | named)
    collected = Collected(tables, aggregates, paths, tuple(passed.unreadable), passed.decided, doubts)
    if failures := [gathering.failure for gathering in gatherings if gathering.failure is not None]:
        raise CollectionError(failures, collected)
    return collected


@dataclass
class _Passed:
    """What came of the batches: each collector's columns, the samples that could not be read, the heads' sentences."""

    gatherings: list[Gathering]
    unreadable: list[str]
    decided: tuple[str, ...] = ()
    doubt: str = ""


def _pass(
    loader: DataLoader[Any],
    predictor: Predictor,
    collectors: list[MetricsCollector],
    total: int,
    progress: Progress | None,
    seed: int,
    strict: bool,
) -> _Passed:
    """Every batch through the model once and to every collector."""
    taken: dict[str, str] = {}
    passed = _Passed([Gathering(collector) for collector in collectors], [])
    done = 0
    first: tuple[Any, int] | None = None
    with predictor.ready(), randomness_kept(predictor.device, seed=seed):
        for number, (alike, unreadable) in enumerate(loader):
            passed.unreadable += unreadable
            if unreadable and strict:
                raise XaiError(f"cannot be read: {unreadable[0]}", hint="without strict it is left out and named")
            for example_id, samples in alike:
                if not done and predictor.module is not None:
                    passed.doubt = predictor.doubt(samples, len(example_id))
                first = first or (samples, len(example_id))
                rows = BatchOfRows(number, example_id)
                with nullcontext() if done else predictor.watched():
                    _batch(passed.gatherings, predictor, samples, rows, taken, first=not done)
                done += len(example_id)
                if progress is not None:
                    progress(done, total)
        passed.decided = predictor.decided
        if first is not None and predictor.module is None:
            # At the end: a function may give what it has in its own order, and is out of it afterwards.
            passed.doubt = predictor.doubt(*first)
            predictor.refuse_misplaced()
    if not done:
        raise XaiError("no sample can be read", hint=passed.unreadable[0] if passed.unreadable else "there is none")
    if passed.unreadable:
        shown = "; ".join(passed.unreadable[:3]) + ("; ..." if len(passed.unreadable) > 3 else "")
        warnings.warn(f"xai: {len(passed.unreadable)} samples are left out: {shown}", stacklevel=4)
    return passed


def _batch(
    gatherings: list[Gathering],
    predictor: Predictor,
    samples: Any,
    rows: BatchOfRows,
    taken: dict[str, str],
    *,
    first: bool,
) -> None:
    """One batch through the model and to every collector."""
    batch = predictor.to_device(samples)
    try:
        output = predictor(batch, rows.example_id)
    except Exception as error:
        error.add_note(f"while the model ran on {rows}")
        raise
    for gathering in gatherings:
        # What an earlier collector fills is known once it has seen its first batch.
        gathering.taken = dict(taken) if first else gathering.taken
        gathering.add(batch, output, rows)
        if first:
            taken |= dict.fromkeys(gathering.columns, gathering.collector.name)


def _finished(gatherings: list[Gathering], run: Recipient) -> list[tuple[Gathering, Mapping[str, pa.Table]]]:
    """Each collector's tables after it had its last look at them; a failure there ends that collector alone."""
    results: list[tuple[Gathering, Mapping[str, pa.Table]]] = []
    for gathering in gatherings:
        if gathering.failure is not None:
            continue
        try:
            results.append((gathering, gathering.collector.finish(gathering.tables(), run.layout)))
        except Exception as error:
            told = f"collector {gathering.collector.name} failed after the last batch: {error}"
            gathering.failure = CollectorError(told, hint=getattr(error, "hint", ""))
            gathering.failure.__cause__ = error
    return results


def _merged(results: list[tuple[Gathering, Mapping[str, pa.Table]]]) -> dict[str, pa.Table]:
    """The tables of all collectors; those of one row a sample side by side in one."""
    merged: dict[str, pa.Table] = {}
    for gathering, tables in results:
        for name, rows in tables.items():
            if name not in merged:
                merged[name] = rows
            elif name == METRICS and rows[EXAMPLE_ID].equals(merged[name][EXAMPLE_ID]):
                for column in rows.schema:
                    if column.name != EXAMPLE_ID:
                        merged[name] = merged[name].append_column(column, rows[column.name])
            else:
                free = (other for other in names_like(f"{name}-{gathering.collector.name}") if other not in merged)
                merged[next(free)] = rows
    return merged


def _fitting(layout: RunLayout, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables by the first name under which the run has none with another type in one of their columns."""
    return {
        next(like for like in names_like(name) if misfit(stored_columns(layout, like) or {}, rows) is None): rows
        for name, rows in tables.items()
    }


@dataclass(frozen=True)
class _Collate:
    """Keeps row numbers beside what the caller's own collation makes of the samples.

    Texts of several lengths are batches of their own, a length each: nothing is padded that the model might see.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, pairs: list[tuple[int, Any]]) -> tuple[list[tuple[list[int], Any]], list[str]]:
        alike: dict[Any, list[tuple[int, Any]]] = {}
        for index, sample in pairs:
            if not isinstance(sample, Unreadable):
                length = _text_lengths(sample) if self.collate is default_collate else None
                alike.setdefault(length, []).append((index, sample))
        unreadable = [sample.why for _, sample in pairs if isinstance(sample, Unreadable)]
        together = [([index for index, _ in of], self._together([sample for _, sample in of])) for of in alike.values()]
        return together, unreadable

    def _together(self, samples: list[Any]) -> Any:
        try:
            if self.collate is default_collate and (together := _with_listed_labels(samples)) is not None:
                return together
            return self.collate(samples)
        except (TypeError, RuntimeError) as error:
            raise XaiError(
                f"the samples cannot be put into a batch: {error}",
                hint="make tensors of one shape with table.map_collect_metrics(fn), or give Table(..., collate_fn=fn)",
            ) from error


def _text_lengths(sample: Any) -> tuple[int, ...]:
    """The lengths of what may be token ids and what stands beside them: vectors of whole numbers."""
    if isinstance(sample, (np.ndarray, torch.Tensor)):
        is_whole = sample.dtype.kind in "iu" if isinstance(sample, np.ndarray) else _is_whole(sample)
        return (len(sample),) if is_whole and sample.ndim == 1 else ()
    parts = sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, (list, tuple)) else ()
    return tuple(length for part in parts for length in _text_lengths(part))


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _with_listed_labels(samples: list[Any]) -> Any:
    """Samples whose labels are lists of classes, texts or missing (None), with the labels as a list; None for others.

    torch's own collation turns lists of two classes into two columns, and fails on what is missing, or on a text among
    numbers.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        keys = [key for key in first if key in TARGETS and any(_is_listed(sample.get(key)) for sample in samples)]
        if not keys:
            return None
        rest = default_collate([{key: value for key, value in s.items() if key not in keys} for s in samples])
        return rest | {key: [sample[key] for sample in samples] for key in keys}
    if not (isinstance(first, (list, tuple)) and len(first) > 1 and any(_is_listed(sample[1]) for sample in samples)):
        return None
    before, after = zip(*((sample[:1], sample[2:]) for sample in samples), strict=True)
    rest = default_collate(list(after)) if after[0] else []
    return [*default_collate(list(before)), [sample[1] for sample in samples], *rest]


def _is_listed(label: Any) -> bool:
    if isinstance(label, (list, tuple, set, frozenset)):
        return all(isinstance(part, (int, float)) for part in label)
    return label is None or isinstance(label, str)


def _loader(table: Table, indices: list[int], arguments: Mapping[str, Any], seed: int) -> DataLoader[Any]:
    """Every sample once, in order.

    Raises:
        UsageError: The options would change which samples come, or in which order.
    """
    if ours := [name for name in _OURS if name in arguments]:
        raise UsageError(
            f"dataloader_args holds {ours[0]!r}: a collection visits every sample once, in order",
            hint="leave it out; choose samples by weights and exclude_zero_weights=True",
        )
    options = {"batch_size": _BATCH_SIZE, "generator": torch.Generator().manual_seed(seed), **arguments}
    collate = _Collate(options.pop("collate_fn", None) or table.collate_fn or default_collate)
    view: Any = CollectView(table, indices)
    return DataLoader(view, collate_fn=collate, **options)


@contextmanager
def _shown(progress: Progress | bool) -> Iterator[Progress | None]:
    """What tells the progress: the caller's own, a bar on standard error for True, nothing for False or in a pipe."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from xaicli.render.terminal import console

        columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console(stderr=True), transient=True) as bar:
            task = bar.add_task("samples", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield None
