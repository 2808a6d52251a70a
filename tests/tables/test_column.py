"""Values of every kind become Arrow columns; what is no column is named."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image as Pictures

from xaicli.tables.column import ColumnError, arrow_column, schema_of
from xaicli.tables.schema import Bool, CategoricalLabel, Embedding, Float, Image, Int, Mask, Schema, String


def column(values: object, schema: Schema | None = None) -> tuple[pa.Field, list[object]]:
    field, array = arrow_column("x", values, schema)
    return field, array.to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "schema"),
    [
        ([0.5, 0.4], pa.float64(), Float()),
        (torch.tensor([0.5, 0.25]), pa.float32(), Float()),
        (torch.tensor([0.5, 0.25], dtype=torch.bfloat16), pa.float32(), Float()),
        (torch.tensor([0.5, 0.25], requires_grad=True), pa.float32(), Float()),
        (np.array([1, 2], np.int16), pa.int16(), Int()),
        ([1, None], pa.int64(), Int()),
        ([True, False], pa.bool_(), Bool()),
        (["a", "b"], pa.string(), String()),
        (np.array(["a", "b"], object), pa.string(), String()),
        (np.array(["a", "b"]), pa.string(), String()),
        ([torch.tensor(1.5), torch.tensor(2.5)], pa.float64(), Float()),
        ([np.float32(1.5), np.float32(2.5)], pa.float64(), Float()),
        (torch.ones(2, 3), pa.list_(pa.float32(), 3), Embedding(size=3)),
        ([[1.0], [2.0, 3.0]], pa.list_(pa.float64()), Schema()),
        ([np.ones(2), np.ones(2)], pa.list_(pa.float64()), Schema()),
        (pa.chunked_array([[1], [2]]), pa.int64(), Int()),
    ],
)
def test_type_and_schema_are_inferred(values: object, kind: pa.DataType, schema: Schema) -> None:
    field, array = arrow_column("x", values)
    assert field.type == kind == array.type
    assert len(array) == 2
    assert schema_of(field) == schema


def test_a_stated_schema_travels_with_the_field() -> None:
    label = CategoricalLabel("label", ["cat", "dog"])
    field, values = column([0, 1], label)
    assert schema_of(field) == label
    assert values == [0, 1]


def test_pictures_become_png_and_masks_keep_their_classes() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    field, values = column(pixels)
    assert schema_of(field) == Image()
    assert np.array_equal(np.asarray(Pictures.open(io.BytesIO(values[1]))), pixels[1])  # type: ignore[arg-type]
    field, values = column([Pictures.fromarray(pixels[0]), None])
    assert schema_of(field) == Image()
    assert values[1] is None
    mask = torch.tensor([[[0, 1], [2, 200]]])
    field, values = column(mask, Mask(classes=["a", "b", "c"]))
    shown = Pictures.open(io.BytesIO(values[0]))  # type: ignore[arg-type]
    assert shown.mode == "P"
    assert np.array_equal(np.asarray(shown), mask[0].numpy())


class Thing:
    """No value of a column."""


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([Thing(), Thing()], "column 'x' holds values that are no column: Thing"),
        ([1, "a"], "column 'x' holds values that are no column: int, str"),
        (np.array([Thing()]), "column 'x' holds values that are no column: Thing"),
        (3.5, "column 'x' is a single float, not one value a row"),
        (torch.tensor(3.5), "column 'x' is a single"),
        ("text", "column 'x' is a single str"),
        ({"a": 1}, "column 'x' is a single dict"),
    ],
)
def test_what_is_no_column_is_named(values: object, told: str) -> None:
    with pytest.raises(ColumnError, match="column 'x'") as caught:
        arrow_column("x", values)
    assert told in caught.value.message
    assert caught.value.hint
