"""What is told of each task, against scikit-learn, scipy and plain Python."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

from xaicli.diagnosis import label_sets, residuals, tokens
from xaicli.diagnosis.thresholds import SHOWN, Thresholds


def test_figures_of_residuals_against_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.normal(50, 20, 400)
    prediction = label + rng.normal(1.5, 4, 400)
    found = residuals.residual_figures(label, prediction)
    assert found["n"] == 400
    assert found["bias"] == pytest.approx((label - prediction).mean())
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(label, prediction))
    assert found["rmse"] == pytest.approx(metrics.mean_squared_error(label, prediction) ** 0.5)
    assert found["median_abs_error"] == pytest.approx(metrics.median_absolute_error(label, prediction))
    assert found["r2"] == pytest.approx(metrics.r2_score(label, prediction))
    assert found["q95"] == pytest.approx(np.percentile(label - prediction, 95))
    assert residuals.residual_figures(np.full(3, 2.0), np.array([1.0, 2.0, 3.0]))["r2"] is None
    assert residuals.residual_figures(np.zeros(0), np.zeros(0)) == {
        "n": 0,
        **dict.fromkeys(("bias", "mae", "rmse", "median_abs_error", "r2", *residuals.QUANTILES)),
    }


def test_errors_by_fifth_of_the_label_and_by_fact():
    rng = np.random.default_rng(1)
    label = rng.permutation(1000).astype(float)
    camera = np.where(np.arange(1000) % 4 == 0, "b", "a")
    prediction = label + np.where(label >= 800, 30.0, 1.0) + np.where(camera == "b", 5.0, 0.0)
    label[3], prediction[4] = np.nan, np.inf
    frame = pl.DataFrame({"sample_id": range(1000), "label": label, "prediction": prediction, "camera": camera})
    rows = list(residuals.grouped(frame, ["camera"]))
    known = np.isfinite(label) & np.isfinite(prediction)
    fifths = [row for row in rows if row["column"] == "label"]
    assert [row["n"] for row in fifths] == pytest.approx([known.sum() / 5] * 5, abs=1)
    assert fifths[-1]["mae"] > 29 > 5 > fifths[0]["mae"]
    for value in "ab":
        own = known & (camera == value)
        row = next(row for row in rows if row["column"] == "camera" and row["value"] == value)
        assert (row["n"], row["mae"]) == (own.sum(), pytest.approx(np.abs(label - prediction)[own].mean()))
    first = residuals.worst(frame, 5)
    order = sorted(np.flatnonzero(known), key=lambda i: (-abs(label[i] - prediction[i]), i))
    assert [row["sample_id"] for row in first] == order[:5]


def test_many_points_are_the_farthest_and_every_kth():
    label = np.zeros(10_000)
    frame = pl.DataFrame({"sample_id": range(10_000), "label": label, "prediction": np.arange(10_000.0)})
    shown, total = residuals.points(frame)
    assert (total, len(shown) <= residuals.POINTS) == (10_000, True)
    assert [row["sample_id"] for row in shown[:200]] == list(range(9999, 9799, -1))


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_against_scikit_learn(ties):
    rng = np.random.default_rng(2)
    positive = rng.uniform(size=700) < 0.3
    score = np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    score = score.round(1) if ties else score
    found = Thresholds.of(score, positive)
    assert found.auroc == pytest.approx(metrics.roc_auc_score(positive, score))
    assert found.average_precision == pytest.approx(metrics.average_precision_score(positive, score))
    fpr, tpr, thresholds = metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, fpr[1:])
    np.testing.assert_allclose(found.recall, tpr[1:])
    np.testing.assert_allclose(found.threshold, thresholds[1:])
    precision, recall, _ = metrics.precision_recall_curve(positive, score)
    np.testing.assert_allclose(found.precision[::-1], precision[:-1])
    np.testing.assert_allclose(found.recall[::-1], recall[:-1])
    best = found.best()
    assert found.f1[best] == pytest.approx(
        max(metrics.f1_score(positive, score >= t) for t in np.unique(score)), abs=1e-12
    )
    at = found.row(found.at(0.5))
    tn, fp, fn, tp = metrics.confusion_matrix(positive, score >= 0.5).ravel()
    assert (at["tn"], at["fp"], at["fn"], at["tp"]) == (tn, fp, fn, tp)
    assert at["accuracy"] == pytest.approx(((score >= 0.5) == positive).mean())
    shown = found.shown()
    assert len(shown) <= SHOWN
    assert {0, best, len(found.threshold) - 1} <= set(shown)


def test_thresholds_of_one_kind_alone():
    found = Thresholds.of(np.array([0.2, 0.9]), np.array([True, True]))
    assert np.isnan(found.auroc)
    assert found.row(found.at(0.95)) == {
        "threshold": None,
        "tp": 0,
        "fp": 0,
        "fn": 2,
        "tn": 0,
        "accuracy": 0.0,
        **dict.fromkeys(("precision", "recall", "false_positive_rate", "f1"), 0.0),
    }


def test_classes_taken_for_one_another():
    frame = pl.DataFrame(
        {
            "label": [[0, 1], [0], [2], [], None, [0, 2]],
            "prediction": [[1, 2], [2], [2], [1], [1], [0, 1]],
        }
    )
    rows = label_sets.swapped(frame).rows()
    # 0 is missed twice, both times where 2 is added; 2 is missed once where 1 is added.
    assert rows == [(0, 2, 2, 2, 1.0), (2, 1, 1, 1, 1.0)]


def test_planted_wrong_classes_are_found_first():
    rng = np.random.default_rng(3)
    truth = rng.uniform(size=(800, 6)) < 0.3
    flips = {(int(s), int(c)) for s, c in zip(rng.choice(800, 40, replace=False), rng.integers(0, 6, 40), strict=True)}
    label = truth.copy()
    for s, c in flips:
        label[s, c] = not label[s, c]

    def sets(table):
        return [np.flatnonzero(row).tolist() for row in table]

    places = [
        pl.DataFrame(
            {
                "sample_id": np.arange(800),
                "label": sets(label),
                "prediction": sets(truth ^ (rng.uniform(size=truth.shape) < 0.15)),
            },
            schema_overrides={"label": pl.List(pl.Int32), "prediction": pl.List(pl.Int32)},
        )
        for _ in range(8)
    ]
    found = label_sets.doubted(places).head(40)
    hits = {(row["sample_id"], row["class"]) for row in found.to_dicts()}
    assert len(hits & flips) >= 38
    for row in found.to_dicts():
        assert row["doubt"] == ("extra" if label[row["sample_id"], row["class"]] else "missing")
        said = sum(row["class"] in place["prediction"][row["sample_id"]] for place in places)
        assert row["times"] == (8 - said if row["doubt"] == "extra" else said)
    assert label_sets.doubted([]).is_empty()


def test_sequences_token_by_token():
    losses = [[1.0, 2.0, 3.0], [5.0], [], None, [0.5, 0.5, 0.5, 8.5]]
    frame = pl.DataFrame(
        {
            "sample_id": ["a", "b", "c", "d", "e"],
            "loss": [2.0, 5.0, None, 4.0, 2.5],
            "n_tokens": [3.0, 1.0, 0.0, 2.0, 4.0],
            "token_accuracy": [1.0, 0.0, None, 0.5, 0.75],
            "token_losses": losses,
        },
        schema_overrides={"token_losses": pl.List(pl.Float32)},
    )
    found = tokens.sequence_figures(frame)
    assert (found["n"], found["tokens"]) == (4, 10)
    assert found["loss"] == pytest.approx((6 + 5 + 8 + 10) / 10)
    assert found["perplexity"] == pytest.approx(np.exp(2.9))
    assert found["accuracy"] == pytest.approx((3 + 0 + 1 + 3) / 10)
    places = tokens.by_place(frame["token_losses"])
    assert [(row["first"], row["n"], row["loss"]) for row in places] == [
        (0, 3, pytest.approx(6.5 / 3)),
        (1, 2, 1.25),
        (2, 2, 1.75),
        (3, 1, 8.5),
    ]
    texts = {"a": "the the cat", "b": json.dumps(["the"]), "e": "too few"}
    words, unfit = tokens.with_words(frame, texts)
    assert words == {"a": [("the", 1.0), ("the", 2.0), ("cat", 3.0)], "b": [("the", 5.0)]}
    assert unfit == 1
    assert tokens.worst_tokens(list(words.values())).to_dicts() == [
        {"token": "the", "n": 3, "loss": pytest.approx(8 / 3)}
    ]


def test_long_texts_are_told_in_parts():
    long = pl.Series([list(map(float, range(1000)))], dtype=pl.List(pl.Float32))
    rows = tokens.by_place(long)
    assert len(rows) <= tokens.PLACES
    assert rows[0] == {"first": 0, "last": 15, "n": 16, "loss": 7.5}
    assert sum(row["n"] for row in rows) == 1000
    assert rows[-1]["last"] == 999
