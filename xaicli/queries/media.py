"""Small pictures of the samples asked for: thumbnails kept in a run, else its kept inputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError
from xaicli.parquet import FileRecord
from xaicli.reader import Reader
from xaicli.reader.pieces import foreign
from xaicli.sources.inputs import BadSampleError
from xaicli.sources.pictures import Preparation
from xaicli.sources.table import open_kept
from xaicli.vocabulary import DS_ID, MODE, SAMPLE_ID

_KEYS = [SAMPLE_ID, MODE, DS_ID]
_PIXELS = ["height", "width", "channels", "pixels"]
_LONGEST_SIDE = 512
"""Pixels; the recorder keeps far smaller ones, a run from elsewhere may hold anything."""
_SHOWN_SIDE = 96
"""Pixels of an input shown as a thumbnail."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: uint8 bytes of (height, width, channels), channels 1, 3 or 4."""

    height: int
    width: int
    channels: int
    pixels: bytes


def thumbnails(reader: Reader, wanted: Collection[Any]) -> tuple[dict[tuple[str, str, Any], Thumbnail], list[str]]:
    """The pictures of some samples; of several pictures of one sample in one mode and data set the latest.

    Args:
        reader: The run.
        wanted: Sample ids.

    Returns:
        {(mode, ds_id, sample_id): picture}, and a warning for each file that had to be left out. A sample without a
        picture of its own has that of its kept input, where this is one, under ("", "", sample_id).
    """
    found, warnings = _logged(reader, wanted)
    pictured = {sample_id for _, _, sample_id in found}
    return found | _of_inputs(reader, [sample_id for sample_id in wanted if sample_id not in pictured]), warnings


def _logged(reader: Reader, wanted: Collection[Any]) -> tuple[dict[tuple[str, str, Any], Thumbnail], list[str]]:
    """The pictures of `run.log_images`."""
    folder = reader.layout.media
    found: dict[tuple[str, str, Any], Thumbnail] = {}
    warnings: list[str] = []
    if not wanted or not folder.is_dir():
        return found, warnings
    records = parquet.read_records(reader.layout)
    # Part names sort by attempt, rank and sequence: what was logged later comes later.
    for path in sorted(folder.glob("*.parquet")):
        name = f"{folder.name}/{path.name}"
        try:
            rows = _rows(path, wanted, records.get(name))
        except DamagedFileError as error:
            warnings.append(f"pictures left out: {error.message}")
            continue
        except FileNotFoundError:
            continue
        for row in rows:
            if _sound(row):
                found[row[MODE], row[DS_ID], row[SAMPLE_ID]] = Thumbnail(*(row[name] for name in _PIXELS))
    return found, warnings


def _of_inputs(reader: Reader, wanted: Collection[Any]) -> dict[tuple[str, str, Any], Thumbnail]:
    """The inputs of `run.log_inputs` that look like pictures; of damaged ones saliency tells."""
    if not wanted or not reader.layout.inputs.is_dir():
        return {}
    preparation = Preparation()
    try:
        kept = open_kept(reader.layout, None, preparation, strict=False)
    except XaiError:
        return {}
    places = {sample_id: place for place, sample_id in enumerate(kept.sample_ids)}
    found = {}
    for sample_id in wanted:
        if sample_id not in places:
            continue
        try:
            _, picture = preparation.from_array(next(iter(kept.read(places[sample_id]).arrays.values())))
        except (BadSampleError, XaiError, ValueError):
            continue
        if picture is not None:
            small = _shrunk(picture)
            height, width, channels = small.shape
            found["", "", sample_id] = Thumbnail(height, width, channels, small.tobytes())
    return found


def picture_file(path: Path) -> Thumbnail | None:
    """The picture in a file, small; None where there is none that can be read."""
    try:
        if not path.is_file():  # a pipe would never end
            return None
        _, picture = Preparation().decoded(path)
    except (BadSampleError, XaiError, OSError, ValueError):
        return None
    small = _shrunk(picture)
    height, width, channels = small.shape
    return Thumbnail(height, width, channels, small.tobytes())


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most `_SHOWN_SIDE` pixels a side, each the mean of a square of `k` x `k`."""
    height, width, channels = picture.shape
    k = -(-max(height, width) // _SHOWN_SIDE)
    if k == 1:
        return picture
    rows, columns = max(1, height // k), max(1, width // k)
    whole = picture[: rows * k, : columns * k].reshape(rows, -1, columns, min(k, width), channels)
    means: NDArray[np.float64] = whole.mean(axis=(1, 3))
    return (means + 0.5).astype(np.uint8)


def _rows(path: Path, wanted: Collection[Any], record: FileRecord | None) -> list[dict[str, Any]]:
    """The rows of the samples wanted; pixels are read only of row groups that hold one."""
    with parquet.opened(path, record) as file:
        if missing := {*_KEYS, *_PIXELS} - set(file.schema_arrow.names):
            raise foreign(path.name, missing)
        groups = []
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=[SAMPLE_ID])[SAMPLE_ID].to_pylist()
            if not set(ids).isdisjoint(wanted):
                groups.append(group)
        if not groups:
            return []
        frame = pl.DataFrame(pl.from_arrow(file.read_row_groups(groups, columns=[*_KEYS, *_PIXELS])))
    return frame.filter(pl.col(SAMPLE_ID).is_in(list(wanted))).to_dicts()


def _sound(row: dict[str, Any]) -> bool:
    """Whether the pixels are as many as the shape says: a file from elsewhere may say anything."""
    height, width, channels, pixels = (row[name] for name in _PIXELS)
    if None in (height, width, channels, pixels) or channels not in (1, 3, 4):
        return False
    sides_fit = 0 < height <= _LONGEST_SIDE and 0 < width <= _LONGEST_SIDE
    return bool(sides_fit and len(pixels) == height * width * channels)
