"""Mid-ranks, medians and sudden changes of rank against their definitions."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dynamics import dynamics_oracle as oracle
from xaicli.dynamics.ranks import NORMAL_MAD, NORMAL_MEAN_DEVIATION, RankJumps, median, mid_ranks, robust_scale

numbers = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-1024, 1024, width=32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(values=st.lists(numbers, min_size=1, max_size=30))
def test_mid_ranks(dtype: type[np.floating], values: list[float]) -> None:
    expected = [oracle.mid_rank(value, values) for value in values]
    assert mid_ranks(np.array(values, dtype)).tolist() == expected


def test_mid_ranks_of_many_ties_across_blocks() -> None:
    values = np.random.default_rng(0).integers(0, 5, 100_000).astype(np.float32)
    counts = np.bincount(values.astype(int))
    starts = np.cumsum(counts) - counts
    assert np.array_equal(mid_ranks(values), (starts + (counts + 1) / 2)[values.astype(int)])


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=20), centre=st.none() | st.floats(-1, 1))
def test_median_of_few(values: list[float], centre: float | None) -> None:
    distances = values if centre is None else [abs(value - centre) for value in values]
    low, high = (-1.0, 1.0) if centre is None else (0.0, 2.0)
    assert median(np.array(values), low, high, centre) == pytest.approx(statistics.median(distances), abs=1e-15)


@pytest.mark.parametrize("n", [70_001, 80_000])
@pytest.mark.parametrize("shape", ["spread", "two values", "one value"])
def test_median_of_many_is_exact(n: int, shape: str) -> None:
    draw = np.random.default_rng(n)
    values = {
        "spread": np.clip(draw.normal(0, 0.05, n), -1, 1),
        "two values": np.repeat([-0.5, 0.75], [n // 2, n - n // 2]),
        "one value": np.ones(n),
    }[shape]
    assert median(values, -1.0, 1.0) == np.median(values)
    assert median(values, 0.0, 2.0, 0.25) == np.median(np.abs(values - 0.25))


def test_scale() -> None:
    assert robust_scale(np.array([1.0, 2.0, 3.0, 4.0, 9.0]), 3.0, 10.0) == NORMAL_MAD
    mostly_equal = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    assert robust_scale(mostly_equal, 0.0, 1.0) == pytest.approx(NORMAL_MEAN_DEVIATION / 5)
    assert robust_scale(np.zeros(3), 0.0, 1.0) == 0.0


def test_one_sample_jumps() -> None:
    """Ten samples keep their ranks but for rounding of neighbours; one falls from the top to the bottom at epoch 4."""
    jumps = RankJumps(burn_in=2)
    jumps.grow(10)
    values = np.arange(10, dtype=np.float32)
    for epoch in range(1, 7):
        now = values.copy()
        if epoch >= 4:
            now[9] = -1.0
        jumps.update(slice(0, 10), now, epoch)
    found = jumps.results()
    assert found["rank_jump"].argmax() == 9
    assert found["rank_jump_epoch"][9] == 4
    assert not found["rises"][9]
    assert (found["rank_from"][9], found["rank_to"][9]) == pytest.approx((1.0, 0.1), abs=1e-3)
    # All others rise by one tenth, the median change: nine distances are 0, one is 1, so the mean takes over.
    assert found["rank_jump"][9] == pytest.approx(1.0 / (NORMAL_MEAN_DEVIATION * 0.1))
    assert found["rank_jump"][:9].max() == pytest.approx(0.0, abs=1e-9)


def test_no_jump_within_the_burn_in() -> None:
    jumps = RankJumps(burn_in=3)
    jumps.grow(4)
    for epoch in (1, 2, 3):
        jumps.update(slice(0, 4), np.random.default_rng(epoch).random(4).astype(np.float32), epoch)
    assert np.isnan(jumps.results()["rank_jump"]).all()
