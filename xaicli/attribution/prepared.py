"""Everything before the first gradient: the frozen copy, the inputs on their device, the clean outputs, the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from xaicli.attribution.embedding import embedded_inputs
from xaicli.attribution.frozen import FrozenModel
from xaicli.attribution.given import Arrays, Given, as_input, device_of, tensors_of
from xaicli.attribution.outputs import NOTES, Meaning, Scores, keys_of, last_operation, pick, read_scores
from xaicli.attribution.settings import Target
from xaicli.attribution.targets import choose, probability_of, values_of
from xaicli.errors import UsageError, XaiError

_CLEAN_ROWS = 32


@dataclass(frozen=True)
class Prepared:
    """A frozen model on clean inputs: everything before the first gradient.

    Attributes:
        model: The frozen copy in its own precision.
        inputs: All model inputs in call order, on the device, (sample, ...); token ids replaced by their embeddings.
        explained: Positions of the differentiable inputs.
        names: The names of all inputs.
        scores: The clean outputs.
        units: (unit,) the sample of each unit.
        targets: (unit,).
        clean: (unit,) float64, the explained scalars.
        reduce: (what the model returned, units) -> (row,) scalars.
        probability: The same -> (row,) the targets' probabilities.
    """

    model: FrozenModel
    inputs: list[Tensor]
    explained: tuple[int, ...]
    names: tuple[str, ...]
    embedded: tuple[int, ...]
    scores: Scores
    units: Tensor
    targets: Tensor
    clean: Tensor
    reduce: Callable[[Any, Tensor], Tensor]
    probability: Callable[[Any, Tensor], Tensor]
    notes: tuple[str, ...] = ()

    def only(self, units: Tensor) -> Prepared:
        """The same for some of the units; predictions and probabilities stay those of all samples."""
        targets, reduce, probability = self.targets[units], self.reduce, self.probability
        return replace(
            self,
            units=self.units[units],
            targets=targets,
            clean=self.clean[units],
            reduce=lambda result, rows: reduce(result, units[rows]),
            probability=lambda result, rows: probability(result, units[rows]),
        )

    def of_units(self, position: int) -> Tensor:
        """One input, a row per unit."""
        return self.inputs[position][self.units]


def prepare(
    model: nn.Module,
    inputs: Given,
    *,
    target: Target | Tensor | Arrays = "predicted",
    device: str | torch.device = "auto",
    labels: Sequence[Any] | None = None,
    label_names: Sequence[str] | None = None,
    output: str | int | None = None,
    static_batch: int | None = None,
    raw: bool = False,
) -> Prepared:
    """Freeze a copy of the model and take the clean outputs and targets.

    Args:
        model: Any module, in any mode; it is copied, and nothing of it changes.
        inputs: One array or tensor (sample, ...); several as a list, a tuple, or a dict by name, in call order.
        target: "predicted", "label", a class name or number, "topK", one number per sample, or a function of the
            model's outputs that returns one number per row.
        device: "auto" (a GPU when there is one), or torch's name of a device.
        labels: The samples' labels, for `target="label"`.
        label_names: The names of the outputs.
        output: Key or index of the output, for models that return several.
        static_batch: The one batch size the model takes; found out when not given.
        raw: Explain a single number as itself whatever the prediction, as the seed does.

    Raises:
        XaiError: The model cannot be explained on these inputs; says why in one line.
    """
    place = device_of(device)
    names, tensors = tensors_of(inputs)
    frozen = FrozenModel(model, names=names, device=place, static_batch=static_batch)
    batches = [as_input(x, frozen.dtype).to(place) for x in tensors]
    embedded = embedded_inputs(frozen, batches)
    batches = embedded.inputs
    explained = tuple(i for i, x in enumerate(batches) if x.is_floating_point())
    if not explained:
        raise XaiError(
            "the model has no input with a gradient", hint="integer inputs need an nn.Embedding in the model"
        )
    function = target if callable(target) else None
    outputs = _select(function, output)
    try:
        values = clean_outputs(frozen, batches, outputs)
    except XaiError:
        if not frozen.learn_batch(batches, outputs):
            raise
        values = clean_outputs(frozen, batches, outputs)
    n = len(batches[0])
    scores = read_scores(values, _last_operation(frozen, batches, outputs) if values.shape[1] == 1 else "")
    meaning = Meaning.LOGITS if function is not None or raw else scores.meaning
    chosen = torch.full((n, 1), 0) if function is not None else choose(target, scores, labels, label_names)  # type: ignore[arg-type]
    if raw and scores.single:
        chosen = torch.zeros_like(chosen)
    units = torch.arange(n).repeat_interleave(chosen.shape[1]).to(place)
    targets = chosen.reshape(-1).to(place)

    def reduce(result: Any, rows: Tensor) -> Tensor:
        return values_of(outputs(result)[: len(rows)], targets[rows], meaning)

    def probability(result: Any, rows: Tensor) -> Tensor:
        scores = outputs(result)[: len(rows)]
        return scores[:, 0] if function is not None else probability_of(scores, targets[rows], meaning)

    rows = values.to(place)[units]
    notes = [NOTES[scores.meaning]] if scores.meaning in NOTES and function is None else []
    return Prepared(
        model=frozen,
        inputs=batches,
        explained=explained,
        names=names,
        embedded=embedded.positions,
        scores=scores,
        units=units,
        targets=torch.full_like(targets, -1) if function is not None else targets,
        clean=values_of(rows, targets, meaning).double(),
        reduce=reduce,
        probability=probability,
        notes=tuple(notes),
    )


def _select(function: Callable[[Tensor], Tensor] | None, output: str | int | None) -> Callable[[Any], Tensor]:
    """From what the model returned to (row, output)."""
    if function is None:
        return lambda result: pick(result, output)

    def scalars(result: Any) -> Tensor:
        value = function(result)
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise UsageError(
                "the target function returns no tensor of one number per row",
                hint="def target(outputs): return outputs[:, 3]",
            )
        return value.reshape(len(value), -1)[:, :1]

    return scalars


def clean_outputs(model: FrozenModel, inputs: Sequence[Tensor], outputs: Callable[[Any], Tensor]) -> Tensor:
    """(sample, output) of the clean inputs, without gradients, a few at a time."""
    found = []
    step = model.batch or _CLEAN_ROWS
    n = len(inputs[0])
    with torch.no_grad():
        for first in range(0, n, step):
            rows = min(step, n - first)
            batch = [model.padded(x[first : first + rows].clone()) for x in inputs]
            result = model.forward(batch)
            values = outputs(result)
            if len(values) < rows:
                raise XaiError(
                    f"the model returns {len(values)} rows for {len(batch[0])} samples",
                    hint=f"outputs need the batch as their first axis; it has: {', '.join(keys_of(result)) or 'one'}",
                )
            found.append(values[:rows])
    return torch.cat(found)


def _last_operation(model: FrozenModel, inputs: Sequence[Tensor], outputs: Callable[[Any], Tensor]) -> str:
    """What the model's output comes from, told from one sample."""
    batch = [model.padded(x[:1].clone()) for x in inputs]
    with torch.enable_grad():
        # Not the inputs themselves: an in-place operation may not meet a leaf.
        entered = [x.requires_grad_().clone() if x.is_floating_point() else x for x in batch]
        return last_operation(outputs(model.forward(entered)))


def scalars_of(
    model: FrozenModel,
    prepared: Prepared,
    constants: Mapping[int, Tensor],
    points: Sequence[Tensor],
    units: Tensor,
) -> Tensor:
    """The explained scalars at some points, without gradients, (row,) float64."""
    free = iter(points)
    rows = [constants[i][units] if i in constants else next(free) for i in range(len(prepared.inputs))]
    found = []
    step = model.batch or _CLEAN_ROWS
    with torch.no_grad():
        for first in range(0, len(units), step):
            part = units[first : first + step]
            batch = [model.arranged(x[first : first + step].clone()) for x in rows]
            found.append(prepared.reduce(model.forward(batch), part).double())
    return torch.cat(found)
