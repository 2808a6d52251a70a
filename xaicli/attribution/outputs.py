"""What a model returns: which tensor, its axes, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from xaicli.errors import XaiError

_LOGITS = "logits"


class Meaning(Enum):
    """What the numbers of an output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    """Rows are non-negative and sum to one: a softmax is the model's last step."""
    SINGLE_LOGIT = "a single logit"
    """One number: the logit of class 1 against class 0."""
    SINGLE_PROBABILITY = "a single probability"
    """One number in [0, 1]: a sigmoid is the model's last step."""


NOTES = {
    Meaning.PROBABILITIES: "the model returns probabilities (softmax): gradients shrink towards zero where it is sure; "
    "a model that returns logits gives clearer maps",
    Meaning.SINGLE_LOGIT: "the model returns one number, read as the logit of class 1: prediction 1 where positive; "
    "class 0 is explained by its negative",
    Meaning.SINGLE_PROBABILITY: "the model returns one number in [0, 1], read as the probability of class 1; "
    "class 0 is explained by its negative",
}


def keys_of(result: Any) -> tuple[str, ...]:
    """The keys or indices of a model's tensors; ("",) for a plain tensor."""
    if isinstance(result, Tensor):
        return ("",)
    return tuple(name for name, value in _items(result) if isinstance(value, Tensor) and value.is_floating_point())


def pick(result: Any, output: str | int | None) -> Tensor:
    """The tensor to be explained, as (batch, outputs): further axes are averaged over.

    Args:
        result: What the model returned: a tensor, or a tuple, list, dict or dataclass of tensors.
        output: Key or index; None for the only tensor, the one named "logits", or the first.

    Raises:
        XaiError: There is no such output, or it is no floating-point tensor.
    """
    tensor = result if isinstance(result, Tensor) and output in (None, "") else _choose(result, output)
    if not tensor.is_floating_point():
        raise XaiError(
            f"the model's output {'' if output is None else output} has dtype {tensor.dtype}: it has no gradient",
            hint="choose another with --output-key, or let the model return scores instead of classes",
        )
    if tensor.ndim == 1:
        return tensor.unsqueeze(1)
    return tensor.flatten(2).mean(2) if tensor.ndim > 2 else tensor


def _choose(result: Any, output: str | int | None) -> Tensor:
    entries = _items(result)
    items = {name: value for name, value in entries if isinstance(value, Tensor)}
    if output is None and items:
        floats = [name for name, value in items.items() if value.is_floating_point()]
        output = _LOGITS if _LOGITS in items else (floats or list(items))[0]
    if str(output) not in items and str(output).isdigit() and int(str(output)) < len(entries):
        output = entries[int(str(output))][0]
    if str(output) not in items:
        exist = f"it has: {', '.join(items)}" if items else f"it returns {type(result).__name__}, not a tensor"
        raise XaiError(f"the model has no output {output!r}", hint=exist)
    return items[str(output)]


def _items(result: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(result, Mapping):
        return [(str(key), value) for key, value in result.items()]
    if hasattr(result, "_fields"):
        return list(zip(result._fields, result, strict=True))
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [(str(index), value) for index, value in enumerate(result)]
    return [(key, value) for key, value in getattr(result, "__dict__", {}).items() if not key.startswith("_")]


_SQUASHING = frozenset(("Sigmoid", "Softmax", "Hardsigmoid"))
_LINEAR = frozenset(("Addmm", "Mm", "Addmv", "Mv", "Bmm", "Baddbmm", "Convolution", "Add", "Sub", "Sum"))
_COPIES = frozenset(("Clone", "ToCopy", "Expand", "AsStrided", "Transpose", "Permute", "T", "Alias", "Mean"))
_VIEWS = frozenset(("View", "UnsafeView", "Squeeze", "Unsqueeze", "Select", "Slice", "Reshape", "ReshapeAlias"))
_PASSED = _COPIES | _VIEWS
"""What leaves values as they are; so does the mean over the places of a spatial output, as far as their range goes."""


def last_operation(output: Tensor) -> str:
    """What gave a tensor its range: "Addmm" of a linear layer, "Sigmoid"; "" where autograd knows of nothing.

    Told from the graph, not from the values: a logit between 0 and 1 is no probability.
    """
    node = output.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in _PASSED:
            return name
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


@dataclass(frozen=True)
class Scores:
    """The clean outputs of some samples and what they mean.

    Attributes:
        values: (sample, output), as returned.
        meaning: What the numbers are.
        probabilities: (sample, class), two classes for a single number.
        predictions: (sample,), the most probable class.
    """

    values: Tensor
    meaning: Meaning
    probabilities: Tensor
    predictions: Tensor

    @property
    def single(self) -> bool:
        """Whether one number stands for two classes."""
        return self.meaning in (Meaning.SINGLE_LOGIT, Meaning.SINGLE_PROBABILITY)


def read_scores(values: Tensor, last: str) -> Scores:
    """Tell logits from probabilities and one number from many.

    Args:
        values: (sample, output).
        last: The model's last operation, as `last_operation` names it; "" where it is not known.
    """
    values = values.detach().double().cpu()
    if values.shape[1] == 1:
        inside = last in _SQUASHING or (last not in _LINEAR and bool(((values >= 0) & (values <= 1)).all()))
        positive = values if inside else torch.sigmoid(values)
        both = torch.cat([1 - positive, positive], dim=1)
        meaning = Meaning.SINGLE_PROBABILITY if inside else Meaning.SINGLE_LOGIT
        return Scores(values, meaning, both, (positive[:, 0] > 0.5).long())
    sums = values.sum(1)
    is_softmax = bool((values >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-4).all())
    probabilities = values if is_softmax else torch.softmax(values, dim=1)
    meaning = Meaning.PROBABILITIES if is_softmax else Meaning.LOGITS
    return Scores(values, meaning, probabilities, torch.nan_to_num(values, nan=-torch.inf).argmax(1))
