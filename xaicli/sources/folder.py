"""A folder of images: one sub-folder a class, or images only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from xaicli.errors import XaiError
from xaicli.sources.inputs import IndexedSource, Sample
from xaicli.sources.preparation import Preparation

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def open_folder(
    path: Path, preparation: Preparation, *, label_names: Sequence[str] | None, strict: bool
) -> IndexedSource:
    """Open a folder of images; a sample's id is its path below the folder.

    The label of an image is the number of its first folder: among the sorted names as torchvision's ImageFolder has it,
    or in `label_names` when that has all of them.

    Raises:
        XaiError: There is no image in it.
    """
    files = sorted(_images(path))
    if not files:
        kinds = ", ".join(sorted(_SUFFIXES))
        raise XaiError(f"{path} holds no images", hint=f"images end in {kinds}, in one sub-folder a class")
    classes = sorted({file.parts[0] for file in files if len(file.parts) > 1})
    names = tuple(label_names) if label_names and set(classes) <= set(label_names) else tuple(classes)
    numbers = {name: number for number, name in enumerate(names)}

    def read(position: int) -> Sample:
        file = files[position]
        array, picture = preparation.decoded(path / file)
        return Sample({"": array}, numbers[file.parts[0]] if len(file.parts) > 1 else None, picture)

    return IndexedSource([file.as_posix() for file in files], read, str(path), strict, names or None)


def _images(folder: Path) -> list[Path]:
    """Paths below the folder; a hidden or temporary file is no image."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name).relative_to(folder)
            for name in names
            if Path(name).suffix.lower() in _SUFFIXES and not name.startswith(".")
        ]
    return found
