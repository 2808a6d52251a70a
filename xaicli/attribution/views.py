"""How each input of a sample is shown to people: as a picture, a curve, bars or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xaicli.attribution.baselines import InputRange
from xaicli.attribution.explanation import Bytes, InputKind, InputView

_BARS = 64


def views_of(
    arrays: Mapping[str, npt.NDArray[Any]],
    pictures: Bytes | None,
    row: int,
    *,
    embedded: Sequence[str],
    known: InputRange,
) -> tuple[InputView, ...]:
    """The views of one sample.

    Args:
        arrays: The model's inputs by name, (sample, ...).
        pictures: uint8 (sample, H, W, C), of the first input that is a picture.
        row: Which sample.
        embedded: Names of the inputs that are token ids.
        known: How pictures were normalised.
    """
    views = []
    for name, values in arrays.items():
        sample = np.asarray(values[row])
        if name in embedded:
            views.append(InputView(name, InputKind.TOKENS, tokens=tuple(str(t) for t in sample.ravel().tolist())))
        elif pictures is not None and pictures.shape[1:3] in (sample.shape[-2:], sample.shape[:2]):
            views.append(InputView(name, InputKind.IMAGE, picture=pictures[row]))
            pictures = None
        else:
            views.append(_without_picture(name, sample, known))
    return tuple(views)


def _without_picture(name: str, sample: npt.NDArray[Any], known: InputRange) -> InputView:
    values = sample.astype(np.float32)
    if sample.ndim >= 3:
        return InputView(name, InputKind.IMAGE, picture=picture_of(values, known), values=values)
    if sample.ndim == 2 or sample.size > _BARS:
        return InputView(name, InputKind.SIGNAL, values=values)
    return InputView(name, InputKind.TABULAR, values=np.atleast_1d(values))


def picture_of(sample: npt.NDArray[np.float32], known: InputRange) -> Bytes:
    """A picture of (C, H, W) or (H, W, C) values: de-normalised where mean and std are known, else stretched.

    Returns:
        uint8 (H, W, C), C 1 or 3; of other channel counts and of volumes the mean over all but height and width.
    """
    if sample.ndim == 3 and sample.shape[-1] <= 4 < sample.shape[0]:
        sample = sample.transpose(2, 0, 1)
    if known.mean is not None and known.std is not None and len(known.mean) == sample.shape[0]:
        shape = (-1, *[1] * (sample.ndim - 1))
        sample = (sample * np.reshape(known.std, shape) + np.reshape(known.mean, shape)).astype(np.float32)
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
