"""What `log_samples` stores, derives and refuses."""

from __future__ import annotations

import json
import math
import uuid
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recorder.recorded import column, rows
from xaicli.layout import RunLayout
from xaicli.reader import Place, open_reader
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run


def test_every_kind_of_array_gives_the_same_row(tmp_path: Path) -> None:
    forms: list[Any] = [
        [0.5, 2.0],
        np.array([0.5, 2.0]),
        np.array([[0.5], [2.0]], np.float16),
        torch.tensor([0.5, 2.0], requires_grad=True),
        torch.tensor([[0.5], [2.0]], dtype=torch.bfloat16),
        torch.tensor([0.5, 2.0], dtype=torch.float64),
        [torch.tensor(0.5), torch.tensor(2.0)],
    ]
    with Run(tmp_path / "run", strict=True) as run:
        for epoch, form in enumerate(forms, 1):
            ids = torch.tensor([7, 8], dtype=torch.int32) if epoch % 2 else [7, 8]
            run.log_samples(sample_id=ids, label=np.array([1, 0], np.uint8), loss=form, epoch=epoch, step=epoch)
    stored = rows(tmp_path / "run").sort_by([("epoch", "ascending"), ("sample_id", "ascending")]).to_pylist()
    assert [(row["sample_id"], row["label"], row["loss"]) for row in stored] == [(7, 1, 0.5), (8, 0, 2.0)] * len(forms)


def test_a_single_sample_needs_no_axis(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=torch.tensor(3), loss=torch.tensor(0.25), logits=torch.tensor([1.0, 2.0]), label=1)
    assert column(tmp_path / "run", "loss") == [0.25]
    assert column(tmp_path / "run", "prediction") == [1]


def test_columns_have_the_documented_order_and_types(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True, float64=["precise"]) as run:
        run.log_samples(
            sample_id=[1], label=[2], prediction=[2], loss=[1.0], precise=[0.1], mode="eval", ds_id="a/b", step=5
        )
    table = rows(tmp_path / "run")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("sample_id", "int64"),
        ("mode", "string"),
        ("ds_id", "string"),
        ("epoch", "int32"),
        ("pass", "int16"),
        ("step", "int64"),
        ("attempt", "int16"),
        ("rank", "int16"),
        ("label", "int32"),
        ("prediction", "int32"),
        ("correct", "bool"),
        ("loss", "float"),
        ("precise", "double"),
    ]
    assert table.to_pylist()[0] | {"loss": 1.0} == {
        "sample_id": 1,
        "mode": "eval",
        "ds_id": "a/b",
        "epoch": 0,
        "pass": 0,
        "step": 5,
        "attempt": 0,
        "rank": 0,
        "label": 2,
        "prediction": 2,
        "correct": True,
        "loss": 1.0,
        "precise": 0.1,
    }
    assert list((tmp_path / "run" / "data").rglob("mode=eval/ds=a%2Fb/epoch=0/part-a000000-r0000-00000000.parquet"))


def test_the_manifest_lists_the_columns(tmp_path: Path) -> None:
    with Run(tmp_path / "run", name="n", config={"lr": 1}, label_names=["a", "b"], strict=True) as run:
        run.log_samples(sample_id=["x"], loss=[1.0])
    facts = json.loads((tmp_path / "run" / "xai.json").read_text())
    assert (facts["format"], facts["version"], facts["id_type"]) == ("xai-run", 2, "string")
    assert (facts["name"], facts["config"], facts["label_names"]) == ("n", {"lr": 1}, ["a", "b"])
    assert {"name": "loss", "dtype": "float", "role": "metric"} in facts["columns"]


def test_a_late_metric_is_null_before(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[1], loss=[1.0], step=1)
        run.log_samples(sample_id=[2], loss=[2.0], late=[9.0], step=2)
        run.log_samples(sample_id=[3], late=[8.0], label=[None], step=3)
    assert column(tmp_path / "run", "late") == [None, 9.0, 8.0]
    assert column(tmp_path / "run", "loss") == [1.0, 2.0, None]
    assert "label" not in rows(tmp_path / "run").column_names, "no value, no kind"


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"sample_id": ["a"], "loss": [1.0]}, "sample_id must be whole numbers as before"),
        ({"sample_id": [1.5], "loss": [1.0]}, "sample_id must be whole numbers or texts"),
        ({"sample_id": [2**63], "loss": [1.0]}, "sample_id"),
        ({"sample_id": [None], "loss": [1.0]}, "sample_id has a missing value"),
        ({"sample_id": [1], "mode": "val", "loss": [1.0]}, "mode 'val' is none of train, eval"),
        ({"sample_id": [1], "epoch": 2**31, "loss": [1.0]}, "epoch 2147483648"),
        ({"sample_id": [1], "ds_id": "x" * 300, "loss": [1.0]}, "ds_id is too long"),
        ({"sample_id": [1], "ds_id": 3, "loss": [1.0]}, "ds_id must be a text"),
    ],
)
def test_what_cannot_be_stored_is_named_or_dropped(tmp_path: Path, bad: dict[str, Any], named: str) -> None:
    with Run(tmp_path / "strict", strict=True) as run:
        run.log_samples(sample_id=[0], loss=[0.0])
        with pytest.raises(ValueError) as error:
            run.log_samples(**bad)
        assert named in str(error.value)
    run = Run(tmp_path / "lenient")
    run.log_samples(sample_id=[0], loss=[0.0])
    with pytest.warns(RecorderWarning, match="training goes on"):
        run.log_samples(**bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.log_samples(**bad)  # it is said once
    run.log_samples(sample_id=[5], loss=[5.0])
    run.close()
    stats = run.stats()
    assert stats["rows_dropped"] == 2 * len(bad["sample_id"])
    assert stats["rows_logged"] == stats["rows_stored"] + stats["rows_dropped"]
    assert column(tmp_path / "lenient", "loss") == [0.0, 5.0]
    kept = json.loads((tmp_path / "lenient" / "attempts" / "000000-r0000.stats").read_text())
    assert kept["rows_dropped"] == stats["rows_dropped"]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"loss": [1.0]}, "loss has 1 values for 2 sample ids"),
        ({"loss": ["low", "high"]}, "loss is not numeric"),
        ({"loss": [[1.0, 2.0], [3.0, 4.0]]}, "loss has shape (2, 2)"),
        ({"loss": [[1.0, 2.0], [3.0, 4.0, 5.0]]}, "loss"),
        ({"loss": torch.tensor([1j, 2j])}, "loss is not numeric"),
        ({"label": [1]}, "label has 1 values for 2 sample ids"),
        ({"label": ["cat", "dog"]}, "label must be whole numbers as before"),
        ({"label": [0.5, 1.5]}, "label must be whole numbers or texts"),
        ({"prediction": ["cat", "dog"]}, "prediction must be whole numbers as before"),
        ({"logits": [[], []]}, "logits has shape (2, 0)"),
        ({"logits": [[1.0, 2.0]] * 3}, "logits has 3 rows for 2 sample ids"),
        ({"attempt": [1.0, 2.0]}, "attempt is a column of its own"),
        ({"ds": [1.0, 2.0]}, "ds is a column of its own"),
    ],
)
def test_a_column_that_cannot_be_kept_is_left_out_alone(tmp_path: Path, bad: dict[str, Any], named: str) -> None:
    good = {"sample_id": [1, 2], "label": [0, 1], "prediction": [1, 1], "loss": [0.5, 1.5], "own": [2.5, 3.5]}
    with Run(tmp_path / "strict", strict=True) as run:
        run.log_samples(**good, epoch=1, step=0)
        with pytest.raises(ValueError) as error:
            run.log_samples(**good | bad, epoch=1, step=1)
        assert named in str(error.value)
    name = next(iter(bad))
    with Run(tmp_path / "lenient") as run:
        run.log_samples(**good, epoch=1, step=0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run.log_samples(**good | bad, epoch=1, step=1)
            run.log_samples(**good | bad, epoch=1, step=2)
    assert [named in str(warning.message) for warning in said] == [True], "once"
    assert said[0].filename == __file__
    stats = run.stats()
    assert (stats["rows_logged"], stats["rows_stored"], stats["rows_dropped"]) == (6, 6, 0)
    assert sum(stats["refused"][name].values()) == 4
    stored = [row for row in rows(tmp_path / "lenient").to_pylist() if row["step"]]
    for column_name in set(good) - {name}:
        assert [row[column_name] for row in stored] == good[column_name] * 2
    if name in good:
        assert [row[name] for row in stored] == [None] * 4


def test_one_label_beyond_32_bits_is_null_alone(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="label has a value beyond 32 bits"):
        run.log_samples(sample_id=[1, 2], label=[7, 2**31], prediction=[7, 7], loss=[0.5, 1.5])
    assert column(tmp_path / "run", "label") == [7, None]
    assert column(tmp_path / "run", "correct") == [True, None]


def test_rows_without_an_id_are_dropped_alone(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, pytest.warns(RecorderWarning, match="sample_id has a missing value"):
        run.log_samples(sample_id=[1, None, 3], label=["a", "b", "c"], loss=[1.0, 2.0, 3.0])
    assert [(row["sample_id"], row["label"]) for row in rows(tmp_path / "run").to_pylist()] == [(1, "a"), (3, "c")]
    assert (run.stats()["rows_logged"], run.stats()["rows_dropped"]) == (3, 1)


def test_a_label_beyond_32_bits_in_a_known_kind_of_batch(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        for step in range(5):
            ids = np.arange(4) + 4 * step
            label = np.array([0, -1, 2**31 - 1, 2**31 if step == 3 else 7])
            run.log_samples(sample_id=ids, label=label, prediction=label % 5, loss=ids / 8, step=step)

    run = Run(tmp_path / "lenient")
    log(run)
    labels = [0, -1, 2**31 - 1, 7] * 3 + [0, -1, 2**31 - 1, None] + [0, -1, 2**31 - 1, 7]
    assert column(tmp_path / "lenient", "label") == labels, "also while it is live"
    with pytest.warns(RecorderWarning, match="beyond 32 bits"):
        run.close()
    assert column(tmp_path / "lenient", "label") == labels
    stats = run.stats()
    assert (stats["rows_logged"], stats["rows_stored"], stats["rows_dropped"]) == (20, 20, 0)
    assert sum(stats["refused"]["label"].values()) == 1
    with Run(tmp_path / "strict", strict=True) as run, pytest.raises(ValueError, match="label has a value beyond"):
        log(run)
    assert column(tmp_path / "strict", "sample_id") == list(range(12))


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float64", "bool"]
)
def test_arrays_of_any_type_are_stored_alike(tmp_path: Path, dtype: str) -> None:
    with Run(tmp_path / "run", strict=True, float64=["precise"]) as run:
        for step in range(4):
            values = np.arange(3 * step, 3 * step + 3) % 2 if dtype == "bool" else np.arange(3 * step, 3 * step + 3)
            ids = values.astype("int64" if dtype[0] in "fb" else dtype) + (3 * step if dtype == "bool" else 0)
            run.log_samples(
                sample_id=ids, label=ids, loss=values.astype(dtype), precise=values.astype(dtype), step=step
            )
    table = rows(tmp_path / "run")
    assert [str(table.schema.field(name).type) for name in ("sample_id", "label", "loss", "precise")] == [
        *("int64", "int32", "float", "double")
    ]
    expected = [float(i % 2 if dtype == "bool" else i) for i in range(12)]
    assert table["loss"].to_pylist() == table["precise"].to_pylist() == expected
    assert table["sample_id"].to_pylist() == table["label"].to_pylist()


@pytest.mark.parametrize("kind", [np.array, list, torch.tensor])
def test_numbers_beyond_single_precision_are_kept_in_double_and_said(tmp_path: Path, kind: Any) -> None:
    given = [[0.5, math.inf], [1e300, math.nan], [-1e200, 3.0]]  # the first batch is in a file before the second
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Run(tmp_path / "run", strict=True) as run:
            for step, values in enumerate(given):
                loss = kind(values) if kind is not torch.tensor else torch.tensor(values, dtype=torch.float64)
                run.log_samples(sample_id=np.array([2 * step, 2 * step + 1]), loss=loss, epoch=1, step=step)
                frame, _ = open_reader(RunLayout(tmp_path / "run")).frame(
                    Place("train", "", 1), ["loss"], keep_non_finite=True
                )
                assert len(frame) == 2 * step + 2
                assert step == 0 or frame["loss"].is_in([1e300]).any()
                if step == 0:
                    run.flush()
    frame, _ = open_reader(RunLayout(tmp_path / "run")).frame(Place("train", "", 1), ["loss"], keep_non_finite=True)
    assert repr(frame["loss"].to_list()) == repr([value for values in given for value in values])
    assert [str(one.message) for one in said] == [
        "xai: loss has numbers beyond single precision: it is kept in double precision"
    ]
    assert {c.name: c.dtype for c in RunLayout(tmp_path / "run").read_manifest().columns}["loss"] == "double"


def test_whole_numbers_beyond_double_precision_are_rounded_and_said(tmp_path: Path) -> None:
    given = [2**24, 2**24 + 1, 2**53 + 1, 2**60 + 1]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Run(tmp_path / "run", strict=True) as run:
            for step, value in enumerate(given):
                run.log_samples(sample_id=np.array([step]), count=np.array([value]), epoch=1, step=step)
    assert column(tmp_path / "run", "count") == [float(value) for value in given]
    assert [str(one.message).split(":")[1].strip() for one in said] == [
        "count has whole numbers beyond 2^24",
        "count has whole numbers beyond 2^53",
    ]


def test_paths_and_uuids_are_ids_as_people_write_them(tmp_path: Path) -> None:
    number = uuid.UUID("12345678123456781234567812345678")
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[Path("data/cat 1.png"), Path("dog.png")], loss=[0.5, 1.5], epoch=1)
        run.log_samples(sample_id=[number], loss=[2.5], epoch=1)
        run.log_samples(sample_id=np.array(["bird.png", Path("data/fish.png")], object), loss=[3.5, 4.5], epoch=1)
        run.log_facts([Path("dog.png")], camera=["left"])
    ids = column(tmp_path / "run", "sample_id")
    assert set(ids) == {"data/cat 1.png", "dog.png", str(number), "bird.png", "data/fish.png"}


def test_a_missing_value_is_null_and_no_number(tmp_path: Path) -> None:
    masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    with Run(tmp_path / "run", strict=True, float64=["precise"]) as run:
        run.log_samples(
            sample_id=[0, 1, 2],
            loss=[1.0, None, math.nan],
            precise=[None, 0.1, math.inf],
            masked=masked,
            epoch=1,
            step=1,
        )
        seen, _ = open_reader(RunLayout(tmp_path / "run")).frame(
            Place("train", "", 1), ["loss", "precise", "masked"], keep_non_finite=True
        )
        run.flush()
        run.log_samples(sample_id=[3], loss=np.array([0.5]), precise=[0.2], masked=[4.0], epoch=1, step=2)
    assert seen["loss"].null_count() == 1
    assert repr(column(tmp_path / "run", "loss")) == "[1.0, None, nan, 0.5]"
    assert column(tmp_path / "run", "precise") == [None, 0.1, math.inf, 0.2]
    assert column(tmp_path / "run", "masked") == [1.0, None, 3.0, 4.0]
    _, tally = open_reader(RunLayout(tmp_path / "run")).frame(Place("train", "", 1), ["loss", "precise"])
    assert tally.non_finite == 2


def test_a_lone_surrogate_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=["good"], loss=[1.0])
        with pytest.warns(RecorderWarning):
            run.log_samples(sample_id=["bad\ud800"], loss=[2.0])
        run.log_samples(sample_id=["nul\0 ünï"], loss=[3.0])
    assert column(tmp_path / "run", "sample_id") == ["good", "nul\0 ünï"]


def test_warnings_as_errors_do_not_reach_training(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run(tmp_path / "run") as run:
            run.log_samples(sample_id=[1], loss=["no number"])
    assert run.stats()["refused"] == {"loss": {"loss is not numeric: it holds text": 1}}


def test_special_values_are_stored_as_they_are(tmp_path: Path) -> None:
    values = [math.nan, math.inf, -math.inf, -0.0, 1e-45]
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=range(5), loss=values, flag=np.array([True, False, True, True, False]))
        run.log_samples(sample_id=[], loss=[])
    stored = np.array(column(tmp_path / "run", "loss"), np.float32)
    assert stored.tobytes() == np.array(values, np.float32).tobytes()
    assert column(tmp_path / "run", "flag") == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_state_says_where_and_arguments_say_otherwise(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        seen = []
        for epoch in run.epochs(2):
            for batch in run.steps([10, 20], mode="train"):
                run.log_samples(sample_id=[batch], loss=[0.0])
                seen.append((epoch, run.state.global_step, run.state.batch_idx))
            for batch in run.steps([30], mode="eval", ds_id="held out"):
                run.log_samples(sample_id=[batch], loss=[1.0])
        run.log_samples(sample_id=[99], loss=[0.0], mode="test", ds_id="", epoch=9, step=123)
    assert seen == [(1, 1, 1), (1, 2, 2), (2, 3, 1), (2, 4, 2)]
    places = {(r["mode"], r["ds_id"], r["epoch"], r["step"]) for r in rows(tmp_path / "run").to_pylist()}
    assert places == {
        *{("train", "", 1, 1), ("train", "", 1, 2), ("train", "", 2, 3), ("train", "", 2, 4)},
        *{("eval", "held out", 1, 2), ("eval", "held out", 2, 4), ("test", "", 9, 123)},
    }


def test_epoch_frequency_records_the_epochs_it_divides(tmp_path: Path) -> None:
    with Run(tmp_path / "run", epoch_frequency=3, strict=True) as run:
        for epoch in run.epochs(7):
            run.log_samples(sample_id=[epoch], loss=[1.0])
    assert column(tmp_path / "run", "epoch") == [3, 6]


def test_probabilities_are_kept_in_the_epochs_asked_for(tmp_path: Path) -> None:
    logits = np.array([[0.0, 1.0, -2.0]])
    many = np.linspace(-1, 1, 50)[None]
    with Run(tmp_path / "few", keep_probs=[2], strict=True) as few, Run(tmp_path / "many", keep_probs=True) as run:
        for epoch in (1, 2):
            few.log_samples(sample_id=[epoch], logits=logits, label=[1], epoch=epoch)
        run.log_samples(sample_id=[1], probs=np.exp(many) / np.exp(many).sum(), epoch=1)
    none, kept = column(tmp_path / "few", "probs")
    assert none is None
    assert kept == pytest.approx((np.exp(logits) / np.exp(logits).sum())[0], abs=1e-3)
    assert len(column(tmp_path / "many", "probs")[0]) == 50  # type: ignore[arg-type]
    assert str(rows(tmp_path / "few").schema.field("probs").type) == "list<element: halffloat>"


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("classes", [3, 200])  # few are derived when they are read, many when they are logged
def test_probabilities_of_a_sample_without_scores_are_missing_and_those_of_nan_are_nan(
    tmp_path: Path, kind: str, classes: int
) -> None:
    even = [1 / classes] * classes
    with Run(tmp_path / "run", keep_probs=True, strict=True) as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0, 1, 2], **{kind: [even, None, [math.nan] * classes]})
    first, second, third = column(tmp_path / "run", "probs")
    assert first == pytest.approx(even, rel=1e-3)
    assert second is None
    assert len(third) == classes
    assert np.isnan(third).all()


def test_text_labels_are_compared_by_the_runs_names(tmp_path: Path) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"], strict=True) as run:
        run.log_samples(sample_id=[1, 2], label=["dog", "cat"], logits=np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert column(tmp_path / "run", "prediction") == ["dog", "dog"]
    assert column(tmp_path / "run", "correct") == [True, False]
    assert column(tmp_path / "run", "label_prob") == pytest.approx([0.7310586, 0.2689414])


def test_a_batch_larger_than_a_segment_is_stored_in_pieces(tmp_path: Path) -> None:
    n = 400_001
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=np.arange(n), loss=np.arange(n) % 97, step=1)
    table = rows(tmp_path / "run").sort_by("sample_id")
    assert (table["sample_id"].to_numpy() == np.arange(n)).all()
    assert (table["loss"].to_numpy() == np.arange(n) % 97).all()
    assert run.stats()["rows_stored"] == n


def test_an_empty_batch_does_not_let_fractional_ids_through(tmp_path: Path) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=np.array([]), loss=np.array([]))
        with pytest.raises(ValueError, match="sample_id must be whole numbers"):
            run.log_samples(sample_id=np.array([1.5]), loss=np.array([1.0]))


def test_non_contiguous_odd_and_changing_batches(tmp_path: Path) -> None:
    both = np.arange(20, dtype=np.int64).reshape(10, 2)
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    with Run(tmp_path / "run", strict=True) as run:
        for i, n in enumerate([4, 4, 3, 4, 1]):
            at = slice(2 * i, 2 * i + n)
            run.log_samples(sample_id=both[at, 0] + 100 * i, label=both[at, 1], loss=values[at, 0], step=i)
        run.log_samples(sample_id=np.array([900]), label=np.array([-7]), loss=np.array([1.0], np.float32), step=9)
        run.log_samples(sample_id=np.array([901]), label=np.array([3], np.int32), loss=np.array([2.0]), step=9)
    stored = rows(tmp_path / "run").sort_by([("step", "ascending"), ("sample_id", "ascending")]).to_pylist()
    expected = [
        (int(both[k, 0]) + 100 * i, int(both[k, 1]), float(values[k, 0]))
        for i, n in enumerate([4, 4, 3, 4, 1])
        for k in range(2 * i, min(2 * i + n, 10))
    ]
    assert [(r["sample_id"], r["label"], r["loss"]) for r in stored] == [*expected, (900, -7, 1.0), (901, 3, 2.0)]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_score_a_sample_is_that_of_the_second_class(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(3):
            logits = torch.tensor([2.0, -1.0]).reshape(shape)
            run.log_samples(sample_id=[0, 1], label=[1, 1], logits=logits, mode="train", step=step)
            run.log_samples(sample_id=[0, 1], label=[1, 1], probs=torch.sigmoid(logits), mode="eval", step=step)
    for row in rows(tmp_path / "run").to_pylist():
        z = [2.0, -1.0][row["sample_id"]]
        assert row["label_prob"] == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-5)
        assert row["prediction"] == (z > 0)
        if row["mode"] == "train":
            assert row["margin"] == pytest.approx(z)


class Column:
    """A column of another library, with numpy's dtype and shape but not its methods."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return self.values

    def __len__(self) -> int:
        return len(self.values)


@pytest.mark.parametrize("kind", [Column, np.ma.array])
def test_other_libraries_columns_among_arrays(tmp_path: Path, kind: Any) -> None:
    with Run(tmp_path / "run", strict=True) as run:
        for step in range(6):
            make = kind if step % 2 else np.asarray
            ids, values = np.arange(4) + 4 * step, np.full(4, step, np.float32)
            run.log_samples(sample_id=make(ids), label=make(ids % 3), loss=make(values), step=step)
    stored = rows(tmp_path / "run").to_pylist()
    assert [(r["sample_id"], r["label"], r["loss"]) for r in stored] == [(i, i % 3, i // 4) for i in range(24)]


_batches = st.lists(
    st.tuples(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
        st.integers(0, 3),
        st.sampled_from(["train", "eval"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(batches=_batches, as_text=st.booleans())
def test_any_sequence_of_batches_comes_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Any], as_text: bool
) -> None:
    folder = tmp_path_factory.mktemp("any") / "run"
    expected = []
    with Run(folder, strict=True) as run:
        for step, (ids, epoch, mode, labelled) in enumerate(batches):
            keys = [f"{i}é" for i in ids] if as_text else ids
            extra = {"label": [i % 5 for i in ids]} if labelled else {}
            run.log_samples(sample_id=keys, loss=[step] * len(ids), epoch=epoch, mode=mode, step=step, **extra)
            expected += [
                (key, mode, epoch, step, i % 5 if labelled else None) for key, i in zip(keys, ids, strict=True)
            ]
            if step % 3 == 2:
                run.flush()
    stored = [(r["sample_id"], r["mode"], r["epoch"], r["step"], r.get("label")) for r in rows(folder).to_pylist()]
    assert sorted(stored, key=str) == sorted(expected, key=str)


def test_rows_that_wait_in_a_segment_are_counted(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=np.arange(100), loss=np.ones(100), epoch=epoch, step=epoch)
        run.flush()
        run.log_samples(sample_id=np.arange(7), loss=np.ones(7), epoch=3, step=4)
        stats = run.stats()
    assert [stats[f"rows_{what}"] for what in ("logged", "stored", "dropped", "waiting")] == [307, 300, 0, 7]
    assert run.stats()["rows_waiting"] == 0


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_a_quantized_tensor_is_what_it_holds_and_one_without_values_is_refused_in_our_words(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.tensor([1.0, 2.5]), 0.5, 0, torch.qint8)
    with (
        Run(tmp_path / "run") as run,
        pytest.warns(RecorderWarning, match="margin is no column: the tensor is of the meta device and has no val"),
    ):
        run.log_samples(sample_id=[0, 1], loss=quantized, margin=torch.empty(2, device="meta"), step=1)
    assert column(tmp_path / "run", "loss") == [1.0, 2.5]


@pytest.mark.parametrize("kind", [list, partial(np.array, dtype=np.uint64)])
@pytest.mark.parametrize("label", [2**31, 2**62 + 1, 2**63, 2**64 - 1])
def test_a_label_that_is_too_large_is_named_as_it_was_given(tmp_path: Path, kind: Any, label: int) -> None:
    with Run(tmp_path) as run, pytest.warns(RecorderWarning, match=f"beyond 32 bits: {label};"):
        run.log_samples(sample_id=[1, 2], label=kind([7, label]), loss=[0.5, 1.5])
    assert rows(tmp_path).sort_by("sample_id")["label"].to_pylist() == [7, None]
