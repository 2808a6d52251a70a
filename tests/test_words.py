"""Lists as people type them: what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaicli import words
from xaicli.words import distinct, how_often, ranges

VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(VALUES))
def test_any_values_come_back(values: list[str]) -> None:
    assert words.split(",".join(words.quoted(value) for value in values)) == values


@given(VALUES, VALUES)
def test_any_pair_comes_back(name: str, value: str) -> None:
    typed = f"{words.quoted(name, special=',=')}={words.quoted(value, special=',=')}"
    (item,) = words.split_raw(typed)
    assert words.split_pair(item) == (name, value)


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("loss,margin", ["loss", "margin"]),
        (" a , b,,", ["a", "b"]),
        ('"a,c",b', ["a,c", "b"]),
        ('say "hi",b', ['say "hi"', "b"]),
        ('"never closed,b', ['"never closed', "b"]),
        ('""', [""]),
        ('"say ""hi"""', ['say "hi"']),
        ('!"a,c",!b', ["!a,c", "!b"]),
        ('!""', ["!"]),
        ('wow!"a,c"', ['wow!"a', 'c"']),
        ("", []),
    ],
)
def test_lists(typed: str, values: list[str]) -> None:
    assert words.split(typed) == values


@pytest.mark.parametrize(
    ("typed", "pair"),
    [
        ("cat=3", ("cat", "3")),
        ("a=b=3", ("a=b", "3")),
        ('x="key=val"', ("x", "key=val")),
        ('"x=a,b"', ("x", "a,b")),
        ("cat", None),
        ("=3", None),
        ("cat=", None),
    ],
)
def test_pairs(typed: str, pair: tuple[str, str] | None) -> None:
    assert words.split_pair(typed) == pair


@pytest.mark.parametrize(
    ("numbers", "told"),
    [([], []), ([5], ["5"]), ([1, 2, 3, 5], ["1-3", "5"]), ([-2, -1, 4, 5], ["-2--1", "4-5"]), ([1, 3], ["1", "3"])],
)
def test_ranges(numbers: list[int], told: list[str]) -> None:
    assert ranges(numbers) == told


@pytest.mark.parametrize(
    ("numbers", "digits", "said"),
    [
        ((0.12345, 2.0, 30000.0), 4, ["0.1235", "2", "30000"]),
        ((-12345.678, -12345.671, -12345.69), 4, ["-12345.68", "-12345.67", "-12345.69"]),
        ((1.0, 1.0), 3, ["1", "1"]),
        ((0.3, 0.1 + 0.2), 3, ["0.3", "0.3"]),
        ((245123.7, 310555.2, 1.5e12, 3e-7), 4, ["245124", "310555", "1.5e+12", "3e-07"]),
        ((), 3, []),
    ],
)
def test_numbers_that_are_compared(numbers: tuple[float, ...], digits: int, said: list[str]) -> None:
    assert distinct(numbers, digits) == said


def test_a_number_beyond_any_scale_is_short_in_words() -> None:
    assert [how_often(v) for v in (0.04, 12.34, 1234.56, 3.4e38)] == ["0.0", "12.3", "1,234.6", "3e+38"]


@pytest.mark.parametrize(
    ("share", "whole", "tenths"),
    [
        (0.0, "0 %", "0.0 %"),
        (0.0004, "0.04 %", "0.04 %"),
        (2e-9, "<0.01 %", "<0.001 %"),
        (0.05, "5 %", "5.0 %"),
        (-0.0004, "-0.04 %", "-0.04 %"),
        (0.996, "99.6 %", "99.6 %"),
        (0.9996, "99.96 %", "99.96 %"),
        (0.9999999, ">99.99 %", ">99.999 %"),
        (1.0 - 1e-12, "100 %", "100.0 %"),  # rounding alone keeps it from all
        (1.0, "100 %", "100.0 %"),
        (None, "–", "–"),
    ],
)
def test_what_is_not_quite_nothing_or_all_reads_as_neither(share: float | None, whole: str, tenths: str) -> None:
    assert (words.percent(share), words.percent(share, 1)) == (whole, tenths)


@pytest.mark.parametrize(
    ("share", "said", "tight"),
    [
        (0.9993, "0.999", ">0.99"),
        (0.9999999, ">0.9999", ">0.99"),
        (0.0004, "0.0004", "<0.01"),
        (0.97, "0.97", "0.97"),
        (-0.9993, "-0.999", "<-0.99"),
        (1.0, "1.00", "1.00"),
        (0.0, "0.00", "0.00"),
    ],
)
def test_a_part_of_one_reads_as_one_only_where_it_is(share: float, said: str, tight: str) -> None:
    assert (words.fraction(share), words.fraction(share, further=0)) == (said, tight)
    assert words.fraction(0.4996, bounds=(0.5,)) == "0.4996"


@given(st.floats(-1, 1), st.integers(0, 3), st.integers(0, 3))
def test_a_share_is_said_to_its_last_digit(share: float, decimals: int, further: int) -> None:
    said = words.fraction(share, decimals, further=further)
    number, step = float(said.lstrip("<>")), 10.0**-decimals
    assert abs(number - share) <= step
    assert not said.startswith("<") or share < number
    assert not said.startswith(">") or share > number
    assert all(number != bound or said[0] in "<>" or abs(share - bound) <= 1e-9 for bound in (0, 1, -1))
