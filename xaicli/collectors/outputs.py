"""What a model made of a batch, and where in it - and in the batch - logits and labels are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from xaicli.errors import XaiError

Layer = str | int
"""A hidden layer by its name in `named_modules()`, or its position there."""

TARGETS = frozenset({"label", "labels", "label_ids", "target", "targets", "y"})
"""The entries of a dict batch that are taken for labels, never for inputs."""


@dataclass(frozen=True)
class PredictorOutput:
    """What a model made of a batch.

    The object also behaves as `forward` itself: its attributes, items, arithmetic, order and every torch function, so
    that a collector may be written as if it were handed the model's output.

    Attributes:
        forward: The model's output, floating tensors in float32 at least.
        hidden_layers: The chosen layers' outputs under the name or number each was asked for by.
        example_id: The rows of the table the batch is made of.
    """

    forward: Any
    hidden_layers: Mapping[Layer, Any] = field(default_factory=dict)
    example_id: Sequence[int] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.forward, name)

    def __getitem__(self, key: Any) -> Any:
        return self.forward[key]

    def __len__(self) -> int:
        return len(self.forward)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.forward)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(unwrap(item) for item in value)
            return value.forward if isinstance(value, PredictorOutput) else value

        return function(*unwrap(args), **{name: unwrap(value) for name, value in (kwargs or {}).items()})


def _forwarded(name: str) -> Callable[..., Any]:
    def operator(self: PredictorOutput, *operands: Any) -> Any:
        values = (value.forward if isinstance(value, PredictorOutput) else value for value in operands)
        return getattr(self.forward, name)(*values)

    return operator


# Python looks operators up on the class, never by __getattr__.
_OPERATORS: tuple[str, ...] = ("add", "sub", "mul", "truediv", "pow", "matmul", "radd", "rsub", "rmul", "rtruediv")
_OPERATORS += ("neg", "abs", "lt", "le", "gt", "ge")
for _name in _OPERATORS:
    setattr(PredictorOutput, f"__{_name}__", _forwarded(f"__{_name}__"))


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of a module's output, which may be a tuple, a dict or a transformers output."""
    if isinstance(output, torch.Tensor):
        return output
    items: Any = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    for item in items:
        if (found := first_tensor(item)) is not None:
            return found
    return None


def logits_of(forward: Any) -> torch.Tensor:
    """The logits in a model's output: the output itself, its `logits` or `out`, else its first tensor.

    Raises:
        XaiError: It holds no tensor.
    """
    forward = forward.forward if isinstance(forward, PredictorOutput) else forward
    for name in ("logits", "out"):
        found = forward.get(name) if isinstance(forward, Mapping) else getattr(forward, name, None)
        if isinstance(found, torch.Tensor):
            return found
    tensor = first_tensor(forward)
    if tensor is None:
        raise XaiError("the model's output holds no tensor", hint="give the collector a preprocess_fn that finds it")
    return tensor


def labels_of(batch: Any) -> Any:
    """The labels in a batch: the second of a tuple, or the entry of a dict named like one; None without."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in batch if key in TARGETS), None)
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None


def widened(output: Any) -> Any:
    """The output with half-precision tensors in float32, so that metrics are computed in it."""
    if isinstance(output, torch.Tensor):
        return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    if type(output) in (list, tuple):
        return type(output)(widened(item) for item in output)
    if isinstance(output, Mapping):
        for key, value in list(output.items()):
            wide = widened(value)
            if wide is not value:
                output[key] = wide  # type: ignore[index]
    return output
