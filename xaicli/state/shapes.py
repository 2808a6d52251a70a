"""Arrays and tensors by their shapes, without loading the libraries they are of."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def differences(here: Mapping[str, Any], saved: Mapping[str, Any]) -> tuple[str, str]:
    """The names that are only here, and those that are only there, in words."""
    missing = [name for name in here if name not in saved]
    unexpected = [name for name in saved if name not in here]
    return _listed(missing), _listed(unexpected)


def _listed(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a torch tensor."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    arrays = [kind for kind in (numpy and numpy.ndarray, torch and torch.Tensor) if kind]
    return isinstance(value, tuple(arrays))


def is_module(thing: Any) -> bool:
    """Whether a thing is a `torch.nn.Module`."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array or tensor; None of anything else."""
    return tuple(value.shape) if is_array(value) else None


def in_words(value: Any) -> str:
    """What a value is, for a message."""
    return f"of shape {list(value.shape)}" if is_array(value) else f"a {type(value).__name__}"


def fill(array: Any, values: Any) -> None:
    """Put values into an array or tensor of their shape."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        with torch.no_grad():
            array.copy_(torch.as_tensor(values))
    else:
        array[...] = values
