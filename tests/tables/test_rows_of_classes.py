"""Corrected sets of classes beside data sets that hold sets, and rows of 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import xaicli
from xaicli.errors import XaiError


def table(old: Any, new: Any) -> Any:
    """The label of a sample after its correction."""
    return xaicli.Table([("x", old)], ids=[7], relabel={7: new})[0][1]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([0, 0, 1, 0], [1, 3], [0, 1, 0, 1]),
        ((0, 0, 1, 0), [], (0, 0, 0, 0)),
        ([0.0, 0.0, 1.0, 0.0], [1, 0, 0, 1], [1.0, 0.0, 0.0, 1.0]),
        ([0, 0], [0], [1, 0]),
        ([0, 1], [1, 1], [1, 1]),
        ([2], [1, 3], [1, 3]),
        ([0, 1], [0, 2, 3], [0, 2, 3]),
        ([0.25, 0.5, 0.5], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([0.0, 0.0, 1.0], [0.5, 0.25, 0.0], [0.5, 0.25, 0.0]),
    ],
)
def test_lists(old: Any, new: Any, expected: Any) -> None:
    found = table(old, new)
    assert found == expected
    assert [type(one) for one in found] == [type(one) for one in expected]


def test_tensors_and_arrays() -> None:
    found = table(torch.tensor([0.0, 1.0, 0.0, 0.0]), [0, 3])
    assert found.dtype == torch.float32
    assert found.tolist() == [1.0, 0.0, 0.0, 1.0]
    array = table(np.array([0, 1, 0], dtype=np.int8), [1, 0, 1])
    assert array.dtype == np.int8
    assert array.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([2], [1, 0, 0, 1], "is a row of 0 and 1"),
        ([2, 3], [0, 0, 0, 0], "is a row of 0 and 1"),
        ([0, 0, 1], [0, 1, 1, 0], "is a row of 0 and 1"),
        ([0, 0], [0, 1], "may be two classes, or a row"),
        ([0, 0, 1], [3], "cannot stand in place"),
        (torch.tensor([0, 1]), [1], "cannot stand in place"),
    ],
)
def test_what_is_not_told_is_refused(old: Any, new: Any, said: str) -> None:
    with pytest.raises(XaiError, match=said):
        table(old, new)


@pytest.mark.parametrize("text", ["[1, 3]", "[0, 1, 0, 1]"])
def test_of_csv(tmp_path: Any, text: str) -> None:
    (tmp_path / "new.csv").write_text(f'sample_id,label\n7,"{text}"\n')
    made = xaicli.Table([("x", torch.tensor([1, 0, 0, 0]))], ids=[7], relabel=tmp_path / "new.csv")
    assert made[0][1].tolist() == [0, 1, 0, 1]


def test_two_names_are_two_classes_and_no_row() -> None:
    schema = {"label": xaicli.CategoricalLabel("label", ["cat", "dog"])}
    for new in (["cat", "dog"], '["cat", "dog"]'):
        found = xaicli.Table([{"label": [0, 0]}], ids=[7], relabel={7: new}, schema=schema)[0]
        assert found["label"] == [1, 1]
    with pytest.raises(XaiError, match="may be two classes"):
        xaicli.Table([{"label": [0, 0]}], ids=[7], relabel={7: [0, 1]}, schema=schema)
