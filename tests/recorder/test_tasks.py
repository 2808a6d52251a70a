"""What is recorded of each task, against torch and plain Python."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import xaicli
from tests.recorder.recorded import column, rows
from xaicli import parquet
from xaicli.errors import UsageError
from xaicli.layout import RunLayout
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run


def recorded(run_dir: Path, batch: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    with Run(run_dir, strict=True, **options) as run:
        run.log_samples(**batch, mode="eval", epoch=1, step=1)
    return rows(run_dir).to_pylist()  # type: ignore[no-any-return]


def near(row: dict[str, Any], **expected: float) -> None:
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


def of_objects(rows: list[Any]) -> Any:
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, np.array, "objects"], ids=str)
@pytest.mark.parametrize("has_scores", [True, False])
def test_classes_by_their_names(tmp_path: Path, kind: Any, has_scores: bool) -> None:
    named = [["dog", "owl"], ["owl", "cat"], ["cat", "dog"]]
    label = of_objects(named) if kind == "objects" else [kind(one) for one in named]
    scores = {"logits": torch.tensor([[-1.0, 2.0, 0.5], [1.0, 1.0, -2.0], [-1.0, -1.0, -3.0]])}
    given = scores if has_scores else {"prediction": [{"owl", "dog"}, ["cat", "dog"], []]}
    with Run(tmp_path / "run", strict=True, label_names=["cat", "dog", "owl"]) as run:
        run.log_samples(sample_id=[1, 2, 3], label=label, mode="eval", epoch=1, step=1, **given)
        run.log_inputs([1, 2, 3], np.zeros((3, 2)), label=label)
    assert RunLayout(tmp_path / "run").read_manifest().task == "multilabel"
    found = rows(tmp_path / "run").to_pylist()
    assert [(row["label"], row["prediction"], row["correct"], row["n_wrong"]) for row in found] == [
        ([1, 2], [1, 2], True, 0),
        ([0, 2], [0, 1], False, 2),
        ([0, 1], [], False, 2),
    ]
    (kept,) = (tmp_path / "run" / "inputs").glob("*.parquet")
    assert pl.read_parquet(kept)["label"].to_list() == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.parametrize(
    ("names", "sets", "reason"),
    [
        (["cat", "dog"], [None, [0]], "label 'owl' is none of label_names"),
        (None, [None, None], "Run(label_names=[...])"),
    ],
)
def test_a_class_without_a_number_costs_its_set(tmp_path: Path, names: Any, sets: Any, reason: str) -> None:
    batch: dict[str, Any] = {"sample_id": [1, 2], "label": [["dog", "owl"], ["cat"]], "loss": [0.5, 1.5]}
    with Run(tmp_path / "run", label_names=names) as run, pytest.warns(RecorderWarning) as told:
        run.log_samples(**batch, mode="eval", epoch=1, step=1)
    assert [reason in str(one.message) for one in told] == [True]
    table = rows(tmp_path / "run")
    assert table["loss"].to_pylist() == [0.5, 1.5]
    assert (table["label"].to_pylist() if "label" in table.column_names else [None, None]) == sets


@pytest.mark.parametrize("given", ["matrix", "floats", "lists"])
def test_several_classes_a_sample(tmp_path: Path, given: str) -> None:
    truth = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0]])
    logits = torch.tensor([[-1.0, 2.0, 0.5], [1.0, 1.0, -2.0], [-1.0, -1.0, -3.0]])
    label: Any = {"matrix": truth, "floats": truth.float(), "lists": [[1, 2], [0, 2], []]}[given]
    found = recorded(tmp_path / "run", {"sample_id": [1, 2, 3], "label": label, "logits": logits})
    assert RunLayout(tmp_path / "run").read_manifest().task == "multilabel"
    assert [(row["label"], row["prediction"], row["correct"]) for row in found] == [
        ([1, 2], [1, 2], True),
        ([0, 2], [0, 1], False),
        ([], [], True),
    ]
    assert [(row["jaccard"], row["n_wrong"]) for row in found] == [(1, 0), (pytest.approx(1 / 3), 2), (1, 0)]
    loss = functional.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none").mean(1)
    assert [row["loss"] for row in found] == pytest.approx(loss.tolist(), rel=1e-5)


ROWS, SETS = [[0, 1], [1, 1]], [[0, 1], [1]]
"""Of two classes: what can only be rows of (N, 2), and what can only be lists of classes."""


@pytest.mark.parametrize(
    ("first", "label", "expected"),
    [
        (ROWS, [[0, 1], [1, 0]], [[1], [0]]),
        (SETS, [[0, 1], [1, 0]], [[0, 1], [0, 1]]),
        (None, np.array([[0, 1], [1, 0]]), [[1], [0]]),
        (None, [{0, 1}, {1}], [[0, 1], [1]]),
        (None, [[True, False], [True, False]], [[0], [0]]),
        (None, [[0, 1, 0], [1, 0, 1]], [[1], [0, 2]]),
        (None, [[0, 2], [1, 0]], [[0, 2], [0, 1]]),
    ],
)
def test_lists_are_rows_or_classes_as_they_can_only_be(tmp_path: Path, first: Any, label: Any, expected: Any) -> None:
    with Run(tmp_path / "run", strict=True, task="multilabel") as run:
        if first is not None:
            run.log_samples(sample_id=[1, 2], label=first, epoch=0)
        run.log_samples(sample_id=[1, 2], label=label, epoch=1)
    assert [row["label"] for row in rows(tmp_path / "run").to_pylist() if row["epoch"]] == expected


def test_sets_are_classes_however_many_scores_there_are(tmp_path: Path) -> None:
    """Two sets of two classes each, beside two scores, look like rows of (N, 2) when they are made an array."""
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1, 2], label=[{0, 1}, {1, 0}], logits=np.array([[2.0, 2.0], [2.0, -2.0]]))
    found = sorted(rows(tmp_path / "run").to_pylist(), key=lambda row: row["sample_id"])
    assert [(row["label"], row["correct"]) for row in found] == [([0, 1], True), ([0, 1], False)]


@pytest.mark.parametrize("task", [None, "multilabel"])
def test_lists_that_may_be_rows_or_classes_are_asked_about(tmp_path: Path, task: str | None) -> None:
    with Run(tmp_path / "run", task=task) as run:
        with pytest.warns(
            RecorderWarning, match=r"numpy.array\(label\) says the first, sets such as \{0, 1\} the second"
        ):
            run.log_samples(sample_id=[1, 2], label=[[0, 1], [1, 0]], loss=[0.5, 1.5])
        run.log_samples(sample_id=[3], label=[{1}], loss=[2.5])
    found = sorted(rows(tmp_path / "run").to_pylist(), key=lambda row: row["sample_id"])
    assert [(row["label"], row["loss"]) for row in found] == [(None, 0.5), (None, 1.5), ([1], 2.5)]
    assert sum(run.stats()["refused"]["label"].values()) == 2


def test_lists_of_one_row_a_sample_are_what_a_classification_can_take(tmp_path: Path) -> None:
    logits = np.array([[1.0, 3.0], [3.0, 1.0]])
    with Run(tmp_path / "run", strict=True, task="classification") as run:
        run.log_samples(sample_id=[1, 2], label=[[0, 1], [1, 0]], logits=logits, epoch=1)
        run.log_samples(sample_id=[1, 2], label=[[0.25, 0.75], [0.5, 0.5]], logits=logits, epoch=2)
        run.log_samples(sample_id=[1, 2], label=[[1], [1]], logits=logits, epoch=3)
    found = sorted(rows(tmp_path / "run").to_pylist(), key=lambda row: (row["epoch"], row["sample_id"]))
    assert [(row["label"], row["prediction"]) for row in found] == [(1, 1), (0, 0), (1, 1), (0, 0), (1, 1), (1, 0)]
    soft = [-(p * np.log(q) + (1 - p) * np.log(1 - q)) for p, q in ((0.75, 0.8807971), (0.5, 0.1192029))]
    assert [row["loss"] for row in found[2:4]] == pytest.approx(soft, rel=1e-5)


@pytest.mark.parametrize(
    ("probs", "told"),
    [
        ([[0.9, 0.9], [0.2, 0.1]], 1),
        ([[-0.5, 1.5], [0.5, 0.5]], 1),
        ([[0.25, 0.75], [1.0, 0.0]], 0),
        ([[math.nan, 0.75], [1.0, 0.0]], 0),
    ],
)
def test_probabilities_that_are_none_are_told_once(tmp_path: Path, probs: Any, told: int) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        for step in range(3):
            run.log_samples(sample_id=[1, 2], label=[0, 1], probs=probs, epoch=step, step=step)
    assert [("do not sum to one" in str(one.message)) for one in said] == [True] * told


def test_truth_values_are_no_ids(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        with pytest.warns(RecorderWarning, match="not truth values"):
            run.log_samples(sample_id=[1, True, 3], loss=[0.5, 1.5, 2.5])
        with pytest.warns(RecorderWarning, match="not bool"):
            run.log_samples(sample_id=np.array([True, False]), loss=[3.5, 4.5])
        run.log_samples(sample_id=torch.tensor([True]), loss=[5.5])
    assert [(row["sample_id"], row["loss"]) for row in rows(tmp_path / "run").to_pylist()] == [(1, 0.5), (3, 2.5)]
    assert run.stats()["rows_dropped"] == 4


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            {"label": [[1, 2, 3], [1, 2]], "logits": np.zeros((2, 3, 4))},
            "label has a row that is not of the 3 numbers that are needed; a ",
        ),
        ({"loss": [[1.0, 2.0], [1.0]]}, "loss has rows of different lengths, 1 to 2"),
        ({"logits": [[1.0, 2.0], [1.0]]}, "logits has rows of different lengths, 1 to 2"),
        ({"probs": [[1.0], [1.0, 2.0, 3.0]]}, "probs has rows of different lengths, 1 to 3"),
    ],
)
def test_ragged_columns_are_refused_in_our_words(tmp_path: Path, batch: dict[str, Any], said: str) -> None:
    with Run(tmp_path / "run", strict=True) as run, pytest.raises(ValueError, match=said) as caught:
        run.log_samples(sample_id=[1, 2], **batch)
    assert "inhomogeneous" not in str(caught.value)


RNG = np.random.default_rng(0)
LOGITS, SETS_OF = RNG.normal(size=(3, 3)), np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0]])
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
BATCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("classification", {"label": np.array([0, 1, 2]), "logits": LOGITS}),
    "probs": ("classification", {"label": np.array([0, 1, 2]), "probs": SHARES}),
    "many logits": ("classification", {"label": np.array([0, 9, 39]), "logits": RNG.normal(size=(3, 40))}),
    "very many logits": ("classification", {"label": np.array([0, 9, 39]), "logits": RNG.normal(size=(3, 2100))}),
    "one-hot": ("classification", {"label": np.eye(3)[[2, 0, 1]], "logits": LOGITS}),
    "soft": ("classification", {"label": SHARES[::-1], "logits": LOGITS}),
    "binary": ("binary", {"label": np.array([0, 1, 1]), "logits": LOGITS[0]}),
    "binary probs": ("binary", {"label": np.array([0, 1, 1]), "probs": SHARES[0]}),
    "soft binary": ("binary", {"label": np.array([0.25, 0.5, 0.75]), "logits": LOGITS[0]}),
    "multilabel": ("multilabel", {"label": SETS_OF, "logits": LOGITS}),
    "multilabel probs": ("multilabel", {"label": SETS_OF, "probs": SHARES}),
    "sets": ("multilabel", {"label": SETS_OF, "prediction": SETS_OF[::-1]}),
    "regression": ("regression", {"label": LOGITS[0], "prediction": LOGITS[1]}),
    "regression scores": ("regression", {"label": LOGITS[0], "logits": LOGITS[1]}),
    "sequence": ("sequence", {"label": np.array([[0, 1], [2, 2], [1, -100]]), "logits": RNG.normal(size=(3, 2, 3))}),
}
OF_BOTH = ("list", "arrays", "tensors", "masked", "objects")
GAPS: dict[int, tuple[str, ...]] = {
    1: ("list", "objects", "masked", "pandas", "polars", "arrow"),
    2: (*OF_BOTH, "pandas", "polars", "arrow"),
    3: OF_BOTH,
}


def with_a_gap(values: Any, at: int, container: str) -> Any:
    """The same values, in another container and without one row."""
    rows = [None if i == at else one for i, one in enumerate(values.tolist())]
    match container:
        case "list":
            return rows
        case "arrays":
            return [None if i == at else one for i, one in enumerate(values)]
        case "tensors":
            return [None if i == at else torch.tensor(one) for i, one in enumerate(values)]
        case "masked":
            mask = np.zeros(values.shape, bool)
            mask[at] = True
            return np.ma.array(values, mask=mask)
        case "objects":
            held = values.astype(object)
            held[at] = None
            return held
    if values.ndim == 1:
        kind = "Float64" if values.dtype.kind == "f" else "Int64"
        made = {"pandas": lambda: pd.Series(rows, dtype=kind), "polars": lambda: pl.Series(rows)}
        return made.get(container, lambda: pa.array(rows))()
    columns = {str(k): [None if row is None else row[k] for row in rows] for k in range(values.shape[1])}
    frames = {"pandas": lambda: pd.DataFrame(columns).convert_dtypes(), "polars": lambda: pl.DataFrame(columns)}
    return frames.get(container, lambda: pa.table(columns))()


def stored_of(run_dir: Path, task: str | None, batch: dict[str, Any], *, strict: bool = True) -> list[dict[str, Any]]:
    n = len(next(iter(batch.values())))
    with Run(run_dir, strict=strict, task=task, keep_tokens=task == "sequence") as run:
        run.log_samples(sample_id=range(n), mode="eval", epoch=1, **batch)
    kept = xaicli.open_run(run_dir).scan(mode="all").sort("sample_id").collect()
    return kept.drop("sample_id", "attempt", "rank", "step", "epoch", "pass", "mode", "ds_id").to_dicts()


@pytest.fixture(scope="module")
def stored_whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], list[dict[str, Any]]]:
    """What is stored of the first rows of one of `BATCHES` without a gap, each recorded once."""

    @functools.cache
    def stored(name: str, n: int) -> list[dict[str, Any]]:
        task, batch = BATCHES[name]
        return stored_of(tmp_path_factory.mktemp("whole") / "run", task, {key: v[:n] for key, v in batch.items()})

    return stored


@pytest.mark.parametrize(
    ("name", "column", "container", "n"),
    [
        (name, column, container, n)
        for name, (_, batch) in BATCHES.items()
        for column, values in batch.items()
        for container in GAPS[values.ndim]
        for n in ((2, 3) if container == "list" else (3,))
    ],
)
def test_a_missing_row_costs_that_row_alone(
    tmp_path: Path,
    stored_whole: Callable[[str, int], list[dict[str, Any]]],
    name: str,
    column: str,
    container: str,
    n: int,
) -> None:
    """What follows of the others is what follows of them without a gap; of it there is nothing, not even NaN."""
    task, batch = BATCHES[name]
    batch = {key: values[:n] for key, values in batch.items()}
    whole = stored_whole(name, n)
    found = stored_of(tmp_path / "gap", task, batch | {column: with_a_gap(batch[column], 1, container)})
    assert [found[i] for i in range(n) if i != 1] == [
        {key: near_to(value) for key, value in whole[i].items()} for i in range(n) if i != 1
    ]
    kept = {key: value for key, value in found[1].items() if value is not None}
    if task == "sequence":
        assert kept == {}
    elif column != "label":
        assert kept == {"label": whole[1]["label"]}
    else:
        needless = {"prediction", "top_prob", "entropy"} & whole[1].keys()
        assert kept.keys() == needless
        assert kept == {key: near_to(whole[1][key]) for key in needless}


def near_to(value: Any) -> Any:
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize("task", [None, "classification"])
@pytest.mark.parametrize("label", [[[0.5, 0.25, 0.25], None, [0.125, 0.75, 0.125]], [[1, 0, 0], None, [0, 1, 0]]])
def test_rows_of_a_class_are_those_beside_a_gap(tmp_path: Path, task: str | None, label: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecorderWarning)  # which names the other task there may be
        found = stored_of(tmp_path / "run", task, {"label": label, "logits": LOGITS}, strict=False)
    assert [row["label"] for row in found] == [0, None, 1]


THREE = [[1, 0, 1], [1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([THREE[0], None, THREE[2]], None),
        ([THREE[0], math.nan, THREE[2]], None),
        ([np.array(THREE[0]), None, np.array(THREE[2])], None),
        ([torch.tensor(THREE[0]), None, torch.tensor(THREE[2])], None),
        ([[1.0, 0.0, 1.0], None, [0.0, 1.0, 0.0]], None),
        ([[True, False, True], None, [False, True, False]], None),
        (np.array([THREE[0], [None] * 3, THREE[2]], object), None),
        (np.array([THREE[0], [np.nan] * 3, THREE[2]]), None),
        (pd.Series([THREE[0], None, THREE[2]]), None),
        ([THREE[0], [1, 0], THREE[2]], "label has a row that is not of the 3 numbers that are needed"),
        ([THREE[0], [], THREE[2]], "label has a row that is not of the 3 numbers that are needed"),
        ([THREE[0], [1, 7, 0], THREE[2]], "label of several classes must be 0 or 1 each"),
        ([THREE[0], [1, None, 0], THREE[2]], "label has a row of which some numbers are missing"),
        ([THREE[0], "text", THREE[2]], "label has a row that is not of numbers"),
        ([THREE[0], {}, THREE[2]], "label has a row that is not of numbers"),
    ],
)
@pytest.mark.parametrize("task", [None, "multilabel"])
def test_a_row_of_a_set_that_is_none_changes_nothing_for_the_others(
    tmp_path: Path, label: Any, reason: str | None, task: str | None
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = stored_of(tmp_path / "run", task, {"label": label, "logits": 3 * (2 * SETS_OF - 1)}, strict=False)
    assert [(row["label"], row["correct"], row["n_wrong"]) for row in found] == [
        ([0, 2], True, 0),
        (None, None, None),
        ([1], True, 0),
    ]
    told = [str(one.message) for one in said]
    assert [f"xai: {reason}; it is left out of 1 row, which is kept"] * (reason is not None) == told


@pytest.mark.parametrize(
    ("before", "label", "expected"),
    [
        (np.array(THREE), [[1, 0, 1], None, [0, 1, 0]], [[0, 2], None, [1]]),
        (THREE, [[1, 0], None, [0, 1, 0]], [None, None, [1]]),  # of rows a short one is none
        ([[0], [1, 2], [2]], [[1, 0], None, [0]], [[0, 1], None, [0]]),
        ([[0], [1, 2], [2]], [np.array([1, 0]), None, np.array([2])], [[0, 1], None, [2]]),
    ],
)
def test_lists_are_what_they_were_before(tmp_path: Path, before: Any, label: Any, expected: Any) -> None:
    with warnings.catch_warnings(), Run(tmp_path / "run", task="multilabel") as run:
        warnings.simplefilter("ignore", RecorderWarning)
        for epoch, given in enumerate((before, label)):
            run.log_samples(sample_id=[0, 1, 2], label=given, logits=LOGITS, mode="eval", epoch=epoch)
    kept = xaicli.open_run(tmp_path / "run").scan(mode="all").sort("epoch", "sample_id").collect()
    assert kept["label"].to_list()[3:] == expected


def test_predicted_rows_are_rows_beside_a_gap(tmp_path: Path) -> None:
    found = stored_of(tmp_path / "run", "multilabel", {"label": SETS_OF, "prediction": [THREE[0], None, THREE[2]]})
    assert [(row["prediction"], row["correct"]) for row in found] == [([0, 2], True), (None, None), ([1], True)]


@pytest.mark.parametrize("task", [None, "multilabel"])
def test_labels_of_inputs_are_rows_beside_a_gap(tmp_path: Path, task: str | None) -> None:
    with Run(tmp_path / "run", strict=True, task=task) as run:
        for at, label in enumerate((THREE, [THREE[0], None, THREE[2]], [{0, 1}, None, {2}], [[0], [1, 2], [2]])):
            run.log_inputs([3 * at, 3 * at + 1, 3 * at + 2], np.ones((3, 2), np.float32), label=label)
    files = sorted((tmp_path / "run" / "inputs").glob("*.parquet"))
    kept = {row["sample_id"]: row["label"] for file in files for row in parquet.read(file).to_pylist()}
    sets: list[Any] = [[0, 2], [0, 1], [1], [0, 2], None, [1], [0, 1], None, [2], [0], [1, 2], [2]]
    assert [kept[i] for i in range(12)] == sets


@pytest.mark.parametrize("way", ["prediction", "logits"])
def test_a_regression(tmp_path: Path, way: str) -> None:
    answer = torch.tensor([2.0, -1.25]) if way == "prediction" else torch.tensor([[2.0], [-1.25]])
    found = recorded(tmp_path / "run", {"sample_id": [1, 2], "label": torch.tensor([1.5, 2.0]), way: answer})
    assert [(row["label"], row["prediction"]) for row in found] == [(1.5, 2.0), (2.0, -1.25)]
    assert [(row["residual"], row["abs_error"], row["loss"]) for row in found] == [
        (-0.5, 0.5, 0.25),
        (3.25, 3.25, 10.5625),
    ]
    assert "correct" not in found[0]


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
@pytest.mark.parametrize("task", [None, "regression"])
@pytest.mark.parametrize("beside", [{}, {"prediction": torch.tensor([1.0, 2.5])}], ids=["alone", "beside prediction"])
def test_several_scores_a_sample_are_no_prediction_of_a_regression(
    tmp_path: Path, kind: str, make: Any, task: str | None, beside: dict[str, Any]
) -> None:
    batch: dict[str, Any] = {"sample_id": [1, 2], "label": torch.tensor([1.5, 2.0]), "loss": [0.5, 1.5], **beside}
    batch[kind] = make([[0.25, 0.75], [0.5, 0.5]])
    said = f"{kind} of a regression are its predictions, one a sample: they have shape (2, 2)"
    with warnings.catch_warnings(record=True) as told, Run(tmp_path / "run", task=task) as run:
        warnings.simplefilter("always")
        for epoch in (1, 2):
            run.log_samples(**batch, mode="eval", epoch=epoch, step=epoch)
    assert [str(one.message) for one in told] == [f"xai: {said}; it is left out of 2 rows, which are kept"]
    assert run.stats()["refused"] == {kind: {said: 4}}
    kept = rows(tmp_path / "run").to_pylist()
    assert [(row["label"], row["loss"]) for row in kept] == [(1.5, 0.5), (2.0, 1.5)] * 2
    assert [row.get("residual") for row in kept] == [*([0.5, -0.5] if beside else [None, None])] * 2
    with Run(tmp_path / "strict", task=task, strict=True) as run, pytest.raises(ValueError, match="one a sample"):
        run.log_samples(**batch)


TOKENS: dict[str, Any] = {
    "label": torch.tensor([[0, 1], [1, 1]]),
    "prediction": torch.tensor([[0, 0], [1, 1]]),
    "logits": torch.zeros(2, 2, 2),
    "probs": torch.full((2, 2, 2), 0.5),
}


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        (["label"], ["label"]),
        (["prediction"], ["prediction"]),
        (["label", "prediction"], ["label", "prediction"]),
        (["logits"], ["logits"]),
        (["probs"], ["probs"]),
        (["label", "logits", "prediction"], ["prediction"]),
        (["label", "probs"], []),
    ],
)
def test_what_a_sequence_has_no_column_for_is_told(tmp_path: Path, given: list[str], left_out: list[str]) -> None:
    batch = {"sample_id": [1, 2], "loss": [0.5, 1.5], **{name: TOKENS[name] for name in given}}
    with warnings.catch_warnings(record=True) as told, Run(tmp_path / "run", task="sequence") as run:
        warnings.simplefilter("always")
        for epoch in (1, 2):
            run.log_samples(**batch, mode="eval", epoch=epoch, step=epoch)
    assert {name: sum(why.values()) for name, why in run.stats()["refused"].items()} == dict.fromkeys(left_out, 4)
    assert len(told) == len(left_out)
    found = rows(tmp_path / "run").to_pylist()
    assert [row["loss"] for row in found] == [0.5, 1.5] * 2
    assert [row.get("token_accuracy") for row in found] == (
        [0.5, 0.0] * 2 if len(given) > len(left_out) else [None] * 4
    )
    for name in left_out:
        with (
            Run(tmp_path / name, task="sequence", strict=True) as run,
            pytest.raises(ValueError, match="of a sequence"),
        ):
            run.log_samples(**batch)


def test_a_sequence_without_values_has_nothing_left_out(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"label": [None, None], "prediction": [None, None]}
    assert [
        row["loss"] for row in recorded(tmp_path, {"sample_id": [1, 2], "loss": [0.5, 1.5], **nothing}, task="sequence")
    ] == [0.5, 1.5]


@pytest.mark.parametrize(
    ("task", "batch", "expected"),
    [
        (
            "regression",
            {"label": [1.5, 2.0], "prediction": [1.0, 2.5], "logits": [[8.0], [9.0]]},
            [{"prediction": 1.0, "residual": 0.5}, {"prediction": 2.5, "residual": -0.5}],
        ),
        (
            "multilabel",
            {"prediction": [{1}, {0, 1}], "probs": [[0.75, 0.25], [0.25, 0.25]]},
            [{"prediction": [1]}, {"prediction": [0, 1]}],
        ),
    ],
)
def test_a_prediction_counts_before_scores_and_that_is_told(
    tmp_path: Path, task: str, batch: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    with pytest.warns(RecorderWarning, match="(logits|probs) beside prediction are not looked at") as told:
        found = recorded(tmp_path / "run", {"sample_id": [1, 2], **batch}, task=task)
    assert len(told) == 1
    assert [{name: row[name] for name in one} for row, one in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_only_sequences_have_tokens_to_keep(tmp_path: Path, task: str) -> None:
    with pytest.warns(RecorderWarning, match=f"keep_tokens .* of a {task} task there are none") as told:
        recorded(tmp_path / "run", {"sample_id": [1, 2], "loss": [0.5, 1.5]}, task=task, keep_tokens=True)
    assert len(told) == 1


def test_a_sequence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(3, 4, 5), torch.tensor([[0, 1, 2, 3], [4, 4, -100, -100], [-100] * 4])
    batch = {"sample_id": ["a", "b", "c"], "label": label, "logits": logits}
    found = recorded(tmp_path / "run", batch, keep_tokens=True)
    losses = functional.cross_entropy(logits.transpose(1, 2), label, ignore_index=-100, reduction="none")
    p = logits.softmax(2)
    for i, row in enumerate(found[:2]):
        valid = label[i] != -100
        own = losses[i][valid]
        near(
            row,
            loss=float(own.mean()),
            label_prob=math.exp(-float(own.mean())),
            n_tokens=int(valid.sum()),
            token_accuracy=float((logits[i].argmax(1) == label[i])[valid].float().mean()),
            entropy=float(-(p[i] * p[i].log()).sum(1)[valid].mean()),
            worst_token=int(torch.where(valid, losses[i], -1).argmax()),
            worst_token_loss=float(own.max()),
        )
        assert row["token_losses"] == pytest.approx(own.tolist(), rel=1e-3)
    assert (found[2]["n_tokens"], found[2]["token_losses"]) == (0, [])
    assert found[2]["loss"] is None


@pytest.mark.parametrize("classes", [3, 50])
def test_soft_labels(tmp_path: Path, classes: int) -> None:
    torch.manual_seed(1)
    soft, logits = torch.randn(4, classes).softmax(1), torch.randn(4, classes)
    found = recorded(tmp_path / "run", {"sample_id": range(4), "label": soft, "logits": logits})
    p = logits.softmax(1)
    loss = functional.cross_entropy(logits, soft, reduction="none")
    assert [row["label"] for row in found] == soft.argmax(1).tolist()
    assert [row["loss"] for row in found] == pytest.approx(loss.tolist(), rel=1e-4)
    assert [row["label_prob"] for row in found] == pytest.approx((p * soft).sum(1).tolist(), rel=1e-4)
    assert [row["el2n"] for row in found] == pytest.approx((p - soft).norm(dim=1).tolist(), rel=1e-4)


@pytest.mark.parametrize("ignored", [-100, 1])
@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_an_ignored_label_is_none(tmp_path: Path, ignored: int, make: Any) -> None:
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], np.float32)
    with Run(tmp_path / "run", strict=True, ignore_label=ignored) as run:
        for step in (1, 2):
            run.log_samples(sample_id=[1, 2, 3], label=make([0, ignored, 0]), logits=logits, step=step)
    for row in rows(tmp_path / "run").to_pylist():
        expected = {1: (0, 0, True), 2: (None, 0, None), 3: (0, 1, False)}[row["sample_id"]]
        assert (row["label"], row["prediction"], row["correct"]) == expected
        assert (row["loss"] is None) == (row["sample_id"] == 2)


def test_what_is_right_may_be_unknown(tmp_path: Path) -> None:
    for number, correct in enumerate(([1.0, math.nan, 0.0], np.array([1.0, np.nan, 0.0]), [True, None, False])):
        found = recorded(tmp_path / str(number), {"sample_id": [1, 2, 3], "correct": correct})
        assert [row["correct"] for row in found] == [True, None, False]


def test_whole_numbers_beyond_single_precision_are_kept(tmp_path: Path) -> None:
    big = 2**24 + 1
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], count=[5], step=1)
        run.flush()
        with pytest.warns(match=r"count has whole numbers beyond 2\^24"):
            run.log_samples(sample_id=[1], count=[big], step=2)
        run.log_samples(sample_id=np.array([1]), count=np.array([big + 2]), step=3)
    parts = sorted((tmp_path / "run" / "data").rglob("*.parquet"))
    assert len(parts) == 2
    from xaicli import parquet

    assert parquet.read(parts[1])["count"].to_pylist() == [big, big + 2]


def test_the_task_is_said_or_told_by_the_first_batch_with_a_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the tasks"):
        Run(tmp_path / "run", task="guessing")
    with Run(tmp_path / "run", task="regression", strict=True) as run:
        run.log_samples(sample_id=[1, 2], label=[1.0, 2.0], prediction=[1.0, 3.0])
    assert [row["residual"] for row in rows(tmp_path / "run").to_pylist()] == [0.0, -1.0]
    with Run(tmp_path / "run", strict=True) as run:  # the run knows
        run.log_samples(sample_id=[1], label=[4], prediction=[4.5], epoch=2)
    assert rows(tmp_path / "run").to_pylist()[-1]["abs_error"] == 0.5


@pytest.mark.parametrize("first", [[None, None], []])
@pytest.mark.parametrize("then", [[0, 1], ["cat", "dog"]])
def test_a_batch_without_a_value_settles_nothing(tmp_path: Path, first: list[Any], then: list[Any]) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1, 2][: len(first)], label=first, loss=[0.5, 1.5][: len(first)], step=1)
        run.log_samples(sample_id=[1, 2], label=then, loss=[0.5, 1.5], step=2)
        run.log_samples(sample_id=[1, 2], label=[None, None], loss=[0.5, 1.5], step=3)
    found = rows(tmp_path / "run").to_pylist()
    assert [row["label"] for row in found] == [*first, *then, None, None]


def test_kept_inputs_of_a_regression_have_their_values(tmp_path: Path) -> None:
    with Run(tmp_path / "run", task="regression", strict=True) as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0.5, 1.5, -2.25], prediction=[0.0, 0.0, 0.0], mode="eval", epoch=1)
        run.log_inputs([1, 2, 3], np.ones((3, 4), np.float32), label=[0.5, float("nan"), -2.25])
    kept = pl.read_parquet(tmp_path / "run" / "inputs").sort("sample_id")
    assert kept["label"].to_list() == [0.5, None, -2.25]


def test_several_numbers_a_sample_are_no_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(0, 5, (50, 3))
    run = Run(tmp_path / "run")
    with pytest.warns(RecorderWarning, match=r"label has shape \(50, 3\).*log each as a metric"):
        run.log_samples(sample_id=range(50), label=y, loss=(y**2).mean(1), mode="eval", epoch=1)
    run.log_samples(sample_id=range(50), label=y[:, 0], prediction=y[:, 0] + 1, mode="eval", epoch=2)
    run.close()
    later = xaicli.open_run(tmp_path / "run").scan().filter(pl.col("epoch") == 2).collect()
    assert np.allclose(later["label"].to_numpy(), y[:, 0])
    assert np.allclose(later["residual"].to_numpy(), -1)


@pytest.mark.parametrize("given", [list, np.array, torch.tensor])
@pytest.mark.parametrize("kind", [int, float])
def test_rows_of_the_one_class_of_a_multilabel_run_are_rows(given: Any, kind: Any, tmp_path: Path) -> None:
    label = given([[kind(1)], [kind(0)], [kind(1)]])
    with Run(tmp_path / "run", task="multilabel", strict=True) as run:
        run.log_samples(sample_id=[0, 1, 2], label=label, logits=[[1.0], [-1.0], [-1.0]], epoch=1)
    assert column(tmp_path / "run", "label") == [[0], [], [0]]
    assert column(tmp_path / "run", "correct") == [True, True, False]


@pytest.mark.parametrize("given", [np.array, torch.tensor, list, pd.DataFrame])
def test_tokens_with_a_gap_are_floats_and_the_others_are_kept(given: Any, tmp_path: Path) -> None:
    nan = float("nan")
    with Run(tmp_path / "run", task="sequence", strict=True) as run:
        label = given([[0.0, 1.0], [nan, nan], [1.0, 0.0]])
        run.log_samples(sample_id=[0, 1, 2], label=label, logits=np.zeros((3, 2, 2)), epoch=1)
    assert column(tmp_path / "run", "loss") == [pytest.approx(math.log(2)), None, pytest.approx(math.log(2))]
    with Run(tmp_path / "odd", task="sequence") as run:
        label = given([[0.0, 1.0], [nan, 1.0], [0.5, 0.0]])
        with pytest.warns(RecorderWarning, match="of whole numbers"):
            run.log_samples(sample_id=[0, 1, 2], label=label, logits=np.zeros((3, 2, 2)), epoch=1)
        assert sum(run.stats()["refused"]["label"].values()) == 2
    assert column(tmp_path / "odd", "loss") == [pytest.approx(math.log(2)), None, None]
