"""What people see: the picture of a signed attribution, how alike two are, and the input beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xaicli.attribution.explanation import Bytes, Floats, InputKind, InputView
from xaicli.attribution.inputs import InputRange, Layout
from xaicli.sources.pictures import is_picture

if TYPE_CHECKING:
    from xaicli.sources.inputs import Inputs

_UPPER = 0.99


def strengths(attributions: Tensor, layout: Layout) -> Tensor:
    """The sums of |attribution| over channels as planes, non-finite values as 0, where the attributions are.

    Args:
        attributions: (unit, *input).

    Returns:
        (unit, H, W); (unit, 1, length) where one axis is left; further axes before the last two are summed over too.
    """
    m = attributions.detach().double().nan_to_num(0.0, 0.0, 0.0).abs()
    match layout:
        case Layout.CHANNELS_FIRST:
            m = m.sum(1)
        case Layout.CHANNELS_LAST:
            m = m.sum(-1)
        case Layout.NO_CHANNELS:
            pass
    m = m.flatten(1, -3).sum(1) if m.ndim > 3 else m
    return (m if m.ndim == 3 else m.reshape(len(m), 1, -1)).float()


def scaled(plane: Floats, counted: npt.NDArray[np.bool_] | None = None) -> tuple[Floats, bool]:
    """The saliency map of a plane of strengths, and whether it is flat.

    Args:
        plane: (H, W).
        counted: Which places count, as many; the others, which only fill a text up, are 0 and bound nothing.

    lo = min, hi = the value at sorted position floor(0.99 (HW - 1)); clip((m - lo) / (hi - lo), 0, 1); a flat map is
    all zero. Where so few places stand out that the 99th percentile is the minimum, hi is the maximum.
    """
    if counted is not None:
        whole = np.zeros_like(plane)
        whole[counted.reshape(plane.shape)], flat = scaled(plane[counted.reshape(plane.shape)])
        return whole, flat
    at = int(_UPPER * (plane.size - 1))
    lo, hi = float(plane.min()), float(np.partition(plane, at, axis=None)[at])
    hi = hi if hi > lo else float(plane.max())
    if not hi > lo:
        return np.zeros_like(plane), True
    return np.clip((plane - lo) / (hi - lo), 0.0, 1.0).astype(np.float32), False


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Spearman's rank correlation with mid-ranks for ties; NaN where either has no contrast."""
    x, y = _mid_ranks(a), _mid_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def _mid_ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse.ravel()]
    return ranks


def rank_correlations(one: Tensor, other: Tensor) -> npt.NDArray[np.float64]:
    """`rank_correlation` of each row of (row, place): of all together where they are, on a device."""
    if one.device.type == "cpu":
        return np.array([rank_correlation(a, b) for a, b in zip(one.numpy(), other.numpy(), strict=True)])
    found: npt.NDArray[np.float64] = correlations_there(one, other).cpu().numpy()
    return found


def correlations_there(one: Tensor, other: Tensor) -> Tensor:
    """`rank_correlation` of each row by few kernels, which a CPU takes longer for than for one row at a time."""
    x, y = _ranks_there(one), _ranks_there(other)
    norm = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(norm > 0, (x * y).sum(1) / norm, torch.nan)


def _ranks_there(values: Tensor) -> Tensor:
    """Twice the mid-ranks of each row, less their mean."""
    ordered = values.sort(1).values
    ranks = (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).double()
    return ranks - ranks.mean(1, keepdim=True)


_BARS = 64


def views_of(
    inputs: Inputs, row: int, *, embedded: Mapping[str, int | None], known: InputRange
) -> tuple[InputView, ...]:
    """The views of one sample.

    Args:
        inputs: The model's inputs; their pictures are of the first input that is one.
        row: Which sample.
        embedded: The inputs that are token ids, each with the place of the input that is its attention mask.
        known: How pictures were normalised.
    """
    views = []
    pictures = inputs.pictures
    for name, values in inputs.arrays.items():
        sample = np.asarray(values[row])
        if name in embedded:
            ids = tuple(str(t) for t in sample.ravel().tolist())
            words = inputs.words[name][row] if name in inputs.words else None
            texts, special = (words.texts, words.special) if words is not None else (ids, None)
            padding = _padding(inputs, row, embedded[name])
            views.append(InputView(name, InputKind.TOKENS, tokens=texts, special=special, padding=padding))
        elif pictures is not None and pictures.shape[1:3] in (sample.shape[-2:], sample.shape[:2]):
            views.append(InputView(name, InputKind.IMAGE, picture=pictures[row]))
            pictures = None
        else:
            views.append(_without_picture(name, sample, known, inputs.features))
    return tuple(views)


def _padding(inputs: Inputs, row: int, mask: int | None) -> frozenset[int]:
    """The places that fill a text up; none where that would be all of it."""
    if mask is None:
        return frozenset()
    counts = np.asarray(list(inputs.arrays.values())[mask][row]).ravel() != 0
    return frozenset(np.flatnonzero(~counts).tolist()) if counts.any() else frozenset()


def _without_picture(name: str, sample: npt.NDArray[Any], known: InputRange, features: tuple[str, ...]) -> InputView:
    values = sample.astype(np.float32)
    if is_picture(sample.shape):
        return InputView(name, InputKind.IMAGE, picture=picture_of(values, known), values=values)
    if sample.ndim == 2 or sample.size > _BARS:
        return InputView(name, InputKind.SIGNAL, values=values)
    named = features if len(features) == sample.size else ()
    return InputView(name, InputKind.TABULAR, values=np.atleast_1d(values), features=named)


def picture_of(sample: npt.NDArray[np.float32], known: InputRange) -> Bytes:
    """A picture of (C, H, W) or (H, W, C) values: de-normalised where mean and std are known, else stretched.

    Returns:
        uint8 (H, W, C), C 1 or 3; of other channel counts and of volumes the mean over all but height and width.
    """
    if sample.ndim == 3 and sample.shape[-1] <= 4 < sample.shape[0]:
        sample = sample.transpose(2, 0, 1)
    mean, std = known.mean or (0.0,), known.std or (1.0,)
    if (known.mean or known.std) and {len(mean), len(std)} <= {1, sample.shape[0]}:
        shape = (-1, *[1] * (sample.ndim - 1))
        sample = (sample * np.reshape(std, shape) + np.reshape(mean, shape)).astype(np.float32)
        low, high = 0.0, 1.0
    else:
        finite = sample[np.isfinite(sample)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        # Values that already look like a picture keep their brightness.
        low, high = (0.0, 1.0) if low >= 0.0 and 0.0 < high <= 1.0 else (low, high)
    if sample.ndim != 3 or sample.shape[0] not in (1, 3):
        sample = sample.reshape(-1, *sample.shape[-2:]).mean(axis=0, keepdims=True)
    unit = np.nan_to_num((sample - low) / (high - low) if high > low else sample * 0)
    picture: Bytes = (np.clip(unit, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return picture
