"""The same values in every container that people hold a column in, through every entry: what is kept is the same.

What is right is written down by hand, a value at a time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.recorder.recorded import column, rows
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run
from xaicli.tables.containers import read

WHERE: dict[str, Any] = {"mode": "eval", "epoch": 1, "step": 1}
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy objects": lambda values: np.array(values, object),
    "masked": lambda values: np.ma.array(
        [next(v for v in values if v is not None) if v is None else v for v in values],
        mask=[v is None for v in values],
        dtype=np.uint64 if _is_large(values) else None,
    ),
    "byte order": lambda values: swapped(CONTAINERS["masked"](values)),
    "list with NA": lambda values: [pd.NA if v is None else v for v in values],
    "pandas objects": lambda values: pd.Series(values, dtype=object),
    "pandas index": lambda values: pd.Index(values, dtype=object),
    "pandas category": lambda values: pd.Series(values, dtype=object).astype("category"),
    "pandas array": lambda values: pd.array(values, dtype=_pandas_type(values)),
    "pandas series": lambda values: pd.Series(values, dtype=_pandas_type(values), index=[7, 3, 5]),
    "pandas of Arrow": lambda values: pd.Series(pd.array(_arrow(values), dtype=pd.ArrowDtype(_arrow(values).type))),
    "polars": lambda values: pl.Series(values),
    "Arrow": lambda values: _arrow(values),
    "Arrow chunks": lambda values: pa.chunked_array([_arrow(values)[:1], _arrow(values)[1:]]),
    "Arrow dictionary": lambda values: _arrow(values).dictionary_encode(),
}


def swapped(array: Any) -> Any:
    """An array in the byte order of other machines, as files of FITS, HDF5 and netCDF have it."""
    return array.astype(array.dtype.newbyteorder("S"))


def _pandas_type(values: list[Any]) -> str:
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return "string"
    if any(isinstance(value, bool) for value in known):
        return "boolean"
    if any(isinstance(value, float) for value in known):
        return "Float64"
    return "UInt64" if _is_large(values) else "Int64"


def _arrow(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.uint64() if _is_large(values) else None)


def _is_large(values: list[Any]) -> bool:
    """Whether one is a whole number that only an unsigned one of 64 bits holds."""
    return any(isinstance(value, int) and value >= 2**63 for value in values)


@pytest.fixture(params=CONTAINERS)
def held(request: pytest.FixtureRequest) -> Callable[[list[Any]], Any]:
    return CONTAINERS[request.param]


@pytest.fixture(autouse=True)
def _untold() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecorderWarning)
        yield


def kept(folder: Path, name: str) -> list[Any]:
    """A column of the files of records, in the order of their ids."""
    tables = [pq.read_table(path) for path in sorted(folder.rglob("*.parquet"))]
    if not tables:
        return []
    return pa.concat_tables(tables).sort_by("sample_id")[name].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("ids", "right", "reason"),
    [
        ([1, None, 3], [1, 3], "sample_id has a missing value"),
        (["a", None, "c"], ["a", "c"], "sample_id has a missing value"),
        ([2**60 + 1, None, 2**60 + 3], [2**60 + 1, 2**60 + 3], "sample_id has a missing value"),
        ([1.0, 2.5, 3.0], [1, 3], "sample_id must be whole numbers or texts, not float64"),
        ([1, 2**63, 3], [1, 3], f"sample_id has a value beyond 64 bits: {2**63}"),
        ([3, 1, 2], [1, 2, 3], ""),
        (["c", "a", "b"], ["a", "b", "c"], ""),
    ],
)
def test_an_id_that_is_none_costs_itself_whatever_holds_it_and_wherever_it_is_given(
    tmp_path: Path, held: Callable[[list[Any]], Any], ids: list[Any], right: list[Any], reason: str
) -> None:
    run_dir = tmp_path / "run"
    with Run(run_dir) as run:
        run.log_samples(sample_id=held(ids), loss=[0.0, 1.0, 2.0], **WHERE)
        run.log_facts(held(ids), place=["x", "y", "z"])
        run.log_images(held(ids), np.zeros((3, 2, 2), np.uint8))
        run.log_inputs(held(ids), np.ones((3, 2)))
        told = run.stats()
    n = 3 - len(right)
    assert column(run_dir, "sample_id") == right
    assert [kept(run_dir / folder, "sample_id") for folder in ("facts", "media", "inputs")] == [right] * 3
    assert told["reasons"] == ({reason: n} if n else {})
    assert told["refused"] == ({folder: {reason: n} for folder in ("facts", "media", "inputs")} if n else {})


@pytest.mark.parametrize(
    ("label", "right"),
    [
        ([0, None, 2], [0, None, 2]),
        (["a", None, "c"], ["a", None, "c"]),
        ([0, 2**40, 1], [0, None, 1]),
        ([0.0, 1.5, 2.0], [0, None, 2]),
        ([True, None, False], [1, None, 0]),
    ],
)
def test_a_label_that_cannot_be_kept_is_missing_alone(
    tmp_path: Path, held: Callable[[list[Any]], Any], label: list[Any], right: list[Any]
) -> None:
    run_dir = tmp_path / "run"
    with Run(run_dir, task="classification") as run:
        run.log_samples(sample_id=[1, 2, 3], label=held(label), loss=[0.0, 1.0, 2.0], **WHERE)
        run.log_inputs([1, 2, 3], np.ones((3, 2)), label=held(label))
        told = run.stats()["refused"]
    assert column(run_dir, "label") == kept(run_dir / "inputs", "label") == right
    refused = sum(one is not None for one in label) - sum(one is not None for one in right)
    assert [sum(told.get(name, {}).values()) for name in ("label", "label of inputs")] == [refused] * 2


NUMBERS: list[tuple[list[Any], list[Any]]] = [
    ([2**24 + 1, None, 5], [2.0**24 + 1, None, 5.0]),
    ([0.1, None, math.inf], [float(np.float32(0.1)), None, math.inf]),
    ([1e300, None, 2.0], [1e300, None, 2.0]),
    ([True, None, False], [1.0, None, 0.0]),
]


def test_a_number_of_a_metric_is_the_same_beside_a_gap_as_without(
    tmp_path: Path, held: Callable[[list[Any]], Any]
) -> None:
    with Run(tmp_path / "run") as run:
        metrics = {f"size_{at}": held(values) for at, (values, _) in enumerate(NUMBERS)}
        run.log_samples(sample_id=[1, 2, 3], **metrics, **WHERE)
        told = run.stats()
    for at, (_, right) in enumerate(NUMBERS):
        assert column(tmp_path / "run", f"size_{at}") == right
    assert not told["refused"]


def test_whole_numbers_that_no_double_holds_are_counted_beside_others(
    tmp_path: Path, held: Callable[[list[Any]], Any]
) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3], size=held([2**53 + 1, None, 2**53]), **WHERE)
        told = run.stats()["altered"]
    assert column(tmp_path / "run", "size") == [2.0**53, None, 2.0**53]
    assert list(told["size"].values()) == [1]


@pytest.mark.parametrize("values", [[2**24 + 1, 2**53 + 1, 2**70], [2**53 + 1, 0.5, 2**24 + 1]])
def test_whole_numbers_of_several_widths_are_held_against_doubles_one_by_one(tmp_path: Path, values: list[Any]) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3], size=values, **WHERE)
        told = run.stats()["altered"]
    assert column(tmp_path / "run", "size") == [float(value) for value in values]
    assert list(told["size"].values()) == [1]


def test_real_numbers_that_are_whole_ones_single_precision_lacks_are_doubles(tmp_path: Path) -> None:
    """A column of a table with a gap is of real numbers in pandas; so is one whose kind of call was seen before."""
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], size=np.array([5.0, 2.0]), mode="eval", epoch=1, step=1)
        run.log_samples(sample_id=[1, 2], size=pd.Series([2**24 + 1, None]), mode="eval", epoch=1, step=2)
    assert column(tmp_path / "run", "size")[:2] == [5.0, 2.0**24 + 1]


KEPT: list[list[Any]] = [
    [2**53 + 1, None, 3],
    ["a", None, "c"],
    [0.1, None, 0.3],
    [True, None, False],
    [2**53 + 1, 2, 3],
    ["a", "b", "c"],
    [0.1, 0.2, 0.3],
]


def test_facts_and_tables_keep_each_value(tmp_path: Path, held: Callable[[list[Any]], Any]) -> None:
    run_dir = tmp_path / "run"
    with Run(run_dir) as run:
        run.log_samples(sample_id=[1, 2, 3], loss=[0.0, 1.0, 2.0], **WHERE)
        run.log_facts([1, 2, 3], **{f"fact_{at}": held(values) for at, values in enumerate(KEPT)})
        columns = {f"value_{at}": held(values) for at, values in enumerate(KEPT)}
        table = run.add_metrics_data({"example_id": [0, 1, 2], **columns})
        told = run.stats()["refused"]
    stored = pq.read_table(table)
    for at, values in enumerate(KEPT):
        assert kept(run_dir / "facts", f"fact_{at}") == values
        assert stored[f"value_{at}"].to_pylist() == values
    assert not told


def test_frames_are_rows_of_their_columns(tmp_path: Path) -> None:
    probs = np.array([[0.75, 0.25, 0.0], [0.25, 0.5, 0.25], [0.125, 0.25, 0.625]])
    names = list("abc")
    frames = [
        pd.DataFrame(probs, columns=names),
        pd.DataFrame(probs, columns=names).convert_dtypes(),
        pl.DataFrame(probs, schema=names),
        pa.table(dict(zip(names, probs.T, strict=True))),
        pl.Series(probs, dtype=pl.Array(pl.Float64, 3)),
        pl.Series(probs.tolist()),
        pa.array(probs.tolist()),
        pa.array(probs.tolist(), pa.list_(pa.float64(), 3)),
        pd.Series(list(probs)),
        [torch.tensor(row) for row in probs],
        swapped(probs),
        [swapped(row) for row in probs],
        probs.astype(object),
        pd.DataFrame({"name": names, "p": probs[:, 0], "q": probs[:, 1], "r": probs[:, 2]}).to_numpy()[:, 1:],
        pd.DataFrame(probs).astype(object),
        np.array([[0.75, 0.25, 0], [0.25, 0.5, 0.25], [0.125, 0.25, np.float32(0.625)]], object),
    ]
    for at, frame in enumerate(frames):
        label = pd.DataFrame({"y": [0, 1, 1]})
        with Run(tmp_path / f"{at}") as run:
            run.log_samples(
                sample_id=pd.DataFrame({"id": [1, 2, 3]}), label=label, probs=frame, mine=[1, 2, 3], **WHERE
            )
            told = run.stats()
        assert (told["refused"], told["rows_dropped"]) == ({}, 0), at
        assert column(tmp_path / f"{at}", "label") == [0, 1, 1], at
        assert column(tmp_path / f"{at}", "prediction") == [0, 1, 2], at
        assert np.allclose(column(tmp_path / f"{at}", "label_prob"), [0.75, 0.5, 0.25]), at
        assert column(tmp_path / f"{at}", "mine") == [1.0, 2.0, 3.0], at


def test_sets_of_classes_are_the_same_as_rows_and_as_lists(tmp_path: Path) -> None:
    sets = [[1, 2], [0], []]
    marks = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    given = [sets, marks, pd.DataFrame(marks), pl.DataFrame(marks), pl.Series(sets), pa.array(sets), pd.Series(sets)]
    given += [swapped(marks), marks.astype(object), pd.DataFrame(marks).astype(object)]
    for at, label in enumerate(given):
        with Run(tmp_path / f"{at}", task="multilabel") as run:
            run.log_samples(sample_id=[1, 2, 3], label=label, loss=[0, 1, 2], **WHERE)
            run.log_inputs([1, 2, 3], np.ones((3, 2)), label=label)
            assert not run.stats()["refused"], at
        assert column(tmp_path / f"{at}", "label") == kept(tmp_path / f"{at}" / "inputs", "label") == sets, at


@pytest.mark.parametrize(
    "scores",
    [
        [[0.0, 1.0, 2.0], [3.0, None, 4.0], [6.0, 5.0, 0.0]],
        np.array([[0.0, 1.0, 2.0], [3.0, None, 4.0], [6.0, 5.0, 0.0]], object),
        np.array([[0.0, 1.0, 2.0], [3.0, "x", 4.0], [6.0, 5.0, 0.0]], object),
        pd.DataFrame([[0.0, 1.0, 2.0], [3.0, pd.NA, 4.0], [6.0, 5.0, 0.0]], dtype="Float64"),
    ],
)
def test_a_row_with_what_is_no_number_costs_itself(tmp_path: Path, scores: Any) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0, 1, 2], logits=scores, **WHERE)
        run.log_inputs([1, 2, 3], scores)
        told = run.stats()["refused"]
    assert column(tmp_path / "run", "prediction") == [2, None, 0]
    assert kept(tmp_path / "run" / "inputs", "sample_id") == [1, 3]
    assert [sum(told[name].values()) for name in ("logits", "inputs")] == [1, 1]


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i8", "u2", "?"])
def test_inputs_and_pictures_are_the_same_in_each_container(tmp_path: Path, kind: str) -> None:
    values = np.array([[[0, 1], [1, 0]], [[1, 1], [0, 1]]], kind)
    parts = [values, swapped(values), list(map(swapped, values)), torch.tensor(values.tolist()).numpy().astype(kind)]
    parts += [swapped(values)[::-1].copy()[::-1], {"": swapped(values)}, np.ma.array(swapped(values))]
    for at, given in enumerate(parts):
        with Run(tmp_path / f"{at}") as run:
            run.log_inputs([1, 2], given)
            run.log_images([1, 2], next(iter(given.values())) if isinstance(given, dict) else given)
            assert not run.stats()["refused"], at
        assert kept(tmp_path / f"{at}" / "inputs", "dtype") == [values.dtype.name] * 2, at
        assert kept(tmp_path / f"{at}" / "inputs", "data") == [one.tobytes() for one in values], at
        assert kept(tmp_path / f"{at}" / "media", "pixels") == kept(tmp_path / "0" / "media", "pixels"), at
    with Run(tmp_path / "objects") as run:
        run.log_inputs([1, 2], values.astype(object))
        assert not run.stats()["refused"]
    data, kinds = (kept(tmp_path / "objects" / "inputs", name) for name in ("data", "dtype"))
    found = [np.frombuffer(one, dtype).tolist() for one, dtype in zip(data, kinds, strict=True)]
    assert found == [[0, 1, 1, 0], [1, 1, 0, 1]]


def test_a_fact_in_single_precision_is_the_number_that_is_written(tmp_path: Path) -> None:
    values = np.array([0.1, 0.2, 3.3], np.float32)
    tensor = torch.tensor(values)
    given = [values, swapped(values), tensor, list(values), list(tensor), tuple(map(swapped, values)), pa.array(values)]
    given += [[torch.tensor(0.1), 0.2, np.float32(3.3)], [swapped(np.asarray(value)) for value in values]]
    for at, facts in enumerate(given):
        with Run(tmp_path / f"{at}") as run:
            run.log_facts([1, 2, 3], fact=facts)
        assert kept(tmp_path / f"{at}" / "facts", "fact") == [0.1, 0.2, 3.3], at
    with Run(tmp_path / "alone") as run:
        for sample, value in zip([1, 2, 3], tensor, strict=True):
            run.log_facts([sample], fact=[value])
    assert kept(tmp_path / "alone" / "facts", "fact") == [0.1, 0.2, 3.3]


def test_a_column_of_objects_keeps_each_kind() -> None:
    numbers = np.array([[2**53 + 1], [0.5]], object)
    assert read(numbers).tolist() == [[2**53 + 1], [0.5]]
    texts = np.array([["a", 1], ["b", 2]], object)
    assert read(texts) is texts


def test_nothing_is_said_of_an_empty_batch(tmp_path: Path) -> None:
    empty = [np.array([]), swapped(np.array([])), torch.tensor([]), pd.Series([], dtype=float), pl.Series([]), []]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Run(tmp_path / "run") as run:
            for none in empty:
                run.log_samples(sample_id=none, label=none, loss=none, **WHERE)
                run.log_facts(none, fact=none)
            run.log_samples(sample_id=["a"], loss=[1.0], **WHERE)
    assert [str(one.message) for one in said] == []
    assert column(tmp_path / "run", "sample_id") == ["a"]


@pytest.mark.parametrize(
    "label",
    [
        [1.5, None, 2.0],
        [1.5, math.nan, 2.0],
        np.array([1.5, math.nan, 2.0]),
        torch.tensor([1.5, math.nan, 2.0]),
        pd.Series([1.5, None, 2.0]),
        pd.array([1.5, None, 2.0], dtype="Float64"),
        pl.Series([1.5, None, 2.0]),
        pa.array([1.5, None, 2.0]),
    ],
)
def test_a_missing_label_of_a_regression_is_null_and_so_is_what_follows(tmp_path: Path, label: Any) -> None:
    """The first batch settles the task, with or without a gap."""
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3], label=label, prediction=[1.0, 1.0, math.nan], **WHERE)
    assert column(tmp_path / "run", "label") == [1.5, None, 2.0]
    for name, first in (("residual", 0.5), ("abs_error", 0.5), ("loss", 0.25)):
        found: Any = column(tmp_path / "run", name)
        assert [abs(found[0]), found[1], math.isnan(found[2])] == [first, None, True]
    assert rows(tmp_path / "run")["prediction"].null_count == 0


@pytest.mark.parametrize("order", [["a cat", math.nan, "a dog"], [math.nan, "a cat", "a dog"]])
def test_a_missing_text_that_is_logged_alone_is_no_text(tmp_path: Path, order: list[Any]) -> None:
    """As `itertuples` of pandas gives it: NaN."""
    from xaicli.api.run import open_run

    run_dir = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run(run_dir) as run:
            run.log_samples(sample_id=[1, 2, 3], loss=[0.0, 1.0, 2.0], **WHERE)
            for at, caption in enumerate(order):
                run.log_facts([at + 1], caption=caption)
                if not at:
                    run.flush()  # so that a file has one of them alone
    right = [None if caption is math.nan else caption for caption in order]
    found = open_run(run_dir).query("SELECT sample_id, caption FROM facts ORDER BY sample_id").data
    assert found["caption"].to_list() == right


def test_what_is_no_column_is_left_as_it_is() -> None:
    for value in (None, 3, "a text", {1: 2}, pd.Timestamp("2020-01-01"), pl.lit(1), pd.DataFrame()):
        assert read(value) is value
    whole = np.arange(3)
    assert read(whole) is whole
    assert read(pd.Series(whole)).dtype == whole.dtype
