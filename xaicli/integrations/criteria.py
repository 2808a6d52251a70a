"""The columns of what the criteria of a step were given: what its answers mean, and by what they are judged."""

from __future__ import annotations

from typing import Any

import torch

from xaicli.heads.decision import NOTHING
from xaicli.heads.head import Head, Task
from xaicli.heads.operations import Range
from xaicli.integrations.answers import is_of_unknown_places, labels_as, meaning_of
from xaicli.integrations.capture import Judged, Step
from xaicli.integrations.columns import SOME_PLACES, columns_of, that_count
from xaicli.integrations.recording import Recording
from xaicli.integrations.steps import StepOrders
from xaicli.integrations.views import TOO_MANY, are_more
from xaicli.vocabulary import Mode

_OTHER_TASK = (
    "{name} gives its criterion targets of {other}, and the run is of {task}: its rows have no label and no loss; give "
    'a criterion the labels that the training has, or say what all answers mean: XaiCallback(..., task="{other}")'
)
_NUMBERS = (
    "{name} gives a criterion of numbers rows of zeros and a one: its answers are recorded as numbers, without label "
    'and prediction; XaiCallback(..., task="classification") says that they are classes'
)


class Criteria:
    """Reads what criteria were given, as the run's task has it, which is the training's.

    Args:
        recording: What knows the run's task, says and counts.
        orders: What was seen of the steps before.
        end: What the caller can do where it is not known whose labels a criterion was given.
        line: How a step ends that returns the answers of n samples alone.
    """

    def __init__(self, recording: Recording, orders: StepOrders, end: str, line: str) -> None:
        self._recording, self._orders, self._end, self._line = recording, orders, end, line
        self._are_of_softmax = False
        """Whether the last answers that were watched closely beside rows of zeros and a one were a softmax's."""

    def columns(
        self,
        step: Step,
        judged: Judged,
        batch: Any,
        labels: Any,
        rows: int | None,
        mode: Mode,
        name: str,
        *,
        is_in_order: bool,
    ) -> tuple[dict[str, Any], Task] | str:
        """The columns of what a criterion was given, and the task that this says; or why they are not known.

        Args:
            step: What was seen.
            judged: What the criterion was given.
            batch: What the step was given.
            labels: The labels in it.
            rows: How many samples it holds.
            mode: The mode.
            name: The step, in words.
            is_in_order: Whether the answers are known to be in the batch's order.
        """
        if is_of_unknown_places(judged, labels):
            return SOME_PLACES
        if (reason := self.too_many(step, judged, labels, rows)) is not None:
            return reason
        judged = self._orders.with_own_label(judged, labels, mode, name)
        own, stray = self._orders.labels_of(judged, labels, mode, is_in_order=is_in_order)
        if stray is not None:
            return f"{stray}; no samples of it are recorded: {self._end}"
        head, values, truth = meaning_of(judged, own, rows)
        first = int(self._orders.is_next(truth, labels, mode))
        truth, counting, unknown = that_count(
            step, batch, judged, (head, values, truth), labels, self._orders.told, mode
        )
        if unknown is not None:
            return unknown
        said = (head, values, truth)
        return self._meant(step, judged, labels, mode, name, said, first=first, counting=counting), head.task

    def too_many(self, step: Step, judged: Judged, labels: Any, rows: int | None) -> str | None:
        """Why rows are not known where a criterion was given more than the batch's samples have labels; else None."""
        if not are_more(step, judged, labels, rows):
            return None
        return TOO_MANY.format(line=self._line)

    def _meant(
        self,
        step: Step,
        judged: Judged,
        labels: Any,
        mode: Mode,
        name: str,
        meaning: tuple[Head, torch.Tensor, Any],
        *,
        first: int,
        counting: torch.Tensor | None,
    ) -> dict[str, Any]:
        recording, (head, values, truth) = self._recording, meaning
        width = values.shape[1]
        is_brier = head.task is Task.REGRESSION and self._is_brier(step, judged, truth, width)
        said = Task.CLASSIFICATION if is_brier else head.task
        task = recording.task_beside(said, judged.answers, mode) or (said if is_brier else None)
        if task is not None:
            is_of_batch, own = self._orders.is_trained_on_batch, labels_as(task, truth, width)
            truth = own if is_of_batch or task is not Task.REGRESSION else None
            truth = labels if is_of_batch and own is None else truth
            head, values = recording.answers(judged.answers, truth, task=task, origin=step.origin, known=NOTHING)
        elif said is Task.REGRESSION and width > 1 and labels_as(Task.CLASSIFICATION, truth, width) is not None:
            recording.tell(_NUMBERS.format(name=name))
        else:
            self._orders.say_soft(judged, labels, mode, name)
        recording.settle(head.task)
        keep, void = recording.keeps_tokens(head.task), recording.void_label
        counting = None if counting is None or counting.numel() != values.numel() else counting
        columns = columns_of(
            head,
            values,
            truth,
            first=first,
            keep_tokens=keep,
            ignored=judged.ignored,
            void=void,
            counting=counting,
            shares=self._orders.are_shares(judged, mode) if judged.is_each else None,
        )
        if task is not None and not columns.keys() & {"label", "loss"}:
            recording.tell(_OTHER_TASK.format(name=name, task=task.value, other=said.value))
        return columns

    def _is_brier(self, step: Step, judged: Judged, truth: Any, width: int) -> bool:
        """Whether numbers beside rows of zeros and a one are the probabilities of classes: those of a softmax."""
        if self._recording.says_task or width < 2 or labels_as(Task.CLASSIFICATION, truth, width) is None:
            return False
        if step.origin is not None:
            origin = step.origin(judged.answers)
            self._are_of_softmax = origin is not None and origin.range is Range.DISTRIBUTION
        return self._are_of_softmax
