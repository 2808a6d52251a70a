"""Pictures: folders of them, decoding within limits, resizing, scaling, normalising, and the picture to show."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import UsageError, XaiError
from xaicli.sources.inputs import BadSampleError, IndexedSource, Sample
from xaicli.tables.containers import native

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_PIXELS = 64_000_000
_LEAST_SHOWN = 0.01
_LARGEST_IMAGE_FILE = 256 * 2**20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's readers of pixels; not those that start other programs or run a page description."""
_CHANNELS = (1, 3, 4)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's name for pixels of so many channels."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_NO_CLASSES = frozenset({"__MACOSX", "__pycache__", "lost+found"})
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"})

Pixels = NDArray[Any]
"""uint8 or uint16 (height, width, channel)."""


@dataclass(frozen=True)
class Preparation:
    """How samples become model input.

    Pixels are image files and arrays of uint8 or uint16 of a picture's shape: they are resized, scaled to [0, 1] by
    what their type can hold, and normalised. Every other array is what the model sees already; `mean` and `std` then
    only serve to draw its picture.

    Attributes:
        resize: (height, width); the picture is scaled to cover it and cut to its middle.
        mean: Per channel, subtracted from a picture in [0, 1].
        std: Per channel, divided by after that.
        shape: The shape of one input as the model wants it (channel, height, width), where that is known.
        names: The model's inputs in call order, where they are known.
        dtypes: NumPy's names of their dtypes, where they are known.
        depth: How many channels the model's first convolution reads, where no shape is known.
        done: Gets "pixels" once a picture was prepared, "resized" once one was brought to a size that nobody asked for.
        cut: The largest part, of 1, that was cut off of a picture's "height" or "width".
    """

    resize: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    depth: int | None = None
    done: set[str] = field(default_factory=set, compare=False)
    cut: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def channels(self) -> int | None:
        """How many channels the model takes, where that is known."""
        if self.shape is None or len(self.shape) not in (2, 3):
            return self.depth if self.shape is None else None
        return self.shape[0] if len(self.shape) == 3 else 1

    def decoded(self, image: bytes | Path) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Decode an image file.

        Returns:
            The model's input, float32 (channel, height, width), and the picture, uint8 (height, width, channel).

        Raises:
            BadSampleError: It is no image, damaged, too large, or of values whose range is not known.
        """
        return self.from_pixels(decode(image, channels=self.channels or 3))

    def from_pixels(self, pixels: Pixels) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The model's input, float32 (channel, height, width), and the picture, of uint8 (height, width, channel)."""
        self.done.add("pixels")
        sized = self._sized(pixels)
        scaled = sized.transpose(2, 0, 1).astype(np.float32) / np.iinfo(pixels.dtype).max
        channels = scaled.shape[0]
        if self.mean is not None:
            scaled = scaled - _by_channel(self.mean, channels, "--mean")
        if self.std is not None:
            scaled = scaled / _by_channel(self.std, channels, "--std")
        if self.shape is not None and len(self.shape) == 2 and channels == 1:
            scaled = scaled[0]
        return np.ascontiguousarray(scaled, dtype=np.float32), _shown(sized)

    def from_array(self, array: NDArray[Any], name: str = "") -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """The model's input and the picture, if it is one, of one sample's array.

        Args:
            array: The array.
            name: The input it is for, "" for the only one.
        """
        array = native(array)
        if self._is_of_integers(name):
            return (array.astype(np.int64) if array.dtype.kind in "biuf" else array), None
        if array.dtype in (np.uint8, np.uint16) and (pixels := self._as_pixels(array)) is not None:
            return self.from_pixels(pixels)
        if array.dtype in (np.float64, np.longdouble, np.uint8):
            array = array.astype(np.float32)
        elif array.dtype.kind == "u":
            array = array.astype(np.int64)
        if self.shape is not None and array.size == int(np.prod(self.shape)) and _grown(array.shape, self.shape):
            array = array.reshape(self.shape)
        return array, self.picture(array)

    def _is_of_integers(self, name: str) -> bool:
        dtypes = dict(zip(self.names, self.dtypes, strict=False))
        dtype = dtypes.get(name) or (self.dtypes[0] if len(self.dtypes) == 1 else "")
        return dtype.startswith(("int", "uint"))

    def _as_pixels(self, array: NDArray[Any]) -> Pixels | None:
        """An array as (height, width, channel), told by the model's channels, else by its shape; None if no picture."""
        if array.ndim == 2:
            return array[..., None] if array.dtype == np.uint8 else None
        if array.ndim != 3:
            return None
        first, last = array.shape[0], array.shape[-1]
        wanted = self.channels
        if wanted is not None and wanted in (first, last) and not (first == last == wanted and self.shape is None):
            return array.transpose(1, 2, 0) if first == wanted else array
        if last in _CHANNELS and first not in _CHANNELS:
            pixels = array
        elif first in _CHANNELS:
            pixels = array.transpose(1, 2, 0)
        else:
            return None
        return pixels[..., :3] if wanted == 3 else pixels

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

    def _sized(self, pixels: Pixels) -> Pixels:
        wanted = self.resize or (self.shape[-2:] if self.shape is not None and len(self.shape) in (2, 3) else None)
        if wanted is not None and wanted[0] * wanted[1] > _MOST_PIXELS:
            raise XaiError(f"pictures of {wanted[0]} x {wanted[1]} pixels are too large", hint="say a size: --resize")
        if wanted is None or pixels.shape[:2] == tuple(wanted):
            return pixels
        if self.resize is None:
            self.done.add("resized")
        from PIL import Image, ImageOps

        height, width = wanted
        self._note_cut(pixels.shape[0] / height, pixels.shape[1] / width)
        if pixels.dtype == np.uint8 and pixels.shape[2] in _MODES:
            whole = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
            fitted = np.asarray(ImageOps.fit(whole, (width, height), method=Image.Resampling.BILINEAR))
            return fitted[..., None] if fitted.ndim == 2 else fitted
        # Pillow resizes 16 bits in floats only, a channel at a time.
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in pixels.transpose(2, 0, 1)]
        sized = [np.asarray(ImageOps.fit(p, (width, height), method=Image.Resampling.BILINEAR)) for p in planes]
        limit = np.iinfo(pixels.dtype).max
        return np.stack(sized, axis=-1).round().clip(0, limit).astype(pixels.dtype)

    def _note_cut(self, tall: float, wide: float) -> None:
        """Keep how much of a picture is lost that is so many times as tall and as wide as what it becomes."""
        side, lost = ("height", 1 - wide / tall) if tall > wide else ("width", 1 - tall / wide)
        if lost > 0:
            self.cut[side] = max(lost, self.cut.get(side, 0.0))

    @property
    def lost(self) -> str:
        """The most that was cut off, as "67% of the width"; "" where nothing was."""
        return " and ".join(f"{_percent(part)} of the {side}" for side, part in sorted(self.cut.items()))


def is_picture(shape: Sequence[int]) -> bool:
    """Whether an input of this shape, without the batch axis, is one with a height and a width beside its channels.

    (C, H, W) or (H, W, C) of any number of channels, and volumes and films.
    """
    return len(shape) > 2


def is_plane(shape: Sequence[int]) -> bool:
    """Whether an input of this shape is a picture without channels, (H, W): few rows or columns are a signal's."""
    return len(shape) == 2 and min(shape) > max(_CHANNELS)


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= _LEAST_SHOWN else "less than 1%"


def open_folder(
    path: Path, preparation: Preparation, *, label_names: Sequence[str] | None, strict: bool
) -> IndexedSource:
    """Open a folder of images; a sample's id is its path below the folder.

    The label of an image is the number of its first folder: in `label_names` when that has all of them, else among the
    sorted names, empty folders included, as torchvision's ImageFolder has it.

    Raises:
        XaiError: There is no image in it, or its folders are not classes.
    """
    files, unreadable = _images(path)
    if not files:
        raise _no_images(path)
    folders = _class_folders(path)
    source = open_pictures(
        path, files, preparation, str(path), label_names=label_names, strict=strict, class_folders=folders
    )
    return replace(source, notes=(*(f"folder {name} cannot be read" for name in unreadable), *source.notes))


def open_pictures(
    folder: Path,
    files: Sequence[Path],
    preparation: Preparation,
    name: str,
    *,
    label_names: Sequence[str] | None,
    strict: bool,
    class_folders: Collection[str] = (),
) -> IndexedSource:
    """Image files below a folder; a sample's id is its path from there, its label the number of its first folder.

    Args:
        folder: Where the files are.
        files: Their paths from there.
        preparation: How pixels become input.
        name: What to call the source in errors.
        label_names: The classes of the model in order.
        strict: Whether a picture that cannot be read is an error.
        class_folders: Folders that are classes although none of the files lies in them.

    Raises:
        XaiError: The folders are splits, not classes.
    """
    with_files = {file.parts[0] for file in files if len(file.parts) > 1}
    classes = sorted(with_files | set(class_folders))
    if classes and {part.lower() for part in classes} <= _SPLITS and not set(classes) <= set(label_names or ()):
        raise XaiError(f"the folders of {name} are splits, not classes", hint=f"name one: --data {folder / classes[0]}")
    notes: tuple[str, ...] = ()
    names = tuple(classes)
    if label_names and with_files <= set(label_names):
        names = tuple(label_names)
    elif label_names and classes:
        unknown = sorted(with_files - set(label_names))
        notes = (
            f"folders that are no label of the model ({', '.join(unknown[:5])}): "
            "labels are the folders' places in the order of their names",
        )
    numbers = {part: number for number, part in enumerate(names)}

    def read(position: int) -> Sample:
        file = files[position]
        array, picture = preparation.decoded(folder / file)
        return Sample({"": array}, numbers[file.parts[0]] if len(file.parts) > 1 else None, picture)

    return IndexedSource([file.as_posix() for file in files], read, name, strict, names or None, notes=notes)


def _images(folder: Path) -> tuple[list[Path], list[str]]:
    """Sorted paths of images below the folder, and folders that cannot be read; a hidden file is no image."""
    found: list[Path] = []
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        unreadable.append(str(Path(str(error.filename)).relative_to(folder)))

    # Class folders are often links; one to a folder around it would never end.
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=note):
        here = Path(parent).resolve()
        folders[:] = [
            name for name in folders if _counts(name) and not here.is_relative_to(Path(parent, name).resolve())
        ]
        found += [
            Path(parent, name).relative_to(folder)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    return sorted(found), unreadable


def _class_folders(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.is_dir() and _counts(entry.name)}


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in _NO_CLASSES


def _no_images(path: Path) -> XaiError:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        hint = f"write it once more: datasets.load_from_disk({str(path)!r}).to_parquet('data.parquet')"
        return XaiError(f"{path} is a data set that save_to_disk of Hugging Face wrote", hint=hint)
    if tables := sorted({file.parent for file in path.rglob("*.parquet")}):
        return XaiError(f"{path} holds no images", hint=f"it holds tables: --data {tables[0]}")
    others = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".csv", ".tsv", ".npz", ".npy"))
    if others:
        return XaiError(f"{path} holds no images", hint=f"it holds {others[0].name}: --data {others[0]}")
    return XaiError(
        f"{path} holds no images", hint=f"images end in {', '.join(sorted(SUFFIXES))}, in one sub-folder a class"
    )


def decode(image: bytes | Path, *, channels: int = 3) -> Pixels:
    """The pixels of an image file, upright, uint8 or (where the file has 16 bits) uint16 (height, width, channel).

    Of an animation the first picture is taken.

    Args:
        image: The file, or its bytes.
        channels: How many are wanted: 1 grey, 2 grey and opacity, 3 RGB, 4 RGB and opacity; other numbers mean 3.

    Raises:
        BadSampleError: It is no image, damaged, too large, or of values whose range is not known.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise XaiError("reading images needs pillow", hint="pip install 'xaicli[saliency]'") from error
    mode = _MODES.get(channels, "RGB")
    try:
        n_bytes = image.stat().st_size if isinstance(image, Path) else len(image)
        if n_bytes > _LARGEST_IMAGE_FILE:
            raise BadSampleError(f"a file of {n_bytes:,} bytes")
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > _MOST_PIXELS:
                raise BadSampleError(f"{width} x {height} pixels; at most {_MOST_PIXELS:,} are decoded")
            upright = ImageOps.exif_transpose(opened) or opened
            if opened.mode[0] in "IF":
                return _deep(upright, opened, len(mode))
            if upright.mode == "P" and "transparency" in upright.info:
                upright = upright.convert("RGBA")
            pixels = np.asarray(upright.convert(mode))
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        # Of bytes in a table, PIL names where in memory they lie.
        why = re.sub(r" ?<_io\.BytesIO object at 0x\w+>", "", str(error))
        raise BadSampleError(f"no readable image ({why[:120]})") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _deep(upright: Image, opened: Image, channels: int) -> Pixels:
    """Grey pixels of 16 bits, in as many channels as are wanted."""
    tags: Any = getattr(opened, "tag_v2", {})
    bits = tags.get(258, (16,))[0] if opened.format == "TIFF" else 16
    if opened.mode == "F" or bits > 16:
        what = "floats" if opened.mode == "F" else f"{bits} bits"
        raise BadSampleError(f"a picture of {what}, whose range is not known: give it as an array, or in 16 bits")
    values = np.asarray(upright)
    grey = values.astype(np.uint16)[..., None]
    opacity = np.full_like(grey, np.iinfo(np.uint16).max)
    colours = [grey] * (3 if channels > 2 else 1)
    return np.concatenate([*colours, opacity] if channels in (2, 4) else colours, axis=-1)


def _shown(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels as a picture of 8 bits in one channel or three."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.ascontiguousarray(pixels[..., :1] if pixels.shape[-1] == 2 else pixels[..., :3])


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
