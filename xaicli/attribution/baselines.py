"""Where integrated paths start: one point per sample and input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xaicli.attribution.inputs import Layout
from xaicli.attribution.settings import Baseline
from xaicli.errors import XaiError

_BLUR_PART = 0.1


@dataclass(frozen=True)
class InputRange:
    """The range of a model's input as its checkpoint gives it.

    Attributes:
        lowest: The least value an input can have.
        mean, std: Per channel, what normalised a picture in [0, 1].
    """

    lowest: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


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
        known: What the checkpoint says of its inputs.
        seed: Of the uniform baseline: the same point of the range for every sample.
        position: Which input of the model this is.
        layout: Which of its axes are channels.

    Returns:
        Of a shape that broadcasts to `x`.
    """
    if isinstance(kind, Path):
        return _from_file(kind, x)
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
    if known.mean is not None and known.std is not None and axis is not None and x.shape[axis] == len(known.mean):
        black = -torch.tensor(known.mean, dtype=x.dtype) / torch.tensor(known.std, dtype=x.dtype)
        return black.to(x.device).view([-1 if a == axis else 1 for a in range(x.ndim)])
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


def _from_file(path: Path, x: Tensor) -> Tensor:
    """An array (.npy, .npz) or a picture of one sample's shape, in the model's own units."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                array = held[held.files[0]]
        else:
            array = _picture(path, tuple(x.shape[1:]))
        values = torch.from_numpy(np.ascontiguousarray(array)).to(x)
        return values.expand(1, *x.shape[1:]).contiguous() if values.ndim < x.ndim else values.expand_as(x[:1])
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise XaiError(
            f"the baseline {path} does not fit: {str(error).splitlines()[0]}",
            hint=f"an array or picture of one sample's shape {tuple(x.shape[1:])}",
        ) from error


def _picture(path: Path, shape: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    from PIL import Image

    if len(shape) != 3:
        raise ValueError(f"a picture is no baseline for an input of shape {tuple(shape)}")
    with Image.open(path) as image:
        sized = image.convert("L" if shape[0] == 1 else "RGB").resize((shape[2], shape[1]))
        pixels = np.asarray(sized, dtype=np.float32) / 255.0
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
