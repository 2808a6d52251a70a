"""Small pictures of the samples asked for: thumbnails kept in a run, else its kept inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
from xaicli.sources.inputs import NOWHERE, BadSampleError
from xaicli.sources.pictures import Preparation
from xaicli.sources.table import open_kept
from xaicli.vocabulary import DS_ID, MODE, SAMPLE_ID

_KEYS = [SAMPLE_ID, MODE, DS_ID]
_PIXELS = ["height", "width", "channels", "pixels"]
_LONGEST_SIDE = 512
"""Pixels; the recorder keeps far smaller ones, a run from elsewhere may hold anything."""
DRAWN_SIDE = 192
"""Pixels of a picture with boxes."""
_BOX_COLOURS = {"tp": (0, 140, 90), "fp": (213, 60, 20), "fn": (20, 100, 220)}
SHOWN_SIDE = 96
"""Pixels of an input shown as a thumbnail."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: uint8 bytes of (height, width, channels), channels 1, 3 or 4."""

    height: int
    width: int
    channels: int
    pixels: bytes
    shrunk: int = 1
    """How many pixels of the picture it is made from lie along a side of each."""


def thumbnails(reader: Reader, wanted: Collection[Any]) -> tuple[dict[tuple[str, str, Any], Thumbnail], list[str]]:
    """The pictures of some samples: the latest of each sample in one mode and data set.

    Args:
        reader: The run.
        wanted: Sample ids.

    Returns:
        {(mode, ds_id, sample_id): picture}, and a warning for each file that had to be left out. A sample without a
        picture of its own has that of its kept input, where this is one.
    """
    found, warnings = _logged(reader, wanted)
    return _of_inputs(reader, wanted, found) | found, warnings


def pictures_of(
    pictures: Mapping[tuple[str, str, Any], Thumbnail], wanted: Iterable[tuple[str, str, Any]], *, of_none: bool
) -> dict[tuple[str, str, Any], Thumbnail]:
    """The pictures of samples that have one: of their own mode, else of another of the same data set, else of no mode.

    An id of one data set is another sample in the next. What was logged outside of any mode is of every sample with
    its id.

    Args:
        pictures: As `thumbnails` gives them.
        wanted: (mode, ds_id, sample_id) each.
        of_none: Whether one that was logged in a mode for no data set counts, too.
    """
    latest = {(ds_id, sample_id): picture for (_, ds_id, sample_id), picture in pictures.items()}
    found = {}
    for mode, ds_id, sample_id in wanted:
        others = [latest.get((ds_id, sample_id)), pictures.get((*NOWHERE, sample_id))]
        others += [latest.get(("", sample_id))] if of_none else []
        for picture in (pictures.get((mode, ds_id, sample_id)), *others):
            if picture is not None:
                found[mode, ds_id, sample_id] = picture
                break
    return found


def pictures_by_id(pictures: Mapping[tuple[str, str, Any], Thumbnail]) -> dict[Any, Thumbnail]:
    """{sample_id: picture} for rows that say no data set of the run: of ids that have pictures in one data set alone.

    Args:
        pictures: As `thumbnails` gives them.
    """
    ds_ids: dict[Any, set[str]] = {}
    for _, ds_id, sample_id in pictures:
        ds_ids.setdefault(sample_id, set()).add(ds_id)
    return {sample_id: picture for (_, _, sample_id), picture in pictures.items() if len(ds_ids[sample_id]) == 1}


def _logged(reader: Reader, wanted: Collection[Any]) -> tuple[dict[tuple[str, str, Any], Thumbnail], list[str]]:
    """The pictures of `run.log_images`."""
    folder = reader.layout.media
    found: dict[tuple[str, str, Any], Thumbnail] = {}
    warnings: list[str] = []
    if not wanted or not folder.is_dir():
        return found, warnings
    # Part names sort by attempt, rank and sequence: what was logged later comes later.
    for file in reader.record_files(folder):
        path, name = file.path, f"{folder.name}/{file.path.name}"
        try:
            rows = _rows(reader, path, wanted, reader.records.get(name))
        except DamagedFileError as error:
            reader.note(error, name)
            warnings.append(f"pictures left out: {error.message}")
            continue
        except FileNotFoundError:
            continue
        for row in rows:
            if _sound(row):
                found[row[MODE], row[DS_ID], row[SAMPLE_ID]] = Thumbnail(*(row[name] for name in _PIXELS))
    return found, warnings


def _of_inputs(
    reader: Reader, wanted: Collection[Any], pictured: Collection[tuple[str, str, Any]]
) -> dict[tuple[str, str, Any], Thumbnail]:
    """The inputs of `run.log_inputs` that look like pictures, of samples without; of damaged ones saliency tells."""
    if not wanted or not reader.layout.inputs.is_dir():
        return {}
    preparation = Preparation()
    try:
        kept = open_kept(reader.layout, None, preparation, strict=False, contents=reader.contents)
    except XaiError:
        return {}
    # A picture of the data set is the sample's, in whichever mode it was logged, and one of no mode everybody's.
    has = {(ds_id, sample_id) for _, ds_id, sample_id in pictured}
    everywhere = {sample_id for *place, sample_id in pictured if tuple(place) == NOWHERE}
    ids, found = set(wanted), {}
    for place, ((mode, ds_id), sample_id) in enumerate(zip(kept.pairs, kept.sample_ids, strict=True)):
        if sample_id not in ids or sample_id in everywhere or (ds_id, sample_id) in has:
            continue
        try:
            _, picture = preparation.from_array(next(iter(kept.read(place).arrays.values())))
        except (BadSampleError, XaiError, ValueError):
            continue
        if picture is not None:
            small = _shrunk(picture)
            height, width, channels = small.shape
            found[mode, ds_id, sample_id] = Thumbnail(height, width, channels, small.tobytes())
    return found


def with_boxes(picture: Thumbnail, boxes: Sequence[tuple[str, Sequence[float]]]) -> Thumbnail | None:
    """The picture, enlarged, with boxes drawn on it; None where one reaches beyond it: it was kept smaller.

    Args:
        picture: The picture as it was seen.
        boxes: What each is - `tp` green, `fp` red, `fn` blue - and (x0, y0, x1, y1) in pixels, before it was shrunk.
    """
    corners = np.array([box for _, box in boxes], np.float64).reshape(-1, 4) / picture.shrunk
    if not np.isfinite(corners).all() or (len(corners) and bool((corners[:, 2:].max(axis=0) > _sides(picture)).any())):
        return None
    pixels = np.frombuffer(picture.pixels, np.uint8).reshape(picture.height, picture.width, picture.channels)
    colours = np.repeat(pixels, 3, axis=2) if picture.channels == 1 else pixels[..., :3]
    k = max(1, DRAWN_SIDE // max(picture.height, picture.width))
    canvas = np.repeat(np.repeat(colours, k, axis=0), k, axis=1).copy()
    for (outcome, _), corner in zip(boxes, corners, strict=True):
        x0, y0 = (np.floor(corner[:2] * k).astype(int)).clip(0)
        x1, y1 = np.minimum(np.ceil(corner[2:] * k).astype(int), (canvas.shape[1], canvas.shape[0])) - 1
        for edge in (canvas[y0 : y0 + 2, x0 : x1 + 1], canvas[max(y1 - 1, y0) : y1 + 1, x0 : x1 + 1]):
            edge[:] = _BOX_COLOURS.get(outcome, (0, 0, 0))
        for edge in (canvas[y0 : y1 + 1, x0 : x0 + 2], canvas[y0 : y1 + 1, max(x1 - 1, x0) : x1 + 1]):
            edge[:] = _BOX_COLOURS.get(outcome, (0, 0, 0))
    return Thumbnail(canvas.shape[0], canvas.shape[1], 3, canvas.tobytes())


def _sides(picture: Thumbnail) -> list[float]:
    return [picture.width + 1.0, picture.height + 1.0]


def picture_file(path: Path, side: int = SHOWN_SIDE) -> Thumbnail | None:
    """The picture in a file, of at most so many pixels a side; None where there is none that can be read."""
    try:
        if not path.is_file():  # a pipe would never end
            return None
        _, picture = Preparation().decoded(path)
    except (BadSampleError, XaiError, OSError, ValueError):
        return None
    small = _shrunk(picture, side)
    height, width, channels = small.shape
    return Thumbnail(height, width, channels, small.tobytes(), _times(picture, side))


def _times(picture: NDArray[np.uint8], side: int) -> int:
    """How many pixels of a picture become one, for so many a side."""
    longest: int = max(picture.shape[:2])
    return -(-longest // side)


def _shrunk(picture: NDArray[np.uint8], side: int = SHOWN_SIDE) -> NDArray[np.uint8]:
    """At most `side` pixels a side, each the mean of a square of `k` x `k`."""
    height, width, channels = picture.shape
    k = _times(picture, side)
    if k == 1:
        return picture
    rows, columns = max(1, height // k), max(1, width // k)
    whole = picture[: rows * k, : columns * k].reshape(rows, -1, columns, min(k, width), channels)
    means: NDArray[np.float64] = whole.mean(axis=(1, 3))
    return (means + 0.5).astype(np.uint8)


def _rows(reader: Reader, path: Path, wanted: Collection[Any], record: FileRecord | None) -> list[dict[str, Any]]:
    """The rows of the samples wanted; pixels are read only of row groups that hold one."""
    with parquet.opened(path, record, reader.contents) as file:
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
