"""What `compare` joins and what it marks: stale values, labels by name or value, names and values apart."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli

LABELS = [0, 1, 0, 1]


def record(root: Path, epochs: Sequence[dict[str, Sequence[Any]]], names: Sequence[str] | None = None) -> Path:
    with xaicli.Run(root, label_names=names, task="classification") as run:
        for epoch, columns in enumerate(epochs, 1):
            run.log_samples(**columns, mode="eval", epoch=epoch, step=epoch)
    return root


def whole(ids: Sequence[int], predictions: Sequence[int], losses: Sequence[float]) -> dict[str, Sequence[Any]]:
    return {
        "sample_id": ids,
        "label": [LABELS[i] for i in ids],
        "prediction": predictions,
        "loss": losses,
    }


@pytest.fixture
def shrinking(tmp_path: Path) -> tuple[Path, Path]:
    """Sample 2 is absent from the last epoch of the first run, where it was wrong with 0.25 in the one before."""
    first = record(
        tmp_path / "first", [whole([0, 1, 2], [0, 1, 1], [0.5, 0.5, 0.25]), whole([0, 1], [1, 1], [1.0, 2.0])]
    )
    last = record(
        tmp_path / "last", [whole([0, 1, 2], [0, 1, 1], [0.5] * 3), whole([0, 1, 2], [0, 0, 0], [1.5, 2.0, 9.0])]
    )
    return first, last


def test_a_value_of_an_earlier_epoch_is_marked_and_counted(shrinking):
    result = xaicli.compare(*shrinking, max=9, min=9)
    told = json.loads(result.to_json())
    assert told["counts"]["stale"] == 1
    found = {(row["sample_id"], row["group"]): row for row in told["rows"] if row["kind"] == "sample"}
    assert {key: row["stale"] for key, row in found.items()} == {
        (2, "max"): [True, False],
        (0, "max"): [False, False],
        (2, "flipped"): [True, False],
        (0, "flipped"): [False, False],
        (1, "flipped"): [False, False],
    }
    assert (found[2, "max"]["values"], found[2, "max"]["correct"]) == ([0.25, 9.0], [False, True])
    assert (found[2, "max"]["label"], found[2, "max"]["name"]) == (0, "0")
    assert "stale in first" in result.html(no_images=True)


def test_paired_loss_and_accuracy_rest_on_the_same_samples(shrinking):
    paired = {row["metric"]: row for row in json.loads(xaicli.compare(*shrinking).to_json())["paired"]}
    loss, right = paired["loss"], paired["correct"]
    assert (loss["n"], loss["stale"], right["n"], right["stale"]) == (3, 1, 3, 1)
    assert loss["values"] == [(1.0 + 2.0 + 0.25) / 3, (1.5 + 2.0 + 9.0) / 3]
    # Right are sample 1 alone in the first run, 0 and 2 in the last.
    assert right["values"] == [1 / 3, 2 / 3]


def test_what_each_mean_is_of_stands_beside_it(tmp_path: Path) -> None:
    """The last pass of the last epoch, of each run its own; n counts finite values."""
    runs = [tmp_path / "a", tmp_path / "b"]
    for root, passes in zip(runs, ([1, 2], [3]), strict=True):
        with xaicli.Run(root) as run:
            for epoch, turns in enumerate(passes, 1):
                for turn in range(turns):
                    ids = [0, 1, 2, 3][: 4 - turn]
                    loss = [1.0, 2.0, math.nan, 8.0][: 4 - turn]
                    known = {"label": [i % 2 for i in ids], "loss": loss}
                    run.log_samples(sample_id=ids, mode="eval", epoch=epoch, step=epoch, eval_pass=turn, **known)
    result = xaicli.compare(*runs, max=0, min=0)
    rows = {row["label"]: row for row in json.loads(result.to_json())["rows"]}
    assert {label: (row["n"], row["epoch"], row["pass"]) for label, row in rows.items()} == {
        None: ([2, 2], [2, 1], [1, 2]),
        0: ([1, 1], [2, 1], [1, 2]),
        1: ([1, 1], [2, 1], [1, 2]),
    }
    assert rows[None]["values"] == [1.5, 1.5]
    page = result.html(no_images=True)
    assert "2, pass 1 | 1, pass 2" in page
    with_samples = json.loads(xaicli.compare(*runs).to_json())["rows"]
    assert all(row["n"] is row["epoch"] is row["pass"] is None for row in with_samples if row["kind"] == "sample")


def test_nothing_is_stale_where_all_samples_are_in_both_ends(tmp_path):
    runs = [record(tmp_path / name, [whole([0, 1], [0, 1], [0.5, 1.0])]) for name in ("a", "b")]
    told = json.loads(xaicli.compare(*runs).to_json())
    assert told["counts"]["stale"] == 0
    assert [row["stale"] for row in told["paired"]] == [0, 0]


def of_labels(*runs: Path, **select: Any) -> tuple[list[tuple[Any, str, list[float | None]]], list[str]]:
    told = json.loads(xaicli.compare(*runs, **select).to_json())
    rows = [(row["label"], row["name"], row["values"]) for row in told["rows"] if row["kind"] == "label"]
    return rows, [warning for warning in told["warnings"] if "label" in warning]


@pytest.fixture
def named(tmp_path: Path) -> dict[str, Path]:
    """The same samples; `swapped` counts its classes the other way round."""
    losses = [1.0, 2.0, 3.0, 6.0]
    one = whole([0, 1, 2, 3], [0, 1, 1, 1], losses)
    other = {**one, "label": [1, 0, 1, 0], "prediction": [1, 0, 0, 0]}
    return {
        "named": record(tmp_path / "named", [one], ["cat", "dog"]),
        "bare": record(tmp_path / "bare", [one]),
        "swapped": record(tmp_path / "swapped", [other], ["dog", "cat"]),
    }


def test_labels_are_joined_by_value_where_one_run_has_no_names(named):
    expected = [(0, "cat", [2.0, 2.0]), (1, "dog", [4.0, 4.0])]
    assert of_labels(named["named"], named["bare"]) == (expected, [])
    assert of_labels(named["bare"], named["named"]) == (expected, [])


def test_labels_are_joined_by_name_where_both_have_names(named):
    rows, warnings = of_labels(named["named"], named["swapped"])
    # The value is that of the last run.
    assert (sorted(rows), warnings) == ([(0, "dog", [4.0, 4.0]), (1, "cat", [2.0, 2.0])], [])


def test_two_labels_of_one_name_stay_apart(named):
    rows, _ = of_labels(named["named"], named["bare"], label_map="pet=0,pet=1")
    assert rows == [(0, "pet (0)", [2.0, 2.0]), (1, "pet (1)", [4.0, 4.0])]


def test_other_labels_are_told_of_labels_alone(tmp_path):
    one = whole([0, 1, 2, 3], [0, 1, 1, 1], [1.0, 2.0, 3.0, 6.0])
    a = record(tmp_path / "a", [one])
    b = record(tmp_path / "b", [{**one, "prediction": [1, 1, 1, 0]}])
    c = record(tmp_path / "c", [{**one, "label": [0, 1, 0, 0]}])
    assert not [said for said in of_labels(a, b, label_key="prediction")[1] if "have another label" in said]
    assert [said.partition(" of ")[0] for said in of_labels(a, c)[1]] == ["1"]


def test_a_table_of_a_comparison_has_label_and_name(named, tmp_path):
    (table,) = [
        path
        for path in xaicli.compare(named["named"], named["bare"]).save(tmp_path / "out", formats=["csv"])
        if path.name == "compare.csv"
    ]
    lines = table.read_text().splitlines()
    assert lines[0].split(",")[:6] == ["kind", "mode", "ds_id", "metric", "label", "name"]
    assert [line.split(",")[:6] for line in lines[2:4]] == [
        ["label", "eval", '""', "loss", "0", "cat"],
        ["label", "eval", '""', "loss", "1", "dog"],
    ]


def test_what_only_one_run_has_is_told(tmp_path: Path) -> None:
    def write(name: str, **sets: Sequence[int]) -> Path:
        with xaicli.Run(tmp_path / name) as run:
            for place, ids in sets.items():
                mode, ds_id = place.split("_")
                columns = {"label": [i % 2 for i in ids], "prediction": [i % 2 for i in ids], "loss": [0.5] * len(ids)}
                run.log_samples(sample_id=ids, **columns, mode=mode, ds_id=ds_id, epoch=2 - (ds_id == "x"), step=1)
        return tmp_path / name

    old = write("old", eval_x=range(20), eval_y=range(20), train_x=range(5))
    new = write("new", eval_x=range(4, 21))
    for runs in ((old, new), (new, old)):
        found = xaicli.compare(*runs, mode="all")
        told = json.loads(found.to_json())["warnings"]
        assert sorted(told) == sorted(
            [
                f"train x is not in {new}, and not compared",
                f"eval y is not in {new}, and not compared",
                f"4 of the 20 samples of eval x in {old} are not in {new}",
                f"1 of the 17 samples of eval x in {new} is not in {old}",
            ]
        )
        page = found.html(no_images=True)
        assert "eval y is not in" in page
        assert "4 of the 20 samples" in page
        selection = json.loads(found.to_json())["selection"]
        assert (selection["mode"], selection["ds_id"], selection["epoch"]) == (["eval"], ["x"], [1])
        assert "mode eval · data set x · metric loss" in page, "what was compared, and nothing else"
    assert not [one for one in xaicli.compare(old, old, mode="all").answer.warnings if "not in" in one]


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"where": "epoch > 1"}, "none of its rows meets --where 'epoch > 1'"),
        ({"epoch": "2-3"}, "--epoch 2-3 takes none of its epochs, 1"),
    ],
)
def test_an_option_is_blamed_for_what_it_left_out_alone(tmp_path: Path, option: dict[str, str], why: str) -> None:
    """Data set y was never in the second run, whose data set z has no row that the option takes."""
    for name, epochs_of_z, sets in (("a", 3, ("x", "y", "z")), ("b", 1, ("x", "z"))):
        with xaicli.Run(tmp_path / name) as run:
            for ds_id in sets:
                for epoch in range(1, epochs_of_z + 1 if ds_id == "z" else 4):
                    run.log_samples(
                        sample_id=[0, 1], loss=[0.5, 1.0], mode="eval", ds_id=ds_id, epoch=epoch, step=epoch
                    )
    warnings = xaicli.compare(tmp_path / "a", tmp_path / "b", **option).answer.warnings
    assert list(warnings) == [
        f"eval y is not in {tmp_path / 'b'}, and not compared",
        f"eval z is left out of {tmp_path / 'b'}, and not compared: {why}",
    ]


def test_what_an_option_empties_in_every_run_is_said_of_each_by_name(tmp_path: Path) -> None:
    for name, last in (("a", 4), ("b", 6)):
        with xaicli.Run(tmp_path / name) as run:
            for epoch in range(1, 6):
                run.log_samples(sample_id=[0, 1], loss=[0.5, 1.0], mode="train", epoch=epoch, step=epoch)
            for mode, epochs in (("eval", range(2, last + 1, 2)), ("test", (2,))):
                for epoch in epochs:
                    run.log_samples(sample_id=[0, 1], loss=[0.5, 1.0], mode=mode, epoch=epoch, step=epoch)
    a, b = tmp_path / "a", tmp_path / "b"
    assert list(xaicli.compare(a, b, mode="all", epoch=5).answer.warnings) == [
        f"{a}: eval is left out: --epoch 5 takes none of its epochs, 2, 4",
        "test is left out: --epoch 5 takes none of its epochs, 2",
        f"{b}: eval is left out: --epoch 5 takes none of its epochs, 2, 4, 6",
    ]
    with pytest.raises(xaicli.XaiError, match="no row selected") as refused:
        xaicli.open_run(a).samples(mode="all", where="sample_id = 0 AND mode <> 'test'", epoch=5, ids=[1])
    assert refused.value.hint == "left out by --where \"sample_id = 0 AND mode <> 'test'\", --epoch 5"


def test_a_run_without_a_metric_in_the_mode_compared_is_named(tmp_path: Path) -> None:
    for name, of_eval in (("full", {1: [1.0, 3.0], 2: [2.0, 4.0]}), ("early", {1: [1.0, 3.0]}), ("never", {})):
        with xaicli.Run(tmp_path / name) as run:
            for epoch in (1, 2):
                for mode, loss in (("train", [0.5, 1.0]), ("eval", of_eval.get(epoch))):
                    more = {} if loss is None else {"loss": loss}
                    run.log_samples(sample_id=[0, 1], label=[0, 1], mode=mode, epoch=epoch, step=epoch, **more)
    full, early, never = (tmp_path / name for name in ("full", "early", "never"))
    for metric in (None, "loss"):
        found = xaicli.compare(full, early, never, metric=metric)
        assert list(found.answer.warnings)[:2] == [
            f"{early} has no finite loss in eval at its last epoch",
            f"{never} has no finite loss in eval",
        ]
        assert "Mean loss (eval): 3 in full, none in early, none in never." in found.report.sentence
    alone = xaicli.compare(never, never).report.sentence
    assert "No run has a finite loss (eval) to compare." in alone
    assert "ommon" not in alone


def test_a_metric_that_one_run_lacks_is_told(tmp_path: Path) -> None:
    for name, metric in (("a", "loss"), ("b", "score")):
        with xaicli.Run(tmp_path / name) as run:
            run.log_samples(sample_id=[0, 1], label=[0, 1], mode="eval", epoch=1, **{metric: [0.5, 1.0]})
    warnings = xaicli.compare(tmp_path / "a", tmp_path / "b").answer.warnings
    assert f"loss is not in {tmp_path / 'b'}, and not compared" in warnings


def test_a_sample_that_never_had_a_finite_value_is_stale_as_samples_says(tmp_path):
    first = record(tmp_path / "first", [whole([0, 1], [0, 1], [0.5, 0.25])])
    last = record(tmp_path / "last", [whole([0, 1, 2], [1, 1, 0], [float("nan"), 0.75, 1.0])])
    rows = xaicli.compare(first, last, max=0, min=0, ids=[0, 1, 2]).data.to_dicts()
    listed = {row["sample_id"]: (row["values"], row["stale"]) for row in rows if row["group"] == "listed"}
    assert listed == {
        0: ([0.5, None], [False, True]),
        1: ([0.25, 0.75], [False, False]),
        2: ([None, 1.0], [None, False]),
    }
    (alone,) = xaicli.open_run(last).samples(max=0, min=0, ids=[0]).data.to_dicts()
    assert (alone["score"], alone["stale"]) == (None, True)


def test_labels_that_stand_for_none_are_counted_in_both_runs(tmp_path):
    for name, label in (("first", [0, -100, 1]), ("last", [-100, -100, 1])):
        with xaicli.Run(tmp_path / name) as run:
            run.log_samples(sample_id=[0, 1, 2], label=label, loss=[0.5, 0.25, 1.0], mode="eval", epoch=1)
    assert xaicli.compare(tmp_path / "first", tmp_path / "last").answer.counts.ignored == 3


def of_task(root: Path, task: str, losses: Sequence[float]) -> Path:
    ids = list(range(len(losses)))
    with xaicli.Run(root, task=task) as run:
        run.log_samples(sample_id=ids, loss=losses, correct=[loss < 1 for loss in losses], mode="eval", epoch=1)
    return root


@pytest.mark.parametrize(("other", "alike"), [("multilabel", True), ("sequence", False), ("regression", False)])
def test_no_run_of_another_task_is_the_better_one(tmp_path: Path, other: str, alike: bool) -> None:
    high = [2.0 + i / 64 for i in range(64)]
    first, last = of_task(tmp_path / "a", "multilabel", high), of_task(tmp_path / "b", other, [v / 4 for v in high])
    result = xaicli.compare(first, last)
    told = json.loads(result.to_json())
    assert {row["metric"]: row["better"] for row in told["paired"]} == dict.fromkeys(
        ("loss", "correct"), "last" if alike else None
    )
    mean = sum(high) / 64
    [loss] = [row["values"] for row in told["paired"] if row["metric"] == "loss"]
    assert loss == pytest.approx([mean, mean / 4])
    said = [words for words in told["warnings"] if "of several tasks" in words]
    if alike:
        assert said == []
        assert "is better than" in result.markdown()
    else:
        assert said == [
            f"the runs are of several tasks (multilabel in {first} against {other} in {last}), "
            "whose losses are of another kind: none is called better than one of another task"
        ]
        assert "is better than" not in result.markdown()


def test_of_two_classes_one_or_two_outputs_are_one_task(tmp_path: Path) -> None:
    high = [2.0 + i / 64 for i in range(64)]
    runs = of_task(tmp_path / "a", "binary", high), of_task(tmp_path / "b", "classification", [v / 4 for v in high])
    told = json.loads(xaicli.compare(*runs).to_json())
    assert [row["better"] for row in told["paired"]] == ["last", "last"]
    assert not [words for words in told["warnings"] if "of several tasks" in words]


def test_no_group_of_another_task_is_the_better_one(tmp_path: Path) -> None:
    runs = [of_task(tmp_path / f"a{i}", "multilabel", [2.0 + i / 8, 2.0]) for i in range(2)]
    runs += [of_task(tmp_path / f"b{i}", "sequence", [0.5 + i / 8, 0.5]) for i in range(2)]
    told = json.loads(xaicli.compare(*runs, group=["a=*/a?", "b=*/b?"]).to_json())
    assert {row["metric"]: row["better"] for row in told["paired"]} == {"loss": None, "correct": None}


def test_a_run_of_tables_in_a_folder_does_not_take_its_neighbours_with_it(tmp_path: Path) -> None:
    for name, losses in (("a", [0.5, 1.0, 2.0]), ("b", [1.5, 2.0, 3.0])):
        record(tmp_path / "runs" / name, [whole([0, 1, 2], [0, 1, 1], losses)])
    tables = tmp_path / "runs" / "tables"
    with xaicli.Run(tables) as run:
        run.add_metrics({"example_id": [0, 1], "mean_iou": [0.5, 0.7]}, name="pictures")
    answer = xaicli.compare(tmp_path / "runs", metric="loss").answer
    assert [Path(one).name for one in answer.selection["runs"]] == ["a", "b"]
    (said,) = (one for one in answer.warnings if "left out" in one)
    assert said == f"{tables} is left out: it holds no rows of samples"
    with pytest.raises(xaicli.XaiError, match="tables holds no rows of samples"):
        xaicli.compare(tmp_path / "runs" / "a", tables)
    (tmp_path / "runs" / "b").rename(tmp_path / "b")
    with pytest.raises(xaicli.XaiError, match="tables holds no rows of samples"):
        xaicli.compare(tmp_path / "runs")


def test_runs_in_a_folder_that_never_logged_a_sample_are_left_out_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for name, losses in (("a", [0.5, 1.0, 2.0]), ("z", [1.5, 2.0, 3.0])):
        record(folder / name, [whole([0, 1, 2], [0, 1, 1], losses)])
    with xaicli.Run(folder / "crashed"):
        pass  # died before its first batch
    with xaicli.Run(folder / "scalars") as run:
        run.log({"lr": 0.1})
    with xaicli.Run(folder / "before-eval") as run:
        run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="train", epoch=1)
    answer = xaicli.compare(folder).answer
    assert [Path(one).name for one in answer.selection["runs"]] == ["a", "z"]
    loss = next(row for row in answer.data.to_dicts() if row["kind"] == "metric" and row["metric"] == "loss")
    assert loss["values"] == [3.5 / 3, 6.5 / 3]
    assert [said for said in answer.warnings if "left out" in said] == [
        f"{folder / 'crashed'} is left out: it holds no samples",
        f"{folder / 'scalars'} is left out: it holds no samples",
        f"{folder / 'before-eval'} is left out: it has no rows of eval",
    ]
    with pytest.raises(xaicli.XaiError, match="crashed holds no samples"):
        xaicli.compare(folder / "a", folder / "crashed")
    with pytest.raises(xaicli.XaiError, match="'nope'"):
        xaicli.compare(folder, metric="nope")


def test_what_one_run_lacks_or_took_back_is_said_with_its_name(tmp_path: Path) -> None:
    for name, starts in (("a", [[1, 2, 3, 4]]), ("b", [[1, 2, 3], [2, 3]]), ("c", [[1, 2, 3], [3]])):
        for epochs in starts:
            with xaicli.Run(tmp_path / name) as run:
                for epoch in epochs:
                    for mode in ("train", "eval"):
                        run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode=mode, epoch=epoch, step=epoch)
    for runs in (("a", "b"), ("b", "a")):
        with pytest.raises(xaicli.XaiError, match=r"^there is no epoch 4 in \S*/b\n"):
            xaicli.compare(*(tmp_path / name for name in runs), epoch=4)
    with pytest.raises(xaicli.XaiError, match=r"^no epoch that is divisible by 4 was recorded in \S*/b\n"):
        xaicli.compare(tmp_path / "a", tmp_path / "b", epoch_frequency=4)
    said = xaicli.compare(tmp_path / "b", tmp_path / "c").answer.warnings
    assert [line.split(" of attempt 0")[0] for line in said if "took back" in line] == [
        f"{tmp_path / 'b'}: attempt 1 took back 8 rows",
        f"{tmp_path / 'c'}: attempt 1 took back 4 rows",
    ]


def test_a_folder_whose_runs_share_nothing_is_refused(tmp_path: Path) -> None:
    for mode in ("eval", "train"):
        with xaicli.Run(tmp_path / "runs" / mode) as run:
            run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode=mode, ds_id=f"{mode} set", epoch=1)
    with pytest.raises(xaicli.XaiError, match="share no mode and ds_id") as caught:
        xaicli.compare(tmp_path / "runs")
    assert re.search(r"eval: eval eval set; .*train: train train set$", caught.value.hint)


def test_sets_of_classes_are_the_same_whatever_the_order_of_their_names(tmp_path: Path) -> None:
    truth = [{"dog", "bird"}, {"cat"}, set(), {"cat", "dog", "bird"}, {"bird"}]
    for number, names in enumerate((["cat", "dog", "bird"], ["bird", "cat", "dog"], ["dog", "bird", "cat"])):
        # Of the last run one sample was labelled anew.
        sets = [*truth[:4], {"cat"}] if number == 2 else truth
        rows = [[int(name in one) for name in names] for one in sets]
        with xaicli.Run(tmp_path / f"run{number}", task="multilabel", label_names=names) as run:
            scores = np.array(rows) * 4.0 - 2
            run.log_samples(sample_id=range(5), label=np.array(rows), logits=scores, mode="eval", epoch=1)
    answer = xaicli.compare([tmp_path / f"run{number}" for number in range(3)], metric="n_wrong").answer
    said = [text for text in answer.warnings if "another label" in text]
    assert len(said) == 1
    assert said[0].startswith("1 of the 5 samples of eval in both")
    assert "run2 than in" in said[0]
    counted = {row["name"]: row["n"] for row in answer.data.iter_rows(named=True) if row["kind"] == "label"}
    assert {name: counted[name] for name in ("cat", "dog", "bird")} == {
        "cat": [2, 2, 3],
        "dog": [2, 2, 2],
        "bird": [3, 3, 2],
    }


def test_a_class_is_called_alike_by_labels_and_compare_where_samples_have_sets(tmp_path: Path) -> None:
    sets = [[0], [0, 1], [2], []]
    rows = np.array([[int(k in one) for k in range(3)] for one in sets])
    for name in "ab":
        with xaicli.Run(tmp_path / name, task="multilabel", label_names=["cat", "dog", "owl"]) as run:
            run.log_facts(range(4), camera=list("wxyz"))
            turned = rows if name == "a" else 1 - rows
            run.log_samples(sample_id=range(4), label=rows, logits=turned * 4.0 - 2, mode="eval", epoch=1)
    both = tmp_path / "a", tmp_path / "b"
    of_labels = json.loads(xaicli.open_run(tmp_path / "a").labels(metric="loss").to_json())["rows"]
    for label_map, classes in ((None, [0, 1, 2]), ({"bird": 2, "hound": 1}, [1, 2])):
        result = xaicli.compare(*both, metric="loss", label_map=label_map, max=9)
        told = json.loads(result.to_json())["rows"]
        found = {row["label"]: row["values"][0] for row in told if row["kind"] == "label"}
        assert found == {row["label"]: row["mean"] for row in of_labels if row["label"] in classes}
        of_samples = {row["sample_id"]: row["label"] for row in told if row["kind"] == "sample"}
        assert of_samples == {i: one for i, one in enumerate(sets) if label_map is None or {*one} & {*classes}}
        (table,) = [path for path in result.save(tmp_path / "out", formats=["csv"]) if path.name == "compare.csv"]
        with table.open(encoding="utf-8", newline="") as file:
            cells = [row for row in csv.DictReader(file) if row["kind"] == "label"]
        assert [row["label"] for row in cells] == list(map(str, classes))


def test_a_class_of_a_set_is_that_class_where_another_run_has_no_sets(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "a", task="multilabel") as run:
        sets = [[1, 0, 0], [1, 1, 1]]
        run.log_samples(sample_id=[0, 1], label=sets, logits=[[2.0, -2.0, 1.0]] * 2, mode="eval", epoch=1)
    record(tmp_path / "b", [whole([0, 1], [0, 1], [1.0, 2.0])])
    told = json.loads(xaicli.compare(tmp_path / "a", tmp_path / "b", metric="loss").to_json())["rows"]
    found = {row["label"]: row["n"] for row in told if row["kind"] == "label"}
    assert found == {"0": [2, 1], "1": [1, 1], "2": [1, None]}


def test_a_run_that_a_question_stops_at_is_named(xai: Any, tmp_path: Path) -> None:
    """Of several runs nobody could tell which one lacks a column, or has a sample twice."""
    for name in ("a", "b"):
        with xaicli.Run(tmp_path / name) as run:
            for step in range(1 + (name == "b")):
                more = {"extra": [1.0, 2.0]} if name == "a" else {}
                run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], **more, mode="eval", epoch=1, step=step)
    for words in (("--where", "extra > 0"), ("--duplicates", "error")):
        status, _, err = xai("compare", tmp_path / "a", tmp_path / "b", *words)
        assert status in (1, 2)
        assert str(tmp_path / "b") in err.splitlines()[0]
