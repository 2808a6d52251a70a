"""Which places of a step's answers count: what a mask, lengths or padding of its batch leave out does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from xaicli.heads.outputs import items_of
from xaicli.integrations.answers import LEFT_OUT, of_some_places
from xaicli.integrations.capture import Step

WEIGHED = (
    "weighs the losses of the places itself, and which of them count is not known; no samples of it are recorded: give "
    "those that do not count the label -100 (ignore_index), or give samples_fn"
)
SOME_PLACES = (
    "gives its criterion some of the places alone, and which they are is not known; no samples of it are recorded: "
    "give it all, those that do not count with the label -100 (ignore_index), or give samples_fn"
)
_MASKS = ("mask", "length", "lens")
"""Parts of names under which batches say which places hold something."""


def _may_leave_out(batch: Any, truth: Any, ignored: int | None) -> bool:
    """Whether a batch says of some places that they hold nothing, and their labels do not: the step may heed it."""
    if not isinstance(truth, torch.Tensor) or (truth.is_cpu and ignored in truth):
        return False
    named = [(str(name), part) for name, part in items_of(batch) if isinstance(part, torch.Tensor)]
    masks = [
        part
        for name, part in named
        if any(word in name.lower() for word in _MASKS) or (part.dtype is torch.bool and part.shape == truth.shape)
    ]
    return any(not part.is_cpu or bool((part != part.flatten()[:1]).any()) for part in masks) or any(
        _is_filled_up(part) for _, part in named if part.shape == truth.shape and not part.is_floating_point()
    )


def _is_filled_up(rows: torch.Tensor) -> bool:
    """Whether some rows end, or begin, with a value over and over that stands nowhere else: a step may leave it out."""
    if not rows.is_cpu or rows.ndim != 2:
        return False
    for at_end in (rows, rows.flip(1)):
        is_fill = at_end == at_end[:, -1].mode().values
        filled = is_fill.flip(1).long().cumprod(1).flip(1).bool()
        if bool((filled.sum(1) > 1).any() and not (is_fill & ~filled).any() and not filled.all()):
            return True
    return False


def _masks(batch: Any, truth: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a step may make of a batch to say which places count: what is not zero, or not what fills up."""
    for _, part in items_of(batch):
        if not isinstance(part, torch.Tensor) or not part.is_cpu:
            continue
        if part.shape == truth.shape:
            yield part != 0
            if part.dtype is torch.bool:
                yield ~part
            elif not part.is_floating_point():
                yield from (part != value for value in {int(part[:, end].mode().values) for end in (0, -1)} - {0})
        elif part.ndim == 1 and len(part) == len(truth) and truth.ndim == 2 and not part.is_floating_point():
            yield torch.arange(truth.shape[1])[None] < part[:, None]


def _distinct_masks(masks: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    kept: list[torch.Tensor] = []
    for mask in masks:
        if not any(torch.equal(mask, other) for other in kept):
            kept.append(mask)
    return kept


def _counting(step: Step, batch: Any, values: torch.Tensor, truth: Any) -> torch.Tensor | None:
    """The places of which the loss that a step returned is the mean, by what it may make of its batch.

    None where no such places, or several, give that loss.
    """
    loss = step.returned.get("loss") if isinstance(step.returned, Mapping) else step.returned
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.is_cpu and isinstance(truth, torch.Tensor)):
        return None
    each = torch.nn.functional.cross_entropy(values.float(), truth.long(), reduction="none")
    found = []
    for mask in _distinct_masks(_masks(batch, truth)):
        inside = mask & (truth != LEFT_OUT)
        counts = inside.sum(1)
        if not bool(counts.sum()) or bool(inside.all()):
            continue
        of_rows = (each * inside).sum(1)
        means = (of_rows.sum() / counts.sum(), (of_rows / counts.clamp(min=1))[counts > 0].mean())
        if any(torch.isclose(loss.detach().float().reshape(()), mean, rtol=1e-4) for mean in means):
            found.append(mask)
    return found[0] if len(found) == 1 else None


def of_chosen_places(step: Step, batch: Any, labels: Any, output: Any = None) -> tuple[Any, torch.Tensor] | None:
    """The module's output, or that given, and the labels of the places that a criterion was given one below the other.

    None where what a step may make of its batch does not say which these are.
    """
    if len(step.forwards) != 1 or not isinstance(labels, torch.Tensor) or not labels.is_cpu:
        return None
    output = step.forwards[0].output if output is None else output
    if not isinstance(output, torch.Tensor) or not of_some_places(step, labels, output) or len(step.judged) != 1:
        return None
    judged = step.judged[0]
    found = [
        mask
        for mask in _distinct_masks(_masks(batch, labels))
        if torch.equal(labels[mask], judged.truth) and torch.equal(output.detach()[mask], judged.answers)
    ]
    return (output, labels.masked_fill(~found[0], LEFT_OUT)) if len(found) == 1 else None


def without_left_out(step: Step, batch: Any, values: torch.Tensor, truth: Any, ignored: int | None) -> Any:
    """The labels of the places that a step counts, which weighs the losses of all: those of others left out.

    Args:
        step: What was seen of it.
        batch: What says which these may be.
        values: The answers, (N, classes, places).
        truth: The labels, (N, places).
        ignored: The label that the criterion leaves out.

    Returns:
        The labels; None where it is not known which count.
    """
    if _is_mean_of_all(step, values, truth):
        return truth
    inside = _counting(step, batch, values, truth)
    if inside is None:
        return None if _may_leave_out(batch, truth, ignored) else truth
    return truth.masked_fill(~inside, LEFT_OUT)


def _is_mean_of_all(step: Step, values: torch.Tensor, truth: torch.Tensor) -> bool:
    """Whether the loss that a step returned is the mean over all places: then each counts."""
    loss = step.returned.get("loss") if isinstance(step.returned, Mapping) else step.returned
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.is_cpu):
        return False
    whole = torch.nn.functional.cross_entropy(values.float(), truth.long())
    return bool(torch.isclose(loss.detach().float().reshape(()), whole, rtol=1e-4))
