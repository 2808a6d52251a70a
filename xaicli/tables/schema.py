"""What a column means: names of its classes, its range, its unit, or that it holds boxes, masks, embeddings.

A schema travels with its column: as JSON in the Parquet field's metadata (key `xai_schema`) and in
`tables/<name>/schema.json`. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from xaicli.errors import XaiError, unknown
from xaicli.files import facts_in, for_arrow
from xaicli.layout import RunLayout

METADATA_KEY = b"xai_schema"


@dataclass(frozen=True)
class Schema:
    """A column without further meaning.

    Args:
        name: What people see instead of the column's own name; empty for the column's own.
        description: One sentence for people.
    """

    kind: ClassVar[str] = "any"

    name: str = ""
    description: str = field(default="", kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON types; what was not given is left out."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"type": self.kind} | {key: value for key, value in given.items() if value not in ("", None, ())}

    def show(self, value: Any) -> str:
        """A value of the column in words."""
        return "" if value is None else str(value)


@dataclass(frozen=True)
class Bool(Schema):
    """True or false."""

    kind: ClassVar[str] = "bool"


@dataclass(frozen=True)
class String(Schema):
    """Text."""

    kind: ClassVar[str] = "string"


@dataclass(frozen=True)
class Int(Schema):
    """A whole number, with its range where it is known."""

    kind: ClassVar[str] = "int"

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True)
class Float(Schema):
    """A number, with its range and unit where they are known; the range is what a scale shows, not a limit."""

    kind: ClassVar[str] = "float"

    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Confidence(Float):
    """The probability a model gives to its own answer, in [0, 1]."""

    kind: ClassVar[str] = "confidence"

    minimum: float | None = 0.0
    maximum: float | None = 1.0


@dataclass(frozen=True)
class IoU(Float):
    """Intersection over union, in [0, 1]."""

    kind: ClassVar[str] = "iou"

    minimum: float | None = 0.0
    maximum: float | None = 1.0


def _classes(given: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    try:
        return {int(value): str(name) for value, name in pairs}
    except (TypeError, ValueError) as error:
        raise XaiError(
            f"class names cannot be read from {given!r}", hint='give ["cat", "dog"] or {0: "cat", 1: "dog"}'
        ) from error


@dataclass(frozen=True)
class _Classes(Schema):
    """A column whose integers stand for classes."""

    classes: Mapping[int, str] | Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _classes(self.classes))

    @property
    def names(self) -> dict[int, str]:
        """The class names by value."""
        return dict(self.classes)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"classes": {str(value): name for value, name in self.names.items()}}

    def show(self, value: Any) -> str:
        """The class's name, `id:7` for a value without one."""
        return "" if value is None else self.names.get(value, f"id:{value}")


@dataclass(frozen=True)
class CategoricalLabel(_Classes):
    """Integers that stand for classes.

    Args:
        classes: The names by position, or by value.
    """

    kind: ClassVar[str] = "categorical"


CategoricalLabelSchema = CategoricalLabel
"""The name later versions of the seed's package use."""


@dataclass(frozen=True)
class Embedding(Schema):
    """A vector a sample.

    Args:
        size: Its length; None if it varies.
        layer: The layer it comes from.
        reduction: How it was reduced ("pca"), empty when it was not.
    """

    kind: ClassVar[str] = "embedding"

    size: int | None = None
    layer: str = ""
    reduction: str = ""


@dataclass(frozen=True)
class Image(Schema):
    """A picture as PNG bytes."""

    kind: ClassVar[str] = "image"


@dataclass(frozen=True)
class Mask(_Classes):
    """A picture of class values as palette PNG bytes."""

    kind: ClassVar[str] = "mask"


@dataclass(frozen=True)
class BoundingBoxes(_Classes):
    """A list of boxes a sample.

    Args:
        box_format: "xyxy", "xywh" or "cxcywh", in pixels.
    """

    kind: ClassVar[str] = "boxes"

    box_format: str = "xyxy"


_KINDS: dict[str, type[Schema]] = {
    cls.kind: cls
    for cls in (
        Schema,
        Bool,
        String,
        Int,
        Float,
        Confidence,
        IoU,
        CategoricalLabel,
        Embedding,
        Image,
        Mask,
        BoundingBoxes,
    )
}


def from_json(facts: Mapping[str, Any]) -> Schema:
    """The schema behind its JSON; keys a newer version added are ignored.

    Raises:
        XaiError: The type is unknown.
    """
    cls = _KINDS.get(str(facts.get("type", "any")))
    if cls is None:
        raise unknown("schema type", facts.get("type"), _KINDS)
    known = {f.name for f in dataclasses.fields(cls)}
    return cls(**{key: value for key, value in facts.items() if key in known})


def checked(given: Any, *, column: str) -> Schema:
    """A schema as a caller may give it: a schema, or a plain list of class names.

    Raises:
        XaiError: It is neither.
    """
    if isinstance(given, Schema):
        return given
    if isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given):
        return CategoricalLabel(column, given)
    raise XaiError(
        f"the schema of column {column!r} is a {type(given).__name__}",
        hint='give a schema such as xaicli.CategoricalLabel("label", ["cat", "dog"]) or xaicli.Float()',
    )


_MOST_CLASSES = 1 << 20


def stored_schemas(layout: RunLayout, table: str) -> dict[str, Schema]:
    """The schemas of a table's columns, those that its files hold where `schema.json` cannot be read."""
    folder = layout.table_folder(table)
    try:
        return described(folder / _FILE)
    except (OSError, ValueError):
        return {name: from_json(facts) for name, facts in held(folder).items()}


_FILE = "schema.json"


def described(path: Path) -> dict[str, Schema]:
    """The schemas that a table's `schema.json` holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what was written.
    """
    try:
        return {str(name): from_json(facts) for name, facts in facts_in(path.read_text(encoding="utf-8")).items()}
    except (TypeError, AttributeError, XaiError) as error:
        raise ValueError(f"it holds no schemas: {error}") from error


def held(folder: Path) -> dict[str, dict[str, Any]]:
    """The schemas that the files of a table hold, as plain JSON types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.parquet")):
        try:
            found = together(found, of_fields(pq.read_schema(for_arrow(path))))
        except (OSError, ValueError, pa.ArrowException):  # a damaged one is the reader's to name
            continue
    return found


def of_fields(fields: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The schemas that Arrow's fields hold, as plain JSON types."""
    known = {field.name: field.metadata for field in fields if field.metadata and METADATA_KEY in field.metadata}
    return {name: json.loads(metadata[METADATA_KEY]) for name, metadata in known.items()}


def together(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A table's schemas with those of later rows: where these name no classes, they take no earlier name away."""
    unnamed = {n for n, facts in now.items() if not facts.get("classes") and before.get(n, {}).get("classes")}
    return {**before, **{name: facts for name, facts in now.items() if name not in unnamed}}


def class_names(layout: RunLayout, table: str, column: str) -> tuple[str, ...]:
    """The names of the classes 0, 1, 2, ... of a column, `id:1` for one without; none if it holds no classes."""
    schema = stored_schemas(layout, table).get(column)
    if not isinstance(schema, CategoricalLabel) or not schema.names:
        return ()
    return tuple(schema.show(value) for value in range(min(max(schema.names) + 1, _MOST_CLASSES)))
