"""Labels as people write them: one reader for truths, corrections and what labelling tools export."""

from __future__ import annotations

from typing import Any

import pytest

from xaicli.tables.labels import Spelt, Written, is_same_number

NUMBER, NAME, EITHER = Spelt.NUMBER, Spelt.NAME, Spelt.EITHER


@pytest.mark.parametrize(
    ("cell", "values", "spelt"),
    [
        ("7", ["7"], [EITHER]),
        (" cat ", [" cat "], [EITHER]),
        (7, [7], [NUMBER]),
        (7.0, [7.0], [NUMBER]),
        ('["7"]', ["7"], [NAME]),
        ("[7]", [7], [NUMBER]),
        (' [1, "cat"]', [1, "cat"], [NUMBER, NAME]),
        (["2", "cat"], ["2", "cat"], [NAME, NAME]),
        ('{"choices": ["cat", "dog"]}', ["cat", "dog"], [NAME, NAME]),
        ({"choices": ["cat"]}, ["cat"], [NAME]),
        ("[cat", ["[cat"], [EITHER]),
        ('{"cat": 1}', ['{"cat": 1}'], [EITHER]),
        ("[]", [], []),
        ("", [], []),
        (None, [], []),
        ({"text": "cat"}, [], []),
    ],
)
def test_what_a_cell_says(cell: Any, values: list[Any], spelt: list[Spelt]) -> None:
    written = Written.of(cell, EITHER)
    assert list(written.values) == values
    assert [written.spelt_as(one) for one in written.values] == spelt


@pytest.mark.parametrize(
    ("cell", "row", "may_be_row"),
    [
        ("[0, 1, 1, 0]", [1, 2], False),
        ("[1, 1]", [0, 1], False),
        ("[0, 0]", [], False),
        ("[0, 1]", None, True),
        ([1, 0], None, True),
        ("[0, 2]", None, False),
        ('["0", "1"]', None, False),
        ('["0", "0"]', None, False),
        ("[]", None, False),
        ("[[0], [1]]", None, False),
        (1, None, False),
        ("01", None, False),
    ],
)
def test_rows_of_zeros_and_ones(cell: Any, row: list[int] | None, may_be_row: bool) -> None:
    written = Written.of(cell, EITHER)
    assert written.row == row
    assert written.may_be_row is may_be_row


def test_a_number_in_single_precision_is_that_which_rounds_to_it() -> None:
    single = 3.700000047683716  # what torch.float32 makes of 3.7
    assert is_same_number(single, 3.7)
    assert is_same_number(3.7, single)
    assert not is_same_number(3.7, 3.7 + 1e-9), "neither is one of single precision"
    assert not is_same_number(single, 3.7001)
    assert is_same_number(1e300, 1e300)
    assert not is_same_number(1e300, 2e300)
