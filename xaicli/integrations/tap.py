"""What passes through a model while somebody else's loop trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

ID_KEYS = ("sample_id", "sample_ids", "example_id", "id", "ids", "idx", "index")
"""The entries of a batch that are taken for ids, the first that is there."""


@dataclass(frozen=True)
class Passed:
    """One forward of the model.

    Attributes:
        args: Its positional arguments.
        kwargs: Its keyword arguments, without ids.
        output: What it returned.
        sample_id: The ids that were among the keyword arguments, if any.
        training: Whether the model was in training mode.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    sample_id: Any
    training: bool


class Tap:
    """Watches every forward of a model; ids among its keyword arguments are taken out before the model sees them.

    Args:
        model: The model.
        seen: Called after every forward; what it raises is not caught.
    """

    def __init__(self, model: nn.Module, seen: Callable[[Passed], None]) -> None:
        self._seen = seen
        self._ids: Any = None
        self._is_paused = False
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Look away, for passes that are not the training's."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def _before(self, _module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        key = next((key for key in ID_KEYS if key in kwargs), None)
        self._ids = None if key is None else kwargs[key]
        return args, {name: value for name, value in kwargs.items() if name != key}

    def _after(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not self._is_paused:
            with torch.no_grad():
                self._seen(Passed(args, kwargs, output, self._ids, module.training))


def ids_of(batch: Any) -> Any:
    """The ids in a batch: the entry of a dict named like them, or the first of three or more parts; None without."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in ID_KEYS if key in batch), None)
    return batch[0] if isinstance(batch, (list, tuple)) and len(batch) > 2 else None


def tensors_of(passed: Passed) -> Any:
    """The model's inputs as `save_checkpoint` and `log_inputs` take them: by name, or one; None where none is a tensor.

    Labels are left out.
    """
    named = {
        name: value
        for name, value in passed.kwargs.items()
        if isinstance(value, torch.Tensor) and value.ndim > 0 and name not in ("labels", "label", "label_ids")
    }
    if passed.args and isinstance(passed.args[0], torch.Tensor):
        positional = [value for value in passed.args if isinstance(value, torch.Tensor)]
        return positional[0] if len(positional) == 1 and not named else None
    return named or None


def first_of(inputs: Any, n: int) -> Any:
    """The first `n` samples of a model's inputs."""
    if isinstance(inputs, Mapping):
        return {name: value[:n].detach() for name, value in inputs.items()}
    return inputs[:n].detach()
