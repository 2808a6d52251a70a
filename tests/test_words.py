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


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.from_regex(r"'*[=+\-@\t\r]?-?[0-9.e]*"))
def test_any_text_comes_back_from_a_cell(text: str) -> None:
    assert words.unguarded(words.guarded(text)) == text
    assert words.guarded(text) in (text, f"'{text}")


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
        ((0.12345, 2.0, 30000.0), 4, ["0.1235", "2", "3e+04"]),
        ((-12345.678, -12345.671, -12345.69), 4, ["-12345.68", "-12345.67", "-12345.69"]),
        ((1.0, 1.0), 3, ["1", "1"]),
        ((0.3, 0.1 + 0.2), 3, ["0.3", "0.3"]),
        ((), 3, []),
    ],
)
def test_numbers_that_are_compared(numbers: tuple[float, ...], digits: int, said: list[str]) -> None:
    assert distinct(numbers, digits) == said


def test_a_number_beyond_any_scale_is_short_in_words() -> None:
    assert [how_often(v) for v in (0.04, 12.34, 1234.56, 3.4e38)] == ["0.0", "12.3", "1,234.6", "3e+38"]


def test_a_line_of_a_table_tells_empty_text_from_what_is_missing() -> None:
    assert words.csv_line(["", None, 0, False, -1.5, "a"]) == '"",,0,False,-1.5,a\r\n'
    assert words.csv_line(["=1+1", "-3", 'say "a,b"', "two\nlines"]) == '\'=1+1,-3,"say ""a,b""","two\nlines"\r\n'
    assert words.csv_line([None]) == '""\r\n', "a line of nothing is a line"
