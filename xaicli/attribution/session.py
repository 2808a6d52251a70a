"""A whole call: several checkpoints, the same samples, targets and draws; finished samples kept, shared among ranks."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from xaicli.attribution.answer import Found, explanations_of, saliency_of, together
from xaicli.attribution.captum_methods import named, taken_by
from xaicli.attribution.engine import Explainer
from xaicli.attribution.explanation import CheckpointColumn, Saliency, SanityStep
from xaicli.attribution.fingerprint import fingerprint
from xaicli.attribution.inputs import InputRange, device_of, told_of, using
from xaicli.attribution.maps import views_of
from xaicli.attribution.prepared import Prepared, prepare
from xaicli.attribution.quality import cascade, quality
from xaicli.attribution.settings import Convention, Precision, Settings, Target
from xaicli.attribution.store import Finished, Store, key_of
from xaicli.attribution.targets import LOSS, split_place
from xaicli.errors import InterruptedWorkError, UsageError, XaiError
from xaicli.progress import doing
from xaicli.state.randomness import randomness_kept

if TYPE_CHECKING:
    from xaicli.checkpoint.facts import CheckpointFacts, LoadedModel
    from xaicli.sources.inputs import Inputs

_PREPARING = threading.Lock()
_PASSES_TOGETHER = 8
"""So many passes explain samples together: a few seconds of a large model, after which what is finished is kept."""
_POLL_SECONDS = 0.5
_SILENT_SECONDS = 20.0
"""A rank that has given no sign of life for so long is not waited for: its samples are explained here."""
_BEAT_SECONDS = 2.0
_SANITY_UNITS = 8
"""Randomised models are compared on a few samples: each step costs as much as the maps themselves."""
_MARGIN = 0.25
"""How far beyond the known range, as a share of it, an input may reach without a word: noise, another normalisation."""

Progress = Callable[[int, int, float], None]
"""(samples finished, samples in all, samples' worth of what is under way): finished ones are kept, where any are."""
Advance = Callable[[int, float], None]
"""(samples more that are finished, samples' worth of what is under way)."""


@dataclass(frozen=True)
class Column:
    """One model to be explained.

    Attributes:
        name: What the column is called.
        load: Gives the model, with its facts where it is from a checkpoint; called when its turn comes, and let go of
            before that of the next.
        facts: What its checkpoint says; None for a bare module.
    """

    name: str
    load: Callable[[], nn.Module | LoadedModel]
    facts: CheckpointFacts | None = None

    @property
    def known(self) -> InputRange:
        """What the checkpoint says of its inputs' range; unknown where the model did not come from one."""
        facts = self.facts
        if facts is None:
            return InputRange()
        return InputRange(facts.input_range[0] if facts.input_range else None, facts.mean, facts.std)

    def notes(self, inputs: Inputs) -> Iterator[str]:
        """What to say before anything is explained: what was left out in loading, inputs far outside their range."""
        facts = self.facts
        if facts is None:
            return
        yield from facts.notes
        if facts.input_range is None or facts.mean is not None or len(inputs.arrays) != 1:
            return
        values = next(iter(inputs.arrays.values()))
        if values.dtype.kind not in "fiu" or not values.size:
            return
        low, high = facts.input_range
        margin = _MARGIN * (high - low)
        least, most = float(values.min()), float(values.max())
        if least < low - margin or most > high + margin:
            yield f"inputs reach from {least:.3g} to {most:.3g}, but the model was saved for {low:.3g} to {high:.3g}"

    def described(self) -> CheckpointColumn:
        """The checkpoint as a report names it."""
        facts = self.facts
        if facts is None:
            return CheckpointColumn(self.name)
        return CheckpointColumn(self.name, str(facts.path), facts.sha256, facts.epoch, facts.step)


@dataclass(frozen=True)
class Request:
    """What is asked of a session.

    Attributes:
        target, place, outputs: As `prepare`'s target, place and output; several outputs are explained one after the
            other.
        task: What the outputs mean, where the model does not say it.
        store: Where finished samples are kept; None to keep nothing.
        captum: Further methods by their names in `captum.attr`.
        evaluate, sanity: Also score the maps; also compare them with those of randomised models.
        mean, std: What normalised the samples' pictures, where the caller says it and not the checkpoint.
        rank, world_size: Which share of the samples is this process's.
    """

    settings: Settings
    target: Target | Any = "predicted"
    place: int | None = None
    outputs: tuple[str | int | None, ...] = (None,)
    task: str | None = None
    device: str = "auto"
    label_names: tuple[str, ...] = ()
    store: Path | None = None
    captum: tuple[str, ...] = ()
    evaluate: bool = False
    sanity: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rank: int = 0
    world_size: int = 1

    def share(self, n: int, rank: int | None = None) -> list[int]:
        """The positions of a rank's samples; the seed's convention cannot divide its batch."""
        rank = self.rank if rank is None else rank
        if self.settings.convention is Convention.FE:
            return list(range(n)) if rank == 0 else []
        return list(range(rank, n, self.world_size))


@contextmanager
def _own_modes(place: torch.device) -> Iterator[None]:
    """Gradients can be taken, alike each time, whatever modes the caller is in; the caller's random numbers stay."""
    cudnn: Any = torch.backends.cudnn
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with (
            using(place),
            torch.inference_mode(False),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            randomness_kept(place),
        ):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark


_TF32_PLACES: Any = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]


@contextmanager
def in_one_order(wanted: bool) -> Iterator[None]:
    """Sums that a GPU makes by atomic additions are made in one order, where torch has a kernel that does; as before
    after.
    """
    if not wanted or torch.are_deterministic_algorithms_enabled():
        yield
        return
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing here reads what it did not write
    try:
        with warnings.catch_warnings():
            # Of operations without such a kernel: the model's own, about which there is nothing to do.
            warnings.filterwarnings("ignore", message=".*deterministic.*", category=UserWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(False)
        memory.fill_uninitialized_memory = filling


@contextmanager
def in_ieee(wanted: bool) -> Iterator[None]:
    """Products and convolutions of float32 in float32, and not in TF32, whatever torch is set to; as before after."""
    places = _TF32_PLACES if wanted else ()
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def explain(
    columns: Sequence[Column],
    inputs: Inputs,
    request: Request,
    *,
    progress: Progress | None = None,
    part: tuple[int, int] = (0, 0),
) -> Saliency:
    """Explain samples through one or more checkpoints.

    The last column is explained first: its predictions are the targets of all.

    Args:
        columns: In training order.
        inputs: The samples.
        request: What is asked.
        progress: Told of each sample that is finished.
        part: Where these are a part of what is asked for: how many are finished before, and how many there are in all.

    Returns:
        The answer; on a rank other than 0, only that rank's share.
    """
    place = device_of(request.device)
    on_gpu = place.type == "cuda"
    with _own_modes(place), in_one_order(on_gpu), in_ieee(on_gpu and request.settings.precision is Precision.FP32):
        return _explained(columns, inputs, request, progress, part)


def explain_alike(
    columns: Sequence[Column],
    parts: Sequence[tuple[Sequence[int], Inputs]],
    request: Request,
    *,
    progress: Progress | None = None,
) -> Saliency:
    """Explain samples of several shapes, each shape in a call of its own: a map depends on its own sample alone.

    Args:
        columns: In training order.
        parts: The places of some samples among all, and these samples, of one shape.
        request: What is asked; randomised models are compared on the samples of the most frequent shape.
        progress: Told of each sample that is finished.

    Raises:
        UsageError: The seed's convention is asked for, whose numbers depend on the whole batch.
    """
    if len(parts) == 1:
        return explain(columns, parts[0][1], request, progress=progress)
    if request.settings.convention is Convention.FE:
        raise UsageError(
            f"the fe convention needs one batch, and the samples are of {len(parts)} shapes",
            hint="--convention xai, or --ids with samples of one shape",
        )
    sizes = [len(columns) * len(request.outputs) * len(request.share(len(places))) for places, _ in parts]
    most = max(range(len(parts)), key=lambda part: len(parts[part][0]))
    found: list[tuple[Sequence[int], Inputs, Saliency]] = []
    before = 0
    for number, (places, inputs) in enumerate(parts):

        def advance(done: int, _: int, under_way: float, before: int = before) -> None:
            if progress is not None:
                progress(before + done, sum(sizes), under_way)

        asked = replace(request, sanity=request.sanity and number == most)
        found.append((places, inputs, explain(columns, inputs, asked, progress=advance, part=(before, sum(sizes)))))
        before += sizes[number]
    whole = together(found)
    if not request.sanity:
        return whole
    said = f"randomised models were compared on samples of the most frequent shape, {len(parts[most][0])} of them"
    return replace(whole, notes=(*whole.notes, said))


def _explained(
    columns: Sequence[Column], inputs: Inputs, request: Request, progress: Progress | None, part: tuple[int, int]
) -> Saliency:
    """`explain`, in modes of its own."""
    if callable(request.target) and request.world_size > 1:
        raise XaiError("a function as --target cannot be shared among ranks", hint="run it in one process")
    if not inputs.sample_id:
        raise XaiError("there are no samples to explain", hint="choose some with --samples N, --ids or --pick")
    found: list[Found] = []
    columns = list(columns)
    request = replace(request, captum=named(request.captum))
    notes = {
        f"{name} was not used: no method that was asked for takes it": None
        for name in request.settings.unused
        if name not in taken_by(request.captum)
    }
    if callable(request.target):
        if request.outputs != (None,):
            raise UsageError(
                "a function as target is given all that the model returns, and an output is chosen besides",
                hint="choose it in the function, def target(outputs): return outputs['logits'][:, 3], or leave it out",
            )
        notes |= {"task was not used: a function of the model's outputs is explained": None} if request.task else {}
    total = len(columns) * len(request.outputs) * len(request.share(len(inputs.sample_id)))
    advance = _advance(progress, total)
    used, decided = "", dict[str, None]()
    said: dict[str, set[int]] = {}
    compared: list[tuple[int, int, tuple[SanityStep, ...]]] = []
    target, at = split_place(request.target, request.label_names)
    request = replace(request, target=target, place=at if at is not None else request.place)
    for position, output in enumerate(request.outputs):
        frozen_targets: Any = request.target
        for number in reversed(range(len(columns))):
            work = _Work(columns[number], number, inputs, replace(request, target=frozen_targets), output)
            try:
                finished = work.run(advance)
            except KeyboardInterrupt:
                what = "samples" if len(columns) * len(request.outputs) == 1 else "maps of samples"
                so_far = part[0] + len(found) + work.finished
                raise InterruptedWorkError(_left(so_far, part[1] or total, what, work.store)) from None
            found += [Found(row, position, number, done) for row, done in finished.items()]
            columns[number] = work.column
            for note in (*work.column.notes(inputs), *work.notes, *work.told_of_start()):
                said.setdefault(note, set()).add(number)
            used = work.precision or used
            decided |= {work.decided: None} if work.decided else {}
            compared.append((position, number, work.sanity))
            if len(columns) > 1 and number == len(columns) - 1 and _may_freeze(request.target):
                frozen_targets = work.targets
    described = [column.described() for column in columns]
    for note, numbers in said.items():
        of = (
            "" if len(numbers) == len(columns) else ", ".join(columns[number].name for number in sorted(numbers)) + ": "
        )
        notes |= {f"{of}{note}": None}
    how = {"head": "; ".join(decided), "precision": used or request.settings.precision.value}
    sanity = tuple(step for *_, steps in sorted(compared, key=lambda one: one[:2]) for step in steps)
    return saliency_of(described, inputs, request, found, tuple(notes), how, sanity)


def _left(finished: int, total: int, what: str, store: Store) -> str:
    """What an interrupted call leaves."""
    if store.folder is None:
        return "no maps are kept"
    return f"{finished:,} of {total:,} {what} are finished and kept, no report is written; the same call goes on there"


def _may_freeze(target: Any) -> bool:
    """Whether a target is numbers of outputs, which are the same for all checkpoints."""
    return not callable(target) and not (isinstance(target, str) and target == LOSS)


class _Work:
    """One column and output of a call."""

    def __init__(self, column: Column, number: int, inputs: Inputs, request: Request, output: str | int | None) -> None:
        self.column, self.number, self.inputs, self.request, self.output = column, number, inputs, request, output
        self.notes: tuple[str, ...] = ()
        self.targets: Any = None
        self.precision = self.decided = ""
        self.finished = 0
        """Samples that are explained and, where there is a store, kept."""
        self.sanity: tuple[SanityStep, ...] = ()
        # A function has no content to make a key of: its maps are not kept.
        self.store = Store(None if callable(request.target) else request.store)
        self._pictures = inputs.pictures.shape[1:3] if inputs.pictures is not None else None

    def run(self, advance: Advance) -> dict[int, Finished]:
        """Every sample of this rank (of all ranks on rank 0), by its position."""
        request = self.request
        prepared = self._prepare()
        n = len(self.inputs.sample_id)
        self.notes, self.targets = prepared.notes, prepared.targets.reshape(n, -1).cpu().numpy()
        self.decided = prepared.head.decided if prepared.head else ""
        keys = self._keys(prepared)
        self.inputs = replace(self.inputs, label=None if prepared.labels is None else list(prepared.labels))
        mine = request.share(n)
        with self.store.alive(key_of(*keys), request.rank, _BEAT_SECONDS):
            done = {row: kept for row in mine if (kept := self.store.read(keys[row])) is not None}
            if request.settings.convention is Convention.FE and len(done) < len(mine):
                done = {}  # it explains the whole batch again
            self.finished = len(done)
            advance(len(done), 0.0)
            explainer = Explainer(
                prepared,
                request.settings,
                input_range=self._known,
                pictures=self._pictures,
                captum=request.captum,
            )
            self.precision = explainer.precision
            if request.sanity and request.rank == 0:
                self.sanity = self._cascade(explainer)
            done |= self._all_of(explainer, [row for row in mine if row not in done], keys, advance)
            if request.rank == 0:
                done |= self._others(explainer, keys)
        return {row: self._with_views(kept, row, prepared) for row, kept in done.items()}

    def told_of_start(self) -> tuple[str, ...]:
        """What to say of a baseline that is brought to the samples' size."""
        settings, arrays = self.request.settings, list(self.inputs.arrays.values())
        if len(arrays) != 1 or "baseline" in set(settings.unused) - taken_by(self.request.captum):
            return ()
        return told_of(settings.baseline, arrays[0].shape[1:], self._known)

    @property
    def _known(self) -> InputRange:
        """What is known of the model's inputs: what the caller says, else what the checkpoint does."""
        said, asked = self.column.known, self.request
        whole = all(array.dtype.kind in "biu" for array in self.inputs.arrays.values())
        own = len(self.inputs.arrays) == 1 and (asked.mean is not None or asked.std is not None)
        return replace(said, mean=asked.mean or said.mean, std=asked.std or said.std, whole=whole, said=own)

    def _prepare(self) -> Prepared:
        loaded = self.column.load()
        if not isinstance(loaded, nn.Module):
            self.column = replace(self.column, facts=loaded.facts)
            loaded = loaded.model
        # The given model answers for itself where it is, which may be elsewhere.
        # One at a time: threads may bring the same model, whose state is put back after each of its own passes.
        with _PREPARING, randomness_kept(*{tensor.device for tensor in loaded.parameters()}):
            return prepare(
                loaded,
                self.inputs.arrays,
                target=self.request.target,
                place=self.request.place,
                device=self.request.device,
                labels=self.inputs.label,
                label_names=self.request.label_names,
                output=self.output,
                task=self.request.task,
                facts=self.column.facts,
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
            prepared.head,
            prepared.function,
            request.place,
            self._known,
        )
        told, untold = fingerprint(prepared.model.model) if self.store.folder else ("", "")
        if untold and request.world_size == 1:
            self.store = Store(None)
        if untold:
            # Ranks hand their samples to each other by that folder.
            what = "no maps are kept" if request.world_size == 1 else "maps kept before an edit of it are shown again"
            self.notes = (*self.notes, f"{what}: what the model answers by cannot all be told ({untold})")
        common = key_of(told, *asked, *whole_batch)
        labels = self.inputs.label or [None] * len(self.inputs.sample_id)
        pairs: Sequence[tuple[str, str] | None] = self.inputs.pairs or [None] * len(labels)
        return [
            key_of(common, pairs[row], sample_id, labels[row], self.targets[row].tolist(), *(a[row] for a in arrays))
            for row, sample_id in enumerate(self.inputs.sample_id)
        ]

    def _all_of(self, explainer: Explainer, rows: list[int], keys: list[str], advance: Advance) -> dict[int, Finished]:
        done: dict[int, Finished] = {}
        for group in self._groups(rows, explainer):
            done |= self._explained(explainer, group, keys, advance)
        return done

    def _groups(self, rows: list[int], explainer: Explainer) -> Iterator[list[int]]:
        """The samples that are explained together, and kept together; the first are few, and tell what a pass takes."""
        if self.request.settings.convention is Convention.FE:
            # Its numbers depend on the whole batch.
            if rows:
                yield list(range(len(self.inputs.sample_id)))
            return
        per_sample = self.request.settings.evaluations_per_sample * self.targets.shape[1]
        first = 0
        while first < len(rows):
            size = max(1, _PASSES_TOGETHER * explainer.rows // max(1, per_sample))
            yield rows[first : first + size]
            first += size

    def _explained(
        self, explainer: Explainer, rows: list[int], keys: list[str], advance: Advance
    ) -> dict[int, Finished]:
        k = self.targets.shape[1]
        units = torch.tensor([row * k + t for row in rows for t in range(k)], device=explainer.prepared.units.device)

        def progress(done: int, total: int) -> None:
            if not self.request.evaluate:  # Scoring takes longer, nobody knows how long.
                advance(0, len(rows) * done / total)

        attribution = explainer.explain(units, progress=progress)
        if self.request.evaluate:
            doing("scoring the maps")
            attribution = replace(attribution, quality=quality(explainer, attribution, units))
        self.notes = (*self.notes, *attribution.notes)
        found: dict[int, Finished] = {}

        def keep(place: int, row: int) -> None:
            finished = explanations_of(
                attribution,
                range(place * k, place * k + k),
                row,
                self.inputs,
                self.request.label_names,
                "" if self.output is None else str(self.output),
            )
            self.store.write(keys[row], finished)
            found[row] = finished

        before = self.finished
        try:
            for place, row in enumerate(rows):
                keep(place, row)
                self.finished = before + len(found)
                advance(1, 0.0)
        except KeyboardInterrupt:
            # All of them are explained, and keeping them takes a moment.
            for place, row in enumerate(rows):
                if row not in found:
                    keep(place, row)
            self.finished = before + len(found)
            raise
        return found

    def _cascade(self, explainer: Explainer) -> tuple[SanityStep, ...]:
        doing("comparing with randomised models")
        every = explainer.prepared.units
        units = torch.arange(min(_SANITY_UNITS, len(every)), device=every.device)
        if len(units) < len(every):
            compared = (
                f"randomised models were compared on the first {len(units)} of {len(every):,} maps of each method"
            )
            self.notes = (*self.notes, compared)
        steps = cascade(explainer, explainer.explain(units), units)
        output = "" if self.output is None else str(self.output)
        return tuple(replace(step, checkpoint=self.number, output=output) for step in steps)

    def _others(self, explainer: Explainer, keys: list[str]) -> dict[int, Finished]:
        """The samples of other ranks, as they finish; those of a rank that is not there are explained here."""
        found: dict[int, Finished] = {}
        common, began = key_of(*keys), time.monotonic()
        for rank in range(1, self.request.world_size):
            waiting = self.request.share(len(keys), rank)
            seen, sign = began, self.store.sign_of_life(common, rank)
            while waiting:
                for row in list(waiting):
                    if (kept := self.store.read(keys[row])) is not None:
                        found[row] = kept
                        waiting.remove(row)
                        seen = time.monotonic()
                latest = self.store.sign_of_life(common, rank)
                if latest != sign:
                    seen, sign = time.monotonic(), latest
                if waiting and (self.store.folder is None or time.monotonic() - seen > _SILENT_SECONDS):
                    self.notes = (
                        *self.notes,
                        f"rank {rank} of {self.request.world_size} gives no sign of life: its {len(waiting)} samples "
                        "were explained by rank 0 (is WORLD_SIZE set without torchrun?)",
                    )
                    found |= self._all_of(explainer, waiting, keys, lambda *_: None)
                    break
                if waiting:
                    time.sleep(_POLL_SECONDS)
        return found

    def _with_views(self, finished: Finished, row: int, prepared: Prepared) -> Finished:
        tokens = {entry.name: entry.mask for entry in prepared.entries if entry.tokens}
        views = views_of(self.inputs, row, embedded=tokens, known=self._known)
        rows = tuple(replace(e, inputs=views, checkpoint=self.number) for e in finished.explanations)
        return replace(finished, explanations=rows)


def _advance(progress: Progress | None, total: int) -> Advance:
    done, lock = 0, threading.Lock()

    def advance(samples: int, under_way: float) -> None:
        nonlocal done
        with lock:
            done += samples
        if progress is not None:
            progress(done, total, under_way)

    return advance
