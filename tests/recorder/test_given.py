"""What callers hand over as their libraries have it: columns of tables, lists of tensors, names and numbers of options.

The right values are those the caller's own library would give, written down by hand.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.recorder.recorded import column, rows
from xaicli.errors import UsageError
from xaicli.layout import RunLayout
from xaicli.queries.runs import info
from xaicli.reader import open_reader
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run

WHERE: dict[str, Any] = {"mode": "eval", "epoch": 1, "step": 1}


@pytest.mark.parametrize(
    ("ids", "loss", "label"),
    [
        (pl.Series([1, 2, 3]), pl.Series([1.5, None, math.nan]), pl.Series([1, None, 0])),
        (pa.array([1, 2, 3]), pa.chunked_array([[1.5, None], [math.nan]]), pa.array([1, None, 0])),
        ([1, 2, 3], [1.5, None, math.nan], [1, math.nan, 0]),
        (np.array([1, 2, 3]), np.array([1.5, None, math.nan], object), np.array([1, math.nan, 0], object)),
    ],
    ids=["polars", "pyarrow", "lists", "objects"],
)
def test_what_is_missing_in_a_column_is_null_and_nan_is_a_value(
    tmp_path: Path, ids: Any, loss: Any, label: Any
) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=ids, loss=loss, label=label, **WHERE)
    first, second, third = column(tmp_path / "run", "loss")
    assert (first, second) == (1.5, None)
    assert isinstance(third, float)
    assert math.isnan(third)
    assert column(tmp_path / "run", "label") == [1, None, 0]


def test_pandas_columns_of_any_kind(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(
            sample_id=pd.Categorical(["p", "q", "r"]),
            label=pd.Series(["x", None, "y"], dtype="category"),
            whole=pd.Series([1, None, 3], dtype="Int64"),
            truth=pd.Series([True, None, False], dtype="boolean"),
            real=pd.Series([0.5, 1.5, 2.5]),
            **WHERE,
        )
    found = {name: column(tmp_path / "run", name) for name in ("label", "whole", "truth", "real")}
    assert found == {
        "label": ["x", None, "y"],
        "whole": [1.0, None, 3.0],
        "truth": [1.0, None, 0.0],
        "real": [0.5, 1.5, 2.5],
    }


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([torch.tensor([0, 2]), torch.tensor([], dtype=torch.long)], [[0, 2], []]),
        ([torch.tensor([0, 2]), torch.tensor([1, 2])], [[0, 2], [1, 2]]),
        ([np.array([0, 2]), np.array([1, 2])], [[0, 2], [1, 2]]),
        ([torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0])], [[1, 2], [0]]),
    ],
    ids=["of several lengths", "of classes", "of classes, numpy", "rows of 0 and 1"],
)
def test_classes_of_a_sample_as_tensors(tmp_path: Path, label: Any, expected: list[list[int]]) -> None:
    with Run(tmp_path / "run", strict=True, task="multilabel") as run:
        run.log_samples(sample_id=[1, 2], label=label, logits=[[1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]], **WHERE)
    assert column(tmp_path / "run", "label") == expected


def test_a_soft_label_that_is_none_says_nothing_of_the_others(tmp_path: Path) -> None:
    """It once made the whole run one of several classes a sample."""
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="no row of probabilities"):
        run.log_samples(sample_id=[1, 2], label=[[0.3, 0.7], [math.nan, 1]], logits=[[0.0, 0.0]] * 2, **WHERE)
    assert json.loads((tmp_path / "run/xai.json").read_text())["task"] == "classification"
    assert column(tmp_path / "run", "label") == [1, None]
    assert column(tmp_path / "run", "loss") == pytest.approx([math.log(2), None])


def test_a_value_of_another_length_costs_itself(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="one value a sample is needed"):
        run.log_samples(sample_id=[1, 2, 3], loss=[[1], [2], [3, 4]], **WHERE)
    assert column(tmp_path / "run", "loss") == [1.0, 2.0, None]
    assert [*run.stats()["refused"]["loss"].values()] == [1]


def test_a_name_without_a_form_in_utf8_costs_its_column(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="has no form in UTF-8"):
        run.log_samples(sample_id=[1, 2], **{"x\ud800": [1, 2], "loss": [0.5, 1.5]}, **WHERE)
    assert column(tmp_path / "run", "loss") == [0.5, 1.5]
    assert run.stats()["rows_dropped"] == 0
    assert "UTF-8" in " ".join(info(open_reader(RunLayout(tmp_path / "run"))).warnings)


def test_probs_beside_logits_are_told(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="probs beside logits"):
        run.log_samples(sample_id=[1], label=[0], logits=[[0.0, 0.0]], probs=[[0.9, 0.1]], **WHERE)
    assert column(tmp_path / "run", "label_prob") == [0.5]


def test_truth_values_are_no_time(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        with pytest.warns(RecorderWarning, match="epoch True"):
            run.log_samples(sample_id=[1], loss=[1.0], mode="eval", epoch=True, step=1)
        with pytest.warns(RecorderWarning, match="epoch True"):
            run.log({"epoch": True, "lr": 0.5})
        run.log_samples(sample_id=[2], loss=[2.0], mode="eval", epoch=np.int64(2), step=torch.tensor(7))
    assert [(row["sample_id"], row["epoch"], row["step"]) for row in rows(tmp_path / "run").to_pylist()] == [(2, 2, 7)]
    assert [scalar["axis"] for scalar in _table(tmp_path / "run/scalars").to_pylist()] == ["counter"]


def test_rounded_whole_numbers_of_samples_are_counted(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="beyond"):
        run.log_samples(sample_id=[1, 2, 3], x=np.array([1, 2**53, 2**53 + 1]), **WHERE)
    assert column(tmp_path / "run", "x") == [1.0, 2.0**53, 2.0**53]
    assert [*run.stats()["refused"]["x"].values()] == [1]


def test_facts_of_several_kinds_are_text_and_others_are_named(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning) as said:
        run.log_facts(
            [1, 2, 3],
            number_first=[1, "x", None],
            text_first=["x", 1, None],
            truth_and_number=[True, 2, None],
            numbers=[1, 2.5, None],
            kept=[1 + 2j, 2, 3],
            large=[2**70, 1, 2],
        )
    table = _table(tmp_path / "run/facts").to_pydict()
    assert {name: table[name] for name in list(table)[1:]} == {
        "number_first": ["1", "x", None],
        "text_first": ["x", "1", None],
        "truth_and_number": ["true", "2", None],
        "numbers": [1.0, 2.5, None],
        "kept": [None, 2, 3],
        "large": [None, 1, 2],
    }
    told = sorted(str(one.message).split(";")[0] for one in said)
    assert told == [
        "xai: kept must be texts, numbers or dates, not complex",
        "xai: large holds whole numbers beyond 64 bits",
    ]


def test_pictures_of_pil_are_shown_in_their_colours(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 4), (200, 10, 30))
    given = [red.quantize(4), Image.new("CMYK", (4, 4), (0, 255, 255, 0)), Image.new("HSV", (4, 4), (0, 255, 255))]
    with Run(tmp_path / "run", strict=True) as run:
        run.log_images([1, 2, 3, 4], [*given, Image.new("LA", (4, 4), (100, 255))])
    kept = _table(tmp_path / "run/media").sort_by("sample_id").to_pylist()
    assert [tuple(row["pixels"][: row["channels"]]) for row in kept] == [
        (200, 10, 30),
        (255, 0, 0),
        (255, 0, 0),
        (100, 100, 100, 255),
    ]


@pytest.mark.parametrize(("shape", "told"), [((3, 3, 3), 1), ((3, 8, 3), 1), ((4, 4, 3), 0), ((3, 8, 8), 0)])
def test_a_shape_that_may_be_two_things_is_told(tmp_path: Path, shape: tuple[int, ...], told: int) -> None:
    with warnings.catch_warnings(record=True) as said, Run(tmp_path / "run") as run:
        warnings.simplefilter("always")
        run.log_images([1], np.zeros((1, *shape), np.uint8))
    assert ["may be (H, W, C) or (C, H, W)" in str(one.message) for one in said] == [True] * told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": "a"}, "rank 'a' is no whole number"),
        ({"rank": True}, "rank True is no whole number"),
        ({"label_names": "abc"}, "is one text"),
        ({"label_names": 3}, r"label_names=3 is no list of names"),
        ({"label_names": {"cat", "dog"}}, "has no order"),
        ({"label_names": {1: "a", 2: "b"}}, "does not name the classes 0 to 1"),
        ({"total_epochs": "3"}, "total_epochs '3' is no whole number"),
        ({"total_epochs": -1}, "must be a whole number, 0 or more"),
        ({"float64": True}, "must be names of metrics"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """A rank of True once dropped every row; names as a mapping became numbers."""
    with pytest.raises((ValueError, UsageError), match=said):
        Run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", [["cat", "dog"], {0: "cat", 1: "dog"}, {"dog": 1, "cat": 0}])
def test_names_of_classes_as_people_keep_them(tmp_path: Path, names: Any) -> None:
    with Run(tmp_path / "run", strict=True, label_names=names, float64="loss") as run:
        run.log_samples(sample_id=[1], label=["dog"], logits=[[0.0, 1.0]], loss=[0.1], **WHERE)
    assert json.loads((tmp_path / "run/xai.json").read_text())["label_names"] == ["cat", "dog"]
    assert column(tmp_path / "run", "prediction") == ["dog"]
    assert column(tmp_path / "run", "loss") == [0.1]


def test_double_precision_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with Run(tmp_path / "run", float64=["loss"]) as run, pytest.warns(RecorderWarning, match="give loss= yourself"):
        run.log_samples(sample_id=[1], label=[0], logits=[[0.0, 0.0]], **WHERE)


def _table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(path).read() for path in sorted(folder.glob("*.parquet"))])


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.filterwarnings("ignore:the checkpoint holds no graph")
def test_info_says_of_a_file_that_cannot_be_written_just_that(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], loss=[0.5], **WHERE)
        for _ in range(2):
            run.save_checkpoint(torch.nn.Linear(1, 1), tmp_path / "file" / "ckpt.pt")
    said = [line for line in info(open_reader(RunLayout(tmp_path / "run"))).warnings if "cannot be written" in line]
    assert len(said) == 1
    assert said[0].startswith("checkpoint ckpt.pt cannot be written: ")
    assert said[0].endswith(" (2 times)")
