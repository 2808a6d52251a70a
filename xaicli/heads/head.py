"""The head of a model: which numbers of its output count, and what they say of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from xaicli.errors import XaiError

if TYPE_CHECKING:
    from torch import Tensor


_ROUNDED = 0.01
_SUMMED = 0.05
"""How far from a probability, and from a sum of one, rounding to half precision may lead."""


class Task(StrEnum):
    """What a model was trained to say."""

    CLASSIFICATION = "classification"
    """One of K classes."""
    BINARY = "binary"
    """Yes or no, by one number."""
    MULTILABEL = "multilabel"
    """Any of K classes."""
    REGRESSION = "regression"
    """A number, or several."""
    SEQUENCE = "sequence"
    """One of K tokens at every place of a text."""
    TOKEN_CLASSIFICATION = "token_classification"
    """One of K classes at every place of a text or signal."""
    SEGMENTATION = "segmentation"
    """One of K classes at every pixel."""


class Values(StrEnum):
    """What the numbers of an output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"
    VALUE = "value"
    """The answer itself: a regression's."""


class Text(StrEnum):
    """How a model of texts answers at its places."""

    CAUSAL = "causal"
    """At each token of its input the one that follows it."""
    DECODER = "decoder"
    """At each token of a decoder's input the one that follows it; what is read lies in another input."""
    MASKED = "masked"
    """At each token of its input what belongs there."""


_AT_PLACES = (Task.SEQUENCE, Task.TOKEN_CLASSIFICATION, Task.SEGMENTATION)


@dataclass(frozen=True)
class Head:
    """What a model's output means; its methods take what `tensor` gives, and each row of theirs is of its sample alone.

    Shapes: N samples, K classes, `places` one or more axes (tokens; height and width). `valid` is a bool tensor
    (N, *places) of the places that count, None for all; a padded token or a void pixel is none.

    Attributes:
        task: What the model was trained to say.
        values: What its numbers are.
        classes: How many classes there are; 2 for one number that means yes or no. For a regression, how many numbers.
        single: Whether one number stands for two classes: class 1 against class 0.
        independent: Whether the classes' probabilities are each for itself (sigmoid), so that they need not sum to one.
        where: The key or position of the numbers in the model's output; "" for the output itself.
        axis: The axis of the classes in that tensor, counted from the end; None where it has none.
        decided: One sentence: what was decided, and by what.
        text: How a model of texts answers; None where its configuration does not say it.
        pad: The token that fills short texts up; None where that is not known.
    """

    task: Task
    values: Values
    classes: int
    single: bool = False
    independent: bool = False
    where: str = ""
    axis: int | None = -1
    decided: str = ""
    text: Text | None = None
    pad: int | None = None

    @property
    def has_places(self) -> bool:
        """Whether the model answers at every place of a sample."""
        return self.task in _AT_PLACES

    @property
    def has_classes(self) -> bool:
        """Whether there are classes, and so probabilities, a prediction that is right or wrong, a target to name."""
        return self.task is not Task.REGRESSION

    @property
    def note(self) -> str:
        """What a reader of saliency maps should know of this head; "" where there is nothing to say."""
        if self.single and self.has_classes:
            said, where = ("logit", "positive") if self.values is Values.LOGITS else ("probability", "above one half")
            return (
                f"the model returns one number, read as the {said} of class 1: prediction 1 where {where}; "
                "class 0 is explained by its negative"
            )
        if self.values is Values.PROBABILITIES:
            return (
                "the model returns probabilities: gradients shrink towards zero where it is sure; "
                "a model that returns logits gives clearer maps"
            )
        return ""

    def tensor(self, result: Any) -> Tensor:
        """The numbers that count in what the model returned.

        Returns:
            (N, K), or (N, K, *places) where the model answers at every place; K is 1 where one number stands for two
            classes. The dtype is the model's own and the result can be differentiated.

        Raises:
            XaiError: The output is not of the shape this head was decided for.
        """
        from xaicli.heads.outputs import tensor_at

        found = tensor_at(result, self.where)
        # One sample alone: some models squeeze its axis away.
        if found.ndim == 0 or (self.axis == -1 and found.ndim == 1 and not self.has_places):
            found = found.unsqueeze(0)
        if self.axis is None:
            found = found.unsqueeze(1)
        elif -self.axis > found.ndim:
            raise self._other_shape(found)
        else:
            found = found.movedim(self.axis, 1)
        if not self.has_places and found.ndim > 2:
            found = found.flatten(2).mean(2)
        if found.shape[1] != (1 if self.single else self.classes):
            raise self._other_shape(found)
        return found

    def _other_shape(self, found: Tensor) -> XaiError:
        return XaiError(
            f"the model's output has shape {tuple(found.shape)}; {self.decided}",
            hint="does its length change with the number of samples? choose another output with --output-key (output=)",
        )

    def refuse_no_probabilities(self, values: Tensor) -> None:
        """What was said to be probabilities, and cannot be.

        Args:
            values: (N, K, ...), as `tensor` gives them; samples with numbers that are not finite are left aside.

        Raises:
            XaiError: A number lies outside of [0, 1], or the classes' do not sum to one, by more than rounding.
        """
        if self.values not in (Values.PROBABILITIES, Values.LOG_PROBABILITIES):
            return
        p = values.detach()
        p = (p.float() if self.values is Values.PROBABILITIES else p.float().exp())[p.flatten(1).isfinite().all(1)]
        if not p.numel():
            return
        least, most = float(p.min()), float(p.max())
        if least < -_ROUNDED or most > 1 + _ROUNDED:
            raise XaiError(
                f"the output is {self.decided}, and runs from {least:.3g} to {most:.3g}",
                hint="probabilities lie in [0, 1]: say what they are with --task (task=), classification:logits say",
            )
        if self.single or self.independent:
            return
        sums = p.sum(1)
        if float((sums - 1).abs().max()) > _SUMMED:
            raise XaiError(
                f"the output is {self.decided}, and sums from {float(sums.min()):.3g} to {float(sums.max()):.3g}",
                hint="probabilities of one class each sum to one: say what they are with --task (task=), "
                "classification:logits or multilabel:probabilities say",
            )

    def probabilities(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N, K) the probability of each class; over places, its mean over those that count.

        Raises:
            XaiError: A regression has none.
        """
        return _mean(self.at_places(values), valid)

    def at_places(self, values: Tensor) -> Tensor:
        """(N, K) or (N, K, *places): the probability of each class, at every place."""
        import torch

        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        match self.values:
            case Values.LOGITS:
                found = torch.sigmoid(values) if self.single or self.independent else values.softmax(1)
            case Values.PROBABILITIES:
                found = values
            case Values.LOG_PROBABILITIES:
                found = values.exp()
            case Values.VALUE:
                raise XaiError("the model's output is a value: it has no probabilities", hint=self.decided)
            case _:
                assert_never(self.values)
        return torch.cat([1 - found, found], dim=1) if self.single else found

    def logits(self, values: Tensor) -> Tensor:
        """(N, K) or (N, K, *places): numbers whose softmax (sigmoid for independent classes) is the probability.

        Of probabilities their logarithms: exact up to rounding, minus infinity where one is 0.
        """
        import torch

        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        if self.values is not Values.LOGITS and (self.single or self.independent):
            p = values.exp() if self.values is Values.LOG_PROBABILITIES else values
            values = torch.logit(p)
        elif self.values is Values.PROBABILITIES:
            values = values.log()
        return torch.cat([torch.zeros_like(values), values], dim=1) if self.single else values

    def predictions(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the model says of each sample.

        Returns:
            (N,) int64, the most probable class (of a multilabel model as well: the surest of them; `sets` are its
            answer), over places the one of the largest share; -1 where a number of the sample is NaN. For a regression
            the numbers themselves: (N,), or (N, K) of several.
        """
        import torch

        if not self.has_classes:
            found = values.detach()
            return found[:, 0] if found.shape[1] == 1 else found
        scores = values.detach()
        if self.has_places:
            scores = self.probabilities(scores, valid)
        elif self.single:
            middle = 0.0 if self.values is Values.LOGITS else 0.5 if self.values is Values.PROBABILITIES else None
            one = scores[:, 0] if middle is not None else scores[:, 0].exp()
            found = (one > (0.5 if middle is None else middle)).long()
            return torch.where(one.isnan(), torch.full_like(found, -1), found)
        found = scores.argmax(1)
        return torch.where(self._says_nothing(scores), torch.full_like(found, -1), found)

    def _says_nothing(self, scores: Tensor) -> Tensor:
        """Where no class is predicted, (N, *places): a NaN, several +inf, all -inf, or probabilities that are all 0."""
        top = scores.amax(1, keepdim=True)
        shared = (scores == top).sum(1) > 1
        empty = top.isinf() | (top == 0) if self.values is Values.PROBABILITIES else top.isinf()
        return scores.isnan().any(1) | (shared & empty[:, 0])

    def place_predictions(self, values: Tensor) -> Tensor:
        """(N, *places) int64: the class at every place; -1 where a number there is NaN."""
        import torch

        scores = values.detach()
        if self.single:
            p = self.at_places(scores)[:, 1]
            found, broken = (p > 0.5).long(), p.isnan()
        else:
            found, broken = scores.argmax(1), self._says_nothing(scores)
        return torch.where(broken, torch.full_like(found, -1), found)

    def sets(self, values: Tensor) -> Tensor:
        """(N, K) bool: the classes a multilabel model finds, those of a probability above one half."""
        return self.at_places(values.detach()) > 0.5

    def targets(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N,) int64: what to explain of each sample when nothing else is asked: the prediction; of a value, itself.

        Raises:
            XaiError: A regression gives several numbers: one has to be named.
        """
        import torch

        if self.has_classes:
            return self.predictions(values, valid).clamp(min=0)
        if self.classes > 1:
            raise XaiError(
                f"the model gives {self.classes} values a sample: which of them is to be explained?",
                hint=f"--target N, 0 to {self.classes - 1}",
            )
        return torch.zeros(len(values), dtype=torch.long, device=values.device)

    def scalar(
        self, values: Tensor, targets: Tensor, valid: Tensor | None = None, place: Tensor | None = None
    ) -> Tensor:
        """The number of each sample that is explained, to be differentiated.

        Args:
            values: (N, K, ...), as `tensor` gives them.
            targets: (N,) int64 class or, for a regression, index of the number.
            valid: (N, *places).
            place: (N,) int64, the one place whose class is explained; None is the class over all places.

        Returns:
            (N,): the target's own number (logit, probability, log-probability or value); for one number that stands
            for two classes itself for class 1 and its negative for class 0; over places the mean over those that
            count.
        """
        targets = targets.clamp(min=0)
        if self.single and self.has_classes:
            sign = (2 * targets - 1).to(values.dtype)
            chosen = values[:, 0] * sign.reshape(-1, *[1] * (values.ndim - 2))
        else:
            index = targets.reshape(-1, 1, *[1] * (values.ndim - 2)).expand(-1, 1, *values.shape[2:])
            chosen = values.gather(1, index)[:, 0]
        if chosen.ndim == 1:
            return chosen
        if place is not None:
            return chosen.flatten(1).gather(1, place.reshape(-1, 1))[:, 0]
        return _mean(chosen.unsqueeze(1), valid)[:, 0]

    def target_prob(self, values: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N,) the probability of each sample's target; NaN for a target that is no class."""
        import torch

        p = self.probabilities(values, valid)
        known = (targets >= 0) & (targets < p.shape[1])
        found = p.gather(1, torch.where(known, targets, torch.zeros_like(targets))[:, None])[:, 0]
        return torch.where(known, found, torch.full_like(found, torch.nan))

    def label_prob(self, values: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N,) the probability the model gives to the truth; NaN where that is no class, and for a regression.

        Args:
            values: (N, K, ...).
            labels: (N,) classes; (N, K) of 0 and 1 for a multilabel model, where the result is the geometric mean over
                the classes; (N, *places) classes, where it is the geometric mean over the places that hold a class.
        """
        import torch

        if not self.has_classes:
            return torch.full((len(values),), torch.nan, dtype=torch.float32, device=values.device)
        if self.task is Task.MULTILABEL and labels.ndim == 2:
            p = self.at_places(values)
            known = (labels == 0) | (labels == 1)
            right = torch.where(labels == 1, p, 1 - p)
            return _geometric_mean(right, known)
        if self.has_places and labels.ndim > 1:
            p = self.at_places(values)
            known = (labels >= 0) & (labels < p.shape[1])
            known = known & valid if valid is not None else known
            index = torch.where(known, labels, torch.zeros_like(labels)).long()
            right = p.gather(1, index.unsqueeze(1))[:, 0]
            return _geometric_mean(right.flatten(1), known.flatten(1))
        return self.target_prob(values, labels.long(), valid)

    def top_prob(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N,) the probability of the prediction; NaN for a regression."""
        import torch

        if not self.has_classes:
            return torch.full((len(values),), torch.nan, dtype=torch.float32, device=values.device)
        return self.probabilities(values.detach(), valid).amax(1)


def named_task(text: str | Task) -> tuple[Task, Values | None]:
    """A task by its name, and what its numbers are where that is said too: "classification:probabilities".

    Raises:
        XaiError: There is no such task, or no such kind of values.
    """
    from xaicli.errors import unknown

    name, _, kind = str(text).partition(":")
    if name not in tuple(Task):
        raise unknown("task", name, tuple(Task))
    if kind and kind not in tuple(Values):
        raise unknown("kind of values", kind, tuple(Values), plural="kinds of values")
    return Task(name), Values(kind) if kind else None


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """(N, K) the mean over places of (N, K, *places)."""
    if values.ndim == 2:
        return values
    if valid is None:
        return values.flatten(2).mean(2)
    import torch

    weight = valid.flatten(1).unsqueeze(1)
    # A place that does not count may hold NaN: it is left out, not multiplied by zero.
    kept = torch.where(weight, values.flatten(2), torch.zeros_like(values.flatten(2)))
    return kept.sum(2) / weight.sum(2).clamp(min=1)


def _geometric_mean(p: Tensor, known: Tensor) -> Tensor:
    """(N,) of (N, M), over the known; NaN where there is none."""
    import torch

    total = torch.where(known, p.log(), torch.zeros_like(p)).sum(1)
    n = known.sum(1)
    return torch.where(n > 0, (total / n.clamp(min=1)).exp(), torch.full_like(total, torch.nan))
