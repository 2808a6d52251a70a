"""Everything before the first gradient: the frozen copy held against the given model, clean outputs, targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xaicli.attribution.entries import Entry, categories_in, entries_of
from xaicli.attribution.flow import Flow, flow_of
from xaicli.attribution.frozen import FrozenModel, is_memory_error
from xaicli.attribution.given import ChangingError, GivenModel
from xaicli.attribution.inputs import Arrays, Given, as_input, device_of, instead_of, tensors_of
from xaicli.attribution.lookups import Embedded, LookingUp, Lookup
from xaicli.attribution.settings import Target
from xaicli.attribution.targets import LOSS, ExplainedPlace, choose, class_of, of_places, place_explained, set_of
from xaicli.attribution.twin import Hooks, private_copy, set_by_hand
from xaicli.errors import UsageError, XaiError
from xaicli.heads.calling import parameter_names
from xaicli.heads.decision import decide, known_of
from xaicli.heads.evaluation import Writing
from xaicli.heads.head import Head, Task
from xaicli.heads.operations import watching

_ROWS = 32
_FEW = 2
_PROBE = 8


@dataclass(frozen=True)
class Prepared:
    """A frozen model on clean inputs: everything before the first gradient.

    Attributes:
        model: The frozen copy in its own precision.
        inputs: All model inputs, on the device, (sample, ...).
        entries: Where attributions are taken.
        points: The clean values there, one tensor an entry, (sample, ...).
        names: The names of all inputs.
        flow: What way the inputs take through the model.
        head: What the outputs mean; None when a function of them is explained.
        probabilities: (sample, class) float64; NaN, one column, where there are none.
        predictions: (sample,), classes or, for a regression, values.
        units: (unit,) the sample of each unit.
        targets: (unit,) int64; -1 when a function is explained.
        clean: (unit,) float64, the explained scalars.
        reduce: (what the model returned, units) -> (row,) scalars.
        probability: The same -> (row,) the targets' probabilities.
        notes: What a reader should know.
        function: What is explained where it is no target.
        labels: The samples' labels; of a text explained at one place, that of the place.
        no_numbers: Why noise and paths make nothing of an input; gradients at the samples themselves are what they are.
    """

    model: FrozenModel
    inputs: list[Tensor]
    entries: tuple[Entry, ...]
    points: list[Tensor]
    names: tuple[str, ...]
    flow: Flow
    head: Head | None
    probabilities: Tensor
    predictions: Tensor
    units: Tensor
    targets: Tensor
    clean: Tensor
    reduce: Callable[[Any, Tensor], Tensor]
    probability: Callable[[Any, Tensor], Tensor]
    notes: tuple[str, ...] = ()
    function: str = "function"
    labels: Sequence[Any] | None = None
    no_numbers: UsageError | None = None

    def only(self, units: Tensor) -> Prepared:
        """The same for some of the units; predictions and probabilities stay those of all samples."""
        reduce, probability = self.reduce, self.probability
        return replace(
            self,
            units=self.units[units],
            targets=self.targets[units],
            clean=self.clean[units],
            reduce=lambda result, rows: reduce(result, units[rows]),
            probability=lambda result, rows: probability(result, units[rows]),
        )

    def counted(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Of entries of tokens with an attention mask the places that it lets count: {entry: (unit, place)}.

        A text that none of them counts in has all of its places.
        """
        found = {}
        for entry in self.entries:
            if entry.tokens and entry.mask is not None:
                mask = self.inputs[entry.mask][self.units].flatten(1).cpu().numpy() != 0
                found[entry.name] = mask | ~mask.any(axis=1, keepdims=True)
        return found

    def of_units(self, entry: int) -> Tensor:
        """The clean values of one entry, a row per unit."""
        return self.points[entry][self.units]

    def arrange(self, model: FrozenModel, points: Sequence[Tensor], units: Tensor) -> tuple[list[Tensor], Embedded]:
        """What a model is called with for rows of points: each row with its own sample's other inputs.

        Args:
            model: The frozen model, or its fast copy.
            points: One batch an entry.
            units: (row,), which explanation each row is for.
        """
        samples = self.units[units]
        if self.model.beside:
            beside = samples.new_tensor(self.model.beside)
            samples = torch.cat([samples, beside])
            points = [torch.cat([point, x[beside]]) for point, x in zip(points, self.points, strict=True)]
        at = {entry.position: (entry, point) for entry, point in zip(self.entries, points, strict=True)}
        rows: list[Tensor] = []
        embedded: dict[int, list[tuple[Lookup, Tensor]]] = {}
        for position, x in enumerate(self.inputs):
            entry, point = at.get(position, (None, None))
            if entry is not None and point is not None and not entry.tokens:
                rows.append(model.arranged(point))
                continue
            rows.append(model.arranged(x[samples]))
            if entry is not None and point is not None:
                padded = model.padded(point)
                for lookup in entry.lookups:
                    of_rows = lookup.of_samples(samples, model.padded)
                    embedded.setdefault(lookup.call, []).append((of_rows, padded))
        return rows, embedded

    def scalars(self, points: Sequence[Tensor], units: Tensor, *, of_probability: bool = False) -> Tensor:
        """The explained scalars, or the targets' probabilities, at some points, without gradients, (row,) float64."""
        reduce = self.probability if of_probability else self.reduce

        def found(first: int, last: int) -> Tensor:
            part = units[first:last]
            rows, embedded = self.arrange(self.model, [p[first:last].clone() for p in points], part)
            return reduce(self.model.forward(rows, embedded, made=True), part).double()

        with torch.no_grad():
            return torch.cat(self.model.in_steps(len(units), _ROWS, found))


def prepare(
    model: nn.Module,
    inputs: Given,
    *,
    target: Target | Tensor | Arrays = "predicted",
    place: int | None = None,
    device: str | torch.device = "auto",
    labels: Sequence[Any] | None = None,
    label_names: Sequence[str] | None = None,
    output: str | int | None = None,
    task: str | None = None,
    facts: Any = None,
    raw: bool = False,
) -> Prepared:
    """Freeze a copy of the model, hold it against the model itself, and take the clean outputs and targets.

    Args:
        model: Any module, in any mode; it is copied, and nothing of it changes.
        inputs: One array or tensor (sample, ...); several as a list, a tuple, or a dict by name, in call order.
        target: "predicted", "label", a class name or number, "topK", one number per sample, "loss" of a model of texts,
            or a function of the model's outputs that returns one number per row.
        place: At which token of a text; None for the last that counts of a language model.
        device: "auto" (a GPU when there is one), or torch's name of a device.
        labels: The samples' labels, for `target="label"` and for what the outputs mean.
        label_names: The names of the outputs.
        output: Key or index of the output, for models that return several.
        task: What the outputs mean, where the model does not say it.
        facts: What the model's checkpoint says of itself.
        raw: Explain a single number as itself whatever the prediction, as the seed does.

    Raises:
        XaiError: The model cannot be explained on these inputs; says why in one line.
    """
    on = device_of(device)
    names, tensors = tensors_of(inputs)
    given = GivenModel(model, names, tensors, getattr(facts, "static_batch", None))
    function = target if callable(target) else None
    few = list(range(min(given.n, given.batch or _FEW)))
    few += [few[-1]] * ((given.batch or _FEW) - len(few))
    twin = private_copy(given.model)
    tensors = _bytes_as_ids(given, twin, tensors)
    head = None
    on_cpu = instead_of(device)
    with torch.no_grad(), watching() as origin, Writing() as seen:
        try:
            result = given.explained_run(few, model=twin)
        except XaiError:
            if not given.learn_batch():
                raise
            result = given.explained_run([0] * (given.batch or 1), model=twin)
        given.learn_written(twin, seen)
        if function is None:
            known = known_of(given.model, facts)
            if known.classes is None and label_names:
                known = replace(
                    known, classes=len(label_names), source=known.source if known.task else "the label names"
                )
            head = decide(result, origin=origin, task=task, output=output, labels=labels, known=known)
    outputs = head.tensor if head is not None else _scalars_of(function)
    answers = given.answers(outputs)
    frozen, hooked = _held_against(given, twin, outputs, answers, on, head.where if head is not None else None)
    batches = [as_input(x, frozen.dtype).to(on) for x in tensors]
    entries, points, flow, notes = entries_of(frozen, given, batches, outputs)
    among = categories_in(given, flow, batches)
    valid = _valid(head, given, batches, answers, labels)
    values = answers.to(on)
    if head is not None:
        head.refuse_no_probabilities(values)
    at = None
    if head is not None:
        at = place_explained(head, target, place, values, valid, _ids(given, entries, batches, answers), labels)
    if at is not None:
        values, valid, labels = at.answers(values, torch.arange(given.n, device=on)), None, at.labels(labels)
    as_one = head is None or (at is not None and at.truth is not None)
    chosen = (
        torch.zeros(given.n, 1, dtype=torch.long)
        if head is None or as_one
        else choose(target, head, values, valid, labels, label_names)  # type: ignore[arg-type]
    )
    prepared = _with_targets(
        Prepared(
            model=frozen,
            inputs=batches,
            entries=entries,
            points=points,
            names=names,
            flow=flow,
            head=head,
            probabilities=_probabilities(head, values, valid),
            predictions=_predictions(head, values, valid, chosen),
            units=torch.arange(0),
            targets=torch.arange(0),
            clean=torch.zeros(0),
            reduce=lambda result, _: outputs(result),
            probability=lambda result, _: outputs(result),
            notes=tuple(
                n
                for n in (
                    on_cpu,
                    given.note,
                    set_by_hand(given.model, twin),
                    *_of_bytes(names, tensors),
                    *hooked,
                    *notes,
                    *_notes(head, target, labels, label_names),
                    at.note if at else "",
                    among.message if among else "",
                )
                if n
            ),
            labels=labels,
            no_numbers=among,
            function=LOSS if at is not None and at.truth is not None else "function",
        ),
        outputs,
        answers.to(on),
        valid,
        chosen,
        at,
        raw=raw,
    )
    # A copy that reads the inputs themselves, where it was held against the model, has answered by now.
    same = frozen.device == given.place and frozen.dtype == given.dtype
    if not same or any(entry.tokens for entry in entries):
        _refuse_other_answers(prepared, given.tolerance)
    return prepared


def _refuse_other_answers(prepared: Prepared, tolerance: float) -> None:
    """The first few samples once more, on their device, from the points that attributions are taken at.

    Raises:
        XaiError: The explained scalars are others than the given model's own.
    """
    few = torch.arange(min(_PROBE, len(prepared.units)), device=prepared.units.device)
    expected = prepared.clean[few]
    found = prepared.scalars([prepared.of_units(i)[few] for i in range(len(prepared.entries))], few)
    finite = expected.isfinite() & found.isfinite()
    size = float(expected[finite].abs().max()) if finite.any() else 0.0
    if bool(((found - expected).abs()[finite] > 4 * tolerance * size + 1e-6).any()):
        names = ", ".join(entry.name or "its input" for entry in prepared.entries)
        raise XaiError(
            f"with gradients taken at {names} the model answers otherwise than by itself",
            hint="does forward look at an input twice, or change it between? please report the model's forward",
        )


def _of_bytes(names: Sequence[str], tensors: Sequence[Tensor]) -> list[str]:
    return [
        f"{name or 'the input'} holds bytes, which go in as the numbers they are, 0 to 255"
        for name, x in zip(names, tensors, strict=True)
        if x.dtype == torch.uint8
    ]


def _bytes_as_ids(given: GivenModel, twin: nn.Module, tensors: list[Tensor]) -> list[Tensor]:
    """Bytes that embeddings look up are ids as other whole numbers are; the others are the numbers of pictures."""
    if not any(x.dtype == torch.uint8 for x in tensors):
        return tensors
    ids = [x.long() if x.dtype == torch.uint8 else x for x in tensors]
    for trial in (tensors, ids):  # an exported graph takes whole numbers as nothing else
        few = [as_input(x[: given.batch or _FEW], given.dtype).to(given.place) for x in trial]
        try:
            with torch.no_grad():
                flow, _ = flow_of(lambda few=few: given.call(LookingUp(twin), few), few)  # type: ignore[misc]
        except Exception:  # whatever another's forward raises: the model itself says it below
            continue
        found = [y if i in flow.embedded else x for i, (x, y) in enumerate(zip(tensors, ids, strict=True))]
        given.inputs = [as_input(x, given.dtype).to(given.place) for x in found]
        return found
    return tensors


def _notes(
    head: Head | None, target: Any, labels: Sequence[Any] | None, names: Sequence[str] | None
) -> tuple[str, ...]:
    if head is None:
        return ()
    notes = [head.note]
    if isinstance(target, str) and target == "label" and labels is not None:
        without = sum(class_of(label, names, head) is None for label in labels)
        if without:
            notes.append(
                f"{without} of {len(labels)} samples have no label that is a class: their prediction is explained"
            )
    elif labels is not None and head.has_classes and head.task is not Task.MULTILABEL:
        said = [
            one
            for one in (set_of(label, head) for label in labels)
            if isinstance(one, str) or (isinstance(one, int) and one >= 0)
        ]
        others = sorted({str(one) for one in said if class_of(one, names, head) is None})
        if others:
            count = sum(str(one) in others for one in said)
            notes.append(
                f"{count} of {len(labels)} labels are none of the model's classes ({', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}): their samples are neither right nor wrong"
            )
    if names and head.has_classes and len(names) != head.classes:
        notes.append(f"{len(names)} label names were given, the model tells {head.classes} classes apart")
    return tuple(notes)


def _with_targets(
    prepared: Prepared,
    outputs: Callable[[Any], Tensor],
    values: Tensor,
    valid: Tensor | None,
    chosen: Tensor,
    at: ExplainedPlace | None,
    *,
    raw: bool,
) -> Prepared:
    head, place = prepared.head, prepared.model.device
    as_one = head is None or (at is not None and at.truth is not None)
    as_itself = head is None or as_one or (raw and head.single)
    if as_itself:
        chosen = torch.zeros_like(chosen)
    units = torch.arange(len(values), device=place).repeat_interleave(chosen.shape[1])
    targets = chosen.reshape(-1).to(place)

    def scalar(found: Tensor, rows: Tensor) -> Tensor:
        found = found[: len(rows)]
        if at is not None:
            found = at.explained(found, units[rows])
        if head is None or as_itself:
            return found.flatten(1)[:, 0]
        return head.scalar(found, targets[rows], None if valid is None else valid[units[rows]])

    def probability(found: Tensor, rows: Tensor) -> Tensor:
        found = found[: len(rows)]
        if head is None or as_one or not head.has_classes:
            return scalar(found, rows)
        found = found if at is None else at.answers(found, units[rows])
        return head.target_prob(found, targets[rows], None if valid is None else valid[units[rows]])

    every = torch.arange(len(units), device=place)
    return replace(
        prepared,
        units=units,
        targets=torch.full_like(targets, -1) if as_one else targets,
        clean=scalar(values[units], every).double(),
        reduce=lambda result, rows: scalar(outputs(result), rows),
        probability=lambda result, rows: probability(outputs(result), rows),
    )


def _probabilities(head: Head | None, values: Tensor, valid: Tensor | None) -> Tensor:
    if head is None or not head.has_classes:
        return torch.full((len(values), 1), torch.nan, dtype=torch.float64)
    return head.probabilities(values.double(), valid).cpu()


def _predictions(head: Head | None, values: Tensor, valid: Tensor | None, chosen: Tensor) -> Tensor:
    if head is None:
        return torch.full((len(values),), -1)
    found = head.predictions(values, valid).cpu()
    # Of several values the one that is explained.
    return found if found.ndim == 1 else found.gather(1, chosen[:, :1].cpu())[:, 0]


def _scalars_of(function: Callable[[Any], Any] | None) -> Callable[[Any], Tensor]:
    assert function is not None

    def scalars(result: Any) -> Tensor:
        try:
            value = function(result)
        except Exception as error:  # whatever the caller's own code raises
            if isinstance(error, XaiError) or is_memory_error(error):
                raise
            own = getattr(function, "__qualname__", type(function).__name__)
            name = f"{getattr(function, '__module__', '')}:{own}"
            raise XaiError(
                f"--target {name} fails: {type(error).__name__}: {error}",
                hint="it is called with the model's output alone: def target(outputs): return outputs[:, 3]",
            ) from error
        if not isinstance(value, Tensor) or value.ndim == 0 or value.numel() != len(value):
            raise UsageError(
                "the target function returns no tensor of one number per row",
                hint="def target(outputs): return outputs[:, 3]",
            )
        return value.reshape(len(value), 1)

    return scalars


def _held_against(
    given: GivenModel,
    twin: nn.Module,
    outputs: Callable[[Any], Tensor],
    answers: Tensor,
    place: torch.device,
    where: str | None,
) -> tuple[FrozenModel, tuple[str, ...]]:
    """The frozen copy, once it has answered as the given model does, beside other samples and other random numbers.

    Raises:
        XaiError: The model does not answer twice alike, or no copy of it answers as it does.
    """
    hooks = Hooks(twin)
    if len(hooks):
        mates = given.mates(given.batch or 2)
        with hooks.noted():
            given.run([], model=twin, mates=mates)
        # Of another sample, so that what an idle hook left in the copy is not its answer without that hook, too.
        if any(not torch.equal(x[:1], mate[:1]) for x, mate in zip(given.inputs, mates, strict=True)):
            hooks.leave_out_the_idle()
        else:
            hooks.put_back()
    if not _answers_alike(given, twin, outputs, answers, may_fail=len(hooks) > 0):
        hooks.put_back()
        if not len(hooks) or not _answers_alike(given, twin, outputs, answers):
            why, changed = given.why_passes_differ(outputs, answers, where), _changes_itself(given, twin)
            # A buffer that forward goes on changing says more than the part it is in.
            raise (
                (changed if why is None or isinstance(why, ChangingError) else None)
                or why
                or XaiError(
                    "a copy of the model answers otherwise than the model itself",
                    hint="is there something that a copy shares or loses? hooks: "
                    + (", ".join(hooks.names()) or "none"),
                )
            )
    kept = hooks.kept()
    note = f"the model's own forward hooks run in every pass: {', '.join(kept)}" if kept else ""
    return FrozenModel(twin, given.call, device=place, batch=given.batch, most=given.most), (note,)


def _answers_alike(
    given: GivenModel,
    twin: nn.Module,
    outputs: Callable[[Any], Tensor],
    answers: Tensor,
    *,
    may_fail: bool = False,
) -> bool:
    """Whether the copy answers as the model did; a failure is another answer where its hooks may have collected it."""
    try:
        return not given.differ(answers, given.answers_in_other_company(outputs, twin))
    except XaiError:
        if not may_fail:
            raise
        return False


def _changes_itself(given: GivenModel, twin: nn.Module) -> XaiError | None:
    """Whether the passes have left other buffers in the copy than the model has: a running mean that goes on, say."""
    own = dict(private_copy(given.model).named_buffers())
    changed = [
        name for name, now in twin.named_buffers() if name in own and not torch.equal(own[name].to(now.device), now)
    ]
    if not changed:
        return None
    return XaiError(
        f"two clean passes of the model differ: forward changes {', '.join(changed[:3])} in evaluation mode too",
        hint="change it only where self.training; maps of a model that goes on changing would say nothing",
    )


def _valid(
    head: Head | None,
    given: GivenModel,
    batches: Sequence[Tensor],
    answers: Tensor,
    labels: Sequence[Any] | None,
) -> Tensor | None:
    """Which places of the output count: those an attention mask of their shape leaves in.

    Where a decoder answers, its own mask counts: that of the encoder is about other tokens. Without one its labels say
    it: a shorter text has no label behind its end, where padding may be read as any other token.
    """
    if head is None or not head.has_places:
        return None
    named = dict(zip(parameter_names(given.model, given.names), batches, strict=True))
    decodes = any(name.startswith("decoder_input") for name in named)
    mask = named.get("decoder_attention_mask" if decodes else "attention_mask")
    if mask is not None and mask.shape[1:] == answers.shape[2:]:
        return mask.bool()
    if mask is None and decodes and (said := of_places(labels, answers.shape[-1])) is not None:
        return (said >= 0).to(answers.device)
    if (
        mask is None
        and head.pad is not None
        and (ids := named.get("decoder_input_ids" if decodes else "input_ids")) is not None
    ):
        # Without a mask: what fills a text up to the length of the others is at its end.
        filled = (ids == head.pad).flip(1).int().cumprod(1).flip(1).bool()
        return ~filled if ids.shape[1:] == answers.shape[2:] else None
    return None


def _ids(given: GivenModel, entries: Sequence[Entry], batches: Sequence[Tensor], answers: Tensor) -> Tensor | None:
    """The tokens that the places of the output are of: those of the decoder, where there is one."""
    named = list(zip(parameter_names(given.model, given.names), batches, strict=True))
    decoder = [x for name, x in named if name.startswith("decoder_input")]
    read = decoder or [batches[entry.position] for entry in entries if entry.tokens]
    return next((x for x in read if x.shape[1:] == answers.shape[2:]), None)
