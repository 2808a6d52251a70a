"""Thirds of the data map, ties and gaps."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from xaicli.dynamics.regions import highest, lowest, regions


def test_thirds() -> None:
    confidence = pl.Series([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    variability = pl.Series([0.4, 0.0, 0.0, 0.0, 0.0, 0.5])
    found = regions(confidence, variability).to_list()
    assert found == ["ambiguous", "hard", None, None, "easy", "ambiguous"]


def test_ties_go_to_the_smaller_id() -> None:
    equal = pl.Series([0.5] * 7)
    assert regions(equal, equal).to_list() == ["ambiguous", "ambiguous"] + [None] * 5
    varied = pl.Series([0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2])
    assert regions(equal, varied).to_list() == ["hard", "hard", None, None, None, "ambiguous", "ambiguous"]


def test_samples_without_a_place_do_not_count() -> None:
    confidence = pl.Series([None, 0.1, 0.2, 0.9, None])
    variability = pl.Series([None, 0.0, 0.1, 0.0, 0.3])
    assert regions(confidence, variability).to_list() == [None, "hard", "ambiguous", "easy", None]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_samples_have_no_thirds(n: int) -> None:
    assert (
        regions(pl.Series([0.1] * n, dtype=pl.Float64), pl.Series([0.1] * n, dtype=pl.Float64)).to_list() == [None] * n
    )


def test_extremes_with_ties() -> None:
    values = np.array([1.0, 3.0, 3.0, 2.0, 3.0])
    assert highest(values, 2).tolist() == [1, 2]
    assert highest(values, 4).tolist() == [1, 2, 3, 4]
    assert lowest(values, 3).tolist() == [0, 1, 3]
    assert highest(values, 0).tolist() == []
