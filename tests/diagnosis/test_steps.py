"""Batch losses, spikes, shares and enrichment against plain Python and scipy."""

import math
import statistics

import numpy as np
import polars as pl
import pytest
from scipy import stats

from xaicli.diagnosis import steps


def rows(losses: list[list[float]], *, epoch: int = 1, rank: int = 0) -> pl.DataFrame:
    found = [
        {"sample_id": i, "epoch": epoch, "step": step, "rank": rank, "loss": value}
        for step, batch in enumerate(losses)
        for i, value in enumerate(batch)
    ]
    return pl.DataFrame(found, schema_overrides={"loss": pl.Float32})


def test_batch_loss_is_the_mean_of_what_is_finite():
    found = steps.batch_losses(rows([[1.0, 3.0], [math.nan, 2.0], [math.inf]]), "loss")
    assert found["loss"].to_list() == [2.0, 2.0, None]
    assert found["non_finite"].to_list() == [0, 1, 1]
    first = steps.first_non_finite(found)
    assert first is not None
    assert (first["epoch"], first["step"]) == (1, 1)
    assert steps.first_non_finite(found.head(1)) is None


def test_spikes_by_hand():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(0, 0.05, 300) - np.arange(300) / 150)
    values[[40, 210]] *= 9
    found = steps.with_spikes(steps.batch_losses(rows([[float(v)] for v in values]), "loss"))
    logs = np.log(values.astype(np.float32).astype(np.float64))
    for at in (0, 40, 120, 210, 299):
        window = logs[max(0, at - 50) : at + 51]
        middle = statistics.median(window)
        mad = statistics.median(abs(window - middle))
        assert found["height"][at] == pytest.approx((logs[at] - middle) / (1.4826 * mad))
        assert found["usual"][at] == pytest.approx(math.exp(middle))
    assert found.filter("is_spike")["step"].to_list() == [40, 210]


def test_each_rank_is_judged_by_itself():
    low, high = [[0.1]] * 60, [[5.0]] * 60
    both = pl.concat([rows(low, rank=0), rows(high, rank=1)])
    found = steps.with_spikes(steps.batch_losses(both, "loss"))
    assert not found["is_spike"].any()
    assert found.filter(rank=1)["usual"].unique().to_list() == pytest.approx([5.0])


def test_losses_that_are_negative_or_absent_are_judged_too():
    values = [[-1.0 + 0.01 * (i % 5)] for i in range(50)]
    values[20] = [4.0]
    values[30] = [math.nan]
    found = steps.with_spikes(steps.batch_losses(rows(values), "loss"))
    assert found.filter("is_spike")["step"].to_list() == [20]
    assert found["height"][30] is None
    nothing = steps.with_spikes(steps.batch_losses(rows([[math.nan]]), "loss"))
    assert nothing["is_spike"].to_list() == [False]
    assert steps.with_spikes(steps.batch_losses(rows([[1.0]]).clear(), "loss")).height == 0


def test_constant_losses_have_no_spike():
    found = steps.with_spikes(steps.batch_losses(rows([[0.3]] * 80), "loss"))
    assert not found["is_spike"].any()


def test_shares_of_a_step():
    frame = pl.DataFrame({"sample_id": [1, 2, 3, 4], "value": [1.0, math.nan, 3.0, 1.0]})
    found = steps.loss_shares(frame)
    assert found["sample_id"].to_list() == [2, 3, 1, 4]
    assert found["share"][0] is None
    assert found["share"][1:].to_list() == pytest.approx([0.6, 0.2, 0.2])


def test_mix_of_labels():
    found = steps.mix(pl.Series([1, 1, 1, 0]), pl.DataFrame({"label": [0, 1, 2], "n": [6, 2, 2]}))
    assert [(item.value, item.n, item.expected) for item in found] == [(1, 3, 0.8), (2, 0, 0.8), (0, 1, 2.4)]


def test_enrichment_against_scipy():
    rng = np.random.default_rng(1)
    spike = np.zeros(400, bool)
    spike[rng.choice(400, 20, replace=False)] = True
    batches = [rng.choice(50, 8, replace=False).tolist() for _ in range(400)]
    for at in np.flatnonzero(spike):
        batches[at] = [99, *batches[at][1:]]
    table = pl.DataFrame(
        {"sample_id": [i for batch in batches for i in batch], "is_spike": np.repeat(spike, 8).tolist()}
    )
    seen = table.group_by("sample_id").agg(pl.len().cast(pl.Int64).alias("n"))
    hits = table.filter("is_spike").group_by("sample_id").agg(pl.len().cast(pl.Int64).alias("n_spikes"))
    found = steps.enrichment(seen, hits)
    chance = table["is_spike"].mean()
    first = found.row(0, named=True)
    assert first["sample_id"] == 99
    assert (first["n"], first["n_spikes"]) == (20, 20)
    everyone = (
        table.group_by("sample_id").agg(pl.len().alias("n"), pl.col("is_spike").sum().alias("k")).sort("sample_id")
    )
    p = {i: stats.binom.sf(k - 1, n, chance) for i, n, k in everyone.iter_rows()}
    q = dict(zip(p, stats.false_discovery_control(list(p.values())), strict=True))
    for row in found.iter_rows(named=True):
        assert row["p"] == pytest.approx(p[row["sample_id"]], rel=1e-9)
        assert row["q"] == pytest.approx(q[row["sample_id"]], rel=1e-9)
        assert row["ratio"] == pytest.approx(row["n_spikes"] / row["expected"])
    assert (found["q"] < 0.01).sum() == 1


def test_no_spike_no_enrichment():
    seen = pl.DataFrame({"sample_id": [1, 2], "n": [3, 3]})
    spiked = pl.DataFrame(schema={"sample_id": pl.Int64, "n_spikes": pl.Int64})
    found = steps.enrichment(seen, spiked)
    assert found.height == 0
    assert found.columns == ["sample_id", "n", "n_spikes", "expected", "ratio", "p", "q"]
