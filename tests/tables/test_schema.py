"""Schemas say what columns mean and survive being written down."""

from __future__ import annotations

import pytest

from xaicli.errors import XaiError
from xaicli.tables.schema import (
    Bool,
    BoundingBoxes,
    CategoricalLabel,
    CategoricalLabelSchema,
    Confidence,
    Embedding,
    Float,
    Image,
    Int,
    IoU,
    Mask,
    Schema,
    String,
    checked,
    from_json,
)


@pytest.mark.parametrize(
    "schema",
    [
        Schema("anything", description="a column"),
        Bool(),
        String("text"),
        Int("count", 0, 10),
        Float("loss", 0.0, None, "nat"),
        Confidence(),
        IoU(),
        CategoricalLabel("label", ["cat", "dog"]),
        CategoricalLabel("label", {3: "cat", 9: "dog"}),
        Embedding(size=64, layer="fc1", reduction="pca"),
        Image(),
        Mask(classes=["sky", "road"]),
        BoundingBoxes(classes=["cat"], box_format="xywh"),
    ],
)
def test_a_schema_survives_json(schema: Schema) -> None:
    assert from_json(schema.to_json()) == schema


def test_json_says_only_what_is_known() -> None:
    assert CategoricalLabel("label", ["cat", "dog"]).to_json() == {
        "type": "categorical",
        "name": "label",
        "classes": {"0": "cat", "1": "dog"},
    }
    assert Float().to_json() == {"type": "float"}
    assert IoU().to_json() == {"type": "iou", "minimum": 0.0, "maximum": 1.0}


def test_classes_have_names_and_unknown_values_say_so() -> None:
    label = CategoricalLabel("label", ["cat", "dog"])
    assert [label.show(value) for value in (0, 1, 7, None)] == ["cat", "dog", "id:7", ""]
    assert CategoricalLabelSchema(classes=["cat", "dog"]).names == {0: "cat", 1: "dog"}


def test_keys_of_a_later_version_are_ignored_and_types_are_not() -> None:
    assert from_json({"type": "float", "minimum": 1.0, "glow": True}) == Float(minimum=1.0)
    with pytest.raises(XaiError, match="no schema type 'flaot'") as caught:
        from_json({"type": "flaot"})
    assert "did you mean float?" in caught.value.hint


def test_a_list_of_names_is_a_schema_and_anything_else_is_not() -> None:
    assert checked(["cat", "dog"], column="label") == CategoricalLabel("label", ["cat", "dog"])
    with pytest.raises(XaiError, match="schema of column 'label' is a int"):
        checked(3, column="label")
    with pytest.raises(XaiError, match="class names cannot be read"):
        CategoricalLabel("label", {"cat": 0})  # type: ignore[dict-item]
