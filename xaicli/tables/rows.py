"""Where a table's rows come from: columns in memory or in a file, or a folder of images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from xaicli.errors import XaiError
from xaicli.files import for_arrow
from xaicli.tables.cells import read_typed_csv
from xaicli.tables.column import ColumnError, schema_of
from xaicli.tables.schema import CategoricalLabel, Image, Schema

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Unreadable:
    """What a row is that cannot be read: no transform sees it, and a collection leaves it out and says why.

    Attributes:
        why: The sample and what is wrong with it, one sentence.
    """

    why: str


class Rows(Protocol):
    """A map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class ArrayRows:
    """Arrays of one length: a row is a dict, or a tuple where the arrays have no names."""

    arrays: Mapping[str, Any]
    as_tuple: bool = False

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.arrays.items()}
        if not lengths:
            raise XaiError("a table needs at least one column", hint='for example {"image": images, "label": labels}')
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise ColumnError(f"the columns of a table differ in length: {told}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Any:
        row = {name: values[index] for name, values in self.arrays.items()}
        return tuple(row.values()) if self.as_tuple else row


@dataclass(frozen=True)
class ArrowRows:
    """A Parquet or CSV file: a row is a dict; lists of numbers become arrays, pictures are decoded."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {field.name: self._value(field, index) for field in self.table.schema}

    def _value(self, field: pa.Field, index: int) -> Any:
        value = self.table[field.name][index].as_py()
        if isinstance(value, list) and pa.types.is_primitive(field.type.value_type):
            return np.asarray(value, field.type.value_type.to_pandas_dtype())
        if isinstance(value, bytes) and isinstance(schema_of(field), Image):
            from PIL import Image as Pictures

            return Pictures.open(io.BytesIO(value))
        return value

    @property
    def schema(self) -> dict[str, Schema]:
        """The columns' schemas: stored ones first, else by type."""
        return {field.name: schema_of(field) for field in self.table.schema}


@dataclass(frozen=True)
class ImageRows:
    """Pictures below a folder; a row is (PIL image, class number), or the image alone in a folder without classes."""

    paths: Sequence[Path]
    labels: Sequence[int] | None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image as Pictures
        from PIL import UnidentifiedImageError

        path = self.paths[index]
        try:
            with Pictures.open(path) as opened:
                opened.load()
                picture = opened.convert("RGB") if opened.mode in ("P", "CMYK", "LA") else opened.copy()
        except (OSError, UnidentifiedImageError) as error:
            raise XaiError(f"{path} cannot be read as an image: {error}") from error
        return picture if self.labels is None else (picture, self.labels[index])


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds: `folder/class/name.png`, or pictures alone."""

    rows: ImageRows
    ids: tuple[str, ...]
    """The paths relative to the folder, with `/`."""
    classes: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Schema]:
        """What the columns mean."""
        columns: dict[str, Schema] = {"image": Image()}
        return columns | ({"label": CategoricalLabel("label", self.classes)} if self.classes else {})


def read_image_folder(folder: Path) -> ImageFolder:
    """List the images of a folder in the order of their paths; sub-folders are classes.

    Raises:
        XaiError: There is no such folder, or it holds no image.
    """
    if not folder.is_dir():
        raise XaiError(f"{folder} is no folder", hint="name a folder of images: FOLDER/CLASS/NAME.png")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        raise XaiError(f"{folder} holds no images", hint="looked for " + ", ".join(sorted(IMAGE_SUFFIXES)))
    ids = tuple(path.relative_to(folder).as_posix() for path in paths)
    if not all("/" in name for name in ids):
        return ImageFolder(ImageRows(paths, None), ids, ())
    classes = tuple(sorted({name.split("/")[0] for name in ids}))
    number = {name: position for position, name in enumerate(classes)}
    return ImageFolder(ImageRows(paths, [number[name.split("/")[0]] for name in ids]), ids, classes)


def read_file(path: Path) -> ArrowRows:
    """Read a Parquet or CSV file.

    Raises:
        XaiError: The file is missing, damaged or of another kind.
    """
    try:
        match path.suffix.lower():
            case ".parquet" | ".pq":
                import pyarrow.parquet as parquet

                return ArrowRows(parquet.read_table(for_arrow(path), memory_map=True))
            case ".csv" | ".tsv":
                return ArrowRows(read_typed_csv(path, "\t" if path.suffix.lower() == ".tsv" else ","))
    except FileNotFoundError:
        raise XaiError(f"{path} does not exist") from None
    except (OSError, pa.ArrowException) as error:
        raise XaiError(f"{path} cannot be read: {error}") from error
    raise XaiError(f"{path} is no table", hint="tables are .parquet or .csv files, or folders of images")
