"""A whole call: several checkpoints, the same samples, targets and draws; finished samples kept, shared among ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xaicli.attribution.assembly import explanation_of, saliency_of
from xaicli.attribution.captum_methods import named
from xaicli.attribution.chunks import learned_sizes, recall_sizes
from xaicli.attribution.engine import Explainer
from xaicli.attribution.evaluate import quality
from xaicli.attribution.explanation import (
    Explanation,
    Saliency,
    SanityStep,
)
from xaicli.attribution.frozen import fingerprint
from xaicli.attribution.prepared import Prepared, prepare
from xaicli.attribution.request import Column, Request
from xaicli.attribution.sanity import cascade
from xaicli.attribution.settings import Convention
from xaicli.attribution.store import Store, key_of
from xaicli.attribution.views import views_of
from xaicli.errors import XaiError

if TYPE_CHECKING:
    from xaicli.sources.inputs import Inputs

_ROWS_TOGETHER = 2048
_POLL_SECONDS = 0.5
_SANITY_UNITS = 8
"""Randomised models are compared on a few samples: each step costs as much as the maps themselves."""

Progress = Callable[[float, int], None]
"""(samples done, samples in all): a sample under way counts by the part that is done."""


@contextmanager
def _own_modes() -> Iterator[None]:
    """Gradients can be taken, in the precision asked for and alike each time, whatever modes the caller is in."""
    cudnn = torch.backends.cudnn
    with (
        torch.inference_mode(False),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False),
    ):
        yield


@_own_modes()
def explain(
    columns: Sequence[Column], inputs: Inputs, request: Request, *, progress: Progress | None = None
) -> Saliency:
    """Explain samples through one or more checkpoints.

    The last column is explained first: its predictions are the targets of all.

    Args:
        columns: In training order.
        inputs: The samples.
        request: What is asked.
        progress: Called with (samples done, samples in all).

    Returns:
        The answer; on a rank other than 0, only that rank's share.
    """
    if callable(request.target) and request.world_size > 1:
        raise XaiError("a function as --target cannot be shared among ranks", hint="run it in one process")
    if not inputs.sample_id:
        raise XaiError("there are no samples to explain", hint="choose some with --samples N, --ids or --pick")
    found: list[tuple[int, int, int, Explanation]] = []
    notes = dict.fromkeys(said for column in columns if (said := column.complaint(inputs)))
    advance = _advance(progress, len(columns) * len(request.outputs) * len(request.share(len(inputs.sample_id))))
    used = ""
    sanity: tuple[SanityStep, ...] = ()
    request = replace(request, captum=named(request.captum))
    for position, output in enumerate(request.outputs):
        frozen_targets: Any = request.target
        for number in reversed(range(len(columns))):
            work = _Work(columns[number], number, inputs, replace(request, target=frozen_targets), output)
            explained = work.run(advance)
            for row, explanations in explained.items():
                found += [(row, position, number, e) for e in explanations]
            notes |= dict.fromkeys(work.notes)
            used = work.precision or used
            sanity = sanity or work.sanity
            if len(columns) > 1 and number == len(columns) - 1 and not callable(request.target):
                frozen_targets = work.targets
    return saliency_of(columns, inputs, request, found, tuple(notes), used, sanity)


class _Work:
    """One column and output of a call."""

    def __init__(self, column: Column, number: int, inputs: Inputs, request: Request, output: str | int | None) -> None:
        self.column, self.number, self.inputs, self.request, self.output = column, number, inputs, request, output
        self.notes: tuple[str, ...] = ()
        self.targets: Any = None
        self.precision = ""
        self.sanity: tuple[SanityStep, ...] = ()
        # A function has no content to make a key of: its maps are not kept.
        self.store = Store(None if callable(request.target) else request.store)
        self._pictures = inputs.pictures.shape[1:3] if inputs.pictures is not None else None

    def run(self, advance: Callable[[float], None]) -> dict[int, tuple[Explanation, ...]]:
        """Every sample of this rank (of all ranks on rank 0), by its position."""
        request = self.request
        prepared = self._prepare()
        self.notes, self.targets = (
            prepared.notes,
            prepared.targets.reshape(len(self.inputs.sample_id), -1).cpu().numpy(),
        )
        keys = self._keys(prepared)
        mine = request.share(len(keys))
        recall_sizes(self.store.read_sizes())
        done = {row: kept for row in mine if (kept := self.store.read(keys[row])) is not None}
        advance(len(done))
        explainer = Explainer(
            prepared,
            request.settings,
            input_range=self.column.known,
            pictures=self._pictures,
            captum=request.captum,
        )
        self.precision = explainer.precision
        if request.sanity and request.rank == 0:
            self.sanity = self._cascade(explainer)
        for rows in self._groups([row for row in mine if row not in done]):
            done |= self._explained(explainer, rows, keys, advance)
        self.store.write_sizes(learned_sizes())
        if request.rank == 0:
            done |= self._others(keys, set(mine))
        return {row: self._with_views(explanations, row, prepared) for row, explanations in done.items()}

    def _prepare(self) -> Prepared:
        facts = self.column.facts
        return prepare(
            self.column.load(),
            self.inputs.arrays,
            target=self.request.target,
            device=self.request.device,
            labels=self.inputs.label,
            label_names=self.request.label_names,
            output=self.output,
            static_batch=facts.static_batch if facts else None,
            raw=self.request.settings.convention is Convention.FE,
        )

    def _keys(self, prepared: Prepared) -> list[str]:
        """One key per sample, of everything its maps depend on; equal on every rank."""
        request, arrays = self.request, list(self.inputs.arrays.values())
        whole_batch = arrays if request.settings.convention is Convention.FE else []
        start = request.settings.baseline
        asked = (
            request.settings,
            start.read_bytes() if isinstance(start, Path) else "",
            self.output,
            request.device.partition(":")[0],
            request.captum,
            request.evaluate,
            request.label_names,
            self.column.known,
        )
        common = key_of(fingerprint(prepared.model.model), *asked, *whole_batch)
        labels = self.inputs.label or [None] * len(self.inputs.sample_id)
        return [
            key_of(common, sample_id, labels[row], self.targets[row].tolist(), *(a[row] for a in arrays))
            for row, sample_id in enumerate(self.inputs.sample_id)
        ]

    def _groups(self, rows: list[int]) -> Iterator[list[int]]:
        if self.request.settings.convention is Convention.FE:
            # Its numbers depend on the whole batch.
            if rows:
                yield list(range(len(self.inputs.sample_id)))
            return
        per_sample = self.request.settings.evaluations_per_sample * self.targets.shape[1]
        size = max(1, _ROWS_TOGETHER // max(1, per_sample))
        for first in range(0, len(rows), size):
            yield rows[first : first + size]

    def _explained(
        self, explainer: Explainer, rows: list[int], keys: list[str], advance: Callable[[float], None]
    ) -> dict[int, tuple[Explanation, ...]]:
        k = self.targets.shape[1]
        units = torch.tensor([row * k + t for row in rows for t in range(k)], device=explainer.prepared.units.device)
        last = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal last
            advance(len(rows) * (done / total - last))
            last = done / total

        attribution = explainer.explain(units, progress=progress)
        if self.request.evaluate:
            attribution = replace(attribution, quality=quality(explainer, attribution, units))
        advance(len(rows) * (1.0 - last))
        self.notes = (*self.notes, *attribution.notes)
        found = {}
        names = self.request.label_names
        for place, row in enumerate(rows):
            explanations = tuple(
                explanation_of(attribution, place * k + t, row, self.inputs, names, self.number, self.output)
                for t in range(k)
            )
            self.store.write(keys[row], explanations)
            found[row] = explanations
        return found

    def _cascade(self, explainer: Explainer) -> tuple[SanityStep, ...]:
        units = torch.arange(min(_SANITY_UNITS, len(explainer.prepared.units)), device=explainer.prepared.units.device)
        return cascade(explainer, explainer.explain(units), units)

    def _others(self, keys: list[str], mine: set[int]) -> dict[int, tuple[Explanation, ...]]:
        """The samples of other ranks, as they finish."""
        found: dict[int, tuple[Explanation, ...]] = {}
        waiting = [row for row in range(len(keys)) if row not in mine]
        while waiting:
            for row in list(waiting):
                kept = self.store.read(keys[row])
                if kept is not None:
                    found[row] = kept
                    waiting.remove(row)
            if waiting:
                time.sleep(_POLL_SECONDS)
        return found

    def _with_views(self, explanations: Sequence[Explanation], row: int, prepared: Prepared) -> tuple[Explanation, ...]:
        embedded = [prepared.names[i] for i in prepared.embedded]
        views = views_of(self.inputs.arrays, self.inputs.pictures, row, embedded=embedded, known=self.column.known)
        return tuple(replace(e, inputs=views, checkpoint=self.number) for e in explanations)


def _advance(progress: Progress | None, total: int) -> Callable[[float], None]:
    done = 0.0

    def advance(samples: float) -> None:
        nonlocal done
        done += samples
        if progress is not None:
            progress(done, total)

    return advance
