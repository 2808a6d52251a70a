"""What a run keeps beside its samples: scalars, thumbnails, inputs, tables, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.layout import RunLayout
from xaicli.manifest import Manifest
from xaicli.recorder import media, scalars
from xaicli.recorder.session import Session

if TYPE_CHECKING:
    from xaicli.state import TrainingState

_TOLD_BY_LABELS = ("binary", "multilabel", "regression")
"""Tasks that the labels of a run tell for certain; a class a sample goes with segmentation, too."""


class Records:
    """The part of `Run` that is not about sample rows."""

    layout: RunLayout
    state: TrainingState
    _session: Session
    _unusable: ValueError | None

    @property
    def writer(self) -> tuple[int, int]:
        """The attempt and the rank, which no two processes share."""
        return self._session.writer_of_rows()

    @property
    def manifest(self) -> Manifest:
        """What `xai.json` holds, as far as this process knows."""
        return self._session.catalogue.manifest

    def _refuse(self, error: Exception, rows: int | None) -> None:
        """Count a batch of rows, or (None) another record, that cannot be stored; with `strict` raise."""
        raise NotImplementedError

    def log(self, values: Mapping[str, Any]) -> None:
        """Record per-step values of the whole run.

        Args:
            values: {key: number}. A key `step`, `iteration` or `epoch` gives the time axis, else a counter does.

        Raises:
            ValueError: With `strict`: a value is no number; it is named.
        """
        try:
            if self._unusable is not None:
                raise self._unusable
            state = self.state
            moment = scalars.Moment(
                state.mode or "", state.ds_id, state.epoch_idx or None, state.log_count, *self.writer
            )
            rows = scalars.scalar_rows(values, moment)
            state.log_count += 1
            self._session.scalars.add(rows, 100 * len(rows))
        except Exception as error:
            self._refuse(error, None)

    def log_images(self, sample_id: Any, images: Any) -> None:
        """Keep thumbnails for reports; a later one of the same sample replaces the earlier.

        Args:
            sample_id: (N,) ids.
            images: (N, H, W, C), (N, C, H, W) or (N, H, W), uint8 or float.

        Raises:
            ValueError: With `strict`: they are no pictures, or not as many as the ids.
        """
        try:
            if self._unusable is not None:
                raise self._unusable
            rows = media.image_rows(sample_id, images, mode=self.state.mode or "", ds_id=self.state.ds_id)
            self._session.media.add(rows, sum(len(row[-1]) for row in rows))
        except Exception as error:
            self._refuse(error, None)

    def log_inputs(self, sample_id: Any, inputs: Any, label: Any = None) -> None:
        """Keep exact model inputs for saliency; a later one of the same sample replaces the earlier.

        Args:
            sample_id: (N,) ids.
            inputs: (N, ...), or {input name: (N, ...)}.
            label: (N,) labels.

        Raises:
            ValueError: With `strict`: they are not as many as the ids.
        """
        try:
            if self._unusable is not None:
                raise self._unusable
            rows = media.input_rows(sample_id, inputs, label, mode=self.state.mode or "", ds_id=self.state.ds_id)
            self._session.inputs.add(rows, sum(len(row[-1]) for row in rows))
        except Exception as error:
            self._refuse(error, None)

    def add_metrics_data(
        self,
        metrics: Any,
        *,
        input_table_url: Any = None,
        override_column_schemas: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Path:
        """Add rows to a metrics table of the run, beside its samples; they are durable when this returns.

        Args:
            metrics: Columns by name, all of one length. With `example_id` (rows of the input table, from 0) rows may
                repeat and need not cover every sample; without it row i is sample i of the input table.
            input_table_url: The `Table` the samples are of, or its `url`.
            override_column_schemas: What columns mean; inferred where nothing is said.
            constants: Columns that are the same in all rows.
            name: The table; when None the first of `metrics`, `metrics-2`, ... that is new or has these columns.

        Returns:
            The file written.

        Raises:
            XaiError: The columns differ in length, one cannot be stored, or the input table is unknown.
            OSError: It cannot be written.
        """
        from xaicli.recorder.tables import append_table
        from xaicli.tables.metrics_table import check_fits, default_name, metrics_table

        table = metrics_table(
            metrics, input_table=input_table_url, schemas=override_column_schemas, constants=constants
        )
        if name:
            check_fits(self.layout, name, table)
        return append_table(self.layout, self.writer, name or default_name(self.layout, table), table)

    def add_metrics(
        self, metrics: Any, *, foreign_table_url: Any = None, schema: Mapping[str, Any] | None = None, **others: Any
    ) -> Path:
        """`add_metrics_data` in its other spelling."""
        return self.add_metrics_data(
            metrics, input_table_url=foreign_table_url, override_column_schemas=schema, **others
        )

    def save_checkpoint(
        self,
        model: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        example_inputs: Any = None,
        arch: Any = None,
        arch_args: Mapping[str, Any] | None = None,
        label_names: Sequence[str] | None = None,
        input_range: tuple[float, float] | None = None,
    ) -> Path:
        """Write a checkpoint that `xai saliency` loads without user code where the model can be exported.

        Args:
            model: A `torch.nn.Module`.
            path: Where; `checkpoints/ckpt.pt` of the run when None.
            example_inputs: Inputs to export the model with.
            arch: What makes the model, where it cannot be exported.
            arch_args: Its arguments.
            label_names: The classes' names; the run's when None.
            input_range: Smallest and largest value of an input.

        Returns:
            The path written.
        """
        from xaicli.checkpoint.save import save_checkpoint

        self.state.note_model("model", model)
        names = label_names or self.manifest.label_names
        return save_checkpoint(
            model,
            self.layout.checkpoints / "ckpt.pt" if path is None else path,
            example_inputs=example_inputs,
            arch=arch,
            arch_args=arch_args,
            label_names=list(names) if names else None,
            input_range=input_range,
            epoch=self.state.epoch_idx or None,
            step=self.state.global_step,
            task=self.manifest.task if self.manifest.task in _TOLD_BY_LABELS else None,
        )

    def keep_best(
        self,
        model: Any,
        value: Any,
        *,
        metric: str = "loss",
        better: str = "lower",
        keep: int = 1,
        **checkpoint: Any,
    ) -> Path | None:
        """Save a checkpoint if it is among the best by a metric; `checkpoints/best-<metric>.pt` is always the best.

        Args:
            model: A `torch.nn.Module`.
            value: The metric's value; one that is not finite is never among the best.
            metric: What the value is of.
            better: "lower" or "higher".
            keep: How many of the best to keep, `best-<metric>-<step>.pt`; the others are removed.
            **checkpoint: What `save_checkpoint` takes.

        Returns:
            The checkpoint written, or None: it was not among the best, or this is not rank 0.

        Raises:
            ValueError: `keep` or `better` makes no sense.
        """
        if self._session.settle().rank != 0:
            return None
        from xaicli.state.best import keep_best

        return keep_best(
            self.layout.checkpoints,
            lambda path: self.save_checkpoint(model, path, **checkpoint),
            metric=metric,
            value=float(value.item() if hasattr(value, "item") else value),
            better=better,
            keep=keep,
            epoch=self.state.epoch_idx,
            step=self.state.global_step or 0,
        )
