"""Calibration against plain Python, and scores of probabilities against scikit-learn."""

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

from xaicli.diagnosis import calibration as room


def by_hand(p, right, bins):
    rows = sorted(zip(p, right, strict=True), key=lambda row: row[0])
    size, more = divmod(len(rows), bins)
    gaps, at = [], 0
    for number in range(bins):
        n = size + (number < more)
        part = rows[at : at + n]
        at += n
        gaps.append((n, abs(sum(r for _, r in part) / n - sum(q for q, _ in part) / n)))
    return sum(n * gap for n, gap in gaps) / len(rows), max(gap for _, gap in gaps)


def test_errors_by_hand():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.3, 1, 1003)
    right = (rng.uniform(size=1003) < p**2).astype(float)
    found = room.calibration(p, right)
    assert found is not None
    ece, mce = by_hand(p.tolist(), right.tolist(), 15)
    assert found.ece == pytest.approx(ece)
    assert found.mce == pytest.approx(mce)
    assert [n for n, _, _ in found.bins] == [67] * 13 + [66] * 2
    assert found.over_confidence == pytest.approx(p.mean() - right.mean())
    assert found.ece_interval[0] <= found.ece <= found.ece_interval[1]
    assert found.over_confidence > 0.1


def test_rows_that_cannot_be_judged_are_left_out():
    found = room.calibration(np.array([0.9, np.nan, 0.8, 0.7]), np.array([1.0, 1.0, np.nan, 0.0]))
    assert found is not None
    assert found.n == 2
    assert found.bins == ((1, 0.7, 0.0), (1, 0.9, 1.0))
    assert room.calibration(np.array([np.nan]), np.array([1.0])) is None


def test_interval_of_many_rows_is_that_of_resampled_ones(monkeypatch):
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1, 30_000)
    right = (rng.uniform(size=30_000) < p - 0.1).astype(float)
    limit = room.calibration(p, right)
    monkeypatch.setattr(room, "_RESAMPLED_ROWS", 10**9)
    exact = room.calibration(p, right)
    assert limit is not None
    assert exact is not None
    assert limit.ece_interval == pytest.approx(exact.ece_interval, abs=1e-3)
    assert room.calibration(p, right, seed=3) == room.calibration(p, right, seed=3)


def test_interval_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(40):
        p = rng.uniform(0.6, 0.9, 400)
        right = (rng.uniform(size=400) < p - 0.25).astype(float)
        found = room.calibration(p, right, seed=int(rng.integers(1000)))
        assert found is not None
        hits += found.ece_interval[0] <= 0.25 <= found.ece_interval[1]
    assert hits >= 33


def test_probability_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 500)
    logits = rng.normal(size=(500, 4)).round(1) + 1.5 * np.eye(4)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = room.probability_scores(p, y)
    assert found is not None
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p))
    assert found.brier == pytest.approx(((p - np.eye(4)[y]) ** 2).sum(1).mean())
    for c in range(4):
        assert found.auroc[c] == pytest.approx(metrics.roc_auc_score(y == c, p[:, c]))
        assert found.average_precision[c] == pytest.approx(metrics.average_precision_score(y == c, p[:, c]))


def test_degenerate_probabilities():
    found = room.probability_scores(np.array([[0.9, 0.1], [0.8, 0.2], [np.nan, 1.0]]), np.array([0, 0, 1]))
    assert found is not None
    assert found.n == 2
    assert np.isnan(found.auroc).all()
    assert found.average_precision[0] == 1
    assert np.isnan(found.average_precision[1])
    assert room.probability_scores(np.array([[1.0, 0.0]]), np.array([-100])) is None


def test_samples_of_one_probability_are_in_no_order():
    p = np.full(300, 0.95)
    right = np.ones(300)
    right[-60:] = 0  # the ids of one label, say, come last
    found = room.calibration(p, right)
    assert found is not None
    assert found.ece == pytest.approx(0.15)
    assert found.mce == pytest.approx(0.15)
    assert [share for _, _, share in found.bins] == pytest.approx([0.8] * 15)
    error = 1.96 * np.sqrt(0.8 * 0.2 / 300)
    assert found.ece_interval == pytest.approx((0.15 - error, 0.15 + error), abs=0.01)

    rng = np.random.default_rng(4)
    p = rng.choice([0.6, 0.7, 0.8, 0.9, 1.0], 2000, p=[0.1, 0.1, 0.1, 0.2, 0.5])
    right = (rng.uniform(size=2000) < 0.8).astype(float)
    shuffled = rng.permutation(2000)
    one, other = room.calibration(p, right), room.calibration(p[shuffled], right[shuffled])
    assert one is not None
    assert other is not None
    assert one.ece == pytest.approx(other.ece)
    assert np.array(one.bins) == pytest.approx(np.array(other.bins))
    # What the bins of random orders have on average, bin by bin.
    shares = []
    for _ in range(400):
        order = np.lexsort((rng.uniform(size=2000), p))
        shares.append([part.mean() for part in np.array_split(right[order], 15)])
    assert [share for _, _, share in one.bins] == pytest.approx(np.mean(shares, axis=0), abs=0.01)


@pytest.mark.parametrize("rows", [400, 40_000])
def test_interval_of_samples_of_one_probability_is_that_of_their_share(rows):
    right = np.zeros(rows)
    right[: rows * 7 // 10] = 1
    found = room.calibration(np.full(rows, 0.9), right)
    assert found is not None
    error = 1.96 * np.sqrt(0.3 * 0.7 / rows)
    assert found.ece_interval == pytest.approx((0.2 - error, 0.2 + error), rel=0.05)


def test_log_loss_of_labels_given_next_to_no_probability():
    at_label = np.array([1e-12, 0.5, 1e-20])
    p = np.column_stack([at_label, 1 - at_label])
    half = p.astype(np.float16).astype(np.float64)
    found = room.probability_scores(half, np.zeros(3, int), at_label)
    assert found is not None
    assert found.log_loss == pytest.approx(-np.log(at_label).mean())
    assert found.n_clipped == 0
    blind = room.probability_scores(half, np.zeros(3, int))
    assert blind is not None
    assert blind.n_clipped == 2
    assert blind.log_loss == pytest.approx(metrics.log_loss(np.zeros(3), half.astype(np.float32), labels=[0, 1]))


def test_the_calibration_error_of_a_label_has_an_interval_that_holds_its_truth():
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(20):
        sure = np.repeat([0.55, 0.65, 0.75, 0.85, 0.95], 60)
        right = rng.random(300) < sure - 0.2  # too sure by 0.2, in every bin
        frame = pl.DataFrame({"prediction": [1] * 300, "top_prob": sure, "correct": right})
        (row,) = room.by_prediction(frame).iter_rows(named=True)
        assert row["ece_low"] <= row["ece"] <= row["ece_high"]
        shuffled = room.by_prediction(frame.sample(fraction=1.0, shuffle=True, seed=1)).row(0, named=True)
        for name in ("ece", "ece_low", "ece_high"):
            assert shuffled[name] == pytest.approx(row[name])
        held += row["ece_low"] <= 0.2 <= row["ece_high"]
    assert held >= 17


def test_intervals_of_many_labels_are_those_of_plain_resampling():
    """2,000 resamples of each label's rows, which keep their bins, by plain numpy."""
    rng = np.random.default_rng(4)
    labels, n = 40, 800
    sure = rng.beta(5, 2, (labels, n)).astype(np.float32)
    right = rng.random((labels, n)) < np.clip(sure - np.arange(labels)[:, None] % 5 * 0.05, 0, 1)
    sure[1, :200] = 1.0  # one probability over several bins is looked at by itself
    frame = pl.DataFrame(
        {"prediction": np.repeat(np.arange(labels), n), "top_prob": sure.ravel(), "correct": right.ravel()}
    )
    found = {row["prediction"]: row for row in room.by_prediction(frame).iter_rows(named=True)}
    assert len(found) == labels
    off = []
    for label in (0, 4, 8, 12, 37):
        order = np.argsort(sure[label], kind="stable")
        error, bins = (right[label] - sure[label].astype(float))[order], np.array_split(np.arange(n), 15)
        assert found[label]["ece"] == pytest.approx(sum(abs(error[own].sum()) for own in bins) / n)
        bin_of = np.repeat(np.arange(15), [len(own) for own in bins])
        drawn = [np.abs(np.bincount(bin_of[at], error[at], 15)).sum() / n for at in rng.integers(0, n, (2000, n))]
        low, high = np.quantile(drawn, [0.025, 0.975])
        off += [(found[label]["ece_low"] - low) / (high - low), (found[label]["ece_high"] - high) / (high - low)]
    assert np.abs(off).max() < 0.08
    assert abs(np.mean(off)) < 0.04
    tied = room.calibration(sure[1], right[1])
    assert found[1]["ece"] == pytest.approx(tied.ece)
    assert found[1]["ece_high"] == pytest.approx(tied.ece_interval[1], abs=0.01)


def test_intervals_of_many_labels_agree_with_those_of_one():
    rng = np.random.default_rng(9)
    sure = rng.uniform(0.3, 1, 3000)
    right = rng.random(3000) < sure**2
    one = pl.DataFrame({"prediction": [0] * 3000, "top_prob": sure, "correct": right})
    many = pl.concat([one.with_columns(prediction=pl.lit(label)) for label in range(30)])
    alone = room.by_prediction(one).row(0, named=True)
    among = room.by_prediction(many).row(0, named=True)
    assert alone["ece"] == pytest.approx(among["ece"], rel=1e-12)
    for end in ("ece_low", "ece_high"):
        assert among[end] == pytest.approx(alone[end], abs=0.01)
