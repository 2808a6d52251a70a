"""Several views of each sample in one batch of a model, as R-Drop and consistency losses have: the first counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from xaicli.heads.head import Task
from xaicli.integrations.answers import labels_as, tensors_of, which_of
from xaicli.integrations.capture import Forward, Judged, Step
from xaicli.integrations.order import rows_in
from xaicli.vocabulary import Mode

TOO_MANY = (
    "gives its criterion more answers than the batch has samples, as of several views of each, and which of them are "
    "the samples' own is not known; no samples of it are recorded: where the first n are those of the n samples, end "
    "it with {line}"
)


@dataclass(frozen=True)
class _Laid:
    """How the views of a batch are laid out.

    Attributes:
        count: How many each sample has.
        rows: How many samples there are.
        is_by_sample: Whether those of a sample are neighbours; else one view of all samples follows the other.
    """

    count: int
    rows: int
    is_by_sample: bool

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """The first view of each sample: its rows, of places that lie one below the other all of its places."""
        total = self.count * self.rows
        if not tensor.ndim or not len(tensor) or len(tensor) % total:
            return tensor
        places = len(tensor) // total
        if not self.is_by_sample:
            return tensor[: self.rows * places]
        if places == 1:
            return tensor[:: self.count]
        rest = tensor.shape[1:]
        return tensor.reshape(self.rows, self.count, places, *rest)[:, 0].reshape(self.rows * places, *rest)

    def first_of(self, values: Any) -> Any:
        """The same of all tensors of a row a view in what a step returned, or gave its model."""
        if isinstance(values, torch.Tensor):
            return self.first(values) if values.ndim and len(values) == self.count * self.rows else values
        if isinstance(values, Mapping):
            return {name: self.first_of(value) for name, value in values.items()}
        return type(values)(map(self.first_of, values)) if type(values) in (list, tuple) else values


class Views:
    """Tells where a step gives its model, and its criterion, several views of each sample, and takes the first.

    The batch's own labels say so, which the criterion is given once a view: where a sample's label stands, its answers
    do. On a device, where looking waits for it, the first step of each mode tells.

    Args:
        watched: The modes of which a step was looked at, and understood.
    """

    def __init__(self, watched: set[Mode]) -> None:
        self._watched = watched
        self._are_by_sample: dict[Mode, bool] = {}
        """Whether the last views of a mode that told it lay by sample."""

    def take_first(self, step: Step, batch: Any, labels: Any, rows: int | None, mode: Mode) -> Callable[[Any], Any]:
        """Leave of all that a step computed what is of the first view of each sample, where it has several.

        Args:
            step: What was seen.
            batch: What the step was given.
            labels: The labels in it.
            rows: How many samples it holds.
            mode: The mode.

        Returns:
            What leaves the same of what else the step returned.
        """
        laid = self._laid(step, batch, labels, rows, mode)
        if laid is None:
            return lambda values: values
        step.judged = [_of_first(one, laid) for one in step.judged]
        if not rows_in([laid.first_of(one) for one in step.given if one.is_cpu], batch).is_other:
            # As if it was given the batch's own labels: it was, several times.
            step.judged = [_with_own(one, labels) for one in step.judged]
        step.returned = laid.first_of(step.returned)
        step.given = [laid.first_of(one) for one in step.given]
        step.answered = [[laid.first_of(one) for one in parts] for parts in step.answered]
        step.forwards = [
            Forward(laid.first_of(one.args), laid.first_of(one.kwargs), laid.first_of(one.output))
            for one in step.forwards
        ]
        return laid.first_of

    def _laid(self, step: Step, batch: Any, labels: Any, rows: int | None, mode: Mode) -> _Laid | None:
        if not (isinstance(labels, torch.Tensor) and labels.ndim and rows and len(labels) == rows and labels.numel()):
            return None
        for one in step.judged:
            truth = _as_classes(one.truth, labels)
            count, rest = divmod(truth.numel(), labels.numel())
            if (
                rest
                or not are_more(step, one, labels, rows)
                or any(len(o) % (count * rows) for o in (one.answers, truth))
            ):
                continue
            if (found := self._told(step, batch, truth, labels, mode)) is not None:
                return _Laid(count, rows, found)
        return None

    def _told(self, step: Step, batch: Any, truth: torch.Tensor, labels: torch.Tensor, mode: Mode) -> bool | None:
        """Whether a criterion was given a batch's labels by sample, False view by view; None where it is not known."""
        if not truth.is_cpu and mode in self._watched:
            return self._are_by_sample.get(mode)
        n = len(labels)
        own, given = labels.to(truth.device).double().reshape(n, -1), truth.double()
        one_by_one, by_sample = (
            bool((part.isnan() & own_part.isnan() | (part == own_part)).all())
            for part, own_part in (
                (given.reshape(-1, *own.shape), own[None]),
                (given.reshape(n, -1, own.shape[1]), own[:, None]),
            )
        )
        if one_by_one and by_sample and n > 1:  # labels that are all alike: what the model was given may tell it
            one_by_one, by_sample = _are_shown(step, batch, truth.numel() // labels.numel(), n)
            if one_by_one == by_sample:
                return self._are_by_sample.get(mode, self._are_by_sample.get(Mode.TRAIN))
        if not (one_by_one or by_sample):
            return None
        self._are_by_sample[mode] = not one_by_one
        return not one_by_one


def are_more(step: Step, judged: Judged, labels: Any, rows: int | None) -> bool:
    """Whether a criterion was given more rows than a batch's samples have labels: no places of these, as of texts."""
    answers, truth = judged.answers, judged.truth
    if not rows or not isinstance(labels, torch.Tensor) or not labels.ndim or len(labels) != rows:
        return False
    if not answers.ndim or not truth.ndim or len(answers) <= rows or len(answers) % rows or len(truth) % rows:
        return False
    places = 1 if truth.shape[1:] == labels.shape[1:] else labels.numel() // rows
    if len(answers) // rows <= places and len(truth) // rows <= places:
        return False
    seen = [part for parts in step.answered for part in parts]
    for output in (step.named, *(one.output for one in step.forwards)):
        seen += [part for _, part in tensors_of(output)]
    # A model that answers by samples and their places shows that they are some.
    return not any(part.ndim > 2 and len(part) == rows and part.numel() == answers.numel() for part in seen)


def _as_classes(truth: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What a criterion was given, of rows of zeros and a one the classes where the batch has such."""
    if truth.ndim != 2 or labels.ndim != 1 or not truth.is_cpu or truth.shape[1] < 2:
        return truth
    found = labels_as(Task.CLASSIFICATION, truth, truth.shape[1])
    return truth if found is None else found


def _are_shown(step: Step, batch: Any, count: int, rows: int) -> tuple[bool, bool]:
    """Whether the model was given the batch itself as the first of views that lie one by one, or by sample."""
    own = [part for _, part in tensors_of(batch) if part.ndim > 1 and len(part) == rows]
    given = [part for part in step.given if len(part) == count * rows]
    first, by_sample = (
        any(which_of(part, own) is not None for part in parts)
        for parts in ([part[:rows] for part in given], [part[::count] for part in given])
    )
    return first, by_sample


def _with_own(judged: Judged, labels: torch.Tensor) -> Judged:
    """What a criterion was given, with the batch's labels in their own memory where it was given equal ones."""
    truth = judged.truth
    is_own = truth.shape == labels.shape and truth.dtype == labels.dtype and truth.device == labels.device
    return replace(judged, truth=labels) if is_own else judged


def _of_first(judged: Judged, laid: _Laid) -> Judged:
    """What a criterion was given of the first views."""
    parts = (judged.answers, judged.truth)
    total = laid.count * laid.rows
    if any(not part.ndim or len(part) % total for part in parts):
        return judged
    answers, truth = map(laid.first, parts)
    each = None if judged.each is None else laid.first(judged.each)
    counting = None if judged.counting is None else laid.first(judged.counting)
    return replace(judged, answers=answers, truth=truth, each=each, counting=counting, picked=(None, None))
