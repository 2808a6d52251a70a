"""What the caller hands over, as tensors on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xaicli.errors import UsageError

Arrays = npt.NDArray[Any]
Given = Tensor | Arrays | Sequence[Any] | Mapping[str, Any]

_HALVES = (torch.bfloat16, torch.float16)


def device_of(given: str | torch.device) -> torch.device:
    """The device a caller names.

    Raises:
        UsageError: There is no such device.
    """
    if given == "auto":
        # With torchrun, each rank takes its own GPU.
        return (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {str(given)!r}: {str(error).splitlines()[0]}", hint="auto, cpu, cuda, cuda:1"
        ) from error
    return device


def tensors_of(inputs: Given) -> tuple[tuple[str, ...], list[Tensor]]:
    """The names and tensors of the inputs, in call order; "" names the only one.

    Raises:
        UsageError: They differ in length, or hold nothing.
    """
    if isinstance(inputs, Mapping):
        names, values = tuple(str(name) for name in inputs), list(inputs.values())
    elif isinstance(inputs, list | tuple) and inputs and all(hasattr(x, "shape") and len(x.shape) for x in inputs):
        names, values = tuple(f"input{i}" for i in range(len(inputs))), list(inputs)
    else:
        names, values = ("",), [inputs]
    tensors = [
        x.detach() if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(np.asarray(x))) for x in values
    ]
    if len(names) == 1:
        names = ("",) if names == ("input0",) else names
    lengths = {len(x) if x.ndim else 0 for x in tensors}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(
            "inputs have " + " and ".join(str(n) for n in sorted(lengths)) + " samples",
            hint="(sample, ...) arrays of one length",
        )
    return names, tensors


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats and pictures of bytes become the model's floats; other whole numbers and booleans stay what they are."""
    return x.to(dtype) if x.is_floating_point() or x.dtype == torch.uint8 else x


def as_arrays(inputs: Given) -> dict[str, Arrays]:
    """Inputs by name, (sample, ...) each; "" for the only one.

    Raises:
        UsageError: They differ in length, or hold nothing.
    """
    names, tensors = tensors_of(inputs)
    return {
        name: x.float().cpu().numpy() if x.dtype in _HALVES else x.cpu().numpy()
        for name, x in zip(names, tensors, strict=True)
    }
