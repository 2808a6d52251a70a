"""What the caller hands over, as arrays and tensors, and what the axes of an input mean."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xaicli.errors import UsageError

Arrays = npt.NDArray[Any]
Given = Tensor | Arrays | Sequence[Any] | Mapping[str, Any]

_HALVES = (torch.bfloat16, torch.float16)
_FEW_CHANNELS = 4


def device_of(given: str | torch.device) -> torch.device:
    """The device a caller names.

    Raises:
        UsageError: There is no such device.
    """
    if given == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # With torchrun, each rank takes its own GPU.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
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

    They may share memory with the caller's: whoever lets a model change them takes a copy.

    Raises:
        UsageError: They differ in length, or hold nothing.
    """
    if isinstance(inputs, Mapping):
        # None stands for an argument that is left out.
        given = {str(name): x for name, x in inputs.items() if x is not None}
        names, values = tuple(given), list(given.values())
    elif isinstance(inputs, list | tuple) and inputs and all(hasattr(x, "shape") and len(x.shape) for x in inputs):
        names, values = tuple(f"input{i}" for i in range(len(inputs))), list(inputs)
    else:
        names, values = ("",), [inputs]
    tensors = [_tensor(x, name) for name, x in zip(names, values, strict=True)]
    if len(names) == 1:
        names = ("",) if names == ("input0",) else names
    lengths = {len(x) if x.ndim else 0 for x in tensors}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(
            "inputs have " + " and ".join(str(n) for n in sorted(lengths)) + " samples",
            hint="(sample, ...) arrays of one length",
        )
    return names, tensors


def _tensor(x: Any, name: str) -> Tensor:
    """An input as a tensor.

    Raises:
        UsageError: It holds no numbers, or rows of different lengths.
    """
    if isinstance(x, Tensor):
        return x.detach()
    called = f"the input {name!r}" if name else "the input"
    if isinstance(x, Sequence) and any(part is None for part in x):
        raise UsageError(f"{called} holds None", hint="give inputs by name, as a dict, to leave one out between others")
    try:
        return torch.from_numpy(np.ascontiguousarray(np.asarray(x)))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{called} is no array of numbers: {str(error).splitlines()[0]}",
            hint="samples of one shape, in one array or tensor (sample, ...); pad rows of different lengths",
        ) from error


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


class Layout(Enum):
    """What the axes of one sample of an input mean."""

    CHANNELS_FIRST = "channels first"
    """(C, H, W), (C, D, H, W), (C, length): the first axis is summed over."""
    CHANNELS_LAST = "channels last"
    """(H, W, C), (tokens, width): the last axis is summed over."""
    NO_CHANNELS = "no channels"
    """(features,), (H, W), (time, features)."""

    def channel_axis(self, ndim: int) -> int | None:
        """The channels' axis in a batch of `ndim` axes."""
        return {Layout.CHANNELS_FIRST: 1, Layout.CHANNELS_LAST: ndim - 1}.get(self)

    def spatial(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The lengths of a batch's axes that are places."""
        channel = self.channel_axis(len(shape))
        return tuple(n for axis, n in enumerate(shape) if axis and axis != channel)


def layout_of(
    shape: tuple[int, ...], *, read: int | None = None, picture: tuple[int, int] | None = None, tokens: bool = False
) -> Layout:
    """What the axes of one sample mean.

    Args:
        shape: One sample, without the batch axis.
        read: Which axis of a batch the model's first layer reads as channels, where that is known.
        picture: Height and width of the sample's picture where one is known; it decides for (H, W) inputs.
        tokens: The sample is a sequence of embedded tokens, (tokens, width).
    """
    if tokens:
        return Layout.CHANNELS_LAST
    if len(shape) <= 1:
        return Layout.NO_CHANNELS
    if len(shape) == 2:
        # (channels, length) is what a one-dimensional convolution reads; a plane or (time, features) keeps both axes.
        return Layout.CHANNELS_FIRST if read == 1 and picture != shape else Layout.NO_CHANNELS
    if read is not None and read in (1, len(shape)):
        return Layout.CHANNELS_FIRST if read == 1 else Layout.CHANNELS_LAST
    if len(shape) == 3 and shape[-1] <= _FEW_CHANNELS < shape[0]:
        return Layout.CHANNELS_LAST
    return Layout.CHANNELS_FIRST
