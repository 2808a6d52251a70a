"""Where a table's rows come from: columns in memory or in a file, or a folder of images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from xaicli.errors import XaiError
from xaicli.files import for_arrow
from xaicli.tables.column import ColumnError, schema_of
from xaicli.tables.schema import CategoricalLabel, Image, Schema
from xaicli.words import is_bare, unguarded

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


@dataclass(frozen=True)
class Cells:
    """Comma-separated values, every one as text just as it stands there.

    Attributes:
        names: Those of the columns.
        columns: A text a row; null for a cell with nothing in it, and "" for one that holds `""`.
        short: How many rows have fewer cells than there are names: the others are null.
        long: How many have more, which are left out.
    """

    names: tuple[str, ...]
    columns: tuple[pa.Array, ...]
    short: int = 0
    long: int = 0


def read_cells(text: str, separator: str) -> Cells:
    """The cells of a text whose first line names the columns; quoted values may hold line breaks.

    Where blanks follow the separators of the first line, those before a cell are for the eye and no part of it.
    """
    from pyarrow import csv

    text = text.lstrip("\r\n")
    names = header(text, separator)
    is_spaced = any(name != name.lstrip(" ") for name in names[1:])
    numbers = [str(at) for at in range(len(names))]
    if not is_spaced and text:
        try:
            table = csv.read_csv(
                io.BytesIO(text.encode()),
                read_options=csv.ReadOptions(column_names=numbers),
                parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=_as_text(numbers),
            ).slice(1)
            return Cells(names, tuple(_whole(column) for column in table.columns))
        except pa.ArrowInvalid:
            pass  # rows of several lengths
    rows = list(_rows_of(text, separator, is_spaced=is_spaced))[1:]
    width = len(names)
    columns = (pa.array([row[at] if at < len(row) else None for row in rows], pa.string()) for at in range(width))
    short, long = sum(len(row) < width for row in rows), sum(len(row) > width for row in rows)
    return Cells(names, tuple(columns), short, long)


def header(text: str, separator: str) -> tuple[str, ...]:
    """The cells of the first line."""
    return tuple(name or "" for name in next(_rows_of(text.lstrip("\r\n"), separator), []))


def _rows_of(text: str, separator: str, *, is_spaced: bool = False) -> Iterator[list[str | None]]:
    """The cells of each row, by RFC 4180; a quote that never closes is a character like any other."""
    plain = rf"[^{re.escape(separator)}\r\n]*"
    blanks = " *" if is_spaced else ""
    cell = re.compile(rf'{blanks}(?:"([^"]*(?:""[^"]*)*)"({plain})|({plain}))({re.escape(separator)}|\r\n|\r|\n|\Z)')
    row: list[str | None] = []
    at = 0
    while at < len(text) or row:
        found = cell.match(text, at)
        assert found is not None  # the plain cell takes whatever there is
        inside, after, bare, end = found.groups()
        row.append((bare or None) if inside is None else inside.replace('""', '"') + after)
        at = found.end()
        if end != separator:
            if len(row) > 1 or bare != "":
                yield row
            row = []


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def read_typed_csv(path: Path, separator: str) -> pa.Table:
    """A CSV file with columns of numbers, dates and texts, as Arrow tells them apart.

    Raises:
        OSError: It cannot be read.
        ArrowException: It is no table.
    """
    from pyarrow import csv

    options = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    return _unguarded_table(csv.read_csv(path, parse_options=options))


def read_csv_ids(path: Path, separator: str, name: str) -> pa.Array:
    """A column of ids of a CSV file as texts; null where there is none, and "" where it stands as `""`.

    Raises:
        OSError: It cannot be read.
        ArrowException: It is no table.
    """
    from pyarrow import csv

    table = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=_as_text([name], include_columns=[name]),
    )
    return without_guards(_whole(table.column(0)))


def _as_text(names: Sequence[str], **how: Any) -> Any:
    """Arrow's options that tell a cell with nothing in it from one of an empty text."""
    from pyarrow import csv

    return csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        **how,
    )


def _unguarded_table(table: pa.Table) -> pa.Table:
    """A table read from CSV without the apostrophes that keep a spreadsheet from running its texts."""
    columns = [without_guards(column) for column in table.columns]
    return pa.table(columns, names=[unguarded(name) for name in table.column_names])


def without_guards(column: Any) -> Any:
    """An array of texts of a CSV file as they were before they were written to it; another as it is.

    A column in which any text stands bare that would have been guarded was written by others: nothing is taken off.
    """
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type) or not pc.any(pc.starts_with(column, "'")).as_py():
        return column
    texts = column.to_pylist()
    if any(text and is_bare(text) for text in texts):
        return column
    return pa.array([text and unguarded(text) for text in texts], pa.string())
