"""Slices that were planted are found, and none in shuffled data; chances against scipy."""

import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import special, stats

from xaicli.diagnosis import chance, slices


def data(n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "time": rng.choice(["day", "dusk", "night"], n, p=[0.6, 0.3, 0.1]),
            "camera": rng.choice([f"cam{i}" for i in range(6)], n),
            "label": rng.integers(0, 8, n),
            "brightness": rng.uniform(size=n),
            "loss": rng.exponential(size=n),
        }
    )


def test_beta_and_t_against_scipy():
    rng = np.random.default_rng(0)
    a, b, x = rng.uniform(0.3, 80, 500), rng.uniform(0.3, 80, 500), rng.uniform(size=500)
    np.testing.assert_allclose(chance.incomplete_beta(a, b, x), special.betainc(a, b, x), rtol=1e-9, atol=1e-14)
    t, freedom = rng.normal(0, 4, 500), rng.uniform(1, 1e6, 500)
    np.testing.assert_allclose(chance.student_two_sided(t, freedom), 2 * stats.t.sf(abs(t), freedom), rtol=1e-8)
    np.testing.assert_allclose(chance.student_975(freedom), stats.t.ppf(0.975, freedom), rtol=1e-6)


def test_binomial_tail_against_scipy():
    for k, n, p in ((3, 10, 0.2), (0, 5, 0.1), (40, 90, 0.3), (5, 5, 1.0)):
        assert chance.binomial_tail(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-9)


def test_welch_against_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 2, 40), rng.normal(0, 1, 900)
    sums = [(np.array([len(v)]), np.array([v.sum()]), np.array([(v * v).sum()])) for v in (a, b)]
    p, difference, error, freedom = chance.welch(*sums[0], *sums[1])
    margin = chance.student_975(freedom) * error
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert p[0] == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval()
    assert (difference[0] - margin[0], difference[0] + margin[0]) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("n", [30, 200, 3000])
@pytest.mark.parametrize("kind", ["exponential", "normal", "few", "heavy"])
def test_tails_of_random_draws(n, kind):
    rng = np.random.default_rng(2)
    values = {
        "exponential": rng.exponential(size=6000),
        "normal": rng.normal(size=6000),
        "few": (rng.uniform(size=6000) < 0.1).astype(float),
        "heavy": rng.lognormal(0, 1.5, 6000),
    }[kind]
    means = np.array([rng.choice(values, n, replace=False).mean() for _ in range(1000)])
    p = chance.Draws(values).two_sided(np.full(1000, float(n)), means)
    for level in (0.1, 0.01):
        # At most what it says, with room for chance in 1,000 draws and for values that are lumps.
        assert (p <= level).mean() <= 1.25 * level + 3 * np.sqrt(level / 1000)
    assert (p <= 0.1).mean() >= 0.05


@pytest.mark.parametrize("n", [25, 150, 280])
def test_those_drawn_and_those_left_tell_of_one_chance(n):
    rng = np.random.default_rng(n)
    values = rng.lognormal(0, 1, 300)
    means = np.sort([rng.permutation(values)[:n].mean() for _ in range(20_000)])
    draws = chance.Draws(values)
    for place in (0.002, 0.02, 0.98, 0.998):
        mean = means[int(place * len(means))]
        p = draws.two_sided(np.array([float(n)]), np.array([mean]))[0]
        left = draws.two_sided(np.array([300.0 - n]), np.array([(values.sum() - n * mean) / (300 - n)]))[0]
        assert left == pytest.approx(p, rel=1e-6)
        assert p == pytest.approx(2 * min(place, 1 - place), rel=0.4)


def test_both_values_of_a_fact_have_one_p():
    rng = np.random.default_rng(4)
    night = rng.uniform(size=400) < 0.15
    frame = pl.DataFrame({"night": night, "loss": rng.exponential(size=400) ** 1.5 + night})
    dark, light = slices.find_slices(frame, "loss", ["night"]).slices
    assert (dark.p, dark.q) == pytest.approx((light.p, light.q))
    assert dark.interval == pytest.approx([-end for end in reversed(light.interval)])


def test_of_very_many_values_the_most_frequent_are_apart():
    rng = np.random.default_rng(5)
    values = [f"v{i:04}" for i in rng.permutation(np.repeat(np.arange(3000), np.where(np.arange(3000) < 40, 3, 1)))]
    names, codes = (one := slices.coded(pl.Series("path", values))).names, one.codes
    # 40 are there three times; of those there once the first ten by their text.
    assert sorted(names) == sorted([*(f"v{i:04}" for i in range(50)), slices.OTHER])
    assert [names[code] for code in codes] == [v if v < "v0050" else slices.OTHER for v in values]


def test_planted_slices_are_found_and_alone():
    for seed, share in ((0, 0.01), (1, 0.03), (2, 0.1)):
        frame = data(20_000, seed)
        rng = np.random.default_rng(1000 + seed)
        bad = rng.uniform(size=frame.height) < share
        frame = frame.with_columns(
            pl.Series("weather", np.where(bad, "snow", "clear")),
            pl.Series("loss", frame["loss"].to_numpy() + 1.5 * bad),
        )
        found = slices.find_slices(frame, "loss", ["time", "camera", "label", "brightness", "weather"])
        first = found.slices[0]
        worse = [part for part in found.slices if part.difference > 0]
        assert [dict(part.facts) for part in worse] == [{"weather": "snow"}]
        part = worse[0]
        assert part.n == bad.sum()
        assert part.mean == pytest.approx(frame["loss"].to_numpy()[bad].mean())
        assert part.difference == pytest.approx(part.mean - frame["loss"].to_numpy()[~bad].mean())
        assert part.interval[0] < 1.5 < part.interval[1]
        assert sorted(part.rows.tolist()) == np.flatnonzero(bad).tolist()
        assert first.share in (part.share, pytest.approx(1 - part.share))
        assert found.explained > 0


def test_a_pair_of_facts_is_found_where_neither_alone_tells():
    frame = data(30_000, 5)
    bad = ((frame["time"] == "night") & (frame["label"] == 3)).to_numpy()
    frame = frame.with_columns(pl.Series("loss", frame["loss"].to_numpy() + 2.0 * bad))
    found = slices.find_slices(frame, "loss", ["time", "camera", "label", "brightness"])
    assert {"time": "night", "label": "3"} in [dict(part.facts) for part in found.slices]


def test_what_differs_only_by_contrast_is_left_out():
    rng = np.random.default_rng(7)
    source = rng.integers(0, 10, 40_000)
    frame = pl.DataFrame({"source": source, "loss": rng.exponential(size=40_000) + 1.0 * (source == 4)})
    found = slices.find_slices(frame, "loss", ["source"])
    assert [dict(part.facts) for part in found.slices] == [{"source": "4"}]
    assert found.explained == 9


def test_what_is_not_told_of_explains_nothing():
    """Nearly the same samples by two facts: the larger group alone may be chance, the smaller one with it not."""
    for seed, inner in ((145, {"a": "old"}), (275, {"a": "old"}), (398, {"b": "no"})):
        rng, n = np.random.default_rng(seed), 400
        old = rng.uniform(size=n) < 0.2
        yes = old.copy()
        yes[rng.choice(np.flatnonzero(~old), 8, replace=False)] = True
        group, other = rng.choice(list("pqrs"), n), rng.choice(list("xyz"), n)
        loss = rng.exponential(size=n) + 0.35 * old + 1.2 * (group == "p")
        told = {"a": np.where(old, "old", "new"), "b": np.where(yes, "yes", "no"), "g": group, "c": other}
        found = slices.find_slices(pl.DataFrame({**told, "loss": loss}), "loss", list(told))
        facts = [dict(part.facts) for part in found.slices]
        assert {"g": "p"} in facts
        assert facts == [{"g": "p"}, inner]
        chosen = old if "a" in inner else ~yes
        mine = found.slices[1]
        assert mine.difference == pytest.approx(loss[chosen].mean() - loss[~chosen].mean())


def test_of_slices_that_hold_the_same_samples_the_plainest_is_told():
    """Facts recorded of one group alone hold it once more, singly and in pairs, apart by rounding alone."""
    n_found = 0
    for seed in range(12):
        rng, n = np.random.default_rng(seed), 600
        fog = rng.uniform(size=n) < 0.5
        odd = np.flatnonzero(~fog)[0]
        told = {
            "again": ["known" if one else None for one in fog],
            "cam": rng.choice(list("abc"), n),
            "note": ["seen" if i == odd else None for i in range(n)],
            "weather": np.where(fog, "fog", "sun"),
        }
        loss = rng.gamma(1, 0.4, n) + 0.14 * fog
        found = slices.find_slices(pl.DataFrame({**told, "loss": loss}), "loss", list(told))
        sets = [tuple(part.rows.tolist()) for part in found.slices]
        assert len(sets) == len(set(sets))
        whole = [part.facts for part in found.slices if part.n in (fog.sum(), n - fog.sum())]
        assert all(part in ({"again": "known"}, {"weather": "sun"}) for part in whole)
        n_found += len(whole)
    assert n_found


def test_shuffled_data_has_none():
    false = 0
    for seed in range(200):
        found = slices.find_slices(data(600, seed), "loss", ["time", "camera", "label", "brightness"])
        false += bool(found.slices)
    assert false <= 0.05 * 200 + 2 * np.sqrt(0.05 * 0.95 * 200)  # two standard errors of a rate of 5 %


def test_values_missing_and_many():
    rng = np.random.default_rng(8)
    source = [f"s{i % 98}" if i % 2 else f"rare{i % 1000}" for i in range(6000)]
    missing = rng.uniform(size=6000) < 0.05
    frame = pl.DataFrame(
        {
            "source": [None if gone else name for gone, name in zip(missing, source, strict=True)],
            "loss": rng.normal(size=6000) + 1.0 * missing + 0.8 * (np.arange(6000) % 2 == 0),
        }
    ).with_columns(loss=pl.when(pl.int_range(pl.len()) % 10 == 3).then(np.nan).otherwise("loss"))
    found = slices.find_slices(frame, "loss", ["source"])
    by_name = {part.facts["source"]: part for part in found.slices}
    used = np.arange(6000) % 10 != 3
    assert by_name[slices.MISSING].n == (missing & used).sum()
    assert by_name[slices.OTHER].mean == pytest.approx(frame["loss"].filter(by_rare(frame)).mean())
    assert slices.find_slices(frame.head(20), "loss", ["source"]) == slices.Found((), 0, 0, 0)


def test_a_path_of_every_sample_makes_no_slice():
    """What differs is the camera: "the other paths" is no group, alone or with the camera."""
    rng, n = np.random.default_rng(3), 400
    camera = np.arange(n) % 4
    frame = pl.DataFrame(
        {
            "path": [f"pictures/{i:05d}.png" for i in range(n)],
            "camera": [f"c{one}" for one in camera],
            "loss": rng.normal(size=n) + 2.0 * (camera == 1),
        }
    )
    found = slices.find_slices(frame, "loss", ["path", "camera"])
    assert found.names == ("path",)
    assert found.others == {}
    assert {tuple(part.facts) for part in found.slices} == {("camera",)}
    assert found.slices[0].facts == {"camera": "c1"}
    twice = frame.with_columns(path=pl.col("path").gather(np.maximum(np.arange(n), 1)))
    assert slices.find_slices(twice, "loss", ["path", "camera"]).names == ()


def by_rare(frame: pl.DataFrame) -> pl.Series:
    return (frame["source"].str.starts_with("rare") & frame["loss"].is_finite()).fill_null(False)


@pytest.mark.parametrize("kind", [pl.Date, pl.Datetime("us", "UTC")])
def test_dates_go_by_fifths_that_end_at_dates_there_are(kind):
    days = (
        pl.Series("day", range(100), dtype=pl.Int32).cast(pl.Date).cast(kind).sample(fraction=1, shuffle=True, seed=3)
    )
    found = slices.coded(pl.concat([days, pl.Series("day", [None], dtype=kind)]))
    ordered = sorted(days)
    assert found.names[0] == f"up to {ordered[19]}"
    assert found.names[1:5] == [*(f"{ordered[k]} to {ordered[k + 19]}" for k in (20, 40, 60)), f"above {ordered[79]}"]
    assert np.bincount(found.codes).tolist() == [20, 20, 20, 20, 20, 1]
    assert [found.codes[i] for i in range(100)] == [ordered.index(day) // 20 for day in days]


@pytest.mark.parametrize("far", [0.0, 8.0])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_chances_of_few_draws_are_those_of_all_ways_to_draw(kind: str, far: float) -> None:
    """What holds all of the largest values is one way of them all, and never likelier nor less likely."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=14) if kind == "normal" else draw.exponential(size=14)
    values[:5] += far
    n = 5
    means = np.array([values[list(chosen)].mean() for chosen in itertools.combinations(range(14), n)])
    found = chance.Draws(values).two_sided(np.full(len(means), float(n)), means)
    above = np.array([(means >= mean - 1e-12).mean() for mean in means])
    below = np.array([(means <= mean + 1e-12).mean() for mean in means])
    exact = 2 * np.where(means >= values.mean(), above, below)
    for end in (means.argmax(), means.argmin()):
        assert found[end] == pytest.approx(2 / math.comb(14, n), rel=1e-6)
    ratio = (found / exact)[exact < 0.2]
    assert np.median(ratio) == pytest.approx(1, abs=0.1)
    assert ratio.min() > 0.4
    assert ratio.max() < 4


def test_slices_that_explain_one_another_in_circles_are_told(monkeypatch):
    night = np.arange(400) % 2
    frame = pl.DataFrame({"night": night, "loss": 1.0 * night + np.random.default_rng(0).normal(size=400) / 10})
    alone = slices.find_slices(frame, "loss", ["night"])
    assert len(alone.slices) == 2
    # Each round finds the strongest explained by what is not told of itself.
    monkeypatch.setattr(slices, "_explained", lambda left, _: {left[0]: object()})
    found = slices.find_slices(frame, "loss", ["night"])
    assert [one.facts for one in found.slices] == [one.facts for one in alone.slices]
    assert (found.explained, found.looked_at) == (0, 2)


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64])
def test_fifths_of_whole_numbers_are_called_by_the_first_and_last_of_each(dtype: Any) -> None:
    column = pl.Series("age", [*range(18, 68), None], dtype=dtype)  # 50 ages: ten of each fifth
    names, codes = slices.by_quintile(column)
    assert names[:5] == ["up to 27", "28 to 37", "38 to 47", "48 to 57", "above 57"]
    assert [names[code] for code in codes] == [
        *(name for name in names[:5] for _ in range(10)),
        slices.MISSING,
    ]
    # Most are 3: a fifth of one value is called by it.
    few = pl.Series("n", [*[0] * 10, *[1] * 10, *[2] * 5, *[3] * 40, *range(4, 16)], dtype=dtype)
    names, codes = slices.by_quintile(few)
    found: dict[str, set[int]] = {}
    for value, code in zip(few.to_list(), codes, strict=True):
        found.setdefault(names[code], set()).add(int(value))
    assert found == {"up to 1": {0, 1}, "2 to 3": {2, 3}, "above 3": set(range(4, 16))}
    # What no sample has is in no name: tens alone, of which two make a fifth.
    tens = pl.Series("n", range(10, 110, 10), dtype=dtype)
    assert slices.by_quintile(tens)[0][:5] == ["up to 20", "30 to 40", "50 to 60", "70 to 80", "above 80"]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_chances_of_hits_and_misses_are_exact(share: float) -> None:
    draw = np.random.default_rng(0)
    values = np.where(draw.uniform(size=2000) < share, 3.0, 1.0)
    hits = int((values == 3).sum())
    n = draw.integers(2, 1990, 300)
    least, most = np.maximum(0, n - (2000 - hits)), np.minimum(n, hits)
    own = np.clip(stats.hypergeom(2000, hits, n).mean().round() + draw.integers(-12, 13, 300), least, most)
    found = chance.Draws(values).two_sided(n.astype(float), 1 + 2 * own / n)
    above, below = stats.hypergeom.sf(own - 1, 2000, hits, n), stats.hypergeom.cdf(own, 2000, hits, n)
    expected = np.minimum(1, 2 * np.where(own >= n * hits / 2000, above, below))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-280)
    assert (expected < 0.01).any()


def test_a_slice_of_wrong_predictions_is_no_likelier_than_its_chance() -> None:
    wrong = np.zeros(2000)
    wrong[:60] = 1.0
    camera = np.array(["rest"] * 2000, dtype=object)
    camera[40:140] = "new"  # 20 of 100 where 3 are expected
    found = slices.find_slices(pl.DataFrame({"wrong": wrong, "camera": camera}), "wrong", ["camera"]).slices
    for one in found:
        n, hits = one.n, round(one.n * one.mean)
        table = [[hits, n - hits], [60 - hits, 1940 - n + hits]]
        assert one.p >= stats.fisher_exact(table).pvalue
        assert (
            one.p >= 2 * min(stats.hypergeom.sf(hits - 1, 2000, 60, n), stats.hypergeom.cdf(hits, 2000, 60, n)) / 1.001
        )
    assert {tuple(one.facts.values()): one.n for one in found} == {("new",): 100, ("rest",): 1900}


@pytest.mark.parametrize("factor", [0.7, 1.0, 1e6])
def test_means_of_what_is_all_zero_are_zero(factor):
    camera = ["rear"] * 40 + ["front"] * 360
    values = np.where(np.array(camera) == "rear", 0.0, factor * (1 + np.arange(400) % 7 / 10))
    found = slices.find_slices(pl.DataFrame({"camera": camera, "value": values}), "value", ["camera"])
    told = {one.facts["camera"]: one for one in found.slices}
    assert (told["rear"].mean, told["front"].rest_mean) == (0.0, 0.0)
    assert told["front"].mean == values[40:].mean() == told["front"].difference == -told["rear"].difference
    expected = stats.ttest_ind(values[40:], values[:40], equal_var=False).confidence_interval()
    assert told["front"].interval == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_values_that_are_all_the_same_make_no_slice():
    frame = pl.DataFrame({"camera": ["rear"] * 40 + ["front"] * 367, "value": [0.1] * 407})
    assert not slices.find_slices(frame, "value", ["camera"]).slices


def test_a_worse_slice_is_never_left_out_for_a_better_one():
    rng = np.random.default_rng(1)
    camera, night = np.array(["A"] * 1000 + ["B"] * 1000), np.zeros(2000, bool)
    night[:32] = night[1000:1028] = True
    x = rng.gamma(2, 0.2, 2000) + 0.25 * (camera == "B")
    frame = pl.DataFrame({"camera": camera, "light": np.where(night, "night", "day"), "loss": x})
    told = [dict(one.facts) for one in slices.find_slices(frame, "loss", ["camera", "light"]).slices]
    assert {"light": "night"} not in told
    worse = frame.with_columns(loss=pl.Series(x + 4.0 * (night & (camera == "B"))))
    found = slices.find_slices(worse, "loss", ["camera", "light"])
    told = [dict(one.facts) for one in found.slices if one.difference > 0]
    assert {"light": "night"} in told  # night by camera B has 28 samples, too few for a slice of its own
    # Rain is worse since the rear camera sees nearly half of it; the better front camera has more, and hides nothing.
    place = np.array(["front"] * 1800 + ["rear"] * 200)
    rain = np.concatenate([np.arange(1800) % 15 == 0, np.arange(200) % 2 == 0])
    x = rng.gamma(2, 0.2, 2000) + 3.0 * (place == "rear")
    frame = pl.DataFrame({"camera": place, "weather": np.where(rain, "rain", "dry"), "loss": x})
    found = slices.find_slices(frame, "loss", ["camera", "weather"])
    assert [dict(one.facts) for one in found.slices if one.difference > 0] == [{"camera": "rear"}, {"weather": "rain"}]
    # Beside what is better and of more weight, only a few are left of the rest, which are by far the worst of all.
    for sign in (1, -1):
        rng = np.random.default_rng(0)
        old, bad = np.arange(360) % 4 == 0, np.isin(np.arange(360), range(1, 41, 5))
        x = rng.gamma(2, 0.05, 360) + 0.6 * old + 5.0 * bad
        told = {"camera": np.where(old, "old", "new"), "mistake": np.where(bad, "planted", "none")}
        frame = pl.DataFrame({**told, "value": sign * x})
        for by in (["camera"], ["camera", "mistake"]):
            found = slices.find_slices(frame, "value", by, high_is_good=sign < 0)
            (worse,) = [one for one in found.slices if one.difference * sign > 0]
            assert (dict(worse.facts), worse.n) == ({"camera": "old"}, 90)
            assert worse.mean == pytest.approx(sign * x[old].mean())
