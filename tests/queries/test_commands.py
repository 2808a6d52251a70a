"""The commands through their entrance: JSON as the contract spells it, exit statuses, terminal, files."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.written_run import WrittenRun
from xaicli.api import list_runs, open_run
from xaicli.api.run import RunReader
from xaicli.layout import RunLayout
from xaicli.queries import runs
from xaicli.queries.compare import over_epochs
from xaicli.recorder import attempt as attempts
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run
from xaicli.summary import Summary

Xai = Callable[..., tuple[int, str, str]]


def asked(xai: Xai, *arguments: object) -> dict[str, Any]:
    status, out, err = xai(*arguments, "--json")
    assert status == 0, err
    answer: dict[str, Any] = json.loads(out)
    head = ["schema_version", "command", "run", "selection", "warnings", "outputs", "counts", "rows"]
    assert [key for key in answer if key in head] == head
    assert (answer["schema_version"], answer["command"]) == (1, arguments[0])
    return answer


def test_samples(xai: Xai, root: Path) -> None:
    answer = asked(xai, "samples", root, "--ds-id", "a", "--max", 2, "--min", 1, "--ids", "4,11")
    assert answer["counts"] == {
        "rows": 47,
        "non_finite": 1,
        "duplicates": 0,
        "dropped": 0,
        "taken_back": 0,
        "ignored": 0,
        "stale": 1,
        "damaged": [],
    }
    assert [(row["group"], row["rank"], row["sample_id"]) for row in answer["rows"]] == [
        ("max", 1, 11),
        ("max", 2, 10),
        ("min", 1, 0),
        ("listed", 1, 4),
        ("listed", 2, 11),
    ]
    assert answer["rows"][3] == {
        "mode": "eval",
        "ds_id": "a",
        "sample_id": 4,
        "label": 1,
        "name": "dog",
        "group": "listed",
        "rank": 1,
        "score": 1.25,
        "stale": False,
        "history": [
            {"epoch": 1, "pass": 0, "step": 10, "value": 5.0},
            {"epoch": 2, "pass": 0, "step": 20, "value": None},
            {"epoch": 3, "pass": 0, "step": 30, "value": pytest.approx(5 / 3, rel=1e-7)},
            {"epoch": 4, "pass": 0, "step": 40, "value": 1.25},
        ],
    }


def test_stale_and_complete_only(xai: Xai, root: Path) -> None:
    # Sample 3 has its last value, 4 / 3, from epoch 3.
    arguments = ("samples", root, "--ds-id", "a", "--max", 12, "--min", 0)
    stale = {row["sample_id"] for row in asked(xai, *arguments)["rows"] if row["stale"]}
    assert stale == {3}
    complete = asked(xai, *arguments, "--complete-only")["rows"]
    assert [row["sample_id"] for row in complete] == [11, 10, 9, 8, 7, 6, 5, 4, 2, 1, 0]


def test_ds_ids_are_never_pooled(xai: Xai, root: Path) -> None:
    rows = asked(xai, "samples", root, "--max", 1, "--min", 0)["rows"]
    assert [(row["ds_id"], row["score"]) for row in rows] == [("a", 3.0), ("b", 103.0)]


def test_two_metrics_name_themselves(xai: Xai, root: Path) -> None:
    rows = asked(xai, "samples", root, "--ds-id", "a", "--metric", "loss,margin", "--max", 1, "--min", 0)["rows"]
    assert [(row["metric"], row["sample_id"]) for row in rows] == [("loss", 11), ("margin", 0)]


def test_epoch_frequency(xai: Xai, root: Path) -> None:
    rows = asked(xai, "samples", root, "--ds-id", "a", "--max", 1, "--min", 0, "--epoch-frequency", 2)["rows"]
    assert [point["epoch"] for point in rows[0]["history"]] == [2, 4]


def test_label_map_limits_samples(xai: Xai, root: Path) -> None:
    rows = asked(xai, "samples", root, "--ds-id", "a", "--label-map", "Hund=1", "--min", 0)["rows"]
    assert {row["label"] for row in rows} == {1}


@pytest.mark.parametrize("stat", ["mean", "first", "max", "slope", "confidence"])
def test_other_statistics(xai: Xai, root: Path, stat: str) -> None:
    status, out, err = xai("samples", root, "--ds-id", "a", "--stat", stat, "--max", 1, "--min", 0, "--json")
    if stat == "confidence":
        # No probabilities were logged.
        assert (status, out) == (1, "")
        assert "confidence" in err
        return
    assert status == 0
    expected = {"mean": 11, "first": 11, "max": 11, "slope": 0}
    assert json.loads(out)["rows"][0]["sample_id"] == expected[stat]


def test_labels(xai: Xai, root: Path, tmp_path: Path) -> None:
    answer = asked(xai, "labels", root, "--ds-id", "a", "--bounds", "std,range", "-o", tmp_path)
    row = answer["rows"][0]
    assert list(row) == [
        *(
            "mode",
            "ds_id",
            "metric",
            "label",
            "name",
            "epoch",
            "pass",
            "step",
            "n",
            "mean",
            "std",
            "min",
            "max",
            "bounds",
        )
    ]
    # Samples 0, 3, 6, 9 with losses 1, 4, 7, 10.
    assert (row["label"], row["name"], row["epoch"], row["step"], row["n"]) == (0, "cat", 1, 10, 4)
    assert (row["mean"], row["min"], row["max"]) == (5.5, 1.0, 10.0)
    assert row["std"] == pytest.approx(15**0.5)
    assert row["bounds"] == {"std": pytest.approx([5.5 - 15**0.5, 5.5 + 15**0.5]), "range": [1.0, 10.0]}
    written = {Path(path).suffix for path in answer["outputs"]}
    assert written >= {".html", ".png", ".csv", ".json"}
    assert all(Path(path).stat().st_size for path in answer["outputs"])


def test_label_map_limits_and_names(xai: Xai, root: Path, tmp_path: Path) -> None:
    found = asked(xai, "labels", root, "--ds-id", "a", "--label-map", "Hund=1,Aal=2", "-o", tmp_path)
    assert {(row["label"], row["name"]) for row in found["rows"]} == {(1, "Hund"), (2, "Aal")}


def test_label_key(xai: Xai, root: Path, tmp_path: Path) -> None:
    rows = asked(xai, "labels", root, "--ds-id", "a", "--label-key", "correct", "-o", tmp_path)["rows"]
    assert {(row["label"], row["epoch"]) for row in rows} == {(False, 1), (False, 2), (True, 3), (True, 4)}


def test_info(xai: Xai, root: Path) -> None:
    answer = asked(xai, "info", root)
    assert [(row["mode"], row["ds_id"], row["rows"]) for row in answer["rows"]] == [
        ("train", "", 48),
        ("eval", "a", 47),
        ("eval", "b", 47),
    ]
    assert answer["rows"][0]["epochs"] == [1, 2, 3, 4]
    assert answer["rows"][0]["metrics"] == ["loss", "margin"]
    assert answer["tables"] == []


def test_info_names_drops_duplicates_gaps_and_damage(xai: Xai, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for epoch in (1, 2, 3, 5):
        run.log_samples(sample_id=[1, 2, 2], loss=[0.5] * 3, epoch=epoch, step=epoch)
    with pytest.warns(RecorderWarning):
        run.log_samples(sample_id=[1.5, 2.5], loss=[0.5, 0.5])
    with pytest.warns(RecorderWarning):
        run.log({"lr": "high"})
    run.close()
    (path,) = (tmp_path / "run" / "data").rglob("epoch=3/*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    answer = asked(xai, "info", tmp_path / "run")
    assert answer["counts"] == {
        "rows": 9,
        "non_finite": 0,
        "duplicates": 3,
        "dropped": 2,
        "taken_back": 0,
        "damaged": [path.relative_to(tmp_path / "run").as_posix()],
    }
    assert answer["rows"][0]["gaps"] == [4]
    assert answer["warnings"] == [
        "2 rows were not recorded: sample_id must be whole numbers or texts, not float64",
        "1 value of lr was not recorded: lr is not numeric: it holds text",
    ]


def test_info_counts_the_epochs_between_a_date_and_the_one_before(xai: Xai, tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 4, 20261127):
            run.log_samples(sample_id=[1], loss=[0.5], epoch=epoch, step=epoch)
    (row,) = asked(xai, "info", tmp_path / "run")["rows"]
    assert row["n_gaps"] == 20261127 - 4
    assert row["gaps"] == [3, *range(5, 1004)]


@pytest.mark.parametrize(
    ("epochs", "every", "stride", "missing"),
    [
        ([1, 10], 1, 1, [2, 3, 4, 5, 6, 7, 8, 9]),
        ([5, 10, 15], 1, 5, []),
        ([5, 10, 20, 25], 1, 5, [15]),
        ([1, 3, 9], 1, 1, [2, 4, 5, 6, 7, 8]),
        ([2, 5, 8, 10], 1, 1, [3, 4, 6, 7, 9]),
        ([1, 2, 5, 6], 1, 1, [3, 4]),
        ([4, 12], 4, 4, [8]),
        ([8, 16, 24], 4, 8, []),
        ([4], 4, 4, []),
    ],
)
def test_info_tells_which_epochs_are_missing_of_every_one_or_every_nth(
    xai: Xai, tmp_path: Path, epochs: list[int], every: int, stride: int, missing: list[int]
) -> None:
    with Run(tmp_path / "run", epoch_frequency=every) as run:
        for epoch in epochs:
            run.log_samples(sample_id=[1], loss=[0.5], epoch=epoch, step=epoch)
    (row,) = asked(xai, "info", tmp_path / "run")["rows"]
    assert (row["stride"], row["gaps"], row["n_gaps"]) == (stride, missing, len(missing))
    _, out, _ = xai("info", tmp_path / "run")
    assert (f" by {stride} (" in out) == (stride > 1 < len(epochs))


def test_info_names_the_metrics_tables(xai: Xai, tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.add_metrics_data({"example_id": [0, 0, 1], "iou": [0.9, 0.8, 0.3]}, name="crops")
    (table,) = asked(xai, "info", tmp_path / "run")["tables"]
    assert (table["name"], table["rows"]) == ("crops", 3)
    assert {"example_id", "iou"} <= set(table["columns"])
    assert "crops" in xai("info", tmp_path / "run")[1]


@pytest.mark.parametrize(
    ("arguments", "status", "error", "hint"),
    [
        (["samples", "--metric", "los"], 1, "no metric 'los'", "did you mean loss?"),
        (["samples", "--mode", "trian"], 1, "no mode 'trian'", "did you mean train?"),
        (["samples", "--max", "-1"], 2, "--max must be non-negative, not -1", ""),
        (["samples", "--min", "-2"], 2, "--min must be non-negative, not -2", ""),
        (["samples", "--ids", "99"], 1, "no sample_id '99'", "11"),
        (["samples", "--ids", "x"], 1, "no sample_id 'x'", "integers"),
        (["samples", "--epoch", "17"], 1, "there is no epoch 17", "1-4"),
        (["samples", "--stat", "lst"], 1, "no statistic 'lst'", "last"),
        (["samples", "--table", "t"], 1, "no table 't'", "there are no tables"),
        (["labels", "--label-map", "x=7"], 1, "no label '7'", "0, 1, 2"),
        (["labels", "--bounds", "stdd"], 2, "--bounds 'stdd'", "std, range"),
        (["labels", "--label-key", "colour"], 1, "no column 'colour'", "label"),
    ],
)
def test_bad_input(xai: Xai, root: Path, arguments: list[str], status: int, error: str, hint: str) -> None:
    command, *rest = arguments
    found, out, err = xai(command, root, *rest)
    assert (found, out) == (status, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert hint in err
    assert "Traceback" not in err


def test_strict_fails_on_damage_and_lenient_names_it(xai: Xai, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(root, copy)
    damaged = copy / "data/mode=eval/ds=a/epoch=4/part-a000000-r0000-00000007.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    for command in ("samples", "labels", "info"):
        answer = asked(xai, command, copy, *(["-o", tmp_path / "out"] if command == "labels" else []))
        assert answer["counts"]["damaged"] == [damaged.relative_to(copy).as_posix()]
        status, _, err = xai(command, copy, "--strict")
        assert status == 1
        assert "part-a000000-r0000-00000007.parquet" in err


def test_ls_says_of_which_mode_an_accuracy_is(xai: Xai, tmp_path: Path) -> None:
    right = {"train": 3, "eval": 1}  # of four
    for name, modes in (("both", ("train", "eval")), ("train", ("train",)), ("none", ())):
        with Run(tmp_path / name) as run:
            for mode in modes:
                correct = np.arange(4) < right[mode]
                run.log_samples(sample_id=np.arange(4), correct=correct, loss=np.ones(4), mode=mode, epoch=1, step=1)
            run.log({"lr": 1.0})
    rows = {Path(row["run"]).name: row for row in asked(xai, "ls", tmp_path)["rows"]}
    told = {name: (row["accuracy"], row["accuracy_mode"]) for name, row in rows.items()}
    assert told == {"both": (0.25, "eval"), "train": (0.75, "train"), "none": (None, None)}
    _, out, _ = xai("ls", tmp_path)
    assert "0.25 eval" in out
    assert "0.75 train" in out


def test_ls(xai: Xai, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "runs/good")
    shutil.copytree(root, tmp_path / "runs/new")
    manifest = tmp_path / "runs/new/xai.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 9}))
    rows = asked(xai, "ls", tmp_path)["rows"]
    assert [Path(row["run"]).name for row in rows] == ["good", "new"]
    assert (rows[0]["rows"], rows[0]["modes"], rows[0]["problem"]) == (142, ["train", "eval"], None)
    assert (rows[0]["state"], rows[0]["seconds"]) == ("finished", None)
    assert "version 9" in rows[1]["problem"]
    (tmp_path / "empty").mkdir()
    assert asked(xai, "ls", tmp_path / "empty")["warnings"]
    assert xai("ls", tmp_path / "absent")[0] == 1


def test_compare_says_where_labels_are_others(xai: Xai, tmp_path: Path) -> None:
    for name, moved in (("a", 0), ("b", 1), ("same", 0)):
        run = WrittenRun(tmp_path / name)
        run.write(
            {"sample_id": i, "epoch": 1, "label": (i + (moved if i < 2 else 0)) % 3, "loss": 1.0} for i in range(6)
        )
    told = asked(xai, "compare", tmp_path / "a", tmp_path / "b")["warnings"]
    assert [one.startswith("2 of the 6 samples of ") for one in told] == [True]
    assert asked(xai, "compare", tmp_path / "a", tmp_path / "same")["warnings"] == []


def test_compare(xai: Xai, tmp_path: Path) -> None:
    for name, losses, correct in (("a", [1.0, 2.0, 3.0], [1, 1, 0]), ("b", [1.5, 0.5, 3.0], [0, 1, 1])):
        run = WrittenRun(tmp_path / name)
        run.write(
            {"sample_id": i, "epoch": 1, "label": i % 2, "loss": losses[i], "correct": bool(correct[i])}
            for i in range(3)
        )
    answer = asked(xai, "compare", tmp_path / "a", tmp_path / "b", "--max", 1, "--min", 1, "--ids", 2)
    rows = answer["rows"]
    assert next(row for row in rows if row["kind"] == "metric")["values"] == pytest.approx([2.0, 5 / 3])
    labels = {row["label"]: row["values"] for row in rows if row["kind"] == "label"}
    assert labels == {0: pytest.approx([2.0, 2.25]), 1: pytest.approx([2.0, 0.5])}
    assert [row["name"] for row in rows if row["kind"] == "label"] == ["0", "1"]
    samples = [(row["group"], row["sample_id"], row["change"]) for row in rows if row["kind"] == "sample"]
    assert samples == [
        ("max", 0, 0.5),
        ("min", 1, -1.5),
        ("listed", 2, 0.0),
        ("flipped", 0, 0.5),
        ("flipped", 2, 0.0),
    ]
    assert xai("compare", tmp_path / "a")[0] == 2


def test_a_listed_sample_that_never_had_a_finite_value_is_stale(xai: Xai, tmp_path: Path) -> None:
    WrittenRun(tmp_path / "run").write(
        {"sample_id": i, "epoch": epoch, "label": 0, "loss": float("nan") if i == 1 else 0.5}
        for epoch in (1, 2)
        for i in range(2)
    )
    answer = asked(xai, "samples", tmp_path / "run", "--max", 0, "--min", 0, "--ids", "1,0")
    assert [(row["sample_id"], row["score"], row["stale"]) for row in answer["rows"]] == [
        (1, None, True),
        (0, 0.5, False),
    ]
    assert answer["counts"]["non_finite"] == 2


def test_flips_come_by_their_change_and_then_by_their_id(xai: Xai, tmp_path: Path) -> None:
    """5 changed most, whichever way, 1 to 4 alike, and of 0 nothing is known but that it is right now."""
    changes = {0: float("nan"), 1: 0.5, 2: -0.5, 3: 0.5, 4: -0.5, 5: -0.75}
    for name, later in (("a", False), ("b", True)):
        run = WrittenRun(tmp_path / name)
        run.write(
            {"sample_id": i, "epoch": 1, "label": 0, "loss": 1.0 + (change if later else 0.0), "correct": later}
            for i, change in reversed(changes.items())
        )
        run.write([{"sample_id": 6, "epoch": 1, "label": 0, "loss": float("nan"), "correct": True}])
    rows = asked(xai, "compare", tmp_path / "a", tmp_path / "b", "--max", 0, "--min", 0, "--ids", 6)["rows"]
    listed = [(row["values"], row["change"], row["correct"]) for row in rows if row["group"] == "listed"]
    assert listed == [([None, None], None, [True, True])]
    flips = [(row["rank"], row["sample_id"]) for row in rows if row["group"] == "flipped"]
    assert flips == [(1, 5), (2, 1), (3, 2), (4, 3), (5, 4), (6, 0)]


def test_samples_that_did_not_change_neither_grew_nor_fell(xai: Xai, tmp_path: Path) -> None:
    for name in "ab":
        with Run(tmp_path / name) as run:
            run.log_samples(sample_id=[1, 2], label=[0, 1], mode="eval", epoch=1, step=1, loss=[0.5, 0.25])
    rows = asked(xai, "compare", tmp_path / "a", tmp_path / "b")["rows"]
    assert {row["group"] for row in rows if row["kind"] == "sample"} == set()


def test_a_run_held_against_itself_has_changed_nowhere(xai: Xai, tmp_path: Path) -> None:
    with Run(tmp_path / "runs" / "sets", task="multilabel", label_names=["a", "b", "c"]) as run:
        for epoch in (1, 2):
            probs = [[0.9, 0.8, 0.1], [0.1, 0.2, 0.3], [0.2, 0.1, 0.9]]
            run.log_samples(sample_id=[1, 2, 3], label=[[0, 1], [], [2]], probs=probs, mode="eval", epoch=epoch)
    root = tmp_path / "runs" / "sets"
    rows = asked(xai, "compare", root, root, "--ids", "1,2")["rows"]
    assert {row["change"] for row in rows} == {0.0}
    assert [(row["label"], row["name"]) for row in rows if row["kind"] == "label"] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]
    listed = [(row["sample_id"], row["label"], row["name"], row["correct"]) for row in rows if row["group"] == "listed"]
    assert listed == [(1, [0, 1], "a, b", [True, True]), (2, [], "(none)", [True, True])]
    # A folder stands for the runs in it that are not named beside it.
    assert xai("compare", tmp_path / "runs", root)[0] == 2


def test_compared_runs_over_time(xai: Xai, tmp_path: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 2.0)):
        run = WrittenRun(tmp_path / name)
        for epoch in (1, 2):
            run.write(
                {"sample_id": i, "epoch": epoch, "label": i % 2, "loss": factor * i / epoch, "correct": i < epoch}
                for i in range(3 if name == "a" else 4)
            )
    readers = [open_run(tmp_path / name).reader(strict=False) for name in ("a", "b")]
    (course,) = over_epochs(readers)
    assert course.pair == ("eval", "")
    assert [frame["mean"].to_list() for frame in course.means] == [[1.0, 0.5], [3.0, 1.5]]
    assert course.labels[0].rows() == [
        *[("0", 1, 0, 1.0, 2), ("0", 2, 0, 0.5, 2), ("1", 1, 0, 1.0, 1), ("1", 2, 0, 0.5, 1)]
    ]
    # The fourth sample is in one run only.
    assert course.samples.rows() == [(0, 0.0, 0.0, True, True), (1, 0.5, 1.0, True, True), (2, 1.0, 2.0, False, False)]
    code, out, _ = xai("compare", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out", "--quiet")
    assert code == 0
    assert [Path(line).name for line in out.split()] == [
        "compare.html",
        "compare-loss-eval.png",
        "compare-labels-loss-eval.png",
        "compare-samples-loss-eval.png",
        "compare.csv",
        "compare-differences.csv",
        "compare.json",
    ]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_query(xai: Xai, root: Path, engine: str) -> None:
    sql = "SELECT mode, ds_id, count(*) AS n, max(margin) AS best FROM samples WHERE epoch > 2 GROUP BY mode, ds_id"
    rows = asked(xai, "query", root, f"{sql} ORDER BY mode, ds_id", "--engine", engine)["rows"]
    assert [(row["mode"], row["ds_id"], row["n"]) for row in rows] == [
        ("eval", "a", 23),
        ("eval", "b", 23),
        ("train", "", 24),
    ]
    assert rows[0]["best"] == -0.25


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    "sql",
    ["DROP TABLE samples", "SELECT nothing FROM samples", "SELECT 1; SELECT 2", "COPY samples TO 'x.csv'", "hello"],
)
def test_query_refuses(
    xai: Xai, root: Path, engine: str, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = xai("query", root, sql, "--engine", engine)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("columns", ["loss, loss", "*, loss"])
def test_two_columns_of_one_name_are_refused_in_words(xai: Xai, root: Path, columns: str) -> None:
    status, _, err = xai("query", root, f"SELECT {columns} FROM samples")
    assert (status, err) == (
        2,
        "error: two columns of the answer are called loss\nhint: name one: loss AS loss_2\n",
    )


def test_a_metric_of_another_mode_is_said_to_be_there(xai: Xai, tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run", metrics=("loss", "norm"))
    for mode in ("train", "eval"):
        more = {"norm": 2.0} if mode == "train" else {}
        run.write([{"sample_id": i, "mode": mode, "epoch": 1, "label": 0, "loss": 1.0, **more} for i in range(3)])
    for command in ("samples", "labels"):
        answer = asked(xai, command, run.layout.root, "--metric", "loss,norm")
        assert answer["warnings"] == ["no finite norm in eval: train has it"]
        assert asked(xai, command, run.layout.root, "--metric", "norm", "--mode", "train")["warnings"] == []


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl", "json"])
def test_export_long(xai: Xai, root: Path, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"samples.{format}"
    answer = asked(xai, "export", root, "--ds-id", "a", "-o", path)
    assert answer["outputs"] == [str(path)]
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson, "json": pl.read_json}[format]
    frame = read(path)
    assert frame.columns == [
        *("mode", "ds_id", "sample_id", "epoch", "pass", "step", "label", "prediction", "correct", "loss", "margin")
    ]
    assert frame.height == 47
    row = frame.row(by_predicate=(pl.col("sample_id") == 2) & (pl.col("epoch") == 2), named=True)
    assert (row["label"], row["correct"], row["loss"]) == (2, False, 1.5)
    spoilt = frame.row(by_predicate=(pl.col("sample_id") == 4) & (pl.col("epoch") == 2), named=True)
    assert spoilt["loss"] is None or spoilt["loss"] != spoilt["loss"]


@pytest.mark.parametrize("shape", ["long", "wide"])
def test_export_of_sets_of_classes(xai: Xai, tmp_path: Path, shape: str) -> None:
    with Run(tmp_path / "run", task="multilabel") as run:
        probs = [[0.9, 0.8], [0.1, 0.2], [0.2, 0.9]]
        run.log_samples(sample_id=[1, 2, 3], label=[[0, 1], [], None], probs=probs, mode="eval", epoch=1)
    asked(xai, "export", tmp_path / "run", "--shape", shape, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [json.loads(row["label"] or "null") for row in rows] == [[0, 1], [], None]
    if shape == "long":
        assert [json.loads(row["prediction"]) for row in rows] == [[0, 1], [], [1]]


def test_export_wide(xai: Xai, root: Path, tmp_path: Path) -> None:
    asked(xai, "export", root, "--metric", "loss", "--mode", "all", "--shape", "wide", "-o", tmp_path / "wide.csv")
    with (tmp_path / "wide.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    assert list(rows[0]) == ["mode", "ds_id", "sample_id", "label", "loss_1", "loss_2", "loss_3", "loss_4"]
    absent = next(row for row in rows if row["ds_id"] == "a" and row["sample_id"] == "3")
    assert (absent["loss_1"], absent["loss_4"]) == ("4.0", "")


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl", "json"])
@pytest.mark.parametrize("shape", ["long", "wide"])
def test_exports_name_the_labels_that_a_map_names(xai: Xai, tmp_path: Path, shape: str, format: str) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write({"sample_id": i, "epoch": 1, "label": i % 3, "loss": 1.0} for i in range(6))
    file = tmp_path / f"rows.{format}"
    status, _, err = xai("export", tmp_path / "run", "-o", file, "--shape", shape, "--label-map", "cat=0,dog=2")
    assert status == 0, err
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson, "json": pl.read_json}[format]
    found = read(file).sort("sample_id")
    assert found.columns.index("label_name") == found.columns.index("label") + 1
    assert found.select("sample_id", "label", "label_name").rows() == [
        (0, 0, "cat"),
        (2, 2, "dog"),
        (3, 0, "cat"),
        (5, 2, "dog"),
    ]


def test_export_to_standard_output(xai: Xai, root: Path) -> None:
    status, out, _ = xai("export", root, "--ds-id", "a", "--epoch", "last", "-o", "-", "--format", "jsonl")
    assert status == 0
    assert [json.loads(line)["sample_id"] for line in out.splitlines()] == [0, 1, 2, *range(4, 12)]


def test_export_guards_spreadsheets(xai: Xai, tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write({"sample_id": text, "epoch": 1, "loss": -1.0} for text in ("=1+1", "@x", "-5", "plain"))
    xai("export", run.layout.root, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["sample_id"] for row in rows] == ["'=1+1", "'@x", "-5", "plain"]
    assert rows[0]["loss"] == "-1.0"


def test_samples_in_the_terminal(xai: Xai, root: Path) -> None:
    status, out, _ = xai("samples", root, "--ds-id", "a", "--max", 2, "--min", 0)
    assert status == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "cat" in out or "eel" in out


def test_duplicates(xai: Xai, tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write({"sample_id": i, "epoch": 1, "step": step, "loss": float(i + step)} for step in (1, 2) for i in (1, 2))
    arguments = ("samples", run.layout.root, "--max", 2, "--min", 0)
    last = asked(xai, *arguments)
    assert (last["counts"]["rows"], last["counts"]["duplicates"]) == (2, 2)
    assert [(row["score"], len(row["history"])) for row in last["rows"]] == [(4.0, 1), (3.0, 1)]
    everything = asked(xai, *arguments, "--duplicates", "all")
    assert (everything["counts"]["rows"], everything["counts"]["duplicates"]) == (4, 2)
    assert [(row["score"], len(row["history"])) for row in everything["rows"]] == [(4.0, 2), (3.0, 2)]
    status, _, err = xai(*arguments, "--duplicates", "error")
    assert status == 1
    assert "sample 1 was logged more than once in eval, epoch 1" in err


def test_names_beside_codes_in_sql(sample_run: Path) -> None:
    columns = "label, label_name, prediction_name"
    sql = f"SELECT {columns} FROM samples WHERE mode = 'eval' AND epoch = 1 ORDER BY sample_id LIMIT 20"
    names = open_run(sample_run).reader().label_names
    found = open_run(sample_run).query(sql).data
    assert [names[label] for label in found["label"]] == found["label_name"].to_list()
    pytest.importorskip("duckdb")
    assert open_run(sample_run).query(sql, engine="duckdb").data.equals(found)


N_SUMMED = 100_001
TENTH = 0.100000001490116119384765625
"""The number of single precision next to 0.1."""


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    """Samples whose sums need more than single precision and more than 32 bits."""
    ones = np.ones(N_SUMMED, np.float32)
    root = tmp_path_factory.mktemp("summed") / "run"
    with Run(root) as run:
        run.log_samples(
            sample_id=np.arange(N_SUMMED),
            label=np.ones(N_SUMMED, int),
            loss=ones / 10,
            n_tokens=ones * 777,
            mode="eval",
            epoch=1,
            step=1,
        )
        run.add_metrics_data({"sample_id": [0, 1], "label": [0.5, 1.25], "loss": [0.25, 0.5]}, name="parts")
    return open_run(root)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT sum(n_tokens), SUM (loss), avg(loss) FROM samples", (777 * N_SUMMED, TENTH * N_SUMMED, TENTH)),
        ("SELECT sum(s.n_tokens + (1)) FROM samples s GROUP BY label -- sum(", (778 * N_SUMMED,)),
        ("SELECT 'sum(loss)', 1 + sum(\"n_tokens\") FROM samples", ("sum(loss)", 1 + 777 * N_SUMMED)),
        ("SELECT sum(label), sum(label * 1000000) FROM samples", (N_SUMMED, N_SUMMED * 1_000_000)),
        ("SELECT count(*) FROM samples WHERE loss = 0.1", (N_SUMMED,)),
        ("SELECT max(loss) FROM samples", (TENTH,)),
        ("SELECT sum(loss) FROM samples HAVING sum(loss -- (\n) > 1", (TENTH * N_SUMMED,)),
        ("SELECT sum(label) FROM (SELECT label * loss AS label FROM samples) AS tenths", (TENTH * N_SUMMED,)),
        ("SELECT sum(loss) FROM (SELECT loss FROM samples) AS inner_rows", (TENTH * N_SUMMED,)),
        ("SELECT sum(label) FROM parts", (1.75,)),
    ],
)
def test_sums_of_sql_are_exact_on_both_engines(summed: RunReader, engine: str, sql: str, expected: tuple[Any]) -> None:
    pytest.importorskip(engine)
    named = [f"({item}) AS c{n}" for n, item in enumerate(sql[7 : sql.index(" FROM")].split(", "))]
    found = summed.query(f"SELECT {', '.join(named)}{sql[sql.index(' FROM') :]}", engine=engine).data
    for value, known in zip(found.row(0), expected, strict=True):
        assert type(value) in (int, float, str)
        assert value == (known if isinstance(known, str) else pytest.approx(known, rel=1e-10))


def test_whole_numbers_of_duckdb_are_integers_where_they_fit(summed: RunReader) -> None:
    pytest.importorskip("duckdb")
    sql = "SELECT sum(label) AS n, 2::HUGEINT * 9223372036854775807 AS wide FROM samples"
    answer = summed.query(sql, engine="duckdb")
    assert answer.data.schema["n"] == pl.Int64
    assert answer.data.row(0) == (N_SUMMED, 18446744073709551614)
    assert json.loads(answer.to_json())["rows"][0]["n"] == N_SUMMED


@pytest.mark.parametrize("words", [(), ("nonsense",)])
def test_a_query_without_sql_says_so(xai: Xai, sample_run: Path, words: tuple[str, ...]) -> None:
    status, out, err = xai("query", sample_run, *words)
    assert (status, out) == (2, "")
    assert err.startswith("error: there is no SQL in: ")
    assert "tables: samples" in err


def test_a_table_is_no_picture(xai: Xai, sample_run: Path) -> None:
    status, out, err = xai("query", sample_run, "SELECT 1 AS one", "--format", "png")
    assert (status, out) == (2, "")
    assert err.startswith("error: xai query draws nothing to write as png")


def test_modes_that_were_not_looked_at_are_named(xai: Xai, sample_run: Path, tmp_path: Path) -> None:
    said = "warning: this is about eval alone: --mode train shows more"
    for words in (("findings",), ("export", "-o", tmp_path / "x.csv")):
        assert said in " ".join(xai(words[0], sample_run, *words[1:])[2].split())
        assert said not in " ".join(xai(words[0], sample_run, *words[1:], "--mode", "eval")[2].split())


def test_the_state_of_a_run(tmp_path: Path) -> None:
    script = (
        "import os, sys, xaicli\n"
        "run = xaicli.Run(sys.argv[1])\n"
        "run.log_samples(sample_id=[1, 2, 3, 4], label=[0, 1, 0, 1], prediction=[0, 1, 0, 0], loss=[1.0] * 4,\n"
        "                mode='eval', epoch=1, step=1)\n"
        "run.flush()\n"
        "os.kill(os.getpid(), 9) if sys.argv[2] == 'crashed' else run.close()\n"
    )
    for state in ("crashed", "finished"):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / state), state], check=False)
    with Run(tmp_path / "running") as run:
        run.log_samples(sample_id=[1], label=[1], loss=[1.0], mode="eval", epoch=1, step=1)
        run.flush()
        rows = {row["name"]: row for row in list_runs(tmp_path).data.to_dicts()}
    assert {name: row["state"] for name, row in rows.items()} == {name: name for name in rows}
    assert {name: row["accuracy"] for name, row in rows.items()} == {"crashed": 0.75, "finished": 0.75, "running": None}
    assert all(0 <= row["seconds"] < 60 for row in rows.values())


_ENDED = """
import multiprocessing, os, signal, sys, time, xaicli
folder, how = sys.argv[1:]

def begun(folder):
    run = xaicli.Run(folder)
    run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="train", epoch=1, step=1)
    return run

def child():
    run = begun(folder)
    raise KeyError("lost")

if how.startswith("with"):
    with begun(folder):
        raise {"with": ValueError("no"), "with exit": SystemExit(0), "with failure": SystemExit("no")}[how]
if how == "child":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sys.exit(process.join())
run = begun(folder)
if how == "error":
    raise ValueError("no")
if how in ("SIGINT", "SIGTERM"):
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(10)
if how == "finally":
    try:
        raise RuntimeError("no")
    finally:
        run.close()
if how == "finally, renamed":
    try:
        try:
            raise RuntimeError("no")
        finally:
            run.close()
    except RuntimeError as error:
        raise OSError("no") from error
if how == "handled":
    try:
        raise RuntimeError("no")
    except RuntimeError:
        run.close()
    raise SystemExit
if how == "session":
    sys.ps1 = "> "
    raise ValueError("no")
"""


@pytest.mark.parametrize(
    ("how", "ended_by"),
    [
        ("with", "ValueError"),
        ("with exit", ""),
        ("with failure", "SystemExit"),
        ("child", "KeyError"),
        ("error", "ValueError"),
        ("SIGINT", "KeyboardInterrupt"),
        ("SIGTERM", "SIGTERM"),
        ("finally", "RuntimeError"),
        ("finally, renamed", "OSError"),
        ("handled", ""),
        ("session", ""),
        ("end", ""),
    ],
)
def test_a_training_that_did_not_come_to_its_end_has_crashed(tmp_path: Path, xai: Xai, how: str, ended_by: str) -> None:
    run = tmp_path / "run"
    subprocess.run([sys.executable, "-c", _ENDED, str(run), how], check=False, capture_output=True, timeout=60)
    state = "crashed" if ended_by else "finished"
    assert json.loads(xai("ls", run, "--json")[1])["rows"][0]["state"] == state
    selection = json.loads(xai("info", run, "--json")[1])["selection"]
    assert (selection["state"], selection["ended_by"]) == (state, ended_by)
    said = f"The training has died of {ended_by}." if ended_by else "2 rows in train."
    assert said in " ".join(xai("info", run)[1].split())
    assert json.loads(xai("watch", run, "--once", "--json")[1])["state"] == state
    assert xai("watch", run, "--until", "loss mean < 9")[0] == (1 if ended_by else 0)
    with Run(run) as again:
        again.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="train", epoch=2, step=2)
    assert json.loads(xai("ls", run, "--json")[1])["rows"][0]["state"] == "finished"


_SLOW = """
import os, sys, time, xaicli
run = xaicli.Run(sys.argv[1])
for step in range(1, 7):
    run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1, step=step)
    print(step, flush=True)
    time.sleep(0.5)
os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else time.sleep(60)
"""


def test_how_long_a_run_was_recorded_is_known_by_its_rows(tmp_path: Path, xai: Xai) -> None:
    def recorded() -> dict[str, Any]:
        row: dict[str, Any] = json.loads(xai("ls", tmp_path, "--json")[1])["rows"][0]
        return row

    words = [sys.executable, "-c", _SLOW, str(tmp_path / "run")]
    with subprocess.Popen([*words, "running"], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        for _ in range(6):
            training.stdout.readline()
        running = recorded()
        training.kill()
    assert running["state"] == "running"
    assert running["seconds"] >= 2.5  # five pauses
    killed = recorded()
    # until its last row, and not until now
    assert killed["state"] == "crashed"
    assert 2.5 <= killed["seconds"] <= running["seconds"]
    xai("compact", tmp_path / "run")
    assert recorded()["seconds"] == killed["seconds"]
    assert recorded()["state"] == "crashed"
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=2, step=7)
    assert recorded()["state"] == "finished"
    assert recorded()["seconds"] >= killed["seconds"]


def _started(run: Path, attempt: int, started: str, closed: str) -> None:
    """Say of an attempt when it was recorded."""
    described, counters = (run / "attempts" / f"{attempt:06d}{end}" for end in (".json", "-r0000.stats"))
    described.write_text(json.dumps({"started_at": f"2026-01-01T{started}+00:00"}))
    counters.write_text(json.dumps({"closed": True, "written_at": f"2026-01-01T{closed}+00:00"}))


def test_attempts_that_were_recorded_beside_one_another_take_their_time_once(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1, step=1)
    for attempt, span in enumerate([("10:00:00", "10:01:00"), ("10:00:30", "10:01:30"), ("11:00:00", "11:00:10")]):
        _started(tmp_path / "run", attempt, *span)
    assert list_runs(tmp_path).data["seconds"].to_list() == [100.0]


def test_a_run_that_is_being_closed_is_running_until_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `close` removes, its lock goes when the counters say that it is closed."""
    run = Run(tmp_path / "run")
    run.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1, step=1)
    run.flush()
    said = []

    def asked_after(act: Any) -> Any:
        def acting(path: Path, *words: Any, **more: Any) -> None:
            try:
                act(path, *words, **more)
            finally:
                said.append((path.name, runs.state_of(RunLayout(tmp_path / "run"))))

        return acting

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir"):
            patch.setattr(Path, name, asked_after(getattr(Path, name)))
        run.close()
    of_lock = ("a000000-r0000.lock", "finished")
    assert of_lock in said
    assert {state for _, state in said[: said.index(of_lock)]} == {"running"}
    assert {state for _, state in said[said.index(of_lock) :]} == {"finished"}
    assert not RunLayout(tmp_path / "run").wal.exists()


_KILLED = """
import os, sys, xaicli
xaicli.Run(sys.argv[1]).log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1, step=1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    ("is_killed", "meanwhile", "state"),
    [
        (False, "nothing", "running"),
        (False, "ends", "finished"),
        (True, "nothing", "crashed"),
        (True, "begins", "running"),
        (True, "begins and ends", "finished"),
    ],
)
def test_a_process_that_ends_or_begins_while_it_is_asked_for_is_not_told_as_one_that_died(
    tmp_path: Path, xai: Any, monkeypatch: pytest.MonkeyPatch, is_killed: bool, meanwhile: str, state: str
) -> None:
    if is_killed:
        subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "run")], check=False)

    def begun() -> Run:
        run = Run(tmp_path / "run")
        run.log_samples(sample_id=[1], loss=[1.0], mode="eval", epoch=2, step=2)
        run.flush()
        return run

    recording = [] if is_killed else [begun()]
    known = runs.is_held

    def probed(lock: Path) -> bool:
        """The answer of a moment after which what the test says has happened."""
        if "begins" in meanwhile and not recording:
            answer = known(lock)
            recording.append(begun())
        elif "ends" in meanwhile:
            recording[0].close()
            answer = known(lock)
        else:
            answer = known(lock)
        return answer

    monkeypatch.setattr(runs, "is_held", probed)
    try:
        answer = json.loads(xai("watch", tmp_path / "run", "--once", "--json")[1])
    finally:
        for run in recording:
            run.close()
    assert answer["state"] == state


def test_a_run_whose_start_is_claimed_and_whose_lock_is_not_made_has_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, states = attempts.hold, list[str]()

    def asked(lock: Path) -> None:
        states.append(runs.state_of(RunLayout(tmp_path / "run")))
        hold(lock)
        states.append(runs.state_of(RunLayout(tmp_path / "run")))

    monkeypatch.setattr(attempts, "hold", asked)
    with Run(tmp_path / "run") as run:
        run.log({"loss": 1.0})
    assert states == ["waiting", "running"]
    assert runs.state_of(RunLayout(tmp_path / "run")) == "finished"


def test_a_run_before_its_first_row_has_not_finished(tmp_path: Path, xai: Any) -> None:
    run = Run(tmp_path / "run")
    try:
        assert json.loads(xai("ls", tmp_path, "--json")[1])["rows"][0]["state"] == "waiting"
        run.log_samples(sample_id=[1], loss=[1.0], mode="eval", epoch=1, step=1)
        assert json.loads(xai("ls", tmp_path, "--json")[1])["rows"][0]["state"] == "running"
    finally:
        run.close()
    assert json.loads(xai("ls", tmp_path, "--json")[1])["rows"][0]["state"] == "finished"
    with Run(tmp_path / "empty"):
        pass
    assert json.loads(xai("ls", tmp_path / "empty", "--json")[1])["rows"][0]["state"] == "finished"


def test_custom_graphs_are_in_the_json_of_the_report(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1, step=1)
        line = Summary("line")
        line.history["train"]["recall"] = {1: 0.5, 2: 0.75}
        run.state.add_graph("curve", line)
    found = json.loads(open_run(tmp_path / "run").report().to_json())["custom_graphs"]
    assert [(row["graph"], row["key"], row["step"], row["value"]) for row in found] == [
        ("curve", "recall", 1, 0.5),
        ("curve", "recall", 2, 0.75),
    ]


def test_the_command_under_what_a_run_holds(xai: Xai, root: Path, tmp_path: Path) -> None:
    """It named a task and a number of attempts, which `info` does not take, and no `--attempts all`."""
    for given in ((), ("--attempts", "all")):
        assert xai("info", root, *given, "--format", "md", "-o", tmp_path)[0] == 0
        line = next(line for line in (tmp_path / "info.md").read_text().splitlines() if "command:" in line)
        words = shlex.split(line.partition("`")[2].rpartition("`")[0])
        assert words == ["xai", "info", str(root), *given]


def test_a_command_in_markdown_is_copied_as_it_stands(xai: Xai, root: Path, tmp_path: Path) -> None:
    sql = "SELECT 'a_b*' AS \"`x` ``y\", $1 AS z".replace(", $1 AS z", "")
    assert xai("query", root, sql, "--format", "md", "-o", tmp_path)[0] == 0
    line = next(line for line in (tmp_path / "query.md").read_text().splitlines() if "command:" in line)
    code = line.partition("- command: ")[2]
    fence = code[: len(code) - len(code.lstrip("`"))]
    assert code.endswith(fence)
    inside = code.removeprefix(fence).removesuffix(fence)
    assert fence not in inside
    assert shlex.split(inside)[-1] == sql


def test_what_sql_answers_is_not_said_to_be_left_out(xai: Xai, root: Path) -> None:
    out = xai("query", root, "SELECT 1e400 AS x")[1]
    assert "inf" in out
    assert "1 non-finite value" in out
    assert "left out" not in out


def test_a_run_beside_itself_is_told(xai: Xai, root: Path) -> None:
    assert f"{root} is compared with itself" in asked(xai, "compare", root, root)["warnings"]
