"""Confusion counts and figures against scikit-learn."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

import xaicli
from xaicli.cli import main
from xaicli.diagnosis import confusion


def frame(label: list, prediction: list) -> pl.DataFrame:
    return pl.DataFrame({"label": label, "prediction": prediction})


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=60))
def test_figures_agree_with_scikit_learn(rows):
    y, p = (list(column) for column in zip(*rows, strict=True))
    counts = confusion.confusion_counts(frame(y, p))
    labels = sorted({*y, *p})
    assert (confusion.matrix(counts, labels) == metrics.confusion_matrix(y, p, labels=labels)).all()
    table = confusion.label_figures(counts)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, p, labels=labels, zero_division=0)
    assert table["label"].to_list() == labels
    for name, expected in {"precision": precision, "recall": recall, "f1": f1, "n": support}.items():
        np.testing.assert_allclose(table[name].to_numpy(), expected, atol=1e-12)
    found = confusion.overall_figures(counts, table)
    assert found is not None
    assert found.n == len(y)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(y, p))
    assert found.balanced_accuracy == pytest.approx(
        np.mean([np.mean([a == b for a, b in rows if a == label]) for label in set(y)])
    )
    assert found.macro_f1 == pytest.approx(metrics.f1_score(y, p, average="macro", zero_division=0))
    assert found.weighted_f1 == pytest.approx(metrics.f1_score(y, p, average="weighted", zero_division=0))
    assert found.mcc == pytest.approx(metrics.matthews_corrcoef(y, p), abs=1e-9)


def test_what_is_undefined_is_zero_and_said():
    table = confusion.label_figures(confusion.confusion_counts(frame(["a", "a", "b"], ["a", "c", "a"])))
    rows = {row["label"]: row for row in table.iter_rows(named=True)}
    assert rows["b"]["undefined"] == ["precision"]
    assert rows["b"]["precision"] == 0
    assert rows["c"]["undefined"] == ["recall"]
    assert rows["a"]["undefined"] == []


def test_rows_without_label_or_prediction_are_left_out():
    counts = confusion.confusion_counts(frame([1, None, 1, 0], [1, 1, None, 1]))
    assert counts.rows() == [(0, 1, 1), (1, 1, 1)]
    assert confusion.overall_figures(confusion.confusion_counts(frame([None], [1]))) is None


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (8, 10), (500, 1000), (1, 3)])
def test_wilson_interval_is_that_of_scipy(right, n):
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert confusion.wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_samples_tell_nothing():
    assert confusion.wilson(0, 0) == (0.0, 1.0)


def test_most_confused_pairs_first():
    counts = confusion.confusion_counts(frame([0, 0, 0, 1, 1, 2], [1, 1, 0, 2, 1, 2]))
    assert confusion.confused_pairs(counts).rows() == [(0, 1, 2, pytest.approx(2 / 3)), (1, 2, 1, 0.5)]
    assert confusion.confused_pairs(counts, top=1).height == 1


def test_labels_that_are_confused_stand_side_by_side():
    table = np.diag(np.full(6, 50))
    for a, b in ((0, 3), (3, 0), (1, 4), (4, 1), (2, 5), (5, 2)):
        table[a, b] = 20
    table[0, 1] = table[1, 2] = 1  # one chain holds the blocks together
    order = confusion.block_order(table)
    assert sorted(order) == list(range(6))
    places = {label: place for place, label in enumerate(order)}
    assert all(abs(places[a] - places[b]) == 1 for a, b in ((0, 3), (1, 4), (2, 5)))


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.UInt16, pl.Int64])
@pytest.mark.parametrize("step", [1, 30_000_000_000])
def test_classes_far_apart_are_counted_as_those_close_together(dtype: type[pl.DataType], step: int) -> None:
    if step > 1 and dtype != pl.Int64:
        pytest.skip("such classes need 64 bits")
    numbers = np.random.default_rng(3).integers(0, 9, (2, 500))
    pairs = [(int(a) * step, int(b) * step) for a, b in numbers.T]
    label, prediction = ([*ends, None, 3] for ends in zip(*pairs, strict=True))
    prediction[-1] = None
    both = pl.DataFrame({"label": label, "prediction": prediction}, schema={"label": dtype, "prediction": dtype})
    counts = confusion.confusion_counts(both)
    assert counts.rows() == sorted((*pair, n) for pair, n in Counter(pairs).items())
    assert counts.schema == {"label": dtype, "prediction": dtype, "n": pl.Int64}


def test_by_a_fact_in_a_spreadsheet(tmp_path, capsys):
    """50 values and samples without one are 50 values, each with its accuracy, counted by hand, in the CSV too."""
    n = 1000
    state = [f"s{i % 50:02}" if i % 100 else None for i in range(n)]
    right = np.arange(n) % 3 != 0
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(n), label=[0] * n, prediction=np.where(right, 0, 1), mode="eval", epoch=1)
        known = [i for i in range(n) if state[i] is not None]
        run.log_facts(known, state=[state[i] for i in known])
    command = ["confusion", str(tmp_path / "run"), "--by", "state", "--format", "csv", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    table = pl.read_csv(tmp_path / "out" / "confusion-by.csv")
    assert table.height == 51
    found = {row["value"]: (row["n"], row["accuracy"]) for row in table.iter_rows(named=True)}
    for value in (*sorted({one for one in state if one is not None}), None):
        of_value = [bool(right[i]) for i in range(n) if state[i] == value]
        name = "(missing)" if value is None else value
        assert found[name] == (len(of_value), pytest.approx(sum(of_value) / len(of_value))), name
    capsys.readouterr()
    assert main(["confusion", str(tmp_path / "run"), "--format", "csv", "-o", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "confusion-by.csv").exists()
