"""What the caller hands over, as arrays and tensors; what its axes mean; and where integrated paths start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, assert_never
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from xaicli.attribution.settings import Baseline
from xaicli.errors import UsageError, XaiError
from xaicli.sources.inputs import BadSampleError
from xaicli.sources.pictures import Preparation
from xaicli.tables.containers import for_torch

Arrays = npt.NDArray[Any]
Given = Tensor | Arrays | Sequence[Any] | Mapping[str, Any]

_HALVES = (torch.bfloat16, torch.float16)
_FEW_CHANNELS = 4


_SUPPORTED = ("cpu", "cuda", "meta")


def device_of(given: str | torch.device) -> torch.device:
    """The device a caller names; the CPU in place of one that is not supported, which `instead_of` says.

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
        if device.type not in _SUPPORTED:
            return torch.device("cpu")
        if device.type == "cuda" and device.index is None and torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {str(given)!r}: {str(error).splitlines()[0]}", hint="auto, cpu, cuda, cuda:1"
        ) from error
    return device


def instead_of(given: str | torch.device) -> str:
    """Which accelerator the CPU stands in for, as a note, "" for none: not all of them compute in double precision."""
    if given == "auto":
        found = None if torch.cuda.is_available() else torch.accelerator.current_accelerator(check_available=True)
        kind = "" if found is None else found.type
    else:
        kind = torch.device(given).type
    return "" if not kind or kind in _SUPPORTED else f"{kind} is not supported: the maps are computed on the CPU"


@contextmanager
def using(device: torch.device) -> Iterator[None]:
    """Whatever is launched, captured or allocated without a word of a device is so on this one."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


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
        bags = len(tensors) == 2 and all(x.ndim == 1 and not x.is_floating_point() for x in tensors)
        if bags or any("offset" in name for name in names):
            raise of_bags("offsets" if bags else next(name for name in names if "offset" in name))
        raise UsageError(
            "inputs have " + " and ".join(str(n) for n in sorted(lengths)) + " samples",
            hint="(sample, ...) arrays of one length",
        )
    return names, tensors


def of_bags(name: str) -> UsageError:
    """The refusal of bags of ids that lie in one row, with the places where each begins."""
    return UsageError(
        f"bags of ids in one row with their {name} (nn.EmbeddingBag) are not explained: a sample is no row of them",
        hint="rows of one length, filled up: a forward(ids) of shape (sample, length) that calls the bag without "
        "offsets, with padding_idx= for what fills up",
    )


def _tensor(x: Any, name: str) -> Tensor:
    """An input as a tensor.

    Raises:
        UsageError: It holds no numbers, or rows of different lengths.
    """
    called = f"the input {name!r}" if name else "the input"
    if isinstance(x, Tensor):
        if x.is_nested or x.layout is not torch.strided:
            kind, way = (
                ("nested", "torch.nested.to_padded_tensor(x, 0.0)") if x.is_nested else ("sparse", "x.to_dense()")
            )
            raise UsageError(f"{called} is a {kind} tensor", hint=f"give {way}: samples of one shape")
        return _real(x.detach(), called)
    if isinstance(x, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise UsageError(
            f"{called} is a {type(x).__name__}",
            hint="give its samples: torch.stack([dataset[i][0] for i in range(16)]), or a batch of the loader",
        )
    if isinstance(x, Mapping):
        raise UsageError(
            f"{called} is a dict of its own: {', '.join(map(str, x))}",
            hint="give each array by a name of its own, and let a forward around the model put them together",
        )
    texts = isinstance(x, str | bytes) or (isinstance(x, Sequence) and any(isinstance(p, str | bytes) for p in x))
    if texts or isinstance(x, int | float | complex):
        what = "holds texts" if texts else f"is one value ({x!r}), not one a sample"
        raise UsageError(
            f"{called} {what}: numbers are explained, a row a sample",
            hint="leave it out where forward can do without; else a forward around the model gives it",
        )
    if isinstance(x, Sequence) and any(part is None for part in x):
        raise UsageError(f"{called} holds None", hint="give inputs by name, as a dict, to leave one out between others")
    try:
        return _real(torch.from_numpy(for_torch(np.asarray(x))), called)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{called} is no array of numbers: {str(error).splitlines()[0]}",
            hint="samples of one shape, in one array or tensor (sample, ...); pad rows of different lengths",
        ) from error


def _real(x: Tensor, called: str) -> Tensor:
    if x.is_complex():
        raise UsageError(
            f"{called} is complex, and its attribution would be too",
            hint="let the model take real and imaginary part, torch.view_as_real(x), and put them together itself",
        )
    return x


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats and pixels of 8 or 16 bits become the model's floats; other whole numbers and truths stay as they are."""
    return x.to(dtype) if x.is_floating_point() or x.dtype in (torch.uint8, torch.uint16) else x


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


_BLUR_PART = 0.1


@dataclass(frozen=True)
class InputRange:
    """The range of a model's input, as the caller or else its checkpoint gives it.

    Attributes:
        lowest: The least value an input can have.
        mean, std: Per channel, or one for all, what normalised a picture in [0, 1].
        whole: Whether the inputs were given as whole numbers: then bytes are those, and no pixels.
        said: Whether the caller said mean or std of the one input there is: they are to fit its channels.
    """

    lowest: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    whole: bool = False
    said: bool = False


UNKNOWN_RANGE = InputRange()


def per_sample(x: Tensor, statistic: str) -> Tensor:
    """amin or amax of each sample, shaped (sample, 1, ...) to broadcast."""
    dims = tuple(range(1, x.ndim))
    return x if not dims else getattr(x, statistic)(dim=dims, keepdim=True)


def baseline_of(
    kind: Baseline | Path,
    x: Tensor,
    *,
    known: InputRange,
    seed: int,
    position: int,
    layout: Layout = Layout.CHANNELS_FIRST,
) -> Tensor:
    """The baseline of a batch, sample by sample.

    Args:
        kind: Which.
        x: (sample, ...).
        known: What is known of the model's inputs.
        seed: Of the uniform baseline: the same point of the range for every sample.
        position: Which input of the model this is.
        layout: Which of its axes are channels.

    Returns:
        Of a shape that broadcasts to `x`.
    """
    if isinstance(kind, Path):
        return _from_file(kind, x, known)
    match kind:
        case Baseline.MID:
            return (per_sample(x, "amax") + per_sample(x, "amin")) / 2
        case Baseline.ZERO:
            return torch.zeros_like(x[:1])
        case Baseline.BLACK:
            return _black(x, known, layout)
        case Baseline.UNIFORM:
            generator = torch.Generator().manual_seed(seed + 7919 * (position + 1))
            part = torch.rand(x.shape[1:], generator=generator, dtype=x.dtype).to(x.device)
            low = per_sample(x, "amin")
            return low + part * (per_sample(x, "amax") - low)
        case Baseline.BLUR:
            return _blurred(x, layout)
        case _:
            assert_never(kind)


def _black(x: Tensor, known: InputRange, layout: Layout) -> Tensor:
    """What black is in the model's own units: -mean / std, else an input's least value, else the sample's least."""
    axis = layout.channel_axis(x.ndim)
    mean, std = known.mean or (0.0,), known.std or (1.0,)
    sizes = {len(mean), len(std)} - {1}
    if (known.mean or known.std) and (not sizes or (axis is not None and sizes == {x.shape[axis]})):
        black = -torch.tensor(mean, dtype=x.dtype) / torch.tensor(std, dtype=x.dtype)
        return black.to(x.device).view([-1 if a == axis else 1 for a in range(x.ndim)])
    if known.said:
        channels = x.shape[axis] if axis is not None else 0
        raise UsageError(
            f"mean and std hold {' and '.join(map(str, sorted(sizes)))} numbers, and the model's input has "
            f"{channels or 'no'} channels: the black baseline is -mean / std",
            hint="one number for each channel, or one for all",
        )
    if known.lowest is not None:
        return torch.full_like(x[:1], known.lowest)
    return per_sample(x, "amin")


def _blurred(x: Tensor, layout: Layout) -> Tensor:
    """A Gaussian blur along the spatial axes (all but the channels), sigma a tenth of each; edges repeated."""
    channels = layout.channel_axis(x.ndim)
    for axis in range(1, x.ndim):
        if axis == channels and x.ndim > 2:
            continue
        length = x.shape[axis]
        sigma = _BLUR_PART * length
        reach = min(length - 1, max(1, int(3 * sigma)))
        if reach < 1:
            continue
        offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        moved = x.movedim(axis, -1)
        rows = functional.pad(moved.reshape(-1, 1, length), (reach, reach), mode="replicate")
        blurred = functional.conv1d(rows, (kernel / kernel.sum()).view(1, 1, -1))
        x = blurred.view(moved.shape).movedim(-1, axis)
    return x.contiguous()


def is_picture(kind: Baseline | Path) -> bool:
    """Whether a baseline is a picture, or bytes as of one, which is read as those of the samples are."""
    if not isinstance(kind, Path):
        return False
    try:
        array = _array_of(kind)
    except (OSError, ValueError, IndexError, EOFError, BadZipFile):
        return False  # said where it is used
    return array is None or array.dtype in _BYTES


_BYTES = (np.uint8, np.uint16)


def _array_of(path: Path) -> Arrays | None:
    """The array of an .npy or .npz; None of a picture."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            found: Arrays = for_torch(held[held.files[0]])
            return found
    return for_torch(np.load(path, allow_pickle=False)) if path.suffix == ".npy" else None


def told_of(kind: Baseline | Path, shape: tuple[int, ...], known: InputRange) -> tuple[str, ...]:
    """What to say of a baseline that is brought to the size of a sample, one sentence or none.

    Args:
        kind: Which.
        shape: Of one sample.
        known: What is known of the model's inputs.
    """
    if known.whole or not isinstance(kind, Path) or not is_picture(kind):
        return ()
    try:
        array = _array_of(kind)
        read = _as_read(kind if array is None else array, shape, known)[1]
    except (OSError, ValueError, IndexError, BadSampleError, XaiError):
        return ()  # said where it is used
    if "resized" not in read.done:
        return ()
    lost = f": {read.lost} was cut off" if read.lost else ""
    scaled = "scaled and cut to the middle" if lost else "scaled"
    return (f"the baseline {kind.name} was {scaled} for the samples' size{lost}",)


def _from_file(path: Path, x: Tensor, known: InputRange) -> Tensor:
    """A picture or bytes, brought to the model's own units, or another array (.npy, .npz) in these already."""
    try:
        array = _array_of(path)
        if array is None or (array.dtype in _BYTES and not known.whole):
            array, _ = _as_read(path if array is None else array, tuple(x.shape[1:]), known)
        values = torch.from_numpy(np.ascontiguousarray(array)).to(x)
        return values.expand(1, *x.shape[1:]).contiguous() if values.ndim < x.ndim else values.expand_as(x[:1])
    except (OSError, ValueError, RuntimeError, IndexError, EOFError, BadZipFile, BadSampleError) as error:
        raise XaiError(
            f"the baseline {path} does not fit: {str(error).splitlines()[0]}",
            hint=f"an array or picture of one sample's shape {tuple(x.shape[1:])}",
        ) from error


def _as_read(given: Path | Arrays, shape: tuple[int, ...], known: InputRange) -> tuple[Arrays, Preparation]:
    """A picture or bytes at the size of one sample, read and normalised as those of the samples are, and its reader."""
    last = len(shape) == 3 and shape[-1] <= _FEW_CHANNELS < shape[0]
    planes = (shape[-1], *shape[:2]) if last else shape
    read = Preparation(mean=known.mean, std=known.std, shape=planes)
    if isinstance(given, Path):
        if len(shape) not in (2, 3):
            raise ValueError(f"a picture is no baseline for an input of shape {shape}")
        array, _ = read.decoded(given)
    else:
        array, _ = read.from_array(given[0] if given.ndim == len(shape) + 1 and len(given) == 1 else given)
    return array.transpose(1, 2, 0) if last and array.shape == planes else array, read
