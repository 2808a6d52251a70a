"""From pixels to model input: decoding within limits, resizing, scaling, normalising, and the picture to show."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import UsageError, XaiError
from xaicli.sources.inputs import BadSampleError

_MOST_PIXELS = 64_000_000
_LARGEST_IMAGE_FILE = 256 * 2**20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's readers of pixels; not those that start other programs or run a page description."""
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Preparation:
    """How pixels become model input.

    Pixels are image files and uint8 arrays of a picture's shape: they are resized, scaled to [0, 1] and normalised.
    Every other array is what the model sees already; `mean` and `std` then only serve to draw its picture.

    Attributes:
        resize: (height, width); the picture is scaled to cover it and cropped around its centre.
        mean: Per channel, subtracted from a picture in [0, 1].
        std: Per channel, divided by after that.
        shape: The shape of one input as the model wants it (channel, height, width), where that is known.
    """

    resize: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None

    def decoded(self, image: bytes | Path) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Decode an image file.

        Returns:
            The model's input, float32 (channel, height, width), and the picture, uint8 (height, width, channel).

        Raises:
            BadSampleError: It is no image, damaged, or too large.
        """
        pixels = decode(image, grey=self.shape is not None and len(self.shape) > 1 and self.shape[0] == 1)
        return self.from_pixels(pixels)

    def from_pixels(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The model's input, float32 (channel, height, width), and the picture, of uint8 (height, width, channel)."""
        picture = self._sized(pixels)
        scaled = picture.astype(np.float32).transpose(2, 0, 1) / 255
        channels = scaled.shape[0]
        if self.mean is not None:
            scaled = scaled - _by_channel(self.mean, channels, "--mean")
        if self.std is not None:
            scaled = scaled / _by_channel(self.std, channels, "--std")
        if self.shape is not None and len(self.shape) == 2 and channels == 1:
            scaled = scaled[0]
        return np.ascontiguousarray(scaled, dtype=np.float32), picture

    def from_array(self, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """The model's input and the picture, if it is one, of one sample's array."""
        if array.dtype == np.uint8 and (pixels := _as_pixels(array)) is not None:
            return self.from_pixels(pixels)
        if array.dtype in (np.float64, np.uint8):
            array = array.astype(np.float32)
        if self.shape is not None and array.size == int(np.prod(self.shape)) and _grown(array.shape, self.shape):
            array = array.reshape(self.shape)
        return array, self.picture(array)

    def picture(self, array: NDArray[Any]) -> NDArray[np.uint8] | None:
        """How a model input (channel, height, width) looks: uint8 (height, width, channel), or None for no picture."""
        if array.ndim != 3 or array.shape[0] not in _CHANNELS or not np.issubdtype(array.dtype, np.floating):
            return None
        values = array.astype(np.float32)
        if self.std is not None:
            values = values * _by_channel(self.std, len(values), "--std")
        if self.mean is not None:
            values = values + _by_channel(self.mean, len(values), "--mean")
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        if low < -1e-3 or high > 1 + 1e-3:  # neither in [0, 1] nor known how to bring there
            values = (values - low) / (high - low) if high > low else np.zeros_like(values)
        return np.ascontiguousarray((values.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)[..., :3])

    def _sized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        wanted = self.resize or (self.shape[-2:] if self.shape is not None and len(self.shape) in (2, 3) else None)
        if wanted is not None and wanted[0] * wanted[1] > _MOST_PIXELS:
            raise XaiError(f"pictures of {wanted[0]} x {wanted[1]} pixels are too large", hint="say a size: --resize")
        if wanted is None or pixels.shape[:2] == tuple(wanted):
            return pixels
        from PIL import Image, ImageOps

        height, width = wanted
        grey = pixels.shape[2] == 1
        image = Image.fromarray(pixels[..., 0] if grey else pixels)
        fitted = np.asarray(ImageOps.fit(image, (width, height), method=Image.Resampling.BILINEAR))
        return fitted[..., None] if grey else fitted


def decode(image: bytes | Path, *, grey: bool = False) -> NDArray[np.uint8]:
    """The pixels of an image file, uint8 (height, width, 3), or (height, width, 1) when `grey`.

    Raises:
        BadSampleError: It is no image, damaged, or too large.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise XaiError("reading images needs pillow", hint="pip install 'xaicli[saliency]'") from error
    try:
        n_bytes = image.stat().st_size if isinstance(image, Path) else len(image)
        if n_bytes > _LARGEST_IMAGE_FILE:
            raise BadSampleError(f"a file of {n_bytes:,} bytes")
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > _MOST_PIXELS:
                raise BadSampleError(f"{width} x {height} pixels; at most {_MOST_PIXELS:,} are decoded")
            pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise BadSampleError(f"no readable image ({str(error)[:120]})") from error
    return pixels[..., None] if grey else pixels


def size(given: int | Sequence[int] | None) -> tuple[int, int] | None:
    """`--resize` as (height, width): one number is a square."""
    if given is None:
        return None
    sides = [given] if isinstance(given, int) else list(given)
    if len(sides) not in (1, 2):
        raise UsageError(f"--resize takes a height and a width, not {len(sides)} numbers", hint="for example 224x160")
    height, width = sides[0], sides[-1]
    if height < 1 or width < 1 or height * width > _MOST_PIXELS:
        raise UsageError(f"--resize {height}x{width} is no picture size", hint="for example 224, or 224x160")
    return int(height), int(width)


def _grown(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a flat row of values, or a picture without a channel axis, can be nothing but the wanted shape."""
    return len(shape) == 1 or (1, *shape) == wanted


def _by_channel(values: tuple[float, ...], channels: int, option: str) -> NDArray[np.float32]:
    if len(values) not in (1, channels):
        raise XaiError(f"{option} has {len(values)} values for {channels} channels", hint="one, or one a channel")
    array = np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)
    if not np.isfinite(array).all() or (option == "--std" and not array.all()):
        raise XaiError(
            f"{option} {','.join(map(str, values))} cannot be used", hint="finite numbers, no zero for --std"
        )
    return array


def _as_pixels(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """A uint8 array as (height, width, channel); None if it is no picture."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        return None
    if array.shape[-1] in _CHANNELS and array.shape[0] not in _CHANNELS:
        return array[..., :3]
    return array.transpose(1, 2, 0)[..., :3] if array.shape[0] in _CHANNELS else None
