"""Histories, their JSON, and several of them as mean and spread."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaicli.summary import Summary, ValWithError, average_summaries


def summary_of(name: str | int | None, **modes: Any) -> Summary:
    summary = Summary(name)
    for mode, keys in modes.items():
        for key, steps in keys.items():
            summary.history[mode][key].update(steps)
    return summary


@pytest.mark.parametrize(("name", "named"), [(None, False), ("", False), ("a", True), (0, True), (3, True)])
def test_a_summary_is_true_if_it_is_named(name: str | int | None, named: bool) -> None:
    assert bool(Summary(name)) is named


def test_merge_lets_the_other_win_step_by_step() -> None:
    one = summary_of("a", train={"loss": {1: 1.0, 2: 2.0}}, eval={"acc": {2: 0.5}})
    one.merge(summary_of("b", train={"loss": {2: 9.0, 3: 3.0}}, test={"acc": {3: 0.1}}))
    assert one.name == "a"
    assert one.history == {
        "train": {"loss": {1: 1.0, 2: 9.0, 3: 3.0}},
        "eval": {"acc": {2: 0.5}},
        "test": {"acc": {3: 0.1}},
    }


def test_a_value_with_error_compares_and_adds_by_its_middle() -> None:
    low, high = ValWithError(0, 1, 5), ValWithError(1.5, 2, 2.5)
    assert low < high < 3
    assert max(high, low) is high
    assert low == 1
    assert low == ValWithError(-9, 1, 9)
    assert hash(low) == hash(1)
    assert low + high == 3
    assert sum([low, high]) == 3
    assert 1 + low == low + 1 == 2
    assert float(high) == 2.0


def test_none_averages_to_an_empty_summary() -> None:
    merged = average_summaries("all", [])
    assert merged.name == "all"
    assert merged.history == {}


def test_one_is_copied_not_renamed() -> None:
    one = summary_of("one", train={"loss": {1: 1.0}})
    merged = average_summaries("all", [one])
    assert (one.name, merged.name) == ("one", "all")
    merged.history["train"]["loss"][1] = 5.0
    assert one.history["train"]["loss"][1] == 1.0


def test_several_average_to_mean_and_sample_spread() -> None:
    runs = [summary_of(i, train={"loss": {1: value, 2: 4.0}, "only": {7: 1.0}}) for i, value in enumerate((1.0, 3.0))]
    del runs[1].history["train"]["only"]
    merged = average_summaries("all", runs).history["train"]
    band = merged["loss"][1]
    assert (band.y_min, band.y, band.y_max) == pytest.approx((2 - math.sqrt(2), 2, 2 + math.sqrt(2)))
    assert merged["loss"][2] == 4.0
    assert type(merged["loss"][2]) is float
    assert merged["only"] == {7: 1.0}


def test_epochs_are_not_averaged_and_texts_count_by_their_only_number() -> None:
    runs = [
        summary_of(
            "a",
            eval={"epoch": {1: 1}, "time": {1: "-2.5 sec"}, "matrix": {1: "[1 2]"}, "acc": {1: ValWithError(0, 1, 9)}},
        ),
        summary_of("b", eval={"epoch": {1: 1}, "time": {1: "-1e1"}, "matrix": {1: "[3 4]"}, "acc": {1: np.float32(3)}}),
    ]
    merged = average_summaries("all", runs).history["eval"]
    assert set(merged) == {"time", "acc"}
    assert merged["time"][1].y == -6.25
    assert merged["acc"][1].y == 2


def test_values_that_are_not_finite_are_left_out() -> None:
    runs = [summary_of(i, train={"loss": {1: value}}) for i, value in enumerate((math.nan, 1.0, math.inf, 1.0))]
    assert average_summaries("all", runs).history["train"]["loss"] == {1: 1.0}


def test_test_values_pool_at_the_largest_step() -> None:
    runs = [summary_of("a", test={"acc": {10: 0.5}}), summary_of("b", test={"acc": {20: 0.7}})]
    merged = average_summaries("all", runs).history["test"]["acc"]
    assert list(merged) == [20]
    assert merged[20].y == pytest.approx(0.6)


VALUES = st.floats(-1e6, 1e6)
HISTORIES = st.dictionaries(
    st.sampled_from(["train", "eval"]),
    st.dictionaries(st.sampled_from(["loss", "acc"]), st.dictionaries(st.integers(0, 5), VALUES, max_size=4)),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(HISTORIES, min_size=2, max_size=4))
def test_averages_equal_plain_python(histories: list[dict[str, dict[str, dict[int, float]]]]) -> None:
    merged = average_summaries("all", [summary_of(i, **history) for i, history in enumerate(histories)])
    keys = {(m, k, s) for h in histories for m, ks in h.items() for k, steps in ks.items() for s in steps}
    assert {(m, k, s) for m, k, s, _ in merged.rows()} == keys
    for mode, key, step in keys:
        values = [h[mode][key][step] for h in histories if step in h.get(mode, {}).get(key, {})]
        found = merged.history[mode][key][step]
        assert float(found) == pytest.approx(statistics.fmean(values))
        if isinstance(found, ValWithError):
            assert found.y_max - found.y_min == pytest.approx(2 * statistics.stdev(values), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(st.none(), st.text(max_size=3), st.integers()),
    st.dictionaries(
        st.one_of(st.none(), st.sampled_from(["train", "test"])),
        st.dictionaries(
            st.text(max_size=4),
            st.dictionaries(
                st.integers(-3, 2**53),
                st.one_of(st.floats(allow_nan=False), st.integers(), st.text(max_size=4), st.booleans(), st.none()),
                min_size=1,
                max_size=3,
            ),
            min_size=1,
            max_size=2,
        ),
        max_size=3,
    ),
)
def test_json_gives_back_what_was_written(
    name: str | int | None, history: dict[str | None, dict[str, dict[int, object]]]
) -> None:
    summary = Summary(name)
    for mode, keys in history.items():
        for key, steps in keys.items():
            summary.history[mode][key].update(steps)
    text = json.dumps(summary.to_json(), allow_nan=False)
    again = Summary.from_json(json.loads(text))
    assert again == summary
    assert [type(row[3]) for row in again.rows()] == [type(row[3]) for row in summary.rows()]


def test_json_keeps_bands_and_non_finite_numbers() -> None:
    summary = summary_of("a", train={"loss": {1: ValWithError(-math.inf, 1.0, 2.0), 2: math.nan, 3: np.float32(0.5)}})
    again = Summary.from_json(json.loads(json.dumps(summary.to_json(), allow_nan=False))).history["train"]["loss"]
    assert (again[1].y_min, again[1].y, again[1].y_max) == (-math.inf, 1.0, 2.0)
    assert math.isnan(again[2])
    assert again[3] == 0.5


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"name": "a"},
        {"name": [], "values": []},
        {"name": "a", "values": [["train", "loss", 1]]},
        {"name": "a", "values": [["train", 5, 1, 2.0]]},
        {"name": "a", "values": [[{}, "loss", 1, 2.0]]},
        {"name": "a", "values": [["train", "loss", "x", 2.0]]},
        {"name": "a", "values": [["train", "loss", 1, {"y": 3}]]},
        {"name": "a", "values": [["train", "loss", 1, {"y_min": 1, "y": "x", "y_max": 3}]]},
        {"name": "a", "values": [["train", "loss", 1, {"number": {}}]]},
        {"name": "a", "values": [["train", "loss", 1, [2.0]]]},
        {"name": "a", "values": [["train", "loss", 1, 10**400]]},
        {"name": "a", "values": [["train", "loss", math.inf, 1.0]]},
        {"name": "a", "values": [["train", "loss", 2**63, 1.0]]},
        [],
    ],
)
def test_other_json_is_refused(facts: object) -> None:
    with pytest.raises(ValueError):
        Summary.from_json(facts)  # type: ignore[arg-type]
